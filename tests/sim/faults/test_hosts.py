"""Faults of hosts that have a name of their own: a spare instance, a gateway's crash, torn writes."""

import sys

import pytest

from sim.clock import Clock
from sim.deployment import Deployment
from sim.disk import LOST, TORN, TORN_WITH_ZEROS, Disk
from sim.faults.catalogue import BEGIN
from sim.faults.hosts import TORN_WRITES
from sim.flows import make_topology
from sim.loop import SimLoop
from sim.progress import Progress
from sim.randomness import Stream
from sim.run import RunResult, run_scenario, written_out
from sim.scenario import SECOND_NS, Scenario
from sim.script import Strike
from sim.world import World
from tests.sim.faults.test_moments import run_with
from traces.reachability import GOALS
from traces.recorder import Recorder


@pytest.mark.parametrize("service", ["ubscore", "matching", "settlement"])
def test_a_spare_instance_joins_takes_a_partition_and_leaves(service: str) -> None:
    first = Strike("instance-joins", SECOND_NS, 3 * SECOND_NS, service, 0)
    again = Strike("instance-joins", 6 * SECOND_NS, 2 * SECOND_NS, service, 0)
    result = run_with(first, again)
    assert lives_of(result, f"{service}-3") == ["start", "stop", "exit"] * 2
    assert result.holds
    # The matching engine has two partitions, and may leave both to the two instances that have them.
    assert service == "matching" or GOALS["spare-instance-took-a-partition"].count(result.trace) > 0


def test_a_spare_instance_that_two_strikes_want_stays_for_the_longer() -> None:
    result = run_with(
        Strike("instance-joins", SECOND_NS, 2 * SECOND_NS, "matching", 0),
        Strike("instance-joins", 2 * SECOND_NS, 3 * SECOND_NS, "matching", 0),
    )
    assert lives_of(result, "matching-3") == ["start", "stop", "exit"]
    (stopped,) = result.trace.events("lifecycle").query("host == 'matching-3' and event == 'stop'")["t"]
    ends = result.trace.events("faults").query("phase == 'end'")["t"]
    assert stopped == ends.max()


def test_a_gateway_crashes_while_clients_wait() -> None:
    result = run_with(Strike("gateway-crash", SECOND_NS, SECOND_NS, "gateway-2", 0, "requests-outstanding"))
    assert lives_of(result, "gateway-2")[:3] == ["start", "ready", "crash"]
    assert result.simulated.met == {"requests-outstanding": 1}
    assert GOALS["gateway-crashed-with-requests-outstanding"].count(result.trace) == 1
    assert result.holds


@pytest.mark.parametrize("strength", range(len(TORN_WRITES)))
def test_a_host_that_dies_while_it_writes_a_snapshot_recovers(strength: int) -> None:
    result = run_with(Strike("torn-write", SECOND_NS, SECOND_NS, "ubscore-1", strength, "snapshot-being-written"))
    assert result.simulated.met == {"snapshot-being-written": 1}
    assert "crash" in lives_of(result, "ubscore-1")
    assert result.holds


@pytest.mark.parametrize("outcome", TORN_WRITES)
def test_what_the_next_power_cut_does_to_a_file_written_over_can_be_chosen(outcome: str) -> None:
    for seed in range(20):
        disk = Disk(Stream(seed, "disk"))
        SimLoop(Clock()).run_until_complete(write_over(disk))
        assert disk.has_unsynced()
        disk.next_power_cut = outcome
        disk.crash(Stream(seed, "crash"))
        found = SimLoop(Clock()).run_until_complete(disk.read("a"))
        assert found is not None
        if outcome == LOST:
            assert found == b"old"
        elif outcome == TORN:
            assert b"new content".startswith(found)
        else:
            assert outcome == TORN_WITH_ZEROS
            assert len(found) == len(b"new content")
            assert b"new content".startswith(found.rstrip(b"\0"))
        assert disk.next_power_cut == ""
        assert not disk.has_unsynced()


@pytest.mark.parametrize("outcome", [TORN, TORN_WITH_ZEROS])
def test_what_is_written_under_a_new_name_is_found_torn_when_that_was_chosen(outcome: str) -> None:
    for seed in range(20):
        disk = Disk(Stream(seed, "disk"))
        SimLoop(Clock()).run_until_complete(write_aside(disk))
        disk.next_power_cut = outcome
        disk.crash(Stream(seed, "crash"))
        found = SimLoop(Clock()).run_until_complete(disk.read("new"))
        assert found is not None
        assert b"new content".startswith(found.rstrip(b"\0"))
        assert len(found) == len(b"new content") or outcome == TORN


def test_a_new_name_is_unsynced_until_the_names_are() -> None:
    disk = Disk(Stream(1, "disk"))

    async def main() -> None:
        await disk.write("a", b"x")
        await disk.sync("a")
        assert disk.has_unsynced()
        await disk.sync_names()
        assert not disk.has_unsynced()
        await disk.rename("a", "b")
        assert disk.has_unsynced()
        await disk.sync_names()
        await disk.remove("b")
        assert not disk.has_unsynced()

    SimLoop(Clock()).run_until_complete(main())


NEWEST = {"ubscore-0-00000000000000000040.snapshot", "ubscore-1-00000000000000000010.snapshot"}
SNAPSHOTS = (
    *sorted(NEWEST),
    "ubscore-0-00000000000000000020.snapshot",
    "ubscore-0-00000000000000000060.snapshot.unfinished",
    "ubscore-2-00000000000000000010.snapshot.unfinished",
)


async def write_snapshots(disk: Disk) -> None:
    for name in SNAPSHOTS:
        await disk.write(name, b"x")


def test_the_newest_finished_snapshot_of_any_partition_is_altered() -> None:
    struck = set()
    for seed in range(10):
        world = World(seed, Recorder())
        deployment = Deployment(world, Scenario(seed=seed), make_topology(3, 3, 2))
        disk = deployment.hosts["ubscore-1"].disk
        SimLoop(Clock()).run_until_complete(write_snapshots(disk))
        BEGIN["corrupt-snapshot"](deployment, Strike("corrupt-snapshot", 0, SECOND_NS, "ubscore-1", 0))
        assert disk.struck["corrupt"] == 1
        altered = {name for name in disk.file_names() if SimLoop(Clock()).run_until_complete(disk.read(name)) != b"x"}
        world.close()
        assert len(altered) == 1
        struck |= altered
    assert struck == NEWEST


def test_a_run_whose_faults_need_spares_and_attackers_is_the_same_again() -> None:
    scenario = Scenario(seed=5, orders=80, users=5, duration_ns=6 * SECOND_NS, faults="instance-joins,hostile-input")
    digests = {run_scenario(each, None, Progress(sys.stderr)).digest for each in (scenario, written_out(scenario))}
    assert len(digests) == 1


def lives_of(result: RunResult, host: str) -> list[str]:
    events = result.trace.events("lifecycle")
    return [str(event) for event in events.loc[events["host"] == host, "event"]]


async def write_aside(disk: Disk) -> None:
    """As a snapshot is written, and then what is older removed."""
    await disk.write("old", b"old")
    await disk.write("new", b"new content")
    await disk.remove("old")


async def write_over(disk: Disk) -> None:
    await disk.write("a", b"old")
    await disk.sync("a")
    await disk.sync_names()
    await disk.write("a", b"new content")
