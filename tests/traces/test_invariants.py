"""Each invariant holds on a sound trace, sees the damage it is there for, and says so when it had nothing to judge.

The damages are the smallest that show one thing; most are what a defect of design section 9 leaves behind.
"""

import pandas as pd
import pytest
from xxhash import xxh3_64_digest

from benchmarks.mini_world import BUY, SELL, TOPOLOGY, MiniWorld
from schema import topics
from schema.codes import EntryKind, Outcome, Reason
from schema.events import BalanceEvent, FundEntry
from schema.tables import TABLE_COLUMNS
from tests.traces.damage import (
    BOUGHT,
    CANCELLED,
    PARTIAL,
    RESTING,
    SOLD,
    Damage,
    Damages,
    busy_world,
    change_balance_events,
    change_completion,
    change_states,
    change_trades,
    copy,
    drop,
    drop_record,
    edit,
    find,
    put_record,
    registrar,
    replace,
)
from tests.traces.test_way import DAMAGES as DAMAGES_OF_THE_WAY
from traces.invariants import _STAGES, ORDER, check, check_one
from traces.invariants.lifecycle import order_differences
from traces.manifest import Manifest, TopologyRecord
from traces.tables import KeptTables
from traces.trace import Trace
from traces.verdicts import INVARIANTS

DAMAGES: Damages = []
breaks = registrar(DAMAGES)
"""Registers a damage with the invariant that must see it and words from what it must say."""


# --- placement-accounted


@breaks("placement-accounted", "no completion and no live row once settled")
def live_row_is_missing(world: MiniWorld) -> None:
    drop(world, "final_active_orders", look=0, order_id=RESTING)


@breaks("placement-accounted", "no completion and no live row 25 hours later")
def live_row_has_expired_a_day_later(world: MiniWorld) -> None:
    drop(world, "final_active_orders", look=1, order_id=RESTING)


@breaks("placement-accounted", "completed, but has a live row once settled")
def finished_order_still_looks_live(world: MiniWorld) -> None:
    edit(world, "final_active_orders", {"status": 1}, look=0, order_id=CANCELLED)


@breaks("placement-accounted", "completed, but has a live row 25 hours later")
def finished_order_comes_back_a_day_later(world: MiniWorld) -> None:
    copy(world, "final_active_orders", {"look": 1, "status": 0}, look=0, order_id=CANCELLED)


@breaks("placement-accounted", "more than one live row")
def live_order_has_two_rows(world: MiniWorld) -> None:
    copy(world, "final_active_orders", {"created_at": 5}, look=0, order_id=RESTING)


@breaks("placement-accounted", "no completion and no live row")
def resting_orders_last_fill_emits_no_completion(world: MiniWorld) -> None:
    change_completion(world, SOLD, lambda _: [])


@breaks("placement-accounted", "more than one completion")
def order_completes_twice(world: MiniWorld) -> None:
    change_completion(world, SOLD, lambda each: [each, each])


@breaks("placement-accounted", "live row would expire")
def live_row_has_a_time_to_live(world: MiniWorld) -> None:
    edit(world, "final_active_orders", {"ttl": 86_000}, look=0, order_id=RESTING)


@breaks("placement-accounted", "no completion and no live row")
def settlement_ignores_the_order_events(world: MiniWorld) -> None:
    for kind in ("final_active_orders", "final_order_lookup", "final_order_history"):
        world.events[kind].clear()


# --- lifecycle-matches-reference


@breaks("lifecycle-matches-reference", "event is missing")
def maker_completion_is_not_emitted(world: MiniWorld) -> None:
    change_completion(world, SOLD, lambda _: [])


@breaks("lifecycle-matches-reference", "event has another content")
def completion_has_another_reason(world: MiniWorld) -> None:
    change_completion(world, CANCELLED, lambda each: [replace(each, reason=int(Reason.SELF_TRADE))])


@breaks("lifecycle-matches-reference", "event is there more than once")
def completion_is_emitted_twice(world: MiniWorld) -> None:
    change_completion(world, CANCELLED, lambda each: [each, each])


@breaks("lifecycle-matches-reference", "event is missing")
def updates_are_not_emitted(world: MiniWorld) -> None:
    world.rewrite_outputs(lambda output: replace(output, order_updates=()))


@breaks("lifecycle-matches-reference", "event has another content")
def placement_names_another_client_order_id(world: MiniWorld) -> None:
    change_states(world, "order_placements", lambda state: replace(state, client_order_id="x"))


@breaks("lifecycle-matches-reference", "event has another content")
def refusal_has_another_reason(world: MiniWorld) -> None:
    change_states(world, "refusals", lambda state: replace(state, reason=int(Reason.CANNOT_FILL)))


@breaks("lifecycle-matches-reference", "trade has another content")
def trade_prints_at_the_takers_price(world: MiniWorld) -> None:
    change_trades(world, price=101)


@breaks("lifecycle-matches-reference", "trade has another content")
def a_younger_maker_trades_first(world: MiniWorld) -> None:
    change_trades(world, maker_order_id=99)


@breaks("lifecycle-matches-reference", "trade is missing")
def trades_are_not_in_the_output(world: MiniWorld) -> None:
    world.rewrite_outputs(lambda output: replace(output, trades=()))


@breaks("lifecycle-matches-reference", "input has no output")
def last_input_has_no_output(world: MiniWorld) -> None:
    drop_record(world, topics.ENGINE_OUTPUTS, 0, -1)


@breaks("lifecycle-matches-reference", "input has more than one output")
def last_input_is_processed_twice(world: MiniWorld) -> None:
    world.log[topics.ENGINE_OUTPUTS, 0].append(world.log[topics.ENGINE_OUTPUTS, 0][-1])


@breaks("lifecycle-matches-reference", "output has another verdict or time")
def output_tells_another_verdict(world: MiniWorld) -> None:
    world.rewrite_outputs(
        lambda output: replace(
            output, fund_updates=tuple(replace(each, verdict=each.verdict and 6) for each in output.fund_updates)
        )
    )


