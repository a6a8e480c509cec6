"""What a reachability goal is: a named situation, and how often a trace was in it (design section 9)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from traces.trace import Trace

Count = Callable[[Trace], int]
"""How often the trace was in the situation."""


@dataclass(frozen=True)
class Goal:
    """A situation that a campaign must have been in at least once, or its green is worth nothing."""

    name: str
    meaning: str
    """The situation, in one sentence."""
    count: Count


GOALS: Final[dict[str, Goal]] = {}
"""All goals by name, in the order in which they are defined."""


def goal(name: str) -> Callable[[Count], Count]:
    """Register a function that counts a situation; its docstring's first line is the goal's meaning."""

    def register(function: Count) -> Count:
        if name in GOALS:
            raise ValueError(f"two goals are called {name}")
        GOALS[name] = Goal(name, (function.__doc__ or "").strip().splitlines()[0], function)
        return function

    return register
