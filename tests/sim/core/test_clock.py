"""The clock runs callbacks and SimPy's own processes in the order of time, then of scheduling."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.clock import SWEEP_AT_LEAST, Clock


def test_callbacks_run_in_order_of_time_then_of_scheduling() -> None:
    clock = Clock()
    log: list[tuple[int, str]] = []
    for delay, name in ((5, "c"), (3, "a"), (5, "d"), (3, "b")):
        clock.after(delay, lambda name=name: log.append((clock.now, name)))
    clock.run()
    assert log == [(3, "a"), (3, "b"), (5, "c"), (5, "d")]


def test_timers_and_simpy_events_of_one_instant_keep_the_order_of_scheduling() -> None:
    clock = Clock()
    log: list[str] = []
    clock.after(3, log.append, "timer")
    clock.timeout(3).callbacks.append(lambda _: log.append("timeout"))
    clock.after(3, log.append, "timer again")
    clock.run()
    assert log == ["timer", "timeout", "timer again"]


def test_process_can_yield_timers_timeouts_and_conditions() -> None:
    clock = Clock()
    log: list[tuple[int, str]] = []

    def process() -> Generator[simpy.Event, Any, str]:
        yield clock.after(5, lambda: log.append((clock.now, "callback")))
        log.append((clock.now, "process"))
        yield clock.after(7, list) | clock.timeout(3)
        log.append((clock.now, "either"))
        return "done"

    assert clock.run(clock.process(process())) == "done"
    assert log == [(5, "callback"), (5, "process"), (8, "either")]


def test_run_stops_before_an_instant_and_run_until_after_it() -> None:
    clock = Clock()
    log: list[int] = []
    clock.at(10, log.append, 1)
    clock.run(until=10)
    assert (clock.now, log) == (10, [])
    clock.run_until(10)
    assert (clock.now, log) == (10, [1])
    clock.run_until(25)
    assert clock.now == 25


def test_run_while_stops_with_the_condition_or_at_the_instant() -> None:
    clock = Clock()
    log: list[int] = []
    for when in (1, 2, 3, 4):
        clock.at(when, log.append, when)
    assert not clock.run_while(lambda: len(log) < 2, 100)
    assert (clock.now, log) == (2, [1, 2])
    assert clock.run_while(lambda: True, 3)
    assert (clock.now, log) == (3, [1, 2, 3])
    assert clock.run_while(lambda: True)
    assert log == [1, 2, 3, 4]


def test_waiting_for_what_cannot_happen_is_an_error() -> None:
    clock = Clock()
    with pytest.raises(RuntimeError, match="nothing is left"):
        clock.run(clock.event())


def test_time_is_whole_nanoseconds() -> None:
    clock = Clock()
    with pytest.raises(TypeError, match="integer nanoseconds"):
        clock.timeout(0.5)
    with pytest.raises(ValueError, match="past"):
        clock.after(-1, list)
    clock.run_until(5)
    with pytest.raises(ValueError, match="has passed"):
        clock.at(4, list)


def test_cancelled_timer_does_not_run_and_moves_no_time() -> None:
    clock = Clock()
    log: list[str] = []
    timer = clock.after(5, log.append, "cancelled")
    clock.after(3, timer.cancel)
    clock.run()
    timer.cancel()
    assert (log, clock.now, timer.is_cancelled) == ([], 3, True)


def test_cancelling_a_timer_that_has_run_does_nothing() -> None:
    clock = Clock()
    timers = [clock.after(1, list) for _ in range(3 * SWEEP_AT_LEAST)]
    clock.run()
    later = clock.after(1, list)
    for timer in timers:
        timer.cancel()
    assert not timers[0].is_cancelled
    assert clock.peek() == later.when_ns


def test_cancelled_timers_are_swept_from_the_heap() -> None:
    clock = Clock()
    log: list[int] = []
    clock.after(1_000_000, log.append, 1)
    for number in range(100_000):
        clock.after(1_000 + number, log.append, 2).cancel()
    assert clock.pending <= 2 * SWEEP_AT_LEAST
    clock.run()
    assert (log, clock.now) == ([1], 1_000_000)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=400))
def test_sweeping_changes_nothing_else(plan: list[tuple[int, bool]]) -> None:
    clock = Clock()
    log: list[tuple[int, int]] = []
    timers = [clock.after(delay, lambda n=n: log.append((clock.now, n))) for n, (delay, _) in enumerate(plan)]
    for timer, (_, cancelled) in zip(timers, plan, strict=True):
        if cancelled:
            timer.cancel()
    clock.run()
    kept = [(delay, n) for n, (delay, cancelled) in enumerate(plan) if not cancelled]
    assert log == sorted(kept)
    assert clock.pending == 0


def test_what_is_posted_runs_at_its_instant_in_the_order_of_scheduling() -> None:
    clock = Clock()
    ran: list[tuple[str, int]] = []

    def note(name: str) -> None:
        ran.append((name, clock.now))

    def process() -> Generator[simpy.Event, Any, None]:
        yield clock.timeout(5)
        note("process")

    clock.at(5, note, "timer")
    clock.process(process())
    clock.post(5, note, ("posted",))
    clock.post(3, note, ("earlier",))
    clock.at(5, note, "last")
    clock.run_until(10)
    assert ran == [("earlier", 3), ("timer", 5), ("posted", 5), ("last", 5), ("process", 5)]


def test_what_is_posted_is_met_event_by_event_and_survives_a_sweep() -> None:
    clock = Clock()
    ran: list[int] = []
    for number in range(200):
        clock.at(1_000 + number, ran.append, -1).cancel()
        if number % 50 == 0:
            clock.post(2_000 + number, ran.append, (number,))
    assert clock.pending < 100
    assert clock.next_ns() == 2_000
    assert clock.run_while(lambda: len(ran) < 2) is False
    clock.step()
    assert ran == [0, 50, 100]
    assert clock.run_while(lambda: True, 5_000) is True
    assert ran == [0, 50, 100, 150]
    with pytest.raises(simpy.core.EmptySchedule):
        clock.step()
