"""Rebuilding a partition's state from its own committed output (design 4.3.2 and 4.3.5).

To be called when the partition's producer has started, which has fenced the last owner and ended its transaction. Then
the output partition can only grow by our own hand: its end is noted, and everything committed before it is read.

The end is the high watermark, and reading goes on until the read-committed position has passed it, markers included.
Were the end taken as a read-committed consumer sees it, it would be the last stable offset, which lags behind a
transaction whose marker is still being written; a committed output could be missed, and its sequence given out twice.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from aiokafka.errors import CorruptRecordException, OffsetOutOfRangeError, RecordTooLargeError
from aiokafka.structs import TopicPartition

from engine.corruption import CorruptInputError
from engine.ownership_settings import OwnershipSettings
from engine.partition_core import Duty, PartitionCore
from engine.snapshots import Snapshot, SnapshotStore
from schema.ports import KafkaClients, KafkaConsumer, Log
from schema.topics import MAX_RECORD_BYTES
from schema.wire import WireError

if TYPE_CHECKING:
    from aiokafka.structs import ConsumerRecord


class CorruptRecordError(Exception):
    """A CorruptInputError or WireError with the place of the record: the partition stops, with an alarm."""

    def __init__(self, topic: str, partition: int, offset: int, reason: str) -> None:
        super().__init__(f"{topic}-{partition} at offset {offset}: {reason}")
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self.reason = reason


class Recovered(NamedTuple):
    """The state as committed. `snapshot_sequence` is the sequence it was built from, 0 for the whole log."""

    core: PartitionCore
    snapshot_sequence: int


class _SnapshotRefusedError(Exception):
    """The snapshot does not belong to this log; the message says why."""


async def recover(
    duty: Duty, partition: int, clients: KafkaClients, store: SnapshotStore, settings: OwnershipSettings, log: Log
) -> Recovered:
    """The partition's state after its last committed output.

    Tries the snapshots, newest first, then the whole log. Raises CorruptRecordError when the log itself cannot be
    followed, and KafkaError when it cannot be read now.
    """
    output = TopicPartition(duty.output_topic, partition)
    end = await _high_watermark(clients, output, settings)
    reader = _reader(clients, settings, "read_committed")
    reader.assign([output])
    try:
        await reader.start()
        replay = _Replay(duty, reader, output, end, settings)
        for name in await store.names():
            snapshot = await store.load(name)
            if snapshot is None:
                continue
            try:
                core = await replay.from_snapshot(snapshot)
            except _SnapshotRefusedError as error:
                log.warning("snapshot refused", name=name, reason=str(error))
                continue
            return Recovered(core, snapshot.sequence)
        return Recovered(await replay.from_the_beginning(), 0)
    finally:
        await _close(reader, settings)


async def _high_watermark(clients: KafkaClients, output: TopicPartition, settings: OwnershipSettings) -> int:
    consumer = _reader(clients, settings, "read_uncommitted")
    try:
        await consumer.start()
        return (await consumer.end_offsets([output]))[output]
    finally:
        await _close(consumer, settings)


def _reader(clients: KafkaClients, settings: OwnershipSettings, isolation_level: str) -> KafkaConsumer:
    """A consumer of no group."""
    return clients.consumer(
        group_id=None,
        isolation_level=isolation_level,
        enable_auto_commit=False,
        auto_offset_reset="none",
        request_timeout_ms=settings.request_timeout_ms,
        retry_backoff_ms=settings.retry_backoff_ms,
        max_partition_fetch_bytes=MAX_RECORD_BYTES,
    )


async def _close(consumer: KafkaConsumer, settings: OwnershipSettings) -> None:
    try:
        async with asyncio.timeout(settings.stop_timeout_ms / 1000):
            await consumer.stop()
    except TimeoutError:
        pass  # It holds nothing: it is of no group and owns no partition.


class _Replay:
    """Reads one output partition up to `end` and lets a core follow it."""

    def __init__(
        self, duty: Duty, reader: KafkaConsumer, output: TopicPartition, end: int, settings: OwnershipSettings
    ) -> None:
        self._duty = duty
        self._reader = reader
        self._output = output
        self._end = end
        self._settings = settings

    async def from_snapshot(self, snapshot: Snapshot) -> PartitionCore:
        """Raises _SnapshotRefusedError when the committed records say otherwise than the snapshot."""
        if snapshot.output_offset >= self._end:
            raise _SnapshotRefusedError(
                f"its record would stand at offset {snapshot.output_offset}, the log ends before {self._end}"
            )
        try:
            core = self._duty.restore_core(self._output.partition, snapshot.state)
        except ValueError as error:
            raise _SnapshotRefusedError(str(error)) from None
        next_offsets = {topic: core.next_offset(topic) for topic in self._duty.input_topics}
        stated_offsets = {topic: snapshot.next_offsets.get(topic) for topic in self._duty.input_topics}
        if (core.sequence, core.last_hash, next_offsets) != (snapshot.sequence, snapshot.hash, stated_offsets):
            raise _SnapshotRefusedError("its state is not at the sequence, hash and offsets that its header names")
        is_first = True

        def follow(record: "ConsumerRecord[bytes, bytes]") -> None:
            nonlocal is_first
            if not is_first:
                core.replay(record.value)
                return
            is_first = False
            committed = self._duty.read_output(record.value)
            if record.offset != snapshot.output_offset or committed != (snapshot.sequence, snapshot.hash):
                raise CorruptInputError(
                    f"sequence {snapshot.sequence} has hash {snapshot.hash} in it, but committed at offset "
                    f"{record.offset} is sequence {committed[0]} with hash {committed[1]}"
                )

        try:
            await self._follow(snapshot.output_offset, follow)
        except (CorruptRecordError, OffsetOutOfRangeError) as error:
            # The log itself may be at fault. Then the whole log, read last, cannot be followed either.
            raise _SnapshotRefusedError(str(error)) from error
        if is_first:
            raise _SnapshotRefusedError("the record that it names was not committed")
        return core

    async def from_the_beginning(self) -> PartitionCore:
        core = self._duty.new_core(self._output.partition)
        beginning = (await self._reader.beginning_offsets([self._output]))[self._output]
        await self._follow(beginning, lambda record: core.replay(record.value))
        return core

    async def _follow(self, start: int, follow: "Callable[[ConsumerRecord[bytes, bytes]], None]") -> None:
        """Call `follow` for each committed record from `start` to the end.

        Raises CorruptRecordError where the log cannot be followed, be it what a record says or that it cannot be read.
        """
        output = self._output
        reader = self._reader
        reader.seek(output, start)
        turn = self._settings.replay_records_per_turn
        replayed = 0
        next_offset = start
        while await reader.position(output) < self._end:
            try:
                batches = await reader.getmany(output, timeout_ms=self._settings.poll_timeout_ms)
            except (CorruptRecordException, RecordTooLargeError) as error:
                # The bytes as stored are wrong, or too many: reading them again would not help.
                raise CorruptRecordError(output.topic, output.partition, next_offset, repr(error)) from error
            for record in batches.get(output, ()):
                try:
                    follow(record)
                except (CorruptInputError, WireError) as error:
                    raise CorruptRecordError(output.topic, output.partition, record.offset, str(error)) from error
                next_offset = record.offset + 1
                replayed += 1
                if replayed % turn == 0:
                    await asyncio.sleep(0)
