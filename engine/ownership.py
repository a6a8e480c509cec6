"""Owning partitions: being a member of the service's group, and giving up what it takes away (design 4.3).

    OwnershipService     outermost loop: join the group, and join it again after being fenced or losing the cluster
      Membership         one life as a member: one consumer, one poller, a PartitionTask for each number it owns
        PartitionTask    takes its partition over and works its input off (`engine.partition_task`)

There is one consumer and one poller for all partitions. A partition is paused from its assignment until its task has
rebuilt the state and set the positions, and whenever records pile up in its inbox; records that come all the same are
for a position that will be set anew, and are let go. So nothing is lost on the way, and no partition holds up another.

A partition whose input cannot be what was written stays owned and paused: it has raised its alarm, the others go on.
"""

import asyncio
from collections.abc import Iterable

from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import (
    CorruptRecordException,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    RecordTooLargeError,
)
from aiokafka.structs import TopicPartition

from engine.ownership_settings import OwnershipSettings
from engine.partition_core import Duty
from engine.partition_task import PartitionTask
from engine.surroundings import Surroundings
from engine.transactions import FencedError
from schema.ports import Clock, Disk, KafkaClients, KafkaConsumer, Log, Randomness
from schema.topics import MAX_RECORD_BYTES


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
        self.surroundings = Surroundings(duty, kafka, disk, clock, randomness, log, settings or OwnershipSettings())
        self._stopping = asyncio.Event()

    def request_stop(self) -> None:
        """End `run` soon: running transactions are let end, then the group is left. For SIGTERM."""
        self._stopping.set()

    async def run(self) -> None:
        """Own partitions until `request_stop`. A fenced instance leaves the group and joins again."""
        surroundings = self.surroundings
        failures = 0
        while not self._stopping.is_set():
            membership = Membership(surroundings)
            try:
                await membership.run(self._stopping)
            except (FencedError, KafkaError) as error:
                failures = 1 if membership.has_committed else failures + 1
                surroundings.log.warning(
                    "leaving the group to join again", service=surroundings.duty.service, reason=repr(error)
                )
                await surroundings.back_off(failures, self._stopping)


class Membership(ConsumerRebalanceListener):  # type: ignore[misc]
    """One life as a member of the group, from joining to leaving."""

    def __init__(self, surroundings: Surroundings) -> None:
        self.surroundings = surroundings
        self.duty = surroundings.duty
        self.settings = surroundings.settings
        self.log = surroundings.log
        self.has_committed = False
        self.consumer: KafkaConsumer = self._make_consumer()
        self._tasks: dict[int, PartitionTask] = {}
        self._is_leaving = False
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def _make_consumer(self) -> KafkaConsumer:
        settings = self.settings
        return self.surroundings.kafka.consumer(
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
        stop = asyncio.create_task(self.consumer.stop(), name=f"{self.duty.service} consumer stop")
        self.surroundings.closing.append(stop)
        await asyncio.wait([stop], timeout=self.settings.stop_timeout_ms / 1000)
        if stop.done():
            self._closed(stop)
        else:
            # Not cancelled: a client that is left half closed can keep a partition that nobody works on. It leaves the
            # group as soon as it can, beside the next membership; the group evicts one that is not heard of.
            self.log.warning("consumer not closed yet", service=self.duty.service)
            stop.add_done_callback(self._closed)

    def _closed(self, stop: "asyncio.Task[None]") -> None:
        self.surroundings.closing.remove(stop)
        if stop.cancelled():
            return
        if (error := stop.exception()) is not None:
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
            except CorruptRecordException as error:
                # The client names the partition in words only, and may have lost what it had read of the others. So no
                # input can be trusted to follow on: all is taken over anew, and somebody has to mend the log.
                self.log.critical("input is corrupt in the log", service=self.duty.service, reason=str(error))
                raise
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
            task = PartitionTask(self.surroundings, self.consumer, number, self._committed, self._fail)
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

    def _committed(self) -> None:
        self.has_committed = True

    def _fail(self, error: FencedError) -> None:
        """End this membership: `run` raises the error."""
        if not self._failure.done():
            self._failure.set_exception(error)


async def _until(event: asyncio.Event) -> None:
    await event.wait()
