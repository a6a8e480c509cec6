"""Whether a moment has come: read off the simulated servers and hosts, never off the services."""

from collections.abc import Callable
from typing import Final

from sim.deployment import Deployment
from sim.faults.moments import (
    BETWEEN_WRITE_AND_COMMIT,
    DURING_REBALANCE,
    DURING_RECOVERY,
    IN_COMMIT,
    IN_TRANSACTION,
    MOMENTS,
    REQUESTS_OUTSTANDING,
    ROWS_BEING_WRITTEN,
    ROWS_REFUSED,
    SNAPSHOT_BEING_WRITTEN,
)
from sim.scenario import MILLISECOND_NS
from sim.script import Strike

_BACKOFF_NS: Final = 20 * MILLISECOND_NS
"""So long a service waits at least, before it asks the database again."""

Sees = Callable[[Deployment, str], bool]
"""Whether the moment is now, for the host of that name."""


def watch_for(world: Deployment, strike: Strike) -> Callable[[], bool]:
    """Tells, each time it is called, whether the moment that the strike waits for is now.

    That is so when it is for one of the hosts that the strike's target concerns.
    """
    services, sees = MOMENTS[strike.moment].services, _SEES[strike.moment]
    concerned = world.layout.hosts_concerned(strike.target)
    hosts = [host for host in concerned if world.hosts[host].service in services]
    return lambda: any(sees(world, host) for host in hosts)


def _in_transaction(world: Deployment, host: str) -> bool:
    transactions = world.kafka.transactions
    return any(
        transactions.owner(each) == host and transactions.is_open(each) and not transactions.is_ending(each)
        for each in world.transactional_ids(world.hosts[host].service)
    )


def _in_commit(world: Deployment, host: str) -> bool:
    transactions = world.kafka.transactions
    return world.kafka.is_asking(host, "end_transaction") or any(
        transactions.owner(each) == host and transactions.is_ending(each)
        for each in world.transactional_ids(world.hosts[host].service)
    )


def _rows_being_written(world: Deployment, host: str) -> bool:
    return world.cassandra.open_writes(host) > 0


def _rows_refused(world: Deployment, host: str) -> bool:
    failed_ns = world.cassandra.failed_ns(host)
    return failed_ns is not None and world.clock.now - failed_ns < _BACKOFF_NS


def _between_write_and_commit(world: Deployment, host: str) -> bool:
    return world.kafka.is_asking(host, "commit_offsets")


def _requests_outstanding(world: Deployment, host: str) -> bool:
    front = world.gateways[host].front
    return front is not None and front.outstanding > 0


def _during_rebalance(world: Deployment, host: str) -> bool:
    return world.kafka.groups.is_rebalancing(world.hosts[host].service)


def _during_recovery(world: Deployment, host: str) -> bool:
    """Settlement asks for the offsets of its group only when it takes a partition over; the others start the producer
    of the partition then, and read their own output without a group."""
    kafka = world.kafka
    return kafka.is_asking(host, "fetch_offsets") or kafka.is_asking(host, "init") or kafka.reads_without_group(host)


def _snapshot_being_written(world: Deployment, host: str) -> bool:
    return world.hosts[host].is_up and world.hosts[host].disk.has_unsynced()


_SEES: Final[dict[str, Sees]] = {
    IN_TRANSACTION.name: _in_transaction,
    IN_COMMIT.name: _in_commit,
    ROWS_BEING_WRITTEN.name: _rows_being_written,
    ROWS_REFUSED.name: _rows_refused,
    BETWEEN_WRITE_AND_COMMIT.name: _between_write_and_commit,
    REQUESTS_OUTSTANDING.name: _requests_outstanding,
    DURING_REBALANCE.name: _during_rebalance,
    DURING_RECOVERY.name: _during_recovery,
    SNAPSHOT_BEING_WRITTEN.name: _snapshot_being_written,
}
