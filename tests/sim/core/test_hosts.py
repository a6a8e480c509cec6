"""A host's life: start, exit, SIGTERM, pause, crash, restart; and its wall clock."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from sim.clock import NS_PER_MS, NS_PER_SECOND, Clock
from sim.hosts import RUN_STARTS_NS, Host, Incarnation, WallClock, describe
from sim.randomness import Randomness

ROOT = Path(__file__).parents[3]


class Machine:
    """A host whose lifecycle events are kept as (seconds, event, incarnation, detail)."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.events: list[tuple[float, str, int, str]] = []
        self.host = Host(self.clock, Randomness(1), "host-1", "service", self.record)

    def record(self, t: int, host: str, event: str, incarnation: int, service: str, detail: str) -> None:
        assert (host, service) == ("host-1", "service")
        self.events.append((t / NS_PER_SECOND, event, incarnation, detail))

    def run_for(self, seconds: float) -> None:
        self.clock.run_until(self.clock.now + round(seconds * NS_PER_SECOND))


@pytest.fixture
def machine() -> Any:
    made = Machine()
    yield made
    made.host.close()


async def for_ever(incarnation: Incarnation) -> None:
    await asyncio.Event().wait()


# -- exit


def test_main_that_returns_ends_the_incarnation(machine: Machine) -> None:
    incarnation = machine.host.start(lambda _: asyncio.sleep(3))
    machine.run_for(5)
    assert not incarnation.alive
    assert machine.events == [(0, "start", 1, ""), (3, "exit", 1, "")]


def test_main_that_raises_is_recorded_with_its_error(machine: Machine) -> None:
    async def main(_: Incarnation) -> None:
        async with asyncio.TaskGroup():
            raise ValueError("no such topic")

    exits: list[tuple[int, str]] = []
    machine.host.on_exit = lambda incarnation, error: exits.append((incarnation.number, describe(error)))
    machine.host.start(main)
    text = "ExceptionGroup: unhandled errors in a TaskGroup [ValueError: no such topic]"
    assert machine.events[-1] == (0, "exit", 1, text)
    assert exits == [(1, text)]


def test_remaining_tasks_are_cancelled_before_the_exit_as_by_asyncio_run(machine: Machine) -> None:
    log: list[object] = []

    async def background() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1)
            log.append(machine.clock.now)

    async def main(_: Incarnation) -> None:
        asyncio.create_task(background())  # noqa: RUF006 - nobody waits for it, as in many a service
        await asyncio.sleep(1)

    machine.host.start(main)
    machine.run_for(10)
    assert log == [2 * NS_PER_SECOND]
    assert machine.events[-1] == (2, "exit", 1, "")


def test_supervisor_can_restart_after_a_delay(machine: Machine) -> None:
    host = machine.host
    host.on_exit = lambda *_: machine.clock.after(2 * NS_PER_SECOND, host.restart)
    host.start(lambda _: asyncio.sleep(1))
    machine.run_for(5)
    assert [event[:3] for event in machine.events] == [
        (0, "start", 1),
        (1, "exit", 1),
        (3, "start", 2),
        (4, "exit", 2),
    ]


def test_ready_is_recorded(machine: Machine) -> None:
    async def main(incarnation: Incarnation) -> None:
        await asyncio.sleep(2)
        incarnation.ready()

    machine.host.start(main)
    machine.run_for(3)
    assert machine.events[1] == (2, "ready", 1, "")


def test_host_that_is_up_cannot_be_started_and_one_that_never_was_not_restarted(machine: Machine) -> None:
    with pytest.raises(RuntimeError, match="never been started"):
        machine.host.restart()
    machine.host.start(for_ever)
    with pytest.raises(RuntimeError, match="up already"):
        machine.host.restart()


# -- SIGTERM


def test_sigterm_runs_the_handler(machine: Machine) -> None:
    log: list[str] = []

    async def main(_: Incarnation) -> None:
        stopping = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
        try:
            await stopping.wait()
        finally:
            await asyncio.sleep(1)
            log.append("cleaned up")

    machine.host.start(main)
    machine.run_for(5)
    machine.host.stop()
    machine.run_for(5)
    assert log == ["cleaned up"]
    assert [event[:2] for event in machine.events] == [(0, "start"), (5, "stop"), (6, "exit")]


