"""CQL types: what Python value the driver takes, what a replica stores, how values are ordered, what the driver
returns.

A stored value is a plain Python object: int for the integer types, timestamps (milliseconds) and dates (days), str,
bool, bytes, UUID, Decimal, float, and the canonical bytes of a frozen collection. Values come in through the driver's
own serializers (`cassandra.cqltypes`), so a wrong Python type or a number out of range fails as it fails in
production; values of the exact usual type take a short cut in `sim.cassandra.binding`.

Not supported, refused with InvalidRequest: counter, duration, inet, tuples, user-defined types, vectors, and
collections that are not frozen.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache, total_ordering
from typing import Any
from uuid import UUID

from cassandra import cqltypes
from cassandra.marshal import int64_unpack, uint32_unpack
from cassandra.util import Date

from sim.cassandra import statements as st
from sim.cassandra.errors import invalid, syntax_error, unsupported

PROTOCOL_VERSION = 5
_EPOCH_OFFSET_DAYS = 2**31
_LARGEST_FLOAT = 3.4028235677973366e38

_WRONG_CONSTANT = {
    ("int", "INTEGER"): "Unable to make int from '{}'",
    ("bigint", "INTEGER"): "Unable to make long from '{}'",
    ("smallint", "INTEGER"): "Unable to make short from '{}'",
    ("tinyint", "INTEGER"): "Unable to make byte from '{}'",
    ("decimal", "FLOAT"): "unable to make BigDecimal from '{}'",
    ("timeuuid", "UUID"): "TimeUUID supports only version 1 UUIDs",
    ("timestamp", "STRING"): "Unable to parse a date/time from '{}'",
    ("timestamp", "INTEGER"): "Unable to make long (for date) from: '{}'",
    ("date", "STRING"): "Unable to coerce '{}' to a formatted date (long)",
    ("date", "INTEGER"): "Unable to make unsigned int (for date) from: '{}'",
}
"""What the server says of a constant of the right kind that does not fit."""


@total_ordering
class Descending:
    """A sort key turned round, for clustering columns in descending order whose keys cannot be negated."""

    __slots__ = ("key",)

    def __init__(self, key: Any) -> None:
        self.key = key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Descending) and bool(self.key == other.key)

    def __lt__(self, other: Descending) -> bool:
        return bool(other.key < self.key)

    def __hash__(self) -> int:
        return hash(self.key)


@dataclass(frozen=True, slots=True, eq=False)
class CqlType:
    """One type.

    `exact` is the Python type whose values are stored as they are (after a range check by the struct code `pack_code`,
    where there is one); None means that every value goes through the driver's serializer. `literals` are the kinds of
    constant that may be written for it.
    """

    name: str
    driver: Any
    exact: type | None
    pack_code: str
    literals: frozenset[str]
    from_bytes: Callable[[bytes], Any]
    to_python: Callable[[Any], Any] | None = None
    sort_key: Callable[[Any], Any] | None = None
    negatable: bool = False
    key_allowed: bool = True
    to_driver: Callable[[Any], Any] | None = None
    element_types: tuple[CqlType, ...] = ()

    def from_bound(self, value: object) -> Any:
        """A bound Python value as it is stored. Raises what the driver's serializer raises (TypeError, struct.error,
        ...)."""
        return self.from_bytes(self.driver.serialize(value, PROTOCOL_VERSION))

    def to_bytes(self, value: Any) -> bytes:
        """A stored value in Cassandra's own serialization: for tokens and for breaking ties between equal
        timestamps."""
        return bytes(
            self.driver.serialize(value if self.to_driver is None else self.to_driver(value), PROTOCOL_VERSION)
        )

    def from_literal(self, literal: st.Literal, receiver: str) -> Any:
        """A constant of the text as it is stored; InvalidRequest when it is of the wrong kind or does not fit."""
        if literal.kind not in self.literals:
            shown = f"0x{literal.text}" if literal.kind == "HEX" else literal.text
            raise invalid(f'Invalid {literal.kind} constant ({shown}) for "{receiver}" of type {self.name}')
        try:
            return self.from_bound(_literal_value(self.name, literal))
        except (ValueError, TypeError, InvalidOperation, ArithmeticError, struct.error) as error:
            if literal.kind == "HEX":
                raise invalid(f"cannot parse '{literal.text}' as hex bytes") from None
            said = _WRONG_CONSTANT.get((self.name, literal.kind))
            if said is not None:
                raise invalid(said.format(literal.text)) from None
            raise invalid(f"Unable to make {self.name} from '{literal.text}' ({error})") from None


def _literal_value(type_name: str, literal: st.Literal) -> object:
    text = literal.text
    if literal.kind == "INTEGER":
        if type_name == "date":
            return int(text)
        return Decimal(text) if type_name == "decimal" else int(text)
    if literal.kind == "FLOAT":
        if type_name == "decimal":
            value = Decimal(text)
            if not value.is_finite():
                raise ValueError("not a number")
            return value
        number = float(text)
        if math.isinf(number) and "Infinity" not in text:
            raise syntax_error(f"Failed parsing statement: {text}")
        if type_name == "float" and math.isfinite(number) and abs(number) > _LARGEST_FLOAT:
            return math.copysign(math.inf, number)  # as Java rounds it
        return number
    if literal.kind == "UUID":
        uuid = UUID(text)
        if type_name == "timeuuid" and uuid.version != 1:
            raise ValueError("not of version 1")
        return uuid
    if literal.kind == "HEX":
        return bytes.fromhex(text)
    if literal.kind == "BOOLEAN":
        return text == "true"
    if type_name == "timestamp":
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return text


def _uuid_key(value: UUID) -> tuple[int, int, bytes]:
    """UUIDType's order: by version, then time for version 1, then unsigned bytes."""
    return (value.version or 0, value.time if value.version == 1 else 0, value.bytes)


