"""Invariants about what clients read."""

import numpy as np
import pandas as pd

from schema.codes import LIVE_STATUSES, OrderStatus
from traces.invariants.ends import NEVER, settled_at, settlement_ends
from traces.invariants.lifecycle import first_placements
from traces.matching_rows import (
    Ints,
    array,
    codes,
    compare,
    count,
    find,
    ints,
    is_first,
    renamed,
    repeated,
    rows,
)
from traces.trace import Trace
from traces.verdicts import Findings, Verdict, invariant


@invariant("reads-complete")
def reads_complete(trace: Trace) -> Verdict:
    """An answer holds every order of the user whose live row was acknowledged before the read began and whose
    completion was not yet written when it ended; once settled it is exactly the live orders, newest first.

    At any time, an answer to active_orders holds live orders only, each once, of the symbol asked for, newest first,
    and each as the engine said it was at that revision. A limit may cut off the oldest only. An answer to a read of one
    order is that order, once.
    """
    found = Findings()
    reads = trace.events("reads")
    succeeded = array(reads, "outcome") == "ok"
    query = array(reads, "query")
    answers = trace.events("read_rows")
    lists = rows(reads, succeeded & (query == "active_orders"))
    singles = rows(reads, succeeded & (query == "order"))
    found.checked(len(lists) + len(singles))
    if not len(lists) and not len(singles):
        return found.verdict
    at = find(ints(answers, "read_id"), ints(lists, "read_id"))
    listed, of = rows(answers, at >= 0), lists.iloc[at[at >= 0]]
    where = ("read_id", "user_id", "symbol_id", "order_id", "revision", "status")
    found.where(
        "finished order in a list of live ones", listed, ~np.isin(ints(listed, "status"), LIVE_STATUSES), *where
    )
    found.where("order twice in one answer", listed, repeated(listed, ("read_id", "order_id")), *where)
    asked = ints(of, "symbol_id")
    found.where("order of a symbol not asked for", listed, (asked != 0) & (asked != ints(listed, "symbol_id")), *where)
    _check_newest_first(found, listed)
    _check_content(trace, found, answers)
    announced = count(ints(lists, "read_id"), ints(listed, "read_id"))
    found.where("answer is not all there", lists, announced != ints(lists, "rows"), "read_id", "user_id", "rows")
    _check_complete(trace, found, lists, listed)
    _check_singles(trace, found, singles, answers)
    return found.verdict


@invariant("reads-own-user")
def reads_own_user(trace: Trace) -> Verdict:
    """No answer holds another user's data: neither by what the row says, nor by whose the order is."""
    found = Findings()
    answers = trace.events("read_rows")
    reads = trace.events("reads")
    found.checked(len(answers))
    at = find(ints(answers, "read_id"), ints(reads, "read_id"))
    where = ("read_id", "user_id", "order_id", "symbol_id")
    found.where("row of an answer that no read asked for", answers, at < 0, *where)
    asker = np.where(at >= 0, ints(reads, "user_id")[at] if len(reads) else -1, -1)
    found.where("another user's row", answers, (at >= 0) & (asker != ints(answers, "user_id")), *where)
    orders = trace.placements
    owner_at = find(ints(answers, "order_id"), ints(orders, "order_id"))
    owner = np.where(owner_at >= 0, ints(orders, "user_id")[owner_at] if len(orders) else -1, -1)
    found.where("another user's order", answers, (at >= 0) & (owner_at >= 0) & (owner != asker), *where)
    return found.verdict


@invariant("no-resurrection")
def no_resurrection(trace: Trace) -> Verdict:
    """Of two reads of one order, the second begun after the first was answered, the revision never goes back."""
    found = Findings()
    reads = trace.events("reads")
    answers = trace.events("read_rows")
    at = find(ints(answers, "read_id"), ints(reads, "read_id"))
    seen = rows(answers, at >= 0)
    of = reads.iloc[at[at >= 0]]
    if not len(seen):
        return found.verdict
    (order,), _ = codes(("order_id",), seen)
    moments = np.unique(np.concatenate([ints(of, "asked_t"), ints(of, "t")]))
    span = len(moments) + 1
    begun = order * span + np.searchsorted(moments, ints(of, "asked_t"))
    answered = order * span + np.searchsorted(moments, ints(of, "t"))
    by_answer = np.argsort(answered, kind="stable")
    revision = ints(seen, "revision")
    # The highest revision seen so far of the same order: orders come one after the other, so each gets a range of
    # its own in which the running maximum cannot reach back to the order before.
    width = int(revision.max()) + 1
    highest = np.maximum.accumulate(order[by_answer] * width + revision[by_answer]) - order[by_answer] * width
    before = np.searchsorted(answered[by_answer], begun) - 1
    same = (before >= 0) & (order[by_answer][before] == order)
    known = np.where(same, highest[before], 0)
    found.checked(int(same.sum()))
    which = ("order_id", "user_id", "read_id", "revision")
    found.where("revision went back", seen, known > revision, *which, seen_revision=known)
    return found.verdict


