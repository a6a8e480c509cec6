"""The matching engine: a pure state machine of one symbol partition (design sections 4.1 and 4.2.1).

One input, a ValidatedOrder at its place in the log, gives exactly one EngineOutput, chained to the one before. Nothing
here asks a clock, draws a number or does input or output, so the same inputs always give the same bytes.

What is decided here, beyond the words of the design:

* **Events.** A placed order yields its OrderPlacement (revision 1, NEW, nothing filled) and, if it trades or ends in
  the same input, exactly one event more with its state at the end of the input: an OrderUpdate if it lives on, an
  OrderCompletion if not. Each maker touched yields one OrderUpdate or OrderCompletion. Events stand as they happened: a
  replaced order's completion, makers in the order they were met, the taker last.
* **When a taker stops.** For the next maker within its price, in this order: 1,000 makers have been met (MATCH_LIMIT);
  it is the taker's own (SELF_TRADE); the money left does not buy one lot of it (SPEND_LIMIT), which after buying a part
  of a maker is so for the rest of the same one. Whatever its type, a taker so stopped does not rest. When there is no
  maker within its price a GTC limit order rests, and the rest of any other is cancelled (UNFILLED_REST). A market order
  never rests, whatever its time in force says. Nor does a sell that sold so well already that, were its rest sold too,
  `filled_quote` would not fit its column (OVERFLOW): the balance core bounds its quantity at its own price only.
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
from typing import Final, NamedTuple, TypeVar

from engine import plain_codes as code
from engine.book import NO_LIMIT, Order, OrderBook
from engine.matching_funds import Entries, Market, summed
from engine.matching_snapshot import EngineState, SnapshotError, decode_state, encode_state
from schema.events import (
    CancelOrder,
    EngineOutput,
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
from schema.identifiers import INT64_MAX, NO_ORDER, OrderId, SymbolId, UserId
from schema.limits import MATCH_LIMIT
from schema.topics import Topology
from schema.wire import GENESIS_HASH, seal

TRADE_IDS_PER_OUTPUT: Final = 1024
"""A trade's id is its output's sequence times this, plus its index: there are never more trades than MATCH_LIMIT."""

_REMEMBERED_USERS_MAX: Final = 100_000

_S = TypeVar("_S", bound=OrderState)
_new_tuple = tuple.__new__


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


_Effect = tuple[
    int,
    int,
    Entries,
    tuple[OrderPlacement, ...],
    tuple[OrderUpdate, ...],
    tuple[OrderCompletion, ...],
    tuple[OrderRejected, ...],
    tuple[Trade, ...],
    dict[UserId, Entries] | None,
]
"""What one input does, but for its place in the chain: verdict, reason, the submitter's entries, placements, updates,
completions, refusals, trades, and the entries of the makers' users, as first met.

A plain tuple, because it only lives from one line to the next and a struct would cost as much as an event.
"""


_NOTHING_DONE: Final[_Effect] = (code.TOO_LATE, code.NOT_LIVE, (), (), (), (), (), (), None)


class _UserPartitions(dict[UserId, int]):
    """The partition of each user, worked out once: the formula's wide integers take five times as long as looking."""

    def __init__(self, topology: Topology) -> None:
        super().__init__()
        self._topology = topology

    def __missing__(self, user_id: UserId) -> int:
        if len(self) >= _REMEMBERED_USERS_MAX:
            self.clear()
        partition = self[user_id] = self._topology.user_partition(user_id)
        return partition


class _Fills:
    """What a taker did to its makers, and why it was stopped (0: it was not)."""

    __slots__ = ("completions", "met", "stopped", "trades", "updates")

    def __init__(self) -> None:
        self.trades: list[Trade] = []
        self.updates: list[OrderUpdate] = []
        self.completions: list[OrderCompletion] = []
        self.met: dict[UserId, Entries] = {}
        self.stopped = 0


