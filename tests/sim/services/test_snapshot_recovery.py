"""A restart begins at a snapshot that the log confirms, and at nothing else (design 4.3.5)."""

from collections.abc import Callable
from itertools import pairwise

import pytest

from engine.snapshots import Snapshot, SnapshotStore
from engine.ubscore import BalanceCore
from engine.ubscore_service import CODE_VERSION
from schema import wire
from schema.topics import BALANCE_EVENTS, FUND_UPDATES, ORDER_REQUESTS
from sim.hosts import Host, Incarnation
from sim.randomness import Randomness
from tests.sim.services.service_world import LinesLog, ServiceWorld
from tests.sim.services.traffic import deposits, orders

MakeWorld = Callable[..., ServiceWorld]


def run_to_snapshots(make_world: MakeWorld, seed: int = 1) -> tuple[ServiceWorld, Host, Host]:
    """One user partition; the core has taken several snapshots at known sequences and some events since."""
    world = make_world(user_partitions=1, seed=seed, snapshot_interval_outputs=10, batch_records_max=5)
    ubscore, matching = world.ubscore(), world.matching()
    world.ask(*deposits(world.topology), *orders(world.topology, 30))
    world.settle()
    return world, ubscore, matching


def snapshot_names(host: Host, service: str = "ubscore-0") -> list[str]:
    return [name for name in host.disk.file_names() if name.startswith(service)]


def restart(world: ServiceWorld, host: Host) -> dict[str, object]:
    """Restart a host, give it more to do, and return what it said on taking its partition 0 over."""
    host.crash()
    world.lines.clear()
    host.restart()
    world.ask(*orders(world.topology, 10, first_id=1_000))
    world.settle()
    world.assert_chains_whole()
    world.assert_every_input_taken()
    service = host.name.removesuffix("-1")
    return next(
        line for line in world.said("partition taken over") if (line["service"], line["partition"]) == (service, 0)
    )


def sequence_of(name: str) -> int:
    return int(name.removesuffix(".snapshot").rsplit("-", 1)[1])


def corrupt(host: Host, *names: str) -> None:
    """Flip a bit of each file; while the host is down, for a power cut may bring a removed file back."""
    host.crash()
    for name in names:
        assert host.disk.corrupt(name, Randomness(1).stream(name))


def test_a_restart_begins_at_the_newest_snapshot_and_follows_the_rest(make_world: MakeWorld) -> None:
    world, ubscore, _ = run_to_snapshots(make_world)
    names = snapshot_names(ubscore)
    assert len(names) == 2
    assert sequence_of(names[-1]) < len(world.balance_events(0))
    assert restart(world, ubscore)["snapshot_sequence"] == sequence_of(names[-1])


def test_the_engine_restarts_from_a_snapshot_with_orders_resting(make_world: MakeWorld) -> None:
    world, _, matching = run_to_snapshots(make_world)
    names = snapshot_names(matching, "matching-0")
    assert restart(world, matching)["snapshot_sequence"] == sequence_of(names[-1])


def test_a_corrupt_snapshot_is_refused_and_the_one_before_it_taken(make_world: MakeWorld) -> None:
    world, ubscore, _ = run_to_snapshots(make_world)
    ubscore.crash()
    *_, older, newest = snapshot_names(ubscore)
    corrupt(ubscore, newest)
    assert restart(world, ubscore)["snapshot_sequence"] == sequence_of(older)
    assert [line["name"] for line in world.said("snapshot refused", "warning")] == [newest]


def test_without_a_good_snapshot_the_whole_log_is_followed(make_world: MakeWorld) -> None:
    world, ubscore, _ = run_to_snapshots(make_world)
    ubscore.crash()
    names = snapshot_names(ubscore)
    corrupt(ubscore, *names)
    assert restart(world, ubscore)["snapshot_sequence"] == 0
    assert sorted(str(line["name"]) for line in world.said("snapshot refused", "warning")) == names


