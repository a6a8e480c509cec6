"""One partition's log: batches, offsets, the high watermark, the last stable offset and the producers' state.

The log is pure: it has no clock and sends nothing. It is the log of the partition's leader; how far each follower has
got is the business of `sim.kafka.partition`. The rules are those of Kafka's own log layer:

- A batch is accepted or refused as a whole. Control batches (the markers that end a transaction) take an offset each.
- An idempotent producer numbers its records per partition. The log remembers each producer's epoch and last five
  batches: a batch that it has already is answered with the offset it got, one that leaves a gap is refused with
  `OutOfOrderSequenceNumber`, one of an older epoch with `InvalidProducerEpoch`.
- Readers see records below the high watermark; read-committed readers only those below the last stable offset, which is
  the first offset of the oldest transaction that is open, or whose marker is not yet below the high watermark.

Compaction is not modelled. A truncation rebuilds the state of producers from the batches that are left.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import TypeAlias, cast

import msgspec
from aiokafka.errors import BrokerResponseError, InvalidProducerEpoch, OutOfOrderSequenceNumber

from sim.hosts import RUN_STARTS_NS

Record = tuple[int, bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]
"""A record in a batch: timestamp_ms, key, value, headers."""

DATA = 0
COMMIT_MARKER = 1
ABORT_MARKER = 2

ErrorType: TypeAlias = type[BrokerResponseError]

OPEN = 0
COMMITTED = 1
ABORTED = 2

REMEMBERED_BATCHES = 5
"""How many batches of a producer a partition remembers, to recognise a repetition."""

RECORD_OVERHEAD_BYTES = 21
"""The most that a record's length, attributes, timestamp and offset deltas take in the v2 format, headers aside."""

BATCH_OVERHEAD_BYTES = 61
"""The header of a v2 record batch."""

_SEQUENCES = 1 << 31


MIXED = -1
"""The `stamp_ms` of a batch whose records are kept each with its own timestamp, key and headers."""


class Batch(msgspec.Struct, eq=False, gc=False):
    """Records that were appended together, or one marker. `producer_id` -1 is a plain producer.

    Most batches have one timestamp and neither keys nor headers. In a log, `records` holds nothing but the values of
    these, and `stamp_ms` is the timestamp: a tuple for each record would take a third of all that the log takes.
    """

    records: Sequence[Record] | Sequence[bytes | None]
    size_bytes: int
    producer_id: int = -1
    producer_epoch: int = -1
    base_sequence: int = -1
    transactional: bool = False
    control: int = DATA
    stamp_ms: int = MIXED
    # Whether the transaction has ended, and how. Readers below the last stable offset never meet OPEN.
    outcome: int = OPEN
    base_offset: int = -1
    last_offset: int = -1
    appended_ns: int = -1

    def copy(self) -> Batch:
        """The same batch, not yet in any log: what a retry sends again."""
        return Batch(
            self.records,
            self.size_bytes,
            self.producer_id,
            self.producer_epoch,
            self.base_sequence,
            self.transactional,
            self.control,
            self.stamp_ms,
        )

    def to_store(self) -> Batch:
        """A copy for a log, which takes as little room as it can."""
        batch = self.copy()
        if self.stamp_ms != MIXED or not self.records:
            return batch
        records = cast("Sequence[Record]", self.records)
        stamp_ms = records[0][0]
        for timestamp_ms, key, _, headers in records:
            if timestamp_ms != stamp_ms or key is not None or headers or stamp_ms < 0:
                return batch
        batch.records = [record[2] for record in records]
        batch.stamp_ms = stamp_ms
        return batch

    def rows(self) -> Iterable[Record]:
        """Its records, each with all that it has."""
        if self.stamp_ms == MIXED:
            return cast("Sequence[Record]", self.records)
        values = cast("Sequence[bytes | None]", self.records)
        return zip(repeat(self.stamp_ms), repeat(None), values, repeat(()), strict=False)

    def values(self) -> Sequence[bytes | None]:
        """The values of its records."""
        if self.stamp_ms == MIXED:
            return [value for _, _, value, _ in cast("Sequence[Record]", self.records)]
        return cast("Sequence[bytes | None]", self.records)


