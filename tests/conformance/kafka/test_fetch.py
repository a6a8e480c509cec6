"""Facts about reading without a group: records, positions, ends, pauses, and what is an error."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.admin import RecordsToDelete
from aiokafka.errors import (
    ConsumerStoppedError,
    IllegalOperation,
    IllegalStateError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    UnknownTopicOrPartitionError,
)
from aiokafka.structs import OffsetAndTimestamp, TopicPartition

from sim.conform.kafka_sides import Kafka, read_to_end, stop_for_certain


async def fill(kafka: Kafka, count: int = 10, *, a_batch: int = 2, **configs: str) -> TopicPartition:
    """A partition with that many records, so many a batch; record n has timestamp 1000 + 10 n and value n."""
    tp = await kafka.partition(**configs)
    producer = await kafka.producer(acks="all", linger_ms=20)
    for first in range(0, count, a_batch):
        pending = [
            await producer.send(tp.topic, b"%d" % n, timestamp_ms=1_000 + 10 * n)
            for n in range(first, min(first + a_batch, count))
        ]
        for each in pending:
            await each
    return tp


async def take(consumer: Any, count: int, **options: Any) -> list[int]:
    """The offsets of the next records, at least so many."""
    offsets: list[int] = []
    while len(offsets) < count:
        for records in (await consumer.getmany(timeout_ms=5_000, **options)).values():
            offsets += [record.offset for record in records]
    return offsets


async def test_records_are_read_in_order_once(kafka: Kafka) -> None:
    tp = await fill(kafka)
    reader = await kafka.reader(tp)
    assert await take(reader, 10) == list(range(10))
    assert await reader.position(tp) == 10
    assert await reader.getmany(timeout_ms=50) == {}


async def test_getone_gives_one_record_after_the_other(kafka: Kafka) -> None:
    tp = await fill(kafka, 3)
    reader = await kafka.reader(tp)
    assert [(await reader.getone()).offset for _ in range(3)] == [0, 1, 2]
    assert await reader.position(tp) == 3


async def test_consumer_can_be_iterated(kafka: Kafka) -> None:
    tp = await fill(kafka, 3)
    reader = await kafka.reader(tp)
    offsets = []
    async for record in reader:
        offsets.append(record.offset)
        if record.offset == 2:
            break
    assert offsets == [0, 1, 2]


async def test_getmany_gives_no_more_than_it_is_asked_for(kafka: Kafka) -> None:
    tp = await fill(kafka)
    reader = await kafka.reader(tp)
    taken = [await take(reader, 1, max_records=4) for _ in range(3)]
    assert [offset for offsets in taken for offset in offsets] == list(range(10))
    assert [len(offsets) <= 4 for offsets in taken] == [True] * 3
    with pytest.raises(ValueError, match=r".+"):
        await reader.getmany(max_records=0)


async def test_max_poll_records_bounds_getmany(kafka: Kafka) -> None:
    tp = await fill(kafka)
    reader = await kafka.reader(tp, max_poll_records=3)
    assert len(await take(reader, 1)) <= 3
    with pytest.raises(ValueError, match=r".+"):
        kafka.clients.consumer(max_poll_records=0)


async def test_getmany_does_not_wait_unless_told_to(kafka: Kafka) -> None:
    tp = await kafka.partition()
    reader = await kafka.reader(tp)
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    assert await reader.getmany() == {}
    assert loop.time() - started_s < 0.3
    assert await reader.getmany(timeout_ms=400) == {}
    assert loop.time() - started_s > 0.399


async def test_partitions_can_be_read_by_themselves(kafka: Kafka) -> None:
    topic = await kafka.topic(2)
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    producer = await kafka.producer()
    for number in range(4):
        await producer.send_and_wait(topic, b"%d" % number, partition=number % 2)
    reader = await kafka.reader(first, second)
    values: dict[TopicPartition, list[bytes]] = {first: [], second: []}
    while len(values[second]) < 2:
        for tp, records in (await reader.getmany(second, timeout_ms=1_000)).items():
            values[tp] += [record.value for record in records]
    assert values == {first: [], second: [b"1", b"3"]}
    assert (await reader.getone(first)).value == b"0"
    assert await reader.position(first) == 1


async def test_record_wakes_a_waiting_reader(kafka: Kafka) -> None:
    tp = await kafka.partition()
    reader = await kafka.reader(tp)
    waiting = asyncio.create_task(reader.getone())
    await asyncio.sleep(0.7)  # longer than one long poll
    assert not waiting.done()
    producer = await kafka.producer()
    await producer.send_and_wait(tp.topic, b"v")
    assert (await waiting).value == b"v"


async def test_reader_that_stops_gives_no_more(kafka: Kafka) -> None:
    tp = await kafka.partition()
    reader = await kafka.reader(tp)
    waiting = asyncio.create_task(reader.getone())
    await asyncio.sleep(0.05)
    await reader.stop()
    with pytest.raises(ConsumerStoppedError):
        await waiting
    for call in (reader.getmany, reader.getone):
        with pytest.raises(ConsumerStoppedError):
            await call()
    await reader.stop()


async def test_getmany_of_a_reader_that_stops_gives_nothing(kafka: Kafka) -> None:
    tp = await kafka.partition()
    reader = await kafka.reader(tp)
    waiting = asyncio.create_task(reader.getmany(timeout_ms=60_000))
    await asyncio.sleep(0.05)
    await reader.stop()
    assert await waiting == {}


async def test_latest_begins_at_the_end(kafka: Kafka) -> None:
    tp = await fill(kafka, 4)
    reader = await kafka.reader(tp, auto_offset_reset="latest")
    assert await reader.position(tp) == 4


async def test_ends_of_a_partition_can_be_asked_for(kafka: Kafka) -> None:
    tp = await fill(kafka, 4)
    empty = await kafka.partition()
    reader = await kafka.reader(tp)
    assert await reader.beginning_offsets([tp, empty]) == {tp: 0, empty: 0}
    assert await reader.end_offsets([tp, empty]) == {tp: 4, empty: 0}
    assert await reader.end_offsets([]) == {}


async def test_ends_of_what_is_not_there_time_out(kafka: Kafka) -> None:
    tp = await kafka.partition()
    reader = await kafka.reader(tp, request_timeout_ms=1_000)
    for call in (reader.beginning_offsets, reader.end_offsets):
        with pytest.raises(Exception) as failed:  # noqa: PT011 - its type is what the test compares
            await call([TopicPartition(kafka.unique("missing"), 0)])
        assert type(failed.value).__name__ == "KafkaTimeoutError"


async def test_offsets_are_found_by_time(kafka: Kafka) -> None:
    tp = await fill(kafka, 6)  # timestamps 1000, 1010, ...
    empty = await kafka.partition()
    reader = await kafka.reader(tp)
    for asked, offset in ((0, 0), (1_000, 0), (1_001, 1), (1_020, 2), (1_041, 5), (1_050, 5)):
        found = await reader.offsets_for_times({tp: asked})
        assert found == {tp: OffsetAndTimestamp(offset, 1_000 + 10 * offset)}, asked
    assert await reader.offsets_for_times({tp: 1_051, empty: 0}) == {tp: None, empty: None}
    with pytest.raises(ValueError, match=r".+"):
        await reader.offsets_for_times({tp: -1})


async def test_first_record_in_the_log_at_or_after_a_time_is_found_even_if_times_are_not_in_order(
    kafka: Kafka,
) -> None:
    tp = await kafka.partition()
    producer = await kafka.producer()
    for at_ms in (5_000, 2_000, 9_000, 1_000):
        await producer.send_and_wait(tp.topic, b"v", timestamp_ms=at_ms)
    reader = await kafka.reader(tp)
    found = {}
    for asked in (500, 4_000, 6_000, 9_500):
        found[asked] = (await reader.offsets_for_times({tp: asked}))[tp]
    assert found == {
        500: OffsetAndTimestamp(0, 5_000),
        4_000: OffsetAndTimestamp(0, 5_000),
        6_000: OffsetAndTimestamp(2, 9_000),
        9_500: None,
    }


async def test_seek_moves_the_position_and_forgets_what_was_fetched(kafka: Kafka) -> None:
    tp = await fill(kafka)
    reader = await kafka.reader(tp)
    assert await take(reader, 1, max_records=2) == [0, 1]
    reader.seek(tp, 7)
    assert await reader.position(tp) == 7
    assert await take(reader, 3) == [7, 8, 9]
    reader.seek(tp, 0)
    assert await take(reader, 1, max_records=1) == [0]


async def test_seek_into_a_batch_gives_the_rest_of_it(kafka: Kafka) -> None:
    tp = await fill(kafka, 8, a_batch=4)
    reader = await kafka.reader(tp)
    reader.seek(tp, 2)
    assert await take(reader, 6) == [2, 3, 4, 5, 6, 7]


async def test_seek_to_the_ends(kafka: Kafka) -> None:
    tp = await fill(kafka)
    reader = await kafka.reader(tp)
    assert await reader.seek_to_end(tp) is True
    assert await reader.position(tp) == 10
    assert await reader.seek_to_beginning() is True
    assert await reader.position(tp) == 0
    assert await take(reader, 10) == list(range(10))


async def test_last_stable_offset_is_told_to_readers_of_what_is_not_committed_too(kafka: Kafka) -> None:
    tp = await fill(kafka, 2)
    producer = await kafka.transactional()
    await producer.begin_transaction()
    await producer.send_and_wait(tp.topic, b"open")
    reader = await kafka.reader(tp)
    assert await take(reader, 3) == [0, 1, 2]
    assert (reader.highwater(tp), reader.last_stable_offset(tp)) == (3, 2)


async def test_seek_is_refused_for_what_makes_no_sense(kafka: Kafka) -> None:
    tp = await fill(kafka, 1)
    other = TopicPartition(tp.topic, 5)
    reader = await kafka.reader(tp)
    with pytest.raises(ValueError, match=r".+"):
        reader.seek(tp, -1)
    with pytest.raises(ValueError, match=r".+"):
        reader.seek(tp, "1")
    with pytest.raises(IllegalStateError):
        reader.seek(other, 0)
    for seek in (reader.seek_to_beginning, reader.seek_to_end):
        with pytest.raises(IllegalStateError):
            await seek(other)
        with pytest.raises(TypeError):
            await seek("t")
    with pytest.raises(IllegalStateError):
        await reader.position(other)
    for ask in (reader.highwater, reader.last_stable_offset, reader.last_poll_timestamp):
        with pytest.raises(AssertionError):
            ask(other)


@pytest.mark.parametrize(("reset", "expected"), [("earliest", 0), ("latest", 4)])
async def test_position_past_the_end_is_reset(kafka: Kafka, reset: str, expected: int) -> None:
    tp = await fill(kafka, 4)
    reader = await kafka.reader(tp, auto_offset_reset=reset)
    reader.seek(tp, 100)

    async def is_reset() -> bool:
        await reader.getmany(timeout_ms=50, max_records=1) if reset == "latest" else None
        return bool(await reader.position(tp) == expected)

    await kafka.until(is_reset)
    producer = await kafka.producer()
    await producer.send_and_wait(tp.topic, b"new")
    assert (await take(reader, 1))[0] == expected


async def test_position_past_the_end_is_an_error_without_reset(kafka: Kafka) -> None:
    tp = await fill(kafka, 4)
    reader = await kafka.reader(tp, auto_offset_reset="none")
    reader.seek(tp, 100)
    with pytest.raises(OffsetOutOfRangeError) as refused:
        await reader.getone()
    assert refused.value.args == ({tp: 100},)
    reader.seek(tp, 3)
    assert await take(reader, 1) == [3]


async def test_position_at_the_end_is_no_error(kafka: Kafka) -> None:
    tp = await fill(kafka, 4)
    reader = await kafka.reader(tp, auto_offset_reset="none")
    reader.seek(tp, 4)
    assert await reader.getmany(timeout_ms=700) == {}
    assert await reader.position(tp) == 4


async def test_position_before_the_start_is_reset(kafka: Kafka) -> None:
    tp = await fill(kafka, 4, a_batch=1)
    admin = await kafka.admin()
    await admin.delete_records({tp: RecordsToDelete(before_offset=2)})
    reader = await kafka.reader(tp)
    reader.seek(tp, 1)
    assert await take(reader, 2) == [2, 3]


async def test_waiting_reader_hears_that_the_records_before_the_open_transaction_are_gone(kafka: Kafka) -> None:
    """It waits at the last stable offset; when that is deleted, it goes on where the log begins now."""
    tp = await kafka.partition()
    producer = await kafka.transactional()
    reader = await kafka.reader(tp, isolation_level="read_committed")
    await producer.begin_transaction()
    for _ in range(4):
        await producer.send_and_wait(tp.topic, b"v")
    assert await reader.getmany(timeout_ms=100) == {}
    admin = await kafka.admin()
    assert await admin.delete_records({tp: RecordsToDelete(before_offset=2)}) == {tp: 2}

    async def has_moved() -> bool:
        return bool(await reader.position(tp) == 2)

    await kafka.until(has_moved)
    await producer.commit_transaction()
    assert await take(reader, 2) == [2, 3]


async def test_nowhere_to_begin_is_an_error_without_reset(kafka: Kafka) -> None:
    tp = await fill(kafka, 1)
    reader = await kafka.reader(tp, auto_offset_reset="none")
    with pytest.raises(NoOffsetForPartitionError):
        await reader.getmany(timeout_ms=5_000)
    reader.seek(tp, 0)
    assert await take(reader, 1) == [0]


async def test_paused_partition_gives_nothing_and_loses_nothing(kafka: Kafka) -> None:
    tp = await fill(kafka)
    reader = await kafka.reader(tp)
    assert await take(reader, 1, max_records=3) == [0, 1, 2]
    reader.pause(tp)
    assert reader.paused() == {tp}
    assert await reader.getmany(timeout_ms=700) == {}
    assert await reader.position(tp) == 3
    reader.resume(tp)
    assert reader.paused() == set()
    assert await take(reader, 7) == [3, 4, 5, 6, 7, 8, 9]


async def test_pausing_one_partition_leaves_the_others(kafka: Kafka) -> None:
    first, second = await fill(kafka, 2), await fill(kafka, 2)
    reader = await kafka.reader(first, second)
    reader.pause(first)
    taken = []
    while len(taken) < 2:
        taken += [tp for tp, records in (await reader.getmany(timeout_ms=500)).items() for _ in records]
    assert taken == [second, second]
    with pytest.raises(TypeError):
        reader.pause("t")
    with pytest.raises(IllegalStateError):
        reader.pause(TopicPartition(first.topic, 9))
    with pytest.raises(IllegalStateError):
        reader.resume(TopicPartition(first.topic, 9))


async def test_reader_knows_the_high_watermark_as_of_its_last_fetch(kafka: Kafka) -> None:
    tp = await fill(kafka, 4)
    reader = await kafka.reader(tp)
    assert (reader.highwater(tp), reader.last_stable_offset(tp)) == (None, None)
    await take(reader, 4)
    assert (reader.highwater(tp), reader.last_stable_offset(tp)) == (4, 4)
    assert abs(reader.last_poll_timestamp(tp)) > 0
    committed = await kafka.reader(tp, isolation_level="read_committed")
    await take(committed, 4)
    assert (committed.highwater(tp), committed.last_stable_offset(tp)) == (4, 4)


async def test_large_record_is_read_whatever_the_limits_say(kafka: Kafka) -> None:
    tp = await kafka.partition()
    producer = await kafka.producer()
    for size in (10, 5_000, 10):
        await producer.send_and_wait(tp.topic, b"x" * size)
    reader = await kafka.reader(tp, max_partition_fetch_bytes=1_000, fetch_max_bytes=1_000)
    assert await take(reader, 3) == [0, 1, 2]


async def test_assignment_is_by_hand_or_by_subscription(kafka: Kafka) -> None:
    topic = await kafka.topic(2)
    tps = {TopicPartition(topic, number) for number in range(2)}
    by_hand = await kafka.reader(*tps)
    assert (by_hand.assignment(), by_hand.subscription()) == (tps, {topic})
    with pytest.raises(IllegalStateError):
        by_hand.subscribe([topic])
    subscribed = await kafka.consumer(topic)
    assert (subscribed.assignment(), subscribed.subscription()) == (tps, {topic})
    with pytest.raises(IllegalStateError):
        subscribed.assign(list(tps))
    subscribed.unsubscribe()
    assert (subscribed.assignment(), subscribed.subscription()) == (set(), set())
    subscribed.assign([TopicPartition(topic, 0)])
    assert subscribed.assignment() == {TopicPartition(topic, 0)}


async def test_assignment_can_be_replaced(kafka: Kafka) -> None:
    first, second = await fill(kafka, 2), await fill(kafka, 3)
    reader = await kafka.reader(first)
    assert await take(reader, 2) == [0, 1]
    reader.assign([second])
    assert await take(reader, 3) == [0, 1, 2]
    with pytest.raises(IllegalStateError):
        reader.seek(first, 0)


async def test_subscription_is_refused_for_what_makes_no_sense(kafka: Kafka) -> None:
    topic = await kafka.topic()
    consumer = kafka.clients.consumer()
    for wrong in ((), topic):
        with pytest.raises(TypeError):
            consumer.subscribe(wrong)
    with pytest.raises(TypeError):
        consumer.subscribe([topic], listener=object())
    await consumer.stop()


async def test_topics_and_partitions_are_known(kafka: Kafka) -> None:
    topic = await kafka.topic(3)
    consumer = await kafka.consumer(topic)
    assert consumer.partitions_for_topic(topic) == {0, 1, 2}
    assert consumer.partitions_for_topic(kafka.unique("missing")) is None
    assert topic in await consumer.topics()


async def test_topic_that_is_not_there_stops_the_start(kafka: Kafka) -> None:
    consumer = kafka.clients.consumer(kafka.unique("missing"), request_timeout_ms=1_000)
    with pytest.raises(UnknownTopicOrPartitionError):
        await consumer.start()
    await consumer.stop()


async def test_consumer_without_a_group_commits_nothing(kafka: Kafka) -> None:
    tp = await kafka.partition()
    reader = await kafka.reader(tp)
    with pytest.raises(IllegalOperation):
        await reader.commit()
    with pytest.raises(IllegalOperation):
        await reader.committed(tp)
    with pytest.raises(IllegalOperation):
        await reader.seek_to_committed(tp)


async def test_settings_that_make_no_sense_are_refused(kafka: Kafka) -> None:
    with pytest.raises(ValueError, match=r".+"):
        kafka.clients.consumer(max_poll_records="1")
    consumer = kafka.clients.consumer(isolation_level="serializable")
    with pytest.raises(ValueError, match=r".+"):
        await consumer.start()
    await stop_for_certain(consumer)


async def test_two_readers_each_read_all(kafka: Kafka) -> None:
    tp = await fill(kafka, 5)
    for _ in range(2):
        reader = await kafka.reader(tp)
        records = (await read_to_end(reader, [tp]))[tp]
        assert [record.offset for record in records] == [0, 1, 2, 3, 4]
