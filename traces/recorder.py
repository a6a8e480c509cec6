"""Recording while a run goes on: one generated function per kind, packed rows, chunks of Arrow, one digest (design 6).

A run emits eighty events an order, so an event may cost well under a microsecond. Each kind gets a function of its own,
generated from its columns, that packs the row's integers, booleans and the numbers of its texts into the next place of
a buffer with one call. A text column's values mostly repeat, so a text is its number in the order of first occurrence;
what hardly ever repeats, and bytes, are gathered in lists beside. When `CHUNK_ROWS` rows are together their bytes go
into the digest as they are, and become Arrow columns by a copy; the chunk goes to a sink, as a rule a file, or is kept.
No row object is ever made, and what a run has recorded takes no more memory than one chunk of each kind.

The digest covers every event of every kind with its place in the run (`seq`). It depends on nothing but the emitted
values: not on the process, not on hash seeds, not on the machine, not on where the chunks go. `digest_of` makes it
again from events that were stored.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from heapq import merge
from itertools import count
from math import inf
from operator import itemgetter, length_hint
from typing import Any, Final, Protocol

import numpy as np
import pandas  # noqa: F401  Arrow imports it when it first converts a list; better here than in the middle of a run
import pyarrow as pa
from xxhash import xxh3_128

from traces.kinds import ALL_KINDS, Columns
from traces.tables import KeptTables, arrow_schema, columns_of

CHUNK_ROWS: Final = 10_000
"""Rows of one kind that are gathered before they become Arrow columns. The digest depends on it."""

_FIRST_ROWS: Final = 64
"""So many rows a buffer holds at first; it doubles until it holds a chunk."""

Emit = Callable[..., None]
"""An emitter: `(t, host, *columns)` in the order of `traces.kinds`, of the types named there."""


class RecordingError(TypeError):
    """A service or double emitted a value that its kind's column cannot hold; the message names both."""


class Sink(Protocol):
    """Takes the chunks of a run, each as soon as it is whole."""

    def append(self, kind: str, chunk: pa.RecordBatch, /) -> None:
        """The next rows of a kind."""


class NoTrace:
    """A sink for runs of which only the digest is wanted."""

    def append(self, kind: str, chunk: pa.RecordBatch, /) -> None:
        """Forget it."""


_PACKED: Final = {"int": ("q", "<i8"), "bool": ("B", "u1"), "text": ("i", "<i4")}
"""How a row holds a value, in the words of `struct` and of numpy: little-endian on every machine."""