# --- completion-once


@breaks("completion-once", "ended without a completion")
def cancel_emits_no_completion(world: MiniWorld) -> None:
    change_completion(world, CANCELLED, lambda _: [])


@breaks("completion-once", "more than one completion")
def completion_is_repeated(world: MiniWorld) -> None:
    change_completion(world, BOUGHT, lambda each: [each, each])


@breaks("completion-once", "completion of an order that has not ended")
def live_order_gets_a_completion(world: MiniWorld) -> None:
    change_completion(world, BOUGHT, lambda each: [each, replace(each, order_id=RESTING)])


@breaks("completion-once", "never placed")
def completed_order_was_never_placed(world: MiniWorld) -> None:
    world.rewrite_outputs(
        lambda output: replace(
            output, order_placements=tuple(each for each in output.order_placements if each.order_id != BOUGHT)
        )
    )


@breaks("completion-once", "placed more than once")
def completed_order_was_placed_twice(world: MiniWorld) -> None:
    world.rewrite_outputs(lambda output: replace(output, order_placements=output.order_placements * 2))


# --- rows-complete


@breaks("rows-complete", "placement without its lookup once settled")
def lookup_is_missing(world: MiniWorld) -> None:
    drop(world, "final_order_lookup", look=0, order_id=CANCELLED)


@breaks("rows-complete", "placement without its lookup 25 hours later")
def live_orders_lookup_expires(world: MiniWorld) -> None:
    drop(world, "final_order_lookup", look=1, order_id=RESTING)


@breaks("rows-complete", "order without its history")
def history_is_missing(world: MiniWorld) -> None:
    drop(world, "final_order_history", look=0, order_id=SOLD)


@breaks("rows-complete", "refused order without its history")
def history_of_a_refusal_is_missing(world: MiniWorld) -> None:
    drop(world, "final_order_history", look=0, reason=int(Reason.WOULD_CROSS))


@breaks("rows-complete", "refused order without its history")
def history_of_what_the_balance_core_refused_is_missing(world: MiniWorld) -> None:
    drop(world, "final_order_history", look=0, reason=int(Reason.INSUFFICIENT_FUNDS))


@breaks("rows-complete", "trade without a user's row once settled")
def makers_trade_row_is_not_written(world: MiniWorld) -> None:
    drop(world, "final_user_trades", look=0, is_maker=True)


@breaks("rows-complete", "trade without a user's row 25 hours later")
def trade_rows_expire(world: MiniWorld) -> None:
    drop(world, "final_user_trades", look=1)


@breaks("rows-complete", "ledger entry without its row")
def ledger_row_is_missing(world: MiniWorld) -> None:
    drop(world, "final_balance_ledger", look=0, kind=int(EntryKind.CREDIT))


@breaks("rows-complete", "is still there 25 hours later")
def finished_row_never_goes(world: MiniWorld) -> None:
    copy(world, "final_active_orders", {"look": 1}, look=0, order_id=SOLD)


@breaks("rows-complete", "would not expire in time")
def finished_row_has_no_time_to_live(world: MiniWorld) -> None:
    edit(world, "final_active_orders", {"ttl": -1}, look=0, order_id=SOLD)


@breaks("rows-complete", "settlement progress is not at the end")
def settlement_stopped_before_the_end(world: MiniWorld) -> None:
    edit(world, "final_settlement_progress", {"sequence": 1, "next_offset": 1}, look=0, topic=topics.ENGINE_OUTPUTS)


@breaks("rows-complete", "no settlement progress")
def settlement_never_wrote_its_progress(world: MiniWorld) -> None:
    drop(world, "final_settlement_progress", look=0, topic=topics.BALANCE_EVENTS)


# --- row-matches-engine

_KEYS = {
    "active_orders": ("user_id", "symbol_id", "order_id"),
    "order_lookup": ("order_id",),
    "order_history": ("user_id", "symbol_id", "created_at", "order_id"),
    "user_trades": ("user_id", "symbol_id", "traded_at", "trade_id"),
    "balance_ledger": ("user_id", "asset_id", "ledger_seq"),
}


def _another(value: object) -> object:
    return not value if isinstance(value, bool) else value + 7 if isinstance(value, int) else "another"


def _change_column(table: str, column: str) -> Damage:
    def damage(world: MiniWorld) -> None:
        row = find(world, f"final_{table}", look=0)[0]
        row[column] = _another(row[column])

    damage.__name__ = f"{column}_of_{table}_differs"
    return damage


for _table, _key in _KEYS.items():
    for _column in (*TABLE_COLUMNS[_table], "write_timestamp"):
        if _column not in _key:
            breaks("row-matches-engine", f"row of {_table} is not the last word")(_change_column(_table, _column))


@breaks("row-matches-engine", "is not the last word 25 hours later")
def row_changes_after_the_end(world: MiniWorld) -> None:
    edit(world, "final_active_orders", {"filled_quantity": 1}, look=1, order_id=RESTING)


@breaks("row-matches-engine", "would expire")
def history_would_expire(world: MiniWorld) -> None:
    edit(world, "final_order_history", {"ttl": 10}, look=0, order_id=RESTING)


# --- no-phantom-row


def _phantom(table: str, column: str) -> Damage:
    def damage(world: MiniWorld) -> None:
        copy(world, f"final_{table}", {column: 4_242}, look=0)

    damage.__name__ = f"phantom_in_{table}_by_{column}"
    return damage


for _table, _column in (
    ("active_orders", "order_id"), ("active_orders", "created_at"), ("order_lookup", "order_id"),
    ("order_history", "order_id"), ("user_trades", "trade_id"), ("user_trades", "user_id"),
    ("balance_ledger", "ledger_seq"), ("user_balances", "asset_id"), ("settlement_progress", "hash"),
):  # fmt: skip
    breaks("no-phantom-row", f"row of {_table} without an event")(_phantom(_table, _column))


# --- one-row-per-order


@breaks("one-row-per-order", "more than one row")
def created_at_taken_from_the_clock_gives_a_second_row(world: MiniWorld) -> None:
    copy(world, "final_active_orders", {"created_at": 99}, look=0, order_id=RESTING)


