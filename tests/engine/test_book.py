"""Price-time priority, and a book that stays small (design section 4.1.6)."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.book import BookSide, Order, OrderBook
from schema.codes import OrderType, Side, TimeInForce
from schema.identifiers import OrderId, SymbolId, UserId

BUY, SELL = Side.BUY, Side.SELL


def order(order_id: int, side: Side, price: int, quantity: int = 1) -> Order:
    return Order(
        OrderId(order_id),
        UserId(1),
        SymbolId(1),
        0,
        1,
        int(side),
        int(OrderType.LIMIT),
        int(TimeInForce.GTC),
        price,
        quantity,
        0,
        0,
        0,
        "",
    )


def book_of(*orders: Order) -> OrderBook:
    book = OrderBook()
    for each in orders:
        book.sides[each.side].add(each)
    return book


def first_id(side: BookSide) -> int | None:
    first = side.first()
    return None if first is None else first.order_id


def test_empty_side_has_no_first() -> None:
    book = OrderBook()
    assert book.sides[BUY].first() is None
    assert book.sides[SELL].first() is None


def test_highest_bid_and_lowest_ask_stand_first() -> None:
    book = book_of(
        order(1, BUY, 9),
        order(2, BUY, 10),
        order(3, BUY, 8),
        order(4, SELL, 13),
        order(5, SELL, 11),
        order(6, SELL, 12),
    )
    assert (first_id(book.sides[BUY]), first_id(book.sides[SELL])) == (2, 5)
    assert [each.order_id for each in book] == [2, 1, 3, 5, 6, 4]


def test_equal_prices_stand_in_order_of_arrival() -> None:
    book = book_of(order(3, BUY, 9), order(1, BUY, 9), order(2, BUY, 9))
    assert [each.order_id for each in book.sides[BUY].within()] == [3, 1, 2]


def test_incoming_buy_meets_asks_and_incoming_sell_meets_bids() -> None:
    book = OrderBook()
    assert book.makers[BUY] is book.sides[SELL]
    assert book.makers[SELL] is book.sides[BUY]


def test_order_beyond_the_limit_is_not_met() -> None:
    book = book_of(order(1, SELL, 100), order(2, BUY, 90))
    asks, bids = book.sides[SELL], book.sides[BUY]
    assert asks.first(99 * asks.sign) is None
    assert asks.first(100 * asks.sign) is not None
    assert bids.first(91 * bids.sign) is None
    assert bids.first(90 * bids.sign) is not None


def test_orders_within_a_limit_come_in_priority_and_end_there() -> None:
    book = book_of(*(order(price, SELL, price) for price in (5, 3, 8, 1, 9, 2)))
    assert [each.price for each in book.sides[SELL].within(5)] == [1, 2, 3, 5]
    assert list(book.sides[SELL].within(0)) == []


def test_removed_order_leaves_its_neighbours_in_place() -> None:
    orders = [order(number, SELL, 10) for number in range(1, 6)]
    book = book_of(*orders)
    book.sides[SELL].remove(orders[2])
    book.sides[SELL].remove(orders[0])
    assert [each.order_id for each in book.sides[SELL].within()] == [2, 4, 5]
    assert first_id(book.sides[SELL]) == 2
    assert sorted(book.orders) == [2, 4, 5]


def test_level_that_emptied_can_be_filled_again() -> None:
    old = order(1, SELL, 10)
    book = book_of(old, order(2, SELL, 11))
    book.sides[old.side].remove(old)
    book.sides[SELL].add(order(3, SELL, 10))
    assert [each.order_id for each in book.sides[SELL].within()] == [3, 2]
    assert first_id(book.sides[SELL]) == 3


def test_level_that_was_passed_over_empty_can_be_filled_again() -> None:
    old = order(1, SELL, 10)
    book = book_of(old, order(2, SELL, 11))
    book.sides[old.side].remove(old)
    assert first_id(book.sides[SELL]) == 2
    book.sides[SELL].add(order(3, SELL, 10))
    assert first_id(book.sides[SELL]) == 3


def test_order_that_does_not_rest_cannot_be_removed() -> None:
    book = book_of(order(1, SELL, 10))
    with pytest.raises(KeyError):
        book.sides[SELL].remove(order(2, SELL, 10))


def test_books_may_share_their_orders() -> None:
    orders: dict[OrderId, Order] = {}
    one, other = OrderBook(orders), OrderBook(orders)
    one.sides[BUY].add(order(1, BUY, 10))
    other.sides[BUY].add(order(2, BUY, 11))
    assert sorted(orders) == [1, 2]
    assert [each.order_id for each in one] == [1]


def test_queue_behind_one_order_that_stays_does_not_grow() -> None:
    book = book_of(order(1, SELL, 10))
    for number in range(2, 5_000):
        passing = order(number, SELL, 10)
        book.sides[passing.side].add(passing)
        book.sides[passing.side].remove(passing)
    [level] = book.sides[SELL]._levels.values()
    assert len(level) < 100


def test_levels_that_emptied_far_from_the_best_are_dropped() -> None:
    book = book_of(order(1, SELL, 10))
    for price in range(11, 5_000):
        passing = order(price, SELL, price)
        book.sides[passing.side].add(passing)
        book.sides[passing.side].remove(passing)
    assert len(book.sides[SELL]._levels) == len(book.sides[SELL]._heap) < 100


class ListBook:
    """Orders in a list, in order of arrival; whoever is first is searched for."""

    def __init__(self) -> None:
        self.orders: list[Order] = []

    def side(self, side: int) -> list[int]:
        orders = [each for each in self.orders if each.side == side]
        return [each.order_id for each in sorted(orders, key=lambda each: -each.price if side == BUY else each.price)]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["add", "add", "remove", "look"]), st.sampled_from(Side), st.integers(1, 12))),
    st.integers(0, 2**32),
)
def test_book_is_a_sorted_list(steps: list[tuple[str, Side, int]], seed: int) -> None:
    pick = random.Random(seed)
    book, plain = OrderBook(), ListBook()
    for number, (step, side, price) in enumerate(steps, 1):
        if step == "add":
            each = order(number, side, price)
            book.sides[each.side].add(each)
            plain.orders.append(each)
        elif step == "remove" and plain.orders:
            each = plain.orders.pop(pick.randrange(len(plain.orders)))
            book.sides[each.side].remove(each)
        else:
            expected = plain.side(side)
            assert first_id(book.sides[side]) == (expected[0] if expected else None)
    assert [each.order_id for each in book.sides[BUY].within()] == plain.side(BUY)
    assert [each.order_id for each in book.sides[SELL].within()] == plain.side(SELL)
    assert sorted(book.orders) == sorted(each.order_id for each in plain.orders)


@pytest.mark.parametrize("seed", range(3))
def test_book_is_a_sorted_list_in_long_flows_that_tidy_up(seed: int) -> None:
    """Long enough that queues are compacted and empty levels dropped."""
    pick = random.Random(seed)
    book, plain = OrderBook(), ListBook()
    for number in range(1, 4_000):
        if pick.random() < 0.5 or not plain.orders:
            each = order(number, pick.choice([BUY, SELL]), pick.choice([7, pick.randrange(1, 400)]))
            book.sides[each.side].add(each)
            plain.orders.append(each)
        else:
            each = plain.orders.pop(pick.randrange(len(plain.orders)))
            book.sides[each.side].remove(each)
        if number % 97 == 0:
            for side in Side:
                expected = plain.side(side)
                levels = book.sides[side]._levels.values()
                assert book.sides[side]._empty_levels == sum(1 for level in levels if not level.live)
                assert first_id(book.sides[side]) == (expected[0] if expected else None)
                assert [each.order_id for each in book.sides[side].within()] == expected
