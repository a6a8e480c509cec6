"""The one clock of a run: a SimPy environment whose time is an integer count of nanoseconds (design 1 and 5).

Everything that happens in a run happens as an event of this clock. SimPy's own events and processes work as they are;
beside them stands `Timer`, which *is* the scheduled callback: one object, no process, no list of callbacks. What nobody
will cancel or wait for, a message on its way above all, needs not even that: `post` puts the callback into the heap's
entry. Most of a run is these two, so the loop that runs them is written out here, with nothing between the heap and the
callback.

Events at the same instant run in the order in which they were scheduled.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any

import simpy
from simpy.core import StopSimulation
from simpy.events import NORMAL, URGENT, Event, EventPriority

NS_PER_SECOND = 1_000_000_000
NS_PER_MS = 1_000_000
NS_PER_US = 1_000

NEVER_NS = 1 << 63
"""Later than everything."""

SWEEP_AT_LEAST = 64
"""Fewer cancelled timers than this are never worth a sweep of the heap."""


class Timer(Event):
    """A callback that runs once, at `when_ns`, unless `cancel` is called first.

    A process may yield a timer: it is resumed after the callback, or never if the timer is cancelled.
    """

    # The slots shadow the attributes of simpy.Event, so that no instance dictionary is ever filled.
    __slots__ = ("_args", "_callback", "_queued", "_waiters", "env", "when_ns")

    # A timer has its outcome from the start, as a simpy.Timeout has.
    _ok = True
    _value = None

    env: Clock
    when_ns: int
    _callback: Callable[..., object] | None
    _args: tuple[object, ...]
    _queued: bool
    _waiters: list[Callable[[Event], None]] | None

    def __init__(self, clock: Clock, when_ns: int, callback: Callable[..., object], args: tuple[object, ...]) -> None:
        # Everything is set here and pushed here: a timer is the most frequent object of a run.
        self.env = clock
        self.when_ns = when_ns
        self._callback = callback
        self._args = args
        self._queued = True
        self._waiters = None
        clock.scheduled = number = clock.scheduled + 1
        heappush(clock._queue, (when_ns, NORMAL, number, self))

    @property
    def callbacks(self) -> list[Callable[[Event], None]] | None:  # type: ignore[override]
        """SimPy's list of waiters, made when first asked for; None once the timer has run."""
        if not self._queued:
            return None
        if self._waiters is None:
            self._waiters = []
        return self._waiters

    @property
    def is_cancelled(self) -> bool:
        """Whether `cancel` came before the callback ran."""
        return self._queued and self._callback is None

    def cancel(self) -> None:
        """Keep the callback from running. Does nothing once it has run, or when called again."""
        if self._callback is None:
            return
        self._callback = None
        self._args = ()
        if self._queued:
            clock = self.env
            clock._cancelled += 1
            if clock._cancelled > clock._sweep_above:
                clock._sweep()

    def _fire(self) -> None:
        """Run the callback. Called by the clock, with the time already moved and `_queued` already false."""
        callback = self._callback
        args = self._args
        self._callback = None
        self._args = ()
        if callback is not None:
            callback(*args)


