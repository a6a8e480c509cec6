"""Invariants about the rows of the store, once the system has settled and again 25 hours later.

What the rows must be follows from the events alone: `expected_*` say it, for each table.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from schema.codes import OrderStatus, OrderType, Outcome, Reason
from schema.identifiers import INT64_MAX
from schema.tables import FINISHED_ROW_TTL_S
from schema.topics import BALANCE_EVENTS, ENGINE_OUTPUTS
from traces.frames import frame_of
from traces.matching_rows import Ints, Mask, array, compare, find, ints, is_in, renamed, repeated, rows, texts
from traces.trace import Trace
from traces.verdicts import Findings, Verdict, invariant

ROW_KEY = ("user_id", "symbol_id", "created_at", "order_id")
TRADE_KEY = ("user_id", "symbol_id", "traded_at", "trade_id")
LEDGER_KEY = ("user_id", "asset_id", "ledger_seq")
BALANCE_KEY = ("user_id", "asset_id")

_ORDER_VALUES = (
    "updated_at", "revision", "status", "reason", "side", "order_type", "time_in_force", "price", "quantity",
    "filled_quantity", "filled_quote", "max_spend", "client_order_id",
)  # fmt: skip
_TRADE_VALUES = (
    "order_id", "side", "is_maker", "price", "quantity", "quote_amount", "symbol_partition", "output_seq",
)  # fmt: skip
_LEDGER_VALUES = (
    "kind", "order_id", "available_delta", "locked_delta", "available_after", "locked_after", "recorded_at",
    "user_partition", "event_seq",
)  # fmt: skip
_INT32_MAX = 2**31 - 1
_NS_PER_S = 1_000_000_000
_CLOCK_FAULTS = ("clock-jump", "clock-drift")
_DATABASE_CLOCK_FAULT = "database-clock-skew"
_TTL_SLACK_S = 3600
"""How much longer than 24 hours a time to live may be, because hosts' clocks differ."""
_ROUNDING_S = 2
"""How far an expiry may be from 24 hours after the completion where all clocks are right. Settlement rounds the time to
live up to a second; the database counts from a whole second, and tells the rest of it in whole seconds."""
_WAITING_MAX_S = 30
"""How long a statement may be with the adapter and the driver (settlement's `give_up_ms`) after its time to live was
computed. Then it is sent again, with a time to live computed anew."""
_IN_FLIGHT_MAX = 256
"""Where fewer statements than so many are under way (settlement's `max_in_flight`) none waits: it is sent in the moment
in which its time to live is computed."""


@invariant("rows-complete")
def rows_complete(trace: Trace) -> Verdict:
    """Once settled, every placement has its lookup, every trade its two user_trades rows, every order its history,
    every balance event its ledger row, until their time to live.

    25 hours later the same is true of everything but finished orders' rows in active_orders and order_lookup: those
    are gone. They go 24 hours after the completion, whenever they are written and however often: where no clock was
    wrong, the row's time to live says so, and that of every write of it. settlement_progress stands at the last record
    of each chained partition.
    """
    found = Findings()
    if not trace.rows_are_due:
        return found.verdict
    orders = trace.judged_by_row(trace.once(expected_orders))
    final = ~np.isin(ints(orders, "status"), (OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED))
    refused = trace.judged_by_row(trace.once(expected_refusals))
    sides = trace.once(expected_trade_sides)
    ledger = trace.once(expected_ledger)
    for look, when in trace.looks:
        history, lookup = trace.final("order_history", look), trace.final("order_lookup", look)
        active = trace.final("active_orders", look)
        kept = rows(orders, ~(final & may_have_expired(trace, orders))) if look == 0 else rows(orders, ~final)
        for what, expected, table, key in (
            ("placement without its lookup", kept, lookup, ("order_id",)),
            ("order without its history", orders, history, ROW_KEY),
            ("refused order without its history", refused, history, ROW_KEY),
            ("trade without a user's row", sides, trace.final("user_trades", look), TRADE_KEY),
            ("ledger entry without its row", ledger, trace.final("balance_ledger", look), LEDGER_KEY),
        ):
            found.checked(len(expected))
            identity = dict.fromkeys((*key, *(name for name in ("user_id", "order_id") if name in expected)))
            found.where(f"{what} {when}", expected, ~is_in(expected, table, key), *identity)
        _check_expiry(trace, found, look, rows(orders, final), active, lookup)
        _check_progress(trace, found, look, when)
    _check_written_expiry(trace, found, rows(orders, final))
    return found.verdict


