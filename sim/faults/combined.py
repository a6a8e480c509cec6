"""Faults that take several things at once, because they seldom come together by themselves (design section 8)."""

from collections.abc import Callable
from typing import Final

from schema.services import SETTLEMENT
from sim.deployment import Deployment
from sim.faults.aims import host_of
from sim.faults.hosts import cut_power
from sim.faults.kind import Kind, Undo
from sim.faults.moments import IN_COMMIT, IN_TRANSACTION, ROWS_BEING_WRITTEN, TRANSACTIONAL
from sim.faults.options import FaultOptions, Span
from sim.scenario import MILLISECOND_NS
from sim.script import Strike

COMBINED: Final = Kind("several at once", about="What seldom comes together by itself, and hurts most when it does.")

REFUSING_MS: Final = Span(40, 300)
"""Long enough that the next batch of rows is refused too, and waits to be written again."""


@COMBINED.fault(
    FaultOptions(
        "zombie-owner",
        "an instance stands still in the middle of a transaction and is thrown out of its group, and wakes up when "
        "others have its partitions",
        "the fencing of producers: what the old owner goes on to send, and to commit",
        host_of(*TRANSACTIONAL),
        strikes_per_minute=Span(2, 8),
        duration_ms=Span(1_000, 9_000),
        moments=(IN_TRANSACTION, IN_COMMIT),
        is_always_aimed=True,
    )
)
def _zombie_owner(world: Deployment, strike: Strike) -> Undo:
    return _make_zombie(world, strike.target)


@COMBINED.fault(
    FaultOptions(
        "zombie-writer",
        "the database refuses everything; an instance that waits to write rows again stands still and is thrown out of "
        "its group, and wakes up with rows in hand that others have written newer since",
        "settlement's repeated writes after it has lost its partitions: the write timestamps of rows",
        host_of(SETTLEMENT),
        strikes_per_minute=Span(2, 8),
        duration_ms=Span(3_000, 9_000),
        strength=REFUSING_MS,
        strength_meaning="ms for which the database refuses everything before the instance stands still",
        moments=(ROWS_BEING_WRITTEN,),
        is_always_aimed=True,
    )
)
def _zombie_writer(world: Deployment, strike: Strike) -> Undo:
    return _refused_and_then(_make_zombie, world, strike)


@COMBINED.fault(
    FaultOptions(
        "writer-crash",
        "the database refuses everything; an instance that waits to write rows again loses its power",
        "rows, progress and offsets: what was committed before its rows were written is lost now",
        host_of(SETTLEMENT),
        strikes_per_minute=Span(2, 8),
        duration_ms=Span(400, 4_000),
        strength=REFUSING_MS,
        strength_meaning="ms for which the database refuses everything before the crash",
        moments=(ROWS_BEING_WRITTEN,),
        is_always_aimed=True,
    )
)
def _writer_crash(world: Deployment, strike: Strike) -> Undo:
    return _refused_and_then(cut_power, world, strike)


def _refused_and_then(strike_host: Callable[[Deployment, str], Undo], world: Deployment, strike: Strike) -> Undo:
    """Let the database refuse everything for as many milliseconds as the strength says, and then strike the host."""
    faults = world.cassandra.faults
    refusal = faults.arm("unavailable")
    mend: Undo | None = None

    def go_on() -> None:
        nonlocal mend
        faults.disarm(refusal)
        mend = strike_host(world, strike.target)

    timer = world.clock.after(strike.strength * MILLISECOND_NS, go_on)

    def end() -> None:
        timer.cancel()
        faults.disarm(refusal)
        if mend is not None:
            mend()

    return end


def _make_zombie(world: Deployment, host: str) -> Undo:
    """Freeze an instance and throw it out of its group, without waiting for its session to time out."""
    service = world.hosts[host].service
    member = world.kafka.groups.member_of(service, host)
    if member is not None:
        world.kafka.faults.evict(service, member)
    return world.hosts[host].freeze()
