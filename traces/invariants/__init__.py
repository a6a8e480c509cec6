"""The invariants of design section 7: what must hold of every trace, whatever was thrown at the system.

Each is a function from a trace to a verdict that looks at recorded tables only. They are grouped by what they are
about: lifecycle, rows, reads, funds, requests, chains, convergence.
"""

import gc

import pandas as pd

from traces.invariants import chains, convergence, funds, lifecycle, reads, requests, rows
from traces.manifest import TraceError
from traces.trace import Trace
from traces.verdicts import INVARIANTS, Verdict

ORDER = (
    "placement-accounted",
    "lifecycle-matches-reference",
    "completion-once",
    "rows-complete",
    "row-matches-engine",
    "no-phantom-row",
    "one-row-per-order",
    "reads-complete",
    "reads-own-user",
    "no-resurrection",
    "cancel-honoured",
    "fills-add-up",
    "funds-conserved",
    "locks-match-orders",
    "ledger-matches-balances",
    "chain-unbroken",
    "no-lost-ack",
    "converges",
    "corrupt-input-stops",
)
"""The ids in the order of the design's table."""

THEMES = (lifecycle, rows, reads, funds, requests, chains, convergence)
"""The modules that define them."""


def check(trace: Trace) -> dict[str, Verdict]:
    """Judge a trace by every invariant, in a fixed order.

    A check that cannot be made, because the trace is damaged or lacks what it needs, counts as violated and says so:
    it must never look green. Raises TraceError when a file of the trace cannot be read.
    """
    # Decoding makes millions of short-lived objects and no cycles: the collector would only double the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return {name: check_one(trace, name) for name in ORDER}
    finally:
        if collecting:
            gc.enable()


def check_one(trace: Trace, name: str) -> Verdict:
    """Judge a trace by one invariant. Raises KeyError for an unknown id, TraceError for a damaged file."""
    judge = INVARIANTS[name]
    try:
        return judge(trace)
    except TraceError:
        raise
    except Exception as error:
        what = f"the check itself failed: {type(error).__name__}: {error}"
        return Verdict(checked=1, violations=pd.DataFrame({"what": [what]}))
