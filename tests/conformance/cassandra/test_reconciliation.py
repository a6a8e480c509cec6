"""Which of two writes wins: timestamps, ties, tombstones, times to live. The rules are Cassandra 5.0's."""

from __future__ import annotations

from itertools import permutations

import pytest

ROW = "SELECT a, b, d, writetime(a) FROM $t WHERE p = $p AND c = 1"


def cell(t):
    return [row[0] for row in t.run("SELECT a FROM $t WHERE p = $p AND c = 1")]


def test_the_higher_timestamp_wins_in_either_order(t):
    for first, second in ((10, 20), (40, 30)):
        t.run(f"UPDATE $t USING TIMESTAMP {first} SET a = {first} WHERE p = $p AND c = 1")
        t.run(f"UPDATE $t USING TIMESTAMP {second} SET a = {second} WHERE p = $p AND c = 1")
        assert t.run("SELECT a, writetime(a) FROM $t WHERE p = $p AND c = 1") == [(max(first, second),) * 2]


@pytest.mark.parametrize(
    ("column", "smaller", "larger"),
    [
        ("a", "5", "9"),
        ("a", "1", "-1"),  # as unsigned bytes: a negative int is larger than any positive one
        ("a", "-2", "-1"),
        ("b", "'abc'", "'abd'"),
        ("b", "'ab'", "'abc'"),
        ("b", "'Z'", "'a'"),
        ("b", "'z'", "'é'"),
        ("b", "''", "'a'"),
        ("d", "false", "true"),
        ("e", "0x01", "0xff"),
        ("e", "0x", "0x00"),
    ],
)
def test_the_larger_value_wins_a_tie_as_unsigned_bytes(t, column, smaller, larger):
    wanted = t.run(f"UPDATE $t USING TIMESTAMP 1 SET {column} = {larger} WHERE p = $p AND c = 0") or t.run(
        f"SELECT {column} FROM $t WHERE p = $p AND c = 0"
    )
    for c, values in ((1, (smaller, larger)), (2, (larger, smaller))):
        for value in values:
            t.run(f"UPDATE $t USING TIMESTAMP 10 SET {column} = {value} WHERE p = $p AND c = {c}")
        assert t.run(f"SELECT {column} FROM $t WHERE p = $p AND c = {c}") == wanted


def test_a_tombstone_beats_a_value_in_a_tie(t):
    for c, writes in ((1, ("5", "null")), (2, ("null", "5"))):
        for value in writes:
            t.run(f"INSERT INTO $t (p, c, a) VALUES ($p, {c}, {value}) USING TIMESTAMP 10")
    assert t.run("SELECT c, a FROM $t WHERE p = $p") == [(1, None), (2, None)]


def test_an_expiring_cell_beats_a_plain_one_in_a_tie(t):
    writes = (
        "INSERT INTO $t (p, c, a) VALUES ($p, %d, 1) USING TIMESTAMP 10 AND TTL 1000",
        "INSERT INTO $t (p, c, a) VALUES ($p, %d, 9) USING TIMESTAMP 10",
    )
    for c, order in enumerate(permutations(writes)):
        for write in order:
            t.run(write % c)
    for a, left in t.run("SELECT a, ttl(a) FROM $t WHERE p = $p"):
        assert a == 1
        assert 990 <= left <= 1000


def test_a_tombstone_beats_an_expiring_cell_in_a_tie(t):
    writes = (
        "UPDATE $t USING TIMESTAMP 10 AND TTL 1000 SET a = 1 WHERE p = $p AND c = %d",
        "DELETE a FROM $t USING TIMESTAMP 10 WHERE p = $p AND c = %d",
    )
    for c, order in enumerate(permutations(writes)):
        for write in order:
            t.run(write % c)
    assert t.run("SELECT c, a FROM $t WHERE p = $p") == []


def test_of_two_expiring_cells_the_later_end_wins_a_tie_whatever_the_values(t):
    for c, order in enumerate(permutations(((9, 1000), (1, 2000)))):
        for value, ttl in order:
            t.run(f"UPDATE $t USING TIMESTAMP 10 AND TTL {ttl} SET a = {value} WHERE p = $p AND c = {c}")
    assert t.run("SELECT a FROM $t WHERE p = $p") == [(1,), (1,)]


