"""`exchange-sim audit`: the invariants on a running system. Registered by `sim.commandline`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.commands.base import HOLDS, VIOLATED, CommandError, Json, stderr_progress
from sim.commands.live import (
    LOCAL_CASSANDRA,
    LOCAL_KAFKA,
    SYNTHETIC,
    Cassandra,
    Datacenter,
    FlowFile,
    Kafka,
    LiveSettings,
    MarketChoice,
    NamespaceName,
    SymbolPartitions,
    Symbols,
    TopologyFile,
    UserPartitions,
    Wait,
)

if TYPE_CHECKING:
    from live.audit import AuditResult


def audit(
    kafka: Kafka = LOCAL_KAFKA,
    cassandra: Cassandra = LOCAL_CASSANDRA,
    namespace: NamespaceName = "",
    topology: TopologyFile = None,
    flow: FlowFile = SYNTHETIC,
    symbols: Symbols = 3,
    user_partitions: UserPartitions = 3,
    symbol_partitions: SymbolPartitions = 2,
    settle: Annotated[
        float, typer.Option(metavar="S", min=0, help="How long the services may take to come to the topics' ends.")
    ] = 120.0,
    rest: Annotated[
        float, typer.Option(metavar="S", min=0, help="How long the system is then given to come to rest.")
    ] = 10.0,
    datacenter: Datacenter = "",
    wait: Wait = 30.0,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep the trace here, for `check`.")] = None,
    json: Json = False,
) -> None:
    """Judge a running system by its topics and tables, without disturbing it.

    Give the namespace and market that the services were started with. Nothing is written or created, no group joined.
    """
    from live.audit import AuditOptions
    from live.audit import audit as audit_system
    from live.connections import ServersUnusable
    from live.reading import ReadingError
    from traces.store import check_place

    if out is not None:
        check_place(out)
    settings = LiveSettings(kafka, cassandra, namespace, 0, 0, datacenter, wait)
    market = MarketChoice(topology, flow, symbols, user_partitions, symbol_partitions)
    options = AuditOptions(settings.servers(), market.topology(), settle, rest)
    progress = stderr_progress()
    try:
        result = audit_system(options, out, progress.show)
    except (ServersUnusable, ReadingError) as error:
        raise CommandError(str(error)) from None
    finally:
        progress.clear()
    if json:
        from json import dumps

        print(dumps(as_json(result)))
    else:
        print_summary(result)
    raise typer.Exit(HOLDS if result.holds else VIOLATED)


def as_json(result: "AuditResult") -> dict[str, Any]:
    """An audit as plain data."""
    from traces.summary import completions_by_reason, counts

    found = counts(result.trace)
    record = result.trace.manifest.audit
    return {
        "state": result.state,
        "behind": result.details,
        "records_read": result.records,
        "rows_read": result.rows,
        "later_orders": len(record.later_orders) if record is not None else 0,
        **{name: found[name] for name in ("orders", "placements", "trades", "outputs", "balance_events")},
        "completions": completions_by_reason(result.trace),
        "wall_seconds": round(result.wall_s, 3),
        "invariants": {
            name: {"verdict": each.verdict, "checked": each.checked, "violations": len(each.violations)}
            for name, each in result.verdicts.items()
        },
        "trace": str(result.path) if result.path is not None else None,
    }


def print_summary(result: "AuditResult") -> None:
    """What was read, in what state the system was, every verdict, and why some invariants could not be exercised."""
    from live.audit import NOT_SHOWN
    from live.audit_trace import AT_REST, AT_WORK
    from traces.summary import verdict_lines, violation_lines
    from traces.verdicts import NOT_EXERCISED

    found = as_json(result)
    print(
        f"read {result.records:,} records and {result.rows:,} rows in {result.wall_s:.1f} s: "
        f"{found['orders']:,} orders, {found['placements']:,} placements, {found['trades']:,} trades"
    )
    if result.state == AT_REST:
        print("the system is at rest: everything is judged")
    elif result.state == AT_WORK:
        print(
            "the system is at work: judged is the moment that settlement had come to; "
            f"{found['later_orders']:,} orders have a later event, and are not judged by their rows"
        )
    else:
        print("the system is behind: rows that are missing are not judged")
        for line in result.details:
            print(f"  {line}")
    print()
    print("\n".join(verdict_lines(result.verdicts)))
    idle = [name for name, each in result.verdicts.items() if each.verdict == NOT_EXERCISED]
    if idle:
        print()
        print("not exercised")
        for name in idle:
            print(f"  {name}: {NOT_SHOWN.get(name, 'there is nothing yet that could break it')}")
    if not result.holds:
        print()
        print("\n".join(violation_lines(result.trace, result.verdicts)))
    if result.path is not None:
        print()
        print(f"trace   {result.path}")
