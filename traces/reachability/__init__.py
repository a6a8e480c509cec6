"""Reachability goals: situations that a campaign must have been in, read off its traces (design section 9).

An invariant that holds says little if the moment in which it could have broken never came. A goal names such a moment
and counts it. The code under test carries no hooks for them: each is a function over the recorded tables, as invariants
are. They are grouped by what is in trouble: the database, the log, hosts, orders, clients. The last ones are about when
it is: at the moments that matter.
"""

from traces.reachability import clients, database, hosts, log, moments, orders
from traces.reachability.goals import GOALS, Goal
from traces.trace import Trace

THEMES = (database, log, hosts, orders, clients, moments)
"""The modules that define them."""

__all__ = ["GOALS", "THEMES", "Goal", "reached"]


def reached(trace: Trace) -> dict[str, int]:
    """How often the trace was in each situation, zeros included, in the order of `GOALS`."""
    return {name: int(each.count(trace)) for name, each in GOALS.items()}
