"""Bringing a stack up, down, and saying how it is.

The folder's `stack.json` records what runs: the settings, and each process by number and time of start. It is written
before we wait for a server, so that a stack whose start was interrupted can be stopped. One command at a time works on
a folder: it holds a lock.
"""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from sim.stack import cassandra, kafka
from sim.stack.maven import find_java, resolve_jars
from sim.stack.processes import LOOK_EVERY_S, ServerCommand, ServerProcess, check_ports, last_lines, start, stop
from sim.stack.readiness import why_not_ready
from sim.stack.settings import ADDRESS_VARIABLES, KAFKA, SERVICES, StackError, StackSettings, addresses_given

FORMAT: Final = 1

Tell = Callable[[str], None]
"""Shows what is being done now."""


@dataclass(frozen=True)
class Stack:
    """What a folder records."""

    settings: StackSettings
    processes: tuple[ServerProcess, ...]

    def running(self) -> list[ServerProcess]:
        """The processes that run, and are ours."""
        return [process for process in self.processes if process.is_running()]


@dataclass(frozen=True)
class ServerState:
    """One server as it is now: ready, starting or not answering (and why), or not running."""

    name: str
    service: str
    address: str
    pid: int
    log: str
    state: str

    @property
    def is_ready(self) -> bool:
        return self.state == READY


READY: Final = "ready"
NOT_RUNNING: Final = "not running"


def up(folder: Path, settings: StackSettings, tell: Tell) -> list[ServerState]:
    """Start what does not run yet, and wait until all of it answers. Raises StackError."""
    with _lock(folder):
        recorded = read_stack(folder)
        running = recorded.running() if recorded is not None else []
        if recorded is not None and running and replace(recorded.settings, wait_s=settings.wait_s) != settings:
            raise StackError(f"a stack with other settings runs in {folder}; `stack down` ends it")
        _check_data(folder, settings)
        names = {process.name for process in running}
        missing = {name: ports for name, ports in settings.servers().items() if name not in names}
        for name, ports in missing.items():
            check_ports(name, ports)
        commands = list(_commands(folder, settings, tell)) if missing else []
        for command in commands:
            if command.name not in missing:
                continue
            tell(f"starting {command.name}")
            running.append(start(command))
            write_stack(folder, Stack(settings, tuple(running)))
        order = list(settings.servers())
        running.sort(key=lambda process: order.index(process.name))
        return [_wait_until_ready(process, settings, tell) for process in running]


def down(folder: Path, tell: Tell, *, wipe: bool = False) -> dict[str, str]:
    """Stop what runs; server -> how it ended. `wipe` removes the servers' data, so that the next start is a new one."""
    with _lock(folder):
        recorded = read_stack(folder)
        ended: dict[str, str] = {}
        if recorded is not None:
            tell("stopping " + ", ".join(process.name for process in recorded.processes))
            ended = stop(list(recorded.processes))
            _record(folder).unlink()
        if wipe:
            for service in SERVICES:
                shutil.rmtree(folder / service, ignore_errors=True)
        return ended


def status(folder: Path) -> list[ServerState]:
    """Every server that the folder records, as it is now; none when no stack was started there."""
    recorded = read_stack(folder)
    if recorded is None:
        return []
    return [_state(process, recorded.settings) for process in recorded.processes]


def running_addresses(folder: Path) -> dict[str, str]:
    """Service -> its address, for those services of the folder's stack whose every process runs."""
    recorded = read_stack(folder)
    if recorded is None:
        return {}
    dead = {process.service for process in recorded.processes if not process.is_running()}
    return {service: address for service, address in recorded.settings.addresses().items() if service not in dead}


