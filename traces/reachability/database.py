"""Situations between settlement, the gateways and the database."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from schema.codes import LIVE_STATUSES
from schema.tables import ACTIVE_ORDERS, ORDER_HISTORY, ORDER_LOOKUP, TABLE_COLUMNS, USER_TRADES
from traces.matching_rows import Ints, Mask, array, codes, first_places, ints, is_any, rows
from traces.reachability.goals import goal
from traces.trace import Trace

_TIMED_OUT = ("OperationTimedOut", "WriteTimeout")
_ORDER_ROWS = (ACTIVE_ORDERS, ORDER_LOOKUP, ORDER_HISTORY)
"""The tables of which a trace tells rows apart: those with one row for each order, written once for each revision."""
_REVISION = ("table", "order_id", "write_timestamp")
"""What tells the writes to those apart."""
_OF_OUTPUTS = (ACTIVE_ORDERS, ORDER_LOOKUP, USER_TRADES)
"""The tables that only engine.outputs fills."""


@goal("write-of-unknown-outcome")
def write_of_unknown_outcome(trace: Trace) -> int:
    """A write timed out: it may have been applied, or not."""
    return int(is_any(_writes(trace), "outcome", *_TIMED_OUT).sum())


@goal("write-timed-out-and-applied")
def write_timed_out_and_applied(trace: Trace) -> int:
    """A write timed out although some replicas had applied it."""
    writes = _writes(trace)
    return int((is_any(writes, "outcome", *_TIMED_OUT) & (ints(writes, "replicas") > 0)).sum())


@goal("write-repeated-until-it-succeeded")
def write_repeated_until_it_succeeded(trace: Trace) -> int:
    """An order's row whose write had failed was written again by the same life of settlement, with success."""
    writes = _writes(trace)
    mine = rows(writes, is_any(writes, "table", *_ORDER_ROWS))
    (key,), size = codes((*_REVISION, "host"), mine)
    ok = _ok(mine)
    failed = _earliest(key[~ok], ints(mine, "t")[~ok], size)[key]
    later = ok & (failed <= ints(mine, "started_t"))
    return int((later & ~_was_interrupted(trace, array(mine, "host"), failed, ints(mine, "started_t"))).sum())


@goal("write-refused-as-unavailable")
def write_refused_as_unavailable(trace: Trace) -> int:
    """A write was refused because too few replicas were up."""
    return int(is_any(_writes(trace), "outcome", "Unavailable").sum())


@goal("read-failed-in-the-database")
def read_failed_in_the_database(trace: Trace) -> int:
    """A query of a gateway for rows of a user failed."""
    selects = _selects(trace)
    at_gateway = np.char.startswith(array(selects, "host").astype(str), "gateway")
    return int((~_ok(selects) & at_gateway).sum())


@goal("batch-half-written")
def batch_half_written(trace: Trace) -> int:
    """Of the rows of one partition's outputs that settlement sent at one moment, some were written and some failed."""
    writes = _writes(trace)
    mine = rows(writes, is_any(writes, "table", *_OF_OUTPUTS) & (ints(writes, "symbol_id") > 0))
    partitions = {int(each.symbol_id): each.partition for each in trace.topology.symbols}
    partition = np.array([partitions.get(each, -1) for each in ints(mine, "symbol_id").tolist()], dtype=np.int64)
    (sent,), moments = codes(("host", "started_t"), mine)
    key, size = sent * (len(partitions) + 1) + partition + 1, moments * (len(partitions) + 1)
    ok = _ok(mine)
    return int(((np.bincount(key[ok], minlength=size) > 0) & (np.bincount(key[~ok], minlength=size) > 0)).sum())


@goal("row-written-again")
def row_written_again(trace: Trace) -> int:
    """A row that had been written was written again, by a replay."""
    return len(trace.once(_repeats))


@goal("row-written-by-two-instances")
def row_written_by_two_instances(trace: Trace) -> int:
    """A row that one instance of settlement had written was written again by another: the partition had moved."""
    again = trace.once(_repeats)
    return int((array(again, "host") != array(again, "first_host")).sum())


