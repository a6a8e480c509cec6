"""What `sim.clients` stands on, in real time: a clock that is the event loop's, a network that is a function call.

Everything runs on one asyncio loop. Time is nanoseconds since the driver began, so the recorded events have the same
`t` as those of a simulated run; `epoch_ns` says when that was.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from sim.clock import NS_PER_SECOND


class RealTimeClock:
    """The part of `sim.clock.Clock` that clients use, on a running asyncio loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._begun_s = self._loop.time()
        self.epoch_ns = time.time_ns()
        """The wall-clock time of `now` = 0."""

    @property
    def now(self) -> int:
        """Nanoseconds since the driver began."""
        return int((self._loop.time() - self._begun_s) * NS_PER_SECOND)

    _now = now  # what simulated code reads where it is hot

    def after(self, delay_ns: int, callback: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        """Run `callback(*args)` when `delay_ns` have passed."""
        return self._loop.call_later(delay_ns / NS_PER_SECOND, callback, *args)

    def at(self, when_ns: int, callback: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        """Run `callback(*args)` at the instant `when_ns`, at once when it has passed."""
        return self._loop.call_at(self._begun_s + when_ns / NS_PER_SECOND, callback, *args)

    def post(self, when_ns: int, callback: Callable[..., object], args: tuple[object, ...]) -> None:
        """`at`, without anything to cancel."""
        self.at(when_ns, callback, *args)


class NoNetwork:
    """The part of `sim.network.Network` that clients use: clients and gateways are in one process."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def send(self, _source: str, _target: str, deliver: Callable[..., object], *args: object) -> None:
        """Deliver soon, and in order."""
        self._loop.call_soon(deliver, *args)


class _Loop:
    """The part of `sim.loop.SimLoop` that clients use."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[Any]] = set()

    def create_task(self, work: Coroutine[Any, Any, object]) -> asyncio.Task[Any]:
        task = self._loop.create_task(work)
        # asyncio itself holds a task weakly.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def enter_service(self, callback: Callable[..., object], *args: object) -> None:
        callback(*args)


class ThisProcess:
    """The part of `sim.hosts.Incarnation` that clients use: the one life of this process."""

    alive: Final = True

    def __init__(self) -> None:
        self.loop = _Loop()

    def enter(self, callback: Callable[..., object], *args: object) -> None:
        """Run a callback on the host."""
        callback(*args)
