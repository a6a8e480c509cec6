"""The double of `aiokafka.AIOKafkaProducer`: same arguments, methods, exceptions and structs, and the same flaws.

What production meets of the real client, and this one keeps:

- records gather in one batch per partition; a full batch makes `send` wait until it has been taken; one request at a
  time per broker, and a broker stays busy through the backoff of a retry;
- an idempotent producer never gives a batch up for its age; one that failed for good leaves a hole in the sequence,
  so that every later batch of that partition is refused with `OutOfOrderSequenceNumber` until the producer is made
  anew;
- `commit_transaction` waits for every delivery and looks at none: it commits a transaction whose records failed;
- cancelling `commit_transaction` or `abort_transaction` cancels the wait, not the commit;
- `send_offsets_to_transaction` carries no member and no generation: the epoch is the only fence;
- `stop` flushes, lets the request under way end, and does not end a transaction: it stays open until it times out;
- a fenced producer is dead: what is pending fails with `ProducerFenced`, later `send` with `IllegalOperation`, later
  `begin_transaction` with an AssertionError (an invalid transition of the real client's state machine);
- a broken connection while looking for the transaction coordinator kills the sender (`KafkaError`).

Not modelled: compression, security, a batch submitted while it is still open.
"""

from __future__ import annotations

import asyncio
import copy
from asyncio import Future, Task
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, cast

from aiokafka.errors import (
    BrokerResponseError,
    ConcurrentTransactions,
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    DuplicateSequenceNumber,
    IllegalOperation,
    InvalidProducerEpoch,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    LeaderNotAvailableError,
    MessageSizeTooLargeError,
    NodeNotReadyError,
    NotCoordinatorError,
    OutOfOrderSequenceNumber,
    ProducerClosed,
    ProducerFenced,
    RequestTimedOutError,
    TransactionalIdAuthorizationFailed,
    UnknownTopicOrPartitionError,
)
from aiokafka.partitioner import murmur2
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import OffsetAndMetadata, RecordMetadata, TopicPartition
from aiokafka.util import INTEGER_MAX_VALUE, commit_structure_validate

from sim.clock import NS_PER_MS, NS_PER_SECOND
from sim.kafka.broker import ACKS_ALL
from sim.kafka.log import Batch
from sim.kafka.pending import BatchBuilder, PendingBatch, Serializer, as_bytes, header_bytes
from sim.kafka.settings import UnsupportedSetting, refuse_unsupported
from sim.kafka.transport import Metadata, Transport

if TYPE_CHECKING:
    from schema.ports import KafkaBatch
    from sim.hosts import Incarnation
    from sim.kafka.cluster import KafkaCluster

Partitioner = Callable[[bytes | None, list[int], list[int]], int]

UNINITIALIZED = "UNINITIALIZED"
READY = "READY"
IN_TRANSACTION = "IN_TRANSACTION"
COMMITTING = "COMMITTING_TRANSACTION"
ABORTING = "ABORTING_TRANSACTION"
FATAL_ERROR = "FATAL_ERROR"
_ENDING = (COMMITTING, ABORTING)

_ENTERED_FROM = {
    READY: (UNINITIALIZED, COMMITTING, ABORTING),
    IN_TRANSACTION: (READY,),
    COMMITTING: (IN_TRANSACTION,),
    ABORTING: (IN_TRANSACTION,),
}

_SURELY_FITS_BYTES = 4096
_CONCURRENT_BACKOFF_S = 0.02
_COORDINATOR_LOST = (NodeNotReadyError, RequestTimedOutError, CoordinatorNotAvailableError, NotCoordinatorError)
_RETRIED = (ConcurrentTransactions, CoordinatorLoadInProgressError, UnknownTopicOrPartitionError)


class _Cancellable(Protocol):
    def cancel(self) -> None: ...