class _Kind:
    """The rows of one kind that are in no chunk yet: packed, one after the other, in a buffer."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.columns = columns_of(name)
        self.schema = arrow_schema(name)
        self.beside: dict[str, list[object]] = {}
        self.numbers: dict[str, dict[str, int]] = {}
        self.refused: list[tuple[object, ...]] = []
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
        row = struct.Struct("<" + "".join(_PACKED[width][0] for _, width in widths))
        self.pack_into = row.pack_into
        self.row_bytes = row.size
        self.row_type = np.dtype([(column, _PACKED[width][1]) for column, width in widths])
        self.buffer = bytearray(_FIRST_ROWS * row.size)
        self.places = iter(range(0, len(self.buffer), row.size))

    @property
    def waiting(self) -> int:
        """How many rows are in the buffer."""
        return len(self.buffer) // self.row_bytes - length_hint(self.places)

    @property
    def rows(self) -> int:
        return self.rows_in_chunks + self.waiting

    def rewind(self, row: int) -> Callable[[], int]:
        """Let the next row be packed as that row of the buffer; returns the function that gives the places."""
        self.places = iter(range(row * self.row_bytes, len(self.buffer), self.row_bytes))
        return self.places.__next__

    def take_back(self) -> Callable[[], int]:
        """The last place that was given has not been used."""
        return self.rewind(self.waiting - 1)

    def grow(self) -> Callable[[], int]:
        """Make room for more rows of a chunk."""
        rows = len(self.buffer) // self.row_bytes
        self.buffer.extend(bytes(min(max(rows, _FIRST_ROWS), CHUNK_ROWS - rows) * self.row_bytes))
        return self.rewind(rows)

    def shrink(self) -> None:
        """Give the buffer's memory back. No row may be in it."""
        self.buffer.clear()
        self.places = iter(range(0))

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

    def chunk(self, total: xxh3_128 | None = None) -> pa.RecordBatch:
        """The rows that are in no chunk yet as Arrow columns; they are added to the digest `total`.

        Raises RecordingError when one of them holds what its column cannot.
        """
        if self.refused:
            raise self._refusal(self.refused[0])
        values = np.frombuffer(self.buffer, dtype=self.row_type, count=self.waiting)
        arrays, beside = [], []
        for column, type_ in self.columns:
            if column in self.numbers:
                texts = self._array(column, type_, list(self.numbers[column]), pa.string())
                array = pa.DictionaryArray.from_arrays(_contiguous(values[column]), texts)
                beside.append(texts)
            elif column in self.beside:
                array = self._array(column, type_, self.beside[column], self.schema.field(column).type)
                beside.append(array)
            else:
                plain = _contiguous(values[column])
                array = pa.array(plain.view(bool) if type_ == "bool" else plain)
            arrays.append(array)
        if total is not None:
            for part in _chunk_bytes(self.name, values, beside):
                total.update(part)
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def forget(self) -> Callable[[], int]:
        """The rows in the buffer are in a chunk now."""
        self.rows_in_chunks += self.waiting
        for values in self.beside.values():
            values.clear()
        return self.rewind(0)

    def _array(self, column: str, type_: str, values: list[object], arrow: pa.DataType) -> pa.Array:
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
    """Gathers the events of one run. Emitters append; `counts` and `digest` may be asked at any time.

    Chunks go to the `sink`, the last ones in `finish`. Without a sink they are kept, and `tables` gives them.
    """

    def __init__(self, sink: Sink | None = None) -> None:
        self._kinds: dict[str, _Kind] = {}
        self._next_seq = count().__next__
        self._hash = xxh3_128()
        self._sink = sink
        self._kept: dict[str, list[pa.RecordBatch]] = {}

    def emitter(self, kind: str) -> Emit:
        """The function that records one event of `kind`. Raises KeyError for an unknown kind."""
        state = self._kind(kind)
        if state.emit is None:
            state.emit = _generate_emitter(state, self._next_seq, lambda: self._make_room(state))
        return state.emit

    def counts(self) -> dict[str, int]:
        """How many events of each kind were recorded; kinds without any are there, with 0."""
        recorded = self._kinds
        return {kind: recorded[kind].rows if kind in recorded else 0 for kind in ALL_KINDS}

    def digest(self) -> str:
        """The hash over all events so far, in order, as 32 hexadecimal digits."""
        total = self._hash.copy()
        for state in self._waiting():
            state.chunk(total)
        return total.hexdigest()

    def finish(self) -> None:
        """The run is over: what is in no chunk yet goes to the sink too. Nothing may be recorded any more."""
        for state in self._waiting():
            self._flush(state)
        for state in self._kinds.values():
            state.shrink()

    def release(self) -> None:
        """Let go of the events that are kept: those who were given them have them. The frames of dead hosts keep the
        recorder itself for ever."""
        self._kept.clear()

    def table(self, kind: str) -> pa.Table:
        """The events of one kind, where they are kept. Raises KeyError for an unknown kind."""
        if self._sink is not None:
            raise RecordingError("the events of this run were not kept: they went to the recorder's sink")
        state = self._kind(kind)
        chunks = self._kept.get(kind, [])
        chunks = [*chunks, state.chunk()] if state.waiting or state.refused else chunks
        # A chunk's texts are the first of the last chunk's, so that all can share these.
        return pa.Table.from_batches([_with_texts_of(chunks[-1], each) for each in chunks], schema=state.schema)

    def tables(self) -> KeptTables:
        """Every kind's events, where they are kept; a kind without any is an empty table."""
        return KeptTables({kind: self.table(kind) for kind in ALL_KINDS})

    def _kind(self, kind: str) -> _Kind:
        state = self._kinds.get(kind)
        if state is None:
            state = self._kinds[kind] = _Kind(kind)
        return state

    def _waiting(self) -> list[_Kind]:
        states = (self._kinds.get(kind) for kind in ALL_KINDS)
        return [state for state in states if state is not None and (state.waiting or state.refused)]

    def _make_room(self, state: _Kind) -> Callable[[], int]:
        return state.grow() if state.waiting < CHUNK_ROWS else self._flush(state)

    def _flush(self, state: _Kind) -> Callable[[], int]:
        chunk = state.chunk(self._hash)
        if self._sink is not None:
            self._sink.append(state.name, chunk)
        else:
            self._kept.setdefault(state.name, []).append(chunk)
        return state.forget()


def _generate_emitter(state: _Kind, next_seq: Callable[[], int], make_room: Callable[[], Callable[[], int]]) -> Emit:
    """A function with the kind's own parameters: a wrong number of values fails where it is emitted, not later."""
    return _binder(state.name, state.columns, frozenset(state.numbers), frozenset(state.beside))(
        _kind=state,
        _buffer=state.buffer,
        _pack_into=state.pack_into,
        _next_seq=next_seq,
        _refusals=(struct.error, TypeError),
        _make_room=make_room,
        **{f"_number_of_{name}": numbers for name, numbers in state.numbers.items()},
        **{f"_append_{name}": values.append for name, values in state.beside.items()},
    )


