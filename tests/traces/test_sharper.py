"""What the invariants see since mutants of the services showed where they were blind; and what they must not mistake.

The damages are what those mutants leave behind. Beside each is what an intact system may leave that looks like it.
"""

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.mini_world import EPOCH_NS, SELL, STEP_NS, MiniWorld, Row
from schema import topics, wire
from schema.events import DeadLetter
from tests.traces.damage import BOUGHT, CANCELLED, SOLD, busy_world, drop, edit, find, put_record
from traces.invariants import check_one
from traces.invariants.letters import check_dead_letters
from traces.invariants.statements import offsets_after_rows, statements_at_quorum
from traces.trace import Trace
from traces.verdicts import Findings, Invariant, Verdict

S_NS = 1_000_000_000
DAY_S = 24 * 3600


def what(verdict: Verdict) -> set[str]:
    """What a verdict finds wrong, in its own words."""
    return set(verdict.violations["what"])


def judged(world: MiniWorld, by: str | Invariant) -> Verdict:
    """An invariant's verdict on the world's trace."""
    return check_one(world.trace(), by) if isinstance(by, str) else by(world.trace())


# --- reads-complete: a read of one order


def test_answer_to_a_read_of_one_order_must_be_that_order() -> None:
    world = busy_world()
    read = find(world, "reads", query="order", order_id=SOLD)[0]
    read["order_id"], read["user_id"] = BOUGHT, 2
    verdict = judged(world, "reads-complete")
    assert what(verdict) == {"another order than was asked for"}
    (found,) = verdict.violations.to_dict("records")
    assert (found["order_id"], found["asked_for"]) == (SOLD, BOUGHT)


def test_answer_to_a_read_of_one_order_holds_it_once() -> None:
    world = busy_world()
    read_id = find(world, "reads", query="order", order_id=SOLD)[0]["read_id"]
    world.events["read_rows"] += [dict(find(world, "read_rows", read_id=read_id)[0], position=1)]
    assert what(judged(world, "reads-complete")) == {"more than one row for one order"}


# --- rows-complete: when finished orders' rows expire


def finished_at(world: MiniWorld, order_id: int) -> int:
    """When an order was completed."""
    states = find(world, "final_active_orders", look=0, order_id=order_id)
    return int(states[0]["updated_at"])


def expire(world: MiniWorld, order_id: int, late_s: float) -> None:
    """Let the final rows of an order expire so much later than they must."""
    for table in ("final_active_orders", "final_order_lookup"):
        for row in find(world, table, look=0, order_id=order_id):
            row["ttl"] = DAY_S + round(late_s - (EPOCH_NS + row["t"] - finished_at(world, order_id)) / S_NS)


def write_again(world: MiniWorld, order_id: int, *, after_s: float, late_s: float) -> Row:
    """Write the row of a finished order again, so long after its completion and with so much too long a life."""
    completed_at = finished_at(world, order_id)
    started_t = completed_at - EPOCH_NS + round(after_s * S_NS)
    return world.emit(
        "cql", table="active_orders", operation="INSERT", order_id=order_id, write_timestamp=9, t=started_t + 1_000_000,
        started_t=started_t, ttl=round(DAY_S - after_s + late_s), outcome="ok", consistency="LOCAL_QUORUM",
        host="settlement-1",
    )  # fmt: skip


OFF_TIME = "finished order's row of active_orders does not expire 24 hours after its completion"
WRITTEN_OFF_TIME = "write of a finished order's row does not make it expire 24 hours after its completion"


@pytest.mark.parametrize("late_s", [-60, -5, 40, 3_000])
def test_finished_row_expires_when_it_must(late_s: float) -> None:
    world = busy_world()
    expire(world, CANCELLED, late_s)
    verdict = judged(world, "rows-complete")
    assert what(verdict) == {OFF_TIME, OFF_TIME.replace("active_orders", "order_lookup")}
    assert abs(verdict.violations["late_s"].iloc[0] - late_s) < 1


@pytest.mark.parametrize("late_s", [-1, 1, 10])
def test_finished_row_may_expire_as_late_as_its_statement_was_under_way(late_s: float) -> None:
    world = busy_world()
    expire(world, CANCELLED, late_s)
    assert judged(world, "rows-complete").verdict == "holds"


