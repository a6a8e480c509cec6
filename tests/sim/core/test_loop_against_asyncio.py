"""Random programs do the same, at the same times and in the same order, on the simulated loop and on asyncio's own."""

from __future__ import annotations

import asyncio
from asyncio.base_events import BaseEventLoop
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sim.clock import Clock
from sim.loop import SimLoop
from sim.orderly import deterministic_asyncio

# -- asyncio's own loop, on a time that jumps to the next timer instead of waiting for it


class StableTimer(asyncio.TimerHandle):
    """Timers of one instant in the order of their creation; asyncio's heap leaves it open."""

    made = 0

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        StableTimer.made += 1
        self.serial = StableTimer.made

    def __lt__(self, other: Any) -> bool:
        return (self._when, self.serial) < (other._when, other.serial)


class JumpingSelector:
    def __init__(self, loop: StockLoop) -> None:
        self.loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise AssertionError("the program waits for ever")
        if timeout > 0:
            self.loop.now = max(self.loop.now, self.loop._scheduled[0]._when)
        return []


class StockLoop(BaseEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._selector = JumpingSelector(self)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        import heapq

        # In whole nanoseconds, as the simulated loop has it: sums of floats differ in the last bit otherwise.
        timer = StableTimer(round(when * 1e9) / 1e9, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True
        return timer

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def _process_events(self, event_list: list[Any]) -> None:
        pass


# -- programs

N_TASKS = 4
N_QUEUES = 2


@dataclass(frozen=True)
class Do:
    """One step of a task: what, with which number, and for some the steps of children."""

    what: str
    number: int = 0
    children: tuple[tuple[Do, ...], ...] = ()


DURATIONS = st.integers(0, 5)
SIMPLE = st.one_of(
    st.builds(Do, st.just("sleep"), DURATIONS),
    st.builds(Do, st.just("yield")),
    st.builds(Do, st.just("put"), st.integers(0, N_QUEUES - 1)),
    st.builds(Do, st.just("get"), st.integers(0, N_QUEUES - 1)),
    st.builds(Do, st.just("set"), st.just(0)),
    st.builds(Do, st.just("wait"), DURATIONS),
    st.builds(Do, st.just("lock"), DURATIONS),
    st.builds(Do, st.just("cancel"), st.integers(0, N_TASKS - 1)),
    st.builds(Do, st.just("later"), DURATIONS),
    st.builds(Do, st.just("soon"), st.integers(0, 3)),
    st.builds(Do, st.just("fail")),
    st.builds(Do, st.just("shielded"), DURATIONS),
    st.builds(Do, st.just("generate"), st.integers(0, 3)),
)
STEPS = st.lists(SIMPLE, max_size=6).map(tuple)
NESTED = st.one_of(
    SIMPLE,
    st.builds(
        Do,
        st.sampled_from(["group", "gather", "wait_for", "first", "all"]),
        DURATIONS,
        st.lists(STEPS, min_size=1, max_size=3).map(tuple),
    ),
)
PROGRAMS = st.lists(st.lists(NESTED, max_size=6).map(tuple), min_size=1, max_size=N_TASKS)


class Failure(Exception):
    pass


def run_program(program: list[tuple[Do, ...]], loop: Any) -> list[object]:
    log: list[object] = []

    def note(*what: object) -> None:
        log.append((round(loop.time() * 1_000_000), *what))

    async def main() -> None:
        queues: list[asyncio.Queue[str]] = [asyncio.Queue() for _ in range(N_QUEUES)]
        event = asyncio.Event()
        lock = asyncio.Lock()
        tasks: list[asyncio.Task[None]] = []

        async def numbers(n: int) -> Any:
            for number in range(n):
                yield number
                await asyncio.sleep(0.001)

        async def simple(name: str, step: Do) -> None:
            ms = step.number / 1000
            if step.what == "sleep":
                await asyncio.sleep(ms)
            elif step.what == "yield":
                await asyncio.sleep(0)
            elif step.what == "put":
                await queues[step.number].put(name)
            elif step.what == "get":
                async with asyncio.timeout(0.003):
                    note(name, "got", await queues[step.number].get())
            elif step.what == "set":
                event.set()
                event.clear()
            elif step.what == "wait":
                await asyncio.wait_for(event.wait(), ms)
            elif step.what == "lock":
                async with lock:
                    await asyncio.sleep(ms)
            elif step.what == "cancel":
                if step.number < len(tasks):
                    note(name, "cancels", step.number, tasks[step.number].cancel())
            elif step.what == "later":
                loop.call_later(ms, note, name, "later")
            elif step.what == "soon":
                countdown(name, step.number)
            elif step.what == "fail":
                raise Failure(name)
            elif step.what == "shielded":
                await asyncio.shield(asyncio.sleep(ms))
            elif step.what == "generate":
                async for number in numbers(step.number):
                    note(name, "number", number)

        def countdown(name: str, left: int) -> None:
            note(name, "soon", left)
            if left:
                loop.call_soon(countdown, name, left - 1)

        async def nested(name: str, step: Do) -> None:
            if step.what == "wait_for":
                for i, steps in enumerate(step.children):
                    await asyncio.wait_for(run(f"{name}.{i}", steps), step.number / 1000)
                return
            runs = [run(f"{name}.{i}", steps) for i, steps in enumerate(step.children)]
            if step.what == "group":
                async with asyncio.TaskGroup() as group:
                    for each in runs:
                        group.create_task(each)
            elif step.what == "gather":
                await asyncio.gather(*runs)
            else:
                when = asyncio.FIRST_COMPLETED if step.what == "first" else asyncio.ALL_COMPLETED
                children = [asyncio.create_task(each, name=f"{name}.{i}") for i, each in enumerate(runs)]
                done, pending = await asyncio.wait(children, timeout=step.number / 1000, return_when=when)
                note(name, "done", [t.get_name() for t in done], "pending", [t.get_name() for t in pending])
                for task in pending:
                    task.cancel()

        async def run(name: str, steps: tuple[Do, ...]) -> None:
            try:
                for step in steps:
                    note(name, step.what)
                    try:
                        await (nested if step.children else simple)(name, step)
                    except TimeoutError:
                        note(name, "timed out")
                    except ExceptionGroup as group:
                        note(name, "group", [str(error) for error in group.exceptions])
            finally:
                note(name, "ends")
                await asyncio.sleep(0)
                note(name, "ended")

        for number, steps in enumerate(program):
            tasks.append(asyncio.create_task(run(str(number), steps), name=str(number)))
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            note(type(outcome).__name__, str(outcome))
        await asyncio.sleep(1)
        note("left", sorted(t.get_name() for t in asyncio.all_tasks() if t.get_name()[0].isdigit()))

    loop.set_exception_handler(lambda _loop, context: None)
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
    return log


def on_both(program: list[tuple[Do, ...]]) -> tuple[list[object], list[object]]:
    loops: list[Callable[[], Any]] = [StockLoop, lambda: SimLoop(Clock())]
    with deterministic_asyncio():
        stock, simulated = (run_program(program, make()) for make in loops)
    return stock, simulated


@settings(max_examples=300, deadline=None)
@given(PROGRAMS)
def test_programs_run_as_on_asyncio(program: list[tuple[Do, ...]]) -> None:
    stock, simulated = on_both(program)
    assert simulated == stock


def test_comparison_would_notice_another_order() -> None:
    # The programs above are worth something only if their logs tell one order from another.
    first, _ = on_both([(Do("sleep", 1), Do("put", 0)), (Do("get", 0),)])
    second, _ = on_both([(Do("put", 0), Do("sleep", 1)), (Do("get", 0),)])
    assert first != second