@cache
def _binder(kind: str, columns: Columns, numbered: frozenset[str], beside: frozenset[str]) -> Callable[..., Emit]:
    """The function that binds a kind's emitter to a run, compiled once: a process may run thousands of seeds."""
    names = [name for name, _ in columns[1:]]
    packed = []
    scope = ["_kind", "_buffer", "_pack_into", "_next_seq", "_refusals", "_make_room"]
    appended = ""
    for name, type_ in columns[1:]:
        if name in numbered:
            scope.append(f"_number_of_{name}")
            packed.append(f"_number_of_{name}[{name}]")
        elif name in beside:
            scope.append(f"_append_{name}")
            appended += f"    _append_{name}({name})\n"
        elif type_ == "bool":
            # Anything is true or false to `struct`; only these two are booleans.
            packed.append(f"1 if {name} is True else 0 if {name} is False else None")
        else:
            packed.append(name)
    parameters = ", ".join(names)
    # No column begins with an underscore. The buffer's end costs no look at each row: its
    # places come from an iterator, which has none left then.
    source = (
        "_place = _kind.places.__next__\n"
        f"def emit({parameters}):\n"
        "    nonlocal _place\n"
        "    try:\n"
        f"        _pack_into(_buffer, _place(), {', '.join(packed)}, _next_seq())\n"
        "    except StopIteration:\n"
        "        _place = _make_room()\n"
        f"        return emit({parameters})\n"
        "    except KeyError:\n"
        "        _place = _kind.take_back()\n"
        f"        return emit({parameters}) if _kind.admit(({parameters},)) else None\n"
        "    except _refusals:\n"
        "        _place = _kind.take_back()\n"
        f"        return _kind.refused.append(({parameters},))\n"
        f"{appended}"
    )
    # Locals of an enclosing function are faster than globals, so the source is wrapped in one that binds them.
    wrapped = f"def bind({', '.join(scope)}):\n" + "".join(f"    {line}\n" for line in source.splitlines())
    namespace: dict[str, Callable[..., Emit]] = {}
    exec(compile(wrapped + "    return emit\n", f"<emitter of {kind}>", "exec"), {}, namespace)
    return namespace["bind"]


def digest_of(pieces: Mapping[str, Iterable[pa.Table]]) -> str:
    """What the recorder's `digest` was, from what it recorded: each kind's rows, all columns, in pieces of any size.

    Chunks are hashed in the order in which the recorder had them whole: each before the event that begins its kind's
    next chunk, the last ones at the end. Of each kind a piece and a chunk are in memory at a time.
    """
    total = xxh3_128()
    for _, chunk in merge(*(_stored_chunks(kind, pieces[kind]) for kind in ALL_KINDS), key=itemgetter(0)):
        for part in chunk:
            total.update(part)
    return total.hexdigest()


def _stored_chunks(kind: str, pieces: Iterable[pa.Table]) -> Iterator[tuple[float, list[bytes | memoryview]]]:
    """For each chunk of a kind the event before which it was hashed, by its place in the run, and what was hashed."""
    state = _Kind(kind)
    texts: dict[str, dict[bytes, int]] = {column: {} for column in state.numbers}
    for table, hashed_before in _in_chunks(pieces):
        values = np.empty(table.num_rows, dtype=state.row_type)
        beside = []
        for column, _ in state.columns:
            array = pa.concat_arrays(table.column(column).chunks)
            if column in texts:
                # As bytes, and numbered anew: what was stored need not be UTF-8, nor in the order of first occurrence.
                encoded, numbers = array.cast(pa.binary()).dictionary_encode(), texts[column]
                found = [numbers.setdefault(text, len(numbers)) for text in encoded.dictionary.to_pylist()]
                values[column] = np.array(found)[encoded.indices.to_numpy()]
                beside.append(pa.array(list(numbers), pa.binary()))
            elif column in state.beside:
                beside.append(array)
            else:
                values[column] = array.to_numpy(zero_copy_only=False)
        yield hashed_before, [*_chunk_bytes(kind, values, beside)]


def _in_chunks(pieces: Iterable[pa.Table]) -> Iterator[tuple[pa.Table, float]]:
    """The same rows in chunks as the recorder makes them, each with the `seq` of the row that follows it."""
    rest: pa.Table | None = None
    for piece in pieces:
        rest = piece if rest is None else pa.concat_tables([rest, piece])
        while rest.num_rows > CHUNK_ROWS:
            yield rest.slice(0, CHUNK_ROWS), rest.column("seq")[CHUNK_ROWS].as_py()
            rest = rest.slice(CHUNK_ROWS)
    if rest is not None and rest.num_rows:
        yield rest, inf


def _chunk_bytes(kind: str, values: np.ndarray[Any, Any], beside: list[pa.Array]) -> Iterator[bytes | memoryview]:
    """What the digest is made of: the packed rows of a chunk, the texts that they number, and what stands beside."""
    yield f"{kind} {len(values)}\n".encode()
    yield values.view(np.uint8).data
    for array in beside:
        yield memoryview(array.is_null().to_numpy(zero_copy_only=False).tobytes())
        _, offsets, data = array.buffers()
        places = np.frombuffer(offsets, "<i8" if pa.types.is_large_binary(array.type) else "<i4")
        places = places[array.offset : array.offset + len(array) + 1]
        yield (places - places[0]).data
        yield memoryview(data)[places[0] : places[-1]] if data is not None else b""
