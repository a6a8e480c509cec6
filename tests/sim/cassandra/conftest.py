"""A small cluster of three replicas with one keyspace, for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cassandra import ConsistencyLevel
from cassandra.query import SimpleStatement, tuple_factory

from sim.cassandra import CassandraCluster, Session
from sim.clock import NS_PER_SECOND, Clock
from sim.network import Network
from sim.randomness import Randomness


class SmallWorld:
    """A cluster, its clock and network, and a harness session at QUORUM that returns tuples."""

    def __init__(self, seed: int = 1, nodes: int = 3, factor: int = 3) -> None:
        self.clock = Clock()
        randomness = Randomness(seed)
        self.network = Network(self.clock, randomness)
        self.cluster = CassandraCluster(self.clock, self.network, randomness, nodes=nodes)
        self.session: Session = self.cluster.harness_session()
        self.session.row_factory = tuple_factory
        self.session.default_consistency_level = ConsistencyLevel.QUORUM
        self.session.execute(
            f"CREATE KEYSPACE ks WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': {factor}}}"
        )
        self.session.set_keyspace("ks")

    def run(self, query: str, parameters: Any = None, consistency: int | None = None) -> list[Any]:
        """Execute and return the rows."""
        statement = SimpleStatement(query, consistency_level=consistency)
        return list(self.session.execute(statement, parameters))

    def wait_s(self, seconds: int) -> None:
        """Let time pass."""
        self.clock.run_until(self.clock.now + seconds * NS_PER_SECOND)


@pytest.fixture
def world() -> SmallWorld:
    return SmallWorld()


@pytest.fixture
def make_world() -> Callable[..., SmallWorld]:
    return SmallWorld
