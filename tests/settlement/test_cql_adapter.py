"""The adapter between asyncio and the driver: what it promises to coroutines."""

import asyncio
import threading
from types import SimpleNamespace

import pytest
from cassandra import OperationTimedOut, WriteTimeout

from settlement.cql_adapter import MAX_BATCH_STATEMENTS, CqlAdapter, Write, by_partition


class ThreadedResponse:
    """A response whose callbacks run on a thread of the driver."""

    has_more_pages = False

    def __init__(self, rows):
        self.rows = rows

    def add_callbacks(self, callback, errback):
        thread = threading.Thread(target=callback, args=(self.rows,))
        thread.start()
        thread.join()


class Recorded:
    """A session whose responses are answered by the test."""

    def __init__(self):
        self.responses = []

    def execute_async(self, statement, parameters=()):
        if statement == "refused":
            raise TypeError("wrong type")
        response = SimpleNamespace(statement=statement, has_more_pages=False, pages_asked=0)
        response.add_callbacks = lambda page, error: setattr(response, "call", (page, error))
        response.start_fetching_next_page = lambda: setattr(response, "pages_asked", response.pages_asked + 1)
        self.responses.append(response)
        return response


def writes(*statements):
    return [Write(statement, (), (statement,), "") for statement in statements]


def test_answer_on_the_drivers_thread_comes_back_to_the_loop():
    async def scenario():
        session = SimpleNamespace(execute_async=lambda statement, parameters: ThreadedResponse([(1,)]))
        return await CqlAdapter(session).execute("SELECT")

    assert asyncio.run(scenario()) == [(1,)]


def test_statements_are_prepared_where_the_loop_is_not_held_up():
    threads = []
    session = SimpleNamespace(prepare=lambda query: threads.append(threading.current_thread()) or query)

    async def scenario():
        assert await CqlAdapter(session, blocking=asyncio.to_thread).prepare("SELECT") == "SELECT"
        assert await CqlAdapter(session).prepare("SELECT") == "SELECT"

    asyncio.run(scenario())
    assert threads[0] is not threading.main_thread()
    assert threads[1] is threading.main_thread()


def test_result_is_read_to_its_last_page():
    async def scenario():
        session = Recorded()
        task = asyncio.create_task(CqlAdapter(session).execute("SELECT"))
        await asyncio.sleep(0)
        (response,) = session.responses
        response.has_more_pages = True
        response.call[0]([(1,), (2,)])
        await asyncio.sleep(0)
        assert response.pages_asked == 1
        response.has_more_pages = False
        response.call[0]([(3,)])
        return await task

    assert asyncio.run(scenario()) == [(1,), (2,), (3,)]


def test_error_of_a_later_page_is_raised():
    async def scenario():
        session = Recorded()
        task = asyncio.create_task(CqlAdapter(session).execute("SELECT"))
        await asyncio.sleep(0)
        (response,) = session.responses
        response.has_more_pages = True
        response.call[0]([(1,)])
        await asyncio.sleep(0)
        response.call[1](WriteTimeout("slow", write_type=0))
        await task

    with pytest.raises(WriteTimeout):
        asyncio.run(scenario())


def test_no_more_than_the_limit_is_in_flight_and_all_are_run():
    async def scenario():
        session = Recorded()
        adapter = CqlAdapter(session, max_in_flight=2)
        task = asyncio.create_task(adapter.execute_all(writes("a", "b", "c", "d", "e")))
        seen = []
        while not task.done():
            await asyncio.sleep(0)
            assert adapter.in_flight <= 2
            fresh = [each for each in session.responses if each not in seen]
            seen += fresh
            for response in fresh:
                response.call[0](None)
        assert adapter.in_flight == 0
        return [response.statement for response in seen]

    assert asyncio.run(scenario()) == ["a", "b", "c", "d", "e"]


def test_failed_writes_are_returned_with_their_errors_and_the_others_count_as_done():
    async def scenario():
        session = Recorded()
        task = asyncio.create_task(CqlAdapter(session).execute_all(writes("a", "refused", "c")))
        await asyncio.sleep(0)
        first, last = session.responses
        first.call[1](WriteTimeout("slow", write_type=0))
        last.call[0](None)
        return [(write.statement, type(error)) for write, error in await task]

    assert asyncio.run(scenario()) == [("a", WriteTimeout), ("refused", TypeError)]


