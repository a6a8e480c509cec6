"""Hosts and their lives (design 5).

A host runs one service instance. Each life of it, from start to crash or exit, is an `Incarnation` with an event loop
of its own. Nothing that a dead incarnation left behind ever runs again, and it can do nothing to the world any more:
deliveries to it are dropped, and whatever a host calls checks `incarnation.alive`.

- *crash*: a power cut. No `finally`, no `except`; connections die; unsynced disk writes are lost or torn.
- *stop*: SIGTERM. Without a handler the process ends there and then, as by a crash, but its disk keeps its writes.
- *pause*: nothing runs while the world goes on; *resume* runs what has queued up, in order.
- *exit*: the main coroutine has returned or raised. As `asyncio.run` does, the remaining tasks are cancelled and waited
  for, then the process ends.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from sim.clock import NS_PER_SECOND, Clock
from sim.disk import Disk
from sim.loop import SimLoop, Unhandled
from sim.overlap import Overlap
from sim.randomness import Randomness

RUN_STARTS_NS = 1_893_456_000 * NS_PER_SECOND
"""Every run starts at 2030-01-01T00:00:00Z."""

PPB = 1_000_000_000

Main = Callable[["Incarnation"], Coroutine[Any, Any, object]]
"""What a host runs: called with the incarnation, gives the main coroutine."""

LifecycleEmitter = Callable[[int, str, str, int, str, str], object]
"""Takes t, host, event, incarnation, service, detail: the trace's kind "lifecycle"."""


