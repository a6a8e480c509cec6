"""SELECT: which rows, in which order, in which pages."""

from __future__ import annotations

import pytest


@pytest.fixture
def orders(ordered):
    for c in (1, 2, 3):
        for k in (2, 1):
            ordered.run(f"INSERT INTO $t (p, c, k, v) VALUES ($p, {c}, {k}, {c}{k})")
    return ordered


def shown(t, where="", tail=""):
    return [row[0] for row in t.run(f"SELECT v FROM $t WHERE p = $p {where} {tail}")]


def test_clustering_order_is_the_tables(orders):
    assert shown(orders) == [31, 32, 21, 22, 11, 12]


def test_order_by_reverses_all_columns_or_none(orders):
    assert shown(orders, tail="ORDER BY c ASC, k DESC") == [12, 11, 22, 21, 32, 31]
    assert shown(orders, tail="ORDER BY c DESC") == [31, 32, 21, 22, 11, 12]
    assert shown(orders, tail="ORDER BY c") == [12, 11, 22, 21, 32, 31]
    assert shown(orders, "AND c = 2", "ORDER BY k DESC") == [22, 21]


def test_ranges_follow_values_not_storage(orders):
    assert shown(orders, "AND c > 1") == [31, 32, 21, 22]
    assert shown(orders, "AND c >= 2 AND c < 3") == [21, 22]
    assert shown(orders, "AND c = 2 AND k > 1") == [22]
    assert shown(orders, "AND c > 2 AND c < 2") == []


def test_in_answers_in_clustering_order_without_repetition(orders):
    assert shown(orders, "AND c IN (1, 3, 3) AND k = 2") == [32, 12]
    assert shown(orders, "AND c IN (1, 3)", "ORDER BY c ASC") == [12, 11, 32, 31]
    assert shown(orders, "AND c = 2 AND k IN (2, 1, 7)") == [21, 22]
    assert shown(orders, "AND c IN (3, 1) AND k IN (2, 1)") == [31, 32, 11, 12]
    assert shown(orders, "AND c IN (1, 2) AND k > 1") == [22, 12]
    assert shown(orders, "AND c IN ()") == []


def test_multi_column_relations_in_one_order(make_partition):
    t = make_partition("p int, a int, b int, PRIMARY KEY (p, a, b)")
    for a in (1, 2):
        for b in (1, 2):
            t.run(f"INSERT INTO $t (p, a, b) VALUES ($p, {a}, {b})")
    where = "SELECT a, b FROM $t WHERE p = $p AND"
    assert t.run(f"{where} (a, b) > (1, 1)") == [(1, 2), (2, 1), (2, 2)]
    assert t.run(f"{where} (a, b) >= (1, 2) AND (a, b) < (2, 2)") == [(1, 2), (2, 1)]
    assert t.run(f"{where} (a, b) IN ((2, 2), (1, 1))") == [(1, 1), (2, 2)]
    assert t.run(f"{where} (a, b) = (2, 1)") == [(2, 1)]
    assert t.run(f"{where} (a) >= (2)") == [(2, 1), (2, 2)]


def test_multi_column_range_over_two_descending_columns(make_partition):
    """The way settlement goes on behind the last row of a history."""
    t = make_partition("p int, a int, b int, PRIMARY KEY (p, a, b)", "WITH CLUSTERING ORDER BY (a DESC, b DESC)")
    for a in (1, 2):
        for b in (1, 2):
            t.run(f"INSERT INTO $t (p, a, b) VALUES ($p, {a}, {b})")
    assert t.run("SELECT a, b FROM $t WHERE p = $p AND (a, b) < (2, 2) LIMIT 2") == [(2, 1), (1, 2)]
    assert t.bound("SELECT a, b FROM $t WHERE p = $p AND (a, b) < (?, ?) LIMIT ?", (2, 1, 5)) == [(1, 2), (1, 1)]


def test_limit(orders):
    assert shown(orders, tail="LIMIT 2") == [31, 32]
    assert shown(orders, tail="ORDER BY c ASC LIMIT 3") == [12, 11, 22]
    assert shown(orders, tail="LIMIT 2147483647") == [31, 32, 21, 22, 11, 12]
    assert orders.bound("SELECT v FROM $t WHERE p = ? LIMIT ?", (orders.key, 1)) == [(31,)]


def test_per_partition_limit(make_partition):
    t = make_partition("p int, c int, PRIMARY KEY (p, c)")
    other = t.store.key()
    for p in (t.key, other):
        for c in range(3):
            t.run(f"INSERT INTO $t (p, c) VALUES ({p}, {c})")
    both = f"SELECT p, c FROM $t WHERE p IN ({other}, $p) PER PARTITION LIMIT"
    assert t.run(f"{both} 1") == [(t.key, 0), (other, 0)]
    assert t.run(f"{both} 2 LIMIT 3") == [(t.key, 0), (t.key, 1), (other, 0)]


