"""Several systems on one cluster: a namespace in front of every name that the servers see.

A service knows topics, groups and transactional ids by the names of `schema.topics` and of its own, and writes topic
names into its events. On a shared cluster each of them gets the namespace's prefix where it leaves the process and
loses it where it comes in; the keyspace is the namespace's too. Without a namespace nothing is translated at all.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final

from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord, TopicPartition

from schema.ports import KafkaBatch, KafkaClients, KafkaConsumer, KafkaProducer
from schema.tables import KEYSPACE

if TYPE_CHECKING:
    from asyncio import Future

    from aiokafka.structs import OffsetAndMetadata, RecordMetadata

NAME_CHARACTERS_MAX: Final = 30


class Namespace:
    """The names of one system. Raises ValueError for a name that is not letters, digits and underscores."""

    def __init__(self, name: str = "") -> None:
        if name and not re.fullmatch(rf"[a-z][a-z0-9_]{{0,{NAME_CHARACTERS_MAX - 1}}}", name):
            raise ValueError(
                f"a namespace is a small letter, then up to {NAME_CHARACTERS_MAX - 1} small letters, digits and "
                f"underscores, not {name!r}"
            )
        self.name = name
        self._prefix = f"{name}." if name else ""

    @property
    def keyspace(self) -> str:
        """The Cassandra keyspace."""
        return self.name or KEYSPACE

    def outside(self, name: str) -> str:
        """The name that the servers know of a topic, group or transactional id."""
        return self._prefix + name

    def inside(self, name: str) -> str:
        """The service's own name of what the servers call `name`."""
        return name.removeprefix(self._prefix)

    def clients(self, clients: KafkaClients) -> KafkaClients:
        """Clients for which the cluster holds nothing but this namespace's topics and groups."""
        return NamespacedClients(clients, self) if self._prefix else clients

    def place_outside(self, place: TopicPartition) -> TopicPartition:
        """`outside` for a partition."""
        return TopicPartition(self.outside(place.topic), place.partition)

    def place_inside(self, place: TopicPartition) -> TopicPartition:
        """`inside` for a partition."""
        return TopicPartition(self.inside(place.topic), place.partition)

    def error_inside(self, error: KafkaError) -> KafkaError:
        """The error with the partitions that its arguments name translated; in place, so that its traceback stays."""
        error.args = tuple(self._argument_inside(argument) for argument in error.args)
        return error

    def _argument_inside(self, argument: object) -> object:
        if isinstance(argument, TopicPartition):
            return self.place_inside(argument)
        if isinstance(argument, dict):
            return {self._argument_inside(key): value for key, value in argument.items()}
        return argument


class NamespacedClients:
    """Implements `schema.ports.KafkaClients` over other clients."""

    def __init__(self, clients: KafkaClients, namespace: Namespace) -> None:
        self._clients = clients
        self._namespace = namespace

    def producer(self, **config: Any) -> KafkaProducer:
        """A producer whose topics and transactional id are the namespace's."""
        transactional_id = config.get("transactional_id")
        if transactional_id is not None:
            config["transactional_id"] = self._namespace.outside(transactional_id)
        return _Producer(self._clients.producer(**config), self._namespace)

    def consumer(self, *topics: str, **config: Any) -> KafkaConsumer:
        """A consumer whose topics and group are the namespace's."""
        group_id = config.get("group_id")
        if group_id is not None:
            config["group_id"] = self._namespace.outside(group_id)
        inner = self._clients.consumer(*map(self._namespace.outside, topics), **config)
        return _Consumer(inner, self._namespace)


