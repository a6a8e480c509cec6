"""The store: one kind of write, retried until it succeeds."""

import asyncio

import pytest
from cassandra import ConsistencyLevel, InvalidRequest, OperationTimedOut, Unavailable, WriteTimeout
from cassandra.cluster import NoHostAvailable
from cassandra.protocol import OverloadedErrorMessage
from hypothesis import given
from hypothesis import strategies as st

from schema.tables import FINISHED_ROW_TTL_S, MIGRATIONS, SCHEMA_VERSION
from settlement.chain import Progress
from settlement.migrations import SchemaError
from settlement.retries import Backoff
from settlement.rows import RowBatch
from settlement.store import Store, StoreConfig, StoreRefused, finished_row_ttl_s

DAY_NS = 24 * 3600 * 10**9


@pytest.fixture
def store(session, clock, randomness, log, topology):
    config = StoreConfig(backoff=Backoff(first_ms=1, longest_ms=1))
    return Store(
        session, clock=clock, randomness=randomness, log=log, symbol_ids=topology.symbols.symbols, config=config
    )


def test_live_rows_carry_the_revision_as_timestamp_and_no_time_to_live(store, session, events):
    async def scenario():
        await store.open()
        await store.write(store.insert_active_order(events.placement()))
        await store.write(store.update_order_status(events.update()))

    asyncio.run(scenario())
    tables = session.model.tables
    for name in ("active_orders", "order_lookup", "order_history"):
        ((timestamp, row, ttl),) = tables[name].values()
        assert (timestamp, ttl, row["revision"]) == (2, None, 2)
    ((_, row, _),) = tables["active_orders"].values()
    assert (row["status"], row["created_at"], row["client_order_id"]) == (1, 1_001, "c1")


def test_completion_gives_the_row_and_its_lookup_a_time_to_live_but_not_history(store, session, events, clock):
    async def scenario():
        await store.open()
        clock.time_ns = events.completion().updated_at_ns + 3600 * 10**9
        await store.write(store.mark_order_complete(events.completion()))

    asyncio.run(scenario())
    ttls = {
        name: next(iter(rows.values()))[2] for name, rows in session.model.tables.items() if name != "schema_version"
    }
    assert ttls == {"active_orders": 23 * 3600, "order_lookup": 23 * 3600, "order_history": None}


def test_placement_that_arrives_after_the_completion_does_not_bring_the_order_back(store, session, events):
    async def scenario():
        await store.open()
        await store.write(store.mark_order_complete(events.completion()))
        await store.write(store.insert_active_order(events.placement()))

    asyncio.run(scenario())
    (row,) = session.model.rows("active_orders")
    assert row["status"] == 2


@given(st.integers(-DAY_NS, 3 * DAY_NS))
def test_finished_row_goes_a_day_after_completion_never_at_once_and_never_later_than_a_day_from_now(age_ns):
    ttl = finished_row_ttl_s(10 * DAY_NS, 10 * DAY_NS + age_ns)
    assert 1 <= ttl <= FINISHED_ROW_TTL_S
    if 0 <= age_ns < DAY_NS - 10**9:
        assert 0 <= ttl * 10**9 - (DAY_NS - age_ns) < 10**9


def test_every_statement_is_local_quorum_and_every_write_has_a_timestamp(store, session, events):
    async def scenario():
        await store.open()
        batch = RowBatch()
        batch.add_output(events.output(events=[events.placement(), events.refusal(2)], trades=[events.trade()]))
        batch.add_balance_event(events.balance_event(entries=[events.entry()]))
        session.executed.clear()
        await store.write(store.writes_of(batch))
        await store.write_progress("engine.outputs", 0, Progress(1, 5, 1))
        await store.read_progress("engine.outputs", 0)

    asyncio.run(scenario())
    assert len(session.executed) == 3 + 1 + 2 + 2 + 2
    for statement, parameters in session.executed:
        assert statement.consistency_level == ConsistencyLevel.LOCAL_QUORUM
        assert statement.is_idempotent
        assert None not in parameters
        assert statement.query.startswith("SELECT") or "USING TIMESTAMP ?" in statement.query


