"""Stored data: tables of partitions, partitions of rows in clustering order, and what deletes them.

A change is one of `RowWrite`, `RowChange`, `RangeDeletion`, `PartitionDeletion`, or `Together` (several changes of one
partition that a replica applies as one). Applying a change is a join: it may come late, twice or in any order.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, NamedTuple

from cassandra.metadata import Murmur3Token

from sim.cassandra.catalog import Table
from sim.cassandra.rows import NO_DELETION, Deletion, MergedRow, Row, RowWrite, later, merge

new_tuple: Callable[..., Any] = tuple.__new__
"""Makes a named tuple on a hot path: its own constructor is a Python function, three times as slow."""

Position = tuple[Any, ...]
Key = tuple[Any, ...]


class Slice(NamedTuple):
    """A contiguous piece of a partition, in positions. The bounds are prefixes; the empty prefix bounds nothing."""

    low: Position
    low_inclusive: bool
    high: Position
    high_inclusive: bool

    def contains(self, position: Position) -> bool:
        """Whether a row of that position lies in it."""
        low, high = self.low, self.high
        if low:
            prefix = position[: len(low)]
            if prefix < low or (prefix == low and not self.low_inclusive):
                return False
        if high:
            prefix = position[: len(high)]
            if prefix > high or (prefix == high and not self.high_inclusive):
                return False
        return True


EVERYTHING = Slice((), True, (), True)


class RangeTombstone(NamedTuple):
    """A deleted slice."""

    slice: Slice
    deletion: Deletion


_NO_RANGES: list[RangeTombstone] = []
"""That of every partition without one; never changed."""


class Partition:
    """Rows by position. `_order` is the sorted list of positions, brought up to date when it is read."""

    __slots__ = ("_order", "deletion", "key", "ranges", "rows", "static")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.rows: dict[Position, Row] = {}
        self.static: Row | None = None
        self.deletion: Deletion | None = None
        self.ranges: list[RangeTombstone] = _NO_RANGES
        self._order: list[Position] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is in it, not even a deletion."""
        return not (self.rows or self.static or self.deletion or self.ranges)

    def put(self, row: Row) -> None:
        """Join a version of a row with what is there."""
        position = row.position
        if position is None:
            self.static = row if self.static is None else merge(self.static, row)
            return
        old = self.rows.get(position)
        self.rows[position] = row if old is None else merge(old, row)

    def copy(self) -> Partition:
        """Another with the same in it."""
        made = Partition(self.key)
        made.rows = self.rows.copy()
        made.static = self.static
        made.deletion = self.deletion
        made.ranges = self.ranges
        made._order = None if self._order is None else self._order.copy()
        return made

    def join(self, other: Partition) -> None:
        """Take in what another version of this partition has."""
        if other.deletion is not None:
            self.delete(other.deletion)
        for tombstone in other.ranges:
            self.delete_range(tombstone)
        for row in other.rows.values():
            self.put(row)
        if other.static is not None:
            self.put(other.static)

    def remove(self, positions: list[Position]) -> None:
        """Let go of rows that stand elsewhere now."""
        for position in positions:
            del self.rows[position]
        self._order = None

    def delete(self, deletion: Deletion) -> None:
        """Delete the whole partition."""
        self.deletion = later(self.deletion, deletion)

    def delete_range(self, tombstone: RangeTombstone) -> None:
        """Delete a slice. The tombstones are kept sorted, so that replicas with the same ones compare equal."""
        if tombstone not in self.ranges:
            self.ranges = sorted([*self.ranges, tombstone])

    def positions(self, piece: Slice) -> list[Position]:
        """The positions of all rows in the slice, ascending."""
        order = self._order
        if order is None:
            order = self._order = sorted(self.rows)
        elif len(order) < len(self.rows):
            # Rows are never taken away singly, and a dictionary has its newest keys last.
            order.extend(islice(self.rows, len(order), None))
            order.sort()  # nearly sorted already, which the sort is made for
        low, high = piece.low, piece.high
        start, end = 0, len(order)
        if low:
            size = len(low)
            search = bisect_left if piece.low_inclusive else bisect_right
            start = search(order, low, key=lambda position: position[:size])
        if high:
            size = len(high)
            search = bisect_right if piece.high_inclusive else bisect_left
            end = search(order, high, key=lambda position: position[:size])
        return order[start:end]

    def gone_at(self, position: Position | None) -> int:
        """The timestamp up to which a row there is deleted by deletions larger than the row."""
        gone = NO_DELETION if self.deletion is None else self.deletion.timestamp
        if position is not None:
            for tombstone in self.ranges:
                if tombstone.deletion.timestamp > gone and tombstone.slice.contains(position):
                    gone = tombstone.deletion.timestamp
        return gone


