"""What a campaign came to, counted as results come in. What grows is a short record of each seed that failed."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sim.campaign.seeds import SeedResult
from traces.invariants import ORDER
from traces.reachability import GOALS

OUTSIDE_THE_SWARM: Final = ("corrupt-input-stops",)
"""Invariants that only a fault which breaks an assumption can exercise."""


@dataclass
class Failure:
    """A seed that failed."""

    seed: int
    what_broke: str
    invariants: tuple[str, ...]
    first_violation: str
    """The first of the first of these invariants; empty when none is violated."""
    repro: Path | None = None
    trace: Path | None = None


@dataclass
class Tally:
    """Counts over all results of a campaign."""

    judged: tuple[str, ...] = ()
    """The invariants that count; none: all of them."""
    seeds: int = 0
    passed: int = 0
    orders: int = 0
    failures: list[Failure] = field(default_factory=list)
    goal_seeds: Counter[str] = field(default_factory=Counter)
    """Goal -> in how many seeds it was reached."""
    goal_times: Counter[str] = field(default_factory=Counter)
    """Goal -> how often it was reached in all."""
    exercised: Counter[str] = field(default_factory=Counter)
    """Invariant -> how many seeds exercised it."""
    fault_times: Counter[str] = field(default_factory=Counter)
    """Fault -> how often it struck."""
    unstable: list[int] = field(default_factory=list)
    """Seeds whose digest was another one when they ran again."""
    run_again: int = 0
    """How often a seed ran again: for its digest, or for the trace of a failure."""
    not_run_again: dict[int, str] = field(default_factory=dict)
    """Seeds that could not be run again, and why, in a line."""
    traces_kept: Counter[str] = field(default_factory=Counter)
    """What broke -> how many failures have a trace."""
    wall_seconds: float = 0.0
    """What this process took; of a campaign that was resumed, its last part."""
    ran: int = 0
    """How many seeds this process ran: the others were there already."""

    def add(self, result: SeedResult) -> Failure | None:
        """Count a result; returns the failure if it is one."""
        self.seeds += 1
        self.orders += result.orders
        self.goal_seeds.update(name for name, count in result.goals.items() if count)
        self.goal_times.update(result.goals)
        self.exercised.update(name for name, verdict in result.verdicts.items() if verdict != "not exercised")
        self.fault_times.update(result.faults)
        violated = tuple(name for name in result.violated if not self.judged or name in self.judged)
        if result.error or violated:
            what_broke = result.error_line if result.error else ", ".join(violated)
            first_violation = result.first_violations[violated[0]] if violated else ""
            failure = Failure(result.seed, what_broke, violated, first_violation)
            self.failures.append(failure)
            return failure
        self.passed += 1
        return None

    def add_again(self, result: SeedResult, digest: str) -> None:
        """Count the second run of a seed whose first had the digest."""
        self.run_again += 1
        if result.error:
            self.not_run_again[result.seed] = result.error_line
        elif result.digest != digest and result.seed not in self.unstable:
            self.unstable.append(result.seed)

    def groups(self) -> dict[str, list[Failure]]:
        """Failures by what broke, the largest group first, each in order of seed."""
        found: dict[str, list[Failure]] = {}
        for each in sorted(self.failures, key=lambda failure: failure.seed):
            found.setdefault(each.what_broke, []).append(each)
        return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))

    @property
    def goals_missed(self) -> list[str]:
        """Goals that no seed reached."""
        return [name for name in GOALS if not self.goal_seeds[name]]

    @property
    def invariants_idle(self) -> list[str]:
        """Invariants that no seed exercised, of those that are judged and that the swarm can exercise."""
        expected = self.judged or [name for name in ORDER if name not in OUTSIDE_THE_SWARM]
        return [name for name in expected if not self.exercised[name]]

    @property
    def orders_per_second(self) -> float:
        """Simulated orders a second, over what this process ran."""
        share = self.ran / self.seeds if self.seeds else 0.0
        return self.orders * share / self.wall_seconds if self.wall_seconds else 0.0

    @property
    def seeds_per_second(self) -> float:
        """Seeds a second, over what this process ran."""
        return self.ran / self.wall_seconds if self.wall_seconds else 0.0
