"""Statements made ready to run against a table: names resolved, types known, values picked by place.

A plan is made once per statement text and keyspace and run many times. Running it needs only the tuple of values: those
bound to the markers followed by the plan's constants; every "source" below is a place in that tuple. What Cassandra
would refuse, and what the simulated one does not do, raises InvalidRequest when the plan is made, or when the values
are known.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from cassandra.query import UNSET_VALUE

from sim.cassandra import statements as st
from sim.cassandra.binding import Binder, BindMarker, Values, picker
from sim.cassandra.catalog import CLUSTERING, PARTITION, REGULAR, STATIC, Catalog, Column, ColumnSet, Table
from sim.cassandra.errors import invalid, syntax_error, unsupported
from sim.cassandra.rows import Cell, Deletion, RowWrite
from sim.cassandra.storage import (
    EVERYTHING,
    Change,
    Key,
    PartitionDeletion,
    RangeDeletion,
    RangeTombstone,
    Slice,
    Together,
    row_deletion,
)
from sim.cassandra.types import CqlType, cql_type

MAX_TTL_S = 20 * 365 * 24 * 3600
"""The longest time to live that Cassandra takes."""

LAST_EXPIRY_S = 2**31 - 2
"""The last second at which anything may expire, in 2038, with the `storage_compatibility_mode` Cassandra 5.0 comes
with."""

_NO_TIMESTAMP = -(1 << 63)

_BIGINT = cql_type(st.TypeName("bigint", ()))
_INT = cql_type(st.TypeName("int", ()))

COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Sources:
    """Collects the constants and marker types of a statement while its plan is made."""

    def __init__(self, markers: tuple[st.Marker, ...]) -> None:
        self._given = markers
        self._markers: list[BindMarker | None] = [None] * len(markers)
        self.constants: list[Any] = []

    def of(self, term: st.Term, name: str, kind: CqlType, *, in_partition_key: bool = False) -> int:
        """The place of a term that is received by a column (or option) of that name and type."""
        if isinstance(term, st.Marker):
            self._markers[term.position] = BindMarker(term.name or name, kind, in_partition_key)
            return term.position
        self.constants.append(_constant(term, name, kind))
        return len(self._markers) + len(self.constants) - 1

    def binder(self) -> Binder:
        """The binder of the statement's markers."""
        assert all(marker is not None for marker in self._markers), "a marker was given no receiver"
        return Binder(tuple(marker for marker in self._markers if marker is not None))


def _constant(term: st.Term, name: str, kind: CqlType) -> Any:
    if isinstance(term, st.Literal):
        return None if term.kind == "NULL" else kind.from_literal(term, name)
    if isinstance(term, st.Collection):
        if not kind.element_types:
            if term.kind == "list":
                raise invalid(f"Unexpected receiver type '{kind.name}'; only list and vector are expected")
            raise invalid(f"Invalid {term.kind} literal for {name} of type {kind.name}")
        return kind.from_bound(_collection_value(term, name, kind))
    raise unsupported(f"the function {term.function}() as a value" if isinstance(term, st.Call) else "this value")


def _collection_value(literal: st.Collection, name: str, kind: CqlType) -> object:
    def element(term: Any, of: CqlType, what: str = "value") -> Any:
        if isinstance(term, st.Marker):
            raise unsupported("a bind marker inside a collection literal")
        if isinstance(term, st.Literal) and term.kind == "NULL":
            raise invalid("null is not supported inside collections")
        if isinstance(term, st.Literal) and of.literals and term.kind not in of.literals:
            shown = f"'{term.text}'" if term.kind == "STRING" else term.text
            raise invalid(f"Invalid {literal.kind} literal for {name}: {what} {shown} is not of type {of.name}")
        value = _constant(term, name, of)
        return value if of.to_python is None else of.to_python(value)

    if literal.kind == "map" and len(kind.element_types) == 2:
        key_type, value_type = kind.element_types
        pairs: Sequence[Any] = literal.items
        value_of = {element(key, key_type, "key"): element(value, value_type) for key, value in pairs}
        if len(value_of) < len(pairs):
            # Which value counts depends on the number of entries in Cassandra 5.0.
            raise unsupported("a map literal that has a key twice")
        return value_of
    if len(kind.element_types) == 2 and not literal.items:
        return {}
    if len(kind.element_types) != 1 or literal.kind == "map" or (literal.kind == "set") != ("set<" in kind.name):
        if literal.kind == "list":
            raise invalid(f"Unexpected receiver type '{kind.name}'; only list and vector are expected")
        raise invalid(f"Invalid {literal.kind} literal for {name} of type {kind.name}")
    return [element(item, kind.element_types[0]) for item in literal.items]


# ---------------------------------------------------------------------------------------------------- restrictions


@dataclass(slots=True)
class KeyRestriction:
    """How a WHERE clause pins one key column: the sources of its alternatives, or one source that is a list (IN ?)."""

    alternatives: tuple[int, ...]
    is_in: bool = False

    def values(self, full: Values, column: Column) -> list[Any]:
        """The alternatives, without repetition, in the column's order."""
        picked = [full[source] for source in self.alternatives]
        for value in picked:
            if value is None:
                raise invalid(f"Invalid null value in condition for column {column.name}")
            if value is UNSET_VALUE:
                raise invalid(f"Invalid unset value for column {column.name}")
        if len(picked) == 1:
            return picked
        return sorted(dict.fromkeys(picked), key=column.type.sort_key)


@dataclass(slots=True)
class InMarkerRestriction(KeyRestriction):
    """`column IN ?`: one source, which holds a list of values."""

    def values(self, full: Values, column: Column) -> list[Any]:
        """The alternatives, without repetition, in the column's order."""
        listed = full[self.alternatives[0]]
        if listed is None or listed is UNSET_VALUE:
            what = "null" if listed is None else "unset"
            raise invalid(f"Invalid {what} value for column {column.name}")
        if None in listed:
            raise invalid(f"Invalid null value in condition for column {column.name}")
        return sorted(dict.fromkeys(listed), key=column.type.sort_key)


