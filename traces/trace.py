"""A trace: the recorded kinds and everything derived from them, as DataFrames made when asked for."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd
import pyarrow as pa

from schema.events import OrderCommand
from schema.topics import Topology
from traces.derived import COMPLETION, PLACEMENT, REFUSAL, UPDATE, Block, Decoded, joined
from traces.frames import assembled
from traces.manifest import Manifest
from traces.matching_rows import array, ints, rows
from traces.recorder import Recorder
from traces.reference import Expected
from traces.tables import KeptTables, Tables, columns_of

T = TypeVar("T")


class Trace:
    """What a run, or an audit of a live system, left behind.

    `events(kind)` gives a recorded kind with the columns of `traces.kinds`; the named properties give the tables of
    `traces.derived`. Every frame is made once and kept until it is released, so callers must not change one in place.
    """

    def __init__(self, manifest: Manifest, tables: Mapping[str, pa.Table]) -> None:
        self.manifest = manifest
        self.tables = tables if isinstance(tables, Tables) else KeptTables(tables)
        self._events: dict[tuple[str, tuple[str, ...]], pd.DataFrame] = {}
        self._final: dict[tuple[str, int], pd.DataFrame] = {}
        self._computed: dict[Callable[[Trace], object], object] = {}

    @classmethod
    def of(cls, recorder: Recorder, manifest: Manifest) -> "Trace":
        """The trace of a run that has just been recorded."""
        return cls(manifest, recorder.tables())

    @cached_property
    def topology(self) -> Topology:
        """How the work was divided."""
        return self.manifest.topology.topology()

    def events(self, kind: str, *columns: str) -> pd.DataFrame:
        """The recorded events of one kind, all columns or those named. Raises KeyError for an unknown kind."""
        frame = self._events.get((kind, columns))
        if frame is None:
            names = columns or [name for name, _ in columns_of(kind)]
            frame = self._events[kind, columns] = _frame(self.tables, kind, names)
        return frame

    def has(self, kind: str) -> bool:
        """Whether any event of that kind was recorded."""
        return self.tables.count(kind) > 0

    def final(self, table: str, look: int) -> pd.DataFrame:
        """A table's rows as read at the end: look 0 once settled, look 1 when 25 hours had passed."""
        key = f"final_{table}", look
        found = self._final.get(key)
        if found is None:
            # Their place in the run and their host say nothing: an observer looks at all of them at once.
            table_rows = self.events(key[0], *(name for name, _ in columns_of(key[0]) if name not in ("seq", "host")))
            found = self._final[key] = rows(table_rows, ints(table_rows, "look") == look)
        return found

    def once(self, compute: "Callable[[Trace], T]") -> T:
        """What a function says of this trace, computed the first time it is asked."""
        if compute not in self._computed:
            self._computed[compute] = compute(self)
        return cast(T, self._computed[compute])

    def release(self, *names: str) -> None:
        """Forget tables, recorded or derived, and what was computed under that name. Who asks for one again gets it."""
        for name in names:
            self.__dict__.pop(name, None)
            self.decoded.release(name)
            for key in [key for key in self._events if key[0] == name]:
                del self._events[key]
            for compute in [compute for compute in self._computed if compute.__name__ == name]:
                del self._computed[compute]

    @cached_property
    def decoded(self) -> Decoded:
        """The decoder of the Kafka log, which keeps the derived tables."""
        return Decoded(self.tables)

    @cached_property
    def reference(self) -> tuple[Expected, list[int]]:
        """The reference engine's word on the trace, and the partitions that it could judge: those whose log begins at
        output 1, where starting from nothing is right.

        Inputs that the engine had no time to take, in a run that never settled, are left out.
        """
        expected, judged = Expected(), []
        outputs = self.outputs
        partition, offset = ints(outputs, "partition"), ints(outputs, "input_offset")
        seq = ints(outputs, "output_seq")
        for number, inputs in sorted(self.engine_inputs.items()):
            mine = partition == number
            if mine.any():
                if not inputs or seq[mine].min() != 1 or inputs[0][0] > offset[mine].min():
                    continue
                if not self.has_settled:
                    inputs = [each for each in inputs if each[0] <= offset[mine].max()]
            elif not self.has_settled:
                continue
            judged.append(number)
            expected.feed(number, self.topology.symbols, inputs)
        return expected, judged

    @cached_property
    def begins_at_one(self) -> bool:
        """Whether every partition of the chained topics begins at its first record: all that ever happened is here."""
        return all(
            int(ints(records, seq)[ints(records, "partition") == number].min()) == 1
            for records, seq in ((self.outputs, "output_seq"), (self.balance_events, "sequence"))
            for number in np.unique(ints(records, "partition"))
        )

    @cached_property
    def looks(self) -> list[tuple[int, str]]:
        """The looks at the final rows that were taken, and how to speak of them."""
        later = bool((array(self.events("phases"), "phase") == "later").any())
        return [(0, "once settled"), *([(1, "25 hours later")] if later else [])]

    @property
    def engine_inputs(self) -> dict[int, list[tuple[int, OrderCommand]]]:
        """The commands in validated.orders by partition, with their offsets, up to the first that does not decode."""
        return self.decoded.engine_inputs()

    @property
    def requests(self) -> pd.DataFrame:
        """Records of order.requests."""
        return self.decoded.frame("requests")

    @property
    def responses(self) -> pd.DataFrame:
        """Records of order.responses."""
        return self.decoded.frame("responses")

    @property
    def validated(self) -> pd.DataFrame:
        """Records of validated.orders."""
        return self.decoded.frame("validated")

    @property
    def outputs(self) -> pd.DataFrame:
        """Records of engine.outputs, one row each."""
        return self.decoded.frame("outputs")

    @property
    def order_events(self) -> pd.DataFrame:
        """Every placement, update, completion and refusal with the order's whole state."""
        return self.decoded.frame("order_events")

    @cached_property
    def placements(self) -> pd.DataFrame:
        """The order events that are placements."""
        return self._order_events_of(PLACEMENT)

    @cached_property
    def updates(self) -> pd.DataFrame:
        """The order events that are updates."""
        return self._order_events_of(UPDATE)

    @cached_property
    def completions(self) -> pd.DataFrame:
        """The order events that are completions."""
        return self._order_events_of(COMPLETION)

    @cached_property
    def refusals(self) -> pd.DataFrame:
        """The order events that are refusals by the engine."""
        return self._order_events_of(REFUSAL)

    @cached_property
    def last_states(self) -> pd.DataFrame:
        """The engine's last word on each order that it placed: the event of the highest revision, one row an order."""
        lived = rows(self.order_events, ints(self.order_events, "event") != REFUSAL)
        order = np.lexsort((ints(lived, "revision"), ints(lived, "order_id")))
        ids = ints(lived, "order_id")[order]
        last = np.r_[ids[1:] != ids[:-1], True] if len(ids) else np.empty(0, dtype=bool)
        states: pd.DataFrame = lived.iloc[order[last]].reset_index(drop=True)
        return states

    @property
    def trades(self) -> pd.DataFrame:
        """Every trade."""
        return self.decoded.frame("trades")

    @property
    def fund_updates(self) -> pd.DataFrame:
        """What each output says for each user it touches, as the outputs hold it."""
        return self.decoded.frame("fund_updates")

    @property
    def fund_entries(self) -> pd.DataFrame:
        """The entries of `fund_updates`."""
        return self.decoded.frame("fund_entries")

    @property
    def sent_updates(self) -> pd.DataFrame:
        """Records of fund.updates."""
        return self.decoded.frame("sent_updates")

    @property
    def balance_events(self) -> pd.DataFrame:
        """Records of balance.events, one row each."""
        return self.decoded.frame("balance_events")

    @property
    def ledger_entries(self) -> pd.DataFrame:
        """The entries of the balance events."""
        return self.decoded.frame("ledger_entries")

    @property
    def dead_letters(self) -> pd.DataFrame:
        """Records of dead.letters."""
        return self.decoded.frame("dead_letters")

    @property
    def undecodable(self) -> pd.DataFrame:
        """Records of any topic that do not decode, with the reason."""
        return self.decoded.frame("undecodable")

    @cached_property
    def has_settled(self) -> bool:
        """Whether the run reached the point where the system had settled."""
        return bool((array(self.events("phases"), "phase") == "settled").any())

    @cached_property
    def rows_are_due(self) -> bool:
        """Whether everything in the log had reached the store when its rows were read."""
        return self.has_settled or (self.manifest.audit is not None and self.manifest.audit.rows_are_due)

    def judged_by_row(self, orders: pd.DataFrame) -> pd.DataFrame:
        """Those of some orders whose rows are judged: all, but in an audit those without a later event."""
        audit = self.manifest.audit
        if audit is None or not audit.later_orders:
            return orders
        return rows(orders, ~np.isin(ints(orders, "order_id"), audit.later_orders))

    @cached_property
    def struck_faults(self) -> frozenset[str]:
        """Names of the faults that struck."""
        return frozenset(str(name) for name in array(self.events("faults"), "fault"))

    def _order_events_of(self, event: int) -> pd.DataFrame:
        events = self.order_events
        return rows(events, ints(events, "event") == event).reset_index(drop=True)


