"""One seed of a campaign, run and judged in a worker process; what comes back is small and plain."""

import asyncio
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
    """What its worker took for running, storing and checking."""
    orders: int = 0
    verdicts: dict[str, str] = field(default_factory=dict)
    """Invariant -> holds, violated or not exercised."""
    first_violation: str = ""
    """What the first violated invariant said first; empty when all hold."""
    goals: dict[str, int] = field(default_factory=dict)
    """Reachability goal -> how often the run was in that situation."""
    faults: dict[str, int] = field(default_factory=dict)
    """Fault -> how often it struck."""
    error: str = ""
    """Why the seed could not be run, as a traceback; empty when it could."""
    code: str = ""
    """The digest of the source that ran it (`traces.manifest.source_digest`)."""
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


def run_seed(scenario: Scenario) -> SeedResult:
    """Run one scenario in this process, judge it, and forget its trace. Never raises for what the run did."""
    # In here, because a worker imports this module before it knows what it will be asked.
    from sim.progress import SILENT
    from sim.run import run_scenario
    from traces.manifest import source_digest
    from traces.reachability import reached
    from traces.summary import violation_lines

    started = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory() if _is_long(scenario) else nullcontext() as folder:
            result = run_scenario(scenario, Path(folder) / "trace" if folder else None, SILENT)
            goals = reached(result.trace)
            lines = [] if result.holds else violation_lines(result.trace, result.verdicts)
        return SeedResult(
            seed=scenario.seed,
            digest=result.digest,
            wall_seconds=time.perf_counter() - started,
            orders=result.counts["orders"],
            verdicts={name: each.verdict for name, each in result.verdicts.items()},
            first_violation=lines[0].strip() if lines else "",
            goals=goals,
            faults=dict(result.simulated.struck),
            code=source_digest(),
        )
    except WHAT_RUNS_RAISE as error:  # it is a failure of this seed, not of the campaign
        text = "".join(traceback.format_exception(error))
        return SeedResult(
            seed=scenario.seed,
            wall_seconds=time.perf_counter() - started,
            error=text,
            is_lost=isinstance(error, MemoryError),
        )


def keep_trace(folder: Path, scenario: Scenario) -> SeedResult:
    """Run one scenario to keep its trace, with its verdicts. Never raises for what the run did."""
    from sim.progress import SILENT
    from sim.run import run_scenario

    try:
        result = run_scenario(scenario, folder, SILENT)
    except WHAT_RUNS_RAISE as error:
        return SeedResult(seed=scenario.seed, error="".join(traceback.format_exception(error)))
    return SeedResult(seed=scenario.seed, digest=result.digest)


def _is_long(scenario: Scenario) -> bool:
    """Whether a run's trace should not be kept in memory: Parquet files cost a short run more than all its judging."""
    if scenario.script is not None:
        return len(scenario.script.operations) > _IN_MEMORY_ORDERS_MAX
    return scenario.flow != SYNTHETIC or scenario.orders > _IN_MEMORY_ORDERS_MAX


def digest_of(scenario: Scenario) -> SeedResult:
    """Run one scenario for its digest alone. Never raises for what the run did."""
    from sim.progress import SILENT
    from sim.run import simulate
    from traces.manifest import source_digest
    from traces.recorder import NoTrace, Recorder

    try:
        simulated = simulate(scenario, SILENT, Recorder(NoTrace()))
    except WHAT_RUNS_RAISE as error:
        return SeedResult(seed=scenario.seed, error="".join(traceback.format_exception(error)))
    return SeedResult(seed=scenario.seed, digest=simulated.manifest.digest, code=source_digest())
