"""How many messages a second the order book takes (design section 11).

A message is what an exchange's book is told: add an order (which first takes from the other side what it crosses),
cancel one, lower one's quantity, or move one to another price. Flows come from a fixed seed; making them is not timed.
"""

import gc
from collections.abc import Callable
from random import Random
from statistics import median
from time import process_time
from typing import Final

from engine.book import Order, OrderBook
from schema.codes import OrderType, Side, TimeInForce
from schema.identifiers import OrderId, SymbolId, UserId

ADD: Final = 0
CANCEL: Final = 1
REDUCE: Final = 2
MOVE: Final = 3
Message = tuple[int, OrderId, int, int, int]
"""Kind, order id, side, price, quantity. Ids have their type already, as decoded ones have: giving it is a call."""

_BUY, _SELL = int(Side.BUY), int(Side.SELL)
_LIMIT, _GTC = int(OrderType.LIMIT), int(TimeInForce.GTC)
_MIDDLE = 100_000


class _Flow:
    """Makes messages that refer to orders which may still live; like a real feed it does not know which have traded."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.messages: list[Message] = []
        self._open: list[tuple[OrderId, int, int, int]] = []
        self._last_id = 0

    @property
    def open_orders(self) -> int:
        return len(self._open)

    def add(self, side: int, distance: int, quantity: int) -> None:
        """An order `distance` ticks behind the middle, before it if negative."""
        self._last_id += 1
        order_id = OrderId(self._last_id)
        price = _MIDDLE - distance if side == _BUY else _MIDDLE + distance
        self.messages.append((ADD, order_id, side, price, quantity))
        self._open.append((order_id, side, price, quantity))

    def cancel(self) -> None:
        order_id, side, price, quantity = self._take()
        self.messages.append((CANCEL, order_id, side, price, quantity))

    def reduce(self) -> None:
        order_id, side, price, quantity = self._take()
        lower = max(1, quantity - 1)
        self.messages.append((REDUCE, order_id, side, price, lower))
        self._open.append((order_id, side, price, lower))

    def move(self) -> None:
        order_id, side, price, quantity = self._take()
        price += self.random.choice((-2, -1, 1, 2))
        self.messages.append((MOVE, order_id, side, price, quantity))
        self._open.append((order_id, side, price, quantity))

    def _take(self) -> tuple[OrderId, int, int, int]:
        """Take out an open order, recent ones more often: most cancels come soon after the add."""
        count = len(self._open)
        place = count - 1 - min(int(self.random.expovariate(1 / 200)), count - 1)
        self._open[place], self._open[-1] = self._open[-1], self._open[place]
        return self._open.pop()


def realistic_flow(count: int, seed: int = 1) -> list[Message]:
    """Half adds, most of the rest cancels; prices gather at the best, one add in fifteen takes."""
    flow = _Flow(seed)
    random = flow.random
    while len(flow.messages) < count:
        what = random.random()
        if what < 0.48 or flow.open_orders < 500:
            crossing = random.random() < 0.07
            distance = -random.randrange(1, 4) if crossing else 1 + min(int(random.expovariate(1 / 12)), 400)
            flow.add(random.randrange(2), distance, random.randrange(1, 50))
        elif what < 0.90:
            flow.cancel()
        elif what < 0.95:
            flow.reduce()
        else:
            flow.move()
    return flow.messages


def deep_flow(count: int, seed: int = 2) -> list[Message]:
    """A book of thousands of price levels, most of them holding one order or two."""
    flow = _Flow(seed)
    random = flow.random
    while len(flow.messages) < count:
        if random.random() < 0.55 or flow.open_orders < 5_000:
            flow.add(random.randrange(2), 1 + random.randrange(20_000), random.randrange(1, 50))
        else:
            flow.cancel()
    return flow.messages


def cancel_flow(count: int, seed: int = 3) -> list[Message]:
    """Market makers that put orders in and take them out again; nothing trades."""
    flow = _Flow(seed)
    random = flow.random
    while len(flow.messages) < count:
        if random.random() < 0.5 or flow.open_orders < 100:
            flow.add(random.randrange(2), 1 + random.randrange(30), random.randrange(1, 50))
        else:
            flow.cancel()
    return flow.messages


def moving_flow(count: int, seed: int = 4) -> list[Message]:
    """Three of five messages move an order to another price: a removal and an add in one."""
    flow = _Flow(seed)
    random = flow.random
    while len(flow.messages) < count:
        what = random.random()
        if what < 0.2 or flow.open_orders < 1_000:
            flow.add(random.randrange(2), 5 + random.randrange(200), random.randrange(1, 50))
        elif what < 0.4:
            flow.cancel()
        else:
            flow.move()
    return flow.messages


def taking_flow(count: int, seed: int = 5) -> list[Message]:
    """Every other order takes; levels empty and fill all the time."""
    flow = _Flow(seed)
    random = flow.random
    while len(flow.messages) < count:
        distance = -2 if random.random() < 0.5 else random.randrange(1, 6)
        flow.add(random.randrange(2), distance, random.randrange(1, 50))
    return flow.messages


SCENARIOS: Final[dict[str, Callable[[int], list[Message]]]] = {
    "realistic": realistic_flow,
    "deep": deep_flow,
    "cancel_heavy": cancel_flow,
    "moving": moving_flow,
    "taking": taking_flow,
}


def feed_book(messages: list[Message]) -> OrderBook:
    """What a matching engine does with a book, without events and funds."""
    book = OrderBook()
    orders, sides, makers = book.orders, book.sides, book.makers
    user_id, symbol_id = UserId(1), SymbolId(1)
    for kind, order_id, side, price, quantity in messages:
        if kind == CANCEL:
            if (order := orders.get(order_id)) is not None:
                sides[side].remove(order)
            continue
        if kind == REDUCE:
            if (order := orders.get(order_id)) is not None and order.filled_quantity < quantity < order.quantity:
                order.quantity = quantity
            continue
        if kind == MOVE:
            order = orders.get(order_id)
            if order is None:
                continue
            sides[side].remove(order)
            quantity = order.quantity - order.filled_quantity
        opposite = makers[side]
        limit = price * opposite.sign
        filled = 0
        while filled < quantity and (maker := opposite.first(limit)) is not None:
            rest = maker.quantity - maker.filled_quantity
            if rest <= quantity - filled:
                filled += rest
                opposite.remove(maker)
            else:
                maker.filled_quantity += quantity - filled
                filled = quantity
        if filled < quantity:
            sides[side].add(
                Order(order_id, user_id, symbol_id, 0, 1, side, _LIMIT, _GTC, price, quantity, filled, 0, 0, "")
            )
    return book


def book(messages: int = 100_000, rounds: int = 7) -> dict[str, float]:
    """Messages a second of one core: of each scenario the median of several rounds, and the worst scenario's.

    Counts processor time, so that other work on the machine disturbs less, with the collector off as in a run.
    """
    figures: dict[str, float] = {}
    gc.collect()
    gc.disable()
    try:
        for name, make in SCENARIOS.items():
            flow = make(messages)
            figures[f"book_messages_per_second_{name}"] = len(flow) / median(
                _processor_seconds(flow) for _ in range(rounds)
            )
    finally:
        gc.enable()
    figures["book_messages_per_second_worst"] = min(figures.values())
    return figures


def _processor_seconds(flow: list[Message]) -> float:
    start = process_time()
    feed_book(flow)
    return process_time() - start


if __name__ == "__main__":
    for figure, value in book().items():
        print(f"{figure:45} {value:12,.0f}")
