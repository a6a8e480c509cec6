"""Storing a trace: a folder with a manifest and one Parquet file per kind (design section 6).

A trace is written beside its place, while its run goes on, and moved there whole: a folder that exists is a folder that
is complete. Reading checks everything that it then relies on and says in one line what is wrong: TraceError.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from traces.kinds import ALL_KINDS
from traces.manifest import Manifest, TraceError, VerdictRecord, decode_manifest, encode_manifest, with_verdicts
from traces.tables import KeptTables, StoredTables, arrow_schema, columns_of, file_of
from traces.trace import Trace

MANIFEST_NAME: Final = "manifest.json"

_INTEGERS: Final = "DELTA_BINARY_PACKED"
"""How integers are stored: in two thirds of the time that compressing them takes, at half as much again."""


class TraceWriter:
    """Writes a trace chunk by chunk: the sink of a run's recorder. `finish` puts it in its place, `abandon` removes it.

    A chunk that cannot be written must not raise where it is emitted, inside somebody's service: the failure is kept,
    later chunks are forgotten, and `check` raises. Whoever carries out the run asks now and then.
    """

    def __init__(self, folder: Path | str) -> None:
        """Begin a trace that will stand in `folder`. Raises TraceError when it cannot stand there."""
        self.folder = Path(folder)
        if self.folder.exists() and not _is_replaceable(self.folder):
            raise TraceError(f"{self.folder}: exists and is not a trace; nothing was written")
        self._aside = self.folder.with_name(f".{self.folder.name}.{os.getpid()}.partial")
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
            if self.folder.exists():
                shutil.rmtree(self.folder)
            self._aside.rename(self.folder)
        except OSError as error:
            self._failure = error
            self.check()
        return self.folder

    def abandon(self) -> None:
        """Remove what was written. May be called again."""
        for file in self._files.values():
            try:
                file.close()
            except OSError:
                continue  # what could not be written cannot be closed either; it is removed all the same
        self._files.clear()
        shutil.rmtree(self._aside, ignore_errors=True)


def write_trace(folder: Path | str, manifest: Manifest, tables: Mapping[str, pa.Table]) -> Path:
    """Write a trace that is in memory to `folder`, replacing a trace that is there; returns the folder.

    Raises TraceError when the place cannot be written, or holds something that is not a trace.
    """
    writer = TraceWriter(folder)
    kept = KeptTables(tables)
    for kind in ALL_KINDS:
        writer.append(kind, kept[kind])
    return writer.finish(manifest)


def write_verdicts(folder: Path | str, verdicts: Mapping[str, VerdictRecord]) -> None:
    """Put verdicts into the manifest of a stored trace. Raises TraceError."""
    path = Path(folder) / MANIFEST_NAME
    manifest = with_verdicts(read_manifest(folder), verdicts)
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        aside.write_bytes(encode_manifest(manifest))
        aside.replace(path)
    except OSError as error:
        raise TraceError(f"{path}: cannot write the verdicts: {error.strerror or error}") from None


def read_manifest(folder: Path | str) -> Manifest:
    """The manifest of a stored trace. Raises TraceError."""
    folder = Path(folder)
    if not folder.is_dir():
        raise TraceError(f"{folder}: no such folder" if not folder.exists() else f"{folder}: not a folder")
    path = folder / MANIFEST_NAME
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise TraceError(f"{folder}: not a trace, it has no {MANIFEST_NAME}") from None
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror or error}") from None
    return decode_manifest(data, str(path))


def read_trace(folder: Path | str) -> Trace:
    """A stored trace, whose columns are read when they are looked at.

    Raises TraceError when anything of it is missing, of another format, or seen at once to be damaged; what a file
    hides in its middle is raised when it is read.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    return Trace(manifest, StoredTables(folder, manifest.counts))


def _dictionary_columns(kind: str) -> list[str]:
    return [field.name for field in arrow_schema(kind) if pa.types.is_dictionary(field.type)]


def _is_replaceable(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    names = sorted(entry.name for entry in folder.iterdir())
    return not names or MANIFEST_NAME in names
