"""A synthetic flow of client operations, shaped like a real market (design 8, Clients).

The generator keeps no book: it knows what clients would know, the middle of the market as they see it and the orders
they have sent, and not what has become of them. Every operation is drawn from streams named "flow/..." of the run's
randomness, in an order that depends on nothing else, so the flow of a seed is the same whatever the run does.

What it is made of, and the figures:

- *Deposits* come first, one for each user and asset. Most users could keep all their orders resting; one in eight has
  enough for little at a time, and now and then somebody orders a thousand times too much: both are refused.
- *Arrivals* come in bursts whose size is a power law, as real order flow is clustered; within a burst they are
  fractions of a millisecond apart.
- The *middle* of each market walks by single ticks, and now and then jumps.
- *Prices* lie at a power-law distance from the middle, with exponent 2.2: most at the touch, a few far away.
- *Kinds*: see `_ORDER_KINDS`. About 15% immediate-or-cancel, some fill-or-kill, post-only and market orders.
- *Lives*: a fifth of the orders is reduced or replaced. Four of five resting orders are cancelled, most of them soon,
  the others late; the rest is left to the market.
- *Accidents*: a cancel sent together with the order that would fill what it cancels; a user meeting their own order; a
  request sent again at another gateway; a request id used again for another body; a request about another
  user's order; hostile bytes; withdrawals of more than there is; reads of every kind in the middle of it all.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import accumulate
from math import isqrt
from typing import Final

from schema.codes import OrderType, Side, TimeInForce
from schema.symbols import Symbol
from schema.topics import Topology
from sim.flows.hostile import hostile_request
from sim.flows.market import first_price
from sim.flows.operations import (
    CANCEL,
    DEPOSIT,
    NOT_REPEATED,
    PLACE,
    RAW,
    READ,
    REDUCE,
    REPLACE,
    WITHDRAW,
    Operation,
)
from sim.randomness import Randomness

_US: Final = 1_000
_MS: Final = 1_000_000
_SECOND: Final = 1_000_000_000

GTC: Final = int(TimeInForce.GTC)
IOC: Final = int(TimeInForce.IOC)
FOK: Final = int(TimeInForce.FOK)
POST_ONLY: Final = int(TimeInForce.POST_ONLY)
BUY: Final = int(Side.BUY)
SELL: Final = int(Side.SELL)
LIMIT: Final = int(OrderType.LIMIT)
MARKET: Final = int(OrderType.MARKET)

_ORDER_KINDS: Final = (
    # (order type, time in force, whether it is priced to trade at once, share in thousandths)
    (LIMIT, GTC, False, 590),
    (LIMIT, GTC, True, 80),
    (LIMIT, IOC, True, 150),
    (LIMIT, FOK, True, 40),
    (LIMIT, POST_ONLY, False, 70),
    (LIMIT, POST_ONLY, True, 20),
    (MARKET, IOC, True, 50),
)
_KIND_OF_THOUSANDTH: Final = tuple(kind[:3] for kind in _ORDER_KINDS for _ in range(kind[3]))

# Distances from the middle, in ticks: likelihood x ** -(11/5).
_DISTANCE: Final = (1, 2_000, 11, 5)
# Quantities in lots: likelihood x ** -(3/2); the mean is about 15.
_QUANTITY: Final = (1, 400, 3, 2)
_MEAN_QUANTITY: Final = 15
# Orders in a burst: likelihood x ** -2.
_BURST: Final = (1, 64, 2, 1)
_BURST_GAP_NS: Final = 250 * _US
# A jump of the middle, in ticks.
_JUMP: Final = (5, 200, 3, 2)

# Parts per million of the orders.
_MIDDLE_MOVES: Final = 300_000
_MIDDLE_JUMPS: Final = 3_000
_CANCEL_RACES: Final = 30_000
_OWN_MEETINGS: Final = 20_000
_READS: Final = 180_000
_FUNDS_REQUESTS: Final = 15_000
_HOSTILE: Final = 15_000
_REUSES: Final = 6_000
_TRESPASSES: Final = 6_000
_FAT_FINGERS: Final = 8_000
# Parts per million of the orders that may rest.
_AMENDED: Final = 262_000
_CANCELLED: Final = 800_000
_SHORT_LIVED: Final = 600_000
# Parts per million of all requests.
_REPEATED: Final = 40_000

_POOR_USERS: Final = 125_000
_POOR_ORDERS: Final = 1
_FAT_FINGER_FACTOR: Final = 1_000
_RECENT_ORDERS: Final = 12
"""Accidents happen to one of so many orders sent last: older ones are mostly gone."""
_FUNDS_PER_ASSET_MAX: Final = 2**61
"""All users' first deposits in one asset together: sums over the whole market stay far inside 64 bits."""

