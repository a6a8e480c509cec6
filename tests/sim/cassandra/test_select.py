"""SELECT: which rows, in which order, in which pages."""

from __future__ import annotations

import pytest
from cassandra import InvalidRequest
from cassandra.protocol import SyntaxException


@pytest.fixture
def orders(world):
    world.run(
        "CREATE TABLE o (u int, s int, at bigint, id int, v text, PRIMARY KEY ((u, s), at, id)) "
        "WITH CLUSTERING ORDER BY (at DESC, id ASC)"
    )
    for at in (1, 2, 3):
        for number in (2, 1):
            world.run("INSERT INTO o (u, s, at, id, v) VALUES (1, 1, %s, %s, %s)", (at, number, f"{at}/{number}"))
    return world


def shown(world, where, parameters=None):
    return [row[0] for row in world.run(f"SELECT v FROM o WHERE u = 1 AND s = 1 {where}", parameters)]


def test_clustering_order_is_the_tables(orders):
    assert shown(orders, "") == ["3/1", "3/2", "2/1", "2/2", "1/1", "1/2"]


def test_order_by_reverses_all_columns(orders):
    assert shown(orders, "ORDER BY at ASC, id DESC") == ["1/2", "1/1", "2/2", "2/1", "3/2", "3/1"]
    with pytest.raises(InvalidRequest):
        shown(orders, "ORDER BY at ASC, id ASC")


def test_ranges_follow_values_not_storage(orders):
    assert shown(orders, "AND at > 1") == ["3/1", "3/2", "2/1", "2/2"]
    assert shown(orders, "AND at >= 2 AND at < 3") == ["2/1", "2/2"]
    assert shown(orders, "AND at = 2 AND id > 1") == ["2/2"]


def test_in_on_clustering_columns(orders):
    assert shown(orders, "AND at IN (1, 3, 3) AND id = 2") == ["3/2", "1/2"]


def test_in_on_the_partition_key(orders):
    orders.run("INSERT INTO o (u, s, at, id, v) VALUES (1, 2, 9, 9, 'other')")
    query = "SELECT v FROM o WHERE u = 1 AND s IN (2, 1) PER PARTITION LIMIT 1"
    assert orders.run(query) == [("3/1",), ("other",)]


def test_in_with_one_marker(orders):
    select = orders.session.prepare("SELECT v FROM o WHERE u = ? AND s = ? AND at IN ?")
    assert list(orders.session.execute(select, (1, 1, [1]))) == [("1/1",), ("1/2",)]


def test_multi_column_relations(world):
    world.run("CREATE TABLE m (p int, a int, b int, PRIMARY KEY (p, a, b))")
    for a in (1, 2):
        for b in (1, 2):
            world.run("INSERT INTO m (p, a, b) VALUES (1, %s, %s)", (a, b))
    assert world.run("SELECT a, b FROM m WHERE p = 1 AND (a, b) > (1, 1)") == [(1, 2), (2, 1), (2, 2)]
    assert world.run("SELECT a, b FROM m WHERE p = 1 AND (a, b) IN ((2, 2), (1, 1))") == [(1, 1), (2, 2)]
    assert world.run("SELECT a, b FROM m WHERE p = 1 AND (a) >= (2) LIMIT 1") == [(2, 1)]


def test_limit_and_count(orders):
    assert shown(orders, "LIMIT 2") == ["3/1", "3/2"]
    assert orders.run("SELECT count(*) FROM o") == [(6,)]


def test_filtering_needs_to_be_allowed(orders):
    with pytest.raises(InvalidRequest, match="ALLOW FILTERING"):
        orders.run("SELECT v FROM o WHERE v = '2/1'")
    assert orders.run("SELECT id FROM o WHERE v = '2/1' ALLOW FILTERING") == [(1,)]
    assert shown(orders, "AND id = 2 ALLOW FILTERING") == ["3/2", "2/2", "1/2"]


def test_pages_join_up_without_loss_or_repetition(orders):
    select = orders.session.prepare("SELECT v FROM o WHERE u = 1 AND s = 1")
    for size in (1, 2, 4, 6, 7):
        select.fetch_size = size
        future = orders.session.execute_async(select)
        pages = [future.result().current_rows]
        while future.has_more_pages:
            future.start_fetching_next_page()
            pages.append(future.result().current_rows)
        assert [row[0] for page in pages for row in page] == ["3/1", "3/2", "2/1", "2/2", "1/1", "1/2"]
        assert all(len(page) <= size for page in pages)


