"""How a case is tested: with as many seeds as its luck asks for, and no more runs than there may be."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from sim.run import written_out
from sim.scenario import SEEDS, Scenario, ScenarioError
from sim.shrink.fewer import script_of, with_script
from sim.shrink.target import OPERATIONS_RUN_MAX, SOUNDED, TRIES, Target


@pytest.fixture(scope="module")
def case() -> Scenario:
    small = written_out(Scenario(seed=100, orders=5, users=2, symbols=1))
    return with_script(small, operations=script_of(small).operations[:20])


def less(case: Scenario) -> Scenario:
    """Another case, without its last operation."""
    return with_script(case, operations=script_of(case).operations[:-1])


class Seeds(Target):
    """A target that a case breaks by its seed alone; counts the runs, and makes none."""

    def __init__(self, breaks: Callable[[int], bool], runs_max: int = 1_000) -> None:
        super().__init__("converges", runs_max)
        self.breaks = breaks

    def _run(self, case: Scenario) -> bool:
        return self.breaks(case.seed)


def test_case_that_every_seed_breaks_is_tried_with_its_own(case: Scenario) -> None:
    target = Seeds(lambda seed: True)
    target.sound(case)
    assert target.failing(case) == case
    assert target.runs == SOUNDED + 1
    target.breaks = lambda seed: False
    assert target.failing(less(case)) is None
    assert target.runs == SOUNDED + 2


def test_case_that_needs_luck_is_tried_with_other_seeds_and_given_back_with_the_lucky_one(case: Scenario) -> None:
    target = Seeds(lambda seed: seed == 107)
    target.sound(case)
    found = target.failing(case)
    assert found == replace(case, seed=107)
    target.breaks = lambda seed: False
    target.runs = 0
    assert target.failing(less(case)) is None
    assert target.runs == TRIES[0]


def test_large_case_is_tried_with_few_seeds(case: Scenario) -> None:
    target = Seeds(lambda seed: False)
    target.sound(case)
    target.runs = 0
    operations = script_of(case).operations
    large = with_script(case, operations=operations * (OPERATIONS_RUN_MAX // 2 // len(operations)))
    assert target.failing(large) is None
    assert target.runs == 2


def test_no_case_is_run_twice(case: Scenario) -> None:
    target = Seeds(lambda seed: False)
    assert target.failing(case) is None
    target.breaks = lambda seed: True
    assert target.failing(case) is None
    assert target.runs == 1


def test_nothing_is_run_any_more_once_the_runs_are_used_up(case: Scenario) -> None:
    target = Seeds(lambda seed: seed == 107, runs_max=SOUNDED + 3)
    target.sound(case)
    assert target.failing(case) is None
    assert target.is_exhausted
    assert target.runs == SOUNDED + 3


def test_after_the_last_seed_comes_the_first(case: Scenario) -> None:
    target = Seeds(lambda seed: seed == 1)
    last = replace(case, seed=SEEDS - 1)
    target.sound(last)
    assert target.failing(last) == replace(case, seed=1)


def test_case_that_cannot_be_run_breaks_nothing(case: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target("converges", 10)
    for error in (ScenarioError("no such host"), RuntimeError("a bug of its own"), SystemExit(0)):
        monkeypatch.setattr("sim.shrink.target.simulate", raising(error))
        assert target.failing(replace(case, seed=case.seed + target.runs)) is None
    monkeypatch.setattr("sim.shrink.target.simulate", raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        target.failing(less(case))


def raising(error: BaseException) -> Callable[..., None]:
    def run(*_: object) -> None:
        raise error

    return run