@breaks("one-row-per-order", "points at another row")
def lookup_points_astray(world: MiniWorld) -> None:
    edit(world, "final_order_lookup", {"created_at": 99}, look=0, order_id=RESTING)


@breaks("one-row-per-order", "points at no row")
def lookup_points_nowhere(world: MiniWorld) -> None:
    drop(world, "final_active_orders", look=0, order_id=RESTING)


@breaks("one-row-per-order", "row without a lookup")
def row_has_no_lookup(world: MiniWorld) -> None:
    drop(world, "final_order_lookup", look=1, order_id=RESTING)


@breaks("one-row-per-order", "more than one lookup")
def order_has_two_lookups(world: MiniWorld) -> None:
    copy(world, "final_order_lookup", {}, look=0, order_id=RESTING)


# --- reads-complete


@breaks("reads-complete", "live order is missing from an answer")
def live_order_is_missing_from_an_answer(world: MiniWorld) -> None:
    row = find(world, "read_rows", order_id=RESTING)[0]
    world.events["read_rows"].remove(row)
    find(world, "reads", read_id=row["read_id"])[0]["rows"] -= 1


@breaks("reads-complete", "live order is missing from an answer")
def limit_counts_finished_orders(world: MiniWorld) -> None:
    read = find(world, "reads", row_limit=1)[0]
    drop(world, "read_rows", read_id=read["read_id"])
    read["rows"] = 0


@breaks("reads-complete", "live order is missing from an answer")
def limit_cuts_the_newest(world: MiniWorld) -> None:
    read = find(world, "reads", row_limit=1)[0]
    older = find(world, "read_rows", order_id=6)[0]
    drop(world, "read_rows", read_id=read["read_id"])
    world.events["read_rows"].append({**older, "read_id": read["read_id"], "position": 0})


@breaks("reads-complete", "longer than its limit")
def limit_is_ignored(world: MiniWorld) -> None:
    edit(world, "reads", {"row_limit": 1}, rows=2)


@breaks("reads-complete", "not all there")
def answer_has_fewer_rows_than_it_says(world: MiniWorld) -> None:
    find(world, "reads", query="active_orders", user_id=1)[0]["rows"] += 1


@breaks("reads-complete", "finished order in a list")
def finished_order_is_listed(world: MiniWorld) -> None:
    edit(world, "read_rows", {"status": 2}, order_id=RESTING)


@breaks("reads-complete", "order twice in one answer")
def order_is_listed_twice(world: MiniWorld) -> None:
    copy(world, "read_rows", {}, order_id=RESTING)


@breaks("reads-complete", "symbol not asked for")
def order_of_another_symbol_is_listed(world: MiniWorld) -> None:
    edit(world, "reads", {"symbol_id": 2}, rows=2)


@breaks("reads-complete", "not newest first")
def older_order_comes_first(world: MiniWorld) -> None:
    read = find(world, "reads", rows=2)[0]["read_id"]
    for row in find(world, "read_rows", read_id=read):
        row["position"] = 1 - row["position"]


@breaks("reads-complete", "row is not what the engine said")
def answer_tells_another_filled_quantity(world: MiniWorld) -> None:
    edit(world, "read_rows", {"filled_quantity": 3}, order_id=RESTING)


@breaks("reads-complete", "row that no event made")
def answer_tells_a_revision_that_never_was(world: MiniWorld) -> None:
    edit(world, "read_rows", {"revision": 9}, order_id=RESTING)


@breaks("reads-complete", "order was not found")
def order_that_was_written_is_not_found(world: MiniWorld) -> None:
    read = find(world, "reads", query="order", order_id=PARTIAL)[0]
    drop(world, "read_rows", read_id=read["read_id"])


def _read_after_settling(world: MiniWorld, user: int) -> int:
    settled = find(world, "phases", phase="settled")[0]["t"]
    world.t = settled + 1_000_000_000
    return world.read(user)


@breaks("reads-complete", "missing from an answer once settled")
def settled_answer_lacks_an_order_whose_write_was_never_acknowledged(world: MiniWorld) -> None:
    drop(world, "cql", order_id=RESTING)
    read = _read_after_settling(world, 2)
    drop(world, "read_rows", read_id=read, order_id=RESTING)
    find(world, "reads", read_id=read)[0]["rows"] -= 1


@breaks("reads-complete", "not live once settled")
def settled_answer_holds_a_finished_order(world: MiniWorld) -> None:
    read = _read_after_settling(world, 2)
    copy(world, "read_rows", {"read_id": read, "position": 5, "created_at": 1}, order_id=CANCELLED)


# --- statements-at-quorum and offsets-after-rows; tests/traces/test_sharper.py has more


@breaks("statements-at-quorum", "is not at LOCAL_QUORUM")
def rows_are_written_at_one(world: MiniWorld) -> None:
    edit(world, "cql", {"consistency": "ONE"}, table="order_lookup")


@breaks("offsets-after-rows", "before progress had reached it")
def offset_is_committed_before_the_progress(world: MiniWorld) -> None:
    world.emit("offset_commits", group="settlement", topic=topics.ENGINE_OUTPUTS, partition=0, offset=3, outcome="ok")


# --- reads-own-user


@breaks("reads-own-user", "another user's row")
def answer_holds_another_users_row(world: MiniWorld) -> None:
    copy(world, "read_rows", {"read_id": find(world, "reads", user_id=1)[0]["read_id"]}, order_id=RESTING)


@breaks("reads-own-user", "another user's order")
def answer_holds_another_users_order_under_the_readers_name(world: MiniWorld) -> None:
    read = find(world, "reads", user_id=1)[0]["read_id"]
    copy(world, "read_rows", {"read_id": read, "user_id": 1}, order_id=RESTING)


@breaks("reads-own-user", "no read asked for")
def row_belongs_to_no_read(world: MiniWorld) -> None:
    copy(world, "read_rows", {"read_id": 999}, order_id=RESTING)


