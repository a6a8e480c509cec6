"""What runs a scenario again: a command line where options can say it, a file where they cannot."""

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sim.commandline import main
from sim.repro import Repro, command_for, read_repro
from sim.run import written_out
from sim.scenario import Scenario, ScenarioError

SMALL = Scenario(seed=3, orders=5, users=2, symbols=1, duration_ns=1_123_456_789, faults="crash", defect="gap-skipped")


def status_of(*words: str) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["exchange-sim", *words])
        with pytest.raises(SystemExit) as ended:
            main()
    return ended.value.code


def test_a_command_runs_exactly_its_scenario(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = command_for(SMALL)
    assert command is not None
    assert "--duration 1.123456789 " in command
    words = shlex.split(command)[1:]
    status_of(*words, "--json", "--out", str(tmp_path / "trace"))
    assert Scenario.from_dict(json.loads(capsys.readouterr().out)["scenario"]) == SMALL


@pytest.mark.parametrize(
    "changed", [{"gateways": 3}, {"instances": 1}, {"snapshot_interval_outputs": 1}, {"settle_bound_ns": 10**9}]
)
def test_what_options_cannot_say_has_no_command(changed: dict[str, int]) -> None:
    assert command_for(replace(SMALL, **changed)) is None  # type: ignore[arg-type]


def test_what_is_written_out_has_no_command() -> None:
    assert command_for(written_out(Scenario(orders=2, duration_ns=10**9))) is None


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda script: script["operations"][0].update(amount=2**64), "operation 1: amount must fit 64 bits"),
        (lambda script: script["operations"][1].update(kind="bogus"), "operation 2: unknown kind of operation"),
        (lambda script: script["topology"]["symbols"][0].update(tick_size="abc"), "not a number: 'abc'"),
    ],
)
def test_a_repro_that_was_edited_wrongly_is_refused(
    change: object, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(change)
    path = tmp_path / "repro.json"
    Repro(written_out(Scenario(orders=2, duration_ns=10**9)), "", {}).write(path)
    stored = json.loads(path.read_text())
    change(stored["scenario"]["script"])
    path.write_text(json.dumps(stored))
    assert status_of("replay", str(path)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line


def test_a_trace_of_no_simulated_run_is_no_repro(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace"
    status_of("run", "--orders", "2", "--duration", "1", "--faults", "none", "--out", str(trace))
    manifest = json.loads((trace / "manifest.json").read_text())
    (trace / "manifest.json").write_text(json.dumps({**manifest, "digest": ""}))
    with pytest.raises(ScenarioError, match="no simulated run"):
        read_repro(trace)
