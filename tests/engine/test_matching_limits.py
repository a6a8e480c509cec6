"""One input's output is bounded, so a partition never stops for its size (design section 4.1.7)."""

import msgspec

from schema.codes import EntryKind, OrderStatus, Reason, Side, TimeInForce
from schema.identifiers import INT64_MAX, MAX_REQUEST_ID_BYTES
from schema.limits import MATCH_LIMIT
from schema.topics import MAX_RECORD_BYTES
from schema.wire import encode
from tests.engine.one_partition import LOT, TICK_LOT, Feed, place


def with_longest_request_id(command: msgspec.Struct, number: int) -> msgspec.Struct:
    return msgspec.structs.replace(command, request_id=str(number).rjust(MAX_REQUEST_ID_BYTES, "x"))


def test_taker_meets_a_thousand_makers_and_its_rest_is_cancelled() -> None:
    feed = Feed()
    for number in range(1, MATCH_LIMIT + 2):
        feed(place(number, 10, Side.SELL, 1, 100))
    output = feed(place(5_000, 20, Side.BUY, MATCH_LIMIT + 1, 100))
    assert len(output.trades) == MATCH_LIMIT == 1_000
    taker = output.order_completions[-1]
    assert (taker.order_id, taker.status, taker.reason) == (5_000, OrderStatus.CANCELLED, Reason.MATCH_LIMIT)
    assert taker.filled_quantity == MATCH_LIMIT
    assert [order.order_id for order in feed.engine.open_orders()] == [MATCH_LIMIT + 1]
    assert len({trade.trade_id for trade in output.trades}) == MATCH_LIMIT


def test_taker_that_is_filled_by_its_thousandth_maker_is_filled() -> None:
    feed = Feed()
    for number in range(1, MATCH_LIMIT + 2):
        feed(place(number, 10, Side.SELL, 1, 100))
    output = feed(place(5_000, 20, Side.BUY, MATCH_LIMIT, 100))
    assert output.order_completions[-1].reason == Reason.FILLED


def test_fill_or_kill_that_needs_more_than_a_thousand_makers_is_refused() -> None:
    feed = Feed()
    for number in range(1, MATCH_LIMIT + 2):
        feed(place(number, 10, Side.SELL, 1, 100))
    output = feed(place(5_000, 20, Side.BUY, MATCH_LIMIT + 1, 100, TimeInForce.FOK))
    assert [refusal.reason for refusal in output.refusals] == [Reason.CANNOT_FILL]
    output = feed(place(5_001, 20, Side.BUY, MATCH_LIMIT, 100, TimeInForce.FOK))
    assert output.order_completions[-1].status == OrderStatus.FILLED


DEAREST = INT64_MAX // TICK_LOT
"""The highest price at which one lot can be bought at all."""


def test_rest_of_a_sell_is_cancelled_when_its_proceeds_would_not_fit_their_column() -> None:
    """The balance core bounds price times quantity at the sell's own price; a bid may have paid much more."""
    feed = Feed()
    feed(place(1, 10, Side.BUY, 1, DEAREST))
    output = feed(place(2, 20, Side.SELL, 2, 1))
    ended = output.order_completions[-1]
    assert (ended.order_id, ended.status, ended.reason) == (2, OrderStatus.CANCELLED, Reason.OVERFLOW)
    assert ended.filled_quote + TICK_LOT > INT64_MAX
    released = [entry for entry in output.fund_updates[0].entries if entry.kind == EntryKind.RELEASE]
    assert [entry.available_delta for entry in released] == [LOT]
    assert list(feed.engine.open_orders()) == []


def test_sell_rests_as_long_as_its_proceeds_fit_their_column() -> None:
    feed = Feed()
    feed(place(1, 10, Side.BUY, 1, DEAREST - 1), place(2, 20, Side.SELL, 2, 1))
    output = feed(place(3, 30, Side.BUY, 1, 1))
    assert [state.status for state in output.order_completions] == [OrderStatus.FILLED, OrderStatus.FILLED]
    assert INT64_MAX - TICK_LOT < output.order_completions[0].filled_quote <= INT64_MAX


def test_largest_possible_output_is_far_below_the_record_limit() -> None:
    """A thousand makers of a thousand users, the widest integers, the longest request ids."""
    feed = Feed()
    widest = 2**62
    # As large as the sums of quantity and cost allow.
    quantity = 2**38
    feed.engine.time_ns = INT64_MAX - 1
    for number in range(MATCH_LIMIT):
        maker = place(widest + number, widest + number, Side.SELL, quantity, 1)
        feed(with_longest_request_id(maker, number))
    taker = place(INT64_MAX, INT64_MAX, Side.BUY, (MATCH_LIMIT + 1) * quantity, 2)
    applied = feed.send(with_longest_request_id(taker, INT64_MAX))
    output = applied.output
    assert (len(output.trades), len(output.order_completions), len(output.order_updates)) == (
        MATCH_LIMIT,
        MATCH_LIMIT,
        1,
    )
    assert len(output.fund_updates) == MATCH_LIMIT + 1
    assert len(applied.value) * 8 < MAX_RECORD_BYTES


def test_largest_possible_fund_update_is_far_below_the_record_limit() -> None:
    """A thousand makers of one user."""
    feed = Feed()
    for number in range(MATCH_LIMIT):
        feed(place(2**62 + number, 10, Side.SELL, 2**32, 100))
    output = feed(place(INT64_MAX, 20, Side.BUY, MATCH_LIMIT * 2**32, 100))
    assert [len(update.entries) for update in output.fund_updates] == [2, 2 * MATCH_LIMIT]
    assert len(encode(output.fund_updates[1])) * 8 < MAX_RECORD_BYTES
