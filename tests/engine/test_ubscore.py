"""The balance core decides: what it accepts, locks, rejects and remembers (design 4.2 and 4.7)."""

import msgspec
import pytest

from engine.balance_fold import REQUEST_MEMORY_NS
from engine.corruption import CorruptInputError
from engine.request_rules import MAX_REQUEST_BYTES, read_request
from engine.ubscore import BalanceCore
from schema import wire
from schema.codes import EntryKind, OrderType, Outcome, Reason, Side, TimeInForce, Verdict
from schema.events import AnyRequest, FundEntry, FundUpdate, OrderResponse
from schema.identifiers import INT64_MAX, AssetId, OrderId, UserId
from schema.symbols import Asset
from schema.topics import FUND_UPDATES, ORDER_REQUESTS
from tests.engine.exchange_for_tests import (
    ALICE,
    BOB,
    BTC,
    BTC_USD,
    ETH_USD,
    USD,
    Desk,
    cancel,
    deposit,
    place,
    reduce,
    replace,
    topology,
    users_of,
    withdraw,
)

MARKET, IOC = OrderType.MARKET, TimeInForce.IOC
LOT = BTC_USD.lot_atoms


@pytest.fixture
def desk() -> Desk:
    """Alice has 10,000 atoms of USD and 50 lots of BTC."""
    desk = Desk()
    desk.ask(deposit(10_000, USD, request_id="usd"))
    desk.ask(deposit(50 * LOT, BTC, request_id="btc"))
    return desk


def answer(desk: Desk, request: AnyRequest) -> OrderResponse:
    response = desk.ask(request).response
    assert response is not None
    return response


def update(
    *entries: FundEntry,
    user: int = ALICE,
    link_seq: int = 1,
    symbol_partition: int = 0,
    request_id: str = "",
    verdict: int = 0,
    order_id: int = 0,
    time_ns: int = 1,
) -> FundUpdate:
    return FundUpdate(
        symbol_partition, link_seq, link_seq, time_ns, UserId(user), request_id, verdict, 0, OrderId(order_id), entries
    )


def entry(kind: EntryKind, available: int, locked: int, asset: Asset = USD, order_id: int = 1) -> FundEntry:
    return FundEntry(OrderId(order_id), asset.asset_id, int(kind), available, locked)


# -- locks


def test_limit_buy_locks_price_times_quantity(desk: Desk) -> None:
    decision = desk.ask(place(1, Side.BUY, price=100, quantity=10))
    assert desk.funds() == (9_000, 1_000)
    assert [(each.kind, each.order_id) for each in decision.event.entries] == [(EntryKind.LOCK, 1)]


def test_sell_locks_its_quantity(desk: Desk) -> None:
    desk.ask(place(1, Side.SELL, quantity=3))
    assert desk.funds(asset=BTC) == (47 * LOT, 3 * LOT)


def test_market_buy_locks_the_most_it_may_spend(desk: Desk) -> None:
    desk.ask(place(1, Side.BUY, price=0, order_type=MARKET, time_in_force=IOC, max_spend=4_321))
    assert desk.funds() == (10_000 - 4_321, 4_321)


def test_replace_locks_the_whole_of_the_new_order(desk: Desk) -> None:
    desk.ask(place(1, price=100, quantity=10))
    desk.ask(replace(2, replaced=1, price=200, quantity=10))
    assert desk.funds() == (7_000, 3_000)


def test_cancel_and_reduce_lock_nothing_and_go_to_the_engine(desk: Desk) -> None:
    for request in (cancel(1), reduce(1, 5)):
        decision = desk.ask(request)
        assert decision.event.entries == ()
        assert decision.validated is not None
        assert decision.validated.command == request


def test_an_order_beyond_the_available_funds_is_rejected_and_goes_nowhere(desk: Desk) -> None:
    decision = desk.ask(place(1, price=1_000, quantity=11))
    assert decision.response is not None
    assert (decision.response.outcome, decision.response.reason) == (Outcome.REJECTED, Reason.INSUFFICIENT_FUNDS)
    assert decision.validated is None
    assert (decision.event.validated_partition, decision.event.validated_link_seq) == (-1, 0)
    assert desk.funds() == (10_000, 0)


