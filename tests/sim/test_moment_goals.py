"""Every moment that a strike can wait for has a goal: one that never comes would not be noticed otherwise."""

import pytest

from sim.faults.moments import MOMENTS
from tests.traces.reachability.by_hand import count, goals_in, strike


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_strike_at_a_moment_reaches_one_goal(moment: str) -> None:
    struck = [strike(1, "crash", moment=moment, has_met=True)]
    assert sum(count(goal, struck) for goal in goals_in("moments")) == 1
