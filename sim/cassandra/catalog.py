"""Keyspaces and tables as the cluster knows them: columns, keys, orders, options.

A schema change is agreed upon by all nodes at once: schema disagreement is not simulated.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sim.cassandra import statements as st
from sim.cassandra.errors import ServerRefusal, already_exists, bad_configuration, invalid, syntax_error, unsupported
from sim.cassandra.types import CQL_TYPES, CqlType, Descending, cql_type

PARTITION, CLUSTERING, STATIC, REGULAR = "partition", "clustering", "static", "regular"

# Options that change nothing the simulation shows, and are accepted; the others below mean something, or are refused.
_INERT_OPTIONS = frozenset(
    re.findall(
        r"\w+",
        """
        comment compaction compression caching bloom_filter_fp_chance crc_check_chance memtable extensions
        memtable_flush_period_in_ms min_index_interval max_index_interval speculative_retry additional_write_policy
        gc_grace_seconds
        """,
    )
)


_OPTIONS_NOT_SIMULATED = frozenset({"cdc", "id", "allow_auto_snapshot", "incremental_backups"})


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """A column: `kind` is partition, clustering, static or regular."""

    name: str
    type: CqlType
    kind: str
    descending: bool = False


@dataclass(eq=False, slots=True)
class ColumnSet:
    """The value columns that a write names, in its order. Interned per table, so it is compared by identity.

    Where all are fixed-size numbers or booleans, and at most the last is a text, the values of a row are kept as bytes:
    as a tuple of Python objects they take several times the memory.
    """

    names: tuple[str, ...]
    types: tuple[CqlType, ...]
    clustering_of: Callable[[tuple[Any, ...]], tuple[Any, ...]] | None = None
    """How a row's clustering key follows from its position; None when it does not, and is kept beside it."""
    index: dict[str, int] = field(default_factory=dict)
    _codec: struct.Struct | None = None
    _ends_in_text: bool = False

    def __post_init__(self) -> None:
        self.index = {name: i for i, name in enumerate(self.names)}
        kinds = self.types
        self._ends_in_text = bool(kinds) and kinds[-1].name == "text"
        codes = ["?" if kind.name == "boolean" else kind.pack_code for kind in kinds]
        if self._ends_in_text:
            codes.pop()
        if codes and all(codes):
            self._codec = struct.Struct(">" + "".join(codes))

    def pack(self, values: tuple[Any, ...]) -> tuple[Any, ...] | bytes:
        """How the values of a row are kept. Those with a null among them stay a tuple."""
        codec = self._codec
        if codec is None or None in values:
            return values
        if self._ends_in_text:
            text: bytes = values[-1].encode()
            return codec.pack(*values[:-1]) + text
        return codec.pack(*values)

    def unpack(self, kept: bytes) -> tuple[Any, ...]:
        """The values that were packed."""
        codec = self._codec
        assert codec is not None
        if self._ends_in_text:
            return (*codec.unpack_from(kept), kept[codec.size :].decode())
        return codec.unpack(kept)


