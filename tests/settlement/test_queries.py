"""The reads: complete, newest first, and the user's own only."""

import asyncio

import pytest
from cassandra import ConsistencyLevel, InvalidRequest, ReadTimeout
from hypothesis import given
from hypothesis import strategies as st

from settlement.queries import OrderRow, QueryConfig, QueryUnavailable, live_orders
from settlement.retries import Backoff
from settlement.rows import RowBatch
from settlement.store import Store, StoreConfig


@pytest.fixture
def store(session, clock, randomness, log, topology):
    config = StoreConfig(queries=QueryConfig(attempts=3, backoff=Backoff(first_ms=1, longest_ms=1)))
    return Store(
        session, clock=clock, randomness=randomness, log=log, symbol_ids=topology.symbols.symbols, config=config
    )


def answer(store, *orders, ask):
    """What `ask` gives once the rows of `orders` are written."""

    async def scenario():
        await store.open()
        for order in orders:
            kind = type(order).__name__
            if kind == "OrderRejected":
                await store.write([store.record_refusal(order)])
            elif kind == "OrderCompletion":
                await store.write(store.mark_order_complete(order))
            else:
                await store.write(store.insert_active_order(order))
        return await ask()

    return asyncio.run(scenario())


def ids(rows):
    return [row.order_id for row in rows]


def test_live_orders_of_all_symbols_come_newest_first(store, events):
    orders = [events.placement(n, symbol_id=1 + n % 2) for n in range(1, 7)]
    assert ids(answer(store, *orders, ask=lambda: store.get_active_orders(10))) == [6, 5, 4, 3, 2, 1]


def test_every_read_is_local_quorum(store, session, events):
    async def read_all():
        session.executed.clear()
        await store.get_active_orders(10)
        await store.queries.get_order(10, 1)
        await store.queries.get_order_history(10, 1)
        await store.queries.get_trades(10, 1)
        await store.queries.get_balances(10)

    answer(store, events.placement(), ask=read_all)
    tables = {statement.query.split(" FROM ")[1].split(" ")[0] for statement, _ in session.executed}
    assert tables == {"active_orders", "order_lookup", "order_history", "user_trades", "user_balances"}
    assert {statement.consistency_level for statement, _ in session.executed} == {ConsistencyLevel.LOCAL_QUORUM}


def test_only_the_symbols_asked_for_are_read(store, events, session):
    orders = [events.placement(n, symbol_id=1 + n % 2) for n in range(1, 5)]
    assert ids(answer(store, *orders, ask=lambda: store.get_active_orders(10, [1]))) == [4, 2]


def test_finished_orders_do_not_use_up_the_limit(store, events):
    orders = [events.placement(1), events.completion(2), events.completion(3), events.placement(4)]
    assert ids(answer(store, *orders, ask=lambda: store.get_active_orders(10, None, 2))) == [4, 1]


def test_live_order_behind_many_pages_is_found(store, events, session):
    session.page_rows = 2
    orders = [events.placement(1), *(events.completion(n) for n in range(2, 12))]
    assert ids(answer(store, *orders, ask=lambda: store.get_active_orders(10))) == [1]


def test_another_users_orders_are_not_shown(store, events):
    orders = [events.placement(1), events.placement(2, user_id=11)]
    assert ids(answer(store, *orders, ask=lambda: store.get_active_orders(10))) == [1]


def test_order_is_found_while_live_and_when_its_row_has_gone(store, events, session):
    live = answer(store, events.placement(), ask=lambda: store.queries.get_order(10, 1))
    assert live is not None
    assert live.status == 0
    session.model.tables["active_orders"].clear()
    finished = answer(store, ask=lambda: store.queries.get_order(10, 1))
    assert finished == live


def test_another_users_order_is_not_found(store, events):
    assert answer(store, events.placement(), ask=lambda: store.queries.get_order(11, 1)) is None


@pytest.mark.parametrize("order_id", [-1, 0, 2**63])
def test_id_that_no_order_can_have_is_not_found_without_asking_the_database(store, session, order_id):
    def refuse(query, parameters):
        return TypeError("does not fit") if "FROM order_lookup" in query else None

    session.fault = refuse
    assert answer(store, ask=lambda: store.queries.get_order(10, order_id)) is None


def test_order_that_never_lived_is_in_history_only(store, events):
    assert answer(store, events.refusal(), ask=lambda: store.queries.get_order(10, 1)) is None
    assert ids(answer(store, ask=lambda: store.queries.get_order_history(10, 1))) == [1]


def test_history_pages_without_losing_orders_of_the_same_moment(store, events):
    orders = [events.placement(n, created_at_ns=500) for n in range(1, 6)]

    async def all_pages():
        found, before = [], None
        while page := await store.queries.get_order_history(10, 1, 2, before):
            found += page
            before = (page[-1].created_at, page[-1].order_id)
        return found

    assert ids(answer(store, *orders, ask=all_pages)) == [5, 4, 3, 2, 1]


def test_trades_and_balances_are_the_users_own(store, events):
    async def scenario():
        await store.open()
        batch = RowBatch()
        batch.add_output(events.output(trades=[events.trade(1), events.trade(2)]))
        batch.add_balance_event(events.balance_event(entries=[events.entry(1), events.entry(2)]))
        await store.write(store.writes_of(batch))
        trades = await store.queries.get_trades(70, 1)
        return trades, await store.queries.get_balances(10), await store.queries.get_balances(11)

    trades, balances, none = asyncio.run(scenario())
    assert [(row.trade_id, row.order_id, row.is_maker) for row in trades] == [(2, 7, True), (1, 7, True)]
    assert [(row.available, row.ledger_seq) for row in balances] == [(20, 2)]
    assert none == []


def test_read_that_fails_a_few_times_is_answered(store, session, events):
    failures = iter([ReadTimeout("slow")] * 2)

    async def ask():
        session.fault = lambda query, parameters: next(failures, None)
        return await store.queries.get_balances(10)

    assert answer(store, ask=ask) == []


@pytest.mark.parametrize(("error", "attempts"), [(ReadTimeout("slow"), 3), (InvalidRequest("never"), 1)])
def test_read_that_keeps_failing_says_so(store, session, error, attempts):
    async def ask():
        session.executed.clear()
        session.fault = lambda query, parameters: error
        return await store.get_active_orders(10, [1])

    with pytest.raises(QueryUnavailable, match="active orders"):
        answer(store, ask=ask)
    assert len(session.executed) == attempts


def test_unreasonable_limits_are_refused(store):
    for ask in (
        lambda: store.get_active_orders(10, None, -1),
        lambda: store.queries.get_order_history(10, 1, 0),
        lambda: store.queries.get_trades(10, 1, 1_001),
    ):
        with pytest.raises(ValueError, match="limit"):
            answer(store, ask=ask)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 50), st.integers(0, 4)), max_size=20), st.integers(0, 9))
def test_active_orders_are_exactly_the_newest_live_ones(keys, limit):
    rows = [
        OrderRow(1, 1, created, order_id, 0, 1, status, 0, 0, 0, 0, 0, 0, 0, 0, 0, "")
        for created, order_id, status in keys
    ]
    found = live_orders(rows, limit)
    expected = sorted(
        (row for row in rows if row.status in (0, 1)), key=lambda row: (row.created_at, row.order_id), reverse=True
    )
    assert [(row.created_at, row.order_id) for row in found] == [
        (row.created_at, row.order_id) for row in expected[:limit]
    ]
