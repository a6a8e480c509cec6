"""Carries out a plan of faults, records each strike, and ends them all for the second phase (design sections 5, 8)."""

from collections import Counter
from collections.abc import Callable, Sequence

from sim.clock import NEVER_NS
from sim.deployment import Deployment
from sim.faults.catalogue import BEGIN
from sim.faults.kind import Undo
from sim.faults.moments import MOMENTS
from sim.faults.watch import watch_for
from sim.script import Strike


class _Wait:
    """A strike that waits for its moment: how that is looked for, how often, and until when."""

    __slots__ = ("has_come", "look_every_ns", "strike", "until_ns")

    def __init__(self, strike: Strike, has_come: Callable[[], bool], until_ns: int) -> None:
        self.strike = strike
        self.has_come = has_come
        self.look_every_ns = MOMENTS[strike.moment].look_every_ns
        self.until_ns = until_ns


class Injector:
    """Schedules the strikes of a plan, counted from `start_ns`; the work that they strike is over at `end_ns`.

    `begun` counts those that began, by fault; `met` those that struck at the moment they had waited for, by that.
    """

    def __init__(self, world: Deployment, plan: Sequence[Strike], start_ns: int, end_ns: int) -> None:
        self.plan = plan
        self.begun: Counter[str] = Counter()
        self.met: Counter[str] = Counter()
        self._world = world
        self._end_ns = end_ns
        self._emit = world.recorder.emitter("faults")
        self._open: dict[int, tuple[Strike, Undo, bool]] = {}
        self._is_healed = False
        # Those that wait for their moment, and when each is looked for next.
        self._waiting: dict[int, tuple[_Wait, int]] = {}
        self._looks_at_ns = NEVER_NS
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
        if strike.moment:
            # At most half of the time that is left, so that a strike that waits in vain has its effect too.
            now = self._world.clock.now
            until_ns = min(now + MOMENTS[strike.moment].patience_ns, (now + self._end_ns) // 2)
            self._look_for(number, _Wait(strike, watch_for(self._world, strike), until_ns))
            self._look_later()
        else:
            self._strike(number, strike, has_met=False)

    def _look_for(self, number: int, wait: "_Wait") -> None:
        """Strike if the moment has come, or will not be waited for any longer; wait otherwise."""
        now = self._world.clock.now
        strike = wait.strike
        if wait.has_come():
            self.met[strike.moment] += 1
            self._strike(number, strike, has_met=True)
        elif now >= wait.until_ns:
            self._strike(number, strike, has_met=False)
        else:
            self._waiting[number] = wait, min(wait.until_ns, now + wait.look_every_ns)

    def _look_later(self) -> None:
        """Have the strikes that wait looked at again, all by one event: with one each, each would wake the others."""
        if not self._waiting:
            return
        clock = self._world.clock
        due_ns = last_ns = NEVER_NS
        for wait, look_ns in self._waiting.values():
            if look_ns < due_ns:
                due_ns = look_ns
            if wait.until_ns < last_ns:
                last_ns = wait.until_ns
        # Not before something has happened: between two events no moment comes.
        when_ns = min(max(due_ns, clock.next_ns()), last_ns)
        if when_ns < self._looks_at_ns:
            self._looks_at_ns = when_ns
            clock.at(when_ns, self._look)

    def _look(self) -> None:
        now = self._world.clock.now
        if self._is_healed or now != self._looks_at_ns:
            return
        self._looks_at_ns = NEVER_NS
        for number, (wait, due_ns) in list(self._waiting.items()):
            if now >= due_ns:
                del self._waiting[number]
                self._look_for(number, wait)
        self._look_later()

    def _strike(self, number: int, strike: Strike, *, has_met: bool) -> None:
        self.begun[strike.fault] += 1
        self._record(strike, "start", has_met)
        undo = BEGIN[strike.fault](self._world, strike)
        if undo is None:
            self._record(strike, "end", has_met)
        else:
            self._open[number] = strike, undo, has_met
            self._world.clock.after(strike.duration_ns, self._end, number)

    def _end(self, number: int) -> None:
        entry = self._open.pop(number, None)
        if entry is not None:
            strike, undo, has_met = entry
            undo()
            self._record(strike, "end", has_met)

    def _record(self, strike: Strike, phase: str, has_met: bool) -> None:
        self._emit(
            self._world.clock.now,
            "",
            strike.fault,
            phase,
            strike.target,
            strike.describe(),
            strike.duration_ns,
            strike.strength,
            strike.moment,
            has_met,
        )
