"""A failing run becomes a handful of operations, told in words, with a repro and a test."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from sim.commandline import main
from sim.progress import Progress
from sim.repro import Repro, read_repro
from sim.run import simulate, written_out
from sim.scenario import Scenario, ScenarioError
from sim.script import Strike
from sim.shrink.fewer import script_of
from sim.shrink.shrinker import shrink
from sim.shrink.target import ShrinkError
from sim.testing import hold_invariants
from traces.recorder import NoTrace, Recorder

SMALL = Scenario(seed=3, orders=25, users=4, symbols=1, faults="none", duration_ns=2_000_000_000)
BROKEN = replace(SMALL, defect="cancel-completion-missing")


def digest(scenario: Scenario) -> str:
    return simulate(scenario, Progress(sys.stderr), Recorder(NoTrace())).manifest.digest


def test_a_scenario_written_out_is_the_same_run() -> None:
    scenario = Scenario(seed=20, orders=20, duration_ns=3_000_000_000)
    out = written_out(scenario)
    assert len(script_of(out).operations) > 20
    assert script_of(out).strikes
    assert digest(out) == digest(scenario)
    assert Scenario.from_dict(json.loads(json.dumps(out.as_dict()))) == out


def test_a_missing_completion_needs_a_deposit_an_order_and_its_cancel() -> None:
    shrunk = shrink(BROKEN, "completion-once", 300, Progress(sys.stderr))
    assert shrunk.is_finished
    assert shrunk.strikes == 0
    kinds = [each.kind for each in script_of(shrunk.case).operations]
    assert sorted(kinds) == ["cancel", "deposit", "place"]
    assert (shrunk.case.instances, shrunk.case.gateways) == (1, 1)


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace, small = tmp_path / "trace", tmp_path / "small.json"
    words = ["run", "--seed", "3", "--orders", "25", "--users", "4", "--symbols", "1", "--duration", "2"]
    assert status_of(*words, "--faults", "none", "--defect", "cancel-completion-missing", "--out", str(trace)) == 1
    capsys.readouterr()
    assert status_of("shrink", str(trace), "--out", str(small)) == 1
    told = capsys.readouterr().out
    assert "user 1 cancels" in told
    assert "completion-once" in told or "lifecycle-matches-reference" in told or "placement-accounted" in told
    assert f"exchange-sim replay {small}" in told
    assert status_of("replay", str(small)) == 1
    program = told[told.index("from pathlib import Path") :]
    (tmp_path / "test_small.py").write_text(program)
    namespace: dict[str, object] = {"__file__": str(tmp_path / "test_small.py")}
    exec(compile(program, "test_small.py", "exec"), namespace)
    test = next(value for name, value in namespace.items() if name.startswith("test_"))
    assert callable(test)
    with pytest.raises(AssertionError, match="violated"):
        test()
    capsys.readouterr()
    assert status_of("shrink", str(small), "--json", "--out", str(tmp_path / "smaller.json")) == 1
    again = json.loads(capsys.readouterr().out)
    assert again["operations"] == again["operations_before"]
    assert read_repro(small).scenario.script is not None


class InterruptedAfter(Progress):
    """An impatient person, who watches so many passes."""

    def __init__(self, passes: int) -> None:
        super().__init__(None)
        self.passes = passes

    def show(self, text: str) -> None:
        if text.startswith("completion-once"):
            self.passes -= 1
        if self.passes < 0:
            raise KeyboardInterrupt


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def broken_repro(folder: Path) -> tuple[Path, Path]:
    """A repro of what breaks, and where the small one shall go."""
    path = folder / "repro.json"
    Repro(BROKEN, "", {}).write(path)
    return path, folder / "small.json"


def test_interrupted_shrinking_keeps_the_smallest_so_far(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, small = broken_repro(tmp_path)
    monkeypatch.setattr("sim.commands.hunting.stderr_progress", lambda: InterruptedAfter(8))
    assert status_of("shrink", str(path), "--invariant", "completion-once", "--out", str(small)) == 2
    told = capsys.readouterr()
    assert told.err == "exchange-sim: interrupted\n"
    assert "; interrupted: it may become smaller yet" in told.out
    assert len(script_of(read_repro(small).scenario).operations) < len(script_of(written_out(BROKEN)).operations)
    assert status_of("replay", str(small)) == 1


def test_what_was_found_is_on_disk_before_it_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, small = broken_repro(tmp_path)
    monkeypatch.setattr("sim.run.run_scenario", interrupted)
    monkeypatch.setattr("sim.commands.hunting.stderr_progress", lambda: InterruptedAfter(8))
    assert status_of("shrink", str(path), "--invariant", "completion-once", "--out", str(small)) == 2
    assert capsys.readouterr().err == "exchange-sim: interrupted\n"
    assert len(script_of(read_repro(small).scenario).operations) < len(script_of(written_out(BROKEN)).operations)


def test_shrinking_interrupted_before_anything_was_found_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, small = broken_repro(tmp_path)
    monkeypatch.setattr("sim.shrink.target.check_one", interrupted)
    assert status_of("shrink", str(path), "--out", str(small)) == 2
    assert capsys.readouterr().err == "exchange-sim: interrupted\n"
    assert not small.exists()


def test_a_sound_scenario_cannot_be_shrunk() -> None:
    with pytest.raises(ShrinkError, match="every invariant holds"):
        shrink(SMALL, "", 10, Progress(sys.stderr))
    with pytest.raises(ShrinkError, match="reads-own-user is not violated; violated: "):
        shrink(BROKEN, "reads-own-user", 10, Progress(sys.stderr))


def test_a_held_case_passes_and_names_what_was_not_exercised() -> None:
    assert hold_invariants(SMALL, exercised=["converges"]).holds
    with pytest.raises(AssertionError, match="not exercised: corrupt-input-stops"):
        hold_invariants(SMALL, exercised=["corrupt-input-stops"])


@pytest.mark.parametrize(
    ("strike", "complaint"),
    [
        (Strike("nonsense", 0, 0, "*", 0), "unknown fault 'nonsense'"),
        (Strike("crash", 0, 0, "matching-9", 0), "no 'matching-9'"),
        (Strike("slow-link", 0, 0, "gateway-1->kafka-8", 0), "no 'kafka-8'"),
        (Strike("crash", -1, 0, "matching-1", 0), "must not be negative"),
        # With no time between two crashes the run would never end.
        (Strike("crash-loop", 0, 1_000_000_000, "matching-1", 0), "strength must be 150 to 900, not 0"),
    ],
)
def test_a_script_that_cannot_be_carried_out_is_refused(strike: Strike, complaint: str) -> None:
    case = written_out(SMALL)
    broken = replace(case, script=msgspec.structs.replace(script_of(case), strikes=(strike,)))
    with pytest.raises(ScenarioError, match=complaint):
        digest(broken)


def status_of(*words: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["exchange-sim", *words])
        with pytest.raises(SystemExit) as ended:
            main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_where_the_small_repro_cannot_go_is_said_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "repro.json"
    Repro(BROKEN, "", {}).write(path)
    monkeypatch.setattr("sim.shrink.shrinker.shrink", None)
    for out in (tmp_path, tmp_path / "nowhere" / "small.json"):
        assert status_of("shrink", str(path), "--out", str(out)) == 2
        assert "not the place of a file" in capsys.readouterr().err