# --- no-resurrection


@breaks("no-resurrection", "revision went back")
def later_read_sees_an_older_revision(world: MiniWorld) -> None:
    first = find(world, "read_rows", order_id=PARTIAL)[0]
    edit(world, "read_rows", {"revision": 1}, order_id=PARTIAL)
    first["revision"] = 2


# --- cancel-honoured


@breaks("cancel-honoured", "not completed by this cancel")
def cancelled_order_has_no_completion(world: MiniWorld) -> None:
    change_completion(world, CANCELLED, lambda _: [])


@breaks("cancel-honoured", "not completed by this cancel")
def cancelled_order_completes_for_another_reason(world: MiniWorld) -> None:
    change_completion(world, CANCELLED, lambda each: [replace(each, reason=int(Reason.FILLED))])


@breaks("cancel-honoured", "a trade follows the cancel")
def cancelled_order_trades_afterwards(world: MiniWorld) -> None:
    world.rewrite_outputs(
        lambda output: replace(output, trades=tuple(replace(each, maker_order_id=CANCELLED) for each in output.trades))
    )


@breaks("cancel-honoured", "too late, but the order is live")
def cancel_is_too_late_for_a_live_order(world: MiniWorld) -> None:
    change_completion(world, CANCELLED, lambda _: [])


@breaks("cancel-honoured", "told another verdict")
def client_is_told_cancelled_though_it_was_too_late(world: MiniWorld) -> None:
    edit(world, "client_answers", {"verdict": 3, "verdict_reason": 0}, command="cancel", verdict=6)


@breaks("cancel-honoured", "no output gave")
def client_is_told_a_verdict_that_nobody_gave(world: MiniWorld) -> None:
    edit(world, "client_answers", {"request_id": "never"}, command="cancel", verdict=6)


# --- fills-add-up


@breaks("fills-add-up", "filled quantity is not the sum")
def filled_quantity_is_added_again(world: MiniWorld) -> None:
    change_states(world, "order_completions", lambda each: replace(each, filled_quantity=2 * each.filled_quantity))


@breaks("fills-add-up", "filled quantity is not the sum")
def update_forgets_a_fill(world: MiniWorld) -> None:
    change_states(world, "order_updates", lambda each: replace(each, filled_quantity=0))


@breaks("fills-add-up", "filled quote amount is not the sum")
def filled_quote_amount_is_wrong(world: MiniWorld) -> None:
    change_states(world, "order_completions", lambda each: replace(each, filled_quote=each.filled_quote + 1))


@breaks("fills-add-up", "filled over its quantity")
def order_is_overfilled(world: MiniWorld) -> None:
    change_states(world, "order_completions", lambda each: replace(each, quantity=1))


@breaks("fills-add-up", "does not cost price times quantity")
def trade_costs_something_else(world: MiniWorld) -> None:
    change_trades(world, quote_amount=1)


@breaks("fills-add-up", "trade of no lots")
def trade_of_nothing(world: MiniWorld) -> None:
    change_trades(world, quantity=0, quote_amount=0)


@breaks("fills-add-up", "trade id used twice")
def trade_id_is_used_twice(world: MiniWorld) -> None:
    world.rewrite_outputs(
        lambda output: replace(output, trades=tuple(replace(each, trade_id=1) for each in output.trades))
    )


@breaks("fills-add-up", "beyond its limit price")
def taker_pays_more_than_its_limit(world: MiniWorld) -> None:
    change_trades(world, price=102)


@breaks("fills-add-up", "never placed")
def trade_of_an_order_nobody_placed(world: MiniWorld) -> None:
    change_trades(world, maker_order_id=4_242)


@breaks("fills-add-up", "another user or symbol")
def trade_names_another_user(world: MiniWorld) -> None:
    change_trades(world, maker_user_id=4)


# --- funds-conserved


def _applies_an_update(event: object) -> bool:
    return event.update_partition >= 0 and len(event.entries) > 0  # type: ignore[attr-defined]


def _is_a_deposit(event: object) -> bool:
    return any(entry.kind == EntryKind.DEPOSIT for entry in event.entries)  # type: ignore[attr-defined]


@breaks("funds-conserved", "named by the output, applied otherwise")
def entry_is_not_applied(world: MiniWorld) -> None:
    change_balance_events(world, _applies_an_update, lambda event: replace(event, entries=event.entries[1:]))


@breaks("funds-conserved", "do not sum to zero")
def money_appears_in_the_balance_core(world: MiniWorld) -> None:
    def more(event: object) -> object:
        first = event.entries[0]  # type: ignore[attr-defined]
        richer = replace(first, available_delta=first.available_delta + 5, available_after=first.available_after + 5)
        return replace(event, entries=(richer, *event.entries[1:]))  # type: ignore[attr-defined]

    change_balance_events(world, _applies_an_update, more)


@breaks("funds-conserved", "applied twice")
def funds_are_released_twice(world: MiniWorld) -> None:
    def of_first(event: object) -> object:
        return replace(event, update_partition=0, update_output_seq=1)

    for _ in range(2):
        change_balance_events(
            world, lambda event: event.update_partition >= 0 and event.update_output_seq != 1, of_first
        )


@breaks("funds-conserved", "never applied to a user")
def update_is_lost(world: MiniWorld) -> None:
    change_balance_events(world, _applies_an_update, lambda _: None)


@breaks("funds-conserved", "applied what no output says")
def update_of_no_output_is_applied(world: MiniWorld) -> None:
    change_balance_events(world, _applies_an_update, lambda event: replace(event, update_output_seq=4_242))


@breaks("funds-conserved", "negative")
def balance_goes_below_zero(world: MiniWorld) -> None:
    def below(event: object) -> object:
        return replace(event, entries=tuple(replace(each, available_after=-1) for each in event.entries))  # type: ignore[attr-defined]

    change_balance_events(world, _applies_an_update, below)


