"""The reads: what a user may see of orders, trades and balances (design section 4.6).

Every read is LOCAL_QUORUM, on tables with blocking read repair, so an answer is never older than one given before. A
user sees only their own rows: the user id is part of every partition key, and what is reached through an order id is
compared with the user who asks.

A read that the database cannot answer is tried a few times and then raises QueryUnavailable: a client that waits for an
answer is better served by a plain "not now" than by an empty list or by no answer.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

import msgspec

from schema.codes import LIVE_STATUSES
from schema.identifiers import INT64_MAX, AssetId, OrderId, SymbolId, TradeId, UserId
from schema.ports import Randomness
from schema.tables import (
    ACTIVE_ORDERS,
    BALANCE_COLUMNS,
    ORDER_COLUMNS,
    ORDER_HISTORY,
    ORDER_LOOKUP,
    TRADE_COLUMNS,
    USER_BALANCES,
    USER_TRADES,
)
from settlement.cql_adapter import CqlAdapter, PreparedStatement, Row
from settlement.retries import Backoff, is_retryable

T = TypeVar("T")

MAX_PAGE_ROWS: Final = 1_000
"""The most rows of history or trades that one query returns."""


class QueryUnavailable(Exception):
    """The database did not answer the query; it may be asked again. The message says which query and why."""


class OrderRow(msgspec.Struct, frozen=True, gc=False):
    """A row of active_orders or order_history; the fields are its columns."""

    user_id: UserId
    symbol_id: SymbolId
    created_at: int
    order_id: OrderId
    updated_at: int
    revision: int
    status: int
    reason: int
    side: int
    order_type: int
    time_in_force: int
    price: int
    quantity: int
    filled_quantity: int
    filled_quote: int
    max_spend: int
    client_order_id: str


class TradeRow(msgspec.Struct, frozen=True, gc=False):
    """A row of user_trades: the user's side of a trade."""

    user_id: UserId
    symbol_id: SymbolId
    traded_at: int
    trade_id: TradeId
    order_id: OrderId
    side: int
    is_maker: bool
    price: int
    quantity: int
    quote_amount: int
    symbol_partition: int
    output_seq: int


class BalanceOfAsset(msgspec.Struct, frozen=True, gc=False):
    """A row of user_balances, in atoms."""

    user_id: UserId
    asset_id: AssetId
    available: int
    locked: int
    ledger_seq: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class QueryConfig:
    """`attempts` at a query before it is given up; `page_rows` that the driver fetches at a time."""

    attempts: int = 4
    page_rows: int = 500
    backoff: Backoff = field(default_factory=lambda: Backoff(first_ms=20, longest_ms=500))

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.page_rows < 1:
            raise ValueError(f"attempts and page_rows must be at least 1, not {self.attempts} and {self.page_rows}")


_ORDERS: Final = ", ".join(ORDER_COLUMNS)
_OWN: Final = "WHERE user_id = ? AND symbol_id = ?"
SELECT_ACTIVE_ORDERS: Final = f"SELECT {_ORDERS} FROM {ACTIVE_ORDERS} {_OWN}"
SELECT_ACTIVE_ORDER: Final = f"{SELECT_ACTIVE_ORDERS} AND created_at = ? AND order_id = ?"
SELECT_HISTORY_ORDER: Final = f"SELECT {_ORDERS} FROM {ORDER_HISTORY} {_OWN} AND created_at = ? AND order_id = ?"
SELECT_HISTORY: Final = f"SELECT {_ORDERS} FROM {ORDER_HISTORY} {_OWN} AND (created_at, order_id) < (?, ?) LIMIT ?"
SELECT_LOOKUP: Final = f"SELECT user_id, symbol_id, created_at FROM {ORDER_LOOKUP} WHERE order_id = ?"
SELECT_TRADES: Final = (
    f"SELECT {', '.join(TRADE_COLUMNS)} FROM {USER_TRADES} {_OWN} AND (traded_at, trade_id) < (?, ?) LIMIT ?"
)
SELECT_BALANCES: Final = f"SELECT {', '.join(BALANCE_COLUMNS)} FROM {USER_BALANCES} WHERE user_id = ?"


def live_orders(rows: Iterable[OrderRow], limit: int | None) -> list[OrderRow]:
    """The live ones of a user's orders, newest first, then at most `limit` of them.

    Finished rows stay in the table for 24 hours and may stand before live ones, so the limit comes last.
    """
    live = [row for row in rows if row.status in LIVE_STATUSES]
    live.sort(key=_newest_first)
    return live if limit is None else live[:limit]


