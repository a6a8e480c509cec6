"""Faults of Cassandra: its replicas, their clocks, and single operations (design section 8)."""

from typing import Final

from sim.deployment import Deployment
from sim.faults.aims import any_replica, the_world
from sim.faults.kind import Kind, Undo
from sim.faults.moments import DURING_RECOVERY, ROWS_BEING_WRITTEN, Moment
from sim.faults.options import FaultOptions, Span
from sim.scenario import MILLISECOND_NS
from sim.script import Strike

CASSANDRA: Final = Kind("Cassandra")

SETTLING: Final = (ROWS_BEING_WRITTEN, DURING_RECOVERY)
"""When settlement writes rows, and when it reads its progress."""


@CASSANDRA.fault(
    FaultOptions(
        "replica-down",
        "a Cassandra node goes down and comes back, with hints kept for it or without",
        "every write and read at LOCAL_QUORUM",
        any_replica,
        strikes_per_minute=Span(1, 6),
        duration_ms=Span(300, 10_000),
        strength=Span(0, 3),
        strength_meaning="0: no hints are kept; 2 or 3: the others notice it only after 2 s",
        moments=SETTLING,
    )
)
def _replica_down(world: Deployment, strike: Strike) -> Undo:
    node = world.cassandra.node(strike.target)
    noticed_after_ns = 2_000 * MILLISECOND_NS if strike.strength >= 2 else 0
    return world.cassandra.take_down(node, hints=strike.strength > 0, noticed_after_ns=noticed_after_ns)


@CASSANDRA.fault(
    FaultOptions(
        "slow-replica",
        "everything that a Cassandra node does takes longer",
        "every write and read",
        any_replica,
        strikes_per_minute=Span(2, 10),
        duration_ms=Span(500, 8_000),
        strength=Span(5, 3_000),
        strength_meaning="ms more, each operation",
        moments=SETTLING,
    )
)
def _slow_replica(world: Deployment, strike: Strike) -> Undo:
    node = world.cassandra.node(strike.target)
    return world.cassandra.slow_down(node, strike.strength * MILLISECOND_NS)


@CASSANDRA.fault(
    FaultOptions(
        "database-clock-skew",
        "a Cassandra node's wall clock is off",
        "the expiry of finished rows; any write timestamp that were left to the server",
        any_replica,
        strikes_per_minute=Span(2, 6),
        duration_ms=Span(1_000, 15_000),
        strength=Span(-30_000, 30_000),
        strength_meaning="ms, forward or back",
    )
)
def _database_clock_skew(world: Deployment, strike: Strike) -> Undo:
    return world.cassandra.node(strike.target).wall.skew(strike.strength * MILLISECOND_NS)


def _operation_fault(
    name: str, armed: tuple[str, ...], meaning: str, hits: str, moments: tuple[Moment, ...] = SETTLING
) -> None:
    """A fault that strikes single Cassandra operations; `armed` are the outcomes that take turns."""

    @CASSANDRA.fault(
        FaultOptions(
            name,
            meaning,
            hits,
            the_world,
            strikes_per_minute=Span(2, 10),
            duration_ms=Span(200, 5_000),
            strength=Span(10_000, 400_000),
            strength_meaning="ppm of operations",
            moments=moments,
            aimed_duration_ms=Span(2, 60),
            aimed_strength=Span(300_000, 1_000_000),
        )
    )
    def begin(world: Deployment, strike: Strike) -> Undo:
        faults = [world.cassandra.faults.arm(each, ppm=strike.strength // len(armed)) for each in armed]

        def disarm() -> None:
            for fault in faults:
                world.cassandra.faults.disarm(fault)

        return disarm


_operation_fault(
    "write-timeout",
    ("write_timeout_none", "write_timeout_some", "write_timeout_all"),
    "a write times out, applied on none, some or all of its replicas",
    "every write of settlement",
)
_operation_fault(
    "read-timeout",
    ("read_timeout",),
    "a read times out",
    "settlement's progress; every read of the gateway",
    (DURING_RECOVERY,),
)
_operation_fault(
    "lost-database-answer",
    ("lose_answer",),
    "an operation is carried out and its answer lost, so the driver gives up after its own time-out",
    "every write of settlement; every read",
)
_operation_fault(
    "unavailable", ("unavailable",), "the coordinator finds too few replicas alive", "every write and read"
)
_operation_fault("overload", ("overload",), "the coordinator sheds load", "every write and read")
