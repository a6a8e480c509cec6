"""Every statement that the project issues, issued by the code that issues it: settlement's migrations, store, queries.

What is executed is recorded and compared with the statements that stand in `schema` and `settlement`, so one that is
added there and not reached here fails.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from cassandra import ConsistencyLevel
from cassandra.query import BatchStatement

from schema.tables import CREATE_VERSION_TABLE, MIGRATIONS, SCHEMA_VERSION, TABLE_COLUMNS, create_keyspace, insert_all
from settlement import queries
from settlement import store as settlement_store
from settlement.chain import Progress
from settlement.cql_adapter import CqlAdapter
from settlement.migrations import SchemaSteps
from settlement.retries import Backoff
from settlement.rows import RowBatch
from settlement.store import Store
from tests.settlement.events_for_tests import Events

HOUR_NS = 3600 * 10**9


class Silence:
    """A log that keeps nothing but what is worse than info."""

    def __init__(self):
        self.complaints = []

    def debug(self, event, **fields): ...

    def info(self, event, **fields): ...

    def warning(self, event, **fields):
        self.complaints.append((event, fields))

    error = critical = warning


class Recorder:
    """A session that keeps the texts of what goes through it."""

    def __init__(self, session):
        self._session = session
        self.prepared = {}
        self.executed = {}

    def prepare(self, query):
        statement = self._session.prepare(query)
        self.prepared[statement.query_id] = query
        return statement

    def execute_async(self, statement, parameters=None):
        if isinstance(statement, BatchStatement):
            for is_prepared, what, _ in statement._statements_and_parameters:
                self.executed[self.prepared[what] if is_prepared else what] = None
        else:
            self.executed[getattr(statement, "query_string", statement)] = None
        return self._session.execute_async(statement, parameters)


@pytest.fixture
def run(store):
    """Runs a scenario with an opened settlement store; returns what was executed."""

    def run_it(scenario):
        log, recorded = Silence(), []

        async def main(session, now_ns):
            recorder = Recorder(session)
            recorded.append(recorder)
            opened = Store(
                recorder,
                clock=SimpleNamespace(now_ns=now_ns),
                randomness=SimpleNamespace(below=lambda n: 0),
                log=log,
                symbol_ids=[1, 2],
            )
            await opened.open()
            await scenario(opened, now_ns())

        store.side.run_service(main)
        assert log.complaints == []
        return recorded[0].executed

    return run_it


def texts_of_selects():
    named = {**vars(queries), **vars(settlement_store)}
    return [text for name, text in named.items() if name.startswith("SELECT_")]


def test_a_life_of_orders_reaches_every_statement(store, run):
    events = Events()
    user = store.key()
    found = {}

    async def life(settlement, now_ns):
        def order(kind, number, revision, **more):
            order_id = user * 100 + number
            return kind(
                order_id, revision, user_id=user, created_at_ns=now_ns + number, updated_at_ns=now_ns + revision, **more
            )

        await settlement.write(settlement.insert_active_order(order(events.placement, 1, 1)))
        await settlement.write(settlement.insert_active_order(order(events.placement, 2, 1)))
        found["both live"] = [row.order_id % 100 for row in await settlement.get_active_orders(user)]
        await settlement.write(settlement.update_order_status(order(events.update, 2, 2)))
        await settlement.write(settlement.mark_order_complete(order(events.completion, 1, 3)))
        late = settlement.insert_active_order(order(events.placement, 1, 1))
        await settlement.write(late)  # a replay: it changes nothing
        found["one live"] = [(row.order_id % 100, row.status) for row in await settlement.get_active_orders(user)]
        batch = RowBatch()
        trade = events.trade(user, maker_user_id=user, taker_user_id=user + 1)
        batch.add_output(events.output(1, events=[order(events.refusal, 3, 1)], trades=[trade], time_ns=now_ns))
        batch.add_balance_event(events.balance_event(1, entries=[events.entry(1), events.entry(2, asset_id=2)]))
        await settlement.write(settlement.writes_of(batch))
        for sequence in (5, 7, 6):
            await settlement.write_progress(f"topic{user}", 0, Progress(sequence, -sequence, sequence + 1))
        found["progress"] = await settlement.read_progress(f"topic{user}", 0)
        found["no progress"] = await settlement.read_progress(f"topic{user}", 1)
        q = settlement.queries
        finished = await q.get_order(user, user * 100 + 1)
        found["finished"] = (finished.status, finished.revision, finished.client_order_id)
        # A row of active_orders goes a moment before its lookup; then the order is found in the history.
        _, *lookup_and_history = settlement.insert_active_order(order(events.placement, 4, 1, symbol_id=2))
        await settlement.write(lookup_and_history)
        found["gone from the active ones"] = (await q.get_order(user, user * 100 + 4)).order_id % 100
        found["nobody's"] = await q.get_order(user, user * 100 + 50)
        found["another's"] = await q.get_order(user + 1, user * 100 + 1)
        found["history"] = [(row.order_id % 100, row.revision) for row in await q.get_order_history(user, 1, limit=10)]
        found["older"] = [
            row.order_id % 100
            for row in await q.get_order_history(user, 1, limit=1, before=(now_ns + 2, user * 100 + 2))
        ]
        found["trades"] = [(row.trade_id, row.is_maker) for row in await q.get_trades(user, 1, limit=10)]
        found["balances"] = [(row.asset_id, row.available) for row in await q.get_balances(10)]

    executed = run(life)
    assert found == {
        "both live": [2, 1],
        "one live": [(2, 1)],
        "progress": Progress(7, -7, 8),
        "no progress": None,
        "finished": (2, 3, f"c{user * 100 + 1}"),
        "nobody's": None,
        "another's": None,
        "history": [(3, 1), (2, 2), (1, 3)],
        "gone from the active ones": 4,
        "older": [1],
        "trades": [(user, True)],
        "balances": [(1, 10), (2, 20)],
    }
    expected = [CREATE_VERSION_TABLE, *texts_of_selects()]
    expected += [insert_all(table) for table in TABLE_COLUMNS]
    expected += [insert_all(table, ttl=True) for table in ("active_orders", "order_lookup")]
    assert [text for text in expected if text not in executed] == []


def test_times_to_live_of_a_finished_order(store, run):
    events = Events()
    user = store.key()

    async def finish(settlement, now_ns):
        event = events.completion(user, 3, user_id=user, created_at_ns=now_ns - HOUR_NS, updated_at_ns=now_ns - HOUR_NS)
        await settlement.write(settlement.mark_order_complete(event))

    run(finish)
    ((written, left),) = store.run(
        f"SELECT writetime(status), ttl(status) FROM active_orders WHERE user_id = {user} AND symbol_id = 1"
    )
    assert written == 3
    assert 23 * 3600 - 30 <= left <= 23 * 3600
    ((written, left),) = store.run(
        f"SELECT writetime(revision), ttl(revision) FROM order_lookup WHERE order_id = {user}"
    )
    assert written == 3
    assert 23 * 3600 - 30 <= left <= 23 * 3600
    assert store.run(f"SELECT ttl(status) FROM order_history WHERE user_id = {user} AND symbol_id = 1") == [(None,)]


def test_migrations_run_twice_and_tell_the_version(store):
    keyspace = f"{store.side.keyspace}_m{store.key()}"
    versions = []

    async def migrate(session, now_ns):
        log, backoff = Silence(), Backoff()
        steps = SchemaSteps(CqlAdapter(session), SimpleNamespace(below=lambda n: 0), log, backoff)
        await steps.create_keyspace(1, keyspace)
        await steps.create_keyspace(1, keyspace)
        session.set_keyspace(keyspace)
        try:
            versions.append(await steps.create_or_verify())
            versions.append(await steps.create_or_verify())
        finally:
            session.set_keyspace(store.side.keyspace)

    try:
        store.side.run_service(migrate)
        assert versions == [0, SCHEMA_VERSION]
        for table, columns in TABLE_COLUMNS.items():
            result = store.session.execute(f"SELECT * FROM {keyspace}.{table}")
            assert sorted(result.column_names) == sorted(columns)
    finally:
        store.run(f"DROP KEYSPACE IF EXISTS {keyspace}")


def test_the_look_of_an_observer_at_all(store):
    """What a run does at its end: every table as it is, at ALL, with the write time and what is left to live."""
    key = store.key()
    store.run(f"USE {store.side.keyspace}")
    for step in MIGRATIONS:
        for statement in step.statements:
            store.run(statement)
    store.bound(insert_all("user_balances", ttl=False), (key, 2, 10, 0, 5, 1_000, 5))
    rows = store.run(
        f"SELECT {', '.join(TABLE_COLUMNS['user_balances'])}, writetime(available), ttl(available) FROM user_balances",
        consistency=ConsistencyLevel.ALL,
    )
    assert (key, 2, 10, 0, 5, 1_000, 5, None) in rows


def test_the_text_of_create_keyspace(store):
    name = f"{store.side.keyspace}_k{store.key()}"
    try:
        store.run(create_keyspace(1, name))
        store.run(create_keyspace(1, name))
    finally:
        store.run(f"DROP KEYSPACE {name}")
