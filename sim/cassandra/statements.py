"""What a CQL text says, before anyone has looked at a table: the records that the parser makes and the planner reads.

Nothing here knows types or columns. Terms are literals, bind markers, function calls and collection literals; a
marker's `position` is its place among the markers of its statement, counted from 0 in the order of the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant. `kind` is one of STRING, INTEGER, FLOAT, UUID, HEX, BOOLEAN, NULL; `text` as written, unquoted."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Marker:
    """A bind marker, `?` (no name) or `:name`."""

    position: int
    name: str | None


@dataclass(frozen=True, slots=True)
class Call:
    """A function call in a place where a value is written."""

    function: str
    arguments: tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class Collection:
    """A list, set, map or tuple literal; a map's items are (key, value) pairs."""

    kind: str
    items: tuple[object, ...]


Term = Literal | Marker | Call | Collection


@dataclass(frozen=True, slots=True)
class TableName:
    """A table, with its keyspace when the text names one."""

    keyspace: str | None
    table: str


@dataclass(frozen=True, slots=True)
class Relation:
    """One condition of a WHERE or IF clause.

    `operator` is =, <, <=, >, >=, != or IN. `columns` has several names for a multi-column relation; `on_token` says
    that the columns stand inside token(). `values` holds one term per column, for IN one tuple of terms per alternative
    (or a single marker, `in_marker`).
    """

    columns: tuple[str, ...]
    operator: str
    values: tuple[Any, ...]
    on_token: bool = False
    multi: bool = False
    in_marker: bool = False


@dataclass(frozen=True, slots=True)
class Selector:
    """One result column: `function` is '' for a plain column; `argument` is '*' in count(*)."""

    function: str
    arguments: tuple[str, ...]
    alias: str | None


@dataclass(frozen=True, slots=True)
class Select:
    """SELECT; `selectors` is empty for `*`."""

    table: TableName
    selectors: tuple[Selector, ...]
    distinct: bool
    where: tuple[Relation, ...]
    order_by: tuple[tuple[str, bool], ...]
    limit: Term | None
    per_partition_limit: Term | None
    allow_filtering: bool
    group_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Using:
    """USING TIMESTAMP (microseconds since 1970) AND TTL (seconds)."""

    timestamp: Term | None = None
    ttl: Term | None = None


@dataclass(frozen=True, slots=True)
class Insert:
    """INSERT."""

    table: TableName
    columns: tuple[str, ...]
    values: tuple[Term, ...]
    if_not_exists: bool
    using: Using


@dataclass(frozen=True, slots=True)
class Update:
    """UPDATE with plain assignments; `conditions` is None without IF, empty for IF EXISTS."""

    table: TableName
    using: Using
    assignments: tuple[tuple[str, Term], ...]
    where: tuple[Relation, ...]
    conditions: tuple[Relation, ...] | None


@dataclass(frozen=True, slots=True)
class Delete:
    """DELETE of `columns`, or of whatever rows `where` covers when there are none."""

    table: TableName
    columns: tuple[str, ...]
    using: Using
    where: tuple[Relation, ...]
    conditions: tuple[Relation, ...] | None


@dataclass(frozen=True, slots=True)
class Batch:
    """BEGIN ... BATCH; `kind` is LOGGED, UNLOGGED or COUNTER."""

    kind: str
    using: Using
    entries: tuple[Insert | Update | Delete, ...]


@dataclass(frozen=True, slots=True)
class TypeName:
    """A type as written, e.g. map<text, frozen<list<int>>>."""

    name: str
    parameters: tuple[TypeName, ...]

    def __str__(self) -> str:
        return self.name + (f"<{', '.join(map(str, self.parameters))}>" if self.parameters else "")


@dataclass(frozen=True, slots=True)
class ColumnDefinition:
    """A column of CREATE TABLE or ALTER TABLE ADD."""

    name: str
    type: TypeName
    static: bool
    primary_key: bool


@dataclass(frozen=True, slots=True)
class CreateKeyspace:
    """CREATE KEYSPACE with its replication map."""

    name: str
    if_not_exists: bool
    replication: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class DropKeyspace:
    """DROP KEYSPACE."""

    name: str
    if_exists: bool


@dataclass(frozen=True, slots=True)
class CreateTable:
    """CREATE TABLE; `clustering_order` pairs a column with "is descending"; `options` are name and value as text."""

    table: TableName
    if_not_exists: bool
    columns: tuple[ColumnDefinition, ...]
    partition_key: tuple[str, ...]
    clustering_key: tuple[str, ...]
    clustering_order: tuple[tuple[str, bool], ...]
    options: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class AlterTableAdd:
    """ALTER TABLE ... ADD."""

    table: TableName
    if_not_exists: bool
    columns: tuple[ColumnDefinition, ...]


@dataclass(frozen=True, slots=True)
class DropTable:
    """DROP TABLE."""

    table: TableName
    if_exists: bool


@dataclass(frozen=True, slots=True)
class Truncate:
    """TRUNCATE."""

    table: TableName


@dataclass(frozen=True, slots=True)
class Use:
    """USE keyspace."""

    keyspace: str


Modification = Insert | Update | Delete
Statement = (
    Select
    | Insert
    | Update
    | Delete
    | Batch
    | CreateKeyspace
    | DropKeyspace
    | CreateTable
    | AlterTableAdd
    | DropTable
    | Truncate
    | Use
)
