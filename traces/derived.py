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

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import astuple
from xxhash import xxh3_64_digest

from schema import topics, wire
from schema.events import (
    AnyRequest,
    BalanceEvent,
    CancelOrder,
    DeadLetter,
    Deposit,
    EngineOutput,
    FundUpdate,
    OrderResponse,
    OrderState,
    PlaceOrder,
    ReduceOrder,
    ReplaceOrder,
    Trade,
    ValidatedOrder,
    Withdraw,
)
from schema.identifiers import INT64_MAX

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
    "validated_partition", "validated_link_seq", "update_partition", "update_output_seq", "update_link_seq", "entries",
)  # fmt: skip
"""`outcome` is -1 where nothing was answered; `command` is "" where the input was a fund update or undecodable."""
LEDGER_ENTRY_COLUMNS: Final = (
    *_PLACE, "sequence", "time_ns", "user_id", "asset_id", "ledger_seq", "kind", "order_id", "available_delta",
    "locked_delta", "available_after", "locked_after", "update_partition", "update_output_seq",
)  # fmt: skip
DEAD_LETTER_COLUMNS: Final = (*_PLACE, "source_topic", "source_partition", "source_offset", "reason")
UNDECODABLE_COLUMNS: Final = ("topic", "partition", "offset", "reason")

_TEXT_COLUMNS: Final = frozenset(("command", "request_id", "client_order_id", "input_topic", "source_topic", "topic"))
_PACK_EVERY: Final = 4_096
"""So many records are decoded between two packings."""


class Columns:
    """Rows gathered in a flat list and packed into numpy blocks now and then, so that memory stays near the data's."""

    def __init__(self, names: Sequence[str], *, texts: frozenset[str] = _TEXT_COLUMNS) -> None:
        self.names = tuple(names)
        self._texts = texts
        self.flat: list[Any] = []
        self._blocks: list[list[np.ndarray[Any, Any] | list[str]]] = []

    def pack(self) -> None:
        """Turn the rows gathered so far into columns."""
        if not self.flat:
            return
        width = len(self.names)
        self._blocks.append(
            [
                self.flat[index::width] if name in self._texts else _int64(self.flat[index::width])
                for index, name in enumerate(self.names)
            ]
        )
        self.flat.clear()

    def frame(self) -> pd.DataFrame:
        """All rows as a DataFrame: int64 columns, and text columns of str objects."""
        self.pack()
        columns: dict[str, Any] = {}
        for index, name in enumerate(self.names):
            parts = [block[index] for block in self._blocks]
            if name in self._texts:
                # Objects, not pandas' string type: comparing and grouping them needs no conversion.
                columns[name] = pd.Series([text for part in parts for text in part], dtype=object)
            elif parts:
                columns[name] = np.concatenate(parts) if len(parts) > 1 else parts[0]
            else:
                columns[name] = np.empty(0, dtype=np.int64)
        return pd.DataFrame(columns, copy=False)


def _int64(values: list[int]) -> np.ndarray[Any, Any]:
    """Integers as a column. What a hostile request holds beyond 64 bits is shown as the column's bound."""
    try:
        return np.array(values, dtype=np.int64)
    except OverflowError:
        return np.array([max(-INT64_MAX, min(INT64_MAX, each)) for each in values], dtype=np.int64)


