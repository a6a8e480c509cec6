"""Carries out a plan of faults, records each strike, and ends them all for the second phase (design sections 5, 8)."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from sim.deployment import Deployment
from sim.faults.catalogue import BEGIN
from sim.faults.kind import Undo
from sim.faults.moments import is_moment
from sim.scenario import SECOND_NS
from sim.script import Strike

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
        # Aimed strikes that wait for their moment, each with the instant at which it strikes all the same.
        self._waiting: list[tuple[int, Strike, int]] = []
        self._is_looking = False
        for number, strike in enumerate(plan):
            world.clock.at(start_ns + strike.at_ns, self._begin, number, strike)

    def heal(self) -> None:
        """End every strike that is still going on; none begins any more."""
        self._is_healed = True
        for number in list(self._open):
            self._end(number)

    def _begin(self, number: int, strike: Strike) -> None:
        if self._is_healed:
            return
        if strike.is_aimed and not is_moment(self._world, strike):
            self._waiting.append((number, strike, self._world.clock.now + AIM_NS))
            self._look_later()
        else:
            self._strike(number, strike)

    def _look_later(self) -> None:
        """Look again after a while, and not before something has happened: between two events no moment comes."""
        if self._waiting and not self._is_looking:
            self._is_looking = True
            clock = self._world.clock
            last_ns = min(until_ns for _, _, until_ns in self._waiting)
            clock.at(max(clock.now + LOOK_NS, min(clock.next_ns(), last_ns)), self._look)

    def _look(self) -> None:
        self._is_looking = False
        if self._is_healed:
            return
        now = self._world.clock.now
        waiting, self._waiting = self._waiting, []
        for number, strike, until_ns in waiting:
            if now >= until_ns or is_moment(self._world, strike):
                self._strike(number, strike)
            else:
                self._waiting.append((number, strike, until_ns))
        self._look_later()

    def _strike(self, number: int, strike: Strike) -> None:
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
