"""Each defect is caught by what must catch it, in a small scenario; the intact code passes in the same."""

import sys
from dataclasses import replace
from functools import cache

import pytest

from sim.defects import GALLERY
from sim.progress import Progress
from sim.run import RunResult, run_scenario
from sim.scenario import NO_FAULTS, SECOND_NS, Scenario

SMALL = Scenario(orders=60, users=4, duration_ns=4 * SECOND_NS, snapshot_interval_outputs=20, faults=NO_FAULTS)
MEDIUM = replace(SMALL, orders=120, users=6, duration_ns=6 * SECOND_NS)
LARGE = replace(SMALL, orders=300, users=12, duration_ns=10 * SECOND_NS)

SEEDS = 12
"""How many seeds a defect is given, from that of its scenario on. It takes the first, until the order of things changes
in a run: then another may be needed, and a slow test here says that the scenario wants another seed."""

BREAKS_ASSUMPTION = ("lost-record", "corrupt-record")
"""Faults under which only `corrupt-input-stops` holds of the intact code."""

SCENARIOS: dict[str, Scenario] = {
    "maker-completion-missing": SMALL,
    "cancel-completion-missing": SMALL,
    "events-outside-hash": SMALL,
    "newest-first-after-partial-fill": replace(SMALL, seed=1),
    "improvement-not-refunded": SMALL,
    "released-twice": SMALL,
    "retry-places-again": SMALL,
    "retry-memory-lost": replace(SMALL, seed=1, faults="rebalance,lost-answers"),
    "plain-producer": replace(SMALL, faults="zombie-owner"),
    "failed-delivery-committed": replace(SMALL, seed=2, faults="no-leader", duration_ns=8 * SECOND_NS),
    "uncommitted-read": replace(SMALL, seed=3, faults="crash,transaction-timeout"),
    "group-offset-resumed": replace(SMALL, seed=1, faults="stalled-markers,rebalance"),
    "snapshot-one-record-off": Scenario(seed=2, orders=150, duration_ns=10 * SECOND_NS, snapshot_interval_outputs=10),
    "old-instance-not-fenced": replace(SMALL, faults="zombie-owner"),
    "input-dropped-when-full": replace(LARGE, seed=1),
    "order-events-ignored": SMALL,
    "live-rows-expire": SMALL,
    "gap-skipped": replace(SMALL, seed=1, faults="lost-record"),
    "undecodable-dropped": replace(SMALL, faults="corrupt-record"),
    "offsets-before-rows": replace(SMALL, faults="writer-crash"),
    "database-error-dropped": replace(SMALL, seed=2, faults="write-timeout"),
    "completion-without-lookup-dropped": SMALL,
    "created-at-from-clock": SMALL,
    "server-side-timestamps": SMALL,
    "fills-added-on-replay": replace(SMALL, faults="zombie-writer"),
    "maker-trade-missing": SMALL,
    "finished-orders-listed": SMALL,
    "limit-before-filter": replace(SMALL, seed=5),
    "answer-of-another-user": SMALL,
    "reads-at-one": replace(SMALL, seed=3, faults="replica-down"),
}


@cache
def violated(scenario: Scenario) -> dict[str, list[str]]:
    """What a run violates: invariant -> what was wrong; and the failures of a service's own, as alarms."""
    result: RunResult = run_scenario(scenario, None, Progress(sys.stderr))
    found = {
        name: sorted(set(each.violations["what"])) for name, each in result.verdicts.items() if each.violations.size
    }
    alarms = result.trace.events("alarms")["message"]
    if failures := [message for message in alarms if "partition failed" in message or "settling failed" in message]:
        found["alarms"] = failures
    return found


def test_every_defect_has_a_scenario() -> None:
    assert sorted(SCENARIOS) == sorted(GALLERY)


@pytest.mark.parametrize("name", SCENARIOS)
def test_defect_is_caught_by_what_must_catch_it(name: str) -> None:
    first = SCENARIOS[name]
    for seed in range(first.seed, first.seed + SEEDS):
        found = violated(replace(first, seed=seed, defect=name))
        # A replacement that does not fit the code any more would only raise, and be caught for that.
        assert "alarms" not in found
        if set(found) & set(GALLERY[name].caught_by):
            return
    pytest.fail(f"not caught by {' or '.join(GALLERY[name].caught_by)} in {SEEDS} seeds")


@pytest.mark.parametrize("scenario", dict.fromkeys(SCENARIOS.values()), ids=lambda each: f"{each.faults}-{each.seed}")
def test_intact_code_passes_where_defects_are_caught(scenario: Scenario) -> None:
    found = violated(scenario)
    if scenario.faults in BREAKS_ASSUMPTION:
        assert "corrupt-input-stops" not in found
    else:
        assert found == {}
