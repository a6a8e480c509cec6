"""Facts about batches that the caller puts together: what fits, and how they are delivered."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka.errors import IllegalOperation, MessageSizeTooLargeError, ProducerClosed

from sim.conform.kafka_sides import Kafka, read_to_end


def fill(batch: Any, count: int, *, timestamp: int | None = None, size: int = 1) -> list[Any]:
    """Append that many records; what each append returned."""
    return [batch.append(timestamp=timestamp, key=None, value=b"x" * size) for _ in range(count)]


async def test_batch_is_delivered_as_a_whole(kafka: Kafka) -> None:
    tp = await kafka.partition()
    producer = await kafka.producer(acks="all")
    batch = producer.create_batch()
    for number in range(5):
        assert batch.append(timestamp=1_000 + number, key=b"k", value=b"%d" % number) is not None
    assert batch.record_count() == 5
    batch.close()
    stored = await (await producer.send_batch(batch, tp.topic, partition=0))
    assert (stored.topic, stored.partition, stored.topic_partition) == (tp.topic, 0, tp)
    assert (stored.offset, stored.timestamp, stored.timestamp_type, stored.log_start_offset) == (0, -1, 0, 0)
    reader = await kafka.reader(tp)
    records = (await read_to_end(reader, [tp]))[tp]
    assert [(r.offset, r.timestamp, r.key, r.value) for r in records] == [
        (number, 1_000 + number, b"k", b"%d" % number) for number in range(5)
    ]


async def test_without_acknowledgement_nothing_is_told_of_a_batch(kafka: Kafka) -> None:
    tp = await kafka.partition()
    producer = await kafka.producer(acks=0)
    batch = producer.create_batch()
    fill(batch, 2)
    batch.close()
    assert await (await producer.send_batch(batch, tp.topic, partition=0)) is None
    assert await kafka.until(lambda: kafka.read(tp)) == [b"x", b"x"]


@pytest.mark.parametrize("size", [0, 1, 40, 70, 300])
async def test_what_fits_into_a_batch_is_the_same_to_the_byte(kafka: Kafka, size: int) -> None:
    producer = await kafka.producer(max_batch_size=1_000)
    batch = producer.create_batch()
    taken = []
    while (done := batch.append(timestamp=5_000 + 100 * len(taken), key=b"k", value=b"x" * size)) is not None:
        taken.append((done.offset, done.size, done.timestamp))
    # attributes, time delta, offset delta, key length, key, value length, header count; and before it the length
    first = 7 + (2 if size >= 64 else 1) - 1 + size
    assert taken[0] == (0, first + (2 if first >= 64 else 1), 5_000)
    assert len(taken) == batch.record_count()
    assert batch.size() <= 1_000
    assert batch.size() == 61 + sum(done[1] for done in taken)
    assert batch.closed() is True


async def test_record_larger_than_a_batch_is_let_in_alone(kafka: Kafka) -> None:
    producer = await kafka.producer(max_batch_size=100)
    batch = producer.create_batch()
    assert fill(batch, 1, size=500)[0] is not None
    assert fill(batch, 1) == [None]
    assert batch.record_count() == 1


async def test_closed_batch_takes_nothing(kafka: Kafka) -> None:
    producer = await kafka.producer()
    batch = producer.create_batch()
    assert batch.closed() is False
    batch.close()
    assert batch.closed() is True
    assert fill(batch, 1) == [None]


async def test_batch_waits_for_records_sent_before_it(kafka: Kafka) -> None:
    tp = await kafka.partition()
    producer = await kafka.producer(linger_ms=100)
    first = await producer.send(tp.topic, b"first")
    batch = producer.create_batch()
    fill(batch, 2)
    batch.close()
    second = await producer.send_batch(batch, tp.topic, partition=0)
    third = await producer.send(tp.topic, b"third")
    assert ((await first).offset, (await second).offset, (await third).offset) == (0, 1, 3)


async def test_batch_in_a_transaction(kafka: Kafka) -> None:
    tp = await kafka.partition()
    producer = await kafka.transactional()
    for number in range(4):
        batch = producer.create_batch()
        batch.append(timestamp=None, key=None, value=b"%d" % number)
        batch.close()
        await producer.begin_transaction()
        await (await producer.send_batch(batch, tp.topic, partition=0))
        await (producer.commit_transaction() if number % 2 else producer.abort_transaction())
    await kafka.until(lambda: _reads(kafka, tp, [b"1", b"3"]))


async def _reads(kafka: Kafka, tp: Any, values: list[bytes]) -> bool:
    return await kafka.read(tp) == values


async def test_batch_that_cannot_be_sent_is_refused(kafka: Kafka) -> None:
    tp = await kafka.partition(max_message_bytes="1000")
    transactional = await kafka.transactional()
    producer = await kafka.producer()
    batch = producer.create_batch()
    fill(batch, 1)
    batch.close()
    with pytest.raises(IllegalOperation):
        await transactional.send_batch(batch, tp.topic, partition=0)
    with pytest.raises(AssertionError):
        await producer.send_batch(batch, tp.topic, partition=1)
    large = producer.create_batch()
    fill(large, 3, size=900)
    large.close()
    with pytest.raises(MessageSizeTooLargeError):
        await (await producer.send_batch(large, tp.topic, partition=0))
    await producer.stop()
    with pytest.raises(ProducerClosed):
        await producer.send_batch(batch, tp.topic, partition=0)
