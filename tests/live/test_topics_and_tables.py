"""What `serve` creates on real servers, what it refuses there, and reading it back from outside."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import NewTopic
from aiokafka.structs import TopicPartition

from live import topics
from live.connections import ServersUnusable, open_session, open_store
from live.kafka import AioKafkaClients
from live.log import make_log
from live.namespace import Namespace
from live.options import Servers
from live.reading import committed_ends, read_pages, read_table, read_topics, undelivered, written_ends
from live.topics import TopicsError
from schema import tables
from schema.topics import ENGINE_OUTPUTS, MAX_RECORD_BYTES, ORDER_REQUESTS, Topology
from sim.flows.market import make_topology
from tests.live.conftest import RealServers
from tests.live.running import COMMAND

TOPOLOGY = make_topology(2, 3, 2)
LOG = make_log("json", "critical")
OUTPUTS = TopicPartition(ENGINE_OUTPUTS, 0)


class Cluster:
    """The real Kafka, and the namespace's part of it."""

    def __init__(self, servers: RealServers) -> None:
        self.real = AioKafkaClients(servers.kafka, client_id="tests")
        self.namespace = Namespace(servers.namespace)
        self.clients = self.namespace.clients(self.real)

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[Any]:
        admin = self.real.admin()
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()

    async def prepare(self, topology: Topology = TOPOLOGY) -> None:
        async with self.admin() as admin:
            await topics.create_or_verify(admin, topology, self.namespace, 0, LOG)


@pytest.fixture
def cluster(servers: RealServers) -> Cluster:
    return Cluster(servers)


def test_topics_are_made_once_and_verified_afterwards(cluster: Cluster) -> None:
    async def use() -> None:
        # As when several services start at once.
        await asyncio.gather(*(cluster.prepare() for _ in range(3)))
        await cluster.prepare()
        async with cluster.admin() as admin:
            described = {
                each["topic"]: len(each["partitions"])
                for each in await admin.describe_topics([cluster.namespace.outside(t) for t in TOPOLOGY.partitions()])
            }
        assert described == {cluster.namespace.outside(t): count for t, count in TOPOLOGY.partitions().items()}

    asyncio.run(use())


def test_another_number_of_partitions_is_refused(cluster: Cluster) -> None:
    async def use() -> None:
        await cluster.prepare()
        with pytest.raises(TopicsError, match=r"has 3 partitions, the topology needs 4: give the topology that it was"):
            await cluster.prepare(make_topology(2, 4, 2))

    asyncio.run(use())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"cleanup.policy": "compact"}, "is compacted; records would be lost"),
        ({"max.message.bytes": "1000000"}, "takes 1000000 bytes at most"),
        ({"retention.ms": "60000"}, "has retention.ms=60000; it is the state of a service"),
    ],
)
def test_a_chained_topic_that_would_lose_records_is_refused(cluster: Cluster, wrong: dict[str, str], said: str) -> None:
    async def use() -> None:
        async with cluster.admin() as admin:
            config = {**topics.topic_config(1), **wrong}
            outputs = NewTopic(cluster.namespace.outside(ENGINE_OUTPUTS), 2, 1, topic_configs=config)
            await admin.create_topics([outputs])
        with pytest.raises(TopicsError, match=said):
            await cluster.prepare()

    asyncio.run(use())


def test_a_record_of_the_largest_size_goes_through_a_transaction_and_is_read_back(cluster: Cluster) -> None:
    async def use() -> None:
        await cluster.prepare()
        producer = cluster.clients.producer(
            transactional_id="engine-0", acks="all", max_batch_size=2**20, max_request_size=MAX_RECORD_BYTES + 1024
        )
        await producer.start()
        value = b"\x5a" * MAX_RECORD_BYTES
        await producer.begin_transaction()
        batch = producer.create_batch()
        assert batch.append(timestamp=None, key=None, value=value) is not None
        batch.close()
        delivered = await producer.send_batch(batch, ENGINE_OUTPUTS, partition=0)
        await delivered
        await producer.commit_transaction()
        await producer.stop()
        found = [record async for batch in read_topics(cluster.clients, {ENGINE_OUTPUTS: 2}) for record in batch]
        assert [(record.topic, record.offset, record.value == value) for record in found] == [(ENGINE_OUTPUTS, 0, True)]

    asyncio.run(use())


