"""The command line: what it prints, and that bad input gets one clear line and exit status 2."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest

from sim.commandline import main
from sim.commands.base import width_of
from sim.repro import Repro, read_repro
from sim.run import written_out
from sim.scenario import SECOND_NS, Scenario, ScenarioError
from traces.store import read_trace

SMALL = ("--seed", "3", "--orders", "25", "--users", "4", "--duration", "2")


class Outcome:
    """What a command printed, and its exit status."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status = status
        self.out = out
        self.err = err


Command = Callable[..., Outcome]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Run `exchange-sim` with the arguments given, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr("sys.argv", ["exchange-sim", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        status = ended.value.code
        assert isinstance(status, int)
        return Outcome(status, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def stored_trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small run, stored once for all tests that only read it."""
    from sim.progress import Progress
    from sim.run import run_scenario

    folder = tmp_path_factory.mktemp("stored") / "trace"
    with Path("/dev/null").open("w") as nowhere:
        result = run_scenario(
            Scenario(seed=3, orders=25, users=4, duration_ns=2 * SECOND_NS), folder, Progress(nowhere)
        )
    assert result.holds
    return folder


@pytest.fixture
def trace(stored_trace: Path, tmp_path: Path) -> Path:
    """A copy of the stored trace that a test may damage."""
    return Path(shutil.copytree(stored_trace, tmp_path / "trace"))


def refused(outcome: Outcome, *words: str) -> None:
    """Status 2, nothing on standard output, and one line that has all of the words."""
    assert outcome.status == 2, outcome.err
    assert outcome.out == ""
    assert outcome.err.count("\n") == 1, outcome.err
    assert outcome.err.startswith("exchange-sim: ")
    for word in words:
        assert word in outcome.err


# -- what a run prints


def test_run_prints_a_summary_and_stores_the_trace(command: Command, tmp_path: Path) -> None:
    outcome = command("run", *SMALL)
    assert outcome.status == 0, outcome.out
    for text in ("seed 3", "placement-accounted", "digest", "orders/s", "invariants hold"):
        assert text in outcome.out
    assert (tmp_path / "runs" / "seed-3" / "manifest.json").is_file()


def test_run_json_has_every_field_of_the_contract(command: Command, tmp_path: Path) -> None:
    outcome = command("run", *SMALL, "--out", "here", "--json")
    found = json.loads(outcome.out)
    assert set(found) >= {
        "seed", "digest", "scenario", "sim_seconds", "wall_seconds", "check_seconds", "orders", "placements", "trades",
        "events", "completions", "faults", "invariants", "trace",
    }  # fmt: skip
    assert found["seed"] == 3
    assert found["trace"] == "here"
    assert found["invariants"]["placement-accounted"]["verdict"] == "holds"
    assert found["invariants"]["placement-accounted"]["checked"] == found["placements"]


def test_check_judges_a_stored_trace_as_the_run_did(command: Command, trace: Path) -> None:
    outcome = command("check", str(trace), "--json")
    assert outcome.status == 0
    stored = json.loads((trace / "manifest.json").read_text())
    assert json.loads(outcome.out)["invariants"] == stored["verdicts"]


def test_replay_of_a_trace_gives_the_same_digest(command: Command, trace: Path) -> None:
    outcome = command("replay", str(trace), "--json")
    assert outcome.status == 0, outcome.err
    assert json.loads(outcome.out)["digest"] == json.loads((trace / "manifest.json").read_text())["digest"]


def test_replay_keeps_its_hands_off_the_trace_that_it_replays(command: Command, trace: Path) -> None:
    before = read_trace(trace).manifest.digest
    (trace.parent / "again").symlink_to(trace)
    for out in (trace, trace.parent / "again"):
        refused(command("replay", str(trace), "--out", str(out)), "a place of its own")
    assert read_trace(trace).manifest.digest == before


def test_replay_of_a_written_out_scenario_tells_of_what_is_written(command: Command, tmp_path: Path) -> None:
    case = written_out(Scenario(seed=3, orders=25, users=4, faults="none", duration_ns=2 * SECOND_NS))
    assert case.script is not None
    alone = tuple(each for each in case.script.operations if each.user_id == 1)
    script = msgspec.structs.replace(case.script, operations=alone)
    Repro(replace(case, script=script, defect="cancel-completion-missing"), "", {}).write(tmp_path / "repro.json")
    told = command("replay", "repro.json")
    assert f" orders of a flow written out, {len(alone)} operations, 1 users, " in told.out
    assert told.status == 1
    assert "again   exchange-sim replay repro.json\n" in told.out


def test_replay_says_when_the_digest_differs(command: Command, trace: Path) -> None:
    manifest = json.loads((trace / "manifest.json").read_text())
    manifest["digest"] = "0" * 32
    (trace / "manifest.json").write_text(json.dumps(manifest))
    outcome = command("replay", str(trace))
    assert outcome.status == 2
    assert "digest" in outcome.err.splitlines()[-1]


# -- what cannot be done


def test_unknown_command(command: Command) -> None:
    refused(command("runn"), "runn")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--frobnicate",), ("--frobnicate",)),
        (("--seed", "x"), ("--seed", "integer")),
        (("--seed", "-1"), ("seed", "-1")),
        (("--seed", str(2**63)), ("seed",)),
        (("--orders", "-5"), ("orders", "-5")),
        (("--users", "0"), ("users", "0")),
        (("--symbols", "0"), ("symbols", "0")),
        (("--duration", "0"), ("duration",)),
        (("--duration", "soon"), ("--duration", "soon")),
        (("--duration", "nan"), ("--duration", "nan")),
        (("--duration", "1e300"), ("--duration", "1e300")),
        (("--duration", "1e999999"), ("--duration", "1e999999")),
        (("--duration", "-1e99999999999999999999"), ("--duration",)),
        (("--duration", "1e-10"), ("--duration", "whole nanoseconds")),
        (("--duration", "1000000000"), ("duration_ns must be",)),
        (("--faults", "gremlins"), ("gremlins", "unknown fault")),
        (("--faults", "crash,crash"), ("twice",)),
        (("--defect", "gremlins"), ("gremlins", "unknown defect")),
        (("--flow", "no-such-file"), ("no-such-file",)),
        (("--defect", ""), ("--defect must not be empty",)),
    ],
)
def test_run_refuses(command: Command, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    refused(command("run", *arguments), *words)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not any format at all",
        b'{"type": "place"\n',
        gzip.compress(b"R" + bytes(38))[:-9],
        b"\x00\x27R" + bytes(10),
        b"34200.1,1,11885113,21,2238100\n",
    ],
    ids=["empty", "text", "json", "truncated gzip", "truncated itch", "truncated lobster"],
)
def test_run_refuses_a_damaged_flow(command: Command, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "flow").write_bytes(content)
    refused(command("run", "--flow", "flow"), "flow")


def test_run_refuses_to_overwrite_what_is_not_a_trace(command: Command, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    outcome = command("run", *SMALL, "--out", "precious")
    assert outcome.status == 2
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "years of work"


def test_explain_tells_what_happened_to_an_order(command: Command, trace: Path) -> None:
    order_id = int(read_trace(trace).placements["order_id"].iloc[0])
    told = command("explain", str(trace), "--order", str(order_id))
    assert told.status == 0
    for word in ("asks to place", "placement: revision 1", "INSERT active_orders", "once settled"):
        assert word in told.out
    as_json = json.loads(command("explain", str(trace), "--order", str(order_id), "--json").out)
    assert as_json == {"order_id": order_id, "story": told.out.splitlines()}


@pytest.mark.parametrize("words", [("--order", "5"), ("--order", "0"), ("--order", "x"), ()])
def test_explain_of_no_order(command: Command, trace: Path, words: tuple[str, ...]) -> None:
    refused(command("explain", str(trace), *words), "order")


@pytest.mark.parametrize("verb", ["check", "replay"])
def test_a_missing_trace(command: Command, verb: str) -> None:
    refused(command(verb, "nowhere"), "nowhere")


def test_check_of_a_folder_that_is_not_a_trace(command: Command, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    refused(command("check", "folder"), "folder", "not a trace")


def test_check_of_another_format_version(command: Command, trace: Path) -> None:
    manifest = json.loads((trace / "manifest.json").read_text())
    manifest["format_version"] = 999
    (trace / "manifest.json").write_text(json.dumps(manifest))
    refused(command("check", str(trace)), "999")


def test_check_of_a_truncated_kind(command: Command, trace: Path) -> None:
    path = trace / "kafka_log.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    refused(command("check", str(trace)), "kafka_log.parquet")


def test_check_of_a_missing_kind(command: Command, trace: Path) -> None:
    (trace / "cql.parquet").unlink()
    refused(command("check", str(trace)), "cql.parquet")


def test_check_of_a_missing_column(command: Command, trace: Path) -> None:
    path = trace / "final_active_orders.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["status"]), path)
    refused(command("check", str(trace)), "final_active_orders.parquet", "status")


def test_replay_of_a_repro_with_an_unknown_option(command: Command, tmp_path: Path) -> None:
    repro = Repro(Scenario(seed=1), "0" * 32, {})
    repro.write(tmp_path / "repro.json")
    assert read_repro(tmp_path / "repro.json") == repro
    stored = json.loads((tmp_path / "repro.json").read_text())
    stored["scenario"]["gremlins"] = 2
    (tmp_path / "repro.json").write_text(json.dumps(stored))
    refused(command("replay", "repro.json"), "repro.json", "gremlins")


@pytest.mark.parametrize("option", ["--defect", "--judge", "--scheduler", "--faults"])
def test_a_campaign_refuses_what_an_unset_variable_leaves(command: Command, option: str) -> None:
    refused(command("campaign", "--seeds", "0:2", option, ""), "" if option == "--faults" else option)


@pytest.mark.parametrize("words", [("campaign", "--seeds", "0:2"), ("defects", "power"), ("defects", "shrink")])
def test_an_absurd_number_of_processes(command: Command, words: tuple[str, ...]) -> None:
    refused(command(*words, "--jobs", "1001"), "--jobs", "1000")


def test_no_more_processes_than_pieces_of_work() -> None:
    assert width_of(30, 2) == 2
    assert width_of(2, 30) == 2
    assert width_of(None, 1) == 1


def test_a_repro_that_cannot_be_written() -> None:
    case = Scenario(seed=3, orders=5, users=2, faults="none", duration_ns=SECOND_NS)
    with pytest.raises(ScenarioError, match=r"/dev/full: cannot be written: No space left on device"):
        Repro(case, "", {}).write(Path("/dev/full"))


def test_json_of_the_gallery_stands_after_its_command(command: Command) -> None:
    refused(command("defects", "--json", "list"), "write --json after list")
    assert json.loads(command("defects", "--json").out) == json.loads(command("defects", "list", "--json").out)


def test_an_error_without_words_is_named(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: object, **__: object) -> None:
        raise TimeoutError

    monkeypatch.setattr("sim.run.run_scenario", late)
    refused(command("run"), "TimeoutError")


def test_bench_of_something_unknown(command: Command) -> None:
    refused(command("bench", "--only", "gremlins"), "gremlins")


@pytest.mark.parametrize("arguments", [("defects", "list"), ("faults", "--markdown")], ids=["short", "long"])
def test_output_that_nobody_reads_is_no_violation(arguments: tuple[str, ...]) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "sim", *arguments], stdout=write_end, stderr=subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(write_end)
    assert (ended.returncode, ended.stderr) == (2, "exchange-sim: nobody reads the output any more\n")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream_is_no_error(closed: str) -> None:
    ended = subprocess.run(
        ["sh", "-c", f'exec "$0" -m sim defects list {closed}', sys.executable], capture_output=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
