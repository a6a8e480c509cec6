"""A script: the choices of a scenario written out, in place of what its seed would draw (design 5 and 9).

What clients do and which faults strike when are data before a run begins. A script holds that data itself, so that one
operation or one strike can be left out or made simpler while all others stay what they were: that is how a failing
scenario is shrunk. What is drawn while a run goes on (latencies, jitter) comes from the seed as ever.
"""

from dataclasses import dataclass

import msgspec

from sim.flows.operations import Operation
from traces.manifest import TopologyRecord


@dataclass(frozen=True)
class Strike:
    """One fault, once: when it begins and how long it lasts, at whom it aims, and how strong it is."""

    fault: str
    at_ns: int
    duration_ns: int
    target: str
    """A host, a broker, a replica, a group, or "a->b" for one direction of a link ("*" stands for any node)."""
    strength: int
    """In the unit that the fault's parameters name."""
    moment: str = ""
    """The moment that it waits for, from `at_ns` on, by its name in `sim.faults.moments`; empty: it strikes at once."""

    def describe(self) -> str:
        strength = f", strength {self.strength}" if self.strength else ""
        moment = f", {self.moment}" if self.moment else ""
        return (
            f"{self.fault} on {self.target} at {self.at_ns / 1e9:.3f} s for {self.duration_ns / 1e9:.3f} s"
            f"{strength}{moment}"
        )


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """What clients do and what strikes, in the order of time, and how the work is divided.

    The scenario that it belongs to still says how many instances there are of everything, and how long the work lasts.
    """

    topology: TopologyRecord
    operations: tuple[Operation, ...]
    strikes: tuple[Strike, ...]
