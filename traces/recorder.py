"""Recording while a run goes on: one generated function per kind, packed rows, chunks of Arrow, one digest (design 6).

A run emits sixty events an order, so an event may cost well under a microsecond. Each kind gets a function of its own,
generated from its columns, that packs the row's integers, booleans and the numbers of its texts into a few bytes with
one call. A text column's values mostly repeat, so a text is its number in the order of first occurrence; what hardly
ever repeats, and bytes, are gathered in lists beside. When `CHUNK_ROWS` rows are together their bytes go into the
digest as they are, and become Arrow columns by a copy. No row object is ever made.

The digest covers every event of every kind with its place in the run (`seq`). It depends on nothing but the emitted
values: not on the process, not on hash seeds, not on the machine.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Any, Final

import numpy as np
import pandas  # noqa: F401  Arrow imports it when it first converts a list; better here than in the middle of a run
import pyarrow as pa
from xxhash import xxh3_128

from traces.kinds import FINAL_KINDS, KINDS, Columns

CHUNK_ROWS: Final = 10_000
"""Rows of one kind that are gathered before they become Arrow columns."""

ALL_KINDS: Final[dict[str, Columns]] = {**KINDS, **FINAL_KINDS}
"""Every kind that can be recorded, with its own columns."""

COMMON_COLUMNS: Final[Columns] = (("seq", "int"), ("t", "int"), ("host", "str"))
"""What stands in front of every kind's own columns."""

_DISTINCT_TEXTS: Final = frozenset(
    ("request_id", "client_order_id", "message", "detail", "fields", "assignment", "transactional_id")
)
"""Text columns that hardly ever repeat; all others are dictionary encoded, at four bytes a row."""

_DICTIONARY: Final = pa.dictionary(pa.int32(), pa.string())

Emit = Callable[..., None]
"""An emitter: `(t, host, *columns)` in the order of `traces.kinds`, of the types named there."""


class RecordingError(TypeError):
    """A service or double emitted a value that its kind's column cannot hold; the message names both."""


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
    return pa.string() if column in _DISTINCT_TEXTS else _DICTIONARY


def arrow_schema(kind: str) -> pa.Schema:
    """The Arrow schema of a kind's table."""
    return pa.schema([pa.field(name, arrow_type(name, type_)) for name, type_ in columns_of(kind)])


_PACKED: Final = {"int": ("q", "<i8"), "bool": ("B", "u1"), "text": ("i", "<i4")}
"""How a row holds a value, in the words of `struct` and of numpy: little-endian on every machine."""


