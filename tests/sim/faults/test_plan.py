"""Drawing which faults strike when."""

from dataclasses import replace

import pytest

from sim.faults.catalogue import BEGIN, OPTIONS
from sim.faults.options import Layout
from sim.faults.plan import draw_plan
from sim.randomness import Randomness
from sim.scenario import SECOND_NS, ScenarioError
from sim.script import Strike

LAYOUT = Layout(
    services={
        "gateway": ("gateway-1", "gateway-2"),
        "ubscore": ("ubscore-1", "ubscore-2"),
        "matching": ("matching-1", "matching-2"),
        "settlement": ("settlement-1", "settlement-2"),
    },
    brokers=("kafka-1", "kafka-2", "kafka-3"),
    replicas=("cassandra-1", "cassandra-2", "cassandra-3"),
    groups=("ubscore", "matching", "settlement"),
)
WORK_NS = 20 * SECOND_NS


def plan(faults: str, seed: int = 1) -> tuple[Strike, ...]:
    return draw_plan(faults, OPTIONS, LAYOUT, WORK_NS, Randomness(seed))


def test_a_seed_draws_the_same_plan_again() -> None:
    assert plan("swarm") == plan("swarm")


def test_seeds_draw_different_mixes() -> None:
    mixes = {frozenset(strike.fault for strike in plan("swarm", seed)) for seed in range(30)}
    assert len(mixes) > 20


def test_some_seeds_are_calm() -> None:
    assert any(not plan("swarm", seed) for seed in range(100))


def test_every_fault_of_the_swarm_is_drawn_sooner_or_later() -> None:
    drawn = {strike.fault for seed in range(60) for strike in plan("swarm", seed)}
    assert drawn == {name for name, option in OPTIONS.items() if not option.breaks_assumption}


def test_what_breaks_an_assumption_is_never_in_a_swarm_and_can_be_asked_for() -> None:
    breaking = [name for name, option in OPTIONS.items() if option.breaks_assumption]
    assert breaking
    for name in breaking:
        assert plan(name)


def test_strikes_of_one_fault_do_not_depend_on_the_others() -> None:
    alone = plan("pause")
    together = [strike for strike in plan("crash,pause,slow-link") if strike.fault == "pause"]
    assert tuple(together) == alone


def test_no_faults() -> None:
    assert plan("none") == ()


@pytest.mark.parametrize("name", list(OPTIONS))
def test_strikes_stay_within_their_options(name: str) -> None:
    option = OPTIONS[name]
    for seed in range(5):
        for strike in plan(name, seed):
            assert 0 <= strike.at_ns < WORK_NS
            duration_ms, strength = option.spans(strike.moment)
            assert duration_ms.low <= strike.duration_ns // 1_000_000 <= duration_ms.high
            assert strength.low <= strike.strength <= strength.high


def test_every_fault_says_what_it_is_and_what_it_hits() -> None:
    assert list(BEGIN) == list(OPTIONS)
    for option in OPTIONS.values():
        assert option.meaning
        assert option.hits
        assert bool(option.strength_meaning) == (option.strength.high != option.strength.low)


@pytest.mark.parametrize("names", ["gremlins", "crash,gremlins", "crash,crash", "", "crash,"])
def test_names_that_there_are_not(names: str) -> None:
    with pytest.raises(ScenarioError):
        plan(names)


def test_a_description_tells_a_stranger_everything() -> None:
    (strike, *_) = plan("slow-link")
    text = replace(strike, at_ns=1_500_000_000, duration_ns=250_000_000, target="a->b", strength=9).describe()
    assert text == "slow-link on a->b at 1.500 s for 0.250 s, strength 9"
