"""Defects of settlement: what it writes, when, and what it skips."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from schema.events import OrderCompletion, OrderPlacement
from schema.tables import FINISHED_ROW_TTL_S, ORDER_COLUMNS, insert_all
from schema.wire import WireError
from settlement import rows, service, store
from settlement.chain import Link, Progress, Verdict
from settlement.cql_adapter import PreparedStatement, Row, Write
from settlement.retries import is_retryable
from settlement.rows import RowBatch
from settlement.service import PartitionSettler, Unsettleable
from settlement.store import Store, _about
from sim.defects.defect import Defect, Replacement

_FILLED = ORDER_COLUMNS.index("filled_quantity")


def _no_order_events(_intact: Callable[..., None]) -> Callable[..., None]:
    def add_order(self: RowBatch, _event: object) -> None:
        pass

    return add_order


def _live_rows_expire(intact: Callable[..., tuple[Write, ...]]) -> Callable[..., tuple[Write, ...]]:
    def live_rows(self: Store, order: Any) -> tuple[Write, ...]:
        row, lookup, history = intact(self, order)
        return (
            _now(row, self._insert_finished, (*row.parameters, FINISHED_ROW_TTL_S)),
            _now(lookup, self._insert_finished_lookup, (*lookup.parameters, FINISHED_ROW_TTL_S)),
            history,
        )

    return live_rows


def _skips_gaps(intact: Callable[..., Verdict]) -> Callable[..., Verdict]:
    def judge(settled: Progress, seen: Link, link: Link) -> Verdict:
        verdict = intact(settled, seen, link)
        return Verdict.NEXT if verdict is Verdict.GAP else verdict

    return judge


def _skips_undecodable(intact: Callable[..., Link]) -> Callable[..., Link]:
    def read(self: PartitionSettler, record: Any, batch: RowBatch) -> Link:
        try:
            return intact(self, record, batch)
        except Unsettleable as stop:
            if not isinstance(stop.__context__, WireError):
                raise
            # As if it were one that was settled long ago.
            return Link(record.offset, 0, 0, 0)

    return read


def _offsets_first(_intact: Callable[..., Any]) -> Callable[..., Any]:
    async def record(self: PartitionSettler, batch: RowBatch, settled: Progress, next_offset: int) -> None:
        topic, number = self.partition
        if settled is not self._settled:
            await self._store.write_progress(topic, number, settled)
            self._settled = self._recorded = settled
        self._next_offset = next_offset
        self._committer.add(self.partition, next_offset)
        await self._store.write(self._store.writes_of(batch))
        self._log_written(batch)

    return record


def _gives_up(_intact: Callable[..., Any]) -> Callable[..., Any]:
    async def write(self: Store, writes: Sequence[Write]) -> None:
        for failed, error in await self._cql.execute_all(writes):
            self._log.error("write failed", about=failed.about, error=repr(error))

    return write


class _OfCompletion(Write, frozen=True, kw_only=True):
    """A write of a completion."""

    order_id: int


def _marked_as_completion(intact: Callable[..., tuple[Write, ...]]) -> Callable[..., tuple[Write, ...]]:
    def mark_order_complete(self: Store, order: OrderCompletion) -> tuple[Write, ...]:
        return tuple(_OfCompletion(**_fields(each), order_id=order.order_id) for each in intact(self, order))

    return mark_order_complete


def _completes_known_only(intact: Callable[..., Any]) -> Callable[..., Any]:
    async def write(self: Store, writes: Sequence[Write]) -> None:
        known: list[Write] = []
        for each in writes:
            if isinstance(each, _OfCompletion) and not await _answer(self, self.queries._lookup, (each.order_id,)):
                self._log.warning("order not found", order_id=each.order_id)
            else:
                known.append(each)
        await intact(self, known)

    return write


async def _answer(store: Store, statement: PreparedStatement, key: Sequence[object]) -> list[Row]:
    """A read in the middle of settling, repeated until the database answers."""
    while True:
        try:
            return await store._cql.execute(statement, key)
        except Exception as error:
            if not is_retryable(error):
                raise
            await asyncio.sleep(0.1)


def _fields(write: Write) -> dict[str, Any]:
    return {name: getattr(write, name) for name in Write.__struct_fields__}


def _now(write: Write, statement: PreparedStatement, parameters: Sequence[object]) -> Write:
    return msgspec.structs.replace(write, statement=statement, parameters=parameters)


def _created_now(intact: Callable[..., tuple[Write, ...]]) -> Callable[..., tuple[Write, ...]]:
    def insert_active_order(self: Store, order: OrderPlacement) -> tuple[Write, ...]:
        return intact(self, msgspec.structs.replace(order, created_at_ns=self._clock.now_ns()))

    return insert_active_order


def _insert_without_timestamp(_intact: Callable[..., str]) -> Callable[..., str]:
    def insert(table: str, *, ttl: bool = False) -> str:
        return (
            insert_all(table, ttl=ttl)
            .replace("USING TIMESTAMP ? AND TTL", "USING TTL")
            .replace(" USING TIMESTAMP ?", "")
        )

    return insert


def _drops_timestamp(intact: Callable[..., Any]) -> Callable[..., Any]:
    async def write(self: Store, writes: Sequence[Write]) -> None:
        with_ttl = (self._insert_finished, self._insert_finished_lookup)
        plain: list[Write] = []
        for each in writes:
            values = tuple(each.parameters)
            values = (*values[:-2], values[-1]) if each.statement in with_ttl else values[:-1]
            plain.append(msgspec.structs.replace(each, parameters=values))
        await intact(self, plain)

    return write


class _OfFill(Write, frozen=True, kw_only=True):
    """A write of the row of an order that takes part in trades of `filled` lots; `key` is the row's."""

    key: tuple[int, int, int, int]
    filled: int