def _check_newest_first(found: Findings, listed: pd.DataFrame) -> None:
    order = np.lexsort((ints(listed, "position"), ints(listed, "read_id")))
    read, created = ints(listed, "read_id")[order], ints(listed, "created_at")[order]
    older_first = (read[1:] == read[:-1]) & (created[1:] > created[:-1])
    found.add("not newest first", listed.iloc[order[1:][older_first]], "read_id", "user_id", "position", "order_id")


def _check_content(trace: Trace, found: Findings, answers: pd.DataFrame) -> None:
    """Each row of an answer is what some event said. Orders that never lived are in the history only."""
    if not trace.begins_at_one:
        return
    events = renamed(trace.order_events, created_at_ns="created_at")
    lived = rows(answers, ints(answers, "status") != OrderStatus.REJECTED)
    (state,), size = codes(("order_id", "revision"), events)
    unique = rows(events, is_first(state, size))
    compared = compare(
        unique,
        lived,
        ("order_id", "revision"),
        ("user_id", "symbol_id", "created_at", "status", "quantity", "filled_quantity"),
    )
    where = ("read_id", "user_id", "order_id", "revision")
    found.add("row that no event made", compared.unexpected, *where)
    found.add("row is not what the engine said", compared.differing, *where, "differs")


def _written(trace: Trace, table: str) -> pd.DataFrame:
    """Inserts into a table of orders; the write timestamp is the order's revision."""
    written = trace.once(written_rows)
    return rows(written, array(written, "table") == table)


def written_rows(trace: Trace) -> pd.DataFrame:
    """The statements that inserted rows of orders."""
    columns = ("table", "order_id", "write_timestamp", "outcome", "started_t", "t")
    cql = trace.events("cql", "operation", *columns)
    operation, distinct = pd.factorize(array(cql, "operation"))
    is_insert = np.array([str(each).lower() == "insert" for each in distinct], dtype=bool)
    selected = is_insert[operation] & (ints(cql, "order_id") >= 0) if len(cql) else np.zeros(0, dtype=bool)
    return rows(cql, selected)


def _first_per_order(placed: Ints, orders: Ints, moments: Ints) -> Ints:
    """For each placed order the earliest of its moments, NEVER where it has none."""
    at = find(orders, placed)
    first = np.full(len(placed), NEVER, dtype=np.int64)
    np.minimum.at(first, at[at >= 0], moments[at >= 0])
    return first


def _live_times(trace: Trace) -> pd.DataFrame:
    """For each placed order: since when its row is surely there, and until when it surely still counts as live."""
    orders = trace.once(first_placements).reset_index(drop=True)
    placed = ints(orders, "order_id")
    inserts = _written(trace, "active_orders")
    completions = trace.completions
    at = find(ints(inserts, "order_id"), ints(completions, "order_id"))
    revision = ints(inserts, "write_timestamp")
    is_final = (at >= 0) & (revision >= (ints(completions, "revision")[at] if len(completions) else 0))
    acknowledged = array(inserts, "outcome") == "ok"
    live = rows(inserts, acknowledged & ~is_final)
    final = rows(inserts, is_final)
    final_since = _first_per_order(placed, ints(final, "order_id"), ints(final, "started_t"))
    # A statement under way when settlement's process ended is not recorded: until the last of these ends, a completion
    # may have been written as soon as it was in the log.
    in_log = _first_per_order(placed, ints(completions, "order_id"), ints(completions, "t"))
    final_since = np.where(in_log < settlement_ends(trace).max(initial=0), np.minimum(final_since, in_log), final_since)
    return orders.assign(
        there_since=_first_per_order(placed, ints(live, "order_id"), ints(live, "t")),
        final_since=final_since,
    )


