"""A recorded feed of an order book, turned back into the requests that must have caused it.

A feed (ITCH, LOBSTER) says what happened in the book: an order was added, executed, reduced, deleted, replaced. Adds,
reductions, deletions and replacements are requests as they stand. An *execution* is the other half of a trade whose
taker never stood in the book, so the taker is made: an immediate-or-cancel order at the maker's price for what was
executed.

One taker may have swept several makers. Consecutive executions become one order where that is exact, which is to say
where that one order would execute just these makers: same instant, same symbol, same side, each price no better for the
taker than the one before, and every maker but the last executed to its end (a taker goes on only when its maker is
empty). Its limit is the last maker's price.

A feed names no users. Each order number belongs to a user by a fixed function of the number. Makers and
takers are different users, so that no made taker meets an order of its own; two recorded orders of one user still can,
where the recorded book is crossed.

Every order is funded: each user's deposit is the sum of what all of their orders lock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from schema.codes import Side, TimeInForce
from sim.flows.operations import CANCEL, DEPOSIT, PLACE, REDUCE, REPLACE, Operation
from sim.flows.report import FlowError

QUOTE_ASSET: Final = "USD"
QUANTITY_MAX: Final = 2**62
"""No user's and no market's funds in one asset go beyond this: balances stay inside a signed 64-bit column."""
OPERATIONS_MAX: Final = 5_000_000
SYMBOLS_MAX: Final = 10_000

NO_SUCH_ORDER: Final = "names an order that is not there"
NUMBER_USED: Final = "order number used before"
NO_QUANTITY: Final = "quantity is not positive"
NO_PRICE: Final = "price is not positive"
MORE_THAN_LEFT: Final = "takes more than is left of the order"
TOO_LARGE: Final = "funds would not fit 64 bits"
TOO_MANY_SYMBOLS: Final = f"more than {SYMBOLS_MAX} symbols"

_BUY: Final = int(Side.BUY)
_IOC: Final = int(TimeInForce.IOC)


def base_asset(symbol: str) -> str:
    """The asset that a recorded symbol trades. Not the bare name: there is a stock whose symbol is USD."""
    return f"{symbol}.SHARE"


@dataclass(slots=True)
class _Resting:
    """An order in the recorded book. `total` is its whole quantity as the exchange's own reduce counts it."""

    user_id: int
    symbol: str
    side: int
    price: int
    total: int
    remaining: int
    request_id: str


@dataclass(slots=True)
class _Taker:
    """A taker in the making: its executions so far."""

    at_ns: int
    symbol: str
    side: int
    price: int
    quantity: int
    reference: str
    reference_user_id: int
    may_go_on: bool


