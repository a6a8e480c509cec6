"""A producer's batches: what `create_batch` gives to fill, and what waits at the client to be delivered.

Both hold a record as the log does. A batch takes records up to its size; a record larger than that is let in alone, as
the real client does it.
"""

from __future__ import annotations

import asyncio
import copy
from asyncio import Future
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec
from aiokafka.record.default_records import DefaultRecordMetadata
from aiokafka.structs import RecordMetadata, TopicPartition

from sim.kafka.log import BATCH_OVERHEAD_BYTES, Batch, Record

if TYPE_CHECKING:
    from sim.clock import Clock
    from sim.hosts import WallClock

Serializer = Callable[[object], bytes]


class BatchBuilder:
    """The double of aiokafka's class of that name: records that are sent, and delivered or failed, together."""

    __slots__ = (
        "_clock",
        "_count",
        "_is_closed",
        "_key_serializer",
        "_looked_at_ns",
        "_size_max",
        "_timestamp_ms",
        "_value_serializer",
        "_wall",
        "records",
        "size_bytes",
    )

    def __init__(
        self,
        size_max_bytes: int,
        clock: Clock,
        wall: WallClock,
        key_serializer: Serializer | None = None,
        value_serializer: Serializer | None = None,
    ) -> None:
        self.records: list[Record] = []
        self.size_bytes = BATCH_OVERHEAD_BYTES
        self._size_max = size_max_bytes
        self._clock = clock
        self._wall = wall
        self._looked_at_ns = -1
        self._timestamp_ms = 0
        self._key_serializer = key_serializer
        self._value_serializer = value_serializer
        self._is_closed = False
        self._count = 0  # of its records

    def append(
        self,
        *,
        timestamp: int | None,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] | None = (),
    ) -> DefaultRecordMetadata | None:
        """Add a record, by default of this instant; `timestamp` is in ms. None when it does not fit, or is too late."""
        if self._is_closed:
            return None
        if self._key_serializer is not None:
            key = self._key_serializer(key)
        if self._value_serializer is not None:
            value = self._value_serializer(value)
        if timestamp is None:
            if self._clock._now != self._looked_at_ns:
                self._looked_at_ns = self._clock._now
                self._timestamp_ms = self._wall.now_ns() // 1_000_000
            timestamp = self._timestamp_ms
        # To the byte, as in `Producer.send`; but small numbers take one byte or two, which is seen without a call.
        size = 4
        if value is not None:
            if type(value) is not bytes:
                value = as_bytes(value)
            length = len(value)
            size += length + (0 if length < 64 else 1 if length < 8192 else length.bit_length() // 7)
        if key is not None:
            if type(key) is not bytes:
                key = as_bytes(key)
            length = len(key)
            size += length + (0 if length < 64 else length.bit_length() // 7)
        if headers:
            size += header_bytes(headers)
        records = self.records
        ordinal = self._count
        delta_ms = timestamp - records[0][0] if records else 0
        size += 1 if ordinal < 64 else (ordinal.bit_length() + 7) // 7
        size += 1 if 0 <= delta_ms < 64 else ((delta_ms if delta_ms >= 0 else ~delta_ms).bit_length() + 7) // 7
        size += 1 if size < 64 else 2 if size < 8192 else (size.bit_length() + 7) // 7
        if records and self.size_bytes + size > self._size_max:
            self._is_closed = True
            return None
        records.append((timestamp, key, value, tuple(headers) if headers else ()))
        self._count = ordinal + 1
        self.size_bytes += size
        return DefaultRecordMetadata(ordinal, size, timestamp)

    def close(self) -> None:
        """Let nothing more in."""
        self._is_closed = True

    def closed(self) -> bool:
        """Whether nothing more is let in."""
        return self._is_closed

    def size(self) -> int:
        """How many bytes it takes."""
        return self.size_bytes

    def record_count(self) -> int:
        """How many records are in it."""
        return self._count


class PendingBatch(msgspec.Struct, eq=False):
    """A batch at the client until it is delivered or has failed.

    Its records were sent one by one, each with a future in `futures`, or as a whole, with `delivery` for all.
    """

    tp: TopicPartition
    created_ns: int
    records: list[Record]
    futures: list[Future[RecordMetadata | None]]
    size_bytes: int = BATCH_OVERHEAD_BYTES
    delivery: Future[RecordMetadata | None] | None = None
    is_closed: bool = False
    wire: Batch | None = None
    """Set when it is first taken: then it has its sequence."""
    flushed: Future[None] | None = None
    drained: Future[None] | None = None

    def end(self, loop: asyncio.AbstractEventLoop) -> Future[None]:
        """Done when it has been delivered or has failed."""
        if self.flushed is None:
            self.flushed = loop.create_future()
        return self.flushed

    def wake_drain(self, error: BaseException | None = None) -> None:
        """Tell who waits for room that the batch has been taken, or that the sender has died."""
        if self.drained is not None and not self.drained.done():
            if error is None:
                self.drained.set_result(None)
            else:
                self.drained.set_exception(copy.copy(error))
        self.drained = None

    def deliver(self, base_offset: int, log_start_offset: int) -> None:
        """Tell where the records stand."""
        tp = self.tp
        topic, partition = tp
        new = tuple.__new__  # a third of the cost of calling the class, once per record
        delivery = self.delivery
        if delivery is not None:
            if not delivery.done():
                # No timestamp: the broker has kept the records' own.
                delivery.set_result(new(RecordMetadata, (topic, partition, tp, base_offset, -1, 0, log_start_offset)))
        else:
            timestamp_ms = self.records[0][0]  # of the first record, for all: as the real client has it
            offset = base_offset
            for future in self.futures:
                if not future.done():
                    fields = (topic, partition, tp, offset, timestamp_ms, 0, log_start_offset)
                    future.set_result(new(RecordMetadata, fields))
                offset += 1
        self._ended()

    def deliver_unacknowledged(self) -> None:
        """Tell that it was sent; under acks=0 nobody knows more."""
        for future in self._waiting():
            future.set_result(None)
        self._ended()

    def fail(self, error: BaseException) -> None:
        """Tell that it was not delivered, as far as the client knows."""
        for future in self._waiting():
            future.set_exception(copy.copy(error))
        self._ended()
        self.wake_drain(error)

    def _waiting(self) -> list[Future[RecordMetadata | None]]:
        futures = self.futures if self.delivery is None else [self.delivery]
        return [future for future in futures if not future.done()]

    def _ended(self) -> None:
        if self.flushed is not None and not self.flushed.done():
            self.flushed.set_result(None)


def as_bytes(content: object) -> bytes:
    """The bytes of a key or value that is not `bytes` itself. TypeError when it has none."""
    if isinstance(content, bytes | bytearray | memoryview):
        return bytes(content)
    raise TypeError(f"a bytes-like object is required, not '{type(content).__name__}'")


def header_bytes(headers: Sequence[tuple[str, bytes]]) -> int:
    """What headers take in a record, but for one byte of their count. TypeError if they are not a list."""
    if not isinstance(headers, list):
        raise TypeError(f"Expected list, got {type(headers).__name__}")
    size = len(headers).bit_length() // 7
    for name, content in headers:
        lengths = (len(name.encode()), len(content or b""))
        size += sum(length + (length.bit_length() + 7) // 7 for length in lengths)
    return size