def test_sigterm_without_handler_ends_the_process_without_clean_up(machine: Machine) -> None:
    log: list[str] = []

    async def main(_: Incarnation) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, log.append, "handled")
        assert loop.remove_signal_handler(signal.SIGTERM)
        assert not loop.remove_signal_handler(signal.SIGTERM)
        try:
            await asyncio.Event().wait()
        finally:
            log.append("cleaned up")

    machine.host.start(main)
    machine.host.stop()
    machine.run_for(1)
    gc.collect()
    assert log == []
    assert [event[1] for event in machine.events] == ["start", "stop", "terminated"]


def test_sigterm_of_a_paused_host_waits_until_it_goes_on(machine: Machine) -> None:
    incarnation = machine.host.start(for_ever)
    machine.host.pause()
    machine.host.stop()
    machine.run_for(5)
    assert incarnation.alive
    machine.host.resume()
    machine.run_for(1)
    assert not incarnation.alive


# -- pause


def test_paused_host_stands_still_and_then_does_all_in_order(machine: Machine) -> None:
    log: list[tuple[float, str]] = []

    def note(what: str) -> None:
        log.append((machine.clock.now / NS_PER_SECOND, what))

    async def main(_: Incarnation) -> None:
        async with asyncio.TaskGroup() as group:
            for seconds in (2, 4):
                group.create_task(asyncio.sleep(seconds)).add_done_callback(lambda _, s=seconds: note(f"slept {s}"))
            await asyncio.sleep(6)
            note("slept 6")

    incarnation = machine.host.start(main)
    machine.run_for(1)
    machine.host.pause()
    for seconds in (0.5, 2):
        machine.clock.after(round(seconds * NS_PER_SECOND), incarnation.enter, note, f"delivered {1 + seconds}")
    machine.run_for(4)
    assert log == []
    machine.host.resume()
    machine.run_for(5)
    # What the timers lead to is queued behind what had piled up.
    assert log == [
        (5, "delivered 1.5"),
        (5, "delivered 3"),
        (5, "slept 2"),
        (5, "slept 4"),
        (6, "slept 6"),
    ]
    assert [event[:2] for event in machine.events] == [(0, "start"), (1, "pause"), (5, "resume"), (6, "exit")]


def test_host_that_pauses_itself_stops_after_the_running_callback(machine: Machine) -> None:
    log: list[str] = []

    async def main(_: Incarnation) -> None:
        machine.host.pause()
        log.append("same step")
        await asyncio.sleep(0)
        log.append("next step")

    machine.host.start(main)
    machine.run_for(1)
    assert log == ["same step"]
    machine.host.resume()
    machine.run_for(1)
    assert log == ["same step", "next step"]


# -- power cut


async def all_kinds_of_clean_up(log: list[str]) -> None:
    """Suspended in every kind of place that has something to clean up."""

    async def in_finally(what: str, wait: Callable[[], Any]) -> None:
        try:
            await wait()
        except BaseException as error:
            log.append(f"{what} saw {error!r}")
            raise
        finally:
            log.append(f"{what} cleaned up")

    async def generator() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            log.append("generator cleaned up")

    class Context:
        async def __aenter__(self) -> None:
            pass

        async def __aexit__(self, *error: object) -> None:
            log.append("context left")

    async def in_group() -> None:
        async with asyncio.TaskGroup() as group, Context():
            group.create_task(in_finally("child", lambda: asyncio.sleep(100)))
            await in_finally("group", asyncio.Event().wait)

    async def in_generator() -> None:
        async for _ in generator():
            await in_finally("loop body", lambda: asyncio.sleep(100))

    lock = asyncio.Lock()
    await lock.acquire()
    held = generator()
    await anext(held)
    async with asyncio.timeout(1000):
        await asyncio.gather(
            in_finally("queue", asyncio.Queue().get),
            in_finally("lock", lock.acquire),
            in_finally("sleep", lambda: asyncio.sleep(50)),
            in_finally("wait_for", lambda: asyncio.wait_for(asyncio.Event().wait(), 70)),
            in_finally("shield", lambda: asyncio.shield(in_finally("shielded", lambda: asyncio.sleep(60)))),
            in_finally("task without a loop's help", lambda: asyncio.Task(in_finally("bare", asyncio.Event().wait))),
            in_group(),
            in_generator(),
        )


