"""What the engine makes of each kind of input (design section 4.1)."""

import pytest

from engine.matching import InvalidInputError, MatchingEngine
from schema.codes import OrderStatus, Reason, Side, TimeInForce, Verdict
from schema.events import EngineOutput, OrderState, ValidatedOrder
from schema.topics import VALIDATED_ORDERS
from tests.engine.one_partition import BTC_USD, ETH_BTC, ETH_USD, TOPOLOGY, Feed, cancel, place, reduce, replace

BUY, SELL = Side.BUY, Side.SELL
GTC, IOC, FOK, POST_ONLY = TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK, TimeInForce.POST_ONLY


def ids(orders: tuple[OrderState, ...]) -> list[int]:
    return [order.order_id for order in orders]


def verdict(output: EngineOutput) -> tuple[int, int]:
    return output.fund_updates[0].verdict, output.fund_updates[0].reason


def ended(output: EngineOutput, order_id: int) -> tuple[int, int, int]:
    """Status, reason and filled quantity of the one completion of an order."""
    [state] = [state for state in output.order_completions if state.order_id == order_id]
    return state.status, state.reason, state.filled_quantity


def nothing_happened(output: EngineOutput) -> bool:
    events = (output.order_placements, output.order_updates, output.order_completions, output.trades)
    return not any(events)


def test_order_that_meets_nobody_rests_with_a_placement_alone() -> None:
    feed = Feed()
    output = feed(place(1, 10, BUY, 5, 100))
    [placement] = output.order_placements
    assert (placement.revision, placement.status, placement.filled_quantity) == (1, OrderStatus.NEW, 0)
    assert placement.client_order_id == "request-1"
    assert not output.order_updates + output.order_completions + output.refusals + output.trades
    assert verdict(output) == (Verdict.PLACED, Reason.NONE)
    assert ids(tuple(feed.engine.open_orders())) == [1]


def test_crossing_orders_trade_at_the_makers_price_and_both_complete() -> None:
    output = Feed()(place(1, 10, SELL, 5, 100), place(2, 20, BUY, 5, 110))
    [trade] = output.trades
    assert (trade.price, trade.quantity, trade.maker_order_id, trade.taker_order_id) == (100, 5, 1, 2)
    assert trade.quote_amount == BTC_USD.quote_atoms(100, 5)
    assert trade.taker_side == BUY
    assert ids(output.order_completions) == [1, 2]
    assert ended(output, 1) == ended(output, 2) == (OrderStatus.FILLED, Reason.FILLED, 5)
    assert not output.order_updates


def test_taker_that_leaves_a_rest_gets_one_update_and_rests() -> None:
    feed = Feed()
    output = feed(place(1, 10, SELL, 2, 100), place(2, 10, SELL, 2, 101), place(3, 20, BUY, 9, 105))
    assert ids(output.order_completions) == [1, 2]
    [update] = output.order_updates
    assert (update.order_id, update.revision, update.filled_quantity) == (3, 2, 4)
    assert update.status == OrderStatus.PARTIALLY_FILLED
    assert update.filled_quote == BTC_USD.quote_atoms(100, 2) + BTC_USD.quote_atoms(101, 2)
    assert ids(tuple(feed.engine.open_orders())) == [3]


def test_maker_that_keeps_a_rest_gets_an_update_before_the_takers_completion() -> None:
    output = Feed()(place(1, 10, SELL, 5, 100), place(2, 20, BUY, 2, 100))
    [update] = output.order_updates
    assert (update.order_id, update.filled_quantity, update.status) == (1, 2, OrderStatus.PARTIALLY_FILLED)
    assert ids(output.order_completions) == [2]


def test_resting_order_completes_when_a_later_taker_fills_its_last_lot() -> None:
    feed = Feed()
    feed(place(1, 10, SELL, 5, 100), place(2, 20, BUY, 4, 100))
    output = feed(place(3, 20, BUY, 1, 100))
    assert ended(output, 1) == (OrderStatus.FILLED, Reason.FILLED, 5)
    [state] = [state for state in output.order_completions if state.order_id == 1]
    assert state.revision == 3
    assert state.filled_quote == BTC_USD.quote_atoms(100, 5)