@dataclass(slots=True)
class Bound:
    """One end of a range over one or more clustering columns."""

    sources: tuple[int, ...]
    inclusive: bool


@dataclass(slots=True)
class Where:
    """A WHERE clause, sorted by what it does."""

    partition: dict[str, KeyRestriction] = field(default_factory=dict)
    clustering: dict[str, KeyRestriction] = field(default_factory=dict)
    tuple_columns: tuple[str, ...] = ()
    tuples: tuple[tuple[int, ...], ...] = ()
    range_columns: tuple[str, ...] = ()
    range_is_multi: bool = False
    lower: Bound | None = None
    upper: Bound | None = None
    token_lower: Bound | None = None
    token_upper: Bound | None = None
    filters: list[tuple[Column, str, tuple[int, ...]]] = field(default_factory=list)
    seen: dict[str, str] = field(default_factory=dict)
    """The operator of the first relation of every column."""

    @property
    def has_filters(self) -> bool:
        """Whether `check_filters` has anything to look at."""
        return bool(self.filters) or self.token_lower is not None or self.token_upper is not None


def read_where(
    table: Table, relations: tuple[st.Relation, ...], sources: Sources, *, filtering: bool, modifies: str = ""
) -> Where:
    """Sort the relations. With `filtering`, what the key cannot answer becomes a filter; without, it is refused.

    `modifies` names the statement (UPDATE, DELETE) of which the clause is, if it is not a SELECT.
    """
    where = Where()
    for relation in relations:
        if relation.operator == "!=":
            raise invalid(f'Unsupported "!=" relation: {_shown(relation)}')
        if modifies:
            _check_modification(table, relation, modifies)
        if relation.on_token:
            _add_token(table, relation, sources, where)
        elif relation.multi:
            _add_tuple(table, relation, sources, where)
        else:
            _add_single(table, relation, sources, where, filtering)
    if where.partition and len(where.partition) < len(table.partition_key):
        _need_filtering(filtering)
        for column in table.partition_key:
            if column.name in where.partition:
                restriction = where.partition.pop(column.name)
                if isinstance(restriction, InMarkerRestriction):
                    raise unsupported("IN ? on a part of the partition key")
                where.filters.append((column, "IN" if restriction.is_in else "=", restriction.alternatives))
    _check_clustering(table, where, filtering)
    return where


def _shown(relation: st.Relation) -> str:
    """A relation of one column as the server writes it in messages."""
    value = relation.values[0]
    shown = "?"
    if isinstance(value, st.Literal):
        shown = f"'{value.text}'" if value.kind == "STRING" else value.text
    return f"{relation.columns[0]} {relation.operator} {shown}"


def _check_modification(table: Table, relation: st.Relation, statement: str) -> None:
    if relation.on_token:
        raise invalid(f"The token function cannot be used in WHERE clauses for {statement} statements")
    kind = table.column(relation.columns[0]).kind
    if kind == PARTITION and relation.operator not in ("=", "IN"):
        raise invalid(
            "Only EQ and IN relation are supported on the partition key (unless you use the token() function) "
            f"for {statement} statements"
        )


def _add_token(table: Table, relation: st.Relation, sources: Sources, where: Where) -> None:
    names = tuple(column.name for column in table.partition_key)
    if relation.columns != names:
        if all(name in names for name in relation.columns) and len(relation.columns) == len(names):
            raise invalid(f"The token function arguments must be in the partition key order: {', '.join(names)}")
        if len(relation.columns) > len(names):
            raise invalid("The token() function must contains only partition key components")
        raise invalid("The token() function must be applied to all partition key components or none of them")
    source = sources.of(relation.values[0], "partition key token", _BIGINT)
    bound = Bound((source,), relation.operator in ("=", "<=", ">="))
    if relation.operator in ("=", ">", ">="):
        where.token_lower = bound
    if relation.operator in ("=", "<", "<="):
        where.token_upper = bound


def _add_tuple(table: Table, relation: st.Relation, sources: Sources, where: Where) -> None:
    names = tuple(column.name for column in table.clustering_key)
    for name in relation.columns:
        if table.column(name).kind != CLUSTERING:
            raise invalid(
                f"Multi-column relations can only be applied to clustering columns but was applied to: {name}"
            )
    for place, name in enumerate(relation.columns):
        if name in relation.columns[:place]:
            raise invalid(f'Column "{name}" appeared twice in a relation: {_shown_tuple(relation)}')
    start = names.index(relation.columns[0])
    if names[start : start + len(relation.columns)] != relation.columns:
        raise invalid("Clustering columns must appear in the PRIMARY KEY order in multi-column relations")

    def picked(terms: tuple[Any, ...]) -> tuple[int, ...]:
        if len(terms) != len(relation.columns):
            raise invalid(
                f"Expected {len(relation.columns)} elements in value tuple, but got {len(terms)}: {_shown_terms(terms)}"
            )
        return tuple(
            sources.of(term, name, table.columns[name].type) for term, name in zip(terms, relation.columns, strict=True)
        )

    if relation.operator in ("=", "IN"):
        if where.tuple_columns or where.range_columns:
            raise unsupported("more than one multi-column relation")
        rows: tuple[Any, ...] = relation.values if relation.operator == "IN" else (relation.values,)
        where.tuple_columns = relation.columns
        where.tuples = tuple(picked(each) for each in rows)
        return
    where.range_is_multi = True
    _add_range(relation.columns, relation.operator, picked(relation.values), where)


def _shown_tuple(relation: st.Relation) -> str:
    return f"({', '.join(relation.columns)}) {relation.operator} {_shown_terms(relation.values)}"


def _shown_terms(terms: tuple[Any, ...]) -> str:
    return f"({', '.join(term.text if isinstance(term, st.Literal) else '?' for term in terms)})"


def _add_range(columns: tuple[str, ...], symbol: str, sources: tuple[int, ...], where: Where) -> None:
    if where.range_columns and where.range_columns != columns:
        raise unsupported("ranges over different clustering columns")
    where.range_columns = columns
    bound = Bound(sources, symbol in ("<=", ">="))
    if symbol in (">", ">="):
        if where.lower is not None:
            raise invalid(f"More than one restriction was found for the start bound on {columns[0]}")
        where.lower = bound
    else:
        if where.upper is not None:
            raise invalid(f"More than one restriction was found for the end bound on {columns[0]}")
        where.upper = bound


