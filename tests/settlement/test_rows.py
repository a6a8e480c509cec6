"""What events mean for the tables."""

import asyncio

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schema.codes import OrderStatus, Reason
from schema.events import CancelOrder, ReplaceOrder
from schema.identifiers import INT64_MAX
from settlement.rows import RowBatch, refusal_of
from settlement.store import Store


def batch_of(*outputs):
    batch = RowBatch()
    for output in outputs:
        batch.add_output(output)
    return batch


def test_last_word_on_an_order_is_the_one_kept(events):
    output = events.output(events=[events.placement(), events.update(), events.completion()])
    batch = batch_of(output)
    assert batch.orders == {1: events.completion()}
    assert batch.lifecycle == [events.placement(), events.update(), events.completion()]


def test_older_event_does_not_replace_a_newer_one(events):
    batch = batch_of(events.output(events=[events.completion()]), events.output(events=[events.placement()]))
    assert batch.orders == {1: events.completion()}


def test_trade_has_a_row_for_each_side_and_neither_names_the_other(events):
    batch = batch_of(events.output(sequence=3, trades=[events.trade()], time_ns=77))
    maker, taker = batch.trades
    assert (maker.user_id, maker.order_id, maker.side, maker.is_maker) == (70, 7, 1, True)
    assert (taker.user_id, taker.order_id, taker.side, taker.is_maker) == (80, 8, 0, False)
    assert {maker.output_seq, taker.output_seq, maker.traded_at, taker.traded_at} == {3, 77}
    assert 80 not in maker
    assert 70 not in taker


def test_refusal_by_the_engine_is_history(events):
    batch = batch_of(events.output(events=[events.refusal(reason=int(Reason.WOULD_CROSS))]))
    assert list(batch.refused) == [1]
    assert not batch.orders


def test_refused_duplicate_id_leaves_the_real_orders_history_alone(events):
    batch = batch_of(events.output(events=[events.refusal(reason=int(Reason.DUPLICATE_ORDER_ID))]))
    assert not batch.refused


def test_place_that_the_balance_core_rejects_is_history_at_event_time(events):
    event = events.balance_event(request=events.place(order_id=4), response=events.response(order_id=4))
    refusal = refusal_of(event)
    assert refusal is not None
    assert (refusal.order_id, refusal.status, refusal.revision) == (4, OrderStatus.REJECTED, 1)
    assert refusal.created_at_ns == refusal.updated_at_ns == event.time_ns
    assert refusal.reason == Reason.INSUFFICIENT_FUNDS
    assert refusal.client_order_id == "c4"


def test_rejected_replace_is_history_of_the_new_order(events):
    request = ReplaceOrder("r", 10, 1_000, 5, 1, 3, 0, 0, 100, 5)
    refusal = refusal_of(events.balance_event(request=request, response=events.response(order_id=5)))
    assert refusal is not None
    assert (refusal.order_id, refusal.order_type, refusal.max_spend) == (5, 1, 0)


def test_repeats_acceptances_and_rejected_cancels_are_no_history(events):
    place = events.place()
    cancel = CancelOrder("x", 10, 1_000, 3, 1)
    for request, response in (
        (place, events.response(is_repeat=True)),
        (place, events.response(outcome=0)),
        (cancel, events.response()),
        (place, None),
        (None, None),
    ):
        assert refusal_of(events.balance_event(request=request, response=response)) is None


def test_refusal_whose_numbers_fit_no_column_is_reported_not_written(events):
    batch = RowBatch()
    batch.add_balance_event(events.balance_event(request=events.place(price=INT64_MAX + 1), response=events.response()))
    assert not batch.refused
    assert len(batch.unstorable) == 1


def test_every_ledger_entry_is_kept_and_the_balance_is_the_last(events):
    batch = RowBatch()
    batch.add_balance_event(
        events.balance_event(entries=[events.entry(1), events.entry(2), events.entry(1, asset_id=2)])
    )
    assert [(row.asset_id, row.ledger_seq) for row in batch.ledger] == [(1, 1), (1, 2), (2, 1)]
    assert batch.balances[10, 1].ledger_seq == 2
    assert batch.balances[10, 1].available == 20
    assert list(batch.balances) == [(10, 1), (10, 2)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_writes_commute_whatever_is_repeated_or_reordered(
    data, events, session, table_model, log, clock, randomness, topology
):
    """Any order and any repetition of the writes leaves the tables as the events in order would."""
    store = Store(session, clock=clock, randomness=randomness, log=log, symbol_ids=topology.symbols.symbols)
    asyncio.run(store.open())
    last = data.draw(st.integers(1, 5), label="last revision of order 1")
    history = [events.placement(), *(events.update(revision=n) for n in range(2, last + 1))]
    if data.draw(st.booleans(), label="completes"):
        history.append(events.completion(revision=last + 1))
    outputs = [
        events.output(sequence=n, events=[event], trades=[events.trade(trade_id=n)])
        for n, event in enumerate(history, 1)
    ]
    ledger = [events.balance_event(n, entries=[events.entry(n)]) for n in range(1, 4)]

    def writes_of(sources):
        batch = RowBatch()
        for source in sources:
            (batch.add_output if source in outputs else batch.add_balance_event)(source)
        return store.writes_of(batch)

    def tables(writes):
        fresh = table_model()
        session.model = fresh
        for write in writes:
            session.run(write.statement.query, tuple(write.parameters))
        return fresh.tables

    in_order = tables([write for source in [*outputs, *ledger] for write in writes_of([source])])
    shuffled = data.draw(st.permutations([*outputs, *ledger, *data.draw(st.lists(st.sampled_from(outputs)))]))
    cuts = data.draw(st.lists(st.integers(0, len(shuffled)), max_size=3).map(sorted))
    bounds = list(zip([0, *cuts], [*cuts, len(shuffled)], strict=True))
    batches = [write for start, end in bounds for write in writes_of(shuffled[start:end])]
    assert tables(data.draw(st.permutations(batches))) == in_order