@breaks("funds-conserved", "signs of another kind")
def debit_takes_what_is_not_locked(world: MiniWorld) -> None:
    def wrong(event: object) -> object:
        entries = event.entries  # type: ignore[attr-defined]
        return replace(event, entries=tuple(replace(each, kind=int(EntryKind.DEBIT)) for each in entries))

    change_balance_events(world, _is_a_deposit, wrong)


@breaks("funds-conserved", "transfer moved something else")
def deposit_credits_twice_the_amount(world: MiniWorld) -> None:
    def doubled(event: object) -> object:
        entries = event.entries  # type: ignore[attr-defined]
        return replace(
            event, entries=tuple(replace(each, available_delta=2 * each.available_delta) for each in entries)
        )

    change_balance_events(world, _is_a_deposit, doubled)


@breaks("funds-conserved", "accepted transfer moved nothing")
def accepted_deposit_moves_nothing(world: MiniWorld) -> None:
    change_balance_events(world, _is_a_deposit, lambda event: replace(event, entries=()))


@breaks("funds-conserved", "total is not deposits minus withdrawals, by the user_balances")
def rows_hold_more_than_was_deposited(world: MiniWorld) -> None:
    row = find(world, "final_user_balances", look=0)[0]
    row["available"] += 1


@breaks("funds-conserved", "funds moved that no trade moved")
def engine_credits_too_much(world: MiniWorld) -> None:
    def richer(update: object) -> object:
        entries = update.entries  # type: ignore[attr-defined]
        return replace(
            update,
            entries=tuple(
                replace(each, available_delta=each.available_delta + 3) if each.kind == EntryKind.CREDIT else each
                for each in entries
            ),
        )

    world.rewrite_outputs(
        lambda output: replace(output, fund_updates=tuple(richer(each) for each in output.fund_updates))
    )


@breaks("funds-conserved", "trade did not move its funds")
def makers_credit_is_not_in_the_output(world: MiniWorld) -> None:
    world.rewrite_outputs(
        lambda output: replace(
            output,
            fund_updates=tuple(
                replace(each, entries=()) if not each.request_id else each for each in output.fund_updates
            ),
        )
    )


# --- locks-match-orders


@breaks("locks-match-orders", "by the ledger")
def price_improvement_is_not_given_back(world: MiniWorld) -> None:
    def kept(event: object) -> object:
        entries = event.entries  # type: ignore[attr-defined]
        return replace(event, entries=tuple(replace(each, locked_after=each.locked_after + 9) for each in entries))

    change_balance_events(world, lambda event: any(each.kind == EntryKind.WITHDRAWAL for each in event.entries), kept)


def _release_in_first_output(world: MiniWorld, atoms: int) -> None:
    """Change the first release that any output names, in a run that its balance core kept from settling."""
    touched = []

    def of(entry: FundEntry) -> FundEntry:
        if entry.kind == EntryKind.RELEASE and not touched:
            touched.append(entry)
            return replace(
                entry, available_delta=entry.available_delta + atoms, locked_delta=entry.locked_delta - atoms
            )
        return entry

    world.rewrite_outputs(
        lambda output: replace(
            output,
            fund_updates=tuple(
                replace(update, entries=tuple(map(of, update.entries))) for update in output.fund_updates
            ),
        )
    )
    assert touched
    edit(world, "phases", {"phase": "unsettled", "detail": "a partition stopped"}, phase="settled")


@breaks("locks-match-orders", "more was taken from the lock")
def output_releases_more_than_the_order_locked(world: MiniWorld) -> None:
    _release_in_first_output(world, 1)


@breaks("locks-match-orders", "not given back whole")
def ended_order_keeps_some_of_its_lock(world: MiniWorld) -> None:
    _release_in_first_output(world, -1)


@breaks("locks-match-orders", "by the user_balances")
def locked_column_is_wrong(world: MiniWorld) -> None:
    find(world, "final_user_balances", look=0, user_id=2, asset_id=3)[0]["locked"] += 1


@breaks("locks-match-orders", "without a balance")
def live_order_of_a_user_without_a_balance_row(world: MiniWorld) -> None:
    drop(world, "final_user_balances", look=0, user_id=2, asset_id=3)


# --- ledger-matches-balances


@breaks("ledger-matches-balances", "gap or repeats")
def ledger_sequence_has_a_gap(world: MiniWorld) -> None:
    change_balance_events(world, _applies_an_update, lambda event: replace(event, entries=event.entries[1:]))


@breaks("ledger-matches-balances", "available is not the balance before plus the entry")
def balance_after_is_wrong(world: MiniWorld) -> None:
    def wrong(event: object) -> object:
        entries = event.entries  # type: ignore[attr-defined]
        return replace(event, entries=tuple(replace(each, available_after=77) for each in entries))

    change_balance_events(world, _applies_an_update, wrong)


@breaks("ledger-matches-balances", "user_balances is not the last entry")
def balance_row_is_stale(world: MiniWorld) -> None:
    find(world, "final_user_balances", look=0)[0]["ledger_seq"] -= 1


@breaks("ledger-matches-balances", "no row in user_balances")
def balance_row_is_missing(world: MiniWorld) -> None:
    drop(world, "final_user_balances", look=1, user_id=1)


# --- core-matches-reference; its other damages are in test_core_reference.py


@breaks("core-matches-reference", "rejected what the reference accepts")
def order_is_rejected_though_its_funds_are_there(world: MiniWorld) -> None:
    def reject(event: BalanceEvent) -> BalanceEvent:
        answer = replace(event.response, outcome=int(Outcome.REJECTED), reason=int(Reason.INSUFFICIENT_FUNDS))
        return replace(event, response=answer, entries=(), validated_partition=-1, validated_link_seq=0)

    change_balance_events(world, lambda event: event.validated_partition >= 0, reject)


# --- chain-unbroken


@breaks("chain-unbroken", "sequence does not link")
def output_is_missing_in_the_chain(world: MiniWorld) -> None:
    drop_record(world, topics.ENGINE_OUTPUTS, 0, 3)


@breaks("chain-unbroken", "sequence does not link")
def first_output_is_missing(world: MiniWorld) -> None:
    drop_record(world, topics.ENGINE_OUTPUTS, 0, 0)