def _add_single(table: Table, relation: st.Relation, sources: Sources, where: Where, filtering: bool) -> None:
    name = relation.columns[0]
    column = table.column(name)
    in_key = column.kind == PARTITION
    _check_together(where, name, relation.operator)
    if relation.operator == "IN":
        if relation.in_marker:
            restriction: KeyRestriction = InMarkerRestriction(
                (sources.of(relation.values[0], f"in({name})", _list_of(column.type), in_partition_key=in_key),),
                True,
            )
        else:
            alternatives: tuple[Any, ...] = relation.values
            restriction = KeyRestriction(
                tuple(sources.of(each[0], name, column.type, in_partition_key=in_key) for each in alternatives), True
            )
    elif relation.operator == "=":
        restriction = KeyRestriction((sources.of(relation.values[0], name, column.type, in_partition_key=in_key),))
    else:
        source = sources.of(relation.values[0], name, column.type)
        if column.kind == CLUSTERING and not (where.range_columns and where.range_columns != (name,)):
            _add_range((name,), relation.operator, (source,), where)
            return
        _need_filtering(filtering)
        for known_column, symbol, _ in where.filters:
            if known_column is column and symbol[0] == relation.operator[0]:
                end = "start" if symbol[0] == ">" else "end"
                raise invalid(f"More than one restriction was found for the {end} bound on {name}")
        where.filters.append((column, relation.operator, (source,)))
        return
    known = where.partition if in_key else where.clustering
    if column.kind in (PARTITION, CLUSTERING):
        known[name] = restriction
        return
    _need_filtering(filtering)
    if isinstance(restriction, InMarkerRestriction):
        raise unsupported("IN ? on a column that is not in the primary key")
    where.filters.append((column, relation.operator, restriction.alternatives))


def _check_together(where: Where, name: str, symbol: str) -> None:
    first = where.seen.setdefault(name, symbol)
    if first is symbol:
        return
    if first in ("=", "IN"):
        which = "an Equal" if first == "=" else "a IN"
        raise invalid(f"{name} cannot be restricted by more than one relation if it includes {which}")
    if symbol in ("=", "IN"):
        raise invalid(f'Column "{name}" cannot be restricted by both an equality and an inequality relation')


def _need_filtering(filtering: bool) -> None:
    if not filtering:
        raise invalid(
            "Cannot execute this query as it might involve data filtering and thus may have unpredictable "
            "performance. If you want to execute this query despite the performance unpredictability, use "
            "ALLOW FILTERING"
        )


def _list_of(element: CqlType) -> CqlType:
    """The type of the marker in `column IN ?`: bound as a list, kept as a tuple of stored values."""

    class _Listed:
        @staticmethod
        def serialize(values: Any, _protocol: int) -> Any:
            if isinstance(values, str):
                raise TypeError("Received a string for a type that expects a sequence")
            return tuple(None if value is None else element.from_bound(value) for value in values)

    return CqlType(f"list<{element.name}>", _Listed, None, "", frozenset(), lambda stored: stored)


def _check_clustering(table: Table, where: Where, filtering: bool) -> None:
    """Restricted clustering columns must be a prefix; what comes after a hole or a range can only be a filter."""
    restricted = set(where.clustering) | set(where.tuple_columns)
    hole: str | None = None
    for column in table.clustering_key:
        name = column.name
        if hole is not None and (name in restricted or name in where.range_columns):
            if not filtering or name in where.tuple_columns or len(where.range_columns) > 1:
                raise invalid(
                    f'PRIMARY KEY column "{name}" cannot be restricted as preceding column "{hole}" is not restricted'
                )
            if name in where.clustering:
                restriction = where.clustering.pop(name)
                if isinstance(restriction, InMarkerRestriction):
                    raise unsupported("IN ? on a clustering column after one that is not restricted")
                where.filters.append((column, "IN" if restriction.is_in else "=", restriction.alternatives))
            else:
                for bound, symbol in ((where.lower, ">"), (where.upper, "<")):
                    if bound is not None:
                        where.filters.append((column, symbol + "=" * bound.inclusive, bound.sources))
                where.lower = where.upper = None
                where.range_columns = ()
        elif name in where.range_columns:
            if name == where.range_columns[-1]:
                hole = name
        elif name not in restricted and hole is None:
            hole = name


def partition_keys(table: Table, where: Where, full: Values) -> list[Key]:
    """The partition keys that the clause names, in the order of the columns' values."""
    choices = [where.partition[column.name].values(full, column) for column in table.partition_key]
    for column, values in zip(table.partition_key, choices, strict=True):
        if len(table.partition_key) == 1 and column.type.name in ("text", "ascii", "blob") and not all(values):
            raise invalid("Key may not be empty")
    return list(product(*choices))


def check_filters(where: Where, full: Values) -> None:
    """Refuse null and unset in what a SELECT filters by, and in the bounds of token()."""
    for column, symbol, sources in where.filters:
        for source in sources:
            value = full[source]
            # Of what is listed after IN a null is allowed, and matches nothing.
            if value is UNSET_VALUE or (value is None and symbol != "IN"):
                what = "null" if value is None else "unset"
                raise invalid(f"Unsupported {what} value for column {column.name}")
    for bound in (where.token_lower, where.token_upper):
        if bound is not None:
            value = full[bound.sources[0]]
            if value is None or value is UNSET_VALUE:
                raise invalid(f"Invalid {'null' if value is None else 'unset'} token value")


