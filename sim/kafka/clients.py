"""The clients that a host is handed: `schema.ports.KafkaClients` over the simulated cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim.kafka.admin import Admin
from sim.kafka.consumer import Consumer
from sim.kafka.producer import Producer

if TYPE_CHECKING:
    from sim.hosts import Incarnation
    from sim.kafka.cluster import KafkaCluster


class SimKafkaClients:
    """Makes Kafka clients for one incarnation of a host; the keyword arguments are aiokafka's own."""

    def __init__(self, cluster: KafkaCluster, incarnation: Incarnation) -> None:
        self._cluster = cluster
        self._incarnation = incarnation

    def producer(self, **config: Any) -> Producer:
        """An AIOKafkaProducer."""
        return Producer(self._cluster, self._incarnation, **config)

    def consumer(self, *topics: str, **config: Any) -> Consumer:
        """An AIOKafkaConsumer."""
        return Consumer(self._cluster, self._incarnation, *topics, **config)

    def admin(self, **config: Any) -> Admin:
        """An AIOKafkaAdminClient."""
        return Admin(self._cluster, self._incarnation, **config)
