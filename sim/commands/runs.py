"""`exchange-sim run`, `check`, `replay` and `bench`: one run, and what it is worth."""

from pathlib import Path
from typing import Annotated

import typer

from sim.commands.base import (
    HOLDS,
    VIOLATED,
    CommandError,
    Duration,
    Json,
    Orders,
    Symbols,
    Users,
    given,
    size_options,
    stderr_progress,
)


def run(
    seed: Annotated[int, typer.Option(help="Where every random stream of the run begins.")] = 0,
    orders: Orders = None,
    users: Users = None,
    symbols: Symbols = None,
    duration: Duration = None,
    flow: Annotated[
        str, typer.Option(help="synthetic, or a file: JSON lines, NASDAQ ITCH 5.0 (plain or .gz), LOBSTER messages.")
    ] = "synthetic",
    faults: Annotated[
        str | None,
        typer.Option(help="none, swarm, or names joined by commas (default swarm, or what the defect needs)."),
    ] = None,
    defect: Annotated[str | None, typer.Option(help="A deliberate defect of the gallery, for this run only.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where the trace goes (default runs/seed-N).")] = None,
    json: Json = False,
) -> None:
    """Simulate one seed, judge it, and store its trace."""
    from sim import defects
    from sim.report import print_json, print_summary
    from sim.run import run_scenario
    from sim.scenario import SWARM, Scenario

    sought = defects.named(given("--defect", defect))
    if faults is None:
        faults = sought.faults if sought is not None else SWARM
    size = size_options(orders, users, symbols, duration)
    scenario = Scenario(seed=seed, flow=flow, faults=faults, defect=defect or "", **size)
    result = run_scenario(scenario, out if out is not None else Path("runs") / f"seed-{seed}", stderr_progress())
    (print_json if json else print_summary)(result)
    raise typer.Exit(HOLDS if result.holds else VIOLATED)


def check(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="The folder of a stored trace.")],
    json: Json = False,
) -> None:
    """Judge a stored trace again by all invariants."""
    from sim.report import print_verdicts
    from traces.invariants import check as check_trace
    from traces.store import read_trace

    stored = read_trace(trace)
    verdicts = check_trace(stored)
    print_verdicts(stored, verdicts, trace, json_wanted=json)
    raise typer.Exit(VIOLATED if any(each.verdict == "violated" for each in verdicts.values()) else HOLDS)


def explain(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="The folder of a stored trace.")],
    order: Annotated[int, typer.Option(min=1, help="The id of an order; `check` names those that it complains of.")],
    json: Json = False,
) -> None:
    """Tell what happened to one order: requests, records, statements, reads, logs and final rows, in order of time."""
    import json as json_text

    from traces.store import read_trace
    from traces.stories.order import order_story

    lines = order_story(read_trace(trace), order)
    if not lines:
        raise CommandError(f"{trace}: nothing is known of an order {order}")
    print(json_text.dumps({"order_id": order, "story": lines}) if json else "\n".join(lines))


def replay(
    trace: Annotated[Path, typer.Argument(metavar="TRACE|REPRO", help="A trace folder, or a repro file.")],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Store the new trace here.")] = None,
    json: Json = False,
) -> None:
    """Run the scenario of a trace or repro again; the digest must be the same, where one is known."""
    from sim.report import print_json, print_summary
    from sim.repro import read_repro
    from sim.run import run_scenario

    repro = read_repro(trace)
    if out is not None and out.resolve() == trace.resolve():
        raise CommandError(f"--out {out}: the trace that is replayed; give the new one a place of its own")
    result = run_scenario(repro.scenario, out, stderr_progress())
    if json:
        print_json(result)
    else:
        print_summary(result, trace)
    if repro.digest and result.digest != repro.digest:
        raise CommandError(
            f"the digest is {result.digest}, {trace} expects {repro.digest}: " + repro.difference_from_this_code()
        )
    raise typer.Exit(HOLDS if result.holds else VIOLATED)


def bench(
    json: Json = False,
    only: Annotated[str | None, typer.Option(help="Names of benchmarks joined by commas.")] = None,
) -> None:
    """Measure the figures of design section 11 on this machine."""
    from benchmarks.suite import BenchmarkError, print_figures, run_suite

    try:
        figures = run_suite(only.split(",") if only is not None else None, stderr_progress())
    except BenchmarkError as error:
        raise CommandError(str(error)) from None
    print_figures(figures, json_wanted=json)
