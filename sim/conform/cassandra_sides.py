"""The two sides on which the Cassandra conformance suite and the compared sequences run.

A side is a session of the driver's interface (`cassandra.cluster.Session`) and a way to let time pass: the simulated
cluster with its clock, or a real server with ours. What is written against a side runs on either. Both use QUORUM, so
that the double answers from several replicas as a real cluster of several nodes would; a real cluster of one node
answers the same at every level.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from cassandra import ConsistencyLevel
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.policies import DCAwareRoundRobinPolicy
from cassandra.query import tuple_factory

from sim.cassandra import CassandraCluster
from sim.clock import NS_PER_SECOND, Clock
from sim.hosts import Host, Incarnation
from sim.network import Network
from sim.randomness import Randomness

Main = Callable[[Any, Callable[[], int]], Awaitable[None]]
"""A service's coroutine: gets a session and the wall clock of its host."""


class Side(Protocol):
    """One of the two."""

    name: str
    session: Any
    keyspace: str

    def now_ns(self) -> int:
        """The servers' wall clock."""

    def wait_until_ns(self, moment_ns: int) -> None:
        """Let time pass until the servers' wall clock shows that."""

    def another_session(self) -> AbstractContextManager[Any]:
        """A second session, with connections of its own."""

    def run_service(self, main: Main) -> None:
        """Run a coroutine to its end, as a service: on a simulated host, or on asyncio's own loop."""


def wait_s(side: Side, seconds: float) -> None:
    """Let so much time pass."""
    side.wait_until_ns(side.now_ns() + int(seconds * NS_PER_SECOND))


class DoubleSide:
    """The simulated cluster, outside any run: its session's `execute` runs the clock until the answer is there."""

    name = "double"

    def __init__(self, *, nodes: int = 3, factor: int = 3, keyspace: str = "conform", seed: int = 1) -> None:
        self.clock = Clock()
        randomness = Randomness(seed)
        self.network = Network(self.clock, randomness)
        self.cluster = CassandraCluster(self.clock, self.network, randomness, nodes=nodes)
        self.keyspace = keyspace
        self._randomness = randomness
        self.session: Any = self.cluster.harness_session()
        self.session.execution_profiles = {EXEC_PROFILE_DEFAULT: _profile()}
        _use_new_keyspace(self.session, keyspace, factor)

    def now_ns(self) -> int:
        """The servers' wall clock."""
        return self.cluster.nodes[0].wall.now_ns()

    def wait_until_ns(self, moment_ns: int) -> None:
        """Run the clock until then."""
        self.clock.run_until(self.clock.now + max(0, moment_ns - self.now_ns()))

    @contextmanager
    def another_session(self) -> Iterator[Any]:
        """A second session."""
        session: Any = self.cluster.harness_session(self.keyspace, "another")
        session.execution_profiles = {EXEC_PROFILE_DEFAULT: _profile()}
        yield session

    def run_service(self, main: Main) -> None:
        """Run it on a simulated host."""
        host = Host(self.clock, self._randomness, "service-1")
        errors: list[BaseException | None] = []
        host.on_exit = lambda _incarnation, error: errors.append(error)

        async def start(incarnation: Incarnation) -> None:
            session = self.cluster.session(incarnation, self.keyspace)
            session.execution_profiles = {EXEC_PROFILE_DEFAULT: _profile()}
            await main(session, incarnation.host.wall.now_ns)

        host.start(start)
        self.clock.run_while(lambda: not errors, self.clock.now + 600 * NS_PER_SECOND)
        if not errors:
            raise TimeoutError("the service has not ended within 600 simulated seconds")
        if errors[0] is not None:
            raise errors[0]


class ServerSide:
    """Real servers. `now_ns` is this machine's clock, which for a server on loopback is the server's own."""

    name = "server"

    def __init__(self, contact_points: Sequence[str], port: int, *, keyspace: str, factor: int = 1) -> None:
        self.keyspace = keyspace
        self._contact_points, self._port = list(contact_points), port
        self.driver = self._connect()
        self.session: Any = self.driver.connect()
        _use_new_keyspace(self.session, keyspace, factor)

    def _connect(self) -> Cluster:
        return Cluster(
            self._contact_points,
            port=self._port,
            protocol_version=5,
            execution_profiles={EXEC_PROFILE_DEFAULT: _profile()},
            connect_timeout=10,
            control_connection_timeout=10,
        )

    def now_ns(self) -> int:
        """This machine's clock."""
        return time.time_ns()

    def wait_until_ns(self, moment_ns: int) -> None:
        """Sleep until then."""
        while (left_ns := moment_ns - time.time_ns()) > 0:
            time.sleep(left_ns / NS_PER_SECOND)

    @contextmanager
    def another_session(self) -> Iterator[Any]:
        """A second session, of a cluster object of its own."""
        driver = self._connect()
        try:
            yield driver.connect(self.keyspace)
        finally:
            driver.shutdown()

    def run_service(self, main: Main) -> None:
        """Run it on asyncio's own loop."""

        async def start() -> None:
            await main(self.session, time.time_ns)

        asyncio.run(start())

    def close(self) -> None:
        """Drop the keyspace and disconnect."""
        self.session.execute(f"DROP KEYSPACE IF EXISTS {self.keyspace}", timeout=60)
        self.driver.shutdown()


def _profile() -> ExecutionProfile:
    return ExecutionProfile(
        load_balancing_policy=DCAwareRoundRobinPolicy(),
        consistency_level=ConsistencyLevel.QUORUM,
        row_factory=tuple_factory,
        request_timeout=30.0,
    )


def _use_new_keyspace(session: Any, keyspace: str, factor: int) -> None:
    session.execute(
        f"CREATE KEYSPACE {keyspace} WITH replication = "
        f"{{'class': 'NetworkTopologyStrategy', 'replication_factor': {factor}}}"
    )
    session.set_keyspace(keyspace)


def parse_address(address: str) -> tuple[list[str], int]:
    """Contact points and port of `host[,host...][:port]`. Raises ValueError with what is wrong."""
    hosts, _, port = address.partition(":")
    if not hosts or (port and not port.isdecimal()):
        raise ValueError(f"not an address of Cassandra: {address!r}; write host[,host...][:port]")
    return [host.strip() for host in hosts.split(",")], int(port or 9042)


@contextmanager
def server_side(address: str, *, keyspace: str | None = None) -> Iterator[ServerSide]:
    """A server side with a keyspace of its own, which is dropped at the end."""
    contact_points, port = parse_address(address)
    side = ServerSide(contact_points, port, keyspace=keyspace or f"conform_{time.time_ns():x}")
    try:
        yield side
    finally:
        side.close()
