"""An audit of a system that goes on working, at any moment: a run's own log and rows, read as if it were not over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka.structs import TopicPartition

from live.audit_cut import LogRecord, consistent_cut, last_sequences
from live.audit_log import AuditLog
from live.audit_trace import AT_REST, AT_WORK, BEHIND, Evidence, trace_of
from live.reading import all_tables
from schema import tables
from schema.topics import BALANCE_EVENTS, CHAINED_TOPICS, ENGINE_OUTPUTS, FUND_UPDATES
from settlement.cql_adapter import Row
from sim.progress import Progress
from sim.run import run_scenario
from sim.scenario import SECOND_NS, Scenario
from traces.invariants import check
from traces.trace import Trace
from traces.verdicts import HOLDS, NOT_EXERCISED, VIOLATED, Verdict

DAY_NS = 24 * 3600 * SECOND_NS


@pytest.fixture(scope="module")
def run() -> Trace:
    """A run under faults that has settled."""
    with Path("/dev/null").open("w") as nowhere:
        result = run_scenario(Scenario(seed=2, orders=150, users=6, duration_ns=5 * SECOND_NS), None, Progress(nowhere))
    assert result.holds
    return result.trace


def log_of(run: Trace, wanted: Callable[[str, int, int], bool] = lambda topic, partition, offset: True) -> AuditLog:
    """What an audit reads of a run's topics."""
    log = AuditLog(run.topology.partitions())
    names = ("topic", "partition", "offset", "timestamp_ms", "key", "value")
    columns = (run.events("kafka_log")[name].tolist() for name in names)
    for topic, partition, offset, timestamp_ms, key, value in zip(*columns, strict=True):
        if wanted(topic, partition, offset):
            log.add(TopicPartition(topic, partition), LogRecord(offset, timestamp_ms, key, value))
    return log


def rows_of(run: Trace) -> dict[str, list[Row]]:
    """What an audit reads of a run's tables, once it had settled."""
    found = {}
    for table in all_tables():
        columns = [*tables.TABLE_COLUMNS[table], "write_timestamp", "ttl"]
        final = run.final(table, 0)
        rows = zip(*(final[name].tolist() for name in columns), strict=True)
        found[table] = [(*values, None if ttl < 0 else ttl) for *values, ttl in rows]
    return found


def last_time_ns(run: Trace) -> int:
    return int(run.outputs["time_ns"].max())


def at_work(run: Trace, parts: Sequence[float]) -> Evidence:
    """An audit that found settlement at these parts of the chained partitions, one after the other."""
    log = log_of(run)
    ends = {}
    for number, (place, chain) in enumerate(log.links.items()):
        done = int(len(chain) * parts[number % len(parts)])
        ends[place] = chain[done - 1].offset + 1 if done else 0
    return Evidence(log, AT_WORK, ends, rows_of(run), last_time_ns(run))


def judge(run: Trace, evidence: Evidence) -> dict[str, Verdict]:
    return check(trace_of(evidence, run.topology))


def violated(verdicts: dict[str, Verdict]) -> list[str]:
    return [name for name, each in verdicts.items() if each.verdict == VIOLATED]


@pytest.mark.parametrize(
    "parts", [(0.5,), (1.0, 0.2, 0.7), (0.05, 0.9), (0.99,), (0.3, 0.35, 0.25, 0.4), (0.0, 1.0), (1.0,)], ids=str
)
def test_every_invariant_holds_at_any_moment_of_a_sound_run(run: Trace, parts: Sequence[float]) -> None:
    verdicts = judge(run, at_work(run, parts))
    assert violated(verdicts) == []
    if min(parts) > 0.2:
        for name in ("placement-accounted", "rows-complete", "row-matches-engine", "ledger-matches-balances"):
            assert verdicts[name].verdict == HOLDS
    assert verdicts["converges"].verdict == NOT_EXERCISED


