"""The story of one order: everything that the trace knows about it, in the order in which it happened.

A mark stands where the reference expects something else, and beside it all what struck meanwhile. All times are seconds
since the run's start.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from schema.codes import Outcome
from schema.codes import Verdict as Code
from schema.topics import ENGINE_OUTPUTS, ORDER_REQUESTS, VALIDATED_ORDERS
from traces.derived import COMPLETION, EVENT_NAMES, PLACEMENT, REFUSAL, UPDATE
from traces.invariants.lifecycle import order_differences
from traces.manifest import TraceError
from traces.matching_rows import array, ints, is_any, rows
from traces.stories.words import (
    clock_text,
    counted,
    differences_text,
    each_row,
    filled_text,
    log_text,
    name_of,
    reason_text,
    state_text,
    trade_text,
    with_article,
)
from traces.trace import Trace

FAULTS_SHOWN: Final = 8
"""How many of the faults around an order its story tells, a line each."""
OTHER_FAULTS_SHOWN: Final = 6
"""How many of the others it names, in one line."""
AFTERMATH_NS: Final = 10_000_000_000
"""A fault that is over still matters so long: a group waits for members that died, locks and timeouts run out."""
OWNERS_SHOWN: Final = 8
"""How many changes of those who own an order's partitions its story tells."""


def work_began_ns(trace: Trace) -> int:
    """When clients and faults began, ns since the run's start: what a scenario's own times count from."""
    phases = trace.events("phases")
    began = ints(phases, "t")[array(phases, "phase") == "work"]
    return int(began[0]) if len(began) else 0


def order_story(trace: Trace, order_id: int) -> list[str]:
    """Everything that the trace knows of one order, in the order in which it happened: one line each.

    The client's requests and answers, the records that speak of it, what the engine said, the statements that wrote
    its rows, the reads that showed it, the services' log lines about it, and the final rows; where the engine's word
    is not the reference's; and what struck meanwhile. Empty for an order that never was.
    """
    found = list(_told(trace, order_id))
    if all(each.place == _ABSENT for each in found):
        return []
    found += _differences(trace, order_id)
    lived = [each for each in found if each.place < _FINAL]
    if lived:
        found += _surroundings(trace, order_id, lived)
    found.sort(key=lambda each: (each.t, each.place))
    return [f"{clock_text(each.t)}  {each.who:<14} {each.what}" for each in found]


@dataclass(frozen=True, slots=True)
class _Line:
    """When (ns of the run), its place among the lines of one time, who, and what."""

    t: int
    place: tuple[int, ...]
    who: str
    what: str


_FAULT, _ASKED, _BALANCE, _SENT, _ENGINE, _OWNER, _LOG, _STORE, _ANSWERED = ((number,) for number in range(9))
_FINAL: Final = (9,)
_ABSENT: Final = (10,)
"""The place of a row that is not there: it says something only beside what is."""

_TAKEN: Final = -1
_TRADE: Final = 10
_KINDS: Final = {_TAKEN: 0, PLACEMENT: 1, _TRADE: 2, UPDATE: 3, COMPLETION: 4, REFUSAL: 4}
"""The order of what one output says: it takes an input, then by event, with trades among them."""


def _in_output(output_seq: int, event: int, position: int = 0) -> tuple[int, ...]:
    """The place of what an output says, among all that has the same time."""
    return *_ENGINE, output_seq, _KINDS[event], position


def _told(trace: Trace, order_id: int) -> Iterator[_Line]:
    commands, asked = _commands(trace.outputs, order_id), _commands(trace.balance_events, order_id)
    requests = {*zip(commands["user_id"], commands["request_id"], strict=True)}
    requests |= {*zip(asked["user_id"], asked["request_id"], strict=True)}
    yield from _clients(trace, requests, order_id)
    for each in each_row(asked):
        outcome = "" if each.outcome < 0 else f": {name_of(Outcome, each.outcome)}{reason_text(each.reason)}"
        repeat = ", a repeat" if each.is_repeat else ""
        yield _Line(
            each.t, _BALANCE, "balance core",
            f"{each.command} {each.request_id}{outcome}{repeat} (balance.events {each.partition}@{each.offset})",
        )  # fmt: skip
    for each in each_row(_commands(trace.validated, order_id)):
        what = f"sends {each.command} on (validated.orders {each.partition}@{each.offset})"
        yield _Line(each.t, _SENT, "balance core", what)
    yield from _engine(trace, commands, order_id)
    yield from _store(trace, order_id)
    lines = trace.events("log_lines")
    for each in each_row(rows(lines, ints(lines, "order_id") == order_id)):
        yield _Line(each.t, _LOG, each.host, f"logs {each.level}: {log_text(each.event, each.fields)}")
    yield from _final_rows(trace, order_id)


