"""Situations between settlement, the gateways and the database."""

import numpy as np
import pandas as pd

from schema.tables import ACTIVE_ORDERS
from traces.matching_rows import Mask, array, codes, ints, is_any, rows
from traces.reachability.goals import goal
from traces.trace import Trace

_TIMED_OUT = ("OperationTimedOut", "WriteTimeout")
_ROW = ("table", "user_id", "symbol_id", "order_id", "write_timestamp")
"""What tells rows written apart, as far as a trace records it."""


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
    """A row whose write had failed was written again, with success."""
    writes = _writes(trace)
    (key,), size = codes(_ROW, writes)
    failed = np.full(size, np.iinfo(np.int64).max)
    wrong = ~_ok(writes)
    place = np.arange(len(writes))
    np.minimum.at(failed, key[wrong], place[wrong])
    return int((~wrong & (failed[key] < place)).sum())


@goal("write-refused-as-unavailable")
def write_refused_as_unavailable(trace: Trace) -> int:
    """A write was refused because too few replicas were up."""
    return int(is_any(_writes(trace), "outcome", "Unavailable").sum())


@goal("read-failed-in-the-database")
def read_failed_in_the_database(trace: Trace) -> int:
    """A query of a gateway failed, and its client was told so or it was asked again."""
    selects = _selects(trace)
    at_gateway = np.char.startswith(array(selects, "host").astype(str), "gateway")
    return int((~_ok(selects) & at_gateway).sum())


@goal("batch-half-written")
def batch_half_written(trace: Trace) -> int:
    """Of the writes that settlement sent at one moment, some succeeded and some failed."""
    writes = _writes(trace)
    (key,), size = codes(("host", "started_t"), writes)
    ok = _ok(writes)
    return int(((np.bincount(key[ok], minlength=size) > 0) & (np.bincount(key[~ok], minlength=size) > 0)).sum())


@goal("row-written-again")
def row_written_again(trace: Trace) -> int:
    """A row that had been written was written again, by a replay."""
    return len(trace.once(_repeats))


@goal("row-written-by-two-instances")
def row_written_by_two_instances(trace: Trace) -> int:
    """A row was written by one instance of settlement, and again by another that took its partition over."""
    again = trace.once(_repeats)
    return int((array(again, "host") != array(again, "first_host")).sum())


@goal("older-revision-written-last")
def older_revision_written_last(trace: Trace) -> int:
    """A row's older revision reached the database after a newer one: only its timestamp kept it from winning."""
    writes = _writes(trace)
    mine = rows(writes, (array(writes, "table") == ACTIVE_ORDERS) & _ok(writes))
    (key,), _ = codes(("order_id",), mine)
    order = np.lexsort((ints(mine, "seq"), key))
    key, revision = key[order], ints(mine, "write_timestamp")[order]
    return int(((key[1:] == key[:-1]) & (revision[1:] < revision[:-1])).sum())


@goal("finished-row-expired")
def finished_row_expired(trace: Trace) -> int:
    """A finished order's row was there once the system had settled, and gone 25 hours later."""
    before, after = trace.final(ACTIVE_ORDERS, 0), trace.final(ACTIVE_ORDERS, 1)
    finished = ints(rows(before, ints(before, "ttl") > 0), "order_id")
    gone = int((~np.isin(finished, ints(after, "order_id"))).sum())
    return gone if len(trace.looks) > 1 else 0


def _writes(trace: Trace) -> pd.DataFrame:
    return trace.once(_inserts)


def _inserts(trace: Trace) -> pd.DataFrame:
    statements = trace.events("cql")
    return rows(statements, array(statements, "operation") == "INSERT")


def _selects(trace: Trace) -> pd.DataFrame:
    statements = trace.events("cql")
    return rows(statements, array(statements, "operation") == "SELECT")


def _ok(statements: pd.DataFrame) -> Mask:
    mask: Mask = array(statements, "outcome") == "ok"
    return mask


def _repeats(trace: Trace) -> pd.DataFrame:
    """Successful writes of a row that had been written before: host, and first_host that wrote it first."""
    writes = _writes(trace)
    mine = rows(writes, (array(writes, "table") == ACTIVE_ORDERS) & _ok(writes))
    (key,), size = codes(("order_id", "write_timestamp"), mine)
    first = np.full(size, len(mine))
    place = np.arange(len(mine))
    np.minimum.at(first, key, place)
    again = first[key] < place
    hosts = array(mine, "host")
    return pd.DataFrame({"host": hosts[again], "first_host": hosts[first[key[again]]]})
