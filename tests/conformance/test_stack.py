"""The stack itself, with the real servers: a second one beside whatever else runs, up, asked, and down again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.policies import WhiteListRoundRobinPolicy

from sim.stack.lifecycle import down, running_addresses, status, up
from sim.stack.readiness import why_not_ready
from sim.stack.settings import CASSANDRA, KAFKA, StackSettings
from tests.conformance.conftest import why_none_is_started
from tests.sim.stack.fake_machine import free_port


def quiet(_: str) -> None:
    """Nobody is watching."""


async def brokers_and_settings(address: str) -> tuple[int, dict[str, str]]:
    """How many brokers there are, and the settings of one."""
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

    admin = AIOKafkaAdminClient(bootstrap_servers=address.split(","))
    await admin.start()
    try:
        cluster = await admin.describe_cluster()
        answer = await admin.describe_configs([ConfigResource(ConfigResourceType.BROKER, "1")])
        return len(cluster["brokers"]), {entry[0]: entry[1] for entry in answer[0].resources[0][4]}
    finally:
        await admin.close()


@pytest.mark.usefixtures("kafka_address", "cassandra_address")
def test_stack_comes_up_answers_keeps_its_data_and_goes_down(tmp_path: Path) -> None:
    if reason := why_none_is_started():
        pytest.skip(f"cannot start servers: {reason}")
    port = free_port()
    settings = StackSettings(
        kafka_port=port, cassandra_port=port + 4, kafka_heap_mb=256, cassandra_heap_mb=400, wait_s=240
    )
    folder = tmp_path / "stack"
    try:
        assert all(server.is_ready for server in up(folder, settings, quiet))
        addresses = running_addresses(folder)
        brokers, configured = asyncio.run(brokers_and_settings(addresses[KAFKA]))
        assert brokers == 1
        assert configured["auto.create.topics.enable"] == "false"
        assert int(configured["message.max.bytes"]) >= 8 * 1024 * 1024
        keyspace = "CREATE KEYSPACE kept WITH replication = {'class': 'NetworkTopologyStrategy', 'datacenter1': 1}"
        execute(addresses[CASSANDRA], keyspace)
        assert set(down(folder, quiet).values()) == {"stopped"}
        assert why_not_ready(KAFKA, addresses[KAFKA]) is not None
        assert why_not_ready(CASSANDRA, addresses[CASSANDRA]) is not None
        up(folder, settings, quiet)
        assert [server.state for server in status(folder)] == ["ready", "ready"]
        execute(addresses[CASSANDRA], "DROP KEYSPACE kept")
    finally:
        down(folder, quiet)


def execute(address: str, statement: str) -> None:
    host, _, port = address.rpartition(":")
    profile = ExecutionProfile(load_balancing_policy=WhiteListRoundRobinPolicy([host]), request_timeout=60)
    cluster = Cluster([host], port=int(port), protocol_version=5, execution_profiles={EXEC_PROFILE_DEFAULT: profile})
    try:
        cluster.connect().execute(statement)
    finally:
        cluster.shutdown()
