"""A campaign counts what its seeds came to, goes on where it was killed, and says why it is not green."""

import asyncio
import json
import multiprocessing
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import pandas as pd
import pytest

from sim.campaign.campaign import STANDARD_SEEDS_MIN, Plan, run_campaign, verdict
from sim.campaign.report import print_json, print_summary
from sim.campaign.results import CampaignError, ResultStore
from sim.campaign.seeds import SeedResult, digest_of, keep_trace, run_seed
from sim.campaign.tally import Tally
from sim.campaign.workers import Work
from sim.commandline import main
from sim.defects import GALLERY
from sim.progress import SILENT, Progress
from sim.repro import read_repro
from sim.run import run_scenario
from sim.scenario import Scenario
from traces.invariants import ORDER
from traces.manifest import source_digest
from traces.reachability import GOALS

OURS = source_digest()

GREEN = SeedResult(
    seed=0,
    digest="d",
    wall_seconds=0.5,
    orders=10,
    verdicts=dict.fromkeys(ORDER, "holds"),
    goals=dict.fromkeys(GOALS, 2),
    faults={"pause": 1},
    code=OURS,
)


SMALL = Scenario(orders=2, users=2, symbols=1, faults="none", duration_ns=1_000_000_000)


def broken(seed: int) -> SeedResult:
    """What a small seed comes to, but for a violation."""
    digest = run_seed(replace(SMALL, seed=seed)).digest
    verdicts = {**GREEN.verdicts, "no-lost-ack": "violated"}
    said = {"no-lost-ack": "request 7 is lost"}
    return replace(GREEN, seed=seed, digest=digest, verdicts=verdicts, first_violations=said)


class Told:
    """Workers that run nothing and say what they were told to say; they stop after so many seeds."""

    def __init__(self, results: dict[int, SeedResult] | None = None, dies_after: int | None = None) -> None:
        self._results = results or {}
        self._dies_after = dies_after
        self.seeds: list[int] = []

    def results(self, work: Work, scenarios: Iterable[Scenario]) -> Iterator[SeedResult]:
        for scenario in scenarios:
            if len(self.seeds) == self._dies_after:
                raise KeyboardInterrupt
            self.seeds.append(scenario.seed)
            yield replace(self._results.get(scenario.seed, GREEN), seed=scenario.seed)


def carried_out(plan: Plan, workers: Told, folder: Path) -> Tally:
    return run_campaign(plan, workers, ResultStore(folder, plan.scenario), 1, Progress(sys.stderr))


def test_a_green_campaign(tmp_path: Path) -> None:
    plan = Plan(Scenario(), 0, STANDARD_SEEDS_MIN)
    tally = carried_out(plan, Told(), tmp_path)
    assert (tally.seeds, tally.passed, tally.orders) == (
        STANDARD_SEEDS_MIN,
        STANDARD_SEEDS_MIN,
        STANDARD_SEEDS_MIN * 10,
    )
    assert list(verdict(plan, tally)) == []
    stored = pd.read_parquet(tmp_path / "results")
    assert sorted(stored["seed"]) == list(range(STANDARD_SEEDS_MIN))
    assert set(stored["invariant:converges"]) == {"holds"}
    assert set(stored["goal:zombie-fenced"]) == {2}


VACUOUS = Told({seed: replace(GREEN, goals={**GREEN.goals, "zombie-fenced": 0}) for seed in range(2_000)})


@pytest.mark.parametrize("scenario", [Scenario(), Scenario(orders=20)])
def test_a_goal_that_no_seed_reached_fails_the_standard_campaign(scenario: Scenario, tmp_path: Path) -> None:
    plan = Plan(scenario, 0, STANDARD_SEEDS_MIN)
    assert list(verdict(plan, carried_out(plan, VACUOUS, tmp_path))) == ["goals never reached: zombie-fenced"]


@pytest.mark.parametrize(
    "plan",
    [
        Plan(Scenario(), 0, 10),
        Plan(Scenario(users=1), 0, STANDARD_SEEDS_MIN),
        Plan(Scenario(), 0, STANDARD_SEEDS_MIN, judged=("converges",)),
    ],
    ids=["few seeds", "another scenario", "some invariants"],
)
def test_no_other_campaign_is_held_to_the_goals(plan: Plan, tmp_path: Path) -> None:
    assert list(verdict(plan, carried_out(plan, VACUOUS, tmp_path))) == []


