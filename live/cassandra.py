"""A real Cassandra or ScyllaDB session: the driver's own, rows as tuples, LOCAL_QUORUM unless said otherwise."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

from cassandra import ConsistencyLevel, OperationTimedOut
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable, ProtocolVersion
from cassandra.connection import ConnectionException
from cassandra.policies import ConstantReconnectionPolicy, DCAwareRoundRobinPolicy, TokenAwarePolicy
from cassandra.query import tuple_factory

from live.metrics import Metrics

REQUEST_TIMEOUT_S: Final = 10.0
"""The driver's own time-out of a statement; the adapter of settlement gives up later than that."""
CONNECT_TIMEOUT_S: Final = 10.0
RECONNECT_EVERY_S: Final = 2.0
"""How often a node that went away is looked for. The driver's own pauses grow to ten minutes, far longer than a node
takes to come back, and with all nodes gone nothing is settled until then."""


_UNREACHABLE: Final = (NoHostAvailable, OperationTimedOut, ConnectionException, OSError)


class CassandraUnreachable(ConnectionError):
    """No node answers; the message says which were asked."""


def addresses(text: str, default_port: int) -> list[tuple[str, int]]:
    """ "host:port,host" as pairs. Raises ValueError for an empty or wrong one."""
    found = []
    for part in text.split(","):
        host, separator, port = part.strip().rpartition(":")
        if not separator:
            host, port = part.strip(), str(default_port)
        if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
            raise ValueError(f"not an address, which is HOST:PORT: {part.strip()!r}")
        found.append((host, int(port)))
    return found


class CassandraConnection:
    """A cluster as this process sees it. `session` connects, and may be tried again. Raises ValueError for addresses
    that are none."""

    def __init__(self, contact_points: str, datacenter: str = "", metrics: Metrics | None = None) -> None:
        self.contact_points = contact_points
        self._nodes = addresses(contact_points, 9042)
        self._datacenter = datacenter
        self._metrics = metrics or Metrics()
        self._cluster: Any = None

    def _make_cluster(self) -> Any:
        return Cluster(
            contact_points=self._nodes,
            port=self._nodes[0][1],
            # The newest version that both Cassandra and ScyllaDB speak.
            protocol_version=ProtocolVersion.V4,
            connect_timeout=CONNECT_TIMEOUT_S,
            reconnection_policy=ConstantReconnectionPolicy(RECONNECT_EVERY_S, max_attempts=None),
            execution_profiles={
                EXEC_PROFILE_DEFAULT: ExecutionProfile(
                    load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy(self._datacenter)),
                    consistency_level=ConsistencyLevel.LOCAL_QUORUM,
                    serial_consistency_level=ConsistencyLevel.LOCAL_SERIAL,
                    request_timeout=REQUEST_TIMEOUT_S,
                    row_factory=tuple_factory,
                )
            },
        )

    async def session(self, keyspace: str | None) -> "CountingSession":
        """A session with the keyspace set. Raises CassandraUnreachable, or the driver's refusal of the keyspace."""
        cluster = self._cluster if self._cluster is not None else self._make_cluster()
        try:
            # Connecting blocks.
            session = await asyncio.to_thread(cluster.connect, keyspace)
        except _UNREACHABLE as error:
            # The driver has shut the cluster down when its first connection failed, and it stays so.
            self._cluster = None
            await asyncio.to_thread(cluster.shutdown)
            raise CassandraUnreachable(f"no Cassandra node answers at {self.contact_points}: {_why(error)}") from error
        self._cluster = cluster
        return CountingSession(session, self._metrics)

    @property
    def nodes(self) -> int:
        """How many nodes the cluster has, once a session was made."""
        return len(self._cluster.metadata.all_hosts()) if self._cluster is not None else 0

    async def close(self) -> None:
        """End every session and connection."""
        if self._cluster is not None:
            await asyncio.to_thread(self._cluster.shutdown)


class CountingSession:
    """The part of a driver's session that services use; counts statements by outcome."""

    def __init__(self, session: Any, metrics: Metrics) -> None:
        self._session = session
        self._metrics = metrics
        self._counted: dict[str, Any] = {}
        self.prepare = session.prepare
        self.execute = session.execute

    def execute_async(self, query: Any, parameters: Sequence[object] | None = None, **options: Any) -> Any:
        """As the driver's. Counted by the first page's outcome, on the driver's thread."""
        response = self._session.execute_async(query, parameters, **options)
        begun_at = time.perf_counter()
        first = True

        def count(outcome: str) -> None:
            nonlocal first
            if first:
                first = False
                self._count(outcome)
                self._metrics.statement_seconds.observe(time.perf_counter() - begun_at)

        response.add_callbacks(lambda _page: count("ok"), lambda error: count(type(error).__name__))
        return response

    def shutdown(self) -> None:
        """End the session."""
        self._session.shutdown()

    def _count(self, outcome: str) -> None:
        counter = self._counted.get(outcome)
        if counter is None:
            counter = self._counted[outcome] = self._metrics.statements.labels(outcome)
        counter.inc()


def _why(error: BaseException) -> str:
    errors = getattr(error, "errors", None)
    if isinstance(errors, dict) and errors:
        return "; ".join(f"{node}: {reason}" for node, reason in errors.items())
    return str(error)
