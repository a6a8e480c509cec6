"""The smallest case of each defect of the gallery: how small the harness can show a failure (design section 9)."""

import multiprocessing
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from sim.defects import GALLERY
from sim.defects.power import scenario_of
from sim.progress import Progress
from sim.repro import Repro
from sim.run import simulate
from sim.scenario import Scenario
from sim.shrink.shrinker import shrink
from sim.shrink.target import ShrinkError, violated_by
from traces.manifest import package_versions
from traces.recorder import NoTrace, Recorder


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


def smallest_of(name: str, base: Scenario, seeds_max: int, runs_max: int, out: Path | None) -> tuple[str, Smallest]:
    """Find the first seed that catches a defect, and shrink it; its repro goes to `out`, when given."""
    defect = GALLERY[name]
    for seed in range(base.seed, base.seed + seeds_max):
        scenario = scenario_of(defect, base, seed)
        named = [each for each in violated_by(scenario) if each in defect.caught_by]
        if not named:
            continue
        shrunk = shrink(scenario, named[0], runs_max, Progress(sys.stderr))
        if out is not None:
            digest = simulate(shrunk.case, Progress(sys.stderr), Recorder(NoTrace())).manifest.digest
            Repro(shrunk.case, digest, package_versions()).write(out / f"{name}.json")
        script = shrunk.before.script
        assert script is not None
        return name, Smallest(
            seed,
            shrunk.invariant,
            shrunk.operations,
            len(script.operations),
            shrunk.strikes,
            len(script.strikes),
            shrunk.runs,
            shrunk.is_finished,
            shrunk.wall_seconds,
        )
    raise ShrinkError(f"{name} is not caught within {seeds_max} seeds")


def smallest_of_all(
    names: Sequence[str], base: Scenario, seeds_max: int, runs_max: int, jobs: int, out: Path | None
) -> Iterator[tuple[str, Smallest]]:
    """Each defect's smallest case, in the order of the names, `jobs` of them at once. Raises ShrinkError."""
    work = partial(smallest_of, base=base, seeds_max=seeds_max, runs_max=runs_max, out=out)
    # One defect a process: the crashed hosts of hundreds of runs stay in memory (sim.graveyard).
    with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=1) as pool:
        yield from pool.imap(work, names)


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
