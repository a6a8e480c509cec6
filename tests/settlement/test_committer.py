"""Offsets are committed one commit at a time, the newest of each partition, and none is forgotten."""

import asyncio

from aiokafka.errors import CommitFailedError, KafkaError
from aiokafka.structs import TopicPartition

from settlement.retries import Backoff
from settlement.service import Committer, SettlementConfig

ONE, OTHER = TopicPartition("engine.outputs", 0), TopicPartition("engine.outputs", 1)


class Group:
    """A consumer whose commits the test answers."""

    def __init__(self, *assigned: TopicPartition) -> None:
        self.assigned = frozenset(assigned)
        self.asked: list[tuple[dict[TopicPartition, int], asyncio.Future[None]]] = []

    def assignment(self) -> frozenset[TopicPartition]:
        return self.assigned

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        answer = asyncio.get_running_loop().create_future()
        self.asked.append((dict(offsets), answer))
        await answer


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def committer(group: Group, log, randomness) -> Committer:
    return Committer(group, log, randomness, SettlementConfig(backoff=Backoff(first_ms=1, longest_ms=1)))


def test_an_offset_added_during_a_commit_is_committed_next(log, randomness):
    async def scenario():
        group = Group(ONE)
        offsets = committer(group, log, randomness)
        offsets.add(ONE, 5)
        await settle()
        offsets.add(ONE, 9)
        group.asked[0][1].set_result(None)
        await settle()
        group.asked[1][1].set_result(None)
        await settle()
        return [asked for asked, _ in group.asked]

    assert asyncio.run(scenario()) == [{ONE: 5}, {ONE: 9}]


def test_a_commit_that_a_rebalance_refused_does_not_take_newer_offsets_with_it(log, randomness):
    async def scenario():
        group = Group(ONE, OTHER)
        offsets = committer(group, log, randomness)
        offsets.add(ONE, 5)
        await settle()
        # The partitions were taken away and came back while the commit was under way, and more was settled.
        offsets.forget(ONE)
        offsets.add(ONE, 9)
        offsets.add(OTHER, 3)
        group.asked[0][1].set_exception(CommitFailedError())
        await settle()
        group.asked[1][1].set_result(None)
        await settle()
        return [asked for asked, _ in group.asked]

    assert asyncio.run(scenario()) == [{ONE: 5}, {ONE: 9, OTHER: 3}]


def test_a_commit_that_a_rebalance_refused_is_left_to_the_next_owner(log, randomness):
    async def scenario():
        group = Group(ONE)
        offsets = committer(group, log, randomness)
        offsets.add(ONE, 5)
        await settle()
        group.asked[0][1].set_exception(CommitFailedError())
        await asyncio.sleep(0.005)
        return len(group.asked)

    assert asyncio.run(scenario()) == 1


def test_a_commit_that_failed_is_repeated(log, randomness):
    async def scenario():
        group = Group(ONE)
        offsets = committer(group, log, randomness)
        offsets.add(ONE, 5)
        await settle()
        group.asked[0][1].set_exception(KafkaError("not now"))
        await asyncio.sleep(0.05)  # the backoff is 1 ms
        group.asked[1][1].set_result(None)
        return [asked for asked, _ in group.asked]

    assert asyncio.run(scenario()) == [{ONE: 5}, {ONE: 5}]


def test_a_partition_that_was_taken_away_is_not_committed(log, randomness):
    async def scenario():
        group = Group(OTHER)
        offsets = committer(group, log, randomness)
        offsets.add(ONE, 5)
        offsets.add(OTHER, 7)
        await settle()
        group.asked[0][1].set_result(None)
        await settle()
        return [asked for asked, _ in group.asked]

    assert asyncio.run(scenario()) == [{OTHER: 7}]


def test_a_commit_that_outlives_the_release_of_its_partition_is_not_repeated_by_the_client(log, randomness):
    async def scenario():
        group = Group(ONE)
        offsets = committer(group, log, randomness)
        offsets.add(ONE, 5)
        await settle()
        await offsets.flush(asyncio.get_running_loop().time() + 0.001)
        offsets.forget(ONE)
        assert group.asked[0][1].cancelled()
        # The partition comes back: its offsets wait for nothing that happened before.
        offsets.add(ONE, 9)
        await settle()
        group.asked[1][1].set_result(None)
        return [asked for asked, _ in group.asked]

    assert asyncio.run(scenario()) == [{ONE: 5}, {ONE: 9}]
