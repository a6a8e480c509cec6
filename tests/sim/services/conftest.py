"""Worlds for the tests of the services."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.engine.exchange_for_tests import topology
from tests.sim.services.service_world import ServiceWorld


@pytest.fixture
def make_world() -> Iterator[Callable[..., ServiceWorld]]:
    """Makes worlds whose time moves until the next is made; nothing may escape, unhandled errors included."""
    made: list[ServiceWorld] = []
    running = ExitStack()

    def make(user_partitions: int = 2, seed: int = 1, **settings: int) -> ServiceWorld:
        running.close()
        world = ServiceWorld(topology(user_partitions), seed, **settings)
        running.enter_context(world.world.running())
        made.append(world)
        return world

    yield make
    running.close()
    for world in made:
        world.close()
        assert world.unhandled == []


@pytest.fixture
def world(make_world: Callable[..., ServiceWorld]) -> ServiceWorld:
    return make_world()
