"""What a person reads tells what happened, in order."""

import pandas as pd
import pytest

from benchmarks.mini_world import BUY, SELL, MiniWorld
from schema import topics
from schema.codes import OrderStatus, Reason
from tests.traces.damage import (
    BOUGHT,
    CANCELLED,
    PARTIAL,
    RESTING,
    SOLD,
    busy_world,
    change_completion,
    change_trades,
    drop,
    edit,
    replace,
)
from traces.invariants import ORDER, check
from traces.stories.account import account_story
from traces.stories.order import FAULTS_SHOWN, OWNERS_SHOWN, order_story, work_began_ns
from traces.summary import (
    completions_by_reason,
    counts,
    faults_struck,
    first_order,
    refusals_by_reason,
    verdict_lines,
    violation_lines,
)
from traces.trace import Trace
from traces.verdicts import Verdict

SECOND_NS = 1_000_000_000


@pytest.fixture(scope="module")
def trace() -> Trace:
    """The busy world's trace."""
    world = busy_world()
    world.t = 1
    world.emit("faults", fault="clog", phase="start", target="kafka-1")
    world.emit("faults", fault="clog", phase="end", target="kafka-1")
    for event, fields in (
        ("OrderPlacement emitted", "{}"),
        ("order completed", f'{{"reason":{Reason.CANCELLED_BY_USER},"revision":2}}'),
    ):
        world.emit("log_lines", level="info", event=event, order_id=RESTING, fields=fields)
    return world.trace()


def _in_this_order(lines: list[str], *parts: str) -> bool:
    rest = iter(lines)
    return all(any(part in line for line in rest) for part in parts)


def test_story_tells_the_life_of_an_order_from_request_to_rows(trace: Trace) -> None:
    lines = order_story(trace, SOLD)
    assert _in_this_order(
        lines, "asks to place", "accepted", "takes place", "placement: revision 1", "insert active_orders revision 1",
        "is answered accepted", "4 lots at 100 as maker", "update: revision 2", "reads revision 2",
        "completion: revision 3", "once settled: row of active_orders: revision 3, filled, 10 of 10 filled",
        "25 hours later: no row of active_orders",
    ), "\n".join(lines)  # fmt: skip


def test_story_tells_of_the_cancels_that_name_the_order(trace: Trace) -> None:
    lines = order_story(trace, CANCELLED)
    assert _in_this_order(lines, "asks to cancel", "cancelled by user", "is answered accepted", "too late")


def test_story_holds_the_services_log_lines_with_words_for_codes(trace: Trace) -> None:
    lines = order_story(trace, RESTING)
    assert any(line.endswith("logs info: OrderPlacement emitted") for line in lines)
    told = "logs info: order completed, reason cancelled by user, revision 2"
    assert any(line.endswith(told) for line in lines), "\n".join(lines)


@pytest.mark.parametrize(
    ("operation", "table", "timestamp", "told"),
    [
        ("INSERT", "order_history", 2, "INSERT order_history revision 2: ok by 1 replica,"),
        ("INSERT", "balance_ledger", 8, "INSERT balance_ledger entry 8: ok by 1 replica,"),
        ("INSERT", "user_trades", 19, "INSERT user_trades of output 19: ok by 1 replica,"),
        ("INSERT", "a_table_of_yours", 5, "INSERT a_table_of_yours version 5: ok by 1 replica,"),
        ("SELECT", "active_orders", -1, "SELECT active_orders: ok by 1 replica,"),
    ],
)
def test_story_says_what_version_a_statement_writes(operation: str, table: str, timestamp: int, told: str) -> None:
    world = busy_world()
    world.emit(
        "cql",
        table=table,
        operation=operation,
        order_id=RESTING,
        write_timestamp=timestamp,
        ttl=-1,
        outcome="ok",
        replicas=1,
    )
    assert any(told in line for line in order_story(world.trace(), RESTING))


def test_story_of_an_unknown_order_says_only_that_it_has_no_row(trace: Trace) -> None:
    assert all("no row of active_orders" in line for line in order_story(trace, 4_242))


