"""What a run takes place in: one clock, one source of randomness, one network, one recorder, the hosts (design 5)."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sim import graveyard
from sim.clock import NS_PER_SECOND, Clock
from sim.escape import Escapes, no_escape
from sim.hosts import Host, Incarnation, describe
from sim.log import Recorder, SimLog
from sim.loop import Unhandled
from sim.network import DATA_CENTRE, Latency, Network
from sim.orderly import deterministic_asyncio
from sim.randomness import Randomness

COLLECT_EVERY_EVENTS = 200_000
"""With the garbage collector off, it is called when so many events have been scheduled since the last time, and half
as many as by then: each look takes as long as the world is large, and looks at even steps would make a run's cost
quadratic."""

_LOOK_EVERY_NS = NS_PER_SECOND


class _Silent:
    """A recorder for worlds that leave no trace."""

    def emitter(self, kind: str, /) -> Callable[..., object]:
        return lambda *columns: None


class World:
    """Everything of one run. Build it, start hosts, move the time inside `running`, and `close` it.

    world = World(seed=7, recorder=recorder)
    with world.running():
        world.host("settlement-1", "settlement").start(main)
        world.run_until(60 * NS_PER_SECOND)
    world.close()
    """

    def __new__(cls, *args: object, **keywords: object) -> World:
        # Before the object exists: what is there when the graves are sealed is never collected.
        graveyard.seal()
        return super().__new__(cls)

    def __init__(self, seed: int, recorder: Recorder | None = None, latency: Latency = DATA_CENTRE) -> None:
        self.clock = Clock()
        self.randomness = Randomness(seed)
        self.network = Network(self.clock, self.randomness, latency)
        self.recorder: Recorder = recorder if recorder is not None else _Silent()
        self.hosts: dict[str, Host] = {}
        self._escapes: Escapes | None = None
        self._failed: BaseException | None = None
        self._collected_at_event = 0
        self._record_lifecycle = self.recorder.emitter("lifecycle")

    def host(self, name: str, service: str = "") -> Host:
        """The host of that name; made, and not started, when it is asked for the first time.

        An error that ends its service is raised where the time moves, unless a supervisor is set as `on_exit`.
        """
        host = self.hosts.get(name)
        if host is None:
            host = Host(self.clock, self.randomness, name, service, self._record_lifecycle)
            host.on_exit = self._remember_failure
            host.on_unhandled = self._record_unhandled
            self.hosts[name] = host
        return host

    def log(self, incarnation: Incarnation, debug: bool = False) -> SimLog:
        """A log for that life of a service."""
        return SimLog(incarnation, self.recorder, debug)

    @contextmanager
    def running(self) -> Iterator[None]:
        """The scope in which time moves: asyncio is deterministic, escapes raise, and the collector is off.

        At its end the first escape is raised, even if the service that caused it swallowed the error; then the first
        error that ended a service without a supervisor.
        """
        collecting = gc.isenabled()
        gc.disable()
        try:
            with deterministic_asyncio(), no_escape() as self._escapes:
                yield
                self._forget_finished_tasks()
            self._check()
        finally:
            self._escapes = None
            if collecting:
                gc.enable()

    def run_until(self, when_ns: int) -> None:
        """Let everything up to and including the instant `when_ns` happen."""
        self.run_while(_always, when_ns)

    def run_while(self, condition: Callable[[], bool], when_ns: int) -> bool:
        """Let time pass until `when_ns`, as long as `condition()` holds; return whether it still holds.

        The condition is looked at once per simulated second, leaving out the seconds in which nothing happens.
        """
        clock = self.clock
        while condition():
            if clock.now >= when_ns:
                return True
            clock.run_until(min(when_ns, max(clock.now + _LOOK_EVERY_NS, clock.next_ns())))
            self._check()
            since = clock.scheduled - self._collected_at_event
            if since > max(COLLECT_EVERY_EVENTS, self._collected_at_event // 2):
                self.collect()
        return False

    def collect(self) -> None:
        """Collect garbage now. At points that the program decides on, so that runs of one seed are alike."""
        self._collected_at_event = self.clock.scheduled
        self._forget_finished_tasks()
        gc.collect()

    def close(self) -> None:
        """End the run: whatever still lives is buried, and none of it runs any more. May be called again."""
        for host in self.hosts.values():
            host.close()

    def _forget_finished_tasks(self) -> None:
        for host in self.hosts.values():
            if host.is_up and host.incarnation is not None:
                host.incarnation.loop.forget_finished_tasks()

    def _check(self) -> None:
        if self._escapes is not None:
            self._escapes.check()
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed

    def _remember_failure(self, incarnation: Incarnation, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, asyncio.CancelledError) and self._failed is None:
            error.add_note(f"{incarnation.host.name} ended by this at {self.clock.now / NS_PER_SECOND:.6f} s")
            self._failed = error

    def _record_unhandled(self, incarnation: Incarnation, unhandled: Unhandled) -> None:
        error = describe(unhandled.exception) if unhandled.exception is not None else ""
        self.log(incarnation).error(f"unhandled: {unhandled.message}", error=error)


def _always() -> bool:
    return True
