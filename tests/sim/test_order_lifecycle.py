"""The cases that started this project, through every service and back: an accepted order has its row, the row follows
the order, the query shows it while it lives, and a cancel ends it."""

from collections.abc import Iterator
from decimal import Decimal

import pytest

from schema.codes import OrderStatus, OrderType, Reason, Side, TimeInForce, Verdict
from tests.sim.whole_exchange import BTC_USDT, Exchange, open_exchange

BUYER, SELLER = 1, 2


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    with open_exchange() as opened:
        opened.deposit(BUYER, "USDT", "1000000")
        opened.deposit(SELLER, "BTC", "100")
        yield opened


def test_a_placed_order_has_its_row_with_every_field_right_and_its_lookup(exchange: Exchange) -> None:
    symbol = exchange.topology.symbols.named(BTC_USDT)
    answer = exchange.place(BUYER, "buy", "60000.5", "0.25")
    assert (answer.outcome, answer.verdict) == ("accepted", Verdict.PLACED)

    row = exchange.row_of("active_orders", answer.order_id)
    assert row == {
        "user_id": BUYER,
        "symbol_id": symbol.symbol_id,
        "created_at": row["created_at"],
        "order_id": answer.order_id,
        "updated_at": row["created_at"],
        "revision": 1,
        "status": OrderStatus.NEW,
        "reason": Reason.NONE,
        "side": Side.BUY,
        "order_type": OrderType.LIMIT,
        "time_in_force": TimeInForce.GTC,
        "price": int(Decimal("60000.5") / symbol.tick_size),
        "quantity": int(Decimal("0.25") / symbol.lot_size),
        "filled_quantity": 0,
        "filled_quote": 0,
        "max_spend": 0,
        "client_order_id": "order-3",
    }
    assert exchange.row_of("order_lookup", answer.order_id) == {
        "order_id": answer.order_id,
        "user_id": BUYER,
        "symbol_id": symbol.symbol_id,
        "created_at": row["created_at"],
        "revision": 1,
    }


def test_a_fill_updates_status_and_filled_quantity_of_both_rows(exchange: Exchange) -> None:
    symbol = exchange.topology.symbols.named(BTC_USDT)
    maker = exchange.place(SELLER, "sell", "60000", "1")
    taker = exchange.place(BUYER, "buy", "60001", "0.4")

    lots = int(Decimal("0.4") / symbol.lot_size)
    maker_row = exchange.row_of("active_orders", maker.order_id)
    assert (maker_row["status"], maker_row["filled_quantity"], maker_row["revision"]) == (
        OrderStatus.PARTIALLY_FILLED,
        lots,
        2,
    )
    taker_row = exchange.row_of("active_orders", taker.order_id)
    assert (taker_row["status"], taker_row["filled_quantity"], taker_row["reason"]) == (
        OrderStatus.FILLED,
        lots,
        Reason.FILLED,
    )
    paid = symbol.quote_atoms(int(Decimal("60000") / symbol.tick_size), lots)
    assert maker_row["filled_quote"] == taker_row["filled_quote"] == paid
    sides = {(row["user_id"], row["side"], row["is_maker"], row["quantity"]) for row in exchange.rows("user_trades")}
    assert sides == {(SELLER, Side.SELL, True, lots), (BUYER, Side.BUY, False, lots)}


def test_the_last_fill_of_a_resting_order_completes_it(exchange: Exchange) -> None:
    maker = exchange.place(SELLER, "sell", "60000", "1")
    exchange.place(BUYER, "buy", "60000", "1")
    row = exchange.row_of("active_orders", maker.order_id)
    assert (row["status"], row["filled_quantity"]) == (OrderStatus.FILLED, row["quantity"])


def test_the_query_returns_an_order_while_it_is_active_and_stops_when_it_is_filled(exchange: Exchange) -> None:
    order = exchange.place(SELLER, "sell", "60000", "1")
    assert [row.order_id for row in exchange.active_orders(SELLER)] == [order.order_id]
    assert exchange.active_orders(BUYER) == []

    exchange.place(BUYER, "buy", "60000", "0.4")
    (row,) = exchange.active_orders(SELLER)
    assert (row.order_id, row.status) == (order.order_id, OrderStatus.PARTIALLY_FILLED)

    exchange.place(BUYER, "buy", "60000", "0.6")
    assert exchange.active_orders(SELLER) == []


def test_a_cancel_completes_the_order_and_the_query_stops_returning_it(exchange: Exchange) -> None:
    order = exchange.place(BUYER, "buy", "50000", "1")
    answer = exchange.cancel(BUYER, order.order_id)
    assert (answer.outcome, answer.verdict) == ("accepted", Verdict.CANCELLED)
    row = exchange.row_of("active_orders", order.order_id)
    assert (row["status"], row["reason"], row["revision"]) == (OrderStatus.CANCELLED, Reason.CANCELLED_BY_USER, 2)
    assert exchange.active_orders(BUYER) == []


def test_a_second_cancel_is_told_that_it_is_too_late(exchange: Exchange) -> None:
    order = exchange.place(BUYER, "buy", "50000", "1")
    exchange.cancel(BUYER, order.order_id)
    assert exchange.cancel(BUYER, order.order_id).verdict == Verdict.TOO_LATE


def test_log_lines_follow_an_order_through_every_stage(exchange: Exchange) -> None:
    order = exchange.place(SELLER, "sell", "60000", "1")
    exchange.place(BUYER, "buy", "60000", "0.4")
    exchange.cancel(SELLER, order.order_id)
    stages = exchange.log_of(order.order_id)
    expected = [
        ("gateway", "order request produced"),
        ("ubscore", "order accepted"),
        ("matching", "OrderPlacement emitted"),
        ("settlement", "consumed"),
        ("settlement", "row written"),
        ("matching", "OrderUpdate emitted"),
        ("settlement", "status updated"),
        ("matching", "OrderCompletion emitted"),
        ("settlement", "order completed"),
    ]
    first_seen = [stages.index(stage) for stage in expected]
    assert first_seen == sorted(first_seen), stages
