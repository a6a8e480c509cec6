"""Facts about transactions: what readers see of them, offsets in them, fencing, time-outs, and the client's flaws."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.errors import (
    IllegalOperation,
    KafkaError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
)
from aiokafka.structs import OffsetAndMetadata, OffsetAndTimestamp, TopicPartition

from sim.conform.kafka_sides import Kafka, read_to_end


async def end_of(kafka: Kafka, tp: TopicPartition, isolation: str = "read_committed") -> int:
    """The end of the partition for a reader of that isolation level."""
    reader = kafka.clients.consumer(isolation_level=isolation)
    await reader.start()
    try:
        return int((await reader.end_offsets([tp]))[tp])
    finally:
        await reader.stop()


async def settled(kafka: Kafka, *tps: TopicPartition) -> None:
    """Wait until no transaction is open in these partitions."""
    for tp in tps:

        async def is_stable(tp: TopicPartition = tp) -> bool:
            return await end_of(kafka, tp) == await end_of(kafka, tp, "read_uncommitted")

        await kafka.until(is_stable)


async def committed_offset(kafka: Kafka, group: str, tp: TopicPartition) -> int | None:
    """What a group has committed, asked for from outside it."""
    admin = kafka.clients.admin()
    await admin.start()
    try:
        found = await admin.list_consumer_group_offsets(group, partitions=[tp])
    finally:
        await admin.close()
    offset: int = found[tp].offset
    return None if offset < 0 else offset


async def test_committed_records_are_read_and_aborted_ones_are_not(kafka: Kafka) -> None:
    tp = await kafka.partition()
    producer = await kafka.transactional()
    for number in range(4):
        await producer.begin_transaction()
        await producer.send_and_wait(tp.topic, b"%d" % number)
        await (producer.commit_transaction() if number % 2 else producer.abort_transaction())
    await settled(kafka, tp)
    assert await kafka.read(tp) == [b"1", b"3"]
    assert await kafka.read(tp, isolation="read_uncommitted") == [b"0", b"1", b"2", b"3"]


async def test_markers_take_offsets(kafka: Kafka) -> None:
    tp = await kafka.partition()
    producer = await kafka.transactional()
    offsets = []
    for number in range(3):
        async with producer.transaction():
            offsets.append((await producer.send_and_wait(tp.topic, b"%d" % number)).offset)
    await settled(kafka, tp)
    assert offsets == [0, 2, 4]
    assert await end_of(kafka, tp) == 6
    reader = await kafka.reader(tp, isolation_level="read_committed")
    records = (await read_to_end(reader, [tp]))[tp]
    assert [record.offset for record in records] == [0, 2, 4]
    assert await reader.position(tp) == 6


async def test_last_stable_offset_is_where_the_oldest_open_transaction_begins(kafka: Kafka) -> None:
    tp = await kafka.partition()
    plain, first, second = await kafka.producer(), await kafka.transactional(), await kafka.transactional()
    await plain.send_and_wait(tp.topic, b"before")
    await first.begin_transaction()
    await first.send_and_wait(tp.topic, b"first")
    await second.begin_transaction()
    await second.send_and_wait(tp.topic, b"second")
    await plain.send_and_wait(tp.topic, b"after")
    assert (await end_of(kafka, tp), await end_of(kafka, tp, "read_uncommitted")) == (1, 4)
    assert await kafka.read(tp) == [b"before"]
    await second.commit_transaction()
    await kafka.until(lambda: _has_end(kafka, tp, 5))
    assert await end_of(kafka, tp) == 1
    await first.abort_transaction()
    await settled(kafka, tp)
    assert await kafka.read(tp) == [b"before", b"second", b"after"]
    reader = await kafka.reader(tp, isolation_level="read_committed")
    await read_to_end(reader, [tp])
    assert reader.last_stable_offset(tp) == reader.highwater(tp) == 6


async def _has_end(kafka: Kafka, tp: TopicPartition, end: int) -> bool:
    return await end_of(kafka, tp, "read_uncommitted") == end


async def test_open_transaction_holds_back_a_reader_of_what_is_committed(kafka: Kafka) -> None:
    tp = await kafka.partition()
    producer = await kafka.transactional()
    reader = await kafka.reader(tp, isolation_level="read_committed")
    await producer.begin_transaction()
    await producer.send_and_wait(tp.topic, b"v")
    assert await reader.getmany(timeout_ms=700) == {}
    waiting = asyncio.create_task(reader.getone())
    await producer.commit_transaction()
    assert (await waiting).value == b"v"


async def test_transaction_over_several_partitions_is_seen_whole(kafka: Kafka) -> None:
    topic = await kafka.topic(3)
    tps = [TopicPartition(topic, number) for number in range(3)]
    producer = await kafka.transactional()
    for number in range(4):
        await producer.begin_transaction()
        for partition in range(3):
            await producer.send(topic, b"%d" % number, partition=partition)
        await (producer.commit_transaction() if number % 2 else producer.abort_transaction())
    await settled(kafka, *tps)
    assert await kafka.read(*tps) == [b"1", b"3"] * 3


async def test_commit_delivers_what_was_sent(kafka: Kafka) -> None:
    tp = await kafka.partition()
    producer = await kafka.transactional(linger_ms=200)
    await producer.begin_transaction()
    pending = await producer.send(tp.topic, b"v")
    await producer.commit_transaction()
    assert pending.done()
    assert (await pending).offset == 0


async def test_abort_delivers_what_was_sent_too(kafka: Kafka) -> None:
    tp = await kafka.partition()
    producer = await kafka.transactional()
    await producer.begin_transaction()
    pending = await producer.send(tp.topic, b"v")
    await producer.abort_transaction()
    assert (await pending).offset == 0
    await settled(kafka, tp)
    assert await kafka.read(tp) == []


async def test_empty_transaction_leaves_no_trace(kafka: Kafka) -> None:
    tp = await kafka.partition()
    producer = await kafka.transactional()
    for end in (producer.commit_transaction, producer.abort_transaction):
        await producer.begin_transaction()
        await end()
    async with producer.transaction():
        assert (await producer.send_and_wait(tp.topic, b"v")).offset == 0


async def test_context_aborts_when_an_exception_leaves_it(kafka: Kafka) -> None:
    tp = await kafka.partition()
    producer = await kafka.transactional()

    async def fail_inside() -> None:
        async with producer.transaction():
            await producer.send(tp.topic, b"v")
            raise KeyError

    with pytest.raises(KeyError):
        await fail_inside()
    async with producer.transaction():
        await producer.send(tp.topic, b"w")
    await settled(kafka, tp)
    assert await kafka.read(tp) == [b"w"]


async def test_calls_out_of_order_are_refused(kafka: Kafka) -> None:
    tp = await kafka.partition()
    producer = await kafka.transactional()
    refused: dict[str, str] = {}

    async def attempt(name: str, call: Any) -> None:
        try:
            await call
        except Exception as error:
            refused[name] = type(error).__name__

    await attempt("send outside", producer.send(tp.topic, b"v"))
    await attempt("commit outside", producer.commit_transaction())
    await attempt("abort outside", producer.abort_transaction())
    await attempt("offsets outside", producer.send_offsets_to_transaction({tp: 1}, "g"))
    await producer.begin_transaction()
    await attempt("begin inside", producer.begin_transaction())
    await attempt("offsets of no group", producer.send_offsets_to_transaction({tp: 1}, ""))
    await attempt("wrong offsets", producer.send_offsets_to_transaction({"t": 1}, "g"))
    await producer.abort_transaction()
    await attempt("commit after abort", producer.commit_transaction())
    assert refused == {
        "send outside": "IllegalOperation",
        "commit outside": "AssertionError",
        "abort outside": "AssertionError",
        "offsets outside": "IllegalOperation",
        "begin inside": "AssertionError",
        "offsets of no group": "ValueError",
        "wrong offsets": "TypeError",
        "commit after abort": "AssertionError",
    }


async def test_commit_goes_on_when_its_caller_is_cancelled(kafka: Kafka) -> None:
    tp = await kafka.partition()
    producer = await kafka.transactional()
    await producer.begin_transaction()
    await producer.send(tp.topic, b"v")
    commit = asyncio.create_task(producer.commit_transaction())
    await asyncio.sleep(0)
    commit.cancel()
    await asyncio.wait([commit])
    assert commit.cancelled()
    await kafka.until(lambda: _reads(kafka, tp, [b"v"]))
    async with producer.transaction():
        await producer.send(tp.topic, b"w")
    await settled(kafka, tp)
    assert await kafka.read(tp) == [b"v", b"w"]


async def _reads(kafka: Kafka, tp: TopicPartition, values: list[bytes]) -> bool:
    return await kafka.read(tp) == values


async def test_transaction_is_committed_although_a_delivery_failed(kafka: Kafka) -> None:
    topic = await kafka.topic(2, max_message_bytes="1000")
    tps = [TopicPartition(topic, number) for number in range(2)]
    producer = await kafka.transactional()
    await producer.begin_transaction()
    await producer.send_and_wait(topic, b"good", partition=0)
    bad = await producer.send(topic, b"x" * 2_000, partition=1)
    await producer.commit_transaction()
    assert isinstance(bad.exception(), MessageSizeTooLargeError)
    await settled(kafka, *tps)
    assert await kafka.read(*tps) == [b"good"]
    await producer.begin_transaction()
    with pytest.raises(OutOfOrderSequenceNumber):
        await producer.send_and_wait(topic, b"next", partition=1)
    await producer.abort_transaction()
    await settled(kafka, *tps)
    assert await kafka.read(*tps) == [b"good"]


async def test_after_a_failed_delivery_the_first_batch_of_the_next_transaction_is_out_of_order(kafka: Kafka) -> None:
    """A hole in the sequence stays: also after an abort, and where there were records before."""
    tp = await kafka.partition(max_message_bytes="1000")
    producer = await kafka.transactional()
    async with producer.transaction():
        await producer.send_and_wait(tp.topic, b"good")
    await producer.begin_transaction()
    with pytest.raises(MessageSizeTooLargeError):
        await producer.send_and_wait(tp.topic, b"x" * 2_000)
    await producer.abort_transaction()
    for _ in range(2):
        await producer.begin_transaction()
        with pytest.raises(OutOfOrderSequenceNumber):
            await producer.send_and_wait(tp.topic, b"next")
        await producer.abort_transaction()
    await settled(kafka, tp)
    assert await kafka.read(tp) == [b"good"]


async def test_newer_producer_of_the_id_fences_the_older_and_aborts_its_transaction(kafka: Kafka) -> None:
    tp, name = await kafka.partition(), kafka.unique("transactional")
    old = await kafka.transactional(name)
    await old.begin_transaction()
    await old.send_and_wait(tp.topic, b"old")
    new = await kafka.transactional(name)
    await settled(kafka, tp)
    assert await kafka.read(tp) == []
    pending = await old.send(tp.topic, b"too late")
    with pytest.raises(ProducerFenced):
        await pending
    with pytest.raises(ProducerFenced):
        await old.commit_transaction()
    async with new.transaction():
        await new.send(tp.topic, b"new")
    await settled(kafka, tp)
    assert await kafka.read(tp) == [b"new"]


@pytest.mark.parametrize("end", ["commit", "abort"])
async def test_fenced_producer_cannot_end_its_transaction(kafka: Kafka, end: str) -> None:
    tp, name = await kafka.partition(), kafka.unique("transactional")
    old = await kafka.transactional(name)
    await old.begin_transaction()
    await old.send_and_wait(tp.topic, b"old")
    await kafka.transactional(name)
    with pytest.raises(ProducerFenced):
        await (old.commit_transaction() if end == "commit" else old.abort_transaction())
    refused = []
    for call in (lambda: old.send(tp.topic, b"v"), old.begin_transaction, old.commit_transaction):
        try:
            await call()
        except Exception as error:
            refused.append(type(error).__name__)
    assert refused == ["IllegalOperation", "AssertionError", "AssertionError"]
    await settled(kafka, tp)
    assert await kafka.read(tp) == []


async def test_fenced_producer_cannot_begin_to_write_elsewhere(kafka: Kafka) -> None:
    tp, name = await kafka.partition(), kafka.unique("transactional")
    old = await kafka.transactional(name)
    await kafka.transactional(name)
    await old.begin_transaction()
    pending = await old.send(tp.topic, b"v")
    with pytest.raises(ProducerFenced):
        await pending
    assert await end_of(kafka, tp, "read_uncommitted") == 0


async def test_fenced_producer_cannot_send_offsets(kafka: Kafka) -> None:
    tp, name, group = await kafka.partition(), kafka.unique("transactional"), kafka.unique("group")
    old = await kafka.transactional(name)
    await kafka.transactional(name)
    await old.begin_transaction()
    with pytest.raises(ProducerFenced):
        await old.send_offsets_to_transaction({tp: 1}, group)
    assert await committed_offset(kafka, group, tp) is None


async def test_producer_whose_transaction_timed_out_is_fenced(kafka: Kafka) -> None:
    tp = await kafka.partition()
    producer = await kafka.transactional(transaction_timeout_ms=1_000)
    await producer.begin_transaction()
    await producer.send_and_wait(tp.topic, b"v")
    await settled(kafka, tp)
    assert await kafka.read(tp) == []
    with pytest.raises(ProducerFenced):
        await producer.commit_transaction()


async def test_stop_leaves_an_open_transaction_to_its_time_out(kafka: Kafka) -> None:
    tp = await kafka.partition()
    producer = await kafka.transactional(transaction_timeout_ms=1_500)
    await producer.begin_transaction()
    await producer.send(tp.topic, b"v")
    await producer.stop()
    assert (await end_of(kafka, tp), await end_of(kafka, tp, "read_uncommitted")) == (0, 1)
    await settled(kafka, tp)
    assert await kafka.read(tp) == []


async def test_next_transaction_after_a_time_out_needs_a_new_producer(kafka: Kafka) -> None:
    tp, name = await kafka.partition(), kafka.unique("transactional")
    producer = await kafka.transactional(name, transaction_timeout_ms=1_000)
    await producer.begin_transaction()
    await producer.send_and_wait(tp.topic, b"lost")
    await settled(kafka, tp)
    again = await kafka.transactional(name)
    async with again.transaction():
        await again.send(tp.topic, b"kept")
    await settled(kafka, tp)
    assert await kafka.read(tp) == [b"kept"]


@pytest.mark.parametrize("timeout_ms", [0, 900_001])
async def test_transaction_time_out_that_the_broker_does_not_take_stops_the_start(
    kafka: Kafka, timeout_ms: int
) -> None:
    producer = kafka.clients.producer(transactional_id=kafka.unique("x"), transaction_timeout_ms=timeout_ms)
    with pytest.raises(KafkaError) as refused:
        await producer.start()
    assert type(refused.value).__name__ == "InvalidTransactionTimeout"
    await producer.stop()


async def test_offsets_count_when_their_transaction_commits(kafka: Kafka) -> None:
    tp, group = await kafka.partition(), kafka.unique("group")
    producer = await kafka.transactional()
    await producer.begin_transaction()
    await producer.send_offsets_to_transaction({tp: OffsetAndMetadata(5, "note")}, group)
    assert await committed_offset(kafka, group, tp) is None
    await producer.commit_transaction()
    await kafka.until(lambda: _is_committed(kafka, group, tp, 5))
    await producer.begin_transaction()
    await producer.send_offsets_to_transaction({tp: 9}, group)
    await producer.abort_transaction()
    async with producer.transaction():  # the abort's markers are written before another transaction begins
        await producer.send(tp.topic, b"v")
    assert await committed_offset(kafka, group, tp) == 5


async def _is_committed(kafka: Kafka, group: str, tp: TopicPartition, offset: int) -> bool:
    return await committed_offset(kafka, group, tp) == offset


async def test_later_offsets_of_a_transaction_replace_earlier_ones(kafka: Kafka) -> None:
    topic, group = await kafka.topic(2), kafka.unique("group")
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    producer = await kafka.transactional()
    await producer.begin_transaction()
    await producer.send_offsets_to_transaction({first: 1, second: 1}, group)
    await producer.send_offsets_to_transaction({first: 3}, group)
    await producer.send_offsets_to_transaction({first: 2}, group)
    await producer.commit_transaction()
    await kafka.until(lambda: _is_committed(kafka, group, first, 2))
    assert await committed_offset(kafka, group, second) == 1


async def test_second_group_in_one_transaction_kills_the_sender(kafka: Kafka) -> None:
    """The client tells the coordinator of the first group only."""
    tp, first, second = await kafka.partition(), kafka.unique("group"), kafka.unique("group")
    producer = await kafka.transactional(transaction_timeout_ms=1_000)
    await producer.begin_transaction()
    await producer.send_offsets_to_transaction({tp: 1}, first)
    with pytest.raises(KafkaError, match="Unexpected error during batch delivery"):
        await producer.send_offsets_to_transaction({tp: 2}, second)
    with pytest.raises(AssertionError):
        await producer.commit_transaction()


async def test_offset_committed_after_a_transaction_has_sent_its_own_stays_when_that_commits(kafka: Kafka) -> None:
    """Not the marker's place in the group's log counts, but that of the offset."""
    tp, group = await kafka.partition(), kafka.unique("group")
    reader = await kafka.reader(tp, group_id=group)
    producer = await kafka.transactional()
    async with producer.transaction():
        await producer.send_offsets_to_transaction({tp: 3}, group)
        await reader.commit({tp: 8})
    async with producer.transaction():  # the first one's markers are written before this one begins
        await producer.send(tp.topic, b"v")
    assert await reader.committed(tp) == 8
    async with producer.transaction():
        await producer.send_offsets_to_transaction({tp: 4}, group)
    await kafka.until(lambda: _is_committed(kafka, group, tp, 4))


async def test_of_two_transactions_the_offset_sent_last_counts(kafka: Kafka) -> None:
    tp, group = await kafka.partition(), kafka.unique("group")
    first, second = await kafka.transactional(), await kafka.transactional()
    await first.begin_transaction()
    await second.begin_transaction()
    await first.send_offsets_to_transaction({tp: 3}, group)
    await second.send_offsets_to_transaction({tp: 8}, group)
    await second.commit_transaction()
    await kafka.until(lambda: _is_committed(kafka, group, tp, 8))
    await first.commit_transaction()
    async with first.transaction():
        await first.send(tp.topic, b"v")
    assert await committed_offset(kafka, group, tp) == 8


async def test_group_begins_where_a_transaction_has_committed(kafka: Kafka) -> None:
    tp, group = await kafka.partition(), kafka.unique("group")
    producer = await kafka.transactional()
    async with producer.transaction():
        for number in range(4):
            await producer.send(tp.topic, b"%d" % number)
        await producer.send_offsets_to_transaction({tp: 2}, group)
    await settled(kafka, tp)
    await kafka.until(lambda: _is_committed(kafka, group, tp, 2))
    consumer = await kafka.consumer(tp.topic, group_id=group, isolation_level="read_committed")
    assert [(await consumer.getone()).value for _ in range(2)] == [b"2", b"3"]


async def test_offsets_of_a_transaction_that_timed_out_do_not_count(kafka: Kafka) -> None:
    tp, group = await kafka.partition(), kafka.unique("group")
    producer = await kafka.transactional(transaction_timeout_ms=1_000)
    await producer.begin_transaction()
    await producer.send_and_wait(tp.topic, b"v")
    await producer.send_offsets_to_transaction({tp: 7}, group)
    await settled(kafka, tp)
    with pytest.raises(ProducerFenced):
        await producer.commit_transaction()
    assert await committed_offset(kafka, group, tp) is None


async def test_two_ids_do_not_disturb_each_other(kafka: Kafka) -> None:
    tp = await kafka.partition()
    first, second = await kafka.transactional(), await kafka.transactional()
    await first.begin_transaction()
    await second.begin_transaction()
    for number in range(6):
        await (first if number % 2 else second).send_and_wait(tp.topic, b"%d" % number)
    await first.commit_transaction()
    await second.abort_transaction()
    await settled(kafka, tp)
    assert await kafka.read(tp) == [b"1", b"3", b"5"]


async def test_plain_records_between_those_of_a_transaction_are_read(kafka: Kafka) -> None:
    tp = await kafka.partition()
    plain, producer = await kafka.producer(enable_idempotence=True), await kafka.transactional()
    await producer.begin_transaction()
    for number in range(4):
        await (producer if number % 2 else plain).send_and_wait(tp.topic, b"%d" % number)
    await producer.abort_transaction()
    await settled(kafka, tp)
    assert await kafka.read(tp) == [b"0", b"2"]


async def test_marker_can_be_what_is_found_by_time(kafka: Kafka) -> None:
    tp = await kafka.partition()
    producer = await kafka.transactional()
    async with producer.transaction():
        await producer.send(tp.topic, b"v", timestamp_ms=1_000)
    await settled(kafka, tp)
    reader = await kafka.reader(tp)
    assert (await reader.offsets_for_times({tp: 1_000}))[tp] == OffsetAndTimestamp(0, 1_000)
    found = (await reader.offsets_for_times({tp: 1_001}))[tp]
    assert found.offset == 1
    assert found.timestamp > 1_700_000_000_000


async def test_transactional_settings(kafka: Kafka) -> None:
    with pytest.raises(ValueError, match=r".+"):
        kafka.clients.producer(transactional_id="x", acks=1)
    producer = await kafka.transactional(acks="all")
    with pytest.raises(IllegalOperation):
        await producer.send(await kafka.topic(), b"v")
