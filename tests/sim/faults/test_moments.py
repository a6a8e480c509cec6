"""Strikes that wait: each moment is seen when it comes, and only for those whom it concerns."""

import dataclasses
import sys
from collections.abc import Iterator

import msgspec
import pytest

from schema import tables
from sim.deployment import Deployment
from sim.faults.catalogue import OPTIONS
from sim.faults.moments import AT_WORK, MOMENTS
from sim.faults.plan import draw_plan
from sim.faults.watch import watch_for
from sim.flows import make_topology
from sim.hosts import Incarnation
from sim.progress import Progress
from sim.randomness import Randomness
from sim.run import RunResult, run_scenario, written_out
from sim.scenario import NO_FAULTS, SECOND_NS, Scenario, ScenarioError
from sim.script import Strike
from sim.world import World
from tests.sim.faults.test_plan import LAYOUT, WORK_NS
from traces.recorder import Recorder
from traces.trace import Trace

WAITS_FROM_NS = 2 * SECOND_NS
BASE = Scenario(seed=3, orders=150, users=6, duration_ns=10 * SECOND_NS, faults=NO_FAULTS, snapshot_interval_outputs=20)


def run_with(*strikes: Strike) -> RunResult:
    """A run of a small flow in which these strikes, and no others, are carried out."""
    scenario = written_out(BASE)
    assert scenario.script is not None
    script = msgspec.structs.replace(scenario.script, strikes=strikes)
    return run_scenario(dataclasses.replace(scenario, script=script), None, Progress(sys.stderr))


def strike_at(moment: str, target: str, fault: str = "crash") -> Strike:
    return Strike(fault, WAITS_FROM_NS, 300_000_000, target, 0, moment)


def began(trace: Trace) -> Iterator[tuple[int, str, bool]]:
    faults = trace.events("faults")
    for t, fault, phase, met in zip(faults["t"], faults["fault"], faults["phase"], faults["has_met"], strict=True):
        if phase == "start":
            yield int(t), str(fault), bool(met)


@pytest.mark.parametrize(
    ("moment", "target"),
    [
        ("in-transaction", "matching-1"),
        ("in-commit", "ubscore-1"),
        ("rows-being-written", "settlement-1"),
        ("between-write-and-commit", "settlement-1"),
        ("requests-outstanding", "gateway-1"),
        ("snapshot-being-written", "ubscore-1"),
    ],
)
def test_an_instance_is_struck_at_the_moment(moment: str, target: str) -> None:
    result = run_with(strike_at(moment, target))
    ((_, fault, met),) = began(result.trace)
    assert (fault, met) == ("crash", True)
    assert result.simulated.met == {moment: 1}
    assert result.holds


def test_an_instance_is_struck_when_its_rows_have_failed_and_wait_to_be_written_again() -> None:
    timeouts = Strike("write-timeout", WAITS_FROM_NS, 3 * SECOND_NS, "*", 300_000)
    result = run_with(timeouts, strike_at("rows-refused", "settlement-1"))
    assert [(fault, met) for _, fault, met in began(result.trace)] == [("write-timeout", False), ("crash", True)]
    assert result.simulated.met == {"rows-refused": 1}
    assert result.holds


def test_a_rebalance_and_a_recovery_are_seen_when_an_instance_stops() -> None:
    stop = Strike("stop-restart", WAITS_FROM_NS, 2 * SECOND_NS, "matching-1", 0)
    result = run_with(
        stop,
        strike_at("during-rebalance", "matching", "member-eviction"),
        strike_at("during-recovery", "matching-2", "pause"),
    )
    struck = list(began(result.trace))
    assert [fault for _, fault, met in struck if met] == ["member-eviction", "pause"]
    assert result.holds


def test_rows_are_not_being_written_while_something_is_read() -> None:
    world = World(1, Recorder())
    deployment = Deployment(world, BASE, make_topology(3, 3, 2))
    seen = []

    async def main(incarnation: Incarnation) -> None:
        session = deployment.cassandra.session(incarnation, tables.KEYSPACE)
        for statement in (
            f"SELECT version FROM {tables.SCHEMA_VERSION_TABLE}",
            f"INSERT INTO {tables.SCHEMA_VERSION_TABLE} (component, version) VALUES ('x', 1)",
        ):
            session.execute_async(statement)
            has_come = watch_for(deployment, strike_at("rows-being-written", "settlement-1"))
            seen.append(has_come())

    with world.running():
        deployment.create()
        deployment.hosts["settlement-1"].start(main)
    world.close()
    assert seen == [False, True]


def test_a_strike_that_waits_in_vain_strikes_all_the_same() -> None:
    result = run_with(strike_at("snapshot-being-written", "settlement-1"))
    ((t, _, met),) = began(result.trace)
    phases = result.trace.events("phases")
    work = int(phases.loc[phases["phase"] == "work", "t"].iloc[0])
    assert not met
    # Half of the eight seconds that are left is less than the patience for that moment.
    assert t == work + WAITS_FROM_NS + 4 * SECOND_NS
    assert result.simulated.met == {}


def test_the_trace_has_the_parameters_of_a_strike() -> None:
    result = run_with(Strike("slow-link", WAITS_FROM_NS, SECOND_NS, "matching-1->kafka-1", 7))
    faults = result.trace.events("faults")
    assert faults["phase"].tolist() == ["start", "end"]
    assert set(zip(faults["duration_ns"], faults["strength"], faults["moment"], strict=True)) == {(SECOND_NS, 7, "")}
    assert faults["t"].iloc[1] - faults["t"].iloc[0] == SECOND_NS


def test_a_moment_that_there_is_not_is_refused() -> None:
    with pytest.raises(ScenarioError, match="moments are: in-transaction, "):
        run_with(strike_at("at-teatime", "matching-1"))


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if option.moments])
def test_drawn_moments_can_come_for_the_target(name: str) -> None:
    option = OPTIONS[name]
    for seed in range(20):
        for strike in draw_plan(name, OPTIONS, LAYOUT, WORK_NS, Randomness(seed)):
            suiting = [each.name for each in option.moments_of(strike.target, LAYOUT)]
            assert strike.moment in ("", *suiting)
            assert strike.moment or not (option.is_always_aimed and suiting)


def test_every_moment_is_drawn_for_a_crash() -> None:
    drawn = {
        strike.moment for seed in range(60) for strike in draw_plan("crash", OPTIONS, LAYOUT, WORK_NS, Randomness(seed))
    }
    assert drawn == {"", *MOMENTS}


def test_a_target_concerns_its_hosts() -> None:
    assert LAYOUT.hosts_concerned("matching-2") == ("matching-2",)
    assert LAYOUT.hosts_concerned("kafka-1->settlement-1") == ("settlement-1",)
    assert LAYOUT.hosts_concerned("ubscore") == ("ubscore-1", "ubscore-2")
    assert LAYOUT.hosts_concerned("kafka-1->kafka-2") == LAYOUT.hosts
    assert LAYOUT.hosts_concerned("*") == LAYOUT.hosts
    assert OPTIONS["crash"].moments_of("gateway-1", LAYOUT) == (MOMENTS["requests-outstanding"],)
    assert OPTIONS["crash"].moments == AT_WORK
