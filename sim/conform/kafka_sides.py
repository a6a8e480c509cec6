"""The two sides on which the Kafka conformance suite and the compared sequences run.

A side runs coroutines and hands them aiokafka's clients: the doubles on a host of a simulated cluster, or the real
classes on a real cluster and asyncio's own loop. What is written against `Kafka`, the face of a side to a test, runs
on either. Names of topics, groups and transactional ids are fresh, so that a server may be shared.

The simulated cluster is set up like the one that `exchange-sim stack up` starts, but for its three brokers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, Protocol, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, for_code
from aiokafka.structs import TopicPartition

from sim.clock import NS_PER_SECOND, Clock
from sim.hosts import Host, Incarnation
from sim.kafka import KafkaCluster, KafkaConfig, SimKafkaClients
from sim.network import Network
from sim.randomness import Randomness
from traces.recorder import Recorder

T = TypeVar("T")
Body = Callable[[], Coroutine[Any, Any, T]]

LIKE_THE_STACK: Final = KafkaConfig(
    message_max_bytes=8 * 1024 * 1024 + 64 * 1024,
    transaction_cleanup_interval_ms=1_000,
    group_initial_rebalance_delay_ms=0,
    group_min_session_timeout_ms=1_000,
)
"""The settings of `sim.stack.kafka` that a client can notice."""

_POOL: Final = {1: 20, 2: 8, 3: 8}
"""Topics that a server is asked for at once, by their number of partitions: one request a topic is slow."""
_POLL_S: Final = 0.02


class Clients(Protocol):
    """Makes clients; the keyword arguments are aiokafka's own."""

    def producer(self, **config: Any) -> Any: ...
    def consumer(self, *topics: str, **config: Any) -> Any: ...
    def admin(self, **config: Any) -> Any: ...


class Side(Protocol):
    """One of the two."""

    name: str

    @property
    def clients(self) -> Clients:
        """Makes clients, inside `run` only."""

    def run(self, body: Body[T], limit_s: float = 60) -> T:
        """Run a coroutine to its end and return what it returns; TimeoutError after `limit_s` of the side's time."""

    def unique(self, kind: str) -> str:
        """A name that nobody on this side has used."""

    async def topic(self, partitions: int, configs: dict[str, str]) -> str:
        """A new topic."""


class DoubleSide:
    """A simulated cluster of its own."""

    name = "double"

    def __init__(self, config: KafkaConfig = LIKE_THE_STACK, seed: int = 1) -> None:
        self.clock = Clock()
        self._randomness = Randomness(seed)
        network = Network(self.clock, self._randomness)
        self.cluster = KafkaCluster(self.clock, network, self._randomness, Recorder(), config)
        self._host = Host(self.clock, self._randomness, "conform-1")
        self._clients: SimKafkaClients | None = None
        self._numbers = 0

    @property
    def clients(self) -> Clients:
        """Those of the host's present incarnation."""
        assert self._clients is not None, "clients exist inside run only"
        return self._clients

    def run(self, body: Body[T], limit_s: float = 60) -> T:
        """Start the host with this to do, and let simulated time pass until it has ended."""
        results: list[T] = []
        errors: list[BaseException] = []

        async def main(incarnation: Incarnation) -> None:
            self._clients = SimKafkaClients(self.cluster, incarnation)
            async with asyncio.timeout(limit_s):
                results.append(await body())

        self._host.on_exit = lambda _incarnation, error: errors.append(error) if error is not None else None
        self._host.start(main)
        limit_ns = self.clock.now + int((limit_s + 60) * NS_PER_SECOND)
        self.clock.run_while(lambda: self._host.is_up, limit_ns)
        self._clients = None
        if errors:
            raise errors[0]
        if not results:
            raise TimeoutError(f"not done after {limit_s} s of simulated time")
        return results[0]

    def unique(self, kind: str) -> str:
        """A name that nobody on this side has used."""
        self._numbers += 1
        return f"{kind}-{self._numbers}"

    async def topic(self, partitions: int, configs: dict[str, str]) -> str:
        """A new topic, by the admin client."""
        name = self.unique("topic")
        await create_topics(self.clients, [name], partitions, configs)
        return name

    def close(self) -> None:
        """End the host."""
        self._host.close()


