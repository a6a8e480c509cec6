"""Each fault alone, through the whole pipeline: it really acts, and every invariant holds all the same."""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Final

import pytest
from msgspec.structs import replace as replaced

from sim.faults.catalogue import OPTIONS
from sim.progress import Progress
from sim.run import RunResult, run_scenario, written_out
from sim.scenario import SECOND_NS, Scenario
from sim.script import Strike

SEEDS: Final = range(1, 13)
"""Tried in turn until the fault has acted; one is enough for nearly every fault."""

Evidence = Callable[[RunResult], bool]


def hit(*names: str) -> Evidence:
    """The simulated servers or links counted hits of each of these."""
    return lambda result: all(result.simulated.hits.get(name, 0) for name in names)


def either(*names: str) -> Evidence:
    return lambda result: any(result.simulated.hits.get(name, 0) for name in names)


def lived(event: str, times: int = 1) -> Evidence:
    """The host of a strike went through that so often, before the services were stopped at the end."""

    def acted(result: RunResult) -> bool:
        lives, phases = result.trace.events("lifecycle"), result.trace.events("phases")
        healed = phases.loc[phases["phase"] == "heal", "seq"].iloc[0]
        struck = [strike.target for strike in result.simulated.plan]
        seen = lives[(lives["event"] == event) & lives["host"].isin(struck) & (lives["seq"] < healed)]
        return len(seen) >= times

    return acted


def joined(result: RunResult) -> bool:
    """A third instance of a service was started."""
    return bool(result.trace.events("lifecycle")["host"].str.endswith("-3").any())


def requested(prefix: str) -> Evidence:
    """Clients sent what no flow has."""
    return lambda result: bool(result.trace.events("client_requests")["request_id"].str.startswith(prefix).any())


def refused_a_snapshot(result: RunResult) -> bool:
    return "snapshot refused" in set(result.trace.events("log_lines")["event"])


def came_at_once(result: RunResult) -> bool:
    """Many requests were sent in one instant."""
    return int(result.trace.events("client_requests").groupby("t").size().max()) > 10


def repeated(result: RunResult) -> bool:
    """More requests were sent again than when nothing strikes."""
    return repeats(result) > repeats(run("none", result.scenario.seed))


def repeats(result: RunResult) -> int:
    return int((result.trace.events("client_requests")["attempt"] > 1).sum())


def told_another_time(result: RunResult) -> bool:
    """A gateway stamped an order with a time that is not shortly before its answer."""
    answered = result.trace.events("client_answers").query("attempt == 1 and command == 'place'")
    told = answered.merge(result.trace.events("final_order_history")[["order_id", "created_at"]], on="order_id")
    late_ns = told["t"] - (told["created_at"] - result.simulated.manifest.epoch_ns)
    return bool(((late_ns < 0) | (late_ns > 300_000_000)).any())


ACTED: Final[dict[str, Evidence]] = {
    "slow-link": hit("slow"),
    "clogged-link": hit("clog"),
    "partition": hit("cut"),
    "lost-answers": hit("answer-lost"),
    "broker-crash": hit("broker-crash"),
    "leader-change": hit("leader-change"),
    "no-leader": hit("no-leader"),
    "rebalance": hit("rebalance"),
    "member-eviction": hit("member-evicted"),
    "commit-refused": hit("commit-refused"),
    "redelivery": hit("commit-refused", "member-evicted"),
    "coordinator-change": hit("group-coordinator-change"),
    "transaction-timeout": hit("transaction-timeout"),
    "stalled-markers": hit("markers-stalled"),
    "replica-down": hit("node_down"),
    "slow-replica": hit("node_slow"),
    "database-clock-skew": hit("node_clock_skew"),
    "write-timeout": either("write_timeout_none", "write_timeout_some", "write_timeout_all"),
    "read-timeout": hit("read_timeout"),
    "lost-database-answer": hit("lose_answer"),
    "unavailable": hit("unavailable"),
    "overload": hit("overload"),
    "crash": lived("crash"),
    "crash-loop": lived("crash", times=2),
    "stop-restart": lived("stop"),
    "pause": lived("pause"),
    "clock-jump": told_another_time,
    "clock-drift": told_another_time,
    "corrupt-snapshot": refused_a_snapshot,
    "gateway-crash": lived("crash"),
    "torn-write": lived("crash"),
    "instance-joins": joined,
    "repeated-submission": repeated,
    "cancel-race": requested("fault-cancel-"),
    "burst": came_at_once,
    "hostile-input": requested("fault-hostile-"),
    "zombie-owner": hit("member-evicted"),
    "zombie-writer": hit("unavailable", "member-evicted"),
    "writer-crash": hit("unavailable"),
    "corrupt-record": either("record-flipped", "record-garbage"),
    "lost-record": hit("record-lost"),
    "unclean-leader-change": hit("unclean-election"),
    "retention-passed": hit("retention"),
    "synced-writes-lost": lived("crash"),
}
"""Fault -> how to see in a run that it acted on the world, and not only that it began."""


WRITTEN: Final = {"clock-drift": Strike("clock-drift", 0, 20 * SECOND_NS, "gateway-1", 50_000)}
"""Faults of which a drawn strike seldom shows in so short a run: as hard as can be, at the right host."""


@cache
def run(faults: str, seed: int) -> RunResult:
    scenario = Scenario(
        seed=seed, orders=120, users=6, duration_ns=8 * SECOND_NS, faults=faults, snapshot_interval_outputs=10
    )
    if faults in WRITTEN:
        scenario = written_out(scenario)
        assert scenario.script is not None
        scenario = replace(scenario, script=replaced(scenario.script, strikes=(WRITTEN[faults],)))
    return run_scenario(scenario, None, Progress(sys.stderr))


def test_of_every_fault_it_is_known_how_to_see_that_it_acted() -> None:
    assert list(OPTIONS) == sorted(ACTED, key=list(OPTIONS).index)


@pytest.mark.parametrize("fault", list(OPTIONS))
def test_every_fault_acts_and_every_invariant_holds_unless_an_assumption_is_broken(fault: str) -> None:
    for seed in SEEDS:
        result = run(fault, seed)
        if not OPTIONS[fault].breaks_assumption:
            assert [name for name, each in result.verdicts.items() if each.verdict == "violated"] == []
            assert result.verdicts["placement-accounted"].verdict == "holds"
        if ACTED[fault](result):
            return
    pytest.fail(f"{fault} began and did nothing that can be seen, in {len(SEEDS)} seeds")


def test_a_corrupt_record_stops_its_partition_with_an_alarm() -> None:
    result = run("corrupt-record", seed=5)
    assert result.verdicts["corrupt-input-stops"].verdict == "holds"
    assert result.verdicts["chain-unbroken"].verdict == "violated"


def test_a_lost_record_stops_its_partition_with_an_alarm() -> None:
    result = run("lost-record", seed=5)
    assert result.simulated.hits["record-lost"] >= 1
    assert result.verdicts["corrupt-input-stops"].verdict == "holds"
    assert result.verdicts["chain-unbroken"].verdict == "violated"