class _Kind:
    """The rows of one kind: those still packed one by one, and the chunks made of earlier ones."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.columns = columns_of(name)
        self.schema = arrow_schema(name)
        self.packed: list[bytes] = []
        self.beside: dict[str, list[object]] = {}
        self.numbers: dict[str, dict[str, int]] = {}
        self.refused: list[tuple[object, ...]] = []
        self.chunks: list[pa.RecordBatch] = []
        self.rows_in_chunks = 0
        self.emit: Emit | None = None
        widths: list[tuple[str, str]] = []
        for column, type_ in self.columns:
            if pa.types.is_dictionary(self.schema.field(column).type):
                self.numbers[column] = {}
                widths.append((column, "text"))
            elif type_ in _PACKED:
                widths.append((column, type_))
            else:
                self.beside[column] = []
        # The place in the run is drawn last: a text that has no number yet must not use one up.
        widths = [*widths[1:], widths[0]]
        self.pack = struct.Struct("<" + "".join(_PACKED[width][0] for _, width in widths)).pack
        self.row_type = np.dtype([(column, _PACKED[width][1]) for column, width in widths])

    @property
    def rows(self) -> int:
        return self.rows_in_chunks + len(self.packed)

    def admit(self, row: tuple[object, ...]) -> bool:
        """Number the texts of a row that have no number yet; False when there is a value that can never be packed."""
        for (column, _), value in zip(self.columns[1:], row, strict=True):
            numbers = self.numbers.get(column)
            if numbers is not None:
                if not isinstance(value, str):
                    break
                numbers.setdefault(value, len(numbers))
        else:
            return True
        self.refused.append(row)
        return False

    def batch(self, total: xxh3_128 | None = None) -> pa.RecordBatch:
        """The rows that are in no chunk yet as Arrow columns; they are added to the digest `total`.

        Raises RecordingError when one of them holds what its column cannot.
        """
        if self.refused:
            raise self._refusal(self.refused[0])
        together = b"".join(self.packed)
        values = np.frombuffer(together, dtype=self.row_type)
        if total is not None:
            total.update(f"{self.name} {len(values)}\n".encode())
            total.update(together)
        arrays = []
        for column, type_ in self.columns:
            if column in self.numbers:
                texts = self._column(column, type_, list(self.numbers[column]), pa.string())
                array = pa.DictionaryArray.from_arrays(_contiguous(values[column]), texts)
                hashed = texts
            elif column in self.beside:
                array = hashed = self._column(column, type_, self.beside[column], self.schema.field(column).type)
            else:
                plain = _contiguous(values[column])
                array, hashed = pa.array(plain.view(bool) if type_ == "bool" else plain), None
            if total is not None and hashed is not None:
                for part in _value_bytes(hashed):
                    total.update(part)
            arrays.append(array)
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _column(self, column: str, type_: str, values: list[object], arrow: pa.DataType) -> pa.Array:
        """Texts or bytes as an Arrow array. Raises RecordingError."""
        try:
            # Arrow's own conversion refuses what is of another type.
            array = pa.array(values, arrow)
        except (TypeError, ValueError, OverflowError, pa.ArrowException) as error:
            raise self._error(column, f"not {type_}: {error}") from None
        if array.null_count and type_ != "bytes":
            raise self._error(column, "a value is missing")
        return array

    def _refusal(self, row: tuple[object, ...]) -> RecordingError:
        """Which value of a row could not be packed."""
        for (column, type_), value in zip(self.columns[1:], row, strict=True):
            if value is None and type_ != "bytes":
                return self._error(column, "a value is missing")
            try:
                pa.array([value], pa.string() if type_ == "str" else self.schema.field(column).type)
            except (TypeError, ValueError, OverflowError, pa.ArrowException) as error:
                return self._error(column, f"not {type_}: {error}")
        return RecordingError(f"kind {self.name}: a row cannot be recorded: {row!r}")

    def _error(self, column: str, why: str) -> RecordingError:
        return RecordingError(f"kind {self.name}, column {column}: {why}")


def _with_texts_of(last: pa.RecordBatch, batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same rows with the dictionaries of a later batch, which begin with this one's."""
    arrays = [
        pa.DictionaryArray.from_arrays(mine.indices, theirs.dictionary) if pa.types.is_dictionary(mine.type) else mine
        for mine, theirs in zip(batch.columns, last.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)


def _contiguous(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A column of packed rows for itself, in the machine's own byte order."""
    return values.astype(values.dtype.newbyteorder("="))


class Recorder:
    """Gathers the events of one run. Emitters append; `tables`, `counts` and `digest` may be asked at any time."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}
        self._next_seq = count().__next__
        self._hash = xxh3_128()

    def emitter(self, kind: str) -> Emit:
        """The function that records one event of `kind`. Raises KeyError for an unknown kind."""
        state = self._kind(kind)
        if state.emit is None:
            state.emit = _generate_emitter(state, self._next_seq, lambda: self._flush(state))
        return state.emit

    def counts(self) -> dict[str, int]:
        """How many events of each kind were recorded; kinds without any are there, with 0."""
        recorded = self._kinds
        return {kind: recorded[kind].rows if kind in recorded else 0 for kind in ALL_KINDS}

    def digest(self) -> str:
        """The hash over all events so far, in order, as 32 hexadecimal digits."""
        total = self._hash.copy()
        for kind in ALL_KINDS:
            state = self._kinds.get(kind)
            if state is not None and (state.packed or state.refused):
                state.batch(total)
        return total.hexdigest()

    def table(self, kind: str) -> pa.Table:
        """The events of one kind. Raises KeyError for an unknown kind."""
        state = self._kind(kind)
        batches = [*state.chunks, state.batch()] if state.packed or state.refused else state.chunks
        # A chunk's texts are the first of the last chunk's, so that all can share these.
        return pa.Table.from_batches([_with_texts_of(batches[-1], each) for each in batches], schema=state.schema)

    def tables(self) -> Mapping[str, pa.Table]:
        """Every kind's events; a kind without any is an empty table."""
        return {kind: self.table(kind) for kind in ALL_KINDS}

    def _kind(self, kind: str) -> _Kind:
        state = self._kinds.get(kind)
        if state is None:
            state = self._kinds[kind] = _Kind(kind)
        return state

    def _flush(self, state: _Kind) -> None:
        batch = state.batch(self._hash)
        state.chunks.append(batch)
        state.rows_in_chunks += batch.num_rows
        state.packed.clear()
        for values in state.beside.values():
            values.clear()


def _generate_emitter(state: _Kind, next_seq: Callable[[], int], flush: Callable[[], None]) -> Emit:
    """A function with the kind's own parameters: a wrong number of values fails where it is emitted, not later."""
    names = [name for name, _ in state.columns if name != "seq"]
    packed = []
    scope: dict[str, object] = {
        "append": state.packed.append,
        "pack": state.pack,
        "next_seq": next_seq,
        "packed": state.packed,
        "admit": state.admit,
        "refuse": state.refused.append,
        "refusals": (struct.error, TypeError),
        "flush": flush,
    }
    beside = ""
    for name, type_ in state.columns[1:]:
        if name in state.numbers:
            scope[f"number_of_{name}"] = state.numbers[name]
            packed.append(f"number_of_{name}[{name}]")
        elif name in state.beside:
            scope[f"append_{name}"] = state.beside[name].append
            beside += f"    append_{name}({name})\n"
        elif type_ == "bool":
            # Anything is true or false to `struct`; only these two are booleans.
            packed.append(f"1 if {name} is True else 0 if {name} is False else None")
        else:
            packed.append(name)
    parameters = ", ".join(names)
    source = (
        f"def emit({parameters}):\n"
        "    try:\n"
        f"        append(pack({', '.join(packed)}, next_seq()))\n"
        "    except KeyError:\n"
        f"        return emit({parameters}) if admit(({parameters},)) else None\n"
        "    except refusals:\n"
        f"        return refuse(({parameters},))\n"
        f"{beside}"
        f"    if len(packed) >= {CHUNK_ROWS}:\n"
        "        flush()\n"
    )
    # Locals of an enclosing function are faster than globals, so the source is wrapped in one that binds them.
    wrapped = f"def bind({', '.join(scope)}):\n" + "".join(f"    {line}\n" for line in source.splitlines())
    namespace: dict[str, Callable[..., Emit]] = {}
    exec(compile(wrapped + "    return emit\n", f"<emitter of {state.name}>", "exec"), {}, namespace)
    return namespace["bind"](**scope)


def _value_bytes(array: pa.Array) -> Iterator[bytes | memoryview]:
    """The bytes that determine an array's values; two equal arrays give the same, however they were allocated."""
    yield memoryview(array.is_null().to_numpy(zero_copy_only=False).tobytes())
    width = 8 if pa.types.is_large_binary(array.type) else 4
    _, offsets, data = array.buffers()
    offsets = memoryview(offsets)[: width * (len(array) + 1)]
    yield offsets
    yield memoryview(data)[: int.from_bytes(offsets[-width:], "little")] if data is not None else b""