def test_rows_of_one_user_and_symbol_go_in_one_request_whatever_their_tables(store, session, events):
    async def scenario():
        await store.open()
        batch = RowBatch()
        batch.add_output(events.output(events=[events.placement()], trades=[events.trade()]))
        writes = store.writes_of(batch)
        session.requests = 0
        await store.write(writes)
        return {write.partition for write in writes}

    partitions = asyncio.run(scenario())
    assert session.requests == len(partitions)
    assert len(session.model.rows("user_trades")) == 2


@pytest.mark.parametrize(
    "error",
    [
        WriteTimeout("slow", write_type=0),
        Unavailable("down"),
        OperationTimedOut(),
        NoHostAvailable("none", {}),
        OverloadedErrorMessage(0x1001, "overloaded", None),
    ],
    ids=lambda error: type(error).__name__,
)
def test_retryable_error_is_retried_until_the_write_succeeds(store, session, events, log, error):
    failures = iter([error] * 7)

    async def scenario():
        await store.open()
        session.fault = lambda query, parameters: next(failures, None) if "active_orders" in query else None
        await store.write(store.insert_active_order(events.placement()))

    asyncio.run(scenario())
    assert len(session.model.rows("active_orders")) == 1
    warnings = log.at("warning")
    assert [fields["attempt"] for _, fields in warnings] == [1, 2, 3, 4, 5, 6, 7]
    # The row and its history are of one partition: they go in one request and fail together.
    assert warnings[0][1]["errors"] == {type(error).__name__: 2}


def test_a_retried_completion_does_not_live_longer_for_the_time_it_had_to_wait(store, session, events, clock):
    failures = iter([Unavailable("down")] * 3)
    completion = events.completion()

    def fault(query, parameters):
        if "active_orders" not in query or (error := next(failures, None)) is None:
            return None
        clock.time_ns += 2 * 3600 * 10**9
        return error

    async def scenario():
        await store.open()
        session.fault = fault
        clock.time_ns = completion.updated_at_ns
        await store.write(store.mark_order_complete(completion))

    asyncio.run(scenario())
    ((_, _, ttl),) = session.model.tables["active_orders"].values()
    assert ttl == 18 * 3600


def test_refused_write_is_not_retried(store, session, events):
    async def scenario():
        await store.open()
        session.fault = lambda query, parameters: InvalidRequest("no such column")
        session.executed.clear()
        await store.write(store.insert_active_order(events.placement()))

    with pytest.raises(StoreRefused, match="order 1 revision 1"):
        asyncio.run(scenario())
    assert len(session.executed) == 3


def test_older_progress_never_replaces_a_newer_one(store):
    async def scenario():
        await store.open()
        assert await store.read_progress("engine.outputs", 0) is None
        await store.write_progress("engine.outputs", 0, Progress(9, 900, 20))
        await store.write_progress("engine.outputs", 0, Progress(7, 700, 15))
        return await store.read_progress("engine.outputs", 0)

    assert asyncio.run(scenario()) == Progress(9, 900, 20)


def test_two_instances_may_create_the_tables_at_once_and_again(store, session, clock, randomness, log, topology):
    other = Store(session, clock=clock, randomness=randomness, log=log, symbol_ids=topology.symbols.symbols)

    async def scenario():
        await asyncio.gather(store.open(), other.open())
        return await store.schema.create_or_verify()

    assert asyncio.run(scenario()) == SCHEMA_VERSION
    assert [row["version"] for row in session.model.rows("schema_version")] == [step.version for step in MIGRATIONS]


def test_store_of_a_newer_release_is_refused_with_both_versions(store, session):
    session.model.insert("schema_version", {"component": "settlement", "version": SCHEMA_VERSION + 1}, 0, None)
    with pytest.raises(SchemaError, match=f"schema version {SCHEMA_VERSION + 1}.*newer release"):
        asyncio.run(store.open())


def test_store_that_lacks_the_tables_it_claims_to_have_is_refused(store, session):
    session.model.insert("schema_version", {"component": "settlement", "version": SCHEMA_VERSION}, 0, None)
    with pytest.raises(SchemaError, match="active_orders"):
        asyncio.run(store.open())