def run_with_servers(
    folder: Path, settings: StackSettings, command: Sequence[str], tell: Tell, told: Callable[[], None]
) -> int:
    """Run a command with every server's address in its environment; returns its exit status.

    Servers that the environment names are used as they are. For the others a stack is started, unless it runs, and
    what was started is stopped again. `told` is called when nothing is shown any more.
    """
    given = addresses_given()
    missing = tuple(service for service in SERVICES if service not in given)
    runs_already = bool(running_addresses(folder))
    try:
        if missing and not runs_already:
            up(folder, replace(settings, services=missing), tell)
        addresses = {**running_addresses(folder), **given}
        if lacking := [service for service in SERVICES if service not in addresses]:
            raise StackError(f"the stack in {folder} runs without {' and '.join(lacking)}; `stack up` completes it")
        told()
        variables = {ADDRESS_VARIABLES[service]: address for service, address in addresses.items()}
        try:
            return subprocess.run(command, env={**os.environ, **variables}, check=False).returncode
        except OSError as error:
            raise StackError(f"{command[0]} cannot be run: {error.strerror}") from None
    finally:
        if missing and not runs_already:
            down(folder, tell)
        told()


def read_stack(folder: Path) -> Stack | None:
    """What the folder records; None when nothing. Raises StackError when the record cannot be read."""
    try:
        record = json.loads(_record(folder).read_text())
        if record["format"] != FORMAT:
            raise ValueError(f"format {record['format']}")
        settings = record["settings"]
        settings["services"] = tuple(settings["services"])
        processes = tuple(ServerProcess(**process) for process in record["processes"])
        return Stack(StackSettings(**settings), processes)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise StackError(f"{_record(folder)} is not a record of a stack ({error}); end its processes by hand") from None


def write_stack(folder: Path, stack: Stack) -> None:
    """Record a stack; a reader sees the old record or the new one, never half of one."""
    record = {
        "format": FORMAT,
        "settings": asdict(stack.settings),
        "processes": [asdict(process) for process in stack.processes],
    }
    unfinished = _record(folder).with_suffix(".unfinished")
    unfinished.write_text(json.dumps(record, indent=2) + "\n")
    unfinished.replace(_record(folder))


def _commands(folder: Path, settings: StackSettings, tell: Tell) -> Iterator[ServerCommand]:
    java = find_java()
    for service in settings.services:
        tell(f"resolving {service}'s jars")
        jars = resolve_jars(service, folder)
        tell(f"preparing {service}")
        if service == KAFKA:
            yield from kafka.brokers(settings, java, jars, folder)
        else:
            yield cassandra.node(settings, java, jars, folder)


def _check_data(folder: Path, settings: StackSettings) -> None:
    """A controller's vote is in its data: brokers cannot be added to, or taken from, data of another number."""
    found = len(list((folder / "kafka").glob("broker-*/data")))
    if KAFKA in settings.services and found not in (0, settings.brokers):
        raise StackError(f"{folder} holds the data of {found} brokers, not {settings.brokers}; `stack down --wipe` it")


def _wait_until_ready(process: ServerProcess, settings: StackSettings, tell: Tell) -> ServerState:
    began = time.monotonic()
    tell(f"waiting for {process.name} at {process.address}")
    while True:
        state = _state(process, settings)
        if state.is_ready:
            return state
        lines = last_lines(Path(process.log))
        if state.state == NOT_RUNNING:
            raise StackError(f"{process.name} ended while it started; its log is {process.log}", lines)
        if time.monotonic() - began > settings.wait_s:
            raise StackError(
                f"{process.name} did not come up in {settings.wait_s} s: {state.state}; it still runs, "
                f"its log is {process.log}",
                lines,
            )
        time.sleep(LOOK_EVERY_S)


def _state(process: ServerProcess, settings: StackSettings) -> ServerState:
    if process.is_running():
        brokers = settings.brokers if process.service == KAFKA else 1
        state = why_not_ready(process.service, process.address, brokers) or READY
    else:
        state = NOT_RUNNING
    return ServerState(process.name, process.service, process.address, process.pid, process.log, state)


def _record(folder: Path) -> Path:
    return folder / "stack.json"


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(f"another command is working on the stack in {folder}") from None
        yield