def test_locked_funds_cannot_be_withdrawn(desk: Desk) -> None:
    desk.ask(place(1, price=100, quantity=90))
    assert answer(desk, withdraw(1_001)).reason == Reason.INSUFFICIENT_FUNDS
    assert answer(desk, withdraw(1_000, request_id="less")).outcome == Outcome.ACCEPTED
    assert desk.funds() == (0, 9_000)


# -- what goes to the engine


def test_each_symbol_partition_has_its_own_link_without_gaps(desk: Desk) -> None:
    sent = [desk.ask(place(n, symbol=symbol)) for n, symbol in enumerate([BTC_USD, ETH_USD, BTC_USD], start=1)]
    assert [(d.event.validated_partition, d.event.validated_link_seq) for d in sent] == [(0, 1), (1, 1), (0, 2)]
    assert [d.validated.link_seq for d in sent if d.validated] == [1, 1, 2]


def test_validated_order_names_the_event_that_accepted_it(desk: Desk) -> None:
    decision = desk.ask(place(1))
    assert decision.validated is not None
    assert (decision.validated.source_partition, decision.validated.source_sequence) == (0, decision.event.sequence)


# -- what is rejected


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (msgspec.structs.replace(place(1), symbol_id=99), Reason.UNKNOWN_SYMBOL),
        (msgspec.structs.replace(cancel(1), symbol_id=99), Reason.UNKNOWN_SYMBOL),
        (msgspec.structs.replace(deposit(1), asset_id=AssetId(99)), Reason.UNKNOWN_ASSET),
        (place(1, price=0), Reason.INVALID_PRICE),
        (place(1, price=-5), Reason.INVALID_PRICE),
        (place(1, quantity=0), Reason.INVALID_QUANTITY),
        (place(1, quantity=-1, order_type=MARKET, time_in_force=IOC, price=0, max_spend=1), Reason.INVALID_QUANTITY),
        (reduce(1, 0), Reason.INVALID_QUANTITY),
        (deposit(0), Reason.INVALID_AMOUNT),
        (withdraw(-1), Reason.INVALID_AMOUNT),
        (place(1, order_type=MARKET, time_in_force=IOC, price=0, max_spend=-1), Reason.INVALID_AMOUNT),
        (place(1, order_type=MARKET, time_in_force=IOC, price=0, max_spend=0), Reason.INVALID_COMBINATION),
        (place(1, order_type=MARKET, time_in_force=IOC, price=7, max_spend=9), Reason.INVALID_COMBINATION),
        (place(1, order_type=MARKET, time_in_force=TimeInForce.GTC, price=0, max_spend=9), Reason.INVALID_COMBINATION),
        (
            place(1, order_type=MARKET, time_in_force=TimeInForce.POST_ONLY, price=0, max_spend=9),
            Reason.INVALID_COMBINATION,
        ),
        (place(1, Side.SELL, order_type=MARKET, time_in_force=IOC, price=0, max_spend=9), Reason.INVALID_COMBINATION),
        (place(1, max_spend=9), Reason.INVALID_COMBINATION),
        (msgspec.structs.replace(place(1), side=2), Reason.INVALID_COMBINATION),
        (msgspec.structs.replace(place(1), order_type=2), Reason.INVALID_COMBINATION),
        (msgspec.structs.replace(place(1), time_in_force=4), Reason.INVALID_COMBINATION),
        (msgspec.structs.replace(replace(2, 1), side=-1), Reason.INVALID_COMBINATION),
        (place(1, price=INT64_MAX, quantity=2), Reason.OVERFLOW),
        (place(1, Side.SELL, price=1, quantity=INT64_MAX // LOT + 1), Reason.OVERFLOW),
        (replace(2, 1, price=INT64_MAX, quantity=2), Reason.OVERFLOW),
        (place(0), Reason.INVALID_IDENTIFIER),
        (cancel(-1), Reason.INVALID_IDENTIFIER),
        (replace(2, 2), Reason.INVALID_IDENTIFIER),
        (place(1, request_id="x" * 65), Reason.INVALID_IDENTIFIER),
        (place(1, request_id="é" * 33), Reason.INVALID_IDENTIFIER),
        (msgspec.structs.replace(place(1), request_id=""), Reason.INVALID_IDENTIFIER),
        (msgspec.structs.replace(place(1), user_id=UserId(0)), Reason.INVALID_IDENTIFIER),
    ],
)
def test_what_cannot_be_is_rejected_with_its_reason(desk: Desk, request_: AnyRequest, reason: Reason) -> None:
    response = answer(desk, request_)
    assert (response.outcome, response.reason) == (Outcome.REJECTED, reason)
    assert desk.log[-1].validated is None
    assert desk.funds() == (10_000, 0)


