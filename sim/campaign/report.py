"""What a campaign prints: a summary for a person, or one JSON object (design section 10)."""

import json
from pathlib import Path

from sim.campaign.campaign import Plan, verdict
from sim.campaign.tally import OUTSIDE_THE_SWARM, Failure, Tally
from traces.invariants import ORDER
from traces.reachability import GOALS
from traces.stories.words import counted


def print_json(plan: Plan, tally: Tally, folder: Path) -> None:
    """One JSON object; the field names are part of the command line's contract."""
    print(
        json.dumps(
            {
                "seeds": tally.seeds,
                "passed": tally.passed,
                "failed": [
                    {
                        "seed": each.seed,
                        "invariants": list(each.invariants),
                        "what_broke": each.what_broke,
                        "repro": str(each.repro) if each.repro is not None else None,
                        "trace": str(each.trace) if each.trace is not None else None,
                    }
                    for each in sorted(tally.failures, key=lambda failure: failure.seed)
                ],
                "reachability": {name: tally.goal_times[name] for name in GOALS},
                "reachability_seeds": {name: tally.goal_seeds[name] for name in GOALS},
                "invariants_exercised": {name: tally.exercised[name] for name in ORDER},
                "faults": dict(sorted(tally.fault_times.items())),
                "run_again": tally.run_again,
                "unstable": tally.unstable,
                "not_run_again": sorted(tally.not_run_again),
                "wall_seconds": round(tally.wall_seconds, 3),
                "seeds_per_second": round(tally.seeds_per_second, 3),
                "orders_per_second": round(tally.orders_per_second, 1),
                "green": not list(verdict(plan, tally)),
                "out": str(folder),
            }
        )
    )


def print_summary(plan: Plan, tally: Tally, folder: Path) -> None:
    """Failures by what broke, each with one command that shows it; goals; invariants; speed."""
    print(f"seeds {plan.first} to {plan.end - 1}: {tally.passed:,} passed, {len(tally.failures):,} failed")
    for what_broke, failures in tally.groups().items():
        print()
        print("\n".join(_group_lines(what_broke, failures)))
    print()
    print("goals reached (seeds, times)")
    for name in GOALS:
        mark = "✓" if tally.goal_seeds[name] else "✗"
        print(f"  {mark} {name:46} {tally.goal_seeds[name]:7,} {tally.goal_times[name]:10,}")
    print()
    print("invariants exercised (seeds)")
    for name in ORDER:
        note = "  needs a fault outside the swarm" if name in OUTSIDE_THE_SWARM and not tally.exercised[name] else ""
        print(f"  {name:30} {tally.exercised[name]:7,}{note}")
    print()
    if tally.run_again:
        failed = f", {len(tally.not_run_again):,} could not be" if tally.not_run_again else ""
        print(f"digests  {tally.run_again:,} seeds run again, {len(tally.unstable):,} differ{failed}")
    print(
        f"speed    {tally.seeds_per_second:.2f} seeds/s, {tally.orders_per_second:,.0f} orders/s, "
        f"{tally.ran:,} seeds in {tally.wall_seconds:,.1f} s"
    )
    print(f"results  {folder}")
    print()
    reasons = list(verdict(plan, tally))
    judged = f" of {', '.join(plan.judged)}" if plan.judged else ""
    print("; ".join(reasons) if reasons else f"green: {tally.passed:,} seeds without a violation{judged}")


def _group_lines(what_broke: str, failures: list[Failure]) -> list[str]:
    shown = failures[0]
    seeds = ", ".join(str(each.seed) for each in failures[:8]) + (", ..." if len(failures) > 8 else "")
    lines = [f"{what_broke}", f"  {counted(len(failures), 'seed')}: {seeds}"]
    if shown.first_violation:
        lines.append(f"  first of seed {shown.seed}: {shown.first_violation}")
    if shown.repro is not None:
        lines.append(f"  exchange-sim replay {shown.repro}")
    return lines
