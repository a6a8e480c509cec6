"""Goals of hosts: each is reached by a few rows, and not by others that are almost the same."""

from typing import Any

import pytest

from benchmarks.mini_world import BUY, MiniWorld
from schema.tables import FINISHED_ROW_TTL_S, ORDER_HISTORY
from schema.topics import ENGINE_OUTPUTS, VALIDATED_ORDERS
from tests.traces.reachability.by_hand import (
    Case,
    Cases,
    asked,
    count,
    count_in,
    goals_in,
    group,
    insert,
    life,
    line,
    near_misses,
    phase,
    strike,
    told,
    took,
    transaction,
)

OF_UBSCORE = "ubscore-0"
TWO_START = [life(0, "matching-1", "start"), life(0, "matching-2", "start")]
STARTS = life(0, "matching-1", "start")
GIVEN = group(5, "matching-1", "assign")
HEIR = group(0, "matching-2", "assign", "", member="m2")
PAUSED = [GIVEN, HEIR, life(10, "matching-1", "pause")]
EXPIRED = group(20, "kafka-1", "expire", "")
INHERITED = group(25, "matching-2", "assign", member="m2")
RESUMED = life(30, "matching-1", "resume")
DAY_S = FINISHED_ROW_TTL_S

CASES: Cases = {
    "engine-restarted-from-a-snapshot": Case(
        [took(1, "matching-1", snapshot_sequence=7)],
        {
            "from the whole log": [took(1, "matching-1", snapshot_sequence=0)],
            "the balance core": [took(1, "ubscore-1", snapshot_sequence=7)],
        },
    ),
    "balance-core-restarted-from-a-snapshot": Case(
        [took(1, "ubscore-1", snapshot_sequence=7)],
        {
            "from the whole log": [took(1, "ubscore-1", snapshot_sequence=0)],
            "the engine": [took(1, "matching-1", snapshot_sequence=7)],
        },
    ),
    "snapshot-refused": Case(
        [line(1, "matching-1", "snapshot refused")], {"not saved": [line(1, "matching-1", "snapshot not saved")]}
    ),
    "balance-core-crashed-in-a-transaction": Case(
        [took(1, "ubscore-1"), transaction(2, "begin", of=OF_UBSCORE), life(3, "ubscore-1", "crash")],
        {
            "it was committed": [
                took(1, "ubscore-1"),
                transaction(2, "begin", of=OF_UBSCORE),
                transaction(3, "commit", of=OF_UBSCORE),
                life(4, "ubscore-1", "crash"),
            ],
            "the other instance's transaction": [
                took(1, "ubscore-2"),
                transaction(2, "begin", of=OF_UBSCORE),
                life(3, "ubscore-1", "crash"),
            ],
            "the engine": [took(1, "matching-1"), transaction(2, "begin"), life(3, "matching-1", "crash")],
        },
    ),
    "engine-crashed-in-a-transaction": Case(
        [took(1, "matching-1"), transaction(2, "begin"), life(3, "matching-1", "crash")],
        {
            "it was stopped": [took(1, "matching-1"), transaction(2, "begin"), life(3, "matching-1", "exit")],
            "it had given the partition away": [
                took(0, "matching-1"),
                took(1, "matching-2"),
                transaction(2, "begin"),
                life(3, "matching-1", "crash"),
            ],
        },
    ),
    "settlement-crashed-between-write-and-commit": Case(
        [insert(1), life(2, "settlement-1", "crash"), insert(3, "settlement-2")],
        {
            "nothing was written again": [insert(1), life(2, "settlement-1", "crash")],
            "another revision was written": [
                insert(1),
                life(2, "settlement-1", "crash"),
                insert(3, "settlement-2", write_timestamp=2),
            ],
            "the first write failed": [
                insert(1, outcome="WriteTimeout"),
                life(2, "settlement-1", "crash"),
                insert(3, "settlement-2"),
            ],
            "the other instance's row": [insert(1, "settlement-2"), life(2, "settlement-1", "crash"), insert(3)],
        },
    ),
    "gateway-crashed-with-requests-outstanding": Case(
        [asked(1), life(2, "gateway-1", "crash")],
        {
            "answered before": [asked(1), told(2), life(3, "gateway-1", "crash")],
            "asked at the other gateway": [asked(1, "gateway-2"), life(2, "gateway-1", "crash")],
            "another service": [asked(1), life(2, "ubscore-1", "crash")],
        },
    ),
    "crashed-during-recovery": Case(
        [STARTS, GIVEN, life(6, "matching-1", "crash")],
        {
            "it had taken its partition over": [STARTS, GIVEN, took(6, "matching-1"), life(7, "matching-1", "crash")],
            "it had no partition yet": [STARTS, life(6, "matching-1", "crash")],
            "given in the life before": [
                STARTS,
                GIVEN,
                life(6, "matching-1", "exit"),
                life(7, "matching-1", "start"),
                life(8, "matching-1", "crash"),
            ],
            "taken away again": [STARTS, GIVEN, group(6, "matching-1", "revoke"), life(7, "matching-1", "crash")],
            "a gateway, which takes none": [life(0, "gateway-1", "start"), life(1, "gateway-1", "crash")],
            "stopped": [STARTS, GIVEN, life(6, "matching-1", "stop"), life(7, "matching-1", "exit")],
        },
    ),
    "service-wholly-down": Case(
        [*TWO_START, life(1, "matching-1", "crash"), life(2, "matching-2", "exit"), phase(9, "heal")],
        {
            "one after the other": [
                *TWO_START,
                life(1, "matching-1", "crash"),
                life(2, "matching-1", "start"),
                life(3, "matching-2", "crash"),
                phase(9, "heal"),
            ],
            "at the end of the run": [
                *TWO_START,
                phase(1, "heal"),
                life(2, "matching-1", "exit"),
                life(3, "matching-2", "exit"),
            ],
            "attackers are no service": [
                *(life(0, f"attacker-{number}", "start") for number in (1, 2)),
                *(life(1, f"attacker-{number}", "terminated") for number in (1, 2)),
                phase(9, "heal"),
            ],
        },
    ),
    "paused-past-its-session": Case(
        [*PAUSED, EXPIRED, INHERITED, RESUMED],
        {
            "another member expired": [
                *PAUSED,
                group(20, "kafka-1", "expire", "", member="m3"),
                INHERITED,
                RESUMED,
            ],
            "nobody got its partition": [*PAUSED, EXPIRED, RESUMED],
            "thrown out by a strike": [*PAUSED, strike(20, "member-eviction"), EXPIRED, INHERITED, RESUMED],
            "expired when it went on again": [*PAUSED, life(15, "matching-1", "resume"), EXPIRED, INHERITED],
            "it never went on": [
                *PAUSED,
                EXPIRED,
                INHERITED,
                life(28, "matching-1", "crash"),
                life(29, "matching-1", "start"),
            ],
            "a gateway, while a crashed engine expired": [
                GIVEN,
                HEIR,
                life(10, "gateway-1", "pause"),
                life(11, "matching-1", "crash"),
                EXPIRED,
                INHERITED,
                life(30, "gateway-1", "resume"),
            ],
        },
    ),
    "stopped-gracefully-with-work-to-do": Case(
        [
            STARTS,
            asked(1),
            life(2, "matching-1", "stop"),
            life(3, "matching-1", "exit"),
            life(4, "matching-1", "start"),
        ],
        {
            "nobody waited": [
                STARTS,
                asked(1),
                told(2),
                life(3, "matching-1", "stop"),
                life(4, "matching-1", "start"),
            ],
            "only for a deposit": [
                STARTS,
                asked(1, command="deposit"),
                life(2, "matching-1", "stop"),
                life(4, "matching-1", "start"),
            ],
            "it did not start again": [STARTS, asked(1), life(2, "matching-1", "stop"), life(3, "matching-1", "exit")],
            "crashed": [STARTS, asked(1), life(2, "matching-1", "crash"), life(4, "matching-1", "start")],
            "a gateway, and nobody waited for it": [
                life(0, "gateway-2", "start"),
                asked(1),
                life(2, "gateway-2", "stop"),
                life(4, "gateway-2", "start"),
            ],
            "an attacker": [
                life(0, "attacker-1", "start"),
                asked(1),
                life(2, "attacker-1", "stop"),
                life(4, "attacker-1", "start"),
            ],
        },
    ),
    "spare-instance-took-a-partition": Case(
        [took(1, "matching-3")], {"one of the two that are always there": [took(1, "matching-2")]}
    ),
}
ELSEWHERE = {"engine-crashed-with-orders-resting", "completed-under-a-wrong-clock"}
"""Those with a test of their own."""


