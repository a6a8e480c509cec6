"""What a person reads: the counts of a run, its verdicts, and the story of one order (design sections 6, 7 and 10).

When an invariant breaks, its first violations are followed by the story of the order they name: everything that the
trace knows about it, in the order in which it happened.
"""

from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Any, Final

import numpy as np
import pandas as pd

from schema.codes import OrderStatus, OrderType, Outcome, Reason, Side, TimeInForce
from schema.codes import Verdict as Code
from traces.derived import EVENT_NAMES
from traces.matching_rows import Ints, array, ints, rows
from traces.trace import Trace
from traces.verdicts import NOT_EXERCISED, VIOLATED, Verdict

VIOLATIONS_SHOWN: Final = 5
"""How many violations of an invariant are printed in full."""


def counts(trace: Trace) -> dict[str, int]:
    """Orders asked for, placements, trades, completions and recorded events."""
    commands = array(trace.balance_events, "command")
    repeats = ints(trace.balance_events, "is_repeat") != 0
    return {
        "orders": int((((commands == "place") | (commands == "replace")) & ~repeats).sum()),
        "placements": len(trace.placements),
        "updates": len(trace.updates),
        "completions": len(trace.completions),
        "refusals": len(trace.refusals),
        "trades": len(trace.trades),
        "outputs": len(trace.outputs),
        "balance_events": len(trace.balance_events),
        "reads": len(trace.events("reads")),
        "events": sum(map(trace.tables.count, trace.tables)),
    }


def completions_by_reason(trace: Trace) -> dict[str, int]:
    """How many orders ended for which reason."""
    return _by_reason(ints(trace.completions, "reason"))


def refusals_by_reason(trace: Trace) -> dict[str, int]:
    """How many orders the engine refused for which reason."""
    return _by_reason(ints(trace.refusals, "reason"))


def faults_struck(trace: Trace) -> dict[str, int]:
    """How often each fault struck."""
    faults = trace.events("faults")
    names = array(faults, "fault")[array(faults, "phase") == "start"]
    unique, times = np.unique(names.astype(str), return_counts=True)
    return {str(name): int(count) for name, count in zip(unique, times, strict=True)}


def verdict_lines(verdicts: Mapping[str, Verdict]) -> list[str]:
    """The table of invariants: id, verdict, how many things were checked, how many violations."""
    width = max((len(name) for name in verdicts), default=0)
    lines = []
    for name, verdict in verdicts.items():
        mark = {VIOLATED: "✗", NOT_EXERCISED: "-"}.get(verdict.verdict, "✓")
        violations = f"  {len(verdict.violations)} violations" if len(verdict.violations) else ""
        lines.append(f"{mark} {name:<{width}}  {verdict.verdict:<13}  {verdict.checked:>8} checked{violations}")
    return lines


def violation_lines(trace: Trace, verdicts: Mapping[str, Verdict]) -> list[str]:
    """The first violations of each broken invariant, and the story of the first order that each names."""
    lines = []
    for name, verdict in verdicts.items():
        if not len(verdict.violations):
            continue
        lines.append(f"{name}: {len(verdict.violations)} violations")
        shown = verdict.violations.head(VIOLATIONS_SHOWN)
        lines += [f"  {_violation(violation)}" for violation in shown.to_dict("records")]
        if len(verdict.violations) > len(shown):
            lines.append(f"  ... and {len(verdict.violations) - len(shown)} more")
        order_id = first_order(verdict)
        if order_id is not None:
            lines.append(f"  what happened to order {order_id}:")
            lines += [f"    {line}" for line in story(trace, order_id)]
    return lines


def first_order(verdict: Verdict) -> int | None:
    """The first order that a verdict's violations name, None when they name none."""
    for column in ("target_order_id", "order_id", "maker_order_id"):
        if column in verdict.violations:
            named = verdict.violations[column].dropna()
            named = named[named > 0]
            if len(named):
                return int(named.iloc[0])
    return None


