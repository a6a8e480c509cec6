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


def _market_order(stream: Stream, body: Body) -> str:
    """With a price, or resting, or with a spend limit that is none."""
    market: Body = {**body, "side": "buy", "order_type": "market", "time_in_force": "ioc", "max_spend": "100"}
    draw = stream.below(4)
    if draw == 0:
        return json.dumps(market)
    del market["price"]
    if draw == 1:
        return json.dumps({**market, "time_in_force": stream.choice(("gtc", "post_only"))})
    if draw == 2:
        return json.dumps({**market, "side": "sell"})
    return json.dumps({**market, "max_spend": stream.choice(BAD_NUMBERS)})


def _bad_identity(stream: Stream, body: Body) -> str:
    if stream.bits(1):
        return json.dumps({**body, "user_id": stream.choice((0, -1, 2**63, 2**70, 1.5, "1", None))})
    return json.dumps({**body, "client_order_id": stream.choice(("a b", "\u00e9", "x" * 129, "\n", "\u0000", 7))})


def _too_much(stream: Stream, body: Body) -> str:
    """A field that nobody knows, or more than a request may hold."""
    return json.dumps({**body, "comment": "x" * stream.choice((1, 10_000))})


def _about_no_order(stream: Stream, body: Body) -> str:
    fields = {"user_id": body["user_id"], "request_id": body["client_order_id"], "symbol": body["symbol"]}
    order_id = stream.choice((0, -1, 2**63, 2**200, "1", 1.5, None))
    if stream.bits(1):
        return json.dumps({"type": "cancel", "order_id": order_id, **fields})
    return json.dumps({"type": "reduce", "order_id": order_id, "quantity": body["quantity"], **fields})


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
    _market_order,
    _bad_amount,
    _bad_identity,
    _too_much,
    _about_no_order,
)
"""All the ways to be wrong."""