@breaks("chain-unbroken", "prev_hash does not link")
def record_was_altered_and_sealed_anew(world: MiniWorld) -> None:
    from schema import wire

    event = world.decoded(topics.BALANCE_EVENTS, 0)[2]
    put_record(world, topics.BALANCE_EVENTS, 0, 2, wire.encode(replace(event, time_ns=event.time_ns + 1)))


@breaks("chain-unbroken", "does not decode")
def record_is_garbage(world: MiniWorld) -> None:
    put_record(world, topics.ENGINE_OUTPUTS, 0, 2, b"\x01garbage, whatever it was")


@breaks("chain-unbroken", "bytes are not the canonical encoding")
def encoding_is_not_canonical(world: MiniWorld) -> None:
    # The last record, so that nothing links to it: the same event with one integer in a longer form than need be.
    _, value = world.log[topics.ENGINE_OUTPUTS, 1][-1]
    body = bytearray(value[:-8])
    assert body[1] & 0xF0 == 0x90
    assert body[2] == 1  # symbol_partition
    body[2:3] = b"\xcc\x01"
    put_record(world, topics.ENGINE_OUTPUTS, 1, -1, bytes(body) + xxh3_64_digest(bytes(body)))


@breaks("chain-unbroken", "another partition")
def record_is_in_another_partition(world: MiniWorld) -> None:
    world.rewrite_outputs(lambda output: replace(output, symbol_partition=1))


def test_encoding_that_is_not_canonical_is_seen_beside_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("traces.derived._SAMPLED_MAX", 1)
    world = busy_world()
    encoding_is_not_canonical(world)
    found = check_one(world.trace(), "chain-unbroken").violations
    assert found["what"].tolist() == ["bytes are not the canonical encoding"]
    assert found["topic"].tolist() == [topics.ENGINE_OUTPUTS]


# --- no-lost-ack


@breaks("no-lost-ack", "accepted, but the input of no output")
def accepted_order_never_reached_the_engine(world: MiniWorld) -> None:
    edit(world, "client_answers", {"outcome": "accepted"}, reason=int(Reason.INSUFFICIENT_FUNDS))


@breaks("no-lost-ack", "rejected, but the input of an output")
def rejected_order_reached_the_engine(world: MiniWorld) -> None:
    edit(world, "client_answers", {"outcome": "rejected", "verdict": 0}, order_id=RESTING)


@breaks("no-lost-ack", "request is the input of more than one output")
def retry_becomes_a_second_order(world: MiniWorld) -> None:
    first = world.decoded(topics.ENGINE_OUTPUTS, 0)[0].input.command.request_id
    world.rewrite_outputs(
        lambda output: replace(
            output, input=replace(output.input, command=replace(output.input.command, request_id=first, user_id=1))
        )
    )


@breaks("no-lost-ack", "record is the input of more than one output")
def record_is_processed_twice(world: MiniWorld) -> None:
    world.log[topics.ENGINE_OUTPUTS, 0].append(world.log[topics.ENGINE_OUTPUTS, 0][-1])


@breaks("no-lost-ack", "told another order")
def client_is_told_another_order(world: MiniWorld) -> None:
    edit(world, "client_answers", {"order_id": 4_242}, command="place", order_id=RESTING)


@breaks("no-lost-ack", "told another verdict")
def client_is_told_placed_though_refused(world: MiniWorld) -> None:
    edit(world, "client_answers", {"verdict": 1}, verdict=2)


@breaks("no-lost-ack", "accepted, but never done")
def deposit_is_answered_but_not_done(world: MiniWorld) -> None:
    edit(world, "client_answers", {"request_id": "never"}, command="withdraw")


@breaks("no-lost-ack", "request accepted twice")
def retry_memory_is_lost(world: MiniWorld) -> None:
    def same_request(event: object) -> object:
        request = event.request  # type: ignore[attr-defined]
        return replace(event, request=replace(request, request_id="r1", user_id=1))

    for _ in range(2):
        change_balance_events(
            world, lambda event: _is_a_deposit(event) and event.request.request_id != "r1", same_request
        )


@breaks("no-lost-ack", "input decided twice")
def request_is_decided_twice(world: MiniWorld) -> None:
    partition = topics.BALANCE_EVENTS, TOPOLOGY.user_partition(1)
    world.log[partition].append(world.log[partition][0])


@breaks("no-lost-ack", "accepted by the balance core, but without an output")
def accepted_request_is_lost_before_the_engine(world: MiniWorld) -> None:
    drop_record(world, topics.ENGINE_OUTPUTS, 1, -1)


@breaks("no-lost-ack", "never accepted")
def engine_processed_what_was_never_accepted(world: MiniWorld) -> None:
    world.rewrite_outputs(lambda output: replace(output, input=replace(output.input, source_sequence=4_242)))


@breaks("no-lost-ack", "never decided")
def request_is_never_decided(world: MiniWorld) -> None:
    records = world.log[topics.ORDER_REQUESTS, 0]
    records.append(records[0])


@breaks("no-lost-ack", "accepted twice into the engine's input")
def accepted_request_is_sent_on_twice(world: MiniWorld) -> None:
    records = world.log[topics.VALIDATED_ORDERS, 0]
    records.append(records[-1])


@breaks("no-lost-ack", "are spoken of by committed records")
def answer_was_not_sent_with_its_record(world: MiniWorld) -> None:
    drop_record(world, topics.ORDER_RESPONSES, 0, -1)


@breaks("no-lost-ack", "are spoken of by committed records")
def fund_update_was_not_sent_with_its_output(world: MiniWorld) -> None:
    drop_record(world, topics.FUND_UPDATES, 0, -1)


@breaks("no-lost-ack", "not in the dead letters")
def undecodable_request_is_dropped_silently(world: MiniWorld) -> None:
    world.submit_garbage()
    world.log.pop((topics.DEAD_LETTERS, 0))


# --- converges, corrupt-input-stops


