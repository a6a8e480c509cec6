"""An asyncio event loop on simulated time, one for each life of a host (design 5 and 11).

The loop has no selector and no thread. Its timers are events of the run's clock, and when one fires, or something is
delivered from outside, the queue of ready callbacks is drained in place, until it is empty: simulated time stands still
while a host computes. Everything of asyncio that is built on futures and timers works as it is: `sleep`, `timeout`,
`Queue`, `Lock`, `Event`, `TaskGroup`, `gather`, `wait_for`. What would leave the simulation (executors, sockets,
subprocesses, pipes) raises `EscapedSimulationError`.

Order is asyncio's own: callbacks run in rounds, and timers that are due are queued between two rounds. Where asyncio
leaves it to the addresses of objects (it keeps tasks in sets), `sim.orderly` makes it the order of insertion.

Seconds at asyncio's interface are floats; from 0 they name each nanosecond exactly for the first 26 days of a run.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from asyncio import events
from asyncio.tasks import all_tasks
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextvars import Context, copy_context
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, NoReturn, TypeVar

import msgspec
from simpy.events import NORMAL

from sim import graveyard
from sim.clock import NS_PER_SECOND, NS_PER_US, Clock, Timer
from sim.escape import EscapedSimulationError

T = TypeVar("T")

# The interpreter's own, whatever `sim.orderly` makes of their names.
_interpreters_running_loop = events._get_running_loop
_set_running_loop = events._set_running_loop

DRAIN_CALLBACKS_MAX = 10_000
"""After so many callbacks without an end, a drain lets a microsecond pass, so that the world goes on beside it."""

DRAINS_IN_A_ROW_MAX = 1_000
"""After so many of those without an end the host is taken to spin: ten million callbacks to no avail."""

_YIELD_NS = NS_PER_US
_PRUNE_TASKS_AT_LEAST = 64


class SimulationStuckError(RuntimeError):
    """A host keeps itself busy without simulated time passing."""


@dataclass(frozen=True)
class Unhandled:
    """An exception that no code of the host took: asyncio would have written it to its log."""

    t_ns: int
    message: str
    exception: BaseException | None


class ReadyCallback(msgspec.Struct, eq=False):
    """A callback in the ready queue: what `call_soon` returns. A struct, as making one costs a third of a class's."""

    _callback: Callable[..., object]
    _args: tuple[object, ...]
    _context: Context

    def cancel(self) -> None:
        """Keep the callback from running, if it has not run yet."""
        self._callback = None  # type: ignore[assignment]
        self._args = None  # type: ignore[assignment]

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._args is None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._callback!r}>"


_SPENT = ReadyCallback(bool, (), copy_context())
"""Stands in a round for what has been run already."""


class Delivery(ReadyCallback, eq=False):
    """A callback of the infrastructure. What it raises is an error of the simulator, and ends the run."""


class LoopTimer(Timer):
    """What `call_later` and `call_at` return: a timer of the clock that runs its callback on the loop."""

    __slots__ = ("_context", "_loop")

    def __init__(
        self,
        loop: SimLoop,
        when_ns: int,
        callback: Callable[..., object],
        args: tuple[object, ...],
        context: Context | None,
    ) -> None:
        # Timer.__init__ is written out here: half of a run's timers are made by asyncio.sleep and asyncio.timeout.
        clock = loop._clock
        self.env = clock
        self.when_ns = when_ns
        self._callback = callback
        self._args = args
        self._queued = True
        self._waiters = None
        self._loop = loop
        self._context = copy_context() if context is None else context
        clock.scheduled = number = clock.scheduled + 1
        heappush(clock._queue, (when_ns, NORMAL, number, self))

    def when(self) -> float:
        """The loop's time at which it is due, in seconds."""
        return self.when_ns / NS_PER_SECOND

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._callback is None

    def _fire(self) -> None:
        loop = self._loop
        loop._ready.append(self)
        if not loop._awake:
            loop._drain()


