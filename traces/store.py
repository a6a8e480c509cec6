"""Storing a trace: a folder with a manifest and one Parquet file per kind (design section 6).

A trace is written beside its place and moved there whole, so a folder that exists is a folder that is complete.
Reading checks everything that it then relies on and says in one line what is wrong: TraceError.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from traces.manifest import Manifest, TraceError, VerdictRecord, decode_manifest, encode_manifest, with_verdicts
from traces.recorder import ALL_KINDS, arrow_schema
from traces.trace import Trace

MANIFEST_NAME: Final = "manifest.json"

_COMPRESSION: Final = "lz4"


def write_trace(folder: Path | str, manifest: Manifest, tables: Mapping[str, pa.Table]) -> Path:
    """Write a trace to `folder`, replacing a trace that is there; returns the folder.

    Counts are taken from the tables. Raises TraceError when the place cannot be written, or holds something that is
    not a trace.
    """
    folder = Path(folder)
    if folder.exists() and not _is_replaceable(folder):
        raise TraceError(f"{folder}: exists and is not a trace; nothing was written")
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        if aside.exists():
            shutil.rmtree(aside)
        aside.mkdir(parents=True)
        counts = {}
        for kind in ALL_KINDS:
            table = tables.get(kind)
            if table is None:
                table = arrow_schema(kind).empty_table()
            counts[kind] = table.num_rows
            pq.write_table(
                table, aside / f"{kind}.parquet", compression=_COMPRESSION, use_dictionary=_dictionary_columns(kind),
                write_statistics=False,
            )  # fmt: skip
        complete = msgspec.structs.replace(manifest, counts=counts)
        (aside / MANIFEST_NAME).write_bytes(encode_manifest(complete))
        if folder.exists():
            shutil.rmtree(folder)
        aside.rename(folder)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise TraceError(f"{folder}: cannot write the trace: {error.strerror or error}") from None
    return folder


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
    """A stored trace. Raises TraceError when anything of it is missing, damaged, or of another format."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    tables = {}
    for kind in ALL_KINDS:
        tables[kind] = table = _read_table(folder / f"{kind}.parquet", kind)
        counted = manifest.counts.get(kind, 0)
        if table.num_rows != counted:
            raise TraceError(f"{folder / f'{kind}.parquet'}: {table.num_rows} rows, the manifest counts {counted}")
    return Trace(manifest, tables)


def _read_table(path: Path, kind: str) -> pa.Table:
    if not path.is_file():
        raise TraceError(f"{path}: missing from the trace")
    if path.stat().st_size == 0:
        raise TraceError(f"{path}: empty file")
    try:
        table = pq.read_table(path, partitioning=None)
    except (pa.ArrowException, OSError, ValueError) as error:
        first_line = (str(error).splitlines() or ["damaged"])[0]
        raise TraceError(f"{path}: not a readable Parquet file: {first_line}") from None
    expected = arrow_schema(kind)
    for field in expected:
        if field.name not in table.column_names:
            raise TraceError(f"{path}: column {field.name} is missing")
        found = table.schema.field(field.name).type
        if _plain(found) != _plain(field.type):
            raise TraceError(f"{path}: column {field.name} is {found}, expected {field.type}")
    return table.select(expected.names)


def _plain(type_: pa.DataType) -> pa.DataType:
    """What a column holds, whether or not it is dictionary encoded."""
    return type_.value_type if pa.types.is_dictionary(type_) else type_


def _dictionary_columns(kind: str) -> list[str]:
    return [field.name for field in arrow_schema(kind) if pa.types.is_dictionary(field.type)]


def _is_replaceable(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    names = sorted(entry.name for entry in folder.iterdir())
    return not names or MANIFEST_NAME in names
