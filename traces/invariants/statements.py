"""Invariants about what the services ask of the database and the order in which they say that something is done.

They look at the recorded statements, which only a simulated run has: an audit of a live system does not exercise them.
"""

from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schema.services import SETTLEMENT
from schema.tables import SETTLEMENT_PROGRESS
from schema.topics import BALANCE_EVENTS, ENGINE_OUTPUTS
from traces.derived import REFUSAL
from traces.invariants.ends import NEVER, settlement_ends
from traces.invariants.reads import written_rows
from traces.matching_rows import Ints, array, ints, is_any
from traces.trace import Trace
from traces.verdicts import Findings, Verdict, invariant

_QUORUM: Final = "LOCAL_QUORUM"
_OBSERVER: Final = "observer"
"""The host whose statements are the harness's own: it reads the final rows, at ALL."""
_ROW_TABLES: Final = ("active_orders", "order_lookup", "order_history")
"""Each word of the engine on an order that it placed is a row of each of these."""
_SEQUENCE_COLUMN: Final = {ENGINE_OUTPUTS: "output_seq", BALANCE_EVENTS: "sequence"}
_TAKING_FAULTS: Final = ("unclean-leader-change", "lost-record")
"""After these the log is not what settlement read: what it wrote and committed may speak of records that are gone."""


@invariant("statements-at-quorum")
def statements_at_quorum(trace: Trace) -> Verdict:
    """Every statement of a service, read or write, is at LOCAL_QUORUM.

    One at ONE is answered as well as any other while no replica is behind, so what it returns hardly ever shows it.
    A statement of a batch has the batch's consistency. One that was sent again has that of the last attempt: a retry
    policy that asks for less is seen, too.
    """
    found = Findings()
    columns = ("t", "host", "table", "operation", "consistency")
    for piece in trace.tables.pieces("cql", columns):
        of_services = pc.not_equal(piece.column("host"), _OBSERVER)
        found.checked(pc.sum(of_services).as_py() or 0)
        wrong = piece.filter(pc.and_(of_services, pc.not_equal(piece.column("consistency"), _QUORUM)))
        if wrong.num_rows:
            frame = Trace(trace.manifest, {"cql": wrong}).events("cql", *columns)
            found.add(f"statement is not at {_QUORUM}", frame, *columns[1:], "t")
    return found.verdict


@invariant("offsets-after-rows")
def offsets_after_rows(trace: Trace) -> Verdict:
    """Settlement commits an offset only when the rows of every record below it, and then a progress that covers the
    last of them, have been acknowledged: rows, then progress, then offset (design section 4.4.1).

    Rows count that are as new as the record: of several revisions in one batch only the last is written. The rows of
    balance.events are those of the ledger that belong to an order.

    The recorded statements do not say whose progress they write. One counts for every partition whose log held a
    record of its sequence when it began. It counts from its acknowledgement on; or from the next assignment of
    partitions, because who takes a partition over reads what a write has left whose answer nobody has got. When a
    process of settlement ends, what it had under way is not recorded: any record in the log by then may be covered;
    and any in the log by an assignment before that, for who takes a partition over from one that hangs.
    """
    found = Findings()
    commits = trace.events("offset_commits")
    judged = (array(commits, "group") == SETTLEMENT) & (array(commits, "outcome") == "ok")
    judged &= is_any(commits, "topic", ENGINE_OUTPUTS, BALANCE_EVENTS)
    if not judged.any() or not trace.has("cql") or not trace.struck_faults.isdisjoint(_TAKING_FAULTS):
        return found.verdict
    topic_of, number, offset, t = (array(commits, name) for name in ("topic", "partition", "offset", "t"))
    progress, written = _Progress(trace), _Acknowledged(trace)
    where = ("topic", "partition", "offset", "t")
    for topic, log, made in (
        (ENGINE_OUTPUTS, trace.outputs, _order_rows(trace, written)),
        (BALANCE_EVENTS, trace.balance_events, _ledger_rows(trace, written)),
    ):
        of_topic = judged & (topic_of == topic)
        places, appended_t = ints(log, "offset"), ints(log, "t")
        sequences = ints(log, _SEQUENCE_COLUMN[topic])
        for partition in np.unique(number[of_topic]).tolist():
            mine = _part(ints(log, "partition"), partition)
            at = np.flatnonzero(of_topic & (number == partition))
            # The last record below each offset. What has no record below it says nothing.
            last = np.searchsorted(places[mine], offset[at]) - 1
            at, last = at[last >= 0], last[last >= 0]
            found.checked(len(at))
            sequence = sequences[mine]
            covered = progress.covered(sequence, appended_t[mine], t[at])
            early = np.flatnonzero(covered < sequence[last])
            if len(early):
                found.add(
                    "offset was committed before progress had reached it",
                    commits.iloc[at[early]].assign(sequence=sequence[last[early]], progress=covered[early]),
                    *where, "sequence", "progress",
                )  # fmt: skip
            # The rows of the records below: which was acknowledged last.
            mine = _part(made.partition, partition)
            below = np.searchsorted(made.offset[mine], offset[at]) - 1
            at, below = at[below >= 0], below[below >= 0]
            latest = made.latest(mine)[below]
            early = np.flatnonzero(made.since[latest] > t[at])
            if len(early):
                tables, orders = made.table[latest[early]], made.order_id[latest[early]]
                found.add(
                    "offset was committed before a row was acknowledged",
                    commits.iloc[at[early]].assign(table=[made.tables[each] for each in tables], order_id=orders),
                    *where, "table", "order_id",
                )  # fmt: skip
    return found.verdict


def _part(partitions: Ints, partition: int) -> slice:
    """Where the rows of a partition stand: decoded tables have one after the other."""
    return slice(*np.searchsorted(partitions, [partition, partition + 1]).tolist())


