"""The hunt for defects: the first seed that catches one counts, in whatever order the seeds end."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from sim.campaign.workers import WorkersError
from sim.defects import power
from sim.defects.power import Catch, Look, hunt_all, look
from sim.scenario import SECOND_NS, Scenario

MISSING = "cancel-completion-missing"
"""Caught by cancel-honoured or completion-once."""
IGNORED = "order-events-ignored"
"""Caught by placement-accounted."""


class Told:
    """Workers that run nothing: each seed of a defect violates what they are told, and they end in twos, the later
    one first."""

    def __init__(self, violated: dict[tuple[str, int], tuple[str, ...]]) -> None:
        self.violated = violated
        self.asked: list[tuple[str, int]] = []

    def __call__(self, _jobs: int) -> "Told":
        return self

    def outcomes(self, _work: object, scenarios: Iterable[Scenario], lost: Callable[..., Look]) -> Iterator[Look]:
        waiting: list[Scenario] = []
        for each in scenarios:
            self.asked.append((each.defect, each.seed))
            waiting.append(each)
            if len(waiting) == 2:
                yield from map(self.look, (waiting.pop(), waiting.pop()))
        yield from map(self.look, waiting)

    def look(self, scenario: Scenario) -> Look:
        place = scenario.defect, scenario.seed
        return Look(*place, self.violated.get(place, ()))


def hunt(told: Told, monkeypatch: pytest.MonkeyPatch, names: list[str], seeds: int) -> dict[str, Catch]:
    monkeypatch.setattr(power, "LocalWorkers", told)
    return dict(hunt_all(names, Scenario(seed=10), seeds, 1))


def test_first_seed_counts_even_if_a_later_one_ends_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told({(MISSING, 10): ("completion-once", "converges"), (MISSING, 11): ("cancel-honoured",)})
    found = hunt(told, monkeypatch, [MISSING], 20)
    assert found == {MISSING: Catch(True, 1, 10, ("completion-once",), ("converges",))}


def test_what_the_defect_does_not_name_is_no_catch(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told({(IGNORED, 11): ("converges",), (IGNORED, 13): ("placement-accounted",)})
    found = hunt(told, monkeypatch, [IGNORED], 20)
    assert found == {IGNORED: Catch(True, 4, 13, ("placement-accounted",), ())}


def test_defects_are_hunted_side_by_side_and_no_further_than_their_catch(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told({(MISSING, 10): ("completion-once",), (IGNORED, 12): ("placement-accounted",)})
    found = hunt(told, monkeypatch, [MISSING, IGNORED], 5)
    assert [catch.seeds_to_catch for catch in found.values()] == [1, 3]
    assert told.asked[:4] == [(MISSING, 10), (IGNORED, 10), (IGNORED, 11), (IGNORED, 12)]
    assert max(seed for _, seed in told.asked) <= 13


def test_defect_that_no_seed_catches_is_a_miss_of_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    found = hunt(Told({}), monkeypatch, [IGNORED], 3)
    assert found == {IGNORED: Catch(False, 3, 12, (), ())}


def test_run_that_could_not_be_made_ends_the_hunt_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told({})
    monkeypatch.setattr(told, "look", lambda scenario: look(replace(scenario, flow="no such file")))
    with pytest.raises(WorkersError, match=f"{IGNORED}, seed 1[01]: .*No such file"):
        hunt(told, monkeypatch, [IGNORED], 3)


def test_defects_are_caught_in_worker_processes() -> None:
    base = Scenario(orders=60, users=4, duration_ns=4 * SECOND_NS)
    found: dict[str, Any] = dict(hunt_all(["maker-trade-missing", IGNORED], base, 20, 2))
    assert sorted(found) == ["maker-trade-missing", IGNORED]
    assert all(catch.caught and catch.seed == catch.seeds_to_catch - 1 for catch in found.values())
