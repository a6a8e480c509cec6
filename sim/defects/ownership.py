"""Defects in how partitions are owned: transactions, fencing, resume points, snapshots, input queues."""

import asyncio
from collections.abc import Callable, Mapping
from itertools import count
from typing import TYPE_CHECKING, Any

import msgspec
from aiokafka.structs import RecordMetadata, TopicPartition

from engine.matching_service import MatchingCore
from engine.matching_snapshot import decode_state, encode_state
from engine.ownership import OwnershipService
from engine.partition_core import Outgoing, PartitionCore
from engine.partition_task import PartitionTask
from engine.transactions import TransactionalWriter, TransactionFailedError, _look_at
from schema.ports import KafkaClients, KafkaConsumer, KafkaProducer
from schema.services import MATCHING
from settlement.service import SettlementService
from sim.defects.defect import Defect, Replacement

if TYPE_CHECKING:
    from asyncio import Future

    from aiokafka.structs import ConsumerRecord

QUEUE_BOUND = 24
"""Records that the queue of `input-dropped-when-full` holds: few, because a simulated exchange is small."""


class _Clients:
    """Kafka clients with some of their configuration replaced; None takes an option out."""

    def __init__(self, clients: KafkaClients, **replaced: object) -> None:
        self._clients = clients
        self._replaced = replaced

    def producer(self, **config: object) -> KafkaProducer:
        return self._clients.producer(**self._with(config))

    def consumer(self, *topics: str, **config: object) -> KafkaConsumer:
        return self._clients.consumer(*topics, **self._with(config))

    def _with(self, config: dict[str, object]) -> dict[str, object]:
        changed = {name: self._replaced.get(name, value) for name, value in config.items()}
        return {name: value for name, value in changed.items() if value is not None}


# The engine writes without a transaction.


def _plain_producer(intact: Callable[..., None]) -> Callable[..., None]:
    def init(self: Any, clients: KafkaClients, transactional_id: str, *rest: Any) -> None:
        self.is_plain = transactional_id.startswith(MATCHING)
        if self.is_plain:
            clients = _Clients(clients, transactional_id=None, transaction_timeout_ms=None)
        intact(self, clients, transactional_id, *rest)

    return init


def _hands_over_consumer(intact: Callable[..., Any]) -> Callable[..., Any]:
    async def transact(self: PartitionTask, core: PartitionCore, writer: Any, batch: Any) -> None:
        writer.consumer = self._consumer
        await intact(self, core, writer, batch)

    return transact


def _sends_then_commits(intact: Callable[..., Any]) -> Callable[..., Any]:
    async def write(
        self: Any, outgoing: Outgoing, offsets: Mapping[TopicPartition, int], group_id: str
    ) -> dict[TopicPartition, int]:
        last_offsets: dict[TopicPartition, int]
        if not self.is_plain:
            last_offsets = await intact(self, outgoing, offsets, group_id)
            return last_offsets
        deliveries: list[tuple[TopicPartition, Future[RecordMetadata]]] = []
        try:
            async with asyncio.timeout(self._settings.transaction_timeout_ms / 1000):
                for place, values in outgoing.items():
                    for value in values:
                        delivery = await self._producer.send(place.topic, value, partition=place.partition)
                        deliveries.append((place, delivery))
                last_offsets = {place: (await delivery).offset for place, delivery in deliveries}
                await self.consumer.commit(offsets)
                return last_offsets
        except Exception as error:
            raise TransactionFailedError(f"{self._transactional_id}: {error!r}") from error
        finally:
            for _, delivery in deliveries:
                delivery.add_done_callback(_look_at)

    return write


# A delivery's failure is not looked at.


class _UnexaminedProducer:
    """A producer whose deliveries never seem to fail."""

    def __init__(self, producer: KafkaProducer) -> None:
        self._producer = producer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    async def send_batch(self, batch: Any, topic: str, **options: Any) -> "Future[RecordMetadata]":
        delivery = await self._producer.send_batch(batch, topic, **options)
        unexamined: Future[RecordMetadata] = asyncio.get_running_loop().create_future()

        def over(ended: "Future[RecordMetadata]") -> None:
            failed = ended.cancelled() or ended.exception() is not None
            nowhere = RecordMetadata(topic, options["partition"], None, -1, -1, 0, -1)
            if not unexamined.done():
                unexamined.set_result(nowhere if failed else ended.result())

        delivery.add_done_callback(over)
        return unexamined


def _unexamined(intact: Callable[..., None]) -> Callable[..., None]:
    def init(self: Any, *arguments: Any) -> None:
        intact(self, *arguments)
        self._producer = _UnexaminedProducer(self._producer)

    return init


