"""The recorded kinds of a trace as tables, in memory or in the trace's Parquet files (design section 6 and 11).

A long run's trace is larger than the memory it may use, so a stored trace is never read whole: those who look at it
name the columns that they need, and the Kafka log goes by in pieces, one for each chunk that was recorded.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from traces.kinds import ALL_KINDS, Columns
from traces.manifest import TraceError

COMMON_COLUMNS: Final[Columns] = (("seq", "int"), ("t", "int"), ("host", "str"))
"""What stands in front of every kind's own columns."""

DISTINCT_TEXTS: Final = frozenset(
    ("request_id", "client_order_id", "message", "detail", "fields", "assignment", "transactional_id")
)
"""Text columns that hardly ever repeat; all others are dictionary encoded, at four bytes a row."""

TEXT: Final = pd.StringDtype("pyarrow", na_value=np.nan)
"""Those columns in a DataFrame: twenty bytes a text, where Python's own take eighty. The others are objects, which
rows share and which need no conversion to be compared."""

_DICTIONARY: Final = pa.dictionary(pa.int32(), pa.string())


def columns_of(kind: str) -> Columns:
    """All columns of a kind, the common ones first. Raises KeyError for an unknown kind."""
    return COMMON_COLUMNS + ALL_KINDS[kind]


def arrow_type(column: str, kind: str) -> pa.DataType:
    """The Arrow type of a column of the type `kind` (int, str, bytes or bool)."""
    if kind == "int":
        return pa.int64()
    if kind == "bool":
        return pa.bool_()
    if kind == "bytes":
        return pa.large_binary()
    return pa.string() if column in DISTINCT_TEXTS else _DICTIONARY


def arrow_schema(kind: str) -> pa.Schema:
    """The Arrow schema of a kind's table."""
    return pa.schema([pa.field(name, arrow_type(name, type_)) for name, type_ in columns_of(kind)])


class Tables(Mapping[str, pa.Table]):
    """Every kind's events by its name; a kind without any is an empty table."""

    def count(self, kind: str) -> int:
        """How many events of a kind there are. Raises KeyError for an unknown kind."""
        raise NotImplementedError

    def read(self, kind: str, columns: Sequence[str]) -> pa.Table:
        """Some columns of a kind. Raises KeyError for an unknown kind, TraceError when its file is damaged."""
        raise NotImplementedError

    def pieces(self, kind: str, columns: Sequence[str], wanted: Sequence[int] | None = None) -> Iterator[pa.Table]:
        """Some columns of a kind, a bounded number of rows at a time, in order: all pieces, or those `wanted`."""
        raise NotImplementedError


class KeptTables(Tables):
    """Tables in memory."""

    def __init__(self, tables: Mapping[str, pa.Table]) -> None:
        self._tables = dict(tables)

    def __getitem__(self, kind: str) -> pa.Table:
        table = self._tables.get(kind)
        return arrow_schema(kind).empty_table() if table is None else table

    def __iter__(self) -> Iterator[str]:
        return iter(ALL_KINDS)

    def __len__(self) -> int:
        return len(ALL_KINDS)

    def count(self, kind: str) -> int:
        return int(self[kind].num_rows)

    def read(self, kind: str, columns: Sequence[str]) -> pa.Table:
        return self[kind].select(list(columns))

    def pieces(self, kind: str, columns: Sequence[str], wanted: Sequence[int] | None = None) -> Iterator[pa.Table]:
        table = self[kind]
        batches = table.select(list(columns)).to_batches()
        for number in range(len(batches)) if wanted is None else wanted:
            yield pa.Table.from_batches([batches[number]])


class StoredTables(Tables):
    """Tables in a trace's folder, each looked at once, for what it has, and read when asked for.

    Raises TraceError when a file is missing, damaged, or has not the columns and the number of rows that it should.
    """

    def __init__(self, folder: Path, counts: Mapping[str, int]) -> None:
        self._folder = folder
        self._counts = {kind: counts.get(kind, 0) for kind in ALL_KINDS}
        self._metadata: dict[str, pq.FileMetaData] = {}
        for kind, counted in self._counts.items():
            with self._open(kind) as file:
                _check_columns(file, kind, self.path(kind))
                self._metadata[kind] = file.metadata
                if file.metadata.num_rows != counted:
                    raise TraceError(f"{self.path(kind)}: {file.metadata.num_rows} rows, the manifest counts {counted}")

    def path(self, kind: str) -> Path:
        """The file of a kind."""
        return file_of(self._folder, kind)

    def __getitem__(self, kind: str) -> pa.Table:
        return self.read(kind, [name for name, _ in columns_of(kind)])

    def __iter__(self) -> Iterator[str]:
        return iter(ALL_KINDS)

    def __len__(self) -> int:
        return len(ALL_KINDS)

    def count(self, kind: str) -> int:
        return self._counts[kind]

    def read(self, kind: str, columns: Sequence[str]) -> pa.Table:
        if not self._counts[kind]:
            return arrow_schema(kind).empty_table().select(list(columns))
        with self._open(kind) as file:
            try:
                return file.read(columns=list(columns), use_threads=False).select(list(columns))
            except _DAMAGE as error:
                raise _unreadable(self.path(kind), error) from None

    def pieces(self, kind: str, columns: Sequence[str], wanted: Sequence[int] | None = None) -> Iterator[pa.Table]:
        if not self._counts[kind]:
            return
        with self._open(kind) as file:
            for number in range(file.num_row_groups) if wanted is None else wanted:
                try:
                    piece = file.read_row_group(number, columns=list(columns), use_threads=False)
                except _DAMAGE as error:
                    raise _unreadable(self.path(kind), error) from None
                yield piece.select(list(columns))

    def _open(self, kind: str) -> pq.ParquetFile:
        path = self.path(kind)
        if not path.is_file():
            raise TraceError(f"{path}: missing from the trace")
        if path.stat().st_size == 0:
            raise TraceError(f"{path}: empty file")
        try:
            return pq.ParquetFile(path, metadata=self._metadata.get(kind), page_checksum_verification=True)
        except _DAMAGE as error:
            raise _unreadable(path, error) from None


def file_of(folder: Path, kind: str) -> Path:
    """Where a trace keeps a kind."""
    return folder / f"{kind}.parquet"


_DAMAGE: Final = (pa.ArrowException, OSError, ValueError)


def _unreadable(path: Path, error: BaseException) -> TraceError:
    first_line = (str(error).splitlines() or ["damaged"])[0]
    return TraceError(f"{path}: not a readable Parquet file: {first_line}")


def _check_columns(file: pq.ParquetFile, kind: str, path: Path) -> None:
    found = file.schema_arrow
    for field in arrow_schema(kind):
        if field.name not in found.names:
            raise TraceError(f"{path}: column {field.name} is missing")
        type_ = found.field(field.name).type
        if _plain(type_) != _plain(field.type):
            raise TraceError(f"{path}: column {field.name} is {type_}, expected {field.type}")


def _plain(type_: pa.DataType) -> pa.DataType:
    """What a column holds, whether or not it is dictionary encoded."""
    return type_.value_type if pa.types.is_dictionary(type_) else type_
