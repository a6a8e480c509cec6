"""The power of the harness: how many seeds it takes until a defect of the gallery is caught (design section 9).

A defect counts as caught by a seed when one of the invariants that it names is violated; what else is violated is told
too, but does not count.
"""

import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing.pool import Pool
from statistics import median
from typing import Any, Final

from sim.defects import GALLERY
from sim.defects.defect import Defect
from sim.scenario import Scenario

SEEDS_MAX: Final = 200
"""After so many seeds a defect counts as not caught."""
SEEDS_PER_PROCESS: Final = 25
"""Crashed hosts stay in memory (sim.graveyard), so worker processes are replaced from time to time."""


@dataclass(frozen=True)
class Catch:
    """What came of the hunt for one defect."""

    caught: bool
    seeds_to_catch: int
    """How many seeds were run, the one that caught it included."""
    seed: int
    """The seed that caught it, or the last one that was run."""
    invariants: tuple[str, ...]
    """The named invariants that were violated by that seed."""
    others: tuple[str, ...]
    """What else was violated by it."""


def scenario_of(defect: Defect, base: Scenario, seed: int) -> Scenario:
    """The scenario that a defect is looked for with: the base, with the defect and the faults that it needs."""
    return replace(base, seed=seed, defect=defect.name, faults=defect.faults)


def look(scenario: Scenario) -> tuple[str, ...]:
    """The invariants that one run violates."""
    from sim.progress import Progress
    from sim.run import run_scenario

    result = run_scenario(scenario, None, Progress(sys.stderr))
    return tuple(name for name, verdict in result.verdicts.items() if verdict.verdict == "violated")


def hunt(defect: Defect, base: Scenario, seeds_max: int, pool: Pool, width: int) -> Catch:
    """Run seeds from the base's on, `width` at once, until one catches the defect; the first such seed counts."""
    first = base.seed
    scenarios = [scenario_of(defect, base, seed) for seed in range(first, first + seeds_max)]
    for start in range(0, seeds_max, width):
        part = scenarios[start : start + width]
        for scenario, violated in zip(part, pool.imap(look, part), strict=True):
            named = tuple(name for name in violated if name in defect.caught_by)
            if named:
                others = tuple(name for name in violated if name not in named)
                return Catch(True, scenario.seed - first + 1, scenario.seed, named, others)
    return Catch(False, seeds_max, first + seeds_max - 1, (), ())


def hunt_all(names: Sequence[str], base: Scenario, seeds_max: int, jobs: int) -> Iterator[tuple[str, Catch]]:
    """Hunt for one defect after another; each result as soon as it is known."""
    # Not ProcessPoolExecutor: replacing its workers can deadlock in Python 3.11 (its issue 115634).
    with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=SEEDS_PER_PROCESS) as pool:
        for name in names:
            yield name, hunt(GALLERY[name], base, seeds_max, pool, jobs)


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
