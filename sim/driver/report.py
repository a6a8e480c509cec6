"""What `drive` prints: a summary for a person, or one JSON object."""

import json
from typing import Any

from sim.driver.drive import DriveResult, Workload
from traces.summary import completions_by_reason, counts, verdict_lines, violation_lines


def as_json(workload: Workload, result: DriveResult) -> dict[str, Any]:
    """A run on real servers as plain data."""
    found = counts(result.trace)
    return {
        "seed": workload.seed,
        "digest": result.trace.manifest.digest,
        "scenario": result.trace.manifest.scenario,
        "wall_seconds": round(result.wall_s, 3),
        "work_seconds": round(result.work_s, 3),
        "settle_seconds": round(result.settle_s, 3),
        **{name: found[name] for name in ("orders", "placements", "trades", "events")},
        "completions": completions_by_reason(result.trace),
        "orders_per_second": round(_rate(result, found["orders"]), 1),
        "requests_per_second": round(_rate(result, len(result.answers.durations_ns)), 1),
        "request_to_answer": result.answers.as_dict(),
        "request_to_row": {**result.rows.as_dict(), "not_seen": result.rows_not_seen},
        "clients": result.client_counts,
        "flow": workload.report.as_dict() if workload.report is not None else None,
        "invariants": {
            name: {"verdict": each.verdict, "checked": each.checked, "violations": len(each.violations)}
            for name, each in result.verdicts.items()
        },
        "trace": str(result.path) if result.path is not None else None,
    }


def print_json(workload: Workload, result: DriveResult) -> None:
    """One JSON object on standard output."""
    print(json.dumps(as_json(workload, result)))


def print_summary(workload: Workload, result: DriveResult) -> None:
    """What was driven, how fast it was, every verdict, and where the trace is."""
    found = as_json(workload, result)
    print(f"seed {workload.seed}: {found['orders']:,} orders in real time on real servers")
    print(f"  {found['placements']:,} placements, {found['trades']:,} trades")
    completions = ", ".join(f"{name} {count:,}" for name, count in found["completions"].items())
    print(f"  completions: {completions or 'none'}")
    clients = ", ".join(f"{name} {count:,}" for name, count in result.client_counts.items())
    print(f"  clients: {clients}")
    for line in workload.report.lines() if workload.report is not None else ():
        print(f"  {line}")
    print()
    print("\n".join(verdict_lines(result.verdicts)))
    if not result.holds:
        print()
        print("\n".join(violation_lines(result.trace, result.verdicts)))
    print()
    print(
        f"speed    {found['orders_per_second']:,} orders/s, {found['requests_per_second']:,} order commands/s, over "
        f"{result.work_s:.1f} s; settled {result.settle_s:.1f} s after the clients were stopped"
    )
    for name, latency in (("answered", result.answers), ("row seen", result.rows)):
        print(
            f"{name} median {latency.percentile_ms(50)} ms, 99th {latency.percentile_ms(99)} ms, "
            f"longest {latency.percentile_ms(100)} ms ({len(latency.durations_ns):,} measured)"
        )
    if result.rows_not_seen:
        print(f"         {result.rows_not_seen} rows were not seen within a minute")
    if result.path is not None:
        print(f"trace    {result.path}")


def _rate(result: DriveResult, number: int) -> float:
    return number / result.work_s if result.work_s else 0.0