def test_every_goal_has_its_case() -> None:
    assert goals_in("hosts") == CASES.keys() | ELSEWHERE


@pytest.mark.parametrize("goal", CASES)
def test_a_few_rows_reach_the_goal(goal: str) -> None:
    assert count(goal, CASES[goal].reached) == 1


@pytest.mark.parametrize(("goal", "why"), near_misses(CASES))
def test_a_near_miss_does_not(goal: str, why: str) -> None:
    assert count(goal, CASES[goal].near_misses[why]) == 0


@pytest.mark.parametrize(
    ("host", "is_cancelled", "crashes"),
    [("matching-1", False, 1), ("matching-1", True, 0), ("ubscore-1", False, 0)],
    ids=["resting", "cancelled before", "another service"],
)
def test_an_engine_crashes_with_orders_resting(host: str, is_cancelled: bool, crashes: int) -> None:
    world = MiniWorld()
    order = world.place(1, BUY, 100, 1)
    if is_cancelled:
        world.cancel(1, order)
    world.emit("lifecycle", **life(world.t // 1_000_000 + 1, host, "crash")[1])
    assert count_in("engine-crashed-with-orders-resting", world) == crashes


@pytest.mark.parametrize(
    ("late_s", "columns", "found"),
    [
        (0, {"ttl": DAY_S - 300}, 1),
        (90, {"ttl": DAY_S - 390}, 1),
        (90, {"ttl": DAY_S - 90}, 0),
        (90, {"ttl": DAY_S}, 0),
        (0, {"ttl": -1}, 0),
        (0, {"ttl": DAY_S - 300, "table": ORDER_HISTORY}, 0),
        (0, {"ttl": DAY_S - 300, "order_id": 4_242}, 0),
    ],
    ids=[
        "ahead",
        "ahead, and written late",
        "written late by a right clock",
        "asked of the clock before a pause",
        "a live row",
        "another table",
        "an order that has not ended",
    ],
)
def test_a_finished_row_is_written_under_a_wrong_clock(late_s: int, columns: dict[str, Any], found: int) -> None:
    world = MiniWorld()
    order = world.place(1, BUY, 100, 1)
    world.cancel(1, order)
    sent = world.t // 1_000_000 + late_s * 1_000
    world.emit("cql", **insert(sent + 1, started=sent, **{"order_id": order, **columns})[1])
    assert count_in("completed-under-a-wrong-clock", world) == found


def test_settlement_owns_each_partition_of_each_topic() -> None:
    crash = life(9, "settlement-1", "crash")
    given = [
        life(0, "settlement-1", "start"),
        group(5, "settlement-1", "assign", f"{ENGINE_OUTPUTS}-0 {VALIDATED_ORDERS}-0"),
    ]
    first, second = (took(6, "settlement-1", topic=topic) for topic in (ENGINE_OUTPUTS, VALIDATED_ORDERS))
    assert count("crashed-during-recovery", [*given, first, crash]) == 1
    assert count("crashed-during-recovery", [*given, first, second, crash]) == 0
