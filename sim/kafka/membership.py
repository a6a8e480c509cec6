"""A consumer's part in its group: joining, heartbeats, rebalances, and committing offsets.

The order of things is the real client's. One task looks for the coordinator, and when the group rebalances: holds
records back, commits (with auto-commit), awaits `on_partitions_revoked`, stops the heartbeat, joins, syncs, takes the
assignment, awaits `on_partitions_assigned`, beats again. An error of a listener is logged by the real client and ends
nothing; here it is counted in `listener_errors`. Heartbeats themselves are not sent: see `sim.kafka.groups`.

Commits carry the generation and member id. If the group has moved on, the caller gets `CommitFailedError` and the
member joins anew; retriable errors are retried for ever.
"""

from __future__ import annotations

import asyncio
import copy
from asyncio import Future, Task
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aiokafka.errors import (
    BrokerResponseError,
    CommitFailedError,
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    IllegalGenerationError,
    InconsistentGroupProtocolError,
    InvalidGroupIdError,
    InvalidSessionTimeoutError,
    KafkaError,
    NotCoordinatorError,
    RebalanceInProgressError,
    RequestTimedOutError,
    UnknownMemberIdError,
)
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from sim.kafka.subscription import Assignment, PartitionSet, Subscription, SubscriptionState
from sim.kafka.transport import Metadata, Transport

if TYPE_CHECKING:
    from sim.kafka.cluster import KafkaCluster

_COORDINATOR_LOST = (CoordinatorNotAvailableError, NotCoordinatorError, RequestTimedOutError)
_STALE = (UnknownMemberIdError, IllegalGenerationError, RebalanceInProgressError)

AssignorType = Any
"""A class with the class methods of aiokafka.coordinator.assignors.abstract.AbstractPartitionAssignor."""


class _Topics:
    """What an assignor asks of the cluster's metadata."""

    def __init__(self, counts: dict[str, int]) -> None:
        self._counts = counts

    def partitions_for_topic(self, topic: str) -> list[int] | None:
        count = self._counts.get(topic)
        return None if count is None else list(range(count))


