"""The command line, `exchange-sim` (design section 10).

Exit status: 0 when all invariants hold, 1 when one is violated, 2 when the command could not do what was asked, with
one clear line on stderr and no traceback. Everything heavy is imported inside the commands, to keep `--help` quick.
"""

import sys
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from sim import live_commands
from sim.audit_command import audit
from sim.conform.commands import conform
from sim.stack.commands import stack

if TYPE_CHECKING:
    from sim.progress import Progress

HOLDS = 0
VIOLATED = 1
UNUSABLE = 2


class CommandError(Exception):
    """What was asked cannot be done; the message is the one line that is printed."""


app = typer.Typer(
    name="exchange-sim",
    help="Deterministic simulation and verification of a trading exchange's order pipeline.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a summary.")]


def _duration_ns(text: str) -> int:
    try:
        seconds = Decimal(text)
        nanoseconds = seconds * 1_000_000_000
        if not seconds.is_finite() or nanoseconds != nanoseconds.to_integral_value():
            raise InvalidOperation
    except InvalidOperation:
        raise CommandError(f"--duration must be a number of seconds, not {text!r}") from None
    return int(nanoseconds)


@app.command()
def run(
    seed: Annotated[int, typer.Option(help="Where every random stream of the run begins.")] = 0,
    orders: Annotated[int | None, typer.Option(help="New orders that the synthetic flow places.")] = None,
    users: Annotated[int | None, typer.Option(help="Clients that trade.")] = None,
    symbols: Annotated[int | None, typer.Option(help="Tradable pairs of the synthetic market.")] = None,
    duration: Annotated[
        str | None, typer.Option(metavar="S", help="Simulated seconds of work under faults.", show_default=False)
    ] = None,
    flow: Annotated[
        str, typer.Option(help="synthetic, or a file: JSON lines, NASDAQ ITCH 5.0 (plain or .gz), LOBSTER messages.")
    ] = "synthetic",
    faults: Annotated[
        str | None,
        typer.Option(help="none, swarm, or names joined by commas (default swarm, or what the defect needs)."),
    ] = None,
    defect: Annotated[str, typer.Option(help="A deliberate defect of the gallery, for this run only.")] = "",
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where the trace goes (default runs/seed-N).")] = None,
    json: Json = False,
) -> None:
    """Simulate one seed, judge it, and store its trace."""
    from sim import defects
    from sim.report import print_json, print_summary
    from sim.run import run_scenario
    from sim.scenario import SWARM, Scenario

    sought = defects.named(defect)
    if faults is None:
        faults = sought.faults if sought is not None else SWARM
    given = {"orders": orders, "users": users, "symbols": symbols}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if duration is not None:
        options["duration_ns"] = _duration_ns(duration)
    scenario = Scenario(seed=seed, flow=flow, faults=faults, defect=defect, **options)
    result = run_scenario(scenario, out if out is not None else Path("runs") / f"seed-{seed}", _progress())
    (print_json if json else print_summary)(result)
    raise typer.Exit(HOLDS if result.holds else VIOLATED)


@app.command()
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


@app.command()
def replay(
    trace: Annotated[Path, typer.Argument(metavar="TRACE|REPRO", help="A trace folder, or a repro file.")],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Store the new trace here.")] = None,
    json: Json = False,
) -> None:
    """Run the scenario of a trace or repro again; the digest must be the same."""
    from sim.report import print_json, print_summary
    from sim.repro import read_repro
    from sim.run import run_scenario

    repro = read_repro(trace)
    result = run_scenario(repro.scenario, out, _progress())
    (print_json if json else print_summary)(result)
    if result.digest != repro.digest:
        raise CommandError(
            f"the digest is {result.digest}, {trace} expects {repro.digest}: " + repro.difference_from_this_code()
        )
    raise typer.Exit(HOLDS if result.holds else VIOLATED)


@app.command()
def bench(
    json: Json = False,
    only: Annotated[str | None, typer.Option(help="Names of benchmarks joined by commas.")] = None,
) -> None:
    """Measure the figures of design section 11 on this machine."""
    from benchmarks.suite import BenchmarkError, print_figures, run_suite

    try:
        figures = run_suite(only.split(",") if only is not None else None, _progress())
    except BenchmarkError as error:
        raise CommandError(str(error)) from None
    print_figures(figures, json_wanted=json)


gallery = typer.Typer(help="The defect gallery: what the harness must find, and how soon it does.")
app.add_typer(gallery, name="defects")