def slices(table: Table, where: Where, full: Values) -> list[Slice]:
    """The pieces of a partition that the clause names, ascending and disjoint."""
    prefixes: list[Key] = [()]
    for column in table.clustering_key:
        if column.name in where.clustering:
            values = where.clustering[column.name].values(full, column)
            prefixes = [(*prefix, value) for prefix in prefixes for value in values]
        elif where.tuple_columns and column.name == where.tuple_columns[0]:
            rows = dict.fromkeys(tuple(full[source] for source in row) for row in where.tuples)
            for row in rows:
                for name, value in zip(where.tuple_columns, row, strict=True):
                    if value is None or value is UNSET_VALUE:
                        what = "null" if value is None else "unset"
                        raise invalid(f"Invalid {what} value for column {name}")
            prefixes = [prefix + row for prefix in prefixes for row in rows]
        elif column.name not in where.tuple_columns:
            break
    position_of = table.position_of
    if not where.range_columns:
        if prefixes == [()]:
            return [EVERYTHING]
        positions = sorted(position_of(prefix) for prefix in prefixes)
        return [Slice(position, True, position, True) for position in positions]
    columns = [table.columns[name] for name in where.range_columns]
    if len({column.descending for column in columns}) > 1:
        raise unsupported("a multi-column range over clustering columns of different order")

    def end(bound: Bound | None, prefix: Key) -> tuple[Any, bool]:
        if bound is None:
            return position_of(prefix), True
        values = tuple(full[source] for source in bound.sources)
        for place, value in enumerate(values):
            if value is None:
                raise invalid(f"Invalid null value in condition for column {columns[place].name}")
            if value is UNSET_VALUE:
                what = f"tuple field number {place}" if where.range_is_multi else f"column {columns[0].name}"
                raise invalid(f"Invalid unset value for {what}")
        return position_of(prefix + values), bound.inclusive

    lower, upper = (where.upper, where.lower) if columns[0].descending else (where.lower, where.upper)
    pieces = [Slice(*end(lower, prefix), *end(upper, prefix)) for prefix in prefixes]
    return sorted(pieces, key=lambda piece: position_of(()) if not piece.low else piece.low)


# ---------------------------------------------------------------------------------------------------------- writes


@dataclass(slots=True)
class Condition:
    """One comparison of an IF clause."""

    column: Column
    operator: str
    sources: tuple[int, ...]
    in_marker: bool = False

    def holds(self, cells: dict[str, Cell], full: Values) -> bool:
        """Whether it holds of a row's live cells. A comparison with null is true only for = null and != of a value."""
        cell = cells.get(self.column.name)
        found = None if cell is None else cell.value
        given = [full[source] for source in self.sources]
        if UNSET_VALUE in given:
            raise invalid("Invalid 'unset' value in condition")
        if self.operator == "IN":
            return found in ((given[0] or ()) if self.in_marker else given)
        wanted = given[0]
        if self.operator in ("=", "!="):
            return bool((found == wanted) == (self.operator == "="))
        if wanted is None:
            raise invalid(f'Invalid comparison with null for operator "{self.operator}"')
        return found is not None and COMPARE[self.operator](found, wanted)


class ModifyPlan:
    """INSERT, UPDATE or DELETE on one table."""

    def __init__(self, table: Table, operation: str, using: st.Using, sources: Sources) -> None:
        self.table = table
        self.operation = operation
        self.conditions: tuple[Condition, ...] | None = None
        self.if_not_exists = False
        self.is_plain = False
        self.writes_static = False
        self.writes_rows = True
        self.timestamp_source = -1 if using.timestamp is None else sources.of(using.timestamp, "[timestamp]", _BIGINT)
        self.ttl_source = -1 if using.ttl is None else sources.of(using.ttl, "[ttl]", _INT)
        self._sources = sources
        self.constants: Values = ()
        self.binder = Binder(())
        self.trace_sources = (-1, -1, -1)
        self.statement_id = -1

    @property
    def is_conditional(self) -> bool:
        """Whether it is a lightweight transaction."""
        return self.conditions is not None or self.if_not_exists

    def finish(self, named: dict[str, int]) -> None:
        """Close the collection of sources. `named` tells the place of some columns' values."""
        self.binder = self._sources.binder()
        self.constants = tuple(self._sources.constants)
        self.trace_sources = (named.get("user_id", -1), named.get("symbol_id", -1), named.get("order_id", -1))
        if self.is_conditional and self.timestamp_source >= 0:
            raise invalid("Cannot provide custom timestamp for conditional updates")

    def timestamp_of(self, full: Values) -> int | None:
        """USING TIMESTAMP's value, None without."""
        if self.timestamp_source < 0:
            return None
        value = full[self.timestamp_source]
        if value is None:
            raise invalid("Invalid null value of timestamp")
        if value is UNSET_VALUE:
            return None
        if value == _NO_TIMESTAMP:
            raise invalid("Out of bound timestamp, must be in [-9223372036854775807, 9223372036854775807]")
        return int(value)

    def ttl_of(self, full: Values) -> int:
        """The time to live in seconds, 0 for none."""
        if self.ttl_source < 0:
            return self.table.default_ttl_s
        value = full[self.ttl_source]
        if value is None:
            return 0
        if value is UNSET_VALUE:
            return self.table.default_ttl_s
        if value < 0:
            raise invalid(f"A TTL must be greater or equal to 0, but was {value}")
        if value > MAX_TTL_S:
            raise invalid(f"ttl is too large. requested ({value}) maximum ({MAX_TTL_S})")
        return int(value)

    def check_expiry(self, ttl: int, now_s: int) -> None:
        """Refuse what would expire after `LAST_EXPIRY_S`."""
        if now_s + ttl > LAST_EXPIRY_S:
            raise invalid(
                f"Request on table {self.table.keyspace}.{self.table.name} with ttl of {ttl} seconds exceeds maximum "
                "supported expiration date of 2038-01-19T03:14:06+00:00. In order to avoid this use a lower TTL, "
                "change the expiration date overflow policy or upgrade to a version where this limitation is fixed. "
                "See CASSANDRA-14092 and CASSANDRA-14227 for more details."
            )

    def changes(self, full: Values, timestamp: int, now_s: int) -> list[Change]:
        """What to write, one change for each partition."""
        raise NotImplementedError

    def lookup(self, full: Values) -> tuple[Key, Key | None]:
        """For a conditional statement: the partition and clustering key of the one row it is about."""
        raise NotImplementedError