@pytest.mark.parametrize("fault", ["clock-jump", "clock-drift", "database-clock-skew"])
def test_finished_row_may_expire_later_where_clocks_were_wrong(fault: str) -> None:
    world = busy_world()
    expire(world, CANCELLED, 600)
    world.emit("faults", fault=fault, phase="start")
    assert judged(world, "rows-complete").verdict == "holds"


@pytest.mark.parametrize(("after_s", "late_s"), [(10, 10), (10, -4), (40, 40)])
def test_finished_row_that_is_written_again_gets_no_other_life(after_s: float, late_s: float) -> None:
    world = busy_world()
    write_again(world, SOLD, after_s=after_s, late_s=late_s)
    verdict = judged(world, "rows-complete")
    assert what(verdict) == {WRITTEN_OFF_TIME}
    assert verdict.violations["order_id"].tolist() == [SOLD]


def test_finished_row_that_is_written_again_keeps_what_is_left() -> None:
    world = busy_world()
    before = judged(world, "rows-complete").checked
    write_again(world, SOLD, after_s=3_000.25, late_s=0.75)
    # A day later there is no less than a second to be given.
    write_again(world, SOLD, after_s=2 * DAY_S, late_s=DAY_S + 1)
    verdict = judged(world, "rows-complete")
    assert (verdict.verdict, verdict.checked) == ("holds", before + 2)


@pytest.mark.parametrize(
    ("under_way", "late_s", "verdict"), [(256, 20, "holds"), (200, 20, "violated"), (256, 40, "violated")]
)
def test_write_may_have_waited_for_its_turn(under_way: int, late_s: float, verdict: str) -> None:
    world = busy_world()
    late = write_again(world, SOLD, after_s=60, late_s=late_s)
    for _ in range(under_way):
        world.emit(
            "cql", table="user_trades", host="settlement-1", started_t=late["started_t"] - 1, t=late["t"], ttl=-1
        )
    assert judged(world, "rows-complete").verdict == verdict


@pytest.mark.parametrize(
    ("fault", "verdict"), [("clock-jump", "holds"), ("clock-drift", "holds"), ("database-clock-skew", "violated")]
)
def test_written_life_is_judged_unless_a_service_had_a_wrong_clock(fault: str, verdict: str) -> None:
    world = busy_world()
    write_again(world, SOLD, after_s=10, late_s=10)
    world.emit("faults", fault=fault, phase="start")
    assert judged(world, "rows-complete").verdict == verdict


# --- statements-at-quorum


@pytest.mark.parametrize(("operation", "host"), [("SELECT", "gateway-1"), ("INSERT", "settlement-2")])
@pytest.mark.parametrize("consistency", ["ONE", "LOCAL_ONE", "ALL", "QUORUM"])
def test_statement_of_a_service_is_at_local_quorum(operation: str, host: str, consistency: str) -> None:
    world = busy_world()
    world.emit("cql", table="active_orders", operation=operation, host=host, consistency=consistency)
    verdict = judged(world, statements_at_quorum)
    assert what(verdict) == {"statement is not at LOCAL_QUORUM"}
    (found,) = verdict.violations.to_dict("records")
    assert (found["host"], found["operation"], found["consistency"]) == (host, operation, consistency)


def test_observer_reads_at_all() -> None:
    world = busy_world()
    before = judged(world, statements_at_quorum)
    world.emit("cql", table="active_orders", operation="SELECT", host="observer", consistency="ALL")
    after = judged(world, statements_at_quorum)
    assert (before.verdict, after.verdict) == ("holds", "holds")
    assert before.checked == after.checked == len(find(world, "cql")) - 1


def test_consistency_is_not_exercised_without_statements() -> None:
    world = busy_world()
    world.events["cql"].clear()
    assert judged(world, statements_at_quorum).verdict == "not exercised"


# --- offsets-after-rows


