"""The invariant about coming to rest."""

from typing import Final

import numpy as np

from schema.services import GATEWAY, MATCHING, SETTLEMENT, UBSCORE
from traces.matching_rows import array, ints, is_any, rows
from traces.trace import Trace
from traces.verdicts import Findings, Verdict, invariant


@invariant("converges")
def converges(trace: Trace) -> Verdict:
    """The system settles within the bound: after the faults are healed and the clients have stopped, every call ends,
    no transaction stays open, and every group has taken and committed every record.

    When it does not, the first alarm is quoted, or else the first line that a service logged as an error: mostly what
    is still waiting waits for the partition that stopped there.
    """
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
            **_first_complaint(trace),
        )
    return found.verdict


def _first_complaint(trace: Trace) -> dict[str, str]:
    """What a service complained of first while the system should have settled or before, by the name of the column that
    quotes it; nothing if none did."""
    phases = trace.events("phases")
    given_up = ints(phases, "t")[array(phases, "phase") == "unsettled"]
    for column, kind, text, chosen, values in _COMPLAINTS:
        if not trace.has(kind):
            continue
        said = trace.events(kind)
        said = rows(said, is_any(said, chosen, *values) & (array(said, text) != ""))
        said = rows(said, ints(said, "t") <= given_up.min(initial=int(ints(phases, "t").max())))
        if len(said):
            first = said.iloc[0]
            place = f" ({first['topic']}-{first['partition']}, offset {first['offset']})" if first.get("topic") else ""
            return {column: f"{first['host']} at {first['t'] / 1e9:.3f} s: {first[text]}{place}"}
    return {}


_SERVICES: Final = (GATEWAY, UBSCORE, MATCHING, SETTLEMENT)
_COMPLAINTS: Final[tuple[tuple[str, str, str, str, tuple[str, ...]], ...]] = (
    ("first_alarm", "alarms", "message", "service", _SERVICES),
    ("first_critical_line", "log_lines", "event", "level", ("critical",)),
    ("first_failure", "lifecycle", "detail", "event", ("exit",)),
    ("first_error_line", "log_lines", "event", "level", ("error",)),
)
"""Where to look, in this order: the column of the violation, the kind of event and the column of it to quote, and which
column has to have which values."""
