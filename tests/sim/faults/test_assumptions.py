"""Faults that break a stated assumption: an invariant sees each of them, or the services cope with it by design."""

import json
import sys
from functools import cache

import pytest

from sim.faults.catalogue import OPTIONS
from sim.progress import Progress
from sim.run import RunResult, run_scenario
from sim.scenario import SECOND_NS, Scenario

SEEDS = range(4)
SNAPSHOT_INTERVAL = 10
"""Outputs between two snapshots: few, so that short runs have some to lose."""

SEEN_BY = {
    "corrupt-record": {"chain-unbroken"},
    "lost-record": {"chain-unbroken"},
    "unclean-leader-change": {"no-lost-ack", "lifecycle-matches-reference", "converges"},
    "retention-passed": {"no-lost-ack", "converges"},
}
"""Fault -> the invariants of which one sees it. What is lost is the input or the output of an order that a client was
told is accepted; where a service stands still in front of the hole, the system does not settle."""
COPED_WITH = {"synced-writes-lost"}
"""Snapshots only save reading: lost ones cost time, and nothing else rests on a disk."""


@cache
def run(fault: str, seed: int) -> RunResult:
    scenario = Scenario(
        seed=seed,
        orders=120,
        users=6,
        duration_ns=8 * SECOND_NS,
        faults=fault,
        snapshot_interval_outputs=SNAPSHOT_INTERVAL,
    )
    return run_scenario(scenario, None, Progress(sys.stderr))


def violated(result: RunResult) -> set[str]:
    return {name for name, verdict in result.verdicts.items() if verdict.verdict == "violated"}


def hits(result: RunResult, what: str) -> int:
    return result.simulated.hits.get(what, 0)


def test_every_broken_assumption_is_seen_or_coped_with() -> None:
    assert {name for name, option in OPTIONS.items() if option.breaks_assumption} == SEEN_BY.keys() | COPED_WITH


@pytest.mark.parametrize("fault", SEEN_BY)
def test_an_invariant_sees_it_within_a_few_seeds(fault: str) -> None:
    assert any(violated(run(fault, seed)) & SEEN_BY[fault] for seed in SEEDS)


@pytest.mark.parametrize(
    ("fault", "hit"), [("unclean-leader-change", "unclean-election"), ("retention-passed", "retention")]
)
def test_nothing_is_violated_where_no_record_was_lost(fault: str, hit: str) -> None:
    for seed in SEEDS:
        result = run(fault, seed)
        assert hits(result, hit) or not violated(result)


@pytest.mark.parametrize("fault", ["unclean-leader-change", "retention-passed"])
def test_a_service_stops_at_the_hole_with_an_alarm_that_names_the_topic(fault: str) -> None:
    alarmed = [
        (strike.target, topic)
        for seed in SEEDS
        for strike in run(fault, seed).simulated.plan
        for topic in run(fault, seed).trace.events("alarms")["topic"]
    ]
    assert any(target == topic for target, topic in alarmed)


def test_every_invariant_holds_when_synced_writes_are_lost() -> None:
    for seed in SEEDS:
        result = run("synced-writes-lost", seed)
        assert not violated(result)
        assert result.verdicts["placement-accounted"].verdict == "holds"


def test_lost_snapshots_only_mean_reading_more_of_the_log() -> None:
    replayed = [length for seed in SEEDS for length in replayed_by_the_struck_host(run("synced-writes-lost", seed))]
    # With what had been synced before it would be a snapshot's distance at most, and what a commit writes at once.
    assert max(replayed) > 5 * SNAPSHOT_INTERVAL


def replayed_by_the_struck_host(result: RunResult) -> list[int]:
    """How many outputs the struck host read, each time it took a partition over that it had owned before."""
    lines = result.trace.events("log_lines")
    lengths = []
    for strike in result.simulated.plan:
        owned = set()
        mine = lines[(lines["event"] == "partition taken over") & (lines["host"] == strike.target)]
        for fields in map(json.loads, mine["fields"]):
            if fields["partition"] in owned:
                lengths.append(fields["sequence"] - fields["snapshot_sequence"])
            owned.add(fields["partition"])
    return lengths