def test_system_at_rest_is_judged_whole(run: Trace) -> None:
    verdicts = judge(run, Evidence(log_of(run), AT_REST, {}, rows_of(run), last_time_ns(run)))
    reads = {"reads-complete", "reads-own-user", "no-resurrection"}
    unseen = {*reads, "statements-at-quorum", "offsets-after-rows", "corrupt-input-stops"}
    assert {name for name, each in verdicts.items() if each.verdict == NOT_EXERCISED} == unseen
    assert violated(verdicts) == []


def test_rows_that_are_missing_are_not_judged_while_settlement_is_behind(run: Trace) -> None:
    log = log_of(run)
    rows = rows_of(run)
    rows[tables.ACTIVE_ORDERS] = rows[tables.ORDER_LOOKUP] = []
    ends = {place: chain[-1].offset + 1 for place, chain in log.links.items() if chain}
    verdicts = judge(run, Evidence(log, BEHIND, ends, rows, last_time_ns(run), ["settlement stands somewhere"]))
    assert violated(verdicts) == ["converges"]
    assert "settlement stands somewhere" in verdicts["converges"].violations["what"][0]
    assert verdicts["placement-accounted"].verdict == NOT_EXERCISED


def test_lost_row_of_an_order_without_a_later_event_is_found(run: Trace) -> None:
    evidence = at_work(run, (0.6,))
    judged = trace_of(evidence, run.topology)
    live = judged.judged_by_row(judged.last_states)
    order_id = int(live.loc[live["status"].isin((0, 1)), "order_id"].iloc[0])
    verdicts = judge(run, without(evidence, order_id))
    assert {"placement-accounted", "rows-complete"} <= set(violated(verdicts))


def test_row_of_an_order_with_a_later_event_is_not_judged(run: Trace) -> None:
    evidence = at_work(run, (0.6,))
    judged = trace_of(evidence, run.topology)
    assert judged.manifest.audit is not None
    later = set(judged.manifest.audit.later_orders) & set(judged.placements["order_id"].tolist())
    assert later
    assert violated(judge(run, without(evidence, min(later)))) == []


def test_wrong_row_of_an_order_without_a_later_event_is_found(run: Trace) -> None:
    evidence = at_work(run, (0.6,))
    judged = trace_of(evidence, run.topology)
    order_id = int(judged.judged_by_row(judged.last_states)["order_id"].iloc[0])
    columns = tables.TABLE_COLUMNS[tables.ORDER_HISTORY]
    order, filled = columns.index("order_id"), columns.index("filled_quantity")
    history = [
        (*row[:filled], int(str(row[filled])) + 1, *row[filled + 1 :]) if row[order] == order_id else row
        for row in evidence.rows[tables.ORDER_HISTORY]
    ]
    verdicts = judge(run, replace(evidence, rows={**evidence.rows, tables.ORDER_HISTORY: history}))
    assert violated(verdicts) == ["row-matches-engine"]


def test_cause_that_is_nowhere_is_a_violation_and_no_matter_of_moments(run: Trace) -> None:
    whole = log_of(run)
    place, chain = max(whole.links.items(), key=lambda each: len(each[1]) if each[0].topic == BALANCE_EVENTS else 0)
    caused = {
        link.cause_sequence
        for other, links in whole.links.items()
        for link in links
        if other.topic == ENGINE_OUTPUTS and link.cause == place
    }
    # The tail of a balance log, with at least one event whose output is there, was never written.
    lost_from = next(link.offset for link in reversed(chain) if link.sequence in caused)
    log = log_of(run, lambda topic, partition, offset: (topic, partition) != place or offset < lost_from)
    ends = {each: links[-1].offset + 1 for each, links in log.links.items() if links}
    verdicts = judge(run, Evidence(log, AT_WORK, ends, rows_of(run), last_time_ns(run)))
    assert "no-lost-ack" in violated(verdicts)


