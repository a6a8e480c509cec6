"""Faults that take several things at once, because they seldom come together by themselves (design section 8)."""

from typing import Final

from sim.deployment import SETTLEMENT, Deployment
from sim.faults.aims import host_of
from sim.faults.hosts import freeze
from sim.faults.kind import Kind, Undo
from sim.faults.moments import ROWS_BEING_WRITTEN
from sim.faults.plan import FaultOptions, Span
from sim.scenario import MILLISECOND_NS
from sim.script import Strike

COMBINED: Final = Kind("several at once")


@COMBINED.fault(
    FaultOptions(
        "zombie-writer",
        "the database refuses writes; an instance that waits to write them again stands still and is thrown out of its "
        "group, and wakes up with rows in hand that others have written newer since",
        "settlement's repeated writes after it has lost its partitions: the write timestamps of rows",
        host_of(SETTLEMENT),
        strikes_per_minute=Span(2, 8),
        duration_ms=Span(3_000, 9_000),
        strength=Span(40, 300),
        strength_meaning="ms for which the database refuses writes before the instance stands still",
        moments=(ROWS_BEING_WRITTEN,),
        is_always_aimed=True,
    )
)
def _zombie_writer(world: Deployment, strike: Strike) -> Undo:
    refusal = world.cassandra.faults.arm("unavailable")
    wake: Undo | None = None
    is_over = False

    def stand_still() -> None:
        nonlocal wake
        world.cassandra.faults.disarm(refusal)
        if not is_over:
            wake = freeze(world.hosts[strike.target])
            member = world.kafka.groups.member_of(SETTLEMENT, strike.target)
            if member is not None:
                world.kafka.faults.evict(SETTLEMENT, member)

    def end() -> None:
        nonlocal is_over
        is_over = True
        if wake is not None:
            wake()

    world.clock.after(strike.strength * MILLISECOND_NS, stand_still)
    return end
