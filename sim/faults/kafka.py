"""Faults of Kafka: its brokers, partitions, groups and transactions (design section 8)."""

from typing import Final

from sim.deployment import Deployment
from sim.faults.aims import any_broker, any_group, any_topic, host_of, the_world
from sim.faults.kind import Kind, Undo
from sim.faults.moments import (
    AT_COMMIT,
    BETWEEN_WRITE_AND_COMMIT,
    DURING_REBALANCE,
    DURING_RECOVERY,
    IN_COMMIT,
    IN_TRANSACTION,
    MEMBERS_AT_WORK,
    TRANSACTIONAL,
)
from sim.faults.options import FaultOptions, Span
from sim.script import Strike

KAFKA: Final = Kind("Kafka")


@KAFKA.fault(
    FaultOptions(
        "lost-answers",
        "answers of brokers are lost after the write; the client times out or sees its connection break",
        "producer sends, transaction commits, offset commits",
        the_world,
        strikes_per_minute=Span(2, 8),
        duration_ms=Span(500, 5_000),
        strength=Span(10_000, 300_000),
        strength_meaning="ppm of answers",
        moments=(*AT_COMMIT, DURING_RECOVERY),
        aimed_duration_ms=Span(2, 50),
        aimed_strength=Span(500_000, 1_000_000),
    )
)
def _lost_answers(world: Deployment, strike: Strike) -> Undo:
    return world.kafka.faults.lose_answers(strike.strength)


@KAFKA.fault(
    FaultOptions(
        "broker-crash",
        "a broker dies and comes back; leaders and coordinators move",
        "every call to Kafka",
        any_broker,
        strikes_per_minute=Span(1, 6),
        duration_ms=Span(300, 8_000),
        moments=MEMBERS_AT_WORK,
    )
)
def _broker_crash(world: Deployment, strike: Strike) -> Undo:
    return world.kafka.faults.crash_broker(world.broker_id(strike.target))


@KAFKA.fault(
    FaultOptions(
        "leader-change",
        "the leader of a partition moves to another in-sync replica",
        "producer sends and fetches in flight",
        any_topic,
        strikes_per_minute=Span(4, 20),
        duration_ms=Span(0, 0),
        strength=Span(0, 7),
        strength_meaning="partition, modulo the topic's number of them",
        moments=(IN_TRANSACTION, IN_COMMIT, DURING_RECOVERY),
    )
)
def _leader_change(world: Deployment, strike: Strike) -> None:
    world.kafka.faults.move_leader(strike.target, world.partition_of(strike.target, strike.strength))


@KAFKA.fault(
    FaultOptions(
        "no-leader",
        "a partition has no leader for longer than a request waits",
        "producer sends until their delivery time-out",
        any_topic,
        strikes_per_minute=Span(1, 3),
        duration_ms=Span(2_000, 15_000),
        strength=Span(0, 7),
        strength_meaning="partition, modulo the topic's number of them",
        moments=(IN_TRANSACTION, IN_COMMIT, DURING_RECOVERY),
    )
)
def _no_leader(world: Deployment, strike: Strike) -> Undo:
    return world.kafka.faults.no_leader(strike.target, world.partition_of(strike.target, strike.strength))


@KAFKA.fault(
    FaultOptions(
        "rebalance",
        "a group rebalances in the middle of whatever it is doing",
        "partition ownership; offset commits of the generation before",
        any_group,
        strikes_per_minute=Span(2, 12),
        duration_ms=Span(0, 0),
        moments=MEMBERS_AT_WORK,
    )
)
def _rebalance(world: Deployment, strike: Strike) -> None:
    world.kafka.faults.rebalance(strike.target)


@KAFKA.fault(
    FaultOptions(
        "member-eviction",
        "a member is thrown out of its group while it is still at work: a zombie",
        "transactions and writes of the old owner",
        any_group,
        strikes_per_minute=Span(1, 6),
        duration_ms=Span(0, 0),
        moments=MEMBERS_AT_WORK,
    )
)
def _member_eviction(world: Deployment, strike: Strike) -> None:
    world.kafka.faults.evict(strike.target)


@KAFKA.fault(
    FaultOptions(
        "commit-refused",
        "offset commits are refused for a while, those in transactions too; the clients repeat them",
        "settlement's commit after its rows; send_offsets_to_transaction",
        the_world,
        strikes_per_minute=Span(2, 8),
        duration_ms=Span(500, 5_000),
        strength=Span(50_000, 600_000),
        strength_meaning="ppm of commits",
        moments=(IN_TRANSACTION, BETWEEN_WRITE_AND_COMMIT),
        aimed_duration_ms=Span(2, 200),
        aimed_strength=Span(700_000, 1_000_000),
    )
)
def _commit_refused(world: Deployment, strike: Strike) -> Undo:
    return world.kafka.faults.lose_commits(strike.strength, strike.target)


@KAFKA.fault(
    FaultOptions(
        "redelivery",
        "a group cannot commit, and then its members are evicted and its waiting transactions timed out: "
        "its records come again",
        "settlement's replay of rows; the resume point of the transactional services",
        any_group,
        strikes_per_minute=Span(2, 6),
        duration_ms=Span(300, 2_500),
        strength=Span(300_000, 1_000_000),
        strength_meaning="ppm of commits refused before the eviction",
        moments=(IN_TRANSACTION, BETWEEN_WRITE_AND_COMMIT),
    )
)
def _redelivery(world: Deployment, strike: Strike) -> Undo:
    commit_again = world.kafka.faults.lose_commits(strike.strength, strike.target)

    def give_up() -> None:
        world.kafka.faults.give_up_uncommitted(strike.target)
        commit_again()

    return give_up


@KAFKA.fault(
    FaultOptions(
        "coordinator-change",
        "another broker becomes the coordinator of a group and of the transactions of its service",
        "commit_transaction, send_offsets_to_transaction, offset commits, heartbeats",
        any_group,
        strikes_per_minute=Span(2, 10),
        duration_ms=Span(0, 0),
        moments=(IN_TRANSACTION, *AT_COMMIT, DURING_REBALANCE, DURING_RECOVERY),
    )
)
def _coordinator_change(world: Deployment, strike: Strike) -> None:
    world.kafka.faults.move_group_coordinator(strike.target)
    for transactional_id in world.transactional_ids(strike.target):
        world.kafka.faults.move_transaction_coordinator(transactional_id)


@KAFKA.fault(
    FaultOptions(
        "transaction-timeout",
        "an open transaction is ended by its time-out and its producer fenced",
        "sends and commits of a transaction that took too long",
        host_of(*TRANSACTIONAL),
        strikes_per_minute=Span(2, 8),
        duration_ms=Span(0, 0),
        moments=(IN_TRANSACTION,),
    )
)
def _transaction_timeout(world: Deployment, strike: Strike) -> None:
    kafka = world.kafka
    for transactional_id in world.transactional_ids(world.hosts[strike.target].service):
        is_its_own = kafka.transactions.owner(transactional_id) == strike.target
        if is_its_own and kafka.faults.time_out_transaction(transactional_id):
            return


@KAFKA.fault(
    FaultOptions(
        "stalled-markers",
        "transactions are committed, but their markers are written late",
        "reading one's own output to its end when a partition is taken over",
        the_world,
        strikes_per_minute=Span(1, 6),
        duration_ms=Span(100, 3_000),
        moments=(IN_COMMIT, DURING_RECOVERY),
    )
)
def _stalled_markers(world: Deployment, _strike: Strike) -> Undo:
    return world.kafka.faults.stall_markers()