def test_in_on_the_partition_key_goes_by_value(make_partition):
    """A read of several partitions named by IN answers in the order of the keys' values, whatever the order asked."""
    t = make_partition("p int, c int, PRIMARY KEY (p, c)")
    keys = sorted(t.store.key() for _ in range(5))
    for p in keys:
        t.run(f"INSERT INTO $t (p, c) VALUES ({p}, 0)")
    asked = ", ".join(str(p) for p in (keys[3], keys[0], keys[4], keys[0], keys[1], keys[2]))
    assert t.run(f"SELECT p FROM $t WHERE p IN ({asked})") == [(p,) for p in keys]


def test_in_on_the_partition_key_goes_by_value_signed(make_partition):
    t = make_partition("p int PRIMARY KEY, v int", empty=True)
    for p in (-2, -1, 0, 1):
        t.run(f"INSERT INTO $t (p, v) VALUES ({p}, 0)")
    assert t.run("SELECT p FROM $t WHERE p IN (1, -1, 0, -2)") == [(-2,), (-1,), (0,), (1,)]


def test_in_on_parts_of_a_composite_partition_key(make_partition):
    t = make_partition("u int, s int, v int, PRIMARY KEY ((u, s))", empty=True)
    for u in (1, 2):
        for s in (1, 2):
            t.run(f"INSERT INTO $t (u, s, v) VALUES ({u}, {s}, {u}{s})")
    assert t.run("SELECT v FROM $t WHERE u IN (2, 1) AND s IN (2, 1)") == [(11,), (12,), (21,), (22,)]


def test_in_with_one_marker(orders):
    assert orders.bound("SELECT v FROM $t WHERE p = $p AND c IN ? AND k = 1", ([1, 3],)) == [(31,), (11,)]
    assert orders.bound("SELECT v FROM $t WHERE p IN ? AND c = 1", ([orders.key],)) == [(11,), (12,)]
    assert orders.bound("SELECT v FROM $t WHERE p = $p AND c IN ?", ([],)) == []
    assert orders.bound("SELECT v FROM $t WHERE p = $p AND c IN (?, ?) AND k = 1", (1, 3)) == [(31,), (11,)]


def test_count(orders):
    result = orders.store.session.execute(orders.text("SELECT count(*) FROM $t WHERE p = $p"))
    assert result.column_names == ["count"]
    assert result.one() == (6,)
    assert orders.run("SELECT count(*) AS n FROM $t WHERE p = $p AND c > 5") == [(0,)]
    assert orders.run("SELECT count(1) FROM $t WHERE p = $p AND c = 1") == [(2,)]


def test_count_with_a_limit_counts_all(orders):
    """LIMIT bounds the rows of the answer, which is one."""
    assert orders.run("SELECT count(*) FROM $t WHERE p = $p LIMIT 2") == [(6,)]


def test_filtering(orders):
    assert shown(orders, "AND v = 21", "ALLOW FILTERING") == [21]
    assert shown(orders, "AND v > 21 AND v <= 32", "ALLOW FILTERING") == [31, 32, 22]
    assert shown(orders, "AND k = 2", "ALLOW FILTERING") == [32, 22, 12]
    assert shown(orders, "AND v IN (11, 31)", "ALLOW FILTERING") == [31, 11]
    assert shown(orders, "AND v >= 12", "LIMIT 2 ALLOW FILTERING") == [31, 32]


def test_filtering_does_not_match_what_is_not_there(orders):
    orders.run("INSERT INTO $t (p, c, k) VALUES ($p, 9, 9)")
    assert orders.run("SELECT c FROM $t WHERE p = $p AND v < 12 ALLOW FILTERING") == [(1,)]


def test_a_null_among_the_values_of_a_filter_matches_nothing(orders):
    orders.run("INSERT INTO $t (p, c, k) VALUES ($p, 9, 9)")
    assert shown(orders, "AND v IN (11, null)", "ALLOW FILTERING") == [11]


def test_filtering_on_a_static_column(t):
    t.run("INSERT INTO $t (p, c, s, a) VALUES ($p, 1, 5, 1)")
    t.run("INSERT INTO $t (p, c, a) VALUES ($p, 2, 2)")
    assert t.run("SELECT c FROM $t WHERE p = $p AND s = 5 ALLOW FILTERING") == [(1,), (2,)]
    assert t.run("SELECT c FROM $t WHERE p = $p AND s = 6 ALLOW FILTERING") == []


