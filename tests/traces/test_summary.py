"""What a person reads tells what happened, in order."""

import pandas as pd
import pytest

from tests.traces.damage import CANCELLED, PARTIAL, RESTING, SOLD, busy_world, drop
from traces.invariants import check
from traces.summary import (
    completions_by_reason,
    counts,
    faults_struck,
    first_order,
    refusals_by_reason,
    story,
    verdict_lines,
    violation_lines,
)
from traces.trace import Trace
from traces.verdicts import Verdict


@pytest.fixture(scope="module")
def trace() -> Trace:
    """The busy world's trace."""
    world = busy_world()
    world.t = 1
    world.emit("faults", fault="clog", phase="start", target="kafka-1")
    world.emit("faults", fault="clog", phase="end", target="kafka-1")
    world.emit("log_lines", service="engine", level="info", event="OrderPlacement emitted", order_id=RESTING)
    return world.trace()


def _in_this_order(lines: list[str], *parts: str) -> bool:
    rest = iter(lines)
    return all(any(part in line for line in rest) for part in parts)


def test_story_tells_the_life_of_an_order_from_request_to_rows(trace: Trace) -> None:
    lines = story(trace, SOLD)
    assert _in_this_order(
        lines, "asks to place", "accepted", "takes place", "placement: revision 1", "insert active_orders revision 1",
        "is answered accepted", "4 lots at 100 as maker", "update: revision 2", "reads revision 2",
        "completion: revision 3", "once settled: row of active_orders: revision 3, filled",
        "25 hours later: no row of active_orders",
    ), "\n".join(lines)  # fmt: skip


def test_story_tells_of_the_cancels_that_name_the_order(trace: Trace) -> None:
    lines = story(trace, CANCELLED)
    assert _in_this_order(lines, "asks to cancel", "cancelled by user", "is answered accepted", "too late")


def test_story_holds_the_services_log_lines(trace: Trace) -> None:
    assert any("logs info: OrderPlacement emitted" in line for line in story(trace, RESTING))


def test_story_of_an_unknown_order_says_only_that_it_has_no_row(trace: Trace) -> None:
    assert all("no row of active_orders" in line for line in story(trace, 4_242))


def test_counts_and_reasons_add_up(trace: Trace) -> None:
    found = counts(trace)
    assert found["completions"] == sum(completions_by_reason(trace).values())
    assert found["refusals"] == sum(refusals_by_reason(trace).values())
    assert completions_by_reason(trace)["replaced"] == 1
    assert refusals_by_reason(trace) == {"cannot fill": 1, "would cross": 1}
    assert found["orders"] == found["placements"] + found["refusals"] + 1  # one was refused by the balance core


def test_faults_are_counted_as_they_strike(trace: Trace) -> None:
    assert faults_struck(trace) == {"clog": 1}


def test_table_of_verdicts_names_each_invariant_once(trace: Trace) -> None:
    lines = verdict_lines(check(trace))
    assert len(lines) == 19
    assert any("✓ placement-accounted" in line and "holds" in line for line in lines)
    assert any("- corrupt-input-stops" in line and "not exercised" in line for line in lines)


def test_violations_come_with_the_story_of_the_order() -> None:
    world = busy_world()
    drop(world, "final_active_orders", look=0, order_id=PARTIAL)
    trace = world.trace()
    verdicts = check(trace)
    assert first_order(verdicts["placement-accounted"]) == PARTIAL
    lines = violation_lines(trace, verdicts)
    assert _in_this_order(
        lines, "placement-accounted: 1 violations", f"order_id={PARTIAL}", f"what happened to order {PARTIAL}:",
        "placement",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ({"order_id": [0, 8], "target_order_id": [0, 5]}, 5),
        ({"order_id": [8], "target_order_id": [0]}, 8),
        ({"maker_order_id": [3], "taker_order_id": [4]}, 3),
        ({"user_id": [1]}, None),
    ],
    ids=["the order that a request is about", "the request's own order", "the maker", "none"],
)
def test_the_story_is_that_of_the_order_in_question(named: dict[str, list[int]], told: int | None) -> None:
    assert first_order(Verdict(1, pd.DataFrame(named))) == told
