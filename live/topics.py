"""Creating the topics of a system, and verifying those that are there (design sections 3 and 4.1.7).

Any number of processes may do this at once: a topic that exists already is only verified. What cannot be changed
without losing or doubling something is refused, never repaired: the number of partitions, a record limit below ours,
compaction, a retention that would take a chained record.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, UnknownTopicOrPartitionError, for_code

from live.namespace import Namespace
from live.options import REPLICAS_WANTED
from schema.ports import Log
from schema.topics import CHAINED_TOPICS, MAX_RECORD_BYTES, Topology

BATCH_BYTES_MAX: Final = MAX_RECORD_BYTES + 4 * 1024
"""The limit that a broker holds a batch to: one record of the largest size, and what the protocol adds to it."""
_FOR_EVER: Final = "-1"
_IN_SYNC_MIN: Final = 2
_APPEAR_ATTEMPTS: Final = 60
_APPEAR_PAUSE_S: Final = 0.25


class TopicsError(RuntimeError):
    """The cluster's topics are not what this system writes; the message is one line that says which and why."""


def topic_config(replication_factor: int) -> dict[str, str]:
    """How each topic is configured when it is created.

    Nothing is deleted: the chained topics are the services' state, and the others are what an audit judges by. The
    broker's time of appending is the records' timestamp: no producer's clock says when something was in the log.
    """
    return {
        "cleanup.policy": "delete",
        "retention.ms": _FOR_EVER,
        "retention.bytes": _FOR_EVER,
        "max.message.bytes": str(BATCH_BYTES_MAX),
        "message.timestamp.type": "LogAppendTime",
        "min.insync.replicas": str(min(_IN_SYNC_MIN, replication_factor)),
        "unclean.leader.election.enable": "false",
    }


async def create_or_verify(
    admin: AIOKafkaAdminClient, topology: Topology, namespace: Namespace, replication_factor: int, log: Log
) -> None:
    """Create the topics that are missing and verify all. `admin` is started.

    `replication_factor` 0 means as many as there are brokers, up to 3.
    Raises TopicsError, or KafkaError when the cluster does not answer.
    """
    wanted = {namespace.outside(topic): count for topic, count in topology.partitions().items()}
    existing = set(await admin.list_topics())
    missing = [topic for topic in wanted if topic not in existing]
    if missing:
        if not replication_factor:
            replication_factor = min(REPLICAS_WANTED, len((await admin.describe_cluster())["brokers"]))
        config = topic_config(replication_factor)
        answer = await admin.create_topics(
            [NewTopic(topic, wanted[topic], replication_factor, topic_configs=config) for topic in missing]
        )
        for topic, code, *message in answer.topic_errors:
            error = for_code(code)
            if code and error is not TopicAlreadyExistsError:
                raise TopicsError(f"topic {topic} cannot be created: {error.__name__}: {message[0] if message else ''}")
        log.info("topics created", topics=missing, replication_factor=replication_factor)
    await _wait_for_leaders(admin, wanted)
    chained = {namespace.outside(topic) for topic in CHAINED_TOPICS}
    for topic, config in (await _configs(admin, list(wanted))).items():
        _verify(topic, config, is_chained=topic in chained)


async def _wait_for_leaders(admin: AIOKafkaAdminClient, wanted: Mapping[str, int]) -> None:
    """Until every partition has a leader. Raises TopicsError when one has too few or too many partitions."""
    for _ in range(_APPEAR_ATTEMPTS):
        ready = 0
        for described in await admin.describe_topics(list(wanted)):
            topic, partitions = described["topic"], described["partitions"]
            if described["error_code"] or not partitions:
                continue
            if len(partitions) != wanted[topic]:
                raise TopicsError(
                    f"topic {topic} has {len(partitions)} partitions, the topology needs {wanted[topic]}: "
                    "give the topology that it was made with, or another namespace"
                )
            ready += all(not each["error_code"] and each["leader"] >= 0 for each in partitions)
        if ready == len(wanted):
            return
        await asyncio.sleep(_APPEAR_PAUSE_S)
    raise TopicsError(f"not every topic has a leader after {_APPEAR_ATTEMPTS * _APPEAR_PAUSE_S:g} s")


async def _configs(admin: AIOKafkaAdminClient, topics: list[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    error = ""
    for _ in range(_APPEAR_ATTEMPTS):
        wanted = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics if topic not in found]
        for answer in await admin.describe_configs(wanted):
            for code, message, _kind, name, entries in answer.resources:
                if not code:
                    found[name] = {entry[0]: entry[1] for entry in entries}
                    continue
                error = f"topic {name} cannot be looked at: {for_code(code).__name__}: {message or ''}"
                # Any broker may be asked, and each hears of a new topic in its own time.
                if for_code(code) is not UnknownTopicOrPartitionError:
                    raise TopicsError(error)
        if len(found) == len(topics):
            return found
        await asyncio.sleep(_APPEAR_PAUSE_S)
    raise TopicsError(error)


def _verify(topic: str, config: Mapping[str, Any], *, is_chained: bool) -> None:
    """Raises TopicsError for a configuration under which records would be lost or refused."""
    if "compact" in str(config.get("cleanup.policy")):
        raise TopicsError(f"topic {topic} is compacted; records would be lost: set cleanup.policy to delete")
    if int(config.get("max.message.bytes") or 0) < BATCH_BYTES_MAX:
        raise TopicsError(
            f"topic {topic} takes {config.get('max.message.bytes')} bytes at most; an output may have "
            f"{BATCH_BYTES_MAX}: raise max.message.bytes"
        )
    limits = [name for name in ("retention.ms", "retention.bytes") if config.get(name) != _FOR_EVER]
    if is_chained and limits:
        raise TopicsError(
            f"topic {topic} has {limits[0]}={config.get(limits[0])}; it is the state of a service and must be kept: "
            f"set {limits[0]} to -1"
        )