def test_better_price_trades_first_then_the_older_order() -> None:
    feed = Feed()
    feed(place(1, 10, SELL, 1, 101), place(2, 10, SELL, 1, 100), place(3, 11, SELL, 1, 100), place(4, 12, SELL, 1, 99))
    output = feed(place(5, 20, BUY, 4, 101))
    assert [trade.maker_order_id for trade in output.trades] == [4, 2, 3, 1]


def test_seller_meets_the_highest_bid_first() -> None:
    feed = Feed()
    feed(place(1, 10, BUY, 1, 99), place(2, 10, BUY, 1, 101), place(3, 11, BUY, 1, 100))
    output = feed(place(4, 20, SELL, 5, 100))
    assert [(trade.maker_order_id, trade.price) for trade in output.trades] == [(2, 101), (3, 100)]


def test_partly_filled_order_keeps_its_place_in_the_queue() -> None:
    feed = Feed()
    feed(place(1, 10, SELL, 3, 100), place(2, 11, SELL, 3, 100), place(3, 20, BUY, 1, 100))
    assert [trade.maker_order_id for trade in feed(place(4, 20, BUY, 3, 100)).trades] == [1, 2]


def test_trade_ids_are_the_outputs_sequence_times_1024_and_the_index() -> None:
    output = Feed()(place(1, 10, SELL, 1, 100), place(2, 10, SELL, 1, 100), place(3, 20, BUY, 2, 100))
    assert [trade.trade_id for trade in output.trades] == [3 * 1024, 3 * 1024 + 1]


def test_rest_of_an_immediate_or_cancel_order_is_cancelled() -> None:
    feed = Feed()
    output = feed(place(1, 10, SELL, 2, 100), place(2, 20, BUY, 5, 100, IOC))
    assert ended(output, 2) == (OrderStatus.CANCELLED, Reason.UNFILLED_REST, 2)
    assert verdict(output) == (Verdict.PLACED, Reason.NONE)
    assert not list(feed.engine.open_orders())


def test_immediate_or_cancel_order_that_meets_nobody_is_placed_and_cancelled() -> None:
    output = Feed()(place(1, 10, BUY, 5, 100, IOC))
    assert ids(output.order_placements) == [1]
    assert ended(output, 1) == (OrderStatus.CANCELLED, Reason.UNFILLED_REST, 0)


@pytest.mark.parametrize("time_in_force", list(TimeInForce)[:2])
def test_rest_of_a_market_order_never_rests(time_in_force: TimeInForce) -> None:
    feed = Feed()
    output = feed(place(1, 10, BUY, 2, 100), place(2, 20, SELL, 5, time_in_force=time_in_force))
    assert ended(output, 2) == (OrderStatus.CANCELLED, Reason.UNFILLED_REST, 2)
    assert not list(feed.engine.open_orders())


def test_market_buy_stops_when_its_money_buys_no_more_lot() -> None:
    money = BTC_USD.quote_atoms(100, 2) + BTC_USD.quote_atoms(110, 1) + BTC_USD.quote_atoms(110, 1) - 1
    output = Feed()(
        place(1, 10, SELL, 2, 100), place(2, 10, SELL, 4, 110), place(3, 20, BUY, 9, time_in_force=IOC, max_spend=money)
    )
    assert [(trade.price, trade.quantity) for trade in output.trades] == [(100, 2), (110, 1)]
    assert ended(output, 3) == (OrderStatus.CANCELLED, Reason.SPEND_LIMIT, 3)
    assert ids(output.order_updates) == [2]


def test_market_buy_that_cannot_afford_one_lot_trades_nothing() -> None:
    output = Feed()(
        place(1, 10, SELL, 2, 100),
        place(2, 20, BUY, 1, time_in_force=IOC, max_spend=BTC_USD.quote_atoms(100, 1) - 1),
    )
    assert not output.trades
    assert ended(output, 2) == (OrderStatus.CANCELLED, Reason.SPEND_LIMIT, 0)


def test_market_sell_trades_down_to_any_price() -> None:
    output = Feed()(place(1, 10, BUY, 1, 100), place(2, 10, BUY, 1, 1), place(3, 20, SELL, 2, time_in_force=IOC))
    assert [trade.price for trade in output.trades] == [100, 1]


def test_fill_or_kill_fills_whole_over_several_prices() -> None:
    output = Feed()(place(1, 10, SELL, 2, 100), place(2, 10, SELL, 2, 101), place(3, 20, BUY, 3, 101, FOK))
    assert ended(output, 3) == (OrderStatus.FILLED, Reason.FILLED, 3)


