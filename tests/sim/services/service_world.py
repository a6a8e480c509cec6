"""The engine's services on the simulated Kafka: a world small enough that a test can say what happened in it."""

import asyncio
import signal
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from aiokafka.structs import TopicPartition

from engine.matching_service import matching_duty
from engine.ownership import OwnershipService
from engine.ownership_settings import OwnershipSettings
from engine.partition_core import Duty
from engine.ubscore_service import ubscore_duty
from schema import wire
from schema.events import AnyRequest, BalanceEvent, EngineOutput, OrderResponse, ValidatedOrder
from schema.topics import BALANCE_EVENTS, ENGINE_OUTPUTS, ORDER_REQUESTS, ORDER_RESPONSES, VALIDATED_ORDERS, Topology
from sim.clock import NS_PER_SECOND
from sim.hosts import Host, Incarnation
from sim.kafka import KafkaCluster, SimKafkaClients
from sim.world import World
from traces.recorder import Recorder

Line = tuple[int, str, str, str, dict[str, object]]
"""A log line: time in nanoseconds, host, level, event, fields."""


class LinesLog:
    """A Log that keeps its lines."""

    def __init__(self, lines: list[Line], incarnation: Incarnation) -> None:
        self._lines = lines
        self._incarnation = incarnation

    def _keep(self, level: str, event: str, fields: dict[str, object]) -> None:
        if self._incarnation.alive:
            host = self._incarnation.host
            self._lines.append((host.clock.now, host.name, level, event, fields))

    def debug(self, event: str, **fields: object) -> None:
        self._keep("debug", event, fields)

    def info(self, event: str, **fields: object) -> None:
        self._keep("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        self._keep("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        self._keep("error", event, fields)

    def critical(self, event: str, **fields: object) -> None:
        self._keep("critical", event, fields)


class ServiceWorld:
    """One cluster with the topics of a topology; services and clients are started on hosts by name."""

    def __init__(self, topology: Topology, seed: int = 1, **settings: int) -> None:
        self.topology = topology
        self.settings = OwnershipSettings(**settings)
        self.recorder = Recorder()
        self.world = World(seed, self.recorder)
        self.cluster = KafkaCluster(self.world.clock, self.world.network, self.world.randomness, self.world.recorder)
        for topic, partitions in topology.partitions().items():
            self.cluster.create_topic(topic, partitions)
        self.lines: list[Line] = []
        self.unhandled: list[object] = []
        self.ended: dict[str, BaseException | None] = {}
        self.clients: Callable[[KafkaCluster, Incarnation], Any] = SimKafkaClients

    # -- hosts

    def ubscore(self, name: str = "ubscore-1") -> Host:
        return self._serve(name, ubscore_duty(self.topology))

    def matching(self, name: str = "matching-1") -> Host:
        return self._serve(name, matching_duty(self.topology))

    def _serve(self, name: str, duty: Duty) -> Host:
        host = self._host(name)

        async def main(incarnation: Incarnation) -> None:
            service = OwnershipService(
                duty,
                kafka=self.clients(self.cluster, incarnation),
                disk=host.disk,
                clock=host.wall,
                randomness=self.world.randomness.stream(f"jitter/{name}/{incarnation.number}"),
                log=LinesLog(self.lines, incarnation),
                settings=self.settings,
            )
            incarnation.loop.add_signal_handler(signal.SIGTERM, service.request_stop)
            await service.run()

        host.start(main)
        return host

    def _host(self, name: str) -> Host:
        host = self.world.host(name)
        host.on_exit = self._exited
        host.on_unhandled = lambda _incarnation, unhandled: self.unhandled.append(unhandled)
        return host

    def _exited(self, incarnation: Incarnation, error: BaseException | None) -> None:
        self.ended[incarnation.name] = error

    def run_client(self, main: Callable[[SimKafkaClients], Coroutine[Any, Any, None]], name: str = "client") -> None:
        """Run a client program to its end."""
        host = self._host(name)
        host.start(lambda incarnation: main(SimKafkaClients(self.cluster, incarnation)))
        still = self.world.run_while(lambda: host.is_up, self.now + 120 * NS_PER_SECOND)
        assert not still, "the client is not done after two minutes"
        error = self.ended.get(name)
        if error is not None:
            raise error

    # -- input

    def send(self, topic: str, records: Sequence[tuple[int, bytes]]) -> None:
        """Write (partition, value) records to a topic, in order."""

        async def main(clients: SimKafkaClients) -> None:
            producer = clients.producer(enable_idempotence=True)
            await producer.start()
            deliveries = [await producer.send(topic, value, partition=partition) for partition, value in records]
            for delivery in deliveries:
                await delivery
            await producer.stop()

        self.run_client(main)

    def ask(self, *requests: AnyRequest) -> None:
        """Write requests, each to its user's partition."""
        self.send(
            ORDER_REQUESTS, [(self.topology.user_partition(each.user_id), wire.encode(each)) for each in requests]
        )

    def start_load(self, requests: Sequence[AnyRequest], every_ms: int = 5, name: str = "load") -> Host:
        """Start a client that sends one request after the other while time goes by."""
        host = self._host(name)

        async def main(incarnation: Incarnation) -> None:
            producer = SimKafkaClients(self.cluster, incarnation).producer(enable_idempotence=True)
            await producer.start()
            for request in requests:
                partition = self.topology.user_partition(request.user_id)
                await producer.send(ORDER_REQUESTS, wire.encode(request), partition=partition)
                await asyncio.sleep(every_ms / 1000)
            await producer.stop()

        host.start(main)
        return host

    # -- time

    @property
    def now(self) -> int:
        return self.world.clock.now

    def pass_s(self, seconds: float) -> None:
        """Let time go by."""
        self.world.run_until(self.now + int(seconds * NS_PER_SECOND))

    def until(self, condition: Callable[[], bool], limit_s: int = 120) -> None:
        """Let time pass, second by second, until the condition holds; fail when it never does."""
        still = self.world.run_while(lambda: not condition(), self.now + limit_s * NS_PER_SECOND)
        assert not still, f"it did not come about in {limit_s} s:\n" + "\n".join(map(str, self.lines[-20:]))

    def settle(self, limit_s: int = 120) -> None:
        """Until nothing is open, unread or uncommitted; the groups' members must be up."""
        self.until(self.cluster.is_quiet, limit_s)

    # -- what can be seen

    def values(self, topic: str, partition: int | None = None) -> list[bytes]:
        """The committed values of a topic."""
        return [
            record[6] or b""
            for record in self.cluster.committed_log(topic)
            if partition is None or record[0] == partition
        ]

    def balance_events(self, partition: int) -> list[BalanceEvent]:
        return [wire.BALANCE_EVENT.decode(value) for value in self.values(BALANCE_EVENTS, partition)]

    def outputs(self, partition: int) -> list[EngineOutput]:
        return [wire.ENGINE_OUTPUT.decode(value) for value in self.values(ENGINE_OUTPUTS, partition)]

    def responses(self) -> list[OrderResponse]:
        return [wire.ORDER_RESPONSE.decode(value) for value in self.values(ORDER_RESPONSES)]

    def validated(self, partition: int) -> list[ValidatedOrder]:
        return [wire.VALIDATED_ORDER.decode(value) for value in self.values(VALIDATED_ORDERS, partition)]

    def said(self, event: str, level: str | None = None) -> list[dict[str, object]]:
        """The fields of all log lines that begin with these words."""
        return [
            fields
            for _, _, line_level, line, fields in self.lines
            if line.startswith(event) and level in (None, line_level)
        ]

    def end_offset(self, topic: str, partition: int) -> int:
        return self.cluster.partitions[TopicPartition(topic, partition)].log.high_watermark

    # -- what must always hold

    def assert_chains_whole(self) -> None:
        """Sequences and hashes link in each output partition, and no input was taken twice."""
        for topic, codec, count in (
            (BALANCE_EVENTS, wire.BALANCE_EVENT, self.topology.user_partitions),
            (ENGINE_OUTPUTS, wire.ENGINE_OUTPUT, self.topology.symbol_partitions),
        ):
            for partition in range(count):
                before, inputs = wire.GENESIS_HASH, []
                for number, value in enumerate(self.values(topic, partition), start=1):
                    event, event_hash = codec.unseal(value)
                    assert isinstance(event, BalanceEvent | EngineOutput)
                    sequence = event.sequence if isinstance(event, BalanceEvent) else event.output_seq
                    assert (sequence, event.prev_hash) == (number, before)
                    before = event_hash
                    inputs.append((event.input_topic, event.input_offset))
                assert len(set(inputs)) == len(inputs)

    def assert_every_input_taken(self) -> None:
        """Each committed record of an input is named by exactly one output."""
        for topic, outputs in (
            (ORDER_REQUESTS, self.balance_events),
            ("fund.updates", self.balance_events),
            (VALIDATED_ORDERS, self.outputs),
        ):
            for partition in range(self.topology.partitions()[topic]):
                there = [each[1] for each in self.cluster.committed_log(topic) if each[0] == partition]
                taken = [each.input_offset for each in outputs(partition) if each.input_topic == topic]
                assert taken == there, f"{topic}-{partition}"

    def close(self) -> None:
        self.world.close()
