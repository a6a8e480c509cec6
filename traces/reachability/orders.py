"""Situations in an order's life."""

import numpy as np

from schema.codes import EntryKind, OrderStatus, Reason, Verdict
from traces.matching_rows import codes, find, first_places, ints, is_any, rows
from traces.reachability.goals import goal
from traces.trace import Trace


@goal("cancel-met-its-fill")
def cancel_met_its_fill(trace: Trace) -> int:
    """A cancel was sent while its order lived, and came too late because the order was filled meanwhile."""
    told, asked, ended = trace.events("client_answers"), trace.events("client_requests"), trace.completions
    late = rows(told, is_any(told, "command", "cancel") & (ints(told, "verdict") == int(Verdict.TOO_LATE)))
    cancels = rows(asked, is_any(asked, "command", "cancel"))
    (of_late, of_cancel), size = codes(("user_id", "request_id"), late, cancels)
    first = first_places(of_cancel, size)[of_late]
    sent_t, target = ints(cancels, "t")[first[first >= 0]], ints(cancels, "order_id")[first[first >= 0]]
    filled = rows(ended, ints(ended, "status") == int(OrderStatus.FILLED))
    at = find(target, ints(filled, "order_id"))
    return int((ints(filled, "t")[at[at >= 0]] > sent_t[at >= 0]).sum())


@goal("replace-met-its-fill")
def replace_met_its_fill(trace: Trace) -> int:
    """A replace was refused because its first order was no longer live."""
    return _refused(trace, Reason.REPLACED_ORDER_NOT_LIVE)


@goal("maker-filled-in-steps")
def maker_filled_in_steps(trace: Trace) -> int:
    """A resting order was filled by three trades or more."""
    return int((np.unique(ints(trace.trades, "maker_order_id"), return_counts=True)[1] >= 3).sum())


@goal("taker-met-many-makers")
def taker_met_many_makers(trace: Trace) -> int:
    """One input traded with five resting orders or more."""
    return int((ints(trace.outputs, "trades") >= 5).sum())


@goal("taker-filled-in-part-then-rested")
def taker_filled_in_part_then_rested(trace: Trace) -> int:
    """An order traded when it came, its rest went into the book, and was a maker later."""
    trades = trace.trades
    return len(np.intersect1d(ints(trades, "taker_order_id"), ints(trades, "maker_order_id")))


@goal("part-filled-order-cancelled")
def part_filled_order_cancelled(trace: Trace) -> int:
    """A resting order that was filled in part was cancelled by its user."""
    ended = trace.completions
    return int(((ints(ended, "filled_quantity") > 0) & (ints(ended, "reason") == int(Reason.CANCELLED_BY_USER))).sum())


@goal("self-trade-prevented")
def self_trade_prevented(trace: Trace) -> int:
    """An order was cancelled because the next maker was its own user's."""
    return _ended(trace, Reason.SELF_TRADE)


@goal("order-reduced-to-its-end")
def order_reduced_to_its_end(trace: Trace) -> int:
    """A reduce went to or below what was filled, and completed the order."""
    return _ended(trace, Reason.REDUCED)


@goal("order-replaced")
def order_replaced(trace: Trace) -> int:
    """An order was cancelled and another placed in one input."""
    return _ended(trace, Reason.REPLACED)


@goal("market-order-ran-out-of-money")
def market_order_ran_out_of_money(trace: Trace) -> int:
    """A market buy stopped at the most that it might spend."""
    return _ended(trace, Reason.SPEND_LIMIT)


@goal("unfilled-rest-cancelled")
def unfilled_rest_cancelled(trace: Trace) -> int:
    """An immediate-or-cancel or market order was filled in part, and its rest was cancelled."""
    ended = trace.completions
    return int(((ints(ended, "filled_quantity") > 0) & (ints(ended, "reason") == int(Reason.UNFILLED_REST))).sum())


@goal("fill-or-kill-refused")
def fill_or_kill_refused(trace: Trace) -> int:
    """A fill-or-kill order was refused because it could not be filled whole."""
    return _refused(trace, Reason.CANNOT_FILL)


@goal("post-only-refused")
def post_only_refused(trace: Trace) -> int:
    """A post-only order was refused because it would have traded."""
    return _refused(trace, Reason.WOULD_CROSS)


@goal("price-improved")
def price_improved(trace: Trace) -> int:
    """A fill was better than its order's limit, and the difference was given back."""
    entries = trace.fund_entries
    kinds = ints(entries, "kind")
    filled = rows(entries, np.isin(kinds, (int(EntryKind.DEBIT), int(EntryKind.RELEASE))))
    (key,), size = codes(("partition", "output_seq", "order_id", "asset_id"), filled)
    kind = ints(filled, "kind")
    debited = np.bincount(key[kind == int(EntryKind.DEBIT)], minlength=size) > 0
    released = np.bincount(key[kind == int(EntryKind.RELEASE)], minlength=size) > 0
    return int((debited & released).sum())


@goal("order-outlived-the-run")
def order_outlived_the_run(trace: Trace) -> int:
    """An order was still live when the system had settled, and must be there 25 hours later."""
    return len(trace.placements) - len(trace.completions) if trace.has_settled else 0


def _ended(trace: Trace, reason: Reason) -> int:
    return int((ints(trace.completions, "reason") == int(reason)).sum())


def _refused(trace: Trace, reason: Reason) -> int:
    return int((ints(trace.refusals, "reason") == int(reason)).sum())