def test_fill_or_kill_that_cannot_fill_within_its_price_is_refused() -> None:
    feed = Feed()
    output = feed(place(1, 10, SELL, 2, 100), place(2, 10, SELL, 2, 102), place(3, 20, BUY, 3, 101, FOK))
    assert nothing_happened(output)
    [refusal] = output.refusals
    assert (refusal.status, refusal.reason, refusal.revision) == (OrderStatus.REJECTED, Reason.CANNOT_FILL, 1)
    assert verdict(output) == (Verdict.REFUSED, Reason.CANNOT_FILL)
    assert [order.filled_quantity for order in feed.engine.open_orders()] == [0, 0]


def test_fill_or_kill_counts_only_what_stands_before_an_own_order() -> None:
    output = Feed()(
        place(1, 10, SELL, 2, 100),
        place(2, 20, SELL, 2, 100),
        place(3, 10, SELL, 2, 100),
        place(4, 20, BUY, 3, 100, FOK),
    )
    assert [refusal.reason for refusal in output.refusals] == [Reason.CANNOT_FILL]


def test_fill_or_kill_market_buy_is_refused_beyond_its_money() -> None:
    feed = Feed()
    feed(place(1, 10, SELL, 2, 100))
    enough = BTC_USD.quote_atoms(100, 2)
    output = feed(place(2, 20, BUY, 2, time_in_force=FOK, max_spend=enough - 1))
    assert [refusal.reason for refusal in output.refusals] == [Reason.CANNOT_FILL]
    assert ended(feed(place(3, 20, BUY, 2, time_in_force=FOK, max_spend=enough)), 3)[0] == OrderStatus.FILLED


def test_post_only_order_rests_when_it_does_not_cross() -> None:
    feed = Feed()
    output = feed(place(1, 10, SELL, 2, 100), place(2, 20, BUY, 2, 99, POST_ONLY))
    assert ids(output.order_placements) == [2]
    assert ids(tuple(feed.engine.open_orders())) == [2, 1]


@pytest.mark.parametrize("user_id", [10, 20])
def test_post_only_order_that_would_cross_is_refused_even_if_only_with_its_own_user(user_id: int) -> None:
    output = Feed()(place(1, 10, SELL, 2, 100), place(2, user_id, BUY, 2, 100, POST_ONLY))
    assert nothing_happened(output)
    assert [refusal.reason for refusal in output.refusals] == [Reason.WOULD_CROSS]
    assert verdict(output) == (Verdict.REFUSED, Reason.WOULD_CROSS)


def test_taker_that_comes_to_its_own_order_loses_its_rest() -> None:
    feed = Feed()
    output = feed(
        place(1, 10, SELL, 2, 100), place(2, 20, SELL, 2, 100), place(3, 11, SELL, 2, 100), place(4, 20, BUY, 6, 100)
    )
    assert [trade.maker_order_id for trade in output.trades] == [1]
    assert ended(output, 4) == (OrderStatus.CANCELLED, Reason.SELF_TRADE, 2)
    assert ids(tuple(feed.engine.open_orders())) == [2, 3]


def test_id_of_a_live_order_is_refused_in_any_symbol_of_the_partition() -> None:
    feed = Feed()
    output = feed(place(1, 10, SELL, 2, 100), place(1, 20, BUY, 2, 90, symbol=ETH_USD))
    assert nothing_happened(output)
    assert [(refusal.user_id, refusal.reason) for refusal in output.refusals] == [(20, Reason.DUPLICATE_ORDER_ID)]
    assert ids(tuple(feed.engine.open_orders())) == [1]


def test_symbols_do_not_meet() -> None:
    feed = Feed()
    output = feed(place(1, 10, SELL, 2, 100), place(2, 20, BUY, 2, 100, symbol=ETH_USD))
    assert not output.trades
    assert ids(tuple(feed.engine.open_orders())) == [1, 2]


def test_cancel_completes_the_order() -> None:
    feed = Feed()
    output = feed(place(1, 10, SELL, 5, 100), place(2, 20, BUY, 2, 100), cancel(1, 10))
    assert ended(output, 1) == (OrderStatus.CANCELLED, Reason.CANCELLED_BY_USER, 2)
    assert verdict(output) == (Verdict.CANCELLED, Reason.NONE)
    assert output.fund_updates[0].order_id == 1
    assert not list(feed.engine.open_orders())


