"""Apache Kafka without ZooKeeper: each process is a broker and a controller.

What is set differs from Kafka's defaults only where the project needs it, or where a small stack would otherwise be
slow to start or to react: few partitions for Kafka's own topics, no wait before a group's first rebalance, transactions
that have timed out looked for each second.
"""

import subprocess
from pathlib import Path
from typing import Final

from sim.stack.maven import class_path
from sim.stack.processes import ServerCommand
from sim.stack.settings import KAFKA, LOOPBACK, StackError, StackSettings

CLUSTER_ID: Final = "ZXhjaGFuZ2Utc2ltLXN0aw"
"""Any fixed 16 bytes in base64: the data says whose it is."""

MAX_RECORD_BYTES: Final = 8 * 1024 * 1024 + 64 * 1024
"""8 MiB of record (design 4.1.7) and what a batch adds around it."""

INTERNAL_PARTITIONS: Final = 8
FORMAT_TIMEOUT_S: Final = 120


def brokers(settings: StackSettings, java: Path, jars: Path, folder: Path) -> list[ServerCommand]:
    """Write each broker's configuration and format its storage if it is new; the commands that start them."""
    return [
        _broker(settings, java, jars, folder / "kafka" / f"broker-{number}", number)
        for number in range(settings.brokers)
    ]


def _broker(settings: StackSettings, java: Path, jars: Path, home: Path, number: int) -> ServerCommand:
    home.mkdir(parents=True, exist_ok=True)
    properties = home / "server.properties"
    properties.write_text("".join(f"{key}={value}\n" for key, value in _properties(settings, home, number).items()))
    logging = home / "log4j.properties"
    logging.write_text(_LOGGING)
    classes = ["-cp", class_path(jars), f"-Dlog4j.configuration={logging.as_uri()}"]
    if not (home / "data" / "meta.properties").is_file():
        _format(java, classes, properties)
    heap = f"{settings.kafka_heap_mb}m"
    options = [
        f"-Xms{heap}", f"-Xmx{heap}", "-XX:+UseG1GC", "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true",
        f"-XX:ErrorFile={home / 'java-error.log'}",
    ]  # fmt: skip
    return ServerCommand(
        name=f"{KAFKA}-{number}",
        service=KAFKA,
        arguments=[str(java), *options, *classes, "kafka.Kafka", str(properties)],
        log=home / "server.log",
        address=f"{LOOPBACK}:{settings.broker_ports()[number]}",
    )


def _format(java: Path, classes: list[str], properties: Path) -> None:
    arguments = ["format", "--cluster-id", CLUSTER_ID, "--config", str(properties), "--ignore-formatted"]
    try:
        run = subprocess.run(
            [str(java), "-Xmx128m", *classes, "kafka.tools.StorageTool", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=FORMAT_TIMEOUT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise StackError(f"Kafka's storage was not formatted in {FORMAT_TIMEOUT_S} s ({properties})") from None
    if run.returncode != 0:
        raise StackError(f"Kafka could not format its storage ({properties})", run.stdout.splitlines()[-10:])


def _properties(settings: StackSettings, home: Path, number: int) -> dict[str, object]:
    replicas = settings.brokers
    in_sync = 2 if replicas > 1 else 1
    voters = [f"{node}@{LOOPBACK}:{port}" for node, port in enumerate(settings.controller_ports(), start=1)]
    return {
        "process.roles": "broker,controller",
        "node.id": number + 1,
        "controller.quorum.voters": ",".join(voters),
        "listeners": f"CLIENT://{LOOPBACK}:{settings.broker_ports()[number]},"
        f"CONTROLLER://{LOOPBACK}:{settings.controller_ports()[number]}",
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "CLIENT",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": home / "data",
        # A topic that is asked for by mistake must be an error, as in production.
        "auto.create.topics.enable": "false",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": INTERNAL_PARTITIONS,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "transaction.state.log.num.partitions": INTERNAL_PARTITIONS,
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1_000,
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1_000,
        "message.max.bytes": MAX_RECORD_BYTES,
        "replica.fetch.max.bytes": MAX_RECORD_BYTES,
        "log.retention.ms": -1,
        # The cleaner's default of 128 MB is a quarter of the heap.
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
        # The whole stack goes down at once: handing leaderships over to brokers that stop too only takes time.
        "controlled.shutdown.enable": "false",
    }


_LOGGING = """\
log4j.rootLogger=INFO, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%d %p %m (%c)%n
log4j.logger.org.apache.kafka.clients=WARN
log4j.logger.org.apache.kafka.common.config.AbstractConfig=WARN
log4j.logger.kafka.server.KafkaConfig=WARN
log4j.logger.state.change.logger=WARN
"""