def test_counts_and_reasons_add_up(trace: Trace) -> None:
    found = counts(trace)
    assert found["completions"] == sum(completions_by_reason(trace).values())
    assert found["refusals"] == sum(refusals_by_reason(trace).values())
    assert completions_by_reason(trace)["replaced"] == 1
    assert refusals_by_reason(trace) == {"cannot fill": 1, "would cross": 1}
    assert found["orders"] == found["placements"] + found["refusals"] + 1  # one was refused by the balance core


def test_faults_are_counted_as_they_strike(trace: Trace) -> None:
    assert faults_struck(trace) == {"clog": 1}


def test_table_of_verdicts_names_each_invariant_once(trace: Trace) -> None:
    lines = verdict_lines(check(trace))
    assert len(lines) == len(ORDER)
    assert any("✓ placement-accounted" in line and "holds" in line for line in lines)
    assert any("- corrupt-input-stops" in line and "not exercised" in line for line in lines)


def test_violations_come_with_the_story_of_the_order() -> None:
    world = busy_world()
    drop(world, "final_active_orders", look=0, order_id=PARTIAL)
    trace = world.trace()
    verdicts = check(trace)
    assert first_order(verdicts["placement-accounted"]) == PARTIAL
    lines = violation_lines(trace, verdicts)
    assert _in_this_order(
        lines, "placement-accounted: 1 violation", f"order_id={PARTIAL}", f"what happened to order {PARTIAL}:",
        "placement",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ({"order_id": [0, 8], "target_order_id": [0, 5]}, 5),
        ({"order_id": [8], "target_order_id": [0]}, 8),
        ({"maker_order_id": [3], "taker_order_id": [4]}, 3),
        ({"user_id": [1]}, None),
    ],
    ids=["the order that a request is about", "the request's own order", "the maker", "none"],
)
def test_the_story_is_that_of_the_order_in_question(named: dict[str, list[int]], told: int | None) -> None:
    assert first_order(Verdict(1, pd.DataFrame(named))) == told


def _without_completion() -> Trace:
    """SOLD traded whole, but nobody said that it has ended."""
    world = busy_world()
    change_completion(world, SOLD, lambda _: [])
    return world.trace()


def _lines_of(trace: Trace, *names: str) -> list[str]:
    verdicts = check(trace)
    return violation_lines(trace, {name: verdicts[name] for name in names})


def test_what_has_one_time_stands_in_the_order_of_outputs_each_with_its_trade_before_what_came_of_it() -> None:
    world = busy_world()
    log = world.log[topics.ENGINE_OUTPUTS, 0]
    log[:] = [(5, value) for _, value in log]
    told = [line for line in order_story(world.trace(), SOLD) if "  engine  " in line]
    outputs = [int(line.partition("output ")[2].split()[0].rstrip(")")) for line in told]
    assert outputs == sorted(outputs)
    assert _in_this_order(told, "takes place", "placement", "trade", "update", "trade", "completion")
    assert len(told) == 6


def test_codes_are_words_in_violations() -> None:
    [_, missing, *_] = _lines_of(_without_completion(), "lifecycle-matches-reference")
    assert f"order_id={SOLD}, user_id=1, symbol=BTC-USD" in missing
    assert "event=completion, revision=3, status=filled, reason=filled" in missing


def test_a_code_without_a_word_stays_a_number(trace: Trace) -> None:
    violations = pd.DataFrame({"what": ["odd"], "status": [17], "event": [9], "side": [1], "symbol_id": [99]})
    lines = violation_lines(trace, {"some": Verdict(1, violations)})
    assert lines[1].strip() == "odd: status=17, event=9, side=sell, symbol_id=99"


def test_codes_are_words_where_columns_differ() -> None:
    world = busy_world()
    change_completion(world, SOLD, lambda it: [replace(it, status=int(OrderStatus.CANCELLED))])
    lines = _lines_of(world.trace(), "lifecycle-matches-reference")
    assert "differs=status filled expected, cancelled found" in lines[1]
    assert _in_this_order(
        lines, "completion: revision 3",
        "✗ reference    expects this completion otherwise: status filled expected, cancelled found (output",
    )  # fmt: skip