class InsertPlan(ModifyPlan):
    """INSERT."""

    def __init__(self, table: Table, statement: st.Insert, markers: tuple[st.Marker, ...]) -> None:
        sources = Sources(markers)
        if len(statement.columns) != len(statement.values):
            raise invalid("Unmatched column names/values")
        places: dict[str, int] = {}
        for name, term in zip(statement.columns, statement.values, strict=True):
            column = table.column(name)
            if name in places:
                raise invalid("The column names contains duplicates")
            places[name] = sources.of(term, name, column.type, in_partition_key=column.kind == PARTITION)
        super().__init__(table, "INSERT", statement.using, sources)
        for column in table.partition_key:
            if column.name not in places:
                raise invalid(f"Some partition key parts are missing: {column.name}")
        static_names = tuple(name for name in statement.columns if table.columns[name].kind == STATIC)
        regular_names = tuple(name for name in statement.columns if table.columns[name].kind == REGULAR)
        missing = [column.name for column in table.clustering_key if column.name not in places]
        if missing and (len(missing) < len(table.clustering_key) or regular_names or not static_names):
            raise invalid(f"Some clustering keys are missing: {', '.join(missing)}")
        self.if_not_exists = statement.if_not_exists
        self._partition = picker([places[column.name] for column in table.partition_key])
        self._clustering = picker([] if missing else [places[column.name] for column in table.clustering_key])
        self._static_only = bool(missing)
        self.writes_static, self.writes_rows = bool(static_names), not missing
        self._regular_places = [places[name] for name in regular_names]
        self._static_places = [places[name] for name in static_names]
        self._regular_values = picker(self._regular_places)
        self._regular_set = table.column_set(regular_names)
        self._static_set = table.column_set(static_names)
        # Clustering keys are whole here, and their sign is changed back and forth in the same way.
        self._position_of = table.clustering_of() or table.position_of
        self._check_empty_key = len(table.partition_key) == 1 and table.partition_key[0].type.name in (
            "text",
            "ascii",
            "blob",
        )
        self.finish(places)
        # Whether every execution is one write of whole columns: nothing static, nothing conditional.
        self.is_plain = not static_names and not self.if_not_exists and not self._check_empty_key
        self._usual_ttl_s = 0 if self.ttl_source < 0 and not table.default_ttl_s else None
        """The time to live of every execution, None when it must be asked for."""

    def row(self, full: Values, timestamp: int, now_s: int) -> RowWrite:
        """The one write of a plain INSERT whose values are all set. `timestamp` counts when it names none of its own.

        The hot path.
        """
        partition = self._partition(full)
        clustering = self._clustering(full)
        if None in partition or None in clustering:
            self._refuse_null_key(full)
        if self.timestamp_source >= 0:
            own = full[self.timestamp_source]
            # Nearly every timestamp is a number above zero; what is not is looked at more closely.
            if own.__class__ is not int or own <= 0:
                own = self.timestamp_of(full)
            if own is not None:
                timestamp = own
        ttl = self._usual_ttl_s
        if ttl is None:
            ttl = self.ttl_of(full)
            if ttl:
                self.check_expiry(ttl, now_s)
        return RowWrite(
            partition,
            clustering,
            self._position_of(clustering),
            self._regular_set,
            self._regular_values(full),
            timestamp,
            ttl,
            now_s,
            True,
        )

    def partition_of(self, full: Values) -> Key:
        """The partition key."""
        return self._partition(full)

    def _refuse_null_key(self, full: Values) -> None:
        keys = self.table.partition_key + (() if self._static_only else self.table.clustering_key)
        for column, value in zip(keys, self._partition(full) + self._clustering(full), strict=True):
            if value is None:
                raise invalid(f"Invalid null value in condition for column {column.name}")

    def changes(self, full: Values, timestamp: int, now_s: int) -> list[Change]:
        """The row, and the static row if static columns are named."""
        ttl = self.ttl_of(full)
        if ttl:
            self.check_expiry(ttl, now_s)
        partition, clustering = self.lookup(full)
        written: list[Change] = []
        if self._static_places:
            columns, values = _set_only(self.table, self._static_set, [full[i] for i in self._static_places])
            written.append(RowWrite(partition, (), None, columns, values, timestamp, ttl, now_s, False))
        if clustering is not None:
            columns, values = _set_only(self.table, self._regular_set, [full[i] for i in self._regular_places])
            position = self._position_of(clustering)
            written.append(RowWrite(partition, clustering, position, columns, values, timestamp, ttl, now_s, True))
        return written if len(written) == 1 else [Together(partition, tuple(written))]

    def lookup(self, full: Values) -> tuple[Key, Key | None]:
        """The key of the row; no clustering key when only static columns are written."""
        self._refuse_null_key(full)
        partition, clustering = self._partition(full), self._clustering(full)
        if self._check_empty_key and not partition[0]:
            raise invalid("Key may not be empty")
        if UNSET_VALUE in clustering:
            name = self.table.clustering_key[clustering.index(UNSET_VALUE)].name
            raise invalid(f"Invalid unset value for column {name}")
        return partition, None if self._static_only else clustering


def _set_only(table: Table, columns: ColumnSet, values: list[Any]) -> tuple[ColumnSet, Values]:
    """Leave out what was bound to UNSET_VALUE: such columns are not written at all."""
    if not any(value is UNSET_VALUE for value in values):
        return columns, tuple(values)
    kept = [(name, value) for name, value in zip(columns.names, values, strict=True) if value is not UNSET_VALUE]
    return table.column_set(tuple(name for name, _ in kept)), tuple(value for _, value in kept)


