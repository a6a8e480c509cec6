"""Tables derived from the records in Kafka: what the services said, decoded once into columns (design 1.4 and 6).

The bytes in the log are the evidence; everything here follows from them, for a simulated run and for a live system
alike. Each record is decoded with the contract's own codec. What does not decode is a row of `undecodable`.

Columns of the tables. `partition`, `offset` and `t` (ns of the run at which the leader appended it) say where a row was
found; a *command* is place, cancel, reduce, replace, deposit or withdraw with the columns of COMMAND_COLUMNS.

    requests         partition offset t, command columns                                            order.requests
    validated        partition offset t source_partition source_sequence link_seq, command columns  validated.orders
    responses        partition offset t, schema.events.OrderResponse                                order.responses
    outputs          OUTPUT_COLUMNS, command columns                                                engine.outputs
    order_events     ORDER_EVENT_COLUMNS: every placement, update, completion, refusal              engine.outputs
    trades           TRADE_COLUMNS                                                                  engine.outputs
    fund_updates     FUND_UPDATE_COLUMNS: one for each user touched by an output                    engine.outputs
    fund_entries     FUND_ENTRY_COLUMNS: the entries of those                                       engine.outputs
    sent_updates     partition offset t, and FundUpdate's own columns                               fund.updates
    balance_events   BALANCE_EVENT_COLUMNS, command columns                                         balance.events
    ledger_entries   LEDGER_ENTRY_COLUMNS                                                           balance.events
    dead_letters     partition offset t, DeadLetter's topic, partition, offset (source_*), reason   dead.letters
    undecodable      topic partition offset reason                                                  any
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cache, cached_property
from itertools import chain
from sys import intern
from types import GenericAlias
from typing import Any, Final, get_args, get_origin

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from msgspec.structs import astuple
from xxhash import xxh3_64_digest

from schema import topics, wire
from schema.codes import OrderType
from schema.events import (
    AnyRequest,
    BalanceEvent,
    CancelOrder,
    DeadLetter,
    Deposit,
    EngineOutput,
    FundEntry,
    FundUpdate,
    LedgerEntry,
    OrderCommand,
    OrderResponse,
    OrderState,
    PlaceOrder,
    ReduceOrder,
    ReplaceOrder,
    Request,
    Trade,
    ValidatedOrder,
    Withdraw,
)
from schema.identifiers import INT64_MAX
from traces.frames import assembled, frame_of
from traces.tables import DISTINCT_TEXTS, Tables

PLACEMENT, UPDATE, COMPLETION, REFUSAL = 0, 1, 2, 3
EVENT_NAMES: Final = ("placement", "update", "completion", "refusal")
"""`event` of an order event, by number."""

_PLACE: Final = ("partition", "offset", "t")
STATE_COLUMNS: Final = OrderState.__struct_fields__
COMMAND_COLUMNS: Final = (
    "command", "request_id", "user_id", "requested_at_ns", "order_id", "symbol_id", "replaced_order_id", "side",
    "order_type", "time_in_force", "price", "quantity", "max_spend", "asset_id", "amount",
)  # fmt: skip
VALIDATED_COLUMNS: Final = (*_PLACE, "source_partition", "source_sequence", "link_seq")
RESPONSE_COLUMNS: Final = (*_PLACE, *OrderResponse.__struct_fields__)
OUTPUT_COLUMNS: Final = (
    *_PLACE, "symbol_partition", "output_seq", "prev_hash", "hash", "input_topic", "input_partition", "input_offset",
    "source_partition", "source_sequence", "link_seq", "time_ns", "order_events", "trades",
)  # fmt: skip
"""`order_events` and `trades` count what the output holds of them."""
ORDER_EVENT_COLUMNS: Final = (*_PLACE, "output_seq", "position", "event", *STATE_COLUMNS)
"""`position` counts the events of an output from 0: placements, updates, completions, refusals."""
TRADE_COLUMNS: Final = (*_PLACE, "output_seq", "position", "time_ns", *Trade.__struct_fields__)
FUND_UPDATE_COLUMNS: Final = (
    *_PLACE, "output_seq", "link_seq", "time_ns", "user_id", "request_id", "verdict", "reason", "order_id", "entries",
)  # fmt: skip
FUND_ENTRY_COLUMNS: Final = (
    *_PLACE, "output_seq", "user_id", "order_id", "asset_id", "kind", "available_delta", "locked_delta",
)  # fmt: skip
SENT_UPDATE_COLUMNS: Final = (
    *_PLACE, "symbol_partition", "output_seq", "link_seq", "time_ns", "user_id", "request_id", "verdict", "reason",
    "order_id", "entries",
)  # fmt: skip
BALANCE_EVENT_COLUMNS: Final = (
    *_PLACE, "user_partition", "sequence", "prev_hash", "hash", "input_topic", "input_partition", "input_offset",
    "time_ns", "event_user_id", "body_hash", "outcome", "reason", "answered_order_id", "is_repeat",
    "answered_body_hash", "validated_partition", "validated_link_seq", "update_partition", "update_output_seq",
    "update_link_seq", "entries",
)  # fmt: skip
"""`outcome` is -1 where nothing was answered; `command` is "" where the input was a fund update or undecodable."""
LEDGER_ENTRY_COLUMNS: Final = (
    *_PLACE, "sequence", "time_ns", "user_id", "asset_id", "ledger_seq", "kind", "order_id", "available_delta",
    "locked_delta", "available_after", "locked_after", "update_partition", "update_output_seq",
)  # fmt: skip
DEAD_LETTER_COLUMNS: Final = (*_PLACE, "source_topic", "source_partition", "source_offset", "reason")
UNDECODABLE_COLUMNS: Final = ("topic", "partition", "offset", "reason")

_TEXT_COLUMNS: Final = frozenset(("command", "input_topic", "source_topic", "topic"))
"""Columns of texts of which there are few; those of `DISTINCT_TEXTS` are texts as well."""
_BATCH_RECORDS: Final = 2_048
"""So many records are decoded together."""
_SAMPLED_MAX: Final = 100
"""About so many records of a chained topic are kept as they are, for an encoder that is not the contract's."""
_SEAL_BYTES: Final = 8
"""The length of the hash behind a record."""
_VERSIONS: Final = {wire.WIRE_VERSION}
_encode: Final = msgspec.msgpack.Encoder().encode