def test_reading_sees_what_is_committed_and_ends_at_the_markers(cluster: Cluster) -> None:
    async def use() -> None:
        await cluster.prepare()
        wanted = {ENGINE_OUTPUTS: 2, ORDER_REQUESTS: 3}
        assert [batch async for batch in read_topics(cluster.clients, wanted)] == []
        producer = cluster.clients.producer(transactional_id="engine-0", acks="all")
        await producer.start()
        for value, ends_well in ((b"1", True), (b"2", False), (b"3", True)):
            await producer.begin_transaction()
            await (await producer.send(ENGINE_OUTPUTS, value, partition=0))
            await (producer.commit_transaction() if ends_well else producer.abort_transaction())
        await producer.begin_transaction()
        await (await producer.send(ENGINE_OUTPUTS, b"4", partition=0))
        read = [record.value async for batch in read_topics(cluster.clients, wanted) for record in batch]
        assert read == [b"1", b"3"]
        committed = await committed_ends(cluster.clients, wanted)
        written = await written_ends(cluster.clients, wanted)
        assert (committed[OUTPUTS], written[OUTPUTS]) == (6, 7)
        await producer.commit_transaction()
        await producer.stop()
        late = [record.offset async for record in undelivered(cluster.clients, "settlement", {ENGINE_OUTPUTS: 2})]
        assert late == [0, 4, 6]

    asyncio.run(use())


def test_what_a_group_has_committed_is_not_undelivered_whatever_marker_follows(cluster: Cluster) -> None:
    async def use() -> None:
        await cluster.prepare()
        producer = cluster.clients.producer(transactional_id="engine-0", acks="all")
        await producer.start()
        await producer.begin_transaction()
        for value in (b"1", b"2"):
            await (await producer.send(ENGINE_OUTPUTS, value, partition=0))
        await producer.commit_transaction()
        await producer.stop()
        consumer = cluster.clients.consumer(group_id="settlement", enable_auto_commit=False)
        consumer.assign([OUTPUTS])
        await consumer.start()
        await consumer.commit({OUTPUTS: 1})
        late = [record.offset async for record in undelivered(cluster.clients, "settlement", {ENGINE_OUTPUTS: 2})]
        assert late == [1]
        await consumer.commit({OUTPUTS: 2})
        await consumer.stop()
        assert (await committed_ends(cluster.clients, {ENGINE_OUTPUTS: 1}))[OUTPUTS] == 3
        assert [r async for r in undelivered(cluster.clients, "settlement", {ENGINE_OUTPUTS: 2})] == []

    asyncio.run(use())


def options_of(servers: RealServers) -> Servers:
    return Servers(servers.kafka, servers.cassandra, Namespace(servers.namespace))


def test_tables_are_made_verified_and_read_page_by_page(servers: RealServers) -> None:
    rows = 4_500

    async def use() -> None:
        async with open_session(options_of(servers), LOG, create=True) as session:
            await asyncio.gather(*(open_store(session, [], LOG) for _ in range(2)))
            insert = session.prepare(tables.insert_all(tables.USER_BALANCES))
            for user in range(rows):
                session.execute(insert, (user, 1, user * 10, 0, 3, 7, 3))
            pages = [page async for page in read_table(session, tables.USER_BALANCES)]
            assert len(pages) == 3
            assert sorted(row for page in pages for row in page) == [
                (user, 1, user * 10, 0, 3, 7, 3, None) for user in range(rows)
            ]
            query = f"SELECT user_id FROM {tables.ACTIVE_ORDERS}"
            assert [row async for page in read_pages(session, query, 6) for row in page] == []

    asyncio.run(use())


def test_a_store_of_a_newer_schema_is_refused(servers: RealServers, tmp_path: Path) -> None:
    async def make_newer() -> None:
        async with open_session(options_of(servers), LOG, create=True) as session:
            await open_store(session, [], LOG)
            session.execute(f"INSERT INTO {tables.SCHEMA_VERSION_TABLE} (component, version) VALUES ('settlement', 99)")
            with pytest.raises(ServersUnusable, match="the store has schema version 99"):
                await open_store(session, [], LOG)

    asyncio.run(make_newer())
    run = subprocess.run(
        [*COMMAND, "serve", "all", *servers.arguments, "--log-level", "critical"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert run.returncode == 2
    assert "the store has schema version 99" in run.stderr.splitlines()[-1]
    assert "Traceback" not in run.stderr
