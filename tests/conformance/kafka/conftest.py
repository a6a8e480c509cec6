"""Each test here is written once against aiokafka's clients and runs on the doubles and on a real Kafka.

A test is a coroutine function that takes `kafka` (see `sim.conform.kafka_sides.Kafka`): it runs on a host of a
simulated cluster, in simulated time, and on asyncio's loop. What takes time is waited for, with a bound; nothing is
asserted after a fixed sleep, but for what must *not* have happened.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator

import pytest

from sim.conform.kafka_sides import DoubleSide, Kafka, ServerSide

ADDRESS_VARIABLE = "EXCHANGE_SIM_KAFKA"


@pytest.fixture(scope="session")
def server() -> Iterator[ServerSide]:
    """The real cluster at the address in the environment."""
    address = os.environ.get(ADDRESS_VARIABLE)
    if not address:
        pytest.skip(f"no real Kafka: set {ADDRESS_VARIABLE}=host:port, or run `make conformance`")
    side = ServerSide(address)
    yield side
    side.close()


@pytest.fixture(params=["double", "server"])
def kafka(request: pytest.FixtureRequest) -> Iterator[Kafka]:
    """Each side in turn: a simulated cluster of the test's own, and the real one."""
    if request.param == "server":
        yield Kafka(request.getfixturevalue("server"))
        return
    side = DoubleSide()
    yield Kafka(side)
    side.close()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine function on the side that its `kafka` is of."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    kafka: Kafka = pyfuncitem.funcargs["kafka"]
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}

    async def test() -> None:
        try:
            await pyfuncitem.obj(**arguments)
        finally:
            await kafka.close()

    kafka.side.run(test, limit_s=120)
    return True
