"""Facts about replication: what the high watermark covers, and what an elected replica has."""

from __future__ import annotations

from typing import Any

from aiokafka.structs import TopicPartition

from sim.clock import Clock
from sim.kafka.log import Batch
from sim.kafka.partition import Partition
from sim.network import Latency, Network
from sim.randomness import Randomness

NAMES = {1: "kafka-1", 2: "kafka-2", 3: "kafka-3"}
DRAW = Randomness(1).stream("replication").bits


def make() -> tuple[Partition, Network]:
    """A partition led by broker 1, over links that take 100 ns each way."""
    network = Network(Clock(), Randomness(1), Latency.constant(100))
    return Partition(TopicPartition("t", 0), [1, 2, 3], NAMES, 1_000_000), network


def append(partition: Partition, count: int = 1, now_ns: int = 0) -> None:
    partition.log.append(Batch([(0, None, b"v", ())] * count, 100), now_ns)


def is_up(_broker: Any) -> bool:
    return True


def test_replication_takes_the_way_there_and_back() -> None:
    partition, network = make()
    append(partition)
    assert partition.replicate(0, network, DRAW) == 200
    assert [partition.replica_end(2, at_ns) for at_ns in (99, 100)] == [0, 1]


def test_watermark_does_not_pass_a_follower_that_died_before_the_record_arrived() -> None:
    partition, network = make()
    append(partition)
    partition.replicate(0, network, DRAW)
    partition.follower_died(3, 99)
    assert not partition.advance(1)
    partition.in_sync.remove(3)
    assert partition.advance(1)


def test_follower_that_died_after_the_arrival_does_not_hold_the_watermark() -> None:
    partition, network = make()
    append(partition)
    partition.replicate(0, network, DRAW)
    partition.follower_died(3, 100)
    assert partition.advance(1)


def test_elected_replica_keeps_what_had_arrived_and_cuts_the_rest() -> None:
    partition, network = make()
    append(partition, 2)
    partition.replicate(0, network, DRAW)
    append(partition, 3)
    partition.replicate(150, network, DRAW)
    partition.lose_leader(200)
    assert partition.elect(2, is_up, 300) == 3
    assert (partition.leader, partition.epoch, partition.log.end_offset) == (2, 1, 2)


def test_returning_leader_is_cut_to_the_log_of_the_new_one() -> None:
    partition, network = make()
    append(partition, 2)
    partition.replicate(0, network, DRAW)
    partition.lose_leader(50)
    partition.elect(2, is_up, 300)
    assert partition.replica_end(1, 300) == 0


def test_unreachable_follower_holds_the_watermark_until_it_has_caught_up() -> None:
    partition, network = make()
    network.cut("kafka-1", "kafka-3")
    append(partition)
    assert partition.replicate(0, network, DRAW) is None
    assert partition.replicated_end(1000) == (0, None)
    partition.caught_up(3, 2000)
    assert partition.replicated_end(2000) == (1, None)
