"""The matching engine: a pure state machine of one symbol partition (design sections 4.1 and 4.2.1).

One input, a ValidatedOrder at its place in the log, gives exactly one EngineOutput, chained to the one before. Nothing
here asks a clock, draws a number or does input or output, so the same inputs always give the same bytes.

What is decided here, beyond the words of the design:

* **Events.** A placed order yields its OrderPlacement (revision 1, NEW, nothing filled) and, if it trades or ends in
  the same input, exactly one event more with its state at the end of the input: an OrderUpdate if it lives on, an
  OrderCompletion if not. Each maker touched yields one OrderUpdate or OrderCompletion. Events stand as they happened: a
  replaced order's completion, makers in the order they were met, the taker last.
* **When a taker stops.** For the next maker within its price, in this order: it is the taker's own (SELF_TRADE); 1,000
  makers have been met (MATCH_LIMIT); the money left does not buy one lot (SPEND_LIMIT). When the money left buys only
  part of a maker, the taker buys that part and stops (SPEND_LIMIT). Whatever its type, a taker so stopped does not
  rest. When there is no maker within its price a GTC limit order rests, and the rest of any other is cancelled
  (UNFILLED_REST). A market order never rests, whatever its time in force says.
* **Refusals.** In this order: DUPLICATE_ORDER_ID when an order of that id lives anywhere in the partition (a replace to
  the replaced order's own id included); WOULD_CROSS for a post-only order that meets any order within its price, its
  user's own too; CANNOT_FILL for a fill-or-kill, limit or market, that would be stopped or run dry before it is filled.
* **Orders that are not there.** A cancel, reduce or replace of an order that is not live, or is another user's or
  another symbol's, gets the verdict TOO_LATE with the reason NOT_LIVE and causes no lifecycle event; for a replace the
  new order is refused (REPLACED_ORDER_NOT_LIVE) too. Which of these it was is not told: the order may be another
  user's.
* **Reduce.** To the order's quantity or more: verdict INVALID, nothing happens. Above what is filled: an OrderUpdate.
  At or below it: the order completes as CANCELLED, reason REDUCED, and `quantity` keeps its last value, so that a
  completion never shows less than was filled; the verdict is REDUCED all the same.
* **Verdicts.** A place or replace is PLACED or REPLACED even if its order ended at once; `reason` is 0 but for REFUSED,
  TOO_LATE and INVALID.
* **Time.** An order's `created_at_ns` is the engine time of the input that placed it, `updated_at_ns` that of its last
  event.
* **Trades** print at the maker's price; trade_id = output_seq * 1024 + its index in the output.
* **Fund updates.** One for each user touched: the submitter first, always, then the others in the order they were met.
  Entries are summed per order and kind, an order's in the order DEBIT, CREDIT, RELEASE, zero ones left out; over all
  users an output's entries sum to zero per asset. `link_seq` counts per destination partition.
"""

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

from engine.book import Order, OrderBook
from engine.matching_funds import Market, fund_entries
from engine.matching_snapshot import EngineState, SnapshotError, decode_state, encode_state
from schema.codes import OrderStatus, OrderType, Reason, Side, TimeInForce, Verdict
from schema.events import (
    CancelOrder,
    EngineOutput,
    FundEntry,
    FundUpdate,
    OrderCompletion,
    OrderPlacement,
    OrderRejected,
    OrderState,
    OrderUpdate,
    PlaceOrder,
    ReduceOrder,
    ReplaceOrder,
    Trade,
    ValidatedOrder,
)
from schema.identifiers import OrderId, SymbolId, TradeId, UserId
from schema.limits import MATCH_LIMIT
from schema.topics import Topology
from schema.wire import GENESIS_HASH, seal

TRADE_IDS_PER_OUTPUT = 1024
"""A trade's id is its output's sequence times this, plus its index: there are never more trades than MATCH_LIMIT."""

# Events carry codes as plain integers, and these are compared where every order passes.
_BUY, _SELL = int(Side.BUY), int(Side.SELL)
_MARKET, _LIMIT = int(OrderType.MARKET), int(OrderType.LIMIT)
_GTC, _FOK, _POST_ONLY = int(TimeInForce.GTC), int(TimeInForce.FOK), int(TimeInForce.POST_ONLY)
_NEW, _PARTIALLY_FILLED = int(OrderStatus.NEW), int(OrderStatus.PARTIALLY_FILLED)
_FILLED, _CANCELLED, _REJECTED = int(OrderStatus.FILLED), int(OrderStatus.CANCELLED), int(OrderStatus.REJECTED)

