"""What a sequence is made of: its tables, its operations, and the reads of the whole state at its end."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NamedTuple

from cassandra.query import UNSET_VALUE

Value = Any

FUTURE_US: Final = 4_102_444_800_000_000
"""The year 2100: beyond the clock of either side."""


class Table(NamedTuple):
    """A table of the sequences: its columns, and the values that are written to them."""

    definition: str
    partition_key: tuple[str, ...]
    clustering: dict[str, list[Value]]
    statics: dict[str, list[Value]]
    regulars: dict[str, list[Value]]
    ranges: tuple[str, ...] = ()
    """Clustering columns of one order, over which multi-column ranges may go."""
    has_literals: bool = True
    """Whether every value can be written into a text."""

    @property
    def keys(self) -> list[str]:
        """The columns of the primary key."""
        return [*self.partition_key, *self.clustering]


TABLES: Final = {
    "wide": Table(
        "(p int, c int, k int, s int static, r text static, a int, b text, d boolean, PRIMARY KEY (p, c, k)) "
        "WITH CLUSTERING ORDER BY (c DESC, k ASC)",
        ("p",),
        {"c": [0, 1, 2], "k": [0, 1]},
        {"s": [0, 1, -1, None], "r": ["", "x", "y", None]},
        {"a": [0, 1, -1, 2**31 - 1, None], "b": ["", "x", "xy", "é", None], "d": [True, False, None]},
    ),
    "flat": Table(
        "(p int PRIMARY KEY, a int, b text, d boolean)",
        ("p",),
        {},
        {},
        {"a": [0, 1, -1, 2**31 - 1, None], "b": ["", "x", "xy", "é", None], "d": [True, False, None]},
    ),
    "mixed": Table(
        "(p int, q text, c text, k bigint, s decimal static, n varint, t timestamp, l frozen<list<int>>, "
        "m frozen<map<text, int>>, e blob, f double, PRIMARY KEY ((p, q), c, k)) "
        "WITH CLUSTERING ORDER BY (c DESC, k DESC) AND default_time_to_live = 3000",
        ("p", "q"),
        {"c": ["", "a", "b"], "k": [-1, 2**40]},
        {"s": [Decimal("1.50"), Decimal(-2), None]},
        {
            "n": [0, -1, 127, 128, 2**70, None],
            "t": [0, -1, 1_893_456_000_000, None],
            "l": [[], [1], [1, 2], [-1], None],
            "m": [{}, {"a": 1}, {"b": 1, "a": -1}, None],
            "e": [b"", b"\x00", b"\xff", None],
            "f": [0.0, -0.0, 1.5, -1.5, None],
        },
        ranges=("c", "k"),
        has_literals=False,
    ),
}
SECOND_KEYS: Final = ("", "z")
"""Values of mixed's second partition key column."""

PARTITIONS: Final = 2
"""Partitions of each table that one sequence has."""


@dataclass(frozen=True)
class Statement:
    """CQL with its values. `$p0`, `$p1` stand for the sequence's own partitions, among the values too."""

    text: str
    values: tuple[Value, ...] = ()
    prepared: bool = True
    fetch_size: int | None = None
    serial: bool = False
    first_page_only: bool = False

    def __repr__(self) -> str:
        pages = f"  -- pages of {self.fetch_size}" if self.fetch_size else ""
        return literally(self.text, self.values) + pages + (", the first" if self.first_page_only else "")


@dataclass(frozen=True)
class Batch:
    """Several writes as one."""

    statements: tuple[Statement, ...]
    logged: bool = True
    timestamp: int | None = None
    """USING TIMESTAMP of the batch as text; a driver's BatchStatement has none."""

    def __repr__(self) -> str:
        return self.text

    @property
    def text(self) -> str:
        """The batch as CQL."""
        using = "" if self.timestamp is None else f" USING TIMESTAMP {self.timestamp}"
        inner = "; ".join(literally(each.text, each.values) for each in self.statements)
        return f"BEGIN {'' if self.logged else 'UNLOGGED '}BATCH{using} {inner}; APPLY BATCH"


@dataclass(frozen=True)
class Resume:
    """Go on with the statement that was left after its first page, by its paging state, to the end."""


@dataclass(frozen=True)
class Wait:
    """Let so many seconds pass."""

    seconds: int


Operation = Statement | Batch | Resume | Wait


def filled(text: str, partitions: tuple[int, ...]) -> str:
    """The text with the sequence's own partitions in it."""
    for number, partition in enumerate(partitions):
        text = text.replace(f"$p{number}", str(partition))
    return text


def literally(text: str, values: tuple[Value, ...]) -> str:
    """The statement with its values written into it."""
    parts = text.split("?")
    written = [parts[0]]
    for value, after in zip(values, parts[1:], strict=True):
        if value is None:
            literal = "null"
        elif isinstance(value, list | tuple | dict | bytes | float | Decimal):
            literal = repr(value)
        elif isinstance(value, str) and not value.startswith("$p"):
            literal = "'" + value.replace("'", "''") + "'"
        else:
            literal = "UNSET" if value is UNSET_VALUE else str(value).lower() if isinstance(value, bool) else str(value)
        written += [literal, after]
    return "".join(written)


def final_reads(operations: list[Operation]) -> list[Statement]:
    """Everything there is in the sequence's partitions of the tables that it names."""
    named = [name for name in TABLES if any(f" {name} " in repr(operation) for operation in operations)]
    reads = []
    for number in range(PARTITIONS):
        for name, table in ((name, TABLES[name]) for name in named):
            where, key = "p = ?", (f"$p{number}",)
            if len(table.partition_key) > 1:
                where += " AND q IN ('', 'z')"
            shown = [*table.clustering, *table.statics, *table.regulars]
            times = [
                f"{what}({column})" for column in (*table.statics, *table.regulars) for what in ("writetime", "ttl")
            ]
            reads.append(Statement(f"SELECT {', '.join([*shown, *times])} FROM {name} WHERE {where}", key))
            if table.statics:
                distinct = ", ".join([*table.partition_key, *table.statics])
                reads.append(Statement(f"SELECT DISTINCT {distinct} FROM {name} WHERE {where}", key))
            if name == "wide":
                reads.append(Statement("SELECT c, k, a FROM wide WHERE p = ? ORDER BY c ASC, k DESC", key))
    return reads
