"""Generated sequences of operations, as a Hypothesis strategy.

Values, keys and timestamps come from small pools, so that operations meet: the same cell written twice at one
timestamp, a range deleted across a row that is written later with an older timestamp, a condition on what has expired.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from cassandra.query import UNSET_VALUE
from hypothesis import strategies as st

from sim.conform.cassandra_operations import (
    FUTURE_US,
    SECOND_KEYS,
    TABLES,
    Batch,
    Operation,
    Resume,
    Statement,
    Table,
    Value,
    Wait,
)

_TTLS: Final = [1, 2, 1000, 999, 998, 5000, 0]
_STAMPS: Final = [1, 2, 3, 4, -7, FUTURE_US]


@st.composite
def sequences(draw: Callable[..., Any], longest: int = 20) -> list[Operation]:
    """A list of operations."""
    return _Generator(draw).sequence(longest)


class _Generator:
    """Draws the parts of one sequence, which is about one table for the most part.

    A client's own now is among the timestamps only where there are no conditions.
    """

    def __init__(self, draw: Callable[..., Any]) -> None:
        self.draw = draw
        self.conditional = draw(st.booleans())
        self.waits = draw(st.integers(0, 24)) == 24
        self.main = draw(st.sampled_from(["wide", "wide", "mixed"]))

    def sequence(self, longest: int) -> list[Operation]:
        """All of it: some rows first, so that there is something to read."""
        kinds = ["write", "write", "write", "write", "batch", "read", "read", "pages"]
        if self.conditional:
            kinds += ["condition", "condition", "condition"]
        if self.waits:
            kinds += ["wait"]
        operations: list[Operation] = [
            self.write(prepared=True, kind="insert") for _ in range(self.draw(st.integers(0, 6)))
        ]
        count = self.draw(st.one_of(st.integers(longest // 2, longest), st.integers(1, longest)))
        while len(operations) < count:
            kind = self.one_of(kinds)
            if kind == "write":
                operations.append(self.write(prepared=self.one_of([True, True, True, True, False])))
            elif kind == "batch":
                operations.append(self.batch())
            elif kind == "condition":
                operations.append(self.condition())
            elif kind == "wait":
                operations.append(Wait(self.one_of([1, 2])))
            elif kind == "pages":
                operations.append(self.read(first_page_only=True))
                operations += [self.write(prepared=True) for _ in range(self.one_of([0, 0, 1, 2]))]
                operations.append(Resume())
            else:
                operations.append(self.read())
        return operations

    def one_of(self, values: list[Value]) -> Value:
        """One of them."""
        return self.draw(st.sampled_from(values))

    def partition(self) -> str:
        return f"$p{self.one_of([0, 0, 0, 1])}"

    def stamp(self) -> int | None:
        """A write timestamp, None for the client's own now."""
        return int(self.one_of(_STAMPS)) if self.conditional or self.one_of([True, True, False]) else None

    def using(self, options: list[Value], *, ttl: bool = True, with_stamp: bool = True) -> str:
        """USING ..., empty for none; what it binds is appended to `options`."""
        parts = []
        if with_stamp and (chosen := self.stamp()) is not None:
            parts.append("TIMESTAMP ?")
            options.append(chosen)
        if ttl and self.one_of([False, False, True]):
            parts.append("TTL ?")
            options.append(self.one_of(_TTLS))
        return " USING " + " AND ".join(parts) if parts else ""

    def columns_of(self, table: Table, *, least: int = 0) -> list[str]:
        offered = [*table.regulars, *table.statics]
        return list(self.draw(st.lists(st.sampled_from(offered), min_size=least, max_size=3, unique=True)))

    def value_of(self, table: Table, column: str, *, unset: bool = False) -> Value:
        pool = table.statics.get(column) or table.regulars[column]
        return self.one_of([*pool, UNSET_VALUE] if unset else pool)

    def table_and_key(self) -> tuple[str, Table, list[str], list[Value]]:
        """A table by name, its key columns, and values for them."""
        name = self.one_of(["flat", self.main, self.main, self.main, self.main, self.main])
        table = TABLES[name]
        values: list[Value] = [self.partition()]
        if len(table.partition_key) > 1:
            values.append(self.one_of(list(SECOND_KEYS)))
        values += [self.one_of(pool) for pool in table.clustering.values()]
        return name, table, table.keys, values

    def write(self, *, prepared: bool, with_stamp: bool = True, kind: str = "") -> Statement:
        """A write of any kind, or of the kind asked for."""
        name, table, keys, key_values = self.table_and_key()
        prepared = prepared or not table.has_literals
        own, own_values = only(table, keys, key_values)
        kinds = ["insert", "insert", "insert", "update", "update", "cells", "row", "partition"]
        if not kind:
            kind = self.one_of([*kinds, "static insert", "range", "range", "in"] if table.clustering else kinds)
        options: list[Value] = []
        if kind in ("insert", "static insert"):
            columns = self.columns_of(table)
            if kind == "static insert":
                columns, keys, key_values = [self.one_of(list(table.statics))], own, own_values
            values = [self.value_of(table, column, unset=prepared) for column in columns]
            tail = self.using(options, with_stamp=with_stamp)
            names = [*keys, *columns]
            markers = ", ".join("?" for _ in names)
            text = f"INSERT INTO {name} ({', '.join(names)}) VALUES ({markers}){tail}"
            return Statement(text, (*key_values, *values, *options), prepared)
        if kind == "update":
            columns = self.columns_of(table, least=1)
            if are_static(table, columns):
                keys, key_values = own, own_values
            values = [self.value_of(table, column, unset=prepared) for column in columns]
            head = self.using(options, with_stamp=with_stamp)
            sets = ", ".join(f"{column} = ?" for column in columns)
            text = f"UPDATE {name}{head} SET {sets} WHERE {where_of(keys)}"
            return Statement(text, (*options, *values, *key_values), prepared)
        head = self.using(options, ttl=False, with_stamp=with_stamp)
        what, where, values = "", where_of(keys), key_values
        if kind == "cells":
            columns = self.columns_of(table, least=1)
            what = ", ".join(columns) + " "
            if are_static(table, columns):
                where, values = where_of(own), own_values
        elif kind == "partition":
            where, values = where_of(own), own_values
        elif kind == "in":
            pool = table.clustering["c"]
            where, values = f"{where_of(own)} AND c IN (?, ?)", [*own_values, self.one_of(pool), self.one_of(pool)]
            if prepared and self.one_of([True, False]):
                where, values = f"{where_of(own)} AND c IN ?", [*own_values, [self.one_of(pool), self.one_of(pool)]]
        elif kind == "range":
            bounds, values = self.range_of(table, own_values)
            where = f"{where_of(own)} AND {bounds}"
        return Statement(f"DELETE {what}FROM {name}{head} WHERE {where}", (*options, *values), prepared)

    def range_of(self, table: Table, own_values: list[Value]) -> tuple[str, list[Value]]:
        """A restriction of clustering columns, and its values after those of the partition key."""
        shapes = ["prefix", "from", "to", "between", "within"]
        shape = self.one_of([*shapes, "tuple", "tuples"] if table.ranges else shapes)
        pool, inner = table.clustering["c"], table.clustering["k"]
        c, other = self.one_of(pool), self.one_of(pool)
        low, high = self.one_of([">", ">="]), self.one_of(["<", "<="])
        if shape == "prefix":
            return "c = ?", [*own_values, c]
        if shape == "from":
            return f"c {low} ?", [*own_values, c]
        if shape == "to":
            return f"c {high} ?", [*own_values, c]
        if shape == "between":
            return f"c {low} ? AND c {high} ?", [*own_values, min(c, other), max(c, other)]
        if shape == "tuple":
            return f"(c, k) {self.one_of([low, high])} (?, ?)", [*own_values, c, self.one_of(inner)]
        if shape == "tuples":
            bounds = sorted([(c, self.one_of(inner)), (other, self.one_of(inner))])
            return f"(c, k) {low} (?, ?) AND (c, k) {high} (?, ?)", [*own_values, *bounds[0], *bounds[1]]
        return f"c = ? AND k {self.one_of([low, high])} ?", [*own_values, c, self.one_of(inner)]

    def batch(self) -> Batch:
        """A batch of one to three writes, as text where it has a timestamp of its own."""
        logged = self.one_of([True, False])
        chosen = self.stamp() if self.one_of([True, False]) or self.conditional else None
        count = self.one_of([1, 2, 2, 3])
        if chosen is not None and self.one_of([True, False, False]):
            inner = tuple(self.write(prepared=False, with_stamp=False) for _ in range(count))
            if not any(each.prepared for each in inner):
                return Batch(inner, logged, chosen)
        return Batch(tuple(self.write(prepared=self.one_of([True, False])) for _ in range(count)), logged)

    def condition(self) -> Statement:
        """A lightweight transaction."""
        name, table, keys, key_values = self.table_and_key()
        prepared = self.one_of([True, True, True, True, False]) or not table.has_literals
        own, own_values = only(table, keys, key_values)
        options: list[Value] = []
        kind = self.one_of(["insert", "update", "update", "delete", "cells"])
        if kind == "insert":
            columns = self.columns_of(table)
            values = [self.value_of(table, column, unset=prepared) for column in columns]
            if columns and are_static(table, columns) and self.one_of([True, False]):
                keys, key_values = own, own_values
            names = [*keys, *columns]
            markers = ", ".join("?" for _ in names)
            tail = self.using(options, with_stamp=False)
            text = f"INSERT INTO {name} ({', '.join(names)}) VALUES ({markers}) IF NOT EXISTS{tail}"
            return Statement(text, (*key_values, *values, *options), prepared)
        columns = self.columns_of(table, least=1)
        only_static = are_static(table, columns) and kind != "delete"
        if only_static:
            keys, key_values = own, own_values
        compared = [] if self.one_of([True, False, False]) else self.columns_of(table, least=1)
        if only_static:
            compared = [column for column in compared if column in table.statics]
        values, conditions = [], []
        for column in compared:
            operator = self.one_of(["=", "=", "=", "!=", "<", ">=", "IN", "IN ?"])
            if operator == "IN" or (operator == "IN ?" and not prepared):
                conditions.append(f"{column} IN (?, ?)")
                values += [self.value_of(table, column), self.value_of(table, column)]
            elif operator == "IN ?":
                pool = [value for value in table.statics.get(column) or table.regulars[column] if value is not None]
                conditions.append(f"{column} IN ?")
                values.append([self.one_of(pool), self.one_of(pool)])
            else:
                # "< null" is an error, if it is looked at: with several conditions Java's hash order decides that.
                nullable = len(compared) == 1 or operator in ("=", "!=")
                pool = table.statics.get(column) or table.regulars[column]
                conditions.append(f"{column} {operator} ?")
                values.append(self.one_of([value for value in pool if nullable or value is not None]))
        clause = " AND ".join(conditions) or "EXISTS"
        if kind == "delete":
            text = f"DELETE FROM {name} WHERE {where_of(keys)} IF {clause}"
            return Statement(text, (*key_values, *values), prepared)
        if kind == "cells":
            text = f"DELETE {', '.join(columns)} FROM {name} WHERE {where_of(keys)} IF {clause}"
            return Statement(text, (*key_values, *values), prepared)
        new = [self.value_of(table, column, unset=prepared) for column in columns]
        head = self.using(options, with_stamp=False)
        sets = ", ".join(f"{column} = ?" for column in columns)
        text = f"UPDATE {name}{head} SET {sets} WHERE {where_of(keys)} IF {clause}"
        return Statement(text, (*options, *new, *key_values, *values), prepared)

    def read(self, *, first_page_only: bool = False) -> Statement:
        """A SELECT; with `first_page_only` one that is left after its first page."""
        name, table, keys, key_values = self.table_and_key()
        own, own_values = only(table, keys, key_values)
        prepared = self.one_of([True, True, True, True, False]) or not table.has_literals
        fetch_size = self.one_of([1, 2, 3] if first_page_only else [None, None, 1, 2, 3])
        serial = self.conditional and self.one_of([False, False, True])

        def statement(text: str, values: list[Value]) -> Statement:
            return Statement(text, tuple(values), prepared, fetch_size, serial, first_page_only)

        if name == "flat":
            return statement("SELECT a, b, d, writetime(a), ttl(b) FROM flat WHERE p = ?", own_values)
        column = self.one_of([*table.regulars])
        static = self.one_of([*table.statics])
        what = self.one_of(["*", f"c, k, {column}, writetime({column}), ttl({column})", "count(*)", f"k, {column}"])
        what = self.one_of([what, f"{static}, c, writetime({static}), ttl({static})"])
        shape = self.one_of(
            ["row", "partition", "partition", "range", "range", "in", "filter", "both", "distinct", "tuple"]
        )
        if first_page_only and self.one_of([True, True, False]):
            shape = self.one_of(["partition", "both"])
        tail = self.one_of(
            ["", "", "", " LIMIT 1", " LIMIT 2", " PER PARTITION LIMIT 1", " PER PARTITION LIMIT 2 LIMIT 3"]
        )
        turned = "k DESC" if name == "wide" else "k ASC"
        kept = "k ASC" if name == "wide" else "k DESC"
        order = self.one_of(["", "", " ORDER BY c ASC", f" ORDER BY c DESC, {kept}", f" ORDER BY c ASC, {turned}"])
        values, pool, inner = own_values, table.clustering["c"], table.clustering["k"]
        where = where_of(own)
        if shape == "row":
            where, values, order = where_of(keys), key_values, ""
        elif shape == "range":
            bounds, values = self.range_of(table, own_values)
            where += f" AND {bounds}"
        elif shape == "in":
            where, values = f"{where} AND c IN (?, ?)", [*values, self.one_of(pool), self.one_of(pool)]
        elif shape == "tuple":
            pairs = [self.one_of(pool), self.one_of(inner), self.one_of(pool), self.one_of(inner)]
            if self.one_of([True, False]):
                where, values = f"{where} AND (c, k) = (?, ?)", [*values, *pairs[:2]]
            else:
                where, values = f"{where} AND (c, k) IN ((?, ?), (?, ?))", [*values, *pairs]
        elif shape == "both":
            where, values, order, serial = "p IN (?, ?)", ["$p1", "$p0", *values[1:]], "", False
            where += " AND q = ?" if name == "mixed" else ""
        elif shape == "distinct":
            shown = ", ".join([*table.partition_key, static, f"writetime({static})", f"ttl({static})"])
            return statement(f"SELECT DISTINCT {shown} FROM {name} WHERE {where}", values)
        elif shape == "filter":
            filtered = self.one_of([column, static, "k"]) if name == "wide" else self.one_of(["n", "t", "e", "k"])
            choices = table.clustering.get(filtered) or table.statics.get(filtered) or table.regulars[filtered]
            value = self.one_of([choice for choice in choices if choice is not None])
            symbol = self.one_of(["=", "<", ">=", "="])
            where, values, tail = f"{where} AND {filtered} {symbol} ?", [*values, value], tail + " ALLOW FILTERING"
        if what == "count(*)":
            order = ""
        return statement(f"SELECT {what} FROM {name} WHERE {where}{order}{tail}", values)


def only(table: Table, keys: list[str], values: list[Value]) -> tuple[list[str], list[Value]]:
    """The partition key alone."""
    count = len(table.partition_key)
    return keys[:count], values[:count]


def are_static(table: Table, columns: list[str]) -> bool:
    return all(column in table.statics for column in columns)


def where_of(keys: list[str]) -> str:
    return " AND ".join(f"{key} = ?" for key in keys)