class ServerSide:
    """A real cluster. One event loop serves all runs, so that its topics can be asked for in advance."""

    name = "server"

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        self._runner = asyncio.Runner()
        self._prefix = f"conform-{time.time_ns() // 1_000_000:x}"
        self._numbers = 0
        self._pool: dict[int, list[str]] = {}
        self._created: list[str] = []

    @property
    def clients(self) -> Clients:
        """The real classes."""
        return _RealClients(self.bootstrap_servers)

    def run(self, body: Body[T], limit_s: float = 60) -> T:
        """Run it on asyncio's own loop."""

        async def limited() -> T:
            asyncio.get_running_loop().set_exception_handler(_pass_over_unretrieved)
            async with asyncio.timeout(limit_s):
                return await body()

        return self._runner.run(limited())

    def unique(self, kind: str) -> str:
        """A name that no other run of anything has used."""
        self._numbers += 1
        return f"{self._prefix}-{kind}-{self._numbers}"

    async def topic(self, partitions: int, configs: dict[str, str]) -> str:
        """A new topic: from the pool, unless it is an unusual one."""
        if configs or partitions not in _POOL:
            return (await self._create(1, partitions, configs))[0]
        pool = self._pool.setdefault(partitions, [])
        if not pool:
            pool += await self._create(_POOL[partitions], partitions, configs)
        return pool.pop()

    async def _create(self, count: int, partitions: int, configs: dict[str, str]) -> list[str]:
        names = [self.unique("topic") for _ in range(count)]
        self._created += names
        await create_topics(self.clients, names, partitions, configs)
        return names

    def close(self) -> None:
        """Delete the topics and close the loop."""
        if self._created:
            self._runner.run(_delete_topics(self.clients, self._created))
        self._runner.close()


