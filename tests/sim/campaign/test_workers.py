"""Seeds in worker processes: a worker that dies loses nothing but its seed, which runs again."""

import os
import signal
import tempfile
import time
from pathlib import Path

import pytest

from sim.campaign.seeds import SeedResult, digest_of, run_seed
from sim.campaign.workers import ATTEMPTS_MAX, LocalWorkers
from sim.scenario import Scenario

SMALL = Scenario(orders=3, users=2, symbols=1, faults="none", duration_ns=1_000_000_000)


def scenarios(count: int, folder: Path | None = None) -> list[Scenario]:
    """Scenarios that only tell the seed, and in `flow` the folder where a worker leaves its marks."""
    return [Scenario(seed=seed, flow=str(folder)) for seed in range(count)]


def tell(scenario: Scenario) -> SeedResult:
    return SeedResult(seed=scenario.seed, digest=os.environ["PYTHONHASHSEED"], orders=os.getpid())


def die_once(scenario: Scenario) -> SeedResult:
    mark = Path(scenario.flow) / str(scenario.seed)
    if scenario.seed == 1 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return tell(scenario)


def die_always(scenario: Scenario) -> SeedResult:
    if scenario.seed == 1:
        os._exit(3)
    return tell(scenario)


def fail(scenario: Scenario) -> SeedResult:
    raise FileNotFoundError(f"source of seed {scenario.seed}")


def meet(scenario: Scenario) -> SeedResult:
    """Seeds but the first end only when two of them have begun."""
    folder = Path(scenario.flow)
    if scenario.seed:
        (folder / f"met-{scenario.seed}").touch()
        while len(list(folder.glob("met-*"))) < 2:
            time.sleep(0.1)
    return tell(scenario)


def hang(scenario: Scenario) -> SeedResult:
    while scenario.seed == 1:
        time.sleep(0.1)
    return tell(scenario)


def test_every_seed_is_run_once_in_processes_with_the_hash_seed_asked_for() -> None:
    before = os.environ.get("PYTHONHASHSEED")
    found = list(LocalWorkers(2, hash_seed="5").results(tell, scenarios(7)))
    assert sorted(each.seed for each in found) == list(range(7))
    assert {each.digest for each in found} == {"5"}
    assert os.getpid() not in {each.orders for each in found}
    assert os.environ.get("PYTHONHASHSEED") == before


def test_a_seed_whose_worker_dies_runs_again() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = list(LocalWorkers(2).results(die_once, scenarios(4, Path(folder))))
    assert sorted(each.seed for each in found) == [0, 1, 2, 3]
    assert all(each.passed for each in found)


def test_a_seed_that_kills_every_worker_fails_and_the_others_go_on() -> None:
    found = {each.seed: each for each in LocalWorkers(2).results(die_always, scenarios(4))}
    assert [seed for seed, each in sorted(found.items()) if each.passed] == [0, 2, 3]
    assert found[1].error_line == f"did not run: its worker died {ATTEMPTS_MAX} times, exit code 3"
    assert [seed for seed, each in found.items() if each.is_lost] == [1]


def test_a_seed_whose_worker_could_not_do_it_at_all_is_lost() -> None:
    [found] = LocalWorkers(1).results(fail, scenarios(1))
    assert (found.error_line, found.is_lost) == ("did not run: FileNotFoundError: source of seed 0", True)


def test_a_seed_that_hangs_fails_and_the_others_go_on() -> None:
    found = {each.seed: each for each in LocalWorkers(2, timeout_s=10).results(hang, scenarios(4))}
    assert [seed for seed, each in sorted(found.items()) if each.passed] == [0, 2, 3]
    assert found[1].error_line == "did not run: it did not end in 10 s"
    assert found[1].is_lost


def test_a_scenario_may_be_asked_for_twice() -> None:
    assert [each.seed for each in LocalWorkers(1).results(tell, [SMALL, SMALL])] == [0, 0]


def test_a_campaign_that_is_given_up_leaves_no_process_behind() -> None:
    results = LocalWorkers(2).results(tell, scenarios(50))
    pid = next(results).orders
    results.close()  # type: ignore[attr-defined]
    assert not Path(f"/proc/{pid}").exists()


def test_a_seed_is_judged_and_has_the_digest_of_a_run_for_the_digest_alone() -> None:
    judged = run_seed(SMALL)
    assert judged.passed
    assert judged.verdicts["converges"] == "holds"
    assert judged.orders == 3
    assert set(judged.goals.values()) != {0}
    assert digest_of(SMALL).digest == judged.digest


def test_a_scenario_that_cannot_be_run_is_a_failure_of_its_seed() -> None:
    result = run_seed(Scenario(seed=4, flow="no such file"))
    assert not result.passed
    assert result.seed == 4
    assert "No such file" in result.error_line
    assert not result.is_lost
    assert result.error_line == digest_of(Scenario(seed=4, flow="no such file")).error_line


def test_want_of_memory_says_nothing_about_a_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("sim.run.run_scenario", run_out)
    assert run_seed(SMALL).is_lost
