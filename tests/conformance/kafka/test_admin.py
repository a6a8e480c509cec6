"""Facts about administration: topics, and what may go wrong with them."""

from __future__ import annotations

import pytest
from aiokafka.admin import NewTopic, RecordsToDelete
from aiokafka.errors import (
    InvalidPartitionsError,
    InvalidReplicationFactorError,
    InvalidTopicError,
    NotLeaderForPartitionError,
    OffsetOutOfRangeError,
    TopicAlreadyExistsError,
    for_code,
)
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from sim.conform.kafka_sides import Kafka


async def test_created_topic_is_described(kafka: Kafka) -> None:
    admin = await kafka.admin()
    topic = await kafka.topic(3)
    (described,) = await admin.describe_topics([topic])
    assert (described["error_code"], described["topic"], described["is_internal"]) == (0, topic, False)
    assert sorted(each["partition"] for each in described["partitions"]) == [0, 1, 2]
    for each in described["partitions"]:
        assert each["error_code"] == 0
        assert each["leader"] in each["replicas"]
        assert sorted(each["isr"]) == sorted(each["replicas"])
        assert each["offline_replicas"] == []
    assert topic in await admin.list_topics()


async def test_unknown_topic_is_described_as_such(kafka: Kafka) -> None:
    admin = await kafka.admin()
    (described,) = await admin.describe_topics([kafka.unique("missing")])
    assert (described["error_code"], described["partitions"]) == (3, [])


@pytest.mark.parametrize(
    ("name", "partitions", "factor", "error"),
    [
        (None, 1, 1, TopicAlreadyExistsError),
        ("no/slash", 1, 1, InvalidTopicError),
        (".", 1, 1, InvalidTopicError),
        ("x" * 250, 1, 1, InvalidTopicError),
        ("conform-none", 0, 1, InvalidPartitionsError),
        ("conform-many", 1, 99, InvalidReplicationFactorError),
    ],
)
async def test_topic_that_cannot_be_created_has_an_error_in_the_answer(
    kafka: Kafka, name: str | None, partitions: int, factor: int, error: type[Exception]
) -> None:
    admin = await kafka.admin()
    name = name or await kafka.topic()
    answer = await admin.create_topics([NewTopic(name, partitions, factor)])
    ((named, code, _message),) = answer.topic_errors
    assert (named, for_code(code)) == (name, error)


async def test_validation_alone_creates_nothing(kafka: Kafka) -> None:
    admin = await kafka.admin()
    name = kafka.unique("validated")
    answer = await admin.create_topics([NewTopic(name, 1, 1)], validate_only=True)
    assert answer.topic_errors[0][1] == 0
    assert name not in await admin.list_topics()


async def test_deleted_records_move_the_start_of_the_log(kafka: Kafka) -> None:
    tp = await kafka.partition()
    producer = await kafka.producer()
    for number in range(4):
        await producer.send_and_wait(tp.topic, b"%d" % number)
    admin = await kafka.admin()
    assert await admin.delete_records({tp: RecordsToDelete(before_offset=3)}) == {tp: 3}
    reader = await kafka.reader(tp)
    assert await reader.beginning_offsets([tp]) == {tp: 3}
    assert await kafka.read(tp) == [b"3"]
    assert await admin.delete_records({tp: RecordsToDelete(before_offset=-1)}) == {tp: 4}
    assert await kafka.read(tp) == []


async def test_records_inside_a_batch_can_be_deleted(kafka: Kafka) -> None:
    tp = await kafka.partition()
    producer = await kafka.producer(linger_ms=50)
    pending = [await producer.send(tp.topic, b"%d" % number) for number in range(4)]
    assert [(await each).offset for each in pending] == [0, 1, 2, 3]
    admin = await kafka.admin()
    assert await admin.delete_records({tp: RecordsToDelete(before_offset=2)}) == {tp: 2}
    reader = await kafka.reader(tp)
    assert await reader.beginning_offsets([tp]) == {tp: 2}
    assert await kafka.read(tp) == [b"2", b"3"]


async def test_records_past_the_end_cannot_be_deleted(kafka: Kafka) -> None:
    tp = await kafka.partition()
    admin = await kafka.admin()
    with pytest.raises(OffsetOutOfRangeError):
        await admin.delete_records({tp: RecordsToDelete(before_offset=1)})
    with pytest.raises(NotLeaderForPartitionError):
        await admin.delete_records({TopicPartition(kafka.unique("missing"), 0): RecordsToDelete(before_offset=0)})


async def test_offsets_of_a_group_are_listed(kafka: Kafka) -> None:
    topic, group = await kafka.topic(2), kafka.unique("group")
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    reader = await kafka.reader(first, group_id=group)
    await reader.commit({first: OffsetAndMetadata(0, "why")})
    admin = await kafka.admin()
    listed = await admin.list_consumer_group_offsets(group)
    assert listed == {first: OffsetAndMetadata(0, "why")}
    listed = await admin.list_consumer_group_offsets(group, partitions=[first, second])
    assert listed == {first: OffsetAndMetadata(0, "why"), second: OffsetAndMetadata(-1, "")}
    assert await admin.list_consumer_group_offsets(kafka.unique("group")) == {}
