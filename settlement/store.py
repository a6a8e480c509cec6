"""The store: every write of settlement, and the reads that the team knows by name (design sections 4.4.3 and 4.5).

There is one kind of write: an INSERT of all columns, none null, with a write timestamp of the event's own (an order's
revision, a ledger sequence, an output sequence). So writes commute: whatever is replayed, late or out of order, the row
ends as the highest revision says. Nothing is updated in place, deleted, or read before it is written.

The functions named after what they record (`insert_active_order`, ...) return the writes; `write` carries them out and
does not return before every one is acknowledged at LOCAL_QUORUM. The rows of one user and symbol (an order's row, its
history, the user's sides of trades) have the same partition key in every table, so they go in one request and a replica
has all of them or none; the adapter sees to that.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from schema.events import OrderCompletion, OrderPlacement, OrderRejected, OrderState, OrderUpdate
from schema.identifiers import SymbolId, UserId
from schema.ports import Clock, Log, Randomness
from schema.tables import (
    ACTIVE_ORDERS,
    BALANCE_LEDGER,
    FINISHED_ROW_TTL_S,
    ORDER_HISTORY,
    ORDER_LOOKUP,
    PROGRESS_COLUMNS,
    SETTLEMENT_PROGRESS,
    USER_BALANCES,
    USER_TRADES,
    insert_all,
)
from settlement.chain import Progress
from settlement.cql_adapter import Blocking, CqlAdapter, Row, Session, Write, in_place
from settlement.migrations import SchemaSteps
from settlement.queries import OrderRow, Queries, QueryConfig
from settlement.retries import Backoff, is_retryable, tally
from settlement.rows import BalanceRow, LedgerRow, RowBatch, TradeSide

_NS_PER_S: Final = 1_000_000_000
_ALARM_AFTER_ATTEMPTS: Final = 20

SELECT_PROGRESS: Final = (
    f"SELECT {', '.join(PROGRESS_COLUMNS[2:])} FROM {SETTLEMENT_PROGRESS} WHERE topic = ? AND partition_id = ?"
)


class StoreRefused(Exception):
    """The database refuses a statement for good; retrying would not help. The message says which, and why."""


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """`max_in_flight` statements at once with the driver; `give_up_ms` after which an unanswered one is sent again."""

    max_in_flight: int = 256
    give_up_ms: int = 30_000
    backoff: Backoff = field(default_factory=Backoff)
    queries: QueryConfig = field(default_factory=QueryConfig)


def finished_row_ttl_s(completed_at_ns: int, now_ns: int) -> int:
    """Seconds that a finished order's row may still live, so that it goes 24 hours after its completion.

    At least 1, because 0 would mean for ever; never more than 24 hours, whatever two hosts' clocks say of each other.
    Rounded up.
    """
    remaining_s = FINISHED_ROW_TTL_S - (now_ns - completed_at_ns) // _NS_PER_S
    return max(1, min(remaining_s, FINISHED_ROW_TTL_S))


class Store:
    """The tables of one keyspace. `open` must have returned before anything else is called.

    `blocking` is where the driver may block while statements are prepared: `asyncio.to_thread` on a loop that others
    use, or at a service's start in place.
    """

    def __init__(
        self,
        session: Session,
        *,
        clock: Clock,
        randomness: Randomness,
        log: Log,
        symbol_ids: Iterable[SymbolId],
        config: StoreConfig | None = None,
        blocking: Blocking = in_place,
    ) -> None:
        config = config or StoreConfig()
        self._cql = CqlAdapter(
            session, max_in_flight=config.max_in_flight, give_up_ms=config.give_up_ms, blocking=blocking
        )
        self._clock = clock
        self._randomness = randomness
        self._log = log
        self._backoff = config.backoff
        self.schema = SchemaSteps(self._cql, randomness, log, config.backoff)
        self.queries = Queries(self._cql, symbol_ids=symbol_ids, randomness=randomness, config=config.queries)

    async def open(self) -> None:
        """Create or verify the tables and prepare every statement. Raises SchemaError."""
        await self.schema.create_or_verify()
        self._insert_active = await self.schema.prepare(insert_all(ACTIVE_ORDERS))
        self._insert_finished = await self.schema.prepare(insert_all(ACTIVE_ORDERS, ttl=True))
        self._insert_lookup = await self.schema.prepare(insert_all(ORDER_LOOKUP))
        self._insert_finished_lookup = await self.schema.prepare(insert_all(ORDER_LOOKUP, ttl=True))
        self._insert_history = await self.schema.prepare(insert_all(ORDER_HISTORY))
        self._insert_trade = await self.schema.prepare(insert_all(USER_TRADES))
        self._insert_ledger = await self.schema.prepare(insert_all(BALANCE_LEDGER))
        self._insert_balance = await self.schema.prepare(insert_all(USER_BALANCES))
        self._insert_progress = await self.schema.prepare(insert_all(SETTLEMENT_PROGRESS))
        self._select_progress = await self.schema.prepare(SELECT_PROGRESS)
        await self.queries.prepare(self.schema.prepare)

    # What to write: the same INSERT of the whole row, whichever event it was.

    def insert_active_order(self, order: OrderPlacement) -> tuple[Write, ...]:
        """The writes of a placement: the row, its lookup, its history."""
        return self._live_rows(order)

    def update_order_status(self, order: OrderUpdate) -> tuple[Write, ...]:
        """The writes of an update: the same whole rows, under a higher revision."""
        return self._live_rows(order)

    def mark_order_complete(self, order: OrderCompletion) -> tuple[Write, ...]:
        """The writes of a completion: the same whole rows; the active one and its lookup go 24 hours after it."""
        row, lookup, about = order_row(order), lookup_row(order), _about(order)
        own = (order.user_id, order.symbol_id)
        ended_at_ns = order.updated_at_ns
        ttl = finished_row_ttl_s(ended_at_ns, self._clock.now_ns())
        return (
            Write(self._insert_finished, (*row, order.revision, ttl), own, about, ended_at_ns),
            Write(self._insert_finished_lookup, (*lookup, order.revision, ttl), (order.order_id,), about, ended_at_ns),
            Write(self._insert_history, (*row, order.revision), own, about),
        )

    def record_refusal(self, order: OrderRejected) -> Write:
        """The write of an order that was refused and never lived: history only."""
        own = (order.user_id, order.symbol_id)
        return Write(self._insert_history, (*order_row(order), order.revision), own, _about(order))

    def record_trade(self, side: TradeSide) -> Write:
        """The write of one side of a trade."""
        return Write(self._insert_trade, (*side, side.output_seq), side[:2], f"trade {side.trade_id}")

    def record_ledger_entry(self, row: LedgerRow) -> Write:
        """The write of one change of a balance."""
        return Write(self._insert_ledger, (*row, row.ledger_seq), row[:2], f"ledger entry {row.ledger_seq}")

    def record_balance(self, row: BalanceRow) -> Write:
        """The write of a balance as the ledger entry of its sequence left it."""
        return Write(self._insert_balance, (*row, row.ledger_seq), row[:1], f"balance of user {row.user_id}")

    def writes_of(self, batch: RowBatch) -> list[Write]:
        """Every write of a batch."""
        writes: list[Write] = []
        for order in batch.orders.values():
            if isinstance(order, OrderCompletion):
                writes += self.mark_order_complete(order)
            elif isinstance(order, OrderUpdate):
                writes += self.update_order_status(order)
            else:
                writes += self.insert_active_order(order)
        writes += map(self.record_refusal, batch.refused.values())
        writes += map(self.record_trade, batch.trades)
        writes += map(self.record_ledger_entry, batch.ledger)
        writes += map(self.record_balance, batch.balances.values())
        return writes

    # Writing, and reading what settlement itself needs.

    async def write(self, writes: Sequence[Write]) -> None:
        """Carry out writes; returns when all of them are acknowledged, however long that takes.

        Raises StoreRefused when the database refuses one for good; others may have been applied then.
        """
        attempt = 0
        while True:
            failed = await self._cql.execute_all(writes)
            if not failed:
                return
            for write, error in failed:
                if not is_retryable(error):
                    raise StoreRefused(f"{write.about}: {type(error).__name__}: {error}") from error
            await self._wait(attempt, "writes", len(failed), tally(error for _, error in failed))
            # The database may have been away for hours: a time to live counts from the attempt that succeeds.
            writes = [self._as_of_now(write) for write, _ in failed]
            attempt += 1

    async def write_progress(self, topic: str, partition: int, progress: Progress) -> None:
        """Record that all rows up to `progress` are acknowledged. An older one never replaces a newer one."""
        parameters = (topic, partition, *progress, progress.sequence)
        about = f"progress of {topic}-{partition}"
        await self.write([Write(self._insert_progress, parameters, (topic, partition), about)])

    async def read_progress(self, topic: str, partition: int) -> Progress | None:
        """What `write_progress` recorded last, None if nothing. Raises StoreRefused."""
        attempt = 0
        while True:
            try:
                rows = await self._cql.execute(self._select_progress, (topic, partition))
                return _progress(rows[0]) if rows else None
            except Exception as error:
                if not is_retryable(error):
                    raise StoreRefused(f"progress of {topic}-{partition}: {type(error).__name__}: {error}") from error
                await self._wait(attempt, "reads", 1, tally([error]))
                attempt += 1

    async def get_active_orders(
        self, user_id: UserId, symbol_ids: Sequence[SymbolId] | None = None, limit: int | None = None
    ) -> list[OrderRow]:
        """A user's live orders, newest first; see `Queries.get_active_orders`."""
        return await self.queries.get_active_orders(user_id, symbol_ids, limit)

    # Below: how.

    def _live_rows(self, order: OrderState) -> tuple[Write, ...]:
        row, lookup, about = order_row(order), lookup_row(order), _about(order)
        own = (order.user_id, order.symbol_id)
        return (
            Write(self._insert_active, (*row, order.revision), own, about),
            Write(self._insert_lookup, (*lookup, order.revision), (order.order_id,), about),
            Write(self._insert_history, (*row, order.revision), own, about),
        )

    def _as_of_now(self, write: Write) -> Write:
        """The same write, with the time to live that is left of its row by now."""
        if write.ended_at_ns is None:
            return write
        ttl = finished_row_ttl_s(write.ended_at_ns, self._clock.now_ns())
        return msgspec.structs.replace(write, parameters=(*write.parameters[:-1], ttl))

    async def _wait(self, attempt: int, what: str, count: int, errors: dict[str, int]) -> None:
        report = self._log.error if attempt + 1 == _ALARM_AFTER_ATTEMPTS else self._log.warning
        report(f"database {what} failed, will be retried", failed=count, attempt=attempt + 1, errors=errors)
        await asyncio.sleep(self._backoff.delay_s(attempt, self._randomness))


def order_row(order: OrderState) -> tuple[object, ...]:
    """An order's state as the columns of ORDER_COLUMNS."""
    return (
        order.user_id,
        order.symbol_id,
        order.created_at_ns,
        order.order_id,
        order.updated_at_ns,
        order.revision,
        order.status,
        order.reason,
        order.side,
        order.order_type,
        order.time_in_force,
        order.price,
        order.quantity,
        order.filled_quantity,
        order.filled_quote,
        order.max_spend,
        order.client_order_id,
    )


def lookup_row(order: OrderState) -> tuple[object, ...]:
    """Where an order's row is, as the columns of LOOKUP_COLUMNS."""
    return (order.order_id, order.user_id, order.symbol_id, order.created_at_ns, order.revision)


def _about(order: OrderState) -> str:
    return f"order {order.order_id} revision {order.revision}"


def _progress(row: Row) -> Progress:
    sequence, chain_hash, next_offset = row
    assert isinstance(sequence, int)
    assert isinstance(chain_hash, int)
    assert isinstance(next_offset, int)
    return Progress(sequence, chain_hash, next_offset)
