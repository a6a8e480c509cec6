"""What must still break, and the run that decides whether it does."""

import sys
from collections.abc import Sequence

from sim.progress import Progress
from sim.run import simulate
from sim.scenario import Scenario, ScenarioError
from traces.invariants import check, check_one
from traces.recorder import Recorder
from traces.trace import Trace
from traces.verdicts import VIOLATED


class ShrinkError(Exception):
    """There is nothing to shrink; the message is one line that says why."""


def violated_by(scenario: Scenario) -> tuple[str, ...]:
    """The invariants that a scenario violates, in the design's order."""
    return tuple(name for name, each in check(_trace(scenario)).items() if each.verdict == VIOLATED)


class Target:
    """Says of a case whether it still breaks the invariant, and counts how often it was asked."""

    def __init__(self, invariant: str, runs_max: int) -> None:
        self.invariant = invariant
        self.runs = 0
        self.runs_max = runs_max

    @property
    def is_exhausted(self) -> bool:
        """Whether as many cases have been run as may be."""
        return self.runs >= self.runs_max

    def is_broken_by(self, case: Scenario) -> bool:
        """Whether the case violates the invariant. A case that cannot be run does not; nor does any, once exhausted."""
        if self.is_exhausted:
            return False
        self.runs += 1
        try:
            return check_one(_trace(case), self.invariant).verdict == VIOLATED
        except ScenarioError:
            # Taking things away can leave a strike without its host; such a case is none.
            return False


def chosen(violated: Sequence[str], wanted: str) -> str:
    """The invariant to shrink for: the one asked for, else the first. Raises ShrinkError when it is not violated."""
    if not violated:
        raise ShrinkError("nothing to shrink: every invariant holds")
    if wanted and wanted not in violated:
        raise ShrinkError(f"{wanted} is not violated; violated: {', '.join(violated)}")
    return wanted or violated[0]


def _trace(scenario: Scenario) -> Trace:
    recorder = Recorder()
    simulated = simulate(scenario, Progress(sys.stderr), recorder)
    return Trace.of(recorder, simulated.manifest)
