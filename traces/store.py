"""Storing a trace: a folder with a manifest and one Parquet file per kind (design section 6).

A trace is written beside its place, while its run goes on, and moved there whole: a folder that exists is a folder that
is complete. A trace that is there already is replaced, anything else never. Reading checks everything that it then
relies on, the digest too, and says in one line what is wrong: TraceError.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from traces.kinds import ALL_KINDS
from traces.manifest import Manifest, TraceError, VerdictRecord, decode_manifest, encode_manifest, with_verdicts
from traces.recorder import digest_of
from traces.tables import KeptTables, StoredTables, arrow_schema, columns_of, file_of
from traces.trace import Trace

MANIFEST_NAME: Final = "manifest.json"

_NAMES: Final = frozenset((MANIFEST_NAME, *(file_of(Path(), kind).name for kind in ALL_KINDS)))
"""The files of a trace. All others in its folder are somebody's own: notes, a plot."""

_INTEGERS: Final = "DELTA_BINARY_PACKED"
"""How integers are stored: in two thirds of the time that compressing them takes, at half as much again."""


class TraceWriter:
    """Writes a trace chunk by chunk: the sink of a run's recorder. `finish` puts it in its place, `abandon` removes it.

    A chunk that cannot be written must not raise where it is emitted, inside somebody's service: the failure is kept,
    later chunks are forgotten, and `check` raises. Whoever carries out the run asks now and then.
    """

    def __init__(self, folder: Path | str) -> None:
        """Begin a trace that will stand in `folder`. Raises TraceError when it cannot stand there."""
        check_place(folder)
        self.folder = Path(folder)
        # Where a link leads: that folder is replaced, the link stays.
        self._place = Path(os.path.realpath(folder))
        self._aside = self._beside("partial")
        self._failure: OSError | None = None
        self._files: dict[str, pq.ParquetWriter] = {}
        self._counts = dict.fromkeys(ALL_KINDS, 0)
        try:
            if self._aside.exists():
                shutil.rmtree(self._aside)
            self._aside.mkdir(parents=True)
            for kind in ALL_KINDS:
                integers = [name for name, type_ in columns_of(kind) if type_ == "int"]
                self._files[kind] = pq.ParquetWriter(
                    file_of(self._aside, kind), arrow_schema(kind), compression="none", write_statistics=False,
                    use_dictionary=_dictionary_columns(kind), column_encoding=dict.fromkeys(integers, _INTEGERS),
                    write_page_checksum=True,
                )  # fmt: skip
        except OSError as error:
            self._failure = error
            self.check()

    def append(self, kind: str, chunk: pa.RecordBatch | pa.Table) -> None:
        """Write the next rows of a kind, in a row group of their own."""
        if self._failure is None and chunk.num_rows:
            try:
                self._files[kind].write(chunk, row_group_size=chunk.num_rows)
            except OSError as error:
                self._failure = error
            self._counts[kind] += chunk.num_rows

    def check(self) -> None:
        """Raises TraceError, and removes what was written, when something could not be written."""
        if self._failure is not None:
            error = self._failure
            self.abandon()
            raise TraceError(f"{self.folder}: cannot write the trace: {error.strerror or error}") from None

    def finish(self, manifest: Manifest) -> Path:
        """Put the trace in its place, replacing a trace that is there; returns the folder.

        Counts are taken from what was written. Raises TraceError.
        """
        self.check()
        try:
            for file in self._files.values():
                file.close()
            complete = msgspec.structs.replace(manifest, counts=self._counts)
            (self._aside / MANIFEST_NAME).write_bytes(encode_manifest(complete))
            self._take_place()
        except OSError as error:
            self._failure = error
            self.check()
        return self.folder

    def abandon(self) -> None:
        """Remove what was written. May be called again."""
        for file in self._files.values():
            # What could not be written cannot be closed either; it is removed all the same.
            with suppress(OSError, pa.ArrowException):
                file.close()
        self._files.clear()
        shutil.rmtree(self._aside, ignore_errors=True)

    def _take_place(self) -> None:
        """Move the trace to its place. What is there makes way as a whole, and comes back when that fails."""
        if not self._place.is_dir():
            self._aside.rename(self._place)
            return
        before = self._place.rename(self._beside("replaced"))
        try:
            self._aside.rename(self._place)
        except OSError:
            before.rename(self._place)
            raise
        # Somebody may have put notes there since `check_place`.
        for name in _not_of_a_trace(before):
            (before / name).rename(self._place / name)
        shutil.rmtree(before, ignore_errors=True)

    def _beside(self, what: str) -> Path:
        return self._place.parent / f".{self._place.name}.{os.getpid()}.{what}"