class BookFeed:
    """Collects the operations of a feed. Each method returns why the message cannot be applied, or "".

    Times are nanoseconds as recorded and must not be negative; time that runs backwards is held.
    """

    def __init__(self, source: str, users: int) -> None:
        if users < 1:
            raise ValueError(f"a flow needs at least 1 user, not {users}")
        users = max(2, users)
        self.takers = max(1, users // 4)
        self.makers = users - self.takers
        self.symbols: dict[str, int] = {}
        """Symbol names, numbered from 0 in the order of their first use."""
        self._source = source
        self._orders: dict[int, _Resting | None] = {}
        self._operations: list[Operation] = []
        self._funds: dict[tuple[int, str], int] = {}
        self._totals: dict[str, int] = {}
        self._taker: _Taker | None = None
        self._taken = 0
        self._numbered = 0
        self._now = 0

    def know_symbol(self, name: str) -> str:
        """Make the symbol part of the market, whether it is traded or not."""
        if name not in self.symbols:
            if len(self.symbols) >= SYMBOLS_MAX:
                return TOO_MANY_SYMBOLS
            self.symbols[name] = len(self.symbols)
        return ""

    def add(self, at_ns: int, number: int, symbol: str, side: int, quantity: int, price: int) -> str:
        """An order came into the book."""
        self._end_taker()
        if number in self._orders:
            return NUMBER_USED
        reason = _check(quantity, price) or self.know_symbol(symbol)
        if reason:
            return reason
        user_id = 1 + _spread(number) % self.makers
        if not self._fund(user_id, symbol, side, price, quantity):
            return TOO_LARGE
        request_id = str(number)
        self._orders[number] = _Resting(user_id, symbol, side, price, quantity, quantity, request_id)
        self._append(
            Operation(
                at_ns=self._time(at_ns),
                user_id=user_id,
                kind=PLACE,
                request_id=request_id,
                symbol=symbol,
                side=side,
                price=price,
                quantity=quantity,
                gateway=user_id,
            )
        )
        return ""

    def execute(self, at_ns: int, number: int, quantity: int) -> str:
        """A resting order traded with a taker."""
        order = self._orders.get(number)
        if order is None:
            self._end_taker()
            return NO_SUCH_ORDER
        if quantity < 1 or quantity > order.remaining:
            self._end_taker()
            return NO_QUANTITY if quantity < 1 else MORE_THAN_LEFT
        taker = self._taker
        if taker is not None and not self._continues(taker, at_ns, order):
            self._end_taker()
            taker = None
        if taker is None:
            taker = self._taker = _Taker(at_ns, order.symbol, 1 - order.side, order.price, 0, "", 0, True)
        if not self._has_room(taker.symbol, taker.side, order.price, taker.quantity + quantity):
            # The resting order's own funds fit, so this is a sweep too many, not an absurd number.
            self._end_taker()
            return TOO_LARGE
        taker.price = order.price
        taker.quantity += quantity
        # It must not overtake the order that it is to meet: clients wait for the answer to what they refer to.
        taker.reference = order.request_id
        taker.reference_user_id = order.user_id
        order.remaining -= quantity
        taker.may_go_on = order.remaining == 0
        if order.remaining == 0:
            self._orders[number] = None
        return ""

    def reduce(self, at_ns: int, number: int, by: int) -> str:
        """Part of a resting order was cancelled."""
        self._end_taker()
        order = self._orders.get(number)
        if order is None:
            return NO_SUCH_ORDER
        if by < 1 or by > order.remaining:
            return NO_QUANTITY if by < 1 else MORE_THAN_LEFT
        order.total -= by
        order.remaining -= by
        # A reduce to what is filled ends the order; one to nothing at all is a cancel.
        kind = REDUCE if order.total else CANCEL
        self._refer(at_ns, order, kind, order.total)
        if order.remaining == 0:
            self._orders[number] = None
        return ""

    def delete(self, at_ns: int, number: int) -> str:
        """A resting order was cancelled."""
        self._end_taker()
        order = self._orders.get(number)
        if order is None:
            return NO_SUCH_ORDER
        self._refer(at_ns, order, CANCEL, 0)
        self._orders[number] = None
        return ""

    def replace(self, at_ns: int, number: int, new_number: int, quantity: int, price: int) -> str:
        """A resting order was cancelled and another of the same user, symbol and side placed."""
        self._end_taker()
        order = self._orders.get(number)
        if order is None:
            return NO_SUCH_ORDER
        if new_number in self._orders:
            return NUMBER_USED
        reason = _check(quantity, price)
        if reason:
            return reason
        if not self._fund(order.user_id, order.symbol, order.side, price, quantity):
            return TOO_LARGE
        request_id = str(new_number)
        self._append(
            Operation(
                at_ns=self._time(at_ns),
                user_id=order.user_id,
                kind=REPLACE,
                request_id=request_id,
                symbol=order.symbol,
                reference=order.request_id,
                side=order.side,
                price=price,
                quantity=quantity,
                gateway=order.user_id,
            )
        )
        self._orders[number] = None
        self._orders[new_number] = _Resting(
            order.user_id, order.symbol, order.side, price, quantity, quantity, request_id
        )
        return ""

    def finish(self) -> list[Operation]:
        """All operations with their recorded times, without the deposits."""
        self._end_taker()
        return self._operations

    def deposits(self) -> list[Operation]:
        """What each user needs for all of their orders, in one deposit for each asset, all at time 0."""
        return [
            Operation(0, user_id, DEPOSIT, f"d{number}", asset=asset, amount=amount, gateway=user_id)
            for number, ((user_id, asset), amount) in enumerate(sorted(self._funds.items()), 1)
        ]

    # -- inside

    def _continues(self, taker: _Taker, at_ns: int, order: _Resting) -> bool:
        if not taker.may_go_on or at_ns != taker.at_ns or order.symbol != taker.symbol or order.side == taker.side:
            return False
        return order.price >= taker.price if taker.side == _BUY else order.price <= taker.price

    def _end_taker(self) -> None:
        taker = self._taker
        if taker is None:
            return
        self._taker = None
        if taker.quantity == 0:
            return
        self._taken += 1
        user_id = self.makers + 1 + _spread(self._taken) % self.takers
        self._fund(user_id, taker.symbol, taker.side, taker.price, taker.quantity)
        self._append(
            Operation(
                at_ns=self._time(taker.at_ns),
                user_id=user_id,
                kind=PLACE,
                request_id=f"t{self._taken}",
                symbol=taker.symbol,
                reference=taker.reference,
                reference_user_id=taker.reference_user_id,
                side=taker.side,
                time_in_force=_IOC,
                price=taker.price,
                quantity=taker.quantity,
                gateway=user_id,
            )
        )

    def _refer(self, at_ns: int, order: _Resting, kind: str, quantity: int) -> None:
        self._numbered += 1
        self._append(
            Operation(
                at_ns=self._time(at_ns),
                user_id=order.user_id,
                kind=kind,
                request_id=f"{kind[0]}{self._numbered}",
                symbol=order.symbol,
                reference=order.request_id,
                quantity=quantity,
                gateway=order.user_id,
            )
        )

    def _has_room(self, symbol: str, side: int, price: int, quantity: int) -> bool:
        asset, atoms = _lock(symbol, side, price, quantity)
        return self._totals.get(asset, 0) + atoms <= QUANTITY_MAX

    def _fund(self, user_id: int, symbol: str, side: int, price: int, quantity: int) -> bool:
        asset, atoms = _lock(symbol, side, price, quantity)
        total = self._totals.get(asset, 0) + atoms
        if total > QUANTITY_MAX:
            return False
        self._totals[asset] = total
        self._funds[user_id, asset] = self._funds.get((user_id, asset), 0) + atoms
        return True

    def _time(self, at_ns: int) -> int:
        if at_ns > self._now:
            self._now = at_ns
        return self._now

    def _append(self, operation: Operation) -> None:
        if len(self._operations) >= OPERATIONS_MAX:
            raise FlowError(f"{self._source}: more than {OPERATIONS_MAX:,} operations; take a part of the file")
        self._operations.append(operation)


def _lock(symbol: str, side: int, price: int, quantity: int) -> tuple[str, int]:
    """The asset and atoms that an order locks: recorded symbols have one atom a lot, and one a lot at a tick."""
    if side == _BUY:
        return QUOTE_ASSET, price * quantity
    return base_asset(symbol), quantity


def _check(quantity: int, price: int) -> str:
    if quantity < 1:
        return NO_QUANTITY
    return NO_PRICE if price < 1 else ""


def _spread(number: int) -> int:
    """A fixed scattering of order numbers, which come in runs, over the users (Fibonacci hashing)."""
    return (number * 0x9E3779B97F4A7C15 & 0xFFFF_FFFF_FFFF_FFFF) >> 32
