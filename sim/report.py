"""What the commands print about a run: a summary for a person, or one JSON object (design section 10)."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sim.defects import GALLERY
from sim.defects.power import Catch, closing_line
from sim.defects.power import as_json as power_as_json
from sim.progress import Progress
from sim.repro import command_for
from sim.run import RunResult
from sim.scenario import SECOND_NS, SYNTHETIC
from traces.summary import verdict_lines, violation_lines
from traces.trace import Trace
from traces.verdicts import Verdict


def as_json(result: RunResult) -> dict[str, Any]:
    """A run as plain data; the field names are part of the command line's contract."""
    found = result.counts
    return {
        "seed": result.scenario.seed,
        "digest": result.digest,
        "scenario": result.scenario.as_dict(),
        "sim_seconds": result.simulated.sim_ns / SECOND_NS,
        "wall_seconds": round(result.wall_seconds, 6),
        "check_seconds": round(result.check_seconds, 6),
        "store_seconds": round(result.store_seconds, 6),
        **{name: found[name] for name in ("orders", "placements", "trades", "events")},
        "completions": result.completions,
        "faults": result.simulated.struck,
        "fault_moments": result.simulated.met,
        "fault_hits": result.simulated.hits,
        "flow": result.simulated.flow_report.as_dict() if result.simulated.flow_report is not None else None,
        "invariants": _verdicts(result.verdicts),
        "trace": str(result.path) if result.path is not None else None,
    }


def print_json(result: RunResult) -> None:
    """One JSON object on standard output."""
    print(json.dumps(as_json(result)))


def print_summary(result: RunResult, replayed: Path | None = None) -> None:
    """What was simulated, what struck, every verdict, the digest, the speed and where the trace is.

    `replayed` is the trace or repro that the scenario came from, when it came from one.
    """
    scenario, trace, topology = result.scenario, result.trace, result.simulated.topology
    found = result.counts
    orders = found["orders"]
    if scenario.script is not None:
        operations = scenario.script.operations
        users, symbols = len({each.user_id for each in operations}), len(topology.symbols)
        flow = f"flow written out, {len(operations):,} operations, {users} users, {symbols} symbols"
    elif scenario.flow == SYNTHETIC:
        flow = f"synthetic flow, {scenario.users} users, {scenario.symbols} symbols"
    else:
        flow = f"recorded flow {scenario.flow}"
    print(f"seed {scenario.seed}: {orders:,} orders of a {flow}")
    print(
        f"  {scenario.gateways} gateways, {scenario.instances} instances each of ubscore, matching and settlement, "
        f"{scenario.brokers} brokers, {scenario.replicas} replicas; "
        f"{topology.user_partitions} user and {topology.symbol_partitions} symbol partitions"
    )
    print(
        f"  {result.simulated.sim_ns / SECOND_NS:,.1f} s simulated; {found['placements']:,} placements, "
        f"{found['trades']:,} trades, {found['events']:,} events"
    )
    completions = ", ".join(f"{name} {count:,}" for name, count in result.completions.items())
    print(f"  completions: {completions or 'none'}")
    if result.simulated.flow_report is not None:
        for line in result.simulated.flow_report.lines():
            print(f"  {line}")
    print()
    _print_faults(result)
    print()
    print("\n".join(verdict_lines(result.verdicts)))
    if not result.holds:
        print()
        print("\n".join(violation_lines(trace, result.verdicts)))
    print()
    print(f"digest  {result.digest}")
    print(
        f"speed   {orders / result.wall_seconds:,.0f} orders/s, {result.wall_seconds:.2f} s in all, "
        f"of it {result.check_seconds:.2f} s checking and {result.store_seconds:.2f} s storing"
    )
    if result.path is not None:
        print(f"trace   {result.path}")
    if not result.holds:
        print(f"again   {command_for(scenario) or f'exchange-sim replay {replayed or result.path}'}")
    print()
    print(_closing_line(result.verdicts))


def print_verdicts(trace: Trace, verdicts: Mapping[str, Verdict], folder: Path, *, json_wanted: bool) -> None:
    """What `check` found in a stored trace."""
    if json_wanted:
        print(
            json.dumps(
                {
                    "trace": str(folder),
                    "seed": trace.manifest.seed,
                    "digest": trace.manifest.digest,
                    "invariants": _verdicts(verdicts),
                }
            )
        )
        return
    print(f"{folder}: seed {trace.manifest.seed}, digest {trace.manifest.digest}")
    print()
    print("\n".join(verdict_lines(verdicts)))
    if violations := violation_lines(trace, verdicts):
        print()
        print("\n".join(violations))
    print()
    print(_closing_line(verdicts))


def print_defects(*, json_wanted: bool) -> None:
    """The defect gallery."""
    if json_wanted:
        print(
            json.dumps(
                {
                    defect.name: {
                        "meaning": defect.meaning,
                        "caught_by": defect.caught_by,
                        "faults": defect.faults,
                        "replaces": [str(each) for each in defect.replacements],
                    }
                    for defect in GALLERY.values()
                }
            )
        )
        return
    for defect in GALLERY.values():
        print(f"{defect.name}\n    {defect.meaning}")
        print(f"    caught by {' or '.join(defect.caught_by)}; faults: {defect.faults}")


def print_power(hunted: Iterable[tuple[str, Catch]], progress: Progress, *, json_wanted: bool) -> dict[str, Catch]:
    """Each defect as its hunt ends, then a closing line; or one JSON object. Returns what was printed."""
    catches: dict[str, Catch] = {}
    for name, catch in hunted:
        catches[name] = catch
        progress.clear()
        if not json_wanted:
            how = ", ".join(catch.invariants) if catch.caught else "NOT CAUGHT"
            print(f"{name:34} {catch.seeds_to_catch:4} seeds   {how}", flush=True)
        progress.show(f"{len(catches)} defects hunted")
    progress.clear()
    print(json.dumps(power_as_json(catches)) if json_wanted else closing_line(catches))
    return catches


def _print_faults(result: RunResult) -> None:
    simulated = result.simulated
    if not simulated.plan:
        print("no faults")
        return
    print("faults struck")
    for name, times in simulated.struck.items():
        print(f"  {name:24} {times:4}")
    if simulated.met:
        met = ", ".join(f"{name} {count}" for name, count in simulated.met.items())
        print(f"  at the moment they waited for: {met}")
    hits = ", ".join(f"{name} {count:,}" for name, count in simulated.hits.items() if count)
    print(f"  messages, operations and servers that they hit: {hits or 'none'}")


def _verdicts(verdicts: Mapping[str, Verdict]) -> dict[str, dict[str, object]]:
    return {
        name: {"verdict": each.verdict, "checked": each.checked, "violations": len(each.violations)}
        for name, each in verdicts.items()
    }


def _closing_line(verdicts: Mapping[str, Verdict]) -> str:
    by_verdict = Counter(each.verdict for each in verdicts.values())
    parts = [f"{by_verdict['holds']} invariants hold"]
    for verdict in ("violated", "not exercised"):
        if by_verdict[verdict]:
            names = ", ".join(name for name, each in verdicts.items() if each.verdict == verdict)
            parts.append(f"{by_verdict[verdict]} {verdict} ({names})")
    return "; ".join(parts)
