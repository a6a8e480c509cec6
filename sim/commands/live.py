"""The commands that need real servers and run in real time: `serve` and `drive`.

Registered by `sim.commandline`; what they do is in `live` and `sim.driver`, imported when they run.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sim.commands.base import HOLDS, VIOLATED, CommandError, Json, parse_duration, stderr_progress

if TYPE_CHECKING:
    from live.options import Servers
    from schema.topics import Topology

KAFKA_ENV = "EXCHANGE_SIM_KAFKA"
CASSANDRA_ENV = "EXCHANGE_SIM_CASSANDRA"

Kafka = Annotated[str, typer.Option(envvar=KAFKA_ENV, metavar="HOST:PORT,...", help="Kafka's bootstrap servers.")]
Cassandra = Annotated[
    str, typer.Option(envvar=CASSANDRA_ENV, metavar="HOST:PORT,...", help="Nodes of Cassandra or ScyllaDB.")
]
NamespaceName = Annotated[
    str, typer.Option("--namespace", help="Prefix of topics and groups, and the keyspace (default none, exchange).")
]
TopologyFile = Annotated[
    Path | None,
    typer.Option("--topology", metavar="FILE", help="Symbols and partitions as JSON, not a default market."),
]
FlowFile = Annotated[str, typer.Option("--flow", help="synthetic, or a file as `run` takes: its market is used.")]
Symbols = Annotated[int, typer.Option(min=1, help="Tradable pairs of the default market.")]
UserPartitions = Annotated[int, typer.Option(min=1, help="Partitions of the topics keyed by user.")]
SymbolPartitions = Annotated[int, typer.Option(min=1, help="Partitions of the topics keyed by symbol.")]
KafkaReplication = Annotated[
    int, typer.Option(min=0, help="Replicas of topics that are created (0: one a broker, up to 3).")
]
CassandraReplication = Annotated[
    int, typer.Option(min=0, help="Replicas of a keyspace that is created (0: one a node, up to 3).")
]
Datacenter = Annotated[str, typer.Option(help="Cassandra's local data centre (default the first node's).")]
Wait = Annotated[float, typer.Option(metavar="S", min=0, help="Seconds to wait for servers that do not answer.")]

SYNTHETIC = "synthetic"
LOCAL_KAFKA = "127.0.0.1:19092"
LOCAL_CASSANDRA = "127.0.0.1:19042"
"""Where `exchange-sim stack up` has them."""


def serve(
    service: Annotated[str, typer.Argument(metavar="ubscore|matching|settlement|all", help="What to run.")],
    kafka: Kafka = LOCAL_KAFKA,
    cassandra: Cassandra = LOCAL_CASSANDRA,
    namespace: NamespaceName = "",
    topology: TopologyFile = None,
    flow: FlowFile = SYNTHETIC,
    symbols: Symbols = 3,
    user_partitions: UserPartitions = 3,
    symbol_partitions: SymbolPartitions = 2,
    data: Annotated[Path, typer.Option(metavar="DIR", help="Where snapshots go.")] = Path("exchange-data"),
    instance: Annotated[str, typer.Option(help="This instance's name among those of its service.")] = "1",
    instances: Annotated[int, typer.Option(min=1, help="Instances of each service, for `all`.")] = 1,
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65_000, help="Prometheus metrics on 127.0.0.1; `all` counts up from it.")
    ] = None,
    log_format: Annotated[str, typer.Option(help="json or console.")] = "json",
    log_level: Annotated[str, typer.Option(help="debug, info, warning, error or critical.")] = "info",
    snapshot_interval: Annotated[int, typer.Option(min=0, help="Outputs between two snapshots; 0 for none.")] = 2_000,
    kafka_replication: KafkaReplication = 0,
    cassandra_replication: CassandraReplication = 0,
    datacenter: Datacenter = "",
    wait: Wait = 30.0,
    supervised: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Run a service on real Kafka and Cassandra, until SIGTERM or SIGINT; `all` keeps each up in a process of its own.

    Topics and tables are created if they are missing, and verified. Exit status: 0 when stopped, 1 when the service
    failed and may be started again, 2 when it could not do what was asked.
    """
    from live.connections import ServersUnusable
    from live.log import FORMATS, LEVELS
    from live.options import SERVICES, ServeOptions
    from live.process import serve as serve_one
    from live.supervisor import Child, python_command, supervise

    if service not in (*SERVICES, "all"):
        raise CommandError(f"there is no service {service!r}; there are {', '.join(SERVICES)}, and all")
    if log_format not in FORMATS:
        raise CommandError(f"--log-format must be {' or '.join(FORMATS)}, not {log_format!r}")
    if log_level not in LEVELS:
        raise CommandError(f"--log-level must be one of {', '.join(LEVELS)}, not {log_level!r}")
    if not instance or instance.startswith(".") or "/" in instance:
        raise CommandError(f"--instance must be a plain name, not {instance!r}")
    settings = LiveSettings(kafka, cassandra, namespace, kafka_replication, cassandra_replication, datacenter, wait)
    market = MarketChoice(topology, flow, symbols, user_partitions, symbol_partitions)
    options = ServeOptions(
        servers=settings.servers(),
        topology=market.topology(),
        data=data,
        instance=instance,
        metrics_port=metrics_port,
        log_format=log_format,
        log_level=log_level,
        snapshot_interval_outputs=snapshot_interval,
        is_supervised=supervised,
    )
    try:
        if service != "all":
            raise typer.Exit(serve_one(service, options))
        shared = [
            *settings.arguments(),
            *market.arguments(),
            *("--data", str(data), "--log-format", log_format, "--log-level", log_level),
            *("--snapshot-interval", str(snapshot_interval), "--supervised"),
        ]
        children: list[Child] = []
        for name in SERVICES:
            for number in range(1, instances + 1):
                own = ["--instance", str(number)]
                if metrics_port is not None:
                    own += ["--metrics-port", str(metrics_port + len(children))]
                command = python_command("sim", "serve", name, *shared, *own)
                children.append(Child(f"{name}-{number}", command))
        raise typer.Exit(supervise(children, options))
    except ServersUnusable as error:
        raise CommandError(str(error)) from None


