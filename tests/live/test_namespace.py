"""A namespace's clients, over the simulated cluster: the servers see prefixed names, the service its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import OffsetOutOfRangeError
from aiokafka.structs import TopicPartition

from live.namespace import Namespace
from sim.kafka import SimKafkaClients
from tests.sim.kafka.conftest import KafkaWorld

IN = TopicPartition("in", 0)
OUT = TopicPartition("out", 0)
READER = {"group_id": None, "enable_auto_commit": False, "isolation_level": "read_committed"}


@pytest.fixture
def world() -> Iterator[KafkaWorld]:
    world = KafkaWorld()
    for topic in ("left.in", "left.out", "right.in", "right.out"):
        world.cluster.create_topic(topic, 1)
    yield world
    world.close()


@pytest.mark.parametrize("name", ["A", "1a", "a.b", "a-b", "a b", "a" * 31, "é"])
def test_names_that_no_keyspace_could_have_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a namespace is"):
        Namespace(name)


def test_without_a_name_the_clients_are_the_very_same() -> None:
    clients: Any = object()
    namespace = Namespace()
    assert namespace.clients(clients) is clients
    assert (namespace.keyspace, namespace.outside("order.requests")) == ("exchange", "order.requests")


def test_what_one_namespace_writes_it_reads_under_its_own_names_and_no_other_sees_it(world: KafkaWorld) -> None:
    async def main(clients: SimKafkaClients) -> None:
        left, right = (Namespace(name).clients(clients) for name in ("left", "right"))
        producer = left.producer(acks="all")
        await producer.start()
        await producer.send_and_wait("in", b"1", partition=0)
        await producer.stop()
        for each, found in ((left, [b"1"]), (right, [])):
            consumer = each.consumer(auto_offset_reset="none", **READER)
            consumer.assign([IN])
            await consumer.start()
            await consumer.seek_to_beginning(IN)
            fetched = await consumer.getmany(IN, timeout_ms=500)
            assert [(r.topic, r.value) for r in fetched.get(IN, ())] == [("in", value) for value in found]
            assert await consumer.end_offsets([IN]) == {IN: len(found)}
            assert await consumer.beginning_offsets([IN]) == {IN: 0}
            assert await consumer.position(IN) == len(found)
            consumer.pause(IN)
            assert consumer.paused() == {IN}
            assert consumer.assignment() == frozenset((IN,))
            await consumer.stop()

    world.run(main)
    assert world.values("left.in") == [b"1"]
    assert world.values("right.in") == []


def test_groups_and_transactions_of_two_namespaces_do_not_meet(world: KafkaWorld) -> None:
    async def main(clients: SimKafkaClients) -> None:
        left, right = (Namespace(name).clients(clients) for name in ("left", "right"))
        first, second = (each.producer(transactional_id="engine-0") for each in (left, right))
        await first.start()
        await second.start()  # would fence the first if the id were the same
        await first.begin_transaction()
        batch = first.create_batch()
        batch.append(timestamp=None, key=None, value=b"batched")
        batch.close()
        await (await first.send_batch(batch, "out", partition=0))
        await (await first.send("out", b"sent", partition=0))
        await first.send_offsets_to_transaction({IN: 5}, "engine")
        await first.commit_transaction()
        for each, committed in ((left, 5), (right, None)):
            consumer = each.consumer(group_id="engine", enable_auto_commit=False)
            consumer.assign([IN])
            await consumer.start()
            await asyncio.sleep(0.5)  # simulated: the marker is on its way to the group's coordinator
            assert await consumer.committed(IN) == committed
            await consumer.stop()
        await first.stop()
        await second.stop()

    world.run(main)
    assert world.values("left.out") == [b"batched", b"sent"]


def test_a_listener_is_told_of_its_own_topics_and_commits_reach_them(world: KafkaWorld) -> None:
    class Listener(ConsumerRebalanceListener):  # type: ignore[misc]
        assigned: list[TopicPartition]

        async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
            self.assigned = sorted(assigned)

        async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None: ...

    async def main(clients: SimKafkaClients) -> None:
        listener = Listener()
        consumer = Namespace("left").clients(clients).consumer(group_id="g", enable_auto_commit=False)
        consumer.subscribe(["in", "out"], listener=listener)
        await consumer.start()
        while not consumer.assignment():
            await consumer.getmany(timeout_ms=100)
        assert listener.assigned == [IN, OUT]
        await consumer.commit({IN: 0})
        assert await consumer.committed(IN) == 0
        await consumer.stop()

    world.run(main)


def test_an_error_names_the_services_own_partition(world: KafkaWorld) -> None:
    async def main(clients: SimKafkaClients) -> None:
        consumer = Namespace("left").clients(clients).consumer(auto_offset_reset="none", **READER)
        consumer.assign([IN])
        await consumer.start()
        consumer.seek(IN, 99)
        with pytest.raises(OffsetOutOfRangeError) as raised:
            await consumer.getmany(IN, timeout_ms=2_000)
        assert raised.value.args == ({IN: 99},)
        await consumer.stop()

    world.run(main)
