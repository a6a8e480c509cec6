"""The double of `aiokafka.admin.AIOKafkaAdminClient`, as far as the harness and its operators use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from aiokafka.admin import NewTopic, RecordsToDelete
from aiokafka.errors import KafkaConnectionError, NotLeaderForPartitionError, TopicAlreadyExistsError
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from sim.kafka.settings import refuse_unsupported
from sim.kafka.transport import Call, Metadata, Transport

if TYPE_CHECKING:
    from sim.hosts import Incarnation
    from sim.kafka.cluster import KafkaCluster


class Admin:
    """Creates and lists topics, lists a group's offsets, deletes records."""

    def __init__(
        self,
        cluster: KafkaCluster,
        incarnation: Incarnation,
        *,
        bootstrap_servers: object = "localhost",
        client_id: str = "aiokafka",
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

    async def create_topics(self, new_topics: Sequence[NewTopic], validate_only: bool = False) -> None:
        """Create topics. The cluster's replication factor is used; TopicAlreadyExistsError for one that exists."""
        for topic in new_topics:
            await self._transport.ask(self._metadata.random_broker(), self._create, topic, validate_only)
        await self._metadata.wait_refreshed(self._metadata.refresh())

    async def list_topics(self) -> list[str]:
        """The names of all topics."""
        await self._metadata.wait_refreshed(self._metadata.refresh())
        return sorted(self._metadata.partition_counts)

    async def list_consumer_group_offsets(
        self, group_id: str, partitions: Sequence[TopicPartition] | None = None
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """What a group has committed; all of it, if no partitions are named."""
        broker = await self._transport.ask(
            self._metadata.random_broker(), self._cluster.find_coordinator, "group", group_id
        )
        assert isinstance(broker, int)
        wanted = list(partitions) if partitions is not None else list(self._cluster.partitions)
        found = await self._transport.ask(broker, self._cluster.groups.fetch_offsets, group_id, wanted)
        assert isinstance(found, dict)
        return found

    async def delete_records(
        self, records_to_delete: Mapping[TopicPartition, RecordsToDelete]
    ) -> dict[TopicPartition, int]:
        """Delete what is before an offset (-1: everything); returns the new start of each log."""
        starts: dict[TopicPartition, int] = {}
        for tp, wanted in records_to_delete.items():
            leader = self._metadata.leaders.get(tp)
            if leader is None:
                raise NotLeaderForPartitionError(tp)
            answer = await self._transport.ask(leader, self._delete, tp, wanted.before_offset)
            assert isinstance(answer, int)
            starts[tp] = answer
        return starts

    # -- the servers' side

    def _create(self, call: Call, topic: NewTopic, validate_only: bool) -> None:
        if topic.name in self._cluster.topics:
            call.refuse(TopicAlreadyExistsError(topic.name))
            return
        if not validate_only:
            self._cluster.create_topic(topic.name, topic.num_partitions)
        call.answer()

    def _delete(self, call: Call, tp: TopicPartition, before_offset: int) -> None:
        partition = self._cluster.partitions[tp]
        if partition.leader != call.broker:
            call.refuse(NotLeaderForPartitionError(tp))
            return
        log = partition.log
        log.delete_before(log.high_watermark if before_offset < 0 else before_offset)
        call.answer(log.start_offset)
