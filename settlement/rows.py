"""What an event means for the tables: pure, and deciding nothing (design section 4.5).

A `RowBatch` collects the rows of some records of one partition. Rows are whole and writes commute, so of several rows
with one key only the last word is kept: the highest revision of an order, the highest ledger sequence of a balance.

Who owns what: engine.outputs fills orders, lookups, trades and the history of orders that reached the engine;
balance.events fills the ledger, the balances and the history of orders that the balance core refused.
"""

from typing import NamedTuple

from schema.codes import OrderStatus, OrderType, Outcome, Reason
from schema.events import (
    BalanceEvent,
    EngineOutput,
    LedgerEntry,
    OrderCompletion,
    OrderPlacement,
    OrderRejected,
    OrderState,
    OrderUpdate,
    PlaceOrder,
    ReplaceOrder,
    Trade,
)
from schema.identifiers import INT64_MAX, AssetId, OrderId, UserId

LifecycleEvent = OrderPlacement | OrderUpdate | OrderCompletion

_INT32_MAX = 2**31 - 1


class TradeSide(NamedTuple):
    """One side of a trade: a row of user_trades, with the columns of TRADE_COLUMNS."""

    user_id: int
    symbol_id: int
    traded_at: int
    trade_id: int
    order_id: int
    side: int
    is_maker: bool
    price: int
    quantity: int
    quote_amount: int
    symbol_partition: int
    output_seq: int


class LedgerRow(NamedTuple):
    """A row of balance_ledger, with the columns of LEDGER_COLUMNS."""

    user_id: int
    asset_id: int
    ledger_seq: int
    kind: int
    order_id: int
    available_delta: int
    locked_delta: int
    available_after: int
    locked_after: int
    recorded_at: int
    user_partition: int
    event_seq: int


class BalanceRow(NamedTuple):
    """A row of user_balances, with the columns of BALANCE_COLUMNS."""

    user_id: int
    asset_id: int
    available: int
    locked: int
    ledger_seq: int
    updated_at: int


class RowBatch:
    """Rows to write, the last word of each key. `lifecycle` and `refused` keep every event, in order, for the log."""

    __slots__ = ("balances", "ledger", "lifecycle", "orders", "refused", "trades", "unstorable")

    def __init__(self) -> None:
        self.orders: dict[OrderId, LifecycleEvent] = {}
        """Rows of active_orders, order_lookup and order_history."""
        self.refused: dict[OrderId, OrderRejected] = {}
        """Rows of order_history only."""
        self.trades: list[TradeSide] = []
        self.ledger: list[LedgerRow] = []
        self.balances: dict[tuple[UserId, AssetId], BalanceRow] = {}
        self.lifecycle: list[LifecycleEvent] = []
        self.unstorable: list[BalanceEvent] = []
        """Refusals of requests whose numbers fit no column; there is no row for them."""

    def add_output(self, output: EngineOutput) -> None:
        """Take in what one engine output says."""
        # In an order's own sequence: the placement comes first, a completion last.
        for event in output.order_placements:
            self._add_order(event)
        for update in output.order_updates:
            self._add_order(update)
        for completion in output.order_completions:
            self._add_order(completion)
        for refusal in output.refusals:
            # A duplicate id names an order that lives or lived: its history is that order's, not the refusal's.
            if refusal.reason != Reason.DUPLICATE_ORDER_ID:
                self.refused[refusal.order_id] = refusal
        for trade in output.trades:
            self.trades += trade_sides(trade, output)

    def add_balance_event(self, event: BalanceEvent) -> None:
        """Take in what one decision of the balance core says."""
        for entry in event.entries:
            self._add_entry(entry, event)
        refusal = refusal_of(event)
        if refusal is not None:
            if _fits_columns(refusal):
                self.refused[refusal.order_id] = refusal
            else:
                self.unstorable.append(event)

    def _add_order(self, event: LifecycleEvent) -> None:
        self.lifecycle.append(event)
        known = self.orders.get(event.order_id)
        if known is None or event.revision >= known.revision:
            self.orders[event.order_id] = event

    def _add_entry(self, entry: LedgerEntry, event: BalanceEvent) -> None:
        user_id, asset_id, sequence = event.user_id, entry.asset_id, entry.ledger_seq
        self.ledger.append(
            LedgerRow(
                user_id,
                asset_id,
                sequence,
                entry.kind,
                entry.order_id,
                entry.available_delta,
                entry.locked_delta,
                entry.available_after,
                entry.locked_after,
                event.time_ns,
                event.user_partition,
                event.sequence,
            )
        )
        known = self.balances.get((user_id, asset_id))
        if known is None or sequence >= known.ledger_seq:
            self.balances[user_id, asset_id] = BalanceRow(
                user_id, asset_id, entry.available_after, entry.locked_after, sequence, event.time_ns
            )


def trade_sides(trade: Trade, output: EngineOutput) -> tuple[TradeSide, TradeSide]:
    """The two rows of a trade, the maker's and the taker's; neither names the other."""
    maker = TradeSide(
        trade.maker_user_id,
        trade.symbol_id,
        output.time_ns,
        trade.trade_id,
        trade.maker_order_id,
        1 - trade.taker_side,
        True,
        trade.price,
        trade.quantity,
        trade.quote_amount,
        output.symbol_partition,
        output.output_seq,
    )
    taker = maker._replace(
        user_id=trade.taker_user_id, order_id=trade.taker_order_id, side=trade.taker_side, is_maker=False
    )
    return maker, taker


def refusal_of(event: BalanceEvent) -> OrderRejected | None:
    """The order that the balance core refused in this event, as history keeps it; None when it refused none.

    A repeat of a request refused nothing: the first answer was given again.
    """
    request, response = event.request, event.response
    if response is None or response.outcome != Outcome.REJECTED or response.is_repeat:
        return None
    if isinstance(request, PlaceOrder):
        order_type, max_spend = request.order_type, request.max_spend
    elif isinstance(request, ReplaceOrder):
        order_type, max_spend = int(OrderType.LIMIT), 0
    else:
        return None
    return OrderRejected(
        order_id=request.order_id,
        user_id=request.user_id,
        symbol_id=request.symbol_id,
        created_at_ns=event.time_ns,
        updated_at_ns=event.time_ns,
        revision=1,
        status=int(OrderStatus.REJECTED),
        reason=response.reason,
        side=request.side,
        order_type=order_type,
        time_in_force=request.time_in_force,
        price=request.price,
        quantity=request.quantity,
        filled_quantity=0,
        filled_quote=0,
        max_spend=max_spend,
        client_order_id=request.request_id,
    )


def _fits_columns(order: OrderState) -> bool:
    """Whether every number of a refused request fits its column: what nobody accepted, nobody has bounded either."""
    wide = (order.order_id, order.user_id, order.symbol_id, order.price, order.quantity, order.max_spend)
    narrow = (order.side, order.order_type, order.time_in_force)
    return all(-INT64_MAX <= value <= INT64_MAX for value in wide) and all(
        -_INT32_MAX <= value <= _INT32_MAX for value in narrow
    )
