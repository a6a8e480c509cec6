"""The strategies draw flows that the pipeline takes, and shrink to what a person would have written."""

from random import Random

from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st

from schema.codes import OrderType
from sim.deployment import layout_of
from sim.faults.catalogue import OPTIONS
from sim.faults.checks import check_strikes
from sim.flows import make_topology
from sim.flows.operations import CANCEL, DEPOSIT, PLACE, REPLACE, Operation
from sim.scenario import Scenario
from sim.strategies import order_flows, scenarios, strikes
from sim.testing import hold_invariants

TOPOLOGY = make_topology(2, 2, 2)


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
