"""Whatever would tie a run to the real world raises, and names the line that did it."""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import random
import secrets
import socket
import subprocess
import sys
import threading
import time
import types
import uuid
from collections.abc import Callable, Iterator

import pytest

from sim.escape import EscapedSimulationError, no_escape
from sim.world import World

WAYS_OUT: dict[str, Callable[[], object]] = {
    "time.time": lambda: time.time(),
    "time.time_ns": lambda: time.time_ns(),
    "time.monotonic": lambda: time.monotonic(),
    "time.monotonic_ns": lambda: time.monotonic_ns(),
    "time.perf_counter": lambda: time.perf_counter(),
    "time.sleep": lambda: time.sleep(0),
    "random.random": lambda: random.random(),
    "random.randint": lambda: random.randint(1, 2),
    "random.shuffle": lambda: random.shuffle([1, 2]),
    "random.choice": lambda: random.choice([1, 2]),
    "random.getrandbits": lambda: random.getrandbits(8),
    "random.seed": lambda: random.seed(1),
    "random.Random() without a seed": lambda: random.Random(),
    "os.urandom": lambda: os.urandom(1),
    "uuid.uuid1": lambda: uuid.uuid1(),
    "uuid.uuid4": lambda: uuid.uuid4(),
    "secrets.token_bytes": lambda: secrets.token_bytes(1),
    "secrets.token_hex": lambda: secrets.token_hex(1),
    "secrets.randbelow": lambda: secrets.randbelow(2),
    "socket.socket": lambda: socket.socket(),
    "socket.create_connection": lambda: socket.create_connection(("localhost", 1)),
    "socket.getaddrinfo": lambda: socket.getaddrinfo("localhost", 1),
    "threading.Thread.start": lambda: threading.Thread(target=list).start(),
    "subprocess.Popen": lambda: subprocess.Popen([sys.executable, "-c", ""]),
    "datetime.now": lambda: datetime.datetime.now(datetime.UTC),
    "datetime.utcnow": lambda: datetime.datetime.utcnow(),  # noqa: DTZ003
    "datetime.today": lambda: datetime.datetime.today(),  # noqa: DTZ002
    "date.today": lambda: datetime.date.today(),  # noqa: DTZ011
}


@pytest.mark.parametrize("what", WAYS_OUT)
def test_way_out_raises_and_names_its_call_site(what: str) -> None:
    way_out = WAYS_OUT[what]
    line = way_out.__code__.co_firstlineno
    with no_escape() as escapes, pytest.raises(EscapedSimulationError) as raised:
        way_out()
    assert what in str(raised.value)
    assert f"{__file__}:{line}" in str(raised.value)
    assert escapes.errors == [raised.value]


def test_everything_is_as_it_was_afterwards() -> None:
    before = (time.time, random.random, uuid.uuid4, os.urandom, datetime.datetime, socket.socket.__init__)
    with no_escape():
        assert time.time is not before[0]
    assert (time.time, random.random, uuid.uuid4, os.urandom, datetime.datetime, socket.socket.__init__) == before
    assert time.time() > 0


def test_everything_is_as_it_was_after_an_error() -> None:
    original = time.time
    with pytest.raises(ValueError, match="inside"), no_escape():
        raise ValueError("inside")
    assert time.time is original


def test_escape_from_within_a_library_names_the_code_that_called_it() -> None:
    with no_escape(), pytest.raises(EscapedSimulationError, match=r"test_escape\.py:\d+"):
        random.SystemRandom().random()


@pytest.fixture
def module_of_ours() -> Iterator[types.ModuleType]:
    """A module of the services that has imported the functions by name."""
    module = types.ModuleType("settlement.example_of_imports")
    source = "from time import time as now\nfrom uuid import uuid4\nfrom datetime import datetime\n"
    exec(source, module.__dict__)
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


def test_names_that_our_modules_imported_are_guarded_too(module_of_ours: types.ModuleType) -> None:
    original = module_of_ours.now
    with no_escape():
        for way_out in (module_of_ours.now, module_of_ours.uuid4, module_of_ours.datetime.now):
            with pytest.raises(EscapedSimulationError):
                way_out()
    assert module_of_ours.now is original


def test_seeded_generators_and_dates_from_numbers_are_nobody_s_business() -> None:
    with no_escape() as escapes:
        assert random.Random(1).getrandbits(8) == random.Random(1).getrandbits(8)
        moment = datetime.datetime.fromtimestamp(0, datetime.UTC)
        assert isinstance(moment, datetime.datetime)
        assert isinstance(moment, datetime.date)
        assert not isinstance("moment", datetime.datetime)
        assert issubclass(type(moment), datetime.datetime)
        assert datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) == moment
        assert datetime.date(1970, 1, 2) - datetime.date(1970, 1, 1) == datetime.timedelta(days=1)
        assert type(moment + datetime.timedelta(1)).__module__ == "datetime"
        escapes.check()
    assert type(moment) is datetime.datetime


def test_logging_and_other_threads_are_let_through() -> None:
    go, times = threading.Event(), []

    def look() -> None:
        go.wait()
        times.append(time.time())

    thread = threading.Thread(target=look)
    thread.start()
    with no_escape() as escapes:
        logging.getLogger("bystander").warning("a library says something")
        go.set()
        while thread.is_alive():
            thread.join()
        escapes.check()
    assert times


def test_parts_of_the_clients_that_the_doubles_use_work() -> None:
    from aiokafka.errors import NotLeaderForPartitionError
    from aiokafka.structs import TopicPartition
    from cassandra import ConsistencyLevel
    from cassandra.metadata import Murmur3Token
    from cassandra.policies import RetryPolicy, WriteType
    from cassandra.util import datetime_from_timestamp

    with no_escape() as escapes:
        assert Murmur3Token.hash_fn(b"exchange") == Murmur3Token.hash_fn(b"exchange")
        decision = RetryPolicy().on_write_timeout(None, ConsistencyLevel.QUORUM, WriteType.BATCH_LOG, 2, 1, 0)
        assert decision == (RetryPolicy.RETRY, ConsistencyLevel.QUORUM)
        assert datetime_from_timestamp(86_400).day == 2
        assert TopicPartition("orders", 1).partition == 1
        assert NotLeaderForPartitionError().retriable
        escapes.check()


def test_world_raises_an_escape_that_the_service_swallowed() -> None:
    async def main(_: object) -> None:
        try:
            time.time()
        except Exception:
            await asyncio.sleep(1)

    world = World(1)

    def run() -> None:
        with world.running():
            world.host("a").start(main)
            world.run_until(10)

    with pytest.raises(EscapedSimulationError, match=r"time\.time"):
        run()
    world.close()
