"""The reachability goals: each can be reached, none that needs a fault is reached without one."""

import sys

from sim.progress import Progress
from sim.run import run_scenario
from sim.scenario import NO_FAULTS, Scenario
from traces.reachability import GOALS, THEMES, reached

SEEDS = (276, 104, 151, 62, 205)
"""Default seeds that reach every goal between them. Another model of latencies may ask for others: a campaign tells."""
NEEDS_NO_FAULT = ("finished-row-expired",)
"""The one goal of the database, the log or hosts that a calm run reaches."""


def goals_of(scenario: Scenario) -> dict[str, int]:
    return reached(run_scenario(scenario, None, Progress(sys.stderr)).trace)


def test_there_are_goals_with_a_meaning_each() -> None:
    assert len(GOALS) >= 30
    assert all(each.meaning.endswith(".") or each.meaning.endswith(":") for each in GOALS.values())


def test_a_few_seeds_reach_every_goal() -> None:
    missed = dict.fromkeys(GOALS)
    for seed in SEEDS:
        for name, count in goals_of(Scenario(seed=seed)).items():
            if count:
                missed.pop(name, None)
    assert list(missed) == []


def test_without_faults_nothing_goes_wrong_with_the_database_the_log_or_hosts() -> None:
    in_trouble = {f"traces.reachability.{theme.__name__.rpartition('.')[2]}" for theme in THEMES[:3]}
    calm = goals_of(Scenario(seed=12, faults=NO_FAULTS))
    found = [name for name, count in calm.items() if count and GOALS[name].count.__module__ in in_trouble]
    assert found == list(NEEDS_NO_FAULT)
