"""The strategies draw flows that the pipeline takes, and shrink to what a person would have written."""

import re
from collections import Counter
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
from sim.scenario import Scenario, ScenarioError
from sim.strategies import order_flows, scenarios, strikes
from sim.testing import hold_invariants

TOPOLOGY = make_topology(2, 2, 2)
ONE_SYMBOL = make_topology(1, 1, 1)
AT_THE_END = ("active_orders", "balances")


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


def _has_read_of_anothers_order(scenario: Scenario) -> bool:
    flow = scenario.script.operations if scenario.script is not None else ()
    return any(each.query == "order" and each.reference_user_id != each.user_id for each in flow)


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
    before: dict[tuple[int, str], Operation] = {}
    for each in flow:
        if each.reference:
            about = before[each.reference_user_id or each.user_id, each.reference]
            assert about.kind in (PLACE, REPLACE)
            assert each.kind == READ or (about.user_id, about.symbol) == (each.user_id, each.symbol)
        before[each.user_id, each.request_id] = each
    assert len(before) == len(flow)


def test_reads_of_an_order_are_of_ones_own_and_of_other_users_and_other_reads_of_none() -> None:
    reads = [each for flow in _drawn(20, 30) for each in flow if each.kind == READ]
    of_an_order = [each for each in reads if each.query == "order"]
    assert {each.user_id == each.reference_user_id for each in of_an_order} == {True, False}
    assert [each for each in reads if each.reference] == of_an_order


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


@pytest.mark.parametrize(
    ("faults", "complaint"),
    [
        (["crash", "crsh"], "unknown fault 'crsh'; there are: slow-link, "),
        ("crash", "faults wants a list of names, such as ['crash', 'pause'], not the text 'crash'"),
    ],
)
def test_faults_that_there_are_not_are_refused_before_anything_is_drawn(faults: Sequence[str], complaint: str) -> None:
    with pytest.raises(ScenarioError, match=re.escape(complaint)):
        scenarios(faults=faults)
    with pytest.raises(ScenarioError, match=re.escape(complaint)):
        strikes(Scenario(), faults=faults)


@given(scenarios(faults=[]))
@settings(max_examples=10)
def test_of_no_faults_none_strikes(scenario: Scenario) -> None:
    assert scenario.script is not None
    assert scenario.script.strikes == ()


def test_of_no_faults_there_is_no_strike() -> None:
    assert strikes(Scenario(), faults=[]).is_empty


@given(scenarios(users=2, operations_min=4, operations_max=6, strikes_max=1))
@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_the_pipeline_takes_what_is_drawn(scenario: Scenario) -> None:
    assert hold_invariants(scenario, exercised=["converges"]).holds


@given(scenarios(users=2, operations_min=20, faults=[]).filter(_has_read_of_anothers_order))
@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_each_read_that_is_drawn_is_sent_and_answered(scenario: Scenario) -> None:
    """But of an order that was not taken; and at the end each user looks at their live orders and balances."""
    assert scenario.script is not None
    flow = scenario.script.operations
    trace = hold_invariants(scenario).trace
    answers = trace.events("client_answers", "user_id", "request_id", "order_id", "outcome")
    taken = answers[answers["outcome"] == "accepted"]
    orders = dict(zip(zip(taken["user_id"], taken["request_id"], strict=True), taken["order_id"], strict=True))
    orders[0, ""] = 0  # of the reads that are of no order
    expected = Counter(
        (each.user_id, each.query, orders[each.reference_user_id, each.reference])
        for each in flow
        if each.kind == READ and (each.reference_user_id, each.reference) in orders
    )
    expected.update((user, query, 0) for user in {each.user_id for each in flow} for query in AT_THE_END)
    reads = trace.events("reads", "user_id", "query", "order_id", "outcome")
    assert set(reads["outcome"]) <= {"ok"}
    assert Counter(zip(reads["user_id"], reads["query"], reads["order_id"], strict=True)) == expected