class _Producer:
    """What is delivered is acknowledged as the servers name it; nobody looks at more of it than the offset."""

    def __init__(self, producer: KafkaProducer, namespace: Namespace) -> None:
        self._namespace = namespace
        self._producer = producer
        # What names no topic is the producer's own.
        self.start = producer.start
        self.stop = producer.stop
        self.flush = producer.flush
        self.create_batch = producer.create_batch
        self.begin_transaction = producer.begin_transaction
        self.commit_transaction = producer.commit_transaction
        self.abort_transaction = producer.abort_transaction

    async def send(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> "Future[RecordMetadata]":
        return await self._producer.send(self._namespace.outside(topic), value, key, partition, timestamp_ms)

    async def send_and_wait(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> "RecordMetadata":
        return await self._producer.send_and_wait(self._namespace.outside(topic), value, key, partition, timestamp_ms)

    async def send_batch(self, batch: KafkaBatch, topic: str, *, partition: int) -> "Future[RecordMetadata]":
        return await self._producer.send_batch(batch, self._namespace.outside(topic), partition=partition)

    def transaction(self) -> AbstractAsyncContextManager[object]:
        return self._producer.transaction()

    async def send_offsets_to_transaction(
        self, offsets: "Mapping[TopicPartition, int | OffsetAndMetadata]", group_id: str
    ) -> None:
        namespace = self._namespace
        outside = {namespace.place_outside(place): offset for place, offset in offsets.items()}
        await self._producer.send_offsets_to_transaction(outside, namespace.outside(group_id))


class _Consumer:
    def __init__(self, consumer: KafkaConsumer, namespace: Namespace) -> None:
        self._namespace = namespace
        self._consumer = consumer
        self.start = consumer.start
        self.stop = consumer.stop

    def subscribe(
        self,
        topics: Iterable[str] = (),
        pattern: str | None = None,
        listener: ConsumerRebalanceListener | None = None,
    ) -> None:
        if pattern is not None:
            raise ValueError("a pattern of topics would reach beyond the namespace")
        wrapped = _Listener(listener, self._namespace) if listener is not None else None
        self._consumer.subscribe([self._namespace.outside(topic) for topic in topics], listener=wrapped)

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        self._consumer.assign(self._outside(partitions))

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset(map(self._namespace.place_inside, self._consumer.assignment()))

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int = 0, max_records: int | None = None
    ) -> "dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]]":
        try:
            fetched = await self._consumer.getmany(
                *self._outside(partitions), timeout_ms=timeout_ms, max_records=max_records
            )
        except KafkaError as error:
            raise self._namespace.error_inside(error) from None
        inside = {}
        for place, records in fetched.items():
            own = self._namespace.place_inside(place)
            for record in records:
                record.topic = own.topic
            inside[own] = records
        return inside

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._consumer.seek(self._namespace.place_outside(partition), offset)

    async def seek_to_beginning(self, *partitions: TopicPartition) -> object:
        return await self._consumer.seek_to_beginning(*self._outside(partitions))

    async def seek_to_end(self, *partitions: TopicPartition) -> object:
        return await self._consumer.seek_to_end(*self._outside(partitions))

    async def position(self, partition: TopicPartition) -> int:
        return await self._consumer.position(self._namespace.place_outside(partition))

    async def committed(self, partition: TopicPartition) -> int | None:
        return await self._consumer.committed(self._namespace.place_outside(partition))

    async def commit(self, offsets: Mapping[TopicPartition, int] | None = None) -> None:
        if offsets is None:
            await self._consumer.commit()
        else:
            await self._consumer.commit(
                {self._namespace.place_outside(place): offset for place, offset in offsets.items()}
            )

    async def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return self._inside(await self._consumer.beginning_offsets(self._outside(partitions)))

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return self._inside(await self._consumer.end_offsets(self._outside(partitions)))

    def pause(self, *partitions: TopicPartition) -> None:
        self._consumer.pause(*self._outside(partitions))

    def resume(self, *partitions: TopicPartition) -> None:
        self._consumer.resume(*self._outside(partitions))

    def paused(self) -> set[TopicPartition]:
        return set(map(self._namespace.place_inside, self._consumer.paused()))

    def _outside(self, partitions: Iterable[TopicPartition]) -> list[TopicPartition]:
        return [self._namespace.place_outside(place) for place in partitions]

    def _inside(self, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        return {self._namespace.place_inside(place): offset for place, offset in offsets.items()}


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Tells the service's listener in the service's own names."""

    def __init__(self, listener: ConsumerRebalanceListener, namespace: Namespace) -> None:
        self._listener = listener
        self._namespace = namespace

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        await self._listener.on_partitions_revoked({self._namespace.place_inside(place) for place in revoked})

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        await self._listener.on_partitions_assigned({self._namespace.place_inside(place) for place in assigned})
