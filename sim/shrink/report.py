"""What shrinking prints: the smallest case in words, what it breaks, and a test that holds it."""

import json
import re
from pathlib import Path
from typing import Any

from sim.run import RunResult
from sim.shrink.fewer import script_of
from sim.shrink.shrinker import Shrunk
from sim.shrink.story import story
from traces.stories.order import work_began_ns
from traces.stories.words import counted
from traces.summary import violation_lines


def as_json(shrunk: Shrunk, result: RunResult, repro: Path) -> dict[str, Any]:
    """What came of shrinking, as plain data; the field names are part of the command line's contract."""
    before = script_of(shrunk.before)
    return {
        "invariant": shrunk.invariant,
        "repro": str(repro),
        "digest": result.digest,
        "operations": shrunk.operations,
        "operations_before": len(before.operations),
        "faults": shrunk.strikes,
        "faults_before": len(before.strikes),
        "runs": shrunk.runs,
        "is_finished": shrunk.is_finished,
        "wall_seconds": round(shrunk.wall_seconds, 3),
        "story": story(shrunk.case, work_began_ns(result.trace)),
        "test": test_case(shrunk, repro),
    }


def print_json(shrunk: Shrunk, result: RunResult, repro: Path) -> None:
    """One JSON object on standard output."""
    print(json.dumps(as_json(shrunk, result, repro)))


def print_summary(shrunk: Shrunk, result: RunResult, repro: Path) -> None:
    """The smallest case and its story, what broke, the repro and a test."""
    before = script_of(shrunk.before)
    print(
        f"{shrunk.invariant}: {shrunk.operations} of {len(before.operations)} client operations and "
        f"{shrunk.strikes} of {len(before.strikes)} faults are enough"
    )
    rest = "" if shrunk.is_finished else ": it may become smaller yet"
    print(f"  {shrunk.runs} cases run in {shrunk.wall_seconds:.1f} s; {shrunk.ending}{rest}")
    print()
    print("\n".join(story(shrunk.case, work_began_ns(result.trace))))
    print()
    broken = {shrunk.invariant: result.verdicts[shrunk.invariant]}
    print("\n".join(violation_lines(result.trace, broken)))
    print()
    print(f"repro   {repro}")
    print(f"again   exchange-sim replay {repro}")
    print()
    print("As a test:")
    print()
    print(test_case(shrunk, repro))


def test_case(shrunk: Shrunk, repro: Path) -> str:
    """A pytest case that fails as long as the case breaks its invariant."""
    name = re.sub(r"\W+", "_", f"{shrunk.invariant}_seed_{shrunk.case.seed}")
    defect = f" with the defect {shrunk.case.defect}" if shrunk.case.defect else ""
    return "\n".join(
        [
            "from pathlib import Path",
            "",
            "from sim.testing import hold_invariants",
            "",
            "",
            f"def test_{name}() -> None:",
            f'    """{shrunk.invariant} once broke here{defect}: {counted(shrunk.operations, "operation")}, '
            f'{counted(shrunk.strikes, "fault")}."""',
            f'    hold_invariants(Path(__file__).with_name("{repro.name}"))',
        ]
    )
