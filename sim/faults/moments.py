"""When a fault hurts most: the moments that an aimed strike waits for."""

from typing import Final

from sim.deployment import GATEWAY, SETTLEMENT, Deployment
from sim.script import Strike

IN_A_TRANSACTION: Final = "in a transaction of the service, or while its commit is carried out"
AT_WORK: Final = "in a transaction, between writing rows and committing offsets, or with requests unanswered"


def is_moment(world: Deployment, strike: Strike) -> bool:
    """Whether the moment of an aimed strike is now: the service that it aims at is in the middle of something."""
    host = world.hosts.get(strike.target)
    service = host.service if host is not None else strike.target
    if service == SETTLEMENT:
        return world.cassandra.operations_open > 0
    if service == GATEWAY:
        front = world.gateways[strike.target].front
        return front is not None and front.outstanding > 0
    return any(map(world.kafka.transactions.is_open, world.transactional_ids(service) or world.all_transactional_ids))
