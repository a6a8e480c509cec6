"""Faults of the hosts that run the services: power, processes, clocks, disks (design section 8)."""

from typing import Final

from schema.services import GATEWAY
from sim.deployment import Deployment
from sim.disk import LOST, TORN, TORN_WITH_ZEROS, Disk
from sim.faults.aims import any_group, any_host, host_of
from sim.faults.kind import Kind, Undo
from sim.faults.moments import AT_WORK, MEMBERS_AT_WORK, REQUESTS_OUTSTANDING, SNAPSHOT_BEING_WRITTEN, TRANSACTIONAL
from sim.faults.options import FaultOptions, Span
from sim.scenario import MILLISECOND_NS
from sim.script import Strike

HOSTS: Final = Kind(
    "hosts",
    about="A host runs one instance of a service. A second instance that leaves is `stop-restart`; a crash of a chosen "
    "service at its worst moment is `crash` with a moment.",
)


@HOSTS.fault(
    FaultOptions(
        "crash",
        "a host loses its power between two callbacks; unsynced writes are lost or torn; it comes back",
        "any await of any service",
        any_host,
        strikes_per_minute=Span(3, 20),
        duration_ms=Span(50, 6_000),
        moments=AT_WORK,
    )
)
def _crash(world: Deployment, strike: Strike) -> Undo:
    return cut_power(world, strike.target)


@HOSTS.fault(
    FaultOptions(
        "crash-loop",
        "a host comes back and crashes again, several times, in the middle of its recovery",
        "taking a partition over; settlement's start",
        any_host,
        strikes_per_minute=Span(1, 4),
        duration_ms=Span(2_000, 8_000),
        strength=Span(150, 900),
        strength_meaning="ms from each start to the next crash",
    )
)
def _crash_loop(world: Deployment, strike: Strike) -> Undo:
    host = world.hosts[strike.target]
    is_over = False

    def crash() -> None:
        if not is_over:
            world.take_down(strike.target, host.crash)
            world.bring_up(strike.target)
            world.clock.after(strike.strength * MILLISECOND_NS, crash)

    def end() -> None:
        nonlocal is_over
        is_over = True

    crash()
    return end


@HOSTS.fault(
    FaultOptions(
        "stop-restart",
        "an instance is stopped by SIGTERM and started again later, so the others take its partitions",
        "the end of a running transaction or batch; joining and leaving",
        any_host,
        strikes_per_minute=Span(2, 10),
        duration_ms=Span(100, 8_000),
        moments=AT_WORK,
    )
)
def _stop_restart(world: Deployment, strike: Strike) -> Undo:
    world.take_down(strike.target, world.hosts[strike.target].stop)
    return lambda: world.bring_up(strike.target)


@HOSTS.fault(
    FaultOptions(
        "pause",
        "a host stands still while the world goes on, often for longer than its session time-out",
        "everything in flight: it wakes up as a zombie",
        any_host,
        strikes_per_minute=Span(2, 10),
        duration_ms=Span(100, 14_000),
        moments=AT_WORK,
        aimed_duration_ms=Span(6_000, 20_000),
    )
)
def _pause(world: Deployment, strike: Strike) -> Undo:
    return world.hosts[strike.target].freeze()


@HOSTS.fault(
    FaultOptions(
        "clock-jump",
        "a host's wall clock jumps and is set right later",
        "a request's own time; the time to live of a completing row",
        any_host,
        strikes_per_minute=Span(2, 8),
        duration_ms=Span(500, 10_000),
        strength=Span(-600_000, 600_000),
        strength_meaning="ms, forward or back",
    )
)
def _clock_jump(world: Deployment, strike: Strike) -> Undo:
    return world.hosts[strike.target].wall.jump(strike.strength * MILLISECOND_NS)


@HOSTS.fault(
    FaultOptions(
        "clock-drift",
        "a host's wall clock runs fast or slow",
        "a request's own time",
        any_host,
        strikes_per_minute=Span(2, 6),
        duration_ms=Span(2_000, 20_000),
        strength=Span(-50_000, 50_000),
        strength_meaning="parts per million",
    )
)
def _clock_drift(world: Deployment, strike: Strike) -> Undo:
    return world.hosts[strike.target].wall.drift(strike.strength * 1_000)


@HOSTS.fault(
    FaultOptions(
        "corrupt-snapshot",
        "a host crashes and the newest snapshot of one of its partitions comes back altered",
        "reading a snapshot when a partition is taken over",
        host_of(*TRANSACTIONAL),
        strikes_per_minute=Span(1, 4),
        duration_ms=Span(100, 4_000),
    )
)
def _corrupt_snapshot(world: Deployment, strike: Strike) -> Undo:
    host = world.hosts[strike.target]
    bring_back = cut_power(world, strike.target)
    stream = world.randomness.stream(f"faults/corrupt-snapshot/{strike.target}/{strike.at_ns}")
    newest = newest_snapshots(host.disk)
    if newest:
        host.disk.corrupt(stream.choice(newest), stream)
    return bring_back


@HOSTS.fault(
    FaultOptions(
        "gateway-crash",
        "a gateway loses its power while clients wait for its answers",
        "requests that were produced and whose answers nobody is left to give; the gateway's session and order ids",
        host_of(GATEWAY),
        strikes_per_minute=Span(2, 8),
        duration_ms=Span(50, 5_000),
        moments=(REQUESTS_OUTSTANDING,),
        is_always_aimed=True,
    )
)
def _gateway_crash(world: Deployment, strike: Strike) -> Undo:
    return cut_power(world, strike.target)


TORN_WRITES: Final = (LOST, TORN, TORN_WITH_ZEROS)


@HOSTS.fault(
    FaultOptions(
        "torn-write",
        "a host loses its power while it writes a snapshot: what is not synced is lost or torn",
        "writing a snapshot aside, syncing and renaming it; refusing one that is not whole",
        host_of(*TRANSACTIONAL),
        strikes_per_minute=Span(2, 6),
        duration_ms=Span(50, 3_000),
        strength=Span(0, len(TORN_WRITES) - 1),
        strength_meaning="what becomes of the file: 0 as it was before, 1 cut short, 2 cut short and filled with zeros",
        moments=(SNAPSHOT_BEING_WRITTEN,),
        is_always_aimed=True,
    )
)
def _torn_write(world: Deployment, strike: Strike) -> Undo:
    host = world.hosts[strike.target]
    if host.is_up:
        host.disk.next_power_cut = TORN_WRITES[strike.strength % len(TORN_WRITES)]
    return cut_power(world, strike.target)


@HOSTS.fault(
    FaultOptions(
        "instance-joins",
        "a spare instance of a service starts, takes partitions from the others, and leaves again by SIGTERM",
        "rebalances; taking partitions over from owners that live, and giving them back",
        any_group,
        strikes_per_minute=Span(1, 5),
        duration_ms=Span(300, 9_000),
        moments=MEMBERS_AT_WORK,
    )
)
def _instance_joins(world: Deployment, strike: Strike) -> Undo:
    world.join(strike.target)
    return lambda: world.leave(strike.target)


def newest_snapshots(disk: Disk) -> list[str]:
    """The newest finished snapshot of each partition that has any: the names are PARTITION-SEQUENCE.snapshot, and of
    fixed width."""
    finished = [name for name in disk.file_names() if name.endswith(".snapshot")]
    return list({name.rpartition("-")[0]: name for name in finished}.values())


def cut_power(world: Deployment, host: str) -> Undo:
    """A host loses its power until what is returned is called."""
    world.take_down(host, world.hosts[host].crash)
    return lambda: world.bring_up(host)
