"""The request form: what a client may send, and that nothing else gets through."""

import json
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.requests import MAX_REQUEST_BYTES, RequestError, parse, to_event
from schema.events import CancelOrder, Deposit, PlaceOrder, ReduceOrder, ReplaceOrder, Withdraw
from schema.identifiers import INT64_MAX, OrderId
from schema.symbols import amount_text
from schema.wire import REQUEST, encode
from tests.settlement.events_for_tests import small_topology

SYMBOLS = small_topology().symbols
BTC_USD = SYMBOLS.named("BTC-USD")

PLACE: dict[str, object] = {
    "type": "place",
    "user_id": 7,
    "client_order_id": "a-1",
    "symbol": "BTC-USD",
    "side": "buy",
    "order_type": "limit",
    "price": "100.25",
    "quantity": "0.5",
}


def event_of(data: object) -> object:
    return to_event(parse(data), SYMBOLS, OrderId(99), 1_000)  # type: ignore[arg-type]


def test_limit_order_becomes_ticks_and_lots():
    assert event_of(PLACE) == PlaceOrder("a-1", 7, 1_000, 99, 1, 0, 1, 0, 10_025, 50, 0)


def test_json_text_and_the_object_it_stands_for_mean_the_same():
    assert event_of(json.dumps(PLACE)) == event_of(json.dumps(PLACE).encode()) == event_of(PLACE)


def test_market_buy_names_the_most_it_may_spend_and_is_immediate_or_cancel():
    data = {key: value for key, value in PLACE.items() if key != "price"} | {"order_type": "market", "max_spend": "60"}
    assert event_of(data) == PlaceOrder("a-1", 7, 1_000, 99, 1, 0, 0, 1, 0, 50, 600_000)


@pytest.mark.parametrize(
    ("data", "event"),
    [
        ({"type": "cancel", "request_id": "r", "symbol": "BTC-USD", "order_id": 5}, CancelOrder("r", 7, 1_000, 5, 1)),
        (
            {"type": "reduce", "request_id": "r", "symbol": "ETH-USD", "order_id": 5, "quantity": "0.02"},
            ReduceOrder("r", 7, 1_000, 5, 2, 2),
        ),
        (
            {
                "type": "replace",
                "request_id": "r",
                "symbol": "BTC-USD",
                "replaced_order_id": 5,
                "side": "sell",
                "time_in_force": "post_only",
                "price": "1",
                "quantity": "1",
            },
            ReplaceOrder("r", 7, 1_000, 99, 1, 5, 1, 3, 100, 100),
        ),
        ({"type": "deposit", "request_id": "r", "asset": "USD", "amount": "1.5"}, Deposit("r", 7, 1_000, 2, 15_000)),
        ({"type": "withdraw", "request_id": "r", "asset": "BTC", "amount": "1"}, Withdraw("r", 7, 1_000, 1, 10**8)),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_other_requests_become_their_events(data, event):
    assert event_of({"user_id": 7, **data}) == event


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"symbol": "GOLD-USD"}, "unknown symbol 'GOLD-USD'"),
        ({"price": "0"}, "greater than zero"),
        ({"price": "-1"}, "greater than zero"),
        ({"price": "NaN"}, "not a plain decimal"),
        ({"price": "1e400"}, "not a plain decimal"),
        ({"price": "1E+99999999999"}, "not a plain decimal"),
        ({"price": "1_000"}, "not a plain decimal"),
        ({"price": " 1"}, "not a plain decimal"),
        ({"price": "1\n"}, "not a plain decimal"),
        ({"price": "١"}, "not a plain decimal"),
        ({"price": "9" * 41}, "at most 40 characters"),
        ({"price": "9" * 30}, "does not fit a signed 64-bit column"),
        ({"price": "0.001"}, "not a multiple of the tick size"),
        ({"quantity": "0.001"}, "not a multiple of the lot size"),
        ({"price": 100.25}, "Expected `str | null`, got `float`"),
        ({"price": None}, "a limit order needs a price"),
        ({"quantity": None}, "Expected `str`, got `null`"),
        ({"max_spend": "1"}, "max_spend is for market buys only"),
        ({"order_type": "market"}, "a market order has no price"),
        ({"order_type": "market", "price": None}, "a market buy needs max_spend"),
        ({"order_type": "market", "price": None, "max_spend": "1", "time_in_force": "gtc"}, "does not rest"),
        ({"side": "short"}, "Invalid enum value 'short'"),
        ({"time_in_force": "day"}, "Invalid enum value 'day'"),
        ({"type": "steal"}, "Invalid value 'steal'"),
        ({"user_id": 0}, "user_id must be 1 to"),
        ({"user_id": 2**63}, "user_id must be 1 to"),
        ({"user_id": "7"}, "Expected `int`, got `str`"),
        ({"user_id": True}, "Expected `int`, got `bool`"),
        ({"client_order_id": ""}, "client_order_id must be 1 to 64"),
        ({"client_order_id": "x" * 65}, "client_order_id must be 1 to 64"),
        ({"client_order_id": "a b"}, "printable ASCII"),
        ({"client_order_id": "a\x00"}, "printable ASCII"),
        ({"client_order_id": "\ud800"}, "printable ASCII"),
        ({"colour": "red"}, "unknown field `colour`"),
    ],
)
def test_bad_field_is_refused_with_one_clear_line(change, words):
    with pytest.raises(RequestError) as caught:
        event_of(PLACE | change)
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("field", [name for name in PLACE if name not in ("price",)])
def test_missing_field_is_named(field):
    with pytest.raises(RequestError, match=f"missing required field `{field}`"):
        event_of({name: value for name, value in PLACE.items() if name != field})


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "0", "{", "{}", '"place"', "[" * 2_000, '{"type":' * 500, "\x00", '{"a": NaN}'],
)
def test_what_is_no_request_object_is_refused(text):
    with pytest.raises(RequestError):
        parse(text)


