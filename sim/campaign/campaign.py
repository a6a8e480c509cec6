"""The loop of a campaign: hand out the seeds that are missing, keep and count what comes back, keep failing traces.

What grows in memory is a number for each seed that was there already, and what the tally keeps of each that failed.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from sim.campaign.results import CampaignError, ResultStore
from sim.campaign.seeds import SeedResult, digest_of, keep_trace, run_seed
from sim.campaign.tally import Tally
from sim.campaign.workers import LocalWorkers, Workers
from sim.progress import Progress
from sim.scenario import SWARM, SYNTHETIC, Scenario
from traces.manifest import source_digest
from traces.stories.words import counted

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
    sample = frozenset(plan.sample)
    digests: dict[int, str] = {}

    def count(result: SeedResult) -> bool:
        """Count a first run, and keep the evidence of a failure. Says whether it is one."""
        if result.seed in sample and result.digest:
            digests[result.seed] = result.digest
        failure = tally.add(result)
        if failure is None:
            return False
        scenario = plan.of(result.seed)
        failure.repro = store.write_repro(scenario, result.digest)
        if result.digest and tally.traces_kept[failure.what_broke] < TRACES_PER_GROUP:
            path = store.trace_path(result.seed)
            if not path.exists():
                progress.show(f"keeping the trace of seed {result.seed} ({failure.what_broke})")
                for again in LocalWorkers(1).results(partial(keep_trace, path, source_digest()), [scenario]):
                    _check_code(again)
                    tally.add_again(again, result.digest)
            if path.exists():
                failure.trace = path
                tally.traces_kept[failure.what_broke] += 1
        return True

    with store:
        stored: set[int] = set()
        for result in store.stored():
            if result.seed in plan.seeds and result.seed not in stored:
                stored.add(result.seed)
                count(result)
        started = time.perf_counter()
        missing = (plan.of(seed) for seed in plan.seeds if seed not in stored)
        try:
            for result in workers.results(partial(run_seed, work_folder=store.work_folder), missing):
                _check_code(result)
                if not result.is_lost:
                    store.add(result)
                tally.ran += 1
                if not count(result):
                    store.drop_repro(result.seed)
                tally.wall_seconds = time.perf_counter() - started
                progress.show(_progress_line(tally, len(plan.seeds)))
        finally:
            store.flush()
        again = (plan.of(seed) for seed in plan.sample if seed in digests)
        for number, result in enumerate(LocalWorkers(jobs, hash_seed="2").results(digest_of, again), 1):
            _check_code(result)
            tally.add_again(result, digests[result.seed])
            progress.show(f"{number:,} of {len(digests):,} seeds run again for their digest")
    tally.unstable.sort()
    progress.clear()
    return tally


def _check_code(result: SeedResult) -> None:
    """Raises CampaignError for a result of other code than ours: edited meanwhile, or of a worker that came late."""
    if not result.is_lost and result.code != source_digest():
        raise CampaignError(f"seed {result.seed} was run by other code than this process has; it is not kept")


def verdict(plan: Plan, tally: Tally) -> Iterator[str]:
    """Why a campaign failed, one line for each reason; nothing when it is green."""
    if tally.failures:
        yield f"{len(tally.failures):,} of {tally.seeds:,} seeds failed"
    if tally.unstable:
        seeds = ", ".join(map(str, tally.unstable[:10]))
        yield f"{counted(len(tally.unstable), 'seed')} had another digest when they ran again: {seeds}"
    if tally.not_run_again:
        seed, why = min(tally.not_run_again.items())
        yield f"{counted(len(tally.not_run_again), 'seed')} could not be run again: seed {seed} {why}"
    if plan.must_exercise and tally.invariants_idle:
        yield f"never exercised: {', '.join(tally.invariants_idle)}"
    if plan.is_standard and tally.goals_missed:
        yield f"goals never reached: {', '.join(tally.goals_missed)}"


def _progress_line(tally: Tally, total: int) -> str:
    left_s = (total - tally.seeds) / tally.seeds_per_second
    hours, minutes, seconds = int(left_s // 3600), int(left_s // 60) % 60, int(left_s) % 60
    left = f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"
    return (
        f"{tally.seeds:,} of {total:,} seeds, {len(tally.failures):,} failed, "
        f"{tally.seeds_per_second:.2f} seeds/s, {left} left"
    )