def test_nothing_runs_after_a_power_cut_not_even_at_collection(machine: Machine) -> None:
    log: list[str] = []
    incarnation = machine.host.start(lambda _: all_kinds_of_clean_up(log))
    machine.run_for(1)
    machine.host.crash()
    assert not incarnation.alive
    del incarnation
    machine.host.incarnation = None
    gc.collect()
    machine.run_for(1000)
    gc.collect()
    assert log == []
    assert machine.events[-1] == (1, "crash", 1, "")
    assert machine.clock.pending == 0


def test_the_same_clean_ups_do_run_when_the_host_is_not_cut_off(machine: Machine) -> None:
    # Else the test above could not fail.
    log: list[str] = []
    machine.host.start(lambda _: all_kinds_of_clean_up(log))
    machine.run_for(2000)
    assert len([line for line in log if "cleaned up" in line]) >= 10


def test_crash_from_within_falls_between_two_callbacks(machine: Machine) -> None:
    log: list[str] = []

    async def main(incarnation: Incarnation) -> None:
        try:
            machine.host.crash()
            log.append(f"same step, alive: {incarnation.alive}")
            await asyncio.sleep(0)
            log.append("next step")
        finally:
            log.append("finally")

    machine.host.start(main)
    gc.collect()
    machine.run_for(1)
    assert log == ["same step, alive: False"]


def test_deliveries_to_a_dead_incarnation_are_dropped(machine: Machine) -> None:
    log: list[str] = []
    first = machine.host.start(for_ever)
    machine.host.crash()
    second = machine.host.restart()
    first.enter(log.append, "to the dead")
    first.loop.call_soon(log.append, "soon")
    first.loop.call_later(1, log.append, "later")
    second.enter(log.append, "to the living")
    machine.run_for(2)
    assert log == ["to the living"]
    assert second.number == 2


def test_crash_while_paused_drops_what_has_queued_up(machine: Machine) -> None:
    log: list[str] = []
    incarnation = machine.host.start(for_ever)
    machine.host.pause()
    incarnation.enter(log.append, "queued")
    machine.host.crash()
    machine.host.resume()
    machine.run_for(1)
    assert log == []


def test_connections_learn_of_a_death_in_order_and_once(machine: Machine) -> None:
    log: list[str] = []
    incarnation = machine.host.start(for_ever)
    incarnation.on_death.append(lambda dead: log.append(f"first {dead.alive}"))
    incarnation.on_death.append(lambda dead: log.append(f"second {dead.number}"))
    machine.host.crash()
    machine.host.crash()
    assert log == ["first False", "second 1"]


def test_crash_loses_what_the_disk_has_not_synced(machine: Machine) -> None:
    async def main(incarnation: Incarnation) -> None:
        disk = machine.host.disk
        await disk.write("kept", b"1")
        await disk.sync("kept")
        await disk.sync_names()
        await disk.write(f"unsynced-{incarnation.number:02}", b"2")
        await asyncio.Event().wait()

    for _ in range(20):
        machine.host.start(main)
        machine.run_for(1)
        machine.host.crash()
        assert machine.host.disk.file_names()[0] == "kept"
    assert 1 < len(machine.host.disk.file_names()) < 21


def test_terminated_process_keeps_what_it_has_written(machine: Machine) -> None:
    # The process ends, the machine does not lose its power.
    async def main(incarnation: Incarnation) -> None:
        await machine.host.disk.write(f"unsynced-{incarnation.number:02}", b"2")
        await asyncio.Event().wait()

    for _ in range(20):
        machine.host.start(main)
        machine.run_for(1)
        machine.host.stop()
    assert len(machine.host.disk.file_names()) == 20


