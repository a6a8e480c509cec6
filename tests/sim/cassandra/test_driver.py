"""The driver's side: binding, statements, callbacks, retries, profiles, and life on a simulated host."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from cassandra import AlreadyExists, ConsistencyLevel, InvalidRequest, OperationTimedOut, WriteTimeout
from cassandra.cluster import EXEC_PROFILE_DEFAULT, ExecutionProfile, QueryExhausted
from cassandra.policies import ConstantSpeculativeExecutionPolicy, RetryPolicy
from cassandra.query import SimpleStatement, dict_factory, named_tuple_factory, tuple_factory

from sim.clock import NS_PER_SECOND
from sim.escape import EscapedSimulationError
from sim.hosts import Host
from sim.randomness import Randomness


@pytest.fixture
def table(world):
    world.run("CREATE TABLE t (p int PRIMARY KEY, big bigint, name text, flag boolean)")
    return world


@pytest.fixture
def insert(table):
    return table.session.prepare("INSERT INTO t (p, big, name, flag) VALUES (?, ?, ?, ?)")


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ((1, "x", "n", True), TypeError),
        ((1, 2**63, "n", True), TypeError),
        ((2**31, 1, "n", True), TypeError),
        ((1, 1.5, "n", True), TypeError),
        ((1, 1, 5, True), AttributeError),  # the driver's own slip: int has no encode
        ((1, 1, "n", True, 5), ValueError),
        ((), ValueError),  # the routing key is not set
    ],
)
def test_wrong_values_fail_in_the_caller_as_in_the_driver(table, insert, values, error):
    with pytest.raises(error):
        table.session.execute_async(insert, values)


def test_values_may_be_named_and_bools_are_numbers_to_the_driver(table, insert):
    table.session.execute(insert, {"p": 1, "big": True, "name": "n"})
    assert table.run("SELECT big, name, flag FROM t") == [(1, "n", None)]


def test_named_markers(table):
    select = table.session.prepare("SELECT name FROM t WHERE p = :key")
    table.run("INSERT INTO t (p, name) VALUES (7, 'seven')")
    assert list(table.session.execute(select, {"key": 7})) == [("seven",)]


def test_null_in_the_key_is_refused_by_the_server(table, insert):
    with pytest.raises(InvalidRequest):
        table.session.execute(insert, (None, 1, "n", True))


def test_prepare_refuses_at_once(table):
    with pytest.raises(InvalidRequest):
        table.session.prepare("SELECT nothing FROM t")


def test_prepared_statement_tells_its_columns(insert):
    assert [column.name for column in insert.column_metadata] == ["p", "big", "name", "flag"]
    assert insert.routing_key_indexes == [0]
    assert insert.bind((1, 2, "n", None)).routing_key == b"\x00\x00\x00\x01"


def test_row_factories(table):
    table.run("INSERT INTO t (p, big) VALUES (1, 2)")
    session = table.session
    for factory, expected in ((tuple_factory, (1, 2)), (dict_factory, {"p": 1, "big": 2})):
        session.row_factory = factory
        assert session.execute("SELECT p, big FROM t").one() == expected
    session.row_factory = named_tuple_factory
    row = session.execute("SELECT p, big, writetime(big) FROM t").one()
    assert (row.p, row.big) == (1, 2)
    assert row.writetime_big > 0


def test_types_come_back_as_the_driver_gives_them(world):
    world.run(
        "CREATE TABLE x (p uuid PRIMARY KEY, at timestamp, d date, n decimal, v varint, b blob, l frozen<list<int>>, "
        "s frozen<set<text>>, m frozen<map<text, bigint>>, f double, t text)"
    )
    key = uuid.UUID(int=5)
    at = datetime(2030, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    write = world.session.prepare(
        "INSERT INTO x (p, at, d, n, v, b, l, s, m, f, t) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    )
    values = (key, at, "2030-01-02", Decimal("1.50"), 2**80, b"\x00\xff", [3, 1], {"b", "a"}, {"k": 1}, 0.5, "é")
    world.session.execute(write, values)
    (row,) = world.run("SELECT p, at, d, n, v, b, l, s, m, f, t FROM x")
    assert row[0] == key
    assert row[1] == at.replace(tzinfo=None)
    assert str(row[2]) == "2030-01-02"
    assert row[3:6] == (Decimal("1.50"), 2**80, b"\x00\xff")
    assert (list(row[6]), list(row[7]), dict(row[8])) == ([3, 1], ["a", "b"], {"k": 1})
    assert row[9:] == (0.5, "é")


def test_schema_statements(world):
    world.run("CREATE TABLE IF NOT EXISTS a (p int PRIMARY KEY)")
    world.run("CREATE TABLE IF NOT EXISTS a (p int PRIMARY KEY)")
    with pytest.raises(AlreadyExists):
        world.run("CREATE TABLE a (p int PRIMARY KEY)")
    insert = world.session.prepare("INSERT INTO a (p) VALUES (?)")
    world.session.execute(insert, (1,))
    world.run("ALTER TABLE a ADD v int")
    world.session.execute(insert, (2,))
    assert sorted(world.run("SELECT p, v FROM a")) == [(1, None), (2, None)]
    world.run("TRUNCATE a")
    assert world.run("SELECT * FROM a") == []
    world.run("DROP TABLE a")
    with pytest.raises(InvalidRequest):
        world.session.execute(insert, (1,))
    world.run("DROP TABLE IF EXISTS a")


def test_callback_added_late_is_called_at_once(table):
    future = table.session.execute_async("SELECT * FROM t")
    future.result()
    called = []
    future.add_callback(called.append)
    assert called == [[]]
    assert not future.has_more_pages
    with pytest.raises(QueryExhausted):
        future.start_fetching_next_page()


def test_retry_policy_of_the_statement_is_asked_with_the_drivers_arguments(table):
    class Asked(RetryPolicy):
        def on_write_timeout(self, query, consistency, write_type, required_responses, received_responses, retry_num):
            calls.append((query.query_string, consistency, required_responses, received_responses, retry_num))
            return (self.RETRY, ConsistencyLevel.ALL) if retry_num == 0 else (self.RETHROW, None)

    calls: list[tuple[object, ...]] = []
    table.cluster.faults.arm("write_timeout_none", times=2)
    query = "INSERT INTO t (p) VALUES (1)"
    statement = SimpleStatement(query, retry_policy=Asked(), consistency_level=ConsistencyLevel.QUORUM)
    with pytest.raises(WriteTimeout):
        table.session.execute(statement)
    assert calls == [(query, ConsistencyLevel.QUORUM, 2, 0, 0), (query, ConsistencyLevel.ALL, 3, 0, 1)]


def test_speculative_execution_of_an_idempotent_statement(table):
    profile = ExecutionProfile(
        consistency_level=ConsistencyLevel.QUORUM,
        speculative_execution_policy=ConstantSpeculativeExecutionPolicy(0.05, 2),
        row_factory=tuple_factory,
    )
    table.session.execution_profiles = {EXEC_PROFILE_DEFAULT: profile}
    table.network.cut("observer", "cassandra-1")
    insert = table.session.prepare("INSERT INTO t (p) VALUES (?)")
    insert.is_idempotent = True
    begun = table.clock.now
    for p in range(3):
        table.session.execute(insert, (p,))
    assert table.clock.now - begun < NS_PER_SECOND
    insert.is_idempotent = False
    futures = [table.session.execute_async(insert, (p,)) for p in range(3)]
    with pytest.raises(OperationTimedOut):
        [future.result() for future in futures]


def started(table, main):
    host = Host(table.clock, Randomness(1), "settlement-1")
    return host, host.start(main)


def test_service_on_a_simulated_host(table):
    """As settlement's adapter does it: callbacks come back to the loop by call_soon_threadsafe."""
    results: list[object] = []

    async def main(incarnation):
        session = table.cluster.session(incarnation, "ks")
        session.row_factory = tuple_factory
        loop = asyncio.get_running_loop()
        insert = session.prepare("INSERT INTO t (p, name) VALUES (?, ?)")

        async def execute(query, values=None):
            waiter = loop.create_future()
            future = session.execute_async(query, values)
            future.add_callbacks(
                lambda rows: loop.call_soon_threadsafe(waiter.set_result, rows),
                lambda error: loop.call_soon_threadsafe(waiter.set_exception, error),
            )
            return await waiter

        await asyncio.gather(*(execute(insert, (p, f"n{p}")) for p in range(10)))
        results.append(await execute("SELECT p FROM t WHERE p = 3"))
        for blocking in (
            lambda: session.execute("SELECT p FROM t"),
            lambda: session.execute_async("SELECT p FROM t").result(),
        ):
            try:
                blocking()
            except EscapedSimulationError as error:
                results.append("settlement-1" in str(error))

    started(table, main)
    table.clock.run()
    assert results == [[(3,)], True, True]


