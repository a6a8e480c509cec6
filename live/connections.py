"""Reaching Kafka and Cassandra at the start of a process, and preparing them: topics, keyspace, tables.

Servers that do not answer are waited for with growing pauses, up to `Servers.wait_s`; what answers wrongly is refused
at once.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from aiokafka.errors import KafkaError
from cassandra import InvalidRequest
from cassandra.cluster import NoHostAvailable

from live import topics
from live.cassandra import CassandraConnection, CassandraUnreachable, CountingSession
from live.clock import WallClock
from live.kafka import AioKafkaClients
from live.metrics import Metrics
from live.options import REPLICAS_WANTED, Servers
from live.randomness import SystemRandomness
from live.topics import TopicsError
from schema.identifiers import SymbolId
from schema.ports import Log
from schema.topics import Topology
from settlement.cql_adapter import CqlAdapter
from settlement.migrations import SchemaError, SchemaSteps
from settlement.retries import Backoff
from settlement.store import Store

T = TypeVar("T")

_PAUSES_S: Final = (0.25, 0.5, 1.0, 2.0, 5.0)


class ServersUnusable(RuntimeError):
    """Kafka or Cassandra does not answer, or is not what this system needs; the message is one line."""


async def prepare_kafka(clients: AioKafkaClients, servers: Servers, topology: Topology, log: Log) -> None:
    """Create or verify the topics. Raises ServersUnusable."""

    async def attempt() -> None:
        admin = clients.admin()
        try:
            await admin.start()
            await topics.create_or_verify(admin, topology, servers.namespace, servers.kafka_replication, log)
        finally:
            await admin.close()

    try:
        await _patiently(attempt, (KafkaError, OSError), f"Kafka at {servers.kafka}", servers.wait_s, log)
    except TopicsError as error:
        raise ServersUnusable(str(error)) from None


@asynccontextmanager
async def open_session(
    servers: Servers, log: Log, metrics: Metrics | None = None, *, create: bool
) -> AsyncIterator[CountingSession]:
    """A session in the system's keyspace, which is created if `create` and need be. Raises ServersUnusable."""
    try:
        connection = CassandraConnection(servers.cassandra, servers.datacenter, metrics)
    except ValueError as error:
        raise ServersUnusable(f"--cassandra: {error}") from None
    keyspace = servers.namespace.keyspace

    async def attempt() -> CountingSession:
        if create:
            plain = await connection.session(None)
            steps = SchemaSteps(CqlAdapter(plain, blocking=asyncio.to_thread), SystemRandomness(), log, Backoff())
            replicas = servers.cassandra_replication or min(REPLICAS_WANTED, connection.nodes)
            await steps.create_keyspace(replicas, keyspace)
            plain.shutdown()
        return await connection.session(keyspace)

    try:
        try:
            session = await _patiently(
                attempt, (CassandraUnreachable,), f"Cassandra at {servers.cassandra}", servers.wait_s, log
            )
        except (InvalidRequest, NoHostAvailable, SchemaError) as error:
            raise ServersUnusable(f"keyspace {keyspace} at {servers.cassandra} cannot be used: {error}") from None
        yield session
    finally:
        await connection.close()


async def open_store(session: CountingSession, symbol_ids: Iterable[SymbolId], log: Log) -> Store:
    """The store with its tables created or verified and its statements prepared. Raises ServersUnusable."""
    store = Store(
        session,
        clock=WallClock(),
        randomness=SystemRandomness(),
        log=log,
        symbol_ids=symbol_ids,
        blocking=asyncio.to_thread,
    )
    try:
        await store.open()
    except SchemaError as error:
        raise ServersUnusable(str(error)) from None
    return store


async def _patiently(
    attempt: Callable[[], Awaitable[T]], passing: tuple[type[Exception], ...], what: str, wait_s: float, log: Log
) -> T:
    deadline = asyncio.get_running_loop().time() + wait_s
    failures = 0
    while True:
        try:
            return await attempt()
        except passing as error:
            pause_s = _PAUSES_S[min(failures, len(_PAUSES_S) - 1)]
            failures += 1
            if asyncio.get_running_loop().time() + pause_s > deadline:
                raise ServersUnusable(f"{what} does not answer: {type(error).__name__}: {error}") from error
            log.warning("a server does not answer yet", server=what, error=repr(error))
            await asyncio.sleep(pause_s)
