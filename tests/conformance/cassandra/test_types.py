"""Types: what comes back, what does not fit, and how values are ordered."""

from __future__ import annotations

import math
import uuid
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from cassandra.util import Date

COLUMNS = (
    "p int PRIMARY KEY, bigint_ bigint, int_ int, small smallint, tiny tinyint, var varint, text_ text, ascii_ ascii, "
    "bool_ boolean, blob_ blob, at timestamp, day date, uuid_ uuid, tuuid timeuuid, dec decimal, dbl double, "
    "flt float, l frozen<list<int>>, s frozen<set<text>>, m frozen<map<text, bigint>>"
)

TIME_UUID = uuid.UUID("f4a1c6a0-0000-11ee-8000-000000000001")


@pytest.fixture
def typed(make_partition):
    return make_partition(COLUMNS)


def round_trip(t, column, value):
    t.bound(f"INSERT INTO $t (p, {column}) VALUES (?, ?)", (t.key, value))
    return t.run(f"SELECT {column} FROM $t WHERE p = $p")[0][0]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *[("bigint_", v) for v in (0, -1, 2**63 - 1, -(2**63))],
        *[("int_", v) for v in (0, -1, 2**31 - 1, -(2**31))],
        *[("small", v) for v in (2**15 - 1, -(2**15))],
        *[("tiny", v) for v in (127, -128)],
        *[("var", v) for v in (0, -1, 128, -129, 2**100, -(2**100))],
        *[("text_", v) for v in ("", "a", "é€😀", "a\x00b", "x" * 10_000)],
        *[("ascii_", v) for v in ("", "plain")],
        *[("bool_", v) for v in (True, False)],
        *[("blob_", v) for v in (b"", b"\x00\xff", b"x" * 10_000)],
        *[("uuid_", v) for v in (uuid.UUID(int=0), uuid.UUID(int=2**128 - 1), TIME_UUID)],
        ("tuuid", TIME_UUID),
        *[("dec", v) for v in (Decimal("1.50"), Decimal("-0.0000001"), Decimal("1E+20"), Decimal(0))],
        *[("dbl", v) for v in (0.5, -1e308, 5e-324, math.inf, -math.inf)],
        *[("flt", v) for v in (0.5, -0.25, math.inf)],
    ],
)
def test_values_come_back_as_they_went(typed, column, value):
    assert round_trip(typed, column, value) == value


