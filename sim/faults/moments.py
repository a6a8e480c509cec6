"""The moments that matter: what a strike may wait for, so that it hits where it hurts most (design section 8).

A moment is a situation of one host, and comes for the instances of certain services only. Which one a strike waits for
is drawn from the seed; whether it has come is read off the simulated servers and hosts (`sim.faults.watch`).
"""

from dataclasses import dataclass
from typing import Final

from schema.services import GATEWAY, MATCHING, SETTLEMENT, UBSCORE
from sim.scenario import MILLISECOND_NS

TRANSACTIONAL: Final = (UBSCORE, MATCHING)
WRITING: Final = (SETTLEMENT,)
MEMBERS: Final = (*TRANSACTIONAL, *WRITING)
ANSWERING: Final = (GATEWAY,)


@dataclass(frozen=True)
class Moment:
    """A situation worth waiting for."""

    name: str
    meaning: str
    services: tuple[str, ...]
    """The services for whose instances it can come."""
    patience_ms: int
    """How long a strike waits for it; then it strikes all the same."""
    look_every_us: int
    """How often it is looked for: often enough for how long it lasts."""

    @property
    def patience_ns(self) -> int:
        return self.patience_ms * MILLISECOND_NS

    @property
    def look_every_ns(self) -> int:
        return self.look_every_us * 1_000


IN_TRANSACTION: Final = Moment(
    "in-transaction", "a transaction of the instance is open, and not decided yet", TRANSACTIONAL, 1_000, 150
)
IN_COMMIT: Final = Moment(
    "in-commit",
    "a transaction of the instance is being ended: that is asked for, or its markers are being written",
    TRANSACTIONAL,
    1_000,
    150,
)
ROWS_BEING_WRITTEN: Final = Moment(
    "rows-being-written", "rows or progress of a batch are on their way to the database", WRITING, 1_000, 150
)
ROWS_REFUSED: Final = Moment(
    "rows-refused", "rows could not be written a moment ago, and wait to be written again", WRITING, 5_000, 2_000
)
BETWEEN_WRITE_AND_COMMIT: Final = Moment(
    "between-write-and-commit", "a batch is written, and the commit of its offsets is under way", WRITING, 1_000, 150
)
REQUESTS_OUTSTANDING: Final = Moment(
    "requests-outstanding", "clients wait for answers of the gateway", ANSWERING, 1_000, 150
)
DURING_REBALANCE: Final = Moment(
    "during-rebalance", "the group of the service is between two generations", MEMBERS, 5_000, 1_000
)
DURING_RECOVERY: Final = Moment("during-recovery", "the instance is taking a partition over", MEMBERS, 5_000, 2_000)
SNAPSHOT_BEING_WRITTEN: Final = Moment(
    "snapshot-being-written", "a snapshot on the disk of the instance is not synced yet", TRANSACTIONAL, 5_000, 300
)

MOMENTS: Final[dict[str, Moment]] = {
    each.name: each
    for each in (
        IN_TRANSACTION,
        IN_COMMIT,
        ROWS_BEING_WRITTEN,
        ROWS_REFUSED,
        BETWEEN_WRITE_AND_COMMIT,
        REQUESTS_OUTSTANDING,
        DURING_REBALANCE,
        DURING_RECOVERY,
        SNAPSHOT_BEING_WRITTEN,
    )
}

AT_COMMIT: Final = (IN_COMMIT, BETWEEN_WRITE_AND_COMMIT)
"""When a commit is under way: of a transaction, or of offsets."""
MEMBERS_AT_WORK: Final = (
    IN_TRANSACTION,
    IN_COMMIT,
    ROWS_BEING_WRITTEN,
    ROWS_REFUSED,
    BETWEEN_WRITE_AND_COMMIT,
    DURING_REBALANCE,
    DURING_RECOVERY,
)
"""What goes on between the members of a group and the brokers."""
AT_WORK: Final = tuple(MOMENTS.values())
"""Every moment: for what can strike any instance."""
