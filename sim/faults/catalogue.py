"""Every fault, with its options and what it does to the world (design section 8).

A fault begins and ends; what it does in between, it does to the simulated network, brokers, replicas, clocks, disks and
hosts, never to the services. A fault that names no production statement that it could hit does not belong here.
"""

from collections.abc import Callable
from typing import Final

from schema.topics import BALANCE_EVENTS, ENGINE_OUTPUTS, FUND_UPDATES, ORDER_REQUESTS, VALIDATED_ORDERS
from sim.deployment import GATEWAY, SETTLEMENT, Deployment
from sim.faults.plan import FaultOptions, Layout, Span
from sim.kafka.faults import FLIPPED, GARBAGE
from sim.randomness import Stream
from sim.scenario import MILLISECOND_NS
from sim.script import Strike

Undo = Callable[[], None]
"""Ends a strike; called once, after its duration or when everything is healed."""
Begin = Callable[[Deployment, Strike], Undo | None]

OPTIONS: Final[dict[str, FaultOptions]] = {}
BEGIN: Final[dict[str, Begin]] = {}

TRANSACTIONAL_SERVICES: Final = ("ubscore", "matching")


def _fault(options: FaultOptions) -> Callable[[Begin], Begin]:
    def register(begin: Begin) -> Begin:
        assert options.name not in OPTIONS, options.name
        OPTIONS[options.name] = options
        BEGIN[options.name] = begin
        return begin

    return register


# -- whom a fault aims at


def _any_host(stream: Stream, layout: Layout) -> str:
    return stream.choice(layout.hosts)


def _any_broker(stream: Stream, layout: Layout) -> str:
    return stream.choice(layout.brokers)


def _any_replica(stream: Stream, layout: Layout) -> str:
    return stream.choice(layout.replicas)


def _any_group(stream: Stream, layout: Layout) -> str:
    return stream.choice(layout.groups)


def _host_of(*services: str) -> Callable[[Stream, Layout], str]:
    def aim(stream: Stream, layout: Layout) -> str:
        return stream.choice(layout.services[stream.choice(services)])

    return aim


def _server_link(stream: Stream, layout: Layout) -> str:
    """One direction between a service and a server that it talks to, or between two servers of a cluster."""
    host = stream.choice(layout.hosts)
    is_cassandra = host.startswith(("settlement", "gateway")) and stream.below(2) == 0
    servers = layout.replicas if is_cassandra else layout.brokers
    server = stream.choice(servers)
    other = host if stream.below(4) else stream.choice([name for name in servers if name != server])
    return f"{other}->{server}" if stream.below(2) else f"{server}->{other}"


def _broker_link(stream: Stream, layout: Layout) -> str:
    host = stream.choice(layout.hosts)
    broker = stream.choice(layout.brokers)
    return f"{host}->{broker}" if stream.below(2) else f"{broker}->{host}"


def _the_world(_stream: Stream, _layout: Layout) -> str:
    return "*"


def _chained_topic(stream: Stream, _layout: Layout) -> str:
    return stream.choice((ENGINE_OUTPUTS, BALANCE_EVENTS))


def _any_topic(stream: Stream, _layout: Layout) -> str:
    return stream.choice((ORDER_REQUESTS, VALIDATED_ORDERS, ENGINE_OUTPUTS, FUND_UPDATES, BALANCE_EVENTS))


def _ends(target: str) -> tuple[str, str]:
    source, _, sink = target.partition("->")
    return source, sink


# -- when it hurts most


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


# -- links


@_fault(
    FaultOptions(
        "slow-link",
        "one direction of a link takes longer",
        "every call to Kafka or Cassandra",
        _server_link,
        strikes_per_minute=Span(6, 30),
        duration_ms=Span(200, 5_000),
        strength=Span(1, 400),
        strength_meaning="ms more, each message",
    )
)
def _slow_link(world: Deployment, strike: Strike) -> Undo:
    fault = world.network.slow(*_ends(strike.target), extra_ns=strike.strength * MILLISECOND_NS)
    return lambda: world.network.remove(fault)