def test_a_tie_is_decided_column_by_column(t):
    t.run("INSERT INTO $t (p, c, a, b) VALUES ($p, 1, 5, 'x') USING TIMESTAMP 10")
    t.run("INSERT INTO $t (p, c, a, b) VALUES ($p, 1, 3, 'y') USING TIMESTAMP 10")
    assert t.run("SELECT a, b FROM $t WHERE p = $p AND c = 1") == [(5, "y")]


@pytest.mark.parametrize(
    "deletion",
    [
        "DELETE FROM $t USING TIMESTAMP 10 WHERE p = $p AND c = 1",
        "DELETE FROM $t USING TIMESTAMP 10 WHERE p = $p AND c >= 0 AND c < 2",
        "DELETE FROM $t USING TIMESTAMP 10 WHERE p = $p",
    ],
)
@pytest.mark.parametrize("stamp", [9, 10, 11])
@pytest.mark.parametrize("deleted_first", [True, False])
def test_a_deletion_takes_what_is_not_newer(t, deletion, stamp, deleted_first):
    write = f"INSERT INTO $t (p, c, a) VALUES ($p, 1, 7) USING TIMESTAMP {stamp}"
    for statement in (deletion, write) if deleted_first else (write, deletion):
        t.run(statement)
    assert cell(t) == ([7] if stamp > 10 else [])


def test_deletions_of_each_size_reach_as_far_as_they_say(t):
    for c in range(4):
        t.run(f"INSERT INTO $t (p, c, s, a, b) VALUES ($p, {c}, 1, {c}, 'x') USING TIMESTAMP 5")
    t.run("DELETE b FROM $t USING TIMESTAMP 6 WHERE p = $p AND c = 0")
    t.run("DELETE FROM $t USING TIMESTAMP 6 WHERE p = $p AND c = 1")
    t.run("DELETE FROM $t USING TIMESTAMP 6 WHERE p = $p AND c > 2")
    assert t.run("SELECT c, s, a, b FROM $t WHERE p = $p") == [(0, 1, 0, None), (2, 1, 2, "x")]
    t.run("DELETE FROM $t USING TIMESTAMP 6 WHERE p = $p AND c >= 0")
    assert t.run("SELECT c, s, a, b FROM $t WHERE p = $p") == [(None, 1, None, None)], "no range takes the static row"
    t.run("DELETE FROM $t USING TIMESTAMP 6 WHERE p = $p")
    assert t.run("SELECT c, s, a, b FROM $t WHERE p = $p") == []


def test_overlapping_range_deletions_each_keep_their_own_timestamp(t):
    t.run("DELETE FROM $t USING TIMESTAMP 10 WHERE p = $p AND c > 0 AND c <= 3")
    t.run("DELETE FROM $t USING TIMESTAMP 20 WHERE p = $p AND c >= 3 AND c < 5")
    for c in range(7):
        t.run(f"INSERT INTO $t (p, c, a) VALUES ($p, {c}, 1) USING TIMESTAMP 10")
        t.run(f"INSERT INTO $t (p, c, b) VALUES ($p, {c}, 'x') USING TIMESTAMP 15")
    rows = t.run("SELECT c, a, b FROM $t WHERE p = $p")
    assert rows == [(0, 1, "x"), (1, None, "x"), (2, None, "x"), (5, 1, "x"), (6, 1, "x")]


def test_a_range_deletion_in_descending_order_follows_values(ordered):
    for c in (1, 2, 3):
        for k in (1, 2):
            ordered.run(f"INSERT INTO $t (p, c, k, v) VALUES ($p, {c}, {k}, 0)")
    ordered.run("DELETE FROM $t WHERE p = $p AND c > 2")
    assert ordered.run("SELECT c, k FROM $t WHERE p = $p") == [(2, 1), (2, 2), (1, 1), (1, 2)]
    ordered.run("DELETE FROM $t WHERE p = $p AND c = 2 AND k < 2")
    assert ordered.run("SELECT c, k FROM $t WHERE p = $p") == [(2, 2), (1, 1), (1, 2)]
    ordered.run("DELETE FROM $t WHERE p = $p AND c = 1")
    assert ordered.run("SELECT c, k FROM $t WHERE p = $p") == [(2, 2)]


