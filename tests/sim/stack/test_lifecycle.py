"""Starting and stopping servers, on a machine whose Java and Maven are scripts: what can go wrong is said in a line."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sim.commandline import main
from sim.stack import lifecycle
from sim.stack.lifecycle import READY, down, read_stack, run_with_servers, running_addresses, status, up
from sim.stack.processes import ServerCommand, ServerProcess, start, start_of, stop
from sim.stack.settings import (
    CASSANDRA,
    KAFKA,
    StackError,
    StackSettings,
    addresses_given,
    stack_folder,
    stack_settings,
)
from tests.sim.stack.fake_machine import ENDS, FAILS, FakeMachine, free_port


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    """A machine without Java and Maven yet."""
    machine = FakeMachine(tmp_path)
    monkeypatch.setenv("PATH", str(machine.bin))
    for variable in ("JAVA_HOME", "EXCHANGE_SIM_KAFKA", "EXCHANGE_SIM_CASSANDRA", "EXCHANGE_SIM_STACK"):
        monkeypatch.delenv(variable, raising=False)
    return machine


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A stack's folder; what runs there is stopped in the end."""
    folder = tmp_path / "stack"
    yield folder
    if (folder / "stack.json").exists():
        down(folder, quiet)


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every server answers at once."""
    monkeypatch.setattr(lifecycle, "why_not_ready", lambda service, address, servers: None)


def quiet(_: str) -> None:
    """Nobody is watching."""


def small(**given: object) -> StackSettings:
    ports = {"kafka_port": free_port(), "cassandra_port": free_port()}
    return StackSettings(**{**ports, "wait_s": 1, **given})  # type: ignore[arg-type]


def refusal(action: Callable[[], object]) -> StackError:
    with pytest.raises(StackError) as refused:
        action()
    assert "\n" not in str(refused.value)
    return refused.value


# -- what runs


@pytest.mark.usefixtures("answering")
def test_servers_start_are_recorded_and_stop(machine: FakeMachine, folder: Path) -> None:
    machine.has_java()
    machine.has_maven()
    settings = small(brokers=3)
    states = up(folder, settings, quiet)
    assert [state.name for state in states] == ["kafka-0", "kafka-1", "kafka-2", "cassandra"]
    assert all(start_of(state.pid) is not None and state.is_ready for state in states)
    assert running_addresses(folder) == settings.addresses()
    assert down(folder, quiet) == dict.fromkeys(("kafka-0", "kafka-1", "kafka-2", "cassandra"), "stopped")
    assert all(start_of(state.pid) is None for state in states)
    assert running_addresses(folder) == {}
    assert status(folder) == []


@pytest.mark.usefixtures("answering")
def test_second_up_starts_only_what_has_died(machine: FakeMachine, folder: Path) -> None:
    machine.has_java()
    machine.has_maven()
    settings = small()
    first = {state.name: state.pid for state in up(folder, settings, quiet)}
    assert {state.name: state.pid for state in up(folder, settings, quiet)} == first
    os.kill(first["cassandra"], signal.SIGKILL)
    while start_of(first["cassandra"]) is not None:
        pass
    assert [state.state for state in status(folder)] == [READY, "not running"]
    assert running_addresses(folder) == {KAFKA: settings.addresses()[KAFKA]}
    again = {state.name: state.pid for state in up(folder, settings, quiet)}
    assert again["kafka-0"] == first["kafka-0"]
    assert again["cassandra"] != first["cassandra"]


@pytest.mark.usefixtures("answering")
def test_jars_are_fetched_once(machine: FakeMachine, folder: Path) -> None:
    machine.has_java()
    machine.has_maven()
    up(folder, small(), quiet)
    down(folder, quiet, wipe=True)
    asked = machine.maven_log.read_text().count("dependency:copy-dependencies")
    assert asked == 2
    (machine.bin / "mvn").unlink()
    up(folder, small(), quiet)
    assert machine.maven_log.read_text().count("dependency:copy-dependencies") == asked


@pytest.mark.usefixtures("answering")
def test_other_settings_are_refused_while_a_stack_runs(machine: FakeMachine, folder: Path) -> None:
    machine.has_java()
    machine.has_maven()
    settings = small()
    up(folder, settings, quiet)
    error = refusal(lambda: up(folder, small(kafka_heap_mb=300), quiet))
    assert "other settings" in str(error)


@pytest.mark.usefixtures("answering")
def test_data_of_another_number_of_brokers_is_refused(machine: FakeMachine, folder: Path) -> None:
    machine.has_java()
    machine.has_maven()
    up(folder, small(), quiet)
    down(folder, quiet)
    assert "data of 1 brokers, not 3" in str(refusal(lambda: up(folder, small(brokers=3), quiet)))
    down(folder, quiet, wipe=True)
    assert len(up(folder, small(brokers=3), quiet)) == 4


def test_process_that_is_not_ours_is_left_alone(folder: Path) -> None:
    other = subprocess.Popen(["sleep", "300"])
    try:
        started = start_of(other.pid)
        assert started is not None
        assert started == start_of(other.pid)
        recorded = ServerProcess("cassandra", CASSANDRA, other.pid, f"{started}0", "127.0.0.1:1", "log")
        assert not recorded.is_running()
        assert stop([recorded]) == {"cassandra": "was not running"}
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_server_that_ignores_the_request_to_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.stack.processes.STOP_TIMEOUT_S", 0.5)
    script = 'trap "" TERM; echo deaf; while :; do sleep 0.1; done'
    command = ServerCommand("kafka-0", KAFKA, ["/bin/sh", "-c", script], tmp_path / "log", "127.0.0.1:1")
    process = start(command)
    while "deaf" not in command.log.read_text():
        pass
    assert stop([process])["kafka-0"].startswith("killed")
    assert not process.is_running()


@pytest.mark.usefixtures("answering")
def test_command_is_given_the_addresses_and_the_stack_is_stopped_after_it(machine: FakeMachine, folder: Path) -> None:
    machine.has_java()
    machine.has_maven()
    settings = small()
    script = 'echo "$EXCHANGE_SIM_KAFKA $EXCHANGE_SIM_CASSANDRA" > seen; exit 7'
    found = folder.parent / "seen"
    command = ["sh", "-c", f"cd {folder.parent}; {script}"]
    assert run_with_servers(folder, settings, command, quiet, lambda: None) == 7
    assert found.read_text().split() == [settings.addresses()[KAFKA], settings.addresses()[CASSANDRA]]
    assert read_stack(folder) is None


def test_command_uses_the_servers_of_the_environment(
    machine: FakeMachine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXCHANGE_SIM_KAFKA", "kafka.example:9092")
    monkeypatch.setenv("EXCHANGE_SIM_CASSANDRA", "scylla.example:9042")
    script = 'test "$EXCHANGE_SIM_KAFKA $EXCHANGE_SIM_CASSANDRA" = "kafka.example:9092 scylla.example:9042"'
    assert run_with_servers(folder, small(), ["sh", "-c", script], quiet, lambda: None) == 0
    assert not folder.exists()


# -- what can go wrong


def test_no_java(machine: FakeMachine, folder: Path) -> None:
    assert "needs Java 17: there is no java on PATH" in str(refusal(lambda: up(folder, small(), quiet)))


def test_java_home_without_java(machine: FakeMachine, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.has_java()
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    assert "JAVA_HOME is /nowhere, which has no bin/java" in str(refusal(lambda: up(folder, small(), quiet)))


@pytest.mark.parametrize("version", ["21.0.2", "1.8.0_402", "11.0.1"])
def test_wrong_java(machine: FakeMachine, folder: Path, version: str) -> None:
    machine.has_java(version)
    message = str(refusal(lambda: up(folder, small(), quiet)))
    assert f"is Java {version.split('.')[0]}" in message
    assert "needs Java 17" in message


def test_no_maven(machine: FakeMachine, folder: Path) -> None:
    machine.has_java()
    assert "needs Maven" in str(refusal(lambda: up(folder, small(), quiet)))


def test_maven_failed(machine: FakeMachine, folder: Path) -> None:
    machine.has_java()
    machine.has_maven(FAILS)
    error = refusal(lambda: up(folder, small(), quiet))
    assert "could not resolve kafka_2.13 3.9.1" in str(error)
    assert error.log_lines == ["[ERROR] Could not resolve dependencies"]


def test_maven_that_leaves_nothing(machine: FakeMachine, folder: Path) -> None:
    machine.has_java()
    machine.has_maven("exit 0")
    assert "left no kafka_2.13-3.9.1.jar" in str(refusal(lambda: up(folder, small(), quiet)))


@pytest.mark.parametrize("service", [KAFKA, CASSANDRA])
def test_port_taken_is_said_before_anything_is_fetched(machine: FakeMachine, folder: Path, service: str) -> None:
    settings = small()
    port = settings.kafka_port + 1 if service == KAFKA else settings.cassandra_port
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        message = str(refusal(lambda: up(folder, settings, quiet)))
    assert f"needs port {port} of 127.0.0.1: Address already in use; choose another with --{service}-port" in message


def test_server_that_ends_at_once_is_told_with_its_last_lines(machine: FakeMachine, folder: Path) -> None:
    machine.has_java(server=ENDS)
    machine.has_maven()
    error = refusal(lambda: up(folder, small(wait_s=20), quiet))
    assert "ended" in str(error)
    assert error.log_lines[-2:] == ["the server starts", "out of luck"]


def test_server_that_does_not_come_up_in_time_is_told_with_its_last_lines(machine: FakeMachine, folder: Path) -> None:
    machine.has_java()
    machine.has_maven()
    error = refusal(lambda: up(folder, small(services=(KAFKA,)), quiet))
    assert "kafka-0 did not come up in 1 s: no answer" in str(error)
    assert error.log_lines == ["the server starts"]
    assert [state.name for state in status(folder)] == ["kafka-0"]
    assert down(folder, quiet) == {"kafka-0": "stopped"}


def test_cassandra_that_does_not_answer_is_not_ready(machine: FakeMachine, folder: Path) -> None:
    machine.has_java()
    machine.has_maven()
    error = refusal(lambda: up(folder, small(services=(CASSANDRA,)), quiet))
    assert "cassandra did not come up in 1 s: no answer (NoHostAvailable)" in str(error)


def test_record_that_cannot_be_read_is_refused(folder: Path) -> None:
    folder.mkdir()
    (folder / "stack.json").write_text("{}")
    assert "not a record of a stack" in str(refusal(lambda: status(folder)))
    (folder / "stack.json").unlink()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"brokers": 2}, "1 or 3 brokers, not 2"),
        ({"services": ("kafka", "redis")}, "not of kafka,redis"),
        ({"services": ()}, "made of kafka and cassandra"),
        ({"kafka_port": 65_535}, "ports are 1 to 65535"),
        ({"kafka_port": 0}, "ports are 1 to 65535"),
        ({"cassandra_port": 19_093}, "would share a port"),
        ({"kafka_heap_mb": 10}, "less than 256 MB"),
        ({"wait_s": 0}, "at least 1 second"),
    ],
)
def test_settings_that_cannot_be(given: dict[str, object], says: str) -> None:
    assert says in str(refusal(lambda: StackSettings(**given)))  # type: ignore[arg-type]


# -- from outside


def test_environment_chooses_folder_ports_and_servers() -> None:
    environment = {
        "EXCHANGE_SIM_STACK": "/somewhere",
        "EXCHANGE_SIM_STACK_KAFKA_PORT": "3000",
        "EXCHANGE_SIM_STACK_BROKERS": "3",
        "EXCHANGE_SIM_CASSANDRA": "one:9042,two:9042",
    }
    assert stack_folder(None, environment) == Path("/somewhere")
    assert stack_folder(Path("/given"), environment) == Path("/given")
    assert stack_settings(environment).addresses()[KAFKA] == "127.0.0.1:3000,127.0.0.1:3001,127.0.0.1:3002"
    assert addresses_given(environment) == {CASSANDRA: "one:9042,two:9042"}
    with pytest.raises(StackError, match="EXCHANGE_SIM_STACK_KAFKA_PORT must be a number, not 'x'"):
        stack_settings({"EXCHANGE_SIM_STACK_KAFKA_PORT": "x"})


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["exchange-sim", "stack", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.usefixtures("answering")
def test_commands_print_what_a_shell_can_take(
    machine: FakeMachine, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.has_java()
    machine.has_maven()
    settings = small()
    ports = ["--kafka-port", str(settings.kafka_port), "--cassandra-port", str(settings.cassandra_port)]
    where = ["--dir", str(folder)]
    assert command(monkeypatch, "status", *where) == 1
    assert command(monkeypatch, "up", *where, *ports) == 0
    printed = capsys.readouterr().out
    addresses = settings.addresses()
    assert printed.splitlines()[-1] == (
        f"export EXCHANGE_SIM_KAFKA={addresses[KAFKA]} EXCHANGE_SIM_CASSANDRA={addresses[CASSANDRA]}"
    )
    assert command(monkeypatch, "status", *where, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["addresses"] == addresses
    assert [server["state"] for server in found["servers"]] == [READY, READY]
    assert command(monkeypatch, "down", *where) == 0
    assert "cassandra: stopped" in capsys.readouterr().out


def test_failed_server_prints_its_log_then_one_line(
    machine: FakeMachine, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.has_java()
    machine.has_maven(FAILS)
    settings = small()
    ports = ["--kafka-port", str(settings.kafka_port), "--cassandra-port", str(settings.cassandra_port)]
    assert command(monkeypatch, "up", "--dir", str(folder), *ports) == 2
    assert capsys.readouterr().err.splitlines() == [
        "  | [ERROR] Could not resolve dependencies",
        "exchange-sim: Maven could not resolve kafka_2.13 3.9.1 (status 1)",
    ]