class WallClock:
    """A host's wall clock: implements `schema.ports.Clock`. It may be off, run fast or slow, and jump.

    What makes it wrong gives back what takes exactly that away again; the clock is off by the sum of what is in force.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._zero_ns = RUN_STARTS_NS  # what it shows, its drifts apart, is this plus the time of the run
        self._jumps: dict[object, int] = {}
        self._skew_ns = 0
        self._skews = Overlap(self._set_skew_ns)
        self._drifts: dict[object, tuple[int, int]] = {}  # since when, and how many nanoseconds a second

    def now_ns(self) -> int:
        """Nanoseconds since 1970-01-01T00:00:00Z, as this host believes."""
        now_ns = self._zero_ns + self._clock._now
        return now_ns + self._drifted_ns() if self._drifts else now_ns

    @property
    def offset_ns(self) -> int:
        """How far ahead of true time the clock is now (negative when behind)."""
        return self.now_ns() - RUN_STARTS_NS - self._clock.now

    def jump(self, offset_ns: int) -> Callable[[], None]:
        """Move the clock forward (or back) by so much at once, until what is returned is called."""
        token = object()
        self._jumps[token] = offset_ns
        self._set_zero()

        def jump_back() -> None:
            self._jumps.pop(token, None)
            self._set_zero()

        return jump_back

    def skew(self, offset_ns: int) -> Callable[[], None]:
        """`jump`, but of several such in force at once only the farthest from 0 counts: none adds to another."""
        return self._skews.begin(offset_ns)

    def drift(self, ppb: int) -> Callable[[], None]:
        """Gain so many nanoseconds a second, negative to lose, until what is returned is called and takes all that was
        gained away."""
        token = object()
        self._drifts[token] = self._clock.now, ppb

        def set_right() -> None:
            self._drifts.pop(token, None)

        return set_right

    def synchronise(self) -> None:
        """Show true time again, without drift."""
        self._jumps.clear()
        self._drifts.clear()
        self._skews.clear()

    def _set_skew_ns(self, skew_ns: int) -> None:
        self._skew_ns = skew_ns
        self._set_zero()

    def _set_zero(self) -> None:
        self._zero_ns = RUN_STARTS_NS + self._skew_ns + sum(self._jumps.values())

    def _drifted_ns(self) -> int:
        now_ns = self._clock.now
        return sum((now_ns - since_ns) * ppb // PPB for since_ns, ppb in self._drifts.values())


class Incarnation:
    """One life of a host.

    `on_death` holds callbacks of the infrastructure, called with the incarnation, in the order in which they were
    added, when it dies in whatever way: its connections are gone then.
    """

    def __init__(self, host: Host, number: int) -> None:
        self.host = host
        self.number = number
        self.name = host.name
        self.alive = True
        self.paused = False
        self.freezes = 0
        """How many want it to stand still (`Host.freeze`)."""
        self.on_death: list[Callable[[Incarnation], object]] = []
        self.loop = SimLoop(host.clock, host.name, on_unhandled=self._unhandled)
        self.enter = self.loop.enter
        """`enter(callback, *args)`: run a delivery on this incarnation's loop now. Queued while it is paused or while
        some loop is running; dropped when it is dead."""
        self._main: asyncio.Task[object] | None = None

    def __repr__(self) -> str:
        return f"<{self.name}#{self.number} {'paused' if self.paused else 'alive' if self.alive else 'dead'}>"

    def ready(self) -> None:
        """Record that the service has recovered and is at work."""
        if self.alive:
            self.host._record("ready", self.number)

    def _start(self, main: Main) -> None:
        self._main = self.loop.create_task(main(self), name=f"{self.name}#{self.number}")
        self._main.add_done_callback(self._main_done)

    def _main_done(self, main: asyncio.Task[object]) -> None:
        remaining = [task for task in self.loop.tasks() if task is not main]
        for task in remaining:
            task.cancel()
        if not remaining:
            self._exit(main)
            return
        count = len(remaining)

        def one_done(_task: asyncio.Task[Any]) -> None:
            nonlocal count
            count -= 1
            if count == 0:
                self._exit(main)

        for task in remaining:
            task.add_done_callback(one_done)

    def _exit(self, main: asyncio.Task[object]) -> None:
        if not self.alive:
            return
        self.loop.forget_finished_tasks()
        error: BaseException | None = None if main.cancelled() else main.exception()
        if main.cancelled():
            error = asyncio.CancelledError()
        self._die("exit", describe(error) if error is not None else "")
        on_exit = self.host.on_exit
        if on_exit is not None:
            on_exit(self, error)

    def _die(self, event: str, detail: str = "") -> None:
        self.alive = False
        self.loop.die()
        self.host._record(event, self.number, detail)
        for callback in list(self.on_death):
            callback(self)
        self.on_death.clear()

    def _terminate(self) -> None:
        """SIGTERM arrives at the process."""
        if not self.loop.deliver_signal(signal.SIGTERM):
            self._die("terminated")

    def _unhandled(self, unhandled: Unhandled) -> None:
        if self.host.on_unhandled is not None:
            self.host.on_unhandled(self, unhandled)


class Host:
    """A machine with a name, a wall clock, a disk, and at most one living incarnation.

    `on_exit(incarnation, error)` is called when a main coroutine has returned (error None) or raised: a supervisor
    decides there whether and when to `restart`. `on_unhandled(incarnation, unhandled)` is told of exceptions that the
    service let go.
    """

    def __init__(
        self,
        clock: Clock,
        randomness: Randomness,
        name: str,
        service: str = "",
        record_lifecycle: LifecycleEmitter | None = None,
    ) -> None:
        self.clock = clock
        self.name = name
        self.service = service
        self.wall = WallClock(clock)
        self.disk = Disk(randomness.stream(f"disk/{name}"))
        self.incarnation: Incarnation | None = None
        self.on_exit: Callable[[Incarnation, BaseException | None], object] | None = None
        self.on_unhandled: Callable[[Incarnation, Unhandled], object] | None = None
        self._crash_stream = randomness.stream(f"disk/{name}/power-cut")
        self._record_lifecycle = record_lifecycle
        self._main: Main | None = None
        self._lives = 0

    def __repr__(self) -> str:
        return f"<Host {self.name}>"

    @property
    def is_up(self) -> bool:
        """Whether an incarnation lives, be it paused."""
        return self.incarnation is not None and self.incarnation.alive

    def start(self, main: Main) -> Incarnation:
        """Begin a new life: `main(incarnation)` gives its main coroutine, which takes its first step at once."""
        if self.is_up:
            raise RuntimeError(f"{self.name} is up already")
        self._main = main
        self._lives += 1
        incarnation = self.incarnation = Incarnation(self, self._lives)
        self._record("start", self._lives)
        incarnation.enter(incarnation._start, main)
        return incarnation

    def restart(self) -> Incarnation:
        """Begin a new life with the main of the last one; the host must be down."""
        if self._main is None:
            raise RuntimeError(f"{self.name} has never been started")
        return self.start(self._main)

    def crash(self) -> None:
        """Cut the power. Does nothing to a host that is down."""
        incarnation = self.incarnation
        if incarnation is not None and incarnation.alive:
            incarnation._die("crash")
            self.disk.crash(self._crash_stream)

    def stop(self) -> None:
        """Send SIGTERM: the handler given to `loop.add_signal_handler` runs; without one the process ends."""
        incarnation = self.incarnation
        if incarnation is not None and incarnation.alive:
            self._record("stop", incarnation.number)
            incarnation.enter(incarnation._terminate)

    def pause(self) -> None:
        """Freeze the host: its tasks and timers stand still, what arrives for it queues up."""
        incarnation = self.incarnation
        if incarnation is not None and incarnation.alive and not incarnation.paused:
            incarnation.paused = True
            incarnation.loop.pause()
            self._record("pause", incarnation.number)

    def resume(self) -> None:
        """Let a paused host go on."""
        incarnation = self.incarnation
        if incarnation is not None and incarnation.alive and incarnation.paused:
            incarnation.paused = False
            self._record("resume", incarnation.number)
            incarnation.loop.resume()

    def freeze(self) -> Callable[[], None]:
        """Pause the host until what is returned is called, and by all who froze it meanwhile; a host that was started
        anew since is let alone."""
        frozen = self.incarnation
        if frozen is None:
            return lambda: None
        frozen.freezes += 1
        self.pause()

        def thaw() -> None:
            frozen.freezes -= 1
            if self.incarnation is frozen and not frozen.freezes:
                self.resume()

        return thaw

    def close(self) -> None:
        """Bury what lives at the end of a run, so that it does nothing when it is collected. Not recorded."""
        incarnation = self.incarnation
        if incarnation is not None and incarnation.alive:
            incarnation.alive = False
            incarnation.loop.die()

    def _record(self, event: str, number: int, detail: str = "") -> None:
        if self._record_lifecycle is not None:
            self._record_lifecycle(self.clock.now, self.name, event, number, self.service, detail)


def describe(error: BaseException) -> str:
    """An exception in one line: its type, its message, and those of the errors it groups."""
    if isinstance(error, BaseExceptionGroup):
        inner = "; ".join(describe(each) for each in error.exceptions)
        return f"{type(error).__name__}: {error.message} [{inner}]"
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
