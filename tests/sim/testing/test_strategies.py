"""The strategies draw flows that the pipeline takes, and shrink to what a person would have written."""

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from schema.codes import OrderType, Side, TimeInForce
from sim.deployment import layout_of
from sim.faults.catalogue import OPTIONS
from sim.faults.checks import check_strikes
from sim.flows import make_topology
from sim.flows.operations import CANCEL, DEPOSIT, PLACE, READ, REPLACE, Operation
from sim.scenario import Scenario
from sim.strategies import order_flows, scenarios, strikes
from sim.testing import hold_invariants

TOPOLOGY = make_topology(2, 2, 2)
ONE_SYMBOL = make_topology(1, 1, 1)


def _trades(flow: Sequence[Operation]) -> bool:
    """Whether a resting order is met by another user's, with nothing said about it in between."""
    resting: dict[str, Operation] = {}
    for each in flow:
        if each.kind == PLACE:
            if any(_meets(each, other) for other in resting.values()):
                return True
            if each.order_type == OrderType.LIMIT and each.time_in_force == TimeInForce.GTC:
                resting[each.request_id] = each
        elif each.kind != READ:
            resting.pop(each.reference, None)
    return False


def _meets(taker: Operation, maker: Operation) -> bool:
    if taker.time_in_force in (TimeInForce.POST_ONLY, TimeInForce.FOK) or taker.symbol != maker.symbol:
        return False
    if taker.user_id == maker.user_id or taker.side == maker.side:
        return False
    if taker.order_type == OrderType.MARKET:
        return True
    return taker.price >= maker.price if taker.side == Side.BUY else taker.price <= maker.price


def _drawn(operations_min: int, operations_max: int) -> list[tuple[Operation, ...]]:
    """The same 100 flows each time."""
    flows = []

    @given(order_flows(ONE_SYMBOL, users=2, operations_min=operations_min, operations_max=operations_max))
    @settings(max_examples=100, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
    def draw(flow: tuple[Operation, ...]) -> None:
        flows.append(flow)

    draw()
    return flows


@given(order_flows(TOPOLOGY, users=4, operations_max=40))
def test_a_flow_is_in_order_and_refers_to_orders_before(flow: tuple[Operation, ...]) -> None:
    assert [each.at_ns for each in flow] == sorted(each.at_ns for each in flow)
    before: dict[str, Operation] = {}
    for each in flow:
        if each.reference:
            about = before[each.reference]
            assert about.kind in (PLACE, REPLACE)
            assert each.kind == "read" or (about.user_id, about.symbol) == (each.user_id, each.symbol)
        before[each.request_id] = each
    assert len(before) == len(flow)


@given(st.data(), st.sampled_from(sorted(OPTIONS)))
def test_a_strike_is_one_that_can_be_carried_out(data: st.DataObject, name: str) -> None:
    scenario = Scenario()
    strike = data.draw(strikes(scenario, faults=[name]))
    check_strikes([strike], OPTIONS, layout_of(scenario))
    option = OPTIONS[name]
    assert strike.moment in ("", *(each.name for each in option.moments))
    assert strike.moment or not option.is_always_aimed
    _, strength = option.spans(strike.moment)
    assert strength.low <= strike.strength <= strength.high


def test_a_cancelled_order_shrinks_to_three_operations() -> None:
    found = find(
        scenarios(),
        lambda case: any(each.kind == CANCEL for each in case.script.operations if case.script),
        random=Random(0),
    )
    assert found.script is not None
    assert found.script.strikes == ()
    assert [(each.kind, each.user_id) for each in found.script.operations] == [(DEPOSIT, 1), (PLACE, 1), (CANCEL, 1)]
    assert found.script.operations[1].quantity == 1
    assert found.script.operations[1].order_type == OrderType.LIMIT


@pytest.mark.parametrize(("least", "most", "percent"), [(0, 8, 20), (0, 30, 20), (20, 30, 60)])
def test_flows_trade_often(least: int, most: int, percent: int) -> None:
    flows = _drawn(least, most)
    assert sum(_trades(flow) for flow in flows) * 100 >= percent * len(flows)


def test_long_flows_are_drawn_where_they_are_asked_for() -> None:
    short, long = (sum(len(flow) for flow in _drawn(least, 30)) for least in (0, 20))
    assert long >= 2 * short


def test_a_trade_shrinks_to_two_orders() -> None:
    flow = find(
        order_flows(ONE_SYMBOL, users=2),
        _trades,
        random=Random(0),
        settings=settings(max_examples=1_000, deadline=None, database=None),
    )
    assert len(flow) <= 6
    assert sum(each.kind == PLACE for each in flow) <= 3


def test_a_fault_shrinks_to_one_strike_and_no_operation() -> None:
    found = find(
        scenarios(faults=["crash"]),
        lambda case: case.script is not None and len(case.script.strikes) > 0,
        random=Random(0),
    )
    assert found.script is not None
    assert found.script.operations == ()
    assert len(found.script.strikes) == 1


@given(scenarios(users=2, operations_max=6, strikes_max=1))
@settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_the_pipeline_takes_what_is_drawn(scenario: Scenario) -> None:
    assert hold_invariants(scenario, exercised=["converges"]).holds
