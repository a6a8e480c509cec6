"""What an output does to the users' funds (design section 4.2.1)."""

from schema.codes import EntryKind, Side, TimeInForce
from schema.events import EngineOutput
from tests.engine.one_partition import BTC, BTC_USD, LOT, TICK_LOT, TOPOLOGY, USD, Feed, cancel, place, reduce, replace

BUY, SELL = Side.BUY, Side.SELL
IOC, FOK, POST_ONLY = TimeInForce.IOC, TimeInForce.FOK, TimeInForce.POST_ONLY
DEBIT, CREDIT, RELEASE = EntryKind.DEBIT, EntryKind.CREDIT, EntryKind.RELEASE


def entries(output: EngineOutput, user_id: int) -> list[tuple[int, int, int, int, int]]:
    [update] = [update for update in output.fund_updates if update.user_id == user_id]
    return [(e.order_id, e.asset_id, e.kind, e.available_delta, e.locked_delta) for e in update.entries]


def debit(order_id: int, asset: int, atoms: int) -> tuple[int, int, int, int, int]:
    return (order_id, asset, DEBIT, 0, -atoms)


def credit(order_id: int, asset: int, atoms: int) -> tuple[int, int, int, int, int]:
    return (order_id, asset, CREDIT, atoms, 0)


def release(order_id: int, asset: int, atoms: int) -> tuple[int, int, int, int, int]:
    return (order_id, asset, RELEASE, atoms, -atoms)


def test_resting_order_changes_no_funds_but_its_submitter_is_told() -> None:
    output = Feed()(place(1, 10, BUY, 5, 100))
    [update] = output.fund_updates
    assert (update.user_id, update.request_id, update.order_id, update.entries) == (10, "request-1", 1, ())


def test_fill_debits_what_was_locked_and_credits_the_other_asset() -> None:
    output = Feed()(place(1, 10, SELL, 5, 100), place(2, 20, BUY, 5, 100))
    cost = 100 * 5 * TICK_LOT
    assert entries(output, 20) == [debit(2, USD.asset_id, cost), credit(2, BTC.asset_id, 5 * LOT)]
    assert entries(output, 10) == [debit(1, BTC.asset_id, 5 * LOT), credit(1, USD.asset_id, cost)]


def test_buyers_price_improvement_is_released_with_the_fill() -> None:
    output = Feed()(place(1, 10, SELL, 2, 100), place(2, 20, BUY, 5, 110))
    assert entries(output, 20) == [
        debit(2, USD.asset_id, 200 * TICK_LOT),
        credit(2, BTC.asset_id, 2 * LOT),
        release(2, USD.asset_id, 2 * 10 * TICK_LOT),
    ]


def test_sellers_price_improvement_is_credited() -> None:
    output = Feed()(place(1, 10, BUY, 2, 110), place(2, 20, SELL, 2, 100))
    assert entries(output, 20) == [debit(2, BTC.asset_id, 2 * LOT), credit(2, USD.asset_id, 220 * TICK_LOT)]


def test_cancelled_rest_of_a_taker_is_released_with_its_price_improvement() -> None:
    output = Feed()(place(1, 10, SELL, 2, 100), place(2, 20, BUY, 5, 110, IOC))
    assert entries(output, 20)[2] == release(2, USD.asset_id, (5 * 110 - 2 * 100) * TICK_LOT)


def test_market_buy_gets_back_what_it_did_not_spend() -> None:
    output = Feed()(place(1, 10, SELL, 2, 100), place(2, 20, BUY, 2, time_in_force=IOC, max_spend=999_999))
    assert entries(output, 20)[2] == release(2, USD.asset_id, 999_999 - 200 * TICK_LOT)


def test_several_fills_of_one_order_are_one_entry_of_each_kind() -> None:
    output = Feed()(place(1, 10, SELL, 2, 100), place(2, 11, SELL, 3, 101), place(3, 20, BUY, 5, 101))
    assert entries(output, 20) == [
        debit(3, USD.asset_id, (2 * 100 + 3 * 101) * TICK_LOT),
        credit(3, BTC.asset_id, 5 * LOT),
        release(3, USD.asset_id, 2 * TICK_LOT),
    ]


