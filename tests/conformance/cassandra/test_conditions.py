"""Lightweight transactions: IF NOT EXISTS, IF EXISTS, IF column, and the row that comes with the answer."""

from __future__ import annotations

import pytest
from cassandra import ConsistencyLevel
from cassandra.query import SimpleStatement

UPDATE = "UPDATE $t SET a = 9 WHERE p = $p AND c = 1 IF "


def answer(t, query):
    """Column names and rows of the answer."""
    result = t.store.session.execute(t.text(query))
    names = result.column_names
    return names, list(result)


@pytest.fixture
def row(t):
    t.run("INSERT INTO $t (p, c, s, a, b) VALUES ($p, 1, 7, 5, 'x') USING TIMESTAMP 10")
    return t


def test_insert_if_not_exists_applies_once(t):
    insert = "INSERT INTO $t (p, c, a) VALUES ($p, 1, 5) IF NOT EXISTS"
    assert answer(t, insert) == (["[applied]"], [(True,)])
    assert answer(t, insert) == (
        ["[applied]", "p", "c", "s", "a", "b", "d", "e"],
        [(False, t.key, 1, None, 5, None, None, None)],
    )
    assert t.run("SELECT a FROM $t WHERE p = $p") == [(5,)]


def test_was_applied(t):
    insert = t.text("INSERT INTO $t (p, c, a) VALUES ($p, 1, 5) IF NOT EXISTS")
    assert t.store.session.execute(insert).was_applied
    assert not t.store.session.execute(insert).was_applied


def test_insert_if_not_exists_of_a_static_column_looks_at_the_static_row(t):
    insert = "INSERT INTO $t (p, s) VALUES ($p, 5) IF NOT EXISTS"
    assert answer(t, insert) == (["[applied]"], [(True,)])
    _names, rows = answer(t, insert)
    assert rows == [(False, t.key, None, 5, None, None, None, None)]
    assert answer(t, "INSERT INTO $t (p, c, a) VALUES ($p, 1, 1) IF NOT EXISTS") == (["[applied]"], [(True,)])


def test_a_row_that_is_not_there_among_others(row):
    assert answer(row, "INSERT INTO $t (p, c, a) VALUES ($p, 2, 5) IF NOT EXISTS") == (["[applied]"], [(True,)])


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("a = 5", (True,)),
        ("a = 6", (False, 5)),
        ("a != 6", (True,)),
        ("a != 5", (False, 5)),
        ("a > 4", (True,)),
        ("a >= 6", (False, 5)),
        ("a < 6", (True,)),
        ("a <= 4", (False, 5)),
        ("a IN (4, 5)", (True,)),
        ("a IN (4, 6)", (False, 5)),
        ("a IN ()", (False, 5)),
        ("a = null", (False, 5)),
        ("a != null", (True,)),
        ("d = null", (True,)),
        ("d != null", (False, None)),
        ("d = true", (False, None)),
        ("d != true", (True,)),
        ("d IN (null, true)", (True,)),
        ("a = 5 AND b = 'x'", (True,)),
        ("a = 5 AND b = 'y'", (False, 5, "x")),
        ("b = 'y' AND a = 5", (False, "x", 5)),
        ("b > 'w'", (True,)),
        ("s = 7", (True,)),
        ("s = 8", (False, 7)),
        ("a > 1 AND a < 3", (False, 5)),
        ("EXISTS", (True,)),
    ],
)
def test_conditions_on_a_row(row, condition, expected):
    assert answer(row, UPDATE + condition)[1] == [expected]
    assert row.run("SELECT a FROM $t WHERE p = $p") == [(9 if expected[0] else 5,)]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("EXISTS", (["[applied]"], [(False,)])),
        ("a = 5", (["[applied]"], [(False,)])),
        ("a = null", (["[applied]"], [(True,)])),
        ("a != 5", (["[applied]"], [(True,)])),
        ("a IN (null, 3)", (["[applied]"], [(True,)])),
        ("a > 5", (["[applied]"], [(False,)])),
    ],
)
def test_conditions_on_a_row_that_is_not_there(t, condition, expected):
    assert answer(t, UPDATE + condition) == expected


