"""Reconciliation and visibility of rows, through CQL on a quiet cluster."""

from __future__ import annotations

import pytest

TABLE = "CREATE TABLE t (p int, c int, a int, b text, PRIMARY KEY (p, c))"


@pytest.fixture
def table(world):
    world.run(TABLE)
    return world


def test_higher_timestamp_wins_whatever_the_order(table):
    table.run("INSERT INTO t (p, c, a) VALUES (1, 1, 20) USING TIMESTAMP 2")
    table.run("INSERT INTO t (p, c, a) VALUES (1, 1, 10) USING TIMESTAMP 1")
    assert table.run("SELECT a, writetime(a) FROM t WHERE p = 1") == [(20, 2)]


def test_larger_value_wins_a_tie(table):
    for value in (7, 9, 8):
        table.run("INSERT INTO t (p, c, a) VALUES (1, 1, %s) USING TIMESTAMP 5", (value,))
    assert table.run("SELECT a FROM t WHERE p = 1") == [(9,)]


def test_negative_number_wins_a_tie_because_bytes_are_compared_unsigned(table):
    for value in (1, -1):
        table.run("INSERT INTO t (p, c, a) VALUES (1, 1, %s) USING TIMESTAMP 5", (value,))
    assert table.run("SELECT a FROM t WHERE p = 1") == [(-1,)]


def test_tie_is_decided_cell_by_cell(table):
    table.run("INSERT INTO t (p, c, a, b) VALUES (1, 1, 9, 'a') USING TIMESTAMP 5")
    table.run("INSERT INTO t (p, c, a, b) VALUES (1, 1, 1, 'z') USING TIMESTAMP 5")
    assert table.run("SELECT a, b FROM t WHERE p = 1") == [(9, "z")]


def test_tombstone_wins_a_tie(table):
    table.run("DELETE a FROM t USING TIMESTAMP 5 WHERE p = 1 AND c = 1")
    table.run("INSERT INTO t (p, c, a, b) VALUES (1, 1, 9, 'x') USING TIMESTAMP 5")
    assert table.run("SELECT a, b FROM t WHERE p = 1") == [(None, "x")]


def test_expiring_cell_wins_a_tie_against_a_lasting_one(table):
    table.run("INSERT INTO t (p, c, a) VALUES (1, 1, 1) USING TIMESTAMP 5 AND TTL 10")
    table.run("INSERT INTO t (p, c, a) VALUES (1, 1, 99) USING TIMESTAMP 5")
    assert table.run("SELECT a FROM t WHERE p = 1") == [(1,)]
    table.wait_s(11)
    assert table.run("SELECT a FROM t WHERE p = 1") == []


def test_later_expiry_wins_a_tie_between_expiring_cells(table):
    table.run("INSERT INTO t (p, c, a) VALUES (1, 1, 1) USING TIMESTAMP 5 AND TTL 100")
    table.run("INSERT INTO t (p, c, a) VALUES (1, 1, 99) USING TIMESTAMP 5 AND TTL 10")
    assert table.run("SELECT a FROM t WHERE p = 1") == [(1,)]


def test_null_is_a_tombstone(table):
    table.run("INSERT INTO t (p, c, a) VALUES (1, 1, 1) USING TIMESTAMP 1")
    table.run("INSERT INTO t (p, c, a) VALUES (1, 1, null) USING TIMESTAMP 2")
    assert table.run("SELECT a, writetime(a) FROM t WHERE p = 1") == [(None, None)]


def test_inserted_row_stays_when_its_last_cell_is_deleted(table):
    table.run("INSERT INTO t (p, c, a) VALUES (1, 1, 1)")
    table.run("DELETE a FROM t WHERE p = 1 AND c = 1")
    assert table.run("SELECT p, c, a FROM t WHERE p = 1") == [(1, 1, None)]


def test_updated_row_goes_when_its_last_cell_is_deleted(table):
    table.run("UPDATE t SET a = 1 WHERE p = 1 AND c = 1")
    assert table.run("SELECT c FROM t WHERE p = 1") == [(1,)]
    table.run("UPDATE t SET a = null WHERE p = 1 AND c = 1")
    assert table.run("SELECT c FROM t WHERE p = 1") == []


def test_update_with_ttl_leaves_the_inserts_row_marker_behind(table):
    """The trap of design 4.5.2: all cells expire, the row stays, full of nulls."""
    table.run("INSERT INTO t (p, c, a, b) VALUES (1, 1, 1, 'x')")
    table.run("UPDATE t USING TTL 10 SET a = 2, b = 'y' WHERE p = 1 AND c = 1")
    table.wait_s(11)
    assert table.run("SELECT p, c, a, b FROM t WHERE p = 1") == [(1, 1, None, None)]


def test_insert_with_ttl_takes_marker_and_cells_along(table):
    table.run("INSERT INTO t (p, c, a) VALUES (1, 1, 1) USING TIMESTAMP 1")
    table.run("INSERT INTO t (p, c, a) VALUES (1, 1, 2) USING TIMESTAMP 2 AND TTL 10")
    (shown,) = table.run("SELECT a, ttl(a) FROM t WHERE p = 1")
    assert shown[0] == 2
    assert 8 <= shown[1] <= 10
    table.wait_s(11)
    assert table.run("SELECT a FROM t WHERE p = 1") == []


