"""Seeds that failed once. What they found is fixed; each stays here so that it stays fixed."""

import sys
from dataclasses import replace

import pytest

from sim.progress import Progress
from sim.run import run_scenario
from sim.scenario import SECOND_NS, Scenario

LARGE = Scenario(orders=600, duration_ns=20 * SECOND_NS, snapshot_interval_outputs=100)


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(
            replace(LARGE, seed=20, orders=60),
            id="operations of a host that died while their answers were queued for it stayed open for ever",
        ),
        pytest.param(replace(LARGE, seed=11), id="the same, with more orders"),
        pytest.param(
            replace(LARGE, seed=56), id="a consumer asked a leader that had moved again and again at one instant"
        ),
        pytest.param(
            replace(LARGE, seed=57),
            id="a consumer whose close was given up half way joined the group again, and kept a partition for ever",
        ),
    ],
)
def test_every_invariant_holds(scenario: Scenario) -> None:
    result = run_scenario(scenario, None, Progress(sys.stderr))
    assert {name: each.violations for name, each in result.verdicts.items() if each.verdict == "violated"} == {}
