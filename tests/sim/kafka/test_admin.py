"""Facts about the admin client's double."""

from __future__ import annotations

from typing import Any

from aiokafka.admin import NewTopic, RecordsToDelete
from aiokafka.structs import OffsetAndMetadata, TopicPartition

T = TopicPartition("t", 0)


def test_created_topic_can_be_written_to(world: Any) -> None:
    async def main(kafka: Any) -> Any:
        admin = kafka.admin()
        await admin.start()
        await admin.create_topics([NewTopic("new", num_partitions=2, replication_factor=3)])
        names = await admin.list_topics()
        await admin.close()
        async with kafka.producer() as producer:
            return names, (await producer.send_and_wait("new", b"v", partition=1)).offset

    assert world.run(main) == (["many", "new", "t"], 0)


def test_offsets_of_a_group_can_be_listed(world: Any) -> None:
    async def main(kafka: Any) -> Any:
        consumer = kafka.consumer(group_id="g", enable_auto_commit=False)
        consumer.assign([T])
        await consumer.start()
        await consumer.commit({T: 0})
        await consumer.stop()
        admin = kafka.admin()
        await admin.start()
        offsets = await admin.list_consumer_group_offsets("g")
        await admin.close()
        return offsets

    assert world.run(main) == {T: OffsetAndMetadata(0, "")}


def test_deleted_records_move_the_start_of_the_log(world: Any) -> None:
    async def main(kafka: Any) -> Any:
        async with kafka.producer(acks="all") as producer:
            for _ in range(3):
                await producer.send_and_wait("t", b"v")
        admin = kafka.admin()
        await admin.start()
        starts = await admin.delete_records({T: RecordsToDelete(before_offset=2)})
        await admin.close()
        consumer = kafka.consumer()
        await consumer.start()
        beginning = await consumer.beginning_offsets([T])
        await consumer.stop()
        return starts, beginning

    assert world.run(main) == ({T: 2}, {T: 2})
