"""Who took which partition over, and when: the services' own word, in their log lines."""

import json
from typing import NamedTuple

from schema.services import SETTLEMENT
from traces.matching_rows import array, ints, is_any, rows
from traces.trace import Trace


class Takeover(NamedTuple):
    """An instance had rebuilt a partition's state and began to work on it."""

    t: int
    host: str
    service: str
    owned: str
    """What it owned then, in the words of `owned_names`."""
    snapshot_sequence: int
    """The sequence of the snapshot that it began with, 0 without one."""


def takeovers(trace: Trace) -> list[Takeover]:
    """All that there were, in order."""
    lines = rows(trace.events("log_lines"), is_any(trace.events("log_lines"), "event", "partition taken over"))
    found = []
    for t, host, service, text in zip(
        ints(lines, "t").tolist(), array(lines, "host"), array(lines, "service"), array(lines, "fields"), strict=True
    ):
        fields = json.loads(text)
        place = f"{fields.get('topic', '')}-{fields['partition']}"
        (owned,) = owned_names(service, place)
        found.append(Takeover(t, host, service, owned, fields.get("snapshot_sequence", 0)))
    return found


def owned_names(service: str, assignment: str) -> set[str]:
    """What a member that was assigned these "topic-partition ..." is to own: settlement each of them, the others
    partition numbers across their topics, each with a transactional id, which names it."""
    places = assignment.split()
    return set(places) if service == SETTLEMENT else {f"{service}-{place.rpartition('-')[2]}" for place in places}
