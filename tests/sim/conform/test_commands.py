"""The command `conform`: what it prints, what its status says, and that bad input gets one clear line."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sim.commandline import main
from sim.commands import conform as commands
from sim.conform import suite
from sim.conform.kafka_sequences import Report
from sim.conform.suite import SuiteError, SuiteResult, run_suite, suite_folder

Outcome = tuple[int, str, str]


@pytest.fixture
def conform(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Run `exchange-sim conform` with the arguments given, where no stack runs; its status and what it printed."""
    monkeypatch.chdir(tmp_path)
    for variable in ("EXCHANGE_SIM_KAFKA", "EXCHANGE_SIM_CASSANDRA", "EXCHANGE_SIM_STACK"):
        monkeypatch.delenv(variable, raising=False)

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr("sys.argv", ["exchange-sim", "conform", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, captured.out, captured.err

    return run


@pytest.fixture
def listening() -> Iterator[str]:
    """The address of something that takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("mysql",), "there is no server 'mysql' to conform to"),
        (("kafka",), "no real Kafka: give --kafka HOST:PORT"),
        (("cassandra",), "no real Cassandra: give --cassandra HOST:PORT"),
        (("kafka", "--kafka", "nowhere"), "not an address of Kafka: 'nowhere'"),
        (("kafka", "--kafka", "127.0.0.1:9"), "Kafka at 127.0.0.1:9 does not answer"),
        (("kafka", "--sequences", "-1"), "sequences"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(
    conform: Callable[..., Outcome], arguments: tuple[str, ...], says: str
) -> None:
    status, out, err = conform(*arguments)
    assert (status, out) == (2, "")
    assert says in err
    assert len(err.splitlines()) == 1


def report_of(differences: list[str]) -> Callable[..., Report]:
    return lambda address, count, seed, told: Report(sequences=count, steps=7, records=3, differences=differences)


@pytest.mark.parametrize(
    ("failed", "differences", "status"),
    [({}, [], 0), ({"test_a": "assert 1 == 2"}, [], 1), ({}, ["they differ:\n  here"], 1)],
)
def test_status_says_whether_the_double_conforms(
    conform: Callable[..., Outcome],
    listening: str,
    monkeypatch: pytest.MonkeyPatch,
    failed: dict[str, str],
    differences: list[str],
    status: int,
) -> None:
    def run(server: str, environment: dict[str, str], tell: Callable[[str], object]) -> SuiteResult:
        assert (server, environment) == ("kafka", {"EXCHANGE_SIM_KAFKA": listening})
        result = SuiteResult(failed=failed)
        result.counts["double"]["passed"] = 5
        result.counts["server"].update({"passed": 4, **({"failed": 1} if failed else {})})
        return result

    monkeypatch.setattr(suite, "run_suite", run)
    monkeypatch.setattr(commands, "_compare_kafka", report_of(differences))
    ended, out, _ = conform("kafka", "--kafka", listening, "--sequences", "30", "--json")
    assert ended == status
    told = json.loads(out)["kafka"]
    assert told.pop("seconds") >= 0
    assert told == {
        "address": listening,
        "holds": status == 0,
        "tests": {"double": {"passed": 5}, "server": {"passed": 4, **({"failed": 1} if failed else {})}},
        "failed": failed,
        "compared": {"sequences": 30, "steps": 7, "records": 3, "unsteady": 0},
        "differences": differences,
    }
    ended, out, _ = conform("kafka", "--kafka", listening, "--sequences", "30")
    assert ended == status
    lines = out.splitlines()
    assert lines[0].startswith(f"kafka at {listening}: {'conforms' if status == 0 else 'DIFFERS'} (")
    assert lines[1] == "  tests on the double  5 passed"
    assert lines[3] == "  compared              30 sequences, 7 steps, 3 records, 0 unsteady"
    assert lines[4:] == [
        *(f"  failed: {test}: {why}" for test, why in failed.items()),
        *(["  they differ:", "    here"] if differences else []),
    ]


def test_skipped_test_is_not_conformance() -> None:
    result = SuiteResult()
    assert result.holds
    result.counts["server"].update(passed=3, skipped=1)
    assert not result.holds


SUITE = """
import pytest

@pytest.fixture(params=["double", "server"])
def side(request):
    return request.param

def test_on_both(side):
    assert True

def test_that_differs(side):
    assert side == "double"

def test_skipped(side):
    if side == "server":
        pytest.skip("no server")

def test_of_the_double_alone():
    assert True

@pytest.fixture
def server():
    raise ValueError("cannot be set up")

def test_of_the_server_alone(server):
    assert True
"""


def test_outcomes_are_counted_by_side(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "tests" / "conformance" / "kafka"
    folder.mkdir(parents=True)
    (folder / "test_it.py").write_text(SUITE)
    monkeypatch.setattr(suite, "suite_folder", lambda server: folder)
    monkeypatch.setenv("PYTHONPATH", str(Path(suite.__file__).parents[2]))
    told: list[str] = []
    result = run_suite("kafka", {}, told.append)
    assert {side: dict(counted) for side, counted in result.counts.items()} == {
        "double": {"passed": 4},
        "server": {"passed": 1, "failed": 2, "skipped": 1},
    }
    assert [test.partition("::")[2] for test in result.failed] == [
        "test_that_differs[server]",
        "test_of_the_server_alone",
    ]
    assert not result.holds
    assert told


def test_suite_that_cannot_be_run_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "tests" / "conformance" / "kafka"
    folder.mkdir(parents=True)
    monkeypatch.setattr(suite, "suite_folder", lambda server: folder)
    with pytest.raises(SuiteError, match="pytest ended with status 5"):
        run_suite("kafka", {}, lambda text: None)


def test_suite_is_found_in_the_source_tree() -> None:
    assert (suite_folder("kafka") / "conftest.py").is_file()
    with pytest.raises(SuiteError, match="the conformance suite is in the source tree"):
        suite_folder("mysql")


def test_nothing_heavy_is_imported_for_the_help() -> None:
    assert "hypothesis" not in vars(sys.modules["sim.commands.conform"])