def test_filtering_on_part_of_the_partition_key(make_partition):
    t = make_partition("u int, s int, v int, PRIMARY KEY ((u, s))", empty=True)
    for s in (1, 2):
        t.run(f"INSERT INTO $t (u, s, v) VALUES (7, {s}, {s})")
        t.run(f"INSERT INTO $t (u, s, v) VALUES (8, {s}, {s})")
    assert sorted(t.run("SELECT u, s FROM $t WHERE u = 7 ALLOW FILTERING")) == [(7, 1), (7, 2)]


def test_pages_join_up_without_loss_or_repetition(orders):
    select = orders.store.prepare(orders.text("SELECT v FROM $t WHERE p = $p"))
    for size in (1, 2, 4, 6, 7):
        select.fetch_size = size
        future = orders.store.session.execute_async(select)
        pages = [future.result().current_rows]
        while future.has_more_pages:
            future.start_fetching_next_page()
            pages.append(future.result().current_rows)
        assert [row[0] for page in pages for row in page] == [31, 32, 21, 22, 11, 12]
        assert all(len(page) <= size for page in pages)


@pytest.mark.parametrize(
    ("query", "size", "sizes"),
    [
        # A full page is taken to have more behind it, so the last page may be empty.
        ("SELECT v FROM $t WHERE p = $p", 2, [2, 2, 2, 0]),
        ("SELECT v FROM $t WHERE p = $p", 3, [3, 3, 0]),
        ("SELECT v FROM $t WHERE p = $p", 4, [4, 2]),
        ("SELECT v FROM $t WHERE p = $p", 6, [6, 0]),
        ("SELECT v FROM $t WHERE p = $p AND c = 1 AND k = 1", 1, [1, 0]),
        ("SELECT v FROM $t WHERE p = $p AND c IN (1, 3)", 3, [3, 1]),
        ("SELECT v FROM $t WHERE p = $p ORDER BY c", 5, [5, 1]),
        ("SELECT v FROM $t WHERE p = $p AND v > 12 ALLOW FILTERING", 3, [3, 1]),
        ("SELECT v FROM $t WHERE p IN ($p, -1)", 6, [6, 0]),
        # It is known that nothing follows where a limit is reached,
        ("SELECT v FROM $t WHERE p = $p LIMIT 5", 2, [2, 2, 1]),
        ("SELECT v FROM $t WHERE p = $p LIMIT 4", 2, [2, 2]),
        ("SELECT v FROM $t WHERE p = $p PER PARTITION LIMIT 3", 2, [2, 1]),
        ("SELECT v FROM $t WHERE p = $p PER PARTITION LIMIT 2", 2, [2]),
        ("SELECT v FROM $t WHERE p IN (-1, $p) PER PARTITION LIMIT 2", 2, [2]),
        ("SELECT v FROM $t WHERE p IN ($p, 999999999) PER PARTITION LIMIT 2", 2, [2, 0]),
        # and where a partition can have but one row.
        ("SELECT DISTINCT p FROM $t WHERE p = $p", 1, [1]),
        ("SELECT count(*) FROM $t WHERE p = $p", 2, [1]),
    ],
)
def test_sizes_of_pages(orders, query, size, sizes):
    select = orders.store.prepare(orders.text(query))
    select.fetch_size = size
    assert sizes_of(orders.store.session.execute(select)) == sizes


def sizes_of(result):
    found = [len(result.current_rows)]
    while result.has_more_pages:
        result.fetch_next_page()
        found.append(len(result.current_rows))
    return found


def test_a_table_without_clustering_columns_has_one_page_for_a_partition(make_partition):
    t = make_partition("p int PRIMARY KEY, v int", empty=True)
    for p in range(3):
        t.run(f"INSERT INTO $t (p, v) VALUES ({p}, 0)")
    for query, sizes in (
        ("SELECT v FROM $t WHERE p = 1", [1]),
        ("SELECT v FROM $t WHERE p IN (0, 1)", [1, 1]),
        ("SELECT v FROM $t", [1, 1, 1, 0]),
    ):
        select = t.store.prepare(t.text(query))
        select.fetch_size = 1
        assert sizes_of(t.store.session.execute(select)) == sizes


def test_the_paging_state_can_be_handed_to_another_request(orders):
    select = orders.store.prepare(orders.text("SELECT v FROM $t WHERE p = $p"))
    select.fetch_size = 4
    first = orders.store.session.execute(select)
    assert first.has_more_pages
    assert isinstance(first.paging_state, bytes)
    rest = orders.store.session.execute(select, paging_state=first.paging_state)
    assert [row[0] for row in first.current_rows + rest.current_rows] == [31, 32, 21, 22, 11, 12]
    assert not rest.has_more_pages
    assert rest.paging_state is None


