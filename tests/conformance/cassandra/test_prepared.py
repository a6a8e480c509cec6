"""Prepared statements: binding by place and by name, null, unset, wrong types, too few and too many values."""

from __future__ import annotations

from decimal import Decimal

import pytest
from cassandra.query import UNSET_VALUE

INSERT = "INSERT INTO $t (p, c, a, b) VALUES (?, ?, ?, ?)"


def shown(t):
    return t.run("SELECT c, a, b FROM $t WHERE p = $p")


def test_bind_by_place(t):
    t.bound(INSERT, (t.key, 1, 2, "x"))
    t.bound(INSERT, [t.key, 2, 3, "y"])
    assert shown(t) == [(1, 2, "x"), (2, 3, "y")]


def test_bind_by_name(t):
    t.bound(INSERT, {"c": 1, "b": "x", "a": 2, "p": t.key, "no_such_column": 5})
    assert shown(t) == [(1, 2, "x")]


def test_a_name_left_out_is_unset(t):
    t.bound(INSERT, (t.key, 1, 2, "x"))
    t.bound(INSERT, {"p": t.key, "c": 1, "a": 3})
    assert shown(t) == [(1, 3, "x")]


def test_values_left_out_are_unset(t):
    t.bound(INSERT, (t.key, 1, 2, "x"))
    t.bound(INSERT, (t.key, 1))
    assert shown(t) == [(1, 2, "x")]


def test_null_deletes_and_unset_leaves(t):
    t.bound(INSERT, (t.key, 1, 2, "x"))
    t.bound(INSERT, (t.key, 1, None, UNSET_VALUE))
    assert shown(t) == [(1, None, "x")]


def test_named_markers(t):
    insert = t.store.prepare(t.text("INSERT INTO $t (p, c, a) VALUES (:key, :place, :amount)"))
    assert [column.name for column in insert.column_metadata] == ["key", "place", "amount"]
    t.store.session.execute(insert, {"key": t.key, "place": 1, "amount": 2})
    assert shown(t) == [(1, 2, None)]


def test_a_prepared_statement_tells_its_columns_and_routing(t):
    insert = t.store.prepare(t.text(INSERT))
    assert [column.name for column in insert.column_metadata] == ["p", "c", "a", "b"]
    assert [column.type.typename for column in insert.column_metadata] == ["int", "int", "int", "varchar"]
    assert [column.table_name for column in insert.column_metadata] == [t.name] * 4
    assert insert.routing_key_indexes == [0]
    assert insert.bind((5, 1, 2, "x")).routing_key == b"\x00\x00\x00\x05"
    assert insert.query_string == t.text(INSERT)
    assert insert.consistency_level is None
    assert not insert.is_idempotent


def test_routing_of_a_composite_key(make_partition):
    t = make_partition("u int, s text, v int, PRIMARY KEY ((u, s))")
    insert = t.store.prepare(t.text("INSERT INTO $t (v, s, u) VALUES (?, ?, ?)"))
    assert insert.routing_key_indexes == [2, 1]
    assert insert.bind((1, "ab", 5)).routing_key == b"\x00\x04\x00\x00\x00\x05\x00\x00\x02ab\x00"


def test_routing_is_unknown_where_the_key_is_not_bound(t):
    assert not t.store.prepare(t.text("SELECT a FROM $t WHERE p = 1 AND c = ?")).routing_key_indexes
    assert not t.store.prepare(t.text("SELECT a FROM $t")).routing_key_indexes


def test_markers_of_options(t):
    statement = t.store.prepare(t.text("UPDATE $t USING TIMESTAMP ? AND TTL ? SET a = ? WHERE p = ? AND c = ?"))
    assert [column.name for column in statement.column_metadata] == ["[timestamp]", "[ttl]", "a", "p", "c"]
    t.store.session.execute(statement, (77, 1000, 5, t.key, 1))
    ((a, written, left),) = t.run("SELECT a, writetime(a), ttl(a) FROM $t WHERE p = $p")
    assert (a, written) == (5, 77)
    assert 990 <= left <= 1000
    select = t.store.prepare(t.text("SELECT a FROM $t WHERE p = ? PER PARTITION LIMIT ? LIMIT ?"))
    assert [column.name for column in select.column_metadata] == ["p", "[per_partition_limit]", "[limit]"]
    assert list(t.store.session.execute(select, (t.key, 1, 1))) == [(5,)]


def test_markers_of_in_and_tuples(t):
    select = t.store.prepare(t.text("SELECT a FROM $t WHERE p IN ? AND c IN ?"))
    assert [column.name for column in select.column_metadata] == ["in(p)", "in(c)"]
    select = t.store.prepare(t.text("SELECT a FROM $t WHERE p = ? AND (c) > (?)"))
    assert [column.name for column in select.column_metadata] == ["p", "c"]
    select = t.store.prepare(t.text("SELECT a FROM $t WHERE token(p) > ?"))
    assert [column.name for column in select.column_metadata] == ["partition key token"]