def _commands(frame: pd.DataFrame, order_id: int) -> pd.DataFrame:
    """The rows whose command is about the order: it places, cancels, reduces or replaces it."""
    return rows(frame, (ints(frame, "order_id") == order_id) | (ints(frame, "replaced_order_id") == order_id))


def _clients(trace: Trace, requests: set[tuple[int, str]], order_id: int) -> Iterator[_Line]:
    for kind, place in (("client_requests", _ASKED), ("client_answers", _ANSWERED)):
        events = trace.events(kind)
        mine = [
            (user, request) in requests or named == order_id
            for user, request, named in zip(events["user_id"], events["request_id"], events["order_id"], strict=True)
        ]
        for each in each_row(rows(events, np.array(mine, dtype=bool))):
            if kind == "client_requests":
                what = f"asks to {each.command} as {each.request_id}, attempt {each.attempt}, at {each.host or '?'}"
            else:
                verdict = f", {name_of(Code, each.verdict)}{reason_text(each.verdict_reason)}" if each.verdict else ""
                what = f"is answered {each.outcome}{reason_text(each.reason)}{verdict} ({each.request_id})"
            yield _Line(each.t, place, f"user {each.user_id}", what)


def _engine(trace: Trace, commands: pd.DataFrame, order_id: int) -> Iterator[_Line]:
    for each in each_row(commands):
        yield _Line(
            each.t, _in_output(each.output_seq, _TAKEN), "engine",
            f"takes {each.command} {each.request_id} in output {each.output_seq} of partition {each.partition}",
        )  # fmt: skip
    trades = trace.trades
    part = (ints(trades, "maker_order_id") == order_id) | (ints(trades, "taker_order_id") == order_id)
    for each in each_row(rows(trades, part)):
        yield _Line(
            each.t, _in_output(each.output_seq, _TRADE, each.position), "engine",
            f"trade {each.trade_id}: {trade_text(each, order_id)} (output {each.output_seq})",
        )  # fmt: skip
    events = trace.order_events
    for each in each_row(rows(events, ints(events, "order_id") == order_id)):
        yield _Line(
            each.t, _in_output(each.output_seq, each.event), "engine",
            f"{EVENT_NAMES[each.event]}: {state_text(each)} (output {each.output_seq} of partition {each.partition})",
        )  # fmt: skip


_VERSIONS: Final = {
    "active_orders": "revision",
    "order_history": "revision",
    "order_lookup": "revision",
    "user_trades": "of output",
    "balance_ledger": "entry",
}
"""What the write timestamp of a table with rows of orders is."""


def _store(trace: Trace, order_id: int) -> Iterator[_Line]:
    cql = trace.events("cql")
    for each in each_row(rows(cql, ints(cql, "order_id") == order_id)):
        ttl = f", ttl {each.ttl} s" if each.ttl >= 0 else ""
        version = f" {_VERSIONS.get(each.table, 'version')} {each.write_timestamp}" if each.write_timestamp >= 0 else ""
        yield _Line(
            each.t, _STORE, each.host,
            f"{each.operation} {each.table}{version}{ttl}: {each.outcome} by {counted(each.replicas, 'replica')}, "
            f"{(each.t - each.started_t) / 1e6:.1f} ms",
        )  # fmt: skip
    answers = trace.events("read_rows")
    for each in each_row(rows(answers, ints(answers, "order_id") == order_id)):
        yield _Line(
            each.t, _STORE, f"user {each.user_id}",
            f"reads revision {each.revision}, {filled_text(each)} (read {each.read_id})",
        )  # fmt: skip


