"""`exchange-sim campaign`, `shrink` and `defects`: many runs, the smallest that fails, and what is sure to be found."""

from pathlib import Path
from typing import Annotated

import typer

from sim.commands.base import (
    HOLDS,
    VIOLATED,
    CommandError,
    Duration,
    Jobs,
    Json,
    Orders,
    Symbols,
    Users,
    given,
    size_options,
    stderr_progress,
    width_of,
)

gallery = typer.Typer(help="The defect gallery: what the harness must find, and how soon it does.")


@gallery.callback(invoke_without_command=True)
def defects(context: typer.Context, json: Json = False) -> None:
    if context.invoked_subcommand is None:
        list_defects(json)
    elif json:
        raise CommandError(f"write --json after {context.invoked_subcommand}")


@gallery.command("list")
def list_defects(json: Json = False) -> None:
    """Every defect with its meaning, the invariants of which one must catch it, and the faults that it needs."""
    from sim.report import print_defects

    print_defects(json_wanted=json)


@gallery.command("power")
def measure_power(
    only: Annotated[str | None, typer.Option(help="Names of defects joined by commas (default all).")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds after which a defect counts as not caught.")] = 200,
    first_seed: Annotated[int, typer.Option(min=0, help="The seed to begin with.")] = 0,
    orders: Orders = None,
    duration: Duration = None,
    jobs: Jobs = None,
    json: Json = False,
) -> None:
    """Run seeds with each defect until an invariant catches it; exit status 1 when one is not caught."""
    from sim.defects.power import hunt_all
    from sim.report import print_power
    from sim.scenario import Scenario

    names = _chosen(only)
    base = Scenario(seed=first_seed, **size_options(orders, None, None, duration))
    catches = print_power(
        hunt_all(names, base, seeds, width_of(jobs, len(names) * seeds)), stderr_progress(), json_wanted=json
    )
    raise typer.Exit(HOLDS if all(catch.caught for catch in catches.values()) else VIOLATED)


@gallery.command("shrink")
def shrink_gallery(
    only: Annotated[str | None, typer.Option(help="Names of defects joined by commas (default all).")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds to look for one that catches the defect.")] = 200,
    runs: Annotated[int, typer.Option(min=1, help="Cases to run at most, a defect.")] = 600,
    orders: Orders = None,
    jobs: Jobs = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep the repro of each smallest case here.")] = None,
    json: Json = False,
) -> None:
    """The smallest case of each defect, from the first seed that catches it; exit status 1 when none does."""
    import json as json_text

    from sim.scenario import Scenario
    from sim.shrink.gallery import as_json, closing_line, line_of, smallest_of_all

    names = _chosen(only)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    found = {}
    width = width_of(jobs, len(names))
    progress = stderr_progress()
    progress.show(f"{len(names)} defects to hunt and to shrink")
    for name, each in smallest_of_all(
        names, Scenario(**size_options(orders, None, None, None)), seeds, runs, width, out
    ):
        found[name] = each
        progress.clear()
        if not json:
            print(line_of(name, each), flush=True)
        progress.show(f"{len(found)} of {len(names)} defects shrunk")
    progress.clear()
    print(json_text.dumps(as_json(found)) if json else closing_line(found))
    raise typer.Exit(VIOLATED if None in found.values() else HOLDS)


def campaign(
    seeds: Annotated[str, typer.Option(metavar="A:B", help="From A up to, not including, B.")],
    jobs: Jobs = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Run on this dask.distributed cluster.")
    ] = None,
    defect: Annotated[str | None, typer.Option(help="A deliberate defect of the gallery, in every seed.")] = None,
    faults: Annotated[
        str | None,
        typer.Option(help="none, swarm, or names joined by commas (default swarm, or what the defect needs)."),
    ] = None,
    orders: Orders = None,
    users: Users = None,
    symbols: Symbols = None,
    duration: Duration = None,
    again: Annotated[int, typer.Option(min=0, help="Run so many seeds twice: their digests must be equal.")] = 0,
    judge: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="Only these invariants count, and must be exercised (default all)."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where results go, and are gone on from (default runs/campaign).")
    ] = None,
    json: Json = False,
) -> None:
    """Run and judge many seeds; the same command goes on where a killed one stopped."""
    from sim import defects
    from sim.campaign.campaign import Plan, run_campaign, verdict
    from sim.campaign.report import print_json, print_summary
    from sim.campaign.results import ResultStore
    from sim.campaign.workers import DaskWorkers, LocalWorkers, Workers
    from sim.faults.catalogue import OPTIONS
    from sim.faults.checks import check_names
    from sim.scenario import SWARM, Scenario
    from traces.invariants import ORDER

    sought = defects.named(given("--defect", defect))
    if faults is None:
        faults = sought.faults if sought is not None else SWARM
    first, end = _seeds(seeds)
    scenario = Scenario(faults=faults, defect=defect or "", **size_options(orders, users, symbols, duration))
    check_names(faults, OPTIONS)
    judged = tuple(name.strip() for name in names.split(",")) if (names := given("--judge", judge)) else ()
    for name in judged:
        if name not in ORDER:
            raise CommandError(f"unknown invariant {name!r}; there are: {', '.join(ORDER)}")
    plan = Plan(scenario, first, end, judged=judged, run_again=again)
    width = width_of(jobs, end - first)
    folder = out if out is not None else Path("runs") / "campaign"
    address = given("--scheduler", scheduler)
    workers: Workers = DaskWorkers(address) if address else LocalWorkers(width)
    tally = run_campaign(plan, workers, ResultStore(folder, scenario), width, stderr_progress())
    (print_json if json else print_summary)(plan, tally, folder)
    raise typer.Exit(VIOLATED if list(verdict(plan, tally)) else HOLDS)


