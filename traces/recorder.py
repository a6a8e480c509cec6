"""Recording while a run goes on: one generated function per kind, flat lists, chunks of Arrow, one digest (design 6).

A run emits thirty events an order, so an event may cost well under a microsecond. Each kind gets a function of its own,
generated from its columns, that does one thing: extend a flat list by the row. When `CHUNK_ROWS` rows are together they
become Arrow columns, the columns' bytes go into the digest, and the list is emptied. No row object is ever made.

The digest covers every event of every kind with its place in the run (`seq`). It depends on nothing but the emitted
values: not on the process, not on hash seeds, not on the machine.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Final

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


class _Kind:
    """The rows of one kind: those still in a flat list, and the chunks made of earlier ones."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.columns = columns_of(name)
        self.schema = arrow_schema(name)
        self.flat: list[object] = []
        self.chunks: list[pa.RecordBatch] = []
        self.rows_in_chunks = 0
        self.emit: Emit | None = None

    @property
    def rows(self) -> int:
        return self.rows_in_chunks + len(self.flat) // len(self.columns)

    def batch(self) -> pa.RecordBatch:
        """The rows of the flat list as Arrow columns."""
        width = len(self.columns)
        arrays = []
        for index, (column, type_) in enumerate(self.columns):
            values = self.flat[index::width]
            try:
                # Arrow's own conversion refuses what numpy would silently truncate or parse (1.5, "7").
                array = pa.array(values, self.schema.field(index).type)
            except (TypeError, ValueError, OverflowError, pa.ArrowException) as error:
                raise RecordingError(f"kind {self.name}, column {column}: not {type_}: {error}") from None
            if array.null_count and type_ != "bytes":
                raise RecordingError(f"kind {self.name}, column {column}: a value is missing")
            arrays.append(array)
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


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
            if state is not None and state.flat:
                _hash_batch(total, kind, state.batch())
        return total.hexdigest()

    def table(self, kind: str) -> pa.Table:
        """The events of one kind. Raises KeyError for an unknown kind."""
        state = self._kind(kind)
        batches = [*state.chunks, state.batch()] if state.flat else state.chunks
        return pa.Table.from_batches(batches, schema=state.schema)

    def tables(self) -> Mapping[str, pa.Table]:
        """Every kind's events; a kind without any is an empty table."""
        return {kind: self.table(kind) for kind in ALL_KINDS}

    def _kind(self, kind: str) -> _Kind:
        state = self._kinds.get(kind)
        if state is None:
            state = self._kinds[kind] = _Kind(kind)
        return state

    def _flush(self, state: _Kind) -> None:
        batch = state.batch()
        _hash_batch(self._hash, state.name, batch)
        state.chunks.append(batch)
        state.rows_in_chunks += batch.num_rows
        state.flat.clear()


def _generate_emitter(state: _Kind, next_seq: Callable[[], int], flush: Callable[[], None]) -> Emit:
    """A function with the kind's own parameters: a wrong number of values fails where it is emitted, not later."""
    names = ", ".join(name for name, _ in state.columns if name != "seq")
    source = (
        f"def emit({names}):\n"
        f"    extend((next_seq(), {names}))\n"
        f"    if len(flat) >= {CHUNK_ROWS * len(state.columns)}:\n"
        "        flush()\n"
    )
    scope: dict[str, object] = {
        "extend": state.flat.extend,
        "next_seq": next_seq,
        "flat": state.flat,
        "flush": flush,
    }
    # Locals of an enclosing function are faster than globals, so the source is wrapped in one that binds them.
    wrapped = f"def bind({', '.join(scope)}):\n" + "".join(f"    {line}\n" for line in source.splitlines())
    namespace: dict[str, Callable[..., Emit]] = {}
    exec(compile(wrapped + "    return emit\n", f"<emitter of {state.name}>", "exec"), {}, namespace)
    return namespace["bind"](**scope)


def _hash_batch(total: xxh3_128, kind: str, batch: pa.RecordBatch) -> None:
    """Add a chunk to the digest: its kind, its number of rows, and its columns' values."""
    total.update(f"{kind} {batch.num_rows}\n".encode())
    for array in batch.columns:
        for part in _value_bytes(array):
            total.update(part)


def _value_bytes(array: pa.Array) -> Iterator[bytes | memoryview]:
    """The bytes that determine an array's values; two equal arrays give the same, however they were allocated."""
    if pa.types.is_dictionary(array.type):
        yield from _value_bytes(array.indices)
        yield from _value_bytes(array.dictionary)
    elif pa.types.is_integer(array.type):
        yield memoryview(array.to_numpy())
    elif pa.types.is_boolean(array.type):
        yield array.to_numpy(zero_copy_only=False).tobytes()
    else:
        yield memoryview(array.is_null().to_numpy(zero_copy_only=False).tobytes())
        width = 8 if pa.types.is_large_binary(array.type) else 4
        _, offsets, data = array.buffers()
        offsets = memoryview(offsets)[: width * (len(array) + 1)]
        yield offsets
        yield memoryview(data)[: int.from_bytes(offsets[-width:], "little")] if data is not None else b""