@breaks("converges", "did not settle: a transaction is open")
def system_does_not_settle(world: MiniWorld) -> None:
    drop(world, "phases", phase="settled")
    edit(world, "phases", {"detail": "a transaction is open"}, phase="settle")


def _garbage(world: MiniWorld, topic: str, index: int) -> None:
    put_record(world, topic, 0, index, b"\x01\x02\x03 no record at all")


@breaks("corrupt-input-stops", "no alarm names")
def damaged_output_raises_no_alarm(world: MiniWorld) -> None:
    _garbage(world, topics.ENGINE_OUTPUTS, 2)


@breaks("corrupt-input-stops", "no alarm names")
def damaged_output_raises_no_alarm_in_a_run_that_it_kept_from_settling(world: MiniWorld) -> None:
    _garbage(world, topics.ENGINE_OUTPUTS, 2)
    edit(world, "phases", {"phase": "unsettled", "detail": "not consumed"}, phase="settled")


@breaks("corrupt-input-stops", "settlement's progress is beyond it")
def settlement_skips_a_damaged_output(world: MiniWorld) -> None:
    _garbage(world, topics.ENGINE_OUTPUTS, 2)
    world.emit("alarms", topic=topics.ENGINE_OUTPUTS, partition=0, offset=2)


@breaks("corrupt-input-stops", "order rows were made of records at or beyond it")
def rows_are_made_of_outputs_beyond_the_damage(world: MiniWorld) -> None:
    _garbage(world, topics.ENGINE_OUTPUTS, 2)
    world.emit("alarms", topic=topics.ENGINE_OUTPUTS, partition=0, offset=2)
    world.events["final_settlement_progress"].clear()


@breaks("corrupt-input-stops", "ledger rows were made")
def ledger_rows_are_made_of_events_beyond_the_damage(world: MiniWorld) -> None:
    _garbage(world, topics.BALANCE_EVENTS, 2)
    world.events["final_settlement_progress"].clear()


@breaks("corrupt-input-stops", "inputs at or beyond it were processed")
def engine_skips_a_damaged_input(world: MiniWorld) -> None:
    _garbage(world, topics.VALIDATED_ORDERS, 2)


@breaks("corrupt-input-stops", "inputs at or beyond it were processed")
def balance_core_skips_a_damaged_update(world: MiniWorld) -> None:
    _garbage(world, topics.FUND_UPDATES, 1)


@breaks("corrupt-input-stops", "progress is beyond it")
def settlement_skips_a_gap(world: MiniWorld) -> None:
    drop_record(world, topics.ENGINE_OUTPUTS, 0, 4)


# --- the tests


NOT_IN_THE_BUSY_WORLD = ("corrupt-input-stops", "offsets-after-rows")
"""Nothing is damaged there, and nobody commits offsets."""


@pytest.fixture(scope="module")
def sound() -> Trace:
    """The trace of the busy world, undamaged."""
    return busy_world().trace()


@pytest.mark.parametrize("invariant", [name for name in ORDER if name not in NOT_IN_THE_BUSY_WORLD])
def test_invariant_holds_on_a_sound_trace(sound: Trace, invariant: str) -> None:
    verdict = check_one(sound, invariant)
    assert verdict.violations.to_dict("records") == []
    assert verdict.verdict == "holds"


@pytest.mark.parametrize(
    ("invariant", "says", "damage"), DAMAGES, ids=[f"{name}-{damage.__name__}" for name, _, damage in DAMAGES]
)
def test_invariant_sees(invariant: str, says: str, damage: Damage) -> None:
    world = busy_world()
    damage(world)
    verdict = check_one(world.trace(), invariant)
    assert verdict.verdict == "violated"
    assert any(says in what for what in verdict.violations["what"]), sorted(set(verdict.violations["what"]))
    assert not any("the check itself failed" in what for what in verdict.violations["what"])


@pytest.mark.parametrize("invariant", ORDER)
def test_invariant_is_not_exercised_by_an_empty_trace(invariant: str) -> None:
    empty = Trace(Manifest(seed=0, topology=TopologyRecord.of(TOPOLOGY)), {})
    assert check_one(empty, invariant).verdict == "not exercised"


def test_every_invariant_of_the_design_is_there_and_is_damaged_by_some_test() -> None:
    assert set(ORDER) == set(INVARIANTS)
    assert {name for name, _, _ in (*DAMAGES, *DAMAGES_OF_THE_WAY)} == set(ORDER)


def test_damaged_place_with_an_alarm_and_nothing_beyond_holds() -> None:
    world = busy_world()
    last = len(world.log[topics.ENGINE_OUTPUTS, 1]) - 1
    put_record(world, topics.ENGINE_OUTPUTS, 1, last, b"\x01 nothing of ours")
    world.emit("alarms", topic=topics.ENGINE_OUTPUTS, partition=1, offset=last)
    for kind in ("final_settlement_progress", "final_active_orders", "final_user_trades"):
        world.events[kind].clear()
    assert check_one(world.trace(), "corrupt-input-stops").verdict == "holds"


def test_reference_is_not_exercised_where_the_log_does_not_begin_at_output_1() -> None:
    world = busy_world()
    for partition in range(2):
        del world.log[topics.ENGINE_OUTPUTS, partition][0]
    verdicts = check(world.trace())
    assert verdicts["lifecycle-matches-reference"].verdict == "not exercised"
    assert verdicts["completion-once"].verdict == "not exercised"


def test_check_that_fails_is_not_green() -> None:
    trace = busy_world().trace()
    table = trace.tables["final_active_orders"].drop_columns(["status"])
    trace.tables = KeptTables({**trace.tables, "final_active_orders": table})
    verdict = check(trace)["placement-accounted"]
    assert verdict.verdict == "violated"
    assert "the check itself failed" in verdict.violations["what"].iloc[0]


def test_verdicts_come_in_the_designs_order(sound: Trace) -> None:
    assert tuple(check(sound)) == ORDER


