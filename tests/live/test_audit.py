"""`exchange-sim audit` on real servers: at work, at rest, behind; and what it says when it cannot."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from live.cassandra import CassandraConnection
from tests.live.conftest import RealServers
from tests.live.running import COMMAND, ServeAll

UNSEEN = {
    "reads-complete",
    "reads-own-user",
    "no-resurrection",
    "statements-at-quorum",
    "offsets-after-rows",
    "corrupt-input-stops",
}
"""What a system does not show from outside."""


@pytest.fixture
def served(servers: RealServers, tmp_path: Path) -> Iterator[ServeAll]:
    """All services, up."""
    running = ServeAll(servers.arguments, tmp_path)
    try:
        running.wait_until_serving()
        yield running
    finally:
        running.close()


def audit(servers: RealServers, trace: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """The exit status of an audit that keeps its trace, and what it says."""
    ended = command("audit", *servers.arguments, "--json", "--out", str(trace), *options)
    assert ended.stdout, ended.stderr
    return ended.returncode, json.loads(ended.stdout)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=200)


def verdicts(found: dict[str, Any], verdict: str) -> set[str]:
    return {name for name, each in found["invariants"].items() if each["verdict"] == verdict}


def driving(servers: RealServers, orders: int, seconds: int) -> subprocess.Popen[str]:
    options = ["--orders", str(orders), "--duration", str(seconds), "--wait", "60", "--json"]
    return subprocess.Popen(
        [*COMMAND, "drive", *servers.arguments, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_audit_at_work_at_rest_and_behind(servers: RealServers, served: ServeAll, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    driver = driving(servers, orders=400, seconds=60)
    try:
        served.wait_for(lambda: len(served.logged("OrderPlacement emitted")) > 40, "orders are placed")
        status, found = audit(servers, trace, "--rest", "0")
        assert (status, found["state"]) == (0, "at work"), command("check", str(trace)).stdout
        assert verdicts(found, "not exercised") == {*UNSEEN, "converges"}
        assert found["invariants"]["placement-accounted"]["checked"] > 0

        driver.wait(timeout=200)
        assert driver.returncode == 0, driver.communicate()
        status, found = audit(servers, trace)
        assert (status, found["state"]) == (0, "at rest")
        assert verdicts(found, "not exercised") == UNSEEN
        assert found["placements"] > 100
        checked = subprocess.run([*COMMAND, "check", str(trace), "--json"], capture_output=True, text=True, timeout=100)
        assert checked.returncode == 0, checked.stderr
        assert json.loads(checked.stdout)["invariants"] == found["invariants"]
    finally:
        driver.kill()
        driver.communicate()

    served.stop()
    asyncio.run(change_a_row(servers))
    status, found = audit(servers, trace)
    assert (status, found["state"]) == (1, "at rest")
    assert verdicts(found, "violated") == {"row-matches-engine"}
    assert found["invariants"]["row-matches-engine"]["violations"] == 1

    asyncio.run(forget_progress(servers))
    status, found = audit(servers, trace, "--settle", "1")
    assert (status, found["state"]) == (1, "behind")
    assert "settlement stands at offset 0 of engine.outputs-0" in " ".join(found["behind"])
    assert "converges" in verdicts(found, "violated")
    assert "placement-accounted" in verdicts(found, "not exercised")


def test_system_that_is_not_there_is_told_in_one_line_and_not_created(servers: RealServers) -> None:
    for given, says in (
        (servers.arguments, f"has no topic {servers.namespace}.order.requests"),
        (["--kafka", "127.0.0.1:1", "--cassandra", servers.cassandra], "Kafka at 127.0.0.1:1 does not answer"),
        (["--kafka", "nonsense:", "--cassandra", servers.cassandra], "--kafka"),
    ):
        ended = command("audit", *given)
        assert ended.returncode == 2
        assert says in ended.stderr
        assert len(ended.stderr.splitlines()) == 1, ended.stderr


async def change_a_row(servers: RealServers) -> None:
    """Write another quantity into the history of one order, where nobody would look."""
    connection = CassandraConnection(servers.cassandra)
    try:
        session = await connection.session(servers.namespace)
        row = session.execute(
            "SELECT user_id, symbol_id, created_at, order_id, quantity, revision FROM order_history LIMIT 1"
        ).one()
        *key, quantity, revision = row
        session.execute(
            "UPDATE order_history USING TIMESTAMP %s SET quantity = %s "
            "WHERE user_id = %s AND symbol_id = %s AND created_at = %s AND order_id = %s",
            (revision, quantity + 1, *key),
        )
    finally:
        await connection.close()


async def forget_progress(servers: RealServers) -> None:
    """Remove what settlement has noted of its progress."""
    connection = CassandraConnection(servers.cassandra)
    try:
        (await connection.session(servers.namespace)).execute("TRUNCATE settlement_progress")
    finally:
        await connection.close()
