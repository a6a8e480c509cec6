"""What a person reads of a run: its counts, its verdicts, and its violations (design sections 6, 7 and 10).

When an invariant breaks, its first violations are followed by the story of what they name: an order, or a user's
account.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
import pandas as pd

from schema.codes import Reason
from traces.matching_rows import Ints, array, ints
from traces.stories.account import account_story, unsound_locks
from traces.stories.order import order_story
from traces.stories.words import asset_name, column_text, counted, name_of
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
        violations = f"  {counted(len(verdict.violations), 'violation')}" if len(verdict.violations) else ""
        lines.append(f"{mark} {name:<{width}}  {verdict.verdict:<13}  {verdict.checked:>8} checked{violations}")
    return lines


def violation_lines(trace: Trace, verdicts: Mapping[str, Verdict]) -> list[str]:
    """The first violations of each broken invariant, and the story of what the first of them is about: an order, or a
    user's account. No story is told twice."""
    lines: list[str] = []
    told: set[str] = set()
    for name, verdict in verdicts.items():
        if not len(verdict.violations):
            continue
        lines.append(f"{name}: {counted(len(verdict.violations), 'violation')}")
        shown = verdict.violations.head(VIOLATIONS_SHOWN)
        lines += [f"  {_violation(trace, violation)}" for violation in shown.to_dict("records")]
        if len(verdict.violations) > len(shown):
            lines.append(f"  ... and {len(verdict.violations) - len(shown)} more")
        for heading, story_lines in _stories(trace, verdict, told):
            lines.append(f"  what happened to {heading}:" + ("" if story_lines else " see above"))
            lines += [f"    {line}" for line in story_lines]
    return lines


def first_violation(trace: Trace, verdict: Verdict) -> str:
    """The first violation of a verdict in a line; there is one."""
    return _violation(trace, verdict.violations.head(1).to_dict("records")[0])


def _stories(trace: Trace, verdict: Verdict, told: set[str]) -> Iterator[tuple[str, list[str]]]:
    """The stories behind a verdict's violations: what each is about, and its lines, none where they were told before.
    What is told now is added to `told`."""
    order_id = first_order(verdict)
    if order_id is None:
        order_id = _order_of_first_request(trace, verdict)
    if order_id is None and (account := _first_account(verdict)) is not None:
        concerned = unsound_locks(trace, *account)
        heading = f"the {asset_name(trace, account[1])} of user {account[0]}, in its smallest unit"
        is_new = heading not in told
        told.add(heading)
        yield heading, account_story(trace, *account) if is_new else []
        orders = [each.order_id for each in concerned]
        order_id = next((each for each in orders if f"order {each}" in told), orders[0] if orders else None)
    if order_id is not None:
        heading = f"order {order_id}"
        is_new = heading not in told
        told.add(heading)
        yield heading, (order_story(trace, order_id) or ["nothing is known of it"]) if is_new else []


def first_order(verdict: Verdict) -> int | None:
    """The first order that a verdict's violations name, None when they name none."""
    for column in ("target_order_id", "order_id", "maker_order_id"):
        if column in verdict.violations:
            named = verdict.violations[column].dropna()
            named = named[named > 0]
            if len(named):
                return int(named.iloc[0])
    return None


def _order_of_first_request(trace: Trace, verdict: Verdict) -> int | None:
    """The order that the first request named by the violations placed, or was about; None when they name none."""
    violations = verdict.violations
    if "request_id" not in violations or "user_id" not in violations:
        return None
    named = violations.dropna(subset=["user_id", "request_id"]).head(VIOLATIONS_SHOWN)
    events = trace.balance_events
    for user_id, request_id in zip(named["user_id"], named["request_id"], strict=True):
        its = (ints(events, "user_id") == user_id) & (array(events, "request_id") == request_id)
        orders = ints(events, "order_id")[its]
        if len(orders) and orders[0] > 0:
            return int(orders[0])
    return None


def _first_account(verdict: Verdict) -> tuple[int, int] | None:
    """The first user and asset that a verdict's violations name, None when they name none."""
    if "user_id" not in verdict.violations or "asset_id" not in verdict.violations:
        return None
    named = verdict.violations.dropna(subset=["user_id", "asset_id"])
    return (int(named["user_id"].iloc[0]), int(named["asset_id"].iloc[0])) if len(named) else None


def _by_reason(values: Ints) -> dict[str, int]:
    unique, times = np.unique(values, return_counts=True)
    return {name_of(Reason, int(each)): int(count) for each, count in zip(unique, times, strict=True)}


def _violation(trace: Trace, violation: Mapping[object, object]) -> str:
    """A violation in a line: what is wrong, and the columns that identify it, codes in words."""
    named = (
        column_text(trace, str(name), value)
        for name, value in violation.items()
        if name != "what" and not _is_missing(value)
    )
    return f"{violation['what']}: {', '.join(named)}"


def _is_missing(value: object) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and value != value)
