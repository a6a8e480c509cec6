"""What the replicas hold of each table, and what is on its way to them.

Replicas nearly always hold the same. So there is one store of what *every* replica of a partition has, and beside it a
small one for each node of what it has beyond that: a write that did not reach all of them, a hint, a repair. What a
replica holds is the join of the two, and joining is all that reconciliation ever does (`rows`); so a row may stand in
either, or in both, and it is the same replica.

A write that reaches every replica is one *flight*, with the instant of its arrival at each of them. Nothing happens on
the clock for it: it goes to the common store when somebody looks after its last arrival. A replica that it has reached
earlier shows it from that instant on, others do not. A fault acts on what is sent after it began, as in `sim.network`:
what is under way when a node stops still arrives.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sim.cassandra.catalog import Table
from sim.cassandra.storage import Change, Key, Mutation, Partition, TableStore, in_token_order, new_tuple

NOT_SENT = 1 << 62
"""Stands for the arrival at a node that is no replica of the partition."""

CONSOLIDATE_AFTER = 10_000
"""After so many writes to single replicas it is looked which of them every replica has by now."""


class Flight(NamedTuple):
    """A write under way to every replica of its partition; `arrivals_ns` by the index of the node."""

    last_ns: int
    arrivals_ns: list[int]
    mutation: Mutation


class ReplicaTable:
    """What one replica holds of a table at one instant: the join of several stores."""

    __slots__ = ("_stores", "table")

    def __init__(self, table: Table, stores: list[TableStore]) -> None:
        self.table = table
        self._stores = stores

    def is_same_as(self, other: ReplicaTable) -> bool:
        """Whether the other is known to hold the very same."""
        stores = self._stores
        return len(stores) == 1 and len(other._stores) == 1 and stores[0] is other._stores[0]

    def partition(self, key: Key) -> Partition | None:
        """The partition, None when there is nothing of it. It must not be changed."""
        stores = self._stores
        if len(stores) == 1:
            return stores[0].partitions.get(key)
        found: Partition | None = None
        is_own = False
        for store in stores:
            partition = store.partitions.get(key)
            if partition is None:
                continue
            if found is None:
                found = partition
                continue
            if not is_own:
                found, is_own = found.copy(), True
            found.join(partition)
        return found

    def in_token_order(self) -> list[tuple[int, bytes, Key]]:
        """Token, serialized key and key of every partition, as a scan of the ring meets them."""
        if len(self._stores) == 1:
            return self._stores[0].in_token_order()
        first, *others = [store.in_token_order() for store in self._stores]
        return in_token_order(first, *others) if any(others) else first

    def joined_with(self, store: TableStore) -> ReplicaTable:
        """The same, and what is in `store` too."""
        return ReplicaTable(self.table, [*self._stores, store])


class Holdings:
    """The data of all nodes."""

    def __init__(self, nodes: int) -> None:
        self._nodes = nodes
        self._common: dict[Table, TableStore] = {}
        self._own: list[dict[Table, TableStore]] = [{} for _ in range(nodes)]
        self._flights: list[Flight] = []
        self._single: list[tuple[int, int, Mutation]] = []
        self._to_consolidate = CONSOLIDATE_AFTER

    # ---- writing

    def send_to_all(self, arrivals_ns: list[int], last_ns: int, mutation: Mutation) -> None:
        """A write is on its way to every replica of its partition."""
        self._flights.append(new_tuple(Flight, (last_ns, arrivals_ns, mutation)))

    def send(self, node: int, arrival_ns: int, mutation: Mutation) -> None:
        """A write is on its way to one node."""
        self._single.append((arrival_ns, node, mutation))

    def catch_up(self, now_ns: int) -> None:
        """Apply what has arrived by `now_ns`. Changes commute, so their order among each other does not matter."""
        flights = self._flights
        if flights:
            under_way = []
            common = self._common
            for flight in flights:
                if flight.last_ns > now_ns:
                    under_way.append(flight)
                    continue
                for table, change in flight.mutation.parts:
                    store = common.get(table)
                    if store is None:
                        store = common[table] = TableStore(table)
                    store.apply(change)
            self._flights = under_way
        if self._single:
            due = [entry for entry in self._single if entry[0] <= now_ns]
            self._single = [entry for entry in self._single if entry[0] > now_ns]
            for _, node, mutation in due:
                _apply(self._own[node], mutation)
            self._to_consolidate -= len(due)
            if self._to_consolidate <= 0:
                left = self.consolidate()
                self._to_consolidate = max(CONSOLIDATE_AFTER, left)

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is on its way. What has arrived counts only once `catch_up` was called."""
        return not self._flights and not self._single

    def consolidate(self) -> int:
        """Move what stands in every node's own store to the common one; how many rows are left in own stores."""
        left = 0
        for table in list(self._own[0]):
            stores = [own.get(table) for own in self._own]
            if table.replication_factor == self._nodes and None not in stores:
                common = self._common.get(table)
                if common is None:
                    common = self._common[table] = TableStore(table)
                common.take_shared([store for store in stores if store is not None])
        for own in self._own:
            for store in own.values():
                left += sum(len(partition.rows) for partition in store.partitions.values())
        return left

    def forget(self, table: Table) -> None:
        """The table is gone, or empty; and what is under way to it does not count any more."""
        self._common.pop(table, None)
        for own in self._own:
            own.pop(table, None)
        self._flights = [
            flight._replace(mutation=rest)
            for flight in self._flights
            if (rest := flight.mutation.without(table)) is not None
        ]
        self._single = [
            (arrival_ns, node, rest)
            for arrival_ns, node, mutation in self._single
            if (rest := mutation.without(table)) is not None
        ]

    def clear(self) -> None:
        """Let go of everything."""
        self._common.clear()
        self._flights.clear()
        self._single.clear()
        for own in self._own:
            own.clear()

    # ---- reading

    def view(self, table: Table, node: int, now_ns: int) -> ReplicaTable:
        """What the node holds of a table now. Valid at this instant only; `catch_up` was called for it."""
        common = self._common.get(table)
        if common is None:
            common = self._common[table] = TableStore(table)
        stores = [common]
        own = self._own[node].get(table)
        if own is not None:
            stores.append(own)
        arrived: TableStore | None = None
        for change in self._arrived_early(table, node, now_ns):
            if arrived is None:
                arrived = TableStore(table)
                stores.append(arrived)
            arrived.apply(change)
        return ReplicaTable(table, stores)

    def _arrived_early(self, table: Table, node: int, now_ns: int) -> Iterator[Change]:
        """What has reached this node and not every replica yet."""
        for flight in self._flights:
            if flight.arrivals_ns[node] <= now_ns:
                for of, change in flight.mutation.parts:
                    if of is table:
                        yield change


def _apply(stores: dict[Table, TableStore], mutation: Mutation) -> None:
    for table, change in mutation.parts:
        store = stores.get(table)
        if store is None:
            store = stores[table] = TableStore(table)
        store.apply(change)
