"""Lightweight transactions and batches."""

from __future__ import annotations

import pytest
from cassandra import ConsistencyLevel as CL
from cassandra import InvalidRequest, WriteTimeout, WriteType
from cassandra.cluster import NoHostAvailable
from cassandra.query import BatchStatement, BatchType, SimpleStatement

from sim.clock import NS_PER_SECOND


@pytest.fixture
def table(world):
    world.run("CREATE TABLE t (p int PRIMARY KEY, v int, w text)")
    return world


def test_insert_if_not_exists_applies_once(table):
    assert table.run("INSERT INTO t (p, v) VALUES (1, 1) IF NOT EXISTS") == [(True,)]
    result = table.session.execute("INSERT INTO t (p, v) VALUES (1, 2) IF NOT EXISTS")
    assert not result.was_applied
    assert result.column_names == ["[applied]", "p", "v", "w"]
    assert table.run("SELECT v FROM t WHERE p = 1") == [(1,)]


def test_update_if_compares_and_sets(table):
    table.run("INSERT INTO t (p, v) VALUES (1, 1)")
    assert table.run("UPDATE t SET v = 2 WHERE p = 1 IF v = 5") == [(False, 1)]
    assert table.run("UPDATE t SET v = 2 WHERE p = 1 IF v = 1 AND w = null") == [(True,)]
    assert table.run("UPDATE t SET v = 3 WHERE p = 1 IF v IN (2, 4)") == [(True,)]
    assert table.run("UPDATE t SET v = 9 WHERE p = 2 IF EXISTS") == [(False,)]
    assert table.run("DELETE FROM t WHERE p = 1 IF v > 2") == [(True,)]
    assert table.run("SELECT v FROM t") == []


def test_racing_inserts_have_one_winner(table):
    futures = [table.session.execute_async("INSERT INTO t (p, v) VALUES (1, %s) IF NOT EXISTS", (v,)) for v in range(5)]
    applied = [future.result().was_applied for future in futures]
    assert applied.count(True) == 1
    assert table.run("SELECT v FROM t WHERE p = 1", consistency=CL.SERIAL) == [(applied.index(True),)]


@pytest.mark.parametrize(("fate", "rows"), [("none", []), ("some", [(1,)]), ("all", [(1,)])])
def test_outcome_unknown_after_a_time_out(table, fate, rows):
    table.cluster.faults.arm(f"write_timeout_{fate}", times=1)
    with pytest.raises(WriteTimeout) as caught:
        table.run("INSERT INTO t (p, v) VALUES (1, 1) IF NOT EXISTS")
    assert caught.value.write_type == WriteType.CAS
    assert table.run("SELECT v FROM t WHERE p = 1", consistency=CL.SERIAL) == rows


def test_serial_read_sees_an_accepted_change_that_no_replica_has_yet(table):
    for node in table.cluster.nodes[1:]:
        table.network.slow("cassandra-1", node.name, 300_000_000)
    future = table.session.execute_async(
        "INSERT INTO t (p, v) VALUES (1, 1) IF NOT EXISTS", host=table.cluster.nodes[0], timeout=None
    )
    other = table.cluster.nodes[1]
    seen = []
    while not future.is_done:
        read = SimpleStatement("SELECT v FROM t WHERE p = 1", consistency_level=CL.SERIAL)
        seen.append(len(list(table.session.execute(read, host=other))))
        table.clock.run_until(table.clock.now + 50_000_000)
    assert seen == sorted(seen)


def test_custom_timestamp_is_refused_with_a_condition(table):
    with pytest.raises(InvalidRequest):
        table.run("INSERT INTO t (p, v) VALUES (1, 1) IF NOT EXISTS USING TIMESTAMP 5")


def test_conditional_write_needs_a_quorum(table):
    for node in table.cluster.nodes[1:]:
        table.cluster.take_down(node)
    with pytest.raises(NoHostAvailable):
        table.run("INSERT INTO t (p, v) VALUES (1, 1) IF NOT EXISTS", consistency=CL.ONE)


def test_batch_text(table):
    table.run(
        "BEGIN BATCH USING TIMESTAMP 7 INSERT INTO t (p, v) VALUES (1, 1); UPDATE t SET w = 'x' WHERE p = 2; "
        "DELETE v FROM t WHERE p = 1; APPLY BATCH"
    )
    rows = table.run("SELECT p, v, w, writetime(w) FROM t")
    assert sorted(rows) == [(1, None, None, None), (2, None, "x", 7)]