def test_cancelled_order_is_passed_over() -> None:
    feed = Feed()
    feed(place(1, 10, SELL, 1, 100), place(2, 10, SELL, 1, 100), place(3, 10, SELL, 1, 100), cancel(1, 10))
    feed(cancel(2, 10))
    assert [trade.maker_order_id for trade in feed(place(4, 20, BUY, 1, 100)).trades] == [3]


@pytest.mark.parametrize(
    "command",
    [
        cancel(7, 10),
        cancel(1, 20),
        cancel(1, 10, symbol=ETH_USD),
        reduce(7, 10, 1),
        reduce(1, 20, 1),
        reduce(1, 10, 1, symbol=ETH_USD),
    ],
    ids=lambda command: f"{type(command).__name__}-{command.order_id}-{command.user_id}-{command.symbol_id}",
)
def test_order_not_live_or_of_another_user_or_symbol_is_too_late(command: object) -> None:
    feed = Feed()
    output = feed(place(1, 10, SELL, 5, 100), command)
    assert nothing_happened(output)
    assert verdict(output) == (Verdict.TOO_LATE, Reason.NOT_LIVE)
    assert output.fund_updates[0].entries == ()
    assert ids(tuple(feed.engine.open_orders())) == [1]


def test_cancel_after_the_fill_is_too_late() -> None:
    output = Feed()(place(1, 10, SELL, 5, 100), place(2, 20, BUY, 5, 100), cancel(1, 10))
    assert verdict(output) == (Verdict.TOO_LATE, Reason.NOT_LIVE)


def test_reduce_lowers_the_total_and_keeps_priority() -> None:
    feed = Feed()
    output = feed(place(1, 10, SELL, 5, 100), place(2, 11, SELL, 5, 100), reduce(1, 10, 2))
    [update] = output.order_updates
    assert (update.quantity, update.revision, update.status) == (2, 2, OrderStatus.NEW)
    assert verdict(output) == (Verdict.REDUCED, Reason.NONE)
    output = feed(place(3, 20, BUY, 3, 100))
    assert [(trade.maker_order_id, trade.quantity) for trade in output.trades] == [(1, 2), (2, 1)]


def test_reduce_of_a_partly_filled_order_says_so() -> None:
    output = Feed()(place(1, 10, SELL, 5, 100), place(2, 20, BUY, 2, 100), reduce(1, 10, 3))
    assert [(update.quantity, update.status) for update in output.order_updates] == [(3, OrderStatus.PARTIALLY_FILLED)]


@pytest.mark.parametrize("quantity", [1, 2])
def test_reduce_to_what_is_filled_completes_the_order_with_its_last_quantity(quantity: int) -> None:
    feed = Feed()
    output = feed(place(1, 10, SELL, 5, 100), place(2, 20, BUY, 2, 100), reduce(1, 10, quantity))
    assert ended(output, 1) == (OrderStatus.CANCELLED, Reason.REDUCED, 2)
    assert output.order_completions[0].quantity == 5
    assert verdict(output) == (Verdict.REDUCED, Reason.NONE)
    assert not list(feed.engine.open_orders())


@pytest.mark.parametrize("quantity", [5, 6])
def test_reduce_that_would_not_reduce_is_invalid(quantity: int) -> None:
    feed = Feed()
    output = feed(place(1, 10, SELL, 5, 100), reduce(1, 10, quantity))
    assert nothing_happened(output)
    assert verdict(output) == (Verdict.INVALID, Reason.INVALID_REDUCTION)
    assert [order.quantity for order in feed.engine.open_orders()] == [5]


def test_replace_cancels_one_order_and_places_another_behind_the_queue() -> None:
    feed = Feed()
    feed(place(1, 10, SELL, 5, 100), place(2, 11, SELL, 5, 100))
    output = feed(replace(1, 3, 10, SELL, 4, 100))
    assert ended(output, 1) == (OrderStatus.CANCELLED, Reason.REPLACED, 0)
    assert ids(output.order_placements) == [3]
    assert verdict(output) == (Verdict.REPLACED, Reason.NONE)
    assert output.fund_updates[0].order_id == 3
    assert ids(tuple(feed.engine.open_orders())) == [2, 3]


