"""One Cassandra node: its wall clock, its data, the writes on their way to it, and whether it is up.

A write that has been sent is put into `pending` with the instant at which it arrives. Nothing needs to happen on the
clock for that: whoever looks at the node's data first lets everything arrive that is due. A fault acts on what is
sent after it began, as in `sim.network`: what is under way when a node stops still arrives.
"""

from __future__ import annotations

from sim.cassandra.catalog import Table
from sim.cassandra.storage import Change, TableStore
from sim.clock import Clock
from sim.hosts import WallClock


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
        self.epoch = 0
        """Grows when the node goes down: connections of an earlier epoch are dead."""
        self.down_since_ns = 0
        self.stores: dict[Table, TableStore] = {}
        self._pending: list[tuple[int, TableStore, Change]] = []

    def __repr__(self) -> str:
        return f"<Node {self.name}>"

    def store(self, table: Table) -> TableStore:
        """The node's data of that table."""
        store = self.stores.get(table)
        if store is None:
            store = self.stores[table] = TableStore(table)
        return store

    def receive(self, arrival_ns: int, table: Table, change: Change) -> None:
        """A change is on its way and arrives at that instant."""
        store = self.stores.get(table)
        if store is None:
            store = self.store(table)
        self._pending.append((arrival_ns, store, change))

    def catch_up(self, now_ns: int) -> None:
        """Apply what has arrived by `now_ns`. Changes commute, so their order among each other does not matter."""
        pending = self._pending
        if pending:
            self._pending = [entry for entry in pending if entry[0] > now_ns]
            for arrival_ns, store, change in pending:
                if arrival_ns <= now_ns:
                    store.apply(change)

    def catch_up_all(self) -> None:
        """Apply everything under way."""
        pending, self._pending = self._pending, []
        for _, store, change in pending:
            store.apply(change)

    def last_arrival_ns(self) -> int | None:
        """When the last write under way arrives, None when there is none."""
        return max((entry[0] for entry in self._pending), default=None)

    def now_us(self, delay_ns: int) -> int:
        """Microseconds of the node's wall clock, `delay_ns` from now."""
        return (self.wall.now_ns() + delay_ns) // 1_000

    def now_s(self, delay_ns: int) -> int:
        """Seconds of the node's wall clock, `delay_ns` from now."""
        return (self.wall.now_ns() + delay_ns) // 1_000_000_000