def test_story_marks_the_place_of_the_event_that_the_reference_misses() -> None:
    lines = order_story(_without_completion(), SOLD)
    assert sum("✗" in line for line in lines) == 1
    trade = max(number for number, line in enumerate(lines) if "as maker, with order 7" in line)
    assert "✗ reference    expects a completion here: revision 3" in lines[trade + 1]
    assert "filled, 10 of 10 filled (output" in lines[trade + 1]


def test_story_marks_an_event_that_the_reference_does_not_expect() -> None:
    world = busy_world()
    change_completion(world, SOLD, lambda it: [it, it, replace(it, order_id=RESTING)])
    trace = world.trace()
    assert _in_this_order(
        order_story(trace, RESTING), "completion: revision 3", "✗ reference    expects no such completion"
    )
    assert _in_this_order(
        order_story(trace, SOLD), "completion: revision 3", "✗ reference    expects this completion once"
    )


def test_story_marks_a_trade_that_the_reference_has_otherwise() -> None:
    world = busy_world()
    change_trades(world, price=99)
    marked = [line for line in order_story(world.trace(), BOUGHT) if "✗" in line]
    assert len(marked) == 1
    assert "expects this trade otherwise: price 100 expected, 99 found" in marked[0]


def test_story_marks_a_trade_that_is_missing() -> None:
    world = busy_world()
    world.rewrite_outputs(lambda output: replace(output, trades=()))
    assert _in_this_order(
        order_story(world.trace(), BOUGHT), "placement", "✗ reference    expects a trade here: 4 lots at 100 as taker"
    )


def test_story_of_a_sound_order_has_no_mark(trace: Trace) -> None:
    for order_id in range(1, 12):
        assert not any("✗" in line for line in order_story(trace, order_id))


def test_story_is_told_where_the_reference_cannot_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("no such symbol")

    monkeypatch.setattr("traces.stories.order.order_differences", fail)
    lines = order_story(busy_world().trace(), SOLD)
    assert any("✗ reference    cannot follow this trace: KeyError" in line for line in lines)
    assert any("completion: revision 3" in line for line in lines)


def test_a_story_is_told_once() -> None:
    lines = _lines_of(_without_completion(), "lifecycle-matches-reference", "completion-once")
    assert lines.count(f"  what happened to order {SOLD}:") == 1
    assert lines[-1] == f"  what happened to order {SOLD}: see above"
    assert sum("placement: revision 1" in line for line in lines) == 1


def _struck(*faults: tuple[str, str, float, float | None]) -> list[str]:
    """What the story of PARTIAL tells of faults: name, target, and how many seconds after its placement each begins
    and ends."""
    world = busy_world()
    # So late that a fault can be over long before.
    for events in (*world.events.values(),):
        for row in events:
            row["t"] += 100 * SECOND_NS
    world.log = {place: [(t + 100 * SECOND_NS, value) for t, value in log] for place, log in world.log.items()}
    world.t += 100 * SECOND_NS
    began = next(row["t"] for row in world.events["cql"] if row["order_id"] == PARTIAL)
    for number, (fault, target, start, end) in enumerate(faults):
        for phase, at in (("start", start), ("end", end)):
            if at is not None:
                row = world.emit("faults", fault=fault, phase=phase, target=target, detail=str(number))
                row["t"] = began + int(at * SECOND_NS)
    return [line for line in order_story(world.trace(), PARTIAL) if "  fault  " in line]


def test_story_tells_the_faults_that_were_on_meanwhile() -> None:
    [told] = _struck(("no-leader", "validated.orders", -5, 0.5))
    assert "no-leader on validated.orders, until 10" in told


def test_story_tells_a_fault_that_was_over_shortly_before_the_order() -> None:
    assert len(_struck(("crash", "matching-1", -8, -7))) == 1


def test_story_is_silent_about_faults_of_another_time() -> None:
    assert _struck(("crash", "matching-1", -60, -50), ("crash", "matching-1", 5_000, 5_100)) == []


def test_a_fault_that_never_ends_is_told_so_and_one_of_a_moment_has_no_end() -> None:
    lasting, short = _struck(("crash", "matching-1", -2, None), ("leader-change", "engine.outputs", -1, -1))
    assert lasting.endswith("crash on matching-1, and never ends")
    assert short.endswith("leader-change on engine.outputs")