@gallery.callback(invoke_without_command=True)
def defects(context: typer.Context, json: Json = False) -> None:
    if context.invoked_subcommand is None:
        list_defects(json)


@gallery.command("list")
def list_defects(json: Json = False) -> None:
    """Every defect with its meaning, the invariants of which one must catch it, and the faults that it needs."""
    from sim.report import print_defects

    print_defects(json_wanted=json)


@gallery.command("power")
def measure_power(
    only: Annotated[str, typer.Option(help="Names of defects joined by commas (default all).")] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds after which a defect counts as not caught.")] = 200,
    first_seed: Annotated[int, typer.Option(min=0, help="The seed to begin with.")] = 0,
    orders: Annotated[int, typer.Option(help="New orders that the synthetic flow places.")] = 600,
    duration: Annotated[str, typer.Option(metavar="S", help="Simulated seconds of work under faults.")] = "20",
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes (default one a core).")] = None,
    json: Json = False,
) -> None:
    """Run seeds with each defect until an invariant catches it; exit status 1 when one is not caught."""
    import os

    from sim.defects import GALLERY, named
    from sim.defects.power import hunt_all
    from sim.report import print_power
    from sim.scenario import Scenario

    names = [name.strip() for name in only.split(",")] if only else list(GALLERY)
    for name in names:
        named(name)
    base = Scenario(seed=first_seed, orders=orders, duration_ns=_duration_ns(duration))
    catches = print_power(hunt_all(names, base, seeds, jobs or os.cpu_count() or 1), _progress(), json_wanted=json)
    raise typer.Exit(HOLDS if all(catch.caught for catch in catches.values()) else VIOLATED)


@gallery.command("shrink")
def shrink_gallery(
    only: Annotated[str, typer.Option(help="Names of defects joined by commas (default all).")] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds to look for one that catches the defect.")] = 200,
    runs: Annotated[int, typer.Option(min=1, help="Cases to run at most, a defect.")] = 600,
    orders: Annotated[int, typer.Option(help="New orders that the synthetic flow places.")] = 600,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes (default one a core).")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep the repro of each smallest case here.")] = None,
    json: Json = False,
) -> None:
    """The smallest case of each defect, from the first seed that catches it."""
    import json as json_text
    import os

    from sim.defects import GALLERY, named
    from sim.scenario import Scenario
    from sim.shrink.gallery import as_json, closing_line, line_of, smallest_of_all

    names = [name.strip() for name in only.split(",")] if only else list(GALLERY)
    for name in names:
        named(name)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, each in smallest_of_all(names, Scenario(orders=orders), seeds, runs, jobs or os.cpu_count() or 1, out):
        found[name] = each
        if not json:
            print(line_of(name, each), flush=True)
    print(json_text.dumps(as_json(found)) if json else closing_line(found))


@app.command()
def campaign(
    seeds: Annotated[str, typer.Option(metavar="A:B", help="From A up to, not including, B.")],
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes (default one a core).")] = None,
    scheduler: Annotated[str, typer.Option(metavar="ADDRESS", help="Run on this dask.distributed cluster.")] = "",
    defect: Annotated[str, typer.Option(help="A deliberate defect of the gallery, in every seed.")] = "",
    faults: Annotated[
        str | None,
        typer.Option(help="none, swarm, or names joined by commas (default swarm, or what the defect needs)."),
    ] = None,
    orders: Annotated[int | None, typer.Option(help="New orders that the synthetic flow places, a seed.")] = None,
    again: Annotated[int, typer.Option(min=0, help="Run so many seeds twice: their digests must be equal.")] = 0,
    judge: Annotated[
        str, typer.Option(metavar="NAME,...", help="Only these invariants count, and must be exercised (default all).")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where results go, and are gone on from (default runs/campaign).")
    ] = None,
    json: Json = False,
) -> None:
    """Run and judge many seeds; the same command goes on where a killed one stopped."""
    import os

    from sim import defects
    from sim.campaign.campaign import Plan, run_campaign, verdict
    from sim.campaign.report import print_json, print_summary
    from sim.campaign.results import ResultStore
    from sim.campaign.workers import DaskWorkers, LocalWorkers, Workers
    from sim.faults.catalogue import OPTIONS
    from sim.faults.plan import check_names
    from sim.scenario import SWARM, Scenario
    from traces.invariants import ORDER

    sought = defects.named(defect)
    if faults is None:
        faults = sought.faults if sought is not None else SWARM
    first, end = _seeds(seeds)
    scenario = Scenario(faults=faults, defect=defect, orders=Scenario.orders if orders is None else orders)
    check_names(faults, OPTIONS)
    judged = tuple(name.strip() for name in judge.split(",")) if judge else ()
    for name in judged:
        if name not in ORDER:
            raise CommandError(f"unknown invariant {name!r}; there are: {', '.join(ORDER)}")
    plan = Plan(scenario, first, end, judged=judged, run_again=again)
    width = jobs or os.cpu_count() or 1
    folder = out if out is not None else Path("runs") / "campaign"
    workers: Workers = DaskWorkers(scheduler) if scheduler else LocalWorkers(width)
    tally = run_campaign(plan, workers, ResultStore(folder, scenario), width, _progress())
    (print_json if json else print_summary)(plan, tally, folder)
    raise typer.Exit(VIOLATED if list(verdict(plan, tally)) else HOLDS)


