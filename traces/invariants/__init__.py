"""The invariants of design section 7: what must hold of every trace, whatever was thrown at the system.

Each is a function from a trace to a verdict that looks at recorded tables only. They are grouped by what they are
about: lifecycle, rows, reads, statements, funds, the balance core, requests and their way, chains, convergence.
"""

import gc
from typing import Final

import pandas as pd

from traces.invariants import chains, convergence, core, funds, lifecycle, reads, requests, rows, statements, way
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
    "statements-at-quorum",
    "offsets-after-rows",
    "cancel-honoured",
    "fills-add-up",
    "funds-conserved",
    "locks-match-orders",
    "ledger-matches-balances",
    "core-matches-reference",
    "chain-unbroken",
    "no-lost-ack",
    "requests-carried",
    "answers-told",
    "converges",
    "corrupt-input-stops",
)
"""The ids in the order of the design's table."""

THEMES = (lifecycle, rows, reads, statements, funds, core, requests, way, chains, convergence)
"""The modules that define them."""


_STAGES: Final[tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]] = (
    # Invariants that are judged together, and the tables that none after them looks at.
    (("lifecycle-matches-reference", "completion-once"), ("reference",)),
    (
        ("requests-carried", "answers-told"),
        ("requests", "responses", "sent_updates", "client_requests", "Way"),
    ),
    (
        ("core-matches-reference", "cancel-honoured", "no-lost-ack", "chain-unbroken", "corrupt-input-stops"),
        (
            "validated",
            "dead_letters",
            "client_answers",
            "undecodable",
            "alarms",
            "log",
            "decided_outputs",
            "RequestNumbers",
            "outputs_chain",
            "balance_chain",
        ),
    ),
    (("fills-add-up",), ()),
    (
        ("reads-complete", "reads-own-user", "no-resurrection", "statements-at-quorum", "offsets-after-rows"),
        ("cql", "written_rows", "reads", "read_rows", "lifecycle", "offset_commits", "rebalances"),
    ),
    (("funds-conserved", "locks-match-orders"), ("fund_updates", "fund_entries")),
    (("ledger-matches-balances", "converges"), ()),
    (("rows-complete", "row-matches-engine", "no-phantom-row", "one-row-per-order", "placement-accounted"), ()),
)
"""The order in which a trace is judged. The widest tables are never in memory together: a run of a hundred thousand
orders shall be judged in less memory than it was simulated in."""


_KEPT_EVENTS_MAX: Final = 500_000
"""A trace of so few events keeps its tables: somebody may look at them again, as a campaign counts what was reached."""


def check(trace: Trace) -> dict[str, Verdict]:
    """Judge a trace by every invariant; the verdicts are in a fixed order.

    A check that cannot be made, because the trace is damaged or lacks what it needs, counts as violated and says so:
    it must never look green. Raises TraceError when a file of the trace cannot be read.
    """
    # Decoding makes millions of short-lived objects and no cycles: the collector would only double the time.
    collecting = gc.isenabled()
    gc.disable()
    verdicts = {}
    try:
        for names, done_with in _STAGES:
            for name in names:
                verdicts[name] = check_one(trace, name)
            if sum(map(trace.tables.count, trace.tables)) > _KEPT_EVENTS_MAX:
                trace.release(*done_with)
    finally:
        if collecting:
            gc.enable()
    return {name: verdicts[name] for name in ORDER}


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
