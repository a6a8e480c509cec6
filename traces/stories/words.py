"""How times, codes, orders and trades are told in words."""

import json
import re
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Any, Final

import numpy as np
import pandas as pd

from schema.codes import EntryKind, OrderStatus, OrderType, Outcome, Reason, Side, TimeInForce
from schema.codes import Verdict as Code
from schema.identifiers import SymbolId
from traces.derived import EVENT_NAMES
from traces.trace import Trace


def counted(number: int, noun: str) -> str:
    """A number of things: `1 lot`, `2 lots`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def each_row(frame: pd.DataFrame) -> Iterator[Any]:
    """The rows of a table as named tuples of its columns."""
    return frame.itertuples()


def trade_text(trade: Any, order_id: int) -> str:
    """A trade, given as a named tuple of its columns, from the side of one of its orders."""
    is_maker = trade.maker_order_id == order_id
    role, other = ("maker", trade.taker_order_id) if is_maker else ("taker", trade.maker_order_id)
    return f"{counted(trade.quantity, 'lot')} at {trade.price} as {role}, with order {other}"


def state_text(event: Any) -> str:
    """An order event, given as a named tuple of its columns, in words."""
    is_told = event.status == OrderStatus.FILLED and event.reason == Reason.FILLED
    return (
        f"revision {event.revision}, {name_of(Side, event.side)} {name_of(OrderType, event.order_type)} "
        f"{name_of(TimeInForce, event.time_in_force)} at {event.price}, {filled_text(event)}"
        f"{'' if is_told else reason_text(event.reason)}"
    )


def filled_text(row: Any) -> str:
    """How far an order is, by a row or an event that shows it, given as a named tuple of its columns."""
    return f"{name_of(OrderStatus, row.status)}, {row.filled_quantity} of {row.quantity} filled"


def name_of(codes: type[IntEnum], value: int) -> str:
    try:
        return codes(value).name.lower().replace("_", " ")
    except ValueError:
        return str(value)


def reason_text(value: int) -> str:
    return f" ({name_of(Reason, value)})" if value else ""


_CODES: Final[Mapping[str, type[IntEnum]]] = {
    "status": OrderStatus, "reason": Reason, "verdict_reason": Reason, "side": Side, "taker_side": Side,
    "order_type": OrderType, "time_in_force": TimeInForce, "outcome": Outcome, "verdict": Code, "kind": EntryKind,
}  # fmt: skip
"""What the integers of a column stand for."""


def column_text(trace: Trace, name: str, value: object) -> str:
    """A column of a violation: its name and its value; for codes, symbols and assets their names."""
    if name == "differs":
        return f"{name}={differences_text(str(value))}"
    if not isinstance(value, int | np.integer):
        return f"{name}={value}"
    if name == "symbol_id" and (symbol := trace.topology.symbols.symbols.get(SymbolId(int(value)))) is not None:
        return f"symbol={symbol.name}"
    if name == "asset_id":
        return f"asset={asset_name(trace, int(value))}"
    return f"{name}={word_of(name, int(value))}"


def word_of(column: str, value: int) -> str:
    """What an integer of a column stands for, in words where it is a code."""
    if column == "event":
        return EVENT_NAMES[value] if 0 <= value < len(EVENT_NAMES) else str(value)
    return name_of(_CODES[column], value) if column in _CODES else str(value)


def log_text(event: str, fields: str) -> str:
    """A log line: its event, and its fields (a JSON object) as `name value` with words for codes."""
    told = json.loads(fields).items()
    named = [f"{name} {word_of(name, value) if type(value) is int else value}" for name, value in told]
    return ", ".join([event, *named])


def differences_text(differs: str) -> str:
    """What `traces.matching_rows.compare` says of differing columns, with words for codes."""
    return re.sub(
        r"(\w+) (-?\d+) expected, (-?\d+) found",
        lambda found: (
            f"{found[1]} {word_of(found[1], int(found[2]))} expected, {word_of(found[1], int(found[3]))} found"
        ),
        differs,
    )


def asset_name(trace: Trace, asset_id: int) -> str:
    """The name of an asset; its id where there is none."""
    for symbol in trace.topology.symbols:
        for asset in (symbol.base, symbol.quote):
            if asset.asset_id == asset_id:
                return asset.name
    return f"asset {asset_id}"


def with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def clock_text(t: int) -> str:
    seconds, rest = divmod(t, 1_000_000_000)
    return f"{seconds:>7}.{rest // 1_000:06d} s"
