"""The power of the harness: how many seeds it takes until a defect of the gallery is caught (design section 9).

A defect counts as caught by a seed when one of the invariants that it names is violated; what else is violated is told
too, but does not count. All defects are hunted side by side, seed by seed: no worker is idle, and hardly a seed is run
for a defect that is caught already.
"""

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any, Final

from sim.campaign.seeds import WHAT_RUNS_RAISE
from sim.campaign.workers import LocalWorkers, WorkersError
from sim.defects import GALLERY
from sim.defects.defect import Defect
from sim.scenario import Scenario

SEEDS_MAX: Final = 200
"""After so many seeds a defect counts as not caught."""


@dataclass(frozen=True)
class Catch:
    """What came of the hunt for one defect."""

    caught: bool
    seeds_to_catch: int
    """How many seeds it took, the one that caught it included; all that were run when it was not caught."""
    seed: int
    """The seed that caught it, or the last one that was run."""
    invariants: tuple[str, ...]
    """The named invariants that were violated by that seed."""
    others: tuple[str, ...]
    """What else was violated by it."""


@dataclass(frozen=True)
class Look:
    """What one run with a defect violates."""

    defect: str
    seed: int
    violated: tuple[str, ...]
    error: str = ""
    """Why it could not be run, as a traceback; empty when it could."""


def scenario_of(defect: Defect, base: Scenario, seed: int) -> Scenario:
    """The scenario that a defect is looked for with: the base, with the defect and the faults that it needs."""
    return replace(base, seed=seed, defect=defect.name, faults=defect.faults)


def look(scenario: Scenario) -> Look:
    """Run one scenario in this process, and judge it. Never raises for what the run did."""
    # In here, because a worker imports this module before it knows what it will be asked.
    from sim.progress import SILENT
    from sim.run import run_scenario

    try:
        result = run_scenario(scenario, None, SILENT)
    except WHAT_RUNS_RAISE as error:
        return Look(scenario.defect, scenario.seed, (), "".join(traceback.format_exception(error)))
    violated = tuple(name for name, verdict in result.verdicts.items() if verdict.verdict == "violated")
    return Look(scenario.defect, scenario.seed, violated)


def hunt_all(names: Sequence[str], base: Scenario, seeds_max: int, jobs: int) -> Iterator[tuple[str, Catch]]:
    """Hunt for all these defects, from the base's seed on; each catch as soon as it is known, the misses last.

    Raises WorkersError for a run that could not be made: it says nothing about the defect.
    """
    first, end = base.seed, base.seed + seeds_max
    hunts = {name: _Hunt(GALLERY[name], first) for name in names}
    open_hunts = dict(hunts)

    def scenarios() -> Iterator[Scenario]:
        # Asked for one at a time, when a worker is free: by then most catches of the seed before are known.
        for seed in range(first, end):
            for name in names:
                if not hunts[name].is_caught:
                    yield scenario_of(GALLERY[name], base, seed)

    for found in LocalWorkers(jobs).outcomes(look, scenarios(), _lost):
        if found.error:
            raise WorkersError(f"{found.defect}, seed {found.seed}: {found.error.strip().splitlines()[-1]}")
        hunt = hunts[found.defect]
        hunt.add(found)
        if found.defect in open_hunts and (catch := hunt.catch) is not None:
            del open_hunts[found.defect]
            yield found.defect, catch
    for name in open_hunts:
        yield name, Catch(False, seeds_max, end - 1, (), ())


class _Hunt:
    """One defect, and what its seeds found: they end in any order, and the first of them that catches it counts."""

    def __init__(self, defect: Defect, first: int) -> None:
        self._defect = defect
        self._first = first
        self._next = first
        self._looks: dict[int, Look] = {}
        self.is_caught = False
        """Whether some seed has caught it: no later one is needed."""
        self.catch: Catch | None = None
        """The catch, once every seed before it is known not to be one."""

    def add(self, found: Look) -> None:
        """Take what a seed found."""
        self._looks[found.seed] = found
        self.is_caught = self.is_caught or bool(self._named(found))
        while self.catch is None and self._next in self._looks:
            first = self._looks.pop(self._next)
            self._next += 1
            if named := self._named(first):
                others = tuple(name for name in first.violated if name not in named)
                self.catch = Catch(True, first.seed - self._first + 1, first.seed, named, others)

    def _named(self, found: Look) -> tuple[str, ...]:
        return tuple(name for name in found.violated if name in self._defect.caught_by)


def as_json(catches: dict[str, Catch]) -> dict[str, Any]:
    """Defect -> what came of its hunt; the field names are part of the command line's contract."""
    return {name: asdict(catch) for name, catch in catches.items()}


def closing_line(catches: dict[str, Catch]) -> str:
    """How many were caught, and after how many seeds."""
    seeds = [catch.seeds_to_catch for catch in catches.values() if catch.caught]
    missed = [name for name, catch in catches.items() if not catch.caught]
    line = f"{len(seeds)} of {len(catches)} defects caught"
    if seeds:
        line += f", median {median(seeds):g} seeds, most {max(seeds)}"
    return line + (f"; not caught: {', '.join(missed)}" if missed else "")


def _lost(scenario: Scenario, why: str) -> Look:
    return Look(scenario.defect, scenario.seed, (), why)
