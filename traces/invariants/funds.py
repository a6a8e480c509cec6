"""Invariants about money: nothing appears, nothing vanishes, and what is locked is what live orders need."""

import numpy as np
import pandas as pd

from schema.codes import EntryKind, OrderStatus, Outcome, Side
from traces.derived import COMPLETION, REFUSAL
from traces.frames import frame_of
from traces.matching_rows import (
    Ints,
    array,
    codes,
    compare,
    group_sums,
    ints,
    is_any,
    is_first,
    is_in,
    renamed,
    repeated,
    rows,
)
from traces.trace import Trace
from traces.verdicts import Findings, Verdict, invariant

_OUTPUT = ("partition", "output_seq")


@invariant("funds-conserved")
def funds_conserved(trace: Trace) -> Verdict:
    """Entries caused by one output sum to zero per asset once every user touched has applied it; nothing is negative;
    once settled the total is deposits minus withdrawals.

    So that equal and opposite errors cannot hide: each user's net change in an output is what its trades say, each
    output is applied at most once to each user (exactly once, once settled) with the entries that it named, entries
    have the signs of their kind, and deposits and withdrawals are the amounts accepted.
    """
    found = Findings()
    entries, updates, named = trace.ledger_entries, trace.fund_updates, trace.fund_entries
    found.checked(len(entries) + len(named))
    identity = ("user_id", "asset_id", "ledger_seq", "kind", "available_delta", "locked_delta")
    found.where(
        "balance is negative",
        entries,
        (ints(entries, "available_after") < 0) | (ints(entries, "locked_after") < 0),
        *identity,
        "available_after",
        "locked_after",
    )
    found.where("entry has the signs of another kind", entries, _is_odd(entries), *identity)
    _check_trades(trace, found)

    # Each output applied to each user at most once, and in the end exactly once.
    events = trace.balance_events
    is_update = ints(events, "update_partition") >= 0
    applied = frame_of(
        {
            "partition": ints(events, "update_partition")[is_update],
            "output_seq": ints(events, "update_output_seq")[is_update],
            "user_id": ints(events, "event_user_id")[is_update],
        }
    )
    key = (*_OUTPUT, "user_id")
    found.where("output applied twice to a user", applied, repeated(applied, key), *key)
    pending = rows(updates, ~is_in(updates, applied, key))
    if trace.has_settled:
        found.add("output never applied to a user", pending, *key, "request_id")
    if trace.begins_at_one:
        found.where("applied what no output says", applied, ~is_in(applied, updates, key), *key)

    # Entries of the ledger against the entries that the output named, and their sum over an output.
    is_caused = ints(entries, "update_partition") >= 0
    caused = frame_of(
        {
            "partition": ints(entries, "update_partition")[is_caused],
            "output_seq": ints(entries, "update_output_seq")[is_caused],
            **{name: ints(entries, name)[is_caused] for name in (*identity, "order_id")},
        }
    )
    each = (*key, "order_id", "asset_id", "kind")
    judged = rows(named, is_in(named, applied, key))
    (mine, theirs), size = codes(each, judged, caused)
    differs = np.zeros(size, dtype=bool)
    for column in ("available_delta", "locked_delta"):
        differs |= group_sums(mine, size, ints(judged, column)) != group_sums(theirs, size, ints(caused, column))
    found.where("named by the output, applied otherwise", judged, differs[mine], *each)
    found.where("applied, but not what the output named", caused, differs[theirs], *each)
    complete = rows(caused, ~is_in(caused, pending, _OUTPUT))
    (output,), size = codes((*_OUTPUT, "asset_id"), complete)
    total = group_sums(output, size, ints(complete, "available_delta") + ints(complete, "locked_delta"))
    found.where("entries of an output do not sum to zero", complete, total[output] != 0, *each)

    _check_transfers(trace, found)
    return found.verdict


