"""From CQL text to a statement record, by the lark grammar in `cql.lark`.

A text is parsed once in a process; its plan is made once for each keyspace. What no Cassandra would read
raises `SyntaxException`; what Cassandra reads and the simulated one does not raises `InvalidRequest` and names it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from lark import Lark, Token, Transformer, v_args
from lark.exceptions import UnexpectedInput, VisitError

from sim.cassandra import statements as st
from sim.cassandra.errors import ServerRefusal, invalid, syntax_error, unsupported

# Words that cannot name a column or table unless quoted (Cassandra 5.0, appendix A of the CQL reference).
RESERVED_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        add allow alter and apply asc authorize batch begin by columnfamily create default delete desc describe drop
        entries execute from full grant if in index infinity insert into is keyspace limit materialized modify nan
        norecursive not null of on or order primary rename replace revoke schema select set table to token truncate
        unlogged unset update use using view where with
        """,
    )
)

_REFUSED = (
    (re.compile(r"\s*SELECT\s+JSON\b", re.I), "SELECT JSON"),
    (re.compile(r"\s*INSERT\s+INTO\s+[\w.\"]+\s+JSON\b", re.I), "INSERT JSON"),
    (re.compile(r"\s*CREATE\s+(CUSTOM\s+)?INDEX\b", re.I), "CREATE INDEX"),
    (re.compile(r"\s*CREATE\s+MATERIALIZED\s+VIEW\b", re.I), "CREATE MATERIALIZED VIEW"),
    (
        re.compile(r"\s*(CREATE|ALTER|DROP)\s+(OR\s+REPLACE\s+)?(TYPE|FUNCTION|AGGREGATE|ROLE|USER|TRIGGER)\b", re.I),
        "this schema statement",
    ),
    (re.compile(r"\s*(DROP\s+(INDEX|MATERIALIZED)|ALTER\s+(KEYSPACE|MATERIALIZED))\b", re.I), "this schema statement"),
    (re.compile(r"\s*(GRANT|REVOKE|LIST|DESCRIBE|DESC)\b", re.I), "this statement"),
)


@lru_cache(maxsize=1)
def _parser() -> Lark:
    text = Path(__file__).with_name("cql.lark").read_text(encoding="utf-8")
    return Lark(text, parser="lalr", lexer="contextual", maybe_placeholders=True)


@lru_cache(maxsize=4096)
def parse(text: str) -> tuple[st.Statement, tuple[st.Marker, ...]]:
    """The statement and its bind markers in order. Raises `ServerRefusal`.

    Remembered from cluster to cluster: what a text says depends on no table, and the records are immutable.
    """
    for pattern, what in _REFUSED:
        if pattern.match(text):
            raise unsupported(what)
    try:
        tree = _parser().parse(text)
    except UnexpectedInput as error:
        raise syntax_error(f"line {error.line}:{error.column} no viable alternative in {text!r}") from None
    build = _Build()
    try:
        statement = cast(st.Statement, build.transform(tree))
    except VisitError as error:
        if isinstance(error.orig_exc, ServerRefusal):
            raise error.orig_exc from None
        raise
    return statement, tuple(build.markers)


def _unquote(token: str) -> str:
    if token.startswith("$$"):
        return token[2:-2]
    quote = token[0]
    return token[1:-1].replace(quote * 2, quote)