def test_cut_is_shortened_until_no_record_has_its_cause_outside(run: Trace) -> None:
    log = log_of(run)
    ends = {place: 0 if place.topic == BALANCE_EVENTS else chain[-1].offset + 1 for place, chain in log.links.items()}
    cut = consistent_cut(log.links, ends)
    assert set(cut.values()) == {0}
    half = at_work(run, (0.9, 0.4)).ends
    cut = consistent_cut(log.links, half)
    within = last_sequences(log.links, cut)
    assert any(cut[place] < half[place] for place in cut)
    for place, chain in log.links.items():
        inside = [link for link in chain if link.offset < cut[place]]
        assert all(link.cause_sequence <= within.get(link.cause, 0) for link in inside)
        assert cut[place] == half[place] or any(
            link.offset == cut[place] and link.cause_sequence > within[link.cause] for link in chain
        )


def test_rows_of_orders_that_ended_a_day_ago_may_be_gone(run: Trace) -> None:
    rows = rows_of(run)
    for table in (tables.ACTIVE_ORDERS, tables.ORDER_LOOKUP):
        rows[table] = [row for row in rows[table] if row[-1] is None]
    evidence = Evidence(log_of(run), AT_REST, {}, rows, last_time_ns(run))
    assert "rows-complete" in violated(judge(run, evidence))
    assert violated(judge(run, replace(evidence, read_at_ns=last_time_ns(run) + DAY_NS))) == []


def test_finished_order_whose_row_never_expires_is_found_days_later(run: Trace) -> None:
    rows = rows_of(run)
    rows[tables.ACTIVE_ORDERS] = [(*row[:-1], None) for row in rows[tables.ACTIVE_ORDERS]]
    later = last_time_ns(run) + 3 * DAY_NS
    assert "rows-complete" in violated(judge(run, Evidence(log_of(run), AT_REST, {}, rows, later)))


def test_services_that_have_not_come_to_the_ends_are_named(run: Trace) -> None:
    log = log_of(run)
    ends = {place: records[-1].offset + 3 for place, records in log.records.items() if records}
    progress = {place: chain[-1].offset + 1 for place, chain in log.links.items() if chain}
    assert log.behind(ends, progress) == []
    slow = next(place for place in progress if place.topic == ENGINE_OUTPUTS)
    assert log.behind(ends, {**progress, slow: 0}) == [
        f"settlement stands at offset 0 of {slow.topic}-{slow.partition}, which goes to {progress[slow] - 1}"
    ]
    fund = next(place for place, records in log.records.items() if place.topic == FUND_UPDATES and records)
    first = log.records[fund][0].offset
    idle = log_of(run, lambda topic, partition, offset: topic not in CHAINED_TOPICS)
    assert any(
        line.startswith(f"the balance core stands at offset 0 of {fund.topic}-{fund.partition}")
        for line in idle.behind({fund: first + 1}, {})
    )


def without(evidence: Evidence, order_id: int) -> Evidence:
    """The same without an order's rows in active_orders and order_lookup."""
    rows = dict(evidence.rows)
    for table in (tables.ACTIVE_ORDERS, tables.ORDER_LOOKUP):
        at = tables.TABLE_COLUMNS[table].index("order_id")
        rows[table] = [row for row in rows[table] if row[at] != order_id]
    return replace(evidence, rows=rows)


def test_altered_record_of_a_chain_is_found_though_settlement_has_stopped_before_it(run: Trace) -> None:
    place, chain = next((place, chain) for place, chain in log_of(run).links.items() if place.topic == ENGINE_OUTPUTS)
    altered = chain[len(chain) // 2].offset
    log = AuditLog(run.topology.partitions())
    for each, records in log_of(run).records.items():
        for record in records:
            assert record.value is not None
            wrong = each == place and record.offset == altered
            log.add(each, record._replace(value=record.value[:-1] + bytes([record.value[-1] ^ 1])) if wrong else record)
    ends = {each: links[-1].offset + 1 for each, links in log.links.items() if links}
    verdicts = judge(run, Evidence(log, BEHIND, ends, rows_of(run), last_time_ns(run), ["settlement stands before it"]))
    broken = verdicts["chain-unbroken"].violations
    assert (place.partition, altered) in set(zip(broken["partition"], broken["offset"], strict=True))
    # In this run nothing had stopped: its rows go beyond.
    assert verdicts["corrupt-input-stops"].verdict == VIOLATED
