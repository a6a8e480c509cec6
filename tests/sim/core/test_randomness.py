"""Draws depend on the seed and the stream's name alone, and have the distributions that they claim."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.randomness import POWER_LAW_SPAN_MAX, Randomness, Stream


def draws(stream: Stream, n: int = 20) -> list[int]:
    return [stream.below(1_000_000) for _ in range(n)]


def test_same_seed_and_name_give_the_same_draws() -> None:
    assert draws(Randomness(7).stream("disk")) == draws(Randomness(7).stream("disk"))


def test_seeds_and_names_give_different_draws() -> None:
    assert draws(Randomness(7).stream("disk")) != draws(Randomness(8).stream("disk"))
    assert draws(Randomness(7).stream("disk")) != draws(Randomness(7).stream("network"))


def test_one_stream_does_not_disturb_another() -> None:
    randomness = Randomness(7)
    draws(randomness.stream("new consumer"))
    assert draws(randomness.stream("disk")) == draws(Randomness(7).stream("disk"))


def test_asking_again_goes_on_where_the_stream_is() -> None:
    randomness = Randomness(7)
    assert draws(randomness.stream("disk")) + draws(randomness.stream("disk")) == draws(
        Randomness(7).stream("disk"), 40
    )


def test_draws_are_the_same_on_every_machine() -> None:
    # Written down once; a difference means that a stored seed no longer replays.
    stream = Stream(1, "golden")
    assert [stream.below(1000) for _ in range(5)] == GOLDEN_BELOW
    assert [stream.exponential(1_000_000) for _ in range(5)] == GOLDEN_EXPONENTIAL
    assert [stream.power_law(1, 1000, 3, 2) for _ in range(5)] == GOLDEN_POWER_LAW


GOLDEN_BELOW = [566, 210, 237, 114, 736]
GOLDEN_EXPONENTIAL = [93415, 225256, 755069, 515312, 2355435]
GOLDEN_POWER_LAW = [104, 37, 2, 1, 4]


@given(st.integers(0, 2**32), st.integers(1, 10**12))
def test_below_and_between_stay_within_bounds(seed: int, n: int) -> None:
    stream = Stream(seed, "bounds")
    assert 0 <= stream.below(n) < n
    assert n <= stream.between(n, n + 3) <= n + 3
    assert stream.exponential(n) >= 0
    assert len(stream.token(n % 40)) == n % 40


@given(st.integers(0, 2**32), st.lists(st.integers(), max_size=30))
def test_shuffled_keeps_the_items(seed: int, items: list[int]) -> None:
    before = list(items)
    assert sorted(Stream(seed, "shuffle").shuffled(items)) == sorted(items)
    assert items == before


def test_certain_chances_draw_nothing() -> None:
    stream, untouched = Stream(3, "chance"), Stream(3, "chance")
    assert not stream.chance_ppm(0)
    assert stream.chance_ppm(1_000_000)
    assert draws(stream) == draws(untouched)


def test_chance_is_in_parts_per_million() -> None:
    stream = Stream(3, "chance")
    hits = sum(stream.chance_ppm(250_000) for _ in range(20_000))
    assert abs(hits - 5_000) < 300


def test_weights_are_respected() -> None:
    stream = Stream(3, "weights")
    drawn = [stream.weighted("abc", (1, 0, 3)) for _ in range(8_000)]
    assert "b" not in drawn
    assert abs(drawn.count("c") - 6_000) < 250


def test_exponential_has_mean_deviation_and_tail() -> None:
    stream = Stream(3, "exponential")
    mean = 1_000_000
    drawn = [stream.exponential(mean) for _ in range(50_000)]
    average = sum(drawn) / len(drawn)
    deviation = math.sqrt(sum((x - average) ** 2 for x in drawn) / len(drawn))
    assert abs(average / mean - 1) < 0.02
    assert abs(deviation / mean - 1) < 0.03
    beyond = sum(x > 6 * mean for x in drawn)  # in the tail that the table does not cover
    assert abs(beyond - len(drawn) * math.exp(-6)) < 45


def test_power_law_has_its_exponent() -> None:
    stream = Stream(3, "power law")
    drawn = [stream.power_law(1, 1000, 2) for _ in range(40_000)]
    assert min(drawn) == 1
    assert max(drawn) <= 1000
    assert abs(drawn.count(1) / drawn.count(2) - 4) < 0.25


@pytest.mark.parametrize(
    "draw",
    [
        lambda s: s.below(0),
        lambda s: s.choice([]),
        lambda s: s.weighted("ab", (1,)),
        lambda s: s.weighted("ab", (0, 0)),
        lambda s: s.weighted("ab", (2, -1)),
        lambda s: s.power_law(0, 5, 2),
        lambda s: s.power_law(1, POWER_LAW_SPAN_MAX + 2, 2),
    ],
)
def test_impossible_draws_are_refused(draw: object) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        draw(Stream(1, "refused"))  # type: ignore[operator]
