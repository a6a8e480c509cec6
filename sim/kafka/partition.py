"""One partition: which broker leads it, which replicas are in sync, and how far each of them has got.

There is one log, the leader's. Replication is not made of messages: when the leader appends, the arrival at each
follower is drawn at once, and one timer of the caller moves the high watermark when the slowest in-sync follower has
fetched and said so. Only a follower that cannot be reached is looked after step by step (`behind`): the leader drops
it from the in-sync replicas once it has lagged for replica.lag.time.max, and takes it back when it has caught up.

When a leader dies, its followers are frozen at what had arrived by then. The next leader's log is what that replica
had, so a suffix that was not replicated is gone: records acknowledged under acks=1 can be lost, those acknowledged by
all in-sync replicas cannot, as only an in-sync replica is elected, unless unclean election is switched on.

Simplified against Kafka: the high watermark does not fall back at a clean change of leader, and a broker that has
died is no leader any more from that instant, though it takes the controller's session time-out to elect another. A
leader is never cut off from the controller, so there are no two leaders at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from aiokafka.structs import TopicPartition

from sim.kafka.log import PartitionLog
from sim.network import LATENCY_BITS

if TYPE_CHECKING:
    from sim.kafka.broker import ParkedFetch, ProduceCall
    from sim.kafka.transport import Transport
    from sim.network import Network

_Path = tuple[int, tuple[int, ...], tuple[int, ...]]
"""A follower, and the equally likely latencies from the leader to it and back."""

_LATENCY_MASK = (1 << LATENCY_BITS) - 1
_NEVER = -1


class Partition:
    """A partition with its replicas, by broker id. `leader` is None while none can be elected."""

    __slots__ = (
        "_clear_paths",
        "_path_bits",
        "_paths_version",
        "ack_waiters",
        "arrivals",
        "behind",
        "behind_since_ns",
        "broker_names",
        "epoch",
        "fetch_waiters",
        "in_sync",
        "last_arrival_ns",
        "leader",
        "log",
        "max_message_bytes",
        "replicas",
        "tp",
    )

    def __init__(
        self, tp: TopicPartition, replicas: list[int], broker_names: dict[int, str], max_message_bytes: int
    ) -> None:
        self.tp = tp
        self.max_message_bytes = max_message_bytes
        self.replicas = replicas
        self.broker_names = broker_names
        self.in_sync = list(replicas)
        self.leader: int | None = replicas[0]
        self.epoch = 0
        self.log = PartitionLog()
        # What has been appended and is not yet below the high watermark: (end offset, arrival by follower).
        self.arrivals: deque[tuple[int, dict[int, int]]] = deque()
        self.last_arrival_ns = dict.fromkeys(replicas, 0)
        # Followers that replication does not reach: how far they have got, and since when.
        self.behind: dict[int, int] = {}
        self.behind_since_ns: dict[int, int] = {}
        self.ack_waiters: deque[tuple[int, ProduceCall]] = deque()
        # The fetches that wait for data from here, with the offset from which on. By client: it has one at a time.
        self.fetch_waiters: dict[Transport, tuple[int, ParkedFetch]] = {}
        self._clear_paths: list[_Path] | None = None
        self._path_bits = 0
        self._paths_version = _NEVER

    def replicate(self, now_ns: int, network: Network, draw_bits: Callable[[int], int]) -> int | None:
        """Send what was just appended to the followers; return when the leader knows that all in sync have it.

        None when an in-sync follower cannot be reached: then `settle` finds out later.
        """
        if self._paths_version != network.version:
            self._find_paths(network)
        paths = self._clear_paths
        if paths is None or self.behind:
            return self._replicate_disturbed(now_ns, network)
        # Once or more per produce request: all latencies from one draw.
        drawn = draw_bits(self._path_bits)
        last_arrival_ns = self.last_arrival_ns
        arrivals: dict[int, int] = {}
        ready_ns = now_ns
        for follower, there_ns, back_ns in paths:
            arrival_ns = now_ns + there_ns[drawn & _LATENCY_MASK]
            if arrival_ns < last_arrival_ns[follower]:
                arrival_ns = last_arrival_ns[follower]
            last_arrival_ns[follower] = arrivals[follower] = arrival_ns
            known_ns = arrival_ns + back_ns[drawn >> LATENCY_BITS & _LATENCY_MASK]
            if known_ns > ready_ns:
                ready_ns = known_ns
            drawn >>= 2 * LATENCY_BITS
        self.arrivals.append((self.log.end_offset, arrivals))
        return ready_ns

    def _find_paths(self, network: Network) -> None:
        """Look up the latencies to each follower and back, if there is no fault on any of these links."""
        self._paths_version = network.version
        self._clear_paths = None
        assert self.leader is not None
        here = self.broker_names[self.leader]
        paths: list[_Path] = []
        for follower in self.replicas:
            if follower == self.leader:
                continue
            name = self.broker_names[follower]
            there_ns, back_ns = network.clear_table_ns(here, name), network.clear_table_ns(name, here)
            if there_ns is None or back_ns is None:
                return
            paths.append((follower, there_ns, back_ns))
        self._clear_paths = paths
        self._path_bits = 2 * LATENCY_BITS * len(paths)

    def _replicate_disturbed(self, now_ns: int, network: Network) -> int | None:
        """`replicate` where a fault is on a link, or a follower is not reached."""
        leader = self.leader
        assert leader is not None
        leader_name = self.broker_names[leader]
        end = self.log.end_offset
        arrivals: dict[int, int] = {}
        ready_ns: int | None = now_ns
        behind = self.behind
        delay_ns = network.delay_ns
        for follower in self.replicas:
            if follower == leader:
                continue
            if follower in behind:
                if follower in self.in_sync:
                    ready_ns = None
                continue
            name = self.broker_names[follower]
            there_ns = delay_ns(leader_name, name)
            back_ns = delay_ns(name, leader_name) if there_ns is not None else None
            if there_ns is None or back_ns is None:
                behind[follower] = self.arrivals[-1][0] if self.arrivals else self.log.high_watermark
                self.behind_since_ns[follower] = now_ns
                if follower in self.in_sync:
                    ready_ns = None
                continue
            arrival_ns = now_ns + there_ns
            if arrival_ns < self.last_arrival_ns[follower]:
                arrival_ns = self.last_arrival_ns[follower]
            self.last_arrival_ns[follower] = arrival_ns
            arrivals[follower] = arrival_ns
            if ready_ns is not None and arrival_ns + back_ns > ready_ns:
                ready_ns = arrival_ns + back_ns
        self.arrivals.append((end, arrivals))
        return ready_ns

    def replica_end(self, follower: int, now_ns: int) -> int:
        """One past the last offset that the replica holds now."""
        if follower == self.leader:
            return self.log.end_offset
        if follower in self.behind:
            return self.behind[follower]
        end = self.log.high_watermark
        for entry_end, arrivals in self.arrivals:
            if arrivals.get(follower, now_ns + 1) > now_ns:
                break
            end = entry_end
        return end

    def advance(self, end_offset: int) -> bool:
        """All in-sync replicas have everything below `end_offset`, unless one fell behind meanwhile.

        True if visible.
        """
        if self.behind:
            for follower, follower_end in self.behind.items():
                if follower in self.in_sync and follower_end < end_offset:
                    end_offset = follower_end
        arrivals = self.arrivals
        while arrivals and arrivals[0][0] <= end_offset:
            arrivals.popleft()
        return self.log.advance(end_offset)

    def replicated_end(self, now_ns: int) -> tuple[int, int | None]:
        """How far all in-sync replicas have got, and when the next entry that is under way arrives everywhere."""
        end = self.log.high_watermark
        for entry_end, arrivals in self.arrivals:
            slowest_ns = 0
            for follower in self.in_sync:
                if follower == self.leader:
                    continue
                if follower in self.behind:
                    if self.behind[follower] < entry_end:
                        return end, None
                    continue
                slowest_ns = max(slowest_ns, arrivals.get(follower, 0))
            if slowest_ns > now_ns:
                return end, slowest_ns
            end = entry_end
        return end, None

    def follower_died(self, follower: int, now_ns: int) -> None:
        """Freeze a follower at what has arrived there by now."""
        if follower not in self.behind:
            self.behind[follower] = self.replica_end(follower, now_ns)
            self.behind_since_ns[follower] = now_ns

    def lose_leader(self, now_ns: int) -> None:
        """The leader is gone, or steps down: freeze every replica at what it has."""
        assert self.leader is not None
        old = self.leader
        for replica in self.replicas:
            if replica != old:
                self.follower_died(replica, now_ns)
        self.behind[old] = self.log.end_offset
        self.behind_since_ns[old] = now_ns
        self.arrivals.clear()
        self.leader = None

    def elect(self, leader: int, is_up: Callable[[int], bool], now_ns: int) -> int:
        """Make a replica the leader; its log becomes the partition's. Returns how many records were cut off."""
        end = self.behind.pop(leader)
        self.behind_since_ns.pop(leader)
        lost = self.log.truncate(end)
        clean = leader in self.in_sync
        for replica in self.behind:
            # A follower's log that goes on past the leader's is cut; what it lacks it will fetch.
            self.behind[replica] = min(self.behind[replica], end)
            self.behind_since_ns[replica] = now_ns
        self.in_sync = (
            [replica for replica in self.in_sync if replica == leader or is_up(replica)] if clean else [leader]
        )
        self.leader = leader
        self._paths_version = _NEVER
        self.epoch += 1
        if self.log.end_offset > self.log.high_watermark:
            self.arrivals.append((self.log.end_offset, {}))
        return lost

    def caught_up(self, follower: int, now_ns: int) -> None:
        """The follower has fetched everything: it is in sync again."""
        del self.behind[follower]
        del self.behind_since_ns[follower]
        for _, arrivals in self.arrivals:
            arrivals[follower] = now_ns
        self.last_arrival_ns[follower] = now_ns
        if follower not in self.in_sync:
            self.in_sync = [replica for replica in self.replicas if replica in self.in_sync or replica == follower]
