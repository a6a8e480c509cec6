"""A world's run depends on its seed and on nothing else, and leaves the process as it was."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sim.clock import NS_PER_MS, NS_PER_SECOND
from sim.hosts import Incarnation
from sim.world import World

ROOT = Path(__file__).parents[3]
HOSTS = 5


class Digest:
    """A recorder that keeps nothing but a hash of all events in order."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self.events = 0

    def emitter(self, kind: str, /) -> Callable[..., object]:
        def emit(*columns: object) -> None:
            self.events += 1
            self.hash.update(repr((kind, columns)).encode())

        return emit


def digest_of_a_run(seed: int) -> str:
    """Hosts that gossip over a bad network and work in task groups, while they are crashed, paused and stopped."""
    digest = Digest()
    world = World(seed, digest)
    faults = world.randomness.stream("faults")

    async def main(incarnation: Incarnation) -> None:
        log = world.log(incarnation)
        stream = world.randomness.stream(f"{incarnation.name}/{incarnation.number}")
        inbox: asyncio.Queue[str] = asyncio.Queue()
        inboxes[incarnation.name] = (incarnation, inbox)

        async def work(what: str) -> None:
            try:
                await asyncio.sleep(stream.below(2_000) / 1_000_000)
                log.info("worked", what=what)
            finally:
                log.info("work ends", what=what, others={"x", "y", what})

        while True:
            try:
                async with asyncio.timeout(0.004), asyncio.TaskGroup() as group:
                    for number in range(3):
                        group.create_task(work(f"{incarnation!r}{number}"))
                    if stream.chance_ppm(200_000):
                        raise ValueError("unlucky")
                    log.info("received", text=await inbox.get())
            except* (ValueError, TimeoutError) as group_of_errors:
                log.warning("failed", errors=[str(error) for error in group_of_errors.exceptions])
            target = f"host-{stream.below(HOSTS)}"
            world.network.send(incarnation.name, target, deliver, target, f"from {incarnation.name}")

    def deliver(target: str, text: str) -> None:
        incarnation, inbox = inboxes[target]
        incarnation.enter(inbox.put_nowait, text)

    def fault() -> None:
        host = world.host(f"host-{faults.below(HOSTS)}")
        faults.choice((host.crash, host.pause, host.resume, host.stop))()
        if not host.is_up:
            host.restart()
        world.network.lossy("*", f"host-{faults.below(HOSTS)}", faults.below(500_000))
        world.clock.after(faults.exponential(5 * NS_PER_MS), fault)

    inboxes: dict[str, tuple[Incarnation, asyncio.Queue[str]]] = {}
    with world.running():
        for number in range(HOSTS):
            world.host(f"host-{number}", "gossip").start(main)
        world.clock.after(NS_PER_MS, fault)
        world.run_until(NS_PER_SECOND // 4)
    world.close()
    assert digest.events > 500
    return digest.hash.hexdigest()


def test_one_seed_gives_one_digest_and_another_seed_another() -> None:
    assert digest_of_a_run(1) == digest_of_a_run(1)
    assert digest_of_a_run(1) != digest_of_a_run(2)


def test_digest_is_the_same_in_any_process_with_any_hash_seed() -> None:
    program = f"""
import importlib.util, sys
sys.path.insert(0, {str(ROOT)!r})
spec = importlib.util.spec_from_file_location("test_world", {__file__!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(module.digest_of_a_run(7))
"""
    digests = set()
    for hash_seed in ("0", "1", "4711"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout.strip())
    assert digests == {digest_of_a_run(7)}


def test_host_is_made_once() -> None:
    world = World(1)
    assert world.host("a", "service") is world.host("a")
    assert list(world.hosts) == ["a"]


def test_collector_is_off_while_time_moves_and_on_again_afterwards() -> None:
    world = World(1)
    with world.running():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_garbage_is_collected_at_points_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    collections: list[int] = []
    world = World(1)
    monkeypatch.setattr("sim.world.COLLECT_EVERY_EVENTS", 100)
    monkeypatch.setattr(gc, "collect", lambda: collections.append(world.clock.now))

    def tick() -> None:
        world.clock.after(NS_PER_SECOND // 60, tick)

    tick()
    world.run_until(4 * NS_PER_SECOND)
    assert collections == [2 * NS_PER_SECOND, 4 * NS_PER_SECOND]


def test_run_while_stops_with_the_condition() -> None:
    world = World(1)
    happened: list[int] = []
    world.clock.at(5 * NS_PER_SECOND, happened.append, 1)
    assert not world.run_while(lambda: not happened, 100 * NS_PER_SECOND)
    assert world.clock.now == 5 * NS_PER_SECOND
    assert world.run_while(lambda: True, 7 * NS_PER_SECOND)
    assert world.clock.now == 7 * NS_PER_SECOND


def test_time_in_which_nothing_happens_costs_nothing() -> None:
    world = World(1)
    looks: list[int] = []
    world.run_while(lambda: looks.append(world.clock.now) is None, 25 * 3600 * NS_PER_SECOND)
    assert len(looks) == 2
    assert world.clock.now == 25 * 3600 * NS_PER_SECOND


def test_closed_world_does_nothing_any_more() -> None:
    log: list[str] = []

    async def main(_: Incarnation) -> None:
        try:
            await asyncio.sleep(1)
        finally:
            log.append("woken")

    world = World(1)
    with world.running():
        world.host("a").start(main)
    world.close()
    world.close()
    world.run_until(5 * NS_PER_SECOND)
    gc.collect()
    assert log == []


def test_an_error_that_ends_a_service_is_raised_where_the_time_moves() -> None:
    async def fails() -> None:
        await asyncio.sleep(1)
        raise ValueError("boom")

    world = World(1)
    with world.running():
        world.host("a-1").start(lambda life: fails())
        world.run_until(NS_PER_SECOND // 2)
        with pytest.raises(ValueError, match="boom") as raised:
            world.run_until(2 * NS_PER_SECOND)
        assert raised.value.__notes__ == ["a-1 ended by this at 1.000000 s"]
        # Said once; and a supervisor looks after its host itself.
        ended: list[object] = []
        world.host("a-1").on_exit = lambda life, error: ended.append(error)
        world.host("a-1").restart()
        world.run_until(5 * NS_PER_SECOND)
    assert [str(each) for each in ended] == ["boom"]
    world.close()