def check_place(folder: Path | str) -> None:
    """Raises TraceError when a trace cannot stand in `folder`, as far as it can be known before anything is done."""
    try:
        place = Path(os.path.realpath(folder))
        str(place).encode()
        if not os.path.lexists(place):
            return
        is_empty_or_trace = place.is_dir() and (not any(place.iterdir()) or (place / MANIFEST_NAME).is_file())
        others = _not_of_a_trace(place) if is_empty_or_trace else []
        is_where_we_are = Path.cwd().is_relative_to(place)
    except UnicodeEncodeError:
        raise TraceError(f"{str(folder)!r}: a trace's path must be UTF-8; nothing was written") from None
    except OSError as error:
        raise TraceError(f"{folder}: cannot write the trace: {error.strerror or error}") from None
    if not is_empty_or_trace:
        raise TraceError(f"{folder}: exists and is not a trace; nothing was written")
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise TraceError(f"{folder}: a trace with {others[0]!r}{more} in it: move what is yours; nothing was written")
    if is_where_we_are:
        raise TraceError(f"{folder}: the current folder cannot be replaced by a trace; nothing was written")


def write_trace(folder: Path | str, manifest: Manifest, tables: Mapping[str, pa.Table]) -> Path:
    """Write a trace that is in memory to `folder`, replacing a trace that is there; returns the folder.

    A manifest without a digest gets that of the tables. Raises TraceError when the place cannot be written, or holds
    something that is not a trace.
    """
    writer = TraceWriter(folder)
    kept = KeptTables(tables)
    try:
        if not manifest.digest:
            manifest = msgspec.structs.replace(manifest, digest=digest_of({kind: [kept[kind]] for kind in ALL_KINDS}))
        for kind in ALL_KINDS:
            writer.append(kind, kept[kind])
        return writer.finish(manifest)
    except BaseException:
        writer.abandon()
        raise


def write_verdicts(folder: Path | str, verdicts: Mapping[str, VerdictRecord]) -> None:
    """Put verdicts into the manifest of a stored trace. Raises TraceError."""
    path = Path(folder) / MANIFEST_NAME
    manifest = with_verdicts(read_manifest(folder), verdicts)
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        aside.write_bytes(encode_manifest(manifest))
        aside.replace(path)
    except OSError as error:
        with suppress(OSError):
            aside.unlink()
        raise TraceError(f"{path}: cannot write the verdicts: {error.strerror or error}") from None


def read_manifest(folder: Path | str) -> Manifest:
    """The manifest of a stored trace. Raises TraceError."""
    folder = Path(folder)
    path = folder / MANIFEST_NAME
    try:
        if not folder.is_dir():
            raise TraceError(f"{folder}: not a folder" if folder.exists() else f"{folder}: no such folder")
        data = path.read_bytes()
    except FileNotFoundError:
        raise TraceError(f"{folder}: not a trace, it has no {MANIFEST_NAME}") from None
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror or error}") from None
    return decode_manifest(data, str(path))


def read_trace(folder: Path | str) -> Trace:
    """A stored trace, whose columns are read when they are looked at.

    Raises TraceError when anything of it is missing, of another format or damaged, or not what its run recorded: all of
    it is read once, piece by piece, for the digest. That takes a fiftieth of the time of the run.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    tables = StoredTables(folder, manifest.counts)
    if digest_of({kind: _without_nulls(tables, kind) for kind in ALL_KINDS}) != manifest.digest:
        raise TraceError(f"{folder}: the digest of its events is not the manifest's: one or the other was changed")
    return Trace(manifest, tables)


def _without_nulls(tables: StoredTables, kind: str) -> Iterator[pa.Table]:
    """The pieces of a kind. Raises TraceError for a null: only bytes, a record's key or value, may be missing."""
    columns = columns_of(kind)
    for piece in tables.pieces(kind, [name for name, _ in columns]):
        for name, type_ in columns:
            if type_ != "bytes" and piece.column(name).null_count:
                raise TraceError(f"{tables.path(kind)}: column {name} has nulls")
        yield piece


def _dictionary_columns(kind: str) -> list[str]:
    return [field.name for field in arrow_schema(kind) if pa.types.is_dictionary(field.type)]


def _not_of_a_trace(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.name not in _NAMES or entry.is_dir())
