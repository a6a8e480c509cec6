"""What a coordinator does with a request: who must answer, when that is, and what comes of it.

The outcome of an operation is decided when the client sends it, by drawing the latency of every message on its path;
then there is one event on the clock, the answer's arrival at the client (or the moment at which somebody gives up).
Messages that are lost simply do not take part. This is exact for faults as `sim.network` defines them: they act on
what is sent after they began. Data is not decided in advance: writes arrive at each replica at their own instant
(`Node.receive`), and a read looks at the replicas when its answer is due, so it sees whatever has arrived at those it
asked by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cassandra import ConsistencyLevel, WriteType

from sim.cassandra import errors
from sim.cassandra.catalog import Table
from sim.cassandra.errors import ServerRefusal, invalid
from sim.cassandra.holdings import NOT_SENT
from sim.cassandra.node import Node
from sim.cassandra.plans import SelectPlan, partition_keys
from sim.cassandra.reading import Cursor, Holders, read_page
from sim.cassandra.storage import Key, Mutation, token_of
from sim.network import LATENCY_BITS

if TYPE_CHECKING:
    from sim.cassandra.cluster import CassandraCluster
    from sim.cassandra.driver import Attempt

CATCH_UP_EVERY = 64
"""After so many writes the replicas apply what has arrived, so that what waits to be looked at stays short."""

_LOWEST = (1 << LATENCY_BITS) - 1

_QUORUMS = (ConsistencyLevel.QUORUM, ConsistencyLevel.LOCAL_QUORUM, ConsistencyLevel.EACH_QUORUM)
_SERIAL = (ConsistencyLevel.SERIAL, ConsistencyLevel.LOCAL_SERIAL)


def block_for(consistency: int, replication_factor: int) -> int:
    """How many replicas must answer. There is one datacenter, so the LOCAL levels equal their namesakes."""
    if consistency in _QUORUMS or consistency in _SERIAL:
        return replication_factor // 2 + 1
    if consistency == ConsistencyLevel.ALL:
        return replication_factor
    if consistency == ConsistencyLevel.TWO:
        return 2
    if consistency == ConsistencyLevel.THREE:
        return 3
    return 1


class Hint(NamedTuple):
    """A write kept for a replica that did not get it, by the node that coordinated it."""

    target: Node
    keeper: Node
    mutation: Mutation


class _Path(NamedTuple):
    """The way to a replica, by its place among the nodes, and back.

    Equally likely cases: after how long a write has arrived there and been applied, and after how long the
    acknowledgement of the same write is back.
    """

    place: int
    arrives_ns: tuple[int, ...]
    acknowledged_ns: tuple[int, ...]
    replica: Node


class Coordinator:
    """The coordinating side of every node; they share nothing but code, so one object serves all."""

    def __init__(self, cluster: CassandraCluster) -> None:
        self._cluster = cluster
        self._clock = cluster.clock
        self._delay_ns = cluster.network.delay_ns
        self._bits = cluster.randomness.stream("cassandra/service-time").bits
        self._service_ns = cluster.service_time.table_ns
        self._rotation = 0
        self._writes = 0
        self._required: dict[tuple[int, int], int] = {}
        self._network = cluster.network
        shuffles = cluster.randomness.stream("cassandra/paths")
        self._shuffles = [shuffles.shuffled(range(1 << LATENCY_BITS)) for _ in range(2)]
        # For each coordinator the latency tables to and from its peers, while no fault is on any link among them.
        self._clear_paths: dict[Node, list[_Path] | None] = {}
        self._paths_version = -1

    def required(self, consistency: int, factor: int) -> int:
        """`block_for`, remembered."""
        key = (consistency, factor)
        found = self._required.get(key)
        if found is None:
            found = self._required[key] = block_for(consistency, factor)
        return found

    # ---- writes

    def write_one(self, attempt: Attempt, request_ns: int, node: Node, mutation: Mutation, consistency: int) -> None:
        """A write to one partition. `request_ns` is how long the request takes to the coordinator."""
        cluster = self._cluster
        table = mutation.parts[0][0]
        factor = table.replication_factor
        nodes = cluster.nodes
        is_everywhere = factor >= len(nodes)
        replicas = nodes if is_everywhere else cluster.replicas(table, mutation.partition)
        required = self._required.get((consistency, factor)) or self.required(consistency, factor)
        at_coordinator = self._clock._now + request_ns + node.extra_ns
        if cluster.nodes_away or cluster.faults.armed or required > factor:
            if self._refused(attempt, node, replicas, required, consistency, at_coordinator):
                return
            applied = cluster.faults.strike_write()
            if applied is not None:
                self._time_out_on_purpose(attempt, node, replicas, mutation, consistency, at_coordinator, applied)
                return
        self._writes += 1
        if self._writes % CATCH_UP_EVERY == 0:
            cluster.holdings.catch_up(self._clock._now)
        paths = self._paths_of(node) if is_everywhere and not cluster.nodes_down else None
        if paths is not None:
            acks = self._replicate_undisturbed(paths, mutation, at_coordinator)
        else:
            acks = self.replicate(node, replicas, mutation, at_coordinator)
        if not acks and consistency == ConsistencyLevel.ANY:
            attempt.answer(node, at_coordinator, None, 0)  # a hint is enough
            return
        if len(acks) >= required:
            acks.sort()
            done = acks[required - 1]
            if done - at_coordinator <= cluster.write_timeout_ns:
                attempt.succeed(node, done, required)
                return
        deadline = at_coordinator + cluster.write_timeout_ns
        received = sum(1 for ack in acks if ack <= deadline)
        error = errors.write_timeout(consistency, received, required, WriteType.SIMPLE)
        attempt.answer(node, deadline, error, received)

    def replicate(self, node: Node, replicas: Sequence[Node], mutation: Mutation, start_ns: int) -> list[int]:
        """Send a write to its replicas from the coordinator; the instants at which acknowledgements are back."""
        paths = self._paths_of(node)
        if paths is not None and len(replicas) == len(paths) and not self._cluster.nodes_down:
            return self._replicate_undisturbed(paths, mutation, start_ns)
        acks = []
        arrivals: list[tuple[Node, int]] = []
        name = node.name
        delay_ns = self._delay_ns
        bits = self._bits
        service_ns = self._service_ns
        for replica in replicas:
            if replica is node:
                arrival = start_ns + service_ns[bits(10)]
                acks.append(arrival)
            else:
                there_ns = delay_ns(name, replica.name)
                if not replica.is_up or there_ns is None:
                    self._cluster.keep_hint(replica, node, mutation)
                    continue
                arrival = start_ns + there_ns + service_ns[bits(10)]
                if replica.extra_ns:
                    arrival += replica.extra_ns
                    self._cluster.faults.count("node_slow")
                back_ns = delay_ns(replica.name, name)
                if back_ns is None:
                    self._cluster.keep_hint(replica, node, mutation)
                else:
                    acks.append(arrival + back_ns)
            arrivals.append((replica, arrival))
        self._send(replicas, arrivals, mutation)
        return acks

    def _send(self, replicas: Sequence[Node], arrivals: list[tuple[Node, int]], mutation: Mutation) -> None:
        """A write is on its way to these, of all the replicas of its partition."""
        holdings = self._cluster.holdings
        if len(arrivals) < len(replicas):
            for replica, arrival in arrivals:
                holdings.send(replica.index, arrival, mutation)
            return
        by_index = [NOT_SENT] * len(self._cluster.nodes)
        for replica, arrival in arrivals:
            by_index[replica.index] = arrival
        holdings.send_to_all(by_index, max(arrival for _, arrival in arrivals), mutation)

    def _paths_of(self, node: Node) -> list[_Path] | None:
        """The ways from a coordinator to every node, itself first; None while a fault is on one of the links."""
        version = self._network.version
        if version != self._paths_version:
            self._clear_paths.clear()
            self._paths_version = version
        if node not in self._clear_paths:
            self._clear_paths[node] = self._find_paths(node)
        return self._clear_paths[node]

    def _find_paths(self, node: Node) -> list[_Path] | None:
        own = (0,) * (1 << LATENCY_BITS)
        paths = [self._path(node, own, own)]
        for peer in self._cluster.nodes:
            if peer is not node:
                there_ns = self._network.clear_table_ns(node.name, peer.name)
                back_ns = self._network.clear_table_ns(peer.name, node.name)
                if there_ns is None or back_ns is None:
                    return None
                paths.append(self._path(peer, there_ns, back_ns))
        return paths

    def _path(self, replica: Node, there_ns: tuple[int, ...], back_ns: tuple[int, ...]) -> _Path:
        """Every latency of the way there meets one of the service and one of the way back, in a fixed random order."""
        service = self._shuffles[0]
        back = self._shuffles[1]
        arrives = tuple([way + self._service_ns[of] for way, of in zip(there_ns, service, strict=True)])
        acknowledged = tuple([at + back_ns[of] for at, of in zip(arrives, back, strict=True)])
        return _Path(replica.index, arrives, acknowledged, replica)

    def _replicate_undisturbed(self, paths: list[_Path], mutation: Mutation, start_ns: int) -> list[int]:
        """`replicate` where every node is up and no link has a fault, written out for every write of a quiet cluster.

        One draw gives all latencies of it.
        """
        count = len(paths)
        acks = [0] * count
        arrivals = [0] * count
        last = 0
        drawn = self._bits(LATENCY_BITS * count)
        for place, arrives_ns, acknowledged_ns, replica in paths:
            case = drawn & _LOWEST
            drawn >>= LATENCY_BITS
            start = start_ns
            if replica.extra_ns and replica is not paths[0].replica:
                start += replica.extra_ns
                self._cluster.faults.count("node_slow")
            acks[place] = start + acknowledged_ns[case]
            arrivals[place] = arrival = start + arrives_ns[case]
            if arrival > last:
                last = arrival
        self._cluster.holdings.send_to_all(arrivals, last, mutation)
        return acks

    def write_batch(
        self,
        attempt: Attempt,
        request_ns: int,
        node: Node,
        mutations: list[Mutation],
        consistency: int,
        *,
        logged: bool,
    ) -> None:
        """A batch over several partitions. A logged one is first written to the batchlog of up to two other nodes."""
        cluster = self._cluster
        at_coordinator = self._clock._now + request_ns + node.extra_ns
        write_type = WriteType.BATCH if logged else WriteType.UNLOGGED_BATCH
        for mutation in mutations:
            replicas = cluster.replicas(mutation.parts[0][0], mutation.partition)
            required = self.required(consistency, len(replicas))
            away = cluster.is_troubled or required > len(replicas)
            if away and self._refused(attempt, node, replicas, required, consistency, at_coordinator):
                return
        start = at_coordinator
        if logged:
            log_done = self._write_batchlog(node, at_coordinator)
            if log_done is None:
                error = errors.write_timeout(ConsistencyLevel.ONE, 0, 1, WriteType.BATCH_LOG)
                attempt.answer(node, at_coordinator + cluster.write_timeout_ns, error, 0)
                return
            start = log_done
        applied = cluster.faults.strike_write() if cluster.is_troubled else None
        deadline = start + cluster.write_timeout_ns
        latest, fewest, timed_out = start, len(cluster.nodes), False
        required = 1
        for mutation in mutations:
            replicas = cluster.replicas(mutation.parts[0][0], mutation.partition)
            required = self.required(consistency, len(replicas))
            if applied is not None:
                received = self._apply_on_purpose(node, replicas, mutation, start, applied, required)
                fewest, timed_out = min(fewest, received), True
                continue
            acks = sorted(self.replicate(node, replicas, mutation, start))
            if consistency == ConsistencyLevel.ANY and not acks:
                acks = [start]
            if len(acks) >= required and acks[required - 1] <= deadline:
                latest = max(latest, acks[required - 1])
                fewest = min(fewest, required)
            else:
                fewest = min(fewest, sum(1 for ack in acks if ack <= deadline))
                timed_out = True
        if not timed_out:
            attempt.answer(node, latest, None, fewest)
            return
        if logged:
            # The batchlog is replayed by the nodes that keep it: in the end every part of the batch is everywhere.
            self._clock.at(deadline + cluster.write_timeout_ns, self._replay_batch, node, mutations)
            cluster.batches_to_replay += 1
        attempt.answer(node, deadline, errors.write_timeout(consistency, fewest, required, write_type), fewest)

    def _write_batchlog(self, node: Node, start_ns: int) -> int | None:
        """When one of up to two other nodes has the batchlog; None when none gets it in time."""
        others = [other for other in self._cluster.nodes if other is not node and other.is_known_up][:2]
        if not others:
            return start_ns + self._service_ns[self._bits(10)]
        acks = []
        for other in others:
            there = self._delay_ns(node.name, other.name)
            back = self._delay_ns(other.name, node.name)
            if there is not None and back is not None and other.is_up:
                acks.append(start_ns + there + self._service_ns[self._bits(10)] + other.extra_ns + back)
        done = min(acks, default=None)
        return None if done is None or done - start_ns > self._cluster.write_timeout_ns else done

    def _replay_batch(self, node: Node, mutations: list[Mutation]) -> None:
        self._cluster.batches_to_replay -= 1
        for mutation in mutations:
            replicas = self._cluster.replicas(mutation.parts[0][0], mutation.partition)
            self.replicate(node, replicas, mutation, self._clock._now)

    def _refused(
        self, attempt: Attempt, node: Node, replicas: Sequence[Node], required: int, consistency: int, now_ns: int
    ) -> bool:
        """Whether the coordinator refuses at once: too few replicas believed to be up, or a fault says so."""
        faults = self._cluster.faults
        if faults.strike("overload"):
            attempt.answer(node, now_ns, errors.overloaded(), 0)
            return True
        alive = sum(1 for replica in replicas if replica.is_known_up)
        if faults.strike("unavailable"):
            alive = max(0, required - 1)
            attempt.answer(node, now_ns, errors.unavailable(consistency, required, alive), 0)
            return True
        if alive < required and consistency != ConsistencyLevel.ANY:
            faults.count("node_down")
            attempt.answer(node, now_ns, errors.unavailable(consistency, required, alive), 0)
            return True
        return False

    def _time_out_on_purpose(
        self,
        attempt: Attempt,
        node: Node,
        replicas: Sequence[Node],
        mutation: Mutation,
        consistency: int,
        start_ns: int,
        applied: str,
    ) -> None:
        required = self.required(consistency, len(replicas))
        received = self._apply_on_purpose(node, replicas, mutation, start_ns, applied, required)
        error = errors.write_timeout(consistency, received, required, WriteType.SIMPLE)
        attempt.answer(node, start_ns + self._cluster.write_timeout_ns, error, received)

    def _apply_on_purpose(
        self,
        node: Node,
        replicas: Sequence[Node],
        mutation: Mutation,
        start_ns: int,
        applied: str,
        required: int,
    ) -> int:
        """Apply on none, some (too few for the level) or all replicas; how many acknowledgements came back."""
        up = [replica for replica in replicas if replica.is_up]
        if applied == "none":
            chosen, received = [], 0
        elif applied == "some":
            chosen = self._cluster.faults.stream.shuffled(up)[: max(1, min(required - 1, len(up)))]
            received = min(len(chosen), required - 1)
        else:
            chosen, received = up, required - 1  # written everywhere, and too few acknowledgements got back
        arrivals = []
        for replica in chosen:
            there = 0 if replica is node else self._delay_ns(node.name, replica.name)
            if there is not None:
                arrivals.append((replica, start_ns + there + self._service_ns[self._bits(10)]))
        self._send(replicas, arrivals, mutation)
        return received

    # ---- reads

    def read(
        self,
        attempt: Attempt,
        request_ns: int,
        node: Node,
        plan: SelectPlan,
        full: tuple[Any, ...],
        consistency: int,
        page_size: int | None,
        cursor: Cursor | None,
    ) -> None:
        """A SELECT: ask as many replicas as the level needs, the nearest first; look at them when the answer is due."""
        if consistency == ConsistencyLevel.ANY:
            raise invalid("ANY ConsistencyLevel is only supported for writes")
        cluster = self._cluster
        at_coordinator = self._clock._now + request_ns + node.extra_ns
        replicas = self._replicas_of(plan, full)
        factor = plan.table.replication_factor
        required = self.required(consistency, factor)
        scattered = len(replicas) > factor
        if cluster.is_troubled or required > factor:
            groups = self._ring_segments(factor) if scattered else [replicas]
            weakest = min(groups, key=lambda group: sum(1 for replica in group if replica.is_known_up))
            if self._refused(attempt, node, weakest, required, consistency, at_coordinator):
                return
            if cluster.faults.strike("read_timeout"):
                error = errors.read_timeout(consistency, required - 1, required, False)
                attempt.answer(node, at_coordinator + cluster.read_timeout_ns, error, required - 1)
                return
        wanted = sum(1 for replica in replicas if replica.is_known_up) if scattered else required
        asked = self._ask(node, replicas, wanted, at_coordinator)
        deadline = at_coordinator + cluster.read_timeout_ns
        in_time = sorted((entry for entry in asked if entry[0] <= deadline), key=_when)
        if len(in_time) < wanted:
            received = min(len(in_time), required - 1)
            error = errors.read_timeout(consistency, received, required, bool(in_time))
            attempt.answer(node, deadline, error, received)
            return
        chosen = [replica for _, replica in in_time[:wanted]]
        now_s = node.now_s(request_ns)
        holders = self._holders(plan.table, chosen, required) if scattered else None
        arguments = (plan, full, chosen, now_s, page_size, cursor, consistency, holders)
        attempt.answer_with(node, in_time[wanted - 1][0], self._look, arguments, required)

    def _replicas_of(self, plan: SelectPlan, full: tuple[Any, ...]) -> Sequence[Node]:
        """Whom a read may ask: the replicas of its one partition, or all nodes."""
        cluster = self._cluster
        if not plan.where.partition or plan.table.replication_factor == len(cluster.nodes):
            return cluster.nodes
        keys = partition_keys(plan.table, plan.where, full)
        return cluster.replicas(plan.table, keys[0]) if len(keys) == 1 else cluster.nodes

    def _ring_segments(self, factor: int) -> list[list[Node]]:
        """The replicas of each piece of the ring."""
        nodes = self._cluster.nodes
        return [[nodes[(first + i) % len(nodes)] for i in range(factor)] for first in range(len(nodes))]

    def _holders(self, table: Table, chosen: list[Node], required: int) -> Holders:
        """Of the nodes asked, as many replicas of a partition as the level needs."""

        def holders(key: Key) -> list[int]:
            replicas = self._cluster.replicas(table, key)
            return [place for place, replica in enumerate(chosen) if replica in replicas][:required]

        return holders

    def _ask(self, node: Node, replicas: Sequence[Node], required: int, start_ns: int) -> list[tuple[int, Node]]:
        """When each replica asked has answered. A spare one is asked when an answer is late (speculative retry)."""
        self._rotation += 1
        others = [replica for replica in replicas if replica is not node and replica.is_known_up]
        turn = self._rotation % len(others) if others else 0
        order = others[turn:] + others[:turn]
        if node in replicas:
            order.insert(0, node)
        answers: list[tuple[int, Node]] = []
        for place, replica in enumerate(order):
            if place >= required:
                late = (
                    len(answers) < required
                    or max(at for at, _ in answers) > start_ns + self._cluster.speculative_retry_ns
                )
                if not late:
                    break
            begin = start_ns if place < required else start_ns + self._cluster.speculative_retry_ns
            service = self._service_ns[self._bits(10)] + replica.extra_ns
            if replica is node:
                answers.append((begin + service, replica))
                continue
            there = self._delay_ns(node.name, replica.name)
            back = self._delay_ns(replica.name, node.name)
            if there is not None and back is not None and replica.is_up:
                answers.append((begin + there + service + back, replica))
        return answers

    def _look(
        self,
        attempt: Attempt,
        node: Node,
        plan: SelectPlan,
        full: tuple[Any, ...],
        chosen: list[Node],
        now_s: int,
        page_size: int | None,
        cursor: Cursor | None,
        consistency: int,
        holders: Holders | None,
    ) -> None:
        """The answer is due: read what the replicas hold, and repair them first where they differ."""
        now = self._clock._now
        table = plan.table
        holdings = self._cluster.holdings
        holdings.catch_up(now)
        stores = [holdings.view(table, replica.index, now) for replica in chosen]
        if consistency in _SERIAL:
            stores = [self._cluster.lightweight.with_accepted(store) for store in stores]
        try:
            page = read_page(plan, full, stores, now_s, page_size, cursor, holders)
        except ServerRefusal as refusal:
            attempt.future.deliver_error(refusal.message, node)
            return
        if not page.repairs or not table.blocking_read_repair or len(chosen) == 1:
            attempt.finish_read(page, len(chosen))
            return
        self._cluster.faults.count("read_repair")
        # A second round for the data, then the repair writes; the answer waits for their acknowledgements.
        latest = now
        for repair in page.repairs:
            replica = chosen[repair.replica]
            round_trip = self._round_trip_ns(node, replica)
            if round_trip is None or not replica.is_up:
                error = errors.read_timeout(consistency, len(chosen) - 1, len(chosen), True)
                attempt.answer(node, now + self._cluster.read_timeout_ns, error, len(chosen) - 1)
                return
            arrival = now + 2 * round_trip
            holdings.send(replica.index, arrival, Mutation(repair.change.partition, ((table, repair.change),)))
            latest = max(latest, arrival + round_trip)
        attempt.answer_with(node, latest, _give, (page,), len(chosen))

    def _round_trip_ns(self, node: Node, replica: Node) -> int | None:
        if replica is node:
            return self._service_ns[self._bits(10)]
        there = self._delay_ns(node.name, replica.name)
        back = self._delay_ns(replica.name, node.name)
        if there is None or back is None:
            return None
        return there + back + self._service_ns[self._bits(10)] + replica.extra_ns


def _when(entry: tuple[int, Node]) -> int:
    return entry[0]


def _give(attempt: Attempt, _node: Node, page: Any) -> None:
    attempt.finish_read(page, attempt.replicas)


__all__ = ["Coordinator", "Hint", "Key", "ServerRefusal", "block_for", "token_of"]