def settled_world() -> MiniWorld:
    """A world whose settlement has written everything, then its progress, and then committed its offsets."""
    world = MiniWorld()
    world.place(1, SELL, 100, 10)
    world.place(2, 1 - SELL, 100, 4)
    world.place(3, SELL, 200, 4, symbol=2)
    world.emit("rebalances", group="settlement", action="assign", member="one", host="settlement-1")
    world.t += STEP_NS
    for topic, sequence in ((topics.ENGINE_OUTPUTS, "output_seq"), (topics.BALANCE_EVENTS, "sequence")):
        for partition in range(2):
            events = world.decoded(topic, partition)
            for entry in (each for event in events for each in getattr(event, "entries", ())):
                statement(world, "balance_ledger", entry.ledger_seq, order_id=entry.order_id)
            world.t += STEP_NS
            statement(world, "settlement_progress", getattr(events[-1], sequence), order_id=-1)
            world.t += STEP_NS
            world.emit(
                "offset_commits", group="settlement", topic=topic, partition=partition, offset=len(events),
                member="one", outcome="ok",
            )  # fmt: skip
    world.t += STEP_NS
    return world


def statement(world: MiniWorld, table: str, write_timestamp: int, **columns: Any) -> Row:
    """A write of settlement, acknowledged now."""
    values = {"outcome": "ok", "consistency": "LOCAL_QUORUM", "ttl": -1, "started_t": world.t - 1_000_000, **columns}
    return world.emit("cql", table=table, operation="INSERT", write_timestamp=write_timestamp, **values)


def committed(world: MiniWorld, topic: str = topics.ENGINE_OUTPUTS, partition: int = 0) -> Row:
    """The offset commit of a partition."""
    return find(world, "offset_commits", topic=topic, partition=partition)[0]


NO_PROGRESS = "offset was committed before progress had reached it"
NO_ROW = "offset was committed before a row was acknowledged"


def forget_progress(world: MiniWorld) -> Row:
    """Let the progress of engine.outputs-0 be acknowledged after its offset was committed, and no other do for it."""
    mine = find(world, "cql", table="settlement_progress")[0]
    world.events["cql"] = [row for row in world.events["cql"] if row["table"] != "settlement_progress" or row is mine]
    world.events["offset_commits"] = [committed(world)]
    mine["started_t"], mine["t"] = committed(world)["t"] - 1_000, committed(world)["t"] + 1_000
    return mine


def test_offsets_after_rows_and_progress_hold() -> None:
    verdict = judged(settled_world(), offsets_after_rows)
    assert (verdict.verdict, verdict.checked) == ("holds", 4)


def test_offset_is_committed_after_its_progress() -> None:
    world = settled_world()
    forget_progress(world)
    verdict = judged(world, offsets_after_rows)
    assert what(verdict) == {NO_PROGRESS}
    (found,) = verdict.violations.to_dict("records")
    assert (found["topic"], found["partition"], found["sequence"], found["progress"]) == ("engine.outputs", 0, 2, 0)


def test_progress_of_a_partition_that_is_ahead_does_not_count_for_another() -> None:
    world = settled_world()
    forget_progress(world)
    statement(world, "settlement_progress", 40, order_id=-1)["t"] = committed(world)["t"] - 1
    assert what(judged(world, offsets_after_rows)) == {NO_PROGRESS}


def test_progress_that_nobody_heard_of_counts_for_who_takes_the_partition_over() -> None:
    world = settled_world()
    forget_progress(world)["outcome"] = "WriteTimeout"
    world.emit("rebalances", group="settlement", action="assign", member="two")["t"] = committed(world)["t"] - 500
    assert judged(world, offsets_after_rows).verdict == "holds"


@pytest.mark.parametrize(("event", "verdict"), [("crash", "holds"), ("exit", "holds"), ("pause", "violated")])
def test_progress_may_have_been_written_by_a_process_that_ended(event: str, verdict: str) -> None:
    world = settled_world()
    forget_progress(world)
    drop(world, "cql", table="settlement_progress")
    world.emit("lifecycle", event=event, service="settlement")["t"] = committed(world)["t"] - 1
    assert judged(world, offsets_after_rows).verdict == verdict


