"""Runs the conformance suite, `tests/conformance`, in a process of its own, and counts what passed on each side.

This module is also the pytest plugin that writes down the outcomes: of which side a test is says the parameter of its
fixture, or the server that it asks for.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pytest

OUTCOMES_VARIABLE: Final = "EXCHANGE_SIM_CONFORM_OUTCOMES"
SIDES: Final = ("double", "server")
_SERVER_FIXTURES: Final = {"server", "server_address", "kafka_address", "cassandra_address"}


class SuiteError(Exception):
    """The suite could not be run; the message says why."""


@dataclass
class SuiteResult:
    """What came of it: side -> outcome -> count, and each failed test with the last line of its failure."""

    counts: dict[str, Counter[str]] = field(default_factory=lambda: {side: Counter() for side in SIDES})
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether nothing failed or was skipped."""
        return not self.failed and all(set(counted) <= {"passed"} for counted in self.counts.values())


def suite_folder(server: str) -> Path:
    """Where the suite of a server is. Raises SuiteError outside a source tree."""
    folder = Path(__file__).resolve().parents[2] / "tests" / "conformance" / server
    if not folder.is_dir():
        raise SuiteError(f"the conformance suite is in the source tree, which is not here: no {folder}")
    return folder


def run_suite(server: str, environment: dict[str, str], tell: Callable[[str], object]) -> SuiteResult:
    """Run the suite of a server, whose address is in the environment. Raises SuiteError if pytest did not get to it."""
    folder = suite_folder(server)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "outcomes"
        path.touch()
        command = [sys.executable, "-m", "pytest", "-p", "sim.conform.suite", "--tb=line", str(folder)]
        variables = {**os.environ, **environment, OUTCOMES_VARIABLE: str(path)}
        said: list[str] = []
        with subprocess.Popen(
            command, cwd=folder.parents[2], env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                said.append(line)
                tell(f"{server}: {len(path.read_text().splitlines())} tests")
        status = process.returncode
        result = SuiteResult()
        for line in path.read_text().splitlines():
            outcome = json.loads(line)
            result.counts[outcome["side"]][outcome["outcome"]] += 1
            if outcome["outcome"] == "failed":
                result.failed[outcome["test"]] = outcome["why"]
        if status not in (0, 1):
            raise SuiteError(f"pytest ended with status {status}: {''.join(said[-3:]).strip()}")
        return result


# -- the plugin


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Note the side of each test where its report will find it."""
    for item in items:
        item.user_properties.append(("side", _side_of(item)))


def _side_of(item: Any) -> str:
    for value in getattr(getattr(item, "callspec", None), "params", {}).values():
        if value in SIDES:
            return str(value)
    return "server" if _SERVER_FIXTURES & set(getattr(item, "fixturenames", ())) else "double"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write down how a test ended: once, by its call, or by what kept it from being called or tidied up."""
    if report.when != "call" and report.outcome == "passed":
        return
    why = str(report.longrepr or "").strip().splitlines()
    side = dict(report.user_properties)["side"]
    line = {"test": report.nodeid, "side": side, "outcome": report.outcome, "why": why[-1] if why else ""}
    with open(os.environ[OUTCOMES_VARIABLE], "a") as file:
        file.write(json.dumps(line) + "\n")