class Running:
    """Which loop runs: `loop` is the one whose callback is running now. Loops do not nest, in the whole process.

    `installed` is the loop that the interpreter has for the running one. Telling it asks the kernel for the process id,
    which can cost as much as everything else in a drain; so it is told when another loop drains, and again when the
    clock stops. Between two drains it is stale, which `sim.orderly` hides from asyncio's own functions.
    """

    # An object with slots, not class attributes of SimLoop: changing those empties the interpreter's method caches.
    __slots__ = ("installed", "loop", "outer_hooks", "outer_loop")

    def __init__(self) -> None:
        self.loop: SimLoop | None = None
        self.installed: SimLoop | None = None
        self.outer_loop: asyncio.AbstractEventLoop | None = None
        self.outer_hooks: Any = ()

    def install(self, loop: SimLoop) -> None:
        """Make it the running loop, and the one that is told of async generators."""
        if self.installed is None:
            self.outer_loop = _interpreters_running_loop()
            self.outer_hooks = sys.get_asyncgen_hooks()
        self.installed = loop
        _set_running_loop(loop)
        sys.set_asyncgen_hooks(loop._async_generator_started, loop._async_generator_dropped)

    def leave(self) -> None:
        """The clock has stopped: the running loop is again what it was outside."""
        if self.installed is None:
            return
        self.installed = None
        _set_running_loop(self.outer_loop)
        sys.set_asyncgen_hooks(*self.outer_hooks)


RUNNING = Running()
"""As asyncio has one running loop per thread, and a run has one thread."""


def _refuse(name: str) -> Any:
    """A method that stands for one of asyncio's and says that there is no such thing in a simulation."""

    def refused(self: SimLoop, *args: object, **keywords: object) -> NoReturn:
        raise EscapedSimulationError(f"{self.name} called loop.{name}, which leaves the simulation")

    refused.__name__ = name
    return refused


