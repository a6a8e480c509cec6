"""Faults that strike single operations, armed by name and counted when they really strike.

Faults of nodes (down, slow, clock skew) are methods of `CassandraCluster`; faults of links belong to `sim.network`.
Their hits are counted here too, under `node_down`, `node_slow` and so on, so that `struck` tells all of it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from sim.randomness import PPM, Stream

OPERATION_FAULTS = (
    "write_timeout_none",
    "write_timeout_some",
    "write_timeout_all",
    "read_timeout",
    "lose_answer",
    "unavailable",
    "overload",
)
"""What can be armed. A write time-out is reported to the client with the write applied on no, some (too few) or all
replicas; `lose_answer` carries out the operation and drops the answer, so that the driver gives up after its own
time-out; `unavailable` and `overload` refuse the operation before anything is done."""


@dataclass(eq=False, slots=True)
class OperationFault:
    """An armed fault: strikes each operation it can hit with a probability of `ppm`, at most `remaining` times."""

    name: str
    ppm: int
    remaining: int | None


class OperationFaults:
    """The armed faults. `struck` counts hits by name since the start of the run."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.struck: Counter[str] = Counter()
        self.armed: dict[str, list[OperationFault]] = {}

    def arm(self, name: str, *, ppm: int = PPM, times: int | None = None) -> OperationFault:
        """Let operations suffer this fault until `disarm`. Raises ValueError for a name not in OPERATION_FAULTS."""
        if name not in OPERATION_FAULTS:
            raise ValueError(f"no fault {name!r}; there are {', '.join(OPERATION_FAULTS)}")
        fault = OperationFault(name, ppm, times)
        self.armed.setdefault(name, []).append(fault)
        return fault

    def disarm(self, fault: OperationFault) -> None:
        """Take it back; nothing happens when it is gone already."""
        left = [other for other in self.armed.get(fault.name, []) if other is not fault]
        if left:
            self.armed[fault.name] = left
        else:
            self.armed.pop(fault.name, None)

    def disarm_all(self) -> None:
        """Take back everything."""
        self.armed.clear()

    def strike(self, name: str) -> bool:
        """Whether this fault hits the operation at hand; counted if so."""
        for fault in self.armed.get(name, ()):
            if self.stream.chance_ppm(fault.ppm):
                if fault.remaining is not None:
                    fault.remaining -= 1
                    if fault.remaining <= 0:
                        self.disarm(fault)
                self.struck[name] += 1
                return True
        return False

    def strike_write(self) -> str | None:
        """None, or on how many replicas a write that times out is applied: none, some or all."""
        for applied in ("none", "some", "all"):
            if self.strike(f"write_timeout_{applied}"):
                return applied
        return None

    def count(self, name: str) -> None:
        """Count a hit of a fault that is not armed here."""
        self.struck[name] += 1
