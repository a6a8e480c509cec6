"""A case in words: what each operation and each fault is, and when."""

from typing import Final

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
from sim.scenario import SECOND_NS, Scenario
from sim.script import Strike
from sim.shrink.fewer import script_of
from traces.stories.words import counted

RAW_SHOWN: Final = 120
"""So many characters of a hostile text are shown; it may be as long as a record."""


def story(case: Scenario, work_began_ns: int | None = None) -> list[str]:
    """A line for each operation and fault of a case with a script, in the order of time.

    A script counts time from when the work begins, a trace from the run's start. With the time at which a run of the
    case began its work (`traces.stories.order.work_began_ns`) the times here are the trace's; without it, the first
    line says what they are.
    """
    script = script_of(case)
    symbols = script.topology.topology().symbols
    told = [(each.at_ns, _operation(each, symbols, case.gateways)) for each in script.operations]
    told += [(each.at_ns, f"fault: {_strike(each)}") for each in script.strikes]
    told.sort(key=lambda line: line[0])
    told.append((case.duration_ns, "faults are healed, and the system settles"))
    lines = [_line((work_began_ns or 0) + at_ns, what) for at_ns, what in told]
    if work_began_ns is None:
        return ["times since the work began, some seconds after the run's start:", *lines]
    return [_line(work_began_ns, "the services are up, and the work begins"), *lines]


def _line(at_ns: int, what: str) -> str:
    return f"{at_ns / SECOND_NS:10.6f} s  {what}"


def _strike(strike: Strike) -> str:
    """What strikes, without when: `Strike.describe` gives the time on the script's own clock."""
    lasts = f" for {strike.duration_ns / SECOND_NS:.3f} s" if strike.duration_ns else ""
    strength = f", strength {strike.strength}" if strike.strength else ""
    moment = f", waiting for {strike.moment}" if strike.moment else ""
    return f"{strike.fault} on {strike.target}{lasts}{strength}{moment}"


def _operation(operation: Operation, symbols: SymbolTable, gateways: int) -> str:
    gateway = operation.gateway % gateways + 1
    is_repeated = operation.repeat_after_ns != NOT_REPEATED
    again = f", and again after {operation.repeat_after_ns / SECOND_NS:g} s" if is_repeated else ""
    return f"user {operation.user_id} {_what(operation, symbols)} at gateway {gateway}{again}"


def _what(operation: Operation, symbols: SymbolTable) -> str:
    """What is done, after the name of who does it."""
    kind, request = operation.kind, operation.request_id
    if kind in (DEPOSIT, WITHDRAW):
        amount = amount_text(symbols.asset_named(operation.asset), operation.amount)
        return f"{kind}s {amount} {operation.asset} ({request})"
    if kind == PLACE:
        return f"places {request}: {_order(operation, symbols)}"
    if kind == REPLACE:
        return f"replaces {_referred_to(operation)} by {request}: {_order(operation, symbols)}"
    if kind == CANCEL:
        return f"cancels {_referred_to(operation)} ({request})"
    if kind == REDUCE:
        return f"reduces {_referred_to(operation)} to {counted(operation.quantity, 'lot')} ({request})"
    if kind == READ:
        return f"reads {_question(operation)}"
    if kind == RAW:
        more = f" and {len(operation.raw) - RAW_SHOWN} characters more" if len(operation.raw) > RAW_SHOWN else ""
        return f"sends {operation.raw[:RAW_SHOWN]!r}{more}"
    raise ValueError(f"unknown kind of operation {kind!r}")


def _order(operation: Operation, symbols: SymbolTable) -> str:
    side, order_type = Side(operation.side), OrderType(operation.order_type)
    force = TimeInForce(operation.time_in_force).name.upper()
    limit = f" at {operation.price} ticks" if order_type == OrderType.LIMIT else ""
    lots = counted(operation.quantity, "lot")
    told = f"{order_type.name.lower()} {side.name.lower()} of {lots}{limit} {operation.symbol} {force}"
    if operation.max_spend:
        quote = symbols.named(operation.symbol).quote
        told += f", spending at most {amount_text(quote, operation.max_spend)} {quote.name}"
    return told


def _question(operation: Operation) -> str:
    what = operation.query.replace("_", " ")
    if operation.reference:
        what += f" {_referred_to(operation)}"
    if operation.symbol:
        what += f" of {operation.symbol}"
    if operation.limit:
        what += f", {operation.limit} at most"
    return what


def _referred_to(operation: Operation) -> str:
    """The order that an operation is about, by the request that placed it."""
    owner = operation.reference_user_id
    return operation.reference + (f" of user {owner}" if owner and owner != operation.user_id else "")
