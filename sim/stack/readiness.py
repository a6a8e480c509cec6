"""Whether servers answer, asked in their own protocols by the project's own clients.

A port that accepts connections proves little: Kafka's does before the broker has joined its cluster, Cassandra's before
its tables are open.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Final

from sim.stack.settings import CASSANDRA, KAFKA

ASK_TIMEOUT_S: Final = 5


def why_not_ready(service: str, address: str, servers: int = 1) -> str | None:
    """None when the service answers at the address with as many servers as there should be; else what is missing.

    For Kafka, `servers` brokers and a controller must be in the metadata; Cassandra must answer a query.
    """
    with _quiet_clients():
        if service == KAFKA:
            return asyncio.run(_ask_kafka(address, servers))
        if service == CASSANDRA:
            return _ask_cassandra(address)
    raise ValueError(f"no such service: {service}")


async def _ask_kafka(address: str, brokers: int) -> str | None:
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.errors import KafkaError

    admin = AIOKafkaAdminClient(bootstrap_servers=address.split(","), request_timeout_ms=ASK_TIMEOUT_S * 1000)
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            await admin.start()
            cluster = await admin.describe_cluster()
    except (KafkaError, OSError, TimeoutError) as error:
        return f"no answer ({type(error).__name__})"
    finally:
        await admin.close()
    if len(cluster["brokers"]) < brokers:
        return f"{len(cluster['brokers'])} of {brokers} brokers have joined"
    return None if cluster["controller_id"] >= 0 else "there is no controller"


def _ask_cassandra(address: str) -> str | None:
    from cassandra import DriverException
    from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable
    from cassandra.policies import WhiteListRoundRobinPolicy

    host, _, port = address.split(",")[0].rpartition(":")
    # A policy that is named keeps the driver from warning about the one that it would choose.
    profile = ExecutionProfile(load_balancing_policy=WhiteListRoundRobinPolicy([host]), request_timeout=ASK_TIMEOUT_S)
    cluster = Cluster(
        [host],
        port=int(port),
        connect_timeout=ASK_TIMEOUT_S,
        protocol_version=5,
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
    )
    try:
        cluster.connect().execute("SELECT release_version FROM system.local").one()
    except (DriverException, NoHostAvailable, OSError) as error:
        return f"no answer ({type(error).__name__})"
    finally:
        cluster.shutdown()
    return None


@contextlib.contextmanager
def _quiet_clients() -> Iterator[None]:
    """The clients log each refused connection as an error; here it is the answer."""
    loggers = [logging.getLogger(name) for name in ("aiokafka", "cassandra")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