class RowChange(NamedTuple):
    """A version of one row that is not one plain write: a row deletion, or a merged row from a repair."""

    partition: Key
    row: Row

    def apply(self, partition: Partition) -> None:
        """Join it."""
        partition.put(self.row)


class RangeDeletion(NamedTuple):
    """DELETE of a slice."""

    partition: Key
    tombstone: RangeTombstone

    def apply(self, partition: Partition) -> None:
        """Join it."""
        partition.delete_range(self.tombstone)


class PartitionDeletion(NamedTuple):
    """DELETE of a partition."""

    partition: Key
    deletion: Deletion

    def apply(self, partition: Partition) -> None:
        """Join it."""
        partition.delete(self.deletion)


class Together(NamedTuple):
    """Several changes of one partition, applied by a replica at one instant."""

    partition: Key
    changes: tuple[Change, ...]

    def apply(self, partition: Partition) -> None:
        """Join them."""
        for change in self.changes:
            if isinstance(change, RowWrite):
                partition.put(change)
            else:
                change.apply(partition)


Change = RowWrite | RowChange | RangeDeletion | PartitionDeletion | Together


class Mutation(NamedTuple):
    """All changes of one request to one partition key, in one or more tables: a replica applies them whole or not at
    all, at one instant (Cassandra's `Mutation`: one entry of the commit log)."""

    partition: Key
    parts: tuple[tuple[Table, Change], ...]

    def without(self, table: Table) -> Mutation | None:
        """What is left of it when the table is gone, None if nothing."""
        kept = tuple(part for part in self.parts if part[0] is not table)
        return Mutation(self.partition, kept) if kept else None


def row_deletion(partition: Key, clustering: Key, position: Position | None, deletion: Deletion) -> RowChange:
    """DELETE of one row."""
    return RowChange(partition, MergedRow(clustering, position, None, deletion, {}))


class TableStore:
    """Data of one table."""

    __slots__ = ("_by_token", "partitions", "table")

    def __init__(self, table: Table) -> None:
        self.table = table
        self.partitions: dict[Key, Partition] = {}
        self._by_token: list[tuple[int, bytes, Key]] = []

    def apply(self, change: Change) -> None:
        """Join a change with what is there."""
        key = change.partition
        partition = self.partitions.get(key)
        if partition is None:
            partition = self.partitions[key] = Partition(key)
        # The hot case, written out: a whole row over nothing, or over an older write of the same columns.
        if change.__class__ is RowWrite:
            position = change.position
            if position is not None:
                rows = partition.rows
                old = rows.get(position)
                if old is None:
                    change.partition = partition.key
                    rows[position] = change
                elif old.columns is change.columns and change.timestamp > old.timestamp and change.marked == old.marked:
                    change.partition = partition.key
                    change.position, change._clustering = old.position, old._clustering
                    rows[position] = change
                else:
                    rows[position] = merge(old, change)
            else:
                partition.put(change)
        else:
            change.apply(partition)  # type: ignore[union-attr]

    def take_shared(self, stores: Sequence[TableStore]) -> None:
        """Take over the rows that stand in every one of these stores, out of them."""
        first, *others = stores
        for key, partition in list(first.partitions.items()):
            same = [other.partitions[key] for other in others if key in other.partitions]
            if len(same) < len(others):
                continue
            shared = [
                position
                for position, row in partition.rows.items()
                if all(other.rows.get(position) is row for other in same)
            ]
            if not shared:
                continue
            target = self.partitions.get(key)
            if target is None:
                target = self.partitions[key] = Partition(key)
            for position in shared:
                target.put(partition.rows[position])
            for each in (partition, *same):
                each.remove(shared)
        for store in stores:
            store.partitions = {key: each for key, each in store.partitions.items() if not each.is_empty}
            store._by_token = []

    def in_token_order(self) -> list[tuple[int, bytes, Key]]:
        """Token, serialized key and key of every partition, as a scan of the ring meets them."""
        if len(self._by_token) != len(self.partitions):
            known = {entry[2]: entry for entry in self._by_token}
            entries = []
            for key in self.partitions:
                entry = known.get(key)
                if entry is None:
                    raw = self.table.routing_bytes(key)
                    entry = (token_of(raw), raw, key)
                entries.append(entry)
            entries.sort(key=_by_token)
            self._by_token = entries
        return self._by_token


def in_token_order(*scans: list[tuple[int, bytes, Key]]) -> list[tuple[int, bytes, Key]]:
    """The entries of several scans as one, each partition once."""
    merged = {entry[2]: entry for scan in scans for entry in scan}
    return sorted(merged.values(), key=_by_token)


def _by_token(entry: tuple[int, bytes, Key]) -> tuple[int, bytes]:
    return entry[:2]


def token_of(routing_bytes: bytes) -> int:
    """The Murmur3Partitioner's token of a serialized partition key."""
    return int(Murmur3Token.hash_fn(routing_bytes))
