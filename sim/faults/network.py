"""Faults of links: what happens to messages between two hosts (design section 8)."""

from typing import Final

from sim.deployment import Deployment
from sim.faults.aims import ends_of, server_link
from sim.faults.kind import Kind, Undo
from sim.faults.moments import AT_WORK
from sim.faults.options import FaultOptions, Span
from sim.scenario import MILLISECOND_NS
from sim.script import Strike

NETWORK: Final = Kind(
    "network",
    about="Links are between a service and a server that it talks to, or between two servers of a cluster.",
)


@NETWORK.fault(
    FaultOptions(
        "slow-link",
        "one direction of a link takes longer",
        "every call to Kafka or Cassandra",
        server_link,
        strikes_per_minute=Span(6, 30),
        duration_ms=Span(200, 5_000),
        strength=Span(1, 400),
        strength_meaning="ms more, each message",
    )
)
def _slow_link(world: Deployment, strike: Strike) -> Undo:
    fault = world.network.slow(*ends_of(strike.target), extra_ns=strike.strength * MILLISECOND_NS)
    return lambda: world.network.remove(fault)


@NETWORK.fault(
    FaultOptions(
        "clogged-link",
        "messages of one direction are held back, then arrive together",
        "every call to Kafka or Cassandra",
        server_link,
        strikes_per_minute=Span(3, 20),
        duration_ms=Span(50, 3_000),
        moments=AT_WORK,
    )
)
def _clogged_link(world: Deployment, strike: Strike) -> Undo:
    fault = world.network.clog(*ends_of(strike.target), until_ns=world.clock.now + strike.duration_ns)
    return lambda: world.network.remove(fault)


@NETWORK.fault(
    FaultOptions(
        "partition",
        "a service and a broker, or two servers, cannot reach each other, in one direction or both",
        "every call to Kafka or Cassandra; heartbeats; replication",
        server_link,
        strikes_per_minute=Span(2, 8),
        duration_ms=Span(500, 9_000),
        strength=Span(0, 1),
        strength_meaning="1: both directions",
        moments=AT_WORK,
    )
)
def _partition(world: Deployment, strike: Strike) -> Undo:
    source, sink = ends_of(strike.target)
    cuts = [world.network.cut(source, sink)]
    if strike.strength:
        cuts.append(world.network.cut(sink, source))

    def heal() -> None:
        for cut in cuts:
            world.network.remove(cut)

    return heal
