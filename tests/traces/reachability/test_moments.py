"""Goals of strikes that hit at a moment: each is reached by one that met its own, and by no other."""

import pytest

from tests.traces.reachability.by_hand import count, goals_in, strike

MOMENT_OF = {
    "struck-in-a-transaction": "in-transaction",
    "struck-in-a-commit": "in-commit",
    "struck-while-rows-were-written": "rows-being-written",
    "struck-while-rows-were-refused": "rows-refused",
    "struck-between-write-and-commit": "between-write-and-commit",
    "struck-with-requests-outstanding": "requests-outstanding",
    "struck-during-a-rebalance": "during-rebalance",
    "struck-during-a-recovery": "during-recovery",
    "struck-while-a-snapshot-was-written": "snapshot-being-written",
}


def test_every_goal_has_its_case() -> None:
    assert goals_in("moments") == set(MOMENT_OF)


@pytest.mark.parametrize(("goal", "moment"), MOMENT_OF.items())
def test_a_strike_that_met_its_moment_is_counted_once(goal: str, moment: str) -> None:
    beginning = strike(1, "crash", moment=moment, has_met=True)
    assert count(goal, [beginning, strike(2, "crash", moment=moment, has_met=True, what="end")]) == 1


@pytest.mark.parametrize(("goal", "moment"), MOMENT_OF.items())
def test_a_strike_that_waited_in_vain_is_not_counted(goal: str, moment: str) -> None:
    assert count(goal, [strike(1, "crash", moment=moment)]) == 0


@pytest.mark.parametrize(("goal", "moment"), MOMENT_OF.items())
def test_a_strike_that_met_another_moment_is_not_counted(goal: str, moment: str) -> None:
    others = [strike(1, "crash", moment=other, has_met=True) for other in MOMENT_OF.values() if other != moment]
    assert count(goal, others) == 0
