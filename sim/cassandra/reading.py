"""How a coordinator answers a SELECT from the data of the replicas it asked: merge, filter, limit, page.

The replicas' versions of each row are joined row by row, in order, until the page is full, so the answer is that of an
ideal coordinator that asks again whenever limits or filters on the replicas cut it short. Where versions differ, the
digests would have differed: the differences are collected as changes for blocking read repair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from sim.cassandra.binding import Values
from sim.cassandra.catalog import CLUSTERING, PARTITION, STATIC
from sim.cassandra.errors import invalid, unsupported
from sim.cassandra.holdings import ReplicaTable
from sim.cassandra.plans import COMPARE, SelectPlan, check_filters, partition_keys, slices
from sim.cassandra.rows import NEVER, NO_DELETION, Cell, Row, RowWrite, live_cells, merge, same_facts
from sim.cassandra.storage import (
    EVERYTHING,
    Change,
    Key,
    Partition,
    PartitionDeletion,
    Position,
    RangeDeletion,
    RowChange,
    Slice,
    in_token_order,
    token_of,
)

Holders = Callable[[Key], Sequence[int]]
"""The places, in the list of stores, of those that are asked about a partition."""


_WHOLE = [EVERYTHING]
"""The pieces of a partition that is asked for from end to end."""


class Cursor(NamedTuple):
    """Where the next page begins: after this row (no position: after the partition's static row), with what is left
    of LIMIT."""

    partition: Key
    position: Position | None
    clustering: Key
    remaining: int
    in_partition: int


class Repair(NamedTuple):
    """A change that the replica of that place in the list lacks."""

    replica: int
    change: Change


class Page(NamedTuple):
    """One page of an answer."""

    rows: list[tuple[Any, ...]]
    cursor: Cursor | None
    repairs: list[Repair]
    names: list[str] | None = None
    """Column names, where they are not the plan's (the answer of a lightweight transaction)."""


def read_page(
    plan: SelectPlan,
    full: Values,
    stores: Sequence[ReplicaTable],
    now_s: int,
    page_size: int | None,
    cursor: Cursor | None,
    holders: Holders | None = None,
) -> Page:
    """Read from the stores of the replicas asked, as of `now_s`, at most `page_size` rows (None: all).

    Where not every store is a replica of every partition, `holders` tells for a partition key which ones are asked.
    """
    reader = _Reader(plan, full, stores, now_s, holders)
    return reader.page(page_size, cursor)


class _Reader:
    def __init__(
        self, plan: SelectPlan, full: Values, stores: Sequence[ReplicaTable], now_s: int, holders: Holders | None
    ) -> None:
        self.holders = holders
        self.places: Sequence[int] = range(len(stores))
        first = stores[0]
        if holders is None and all(store.is_same_as(first) for store in stores):
            # Replicas nearly always hold the same. Then there is nothing to compare, and one look at one is enough.
            stores = stores[:1]
        self.plan = plan
        self.full = full
        self.stores = stores
        self.now_s = now_s
        self.repairs: list[Repair] = []

    def page(self, page_size: int | None, cursor: Cursor | None) -> Page:
        plan = self.plan
        if plan.sorts_partitions:
            if page_size is None:
                raise unsupported("ORDER BY over several partitions")
            raise invalid(
                "Cannot page queries with both ORDER BY and a IN restriction on the partition key; you must either "
                "remove the ORDER BY or the IN and sort client side, or disable paging for this query"
            )
        if plan.where.has_filters:
            check_filters(plan.where, self.full)
        limit = plan.limit_of(self.full, plan.limit_source)
        per_partition = plan.limit_of(self.full, plan.per_partition_source)
        remaining = cursor.remaining if cursor is not None else (NEVER if limit is None else limit)
        wanted = NEVER if page_size is None or plan.is_count else page_size
        rows: list[tuple[Any, ...]] = []
        counted = 0
        pieces = slices(plan.table, plan.where, self.full)
        if plan.is_reversed:
            pieces.reverse()
        seen_cursor = cursor is None
        is_plain = (
            limit is None
            and per_partition is None
            and len(self.stores) == 1
            and not (plan.is_count or plan.is_distinct or plan.statics_matter or plan.where.filters)
            and pieces == _WHOLE
        )
        for key in self._keys(cursor):
            within = 0
            after: Position | None = None
            resumed = False
            if not seen_cursor:
                if cursor is not None and key == cursor.partition:
                    within, after, resumed = cursor.in_partition, cursor.position, True
                seen_cursor = True
            if per_partition is not None and within >= per_partition:
                continue
            if is_plain and not resumed:
                plain = self._plain_rows(key)
                if plain is not None and len(rows) + len(plain) < wanted:
                    rows += plain
                    continue
            for position, clustering, row in self._rows(key, pieces, after, resumed):
                within += 1
                if plan.is_count:
                    counted += 1
                    continue
                rows.append(row)
                remaining -= 1
                full = per_partition is not None and within >= per_partition
                if remaining <= 0:
                    return self._finish(rows, counted, None)
                if len(rows) >= wanted:
                    ends = (full or not clustering) and self._is_last(key)
                    return self._finish(
                        rows, counted, None if ends else Cursor(key, position, clustering, remaining, within)
                    )
                if full:
                    break
        return self._finish(rows, counted, None)

    def _is_last(self, key: Key) -> bool:
        """Whether no other partition can follow, which only a query that names its partitions knows.

        As in Cassandra a full page is taken to have more behind it, unless it is known better without a look: the limit
        is reached, or the last partition can have no further row. So the last page of an answer may be empty.
        """
        plan = self.plan
        return bool(plan.where.partition) and key == partition_keys(plan.table, plan.where, self.full)[-1]

    def _finish(self, rows: list[tuple[Any, ...]], counted: int, cursor: Cursor | None) -> Page:
        plan = self.plan
        if plan.is_count:
            return Page([(counted,)], None, self.repairs)
        if plan.convert:
            rows = [_converted(row, plan.convert) for row in rows]
        return Page(rows, cursor, self.repairs)

    def _keys(self, cursor: Cursor | None) -> Iterator[Key]:
        """The partition keys to visit, in order, from the cursor's on."""
        plan = self.plan
        if plan.where.partition:
            keys = partition_keys(plan.table, plan.where, self.full)
            start = 0 if cursor is None else keys.index(cursor.partition)
            yield from keys[start:]
            return
        scans = [store.in_token_order() for store in self.stores]
        entries = scans[0] if all(scan == scans[0] for scan in scans) else in_token_order(*scans)
        lower, upper = plan.where.token_lower, plan.where.token_upper
        low: Any = None if lower is None else self.full[lower.sources[0]]
        high: Any = None if upper is None else self.full[upper.sources[0]]
        if cursor is not None:
            raw = plan.table.routing_bytes(cursor.partition)
            start_at = (token_of(raw), raw)
        for token, raw, key in entries:
            if cursor is not None and (token, raw) < start_at:
                continue
            if lower is not None and (token < low or (token == low and not lower.inclusive)):
                continue
            if upper is not None and (token > high or (token == high and not upper.inclusive)):
                break
            yield key

    def _plain_rows(self, key: Key) -> list[tuple[Any, ...]] | None:
        """What `_rows` gives of a whole partition, where all replicas asked hold the same and it has nothing but whole
        plain rows; None where it must be looked at more closely. The hot case of tables read from end to end."""
        partition = self.stores[0].partition(key)
        if partition is None:
            return []
        if partition.deletion is not None or partition.ranges:
            return None
        plan = self.plan
        projections = plan.projections
        now_s = self.now_s
        found: list[tuple[Any, ...]] = []
        rows = partition.rows
        positions = partition.positions(EVERYTHING) if len(rows) > 1 else rows
        for position in positions:
            row = rows[position]
            if not isinstance(row, RowWrite) or not row.marked:
                return None
            left_s = None
            if row.ttl:
                left_s = row.now_s + row.ttl - now_s
                if left_s <= 0:
                    continue
            columns = row.columns
            project = projections[columns] if columns in projections else plan.projection(columns)
            kept = row.kept
            values: Values = columns.unpack(kept) if kept.__class__ is bytes else kept  # type: ignore[assignment]
            if project is None or (plan.shows_times and None in values):
                return None
            clustering = row._clustering
            if clustering is None:
                clustering = columns.clustering_of(position)  # type: ignore[misc]
            found.append(project(key + clustering + values + (row.timestamp, left_s)))
        if plan.is_reversed:
            found.reverse()
        return found

    def _rows(
        self, key: Key, pieces: list[Slice], after: Position | None, resumed: bool
    ) -> Iterator[tuple[Position | None, Key, tuple[Any, ...]]]:
        """The live rows of a partition, projected, in the order asked for; beginning after a position when resumed."""
        plan = self.plan
        now_s = self.now_s
        if self.holders is None:
            partitions = [store.partition(key) for store in self.stores]
        else:
            self.places = self.holders(key)
            partitions = [self.stores[place].partition(key) for place in self.places]
        if not any(partitions):
            return
        deleted = self._check_deletions(key, partitions)
        first = partitions[0]
        statics = self._statics(key, partitions) if plan.statics_matter else {}
        if plan.is_distinct:
            if not resumed and self._has_anything(partitions, statics):
                yield None, (), self._project(key, (), {}, statics)
            return
        found_any = False
        narrow = plan.where.clustering or plan.where.range_columns or plan.where.tuple_columns
        # Replicas usually hold the very same partition, or else the very same rows; then one look at one of them is
        # enough. Dictionaries compare their values by identity first, and rows know no other equality. A read of a part
        # looks at that part only.
        is_whole = not narrow and plan.limit_source < 0
        alone = all(p is first for p in partitions) or (
            is_whole and all(p is not None and first is not None and p.rows == first.rows for p in partitions[1:])
        )
        for piece in pieces:
            for position in self._positions(partitions, piece):
                if resumed and after is not None and (position >= after if plan.is_reversed else position <= after):
                    continue
                row = None if first is None else first.rows.get(position)
                if not alone:
                    for partition in partitions:
                        if (None if partition is None else partition.rows.get(position)) is not row:
                            row = self._reconciled(key, partitions, position)
                            break
                assert row is not None
                gone = NO_DELETION if not deleted else max(p.gone_at(position) for p in partitions if p is not None)
                if row.__class__ is RowWrite:
                    # The hot case: one plain write, not deleted, not expired.
                    left_s = row.now_s + row.ttl - now_s if row.ttl else None
                    if row.timestamp <= gone or (left_s is not None and left_s <= 0):
                        continue
                    values = row.values
                    if not row.marked and not any(value is not None for value in values):
                        continue
                    project = plan.projection(row.columns)
                    if project is not None and not (plan.shows_times and None in values):
                        times = (row.timestamp, left_s)
                        yield position, row.clustering, project(key + row.clustering + values + times)
                        found_any = True
                        continue
                cells = live_cells(row, gone, now_s)
                if cells is None:
                    continue
                found_any = True
                if self._passes(key, row.clustering, cells, statics):
                    yield position, row.clustering, self._project(key, row.clustering, cells, statics)
        if statics and not found_any and not narrow and not resumed and self._passes(key, (), {}, statics):
            yield None, (), self._project(key, (), {}, statics)

    def _positions(self, partitions: list[Partition | None], piece: Slice) -> list[Position]:
        lists = [partition.positions(piece) for partition in partitions if partition is not None]
        positions = lists[0]
        if any(other != positions for other in lists[1:]):
            positions = sorted({position: None for each in lists for position in each})
        return positions[::-1] if self.plan.is_reversed else positions

    def _reconciled(self, key: Key, partitions: list[Partition | None], position: Position | None) -> Row | None:
        """The join of the replicas' versions of a row; who lacks some of it is noted for repair."""
        versions = [None if p is None else (p.static if position is None else p.rows.get(position)) for p in partitions]
        joined: Row | None = None
        for version in versions:
            if version is not None:
                joined = version if joined is None else merge(joined, version)
        if joined is None:
            return None
        for index, version in enumerate(versions):
            if not same_facts(version, joined):
                change: Change = joined if isinstance(joined, RowWrite) else RowChange(key, joined)
                self.repairs.append(Repair(self.places[index], change))
        return joined

    def _check_deletions(self, key: Key, partitions: list[Partition | None]) -> bool:
        """Whether anything larger than a row is deleted; who does not know it all is noted for repair."""
        deletions = [None if p is None else p.deletion for p in partitions]
        ranges = [[] if p is None else p.ranges for p in partitions]
        if not any(deletions) and not any(ranges):
            return False
        last = max((deletion for deletion in deletions if deletion is not None), default=None)
        known = {tombstone: None for each in ranges for tombstone in each}
        for index, (deletion, mine) in enumerate(zip(deletions, ranges, strict=True)):
            if deletion != last and last is not None:
                self.repairs.append(Repair(self.places[index], PartitionDeletion(key, last)))
            for tombstone in known:
                if tombstone not in mine:
                    self.repairs.append(Repair(self.places[index], RangeDeletion(key, tombstone)))
        return True

    def _statics(self, key: Key, partitions: list[Partition | None]) -> dict[str, Cell]:
        row = self._reconciled(key, partitions, None)
        if row is None:
            return {}
        gone = max(p.gone_at(None) for p in partitions if p is not None)
        return live_cells(row, gone, self.now_s) or {}

    def _has_anything(self, partitions: list[Partition | None], statics: dict[str, Cell]) -> bool:
        if statics:
            return True
        for position in self._positions(partitions, EVERYTHING):
            rows = [p.rows.get(position) for p in partitions if p is not None]
            joined: Row | None = None
            for row in rows:
                if row is not None:
                    joined = row if joined is None else merge(joined, row)
            gone = max(p.gone_at(position) for p in partitions if p is not None)
            if joined is not None and live_cells(joined, gone, self.now_s) is not None:
                return True
        return False

    def _value(self, name: str, key: Key, clustering: Key, cells: dict[str, Cell], statics: dict[str, Cell]) -> Any:
        table = self.plan.table
        column = table.columns[name]
        if column.kind == PARTITION:
            return key[table.partition_key.index(column)]
        if column.kind == CLUSTERING:
            return clustering[table.clustering_key.index(column)] if clustering else None
        cell = (statics if column.kind == STATIC else cells).get(name)
        return None if cell is None else cell.value

    def _passes(self, key: Key, clustering: Key, cells: dict[str, Cell], statics: dict[str, Cell]) -> bool:
        for column, symbol, sources in self.plan.where.filters:
            value = self._value(column.name, key, clustering, cells, statics)
            wanted = [self.full[source] for source in sources]
            if value is None:
                return False
            if symbol == "IN":
                if value not in wanted:
                    return False
            else:
                order = column.type.sort_key or (lambda it: it)
                if not COMPARE[symbol](order(value), order(wanted[0])):
                    return False
        return True

    def _project(self, key: Key, clustering: Key, cells: dict[str, Cell], statics: dict[str, Cell]) -> tuple[Any, ...]:
        result: list[Any] = []
        for output in self.plan.outputs:
            if output.kind in ("writetime", "ttl"):
                kind = self.plan.table.columns[output.column].kind
                cell = (statics if kind == STATIC else cells).get(output.column)
                if cell is None:
                    result.append(None)
                elif output.kind == "writetime":
                    result.append(cell.timestamp)
                else:
                    result.append(cell.deletion_s - self.now_s if cell.ttl else None)
            elif output.kind == "token":
                result.append(token_of(self.plan.table.routing_bytes(key)))
            elif output.kind == "count":
                result.append(None)
            else:
                result.append(self._value(output.column, key, clustering, cells, statics))
        return tuple(result)


def _converted(row: tuple[Any, ...], convert: tuple[tuple[int, Any], ...]) -> tuple[Any, ...]:
    values = list(row)
    for place, to_python in convert:
        if values[place] is not None:
            values[place] = to_python(values[place])
    return tuple(values)