def test_request_that_is_too_long_is_refused_before_it_is_read():
    with pytest.raises(RequestError, match=f"at most {MAX_REQUEST_BYTES} bytes"):
        parse(b" " * (MAX_REQUEST_BYTES + 1))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    [*PLACE, "time_in_force", "max_spend", "request_id", "order_id", "replaced_order_id", "asset", "amount"]
)
WORDS = st.sampled_from(["place", "cancel", "reduce", "replace", "deposit", "withdraw", "buy", "limit", "market", "1"])


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(FIELDS, JSON | WORDS), st.booleans())
def test_hostile_object_is_a_request_that_can_be_sent_or_a_clean_error(changes, starts_from_a_good_one):
    data = {**PLACE, **changes} if starts_from_a_good_one else changes
    event, refusal = None, ""
    try:
        event = event_of(data)
    except RequestError as error:
        refusal = str(error)
    if event is not None:
        assert REQUEST.decode(encode(event)) == event  # type: ignore[arg-type]
    else:
        assert 0 < len(refusal) < 300
        assert refusal.isprintable()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200) | st.builds(json.dumps, JSON))
def test_hostile_bytes_are_a_clean_error(data):
    with pytest.raises(RequestError) as caught:
        parse(data)
    assert str(caught.value).isprintable()


@given(st.integers(1, INT64_MAX), st.integers(1, INT64_MAX))
def test_prices_and_quantities_survive_the_way_through_their_decimals(price, quantity):
    data = PLACE | {"price": BTC_USD.price_text(price), "quantity": BTC_USD.quantity_text(quantity)}
    event = event_of(data)
    assert isinstance(event, PlaceOrder)
    assert (event.price, event.quantity) == (price, quantity)


@given(st.sampled_from(list(SYMBOLS.assets.values())), st.integers(1, INT64_MAX))
def test_amounts_survive_the_way_through_their_decimals(asset, atoms):
    data = {
        "type": "deposit", "user_id": 1, "request_id": "d", "asset": asset.name, "amount": amount_text(asset, atoms)
    }  # fmt: skip
    event = event_of(data)
    assert isinstance(event, Deposit)
    assert event.amount == atoms


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-5, max_value=5))
def test_decimal_is_taken_exactly_or_not_at_all(value):
    try:
        event = event_of(PLACE | {"price": f"{value:f}"})
    except RequestError:
        assert value <= 0 or (value * 100) % 1 != 0
    else:
        assert isinstance(event, PlaceOrder)
        assert Decimal(event.price) / 100 == value


def test_message_stays_short_when_what_it_repeats_has_to_be_escaped() -> None:
    with pytest.raises(RequestError) as refused:
        parse({"type": "\U00010000" * 100})
    assert len(str(refused.value)) < 150