@pytest.mark.parametrize("tif", [TimeInForce.IOC, TimeInForce.FOK])
@pytest.mark.parametrize("order_type", [OrderType.LIMIT, OrderType.MARKET])
def test_immediate_orders_of_both_types_are_accepted(desk: Desk, order_type: OrderType, tif: TimeInForce) -> None:
    is_market = order_type == MARKET
    order = place(
        1, order_type=order_type, time_in_force=tif, price=0 if is_market else 5, max_spend=9 if is_market else 0
    )
    assert answer(desk, order).outcome == Outcome.ACCEPTED


def test_a_user_of_another_partition_is_rejected_and_not_remembered() -> None:
    top = topology(user_partitions=2)
    desk = Desk(top, partition=0)
    stranger = users_of(top, 1, 1)[0]
    for _ in range(2):
        response = answer(desk, deposit(5, user=stranger))
        assert (response.reason, response.is_repeat) == (Reason.INVALID_IDENTIFIER, False)
    assert desk.core.remembered == {}


def test_an_unbelievable_sender_does_not_move_event_time(desk: Desk) -> None:
    answer(desk, place(1, request_id="x" * 65, at_ns=INT64_MAX))
    assert desk.core.time_ns == 1


def test_deposits_of_all_partitions_together_fit_a_column() -> None:
    top = topology(user_partitions=4)
    desk = Desk(top, partition=0)
    user = users_of(top, 0, 1)[0]
    share = INT64_MAX // 4
    assert answer(desk, deposit(share, user=user, request_id="a")).outcome == Outcome.ACCEPTED
    assert answer(desk, deposit(1, user=user, request_id="b")).reason == Reason.OVERFLOW
    assert answer(desk, withdraw(10, user=user, request_id="c")).outcome == Outcome.ACCEPTED
    assert answer(desk, deposit(10, user=user, request_id="d")).outcome == Outcome.ACCEPTED


def test_a_lock_that_would_overflow_the_locked_column_is_rejected() -> None:
    # A debit of this user is still under way while a later credit has come: locked and available hold the same funds.
    desk = Desk()
    desk.ask(deposit(INT64_MAX - 5))
    desk.ask(place(1, price=INT64_MAX - 5, quantity=1, symbol=ETH_USD))
    desk.core.apply_update(update(entry(EntryKind.CREDIT, INT64_MAX - 5, 0)), FUND_UPDATES, 0, 0)
    assert answer(desk, place(2, price=6, quantity=1)).reason == Reason.OVERFLOW
    assert answer(desk, place(3, price=5, quantity=1)).outcome == Outcome.ACCEPTED


# -- requests are remembered


def test_a_repeat_gets_the_first_answer_and_does_nothing_else(desk: Desk) -> None:
    first = answer(desk, place(7, request_id="mine", at_ns=10))
    funds = desk.funds()
    # Another gateway gave the retry another order id and another time.
    again = desk.ask(place(8, request_id="mine", at_ns=20))
    assert again.response == msgspec.structs.replace(first, is_repeat=True, time_ns=20)
    assert again.response.order_id == 7
    assert again.validated is None
    assert again.event.entries == ()
    assert desk.funds() == funds


def test_a_repeat_makes_an_event_of_its_own(desk: Desk) -> None:
    desk.ask(place(7))
    before = desk.core.sequence
    assert desk.ask(place(7)).event.sequence == before + 1


def test_a_rejection_is_remembered_even_when_funds_have_come_since(desk: Desk) -> None:
    poor = place(1, price=10_000, quantity=100)
    assert answer(desk, poor).reason == Reason.INSUFFICIENT_FUNDS
    desk.ask(deposit(10_000_000, request_id="rich"))
    again = answer(desk, poor)
    assert (again.outcome, again.reason, again.is_repeat) == (Outcome.REJECTED, Reason.INSUFFICIENT_FUNDS, True)