_S = TypeVar("_S", bound=OrderState)


class InvalidInputError(ValueError):
    """An input that a correct balance core never sends: the partition must stop. The engine's state is unchanged."""


class BrokenLinkError(InvalidInputError):
    """A validated order that does not continue its source partition's link: a record was lost, doubled or reordered."""

    def __init__(self, source_partition: int, expected: int, found: int) -> None:
        super().__init__(
            f"link of balance partition {source_partition}: expected link_seq {expected}, found {found}; "
            f"{'records are missing before this one' if found > expected else 'this record was applied before'}"
        )
        self.source_partition = source_partition
        self.expected = expected
        self.found = found


class AppliedInput(NamedTuple):
    """What one input did: the output, the record value that carries it, and its (signed) hash."""

    output: EngineOutput
    value: bytes
    hash: int


class _Turn:
    """What one input has done so far."""

    __slots__ = (
        "completions",
        "entries",
        "output_seq",
        "placements",
        "reason",
        "refusals",
        "time_ns",
        "touched",
        "trades",
        "updates",
        "verdict",
    )

    def __init__(self, output_seq: int, time_ns: int) -> None:
        self.output_seq = output_seq
        self.time_ns = time_ns
        self.placements: list[OrderPlacement] = []
        self.updates: list[OrderUpdate] = []
        self.completions: list[OrderCompletion] = []
        self.refusals: list[OrderRejected] = []
        self.trades: list[Trade] = []
        # The submitter's entries; then those of every other user touched, in the order of first touch.
        self.entries: list[FundEntry] = []
        self.touched: dict[UserId, list[FundEntry]] = {}
        self.verdict = 0
        self.reason = 0

    def refuse(self, order: Order, reason: int) -> None:
        self.refusals.append(_state(OrderRejected, order, self.time_ns, _REJECTED, reason))

    def update(self, order: Order) -> None:
        order.revision += 1
        status = _PARTIALLY_FILLED if order.filled_quantity else _NEW
        self.updates.append(_state(OrderUpdate, order, self.time_ns, status, 0))

    def complete(self, order: Order, status: int, reason: int) -> None:
        order.revision += 1
        self.completions.append(_state(OrderCompletion, order, self.time_ns, status, reason))


