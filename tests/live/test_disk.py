from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engine.snapshots import Snapshot, SnapshotStore
from live.disk import DirectoryDisk, DiskInUse
from live.log import make_log


def test_a_file_is_read_as_it_was_written_and_renamed(tmp_path: Path) -> None:
    async def use() -> None:
        disk = DirectoryDisk(tmp_path / "new" / "place")
        await disk.write("a.unfinished", b"first")
        await disk.write("a.unfinished", b"second")
        await disk.sync("a.unfinished")
        await disk.write("a", b"old")
        await disk.rename("a.unfinished", "a")
        await disk.sync_names()
        assert await disk.names() == ["a"]
        assert await disk.read("a") == b"second"
        await disk.remove("a")
        await disk.remove("a")
        assert await disk.read("a") is None
        assert await disk.names() == []

    asyncio.run(use())


@pytest.mark.parametrize("name", ["", ".", "..", ".lock", "../a", "a/b", "/etc/a", "a\0b"])
def test_names_that_are_not_plain_are_refused(tmp_path: Path, name: str) -> None:
    disk = DirectoryDisk(tmp_path)
    with pytest.raises(ValueError, match="not a plain file name"):
        asyncio.run(disk.write(name, b""))


def test_syncing_or_renaming_what_is_not_there_says_so(tmp_path: Path) -> None:
    disk = DirectoryDisk(tmp_path)
    with pytest.raises(FileNotFoundError):
        asyncio.run(disk.sync("a"))
    with pytest.raises(FileNotFoundError):
        asyncio.run(disk.rename("a", "b"))


def test_a_directory_belongs_to_one_owner_until_it_lets_go(tmp_path: Path) -> None:
    disk = DirectoryDisk(tmp_path)
    with pytest.raises(DiskInUse, match="in use by another process"):
        DirectoryDisk(tmp_path)
    disk.close()
    DirectoryDisk(tmp_path).close()


def test_snapshots_are_kept_and_found_again_by_the_next_life(tmp_path: Path) -> None:
    async def use() -> None:
        log = make_log("json", "critical")
        disk = DirectoryDisk(tmp_path)
        store = SnapshotStore(disk, "ubscore", 0, 1, log)
        for sequence in (10, 20, 30):
            await store.save(Snapshot(sequence, 7, sequence, {"order.requests": 5}, 1, b"state"))
        disk.close()
        again = SnapshotStore(DirectoryDisk(tmp_path), "ubscore", 0, 1, log)
        names = await again.names()
        assert [name.endswith(f"{sequence:020d}.snapshot") for name, sequence in zip(names, (30, 20), strict=True)]
        newest = await again.load(names[0])
        assert newest is not None
        assert (newest.sequence, newest.state) == (30, b"state")

    asyncio.run(use())