def drive(
    kafka: Kafka = LOCAL_KAFKA,
    cassandra: Cassandra = LOCAL_CASSANDRA,
    namespace: NamespaceName = "",
    seed: Annotated[int, typer.Option(min=0, help="Where every random stream of the workload begins.")] = 0,
    orders: Annotated[int, typer.Option(min=0, help="New orders that the synthetic flow places.")] = 600,
    users: Annotated[int, typer.Option(min=1, help="Clients that trade.")] = 12,
    duration: Annotated[str, typer.Option(metavar="S", help="Seconds over which the flow is spread.")] = "20",
    flow: FlowFile = SYNTHETIC,
    topology: TopologyFile = None,
    symbols: Symbols = 3,
    user_partitions: UserPartitions = 3,
    symbol_partitions: SymbolPartitions = 2,
    gateways: Annotated[int, typer.Option(min=1, max=100, help="Gateways, inside this process.")] = 2,
    settle: Annotated[float, typer.Option(metavar="S", min=1, help="How long the system may take to settle.")] = 120.0,
    kafka_replication: KafkaReplication = 0,
    cassandra_replication: CassandraReplication = 0,
    datacenter: Datacenter = "",
    wait: Wait = 30.0,
    log_level: Annotated[str, typer.Option(help="Of the gateways: debug, info, warning, error or critical.")] = "error",
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where the trace goes (default runs/live-N).")] = None,
    json: Json = False,
) -> None:
    """Drive a seed's workload in real time against services on real servers, judge it, and store its trace.

    Start the services first: `exchange-sim serve all`, with the same namespace and market.
    """
    from live.connections import ServersUnusable
    from live.log import LEVELS
    from live.reading import ReadingError
    from sim.driver.drive import DriveError, DriveOptions, Workload
    from sim.driver.drive import drive as drive_workload
    from sim.driver.report import print_json, print_summary
    from sim.flows import load_flow, synthetic_flow
    from sim.randomness import Randomness
    from traces.store import check_place

    folder = out or Path("runs") / f"live-{seed}"
    check_place(folder)
    if log_level not in LEVELS:
        raise CommandError(f"--log-level must be one of {', '.join(LEVELS)}, not {log_level!r}")
    settings = LiveSettings(kafka, cassandra, namespace, kafka_replication, cassandra_replication, datacenter, wait)
    market = MarketChoice(topology, flow, symbols, user_partitions, symbol_partitions)
    duration_ns = parse_duration(duration)
    if duration_ns < 1:
        raise CommandError("--duration must be positive")
    if flow == SYNTHETIC:
        traded = market.topology()
        operations = synthetic_flow(Randomness(seed), traded, orders=orders, users=users, duration_ns=duration_ns)
        workload = Workload(seed, traded, operations, duration_ns)
    else:
        recorded = load_flow(
            flow,
            users=users,
            user_partitions=user_partitions,
            symbol_partitions=symbol_partitions,
            duration_ns=duration_ns,
        )
        workload = Workload(seed, recorded.topology, recorded.operations, recorded.duration_ns, recorded.report)
    scenario: dict[str, object] = {
        "on": "real servers",
        "seed": seed,
        "orders": orders,
        "users": users,
        "duration_ns": duration_ns,
        "flow": flow,
        "gateways": gateways,
        "namespace": namespace,
    }
    options = DriveOptions(settings.servers(), gateways, settle, scenario, log_level)
    try:
        result = drive_workload(workload, options, folder, stderr_progress())
    except (ServersUnusable, DriveError, ReadingError) as error:
        raise CommandError(str(error)) from None
    (print_json if json else print_summary)(workload, result)
    raise typer.Exit(HOLDS if result.holds else VIOLATED)