def test_replacing_order_may_trade_at_once_and_the_replaced_one_completes_first() -> None:
    feed = Feed()
    feed(place(1, 10, BUY, 5, 100), place(2, 20, SELL, 2, 105))
    output = feed(replace(1, 3, 10, BUY, 2, 105, IOC))
    assert ids(output.order_completions) == [1, 2, 3]


def test_replaced_order_does_not_stand_in_the_way_of_the_new_one() -> None:
    output = Feed()(place(1, 10, BUY, 5, 100), replace(1, 2, 10, SELL, 5, 100))
    assert not output.trades
    assert ids(output.order_placements) == [2]
    assert [state.order_id for state in output.order_completions] == [1]


def test_replace_whose_new_order_is_refused_cancels_the_first_all_the_same() -> None:
    feed = Feed()
    feed(place(1, 10, BUY, 5, 100), place(2, 20, SELL, 2, 105))
    output = feed(replace(1, 3, 10, BUY, 5, 105, POST_ONLY))
    assert ended(output, 1) == (OrderStatus.CANCELLED, Reason.REPLACED, 0)
    assert [(refusal.order_id, refusal.reason) for refusal in output.refusals] == [(3, Reason.WOULD_CROSS)]
    assert not output.order_placements
    assert verdict(output) == (Verdict.REFUSED, Reason.WOULD_CROSS)


@pytest.mark.parametrize("order_id", [1, 2])
def test_replace_does_not_bring_a_live_id_to_life_a_second_time(order_id: int) -> None:
    feed = Feed()
    feed(place(1, 10, BUY, 5, 100), place(2, 20, BUY, 5, 99))
    output = feed(replace(1, order_id, 10, BUY, 4, 98))
    assert ended(output, 1) == (OrderStatus.CANCELLED, Reason.REPLACED, 0)
    assert [refusal.reason for refusal in output.refusals] == [Reason.DUPLICATE_ORDER_ID]
    assert ids(tuple(feed.engine.open_orders())) == [2]


def test_replace_of_an_order_that_is_not_live_places_nothing() -> None:
    feed = Feed()
    output = feed(place(1, 10, BUY, 5, 100), replace(1, 2, 20, BUY, 5, 100))
    assert nothing_happened(output)
    assert [refusal.reason for refusal in output.refusals] == [Reason.REPLACED_ORDER_NOT_LIVE]
    assert verdict(output) == (Verdict.TOO_LATE, Reason.NOT_LIVE)
    assert ids(tuple(feed.engine.open_orders())) == [1]


def test_engine_time_never_goes_back() -> None:
    feed = Feed()
    feed(place(1, 10, BUY, 5, 100, at_ns=1_000))
    output = feed(place(2, 20, SELL, 2, 100, at_ns=400))
    assert output.time_ns == 1_000
    assert output.order_placements[0].created_at_ns == 1_000
    output = feed(cancel(1, 10, at_ns=1_500))
    assert output.time_ns == 1_500
    [state] = output.order_completions
    assert (state.created_at_ns, state.updated_at_ns) == (1_000, 1_500)


@pytest.mark.parametrize(
    "command",
    [
        place(1, 10, BUY, 5, 100, symbol=ETH_BTC),
        place(1, 10, BUY, 0, 100),
        place(1, 10, BUY, 5, -1),
        place(1, 10, BUY, 5, max_spend=-1),
        replace(1, 2, 10, BUY, 5, 0),
        replace(1, 2, 10, SELL, -5, 10),
    ],
    ids=["foreign symbol", "no quantity", "negative price", "negative limit", "no price", "negative quantity"],
)
def test_input_that_cannot_have_been_accepted_raises_and_changes_nothing(command: object) -> None:
    feed = Feed()
    feed(place(9, 10, BUY, 5, 100))
    before = feed.engine.snapshot()
    with pytest.raises(InvalidInputError):
        feed(command)
    assert feed.engine.snapshot() == before


def test_output_names_its_input() -> None:
    engine = MatchingEngine(TOPOLOGY, 0)
    order = ValidatedOrder(2, 17, 1, place(1, 10, BUY, 5, 100))
    applied = engine.apply(order, VALIDATED_ORDERS, 0, 41)
    assert (applied.output.input_topic, applied.output.input_partition, applied.output.input_offset) == (
        VALIDATED_ORDERS,
        0,
        41,
    )
    assert applied.output.input == order
    assert engine.next_input_offset == 42
