"""Facts about consumer groups: who owns what, what listeners are told, whose commits count, and who is expelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    InconsistentGroupProtocolError,
    InvalidSessionTimeoutError,
    UnknownTopicOrPartitionError,
)
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from sim.conform.kafka_sides import Kafka

QUICK = {"heartbeat_interval_ms": 100, "session_timeout_ms": 6_000}
"""A member hears of a rebalance at its next heartbeat."""


class Diary(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Writes down what a listener is told; waits in `on_partitions_revoked` while `held` is not set."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, set[int]]] = []
        self.held = asyncio.Event()
        self.held.set()

    async def on_partitions_revoked(self, revoked: Any) -> None:
        self.entries.append(("revoked", {tp.partition for tp in revoked}))
        await self.held.wait()

    async def on_partitions_assigned(self, assigned: Any) -> None:
        self.entries.append(("assigned", {tp.partition for tp in assigned}))


async def join(kafka: Kafka, topic: str, group: str, **config: Any) -> tuple[Any, Diary]:
    """A member with its diary. Started: it has its first assignment."""
    diary = Diary()
    consumer = kafka.clients.consumer(
        **{"group_id": group, "auto_offset_reset": "earliest", "enable_auto_commit": False, **QUICK, **config}
    )
    consumer.subscribe([topic], listener=diary)
    return await kafka.started(consumer), diary


def partitions(consumer: Any) -> set[int]:
    """The numbers of the partitions that it owns."""
    return {tp.partition for tp in consumer.assignment()}


async def shared_out(kafka: Kafka, count: int, *consumers: Any) -> None:
    """Wait until these consumers own all partitions of a topic of that many, each partition once."""

    def is_so() -> bool:
        owned = [number for consumer in consumers for number in partitions(consumer)]
        return sorted(owned) == list(range(count))

    await kafka.until(is_so)


async def filled(kafka: Kafka, count: int, topic: str) -> None:
    """Put that many records into partition 0."""
    producer = await kafka.producer()
    pending = [await producer.send(topic, b"%d" % number, partition=0) for number in range(count)]
    await asyncio.gather(*pending)


async def test_lone_member_owns_everything(kafka: Kafka) -> None:
    topic, group = await kafka.topic(3), kafka.unique("group")
    consumer, diary = await join(kafka, topic, group)
    assert partitions(consumer) == {0, 1, 2}
    await kafka.until(lambda: len(diary.entries) == 2)
    assert diary.entries == [("revoked", set()), ("assigned", {0, 1, 2})]
    await consumer.stop()
    assert diary.entries == [("revoked", set()), ("assigned", {0, 1, 2})]


async def test_second_member_takes_its_share_and_gives_it_back(kafka: Kafka) -> None:
    topic, group = await kafka.topic(3), kafka.unique("group")
    first, diary = await join(kafka, topic, group)
    second, other = await join(kafka, topic, group)
    await shared_out(kafka, 3, first, second)
    share = partitions(first)
    assert {len(share), len(partitions(second))} == {1, 2}
    await second.stop()
    await shared_out(kafka, 3, first)
    await kafka.until(lambda: len(diary.entries) == 6)
    assert diary.entries == [
        ("revoked", set()),
        ("assigned", {0, 1, 2}),
        ("revoked", {0, 1, 2}),
        ("assigned", share),
        ("revoked", share),
        ("assigned", {0, 1, 2}),
    ]
    assert other.entries == [("revoked", set()), ("assigned", {0, 1, 2} - share)]


async def test_member_too_many_owns_nothing_until_another_leaves(kafka: Kafka) -> None:
    topic, group = await kafka.topic(1), kafka.unique("group")
    first, _ = await join(kafka, topic, group)
    second, _ = await join(kafka, topic, group)
    await shared_out(kafka, 1, first, second)
    owner, spare = (first, second) if partitions(first) else (second, first)
    assert partitions(spare) == set()
    await owner.stop()
    await shared_out(kafka, 1, spare)


async def test_members_of_two_groups_do_not_share(kafka: Kafka) -> None:
    topic = await kafka.topic(2)
    await filled(kafka, 3, topic)
    for _ in range(2):
        consumer, _ = await join(kafka, topic, kafka.unique("group"))
        assert partitions(consumer) == {0, 1}
        assert [(await consumer.getone()).offset for _ in range(3)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("assignor", "shares"),
    [(RangePartitionAssignor, [{0, 1}, {2}]), (RoundRobinPartitionAssignor, [{0, 2}, {1}])],
)
async def test_assignor_decides_who_owns_what(kafka: Kafka, assignor: Any, shares: list[set[int]]) -> None:
    topic, group = await kafka.topic(3), kafka.unique("group")
    members = [
        (await join(kafka, topic, group, partition_assignment_strategy=(assignor,), client_id=name))[0]
        for name in ("a", "b")
    ]
    await shared_out(kafka, 3, *members)
    assert [partitions(member) for member in members] == shares


async def test_members_of_different_subscriptions(kafka: Kafka) -> None:
    topic, other, group = await kafka.topic(2), await kafka.topic(2), kafka.unique("group")
    first, _ = await join(kafka, topic, group)
    second, _ = await join(kafka, other, group)
    await kafka.until(lambda: len(first.assignment()) == len(second.assignment()) == 2)
    assert first.assignment() == {TopicPartition(topic, 0), TopicPartition(topic, 1)}
    assert second.assignment() == {TopicPartition(other, 0), TopicPartition(other, 1)}


async def test_changed_subscription_rebalances(kafka: Kafka) -> None:
    topic, other, group = await kafka.topic(2), await kafka.topic(1), kafka.unique("group")
    consumer, diary = await join(kafka, topic, group)
    consumer.subscribe([topic, other], listener=diary)
    expected = {TopicPartition(topic, 0), TopicPartition(topic, 1), TopicPartition(other, 0)}
    await kafka.until(lambda: consumer.assignment() == expected)
    assert consumer.subscription() == {topic, other}


async def test_unsubscribing_leaves_the_group(kafka: Kafka) -> None:
    topic, group = await kafka.topic(2), kafka.unique("group")
    first, _ = await join(kafka, topic, group)
    second, _ = await join(kafka, topic, group)
    await shared_out(kafka, 2, first, second)
    first.unsubscribe()
    assert (first.assignment(), first.subscription()) == (set(), set())
    await shared_out(kafka, 2, second)


async def test_group_goes_on_where_it_committed(kafka: Kafka) -> None:
    topic, group = await kafka.topic(1), kafka.unique("group")
    tp = TopicPartition(topic, 0)
    await filled(kafka, 6, topic)
    first, _ = await join(kafka, topic, group)
    assert [(await first.getone()).offset for _ in range(3)] == [0, 1, 2]
    assert await first.committed(tp) is None
    await first.commit()
    assert await first.committed(tp) == 3
    assert (await first.getone()).offset == 3
    await first.stop()
    second, _ = await join(kafka, topic, group)
    assert await second.committed(tp) == 3
    assert await second.position(tp) == 3
    assert (await second.getone()).offset == 3


async def test_commit_stores_what_it_is_told(kafka: Kafka) -> None:
    topic, group = await kafka.topic(2), kafka.unique("group")
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    consumer, _ = await join(kafka, topic, group)
    await consumer.commit({first: 7, second: OffsetAndMetadata(1, "why")})
    assert (await consumer.committed(first), await consumer.committed(second)) == (7, 1)
    await consumer.commit({first: OffsetAndMetadata(4, "back")})
    assert (await consumer.committed(first), await consumer.committed(second)) == (4, 1)
    admin = await kafka.admin()
    listed = await admin.list_consumer_group_offsets(group)
    assert listed == {first: OffsetAndMetadata(4, "back"), second: OffsetAndMetadata(1, "why")}


async def test_commit_is_refused_for_what_makes_no_sense(kafka: Kafka) -> None:
    topic, group = await kafka.topic(1), kafka.unique("group")
    tp = TopicPartition(topic, 0)
    consumer, _ = await join(kafka, topic, group)
    refused = {}
    for name, offsets in {
        "not assigned": {TopicPartition(topic, 1): 1},
        "no partition": {"t": 1},
        "no offset": {tp: "1"},
        "not a mapping": [tp],
        "metadata": {tp: OffsetAndMetadata(1, None)},
        "float": {tp: 1.5},
        "nothing": {},
    }.items():
        try:
            await consumer.commit(offsets)
        except Exception as error:
            refused[name] = type(error).__name__
    assert refused == {
        "not assigned": "IllegalStateError",
        "no partition": "TypeError",
        "no offset": "ValueError",
        "not a mapping": "ValueError",
        "metadata": "TypeError",
        "float": "ValueError",
        "nothing": "ValueError",
    }
    assert await consumer.committed(tp) is None


async def test_committed_offset_minus_one_is_none(kafka: Kafka) -> None:
    """The broker takes it; for the client there is none then."""
    topic, group = await kafka.topic(1), kafka.unique("group")
    tp = TopicPartition(topic, 0)
    consumer, _ = await join(kafka, topic, group)
    await consumer.commit({tp: 5})
    await consumer.commit({tp: -1})
    assert await consumer.committed(tp) is None


async def test_commit_without_subscription_is_refused(kafka: Kafka) -> None:
    consumer = await kafka.consumer(group_id=kafka.unique("group"))
    with pytest.raises(IllegalStateError):
        await consumer.commit()


async def test_committed_offset_of_a_partition_that_is_not_there(kafka: Kafka) -> None:
    topic, group = await kafka.topic(1), kafka.unique("group")
    consumer, _ = await join(kafka, topic, group)
    found: object
    try:
        found = await consumer.committed(TopicPartition(kafka.unique("missing"), 0))
    except UnknownTopicOrPartitionError as error:
        found = type(error).__name__
    assert found is None


async def test_committed_offset_past_the_end_is_reset(kafka: Kafka) -> None:
    topic, group = await kafka.topic(1), kafka.unique("group")
    await filled(kafka, 2, topic)
    first, _ = await join(kafka, topic, group)
    await first.commit({TopicPartition(topic, 0): 50})
    await first.stop()
    second, _ = await join(kafka, topic, group)
    assert (await second.getone()).offset == 0


async def test_offsets_are_committed_at_the_end_if_that_is_automatic(kafka: Kafka) -> None:
    topic, group = await kafka.topic(1), kafka.unique("group")
    await filled(kafka, 3, topic)
    first, _ = await join(kafka, topic, group, enable_auto_commit=True, auto_commit_interval_ms=60_000)
    assert [(await first.getone()).offset for _ in range(2)] == [0, 1]
    await first.stop()
    second, _ = await join(kafka, topic, group)
    assert await second.position(TopicPartition(topic, 0)) == 2


async def test_offsets_are_committed_now_and_then_if_that_is_automatic(kafka: Kafka) -> None:
    topic, group = await kafka.topic(1), kafka.unique("group")
    tp = TopicPartition(topic, 0)
    await filled(kafka, 3, topic)
    consumer, _ = await join(kafka, topic, group, enable_auto_commit=True, auto_commit_interval_ms=200)
    await consumer.getone()

    async def is_committed() -> bool:
        return await consumer.committed(tp) == 1

    await kafka.until(is_committed)


async def test_offsets_are_committed_before_partitions_are_given_up_if_that_is_automatic(kafka: Kafka) -> None:
    topic, group = await kafka.topic(2), kafka.unique("group")
    tp = TopicPartition(topic, 0)
    await filled(kafka, 3, topic)
    automatic = {"enable_auto_commit": True, "auto_commit_interval_ms": 60_000}
    first, _ = await join(kafka, topic, group, **automatic)
    assert (await first.getone()).offset == 0
    second, _ = await join(kafka, topic, group, **automatic)
    await shared_out(kafka, 2, first, second)
    owner = first if 0 in partitions(first) else second
    assert await owner.position(tp) == 1


async def test_position_is_reset_where_nothing_is_committed(kafka: Kafka) -> None:
    topic = await kafka.topic(1)
    await filled(kafka, 3, topic)
    tp = TopicPartition(topic, 0)
    for reset, expected in (("earliest", 0), ("latest", 3)):
        consumer, _ = await join(kafka, topic, kafka.unique("group"), auto_offset_reset=reset)
        assert await consumer.position(tp) == expected


async def test_seek_to_committed(kafka: Kafka) -> None:
    topic, group = await kafka.topic(2), kafka.unique("group")
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    await filled(kafka, 5, topic)
    consumer, _ = await join(kafka, topic, group)
    assert [(await consumer.getone(first)).offset for _ in range(4)] == [0, 1, 2, 3]
    await consumer.commit({first: 2})
    assert await consumer.seek_to_committed() == {first: 2, second: None}
    assert (await consumer.getone()).offset == 2


async def test_reader_that_is_no_member_commits_into_an_empty_group_only(kafka: Kafka) -> None:
    topic, group = await kafka.topic(1), kafka.unique("group")
    tp = TopicPartition(topic, 0)
    outsider = await kafka.reader(tp, group_id=group)
    await outsider.commit({tp: 1})
    assert await outsider.committed(tp) == 1
    member, _ = await join(kafka, topic, group)
    with pytest.raises(CommitFailedError):
        await outsider.commit({tp: 2})
    assert await member.committed(tp) == 1
    await member.stop()
    await outsider.commit({tp: 3})
    assert await outsider.committed(tp) == 3


async def evicted(kafka: Kafka, topic: str, group: str) -> tuple[Any, Diary, Any]:
    """A member that is still busy giving up its partitions when the group goes on without it, and the one that has
    them now."""
    old, diary = await join(kafka, topic, group, rebalance_timeout_ms=1_000)
    diary.held.clear()
    new, _ = await join(kafka, topic, group, rebalance_timeout_ms=1_000)
    assert diary.entries[-1][0] == "revoked"
    return old, diary, new


async def test_commit_of_an_evicted_member_is_refused(kafka: Kafka) -> None:
    topic, group = await kafka.topic(2), kafka.unique("group")
    tp = TopicPartition(topic, 0)
    old, diary, new = await evicted(kafka, topic, group)
    assert partitions(new) == {0, 1}
    await new.commit({tp: 9})
    with pytest.raises(CommitFailedError):
        await old.commit({tp: 4})
    assert await new.committed(tp) == 9
    diary.held.set()
    await shared_out(kafka, 2, old, new)
    assert partitions(old) != set()
    assert diary.entries[-1] == ("assigned", partitions(old))


async def test_offsets_of_an_evicted_member_are_taken_in_a_transaction(kafka: Kafka) -> None:
    """The epoch is the only fence: send_offsets_to_transaction carries no member and no generation."""
    topic, group = await kafka.topic(2), kafka.unique("group")
    tp = TopicPartition(topic, 0)
    _old, diary, new = await evicted(kafka, topic, group)
    await new.commit({tp: 9})
    producer = await kafka.transactional()
    async with producer.transaction():
        await producer.send_offsets_to_transaction({tp: 4}, group)

    async def is_committed() -> bool:
        return await new.committed(tp) == 4

    await kafka.until(is_committed)
    diary.held.set()


async def test_commit_inside_a_rebalance_counts_until_the_member_has_joined_again(kafka: Kafka) -> None:
    topic, group = await kafka.topic(2), kafka.unique("group")
    tp = TopicPartition(topic, 0)
    first, diary = await join(kafka, topic, group, rebalance_timeout_ms=20_000)
    diary.held.clear()
    joining = asyncio.create_task(join(kafka, topic, group))
    await kafka.until(lambda: diary.entries[-1][0] == "revoked")
    await first.commit({tp: 3})
    assert not joining.done()
    diary.held.set()
    second, _ = await joining
    await shared_out(kafka, 2, first, second)
    assert await second.committed(tp) == 3


async def test_records_are_held_back_while_the_group_rebalances(kafka: Kafka) -> None:
    topic, group = await kafka.topic(1), kafka.unique("group")
    await filled(kafka, 3, topic)
    first, diary = await join(kafka, topic, group, rebalance_timeout_ms=20_000)
    assert (await first.getone()).offset == 0
    diary.held.clear()
    joining = asyncio.create_task(join(kafka, topic, group))
    await kafka.until(lambda: diary.entries[-1][0] == "revoked")
    reading = asyncio.create_task(first.getmany(timeout_ms=100))
    await asyncio.sleep(0.5)
    assert not reading.done()  # however short its time-out
    await first.commit()
    diary.held.set()
    second, _ = await joining
    await shared_out(kafka, 1, first, second)
    owner = first if partitions(first) else second
    if owner is first:
        records = [record.offset for found in (await reading).values() for record in found]
    else:
        assert await asyncio.wait_for(reading, 10) == {}
        records = []
    while len(records) < 2:
        records.append((await owner.getone()).offset)
    assert records == [1, 2]


async def test_error_of_a_listener_ends_nothing(kafka: Kafka) -> None:
    topic, group = await kafka.topic(2), kafka.unique("group")

    class Clumsy(ConsumerRebalanceListener):  # type: ignore[misc]
        def on_partitions_revoked(self, revoked: Any) -> None:
            raise KeyError("revoked")

        def on_partitions_assigned(self, assigned: Any) -> None:
            raise KeyError("assigned")

    consumer = kafka.clients.consumer(group_id=group, auto_offset_reset="earliest", **QUICK)
    consumer.subscribe([topic], listener=Clumsy())
    await kafka.started(consumer)
    await filled(kafka, 1, topic)
    assert (await consumer.getone()).offset == 0


async def test_seek_in_a_listener_decides_where_reading_begins(kafka: Kafka) -> None:
    topic, group = await kafka.topic(1), kafka.unique("group")
    await filled(kafka, 5, topic)
    consumer = kafka.clients.consumer(group_id=group, auto_offset_reset="earliest", **QUICK)

    class Seeking(ConsumerRebalanceListener):  # type: ignore[misc]
        def on_partitions_revoked(self, revoked: Any) -> None:
            """Nothing to do."""

        def on_partitions_assigned(self, assigned: Any) -> None:
            for tp in assigned:
                consumer.seek(tp, 3)

    consumer.subscribe([topic], listener=Seeking())
    await kafka.started(consumer)
    assert [(await consumer.getone()).offset for _ in range(2)] == [3, 4]


async def test_member_that_is_not_polled_for_too_long_leaves(kafka: Kafka) -> None:
    topic, group = await kafka.topic(2), kafka.unique("group")
    lazy, _ = await join(kafka, topic, group, max_poll_interval_ms=1_500)
    keen, _ = await join(kafka, topic, group)
    await shared_out(kafka, 2, lazy, keen)
    polling = asyncio.create_task(_poll(keen))
    await kafka.until(lambda: partitions(keen) == {0, 1})
    # Polled again, it comes back.
    also = asyncio.create_task(_poll(lazy))
    await shared_out(kafka, 2, lazy, keen)
    for task in (polling, also):
        task.cancel()


async def _poll(consumer: Any) -> None:
    while True:
        await consumer.getmany(timeout_ms=100)


async def test_member_with_another_assignor_is_refused(kafka: Kafka) -> None:
    topic, group = await kafka.topic(1), kafka.unique("group")
    await join(kafka, topic, group, partition_assignment_strategy=(RangePartitionAssignor,))
    with pytest.raises(InconsistentGroupProtocolError):
        await join(kafka, topic, group, partition_assignment_strategy=(RoundRobinPartitionAssignor,))


@pytest.mark.parametrize("session_timeout_ms", [500, 2_000_000])
async def test_session_time_out_that_the_broker_does_not_take_is_refused(kafka: Kafka, session_timeout_ms: int) -> None:
    topic, group = await kafka.topic(1), kafka.unique("group")
    with pytest.raises(InvalidSessionTimeoutError):
        await join(kafka, topic, group, session_timeout_ms=session_timeout_ms)


async def test_stopping_twice_and_before_starting_does_no_harm(kafka: Kafka) -> None:
    topic, group = await kafka.topic(1), kafka.unique("group")
    consumer, _ = await join(kafka, topic, group)
    await consumer.stop()
    await consumer.stop()
    never: Callable[[], Awaitable[object]] = kafka.clients.consumer(topic, group_id=group).stop
    await never()


async def test_member_that_left_commits_nothing(kafka: Kafka) -> None:
    topic, group = await kafka.topic(1), kafka.unique("group")
    tp = TopicPartition(topic, 0)
    consumer, _ = await join(kafka, topic, group)
    consumer.unsubscribe()
    with pytest.raises(IllegalStateError):
        await consumer.commit({tp: 1})


async def test_every_record_is_read_once_while_members_come_and_go(kafka: Kafka) -> None:
    topic, group = await kafka.topic(3), kafka.unique("group")
    producer = await kafka.producer()
    for number in range(60):
        await producer.send(topic, b"%d" % number, partition=number % 3)
    await producer.flush()
    seen: list[tuple[int, int]] = []

    async def work(consumer: Any, diary: Diary) -> None:
        while len(seen) < 60:
            for tp, records in (await consumer.getmany(timeout_ms=100, max_records=4)).items():
                try:
                    await consumer.commit({tp: records[-1].offset + 1})
                except (CommitFailedError, IllegalStateError):
                    continue  # what was not committed is read again by whoever has the partition now
                seen.extend((tp.partition, record.offset) for record in records)

    members = []
    for _ in range(3):
        consumer, diary = await join(kafka, topic, group)
        members.append(asyncio.create_task(work(consumer, diary)))
    await asyncio.gather(*members)
    assert sorted(seen) == [(partition, offset) for partition in range(3) for offset in range(20)]
