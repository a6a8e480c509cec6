"""Each pass takes away what it may, and keeps what still fails."""

from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.codes import OrderType, TimeInForce
from sim.flows.operations import NOT_REPEATED, Operation
from sim.run import written_out
from sim.scenario import Scenario
from sim.script import Script, Strike
from sim.shrink.simpler import (
    fewer,
    fewer_operations,
    fewer_strikes,
    fewer_users,
    less_time,
    one_of_each,
    script_of,
    shorter,
    simpler_operations,
    simpler_strikes,
)


@pytest.fixture(scope="module")
def case() -> Scenario:
    """A scenario of some hundred operations, written out."""
    return written_out(Scenario(seed=20, orders=60))


def has(case: Scenario, *request_ids: str) -> bool:
    there = {each.request_id for each in script_of(case).operations}
    return there >= set(request_ids)


@given(st.lists(st.integers(), unique=True), st.data())
def test_fewer_leaves_exactly_what_is_needed(items: list[int], data: st.DataObject) -> None:
    needed = data.draw(st.sets(st.sampled_from(items))) if items else set()
    assert fewer(items, lambda kept: needed <= set(kept)) == tuple(each for each in items if each in needed)


def test_fewer_asks_far_less_often_than_there_are_subsets() -> None:
    asked = 0

    def fails(kept: tuple[int, ...]) -> bool:
        nonlocal asked
        asked += 1
        return {3, 500} <= set(kept)

    assert fewer(range(1_000), fails) == (3, 500)
    assert asked < 60


def test_an_operation_goes_with_those_that_refer_to_it(case: Scenario) -> None:
    operations = script_of(case).operations
    cancel = next(each for each in operations if each.kind == "cancel" and not each.reference_user_id)
    found = fewer_operations(case, lambda each: has(each, cancel.request_id))
    assert {each.request_id for each in script_of(found).operations} == {cancel.request_id, cancel.reference}


def test_the_end_is_cut_off(case: Scenario) -> None:
    operations = script_of(case).operations
    found = shorter(case, lambda each: has(each, operations[40].request_id))
    assert script_of(found).operations == operations[:41]


def test_users_who_do_not_matter_go(case: Scenario) -> None:
    operations = script_of(case).operations
    user = operations[-1].user_id
    found = fewer_users(case, lambda each: has(each, operations[-1].request_id))
    assert script_of(found).operations == tuple(each for each in operations if each.user_id == user)


def test_faults_that_do_not_matter_go(case: Scenario) -> None:
    strikes = script_of(case).strikes
    assert len(strikes) > 3
    found = fewer_strikes(case, lambda each: strikes[2] in script_of(each).strikes)
    assert script_of(found).strikes == (strikes[2],)
    assert script_of(fewer_strikes(case, lambda each: True)).strikes == ()


def test_hosts_partitions_and_symbols_become_one(case: Scenario) -> None:
    strikes = (Strike("crash", 1, 1, "matching-2", 0), Strike("slow-link", 1, 1, "gateway-2->kafka-3", 5))
    aimed = with_script(case, lambda script: msgspec.structs.replace(script, strikes=strikes))
    found = one_of_each(aimed, lambda each: True)
    assert (found.instances, found.gateways, found.snapshot_interval_outputs) == (1, 1, 0)
    script = script_of(found)
    assert [each.target for each in script.strikes] == ["matching-1", "gateway-1->kafka-3"]
    assert script.topology.user_partitions == 1
    assert {each.partition for each in script.topology.symbols} == {0}
    assert script.topology.topology().symbol_partitions == 1


def test_hosts_stay_where_one_is_not_enough(case: Scenario) -> None:
    found = one_of_each(case, lambda each: each.instances == 2)
    assert (found.instances, found.gateways) == (2, 1)


def test_operations_become_plain(case: Scenario) -> None:
    found = simpler_operations(case, lambda each: True)
    operations = script_of(found).operations
    assert [each.at_ns for each in operations] == [number * 100_000_000 for number in range(len(operations))]
    assert {each.user_id for each in operations} == set(range(1, len({each.user_id for each in operations}) + 1))
    assert {each.repeat_after_ns for each in operations} == {NOT_REPEATED}
    assert {each.gateway for each in operations} == {0}
    placed = [each for each in operations if each.kind in ("place", "replace")]
    assert {(each.order_type, each.time_in_force, each.quantity) for each in placed} == {
        (int(OrderType.LIMIT), int(TimeInForce.GTC), 1)
    }


def test_what_must_stay_is_not_made_plain(case: Scenario) -> None:
    def market_orders(each: Scenario) -> int:
        return sum(operation.order_type == OrderType.MARKET for operation in script_of(each).operations)

    before = market_orders(case)
    assert before
    assert market_orders(simpler_operations(case, lambda each: market_orders(each) == before)) == before


def test_references_follow_their_request(case: Scenario) -> None:
    found = simpler_operations(case, lambda each: True)
    for old, new in zip(script_of(case).operations, script_of(found).operations, strict=True):
        assert bool(old.reference) == bool(new.reference)
        if old.reference:
            number = [each.request_id for each in script_of(case).operations].index(old.reference)
            assert new.reference == script_of(found).operations[number].request_id


def test_strikes_become_short_weak_and_punctual(case: Scenario) -> None:
    strike = Strike("slow-link", 1_234_567_891, 8_000_000_000, "gateway-1->kafka-1", -8, is_aimed=True)
    one = with_script(case, lambda script: msgspec.structs.replace(script, strikes=(strike,)))
    assert script_of(simpler_strikes(one, lambda each: True)).strikes == (
        Strike("slow-link", 1_200_000_000, 2_000_000_000, "gateway-1->kafka-1", -2),
    )


def test_time_ends_with_the_last_thing_to_do(case: Scenario) -> None:
    first = Operation(at_ns=5, user_id=1, kind="deposit", request_id="r1", asset="USDT", amount=7)
    one = with_script(case, lambda script: msgspec.structs.replace(script, operations=(first,), strikes=()))
    assert less_time(one, lambda each: True).duration_ns == 1_000_005
    assert less_time(one, lambda each: False) == one


def with_script(case: Scenario, change: Callable[[Script], Script]) -> Scenario:
    return replace(case, script=change(script_of(case)))
