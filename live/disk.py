"""A service's own directory on a real disk (design 4.3.5).

The calls block, so each runs on a thread; what must survive a power cut is synced where the caller says so, the file
and the directory each for itself. One process at a time owns a directory: a second one is refused at the start.
"""

import asyncio
import fcntl
import os
from pathlib import Path
from typing import Final

_LOCK_NAME: Final = ".lock"


class DiskInUse(OSError):
    """Another process has the directory."""


class DirectoryDisk:
    """Implements `schema.ports.Disk` in one directory, which is created if need be.

    Raises DiskInUse when another living process has it, OSError when it cannot be used. Names are plain file names;
    those that begin with a dot are the disk's own.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._lock = os.open(directory / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            # Held as long as the process lives, however it ends.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise DiskInUse(
                f"{directory}: in use by another process; each instance needs a directory of its own"
            ) from None

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._lock)

    async def read(self, name: str) -> bytes | None:
        """The file's bytes, None when there is no such file."""
        return await asyncio.to_thread(_read, self._path(name))

    async def write(self, name: str, data: bytes) -> None:
        """Create or replace a file, unsynced."""
        await asyncio.to_thread(self._path(name).write_bytes, data)

    async def sync(self, name: str) -> None:
        """Make the file's content durable. FileNotFoundError when there is none."""
        await asyncio.to_thread(_sync, self._path(name), os.O_RDONLY)

    async def rename(self, name: str, new_name: str) -> None:
        """Atomically give the file another name, replacing what had it."""
        await asyncio.to_thread(os.replace, self._path(name), self._path(new_name))

    async def remove(self, name: str) -> None:
        """Remove the file; no error when there is none."""
        await asyncio.to_thread(self._path(name).unlink, missing_ok=True)

    async def names(self) -> list[str]:
        """The names of all files, sorted."""
        return await asyncio.to_thread(self._names)

    async def sync_names(self) -> None:
        """Make creations, renames and removals durable: fsync of the directory."""
        await asyncio.to_thread(_sync, self._directory, os.O_RDONLY | os.O_DIRECTORY)

    def _names(self) -> list[str]:
        with os.scandir(self._directory) as entries:
            return sorted(entry.name for entry in entries if entry.is_file() and not entry.name.startswith("."))

    def _path(self, name: str) -> Path:
        if not name or name.startswith(".") or "/" in name or "\0" in name:
            raise ValueError(f"not a plain file name: {name!r}")
        return self._directory / name


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