_QUERIES: Final = ("active_orders",) * 5 + ("order",) * 2 + ("history", "trades", "balances")
_QUERIES_OF_A_SYMBOL: Final = ("history", "trades")
_LOOKS_AT_AN_ORDER: Final = 4
_LIMITS: Final = (1_000, 1_000, 100, 3)


@dataclass(slots=True)
class _Known:
    """An order that the flow has sent, and that another operation may be about."""

    user_id: int
    market: _Market
    side: int
    price: int
    quantity: int
    request_id: str


@dataclass(slots=True, eq=False)
class _Market:
    """A symbol and the middle of its market, in ticks, as the clients see it."""

    symbol: Symbol
    name: str
    middle: int
    lowest: int


def synthetic_flow(
    randomness: Randomness, topology: Topology, *, orders: int, users: int, duration_ns: int
) -> Iterator[Operation]:
    """The operations of a seed, in order of time: `orders` new orders with everything around them.

    The flow takes `duration_ns`: deposits in the first twentieth (at most 500 ms), then orders, nothing after its end.
    Users are 1 to `users`. What is held in memory is only what lies ahead: the follow-ups of orders not yet finished.
    """
    if orders < 0 or users < 1 or duration_ns < _MS:
        raise ValueError(
            f"a flow needs orders >= 0, users >= 1 and a duration of 1 ms, not {orders}, {users}, {duration_ns}"
        )
    return _SyntheticFlow(randomness, topology, orders, users, duration_ns).operations()