class SimLoop(asyncio.AbstractEventLoop):
    """The event loop of one host's one life.

    `name` is the host's, for messages. `on_unhandled` is told of exceptions that nothing in the host handled; they are
    also kept in `unhandled`.
    """

    def __init__(
        self, clock: Clock, name: str = "loop", on_unhandled: Callable[[Unhandled], object] | None = None
    ) -> None:
        self.name = name
        self.unhandled: list[Unhandled] = []
        self._clock = clock
        clock._on_return = RUNNING.leave
        self._on_unhandled = on_unhandled
        self._ready: list[ReadyCallback | LoopTimer] = []
        # True while a drain is under way, a wake-up is scheduled, or the loop is paused or dead: in all of these there
        # is nothing to do for somebody who adds to the ready queue.
        self._awake = False
        self._draining = False
        self._paused = False
        self._dead = False
        self._halted = False  # paused or dead
        self._closed = False
        self._drains_in_a_row = 0
        # All tasks that are not done, in the order of their creation, and some that are done. References are strong:
        # whether a task that nobody refers to is collected must not depend on the collector's timing.
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._prune_tasks_at = _PRUNE_TASKS_AT_LEAST
        self._tasks_made = 0
        self._task_factory: Any = None
        self._exception_handler: Any = None
        self._signal_handlers: dict[int, ReadyCallback] = {}
        self._async_generators: weakref.WeakValueDictionary[int, AsyncGenerator[Any, Any]] = (
            weakref.WeakValueDictionary()
        )
        self._async_generators_made = 0
        self._context = copy_context()

    def __repr__(self) -> str:
        return f"<SimLoop of {self.name}>"

    # -- callbacks and time

    def time(self) -> float:
        """Seconds since the start of the run: monotonic, whatever happens to the host's wall clock."""
        return self._clock._now / NS_PER_SECOND

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> ReadyCallback:  # type: ignore[override]
        """Run `callback(*args)` in the next round."""
        handle = ReadyCallback(callback, args, copy_context() if context is None else context)
        self._ready.append(handle)
        if not self._awake:
            self._schedule_wake_up(0)
        return handle

    def prepare(self, callback: Callable[[], object]) -> ReadyCallback:
        """A callback of the infrastructure for `soon`, to be made once and queued often."""
        return ReadyCallback(callback, (), self._context)

    def soon(self, prepared: ReadyCallback) -> None:
        """`call_soon` for what `prepare` has given."""
        self._ready.append(prepared)
        if not self._awake:
            self._schedule_wake_up(0)

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> ReadyCallback:
        """As `call_soon`: a run has one thread."""
        return self.call_soon(callback, *args, context=context)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> LoopTimer:
        """Run `callback(*args)` after `delay` seconds."""
        when_ns = self._clock._now
        if delay > 0:
            when_ns += round(delay * NS_PER_SECOND)
        return LoopTimer(self, when_ns, callback, args, context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> LoopTimer:
        """Run `callback(*args)` at the loop's time `when`, in seconds; at once when it has passed."""
        when_ns = round(when * NS_PER_SECOND)
        now = self._clock._now
        return LoopTimer(self, when_ns if when_ns > now else now, callback, args, context)

    # -- futures and tasks

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        """Start a task. Without a name it gets a number that counts this loop's tasks, so that runs are alike."""
        self._tasks_made += 1
        if name is None:
            name = f"Task-{self._tasks_made}"
        task: asyncio.Task[T]
        if self._task_factory is None:
            task = asyncio.Task(coro, loop=self, name=name, context=context)
        else:
            keywords = {} if context is None else {"context": context}
            task = self._task_factory(self, coro, **keywords)
            task.set_name(name)
        tasks = self._tasks
        tasks[task] = None
        if len(tasks) > self._prune_tasks_at:
            self.forget_finished_tasks()
        return task

    def forget_finished_tasks(self) -> None:
        """Let go of tasks that are done. Exceptions that nobody retrieved are reported now, as asyncio does it."""
        tasks = self._tasks
        self._tasks = {}  # first: what is reported may start a task
        self._tasks.update((task, None) for task in tasks if not task.done())
        self._prune_tasks_at = max(_PRUNE_TASKS_AT_LEAST, 2 * len(self._tasks))

    def tasks(self) -> list[asyncio.Task[Any]]:
        """The tasks that are not done, in the order in which they were created."""
        return [task for task in self._tasks if not task.done()]

    def set_task_factory(self, factory: Any) -> None:
        """As asyncio's: `factory(loop, coro, **keywords)` makes the tasks; None for the ordinary ones."""
        self._task_factory = factory

    def get_task_factory(self) -> Any:
        """The factory that was set, or None."""
        return self._task_factory

    # -- running

    def enter(self, callback: Callable[..., object], *args: object) -> None:
        """Run `callback(*args)` on this loop now, and all that becomes ready by it.

        It is queued while the loop is paused, or while a callback of this loop or of another one is still running
        (loops do not nest), and dropped when the loop is dead. What the callback raises ends the run.
        """
        if not self._awake and RUNNING.loop is None:
            # Most deliveries find an idle host: nothing need be queued for them.
            if RUNNING.installed is not self:
                RUNNING.install(self)
            self._drain(self._context.run, (callback, *args))
        elif not self._dead:
            self._ready.append(Delivery(callback, args, self._context))
            if not self._awake:
                self._schedule_wake_up(0)

    def deliver(self, callback: Callable[..., object], *args: object) -> None:
        """`enter` for what only resolves futures and the like, and has no need to know which loop is running.

        Half of the messages that reach a client leave nothing to do behind: for them nothing is set up and torn down.
        """
        if not self._awake and RUNNING.loop is None:
            self._drain(callback, args)
        elif not self._dead:
            self._ready.append(Delivery(callback, args, self._context))
            if not self._awake:
                self._schedule_wake_up(0)

    def enter_service(self, callback: Callable[..., object], *args: object) -> None:
        """`enter` for code of the host's own: what it raises is unhandled there, and the run goes on."""
        if self._dead:
            return
        self._ready.append(ReadyCallback(callback, args, self._context))
        if not self._awake:
            self._drain()

    def _schedule_wake_up(self, delay_ns: int) -> None:
        self._awake = True
        self._clock.after(delay_ns, self._wake_up)

    def _wake_up(self) -> None:
        if self._halted:
            return
        self._awake = False
        self._drain()

    def _drain(self, delivery: Callable[..., object] | None = None, args: tuple[object, ...] = ()) -> None:
        """Run the ready callbacks, and those that they make ready, until there are none. The hot loop of a host.

        A delivery is run before them; what it raises ends the run.
        """
        running = RUNNING
        if running.loop is not None:
            self._schedule_wake_up(0)
            return
        running.loop = self
        self._awake = self._draining = True
        clock = self._clock
        queue = clock._queue
        now = clock._now
        callbacks_left = DRAIN_CALLBACKS_MAX
        try:
            if delivery is not None:
                delivery(*args)
                if self._halted:
                    return
            while True:
                ready = self._ready
                # As asyncio does, queue the timers that are due before each round.
                while queue and queue[0][0] <= now:
                    timer = queue[0][3]
                    if timer.__class__ is not LoopTimer or timer._loop is not self:
                        break
                    heappop(queue)
                    if timer._callback is None:
                        clock._cancelled -= 1
                    else:
                        timer._queued = False
                        ready.append(timer)
                if not ready:
                    break
                if running.installed is not self:
                    running.install(self)
                # A round is what is ready now; what it makes ready comes in the next one.
                self._ready = []
                callbacks_left -= len(ready)
                if callbacks_left < 0:
                    # A round longer than the cap is run in parts: put off as a whole, it would never begin.
                    ready, self._ready = ready[:callbacks_left], ready[callbacks_left:]
                for place, handle in enumerate(ready):
                    ready[place] = _SPENT  # nothing that it refers to may live longer for it
                    callback = handle._callback
                    if callback is not None:
                        try:
                            handle._context.run(callback, *handle._args)
                        except KeyboardInterrupt:
                            raise
                        except BaseException as error:
                            if handle.__class__ is Delivery:
                                raise
                            self._callback_failed(handle, error)
                        if self._halted:
                            self._ready[:0] = ready[place + 1 :]
                            return
                if callbacks_left <= 0 and self._ready:
                    self._yield_to_the_world()
                    return
            self._drains_in_a_row = 0
            self._awake = False
        finally:
            self._draining = False
            running.loop = None
            if not clock._driven:
                running.leave()
            if self._dead:
                self._entomb()

    def _yield_to_the_world(self) -> None:
        self._drains_in_a_row += 1
        if self._drains_in_a_row > DRAINS_IN_A_ROW_MAX:
            raise SimulationStuckError(
                f"{self.name} has run {DRAIN_CALLBACKS_MAX * self._drains_in_a_row:,} callbacks at {self._clock.now} "
                f"ns without ever being idle; next is {self._ready[0]!r}. Does it spin on asyncio.sleep(0)?"
            )
        self._schedule_wake_up(_YIELD_NS)

    # -- the host's life

    def pause(self) -> None:
        """Freeze: nothing runs until `resume`; timers that fire and deliveries queue up."""
        self._paused = self._halted = True
        self._awake = True

    def resume(self) -> None:
        """Go on, with all that has queued up, in its order."""
        if self._paused and not self._dead:
            self._paused = self._halted = False
            self._schedule_wake_up(0)

    def die(self) -> None:
        """Cut the power: from the end of the callback that is running, if one is, nothing runs here any more.

        No `finally` and no `except` of this loop's tasks is ever run, not even when their objects are collected.
        """
        if self._dead:
            return
        self._dead = self._halted = True
        self._awake = True
        if not self._draining:
            self._entomb()

    @property
    def is_dead(self) -> bool:
        """Whether `die` was called."""
        return self._dead

    def _entomb(self) -> None:
        """Bury whatever could lead to one of this loop's suspended coroutines."""
        clock = self._clock
        timers = [entry[3] for entry in clock._queue if entry[3].__class__ is LoopTimer and entry[3]._loop is self]
        # asyncio's own list has those as well that were made without create_task. The dead are taken off it: it is
        # searched at each crash.
        tasks = [*self._tasks, *all_tasks(self)]
        for task in tasks:
            asyncio._unregister_task(task)
        graveyard.bury(
            list(self._ready),
            tasks,
            [timer._args for timer in timers],
            list(self._async_generators.values()),
            self._signal_handlers,
        )
        for timer in timers:
            timer.cancel()

    def deliver_signal(self, signal_number: int) -> bool:
        """Run the handler of a signal, as soon as the loop comes to it; False when there is none."""
        handler = self._signal_handlers.get(signal_number)
        if handler is None:
            return False
        self._ready.append(ReadyCallback(handler._callback, tuple(handler._args), handler._context))
        if not self._awake:
            self._schedule_wake_up(0)
        return True

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: Any) -> None:  # type: ignore[override]
        """Let `callback(*args)` run on a signal: `Host.stop` sends SIGTERM."""
        self._signal_handlers[int(sig)] = ReadyCallback(callback, args, copy_context())

    def remove_signal_handler(self, sig: int) -> bool:
        """Take the handler back; return whether there was one."""
        return self._signal_handlers.pop(int(sig), None) is not None

    # -- errors

    def set_exception_handler(self, handler: Any) -> None:
        """As asyncio's: `handler(loop, context)` is told of unhandled exceptions; None for the default."""
        self._exception_handler = handler

    def get_exception_handler(self) -> Any:
        """The handler that was set, or None."""
        return self._exception_handler

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what happened in `unhandled`, and tell the loop's owner. Nothing is printed."""
        unhandled = Unhandled(self._clock.now, str(context.get("message", "")), context.get("exception"))
        self.unhandled.append(unhandled)
        if self._on_unhandled is not None:
            self._on_unhandled(unhandled)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """What asyncio calls with an exception that nobody took."""
        if self._dead:
            return
        if self._exception_handler is None:
            self.default_exception_handler(context)
            return
        try:
            self._exception_handler(self, context)
        except Exception as error:
            self.default_exception_handler({"message": "error in the exception handler", "exception": error})

    def _callback_failed(self, handle: ReadyCallback | LoopTimer, error: BaseException) -> None:
        callback = getattr(handle._callback, "__qualname__", repr(type(handle._callback)))
        self.call_exception_handler({"message": f"exception in callback {callback}", "exception": error})

    # -- async generators

    def _async_generator_started(self, generator: AsyncGenerator[Any, Any]) -> None:
        self._async_generators_made += 1
        self._async_generators[self._async_generators_made] = generator

    def _async_generator_dropped(self, generator: AsyncGenerator[Any, Any]) -> None:
        if self._dead:
            graveyard.bury(generator)
        elif not self._closed:
            self.create_task(generator.aclose())

    async def shutdown_asyncgens(self) -> None:
        """Close the async generators that are suspended, in the order in which they were started."""
        generators = [generator for _, generator in sorted(self._async_generators.items())]
        self._async_generators.clear()
        for generator in generators:
            await generator.aclose()

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """There is none."""

    # -- for tests and scripts: the loop drives the clock

    def run_until_complete(self, future: Any) -> Any:
        """Run the whole simulation until `future` (or a coroutine) is done, and return its result.

        Raises `RuntimeError` when nothing is left to happen and it is not done.
        """
        if RUNNING.loop is not None:
            raise RuntimeError(f"the simulated loop of {RUNNING.loop.name} is running already")
        task: asyncio.Future[Any]
        task = future if asyncio.isfuture(future) else self.create_task(future)
        if not self._clock.run_while(lambda: not task.done()):
            return task.result()
        raise RuntimeError(f"{self.name} waits for {task!r}, and nothing is left to happen")

    def is_running(self) -> bool:
        """Whether one of this loop's callbacks is running."""
        return self._draining

    def is_closed(self) -> bool:
        """Whether `close` was called, or the host is dead."""
        return self._closed or self._dead

    def close(self) -> None:
        """Forget what is ready. `RuntimeError` from within the loop."""
        if self._draining:
            raise RuntimeError(f"the loop of {self.name} cannot be closed while it runs")
        self._closed = True
        self._ready.clear()

    def stop(self) -> None:
        """A host's loop runs as long as the host lives."""
        raise NotImplementedError("end the host's main coroutine instead")

    def run_forever(self) -> None:
        """The clock runs the loop."""
        raise NotImplementedError("run the clock instead; it runs all loops")

    get_debug = bool
    """Always off: asyncio's debug mode looks at the real clock. `bool()` is False, and is called once per future: what
    is written in C for it costs a fraction of a method."""

    def set_debug(self, enabled: bool) -> None:
        """Ignored, see `get_debug`."""

    def _timer_handle_cancelled(self, handle: object) -> None:
        """Asyncio's own timer handles would call this."""

    # -- the ways out of the simulation: each of them raises EscapedSimulationError

    add_reader = _refuse("add_reader")
    add_writer = _refuse("add_writer")
    connect_accepted_socket = _refuse("connect_accepted_socket")
    connect_read_pipe = _refuse("connect_read_pipe")
    connect_write_pipe = _refuse("connect_write_pipe")
    create_connection = _refuse("create_connection")
    create_datagram_endpoint = _refuse("create_datagram_endpoint")
    create_server = _refuse("create_server")
    create_unix_connection = _refuse("create_unix_connection")
    create_unix_server = _refuse("create_unix_server")
    getaddrinfo = _refuse("getaddrinfo")
    getnameinfo = _refuse("getnameinfo")
    remove_reader = _refuse("remove_reader")
    remove_writer = _refuse("remove_writer")
    run_in_executor = _refuse("run_in_executor")
    sendfile = _refuse("sendfile")
    set_default_executor = _refuse("set_default_executor")
    sock_accept = _refuse("sock_accept")
    sock_connect = _refuse("sock_connect")
    sock_recv = _refuse("sock_recv")
    sock_recv_into = _refuse("sock_recv_into")
    sock_recvfrom = _refuse("sock_recvfrom")
    sock_recvfrom_into = _refuse("sock_recvfrom_into")
    sock_sendall = _refuse("sock_sendall")
    sock_sendfile = _refuse("sock_sendfile")
    sock_sendto = _refuse("sock_sendto")
    start_tls = _refuse("start_tls")
    subprocess_exec = _refuse("subprocess_exec")
    subprocess_shell = _refuse("subprocess_shell")
