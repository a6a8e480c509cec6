"""The supervisor with children that are small Python programs, and the command line without any server."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.running import COMMAND

HARNESS = """
import sys, live.supervisor as supervisor
from live.supervisor import Child, supervise
from pathlib import Path
from live.options import ServeOptions, Servers
from sim.flows.market import make_topology

async def nothing(self):
    pass

supervisor._Supervisor._prepare = nothing
children = [Child(f"child-{number}", [sys.executable, "-c", program]) for number, program in enumerate(sys.argv[1:])]
options = ServeOptions(Servers("127.0.0.1:1", "127.0.0.1:1"), make_topology(1, 1, 1), Path("unused"))
sys.exit(supervise(children, options))
"""

WAITS = "import sys, signal; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); sys.stdin.read()"
UNUSABLE = "import sys; sys.exit(2)"


def supervised(*programs: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", HARNESS, *programs], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def next_line(process: subprocess.Popen[bytes], event: str) -> dict[str, object]:
    """The next log line of an event."""
    assert process.stdout is not None
    for line in process.stdout:
        found: dict[str, object] = json.loads(line)
        if found["event"] == event:
            return found
    raise AssertionError(f"no {event!r}: {process.communicate()[1].decode()}")


def ended(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    process.stdout.read()
    status = process.wait(timeout=60)
    process.communicate()
    return status


def test_a_child_that_dies_is_started_again_and_all_end_with_sigterm(tmp_path: Path) -> None:
    mark = tmp_path / "lived"
    dies_once = f"import pathlib, sys; p = pathlib.Path({str(mark)!r}); first = not p.exists(); p.touch()\n"
    dies_once += "if first: sys.exit(1)\n" + WAITS
    process = supervised(dies_once, WAITS)
    died = next_line(process, "child ended by itself")
    assert (died["child"], died["status"], died["again_in_s"]) == ("child-0", 1, 0.5)
    assert next_line(process, "child started")["child"] == "child-0"
    process.terminate()
    assert ended(process) == 0


def test_a_child_that_cannot_do_what_was_asked_stops_all() -> None:
    process = supervised(WAITS, UNUSABLE)
    assert next_line(process, "child cannot do what was asked, all are stopped")["child"] == "child-1"
    assert ended(process) == 2


def test_children_end_with_a_supervisor_that_is_killed() -> None:
    # The child says its last word through a pipe of its own, which ends only when the child has.
    reading, writing = socket.socketpair()
    with reading, writing:
        writing.set_inheritable(True)
        program = f"import sys, os; sys.stdin.read(); os.write({writing.fileno()}, b'ended')"
        # The supervisor's children inherit only what it passes on, so the program is its own supervisor's child here.
        process = subprocess.Popen(
            [sys.executable, "-c", HARNESS.replace("[sys.executable,", "['/usr/bin/env', sys.executable,"), program],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[writing.fileno()],
        )
        pid = next_line(process, "child started")["pid"]
        assert isinstance(pid, int)
        process.kill()
        ended(process)
        # Its standard input has ended; it goes by itself.
        assert _is_gone(pid)


def _is_gone(pid: int) -> bool:
    import os
    import time

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "gateway"], "there is no service 'gateway'; there are ubscore, matching, settlement, and all"),
        (["serve", "all", "--kafka", "nowhere:x"], "--kafka: not an address, which is HOST:PORT: 'nowhere:x'"),
        (["serve", "all", "--cassandra", ","], "--cassandra: not an address"),
        (["serve", "all", "--namespace", "A-B"], "a namespace is a small letter"),
        (["serve", "all", "--log-level", "loud"], "--log-level must be one of"),
        (["serve", "all", "--log-format", "yaml"], "--log-format must be json or console"),
        (["serve", "matching", "--instance", "../x"], "--instance must be a plain name"),
        (["serve", "matching", "--topology", "/no/such"], "--topology /no/such: No such file"),
        (["serve", "matching", "--flow", "/no/such"], "/no/such"),
        (["drive", "--duration", "0"], "--duration must be positive"),
        (["drive", "--duration", "x"], "--duration must be a number of seconds"),
        (["drive", "--log-level", "loud"], "--log-level must be one of"),
    ],
)
def test_what_cannot_be_served_or_driven_is_said_in_one_line(arguments: list[str], said: str) -> None:
    run = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=120)
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.startswith("exchange-sim: ")
    assert said in run.stderr
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [["serve", "all"], ["serve", "ubscore"], ["drive"]])
def test_servers_that_are_not_there_are_named_in_one_line(command: list[str], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port, nobody answers
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        run = subprocess.run(
            [*COMMAND, *command, "--kafka", address, "--cassandra", address, "--wait", "0", "--log-level", "critical"],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=tmp_path,
        )
    assert run.returncode == 2
    last = run.stderr.splitlines()[-1]
    assert last.startswith(f"exchange-sim: Kafka at {address} does not answer: KafkaConnectionError")
    assert "Traceback" not in run.stderr
