"""The servers' processes: started on their own, known again by number and time of start, and ended.

A process number alone says nothing: the system gives it out again. What we end is the process with our number *and*
our time of start; anything else is left alone.
"""

import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sim.stack.settings import LOOPBACK, StackError

STOP_TIMEOUT_S: Final = 60
"""How long a server may take to stop when it is asked to; then it is killed."""
LOOK_EVERY_S: Final = 0.2


@dataclass(frozen=True)
class ServerCommand:
    """What starts one server, where it will be reached, and where its output goes."""

    name: str
    service: str
    arguments: list[str]
    log: Path
    address: str


@dataclass(frozen=True)
class ServerProcess:
    """One process of ours. `started` is the system's own word on when; two processes never share both."""

    name: str
    service: str
    pid: int
    started: str
    address: str
    log: str

    def is_running(self) -> bool:
        """Whether this very process runs, not another one of the same number."""
        return start_of(self.pid) == self.started


def start_of(pid: int) -> str | None:
    """When a process started, in the system's own words; None when there is no such process, or it has ended."""
    _reap(pid)
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            # The name, in brackets, may hold anything; what follows the last bracket is: state, then numbers.
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return None if fields[0] in "ZX" else f"{boot} {fields[19]}"
    answer = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, started = answer.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else started.strip()


def start(command: ServerCommand) -> ServerProcess:
    """Start a server in a session of its own, so that it outlives us and no key pressed at our terminal ends it."""
    command.log.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    # Not subprocess: its object complains when it goes while the process stays, which is what we want.
    pid = os.posix_spawn(
        command.arguments[0],
        command.arguments,
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(command.log), flags, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    started = start_of(pid)
    if started is None:
        raise StackError(f"{command.name} ended at once", last_lines(command.log))
    return ServerProcess(command.name, command.service, pid, started, command.address, str(command.log))


def stop(processes: list[ServerProcess]) -> dict[str, str]:
    """End processes, all at once: asked first, killed after STOP_TIMEOUT_S. Server -> how it ended."""
    ended = {}
    for process in processes:
        ended[process.name] = "stopped" if _signal(process, signal.SIGTERM) else "was not running"
    deadline = time.monotonic() + STOP_TIMEOUT_S
    for process in processes:
        while process.is_running() and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY_S)
        if _signal(process, signal.SIGKILL):
            ended[process.name] = f"killed: it had not stopped in {STOP_TIMEOUT_S} s"
            while process.is_running():
                time.sleep(LOOK_EVERY_S)
    return ended


def check_ports(server: str, ports: list[int]) -> None:
    """Raise StackError when a port that a server needs is in use."""
    for port in ports:
        with socket.socket() as probe:
            # As the servers do: what lingers of connections that have ended does not occupy a port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError as error:
                option = f"--{server.split('-')[0]}-port"
                raise StackError(
                    f"{server} needs port {port} of {LOOPBACK}: {error.strerror}; choose another with {option}"
                ) from None


def last_lines(log: Path, count: int = 15) -> list[str]:
    """The end of a log, which may be missing."""
    try:
        return log.read_text(errors="replace").splitlines()[-count:]
    except OSError:
        return []


def _signal(process: ServerProcess, number: signal.Signals) -> bool:
    if not process.is_running():
        return False
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def _reap(pid: int) -> None:
    """Let go of a process that has ended, where it is a child of ours: until then the system shows it."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
