"""What a replica holds of a row, and how two versions of it become one.

Reconciliation is the whole of Cassandra's data model: every write is a set of timestamped facts, and the state of a
row is the join of all facts about it, whatever the order and however often they arrive. A fact is a cell (a value or
a tombstone), the row marker that an INSERT writes and an UPDATE does not ("primary key liveness"), or a deletion of
the row. The rules are those of Cassandra 5.0 (`db.rows.Cells`, `db.LivenessInfo`, `db.DeletionTime`):

- the higher write timestamp wins;
- at equal timestamps, what will ever be a tombstone (a tombstone, or a cell with a time to live) wins over a plain
  cell, a tombstone over an expiring cell, then the later local deletion time, then the larger value, compared as
  unsigned bytes;
- a deletion removes what is not newer than it, the same timestamp included;
- a marker with a time to live wins over one without at the same timestamp, then the one that expires later.

A write of whole columns with one timestamp is stored as it is, as one `RowWrite` that all replicas share. Only when two
writes of a row cannot be decided as wholes is a `MergedRow` with separate cells built. Both are immutable.

Nothing is ever compacted: tombstones are not purged after gc_grace_seconds, and expired cells stay, unseen. Since
nothing is purged, nothing is resurrected by a purge either.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sim.cassandra.catalog import ColumnSet
from sim.cassandra.types import CqlType

NEVER = 1 << 62
"""The local deletion time of what neither is a tombstone nor expires."""

NO_DELETION = -(1 << 63)
"""The deletion timestamp of what is not deleted."""


class Cell(NamedTuple):
    """One column of one row. `deletion_s` is when it expires, or was deleted (a tombstone has no ttl), else NEVER."""

    value: Any
    timestamp: int
    ttl: int
    deletion_s: int

    def is_live(self, now_s: int) -> bool:
        """Whether it shows a value at that second."""
        return self.deletion_s == NEVER or (self.ttl > 0 and now_s < self.deletion_s)


class Marker(NamedTuple):
    """The row marker of an INSERT."""

    timestamp: int
    ttl: int
    expires_s: int

    def is_live(self, now_s: int) -> bool:
        """Whether it keeps the row visible at that second."""
        return now_s < self.expires_s


class Deletion(NamedTuple):
    """Everything up to and including `timestamp` is gone. `local_s` is when the coordinator said so."""

    timestamp: int
    local_s: int


class RowWrite:
    """Some columns of one row with one timestamp: an INSERT (`marked`) or an UPDATE or a deletion of columns.

    A value of None is a tombstone. `position` orders the row in its partition; None is the static row. `kept` is how
    its columns keep the values: equal values of the same columns are kept equal.
    """

    __slots__ = ("_clustering", "columns", "kept", "marked", "now_s", "partition", "position", "timestamp", "ttl")

    def __init__(
        self,
        partition: tuple[Any, ...],
        clustering: tuple[Any, ...],
        position: tuple[Any, ...] | None,
        columns: ColumnSet,
        values: tuple[Any, ...],
        timestamp: int,
        ttl: int,
        now_s: int,
        marked: bool,
    ) -> None:
        self.partition = partition
        self._clustering = clustering if columns.clustering_of is None or position is None else None
        self.position = position
        self.columns = columns
        self.kept = columns.pack(values)
        self.timestamp = timestamp
        self.ttl = ttl
        self.now_s = now_s
        self.marked = marked

    @property
    def clustering(self) -> tuple[Any, ...]:
        """The clustering key."""
        clustering = self._clustering
        return self.columns.clustering_of(self.position) if clustering is None else clustering  # type: ignore[misc, arg-type]

    @property
    def values(self) -> tuple[Any, ...]:
        """The values of its columns."""
        kept = self.kept
        return self.columns.unpack(kept) if kept.__class__ is bytes else kept  # type: ignore[return-value]

    @property
    def expires_s(self) -> int:
        """The second from which on it is not there any more."""
        return self.now_s + self.ttl if self.ttl else NEVER

    @property
    def has_tombstones(self) -> bool:
        """Whether a value is null."""
        return self.kept.__class__ is tuple and None in self.kept

    def spread(self) -> MergedRow:
        """The same facts, cell by cell."""
        cells = {}
        for name, kind, value in zip(self.columns.names, self.columns.types, self.values, strict=True):
            if value is None:
                cells[name] = (kind, Cell(None, self.timestamp, 0, self.now_s))
            else:
                cells[name] = (kind, Cell(value, self.timestamp, self.ttl, self.expires_s))
        marker = Marker(self.timestamp, self.ttl, self.expires_s) if self.marked else None
        return MergedRow(self.clustering, self.position, marker, None, cells)


class MergedRow:
    """A row cell by cell. `columns` is None, so that it is never taken for a RowWrite of the same columns."""

    __slots__ = ("cells", "clustering", "deletion", "marker", "position")

    columns = None

    def __init__(
        self,
        clustering: tuple[Any, ...],
        position: tuple[Any, ...] | None,
        marker: Marker | None,
        deletion: Deletion | None,
        cells: dict[str, tuple[CqlType, Cell]],
    ) -> None:
        self.clustering = clustering
        self.position = position
        self.marker = marker
        self.deletion = deletion
        self.cells = cells

    def spread(self) -> MergedRow:
        """Itself."""
        return self


Row = RowWrite | MergedRow


def reconcile(kind: CqlType, left: Cell, right: Cell) -> Cell:
    """The cell that wins, whichever way round the two are given."""
    if left.timestamp != right.timestamp:
        return left if left.timestamp > right.timestamp else right
    left_ends, right_ends = left.deletion_s != NEVER, right.deletion_s != NEVER
    if left_ends != right_ends:
        return left if left_ends else right
    if left_ends:
        if (left.ttl == 0) != (right.ttl == 0):
            return left if left.ttl == 0 else right
        if left.deletion_s != right.deletion_s:
            return left if left.deletion_s > right.deletion_s else right
    left_bytes, right_bytes = _bytes(kind, left.value), _bytes(kind, right.value)
    if left_bytes != right_bytes:
        return left if left_bytes > right_bytes else right
    # Same value and same end. The time to live as written is all that may differ; it must not depend on the order here.
    return left if left.ttl >= right.ttl else right


def _bytes(kind: CqlType, value: Any) -> bytes:
    return b"" if value is None else kind.to_bytes(value)


def superseding(left: Marker | None, right: Marker | None) -> Marker | None:
    """The row marker that wins."""
    if left is None or right is None:
        return left or right
    if left.timestamp != right.timestamp:
        return left if left.timestamp > right.timestamp else right
    # An expiring marker wins over one that is not, then the later end. NEVER is how "not expiring" is written.
    left_rank = (left.ttl > 0, left.expires_s, left.ttl)
    right_rank = (right.ttl > 0, right.expires_s, right.ttl)
    return left if left_rank >= right_rank else right


def later(left: Deletion | None, right: Deletion | None) -> Deletion | None:
    """The deletion that wins."""
    if left is None or right is None:
        return left or right
    return max(left, right)


def merge(old: Row, new: Row) -> Row:
    """The join of two versions of one row. Returns one of the two themselves when it is the join."""
    if old is new:
        return old
    if (
        isinstance(old, RowWrite)
        and isinstance(new, RowWrite)
        and old.columns is new.columns
        and old.marked == new.marked
    ):
        if old.timestamp != new.timestamp:
            return old if old.timestamp > new.timestamp else new
        if old.kept == new.kept and old.ttl == new.ttl and _same_second(old, new):
            return old
        if old.ttl and new.ttl and old.expires_s != new.expires_s and not (old.has_tombstones or new.has_tombstones):
            return old if old.expires_s > new.expires_s else new
    left, right = old.spread(), new.spread()
    cells = dict(left.cells)
    for name, (kind, cell) in right.cells.items():
        mine = cells.get(name)
        cells[name] = (kind, cell if mine is None else reconcile(kind, mine[1], cell))
    marker = superseding(left.marker, right.marker)
    deletion = later(left.deletion, right.deletion)
    if deletion is not None:
        gone = deletion.timestamp
        cells = {name: entry for name, entry in cells.items() if entry[1].timestamp > gone}
        marker = marker if marker is not None and marker.timestamp > gone else None
    return MergedRow(left.clustering, left.position, marker, deletion, cells)


def _same_second(left: RowWrite, right: RowWrite) -> bool:
    """Whether the second of the write is the same, or of no account: only tombstones and times to live know it.

    A replayed INSERT without either is the same facts again, whenever it comes; that is the usual replay.
    """
    return left.now_s == right.now_s or (left.ttl == 0 and not left.has_tombstones)


def same_facts(left: Row | None, right: Row | None) -> bool:
    """Whether two replicas' versions would have the same digest."""
    if left is right:
        return True
    if left is None or right is None:
        return False
    if isinstance(left, RowWrite) and isinstance(right, RowWrite) and left.columns is right.columns:
        return (
            left.timestamp == right.timestamp
            and left.kept == right.kept
            and left.ttl == right.ttl
            and _same_second(left, right)
            and left.marked == right.marked
        )
    a, b = left.spread(), right.spread()
    if a.marker != b.marker or a.deletion != b.deletion or a.cells.keys() != b.cells.keys():
        return False
    return all(a.cells[name][1] == b.cells[name][1] for name in a.cells)


def live_cells(row: Row, gone: int, now_s: int) -> dict[str, Cell] | None:
    """The live cells of a row of which everything up to the timestamp `gone` is deleted; None when the row is not
    there.

    A row is there while its marker or any of its cells is live.
    """
    spread = row.spread()
    if spread.deletion is not None and spread.deletion.timestamp > gone:
        gone = spread.deletion.timestamp
    cells = {name: cell for name, (_, cell) in spread.cells.items() if cell.timestamp > gone and cell.is_live(now_s)}
    marker = spread.marker
    if cells or (marker is not None and marker.timestamp > gone and marker.is_live(now_s)):
        return cells
    return None