def test_another_body_under_a_used_request_id_is_refused_and_the_first_answer_kept(desk: Desk) -> None:
    first = place(7, request_id="mine")
    desk.ask(first)
    other = answer(desk, place(8, request_id="mine", price=101))
    assert (other.outcome, other.reason, other.order_id) == (Outcome.REJECTED, Reason.REQUEST_ID_REUSED, 0)
    assert answer(desk, first).order_id == 7
    assert answer(desk, first).outcome == Outcome.ACCEPTED


def test_two_users_may_use_the_same_request_id(desk: Desk) -> None:
    desk.ask(deposit(500, user=BOB, request_id="usd"))
    assert desk.funds(BOB) == (500, 0)


def test_a_repeat_tells_the_engines_verdict_once_it_is_known(desk: Desk) -> None:
    order = place(7)
    assert answer(desk, order).verdict == Verdict.NONE
    placed = update(request_id="place-7", verdict=Verdict.PLACED, order_id=7)
    second = desk.core.apply_update(placed, FUND_UPDATES, 0, 0).response
    assert second is not None
    assert (second.request_id, second.verdict, second.outcome) == ("place-7", Verdict.PLACED, Outcome.ACCEPTED)
    again = answer(desk, order)
    assert (again.verdict, again.is_repeat) == (Verdict.PLACED, True)