@pytest.mark.parametrize(
    ("assigned_ns", "ended_ns", "verdict"),
    [(-500, 500, "holds"), (-500, None, "violated"), (500, 700, "violated"), (None, 500, "violated")],
)
def test_progress_may_have_been_written_by_a_process_that_hung_when_its_partition_was_taken_over_and_ended_later(
    assigned_ns: int | None, ended_ns: int | None, verdict: str
) -> None:
    world = settled_world()
    drop(world, "cql", table="settlement_progress")
    edit(world, "rebalances", {"t": 0})
    committed_t = committed(world)["t"]
    if assigned_ns is not None:
        taken = world.emit("rebalances", group="settlement", action="assign", member="two")
        taken["t"] = committed_t + assigned_ns
    if ended_ns is not None:
        world.emit("lifecycle", event="crash", service="settlement")["t"] = committed_t + ended_ns
    assert judged(world, offsets_after_rows).verdict == verdict


@pytest.mark.parametrize("table", ["active_orders", "order_lookup", "order_history"])
def test_offset_is_committed_after_the_rows_of_an_order(table: str) -> None:
    world = settled_world()
    for row in find(world, "cql", table=table, order_id=1):
        row["t"] = committed(world)["t"] + 1
    verdict = judged(world, offsets_after_rows)
    assert what(verdict) == {NO_ROW}
    (found,) = verdict.violations.to_dict("records")
    assert (found["table"], found["order_id"]) == (table, 1)


def test_offset_is_committed_after_the_ledger_rows() -> None:
    world = settled_world()
    for row in find(world, "cql", table="balance_ledger", order_id=1):
        row["outcome"] = "WriteTimeout"
    verdict = judged(world, offsets_after_rows)
    assert what(verdict) == {NO_ROW}
    assert set(verdict.violations["table"]) == {"balance_ledger"}


def test_row_under_a_higher_revision_counts_for_the_lower_ones() -> None:
    world = settled_world()
    for table in ("active_orders", "order_lookup", "order_history"):
        drop(world, "cql", table=table, order_id=1, write_timestamp=1)
    assert judged(world, offsets_after_rows).verdict == "holds"
    edit(world, "cql", {"write_timestamp": 2**62}, table="active_orders", order_id=1, write_timestamp=2)
    assert judged(world, offsets_after_rows).verdict == "holds"
    edit(world, "cql", {"write_timestamp": 1}, table="active_orders", order_id=1)
    assert judged(world, offsets_after_rows).verdict == "violated"


def test_refused_commit_and_that_of_another_group_are_not_judged() -> None:
    world = settled_world()
    forget_progress(world)
    committed(world)["outcome"] = "IllegalGenerationError"
    assert judged(world, offsets_after_rows).verdict == "not exercised"
    committed(world).update(outcome="ok", group="matching")
    assert judged(world, offsets_after_rows).verdict == "not exercised"


@pytest.mark.parametrize("fault", ["unclean-leader-change", "lost-record"])
def test_offsets_are_not_judged_where_the_log_lost_records(fault: str) -> None:
    world = settled_world()
    forget_progress(world)
    world.emit("faults", fault=fault, phase="start")
    assert judged(world, offsets_after_rows).verdict == "not exercised"


# --- no-lost-ack: what dead letters tell


def dead_letters(trace: Trace) -> Verdict:
    """What is said of the dead letters."""
    found = Findings()
    check_dead_letters(trace, found)
    return found.verdict


def garbage_world(value: bytes = b"garbage", letter: DeadLetter | None = None) -> MiniWorld:
    """A world with one record that nobody can read, and its letter."""
    world = MiniWorld()
    world.submit_garbage()
    offset = len(world.log[topics.ORDER_REQUESTS, 0]) - 1
    put_record(world, topics.ORDER_REQUESTS, 0, offset, value)
    letter = letter or DeadLetter(topics.ORDER_REQUESTS, 0, offset, "not a request", value[: 64 * 1024])
    put_record(world, topics.DEAD_LETTERS, 0, 0, wire.encode(letter))
    return world


def letter_of(world: MiniWorld) -> DeadLetter:
    """The first dead letter."""
    return wire.DEAD_LETTER.decode(world.log[topics.DEAD_LETTERS, 0][0][1])


