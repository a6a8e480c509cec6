"""Facts about consumer groups: who owns what, who is expelled when, and whose commits count."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import CommitFailedError
from aiokafka.structs import TopicPartition


class Diary(ConsumerRebalanceListener):
    """Writes down what it is told."""

    def __init__(self, world: Any, name: str, entries: list[tuple[str, str, int]]) -> None:
        self.world = world
        self.name = name
        self.entries = entries

    async def on_partitions_revoked(self, revoked: Any) -> None:
        self.entries.append((self.name, "revoked", len(revoked)))

    async def on_partitions_assigned(self, assigned: Any) -> None:
        self.entries.append((self.name, "assigned", len(assigned)))


@pytest.fixture
def diary() -> list[tuple[str, str, int]]:
    return []


def member(world: Any, name: str, diary: list[tuple[str, str, int]], **config: Any) -> Any:
    async def main(kafka: Any) -> None:
        settings = {"group_id": "g", "auto_offset_reset": "earliest", "enable_auto_commit": False, **config}
        consumer = kafka.consumer(**settings)
        consumer.subscribe(["many"], listener=Diary(world, name, diary))
        world.results[name] = consumer
        await consumer.start()
        while True:
            await consumer.getmany(timeout_ms=1000)

    return main


def owners(world: Any) -> dict[int, int]:
    """How many members own each partition, by the coordinator's word."""
    _, _, assignment = world.cluster.groups.describe("g")
    counts = dict.fromkeys(range(6), 0)
    for topics in assignment.values():
        for partition in topics.get("many", []):
            counts[partition] += 1
    return counts


def test_listener_is_told_of_revocation_before_assignment(world: Any, diary: Any) -> None:
    world.start("a", member(world, "a", diary))
    world.pass_s(5)
    world.start("b", member(world, "b", diary))
    world.pass_s(10)
    assert [entry for entry in diary if entry[0] == "a"] == [
        ("a", "revoked", 0),
        ("a", "assigned", 6),
        ("a", "revoked", 6),
        ("a", "assigned", 3),
    ]
    assert set(owners(world).values()) == {1}


def test_range_assignor_gives_equal_numbers_of_two_topics_to_one_member(world: Any) -> None:
    world.cluster.create_topic("also", 6)

    def main_of(name: str) -> Any:
        async def main(kafka: Any) -> None:
            consumer = kafka.consumer(
                "many", "also", group_id="g", partition_assignment_strategy=[RangePartitionAssignor]
            )
            await consumer.start()
            world.results[name] = consumer
            await asyncio.sleep(100)

        return main

    for name in ("a", "b"):
        world.start(name, main_of(name))
    world.pass_s(10)
    for name in ("a", "b"):
        owned = world.results[name].assignment()
        by_topic = {topic: {tp.partition for tp in owned if tp.topic == topic} for topic in ("many", "also")}
        assert by_topic["many"] == by_topic["also"]
        assert len(by_topic["many"]) == 3


@pytest.mark.parametrize("how", ["crash", "pause", "cut"])
def test_member_that_falls_silent_expires_after_its_session(world: Any, diary: Any, how: str) -> None:
    for name in ("a", "b"):
        world.start(name, member(world, name, diary, session_timeout_ms=10_000))
    world.pass_s(10)
    if how == "crash":
        world.hosts["a"].crash()
    elif how == "pause":
        world.hosts["a"].pause()
    else:
        world.network.cut("a", "*")
    world.pass_s(9)
    assert len(world.cluster.groups.members("g")) == 2
    world.pass_s(6)
    assert len(world.cluster.groups.members("g")) == 1
    assert set(owners(world).values()) == {1}


def test_commit_goes_on_when_its_caller_is_cancelled(world: Any) -> None:
    tp = TopicPartition("many", 0)

    async def main(kafka: Any) -> Any:
        consumer = kafka.consumer("many", group_id="g", enable_auto_commit=False)
        await consumer.start()
        committing = asyncio.create_task(consumer.commit({tp: 4}))
        await asyncio.sleep(0)
        committing.cancel()
        await asyncio.wait([committing])
        assert committing.cancelled()
        await asyncio.sleep(1)
        committed = await consumer.committed(tp)
        await consumer.commit({tp: 5})
        await consumer.stop()
        return committed

    assert world.run(main) == 4
    assert world.cluster.groups.committed("g", tp) == 5


def test_resumed_zombie_cannot_commit_and_joins_again(world: Any) -> None:
    tp = TopicPartition("many", 0)

    async def main(kafka: Any) -> Any:
        consumer = kafka.consumer("many", group_id="g", enable_auto_commit=False)
        await consumer.start()
        assert world.cluster.faults.evict("g") is not None
        with pytest.raises(CommitFailedError):
            await consumer.commit({tp: 4})
        await asyncio.sleep(5)
        await consumer.commit({tp: 4})
        committed = await consumer.committed(tp)
        await consumer.stop()
        return committed

    assert world.run(main) == 4
    assert world.cluster.struck["member-evicted"] == 1


def test_evicted_member_learns_of_it_at_its_next_heartbeat(world: Any, diary: Any) -> None:
    world.start("a", member(world, "a", diary, heartbeat_interval_ms=3000))
    world.pass_s(5)
    world.cluster.faults.evict("g")
    assert world.results["a"].assignment()
    world.pass_s(4)
    assert diary[-2:] == [("a", "revoked", 6), ("a", "assigned", 6)]