def test_a_multi_column_range_may_be_deleted(make_partition):
    t = make_partition("p int, a int, b int, PRIMARY KEY (p, a, b)")
    for a in (1, 2):
        for b in (1, 2):
            t.run(f"INSERT INTO $t (p, a, b) VALUES ($p, {a}, {b})")
    t.run("DELETE FROM $t WHERE p = $p AND (a, b) > (1, 1) AND (a, b) < (2, 2)")
    assert t.run("SELECT a, b FROM $t WHERE p = $p") == [(1, 1), (2, 2)]


def test_write_timestamps_may_be_negative_and_as_large_as_a_bigint(t):
    for stamp in (-(2**63) + 1, -5, 0, 2**63 - 1):
        t.run(f"UPDATE $t USING TIMESTAMP {stamp} SET a = 1 WHERE p = $p AND c = 1")
        assert t.run("SELECT writetime(a) FROM $t WHERE p = $p AND c = 1") == [(stamp,)]


def test_the_smallest_bigint_is_no_timestamp(t):
    assert t.refuse(f"UPDATE $t USING TIMESTAMP {-(2**63)} SET a = 1 WHERE p = $p AND c = 1") == (
        "InvalidRequest",
        "Out of bound timestamp, must be in [-9223372036854775807, 9223372036854775807]",
    )


# ---- row markers


def test_an_update_makes_no_row_marker_so_the_row_goes_with_its_last_cell(t):
    t.run("UPDATE $t SET a = 1 WHERE p = $p AND c = 1")
    assert t.run("SELECT c, a FROM $t WHERE p = $p") == [(1, 1)]
    t.run("UPDATE $t SET a = null WHERE p = $p AND c = 1")
    assert t.run("SELECT c, a FROM $t WHERE p = $p") == []


def test_an_insert_makes_a_row_marker_so_the_row_stays_without_cells(t):
    t.run("INSERT INTO $t (p, c) VALUES ($p, 1)")
    t.run("UPDATE $t SET a = 1 WHERE p = $p AND c = 1")
    t.run("DELETE a FROM $t WHERE p = $p AND c = 1")
    assert t.run("SELECT c, a FROM $t WHERE p = $p") == [(1, None)]


def test_an_insert_of_nulls_shows_a_row(t):
    t.run("INSERT INTO $t (p, c, a) VALUES ($p, 1, null)")
    assert t.run("SELECT c, a FROM $t WHERE p = $p") == [(1, None)]


def test_a_row_marker_has_the_timestamp_of_its_insert(t):
    t.run("INSERT INTO $t (p, c) VALUES ($p, 1) USING TIMESTAMP 10")
    t.run("UPDATE $t USING TIMESTAMP 30 SET a = 1 WHERE p = $p AND c = 1")
    t.run("DELETE FROM $t USING TIMESTAMP 20 WHERE p = $p AND c = 1")
    assert t.run("SELECT c, a FROM $t WHERE p = $p") == [(1, 1)]
    t.run("DELETE a FROM $t USING TIMESTAMP 40 WHERE p = $p AND c = 1")
    assert t.run("SELECT c, a FROM $t WHERE p = $p") == [], "the deletion took the marker"


def test_a_deletion_of_columns_that_do_not_exist_makes_no_row(t):
    t.run("DELETE a FROM $t WHERE p = $p AND c = 1")
    assert t.run("SELECT c FROM $t WHERE p = $p") == []


# ---- times to live: what is read before it expires lives for seconds, since a server may be slow


def test_what_expires_goes_cell_by_cell_and_the_marker_with_its_insert(t):
    t.run("INSERT INTO $t (p, c, a) VALUES ($p, 1, 1) USING TTL 6")
    t.run("INSERT INTO $t (p, c, a) VALUES ($p, 2, 1)")
    t.run("UPDATE $t USING TTL 6 SET b = 'x' WHERE p = $p AND c = 2")
    t.run("INSERT INTO $t (p, c, a) VALUES ($p, 3, 1) USING TTL 6")
    t.run("UPDATE $t SET b = 'y' WHERE p = $p AND c = 3")
    t.run("UPDATE $t USING TTL 6 SET s = 4 WHERE p = $p")
    assert t.run("SELECT c, s, a, b FROM $t WHERE p = $p") == [(1, 4, 1, None), (2, 4, 1, "x"), (3, 4, 1, "y")]
    t.store.wait_s(7.2)
    assert t.run("SELECT c, s, a, b FROM $t WHERE p = $p") == [(2, None, 1, None), (3, None, None, "y")]


