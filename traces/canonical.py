"""The checker's own msgpack encoder, by which it recomputes the hashes of chained records (design 4.1.1 and 7).

Deliberately not the encoder that the services use, and without knowledge of any event: a record's content is decoded
to plain lists, integers, texts, booleans and None, encoded again by the rules of the msgpack specification (always the
shortest form), and hashed. A record whose trailer is that hash holds all that it says, and says it canonically.
https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from struct import pack
from typing import Final

import msgspec
from xxhash import xxh3_64_intdigest

HASH_BYTES: Final = 8
_decode = msgspec.msgpack.Decoder().decode

_PLAIN: Final = frozenset((int, str, type(None)))
_REMEMBERED_MAX: Final = 1 << 16


class NotCanonicalError(ValueError):
    """A value that a record cannot hold."""


class _Scalars(dict[object, bytes]):
    """Encodings of integers, texts and None, remembered: the same ids and times stand in a record over and over.

    Booleans must not be looked up here: True equals 1, and its encoding does not.
    """

    def __missing__(self, value: object) -> bytes:
        if value is None:
            encoded = b"\xc0"
        elif isinstance(value, int):
            encoded = _integer(value)
        else:
            data = str(value).encode()
            encoded = _text_header(len(data)) + data
        if len(self) >= _REMEMBERED_MAX:
            self.clear()
        self[value] = encoded
        return encoded


class CanonicalEncoder:
    """Encodes lists, integers, texts, bytes, booleans and None as canonical msgpack."""

    def __init__(self) -> None:
        self._scalar = _Scalars().__getitem__

    def encode(self, value: object) -> bytes:
        """The value's canonical bytes. Raises NotCanonicalError for what a record cannot hold."""
        kind = type(value)
        if kind in _PLAIN:
            return self._scalar(value)
        if isinstance(value, list):
            scalar = self._scalar
            kinds = set(map(type, value))
            if kinds <= _PLAIN:
                return _array_header(len(value)) + b"".join(map(scalar, value))
            encode = self.encode
            return _array_header(len(value)) + b"".join(
                [scalar(each) if type(each) is int else encode(each) for each in value]
            )
        if isinstance(value, bool):
            return b"\xc3" if value else b"\xc2"
        if isinstance(value, bytes):
            return _binary_header(len(value)) + value
        raise NotCanonicalError(f"a record cannot hold a {kind.__name__}")

    def recomputed_hash(self, record: bytes) -> int | None:
        """The signed hash of a record's version byte and re-encoded content; None when it is not msgpack at all."""
        try:
            body = self.encode(_decode(memoryview(record)[1:-HASH_BYTES]))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, NotCanonicalError):
            return None
        return as_signed(xxh3_64_intdigest(record[:1] + body))


def content_hash(record: bytes) -> int:
    """The signed hash of a record's bytes before its trailer, as they are."""
    return as_signed(xxh3_64_intdigest(record[:-HASH_BYTES]))


def as_signed(value: int) -> int:
    """An unsigned 64-bit integer as the signed one with the same bits."""
    return value - (1 << 64) if value >> 63 else value


def _integer(value: int) -> bytes:
    if value >= 0:
        if value < 0x80:
            return pack(">B", value)
        if value <= 0xFF:
            return pack(">BB", 0xCC, value)
        if value <= 0xFFFF:
            return pack(">BH", 0xCD, value)
        if value <= 0xFFFF_FFFF:
            return pack(">BI", 0xCE, value)
        if value < 1 << 64:
            return pack(">BQ", 0xCF, value)
    elif value >= -32:
        return pack(">b", value)
    elif value >= -0x80:
        return pack(">Bb", 0xD0, value)
    elif value >= -0x8000:
        return pack(">Bh", 0xD1, value)
    elif value >= -0x8000_0000:
        return pack(">Bi", 0xD2, value)
    elif value >= -(1 << 63):
        return pack(">Bq", 0xD3, value)
    raise NotCanonicalError(f"{value} has more than 64 bits")


def _array_header(length: int) -> bytes:
    if length < 16:
        return pack(">B", 0x90 | length)
    return pack(">BH", 0xDC, length) if length < 1 << 16 else pack(">BI", 0xDD, length)


def _text_header(length: int) -> bytes:
    if length < 32:
        return pack(">B", 0xA0 | length)
    if length < 1 << 8:
        return pack(">BB", 0xD9, length)
    return pack(">BH", 0xDA, length) if length < 1 << 16 else pack(">BI", 0xDB, length)


def _binary_header(length: int) -> bytes:
    if length < 1 << 8:
        return pack(">BB", 0xC4, length)
    return pack(">BH", 0xC5, length) if length < 1 << 16 else pack(">BI", 0xC6, length)
