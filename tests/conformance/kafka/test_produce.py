"""Facts about producing: acknowledgements, order, keys, batches, time-outs, and what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.errors import (
    IllegalOperation,
    KafkaConnectionError,
    MessageSizeTooLargeError,
    ProducerClosed,
    UnknownTopicOrPartitionError,
)
from aiokafka.structs import TopicPartition

from sim.conform.kafka_sides import Kafka, read_to_end


@pytest.mark.parametrize("acks", [1, "all", -1])
async def test_acknowledged_record_tells_where_it_is(kafka: Kafka, acks: object) -> None:
    tp = await kafka.partition()
    producer = await kafka.producer(acks=acks)
    stored = await producer.send_and_wait(tp.topic, b"v", timestamp_ms=1_700_000_000_123)
    assert (stored.topic, stored.partition, stored.topic_partition, stored.offset) == (tp.topic, 0, tp, 0)
    assert (stored.timestamp, stored.timestamp_type, stored.log_start_offset) == (1_700_000_000_123, 0, 0)
    assert await kafka.read(tp) == [b"v"]


async def test_without_acknowledgement_nothing_is_told(kafka: Kafka) -> None:
    tp = await kafka.partition()
    producer = await kafka.producer(acks=0)
    assert await producer.send_and_wait(tp.topic, b"v") is None
    assert await kafka.until(lambda: kafka.read(tp)) == [b"v"]


@pytest.mark.parametrize("config", [{}, {"enable_idempotence": True}, {"acks": "all"}, {"linger_ms": 20}])
async def test_records_of_a_partition_keep_the_order_of_sending(kafka: Kafka, config: dict[str, Any]) -> None:
    tp = await kafka.partition()
    producer = await kafka.producer(max_batch_size=400, **config)
    pending = [await producer.send(tp.topic, b"%d" % number) for number in range(200)]
    assert [(await each).offset for each in pending] == list(range(200))
    assert await kafka.read(tp) == [b"%d" % number for number in range(200)]


async def test_delivery_tells_the_timestamp_of_the_first_record_of_its_batch(kafka: Kafka) -> None:
    tp = await kafka.partition()
    producer = await kafka.producer(linger_ms=50)
    first = await producer.send(tp.topic, b"a", timestamp_ms=1_000)
    second = await producer.send(tp.topic, b"b", timestamp_ms=2_000)
    told = [(await first).timestamp, (await second).timestamp]
    reader = await kafka.reader(tp)
    records = (await read_to_end(reader, [tp]))[tp]
    assert [record.timestamp for record in records] == [1_000, 2_000]
    assert told == [1_000, 1_000]


async def test_key_value_and_headers_arrive_as_they_were_sent(kafka: Kafka) -> None:
    tp = await kafka.partition()
    producer = await kafka.producer()
    contents: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]] = [
        (b"k", b"v", [("a", b"1"), ("a", b"2")]),
        (b"k", None, []),
        (None, b"", []),
        (b"", b"v", [("empty", b"")]),
        (None, bytes(range(256)), [("ü", b"\x00")]),
    ]
    for key, value, headers in contents:
        await producer.send_and_wait(tp.topic, value, key, headers=headers)
    reader = await kafka.reader(tp)
    records = (await read_to_end(reader, [tp]))[tp]
    assert [(r.key, r.value, list(r.headers)) for r in records] == contents
    assert [type(r.headers) for r in records] == [tuple] * 5
    assert [(r.serialized_key_size, r.serialized_value_size) for r in records] == [
        (1, 1),
        (1, -1),
        (-1, 0),
        (0, 1),
        (-1, 256),
    ]
    assert [(r.timestamp_type, r.checksum) for r in records] == [(0, None)] * 5


async def test_serializers_are_called_with_none_too(kafka: Kafka) -> None:
    tp = await kafka.partition()
    producer = await kafka.producer(key_serializer=lambda key: repr(key).encode(), value_serializer=str.encode)
    await producer.send_and_wait(tp.topic, "v")
    reader = await kafka.reader(tp, key_deserializer=bytes.decode, value_deserializer=bytes.upper)
    (record,) = (await read_to_end(reader, [tp]))[tp]
    assert (record.key, record.value, record.serialized_key_size) == ("None", b"V", 4)


async def test_equal_keys_meet_in_one_partition_which_is_the_java_clients(kafka: Kafka) -> None:
    topic = await kafka.topic(3)
    producer = await kafka.producer()
    stored = {}
    for key in (b"", b"a", b"21", b"foobar", b"a-little-bit-long-string", b"\xff\xfe"):
        stored[key] = [(await producer.send_and_wait(topic, b"v", key)).partition for _ in range(2)]
    # murmur2(key) & 0x7fffffff, modulo 3
    assert stored == {
        b"": [0, 0],
        b"a": [1, 1],
        b"21": [0, 0],
        b"foobar": [0, 0],
        b"a-little-bit-long-string": [2, 2],
        b"\xff\xfe": [0, 0],
    }


async def test_partitioner_of_ones_own_decides(kafka: Kafka) -> None:
    topic = await kafka.topic(3)
    asked = []

    def choose(key: bytes | None, numbers: list[int], available: list[int]) -> int:
        asked.append((key, sorted(numbers), sorted(available)))
        return 1

    producer = await kafka.producer(partitioner=choose)
    assert (await producer.send_and_wait(topic, b"v", b"k")).partition == 1
    assert (await producer.send_and_wait(topic, b"v", b"k", partition=2)).partition == 2
    assert (await producer.send_and_wait(topic, b"v")).partition == 1
    assert asked == [(b"k", [0, 1, 2], [0, 1, 2]), (None, [0, 1, 2], [0, 1, 2])]


async def test_partitions_of_a_topic_are_known(kafka: Kafka) -> None:
    topic = await kafka.topic(3)
    producer = await kafka.producer()
    assert await producer.partitions_for(topic) == {0, 1, 2}


async def test_partition_that_is_not_there_is_refused(kafka: Kafka) -> None:
    topic = await kafka.topic(1)
    producer = await kafka.producer()
    with pytest.raises(AssertionError):
        await producer.send(topic, b"v", partition=1)
    with pytest.raises(AssertionError):
        await producer.send(topic, b"v", partition=-1)
    with pytest.raises(AssertionError):
        await producer.send(topic)


async def test_what_is_not_bytes_is_refused(kafka: Kafka) -> None:
    topic = await kafka.topic(1)
    producer = await kafka.producer()
    with pytest.raises(TypeError):
        await producer.send(topic, "v")
    with pytest.raises(TypeError):
        await producer.send(topic, b"v", "k")
    assert (await producer.send_and_wait(topic, b"v")).offset == 0


async def test_what_is_like_bytes_is_sent(kafka: Kafka) -> None:
    tp = await kafka.partition()
    producer = await kafka.producer()
    await producer.send_and_wait(tp.topic, bytearray(b"v"), memoryview(b"k"))
    batch = producer.create_batch()
    assert batch.append(timestamp=None, key=bytearray(b"k"), value=memoryview(b"w")) is not None
    with pytest.raises(TypeError):
        batch.append(timestamp=None, key=None, value="text")
    batch.close()
    await (await producer.send_batch(batch, tp.topic, partition=0))
    reader = await kafka.reader(tp)
    records = (await read_to_end(reader, [tp]))[tp]
    assert [(record.key, record.value) for record in records] == [(b"k", b"v"), (b"k", b"w")]


async def test_headers_are_a_list_of_pairs(kafka: Kafka) -> None:
    tp = await kafka.partition()
    producer = await kafka.producer()
    with pytest.raises(TypeError):
        await producer.send(tp.topic, b"v", headers=(("a", b"1"),))
    batch = producer.create_batch()
    with pytest.raises(TypeError):
        batch.append(timestamp=None, key=None, value=b"v", headers=(("a", b"1"),))
    assert (await producer.send_and_wait(await kafka.topic(), b"v", headers=[("a", None)])).offset == 0


async def test_topic_that_is_not_there_is_looked_for_until_the_time_out(kafka: Kafka) -> None:
    producer = await kafka.producer(request_timeout_ms=1_000)
    started_s = asyncio.get_running_loop().time()
    with pytest.raises(UnknownTopicOrPartitionError):
        await producer.send(kafka.unique("missing"), b"v")
    assert asyncio.get_running_loop().time() - started_s >= 1


async def test_record_larger_than_a_request_is_refused_by_the_client(kafka: Kafka) -> None:
    tp = await kafka.partition()
    producer = await kafka.producer(max_request_size=10_000)
    with pytest.raises(MessageSizeTooLargeError):
        await producer.send(tp.topic, b"x" * 10_001)
    assert (await producer.send_and_wait(tp.topic, b"x" * 9_900)).offset == 0


async def test_batch_larger_than_the_topic_takes_is_refused_by_the_broker(kafka: Kafka) -> None:
    tp = await kafka.partition(max_message_bytes="1000")
    producer = await kafka.producer()
    with pytest.raises(MessageSizeTooLargeError):
        await producer.send_and_wait(tp.topic, b"x" * 1_000)
    assert (await producer.send_and_wait(tp.topic, b"x" * 900)).offset == 0


async def test_batches_of_a_request_fail_each_by_itself(kafka: Kafka) -> None:
    topic = await kafka.topic(2, max_message_bytes="1000")
    producer = await kafka.producer(linger_ms=50)
    good = await producer.send(topic, b"x", partition=0)
    bad = await producer.send(topic, b"x" * 2_000, partition=1)
    assert (await good).offset == 0
    with pytest.raises(MessageSizeTooLargeError):
        await bad


@pytest.mark.parametrize("key_size", [None, 0, 3])
async def test_largest_record_that_a_topic_takes_is_the_same_to_the_byte(kafka: Kafka, key_size: int | None) -> None:
    tp = await kafka.partition(max_message_bytes="1000")
    producer = await kafka.producer(acks="all")
    key = None if key_size is None else b"k" * key_size
    # 61 bytes of batch header; the record's length 2, attributes 1, time delta 1, offset delta 1, key length 1,
    # value length 2, header count 1.
    room = 1_000 - 61 - 9 - (key_size or 0)
    with pytest.raises(MessageSizeTooLargeError):
        await producer.send_and_wait(tp.topic, b"x" * (room + 1), key)
    assert (await producer.send_and_wait(tp.topic, b"x" * room, key)).offset == 0


async def test_failed_batch_of_an_idempotent_producer_leaves_no_hole_where_nothing_was_before(kafka: Kafka) -> None:
    tp = await kafka.partition(max_message_bytes="1000")
    producer = await kafka.producer(enable_idempotence=True)
    with pytest.raises(MessageSizeTooLargeError):
        await producer.send_and_wait(tp.topic, b"x" * 2_000)
    assert (await producer.send_and_wait(tp.topic, b"v")).offset == 0


async def test_failed_batch_of_an_idempotent_producer_leaves_a_hole_in_the_sequence(kafka: Kafka) -> None:
    tp = await kafka.partition(max_message_bytes="1000")
    producer = await kafka.producer(enable_idempotence=True)
    await producer.send_and_wait(tp.topic, b"first")
    with pytest.raises(MessageSizeTooLargeError):
        await producer.send_and_wait(tp.topic, b"x" * 2_000)
    with pytest.raises(Exception) as refused:  # noqa: PT011 - its type is what the test compares
        await producer.send_and_wait(tp.topic, b"second")
    assert type(refused.value).__name__ == "OutOfOrderSequenceNumber"
    assert await kafka.read(tp) == [b"first"]


async def test_flush_waits_for_what_was_sent(kafka: Kafka) -> None:
    tp = await kafka.partition()
    producer = await kafka.producer(linger_ms=100)
    pending = [await producer.send(tp.topic, b"v") for _ in range(3)]
    await producer.flush()
    assert all(each.done() for each in pending)


async def test_stop_sends_what_lingers(kafka: Kafka) -> None:
    tp = await kafka.partition()
    producer = await kafka.producer(linger_ms=100)
    pending = await producer.send(tp.topic, b"v")
    await producer.stop()
    assert (await pending).offset == 0
    with pytest.raises(ProducerClosed):
        await producer.send(tp.topic, b"v")
    await producer.stop()
    assert await kafka.read(tp) == [b"v"]


async def test_linger_gathers_records_into_one_batch(kafka: Kafka) -> None:
    tp = await kafka.partition()
    producer = await kafka.producer(linger_ms=300)
    started_s = asyncio.get_running_loop().time()
    pending = [await producer.send(tp.topic, b"v") for _ in range(3)]
    assert [(await each).offset for each in pending] == [0, 1, 2]
    assert asyncio.get_running_loop().time() - started_s >= 0.25


async def test_batches_for_several_partitions_all_arrive(kafka: Kafka) -> None:
    topic = await kafka.topic(3)
    producer = await kafka.producer(acks="all")
    pending = [await producer.send(topic, b"%d" % number, partition=number % 3) for number in range(30)]
    assert [(await each).offset for each in pending] == [number // 3 for number in range(30)]
    tps = [TopicPartition(topic, number) for number in range(3)]
    assert await kafka.read(*tps) == [b"%d" % number for first in range(3) for number in range(first, 30, 3)]


@pytest.mark.parametrize(
    "config",
    [
        {"acks": 2},
        {"acks": "some"},
        {"acks": 1, "enable_idempotence": True},
        {"acks": 0, "transactional_id": "x"},
    ],
)
async def test_settings_that_contradict_are_refused(kafka: Kafka, config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        kafka.clients.producer(**config)


async def test_plain_producer_has_no_transactions(kafka: Kafka) -> None:
    producer = await kafka.producer()
    with pytest.raises(IllegalOperation):
        await producer.begin_transaction()
    with pytest.raises(IllegalOperation):
        await producer.send_offsets_to_transaction({}, "g")


async def test_two_producers_share_a_partition(kafka: Kafka) -> None:
    tp = await kafka.partition()
    producers = [await kafka.producer(enable_idempotence=number == 0) for number in range(2)]
    for number in range(6):
        assert (await producers[number % 2].send_and_wait(tp.topic, b"%d" % number)).offset == number


async def test_producer_is_a_context(kafka: Kafka) -> None:
    tp = await kafka.partition()
    async with kafka.clients.producer() as producer:
        pending = await producer.send(tp.topic, b"v")
    assert (await pending).offset == 0


async def test_client_that_finds_no_broker_does_not_start(kafka: Kafka) -> None:
    if kafka.side.name == "double":
        for broker in kafka.side.cluster.broker_ids:  # type: ignore[attr-defined]
            kafka.side.cluster.crash_broker(broker)  # type: ignore[attr-defined]
        make = kafka.clients
    else:
        from sim.conform.kafka_sides import ServerSide

        make = ServerSide("127.0.0.1:9").clients  # discard: nothing listens there
    producer, consumer, admin = make.producer(), make.consumer(), make.admin()
    for start in (producer.start, consumer.start, admin.start):
        with pytest.raises(KafkaConnectionError):
            await start()
    for stop in (producer.stop, consumer.stop, admin.close):
        await stop()
