"""Facts about the consumer's double without a group: fetching, positions, pauses, resets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from aiokafka.errors import (
    ConsumerStoppedError,
    IllegalOperation,
    IllegalStateError,
    NoOffsetForPartitionError,
    NotLeaderForPartitionError,
    OffsetOutOfRangeError,
)
from aiokafka.structs import TopicPartition

from sim.clock import NS_PER_MS, NS_PER_SECOND

T = TopicPartition("t", 0)


@pytest.fixture
def filled(world: Any) -> Any:
    """A world with ten records in "t", in five batches, timestamps 0 to 9."""

    async def fill(kafka: Any) -> None:
        async with kafka.producer(acks="all") as producer:
            for i in range(0, 10, 2):
                first = await producer.send("t", b"v%d" % i, timestamp_ms=i)
                await producer.send("t", b"v%d" % (i + 1), timestamp_ms=i + 1)
                await first

    world.run(fill)
    return world


def with_consumer(use: Callable[[Any], Coroutine[Any, Any, Any]], **config: Any) -> Callable[[Any], Any]:
    async def main(kafka: Any) -> Any:
        consumer = kafka.consumer(**{"auto_offset_reset": "earliest", **config})
        consumer.assign([T])
        await consumer.start()
        result = await use(consumer)
        await consumer.stop()
        return result

    return main


def test_records_come_with_all_their_fields(filled: Any) -> None:
    async def use(consumer: Any) -> Any:
        consumer.seek(T, 7)
        return (await consumer.getmany(timeout_ms=1000))[T][0]

    record = filled.run(with_consumer(use))
    assert (record.topic, record.partition, record.offset, record.timestamp) == ("t", 0, 7, 7)
    assert (record.key, record.value, record.serialized_value_size, record.headers) == (None, b"v7", 2, ())


def test_max_records_leaves_the_rest_for_the_next_call(filled: Any) -> None:
    async def use(consumer: Any) -> list[list[int]]:
        return [
            [record.offset for record in (await consumer.getmany(timeout_ms=1000, max_records=4)).get(T, [])]
            for _ in range(3)
        ]

    assert filled.run(with_consumer(use)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_getmany_waits_no_longer_than_its_time_out(world: Any) -> None:
    async def use(consumer: Any) -> Any:
        loop = asyncio.get_running_loop()
        started = loop.time()
        records = await consumer.getmany(timeout_ms=250)
        return records, round(loop.time() - started, 6)

    assert world.run(with_consumer(use)) == ({}, 0.25)


def test_record_wakes_a_waiting_consumer(world: Any) -> None:
    async def main(kafka: Any) -> Any:
        producer = kafka.producer()
        await producer.start()

        async def use(consumer: Any) -> Any:
            waiting = asyncio.create_task(consumer.getone())
            await asyncio.sleep(3)
            await producer.send_and_wait("t", b"v")
            await asyncio.sleep(0.1)
            return waiting.result().value

        return await with_consumer(use)(kafka)

    assert world.run(main) == b"v"


def test_paused_partition_gives_nothing_and_loses_nothing(filled: Any) -> None:
    async def use(consumer: Any) -> Any:
        await consumer.getmany(timeout_ms=1000, max_records=3)
        consumer.pause(T)
        assert list(consumer.paused()) == [T]
        nothing = await consumer.getmany(timeout_ms=500)
        consumer.resume(T)
        records = (await consumer.getmany(timeout_ms=1000))[T]
        return nothing, [record.offset for record in records]

    assert filled.run(with_consumer(use)) == ({}, [3, 4, 5, 6, 7, 8, 9])


def test_seek_discards_what_was_fetched(filled: Any) -> None:
    async def use(consumer: Any) -> Any:
        await consumer.getmany(timeout_ms=1000, max_records=2)
        consumer.seek(T, 8)
        return [record.offset for record in (await consumer.getmany(timeout_ms=1000))[T]]

    assert filled.run(with_consumer(use)) == [8, 9]


def test_without_reset_a_missing_offset_is_an_error_of_getmany(filled: Any) -> None:
    async def use(consumer: Any) -> None:
        with pytest.raises(NoOffsetForPartitionError):
            await consumer.getmany(timeout_ms=1000)

    filled.run(with_consumer(use, auto_offset_reset="none"))


def test_without_reset_an_offset_that_is_gone_is_an_error_of_getmany(filled: Any) -> None:
    filled.cluster.faults.pass_retention("t", 0, keep_records=4)

    async def use(consumer: Any) -> Any:
        consumer.seek(T, 2)
        with pytest.raises(OffsetOutOfRangeError) as raised:
            await consumer.getmany(timeout_ms=1000)
        assert raised.value.args == ({T: 2},)
        await consumer.seek_to_beginning(T)
        return [record.offset for record in (await consumer.getmany(timeout_ms=1000))[T]]

    assert filled.run(with_consumer(use, auto_offset_reset="none")) == [6, 7, 8, 9]


def test_reset_moves_to_the_earliest_record_when_the_offset_is_gone(filled: Any) -> None:
    filled.cluster.faults.pass_retention("t", 0, keep_records=4)

    async def use(consumer: Any) -> Any:
        consumer.seek(T, 2)
        return [record.offset for record in (await consumer.getmany(timeout_ms=1000))[T]]

    assert filled.run(with_consumer(use)) == [6, 7, 8, 9]


def test_offsets_can_be_asked_for(filled: Any) -> None:
    async def use(consumer: Any) -> Any:
        await consumer.seek_to_end(T)
        at_time = (await consumer.offsets_for_times({T: 5}))[T]
        return (
            (await consumer.beginning_offsets([T]))[T],
            (await consumer.end_offsets([T]))[T],
            await consumer.position(T),
            (at_time.offset, at_time.timestamp),
            (await consumer.offsets_for_times({T: 50}))[T],
        )

    assert filled.run(with_consumer(use)) == (0, 10, 10, (5, 5), None)


def test_misuse_is_refused_as_the_real_client_does(world: Any) -> None:
    async def use(consumer: Any) -> None:
        with pytest.raises(IllegalStateError):
            consumer.seek(TopicPartition("t", 5), 0)
        with pytest.raises(ValueError, match="positive"):
            consumer.seek(T, -1)
        with pytest.raises(IllegalStateError):
            consumer.subscribe(["t"])
        with pytest.raises(IllegalOperation):
            await consumer.commit()
        with pytest.raises(IllegalStateError):
            await consumer.position(TopicPartition("t", 5))

    world.run(with_consumer(use))


def test_stopped_consumer_says_so(world: Any) -> None:
    async def main(kafka: Any) -> None:
        consumer = kafka.consumer("t")
        await consumer.start()
        await consumer.stop()
        with pytest.raises(ConsumerStoppedError):
            await consumer.getmany()

    world.run(main)


def test_consumer_follows_the_leader(filled: Any) -> None:
    async def use(consumer: Any) -> Any:
        await consumer.getmany(timeout_ms=1000, max_records=1)
        filled.cluster.faults.move_leader("t", 0)
        return [record.offset for record in (await consumer.getmany(timeout_ms=5000))[T]]

    assert filled.run(with_consumer(use)) == list(range(1, 10))


def test_leader_that_has_moved_is_asked_again_when_a_backoff_is_over_and_not_before(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked at the instant of its answer, or woken there again and again, a consumer would spin."""
    backoff_ns = 100 * NS_PER_MS
    asked_ns: list[int] = []
    answered_ns: list[int] = []

    def end_is_missed_in_seconds(ns: int) -> bool:
        """Whether a backoff from there on would, in seconds, not be over when its timer fires."""
        return ns / NS_PER_SECOND + backoff_ns / NS_PER_SECOND > (ns + backoff_ns) / NS_PER_SECOND

    def not_the_leader(call: Any, *_arguments: Any) -> None:
        asked_ns.append(call.deadline_ns - call.transport.request_timeout_ns)
        soon = range(world.clock.now + 1, world.clock.now + 1_000)
        answered_ns.append(next(ns for ns in soon if end_is_missed_in_seconds(ns)))
        found = [(T, 0, NotLeaderForPartitionError, -1, -1, [])]
        world.clock.at(answered_ns[-1], call.transport.loop.deliver, call.finish, None, found)

    async def main(kafka: Any) -> None:
        consumer = kafka.consumer(retry_backoff_ms=backoff_ns // NS_PER_MS)
        consumer.assign([T])
        consumer.seek(T, 0)
        await consumer.start()
        monkeypatch.setattr(world.cluster.requests, "fetch", not_the_leader)
        monkeypatch.setattr(world.cluster, "describe", lambda _call: None)  # so it goes on believing the old metadata
        await asyncio.sleep(0.75)
        await consumer.stop()

    world.pass_s(1)  # between the first second and 1.9 s, two instants in five are such
    world.run(main)
    waited_ns = [again - answered for answered, again in zip(answered_ns, asked_ns[1:], strict=False)]
    assert waited_ns == [backoff_ns] * 7


def test_resumed_partition_waits_for_the_long_poll_under_way(world: Any) -> None:
    """One request at a time per broker: what becomes fetchable meanwhile waits for up to fetch_max_wait_ms."""
    tps = [TopicPartition("many", 0), TopicPartition("many", 3)]  # led by the same broker

    async def main(kafka: Any) -> Any:
        async with kafka.producer(acks="all") as producer:
            await producer.send_and_wait("many", b"v", partition=3)
        consumer = kafka.consumer(auto_offset_reset="earliest", fetch_max_wait_ms=500)
        consumer.assign(tps)
        await consumer.start()
        consumer.pause(tps[1])
        await asyncio.sleep(0.7)
        loop = asyncio.get_running_loop()
        started = loop.time()
        consumer.resume(tps[1])
        await consumer.getone()
        return loop.time() - started

    assert world.cluster.partitions[tps[0]].leader == world.cluster.partitions[tps[1]].leader
    assert 0.2 < world.run(main) < 0.4


def test_waiting_in_vain_leaves_nothing_behind(world: Any) -> None:
    async def use(consumer: Any) -> int:
        for _ in range(50):
            await consumer.getmany(timeout_ms=10)
        waiting = asyncio.create_task(consumer.getmany(timeout_ms=1000))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        return len(consumer._fetch_waiters)

    assert world.run(with_consumer(use)) == 0


def test_two_who_wait_end_each_at_their_own_time(world: Any) -> None:
    async def use(consumer: Any) -> list[float]:
        loop = asyncio.get_running_loop()

        async def wait(timeout_ms: int) -> float:
            assert await consumer.getmany(timeout_ms=timeout_ms) == {}
            return loop.time()

        started = loop.time()
        ended = await asyncio.gather(wait(300), wait(100), wait(200))
        return [round(at - started, 3) for at in ended]

    assert world.run(with_consumer(use)) == [0.3, 0.1, 0.2]


def test_partition_without_records_does_not_remember_fetches_that_were_answered(world: Any) -> None:
    async def main(kafka: Any) -> int:
        tps = [TopicPartition("many", 0), TopicPartition("many", 3)]  # both led by one broker
        consumer = kafka.consumer(auto_offset_reset="earliest")
        consumer.assign(tps)
        await consumer.start()
        async with kafka.producer() as producer:
            for i in range(5):
                await producer.send_and_wait("many", b"v%d" % i, partition=0)
                assert len(await consumer.getmany(timeout_ms=1000)) == 1
        await asyncio.sleep(1)
        await consumer.stop()
        return len(world.cluster.partitions[tps[1]].fetch_waiters)

    assert world.cluster.partitions["many", 0].leader == world.cluster.partitions["many", 3].leader
    assert world.run(main) == 1