def _frame(tables: Tables, kind: str, names: Sequence[str]) -> pd.DataFrame:
    """Columns of a kind as a DataFrame: int64 and bool columns, TEXT for texts that hardly repeat, objects for the
    others and for bytes. Made piece by piece, so that Arrow's columns are not all there as well."""
    types = dict(columns_of(kind))
    numbers = [name for name in names if types[name] == "int"]
    others = [name for name in names if types[name] != "int"]
    blocks: list[Block] = []
    for piece in tables.pieces(kind, names):
        block = np.empty((len(numbers), piece.num_rows), dtype=np.int64)
        for row, name in zip(block, numbers, strict=True):
            row[:] = piece.column(name).to_numpy()
        blocks.append((block, {name: _values(piece.column(name)) for name in others}))
    return assembled(names, numbers, *joined(names, numbers, others, blocks))


def _values(column: pa.ChunkedArray) -> Any:
    column = column.combine_chunks()
    column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_dictionary(column.type):
        return np.asarray(column.dictionary.to_pylist(), dtype=object)[column.indices.to_numpy()]
    if pa.types.is_string(column.type):
        return column.cast(pa.large_string())
    if pa.types.is_boolean(column.type):
        return column.to_numpy(zero_copy_only=False)
    return np.array(column.to_pylist(), dtype=object)
