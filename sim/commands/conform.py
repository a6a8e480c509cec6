"""`exchange-sim conform`: the doubles held to real servers. Registered by `sim.commandline`.

For each server the conformance suite, each test on the double and on the server, and then generated sequences of
operations, compared step by step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.commands.base import HOLDS, VIOLATED, CommandError, Json, stderr_progress
from sim.commands.live import CASSANDRA_ENV, KAFKA_ENV

if TYPE_CHECKING:
    from sim.conform.suite import SuiteResult

VARIABLES = {"kafka": KAFKA_ENV, "cassandra": CASSANDRA_ENV}
_CONNECT_S = 20


@dataclass
class Conformance:
    """What came of one server. `compared` is what was compared in sequences, `differences` what they found."""

    server: str
    address: str
    suite: SuiteResult
    compared: dict[str, int]
    differences: list[str]
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether the double is as the server is, as far as was looked."""
        return self.suite.holds and not self.differences


def conform(
    server: Annotated[str, typer.Argument(metavar="[kafka|cassandra]", help="One of them (default both).")] = "",
    sequences: Annotated[int, typer.Option(min=0, help="Generated sequences of operations to compare.")] = 200,
    seed: Annotated[int, typer.Option(help="Where the generation of sequences begins.")] = 0,
    tests: Annotated[bool, typer.Option("--tests/--no-tests", help="Whether to run the suite.")] = True,
    kafka: Annotated[str, typer.Option(envvar=KAFKA_ENV, metavar="HOST:PORT,...", help="A real Kafka.")] = "",
    cassandra: Annotated[str, typer.Option(envvar=CASSANDRA_ENV, metavar="HOST:PORT,...", help="A real one.")] = "",
    json: Json = False,
) -> None:
    """Hold the simulated Kafka and Cassandra to real ones: one suite on both, and sequences of operations compared.

    Without addresses it uses the stack that runs. Exit status: 0 when no test failed and nothing differed, 1 otherwise.
    """
    from sim.conform.suite import SuiteError

    if server and server not in VARIABLES:
        raise CommandError(f"there is no server {server!r} to conform to; there are {' and '.join(VARIABLES)}")
    wanted = [server] if server else list(VARIABLES)
    addresses = _addresses(wanted, {"kafka": kafka, "cassandra": cassandra})
    progress = stderr_progress()
    try:
        found = [_hold(name, addresses[name], sequences, seed, progress.show, with_tests=tests) for name in wanted]
    except SuiteError as error:
        raise CommandError(str(error)) from None
    finally:
        progress.clear()
    if json:
        from json import dumps

        print(dumps({each.server: as_json(each) for each in found}))
    else:
        for each in found:
            print_summary(each)
    raise typer.Exit(HOLDS if all(each.holds for each in found) else VIOLATED)


def _addresses(wanted: list[str], given: dict[str, str]) -> dict[str, str]:
    """Where the servers are: as given, else those of the stack that runs."""
    from sim.stack.lifecycle import running_addresses
    from sim.stack.settings import stack_folder

    addresses = {**running_addresses(stack_folder(None)), **{name: text for name, text in given.items() if text}}
    for name in wanted:
        if name not in addresses:
            raise CommandError(
                f"no real {name.capitalize()}: give --{name} HOST:PORT or set {VARIABLES[name]}, or have one started "
                f"by `exchange-sim stack run -- exchange-sim conform {name}`"
            )
    return addresses


def _hold(
    name: str, address: str, sequences: int, seed: int, tell: Callable[[str], object], *, with_tests: bool
) -> Conformance:
    from sim.conform.suite import SuiteResult, run_suite

    started = time.perf_counter()
    _check_reachable(name, address)
    suite = run_suite(name, {VARIABLES[name]: address}, tell) if with_tests else SuiteResult()
    compare = _compare_kafka if name == "kafka" else _compare_cassandra

    def told(report: Any) -> None:
        tell(f"{name}: {report.sequences} of {sequences} sequences")

    report = compare(address, sequences, seed, told) if sequences else None
    compared: dict[str, Any] = asdict(report) if report is not None else {"sequences": 0}
    differences: list[str] = compared.pop("differences", [])
    return Conformance(name, address, suite, compared, differences, time.perf_counter() - started)


def _check_reachable(name: str, address: str) -> None:
    """CommandError when nobody answers: better than a suite of errors."""
    import socket

    hosts, _, port = address.split(",")[0].strip().rpartition(":")
    if not hosts or not port.isdecimal():
        raise CommandError(f"not an address of {name.capitalize()}: {address!r}; write HOST:PORT")
    try:
        socket.create_connection((hosts, int(port)), timeout=_CONNECT_S).close()
    except OSError as error:
        raise CommandError(f"{name.capitalize()} at {address} does not answer: {error}") from None


def _compare_kafka(address: str, count: int, seed: int, told: Callable[[Any], None]) -> Any:
    from sim.conform.kafka_sequences import run_sequences
    from sim.conform.kafka_sides import ServerSide

    server = ServerSide(address)
    try:
        return run_sequences(server, count, seed, on_sequence=told)
    finally:
        server.close()


def _compare_cassandra(address: str, count: int, seed: int, told: Callable[[Any], None]) -> Any:
    from sim.conform.cassandra_sequences import run_sequences
    from sim.conform.cassandra_sides import DoubleSide, server_side

    with server_side(address) as server:
        return run_sequences(DoubleSide(keyspace=server.keyspace), server, count, seed, on_sequence=told)


def as_json(found: Conformance) -> dict[str, Any]:
    """Conformance as plain data."""
    return {
        "address": found.address,
        "holds": found.holds,
        "tests": {side: dict(counted) for side, counted in found.suite.counts.items()},
        "failed": found.suite.failed,
        "compared": found.compared,
        "differences": found.differences,
        "seconds": round(found.seconds, 1),
    }


def print_summary(found: Conformance) -> None:
    """For a person."""
    print(f"{found.server} at {found.address}: {'conforms' if found.holds else 'DIFFERS'} ({found.seconds:.0f} s)")
    for side, counted in found.suite.counts.items():
        told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counted.items()))
        print(f"  tests on the {side:<7} {told or 'none run'}")
    print("  compared              " + ", ".join(f"{count} {what}" for what, count in found.compared.items()))
    for test, why in found.suite.failed.items():
        print(f"  failed: {test}: {why}")
    for difference in found.differences:
        print("\n".join(f"  {line}" for line in difference.splitlines()))
