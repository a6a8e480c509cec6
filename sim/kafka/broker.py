"""What a broker does with the requests that reach it: produce, fetch, list offsets.

A produce request covers several partitions of one leader and is answered once: at once for acks=1, when the slowest
partition's in-sync replicas have everything for acks=all. In the undisturbed case that is one event for the whole
request, which also moves the high watermarks and wakes the fetches that wait for them.

A fetch that finds nothing is parked, and woken by the first partition that has something for it. The real server
would answer it empty after fetch_max_wait_ms and be asked again; here it stays parked, and the client asks for the
empty answer (`expire`) only when it would matter, because it wants to fetch something else from this broker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import xxhash
from aiokafka.errors import (
    InvalidTxnState,
    MessageSizeTooLargeError,
    NotEnoughReplicasAfterAppendError,
    NotEnoughReplicasError,
    NotLeaderForPartitionError,
    OffsetOutOfRangeError,
    UnknownTopicOrPartitionError,
)
from aiokafka.structs import TopicPartition

from sim.kafka.log import DATA, Batch, ErrorType
from sim.kafka.partition import Partition

if TYPE_CHECKING:
    from sim.kafka.cluster import KafkaCluster
    from sim.kafka.transport import Call

Produced = dict[TopicPartition, tuple[ErrorType | None, int, int]]
"""The answer to a produce request: for each partition an error, or the batch's base offset and the log's start."""
Fetched = list[tuple[TopicPartition, int, ErrorType | None, int, int, list[Batch]]]
"""The answer to a fetch: partition, offset asked for, error, high watermark, last stable offset, batches."""

EARLIEST = -2
LATEST = -1

ACKS_ALL = -1


class ProduceCall(msgspec.Struct, eq=False):
    """A produce request under acks=all until every one of its partitions is replicated or has failed."""

    call: Call
    results: Produced
    remaining: int = 0

    def settle_one(self) -> None:
        """One partition that had to be waited for has been decided."""
        self.remaining -= 1
        if self.remaining == 0:
            self.call.answer(self.results)


class ParkedFetch(msgspec.Struct, eq=False):
    """A fetch request, while it waits for data."""

    call: Call
    parts: list[tuple[TopicPartition, int]]
    read_committed: bool
    max_partition_bytes: int
    max_bytes: int
    parked_ns: int = 0
    is_answered: bool = False


class BrokerRequests:
    """The handlers of the data path. `call.broker` says which broker is asked."""

    def __init__(self, cluster: KafkaCluster) -> None:
        self._cluster = cluster
        self._clock = cluster.clock
        self._network = cluster.network
        self._partitions = cluster.partitions
        self._draw_bits = cluster.randomness.stream("kafka/replication").bits
        self._emit_produced: Callable[..., object] = cluster.recorder.emitter("produced")

    # -- produce

    def produce(
        self, call: Call, acks: int, transactional_id: str | None, batches: dict[TopicPartition, Batch]
    ) -> None:
        """Append each batch to its partition, or refuse it; answer as `acks` asks (-1 for all)."""
        now = self._clock._now
        results: Produced = {}
        waiting = ProduceCall(call, results)
        advances: list[tuple[Partition, int, int]] = []
        ready_ns = now
        for tp, batch in batches.items():
            partition = self._partitions.get(tp)
            error = self._refusal(call, partition, acks, batch)
            if error is not None:
                results[tp] = (error, -1, -1)
                continue
            assert partition is not None
            log = partition.log
            repeated = None
            if batch.producer_id >= 0:
                if log.continues(batch):
                    if transactional_id is not None:
                        error = self._transactions_refusal(partition, transactional_id, batch)
                else:
                    repeated = log.find_repeated(batch)
                    error = self._producers_refusal(partition, transactional_id, batch) if repeated is None else None
                if error is not None:
                    results[tp] = (error, -1, -1)
                    continue
            if repeated is not None:
                # Appended before, and its answer lost. The acknowledgement still means: replicated.
                results[tp] = (None, repeated, log.start_offset)
                end = repeated + len(batch.records)
                self._cluster.struck["produce-retry-deduplicated"] += 1
                if acks == ACKS_ALL and end > log.high_watermark:
                    waiting.remaining += 1
                    partition.ack_waiters.append((end, waiting))
                continue
            # A client keeps its batch for a retry, and a batch belongs to one log: append a copy.
            stored = self._cluster.faults.altered(tp, batch) if self._cluster.faults.alterations else batch.to_store()
            results[tp] = (None, log.append(stored, now), log.start_offset)
            self._emit(partition, stored, now)
            if self._cluster.faults.losses:
                self._cluster.faults.lose_last(tp, stored)
            at_ns = partition.replicate(now, self._network, self._draw_bits)
            if at_ns is None:
                self._cluster.watch(partition)
                if acks == ACKS_ALL:
                    waiting.remaining += 1
                    partition.ack_waiters.append((log.end_offset, waiting))
            else:
                advances.append((partition, partition.epoch, log.end_offset))
                if at_ns > ready_ns:
                    ready_ns = at_ns
        if acks == 1:
            call.answer(results)
        if advances:
            self._clock.post(ready_ns, self._replicated, (advances, waiting if acks == ACKS_ALL else None))
        elif acks == ACKS_ALL and waiting.remaining == 0:
            call.answer(results)

    def _refusal(self, call: Call, partition: Partition | None, acks: int, batch: Batch) -> ErrorType | None:
        """Why a batch cannot be taken here and now, whatever its producer has sent before."""
        refusal: ErrorType | None = None
        if partition is None:
            refusal = UnknownTopicOrPartitionError
        elif partition.leader != call.broker:
            refusal = NotLeaderForPartitionError
        elif batch.size_bytes > partition.max_message_bytes:
            refusal = MessageSizeTooLargeError
        elif acks == ACKS_ALL and len(partition.in_sync) < self._cluster.config.min_insync_replicas:
            refusal = NotEnoughReplicasError
        return refusal

    def _producers_refusal(self, partition: Partition, transactional_id: str | None, batch: Batch) -> ErrorType | None:
        """Why a new batch of an idempotent producer cannot follow what that has sent before."""
        refusal = partition.log.refusal(batch)
        if refusal is None and transactional_id is not None:
            refusal = self._transactions_refusal(partition, transactional_id, batch)
        return refusal

    def _transactions_refusal(self, partition: Partition, transactional_id: str, batch: Batch) -> ErrorType | None:
        """The leader asks the coordinator before it lets a transaction begin in its log (KIP-890), so that a late
        request cannot open one that nobody will end."""
        refusal: ErrorType = InvalidTxnState
        if partition.log.has_open_transaction(batch.producer_id):
            return None
        return None if self._cluster.transactions.is_writing(transactional_id, batch, partition.tp) else refusal

    def _replicated(self, advances: list[tuple[Partition, int, int]], waiting: ProduceCall | None) -> None:
        for partition, epoch, end in advances:
            if partition.epoch != epoch or partition.leader is None:
                if waiting is not None:
                    waiting.results[partition.tp] = (NotLeaderForPartitionError, -1, -1)
                continue
            self.advance(partition, end)
            if waiting is None:
                continue
            if partition.log.high_watermark < end:  # a follower has died since
                waiting.remaining += 1
                partition.ack_waiters.append((end, waiting))
            elif len(partition.in_sync) < self._cluster.config.min_insync_replicas:
                waiting.results[partition.tp] = (NotEnoughReplicasAfterAppendError, -1, -1)
        if waiting is not None and waiting.remaining == 0:
            waiting.call.answer(waiting.results)

    def append_marker(self, partition: Partition, marker: Batch) -> int | None:
        """Append the marker of a transaction's end at the leader.

        Return when it is replicated, None when it will be seen.
        """
        now = self._clock._now
        partition.log.append(marker, now)
        at_ns = partition.replicate(now, self._network, self._draw_bits)
        if at_ns is None:
            self._cluster.watch(partition)
        return at_ns

    def advance(self, partition: Partition, end_offset: int) -> None:
        """Move a high watermark, answer the producers that waited for it and wake the fetches that it satisfies."""
        if not partition.advance(end_offset):
            return
        if partition.ack_waiters:
            self._acknowledge(partition)
        if partition.fetch_waiters:
            self._wake(partition)

    def _acknowledge(self, partition: Partition) -> None:
        reached = partition.log.high_watermark
        enough = len(partition.in_sync) >= self._cluster.config.min_insync_replicas
        waiters = list(partition.ack_waiters)
        partition.ack_waiters.clear()
        partition.ack_waiters.extend(waiter for waiter in waiters if waiter[0] > reached)
        for end, waiting in waiters:
            if end <= reached:
                if not enough:
                    waiting.results[partition.tp] = (NotEnoughReplicasAfterAppendError, -1, -1)
                waiting.settle_one()

    def _emit(self, partition: Partition, batch: Batch, now: int) -> None:
        if batch.control != DATA:
            return
        assert partition.leader is not None
        topic, number = partition.tp
        digest = xxhash.xxh3_64_intdigest(b"".join([value or b"" for value in batch.values()]))
        self._emit_produced(
            now,
            partition.broker_names[partition.leader],
            topic,
            number,
            batch.base_offset,
            len(batch.records),
            batch.producer_id,
            batch.producer_epoch,
            batch.transactional,
            batch.size_bytes,
            digest - (1 << 64) if digest >> 63 else digest,
        )

    # -- fetch

    def fetch(
        self,
        call: Call,
        parts: list[tuple[TopicPartition, int]],
        read_committed: bool,
        max_partition_bytes: int,
        max_bytes: int,
    ) -> None:
        """Answer with what there is, or wait until there is something."""
        fetch = ParkedFetch(call, parts, read_committed, max_partition_bytes, max_bytes)
        if self._has_answer(fetch):
            self._answer_fetch(fetch)
            return
        call.is_parked = True
        fetch.parked_ns = self._clock._now
        client = call.transport
        for tp, offset in parts:
            self._partitions[tp].fetch_waiters[client] = (offset, fetch)
        call.park(fetch)

    def _has_answer(self, fetch: ParkedFetch) -> bool:
        """Whether there is data for a fetch, or something to be told about one of its partitions."""
        broker = fetch.call.broker
        for tp, offset in fetch.parts:
            partition = self._partitions.get(tp)
            if partition is None or partition.leader != broker:
                return True
            log = partition.log
            upto = log.last_stable_offset if fetch.read_committed else log.high_watermark
            if offset < upto or not log.start_offset <= offset <= log.end_offset:
                return True
        return False

    def _answer_fetch(self, fetch: ParkedFetch) -> None:
        """Answer with what there is now, which may be nothing."""
        broker = fetch.call.broker
        found: Fetched = []
        left_bytes = fetch.max_bytes
        is_first = True
        for tp, offset in fetch.parts:
            partition = self._partitions.get(tp)
            if partition is None:
                found.append((tp, offset, UnknownTopicOrPartitionError, -1, -1, []))
                is_first = False
                continue
            log = partition.log
            if partition.leader != broker:
                found.append((tp, offset, NotLeaderForPartitionError, -1, -1, []))
                is_first = False
                continue
            visible, stable = log.high_watermark, log.last_stable_offset
            if not log.start_offset <= offset <= log.end_offset:
                found.append((tp, offset, OffsetOutOfRangeError, visible, stable, []))
                is_first = False
                continue
            upto = stable if fetch.read_committed else visible
            batches: list[Batch] = []
            # The first partition with data always gives a batch, however large (KIP-74); the others share what is left.
            if offset < upto and (left_bytes > 0 or is_first):
                batches = log.read(offset, upto, min(fetch.max_partition_bytes, left_bytes))
                for batch in batches:
                    left_bytes -= batch.size_bytes
                is_first = False
            found.append((tp, offset, None, visible, stable, batches))
        fetch.is_answered = True
        fetch.call.answer(found)

    def _wake(self, partition: Partition) -> None:
        waiters = partition.fetch_waiters
        stable, visible = partition.log.last_stable_offset, partition.log.high_watermark
        # Most of what becomes visible belongs to a transaction that is open, and wakes nobody.
        ready = [
            client
            for client, (offset, fetch) in waiters.items()
            if offset < (stable if fetch.read_committed else visible)
        ]
        for client in ready:
            _, fetch = waiters.pop(client)
            if not fetch.is_answered and not fetch.call.is_done:
                self._answer_fetch(fetch)

    def expire(self, fetch: ParkedFetch) -> None:
        """Answer a parked fetch with what there is, which may be nothing: its wait is over."""
        if not fetch.is_answered and not fetch.call.is_done:
            self._answer_fetch(fetch)

    def start_moved(self, partition: Partition) -> None:
        """Records at the start are gone: whoever waits before it hears so, as at the end of a real long poll."""
        start = partition.log.start_offset
        for offset, fetch in list(partition.fetch_waiters.values()):
            if offset < start:
                self.expire(fetch)

    def release(self, partition: Partition) -> None:
        """The leader steps down: those who wait for it, producers and readers, are told to look for another."""
        waiters = list(partition.ack_waiters)
        partition.ack_waiters.clear()
        for _, waiting in waiters:
            waiting.results[partition.tp] = (NotLeaderForPartitionError, -1, -1)
            waiting.settle_one()
        parked, partition.fetch_waiters = partition.fetch_waiters, {}
        for _, fetch in parked.values():
            self.expire(fetch)

    # -- offsets

    def list_offsets(self, call: Call, wanted: dict[TopicPartition, int], read_committed: bool) -> None:
        """For each partition the offset at a time in ms, or at EARLIEST or LATEST, as (offset, timestamp).

        -1 for none.
        """
        found: dict[TopicPartition, tuple[int, int]] = {}
        for tp, time_ms in wanted.items():
            partition = self._partitions.get(tp)
            if partition is None:
                call.refuse(UnknownTopicOrPartitionError(tp))
                return
            if partition.leader != call.broker:
                call.refuse(NotLeaderForPartitionError(tp))
                return
            log = partition.log
            upto = log.last_stable_offset if read_committed else log.high_watermark
            if time_ms == EARLIEST:
                found[tp] = (log.start_offset, -1)
            elif time_ms == LATEST:
                found[tp] = (upto, -1)
            else:
                found[tp] = log.offset_for_time(time_ms, upto) or (-1, -1)
        call.answer(found)
