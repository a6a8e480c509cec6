"""Facts about records that are sent as a batch (`create_batch`, `send_batch`), each as the real client shows it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.errors import IllegalOperation, MessageSizeTooLargeError
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import TopicPartition

from sim.clock import Clock
from sim.hosts import WallClock
from sim.kafka.pending import BatchBuilder
from sim.kafka.settings import UnsupportedSetting

FIRST = TopicPartition("many", 0)


def fill(batch: Any, values: list[bytes]) -> int:
    """Append until the batch is full; returns how many were let in."""
    for count, value in enumerate(values):
        if batch.append(timestamp=None, key=None, value=value) is None:
            return count
    return len(values)


def closed(producer: Any, *values: bytes) -> Any:
    batch = producer.create_batch()
    assert fill(batch, list(values)) == len(values)
    batch.close()
    return batch


def test_batch_is_as_large_as_the_real_one_to_the_byte() -> None:
    real = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, 0, 100_000)
    clock = Clock()
    double = BatchBuilder(100_000, clock, WallClock(clock))
    sizes = [0, 1, 51, 52, 63, 64, 65, 127, 128, 8_000, 8_191, 8_192, 9_000] * 8
    for ordinal, size in enumerate(sizes):
        key = None if ordinal % 3 else b"k" * (size // 2)
        headers = [("name", b"content" * size)] if ordinal % 5 == 0 and size < 100 else []
        timestamp = 1_700_000_000_000 + (ordinal * 37 if ordinal % 2 else -ordinal * 5)
        expected = real.append(ordinal, timestamp, key, b"v" * size, headers)
        found = double.append(timestamp=timestamp, key=key, value=b"v" * size, headers=headers)
        assert (found is None) == (expected is None), ordinal
        if found is None or expected is None:
            break
        assert (found.offset, found.size, found.timestamp) == (expected.offset, expected.size, expected.timestamp)
    else:
        pytest.fail("the batch was never full")
    assert double.size() == real.size()
    assert double.closed()


def test_one_future_tells_the_first_offset_of_all_records(world: Any) -> None:
    async def main(kafka: Any) -> Any:
        async with kafka.producer() as producer:
            await producer.send_and_wait("many", b"before", partition=0)
            delivery = await producer.send_batch(closed(producer, b"a", b"b", b"c"), "many", partition=0)
            return await delivery

    metadata = world.run(main)
    assert (metadata.topic_partition, metadata.offset, metadata.timestamp) == (FIRST, 1, -1)
    stored = world.cluster.partitions[FIRST].log.batches[-1]
    assert [value for _, _, value, _ in stored.rows()] == [b"a", b"b", b"c"]


def test_second_batch_of_a_partition_waits_until_the_first_is_taken(world: Any) -> None:
    async def main(kafka: Any) -> Any:
        async with kafka.producer(linger_ms=50) as producer:
            loop = asyncio.get_running_loop()
            first = await producer.send("many", b"lingers", partition=0)
            started = loop.time()
            second = await producer.send_batch(closed(producer, b"a"), "many", partition=0)
            return loop.time() - started, (await first).offset, (await second).offset

    waited, *offsets = world.run(main)
    assert waited == pytest.approx(0.05)
    assert offsets == [0, 1]


def test_batch_takes_what_fits_and_a_large_record_alone(world: Any) -> None:
    async def main(kafka: Any) -> Any:
        async with kafka.producer(max_batch_size=1000) as producer:
            full, alone = producer.create_batch(), producer.create_batch()
            counts = fill(full, [b"v" * 300] * 5), fill(alone, [b"v" * 3000] * 2)
            return counts, full.closed(), (await (await producer.send_batch(alone, "many", partition=0))).offset

    assert world.run(main) == ((3, 1), True, 0)


def test_failure_of_the_request_fails_the_batch(world: Any) -> None:
    async def main(kafka: Any) -> Any:
        async with kafka.producer(max_batch_size=20_000_000) as producer:
            delivery = await producer.send_batch(closed(producer, b"v" * 9_000_000), "many", partition=0)
            return await delivery

    with pytest.raises(MessageSizeTooLargeError):
        world.run(main)


def test_batches_of_a_transaction_are_committed_with_it(world: Any) -> None:
    async def main(kafka: Any) -> Any:
        producer = kafka.producer(transactional_id="batches")
        async with producer:
            with pytest.raises(IllegalOperation):
                await producer.send_batch(closed(producer, b"too early"), "many", partition=0)
            async with producer.transaction():
                for partition in range(3):
                    await producer.send_batch(closed(producer, b"a", b"b"), "many", partition=partition)
        consumer = kafka.consumer("many", isolation_level="read_committed", auto_offset_reset="earliest")
        async with consumer:
            read: dict[int, list[bytes]] = {}
            while sum(map(len, read.values())) < 6:
                for place, records in (await consumer.getmany(timeout_ms=1000)).items():
                    read.setdefault(place.partition, []).extend(record.value for record in records)
            return read

    assert world.run(main) == {0: [b"a", b"b"], 1: [b"a", b"b"], 2: [b"a", b"b"]}


def test_flush_waits_for_a_batch(world: Any) -> None:
    async def main(kafka: Any) -> bool:
        async with kafka.producer() as producer:
            delivery = await producer.send_batch(closed(producer, b"a"), "many", partition=0)
            await producer.flush()
            return bool(delivery.done())

    assert world.run(main)


def test_open_or_empty_batch_is_refused_not_misunderstood(world: Any) -> None:
    async def main(kafka: Any) -> None:
        async with kafka.producer() as producer:
            batch = producer.create_batch()
            fill(batch, [b"a"])
            with pytest.raises(UnsupportedSetting):
                await producer.send_batch(batch, "many", partition=0)
            with pytest.raises(UnsupportedSetting):
                await producer.send_batch(closed(producer), "many", partition=0)

    world.run(main)
