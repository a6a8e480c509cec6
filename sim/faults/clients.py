"""Faults of clients: what people and their programs do at the worst time (design section 8).

They act on the clients while the run goes on, beside what the flow says: the flow stays what it is, so that shrinking
can leave a strike out and everything else stays the same.
"""

from typing import Final

from sim.clients import Clients
from sim.deployment import Deployment
from sim.faults.aims import the_world
from sim.faults.hostile_input import Attack
from sim.faults.kind import Kind, Undo
from sim.faults.moments import DURING_REBALANCE, DURING_RECOVERY, IN_COMMIT, REQUESTS_OUTSTANDING
from sim.faults.options import FaultOptions, Span
from sim.scenario import MILLISECOND_NS
from sim.script import Strike

CLIENTS: Final = Kind("clients", about="They act beside the flow, whose operations stay what they are.")


@CLIENTS.fault(
    FaultOptions(
        "repeated-submission",
        "a storm: every request sent meanwhile is sent once more, at another gateway, answered or not",
        "the balance core's memory of requests, across instances and restarts; the gateways' waiting for answers",
        the_world,
        strikes_per_minute=Span(2, 8),
        duration_ms=Span(200, 4_000),
        strength=Span(0, 1_500),
        strength_meaning="ms from a request to its repeat",
        moments=(REQUESTS_OUTSTANDING, IN_COMMIT, DURING_REBALANCE, DURING_RECOVERY),
    )
)
def _repeated_submission(world: Deployment, strike: Strike) -> Undo:
    return _clients(world).repeat_everything(strike.strength * MILLISECOND_NS)


@CLIENTS.fault(
    FaultOptions(
        "cancel-race",
        "every order placed meanwhile is cancelled, as soon as its id is known or a little later, at another gateway",
        "a cancel that meets its order's placement or fill on the way; the release of funds",
        the_world,
        strikes_per_minute=Span(2, 8),
        duration_ms=Span(200, 4_000),
        strength=Span(0, 60),
        strength_meaning="ms from an order to its cancel, at least until it was answered",
    )
)
def _cancel_race(world: Deployment, strike: Strike) -> Undo:
    return _clients(world).cancel_everything(strike.strength * MILLISECOND_NS)


@CLIENTS.fault(
    FaultOptions(
        "burst",
        "what clients would do meanwhile they do all at once, at its end",
        "the gateways' limit of requests outstanding; batches, transactions and rows much larger than usual",
        the_world,
        strikes_per_minute=Span(2, 6),
        duration_ms=Span(300, 4_000),
    )
)
def _burst(world: Deployment, strike: Strike) -> Undo:
    return _clients(world).hold_back()


@CLIENTS.fault(
    FaultOptions(
        "hostile-input",
        "malformed and hostile requests at the gateways, and bytes that do not decode straight into order.requests",
        "the gateway's parser; the balance core's decoding of requests, which go to dead.letters",
        the_world,
        strikes_per_minute=Span(2, 6),
        duration_ms=Span(200, 3_000),
        strength=Span(5, 60),
        strength_meaning="hostile requests a second; as many records a second past the gateways",
        moments=(DURING_REBALANCE, DURING_RECOVERY),
    )
)
def _hostile_input(world: Deployment, strike: Strike) -> Undo:
    return Attack(world, _clients(world), strike).end


def _clients(world: Deployment) -> Clients:
    if world.clients is None:
        raise RuntimeError("no clients are at work yet")
    return world.clients
