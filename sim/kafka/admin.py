"""The double of `aiokafka.admin.AIOKafkaAdminClient`, as far as the harness and its operators use it.

As in the real client, what cannot be created is not raised: the answer has an error code for each topic. Of a topic's
settings `max.message.bytes` is modelled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aiokafka import __version__
from aiokafka.admin import NewTopic, RecordsToDelete
from aiokafka.errors import (
    BrokerResponseError,
    InvalidPartitionsError,
    InvalidReplicationFactorError,
    InvalidTopicError,
    KafkaConnectionError,
    NotLeaderForPartitionError,
    OffsetOutOfRangeError,
    TopicAlreadyExistsError,
)
from aiokafka.protocol.admin import CreateTopicsResponse_v3
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from sim.kafka.settings import UnsupportedSetting, refuse_unsupported
from sim.kafka.transport import Call, Metadata, Transport

if TYPE_CHECKING:
    from sim.hosts import Incarnation
    from sim.kafka.cluster import KafkaCluster

_LEGAL_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_MAX_MESSAGE_BYTES = "max.message.bytes"


class Admin:
    """Creates, describes and lists topics, lists groups and their offsets, deletes records."""

    def __init__(
        self,
        cluster: KafkaCluster,
        incarnation: Incarnation,
        *,
        bootstrap_servers: object = "localhost",
        client_id: str = f"aiokafka-{__version__}",
        request_timeout_ms: int = 40_000,
        retry_backoff_ms: int = 100,
        metadata_max_age_ms: int = 300_000,
        **unsupported: object,
    ) -> None:
        refuse_unsupported("AIOKafkaAdminClient", unsupported)
        self._cluster = cluster
        self._transport = Transport(cluster, incarnation, request_timeout_ms)
        self._metadata = Metadata(self._transport, retry_backoff_ms, metadata_max_age_ms)

    async def start(self) -> None:
        """Connect."""
        if not await self._metadata.refresh():
            raise KafkaConnectionError("Unable to bootstrap from any broker")

    async def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    # -- topics

    async def create_topics(
        self, new_topics: Sequence[NewTopic], timeout_ms: int | None = None, validate_only: bool = False
    ) -> Any:
        """Create topics; the answer's `topic_errors` has (name, error code, message) for each, code 0 if it is well."""
        for topic in new_topics:
            unknown = [name for name in topic.topic_configs if name != _MAX_MESSAGE_BYTES]
            if unknown or topic.replica_assignments:
                raise UnsupportedSetting(f"of a topic's settings only {_MAX_MESSAGE_BYTES} is modelled, not {unknown}")
        answer = await self._transport.ask(
            self._metadata.random_broker(), self._create, list(new_topics), validate_only
        )
        return CreateTopicsResponse_v3(throttle_time_ms=0, topic_errors=answer)

    async def list_topics(self) -> list[str]:
        """The names of all topics."""
        await self._metadata.wait_refreshed(self._metadata.refresh())
        return sorted(self._metadata.partition_counts)

    async def describe_topics(self, topics: Sequence[str] | None = None) -> list[Any]:
        """Each topic with its partitions' leaders and replicas; error code 3 for one that does not exist."""
        answer = await self._transport.ask(self._metadata.random_broker(), self._describe, topics)
        assert isinstance(answer, list)
        return answer

    async def describe_cluster(self) -> dict[str, Any]:
        """The brokers that are up."""
        await self._metadata.wait_refreshed(self._metadata.refresh())
        names = self._cluster.broker_names
        brokers = [{"node_id": b, "host": names[b], "port": 9092, "rack": None} for b in self._metadata.brokers]
        controller = self._metadata.brokers[0]
        return {"throttle_time_ms": 0, "brokers": brokers, "cluster_id": "simulated", "controller_id": controller}

    async def delete_records(
        self, records_to_delete: Mapping[TopicPartition, RecordsToDelete], timeout_ms: int | None = None
    ) -> dict[TopicPartition, int]:
        """Delete what is before an offset (-1: everything); returns the new start of each log."""
        await self._metadata.wait_refreshed(self._metadata.refresh())
        leaders: dict[TopicPartition, int] = {}
        for tp in records_to_delete:
            leader = self._metadata.leaders.get(tp)
            if leader is None:
                raise NotLeaderForPartitionError
            leaders[tp] = leader
        starts: dict[TopicPartition, int] = {}
        for tp, leader in leaders.items():
            answer = await self._transport.ask(leader, self._delete, tp, records_to_delete[tp].before_offset)
            assert isinstance(answer, int)
            starts[tp] = answer
        return starts

    # -- groups

    async def find_coordinator(self, group_id: str, coordinator_type: int = 0) -> int:
        """The broker that coordinates a group (type 0) or a transactional id (type 1)."""
        kind = "transaction" if coordinator_type else "group"
        broker = await self._transport.ask(
            self._metadata.random_broker(), self._cluster.find_coordinator, kind, group_id
        )
        assert isinstance(broker, int)
        return broker

    async def list_consumer_group_offsets(
        self,
        group_id: str,
        group_coordinator_id: int | None = None,
        partitions: Sequence[TopicPartition] | None = None,
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """What a group has committed: all of it, or for the partitions named, then with offset -1 for none."""
        broker = group_coordinator_id if group_coordinator_id is not None else await self.find_coordinator(group_id)
        wanted = list(partitions) if partitions is not None else list(self._cluster.partitions)
        found = await self._transport.ask(broker, self._cluster.groups.fetch_offsets, group_id, wanted)
        assert isinstance(found, dict)
        if partitions is None:
            return found
        return {tp: found.get(tp, OffsetAndMetadata(-1, "")) for tp in wanted}

    # -- what is not modelled

    async def delete_topics(self, topics: list[str], timeout_ms: int | None = None) -> Any:
        """Not modelled."""
        raise UnsupportedSetting("deleting topics is not modelled")

    async def create_partitions(
        self, topic_partitions: Mapping[str, object], timeout_ms: int | None = None, validate_only: bool = False
    ) -> Any:
        """Not modelled."""
        raise UnsupportedSetting("topics that grow are not modelled")

    async def describe_configs(self, config_resources: list[Any], include_synonyms: bool = False) -> list[Any]:
        """Not modelled."""
        raise UnsupportedSetting("settings of topics and brokers cannot be read from the simulated cluster")

    async def alter_configs(self, config_resources: list[Any]) -> list[Any]:
        """Not modelled."""
        raise UnsupportedSetting("settings of topics and brokers cannot be changed in the simulated cluster")

    async def describe_consumer_groups(
        self,
        group_ids: list[str],
        group_coordinator_id: int | None = None,
        include_authorized_operations: bool = False,
    ) -> list[Any]:
        """Not modelled."""
        raise UnsupportedSetting("describing groups is not modelled")

    async def list_consumer_groups(self, broker_ids: list[int] | None = None) -> list[tuple[Any, ...]]:
        """Not modelled."""
        raise UnsupportedSetting("listing groups is not modelled")

    # -- the servers' side

    def _create(self, call: Call, topics: list[NewTopic], validate_only: bool) -> None:
        results: list[tuple[str, int, str | None]] = []
        for topic in topics:
            refusal, message = self._refusal(topic)
            if refusal is None and not validate_only:
                limit = topic.topic_configs.get(_MAX_MESSAGE_BYTES)
                self._cluster.create_topic(
                    topic.name,
                    topic.num_partitions,
                    replication_factor=topic.replication_factor,
                    max_message_bytes=None if limit is None else int(limit),
                )
            results.append((topic.name, 0 if refusal is None else refusal.errno, message))
        call.answer(results)

    def _refusal(self, topic: NewTopic) -> tuple[type[BrokerResponseError] | None, str | None]:
        brokers = len(self._cluster.broker_ids)
        if topic.name in self._cluster.topics:
            return TopicAlreadyExistsError, f"Topic '{topic.name}' already exists."
        if _LEGAL_NAME.fullmatch(topic.name) is None or topic.name in (".", ".."):
            return InvalidTopicError, f"Topic name is invalid: '{topic.name}'"
        if topic.num_partitions < 1:
            return InvalidPartitionsError, "Number of partitions was set to an invalid non-positive value."
        if not 1 <= topic.replication_factor <= brokers:
            return InvalidReplicationFactorError, f"Replication factor {topic.replication_factor} of {brokers} brokers"
        return None, None

    def _describe(self, call: Call, wanted: Sequence[str] | None) -> None:
        known = self._cluster.topics
        found: list[dict[str, Any]] = []
        for name in known if wanted is None else wanted:
            parts = [self._cluster.partitions[tp] for tp in self._cluster.partitions_of(name)]
            described = [
                {
                    "error_code": 0 if part.leader is not None else 5,
                    "partition": part.tp.partition,
                    "leader": -1 if part.leader is None else part.leader,
                    "replicas": list(part.replicas),
                    "isr": list(part.in_sync),
                    "offline_replicas": [broker for broker in part.replicas if not self._cluster.is_up(broker)],
                }
                for part in parts
            ]
            code = 0 if name in known else 3
            found.append({"error_code": code, "topic": name, "is_internal": False, "partitions": described})
        call.answer(found)

    def _delete(self, call: Call, tp: TopicPartition, before_offset: int) -> None:
        partition = self._cluster.partitions[tp]
        if partition.leader != call.broker:
            call.refuse(NotLeaderForPartitionError())
            return
        log = partition.log
        if before_offset > log.high_watermark:
            call.refuse(OffsetOutOfRangeError())
            return
        log.delete_before(log.high_watermark if before_offset < 0 else before_offset)
        self._cluster.requests.start_moved(partition)
        call.answer(log.start_offset)
