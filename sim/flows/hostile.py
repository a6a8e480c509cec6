"""Requests that no gateway may take: malformed, ill-typed, out of range, or about things that do not exist.

Each is the text that a client sends; the answer has to be `invalid`, and the gateway has to go on. What the balance
core or the engine must refuse is not here: such a request is well formed, and the flow sends it as an ordinary
operation.
"""

import json
from collections.abc import Callable

from schema.symbols import Symbol
from sim.randomness import Stream

BAD_NUMBERS = (
    "0", "-1", "-0.0001", "NaN", "Infinity", "-Infinity", "sNaN", "1e400", "1e-400", "1E+99999999999", "9" * 30,
    "9223372036854775808", "0.00000000000000001", "1,5", "0x10", "1_000_000_000_000_000_000_000", "", " ", "1 2", "--1",
    "1" * 41, "null", "\u0000", "\ud800".encode("utf-16", "surrogatepass").decode("utf-16", "replace"),
)  # fmt: skip
"""Texts that are no price and no quantity of any symbol."""

Body = dict[str, object]


def hostile_request(stream: Stream, symbol: Symbol, user_id: int, request_id: str) -> str:
    """The text of a hostile request; `stream` chooses which of the ways to be wrong it takes."""
    body: Body = {
        "type": "place",
        "user_id": user_id,
        "client_order_id": request_id,
        "symbol": symbol.name,
        "side": "buy" if stream.bits(1) else "sell",
        "order_type": "limit",
        "time_in_force": "gtc",
        "price": symbol.price_text(1 + stream.below(1_000)),
        "quantity": symbol.quantity_text(1 + stream.below(100)),
    }
    return stream.choice(HOSTILITIES)(stream, body)


def _bad_number(stream: Stream, body: Body) -> str:
    return json.dumps({**body, stream.choice(("price", "quantity")): stream.choice(BAD_NUMBERS)})


def _off_grid(stream: Stream, body: Body) -> str:
    field = stream.choice(("price", "quantity"))
    return json.dumps({**body, field: f"{body[field]}{'' if '.' in str(body[field]) else '.'}00000000007"})


def _ill_typed(stream: Stream, body: Body) -> str:
    field = stream.choice(("price", "quantity", "symbol", "side", "client_order_id"))
    wrong: tuple[object, ...] = (None, [], {}, True, [body[field]])
    return json.dumps({**body, field: stream.choice(wrong)})


def _unknown_symbol(stream: Stream, body: Body) -> str:
    return json.dumps(
        {**body, "symbol": stream.choice(("GOLD-USDT", "", "btc-usdt ", "A" * 5_000, "'; DROP TABLE --"))}
    )


def _unknown_word(stream: Stream, body: Body) -> str:
    field = stream.choice(("type", "side", "order_type", "time_in_force"))
    return json.dumps({**body, field: stream.choice(("", "BUY\n", "none", "short", "7", "limit market"))})


def _missing_field(stream: Stream, body: Body) -> str:
    field = stream.choice(("type", "client_order_id", "symbol", "side", "price", "quantity"))
    return json.dumps({name: value for name, value in body.items() if name != field})


def _truncated(stream: Stream, body: Body) -> str:
    text = json.dumps(body)
    return text[: stream.below(len(text))]


def _not_an_object(stream: Stream, body: Body) -> str:
    return stream.choice(
        ("[]", "null", "0", '"place"', "{}", "true", "[" * 2_000, '{"type":' * 500, "\u0000", "not json")
    )


def _no_request_id(stream: Stream, body: Body) -> str:
    return json.dumps({**body, "client_order_id": ""})


def _market_without_spend_limit(stream: Stream, body: Body) -> str:
    bad = stream.choice(BAD_NUMBERS)
    return json.dumps({**body, "side": "buy", "order_type": "market", "time_in_force": "ioc", "max_spend": bad})


def _bad_amount(stream: Stream, body: Body) -> str:
    kind = stream.choice(("deposit", "withdraw"))
    request_id = body["client_order_id"]
    asset = stream.choice(("USDT", "GOLD", ""))
    amount = stream.choice(BAD_NUMBERS)
    return json.dumps(
        {"type": kind, "user_id": body["user_id"], "request_id": request_id, "asset": asset, "amount": amount}
    )


HOSTILITIES: tuple[Callable[[Stream, Body], str], ...] = (
    _bad_number,
    _off_grid,
    _ill_typed,
    _unknown_symbol,
    _unknown_word,
    _missing_field,
    _truncated,
    _not_an_object,
    _no_request_id,
    _market_without_spend_limit,
    _bad_amount,
)
"""All the ways to be wrong."""