@v_args(inline=True)
class _Build(Transformer[Token, Any]):
    """Bottom-up, so markers are met in the order of the text."""

    def __init__(self) -> None:
        super().__init__()
        self.markers: list[st.Marker] = []

    def start(self, statement: st.Statement) -> st.Statement:
        return statement

    # words and terms

    def unquoted_name(self, token: Token) -> str:
        name = token.lower()
        if name in RESERVED_WORDS:
            raise syntax_error(
                f"line {token.line}:{token.column} mismatched input '{token}': a reserved word must be quoted"
            )
        return name

    def quoted_name(self, token: Token) -> str:
        return _unquote(token)

    def table_name(self, first: str, second: str | None) -> st.TableName:
        return st.TableName(None, first) if second is None else st.TableName(first, second)

    def names(self, *names: str) -> tuple[str, ...]:
        return names

    def terms(self, *terms: st.Term) -> tuple[st.Term, ...]:
        return terms

    def anonymous_marker(self) -> st.Marker:
        return self._marker(None)

    def named_marker(self, name: Token) -> st.Marker:
        return self._marker(name.lower())

    def _marker(self, name: str | None) -> st.Marker:
        marker = st.Marker(len(self.markers), name)
        self.markers.append(marker)
        return marker

    def string(self, token: Token) -> st.Literal:
        return st.Literal("STRING", _unquote(token))

    def integer(self, token: Token) -> st.Literal:
        return st.Literal("INTEGER", str(token))

    def float(self, token: Token) -> st.Literal:
        return st.Literal("FLOAT", str(token))

    def uuid(self, token: Token) -> st.Literal:
        return st.Literal("UUID", str(token))

    def blob(self, token: Token) -> st.Literal:
        return st.Literal("HEX", str(token)[2:])

    def true(self, _token: Token) -> st.Literal:
        return st.Literal("BOOLEAN", "true")

    def false(self, _token: Token) -> st.Literal:
        return st.Literal("BOOLEAN", "false")

    def null(self) -> st.Literal:
        return st.Literal("NULL", "null")

    def function_call(self, name: Token, arguments: tuple[st.Term, ...] | None) -> st.Call:
        return st.Call(name.lower(), arguments or ())

    def list_literal(self, items: tuple[st.Term, ...] | None) -> st.Collection:
        return st.Collection("list", items or ())

    def set_literal(self, items: tuple[st.Term, ...] | None) -> st.Collection:
        return st.Collection("set", items or ())

    def tuple_literal(self, items: tuple[st.Term, ...]) -> st.Collection:
        return st.Collection("tuple", items)

    def map_entry(self, key: st.Term, value: st.Term) -> tuple[st.Term, st.Term]:
        return key, value

    def map_literal(self, *entries: tuple[st.Term, st.Term]) -> st.Collection:
        return st.Collection("map", entries)

    # reading

    def distinct(self) -> bool:
        return True

    def select_all(self) -> tuple[st.Selector, ...]:
        return ()

    def selectors(self, *selectors: st.Selector) -> tuple[st.Selector, ...]:
        return selectors

    def column_selected(self, name: str) -> st.Selector:
        return st.Selector("", (name,), None)

    def function_call_selected(self, name: Token, arguments: tuple[str, ...] | None) -> st.Selector:
        return st.Selector(name.lower(), arguments or (), None)

    def all_arguments(self) -> tuple[str, ...]:
        return ("*",)

    def selected_arguments(self, *names: str) -> tuple[str, ...]:
        return names

    def integer_argument(self, token: Token) -> str:
        return str(token)

    def selector(self, selected: st.Selector, alias: str | None) -> st.Selector:
        return st.Selector(selected.function, selected.arguments, alias)

    def group_by(self, *names: str) -> tuple[str, ...]:
        return names

    def ordering(self, name: str, order: Token | None) -> tuple[str, bool]:
        return name, order is not None and order.upper() == "DESC"

    def order_by(self, *orderings: tuple[str, bool]) -> tuple[tuple[str, bool], ...]:
        return orderings

    def limit(self, term: st.Term) -> st.Term:
        return term

    def per_partition_limit(self, term: st.Term) -> st.Term:
        return term

    def allow_filtering(self) -> bool:
        return True

    def select(
        self,
        distinct: bool | None,
        selectors: tuple[st.Selector, ...],
        table: st.TableName,
        where: tuple[st.Relation, ...] | None,
        group_by: tuple[str, ...] | None,
        order_by: tuple[tuple[str, bool], ...] | None,
        per_partition_limit: st.Term | None,
        limit: st.Term | None,
        allow_filtering: bool | None,
    ) -> st.Select:
        return st.Select(
            table,
            selectors,
            bool(distinct),
            where or (),
            order_by or (),
            limit,
            per_partition_limit,
            bool(allow_filtering),
            group_by or (),
        )

    def where(self, *relations: st.Relation) -> tuple[st.Relation, ...]:
        return relations

    def operator(self, token: Token) -> Token:
        return token

    def compare(self, name: str, operator: Token, term: st.Term) -> st.Relation:
        return st.Relation((name,), str(operator), (term,))

    def compare_token(self, names: tuple[str, ...], operator: Token, term: st.Term) -> st.Relation:
        return st.Relation(names, str(operator), (term,), on_token=True)

    def compare_tuple(
        self, names: tuple[str, ...], operator: Token, terms: tuple[st.Term, ...] | st.Marker
    ) -> st.Relation:
        if isinstance(terms, st.Marker):
            raise unsupported("a bind marker for a whole tuple")
        return st.Relation(names, str(operator), terms, multi=True)

    def tuple_in(self, names: tuple[str, ...], tuples: tuple[object, ...] | st.Marker) -> st.Relation:
        if isinstance(tuples, st.Marker) or any(isinstance(each, st.Marker) for each in tuples):
            raise unsupported("a bind marker for a whole tuple")
        return st.Relation(names, "IN", tuples, multi=True)

    def relation_in(self, name: str, values: tuple[st.Term, ...] | st.Marker) -> st.Relation:
        if isinstance(values, st.Marker):
            return st.Relation((name,), "IN", (values,), in_marker=True)
        return st.Relation((name,), "IN", tuple((value,) for value in values))

    def relation_is_not_null(self, _name: str) -> st.Relation:
        raise unsupported("IS NOT NULL")

    def relation_contains(self, *_parts: object) -> st.Relation:
        raise unsupported("CONTAINS")

    def relation_like(self, *_parts: object) -> st.Relation:
        raise unsupported("LIKE")

    def token_of(self, *names: str) -> tuple[str, ...]:
        return names

    def names_tuple(self, *names: str) -> tuple[str, ...]:
        return names

    def in_list(self, terms: tuple[st.Term, ...] | None) -> tuple[st.Term, ...]:
        return terms or ()

    def in_marker(self, marker: st.Marker) -> st.Marker:
        return marker

    def tuple_of_terms(self, terms: tuple[st.Term, ...]) -> tuple[st.Term, ...]:
        return terms

    def tuple_or_marker(self, marker: st.Marker) -> st.Marker:
        return marker

    def list_of_tuples(self, *tuples: object) -> tuple[object, ...]:
        return tuples

    # writing

    def if_not_exists(self) -> bool:
        return True

    def using_timestamp(self, term: st.Term) -> tuple[str, st.Term]:
        return "timestamp", term

    def using_ttl(self, term: st.Term) -> tuple[str, st.Term]:
        return "ttl", term

    def using(self, *options: tuple[str, st.Term]) -> st.Using:
        given = dict(options)  # of an option that is given twice the last counts, as in Cassandra
        return st.Using(given.get("timestamp"), given.get("ttl"))

    def insert(
        self,
        table: st.TableName,
        columns: tuple[str, ...],
        values: tuple[st.Term, ...],
        if_not_exists: bool | None,
        using: st.Using | None,
    ) -> st.Insert:
        return st.Insert(table, columns, values, bool(if_not_exists), using or st.Using())

    def assign(self, name: str, _equals: Token, term: st.Term) -> tuple[str, st.Term]:
        return name, term

    def assign_change(self, *_parts: object) -> tuple[str, st.Term]:
        raise unsupported("changing a counter or collection in place")

    assign_prepend = assign_change_short = assign_element = assign_change

    def if_exists(self) -> tuple[st.Relation, ...]:
        return ()

    def if_conditions(self, *conditions: st.Relation) -> tuple[st.Relation, ...]:
        return conditions

    def condition(self, name: str, operator: Token, term: st.Term) -> st.Relation:
        return st.Relation((name,), str(operator), (term,))

    def condition_in(self, name: str, values: tuple[st.Term, ...] | st.Marker) -> st.Relation:
        return self.relation_in(name, values)

    def update(
        self,
        table: st.TableName,
        using: st.Using | None,
        *rest: object,
    ) -> st.Update:
        *assignments, where, conditions = rest
        return st.Update(
            table,
            using or st.Using(),
            cast("tuple[tuple[str, st.Term], ...]", tuple(assignments)),
            cast("tuple[st.Relation, ...]", where),
            cast("tuple[st.Relation, ...] | None", conditions),
        )

    def delete_column(self, name: str) -> str:
        return name

    def delete_element(self, *_parts: object) -> str:
        raise unsupported("deleting an element of a collection")

    def deletions(self, *names: str) -> tuple[str, ...]:
        return names

    def delete(
        self,
        columns: tuple[str, ...] | None,
        table: st.TableName,
        using: st.Using | None,
        where: tuple[st.Relation, ...],
        conditions: tuple[st.Relation, ...] | None,
    ) -> st.Delete:
        if using is not None and using.ttl is not None:
            raise syntax_error("DELETE takes no TTL")
        return st.Delete(table, columns or (), using or st.Using(), where, conditions)

    def batch_entry(self, entry: st.Modification) -> st.Modification:
        return entry

    def batch(self, kind: Token | None, using: st.Using | None, *entries: st.Modification) -> st.Batch:
        return st.Batch("LOGGED" if kind is None else kind.upper(), using or st.Using(), entries)

    # the schema

    def option(self, name: str, _equals: Token, term: st.Term) -> tuple[str, object]:
        if isinstance(term, st.Literal):
            return name, term.text
        if isinstance(term, st.Collection) and term.kind in ("map", "set"):
            pairs = cast("tuple[tuple[st.Literal, st.Literal], ...]", term.items)
            return name, tuple((key.text, value.text) for key, value in pairs)
        raise syntax_error(f"option {name} needs a constant or a map")

    def keyspace_options(self, *options: tuple[str, object]) -> tuple[tuple[str, object], ...]:
        return options

    def create_keyspace(
        self, if_not_exists: bool | None, name: str, options: tuple[tuple[str, object], ...] | None
    ) -> st.CreateKeyspace:
        given = dict(options or ())
        for option in given:
            if option not in ("replication", "durable_writes"):
                raise syntax_error(f"Unknown property '{option}'")
        if "replication" not in given:
            raise invalid("Missing mandatory option 'replication'")
        replication = given["replication"]
        if not isinstance(replication, tuple):
            raise syntax_error("replication must be a map")
        return st.CreateKeyspace(name, bool(if_not_exists), replication)

    def if_exists_clause(self) -> bool:
        return True

    def drop_keyspace(self, if_exists: bool | None, name: str) -> st.DropKeyspace:
        return st.DropKeyspace(name, bool(if_exists))

    def type_name(self, token: Token) -> str:
        return token.lower()

    def cql_type(self, name: str, *parameters: st.TypeName | Token | None) -> st.TypeName:
        return st.TypeName(name, tuple(each for each in parameters if isinstance(each, st.TypeName)))

    def static(self) -> bool:
        return True

    def column_primary_key(self) -> bool:
        return True

    def column_definition(
        self, name: str, type_name: st.TypeName, static: bool | None, primary_key: bool | None
    ) -> st.ColumnDefinition:
        return st.ColumnDefinition(name, type_name, bool(static), bool(primary_key))

    def partition_key(self, *names: str) -> tuple[str, ...]:
        return names

    def primary_key(self, partition: tuple[str, ...], *clustering: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return partition, clustering

    def clustering_order(self, *orderings: tuple[str, bool]) -> tuple[str, object]:
        return "clustering order", orderings

    def compact_storage(self) -> tuple[str, object]:
        raise unsupported("COMPACT STORAGE")

    def table_option(self, option: tuple[str, object]) -> tuple[str, object]:
        return option

    def table_options(self, *options: tuple[str, object]) -> tuple[tuple[str, object], ...]:
        return options

    def create_table(self, if_not_exists: bool | None, table: st.TableName, *rest: object) -> st.CreateTable:
        *elements, options = rest
        columns = tuple(each for each in elements if isinstance(each, st.ColumnDefinition))
        keys = [each for each in elements if not isinstance(each, st.ColumnDefinition)]
        keys += [((each.name,), ()) for each in columns if each.primary_key]
        if not keys:
            raise invalid(f"No PRIMARY KEY specifed for table '{table.table}' (exactly one required)")
        if len(keys) > 1:
            raise invalid(f"Multiple PRIMARY KEY specified for table '{table.table}' (exactly one required)")
        partition, clustering = cast("tuple[tuple[str, ...], tuple[str, ...]]", keys[0])
        given = cast("tuple[tuple[str, object], ...]", options or ())
        order = cast("tuple[tuple[str, bool], ...]", dict(given).get("clustering order", ()))
        plain = tuple(
            (name, value if isinstance(value, str) else repr(value))
            for name, value in given
            if name != "clustering order"
        )
        return st.CreateTable(table, bool(if_not_exists), columns, partition, clustering, order, plain)

    def drop_table(self, if_exists: bool | None, table: st.TableName) -> st.DropTable:
        return st.DropTable(table, bool(if_exists))

    def added_columns(self, *columns: st.ColumnDefinition) -> tuple[st.ColumnDefinition, ...]:
        return columns

    def alter_table(
        self, table: st.TableName, if_not_exists: bool | None, columns: tuple[st.ColumnDefinition, ...]
    ) -> st.AlterTableAdd:
        return st.AlterTableAdd(table, bool(if_not_exists), columns)

    def alter_drop(self, *_parts: object) -> st.AlterTableAdd:
        raise unsupported("ALTER TABLE ... DROP")

    def alter_options(self, *_parts: object) -> st.AlterTableAdd:
        raise unsupported("ALTER TABLE ... WITH")

    def truncate(self, table: st.TableName) -> st.Truncate:
        return st.Truncate(table)

    def use(self, keyspace: str) -> st.Use:
        return st.Use(keyspace)
