"""How a partition is owned: time-outs, batches, snapshots. One documented record (design 4.3)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class OwnershipSettings:
    """All times in milliseconds. The defaults suit a cluster in one place; see each field for what bounds it."""

    transaction_timeout_ms: int = 10_000
    """After this the coordinator aborts a transaction that was not ended; nor do we wait longer for our own."""
    request_timeout_ms: int = 5_000
    """How long one request to a broker may take before it is tried again."""
    retry_backoff_ms: int = 100
    """The Kafka clients' own pause before they try a request again."""
    session_timeout_ms: int = 6_000
    """Without a heartbeat for this long a member is evicted from the group."""
    heartbeat_interval_ms: int = 1_500
    """A quarter of the session time-out, so that a few may be lost."""
    rebalance_timeout_ms: int = 12_000
    """How long the group waits for a member to join again; longer than `revocation_timeout_ms`."""
    revocation_timeout_ms: int = 10_000
    """How long a revocation waits for the running transaction to end before it cancels it."""
    stop_timeout_ms: int = 3_000
    """How long closing a Kafka client, or aborting a transaction, may take; both only hasten what happens anyhow."""
    fetch_wait_ms: int = 100
    """How long a broker holds a fetch when there is nothing. A resumed partition may have to wait as long."""
    poll_timeout_ms: int = 1_000
    """How long one fetch for input waits. New input ends the wait at once."""
    poll_records_max: int = 500
    """Records that one poll hands over, of all partitions together."""
    batch_records_max: int = 500
    """Input records that one transaction takes in."""
    inbox_records_max: int = 2_000
    """A partition with this many records waiting is paused until it has worked them off. One poll may go past it."""
    replay_records_per_turn: int = 200
    """Records replayed before other tasks of the process get a turn."""
    snapshot_interval_outputs: int = 2_000
    """Outputs from one snapshot to the next, at least (`engine.snapshots.is_due`); a restart replays at most that many
    and a batch, or as much as a large snapshot takes. 0: no snapshots."""
    backoff_initial_ms: int = 100
    """The pause before a partition is taken over anew, or the group joined again. Doubles with each failure."""
    backoff_max_ms: int = 5_000
    """The longest such pause. A random part of up to one half is taken off it."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < (0 if name == "snapshot_interval_outputs" else 1):
                raise ValueError(f"{name} must be positive, not {value}")
        if self.rebalance_timeout_ms <= self.revocation_timeout_ms:
            raise ValueError("rebalance_timeout_ms must be longer than revocation_timeout_ms")
        if self.session_timeout_ms <= self.heartbeat_interval_ms:
            raise ValueError("session_timeout_ms must be longer than heartbeat_interval_ms")