def _signed_bytes(value: UUID) -> tuple[int, tuple[int, ...]]:
    """TimeUUIDType's order: by time, then by the signed bytes of the lower half."""
    return (value.time, tuple(byte - 256 if byte > 127 else byte for byte in value.bytes[8:]))


def _same(value: Any) -> Any:
    return value


def _integer(name: str, driver: Any, pack_code: str) -> CqlType:
    return CqlType(
        name,
        driver,
        int,
        pack_code,
        frozenset({"INTEGER"}),
        lambda raw: int(driver.deserialize(raw, PROTOCOL_VERSION)),
        negatable=True,
    )


def _plain(name: str, driver: Any, exact: type | None, literals: str, **more: Any) -> CqlType:
    return CqlType(
        name,
        driver,
        exact,
        "",
        frozenset(literals.split()),
        lambda raw: driver.deserialize(raw, PROTOCOL_VERSION),
        **more,
    )


_SIMPLE: dict[str, CqlType] = {
    kind.name: kind
    for kind in (
        _integer("bigint", cqltypes.LongType, "q"),
        _integer("int", cqltypes.Int32Type, "i"),
        _integer("smallint", cqltypes.ShortType, "h"),
        _integer("tinyint", cqltypes.ByteType, "b"),
        _integer("varint", cqltypes.IntegerType, ""),
        _plain("text", cqltypes.VarcharType, None, "STRING"),
        _plain("ascii", cqltypes.AsciiType, None, "STRING"),
        _plain("boolean", cqltypes.BooleanType, bool, "BOOLEAN"),
        CqlType("blob", cqltypes.BytesType, bytes, "", frozenset({"HEX"}), _same),
        CqlType(
            "timestamp",
            cqltypes.DateType,
            None,
            "",
            frozenset({"INTEGER", "STRING"}),
            int64_unpack,
            to_python=lambda value: cqltypes.DateType.deserialize(
                value.to_bytes(8, "big", signed=True), PROTOCOL_VERSION
            ),
            negatable=True,
        ),
        CqlType(
            "date",
            cqltypes.SimpleDateType,
            None,
            "",
            frozenset({"INTEGER", "STRING"}),
            lambda raw: uint32_unpack(raw) - _EPOCH_OFFSET_DAYS,
            to_python=Date,
            negatable=True,
            to_driver=Date,
        ),
        _plain("uuid", cqltypes.UUIDType, UUID, "UUID", sort_key=_uuid_key),
        _plain("timeuuid", cqltypes.TimeUUIDType, UUID, "UUID", sort_key=_signed_bytes),
        _plain("decimal", cqltypes.DecimalType, None, "INTEGER FLOAT", key_allowed=False),
        _plain("double", cqltypes.DoubleType, None, "INTEGER FLOAT", key_allowed=False),
        _plain("float", cqltypes.FloatType, None, "INTEGER FLOAT", key_allowed=False),
    )
}
# Text is stored as str. A str with a lone surrogate cannot be encoded, so the driver's encoder is always asked: it is
# the range check of text, and `binding` calls it through `str.encode`.
TEXT = _SIMPLE["varchar"] = _SIMPLE["text"]


CQL_TYPES = frozenset(_SIMPLE) | {
    "counter",
    "duration",
    "frozen",
    "inet",
    "list",
    "map",
    "set",
    "time",
    "tuple",
    "vector",
}
"""Every type that CQL has, simulated or not."""


@lru_cache(maxsize=256)
def cql_type(written: st.TypeName) -> CqlType:
    """The type of that name. Raises InvalidRequest for what is not supported."""
    name = written.name.lower()
    if name == "frozen" and len(written.parameters) == 1:
        return _collection(written.parameters[0])
    if written.parameters or name in ("list", "set", "map"):
        raise unsupported(f"the type {written}, which is not frozen,")
    simple = _SIMPLE.get(name)
    if simple is None:
        raise unsupported(f"the type {written}")
    return simple


def _collection(written: st.TypeName) -> CqlType:
    name = written.name.lower()
    sizes = {"list": 1, "set": 1, "map": 2}
    if sizes.get(name) != len(written.parameters):
        raise unsupported(f"the type frozen<{written}>")
    elements = tuple(cql_type(each) for each in written.parameters)
    base = {"list": cqltypes.ListType, "set": cqltypes.SetType, "map": cqltypes.MapType}[name]
    driver = base.apply_parameters([element.driver for element in elements])

    def canonical(raw: bytes) -> bytes:
        """Sets and maps are kept in the order of their keys, as the server rewrites them."""
        value = driver.deserialize(raw, PROTOCOL_VERSION)
        if name == "set":
            value = sorted(value, key=elements[0].sort_key)
        elif name == "map":
            key = elements[0].sort_key or _same
            value = dict(sorted(value.items(), key=lambda item: key(item[0])))
        return bytes(driver.serialize(value, PROTOCOL_VERSION))

    def to_python(value: bytes) -> object:
        return driver.deserialize(value, PROTOCOL_VERSION)

    return CqlType(
        f"frozen<{written}>",
        driver,
        None,
        "",
        frozenset(),
        canonical,
        to_python=to_python,
        key_allowed=False,
        to_driver=to_python,
        element_types=elements,
    )


__all__ = ["CQL_TYPES", "PROTOCOL_VERSION", "CqlType", "Descending", "cql_type"]