def test_a_paging_state_that_is_none_is_refused(orders):
    """On a connection of its own: the server closes it."""
    with orders.store.side.another_session() as session:
        with pytest.raises(Exception, match="Invalid value for the paging state") as caught:
            session.execute(orders.text("SELECT v FROM $t WHERE p = $p"), paging_state=b"\xff\x00garbage")
        assert type(caught.value).__name__ == "ProtocolException"


def test_order_by_over_several_partitions_cannot_be_paged(orders):
    kind, message = orders.refuse("SELECT v FROM $t WHERE p IN ($p, 7) ORDER BY c ASC")
    assert kind == "InvalidRequest"
    assert message.startswith("Cannot page queries with both ORDER BY and a IN restriction on the partition key")


def test_a_row_inserted_behind_the_page_is_not_seen_and_one_ahead_is(orders):
    select = orders.store.prepare(orders.text("SELECT v FROM $t WHERE p = $p"))
    select.fetch_size = 2
    result = orders.store.session.execute(select)
    rows = list(result.current_rows)
    orders.run("INSERT INTO $t (p, c, k, v) VALUES ($p, 9, 9, 99)")
    orders.run("INSERT INTO $t (p, c, k, v) VALUES ($p, 0, 0, 0)")
    while result.has_more_pages:
        result.fetch_next_page()
        rows += result.current_rows
    assert [row[0] for row in rows] == [31, 32, 21, 22, 11, 12, 0]


def test_pages_of_a_scan_with_static_rows(make_partition):
    t = make_partition("p int, c int, s int static, PRIMARY KEY (p, c)", empty=True)
    for p in range(4):
        t.run(f"INSERT INTO $t (p, s) VALUES ({p}, {p})")
        for c in range(p):
            t.run(f"INSERT INTO $t (p, c) VALUES ({p}, {c})")
    whole = t.run("SELECT p, c, s FROM $t")
    assert sorted(whole, key=repr) == sorted(
        [(0, None, 0), (1, 0, 1), (2, 0, 2), (2, 1, 2), (3, 0, 3), (3, 1, 3), (3, 2, 3)], key=repr
    )
    select = t.store.prepare(t.text("SELECT p, c, s FROM $t"))
    for size in (1, 2, 3, 5):
        select.fetch_size = size
        assert list(t.store.session.execute(select)) == whole
    distinct = t.store.prepare(t.text("SELECT DISTINCT p, s FROM $t"))
    distinct.fetch_size = 2
    assert [p for p, _ in t.store.session.execute(distinct)] == list(dict.fromkeys(row[0] for row in whole))


def test_a_scan_follows_the_ring(make_partition):
    t = make_partition("p int PRIMARY KEY, v int", empty=True)
    for p in range(20):
        t.run(f"INSERT INTO $t (p, v) VALUES ({p}, 0)")
    rows = t.run("SELECT token(p), p FROM $t")
    assert rows == sorted(rows)
    assert sorted(p for _, p in rows) == list(range(20))
    middle = rows[10][0]
    assert t.run(f"SELECT token(p), p FROM $t WHERE token(p) > {middle}") == rows[11:]
    assert t.run(f"SELECT token(p), p FROM $t WHERE token(p) >= {middle} AND token(p) <= {rows[12][0]}") == rows[10:13]
    assert t.run(f"SELECT p FROM $t WHERE token(p) = {middle}") == [rows[10][1:]]
    assert {p: token for token, p in rows}[1] == -4069959284402364209


def test_column_names_of_an_answer(t):
    t.run("INSERT INTO $t (p, c, a) VALUES ($p, 1, 1)")
    result = t.store.session.execute(
        t.text('SELECT c, a AS "A", writetime(a), ttl(a) AS left, token(p) FROM $t WHERE p = $p')
    )
    assert result.column_names == ["c", "A", "writetime(a)", "left", "system.token(p)"]
    assert len(result.column_types) == 5
    everything = t.store.session.execute(t.text("SELECT * FROM $t WHERE p = $p"))
    assert everything.column_names == ["p", "c", "s", "a", "b", "d", "e"]


def test_writetime_and_ttl_of_what_is_not_there_are_null(t):
    t.run("INSERT INTO $t (p, c) VALUES ($p, 1)")
    assert t.run("SELECT a, writetime(a), ttl(a), writetime(s) FROM $t WHERE p = $p") == [(None, None, None, None)]


def test_no_rows(t):
    result = t.store.session.execute(t.text("SELECT a FROM $t WHERE p = $p"))
    assert result.one() is None
    assert list(result) == []
    assert not result.has_more_pages
