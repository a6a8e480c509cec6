"""The loop of shrinking: pass after pass, until nothing can be made simpler."""

import time
from dataclasses import dataclass
from typing import Final

from sim.progress import Progress
from sim.run import written_out
from sim.scenario import Scenario
from sim.shrink import fewer, simpler
from sim.shrink.fewer import Pass, script_of
from sim.shrink.target import Target, chosen, violated_by

PASSES: Final[tuple[Pass, ...]] = (
    simpler.calm,
    simpler.plain_snapshots,
    simpler.one_aimed_strike,
    simpler.one_bold_strike,
    fewer.sooner,
    fewer.shorter,
    fewer.fewer_strikes,
    fewer.fewer_symbols,
    simpler.paced,
    fewer.fewer_users,
    simpler.aimed_strikes,
    simpler.ample_deposits,
    fewer.fewer_operations,
    simpler.one_of_each,
    simpler.fewer_names,
    simpler.paced,
    fewer.less_time,
    simpler.simpler_operations,
    simpler.one_bold_strike,
    simpler.simpler_strikes,
    fewer.fewer_pairs,
)
"""In this order: what takes most away comes first, so that the runs become short soon; and an even pace early, because
it takes luck out of failures that are not about time."""
SOUNDED_OPERATIONS_MAX: Final = 100
"""How much a failure depends on luck is asked of cases that are quick to run, and again when they have got half as
long: a plain case at an even pace needs less."""

FINISHED: Final = "nothing can be made simpler"
EXHAUSTED: Final = "the runs are used up"
INTERRUPTED: Final = "interrupted"


@dataclass(frozen=True)
class Shrunk:
    """What came of shrinking."""

    invariant: str
    """What the case breaks."""
    case: Scenario
    """The smallest case that was found, with its script."""
    before: Scenario
    """The case that it began with, written out."""
    runs: int
    """How many cases were run."""
    ending: str
    """Why it came to an end: FINISHED, EXHAUSTED or INTERRUPTED."""
    wall_seconds: float

    @property
    def is_finished(self) -> bool:
        """Whether nothing could be made simpler any more."""
        return self.ending == FINISHED

    @property
    def operations(self) -> int:
        """Client operations in the smallest case."""
        return len(script_of(self.case).operations)

    @property
    def strikes(self) -> int:
        """Faults in the smallest case."""
        return len(script_of(self.case).strikes)


class ShrinkInterrupted(KeyboardInterrupt):
    """Shrinking was interrupted after it had made the case smaller."""

    def __init__(self, shrunk: Shrunk) -> None:
        super().__init__()
        self.shrunk = shrunk
        """As small as it had become."""


def shrink(scenario: Scenario, invariant: str, runs_max: int, progress: Progress) -> Shrunk:
    """The smallest case found that breaks the invariant ("": the first that the scenario breaks).

    Raises ShrinkError when the scenario does not break it, ScenarioError or FlowError when it cannot be run, and
    ShrinkInterrupted when there is something to show for it.
    """
    before = written_out(scenario)
    return shrink_case(before, chosen(violated_by(before), invariant), runs_max, progress)


def shrink_case(before: Scenario, invariant: str, runs_max: int, progress: Progress) -> Shrunk:
    """The smallest case found that breaks the invariant, from one with a script that is known to break it.

    Raises ShrinkInterrupted when there is something to show for it.
    """
    started = time.perf_counter()
    target = Target(invariant, runs_max)

    def shrunk(case: Scenario, ending: str) -> Shrunk:
        return Shrunk(invariant, case, before, target.runs, ending, time.perf_counter() - started)

    try:
        case = _simplest(before, target, progress)
    except KeyboardInterrupt:
        if target.latest is None:
            raise
        raise ShrinkInterrupted(shrunk(target.latest, INTERRUPTED)) from None
    finally:
        progress.clear()
    return shrunk(case, EXHAUSTED if target.is_exhausted else FINISHED)


def _simplest(case: Scenario, target: Target, progress: Progress) -> Scenario:
    """What the passes come to, over and over, until none finds anything or the runs are used up."""
    is_finished = False
    while not is_finished and not target.is_exhausted:
        round_began_with = case
        sounded_again_at = SOUNDED_OPERATIONS_MAX
        for each in PASSES:
            operations = len(script_of(case).operations)
            if operations <= sounded_again_at:
                target.sound(case)
                sounded_again_at = operations // 2
            case = each(case, target.failing)
            script = script_of(case)
            progress.show(
                f"{target.invariant}: {len(script.operations)} operations, {len(script.strikes)} faults "
                f"after {target.runs} runs"
            )
        is_finished = case == round_began_with
    return case