class ProducerEntry:
    """What a partition knows of one producer: its epoch and its last batches as (first sequence, base offset)."""

    __slots__ = ("batches", "epoch", "next_sequence")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.next_sequence = 0  # a new epoch begins anew
        self.batches: deque[tuple[int, int]] = deque(maxlen=REMEMBERED_BATCHES)


class PartitionLog:
    """The batches from `start_offset` to `end_offset` (one past the last), and what readers may see of them."""

    __slots__ = (
        "_bases",
        "_open",
        "_unstable",
        "batches",
        "end_offset",
        "high_watermark",
        "last_stable_offset",
        "producers",
        "start_offset",
    )

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self._bases: list[int] = []
        self.start_offset = 0
        self.end_offset = 0
        self.high_watermark = 0
        self.last_stable_offset = 0
        self.producers: dict[int, ProducerEntry] = {}
        # Open transactions: producer id -> its batches. In order of their first offset, since appends are in order.
        self._open: dict[int, list[Batch]] = {}
        # Ended ones whose marker is not below the high watermark yet: (first offset, marker's offset).
        self._unstable: deque[tuple[int, int]] = deque()

    # -- writing

    def continues(self, batch: Batch) -> bool:
        """Whether the batch is the very next one of a producer that is known: neither repeated nor to be refused."""
        entry = self.producers.get(batch.producer_id)
        return (
            entry is not None
            and entry.epoch == batch.producer_epoch
            and entry.next_sequence == batch.base_sequence
            and entry.next_sequence > 0
        )

    def find_repeated(self, batch: Batch) -> int | None:
        """The base offset of a batch that the log has already under the same producer, epoch and sequence."""
        entry = self.producers.get(batch.producer_id)
        if entry is None or entry.epoch != batch.producer_epoch:
            return None
        first = batch.base_sequence
        for known_first, base_offset in entry.batches:
            if known_first == first:
                return base_offset
        return None

    def refusal(self, batch: Batch) -> ErrorType | None:
        """Why a batch of an idempotent producer cannot be appended, or None. Call `find_repeated` first."""
        if batch.producer_id < 0:
            return None
        entry = self.producers.get(batch.producer_id)
        if entry is None:
            return None  # nothing is known of the producer (any more): any sequence is taken
        fenced: ErrorType = InvalidProducerEpoch
        out_of_order: ErrorType = OutOfOrderSequenceNumber
        if batch.producer_epoch < entry.epoch:
            return fenced
        expected = entry.next_sequence if batch.producer_epoch == entry.epoch else 0
        return None if batch.base_sequence == expected else out_of_order

    def append(self, batch: Batch, now_ns: int) -> int:
        """Append an accepted batch and return its base offset."""
        base = self.end_offset
        count = len(batch.records) if batch.control == DATA else 1
        batch.base_offset = base
        batch.last_offset = base if count == 1 else base + count - 1
        batch.appended_ns = now_ns
        batch.outcome = OPEN if batch.transactional else COMMITTED
        self.batches.append(batch)
        self._bases.append(base)
        self.end_offset = base + count
        if batch.producer_id >= 0:
            self._remember(batch, count)
        return base

    def has_open_transaction(self, producer_id: int) -> bool:
        """Whether the producer has written here since its last marker."""
        return producer_id in self._open

    def open_transactions(self) -> list[int]:
        """The producers with an open transaction here, the oldest first."""
        return list(self._open)

    def advance(self, offset: int) -> bool:
        """Move the high watermark up to `offset`; return whether anything new became visible."""
        if offset <= self.high_watermark:
            return False
        self.high_watermark = offset
        unstable = self._unstable
        while unstable and unstable[0][1] < offset:
            unstable.popleft()
        stable = offset
        for opened in self._open.values():
            if opened[0].base_offset < stable:
                stable = opened[0].base_offset
            break
        for first_offset, _ in unstable:
            if first_offset < stable:
                stable = first_offset
        if stable > self.last_stable_offset:
            self.last_stable_offset = stable
        return True

    def truncate(self, end_offset: int) -> int:
        """Cut off everything from `end_offset` on and return how many records (not markers) were lost.

        Cutting below the high watermark loses acknowledged records: only an unclean leader election does that.
        """
        lost = 0
        while self.batches and self.batches[-1].last_offset >= end_offset:
            batch = self.batches.pop()
            self._bases.pop()
            lost += len(batch.records)
        if self.end_offset > end_offset:
            self.end_offset = max(end_offset, self.start_offset)
            self._rebuild()
        return lost

    def delete_before(self, offset: int) -> int:
        """Retention: forget batches that end before `offset`; return how many records went.

        Never above the high watermark.
        """
        offset = min(offset, self.high_watermark)
        keep = 0
        gone = 0
        while keep < len(self.batches) and self.batches[keep].last_offset < offset:
            gone += len(self.batches[keep].records)
            keep += 1
        if offset > self.start_offset:
            del self.batches[:keep]
            del self._bases[:keep]
            self.start_offset = offset
            self.last_stable_offset = max(self.last_stable_offset, offset)
        return gone

    # -- reading

    def read(self, offset: int, upto: int, max_bytes: int) -> list[Batch]:
        """Whole batches from the one holding `offset`, below `upto`; at least one, then up to `max_bytes`."""
        first = bisect_right(self._bases, offset) - 1
        if first < 0 or self.batches[first].last_offset < offset:
            first += 1
        found = self.batches[first : bisect_left(self._bases, upto)]
        size = 0
        for place, batch in enumerate(found):
            size += batch.size_bytes
            if size > max_bytes and place:
                return found[:place]
        return found

    def committed_batches(self) -> Iterator[Batch]:
        """The data batches that a read-committed reader finds, from the start of the log to the last stable offset."""
        for batch in self.batches:
            if batch.base_offset >= self.last_stable_offset:
                return
            if batch.control == DATA and batch.outcome == COMMITTED:
                yield batch

    def offset_for_time(self, timestamp_ms: int, upto: int) -> tuple[int, int] | None:
        """The first offset below `upto` whose record is at or after `timestamp_ms`, and that record's timestamp.

        A marker counts as a record, of the time at which the broker wrote it.
        """
        for batch in self.batches:
            if batch.control != DATA:
                written_ms = (RUN_STARTS_NS + batch.appended_ns) // 1_000_000
                if batch.base_offset >= upto:
                    return None
                if written_ms >= timestamp_ms and batch.base_offset >= self.start_offset:
                    return batch.base_offset, written_ms
            for index, record in enumerate(batch.rows()):
                if batch.base_offset + index >= upto:
                    return None
                if record[0] >= timestamp_ms and batch.base_offset + index >= self.start_offset:
                    return batch.base_offset + index, record[0]
        return None

    # -- the state of producers

    def _remember(self, batch: Batch, count: int) -> None:
        producer_id = batch.producer_id
        entry = self.producers.get(producer_id)
        if entry is None:
            entry = self.producers[producer_id] = ProducerEntry(batch.producer_epoch)
        elif batch.producer_epoch != entry.epoch:
            entry.epoch = batch.producer_epoch
            entry.next_sequence = 0
            entry.batches.clear()
        if batch.control != DATA:
            self._end_transaction(batch)
            return
        first = batch.base_sequence
        entry.next_sequence = (first + count) % _SEQUENCES
        entry.batches.append((first, batch.base_offset))
        if batch.transactional:
            opened = self._open.get(producer_id)
            if opened is None:
                self._open[producer_id] = [batch]
            else:
                opened.append(batch)

    def _end_transaction(self, marker: Batch) -> None:
        opened = self._open.pop(marker.producer_id, None)
        marker.outcome = COMMITTED if marker.control == COMMIT_MARKER else ABORTED
        if opened is None:
            return
        for batch in opened:
            batch.outcome = marker.outcome
        self._unstable.append((opened[0].base_offset, marker.base_offset))

    def _rebuild(self) -> None:
        self.producers.clear()
        self._open.clear()
        self._unstable.clear()
        for batch in self.batches:
            if batch.transactional:
                batch.outcome = OPEN
        for batch in self.batches:
            if batch.producer_id >= 0:
                self._remember(batch, len(batch.records) or 1)
        visible = min(self.high_watermark, self.end_offset)
        self.high_watermark = self.last_stable_offset = -1
        self.advance(visible)
        self.last_stable_offset = max(self.last_stable_offset, min(self.start_offset, self.end_offset))
