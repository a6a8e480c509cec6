"""One seed of a campaign, run and judged in a worker process; what comes back is small and plain."""

import asyncio
import os
import tempfile
import time
import traceback
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sim.scenario import SYNTHETIC, Scenario

WHAT_RUNS_RAISE: Final = (Exception, SystemExit, GeneratorExit, asyncio.CancelledError)
"""Everything but an interrupt, which is for whoever waits."""
_IN_MEMORY_ORDERS_MAX: Final = 5_000
"""A run of so many orders leaves some forty megabytes of events."""


@dataclass(frozen=True)
class SeedResult:
    """What one run of a seed came to."""

    seed: int
    digest: str = ""
    """Empty when the seed could not even be run."""
    wall_seconds: float = 0.0
    """What its worker took for running, storing and checking; 0 when it could not."""
    orders: int = 0
    verdicts: dict[str, str] = field(default_factory=dict)
    """Invariant -> holds, violated or not exercised."""
    first_violations: dict[str, str] = field(default_factory=dict)
    """Violated invariant -> its first violation, in words."""
    goals: dict[str, int] = field(default_factory=dict)
    """Reachability goal -> how often the run was in that situation."""
    faults: dict[str, int] = field(default_factory=dict)
    """Fault -> how often it struck."""
    error: str = ""
    """Why the seed could not be run, as a traceback; empty when it could."""
    code: str = ""
    """The digest of the source that ran it (`traces.manifest.source_digest`); a lost seed may have none."""
    is_lost: bool = False
    """Whether that is for want of a worker, of memory or of time, which says nothing about the code."""

    @property
    def violated(self) -> tuple[str, ...]:
        """The invariants that do not hold, in the design's order."""
        return tuple(name for name, verdict in self.verdicts.items() if verdict == "violated")

    @property
    def passed(self) -> bool:
        """Whether the seed ran and every invariant holds."""
        return not self.error and not self.violated

    @property
    def error_line(self) -> str:
        """Why the seed could not be run, in one line; empty when it could."""
        return "did not run: " + self.error.strip().splitlines()[-1] if self.error else ""


# A worker imports this module before it knows what it will be asked, so the work imports what it needs itself: inside
# `try`, because half an edit may not even be imported. Where the source cannot be read either the work raises, and the
# seed is lost.


def run_seed(scenario: Scenario, work_folder: Path | None = None) -> SeedResult:
    """Run one scenario in this process, judge it, and forget its trace. Never raises for what the run did.

    The trace of a long run is in the work folder meanwhile; in a temporary folder of this machine where there is none.
    """
    try:
        from sim.progress import SILENT
        from sim.run import run_scenario
        from traces.manifest import source_digest
        from traces.reachability import reached
        from traces.summary import first_violation

        code = source_digest()
        started = time.perf_counter()
        # A worker on another machine may not have the work folder.
        parent = work_folder if work_folder is not None and os.access(work_folder, os.W_OK) else None
        with tempfile.TemporaryDirectory(dir=parent) if _is_long(scenario) else nullcontext() as folder:
            result = run_scenario(scenario, Path(folder) / "trace" if folder else None, SILENT)
            goals = reached(result.trace)
            first_violations = {
                name: first_violation(result.trace, each)
                for name, each in result.verdicts.items()
                if each.verdict == "violated"
            }
        return SeedResult(
            seed=scenario.seed,
            digest=result.digest,
            wall_seconds=time.perf_counter() - started,
            orders=result.counts["orders"],
            verdicts={name: each.verdict for name, each in result.verdicts.items()},
            first_violations=first_violations,
            goals=goals,
            faults=dict(result.simulated.struck),
            code=code,
        )
    except WHAT_RUNS_RAISE as error:  # it is a failure of this seed, not of the campaign
        return _raised(scenario, error)


def keep_trace(folder: Path, code: str, scenario: Scenario) -> SeedResult:
    """Run one scenario to keep its trace, with its verdicts, unless the code is another by now.

    Never raises for what the run did.
    """
    try:
        from sim.progress import SILENT
        from sim.run import run_scenario
        from traces.manifest import source_digest

        if source_digest() != code:
            return SeedResult(seed=scenario.seed, code=source_digest())
        result = run_scenario(scenario, folder, SILENT)
    except WHAT_RUNS_RAISE as error:
        return _raised(scenario, error)
    return SeedResult(seed=scenario.seed, digest=result.digest, code=code)


def digest_of(scenario: Scenario) -> SeedResult:
    """Run one scenario for its digest alone. Never raises for what the run did."""
    try:
        from sim.progress import SILENT
        from sim.run import simulate
        from traces.manifest import source_digest
        from traces.recorder import NoTrace, Recorder

        code = source_digest()
        simulated = simulate(scenario, SILENT, Recorder(NoTrace()))
    except WHAT_RUNS_RAISE as error:
        return _raised(scenario, error)
    return SeedResult(seed=scenario.seed, digest=simulated.manifest.digest, code=code)


def _raised(scenario: Scenario, error: BaseException) -> SeedResult:
    """The result of work that raised."""
    from traces.manifest import source_digest

    text = "".join(traceback.format_exception(error))
    return SeedResult(seed=scenario.seed, error=text, code=source_digest(), is_lost=isinstance(error, MemoryError))


def _is_long(scenario: Scenario) -> bool:
    """Whether a run's trace should not be kept in memory: Parquet files cost a short run more than all its judging."""
    if scenario.script is not None:
        return len(scenario.script.operations) > _IN_MEMORY_ORDERS_MAX
    return scenario.flow != SYNTHETIC or scenario.orders > _IN_MEMORY_ORDERS_MAX
