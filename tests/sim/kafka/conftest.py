"""A small world for the tests of the Kafka double: a clock, a network, a cluster, and hosts that run coroutines."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from sim.clock import NS_PER_SECOND, Clock
from sim.hosts import Host, Incarnation
from sim.kafka import KafkaCluster, KafkaConfig, SimKafkaClients
from sim.network import Network
from sim.randomness import Randomness
from traces.recorder import Recorder

Main = Callable[[SimKafkaClients], Coroutine[Any, Any, object]]


class KafkaWorld:
    """The cluster under test. `run` runs one client program to its end and returns what it returned."""

    def __init__(self, seed: int = 1, **config: Any) -> None:
        self.clock = Clock()
        self.randomness = Randomness(seed)
        self.network = Network(self.clock, self.randomness)
        self.recorder = Recorder()
        self.cluster = KafkaCluster(self.clock, self.network, self.randomness, self.recorder, KafkaConfig(**config))
        self.cluster.create_topic("t", 1)
        self.cluster.create_topic("many", 6)
        self.hosts: dict[str, Host] = {}
        self.results: dict[str, object] = {}
        self.errors: dict[str, BaseException] = {}
        self.unhandled: list[object] = []

    def start(self, name: str, main: Main) -> Incarnation:
        """Start a program on a host of that name (a new one, or one that is down)."""
        host = self.hosts.get(name)
        if host is None:
            host = self.hosts[name] = Host(self.clock, self.randomness, name)
            host.on_exit = self._exited
            host.on_unhandled = lambda _incarnation, unhandled: self.unhandled.append(unhandled)

        async def run(incarnation: Incarnation) -> None:
            self.results[name] = await main(SimKafkaClients(self.cluster, incarnation))

        return host.start(run)

    def _exited(self, incarnation: Incarnation, error: BaseException | None) -> None:
        if error is not None:
            self.errors[incarnation.name] = error

    def run(self, main: Main, name: str = "app-1", limit_s: int = 300) -> Any:
        """Run a program to its end; raises what it raised, and AssertionError if it does not end in `limit_s`."""
        self.errors.pop(name, None)
        self.start(name, main)
        limit_ns = self.clock.now + limit_s * NS_PER_SECOND
        still = self.clock.run_while(lambda: self.hosts[name].is_up, limit_ns)
        if name in self.errors:
            raise self.errors[name]
        assert not still, f"{name} is not done after {limit_s} s"
        return self.results[name]

    def pass_s(self, seconds: float) -> None:
        """Let time go by."""
        self.clock.run_until(self.clock.now + int(seconds * NS_PER_SECOND))

    def values(self, topic: str) -> list[bytes | None]:
        """The committed values of a topic, partition by partition."""
        return [record[6] for record in self.cluster.committed_log(topic)]

    def close(self) -> None:
        for host in self.hosts.values():
            host.close()


@pytest.fixture(scope="session")
def make_world() -> type[KafkaWorld]:
    """Makes worlds: `make_world(seed=..., **settings of KafkaConfig)`, with topics "t" (1 partition) and "many" (6)."""
    return KafkaWorld


@pytest.fixture
def world(make_world: type[KafkaWorld]) -> Iterator[KafkaWorld]:
    world = make_world()
    yield world
    world.close()
    assert world.unhandled == []
