"""`exchange-sim stack up|down|status`. Registered by `sim.commandline`; what they do is imported when they run."""

from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sim.commands.base import Json, stderr_progress
from sim.stack.settings import (
    ADDRESS_VARIABLES,
    BROKERS_VARIABLE,
    CASSANDRA_PORT_VARIABLE,
    DEFAULT_CASSANDRA_PORT,
    DEFAULT_KAFKA_PORT,
    FOLDER_VARIABLE,
    KAFKA_PORT_VARIABLE,
    SERVICES,
    StackSettings,
    stack_folder,
)

if TYPE_CHECKING:
    from sim.stack.lifecycle import ServerState

stack = typer.Typer(help="Real Kafka and Cassandra, as Java processes on loopback.", no_args_is_help=True)

Folder = Annotated[
    Path | None,
    typer.Option("--dir", metavar="DIR", help=f"The stack's folder (default ${FOLDER_VARIABLE}, or .stack)."),
]


@stack.command()
def up(
    folder: Folder = None,
    only: Annotated[str, typer.Option(help="kafka or cassandra alone.", show_default=False)] = ",".join(SERVICES),
    brokers: Annotated[int, typer.Option(envvar=BROKERS_VARIABLE, help="Kafka brokers, 1 or 3.")] = 1,
    kafka_port: Annotated[
        int, typer.Option(envvar=KAFKA_PORT_VARIABLE, help="First of the brokers' ports.")
    ] = DEFAULT_KAFKA_PORT,
    cassandra_port: Annotated[
        int,
        typer.Option(envvar=CASSANDRA_PORT_VARIABLE, help="Cassandra's port; the next is used too."),
    ] = DEFAULT_CASSANDRA_PORT,
    kafka_heap: Annotated[int, typer.Option(metavar="MB", help="Heap of each broker.")] = 512,
    cassandra_heap: Annotated[int, typer.Option(metavar="MB", help="Heap of Cassandra.")] = 768,
    wait: Annotated[int, typer.Option(metavar="S", help="How long each server may take to come up.")] = 180,
    json: Json = False,
) -> None:
    """Start what does not run yet, and wait until it answers."""
    from sim.stack.lifecycle import up as start_stack

    settings = StackSettings(
        services=tuple(each.strip() for each in only.split(",")),
        brokers=brokers,
        kafka_port=kafka_port,
        cassandra_port=cassandra_port,
        kafka_heap_mb=kafka_heap,
        cassandra_heap_mb=cassandra_heap,
        wait_s=wait,
    )
    progress = stderr_progress()
    try:
        states = start_stack(stack_folder(folder), settings, progress.show)
    finally:
        progress.clear()
    _print(states, settings.addresses(), json_wanted=json)


@stack.command()
def down(
    folder: Folder = None,
    wipe: Annotated[bool, typer.Option("--wipe", help="Remove the servers' data too.")] = False,
    json: Json = False,
) -> None:
    """Stop the servers that `up` started, and nothing else."""
    from sim.stack.lifecycle import down as stop_stack

    progress = stderr_progress()
    try:
        ended = stop_stack(stack_folder(folder), progress.show, wipe=wipe)
    finally:
        progress.clear()
    if json:
        print(dumps(ended))
        return
    for name, how in ended.items():
        print(f"{name}: {how}")
    if not ended:
        print(f"no stack was started in {stack_folder(folder)}")


@stack.command("run", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def run_command(
    command: Annotated[list[str], typer.Argument(metavar="COMMAND...", help="What to run, after `--`.")],
    folder: Folder = None,
) -> None:
    """Run a command with servers: those of the environment, else a stack that is started for it and stopped after it.

    The command finds their addresses in its environment. Exit status: the command's.
    """
    from sim.stack.lifecycle import run_with_servers
    from sim.stack.settings import stack_settings

    progress = stderr_progress()
    raise typer.Exit(run_with_servers(stack_folder(folder), stack_settings(), command, progress.show, progress.clear))


@stack.command()
def status(folder: Folder = None, json: Json = False) -> None:
    """Say how each server is; exit status 1 when one does not answer, or none was started."""
    from sim.stack.lifecycle import read_stack
    from sim.stack.lifecycle import status as ask_stack

    states = ask_stack(stack_folder(folder))
    recorded = read_stack(stack_folder(folder))
    _print(states, recorded.settings.addresses() if recorded is not None else {}, json_wanted=json)
    if not states and not json:
        print(f"no stack was started in {stack_folder(folder)}")
    if not states or not all(state.is_ready for state in states):
        raise typer.Exit(1)


def _print(states: "list[ServerState]", addresses: dict[str, str], *, json_wanted: bool) -> None:
    if json_wanted:
        print(dumps({"addresses": addresses, "servers": [asdict(state) for state in states]}))
        return
    for state in states:
        print(f"{state.name:10} {state.address:16} {state.state:10} process {state.pid}, log {state.log}")
    if states and all(state.is_ready for state in states):
        print("export " + " ".join(f"{ADDRESS_VARIABLES[service]}={address}" for service, address in addresses.items()))