@invariant("row-matches-engine")
def row_matches_engine(trace: Trace) -> Verdict:
    """Each row equals the engine's last word on the order (highest revision), column by column.

    The same for the rows of trades, ledger entries and refusals, and for the write timestamps, which the design fixes
    (an order's revision, a ledger sequence, an output sequence).
    """
    found = Findings()
    if not trace.rows_are_due:
        return found.verdict
    orders, refused = trace.once(expected_orders), trace.once(expected_refusals)
    histories = pd.concat([orders, refused], ignore_index=True) if len(refused) else orders
    histories = rows(histories, ~repeated(histories, ROW_KEY))
    expected = {
        "active_orders": (orders, ("order_id",), (*ROW_KEY[:3], *_ORDER_VALUES)),
        "order_history": (histories, ROW_KEY, _ORDER_VALUES),
        "order_lookup": (orders, ("order_id",), ("user_id", "symbol_id", "created_at", "revision")),
        "user_trades": (trace.once(expected_trade_sides), TRADE_KEY, _TRADE_VALUES),
        "balance_ledger": (trace.once(expected_ledger), LEDGER_KEY, _LEDGER_VALUES),
    }
    for table, (events, key, columns) in expected.items():
        for look, when in trace.looks:
            final = trace.final(table, look)
            compared = compare(events, final, key, (*columns, "write_timestamp"))
            found.checked(compared.matched)
            identity = dict.fromkeys((*key, "user_id"))
            found.add(f"row of {table} is not the last word {when}", compared.differing, *identity, "differs")
            if table in ("order_history", "user_trades", "balance_ledger"):
                found.where(f"row of {table} would expire {when}", final, ints(final, "ttl") >= 0, *identity, "ttl")
    return found.verdict


@invariant("no-phantom-row")
def no_phantom_row(trace: Trace) -> Verdict:
    """Every row has an event that made it."""
    found = Findings()
    if not trace.begins_at_one:
        return found.verdict
    orders, ledger = trace.once(expected_orders), trace.once(expected_ledger)
    made = {
        "active_orders": (orders, ROW_KEY),
        "order_lookup": (orders, ("order_id", "user_id", "symbol_id", "created_at")),
        "order_history": (pd.concat([orders, expected_refusals(trace, storable=False)], ignore_index=True), ROW_KEY),
        "user_trades": (trace.once(expected_trade_sides), (*TRADE_KEY, "order_id")),
        "balance_ledger": (ledger, LEDGER_KEY),
        "user_balances": (ledger, BALANCE_KEY),
    }
    for table, (events, key) in made.items():
        for look, when in trace.looks:
            final = trace.final(table, look)
            found.checked(len(final))
            found.where(f"row of {table} without an event {when}", final, ~is_in(final, events, key), *key)
    key = ("topic", "partition_id", "sequence", "hash", "next_offset")
    for look, when in trace.looks:
        final = trace.final("settlement_progress", look)
        found.checked(len(final))
        events = chained_records(trace, ints(final, "hash"))
        found.where(f"row of settlement_progress without an event {when}", final, ~is_in(final, events, key), *key)
    return found.verdict


@invariant("one-row-per-order")
def one_row_per_order(trace: Trace) -> Verdict:
    """At most one row per order in active_orders, and order_lookup points at it."""
    found = Findings()
    for look, when in trace.looks:
        active, lookup = trace.final("active_orders", look), trace.final("order_lookup", look)
        found.checked(len(active))
        found.where(f"order with more than one row {when}", active, repeated(active, ("order_id",)), *ROW_KEY)
        found.where(f"order with more than one lookup {when}", lookup, repeated(lookup, ("order_id",)), *ROW_KEY)
        at = find(ints(active, "order_id"), ints(lookup, "order_id"))
        # A finished order's two rows expire each for itself; only a live one must have its lookup for ever.
        live = np.isin(ints(active, "status"), (OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED))
        found.where(f"row without a lookup {when}", active, (at < 0) & (live | (look == 0)), *ROW_KEY)
        pointed = lookup.iloc[at[at >= 0]]
        row = rows(active, at >= 0)
        astray = np.zeros(len(row), dtype=bool)
        for column in ROW_KEY[:3]:
            astray |= ints(pointed, column) != ints(row, column)
        found.where(f"lookup points at another row {when}", row, astray, *ROW_KEY)
        nowhere = ~np.isin(ints(lookup, "order_id"), ints(active, "order_id"))
        found.where(f"lookup points at no row {when}", lookup, nowhere & (look == 0), *ROW_KEY)
    return found.verdict