@invariant("locks-match-orders")
def locks_match_orders(trace: Trace) -> Verdict:
    """Once settled, what a user has locked is what the live orders need: a buy its price times the rest, a sell the
    rest; in the ledger and in user_balances alike.

    At any time, the engine takes no more from a lock than the order has locked, and all of it when the order ends: a
    balance that another order holds up would hide it, and a balance core that stops at it would never settle.
    """
    found = Findings()
    if not trace.begins_at_one:
        return found.verdict
    _check_locks(trace, found)
    if not trace.has_settled:
        return found.verdict
    states = trace.last_states
    live = rows(states, np.isin(ints(states, "status"), (OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED)))
    symbols = trace.topology.symbols.symbols
    ids, inverse = np.unique(ints(live, "symbol_id"), return_inverse=True)
    of = [symbols[each] for each in ids]
    base = np.array([each.base.asset_id for each in of], dtype=np.int64)[inverse]
    quote = np.array([each.quote.asset_id for each in of], dtype=np.int64)[inverse]
    lot = np.array([each.lot_atoms for each in of], dtype=np.int64)[inverse]
    cost = np.array([each.tick_lot_atoms for each in of], dtype=np.int64)[inverse]
    rest = ints(live, "quantity") - ints(live, "filled_quantity")
    is_buy = ints(live, "side") == Side.BUY
    needs = frame_of(
        {
            "user_id": ints(live, "user_id"),
            "asset_id": np.where(is_buy, quote, base),
            "needed": np.where(is_buy, rest * ints(live, "price") * cost, rest * lot),
        }
    )
    balances = trace.once(last_entries)
    final = trace.final("user_balances", 0)
    found.checked(len(balances))
    for source, frame, column in (("ledger", balances, "locked_after"), ("user_balances", final, "locked")):
        (need, have), size = codes(("user_id", "asset_id"), needs, frame)
        needed = group_sums(need, size, ints(needs, "needed"))
        locked = group_sums(have, size, ints(frame, column))
        found.where(
            f"locked is not what live orders need, by the {source}", frame, locked[have] != needed[have],
            "user_id", "asset_id", locked_found=locked[have], locked_needed=needed[have],
        )  # fmt: skip
        found.where(
            f"live order of a user without a balance, by the {source}",
            needs, ~is_in(needs, frame, ("user_id", "asset_id")),
            "user_id", "asset_id", "needed",
        )  # fmt: skip
    return found.verdict


def _check_locks(trace: Trace, found: Findings) -> None:
    """What outputs debit and release of each order, against what was locked for it."""
    locks = rows(trace.ledger_entries, ints(trace.ledger_entries, "kind") == EntryKind.LOCK)
    taken = rows(trace.fund_entries, ints(trace.fund_entries, "locked_delta") != 0)
    events = trace.order_events
    ends = rows(events, np.isin(ints(events, "event"), (COMPLETION, REFUSAL)))
    found.checked(len(locks))
    (locked, freed), size = codes(("user_id", "order_id", "asset_id"), locks, taken)
    balance = group_sums(locked, size, ints(locks, "locked_delta")) + group_sums(
        freed, size, ints(taken, "locked_delta")
    )
    which = ("user_id", "order_id", "asset_id")
    over = (balance[freed] < 0) & is_first(freed, size)
    found.where("more was taken from the lock than the order locked", taken, over, *which, over=-balance[freed])
    # An id that was used again has as many locks as times it was placed, and all are gone when each has ended.
    (of_lock, of_end), orders = codes(("user_id", "order_id"), locks, ends)
    has_ended = np.bincount(of_end, minlength=orders) >= np.bincount(of_lock, minlength=orders)
    kept = has_ended[of_lock] & (balance[locked] > 0) & is_first(locked, size)
    found.where("order ended, but its lock was not given back whole", locks, kept, *which, kept=balance[locked])