class Queries:
    """The read queries. `prepare` must have returned before anything else is called."""

    def __init__(
        self,
        cql: CqlAdapter,
        *,
        symbol_ids: Iterable[SymbolId],
        randomness: Randomness,
        config: QueryConfig | None = None,
    ) -> None:
        self._cql = cql
        self._symbol_ids = tuple(sorted(symbol_ids))
        self._randomness = randomness
        self._config = config or QueryConfig()

    async def prepare(self, prepare: Callable[[str], Awaitable[PreparedStatement]]) -> None:
        """Prepare every statement with `prepare`, which sets the consistency level (see `SchemaSteps.prepare`)."""
        self._active_orders = await prepare(SELECT_ACTIVE_ORDERS)
        self._active_order = await prepare(SELECT_ACTIVE_ORDER)
        self._history_order = await prepare(SELECT_HISTORY_ORDER)
        self._history = await prepare(SELECT_HISTORY)
        self._lookup = await prepare(SELECT_LOOKUP)
        self._trades = await prepare(SELECT_TRADES)
        self._balances = await prepare(SELECT_BALANCES)
        self._active_orders.fetch_size = self._config.page_rows

    async def get_active_orders(
        self, user_id: UserId, symbol_ids: Sequence[SymbolId] | None = None, limit: int | None = None
    ) -> list[OrderRow]:
        """A user's live orders in the symbols asked for (all, if None), newest first, at most `limit`.

        Reads the whole partition of each symbol. Raises ValueError for a negative limit, QueryUnavailable.
        """
        if limit is not None and limit < 0:
            raise ValueError(f"limit must not be negative, got {limit}")
        wanted = self._symbol_ids if symbol_ids is None else tuple(dict.fromkeys(symbol_ids))
        parts = await asyncio.gather(
            *(self._rows("active orders", self._active_orders, (user_id, symbol_id)) for symbol_id in wanted)
        )
        return live_orders((_convert(OrderRow, row) for rows in parts for row in rows), limit)

    async def get_order(self, user_id: UserId, order_id: OrderId) -> OrderRow | None:
        """One order of the user, live or finished; None when there is none, or when it is somebody else's.

        Found through its lookup row, which goes 24 hours after the order's completion and which a refused order never
        had; such orders are found in `get_order_history`. Raises QueryUnavailable.
        """
        if not 0 < order_id <= INT64_MAX:
            return None  # no order has such an id, and no column could be asked for it
        lookup = await self._rows("order lookup", self._lookup, (order_id,))
        if not lookup:
            return None
        owner, symbol_id, created_at = lookup[0]
        if owner != user_id:
            return None
        key = (user_id, symbol_id, created_at, order_id)
        for statement in (self._active_order, self._history_order):
            rows = await self._rows("order", statement, key)
            if rows:
                return _convert(OrderRow, rows[0])
        return None

    async def get_order_history(
        self,
        user_id: UserId,
        symbol_id: SymbolId,
        limit: int = 100,
        before: tuple[int, OrderId] | None = None,
    ) -> list[OrderRow]:
        """A user's orders in a symbol, live, finished and refused, newest first.

        `before` is the (created_at, order_id) of the last row of the page before. Raises ValueError for a limit that is
        not 1 to MAX_PAGE_ROWS, QueryUnavailable.
        """
        key = (user_id, symbol_id, *(before or _FROM_THE_NEWEST), _checked(limit))
        return [_convert(OrderRow, row) for row in await self._rows("order history", self._history, key)]

    async def get_trades(
        self,
        user_id: UserId,
        symbol_id: SymbolId,
        limit: int = 100,
        before: tuple[int, TradeId] | None = None,
    ) -> list[TradeRow]:
        """The user's sides of trades in a symbol, newest first; `before` is a (traded_at, trade_id), as above."""
        key = (user_id, symbol_id, *(before or _FROM_THE_NEWEST), _checked(limit))
        return [_convert(TradeRow, row) for row in await self._rows("trades", self._trades, key)]

    async def get_balances(self, user_id: UserId) -> list[BalanceOfAsset]:
        """What a user has of each asset, in the order of asset ids. Raises QueryUnavailable."""
        return [_convert(BalanceOfAsset, row) for row in await self._rows("balances", self._balances, (user_id,))]

    async def _rows(self, what: str, statement: PreparedStatement, key: Sequence[object]) -> list[Row]:
        attempt = 0
        while True:
            try:
                return await self._cql.execute(statement, key)
            except Exception as error:
                attempt += 1
                if attempt >= self._config.attempts or not is_retryable(error):
                    raise QueryUnavailable(
                        f"{what}: no answer from the database after {attempt} attempts: {type(error).__name__}: {error}"
                    ) from error
            await asyncio.sleep(self._config.backoff.delay_s(attempt - 1, self._randomness))


_FROM_THE_NEWEST: Final = (INT64_MAX, INT64_MAX)


def _newest_first(order: OrderRow) -> tuple[int, int]:
    return -order.created_at, -order.order_id


def _checked(limit: int) -> int:
    if not 1 <= limit <= MAX_PAGE_ROWS:
        raise ValueError(f"limit must be 1 to {MAX_PAGE_ROWS}, not {limit}")
    return limit


def _convert(kind: Callable[..., T], row: Row) -> T:
    # The SELECTs name the columns in the order of the record's fields, so a row fits as it is.
    return kind(*row)
