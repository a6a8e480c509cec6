"""Record values: every event comes back as it was, and nothing else comes back (design sections 4.1.1 and 4.4.2)."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64_digest, xxh3_64_intdigest

from schema import events, wire
from schema.codes import OrderType, Side, TimeInForce
from schema.identifiers import INT64_MAX, AssetId, OrderId, SymbolId, UserId
from schema.wire import Codec, WireError
from tests.schema.event_strategies import values_of

CODECS: list[tuple[Codec[object], object]] = [
    (wire.REQUEST, events.AnyRequest),
    (wire.VALIDATED_ORDER, events.ValidatedOrder),
    (wire.ENGINE_OUTPUT, events.EngineOutput),
    (wire.FUND_UPDATE, events.FundUpdate),
    (wire.BALANCE_EVENT, events.BalanceEvent),
    (wire.ORDER_RESPONSE, events.OrderResponse),
    (wire.DEAD_LETTER, events.DeadLetter),
    (wire.GATEWAY_SESSION, events.GatewaySession),
]
each_codec = pytest.mark.parametrize(("codec", "kind"), CODECS, ids=[codec.name for codec, _ in CODECS])

LETTER = events.DeadLetter("order.requests", 3, 17, "not an order request", b"\xff\x00")
PLACE = events.PlaceOrder(
    "r-1",
    UserId(7),
    1_000,
    OrderId(70),
    SymbolId(1),
    int(Side.BUY),
    int(OrderType.LIMIT),
    int(TimeInForce.GTC),
    100,
    5,
    0,
)


def resealed(body: bytes) -> bytes:
    """A value with a right hash, whatever its content."""
    return body + xxh3_64_digest(body)


def test_every_codec_is_tested() -> None:
    codecs = [value for value in vars(wire).values() if isinstance(value, Codec)]
    assert codecs == [codec for codec, _ in CODECS]


@each_codec
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_event_comes_back_as_it_was(codec: Codec[object], kind: object, data: st.DataObject) -> None:
    event = data.draw(values_of(kind))
    assert isinstance(event, msgspec.Struct)
    value, value_hash = wire.seal(event)
    assert wire.encode(event) == value
    decoded, decoded_hash = codec.unseal(value)
    assert decoded == event
    assert type(decoded) is type(event)
    assert decoded_hash == value_hash
    assert codec.decode(value) == event
    assert wire.encode(decoded) == value


@each_codec
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_changed_byte_is_a_wire_error(codec: Codec[object], kind: object, data: st.DataObject) -> None:
    event = data.draw(values_of(kind))
    assert isinstance(event, msgspec.Struct)
    value = bytearray(wire.encode(event))
    place = data.draw(st.integers(0, len(value) - 1))
    value[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(WireError, match=codec.name):
        codec.decode(bytes(value))


@each_codec
@settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=60))
def test_bytes_with_a_right_hash_give_an_event_or_a_wire_error(
    codec: Codec[object], kind: object, content: bytes
) -> None:
    try:
        decoded = codec.decode(resealed(b"\x02" + content))
    except WireError:
        return
    assert isinstance(decoded, msgspec.Struct)


@each_codec
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_truncated_or_extended_content_is_a_wire_error(codec: Codec[object], kind: object, data: st.DataObject) -> None:
    event = data.draw(values_of(kind))
    assert isinstance(event, msgspec.Struct)
    body = wire.encode(event)[:-8]
    cut = data.draw(st.integers(1, len(body) - 1))
    for wrong in (body[:cut], body + b"\x00"):
        with pytest.raises(WireError):
            codec.decode(resealed(wrong))


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (None, "no value"),
        (b"", "too few"),
        (b"\x02\x90\x00\x00\x00\x00\x00\x00", "too few"),
        (resealed(b"\x01\x90"), "wire version 1"),
        (resealed(b"\x02\xc0"), "Expected"),
        (b"\x02" + b"\x00" * 8, "hash does not match"),
        (resealed(b"\x02" + b"\x91" * 100_000), "dead letter"),
        (resealed(b"\x02" + msgspec.msgpack.encode(["t", 0, 0]) + b"\x00"), "dead letter"),
        (resealed(b"\x02" + b"\x95\xa1\xff\x00\x00\xa0\xc4\x00"), "dead letter"),
    ],
    ids=["tombstone", "empty", "short", "version", "nil", "hash", "deep", "fields missing", "not utf-8"],
)
def test_value_that_is_no_record_tells_why(value: bytes | None, complaint: str) -> None:
    with pytest.raises(WireError, match=complaint):
        wire.DEAD_LETTER.decode(value)


def test_record_of_another_kind_is_a_wire_error() -> None:
    with pytest.raises(WireError, match="fund update"):
        wire.FUND_UPDATE.decode(wire.encode(LETTER))


def test_value_is_the_version_the_content_and_its_hash() -> None:
    value, value_hash = wire.seal(LETTER)
    assert value[:1] == b"\x02"
    assert msgspec.msgpack.decode(value[1:-8]) == ["order.requests", 3, 17, "not an order request", b"\xff\x00"]
    assert int.from_bytes(value[-8:], "big") == xxh3_64_intdigest(value[:-8])
    assert value_hash == wire.signed(xxh3_64_intdigest(value[:-8]))


@pytest.mark.parametrize(
    ("unsigned", "expected"), [(0, 0), (INT64_MAX, INT64_MAX), (INT64_MAX + 1, -INT64_MAX - 1), (2**64 - 1, -1)]
)
def test_hash_is_kept_as_a_bigint_column_holds_it(unsigned: int, expected: int) -> None:
    assert wire.signed(unsigned) == expected


def test_retry_of_a_place_hashes_alike_at_any_gateway() -> None:
    retry = msgspec.structs.replace(PLACE, order_id=OrderId(99), requested_at_ns=2_000)
    assert wire.body_hash(retry) == wire.body_hash(PLACE)


@pytest.mark.parametrize("name", ["request_id", "user_id", "symbol_id", "side", "price", "quantity", "max_spend"])
def test_any_other_field_of_a_place_changes_its_body_hash(name: str) -> None:
    value = getattr(PLACE, name)
    other = msgspec.structs.replace(PLACE, **{name: value + "x" if isinstance(value, str) else value + 1})
    assert wire.body_hash(other) != wire.body_hash(PLACE)


def test_order_that_a_cancel_or_reduce_names_is_part_of_its_body() -> None:
    for make in (
        lambda order_id: events.CancelOrder("r", UserId(7), 1, OrderId(order_id), SymbolId(1)),
        lambda order_id: events.ReduceOrder("r", UserId(7), 1, OrderId(order_id), SymbolId(1), 3),
    ):
        assert wire.body_hash(make(1)) != wire.body_hash(make(2))


def test_order_that_a_replace_names_is_part_of_its_body_but_its_own_new_id_is_not() -> None:
    def replace(order_id: int, replaced: int) -> events.ReplaceOrder:
        return events.ReplaceOrder("r", UserId(7), 1, OrderId(order_id), SymbolId(1), OrderId(replaced), 0, 0, 9, 9)

    assert wire.body_hash(replace(1, 5)) == wire.body_hash(replace(2, 5))
    assert wire.body_hash(replace(1, 5)) != wire.body_hash(replace(1, 6))


def test_requests_of_two_kinds_never_hash_alike_for_having_the_same_fields() -> None:
    deposit = events.Deposit("r", UserId(7), 1, AssetId(1), 5)
    withdraw = events.Withdraw("r", UserId(7), 1, AssetId(1), 5)
    assert wire.body_hash(deposit) != wire.body_hash(withdraw)
