"""Real Kafka clients: aiokafka's own, told where the brokers are, that count what passes through them.

Only what the services ask for in `schema.ports` is counted on its way; nothing else differs from the classes they
derive from.
"""

import time
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from live.metrics import Lag, Metrics

if TYPE_CHECKING:
    from asyncio import Future

    from aiokafka.structs import ConsumerRecord, RecordMetadata, TopicPartition

    from schema.ports import KafkaBatch

ADMIN_TIMEOUT_MS: Final = 30_000

FETCH_WAIT_MS: Final = 20
"""How long a broker holds a fetch when there is nothing, for consumers that do not say.

aiokafka has one fetch under way to a broker, for the partitions that had nothing buffered when it was sent. A partition
that is drained meanwhile waits for the end of it, so with aiokafka's 500 ms a second record comes half a second late.
"""


class AioKafkaClients:
    """Implements `schema.ports.KafkaClients` on a cluster at `bootstrap_servers` ("host:port,host:port")."""

    def __init__(self, bootstrap_servers: str, client_id: str, metrics: Metrics | None = None) -> None:
        self.bootstrap_servers = bootstrap_servers
        self._client_id = client_id
        self._metrics = metrics or Metrics()

    def producer(self, **config: Any) -> "CountingProducer":
        """An AIOKafkaProducer; the keyword arguments are aiokafka's own."""
        return CountingProducer(
            self._metrics, bootstrap_servers=self.bootstrap_servers, client_id=self._client_id, **config
        )

    def consumer(self, *topics: str, **config: Any) -> "CountingConsumer":
        """An AIOKafkaConsumer; the keyword arguments are aiokafka's own."""
        config = {"fetch_max_wait_ms": FETCH_WAIT_MS, **config}
        return CountingConsumer(
            self._metrics, *topics, bootstrap_servers=self.bootstrap_servers, client_id=self._client_id, **config
        )

    def admin(self) -> AIOKafkaAdminClient:
        """An AIOKafkaAdminClient, for whoever creates topics."""
        return AIOKafkaAdminClient(
            bootstrap_servers=self.bootstrap_servers, client_id=self._client_id, request_timeout_ms=ADMIN_TIMEOUT_MS
        )


class CountingProducer(AIOKafkaProducer):  # type: ignore[misc]  # aiokafka has no types
    """Counts records, and transactions by their outcome."""

    def __init__(self, metrics: Metrics, **config: Any) -> None:
        super().__init__(**config)
        self._metrics = metrics
        self._begun_at = 0.0

    async def send(self, topic: str, *arguments: Any, **keywords: Any) -> "Future[RecordMetadata]":
        """As aiokafka's."""
        delivery: Future[RecordMetadata] = await super().send(topic, *arguments, **keywords)
        self._metrics.records_produced.labels(topic).inc()
        return delivery

    async def send_batch(self, batch: "KafkaBatch", topic: str, *, partition: int) -> "Future[RecordMetadata]":
        """As aiokafka's."""
        delivery: Future[RecordMetadata] = await super().send_batch(batch, topic, partition=partition)
        self._metrics.records_produced.labels(topic).inc(batch.record_count())
        return delivery

    async def begin_transaction(self) -> None:
        """As aiokafka's."""
        self._begun_at = time.perf_counter()
        await super().begin_transaction()

    async def commit_transaction(self) -> None:
        """As aiokafka's. Counted as "unknown" when it does not return: it may have been committed."""
        outcome = "unknown"
        try:
            await super().commit_transaction()
            outcome = "committed"
            self._metrics.transaction_seconds.observe(time.perf_counter() - self._begun_at)
        finally:
            self._metrics.transactions.labels(outcome).inc()

    async def abort_transaction(self) -> None:
        """As aiokafka's."""
        await super().abort_transaction()
        self._metrics.transactions.labels("aborted").inc()


class CountingConsumer(AIOKafkaConsumer):  # type: ignore[misc]
    """Counts records, and knows how far behind it is."""

    def __init__(self, metrics: Metrics, *topics: str, **config: Any) -> None:
        super().__init__(*topics, **config)
        self._metrics = metrics
        self._read_up_to: dict[TopicPartition, int] = {}
        if config.get("group_id") is not None:
            metrics.watch_lag(self, self.lag)

    async def getmany(
        self, *partitions: "TopicPartition", timeout_ms: int = 0, max_records: int | None = None
    ) -> "dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]]":
        """As aiokafka's."""
        fetched: dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]]
        fetched = await super().getmany(*partitions, timeout_ms=timeout_ms, max_records=max_records)
        for place, records in fetched.items():
            if records:
                self._metrics.records_consumed.labels(place.topic).inc(len(records))
                self._read_up_to[place] = records[-1].offset + 1
        return fetched

    def seek(self, partition: "TopicPartition", offset: int) -> None:
        """As aiokafka's."""
        super().seek(partition, offset)
        self._read_up_to[partition] = offset

    def lag(self) -> Lag:
        """How far each partition that it has, and has fetched from, is behind its committed end."""
        behind: Lag = {}
        for place in self.assignment():
            end = self.last_stable_offset(place)
            if end is not None and end >= 0 and place in self._read_up_to:
                behind[place.topic, place.partition] = max(0, end - self._read_up_to[place])
        return behind