@invariant("ledger-matches-balances")
def ledger_matches_balances(trace: Trace) -> Verdict:
    """Per user and asset: sequence without gaps, each balance is the one before plus its entry, user_balances is the
    last."""
    found = Findings()
    entries = trace.ledger_entries
    found.checked(len(entries))
    (account,), _ = codes(("user_id", "asset_id"), entries)
    # In the order of the log; a user's entries all stand in one partition.
    order = np.lexsort((np.arange(len(entries)), account))
    account = account[order]
    same = np.r_[False, account[1:] == account[:-1]] if len(account) else np.empty(0, dtype=bool)
    seq = ints(entries, "ledger_seq")[order]
    expected_seq = np.where(same, np.roll(seq, 1) + 1, 1 if trace.begins_at_one else seq)
    identity = ("user_id", "asset_id", "ledger_seq", "partition", "offset")
    ordered = entries.iloc[order]
    found.where("ledger sequence has a gap or repeats", ordered, seq != expected_seq, *identity)
    for column in ("available", "locked"):
        after, delta = ints(ordered, f"{column}_after"), ints(ordered, f"{column}_delta")
        before = np.where(same, np.roll(after, 1), 0 if trace.begins_at_one else after - delta)
        found.where(f"{column} is not the balance before plus the entry", ordered, after != before + delta, *identity)
    if trace.rows_are_due:
        last = trace.once(last_entries)
        if trace.manifest.audit is not None:
            key = ["user_id", "asset_id"]
            later = pd.DataFrame(trace.manifest.audit.later_accounts, columns=key, dtype=np.int64)
            last = rows(last, ~is_in(last, later, key))
        last = renamed(last, available_after="available", locked_after="locked", time_ns="updated_at")
        last = last.assign(write_timestamp=ints(last, "ledger_seq"))
        for look, when in trace.looks:
            final = trace.final("user_balances", look)
            compared = compare(
                last,
                final,
                ("user_id", "asset_id"),
                ("available", "locked", "ledger_seq", "updated_at", "write_timestamp"),
            )
            found.checked(compared.matched)
            found.add(f"no row in user_balances {when}", compared.missing, "user_id", "asset_id", "ledger_seq")
            found.add(
                f"user_balances is not the last entry {when}", compared.differing, "user_id", "asset_id", "differs"
            )
            negative = (ints(final, "available") < 0) | (ints(final, "locked") < 0)
            found.where(f"negative row in user_balances {when}", final, negative, "user_id", "asset_id")
    return found.verdict


def last_entries(trace: Trace) -> pd.DataFrame:
    """The last entry of each user and asset: the balance as the log has it."""
    entries = trace.ledger_entries
    (account,), size = codes(("user_id", "asset_id"), entries)
    return rows(entries, is_first(account[::-1], size)[::-1])