class _SyntheticFlow:
    """The state of the generator. The methods are called in one fixed order, and each draws from streams of its own."""

    def __init__(self, randomness: Randomness, topology: Topology, orders: int, users: int, duration_ns: int) -> None:
        self.topology = topology
        self.orders = orders
        self.users = users
        self.duration_ns = duration_ns
        self.lead_ns = min(duration_ns // 20, _SECOND // 2)
        self.arrivals = randomness.stream("flow/arrivals")
        self.prices = randomness.stream("flow/prices")
        self.draws = randomness.stream("flow/orders")
        self.lives = randomness.stream("flow/lives")
        self.repeats = randomness.stream("flow/repeats")
        self.reads = randomness.stream("flow/reads")
        self.accidents = randomness.stream("flow/accidents")
        self.hostility = randomness.stream("flow/hostile")
        self.funding = randomness.stream("flow/deposits")
        self.markets = []
        for symbol in topology.symbols:
            price = first_price(symbol)
            self.markets.append(_Market(symbol, symbol.name, price, max(2, price // 4)))
        # The first users and symbols are the busiest: activity falls off with the square root of the rank.
        self.user_weights = _rank_weights(users)
        self.user_bounds = list(accumulate(self.user_weights))
        self.market_bounds = list(accumulate(_rank_weights(len(self.markets))))
        self.recent: deque[_Known] = deque(maxlen=_RECENT_ORDERS)
        self.ahead: list[tuple[int, int, Operation]] = []
        self.numbered = 0
        self.added = 0

    def operations(self) -> Iterator[Operation]:
        yield from self._deposits()
        ahead = self.ahead
        for at_ns in self._arrivals():
            self._order(at_ns)
            while ahead and ahead[0][0] <= at_ns:
                yield heappop(ahead)[2]
        while ahead:
            yield heappop(ahead)[2]

    # -- money

    def _deposits(self) -> Iterator[Operation]:
        """One deposit for each user and asset, evenly spread over the lead, users in random order."""
        need: dict[str, int] = {}
        for market in self.markets:
            symbol = market.symbol
            for asset, atoms in (
                (symbol.quote.name, symbol.quote_atoms(2 * market.middle, _MEAN_QUANTITY)),
                (symbol.base.name, symbol.base_atoms(_MEAN_QUANTITY)),
            ):
                need[asset] = max(need.get(asset, 0), atoms)
        total_weight = sum(self.user_weights)
        ceiling = _FUNDS_PER_ASSET_MAX // self.users
        count = self.users * len(need)
        made = 0
        for user_id in self.funding.shuffled(range(1, self.users + 1)):
            if self.funding.chance_ppm(_POOR_USERS):
                covered = _POOR_ORDERS
            else:
                covered = 20 + 3 * self.orders * self.user_weights[user_id - 1] // total_weight
            for asset, atoms in need.items():
                made += 1
                at_ns = self.lead_ns * made // (count + 1)
                amount = min(covered * atoms, ceiling)
                yield self._operation(at_ns, user_id, DEPOSIT, self._name("d"), asset=asset, amount=amount)

    def _funds_request(self, at_ns: int, user_id: int, market: _Market) -> None:
        """A withdrawal, of a little or of far too much, or another deposit."""
        draw = self.funding.below(10)
        asset = market.symbol.quote if draw & 1 else market.symbol.base
        unit = market.symbol.tick_lot_atoms * market.middle if draw & 1 else market.symbol.lot_atoms
        amount = unit * (1 + self.funding.below(5))
        kind = DEPOSIT if draw < 3 else WITHDRAW
        if draw == 9:
            amount = _FUNDS_PER_ASSET_MAX
        self._add(self._operation(at_ns, user_id, kind, self._name("w"), asset=asset.name, amount=amount))

    # -- time

    def _arrivals(self) -> Iterator[int]:
        """The times of the orders, in order. Bursts begin at random in equal shares of the time."""
        span = self.duration_ns - self.lead_ns
        per_order = span // (self.orders + 1)
        gap = min(_BURST_GAP_NS, max(1, per_order // 4))
        placed = 0
        at_ns = self.lead_ns
        while placed < self.orders:
            size = min(self.arrivals.power_law(*_BURST), self.orders - placed)
            at_ns = max(at_ns, self.lead_ns + span * placed // self.orders + self.arrivals.below(per_order * size + 1))
            for _ in range(size):
                at_ns = min(at_ns + self.arrivals.exponential(gap), self.duration_ns - 1)
                yield at_ns
            placed += size

    # -- orders

    def _order(self, at_ns: int) -> None:
        """One new order, and what goes with it."""
        draws = self.draws
        user_id = 1 + bisect_right(self.user_bounds, draws.below(self.user_bounds[-1]))
        market = self.markets[bisect_right(self.market_bounds, draws.below(self.market_bounds[-1]))]
        self._move(market)
        accident = self.accidents.below(1_000_000)
        if self.recent and accident < _CANCEL_RACES + _OWN_MEETINGS:
            target = self.recent[-1 - self.accidents.below(len(self.recent))]
            if accident < _CANCEL_RACES:
                self._cancel_race(at_ns, user_id, target)
            else:
                self._own_meeting(at_ns, target)
            return
        order_type, time_in_force, crosses = _KIND_OF_THOUSANDTH[draws.below(1_000)]
        side = draws.bits(1)
        distance = draws.power_law(*_DISTANCE)
        quantity = draws.power_law(*_QUANTITY)
        if self.accidents.below(1_000_000) < _FAT_FINGERS:
            quantity *= _FAT_FINGER_FACTOR
        # Buyers who want to trade at once pay more than the middle, those who wait less; sellers the other way round.
        price = market.middle + (distance if crosses == (side == BUY) else -distance)
        if price < 1:
            price = 1
        max_spend = 0
        if order_type == MARKET:
            if side == BUY:
                # 90% of what it costs at the middle, now and then, so that the limit cuts the order short.
                percent = 90 + draws.below(60)
                max_spend = market.symbol.quote_atoms(market.middle, quantity) * percent // 100
            price = 0
        known = self._place(at_ns, user_id, market, side, order_type, time_in_force, price, quantity, max_spend)
        if time_in_force in (GTC, POST_ONLY):
            self.recent.append(known)
            self._life(at_ns, known)
        self._surroundings(at_ns, known)

    def _place(
        self,
        at_ns: int,
        user_id: int,
        market: _Market,
        side: int,
        order_type: int,
        time_in_force: int,
        price: int,
        quantity: int,
        max_spend: int = 0,
    ) -> _Known:
        request_id = self._name("o")
        bits = self.repeats.bits
        self._add(
            Operation(
                at_ns=at_ns,
                user_id=user_id,
                kind=PLACE,
                request_id=request_id,
                symbol=market.name,
                side=side,
                order_type=order_type,
                time_in_force=time_in_force,
                price=price,
                quantity=quantity,
                max_spend=max_spend,
                gateway=bits(8),
                repeat_after_ns=self._repeat_after_ns(),
            )
        )
        return _Known(user_id, market, side, price, quantity, request_id)

    def _move(self, market: _Market) -> None:
        """Let the middle of the market move, or not."""
        draw = self.prices.below(1_000_000)
        if draw >= _MIDDLE_MOVES:
            return
        step = self.prices.power_law(*_JUMP) if draw < _MIDDLE_JUMPS else 1
        middle = market.middle + (step if self.prices.bits(1) else -step)
        market.middle = max(middle, market.lowest)

    def _life(self, at_ns: int, order: _Known) -> None:
        """What becomes of an order that may rest, as far as its owner decides: amended, cancelled, or left alone."""
        lives = self.lives
        draw = lives.below(1_000_000)
        mean_ns = self.duration_ns // (200 if draw % 1_000 < _SHORT_LIVED // 1_000 else 6)
        life_ns = _MS + lives.exponential(mean_ns)
        if lives.chance_ppm(_AMENDED):
            amended_ns = at_ns + life_ns * (1 + lives.below(8)) // 10
            if order.quantity > 1 and lives.bits(1):
                self._reduce(amended_ns, order)
            else:
                order = self._replace(amended_ns, order)
        if draw < _CANCELLED:
            self._follow_up(at_ns + life_ns, order, CANCEL)

    def _reduce(self, at_ns: int, order: _Known) -> None:
        # One in thirty asks for what the order has already, which is no reduction.
        quantity = order.quantity if self.lives.below(30) == 0 else 1 + self.lives.below(order.quantity - 1)
        self._follow_up(at_ns, order, REDUCE, quantity=quantity)

    def _replace(self, at_ns: int, order: _Known) -> _Known:
        """The order again, at another price or quantity, under a new request id."""
        lives = self.lives
        price = max(1, order.price + lives.below(11) - 5)
        quantity = lives.power_law(*_QUANTITY)
        time_in_force = (GTC, GTC, GTC, GTC, GTC, POST_ONLY, POST_ONLY, IOC)[lives.bits(3)]
        request_id = self._name("r")
        self._add_before_end(
            self._operation(
                at_ns,
                order.user_id,
                REPLACE,
                request_id,
                symbol=order.market.name,
                reference=order.request_id,
                side=order.side,
                time_in_force=time_in_force,
                price=price,
                quantity=quantity,
            )
        )
        return _Known(order.user_id, order.market, order.side, price, quantity, request_id)

    def _follow_up(self, at_ns: int, order: _Known, kind: str, *, quantity: int = 0) -> None:
        if at_ns < self.duration_ns:
            self._add(
                Operation(
                    at_ns=at_ns,
                    user_id=order.user_id,
                    kind=kind,
                    request_id=self._name("x"),
                    symbol=order.market.name,
                    reference=order.request_id,
                    quantity=quantity,
                    gateway=self.repeats.bits(8),
                    repeat_after_ns=self._repeat_after_ns(),
                )
            )

    # -- accidents

    def _cancel_race(self, at_ns: int, user_id: int, target: _Known) -> None:
        """An order that would fill `target` whole, and `target`'s cancel, sent at one instant."""
        if user_id == target.user_id:
            user_id = 1 + user_id % self.users
        self._follow_up(at_ns, target, CANCEL)
        order = self._place(at_ns, user_id, target.market, 1 - target.side, LIMIT, IOC, target.price, target.quantity)
        self._surroundings(at_ns, order)

    def _own_meeting(self, at_ns: int, target: _Known) -> None:
        """A user's order that would trade with another of their own."""
        time_in_force = (IOC, IOC, GTC, FOK)[self.accidents.bits(2)]
        order = self._place(
            at_ns, target.user_id, target.market, 1 - target.side, LIMIT, time_in_force, target.price, target.quantity
        )
        self._surroundings(at_ns, order)

    def _surroundings(self, at_ns: int, order: _Known) -> None:
        """What happens beside an order: reads, hostile requests, misused request ids, money in and out."""
        draw = self.reads.below(1_000_000)
        if draw < _READS:
            self._read(at_ns, order)
        draw = self.accidents.below(1_000_000)
        if draw < _HOSTILE:
            request_id = self._name("h")
            raw = hostile_request(self.hostility, order.market.symbol, order.user_id, request_id)
            self._add(Operation(at_ns, order.user_id, RAW, request_id, raw=raw, gateway=self.hostility.bits(8)))
            return
        draw -= _HOSTILE
        if draw < _FUNDS_REQUESTS:
            self._funds_request(at_ns, order.user_id, order.market)
            return
        draw -= _FUNDS_REQUESTS
        if draw < _REUSES:
            self._reuse(at_ns, order)
            return
        draw -= _REUSES
        if draw < _TRESPASSES and self.users > 1:
            self._trespass(at_ns, order)

    def _reuse(self, at_ns: int, order: _Known) -> None:
        """The order's request id again, for twice the quantity: refused, whatever became of the order."""
        self._add_before_end(
            self._operation(
                at_ns + self.accidents.exponential(20 * _MS),
                order.user_id,
                PLACE,
                order.request_id,
                symbol=order.market.name,
                reference=order.request_id,
                side=order.side,
                price=max(order.price, 1),
                quantity=2 * order.quantity,
            )
        )

    def _trespass(self, at_ns: int, order: _Known) -> None:
        """Somebody else tries to cancel the order, or to read it."""
        kind = CANCEL if self.accidents.bits(1) else READ
        self._add_before_end(
            Operation(
                at_ns=at_ns + self.accidents.exponential(20 * _MS),
                user_id=1 + order.user_id % self.users,
                kind=kind,
                request_id=self._name("t"),
                symbol=order.market.name if kind == CANCEL else "",
                reference=order.request_id,
                reference_user_id=order.user_id,
                query="order" if kind == READ else "",
                gateway=self.accidents.bits(8),
            )
        )

    def _read(self, at_ns: int, order: _Known) -> None:
        """The order's owner looks, soon after or much later; one who watches a single order looks again and again."""
        reads = self.reads
        draw = reads.bits(8)
        query = _QUERIES[draw % 10]
        symbol = ""
        if query in _QUERIES_OF_A_SYMBOL or (query == "active_orders" and draw & 64):
            symbol = order.market.name
        looks = _LOOKS_AT_AN_ORDER if query == "order" else 1
        for _ in range(looks):
            at_ns += reads.exponential(self.duration_ns // 8 if draw & 128 else 10 * _MS)
            self._add_before_end(
                Operation(
                    at_ns=at_ns,
                    user_id=order.user_id,
                    kind=READ,
                    request_id=self._name("q"),
                    symbol=symbol,
                    reference=order.request_id if query == "order" else "",
                    query=query,
                    limit=_LIMITS[reads.bits(2)],
                    gateway=reads.bits(8),
                )
            )

    # -- small change

    def _name(self, letter: str) -> str:
        self.numbered += 1
        return f"{letter}{self.numbered}"

    def _repeat_after_ns(self) -> int:
        """When the same request goes out once more: hardly ever; then at once, while it is under way, or later."""
        repeats = self.repeats
        if repeats.below(1_000_000) >= _REPEATED:
            return NOT_REPEATED
        return repeats.exponential((_MS // 10, 5 * _MS, 5 * _MS, 400 * _MS)[repeats.bits(2)])

    def _operation(
        self,
        at_ns: int,
        user_id: int,
        kind: str,
        request_id: str,
        *,
        symbol: str = "",
        asset: str = "",
        reference: str = "",
        side: int = 0,
        time_in_force: int = GTC,
        price: int = 0,
        quantity: int = 0,
        amount: int = 0,
    ) -> Operation:
        """The less frequent requests. Which gateway, and whether it is repeated, is drawn here."""
        return Operation(
            at_ns=at_ns,
            user_id=user_id,
            kind=kind,
            request_id=request_id,
            symbol=symbol,
            asset=asset,
            reference=reference,
            side=side,
            time_in_force=time_in_force,
            price=price,
            quantity=quantity,
            amount=amount,
            gateway=self.repeats.bits(8),
            repeat_after_ns=self._repeat_after_ns(),
        )

    def _add(self, operation: Operation) -> None:
        self.added += 1
        heappush(self.ahead, (operation.at_ns, self.added, operation))

    def _add_before_end(self, operation: Operation) -> None:
        if operation.at_ns < self.duration_ns:
            self._add(operation)


def _rank_weights(count: int) -> list[int]:
    """A weight for each rank, falling off with its square root."""
    return [max(1, isqrt(2**40 // rank)) for rank in range(1, count + 1)]