def story(trace: Trace, order_id: int) -> list[str]:
    """Everything that the trace knows of one order, in the order in which it happened: one line each.

    The client's requests and answers, the records that speak of it, what the engine said, the statements that wrote
    its rows, the reads that showed it, the services' log lines about it, and the final rows. Empty for an order that
    never was.
    """
    found = sorted(_told(trace, order_id), key=lambda each: each[:2])
    if all(number == _ABSENT for _, number, _, _ in found):
        return []
    return [f"{_clock(t)}  {who:<14} {what}" for t, _, who, what in found]


_ABSENT: Final = 11
"""The place of a row that is not there among what is told of one time: it says something only beside what is."""

Line = tuple[int, int, str, str]
"""When (ns of the run), which of several at one time, who, and what."""


def _told(trace: Trace, order_id: int) -> Iterator[Line]:
    outputs = trace.outputs
    commands = rows(outputs, (ints(outputs, "order_id") == order_id) | (ints(outputs, "replaced_order_id") == order_id))
    balance = trace.balance_events
    asked = rows(balance, (ints(balance, "order_id") == order_id) | (ints(balance, "replaced_order_id") == order_id))
    requests = {*zip(commands["user_id"], commands["request_id"], strict=True)}
    requests |= {*zip(asked["user_id"], asked["request_id"], strict=True)}
    yield from _clients(trace, requests, order_id)
    for each in _each(asked):
        outcome = "" if each.outcome < 0 else f": {_name(Outcome, each.outcome)}{_reason(each.reason)}"
        repeat = ", a repeat" if each.is_repeat else ""
        yield (
            each.t, 2, "balance core",
            f"{each.command} {each.request_id}{outcome}{repeat} (balance.events {each.partition}@{each.offset})",
        )  # fmt: skip
    validated = trace.validated
    sent = (ints(validated, "order_id") == order_id) | (ints(validated, "replaced_order_id") == order_id)
    for each in _each(rows(validated, sent)):
        yield each.t, 3, "balance core", f"sends {each.command} on (validated.orders {each.partition}@{each.offset})"
    yield from _engine(trace, commands, order_id)
    yield from _store(trace, order_id)
    lines = trace.events("log_lines")
    for each in _each(rows(lines, ints(lines, "order_id") == order_id)):
        yield each.t, 7, each.host, f"logs {each.level}: {each.event} {each.fields}"
    yield from _final_rows(trace, order_id)


def _clients(trace: Trace, requests: set[tuple[int, str]], order_id: int) -> Iterator[Line]:
    for kind, number in (("client_requests", 0), ("client_answers", 9)):
        events = trace.events(kind)
        mine = [
            (user, request) in requests or named == order_id
            for user, request, named in zip(events["user_id"], events["request_id"], events["order_id"], strict=True)
        ]
        for each in _each(rows(events, np.array(mine, dtype=bool))):
            if kind == "client_requests":
                what = f"asks to {each.command} as {each.request_id}, attempt {each.attempt}, at {each.host or '?'}"
            else:
                verdict = f", {_name(Code, each.verdict)}{_reason(each.verdict_reason)}" if each.verdict else ""
                what = f"is answered {each.outcome}{_reason(each.reason)}{verdict} ({each.request_id})"
            yield each.t, number, f"user {each.user_id}", what


def _engine(trace: Trace, commands: pd.DataFrame, order_id: int) -> Iterator[Line]:
    for each in _each(commands):
        yield (
            each.t, 4, "engine",
            f"takes {each.command} {each.request_id} in output {each.output_seq} of partition {each.partition}",
        )  # fmt: skip
    trades = trace.trades
    part = (ints(trades, "maker_order_id") == order_id) | (ints(trades, "taker_order_id") == order_id)
    for each in _each(rows(trades, part)):
        role, other = (
            ("maker", each.taker_order_id) if each.maker_order_id == order_id else ("taker", each.maker_order_id)
        )
        yield (
            each.t, 5, "engine",
            f"trade {each.trade_id}: {each.quantity} lots at {each.price} as {role}, with order {other} "
            f"(output {each.output_seq})",
        )  # fmt: skip
    events = trace.order_events
    for each in _each(rows(events, ints(events, "order_id") == order_id)):
        yield (
            each.t, 6, "engine",
            f"{EVENT_NAMES[each.event]}: {_state(each)} (output {each.output_seq} of partition {each.partition})",
        )  # fmt: skip


