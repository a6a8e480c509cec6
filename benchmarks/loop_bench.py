"""What the simulated event loop costs, beside stock asyncio in the same process (design 11).

Run it: `python -m benchmarks.loop_bench`. Each figure is the best of several runs, as noise only ever adds.
"""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import Callable, Coroutine
from typing import Any

from sim.clock import NS_PER_SECOND, Clock
from sim.loop import SimLoop
from sim.orderly import deterministic_asyncio

REPETITIONS = 5


def queue_hop(hops: int = 20_000, repetitions: int = REPETITIONS) -> dict[str, float]:
    """Microseconds for handing one item from task to task through an asyncio.Queue, and the ratio to stock asyncio."""

    async def ping_pong() -> None:
        there: asyncio.Queue[int] = asyncio.Queue()
        back: asyncio.Queue[int] = asyncio.Queue()

        async def left() -> None:
            for number in range(hops // 2):
                await there.put(number)
                await back.get()

        async def right() -> None:
            for number in range(hops // 2):
                await there.get()
                await back.put(number)

        await asyncio.gather(left(), right())

    # In turns, so that a slow spell of the machine hits both.
    stock_us, simulated_us = [], []
    for _ in range(repetitions):
        stock_us.append(_microseconds(lambda: asyncio.run(ping_pong()), hops))
        simulated_us.append(_microseconds(lambda: _simulate(ping_pong()), hops))
    return {
        "queue_hop_us": min(simulated_us),
        "stock_queue_hop_us": min(stock_us),
        "queue_hop_ratio": min(simulated_us) / min(stock_us),
    }


def sleeps(count: int = 20_000, repetitions: int = REPETITIONS) -> dict[str, float]:
    """Microseconds for one asyncio.sleep, and for one plain timer of the clock."""

    async def sleeper() -> None:
        for _ in range(count):
            await asyncio.sleep(0.001)

    def tick(clock: Clock, left: int) -> None:
        if left:
            clock.after(1000, tick, clock, left - 1)

    def timers() -> None:
        clock = Clock()
        tick(clock, count)
        clock.run()

    return {
        "sleep_us": min(_microseconds(lambda: _simulate(sleeper()), count) for _ in range(repetitions)),
        "timer_us": min(_microseconds(timers, count) for _ in range(repetitions)),
    }


def timers_swept(operations: int = 200_000) -> dict[str, float]:
    """Operations under a time-out that never strikes: microseconds each, and the entries left on the clock's heap."""
    entries = 0

    async def work() -> None:
        for _ in range(operations):
            async with asyncio.timeout(30):
                await asyncio.sleep(0)

    def run() -> None:
        nonlocal entries
        clock = Clock()
        loop = SimLoop(clock)
        with deterministic_asyncio():
            loop.run_until_complete(work())
        entries = clock.pending

    return {"timeout_us": _microseconds(run, operations), "heap_entries_left": float(entries)}


def _simulate(program: Coroutine[Any, Any, object]) -> None:
    clock = Clock()
    loop = SimLoop(clock)
    with deterministic_asyncio():
        task = loop.create_task(program)
        clock.run_until(10_000 * NS_PER_SECOND)
    task.result()


def _microseconds(work: Callable[[], object], count: int) -> float:
    """Wall time of `work()` over `count`, with the garbage collector off, as during a run."""
    gc.collect()
    gc.disable()
    try:
        start_ns = time.perf_counter_ns()
        work()
        return (time.perf_counter_ns() - start_ns) / 1000 / count
    finally:
        gc.enable()


if __name__ == "__main__":
    print(json.dumps({**queue_hop(), **sleeps(), **timers_swept()}, indent=2))