class MatchingEngine:
    """The state of one symbol partition, and what an input does to it.

    `output_seq`, `last_hash` and `time_ns` are those of the last output, 0 before the first; `next_input_offset` is one
    past the last input's. State changes only in `apply`: an engine whose outputs could not be committed is thrown away.
    """

    __slots__ = (
        "_links_in",
        "_links_out",
        "_markets",
        "_orders",
        "last_hash",
        "next_input_offset",
        "output_seq",
        "partition",
        "time_ns",
        "user_partitions",
    )

    def __init__(self, topology: Topology, partition: int) -> None:
        self.partition = partition
        self.output_seq = 0
        self.last_hash = GENESIS_HASH
        self.time_ns = 0
        self.next_input_offset = 0
        self.user_partitions = _UserPartitions(topology)
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
        output_seq = self.output_seq + 1
        time_ns = self.time_ns
        if command.requested_at_ns > time_ns:
            time_ns = command.requested_at_ns
        # Exact types, because isinstance takes long to say no of a struct class.
        kind = type(command)
        if kind is PlaceOrder:
            effect = self._place(market, command, output_seq, time_ns)  # type: ignore[arg-type]
        elif kind is CancelOrder:
            effect = self._cancel(market, command, time_ns)  # type: ignore[arg-type]
        elif kind is ReduceOrder:
            effect = self._reduce(market, command, time_ns)  # type: ignore[arg-type]
        else:
            assert kind is ReplaceOrder
            effect = self._replace(market, command, output_seq, time_ns)  # type: ignore[arg-type]
        verdict, reason, entries, placements, updates, completions, refusals, trades, met = effect

        self._links_in[source] = expected
        self.output_seq = output_seq
        self.time_ns = time_ns
        user_id = command.user_id
        user_partition = self.user_partitions[user_id]
        links_out = self._links_out
        links_out[user_partition] = link_seq = links_out.get(user_partition, 0) + 1
        submitter = FundUpdate(
            self.partition,
            output_seq,
            link_seq,
            time_ns,
            user_id,
            command.request_id,
            verdict,
            reason,
            command.order_id,
            entries,
        )
        output = EngineOutput(
            self.partition,
            output_seq,
            self.last_hash,
            topic,
            partition,
            offset,
            order,
            time_ns,
            placements,
            updates,
            completions,
            refusals,
            trades,
            self._with_makers(submitter, met) if met else (submitter,),
        )
        value, self.last_hash = seal(output)
        self.next_input_offset = offset + 1
        # A named tuple's own constructor is a Python function, three times as slow.
        return _new_tuple(AppliedInput, (output, value, self.last_hash))

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
            if order.side not in (code.BUY, code.SELL) or not 0 <= order.filled_quantity < order.quantity:
                raise SnapshotError(f"order {order.order_id} cannot be resting: {order}")
            makers = market.makers[order.side]
            if makers.first(order.price * makers.sign) is not None:
                raise SnapshotError(f"order {order.order_id} rests although it crosses the book")
            market.sides[order.side].add(order)
        return engine

    def _place(self, market: Market, command: PlaceOrder, output_seq: int, time_ns: int) -> _Effect:
        # Half of all inputs come by here. A field is read once: reading all of an order's costs as much as making it.
        order_id, user_id, symbol_id = command.order_id, command.user_id, command.symbol_id
        side, order_type, time_in_force = command.side, command.order_type, command.time_in_force
        price, quantity, max_spend = command.price, command.quantity, command.max_spend
        client_order_id = command.request_id
        if not (
            quantity > 0
            and (side == code.BUY or side == code.SELL)
            and 0 <= time_in_force <= code.POST_ONLY
            and (price > 0 if order_type == code.LIMIT else order_type == code.MARKET and max_spend >= 0)
        ):
            raise _impossible(command)
        order = Order(
            order_id,
            user_id,
            symbol_id,
            time_ns,
            1,
            side,
            order_type,
            time_in_force,
            price,
            quantity,
            0,
            0,
            max_spend,
            client_order_id,
        )
        if order_id in self._orders:
            return self._refuse(market, order, code.DUPLICATE_ORDER_ID, time_ns)
        makers = market.makers[side]
        if (
            order_type == code.MARKET
            or time_in_force == code.IOC
            or time_in_force == code.FOK
            or makers.first(price * makers.sign) is not None
        ):
            return self._enter(market, order, code.PLACED, output_seq, time_ns)
        # The same as `_enter` does with an order that rests and meets nobody.
        market.sides[side].add(order)
        placement = OrderPlacement(
            order_id,
            user_id,
            symbol_id,
            time_ns,
            time_ns,
            1,
            code.NEW,
            0,
            side,
            order_type,
            time_in_force,
            price,
            quantity,
            0,
            0,
            max_spend,
            client_order_id,
        )
        return code.PLACED, 0, (), (placement,), (), (), (), (), None

    def _cancel(self, market: Market, command: CancelOrder, time_ns: int) -> _Effect:
        order = self._live_order(command.order_id, command)
        if order is None:
            return _NOTHING_DONE
        completions, entries = self._take_out(market, order, code.CANCELLED_BY_USER, time_ns)
        return code.VERDICT_CANCELLED, 0, entries, (), (), completions, (), (), None

    def _reduce(self, market: Market, command: ReduceOrder, time_ns: int) -> _Effect:
        order = self._live_order(command.order_id, command)
        if order is None:
            return _NOTHING_DONE
        quantity = command.quantity
        if quantity >= order.quantity:
            return code.INVALID, code.INVALID_REDUCTION, (), (), (), (), (), (), None
        if quantity <= order.filled_quantity:
            completions, entries = self._take_out(market, order, code.REASON_REDUCED, time_ns)
            return code.VERDICT_REDUCED, 0, entries, (), (), completions, (), (), None
        entries = market.release(order, market.need(order, order.quantity - quantity))
        order.quantity = quantity
        return code.VERDICT_REDUCED, 0, entries, (), (_updated(order, time_ns),), (), (), (), None

    def _replace(self, market: Market, command: ReplaceOrder, output_seq: int, time_ns: int) -> _Effect:
        is_possible = (
            command.quantity > 0
            and (command.side == code.BUY or command.side == code.SELL)
            and 0 <= command.time_in_force <= code.POST_ONLY
            and command.price > 0
        )
        if not is_possible:
            raise _impossible(command)
        order = Order(
            command.order_id,
            command.user_id,
            command.symbol_id,
            time_ns,
            1,
            command.side,
            code.LIMIT,
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
            refusal = _state(OrderRejected, order, 1, time_ns, code.REJECTED, code.REPLACED_ORDER_NOT_LIVE)
            entries = market.release(order, market.lock(order))
            return code.TOO_LATE, code.NOT_LIVE, entries, (), (), (), (refusal,), (), None
        # Asked before the replaced order leaves: an id does not live a second time, not even its own.
        is_duplicate = command.order_id in self._orders
        completions, entries = self._take_out(market, replaced, code.REASON_REPLACED, time_ns)
        if is_duplicate:
            return self._refuse(market, order, code.DUPLICATE_ORDER_ID, time_ns, completions, entries)
        return self._enter(market, order, code.VERDICT_REPLACED, output_seq, time_ns, completions, entries)

    def _live_order(self, order_id: OrderId, command: CancelOrder | ReduceOrder | ReplaceOrder) -> Order | None:
        order = self._orders.get(order_id)
        if order is None or order.user_id != command.user_id or order.symbol_id != command.symbol_id:
            return None
        return order

    def _take_out(
        self, market: Market, order: Order, reason: int, time_ns: int
    ) -> tuple[tuple[OrderCompletion], Entries]:
        """Complete a resting order as cancelled and release what it still locks."""
        market.sides[order.side].remove(order)
        return (_completed(order, time_ns, code.CANCELLED, reason),), market.release_rest(order)

    def _refuse(
        self,
        market: Market,
        order: Order,
        reason: int,
        time_ns: int,
        completions: tuple[OrderCompletion, ...] = (),
        entries: Entries = (),
    ) -> _Effect:
        refusal = _state(OrderRejected, order, 1, time_ns, code.REJECTED, reason)
        # Summed, because a replace to the replaced order's own id releases two locks under one id.
        released = summed(entries + market.release(order, market.lock(order)))
        return code.REFUSED, reason, released, (), (), completions, (refusal,), (), None

    def _enter(
        self,
        market: Market,
        order: Order,
        verdict: int,
        output_seq: int,
        time_ns: int,
        completions: tuple[OrderCompletion, ...] = (),
        entries: Entries = (),
    ) -> _Effect:
        """Take or refuse a new order; `completions` and `entries` are what the input did before."""
        side = order.side
        makers = market.makers[side]
        limit = NO_LIMIT if order.order_type == code.MARKET else order.price * makers.sign
        time_in_force = order.time_in_force
        meets = makers.first(limit) is not None
        if time_in_force == code.POST_ONLY and meets:
            return self._refuse(market, order, code.WOULD_CROSS, time_ns, completions, entries)
        if time_in_force == code.FOK and not _can_fill(market, order, limit):
            return self._refuse(market, order, code.CANNOT_FILL, time_ns, completions, entries)

        placements = (_state(OrderPlacement, order, 1, time_ns, code.NEW, 0),)
        rests = (time_in_force == code.GTC or time_in_force == code.POST_ONLY) and order.order_type == code.LIMIT
        if rests and not meets:
            market.sides[side].add(order)
            return verdict, 0, entries, placements, (), completions, (), (), None

        fills = _match(market, order, limit, output_seq, time_ns)
        rest = order.quantity - order.filled_quantity
        still_needed = 0
        if not rest:
            fills.completions.append(_completed(order, time_ns, code.FILLED, code.REASON_FILLED))
        elif fills.stopped or not rests or order.filled_quote + market.cost(order, rest) > INT64_MAX:
            reason = fills.stopped or (code.OVERFLOW if rests else code.UNFILLED_REST)
            fills.completions.append(_completed(order, time_ns, code.CANCELLED, reason))
        else:
            fills.updates.append(_updated(order, time_ns))
            still_needed = market.need(order, rest)
            market.sides[side].add(order)
        return (
            verdict,
            0,
            entries + market.settle_taker(order, still_needed),
            placements,
            tuple(fills.updates),
            completions + tuple(fills.completions),
            (),
            tuple(fills.trades),
            fills.met,
        )

    def _with_makers(self, submitter: FundUpdate, met: dict[UserId, Entries]) -> tuple[FundUpdate, ...]:
        """The submitter's fund update, then those of the users whose orders were met."""
        updates = [submitter]
        links_out = self._links_out
        for user_id, entries in met.items():
            user_partition = self.user_partitions[user_id]
            links_out[user_partition] = link_seq = links_out.get(user_partition, 0) + 1
            updates.append(
                FundUpdate(
                    self.partition, self.output_seq, link_seq, self.time_ns, user_id, "", 0, 0, NO_ORDER, entries
                )
            )
        return tuple(updates)


def _match(market: Market, taker: Order, limit: int, output_seq: int, time_ns: int) -> _Fills:
    """Trade with makers up to `limit`, in priority, until the taker is filled or stopped or there are no more."""
    fills = _Fills()
    makers = market.makers[taker.side]
    unit_atoms = market.tick_lot_atoms
    spends = taker.order_type == code.MARKET and taker.side == code.BUY
    rest = taker.quantity
    while rest and (maker := makers.first(limit)) is not None:
        if len(fills.trades) == MATCH_LIMIT:
            fills.stopped = code.MATCH_LIMIT
            break
        if maker.user_id == taker.user_id:
            fills.stopped = code.SELF_TRADE
            break
        price = maker.price
        maker_rest = maker.quantity - maker.filled_quantity
        quantity = min(rest, maker_rest)
        if spends:
            quantity = min(quantity, (taker.max_spend - taker.filled_quote) // (price * unit_atoms))
            if not quantity:
                fills.stopped = code.SPEND_LIMIT
                break

        quote = price * quantity * unit_atoms
        rest -= quantity
        taker.filled_quantity += quantity
        taker.filled_quote += quote
        maker.filled_quantity += quantity
        maker.filled_quote += quote
        fills.trades.append(
            Trade(
                # Calling TradeId would take as long as making the trade.
                output_seq * TRADE_IDS_PER_OUTPUT + len(fills.trades),  # type: ignore[arg-type]
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
        # A maker's lock is exactly what its fills cost: it has nothing to release.
        fills.met[maker.user_id] = fills.met.get(maker.user_id, ()) + market.settle(maker, quantity, quote)
        if quantity < maker_rest:
            fills.updates.append(_updated(maker, time_ns))
        else:
            makers.remove(maker)
            fills.completions.append(_completed(maker, time_ns, code.FILLED, code.REASON_FILLED))
    return fills


def _can_fill(market: Market, order: Order, limit: int) -> bool:
    """Whether matching would fill the order whole: counts as `_match` does, and changes nothing."""
    rest = order.quantity
    money = order.max_spend
    spends = order.order_type == code.MARKET and order.side == code.BUY
    for met, maker in enumerate(market.makers[order.side].within(limit)):
        if met == MATCH_LIMIT or maker.user_id == order.user_id:
            return False
        quantity = min(rest, maker.quantity - maker.filled_quantity)
        if spends:
            cost = maker.price * quantity * market.tick_lot_atoms
            if cost > money:
                return False
            money -= cost
        rest -= quantity
        if not rest:
            return True
    return False


def _impossible(command: PlaceOrder | ReplaceOrder) -> InvalidInputError:
    """For an order that the balance core must have rejected."""
    return InvalidInputError(f"order {command.order_id} cannot have been accepted: {command}")


def _updated(order: Order, time_ns: int) -> OrderUpdate:
    order.revision = revision = order.revision + 1
    status = code.PARTIALLY_FILLED if order.filled_quantity else code.NEW
    return _state(OrderUpdate, order, revision, time_ns, status, 0)


def _completed(order: Order, time_ns: int, status: int, reason: int) -> OrderCompletion:
    # The revision is not stored any more: nobody reads it again, and setting a struct's field is dear.
    return _state(OrderCompletion, order, order.revision + 1, time_ns, status, reason)


def _state(kind: type[_S], order: Order, revision: int, time_ns: int, status: int, reason: int) -> _S:
    return kind(
        order.order_id,
        order.user_id,
        order.symbol_id,
        order.created_at_ns,
        time_ns,
        revision,
        status,
        reason,
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
