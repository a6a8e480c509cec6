"""A host's disk: what was written but not synced is lost or torn when the power goes (design 4.3.5, 5 and 8).

As on a journalling file system, a file's content becomes durable when the file is synced; the creation, renaming and
removal of names when the directory is (`sync_names`), and of those that were not, some first part survives. Each
operation takes simulated time and takes effect at the end of it, so a host that dies meanwhile has not done it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from sim.clock import NS_PER_MS, NS_PER_SECOND, NS_PER_US
from sim.overlap import Overlap
from sim.randomness import Stream

CALL_NS = 20 * NS_PER_US
"""What any operation takes."""
BYTES_PER_US = 1_000
"""How fast bytes are read and written (1 GB/s)."""
SYNC_NS_MEAN = 1 * NS_PER_MS
"""What making something durable takes on average, beyond that."""


LOST = "lost"
TORN = "torn"
TORN_WITH_ZEROS = "torn_with_zeros"
KEPT = "kept"
AFTER_POWER_CUT = (LOST, TORN, TORN_WITH_ZEROS, KEPT)
"""What may be found of a file that was written to and not synced: what it was before, some first part of the new
content, that with zeros behind it, or all of it."""


class _File:
    """One file's content: as processes see it, and as it would be found after a power cut."""

    __slots__ = ("content", "durable")

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.durable = b""


