"""A simulated Kafka cluster behind doubles of aiokafka's clients (design 1.3, 5).

    cluster = KafkaCluster(clock, network, randomness, recorder)
    cluster.create_topic("order.requests", 4)
    clients = SimKafkaClients(cluster, incarnation)        # what a service is handed
    cluster.faults.crash_broker(2)                          # what can go wrong

`log` and `partition` are what is stored and replicated; `broker`, `transactions` and `groups` answer requests;
`cluster` holds it all together; `transport` carries requests; `producer`, `consumer` (with `subscription` and
`membership`) and `admin` are the clients. Each module says what it leaves out.

Not modelled at all: compaction, compression, quotas, security, followers as read replicas, idle connections, the
consumer protocol of KIP-848, tiered storage; two leaders of one partition at a time (a leader is never cut off from
the controller).
"""

from sim.kafka.clients import SimKafkaClients
from sim.kafka.cluster import KafkaCluster
from sim.kafka.config import KafkaConfig
from sim.kafka.faults import KafkaFaults

__all__ = ["KafkaCluster", "KafkaConfig", "KafkaFaults", "SimKafkaClients"]
