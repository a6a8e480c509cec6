"""Facts about the producer's double, each as the real client shows it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from aiokafka.errors import (
    IllegalOperation,
    KafkaConnectionError,
    MessageSizeTooLargeError,
    NotEnoughReplicasError,
    OutOfOrderSequenceNumber,
    ProducerClosed,
    RequestTimedOutError,
)
from aiokafka.partitioner import murmur2

from sim.kafka.settings import UnsupportedSetting


def test_record_metadata_tells_where_the_record_is(world: Any) -> None:
    async def main(kafka: Any) -> Any:
        async with kafka.producer() as producer:
            await producer.send_and_wait("t", b"a", timestamp_ms=5)
            return await producer.send_and_wait("t", b"b", timestamp_ms=7)

    metadata = world.run(main)
    assert (metadata.topic, metadata.partition, metadata.offset, metadata.timestamp) == ("t", 0, 1, 7)


def test_sends_of_one_turn_share_a_request(world: Any) -> None:
    async def main(kafka: Any) -> None:
        async with kafka.producer() as producer:
            futures = [await producer.send("t", b"v%d" % i) for i in range(20)]
            await asyncio.gather(*futures)

    world.run(main)
    assert len(world.cluster.partitions["t", 0].log.batches) == 1


def test_linger_gathers_records_over_time(world: Any) -> None:
    async def main(kafka: Any) -> None:
        async with kafka.producer(linger_ms=50) as producer:
            futures = []
            for i in range(10):
                futures.append(await producer.send("t", b"v%d" % i))
                await asyncio.sleep(0.004)
            await asyncio.gather(*futures)

    world.run(main)
    assert len(world.cluster.partitions["t", 0].log.batches) == 1


def test_full_batch_makes_send_wait_until_it_is_taken(world: Any) -> None:
    async def main(kafka: Any) -> float:
        async with kafka.producer(max_batch_size=1000) as producer:
            started = asyncio.get_running_loop().time()
            futures = [await producer.send("t", b"x" * 400) for _ in range(10)]
            waited = asyncio.get_running_loop().time() - started
            await asyncio.gather(*futures)
            return waited

    assert world.run(main) > 0
    assert [len(batch.records) for batch in world.cluster.partitions["t", 0].log.batches] == [2] * 5


def test_key_chooses_the_partition_by_murmur2(world: Any) -> None:
    async def main(kafka: Any) -> list[int]:
        async with kafka.producer() as producer:
            return [(await producer.send_and_wait("many", b"v", key=b"key-%d" % i)).partition for i in range(20)]

    assert world.run(main) == [(murmur2(b"key-%d" % i) & 0x7FFFFFFF) % 6 for i in range(20)]


def test_record_over_the_request_limit_is_refused_before_it_is_sent(world: Any) -> None:
    async def main(kafka: Any) -> None:
        async with kafka.producer(max_request_size=1000) as producer:
            await producer.send("t", b"x" * 1001)

    with pytest.raises(MessageSizeTooLargeError):
        world.run(main)


def test_batch_refused_for_good_leaves_a_hole_in_the_sequence(make_world: Any) -> None:
    world = make_world(message_max_bytes=1000)

    async def main(kafka: Any) -> list[object]:
        async with kafka.producer(enable_idempotence=True) as producer:
            await producer.send_and_wait("t", b"small")
            outcomes: list[object] = []
            for value in (b"x" * 2000, b"small again"):
                try:
                    await producer.send_and_wait("t", value)
                except Exception as error:
                    outcomes.append(type(error))
            return outcomes

    assert world.run(main) == [MessageSizeTooLargeError, OutOfOrderSequenceNumber]


def test_lost_answer_of_an_idempotent_producer_is_retried_without_a_duplicate(world: Any) -> None:
    async def main(kafka: Any) -> list[int]:
        async with kafka.producer(enable_idempotence=True, request_timeout_ms=1000) as producer:
            world.cluster.faults.lose_answers(500_000)
            return [(await producer.send_and_wait("t", b"v%d" % i)).offset for i in range(20)]

    assert world.run(main) == list(range(20))
    assert world.values("t") == [b"v%d" % i for i in range(20)]
    assert world.cluster.struck["produce-retry-deduplicated"] > 0


def test_lost_answer_of_a_plain_producer_is_retried_into_a_duplicate(world: Any) -> None:
    async def main(kafka: Any) -> None:
        async with kafka.producer(request_timeout_ms=1000) as producer:
            world.cluster.faults.lose_answers(500_000)
            for i in range(20):
                with suppress(RequestTimedOutError, KafkaConnectionError):
                    await producer.send_and_wait("t", b"v%d" % i)
            await asyncio.sleep(0.1)  # the last one is acknowledged before it is replicated

    world.run(main)
    values = world.values("t")
    assert set(values) == {b"v%d" % i for i in range(20)}
    assert len(values) > 20


def test_too_few_in_sync_replicas_refuse_acks_all_but_not_acks_one(world: Any) -> None:
    partition = world.cluster.partitions["t", 0]
    leader = partition.leader
    for broker in partition.replicas:
        if broker != leader:
            world.cluster.faults.crash_broker(broker)
    world.pass_s(10)
    assert partition.in_sync == [leader]

    async def main(kafka: Any) -> None:
        async with kafka.producer(acks=1) as producer:
            await producer.send_and_wait("t", b"one")
        async with kafka.producer(acks="all", request_timeout_ms=2000) as producer:
            await producer.send_and_wait("t", b"all")

    with pytest.raises(NotEnoughReplicasError):
        world.run(main)
    assert world.values("t") == [b"one"]


def test_stop_flushes_and_then_nothing_can_be_sent(world: Any) -> None:
    async def main(kafka: Any) -> Any:
        producer = kafka.producer(linger_ms=100)
        await producer.start()
        future = await producer.send("t", b"v")
        await producer.stop()
        assert future.done()
        await producer.send("t", b"w")

    with pytest.raises(ProducerClosed):
        world.run(main)
    world.pass_s(1)
    assert world.values("t") == [b"v"]


def test_acks_zero_tells_nothing(world: Any) -> None:
    async def main(kafka: Any) -> Any:
        async with kafka.producer(acks=0) as producer:
            return await producer.send_and_wait("t", b"v")

    assert world.run(main) is None
    world.pass_s(1)
    assert world.values("t") == [b"v"]


def test_no_broker_at_start_is_a_connection_error(world: Any) -> None:
    for broker in world.cluster.broker_ids:
        world.cluster.faults.crash_broker(broker)
    with pytest.raises(KafkaConnectionError):
        world.run(lambda kafka: kafka.producer().start())


def test_unmodelled_settings_are_refused(world: Any) -> None:
    async def main(kafka: Any) -> None:
        with pytest.raises(UnsupportedSetting, match="compression_type"):
            kafka.producer(compression_type="gzip")
        with pytest.raises(TypeError, match="nonsense"):
            kafka.producer(nonsense=1)
        with pytest.raises(UnsupportedSetting, match="group_instance_id"):
            kafka.consumer("t", group_id="g", group_instance_id="i")
        with pytest.raises(ValueError, match="acks=1 not supported"):
            kafka.producer(acks=1, enable_idempotence=True)
        with pytest.raises(IllegalOperation):
            await kafka.producer().begin_transaction()

    world.run(main)
