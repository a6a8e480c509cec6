"""The smallest case of each defect of the gallery: how small the harness can show a failure (design section 9)."""

import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

from sim.campaign.seeds import WHAT_RUNS_RAISE
from sim.campaign.workers import LocalWorkers, WorkersError
from sim.defects import GALLERY
from sim.defects.power import scenario_of
from sim.progress import SILENT
from sim.repro import Repro
from sim.scenario import Scenario
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


Found = tuple[str, Smallest | str | None]
"""A defect, and how small its case became; None when no seed caught it, a text when that could not be found out."""


def smallest_of(scenario: Scenario, seeds_max: int, runs_max: int, out: Path | None) -> Found:
    """Find the first seed, from the scenario's on, that catches its defect, and shrink that run; the repro goes to
    `out`, when given. Never raises."""
    # In here, because a worker imports this module before it knows what it will be asked.
    from sim.run import simulate, written_out
    from sim.shrink.fewer import script_of
    from sim.shrink.shrinker import shrink_case
    from sim.shrink.target import violated_by
    from traces.recorder import NoTrace, Recorder

    name = scenario.defect
    try:
        for seed in range(scenario.seed, scenario.seed + seeds_max):
            caught = replace(scenario, seed=seed)
            named = [each for each in violated_by(caught) if each in GALLERY[name].caught_by]
            if named:
                break
        else:
            return name, None
        shrunk = shrink_case(written_out(caught), named[0], runs_max, SILENT)
        if out is not None:
            digest = simulate(shrunk.case, SILENT, Recorder(NoTrace())).manifest.digest
            Repro(shrunk.case, digest, package_versions()).write(out / f"{name}.json")
    except WHAT_RUNS_RAISE as error:
        return name, "".join(traceback.format_exception(error))
    before = script_of(shrunk.before)
    return name, Smallest(
        caught.seed,
        shrunk.invariant,
        shrunk.operations,
        len(before.operations),
        shrunk.strikes,
        len(before.strikes),
        shrunk.runs,
        shrunk.is_finished,
        shrunk.wall_seconds,
    )


def smallest_of_all(
    names: Sequence[str], base: Scenario, seeds_max: int, runs_max: int, jobs: int, out: Path | None
) -> Iterator[tuple[str, Smallest | None]]:
    """Each defect's smallest case as soon as it is known, `jobs` of them at once; None for one that is not caught.

    Raises WorkersError for a defect that could not be run.
    """
    # One defect a process: the crashed hosts of hundreds of runs stay in memory (sim.graveyard).
    workers = LocalWorkers(jobs, tasks_per_process=1, timeout_s=TIMEOUT_S)
    scenarios = (scenario_of(GALLERY[name], base, base.seed) for name in names)
    work = partial(smallest_of, seeds_max=seeds_max, runs_max=runs_max, out=out)
    for name, found in workers.outcomes(work, scenarios, _lost):
        if isinstance(found, str):
            raise WorkersError(f"{name}: {found.strip().splitlines()[-1]}")
        yield name, found


def as_json(found: Mapping[str, Smallest | None]) -> dict[str, Any]:
    """Defect -> how small its case became; null when it was not caught."""
    return {name: asdict(each) if each is not None else None for name, each in found.items()}


def line_of(name: str, each: Smallest | None) -> str:
    """One row of the table."""
    if each is None:
        return f"{name:34} not caught"
    rest = "" if each.is_finished else "  (runs used up)"
    return (
        f"{name:34} {each.operations:4} of {each.operations_before:5} operations {each.faults:3} of "
        f"{each.faults_before:3} faults {each.runs:5} runs {each.wall_seconds:7.1f} s  {each.invariant}{rest}"
    )


def closing_line(found: Mapping[str, Smallest | None]) -> str:
    """The medians, and what was not caught."""
    caught = [each for each in found.values() if each is not None]
    missed = [name for name, each in found.items() if each is None]
    line = f"{len(caught)} of {len(found)} defects shrunk"
    if caught:
        operations, faults = [each.operations for each in caught], [each.faults for each in caught]
        line += (
            f": median {median(operations):g} operations (most {max(operations)}), "
            f"median {median(faults):g} faults (most {max(faults)})"
        )
    return line + (f"; not caught: {', '.join(missed)}" if missed else "")


def _lost(scenario: Scenario, why: str) -> Found:
    return scenario.defect, why