def test_an_invariant_that_no_seed_exercised_fails_a_swarm(tmp_path: Path) -> None:
    idle = replace(GREEN, verdicts={**GREEN.verdicts, "reads-complete": "not exercised"})
    plan = Plan(Scenario(), 0, 3)
    tally = carried_out(plan, Told(dict.fromkeys(range(3), idle)), tmp_path)
    assert list(verdict(plan, tally)) == ["never exercised: reads-complete"]


def test_only_the_invariants_asked_for_count_and_they_must_be_exercised(tmp_path: Path) -> None:
    verdicts = {**GREEN.verdicts, "converges": "violated", "corrupt-input-stops": "not exercised"}
    results = dict.fromkeys(range(3), replace(GREEN, verdicts=verdicts))
    plan = Plan(Scenario(faults="corrupt-record"), 0, 3, judged=("corrupt-input-stops",))
    tally = carried_out(plan, Told(results), tmp_path)
    assert (tally.passed, tally.failures) == (3, [])
    assert list(verdict(plan, tally)) == ["never exercised: corrupt-input-stops"]


def test_a_killed_campaign_goes_on_where_it_was(tmp_path: Path) -> None:
    plan = Plan(Scenario(), 5, 25)
    with pytest.raises(KeyboardInterrupt):
        carried_out(plan, Told(dies_after=7), tmp_path)
    rest = Told()
    tally = carried_out(plan, rest, tmp_path)
    assert rest.seeds == list(range(12, 25))
    assert (tally.seeds, tally.passed, tally.ran) == (20, 20, 13)
    assert tally.goal_times["zombie-fenced"] == 40
    assert carried_out(plan, Told(dies_after=0), tmp_path).seeds == 20


def test_a_stored_result_comes_back_as_it_was(tmp_path: Path) -> None:
    verdicts = {**GREEN.verdicts, "no-phantom-row": "violated", "converges": "violated"}
    said = {"no-phantom-row": "row of nobody: order_id=7", "converges": "it hung"}
    failed = replace(GREEN, seed=3, verdicts=verdicts, first_violations=said)
    raised = SeedResult(seed=9, error="Boom\nValueError: x", code=OURS)
    with ResultStore(tmp_path, Scenario()) as store:
        for each in (GREEN, failed, raised):
            store.add(each)
        store.flush()
    # The code is said once, in campaign.json.
    assert list(ResultStore(tmp_path, Scenario(seed=8)).stored()) == [
        replace(each, code="") for each in (GREEN, failed, raised)
    ]


def test_a_folder_of_another_campaign_is_refused(tmp_path: Path) -> None:
    ResultStore(tmp_path, Scenario())
    with pytest.raises(CampaignError, match="another scenario"):
        ResultStore(tmp_path, Scenario(orders=7))


def test_a_folder_of_other_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ResultStore(tmp_path, Scenario())
    monkeypatch.setattr("traces.manifest.source_digest", lambda: "0")
    with pytest.raises(CampaignError, match="other code"):
        ResultStore(tmp_path, Scenario())


