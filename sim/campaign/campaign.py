"""The loop of a campaign: hand out the seeds that are missing, keep and count what comes back, keep failing traces."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from sim.campaign.results import ResultStore
from sim.campaign.seeds import digest_of, run_seed
from sim.campaign.tally import Tally
from sim.campaign.workers import LocalWorkers, Workers
from sim.progress import Progress
from sim.run import run_scenario
from sim.scenario import SWARM, SYNTHETIC, Scenario

TRACES_PER_GROUP: Final = 3
"""So many failing seeds of each group keep their trace; all of them have a repro, which makes it again."""
STANDARD_SEEDS_MIN: Final = 1_000
"""A standard campaign with so many seeds must reach every goal, or its tests were vacuous."""


@dataclass(frozen=True)
class Plan:
    """What a campaign is to do."""

    scenario: Scenario
    """The scenario of every seed; its own seed does not count."""
    first: int
    """The first seed."""
    end: int
    """One past the last seed."""
    judged: tuple[str, ...] = ()
    """The invariants that count; none: all of them."""
    run_again: int = 0
    """So many seeds, spread evenly, run again in processes with another PYTHONHASHSEED, for the same digest."""

    @property
    def seeds(self) -> range:
        return range(self.first, self.end)

    @property
    def sample(self) -> list[int]:
        """The seeds that run again."""
        count = min(self.run_again, len(self.seeds))
        return [self.seeds[number * len(self.seeds) // count] for number in range(count)]

    @property
    def is_standard(self) -> bool:
        """Whether it is held to the goals: enough default seeds of the intact code, however many orders each has."""
        is_default = self.scenario == Scenario(seed=self.scenario.seed, orders=self.scenario.orders)
        return len(self.seeds) >= STANDARD_SEEDS_MIN and is_default and not self.judged

    @property
    def must_exercise(self) -> bool:
        """Whether an invariant that was never exercised is a failure: those asked for, and all where all can strike."""
        is_swarm = self.scenario.faults == SWARM and self.scenario.flow == SYNTHETIC and not self.scenario.defect
        return is_swarm or bool(self.judged)

    def of(self, seed: int) -> Scenario:
        """The scenario of one seed."""
        return replace(self.scenario, seed=seed)


def run_campaign(plan: Plan, workers: Workers, store: ResultStore, jobs: int, progress: Progress) -> Tally:
    """Run what is missing of a campaign. Raises CampaignError or WorkersError; what had ended by then is kept."""
    tally = Tally(plan.judged)
    digests: dict[int, str] = {}
    sample = frozenset(plan.sample)
    for result in store.stored():
        if result.seed in plan.seeds and result.seed not in digests:
            digests[result.seed] = result.digest
            tally.add(result)
    started = time.perf_counter()
    missing = (plan.of(seed) for seed in plan.seeds if seed not in digests)
    total = len(plan.seeds)
    try:
        for result in workers.results(run_seed, missing):
            store.add(result)
            tally.add(result)
            tally.ran += 1
            tally.wall_seconds = time.perf_counter() - started
            digests[result.seed] = result.digest
            progress.show(_progress_line(tally, total))
    finally:
        store.flush()
    again = (plan.of(seed) for seed in plan.seeds if seed in sample)
    for result in LocalWorkers(jobs, hash_seed="2").results(digest_of, again):
        tally.run_again += 1
        if result.digest != digests[result.seed]:
            tally.unstable.append(result.seed)
        progress.show(f"{tally.run_again:,} of {len(sample):,} seeds run again for their digest")
    tally.unstable.sort()
    _keep_evidence(plan, tally, store, progress)
    progress.clear()
    return tally


def verdict(plan: Plan, tally: Tally) -> Iterator[str]:
    """Why a campaign failed, one line for each reason; nothing when it is green."""
    if tally.failures:
        yield f"{len(tally.failures):,} of {tally.seeds:,} seeds failed"
    if tally.unstable:
        seeds = ", ".join(map(str, tally.unstable[:10]))
        yield f"{len(tally.unstable):,} seeds had another digest when they ran again: {seeds}"
    if plan.must_exercise and tally.invariants_idle:
        yield f"never exercised: {', '.join(tally.invariants_idle)}"
    if plan.is_standard and tally.goals_missed:
        yield f"goals never reached: {', '.join(tally.goals_missed)}"


def _keep_evidence(plan: Plan, tally: Tally, store: ResultStore, progress: Progress) -> None:
    """Write the repro of each failing seed, and make the traces of the first of each group."""
    for what_broke, failures in tally.groups().items():
        for number, failure in enumerate(failures):
            if not failure.digest:
                continue
            scenario = plan.of(failure.seed)
            failure.repro = store.write_repro(scenario, failure.digest)
            if number < TRACES_PER_GROUP:
                path = store.trace_path(failure.seed)
                if not path.exists():
                    progress.show(f"keeping the trace of seed {failure.seed} ({what_broke})")
                    run_scenario(scenario, path, progress)
                failure.trace = path


def _progress_line(tally: Tally, total: int) -> str:
    left_s = (total - tally.seeds) / tally.seeds_per_second
    hours, minutes, seconds = int(left_s // 3600), int(left_s // 60) % 60, int(left_s) % 60
    left = f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"
    return (
        f"{tally.seeds:,} of {total:,} seeds, {len(tally.failures):,} failed, "
        f"{tally.seeds_per_second:.2f} seeds/s, {left} left"
    )