def test_dead_incarnation_can_neither_ask_nor_be_answered(table):
    kept: list[object] = []
    answers: list[object] = []

    async def main(incarnation):
        session = table.cluster.session(incarnation, "ks")
        kept.append(session)
        session.execute_async("INSERT INTO t (p) VALUES (1)").add_callback(answers.append)
        await asyncio.sleep(60)

    host, _ = started(table, main)
    host.crash()
    kept[0].execute_async("INSERT INTO t (p) VALUES (2)").add_callback(answers.append)
    table.wait_s(1)
    assert answers == []
    assert table.run("SELECT p FROM t") == [(1,)], "what was sent before the crash has happened"
    assert table.cluster.is_quiet()


def test_paused_host_hears_the_answer_when_it_goes_on(table):
    answers: list[object] = []

    async def main(incarnation):
        session = table.cluster.session(incarnation, "ks")
        session.execute_async("INSERT INTO t (p) VALUES (1)").add_callback(answers.append)
        await asyncio.sleep(60)

    host, _ = started(table, main)
    host.pause()
    table.wait_s(5)
    assert answers == []
    host.resume()
    table.wait_s(0)
    assert answers == [None]


def test_operations_of_a_host_end_with_it_though_their_answers_were_queued_for_it(table):
    async def main(incarnation):
        session = table.cluster.session(incarnation, "ks")
        for p in range(2):
            session.execute_async("INSERT INTO t (p) VALUES (%s)", (p,))
        await asyncio.sleep(60)

    host, _ = started(table, main)
    host.pause()
    table.wait_s(1)  # the answers are there, and wait for the host to go on
    assert (table.cluster.operations_open, table.cluster.open_writes("settlement-1")) == (2, 2)
    host.crash()
    assert (table.cluster.operations_open, table.cluster.open_writes("settlement-1")) == (0, 0)
    assert table.cluster.is_quiet()


