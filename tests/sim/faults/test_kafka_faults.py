"""Faults of Kafka through whole runs: each lasts as long as its strike, ends with the work, and hits what it names."""

import dataclasses
import sys
from collections.abc import Callable

import msgspec
import pytest
from aiokafka.structs import TopicPartition

import sim.run
from schema.topics import ENGINE_OUTPUTS
from sim.deployment import Deployment
from sim.faults.injector import Injector
from sim.progress import Progress
from sim.run import RunResult, run_scenario, written_out
from sim.scenario import MILLISECOND_NS, NO_FAULTS, SECOND_NS, Scenario
from sim.script import Strike
from traces.reachability import reached

BASE = Scenario(seed=3, orders=150, users=6, duration_ns=10 * SECOND_NS, faults=NO_FAULTS)
OUTPUTS = TopicPartition(ENGINE_OUTPUTS, 0)


def run_with(*strikes: Strike) -> RunResult:
    """A run of a small flow in which these strikes, and no others, are carried out."""
    scenario = written_out(BASE)
    assert scenario.script is not None
    script = msgspec.structs.replace(scenario.script, strikes=strikes)
    return run_scenario(dataclasses.replace(scenario, script=script), None, Progress(sys.stderr))


def seen(
    monkeypatch: pytest.MonkeyPatch, look: Callable[[Deployment], object], at_s: tuple[float, ...], *strikes: Strike
) -> list[object]:
    """What a look at the world shows at these seconds of the work."""
    found: list[object] = []

    class LookingInjector(Injector):
        def __init__(self, world: Deployment, plan: tuple[Strike, ...], start_ns: int, end_ns: int) -> None:
            super().__init__(world, plan, start_ns, end_ns)
            for second in at_s:
                world.clock.at(start_ns + int(second * SECOND_NS), lambda: found.append(look(world)))

    monkeypatch.setattr(sim.run, "Injector", LookingInjector)
    assert run_with(*strikes).holds
    return found


def test_a_partition_has_a_leader_when_the_work_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    strike = Strike("no-leader", 9_500 * MILLISECOND_NS, 15 * SECOND_NS, ENGINE_OUTPUTS, 0)
    leaders = seen(monkeypatch, lambda world: world.kafka.partitions[OUTPUTS].leader, (9.4, 9.6, 10.5, 15), strike)
    assert [leader is None for leader in leaders] == [False, True, False, False]


@pytest.mark.parametrize(("fault", "target"), [("no-leader", ENGINE_OUTPUTS), ("stalled-markers", "*")])
def test_the_end_of_a_strike_is_recorded_when_it_is_over(fault: str, target: str) -> None:
    faults = run_with(Strike(fault, SECOND_NS, 2 * SECOND_NS, target, 0)).trace.events("faults")
    assert faults["phase"].tolist() == ["start", "end"]
    assert faults["t"].iloc[1] - faults["t"].iloc[0] == 2 * SECOND_NS


@pytest.mark.parametrize(
    ("fault", "target", "is_in_force"),
    [
        ("no-leader", ENGINE_OUTPUTS, lambda world: world.kafka.partitions[OUTPUTS].leader is None),
        ("broker-crash", "kafka-1", lambda world: not world.kafka.is_up(1)),
        ("stalled-markers", "*", lambda world: world.kafka.faults.markers_are_stalled),
    ],
)
def test_a_short_strike_does_not_end_a_long_one_that_it_overlaps(
    fault: str, target: str, is_in_force: Callable[[Deployment], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    long = Strike(fault, SECOND_NS, 6 * SECOND_NS, target, 0)
    short = Strike(fault, 2 * SECOND_NS, SECOND_NS, target, 0)
    found = seen(monkeypatch, is_in_force, (0.9, 1.1, 2.5, 3.5, 6.9, 7.5), long, short)
    assert found == [False, True, True, True, True, False]


@pytest.mark.parametrize("target", ["ubscore-1", "ubscore-2", "matching-1", "matching-2"])
def test_the_transaction_that_is_timed_out_is_of_the_host_that_is_struck(target: str) -> None:
    strikes = [Strike("transaction-timeout", n * SECOND_NS, 0, target, 0, "in-transaction") for n in range(1, 8)]
    result = run_with(*strikes)
    timed_out = result.trace.events("transactions")
    timed_out = timed_out[timed_out["action"] == "timeout"]
    owners = [
        owner_at(result, str(name), t) for name, t in timed_out[["transactional_id", "t"]].itertuples(index=False)
    ]
    assert owners
    assert set(owners) == {target}
    assert result.holds


def owner_at(result: RunResult, transactional_id: str, t: int) -> str:
    """The instance that had last taken over the partition of a transactional id."""
    service, number = transactional_id.rsplit("-", 1)
    lines = result.trace.events("log_lines")
    lines = lines[(lines["event"] == "partition taken over") & (lines["service"] == service) & (lines["t"] <= t)]
    taken = [
        str(host)
        for host, fields in lines[["host", "fields"]].itertuples(index=False)
        if msgspec.json.decode(fields)["partition"] == int(number)
    ]
    return taken[-1]


@pytest.mark.parametrize(
    ("fault", "target", "groups"),
    [
        ("redelivery", "ubscore", {"ubscore"}),
        ("redelivery", "matching", {"matching"}),
        ("redelivery", "settlement", {"settlement"}),
        ("commit-refused", "*", {"ubscore", "matching", "settlement"}),
    ],
)
def test_refused_commits_are_those_of_the_groups_that_are_struck(fault: str, target: str, groups: set[str]) -> None:
    result = run_with(Strike(fault, 2 * SECOND_NS, 2 * SECOND_NS, target, 600_000))
    commits = result.trace.events("offset_commits")
    refused = commits[commits["outcome"] == "GroupLoadInProgressError"]
    assert set(refused["group"]) == groups
    assert result.holds


@pytest.mark.parametrize(
    ("group", "moment"),
    [("ubscore", "in-transaction"), ("matching", "in-transaction"), ("settlement", "between-write-and-commit")],
)
def test_a_redelivery_delivers_records_again(group: str, moment: str) -> None:
    result = run_with(Strike("redelivery", 2 * SECOND_NS, SECOND_NS, group, 1_000_000, moment))
    assert reached(result.trace)["records-redelivered"] >= 1
    assert result.holds
