"""The wire codec: how events become record values, and how tampering shows (design sections 4.1.1, 4.2.3, 4.3.5).

    value = version (1 byte) | msgpack array | xxh3_64 of all before it (8 bytes, big-endian)

Encoding is canonical: the same event gives the same bytes. The trailing hash of a chained event is what the next one
carries as `prev_hash`; hashes are kept as signed 64-bit integers, as a bigint column stores them. Decoding raises
WireError with a reason and never anything else, whatever the bytes.
"""

import struct
from typing import Any, Final, Generic, TypeVar, get_args

import msgspec
from xxhash import xxh3_64_digest, xxh3_64_intdigest

from schema.events import (
    AnyRequest,
    BalanceEvent,
    DeadLetter,
    EngineOutput,
    FundUpdate,
    GatewaySession,
    OrderResponse,
    PlaceOrder,
    ReplaceOrder,
    ValidatedOrder,
)
from schema.identifiers import INT64_MAX

WIRE_VERSION: Final = 2
GENESIS_HASH: Final = 0
"""`prev_hash` of the first record of a chain."""

_VERSION_BYTE: Final = bytes([WIRE_VERSION])
_HASH_BYTES: Final = 8
_signed_hash = struct.Struct(">q").unpack
_encode = msgspec.msgpack.Encoder().encode

T = TypeVar("T")


class WireError(ValueError):
    """Bytes that are not a record of the expected kind; the message says what is wrong with them."""


def signed(value: int) -> int:
    """An unsigned 64-bit hash as the signed integer that a bigint column holds."""
    return value if value <= INT64_MAX else value - 2**64


def seal(event: msgspec.Struct) -> tuple[bytes, int]:
    """Encode an event; returns the record value and its (signed) hash."""
    body = _VERSION_BYTE + _encode(event)
    digest = xxh3_64_digest(body)
    return body + digest, _signed_hash(digest)[0]


def encode(event: msgspec.Struct) -> bytes:
    """Encode an event as a record value."""
    body = _VERSION_BYTE + _encode(event)
    return body + xxh3_64_digest(body)


class Codec(Generic[T]):
    """Decodes the record values of one kind of event."""

    def __init__(self, kind: Any, name: str) -> None:
        self._decode = msgspec.msgpack.Decoder(kind).decode
        self.name = name

    def decode(self, value: bytes | None) -> T:
        """The event in a record value. Raises WireError."""
        if value is None:
            raise WireError(f"{self.name}: the record has no value")
        # Every record of the system comes by here, most of them several times: what is wrong is found out when it is.
        body = value[:-_HASH_BYTES]
        if body[:1] != _VERSION_BYTE or xxh3_64_digest(body) != value[-_HASH_BYTES:]:
            raise self._refusal(value)
        try:
            event: T = self._decode(body[1:])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise WireError(f"{self.name}: {error}") from None
        return event

    def _refusal(self, value: bytes) -> WireError:
        """What is wrong with bytes that are not sealed as a record is."""
        if len(value) < 1 + _HASH_BYTES:
            return WireError(f"{self.name}: {len(value)} bytes are too few for a record")
        if value[0] != WIRE_VERSION:
            return WireError(f"{self.name}: wire version {value[0]}, this code reads version {WIRE_VERSION}")
        return WireError(f"{self.name}: the hash does not match the content")

    def unseal(self, value: bytes | None) -> tuple[T, int]:
        """The event in a record value, and its (signed) hash. Raises WireError."""
        event = self.decode(value)
        assert value is not None
        return event, _signed_hash(value[-_HASH_BYTES:])[0]


REQUEST: Final[Codec[AnyRequest]] = Codec(AnyRequest, "order request")
VALIDATED_ORDER: Final[Codec[ValidatedOrder]] = Codec(ValidatedOrder, "validated order")
ENGINE_OUTPUT: Final[Codec[EngineOutput]] = Codec(EngineOutput, "engine output")
FUND_UPDATE: Final[Codec[FundUpdate]] = Codec(FundUpdate, "fund update")
BALANCE_EVENT: Final[Codec[BalanceEvent]] = Codec(BalanceEvent, "balance event")
ORDER_RESPONSE: Final[Codec[OrderResponse]] = Codec(OrderResponse, "order response")
DEAD_LETTER: Final[Codec[DeadLetter]] = Codec(DeadLetter, "dead letter")
GATEWAY_SESSION: Final[Codec[GatewaySession]] = Codec(GatewaySession, "gateway session")


def body_hash(request: AnyRequest) -> int:
    """A hash of what a request asks for, without what a gateway adds to it (order id of a new order, time).

    Two attempts of one client request hash alike at any gateway; another body under the same request id does not
    (design section 4.7).
    """
    name, blanks = _BODY_PARTS[type(request)]
    fields = list(msgspec.structs.astuple(request))
    for place in blanks:
        fields[place] = 0
    return signed(xxh3_64_intdigest(_encode([name, fields])))


def _places_of_gateway_fields(kind: type[msgspec.Struct]) -> tuple[int, ...]:
    names = kind.__struct_fields__
    # For a place or replace the gateway assigns `order_id`; for a cancel or reduce the client names it.
    assigned = ("requested_at_ns", "order_id") if kind in (PlaceOrder, ReplaceOrder) else ("requested_at_ns",)
    return tuple(names.index(name) for name in assigned)


# Every request is hashed: the places of the fields are looked for once.
_BODY_PARTS: Final = {kind: (kind.__name__, _places_of_gateway_fields(kind)) for kind in get_args(AnyRequest)}