def test_every_response_names_the_body_that_it_answers(desk: Desk) -> None:
    first, other = place(7, request_id="mine"), place(8, request_id="mine", price=101)
    unnamed, poor = place(9, request_id="x" * 65), place(10, price=INT64_MAX // 100)
    for request in (first, first, other, unnamed, poor, cancel(7), deposit(5, request_id="more"), withdraw(10**15)):
        decision = desk.ask(request)
        assert decision.response is not None
        assert decision.response.body_hash == decision.event.body_hash == wire.body_hash(request)


@pytest.mark.parametrize("restart", ["from nothing", "from a snapshot", "from the log"])
def test_verdict_names_the_body_that_the_engine_judged_whatever_the_core_was_restarted_from(
    desk: Desk, restart: str
) -> None:
    order = place(7, request_id="mine")
    desk.ask(order)
    desk.ask(place(8, request_id="mine", price=101))
    core = desk.core
    if restart == "from a snapshot":
        core = BalanceCore.restore(core.topology, 0, core.snapshot())
    elif restart == "from the log":
        core = BalanceCore(core.topology, 0)
        for decision in desk.log:
            core.fold(decision.event, decision.hash)
    verdict = core.apply_update(
        update(request_id="mine", verdict=Verdict.PLACED, order_id=7), FUND_UPDATES, 0, 0
    ).response
    assert verdict is not None
    assert verdict.body_hash == wire.body_hash(order)


@pytest.mark.parametrize("is_used_again", [False, True])
def test_verdict_on_a_forgotten_request_names_no_body(desk: Desk, is_used_again: bool) -> None:
    desk.ask(place(7, request_id="mine", at_ns=1_000))
    later = place(8, request_id="mine" if is_used_again else "another", at_ns=1_000 + REQUEST_MEMORY_NS)
    assert not answer(desk, later).is_repeat
    verdict = desk.core.apply_update(
        update(request_id="mine", verdict=Verdict.PLACED, order_id=7), FUND_UPDATES, 0, 0
    ).response
    assert verdict is not None
    assert (verdict.verdict, verdict.body_hash) == (Verdict.PLACED, 0)


@pytest.mark.parametrize(("waited_ns", "is_repeat"), [(REQUEST_MEMORY_NS - 1, True), (REQUEST_MEMORY_NS, False)])
def test_a_request_is_forgotten_after_24_hours_of_event_time(desk: Desk, waited_ns: int, is_repeat: bool) -> None:
    desk.ask(place(7, request_id="mine", at_ns=1_000))
    assert answer(desk, place(7, request_id="mine", at_ns=1_000 + waited_ns)).is_repeat is is_repeat


def test_forgetting_leaves_nothing_behind(desk: Desk) -> None:
    desk.ask(cancel(1, at_ns=5 + REQUEST_MEMORY_NS))
    assert list(desk.core.remembered) == [(ALICE, "cancel-1")]


def test_event_time_never_goes_back(desk: Desk) -> None:
    desk.ask(cancel(1, at_ns=500))
    assert desk.ask(cancel(2, at_ns=400)).event.time_ns == 500


# -- what the engine says


def test_an_update_moves_funds_as_it_says(desk: Desk) -> None:
    desk.ask(place(1, price=100, quantity=10))
    fill = update(
        entry(EntryKind.DEBIT, 0, -900),
        entry(EntryKind.RELEASE, 100, -100),
        entry(EntryKind.CREDIT, 10 * LOT, 0, BTC),
    )
    decision = desk.core.apply_update(fill, FUND_UPDATES, 0, 0)
    assert desk.funds() == (9_100, 0)
    assert desk.funds(asset=BTC) == (60 * LOT, 0)
    assert [
        (each.asset_id, each.ledger_seq, each.available_after, each.locked_after) for each in decision.event.entries
    ] == [
        (USD.asset_id, 3, 9_000, 100),
        (USD.asset_id, 4, 9_100, 0),
        (BTC.asset_id, 2, 60 * LOT, 0),
    ]


def test_an_update_without_a_request_answers_nobody(desk: Desk) -> None:
    assert desk.core.apply_update(update(), FUND_UPDATES, 0, 0).response is None


@pytest.mark.parametrize(
    "bad",
    [
        update(link_seq=2),
        update(link_seq=0),
        update(entry(EntryKind.DEBIT, 0, -1)),
        update(entry(EntryKind.RELEASE, 10, -10)),
        update(entry(EntryKind.CREDIT, INT64_MAX, 0)),
        # The first entry alone would do; both together would not.
        update(entry(EntryKind.CREDIT, -6_000, 0), entry(EntryKind.CREDIT, -6_000, 0)),
    ],
)
def test_a_corrupt_update_is_refused_and_changes_nothing(desk: Desk, bad: FundUpdate) -> None:
    before = desk.core.snapshot()
    with pytest.raises(CorruptInputError):
        desk.core.apply_update(bad, FUND_UPDATES, 0, 0)
    assert desk.core.snapshot() == before


def test_an_update_for_a_user_of_another_partition_is_corrupt() -> None:
    top = topology(user_partitions=2)
    core = BalanceCore(top, 0)
    with pytest.raises(CorruptInputError, match="not of user partition 0"):
        core.apply_update(update(user=users_of(top, 1, 1)[0]), FUND_UPDATES, 0, 0)


def test_links_from_each_symbol_partition_are_counted_apart(desk: Desk) -> None:
    desk.core.apply_update(update(symbol_partition=0, link_seq=1), FUND_UPDATES, 0, 0)
    desk.core.apply_update(update(symbol_partition=1, link_seq=1), FUND_UPDATES, 0, 1)
    desk.core.apply_update(update(symbol_partition=0, link_seq=2), FUND_UPDATES, 0, 2)
    assert desk.core.links_from_symbols == {0: 2, 1: 1}


# -- records


def test_every_input_makes_one_chained_event_that_names_its_place(desk: Desk) -> None:
    desk.ask(place(1))
    desk.ask(place(1))
    desk.core.apply_undecodable(ORDER_REQUESTS, 0, 9)
    events = [decision.event for decision in desk.log]
    assert [event.sequence for event in events] == [1, 2, 3, 4]
    assert [event.prev_hash for event in events] == [wire.GENESIS_HASH, *(d.hash for d in desk.log[:-1])]
    assert [event.input_offset for event in events] == [0, 1, 2, 3]
    for decision in desk.log:
        assert wire.BALANCE_EVENT.unseal(decision.value) == (decision.event, decision.hash)


def test_an_undecodable_input_leaves_only_its_offset(desk: Desk) -> None:
    funds = desk.funds()
    decision = desk.core.apply_undecodable(ORDER_REQUESTS, 0, 41)
    assert (decision.event.request, decision.response, decision.validated) == (None, None, None)
    assert desk.core.next_offsets == {ORDER_REQUESTS: 42}
    assert desk.funds() == funds


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"garbage",
        wire.encode(place(1, request_id="x" * MAX_REQUEST_BYTES)),
        wire.encode(place(1, price=2**64 - 1)),
        wire.encode(msgspec.structs.replace(place(1), side=2**40)),
        wire.encode(update()),
    ],
)
def test_a_record_that_no_column_could_hold_is_no_request(value: bytes | None) -> None:
    with pytest.raises(wire.WireError):
        read_request(value)


def test_every_kind_of_request_is_read_back() -> None:
    for request in (place(1), cancel(1), reduce(1, 2), replace(2, 1), deposit(5), withdraw(5)):
        assert read_request(wire.encode(request)) == request