@pytest.mark.parametrize("value", [b"garbage", b"", b"\xff" * 100_000])
def test_letter_with_a_reason_and_the_bytes_holds(value: bytes) -> None:
    verdict = judged(garbage_world(value), dead_letters)
    assert (verdict.verdict, verdict.checked) == ("holds", 1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"reason": ""}, "dead letter without a reason"),
        ({"value": b""}, "dead letter does not hold the record's bytes"),
        ({"value": b"garbag"}, "dead letter does not hold the record's bytes"),
        ({"value": b"garbage and more"}, "dead letter does not hold the record's bytes"),
        ({"topic": topics.FUND_UPDATES}, "dead letter of a topic that has none"),
        ({"offset": 0}, "dead letter of a request that was decided"),
    ],
)
def test_letter_tells_of_its_record(change: dict[str, Any], says: str) -> None:
    world = garbage_world()
    whole = letter_of(world)
    changed = DeadLetter(**{name: change.get(name, getattr(whole, name)) for name in whole.__struct_fields__})
    put_record(world, topics.DEAD_LETTERS, 0, 0, wire.encode(changed))
    assert says in what(judged(world, dead_letters))


def test_record_has_one_letter() -> None:
    world = garbage_world()
    world.log[topics.DEAD_LETTERS, 0] *= 2
    assert what(judged(world, dead_letters)) == {"second dead letter of one record"}


def test_letter_that_does_not_decode_is_a_violation() -> None:
    world = garbage_world()
    put_record(world, topics.DEAD_LETTERS, 0, 0, b"\x01 no letter")
    assert what(judged(world, dead_letters)) == {"dead letter does not decode"}


def test_letter_of_a_record_that_has_left_the_log_holds() -> None:
    world = garbage_world()
    del world.log[topics.ORDER_REQUESTS, 0][-1]
    assert judged(world, dead_letters).verdict == "holds"


# --- converges: what a stranger needs to know


def unsettled_world() -> MiniWorld:
    """A world that did not settle."""
    world = busy_world()
    edit(world, "phases", {"phase": "unsettled", "detail": "3 requests of clients are not answered"}, phase="settled")
    return world


def complain(kind: str, **columns: Any) -> Callable[[MiniWorld], None]:
    """Something that a service says at 20 ms."""

    def of(world: MiniWorld) -> None:
        world.emit(kind, host="matching-1", **columns)["t"] = 20_000_000

    return of


ALARM = complain("alarms", service="matching", message="partition stopped", topic="validated.orders", offset=7)
CRITICAL = complain("log_lines", service="matching", level="critical", event="cannot go on")
FAILURE = complain("lifecycle", service="matching", event="exit", detail="ValueError: no")
ERROR = complain("log_lines", service="matching", level="error", event="database writes failed, will be retried")


@pytest.mark.parametrize(
    ("complaints", "column", "quoted"),
    [
        ((ERROR, FAILURE, CRITICAL, ALARM), "first_alarm", "partition stopped (validated.orders-0, offset 7)"),
        ((ERROR, FAILURE, CRITICAL), "first_critical_line", "cannot go on"),
        ((ERROR, FAILURE), "first_failure", "ValueError: no"),
        ((ERROR,), "first_error_line", "database writes failed, will be retried"),
    ],
)
def test_violation_quotes_what_a_service_complained_of_first(
    complaints: tuple[Callable[[MiniWorld], None], ...], column: str, quoted: str
) -> None:
    world = unsettled_world()
    for each in complaints:
        each(world)
    (found,) = judged(world, "converges").violations.to_dict("records")
    assert found["what"] == "the system did not settle: 3 requests of clients are not answered"
    assert found[column] == f"matching-1 at 0.020 s: {quoted}"


def test_violation_quotes_nothing_where_nobody_complained_in_time() -> None:
    world = unsettled_world()
    world.emit("log_lines", service="matching", level="info", event="row written")
    world.emit("lifecycle", service="matching", event="exit", detail="")
    world.emit("alarms", service="matching", message="after the bound")["t"] = world.t
    (found,) = judged(world, "converges").violations.to_dict("records")
    assert set(found) == {"what", "phase", "t"}
