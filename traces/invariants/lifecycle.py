"""Invariants about orders' lives in the engine's own outputs: reference, completions, fills, cancels."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from schema.codes import LIVE_STATUSES, OrderType, Reason, Side
from schema.codes import Verdict as Code
from traces.derived import COMPLETION, PLACEMENT, REFUSAL, STATE_COLUMNS
from traces.frames import frame_of
from traces.matching_rows import (
    Comparison,
    Ints,
    array,
    codes,
    compare,
    compare_numbered,
    count,
    find,
    ints,
    is_any,
    is_first,
    is_in,
    repeated,
    rows,
)
from traces.reference import EXPECTED_TRADE_COLUMNS
from traces.trace import Trace
from traces.verdicts import Findings, Verdict, invariant

IDENTITY = ("order_id", "user_id", "symbol_id", "partition", "output_seq")
"""What identifies an order event in a finding."""

_PARTIES = ("maker_order_id", "taker_order_id")

ANSWER_COLUMNS = (
    "user_id", "request_id", "attempt", "command", "outcome", "reason", "verdict", "verdict_reason", "order_id",
)  # fmt: skip
"""What is looked at of the answers that clients got."""


@invariant("placement-accounted")
def placement_accounted(trace: Trace) -> Verdict:
    """Once settled, every placed order has either one completion and no row with status 0 or 1, or no completion and
    exactly one such row.

    25 hours later the same is true: a live row never expires. A live row with a time to live would.
    """
    found = Findings()
    if not trace.rows_are_due:
        return found.verdict
    orders = trace.judged_by_row(trace.once(first_placements))
    placed = ints(orders, "order_id")
    completions = count(placed, ints(trace.completions, "order_id"))
    found.checked(len(orders))
    found.where("more than one completion", orders, completions > 1, *IDENTITY)
    for look, when in trace.looks:
        table = trace.final("active_orders", look)
        live = rows(table, np.isin(ints(table, "status"), LIVE_STATUSES))
        live_rows = count(placed, ints(live, "order_id"))
        found.where(f"completed, but has a live row {when}", orders, (completions > 0) & (live_rows > 0), *IDENTITY)
        found.where(f"no completion and no live row {when}", orders, (completions == 0) & (live_rows == 0), *IDENTITY)
        found.where(
            f"no completion and more than one live row {when}",
            orders,
            (completions == 0) & (live_rows > 1),
            *IDENTITY,
        )
        found.where(
            f"live row would expire {when}",
            live,
            ints(live, "ttl") >= 0,
            "order_id",
            "user_id",
            "symbol_id",
            "ttl",
        )
    return found.verdict


@invariant("lifecycle-matches-reference")
def lifecycle_matches_reference(trace: Trace) -> Verdict:
    """An independent, naive reference fed the same inputs gives the same placements, updates, refusals, completions
    (reason, quantities) and trades; and the same verdict and engine time for each input.

    Every column of every event is compared. Only partitions whose log begins at output 1 can be judged.
    """
    found = Findings()
    expected, partitions = trace.reference
    if not partitions:
        return found.verdict
    judged = np.isin(ints(trace.outputs, "partition"), partitions)
    outputs = rows(trace.outputs, judged)
    events = _compare_events(expected.events, trace.order_events, outputs)
    found.checked(len(expected.events))
    where: tuple[str, ...] = (
        "order_id", "user_id", "symbol_id", "partition", "input_offset", "event", "revision", "status", "reason",
    )  # fmt: skip
    found.add("event is missing", events.missing, *where)
    found.add("event should not be there", events.unexpected, *where, "output_seq")
    found.add("event is there more than once", events.repeated, *where, "output_seq")
    found.add("event has another content", events.differing, *where, "output_seq", "differs")
    trades = _compare_trades(expected.trades, trace.trades, outputs, ("position",))
    where = ("partition", "input_offset", "position", "maker_order_id", "taker_order_id", "price", "quantity")
    found.checked(len(expected.trades))
    found.add("trade is missing", trades.missing, *where)
    found.add("trade should not be there", trades.unexpected, *where, "output_seq")
    found.add("trade is there more than once", trades.repeated, *where, "output_seq")
    found.add("trade has another content", trades.differing, *where, "output_seq", "differs")
    verdicts = compare(
        expected.outputs,
        rows(trace.once(decided_outputs), judged),
        ("partition", "input_offset"),
        ("time_ns", "verdict", "verdict_reason"),
    )
    if trace.has_settled:
        found.add("input has no output", verdicts.missing, "partition", "input_offset")
    where = ("request_id", "order_id", "user_id", "partition", "input_offset", "output_seq")
    found.add("output without an input", verdicts.unexpected, *where)
    found.add("input has more than one output", verdicts.repeated, *where)
    found.add("output has another verdict or time", verdicts.differing, *where, "differs")
    return found.verdict


@dataclass(frozen=True)
class OrderDifferences:
    """Where the engine's word on one order is not the reference's: its events, and the trades that it had a part in.
    The rows on both sides have the `input_offset` that caused them; those of the engine have its `output_seq` too."""

    events: Comparison
    trades: Comparison


def order_differences(trace: Trace, order_id: int) -> OrderDifferences:
    """What `lifecycle-matches-reference` says of one order. Nothing differs in a partition that cannot be judged."""
    expected, partitions = trace.reference
    outputs = rows(trace.outputs, np.isin(ints(trace.outputs, "partition"), partitions))
    # Its trades by who traded with it, not by their place in the output: one that is missing moves all after it.
    return OrderDifferences(
        _compare_events(_of_order(expected.events, order_id), _of_order(trace.order_events, order_id), outputs),
        _compare_trades(
            _of_order(expected.trades, order_id, *_PARTIES), _of_order(trace.trades, order_id, *_PARTIES), outputs,
            _PARTIES,
        ),
    )  # fmt: skip


@invariant("completion-once")
def completion_once(trace: Trace) -> Verdict:
    """Every order that the reference says has ended has exactly one completion, after its one placement; no other order
    has one.
    """
    found = Findings()
    expected, partitions = trace.reference
    if not partitions:
        return found.verdict
    ended = rows(expected.events, ints(expected.events, "event") == COMPLETION)
    ended_ids = ints(ended, "order_id")
    judged = np.isin(ints(trace.order_events, "partition"), partitions)
    events = rows(trace.order_events, judged)
    placements = rows(events, ints(events, "event") == PLACEMENT)
    completions = rows(events, ints(events, "event") == COMPLETION)
    found.checked(len(ended))
    where = ("order_id", "user_id", "symbol_id", "partition")
    times = count(ended_ids, ints(completions, "order_id"))
    found.where("ended without a completion", ended, times == 0, *where, "input_offset", "reason")
    found.where("ended with more than one completion", ended, times > 1, *where, "input_offset", "reason")
    found.where(
        "completion of an order that has not ended",
        completions,
        ~np.isin(ints(completions, "order_id"), ended_ids),
        *IDENTITY,
        "reason",
    )
    placed = count(ints(completions, "order_id"), ints(placements, "order_id"))
    found.where("completion of an order that was never placed", completions, placed == 0, *IDENTITY)
    found.where("completion of an order that was placed more than once", completions, placed > 1, *IDENTITY)
    at = find(ints(completions, "order_id"), ints(placements, "order_id"))
    known = at >= 0
    placed_seq = np.zeros(len(completions), dtype=np.int64)
    placed_seq[known] = ints(placements, "output_seq")[at[known]]
    late = known & (placed_seq > ints(completions, "output_seq"))
    found.where("completion before the placement", completions, late, *IDENTITY)
    return found.verdict


@invariant("fills-add-up")
def fills_add_up(trace: Trace) -> Verdict:
    """An order's filled quantity is the sum of its trades, and never over its quantity.

    Checked at every event of its life, with the quote amount too. A trade has a positive quantity, costs what price
    and quantity say, respects both orders' limits, and has an id of its own in its partition.
    """
    found = Findings()
    trades = trace.trades
    events = rows(trace.order_events, ~np.isin(ints(trace.order_events, "event"), (PLACEMENT, REFUSAL)))
    found.checked(len(events) + len(trades))
    fills = frame_of(
        {
            "order_id": np.concatenate([ints(trades, "maker_order_id"), ints(trades, "taker_order_id")]),
            "user_id": np.concatenate([ints(trades, "maker_user_id"), ints(trades, "taker_user_id")]),
            **{
                name: np.concatenate([ints(trades, name)] * 2)
                for name in ("symbol_id", "partition", "output_seq", "price", "quantity", "quote_amount", "trade_id")
            },
        }
    )
    (event_code, fill_code), _ = codes(("partition", "order_id"), events, fills)
    order = np.lexsort((ints(fills, "output_seq"), fill_code))
    fill_code, fill_seq = fill_code[order], ints(fills, "output_seq")[order]
    # One sorted number per (order, output), so that one search gives the fills up to an output.
    seq_values = np.unique(np.concatenate([fill_seq, ints(events, "output_seq")]))
    span = len(seq_values) + 1
    fill_place = fill_code * span + np.searchsorted(seq_values, fill_seq)
    upto = np.searchsorted(
        fill_place, event_code * span + np.searchsorted(seq_values, ints(events, "output_seq")), side="right"
    )
    first = np.searchsorted(fill_place, event_code * span)
    where = (*IDENTITY, "revision", "quantity", "filled_quantity", "filled_quote")
    for column, of_trade, what in (
        ("filled_quantity", "quantity", "filled quantity is not the sum of the trades"),
        ("filled_quote", "quote_amount", "filled quote amount is not the sum of the trades"),
    ):
        running = np.concatenate([[0], np.cumsum(ints(fills, of_trade)[order])])
        found.where(what, events, ints(events, column) != running[upto] - running[first], *where)
    found.where("filled over its quantity", events, ints(events, "filled_quantity") > ints(events, "quantity"), *where)

    which = ("trade_id", "symbol_id", "partition", "output_seq")
    found.where("trade of no lots", trades, ints(trades, "quantity") <= 0, *which)
    cost = _per_symbol(trace, ints(trades, "symbol_id"), "tick_lot_atoms")
    found.where(
        "trade does not cost price times quantity",
        trades,
        ints(trades, "quote_amount") != ints(trades, "price") * ints(trades, "quantity") * cost,
        *which,
    )
    found.where("trade id used twice", trades, repeated(trades, ("partition", "trade_id")), *which)
    placements = trace.placements
    at = find(ints(fills, "order_id"), ints(placements, "order_id"))
    if trace.begins_at_one:
        found.where("trade of an order that was never placed", fills, at < 0, "order_id", "user_id", *which)
    traded, of = rows(fills, at >= 0), placements.iloc[at[at >= 0]]
    limit = ints(of, "order_type") == OrderType.LIMIT
    worse = np.where(
        ints(of, "side") == Side.BUY,
        ints(traded, "price") > ints(of, "price"),
        ints(traded, "price") < ints(of, "price"),
    )
    found.where("traded beyond its limit price", traded, limit & worse, "order_id", "user_id", *which, "price")
    other = (ints(traded, "user_id") != ints(of, "user_id")) | (ints(traded, "symbol_id") != ints(of, "symbol_id"))
    found.where("trade names another user or symbol than the order's", traded, other, "order_id", "user_id", *which)
    return found.verdict


@invariant("cancel-honoured")
def cancel_honoured(trace: Trace) -> Verdict:
    """A cancel whose verdict is *cancelled* is that order's completion and no trade follows; *too late* has a
    completion before it, or no such order.

    The verdict that a client was told is the engine's.
    """
    found = Findings()
    outputs = trace.once(decided_outputs)
    commands = array(outputs, "command")
    verdict = ints(outputs, "verdict")
    where = ("request_id", "order_id", "user_id", "symbol_id", "partition", "output_seq")
    completions = trace.completions

    cancelled = rows(outputs, (commands == "cancel") & (verdict == Code.CANCELLED))
    found.checked(len(cancelled))
    by_user = rows(completions, ints(completions, "reason") == Reason.CANCELLED_BY_USER)
    found.where(
        "cancelled, but not completed by this cancel",
        cancelled,
        ~is_in(cancelled, by_user, ("partition", "output_seq", "order_id")),
        *where,
    )
    trades = trace.trades
    last_trade = frame_of(
        {
            "order_id": np.concatenate([ints(trades, "maker_order_id"), ints(trades, "taker_order_id")]),
            "partition": np.concatenate([ints(trades, "partition")] * 2),
            "output_seq": np.concatenate([ints(trades, "output_seq")] * 2),
        }
    )
    (mine, theirs), size = codes(("partition", "order_id"), cancelled, last_trade)
    latest = np.full(size, -1, dtype=np.int64)
    np.maximum.at(latest, theirs, ints(last_trade, "output_seq"))
    found.where("a trade follows the cancel", cancelled, latest[mine] >= ints(cancelled, "output_seq"), *where)

    # What is too late may be a cancel, a reduce or a replace; it names the order that is no longer live.
    late = rows(outputs, verdict == Code.TOO_LATE)
    replaced = ints(late, "replaced_order_id")
    late = late.assign(target_order_id=np.where(replaced > 0, replaced, ints(late, "order_id")))
    found.checked(len(late))
    named = late.assign(order_id=ints(late, "target_order_id"))
    first = _first_seq(named, trace.placements)
    ended = _first_seq(named, completions)
    seq = ints(late, "output_seq")
    found.where("too late, but the order is live", late, (first < seq) & ~(ended < seq), *where, "target_order_id")

    answers = trace.events("client_answers", *ANSWER_COLUMNS)
    is_told = (ints(answers, "verdict") != 0) & is_any(answers, "command", "cancel")
    told = rows(answers, is_told)
    found.checked(len(told))
    requests = trace.once(RequestNumbers)
    is_decision = is_first(requests.outputs, requests.size)
    answered = compare_numbered(
        rows(outputs, is_decision), told, requests.outputs[is_decision], requests.answers[is_told], requests.size,
        ("verdict", "verdict_reason"),
    )  # fmt: skip
    which = ("request_id", "order_id", "user_id", "verdict")
    if trace.begins_at_one:
        found.add("client was told a verdict that no output gave", answered.unexpected, *which)
    found.add("client was told another verdict", answered.differing, *which, "differs")
    return found.verdict


def first_placements(trace: Trace) -> pd.DataFrame:
    """The first placement of each order id."""
    (order,), size = codes(("order_id",), trace.placements)
    return rows(trace.placements, is_first(order, size))


class RequestNumbers:
    """The outputs, the clients' answers and the balance events, by the request (user and request id) they are about:
    equal numbers for equal requests. Comparing texts is dear, and many rules go by it."""

    def __init__(self, trace: Trace) -> None:
        answers = trace.events("client_answers", *ANSWER_COLUMNS)
        frames = trace.outputs, answers, trace.balance_events
        (self.outputs, self.answers, self.balance_events), self.size = codes(("user_id", "request_id"), *frames)


def decided_outputs(trace: Trace) -> pd.DataFrame:
    """All outputs with the `verdict` and `verdict_reason` that they give their submitter; 0 where they give none."""
    outputs, updates = trace.outputs, trace.fund_updates
    told = rows(updates, array(updates, "request_id") != "")
    (mine, theirs), size = codes(("partition", "offset"), outputs, told)
    verdict, reason = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
    verdict[theirs], reason[theirs] = ints(told, "verdict"), ints(told, "reason")
    return outputs.assign(verdict=verdict[mine], verdict_reason=reason[mine])


def _of_order(frame: pd.DataFrame, order_id: int, *columns: str) -> pd.DataFrame:
    is_its = [ints(frame, column) == order_id for column in columns or ("order_id",)]
    return rows(frame, np.logical_or.reduce(is_its))


def _compare_events(expected: pd.DataFrame, actual: pd.DataFrame, outputs: pd.DataFrame) -> Comparison:
    key = ("partition", "input_offset", "event", "order_id")
    return compare(expected, _with_input(actual, outputs), key, STATE_COLUMNS)


def _compare_trades(
    expected: pd.DataFrame, actual: pd.DataFrame, outputs: pd.DataFrame, told_apart_by: tuple[str, ...]
) -> Comparison:
    key = ("partition", "input_offset", *told_apart_by)
    return compare(expected, _with_input(actual, outputs), key, EXPECTED_TRADE_COLUMNS[3:])


def _with_input(events: pd.DataFrame, outputs: pd.DataFrame) -> pd.DataFrame:
    """Events of the given outputs, with the offset of the input that caused them."""
    (mine, theirs), size = codes(("partition", "offset"), events, outputs)
    caused = np.full(size, -1, dtype=np.int64)
    caused[theirs] = ints(outputs, "input_offset")
    input_offset = caused[mine]
    return rows(events.assign(input_offset=input_offset), input_offset >= 0)


def _first_seq(orders: pd.DataFrame, events: pd.DataFrame) -> Ints:
    """The first output with an event of the same order, user and symbol; the largest integer where there is none."""
    (mine, theirs), size = codes(("partition", "order_id", "user_id", "symbol_id"), orders, events)
    first = np.full(size, np.iinfo(np.int64).max, dtype=np.int64)
    np.minimum.at(first, theirs, ints(events, "output_seq"))
    return first[mine]


def _per_symbol(trace: Trace, symbol_ids: Ints, attribute: str) -> Ints:
    """A symbol's attribute for each row; 0 for a symbol that does not exist."""
    known = trace.topology.symbols.symbols
    ids, inverse = np.unique(symbol_ids, return_inverse=True)
    table = np.array([getattr(known[each], attribute) if each in known else 0 for each in ids], dtype=np.int64)
    return table[inverse] if len(ids) else np.empty(0, dtype=np.int64)
