"""The settlement service: consume, verify, write rows, then progress, then offsets (design section 4.4).

    engine.outputs   \\
                      > one consumer group > one task per partition > Store.write > settlement_progress > group offset
    balance.events   /

Each assigned partition has a task of its own, so one that waits for the database, or has stopped, does not hold up the
others. A task holds the records of one fetch at most; while it writes, the client buffers at most one more.

**How often progress is written.** Not after every batch, which for a quiet partition would be as many writes as there
are rows, but at most once in `checkpoint_ms`, and when the partition is given up or stops; the group's offset follows
it. What a crash leaves unrecorded is written again by the next owner.

**Where a partition is resumed.** The order of writing is rows, then progress, then the group's offset, so the group's
offset never passes the progress row: an offset beyond it can only mean that the store lost something, or is another
one. The resume point is therefore the smaller of the two, and the beginning of the partition when there is no progress,
whatever the group says; nothing can be skipped. What lies between the two was settled before and is written again,
which changes nothing. The position the client would resume from by itself is never used.

**What stops a partition.** A gap, a hash that does not match, bytes that do not decode, records that retention took
before they were read, a statement that the database refuses for good. Each raises one alarm that names topic, partition
and offset; the partition stays stopped until somebody looks, and the others go on. Records before the bad one are
settled.

**Rebalances.** aiokafka takes every partition away in each rebalance. A task whose partition is taken away finishes the
writes in hand, within `revoke_ms`, and flushes its offset. If it does not make it, or if this instance was evicted and
does not know it yet, the next owner writes the same rows again: they commute. A refused offset commit is no error.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import ceil
from typing import Final, TypeAlias, TypeVar

from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import (
    CommitFailedError,
    ConsumerStoppedError,
    CorruptRecordException,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    RecordTooLargeError,
)
from aiokafka.structs import ConsumerRecord, TopicPartition

from schema.events import EngineOutput, OrderCompletion, OrderPlacement
from schema.ports import Clock, KafkaClients, KafkaConsumer, Log, Randomness
from schema.services import SETTLEMENT
from schema.topics import BALANCE_EVENTS, ENGINE_OUTPUTS, MAX_RECORD_BYTES, Topology
from schema.wire import BALANCE_EVENT, ENGINE_OUTPUT, WireError
from settlement.chain import NOTHING_SEEN, NOTHING_SETTLED, Link, Progress, Verdict, judge
from settlement.retries import Backoff
from settlement.rows import RowBatch
from settlement.store import Store, StoreRefused

T = TypeVar("T")
Record: TypeAlias = "ConsumerRecord[bytes, bytes]"
Report: TypeAlias = Callable[[Exception], None]

_NEVER_MS: Final = 2**31 - 1
_CORRUPT_FETCH_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class SettlementConfig:
    """`chunk_records` are settled and recorded in one go; `poll_ms` is how long an idle partition waits in one call.

    `pace_ms` is the least time from one fetch that brought records to the next of the same partition. A record that
    comes alone is settled at once; under load, what comes meanwhile is settled together, and of several revisions of a
    row only the last is written. No row is later for it than so long.

    `checkpoint_ms` is how long rows may be acknowledged before progress says so: what a crash costs the next owner.

    `revoke_ms` bounds how long a rebalance, or the end of the service, waits for the writes in hand; it must be less
    than `session_timeout_ms`.
    """

    group_id: str = SETTLEMENT
    chunk_records: int = 500
    poll_ms: int = 1_000
    pace_ms: int = 50
    checkpoint_ms: int = 500
    revoke_ms: int = 5_000
    session_timeout_ms: int = 10_000
    heartbeat_interval_ms: int = 3_000
    backoff: Backoff = field(default_factory=Backoff)

    def __post_init__(self) -> None:
        if self.chunk_records < 1:
            raise ValueError(f"chunk_records must be at least 1, not {self.chunk_records}")
        if self.pace_ms < 0:
            raise ValueError(f"pace_ms must not be negative, not {self.pace_ms}")
        if self.checkpoint_ms < 0:
            raise ValueError(f"checkpoint_ms must not be negative, not {self.checkpoint_ms}")
        if not 0 < self.revoke_ms < self.session_timeout_ms:
            raise ValueError(f"revoke_ms must be between 0 and session_timeout_ms, not {self.revoke_ms}")


class Unsettleable(Exception):
    """A partition cannot go on; `offset` is where. The message is the alarm's."""

    def __init__(self, reason: str, offset: int) -> None:
        super().__init__(reason)
        self.offset = offset