class UpdatePlan(ModifyPlan):
    """UPDATE, and DELETE of columns: cells without a row marker."""

    def __init__(
        self,
        table: Table,
        operation: str,
        using: st.Using,
        assignments: tuple[tuple[str, st.Term], ...],
        relations: tuple[st.Relation, ...],
        conditions: tuple[st.Relation, ...] | None,
        sources: Sources,
    ) -> None:
        super().__init__(table, operation, using, sources)
        places: dict[str, int] = {}
        for name, term in assignments:
            column = table.column(name)
            if column.kind in (PARTITION, CLUSTERING):
                if operation == "UPDATE":
                    raise invalid(f"PRIMARY KEY part {name} found in SET part")
                raise invalid(f"Invalid identifier {name} for deletion (should not be a PRIMARY KEY part)")
            if name in places:
                raise syntax_error(f"Multiple incompatible setting of column {name}")
            places[name] = sources.of(term, name, column.type)
        self._where = read_where(table, relations, sources, filtering=True, modifies=operation)
        statics = tuple(name for name in places if table.columns[name].kind == STATIC)
        regulars = tuple(name for name in places if table.columns[name].kind == REGULAR)
        _need_whole_partition_key(table, self._where)
        restricted = len(self._where.clustering) + len(self._where.tuple_columns)
        self._static_only = bool(statics) and not regulars and not restricted
        self.writes_static, self.writes_rows = bool(statics), not self._static_only
        if statics and not regulars and restricted:
            raise invalid(
                f"Invalid restrictions on clustering columns since the {operation} statement modifies only static "
                "columns"
            )
        if operation == "DELETE" and not self._static_only and restricted < len(table.clustering_key):
            raise invalid("Range deletions are not supported for specific columns")
        if self._where.range_columns:
            raise invalid("Slice restrictions are not supported on the clustering columns in UPDATE statements")
        if not self._static_only and restricted < len(table.clustering_key):
            missing = [c.name for c in table.clustering_key if c.name not in self._where.clustering]
            raise invalid(f"Some clustering keys are missing: {', '.join(missing)}")
        self._static_set, self._static_places = table.column_set(statics), [places[name] for name in statics]
        self._regular_set, self._regular_places = table.column_set(regulars), [places[name] for name in regulars]
        self.conditions = read_conditions(table, conditions, sources)
        self.finish(places | _named_sources(self._where))

    def changes(self, full: Values, timestamp: int, now_s: int) -> list[Change]:
        """The cells, for each row that the clause names."""
        ttl = self.ttl_of(full) if self.operation == "UPDATE" else 0
        if ttl:
            self.check_expiry(ttl, now_s)
        result: list[Change] = []
        statics = _set_only(self.table, self._static_set, [full[i] for i in self._static_places])
        regulars = _set_only(self.table, self._regular_set, [full[i] for i in self._regular_places])
        clusterings = [] if self._static_only else clustering_keys(self.table, self._where, full)
        for partition in partition_keys(self.table, self._where, full):
            written: list[Change] = []
            if statics[0].names:
                written.append(RowWrite(partition, (), None, *statics, timestamp, ttl, now_s, False))
            if regulars[0].names:
                written += [
                    RowWrite(partition, key, self.table.position_of(key), *regulars, timestamp, ttl, now_s, False)
                    for key in clusterings
                ]
            if written:
                result.append(written[0] if len(written) == 1 else Together(partition, tuple(written)))
        return result

    def lookup(self, full: Values) -> tuple[Key, Key | None]:
        """The one row a conditional update is about."""
        return _single_row(self.table, self._where, full, static_only=self._static_only)


class DeletePlan(ModifyPlan):
    """DELETE of rows, of slices or of whole partitions."""

    def __init__(self, table: Table, statement: st.Delete, sources: Sources) -> None:
        super().__init__(table, "DELETE", statement.using, sources)
        self._where = read_where(table, statement.where, sources, filtering=True, modifies="DELETE")
        _need_whole_partition_key(table, self._where)
        self._rows = len(self._where.clustering) + len(self._where.tuple_columns) == len(table.clustering_key)
        self.conditions = read_conditions(table, statement.conditions, sources)
        if self.conditions is not None and not self._rows:
            raise invalid(
                "DELETE statements must restrict all PRIMARY KEY columns with equality relations in order to delete "
                "non static columns"
            )
        self.finish(_named_sources(self._where))

    def changes(self, full: Values, timestamp: int, now_s: int) -> list[Change]:
        """Row, range or partition deletions."""
        deletion = Deletion(timestamp, now_s)
        table = self.table
        result: list[Change] = []
        for partition in partition_keys(table, self._where, full):
            written: list[Change]
            if self._rows and table.clustering_key:
                keys = clustering_keys(table, self._where, full)
                written = [row_deletion(partition, key, table.position_of(key), deletion) for key in keys]
            else:
                pieces = slices(table, self._where, full)
                if pieces == [EVERYTHING]:
                    written = [PartitionDeletion(partition, deletion)]
                else:
                    written = [RangeDeletion(partition, RangeTombstone(piece, deletion)) for piece in pieces]
            result.append(written[0] if len(written) == 1 else Together(partition, tuple(written)))
        return result

    def lookup(self, full: Values) -> tuple[Key, Key | None]:
        """The one row a conditional delete is about."""
        return _single_row(self.table, self._where, full, static_only=False)


def _named_sources(where: Where) -> dict[str, int]:
    restrictions = where.partition | where.clustering
    return {name: each.alternatives[0] for name, each in restrictions.items() if not each.is_in}


def _need_whole_partition_key(table: Table, where: Where) -> None:
    """A modification names whole partition keys, and nothing that only a filter could answer."""
    # A part of the partition key alone has been turned into a filter.
    missing = [column.name for column in table.partition_key if column.name not in where.partition]
    if missing:
        given = [column.name for column, _, _ in where.filters]
        missing = [name for name in missing if name not in given]
        raise invalid(f"Some partition key parts are missing: {', '.join(missing)}")
    for column, _, _ in where.filters:
        if column.kind == CLUSTERING:
            before = [c.name for c in table.clustering_key[: table.clustering_key.index(column)]]
            hole = next(name for name in before if name not in where.clustering)
            raise invalid(
                f'PRIMARY KEY column "{column.name}" cannot be restricted as preceding column "{hole}" is not '
                "restricted"
            )
    if where.filters:
        raise invalid(f"Non PRIMARY KEY columns found in where clause: {where.filters[0][0].name} ")


