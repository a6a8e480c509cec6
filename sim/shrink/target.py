"""What must still break, and the runs that decide whether it does.

Taking one thing away moves everything that happens after it, so a failure that needs an unlucky moment may seem to need
what it does not. Therefore a case of such a failure is tried with several seeds: what is drawn while a run goes on,
latencies above all, is other in each. How many, follows from how often the case itself fails with other seeds.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from sim import graveyard
from sim.campaign.seeds import WHAT_RUNS_RAISE
from sim.progress import SILENT
from sim.run import simulate
from sim.scenario import SEEDS, Scenario
from sim.shrink.fewer import script_of
from traces.invariants import check, check_one
from traces.recorder import Recorder
from traces.trace import Trace
from traces.verdicts import VIOLATED

SOUNDED: Final = 4
"""With so many other seeds a case is run to find out how much its failure depends on luck."""
TRIES: Final = (12, 8, 4, 2, 1)
"""With how many seeds a candidate is tried, by how many of the sounded ones failed."""
OPERATIONS_RUN_MAX: Final = 300
"""So many operations are run for one candidate at most, all its seeds together: large cases are dear."""


class ShrinkError(Exception):
    """There is nothing to shrink; the message is one line that says why."""


def violated_by(scenario: Scenario) -> tuple[str, ...]:
    """The invariants that a scenario violates, in the design's order."""
    return tuple(name for name, each in check(_trace(scenario)).items() if each.verdict == VIOLATED)


class Target:
    """Says of a case whether it breaks the invariant, and counts the runs that this takes. It runs no case twice."""

    def __init__(self, invariant: str, runs_max: int) -> None:
        self.invariant = invariant
        self.runs = 0
        self.runs_max = runs_max
        self.latest: Scenario | None = None
        """The case found to fail last. Every pass goes on from what fails, so it is the smallest, or nearly."""
        self._tries = 1
        self._known: dict[Scenario, bool] = {}

    @property
    def is_exhausted(self) -> bool:
        """Whether as many cases have been run as may be."""
        return self.runs >= self.runs_max

    def failing(self, case: Scenario) -> Scenario | None:
        """The case, with its own seed or the first other one tried with which it breaks the invariant; None when there
        is none. A case that cannot be run breaks nothing; nor does any, once exhausted."""
        tries = min(self._tries, max(1, OPERATIONS_RUN_MAX // max(1, len(script_of(case).operations))))
        for number in range(tries):
            tried = _reseeded(case, number)
            if self._is_broken_by(tried):
                self.latest = tried
                return tried
        return None

    def sound(self, case: Scenario) -> None:
        """Find out how many seeds a candidate like this one should be tried with."""
        failed = sum(self._is_broken_by(_reseeded(case, 1 + number)) for number in range(SOUNDED))
        self._tries = TRIES[failed]

    def _is_broken_by(self, case: Scenario) -> bool:
        if case not in self._known:
            if self.is_exhausted:
                return False
            self.runs += 1
            self._known[case] = self._run(case)
        return self._known[case]

    def _run(self, case: Scenario) -> bool:
        try:
            return check_one(_trace(case), self.invariant).verdict == VIOLATED
        except WHAT_RUNS_RAISE:
            # Taking things away can leave a strike without its host, and a case that fails in another way is another.
            return False
        finally:
            graveyard.close()


def chosen(violated: Sequence[str], wanted: str) -> str:
    """The invariant to shrink for: the one asked for, else the first. Raises ShrinkError when it is not violated."""
    if not violated:
        raise ShrinkError("nothing to shrink: every invariant holds")
    if wanted and wanted not in violated:
        raise ShrinkError(f"{wanted} is not violated; violated: {', '.join(violated)}")
    return wanted or violated[0]


def _reseeded(case: Scenario, number: int) -> Scenario:
    return replace(case, seed=(case.seed + number) % SEEDS)


def _trace(scenario: Scenario) -> Trace:
    recorder = Recorder()
    simulated = simulate(scenario, SILENT, recorder)
    trace = Trace.of(recorder, simulated.manifest)
    recorder.release()
    return trace