def _final_rows(trace: Trace, order_id: int) -> Iterator[_Line]:
    for table in ("active_orders", "order_lookup", "order_history", "user_trades"):
        for look, when in trace.looks:
            final = trace.final(table, look)
            mine = rows(final, ints(final, "order_id") == order_id)
            for each in each_row(mine):
                detail = f"revision {each.revision}" if table == "order_lookup" else ""
                if table in ("active_orders", "order_history"):
                    detail = f"revision {each.revision}, {filled_text(each)}"
                elif table == "user_trades":
                    detail = f"trade {each.trade_id}, {counted(each.quantity, 'lot')} at {each.price}"
                ttl = f", ttl {each.ttl} s" if each.ttl >= 0 else ""
                yield _Line(each.t, _FINAL, "store", f"{when}: row of {table}: {detail}{ttl}")
            if not len(mine) and table == "active_orders" and len(final):
                yield _Line(int(ints(final, "t")[0]), _ABSENT, "store", f"{when}: no row of {table}")


def _differences(trace: Trace, order_id: int) -> Iterator[_Line]:
    """Where the reference expects something else of an order, beside what the engine said."""
    try:
        found = order_differences(trace, order_id)
    except TraceError:
        raise
    except Exception as error:
        # A trace that the reference cannot follow still has a story.
        yield _Line(
            work_began_ns(trace), _FAULT, _REFERENCE, f"cannot follow this trace: {type(error).__name__}: {error}"
        )
        return
    for each in each_row(found.events.missing):
        t, output_seq, where = _output_of(trace, each.partition, each.input_offset)
        what = f"expects {with_article(EVENT_NAMES[each.event])} here: {state_text(each)} ({where})"
        yield _Line(t, _in_output(output_seq, each.event), _REFERENCE, what)
    for each in each_row(found.trades.missing):
        t, output_seq, where = _output_of(trace, each.partition, each.input_offset)
        what = f"expects a trade here: {trade_text(each, order_id)} ({where})"
        yield _Line(t, _in_output(output_seq, _TRADE, each.position), _REFERENCE, what)
    for name, differences in (("", found.events), ("trade", found.trades)):
        for wrong, what in (
            (differences.unexpected, "expects no such {name} (output {seq})"),
            (differences.repeated, "expects this {name} once (output {seq})"),
            (differences.differing, "expects this {name} otherwise: {differs} (output {seq})"),
        ):
            for each in each_row(wrong):
                event = _TRADE if name else each.event
                place = _in_output(each.output_seq, event, each.position if name else 0)
                differs = differences_text(getattr(each, "differs", ""))
                told = what.format(name=name or EVENT_NAMES[event], seq=each.output_seq, differs=differs)
                yield _Line(each.t, (*place, 1), _REFERENCE, told)


_REFERENCE: Final = "✗ reference"
"""Who speaks where the engine's word is not the reference's."""


def _output_of(trace: Trace, partition: int, input_offset: int) -> tuple[int, int, str]:
    """When the output to an input was written, its number, and how to speak of it; of one that is not there, when its
    input was written, and 0."""
    outputs = trace.outputs
    its = rows(outputs, (ints(outputs, "partition") == partition) & (ints(outputs, "input_offset") == input_offset))
    if len(its):
        output_seq = int(ints(its, "output_seq")[0])
        return int(ints(its, "t")[0]), output_seq, f"output {output_seq} of partition {partition}"
    inputs = trace.validated
    its = rows(inputs, (ints(inputs, "partition") == partition) & (ints(inputs, "offset") == input_offset))
    where = f"there is no output to {VALIDATED_ORDERS} {partition}@{input_offset}"
    return int(ints(its, "t")[0]) if len(its) else 0, 0, where


def _surroundings(trace: Trace, order_id: int, lived: list[_Line]) -> Iterator[_Line]:
    """What struck while an order lived, or shortly before, and who took over its partitions meanwhile."""
    begin, end = min(each.t for each in lived), max(each.t for each in lived)
    yield from _faults(trace, begin, end, {each.who for each in lived})
    yield from _owners(trace, order_id, begin, end)


