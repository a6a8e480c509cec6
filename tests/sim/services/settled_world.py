"""A simulated world for settlement and the gateway alone: topics, tables, hosts; the test plays the other services."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from typing import Any

from cassandra.query import tuple_factory

from gateway.core import Gateway, GatewayConfig
from schema import tables
from schema.topics import Topology
from settlement.cql_adapter import CqlAdapter
from settlement.migrations import SchemaSteps
from settlement.retries import Backoff
from settlement.service import SettlementConfig, SettlementService
from settlement.store import Store
from sim.cassandra.cluster import CassandraCluster
from sim.clock import NS_PER_SECOND
from sim.hosts import Host, Incarnation
from sim.kafka import KafkaCluster, KafkaConfig, SimKafkaClients
from sim.world import World
from traces.recorder import Recorder


class RecordedLog:
    """A log whose lines the test can look at."""

    def __init__(self, lines: list[tuple[str, str, dict[str, object]]], incarnation: Incarnation) -> None:
        self._lines, self._incarnation = lines, incarnation

    def __getattr__(self, level: str) -> Callable[..., None]:
        def write(event: str, **fields: object) -> None:
            if self._incarnation.alive:
                self._lines.append((level, event, {"host": self._incarnation.name, **fields}))

        return write


class SettledWorld:
    """The world. Times in seconds; `run` drives a coroutine on a host of its own to its end."""

    def __init__(self, topology: Topology, seed: int = 1) -> None:
        self.topology = topology
        self.world = World(seed)
        self.clock = self.world.clock
        self.recorder = Recorder()
        self.kafka = KafkaCluster(self.clock, self.world.network, self.world.randomness, self.recorder, KafkaConfig())
        self.cassandra = CassandraCluster(self.clock, self.world.network, self.world.randomness, self.recorder, nodes=3)
        self.lines: list[tuple[str, str, dict[str, object]]] = []
        self.gateways: dict[str, Gateway] = {}
        self._running = self.world.running()
        self._running.__enter__()
        for topic, partitions in topology.partitions().items():
            self.kafka.create_topic(topic, partitions)
        self._driver_number = 0
        self.run(self._migrate)

    def close(self) -> None:
        self.world.close()
        self._running.__exit__(None, None, None)

    def pass_s(self, seconds: float) -> None:
        """Let time go by."""
        self.world.run_until(self.clock.now + int(seconds * NS_PER_SECOND))

    def run(self, main: Callable[[Incarnation], Awaitable[Any]], limit_s: float = 120) -> Any:
        """Run a program to its end on a host of its own, and return what it returned."""
        self._driver_number += 1
        host = self.world.host(f"driver-{self._driver_number}")
        outcome: dict[str, Any] = {}

        async def run(incarnation: Incarnation) -> None:
            outcome["result"] = await main(incarnation)

        errors: list[BaseException | None] = []
        host.on_exit = lambda _incarnation, error: errors.append(error)
        host.start(run)
        limit_ns = self.clock.now + int(limit_s * NS_PER_SECOND)
        while host.is_up and self.clock.now < limit_ns:
            self.pass_s(0.05)
        if errors and errors[0] is not None:
            raise errors[0]
        assert "result" in outcome, f"not done after {limit_s} s"
        return outcome["result"]

    def produce(self, topic: str, partition: int, values: list[bytes]) -> None:
        """Append record values, as a service would that has decided them."""

        async def main(incarnation: Incarnation) -> None:
            producer = SimKafkaClients(self.kafka, incarnation).producer(acks="all", enable_idempotence=True)
            await producer.start()
            for value in values:
                await producer.send_and_wait(topic, value, partition=partition)
            await producer.stop()

        self.run(main)

    def settlement(self, name: str, config: SettlementConfig | None = None) -> Host:
        """Start a settlement instance."""

        async def main(incarnation: Incarnation) -> None:
            service = SettlementService(
                self.topology,
                SimKafkaClients(self.kafka, incarnation),
                await self.store(incarnation),
                incarnation.host.wall,
                RecordedLog(self.lines, incarnation),
                self.world.randomness.stream(f"jitter/{name}"),
                config or SettlementConfig(),
            )
            incarnation.loop.add_signal_handler(signal.SIGTERM, service.request_stop)
            await service.run()

        host = self.world.host(name, "settlement")
        host.start(main)
        return host

    def gateway(self, name: str, config: GatewayConfig | None = None) -> Host:
        """Start a gateway, and wait until it is ready."""

        async def main(incarnation: Incarnation) -> None:
            gateway = Gateway(
                name,
                self.topology,
                SimKafkaClients(self.kafka, incarnation),
                (await self.store(incarnation)).queries,
                incarnation.host.wall,
                RecordedLog(self.lines, incarnation),
                config or GatewayConfig(),
            )
            incarnation.loop.add_signal_handler(signal.SIGTERM, gateway.request_stop)
            await gateway.start()
            self.gateways[name] = gateway
            await gateway.run()
            self.gateways.pop(name, None)

        host = self.world.host(name, "gateway")
        host.start(main)
        self.pass_s(2)
        return host

    async def store(self, incarnation: Incarnation) -> Store:
        """An open store on that host."""
        store = Store(
            self._session(incarnation, tables.KEYSPACE),
            clock=incarnation.host.wall,
            randomness=self.world.randomness.stream(f"store/{incarnation.name}"),
            log=RecordedLog(self.lines, incarnation),
            symbol_ids=self.topology.symbols.symbols,
        )
        await store.open()
        return store

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What a SELECT answers, read on a host of its own."""

        async def main(incarnation: Incarnation) -> list[Any]:
            return list(await CqlAdapter(self._session(incarnation, tables.KEYSPACE)).execute(query))

        result: list[tuple[Any, ...]] = self.run(main)
        return result

    def committed(self, topic: str, partition: int, group: str = "settlement") -> int | None:
        """The group's offset."""
        from aiokafka.structs import TopicPartition

        async def main(incarnation: Incarnation) -> int | None:
            consumer = SimKafkaClients(self.kafka, incarnation).consumer(group_id=group, enable_auto_commit=False)
            where = TopicPartition(topic, partition)
            consumer.assign([where])
            await consumer.start()
            offset = await consumer.committed(where)
            await consumer.stop()
            return offset

        result: int | None = self.run(main)
        return result

    def alarms(self) -> list[tuple[str, dict[str, object]]]:
        """The alarms so far."""
        return [(event, fields) for level, event, fields in self.lines if level == "critical"]

    async def _migrate(self, incarnation: Incarnation) -> None:
        randomness = self.world.randomness.stream("operator")
        log = RecordedLog(self.lines, incarnation)
        await SchemaSteps(CqlAdapter(self._session(incarnation, None)), randomness, log, Backoff()).create_keyspace(
            3, tables.KEYSPACE
        )
        await SchemaSteps(
            CqlAdapter(self._session(incarnation, tables.KEYSPACE)), randomness, log, Backoff()
        ).create_or_verify()

    def _session(self, incarnation: Incarnation, keyspace: str | None) -> Any:
        session = self.cassandra.session(incarnation, keyspace)
        session.row_factory = tuple_factory
        return session