Ints = npt.NDArray[np.int64]
_NO_INTS: Final[Ints] = np.empty(0, dtype=np.int64)
_NO_BLOCK: Final = np.empty((0, 0), dtype=np.int64), dict[str, Any]()


class Columns:
    """Rows gathered in a flat list, or columns of many rows, as blocks: memory stays near the data's."""

    def __init__(self, names: Sequence[str], *, texts: frozenset[str] = _TEXT_COLUMNS) -> None:
        self.names = tuple(names)
        self._texts = {name: index for index, name in enumerate(names) if name in texts or name in DISTINCT_TEXTS}
        self._numbers = {name: index for index, name in enumerate(names) if name not in self._texts}
        self.flat: list[Any] = []
        self._blocks: list[Block] = []

    def add(self, columns: Sequence[Sequence[Any] | np.ndarray[Any, Any] | pa.Array]) -> None:
        """Add rows given as columns, in the order of the names."""
        numbers = np.empty((len(self._numbers), len(columns[0])), dtype=np.int64)
        for row, index in zip(numbers, self._numbers.values(), strict=True):
            row[:] = _int64(columns[index])  # type: ignore[arg-type]
        self._blocks.append((numbers, {name: _texts(name, columns[index]) for name, index in self._texts.items()}))

    def pack(self) -> None:
        """Turn the rows gathered so far into columns."""
        if self.flat:
            width = len(self.names)
            self.add([self.flat[index::width] for index in range(width)])
            self.flat.clear()

    def frame(self) -> pd.DataFrame:
        """All rows as a DataFrame: int64 columns, TEXT for texts that hardly repeat, other texts as str objects."""
        self.pack()
        if len(self._blocks) != 1:
            self._blocks = [joined(self.names, self._numbers, self._texts, self._blocks)]
        [(numbers, texts)] = self._blocks
        return assembled(self.names, list(self._numbers), numbers, texts)