class Table:
    """One table of the catalogue. `version` grows with every ALTER, so that prepared plans can be seen to be stale."""

    def __init__(
        self,
        keyspace: str,
        name: str,
        columns: list[Column],
        *,
        replication_factor: int,
        default_ttl_s: int = 0,
        blocking_read_repair: bool = True,
    ) -> None:
        self.keyspace = keyspace
        self.name = name
        self.replication_factor = replication_factor
        """The keyspace's; it cannot be altered."""
        self.default_ttl_s = default_ttl_s
        self.blocking_read_repair = blocking_read_repair
        self.partition_key = tuple(c for c in columns if c.kind == PARTITION)
        self.clustering_key = tuple(c for c in columns if c.kind == CLUSTERING)
        self.columns: dict[str, Column] = {}
        self.statics: tuple[Column, ...] = ()
        self.regulars: tuple[Column, ...] = ()
        self._column_sets: dict[tuple[str, ...], ColumnSet] = {}
        self._values = tuple(c for c in columns if c.kind in (STATIC, REGULAR))
        self._arrange()
        self.key_space = (keyspace, *(column.type.name for column in self.partition_key))
        """Where equal partition keys are the same key: in the tables of one keyspace whose keys have the same types."""
        self.position_of = position_function(self.clustering_key)
        self._pack_key: Callable[..., bytes] | None = None
        codes = [column.type.pack_code for column in self.partition_key]
        if all(codes):
            # Composite keys: each part with its length before it and a zero behind it.
            layout = ">" + ("".join(f"H{code}x" for code in codes) if len(codes) > 1 else codes[0])
            self._pack_key = struct.Struct(layout).pack
            self._key_lengths = tuple(struct.calcsize(f">{code}") for code in codes) if len(codes) > 1 else None

    def _arrange(self) -> None:
        """`SELECT *` order: keys as declared, then statics and regulars, each by name."""
        self.statics = tuple(sorted((c for c in self._values if c.kind == STATIC), key=lambda c: c.name))
        self.regulars = tuple(sorted((c for c in self._values if c.kind == REGULAR), key=lambda c: c.name))
        everything = self.partition_key + self.clustering_key + self.statics + self.regulars
        self.columns = {column.name: column for column in everything}

    def add(self, column: Column) -> None:
        """ALTER TABLE ... ADD."""
        self._values += (column,)
        self._arrange()

    def column(self, name: str) -> Column:
        """The column of that name; InvalidRequest when there is none."""
        column = self.columns.get(name)
        if column is None:
            raise invalid(f"Undefined column name {name} in table {self.keyspace}.{self.name}")
        return column

    def column_set(self, names: tuple[str, ...]) -> ColumnSet:
        """The one ColumnSet of these names."""
        found = self._column_sets.get(names)
        if found is None:
            types = tuple(self.columns[name].type for name in names)
            found = self._column_sets[names] = ColumnSet(names, types, self.clustering_of())
        return found

    def clustering_of(self) -> Callable[[tuple[Any, ...]], tuple[Any, ...]] | None:
        """How a row's position gives its clustering key, None when it does not: asked of every row that is read."""
        if not _is_negated(self.clustering_key):
            return None
        count = len(self.clustering_key)
        return negated_one if count == 1 else negated_two if count == 2 else negated

    def routing_bytes(self, partition_key: tuple[Any, ...]) -> bytes:
        """The serialized partition key, from which its token is computed."""
        if self._pack_key is not None:
            if self._key_lengths is None:
                return self._pack_key(*partition_key)
            return self._pack_key(
                *[each for pair in zip(self._key_lengths, partition_key, strict=True) for each in pair]
            )
        parts = [column.type.to_bytes(value) for column, value in zip(self.partition_key, partition_key, strict=True)]
        if len(parts) == 1:
            return parts[0]
        return b"".join(len(part).to_bytes(2, "big") + part + b"\x00" for part in parts)