def test_read_begun_before_the_rows_were_acknowledged_may_miss_them() -> None:
    world = MiniWorld()
    world.place(1, SELL, 100, 1)
    for row in find(world, "cql"):
        row["t"] += 10**12
    read = world.read(1)
    drop(world, "read_rows", read_id=read)
    find(world, "reads", read_id=read)[0]["rows"] = 0
    assert check_one(world.trace(), "reads-complete").verdict == "holds"


def test_read_ended_after_the_completion_was_begun_may_miss_the_order() -> None:
    world = MiniWorld()
    order = world.place(1, SELL, 100, 1)
    read = world.read(1)
    asked = find(world, "reads", read_id=read)[0]
    world.place(2, BUY, 100, 1)
    asked["t"] = world.t + 10**9
    drop(world, "read_rows", read_id=read)
    asked["rows"] = 0
    assert order == 1
    assert check_one(world.trace(), "reads-complete").verdict == "holds"


@pytest.mark.parametrize(
    ("service", "event", "after_ns", "verdict"),
    [
        ("settlement", "exit", 10, "holds"),
        ("settlement", "crash", 10, "holds"),
        ("settlement", "pause", 10, "violated"),
        ("gateway", "crash", 10, "violated"),
        ("settlement", "exit", -1, "violated"),
    ],
)
def test_completion_may_have_been_written_by_a_process_that_ended(
    service: str, event: str, after_ns: int, verdict: str
) -> None:
    world = MiniWorld()
    order = world.place(1, SELL, 100, 1)
    read = world.read(1)
    world.cancel(1, order)
    completed_t = int(world.trace().completions["t"].iloc[0])
    asked = find(world, "reads", read_id=read)[0]
    for row in find(world, "cql", order_id=order, write_timestamp=2):
        row["started_t"] = row["t"] = completed_t + 10**9
    asked["asked_t"], asked["t"] = completed_t + 20, completed_t + 30
    drop(world, "read_rows", read_id=read)
    asked["rows"] = 0
    world.emit("lifecycle", event=event, incarnation=1, service=service, detail="")
    world.events["lifecycle"][-1]["t"] = completed_t + after_ns
    assert check_one(world.trace(), "reads-complete").verdict == verdict


def test_reused_request_id_is_refused_without_taking_the_first_order_back() -> None:
    world = MiniWorld()
    world.place(1, SELL, 100, 1, request_id="mine")
    world.place(1, SELL, 100, 2, request_id="mine")
    assert check_one(world.settle().trace(), "no-lost-ack").verdict == "holds"


def test_retry_with_the_same_body_is_answered_again_and_done_once() -> None:
    world = MiniWorld()
    world.place(1, SELL, 100, 1, request_id="mine")
    world._next_order = 0
    world.place(1, SELL, 100, 1, request_id="mine")
    verdicts = check(world.settle().trace())
    assert [name for name, verdict in verdicts.items() if verdict.verdict == "violated"] == []


def test_undecodable_request_in_the_dead_letters_is_no_violation() -> None:
    world = MiniWorld()
    world.submit_garbage()
    verdicts = check(world.settle().trace())
    assert [name for name, verdict in verdicts.items() if verdict.verdict == "violated"] == []


def test_request_beyond_every_column_is_refused_without_a_row() -> None:
    world = MiniWorld()
    world.place(1, SELL, 2**63, 2**64 - 1)
    verdicts = check(world.settle().trace())
    assert [name for name, verdict in verdicts.items() if verdict.verdict == "violated"] == []


def test_table_that_was_released_comes_back_the_same_and_says_nothing_twice() -> None:
    world = busy_world()
    put_record(world, topics.ENGINE_OUTPUTS, 0, 2, b"\x01garbage, whatever it was")
    trace = world.trace()
    outputs, undecodable = trace.outputs, trace.undecodable
    trace.release("outputs", "undecodable", "log")
    assert trace.outputs is not outputs
    pd.testing.assert_frame_equal(trace.outputs, outputs)
    pd.testing.assert_frame_equal(trace.undecodable, undecodable)
    assert len(undecodable) == 1


def test_every_invariant_is_judged_in_one_stage() -> None:
    assert sorted(name for names, _ in _STAGES for name in names) == sorted(ORDER)
    assert list(check(busy_world().trace())) == list(ORDER)


def test_an_output_with_another_verdict_names_its_order_and_request() -> None:
    world = busy_world()
    damage = next(each for _, says, each in DAMAGES if says == "output has another verdict or time")
    damage(world)
    violations = check_one(world.trace(), "lifecycle-matches-reference").violations
    found = violations[violations["what"] == "output has another verdict or time"]
    assert (found["order_id"] > 0).all()
    assert found["request_id"].str.startswith("r").all()


def test_differences_of_one_order_are_those_of_the_invariant_that_name_it() -> None:
    world = busy_world()
    change_completion(world, SOLD, lambda _: [])
    change_trades(world, price=99)
    trace = world.trace()
    violations = check_one(trace, "lifecycle-matches-reference").violations
    assert set(violations["what"]) == {"event is missing", "trade has another content"}
    of_sold, of_bought, of_resting = (order_differences(trace, each) for each in (SOLD, BOUGHT, RESTING))
    assert (len(of_sold.events.missing), len(of_sold.trades.differing)) == (1, 1)
    assert (len(of_bought.events.missing), len(of_bought.trades.differing)) == (0, 1)
    assert len(of_resting.events.missing) == len(of_resting.trades.differing) == 0
    assert of_sold.events.matched + of_sold.trades.matched > 0


def test_a_trade_that_is_missing_does_not_make_others_differ_for_their_orders() -> None:
    world = MiniWorld()
    first, second = world.place(1, SELL, 100, 1), world.place(2, SELL, 100, 1)
    world.place(3, BUY, 100, 2)
    world.rewrite_outputs(lambda output: replace(output, trades=output.trades[1:]))
    trace = world.settle().trace()
    assert len(order_differences(trace, first).trades.missing) == 1
    of_second = order_differences(trace, second).trades
    assert len(of_second.missing) == len(of_second.unexpected) == len(of_second.differing) == 0
