"""Faults that break a stated assumption of the design: never in a swarm, there to show that the invariants see them."""

from typing import Final

from sim.deployment import Deployment
from sim.faults.aims import chained_topic
from sim.faults.kind import Kind
from sim.faults.plan import FaultOptions, Span
from sim.kafka.faults import FLIPPED, GARBAGE
from sim.script import Strike

ASSUMPTIONS: Final = Kind("broken assumptions")


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
