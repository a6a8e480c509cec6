"""The smallest case of each defect of the gallery: how small the harness can show a failure (design section 9)."""

import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

from sim.campaign.workers import LocalWorkers, WorkersError
from sim.defects import GALLERY
from sim.defects.power import hunt_all, scenario_of
from sim.progress import Progress
from sim.repro import Repro
from sim.scenario import Scenario
from sim.shrink.target import ShrinkError
from traces.manifest import package_versions

TIMEOUT_S: Final = 3_600
"""Shrinking one defect takes a minute or two; one that takes so long hangs."""


@dataclass(frozen=True)
class Smallest:
    """How small the case of one defect became."""

    seed: int
    """The first seed that catches the defect."""
    invariant: str
    operations: int
    operations_before: int
    faults: int
    faults_before: int
    runs: int
    is_finished: bool
    wall_seconds: float


Found = tuple[str, Smallest | str]
"""A defect, and how small its case became, or why that is not known."""


def smallest_of(caught: Scenario, runs_max: int, out: Path | None) -> Found:
    """Shrink a scenario that catches its defect; its repro goes to `out`, when given. Never raises."""
    # In here, because a worker imports this module before it knows what it will be asked.
    from sim.run import simulate
    from sim.shrink.fewer import script_of
    from sim.shrink.shrinker import shrink
    from sim.shrink.target import violated_by
    from traces.recorder import NoTrace, Recorder

    name, silent = caught.defect, Progress(sys.stderr)
    try:
        invariant = next(each for each in violated_by(caught) if each in GALLERY[name].caught_by)
        shrunk = shrink(caught, invariant, runs_max, silent)
        if out is not None:
            digest = simulate(shrunk.case, silent, Recorder(NoTrace())).manifest.digest
            Repro(shrunk.case, digest, package_versions()).write(out / f"{name}.json")
    except Exception as error:
        return name, "".join(traceback.format_exception(error))
    before = script_of(shrunk.before)
    return name, Smallest(
        caught.seed,
        invariant,
        shrunk.operations,
        len(before.operations),
        shrunk.strikes,
        len(before.strikes),
        shrunk.runs,
        shrunk.is_finished,
        shrunk.wall_seconds,
    )


def smallest_of_all(
    names: Sequence[str],
    base: Scenario,
    seeds_max: int,
    runs_max: int,
    jobs: int,
    out: Path | None,
    progress: Progress,
) -> Iterator[tuple[str, Smallest]]:
    """Each defect's smallest case as soon as it is known, `jobs` of them at once.

    Raises ShrinkError for a defect that is not caught, WorkersError for what could not be run.
    """
    caught = []
    for name, catch in hunt_all(names, base, seeds_max, jobs):
        if not catch.caught:
            raise ShrinkError(f"{name} is not caught within {seeds_max} seeds")
        caught.append(scenario_of(GALLERY[name], base, catch.seed))
        progress.show(f"{len(caught)} of {len(names)} defects caught")
    # One defect a process: the crashed hosts of hundreds of runs stay in memory (sim.graveyard).
    workers = LocalWorkers(jobs, tasks_per_process=1, timeout_s=TIMEOUT_S)
    outcomes = workers.outcomes(partial(smallest_of, runs_max=runs_max, out=out), caught, _lost)
    for ended, (name, found) in enumerate(outcomes, 1):
        if isinstance(found, str):
            raise WorkersError(f"{name}: {found.strip().splitlines()[-1]}")
        progress.clear()
        yield name, found
        progress.show(f"{ended} of {len(names)} defects shrunk")
    progress.clear()


def as_json(found: Mapping[str, Smallest]) -> dict[str, Any]:
    """Defect -> how small its case became."""
    return {name: asdict(each) for name, each in found.items()}


def line_of(name: str, each: Smallest) -> str:
    """One row of the table."""
    rest = "" if each.is_finished else "  (runs used up)"
    return (
        f"{name:34} {each.operations:4} of {each.operations_before:5} operations {each.faults:3} of "
        f"{each.faults_before:3} faults {each.runs:5} runs {each.wall_seconds:7.1f} s  {each.invariant}{rest}"
    )


def closing_line(found: Mapping[str, Smallest]) -> str:
    """The medians."""
    operations = [each.operations for each in found.values()]
    faults = [each.faults for each in found.values()]
    return (
        f"{len(found)} defects: median {median(operations):g} operations (most {max(operations)}), "
        f"median {median(faults):g} faults (most {max(faults)})"
    )


def _lost(caught: Scenario, why: str) -> Found:
    return caught.defect, why
