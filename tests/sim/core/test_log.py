"""A service's log lines become events of the trace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from sim.hosts import Incarnation
from sim.log import SimLog
from sim.world import World


class Events:
    """A recorder that keeps (kind, columns)."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, tuple[object, ...]]] = []

    def emitter(self, kind: str, /) -> Callable[..., object]:
        return lambda *columns: self.rows.append((kind, columns))

    def of(self, kind: str) -> list[tuple[object, ...]]:
        return [columns for each, columns in self.rows if each == kind]


@pytest.fixture
def events() -> Events:
    return Events()


def run(events: Events, use: Callable[[SimLog, Incarnation], object], debug: bool = False) -> None:
    world = World(1, events)

    async def main(incarnation: Incarnation) -> None:
        await asyncio.sleep(2e-9)
        use(world.log(incarnation, debug), incarnation)

    with world.running():
        world.host("engine-1", "engine").start(main)
        world.run_until(10)
    world.close()


def test_line_has_its_order_in_a_column_and_the_rest_as_sorted_json(events: Events) -> None:
    run(events, lambda log, _: log.info("OrderPlacement emitted", symbol="A", order_id=7, price=3, names={"b", "a"}))
    assert events.of("log_lines") == [
        (2, "engine-1", "engine", "info", "OrderPlacement emitted", 7, '{"names":["a","b"],"price":3,"symbol":"A"}')
    ]


def test_alarm_names_the_place_and_is_a_line_too(events: Events) -> None:
    run(events, lambda log, _: log.critical("gap", topic="engine.outputs", partition=2, offset=9))
    assert events.of("alarms") == [(2, "engine-1", "engine", "gap", "engine.outputs", 2, 9)]
    assert events.of("log_lines")[0][3:5] == ("critical", "gap")


def test_alarm_without_a_place(events: Events) -> None:
    run(events, lambda log, _: log.critical("disk full"))
    assert events.of("alarms") == [(2, "engine-1", "engine", "disk full", "", -1, -1)]


def test_errors_are_described_and_other_objects_named_by_type(events: Events) -> None:
    # Never by repr: it may hold an address, which differs from run to run.
    run(events, lambda log, _: log.error("failed", error=ValueError("bad"), thing=object()))
    assert events.of("log_lines")[0][6] == '{"error":"ValueError: bad","thing":"<object>"}'


def test_debug_lines_are_kept_when_asked_for(events: Events) -> None:
    run(events, lambda log, _: log.debug("detail"))
    assert events.of("log_lines") == []
    run(events, lambda log, _: log.debug("detail"), debug=True)
    assert len(events.of("log_lines")) == 1


def test_log_of_a_dead_host_says_nothing(events: Events) -> None:
    def use(log: SimLog, incarnation: Incarnation) -> None:
        incarnation.host.crash()
        log.info("late")
        log.critical("late alarm")

    run(events, use)
    assert [kind for kind, _ in events.rows] == ["lifecycle", "lifecycle"]


def test_exception_that_a_service_let_go_is_an_error_line(events: Events) -> None:
    def use(log: SimLog, incarnation: Incarnation) -> None:
        incarnation.loop.call_soon(lambda: 1 // 0)

    run(events, use)
    (line,) = events.of("log_lines")
    assert line[3] == "error"
    assert "ZeroDivisionError" in str(line[6])


def test_exception_of_a_task_that_nobody_waits_for_is_an_error_line(events: Events) -> None:
    async def fail() -> None:
        raise ValueError("nobody waits")

    def use(log: SimLog, incarnation: Incarnation) -> None:
        incarnation.loop.create_task(fail())

    run(events, use)
    (line,) = events.of("log_lines")
    assert line[3:5] == ("error", "unhandled: Task exception was never retrieved")
    assert "nobody waits" in str(line[6])