class Producer:
    """A producer on one incarnation of a host; see the module for how it behaves."""

    def __init__(
        self,
        cluster: KafkaCluster,
        incarnation: Incarnation,
        *,
        bootstrap_servers: object = "localhost",
        client_id: str | None = None,
        metadata_max_age_ms: int = 300_000,
        request_timeout_ms: int = 40_000,
        acks: object = None,
        key_serializer: Serializer | None = None,
        value_serializer: Serializer | None = None,
        max_batch_size: int = 16_384,
        partitioner: Partitioner | None = None,
        max_request_size: int = 1_048_576,
        linger_ms: int = 0,
        retry_backoff_ms: int = 100,
        enable_idempotence: bool = False,
        transactional_id: str | None = None,
        transaction_timeout_ms: int = 60_000,
        **unsupported: object,
    ) -> None:
        refuse_unsupported("AIOKafkaProducer", unsupported)
        if acks not in (None, 0, 1, -1, "all"):
            raise ValueError("Invalid ACKS parameter")
        if transactional_id is not None:
            enable_idempotence = True
        else:
            transaction_timeout_ms = INTEGER_MAX_VALUE
        if enable_idempotence and acks not in (None, "all", -1):
            raise ValueError(f"acks={acks} not supported if enable_idempotence=True")
        self._acks = ACKS_ALL if acks in ("all", -1) or enable_idempotence else 0 if acks == 0 else 1
        self.client_id = client_id or f"aiokafka-producer-{cluster.next_client_number()}"
        self._cluster = cluster
        self._clock = cluster.clock
        self._wall = incarnation.host.wall
        self._loop = incarnation.loop
        self._transport = Transport(cluster, incarnation, request_timeout_ms)
        self._metadata = Metadata(self._transport, retry_backoff_ms, metadata_max_age_ms)
        self._key_serializer = key_serializer
        self._value_serializer = value_serializer
        self._partitioner = partitioner
        self._max_batch_size = max_batch_size
        self._max_request_size = max_request_size
        self._request_timeout_s = request_timeout_ms / 1000
        self._linger_ns = int(linger_ms * NS_PER_MS)
        self._backoff_s = retry_backoff_ms / 1000
        self._is_idempotent = enable_idempotence
        self._transactional_id = transactional_id
        self._transaction_timeout_ms = transaction_timeout_ms
        # Batches waiting to be sent, by partition in order of arrival; the last one takes new records.
        self._batches: dict[TopicPartition, deque[PendingBatch]] = {}
        self._tps: dict[tuple[str, int], TopicPartition] = {}
        self._sent: dict[PendingBatch, None] = {}
        self._busy: dict[int, None] = {}
        self._muted: dict[TopicPartition, None] = {}
        self._sequences: dict[TopicPartition, int] = {}
        self._producer_id = -1
        self._epoch = -1
        self._is_started = False
        self._is_stopping = False
        self._is_closed = False
        self._pump_scheduled = False
        self._next_pump = self._loop.prepare(self._pump)
        self._linger_timer: _Cancellable | None = None
        self._error: KafkaError | None = None
        self._idle_waiters: list[Future[None]] = []
        # The transaction
        self._state = UNINITIALIZED
        self._ended: Future[None] | None = None
        self._to_add: dict[TopicPartition, None] = {}
        self._added: dict[TopicPartition, None] = {}
        self._group: str | None = None
        self._offsets: deque[tuple[str, dict[TopicPartition, OffsetAndMetadata], Future[None]]] = deque()
        self._is_requesting = False
        self._coordinators: dict[str, int] = {}
        self._pid_known: Future[None] = self._loop.create_future()

    # -- life

    async def start(self) -> None:
        """Connect; with idempotence, also get a producer id, which fences older producers of the transactional id."""
        if not await self._metadata.refresh():
            raise KafkaConnectionError("Unable to bootstrap from any broker")
        if self._is_idempotent:
            await self._init_producer_id()
        self._is_started = True
        self._wake()

    async def stop(self) -> None:
        """Flush, wait for the request under way, close. An open transaction is left to its time-out."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._is_started and self._error is None:
            await self.flush()
            self._pump()  # a commit or abort that was asked for is still sent, once
            self._is_stopping = True
            while (self._busy or self._is_requesting) and self._error is None:
                waiter: Future[None] = self._loop.create_future()
                self._idle_waiters.append(waiter)
                await waiter
        self._is_stopping = True
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        self._transport.close()

    async def flush(self) -> None:
        """Wait until every batch there is now has been delivered or has failed."""
        waiters = [batch.end(self._loop) for batches in self._batches.values() for batch in batches]
        waiters += [batch.end(self._loop) for batch in self._sent]
        if waiters:
            await asyncio.wait(waiters)

    async def partitions_for(self, topic: str) -> set[int]:
        """The partitions of a topic."""
        return set(range(await self._metadata.wait_for_topic(topic)))

    async def __aenter__(self) -> Producer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    # -- sending

    async def send(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Sequence[tuple[str, bytes]] | None = None,
    ) -> Future[RecordMetadata]:
        """Add a record to its partition's batch; the future tells where it was stored."""
        assert not (value is None and key is None), "Need at least one: key or value"
        # Once per record of the run: what most records need stands first, the rest in functions of its own.
        count = self._metadata.partition_counts.get(topic)
        if count is None:
            count = await self._metadata.wait_for_topic(topic)
        if self._transactional_id is not None and self._state != IN_TRANSACTION:
            raise IllegalOperation("Can't send messages while not in transaction")
        if self._key_serializer is not None:
            key = self._key_serializer(key)
        if self._value_serializer is not None:
            value = self._value_serializer(value)
        # The size on the wire, to the byte: lengths and deltas are zigzag varints of `(n.bit_length() + 7) // 7` bytes,
        # what is missing has length -1. Here what does not depend on the batch: attributes, key, value, headers.
        content_bytes = 4
        if value is not None:
            if type(value) is not bytes:
                value = as_bytes(value)
            length = len(value)
            content_bytes += length + length.bit_length() // 7
        if key is not None:
            if type(key) is not bytes:
                key = as_bytes(key)
            length = len(key)
            content_bytes += length + length.bit_length() // 7
        if headers:
            content_bytes += header_bytes(headers)
        if content_bytes + _SURELY_FITS_BYTES > self._max_request_size:
            self._refuse_too_large(key, value, headers)
        if partition is None:
            partition = self._choose_partition(topic, count, key)
        else:
            assert partition >= 0
            assert partition < count, "Unrecognized partition"
        tp = self._tps.get((topic, partition)) or self._topic_partition(topic, partition)
        timeout_s = self._request_timeout_s
        while True:
            if self._is_closed:
                raise ProducerClosed()
            if self._error is not None:
                raise copy.copy(self._error)
            waiting = self._batches.get(tp)
            if waiting:
                batch = waiting[-1]
            else:
                self._cover(tp)
                batch = PendingBatch(tp, self._clock._now, [], [])
                self._batches[tp] = deque((batch,))
            records = batch.records
            stamp_ms = self._wall.now_ns() // 1_000_000 if timestamp_ms is None else timestamp_ms
            if not records:
                size = content_bytes + 2
                size += (size.bit_length() + 7) // 7
                break
            if not batch.is_closed:
                delta_ms = stamp_ms - records[0][0]
                delta_bytes = ((delta_ms if delta_ms >= 0 else ~delta_ms).bit_length() + 7) // 7
                size = content_bytes + delta_bytes + (len(records).bit_length() + 7) // 7
                size += (size.bit_length() + 7) // 7
                if batch.size_bytes + size <= self._max_batch_size:
                    break
            batch.is_closed = True
            self._wake()
            timeout_s = await self._wait_drained(batch, timeout_s)
        future: Future[RecordMetadata] = Future(loop=self._loop)
        records.append((stamp_ms, key, value, tuple(headers) if headers else ()))
        batch.futures.append(future)
        batch.size_bytes += size
        # A plain producer's records for a busy broker are looked at when it is free again, those that linger when the
        # first of them has lingered long enough.
        leader = self._metadata.leaders.get(tp)
        if (
            self._transactional_id is not None
            or leader is None
            or (self._linger_timer is None and leader not in self._busy)
        ):
            self._wake()
        return future

    async def send_and_wait(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Sequence[tuple[str, bytes]] | None = None,
    ) -> RecordMetadata:
        """Send a record and wait until it is stored."""
        return await (await self.send(topic, value, key, partition, timestamp_ms, headers))

    def create_batch(self) -> BatchBuilder:
        """An empty batch to fill and hand to `send_batch`."""
        return BatchBuilder(
            self._max_batch_size, self._cluster.clock, self._wall, self._key_serializer, self._value_serializer
        )

    async def send_batch(self, batch: KafkaBatch, topic: str, *, partition: int) -> Future[RecordMetadata]:
        """Send the records of a closed batch together; waits while any are waiting for that partition.

        The future tells the offset of the first one; it has no timestamp.
        """
        count = self._metadata.partition_counts.get(topic)
        if count is None:
            count = await self._metadata.wait_for_topic(topic)
        assert partition >= 0
        assert partition < count, "Unrecognized partition"
        if self._transactional_id is not None and self._state != IN_TRANSACTION:
            raise IllegalOperation("Can't send messages while not in transaction")
        assert isinstance(batch, BatchBuilder)
        if not batch.closed() or not batch.records:
            raise UnsupportedSetting("submitting a batch that is open or empty is not modelled")
        if self._is_closed:
            raise ProducerClosed()
        if self._error is not None:
            raise copy.copy(self._error)
        tp = self._tps.get((topic, partition)) or self._topic_partition(topic, partition)
        timeout_s = self._request_timeout_s
        while waiting := self._batches.get(tp):
            timeout_s = await self._wait_drained(waiting[-1], timeout_s)
        self._cover(tp)
        delivery: Future[RecordMetadata | None] = Future(loop=self._loop)
        pending = PendingBatch(tp, self._clock._now, batch.records, [], batch.size_bytes, delivery, is_closed=True)
        self._batches[tp] = deque((pending,))
        self._wake()
        return cast("Future[RecordMetadata]", delivery)

    def _topic_partition(self, topic: str, partition: int) -> TopicPartition:
        tp = self._tps[topic, partition] = TopicPartition(topic, partition)
        return tp

    def _cover(self, tp: TopicPartition) -> None:
        """Have the transaction, if there is one, cover the partition before anything is sent there."""
        if self._transactional_id is not None:
            assert self._state == IN_TRANSACTION
            if tp not in self._added:
                self._to_add[tp] = None

    def _refuse_too_large(
        self, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] | None
    ) -> None:
        size = DefaultRecordBatchBuilder.estimate_size_in_bytes(key, value, headers or [])
        if size > self._max_request_size:
            raise MessageSizeTooLargeError(
                f"The message is {size} bytes when serialized which is larger than the maximum request size you have "
                "configured with the max_request_size configuration"
            )

    def _choose_partition(self, topic: str, count: int, key: bytes | None) -> int:
        numbers = list(range(count))
        available = [n for n in numbers if self._metadata.leaders.get(TopicPartition(topic, n)) is not None]
        if self._partitioner is not None:
            return self._partitioner(key, numbers, available)
        if key is None:
            return self._cluster.client_stream.choice(available or numbers)
        return (int(murmur2(key)) & 0x7FFFFFFF) % count

    async def _wait_drained(self, batch: PendingBatch, timeout_s: float) -> float:
        started_s = self._loop.time()
        if batch.drained is None:
            batch.drained = self._loop.create_future()
        drained = batch.drained
        await asyncio.wait([drained], timeout=timeout_s)
        if drained.done():
            drained.result()
        timeout_s -= self._loop.time() - started_s
        if timeout_s <= 0:
            raise KafkaTimeoutError()
        return timeout_s

    # -- transactions

    async def begin_transaction(self) -> None:
        """Begin a transaction; nothing is sent until there is something to add to it."""
        self._ensure_transactional()
        if self._producer_id < 0:
            await asyncio.shield(self._pid_known)
        self._enter(IN_TRANSACTION)
        self._ended = Future(loop=self._loop)

    async def commit_transaction(self) -> None:
        """Commit once every delivery has ended, well or badly."""
        self._ensure_transactional()
        self._enter(COMMITTING)
        await self._await_end()

    async def abort_transaction(self) -> None:
        """Abort once every delivery has ended."""
        self._ensure_transactional()
        self._enter(ABORTING)
        await self._await_end()

    def transaction(self) -> TransactionContext:
        """A context that commits at its end, and aborts when an exception leaves it."""
        return TransactionContext(self)

    async def send_offsets_to_transaction(
        self, offsets: Mapping[TopicPartition, int | OffsetAndMetadata], group_id: str
    ) -> None:
        """Commit a group's offsets with the transaction. Whoever owns the partitions now: nobody checks."""
        self._ensure_transactional()
        if self._state != IN_TRANSACTION:
            raise IllegalOperation("Not in the middle of a transaction")
        if not group_id or not isinstance(group_id, str):
            raise ValueError(group_id)
        # Nobody else waits for this future: whether it was cancelled makes no difference to what is sent.
        stored: Future[None] = Future(loop=self._loop)
        self._offsets.append((group_id, commit_structure_validate(offsets), stored))
        self._pump()
        await stored

    @property
    def is_fenced(self) -> bool:
        """Whether the sender has died; nothing can be sent any more. (Not part of aiokafka.)"""
        return self._state == FATAL_ERROR

    def _ensure_transactional(self) -> None:
        if self._transactional_id is None:
            raise IllegalOperation("You need to configure transaction_id to use transactions")

    def _enter(self, state: str) -> None:
        assert self._state in _ENTERED_FROM[state], f"Invalid state transition {self._state} -> {state}"
        self._state = state
        if state in _ENDING:
            for batches in self._batches.values():
                for batch in batches:
                    batch.is_closed = True  # the transaction takes nothing more, so nothing lingers
            self._pump()

    async def _await_end(self) -> None:
        # Nobody else waits for this future: one that was cancelled ends the wait, not the commit.
        assert self._ended is not None
        await self._ended

    def _complete_transaction(self) -> None:
        self._enter(READY)
        self._added.clear()
        self._group = None
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    # -- the sender

    def _wake(self) -> None:
        if not self._pump_scheduled and self._is_started:
            self._pump_scheduled = True
            self._loop.soon(self._next_pump)

    def _pump(self) -> None:
        """Send whatever can be sent now."""
        self._pump_scheduled = False
        if self._error is not None or self._is_stopping:
            return
        if not self._is_requesting and (self._to_add or self._offsets or self._state in _ENDING):
            self._start_transactional_request()
        if not self._batches:
            return
        leaders = self._metadata.leaders
        now_ns = self._clock._now
        linger_left_ns = 0
        leader_unknown = False
        requests: dict[int, list[PendingBatch]] = {}
        for tp in list(self._batches):
            if tp in self._muted or tp in self._to_add:
                continue
            waiting = self._batches[tp]
            leader = leaders.get(tp)
            if leader is None:
                leader_unknown = True
                if now_ns - waiting[0].created_ns > self._transport.request_timeout_ns:
                    # Idempotent or not, and its sequence numbers are spent: the next batch will be out of order.
                    expired = self._take(tp)
                    self._sent.pop(expired, None)
                    expired.fail(LeaderNotAvailableError())
                    self._notify_idle()
                continue
            if leader in self._busy:
                continue
            batch = waiting[0]
            if self._linger_ns and not batch.is_closed and batch.wire is None:
                left_ns = self._linger_ns - (now_ns - batch.created_ns)
                if left_ns > 0:
                    linger_left_ns = min(linger_left_ns or left_ns, left_ns)
                    continue
            if leader in requests:
                requests[leader].append(self._take(tp))
            else:
                requests[leader] = [self._take(tp)]
        for leader, batches in requests.items():
            self._produce(leader, batches)
        if linger_left_ns and self._linger_timer is None:
            self._linger_timer = self._loop.call_later(linger_left_ns / NS_PER_SECOND, self._linger_over)
        if leader_unknown:
            self._refresh_and_wake()

    def _linger_over(self) -> None:
        self._linger_timer = None
        self._wake()

    def _refresh_and_wake(self) -> None:
        refreshing = self._metadata.refresh()

        def again(_done: Future[bool]) -> None:
            # The real client spins on metadata here; a pause of one backoff keeps the number of requests sane.
            if not self._is_stopping:
                self._loop.call_later(self._backoff_s, self._wake)

        refreshing.add_done_callback(again)

    def _take(self, tp: TopicPartition) -> PendingBatch:
        waiting = self._batches[tp]
        batch = waiting.popleft()
        if not waiting:
            del self._batches[tp]
        batch.is_closed = True
        if batch.wire is None:
            sequence = -1
            if self._is_idempotent:
                sequence = self._sequences.get(tp, 0)
                self._sequences[tp] = (sequence + len(batch.records)) % (1 << 31)
            batch.wire = Batch(
                batch.records,
                batch.size_bytes,
                self._producer_id,
                self._epoch,
                sequence,
                self._transactional_id is not None,
            )
        batch.wake_drain()
        self._sent[batch] = None
        return batch

    def _produce(self, leader: int, batches: list[PendingBatch]) -> None:
        self._busy[leader] = None
        content: dict[TopicPartition, Batch] = {}
        for batch in batches:
            assert batch.wire is not None
            content[batch.tp] = batch.wire
            self._muted[batch.tp] = None

        def on_reply(error: KafkaError | None, result: object) -> None:
            self._produced(leader, batches, error, result)

        arguments = (self._acks, self._transactional_id, content)
        call = self._transport.call(leader, self._cluster.requests.produce, arguments, on_reply)
        if self._acks == 0 and self._cluster.is_up(leader):
            call.forget()
            self._loop.call_soon(self._produced_unacknowledged, leader, batches)

    def _produced_unacknowledged(self, leader: int, batches: list[PendingBatch]) -> None:
        for batch in batches:
            del self._sent[batch]
            batch.deliver_unacknowledged()
        self._release(leader, batches, [])

    def _produced(self, leader: int, batches: list[PendingBatch], error: KafkaError | None, result: object) -> None:
        again: list[PendingBatch] = []
        if error is not None:
            if error.invalid_metadata:
                self._metadata.refresh()
            for batch in batches:
                self._fail_or_retry(batch, error, again)
        else:
            assert isinstance(result, dict)
            for batch in batches:
                kind, base_offset, log_start_offset = result[batch.tp]
                if kind is None or kind is DuplicateSequenceNumber:
                    if self._sent.pop(batch, batch) is None:
                        batch.deliver(base_offset, log_start_offset)
                    continue
                refusal: KafkaError = ProducerFenced() if kind is InvalidProducerEpoch else kind()
                if kind.invalid_metadata:
                    self._metadata.refresh()
                self._fail_or_retry(batch, refusal, again)
        if again:
            # The broker stays busy and the partitions muted through the backoff, as in the real client.
            self._loop.call_later(self._backoff_s, self._backoff_over, leader, batches, again)
        else:
            self._release(leader, batches, again)

    def _fail_or_retry(self, batch: PendingBatch, error: KafkaError, again: list[PendingBatch]) -> None:
        age_ns = self._clock._now - batch.created_ns
        expired = not self._is_idempotent and age_ns > self._transport.request_timeout_ns
        if error.retriable and not expired:
            again.append(batch)
        elif self._sent.pop(batch, batch) is None:
            batch.fail(error)

    def _backoff_over(self, leader: int, batches: list[PendingBatch], again: list[PendingBatch]) -> None:
        pending = self._metadata.pending
        if pending is not None:
            pending.add_done_callback(lambda _done: self._release(leader, batches, again))
        else:
            self._release(leader, batches, again)

    def _release(self, leader: int, batches: list[PendingBatch], again: list[PendingBatch]) -> None:
        for batch in again:
            if self._sent.pop(batch, batch) is None:
                self._batches.setdefault(batch.tp, deque()).appendleft(batch)
        self._busy.pop(leader, None)
        for batch in batches:
            self._muted.pop(batch.tp, None)
        if self._idle_waiters:
            self._notify_idle()
        if self._batches:
            self._wake()
        elif self._state in _ENDING:
            self._pump()  # the end of a transaction waits for the last delivery

    def _notify_idle(self) -> None:
        waiters, self._idle_waiters = self._idle_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _die(self, error: KafkaError) -> None:
        """The sender has ended with an error: everything pending fails with it."""
        self._error = error
        for batches in self._batches.values():
            for batch in batches:
                batch.fail(error)
        for batch in list(self._sent):
            batch.fail(error)
        self._batches.clear()
        self._sent.clear()
        self._state = FATAL_ERROR
        self._to_add.clear()
        self._added.clear()
        self._group = None
        for _, _, stored in self._offsets:
            _fail_quietly(stored, error)
        self._offsets.clear()
        if self._ended is None or self._ended.done():
            self._ended = self._loop.create_future()
        _fail_quietly(self._ended, error)
        self._notify_idle()

    # -- requests to coordinators: one at a time, in the order of the real client

    def _start_transactional_request(self) -> None:
        """Send the next request that the transaction needs. Callbacks, not tasks: every transaction has four."""
        transactions = self._cluster.transactions
        if self._to_add:
            tps = list(self._to_add)
            self._ask("transaction", transactions.add_partitions, (tps,), self._partitions_added, tps)
        elif self._offsets and self._group is None:
            group = self._offsets[0][0]
            self._ask("transaction", transactions.add_offsets, (group,), self._group_added, group)
        elif self._offsets:
            group, offsets, _ = self._offsets[0]
            self._ask("group", transactions.commit_transaction_offsets, (group, offsets), self._offsets_stored, group)
        elif not self._batches and not self._sent:
            # Every delivery has ended. Whether it went well is not looked at: the real client commits all the same.
            if self._added or self._group is not None:
                commit = self._state == COMMITTING
                self._ask("transaction", transactions.end_transaction, (commit,), self._transaction_ended, None)
            else:
                self._complete_transaction()

    def _ask(
        self,
        kind: str,
        handler: Callable[..., object],
        args: tuple[object, ...],
        on_success: Callable[..., None],
        what: object,
    ) -> None:
        """Send one request to the coordinator of this `kind`, looking for it first if it is not known."""
        self._is_requesting = True
        node = self._coordinators.get(kind)
        if node is None:
            key = self._transactional_id if kind == "transaction" else self._offsets[0][0]
            search = self._loop.create_task(self._find_coordinator(kind, key or ""))
            search.add_done_callback(self._searched)
            return

        def on_reply(error: KafkaError | None, _result: object) -> None:
            if self._error is not None:
                return
            if error is None:
                on_success(what)
                self._request_over()
                return
            delay_s = self._backoff_after(error, kind, on_success)
            if delay_s is not None:
                self._loop.call_later(delay_s, self._request_over)

        arguments = (self._transactional_id, self._producer_id, self._epoch, *args)
        self._transport.call(node, handler, arguments, on_reply)

    def _request_over(self) -> None:
        self._is_requesting = False
        if self._idle_waiters:
            self._notify_idle()
        self._pump()

    def _searched(self, search: Task[int]) -> None:
        error = None if search.cancelled() else search.exception()
        if isinstance(error, KafkaError):
            self._die(_unexpected(error))
        else:
            self._request_over()

    def _backoff_after(self, error: KafkaError, kind: str, on_success: Callable[..., None]) -> float | None:
        """How long to wait before trying again; None when the error ends the sender."""
        delay_s = self._backoff_s
        if isinstance(error, _COORDINATOR_LOST):
            self._coordinators.pop(kind, None)
        elif isinstance(error, ConcurrentTransactions):
            # KAFKA-5477: the markers of the last transaction are not written yet.
            if on_success == self._partitions_added and not self._added:
                delay_s = _CONCURRENT_BACKOFF_S
        elif isinstance(error, InvalidProducerEpoch):
            self._die(ProducerFenced())
            return None
        elif isinstance(error, BrokerResponseError) and not isinstance(error, _RETRIED):
            self._die(_unexpected(error))
            return None
        return delay_s

    def _partitions_added(self, tps: list[TopicPartition]) -> None:
        for tp in tps:
            self._to_add.pop(tp, None)
            self._added[tp] = None

    def _group_added(self, group: str) -> None:
        self._group = group

    def _offsets_stored(self, _group: str) -> None:
        _, _, stored = self._offsets.popleft()
        if not stored.done():
            stored.set_result(None)

    def _transaction_ended(self, _nothing: None) -> None:
        self._complete_transaction()

    async def _init_producer_id(self) -> None:
        while self._producer_id < 0:
            if self._transactional_id is not None:
                node = await self._find_coordinator("transaction", self._transactional_id)
            else:
                node = self._metadata.random_broker()
            handler = self._cluster.transactions.init
            try:
                answer = await self._transport.ask(node, handler, self._transactional_id, self._transaction_timeout_ms)
            except KafkaError as error:
                if isinstance(error, _COORDINATOR_LOST):
                    self._coordinators.pop("transaction", None)
                elif isinstance(error, BrokerResponseError) and not isinstance(error, _RETRIED):
                    raise
                await asyncio.sleep(self._backoff_s)
                await self._metadata.wait_refreshed(self._metadata.refresh())
                continue
            assert isinstance(answer, tuple)
            self._producer_id, self._epoch = answer
            self._pid_known.set_result(None)
            if self._transactional_id is not None:
                self._enter(READY)

    async def _find_coordinator(self, kind: str, key: str) -> int:
        while kind not in self._coordinators:
            try:
                node = await self._transport.ask(
                    self._metadata.random_broker(), self._cluster.find_coordinator, kind, key
                )
            except (CoordinatorNotAvailableError, NodeNotReadyError, RequestTimedOutError):
                await self._metadata.wait_refreshed(self._metadata.refresh())
                await asyncio.sleep(self._backoff_s)
                continue
            except KafkaError as error:
                raise KafkaError(repr(error)) from error
            assert isinstance(node, int)
            if not self._cluster.is_up(node):  # the connection that confirms it cannot be made
                await asyncio.sleep(self._backoff_s)
                continue
            self._coordinators[kind] = node
        return self._coordinators[kind]


class TransactionContext:
    """What `Producer.transaction` gives."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer

    async def __aenter__(self) -> TransactionContext:
        await self._producer.begin_transaction()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self._producer.commit_transaction()
        elif not self._producer.is_fenced:
            await self._producer.abort_transaction()


def _unexpected(error: KafkaError) -> KafkaError:
    """How the real sender reports what it did not expect; a few errors go out as they are."""
    if isinstance(error, ProducerFenced | OutOfOrderSequenceNumber | TransactionalIdAuthorizationFailed):
        return error
    unexpected = KafkaError("Unexpected error during batch delivery")
    unexpected.__cause__ = error
    return unexpected


def _fail_quietly(future: Future[None], error: KafkaError) -> None:
    """Set an exception that nobody may ever fetch."""
    if not future.done():
        future.set_exception(copy.copy(error))
        future.exception()
