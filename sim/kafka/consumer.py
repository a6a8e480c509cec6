"""The double of `aiokafka.AIOKafkaConsumer`: same arguments, methods, exceptions and structs, and the same behaviour.

What production meets of the real client, and this one keeps:

- records are prefetched, one request at a time per broker; a partition is not fetched again before its records have
  been taken, and a broker not for 100 ms while any of its partitions has some (prefetch_backoff);
- a partition that is resumed, or has been seeked, waits for the end of the long poll under way at its broker;
- records of a paused partition are dropped from the buffer and fetched again; the position moves past markers and
  aborted records only when the buffer is drained to its end;
- `getmany` waits without its time-out while the group is rebalancing, and a cancelled or failed one never lets the
  client believe again that it is idle: max_poll_interval_ms is then never found to have passed;
- with auto_offset_reset='none', NoOffsetForPartitionError and OffsetOutOfRangeError come out of `getmany`, once per
  fetch;
- looking up the offset to reset to at a broker that is no longer the leader does not refresh the metadata: it is
  tried again at the same broker until something else does.

Not modelled: patterns, static membership, fetching from followers, checksums (bytes do not rot under way), several
assignors.
"""

from __future__ import annotations

import asyncio
import copy
from asyncio import Future
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import msgspec
from aiokafka import __version__
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import (
    ConsumerStoppedError,
    IllegalOperation,
    IllegalStateError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    NoOffsetForPartitionError,
    NotLeaderForPartitionError,
    OffsetOutOfRangeError,
    UnknownTopicOrPartitionError,
)
from aiokafka.structs import ConsumerRecord, OffsetAndMetadata, OffsetAndTimestamp, TopicPartition
from aiokafka.util import commit_structure_validate

from sim.clock import NEVER_NS, NS_PER_MS, NS_PER_SECOND
from sim.kafka.broker import EARLIEST, LATEST, Fetched
from sim.kafka.log import ABORTED, DATA, MIXED, Batch, Record
from sim.kafka.membership import AssignorType, GroupMembership
from sim.kafka.settings import UnsupportedSetting, refuse_unsupported
from sim.kafka.subscription import Assignment, PartitionSet, PartitionState, SubscriptionState
from sim.kafka.transport import Call, Metadata, Transport

if TYPE_CHECKING:
    from sim.hosts import Incarnation
    from sim.kafka.cluster import KafkaCluster
    from sim.loop import LoopTimer

Deserializer = Callable[[bytes | None], object]
BytesRecord: TypeAlias = "ConsumerRecord[bytes, bytes]"

_PREFETCH_BACKOFF_NS = 100_000_000
_NO_LIMIT = 1 << 62
_RESETS = {"earliest": EARLIEST, "latest": LATEST, "none": 0}
_ASSIGNORS = (RangePartitionAssignor, RoundRobinPartitionAssignor)


class _Buffer(msgspec.Struct, eq=False):
    """What was fetched of one partition and is not taken yet; `next_offset` is the position once taken so far."""

    tp: TopicPartition
    assignment: Assignment
    state: PartitionState
    batches: list[Batch]
    next_offset: int
    read_committed: bool
    created_ns: int
    index: int = 0
    is_drained: bool = False

    def is_valid(self) -> bool:
        """Whether its records may still be handed out: assigned, not paused, and the position is where they begin."""
        state = self.state
        return self.assignment.is_active and not state.is_paused and state.position == self.next_offset

    def take(self, limit: int | None, key_of: Deserializer | None, value_of: Deserializer | None) -> list[BytesRecord]:
        """The next records, up to `limit`; moves the position."""
        taken: list[BytesRecord] = []
        topic, partition = self.tp
        offset = self.next_offset
        left = _NO_LIMIT if limit is None else limit
        batches, end = self.batches, len(self.batches)
        is_full = False
        while self.index < end:
            batch = batches[self.index]
            if batch.control == DATA and not (self.read_committed and batch.outcome == ABORTED):
                if offset < batch.base_offset:
                    offset = batch.base_offset
                records = batch.records
                first = offset - batch.base_offset
                count = len(records) - first
                is_full = count >= left
                if is_full:
                    count = left
                if first or is_full:
                    records = records[first : first + count]
                left -= count
                # Once per record of the run and each of its readers.
                stamp_ms = batch.stamp_ms
                if stamp_ms == MIXED:
                    found = [
                        ConsumerRecord(
                            topic,
                            partition,
                            at,
                            timestamp_ms,
                            0,
                            key,
                            value,
                            None,
                            -1 if key is None else len(key),
                            -1 if value is None else len(value),
                            headers,
                        )
                        for at, (timestamp_ms, key, value, headers) in enumerate(
                            cast("Sequence[Record]", records), offset
                        )
                    ]
                else:
                    found = [
                        ConsumerRecord(
                            topic,
                            partition,
                            at,
                            stamp_ms,
                            0,
                            None,
                            value,
                            None,
                            -1,
                            -1 if value is None else len(value),
                            (),
                        )
                        for at, value in enumerate(cast("Sequence[bytes | None]", records), offset)
                    ]
                if key_of is not None or value_of is not None:
                    _deserialize(found, key_of, value_of)
                taken += found
                if is_full:
                    offset += count
                    break
            offset = batch.last_offset + 1
            self.index += 1
        self.next_offset = offset
        self.is_drained = not is_full
        self.state.position = offset
        return taken