def test_many_faults_do_not_drown_the_story_and_those_of_the_orders_services_come_first() -> None:
    many = [("burst", "*", -3.0, 0.5)] * 40 + [("slow-replica", "cassandra-2", -3.0, 0.5)] * 40
    lines = _struck(*many, ("no-leader", "validated.orders", -9, -8))
    assert len(lines) == FAULTS_SHOWN + 1
    assert "no-leader on validated.orders" in lines[0]
    assert any("and 73 others from here on: burst, burst" in line and line.endswith(", ...") for line in lines)


def _passed_on(world: MiniWorld, times: int) -> list[str]:
    at = next(row["t"] for row in world.events["cql"] if row["order_id"] == PARTIAL)
    for number in range(times):
        action = "assign" if number % 2 else "revoke"
        for assignment in ("validated.orders-0 validated.orders-7", "validated.orders-1"):
            row = world.emit("rebalances", group="matching", action=action, assignment=assignment, host="matching-1")
            row["t"] = at
    return [line for line in order_story(world.trace(), PARTIAL) if "validated.orders-" in line or "changes of" in line]


def test_story_tells_who_took_over_the_orders_partitions() -> None:
    gone, back = _passed_on(busy_world(), 2)
    assert gone.endswith("matching-1     gives up validated.orders-0")
    assert back.endswith("matching-1     takes over validated.orders-0")


def test_many_changes_of_owners_do_not_drown_the_story() -> None:
    lines = _passed_on(busy_world(), 30)
    assert len(lines) == OWNERS_SHOWN + 1
    assert f"{30 - OWNERS_SHOWN} more changes of who owns these partitions" in lines[-1]


def test_a_violation_about_an_account_comes_with_the_orders_concerned_and_the_ledger() -> None:
    lines = _lines_of(_without_completion(), "locks-match-orders")
    assert "user_id=1, asset=BTC" in lines[1]
    assert _in_this_order(
        lines, "what happened to the BTC of user 1, in its smallest unit:",
        f"order {SOLD} has 0 locked and needs 6000000: revision 2", f"lock for order {SOLD}: available -10000000",
        f"debit for order {SOLD}", "once settled: row of user_balances: available", f"what happened to order {SOLD}:",
        "placement: revision 1",
    )  # fmt: skip


def test_of_the_orders_behind_an_account_one_that_was_told_is_not_told_again() -> None:
    world = MiniWorld()
    first, second = world.place(1, SELL, 100, 1), world.place(1, SELL, 100, 1)
    world.place(2, BUY, 100, 2)
    world.rewrite_outputs(lambda output: replace(output, order_completions=()))
    verdicts = {
        "some": Verdict(1, pd.DataFrame({"what": ["odd"], "order_id": [second]})),
        "other": Verdict(1, pd.DataFrame({"what": ["odd"], "user_id": [1], "asset_id": [1]})),
    }
    lines = violation_lines(world.settle().trace(), verdicts)
    assert _in_this_order(lines, f"order {first} has 0 locked and needs", f"order {second} has 0 locked and needs")
    assert lines[-1] == f"  what happened to order {second}: see above"


def test_the_story_of_a_sound_account_is_the_end_of_its_ledger(trace: Trace) -> None:
    lines = account_story(trace, 1, 3)
    assert not any("needs" in line for line in lines)
    assert _in_this_order(lines, "withdrawal: available -500, locked +0", "once settled: row of user_balances")
    assert account_story(trace, 77, 3) == ["the ledger has no entry of it"]


def test_a_violation_about_a_request_comes_with_the_story_of_its_order() -> None:
    world = busy_world()
    request = next(row for row in world.events["client_answers"] if row["order_id"] == BOUGHT)
    edit(world, "client_answers", {"verdict": 6}, request_id=request["request_id"])
    lines = _lines_of(world.trace(), "no-lost-ack")
    assert "verdict placed expected, too late found" in lines[1]
    assert f"  what happened to order {BOUGHT}:" in lines


def test_work_begins_when_its_phase_does(trace: Trace) -> None:
    assert work_began_ns(trace) == 0
    world = busy_world()
    edit(world, "phases", {"t": 6 * SECOND_NS}, phase="work")
    assert work_began_ns(world.trace()) == 6 * SECOND_NS