def _marked_as_fill(intact: Callable[..., list[Write]]) -> Callable[..., list[Write]]:
    def writes_of(self: Store, batch: RowBatch) -> list[Write]:
        filled: dict[int, int] = {}
        for side in batch.trades:
            filled[side.order_id] = filled.get(side.order_id, 0) + side.quantity
        orders = {_about(order): order for order in batch.orders.values() if order.order_id in filled}
        marked: list[Write] = []
        for each in intact(self, batch):
            order = orders.get(each.about)
            if order is None or len(each.parameters) < len(ORDER_COLUMNS):
                marked.append(each)
                continue
            key = (order.user_id, order.symbol_id, order.created_at_ns, order.order_id)
            marked.append(_OfFill(**_fields(each), key=key, filled=filled[order.order_id]))
        return marked

    return writes_of


def _adds_to_stored(intact: Callable[..., Any]) -> Callable[..., Any]:
    async def write(self: Store, writes: Sequence[Write]) -> None:
        added: list[Write] = []
        for each in writes:
            if isinstance(each, _OfFill):
                found = await _answer(self, self.queries._active_order, each.key)
                before: Any = found[0][_FILLED] if found else 0
                values = (*each.parameters[:_FILLED], before + each.filled, *each.parameters[_FILLED + 1 :])
                added.append(msgspec.structs.replace(each, parameters=values))
            else:
                added.append(each)
        await intact(self, added)

    return write


def _takers_only(intact: Callable[..., Any]) -> Callable[..., Any]:
    def trade_sides(*arguments: Any) -> Any:
        return tuple(side for side in intact(*arguments) if not side.is_maker)

    return trade_sides


DEFECTS = (
    Defect(
        "order-events-ignored",
        "settlement reads the engine's outputs but writes nothing of placements, updates and completions",
        ("placement-accounted",),
        (Replacement(RowBatch, "_add_order", _no_order_events),),
    ),
    Defect(
        "live-rows-expire",
        "a live order's row and lookup expire after 24 hours",
        ("placement-accounted",),
        (Replacement(Store, "_live_rows", _live_rows_expire),),
    ),
    Defect(
        "gap-skipped",
        "settlement goes on behind a gap in a chained topic's sequence",
        ("corrupt-input-stops",),
        (Replacement(service, "judge", _skips_gaps),),
        faults="lost-record",
    ),
    Defect(
        "undecodable-dropped",
        "settlement drops a record that does not decode, without a word",
        ("corrupt-input-stops",),
        (Replacement(PartitionSettler, "_read", _skips_undecodable),),
        faults="corrupt-record",
    ),
    Defect(
        "offsets-before-rows",
        "settlement records its progress and commits its offsets before the rows are acknowledged",
        ("offsets-after-rows", "rows-complete"),
        (Replacement(PartitionSettler, "_record", _offsets_first),),
    ),
    Defect(
        "database-error-dropped",
        "a write that fails is logged and dropped",
        ("rows-complete", "row-matches-engine", "placement-accounted"),
        (Replacement(Store, "write", _gives_up),),
    ),
    Defect(
        "completion-without-lookup-dropped",
        "a completion is dropped when its order's lookup row is not there yet",
        ("rows-complete",),
        (
            Replacement(Store, "mark_order_complete", _marked_as_completion),
            Replacement(Store, "write", _completes_known_only),
        ),
    ),
    Defect(
        "created-at-from-clock",
        "a new row's created_at is settlement's clock, not the placement's",
        ("one-row-per-order", "no-phantom-row"),
        (Replacement(Store, "insert_active_order", _created_now),),
    ),
    Defect(
        "server-side-timestamps",
        "rows are written without a timestamp of their own, so the database takes its own clock",
        ("row-matches-engine",),
        (
            Replacement(store, "insert_all", _insert_without_timestamp),
            Replacement(Store, "write", _drops_timestamp),
        ),
    ),
    Defect(
        "fills-added-on-replay",
        "a fill is added to the filled quantity that the row has, again on every replay",
        ("row-matches-engine",),
        (
            Replacement(Store, "writes_of", _marked_as_fill),
            Replacement(Store, "write", _adds_to_stored),
        ),
    ),
    Defect(
        "maker-trade-missing",
        "of a trade's two rows only the taker's is written",
        ("rows-complete",),
        (Replacement(rows, "trade_sides", _takers_only),),
    ),
)
