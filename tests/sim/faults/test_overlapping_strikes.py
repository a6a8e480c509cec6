"""Two strikes that overlap on one target, from second 1 to 7 and from 2 to 3: each ends by itself."""

from collections.abc import Callable
from typing import Final

import pytest

from sim import run as run_module
from sim.deployment import Deployment
from sim.faults.injector import Injector
from sim.run import RunResult
from sim.scenario import MILLISECOND_NS, SECOND_NS
from sim.script import Strike
from tests.sim.faults.test_hosts import lives_of
from tests.sim.faults.test_moments import run_with

BEFORE, BOTH, AFTER_SHORT, AFTER_LONG = 1_500, 2_500, 3_500, 7_500
"""Milliseconds of the work at which is looked: one strike, both, the longer one alone, none."""
LOOKS_MS: Final = (BEFORE, BOTH, AFTER_SHORT, AFTER_LONG)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[object]]:
    """`looks(what, long, short)`: what is seen of the world at LOOKS_MS of a run with these two strikes."""

    def look_at(what: Callable[[Deployment], object], long: Strike, short: Strike) -> list[object]:
        seen: list[object] = []

        class LookedAt(Injector):
            def __init__(self, world: Deployment, plan: tuple[Strike, ...], start_ns: int, end_ns: int) -> None:
                super().__init__(world, plan, start_ns, end_ns)
                for at_ms in LOOKS_MS:
                    world.clock.at(start_ns + at_ms * MILLISECOND_NS, lambda: seen.append(what(world)))

        monkeypatch.setattr(run_module, "Injector", LookedAt)
        assert run_with(long, short).holds
        return seen

    return look_at


def long(fault: str, target: str, strength: int = 0) -> Strike:
    return Strike(fault, SECOND_NS, 6 * SECOND_NS, target, strength)


def short(fault: str, target: str, strength: int = 0) -> Strike:
    return Strike(fault, 2 * SECOND_NS, SECOND_NS, target, strength)


@pytest.mark.parametrize("fault", ["pause", "zombie-owner"])
def test_a_host_stands_still_for_as_long_as_any_wants_it_to(looks: Callable[..., list[object]], fault: str) -> None:
    def is_paused(world: Deployment) -> bool:
        incarnation = world.hosts["matching-1"].incarnation
        return incarnation is not None and incarnation.paused

    assert looks(is_paused, long("pause", "matching-1"), short(fault, "matching-1")) == [True, True, True, False]


def test_a_replica_is_down_for_as_long_as_any_wants_it_to_be(looks: Callable[..., list[object]]) -> None:
    def state(world: Deployment) -> tuple[bool, bool]:
        node = world.cassandra.node("cassandra-1")
        return node.is_up, node.keeps_hints

    assert looks(state, long("replica-down", "cassandra-1", 1), short("replica-down", "cassandra-1", 0)) == [
        (False, True),
        (False, False),
        (False, True),
        (True, True),
    ]


def test_the_end_of_a_drift_leaves_a_jump_alone(looks: Callable[..., list[object]]) -> None:
    def offset_ns(world: Deployment) -> int:
        return world.hosts["matching-1"].wall.offset_ns

    jump_ns, drifted_ns = 60 * SECOND_NS, SECOND_NS // 2 // 1_000
    assert looks(offset_ns, long("clock-jump", "matching-1", 60_000), short("clock-drift", "matching-1", 1_000)) == [
        jump_ns,
        jump_ns + drifted_ns,
        jump_ns,
        0,
    ]


def test_a_database_clock_is_never_farther_off_than_one_strike_can_make_it(looks: Callable[..., list[object]]) -> None:
    def offset_ns(world: Deployment) -> int:
        return world.cassandra.node("cassandra-1").wall.offset_ns

    fault = "database-clock-skew"
    assert looks(offset_ns, long(fault, "cassandra-1", 20_000), short(fault, "cassandra-1", 30_000)) == [
        20 * SECOND_NS,
        30 * SECOND_NS,
        20 * SECOND_NS,
        0,
    ]


def test_a_disk_lies_for_as_long_as_any_wants_it_to(looks: Callable[..., list[object]]) -> None:
    def lies(world: Deployment) -> bool:
        return world.hosts["ubscore-1"].disk.loses_synced_writes

    fault = "synced-writes-lost"
    assert looks(lies, long(fault, "ubscore-1"), short(fault, "ubscore-1")) == [True, True, True, False]


def test_readers_that_retention_passes_stand_still_for_as_long_as_any_wants_them_to() -> None:
    fault, topic = "retention-passed", "engine.outputs"
    result = run_with(
        Strike("instance-joins", SECOND_NS // 2, 9 * SECOND_NS, "settlement", 0),
        long(fault, topic),
        short(fault, topic),
    )
    for host in ("settlement-1", "settlement-2", "settlement-3"):
        assert at_ms(result, host, "pause") == [1_000]
        assert at_ms(result, host, "resume") == [7_000]


def at_ms(result: RunResult, host: str, event: str) -> list[int]:
    """When an event of a host's life came, in milliseconds of the work."""
    assert event in lives_of(result, host)
    lives, phases = result.trace.events("lifecycle"), result.trace.events("phases")
    work_ns = int(phases.loc[phases["phase"] == "work", "t"].iloc[0])
    found = lives[(lives["host"] == host) & (lives["event"] == event)]
    return [int(t - work_ns) // MILLISECOND_NS for t in found["t"]]