def resume_offset(progress: Progress | None, committed: int | None, beginning: int = 0) -> int:
    """Where to resume a partition whose log begins at `beginning`. Never beyond what the progress row covers.

    What retention took after it was settled is no loss; what it took before is found missing by whoever reads there.
    """
    if progress is None:
        return beginning
    resumed = progress.next_offset if committed is None else min(committed, progress.next_offset)
    return max(resumed, min(beginning, progress.next_offset))


class SettlementService:
    """One instance. `run` until `request_stop`; the store must be open."""

    def __init__(
        self,
        topology: Topology,
        kafka: KafkaClients,
        store: Store,
        clock: Clock,
        log: Log,
        randomness: Randomness,
        config: SettlementConfig | None = None,
    ) -> None:
        self._topology = topology
        self._kafka = kafka
        self._store = store
        self._clock = clock
        self._log = log
        self._randomness = randomness
        self._config = config or SettlementConfig()
        self._is_stopping = False
        self._wake: asyncio.Future[None] | None = None

    def request_stop(self) -> None:
        """End `run` after the writes in hand."""
        self._is_stopping = True
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def run(self) -> None:
        """Settle until `request_stop`. Kafka errors end a membership, not the service: it joins again."""
        failures = 0
        while not self._is_stopping:
            self._wake = asyncio.get_running_loop().create_future()
            membership = Membership(
                self._topology.partitions(),
                self._consumer(),
                self._store,
                self._clock,
                self._log,
                self._randomness,
                self._config,
            )
            try:
                await membership.run(self._wake)
                failures = 0
            except KafkaError as error:
                if self._is_stopping:
                    return
                self._log.warning("settlement lost its place in the group, will join again", error=repr(error))
                with suppress(TimeoutError):
                    await asyncio.wait_for(
                        asyncio.shield(self._wake), self._config.backoff.delay_s(failures, self._randomness)
                    )
                failures += 1

    def _consumer(self) -> KafkaConsumer:
        return self._kafka.consumer(
            group_id=self._config.group_id,
            enable_auto_commit=False,
            isolation_level="read_committed",
            auto_offset_reset="none",
            max_partition_fetch_bytes=MAX_RECORD_BYTES,
            session_timeout_ms=self._config.session_timeout_ms,
            heartbeat_interval_ms=self._config.heartbeat_interval_ms,
            # Longer than a rebalance may take, which is a session time-out; not much, for a lost answer costs it whole.
            request_timeout_ms=self._config.session_timeout_ms + 2_000,
            # Membership is a matter of heartbeats alone. Counting polls, aiokafka would leave the group while every
            # partition waits for the database, or while none is assigned here, and not join again until it is polled.
            max_poll_interval_ms=_NEVER_MS,
        )