def test_late_write_with_a_lower_timestamp_does_not_bring_an_expired_row_back(table):
    table.run("INSERT INTO t (p, c, a) VALUES (1, 1, 2) USING TIMESTAMP 2 AND TTL 5")
    table.wait_s(6)
    table.run("INSERT INTO t (p, c, a) VALUES (1, 1, 1) USING TIMESTAMP 1")
    assert table.run("SELECT a FROM t WHERE p = 1") == []


def test_replay_with_a_fresh_ttl_at_the_same_timestamp_prolongs_the_row(table):
    table.run("INSERT INTO t (p, c, a) VALUES (1, 1, 2) USING TIMESTAMP 2 AND TTL 5")
    table.wait_s(3)
    table.run("INSERT INTO t (p, c, a) VALUES (1, 1, 2) USING TIMESTAMP 2 AND TTL 5")
    table.wait_s(3)
    assert table.run("SELECT a FROM t WHERE p = 1") == [(2,)]


def test_row_deletion_hides_what_is_not_newer(table):
    table.run("INSERT INTO t (p, c, a) VALUES (1, 1, 1) USING TIMESTAMP 5")
    table.run("DELETE FROM t USING TIMESTAMP 5 WHERE p = 1 AND c = 1")
    assert table.run("SELECT a FROM t WHERE p = 1") == []
    table.run("UPDATE t USING TIMESTAMP 6 SET b = 'new' WHERE p = 1 AND c = 1")
    assert table.run("SELECT a, b FROM t WHERE p = 1") == [(None, "new")]


def test_range_deletion_covers_its_range_only_and_late_arrivals_too(table):
    table.run("DELETE FROM t USING TIMESTAMP 10 WHERE p = 1 AND c > 1 AND c <= 3")
    for c in (1, 2, 3, 4):
        table.run("INSERT INTO t (p, c, a) VALUES (1, %s, 0) USING TIMESTAMP 9", (c,))
    assert table.run("SELECT c FROM t WHERE p = 1") == [(1,), (4,)]


def test_partition_deletion(table):
    for c in (1, 2):
        table.run("INSERT INTO t (p, c, a) VALUES (1, %s, 0) USING TIMESTAMP 9", (c,))
    table.run("INSERT INTO t (p, c, a) VALUES (2, 1, 0) USING TIMESTAMP 9")
    table.run("DELETE FROM t USING TIMESTAMP 9 WHERE p = 1")
    assert table.run("SELECT p, c FROM t") == [(2, 1)]


def test_unset_column_is_not_written(table):
    from cassandra.query import UNSET_VALUE

    insert = table.session.prepare("INSERT INTO t (p, c, a, b) VALUES (?, ?, ?, ?)")
    table.session.execute(insert, (1, 1, 5, "x"))
    table.session.execute(insert, (1, 1, UNSET_VALUE, "y"))
    assert table.run("SELECT a, b FROM t WHERE p = 1") == [(5, "y")]


def test_static_column_is_shared_by_the_partition(world):
    world.run("CREATE TABLE s (p int, c int, shared int STATIC, a int, PRIMARY KEY (p, c))")
    world.run("INSERT INTO s (p, shared) VALUES (1, 7)")
    assert world.run("SELECT p, c, shared, a FROM s") == [(1, None, 7, None)]
    world.run("INSERT INTO s (p, c, a) VALUES (1, 1, 10)")
    world.run("INSERT INTO s (p, c, a, shared) VALUES (1, 2, 20, 8)")
    assert world.run("SELECT c, shared, a FROM s WHERE p = 1") == [(1, 8, 10), (2, 8, 20)]
    assert world.run("SELECT DISTINCT p, shared FROM s") == [(1, 8)]


def test_default_time_to_live_of_the_table(world):
    world.run("CREATE TABLE d (p int PRIMARY KEY, a int) WITH default_time_to_live = 5")
    world.run("INSERT INTO d (p, a) VALUES (1, 1)")
    world.run("INSERT INTO d (p, a) VALUES (2, 2) USING TTL 0")
    world.wait_s(6)
    assert world.run("SELECT p FROM d") == [(2,)]


def test_server_side_timestamp_is_the_coordinators_clock(table):
    table.session.use_client_timestamp = False
    for node in table.cluster.nodes:
        node.wall.jump(3_600 * 10**9)
    table.run("INSERT INTO t (p, c, a) VALUES (1, 1, 1)")
    (shown,) = table.run("SELECT writetime(a) FROM t WHERE p = 1")
    skew_us = shown[0] - (1_893_456_000 * 10**6 + table.clock.now // 1_000)
    assert abs(skew_us - 3_600 * 10**6) < 10**6


def test_client_side_timestamps_never_repeat(table):
    futures = [table.session.execute_async("INSERT INTO t (p, c, a) VALUES (1, %s, 1)", (c,)) for c in range(5)]
    for future in futures:
        future.result()
    times = [row[0] for row in table.run("SELECT writetime(a) FROM t WHERE p = 1")]
    assert times == sorted(times)
    assert len(dict.fromkeys(times)) == 5