@_fault(
    FaultOptions(
        "clogged-link",
        "messages of one direction are held back, then arrive together",
        "every call to Kafka or Cassandra",
        _server_link,
        strikes_per_minute=Span(3, 20),
        duration_ms=Span(50, 3_000),
    )
)
def _clogged_link(world: Deployment, strike: Strike) -> Undo:
    fault = world.network.clog(*_ends(strike.target), until_ns=world.clock.now + strike.duration_ns)
    return lambda: world.network.remove(fault)


@_fault(
    FaultOptions(
        "partition",
        "a service and a broker, or two servers, cannot reach each other, in one direction or both",
        "every call to Kafka or Cassandra; heartbeats; replication",
        _server_link,
        strikes_per_minute=Span(2, 8),
        duration_ms=Span(500, 9_000),
        strength=Span(0, 1),
        strength_meaning="1: both directions",
    )
)
def _partition(world: Deployment, strike: Strike) -> Undo:
    source, sink = _ends(strike.target)
    cuts = [world.network.cut(source, sink)]
    if strike.strength:
        cuts.append(world.network.cut(sink, source))

    def heal() -> None:
        for cut in cuts:
            world.network.remove(cut)

    return heal


# -- Kafka


@_fault(
    FaultOptions(
        "lost-answers",
        "answers of brokers are lost after the write; the client times out or sees its connection break",
        "producer sends, transaction commits, offset commits",
        _the_world,
        strikes_per_minute=Span(2, 8),
        duration_ms=Span(500, 5_000),
        strength=Span(10_000, 300_000),
        strength_meaning="ppm of answers",
    )
)
def _lost_answers(world: Deployment, strike: Strike) -> Undo:
    world.kafka.faults.lose_answers(strike.strength)
    return lambda: world.kafka.faults.lose_answers(0)


@_fault(
    FaultOptions(
        "broker-crash",
        "a broker dies and comes back; leaders and coordinators move",
        "every call to Kafka",
        _any_broker,
        strikes_per_minute=Span(1, 6),
        duration_ms=Span(300, 8_000),
        moment=IN_A_TRANSACTION,
    )
)
def _broker_crash(world: Deployment, strike: Strike) -> Undo:
    broker = world.broker_id(strike.target)
    world.kafka.faults.crash_broker(broker)
    return lambda: world.kafka.faults.return_broker(broker)


@_fault(
    FaultOptions(
        "leader-change",
        "the leader of a partition moves to another in-sync replica",
        "producer sends and fetches in flight",
        _any_topic,
        strikes_per_minute=Span(4, 20),
        duration_ms=Span(0, 0),
        strength=Span(0, 7),
        strength_meaning="partition, modulo the topic's number of them",
        moment=IN_A_TRANSACTION,
    )
)
def _leader_change(world: Deployment, strike: Strike) -> None:
    world.kafka.faults.move_leader(strike.target, world.partition_of(strike.target, strike.strength))


@_fault(
    FaultOptions(
        "no-leader",
        "a partition has no leader for longer than a request waits",
        "producer sends until their delivery time-out",
        _any_topic,
        strikes_per_minute=Span(1, 3),
        duration_ms=Span(2_000, 15_000),
        strength=Span(0, 7),
        strength_meaning="partition, modulo the topic's number of them",
    )
)
def _no_leader(world: Deployment, strike: Strike) -> None:
    partition = world.partition_of(strike.target, strike.strength)
    world.kafka.faults.no_leader(strike.target, partition, world.clock.now + strike.duration_ns)


@_fault(
    FaultOptions(
        "rebalance",
        "a group rebalances in the middle of whatever it is doing",
        "partition ownership; offset commits of the generation before",
        _any_group,
        strikes_per_minute=Span(2, 12),
        duration_ms=Span(0, 0),
        moment=AT_WORK,
    )
)
def _rebalance(world: Deployment, strike: Strike) -> None:
    world.kafka.faults.rebalance(strike.target)