def test_a_row_without_marker_or_the_compared_column_is_there_all_the_same(t):
    t.run("UPDATE $t SET b = 'x' WHERE p = $p AND c = 1")
    assert answer(t, UPDATE + "a = 5") == (["[applied]", "a"], [(False, None)])
    assert answer(t, UPDATE + "s = 5") == (["[applied]", "s"], [(False, None)])


def test_static_columns_stand_last_in_the_answer(row):
    assert answer(row, UPDATE + "s = 8 AND a = 6 AND b = 'y'") == (["[applied]", "a", "b", "s"], [(False, 5, "x", 7)])


def test_a_row_that_is_in_the_way_is_shown_without_static_columns_that_are_not_written(row):
    insert = "INSERT INTO $t (p, c, a) VALUES ($p, 1, 1) IF NOT EXISTS"
    assert answer(row, insert)[1] == [(False, row.key, 1, None, 5, "x", None, None)]
    insert = "INSERT INTO $t (p, c, a, s) VALUES ($p, 1, 1, 1) IF NOT EXISTS"
    assert answer(row, insert)[1] == [(False, row.key, 1, 7, 5, "x", None, None)]


def test_a_condition_on_static_columns_alone_shows_the_first_row_of_the_partition(row):
    """And of that row nothing but its key: the other columns are not read."""
    row.run("UPDATE $t SET a = 1 WHERE p = $p AND c = 0")
    insert = "INSERT INTO $t (p, s) VALUES ($p, 1) IF NOT EXISTS"
    assert answer(row, insert)[1] == [(False, row.key, 1, 7, None, None, None, None)], "row 0 has no marker, so is none"
    row.run("DELETE s FROM $t WHERE p = $p")
    assert answer(row, "UPDATE $t SET s = 1 WHERE p = $p IF EXISTS")[1] == [
        (False, row.key, 1, None, None, None, None, None)
    ]
    assert answer(row, "UPDATE $t SET s = 1 WHERE p = $p IF s = 3") == (["[applied]", "s"], [(False, None)])


def test_in_with_one_marker_in_a_condition(row):
    update = row.store.prepare(row.text("UPDATE $t SET a = 6 WHERE p = $p AND c = 1 IF a IN ?"))
    assert [column.name for column in update.column_metadata] == ["in(a)"]
    assert list(row.store.session.execute(update, ([1, 2],))) == [(False, 5)]
    assert list(row.store.session.execute(update, ([1, 5],))) == [(True,)]


def test_unset_is_no_condition(row):
    update = row.store.prepare(row.text("UPDATE $t SET a = 6 WHERE p = $p AND c = 1 IF a = ?"))
    assert row.store.refuse(update, ()) == ("InvalidRequest", "Invalid 'unset' value in condition")


def test_condition_on_a_row_not_there_whose_partition_has_a_static_value(t):
    t.run("UPDATE $t SET s = 7 WHERE p = $p")
    assert answer(t, UPDATE + "s = 8") == (["[applied]", "s"], [(False, 7)])
    assert answer(t, UPDATE + "EXISTS")[1] == [(False,)]
    assert answer(t, UPDATE + "s = 7")[1] == [(True,)]
    assert t.run("SELECT c, s, a FROM $t WHERE p = $p") == [(1, 7, 9)]


def test_the_static_row_may_be_updated_on_condition(row):
    assert answer(row, "UPDATE $t SET s = 8 WHERE p = $p IF s = 6") == (["[applied]", "s"], [(False, 7)])
    assert answer(row, "UPDATE $t SET s = 8 WHERE p = $p IF s = 7")[1] == [(True,)]
    assert row.run("SELECT s FROM $t WHERE p = $p") == [(8,)]


