"""Situations in an order's life."""

import numpy as np
import pandas as pd

from schema.codes import LIVE_STATUSES, OrderStatus, OrderType, Reason, Side
from traces.matching_rows import codes, find, first_places, ints, is_any, is_in, renamed, rows
from traces.reachability.goals import goal
from traces.trace import Trace

_OUTPUT = ("partition", "output_seq")


@goal("cancel-met-its-fill")
def cancel_met_its_fill(trace: Trace) -> int:
    """A cancel was sent while its order lived, and came too late because the order was filled meanwhile."""
    outputs = trace.outputs
    is_late = is_any(outputs, "command", "cancel") & (ints(outputs, "order_events") == 0)
    return _met_their_fill(trace, "cancel", rows(outputs, is_late))


@goal("replace-met-its-fill")
def replace_met_its_fill(trace: Trace) -> int:
    """A replace was sent while its first order lived, and came too late because that was filled meanwhile."""
    outputs, refused = trace.outputs, trace.refusals
    late = rows(refused, ints(refused, "reason") == int(Reason.REPLACED_ORDER_NOT_LIVE))
    decided = rows(outputs, is_in(outputs, late, _OUTPUT))
    return _met_their_fill(trace, "replace", renamed(decided, order_id="new_order_id", replaced_order_id="order_id"))


@goal("maker-filled-in-steps")
def maker_filled_in_steps(trace: Trace) -> int:
    """A resting order was filled, by three trades or more."""
    makers, trades = np.unique(ints(trace.trades, "maker_order_id"), return_counts=True)
    return int(np.isin(makers[trades >= 3], ints(_filled(trace), "order_id")).sum())


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
    ended = trace.completions
    replaced = rows(ended, ints(ended, "reason") == int(Reason.REPLACED))
    # The new order may have been refused: as a post-only order, or as one that could not be filled.
    return int(is_in(replaced, trace.placements, _OUTPUT).sum())


@goal("market-order-ran-out-of-money")
def market_order_ran_out_of_money(trace: Trace) -> int:
    """A market buy traded, and stopped at the most that it might spend."""
    ended = trace.completions
    return int(((ints(ended, "filled_quantity") > 0) & (ints(ended, "reason") == int(Reason.SPEND_LIMIT))).sum())


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
    """A limit buy traded below its limit: what had been locked beyond the price was to be given back."""
    trades, placed = trace.trades, trace.placements
    bought = rows(trades, ints(trades, "taker_side") == int(Side.BUY))
    limited = rows(placed, ints(placed, "order_type") == int(OrderType.LIMIT))
    at = find(ints(bought, "taker_order_id"), ints(limited, "order_id"))
    return int((ints(bought, "price")[at >= 0] < ints(limited, "price")[at[at >= 0]]).sum())


@goal("order-outlived-the-run")
def order_outlived_the_run(trace: Trace) -> int:
    """An order was still live when the system had settled, and was looked for again 25 hours later."""
    if not trace.has_settled or len(trace.looks) < 2:
        return 0
    return int(np.isin(ints(trace.last_states, "status"), LIVE_STATUSES).sum())


def _met_their_fill(trace: Trace, command: str, late: pd.DataFrame) -> int:
    """How many of the commands that came too late for the order `order_id` had been sent while it lived, and found it
    filled."""
    asked, placed, filled = trace.events("client_requests"), trace.placements, _filled(trace)
    asked = rows(asked, is_any(asked, "command", command))
    # An order of another user or symbol is not live for a command that names it, and has nothing to do with it.
    of_order = ("user_id", "symbol_id", "order_id")
    (order, born, ended), orders = codes(of_order, late, placed, filled)
    birth, end = first_places(born, orders)[order], first_places(ended, orders)[order]
    (request, sent), requests = codes(("user_id", "request_id", "order_id"), late, asked)
    first = first_places(sent, requests)[request]
    known = (birth >= 0) & (end >= 0) & (first >= 0)
    sent_t = ints(asked, "t")[first[known]]
    lived = ints(placed, "t")[birth[known]] <= sent_t
    is_filled_since = ints(filled, "t")[end[known]] > sent_t
    return int((lived & is_filled_since).sum())


def _filled(trace: Trace) -> pd.DataFrame:
    ended = trace.completions
    return rows(ended, ints(ended, "status") == int(OrderStatus.FILLED))


def _ended(trace: Trace, reason: Reason) -> int:
    return int((ints(trace.completions, "reason") == int(reason)).sum())


def _refused(trace: Trace, reason: Reason) -> int:
    return int((ints(trace.refusals, "reason") == int(reason)).sum())
