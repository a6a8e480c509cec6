"""Snapshot files: a partition's committed state on the service's own disk (design 4.3.5).

    file  = magic | length of header (4 bytes, big-endian) | header (msgpack) | state | xxh3_64 of all before (8 bytes)

A file is written aside, synced, renamed, and the names are synced, so a file under its final name is whole on a disk
that keeps what it has synced. Disks do not always: whatever is torn, altered, of another format, code or partition is
refused with a warning, and the one before it is tried. Two are kept for that.

A snapshot is only a shortcut. Whether it belongs to the log is decided by whoever compares its hash with the committed
record of its sequence (`engine.takeover`).
"""

from dataclasses import dataclass
from typing import Final

import msgspec
from xxhash import xxh3_64_digest

from schema.ports import Disk, Log

FORMAT_VERSION: Final = 1
SNAPSHOTS_KEPT: Final = 2

_MAGIC: Final = b"EXSNAPSH"
_LENGTH_BYTES: Final = 4
_CHECKSUM_BYTES: Final = 8
_SUFFIX: Final = ".snapshot"
_ASIDE: Final = ".unfinished"


class _Header(msgspec.Struct, array_like=True, frozen=True):
    format_version: int
    code_version: int
    service: str
    partition: int
    sequence: int
    hash: int
    output_offset: int
    next_offsets: list[tuple[str, int]]
    taken_at_ns: int


_encode = msgspec.msgpack.Encoder().encode
_decode_header = msgspec.msgpack.Decoder(_Header).decode


@dataclass(frozen=True)
class Snapshot:
    """Committed state after the output record with this sequence and hash, which stands at `output_offset`.

    `next_offsets` is where each input topic is to be read on; a topic that is missing is read from its beginning.
    `taken_at_ns` is the host's wall clock, for whoever looks at the file; nothing depends on it.
    """

    sequence: int
    hash: int
    output_offset: int
    next_offsets: dict[str, int]
    taken_at_ns: int
    state: bytes


OUTPUT_BYTES_ABOUT: Final = 256
"""What an output takes in the log, about."""


def is_due(outputs_since: int, interval_outputs: int, last_snapshot_bytes: int) -> bool:
    """Whether a snapshot should follow so many outputs after the last one, which took so many bytes.

    Not before the log has grown by about as much as a snapshot takes: the balance core's remembers every request of a
    day, so snapshots at a fixed interval would cost the square of the day's requests. So written, all snapshots of a
    partition together cost a few times its log, and a restart replays no more than it reads as a snapshot.
    An interval of 0 means never.
    """
    return interval_outputs > 0 and outputs_since >= max(interval_outputs, last_snapshot_bytes // OUTPUT_BYTES_ABOUT)


class SnapshotStore:
    """The snapshots of one partition. `code_version` says what the bytes of the state mean."""

    def __init__(self, disk: Disk, service: str, partition: int, code_version: int, log: Log) -> None:
        self._disk = disk
        self._service = service
        self._partition = partition
        self._code_version = code_version
        self._log = log
        self._prefix = f"{service}-{partition}-"

    async def save(self, snapshot: Snapshot) -> None:
        """Make a snapshot durable, then remove all but the newest. Raises OSError when the disk does."""
        name = self._name(snapshot.sequence)
        aside = name + _ASIDE
        await self._disk.write(aside, self._encode(snapshot))
        await self._disk.sync(aside)
        await self._disk.rename(aside, name)
        await self._disk.sync_names()
        await self._remove_all_but_newest(name)

    async def names(self) -> list[str]:
        """The names of the snapshots there are, newest first."""
        return [
            name
            for name in sorted(await self._disk.names(), reverse=True)
            if name.startswith(self._prefix) and name.endswith(_SUFFIX)
        ]

    async def load(self, name: str) -> Snapshot | None:
        """Read one. None, with a warning in the log, when it is not a whole snapshot of this partition and code."""
        data = await self._disk.read(name)
        try:
            return self._decode(data)
        except ValueError as error:
            self._log.warning("snapshot refused", name=name, reason=str(error))
            return None

    def _name(self, sequence: int) -> str:
        # Of fixed width, so that names sort as sequences do.
        return f"{self._prefix}{sequence:020d}{_SUFFIX}"

    async def _remove_all_but_newest(self, newest: str) -> None:
        """Also what claims to be newer: the log is known to end where the newest does, so it is of no log of ours."""
        kept = 0
        for name in sorted(await self._disk.names(), reverse=True):
            if not name.startswith(self._prefix):
                continue
            if name.endswith(_SUFFIX) and name <= newest and kept < SNAPSHOTS_KEPT:
                kept += 1
            else:
                await self._disk.remove(name)

    def _encode(self, snapshot: Snapshot) -> bytes:
        header = _encode(
            _Header(
                FORMAT_VERSION,
                self._code_version,
                self._service,
                self._partition,
                snapshot.sequence,
                snapshot.hash,
                snapshot.output_offset,
                sorted(snapshot.next_offsets.items()),
                snapshot.taken_at_ns,
            )
        )
        body = _MAGIC + len(header).to_bytes(_LENGTH_BYTES, "big") + header + snapshot.state
        return body + xxh3_64_digest(body)

    def _decode(self, data: bytes | None) -> Snapshot:
        """Raises ValueError with the reason when the bytes are not such a snapshot."""
        if data is None:
            raise ValueError("the file is gone")
        if not data.startswith(_MAGIC):
            raise ValueError("it does not begin as a snapshot does")
        body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
        if xxh3_64_digest(body) != checksum:
            raise ValueError("its checksum does not match: it is torn or altered")
        start = len(_MAGIC) + _LENGTH_BYTES
        end = start + int.from_bytes(body[len(_MAGIC) : start], "big")
        try:
            header = _decode_header(body[start:end])
        except msgspec.DecodeError as error:
            raise ValueError(f"its header does not decode: {error}") from None
        if header.format_version != FORMAT_VERSION:
            raise ValueError(f"format version {header.format_version}, this code reads {FORMAT_VERSION}")
        if header.code_version != self._code_version:
            raise ValueError(f"code version {header.code_version}, this is {self._code_version}")
        if (header.service, header.partition) != (self._service, self._partition):
            raise ValueError(f"it is of {header.service} partition {header.partition}")
        return Snapshot(
            header.sequence,
            header.hash,
            header.output_offset,
            dict(header.next_offsets),
            header.taken_at_ns,
            body[end:],
        )