def position_function(clustering_key: tuple[Column, ...]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """How a clustering key becomes the tuple by which rows are ordered within a partition, ascending.

    Shorter tuples (prefixes) may be given: they get the position of their length.
    """
    if all(column.type.sort_key is None and not column.descending for column in clustering_key):
        return lambda clustering: clustering
    if _is_negated(clustering_key):
        return negated
    turns = tuple(_turn(column) for column in clustering_key)

    def position(clustering: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple([turn(value) for turn, value in zip(turns, clustering, strict=False)])

    return position


def _is_negated(clustering_key: tuple[Column, ...]) -> bool:
    """Whether positions are the clustering keys' numbers with the sign changed."""
    return bool(clustering_key) and all(column.type.negatable and column.descending for column in clustering_key)


def negated(numbers: tuple[Any, ...]) -> tuple[Any, ...]:
    """Each with the sign changed."""
    return tuple([-number for number in numbers])


def negated_one(numbers: tuple[Any, ...]) -> tuple[Any, ...]:
    """`negated` of one number."""
    return (-numbers[0],)


def negated_two(numbers: tuple[Any, ...]) -> tuple[Any, ...]:
    """`negated` of two."""
    return -numbers[0], -numbers[1]


def _turn(column: Column) -> Callable[[Any], Any]:
    key = column.type.sort_key
    if not column.descending:
        return key or (lambda value: value)
    if key is None and column.type.negatable:
        return lambda value: -value
    if key is None:
        return Descending
    return lambda value: Descending(key(value))


@dataclass(slots=True)
class Keyspace:
    """A keyspace with its replication factor and its tables."""

    name: str
    replication_factor: int
    tables: dict[str, Table] = field(default_factory=dict)


class Catalog:
    """All keyspaces. Methods that change it carry out one schema statement."""

    def __init__(self, nodes: int, datacenter: str) -> None:
        self.keyspaces: dict[str, Keyspace] = {}
        self.version = 0
        self._nodes = nodes
        self._datacenter = datacenter

    def keyspace(self, name: str | None) -> Keyspace:
        """The keyspace; InvalidRequest when none is named or there is no such one."""
        if name is None:
            raise invalid("No keyspace has been specified. USE a keyspace, or explicitly specify keyspace.tablename")
        keyspace = self.keyspaces.get(name)
        if keyspace is None:
            raise invalid(f"Keyspace '{name}' does not exist")
        return keyspace

    def keyspace_to_change(self, name: str | None) -> Keyspace:
        """The keyspace for a schema statement, whose messages are worded differently."""
        if name is not None and name not in self.keyspaces:
            raise invalid(f"Keyspace '{name}' doesn't exist")
        return self.keyspace(name)

    def table_to_change(self, name: st.TableName, default_keyspace: str | None) -> Table:
        """The table for a schema statement."""
        keyspace = self.keyspace_to_change(name.keyspace or default_keyspace)
        if name.table not in keyspace.tables:
            raise invalid(f"Table '{keyspace.name}.{name.table}' doesn't exist")
        return keyspace.tables[name.table]

    def table(self, name: st.TableName, default_keyspace: str | None) -> Table:
        """The table that a statement means."""
        if name.keyspace is not None and name.keyspace not in self.keyspaces:
            raise invalid(f"keyspace {name.keyspace} does not exist")
        keyspace = self.keyspace(name.keyspace or default_keyspace)
        table = keyspace.tables.get(name.table)
        if table is None:
            raise invalid(
                f"table {name.table} does not exist" if name.keyspace is None else f"unconfigured table {name.table}"
            )
        return table

    def create_keyspace(self, statement: st.CreateKeyspace) -> bool:
        """True when the keyspace was made, False when it was there and that was allowed."""
        if statement.name in self.keyspaces:
            if statement.if_not_exists:
                return False
            raise already_exists(statement.name, "")
        options = dict(statement.replication)
        if "class" not in options:
            raise bad_configuration("Missing replication strategy class")
        given = options.pop("class")
        strategy = given.rpartition(".")[2]
        if strategy not in ("SimpleStrategy", "NetworkTopologyStrategy"):
            full = given if "." in given else f"org.apache.cassandra.locator.{given}"
            raise bad_configuration(f"Unable to find replication strategy class '{full}'")
        allowed = {"replication_factor"} | ({self._datacenter} if strategy == "NetworkTopologyStrategy" else set())
        for option in options:
            if option not in allowed:
                raise bad_configuration(
                    f"Unrecognized strategy option {{{option}}} passed to {strategy} for keyspace {statement.name}"
                )
        factor = options.get(self._datacenter, options.get("replication_factor", "1"))  # 1 is default_keyspace_rf
        if not factor.removeprefix("-").isdecimal():
            raise bad_configuration(f'For input string: "{factor}"')
        if int(factor) < 0:
            raise bad_configuration(f"Replication factor must be non-negative, found {factor}")
        if int(factor) == 0:
            raise unsupported("a replication factor of 0")
        if int(factor) > self._nodes:
            raise unsupported(f"a replication factor of {factor} on {self._nodes} nodes")
        self.keyspaces[statement.name] = Keyspace(statement.name, int(factor))
        self.version += 1
        return True

    def drop_keyspace(self, statement: st.DropKeyspace) -> list[Table]:
        """The tables that are gone with it."""
        if statement.if_exists and statement.name not in self.keyspaces:
            return []
        keyspace = self.keyspace_to_change(statement.name)
        del self.keyspaces[statement.name]
        self.version += 1
        return list(keyspace.tables.values())

    def create_table(self, statement: st.CreateTable, default_keyspace: str | None) -> bool:
        """True when the table was made, False when it was there and that was allowed."""
        keyspace = self.keyspace_to_change(statement.table.keyspace or default_keyspace)
        name = statement.table.table
        if name in keyspace.tables:
            if statement.if_not_exists:
                return False
            raise already_exists(keyspace.name, name)
        keyspace.tables[name] = _make_table(keyspace, statement)
        self.version += 1
        return True

    def add_columns(self, statement: st.AlterTableAdd, default_keyspace: str | None) -> bool:
        """ALTER TABLE ... ADD; columns that exist are passed over if that was allowed."""
        table = self.table_to_change(statement.table, default_keyspace)
        added = False
        for definition in statement.columns:
            if definition.name in table.columns:
                if statement.if_not_exists:
                    continue
                raise invalid(f"Column with name '{definition.name}' already exists")
            if definition.static and not table.clustering_key:
                raise invalid(
                    "Static columns are only useful (and thus allowed) if the table has at least one clustering column"
                )
            kind = STATIC if definition.static else REGULAR
            table.add(Column(definition.name, _known_type(self.keyspaces[table.keyspace], definition.type), kind))
            added = True
        self.version += added
        return added

    def drop_table(self, statement: st.DropTable, default_keyspace: str | None) -> Table | None:
        """The table that is gone, None when there was none and that was allowed."""
        try:
            table = self.table_to_change(statement.table, default_keyspace)
        except ServerRefusal:
            if statement.if_exists:
                return None
            raise
        del self.keyspaces[table.keyspace].tables[table.name]
        self.version += 1
        return table


def _known_type(keyspace: Keyspace, written: st.TypeName) -> CqlType:
    """The type. One that is no type of CQL's own is taken for a user-defined type, of which there are none."""
    if written.name.lower() not in CQL_TYPES:
        raise invalid(f"Unknown type {keyspace.name}.{written.name.lower()}")
    return cql_type(written)


def _make_table(keyspace: Keyspace, statement: st.CreateTable) -> Table:
    name = statement.table.table
    defined: dict[str, st.ColumnDefinition] = {}
    for definition in statement.columns:
        if definition.name in defined:
            raise invalid(f"Duplicate column '{definition.name}' declaration for table '{name}'")
        defined[definition.name] = definition
    keys = statement.partition_key + statement.clustering_key
    for place, key in enumerate(keys):
        if key in keys[:place]:
            raise invalid(f"Duplicate column '{key}' in PRIMARY KEY clause for table '{name}'")
    ordered = tuple(column for column, _ in statement.clustering_order)
    strangers = [column for column in ordered if column not in statement.clustering_key]
    if strangers:
        raise invalid(
            "Only clustering key columns can be defined in CLUSTERING ORDER directive: "
            f"[{', '.join(strangers)}] are not clustering columns"
        )
    for column in statement.clustering_key if ordered else ():
        if column not in ordered:
            raise invalid(f"Missing CLUSTERING ORDER for column {column}")
    if ordered and ordered != statement.clustering_key:
        early, late = next(pair for pair in zip(statement.clustering_key, ordered, strict=True) if pair[0] != pair[1])
        raise invalid(
            "The order of columns in the CLUSTERING ORDER directive must match that of the clustering columns "
            f"({early} must appear before {late})"
        )
    descending = dict(statement.clustering_order)
    columns = []
    for key in keys:
        if key not in defined:
            raise invalid(f"Unknown column '{key}' referenced in PRIMARY KEY for table '{name}'")
        kind = PARTITION if key in statement.partition_key else CLUSTERING
        key_type = _known_type(keyspace, defined[key].type)
        if defined[key].static:
            raise invalid(f"Static column '{key}' cannot be part of the PRIMARY KEY")
        if not key_type.key_allowed:
            raise unsupported(f"a key column of type {key_type.name}")
        columns.append(Column(key, key_type, kind, descending.get(key, False)))
    for definition in statement.columns:
        if definition.name not in keys:
            if definition.static and not statement.clustering_key:
                raise invalid(
                    "Static columns are only useful (and thus allowed) if the table has at least one clustering column"
                )
            kind = STATIC if definition.static else REGULAR
            columns.append(Column(definition.name, _known_type(keyspace, definition.type), kind))
    options = dict(statement.options)
    read_repair = options.pop("read_repair", "BLOCKING").upper()
    if read_repair not in ("BLOCKING", "NONE"):
        raise bad_configuration(f"Invalid value {read_repair} for option 'read_repair'")
    default_ttl = options.pop("default_time_to_live", "0")
    if not default_ttl.removeprefix("-").isdecimal():
        raise syntax_error(f"Invalid integer value {default_ttl} for 'default_time_to_live'")
    if int(default_ttl) < 0:
        raise bad_configuration(f"default_time_to_live must be greater than or equal to 0 (got {default_ttl})")
    for option in options:
        if option in _OPTIONS_NOT_SIMULATED:
            raise unsupported(f"the table option {option}")
        if option not in _INERT_OPTIONS:
            raise syntax_error(f"Unknown property '{option}'")
    return Table(
        keyspace.name,
        name,
        columns,
        replication_factor=keyspace.replication_factor,
        default_ttl_s=int(default_ttl),
        blocking_read_repair=read_repair == "BLOCKING",
    )
