"""Faults that break a stated assumption of the design: never in a swarm, there to show that the invariants see them.

What is assumed: a record that was acknowledged stays what it was and where it was, and can be read by whoever has not
read it yet; and that what a disk has synced is still there after a power cut. All but the last are seen by invariants.
The last costs the services nothing but time, because a snapshot only saves reading: a partition whose snapshots are
lost or old is rebuilt from its log. Nothing of the design rests on a disk, and all invariants hold under that fault.
"""

from typing import Final

from schema.services import MATCHING, SETTLEMENT, UBSCORE
from schema.topics import BALANCE_EVENTS, ENGINE_OUTPUTS, FUND_UPDATES, ORDER_REQUESTS, VALIDATED_ORDERS
from sim.deployment import Deployment
from sim.faults.aims import any_topic, chained_topic, host_of
from sim.faults.kind import Kind, Undo
from sim.faults.moments import TRANSACTIONAL
from sim.faults.options import FaultOptions, Span
from sim.kafka.faults import FLIPPED, GARBAGE
from sim.script import Strike

ASSUMPTIONS: Final = Kind(
    "broken assumptions",
    about="Each breaks something that the design rests on. They are off unless they are named: they are there to show "
    "that the invariants see them.",
)

READER: Final = {
    ORDER_REQUESTS: UBSCORE,
    FUND_UPDATES: UBSCORE,
    VALIDATED_ORDERS: MATCHING,
    ENGINE_OUTPUTS: SETTLEMENT,
    BALANCE_EVENTS: SETTLEMENT,
}
"""The service whose instances read a topic in a group."""


@ASSUMPTIONS.fault(
    FaultOptions(
        "corrupt-record",
        "a record of a chained topic is altered before its checksum is made",
        "verification of what is read; processing stops there with an alarm",
        chained_topic,
        strikes_per_minute=Span(1, 3),
        duration_ms=Span(0, 0),
        strength=Span(0, 15),
        strength_meaning="partition, modulo twice the topic's number of them; odd: garbage instead of one flipped bit",
        breaks_assumption=True,
    )
)
def _corrupt_record(world: Deployment, strike: Strike) -> None:
    how = GARBAGE if strike.strength % 2 else FLIPPED
    world.kafka.faults.alter_next(strike.target, world.partition_of(strike.target, strike.strength // 2), how)


@ASSUMPTIONS.fault(
    FaultOptions(
        "lost-record",
        "a record of a chained topic is lost by every replica after it was acknowledged",
        "verification of sequences; processing stops at the gap with an alarm",
        chained_topic,
        strikes_per_minute=Span(1, 3),
        duration_ms=Span(0, 0),
        strength=Span(0, 7),
        strength_meaning="partition, modulo the topic's number of them",
        breaks_assumption=True,
    )
)
def _lost_record(world: Deployment, strike: Strike) -> None:
    world.kafka.faults.lose_next(strike.target, world.partition_of(strike.target, strike.strength))


@ASSUMPTIONS.fault(
    FaultOptions(
        "unclean-leader-change",
        "a replica falls behind and becomes the leader all the same: acknowledged records are lost",
        "resume points, sequences and positions that name what is not in the log any more",
        any_topic,
        strikes_per_minute=Span(1, 3),
        duration_ms=Span(500, 6_000),
        strength=Span(0, 7),
        strength_meaning="partition, modulo the topic's number of them; it lags for as long as the strike lasts",
        breaks_assumption=True,
    )
)
def _unclean_leader_change(world: Deployment, strike: Strike) -> Undo:
    faults, partition = world.kafka.faults, world.partition_of(strike.target, strike.strength)
    if faults.hold_back(strike.target, partition) is None:
        return lambda: None
    return lambda: _elect(world, strike.target, partition)


def _elect(world: Deployment, topic: str, partition: int) -> None:
    world.kafka.faults.elect_held_back(topic, partition)


@ASSUMPTIONS.fault(
    FaultOptions(
        "retention-passed",
        "the readers of a topic stand still, and retention deletes what they have not read yet",
        "positions, progress and resume points that name what is not in the log any more",
        any_topic,
        strikes_per_minute=Span(1, 3),
        duration_ms=Span(1_000, 8_000),
        strength=Span(0, 31),
        strength_meaning="of a partition (modulo the topic's number of them), records kept: a quarter of it, to 7",
        breaks_assumption=True,
    )
)
def _retention_passed(world: Deployment, strike: Strike) -> Undo:
    thaw = [host.freeze() for host in world.hosts.values() if host.service == READER[strike.target]]

    def end() -> None:
        partition = world.partition_of(strike.target, strike.strength)
        world.kafka.faults.pass_retention(strike.target, partition, keep_records=strike.strength // 4)
        for each in thaw:
            each()

    return end


@ASSUMPTIONS.fault(
    FaultOptions(
        "synced-writes-lost",
        "a host's disk says that writes are synced and does not keep them; then the host loses its power",
        "nothing that the design rests on: snapshots only save reading, so the log is read from further back",
        host_of(*TRANSACTIONAL),
        strikes_per_minute=Span(2, 6),
        duration_ms=Span(1_000, 8_000),
        breaks_assumption=True,
    )
)
def _synced_writes_lost(world: Deployment, strike: Strike) -> Undo:
    host = world.hosts[strike.target]
    end_lies = host.disk.lie()

    def lose_power() -> None:
        world.take_down(strike.target, host.crash)
        end_lies()
        world.bring_up(strike.target)

    return lose_power