def test_unset_time_to_live_timestamp_and_limit(t):
    t.bound("INSERT INTO $t (p, c, a) VALUES (?, ?, ?) USING TTL ?", (t.key, 1, 5, UNSET_VALUE))
    assert t.run("SELECT a, ttl(a) FROM $t WHERE p = $p") == [(5, None)]
    t.bound("INSERT INTO $t (p, c, a) VALUES (?, ?, ?) USING TIMESTAMP ?", (t.key, 1, 6, UNSET_VALUE))
    assert t.run("SELECT a FROM $t WHERE p = $p") == [(6,)]
    assert t.bound("SELECT a FROM $t WHERE p = ? LIMIT ?", (t.key, UNSET_VALUE)) == [(6,)]


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ((1, 1, "x", "n"), TypeError),
        ((1, 1, 2**31, "n"), TypeError),
        ((1, 1, 1.5, "n"), TypeError),
        ((1, 1, Decimal(1), "n"), TypeError),
        (("1", 1, 1, "n"), TypeError),
        ((1, 1, 1, 5), AttributeError),  # the driver's own slip: int has no encode
        ((1, 1, 1, b"n"), AttributeError),
        ((1, 1, 1, "n", 5), ValueError),
        ((), ValueError),
        ((UNSET_VALUE, 1, 1, "n"), ValueError),
        ({"c": 1}, ValueError),
    ],
)
def test_wrong_values_fail_in_the_caller(t, values, error):
    insert = t.store.prepare(t.text(INSERT))
    with pytest.raises(error):
        insert.bind(values)
    with pytest.raises(error):
        t.store.session.execute_async(insert, values)


def test_the_messages_of_wrong_values(t):
    insert = t.store.prepare(t.text(INSERT))
    with pytest.raises(TypeError, match=r'Received an argument of invalid type for column "a". Expected: .*Int32Type'):
        insert.bind((1, 1, "x", "n"))
    with pytest.raises(ValueError, match=r"Too many arguments provided to bind\(\) \(got 5, expected 4\)"):
        insert.bind((1, 1, 1, "n", 5))
    with pytest.raises(ValueError, match="Cannot bind UNSET_VALUE as a part of the routing key 'p'"):
        insert.bind({"c": 1})


def test_a_bool_is_a_number_to_the_driver(t):
    t.bound(INSERT, (t.key, 1, True, None))
    assert shown(t) == [(1, 1, None)]


def test_execute_async_of_a_bound_statement_and_callbacks(t):
    insert = t.store.prepare(t.text(INSERT))
    future = t.store.session.execute_async(insert.bind((t.key, 1, 2, "x")))
    future.result()
    seen = []
    future.add_callback(seen.append)
    future.add_callbacks(lambda rows, *more, **named: seen.append((rows, more, named)), pytest.fail, (1,), {"k": 2})
    # The driver gives a callback that comes late what a callback in time would have got.
    assert [each for each in seen if isinstance(each, tuple)] in ([(None, (1,), {"k": 2})], [([], (1,), {"k": 2})])
    failing = t.store.session.execute_async("SELECT nothing FROM nowhere_at_all")
    with pytest.raises(Exception, match="nowhere_at_all"):
        failing.result()
    failing.add_errback(lambda error: seen.append(type(error).__name__))
    assert seen[-1] == "InvalidRequest"


def test_a_simple_statement_with_values(t):
    t.run("INSERT INTO $t (p, c, a, b) VALUES (%s, %s, %s, %s)", (t.key, 1, 2, "it's"))
    t.run("INSERT INTO $t (p, c, a, b) VALUES (%(p)s, %(c)s, %(a)s, %(b)s)", {"p": t.key, "c": 2, "a": None, "b": "é"})
    assert shown(t) == [(1, 2, "it's"), (2, None, "é")]


def test_prepared_statements_survive_a_change_of_the_table(make_partition):
    t = make_partition("p int, c int, a int, PRIMARY KEY (p, c)", empty=True)
    insert = t.store.prepare(t.text("INSERT INTO $t (p, c, a) VALUES (?, ?, ?)"))
    select = t.store.prepare(t.text("SELECT a FROM $t WHERE p = ? AND c = ?"))
    t.store.session.execute(insert, (t.key, 1, 2))
    t.run("ALTER TABLE $t ADD b int")
    t.store.session.execute(insert, (t.key, 2, 3))
    assert list(t.store.session.execute(select, (t.key, 2))) == [(3,)]
    assert t.run("SELECT c, a, b FROM $t WHERE p = $p") == [(1, 2, None), (2, 3, None)]