class GroupMembership:
    """One consumer as a member, or would-be member, of a group."""

    def __init__(
        self,
        cluster: KafkaCluster,
        transport: Transport,
        metadata: Metadata,
        subscriptions: SubscriptionState,
        *,
        group: str,
        client_id: str,
        assignor: AssignorType,
        session_timeout_ms: int,
        rebalance_timeout_ms: int,
        heartbeat_interval_ms: int,
        retry_backoff_ms: int,
        max_poll_interval_ms: int,
        auto_commit_interval_ms: int | None,
        idle_s: Callable[[], float],
        abort_fetches: Callable[[KafkaError], object],
    ) -> None:
        self.transport = transport
        self.client_id = client_id
        self.heartbeat_interval_ns = heartbeat_interval_ms * 1_000_000
        self.is_beating = False
        self.generation = -1
        self.member_id = ""
        self.listener_errors: list[Exception] = []
        self._cluster = cluster
        self._metadata = metadata
        self._subscriptions = subscriptions
        self._loop = transport.loop
        self._group = group
        self._assignor = assignor
        self._session_timeout_ms = session_timeout_ms
        self._rebalance_timeout_ms = rebalance_timeout_ms
        self._backoff_s = retry_backoff_ms / 1000
        self._max_poll_interval_s = max_poll_interval_ms / 1000
        self._auto_commit_s = None if auto_commit_interval_ms is None else auto_commit_interval_ms / 1000
        self._auto_commit_at_s = self._loop.time() + (self._auto_commit_s or 0)
        self._idle_s = idle_s
        self._abort_fetches = abort_fetches
        self._emit: Callable[..., object] = cluster.recorder.emitter("rebalances")
        self._coordinator: int | None = None
        self._is_prepared = False
        self._rejoin: Future[None] = self._loop.create_future()
        self._coordinator_dead: Future[None] = self._loop.create_future()
        self._closing: Future[None] = self._loop.create_future()
        self._pending_error: KafkaError | None = None
        self._error_consumed: Future[None] | None = None
        self._lookup_lock = asyncio.Lock()
        self._commit_lock = asyncio.Lock()
        self._task: Task[None] = self._loop.create_task(self._coordinate_guarded())

    # -- for the consumer

    def check_errors(self) -> None:
        """Raise what coordination could not deal with by itself."""
        if self._task.done():
            self._task.result()
        if self._error_consumed is not None:
            if not self._error_consumed.done():
                self._error_consumed.set_result(None)
            self._error_consumed = None
        if self._pending_error is not None:
            error, self._pending_error = self._pending_error, None
            raise error

    async def close(self) -> None:
        """Commit if that is automatic, leave the group."""
        if self._closing.done():
            return
        self._closing.set_result(None)
        if not self._task.done():
            # As in the client: whoever cancels this cancels the coordination, too.
            await self._task
        if self._task.exception() is not None:
            self._task.result()
        self.is_beating = False
        await self._leave()

    async def commit(self, offsets: dict[TopicPartition, OffsetAndMetadata]) -> None:
        """Commit offsets; CommitFailedError when the group has moved on."""
        while True:
            await self._ensure_coordinator()
            try:
                async with self._commit_lock:
                    await self._send_commit(offsets)
            except _STALE as error:
                raise CommitFailedError(
                    "Commit cannot be completed since the group has already rebalanced and may have assigned the "
                    "partitions to another member"
                ) from error
            except KafkaError as error:
                if not error.retriable:
                    raise
                await asyncio.sleep(self._backoff_s)
            else:
                return

    async def fetch_committed(self, tps: list[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        """The committed offsets of these partitions, as far as there are any."""
        while True:
            await self._ensure_coordinator()
            try:
                found = await self._ask(self._cluster.groups.fetch_offsets, self._group, tps)
            except KafkaError as error:
                if not error.retriable:
                    raise
                await asyncio.sleep(self._backoff_s)
            else:
                assert isinstance(found, dict)
                # Offset -1 can be committed; for the client there is none then.
                return {tp: committed for tp, committed in found.items() if committed.offset >= 0}

    def unsubscribed(self) -> None:
        """The consumer has unsubscribed: leave the group."""
        self._loop.create_task(self._leave())

    # -- for the group's coordinator: the heartbeat

    @property
    def is_idle_too_long(self) -> bool:
        """Whether the consumer has not been polled for max_poll_interval_ms."""
        return self._idle_s() >= self._max_poll_interval_s

    def is_member(self, member_id: str) -> bool:
        """Whether the client believes that it is that member, and beats."""
        return self.is_beating and self.member_id == member_id

    def leave_for_idleness(self) -> None:
        """The heartbeat finds that nobody polls: leave the group."""
        if self.is_beating and self.is_idle_too_long:
            self.is_beating = False
            self._loop.create_task(self._leave())

    def heartbeat_answered(self, member_id: str, error: type[BrokerResponseError]) -> None:
        """A heartbeat comes back with something that the client did not know."""
        if not self.is_member(member_id):
            return
        if error is RebalanceInProgressError:
            self._request_rejoin()
        else:
            self._reset_generation()

    # -- coordination

    async def _coordinate_guarded(self) -> None:
        try:
            await self._coordinate()
        except Exception as error:
            fatal = KafkaError(f"Unexpected error during coordination {error!r}")
            self._subscriptions.abort_waiters(copy.copy(fatal))
            self._abort_fetches(copy.copy(fatal))
            raise fatal from error

    async def _coordinate(self) -> None:
        subscription = self._subscriptions.current
        assignment: Assignment | None = None
        while not self._closing.done():
            if subscription is not None and not subscription.is_active:
                self._request_rejoin()
                subscription = self._subscriptions.current
            if subscription is None:
                await asyncio.wait(
                    [self._subscriptions.wait_for_subscription(), self._closing], return_when=asyncio.FIRST_COMPLETED
                )
                subscription = self._subscriptions.current
                continue
            wait_s: float | None = None
            try:
                await self._ensure_coordinator()
                if self._closing.done():
                    break
                if not subscription.is_manual and (subscription.assignment is None or self._rejoin.done()):
                    joined = await self._join_group(subscription, assignment)
                    if joined is None or not joined.is_active:
                        continue
                    assignment = joined
                else:
                    assignment = subscription.assignment
                assert assignment is not None
                wait_s = await self._auto_commit(assignment)
            except KafkaError as error:
                await self._push_error(error)
                continue
            signals = [self._closing, self._coordinator_dead, subscription.ended]
            if not subscription.is_manual:
                signals.append(self._rejoin)
            await asyncio.wait(signals, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        if assignment is not None and self._auto_commit_s is not None:
            await self._last_auto_commit(assignment)

    async def _join_group(self, subscription: Subscription, previous: Assignment | None) -> Assignment | None:
        """Take part in one rebalance; None when it has to be tried again."""
        if not self._is_prepared:
            await self._revoke(previous)
            self._is_prepared = True
        # Until here the heartbeat went on, so that a slow listener does not cost the membership.
        self.is_beating = False
        if previous is not None and self._idle_s() >= self._max_poll_interval_s:
            await asyncio.sleep(self._backoff_s)
            return None
        mine = await self._join_and_sync(subscription)
        if not subscription.is_active:
            return None
        if mine is None:
            await asyncio.sleep(self._backoff_s)
            return None
        await self._take(subscription, mine)
        self._is_prepared = False
        self.is_beating = self.member_id != ""
        return subscription.assignment

    async def _revoke(self, previous: Assignment | None) -> None:
        current = self._subscriptions.current
        if current is not None:
            current.is_reassigning = not current.is_manual
        revoked = PartitionSet() if previous is None else previous.tps
        if previous is not None and self._auto_commit_s is not None:
            await self._last_auto_commit(previous)
        self._record("revoke", revoked)
        listener = self._subscriptions.listener
        if listener is not None:
            try:
                answer = listener.on_partitions_revoked(revoked)
                if asyncio.iscoroutine(answer):
                    await answer
            except Exception as error:
                self.listener_errors.append(error)

    async def _take(self, subscription: Subscription, mine: dict[str, list[int]]) -> None:
        tps = [TopicPartition(topic, number) for topic, numbers in mine.items() for number in numbers]
        self._subscriptions.assign_from_group(tps)
        assert subscription.assignment is not None
        assigned = subscription.assignment.tps
        self._record("assign", assigned)
        listener = self._subscriptions.listener
        if listener is not None:
            try:
                answer = listener.on_partitions_assigned(assigned)
                if asyncio.iscoroutine(answer):
                    await answer
            except Exception as error:
                self.listener_errors.append(error)

    async def _join_and_sync(self, subscription: Subscription) -> dict[str, list[int]] | None:
        groups = self._cluster.groups
        name = str(self._assignor.name)
        while True:
            arguments = (self._session_timeout_ms, self._rebalance_timeout_ms, name, subscription.topics, self)
            try:
                answer = await self._ask(groups.join, self._group, self.member_id, *arguments)
            except CoordinatorLoadInProgressError:
                return None
            except UnknownMemberIdError:
                self._reset_generation()
                return None
            except (InconsistentGroupProtocolError, InvalidSessionTimeoutError, InvalidGroupIdError):
                raise
            except KafkaError:
                return None
            if not subscription.is_active:
                return None
            assert isinstance(answer, tuple)
            self.member_id, joined = answer
            if joined is not None:
                break
        generation, leader, topics = joined
        self.generation = generation
        assignments = None
        if leader == self.member_id:
            pending = self._metadata.pending
            if pending is not None:
                await self._metadata.wait_refreshed(pending)
            assignments = self._assign(topics)
        self._rejoin = self._loop.create_future()
        try:
            mine = await self._ask(groups.sync, self._group, generation, self.member_id, assignments)
        except (UnknownMemberIdError, IllegalGenerationError):
            self._reset_generation()
            return None
        except KafkaError:
            self._request_rejoin()
            return None
        assert isinstance(mine, dict)
        return mine

    def _assign(self, topics: dict[str, tuple[str, ...]]) -> dict[str, dict[str, list[int]]]:
        """The leader's work, by aiokafka's own assignor."""
        members = {member: self._assignor.metadata(list(wanted)) for member, wanted in topics.items()}
        planned = self._assignor.assign(_Topics(self._metadata.partition_counts), members)
        return {
            member: {topic: sorted(numbers) for topic, numbers in assignment.assignment}
            for member, assignment in planned.items()
        }

    async def _leave(self) -> None:
        if self.generation > 0:
            with suppress(KafkaError):  # a minimal effort: otherwise the session will time out
                await self._ask(self._cluster.groups.leave, self._group, self.member_id)
        self._reset_generation()

    def _reset_generation(self) -> None:
        self.generation = -1
        self.member_id = ""
        self.is_beating = False
        self._request_rejoin()

    def _request_rejoin(self) -> None:
        if not self._rejoin.done():
            self._rejoin.set_result(None)

    async def _push_error(self, error: KafkaError) -> None:
        """Hand an error to the user and wait until it has been taken."""
        self._subscriptions.abort_waiters(copy.copy(error))
        self._abort_fetches(copy.copy(error))
        self._pending_error = error
        self._error_consumed = self._loop.create_future()
        await asyncio.wait([self._error_consumed, self._closing], return_when=asyncio.FIRST_COMPLETED)

    def _record(self, action: str, tps: PartitionSet) -> None:
        text = " ".join(f"{tp.topic}-{tp.partition}" for tp in tps)
        now = self._cluster.clock.now
        self._emit(now, self.transport.host, self._group, self.generation, self.member_id, action, text)

    # -- the coordinator

    async def _ensure_coordinator(self) -> None:
        if self._coordinator is not None:
            return
        async with self._lookup_lock:
            while self._coordinator is None and not self._closing.done():
                broker = self._metadata.random_broker()
                try:
                    found = await self.transport.ask(broker, self._cluster.find_coordinator, "group", self._group)
                except KafkaError as error:
                    if not error.retriable:
                        raise
                    await self._metadata.wait_refreshed(self._metadata.refresh())
                    await asyncio.sleep(self._backoff_s)
                    continue
                assert isinstance(found, int)
                if not self._cluster.is_up(found):  # the connection that confirms it cannot be made
                    await asyncio.sleep(self._backoff_s)
                    continue
                self._coordinator = found
                self._coordinator_dead = self._loop.create_future()

    async def _ask(self, handler: Callable[..., object], *args: object) -> object:
        """Ask the coordinator; when it cannot be reached or is none any more, forget it."""
        broker = self._coordinator
        if broker is None:
            raise CoordinatorNotAvailableError()
        try:
            return await self.transport.ask(broker, handler, *args)
        except KafkaError as error:
            self._heed(error)
            raise

    def _heed(self, error: KafkaError) -> None:
        """Look for another coordinator when this one cannot be reached or is none any more."""
        if isinstance(error, _COORDINATOR_LOST) or not isinstance(error, BrokerResponseError):
            self._forget_coordinator()

    def _forget_coordinator(self) -> None:
        if self._coordinator is not None:
            self._coordinator = None
            if not self._coordinator_dead.done():
                self._coordinator_dead.set_result(None)

    # -- offsets

    def _send_commit(self, offsets: dict[TopicPartition, OffsetAndMetadata]) -> Future[None]:
        """Try once to commit. As in the client, this goes on when whoever waits for it is cancelled."""
        committed: Future[None] = Future(loop=self._loop)
        broker = self._coordinator
        if broker is None and offsets:
            committed.set_exception(CoordinatorNotAvailableError())
        if broker is None or not offsets:
            if not committed.done():
                committed.set_result(None)
            return committed

        def on_reply(error: KafkaError | None, _nothing: object) -> None:
            if isinstance(error, RebalanceInProgressError):
                self._request_rejoin()
            elif isinstance(error, UnknownMemberIdError | IllegalGenerationError):
                self._reset_generation()
            elif error is not None:
                self._heed(error)
            if committed.done():
                return
            if error is None:
                committed.set_result(None)
            else:
                committed.set_exception(error)

        arguments = (self._group, self.generation, self.member_id, dict(offsets))
        self.transport.call(broker, self._cluster.groups.commit_offsets, arguments, on_reply)
        return committed

    async def _auto_commit(self, assignment: Assignment) -> float | None:
        if self._auto_commit_s is None:
            return None
        now_s = self._loop.time()
        if now_s > self._auto_commit_at_s:
            try:
                async with self._commit_lock:
                    await self._send_commit(assignment.consumed_offsets())
            except KafkaError as error:
                if not error.retriable and not isinstance(error, _STALE):
                    raise
                self._auto_commit_at_s = self._loop.time() + self._backoff_s
                return self._backoff_s
            self._auto_commit_at_s = now_s + self._auto_commit_s
        return max(0.0, self._auto_commit_at_s - self._loop.time())

    async def _last_auto_commit(self, assignment: Assignment) -> None:
        with suppress(KafkaError):  # the real client logs it and goes on
            await self.commit(assignment.consumed_offsets())
