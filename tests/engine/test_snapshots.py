"""A snapshot file is whole, of this partition and code, or it is refused (design 4.3.5)."""

import asyncio
from collections.abc import Callable

import pytest

from engine.snapshots import OUTPUT_BYTES_ABOUT, Snapshot, SnapshotStore, is_due


class MemoryDisk:
    """A disk that records what was done to it."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.done: list[str] = []

    async def read(self, name: str) -> bytes | None:
        return self.files.get(name)

    async def write(self, name: str, data: bytes) -> None:
        self.done.append("write")
        self.files[name] = data

    async def sync(self, name: str) -> None:
        assert name in self.files
        self.done.append("sync")

    async def rename(self, name: str, new_name: str) -> None:
        self.done.append("rename")
        self.files[new_name] = self.files.pop(name)

    async def remove(self, name: str) -> None:
        self.files.pop(name, None)

    async def names(self) -> list[str]:
        return sorted(self.files)

    async def sync_names(self) -> None:
        self.done.append("sync_names")


class Warnings:
    """A log of which only the warnings count."""

    def __init__(self) -> None:
        self.reasons: list[object] = []

    def warning(self, event: str, **fields: object) -> None:
        self.reasons.append(fields["reason"])

    def _ignore(self, event: str, **fields: object) -> None: ...

    debug = info = error = critical = _ignore


def snapshot(sequence: int, state: bytes = b"state") -> Snapshot:
    return Snapshot(sequence, -7, 2 * sequence, {"order.requests": 5}, 1_000, state)


@pytest.fixture
def disk() -> MemoryDisk:
    return MemoryDisk()


@pytest.fixture
def log() -> Warnings:
    return Warnings()


def store(disk: MemoryDisk, log: Warnings, partition: int = 0, code_version: int = 1) -> SnapshotStore:
    return SnapshotStore(disk, "ubscore", partition, code_version, log)


def test_what_is_saved_is_loaded(disk: MemoryDisk, log: Warnings) -> None:
    async def main() -> Snapshot | None:
        await store(disk, log).save(snapshot(5))
        (name,) = await store(disk, log).names()
        return await store(disk, log).load(name)

    assert asyncio.run(main()) == snapshot(5)
    assert log.reasons == []


def test_a_file_gets_its_name_only_when_it_is_durable(disk: MemoryDisk, log: Warnings) -> None:
    asyncio.run(store(disk, log).save(snapshot(5)))
    assert disk.done == ["write", "sync", "rename", "sync_names"]


def test_the_two_newest_are_kept_and_listed_newest_first(disk: MemoryDisk, log: Warnings) -> None:
    async def main() -> list[str]:
        for sequence in (9, 10, 100, 1_000):
            await store(disk, log).save(snapshot(sequence))
        return await store(disk, log).names()

    assert [int(name.split("-")[2].split(".")[0]) for name in asyncio.run(main())] == [1_000, 100]
    assert len(disk.files) == 2


def test_what_claims_to_be_newer_than_the_log_is_removed(disk: MemoryDisk, log: Warnings) -> None:
    async def main() -> list[str]:
        await store(disk, log).save(snapshot(500))
        await store(disk, log).save(snapshot(20))
        return await store(disk, log).names()

    assert len(asyncio.run(main())) == 1


def test_other_partitions_and_services_keep_theirs(disk: MemoryDisk, log: Warnings) -> None:
    async def main() -> None:
        for partition in (1, 11):
            for sequence in (1, 2, 3):
                await store(disk, log, partition).save(snapshot(sequence))

    asyncio.run(main())
    assert len(disk.files) == 4


def test_what_an_interrupted_save_left_aside_is_no_snapshot_and_is_cleared(disk: MemoryDisk, log: Warnings) -> None:
    async def main() -> list[str]:
        await store(disk, log).save(snapshot(1))
        (name,) = await store(disk, log).names()
        disk.files[name.replace("1.snapshot", "2.snapshot.unfinished")] = b"half"
        before = await store(disk, log).names()
        await store(disk, log).save(snapshot(3))
        return before

    assert len(asyncio.run(main())) == 1
    assert not [name for name in disk.files if name.endswith(".unfinished")]


def flip(position: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[position] ^= 1
        return bytes(changed)

    return change


@pytest.mark.parametrize(
    "change",
    [flip(0), flip(12), flip(-20), flip(-1), lambda data: data[:-1], lambda data: data[:10], lambda data: b""],
    ids=["magic", "header", "state", "checksum", "torn at the end", "torn early", "empty"],
)
def test_an_altered_file_is_refused_with_a_warning(
    disk: MemoryDisk, log: Warnings, change: Callable[[bytes], bytes]
) -> None:
    async def main() -> Snapshot | None:
        await store(disk, log).save(snapshot(5, b"a state of some length"))
        (name,) = await store(disk, log).names()
        disk.files[name] = change(disk.files[name])
        return await store(disk, log).load(name)

    assert asyncio.run(main()) is None
    assert len(log.reasons) == 1


def test_every_single_bit_counts(disk: MemoryDisk, log: Warnings) -> None:
    async def main() -> list[Snapshot | None]:
        await store(disk, log).save(snapshot(5))
        (name,) = await store(disk, log).names()
        whole = disk.files[name]
        loaded = []
        for bit in range(8 * len(whole)):
            changed = bytearray(whole)
            changed[bit // 8] ^= 1 << (bit % 8)
            disk.files[name] = bytes(changed)
            loaded.append(await store(disk, log).load(name))
        return loaded

    assert set(asyncio.run(main())) == {None}


@pytest.mark.parametrize(("partition", "code_version"), [(1, 1), (0, 2)])
def test_a_file_of_another_partition_or_code_is_refused(
    disk: MemoryDisk, log: Warnings, partition: int, code_version: int
) -> None:
    async def main() -> Snapshot | None:
        await store(disk, log).save(snapshot(5))
        (name,) = await store(disk, log).names()
        return await store(disk, log, partition, code_version).load(name)

    assert asyncio.run(main()) is None
    assert len(log.reasons) == 1


def test_a_file_that_is_gone_is_refused(disk: MemoryDisk, log: Warnings) -> None:
    assert asyncio.run(store(disk, log).load("ubscore-0-00000000000000000005.snapshot")) is None
    assert log.reasons == ["the file is gone"]


@pytest.mark.parametrize(
    ("outputs_since", "interval", "last_bytes", "due"),
    [
        (99, 100, 0, False),
        (100, 100, 0, True),
        (100, 100, 101 * OUTPUT_BYTES_ABOUT, False),
        (101, 100, 101 * OUTPUT_BYTES_ABOUT, True),
        (1_000_000, 0, 0, False),
    ],
)
def test_snapshot_is_due_at_the_interval_or_when_the_log_has_grown_by_as_much(
    outputs_since: int, interval: int, last_bytes: int, due: bool
) -> None:
    assert is_due(outputs_since, interval, last_bytes) is due


def test_snapshots_of_a_state_that_grows_with_each_output_cost_a_few_times_the_log() -> None:
    outputs, written_bytes, last_at, last_bytes = 100_000, 0, 0, 0
    for output in range(outputs):
        if is_due(output - last_at, 100, last_bytes):
            last_at, last_bytes = output, 60 * output
            written_bytes += last_bytes
    assert written_bytes < 3 * outputs * OUTPUT_BYTES_ABOUT
