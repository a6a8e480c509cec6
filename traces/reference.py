"""The reference engine: what the matching rules say, written as plainly as possible (design sections 4.1 and 7).

It shares nothing with the matching engine but the contract. Each side of a book is one sorted list, best order first;
every order is an object; nothing is clever. Fed with the validated orders of a partition, it says which lifecycle
events and trades there must be, and the invariant `lifecycle-matches-reference` compares.

Rules beyond the text of design 4.1: a placement has revision 1, status NEW and nothing filled; after it an order gets
at most one further event in an output, with its state at the output's end. A replace to an id that is live, be it the
replaced order's own, cancels the one and refuses the other as a duplicate.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, Final

import pandas as pd

from schema.codes import OrderStatus, OrderType, Reason, Side, TimeInForce, Verdict
from schema.events import CancelOrder, OrderCommand, PlaceOrder, ReduceOrder, ReplaceOrder
from schema.identifiers import INT64_MAX
from schema.symbols import SymbolTable
from traces.derived import COMPLETION, PLACEMENT, REFUSAL, STATE_COLUMNS, UPDATE, Columns

MAKERS_MAX: Final = 1_000
"""A taker meets at most so many makers (design 4.1.7)."""

_PACK_EVERY: Final = 4_096

# Plain integers, as events carry them; looking an enum member up costs as much as the rest of a small decision.
_BUY = int(Side.BUY)
_MARKET, _LIMIT = int(OrderType.MARKET), int(OrderType.LIMIT)
_GTC, _IOC, _FOK, _POST_ONLY = (int(each) for each in TimeInForce)
_PLACED, _REPLACED = int(Verdict.PLACED), int(Verdict.REPLACED)
_NEW, _PARTIALLY_FILLED, _FILLED, _CANCELLED, _REJECTED = (int(each) for each in OrderStatus)

EXPECTED_EVENT_COLUMNS: Final = ("partition", "input_offset", "event", *STATE_COLUMNS)
EXPECTED_TRADE_COLUMNS: Final = (
    "partition", "input_offset", "position", "time_ns", "symbol_id", "price", "quantity", "quote_amount", "taker_side",
    "maker_order_id", "maker_user_id", "taker_order_id", "taker_user_id",
)  # fmt: skip
EXPECTED_OUTPUT_COLUMNS: Final = ("partition", "input_offset", "time_ns", "verdict", "verdict_reason")


class _Order:
    """An order and what became of it so far."""

    __slots__ = (
        "arrival", "client_order_id", "created_at", "filled_quantity", "filled_quote", "max_spend", "order_id",
        "order_type", "price", "quantity", "revision", "side", "symbol_id", "time_in_force", "user_id",
    )  # fmt: skip

    def __init__(self, command: PlaceOrder | ReplaceOrder, time_ns: int) -> None:
        self.order_id = command.order_id
        self.user_id = command.user_id
        self.symbol_id = command.symbol_id
        self.created_at = time_ns
        self.side = command.side
        self.time_in_force = command.time_in_force
        self.price = command.price
        self.quantity = command.quantity
        self.client_order_id = command.request_id
        self.filled_quantity = 0
        self.filled_quote = 0
        self.revision = 1
        self.arrival = 0
        if type(command) is PlaceOrder:
            self.order_type, self.max_spend = command.order_type, command.max_spend
        else:
            self.order_type, self.max_spend = _LIMIT, 0

    @property
    def rest(self) -> int:
        return self.quantity - self.filled_quantity

    @property
    def rank(self) -> tuple[int, int]:
        """Its place on its side of the book: better price first, then earlier arrival."""
        return (-self.price if self.side == _BUY else self.price), self.arrival


Ranked = tuple[int, int, _Order]


class Reference:
    """One partition's books. `process` takes the inputs one by one; the expected rows gather in three tables."""

    def __init__(
        self, partition: int, symbols: SymbolTable, events: Columns, trades: Columns, outputs: Columns
    ) -> None:
        self._partition = partition
        self._symbols = symbols.symbols
        self._books: dict[tuple[int, int], list[Ranked]] = {}
        self._live: dict[int, _Order] = {}
        self._arrivals = 0
        self._time_ns = 0
        self._offset = 0
        self._trade_position = 0
        self._add_event = events.flat.extend
        self._add_trade = trades.flat.extend
        self._add_output = outputs.flat.extend

    def process(self, offset: int, command: OrderCommand) -> None:
        """Decide one input: the command of the record at `offset` of validated.orders."""
        self._offset = offset
        self._trade_position = 0
        self._time_ns = max(self._time_ns, command.requested_at_ns)
        verdict = _DECIDE[type(command)](self, command)
        self._add_output((self._partition, offset, self._time_ns, *verdict))

    def _place_new(self, command: PlaceOrder) -> tuple[int, int]:
        return self._place(command, _PLACED, is_duplicate=command.order_id in self._live)

    def _place(self, command: PlaceOrder | ReplaceOrder, success: int, *, is_duplicate: bool) -> tuple[int, int]:
        order = _Order(command, self._time_ns)
        refusal = Reason.DUPLICATE_ORDER_ID if is_duplicate else self._refusal(order)
        if refusal:
            self._event(REFUSAL, order, _REJECTED, refusal)
            return Verdict.REFUSED, refusal
        self._event(PLACEMENT, order, _NEW, 0)
        why_stopped = self._match(order)
        if order.rest == 0:
            self._end(order, _FILLED, Reason.FILLED)
        elif why_stopped:
            self._end(order, _CANCELLED, why_stopped)
        elif order.order_type == _MARKET or order.time_in_force in (_IOC, _FOK):
            self._end(order, _CANCELLED, Reason.UNFILLED_REST)
        elif order.filled_quote + self._symbols[order.symbol_id].quote_atoms(order.price, order.rest) > INT64_MAX:
            self._end(order, _CANCELLED, Reason.OVERFLOW)
        else:
            if order.filled_quantity:
                self._change(order)
            self._arrivals += 1
            order.arrival = self._arrivals
            insort(self._side(order.symbol_id, order.side), (*order.rank, order))
            self._live[order.order_id] = order
        return success, 0

    def _cancel(self, command: CancelOrder) -> tuple[int, int]:
        order = self._find(command.order_id, command)
        if order is None:
            return Verdict.TOO_LATE, Reason.NOT_LIVE
        self._remove(order)
        self._end(order, _CANCELLED, Reason.CANCELLED_BY_USER)
        return Verdict.CANCELLED, 0

    def _reduce(self, command: ReduceOrder) -> tuple[int, int]:
        order = self._find(command.order_id, command)
        if order is None:
            return Verdict.TOO_LATE, Reason.NOT_LIVE
        if command.quantity >= order.quantity:
            return Verdict.INVALID, Reason.INVALID_REDUCTION
        if command.quantity <= order.filled_quantity:
            self._remove(order)
            self._end(order, _CANCELLED, Reason.REDUCED)
        else:
            order.quantity = command.quantity
            self._change(order)
        return Verdict.REDUCED, 0

    def _replace(self, command: ReplaceOrder) -> tuple[int, int]:
        replaced = self._find(command.replaced_order_id, command)
        if replaced is None:
            self._event(REFUSAL, _Order(command, self._time_ns), _REJECTED, Reason.REPLACED_ORDER_NOT_LIVE)
            return Verdict.TOO_LATE, Reason.NOT_LIVE
        is_duplicate = command.order_id in self._live
        self._remove(replaced)
        self._end(replaced, _CANCELLED, Reason.REPLACED)
        return self._place(command, _REPLACED, is_duplicate=is_duplicate)

    def _refusal(self, order: _Order) -> int:
        """Why the engine does not take a new order whose id is free, 0 when it does."""
        if order.time_in_force == _POST_ONLY:
            makers = self._side(order.symbol_id, 1 - order.side)
            if makers and self._crosses(order, makers[0][2]):
                return Reason.WOULD_CROSS
        if order.time_in_force == _FOK and not self._can_fill(order):
            return Reason.CANNOT_FILL
        return 0

    def _can_fill(self, order: _Order) -> bool:
        """Whether the whole order would trade at once, before an own order and within every limit."""
        rest, spent = order.quantity, 0
        for _, _, maker in self._side(order.symbol_id, 1 - order.side)[:MAKERS_MAX]:
            if not self._crosses(order, maker) or maker.user_id == order.user_id:
                return False
            fill = self._fill(order, rest, spent, maker)
            if fill == 0:
                return False
            spent += self._symbols[order.symbol_id].quote_atoms(maker.price, fill)
            rest -= fill
            if rest == 0:
                return True
        return False

    def _match(self, taker: _Order) -> int:
        """Trade with the best makers while there are any; returns why the rest must be cancelled, 0 if it need not."""
        makers = self._side(taker.symbol_id, 1 - taker.side)
        met = 0
        while makers and taker.filled_quantity < taker.quantity:
            maker = makers[0][2]
            if not self._crosses(taker, maker):
                return 0
            if met == MAKERS_MAX:
                return Reason.MATCH_LIMIT
            if maker.user_id == taker.user_id:
                return Reason.SELF_TRADE
            fill = self._fill(taker, taker.rest, taker.filled_quote, maker)
            if fill == 0:
                return Reason.SPEND_LIMIT
            met += 1
            self._trade(maker, taker, fill)
            if maker.rest == 0:
                makers.pop(0)
                del self._live[maker.order_id]
                self._end(maker, _FILLED, Reason.FILLED)
            else:
                self._change(maker)
        return 0

    def _fill(self, taker: _Order, rest: int, spent: int, maker: _Order) -> int:
        """How many lots the two can trade: a market buy may not spend more than it named."""
        fill = min(rest, maker.rest)
        if taker.order_type == _MARKET and taker.side == _BUY:
            fill = min(fill, (taker.max_spend - spent) // self._symbols[taker.symbol_id].quote_atoms(maker.price, 1))
        return fill

    @staticmethod
    def _crosses(taker: _Order, maker: _Order) -> bool:
        if taker.order_type == _MARKET:
            return True
        return maker.price <= taker.price if taker.side == _BUY else maker.price >= taker.price

    def _trade(self, maker: _Order, taker: _Order, quantity: int) -> None:
        quote = self._symbols[taker.symbol_id].quote_atoms(maker.price, quantity)
        for order in (maker, taker):
            order.filled_quantity += quantity
            order.filled_quote += quote
        self._add_trade(
            (
                self._partition, self._offset, self._trade_position, self._time_ns, taker.symbol_id, maker.price,
                quantity, quote, taker.side, maker.order_id, maker.user_id, taker.order_id, taker.user_id,
            )
        )  # fmt: skip
        self._trade_position += 1

    def _find(self, order_id: int, command: CancelOrder | ReduceOrder | ReplaceOrder) -> _Order | None:
        """The live order of that id, if it is this user's and of this symbol."""
        order = self._live.get(order_id)
        if order is None or order.user_id != command.user_id or order.symbol_id != command.symbol_id:
            return None
        return order

    def _remove(self, order: _Order) -> None:
        side = self._side(order.symbol_id, order.side)
        del side[bisect_left(side, order.rank)]
        del self._live[order.order_id]

    def _side(self, symbol_id: int, side: int) -> list[Ranked]:
        book = self._books.get((symbol_id, side))
        if book is None:
            book = self._books[symbol_id, side] = []
        return book

    def _change(self, order: _Order) -> None:
        order.revision += 1
        self._event(UPDATE, order, _PARTIALLY_FILLED if order.filled_quantity else _NEW, 0)

    def _end(self, order: _Order, status: int, reason: int) -> None:
        order.revision += 1
        self._event(COMPLETION, order, status, reason)

    def _event(self, event: int, order: _Order, status: int, reason: int) -> None:
        self._add_event(
            (
                self._partition, self._offset, event, order.order_id, order.user_id, order.symbol_id, order.created_at,
                self._time_ns, order.revision, status, reason, order.side, order.order_type, order.time_in_force,
                order.price, order.quantity, order.filled_quantity, order.filled_quote, order.max_spend,
                order.client_order_id,
            )
        )  # fmt: skip


_DECIDE: Final[dict[type, Callable[[Reference, Any], tuple[int, int]]]] = {
    PlaceOrder: Reference._place_new,
    CancelOrder: Reference._cancel,
    ReduceOrder: Reference._reduce,
    ReplaceOrder: Reference._replace,
}


class Expected:
    """What the reference says of a whole trace: `events`, `trades` and `outputs` with the columns named above."""

    def __init__(self) -> None:
        self._events = Columns(EXPECTED_EVENT_COLUMNS)
        self._trades = Columns(EXPECTED_TRADE_COLUMNS)
        self._outputs = Columns(EXPECTED_OUTPUT_COLUMNS)

    def feed(self, partition: int, symbols: SymbolTable, inputs: Iterable[tuple[int, OrderCommand]]) -> None:
        """Run a partition's inputs, given as (offset, command) in order, from an empty book."""
        reference = Reference(partition, symbols, self._events, self._trades, self._outputs)
        for number, (offset, command) in enumerate(inputs, 1):
            reference.process(offset, command)
            if number % _PACK_EVERY == 0:
                for table in (self._events, self._trades, self._outputs):
                    table.pack()

    @cached_property
    def events(self) -> pd.DataFrame:
        """The expected lifecycle events, EXPECTED_EVENT_COLUMNS."""
        return self._events.frame()

    @cached_property
    def trades(self) -> pd.DataFrame:
        """The expected trades, EXPECTED_TRADE_COLUMNS."""
        return self._trades.frame()

    @cached_property
    def outputs(self) -> pd.DataFrame:
        """The expected verdict and engine time of each input, EXPECTED_OUTPUT_COLUMNS."""
        return self._outputs.frame()
