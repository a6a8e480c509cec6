"""What shrinking prints: the smallest case in words, what it breaks, and a test that holds it."""

import json
import re
from pathlib import Path
from typing import Any

from schema.codes import OrderType, Side, TimeInForce
from schema.symbols import SymbolTable, amount_text
from sim.flows.operations import (
    CANCEL,
    DEPOSIT,
    NOT_REPEATED,
    PLACE,
    RAW,
    READ,
    REDUCE,
    REPLACE,
    WITHDRAW,
    Operation,
)
from sim.run import RunResult
from sim.scenario import SECOND_NS
from sim.shrink.fewer import script_of
from sim.shrink.shrinker import Shrunk
from traces.summary import violation_lines


def as_json(shrunk: Shrunk, result: RunResult, repro: Path) -> dict[str, Any]:
    """What came of shrinking, as plain data; the field names are part of the command line's contract."""
    before = script_of(shrunk.before)
    return {
        "invariant": shrunk.invariant,
        "repro": str(repro),
        "digest": result.digest,
        "operations": shrunk.operations,
        "operations_before": len(before.operations),
        "faults": shrunk.strikes,
        "faults_before": len(before.strikes),
        "runs": shrunk.runs,
        "is_finished": shrunk.is_finished,
        "wall_seconds": round(shrunk.wall_seconds, 3),
        "story": story(shrunk),
        "test": test_case(shrunk, repro),
    }


def print_json(shrunk: Shrunk, result: RunResult, repro: Path) -> None:
    """One JSON object on standard output."""
    print(json.dumps(as_json(shrunk, result, repro)))


def print_summary(shrunk: Shrunk, result: RunResult, repro: Path) -> None:
    """The smallest case and its story, what broke, the repro and a test."""
    before = script_of(shrunk.before)
    print(
        f"{shrunk.invariant}: {shrunk.operations} of {len(before.operations)} client operations and "
        f"{shrunk.strikes} of {len(before.strikes)} faults are enough"
    )
    rest = "nothing can be made simpler" if shrunk.is_finished else "the runs are used up: it may become smaller yet"
    print(f"  {shrunk.runs} cases run in {shrunk.wall_seconds:.1f} s; {rest}")
    print()
    print("\n".join(story(shrunk)))
    print()
    broken = {shrunk.invariant: result.verdicts[shrunk.invariant]}
    print("\n".join(violation_lines(result.trace, broken)))
    print()
    print(f"repro   {repro}")
    print(f"again   exchange-sim replay {repro}")
    print()
    print("As a test:")
    print()
    print(test_case(shrunk, repro))


def story(shrunk: Shrunk) -> list[str]:
    """What each operation and each fault is, and when, in the order of time: one line each."""
    case, script = shrunk.case, script_of(shrunk.case)
    symbols = script.topology.topology().symbols
    told = [(each.at_ns, f"user {each.user_id} {_says(each, symbols)}") for each in script.operations]
    told += [(each.at_ns, f"fault: {each.describe()}") for each in script.strikes]
    lines = [f"{at_ns / SECOND_NS:10.6f} s  {what}" for at_ns, what in sorted(told, key=lambda line: line[0])]
    lines.append(f"{case.duration_ns / SECOND_NS:10.6f} s  faults are healed, and the system settles")
    return lines


def test_case(shrunk: Shrunk, repro: Path) -> str:
    """A pytest case that fails as long as the case breaks its invariant."""
    name = re.sub(r"\W+", "_", f"{shrunk.invariant}_seed_{shrunk.case.seed}")
    defect = f" with the defect {shrunk.case.defect}" if shrunk.case.defect else ""
    return "\n".join(
        [
            "from pathlib import Path",
            "",
            "from sim.testing import hold_invariants",
            "",
            "",
            f"def test_{name}() -> None:",
            f'    """{shrunk.invariant} once broke here{defect}: {shrunk.operations} operations, '
            f'{shrunk.strikes} faults."""',
            f'    hold_invariants(Path(__file__).with_name("{repro.name}"))',
        ]
    )


def _says(operation: Operation, symbols: SymbolTable) -> str:
    """An operation in words."""
    kind, request = operation.kind, operation.request_id
    if kind in (DEPOSIT, WITHDRAW):
        amount = amount_text(symbols.asset_named(operation.asset), operation.amount)
        what = f"{kind}s {amount} {operation.asset} ({request})"
    elif kind in (PLACE, REPLACE):
        side = Side(operation.side).name.lower()
        order = OrderType(operation.order_type).name.lower()
        force = TimeInForce(operation.time_in_force).name.upper()
        limit = f" at {operation.price} ticks" if operation.order_type == OrderType.LIMIT else ""
        spend = f", spending at most {operation.max_spend}" if operation.max_spend else ""
        verb = "places" if kind == PLACE else f"replaces {operation.reference} by"
        what = f"{verb} {request}: {order} {side} of {operation.quantity} lots{limit} {operation.symbol} {force}{spend}"
    elif kind == CANCEL:
        what = f"cancels {operation.reference} ({request})"
    elif kind == REDUCE:
        what = f"reduces {operation.reference} to {operation.quantity} lots ({request})"
    elif kind == READ:
        what = f"reads {operation.query.replace('_', ' ')}" + (f" of {operation.symbol}" if operation.symbol else "")
    elif kind == RAW:
        what = f"sends {operation.raw!r}"
    else:
        raise ValueError(f"unknown kind of operation {kind!r}")
    is_repeated = operation.repeat_after_ns != NOT_REPEATED
    again = f", and again after {operation.repeat_after_ns / SECOND_NS:g} s" if is_repeated else ""
    return f"{what} at gateway {operation.gateway + 1}{again}"