@_fault(
    FaultOptions(
        "member-eviction",
        "a member is thrown out of its group while it is still at work: a zombie",
        "transactions and writes of the old owner",
        _any_group,
        strikes_per_minute=Span(1, 6),
        duration_ms=Span(0, 0),
        moment=AT_WORK,
    )
)
def _member_eviction(world: Deployment, strike: Strike) -> None:
    world.kafka.faults.evict(strike.target)


@_fault(
    FaultOptions(
        "commit-refused",
        "offset commits are refused, so records are delivered again after the next rebalance or restart",
        "settlement's commit after its rows; offsets in a transaction",
        _the_world,
        strikes_per_minute=Span(2, 8),
        duration_ms=Span(500, 5_000),
        strength=Span(50_000, 600_000),
        strength_meaning="ppm of commits",
    )
)
def _commit_refused(world: Deployment, strike: Strike) -> Undo:
    world.kafka.faults.lose_commits(strike.strength)
    return lambda: world.kafka.faults.lose_commits(0)


@_fault(
    FaultOptions(
        "redelivery",
        "a group that could not commit rebalances: its records come again",
        "settlement's replay of rows; the resume point of the transactional services",
        _any_group,
        strikes_per_minute=Span(2, 6),
        duration_ms=Span(300, 2_500),
        strength=Span(300_000, 1_000_000),
        strength_meaning="ppm of commits refused before the rebalance",
    )
)
def _redelivery(world: Deployment, strike: Strike) -> Undo:
    world.kafka.faults.lose_commits(strike.strength)

    def rebalance() -> None:
        world.kafka.faults.rebalance(strike.target)
        world.kafka.faults.lose_commits(0)

    return rebalance


@_fault(
    FaultOptions(
        "coordinator-change",
        "another broker becomes the coordinator of a group and of the transactions of its service",
        "commit_transaction, send_offsets_to_transaction, offset commits, heartbeats",
        _any_group,
        strikes_per_minute=Span(2, 10),
        duration_ms=Span(0, 0),
        moment=IN_A_TRANSACTION,
    )
)
def _coordinator_change(world: Deployment, strike: Strike) -> None:
    world.kafka.faults.move_group_coordinator(strike.target)
    for transactional_id in world.transactional_ids(strike.target):
        world.kafka.faults.move_transaction_coordinator(transactional_id)


@_fault(
    FaultOptions(
        "transaction-timeout",
        "an open transaction is ended by its time-out and its producer fenced",
        "sends and commits of a transaction that took too long",
        _host_of(*TRANSACTIONAL_SERVICES),
        strikes_per_minute=Span(2, 8),
        duration_ms=Span(0, 0),
        moment=IN_A_TRANSACTION,
    )
)
def _transaction_timeout(world: Deployment, strike: Strike) -> None:
    for transactional_id in world.transactional_ids(world.hosts[strike.target].service):
        if world.kafka.faults.time_out_transaction(transactional_id):
            return


@_fault(
    FaultOptions(
        "stalled-markers",
        "transactions are committed, but their markers are written late",
        "reading one's own output to its end when a partition is taken over",
        _the_world,
        strikes_per_minute=Span(1, 6),
        duration_ms=Span(100, 3_000),
    )
)
def _stalled_markers(world: Deployment, strike: Strike) -> None:
    world.kafka.faults.stall_markers(world.clock.now + strike.duration_ns)


# -- Cassandra


@_fault(
    FaultOptions(
        "replica-down",
        "a Cassandra node goes down and comes back, with hints kept for it or without",
        "every write and read at LOCAL_QUORUM",
        _any_replica,
        strikes_per_minute=Span(1, 6),
        duration_ms=Span(300, 10_000),
        strength=Span(0, 3),
        strength_meaning="0: no hints are kept; 2 or 3: the others notice it only after 2 s",
    )
)
def _replica_down(world: Deployment, strike: Strike) -> Undo:
    node = world.cassandra.node(strike.target)
    noticed_after_ns = 2_000 * MILLISECOND_NS if strike.strength >= 2 else 0
    world.cassandra.take_down(node, hints=strike.strength > 0, noticed_after_ns=noticed_after_ns)
    return lambda: world.cassandra.bring_up(node)


