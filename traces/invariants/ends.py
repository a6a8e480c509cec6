"""When processes of settlement ended while there was work. The statements that one had under way are not recorded: they
may have been applied, at any time since it learned what to write."""

from typing import Final

import numpy as np

from schema.services import SETTLEMENT
from traces.kinds import PROCESS_ENDS
from traces.matching_rows import Ints, array, ints, is_any, rows
from traces.trace import Trace

NEVER: Final = int(np.iinfo(np.int64).max)


def settled_at(trace: Trace) -> int:
    """When the system had settled; NEVER if it did not."""
    phases = trace.events("phases")
    settled = rows(phases, array(phases, "phase") == "settled")
    return int(ints(settled, "t")[0]) if len(settled) else NEVER


def settlement_ends(trace: Trace) -> Ints:
    """When processes of settlement ended, before all had settled."""
    lives = trace.events("lifecycle")
    ended = rows(lives, is_any(lives, "event", *PROCESS_ENDS) & (array(lives, "service") == SETTLEMENT))
    ended_t = ints(ended, "t")
    return ended_t[ended_t < settled_at(trace)]