class MatchingEngine:
    """The state of one symbol partition, and what an input does to it.

    `output_seq`, `last_hash` and `time_ns` are those of the last output, 0 before the first; `next_input_offset` is one
    past the last input's. State changes only in `apply`: an engine whose outputs could not be committed is thrown away.
    """

    def __init__(self, topology: Topology, partition: int) -> None:
        self.partition = partition
        self.output_seq = 0
        self.last_hash = GENESIS_HASH
        self.time_ns = 0
        self.next_input_offset = 0
        self._topology = topology
        # Live orders of all symbols: an order id is unique in the partition.
        self._orders: dict[OrderId, Order] = {}
        self._markets: dict[SymbolId, Market] = {
            symbol.symbol_id: Market(symbol, OrderBook(self._orders))
            for symbol in topology.symbols
            if symbol.partition == partition
        }
        # Last link_seq by source (balance) partition, and by destination (user) partition.
        self._links_in: dict[int, int] = {}
        self._links_out: dict[int, int] = {}

    def apply(self, order: ValidatedOrder, topic: str, partition: int, offset: int) -> AppliedInput:
        """Decide one input, which stands at `topic`, `partition`, `offset`.

        Raises BrokenLinkError when `order` does not continue its source's link, and InvalidInputError when it is not
        something the balance core can have accepted for this partition; the state is unchanged then.
        """
        source = order.source_partition
        expected = self._links_in.get(source, 0) + 1
        if order.link_seq != expected:
            raise BrokenLinkError(source, expected, order.link_seq)
        command = order.command
        market = self._markets.get(command.symbol_id)
        if market is None:
            raise InvalidInputError(f"symbol {command.symbol_id} is not one of partition {self.partition}")
        if isinstance(command, PlaceOrder | ReplaceOrder):
            _require_possible(command)

        self._links_in[source] = expected
        time_ns = max(self.time_ns, command.requested_at_ns)
        turn = _Turn(self.output_seq + 1, time_ns)
        if isinstance(command, PlaceOrder):
            self._place(turn, market, command)
        elif isinstance(command, CancelOrder):
            self._cancel(turn, market, command)
        elif isinstance(command, ReduceOrder):
            self._reduce(turn, market, command)
        else:
            self._replace(turn, market, command)

        output = EngineOutput(
            self.partition,
            turn.output_seq,
            self.last_hash,
            topic,
            partition,
            offset,
            order,
            time_ns,
            tuple(turn.placements),
            tuple(turn.updates),
            tuple(turn.completions),
            tuple(turn.refusals),
            tuple(turn.trades),
            self._fund_updates(turn, command),
        )
        value, output_hash = seal(output)
        self.output_seq = turn.output_seq
        self.last_hash = output_hash
        self.time_ns = time_ns
        self.next_input_offset = offset + 1
        return AppliedInput(output, value, output_hash)

    def open_orders(self) -> Iterator[Order]:
        """Every live order: symbols in id order, bids then asks, each in priority."""
        for market in self._markets.values():
            yield from market.book

    def snapshot(self) -> bytes:
        """The whole state as bytes, for `restore`."""
        return encode_state(
            EngineState(
                self.partition,
                self.output_seq,
                self.last_hash,
                self.time_ns,
                self.next_input_offset,
                tuple(sorted(self._links_in.items())),
                tuple(sorted(self._links_out.items())),
                tuple(self.open_orders()),
            )
        )

    @classmethod
    def restore(cls, topology: Topology, partition: int, data: bytes) -> "MatchingEngine":
        """The engine that `snapshot` was taken of. Raises SnapshotError when `data` is none of this partition."""
        state = decode_state(data)
        if state.partition != partition:
            raise SnapshotError(f"a snapshot of partition {state.partition}, not of {partition}")
        engine = cls(topology, partition)
        engine.output_seq = state.output_seq
        engine.last_hash = state.last_hash
        engine.time_ns = state.time_ns
        engine.next_input_offset = state.next_input_offset
        engine._links_in = dict(state.links_in)
        engine._links_out = dict(state.links_out)
        for order in state.orders:
            market = engine._markets.get(order.symbol_id)
            if market is None:
                raise SnapshotError(f"order {order.order_id}: symbol {order.symbol_id} is not one of this partition")
            if order.order_id in engine._orders:
                raise SnapshotError(f"order {order.order_id} stands in it twice")
            if order.side not in (_BUY, _SELL) or not 0 <= order.filled_quantity < order.quantity or order.price < 1:
                raise SnapshotError(f"order {order.order_id} cannot be resting: {order}")
            maker = market.book.opposite(order.side).first()
            if maker is not None and _crosses(order, maker):
                raise SnapshotError(f"orders {order.order_id} and {maker.order_id} rest although they cross")
            market.book.add(order)
        return engine

    def _place(self, turn: _Turn, market: Market, command: PlaceOrder) -> None:
        order = Order(
            command.order_id,
            command.user_id,
            command.symbol_id,
            turn.time_ns,
            1,
            command.side,
            command.order_type,
            command.time_in_force,
            command.price,
            command.quantity,
            0,
            0,
            command.max_spend,
            command.request_id,
        )
        reason = Reason.DUPLICATE_ORDER_ID if command.order_id in self._orders else 0
        turn.reason = reason = reason or self._enter(turn, market, order)
        if reason:
            self._refuse(turn, market, order, reason)
        turn.verdict = Verdict.REFUSED if reason else Verdict.PLACED

    def _cancel(self, turn: _Turn, market: Market, command: CancelOrder) -> None:
        order = self._live_order(command.order_id, command)
        if order is None:
            turn.verdict, turn.reason = Verdict.TOO_LATE, Reason.NOT_LIVE
            return
        self._take_out(turn, market, order, Reason.CANCELLED_BY_USER)
        turn.verdict = Verdict.CANCELLED

    def _reduce(self, turn: _Turn, market: Market, command: ReduceOrder) -> None:
        order = self._live_order(command.order_id, command)
        if order is None:
            turn.verdict, turn.reason = Verdict.TOO_LATE, Reason.NOT_LIVE
            return
        if command.quantity >= order.quantity:
            turn.verdict, turn.reason = Verdict.INVALID, Reason.INVALID_REDUCTION
            return
        if command.quantity <= order.filled_quantity:
            self._take_out(turn, market, order, Reason.REDUCED)
        else:
            released = market.locked_by(order, order.quantity - command.quantity)
            order.quantity = command.quantity
            turn.update(order)
            turn.entries += fund_entries(market, order, 0, 0, released)
        turn.verdict = Verdict.REDUCED

    def _replace(self, turn: _Turn, market: Market, command: ReplaceOrder) -> None:
        order = Order(
            command.order_id,
            command.user_id,
            command.symbol_id,
            turn.time_ns,
            1,
            command.side,
            _LIMIT,
            command.time_in_force,
            command.price,
            command.quantity,
            0,
            0,
            0,
            command.request_id,
        )
        replaced = self._live_order(command.replaced_order_id, command)
        if replaced is None:
            turn.verdict, turn.reason = Verdict.TOO_LATE, Reason.NOT_LIVE
            self._refuse(turn, market, order, Reason.REPLACED_ORDER_NOT_LIVE)
            return
        # Looked up before the replaced order leaves: an id must not live a second time, not even its own.
        reason = Reason.DUPLICATE_ORDER_ID if command.order_id in self._orders else 0
        self._take_out(turn, market, replaced, Reason.REPLACED)
        turn.reason = reason = reason or self._enter(turn, market, order)
        if reason:
            self._refuse(turn, market, order, reason)
        turn.verdict = Verdict.REFUSED if reason else Verdict.REPLACED

    def _live_order(self, order_id: OrderId, command: CancelOrder | ReduceOrder | ReplaceOrder) -> Order | None:
        order = self._orders.get(order_id)
        if order is None or order.user_id != command.user_id or order.symbol_id != command.symbol_id:
            return None
        return order

    def _take_out(self, turn: _Turn, market: Market, order: Order, reason: int) -> None:
        """Complete a resting order as cancelled and release what it still locks."""
        market.book.remove(order)
        turn.complete(order, _CANCELLED, reason)
        turn.entries += fund_entries(
            market, order, 0, 0, market.locked_by(order, order.quantity - order.filled_quantity)
        )

    def _refuse(self, turn: _Turn, market: Market, order: Order, reason: int) -> None:
        turn.refuse(order, reason)
        turn.entries += fund_entries(market, order, 0, 0, market.lock_of(order))

    def _enter(self, turn: _Turn, market: Market, order: Order) -> int:
        """Take a new order, or return the reason to refuse it."""
        book = market.book
        time_in_force = order.time_in_force
        maker = book.opposite(order.side).first()
        meets = maker is not None and _crosses(order, maker)
        if time_in_force == _POST_ONLY and meets:
            return Reason.WOULD_CROSS
        if time_in_force == _FOK and not _can_fill(market, order):
            return Reason.CANNOT_FILL
        turn.placements.append(_state(OrderPlacement, order, turn.time_ns, _NEW, 0))
        stopped = _match(turn, market, order) if meets else 0

        rest = order.quantity - order.filled_quantity
        if not rest:
            still_locked = 0
            turn.complete(order, _FILLED, Reason.FILLED)
        elif stopped or order.order_type == _MARKET or time_in_force not in (_GTC, _POST_ONLY):
            still_locked = 0
            turn.complete(order, _CANCELLED, stopped or Reason.UNFILLED_REST)
        else:
            still_locked = market.locked_by(order, rest)
            book.add(order)
            if not order.filled_quantity:
                return 0
            turn.update(order)
        # What was locked and neither paid nor needed any more: the rest of an order that ended, price improvement.
        paid = market.paid(order, order.filled_quantity, order.filled_quote)
        released = market.lock_of(order) - paid - still_locked
        turn.entries += fund_entries(market, order, order.filled_quantity, order.filled_quote, released)
        return 0

    def _fund_updates(
        self, turn: _Turn, command: PlaceOrder | CancelOrder | ReduceOrder | ReplaceOrder
    ) -> tuple[FundUpdate, ...]:
        submitter = FundUpdate(
            self.partition,
            turn.output_seq,
            self._next_link(command.user_id),
            turn.time_ns,
            command.user_id,
            command.request_id,
            int(turn.verdict),
            int(turn.reason),
            command.order_id,
            tuple(turn.entries),
        )
        if not turn.touched:
            return (submitter,)
        updates = [submitter]
        for user_id, entries in turn.touched.items():
            link_seq = self._next_link(user_id)
            updates.append(
                FundUpdate(
                    self.partition,
                    turn.output_seq,
                    link_seq,
                    turn.time_ns,
                    user_id,
                    "",
                    0,
                    0,
                    OrderId(0),
                    tuple(entries),
                )
            )
        return tuple(updates)

    def _next_link(self, user_id: UserId) -> int:
        partition = self._topology.user_partition(user_id)
        link_seq = self._links_out[partition] = self._links_out.get(partition, 0) + 1
        return link_seq


