"""A campaign counts what its seeds came to, goes on where it was killed, and says why it is not green."""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from sim.campaign.campaign import STANDARD_SEEDS_MIN, Plan, run_campaign, verdict
from sim.campaign.report import print_json, print_summary
from sim.campaign.results import CampaignError, ResultStore
from sim.campaign.seeds import SeedResult
from sim.campaign.tally import Tally
from sim.campaign.workers import Work
from sim.commandline import main
from sim.progress import Progress
from sim.scenario import Scenario
from traces.invariants import ORDER
from traces.reachability import GOALS

GREEN = SeedResult(
    seed=0,
    digest="d",
    wall_seconds=0.5,
    orders=10,
    verdicts=dict.fromkeys(ORDER, "holds"),
    goals=dict.fromkeys(GOALS, 2),
    faults={"pause": 1},
)


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
    failed = replace(GREEN, seed=3, verdicts={**GREEN.verdicts, "converges": "violated"}, first_violation="it hung")
    store = ResultStore(tmp_path, Scenario())
    for each in (GREEN, failed, SeedResult(seed=9, error="Boom\nValueError: x")):
        store.add(each)
    store.flush()
    assert list(ResultStore(tmp_path, Scenario(seed=8)).stored()) == [
        GREEN,
        failed,
        SeedResult(seed=9, error="Boom\nValueError: x"),
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
    scenario = Scenario(orders=2, users=2, symbols=1, faults="none", duration_ns=1_000_000_000)
    lost = replace(GREEN, verdicts={**GREEN.verdicts, "no-lost-ack": "violated"}, first_violation="request 7 is lost")
    crashed = SeedResult(seed=0, error="Traceback\nValueError: no such thing")
    plan = Plan(scenario, 0, 6)
    tally = carried_out(plan, Told({1: lost, 4: lost, 2: crashed}), tmp_path)
    assert {name: [each.seed for each in group] for name, group in tally.groups().items()} == {
        "no-lost-ack": [1, 4],
        "did not run: ValueError: no such thing": [2],
    }
    assert list(verdict(plan, tally)) == ["3 of 6 seeds failed"]
    repro = tmp_path / "failures" / "seed-1.json"
    assert (tmp_path / "failures" / "seed-4" / "manifest.json").is_file()
    print_summary(plan, tally, tmp_path)
    printed = capsys.readouterr().out
    assert f"exchange-sim replay {repro}" in printed
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