def test_a_snapshot_of_another_log_is_refused(make_world: MakeWorld) -> None:
    """Whole and well-formed, with sequences that exist here too: only the committed hash tells."""
    _, other_ubscore, _ = run_to_snapshots(make_world, seed=2)
    other_names = snapshot_names(other_ubscore)
    world = make_world(user_partitions=1, snapshot_interval_outputs=0)
    ubscore = world.ubscore()
    world.matching()
    world.ask(*deposits(world.topology), *orders(world.topology, 40, first_id=500))
    world.settle()
    ubscore.crash()
    copy_files(other_ubscore, ubscore, other_names)
    assert restart(world, ubscore)["snapshot_sequence"] == 0
    assert len(world.said("snapshot refused", "warning")) == 2


@pytest.mark.parametrize("flaw", ["state one event behind", "another hash", "an input offset skipped"])
def test_a_forged_snapshot_of_the_last_event_is_refused(make_world: MakeWorld, flaw: str) -> None:
    """Nothing follows it in the log that could give it away; what would be decided next would be wrong."""
    world = make_world(user_partitions=1, snapshot_interval_outputs=0)
    ubscore = world.ubscore()
    world.matching()
    world.ask(*deposits(world.topology), *orders(world.topology, 10))
    world.settle()
    ubscore.crash()
    committed = [
        (record[1], *wire.BALANCE_EVENT.unseal(record[6])) for record in world.cluster.committed_log(BALANCE_EVENTS)
    ]
    offset, last, last_hash = committed[-1]
    if flaw == "another hash":
        last_hash += 1
    core = BalanceCore(world.topology, 0)
    for _, event, event_hash in committed[:-1]:
        core.fold(event, event_hash)
    if flaw != "state one event behind":
        core.fold(last, last_hash)
    next_offsets = dict(core.next_offsets)
    if flaw == "an input offset skipped":
        core.next_offsets[ORDER_REQUESTS] += 1
    forged = Snapshot(last.sequence, last_hash, offset, next_offsets, 0, core.snapshot())

    async def forge(incarnation: Incarnation) -> None:
        log = LinesLog(world.lines, incarnation)
        await SnapshotStore(ubscore.disk, "ubscore", 0, CODE_VERSION, log).save(forged)

    on_host(world, ubscore, forge)
    assert restart(world, ubscore)["snapshot_sequence"] == 0
    assert len(world.said("snapshot refused", "warning")) == 1


def test_a_disk_that_is_lost_costs_no_more_than_a_longer_replay(make_world: MakeWorld) -> None:
    world, ubscore, _ = run_to_snapshots(make_world)
    ubscore.crash()
    for name in snapshot_names(ubscore):
        remove(world, ubscore, name)
    assert restart(world, ubscore)["snapshot_sequence"] == 0
    assert world.said("snapshot refused") == []


def test_the_state_from_a_snapshot_is_the_state_from_the_log(make_world: MakeWorld) -> None:
    world, ubscore, _ = run_to_snapshots(make_world)
    restart(world, ubscore)
    # Had the restored core another balance or memory, what it decided since would not follow in a fold of the log.
    core = BalanceCore(world.topology, 0)
    events = world.balance_events(0)
    for event, following in pairwise(events):
        core.fold(event, following.prev_hash)
    repeat = core.apply_request(deposits(world.topology)[0], ORDER_REQUESTS, 0, 10**6)
    assert repeat.response is not None
    assert repeat.response.is_repeat
    assert set(core.next_offsets) == {ORDER_REQUESTS, FUND_UPDATES}


# -- hands on a host that is down


def on_host(world: ServiceWorld, host: Host, main: Callable[[Incarnation], object]) -> None:
    """Run a program on the host while its service is down; the service's main is remembered for later."""
    service_main = host._main
    host.start(main)  # type: ignore[arg-type]
    world.until(lambda: not host.is_up)
    error = world.ended[host.name]
    if error is not None:
        raise error
    host._main = service_main


def remove(world: ServiceWorld, host: Host, name: str) -> None:
    async def main(incarnation: Incarnation) -> None:
        await host.disk.remove(name)
        await host.disk.sync_names()

    on_host(world, host, main)


def copy_files(source: Host, target: Host, names: list[str]) -> None:
    for name in names:
        file = source.disk._names[name]
        target.disk._names[name] = file
        target.disk._durable_names[name] = file