def clustering_keys(table: Table, where: Where, full: Values) -> list[Key]:
    """The full clustering keys that a clause with = and IN names."""
    keys: list[Key] = [()]
    for column in table.clustering_key:
        if column.name in where.clustering:
            values = where.clustering[column.name].values(full, column)
            keys = [(*key, value) for key in keys for value in values]
        elif where.tuple_columns and column.name == where.tuple_columns[0]:
            keys = [key + tuple(full[source] for source in row) for key in keys for row in where.tuples]
    return keys


def _single_row(table: Table, where: Where, full: Values, *, static_only: bool) -> tuple[Key, Key | None]:
    partitions = partition_keys(table, where, full)
    rows = [] if static_only else clustering_keys(table, where, full)
    if len(partitions) > 1:
        raise invalid("IN on the partition key is not supported with conditional updates")
    if len(rows) > 1:
        raise invalid("IN on the clustering key columns is not supported with conditional updates")
    return partitions[0], None if static_only else rows[0]


def read_conditions(
    table: Table, relations: tuple[st.Relation, ...] | None, sources: Sources
) -> tuple[Condition, ...] | None:
    """The IF clause; None without one, empty for IF EXISTS."""
    if relations is None:
        return None
    result = []
    for relation in relations:
        name = relation.columns[0]
        column = table.column(name)
        if column.kind in (PARTITION, CLUSTERING):
            raise invalid(f"PRIMARY KEY column '{name}' cannot have IF conditions")
        if relation.in_marker:
            source = sources.of(relation.values[0], f"in({name})", _list_of(column.type))
            result.append(Condition(column, "IN", (source,), in_marker=True))
            continue
        alternatives: tuple[Any, ...] = relation.values
        terms = [each[0] for each in alternatives] if relation.operator == "IN" else [alternatives[0]]
        result.append(Condition(column, relation.operator, tuple(sources.of(t, name, column.type) for t in terms)))
    return tuple(result)


def plan_modification(
    statement: st.Modification, markers: tuple[st.Marker, ...], catalog: Catalog, keyspace: str | None
) -> ModifyPlan:
    """The plan of an INSERT, UPDATE or DELETE."""
    table = catalog.table(statement.table, keyspace)
    if isinstance(statement, st.Insert):
        return InsertPlan(table, statement, markers)
    sources = Sources(markers)
    if isinstance(statement, st.Update):
        return UpdatePlan(
            table, "UPDATE", statement.using, statement.assignments, statement.where, statement.conditions, sources
        )
    if statement.columns:
        null = st.Literal("NULL", "null")
        nulls = tuple((name, null) for name in statement.columns)
        return UpdatePlan(table, "DELETE", statement.using, nulls, statement.where, statement.conditions, sources)
    return DeletePlan(table, statement, sources)


# ----------------------------------------------------------------------------------------------------------- reads


@dataclass(slots=True)
class Output:
    """One result column: `kind` is partition, clustering, column, writetime, ttl, token or count."""

    name: str
    kind: str
    place: int
    column: str
    type: CqlType


