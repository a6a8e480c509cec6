"""What a stack is made of: its folder, ports, sizes; and where the servers are that everything else should use."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LOOPBACK: Final = "127.0.0.1"
DEFAULT_FOLDER: Final = Path(".stack")
FOLDER_VARIABLE: Final = "EXCHANGE_SIM_STACK"

KAFKA_VARIABLE: Final = "EXCHANGE_SIM_KAFKA"
CASSANDRA_VARIABLE: Final = "EXCHANGE_SIM_CASSANDRA"
"""Servers that a user already has: host:port, several joined by commas."""

KAFKA: Final = "kafka"
CASSANDRA: Final = "cassandra"
SERVICES: Final = (KAFKA, CASSANDRA)
ADDRESS_VARIABLES: Final = {KAFKA: KAFKA_VARIABLE, CASSANDRA: CASSANDRA_VARIABLE}

KAFKA_PORT_VARIABLE: Final = "EXCHANGE_SIM_STACK_KAFKA_PORT"
CASSANDRA_PORT_VARIABLE: Final = "EXCHANGE_SIM_STACK_CASSANDRA_PORT"
BROKERS_VARIABLE: Final = "EXCHANGE_SIM_STACK_BROKERS"
"""Defaults of a stack that is started."""

DEFAULT_KAFKA_PORT: Final = 19092
DEFAULT_CASSANDRA_PORT: Final = 19042
"""Not the servers' own 9092 and 9042, which a developer's machine often has in use."""


class StackError(Exception):
    """The stack cannot do what was asked; the message is one line. `log_lines` are the last of the log concerned."""

    def __init__(self, message: str, log_lines: list[str] | None = None) -> None:
        super().__init__(message)
        self.log_lines = log_lines or []


@dataclass(frozen=True)
class StackSettings:
    """One stack. Every port is on loopback.

    Broker n of `brokers` listens for clients at `kafka_port` + n and for the other brokers' controllers at
    `kafka_port` + `brokers` + n; Cassandra for clients at `cassandra_port` and for itself at the port after that.
    Heaps are those of one process each. `wait_s` bounds each server's start.
    """

    services: tuple[str, ...] = SERVICES
    brokers: int = 1
    kafka_port: int = DEFAULT_KAFKA_PORT
    cassandra_port: int = DEFAULT_CASSANDRA_PORT
    kafka_heap_mb: int = 512
    cassandra_heap_mb: int = 768
    wait_s: int = 180

    def __post_init__(self) -> None:
        if not self.services or not set(self.services) <= set(SERVICES):
            raise StackError(
                f"a stack is made of {' and '.join(SERVICES)}, not of {','.join(self.services) or 'nothing'}"
            )
        if self.brokers not in (1, 3):
            raise StackError(f"a stack has 1 or 3 brokers, not {self.brokers}")
        if min(self.kafka_heap_mb, self.cassandra_heap_mb) < 256:
            raise StackError("neither server works with a heap of less than 256 MB")
        if self.wait_s < 1:
            raise StackError(f"a server needs at least 1 second to come up, not {self.wait_s}")
        ports = [port for needed in self.servers().values() for port in needed]
        if min(ports) < 1 or max(ports) > 65_535:
            raise StackError(f"ports are 1 to 65535; this stack would use {min(ports)} to {max(ports)}")
        if len(set(ports)) != len(ports):
            raise StackError(f"Kafka and Cassandra would share a port: {', '.join(map(str, ports))}")

    def broker_ports(self) -> list[int]:
        """Where clients reach the brokers."""
        return [self.kafka_port + broker for broker in range(self.brokers)]

    def controller_ports(self) -> list[int]:
        """Where the brokers' controllers reach each other."""
        return [self.kafka_port + self.brokers + broker for broker in range(self.brokers)]

    def servers(self) -> dict[str, list[int]]:
        """Each server's name, and the ports that it needs."""
        brokers = zip(self.broker_ports(), self.controller_ports(), strict=True)
        servers = {f"{KAFKA}-{number}": list(ports) for number, ports in enumerate(brokers)}
        servers[CASSANDRA] = [self.cassandra_port, self.cassandra_port + 1]
        return {name: ports for name, ports in servers.items() if name.split("-")[0] in self.services}

    def addresses(self) -> dict[str, str]:
        """Service -> the addresses that clients are given."""
        known = {
            KAFKA: ",".join(f"{LOOPBACK}:{port}" for port in self.broker_ports()),
            CASSANDRA: f"{LOOPBACK}:{self.cassandra_port}",
        }
        return {service: known[service] for service in self.services}


def stack_folder(given: Path | None = None, environment: Mapping[str, str] = os.environ) -> Path:
    """The stack's folder: what was given, what the environment names, or `.stack` where we are."""
    if given is not None:
        return given.absolute()
    return Path(environment.get(FOLDER_VARIABLE) or DEFAULT_FOLDER).absolute()


def stack_settings(environment: Mapping[str, str] = os.environ) -> StackSettings:
    """The settings of a stack for which nothing is given but the environment. Raises StackError."""
    numbers = {}
    for field, variable in (
        ("brokers", BROKERS_VARIABLE),
        ("kafka_port", KAFKA_PORT_VARIABLE),
        ("cassandra_port", CASSANDRA_PORT_VARIABLE),
    ):
        text = environment.get(variable)
        if text:
            if not text.isdecimal():
                raise StackError(f"{variable} must be a number, not {text!r}")
            numbers[field] = int(text)
    return StackSettings(**numbers)  # type: ignore[arg-type]  # all of these are numbers


def addresses_given(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Service -> address, of those servers that the environment names."""
    named = {service: environment.get(variable, "") for service, variable in ADDRESS_VARIABLES.items()}
    return {service: address for service, address in named.items() if address}
