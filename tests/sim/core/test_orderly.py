"""Where asyncio goes by the addresses of tasks, a run goes by the order of insertion."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.clock import Clock
from sim.loop import SimLoop
from sim.orderly import OrderedSet, deterministic_asyncio

N = 200


def scrambled_memory() -> list[object]:
    """Holes all over the heap, so that new objects do not come at rising addresses."""
    generator = random.Random(1)
    blocks = [[0] * generator.randrange(1, 200) for _ in range(5_000)]
    generator.shuffle(blocks)
    return list(blocks[::2])


def run(program: Any) -> Any:
    memory = scrambled_memory()
    with deterministic_asyncio():
        result = SimLoop(Clock()).run_until_complete(program)
    del memory
    return result


async def note_end(log: list[int], number: int) -> None:
    try:
        await asyncio.sleep(1 + number)
    finally:
        log.append(number)


def test_task_group_cancels_in_order_of_creation() -> None:
    async def main() -> list[int]:
        log: list[int] = []
        with contextlib.suppress(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                for number in range(N):
                    group.create_task(note_end(log, number))
                await asyncio.sleep(0)
                raise ValueError
        return log

    assert run(main()) == list(range(N))


def test_wait_returns_tasks_in_the_order_given() -> None:
    async def main() -> tuple[list[str], list[str]]:
        tasks = [asyncio.create_task(asyncio.sleep(n % 2), name=str(n)) for n in range(N)]
        done, pending = await asyncio.wait(tasks, timeout=0.5)
        await asyncio.wait(pending)
        return [task.get_name() for task in done], [task.get_name() for task in pending]

    done, pending = run(main())
    assert done == [str(n) for n in range(0, N, 2)]
    assert pending == [str(n) for n in range(1, N, 2)]


def test_as_completed_starts_in_the_order_given() -> None:
    async def main() -> list[int]:
        started: list[int] = []

        async def start(number: int) -> None:
            started.append(number)

        for each in asyncio.as_completed([start(n) for n in range(N)]):  # noqa: TID251 - the rule's own reason
            await each
        return started

    assert run(main()) == list(range(N))


def test_all_tasks_are_in_order_of_creation() -> None:
    async def main() -> list[str]:
        tasks = [asyncio.create_task(asyncio.sleep(1), name=str(n)) for n in range(N)]
        await asyncio.sleep(0)
        names = [task.get_name() for task in asyncio.all_tasks()]
        await asyncio.gather(*tasks)
        return names

    assert run(main())[1:] == [str(n) for n in range(N)]


def test_asyncio_is_as_it_was_afterwards() -> None:
    before = (asyncio.all_tasks, asyncio.get_running_loop, asyncio.current_task)
    with deterministic_asyncio():
        assert asyncio.all_tasks is not before[0]
    assert (asyncio.all_tasks, asyncio.get_running_loop, asyncio.current_task) == before
    assert "set" not in vars(asyncio.tasks)


def test_real_loops_work_inside_the_scope() -> None:
    async def main() -> int:
        assert asyncio.current_task() in asyncio.all_tasks()
        await asyncio.sleep(0)
        return 5

    with deterministic_asyncio():
        assert asyncio.run(main()) == 5


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 9), max_size=10),
    st.lists(st.tuples(st.sampled_from(["add", "discard", "remove", "pop", "clear", "update"]), st.integers(0, 9))),
)
def test_ordered_set_is_a_set_in_order(start: list[int], steps: list[tuple[str, int]]) -> None:
    ordered, plain, order = OrderedSet(start), set(start), list(dict.fromkeys(start))
    for what, item in steps:
        if what in ("add", "update"):
            plain.add(item)
            order += [item] if item not in order else []
            ordered.add(item) if what == "add" else ordered.update([item])
        elif what == "pop":
            if order:
                plain.discard(order[0])
                assert ordered.pop() == order.pop(0)
            else:
                with pytest.raises(KeyError):
                    ordered.pop()
        elif what == "clear":
            plain.clear()
            order.clear()
            ordered.clear()
        elif item in plain or what == "discard":
            plain.discard(item)
            order = [other for other in order if other != item]
            getattr(ordered, what)(item)
        else:
            with pytest.raises(KeyError):
                ordered.remove(item)
        assert list(ordered) == order
        assert ordered == plain
        assert len(ordered) == len(plain)
        assert bool(ordered) == bool(plain)
        assert list(ordered.copy()) == order