def command_fields(command: AnyRequest) -> tuple[Any, ...]:
    """A request as COMMAND_COLUMNS; what it does not have is 0."""
    base = (command.request_id, command.user_id, command.requested_at_ns)
    match command:
        case PlaceOrder():
            return (
                "place", *base, command.order_id, command.symbol_id, 0, command.side, command.order_type,
                command.time_in_force, command.price, command.quantity, command.max_spend, 0, 0,
            )  # fmt: skip
        case CancelOrder():
            return ("cancel", *base, command.order_id, command.symbol_id, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        case ReduceOrder():
            return ("reduce", *base, command.order_id, command.symbol_id, 0, 0, 0, 0, 0, command.quantity, 0, 0, 0)
        case ReplaceOrder():
            return (
                "replace", *base, command.order_id, command.symbol_id, command.replaced_order_id, command.side, 1,
                command.time_in_force, command.price, command.quantity, 0, 0, 0,
            )  # fmt: skip
        case Deposit():
            return ("deposit", *base, 0, 0, 0, 0, 0, 0, 0, 0, 0, command.asset_id, command.amount)
        case Withdraw():
            return ("withdraw", *base, 0, 0, 0, 0, 0, 0, 0, 0, 0, command.asset_id, command.amount)


_NO_COMMAND: Final = ("", "", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


def records_of(kafka_log: pa.Table, topic: str) -> Iterator[tuple[int, int, int, bytes | None]]:
    """Partition, offset, append time and value of a topic's records, by partition and offset.

    Only one topic's values are in memory at a time, and of those one chunk as Python objects.
    """
    part = kafka_log.filter(pc.equal(kafka_log.column("topic"), topic))
    if part.num_rows == 0:
        return
    partitions = part.column("partition").to_numpy()
    offsets = part.column("offset").to_numpy()
    order = np.lexsort((offsets, partitions))
    if (order[1:] < order[:-1]).any():
        part = part.take(order)
    for batch in part.select(["partition", "offset", "appended_t", "value"]).to_batches(max_chunksize=10_000):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


class Decoded:
    """Decodes topics on demand and keeps the tables."""

    def __init__(self, kafka_log: pa.Table) -> None:
        self._log = kafka_log
        self._frames: dict[str, pd.DataFrame] = {}
        self._undecodable = Columns(UNDECODABLE_COLUMNS, texts=frozenset(("topic", "reason")))
        self._inputs: dict[int, list[tuple[int, ValidatedOrder]]] = {}

    def frame(self, name: str) -> pd.DataFrame:
        """A derived table by its name. Raises KeyError for an unknown one."""
        if name not in self._frames:
            if name == "undecodable":
                for made, decode in _DECODERS.items():
                    if made[0] not in self._frames:
                        decode(self)
                self._frames[name] = self._undecodable.frame()
            else:
                next(decode for made, decode in _DECODERS.items() if name in made)(self)
        return self._frames[name]

    def places(self, topic: str) -> pd.DataFrame:
        """Where the records of a topic stand (`partition`, `offset`), without decoding them."""
        part = self._log.filter(pc.equal(self._log.column("topic"), topic)).select(["partition", "offset"])
        return pd.DataFrame({name: part.column(name).to_numpy() for name in part.column_names})

    def unsealed(self, topic: str) -> list[tuple[int, int]]:
        """Partition and offset of a topic's records whose trailing hash is not that of the bytes before it."""
        return [
            (partition, offset)
            for partition, offset, _, value in records_of(self._log, topic)
            if value is None or len(value) <= 8 or xxh3_64_digest(value[:-8]) != value[-8:]
        ]

    def undecodable_in(self, *names: str) -> pd.DataFrame:
        """`undecodable`, looking only at the topics that the named tables are made from."""
        for name in names:
            self.frame(name)
        return self._undecodable.frame()

    def engine_inputs(self) -> dict[int, list[tuple[int, ValidatedOrder]]]:
        """The records of validated.orders by partition: offset and order, in the log's order.

        A partition ends before its first record that does not decode: nothing after that may be processed.
        """
        self.frame("validated")
        return self._inputs

    def _decoded(
        self, codec: wire.Codec[Any], topic: str, *tables: Columns
    ) -> Iterator[tuple[int, int, int, Any, int]]:
        """The records of a topic that decode; the tables that they go to are packed now and then."""
        unseal, undecodable = codec.unseal, self._undecodable.flat
        for number, (partition, offset, t, value) in enumerate(records_of(self._log, topic), 1):
            try:
                event, digest = unseal(value)
            except wire.WireError as error:
                undecodable.extend((topic, partition, offset, str(error)))
                continue
            yield partition, offset, t, event, digest
            if number % _PACK_EVERY == 0:
                for table in tables:
                    table.pack()

    def _requests(self) -> None:
        rows = Columns((*_PLACE, *COMMAND_COLUMNS))
        for partition, offset, t, event, _ in self._decoded(wire.REQUEST, topics.ORDER_REQUESTS, rows):
            rows.flat.extend((partition, offset, t, *command_fields(event)))
        self._frames["requests"] = rows.frame()

    def _validated(self) -> None:
        rows = Columns((*VALIDATED_COLUMNS, *COMMAND_COLUMNS))
        inputs = self._inputs
        event: ValidatedOrder
        for partition, offset, t, event, _ in self._decoded(wire.VALIDATED_ORDER, topics.VALIDATED_ORDERS, rows):
            place = (partition, offset, t, event.source_partition, event.source_sequence, event.link_seq)
            rows.flat.extend(place + command_fields(event.command))
            inputs.setdefault(partition, []).append((offset, event))
        bad = self._undecodable.flat
        for topic, partition, offset in zip(bad[0::4], bad[1::4], bad[2::4], strict=True):
            if topic == topics.VALIDATED_ORDERS:
                inputs[partition] = [each for each in inputs.get(partition, ()) if each[0] < offset]
        self._frames["validated"] = rows.frame()

    def _responses(self) -> None:
        rows = Columns(RESPONSE_COLUMNS)
        event: OrderResponse
        for partition, offset, t, event, _ in self._decoded(wire.ORDER_RESPONSE, topics.ORDER_RESPONSES, rows):
            rows.flat.extend((partition, offset, t, *astuple(event)))
        self._frames["responses"] = rows.frame()

    def _sent_updates(self) -> None:
        rows = Columns(SENT_UPDATE_COLUMNS)
        event: FundUpdate
        for partition, offset, t, event, _ in self._decoded(wire.FUND_UPDATE, topics.FUND_UPDATES, rows):
            rows.flat.extend((partition, offset, t, *astuple(event)[:-1], len(event.entries)))
        self._frames["sent_updates"] = rows.frame()

    def _dead_letters(self) -> None:
        rows = Columns(DEAD_LETTER_COLUMNS, texts=frozenset(("source_topic", "reason")))
        event: DeadLetter
        for partition, offset, t, event, _ in self._decoded(wire.DEAD_LETTER, topics.DEAD_LETTERS, rows):
            rows.flat.extend((partition, offset, t, event.topic, event.partition, event.offset, event.reason))
        self._frames["dead_letters"] = rows.frame()

    def _outputs(self) -> None:
        outputs = Columns((*OUTPUT_COLUMNS, *COMMAND_COLUMNS))
        orders, trades = Columns(ORDER_EVENT_COLUMNS), Columns(TRADE_COLUMNS)
        updates, entries = Columns(FUND_UPDATE_COLUMNS), Columns(FUND_ENTRY_COLUMNS)
        add_output, add_order, add_trade = outputs.flat.extend, orders.flat.extend, trades.flat.extend
        add_update, add_entry = updates.flat.extend, entries.flat.extend
        tables = (outputs, orders, trades, updates, entries)
        event: EngineOutput
        for partition, offset, t, event, digest in self._decoded(wire.ENGINE_OUTPUT, topics.ENGINE_OUTPUTS, *tables):
            place = (partition, offset, t, event.output_seq)
            position = 0
            for number, group in (
                (PLACEMENT, event.order_placements),
                (UPDATE, event.order_updates),
                (COMPLETION, event.order_completions),
                (REFUSAL, event.refusals),
            ):
                for state in group:
                    add_order((*place, position, number, *astuple(state)))
                    position += 1
            for index, trade in enumerate(event.trades):
                add_trade((*place, index, event.time_ns, *astuple(trade)))
            for update in event.fund_updates:
                add_update(
                    (
                        *place, update.link_seq, update.time_ns, update.user_id, update.request_id, update.verdict,
                        update.reason, update.order_id, len(update.entries),
                    )
                )  # fmt: skip
                for entry in update.entries:
                    add_entry((*place, update.user_id, *astuple(entry)))
            order = event.input
            add_output(
                (
                    partition, offset, t, event.symbol_partition, event.output_seq, event.prev_hash, digest,
                    event.input_topic, event.input_partition, event.input_offset, order.source_partition,
                    order.source_sequence, order.link_seq, event.time_ns, position, len(event.trades),
                    *command_fields(order.command),
                )
            )  # fmt: skip
        for name, table in zip(
            ("outputs", "order_events", "trades", "fund_updates", "fund_entries"), tables, strict=True
        ):
            self._frames[name] = table.frame()

    def _balance_events(self) -> None:
        events, entries = Columns((*BALANCE_EVENT_COLUMNS, *COMMAND_COLUMNS)), Columns(LEDGER_ENTRY_COLUMNS)
        add_event, add_entry = events.flat.extend, entries.flat.extend
        event: BalanceEvent
        for partition, offset, t, event, digest in self._decoded(
            wire.BALANCE_EVENT, topics.BALANCE_EVENTS, events, entries
        ):
            answer = event.response
            answered = (
                (-1, 0, 0, 0) if answer is None else (answer.outcome, answer.reason, answer.order_id, answer.is_repeat)
            )
            add_event(
                (
                    partition, offset, t, event.user_partition, event.sequence, event.prev_hash, digest,
                    event.input_topic, event.input_partition, event.input_offset, event.time_ns, event.user_id,
                    event.body_hash, *answered,
                    event.validated_partition, event.validated_link_seq, event.update_partition,
                    event.update_output_seq, event.update_link_seq, len(event.entries),
                    *(_NO_COMMAND if event.request is None else command_fields(event.request)),
                )
            )  # fmt: skip
            for entry in event.entries:
                add_entry(
                    (
                        partition, offset, t, event.sequence, event.time_ns, event.user_id, *astuple(entry),
                        event.update_partition, event.update_output_seq,
                    )
                )  # fmt: skip
        self._frames["balance_events"] = events.frame()
        self._frames["ledger_entries"] = entries.frame()


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
