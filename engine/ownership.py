"""Owning partitions: joining the group, taking a partition over, running it, giving it up (design 4.3).

    OwnershipService     outermost loop: join the group, and join it again after being fenced or losing the cluster
      Membership         one life as a member: one consumer, one poller, a PartitionTask for each number it owns
        PartitionTask    take over, then batch after batch in transactions; after any failure, take over anew

There is one consumer and one poller for all partitions. A partition is paused from its assignment until its task has
rebuilt the state and set the positions, and whenever records pile up in its inbox; records that come all the same are
for a position that will be set anew, and are let go. So nothing is lost on the way, and no partition holds up another.

A partition whose input cannot be what was written stays owned and paused: it has raised its alarm, the others go on.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import (
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    RecordTooLargeError,
)
from aiokafka.structs import TopicPartition

from engine.corruption import CorruptInputError
from engine.ownership_settings import OwnershipSettings
from engine.partition_core import Duty, Outgoing, PartitionCore
from engine.snapshots import Snapshot, SnapshotStore
from engine.takeover import CorruptRecordError, recover
from engine.transactions import FencedError, TransactionalWriter, TransactionFailedError
from schema.ports import Clock, Disk, KafkaClients, KafkaConsumer, Log, Randomness
from schema.topics import MAX_RECORD_BYTES
from schema.wire import WireError

if TYPE_CHECKING:
    from aiokafka.structs import ConsumerRecord, RecordMetadata

_NO_OFFSET: Final = -1
"""The offset of a delivery that the broker had seen before: it was written, it does not say where."""


class OwnershipService:
    """A duty, run as one member of the service's consumer group."""

    def __init__(
        self,
        duty: Duty,
        *,
        kafka: KafkaClients,
        disk: Disk,
        clock: Clock,
        randomness: Randomness,
        log: Log,
        settings: OwnershipSettings | None = None,
    ) -> None:
        self.duty = duty
        self.kafka = kafka
        self.disk = disk
        self.clock = clock
        self.log = log
        self.settings = settings or OwnershipSettings()
        self._randomness = randomness
        self._stopping = asyncio.Event()

    def request_stop(self) -> None:
        """End `run` soon: running transactions are let end, then the group is left. For SIGTERM."""
        self._stopping.set()

    async def run(self) -> None:
        """Own partitions until `request_stop`. A fenced instance leaves the group and joins again."""
        failures = 0
        while not self._stopping.is_set():
            membership = Membership(self)
            try:
                await membership.run(self._stopping)
            except (FencedError, KafkaError) as error:
                failures = 1 if membership.has_committed else failures + 1
                self.log.warning("leaving the group to join again", service=self.duty.service, reason=repr(error))
                await self.back_off(failures, self._stopping)

    async def back_off(self, failures: int, unless: asyncio.Event) -> None:
        """Pause before the next attempt, longer with each failure in a row; no longer than until `unless` is set."""
        settings = self.settings
        pause_ms = min(settings.backoff_max_ms, settings.backoff_initial_ms << min(failures - 1, 20))
        pause_ms -= self._randomness.below(pause_ms // 2 + 1)
        try:
            async with asyncio.timeout(pause_ms / 1000):
                await unless.wait()
        except TimeoutError:
            pass


class Membership(ConsumerRebalanceListener):  # type: ignore[misc]
    """One life as a member of the group, from joining to leaving."""

    def __init__(self, service: OwnershipService) -> None:
        self.service = service
        self.duty = service.duty
        self.settings = service.settings
        self.log = service.log
        self.has_committed = False
        self.consumer: KafkaConsumer = self._make_consumer()
        self._tasks: dict[int, PartitionTask] = {}
        self._is_leaving = False
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def _make_consumer(self) -> KafkaConsumer:
        settings = self.settings
        return self.service.kafka.consumer(
            group_id=self.duty.service,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="none",
            partition_assignment_strategy=(RangePartitionAssignor,),
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=settings.heartbeat_interval_ms,
            rebalance_timeout_ms=settings.rebalance_timeout_ms,
            request_timeout_ms=settings.request_timeout_ms,
            retry_backoff_ms=settings.retry_backoff_ms,
            max_partition_fetch_bytes=MAX_RECORD_BYTES,
            fetch_max_wait_ms=settings.fetch_wait_ms,
        )

    async def run(self, stopping: asyncio.Event) -> None:
        """Be a member until `stopping` is set.

        Raises FencedError when a partition was fenced, and KafkaError when the consumer cannot go on. In every case the
        partitions are given up and the group is left before this returns.
        """
        poller = asyncio.create_task(self._poll(), name=f"{self.duty.service} poller")
        stop = asyncio.create_task(_until(stopping), name=f"{self.duty.service} stop")
        try:
            await asyncio.wait([poller, stop, self._failure], return_when=asyncio.FIRST_COMPLETED)
            if self._failure.done():
                self._failure.result()
            if poller.done():
                poller.result()
        finally:
            self._is_leaving = True
            stop.cancel()
            poller.cancel()
            await asyncio.wait([poller, stop])
            await self._give_up(list(self._tasks))
            await self._close_consumer()
            if self._failure.done():
                self._failure.exception()

    async def _close_consumer(self) -> None:
        try:
            async with asyncio.timeout(self.settings.stop_timeout_ms / 1000):
                await self.consumer.stop()
        except (TimeoutError, KafkaError) as error:
            # The group evicts a member that is not heard of.
            self.log.warning("consumer not closed", service=self.duty.service, reason=repr(error))

    async def _poll(self) -> None:
        self.consumer.subscribe(self.duty.input_topics, listener=self)
        await self.consumer.start()
        settings = self.settings
        while True:
            try:
                batches = await self.consumer.getmany(
                    timeout_ms=settings.poll_timeout_ms, max_records=settings.poll_records_max
                )
            except NoOffsetForPartitionError:
                # The fetcher was faster than the listener, which sets a position of our own.
                continue
            except (OffsetOutOfRangeError, RecordTooLargeError) as error:
                self._stop_unreadable(error)
                continue
            for place, records in batches.items():
                task = self._tasks.get(place.partition)
                if task is not None:
                    task.hand_over(records)
            # With records always at hand, getmany never waits, and nobody else would get a turn.
            await asyncio.sleep(0)

    def _stop_unreadable(self, error: KafkaError) -> None:
        """Input that is gone, or cannot be fetched: nothing behind it may be processed. Stop its partition."""
        for argument in error.args:
            for place in argument if isinstance(argument, dict) else (argument,):
                task = self._tasks.get(place.partition) if isinstance(place, TopicPartition) else None
                if task is not None:
                    task.stop_unreadable(place.topic, repr(error))
                    return
        raise error

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Start the task of each number that is assigned in all input topics; the work is done there, not here."""
        if self._is_leaving:
            return
        places = sorted(assigned)
        for place in places:
            self.consumer.pause(place)
            # A position of our own at once, or the client would look for the group's. The task sets the real one.
            self.consumer.seek(place, 0)
        for number in sorted({place.partition for place in places}):
            topics = [place.topic for place in places if place.partition == number]
            if sorted(topics) != sorted(self.duty.input_topics):
                self.log.warning(
                    "waiting for the other input topics", service=self.duty.service, partition=number, topics=topics
                )
                continue
            await self._give_up([number])
            task = PartitionTask(self, number)
            self._tasks[number] = task
            task.start()

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Return only when the running transactions have ended, or were given up."""
        await self._give_up(sorted({place.partition for place in revoked}))

    async def _give_up(self, numbers: list[int]) -> None:
        """End the tasks of these numbers: let each finish its transaction, but not for ever."""
        tasks = [task for number in numbers if (task := self._tasks.pop(number, None)) is not None]
        for task in tasks:
            task.request_end()
        running = [task.task for task in tasks if task.task is not None]
        if not running:
            return
        await asyncio.wait(running, timeout=self.settings.revocation_timeout_ms / 1000)
        late = [run for run in running if not run.done()]
        for run in late:
            run.cancel()
        if late:
            self.log.warning("transactions given up", service=self.duty.service, tasks=len(late))
            await asyncio.wait(late)

    def fail(self, error: Exception) -> None:
        """End this membership: `run` raises the error."""
        if not self._failure.done():
            self._failure.set_exception(error)


class PartitionTask:
    """Takes one partition number over and works its input off, until it is told to end."""

    def __init__(self, membership: Membership, number: int) -> None:
        self._membership = membership
        self._service = membership.service
        self._duty = membership.duty
        self._settings = membership.settings
        self._log = membership.log
        self._consumer = membership.consumer
        self._number = number
        self._inputs = tuple(TopicPartition(topic, number) for topic in self._duty.input_topics)
        self._store = SnapshotStore(
            self._service.disk, self._duty.service, number, self._duty.code_version, membership.log
        )
        self._inbox: deque[ConsumerRecord[bytes, bytes]] = deque()
        self._is_accepting = False
        self._is_paused = True
        self._unreadable: tuple[str, str] | None = None
        self._wake = asyncio.Event()
        self._ending = asyncio.Event()
        self._failures = 0
        self._sequence_at_snapshot = 0
        self._last_output_offset = _NO_OFFSET
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to take the partition over."""
        self.task = asyncio.create_task(self._run(), name=f"{self._duty.service}-{self._number}")

    def request_end(self) -> None:
        """Start no further transaction; `task` ends when the running one has."""
        self._ending.set()
        self._wake.set()

    def hand_over(self, records: "list[ConsumerRecord[bytes, bytes]]") -> None:
        """Take records to work off. While the partition is being taken over they are let go: it is read again."""
        if not self._is_accepting:
            return
        self._inbox.extend(records)
        if len(self._inbox) >= self._settings.inbox_records_max and not self._is_paused:
            self._pause()
        self._wake.set()

    def stop_unreadable(self, topic: str, reason: str) -> None:
        """The next input of this partition cannot be had: stop when what came before it is worked off."""
        if self._is_accepting and self._unreadable is None:
            self._unreadable = (topic, reason)
            self._pause()
            self._wake.set()

    def _pause(self) -> None:
        self._is_paused = True
        # The consumer may not have the partition any more.
        with suppress(IllegalStateError):
            self._consumer.pause(*self._inputs)

    async def _run(self) -> None:
        while not self._ending.is_set():
            try:
                await self._own()
                return
            except CorruptRecordError as error:
                self._log.critical(
                    "partition stopped: input cannot be what was written",
                    service=self._duty.service,
                    topic=error.topic,
                    partition=error.partition,
                    offset=error.offset,
                    reason=error.reason,
                )
                await self._ending.wait()
                return
            except FencedError as error:
                self._membership.fail(error)
                await self._ending.wait()
                return
            except IllegalStateError:
                # The consumer does not have the partition any more; whoever took it away ends this task.
                await self._ending.wait()
                return
            except (TransactionFailedError, KafkaError) as error:
                self._failures += 1
                self._log.warning(
                    "taking the partition over anew",
                    service=self._duty.service,
                    partition=self._number,
                    reason=repr(error),
                )
                await self._service.back_off(self._failures, self._ending)
            except Exception as error:
                # A defect of ours. Whatever the state is now, it is thrown away and built again from the log.
                self._failures += 1
                self._log.critical(
                    "partition failed",
                    service=self._duty.service,
                    topic=self._duty.output_topic,
                    partition=self._number,
                    reason=repr(error),
                )
                await self._service.back_off(self._failures, self._ending)

    async def _own(self) -> None:
        """Take over and work until the end is requested. Whatever is raised, nothing of the state outlives it."""
        writer = TransactionalWriter(
            self._service.kafka, f"{self._duty.service}-{self._number}", self._settings, self._log
        )
        try:
            core = await self._take_over(writer)
            if core is not None:
                await self._work(core, writer)
        finally:
            self._is_accepting = False
            self._inbox.clear()
            self._pause()
            await writer.close()

    async def _take_over(self, writer: TransactionalWriter) -> PartitionCore | None:
        """The steps of design 4.3.2, in their order. None when the end was requested meanwhile."""
        taking = asyncio.create_task(self._rebuild(writer), name=f"{self._duty.service}-{self._number} take-over")
        ending = asyncio.create_task(_until(self._ending))
        try:
            await asyncio.wait([taking, ending], return_when=asyncio.FIRST_COMPLETED)
            if self._ending.is_set():
                return None
            core = taking.result()
        finally:
            taking.cancel()
            ending.cancel()
            await asyncio.wait([taking, ending])
            if not taking.cancelled():
                taking.exception()
        unread = [place for place in self._inputs if core.next_offset(place.topic) is None]
        beginnings = await self._consumer.beginning_offsets(unread) if unread else {}
        if self._ending.is_set():
            return None
        for place in self._inputs:
            next_offset = core.next_offset(place.topic)
            self._consumer.seek(place, beginnings[place] if next_offset is None else next_offset)
        self._unreadable = None
        self._is_accepting = True
        self._is_paused = False
        self._consumer.resume(*self._inputs)
        self._log.info(
            "partition taken over",
            service=self._duty.service,
            partition=self._number,
            sequence=core.sequence,
            snapshot_sequence=self._sequence_at_snapshot,
        )
        return core

    async def _rebuild(self, writer: TransactionalWriter) -> PartitionCore:
        await writer.start()
        recovered = await recover(self._duty, self._number, self._service.kafka, self._store, self._settings, self._log)
        self._sequence_at_snapshot = recovered.snapshot_sequence
        return recovered.core

    async def _work(self, core: PartitionCore, writer: TransactionalWriter) -> None:
        """One transaction for each batch of input, until the end is requested. Raises CorruptRecordError on poison."""
        inbox = self._inbox
        settings = self._settings
        while True:
            while not inbox:
                if self._ending.is_set():
                    return
                if self._unreadable is not None:
                    topic, reason = self._unreadable
                    raise CorruptRecordError(topic, self._number, core.next_offset(topic) or 0, reason)
                self._wake.clear()
                await self._wake.wait()
            if self._ending.is_set():
                return
            batch = [inbox.popleft() for _ in range(min(len(inbox), settings.batch_records_max))]
            if self._is_paused and len(inbox) < settings.inbox_records_max // 2 and self._unreadable is None:
                self._is_paused = False
                self._consumer.resume(*self._inputs)
            await self._transact(core, writer, batch)
            interval = settings.snapshot_interval_outputs
            if interval and core.sequence - self._sequence_at_snapshot >= interval:
                await self._save_snapshot(core)

    async def _transact(
        self, core: PartitionCore, writer: TransactionalWriter, batch: "list[ConsumerRecord[bytes, bytes]]"
    ) -> None:
        """Decide a batch and commit it whole. Of a batch with poison in it, what stands before the poison."""
        outgoing: list[Outgoing] = []
        poison: CorruptRecordError | None = None
        for record in batch:
            due = core.next_offset(record.topic)
            if due is not None and record.offset < due:
                self._log.warning(
                    "input taken before", topic=record.topic, partition=record.partition, offset=record.offset
                )
                continue
            try:
                core.decide(record, outgoing)
            except (CorruptInputError, WireError) as error:
                poison = CorruptRecordError(record.topic, record.partition, record.offset, str(error))
                poison.__cause__ = error
                break
        if outgoing:
            offsets = {
                place: next_offset
                for place in self._inputs
                if (next_offset := core.next_offset(place.topic)) is not None
            }
            delivered = await writer.write(outgoing, offsets, self._duty.service)
            core.announce(self._log)
            self._failures = 0
            self._membership.has_committed = True
            self._last_output_offset = self._offset_of_last_output(outgoing, delivered)
        if poison is not None:
            raise poison

    def _offset_of_last_output(self, outgoing: list[Outgoing], delivered: "list[RecordMetadata]") -> int:
        for sent, metadata in zip(reversed(outgoing), reversed(delivered), strict=True):
            if sent.topic == self._duty.output_topic:
                offset: int = metadata.offset
                return offset
        return _NO_OFFSET

    async def _save_snapshot(self, core: PartitionCore) -> None:
        """Between transactions, so all of the state is committed. A disk that fails costs a longer replay, no more."""
        if self._last_output_offset == _NO_OFFSET:
            return
        next_offsets = {
            topic: next_offset
            for topic in self._duty.input_topics
            if (next_offset := core.next_offset(topic)) is not None
        }
        snapshot = Snapshot(
            core.sequence,
            core.last_hash,
            self._last_output_offset,
            next_offsets,
            self._service.clock.now_ns(),
            core.snapshot(),
        )
        self._sequence_at_snapshot = core.sequence
        try:
            await self._store.save(snapshot)
        except OSError as error:
            self._log.warning(
                "snapshot not saved", service=self._duty.service, partition=self._number, reason=repr(error)
            )


async def _until(event: asyncio.Event) -> None:
    await event.wait()
