"""What the simulated loop does beyond asyncio's order: time, entering from outside, spinning, errors, ways out."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sim import loop as loop_module
from sim.clock import NS_PER_SECOND, Clock
from sim.escape import EscapedSimulationError
from sim.loop import SimLoop, SimulationStuckError
from sim.orderly import deterministic_asyncio


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loop(clock: Clock) -> SimLoop:
    return SimLoop(clock, "host")


def test_sleep_takes_simulated_time(loop: SimLoop, clock: Clock) -> None:
    async def main() -> float:
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    assert loop.run_until_complete(main()) == 3600
    assert clock.now == 3600 * NS_PER_SECOND


@pytest.mark.parametrize("days", [0, 1, 25])
def test_single_nanoseconds_are_exact_for_weeks(days: int) -> None:
    clock = Clock()
    loop = SimLoop(clock)
    clock.run_until(days * 86_400 * NS_PER_SECOND + 123_456_789)

    async def main() -> None:
        await asyncio.sleep(1e-9)
        async with asyncio.timeout(1e-9):
            await asyncio.sleep(0)

    before = clock.now
    timer = loop.call_at((before + 1) / NS_PER_SECOND, list)
    assert timer.when_ns == before + 1
    loop.run_until_complete(main())
    assert clock.now == before + 1


def test_run_that_waits_for_nothing_is_an_error(loop: SimLoop) -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="nothing is left to happen"):
        loop.run_until_complete(main())
    loop.die()


def test_running_loop_is_known_inside_and_restored_outside(loop: SimLoop, clock: Clock) -> None:
    seen: list[object] = []

    def between() -> None:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.current_task()
        seen.append("between")

    async def main() -> None:
        await asyncio.sleep(2)
        seen.append(asyncio.get_running_loop())

    with deterministic_asyncio():
        clock.after(NS_PER_SECOND, between)
        loop.run_until_complete(main())
    assert seen == ["between", loop]
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


def test_run_inside_a_real_loop_gives_it_back(clock: Clock) -> None:
    # As in a notebook, whose cells run inside an event loop.
    async def cell() -> tuple[object, object]:
        before = asyncio.get_running_loop()
        SimLoop(clock).run_until_complete(asyncio.sleep(1))
        await asyncio.sleep(0)
        return before, asyncio.get_running_loop()

    before, after = asyncio.run(cell())
    assert before is after


def test_entering_runs_everything_that_becomes_ready_at_once(loop: SimLoop, clock: Clock) -> None:
    log: list[object] = []
    future: asyncio.Future[int] = loop.create_future()

    async def main() -> None:
        log.append(await future)
        await asyncio.sleep(0)
        log.append("after")

    loop.enter(loop.create_task, main())
    loop.enter(future.set_result, 5)
    assert log == [5, "after"]
    assert clock.now == 0


def test_entering_one_loop_from_another_waits_until_that_one_is_idle(clock: Clock) -> None:
    first, second = SimLoop(clock, "first"), SimLoop(clock, "second")
    log: list[str] = []

    async def main() -> None:
        second.enter(log.append, "second")
        await asyncio.sleep(0)
        log.append("first")

    first.enter(first.create_task, main())
    clock.run()
    assert log == ["first", "second"]


def test_what_a_delivery_makes_ready_runs_on_its_loop_at_once(loop: SimLoop, clock: Clock) -> None:
    seen: list[object] = []

    async def main(future: asyncio.Future[int]) -> None:
        seen.append((await future, asyncio.get_running_loop() is loop))

    future = loop.create_future()
    loop.enter(loop.create_task, main(future))
    loop.deliver(future.set_result, 5)
    assert seen == [(5, True)]
    assert clock.now == 0


def test_delivery_waits_while_the_host_is_paused_and_is_dropped_when_it_is_dead(loop: SimLoop, clock: Clock) -> None:
    log: list[str] = []
    loop.pause()
    loop.deliver(log.append, "late")
    clock.run_until(NS_PER_SECOND)
    assert log == []
    loop.resume()
    clock.run_until(2 * NS_PER_SECOND)
    assert log == ["late"]
    loop.die()
    loop.deliver(log.append, "to the dead")
    clock.run_until(3 * NS_PER_SECOND)
    assert log == ["late"]


def test_pause_in_the_middle_of_a_round_leaves_the_rest_of_it_for_later(loop: SimLoop, clock: Clock) -> None:
    log: list[str] = []
    for step in ("first", "second", "third"):
        loop.call_soon(log.append, step)
        if step == "first":
            loop.call_soon(loop.pause)
    clock.run_until(NS_PER_SECOND)
    assert log == ["first"]
    loop.call_soon(log.append, "fourth")
    loop.resume()
    clock.run_until(2 * NS_PER_SECOND)
    assert log == ["first", "second", "third", "fourth"]


def test_future_set_from_outside_wakes_its_task(loop: SimLoop, clock: Clock) -> None:
    future: asyncio.Future[int] = loop.create_future()
    clock.after(7, future.set_result, 1)

    async def main() -> int:
        await future
        return clock.now

    assert loop.run_until_complete(main()) == 7


def test_error_of_the_infrastructure_ends_the_run(loop: SimLoop) -> None:
    with pytest.raises(ZeroDivisionError):
        loop.enter(lambda: 1 // 0)


def test_error_of_a_callback_is_kept_and_the_loop_goes_on(loop: SimLoop, clock: Clock) -> None:
    log: list[int] = []
    loop.call_soon(lambda: 1 // 0)
    loop.call_soon(log.append, 1)
    clock.run()
    assert log == [1]
    assert [type(unhandled.exception) for unhandled in loop.unhandled] == [ZeroDivisionError]


def test_exception_handler_is_told_instead(loop: SimLoop, clock: Clock) -> None:
    told: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: told.append(context))
    loop.call_soon(lambda: 1 // 0)
    clock.run()
    assert isinstance(told[0]["exception"], ZeroDivisionError)
    assert loop.unhandled == []


def test_exception_that_nobody_retrieved_is_reported(loop: SimLoop, clock: Clock) -> None:
    async def fail() -> None:
        raise ValueError("unseen")

    loop.create_task(fail())
    clock.run()
    loop.forget_finished_tasks()
    assert [str(unhandled.exception) for unhandled in loop.unhandled] == ["unseen"]


def test_spinning_host_lets_the_world_go_on(loop: SimLoop, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "DRAIN_CALLBACKS_MAX", 100)
    stop = False

    def end() -> None:
        nonlocal stop
        stop = True

    async def spin() -> str:
        while not stop:  # noqa: ASYNC110 - spinning is the point
            await asyncio.sleep(0)
        return "stopped"

    clock.after(5_000, end)
    assert loop.run_until_complete(spin()) == "stopped"
    assert clock.now == 5_000


def test_host_that_spins_for_ever_is_named(loop: SimLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "DRAIN_CALLBACKS_MAX", 100)
    monkeypatch.setattr(loop_module, "DRAINS_IN_A_ROW_MAX", 50)

    async def spin() -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)

    with pytest.raises(SimulationStuckError, match=r"host has run 5,\d00 callbacks"):
        loop.run_until_complete(spin())
    loop.die()


def test_round_longer_than_the_cap_is_run_in_parts(
    loop: SimLoop, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "DRAIN_CALLBACKS_MAX", 100)
    monkeypatch.setattr(loop_module, "DRAINS_IN_A_ROW_MAX", 50)
    ran: list[int] = []
    for number in range(1_000):
        loop.call_soon(ran.append, number)
    clock.run()
    assert ran == list(range(1_000))


def test_timeouts_that_never_strike_do_not_fill_the_heap(loop: SimLoop, clock: Clock) -> None:
    async def main() -> None:
        for _ in range(20_000):
            async with asyncio.timeout(30):
                await asyncio.sleep(0)

    loop.run_until_complete(main())
    assert clock.pending < 200


def test_create_task_passes_the_context_on(loop: SimLoop) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")

    async def look() -> str:
        return variable.get()

    async def main() -> list[str]:
        context = contextvars.copy_context()
        context.run(variable.set, "given")
        variable.set("mine")
        given = asyncio.get_running_loop().create_task(look(), context=context)
        return [await given, await asyncio.create_task(look())]

    assert loop.run_until_complete(main()) == ["given", "mine"]
    assert variable.get() == "outside"


def test_task_factory_makes_the_tasks(loop: SimLoop) -> None:
    made: list[str] = []

    def factory(for_loop: Any, coro: Any, **keywords: Any) -> asyncio.Task[Any]:
        made.append(coro.__qualname__)
        return asyncio.Task(coro, loop=for_loop, **keywords)

    loop.set_task_factory(factory)
    loop.run_until_complete(asyncio.sleep(0))
    assert made == ["sleep"]


def test_tasks_are_numbered_by_loop() -> None:
    async def name() -> str:
        task = asyncio.current_task()
        assert task is not None
        return task.get_name()

    for _ in range(2):
        loop = SimLoop(Clock())
        assert loop.run_until_complete(name()) == "Task-1"


def test_task_that_nobody_refers_to_lives_on(loop: SimLoop, clock: Clock) -> None:
    log: list[str] = []

    async def forgotten() -> None:
        # The future is referred to by the task alone, and the task by the future: a cycle, which asyncio would lose.
        future = loop.create_future()
        loop.call_later(5, lambda: None)
        clock.after(NS_PER_SECOND, gc.collect)
        async with asyncio.timeout(2):
            try:
                await future
            finally:
                log.append("woken")

    loop.create_task(forgotten())
    clock.run()
    assert log == ["woken"]


def test_async_generator_that_is_dropped_is_closed_on_its_own_loop(clock: Clock) -> None:
    first, second = SimLoop(clock, "first"), SimLoop(clock, "second")
    log: list[object] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            log.append(asyncio.get_running_loop())

    kept: list[AsyncIterator[int]] = []

    async def begin() -> None:
        kept.append(numbers())
        await anext(kept[0])

    async def drop() -> None:
        kept.clear()

    first.run_until_complete(begin())
    second.run_until_complete(drop())
    clock.run()
    assert log == [first]


def test_shutdown_asyncgens_closes_in_order_of_start(loop: SimLoop) -> None:
    log: list[int] = []

    async def generator(number: int) -> AsyncIterator[int]:
        try:
            yield number
        finally:
            log.append(number)

    async def main() -> None:
        generators = [generator(number) for number in range(20)]
        for each in generators:
            await anext(each)
        await asyncio.get_running_loop().shutdown_asyncgens()

    loop.run_until_complete(main())
    assert log == list(range(20))


def test_hooks_for_async_generators_are_restored(loop: SimLoop) -> None:
    before = sys.get_asyncgen_hooks()
    loop.run_until_complete(asyncio.sleep(1))
    assert sys.get_asyncgen_hooks() == before


def test_threadsafe_callback_runs_like_any_other(loop: SimLoop, clock: Clock) -> None:
    log: list[int] = []
    loop.call_soon_threadsafe(log.append, 1)
    clock.run()
    assert log == [1]


def test_runner_of_asyncio_drives_a_simulated_loop(clock: Clock) -> None:
    with asyncio.Runner(loop_factory=lambda: SimLoop(clock)) as runner:
        runner.run(asyncio.sleep(10))
    assert clock.now == 10 * NS_PER_SECOND


@pytest.mark.parametrize(
    "leave",
    [
        lambda: asyncio.to_thread(list),
        lambda: asyncio.open_connection("localhost", 1),
        lambda: asyncio.start_server(print, "localhost", 1),
        lambda: asyncio.create_subprocess_shell("true"),
        lambda: asyncio.get_running_loop().getaddrinfo("localhost", 1),
    ],
)
def test_ways_out_of_the_simulation_are_closed(loop: SimLoop, leave: Any) -> None:
    async def main() -> None:
        await leave()

    with pytest.raises(EscapedSimulationError, match=r"host called loop\.\w+"):
        loop.run_until_complete(main())


def test_entering_from_outside_of_a_run_restores_what_was(loop: SimLoop) -> None:
    hooks = sys.get_asyncgen_hooks()
    loop.enter(list)
    assert sys.get_asyncgen_hooks() == hooks
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()
