"""What a process is told: where the servers are, what the exchange looks like, where its own things go."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from live.namespace import Namespace
from schema.services import MATCHING, SETTLEMENT, UBSCORE
from schema.topics import Topology
from traces.manifest import TopologyRecord

SERVICES: Final = (UBSCORE, MATCHING, SETTLEMENT)
"""What can be served, in the order in which an order passes through them."""

REPLICAS_WANTED: Final = 3


@dataclass(frozen=True)
class Servers:
    """Where Kafka and Cassandra are, and what of them is this system's.

    `kafka` and `cassandra` are "host:port,host:port". The replication factors count only when topics or keyspace are
    created; 0 means as many as there are servers, up to 3. `datacenter` is the local one of Cassandra, by default that
    of the first node that answers. `wait_s` is how long servers that do not answer are waited for at the start.
    """

    kafka: str
    cassandra: str
    namespace: Namespace = field(default_factory=Namespace)
    kafka_replication: int = 0
    cassandra_replication: int = 0
    datacenter: str = ""
    wait_s: float = 30.0


@dataclass(frozen=True)
class ServeOptions:
    """One instance of a service. `data` is where its directory goes; `snapshot_interval_outputs` 0 means none."""

    servers: Servers
    topology: Topology
    data: Path
    instance: str = "1"
    metrics_port: int | None = None
    log_format: str = "json"
    log_level: str = "info"
    snapshot_interval_outputs: int = 2_000
    is_supervised: bool = False
    """Whether standard input is a pipe whose end means that the supervisor is gone: the service stops then."""

    def directory(self, service: str) -> Path:
        """The instance's own directory."""
        return self.data / self.servers.namespace.keyspace / f"{service}-{self.instance}"


class TopologyError(ValueError):
    """A topology file cannot be used; the message is one line."""


def read_topology(path: Path) -> Topology:
    """The topology in a JSON file of the form that a trace's manifest has under "topology". Raises TopologyError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=TopologyRecord).topology()
    except OSError as error:
        raise TopologyError(f"{path}: {error.strerror or error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, ArithmeticError) as error:
        raise TopologyError(f"{path}: not a topology: {error}") from None


def encode_topology(topology: Topology) -> bytes:
    """The file that `read_topology` reads."""
    return msgspec.json.format(msgspec.json.encode(TopologyRecord.of(topology)), indent=1) + b"\n"
