"""Worlds for the tests of the services."""

from collections.abc import Callable, Iterator

import pytest

from tests.engine.exchange_for_tests import topology
from tests.sim.services.service_world import ServiceWorld


@pytest.fixture
def make_world() -> Iterator[Callable[..., ServiceWorld]]:
    """Makes worlds in whose scope time moves; nothing may escape from them, unhandled errors included."""
    made: list[ServiceWorld] = []
    scopes = []

    def make(user_partitions: int = 2, seed: int = 1, **settings: int) -> ServiceWorld:
        world = ServiceWorld(topology(user_partitions), seed, **settings)
        scope = world.world.running()
        scope.__enter__()
        made.append(world)
        scopes.append(scope)
        return world

    yield make
    for scope in reversed(scopes):
        scope.__exit__(None, None, None)
    for world in made:
        world.close()
        assert world.unhandled == []


@pytest.fixture
def world(make_world: Callable[..., ServiceWorld]) -> ServiceWorld:
    return make_world()