def _match(turn: _Turn, market: Market, taker: Order) -> int:
    """Trade with makers in priority; returns why the taker was stopped, 0 when it was not."""
    book = market.book
    makers = book.opposite(taker.side)
    unit_atoms = market.tick_lot_atoms
    spends = taker.order_type == _MARKET and taker.side == _BUY
    for met in range(MATCH_LIMIT + 1):
        rest = taker.quantity - taker.filled_quantity
        maker = makers.first()
        if not rest or maker is None or not _crosses(taker, maker):
            return 0
        if maker.user_id == taker.user_id:
            return Reason.SELF_TRADE
        if met == MATCH_LIMIT:
            return Reason.MATCH_LIMIT
        price = maker.price
        maker_rest = maker.quantity - maker.filled_quantity
        quantity = min(rest, maker_rest)
        if spends:
            quantity = min(quantity, (taker.max_spend - taker.filled_quote) // (price * unit_atoms))
            if not quantity:
                return Reason.SPEND_LIMIT

        quote = price * quantity * unit_atoms
        taker.filled_quantity += quantity
        taker.filled_quote += quote
        maker.filled_quantity += quantity
        maker.filled_quote += quote
        turn.trades.append(
            Trade(
                TradeId(turn.output_seq * TRADE_IDS_PER_OUTPUT + met),
                taker.symbol_id,
                price,
                quantity,
                quote,
                taker.side,
                maker.order_id,
                maker.user_id,
                taker.order_id,
                taker.user_id,
            )
        )
        # A maker's lock is exactly what its fills cost, so it has nothing to release.
        turn.touched.setdefault(maker.user_id, []).extend(fund_entries(market, maker, quantity, quote, 0))
        if quantity == maker_rest:
            book.remove(maker)
            turn.complete(maker, _FILLED, Reason.FILLED)
        else:
            turn.update(maker)
            return Reason.SPEND_LIMIT if quantity < rest else 0
    raise AssertionError("a taker met more makers than the match limit")


def _can_fill(market: Market, order: Order) -> bool:
    """Whether matching would fill the order whole: counts as `_match` does, and changes nothing."""
    rest = order.quantity
    money = order.max_spend
    spends = order.order_type == _MARKET and order.side == _BUY
    for met, maker in enumerate(market.book.opposite(order.side)):
        if met == MATCH_LIMIT or maker.user_id == order.user_id or not _crosses(order, maker):
            return False
        available = maker.quantity - maker.filled_quantity
        quantity = min(rest, available)
        if spends:
            quantity = min(quantity, money // (maker.price * market.tick_lot_atoms))
            money -= maker.price * quantity * market.tick_lot_atoms
        rest -= quantity
        if not rest:
            return True
        if quantity < available:
            return False
    return False


def _crosses(taker: Order, maker: Order) -> bool:
    """Whether the maker's price is within the taker's."""
    if taker.order_type == _MARKET:
        return True
    return maker.price <= taker.price if taker.side == _BUY else maker.price >= taker.price


def _require_possible(command: PlaceOrder | ReplaceOrder) -> None:
    """Raise InvalidInputError for an order that the balance core must have rejected."""
    possible = command.quantity >= 1 and command.side in (_BUY, _SELL) and _GTC <= command.time_in_force <= _POST_ONLY
    if isinstance(command, ReplaceOrder) or command.order_type == _LIMIT:
        possible = possible and command.price >= 1
    else:
        possible = possible and command.order_type == _MARKET and command.max_spend >= 0
    if not possible:
        raise InvalidInputError(f"order {command.order_id} cannot have been accepted: {command}")


def _state(kind: type[_S], order: Order, time_ns: int, status: int, reason: int) -> _S:
    return kind(
        order.order_id,
        order.user_id,
        order.symbol_id,
        order.created_at_ns,
        time_ns,
        order.revision,
        status,
        int(reason),
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
