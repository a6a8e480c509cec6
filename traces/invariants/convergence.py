"""The invariant about coming to rest."""

import numpy as np

from traces.matching_rows import array, ints, rows
from traces.trace import Trace
from traces.verdicts import Findings, Verdict, invariant


@invariant("converges")
def converges(trace: Trace) -> Verdict:
    """The system settles within the bound: after the faults are healed and the clients have stopped, every call ends,
    no transaction stays open, and every group has taken and committed every record."""
    found = Findings()
    phases = trace.events("phases")
    if not len(phases):
        return found.verdict
    found.checked(1)
    names = array(phases, "phase")
    if not (names == "settled").any():
        details = [str(detail) for detail in rows(phases, np.array(names != "work", dtype=bool))["detail"] if detail]
        found.say(
            "the system did not settle" + (f": {'; '.join(details)}" if details else ""),
            phase=str(names[-1]),
            t=int(ints(phases, "t")[-1]),
        )
    return found.verdict
