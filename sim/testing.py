"""For tests, ours and other people's: hold a property over seeds, and fail with all that a stranger needs.

`hold_invariants` runs the whole pipeline. `sim.pytest_plugin` gives a test its seeds. A property of a service that is
not ours takes a `sim.world.World` with the seed, and asserts what it likes: docs/testing.md has an example.
"""

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from sim.progress import Progress
from sim.repro import Repro, command_for, read_repro
from sim.run import RunResult, run_scenario
from sim.scenario import Scenario
from traces.invariants import ORDER
from traces.manifest import package_versions
from traces.parting import parting_lines
from traces.summary import verdict_lines, violation_lines
from traces.trace import Trace
from traces.verdicts import NOT_EXERCISED, VIOLATED

REPROS: Final = Path("runs") / "tests"
"""Where a failing scenario is kept that options of `exchange-sim run` cannot say, one file a test."""

_passed: dict[Scenario, Trace] = {}
"""The trace of the last passing run of each scenario, whatever its seed: what a failing one is compared with. Only the
scenario that ran last is kept."""


def hold_invariants(case: Scenario | Path, *, exercised: Sequence[str] = ()) -> RunResult:
    """Run a scenario, or the one of a repro file or trace folder, and assert that no invariant is violated.

    The invariants named by `exercised` must have been exercised, too. Returns the run, for assertions of your own.
    Raises AssertionError that names the seed, the command that runs it again, what is violated, what happened to the
    first order concerned, and where the run first parted from the last passing one of the same scenario;
    ScenarioError, FlowError or TraceError when the case cannot be read or run; ValueError for an unknown invariant.
    """
    # A failing test shows the message, not the source of this function.
    __tracebackhide__ = True
    if unknown := [name for name in exercised if name not in ORDER]:
        raise ValueError(f"unknown invariant {unknown[0]!r}; there are: {', '.join(ORDER)}")
    scenario = read_repro(case).scenario if isinstance(case, Path) else case
    result = run_scenario(scenario, None, Progress(sys.stderr))
    violated = {name: each for name, each in result.verdicts.items() if each.verdict == VIOLATED}
    idle = [name for name in exercised if result.verdicts[name].verdict == NOT_EXERCISED]
    apart_from_seed = replace(scenario, seed=0)
    if not violated and not idle:
        _passed.clear()
        _passed[apart_from_seed] = result.trace
        return result
    lines = [f"seed {scenario.seed}, digest {result.digest}: {_again(case, result.digest)}"]
    lines += [f"not exercised: {name}" for name in idle]
    lines += verdict_lines(violated) + violation_lines(result.trace, violated)
    if apart_from_seed in _passed:
        lines += parting_lines(_passed[apart_from_seed], result.trace)
    raise AssertionError("\n".join(lines))


def _again(case: Scenario | Path, digest: str) -> str:
    """The command that runs it again, of a repro that is written now if need be."""
    if isinstance(case, Path):
        return f"exchange-sim replay {case}"
    if (command := command_for(case)) is not None:
        return command
    # Hypothesis runs the smallest example that it found once more at the end: that is the one that stays.
    test = os.environ.get("PYTEST_CURRENT_TEST", f"seed-{case.seed}").removesuffix(" (call)")
    path = REPROS / f"{re.sub(r'[^A-Za-z0-9_=.-]+', '-', test)[-150:]}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Repro(case, digest, package_versions()).write(path)
    except OSError as error:
        return f"no repro could be kept: {path}: {error.strerror or error}"
    return f"exchange-sim replay {path}"