# Reading what may be aborted.


def _uncommitted(intact: Callable[..., None]) -> Callable[..., None]:
    def init(self: Any, *arguments: Any, kafka: KafkaClients, **ports: Any) -> None:
        intact(self, *arguments, kafka=_Clients(kafka, isolation_level="read_uncommitted"), **ports)

    return init


# No fence.


def _own_id(intact: Callable[..., None]) -> Callable[..., None]:
    lives = count(1)

    def init(self: TransactionalWriter, clients: KafkaClients, transactional_id: str, *rest: Any) -> None:
        intact(self, clients, f"{transactional_id}-{next(lives)}", *rest)

    return init


# Where to read on.


def _from_group_offset(intact: Callable[..., Any]) -> Callable[..., Any]:
    async def take_over(self: PartitionTask, *arguments: Any) -> PartitionCore | None:
        core: PartitionCore | None = await intact(self, *arguments)
        if core is not None:
            for place in self._inputs:
                offset = await self._consumer.committed(place)
                if offset is not None:
                    self._consumer.seek(place, offset)
        return core

    return take_over


def _nothing_taken(_intact: Callable[..., dict[str, int]]) -> Callable[..., dict[str, int]]:
    def first_not_taken(self: PartitionTask, _core: PartitionCore) -> dict[str, int]:
        return {}

    return first_not_taken


# Snapshots.


def _remembers_book_before(intact: Callable[..., None]) -> Callable[..., None]:
    def decide(self: Any, record: "ConsumerRecord[bytes, bytes]", outgoing: Outgoing) -> None:
        self.state_before = self._engine.snapshot()
        intact(self, record, outgoing)

    return decide


def _book_one_record_behind(intact: Callable[..., bytes]) -> Callable[..., bytes]:
    def snapshot(self: Any) -> bytes:
        orders = decode_state(self.state_before).orders
        return encode_state(msgspec.structs.replace(decode_state(intact(self)), orders=orders))

    return snapshot


# A queue that is full.


def _drops_when_full(intact: Callable[..., None]) -> Callable[..., None]:
    def hand_over(self: PartitionTask, records: "list[ConsumerRecord[bytes, bytes]]") -> None:
        room = max(0, QUEUE_BOUND - len(self._inbox))
        intact(self, records[:room])

    return hand_over


DEFECTS = (
    Defect(
        "plain-producer",
        "the engine's transaction is replaced by a plain producer and an offset commit after it",
        ("chain-unbroken", "no-lost-ack", "funds-conserved", "converges"),
        (
            Replacement(TransactionalWriter, "__init__", _plain_producer),
            Replacement(TransactionalWriter, "write", _sends_then_commits),
            Replacement(PartitionTask, "_transact", _hands_over_consumer),
        ),
    ),
    Defect(
        "failed-delivery-committed",
        "a transaction is committed although the delivery of one of its records failed",
        ("chain-unbroken", "no-lost-ack", "funds-conserved", "converges"),
        (Replacement(TransactionalWriter, "__init__", _unexamined),),
    ),
    Defect(
        "uncommitted-read",
        "settlement, engine and balance core read what transactions have not committed, and may abort",
        ("no-phantom-row", "no-lost-ack", "converges"),
        (
            Replacement(SettlementService, "__init__", _uncommitted),
            Replacement(OwnershipService, "__init__", _uncommitted),
        ),
    ),
    Defect(
        "group-offset-resumed",
        "a partition that is taken over is read on from the group's offset, not from what its own output names",
        ("no-lost-ack", "converges"),
        (
            Replacement(PartitionTask, "_take_over", _from_group_offset),
            Replacement(PartitionTask, "_first_not_taken", _nothing_taken),
        ),
    ),
    Defect(
        "snapshot-one-record-off",
        "the engine's snapshot holds the book of one input earlier than it says",
        ("lifecycle-matches-reference",),
        (
            Replacement(MatchingCore, "decide", _remembers_book_before),
            Replacement(MatchingCore, "snapshot", _book_one_record_behind),
        ),
    ),
    Defect(
        "old-instance-not-fenced",
        "each life of an instance has a transactional id of its own, so a former owner can still write",
        ("chain-unbroken", "no-lost-ack", "converges"),
        (Replacement(TransactionalWriter, "__init__", _own_id),),
    ),
    Defect(
        "input-dropped-when-full",
        "the queue in front of a partition's core is bounded, and what does not fit is dropped",
        ("no-lost-ack", "converges"),
        (Replacement(PartitionTask, "hand_over", _drops_when_full),),
    ),
)