@dataclass(frozen=True, slots=True)
class _Strike:
    """A fault as it struck: when it began and ended (None: never), and at whom it aimed."""

    fault: str
    target: str
    began: int
    ended: int | None

    @property
    def name(self) -> str:
        """What struck whom; `*` is everything."""
        return self.fault if self.target == "*" else f"{self.fault} on {self.target}"

    @property
    def told(self) -> str:
        """What struck whom, and until when; a strike of a moment has no end."""
        until = ", and never ends" if self.ended is None else f", until {clock_text(self.ended).strip()}"
        return self.name + (until if self.ended != self.began else "")


def _faults(trace: Trace, begin: int, end: int, told_of: set[str]) -> Iterator[_Line]:
    """The faults that overlap a stretch of the run, or ended less than AFTERMATH_NS before it.

    Many would drown the story. Those come first that aim at a service of those who are told of (`told_of`: one that
    dies holds up its group), at a group or at a topic; then those that are everywhere; then those of other servers;
    of each sort those that lasted longest into the stretch.
    """
    near = [
        each
        for each in _strikes(trace)
        if each.began <= end and (each.ended is None or each.ended >= begin - AFTERMATH_NS)
    ]
    services = {_service(who) for who in told_of}

    def rank(strike: _Strike) -> tuple[int, int, int]:
        is_near = any("." in each or _service(each) in services for each in strike.target.split("->"))
        until = end if strike.ended is None else min(strike.ended, end)
        return (0 if is_near else 1 if strike.target == "*" else 2), -until, strike.began

    ranked = sorted(near, key=rank)
    for strike in ranked[:FAULTS_SHOWN]:
        yield _Line(strike.began, _FAULT, "fault", strike.told)
    if others := ranked[FAULTS_SHOWN:]:
        named = ", ".join(each.name for each in others[:OTHER_FAULTS_SHOWN])
        more = ", ..." if len(others) > OTHER_FAULTS_SHOWN else ""
        began = min(each.began for each in others)
        yield _Line(began, _FAULT, "fault", f"and {len(others)} others from here on: {named}{more}")


def _strikes(trace: Trace) -> list[_Strike]:
    """The faults that struck, in the order in which they began."""
    faults = trace.events("faults")
    found: list[_Strike] = []
    for each in each_row(rows(faults, array(faults, "phase") == "start")):
        mine = (array(faults, "detail") == each.detail) & (array(faults, "fault") == each.fault)
        mine &= (array(faults, "target") == each.target) & (array(faults, "phase") == "end")
        ends = ints(faults, "t")[mine & (ints(faults, "t") >= each.t)]
        found.append(_Strike(each.fault, each.target, each.t, int(ends[0]) if len(ends) else None))
    return found


def _service(name: str) -> str:
    """The service, or the sort of server, of which a host is an instance: matching of matching-2, and of a group."""
    return name.rpartition("-")[0] or name


def _owners(trace: Trace, order_id: int, begin: int, end: int) -> Iterator[_Line]:
    """Who gave up or took over the partitions that an order passes through: between the two, nobody works there."""
    mine = {
        *_partitions(ORDER_REQUESTS, _commands(trace.balance_events, order_id), "input_partition"),
        *_partitions(VALIDATED_ORDERS, _commands(trace.validated, order_id), "partition"),
        *_partitions(ENGINE_OUTPUTS, _commands(trace.outputs, order_id), "partition"),
    }
    moves = trace.events("rebalances")
    within = (ints(moves, "t") >= begin) & (ints(moves, "t") <= end) & is_any(moves, "action", "assign", "revoke")
    changes = []
    for each in each_row(rows(moves, within)):
        if its := sorted(mine.intersection(each.assignment.split())):
            what = f"{'takes over' if each.action == 'assign' else 'gives up'} {', '.join(its)}"
            changes.append(_Line(each.t, _OWNER, each.host, what))
    yield from changes[:OWNERS_SHOWN]
    if len(changes) > OWNERS_SHOWN:
        more = f"{len(changes) - OWNERS_SHOWN} more changes of who owns these partitions"
        yield _Line(changes[OWNERS_SHOWN].t, _OWNER, "groups", more)


def _partitions(topic: str, frame: pd.DataFrame, column: str) -> set[str]:
    return {f"{topic}-{number}" for number in ints(frame, column).tolist()}