def test_callbacks_are_called_again_for_each_page(orders):
    select = orders.session.prepare("SELECT v FROM o WHERE u = 1 AND s = 1 LIMIT 5")
    select.fetch_size = 2
    sizes = []
    future = orders.session.execute_async(select)
    future.add_callbacks(lambda rows: sizes.append(len(rows)), pytest.fail)
    orders.clock.run()
    while future.has_more_pages:
        future.start_fetching_next_page()
        orders.clock.run()
    assert sizes == [2, 2, 1]


def test_paging_state_can_be_handed_to_another_request(orders):
    select = orders.session.prepare("SELECT v FROM o")
    select.fetch_size = 4
    first = orders.session.execute(select)
    rest = orders.session.execute_async(select, paging_state=first.paging_state).result()
    assert [row[0] for row in first.current_rows + rest.current_rows] == ["3/1", "3/2", "2/1", "2/2", "1/1", "1/2"]


def test_a_row_inserted_behind_the_page_is_not_seen_and_one_ahead_is(orders):
    select = orders.session.prepare("SELECT v FROM o WHERE u = 1 AND s = 1")
    select.fetch_size = 2
    future = orders.session.execute_async(select)
    rows = list(future.result().current_rows)
    orders.run("INSERT INTO o (u, s, at, id, v) VALUES (1, 1, 9, 9, 'behind')")
    orders.run("INSERT INTO o (u, s, at, id, v) VALUES (1, 1, 0, 0, 'ahead')")
    while future.has_more_pages:
        future.start_fetching_next_page()
        rows += future.result().current_rows
    assert [row[0] for row in rows] == ["3/1", "3/2", "2/1", "2/2", "1/1", "1/2", "ahead"]


def test_scan_follows_the_ring(world):
    world.run("CREATE TABLE k (p int PRIMARY KEY, v int)")
    for p in range(20):
        world.run("INSERT INTO k (p, v) VALUES (%s, 0)", (p,))
    rows = world.run("SELECT token(p), p FROM k")
    assert rows == sorted(rows)
    middle = rows[10][0]
    assert world.run("SELECT token(p), p FROM k WHERE token(p) > %s", (middle,)) == rows[11:]
    assert sorted(p for _, p in rows) == list(range(20))


def test_known_token(world):
    """The Murmur3Partitioner's token of the int 1, as any Cassandra gives it."""
    world.run("CREATE TABLE k (p int PRIMARY KEY)")
    world.run("INSERT INTO k (p) VALUES (1)")
    assert world.run("SELECT token(p) FROM k") == [(-4069959284402364209,)]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT nothing FROM o",
        "SELECT v FROM nowhere",
        "SELECT v FROM o WHERE u = 1",
        "SELECT v FROM o WHERE u = 1 AND s = 1 AND id = 1",
        "SELECT v FROM o WHERE u = 'x' AND s = 1",
        "SELECT v FROM o WHERE u = 1 AND s = 1 LIMIT 0",
        "SELECT max(at) FROM o",
        "SELECT v FROM o GROUP BY u, s",
        "SELECT v FROM o WHERE u = 1 AND s = 1 AND v LIKE 'a'",
        "SELECT JSON v FROM o",
        "INSERT INTO o (u, s, at, v) VALUES (1, 1, 1, 'x')",
        "INSERT INTO o (u, s, at, id, v) VALUES (1, 1, 1, null, 'x')",
        "INSERT INTO o (u, s, at, id, v) VALUES (1, 1, 1, 99999999999, 'x')",
        "INSERT INTO o (u, s, at, id, v) VALUES (1, 1, 1, 1, 5)",
        "INSERT INTO o (u, s, at, id, v) VALUES (1, 1, 1, 1, 'x') USING TTL -1",
        "INSERT INTO o (u, s, at, id, v) VALUES (1, 1, 1, 1, 'x') USING TTL 999999999",
        "UPDATE o SET at = 5 WHERE u = 1 AND s = 1 AND at = 1 AND id = 1",
        "UPDATE o SET v = 'x' WHERE u = 1 AND s = 1",
        "DELETE FROM o WHERE v = 'x'",
        "CREATE TABLE x (p counter PRIMARY KEY)",
        "CREATE TABLE x (p int PRIMARY KEY, l list<int>)",
        "CREATE INDEX ON o (v)",
    ],
)
def test_what_is_wrong_or_not_offered_is_refused(orders, query):
    with pytest.raises(InvalidRequest):
        orders.run(query)


@pytest.mark.parametrize(
    "query", ["SELEC v FROM o", "SELECT v FROM o WHERE", "INSERT INTO o VALUES (1)", "SELECT select FROM o"]
)
def test_what_is_not_cql_is_a_syntax_error(orders, query):
    with pytest.raises(SyntaxException):
        orders.run(query)
