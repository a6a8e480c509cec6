"""Small worlds for the goals of a module: those that are in a goal's situation once, and those that almost are."""

from collections.abc import Callable

from benchmarks.mini_world import MiniWorld
from tests.traces.reachability.by_hand import count_in

World = Callable[[MiniWorld], object]
"""What happens in it. Four users are funded."""


class Worlds:
    """A world that reaches it for each goal, and near misses by goal."""

    def __init__(self) -> None:
        self.reached: dict[str, World] = {}
        self.near_misses: list[tuple[str, World]] = []

    def reaches(self, goal: str) -> Callable[[World], World]:
        """Register a world in which the goal is reached once."""

        def register(world: World) -> World:
            assert goal not in self.reached
            self.reached[goal] = world
            return world

        return register

    def misses(self, goal: str) -> Callable[[World], World]:
        """Register a world in which it is almost reached."""

        def register(world: World) -> World:
            self.near_misses.append((goal, world))
            return world

        return register


def times(goal: str, happens: World) -> int:
    """How often that world is in the goal's situation."""
    world = MiniWorld()
    happens(world)
    return count_in(goal, world)


def name_of(each: object) -> str:
    """How pytest calls it."""
    return str(getattr(each, "__name__", each))