def may_have_expired(trace: Trace, orders: pd.DataFrame) -> Mask:
    """Which orders, if they are finished, may have lost their row before an audit read it. A run is over sooner."""
    audit = trace.manifest.audit
    if audit is None:
        return np.zeros(len(orders), dtype=bool)
    expires_at = ints(orders, "updated_at") + (FINISHED_ROW_TTL_S - _TTL_SLACK_S) * 1_000_000_000
    return np.asarray(expires_at <= audit.read_at_ns)


def expected_orders(trace: Trace) -> pd.DataFrame:
    """The rows that placed orders must have: their last states, with the columns of the tables."""
    return _as_rows(trace.last_states)


def expected_refusals(trace: Trace, *, storable: bool = True) -> pd.DataFrame:
    """The rows of order_history for orders that never lived: refused by the engine, or by the balance core.

    A duplicate id names an order that lives or lived: its history is that order's. What the balance core refused may
    hold numbers that fit no column; there is no row for it, and `storable` leaves it out.
    """
    by_engine = trace.refusals
    by_engine = rows(by_engine, ints(by_engine, "reason") != Reason.DUPLICATE_ORDER_ID)
    events = trace.balance_events
    command = array(events, "command")
    by_core = rows(
        events,
        ((command == "place") | (command == "replace"))
        & (ints(events, "outcome") == Outcome.REJECTED)
        & (ints(events, "is_repeat") == 0),
    )
    if storable:
        fits = np.ones(len(by_core), dtype=bool)
        for column in ("order_id", "user_id", "symbol_id", "price", "quantity", "max_spend"):
            fits &= np.abs(ints(by_core, column)) < INT64_MAX
        for column in ("side", "order_type", "time_in_force"):
            fits &= np.abs(ints(by_core, column)) <= _INT32_MAX
        by_core = rows(by_core, fits)
    replaces = array(by_core, "command") == "replace"
    zero = np.zeros(len(by_core), dtype=np.int64)
    from_core = frame_of(
        {
            **{name: ints(by_core, name) for name in ("order_id", "user_id", "symbol_id", "side", "time_in_force")},
            **{name: ints(by_core, name) for name in ("price", "quantity", "max_spend", "reason")},
            "created_at": ints(by_core, "time_ns"),
            "updated_at": ints(by_core, "time_ns"),
            "revision": zero + 1,
            "write_timestamp": zero + 1,
            "status": zero + OrderStatus.REJECTED,
            "order_type": np.where(replaces, int(OrderType.LIMIT), ints(by_core, "order_type")),
            "filled_quantity": zero,
            "filled_quote": zero,
            "client_order_id": texts(by_core, "request_id"),
        }
    )
    if not len(from_core):
        return _as_rows(by_engine)
    return pd.concat([_as_rows(by_engine), from_core], ignore_index=True) if len(by_engine) else from_core


def expected_trade_sides(trace: Trace) -> pd.DataFrame:
    """The rows of user_trades: the maker's and the taker's of every trade."""
    trades = trace.trades
    common = {
        "symbol_id": ints(trades, "symbol_id"),
        "traded_at": ints(trades, "time_ns"),
        "trade_id": ints(trades, "trade_id"),
        "price": ints(trades, "price"),
        "quantity": ints(trades, "quantity"),
        "quote_amount": ints(trades, "quote_amount"),
        "symbol_partition": ints(trades, "partition"),
        "output_seq": ints(trades, "output_seq"),
        "write_timestamp": ints(trades, "output_seq"),
    }
    taker_side = ints(trades, "taker_side")
    return frame_of(
        {
            **{name: np.concatenate([values, values]) for name, values in common.items()},
            "user_id": np.concatenate([ints(trades, "maker_user_id"), ints(trades, "taker_user_id")]),
            "order_id": np.concatenate([ints(trades, "maker_order_id"), ints(trades, "taker_order_id")]),
            "side": np.concatenate([1 - taker_side, taker_side]),
            "is_maker": np.arange(2 * len(trades)) < len(trades),
        }
    )


