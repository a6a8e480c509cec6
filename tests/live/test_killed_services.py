"""Services on real servers, killed and frozen in the middle of a run: the invariants hold all the same (issue 3)."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import RealServers
from tests.live.running import COMMAND, ServeAll

ORDERS = 500
DURATION_S = 40
BETWEEN_S = 5.0
KILLED = ("matching-1", "ubscore-1", "settlement-1", "ubscore-1", "matching-1", "settlement-1")
"""In this order, while the workload runs."""
FROZEN = ("ubscore-1", "matching-1", "settlement-1")
FROZEN_S = 13.0
"""Longer than any session time-out: the group gives the partitions to the other instance meanwhile."""


def test_every_invariant_holds_when_services_are_killed_in_the_middle(
    servers: RealServers, serve_all: ServeAll, tmp_path: Path
) -> None:
    def kill_each() -> None:
        for number, child in enumerate(KILLED):
            time.sleep(BETWEEN_S)
            deaths = KILLED[: number + 1].count(child)
            serve_all.kill(child)
            serve_all.wait_for_count(deaths, "child ended by itself", child=child, status=-9)
            serve_all.wait_for_count(deaths + 1, "child started", child=child)

    serve_all.wait_until_serving()
    result = _driven(servers, tmp_path, kill_each)
    _assert_judged_and_good(result)
    assert serve_all.logged("service failed") == []
    assert serve_all.alarms() == []
    assert serve_all.stop() == 0


@pytest.mark.parametrize("instances", [2])
def test_every_invariant_holds_when_frozen_instances_wake_up_after_others_took_over(
    servers: RealServers, serve_all: ServeAll, tmp_path: Path
) -> None:
    def freeze_each() -> None:
        for child in FROZEN:
            time.sleep(BETWEEN_S / 5)
            other = child.replace("-1", "-2")
            taken = len(serve_all.logged("partition taken over", instance=other))
            with serve_all.frozen(child):
                time.sleep(FROZEN_S)
                serve_all.wait_for_count(taken + 1, "partition taken over", instance=other)

    serve_all.wait_until_serving()
    result = _driven(servers, tmp_path, freeze_each)
    _assert_judged_and_good(result)
    assert serve_all.logged("child ended by itself") == []
    assert serve_all.alarms() == []
    assert serve_all.stop() == 0


def _driven(servers: RealServers, folder: Path, meanwhile: Callable[[], None]) -> dict[str, Any]:
    """Drive a workload, do something meanwhile, and return what the driver says."""
    driver = subprocess.Popen(
        [
            *(*COMMAND, "drive", *servers.arguments, "--seed", "11", "--orders", str(ORDERS)),
            *("--duration", str(DURATION_S), "--out", str(folder / "trace"), "--json"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        meanwhile()
        output, errors = driver.communicate(timeout=400)
    finally:
        driver.kill()
        driver.wait()
    assert errors == b""
    result: dict[str, Any] = json.loads(output)
    assert driver.returncode == (1 if any(each["violations"] for each in result["invariants"].values()) else 0)
    return result


def _assert_judged_and_good(result: dict[str, Any]) -> None:
    invariants = result["invariants"]
    assert {name: each for name, each in invariants.items() if each["violations"]} == {}
    unseen = {"statements-at-quorum", "offsets-after-rows", "corrupt-input-stops"}
    assert {name for name, each in invariants.items() if each["verdict"] == "not exercised"} == unseen
    assert result["orders"] >= ORDERS
