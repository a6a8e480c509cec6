"""Each fault alone, through the whole pipeline: it really strikes, and every invariant holds all the same."""

import sys

import pytest

from sim.faults.catalogue import OPTIONS
from sim.progress import Progress
from sim.run import RunResult, run_scenario
from sim.scenario import SECOND_NS, Scenario


def run(faults: str, seed: int = 1) -> RunResult:
    scenario = Scenario(seed=seed, orders=120, users=6, duration_ns=8 * SECOND_NS, faults=faults)
    return run_scenario(scenario, None, Progress(sys.stderr))


@pytest.mark.parametrize("fault", [name for name, option in OPTIONS.items() if not option.breaks_assumption])
def test_every_invariant_holds_under(fault: str) -> None:
    result = run(fault)
    violated = {name: verdict.violations for name, verdict in result.verdicts.items() if verdict.verdict == "violated"}
    assert not violated
    assert result.simulated.struck[fault] >= 1
    assert result.verdicts["placement-accounted"].verdict == "holds"


def test_a_corrupt_record_stops_its_partition_with_an_alarm() -> None:
    result = run("corrupt-record", seed=5)
    assert result.verdicts["corrupt-input-stops"].verdict == "holds"
    assert result.verdicts["chain-unbroken"].verdict == "violated"


def test_a_lost_record_stops_its_partition_with_an_alarm() -> None:
    result = run("lost-record", seed=5)
    assert result.simulated.hits["record-lost"] >= 1
    assert result.verdicts["corrupt-input-stops"].verdict == "holds"
    assert result.verdicts["chain-unbroken"].verdict == "violated"
