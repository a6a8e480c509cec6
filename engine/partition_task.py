"""One owned partition: take it over, then batch after batch in transactions, until it is given up (design 4.3).

Whatever goes wrong, the state and the producer are thrown away and the partition is taken over anew, from the log. Two
things end that: input that cannot be what was written (an alarm, and the partition stands still while it is owned),
and being fenced (the whole instance leaves the group and joins again).
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from aiokafka.errors import IllegalStateError, KafkaError
from aiokafka.structs import TopicPartition

from engine.corruption import CorruptInputError
from engine.partition_core import Outgoing, PartitionCore
from engine.snapshots import Snapshot, SnapshotStore, is_due
from engine.surroundings import Surroundings
from engine.takeover import CorruptRecordError, recover
from engine.transactions import UNKNOWN_OFFSET, FencedError, TransactionalWriter, TransactionFailedError
from schema.ports import KafkaConsumer
from schema.wire import WireError

if TYPE_CHECKING:
    from aiokafka.structs import ConsumerRecord


class PartitionTask:
    """Takes one partition number over and works its input off, until it is told to end."""

    def __init__(
        self,
        surroundings: Surroundings,
        consumer: KafkaConsumer,
        number: int,
        on_committed: Callable[[], object],
        on_fenced: Callable[[FencedError], object],
    ) -> None:
        """`on_committed` is told of each transaction, `on_fenced` when this instance must end and join again."""
        self._surroundings = surroundings
        self._duty = surroundings.duty
        self._settings = surroundings.settings
        self._log = surroundings.log
        self._consumer = consumer
        self._number = number
        self._on_committed = on_committed
        self._on_fenced = on_fenced
        self._inputs = tuple(TopicPartition(topic, number) for topic in self._duty.input_topics)
        self._input_of = {place.topic: place for place in self._inputs}
        self._output = TopicPartition(self._duty.output_topic, number)
        self._store = SnapshotStore(
            surroundings.disk, self._duty.service, number, self._duty.code_version, surroundings.log
        )
        self._inbox: deque[ConsumerRecord[bytes, bytes]] = deque()
        self._is_accepting = False
        self._is_paused = True
        self._unreadable: tuple[str, str] | None = None
        self._wake = asyncio.Event()
        self._ending = asyncio.Event()
        self._failures = 0
        self._sequence_at_snapshot = 0
        self._snapshot_bytes = 0
        self._last_output_offset = UNKNOWN_OFFSET
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
            if await self._is_over():
                # Whoever owns the consumer has been told, or has taken the partition away, and ends this task.
                await self._ending.wait()
            elif not self._ending.is_set():
                await self._surroundings.back_off(self._failures, self._ending)

    async def _is_over(self) -> bool:
        """Own the partition until that ends in some way. False when it is worth another attempt."""
        try:
            await self._own()
        except CorruptRecordError as error:
            self._log.critical(
                "partition stopped: input cannot be what was written",
                service=self._duty.service,
                topic=error.topic,
                partition=error.partition,
                offset=error.offset,
                reason=error.reason,
            )
        except FencedError as error:
            self._on_fenced(error)
        except IllegalStateError:
            # The consumer does not have the partition any more.
            pass
        except (TransactionFailedError, KafkaError) as error:
            self._failures += 1
            self._log.warning(
                "taking the partition over anew",
                service=self._duty.service,
                partition=self._number,
                reason=repr(error),
            )
            return False
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
            return False
        return True

    async def _own(self) -> None:
        """Take over and work until the end is requested. Whatever is raised, nothing of the state outlives it."""
        writer = TransactionalWriter(
            self._surroundings.kafka, f"{self._duty.service}-{self._number}", self._settings, self._log
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
        ending = asyncio.create_task(self._ended())
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
        recovered = await recover(
            self._duty, self._number, self._surroundings.kafka, self._store, self._settings, self._log
        )
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
            batch = self._take(settings.batch_records_max)
            if self._is_paused and len(inbox) < settings.inbox_records_max // 2 and self._unreadable is None:
                self._is_paused = False
                self._consumer.resume(*self._inputs)
            await self._transact(core, writer, batch)
            outputs_since = core.sequence - self._sequence_at_snapshot
            if is_due(outputs_since, settings.snapshot_interval_outputs, self._snapshot_bytes):
                await self._save_snapshot(core)

    def _take(self, records_max: int) -> "list[ConsumerRecord[bytes, bytes]]":
        """The next records of the inbox."""
        inbox = self._inbox
        if len(inbox) > records_max:
            return [inbox.popleft() for _ in range(records_max)]
        batch = list(inbox)
        inbox.clear()
        return batch

    async def _transact(
        self, core: PartitionCore, writer: TransactionalWriter, batch: "list[ConsumerRecord[bytes, bytes]]"
    ) -> None:
        """Decide a batch and commit it whole. Of a batch with poison in it, what stands before the poison."""
        outgoing = Outgoing()
        poison: CorruptRecordError | None = None
        due = self._first_not_taken(core)
        for record in batch:
            topic, offset = record.topic, record.offset
            if offset < due.get(topic, 0):
                self._log.warning("input taken before", topic=topic, partition=record.partition, offset=offset)
                continue
            try:
                core.decide(record, outgoing)
            except (CorruptInputError, WireError) as error:
                poison = CorruptRecordError(topic, record.partition, offset, str(error))
                poison.__cause__ = error
                break
            due[topic] = offset + 1
        if outgoing:
            offsets = {self._input_of[topic]: offset for topic, offset in due.items()}
            last_offsets = await writer.write(outgoing, offsets, self._duty.service)
            core.announce(self._log)
            self._failures = 0
            self._on_committed()
            self._last_output_offset = last_offsets[self._output]
        if poison is not None:
            raise poison

    def _first_not_taken(self, core: PartitionCore) -> dict[str, int]:
        """Of each input the first offset that no output names yet; what stands before it is not decided again."""
        return self._next_offsets(core)

    def _next_offsets(self, core: PartitionCore) -> dict[str, int]:
        """Where each input is to be read on, but for those that were never read."""
        due = {topic: core.next_offset(topic) for topic in self._duty.input_topics}
        return {topic: offset for topic, offset in due.items() if offset is not None}

    async def _save_snapshot(self, core: PartitionCore) -> None:
        """Between transactions, so all of the state is committed. A disk that fails costs a longer replay, no more."""
        if self._last_output_offset == UNKNOWN_OFFSET:
            return
        snapshot = Snapshot(
            core.sequence,
            core.last_hash,
            self._last_output_offset,
            self._next_offsets(core),
            self._surroundings.clock.now_ns(),
            core.snapshot(),
        )
        self._sequence_at_snapshot = core.sequence
        self._snapshot_bytes = len(snapshot.state)
        try:
            await self._store.save(snapshot)
        except OSError as error:
            self._log.warning(
                "snapshot not saved", service=self._duty.service, partition=self._number, reason=repr(error)
            )

    async def _ended(self) -> None:
        await self._ending.wait()