Block = tuple[npt.NDArray[np.int64], dict[str, Any]]
"""Some rows: a block with a row for each column of integers, and the columns of texts and the like."""


def joined(names: Sequence[str], numbers: Collection[str], others: Collection[str], blocks: list[Block]) -> Block:
    """All blocks as one. Takes them out of the list, so that their memory can be used for the next ones."""
    size = sum(block.shape[1] for block, _ in blocks)
    together = np.empty((len(numbers), size), dtype=np.int64)
    parts: dict[str, list[Any]] = {name: [] for name in others}
    end = 0
    for number in range(len(blocks)):
        block, columns = blocks[number]
        together[:, end : end + block.shape[1]] = block
        end += block.shape[1]
        for name, part in columns.items():
            parts[name].append(part)
        blocks[number] = _NO_BLOCK
    blocks.clear()
    return together, {name: _text_column(name, each) for name, each in parts.items()}


def _text_column(name: str, parts: list[Any]) -> Any:
    if name in DISTINCT_TEXTS:
        return pa.chunked_array([chunk for part in parts for chunk in _chunks(part)], pa.large_string())
    return np.concatenate(parts) if parts else np.empty(0, dtype=object)


def _chunks(texts: pa.Array | pa.ChunkedArray) -> list[pa.Array]:
    return texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]


def _texts(name: str, values: Any) -> Any:
    if isinstance(values, (np.ndarray, pa.Array)):
        return values
    return pa.array(values, pa.large_string()) if name in DISTINCT_TEXTS else _shared_texts(values)


def _shared_texts(values: Sequence[str]) -> np.ndarray[Any, Any]:
    """Texts of which there are few, each as one object for all its rows."""
    found = np.empty(len(values), dtype=object)
    found[:] = list(map(intern, values))
    return found


def _int64(values: Sequence[int]) -> Ints:
    """Integers as a column. What a hostile request holds beyond 64 bits is shown as the column's bound."""
    if isinstance(values, np.ndarray):
        return values
    try:
        return np.fromiter(values, np.int64, len(values))
    except OverflowError:
        return np.array([max(-INT64_MAX, min(INT64_MAX, each)) for each in values], dtype=np.int64)


def command_columns(commands: Sequence[AnyRequest | None]) -> list[np.ndarray[Any, Any] | pa.Array]:
    """Requests as COMMAND_COLUMNS: what one does not have is 0; no request at all has the command ""."""
    size = len(commands)
    columns = {name: np.zeros(size, dtype=np.int64) for name in COMMAND_COLUMNS}
    columns["command"] = np.full(size, "", dtype=object)
    request_ids = np.full(size, "", dtype=object)
    kinds = np.fromiter(map(_COMMAND_NUMBERS.__getitem__, map(type, commands)), np.int8, size)
    for number, (kind, name) in enumerate(_COMMAND_NAMES.items()):
        at = np.flatnonzero(kinds == number)
        if not len(at):
            continue
        columns["command"][at] = name
        if kind is ReplaceOrder:
            columns["order_type"][at] = OrderType.LIMIT
        fields = zip(*[astuple(commands[index]) for index in at.tolist()], strict=True)  # type: ignore[arg-type]
        for field, values in zip(kind.__struct_fields__, fields, strict=True):
            if field == "request_id":
                request_ids[at] = values
            else:
                columns[field][at] = _int64(values)
    return [*(columns | {"request_id": pa.array(request_ids, pa.large_string())}).values()]


_COMMAND_NAMES: Final[dict[type[Request], str]] = {
    PlaceOrder: "place",
    CancelOrder: "cancel",
    ReduceOrder: "reduce",
    ReplaceOrder: "replace",
    Deposit: "deposit",
    Withdraw: "withdraw",
}
_COMMAND_NUMBERS: Final[dict[type, int]] = {kind: number for number, kind in enumerate((*_COMMAND_NAMES, type(None)))}


