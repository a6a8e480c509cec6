"""A block of seeds, each run twice in processes with different PYTHONHASHSEED: what CI runs.

    python -m sim.seed_block --seeds 0:300 --jobs 2

The first run of a seed is judged, the second must have the same digest. Over the block every invariant must have been
exercised, but for those that only a fault outside the swarm can exercise; these have a block of their own:

    python -m sim.seed_block --seeds 0:10 --faults corrupt-record --judge corrupt-input-stops

Exit status 0 when all of that holds, 1 when not; each failure is one line with the command that shows it.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sim.scenario import SWARM, Scenario

SEEDS_PER_PROCESS = 25
"""Crashed hosts stay in memory (sim.graveyard), so worker processes are replaced from time to time."""
OUTSIDE_THE_SWARM = ("corrupt-input-stops",)
"""Invariants that only a fault which breaks an assumption can exercise."""


@dataclass(frozen=True)
class SeedResult:
    """What one run of a seed came to; `error` is set when it could not even be run."""

    seed: int
    digest: str
    verdicts: dict[str, str]
    error: str = ""


def run_seed(scenario: Scenario, is_judged: bool) -> SeedResult:
    """Run one scenario in this process; verdicts are empty unless it is judged."""
    from sim.progress import Progress
    from sim.run import run_scenario, simulate
    from traces.recorder import NoTrace, Recorder

    try:
        if not is_judged:
            simulated = simulate(scenario, Progress(sys.stderr), Recorder(NoTrace()))
            return SeedResult(scenario.seed, simulated.manifest.digest, {})
        with tempfile.TemporaryDirectory() as folder:
            result = run_scenario(scenario, Path(folder) / "trace", Progress(sys.stderr))
        return SeedResult(scenario.seed, result.digest, {name: each.verdict for name, each in result.verdicts.items()})
    except Exception as error:  # a run that raises is a failure of this seed, not of the block
        import traceback

        return SeedResult(scenario.seed, "", {}, "".join(traceback.format_exception(error)))


def _results(scenarios: Sequence[Scenario], jobs: int, hash_seed: str, is_judged: bool) -> Iterator[SeedResult]:
    before = os.environ.get("PYTHONHASHSEED")
    os.environ["PYTHONHASHSEED"] = hash_seed
    try:
        # Not ProcessPoolExecutor: replacing its workers can deadlock in Python 3.11 (its issue 115634).
        with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=SEEDS_PER_PROCESS) as pool:
            yield from pool.imap(partial(run_seed, is_judged=is_judged), scenarios)
    finally:
        if before is None:
            del os.environ["PYTHONHASHSEED"]
        else:
            os.environ["PYTHONHASHSEED"] = before


def run_block(scenarios: Sequence[Scenario], jobs: int, judged: Sequence[str]) -> bool:
    """Run the block and print what failed and a closing line. Returns whether everything held.

    `judged` names the invariants that count; none: all of them.
    """
    started = time.perf_counter()
    failed: dict[int, None] = {}
    exercised: Counter[str] = Counter()
    digests: dict[int, str] = {}
    for result in _results(scenarios, jobs, "1", is_judged=True):
        digests[result.seed] = result.digest
        violated = []
        for name, verdict in result.verdicts.items():
            if name in judged if judged else name not in OUTSIDE_THE_SWARM:
                exercised[name] += verdict != "not exercised"
                if verdict == "violated":
                    violated.append(name)
        if violated or result.error:
            failed[result.seed] = None
            what = f"violated {', '.join(violated)}" if violated else f"did not run\n{result.error}"
            print(f"seed {result.seed}: {what}\n  {command_of(scenarios[0], result.seed)}", flush=True)
    for result in _results(scenarios, jobs, "2", is_judged=False):
        if result.digest != digests[result.seed]:
            failed[result.seed] = None
            print(
                f"seed {result.seed}: digest {digests[result.seed]} with PYTHONHASHSEED=1, {result.digest} with 2: "
                f"not deterministic\n{result.error}",
                flush=True,
            )
    idle = [name for name, count in exercised.items() if count == 0]
    if idle:
        print(f"never exercised in this block: {', '.join(idle)}")
    for name, count in exercised.items():
        print(f"  {name:28} exercised by {count} of {len(scenarios)} seeds")
    print(f"{time.perf_counter() - started:.1f} s, every seed run twice")
    print(f"{len(scenarios) - len(failed)} passed, {len(failed)} failed")
    return not failed and not idle


def command_of(scenario: Scenario, seed: int) -> str:
    """The command line that runs one seed of a block."""
    return f"exchange-sim run --seed {seed} --orders {scenario.orders} --faults {scenario.faults}"


def judged_seeds_per_second(seeds: Sequence[int], jobs: int) -> float:
    """How fast a block of seeds is run and judged."""
    started = time.perf_counter()
    count = sum(1 for _ in _results([Scenario(seed=seed) for seed in seeds], jobs, "1", is_judged=True))
    return count / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m sim.seed_block", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0:40", metavar="A:B", help="from A up to, not including, B")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--faults", default=SWARM)
    parser.add_argument("--judge", default="", metavar="NAME,...", help="only these invariants count (default: all)")
    parser.add_argument("--orders", type=int, default=Scenario.orders)
    arguments = parser.parse_args()
    first, _, last = arguments.seeds.partition(":")
    if not (first.isdigit() and last.isdigit() and int(first) < int(last)) or arguments.jobs < 1:
        parser.error("--seeds wants A:B with A < B, --jobs at least 1")
    scenarios = [
        Scenario(seed=seed, faults=arguments.faults, orders=arguments.orders) for seed in range(int(first), int(last))
    ]
    judged = [name for name in arguments.judge.split(",") if name]
    sys.exit(0 if run_block(scenarios, arguments.jobs, judged) else 1)


if __name__ == "__main__":
    main()
