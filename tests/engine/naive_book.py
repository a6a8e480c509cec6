"""A matching engine so plain that it can be believed by reading: the reference of the property tests.

All live orders of a partition stand in one list, in the order they arrived; whoever is needed is searched for. What an
order has locked is computed anew whenever it is asked, so releases follow from what an order needs before and after.
"""

from dataclasses import asdict, dataclass, field, replace

from schema.codes import EntryKind, OrderStatus, OrderType, Reason, Side, TimeInForce, Verdict
from schema.events import (
    CancelOrder,
    OrderCommand,
    OrderCompletion,
    OrderPlacement,
    OrderRejected,
    OrderState,
    OrderUpdate,
    PlaceOrder,
    ReduceOrder,
    ReplaceOrder,
    Trade,
)
from schema.identifiers import INT64_MAX, OrderId, SymbolId, TradeId, UserId
from schema.symbols import SymbolTable


@dataclass
class NaiveOrder:
    order_id: OrderId
    user_id: UserId
    symbol_id: SymbolId
    created_at_ns: int
    side: int
    order_type: int
    time_in_force: int
    price: int
    quantity: int
    max_spend: int
    client_order_id: str
    filled_quantity: int = 0
    filled_quote: int = 0
    revision: int = 1

    @property
    def rest(self) -> int:
        return self.quantity - self.filled_quantity


@dataclass
class Said:
    """What one input did. `entries` sums atoms by (user, order, asset, kind), in the order of first touch."""

    verdict: int = 0
    reason: int = 0
    placements: list[OrderState] = field(default_factory=list)
    updates: list[OrderState] = field(default_factory=list)
    completions: list[OrderState] = field(default_factory=list)
    refusals: list[OrderState] = field(default_factory=list)
    trades: list[Trade] = field(default_factory=list)
    entries: dict[tuple[int, int, int, int], int] = field(default_factory=dict)
    users: list[int] = field(default_factory=list)