def _store(trace: Trace, order_id: int) -> Iterator[Line]:
    cql = trace.events("cql")
    for each in _each(rows(cql, ints(cql, "order_id") == order_id)):
        ttl = f", ttl {each.ttl} s" if each.ttl >= 0 else ""
        yield (
            each.t, 8, each.host,
            f"{each.operation} {each.table} revision {each.write_timestamp}{ttl}: {each.outcome} by {each.replicas} "
            f"replicas, {(each.t - each.started_t) / 1e6:.1f} ms",
        )  # fmt: skip
    answers = trace.events("read_rows")
    for each in _each(rows(answers, ints(answers, "order_id") == order_id)):
        yield (
            each.t, 8, f"user {each.user_id}",
            f"reads revision {each.revision}, {_name(OrderStatus, each.status)}, {each.filled_quantity} of "
            f"{each.quantity} filled (read {each.read_id})",
        )  # fmt: skip


def _final_rows(trace: Trace, order_id: int) -> Iterator[Line]:
    for table in ("active_orders", "order_lookup", "order_history", "user_trades"):
        for look, when in trace.looks:
            final = trace.final(table, look)
            mine = rows(final, ints(final, "order_id") == order_id)
            for each in _each(mine):
                detail = f"revision {each.revision}" if table == "order_lookup" else ""
                if table in ("active_orders", "order_history"):
                    detail = f"revision {each.revision}, {_name(OrderStatus, each.status)}"
                elif table == "user_trades":
                    detail = f"trade {each.trade_id}, {each.quantity} lots at {each.price}"
                ttl = f", ttl {each.ttl} s" if each.ttl >= 0 else ""
                yield each.t, 10, "store", f"{when}: row of {table}: {detail}{ttl}"
            if not len(mine) and table == "active_orders" and len(final):
                yield int(ints(final, "t")[0]), _ABSENT, "store", f"{when}: no row of {table}"


def _each(frame: pd.DataFrame) -> Iterator[Any]:
    """The rows of a table as named tuples of its columns."""
    return frame.itertuples()


def _state(event: Any) -> str:
    """An order event, given as a named tuple of its columns, in words."""
    return (
        f"revision {event.revision}, {_name(Side, event.side)} {_name(OrderType, event.order_type)} "
        f"{_name(TimeInForce, event.time_in_force)} at {event.price}, {_name(OrderStatus, event.status)}, "
        f"{event.filled_quantity} of {event.quantity} filled{_reason(event.reason)}"
    )


def _name(codes: type[IntEnum], value: int) -> str:
    try:
        return codes(value).name.lower().replace("_", " ")
    except ValueError:
        return str(value)


def _reason(value: int) -> str:
    return f" ({_name(Reason, value)})" if value else ""


def _by_reason(values: Ints) -> dict[str, int]:
    unique, times = np.unique(values, return_counts=True)
    return {_name(Reason, int(each)): int(count) for each, count in zip(unique, times, strict=True)}


def _violation(violation: Mapping[object, object]) -> str:
    named = (f"{name}={value}" for name, value in violation.items() if name != "what" and not _is_missing(value))
    return f"{violation['what']}: {', '.join(named)}"


def _is_missing(value: object) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and value != value)


def _clock(t: int) -> str:
    seconds, rest = divmod(t, 1_000_000_000)
    return f"{seconds:>7}.{rest // 1_000:06d} s"