def test_moments(typed):
    aware = datetime(2030, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    assert round_trip(typed, "at", aware) == aware.replace(tzinfo=None)
    assert round_trip(typed, "at", aware.replace(tzinfo=None)) == aware.replace(tzinfo=None)
    assert round_trip(typed, "at", 0) == datetime(1970, 1, 1)  # noqa: DTZ001 - the driver gives naive ones
    assert round_trip(typed, "at", -1) == datetime(1969, 12, 31, 23, 59, 59, 999000)  # noqa: DTZ001
    assert round_trip(typed, "at", date(2030, 1, 2)) == datetime(2030, 1, 2)  # noqa: DTZ001
    # Microseconds do not fit a timestamp.
    assert round_trip(typed, "at", datetime(2030, 1, 1, 0, 0, 0, 1999, tzinfo=UTC)) == datetime(  # noqa: DTZ001
        2030, 1, 1, 0, 0, 0, 1000
    )


def test_days(typed):
    assert round_trip(typed, "day", date(2030, 1, 2)) == Date("2030-01-02")
    assert round_trip(typed, "day", "1969-12-31") == Date(-1)
    assert str(round_trip(typed, "day", Date(-(2**31)))) == str(Date(-(2**31)))


def test_not_a_number(typed):
    assert math.isnan(round_trip(typed, "dbl", math.nan))


def test_collections(typed):
    assert list(round_trip(typed, "l", [3, 1, 1])) == [3, 1, 1]
    assert list(round_trip(typed, "s", {"b", "a"})) == ["a", "b"]
    assert dict(round_trip(typed, "m", {"k": 1, "a": 2})) == {"a": 2, "k": 1}
    assert list(round_trip(typed, "l", [])) == []


def test_literals(typed):
    typed.run(
        "INSERT INTO $t (p, bigint_, var, text_, bool_, blob_, at, day, uuid_, dec, dbl, l, s, m) VALUES ($p, -5, "
        "12345678901234567890123, $$it's$$, TRUE, 0xCAfe, '2030-01-02 03:04:05.678+0000', '2030-01-02', "
        "00000000-0000-0000-0000-000000000005, 1.50, 1e3, [3, 1], {'b', 'a'}, {'k': 1})"
    )
    names = "bigint_, var, text_, bool_, blob_, at, day, uuid_, dec, dbl, l, s, m"
    row = list(typed.run(f"SELECT {names} FROM $t WHERE p = $p")[0])
    assert row[:5] == [-5, 12345678901234567890123, "it's", True, b"\xca\xfe"]
    assert row[5] == datetime(2030, 1, 2, 3, 4, 5, 678000)  # noqa: DTZ001 - the driver gives naive ones
    assert str(row[6]) == "2030-01-02"
    assert row[7:10] == [uuid.UUID(int=5), Decimal("1.50"), 1000.0]
    assert (list(row[10]), list(row[11]), dict(row[12])) == ([3, 1], ["a", "b"], {"k": 1})


@pytest.mark.parametrize(
    ("column", "literal"),
    [
        ("at", "1893553445678"),
        ("at", "'2030-01-02T03:04:05.678Z'"),
        ("at", "'2030-01-02 03:04:05.678+0000'"),
        ("at", "'2030-01-02T05:04:05.678+0200'"),
        ("day", "'2030-01-02'"),
        ("day", "2147505550"),
        ("dec", "15"),
        ("dec", "1.5e1"),
        ("flt", "-1"),
        ("flt", "NaN"),
        ("dbl", "-Infinity"),
        ("var", "-0"),
        ("blob_", "0X00"),
        ("text_", "'a''b'"),
    ],
)
def test_spellings_of_constants(typed, column, literal):
    """Both sides read them alike: the bound value that is the same is found in the text of the expectation."""
    expected = {
        "1893553445678": datetime(2030, 1, 2, 3, 4, 5, 678000),  # noqa: DTZ001
        "'2030-01-02T03:04:05.678Z'": datetime(2030, 1, 2, 3, 4, 5, 678000),  # noqa: DTZ001
        "'2030-01-02 03:04:05.678+0000'": datetime(2030, 1, 2, 3, 4, 5, 678000),  # noqa: DTZ001
        "'2030-01-02T05:04:05.678+0200'": datetime(2030, 1, 2, 3, 4, 5, 678000),  # noqa: DTZ001
        "'2030-01-02'": Date("2030-01-02"),
        "2147505550": Date(21902),
        "15": Decimal(15),
        "1.5e1": Decimal("15"),
        "-1": -1.0,
        "-Infinity": -math.inf,
        "-0": 0,
        "0X00": b"\x00",
        "'a''b'": "a'b",
    }
    typed.run(f"INSERT INTO $t (p, {column}) VALUES ($p, {literal})")
    ((found,),) = typed.run(f"SELECT {column} FROM $t WHERE p = $p")
    if literal == "NaN":
        assert math.isnan(found)
    else:
        assert found == expected[literal]


def test_constants_beyond_a_float_are_infinite(typed):
    typed.run("INSERT INTO $t (p, flt) VALUES ($p, -1e300)")
    assert typed.run("SELECT flt FROM $t WHERE p = $p") == [(-math.inf,)]


@pytest.mark.parametrize(
    ("column", "constant", "message"),
    [
        ("l", "[null]", "null is not supported inside collections"),
        ("s", "{null}", "null is not supported inside collections"),
        ("m", "{'a': null}", "null is not supported inside collections"),
        ("l", "['x']", "Invalid list literal for l: value 'x' is not of type int"),
        ("s", "{1}", "Invalid set literal for s: value 1 is not of type text"),
        ("m", "{'a': 'b'}", "Invalid map literal for m: value 'b' is not of type bigint"),
        ("s", "['x']", "Unexpected receiver type 'frozen<set<text>>'; only list and vector are expected"),
        ("tuuid", "00000000-0000-4000-8000-000000000000", "TimeUUID supports only version 1 UUIDs"),
        ("at", "'x'", "Unable to parse a date/time from 'x'"),
        ("at", "'2030-13-01'", "Unable to parse a date/time from '2030-13-01'"),
        ("at", "99999999999999999999", "Unable to make long (for date) from: '99999999999999999999'"),
        ("day", "'2030-02-30'", "Unable to coerce '2030-02-30' to a formatted date (long)"),
        ("day", "-1", "Unable to make unsigned int (for date) from: '-1'"),
        ("small", "40000", "Unable to make short from '40000'"),
        ("tiny", "200", "Unable to make byte from '200'"),
        ("dec", "NaN", "unable to make BigDecimal from 'NaN'"),
        ("text_", "0x00", 'Invalid HEX constant (0x00) for "text_" of type text'),
    ],
)
def test_constants_that_do_not_fit(typed, column, constant, message):
    assert typed.refuse(f"INSERT INTO $t (p, {column}) VALUES ($p, {constant})") == ("InvalidRequest", message)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("int", [-2, -1, 0, 1, 2]),
        ("bigint", [-(2**63), -1, 0, 2**63 - 1]),
        ("varint", [-(2**70), -1, 0, 200, 2**70]),
        ("tinyint", [-128, -1, 0, 127]),
        ("text", ["", "A", "B", "a", "aa", "é", "€", "😀"]),
        ("ascii", ["", "A", "a"]),
        ("boolean", [False, True]),
        ("blob", [b"", b"\x00", b"\x00\x00", b"\x7f", b"\x80", b"\xff"]),
        ("timestamp", [-1, 0, 1]),
        ("date", ["1969-12-31", "1970-01-01", "2030-01-01"]),
        (
            "uuid",
            [
                uuid.UUID(int=0),
                uuid.UUID(int=2**127),
                TIME_UUID,
                uuid.UUID("f4a1c6a1-0000-11ee-8000-000000000000"),
                uuid.UUID("00000000-0000-4000-8000-000000000000"),
                uuid.UUID("ffffffff-0000-4000-8000-000000000000"),
            ],
        ),
        (
            "timeuuid",
            [
                uuid.UUID("f4a1c6a0-0000-11ee-8000-000000000001"),
                uuid.UUID("f4a1c6a0-0000-11ee-8001-000000000001"),
                uuid.UUID("f4a1c6a0-0000-11ee-8001-0000000000ff"),
                uuid.UUID("f4a1c6a1-0000-11ee-8000-000000000000"),
            ],
        ),
    ],
)
@pytest.mark.parametrize("descending", [False, True])
def test_order_of_clustering_values(make_partition, kind, values, descending):
    """`values` need not be in order: the two sides must agree, and the reversed order be the reverse."""
    options = "WITH CLUSTERING ORDER BY (c DESC)" if descending else ""
    t = make_partition(f"p int, c {kind}, n int, PRIMARY KEY (p, c)", options)
    for number, value in enumerate(values):
        t.bound("INSERT INTO $t (p, c, n) VALUES (?, ?, ?)", (t.key, value, number))
    found = [row[0] for row in t.run("SELECT n FROM $t WHERE p = $p")]
    expected = list(range(len(values)))
    if kind == "timeuuid":
        # By time, then by the lower half as signed bytes.
        expected = [n for n, _ in sorted(enumerate(values), key=lambda item: _time_uuid_key(item[1]))]
    assert found == (expected[::-1] if descending else expected)
    assert [row[0] for row in t.run(f"SELECT n FROM $t WHERE p = $p ORDER BY c {'ASC' if descending else 'DESC'}")] == (
        found[::-1]
    )
    middle = values[expected[1]]
    later = t.bound("SELECT n FROM $t WHERE p = ? AND c > ?", (t.key, middle))
    assert sorted(row[0] for row in later) == sorted(expected[2:])


def _time_uuid_key(value):
    return (value.time, [byte - 256 if byte > 127 else byte for byte in value.bytes[8:]])


@pytest.mark.parametrize(
    ("kind", "value", "token"),
    [
        ("int", 1, None),
        ("bigint", -5, None),
        ("text", "é", None),
        ("blob", b"\xff\x00", None),
        ("uuid", uuid.UUID(int=7), None),
        ("boolean", True, None),
        ("timestamp", 5, None),
        ("varint", 2**70, None),
    ],
)
def test_keys_of_each_type(make_partition, kind, value, token):
    t = make_partition(f"p {kind} PRIMARY KEY, v int")
    t.bound("INSERT INTO $t (p, v) VALUES (?, ?)", (value, 1))
    assert t.bound("SELECT v FROM $t WHERE p = ?", (value,)) == [(1,)]
    assert t.bound("SELECT v FROM $t WHERE p IN ?", ([value],)) == [(1,)]