class Clock(simpy.Environment):
    """Simulated time in integer nanoseconds since the start of the run, and the queue of what is still to happen."""

    _now: int
    # (instant, priority, number, event), or (instant, priority, number, None, callback, args) of what was posted. The
    # number is unique, so nothing after it is ever compared.
    _queue: list[Any]

    def __init__(self) -> None:
        super().__init__(initial_time=0)
        self.scheduled = 0
        """How many events have been scheduled so far, a measure of the work done; the last one has this number."""
        self._cancelled = 0
        self._sweep_above = SWEEP_AT_LEAST
        self._driven = False  # whether events are being run now
        self._on_return: Callable[[], None] | None = None  # what event loops undo when the clock stops

    @property
    def now(self) -> int:
        """Nanoseconds since the start of the run."""
        return self._now

    @property
    def pending(self) -> int:
        """How many entries the queue of events has, cancelled timers that have not been swept yet included."""
        return len(self._queue)

    def after(self, delay_ns: int, callback: Callable[..., object], *args: object) -> Timer:
        """Run `callback(*args)` when `delay_ns` (0 or more) have passed."""
        if delay_ns < 0:
            raise ValueError(f"a timer cannot be {-delay_ns} ns in the past")
        return Timer(self, self._now + delay_ns, callback, args)

    def at(self, when_ns: int, callback: Callable[..., object], *args: object) -> Timer:
        """Run `callback(*args)` at the instant `when_ns`, which must not have passed."""
        if when_ns < self._now:
            raise ValueError(f"{when_ns} ns has passed, it is {self._now} ns now")
        return Timer(self, when_ns, callback, args)

    def post(self, when_ns: int, callback: Callable[..., object], args: tuple[object, ...]) -> None:
        """`at`, without anything to cancel or to wait for. `when_ns` is not checked."""
        self.scheduled = number = self.scheduled + 1
        heappush(self._queue, (when_ns, NORMAL, number, None, callback, args))

    def schedule(self, event: Event, priority: EventPriority = NORMAL, delay: float = 0) -> None:
        """SimPy's way of scheduling an event. Refuses a delay that is not an integer, which would make time inexact."""
        if delay.__class__ is not int:
            raise TypeError(f"simulated time is integer nanoseconds, not {delay!r}")
        self.scheduled += 1
        heappush(self._queue, (self.now + int(delay), priority, self.scheduled, event))

    def peek(self) -> float:
        """SimPy's `next_ns`: infinity when nothing is left to happen."""
        next_ns = self.next_ns()
        return float("inf") if next_ns == NEVER_NS else next_ns

    def next_ns(self) -> int:
        """The instant of the next event, or `NEVER_NS`. Cancelled timers do not count."""
        queue = self._queue
        while queue:
            event = queue[0][3]
            if not (isinstance(event, Timer) and event._callback is None):
                return int(queue[0][0])
            heappop(queue)
            self._cancelled -= 1
        return NEVER_NS

    def step(self) -> None:
        """Process the next event, however far away it is; raises `simpy.core.EmptySchedule` when there is none."""
        self._driven = True
        try:
            self._step()
        finally:
            self._returned()

    def run(self, until: float | Event | None = None) -> Any:
        """SimPy's `run`: until nothing is left, until an instant (in ns, exclusive), or until an event has happened.

        Raises `ValueError` for an instant that has passed and `RuntimeError` when the event can no longer happen.
        """
        if until is None:
            self._drive(NEVER_NS)
            return None
        if isinstance(until, Event):
            if until.callbacks is None:
                return until.value
            target = until
        else:
            if until <= self._now:
                raise ValueError(f"cannot run until {until} ns, it is {self._now} ns now")
            target = Event(self)
            target._ok = True
            target._value = None
            self.schedule(target, URGENT, int(until) - self.now)  # before all that is planned for that instant
        target.callbacks.append(StopSimulation.callback)
        try:
            self._drive(NEVER_NS)
        except StopSimulation as stop:
            return stop.args[0]
        raise RuntimeError(f"nothing is left to happen, and the run was to last until {until!r}")

    def run_until(self, when_ns: int) -> None:
        """Run everything up to and including the instant `when_ns`, and leave the clock there."""
        if when_ns < self._now:
            raise ValueError(f"{when_ns} ns has passed, it is {self._now} ns now")
        self._drive(when_ns)
        self._now = when_ns

    def run_while(self, condition: Callable[[], bool], when_ns: int | None = None) -> bool:
        """Run event by event as long as `condition()` holds; return whether it still holds at the end.

        The end is the instant `when_ns`, where the clock is left then, or when nothing is left to happen.
        """
        self._driven = True
        try:
            while condition():
                next_ns = self.next_ns()
                if when_ns is not None and next_ns > when_ns:
                    self._now = when_ns
                    return True
                if not self._queue:
                    return True
                self._step()
            return False
        finally:
            self._returned()

    def _drive(self, limit_ns: int) -> None:
        """The hot loop: take events off the heap until it is empty or the next one is later than `limit_ns`."""
        queue = self._queue
        pop = heappop
        step = super().step
        self._driven = True
        try:
            while queue:
                entry = pop(queue)
                when = entry[0]
                if when > limit_ns:
                    heappush(queue, entry)
                    return
                timer = entry[3]
                if timer is None:
                    self._now = when
                    entry[4](*entry[5])
                elif timer.__class__ is Timer:
                    # Timer._fire, written out: most events of a run come this way.
                    callback = timer._callback
                    if callback is None:
                        # Cancelled: time does not move for it, so that nobody can see whether the heap was swept.
                        self._cancelled -= 1
                        continue
                    self._now = when
                    args = timer._args
                    timer._queued = False
                    timer._callback = None
                    timer._args = ()
                    callback(*args)
                    if timer._waiters is not None:
                        self._resume_waiters(timer)
                elif isinstance(timer, Timer):
                    if timer._callback is None:
                        self._cancelled -= 1
                        continue
                    self._now = when
                    timer._queued = False
                    timer._fire()
                    if timer._waiters is not None:
                        self._resume_waiters(timer)
                else:
                    heappush(queue, entry)
                    step()
        finally:
            self._returned()

    def _step(self) -> None:
        """`step`, without the end of a run."""
        self.next_ns()  # drops cancelled timers
        if not self._queue:
            super().step()  # raises what there is to raise
        timer = self._queue[0][3]
        if timer is None:
            self._now, _, _, _, callback, args = heappop(self._queue)
            callback(*args)
        elif isinstance(timer, Timer):
            self._now = heappop(self._queue)[0]
            timer._queued = False
            timer._fire()
            if timer._waiters is not None:
                self._resume_waiters(timer)
        else:
            super().step()

    def _resume_waiters(self, timer: Timer) -> None:
        """Go on with the SimPy processes that have yielded the timer."""
        for waiter in timer._waiters or ():
            waiter(timer)

    def _returned(self) -> None:
        """Control goes back to whoever runs the clock."""
        self._driven = False
        if self._on_return is not None:
            self._on_return()

    def _sweep(self) -> None:
        """Take timers that will never run off the heap, once they are more than half of it.

        Without this, 200,000 operations under a time-out of half a minute leave 200,000 dead entries behind.
        """
        queue = self._queue
        if 2 * self._cancelled > len(queue):
            # In place: the hot loop holds this very list. The entries are totally ordered, so order does not change.
            queue[:] = [entry for entry in queue if not (isinstance(entry[3], Timer) and entry[3]._callback is None)]
            heapify(queue)
            self._cancelled = 0
        # Half of the heap will not be cancelled before that many more have been.
        self._sweep_above = max(SWEEP_AT_LEAST, len(queue) // 2)
