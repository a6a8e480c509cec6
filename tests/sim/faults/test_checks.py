"""What is wrong with a strike that somebody wrote is said before anything is run."""

import pytest

from sim.faults.catalogue import OPTIONS
from sim.faults.checks import check_strikes
from sim.randomness import Stream
from sim.scenario import ScenarioError
from sim.script import Strike
from tests.sim.faults.test_plan import LAYOUT


def check(fault: str, target: str) -> None:
    check_strikes([Strike(fault, 0, 0, target, OPTIONS[fault].strengths.low)], OPTIONS, LAYOUT)


@pytest.mark.parametrize(
    ("fault", "target", "told"),
    [
        ("crash", "kafka-1", "a host that runs a service"),
        ("crash", "*", "a host that runs a service"),
        ("replica-down", "matching-1", "a Cassandra node"),
        ("broker-crash", "cassandra-1", "a broker"),
        ("leader-change", "matching", "a topic between services"),
        ("rebalance", "engine.outputs", "a consumer group"),
        ("corrupt-record", "order.requests", "a chained topic"),
        ("torn-write", "gateway-1", "a host of ubscore or matching"),
        ("lost-answers", "kafka-1", r"'\*', which is everything"),
        ("slow-link", "kafka-1", "one direction of a link"),
        ("slow-link", "matching-1->cassandra-1", "one direction of a link"),
        ("slow-link", "kafka-1->kafka-1", "one direction of a link"),
    ],
)
def test_a_target_of_the_wrong_sort_is_refused_in_one_line(fault: str, target: str, told: str) -> None:
    with pytest.raises(ScenarioError, match=f"can only strike {told}") as refused:
        check(fault, target)
    assert str(refused.value).startswith(f"{fault} aims at {target!r}: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("fault", "target", "missing"),
    [("crash", "matching-9", "matching-9"), ("slow-link", "gateway-1->kafka-8", "kafka-8"), ("crash", "", "")],
)
def test_a_target_that_there_is_not_is_refused(fault: str, target: str, missing: str) -> None:
    with pytest.raises(ScenarioError, match=f"this scenario has no '{missing}' to strike"):
        check(fault, target)


@pytest.mark.parametrize(
    "target",
    ["matching-1->kafka-2", "kafka-2->matching-1", "cassandra-1->gateway-2", "kafka-1->kafka-3", "*->kafka-1", "*->*"],
)
def test_a_link_may_be_struck_in_both_directions_and_any_node_may_be_its_end(target: str) -> None:
    check("slow-link", target)


@pytest.mark.parametrize("fault", list(OPTIONS))
def test_whatever_is_drawn_may_be_written_and_all_that_may_be_written_is_drawn(fault: str) -> None:
    aim = OPTIONS[fault].aim
    drawn = {aim.draw(Stream(seed, fault), LAYOUT) for seed in range(1_000)}
    check_strikes([Strike(fault, 0, 0, each, OPTIONS[fault].strengths.low) for each in drawn], OPTIONS, LAYOUT)
    written = set(aim.targets(LAYOUT))
    assert {each for each in written if "*" not in each.split("->")} <= drawn <= written
