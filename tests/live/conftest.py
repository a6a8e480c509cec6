"""Where the real servers are, for tests that need them; the others here need none."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from live.cassandra import CassandraConnection
from live.kafka import AioKafkaClients
from tests.live.running import ServeAll

KAFKA_VARIABLE = "EXCHANGE_SIM_KAFKA"
CASSANDRA_VARIABLE = "EXCHANGE_SIM_CASSANDRA"

_numbers = count(1)


@dataclass(frozen=True)
class RealServers:
    """Addresses of real Kafka and Cassandra, and a namespace that no other test uses."""

    kafka: str
    cassandra: str
    namespace: str

    @property
    def arguments(self) -> list[str]:
        """The same for a command line."""
        return ["--kafka", self.kafka, "--cassandra", self.cassandra, "--namespace", self.namespace]


@pytest.fixture
def servers() -> Iterator[RealServers]:
    """The real servers at the addresses in the environment; skips where there are none. Removes what a test leaves."""
    addresses = {name: os.environ.get(name, "") for name in (KAFKA_VARIABLE, CASSANDRA_VARIABLE)}
    if missing := [name for name, address in addresses.items() if not address]:
        pytest.skip(f"needs real servers: set {' and '.join(missing)}, as `exchange-sim stack up` prints them")
    # A process id is not used twice while its topics are of interest, nor a number within a process.
    namespace = f"test_{os.getpid()}_{next(_numbers)}"
    found = RealServers(addresses[KAFKA_VARIABLE], addresses[CASSANDRA_VARIABLE], namespace)
    yield found
    asyncio.run(_remove(found))


async def _remove(servers: RealServers) -> None:
    """Delete the namespace's topics and keyspace."""
    admin = AioKafkaClients(servers.kafka, client_id="tests").admin()
    await admin.start()
    try:
        topics = [topic for topic in await admin.list_topics() if topic.startswith(f"{servers.namespace}.")]
        if topics:
            await admin.delete_topics(topics)
    finally:
        await admin.close()
    connection = CassandraConnection(servers.cassandra)
    try:
        session = await connection.session(None)
        await asyncio.to_thread(session.execute, f"DROP KEYSPACE IF EXISTS {servers.namespace}")
    finally:
        await connection.close()


@pytest.fixture
def instances() -> int:
    """How many instances of each service there are; a test may say otherwise."""
    return 1


@pytest.fixture
def serve_all(servers: RealServers, tmp_path: Path, instances: int) -> Iterator[ServeAll]:
    """Every service under its supervisor, stopped at the end if a test leaves it running."""
    running = ServeAll(servers.arguments, tmp_path, instances)
    yield running
    running.close()
