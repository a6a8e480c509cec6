"""Where the real servers are: what the environment names, else a stack that runs in the default folder.

Nothing is started here, so that `make test` needs no server; `make conformance` starts what is not there. Tests that
need a server skip, and say what is missing.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from sim.stack.lifecycle import running_addresses
from sim.stack.maven import find_java
from sim.stack.settings import (
    ADDRESS_VARIABLES,
    CASSANDRA,
    KAFKA,
    StackError,
    addresses_given,
    stack_folder,
)


@pytest.fixture(scope="session", autouse=True)
def addresses_in_the_environment() -> Iterator[dict[str, str]]:
    """Service -> address of the servers there are; the environment names each of them while the tests run."""
    addresses = {**running_addresses(stack_folder()), **addresses_given()}
    with pytest.MonkeyPatch.context() as patch:
        for service, address in addresses.items():
            patch.setenv(ADDRESS_VARIABLES[service], address)
        yield addresses


@pytest.fixture(scope="session")
def kafka_address(addresses_in_the_environment: dict[str, str]) -> str:
    """The address of a real Kafka; skips where there is none."""
    return _address(addresses_in_the_environment, KAFKA)


@pytest.fixture(scope="session")
def cassandra_address(addresses_in_the_environment: dict[str, str]) -> str:
    """The address of a real Cassandra or ScyllaDB; skips where there is none."""
    return _address(addresses_in_the_environment, CASSANDRA)


def _address(addresses: dict[str, str], service: str) -> str:
    if service in addresses:
        return addresses[service]
    pytest.skip(f"no real {service}: {why_none_is_started() or 'none runs'}; set {ADDRESS_VARIABLES[service]}, or run "
                "`make conformance`")  # fmt: skip


def why_none_is_started() -> str | None:
    """What keeps this machine from starting servers; None when nothing does."""
    try:
        find_java()
    except StackError as error:
        return str(error)
    return None if shutil.which("mvn") else "there is no mvn on PATH"