@dataclass(frozen=True)
class LiveSettings:
    """The options that say where the servers are."""

    kafka: str
    cassandra: str
    namespace: str
    kafka_replication: int
    cassandra_replication: int
    datacenter: str
    wait_s: float

    def servers(self) -> "Servers":
        """Raises CommandError for a wrong namespace or address."""
        from live.cassandra import addresses
        from live.namespace import Namespace
        from live.options import Servers

        try:
            namespace = Namespace(self.namespace)
            for option, text, port in (("--kafka", self.kafka, 9092), ("--cassandra", self.cassandra, 9042)):
                try:
                    addresses(text, port)
                except ValueError as error:
                    raise ValueError(f"{option}: {error}") from None
        except ValueError as error:
            raise CommandError(str(error)) from None
        return Servers(
            kafka=self.kafka,
            cassandra=self.cassandra,
            namespace=namespace,
            kafka_replication=self.kafka_replication,
            cassandra_replication=self.cassandra_replication,
            datacenter=self.datacenter,
            wait_s=self.wait_s,
        )

    def arguments(self) -> list[str]:
        """The same for a child's command line. A child waits for ever: its supervisor has found the servers there."""
        return [
            *("--kafka", self.kafka, "--cassandra", self.cassandra, "--namespace", self.namespace),
            *("--kafka-replication", str(self.kafka_replication)),
            *("--cassandra-replication", str(self.cassandra_replication)),
            *("--datacenter", self.datacenter, "--wait", "inf"),
        ]


@dataclass(frozen=True)
class MarketChoice:
    """The options that say what is traded, and in how many partitions."""

    file: Path | None
    flow: str
    symbols: int
    user_partitions: int
    symbol_partitions: int

    def topology(self) -> "Topology":
        """Raises CommandError for a file that is no topology, FlowError for one that is no flow."""
        from live.options import TopologyError, read_topology
        from sim.flows import load_flow, make_topology

        if self.flow != SYNTHETIC:
            if self.file is not None:
                raise CommandError("--flow has a market of its own; --topology cannot be given as well")
            partitions = {"user_partitions": self.user_partitions, "symbol_partitions": self.symbol_partitions}
            return load_flow(self.flow, **partitions).topology
        if self.file is None:
            return make_topology(self.symbols, self.user_partitions, min(self.symbols, self.symbol_partitions))
        try:
            return read_topology(self.file)
        except TopologyError as error:
            raise CommandError(f"--topology {error}") from None

    def arguments(self) -> list[str]:
        """The same for a child's command line."""
        if self.file is not None:
            return ["--topology", str(self.file)]
        return [
            *("--flow", self.flow),
            *("--symbols", str(self.symbols), "--user-partitions", str(self.user_partitions)),
            *("--symbol-partitions", str(self.symbol_partitions)),
        ]