def test_writes_of_one_partition_go_in_batches_of_bounded_size():
    some = [Write("s", (number,), (number % 2,), "") for number in range(2 * MAX_BATCH_STATEMENTS + 2)]
    requests = by_partition(some)
    assert [len(request) for request in requests] == [MAX_BATCH_STATEMENTS, 1, MAX_BATCH_STATEMENTS, 1]
    assert all(len({write.partition for write in request}) == 1 for request in requests)
    assert sorted(write.parameters for request in requests for write in request) == [each.parameters for each in some]


def test_batch_is_one_request_and_fails_as_a_whole(session):
    session.known |= {"order_lookup", "order_history"}
    insert = session.prepare("INSERT INTO order_lookup (order_id) VALUES (?)")
    other = session.prepare("INSERT INTO order_history (user_id) VALUES (?)")
    session.fault = lambda query, parameters: WriteTimeout("slow", write_type=0) if "history" in query else None
    pair = [Write(insert, (1,), (1,), "first"), Write(other, (1,), (1,), "second")]

    async def scenario():
        return await CqlAdapter(session).execute_all([*pair, Write(insert, (2,), (2,), "third")])

    assert [write for write, _ in asyncio.run(scenario())] == pair
    assert session.requests == 2


def test_late_answer_to_a_cancelled_caller_does_nothing_but_free_its_slot():
    async def scenario():
        session = Recorded()
        adapter = CqlAdapter(session, max_in_flight=1)
        cancelled = asyncio.create_task(adapter.execute_all(writes("a", "never sent")))
        waiting = asyncio.create_task(adapter.execute("b"))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        assert [each.statement for each in session.responses] == ["a"]
        session.responses[0].call[0](None)
        await asyncio.sleep(0)
        assert [each.statement for each in session.responses] == ["a", "b"]
        session.responses[1].call[0]([(7,)])
        return await waiting

    assert asyncio.run(scenario()) == [(7,)]


def test_second_answer_to_one_statement_is_ignored():
    async def scenario():
        session = Recorded()
        adapter = CqlAdapter(session)
        task = asyncio.create_task(adapter.execute("a"))
        await asyncio.sleep(0)
        page, error = session.responses[0].call
        page([(1,)])
        error(WriteTimeout("late", write_type=0))
        rows = await task
        page([(2,)])
        await asyncio.sleep(0)
        return rows, adapter.in_flight

    assert asyncio.run(scenario()) == ([(1,)], 0)


def test_answer_after_the_loop_is_closed_does_nothing():
    session = Recorded()

    async def scenario():
        task = asyncio.create_task(CqlAdapter(session).execute("a"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())
    session.responses[0].call[0]([(1,)])


def test_statement_that_the_driver_never_answers_times_out_and_frees_its_slot():
    async def scenario():
        session = Recorded()
        adapter = CqlAdapter(session, max_in_flight=1, give_up_ms=1)
        failed = await adapter.execute_all(writes("a", "b"))
        return [type(error) for _, error in failed], adapter.in_flight

    assert asyncio.run(scenario()) == ([OperationTimedOut, OperationTimedOut], 0)


def test_lost_answer_to_a_cancelled_caller_keeps_its_slot_no_longer_than_the_time_limit():
    async def scenario():
        session = Recorded()
        adapter = CqlAdapter(session, max_in_flight=1, give_up_ms=1)
        cancelled = asyncio.create_task(adapter.execute("a"))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        assert adapter.in_flight == 1
        failed = await adapter.execute_all(writes("b"))
        return [type(error) for _, error in failed], adapter.in_flight

    assert asyncio.run(scenario()) == ([OperationTimedOut], 0)


def test_no_further_page_is_read_for_a_cancelled_caller():
    async def scenario():
        session = Recorded()
        adapter = CqlAdapter(session)
        cancelled = asyncio.create_task(adapter.execute("a"))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        (response,) = session.responses
        response.has_more_pages = True
        response.call[0]([(1,)])
        await asyncio.sleep(0)
        return response.pages_asked, adapter.in_flight

    assert asyncio.run(scenario()) == (0, 0)