def test_a_null_beside_the_names_of_a_failed_condition(row):
    assert answer(row, UPDATE + "d = true AND a = 5") == (["[applied]", "d", "a"], [(False, None, 5)])


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM $t WHERE p = $p AND c = 1 IF a = 5", "DELETE a FROM $t WHERE p = $p AND c = 1 IF EXISTS"],
)
def test_conditional_deletes(row, statement):
    assert answer(row, statement)[1] == [(True,)]
    assert row.run("SELECT a FROM $t WHERE p = $p AND c = 1") in ([], [(None,)])


def test_delete_if_exists_of_nothing(t):
    assert answer(t, "DELETE FROM $t WHERE p = $p AND c = 1 IF EXISTS") == (["[applied]"], [(False,)])


def test_an_applied_change_is_newer_than_small_timestamps_and_hidden_by_great_ones(row):
    assert answer(row, UPDATE + "a = 5")[1] == [(True,)]
    ((a, written),) = row.run("SELECT a, writetime(a) FROM $t WHERE p = $p")
    assert a == 9
    assert abs(written * 1000 - row.store.side.now_ns()) < 60 * 10**9
    row.run("UPDATE $t USING TIMESTAMP 4102444800000000 SET a = 1 WHERE p = $p AND c = 1")
    assert answer(row, UPDATE + "a = 1")[1] == [(True,)]
    assert row.run("SELECT a FROM $t WHERE p = $p") == [(1,)]


def test_a_time_to_live_on_condition(row):
    assert answer(row, "UPDATE $t USING TTL 1000 SET a = 6 WHERE p = $p AND c = 1 IF a = 5")[1] == [(True,)]
    ((left,),) = row.run("SELECT ttl(a) FROM $t WHERE p = $p")
    assert 990 <= left <= 1000
    assert answer(row, "INSERT INTO $t (p, c, a) VALUES ($p, 3, 1) IF NOT EXISTS USING TTL 1000")[1] == [(True,)]


def test_an_expired_row_does_not_exist(t):
    t.run("INSERT INTO $t (p, c, a) VALUES ($p, 1, 5) USING TTL 1")
    t.store.wait_s(2.2)
    assert answer(t, "INSERT INTO $t (p, c, a) VALUES ($p, 1, 6) IF NOT EXISTS")[1] == [(True,)]


def test_prepared_conditions(row):
    update = row.store.prepare(row.text("UPDATE $t SET a = ? WHERE p = ? AND c = ? IF a = ?"))
    assert [column.name for column in update.column_metadata] == ["a", "p", "c", "a"]
    session = row.store.session
    assert list(session.execute(update, (6, row.key, 1, 1))) == [(False, 5)]
    assert list(session.execute(update, (6, row.key, 1, 5))) == [(True,)]
    assert list(session.execute(update, (7, row.key, 1, None))) == [(False, 6)]


def test_a_serial_read_and_serial_levels(row):
    statement = SimpleStatement(
        row.text(UPDATE + "a = 5"),
        consistency_level=ConsistencyLevel.QUORUM,
        serial_consistency_level=ConsistencyLevel.LOCAL_SERIAL,
    )
    assert row.store.session.execute(statement).was_applied
    assert row.run("SELECT a FROM $t WHERE p = $p", consistency=ConsistencyLevel.SERIAL) == [(9,)]
    assert row.run("SELECT a FROM $t WHERE p = $p", consistency=ConsistencyLevel.LOCAL_SERIAL) == [(9,)]


def test_racing_inserts_have_one_winner(t):
    session = t.store.session
    futures = [
        session.execute_async(t.text(f"INSERT INTO $t (p, c, a) VALUES ($p, 1, {a}) IF NOT EXISTS")) for a in range(4)
    ]
    applied = [future.result().was_applied for future in futures]
    assert applied.count(True) == 1
    assert t.run("SELECT a FROM $t WHERE p = $p", consistency=ConsistencyLevel.SERIAL) == [(applied.index(True),)]