class Membership(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """One life of a consumer in the group, with a task for each partition it owns."""

    def __init__(
        self,
        partition_counts: dict[str, int],
        consumer: KafkaConsumer,
        store: Store,
        clock: Clock,
        log: Log,
        randomness: Randomness,
        config: SettlementConfig,
    ) -> None:
        self._partition_counts = partition_counts
        self._consumer = consumer
        self._store = store
        self._clock = clock
        self._log = log
        self._randomness = randomness
        self._config = config
        self._settlers: dict[TopicPartition, PartitionSettler] = {}
        self._committer = Committer(consumer, log, randomness, config)
        self._ended: asyncio.Future[None] | None = None

    async def run(self, stop: "asyncio.Future[None]") -> None:
        """Consume until `stop` is done. Raises KafkaError when the consumer cannot go on."""
        self._ended = asyncio.get_running_loop().create_future()
        starting = asyncio.ensure_future(self._start())
        try:
            await _first_of(stop, self._ended, starting)
            if starting.done() and not stop.done():
                starting.result()
                await _first_of(stop, self._ended)
            if self._ended.done():
                self._ended.result()
        finally:
            starting.cancel()
            with suppress(asyncio.CancelledError, KafkaError):
                await starting
            await self._release(list(self._settlers))
            try:
                await self._consumer.stop()
            finally:
                # Last: closing the connections ends a commit under way, and what is pending could go on for ever.
                self._committer.stop()
            if self._ended.done() and not self._ended.cancelled():
                self._ended.exception()  # seen

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """The group takes the partitions away: let the writes in hand end first."""
        await self._release(revoked)

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """The group gives partitions: start a task for each. Taking over happens there, not here."""
        partitions = sorted(assigned)
        for partition in partitions:
            # Paused, and with a position, so that the client neither fetches nor looks for one by itself meanwhile.
            self._consumer.pause(partition)
            self._consumer.seek(partition, 0)
        await self._release(list(self._settlers))
        for partition in partitions:
            if partition.partition >= self._partition_counts[partition.topic]:
                self._log.critical(
                    "partition stopped: the topology has no such partition; the topic is another system's",
                    topic=partition.topic,
                    partition=partition.partition,
                    offset=0,
                )
                continue
            settler = PartitionSettler(
                partition,
                self._consumer,
                self._store,
                self._committer,
                self._clock,
                self._log,
                self._randomness,
                self._config,
            )
            self._settlers[partition] = settler
            settler.start(self._fail)

    async def _start(self) -> None:
        self._consumer.subscribe([ENGINE_OUTPUTS, BALANCE_EVENTS], listener=self)
        await self._consumer.start()

    def _fail(self, error: Exception) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(error)

    async def _release(self, partitions: Collection[TopicPartition]) -> None:
        leaving = [self._settlers.pop(partition) for partition in sorted(partitions) if partition in self._settlers]
        if not leaving:
            return
        for settler in leaving:
            settler.request_stop()
        deadline = asyncio.get_running_loop().time() + self._config.revoke_ms / 1000
        for settler in leaving:
            await settler.wait_ended(deadline)
        await self._committer.flush(deadline)
        for settler in leaving:
            self._committer.forget(settler.partition)


class PartitionSettler:
    """Settles one partition, from taking it over until it is released or stops."""

    def __init__(
        self,
        partition: TopicPartition,
        consumer: KafkaConsumer,
        store: Store,
        committer: "Committer",
        clock: Clock,
        log: Log,
        randomness: Randomness,
        config: SettlementConfig,
    ) -> None:
        self.partition = partition
        self._consumer = consumer
        self._store = store
        self._committer = committer
        self._clock = clock
        self._log = log
        self._randomness = randomness
        self._config = config
        self._settled = NOTHING_SETTLED
        self._seen = NOTHING_SEEN
        self._next_offset = 0
        self._recorded = NOTHING_SETTLED
        self._record_due: float | None = None
        """When progress is to be written (loop time), None when it is."""
        self._is_stopping = False
        self._is_given_up = False
        self._is_waiting = False
        self._task: asyncio.Task[None] | None = None

    def start(self, failed: Report) -> None:
        """Begin, in a task. `failed` is called with an error that ends the whole membership."""
        self._task = asyncio.get_running_loop().create_task(self._run(failed))

    def request_stop(self) -> None:
        """End after the writes in hand."""
        self._is_stopping = True
        if self._is_waiting and self._task is not None:
            self._task.cancel()

    async def wait_ended(self, deadline: float) -> None:
        """Wait for the end, until `deadline` (loop time); then cancel. Nothing is lost: the next owner repeats."""
        task = self._task
        if task is None:
            return
        remaining_s = max(0.0, deadline - asyncio.get_running_loop().time())
        await asyncio.wait([task], timeout=remaining_s)
        if not task.done():
            self._log.warning(
                "writes in hand were given up; the next owner repeats them",
                topic=self.partition.topic,
                partition=self.partition.partition,
            )
            self._is_given_up = True
            task.cancel()
            await asyncio.wait([task])

    async def _run(self, failed: Report) -> None:
        try:
            await self._settle_until_stopped()
        except Unsettleable as stop:
            self._alarm(str(stop), stop.offset)
        except StoreRefused as refusal:
            self._alarm(f"the database refuses what is to be settled: {refusal}", self._next_offset)
        except (ConsumerStoppedError, IllegalStateError):
            pass  # the partition is not ours any more
        except asyncio.CancelledError:
            if not self._is_stopping:
                raise
        except KafkaError as error:
            failed(error)
        except Exception as error:  # a defect of ours: this partition cannot go on, the others can
            self._alarm(f"settling failed: {error!r}", self._next_offset)

    async def _settle_until_stopped(self) -> None:
        """Settle until it is told to end, or something stops the partition; what is written by then is recorded."""
        try:
            await self._settle_for_ever()
        except asyncio.CancelledError:
            if not self._is_stopping or self._is_given_up:
                raise
        except Unsettleable:
            await self._record_progress()
            raise
        await self._record_progress()

    async def _settle_for_ever(self) -> None:
        await self._take_over()
        loop = asyncio.get_running_loop()
        pace_s = self._config.pace_ms / 1000
        chunk_records = self._config.chunk_records
        while not self._is_stopping:
            records = await self._fetch()
            next_fetch = loop.time() + pace_s
            for start in range(0, len(records), chunk_records):
                await self._settle(records[start : start + chunk_records] if len(records) > chunk_records else records)
                if self._is_stopping:
                    return
            if self._record_due is not None and self._record_due <= loop.time():
                await self._record_progress()
            if records and (early_s := next_fetch - loop.time()) > 0:
                await self._wait(asyncio.sleep(early_s))

    async def _take_over(self) -> None:
        """Find out what is settled, and go to the first record that may not be."""
        topic, number = self.partition
        progress = await self._wait(self._store.read_progress(topic, number))
        committed = await self._wait(self._consumer.committed(self.partition))
        offset = resume_offset(progress, committed)
        if progress is None or offset < progress.next_offset:
            beginnings = await self._wait(self._consumer.beginning_offsets([self.partition]))
            offset = resume_offset(progress, committed, beginnings[self.partition])
        if progress is not None and offset != committed:
            # The group's offset is brought to where the rows are, so that it does not wait for a next record.
            self._committer.add(self.partition, offset)
        self._settled = self._recorded = progress or NOTHING_SETTLED
        self._seen = NOTHING_SEEN
        self._next_offset = offset
        self._consumer.seek(self.partition, offset)
        self._consumer.resume(self.partition)
        self._log.info(
            "partition taken over", topic=topic, partition=number, offset=offset, sequence=self._settled.sequence
        )

    async def _fetch(self) -> Sequence[Record]:
        """The next records, possibly none. Raises Unsettleable when they cannot be had."""
        attempt = 0
        while True:
            try:
                fetched = await self._wait(self._consumer.getmany(self.partition, timeout_ms=self._poll_ms()))
                return fetched.get(self.partition, ())
            except NoOffsetForPartitionError:
                # The client looked for a position before it was given one; it has one now.
                self._consumer.seek(self.partition, self._next_offset)
            except OffsetOutOfRangeError:
                raise Unsettleable("the next record is not in the log (any more)", self._next_offset) from None
            except RecordTooLargeError:
                raise Unsettleable("the next record is larger than the fetch limit", self._next_offset) from None
            except CorruptRecordException as error:
                # The client has thrown away what it read before the corrupt batch, and would go on behind it.
                self._consumer.seek(self.partition, self._next_offset)
                attempt += 1
                if attempt >= _CORRUPT_FETCH_ATTEMPTS:
                    raise Unsettleable(f"the log is corrupt: {error}", self._next_offset) from None
                await self._wait(asyncio.sleep(self._config.backoff.delay_s(attempt, self._randomness)))

    def _poll_ms(self) -> int:
        """How long the next fetch may wait: until progress is to be written, or for long."""
        poll_ms = self._config.poll_ms
        if self._record_due is None:
            return poll_ms
        left_s = self._record_due - asyncio.get_running_loop().time()
        return max(0, min(poll_ms, ceil(left_s * 1000)))

    async def _settle(self, records: Sequence[Record]) -> None:
        """Write what the records say; progress and the offset follow.

        Raises Unsettleable, after all that precedes the bad record is written.
        """
        batch = RowBatch()
        bad: Unsettleable | None = None
        settled = self._settled
        next_offset = self._next_offset
        for record in records:
            try:
                link = self._read(record, batch)
            except Unsettleable as stop:
                bad = stop
                break
            next_offset = record.offset + 1
            if link.sequence > settled.sequence:
                settled = Progress(link.sequence, link.hash, next_offset)
        if next_offset != self._next_offset:
            await self._record(batch, settled, next_offset)
            self._log.debug(
                "settled",
                topic=self.partition.topic,
                partition=self.partition.partition,
                sequence=settled.sequence,
                offset=next_offset,
                lag_ms=self._clock.now_ns() // 1_000_000 - records[-1].timestamp,
            )
        if bad is not None:
            raise bad

    async def _record(self, batch: RowBatch, settled: Progress, next_offset: int) -> None:
        """Write rows. Only when all of them are acknowledged may progress, and then the offset, speak of them."""
        await self._store.write(self._store.writes_of(batch))
        self._log_written(batch)
        self._settled = settled
        self._next_offset = next_offset
        if self._record_due is None:
            self._record_due = asyncio.get_running_loop().time() + self._config.checkpoint_ms / 1000

    async def _record_progress(self) -> None:
        """Rows, then progress, then offset: what is recorded as settled has rows that are acknowledged."""
        if self._record_due is None:
            return
        settled = self._settled
        if settled is not self._recorded:
            await self._store.write_progress(self.partition.topic, self.partition.partition, settled)
            self._recorded = settled
        self._record_due = None
        self._committer.add(self.partition, self._next_offset)

    def _read(self, record: Record, batch: RowBatch) -> Link:
        """Verify a record and put its rows into the batch. Raises Unsettleable."""
        try:
            if self.partition.topic == ENGINE_OUTPUTS:
                output, own_hash = ENGINE_OUTPUT.unseal(record.value)
                link = Link(record.offset, output.output_seq, output.prev_hash, own_hash)
                self._verify(link, output.symbol_partition)
                batch.add_output(output)
                self._log_consumed(output, record.offset)
            else:
                event, own_hash = BALANCE_EVENT.unseal(record.value)
                link = Link(record.offset, event.sequence, event.prev_hash, own_hash)
                self._verify(link, event.user_partition)
                batch.add_balance_event(event)
        except WireError as error:
            raise Unsettleable(f"undecodable record: {error}", record.offset) from None
        return link

    def _verify(self, link: Link, owner: int) -> None:
        """Go one record on in the chain. Raises Unsettleable."""
        if owner != self.partition.partition:
            raise Unsettleable(f"the record says that it belongs to partition {owner}", link.offset)
        verdict = judge(self._settled, self._seen, link)
        if verdict is Verdict.GAP:
            expected = (self._seen.sequence or self._settled.sequence) + 1
            raise Unsettleable(f"sequence gap: expected {expected}, found {link.sequence}", link.offset)
        if verdict is Verdict.BROKEN:
            raise Unsettleable(f"broken chain: sequence {link.sequence} does not link to what precedes it", link.offset)
        self._seen = link

    def _log_consumed(self, output: EngineOutput, offset: int) -> None:
        info = self._log.info
        for placement in output.order_placements:
            info("consumed", order_id=placement.order_id, kind="OrderPlacement", offset=offset)
        for update in output.order_updates:
            info("consumed", order_id=update.order_id, kind="OrderUpdate", offset=offset)
        for completion in output.order_completions:
            info("consumed", order_id=completion.order_id, kind="OrderCompletion", offset=offset)

    def _log_written(self, batch: RowBatch) -> None:
        """Tell of every order whose rows are acknowledged."""
        info = self._log.info
        for order in batch.lifecycle:
            if isinstance(order, OrderCompletion):
                info("order completed", order_id=order.order_id, revision=order.revision, reason=order.reason)
            elif isinstance(order, OrderPlacement):
                info("row written", order_id=order.order_id, revision=order.revision)
            else:
                info("status updated", order_id=order.order_id, revision=order.revision, status=order.status)
        for refusal in batch.refused.values():
            info("refusal recorded", order_id=refusal.order_id, reason=refusal.reason)
        for event in batch.unstorable:
            self._log.warning(
                "refused request has no row: its numbers fit no column",
                topic=event.input_topic,
                offset=event.input_offset,
            )

    async def _wait(self, awaitable: Awaitable[T]) -> T:
        """Await something that a stop may interrupt without harm."""
        self._is_waiting = True
        try:
            return await awaitable
        finally:
            self._is_waiting = False

    def _alarm(self, reason: str, offset: int) -> None:
        topic, number = self.partition
        # Stopped, not given back: its next owner would stop at the same record.
        with suppress(IllegalStateError):
            self._consumer.pause(self.partition)
        self._log.critical(f"partition stopped: {reason}", topic=topic, partition=number, offset=offset)


async def _first_of(*futures: "asyncio.Future[None]") -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


class Committer:
    """Commits the offsets of all partitions, one commit at a time, the newest of each. Never urgent, never lost.

    A commit that fails is repeated until it succeeds or the partition is taken away; rows and progress are written
    already, so all that a missing commit costs is a replay.
    """

    def __init__(self, consumer: KafkaConsumer, log: Log, randomness: Randomness, config: SettlementConfig) -> None:
        self._consumer = consumer
        self._log = log
        self._randomness = randomness
        self._config = config
        self._pending: dict[TopicPartition, int] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, partition: TopicPartition, offset: int) -> None:
        """Commit `offset` soon."""
        self._pending[partition] = offset
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    def forget(self, partition: TopicPartition) -> None:
        """The partition is not ours any more."""
        self._pending.pop(partition, None)

    async def flush(self, deadline: float) -> None:
        """Wait until nothing is pending, or until `deadline` (loop time); then give up what is under way.

        For when partitions are taken away. Left alone, the client would repeat a commit whose answer was lost under its
        next generation, and take back what the next owner has committed meanwhile.
        """
        task = self._task
        if task is None or task.done():
            return
        await asyncio.wait([task], timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
        if not task.done():
            task.cancel()
            await asyncio.wait([task])

    def stop(self) -> None:
        """Give up what is pending."""
        self._pending.clear()
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        attempt = 0
        while self._pending:
            assigned = self._consumer.assignment()
            offsets = {partition: self._pending[partition] for partition in self._pending if partition in assigned}
            if not offsets:
                self._pending.clear()
                return
            try:
                # Bounded by the release of the partitions only: the client repeats by itself.
                await self._consumer.commit(offsets)
            except KafkaError as error:
                self._log.warning("offset commit failed; the rows are written", error=repr(error))
                if isinstance(error, CommitFailedError):
                    # A rebalance was under way. The next owner repeats these; what came since may have a new one: us.
                    self._drop(offsets)
                    continue
                await asyncio.sleep(self._config.backoff.delay_s(attempt, self._randomness))
                attempt += 1
            else:
                attempt = 0
                self._drop(offsets)

    def _drop(self, offsets: dict[TopicPartition, int]) -> None:
        """These are done with, but for partitions that have a newer one by now."""
        for partition, offset in offsets.items():
            if self._pending.get(partition) == offset:
                del self._pending[partition]