def test_batch_statement_of_the_driver(table):
    insert = table.session.prepare("INSERT INTO t (p, v) VALUES (?, ?)")
    batch = BatchStatement(BatchType.UNLOGGED, consistency_level=CL.QUORUM)
    batch.add(insert, (1, 10))
    batch.add(insert.bind((2, 20)))
    batch.add(SimpleStatement("INSERT INTO t (p, v) VALUES (%s, %s)"), (3, 30))
    table.session.execute(batch)
    assert sorted(table.run("SELECT p, v FROM t")) == [(1, 10), (2, 20), (3, 30)]


def test_logged_batch_that_times_out_is_completed_later(table):
    table.cluster.faults.arm("write_timeout_none", times=1)
    batch = BatchStatement(consistency_level=CL.QUORUM)
    for p in (1, 2):
        batch.add(f"INSERT INTO t (p, v) VALUES ({p}, {p})")
    with pytest.raises(WriteTimeout) as caught:
        table.session.execute(batch)
    assert caught.value.write_type == WriteType.BATCH
    assert table.run("SELECT p FROM t") == []
    assert not table.cluster.is_quiet()
    table.wait_s(5)
    assert sorted(table.run("SELECT p FROM t")) == [(1,), (2,)]


def test_unlogged_batch_that_times_out_is_not(table):
    table.cluster.faults.arm("write_timeout_none", times=1)
    batch = BatchStatement(BatchType.UNLOGGED, consistency_level=CL.QUORUM)
    for p in (1, 2):
        batch.add(f"INSERT INTO t (p, v) VALUES ({p}, {p})")
    with pytest.raises(WriteTimeout) as caught:
        table.session.execute(batch)
    assert caught.value.write_type == WriteType.UNLOGGED_BATCH
    table.wait_s(20)
    assert table.run("SELECT p FROM t") == []


def test_rows_of_one_partition_key_in_several_tables_reach_a_replica_together_or_not_at_all(world):
    for name in ("first", "second"):
        world.run(f"CREATE TABLE {name} (p bigint, c bigint, PRIMARY KEY (p, c))")
    batch = BatchStatement(BatchType.UNLOGGED, consistency_level=CL.QUORUM)
    for name in ("first", "second"):
        batch.add(world.session.prepare(f"INSERT INTO {name} (p, c) VALUES (?, ?) USING TIMESTAMP ?"), (1, 2, 3))
    world.cluster.faults.arm("write_timeout_some", times=1)
    with pytest.raises(WriteTimeout) as caught:
        world.session.execute(batch)
    assert caught.value.write_type == WriteType.SIMPLE
    holders = [[node for node, rows in world.cluster.dump(name, "ks").items() if rows] for name in ("first", "second")]
    assert len(holders[0]) == 1
    assert holders[0] == holders[1]


def test_equal_values_of_keys_of_other_types_are_other_partitions(world):
    world.run("CREATE TABLE first (p bigint PRIMARY KEY, v int)")
    world.run("CREATE TABLE second (p int PRIMARY KEY, v int)")
    world.cluster.faults.arm("write_timeout_all", times=1)
    batch = BatchStatement(BatchType.UNLOGGED, consistency_level=CL.QUORUM)
    for name in ("first", "second"):
        batch.add(world.session.prepare(f"INSERT INTO {name} (p, v) VALUES (?, ?)"), (1, 2))
    with pytest.raises(WriteTimeout) as caught:
        world.session.execute(batch)
    assert caught.value.write_type == WriteType.UNLOGGED_BATCH


def test_batch_of_one_partition_is_one_write(table):
    table.cluster.faults.arm("write_timeout_all", times=1)
    with pytest.raises(WriteTimeout) as caught:
        table.run("BEGIN BATCH INSERT INTO t (p, v) VALUES (1, 1); UPDATE t SET w = 'x' WHERE p = 1; APPLY BATCH")
    assert caught.value.write_type == WriteType.SIMPLE
    assert table.clock.now < 3 * NS_PER_SECOND
    assert table.run("SELECT v, w FROM t WHERE p = 1") == [(1, "x")]