def test_forced_rebalance_revokes_and_assigns_again(world: Any, diary: Any) -> None:
    world.start("a", member(world, "a", diary))
    world.pass_s(5)
    assert world.cluster.faults.rebalance("g")
    world.pass_s(5)
    assert diary[-2:] == [("a", "revoked", 6), ("a", "assigned", 6)]


def test_consumer_that_is_not_polled_leaves_the_group(world: Any) -> None:
    async def main(kafka: Any) -> Any:
        consumer = kafka.consumer("many", group_id="g", max_poll_interval_ms=5_000)
        await consumer.start()
        await consumer.getmany(timeout_ms=10)
        await asyncio.sleep(4)
        before = len(world.cluster.groups.members("g"))
        await asyncio.sleep(4)
        after = len(world.cluster.groups.members("g"))
        await consumer.getmany(timeout_ms=10)
        await asyncio.sleep(2)
        return before, after

    assert world.run(main) == (1, 0)


def test_stop_leaves_the_group_at_once(world: Any) -> None:
    async def main(kafka: Any) -> None:
        consumer = kafka.consumer("many", group_id="g", enable_auto_commit=False)
        await consumer.start()
        assert len(world.cluster.groups.members("g")) == 1
        await consumer.stop()

    world.run(main)
    assert world.cluster.groups.members("g") == []


def test_consumer_whose_close_is_cancelled_in_a_rebalance_does_not_join_again(world: Any, diary: Any) -> None:
    revoking = asyncio.Event()

    class Slow(Diary):
        async def on_partitions_revoked(self, revoked: Any) -> None:
            await super().on_partitions_revoked(revoked)
            if revoked:
                revoking.set()
                await asyncio.sleep(1)

    async def main(kafka: Any) -> None:
        consumer = kafka.consumer(group_id="g", enable_auto_commit=False, rebalance_timeout_ms=5_000)
        consumer.subscribe(["many"], listener=Slow(world, "a", diary))
        await consumer.start()
        world.cluster.faults.rebalance("g")
        await revoking.wait()
        stopping = asyncio.create_task(consumer.stop())
        await asyncio.sleep(0.1)
        stopping.cancel()
        await asyncio.sleep(20)

    world.run(main)
    assert diary == [("a", "revoked", 0), ("a", "assigned", 6), ("a", "revoked", 6)]
    assert world.cluster.groups.members("g") == []


def test_next_owner_begins_at_the_committed_offset(world: Any) -> None:
    tp = TopicPartition("t", 0)

    async def main(kafka: Any) -> Any:
        async with kafka.producer(acks="all") as producer:
            for i in range(10):
                await producer.send_and_wait("t", b"v%d" % i)
        seen = []
        for _ in range(2):
            consumer = kafka.consumer("t", group_id="g", auto_offset_reset="earliest", enable_auto_commit=False)
            await consumer.start()
            records = await consumer.getmany(timeout_ms=1000, max_records=4)
            seen.append([record.offset for record in records[tp]])
            await consumer.commit()
            await consumer.stop()
        return seen

    assert world.run(main) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_auto_commit_commits_on_stop(world: Any) -> None:
    async def main(kafka: Any) -> None:
        async with kafka.producer(acks="all") as producer:
            await producer.send_and_wait("t", b"v")
        consumer = kafka.consumer("t", group_id="g", auto_offset_reset="earliest")
        await consumer.start()
        await consumer.getmany(timeout_ms=1000)
        await consumer.stop()

    world.run(main)
    assert world.cluster.groups.committed("g", TopicPartition("t", 0)) == 1


def test_refused_commit_is_retried_until_it_is_stored(world: Any) -> None:
    tp = TopicPartition("many", 0)

    async def main(kafka: Any) -> Any:
        consumer = kafka.consumer("many", group_id="g", enable_auto_commit=False)
        await consumer.start()
        world.cluster.faults.lose_commits(700_000)
        for offset in range(1, 10):
            await consumer.commit({tp: offset})
        world.cluster.faults.heal()
        return await consumer.committed(tp)

    assert world.run(main) == 9
    assert world.cluster.struck["commit-refused"] > 0


def test_group_survives_a_change_of_its_coordinator(world: Any, diary: Any) -> None:
    world.start("a", member(world, "a", diary))
    world.pass_s(5)
    _, generation, _ = world.cluster.groups.describe("g")
    world.cluster.faults.crash_broker(world.cluster.coordinator("group", "g"))
    world.pass_s(20)
    assert world.cluster.groups.describe("g")[:2] == ("stable", generation)
    assert len(world.cluster.groups.members("g")) == 1


def test_commit_of_an_older_generation_is_refused(world: Any) -> None:
    tp = TopicPartition("many", 0)

    async def main(kafka: Any) -> Any:
        consumer = kafka.consumer("many", group_id="g", enable_auto_commit=False)
        await consumer.start()
        consumer._membership.generation -= 1  # as if the answer that told of the newer one had not come yet
        with pytest.raises(CommitFailedError):
            await consumer.commit({tp: 4})
        return await consumer.committed(tp)

    assert world.run(main) is None