def _check_complete(trace: Trace, found: Findings, lists: pd.DataFrame, listed: pd.DataFrame) -> None:
    orders = _live_times(trace).sort_values(["user_id", "there_since"], kind="stable").reset_index(drop=True)
    user, symbol, order_id = ints(orders, "user_id"), ints(orders, "symbol_id"), ints(orders, "order_id")
    since, until, created = ints(orders, "there_since"), ints(orders, "final_since"), ints(orders, "created_at_ns")
    settled_t = settled_at(trace)
    live_now = ~np.isin(order_id, ints(trace.completions, "order_id"))
    by_read = np.argsort(ints(listed, "read_id"), kind="stable")
    row_read, row_order = ints(listed, "read_id")[by_read], ints(listed, "order_id")[by_read]
    row_created = ints(listed, "created_at")[by_read]
    reads = [ints(lists, name) for name in ("read_id", "user_id", "symbol_id", "asked_t", "t", "row_limit")]
    firsts, lasts = np.searchsorted(user, reads[1]), np.searchsorted(user, reads[1], side="right")
    answer_from, answer_to = np.searchsorted(row_read, reads[0]), np.searchsorted(row_read, reads[0], side="right")
    # How many rows of each answer had to be there. Where that is all that had to be, nothing is missing.
    row_of, row_at = find(row_read, reads[0]), find(row_order, order_id)
    was_due = (
        (row_at >= 0)
        & (user[row_at] == reads[1][row_of])
        & ((reads[2][row_of] == 0) | (symbol[row_at] == reads[2][row_of]))
        & (since[row_at] < reads[3][row_of])
        & (until[row_at] > reads[4][row_of])
    ) if len(order_id) else np.zeros(len(row_of), dtype=bool)  # fmt: skip
    due_there = np.bincount(row_of[was_due], minlength=len(lists))
    for index in range(len(lists)):
        read, reader, asked_symbol, asked_t, ended_t, limit = (int(column[index]) for column in reads)
        first, last = int(firsts[index]), int(lasts[index])
        known = first + int(since[first:last].searchsorted(asked_t))
        settled = asked_t >= settled_t
        if not settled and not limit:
            still = until[first:known] > ended_t
            if asked_symbol:
                still &= symbol[first:known] == asked_symbol
            if np.count_nonzero(still) == due_there[index]:
                continue
        answer = slice(answer_from[index], answer_to[index])
        held = row_order[answer]
        if settled:
            due = np.arange(first, last)[live_now[first:last]]
        else:
            due = np.arange(first, known)[until[first:known] > ended_t]
        if asked_symbol:
            due = due[symbol[due] == asked_symbol]
        missing = due[~np.isin(order_id[due], held)]
        if len(missing) and 0 < limit <= len(held):
            # The limit has cut the answer: what is older than the oldest order in it may be missing.
            missing = missing[created[missing] > row_created[answer].min()]
        if len(missing):
            found.add(
                "live order is missing from an answer" + (" once settled" if settled else ""),
                orders.iloc[missing].assign(read_id=read),
                "read_id", "user_id", "symbol_id", "order_id",
            )  # fmt: skip
        if settled:
            extra = held[~np.isin(held, order_id[first:last][live_now[first:last]])]
            for order in extra:
                found.say("order in an answer is not live once settled", read_id=read, user_id=reader, order_id=order)
        if 0 < limit < len(held):
            found.say("answer is longer than its limit", read_id=read, user_id=reader)


def _check_singles(trace: Trace, found: Findings, singles: pd.DataFrame, answers: pd.DataFrame) -> None:
    """A read of one order finds that order and no other, and finds it once its row and its lookup have been
    acknowledged."""
    at = find(ints(answers, "read_id"), ints(singles, "read_id"))
    given, asked = rows(answers, at >= 0), ints(singles, "order_id")[at[at >= 0]]
    which = ("read_id", "user_id", "order_id")
    found.where("another order than was asked for", given, ints(given, "order_id") != asked, *which, asked_for=asked)
    found.where("more than one row for one order", given, repeated(given, ("read_id",)), *which)
    placements = trace.placements
    at = find(ints(singles, "order_id"), ints(placements, "order_id"))
    own = (at >= 0) & ((ints(placements, "user_id")[at] if len(placements) else 0) == ints(singles, "user_id"))
    mine = rows(singles, own)
    wanted = ints(mine, "order_id")
    since = np.zeros(len(mine), dtype=np.int64)
    unique, inverse = np.unique(wanted, return_inverse=True)
    for table in ("active_orders", "order_lookup"):
        written = _written(trace, table)
        written = rows(written, array(written, "outcome") == "ok")
        since = np.maximum(since, _first_per_order(unique, ints(written, "order_id"), ints(written, "t"))[inverse])
    answered = np.isin(ints(mine, "read_id"), ints(answers, "read_id"))
    found.where("order was not found", mine, (since < ints(mine, "asked_t")) & ~answered, *which)