def test_ttl_is_the_seconds_that_are_left(t):
    t.run("INSERT INTO $t (p, c, a, b) VALUES ($p, 1, 1, 'x') USING TTL 1000")
    t.run("UPDATE $t SET b = 'y' WHERE p = $p AND c = 1")
    ((a, b),) = t.run("SELECT ttl(a), ttl(b) FROM $t WHERE p = $p")
    assert 990 <= a <= 1000
    assert b is None


def test_ttl_of_zero_is_none(t):
    t.run("INSERT INTO $t (p, c, a) VALUES ($p, 1, 1) USING TTL 0")
    assert t.run("SELECT a, ttl(a) FROM $t WHERE p = $p") == [(1, None)]


def test_what_no_time_to_live_may_be(t):
    write = "INSERT INTO $t (p, c, a) VALUES ($p, 1, 1) USING TTL"
    assert t.refuse(f"{write} 630720001") == (
        "InvalidRequest",
        "ttl is too large. requested (630720001) maximum (630720000)",
    )
    assert t.refuse(f"{write} -1") == ("InvalidRequest", "A TTL must be greater or equal to 0, but was -1")


def test_nothing_may_expire_after_2038(t):
    """Cassandra 5.0 keeps to the limit of its predecessors unless `storage_compatibility_mode` is changed."""
    left = 2**31 - 2 - t.store.side.now_ns() // 10**9
    t.run(f"INSERT INTO $t (p, c, a) VALUES ($p, 1, 1) USING TTL {left - 10}")
    ((shown,),) = t.run("SELECT ttl(a) FROM $t WHERE p = $p")
    assert left - 20 <= shown <= left - 10
    for write in (
        "INSERT INTO $t (p, c, a) VALUES ($p, 1, 1) USING TTL 630720000",
        "UPDATE $t USING TTL 630720000 SET a = 1 WHERE p = $p AND c = 1",
    ):
        kind, message = t.refuse(write)
        assert kind == "InvalidRequest"
        assert (
            "with ttl of 630720000 seconds exceeds maximum supported expiration date of 2038-01-19T03:14:06" in message
        )


def test_a_dead_cell_still_wins_over_what_it_has_replaced(t):
    t.run("UPDATE $t USING TIMESTAMP 10 SET a = 1 WHERE p = $p AND c = 1")
    t.run("UPDATE $t USING TIMESTAMP 20 AND TTL 1 SET a = 2 WHERE p = $p AND c = 1")
    t.store.wait_s(2.2)
    assert cell(t) == []
    t.run("UPDATE $t USING TIMESTAMP 15 SET a = 3 WHERE p = $p AND c = 1")
    assert cell(t) == []
    t.run("UPDATE $t USING TIMESTAMP 20 SET a = 4 WHERE p = $p AND c = 1")
    assert cell(t) == [], "in a tie, too"
    t.run("UPDATE $t USING TIMESTAMP 21 SET a = 5 WHERE p = $p AND c = 1")
    assert cell(t) == [5]


def test_a_second_marker_without_ttl_is_shadowed_by_the_expiring_one_of_the_same_timestamp(t):
    t.run("INSERT INTO $t (p, c) VALUES ($p, 1) USING TIMESTAMP 10 AND TTL 6")
    t.run("INSERT INTO $t (p, c) VALUES ($p, 1) USING TIMESTAMP 10")
    t.run("INSERT INTO $t (p, c) VALUES ($p, 2) USING TIMESTAMP 10 AND TTL 6")
    t.run("INSERT INTO $t (p, c) VALUES ($p, 2) USING TIMESTAMP 11")
    assert t.run("SELECT c FROM $t WHERE p = $p") == [(1,), (2,)]
    t.store.wait_s(7.2)
    assert t.run("SELECT c FROM $t WHERE p = $p") == [(2,)]