@goal("older-revision-written-last")
def older_revision_written_last(trace: Trace) -> int:
    """A row's older revision was sent when a newer one had been written: only its timestamp kept it from winning."""
    writes = _writes(trace)
    mine = rows(writes, (array(writes, "table") == ACTIVE_ORDERS) & _ok(writes))
    (key,), _ = codes(("order_id",), mine)
    revision, t, started = ints(mine, "write_timestamp"), ints(mine, "t"), ints(mine, "started_t")
    # Each write twice, when it was sent and when it was done, by order and time; of two at once the done one first.
    sent = np.repeat([0, 1], len(mine))
    order = np.lexsort((sent, np.concatenate([t, started]), np.tile(key, 2)))
    span = int(revision.max(initial=0)) + 1
    of_order = np.tile(key, 2)[order] * span
    newest = np.maximum.accumulate(of_order + np.where(sent[order] == 0, np.tile(revision, 2)[order], 0)) - of_order
    return int(((sent[order] == 1) & (newest > np.tile(revision, 2)[order])).sum())


@goal("finished-row-expired")
def finished_row_expired(trace: Trace) -> int:
    """A finished order's row was there once the system had settled, and gone 25 hours later."""
    before, after = trace.final(ACTIVE_ORDERS, 0), trace.final(ACTIVE_ORDERS, 1)
    finished = ints(rows(before, ~np.isin(ints(before, "status"), LIVE_STATUSES)), "order_id")
    gone = int((~np.isin(finished, ints(after, "order_id"))).sum())
    return gone if len(trace.looks) > 1 else 0


def _writes(trace: Trace) -> pd.DataFrame:
    return trace.once(_inserts)


def _inserts(trace: Trace) -> pd.DataFrame:
    return _statements(trace, "INSERT")


def _selects(trace: Trace) -> pd.DataFrame:
    return _statements(trace, "SELECT")


def _statements(trace: Trace, operation: str) -> pd.DataFrame:
    """Statements about rows; what a start has to do with the schema is none."""
    statements = trace.events("cql")
    return rows(statements, is_any(statements, "operation", operation) & is_any(statements, "table", *TABLE_COLUMNS))


def _ok(statements: pd.DataFrame) -> Mask:
    mask: Mask = array(statements, "outcome") == "ok"
    return mask


def _repeats(trace: Trace) -> pd.DataFrame:
    """Successful writes of a row that were sent when it had been written: host, and first_host that wrote it first."""
    writes = _writes(trace)
    mine = rows(writes, (array(writes, "table") == ACTIVE_ORDERS) & _ok(writes))
    (key,), size = codes(("order_id", "write_timestamp"), mine)
    # Rows are in the order in which they were written, so the first with a key is the first that was.
    first = first_places(key, size)[key]
    again = (first < np.arange(len(mine))) & (ints(mine, "t")[first] <= ints(mine, "started_t"))
    hosts = array(mine, "host")
    return pd.DataFrame({"host": hosts[again], "first_host": hosts[first[again]]})


def _earliest(key: Ints, t: Ints, size: int) -> Ints:
    """For each key below `size` the smallest of its times; the end of time where it has none."""
    found = np.full(size, np.iinfo(np.int64).max)
    np.minimum.at(found, key, t)
    return found


def _was_interrupted(trace: Trace, hosts: npt.NDArray[Any], since: Ints, until: Ints) -> Mask:
    """Whether settlement on each host was started, or given partitions, between two moments: a write after that is no
    repeat of one before, but a replay."""
    lives, changes = trace.events("lifecycle"), trace.events("rebalances")
    started = rows(lives, is_any(lives, "event", "start"))
    given = rows(changes, is_any(changes, "action", "assign"))
    found = np.zeros(len(hosts), dtype=bool)
    for host in np.unique(hosts[since <= until].astype(str)).tolist():
        times = [ints(each, "t")[is_any(each, "host", host)] for each in (started, given)]
        at = np.sort(np.concatenate(times))
        mine = hosts == host
        found[mine] = np.searchsorted(at, until[mine], "right") > np.searchsorted(at, since[mine], "right")
    return found