def test_user_with_several_makers_gets_one_update_with_each_orders_entries() -> None:
    output = Feed()(
        place(1, 10, SELL, 1, 100), place(2, 11, SELL, 1, 100), place(3, 10, SELL, 1, 101), place(4, 20, BUY, 3, 101)
    )
    assert [update.user_id for update in output.fund_updates] == [20, 10, 11]
    assert [entry[0] for entry in entries(output, 10)] == [1, 1, 3, 3]


def test_only_the_submitters_update_carries_the_request() -> None:
    output = Feed()(place(1, 10, SELL, 1, 100), place(2, 20, BUY, 1, 100))
    maker = output.fund_updates[1]
    assert (maker.user_id, maker.request_id, maker.verdict, maker.reason, maker.order_id) == (10, "", 0, 0, 0)


def test_cancel_releases_what_the_rest_still_locks() -> None:
    output = Feed()(place(1, 10, SELL, 5, 100), place(2, 20, BUY, 2, 100), cancel(1, 10))
    assert entries(output, 10) == [release(1, BTC.asset_id, 3 * LOT)]


def test_reduce_releases_the_difference() -> None:
    feed = Feed()
    assert entries(feed(place(1, 10, BUY, 5, 100), reduce(1, 10, 3)), 10) == [release(1, USD.asset_id, 200 * TICK_LOT)]
    assert entries(feed(cancel(1, 10)), 10) == [release(1, USD.asset_id, 300 * TICK_LOT)]


def test_reduce_to_what_is_filled_releases_the_whole_rest() -> None:
    output = Feed()(place(1, 10, SELL, 5, 100), place(2, 20, BUY, 2, 100), reduce(1, 10, 1))
    assert entries(output, 10) == [release(1, BTC.asset_id, 3 * LOT)]


def test_refused_order_gets_its_whole_lock_back() -> None:
    feed = Feed()
    feed(place(1, 10, SELL, 2, 100))
    assert entries(feed(place(2, 20, BUY, 3, 101, POST_ONLY)), 20) == [release(2, USD.asset_id, 303 * TICK_LOT)]
    assert entries(feed(place(3, 20, BUY, 3, 101, FOK)), 20) == [release(3, USD.asset_id, 303 * TICK_LOT)]
    assert entries(feed(place(4, 20, BUY, 3, time_in_force=FOK, max_spend=777)), 20) == [release(4, USD.asset_id, 777)]
    assert entries(feed(place(1, 20, SELL, 3, 105)), 20) == [release(1, BTC.asset_id, 3 * LOT)]


def test_replace_releases_the_old_lock_before_the_new_orders_entries() -> None:
    feed = Feed()
    feed(place(1, 10, SELL, 2, 100), place(2, 20, BUY, 3, 90))
    output = feed(replace(2, 3, 20, BUY, 2, 101))
    assert entries(output, 20) == [
        release(2, USD.asset_id, 270 * TICK_LOT),
        debit(3, USD.asset_id, 200 * TICK_LOT),
        credit(3, BTC.asset_id, 2 * LOT),
        release(3, USD.asset_id, 2 * TICK_LOT),
    ]


def test_replace_of_an_order_that_is_not_live_releases_the_new_lock() -> None:
    output = Feed()(replace(7, 8, 10, BUY, 2, 100))
    assert entries(output, 10) == [release(8, USD.asset_id, BTC_USD.quote_atoms(100, 2))]


def test_replace_to_the_replaced_orders_own_id_releases_both_locks_in_one_entry() -> None:
    output = Feed()(place(1, 10, BUY, 5, 100), replace(1, 1, 10, BUY, 2, 90))
    assert entries(output, 10) == [release(1, USD.asset_id, (500 + 180) * TICK_LOT)]


def test_links_count_up_without_gaps_per_user_partition() -> None:
    feed = Feed()
    last = dict.fromkeys(range(TOPOLOGY.user_partitions), 0)
    for number in range(1, 40):
        user_id, side = 1 + number % 7, (BUY, SELL)[number % 2]
        for update in feed(place(number, user_id, side, 1 + number % 3, 100)).fund_updates:
            partition = TOPOLOGY.user_partition(update.user_id)
            last[partition] += 1
            assert update.link_seq == last[partition]
    assert sum(last.values()) > 40
    assert sum(1 for count in last.values() if count) > 1