class _Made(NamedTuple):
    """Rows that the records of a topic are due, in the order of the log, and `since` when each was acknowledged: all
    its `tables`, of which `table` was the last."""

    partition: Ints
    offset: Ints
    order_id: Ints
    since: Ints
    table: Ints
    tables: tuple[str, ...]

    def latest(self, part: slice) -> Ints:
        """For each of some rows which one was acknowledged last, of it and those before it."""
        since = self.since[part]
        is_latest = since == np.maximum.accumulate(since)
        found: Ints = part.start + np.maximum.accumulate(np.where(is_latest, np.arange(len(since)), 0))
        return found


def _order_rows(trace: Trace, written: "_Acknowledged") -> _Made:
    """The rows of the orders that engine.outputs speaks of."""
    events = trace.order_events
    lived = ints(events, "event") != REFUSAL
    partition, offset, order_id, revision = (
        ints(events, name)[lived] for name in ("partition", "offset", "order_id", "revision")
    )
    each = np.array([written.since(table, order_id, revision) for table in _ROW_TABLES])
    return _Made(partition, offset, order_id, each.max(axis=0), each.argmax(axis=0), _ROW_TABLES)


def _ledger_rows(trace: Trace, written: "_Acknowledged") -> _Made:
    """The rows of the ledger entries of balance.events. Only those of orders: of others the recorded statements do not
    say enough."""
    entries = trace.ledger_entries
    of_orders = ints(entries, "order_id") > 0
    partition, offset, order_id, sequence = (
        ints(entries, name)[of_orders] for name in ("partition", "offset", "order_id", "ledger_seq")
    )
    since = written.since("balance_ledger", order_id, sequence)
    return _Made(partition, offset, order_id, since, np.zeros(len(since), dtype=np.int64), ("balance_ledger",))


class _Acknowledged:
    """The writes of orders' rows that were acknowledged."""

    def __init__(self, trace: Trace) -> None:
        written = trace.once(written_rows)
        self._order_id, self._version, self._t = (ints(written, name) for name in ("order_id", "write_timestamp", "t"))
        self._table = np.where(array(written, "outcome") == "ok", array(written, "table"), "")

    def since(self, table: str, order_id: Ints, version: Ints) -> Ints:
        """When a write of each order's row, under this write timestamp or a higher one, was acknowledged first; NEVER
        if none was."""
        since = np.full(len(order_id), NEVER, dtype=np.int64)
        mine = np.flatnonzero(self._table == table)
        if not len(mine) or not len(since):
            return since
        orders, numbers = np.unique(self._order_id[mine], return_inverse=True)
        moments, rank = np.unique(self._t[mine], return_inverse=True)
        # One that is not the row's revision, as a clock's, is as good as the highest.
        stamp = np.clip(self._version[mine], 0, version.max())
        # Each order's writes from the highest timestamp down, so that those that count for a version come first.
        # Orders have ranges of their own, in which a running minimum does not see the order before.
        width = int(version.max()) + 1
        key = numbers * width + (width - 1 - stamp)
        at = np.argsort(key, kind="stable")
        behind = numbers[at] * len(moments)
        first = np.minimum.accumulate(rank[at] - behind) + behind
        wanted = np.minimum(np.searchsorted(orders, order_id), len(orders) - 1)
        place = np.searchsorted(key[at], wanted * width + (width - 1 - version), "right") - 1
        known = (orders[wanted] == order_id) & (place >= 0) & (numbers[at][place] == wanted)
        since[known] = moments[first[place[known]]]
        return since


class _Progress:
    """The writes of settlement_progress, from when on each counts."""

    def __init__(self, trace: Trace) -> None:
        columns = ("t", "table", "write_timestamp", "started_t", "outcome")
        # A read of progress has no write timestamp.
        pieces = [
            piece.filter(
                pc.and_(
                    pc.equal(piece.column("table"), SETTLEMENT_PROGRESS),
                    pc.greater_equal(piece.column("write_timestamp"), 0),
                )
            )
            for piece in trace.tables.pieces("cql", columns)
        ]
        writes = pa.concat_tables(pieces)
        self._sequence: Ints = writes.column("write_timestamp").to_numpy()
        self._started_t: Ints = writes.column("started_t").to_numpy()
        acknowledged_t = np.where(
            pc.equal(writes.column("outcome"), "ok").to_numpy(), writes.column("t").to_numpy(), NEVER
        )
        changes = trace.events("rebalances")
        is_assignment = (array(changes, "group") == SETTLEMENT) & (array(changes, "action") == "assign")
        assigned_t = np.sort(ints(changes, "t")[is_assignment])
        moments = np.append(assigned_t, NEVER)
        self._since = np.minimum(acknowledged_t, moments[np.searchsorted(assigned_t, self._started_t)])
        ended_t = settlement_ends(trace)
        self._unrecorded_t = np.append(ended_t, assigned_t[assigned_t < ended_t.max(initial=0)])

    def covered(self, sequence: Ints, appended_t: Ints, moments: Ints) -> Ints:
        """How far progress may have covered a partition at some moments. Its records have these sequences, and were
        appended then."""
        began, unrecorded = (
            np.append(0, sequence)[np.searchsorted(appended_t, each, "right")]
            for each in (self._started_t, self._unrecorded_t)
        )
        reached = np.append(np.where(self._sequence <= began, self._sequence, 0), unrecorded)
        since = np.append(self._since, self._unrecorded_t)
        order = np.argsort(since, kind="stable")
        highest: Ints = np.maximum.accumulate(np.append(0, reached[order]))
        return highest[np.searchsorted(since[order], moments, "right")]
