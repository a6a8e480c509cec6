"""What a whole simulated order costs: all services, swarm faults, the trace and the invariants (design section 11)."""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ORDERS_PER_SECOND = 2_000
"""Simulated arrivals, as dense as in a busy market. Every seam batches by it: at 250 a second an order costs
twice as much."""


def whole_order(orders: int = 20_000, seeds: Sequence[int] = (1, 2, 3, 4, 5)) -> dict[str, float]:
    """Orders per second of wall time over several seeds, and the share of it that checking and storing took."""
    runs = [_run(seed, orders) for seed in seeds]
    return {
        "orders_per_second": statistics.median(run["orders"] / run["wall_seconds"] for run in runs),
        "check_and_store_share": statistics.median(run["judge_seconds"] / run["wall_seconds"] for run in runs),
        "events_per_order": statistics.median(run["events"] / run["orders"] for run in runs),
    }


def memory(sizes: Sequence[int] = (20_000, 100_000)) -> dict[str, float]:
    """Peak resident memory of a run, by its size, in MB; linear when the second is at most five times the first."""
    return {f"peak_mb_{orders}_orders": _run(1, orders)["peak_mb"] for orders in sizes}


def help_time(times: int = 5) -> dict[str, float]:
    """Seconds until `exchange-sim --help` has printed."""
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "sim.commandline", "--help"], check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
    return {"help_seconds": statistics.median(seconds)}


def two_jobs(seeds: int = 24) -> dict[str, float]:
    """How many times faster a block of seeds is with two processes than with one."""
    one, two = _seeds_per_second(seeds, jobs=1), _seeds_per_second(seeds, jobs=2)
    return {"seeds_per_second_1_job": one, "seeds_per_second_2_jobs": two, "two_jobs_over_one": two / one}


def _seeds_per_second(seeds: int, jobs: int) -> float:
    """How fast a campaign runs and judges its seeds, the start of its processes included."""
    from sim.campaign.seeds import run_seed
    from sim.campaign.workers import LocalWorkers
    from sim.scenario import Scenario

    started = time.perf_counter()
    count = sum(1 for _ in LocalWorkers(jobs).results(run_seed, map(Scenario, range(seeds))))
    return count / (time.perf_counter() - started)


def _run(seed: int, orders: int) -> dict[str, float]:
    """One run in a process of its own, so that its memory is its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.pipeline_bench", str(seed), str(orders)],
        check=True,
        capture_output=True,
        text=True,
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _measure(seed: int, orders: int) -> dict[str, float]:
    from engine.ownership_settings import OwnershipSettings
    from sim.progress import Progress
    from sim.run import run_scenario
    from sim.scenario import SECOND_NS, Scenario

    # The faults of a seed are drawn for the same duration. Snapshots are as far apart as in production: the default
    # of scenarios, which lets short runs meet them, would write the growing state 20 times as often.
    scenario = Scenario(
        seed=seed,
        orders=orders,
        users=50,
        duration_ns=orders * SECOND_NS // ORDERS_PER_SECOND,
        snapshot_interval_outputs=OwnershipSettings().snapshot_interval_outputs,
    )
    with tempfile.TemporaryDirectory() as folder:
        result = run_scenario(scenario, Path(folder) / "trace", Progress(sys.stderr))
    return {
        "orders": orders,
        "wall_seconds": result.wall_seconds,
        "judge_seconds": result.check_seconds + result.store_seconds,
        "events": sum(result.simulated.recorder.counts().values()),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


if __name__ == "__main__":
    print(json.dumps(_measure(int(sys.argv[1]), int(sys.argv[2]))))