def shrink(
    repro: Annotated[Path, typer.Argument(metavar="REPRO|TRACE", help="A repro file, or a trace folder.")],
    invariant: Annotated[str | None, typer.Option(help="What must still break (default: the first that does).")] = None,
    runs: Annotated[int, typer.Option(min=1, help="Cases to run at most.")] = 1_000,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the small repro goes (default beside, -shrunk.json).")
    ] = None,
    json: Json = False,
) -> None:
    """Find the smallest scenario that still breaks the same invariant; interrupted, keep the smallest so far."""
    from sim.repro import Repro, read_repro
    from sim.run import run_scenario
    from sim.shrink.report import print_json, print_summary
    from sim.shrink.shrinker import ShrinkInterrupted
    from sim.shrink.shrinker import shrink as shrink_scenario
    from traces.invariants import ORDER
    from traces.manifest import package_versions

    wanted = given("--invariant", invariant)
    if wanted and wanted not in ORDER:
        raise CommandError(f"unknown invariant {invariant!r}; there are: {', '.join(ORDER)}")
    path = out if out is not None else (whole := repro.resolve()).with_name(f"{whole.stem}-shrunk.json")
    if path.is_dir() or not path.parent.is_dir():
        raise CommandError(f"{path}: not the place of a file")
    interrupted: ShrinkInterrupted | None = None
    try:
        shrunk = shrink_scenario(read_repro(repro).scenario, wanted, runs, stderr_progress())
    except ShrinkInterrupted as error:
        interrupted, shrunk = error, error.shrunk
    # At once, because it is what took so long; and again with the digest, when that is known.
    Repro(shrunk.case, "", package_versions()).write(path)
    result = run_scenario(shrunk.case, None, stderr_progress())
    Repro(shrunk.case, result.digest, package_versions()).write(path)
    (print_json if json else print_summary)(shrunk, result, path)
    if interrupted is not None:
        raise interrupted
    # The case that was found breaks the invariant: that is what was asked for, and what the status says.
    raise typer.Exit(VIOLATED)


def _seeds(text: str) -> tuple[int, int]:
    from sim.scenario import SEEDS

    first, _, end = text.partition(":")
    if not (first.isdecimal() and end.isdecimal() and max(len(first), len(end)) <= len(str(SEEDS))):
        raise CommandError(f"--seeds wants A:B with A less than B, not {text[:60]!r}")
    if not int(first) < int(end) < SEEDS:
        raise CommandError(f"--seeds wants A:B with A less than B, and B less than {SEEDS}, not {text!r}")
    return int(first), int(end)


def _chosen(only: str | None) -> list[str]:
    """The names of `--only`; all of the gallery when it was not given."""
    from sim.defects import GALLERY

    if only is None:
        return list(GALLERY)
    names = [name.strip() for name in only.split(",")]
    for number, name in enumerate(names):
        if name not in GALLERY:
            raise CommandError(f"unknown defect {name!r}; there are: {', '.join(GALLERY)}")
        if name in names[:number]:
            raise CommandError(f"--only names {name} twice")
    return names