@app.command()
def shrink(
    repro: Annotated[Path, typer.Argument(metavar="REPRO|TRACE", help="A repro file, or a trace folder.")],
    invariant: Annotated[str, typer.Option(help="What must still break (default: the first that does).")] = "",
    runs: Annotated[int, typer.Option(min=1, help="Cases to run at most.")] = 1_000,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the small repro goes (default beside, -shrunk.json).")
    ] = None,
    json: Json = False,
) -> None:
    """Find the smallest scenario that still breaks the same invariant."""
    from sim.repro import Repro, read_repro
    from sim.run import run_scenario
    from sim.shrink.report import print_json, print_summary
    from sim.shrink.shrinker import shrink as shrink_scenario
    from traces.invariants import ORDER
    from traces.manifest import package_versions

    if invariant and invariant not in ORDER:
        raise CommandError(f"unknown invariant {invariant!r}; there are: {', '.join(ORDER)}")
    shrunk = shrink_scenario(read_repro(repro).scenario, invariant, runs, _progress())
    result = run_scenario(shrunk.case, None, _progress())
    path = out if out is not None else repro.with_name(f"{repro.stem}-shrunk.json")
    Repro(shrunk.case, result.digest, package_versions()).write(path)
    (print_json if json else print_summary)(shrunk, result, path)
    # The case that was found breaks the invariant: that is what was asked for, and what the status says.
    raise typer.Exit(VIOLATED)


def _seeds(text: str) -> tuple[int, int]:
    first, _, end = text.partition(":")
    if not (first.isdecimal() and end.isdecimal() and int(first) < int(end)):
        raise CommandError(f"--seeds wants A:B with A less than B, not {text!r}")
    return int(first), int(end)


live_commands.register(app)
app.add_typer(stack, name="stack")
app.command()(audit)
app.command()(conform)


def _progress() -> "Progress":
    from sim.progress import Progress

    return Progress(sys.stderr)


def main() -> NoReturn:
    """Entry point; turns every expected error into one line and exit status 2."""
    try:
        status = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except typer.TyperException as error:
        # Usage errors know which option they are about; the plain text does not say so.
        status = _refuse(error.format_message() if hasattr(error, "format_message") else str(error))
    except (typer.Abort, KeyboardInterrupt):
        status = _refuse("interrupted")
    except BrokenPipeError:
        # The reader of our output has gone; there is nobody to tell.
        sys.stderr.close()
        status = UNUSABLE
    except Exception as error:
        if not _is_expected(error):
            raise
        # Of a server that failed, its own last words; the line that counts comes last.
        print("".join(f"  | {line}\n" for line in getattr(error, "log_lines", [])), end="", file=sys.stderr)
        status = _refuse(str(error))
    sys.exit(status or HOLDS)


def _is_expected(error: Exception) -> bool:
    """Whether an error is about what was asked, not a mistake of ours."""
    from sim.campaign.results import CampaignError
    from sim.campaign.workers import WorkersError
    from sim.flows import FlowError
    from sim.scenario import ScenarioError
    from sim.shrink.target import ShrinkError
    from sim.stack.settings import StackError
    from traces.manifest import TraceError

    expected = (
        CommandError,
        CampaignError,
        WorkersError,
        FlowError,
        ScenarioError,
        ShrinkError,
        StackError,
        TraceError,
        OSError,
    )
    return isinstance(error, expected)


def _refuse(message: str) -> int:
    line = " ".join(message.split())
    print(f"exchange-sim: {line}", file=sys.stderr)
    return UNUSABLE


if __name__ == "__main__":
    main()
