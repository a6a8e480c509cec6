"""The loop of shrinking: pass after pass, until nothing can be made simpler."""

import time
from dataclasses import dataclass
from typing import Final

from sim.progress import Progress
from sim.run import written_out
from sim.scenario import Scenario
from sim.shrink.simpler import PASSES, script_of
from sim.shrink.target import Target, chosen, violated_by

RUNS_MAX: Final = 1_000
"""So many cases are run at most."""


@dataclass(frozen=True)
class Shrunk:
    """What came of shrinking."""

    invariant: str
    """What the case breaks."""
    case: Scenario
    """The smallest case that was found, with its script."""
    before: Scenario
    """The case that it began with, written out."""
    runs: int
    """How many cases were run."""
    is_finished: bool
    """Whether nothing could be made simpler any more; else the runs had been used up."""
    wall_seconds: float

    @property
    def operations(self) -> int:
        """Client operations in the smallest case."""
        return len(script_of(self.case).operations)

    @property
    def strikes(self) -> int:
        """Faults in the smallest case."""
        return len(script_of(self.case).strikes)


def shrink(scenario: Scenario, invariant: str, runs_max: int, progress: Progress) -> Shrunk:
    """The smallest case found that breaks the invariant ("": the first that the scenario breaks).

    Raises ShrinkError when the scenario does not break it, ScenarioError or FlowError when it cannot be run.
    """
    started = time.perf_counter()
    before = written_out(scenario)
    target = Target(chosen(violated_by(before), invariant), runs_max)
    case = before
    is_finished = False
    while not is_finished and not target.is_exhausted:
        round_began_with = case
        for each in PASSES:
            case = each(case, target.is_broken_by)
            script = script_of(case)
            progress.show(
                f"{target.invariant}: {len(script.operations)} operations, {len(script.strikes)} faults "
                f"after {target.runs} runs"
            )
        is_finished = case == round_began_with and not target.is_exhausted
    progress.clear()
    return Shrunk(target.invariant, case, before, target.runs, is_finished, time.perf_counter() - started)