def _deserialize(records: list[BytesRecord], key_of: Deserializer | None, value_of: Deserializer | None) -> None:
    for record in records:
        if key_of is not None:
            record.key = cast(bytes, key_of(record.key))
        if value_of is not None:
            record.value = cast(bytes, value_of(record.value))


class _FetchError:
    """An error that the next call for records raises."""

    __slots__ = ("created_ns", "error")

    def __init__(self, error: KafkaError, created_ns: int) -> None:
        self.error = error
        self.created_ns = created_ns


class Consumer:
    """A consumer on one incarnation of a host; see the module for how it behaves."""

    def __init__(
        self,
        cluster: KafkaCluster,
        incarnation: Incarnation,
        *topics: str,
        bootstrap_servers: object = "localhost",
        client_id: str = f"aiokafka-{__version__}",
        group_id: str | None = None,
        key_deserializer: Deserializer | None = None,
        value_deserializer: Deserializer | None = None,
        fetch_max_wait_ms: int = 500,
        fetch_max_bytes: int = 52_428_800,
        max_partition_fetch_bytes: int = 1_048_576,
        request_timeout_ms: int = 40_000,
        retry_backoff_ms: int = 100,
        auto_offset_reset: str = "latest",
        enable_auto_commit: bool = True,
        auto_commit_interval_ms: int = 5_000,
        metadata_max_age_ms: int = 300_000,
        partition_assignment_strategy: Iterable[AssignorType] = (RoundRobinPartitionAssignor,),
        max_poll_interval_ms: int = 300_000,
        rebalance_timeout_ms: int | None = None,
        session_timeout_ms: int = 10_000,
        heartbeat_interval_ms: int = 3_000,
        consumer_timeout_ms: int = 200,
        max_poll_records: int | None = None,
        isolation_level: str = "read_uncommitted",
        **unsupported: object,
    ) -> None:
        refuse_unsupported("AIOKafkaConsumer", unsupported)
        assignors = list(partition_assignment_strategy)
        if len(assignors) != 1 or assignors[0] not in _ASSIGNORS:
            raise UnsupportedSetting("partition_assignment_strategy is one of the Range and RoundRobin assignors")
        if max_poll_records is not None and (not isinstance(max_poll_records, int) or max_poll_records < 1):
            raise ValueError("`max_poll_records` should be positive Integer")
        self._cluster = cluster
        self._clock = cluster.clock
        self._incarnation = incarnation
        self._loop = incarnation.loop
        self._transport = Transport(cluster, incarnation, request_timeout_ms)
        self._transport.is_of_no_group = group_id is None
        self._metadata = Metadata(self._transport, retry_backoff_ms, metadata_max_age_ms)
        self._subscriptions = SubscriptionState(self._loop)
        self._client_id = client_id
        self._group = group_id
        self._key_deserializer = key_deserializer
        self._value_deserializer = value_deserializer
        self._fetch_max_wait_ns = fetch_max_wait_ms * 1_000_000
        self._fetch_max_bytes = fetch_max_bytes
        self._max_partition_fetch_bytes = max_partition_fetch_bytes
        self._request_timeout_s = request_timeout_ms / 1000
        self._backoff_s = retry_backoff_ms / 1000
        self._backoff_ms = retry_backoff_ms
        self._reset = _RESETS.get(auto_offset_reset.lower(), 0)
        self._auto_commit_interval_ms = auto_commit_interval_ms if enable_auto_commit else None
        self._assignor = assignors[0]
        self._max_poll_interval_ms = max_poll_interval_ms
        self._session_timeout_ms = session_timeout_ms
        self._rebalance_timeout_ms = session_timeout_ms if rebalance_timeout_ms is None else rebalance_timeout_ms
        self._heartbeat_interval_ms = heartbeat_interval_ms
        self._max_poll_records = max_poll_records
        self._isolation_level = isolation_level
        self._read_committed = isolation_level == "read_committed"
        self._membership: GroupMembership | None = None
        self._is_started = False
        self._is_closed = False
        self._buffers: dict[TopicPartition, _Buffer | _FetchError] = {}
        self._buffered_for: Assignment | None = None
        # Brokers with a request under way: a fetch, or None while offsets are looked up or a backoff runs.
        self._busy: dict[int, Call | None] = {}
        # Who waits for records, and until when.
        self._fetch_waiters: dict[Future[bool], int] = {}
        self._wait_timer: LoopTimer | None = None
        self._pump_scheduled = False
        self._next_pump = self._loop.prepare(self._pump)
        # What the next pump looks at: these brokers, or all of them when that is None.
        self._brokers_to_look_at: dict[int | None, None] | None = None
        # The partitions of an assignment by the leader that the client believes in, and the metadata they go by.
        self._places: dict[int | None, list[tuple[TopicPartition, PartitionState]]] = {}
        self._placed_by: object = None
        self._pump_timer: LoopTimer | None = None
        # Partitions that a broker has said it does not lead, and when to ask it again if no metadata comes before.
        self._misplaced: dict[TopicPartition, int] = {}
        self._awaited_refresh: Future[bool] | None = None
        self._fetch_count = 0
        self._fetch_ended_ns = cluster.clock._now
        self._emit_delivered: Callable[..., object] = cluster.recorder.emitter("delivered")
        self._stream = cluster.client_stream
        if topics:
            self._subscriptions.subscribe(topics, None)

    # -- life

    async def start(self) -> None:
        """Connect; with a group and a subscription, join and wait for the first assignment."""
        assert not self._is_started, "Did you call `start` twice?"
        if not await self._metadata.refresh():
            raise KafkaConnectionError("Unable to bootstrap from any broker")
        if self._isolation_level not in ("read_uncommitted", "read_committed"):
            raise ValueError(f"Incorrect isolation level {self._isolation_level}")
        current = self._subscriptions.current
        if current is not None:
            for topic in current.topics:
                await self._metadata.wait_for_topic(topic)
        self._is_started = True
        if self._group is not None:
            self._membership = GroupMembership(
                self._cluster,
                self._transport,
                self._metadata,
                self._subscriptions,
                group=self._group,
                client_id=self._client_id,
                assignor=self._assignor,
                session_timeout_ms=self._session_timeout_ms,
                rebalance_timeout_ms=self._rebalance_timeout_ms,
                heartbeat_interval_ms=self._heartbeat_interval_ms,
                retry_backoff_ms=self._backoff_ms,
                max_poll_interval_ms=self._max_poll_interval_ms,
                auto_commit_interval_ms=self._auto_commit_interval_ms,
                idle_s=self._idle_s,
                abort_fetches=self._abort_fetches,
            )
            current = self._subscriptions.current
            if current is not None and not current.is_manual:
                await self._subscriptions.wait_for_assignment()
        elif current is not None and not current.is_manual:
            self._assign_all()
        self._watch_assignment()
        self._wake()

    async def stop(self) -> None:
        """Leave the group and close. Whoever waits for records gets none."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._membership is not None:
            await self._membership.close()
        self._notify_fetch_waiters()
        for timer in (self._pump_timer, self._wait_timer):
            if timer is not None:
                timer.cancel()
        self._transport.close()

    async def __aenter__(self) -> Consumer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    # -- subscription

    def subscribe(
        self,
        topics: Iterable[str] = (),
        pattern: str | None = None,
        listener: ConsumerRebalanceListener | None = None,
    ) -> None:
        """Subscribe to topics; their partitions are shared out in the group."""
        if pattern is not None:
            raise UnsupportedSetting("subscribing to a pattern is not modelled")
        if not topics:
            raise TypeError("You should provide either `topics` or `pattern`")
        if listener is not None and not isinstance(listener, ConsumerRebalanceListener):
            raise TypeError("listener should be an instance of ConsumerRebalanceListener")
        if not isinstance(topics, tuple | set | list | frozenset):
            raise TypeError("Topics should be list of strings")
        self._subscriptions.subscribe(topics, listener)
        if self._is_started and self._group is None:
            self._assign_all()
        if self._is_started:
            self._watch_assignment()

    def unsubscribe(self) -> None:
        """Unsubscribe from everything, and leave the group."""
        self._subscriptions.unsubscribe()
        if self._membership is not None:
            self._membership.unsubscribed()

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Own these partitions, without a group's doing."""
        self._subscriptions.assign_manually(list(partitions))
        if self._is_started:
            self._metadata.refresh().add_done_callback(lambda _done: self._wake())
            self._watch_assignment()
            self._wake()

    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions owned now."""
        current = self._subscriptions.assignment
        return current.tps if current is not None else PartitionSet()

    def subscription(self) -> frozenset[str]:
        """The topics subscribed to."""
        current = self._subscriptions.current
        return frozenset(current.topics) if current is not None else frozenset()

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        """The partitions of a topic, None when the client knows of no such topic."""
        count = self._metadata.partition_counts.get(topic)
        return None if count is None else set(range(count))

    async def topics(self) -> set[str]:
        """All topics."""
        await self._metadata.wait_refreshed(self._metadata.refresh())
        return set(self._metadata.partition_counts)

    def _assign_all(self) -> None:
        current = self._subscriptions.current
        assert current is not None
        tps = []
        for topic in current.topics:
            count = self._metadata.partition_counts.get(topic)
            if not count:
                raise UnknownTopicOrPartitionError()
            tps += [TopicPartition(topic, number) for number in range(count)]
        self._subscriptions.assign_from_group(tps)

    def _watch_assignment(self) -> None:
        """Have every coming assignment set off the fetching."""

        def assigned(done: Future[None]) -> None:
            if not done.cancelled():
                done.exception()
            if not self._is_closed:
                self._watch_assignment()
                self._wake()

        self._subscriptions.wait_for_assignment().add_done_callback(assigned)

    # -- positions

    async def position(self, partition: TopicPartition) -> int:
        """The offset of the next record; waits until it is known."""
        while True:
            if not self._subscriptions.is_assigned(partition):
                raise IllegalStateError(f"Partition {partition} is not assigned")
            assignment = self._subscriptions.assignment
            assert assignment is not None
            state = assignment.states[partition]
            if state.position is not None:
                return state.position
            self._check_errors()
            await asyncio.wait(
                [state.has_position, assignment.ended],
                timeout=self._request_timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if state.position is None:
                if self._subscriptions.current is None:
                    raise IllegalStateError(f"Partition {partition} is not assigned")
                if self._subscriptions.assignment is None:
                    self._check_errors()
                    await self._subscriptions.wait_for_assignment()

    def highwater(self, partition: TopicPartition) -> int | None:
        """The high watermark as of the last fetch."""
        assert self._subscriptions.is_assigned(partition), "Partition is not assigned"
        return self._subscriptions.state(partition).highwater

    def last_stable_offset(self, partition: TopicPartition) -> int | None:
        """The last stable offset as of the last fetch."""
        assert self._subscriptions.is_assigned(partition), "Partition is not assigned"
        return self._subscriptions.state(partition).lso

    def last_poll_timestamp(self, partition: TopicPartition) -> int | None:
        """When the partition was last fetched, ms."""
        assert self._subscriptions.is_assigned(partition), "Partition is not assigned"
        return self._subscriptions.state(partition).timestamp_ms

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Stand at that offset; IllegalStateError when the partition is not assigned."""
        if not isinstance(offset, int) or offset < 0:
            raise ValueError("Offset must be a positive integer")
        self._subscriptions.state(partition).move_to(offset)
        self._buffers.pop(partition, None)
        self._wake()

    async def seek_to_beginning(self, *partitions: TopicPartition) -> bool:
        """Stand at the start of the log; False when that was not possible in time."""
        return await self._seek_by(EARLIEST, partitions)

    async def seek_to_end(self, *partitions: TopicPartition) -> bool:
        """Stand at the end: the high watermark, or the last stable offset when reading committed."""
        return await self._seek_by(LATEST, partitions)

    async def seek_to_committed(self, *partitions: TopicPartition) -> dict[TopicPartition, int | None]:
        """Stand at the committed offsets, where there are any."""
        committed: dict[TopicPartition, int | None] = {}
        for tp in self._assigned(partitions):
            offset = await self.committed(tp)
            committed[tp] = offset
            if offset and offset > 0:
                self.seek(tp, offset)
        return committed

    async def _seek_by(self, strategy: int, partitions: tuple[TopicPartition, ...]) -> bool:
        tps = self._assigned(partitions)
        assignment = self._subscriptions.assignment
        assert assignment is not None
        waiters = []
        for tp in tps:
            state = assignment.states[tp]
            state.await_reset(strategy, self._loop)
            waiters.append(state.has_position)
            self._buffers.pop(tp, None)
        self._wake()
        everywhere = asyncio.gather(*(asyncio.shield(waiter) for waiter in waiters))
        ends: list[Future[Any]] = [everywhere, assignment.ended]
        await asyncio.wait(ends, timeout=self._request_timeout_s, return_when=asyncio.FIRST_COMPLETED)
        self._check_errors()
        return everywhere.done()

    def _assigned(self, partitions: tuple[TopicPartition, ...]) -> list[TopicPartition]:
        if not all(isinstance(tp, TopicPartition) for tp in partitions):
            raise TypeError("partitions must be TopicPartition instances")
        owned = self.assignment()
        if not partitions:
            assert owned, "No partitions are currently assigned"
            return list(owned)
        missing = [tp for tp in partitions if tp not in owned]
        if missing:
            raise IllegalStateError(f"Partitions {missing} are not assigned")
        return list(dict.fromkeys(partitions))

    async def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The first offset of each partition."""
        found = await self._look_up(dict.fromkeys(partitions, EARLIEST))
        return {tp: offset for tp, (offset, _) in found.items()}

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """One past the last offset of each partition, as far as this consumer's isolation level may read."""
        found = await self._look_up(dict.fromkeys(partitions, LATEST))
        return {tp: offset for tp, (offset, _) in found.items()}

    async def offsets_for_times(
        self, timestamps: dict[TopicPartition, int]
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """The first record of each partition at or after a time in ms."""
        for tp, time_ms in timestamps.items():
            if time_ms < 0:
                raise ValueError(
                    f"The target time for partition {tp} is {time_ms}. The target time cannot be negative."
                )
        found = await self._look_up(dict(timestamps))
        return {tp: OffsetAndTimestamp(offset, at) if offset >= 0 else None for tp, (offset, at) in found.items()}

    async def _look_up(self, wanted: dict[TopicPartition, int]) -> dict[TopicPartition, tuple[int, int]]:
        if not wanted:
            return {}
        try:
            async with asyncio.timeout(self._request_timeout_s):
                while True:
                    try:
                        return await self._look_up_once(wanted)
                    except KafkaError as error:
                        if not error.retriable:
                            raise
                        if error.invalid_metadata:
                            self._metadata.refresh()
                        await asyncio.sleep(self._backoff_s)
        except TimeoutError as error:
            timeout_ms = int(self._request_timeout_s * 1000)
            raise KafkaTimeoutError(f"Failed to get offsets by times in {timeout_ms} ms") from error

    async def _look_up_once(self, wanted: dict[TopicPartition, int]) -> dict[TopicPartition, tuple[int, int]]:
        if self._metadata.pending is not None:
            await self._metadata.wait_refreshed(self._metadata.pending)
        by_broker: dict[int, dict[TopicPartition, int]] = {}
        for tp, time_ms in wanted.items():
            leader = self._metadata.leaders.get(tp)
            if leader is None:
                raise NotLeaderForPartitionError(tp)
            by_broker.setdefault(leader, {})[tp] = time_ms
        found: dict[TopicPartition, tuple[int, int]] = {}
        asked = [
            self._transport.ask(broker, self._cluster.requests.list_offsets, part, self._read_committed)
            for broker, part in by_broker.items()
        ]
        for answer in await asyncio.gather(*asked):
            found.update(cast(dict[TopicPartition, tuple[int, int]], answer))
        return found

    # -- committed offsets

    async def commit(self, offsets: Mapping[TopicPartition, int] | None = None) -> None:
        """Commit these offsets, or the positions of all partitions owned."""
        if self._group is None:
            raise IllegalOperation("Requires group_id")
        if self._subscriptions.current is None:
            raise IllegalStateError("Not subscribed to any topics")
        assignment = self._subscriptions.assignment
        if assignment is None:
            raise IllegalStateError("No partitions assigned")
        chosen: dict[TopicPartition, OffsetAndMetadata]
        if offsets is None:
            chosen = assignment.consumed_offsets()
        else:
            chosen = commit_structure_validate(offsets)
            for tp in chosen:
                if tp not in assignment.tps:
                    raise IllegalStateError(f"Partition {tp} is not assigned")
        assert self._membership is not None
        await self._membership.commit(chosen)

    async def committed(self, partition: TopicPartition) -> int | None:
        """What the group has committed for a partition, whoever did it."""
        if self._group is None:
            raise IllegalOperation("Requires group_id")
        assert self._membership is not None
        found = await self._membership.fetch_committed([partition])
        return found[partition].offset if partition in found else None

    # -- pausing

    def pause(self, *partitions: TopicPartition) -> None:
        """Stop handing out records of these partitions."""
        self._check_partitions(partitions)
        for tp in partitions:
            self._subscriptions.state(tp).is_paused = True

    def resume(self, *partitions: TopicPartition) -> None:
        """Go on with these partitions."""
        self._check_partitions(partitions)
        for tp in partitions:
            self._subscriptions.state(tp).is_paused = False
        self._wake()

    def paused(self) -> set[TopicPartition]:
        """The partitions that are paused."""
        assignment = self._subscriptions.assignment
        states = assignment.states if assignment is not None else {}
        paused = PartitionSet(tp for tp, state in states.items() if state.is_paused)
        return cast(set[TopicPartition], paused)

    @staticmethod
    def _check_partitions(partitions: tuple[TopicPartition, ...]) -> None:
        if not all(isinstance(tp, TopicPartition) for tp in partitions):
            raise TypeError("partitions must be TopicPartition namedtuples")

    # -- records

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[BytesRecord]]:
        """Records that are there, or those that come within the time-out."""
        for tp in partitions:
            assert isinstance(tp, TopicPartition)
        if self._is_closed:
            raise ConsumerStoppedError()
        if max_records is not None and (not isinstance(max_records, int) or max_records < 1):
            raise ValueError("`max_records` must be a positive Integer")
        self._check_errors()
        # No `finally`: the real client's count stays up when the call is cancelled or fails.
        self._fetch_count += 1
        limit = max_records or self._max_poll_records
        left_ns = int(timeout_ms * NS_PER_MS)
        clock = self._clock
        while True:
            subscription = self._subscriptions.current
            if subscription is None or subscription.is_reassigning:
                await self._subscriptions.wait_for_assignment()
            records = self._drain(partitions, limit) if self._buffers else {}
            if records or left_ns <= 0:
                break
            until_ns = clock._now + left_ns
            waiter = self._wait_for_records(until_ns)
            try:
                if not await waiter or self._is_closed:
                    break
            except asyncio.CancelledError:
                self._fetch_waiters.pop(waiter, None)
                raise
            left_ns = until_ns - clock._now
        self._fetch_over()
        return records

    async def getone(self, *partitions: TopicPartition) -> BytesRecord:
        """The next record, waited for."""
        assert all(isinstance(tp, TopicPartition) for tp in partitions)
        if self._is_closed:
            raise ConsumerStoppedError()
        self._check_errors()
        self._fetch_count += 1
        while True:
            if self._is_closed:
                raise ConsumerStoppedError()
            if self._subscriptions.is_reassigning:
                await self._subscriptions.wait_for_assignment()
            drained = self._drain(partitions, 1)
            for records in drained.values():
                self._fetch_over()
                return records[0]
            waiter = self._wait_for_records(NEVER_NS)
            try:
                await waiter
            except asyncio.CancelledError:
                self._fetch_waiters.pop(waiter, None)
                raise

    def __aiter__(self) -> Consumer:
        if self._is_closed:
            raise ConsumerStoppedError()
        return self

    async def __anext__(self) -> BytesRecord:
        try:
            return await self.getone()
        except ConsumerStoppedError:
            raise StopAsyncIteration from None

    def _drain(
        self, partitions: tuple[TopicPartition, ...], limit: int | None
    ) -> dict[TopicPartition, list[BytesRecord]]:
        """Take what is buffered. An error that is buffered is raised when there is nothing before it."""
        drained: dict[TopicPartition, list[BytesRecord]] = {}
        for tp in list(self._buffers):
            if partitions and tp not in partitions:
                if not self._subscriptions.is_assigned(tp):
                    del self._buffers[tp]
                continue
            buffer = self._buffers[tp]
            if isinstance(buffer, _FetchError):
                if drained:
                    return drained
                del self._buffers[tp]
                self._wake_for(self._metadata.leaders.get(tp))
                raise buffer.error
            if not buffer.is_valid():
                del self._buffers[tp]
                self._wake_for(self._metadata.leaders.get(tp))
                continue
            records = buffer.take(limit, self._key_deserializer, self._value_deserializer)
            if buffer.is_drained:
                del self._buffers[tp]
                self._wake_for(self._metadata.leaders.get(tp))
            if not records:
                continue
            drained[tp] = records
            self._emit_delivered(
                self._clock._now,
                self._transport.host,
                self._group or "",
                tp.topic,
                tp.partition,
                records[0].offset,
                records[-1].offset,
                len(records),
            )
            if limit is not None:
                limit -= len(records)
                if limit == 0:
                    break
        return drained

    def _check_errors(self) -> None:
        if self._membership is not None:
            self._membership.check_errors()

    def _fetch_over(self) -> None:
        self._fetch_count -= 1
        if self._fetch_count == 0:
            self._fetch_ended_ns = self._clock._now

    def _idle_s(self) -> float:
        return (self._clock._now - self._fetch_ended_ns) / NS_PER_SECOND if self._fetch_count == 0 else 0.0

    def _wait_for_records(self, until_ns: int) -> Future[bool]:
        """True when there may be some, False when `until_ns` has come first.

        Nearly all who wait are woken long before. So there is one timer for all: it is left alone when they are woken,
        and looks who waits still when it runs out.
        """
        waiter: Future[bool] = Future(loop=self._loop)
        self._fetch_waiters[waiter] = until_ns
        timer = self._wait_timer
        if until_ns != NEVER_NS and (timer is None or timer.when_ns > until_ns):
            if timer is not None:
                timer.cancel()
            self._end_waits_at(until_ns)
        return waiter

    def _end_waits_at(self, until_ns: int) -> None:
        left_s = (until_ns - self._clock._now) / NS_PER_SECOND
        self._wait_timer = self._loop.call_later(left_s, self._end_waits)

    def _end_waits(self) -> None:
        now_ns = self._clock._now
        self._wait_timer = None
        next_ns = NEVER_NS
        for waiter, until_ns in list(self._fetch_waiters.items()):
            if until_ns > now_ns:
                next_ns = min(next_ns, until_ns)
                continue
            del self._fetch_waiters[waiter]
            if not waiter.done():
                waiter.set_result(False)
        if next_ns != NEVER_NS:
            self._end_waits_at(next_ns)

    def _notify_fetch_waiters(self) -> None:
        waiters, self._fetch_waiters = self._fetch_waiters, {}
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(True)

    def _abort_fetches(self, error: KafkaError) -> None:
        waiters, self._fetch_waiters = self._fetch_waiters, {}
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(copy.copy(error))

    # -- fetching in the background

    def _wake(self) -> None:
        """Look soon what can be asked of any broker."""
        self._brokers_to_look_at = None
        self._wake_for(None)

    def _wake_for(self, broker: int | None) -> None:
        """Look soon what can be asked of one broker; None stands for that of partitions without a leader."""
        if self._brokers_to_look_at is not None:
            self._brokers_to_look_at[broker] = None
        if not self._pump_scheduled and self._is_started and not self._is_closed:
            self._pump_scheduled = True
            self._loop.soon(self._next_pump)

    def _wake_later(self, delay_ns: int) -> None:
        timer = self._pump_timer
        if timer is not None:
            if timer.when_ns <= self._clock._now + delay_ns:
                return  # what is asked for then looks at all brokers, and asks again
            timer.cancel()
        self._pump_timer = self._loop.call_later(delay_ns / NS_PER_SECOND, self._later)

    def _later(self) -> None:
        self._pump_timer = None
        self._wake()

    def _pump(self) -> None:
        """Ask brokers for whatever can be asked of them now, those where something may have changed."""
        self._pump_scheduled = False
        subscription = self._subscriptions.current
        assignment = subscription.assignment if subscription is not None else None
        if self._is_closed or assignment is None or not assignment.is_active:
            return
        if assignment is not self._buffered_for:
            # A new assignment: what was fetched or is under way for the old one is of no interest any more.
            self._buffers.clear()
            for call in self._busy.values():
                if call is not None:
                    call.forget()
            self._busy.clear()
            self._buffered_for = assignment
            self._placed_by = None
        leaders = self._metadata.leaders
        if leaders is not self._placed_by:
            self._placed_by = leaders
            self._brokers_to_look_at = None
            self._places = {}
            for tp in assignment.order:
                self._places.setdefault(leaders.get(tp), []).append((tp, assignment.states[tp]))
        chosen, self._brokers_to_look_at = self._brokers_to_look_at, {}
        for broker in list(self._places) if chosen is None else chosen:
            if broker is None:
                if any(tp not in self._buffers for tp, _ in self._places.get(None, ())):
                    self._refresh_then_wake()
            elif broker in self._places:
                self._look_at(assignment, broker)

    def _look_at(self, assignment: Assignment, broker: int) -> None:
        """Ask one broker for whatever can be asked of it now."""
        now_ns = self._clock._now  # not seconds: the end of a backoff must not be missed by a rounding
        fetchable: list[tuple[TopicPartition, int]] = []
        unplaced: list[TopicPartition] = []
        held_until_ns = 0
        is_busy = broker in self._busy
        for tp, state in self._places[broker]:
            if tp in self._buffers:
                held_until_ns = max(held_until_ns, self._buffers[tp].created_ns + _PREFETCH_BACKOFF_NS)
            elif tp in self._misplaced and self._misplaced[tp] > now_ns:
                self._wake_later(self._misplaced[tp] - now_ns)
            elif is_busy:
                call = self._busy[broker]
                if call is not None and not state.is_paused:
                    self._hurry(call, tp, state.position)
            elif state.position is None:
                unplaced.append(tp)
            elif not state.is_paused:
                fetchable.append((tp, state.position))
        if unplaced:
            self._busy[broker] = None
            self._loop.create_task(self._place(assignment, broker, unplaced))
        elif fetchable and held_until_ns > now_ns:
            self._wake_later(held_until_ns - now_ns)
        elif fetchable:
            if len(fetchable) > 1:  # no partition always comes first
                turn = self._stream.below(len(fetchable))
                fetchable = fetchable[turn:] + fetchable[:turn]
            self._fetch(assignment, broker, fetchable)

    def _hurry(self, call: Call, tp: TopicPartition, position: int | None) -> None:
        """A partition waits for the fetch under way unless that is for it: let the long poll end."""
        if call.parked is not None and (tp, position) in call.parked.parts:
            return
        call.hurry(self._fetch_max_wait_ns)

    def _refresh_then_wake(self) -> None:
        refreshing = self._metadata.refresh()
        if refreshing is not self._awaited_refresh:  # one callback, however often this is asked for meanwhile
            self._awaited_refresh = refreshing
            refreshing.add_done_callback(self._refreshed)

    def _refreshed(self, _done: Future[bool]) -> None:
        self._awaited_refresh = None
        if self._misplaced:
            self._misplaced.clear()
            self._wake()
        else:
            self._wake_later(self._backoff_ms * NS_PER_MS)

    def _fetch(self, assignment: Assignment, broker: int, parts: list[tuple[TopicPartition, int]]) -> None:
        def on_reply(error: KafkaError | None, result: object) -> None:
            if self._busy.get(broker) is not call:
                return
            if error is not None:
                self._busy[broker] = None
                self._loop.call_later(self._backoff_s, self._free, assignment, broker)
                return
            del self._busy[broker]
            if assignment.is_active:
                self._fetched(assignment, cast(Fetched, result))
            self._wake_for(broker)

        arguments = (parts, self._read_committed, self._max_partition_fetch_bytes, self._fetch_max_bytes)
        call = self._transport.call(broker, self._cluster.requests.fetch, arguments, on_reply)
        self._busy[broker] = call

    def _free(self, assignment: Assignment, broker: int) -> None:
        if assignment is self._buffered_for:
            self._busy.pop(broker, None)
            self._wake_for(broker)

    def _fetched(self, assignment: Assignment, found: Fetched) -> None:
        has_new = False
        now_ns = self._clock._now
        wall_ms = self._incarnation.host.wall.now_ns() // 1_000_000
        for tp, offset, error, high_watermark, last_stable_offset, batches in found:
            state = assignment.states[tp]
            if state.position != offset:
                continue  # it was moved meanwhile
            if error is None:
                state.highwater = high_watermark
                state.lso = last_stable_offset
                state.timestamp_ms = wall_ms
                if batches:
                    self._buffers[tp] = _Buffer(tp, assignment, state, batches, offset, self._read_committed, now_ns)
                    has_new = True
            elif error is OffsetOutOfRangeError:
                if self._reset:
                    state.await_reset(self._reset, self._loop)
                else:
                    self._buffers[tp] = _FetchError(OffsetOutOfRangeError({tp: offset}), now_ns)
                    has_new = True
            elif error in (NotLeaderForPartitionError, UnknownTopicOrPartitionError):
                # The real client asks again at once, for as long as its metadata is old; a backoff keeps the number of
                # requests sane when the refresh meets a silent broker.
                self._misplaced[tp] = now_ns + self._backoff_ms * NS_PER_MS
                self._refresh_then_wake()
        if has_new:
            self._notify_fetch_waiters()

    async def _place(self, assignment: Assignment, broker: int, tps: list[TopicPartition]) -> None:
        """Find a position for partitions that have none: the committed offset, or by reset."""
        try:
            for tp in tps:
                state = assignment.states[tp]
                if state.position is not None or state.reset is not None:
                    continue
                committed: dict[TopicPartition, OffsetAndMetadata] = {}
                if self._membership is not None:
                    committed = await self._membership.fetch_committed([tp])
                if not assignment.is_active:
                    return
                if state.position is not None or state.reset is not None:
                    continue
                if tp in committed:
                    state.move_to(committed[tp].offset)
                elif self._reset:
                    state.await_reset(self._reset, self._loop)
                else:
                    self._buffers[tp] = _FetchError(NoOffsetForPartitionError(tp), self._clock._now)
                    self._notify_fetch_waiters()
            wanted = {tp: state.reset for tp in tps if (state := assignment.states[tp]).reset is not None}
            if wanted:
                try:
                    answer = await self._transport.ask(
                        broker, self._cluster.requests.list_offsets, wanted, self._read_committed
                    )
                except KafkaError:
                    await asyncio.sleep(self._backoff_s)
                    return
                for tp, (offset, _) in cast(dict[TopicPartition, tuple[int, int]], answer).items():
                    state = assignment.states[tp]
                    if assignment.is_active and state.reset is not None:
                        state.move_to(offset)
        finally:
            self._free(assignment, broker)
