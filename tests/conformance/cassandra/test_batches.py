"""Batches: logged and unlogged, as text and as the driver's BatchStatement."""

from __future__ import annotations

import pytest
from cassandra import ConsistencyLevel
from cassandra.query import BatchStatement, BatchType, SimpleStatement


@pytest.mark.parametrize("kind", ["", "UNLOGGED"])
def test_batch_of_one_partition_as_text(t, kind):
    t.run(
        f"BEGIN {kind} BATCH INSERT INTO $t (p, c, a) VALUES ($p, 1, 1); UPDATE $t SET b = 'x' WHERE p = $p AND c = 2; "
        "DELETE a FROM $t WHERE p = $p AND c = 3 APPLY BATCH"
    )
    assert t.run("SELECT c, a, b FROM $t WHERE p = $p") == [(1, 1, None), (2, None, "x")]


def test_all_statements_of_a_batch_have_one_timestamp_so_the_deletion_wins(t):
    t.run("BEGIN BATCH INSERT INTO $t (p, c, a) VALUES ($p, 1, 1); DELETE FROM $t WHERE p = $p AND c = 1; APPLY BATCH")
    assert t.run("SELECT c FROM $t WHERE p = $p") == []
    t.run("BEGIN BATCH DELETE FROM $t WHERE p = $p AND c = 1; INSERT INTO $t (p, c, a) VALUES ($p, 1, 1); APPLY BATCH")
    assert t.run("SELECT c FROM $t WHERE p = $p") == []


def test_in_a_batch_the_larger_value_wins_not_the_later_statement(t):
    t.run(
        "BEGIN BATCH UPDATE $t SET a = 9 WHERE p = $p AND c = 1; UPDATE $t SET a = 5 WHERE p = $p AND c = 1; "
        "APPLY BATCH"
    )
    assert t.run("SELECT a FROM $t WHERE p = $p") == [(9,)]


def test_timestamp_of_the_batch(t):
    t.run(
        "BEGIN BATCH USING TIMESTAMP 7 INSERT INTO $t (p, c, a) VALUES ($p, 1, 1); "
        "UPDATE $t SET s = 3 WHERE p = $p; APPLY BATCH"
    )
    assert t.run("SELECT a, writetime(a), writetime(s) FROM $t WHERE p = $p") == [(1, 7, 7)]


def test_timestamps_of_its_statements(t):
    t.run(
        "BEGIN BATCH INSERT INTO $t (p, c, a) VALUES ($p, 1, 1) USING TIMESTAMP 5; "
        "UPDATE $t USING TIMESTAMP 6 SET b = 'x' WHERE p = $p AND c = 1; APPLY BATCH"
    )
    assert t.run("SELECT writetime(a), writetime(b) FROM $t WHERE p = $p") == [(5, 6)]


def test_time_to_live_of_its_statements(t):
    t.run(
        "BEGIN BATCH INSERT INTO $t (p, c, a) VALUES ($p, 1, 1) USING TTL 1000; "
        "UPDATE $t SET b = 'x' WHERE p = $p AND c = 1; APPLY BATCH"
    )
    ((a, b),) = t.run("SELECT ttl(a), ttl(b) FROM $t WHERE p = $p")
    assert 990 <= a <= 1000
    assert b is None


@pytest.mark.parametrize("kind", [BatchType.LOGGED, BatchType.UNLOGGED])
def test_batch_statement_over_partitions(t, kind):
    insert = t.store.prepare(t.text("INSERT INTO $t (p, c, a) VALUES (?, ?, ?)"))
    keys = [t.store.key() for _ in range(3)]
    batch = BatchStatement(kind, consistency_level=ConsistencyLevel.QUORUM)
    batch.add(insert, (keys[0], 1, 10))
    batch.add(insert.bind((keys[1], 1, 20)))
    batch.add(SimpleStatement(t.text("INSERT INTO $t (p, c, a) VALUES (%s, %s, %s)")), (keys[2], 1, 30))
    batch.add(t.text(f"UPDATE $t SET b = 'x' WHERE p = {keys[2]} AND c = 1"))
    assert t.store.session.execute(batch).one() is None
    found = [t.run(f"SELECT a, b FROM $t WHERE p = {key}") for key in keys]
    assert found == [[(10, None)], [(20, None)], [(30, "x")]]


def test_batch_statement_with_unset_and_null(t):
    t.run("INSERT INTO $t (p, c, a, b) VALUES ($p, 1, 1, 'x')")
    insert = t.store.prepare(t.text("INSERT INTO $t (p, c, a, b) VALUES (?, ?, ?, ?)"))
    batch = BatchStatement()
    batch.add(insert, {"p": t.key, "c": 1, "a": None})
    t.store.session.execute(batch)
    assert t.run("SELECT a, b FROM $t WHERE p = $p") == [(None, "x")]


def test_batch_over_tables(t, ordered):
    t.run(
        f"BEGIN BATCH INSERT INTO $t (p, c, a) VALUES ($p, 1, 1); "
        f"INSERT INTO {ordered.name} (p, c, k, v) VALUES ({ordered.key}, 1, 1, 1); APPLY BATCH"
    )
    assert t.run("SELECT a FROM $t WHERE p = $p") == [(1,)]
    assert ordered.run("SELECT v FROM $t WHERE p = $p") == [(1,)]


def test_empty_batch(t):
    assert t.store.session.execute(BatchStatement()).one() is None
    assert t.run("BEGIN BATCH APPLY BATCH") == []


def test_select_in_a_batch_is_refused(t):
    batch = BatchStatement()
    batch.add(t.text("SELECT a FROM $t"))
    with pytest.raises(Exception, match="Invalid statement in batch: only UPDATE, INSERT and DELETE statements are al"):
        t.store.session.execute(batch)