class SelectPlan:
    """SELECT from one table."""

    timestamp_source = ttl_source = -1

    def __init__(self, table: Table, statement: st.Select, markers: tuple[st.Marker, ...]) -> None:
        if statement.group_by:
            raise unsupported("GROUP BY")
        sources = Sources(markers)
        self.table = table
        self.operation = "SELECT"
        self.where = read_where(table, statement.where, sources, filtering=statement.allow_filtering)
        where = self.where
        by_key = bool(where.partition)
        if (
            not by_key
            and not statement.distinct
            and (where.clustering or where.range_columns or where.tuple_columns)
            and not statement.allow_filtering
        ):
            _need_filtering(False)
        if by_key and (where.token_lower or where.token_upper):
            raise unsupported("token() together with a partition key")
        self.is_distinct = statement.distinct
        self.outputs = self._outputs(table, statement)
        self.is_count = any(output.kind == "count" for output in self.outputs)
        if self.is_count and len(self.outputs) > 1:
            raise unsupported("an aggregate beside other columns")
        if self.is_distinct:
            self._check_distinct(table)
        self.is_reversed = self._reversed(table, statement)
        self.is_ordered = bool(statement.order_by)
        self.sorts_partitions = self.is_ordered and any(
            each.is_in and (isinstance(each, InMarkerRestriction) or len(each.alternatives) > 1)
            for each in where.partition.values()
        )
        """Whether rows of several partitions are asked for in one order."""
        self.limit_source = -1 if statement.limit is None else sources.of(statement.limit, "[limit]", _INT)
        self.per_partition_source = (
            -1
            if statement.per_partition_limit is None
            else sources.of(statement.per_partition_limit, "[per_partition_limit]", _INT)
        )
        if self.is_count and self.per_partition_source >= 0:
            raise invalid("PER PARTITION LIMIT is not allowed with aggregate queries.")
        self.names = [output.name for output in self.outputs]
        self.convert = tuple((i, o.type.to_python) for i, o in enumerate(self.outputs) if o.type.to_python is not None)
        self.binder = sources.binder()
        self.constants = tuple(sources.constants)
        named = _named_sources(where)
        self.trace_sources = (named.get("user_id", -1), named.get("symbol_id", -1), named.get("order_id", -1))
        self.statement_id = -1
        self.projections: dict[ColumnSet, Callable[[Values], Values] | None] = {}
        """What `projection` has found."""
        self.statics_matter = bool(table.statics)
        self.shows_times = any(output.kind in ("writetime", "ttl") for output in self.outputs)

    def _check_distinct(self, table: Table) -> None:
        where = self.where
        filtered = [column.kind for column, _, _ in where.filters]
        if where.clustering or where.range_columns or where.tuple_columns or CLUSTERING in filtered:
            raise invalid(
                "SELECT DISTINCT with WHERE clause only supports restriction by partition key and/or static columns."
            )
        for output in self.outputs:
            if output.column and table.columns[output.column].kind not in (PARTITION, STATIC):
                raise invalid(
                    "SELECT DISTINCT queries must only request partition key columns and/or static columns "
                    f"(not {output.column})"
                )
        selected = [output.column for output in self.outputs if output.kind == PARTITION]
        for column in table.partition_key:
            if column.name not in selected:
                raise invalid(
                    f"SELECT DISTINCT queries must request all the partition key columns (missing {column.name})"
                )

    def _outputs(self, table: Table, statement: st.Select) -> list[Output]:
        partition = [column.name for column in table.partition_key]
        clustering = [column.name for column in table.clustering_key]

        def plain(name: str, shown: str) -> Output:
            column = table.column(name)
            if column.kind == PARTITION:
                return Output(shown, PARTITION, partition.index(name), name, column.type)
            if column.kind == CLUSTERING:
                return Output(shown, CLUSTERING, clustering.index(name), name, column.type)
            return Output(shown, "column", 0, name, column.type)

        if not statement.selectors:
            return [plain(name, name) for name in table.columns]
        outputs = []
        for selector in statement.selectors:
            arguments = selector.arguments
            if not selector.function:
                outputs.append(plain(arguments[0], selector.alias or arguments[0]))
            elif selector.function == "count" and arguments in (("*",), ("1",)):
                outputs.append(Output(selector.alias or "count", "count", 0, "", _BIGINT))
            elif selector.function == "token":
                if arguments != tuple(partition):
                    raise unsupported("token() of other columns than the whole partition key")
                shown = selector.alias or f"system.token({', '.join(arguments)})"
                outputs.append(Output(shown, "token", 0, partition[0], _BIGINT))
            elif selector.function in ("writetime", "ttl") and len(arguments) == 1:
                name = arguments[0]
                if table.column(name).kind in (PARTITION, CLUSTERING):
                    raise invalid(f"Cannot use selection function {selector.function} on PRIMARY KEY part {name}")
                kind = _BIGINT if selector.function == "writetime" else _INT
                outputs.append(
                    Output(selector.alias or f"{selector.function}({name})", selector.function, 0, name, kind)
                )
            else:
                raise unsupported(f"the function {selector.function}({', '.join(arguments)})")
        return outputs

    def _reversed(self, table: Table, statement: st.Select) -> bool:
        if not statement.order_by:
            return False
        if not self.where.partition:
            raise invalid("ORDER BY is only supported when the partition key is restricted by an EQ or an IN.")
        pinned = [name for name, restriction in self.where.clustering.items() if not restriction.is_in]
        expected = list(table.clustering_key)
        flips = []
        for name, descending in statement.order_by:
            if table.column(name).kind != CLUSTERING:
                raise invalid(
                    f"Order by is currently only supported on the clustered columns of the PRIMARY KEY, got {name}"
                )
            while expected and expected[0].name != name and expected[0].name in pinned:
                expected.pop(0)
            if not expected or expected[0].name != name:
                raise invalid(
                    "Order by currently only supports the ordering of columns following their declared order in the "
                    "PRIMARY KEY"
                )
            flips.append(expected.pop(0).descending != descending)
        if any(flips) != all(flips):
            raise invalid("Unsupported order by relation")
        return flips[0]

    def limit_of(self, full: Values, source: int) -> int | None:
        """The value of LIMIT or PER PARTITION LIMIT, None without. The server's messages call both LIMIT."""
        if source < 0:
            return None
        value = full[source]
        if value is None:
            raise invalid("Invalid null value of limit")
        if value is UNSET_VALUE:
            return None
        if value <= 0:
            raise invalid("LIMIT must be strictly positive")
        return int(value)

    def projection(self, columns: ColumnSet) -> Callable[[Values], Values] | None:
        """How a whole row of these columns becomes a result row.

        It takes partition + clustering + values + (write timestamp, seconds left to live). None when that is not
        possible (a filter, token(), static columns) and the row must be looked at cell by cell.
        """
        try:
            return self.projections[columns]
        except KeyError:
            pass
        partition, clustering = len(self.table.partition_key), len(self.table.clustering_key)
        places: list[int] = []
        values_end = partition + clustering + len(columns.names)
        absent = -1
        for output in self.outputs:
            if output.kind == PARTITION:
                places.append(output.place)
            elif output.kind == CLUSTERING:
                places.append(partition + output.place)
            elif output.kind == "column" and self.table.columns[output.column].kind == REGULAR:
                place = columns.index.get(output.column)
                places.append(absent if place is None else partition + clustering + place)
            elif output.kind in ("writetime", "ttl") and output.column in columns.index:
                places.append(values_end + (output.kind == "ttl"))
            else:
                places.append(absent)
        found = None if absent in places or self.where.filters else picker(places)
        self.projections[columns] = found
        return found


@dataclass(slots=True)
class BatchPlan:
    """BEGIN BATCH ... APPLY BATCH, or the driver's BatchStatement: statements, each with its values.

    `timestamp` is that of BATCH USING TIMESTAMP.
    """

    kind: str
    entries: list[tuple[ModifyPlan, Values]]
    timestamp: int | None = None
    timestamp_source: int = -1
    """Not negative when every statement has a timestamp of its own, so that none need be taken for it."""

    @staticmethod
    def of(statement: st.Batch, markers: tuple[st.Marker, ...], catalog: Catalog, keyspace: str | None) -> BatchPlan:
        """The plan of a batch written as text. Bind markers in it are refused: the driver has BatchStatement for
        that."""
        if markers:
            raise unsupported("a bind marker inside BEGIN BATCH")
        if statement.kind == "COUNTER" or statement.using.ttl is not None:
            if statement.kind == "COUNTER":
                raise unsupported("a counter batch")
            raise invalid("Global TTL on the BATCH statement is not supported.")
        entries: list[tuple[ModifyPlan, Values]] = []
        for entry in statement.entries:
            plan = plan_modification(entry, (), catalog, keyspace)
            if plan.is_conditional:
                raise unsupported("a conditional batch")
            entries.append((plan, plan.constants))
        own = statement.using.timestamp
        return BatchPlan(statement.kind, entries, None if own is None else _constant(own, "[timestamp]", _BIGINT))


def plan_select(
    statement: st.Select, markers: tuple[st.Marker, ...], catalog: Catalog, keyspace: str | None
) -> SelectPlan:
    """The plan of a SELECT."""
    return SelectPlan(catalog.table(statement.table, keyspace), statement, markers)