def _pass_over_unretrieved(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Tell of what goes wrong in the loop, but for errors of deliveries and requests that nobody awaits any more.

    Programs leave those behind on purpose, and aiokafka does when a client stops.
    """
    if not isinstance(context.get("exception"), KafkaError):
        loop.default_exception_handler(context)


class _RealClients:
    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap_servers = bootstrap_servers

    def producer(self, **config: Any) -> Any:
        return AIOKafkaProducer(bootstrap_servers=self._bootstrap_servers, **config)

    def consumer(self, *topics: str, **config: Any) -> Any:
        return AIOKafkaConsumer(*topics, bootstrap_servers=self._bootstrap_servers, **config)

    def admin(self, **config: Any) -> Any:
        return AIOKafkaAdminClient(bootstrap_servers=self._bootstrap_servers, **config)


class Kafka:
    """A side as tests use it: clients that are started, and stopped when the test is over; names; waiting; reading."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.unique = side.unique
        self._started: list[Any] = []

    @property
    def clients(self) -> Clients:
        """Makes clients that are not started, nor stopped."""
        return self.side.clients

    async def topic(self, partitions: int = 1, **configs: str) -> str:
        """A new topic; `max_message_bytes="1000"` is Kafka's `max.message.bytes`."""
        return await self.side.topic(partitions, {name.replace("_", "."): value for name, value in configs.items()})

    async def partition(self, **configs: str) -> TopicPartition:
        """The partition of a new topic that has one."""
        return TopicPartition(await self.topic(1, **configs), 0)

    async def producer(self, **config: Any) -> Any:
        """A started producer; unless told otherwise, what it has been told is stored can be read at once."""
        return await self.started(self.clients.producer(**{"acks": "all", **config}))

    async def transactional(self, transactional_id: str | None = None, **config: Any) -> Any:
        """A started producer of a transactional id, a new one unless named."""
        return await self.producer(transactional_id=transactional_id or self.unique("transactional"), **config)

    async def consumer(self, *topics: str, **config: Any) -> Any:
        """A started consumer; it reads from the beginning, and commits nothing by itself, unless told to."""
        return await self.started(self.clients.consumer(*topics, **{**_FROM_THE_BEGINNING, **config}))

    async def reader(self, *tps: TopicPartition, **config: Any) -> Any:
        """A started consumer that owns these partitions, in no group unless one is named."""
        consumer = self.clients.consumer(**{**_FROM_THE_BEGINNING, **config})
        consumer.assign(tps)
        return await self.started(consumer)

    async def admin(self, **config: Any) -> Any:
        """A started admin client."""
        return await self.started(self.clients.admin(**config))

    async def started(self, client: Any) -> Any:
        """The client, started; it is stopped at the end."""
        self._started.append(client)
        await client.start()
        return client

    async def close(self) -> None:
        """Stop the clients, the last one first, whatever a broken one says to that."""
        while self._started:
            await stop_for_certain(self._started.pop())

    async def until(self, condition: Callable[[], Any], limit_s: float = 20) -> Any:
        """Wait until a condition, which may be a coroutine function, gives something true, and return that."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + limit_s
        while True:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            assert loop.time() < deadline_s, f"still not so after {limit_s} s"
            await asyncio.sleep(_POLL_S)

    async def read(self, *tps: TopicPartition, isolation: str = "read_committed") -> list[bytes]:
        """The values that are there for a reader of that isolation level, partition by partition."""
        reader = self.clients.consumer(isolation_level=isolation, auto_offset_reset="earliest")
        reader.assign(tps)
        await reader.start()
        try:
            records = await read_to_end(reader, tps)
        finally:
            await reader.stop()
        return [record.value for tp in tps for record in records[tp]]


_FROM_THE_BEGINNING: Final = {"auto_offset_reset": "earliest", "enable_auto_commit": False}


async def stop_for_certain(client: Any) -> None:
    """Stop a client, and if it cannot, as the real one when its sender has died, close its connections."""
    # A task of its own: the real consumer's stop raises CancelledError when it is called soon after start.
    end = client.stop if hasattr(client, "stop") else client.close
    stopping = asyncio.ensure_future(end())
    await asyncio.wait([stopping], timeout=5)
    if not stopping.done():
        stopping.cancel()
        await asyncio.wait([stopping])
    if stopping.cancelled() or stopping.exception() is not None:
        connections = getattr(client, "client", None) or getattr(client, "_client", None)
        if connections is not None:
            await connections.close()


async def read_to_end(reader: Any, tps: Iterable[TopicPartition]) -> dict[TopicPartition, list[Any]]:
    """All records from where the reader stands to the end that it may read now, by partition."""
    tps = list(tps)
    ends = await reader.end_offsets(tps)
    records: dict[TopicPartition, list[Any]] = {tp: [] for tp in tps}
    while any([await reader.position(tp) < ends[tp] for tp in tps]):
        for tp, found in (await reader.getmany(*tps, timeout_ms=200)).items():
            records[tp] += found
    return records


async def create_topics(clients: Clients, names: list[str], partitions: int, configs: dict[str, str]) -> None:
    """Create topics, and wait until they can be written to. Raises the error of one that could not be created."""
    admin = clients.admin()
    await admin.start()
    try:
        factor = min(3, len((await admin.describe_cluster())["brokers"]))
        topics = [NewTopic(name, partitions, factor, topic_configs=configs) for name in names]
        answer = await admin.create_topics(topics)
        for name, code, *_ in answer.topic_errors:
            if code:
                raise for_code(code)(name)
        while True:
            described = await admin.describe_topics(names)
            if all(sum(each["leader"] >= 0 for each in topic["partitions"]) == partitions for topic in described):
                break
            await asyncio.sleep(_POLL_S)
    finally:
        await admin.close()
    # A broker is told of its leaderships a little later than of the topics, and meanwhile drops what asks for no
    # acknowledgement; it does answer only as the leader what is asked here.
    asker = clients.consumer()
    await asker.start()
    try:
        await asker.end_offsets([TopicPartition(name, number) for name in names for number in range(partitions)])
    finally:
        await asker.stop()


async def _delete_topics(clients: Clients, names: list[str]) -> None:
    admin = clients.admin()
    await admin.start()
    try:
        await admin.delete_topics(names)
    finally:
        await admin.close()
