"""The reachability goals: each can be reached, none that needs a fault is reached without one."""

import dataclasses
import sys

import msgspec

from sim.progress import Progress
from sim.run import run_scenario, written_out
from sim.scenario import NO_FAULTS, SECOND_NS, Scenario
from sim.script import Strike
from traces.reachability import GOALS, THEMES, reached

SEEDS = (16, 100, 20, 52)
"""Default seeds that reach every goal but one between them. Another model of latencies may ask for others: a campaign
tells."""
LATE = (
    Strike("write-timeout", SECOND_NS, SECOND_NS, "*", 900_000, "rows-being-written"),
    Strike("pause", SECOND_NS, 17 * SECOND_NS, "settlement-1", 0, "rows-refused"),
)
"""An instance stands still when it has rows to write again, and writes them after another has written newer ones."""
NEEDS_NO_FAULT = ("finished-row-expired",)
"""The one goal of the database, the log or hosts that a calm run reaches."""


def goals_of(scenario: Scenario) -> dict[str, int]:
    return reached(run_scenario(scenario, None, Progress(sys.stderr)).trace)


def late_writer() -> Scenario:
    """The rarest situation, written out: an older revision of a row comes after a newer one."""
    scenario = written_out(Scenario(seed=4, faults=NO_FAULTS))
    assert scenario.script is not None
    return dataclasses.replace(scenario, script=msgspec.structs.replace(scenario.script, strikes=LATE))


def test_there_are_goals_with_a_meaning_each() -> None:
    assert len(GOALS) >= 30
    assert all(each.meaning.endswith(".") or each.meaning.endswith(":") for each in GOALS.values())


def test_a_few_seeds_reach_every_goal() -> None:
    missed = dict.fromkeys(GOALS)
    for seed in SEEDS:
        for name, count in goals_of(Scenario(seed=seed)).items():
            if count:
                missed.pop(name, None)
    for name, count in goals_of(late_writer()).items():
        if count:
            missed.pop(name, None)
    assert list(missed) == []


def test_without_faults_nothing_goes_wrong_with_the_database_the_log_or_hosts() -> None:
    in_trouble = {f"traces.reachability.{theme.__name__.rpartition('.')[2]}" for theme in THEMES[:3]}
    calm = goals_of(Scenario(seed=12, faults=NO_FAULTS))
    found = [name for name, count in calm.items() if count and GOALS[name].count.__module__ in in_trouble]
    assert found == list(NEEDS_NO_FAULT)