class KafkaLog:
    """The records of a trace's Kafka log by topic, some at a time: it may be larger than memory."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._where: dict[str, list[tuple[int, slice | Ints]]] = {}
        """The pieces of the log that hold records of a topic, and where in each."""
        found: dict[str, list[tuple[Ints, Ints]]] = {}
        for number, piece in enumerate(tables.pieces("kafka_log", ["topic", "partition", "offset"])):
            topic_of, partition, offset = piece.combine_chunks().columns
            numbers = topic_of.chunk(0).indices.to_numpy()
            partition, offset = partition.to_numpy(), offset.to_numpy()
            for each in np.flatnonzero(np.bincount(numbers)).tolist():
                topic = topic_of.chunk(0).dictionary[each].as_py()
                at = np.flatnonzero(numbers == each)
                # Topic by topic, as runs and audits record it, a stretch of rows that needs no copy.
                together = slice(int(at[0]), int(at[-1]) + 1) if at[-1] - at[0] == len(at) - 1 else at
                self._where.setdefault(topic, []).append((number, together))
                found.setdefault(topic, []).append((partition[together], offset[together]))
        self._places = {
            topic: (np.concatenate([each[0] for each in parts]), np.concatenate([each[1] for each in parts]))
            for topic, parts in found.items()
        }

    def places(self, topic: str) -> tuple[Ints, Ints]:
        """Partition and offset of a topic's records, in the order in which they stand in the log's file."""
        return self._places.get(topic, (_NO_INTS, _NO_INTS))

    def batches(self, topic: str, *names: str) -> Iterator[pa.RecordBatch]:
        """The records of a topic by partition and offset, some at a time: partition, offset and the columns named."""
        where = self._where.get(topic, [])
        pieces = self._tables.pieces("kafka_log", ["partition", "offset", *names], [number for number, _ in where])
        mine: Iterable[pa.Table] = (
            piece.slice(rows.start, rows.stop - rows.start) if isinstance(rows, slice) else piece.take(rows)
            for piece, (_, rows) in zip(pieces, where, strict=True)
        )
        partition, offset = self.places(topic)
        if (np.diff(partition) < 0).any() or ((np.diff(partition) == 0) & (np.diff(offset) < 0)).any():
            # No run leaves a log like that; somebody's own trace may.
            mine = [pa.concat_tables(mine).take(np.lexsort((offset, partition)))]
        for piece in mine:
            yield from piece.combine_chunks().to_batches(max_chunksize=_BATCH_RECORDS)

    def values(self, topic: str) -> Iterator[tuple[pa.RecordBatch, list[bytes | None]]]:
        """The records of a topic by partition and offset, some at a time: their places, and their values as bytes."""
        for batch in self.batches(topic, "value"):
            yield batch, batch.column(2).to_pylist()


@cache
def _tuple_type(struct: type[msgspec.Struct]) -> Any:
    """A struct's wire form as a tuple type: the same fields of the same types, without an object around them."""
    return GenericAlias(tuple, tuple(_plain_type(each.type) for each in msgspec.structs.fields(struct)))


def _plain_type(of: Any) -> Any:
    """A field's type with tuples for structs. Commands stay structs: their kinds cannot be told apart as tuples."""
    if of in (AnyRequest, OrderCommand, AnyRequest | None):
        return of
    if isinstance(of, type) and issubclass(of, msgspec.Struct):
        return _tuple_type(of)
    if get_origin(of) is tuple:
        return GenericAlias(tuple, (_plain_type(get_args(of)[0]), ...))
    if of == OrderResponse | None:
        return _tuple_type(OrderResponse) | None
    return of


def _as_tuple(value: Any) -> Any:
    """An event as the tuple that its tuple type would have given."""
    if isinstance(value, msgspec.Struct) and not isinstance(value, Request):
        return tuple(_as_tuple(each) for each in astuple(value))
    return tuple(map(_as_tuple, value)) if isinstance(value, tuple) else value


def _are_sealed(values: Sequence[bytes | None]) -> bool:
    """Whether each value ends in the hash of the bytes before it."""
    records = [value for value in values if value is not None and len(value) > _SEAL_BYTES]
    seals = b"".join([record[-_SEAL_BYTES:] for record in records])
    return (
        len(records) == len(values) and b"".join([xxh3_64_digest(record[:-_SEAL_BYTES]) for record in records]) == seals
    )


