"""Facts about transactions: atomicity, fencing, time-outs, and the real client's flaws around them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from aiokafka.errors import IllegalOperation, OutOfOrderSequenceNumber, ProducerFenced
from aiokafka.structs import TopicPartition

T = TopicPartition("t", 0)


async def read_all(kafka: Any, *tps: TopicPartition, isolation: str = "read_committed") -> list[bytes]:
    consumer = kafka.consumer(isolation_level=isolation)
    consumer.assign(tps)
    await consumer.start()
    await consumer.seek_to_beginning()
    ends = await consumer.end_offsets(tps)
    values: list[bytes] = []
    while any([await consumer.position(tp) < ends[tp] for tp in tps]):
        for records in (await consumer.getmany(timeout_ms=100)).values():
            values += [record.value for record in records]
    await consumer.stop()
    return values


def test_aborted_records_are_seen_by_uncommitted_readers_only(world: Any) -> None:
    async def main(kafka: Any) -> Any:
        producer = kafka.producer(transactional_id="x")
        await producer.start()
        await producer.begin_transaction()
        await producer.send_and_wait("t", b"aborted")
        await producer.abort_transaction()
        async with producer.transaction():
            await producer.send("t", b"committed")
        await asyncio.sleep(1)
        await producer.stop()
        return await read_all(kafka, T), await read_all(kafka, T, isolation="read_uncommitted")

    assert world.run(main) == ([b"committed"], [b"aborted", b"committed"])


def test_position_after_draining_is_past_the_marker(world: Any) -> None:
    async def main(kafka: Any) -> Any:
        async with kafka.producer(transactional_id="x") as producer, producer.transaction():
            await producer.send("t", b"v")
        await asyncio.sleep(1)
        consumer = kafka.consumer(isolation_level="read_committed")
        consumer.assign([T])
        await consumer.start()
        consumer.seek(T, 0)
        await consumer.getmany(timeout_ms=100)
        position = await consumer.position(T)
        await consumer.stop()
        return position

    assert world.run(main) == 2


def test_commit_returns_before_the_markers_are_everywhere(world: Any) -> None:
    world.cluster.faults.stall_markers(world.clock.now + 5_000_000_000)

    async def main(kafka: Any) -> Any:
        producer = kafka.producer(transactional_id="x")
        await producer.start()
        async with producer.transaction():
            await producer.send("t", b"v")
        assert asyncio.get_running_loop().time() < 1
        before = await read_all(kafka, T)
        await asyncio.sleep(6)
        after = await read_all(kafka, T)
        await producer.stop()
        return before, after

    assert world.run(main) == ([], [b"v"])


def test_transaction_is_atomic_across_partitions_once_settled(world: Any) -> None:
    async def main(kafka: Any) -> None:
        producer = kafka.producer(transactional_id="x")
        await producer.start()
        for number in range(10):
            await producer.begin_transaction()
            for partition in range(6):
                await producer.send("many", b"%d" % number, partition=partition)
            await (producer.commit_transaction() if number % 2 else producer.abort_transaction())
        await producer.stop()

    world.run(main)
    world.pass_s(1)
    for partition in range(6):
        values = [record[6] for record in world.cluster.committed_log("many") if record[0] == partition]
        assert values == [b"1", b"3", b"5", b"7", b"9"]


def test_new_producer_of_the_id_aborts_what_was_open_and_fences_the_old_one(world: Any) -> None:
    async def main(kafka: Any) -> Any:
        old = kafka.producer(transactional_id="x")
        await old.start()
        await old.begin_transaction()
        await old.send_and_wait("t", b"old")
        new = kafka.producer(transactional_id="x")
        await new.start()
        end = await read_all(kafka, T), world.cluster.transactions.is_open("x")
        pending = await old.send("t", b"too late")
        with pytest.raises(ProducerFenced):
            await pending
        with pytest.raises(ProducerFenced):
            await old.commit_transaction()
        with pytest.raises(IllegalOperation):
            await old.send("t", b"later still")
        with pytest.raises(AssertionError):
            await old.begin_transaction()
        async with new.transaction():
            await new.send("t", b"new")
        await asyncio.sleep(1)
        return *end, await read_all(kafka, T)

    assert world.run(main) == ([], False, [b"new"])


def test_commit_goes_on_when_its_caller_is_cancelled(world: Any) -> None:
    async def main(kafka: Any) -> Any:
        producer = kafka.producer(transactional_id="x")
        await producer.start()
        await producer.begin_transaction()
        await producer.send("t", b"v")
        commit = asyncio.create_task(producer.commit_transaction())
        await asyncio.sleep(0)
        commit.cancel()
        await asyncio.wait([commit])
        assert commit.cancelled()
        await asyncio.sleep(1)
        async with producer.transaction():
            await producer.send("t", b"w")
        await asyncio.sleep(1)
        return await read_all(kafka, T)

    assert world.run(main) == [b"v", b"w"]


def test_transaction_is_committed_although_a_delivery_failed(make_world: Any) -> None:
    world = make_world(message_max_bytes=1000)

    async def main(kafka: Any) -> Any:
        producer = kafka.producer(transactional_id="x")
        await producer.start()
        await producer.begin_transaction()
        await producer.send_and_wait("many", b"good", partition=0)
        bad = await producer.send("many", b"x" * 2000, partition=1)
        await producer.commit_transaction()
        assert bad.exception() is not None
        await producer.begin_transaction()
        with pytest.raises(OutOfOrderSequenceNumber):
            await producer.send_and_wait("many", b"next", partition=1)
        await producer.abort_transaction()

    world.run(main)
    world.pass_s(1)
    assert world.values("many") == [b"good"]


def test_stop_leaves_the_transaction_to_its_time_out(world: Any) -> None:
    async def main(kafka: Any) -> None:
        producer = kafka.producer(transactional_id="x", transaction_timeout_ms=10_000)
        await producer.start()
        await producer.begin_transaction()
        await producer.send("t", b"v")
        await producer.stop()

    world.run(main)
    assert world.cluster.transactions.is_open("x")
    assert not world.cluster.is_quiet()
    world.pass_s(25)
    assert not world.cluster.transactions.is_open("x")
    assert world.cluster.is_quiet()
    assert world.values("t") == []


def test_producer_of_a_timed_out_transaction_is_fenced(world: Any) -> None:
    async def main(kafka: Any) -> None:
        producer = kafka.producer(transactional_id="x", transaction_timeout_ms=1_000)
        await producer.start()
        await producer.begin_transaction()
        await producer.send_and_wait("t", b"v")
        await asyncio.sleep(30)
        with pytest.raises(ProducerFenced):
            await producer.commit_transaction()

    world.run(main)
    assert world.values("t") == []


def test_crashed_producer_leaves_its_transaction_open(world: Any) -> None:
    async def main(kafka: Any) -> None:
        producer = kafka.producer(transactional_id="x", transaction_timeout_ms=10_000)
        await producer.start()
        await producer.begin_transaction()
        await producer.send_and_wait("t", b"v")
        await asyncio.sleep(1000)

    world.start("app-1", main)
    world.pass_s(1)
    world.hosts["app-1"].crash()
    assert world.cluster.transactions.is_open("x")
    world.pass_s(30)
    assert not world.cluster.transactions.is_open("x")


def test_offsets_count_when_their_transaction_commits_and_not_when_it_aborts(world: Any) -> None:
    async def main(kafka: Any) -> list[object]:
        producer = kafka.producer(transactional_id="x")
        await producer.start()
        seen: list[object] = []
        for offset, commit in ((5, True), (9, False)):
            await producer.begin_transaction()
            await producer.send_offsets_to_transaction({T: offset}, "g")
            seen.append(world.cluster.groups.committed("g", T))
            await (producer.commit_transaction() if commit else producer.abort_transaction())
            await asyncio.sleep(1)
            seen.append(world.cluster.groups.committed("g", T))
        return seen

    assert world.run(main) == [None, 5, 5, 5]


def test_offsets_are_taken_from_an_instance_that_owns_the_partition_no_more(world: Any) -> None:
    """The epoch is the only fence: send_offsets_to_transaction carries no member and no generation."""

    async def main(kafka: Any) -> None:
        consumer = kafka.consumer("t", group_id="g", auto_offset_reset="earliest", enable_auto_commit=False)
        await consumer.start()
        world.cluster.faults.evict("g")
        producer = kafka.producer(transactional_id="x")
        await producer.start()
        async with producer.transaction():
            await producer.send_offsets_to_transaction({T: 3}, "g")

    world.run(main)
    world.pass_s(1)
    assert world.cluster.groups.committed("g", T) == 3


def test_coordinator_change_in_a_transaction_does_no_harm(world: Any) -> None:
    async def main(kafka: Any) -> Any:
        producer = kafka.producer(transactional_id="x")
        await producer.start()
        await producer.begin_transaction()
        await producer.send_and_wait("t", b"v")
        assert world.cluster.faults.move_transaction_coordinator("x")
        await producer.commit_transaction()
        await asyncio.sleep(1)
        return await read_all(kafka, T)

    assert world.run(main) == [b"v"]


def test_transaction_context_aborts_when_an_exception_leaves_it(world: Any) -> None:
    async def main(kafka: Any) -> None:
        producer = kafka.producer(transactional_id="x")
        await producer.start()
        with suppress(KeyError):
            async with producer.transaction():
                await producer.send("t", b"v")
                raise KeyError
        with pytest.raises(IllegalOperation):
            await producer.send("t", b"outside")

    world.run(main)
    world.pass_s(1)
    assert world.values("t") == []
    assert world.cluster.partitions[T].log.end_offset == 2