class NaiveEngine:
    def __init__(self, symbols: SymbolTable, match_limit: int = 1_000) -> None:
        self.symbols = symbols
        self.match_limit = match_limit
        self.live: list[NaiveOrder] = []
        self.time_ns = 0
        self.output_seq = 0

    def apply(self, command: OrderCommand) -> Said:
        self.output_seq += 1
        self.time_ns = max(self.time_ns, command.requested_at_ns)
        said = Said(users=[command.user_id])
        if isinstance(command, PlaceOrder):
            duplicate = any(order.order_id == command.order_id for order in self.live)
            self._enter(said, self._new(command), duplicate, Verdict.PLACED)
        elif isinstance(command, ReplaceOrder):
            self._replace(said, command)
        else:
            order = self._find(command, command.order_id)
            if order is None:
                said.verdict, said.reason = Verdict.TOO_LATE, Reason.NOT_LIVE
            elif isinstance(command, CancelOrder):
                said.verdict = Verdict.CANCELLED
                self._end(said, order, Reason.CANCELLED_BY_USER)
            else:
                self._reduce(said, command, order)
        return said

    def needs(self, order: NaiveOrder) -> int:
        """What a live limit order keeps locked."""
        symbol = self.symbols.symbols[order.symbol_id]
        return symbol.quote_atoms(order.price, order.rest) if order.side == Side.BUY else symbol.base_atoms(order.rest)

    def in_priority(self, symbol_id: int, side: int) -> list[NaiveOrder]:
        """Sorting is stable, so arrival decides among equal prices."""
        orders = [order for order in self.live if order.symbol_id == symbol_id and order.side == side]
        return sorted(orders, key=lambda order: -order.price if side == Side.BUY else order.price)

    def _new(self, command: PlaceOrder | ReplaceOrder) -> NaiveOrder:
        is_place = isinstance(command, PlaceOrder)
        return NaiveOrder(
            command.order_id,
            command.user_id,
            command.symbol_id,
            self.time_ns,
            command.side,
            command.order_type if is_place else OrderType.LIMIT,
            command.time_in_force,
            command.price,
            command.quantity,
            command.max_spend if is_place else 0,
            command.request_id,
        )

    def _find(self, command: CancelOrder | ReduceOrder | ReplaceOrder, order_id: int) -> NaiveOrder | None:
        for order in self.live:
            if (order.order_id, order.user_id, order.symbol_id) == (order_id, command.user_id, command.symbol_id):
                return order
        return None

    def _reduce(self, said: Said, command: ReduceOrder, order: NaiveOrder) -> None:
        if command.quantity >= order.quantity:
            said.verdict, said.reason = Verdict.INVALID, Reason.INVALID_REDUCTION
            return
        said.verdict = Verdict.REDUCED
        if command.quantity <= order.filled_quantity:
            self._end(said, order, Reason.REDUCED)
            return
        before = self.needs(order)
        order.quantity = command.quantity
        self._entry(said, order, EntryKind.RELEASE, before - self.needs(order))
        self._change(said, order)

    def _replace(self, said: Said, command: ReplaceOrder) -> None:
        new = self._new(command)
        old = self._find(command, command.replaced_order_id)
        if old is None:
            said.verdict, said.reason = Verdict.TOO_LATE, Reason.NOT_LIVE
            self._reject(said, new, Reason.REPLACED_ORDER_NOT_LIVE)
            return
        duplicate = any(order.order_id == command.order_id for order in self.live)
        self._end(said, old, Reason.REPLACED)
        self._enter(said, new, duplicate, Verdict.REPLACED)

    def _enter(self, said: Said, order: NaiveOrder, duplicate: bool, success: int) -> None:
        refusal = self._refusal(order, duplicate)
        if refusal:
            said.verdict, said.reason = Verdict.REFUSED, refusal
            self._reject(said, order, refusal)
            return
        said.verdict = success
        said.placements.append(self._state(OrderPlacement, order, OrderStatus.NEW, 0))
        trades, stopped = self._meet(order)
        for maker, quantity in trades:
            self._trade(said, maker, order, quantity)
        limit_order = order.order_type == OrderType.LIMIT
        rests = limit_order and order.time_in_force in (TimeInForce.GTC, TimeInForce.POST_ONLY)
        symbol = self.symbols.symbols[order.symbol_id]
        if rests and not stopped and order.filled_quote + symbol.quote_atoms(order.price, order.rest) > INT64_MAX:
            stopped = Reason.OVERFLOW
        ends = order.rest == 0 or stopped != 0 or not rests
        paid = order.filled_quote if order.side == Side.BUY else symbol.base_atoms(order.filled_quantity)
        self._entry(said, order, EntryKind.RELEASE, self._lock(order) - paid - (0 if ends else self.needs(order)))
        if order.rest == 0:
            self._complete(said, order, OrderStatus.FILLED, Reason.FILLED)
        elif ends:
            self._complete(said, order, OrderStatus.CANCELLED, stopped or Reason.UNFILLED_REST)
        else:
            self.live.append(order)
            if order.filled_quantity:
                self._change(said, order)

    def _refusal(self, order: NaiveOrder, duplicate: bool) -> int:
        if duplicate:
            return Reason.DUPLICATE_ORDER_ID
        if order.time_in_force == TimeInForce.POST_ONLY and self._crossing(order):
            return Reason.WOULD_CROSS
        if order.time_in_force == TimeInForce.FOK:
            trades, _ = self._meet(order)
            if sum(quantity for _, quantity in trades) < order.quantity:
                return Reason.CANNOT_FILL
        return 0

    def _crossing(self, taker: NaiveOrder) -> list[NaiveOrder]:
        makers = self.in_priority(taker.symbol_id, 1 - taker.side)
        if taker.order_type == OrderType.MARKET:
            return makers
        if taker.side == Side.BUY:
            return [maker for maker in makers if maker.price <= taker.price]
        return [maker for maker in makers if maker.price >= taker.price]

    def _meet(self, taker: NaiveOrder) -> tuple[list[tuple[NaiveOrder, int]], int]:
        """Whom the taker would trade with and how much, and why it would be stopped; changes nothing."""
        symbol = self.symbols.symbols[taker.symbol_id]
        trades: list[tuple[NaiveOrder, int]] = []
        rest, money = taker.rest, taker.max_spend
        for maker in self._crossing(taker):
            if rest == 0:
                break
            if len(trades) == self.match_limit:
                return trades, Reason.MATCH_LIMIT
            if maker.user_id == taker.user_id:
                return trades, Reason.SELF_TRADE
            quantity = min(rest, maker.rest)
            wanted = quantity
            if taker.order_type == OrderType.MARKET and taker.side == Side.BUY:
                quantity = min(quantity, money // symbol.quote_atoms(maker.price, 1))
                money -= symbol.quote_atoms(maker.price, quantity)
            if quantity:
                trades.append((maker, quantity))
                rest -= quantity
            if quantity < wanted:
                return trades, Reason.MATCH_LIMIT if len(trades) == self.match_limit else Reason.SPEND_LIMIT
        return trades, 0

    def _trade(self, said: Said, maker: NaiveOrder, taker: NaiveOrder, quantity: int) -> None:
        symbol = self.symbols.symbols[taker.symbol_id]
        quote = symbol.quote_atoms(maker.price, quantity)
        said.trades.append(
            Trade(
                trade_id=TradeId(self.output_seq * 1024 + len(said.trades)),
                symbol_id=taker.symbol_id,
                price=maker.price,
                quantity=quantity,
                quote_amount=quote,
                taker_side=taker.side,
                maker_order_id=maker.order_id,
                maker_user_id=maker.user_id,
                taker_order_id=taker.order_id,
                taker_user_id=taker.user_id,
            )
        )
        for order in (taker, maker):
            order.filled_quantity += quantity
            order.filled_quote += quote
            gives, gets = (quote, symbol.base_atoms(quantity))
            if order.side == Side.SELL:
                gives, gets = gets, gives
            self._entry(said, order, EntryKind.DEBIT, gives)
            self._entry(said, order, EntryKind.CREDIT, gets)
        if maker.rest:
            self._change(said, maker)
        else:
            self.live.remove(maker)
            self._complete(said, maker, OrderStatus.FILLED, Reason.FILLED)

    def _end(self, said: Said, order: NaiveOrder, reason: int) -> None:
        self.live.remove(order)
        self._entry(said, order, EntryKind.RELEASE, self.needs(order))
        self._complete(said, order, OrderStatus.CANCELLED, reason)

    def _reject(self, said: Said, order: NaiveOrder, reason: int) -> None:
        self._entry(said, order, EntryKind.RELEASE, self._lock(order))
        said.refusals.append(self._state(OrderRejected, order, OrderStatus.REJECTED, reason))

    def _lock(self, order: NaiveOrder) -> int:
        if order.order_type == OrderType.MARKET and order.side == Side.BUY:
            return order.max_spend
        return self.needs(replace(order, filled_quantity=0))

    def _change(self, said: Said, order: NaiveOrder) -> None:
        order.revision += 1
        status = OrderStatus.PARTIALLY_FILLED if order.filled_quantity else OrderStatus.NEW
        said.updates.append(self._state(OrderUpdate, order, status, 0))

    def _complete(self, said: Said, order: NaiveOrder, status: int, reason: int) -> None:
        order.revision += 1
        said.completions.append(self._state(OrderCompletion, order, status, reason))

    def _state(self, kind: type[OrderState], order: NaiveOrder, status: int, reason: int) -> OrderState:
        return kind(**asdict(order), updated_at_ns=self.time_ns, status=int(status), reason=int(reason))

    def _entry(self, said: Said, order: NaiveOrder, kind: EntryKind, atoms: int) -> None:
        if order.user_id not in said.users:
            said.users.append(order.user_id)
        if not atoms:
            return
        symbol = self.symbols.symbols[order.symbol_id]
        locked, got = (symbol.quote, symbol.base) if order.side == Side.BUY else (symbol.base, symbol.quote)
        asset = got if kind == EntryKind.CREDIT else locked
        place = (order.user_id, order.order_id, asset.asset_id, int(kind))
        said.entries[place] = said.entries.get(place, 0) + atoms
