"""One symbol's order book: who stands first on each side, in price-time priority (design section 4.1.6).

The book knows prices, arrival and nothing else: it does not match, it is asked who is first. Three ideas make it fast
in plain Python:

* A level is a queue of orders in arrival order. An order that leaves is only marked (`has_left`); its dead place is
  passed by when it comes to the front, and dropped when half of the queue are such places. So leaving costs no search.
  The first order at a price is its own level until a second one comes: in a deep book most orders stay alone.
* A side finds its best level by a heap of keys, where the smaller key is the better price: the price itself for sells,
  its negative for buys. An emptied level stays, to be filled again, until it comes to the top of the heap, or until
  half of the levels are empty. So a price that flickers costs nothing, and memory stays linear in the live orders.
* Orders are msgspec structs, which are made three times as fast as slotted classes; nothing refers back to the level or
  the book, so no reference cycles arise and the collector need not look at them.
"""

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, ClassVar, Final, final

import msgspec

from schema.codes import Side
from schema.identifiers import INT64_MAX, OrderId, SymbolId, UserId

NO_LIMIT: Final = INT64_MAX
"""The key that no price is beyond."""

_SLACK: Final = 32
"""Dead places that are tolerated in any queue or heap, so that small ones are not tidied all the time."""


class Order(msgspec.Struct, gc=False, array_like=True):
    """An order while it lives, or while it is being matched. The price of a resting order never changes.

    Units as in schema.events.OrderState. `has_left` marks its dead place in the queue of a level that lives on.
    """

    order_id: OrderId
    user_id: UserId
    symbol_id: SymbolId
    created_at_ns: int
    revision: int
    side: int
    order_type: int
    time_in_force: int
    price: int
    quantity: int
    filled_quantity: int
    filled_quote: int
    max_spend: int
    client_order_id: str
    has_left: bool = False

    live: ClassVar[int] = 1
    """An order that is its own level has one live order."""


@final
class _Level(list[Order]):
    """All orders of one side at one price in order of arrival, dead places included; before `head` all are dead.

    `live` counts the others. A class with slots, not a struct: setting a struct's field takes four times as long, and
    these are set all the time. Both are set by whoever makes a level: a constructor would cost as much as the rest.
    """

    __slots__ = ("head", "live")
    head: int
    live: int


_EMPTY: Final = _Level()
"""Stands where the only order at a price left. Never changed."""
_EMPTY.head = _EMPTY.live = 0


class BookSide:
    """One side of a book, whose orders are also in `orders`, by id."""

    __slots__ = ("_empty_levels", "_heap", "_levels", "_orders", "sign")

    def __init__(self, side: int, orders: dict[OrderId, Order]) -> None:
        # A price times the sign is its key: the smaller key is the better price for whoever meets this side.
        self.sign = 1 if side == Side.SELL else -1
        self._orders = orders
        # By price, not by key: most messages come by here and few look for the best.
        self._levels: dict[int, Order | _Level] = {}
        # The keys of all levels, each once.
        self._heap: list[int] = []
        self._empty_levels = 0

    def add(self, order: Order) -> None:
        """Let an order rest, behind all others of its price.

        Its id must not be in `orders`, and an order that left the book never comes back: its old place may still stand.
        """
        self._orders[order.order_id] = order
        price = order.price
        level = self._levels.get(price)
        if level is None:
            self._levels[price] = order
            heappush(self._heap, price * self.sign)
        elif level is _EMPTY:
            self._levels[price] = order
            self._empty_levels -= 1
        elif type(level) is _Level:
            level.append(order)
            live = level.live
            level.live = live + 1
            if not live:
                self._empty_levels -= 1
        else:
            self._levels[price] = both = _Level((level, order))
            both.head = 0
            both.live = 2

    def remove(self, order: Order) -> None:
        """Take a resting order out, wherever it stands. Raises KeyError when it does not rest."""
        del self._orders[order.order_id]
        level = self._levels[order.price]
        if level is order:
            self._levels[order.price] = _EMPTY
        else:
            if TYPE_CHECKING:
                # Not asked in earnest, because that would take as long as the next line.
                assert isinstance(level, _Level)
            level.live = live = level.live - 1
            if live:
                order.has_left = True
                if len(level) > 2 * live + _SLACK:
                    level[:] = [each for each in level if not each.has_left]
                    level.head = 0
                return
            level.clear()
            level.head = 0
        self._empty_levels = empty = self._empty_levels + 1
        if empty > _SLACK and 2 * empty > len(self._levels):
            self._drop_empty_levels()

    def first(self, limit: int = NO_LIMIT) -> Order | None:
        """The order with the highest priority, None when there is none with a key up to `limit`."""
        heap = self._heap
        while heap and heap[0] <= limit:
            price = heap[0] * self.sign
            level = self._levels[price]
            if type(level) is not _Level:
                return level
            if level.live:
                order = level[level.head]
                while order.has_left:
                    level.head += 1
                    order = level[level.head]
                return order
            del self._levels[price]
            heappop(heap)
            self._empty_levels -= 1
        return None

    def within(self, limit: int = NO_LIMIT) -> Iterator[Order]:
        """Live orders with a key up to `limit`, in priority. The side must not change while this goes on.

        Walks the heap best first and visits only what is asked for, so looking at the best few costs little in a deep
        book.
        """
        heap = self._heap
        frontier = [(heap[0], 0)] if heap else []
        while frontier:
            key, place = heappop(frontier)
            if key > limit:
                return
            level = self._levels[key * self.sign]
            for order in level if isinstance(level, _Level) else (level,):
                if not order.has_left:
                    yield order
            for child in range(2 * place + 1, min(2 * place + 3, len(heap))):
                heappush(frontier, (heap[child], child))

    def _drop_empty_levels(self) -> None:
        self._levels = {
            price: level for price, level in self._levels.items() if type(level) is not _Level or level.live
        }
        self._heap = [price * self.sign for price in self._levels]
        heapify(self._heap)
        self._empty_levels = 0


class OrderBook:
    """Both sides of one symbol's book, and its orders by id.

    `sides` has them by the side of the orders that rest there, `makers` by the side of an incoming order that meets
    them. `orders` may be shared by several books, where ids must be unique across them.
    """

    __slots__ = ("makers", "orders", "sides")

    def __init__(self, orders: dict[OrderId, Order] | None = None) -> None:
        self.orders = {} if orders is None else orders
        bids, asks = BookSide(Side.BUY, self.orders), BookSide(Side.SELL, self.orders)
        self.sides = (bids, asks)
        self.makers = (asks, bids)

    def __iter__(self) -> Iterator[Order]:
        """Bids, then asks, each in priority. The book must not change while this goes on."""
        for side in self.sides:
            yield from side.within()