@pytest.mark.parametrize("fails", [False, True])
def test_reads_are_no_open_writes_before_they_have_ended_or_after(table, fails):
    async def main(incarnation):
        session = table.cluster.session(incarnation, "ks")
        session.execute_async("SELECT p FROM t")
        session.execute_async("INSERT INTO t (p) VALUES (1)")
        await asyncio.sleep(60)

    if fails:
        table.cluster.faults.arm("unavailable")
    started(table, main)
    assert (table.cluster.operations_open, table.cluster.open_writes("settlement-1")) == (2, 1)
    table.wait_s(20)
    assert (table.cluster.operations_open, table.cluster.open_writes("settlement-1")) == (0, 0)


def test_host_paused_beyond_the_time_out_is_told_so(table):
    errors: list[Exception] = []

    async def main(incarnation):
        session = table.cluster.session(incarnation, "ks")
        session.execute_async("INSERT INTO t (p) VALUES (1)").add_errback(errors.append)
        await asyncio.sleep(60)

    table.cluster.faults.arm("overload", times=1)
    host, _ = started(table, main)
    host.pause()
    table.wait_s(20)
    host.resume()
    table.wait_s(1)
    assert [type(error) for error in errors] == [OperationTimedOut]


def test_request_that_can_never_end_is_an_error_of_the_harness(table):
    table.network.cut("observer", "*")
    with pytest.raises(RuntimeError, match="never"):
        table.session.execute("SELECT * FROM t", timeout=None)


def test_client_timestamps_follow_the_clients_clock(table):
    async def main(incarnation):
        session = table.cluster.session(incarnation, "ks")
        session.execute_async("INSERT INTO t (p, big) VALUES (1, 1)")
        await asyncio.sleep(1)

    host = Host(table.clock, Randomness(1), "settlement-1")
    host.wall.jump(-3_600 * NS_PER_SECOND)
    host.start(main)
    table.wait_s(2)
    ((written,),) = table.run("SELECT writetime(big) FROM t")
    assert written < (1_893_456_000 - 3_500) * 10**6


def test_statement_outcomes_are_traced():
    from sim.cassandra import CassandraCluster
    from sim.clock import Clock
    from sim.network import Network

    class Rows:
        def __init__(self):
            self.rows = []

        def emitter(self, kind):
            assert kind == "cql"
            return lambda *row: self.rows.append(row)

    clock, randomness, trace = Clock(), Randomness(1), Rows()
    cluster = CassandraCluster(clock, Network(clock, randomness), randomness, trace)
    session = cluster.harness_session()
    session.execute("CREATE KEYSPACE ks WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 3}")
    session.set_keyspace("ks")
    session.execute("CREATE TABLE t (user_id bigint, order_id bigint, v int, PRIMARY KEY (user_id, order_id))")
    text = "INSERT INTO t (user_id, order_id, v) VALUES (?, ?, ?) USING TIMESTAMP ? AND TTL ?"
    insert = session.prepare(text)
    insert.consistency_level = ConsistencyLevel.QUORUM
    session.execute(insert, (5, 6, 7, 99, 60))
    cluster.faults.arm("write_timeout_some", times=1)
    with pytest.raises(WriteTimeout):
        session.execute(insert, (5, 8, 7, 99, 60))
    first, second = trace.rows
    assert cluster.statement_texts[first[2]] == text
    assert first[1:11] == ("observer", first[2], "t", "INSERT", 5, -1, 6, 99, 60, "QUORUM")
    assert first[11] < first[0]
    assert first[12:] == ("ok", 2)
    assert second[12] == "WriteTimeout"
    assert second[7] == 8


def test_two_runs_of_one_seed_are_equal(make_world):
    def run():
        world = make_world(seed=7)
        world.run("CREATE TABLE t (p int PRIMARY KEY, v int)")
        world.cluster.faults.arm("write_timeout_some", ppm=200_000)
        log = []
        for p in range(30):
            try:
                world.run("INSERT INTO t (p, v) VALUES (%s, 1)", (p,))
                log.append((world.clock.now, "ok"))
            except WriteTimeout as error:
                log.append((world.clock.now, str(error)))
        return log, world.cluster.struck, [(name, len(rows)) for name, rows in world.cluster.dump("t", "ks").items()]

    assert run() == run()
