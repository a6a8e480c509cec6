"""One node of Apache Cassandra 5.0, of the data centre `datacenter1`, as small and quick to start as it goes.

Left as Cassandra has them: everything that decides what a statement means. Set: where it listens and stores, how long
it waits for other nodes that do not exist, and time-outs that a slow, shared machine can keep.
"""

import json
from pathlib import Path
from typing import Final

from sim.stack.maven import class_path
from sim.stack.processes import ServerCommand
from sim.stack.settings import CASSANDRA, LOOPBACK, StackError, StackSettings

_EXPORTS: Final = (
    "java.base/java.lang.ref", "java.base/java.lang.reflect", "java.base/jdk.internal.misc",
    "java.base/jdk.internal.ref", "java.base/sun.nio.ch", "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry", "java.rmi/sun.rmi.server", "java.sql/java.sql", "jdk.unsupported/sun.misc",
)  # fmt: skip
_OPENS: Final = (
    "java.base/java.io", "java.base/java.lang", "java.base/java.lang.module", "java.base/java.lang.reflect",
    "java.base/java.math", "java.base/java.net", "java.base/java.nio", "java.base/java.util",
    "java.base/java.util.concurrent", "java.base/java.util.concurrent.atomic", "java.base/jdk.internal.loader",
    "java.base/jdk.internal.math", "java.base/jdk.internal.module", "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect", "java.base/jdk.internal.util.jar", "java.base/sun.nio.ch",
    "jdk.management/com.sun.management.internal",
)  # fmt: skip
"""What Cassandra's own jvm17-server.options opens of Java's insides."""


def node(settings: StackSettings, java: Path, jars: Path, folder: Path) -> ServerCommand:
    """Write the node's configuration; the command that starts it."""
    home = folder / "cassandra"
    home.mkdir(parents=True, exist_ok=True)
    configuration = home / "cassandra.yaml"
    # JSON is YAML: nothing has to be quoted by hand.
    configuration.write_text(json.dumps(_configuration(settings, home), indent=2) + "\n")
    logging = home / "logback.xml"
    logging.write_text(_LOGGING)
    agents = sorted(jars.glob("jamm-*.jar"))
    if not agents:
        raise StackError(f"there is no jamm jar in {jars}, without which Cassandra does not start; remove the folder")
    heap = f"{settings.cassandra_heap_mb}m"
    options = [
        f"-Xms{heap}", f"-Xmx{heap}", "-Xss256k", "-XX:+UseG1GC", "-XX:+ExitOnOutOfMemoryError",
        "-XX:+UseThreadPriorities", f"-XX:ErrorFile={home / 'java-error.log'}", f"-javaagent:{agents[0]}",
        "-Djava.awt.headless=true", "-Djava.net.preferIPv4Stack=true", "-Djava.security.manager=allow",
        "-Djdk.attach.allowAttachSelf=true", "-Djna.nosys=true", "-Dio.netty.tryReflectionSetAccessible=true",
    ]  # fmt: skip
    options += [f"--add-exports={package}=ALL-UNNAMED" for package in _EXPORTS]
    options += [f"--add-opens={package}=ALL-UNNAMED" for package in _OPENS]
    properties = {
        "cassandra.config": configuration.as_uri(),
        "cassandra.storagedir": home / "data",
        "logback.configurationFile": logging,
        "cassandra-foreground": "yes",
        # One node has nobody to wait for.
        "cassandra.skip_wait_for_gossip_to_settle": 0,
        "cassandra.ring_delay_ms": 0,
        "cassandra.superuser_setup_delay_ms": 0,
        "cassandra.consistent.rangemovement": "false",
    }
    options += [f"-D{key}={value}" for key, value in properties.items()]
    return ServerCommand(
        name=CASSANDRA,
        service=CASSANDRA,
        arguments=[
            str(java), *options, "-cp", class_path(jars), "org.apache.cassandra.service.CassandraDaemon",
        ],
        log=home / "server.log",
        address=f"{LOOPBACK}:{settings.cassandra_port}",
    )  # fmt: skip


def _configuration(settings: StackSettings, home: Path) -> dict[str, object]:
    data = home / "data"
    seed = f"{LOOPBACK}:{settings.cassandra_port + 1}"
    return {
        "cluster_name": "exchange-sim",
        "num_tokens": 1,
        "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
        "endpoint_snitch": "SimpleSnitch",
        "seed_provider": [
            {"class_name": "org.apache.cassandra.locator.SimpleSeedProvider", "parameters": [{"seeds": seed}]}
        ],
        "listen_address": LOOPBACK,
        "rpc_address": LOOPBACK,
        "storage_port": settings.cassandra_port + 1,
        "native_transport_port": settings.cassandra_port,
        "start_native_transport": True,
        "auto_bootstrap": False,
        "data_file_directories": [str(data / "data")],
        "commitlog_directory": str(data / "commitlog"),
        "hints_directory": str(data / "hints"),
        "saved_caches_directory": str(data / "saved_caches"),
        "cdc_raw_directory": str(data / "cdc_raw"),
        "commitlog_sync": "periodic",
        "commitlog_sync_period": "10000ms",
        "commitlog_total_space": "512MiB",
        "authenticator": "AllowAllAuthenticator",
        "authorizer": "AllowAllAuthorizer",
        # A dropped table of a test is not worth a snapshot.
        "auto_snapshot": False,
        "read_request_timeout": "10s",
        "range_request_timeout": "20s",
        "write_request_timeout": "10s",
        "cas_contention_timeout": "5s",
        "truncate_request_timeout": "60s",
        "request_timeout": "20s",
    }


_LOGGING = """\
<configuration>
  <shutdownHook class="ch.qos.logback.core.hook.DefaultShutdownHook"/>
  <appender name="OUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%date %-5level [%thread] %logger{0} %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="OUT"/></root>
  <logger name="org.apache.cassandra.config" level="WARN"/>
</configuration>
"""
