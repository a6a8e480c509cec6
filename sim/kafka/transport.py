"""A client's connections to the brokers: requests, answers, time-outs, and what the client knows of the cluster.

A request is one message there and one back. The server's part is a function that runs when the request arrives and
answers through the `Call`, at once or later. What can go wrong, as the client sees it:

- the broker is down: refused, `NodeNotReadyError`; it dies with the request outstanding: `KafkaConnectionError`;
- a message is lost on the way there or back: `RequestTimedOutError` after request_timeout_ms, and the request may
  well have been carried out. An answer that comes after that is dropped.

All calls of a client have the same time-out, so they expire in the order in which they were sent: one timer for the
oldest is enough. A fetch that waits at the broker for data is renewed as long as its link is whole, as the real
client would have sent it again every fetch_max_wait_ms.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    NodeNotReadyError,
    RequestTimedOutError,
    UnknownTopicOrPartitionError,
)
from aiokafka.structs import TopicPartition

if TYPE_CHECKING:
    from sim.clock import Timer
    from sim.hosts import Incarnation
    from sim.kafka.broker import ParkedFetch
    from sim.kafka.cluster import KafkaCluster

REFUSED_NS = 300_000
"""From a connection attempt to a dead broker until the client hears of it."""

_CONNECTION_ERRORS = (KafkaConnectionError, NodeNotReadyError, RequestTimedOutError)

Reply = Callable[[KafkaError | None, object], object]


class Call(msgspec.Struct, eq=False):
    """One request under way. The server answers with `answer` or `refuse`, once; later answers are dropped.

    A struct, as making one costs a third of a class's.
    """

    transport: Transport
    broker: int
    request: str
    deadline_ns: int
    on_reply: Reply | None
    is_done: bool = False
    is_parked: bool = False
    parked: ParkedFetch | None = None
    _hurry_ns: int = 0

    def answer(self, result: object = None, error: KafkaError | None = None) -> None:
        """Send the result back to the client. Lost when the link is cut, the broker down or the client gone."""
        transport = self.transport
        cluster = transport.cluster
        if self.is_done or not transport.incarnation.alive or not cluster._up[self.broker]:
            return
        self.is_parked = False
        if cluster.faults.answers_ppm and cluster.faults.loses_answer(self):
            return
        source = cluster.broker_names[self.broker]
        cluster.network.send(source, transport.host, transport.loop.deliver, self.finish, error, result)

    def refuse(self, error: KafkaError) -> None:
        """Send an error back to the client."""
        self.answer(None, error)

    def answer_in(self, delay_ns: int, result: object = None) -> None:
        """Send the result after a delay: one event for both. What is lost is decided now."""
        transport = self.transport
        cluster = transport.cluster
        if self.is_done or not transport.incarnation.alive or not cluster._up[self.broker]:
            return
        if cluster.faults.answers_ppm and cluster.faults.loses_answer(self):
            return
        back_ns = cluster.network.delay_ns(cluster.broker_names[self.broker], transport.host)
        if back_ns is not None:
            at_ns = cluster.clock._now + delay_ns + back_ns
            cluster.clock.post(at_ns, transport.loop.deliver, (self.finish, None, result))

    def finish(self, error: KafkaError | None, result: object) -> None:
        """End the call at the client. Only the first end counts."""
        if self.is_done:
            return
        self.is_done = True
        self.transport._under_way.pop(self, None)
        on_reply = self.on_reply
        self.on_reply = None
        if error is not None and isinstance(error, _CONNECTION_ERRORS):
            self.transport.on_connection_error()
        if on_reply is not None:
            on_reply(error, result)

    def park(self, fetch: ParkedFetch) -> None:
        """The broker has nothing to answer a fetch with yet."""
        self.is_parked = True
        self.parked = fetch
        if self._hurry_ns:
            cluster = self.transport.cluster
            cluster.clock.after(self._hurry_ns, cluster.requests.expire, fetch)

    def hurry(self, max_wait_ns: int) -> None:
        """The client waits for the end of this fetch: let it end, empty if need be, when its long poll would."""
        if self._hurry_ns or self.is_done:
            return
        self._hurry_ns = max_wait_ns
        if self.parked is not None and self.is_parked:
            cluster = self.transport.cluster
            waited_ns = cluster.clock._now - self.parked.parked_ns
            cluster.clock.after(max_wait_ns - waited_ns % max_wait_ns, cluster.requests.expire, self.parked)

    def forget(self) -> None:
        """The client does not care any more."""
        self.is_done = True
        self.transport._under_way.pop(self, None)
        self.on_reply = None


class Transport:
    """The connections of one client object."""

    def __init__(self, cluster: KafkaCluster, incarnation: Incarnation, request_timeout_ms: int) -> None:
        self.cluster = cluster
        self.incarnation = incarnation
        self.host = incarnation.name
        self.loop = incarnation.loop
        self.request_timeout_ns = request_timeout_ms * 1_000_000
        self.is_closed = False
        self.is_of_no_group = False
        """Whether it is that of a consumer without a group."""
        self.number = 0
        self.on_connection_error: Callable[[], object] = _nothing
        self._under_way: dict[Call, None] = {}  # in the order of their deadlines
        self._timer: Timer | None = None
        cluster.register(self)

    def call(self, broker: int, handler: Callable[..., object], args: tuple[object, ...], on_reply: Reply) -> Call:
        """Send a request to a broker; `handler(call, *args)` runs there when it arrives."""
        cluster = self.cluster
        deadline_ns = cluster.clock._now + self.request_timeout_ns
        call = Call(self, broker, handler.__name__, deadline_ns, on_reply)
        if not self.incarnation.alive:
            call.forget()
            return call
        if not cluster._up[broker]:
            error = NodeNotReadyError(f"node {broker} refuses connections")
            cluster.clock.after(REFUSED_NS, self.loop.deliver, call.finish, error, None)
            return call
        cluster.network.send(
            self.host, cluster.broker_names[broker], cluster.serve, cluster.lives[broker], call, handler, args
        )
        self._under_way[call] = None
        if self._timer is None:
            self._timer = cluster.clock.at(call.deadline_ns, self.loop.deliver, self._expire)
        return call

    def ask(self, broker: int, handler: Callable[..., object], *args: object) -> Future[object]:
        """`call` for coroutines: a future with the result, or the error raised."""
        future: Future[object] = self.loop.create_future()

        def resolve(error: KafkaError | None, result: object) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        self.call(broker, handler, args, resolve)
        return future

    def broker_died(self, broker: int) -> None:
        """Every request outstanding at that broker ends with a broken connection."""
        for call in list(self._under_way):
            if call.broker == broker:
                self.incarnation.enter(call.finish, KafkaConnectionError(f"connection to node {broker} closed"), None)

    @property
    def is_idle(self) -> bool:
        """Whether no request is outstanding but fetches that wait for data."""
        return all(call.is_parked for call in self._under_way)

    def is_asking(self, request: str) -> bool:
        """Whether a request of that name (its handler's) is outstanding."""
        return any(call.request == request for call in self._under_way)

    def close(self) -> None:
        """Close all connections; nothing outstanding is answered any more."""
        self.is_closed = True
        for call in list(self._under_way):
            call.forget()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.cluster.unregister(self)

    def _expire(self) -> None:
        self._timer = None
        now = self.cluster.clock._now
        under_way = self._under_way
        while under_way:
            call = next(iter(under_way))
            if call.deadline_ns > now:
                break
            if call.is_parked and self._link_is_whole(call.broker):
                del under_way[call]
                call.deadline_ns = now + self.request_timeout_ns
                under_way[call] = None
            else:
                call.finish(RequestTimedOutError(), None)
        if under_way and self._timer is None and not self.is_closed:
            deadline_ns = next(iter(under_way)).deadline_ns
            self._timer = self.cluster.clock.at(deadline_ns, self.loop.deliver, self._expire)

    def _link_is_whole(self, broker: int) -> bool:
        cluster = self.cluster
        name = cluster.broker_names[broker]
        return (
            cluster.is_up(broker)
            and cluster.network.is_clear(self.host, name)
            and cluster.network.is_clear(name, self.host)
        )


def _nothing() -> None:
    """What a connection error sets off before the client has metadata to refresh."""


class Metadata:
    """What a client knows of topics and leaders: as of its last refresh, which may be stale.

    It is refreshed every metadata_max_age_ms, whenever a connection fails, and when a broker says it is not the leader.
    """

    def __init__(self, transport: Transport, retry_backoff_ms: int, max_age_ms: int) -> None:
        self.transport = transport
        self.retry_backoff_s = retry_backoff_ms / 1000
        self.partition_counts: dict[str, int] = {}
        self.leaders: dict[TopicPartition, int | None] = {}
        # At first those it was configured with; then only those that the last answer named. The real client, too, never
        # goes back to its bootstrap servers: one that knew a single broker is lost until that is back.
        self.brokers: list[int] = transport.cluster.broker_ids
        self._refreshing: Future[bool] | None = None
        self._stream = transport.cluster.client_stream
        self._max_age_ns = max_age_ms * 1_000_000
        transport.on_connection_error = self.refresh
        transport.cluster.clock.after(self._max_age_ns, transport.incarnation.enter, self._grow_old)

    def random_broker(self) -> int:
        """Any broker that was up at the last refresh."""
        return self._stream.choice(self.brokers)

    def refresh(self) -> Future[bool]:
        """Ask a broker for the state of the cluster; all who ask meanwhile share the answer.

        False if nobody answered.
        """
        if self._refreshing is None:
            self._refreshing = self.transport.loop.create_future()
            self._try(self._stream.shuffled(self.brokers))
        return self._refreshing

    @property
    def pending(self) -> Future[bool] | None:
        """The refresh under way, if any."""
        return self._refreshing

    async def wait_for_topic(self, topic: str) -> int:
        """The number of partitions of a topic, asking until it is known.

        UnknownTopicOrPartitionError after the time-out.
        """
        count = self.partition_counts.get(topic)
        loop = self.transport.loop
        started = loop.time()
        while count is None:
            await self.wait_refreshed(self.refresh())
            count = self.partition_counts.get(topic)
            if count is None:
                if loop.time() - started > self.transport.request_timeout_ns / 1e9:
                    raise UnknownTopicOrPartitionError()
                await asyncio.sleep(self.retry_backoff_s)
        return count

    async def wait_refreshed(self, refreshing: Future[bool] | None) -> bool:
        """Wait for a refresh without letting a cancellation of the waiter end it for the others."""
        if refreshing is None:
            return True
        waiter: Future[bool] = self.transport.loop.create_future()

        def wake(done: Future[bool]) -> None:
            if not waiter.done():
                waiter.set_result(done.result())

        refreshing.add_done_callback(wake)
        return await waiter

    def _grow_old(self) -> None:
        if not self.transport.is_closed:
            self.refresh()
            cluster = self.transport.cluster
            cluster.clock.after(self._max_age_ns, self.transport.incarnation.enter, self._grow_old)

    def _try(self, brokers: list[int]) -> None:
        if not brokers:
            self._finish(False)
            return
        broker, rest = brokers[0], brokers[1:]

        def on_reply(error: KafkaError | None, result: object) -> None:
            if error is not None:
                self._try(rest)
                return
            self.partition_counts, self.leaders, self.brokers = result  # type: ignore[misc]
            self._finish(True)

        self.transport.call(broker, self.transport.cluster.describe, (), on_reply)

    def _finish(self, ok: bool) -> None:
        refreshing, self._refreshing = self._refreshing, None
        if refreshing is not None and not refreshing.done():
            refreshing.set_result(ok)
