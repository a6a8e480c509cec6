"""One Cassandra node: its wall clock, and whether it is up. What it holds is in `holdings`."""

from __future__ import annotations

from sim.clock import Clock
from sim.hosts import WallClock
from sim.overlap import Overlap


class Node:
    """A replica and coordinator. Nodes are compared by identity."""

    def __init__(self, clock: Clock, name: str, index: int) -> None:
        self.name = name
        self.index = index
        self.wall = WallClock(clock)
        self.is_up = True
        self.is_known_up = True
        """What the other nodes and the drivers believe (gossip); it may lag behind `is_up`."""
        self.keeps_hints = True
        """Whether coordinators keep hints for this node while it is away."""
        self.extra_ns = 0
        """How much longer than usual everything takes here (fault: slow)."""
        self.slowness = Overlap(self._set_extra_ns)
        self.epoch = 0
        """Grows when the node goes down: connections of an earlier epoch are dead."""
        self.down_since_ns = 0

    def __repr__(self) -> str:
        return f"<Node {self.name}>"

    def _set_extra_ns(self, extra_ns: int) -> None:
        self.extra_ns = extra_ns

    def now_us(self, delay_ns: int) -> int:
        """Microseconds of the node's wall clock, `delay_ns` from now."""
        return (self.wall.now_ns() + delay_ns) // 1_000

    def now_s(self, delay_ns: int) -> int:
        """Seconds of the node's wall clock, `delay_ns` from now."""
        return (self.wall.now_ns() + delay_ns) // 1_000_000_000
