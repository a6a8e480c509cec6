"""What a disk keeps: everything that was synced, and some part of what was not."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schema.ports import Disk as DiskPort
from sim.clock import Clock
from sim.disk import Disk
from sim.loop import SimLoop
from sim.randomness import Stream


def new_disk() -> Disk:
    return Disk(Stream(1, "disk"))


def run(program: Coroutine[Any, Any, Any]) -> Any:
    return SimLoop(Clock()).run_until_complete(program)


async def replace_safely(disk: DiskPort, name: str, data: bytes) -> None:
    """As a service stores a snapshot: written aside, synced, renamed (design 4.3.5)."""
    await disk.write(name + ".new", data)
    await disk.sync(name + ".new")
    await disk.rename(name + ".new", name)
    await disk.sync_names()


def test_written_file_is_read_back() -> None:
    disk = new_disk()

    async def main() -> None:
        assert await disk.read("a") is None
        await disk.write("b", b"2")
        await disk.write("a", b"1")
        assert await disk.names() == ["a", "b"]
        await disk.rename("a", "b")
        assert await disk.read("b") == b"1"
        assert await disk.names() == ["b"]
        await disk.remove("b")
        await disk.remove("b")
        assert await disk.names() == []

    run(main())


def test_operations_take_simulated_time() -> None:
    disk = new_disk()

    async def main() -> float:
        await disk.write("a", b"1" * 1_000_000)
        return asyncio.get_running_loop().time()

    assert run(main()) == pytest.approx(0.00102)


def test_missing_file_cannot_be_synced_or_renamed() -> None:
    disk = new_disk()
    with pytest.raises(FileNotFoundError):
        run(disk.sync("a"))
    with pytest.raises(FileNotFoundError):
        run(disk.rename("a", "b"))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.binary(max_size=20), min_size=1, max_size=5))
def test_synced_files_survive_every_power_cut(seed: int, versions: list[bytes]) -> None:
    disk = new_disk()
    for version in versions:
        run(replace_safely(disk, "snapshot", version))
        disk.crash(Stream(seed, "cut"))
        assert run(disk.read("snapshot")) == version


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 400))
def test_interrupted_replacement_leaves_the_old_or_the_new_file(seed: int, steps: int) -> None:
    disk = new_disk()
    run(replace_safely(disk, "snapshot", b"old"))
    clock = Clock()
    loop = SimLoop(clock)
    loop.create_task(replace_safely(disk, "snapshot", b"new"))
    clock.run_until(steps * 10_000)
    loop.die()
    disk.crash(Stream(seed, "cut"))
    assert run(disk.read("snapshot")) in (b"old", b"new")


def outcomes_of_unsynced_write(sync_name: bool) -> set[bytes | None]:
    outcomes = set()
    for seed in range(200):
        disk = new_disk()

        async def main(disk: Disk = disk) -> None:
            await disk.write("a", b"old")
            await disk.sync("a")
            if sync_name:
                await disk.sync_names()
            await disk.write("a", b"newer")

        run(main())
        disk.crash(Stream(seed, "cut"))
        outcomes.add(run(disk.read("a")))
    return outcomes


def test_unsynced_write_is_kept_lost_or_torn() -> None:
    outcomes = outcomes_of_unsynced_write(sync_name=True)
    assert {b"old", b"newer", b"ne", b"ne\0\0\0"} <= outcomes
    assert None not in outcomes


def test_unsynced_name_may_be_gone() -> None:
    assert None in outcomes_of_unsynced_write(sync_name=False)


def test_names_survive_in_the_order_of_the_changes() -> None:
    for seed in range(100):
        disk = new_disk()

        async def main(disk: Disk = disk) -> None:
            for name in "abc":
                await disk.write(name, b"1")

        run(main())
        disk.crash(Stream(seed, "cut"))
        assert "".join(disk.file_names()) in ("", "a", "ab", "abc")


def test_disk_that_lies_loses_synced_writes() -> None:
    disk = new_disk()
    run(replace_safely(disk, "snapshot", b"old"))
    disk.loses_synced_writes = True
    run(replace_safely(disk, "snapshot", b"new"))
    assert run(disk.read("snapshot")) == b"new"
    disk.crash(Stream(1, "cut"))
    assert run(disk.read("snapshot")) == b"old"
    assert disk.struck["names_lost"] == 1


def test_disk_that_lies_for_two_lies_until_both_have_ended_it() -> None:
    disk = new_disk()
    end_first, end_second = disk.lie(), disk.lie()
    end_first()
    assert disk.loses_synced_writes
    end_second()
    assert not disk.loses_synced_writes


def test_corrupt_flips_one_bit_for_good() -> None:
    disk = new_disk()
    run(replace_safely(disk, "snapshot", b"content"))
    assert disk.corrupt("snapshot", Stream(1, "bit"))
    disk.crash(Stream(1, "cut"))
    found = run(disk.read("snapshot"))
    difference = int.from_bytes(found, "big") ^ int.from_bytes(b"content", "big")
    assert difference.bit_count() == 1
    assert not disk.corrupt("missing", Stream(1, "bit"))
