"""Each pass takes away what it may, and keeps what still fails."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.codes import OrderType, TimeInForce
from sim.flows.operations import NOT_REPEATED, Operation
from sim.run import written_out
from sim.scenario import Scenario
from sim.script import Strike
from sim.shrink.fewer import (
    Test,
    fewer,
    fewer_operations,
    fewer_pairs,
    fewer_strikes,
    fewer_symbols,
    fewer_users,
    less_time,
    script_of,
    shorter,
    sooner,
    with_script,
)
from sim.shrink.simpler import (
    AMPLE,
    ample_deposits,
    calm,
    fewer_names,
    one_aimed_strike,
    one_bold_strike,
    one_of_each,
    paced,
    plain_snapshots,
    simpler_operations,
    simpler_strikes,
)


@pytest.fixture(scope="module")
def case() -> Scenario:
    """A scenario of some hundred operations, written out."""
    return written_out(Scenario(seed=20, orders=60))


def when(condition: Callable[[Scenario], bool]) -> Test:
    """A test that a case fails, with its own seed, when the condition holds."""
    return lambda case: case if condition(case) else None


ALWAYS = when(lambda case: True)
NEVER = when(lambda case: False)


def having(*request_ids: str) -> Test:
    return when(lambda case: {each.request_id for each in script_of(case).operations} >= set(request_ids))


def least(items: tuple[int, ...], fails: Callable[[tuple[int, ...]], bool]) -> tuple[int, ...]:
    return fewer(items, lambda case: case, lambda case, kept: kept, lambda case: case if fails(case) else None)


@given(st.lists(st.integers(), unique=True), st.data())
def test_fewer_leaves_exactly_what_is_needed(items: list[int], data: st.DataObject) -> None:
    needed = data.draw(st.sets(st.sampled_from(items))) if items else set()
    assert least(tuple(items), lambda kept: needed <= set(kept)) == tuple(each for each in items if each in needed)


def test_fewer_asks_far_less_often_than_there_are_subsets() -> None:
    asked = 0

    def fails(kept: tuple[int, ...]) -> bool:
        nonlocal asked
        asked += 1
        return {3, 500} <= set(kept)

    assert least(tuple(range(1_000)), fails) == (3, 500)
    assert asked < 60


def test_an_operation_goes_with_those_that_refer_to_it(case: Scenario) -> None:
    operations = script_of(case).operations
    cancel = next(each for each in operations if each.kind == "cancel" and not each.reference_user_id)
    found = fewer_operations(case, having(cancel.request_id))
    assert {each.request_id for each in script_of(found).operations} == {cancel.request_id, cancel.reference}


def test_the_end_is_cut_off(case: Scenario) -> None:
    operations = script_of(case).operations
    found = shorter(case, having(operations[40].request_id))
    assert script_of(found).operations == operations[:41]


def test_strikes_come_sooner(case: Scenario) -> None:
    strikes = (Strike("crash", 800, 1, "matching-1", 0), Strike("crash", 1_600, 1, "matching-2", 0))
    found = sooner(with_script(case, strikes=strikes), when(lambda each: script_of(each).strikes[0].at_ns >= 200))
    assert [each.at_ns for each in script_of(found).strikes] == [200, 400]
    assert sooner(with_script(case, strikes=()), ALWAYS) == with_script(case, strikes=())


def test_all_faults_go_at_once(case: Scenario) -> None:
    assert calm(case, ALWAYS) == with_script(case, strikes=())
    assert calm(case, NEVER) == case


def test_a_flow_that_does_not_fail_without_faults_at_its_own_pace_is_tried_at_an_even_one(case: Scenario) -> None:
    def fails(case: Scenario) -> bool:
        first, second, third = (each.at_ns for each in script_of(case).operations[:3])
        return second - first == third - second

    found = script_of(calm(case, when(fails)))
    assert found.strikes == ()
    assert [each.request_id for each in found.operations] == [each.request_id for each in script_of(case).operations]


def test_everything_at_once_is_tried_where_an_even_pace_is_not_enough(case: Scenario) -> None:
    found = calm(case, when(lambda case: len({each.at_ns for each in script_of(case).operations}) == 1))
    assert script_of(found).strikes == ()
    assert [each.request_id for each in script_of(found).operations] == [
        each.request_id for each in script_of(case).operations
    ]


def test_no_snapshots_are_plainest_and_then_one_after_each_output(case: Scenario) -> None:
    assert plain_snapshots(case, ALWAYS) == replace(case, snapshot_interval_outputs=0)
    needed = when(lambda each: each.snapshot_interval_outputs > 0)
    assert plain_snapshots(case, needed) == replace(case, snapshot_interval_outputs=1)
    assert plain_snapshots(case, NEVER) == case


def test_one_strike_at_its_worst_moment_is_tried_instead_of_all(case: Scenario) -> None:
    def fails(case: Scenario) -> bool:
        return [each.fault for each in script_of(case).strikes] == ["writer-crash"]

    (strike,) = script_of(one_aimed_strike(case, when(fails))).strikes
    assert (strike.target, strike.moment) == ("settlement-1", "rows-being-written")
    assert one_aimed_strike(case, NEVER) == case
    single = with_script(case, strikes=script_of(case).strikes[:1])
    assert one_aimed_strike(single, ALWAYS) == single


def test_users_who_do_not_matter_go(case: Scenario) -> None:
    operations = script_of(case).operations
    user = operations[-1].user_id
    found = fewer_users(case, having(operations[-1].request_id))
    assert script_of(found).operations == tuple(each for each in operations if each.user_id == user)


def test_faults_that_do_not_matter_go(case: Scenario) -> None:
    strikes = script_of(case).strikes
    assert len(strikes) > 3
    found = fewer_strikes(case, when(lambda each: strikes[2] in script_of(each).strikes))
    assert script_of(found).strikes == (strikes[2],)
    assert script_of(fewer_strikes(case, ALWAYS)).strikes == ()


def test_hosts_partitions_and_symbols_become_one(case: Scenario) -> None:
    strikes = (Strike("crash", 1, 1, "matching-2", 0), Strike("slow-link", 1, 1, "gateway-2->kafka-3", 5))
    aimed = with_script(case, strikes=strikes)
    found = one_of_each(aimed, ALWAYS)
    assert (found.instances, found.gateways) == (1, 1)
    script = script_of(found)
    assert [each.target for each in script.strikes] == ["matching-1", "gateway-1->kafka-3"]
    assert script.topology.user_partitions == 1
    assert {each.partition for each in script.topology.symbols} == {0}
    assert script.topology.topology().symbol_partitions == 1


def test_hosts_stay_where_one_is_not_enough(case: Scenario) -> None:
    found = one_of_each(case, when(lambda each: each.instances == 2))
    assert (found.instances, found.gateways) == (2, 1)


def test_operations_become_plain(case: Scenario) -> None:
    operations = script_of(simpler_operations(case, ALWAYS)).operations
    assert {each.repeat_after_ns for each in operations} == {NOT_REPEATED}
    assert {each.gateway for each in operations} == {0}
    assert {each.kind for each in operations} <= {"deposit", "withdraw", "place", "cancel", "read", "raw"}
    placed = [each for each in operations if each.kind == "place"]
    assert {(each.order_type, each.time_in_force, each.quantity) for each in placed} == {
        (int(OrderType.LIMIT), int(TimeInForce.GTC), 1)
    }
    prices = {(each.symbol, each.price) for each in placed}
    assert len(prices) == len({symbol for symbol, _ in prices})


def test_what_must_stay_is_not_made_plain(case: Scenario) -> None:
    def market_orders(each: Scenario) -> int:
        return sum(operation.order_type == OrderType.MARKET for operation in script_of(each).operations)

    before = market_orders(case)
    assert before
    assert market_orders(simpler_operations(case, when(lambda each: market_orders(each) == before))) == before


def test_users_and_requests_are_numbered_and_references_follow(case: Scenario) -> None:
    found = fewer_names(case, ALWAYS)
    operations = script_of(found).operations
    assert {each.user_id for each in operations} == set(range(1, len({each.user_id for each in operations}) + 1))
    before = [each.request_id for each in script_of(case).operations]
    for old, new in zip(script_of(case).operations, operations, strict=True):
        assert bool(old.reference) == bool(new.reference)
        if old.reference:
            assert new.reference == operations[before.index(old.reference)].request_id


def test_a_few_users_become_one_who_trades_in_one_symbol(case: Scenario) -> None:
    orders = [each for each in script_of(case).operations if each.kind == "place"]
    mine = orders[0]
    others = next(each for each in orders if each.user_id != mine.user_id and each.symbol != mine.symbol)
    found = script_of(fewer_names(with_script(case, operations=(mine, others)), ALWAYS))
    assert [each.user_id for each in found.operations] == [1, 1]
    assert {each.symbol for each in found.operations} == {mine.symbol}


def test_symbols_that_do_not_matter_go(case: Scenario) -> None:
    operations = script_of(case).operations
    order = next(each for each in operations if each.kind == "place")
    found = fewer_symbols(case, having(order.request_id))
    assert {each.symbol for each in script_of(found).operations} == {"", order.symbol}
    assert order in script_of(found).operations


def test_deposits_become_ample(case: Scenario) -> None:
    deposits = [each for each in script_of(ample_deposits(case, ALWAYS)).operations if each.kind == "deposit"]
    assert {each.amount for each in deposits} == {AMPLE}


def test_two_operations_that_need_each_other_go_together(case: Scenario) -> None:
    few = with_script(case, operations=script_of(case).operations[:6])
    kept = {each.request_id for each in script_of(few).operations}
    one, other = script_of(few).operations[1], script_of(few).operations[4]

    def both_or_none(each: Scenario) -> bool:
        gone = kept - {operation.request_id for operation in script_of(each).operations}
        return gone in (set(), {one.request_id, other.request_id})

    assert fewer_operations(few, when(both_or_none)) == few
    found = fewer_pairs(few, when(both_or_none))
    assert len(script_of(found).operations) == 4


def test_strikes_keep_their_place_when_operations_are_paced(case: Scenario) -> None:
    operations = tuple(
        Operation(at_ns=at_ns, user_id=1, kind="deposit", request_id=f"r{at_ns}", asset="USDT", amount=7)
        for at_ns in (4_000_000_000, 6_000_000_000, 9_000_000_000)
    )
    strikes = tuple(Strike("crash", at_ns, 1, "matching-1", 0) for at_ns in (1_000, 5_000_000_000, 9_500_000_000))
    found = paced(replace(with_script(case, operations=operations, strikes=strikes), duration_ns=10**10), ALWAYS)
    assert [each.at_ns for each in script_of(found).operations] == [0, 100_000_000, 200_000_000]
    assert [each.at_ns for each in script_of(found).strikes] == [0, 50_000_000, 700_000_000]
    assert found.duration_ns == 1_200_000_000


def test_strikes_become_short_weak_and_punctual(case: Scenario) -> None:
    strikes = (
        Strike("clock-jump", 1_234_567_891, 8_000_000_000, "gateway-1", -8),
        Strike("crash-loop", 1_300_000_000, 4_000_000_000, "matching-1", 400),
    )
    both = with_script(case, strikes=strikes)
    assert script_of(simpler_strikes(both, ALWAYS)).strikes == (
        Strike("clock-jump", 1_200_000_000, 1_000_000, "gateway-1", 0),
        Strike("crash-loop", 1_300_000_000, 1_000_000, "matching-1", 150),
    )

    def fails(case: Scenario) -> bool:
        return all(each.duration_ns >= 1_500_000_000 and abs(each.strength) >= 2 for each in script_of(case).strikes)

    assert script_of(simpler_strikes(both, when(fails))).strikes == (
        Strike("clock-jump", 1_200_000_000, 2_000_000_000, "gateway-1", -2),
        Strike("crash-loop", 1_300_000_000, 2_000_000_000, "matching-1", 150),
    )


def test_one_long_and_strong_strike_takes_the_place_of_several(case: Scenario) -> None:
    strikes = (Strike("slow-link", 5, 1, "gateway-1->kafka-1", 1), Strike("crash", 7, 1, "matching-1", 0))
    two = with_script(case, strikes=strikes)
    assert script_of(one_bold_strike(two, ALWAYS)).strikes == (
        Strike("slow-link", 5, 5_000_000_000, "gateway-1->kafka-1", 1),
    )
    assert one_bold_strike(two, NEVER) == two


def test_time_ends_with_the_last_thing_to_do(case: Scenario) -> None:
    first = Operation(at_ns=5, user_id=1, kind="deposit", request_id="r1", asset="USDT", amount=7)
    late = Strike("crash", 3_000_000_000, 1, "matching-1", 0)
    one = with_script(case, operations=(first,), strikes=(late,))
    assert less_time(one, ALWAYS).duration_ns == 1_000_005
    assert script_of(less_time(one, ALWAYS)).strikes == ()
    with_strike = less_time(one, when(lambda each: late in script_of(each).strikes))
    assert with_strike.duration_ns == 5_000_000_005
    assert less_time(one, NEVER) == one
