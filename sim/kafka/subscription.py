"""What a consumer is subscribed to, what it is assigned, and where it stands in each partition.

As in the real client, an assignment is never changed: a rebalance replaces it, and whatever still refers to the old one
sees that it is no longer active. What is handed out as a set iterates in sorted order, so that a run does not depend on
the interpreter's hash seed.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Iterable, Iterator

from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata, TopicPartition


class PartitionSet(frozenset[TopicPartition]):
    """A frozenset of partitions that iterates in sorted order."""

    __slots__ = ()

    def __iter__(self) -> Iterator[TopicPartition]:
        return iter(sorted(super().__iter__()))


class PartitionState:
    """Where a consumer stands in one partition.

    `position` None: to be found out, by `reset` strategy if that is set.
    """

    __slots__ = ("has_position", "highwater", "is_paused", "lso", "position", "reset", "timestamp_ms")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.position: int | None = None
        self.reset: int | None = None
        self.is_paused = False
        self.highwater: int | None = None
        self.lso: int | None = None
        self.timestamp_ms: int | None = None
        self.has_position: Future[None] = loop.create_future()

    def await_reset(self, strategy: int, loop: asyncio.AbstractEventLoop) -> None:
        """Forget the position; find another by the strategy."""
        self.reset = strategy
        self.position = None
        if self.has_position.done():
            self.has_position = loop.create_future()

    def move_to(self, position: int) -> None:
        """Stand there: after a reset, or because the user said so."""
        self.position = position
        self.reset = None
        if not self.has_position.done():
            self.has_position.set_result(None)


class Assignment:
    """The partitions that a consumer owns until the next assignment."""

    __slots__ = ("ended", "is_active", "order", "states", "tps")

    def __init__(self, tps: Iterable[TopicPartition], loop: asyncio.AbstractEventLoop) -> None:
        self.order = sorted(dict.fromkeys(tps))
        self.tps = PartitionSet(self.order)
        self.states = {tp: PartitionState(loop) for tp in self.order}
        self.is_active = True  # until a later assignment has replaced it
        self.ended: Future[None] = loop.create_future()

    def end(self) -> None:
        """Another one takes its place, or none. Does nothing when called again."""
        if self.is_active:
            self.is_active = False
            self.ended.set_result(None)

    def consumed_offsets(self) -> dict[TopicPartition, OffsetAndMetadata]:
        """The position of every partition that has one, as offsets to commit."""
        return {tp: OffsetAndMetadata(s.position, "") for tp, s in self.states.items() if s.position is not None}


class Subscription:
    """Topics, assigned by the group, or partitions, assigned by the user (`is_manual`)."""

    __slots__ = ("assignment", "ended", "is_manual", "is_reassigning", "topics")

    def __init__(self, topics: Iterable[str], is_manual: bool, loop: asyncio.AbstractEventLoop) -> None:
        self.topics = tuple(sorted(dict.fromkeys(topics)))
        self.is_manual = is_manual
        self.assignment: Assignment | None = None
        self.is_reassigning = not is_manual
        self.ended: Future[None] = loop.create_future()

    @property
    def is_active(self) -> bool:
        """Whether no later subscription has replaced it."""
        return not self.ended.done()


class SubscriptionState:
    """The subscription of one consumer, and those who wait for it to change."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.current: Subscription | None = None
        self.listener: ConsumerRebalanceListener | None = None
        self._subscription_waiters: list[Future[None]] = []
        self._assignment_waiters: list[Future[None]] = []

    @property
    def assignment(self) -> Assignment | None:
        """The assignment in force."""
        return self.current.assignment if self.current is not None else None

    @property
    def is_reassigning(self) -> bool:
        """Whether records must be held back until the next assignment."""
        return self.current is None or self.current.is_reassigning

    def subscribe(self, topics: Iterable[str], listener: ConsumerRebalanceListener | None) -> None:
        """Subscribe to topics; IllegalStateError after `assign`."""
        if self.current is not None and self.current.is_manual:
            raise IllegalStateError("Subscription to topics, partitions and pattern are mutually exclusive")
        self._replace(Subscription(topics, False, self._loop))
        self.listener = listener

    def assign_manually(self, tps: list[TopicPartition]) -> None:
        """Own these partitions; IllegalStateError after `subscribe`."""
        if self.current is not None and not self.current.is_manual:
            raise IllegalStateError("Subscription to topics, partitions and pattern are mutually exclusive")
        subscription = Subscription((tp.topic for tp in tps), True, self._loop)
        subscription.assignment = Assignment(tps, self._loop)
        self._replace(subscription)
        self._notify(self._assignment_waiters)

    def assign_from_group(self, tps: Iterable[TopicPartition]) -> None:
        """Own what the group has assigned."""
        assert self.current is not None
        if self.current.assignment is not None:
            self.current.assignment.end()
        self.current.assignment = Assignment(tps, self._loop)
        self.current.is_reassigning = False
        self._notify(self._assignment_waiters)

    def unsubscribe(self) -> None:
        """Own nothing, and be free to subscribe or assign."""
        self._end()
        self.current = None
        self.listener = None

    def state(self, tp: TopicPartition) -> PartitionState:
        """Where the consumer stands in a partition; IllegalStateError when it is not assigned."""
        assert self.assignment is not None
        state = self.assignment.states.get(tp)
        if state is None:
            raise IllegalStateError(f"No current assignment for partition {tp}")
        return state

    def is_assigned(self, tp: TopicPartition) -> bool:
        """Whether the partition is assigned now."""
        return self.assignment is not None and tp in self.assignment.states

    def wait_for_subscription(self) -> Future[None]:
        """The next subscription."""
        return self._waiter(self._subscription_waiters)

    def wait_for_assignment(self) -> Future[None]:
        """The next assignment."""
        return self._waiter(self._assignment_waiters)

    def abort_waiters(self, error: KafkaError) -> None:
        """Raise a fatal error of coordination to those who wait for an assignment."""
        waiters, self._assignment_waiters = self._assignment_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error)

    def _replace(self, subscription: Subscription) -> None:
        self._end()
        self.current = subscription
        self._notify(self._subscription_waiters)

    def _end(self) -> None:
        if self.current is not None:
            if not self.current.ended.done():
                self.current.ended.set_result(None)
            if self.current.assignment is not None:
                self.current.assignment.end()

    def _waiter(self, waiters: list[Future[None]]) -> Future[None]:
        waiter: Future[None] = self._loop.create_future()
        waiters.append(waiter)
        return waiter

    @staticmethod
    def _notify(waiters: list[Future[None]]) -> None:
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        waiters.clear()