AT_EXIT = """
import asyncio, gc, sys
sys.path.insert(0, sys.argv[1])
from sim.world import World
from sim.clock import NS_PER_SECOND

async def main(incarnation):
    async def child():
        try:
            await asyncio.sleep(100)
        finally:
            print("clean-up of", incarnation, flush=True)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
    finally:
        print("clean-up of", incarnation, flush=True)

world = World(1)
with world.running():
    for number in range(20):
        host = world.host(f"host-{number}")
        host.start(main)
        world.run_until(world.clock.now + NS_PER_SECOND)
        if number % 2 and {crashes}:
            host.crash()
if {close}:
    world.close()
world = host = None
gc.collect()
print("end", flush=True)
"""


def clean_ups_until_exit(crashes: bool, close: bool) -> list[str]:
    program = AT_EXIT.replace("{crashes}", str(crashes)).replace("{close}", str(close))
    done = subprocess.run([sys.executable, "-c", program, str(ROOT)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    lines.remove("end")
    return lines


@pytest.mark.parametrize("crashes", [True, False])
def test_nothing_runs_when_a_world_is_collected_or_the_interpreter_exits(crashes: bool) -> None:
    assert clean_ups_until_exit(crashes, close=True) == []


def test_hosts_of_a_world_that_is_not_closed_do_run_when_it_is_collected() -> None:
    # This is what `World.close` is for; and else the test above could not fail.
    assert len(clean_ups_until_exit(crashes=False, close=False)) == 40


# -- wall clock


def test_runs_start_at_one_fixed_date() -> None:
    clock = Clock()
    wall = WallClock(clock)
    clock.run_until(5)
    assert wall.now_ns() == 1_893_456_000_000_000_005


def test_wall_clock_jumps_and_drifts_while_the_loop_s_time_does_not(machine: Machine) -> None:
    wall = machine.host.wall
    machine.run_for(10)
    wall.jump(-3 * NS_PER_SECOND)
    assert wall.offset_ns == -3 * NS_PER_SECOND
    wall.drift(1_000_000)  # one millisecond a second
    machine.run_for(10)
    assert wall.offset_ns == -3 * NS_PER_SECOND + 10 * NS_PER_MS
    wall.drift(-3_000_000)
    machine.run_for(10)
    assert wall.offset_ns == -3 * NS_PER_SECOND - 10 * NS_PER_MS
    wall.synchronise()
    assert wall.now_ns() == RUN_STARTS_NS + machine.clock.now


def test_what_makes_a_wall_clock_wrong_is_taken_back_alone(machine: Machine) -> None:
    wall = machine.host.wall
    jump_back = wall.jump(60 * NS_PER_SECOND)
    wall.jump(5 * NS_PER_SECOND)
    set_right = wall.drift(1_000_000)
    machine.run_for(10)
    set_right()
    assert wall.offset_ns == 65 * NS_PER_SECOND
    jump_back()
    jump_back()
    assert wall.offset_ns == 5 * NS_PER_SECOND
    wall.synchronise()
    wall.jump(NS_PER_SECOND)
    jump_back()
    set_right()
    assert wall.offset_ns == NS_PER_SECOND


def test_skews_do_not_add_up(machine: Machine) -> None:
    wall = machine.host.wall
    end_first = wall.skew(20 * NS_PER_SECOND)
    end_second = wall.skew(-30 * NS_PER_SECOND)
    assert wall.offset_ns == -30 * NS_PER_SECOND
    end_second()
    assert wall.offset_ns == 20 * NS_PER_SECOND
    end_first()
    assert wall.offset_ns == 0


def test_host_that_two_freeze_stands_still_until_both_let_it_go(machine: Machine) -> None:
    incarnation = machine.host.start(for_ever)
    thaw_long, thaw_short = machine.host.freeze(), machine.host.freeze()
    thaw_short()
    assert incarnation.paused
    thaw_long()
    assert not incarnation.paused


def test_what_froze_a_life_of_a_host_lets_the_next_one_alone(machine: Machine) -> None:
    thaw_first = machine.host.freeze()
    machine.host.start(for_ever)
    thaw_second = machine.host.freeze()
    machine.host.crash()
    incarnation = machine.host.restart()
    machine.host.freeze()
    thaw_first()
    thaw_second()
    assert incarnation.paused