def test_failures_are_grouped_by_what_broke(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    crashed = SeedResult(seed=0, error="Traceback\nValueError: no such thing", code=OURS)
    plan = Plan(SMALL, 0, 6)
    tally = carried_out(plan, Told({1: broken(1), 4: broken(4), 2: crashed}), tmp_path)
    assert {name: [each.seed for each in group] for name, group in tally.groups().items()} == {
        "no-lost-ack": [1, 4],
        "did not run: ValueError: no such thing": [2],
    }
    assert list(verdict(plan, tally)) == ["3 of 6 seeds failed"]
    repro = tmp_path / "failures" / "seed-1.json"
    assert (tmp_path / "failures" / "seed-4" / "manifest.json").is_file()
    raised = tmp_path / "failures" / "seed-2.json"
    assert read_repro(raised).digest == ""
    print_summary(plan, tally, tmp_path)
    printed = capsys.readouterr().out
    assert f"exchange-sim replay {repro}" in printed
    assert f"exchange-sim replay {raised}" in printed
    assert "request 7 is lost" in printed
    print_json(plan, tally, tmp_path)
    told = json.loads(capsys.readouterr().out)
    assert [(each["seed"], each["invariants"]) for each in told["failed"]] == [
        (1, ["no-lost-ack"]),
        (2, []),
        (4, ["no-lost-ack"]),
    ]
    assert told["reachability"]["zombie-fenced"] == 10
    assert told["green"] is False


def test_a_failure_shows_the_first_violation_of_the_first_invariant_that_counts() -> None:
    defect = GALLERY["maker-completion-missing"]
    scenario = Scenario(seed=4, orders=60, users=4, duration_ns=3_000_000_000, defect=defect.name, faults=defect.faults)
    result = run_seed(scenario)
    verdicts = run_scenario(scenario, None, SILENT).verdicts
    assert tuple(result.first_violations) == result.violated
    for name, said in result.first_violations.items():
        assert said.startswith(f"{verdicts[name].violations['what'].iloc[0]}: ")
    assert result.violated[0] != "completion-once"
    for judged, shown in [((), result.violated[0]), (("completion-once",), "completion-once")]:
        failure = Tally(judged).add(result)
        assert failure is not None
        assert failure.first_violation == result.first_violations[shown]


def test_evidence_is_there_before_the_campaign_ends(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        carried_out(Plan(SMALL, 0, 6), Told({1: broken(1)}, dies_after=2), tmp_path)
    assert read_repro(tmp_path / "failures" / "seed-1.json").scenario == replace(SMALL, seed=1)
    assert (tmp_path / "failures" / "seed-1" / "manifest.json").is_file()


def test_a_failing_seed_that_gives_another_digest_for_its_trace_is_not_stable(tmp_path: Path) -> None:
    plan = Plan(SMALL, 0, 2)
    tally = carried_out(plan, Told({1: replace(broken(1), digest="another")}), tmp_path)
    assert "1 seed had another digest when they ran again: 1" in list(verdict(plan, tally))


def test_a_trace_that_cannot_be_kept_leaves_the_rest_of_the_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = Plan(replace(SMALL, flow="no such file"), 0, 2)
    tally = carried_out(plan, Told({1: broken(1)}), tmp_path)
    assert (tally.seeds, tally.failures[0].trace) == (2, None)
    [failed, why] = verdict(plan, tally)
    assert failed == "1 of 2 seeds failed"
    assert why.startswith("1 seed could not be run again: seed 1 did not run: ")
    print_summary(plan, tally, tmp_path)
    assert why in capsys.readouterr().out


LOST = SeedResult(seed=0, error="its worker died 3 times, exit code -9", is_lost=True)


def test_a_lost_seed_fails_with_a_repro_that_replays_and_runs_again_on_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = Plan(SMALL, 0, 4)
    tally = carried_out(plan, Told({1: LOST}), tmp_path)
    assert list(verdict(plan, tally)) == ["1 of 4 seeds failed"]
    repro = tmp_path / "failures" / "seed-1.json"
    print_summary(plan, tally, tmp_path)
    assert f"exchange-sim replay {repro}" in capsys.readouterr().out
    assert status_of("replay", str(repro)) == 0

    resumed = Told({1: LOST})
    assert carried_out(plan, resumed, tmp_path).passed == 3
    assert resumed.seeds == [1]
    resumed = Told()
    assert carried_out(plan, resumed, tmp_path).passed == 4
    assert resumed.seeds == [1]
    assert not repro.exists()
    assert sorted(pd.read_parquet(tmp_path / "results")["seed"]) == [0, 1, 2, 3]


def test_a_seed_that_raised_is_not_run_again_on_resume(tmp_path: Path) -> None:
    plan = Plan(SMALL, 0, 3)
    carried_out(plan, Told({1: SeedResult(seed=1, error="ValueError: no such thing", code=OURS)}), tmp_path)
    resumed = Told()
    tally = carried_out(plan, resumed, tmp_path)
    assert (resumed.seeds, [each.what_broke for each in tally.failures]) == (
        [],
        ["did not run: ValueError: no such thing"],
    )
    assert tally.failures[0].repro == tmp_path / "failures" / "seed-1.json"


def test_a_second_run_that_fails_is_no_other_digest(tmp_path: Path) -> None:
    plan = Plan(Scenario(flow="no such file", faults="none"), 0, 2, run_again=2)
    [why] = verdict(plan, carried_out(plan, Told(), tmp_path))
    assert why.startswith("2 seeds could not be run again: seed 0 did not run: ")


def test_a_seed_without_a_digest_is_not_run_again_for_it(tmp_path: Path) -> None:
    plan = Plan(SMALL, 0, 1, run_again=1)
    tally = carried_out(plan, Told({0: LOST}), tmp_path)
    assert list(verdict(plan, tally)) == ["1 of 1 seeds failed"]


def test_two_processes_cannot_run_one_campaign(tmp_path: Path) -> None:
    ours, theirs = multiprocessing.Pipe()
    other = multiprocessing.get_context("spawn").Process(target=hold, args=[tmp_path, theirs])
    other.start()
    try:
        assert ours.poll(60)
        assert ours.recv() == "in"
        with pytest.raises(CampaignError, match="another campaign is running in it"):
            carried_out(Plan(Scenario(), 0, 1), Told(), tmp_path)
    finally:
        other.kill()
        other.join()
        ours.close()
        theirs.close()
    assert carried_out(Plan(Scenario(), 0, 1), Told(), tmp_path).seeds == 1


def hold(folder: Path, tell: "Connection[str, str]") -> None:
    """Stay in a campaign's folder until killed."""
    with ResultStore(folder, Scenario()):
        tell.send("in")
        tell.recv()


def test_the_sample_that_runs_again_is_spread_over_the_seeds() -> None:
    assert Plan(Scenario(), 100, 200, run_again=4).sample == [100, 125, 150, 175]
    assert Plan(Scenario(), 0, 3, run_again=9).sample == [0, 1, 2]
    assert Plan(Scenario(), 0, 3).sample == []


def test_a_campaign_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--seeds", "3:5", "--orders", "4", "--faults", "none"]
    assert status_of("campaign", *few, "--jobs", "2", "--again", "2", "--json", "--out", str(tmp_path)) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["seeds"], told["passed"], told["failed"], told["run_again"], told["unstable"]) == (2, 2, [], 2, [])
    assert told["orders_per_second"] > 0


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--seeds 5", "--seeds wants A:B"),
        ("--seeds 5:5", "--seeds wants A:B"),
        ("--seeds a:b", "--seeds wants A:B"),
        (f"--seeds 0:{2**63}", f"B less than {2**63}"),
        (f"--seeds 0:{'9' * 5_000}", "--seeds wants A:B"),
        ("--seeds 0:2 --faults nonsense", "unknown fault 'nonsense'"),
        ("--seeds 0:2 --defect nonsense", "nonsense"),
        ("--seeds 0:2 --jobs 0", "jobs"),
        ("--seeds 0:2 --judge nonsense", "unknown invariant 'nonsense'"),
        ("--seeds 0:2 --orders -1", "orders must be"),
        ("--seeds 0:2 --scheduler 127.0.0.1:1", "Dask"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(
    words: str, complaint: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert status_of("campaign", *words.split(), "--out", str(tmp_path / "out")) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert complaint in captured.err
    assert len(captured.err.splitlines()) == 1


def status_of(*words: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["exchange-sim", *words])
        with pytest.raises(SystemExit) as ended:
            main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize("raised", [SystemExit(0), asyncio.CancelledError(), ValueError("boom")])
def test_whatever_a_run_raises_is_a_failure_of_its_seed(monkeypatch: pytest.MonkeyPatch, raised: BaseException) -> None:
    def run(*_: object) -> None:
        raise raised

    monkeypatch.setattr("sim.run.run_scenario", run)
    assert type(raised).__name__ in run_seed(SMALL).error_line


@pytest.mark.parametrize(
    "other",
    [
        replace(GREEN, code="of another day"),
        SeedResult(seed=1, error="ValueError: half an edit", code="of another day"),
        SeedResult(seed=1, error="ValueError: of nobody knows which code"),
    ],
)
def test_a_result_of_other_code_is_not_kept(tmp_path: Path, other: SeedResult) -> None:
    with pytest.raises(CampaignError, match="seed 1 was run by other code"):
        carried_out(Plan(Scenario(), 0, 3), Told({1: other}), tmp_path)
    assert [each.seed for each in ResultStore(tmp_path, Scenario()).stored()] == [0]


@pytest.mark.parametrize("scenario", [SMALL, replace(SMALL, flow="no such file")], ids=["ran", "raised"])
def test_every_result_says_of_which_code_it_is(tmp_path: Path, scenario: Scenario) -> None:
    for work in (run_seed, digest_of, partial(keep_trace, tmp_path / "trace", OURS)):
        result = work(scenario)
        assert (bool(result.error), result.code) == (scenario.flow == "no such file", OURS)


def test_code_that_cannot_be_imported_is_told_apart_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sim.run", None)
    for work in (run_seed, digest_of, partial(keep_trace, Path("nowhere"), OURS)):
        result = work(SMALL)
        assert (result.code, result.is_lost) == (OURS, False)
        assert "import of sim.run halted" in result.error_line


def test_work_whose_source_cannot_be_read_is_not_done(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable() -> str:
        raise FileNotFoundError("run.py")

    monkeypatch.setattr("traces.manifest.source_digest", unreadable)
    with pytest.raises(FileNotFoundError):
        run_seed(SMALL)


def test_a_trace_of_other_code_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.campaign.campaign.source_digest", lambda: "before the edit")
    workers = Told({0: replace(broken(0), code="before the edit")})
    with pytest.raises(CampaignError, match="seed 0 was run by other code"):
        carried_out(Plan(SMALL, 0, 1), workers, tmp_path)
    assert [each.name for each in (tmp_path / "failures").iterdir()] == ["seed-0.json"]
    assert [each.seed for each in ResultStore(tmp_path, SMALL).stored()] == [0]


def test_a_second_run_by_other_code_says_nothing_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.campaign.campaign.source_digest", lambda: "before the edit")
    plan = Plan(replace(SMALL, flow="no such file"), 0, 1, run_again=1)
    with pytest.raises(CampaignError, match="seed 0 was run by other code"):
        carried_out(plan, Told({0: replace(GREEN, code="before the edit")}), tmp_path)


class Here:
    """Workers that do the work in this process."""

    def results(self, work: Work, scenarios: Iterable[Scenario]) -> Iterator[SeedResult]:
        yield from map(work, scenarios)


LONG = replace(SMALL, orders=5_001)


def test_what_a_long_run_writes_is_in_the_campaigns_folder_and_gone_when_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces: list[Path] = []

    def run(_: Scenario, trace: Path, __: Progress) -> None:
        traces.append(trace)
        (trace.parent / "events.parquet").touch()
        # What a killed worker leaves, now and before.
        trace.parent.with_name("of-a-killed-worker").mkdir(exist_ok=True)
        raise ValueError

    monkeypatch.setattr("sim.run.run_scenario", run)
    monkeypatch.chdir(tmp_path)
    run_campaign(Plan(LONG, 0, 2), Here(), ResultStore(Path("out"), LONG), 1, SILENT)
    assert [trace.parents[1] for trace in traces] == [tmp_path / "out" / "campaign.work"] * 2
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == [
        "campaign.json",
        "campaign.lock",
        "failures",
        "results",
    ]


def test_a_worker_that_does_not_share_the_campaigns_folder_has_one_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces: list[Path] = []

    def run(_: Scenario, trace: Path, __: Progress) -> None:
        traces.append(trace)
        raise ValueError

    monkeypatch.setattr("sim.run.run_scenario", run)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert "ValueError" in run_seed(LONG, tmp_path / "on another machine").error_line
    assert traces[0].parents[1] == tmp_path


def test_what_killed_workers_left_is_gone_when_the_campaign_goes_on(tmp_path: Path) -> None:
    store = ResultStore(tmp_path, SMALL)
    for left in ("campaign.work/tmp1/trace", "failures/.seed-3.77.partial"):
        (tmp_path / left).mkdir(parents=True)
        (tmp_path / left / "cql.parquet").touch()
    (tmp_path / "failures" / "seed-3").mkdir()
    with store:
        assert list(store.work_folder.iterdir()) == []
        assert [each.name for each in (tmp_path / "failures").iterdir()] == ["seed-3"]


@pytest.mark.parametrize("damaged", [b"{", b'{"scenario": "\xff"}', b"[" * 100_000], ids=["cut", "bytes", "deep"])
def test_a_campaign_whose_manifest_is_damaged_is_refused(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "campaign.json").write_bytes(damaged)
    with pytest.raises(CampaignError, match=r"campaign\.json: "):
        ResultStore(tmp_path, Scenario())


def test_results_without_a_word_of_what_they_are_belong_to_no_campaign(tmp_path: Path) -> None:
    carried_out(Plan(Scenario(), 0, 1), Told(), tmp_path)
    (tmp_path / "campaign.json").unlink()
    with pytest.raises(CampaignError, match=r"no campaign\.json"):
        ResultStore(tmp_path, Scenario())


HEED_INTERRUPTS = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""Runs Python as its arguments say. What a shell runs in the background ignores interrupts, and so do its children."""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_campaign_that_is_interrupted_says_so_and_keeps_what_has_ended(tmp_path: Path, sent: signal.Signals) -> None:
    options = "--seeds 0:100000 --jobs 1 --orders 2 --users 2 --duration 1 --faults none --defect order-events-ignored"
    campaign = ["-m", "sim", "campaign", *shlex.split(options), "--out", str(tmp_path / "campaign")]
    command = [sys.executable, "-c", HEED_INTERRUPTS, *campaign]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            # The first failure keeps its repro at once: then there is something to keep.
            while not list(tmp_path.glob("campaign/failures/*.json")):
                assert process.poll() is None
                time.sleep(0.1)
            process.send_signal(sent)
            told, complained = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, told) == (2, "")
    # A worker that was just being started may have its own last words.
    assert "exchange-sim: interrupted" in complained.splitlines()
    assert list(tmp_path.glob("campaign/results/part-*.parquet"))