def _is_odd(entries: pd.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Entries whose deltas do not have the signs of their kind."""
    kind, available, locked = (ints(entries, name) for name in ("kind", "available_delta", "locked_delta"))
    fits = np.zeros(len(entries), dtype=bool)
    fits |= (kind == EntryKind.DEPOSIT) & (available > 0) & (locked == 0)
    fits |= (kind == EntryKind.WITHDRAWAL) & (available < 0) & (locked == 0)
    fits |= (kind == EntryKind.LOCK) & (available < 0) & (locked == -available)
    fits |= (kind == EntryKind.RELEASE) & (available > 0) & (locked == -available)
    fits |= (kind == EntryKind.DEBIT) & (available == 0) & (locked < 0)
    fits |= (kind == EntryKind.CREDIT) & (available > 0) & (locked == 0)
    return ~fits


def _check_trades(trace: Trace, found: Findings) -> None:
    """Each user's net change per asset in an output is what the output's trades say."""
    trades, named = trace.trades, trace.fund_entries
    symbols = trace.topology.symbols.symbols
    known = rows(trades, np.isin(ints(trades, "symbol_id"), list(symbols)))
    ids, inverse = np.unique(ints(known, "symbol_id"), return_inverse=True)
    base = np.array([symbols[each].base.asset_id for each in ids], dtype=np.int64)[inverse]
    quote = np.array([symbols[each].quote.asset_id for each in ids], dtype=np.int64)[inverse]
    lots = np.array([symbols[each].lot_atoms for each in ids], dtype=np.int64)[inverse] * ints(known, "quantity")
    paid = ints(known, "quote_amount")
    taker_buys = ints(known, "taker_side") == Side.BUY
    buyer = np.where(taker_buys, ints(known, "taker_user_id"), ints(known, "maker_user_id"))
    seller = np.where(taker_buys, ints(known, "maker_user_id"), ints(known, "taker_user_id"))
    traded = frame_of(
        {
            "partition": np.concatenate([ints(known, "partition")] * 4),
            "output_seq": np.concatenate([ints(known, "output_seq")] * 4),
            "user_id": np.concatenate([buyer, buyer, seller, seller]),
            "asset_id": np.concatenate([base, quote, base, quote]),
            "net": np.concatenate([lots, -paid, -lots, paid]),
        }
    )
    key = (*_OUTPUT, "user_id", "asset_id")
    (of_entries, of_trades), size = codes(key, named, traded)
    named_net = group_sums(of_entries, size, ints(named, "available_delta") + ints(named, "locked_delta"))
    differs = named_net != group_sums(of_trades, size, ints(traded, "net"))
    found.where("funds moved that no trade moved", named, differs[of_entries], *key, "order_id", "kind")
    found.where("trade did not move its funds", traded, differs[of_trades], *key, "net")


def _check_transfers(trace: Trace, found: Findings) -> None:
    """Deposits and withdrawals move exactly what was accepted, once; and once settled they explain the total."""
    events, entries = trace.balance_events, trace.ledger_entries
    accepted = rows(
        events,
        is_any(events, "command", "deposit", "withdraw")
        & (ints(events, "outcome") == Outcome.ACCEPTED)
        & (ints(events, "is_repeat") == 0),
    )
    is_deposit = array(accepted, "command") == "deposit"
    moved = np.where(is_deposit, ints(accepted, "amount"), -ints(accepted, "amount"))
    expected = accepted.assign(
        available_delta=moved, kind=np.where(is_deposit, EntryKind.DEPOSIT, EntryKind.WITHDRAWAL)
    )
    transfers = rows(entries, np.isin(ints(entries, "kind"), (EntryKind.DEPOSIT, EntryKind.WITHDRAWAL)))
    compared = compare(expected, transfers, ("partition", "offset"), ("user_id", "asset_id", "kind", "available_delta"))
    where = ("user_id", "asset_id", "partition", "offset")
    found.add("accepted transfer moved nothing", compared.missing, *where, "request_id")
    found.add("transfer that was not accepted", compared.unexpected, *where)
    found.add("transfer moved twice", compared.repeated, *where)
    found.add("transfer moved something else", compared.differing, *where, "differs")
    if trace.has_settled and trace.begins_at_one:
        _check_total(found, "ledger", trace.once(last_entries), ("available_after", "locked_after"), expected, moved)
        _check_total(found, "user_balances", trace.final("user_balances", 0), ("available", "locked"), expected, moved)


def _check_total(
    found: Findings, source: str, balances: pd.DataFrame, columns: tuple[str, str], transfers: pd.DataFrame, moved: Ints
) -> None:
    (have, should), size = codes(("asset_id",), balances, transfers)
    total = group_sums(have, size, ints(balances, columns[0]) + ints(balances, columns[1]))
    due = group_sums(should, size, moved)
    asset = np.zeros(size, dtype=np.int64)
    asset[have], asset[should] = ints(balances, "asset_id"), ints(transfers, "asset_id")
    wrong = total != due
    found.add(
        f"total is not deposits minus withdrawals, by the {source}",
        pd.DataFrame({"asset_id": asset[wrong], "total_found": total[wrong], "total_due": due[wrong]}),
    )
