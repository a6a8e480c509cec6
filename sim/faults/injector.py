"""Carries out a plan of faults, records each strike, and ends them all for the second phase (design sections 5, 8)."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from sim.deployment import Deployment
from sim.faults.catalogue import BEGIN, Undo, is_moment
from sim.faults.plan import Strike
from sim.scenario import SECOND_NS

AIM_NS: Final = SECOND_NS
"""How long an aimed strike waits for its moment; then it strikes all the same."""
LOOK_NS: Final = 150_000
"""How often it looks. A transaction takes a few milliseconds, a write to Cassandra about one."""


class Injector:
    """Schedules the strikes of a plan, counted from `start_ns`; `struck` counts those that began, by fault."""

    def __init__(self, world: Deployment, plan: Sequence[Strike], start_ns: int) -> None:
        self.plan = plan
        self.struck: Counter[str] = Counter()
        self._world = world
        self._emit = world.recorder.emitter("faults")
        self._open: dict[int, tuple[Strike, Undo]] = {}
        self._is_healed = False
        for number, strike in enumerate(plan):
            world.clock.at(start_ns + strike.at_ns, self._begin, number, strike)

    def heal(self) -> None:
        """End every strike that is still going on; none begins any more."""
        self._is_healed = True
        for number in list(self._open):
            self._end(number)

    def _begin(self, number: int, strike: Strike, waited_ns: int = 0) -> None:
        if self._is_healed:
            return
        if strike.is_aimed and waited_ns < AIM_NS and not is_moment(self._world, strike):
            self._world.clock.after(LOOK_NS, self._begin, number, strike, waited_ns + LOOK_NS)
            return
        self.struck[strike.fault] += 1
        self._record(strike, "start")
        undo = BEGIN[strike.fault](self._world, strike)
        if undo is None:
            self._record(strike, "end")
        else:
            self._open[number] = strike, undo
            self._world.clock.after(strike.duration_ns, self._end, number)

    def _end(self, number: int) -> None:
        entry = self._open.pop(number, None)
        if entry is not None:
            strike, undo = entry
            undo()
            self._record(strike, "end")

    def _record(self, strike: Strike, phase: str) -> None:
        self._emit(self._world.clock.now, "", strike.fault, phase, strike.target, strike.describe())