def expected_ledger(trace: Trace) -> pd.DataFrame:
    """The rows of balance_ledger: one for each entry."""
    entries = trace.ledger_entries
    rows_of = renamed(entries, time_ns="recorded_at", partition="user_partition", sequence="event_seq")
    return rows_of.assign(write_timestamp=ints(entries, "ledger_seq"))


def chained_records(trace: Trace, hashes: Ints) -> pd.DataFrame:
    """Those records of the chained topics that have one of the hashes, as settlement_progress would name them."""
    return _progress_at(
        rows(records, np.isin(ints(records, "hash"), hashes)) for records in (trace.outputs, trace.balance_events)
    )


def last_records(trace: Trace) -> pd.DataFrame:
    """The last record of each chained partition, as settlement_progress would name it."""
    # Decoded tables stand in the order of the log, partition by partition.
    parts = []
    for records in (trace.outputs, trace.balance_events):
        partition = ints(records, "partition")
        is_last = np.r_[partition[1:] != partition[:-1], True] if len(partition) else np.zeros(0, dtype=bool)
        parts.append(rows(records, is_last))
    return _progress_at(parts)


def _progress_at(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    outputs, events = parts
    return frame_of(
        {
            "topic": np.repeat(np.array([ENGINE_OUTPUTS, BALANCE_EVENTS], dtype=object), [len(outputs), len(events)]),
            "partition_id": np.concatenate([ints(outputs, "partition"), ints(events, "partition")]),
            "sequence": np.concatenate([ints(outputs, "output_seq"), ints(events, "sequence")]),
            "hash": np.concatenate([ints(outputs, "hash"), ints(events, "hash")]),
            "next_offset": np.concatenate([ints(outputs, "offset"), ints(events, "offset")]) + 1,
        }
    )


def _as_rows(events: pd.DataFrame) -> pd.DataFrame:
    """Order events as rows: the tables' names for the times, and the revision as write timestamp."""
    found = renamed(events, created_at_ns="created_at", updated_at_ns="updated_at")
    return found.assign(write_timestamp=ints(events, "revision"))


def _check_expiry(
    trace: Trace, found: Findings, look: int, finished: pd.DataFrame, active: pd.DataFrame, lookup: pd.DataFrame
) -> None:
    """A finished order's rows expire 24 hours after its completion."""
    clock_was_wrong = any(fault in trace.struck_faults for fault in _CLOCK_FAULTS)
    # The clocks of an audited system agree as well as anybody's; those of the database are another's than settlement's.
    is_exact = trace.manifest.audit is None and _DATABASE_CLOCK_FAULT not in trace.struck_faults
    for name, table in (("active_orders", active), ("order_lookup", lookup)):
        at = find(ints(table, "order_id"), ints(finished, "order_id"))
        left, completed_at = rows(table, at >= 0), ints(finished, "updated_at")[at[at >= 0]]
        ttl = ints(left, "ttl")
        if look == 1:
            wrong = ttl < 0 if clock_was_wrong else np.ones(len(left), dtype=bool)
            found.where(f"finished order's row of {name} is still there 25 hours later", left, wrong, "order_id", "ttl")
            continue
        # Clocks that a fault has set apart may lengthen a time to live, but never make it endless.
        wrong = ttl < 0 if clock_was_wrong else (ttl < 0) | (ttl > FINISHED_ROW_TTL_S + _TTL_SLACK_S)
        found.where(f"finished order's row of {name} would not expire in time", left, wrong, "order_id", "ttl")
        if is_exact and not clock_was_wrong:
            late_ns = _late_ns(trace, ints(left, "t"), ttl, completed_at)
            # The statement that was overtaken by its own repetition may be the one that was applied.
            off = (late_ns < -_ROUNDING_S * _NS_PER_S) | (late_ns > (_ROUNDING_S + _WAITING_MAX_S) * _NS_PER_S)
            found.where(
                f"finished order's row of {name} does not expire 24 hours after its completion", left, off & ~wrong,
                "order_id", "ttl", late_s=np.round(late_ns / _NS_PER_S, 3),
            )  # fmt: skip


def _check_written_expiry(trace: Trace, found: Findings, finished: pd.DataFrame) -> None:
    """Every write of a finished order's row, the repeated ones too, leaves it what is left of the 24 hours.

    The database's clocks have no part in this; and a row that is written again as it was can be told from one that was
    given a new life, which the final rows hardly show.
    """
    if not trace.has("cql") or any(fault in trace.struck_faults for fault in _CLOCK_FAULTS):
        return
    columns = ("t", "host", "table", "order_id", "ttl", "started_t")
    with_ttl = [piece.filter(pc.greater_equal(piece.column("ttl"), 0)) for piece in trace.tables.pieces("cql", columns)]
    table = pa.concat_tables(with_ttl)
    ttl, started_t = table.column("ttl").to_numpy(), table.column("started_t").to_numpy()
    at = find(table.column("order_id").to_numpy(), ints(finished, "order_id"))
    found.checked(int(np.count_nonzero(at >= 0)))
    completed_at = np.append(ints(finished, "updated_at"), 0)[at]
    late_ns = _late_ns(trace, started_t, ttl, completed_at)
    # What is written when its time has passed cannot be given less than a second.
    off = (at >= 0) & (np.abs(late_ns) > _ROUNDING_S * _NS_PER_S) & (ttl > 1)
    if not off.any():
        return
    writes = Trace(trace.manifest, {"cql": table}).events("cql", *columns)
    may_have_waited = (late_ns > 0) & (late_ns <= (_ROUNDING_S + _WAITING_MAX_S) * _NS_PER_S)
    off &= ~(may_have_waited & (_under_way(trace, writes) >= _IN_FLIGHT_MAX))
    found.where(
        "write of a finished order's row does not make it expire 24 hours after its completion", writes, off,
        "table", "order_id", "ttl", "host", "started_t", late_s=np.round(late_ns / _NS_PER_S, 3),
    )  # fmt: skip


def _late_ns(trace: Trace, t: Ints, ttl: Ints, completed_at: Ints) -> Ints:
    """How much later than 24 hours after the completion what has this time to live at that time expires."""
    return trace.manifest.epoch_ns + t - completed_at + (ttl - FINISHED_ROW_TTL_S) * _NS_PER_S


def _under_way(trace: Trace, writes: pd.DataFrame) -> Ints:
    """How many statements of its host were under way when each of these began."""
    statements = trace.events("cql", "host", "started_t", "t")
    found = np.zeros(len(writes), dtype=np.int64)
    for host in np.unique(array(writes, "host").astype(str)).tolist():
        mine = array(statements, "host") == host
        asked = array(writes, "host") == host
        began = ints(writes, "started_t")[asked]
        started = np.searchsorted(np.sort(ints(statements, "started_t")[mine]), began, side="right")
        found[asked] = started - np.searchsorted(np.sort(ints(statements, "t")[mine]), began)
    return found


def _check_progress(trace: Trace, found: Findings, look: int, when: str) -> None:
    last = last_records(trace)
    if not len(last):
        return
    if trace.manifest.audit is not None:
        # Where the log goes on beyond an audit's cut, settlement may have gone on too.
        later = pd.DataFrame(trace.manifest.audit.later_chains, columns=["topic", "partition_id"])
        last = rows(last, ~is_in(last, later.astype({"partition_id": np.int64}), ("topic", "partition_id")))
    compared = compare(
        last, trace.final("settlement_progress", look), ("topic", "partition_id"), ("sequence", "hash", "next_offset")
    )
    found.checked(len(last))
    found.add(f"no settlement progress {when}", compared.missing, "topic", "partition_id", "sequence")
    found.add(
        f"settlement progress is not at the end {when}",
        compared.differing,
        "topic",
        "partition_id",
        "sequence",
        "differs",
    )
