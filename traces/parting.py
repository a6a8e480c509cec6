"""Where two runs part: the first thing that went another way in a failing run than in a passing one.

Two seeds differ in every latency, so times are not compared, nor what depends on them alone. Compared is what happened
to each party, in its order: what clients sent and were told, what hosts and services went through and said.
"""

from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Final

from traces.trace import Trace

_COMPARED: Final = {
    # kind -> (the column that says whose event it is, "" for the host; the columns that say what happened)
    "client_requests": ("user_id", ("command", "request_id", "attempt")),
    "client_answers": ("user_id", ("request_id", "attempt", "outcome", "reason", "verdict", "verdict_reason")),
    "faults": ("fault", ("phase", "target")),
    "lifecycle": ("", ("event", "incarnation", "detail")),
    "alarms": ("service", ("message", "topic", "partition")),
    "log_lines": ("", ("level", "event")),
}
CONTEXT: Final = 3
"""So many things before the point are shown."""

Told = tuple[int, str]
"""When (ns of the run), and what happened in words."""


def parting_lines(passing: Trace, failing: Trace) -> list[str]:
    """The point at which a failing run first went another way than a passing one, with what came before it.

    Of all parties that went another way, the one that did so earliest in the failing run is shown. Empty when none did:
    both runs look the same from outside, and differ only in what was stored.
    """
    before, after = _histories(passing), _histories(failing)
    first: tuple[int, str, int] | None = None
    for party in {**before, **after}:
        ours, theirs = after.get(party, []), before.get(party, [])
        for number, (mine, other) in enumerate(zip_longest(ours, theirs)):
            if mine is None or other is None or mine[1] != other[1]:
                # A party that has nothing more to tell parted when it should have told the next thing.
                at = mine[0] if mine is not None else other[0]
                if first is None or at < first[0]:
                    first = at, party, number
                break
    if first is None:
        return []
    at, party, number = first
    ours, theirs = after.get(party, []), before.get(party, [])
    lines = [f"the runs part at {party}, {at / 1e9:.6f} s:"]
    lines += [f"    both     {what}" for _, what in ours[max(0, number - CONTEXT) : number]]
    lines.append(f"    passing  {theirs[number][1] if number < len(theirs) else 'nothing more'}")
    lines.append(f"    failing  {ours[number][1] if number < len(ours) else 'nothing more'}")
    return lines


def _histories(trace: Trace) -> dict[str, list[Told]]:
    """What happened to each party, in order."""
    told = sorted(_events(trace))
    histories: dict[str, list[Told]] = {}
    for _, party, at, what in told:
        histories.setdefault(party, []).append((at, what))
    return histories


def _events(trace: Trace) -> Iterator[tuple[int, str, int, str]]:
    """seq, whose, when, and what."""
    for kind, (owner, columns) in _COMPARED.items():
        events = trace.events(kind)
        whose: Iterable[object] = events[owner] if owner else events["host"]
        name = {"user_id": "user", "fault": "fault", "service": "service", "": "host"}[owner]
        parts = [events[column].tolist() for column in columns]
        for seq, who, at, values in zip(events["seq"], whose, events["t"], zip(*parts, strict=True), strict=True):
            yield int(seq), f"{name} {who}", int(at), f"{kind}: {' '.join(str(each) for each in values)}"
