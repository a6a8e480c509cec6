"""The settings of the simulated brokers, named after Kafka's own where they have one. Times are in the unit of the
name."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class KafkaConfig:
    """How the simulated cluster is set up. The defaults are Kafka's, but for three that make runs shorter.

    These say so.
    """

    brokers: tuple[str, ...] = ("kafka-1", "kafka-2", "kafka-3")
    """The brokers' names on the network. A broker's node id is its place in here, from 1."""
    replication_factor: int = 3
    min_insync_replicas: int = 2
    message_max_bytes: int = 8 * 1024 * 1024 + 4096
    """The largest batch that a topic takes which does not say otherwise.

    Design 4.1.7: records up to 8 MiB, and the batch's own header.
    """
    replica_lag_time_max_ms: int = 5_000
    """A follower that has not caught up for so long leaves the in-sync replicas. Kafka: 30 s."""
    broker_session_timeout_ms: int = 1_000
    """How long after a broker died the controller elects other leaders. Kafka (KRaft): 9 s."""
    election_ns: int = 20_000_000
    """From the controller's decision until the new leader serves."""
    coordinator_load_ns: int = 50_000_000
    """How long a broker that became a coordinator answers that it is still loading."""
    transaction_max_timeout_ms: int = 900_000
    transaction_cleanup_interval_ms: int = 10_000
    """Transactions past their time-out are looked for this often."""
    marker_delay_ns: tuple[int, int] = field(default=(200_000, 3_000_000))
    """From the decision to end a transaction until its markers leave the coordinator: least and most."""
    group_initial_rebalance_delay_ms: int = 100
    """How long an empty group waits for more members before its first generation. Kafka: 3 s."""
    group_min_session_timeout_ms: int = 6_000
    group_max_session_timeout_ms: int = 1_800_000
    heartbeat_check_ns: int = 1_000_000_000
    """How often a group coordinator looks whose heartbeats would have arrived; see `sim.kafka.groups`."""
    unclean_leader_election: bool = False
    """Breaks a stated assumption: a replica not in sync may become the leader, and acknowledged records are lost."""

    def __post_init__(self) -> None:
        if not 1 <= self.replication_factor <= len(self.brokers):
            raise ValueError(f"replication_factor {self.replication_factor} needs 1 to {len(self.brokers)} brokers")
        if not 1 <= self.min_insync_replicas <= self.replication_factor:
            raise ValueError(f"min_insync_replicas must be 1 to {self.replication_factor}")
