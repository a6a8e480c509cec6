"""What can go wrong with the simulated Kafka, on demand (design 8). Times are instants of the run's clock in ns.

Cut, slow and lossy links are the network's (`sim.network`): they act on every message between a client and a broker,
and between brokers. A redelivery has no switch of its own: it is what follows from a rebalance, an eviction, a lost
commit or a crash, as with the real thing.

`struck` of the cluster counts operations that a fault really hit, by the name of the fault.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaConnectionError
from aiokafka.structs import TopicPartition

from sim.clock import NEVER_NS
from sim.kafka.log import Batch, Record
from sim.overlap import Overlap

if TYPE_CHECKING:
    from sim.kafka.cluster import KafkaCluster
    from sim.kafka.transport import Call

WRITES = frozenset(
    (
        "produce",
        "add_partitions",
        "add_offsets",
        "commit_transaction_offsets",
        "end_transaction",
        "commit_offsets",
        "init",
    )
)
"""The requests, by the name of their handler, whose lost answer leaves the client in doubt."""

FLIPPED = "flipped"
GARBAGE = "garbage"

EVERY_GROUP = "*"


class KafkaFaults:
    """The faults of one cluster."""

    def __init__(self, cluster: KafkaCluster) -> None:
        self._cluster = cluster
        self._stream = cluster.randomness.stream("kafka/faults")
        self.answers_ppm = 0
        """How likely the answer to a write is lost; 0 while `lose_answers` is off."""
        self._answers = Overlap(self._set_answers_ppm)
        self._commits: dict[str, Overlap] = {}
        self._commits_ppm: dict[str, int] = {}
        """By group, and for EVERY_GROUP, how likely its commits are refused."""
        self._crashes = {broker: Overlap(partial(self._hold_down, broker)) for broker in cluster.broker_ids}
        self._stalls = Overlap(self._set_markers_stalled)
        self.markers_are_stalled = False
        self.alterations: dict[TopicPartition, list[str]] = {}
        self.losses: dict[TopicPartition, int] = {}
        self.unclean_election = cluster.config.unclean_leader_election
        self.held_back: dict[TopicPartition, int] = {}

    def heal(self) -> None:
        """Take back every fault that lasts, and bring all brokers back: the beginning of the second phase of a run."""
        self._answers.clear()
        for commits in self._commits.values():
            commits.clear()
        self.alterations.clear()
        self.losses.clear()
        self.held_back.clear()
        for crashes in self._crashes.values():
            crashes.clear()
        self._cluster.end_leaderless()
        self._stalls.clear()

    # -- brokers and leaders

    def crash_broker(self, broker: int) -> Callable[[], None]:
        """A broker's process dies; its disk stays. Leaders and coordinators move after the controller's time-out.

        It stays down until what is returned is called, or `return_broker`; after several crashes, each of theirs.
        """
        self._cluster.struck["broker-crash"] += self._cluster.is_up(broker)
        return self._crashes[broker].begin(1)

    def return_broker(self, broker: int) -> None:
        """The broker is started again and catches up, however often it was crashed."""
        self._crashes[broker].clear()

    def _hold_down(self, broker: int, is_down: int) -> None:
        if is_down:
            self._cluster.crash_broker(broker)
        else:
            self._cluster.return_broker(broker)

    def move_leader(self, topic: str, partition: int) -> bool:
        """A clean change of leader to another in-sync replica; False when there is none."""
        moved = self._cluster.move_leader(TopicPartition(topic, partition))
        self._cluster.struck["leader-change"] += moved
        return moved

    def no_leader(self, topic: str, partition: int, until_ns: int = NEVER_NS) -> Callable[[], None]:
        """The partition has no leader (an election that does not end), until then or until what is returned is
        called."""
        self._cluster.struck["no-leader"] += 1
        return self._ending_at(until_ns, self._cluster.hold_leaderless(TopicPartition(topic, partition)))

    def _ending_at(self, until_ns: int, end: Callable[[], None]) -> Callable[[], None]:
        if until_ns < NEVER_NS:
            self._cluster.clock.at(until_ns, end)
        return end

    # -- answers and commits

    def lose_answers(self, ppm: int) -> Callable[[], None]:
        """Each answer to a write is lost with this probability after the write, until what is returned is called.

        Half of them break the connection too.
        """
        return self._answers.begin(ppm)

    def _set_answers_ppm(self, ppm: int) -> None:
        self.answers_ppm = ppm

    def loses_answer(self, call: Call) -> bool:
        """Whether this answer is lost. A broken connection is told to the client.

        Otherwise it waits for its time-out.
        """
        if call.request not in WRITES or not self._stream.chance_ppm(self.answers_ppm):
            return False
        self._cluster.struck["answer-lost"] += 1
        if self._stream.below(2):
            error = KafkaConnectionError(f"connection to node {call.broker} closed")
            call.transport.incarnation.enter(call.finish, error, None)
        return True

    def lose_commits(self, ppm: int, group: str = EVERY_GROUP) -> Callable[[], None]:
        """Each commit of the group's offsets, in a transaction too, is refused with this probability before anything is
        written (a retriable error), until what is returned is called."""
        commits = self._commits.get(group)
        if commits is None:
            commits = self._commits[group] = Overlap(partial(self._commits_ppm.__setitem__, group))
        return commits.begin(ppm)

    def refuses_commit(self, group: str) -> bool:
        """Whether this commit of the group's offsets is refused."""
        ppm = max(self._commits_ppm.get(group, 0), self._commits_ppm.get(EVERY_GROUP, 0))
        if ppm and self._stream.chance_ppm(ppm):
            self._cluster.struck["commit-refused"] += 1
            return True
        return False

    # -- groups and transactions

    def rebalance(self, group: str) -> bool:
        """Make a group rebalance, as when its subscription changes; False when it has no members."""
        forced = self._cluster.groups.force_rebalance(group)
        self._cluster.struck["rebalance"] += forced
        return forced

    def evict(self, group: str, member: str | None = None) -> str | None:
        """Throw a member (any, when none is named) out of its group while it is still running: a zombie. Its id."""
        evicted = self._cluster.groups.evict(group, member)
        self._cluster.struck["member-evicted"] += evicted is not None
        return evicted

    def give_up_uncommitted(self, group: str) -> None:
        """Whoever has not committed for the group by now cannot any more, so that its records come again.

        All members lose their sessions, and a transaction that waits for the group to take its offsets is timed out.
        """
        for transactional_id in self._cluster.transactions.waiting_for(group):
            self.time_out_transaction(transactional_id)
        for member in self._cluster.groups.members_of(group):
            self.evict(group, member)

    def move_group_coordinator(self, group: str) -> None:
        """Another broker becomes the coordinator of a group."""
        self._cluster.move_coordinator("group", group)
        self._cluster.struck["group-coordinator-change"] += 1

    def move_transaction_coordinator(self, transactional_id: str) -> bool:
        """Another broker becomes the coordinator of a transactional id; True when a transaction was open."""
        self._cluster.move_coordinator("transaction", transactional_id)
        is_open = self._cluster.transactions.is_open(transactional_id)
        self._cluster.struck["transaction-coordinator-change"] += is_open
        return is_open

    def time_out_transaction(self, transactional_id: str) -> bool:
        """End a transaction as its time-out would: aborted, and its producer fenced. False when none is open."""
        timed_out = self._cluster.transactions.time_out(transactional_id)
        self._cluster.struck["transaction-timeout"] += timed_out
        return timed_out

    def stall_markers(self, until_ns: int = NEVER_NS) -> Callable[[], None]:
        """No transaction's markers are written, until then or until what is returned is called: commits have returned,
        and nobody can read them."""
        self._cluster.struck["markers-stalled"] += 1
        return self._ending_at(until_ns, self._stalls.begin(1))

    def _set_markers_stalled(self, is_stalled: int) -> None:
        self.markers_are_stalled = is_stalled > 0
        if not is_stalled:
            self._cluster.transactions.send_stalled()

    # -- breaking an assumption

    def hold_back(self, topic: str, partition: int) -> int | None:
        """A follower fetches no more, and leaves the in-sync replicas; its id.

        None when that would leave fewer than two, or one is held back already.
        """
        tp = TopicPartition(topic, partition)
        kept = self._cluster.partitions[tp]
        followers = [broker for broker in kept.in_sync if broker != kept.leader]
        if tp in self.held_back or kept.leader is None or len(followers) < 2:
            return None
        follower = self.held_back[tp] = self._stream.choice(followers)
        kept.follower_died(follower, self._cluster.clock.now)
        kept.in_sync.remove(follower)
        self._cluster.watch(kept)
        return follower

    def elect_held_back(self, topic: str, partition: int) -> int:
        """The replica that was held back becomes the leader, though it is not in sync: what it did not fetch is lost,
        acknowledged or not. Returns how many acknowledged offsets that is; none when its broker is down."""
        tp = TopicPartition(topic, partition)
        follower = self.held_back.pop(tp, None)
        if follower is None:
            return 0
        lost = self._cluster.elect_unclean(tp, follower)
        self._cluster.struck["unclean-election"] += lost > 0
        return lost

    def pass_retention(self, topic: str, partition: int, keep_records: int) -> int:
        """Retention deletes all but the last records of a partition; returns how many went."""
        kept = self._cluster.partitions[TopicPartition(topic, partition)]
        gone = kept.log.delete_before(kept.log.high_watermark - keep_records)
        self._cluster.requests.start_moved(kept)
        self._cluster.struck["retention"] += gone > 0
        return gone

    def alter_next(self, topic: str, partition: int, how: str = FLIPPED) -> None:
        """Alter a record of the next batch before its checksum is made: one bit FLIPPED, or GARBAGE instead of it."""
        self.alterations.setdefault(TopicPartition(topic, partition), []).append(how)

    def lose_next(self, topic: str, partition: int) -> None:
        """The last record of the next batch is acknowledged and then gone from every replica: its offset is a hole."""
        tp = TopicPartition(topic, partition)
        self.losses[tp] = self.losses.get(tp, 0) + 1

    def lose_last(self, tp: TopicPartition, stored: Batch) -> None:
        """Take the last record out of a batch that was appended, if that is on for its partition."""
        pending = self.losses.pop(tp, 0)
        if not pending:
            return
        if pending > 1:
            self.losses[tp] = pending - 1
        stored.records = stored.records[:-1]
        self._cluster.struck["record-lost"] += 1

    def altered(self, tp: TopicPartition, batch: Batch) -> Batch:
        """The batch as it is stored: a copy, with one record altered if that is on for its partition."""
        pending = self.alterations.get(tp)
        if not pending:
            return batch.to_store()
        how = pending.pop(0)
        if not pending:
            del self.alterations[tp]
        stored = batch.copy()
        records = list(batch.rows())
        index = self._stream.below(len(records))
        timestamp_ms, key, value, headers = records[index]
        records[index] = self._spoil(how, timestamp_ms, key, value or b"\x00", headers)
        stored.records = records
        self._cluster.struck[f"record-{how}"] += 1
        return stored

    def _spoil(
        self, how: str, timestamp_ms: int, key: bytes | None, value: bytes, headers: tuple[tuple[str, bytes], ...]
    ) -> Record:
        if how == GARBAGE:
            return timestamp_ms, key, self._stream.token(len(value)), headers
        spoiled = bytearray(value or b"\x00")
        spoiled[self._stream.below(len(spoiled))] ^= 1 << self._stream.below(8)
        return timestamp_ms, key, bytes(spoiled), headers