def test_of_two_expiring_markers_of_one_timestamp_the_later_end_counts(t):
    for c, ttls in ((1, (1, 1000)), (2, (1000, 1))):
        for ttl in ttls:
            t.run(f"INSERT INTO $t (p, c) VALUES ($p, {c}) USING TIMESTAMP 10 AND TTL {ttl}")
    t.store.wait_s(2.2)
    assert t.run("SELECT c FROM $t WHERE p = $p") == [(1,), (2,)]


def test_default_time_to_live_of_the_table(make_partition):
    t = make_partition("p int, c int, a int, PRIMARY KEY (p, c)", "WITH default_time_to_live = 1000")
    t.run("INSERT INTO $t (p, c, a) VALUES ($p, 1, 1)")
    t.run("INSERT INTO $t (p, c, a) VALUES ($p, 2, 2) USING TTL 0")
    t.run("INSERT INTO $t (p, c, a) VALUES ($p, 3, 3) USING TTL 50")
    t.run("UPDATE $t SET a = 4 WHERE p = $p AND c = 4")
    left = dict(t.run("SELECT c, ttl(a) FROM $t WHERE p = $p"))
    assert left[2] is None
    assert 990 <= left[1] <= 1000
    assert 40 <= left[3] <= 50
    assert 990 <= left[4] <= 1000


def test_a_bound_null_is_no_time_to_live_not_even_the_tables(make_partition):
    t = make_partition("p int, c int, a int, PRIMARY KEY (p, c)", "WITH default_time_to_live = 1000")
    t.bound("INSERT INTO $t (p, c, a) VALUES (?, 1, 1) USING TTL ?", (t.key, None))
    assert t.run("SELECT a, ttl(a) FROM $t WHERE p = $p") == [(1, None)]


def test_of_an_option_given_twice_the_last_counts(t):
    t.run("INSERT INTO $t (p, c, a) VALUES ($p, 1, 1) USING TTL 5000 AND TTL 100")
    ((left,),) = t.run("SELECT ttl(a) FROM $t WHERE p = $p")
    assert 90 <= left <= 100


# ---- static columns


def test_a_static_column_is_the_partitions(t):
    t.run("INSERT INTO $t (p, s) VALUES ($p, 7)")
    assert t.run("SELECT p, c, s, a FROM $t WHERE p = $p") == [(t.key, None, 7, None)]
    t.run("INSERT INTO $t (p, c, a) VALUES ($p, 1, 10)")
    t.run("INSERT INTO $t (p, c, s) VALUES ($p, 2, 8)")
    assert t.run("SELECT c, s, a FROM $t WHERE p = $p") == [(1, 8, 10), (2, 8, None)]
    t.run("DELETE s FROM $t WHERE p = $p")
    assert t.run("SELECT c, s, a FROM $t WHERE p = $p") == [(1, None, 10), (2, None, None)]


def test_a_static_column_alone_shows_no_row_to_a_query_of_rows(t):
    t.run("UPDATE $t SET s = 7 WHERE p = $p")
    assert t.run("SELECT c, s FROM $t WHERE p = $p AND c = 1") == []
    assert t.run("SELECT c, s FROM $t WHERE p = $p AND c > 0") == []
    assert t.run("SELECT s FROM $t WHERE p = $p") == [(7,)]
    assert t.run("SELECT DISTINCT p, s FROM $t WHERE p = $p") == [(t.key, 7)]


def test_a_static_column_has_its_own_write_time(t):
    t.run("INSERT INTO $t (p, c, s, a) VALUES ($p, 1, 1, 1) USING TIMESTAMP 10")
    t.run("UPDATE $t USING TIMESTAMP 20 SET s = 2 WHERE p = $p")
    t.run("UPDATE $t USING TIMESTAMP 15 SET s = 3 WHERE p = $p")
    assert t.run("SELECT s, writetime(s), writetime(a) FROM $t WHERE p = $p") == [(2, 20, 10)]


def test_a_row_deletion_does_not_touch_the_static_column(t):
    t.run("INSERT INTO $t (p, c, s, a) VALUES ($p, 1, 1, 1)")
    t.run("DELETE FROM $t WHERE p = $p AND c = 1")
    assert t.run("SELECT c, s FROM $t WHERE p = $p") == [(None, 1)]