class Disk:
    """Implements `schema.ports.Disk`; the rest is for faults.

    While `loses_synced_writes` is set, syncs are acknowledged and not done: the fault that breaks the assumption the
    services rest on. `next_power_cut` is one of AFTER_POWER_CUT, what becomes of every file that is not synced when the
    power goes next, empty to have it drawn for each; the name of what is to be torn survives, so that it is found.
    `struck` counts what a power cut did: lost, torn, names_lost,
    synced_lost; and corrupt.
    """

    def __init__(self, stream: Stream) -> None:
        self.loses_synced_writes = False
        self._lies = Overlap(self._set_lying)
        self.next_power_cut = ""
        self.struck: Counter[str] = Counter()
        self._stream = stream
        self._names: dict[str, _File] = {}
        self._durable_names: dict[str, _File] = {}
        # Changes to names that are not durable yet, each with the file that it is about.
        self._journal: list[tuple[Callable[[dict[str, _File]], object], _File]] = []
        self._lied_about: dict[_File, None] = {}

    # -- what services see

    async def read(self, name: str) -> bytes | None:
        """The file's bytes, None when there is no such file."""
        file = self._names.get(name)
        await self._work(len(file.content) if file else 0)
        file = self._names.get(name)
        return file.content if file else None

    async def write(self, name: str, data: bytes) -> None:
        """Create or replace a file; not durable before `sync`, and a new name not before `sync_names`."""
        await self._work(len(data))
        file = self._names.get(name)
        if file is None:
            file = _File(data)
            self._change_names(lambda names: names.__setitem__(name, file), file)
        else:
            file.content = data

    async def sync(self, name: str) -> None:
        """Make durable what has been written to the file so far. `FileNotFoundError` when there is none."""
        file = self._names.get(name)
        if file is None:
            raise FileNotFoundError(name)
        content = file.content
        await self._work(0, SYNC_NS_MEAN)
        if self.loses_synced_writes:
            self._lied_about[file] = None
        else:
            file.durable = content

    async def rename(self, name: str, new_name: str) -> None:
        """Give the file another name, replacing what had it. `FileNotFoundError` when there is no such file."""
        await self._work(0)
        if name not in self._names:
            raise FileNotFoundError(name)
        file = self._names[name]

        def change(names: dict[str, _File]) -> None:
            names.pop(name, None)
            names[new_name] = file

        self._change_names(change, file)

    async def remove(self, name: str) -> None:
        """Remove the file; no error when there is none."""
        await self._work(0)
        if name in self._names:
            self._change_names(lambda names: names.pop(name, None), self._names[name])

    async def names(self) -> list[str]:
        """The names of all files, sorted."""
        await self._work(0)
        return sorted(self._names)

    async def sync_names(self) -> None:
        """Make creations, renames and removals so far durable."""
        changes = len(self._journal)
        await self._work(0, SYNC_NS_MEAN)
        if not self.loses_synced_writes:
            for change, _ in self._journal[:changes]:
                change(self._durable_names)
            del self._journal[:changes]

    # -- faults

    def lie(self) -> Callable[[], None]:
        """Acknowledge syncs without doing them, until all that was returned is called."""
        return self._lies.begin(1)

    def crash(self, stream: Stream) -> None:
        """The power goes: of what is not durable, lose or tear what `stream` says."""
        least = self._changes_to_find_torn()
        surviving = least + stream.below(len(self._journal) - least + 1) if self._journal else 0
        if self.loses_synced_writes:
            surviving = 0
        if surviving < len(self._journal):
            self.struck["names_lost"] += 1
        for change, _ in self._journal[:surviving]:
            change(self._durable_names)
        self._journal.clear()
        for file in dict.fromkeys(self._durable_names.values()):
            if file.content != file.durable:
                file.durable = self._after_power_cut(file, stream)
                file.content = file.durable
        self._names = dict(self._durable_names)
        self._lied_about.clear()
        self.next_power_cut = ""

    def corrupt(self, name: str, stream: Stream) -> bool:
        """Flip one bit of a file, for good; False when there is no such file, or nothing in it."""
        file = self._names.get(name)
        if file is None or not file.content:
            return False
        position = stream.below(8 * len(file.content))
        flipped = bytearray(file.content)
        flipped[position // 8] ^= 1 << (position % 8)
        if file.durable == file.content:
            file.durable = bytes(flipped)
        file.content = bytes(flipped)
        self.struck["corrupt"] += 1
        return True

    def file_names(self) -> list[str]:
        """The names of all files, sorted, at once: for faults, which do not wait."""
        return sorted(self._names)

    def has_unsynced(self) -> bool:
        """Whether a file's content, or the name of one, would not survive a power cut for sure."""
        return any(
            (file.durable is not file.content and file.durable != file.content) or name not in self._durable_names
            for name, file in self._names.items()
        )

    # -- inside

    def _set_lying(self, lies: int) -> None:
        self.loses_synced_writes = bool(lies)

    def _change_names(self, change: Callable[[dict[str, _File]], object], file: _File) -> None:
        change(self._names)
        self._journal.append((change, file))

    def _changes_to_find_torn(self) -> int:
        """How many changes to names must survive, the first so many, for what is to be torn to be found."""
        if self.next_power_cut not in (TORN, TORN_WITH_ZEROS):
            return 0
        torn = {file: None for file in self._names.values() if file.content != file.durable}
        return max((number for number, (_, file) in enumerate(self._journal, 1) if file in torn), default=0)

    def _after_power_cut(self, file: _File, stream: Stream) -> bytes:
        """What is found of a file that had been written to: the content before, or a part of the new one."""
        if file in self._lied_about:
            self.struck["synced_lost"] += 1
            return file.durable
        outcome = self.next_power_cut or stream.choice(AFTER_POWER_CUT)
        if outcome == KEPT:
            return file.content
        if outcome == LOST:
            self.struck["lost"] += 1
            return file.durable
        self.struck["torn"] += 1
        kept = stream.below(len(file.content) + 1)
        # The size may have reached the disk before the content did: the rest reads as zeros.
        zeros = bytes(len(file.content) - kept) if outcome == TORN_WITH_ZEROS else b""
        return file.content[:kept] + zeros

    async def _work(self, n_bytes: int, extra_ns_mean: int = 0) -> None:
        duration_ns = CALL_NS + n_bytes * NS_PER_US // BYTES_PER_US
        if extra_ns_mean:
            duration_ns += self._stream.exponential(extra_ns_mean)
        await asyncio.sleep(duration_ns / NS_PER_SECOND)
