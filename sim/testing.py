"""For tests: run a scenario or a repro, and fail with everything that a stranger needs to see why."""

import sys
from collections.abc import Sequence
from pathlib import Path

from sim.progress import Progress
from sim.repro import read_repro
from sim.run import RunResult, run_scenario
from sim.scenario import Scenario
from traces.summary import verdict_lines, violation_lines
from traces.verdicts import NOT_EXERCISED, VIOLATED


def hold_invariants(case: Scenario | Path, *, exercised: Sequence[str] = ()) -> RunResult:
    """Run a scenario, or the one of a repro file or trace folder, and assert that no invariant is violated.

    The invariants named by `exercised` must have been exercised, too. Returns the run, for assertions of your own.
    Raises AssertionError that names the seed, what is violated, and what happened to the first order concerned;
    ScenarioError, FlowError or TraceError when the case cannot be read or run.
    """
    scenario = read_repro(case).scenario if isinstance(case, Path) else case
    result = run_scenario(scenario, None, Progress(sys.stderr))
    violated = {name: each for name, each in result.verdicts.items() if each.verdict == VIOLATED}
    idle = [name for name in exercised if result.verdicts[name].verdict == NOT_EXERCISED]
    if violated or idle:
        again = f"exchange-sim replay {case}" if isinstance(case, Path) else f"exchange-sim run --seed {scenario.seed}"
        lines = [f"seed {scenario.seed}, digest {result.digest}: {again}"]
        lines += [f"not exercised: {name}" for name in idle]
        lines += verdict_lines(violated) + violation_lines(result.trace, violated)
        raise AssertionError("\n".join(lines))
    return result
