"""What a service is handed from outside: clock, randomness, disk, log, Kafka clients (design section 1.1).

A service imports none of these; it is given them, by the real process or by the simulator, and cannot tell which. The
Kafka protocols are the part of aiokafka that the services use, with aiokafka's own structs and exceptions.
"""

from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from asyncio import Future

    from aiokafka.abc import ConsumerRebalanceListener
    from aiokafka.structs import ConsumerRecord, OffsetAndMetadata, RecordMetadata, TopicPartition


class Clock(Protocol):
    """The host's wall clock. It may jump and drift, as real ones do; durations come from the event loop instead."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970-01-01T00:00:00Z."""


class Randomness(Protocol):
    """Randomness for jitter; nothing that is stored or sent depends on it."""

    def below(self, n: int) -> int:
        """A uniform integer from 0 to n - 1."""


class Log(Protocol):
    """A structured log: an event in words, and fields. structlog's bound logger is one."""

    def debug(self, event: str, **fields: object) -> object: ...
    def info(self, event: str, **fields: object) -> object: ...
    def warning(self, event: str, **fields: object) -> object: ...
    def error(self, event: str, **fields: object) -> object: ...
    def critical(self, event: str, **fields: object) -> object:
        """An alarm: something stopped and a person must look. Names topic, partition and offset where there are any."""


class Disk(Protocol):
    """A directory of a service's own. Nothing written is durable until synced; a rename needs `sync_names`."""

    async def read(self, name: str) -> bytes | None:
        """The file's bytes, None when there is no such file."""

    async def write(self, name: str, data: bytes) -> None:
        """Create or replace a file, unsynced."""

    async def sync(self, name: str) -> None:
        """Make the file's content durable."""

    async def rename(self, name: str, new_name: str) -> None:
        """Atomically give the file another name, replacing what had it."""

    async def remove(self, name: str) -> None:
        """Remove the file; no error when there is none."""

    async def names(self) -> list[str]:
        """The names of all files, sorted."""

    async def sync_names(self) -> None:
        """Make creations, renames and removals durable (fsync of the directory)."""


class KafkaBatch(Protocol):
    """The part of aiokafka's BatchBuilder that the services use: records that are delivered together."""

    def append(self, *, timestamp: int | None, key: bytes | None, value: bytes | None) -> object | None:
        """None when the batch is full: then the record is not in it, and the batch is closed."""

    def close(self) -> None: ...
    def record_count(self) -> int: ...


class KafkaProducer(Protocol):
    """The part of aiokafka.AIOKafkaProducer that the services use."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def send(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> "Future[RecordMetadata]": ...
    async def send_and_wait(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> "RecordMetadata": ...
    def create_batch(self) -> "KafkaBatch": ...
    async def send_batch(self, batch: "KafkaBatch", topic: str, *, partition: int) -> "Future[RecordMetadata]": ...
    async def flush(self) -> None: ...
    async def begin_transaction(self) -> None: ...
    async def commit_transaction(self) -> None: ...
    async def abort_transaction(self) -> None: ...
    def transaction(self) -> AbstractAsyncContextManager[object]: ...
    async def send_offsets_to_transaction(
        self, offsets: "Mapping[TopicPartition, int | OffsetAndMetadata]", group_id: str
    ) -> None: ...


class KafkaConsumer(Protocol):
    """The part of aiokafka.AIOKafkaConsumer that the services use."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def subscribe(
        self,
        topics: Iterable[str] = (),
        pattern: str | None = None,
        listener: "ConsumerRebalanceListener | None" = None,
    ) -> None: ...
    def assign(self, partitions: "Iterable[TopicPartition]") -> None: ...
    def assignment(self) -> "frozenset[TopicPartition]": ...
    async def getmany(
        self, *partitions: "TopicPartition", timeout_ms: int = 0, max_records: int | None = None
    ) -> "dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]]": ...
    def seek(self, partition: "TopicPartition", offset: int) -> None: ...
    async def seek_to_beginning(self, *partitions: "TopicPartition") -> object: ...
    async def seek_to_end(self, *partitions: "TopicPartition") -> object: ...
    async def position(self, partition: "TopicPartition") -> int: ...
    async def committed(self, partition: "TopicPartition") -> int | None: ...
    async def commit(self, offsets: "Mapping[TopicPartition, int] | None" = None) -> None: ...
    async def beginning_offsets(self, partitions: "Iterable[TopicPartition]") -> "dict[TopicPartition, int]": ...
    async def end_offsets(self, partitions: "Iterable[TopicPartition]") -> "dict[TopicPartition, int]": ...
    def pause(self, *partitions: "TopicPartition") -> None: ...
    def resume(self, *partitions: "TopicPartition") -> None: ...
    def paused(self) -> "set[TopicPartition]": ...


class KafkaClients(Protocol):
    """Makes Kafka clients; the keyword arguments are aiokafka's own, bootstrap servers are filled in."""

    def producer(self, **config: object) -> KafkaProducer: ...
    def consumer(self, *topics: str, **config: object) -> KafkaConsumer: ...