@_fault(
    FaultOptions(
        "slow-replica",
        "everything that a Cassandra node does takes longer",
        "every write and read",
        _any_replica,
        strikes_per_minute=Span(2, 10),
        duration_ms=Span(500, 8_000),
        strength=Span(5, 3_000),
        strength_meaning="ms more, each operation",
    )
)
def _slow_replica(world: Deployment, strike: Strike) -> Undo:
    node = world.cassandra.node(strike.target)
    world.cassandra.slow_down(node, strike.strength * MILLISECOND_NS)
    return lambda: world.cassandra.slow_down(node, 0)


@_fault(
    FaultOptions(
        "database-clock-skew",
        "a Cassandra node's wall clock is off",
        "the expiry of finished rows; any write timestamp that were left to the server",
        _any_replica,
        strikes_per_minute=Span(2, 6),
        duration_ms=Span(1_000, 15_000),
        strength=Span(-30_000, 30_000),
        strength_meaning="ms, forward or back",
    )
)
def _database_clock_skew(world: Deployment, strike: Strike) -> Undo:
    wall = world.cassandra.node(strike.target).wall
    wall.jump(strike.strength * MILLISECOND_NS)
    return wall.synchronise


def _operation_fault(name: str, armed: tuple[str, ...], meaning: str, hits: str) -> None:
    """A fault that strikes single Cassandra operations; `armed` are the outcomes that take turns."""

    @_fault(
        FaultOptions(
            name,
            meaning,
            hits,
            _the_world,
            strikes_per_minute=Span(2, 10),
            duration_ms=Span(200, 5_000),
            strength=Span(10_000, 400_000),
            strength_meaning="ppm of operations",
        )
    )
    def begin(world: Deployment, strike: Strike) -> Undo:
        faults = [world.cassandra.faults.arm(each, ppm=strike.strength // len(armed)) for each in armed]

        def disarm() -> None:
            for fault in faults:
                world.cassandra.faults.disarm(fault)

        return disarm


_operation_fault(
    "write-timeout",
    ("write_timeout_none", "write_timeout_some", "write_timeout_all"),
    "a write times out, applied on none, some or all of its replicas",
    "every write of settlement",
)
_operation_fault(
    "read-timeout", ("read_timeout",), "a read times out", "settlement's progress; every read of the gateway"
)
_operation_fault(
    "lost-database-answer",
    ("lose_answer",),
    "an operation is carried out and its answer lost, so the driver gives up after its own time-out",
    "every write of settlement; every read",
)
_operation_fault(
    "unavailable", ("unavailable",), "the coordinator finds too few replicas alive", "every write and read"
)
_operation_fault("overload", ("overload",), "the coordinator sheds load", "every write and read")


# -- hosts


@_fault(
    FaultOptions(
        "crash",
        "a host loses its power between two callbacks; unsynced writes are lost or torn; it comes back",
        "any await of any service",
        _any_host,
        strikes_per_minute=Span(3, 20),
        duration_ms=Span(50, 6_000),
        moment=AT_WORK,
    )
)
def _crash(world: Deployment, strike: Strike) -> Undo:
    world.take_down(strike.target, world.hosts[strike.target].crash)
    return lambda: world.bring_up(strike.target)


@_fault(
    FaultOptions(
        "crash-loop",
        "a host comes back and crashes again, several times, in the middle of its recovery",
        "taking a partition over; settlement's start",
        _any_host,
        strikes_per_minute=Span(1, 4),
        duration_ms=Span(2_000, 8_000),
        strength=Span(150, 900),
        strength_meaning="ms from each start to the next crash",
    )
)
def _crash_loop(world: Deployment, strike: Strike) -> Undo:
    host = world.hosts[strike.target]
    is_over = False

    def crash() -> None:
        if not is_over:
            world.take_down(strike.target, host.crash)
            world.bring_up(strike.target)
            world.clock.after(strike.strength * MILLISECOND_NS, crash)

    def end() -> None:
        nonlocal is_over
        is_over = True

    crash()
    return end


@_fault(
    FaultOptions(
        "stop-restart",
        "an instance is stopped by SIGTERM and started again later, so the others take its partitions",
        "the end of a running transaction or batch; joining and leaving",
        _any_host,
        strikes_per_minute=Span(2, 10),
        duration_ms=Span(100, 8_000),
        moment=AT_WORK,
    )
)
def _stop_restart(world: Deployment, strike: Strike) -> Undo:
    world.take_down(strike.target, world.hosts[strike.target].stop)
    return lambda: world.bring_up(strike.target)


@_fault(
    FaultOptions(
        "pause",
        "a host stands still while the world goes on, often for longer than its session time-out",
        "everything in flight: it wakes up as a zombie",
        _any_host,
        strikes_per_minute=Span(2, 10),
        duration_ms=Span(100, 14_000),
        moment=AT_WORK,
    )
)
def _pause(world: Deployment, strike: Strike) -> Undo:
    host = world.hosts[strike.target]
    paused = host.incarnation
    host.pause()

    def resume() -> None:
        if host.incarnation is paused:
            host.resume()

    return resume


@_fault(
    FaultOptions(
        "clock-jump",
        "a host's wall clock jumps and is set right later",
        "a request's own time; the time to live of a completing row",
        _any_host,
        strikes_per_minute=Span(2, 8),
        duration_ms=Span(500, 10_000),
        strength=Span(-600_000, 600_000),
        strength_meaning="ms, forward or back",
    )
)
def _clock_jump(world: Deployment, strike: Strike) -> Undo:
    wall = world.hosts[strike.target].wall
    wall.jump(strike.strength * MILLISECOND_NS)
    return wall.synchronise


@_fault(
    FaultOptions(
        "clock-drift",
        "a host's wall clock runs fast or slow",
        "a request's own time",
        _any_host,
        strikes_per_minute=Span(2, 6),
        duration_ms=Span(2_000, 20_000),
        strength=Span(-50_000, 50_000),
        strength_meaning="parts per million",
    )
)
def _clock_drift(world: Deployment, strike: Strike) -> Undo:
    wall = world.hosts[strike.target].wall
    wall.set_drift_ppb(strike.strength * 1_000)
    return wall.synchronise


@_fault(
    FaultOptions(
        "corrupt-snapshot",
        "a host crashes and its newest snapshot comes back altered",
        "reading a snapshot when a partition is taken over",
        _host_of(*TRANSACTIONAL_SERVICES),
        strikes_per_minute=Span(1, 4),
        duration_ms=Span(100, 4_000),
    )
)
def _corrupt_snapshot(world: Deployment, strike: Strike) -> Undo:
    host = world.hosts[strike.target]
    world.take_down(strike.target, host.crash)
    stream = world.randomness.stream(f"faults/corrupt-snapshot/{strike.target}/{strike.at_ns}")
    for name in reversed(host.disk.file_names()):
        if host.disk.corrupt(name, stream):
            break
    return lambda: world.bring_up(strike.target)


# -- what breaks a stated assumption: never in a swarm


@_fault(
    FaultOptions(
        "corrupt-record",
        "a record of a chained topic is altered before its checksum is made",
        "verification of what is read; processing stops there with an alarm",
        _chained_topic,
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


@_fault(
    FaultOptions(
        "lost-record",
        "a record of a chained topic is lost by every replica after it was acknowledged",
        "verification of sequences; processing stops at the gap with an alarm",
        _chained_topic,
        strikes_per_minute=Span(1, 3),
        duration_ms=Span(0, 0),
        strength=Span(0, 7),
        strength_meaning="partition, modulo the topic's number of them",
        breaks_assumption=True,
    )
)
def _lost_record(world: Deployment, strike: Strike) -> None:
    world.kafka.faults.lose_next(strike.target, world.partition_of(strike.target, strike.strength))
