"""Faults that take several things at once."""

import sys

import pytest

from sim.progress import Progress
from sim.run import run_scenario
from sim.scenario import SECOND_NS, Scenario
from sim.script import Strike
from tests.sim.faults.test_hosts import lives_of
from tests.sim.faults.test_moments import run_with
from traces.reachability import GOALS

ZOMBIE = Strike("zombie-writer", 3 * SECOND_NS, 4 * SECOND_NS, "settlement-1", 120, "rows-being-written")


def test_a_zombie_writes_a_row_after_another_has_written_it_anew() -> None:
    result = run_scenario(Scenario(seed=3, faults="zombie-writer"), None, Progress(sys.stderr))
    assert GOALS["older-revision-written-last"].count(result.trace) > 0
    assert result.holds


def test_a_zombie_is_evicted_alone_and_wakes_up() -> None:
    result = run_with(ZOMBIE)
    members = result.trace.events("rebalances").query("group == 'settlement' and action == 'expire'")
    assert len(members) == 1
    assert result.simulated.hits["unavailable"] > 0
    assert result.simulated.hits["member-evicted"] == 1
    assert lives_of(result, "settlement-1")[:3] == ["start", "pause", "resume"]
    assert result.holds


def test_a_zombie_that_crashes_before_it_stands_still_or_while_it_does_comes_back() -> None:
    crash = Strike("crash", 3 * SECOND_NS, SECOND_NS, "settlement-1", 0, "rows-being-written")
    result = run_with(ZOMBIE, crash)
    assert "crash" in lives_of(result, "settlement-1")
    assert result.holds


def test_a_zombie_writer_that_is_over_before_it_begins_stands_not_still() -> None:
    result = run_with(Strike("zombie-writer", SECOND_NS, 1_000_000, "settlement-1", 120))
    assert result.simulated.hits.get("member-evicted", 0) == 0
    assert result.holds


def test_an_instance_crashes_when_its_rows_are_refused() -> None:
    result = run_with(Strike("writer-crash", 3 * SECOND_NS, SECOND_NS, "settlement-1", 120, "rows-being-written"))
    assert result.simulated.hits["unavailable"] > 0
    assert lives_of(result, "settlement-1")[:3] == ["start", "crash", "start"]
    assert result.holds


@pytest.mark.parametrize("host", ["ubscore-1", "matching-1"])
def test_an_owner_becomes_a_zombie_in_its_transaction(host: str) -> None:
    result = run_with(Strike("zombie-owner", 3 * SECOND_NS, 4 * SECOND_NS, host, 0, "in-transaction"))
    assert result.simulated.met == {"in-transaction": 1}
    assert result.simulated.hits["member-evicted"] == 1
    assert lives_of(result, host)[:3] == ["start", "pause", "resume"]
    assert GOALS["zombie-fenced"].count(result.trace) > 0
    assert result.holds
