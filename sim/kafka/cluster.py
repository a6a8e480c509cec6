"""The simulated Kafka cluster: brokers, topics, who leads and who coordinates (design 1.3, 5).

Brokers are plain callbacks on the run's clock. A controller that never fails sees a broker die, waits for its session
to time out and then elects leaders and moves coordinators. Metadata that a broker hands out is current; what a client
remembers of it may be stale.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from aiokafka.errors import (
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    KafkaError,
    NotCoordinatorError,
)
from aiokafka.structs import TopicPartition

from sim.kafka.broker import BrokerRequests
from sim.kafka.config import KafkaConfig
from sim.kafka.faults import KafkaFaults
from sim.kafka.groups import GroupCoordinators
from sim.kafka.log import COMMITTED, DATA
from sim.kafka.partition import Partition
from sim.kafka.transactions import TransactionCoordinators
from sim.network import LATENCY_BITS
from sim.overlap import Overlap

if TYPE_CHECKING:
    from sim.clock import Clock
    from sim.kafka.transport import Call, Transport
    from sim.log import Recorder
    from sim.network import Network
    from sim.randomness import Randomness

_MS = 1_000_000
_LATENCY_MASK = (1 << LATENCY_BITS) - 1
_REPLICA_TEND_NS = 100_000_000
"""How often the followers that replication does not reach are looked after."""

CommittedRecord = tuple[int, int, int, int, int, bytes | None, bytes | None]
"""partition, offset, appended_at_ns, timestamp_ms, producer_id, key, value."""


class _Seat:
    """Which broker coordinates a group or transactional id, and from when on it has loaded what it must know."""

    __slots__ = ("broker", "ready_ns")

    def __init__(self, broker: int | None) -> None:
        self.broker = broker
        self.ready_ns = 0


class KafkaCluster:
    """All brokers with their topics, groups and transactions. `struck` counts what faults have really hit."""

    def __init__(
        self,
        clock: Clock,
        network: Network,
        randomness: Randomness,
        recorder: Recorder,
        config: KafkaConfig | None = None,
    ) -> None:
        self.clock = clock
        self.network = network
        self.randomness = randomness
        self.recorder = recorder
        self.config = config or KafkaConfig()
        self.struck: Counter[str] = Counter()
        self.broker_ids = list(range(1, len(self.config.brokers) + 1))
        self.broker_names = dict(zip(self.broker_ids, self.config.brokers, strict=True))
        self.lives = dict.fromkeys(self.broker_ids, 1)
        self.partitions: dict[TopicPartition, Partition] = {}
        self.client_stream = randomness.stream("kafka/clients")
        self.faults = KafkaFaults(self)
        self.requests = BrokerRequests(self)
        self.transactions = TransactionCoordinators(self)
        self.groups = GroupCoordinators(self)
        self._up = dict.fromkeys(self.broker_ids, True)
        self._partition_counts: dict[str, int] = {}
        self._seats: dict[tuple[str, str], _Seat] = {}
        self._transports: dict[str, dict[int, Transport]] = {}  # by host, then by number
        self._transport_count = 0
        self._client_count = 0
        self._lagging: dict[TopicPartition, Partition] = {}
        self._tending = False
        self._leaderless: dict[TopicPartition, Overlap] = {}
        self._held: set[TopicPartition] = set()
        self._stream = randomness.stream("kafka/coordinators")
        # By broker: the latencies to the others; found again when a link or a broker's life changes.
        self._storing_tables_ns: dict[int, list[tuple[int, ...]]] = {}
        self._storing_version = -1
        self._storing_bits = LATENCY_BITS * len(self.broker_ids)

    # -- topics

    def create_topic(
        self,
        name: str,
        partitions: int,
        *,
        replication_factor: int | None = None,
        max_message_bytes: int | None = None,
    ) -> None:
        """Create a topic; leaders are spread over the brokers. Not given: as in the configuration.

        ValueError if it exists.
        """
        if name in self._partition_counts:
            raise ValueError(f"topic {name} exists already")
        brokers = self.broker_ids
        first = len(self.partitions)
        self._partition_counts[name] = partitions
        replica_count = replication_factor or self.config.replication_factor
        limit_bytes = max_message_bytes or self.config.message_max_bytes
        for number in range(partitions):
            replicas = [brokers[(first + number + i) % len(brokers)] for i in range(replica_count)]
            tp = TopicPartition(name, number)
            partition = self.partitions[tp] = Partition(tp, replicas, self.broker_names, limit_bytes)
            for replica in replicas:
                if not self._up[replica]:
                    partition.follower_died(replica, self.clock.now)
                    self.watch(partition)
            if not self._up[replicas[0]]:
                partition.leader = None
                self._elect(partition)

    def partitions_of(self, topic: str) -> list[TopicPartition]:
        """The partitions of a topic; none when there is no such topic."""
        return [TopicPartition(topic, number) for number in range(self._partition_counts.get(topic, 0))]

    @property
    def topics(self) -> dict[str, int]:
        """The topics and how many partitions each has."""
        return dict(self._partition_counts)

    def committed_log(self, topic: str) -> Iterator[CommittedRecord]:
        """What a read-committed reader finds in a topic, partition by partition, in order of offset."""
        for tp in self.partitions_of(topic):
            log = self.partitions[tp].log
            for batch in log.committed_batches():
                offset = batch.base_offset
                for timestamp_ms, key, value, _ in batch.rows():
                    if offset >= log.start_offset:
                        yield tp.partition, offset, batch.appended_ns, timestamp_ms, batch.producer_id, key, value
                    offset += 1

    # -- what the clients of a host are about

    def is_asking(self, host: str, request: str) -> bool:
        """Whether a client on that host has a request of that name (its handler's) outstanding."""
        return any(each.is_asking(request) and each.incarnation.alive for each in self._transports_of(host))

    def reads_without_group(self, host: str) -> bool:
        """Whether a consumer of no group is open on that host."""
        return any(each.is_of_no_group and each.incarnation.alive for each in self._transports_of(host))

    def release(self) -> None:
        """Let go of all records, when the run is over: the frames of dead hosts keep the cluster itself for ever."""
        self.partitions.clear()

    # -- is the system at rest

    def is_quiet(self) -> bool:
        """Whether no transaction is open, no request in flight, no group rebalancing, and no group has a record that is
        not committed as consumed (a record: markers and aborted records do not count)."""
        return not self.unrest()

    def unrest(self) -> str:
        """Why the cluster is not at rest, in words; empty when it is."""
        if self.transactions.any_open:
            return "a transaction is open"
        for partition in self.partitions.values():
            log = partition.log
            if partition.leader is None or log.high_watermark < log.end_offset:
                return f"{partition.tp.topic}-{partition.tp.partition} is not replicated"
        if self.groups.any_rebalancing:
            return "a group is rebalancing, or has offsets pending"
        for name, tp, committed in self.groups.committed_offsets():
            if self._has_record_from(tp, committed):
                return f"group {name} has not consumed all of {tp.topic}-{tp.partition}"
        for transport in self._all_transports():
            if transport.incarnation.alive and not transport.is_idle:
                return f"a client on {transport.host} has a request in flight"
        return ""

    def _has_record_from(self, tp: TopicPartition, offset: int) -> bool:
        log = self.partitions[tp].log
        for batch in reversed(log.batches):
            if batch.last_offset < max(offset, log.start_offset):
                return False
            if batch.control == DATA and batch.outcome == COMMITTED:
                return True
        return False

    # -- brokers

    def is_up(self, broker: int) -> bool:
        """Whether the broker's process lives."""
        return self._up[broker]

    def serve(self, life: int, call: Call, handler: Callable[..., object], args: tuple[object, ...]) -> None:
        """A request has arrived at a broker, unless that has died since it was sent."""
        if self._up[call.broker] and self.lives[call.broker] == life:
            handler(call, *args)

    def crash_broker(self, broker: int) -> None:
        """The broker's process dies: its connections break, what it led has no leader."""
        if not self._up[broker]:
            return
        now = self.clock.now
        self._up[broker] = False
        self._storing_tables_ns.clear()
        self.lives[broker] += 1
        for partition in self.partitions.values():
            if partition.leader == broker:
                partition.lose_leader(now)
                partition.ack_waiters.clear()
                partition.fetch_waiters.clear()
                self.watch(partition)
            elif broker in partition.replicas:
                partition.follower_died(broker, now)
                self.watch(partition)
        for transport in self._all_transports():
            transport.broker_died(broker)
        self.clock.after(self.config.broker_session_timeout_ms * _MS, self._controller_acts, broker)

    def return_broker(self, broker: int) -> None:
        """The broker is back, with the disk it had."""
        if self._up[broker]:
            return
        self._up[broker] = True
        self._storing_tables_ns.clear()
        for partition in self.partitions.values():
            if partition.leader is None and broker in partition.replicas:
                self.clock.after(self.config.election_ns, self._elect, partition)
        for (kind, key), seat in self._seats.items():
            if seat.broker is None or not self._up[seat.broker]:
                self._seat(kind, key, seat, broker)

    def _controller_acts(self, broker: int) -> None:
        """The session of a broker has timed out: elect leaders and move coordinators. It may be back by now."""
        for partition in self.partitions.values():
            if partition.leader is None:
                self.clock.after(self.config.election_ns, self._elect, partition)
            elif not self._up[broker] and broker in partition.in_sync and partition.leader != broker:
                partition.in_sync.remove(broker)
                self._move_watermark(partition)
        if self._up[broker]:
            return
        for (kind, key), seat in self._seats.items():
            if seat.broker == broker:
                self._seat(kind, key, seat, self._next_up(broker))

    def _next_up(self, broker: int) -> int | None:
        count = len(self.broker_ids)
        for step in range(1, count + 1):
            candidate = (broker - 1 + step) % count + 1
            if self._up[candidate]:
                return candidate
        return None

    # -- leaders

    def _elect(self, partition: Partition) -> None:
        """Elect the first replica that is in sync and up; if unclean election is on, any that is up."""
        if partition.leader is not None or partition.tp in self._held:
            return
        candidates = [b for b in partition.replicas if b in partition.in_sync and self._up[b]]
        if candidates:
            self._install(partition, candidates[0])
        elif self.faults.unclean_election:
            others = [b for b in partition.replicas if self._up[b]]
            if others:
                acknowledged = partition.log.high_watermark
                self._install(partition, others[0])
                self.struck["unclean-election"] += partition.log.end_offset < acknowledged

    def _install(self, partition: Partition, leader: int) -> None:
        partition.elect(leader, self.is_up, self.clock.now)
        self.watch(partition)
        self._tend(reschedule=False)

    def move_leader(self, tp: TopicPartition) -> bool:
        """Hand a partition to another in-sync replica that is up; False when there is none."""
        partition = self.partitions[tp]
        others = [b for b in partition.in_sync if b != partition.leader and self._up[b]]
        if partition.leader is None or not others:
            return False
        leader = self.client_stream.choice(others)
        partition.lose_leader(self.clock.now)
        self.requests.release(partition)
        partition.elect(leader, self.is_up, self.clock.now)
        self.watch(partition)
        self._tend(reschedule=False)
        return True

    def elect_unclean(self, tp: TopicPartition, replica: int) -> int:
        """Make a replica the leader, in sync or not; how many offsets are lost that every replica in sync had.

        Nothing happens when its broker is down.
        """
        partition = self.partitions[tp]
        if not self._up[replica] or replica == partition.leader:
            return 0
        acknowledged = partition.log.high_watermark
        if partition.leader is not None:
            partition.lose_leader(self.clock.now)
            self.requests.release(partition)
        self._install(partition, replica)
        return max(0, acknowledged - partition.log.end_offset)

    def hold_leaderless(self, tp: TopicPartition) -> Callable[[], None]:
        """Take a partition's leader away, until what is returned is called; the last that ends elects a leader."""
        held = self._leaderless.get(tp)
        if held is None:
            held = self._leaderless[tp] = Overlap(partial(self._held_leaderless, self.partitions[tp]))
        return held.begin(1)

    def end_leaderless(self) -> None:
        """End every hold on a partition's leadership."""
        for held in self._leaderless.values():
            held.clear()

    def _held_leaderless(self, partition: Partition, is_held: int) -> None:
        if not is_held:
            self._held.discard(partition.tp)
            self._elect(partition)
            return
        self._held.add(partition.tp)
        if partition.leader is not None:
            partition.lose_leader(self.clock.now)
            self.requests.release(partition)
            self.watch(partition)

    # -- replication that does not run by itself

    def watch(self, partition: Partition) -> None:
        """Look after a partition with followers that replication does not reach."""
        self._lagging[partition.tp] = partition
        if not self._tending:
            self._tending = True
            self.clock.after(_REPLICA_TEND_NS, self._tend)

    def _tend(self, reschedule: bool = True) -> None:
        now = self.clock.now
        lag_ns = self.config.replica_lag_time_max_ms * _MS
        for tp, partition in list(self._lagging.items()):
            leader = partition.leader
            if leader is None:
                continue
            for follower in list(partition.behind):
                if self.faults.held_back.get(tp) == follower:
                    continue
                here, there = self.broker_names[leader], self.broker_names[follower]
                reachable = self._up[follower] and (
                    self.network.delay_ns(here, there) is not None and self.network.delay_ns(there, here) is not None
                )
                if reachable:
                    partition.caught_up(follower, now)
                elif follower in partition.in_sync and now - partition.behind_since_ns[follower] > lag_ns:
                    partition.in_sync.remove(follower)
                    self.struck["in-sync-shrunk"] += 1
            self._move_watermark(partition)
            if not partition.behind:
                del self._lagging[tp]
        if reschedule:
            self._tending = bool(self._lagging)
            if self._tending:
                self.clock.after(_REPLICA_TEND_NS, self._tend)

    def _move_watermark(self, partition: Partition) -> None:
        """Find out how far all in-sync replicas have got, now that one has left or caught up."""
        if partition.leader is None:
            return
        end, next_ns = partition.replicated_end(self.clock.now)
        self.requests.advance(partition, end)
        if next_ns is not None:
            self.clock.at(next_ns, self._move_watermark, partition)

    def storing_ns(self, broker: int) -> int:
        """How long a coordinator takes to have a decision replicated before it answers: there and back once."""
        if self._storing_version != self.network.version:
            self._storing_version = self.network.version
            self._storing_tables_ns.clear()
        tables_ns = self._storing_tables_ns.get(broker)
        if tables_ns is None:
            tables_ns = self._storing_tables_ns[broker] = self._clear_storing_tables_ns(broker)
        if not tables_ns:
            return self._disturbed_storing_ns(broker)
        # Four or more times a transaction: all latencies from one draw.
        drawn = self._stream.bits(self._storing_bits)
        slowest = 0
        for table_ns in tables_ns:
            there_ns = table_ns[drawn & _LATENCY_MASK]
            drawn >>= LATENCY_BITS
            if there_ns > slowest:
                slowest = there_ns
        return 2 * slowest

    def _clear_storing_tables_ns(self, broker: int) -> list[tuple[int, ...]]:
        """The equally likely latencies to each other broker that is up; none when a fault is on one of the links."""
        here = self.broker_names[broker]
        tables_ns: list[tuple[int, ...]] = []
        for other in self.broker_ids:
            if other != broker and self._up[other]:
                table_ns = self.network.clear_table_ns(here, self.broker_names[other])
                if table_ns is None:
                    return []
                tables_ns.append(table_ns)
        return tables_ns

    def _disturbed_storing_ns(self, broker: int) -> int:
        """`storing_ns` where a fault is on a link, or where there is no other broker."""
        here = self.broker_names[broker]
        slowest = 0
        for other in self.broker_ids:
            if other != broker and self._up[other]:
                there_ns = self.network.delay_ns(here, self.broker_names[other])
                if there_ns is not None and 2 * there_ns > slowest:
                    slowest = 2 * there_ns
        return slowest

    # -- coordinators

    def coordinator(self, kind: str, key: str) -> int | None:
        """The broker that coordinates a group or transactional id (`kind` "group" or "transaction").

        None while none does.
        """
        seat = self._seats.get((kind, key))
        if seat is None:
            broker = self.broker_ids[zlib.crc32(f"{kind}/{key}".encode()) % len(self.broker_ids)]
            seat = self._seats[kind, key] = _Seat(broker if self._up[broker] else self._next_up(broker))
        if seat.broker is None or not self._up[seat.broker]:
            return None
        return seat.broker

    def not_coordinator(self, kind: str, key: str, broker: int) -> KafkaError | None:
        """Why that broker cannot answer for a group or transactional id, None if it can."""
        seat = self._seats.get((kind, key))
        if seat is None:
            self.coordinator(kind, key)
            seat = self._seats[kind, key]
        if seat.broker != broker or not self._up[broker]:
            return NotCoordinatorError()
        if seat.ready_ns > self.clock._now:
            return CoordinatorLoadInProgressError()
        return None

    def move_coordinator(self, kind: str, key: str) -> None:
        """Make another broker the coordinator."""
        current = self.coordinator(kind, key)
        if current is not None:
            self._seat(kind, key, self._seats[kind, key], self._next_up(current))

    def _seat(self, kind: str, key: str, seat: _Seat, broker: int | None) -> None:
        if kind == "group":
            self.groups.coordinator_moved(key)
        seat.broker = broker
        seat.ready_ns = self.clock.now + self.config.coordinator_load_ns

    def find_coordinator(self, call: Call, kind: str, key: str) -> None:
        """FindCoordinator."""
        broker = self.coordinator(kind, key)
        if broker is None:
            call.refuse(CoordinatorNotAvailableError())
        else:
            call.answer(broker)

    def describe(self, call: Call) -> None:
        """Metadata: how many partitions each topic has, the leader of each, the brokers that are up."""
        leaders = {tp: partition.leader for tp, partition in self.partitions.items()}
        call.answer((dict(self._partition_counts), leaders, [b for b in self.broker_ids if self._up[b]]))

    # -- clients

    def register(self, transport: Transport) -> None:
        """A client has come up."""
        transports = self._transports.setdefault(transport.host, {})
        for number, known in list(transports.items()):
            if not known.incarnation.alive:
                del transports[number]
        self._transport_count += 1
        transport.number = self._transport_count
        transports[transport.number] = transport

    def unregister(self, transport: Transport) -> None:
        """A client has closed."""
        self._transports[transport.host].pop(transport.number, None)

    def _transports_of(self, host: str) -> Iterable[Transport]:
        return self._transports.get(host, {}).values()

    def _all_transports(self) -> list[Transport]:
        """In the order in which they came up."""
        every = [each for transports in self._transports.values() for each in transports.values()]
        return sorted(every, key=lambda each: each.number)

    def next_client_number(self) -> int:
        """A number for the name of a client that was given none."""
        self._client_count += 1
        return self._client_count

    def is_reachable(self, transport: Transport, broker: int) -> bool:
        """Whether a client's process is running and its messages to the broker, and back, would get through."""
        incarnation = transport.incarnation
        if not incarnation.alive or incarnation.paused or transport.is_closed:
            return False
        name = self.broker_names[broker]
        network = self.network
        if network.is_clear(transport.host, name) and network.is_clear(name, transport.host):
            return True
        # A link that is slow or loses some messages still lets heartbeats through; one that is cut does not.
        return network.delay_ns(transport.host, name) is not None and network.delay_ns(name, transport.host) is not None