class _Chunk:
    """Some decoded records of a topic: where they stand, their hashes, and their fields, one tuple for each field."""

    def __init__(self, batch: pa.RecordBatch, events: list[tuple[Any, ...]], digests: Ints, kept: list[int]) -> None:
        self.partition, self.offset, self.t = (batch.column(index).to_numpy() for index in range(3))
        if len(kept) < len(self.partition):
            self.partition, self.offset, self.t = (each[kept] for each in (self.partition, self.offset, self.t))
        self.digests = digests
        self.fields = list(zip(*events, strict=True))

    def __len__(self) -> int:
        return len(self.partition)

    @property
    def place(self) -> list[Ints]:
        """The columns partition, offset and t."""
        return [self.partition, self.offset, self.t]


def _nested(lists: Sequence[Sequence[tuple[Any, ...]]]) -> tuple[Ints, Ints, list[tuple[Any, ...]]]:
    """Lists of equal rows, one list for each record: the record and the place in its list of each row, and the rows."""
    counts = np.fromiter(map(len, lists), np.int64, len(lists))
    owner = np.repeat(np.arange(len(lists)), counts)
    position = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    return owner, position, list(chain.from_iterable(lists))


class Decoded:
    """Decodes topics on demand and keeps the tables."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._frames: dict[str, pd.DataFrame] = {}
        # By topic, so that decoding a topic again says nothing twice.
        self._undecodable: dict[str, list[tuple[str, int, int, str]]] = {}
        self._not_canonical: dict[str, list[tuple[str, int, int]]] = {}
        self._samples: dict[str, list[tuple[int, int, bytes]]] = {}
        self._inputs: dict[int, list[tuple[int, OrderCommand]]] = {}

    @cached_property
    def log(self) -> KafkaLog:
        """The bytes that everything is decoded from."""
        return KafkaLog(self._tables)

    def frame(self, name: str) -> pd.DataFrame:
        """A derived table by its name. Raises KeyError for an unknown one."""
        if name not in self._frames:
            if name == "undecodable":
                for made in _DECODERS:
                    self.frame(made[0])
                self._frames[name] = self._undecodable_of(self._undecodable)
            else:
                next(decode for made, decode in _DECODERS.items() if name in made)(self)
        return self._frames[name]

    def release(self, name: str) -> None:
        """Forget a table."""
        self._frames.pop(name, None)
        if name == "log":
            self.__dict__.pop("log", None)
        if name == "validated":
            self._inputs = {}

    def places(self, topic: str) -> pd.DataFrame:
        """Where the records of a topic stand (`partition`, `offset`), without decoding them."""
        partition, offset = self.log.places(topic)
        return frame_of({"partition": partition, "offset": offset})

    def unsealed(self, topic: str) -> list[tuple[int, int]]:
        """Partition and offset of a topic's records whose trailing hash is not that of the bytes before it."""
        found = []
        for batch, values in self.log.values(topic):
            if not _are_sealed(values):
                found += [
                    (batch.column(0)[index].as_py(), batch.column(1)[index].as_py())
                    for index, value in enumerate(values)
                    if not _are_sealed([value])
                ]
        return found

    def undecodable_in(self, *names: str) -> pd.DataFrame:
        """`undecodable`, looking only at the topics that the named tables are made from."""
        for name in names:
            self.frame(name)
        return self._undecodable_of([_TOPIC_OF_TABLE[name] for name in names])

    def _undecodable_of(self, of_topics: Iterable[str]) -> pd.DataFrame:
        rows = Columns(UNDECODABLE_COLUMNS, texts=frozenset(("topic", "reason")))
        for topic in of_topics:
            rows.flat.extend(chain.from_iterable(self._undecodable.get(topic, ())))
        return rows.frame()

    def engine_inputs(self) -> dict[int, list[tuple[int, OrderCommand]]]:
        """The records of validated.orders by partition: offset and command, in the log's order.

        A partition ends before its first record that does not decode: nothing after that may be processed.
        """
        self.frame("validated")
        return self._inputs

    def _decoded(self, codec: wire.Codec[Any], topic: str, kind: Any) -> Iterator[_Chunk]:
        """The records of a topic that decode, as `kind`: the struct as a tuple type, or what the codec gives.

        The contract's codec says what is wrong with a record. Where nothing is, as nearly always, its steps are taken
        for many records together, which is three times as quick. Records of a chained topic are encoded again.
        """
        decode = msgspec.msgpack.Decoder(kind).decode
        is_chained = topic in topics.CHAINED_TOPICS
        every = 1 + len(self.log.places(topic)[0]) // _SAMPLED_MAX
        passed = 0
        self._undecodable[topic], self._not_canonical[topic], self._samples[topic] = [], [], []
        for batch in self.log.batches(topic, "appended_t", "value"):
            values = batch.column("value").to_pylist()
            try:
                bodies = [value[:-_SEAL_BYTES] for value in values]
                trailers = b"".join([value[-_SEAL_BYTES:] for value in values])
                if b"".join(map(xxh3_64_digest, bodies)) != trailers or {body[0] for body in bodies} != _VERSIONS:
                    raise wire.WireError("one of them is not a record")
                bodies = [body[1:] for body in bodies]
                events = list(map(decode, bodies))
                digests, kept = np.frombuffer(trailers, ">i8").astype(np.int64), list(range(len(events)))
            except (TypeError, IndexError, wire.WireError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                events, digests, kept = self._one_by_one(codec, topic, batch, values)
                bodies = [values[index][1:-_SEAL_BYTES] for index in kept]
            if not events:
                continue
            chunk = _Chunk(
                batch, events if isinstance(events[0], tuple) else [(each,) for each in events], digests, kept
            )
            if is_chained:
                self._encode_again(topic, chunk, events, bodies)
                sampled = range(-passed % every, len(kept), every)
                self._samples[topic].extend(
                    (int(chunk.partition[index]), int(chunk.offset[index]), values[kept[index]]) for index in sampled
                )
                passed += len(kept)
            yield chunk

    def _encode_again(self, topic: str, chunk: _Chunk, events: list[Any], bodies: list[bytes]) -> None:
        """Note the records whose bytes are not the encoding of what they say."""
        # All together are an array, whose header says how many they are.
        if _encode(events).endswith(b"".join(bodies)):
            return
        for index, (event, body) in enumerate(zip(events, bodies, strict=True)):
            if _encode(event) != body:
                self._not_canonical[topic].append((topic, int(chunk.partition[index]), int(chunk.offset[index])))

    def not_canonical(self, topic: str) -> pd.DataFrame:
        """Records of a chained topic that decode, but whose bytes are not the contract's encoding of what they say."""
        self.frame(_TABLE_OF_CHAIN[topic])
        found = Columns(("topic", "partition", "offset"))
        found.flat.extend(chain.from_iterable(self._not_canonical[topic]))
        return found.frame()

    def samples(self, topic: str) -> list[tuple[int, int, bytes]]:
        """Some records of a chained topic that decode, evenly spaced: partition, offset and bytes."""
        self.frame(_TABLE_OF_CHAIN[topic])
        return self._samples[topic]

    def _one_by_one(
        self, codec: wire.Codec[Any], topic: str, batch: pa.RecordBatch, values: list[bytes | None]
    ) -> tuple[list[Any], Ints, list[int]]:
        """Decode records with the contract's codec: events, hashes, and which of the records they are."""
        events, digests, kept = [], [], []
        for index, value in enumerate(values):
            try:
                event, digest = codec.unseal(value)
            except wire.WireError as error:
                where = (batch.column(0)[index].as_py(), batch.column(1)[index].as_py())
                self._undecodable[topic].append((topic, *where, str(error)))
                continue
            events.append(_as_tuple(event))
            digests.append(digest)
            kept.append(index)
        return events, np.array(digests, dtype=np.int64), kept

    def _requests(self) -> None:
        rows = Columns((*_PLACE, *COMMAND_COLUMNS))
        for chunk in self._decoded(wire.REQUEST, topics.ORDER_REQUESTS, AnyRequest):
            rows.add(chunk.place + command_columns(chunk.fields[0]))
        self._frames["requests"] = rows.frame()

    def _validated(self) -> None:
        rows = Columns((*VALIDATED_COLUMNS, *COMMAND_COLUMNS))
        inputs = self._inputs
        for chunk in self._decoded(wire.VALIDATED_ORDER, topics.VALIDATED_ORDERS, VALIDATED_TUPLE):
            *source, commands = chunk.fields
            rows.add([*chunk.place, *source, *command_columns(commands)])
            for partition, offset, command in zip(
                chunk.partition.tolist(), chunk.offset.tolist(), commands, strict=True
            ):
                inputs.setdefault(partition, []).append((offset, command))
        for _, partition, offset, _ in self._undecodable[topics.VALIDATED_ORDERS]:
            inputs[partition] = [each for each in inputs.get(partition, ()) if each[0] < offset]
        self._frames["validated"] = rows.frame()

    def _responses(self) -> None:
        rows = Columns(RESPONSE_COLUMNS)
        for chunk in self._decoded(wire.ORDER_RESPONSE, topics.ORDER_RESPONSES, _tuple_type(OrderResponse)):
            rows.add([*chunk.place, *chunk.fields])
        self._frames["responses"] = rows.frame()

    def _sent_updates(self) -> None:
        rows = Columns(SENT_UPDATE_COLUMNS)
        for chunk in self._decoded(wire.FUND_UPDATE, topics.FUND_UPDATES, _tuple_type(FundUpdate)):
            *fields, entries = chunk.fields
            rows.add([*chunk.place, *fields, list(map(len, entries))])
        self._frames["sent_updates"] = rows.frame()

    def _dead_letters(self) -> None:
        rows = Columns(DEAD_LETTER_COLUMNS, texts=frozenset(("source_topic", "reason")))
        for chunk in self._decoded(wire.DEAD_LETTER, topics.DEAD_LETTERS, _tuple_type(DeadLetter)):
            rows.add([*chunk.place, *chunk.fields[:4]])
        self._frames["dead_letters"] = rows.frame()

    def _outputs(self) -> None:
        outputs = Columns((*OUTPUT_COLUMNS, *COMMAND_COLUMNS))
        orders, trades = Columns(ORDER_EVENT_COLUMNS), Columns(TRADE_COLUMNS)
        updates, entries = Columns(FUND_UPDATE_COLUMNS), Columns(FUND_ENTRY_COLUMNS)
        for chunk in self._decoded(wire.ENGINE_OUTPUT, topics.ENGINE_OUTPUTS, _tuple_type(EngineOutput)):
            (
                symbol_partition, output_seq, prev_hash, input_topic, input_partition, input_offset, validated, time_ns,
                placements, order_updates, completions, refusals, traded, fund_updates,
            ) = chunk.fields  # fmt: skip
            seq, engine_time = _int64(output_seq), _int64(time_ns)
            place = [*chunk.place, seq]

            # The events of an output, all kinds of them: four lists a record, one after the other.
            kinds = (placements, order_updates, completions, refusals)
            kind_of, _, states = _nested(list(chain.from_iterable(zip(*kinds, strict=True))))
            owner, event = kind_of >> 2, kind_of & 3
            counts = np.bincount(owner, minlength=len(chunk))
            position = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
            orders.add([*(each[owner] for each in place), position, event, *_fields(states, STATE_COLUMNS)])

            owner, position, rows = _nested(traded)
            trades.add([*(each[owner] for each in place), position, engine_time[owner], *_fields(rows, _TRADE_FIELDS)])

            owner, _, rows = _nested(fund_updates)
            _, _, link_seq, update_time, user_id, *verdict, update_entries = _fields(rows, _UPDATE_FIELDS)
            updates.add(
                [
                    *(each[owner] for each in place), link_seq, update_time, user_id, *verdict,
                    list(map(len, update_entries)),
                ]
            )  # fmt: skip
            within, _, rows = _nested(update_entries)
            owner, user = owner[within], _int64(user_id)[within]
            entries.add([*(each[owner] for each in place), user, *_fields(rows, _ENTRY_FIELDS)])

            *source, commands = zip(*validated, strict=True)
            outputs.add(
                [
                    *chunk.place, symbol_partition, seq, prev_hash, chunk.digests, input_topic, input_partition,
                    input_offset, *source, engine_time, counts, list(map(len, traded)), *command_columns(commands),
                ]
            )  # fmt: skip
        for name, table in (
            ("outputs", outputs), ("order_events", orders), ("trades", trades), ("fund_updates", updates),
            ("fund_entries", entries),
        ):  # fmt: skip
            self._frames[name] = table.frame()

    def _balance_events(self) -> None:
        events, entries = Columns((*BALANCE_EVENT_COLUMNS, *COMMAND_COLUMNS)), Columns(LEDGER_ENTRY_COLUMNS)
        for chunk in self._decoded(wire.BALANCE_EVENT, topics.BALANCE_EVENTS, _tuple_type(BalanceEvent)):
            (
                user_partition, sequence, prev_hash, input_topic, input_partition, input_offset, time_ns, user_id,
                requests, body_hash, responses, *links, moved,
            ) = chunk.fields  # fmt: skip
            answers = _fields([each or _NO_RESPONSE for each in responses], OrderResponse.__struct_fields__)
            answered = [answers[index] for index in _ANSWERED]
            events.add(
                [
                    *chunk.place, user_partition, sequence, prev_hash, chunk.digests, input_topic, input_partition,
                    input_offset, time_ns, user_id, body_hash, *answered, *links,
                    list(map(len, moved)), *command_columns(requests),
                ]
            )  # fmt: skip
            owner, _, rows = _nested(moved)
            own = [*chunk.place, *map(_int64, (sequence, time_ns, user_id))]
            update = [_int64(links[2])[owner], _int64(links[3])[owner]]
            entries.add([*(each[owner] for each in own), *_fields(rows, _LEDGER_FIELDS), *update])
        self._frames["balance_events"] = events.frame()
        self._frames["ledger_entries"] = entries.frame()


def _fields(rows: list[tuple[Any, ...]], names: Sequence[str]) -> list[tuple[Any, ...]]:
    """Rows of the named fields as one tuple for each field."""
    return list(zip(*rows, strict=True)) if rows else [()] * len(names)


VALIDATED_TUPLE: Final = _tuple_type(ValidatedOrder)
_TRADE_FIELDS: Final = Trade.__struct_fields__
_UPDATE_FIELDS: Final = FundUpdate.__struct_fields__
_ENTRY_FIELDS: Final = FundEntry.__struct_fields__
_LEDGER_FIELDS: Final = LedgerEntry.__struct_fields__
_ANSWERED: Final = tuple(
    OrderResponse.__struct_fields__.index(name) for name in ("outcome", "reason", "order_id", "is_repeat", "body_hash")
)
_NO_RESPONSE: Final = tuple(-1 if name == "outcome" else 0 for name in OrderResponse.__struct_fields__)
"""Stands for the answer of a balance event that answers nobody."""
_TABLE_OF_CHAIN: Final = {topics.ENGINE_OUTPUTS: "outputs", topics.BALANCE_EVENTS: "balance_events"}
_TOPIC_OF_TABLE: Final = {
    "requests": topics.ORDER_REQUESTS, "validated": topics.VALIDATED_ORDERS, "responses": topics.ORDER_RESPONSES,
    "sent_updates": topics.FUND_UPDATES, "dead_letters": topics.DEAD_LETTERS, "outputs": topics.ENGINE_OUTPUTS,
    "balance_events": topics.BALANCE_EVENTS,
}  # fmt: skip


_DECODERS: Final[dict[tuple[str, ...], Callable[[Decoded], None]]] = {
    ("requests",): Decoded._requests,
    ("validated",): Decoded._validated,
    ("responses",): Decoded._responses,
    ("sent_updates",): Decoded._sent_updates,
    ("dead_letters",): Decoded._dead_letters,
    ("outputs", "order_events", "trades", "fund_updates", "fund_entries"): Decoded._outputs,
    ("balance_events", "ledger_entries"): Decoded._balance_events,
}
"""Which method makes which tables."""
DERIVED_TABLES: Final = (*(name for made in _DECODERS for name in made), "undecodable")
"""Names of all derived tables."""
