"""Lightweight transactions: INSERT, UPDATE and DELETE with IF, and reads at SERIAL.

Paxos is simulated by what it promises, not by its messages: the rounds take the time of four round trips to a quorum of
replicas, and then the condition is judged and the change accepted at one instant, so all conditional operations on a
partition have one order. An accepted change is seen by every later conditional operation and SERIAL read at once, and
is sent to the replicas like a write at the statement's consistency level. When the coordinator gives up (too few
replicas within cas_contention_timeout, or a fault), the client gets WriteTimeout of type CAS and the outcome is
unknown: the change may have been accepted or not. Contention between proposers is not simulated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cassandra import ConsistencyLevel, WriteType

from sim.cassandra import errors
from sim.cassandra.catalog import Table
from sim.cassandra.errors import ServerRefusal
from sim.cassandra.node import Node
from sim.cassandra.plans import ModifyPlan
from sim.cassandra.reading import Page
from sim.cassandra.rows import Cell, Row, live_cells, merge
from sim.cassandra.storage import Change, Key, Partition, TableStore

if TYPE_CHECKING:
    from sim.cassandra.cluster import CassandraCluster
    from sim.cassandra.driver import Attempt


class Lightweight:
    """The accepted conditional changes of the cluster, and how new ones are decided."""

    def __init__(self, cluster: CassandraCluster) -> None:
        self._cluster = cluster
        self._accepted: dict[Table, TableStore] = {}
        self._ballots: dict[tuple[Table, Key], int] = {}

    def forget(self, table: Table) -> None:
        """The table is gone, or empty."""
        self._accepted.pop(table, None)

    def with_accepted(self, store: TableStore) -> TableStore:
        """A view of a replica's table that also has every accepted change: what a SERIAL read sees."""
        accepted = self._accepted.get(store.table)
        return store if accepted is None else _joined(store, accepted)

    def execute(
        self,
        attempt: Attempt,
        request_ns: int,
        node: Node,
        plan: ModifyPlan,
        full: tuple[Any, ...],
        consistency: int,
        serial_consistency: int | None,
    ) -> None:
        """Coordinate one conditional statement."""
        cluster = self._cluster
        clock = cluster.clock
        partition, clustering = plan.lookup(full)
        plan.ttl_of(full)  # a wrong TTL is refused before anything is proposed
        replicas = cluster.replicas(plan.table, partition)
        quorum = len(replicas) // 2 + 1
        start = clock.now + request_ns + node.extra_ns
        level = ConsistencyLevel.SERIAL if serial_consistency is None else serial_consistency
        alive = sum(1 for replica in replicas if replica.is_known_up)
        if alive < quorum:
            cluster.faults.count("node_down")
            attempt.answer(node, start, errors.unavailable(level, quorum, alive), 0)
            return
        if cluster.faults.armed and cluster.faults.strike("overload"):
            attempt.answer(node, start, errors.overloaded(), 0)
            return
        fate = cluster.faults.strike_write() if cluster.faults.armed else None
        if fate is not None:
            if fate != "none":
                clock.at(start, self._decide_unseen, node, plan, full, partition, clustering)
            error = errors.write_timeout(level, quorum - 1, quorum, WriteType.CAS)
            attempt.answer(node, start + cluster.cas_timeout_ns, error, quorum - 1)
            return
        rounds = self._quorum_round_trip_ns(node, replicas, quorum)
        if rounds is None or 4 * rounds > cluster.cas_timeout_ns:
            error = errors.write_timeout(level, quorum - 1, quorum, WriteType.CAS)
            attempt.answer(node, start + cluster.cas_timeout_ns, error, quorum - 1)
            return
        # Accepted after prepare, read and propose; the answer comes a round trip later, after the commit.
        clock.at(start + 3 * rounds, self._decide, attempt, node, plan, full, partition, clustering, rounds, quorum)

    def _quorum_round_trip_ns(self, node: Node, replicas: Any, quorum: int) -> int | None:
        trips = []
        for replica in replicas:
            if replica is node:
                trips.append(0)
                continue
            there = self._cluster.network.delay_ns(node.name, replica.name)
            back = self._cluster.network.delay_ns(replica.name, node.name)
            if there is not None and back is not None and replica.is_up:
                trips.append(there + back + replica.extra_ns)
        return sorted(trips)[quorum - 1] if len(trips) >= quorum else None

    def _decide_unseen(
        self, node: Node, plan: ModifyPlan, full: tuple[Any, ...], partition: Key, clustering: Key | None
    ) -> None:
        self._judge(node, plan, full, partition, clustering)

    def _decide(
        self,
        attempt: Attempt,
        node: Node,
        plan: ModifyPlan,
        full: tuple[Any, ...],
        partition: Key,
        clustering: Key | None,
        round_ns: int,
        quorum: int,
    ) -> None:
        now = self._cluster.clock.now
        try:
            applied, cells = self._judge(node, plan, full, partition, clustering)
        except ServerRefusal as refusal:
            attempt.answer(node, now, refusal.message, 0)
            return
        page = _answer(plan, applied, cells, partition, clustering)
        attempt.answer_with(node, now + round_ns, _give, (page,), quorum)

    def _judge(
        self, node: Node, plan: ModifyPlan, full: tuple[Any, ...], partition: Key, clustering: Key | None
    ) -> tuple[bool, dict[str, Cell] | None]:
        """Whether the condition holds of the row as it is now, and its live cells; if so the change is accepted."""
        now_s = node.now_s(0)
        cells = self._current(plan.table, partition, clustering, now_s)
        if plan.if_not_exists:
            holds = cells is None
        elif plan.conditions:
            holds = all(condition.holds(cells or {}, full) for condition in plan.conditions)
        else:
            holds = cells is not None
        if holds:
            ballot = max(node.now_us(0), self._ballots.get((plan.table, partition), 0) + 1)
            self._ballots[plan.table, partition] = ballot
            accepted = self._accepted.get(plan.table)
            if accepted is None:
                accepted = self._accepted[plan.table] = TableStore(plan.table)
            for change in plan.changes(full, ballot, now_s):
                accepted.apply(change)
                self._commit(node, plan.table, change)
        return holds, cells

    def _commit(self, node: Node, table: Table, change: Change) -> None:
        cluster = self._cluster
        cluster.coordinator.replicate(node, cluster.replicas(table, change.partition), table, change, cluster.clock.now)

    def _current(self, table: Table, partition: Key, clustering: Key | None, now_s: int) -> dict[str, Cell] | None:
        """The live cells of a row (with the static ones), from a quorum of replicas and what was accepted."""
        cluster = self._cluster
        replicas = [replica for replica in cluster.replicas(table, partition) if replica.is_up]
        for replica in replicas:
            replica.catch_up(cluster.clock.now)
        stores = [replica.store(table) for replica in replicas]
        if table in self._accepted:
            stores.append(self._accepted[table])
        partitions = [found for store in stores if (found := store.partitions.get(partition)) is not None]
        if not partitions:
            return None
        statics = _live(partitions, None, now_s)
        if clustering is None:
            return statics
        cells = _live(partitions, table.position_of(clustering), now_s)
        return None if cells is None else cells | (statics or {})


def _live(partitions: list[Partition], position: tuple[Any, ...] | None, now_s: int) -> dict[str, Cell] | None:
    joined: Row | None = None
    for partition in partitions:
        row = partition.static if position is None else partition.rows.get(position)
        if row is not None:
            joined = row if joined is None else merge(joined, row)
    if joined is None:
        return None
    return live_cells(joined, max(partition.gone_at(position) for partition in partitions), now_s)


def _joined(store: TableStore, accepted: TableStore) -> TableStore:
    view = TableStore(store.table)
    for source in (store, accepted):
        for key, partition in source.partitions.items():
            target = view.partitions.get(key)
            if target is None:
                target = view.partitions[key] = Partition(key)
            if partition.deletion is not None:
                target.delete(partition.deletion)
            for tombstone in partition.ranges:
                target.delete_range(tombstone)
            for row in partition.rows.values():
                target.put(row)
            if partition.static is not None:
                target.put(partition.static)
    return view


def _answer(
    plan: ModifyPlan, applied: bool, cells: dict[str, Cell] | None, partition: Key, clustering: Key | None
) -> Page:
    """`[applied]`, and when it is false the row as it is: all of it for IF NOT EXISTS, the compared columns for IF."""
    if applied or cells is None:
        return Page([(applied,)], None, [], ["[applied]"])
    table = plan.table
    keys = dict(zip([c.name for c in table.partition_key], partition, strict=True))
    if clustering is not None:
        keys |= dict(zip([c.name for c in table.clustering_key], clustering, strict=True))
    if plan.if_not_exists:
        names = list(table.columns)
    else:
        names = list(dict.fromkeys(condition.column.name for condition in plan.conditions or ()))
    values = []
    for name in names:
        value = keys.get(name) if name in keys else (cells[name].value if name in cells else None)
        convert = table.columns[name].type.to_python
        values.append(convert(value) if convert is not None and value is not None else value)
    return Page([(applied, *values)], None, [], ["[applied]", *names])


def _give(attempt: Attempt, _node: Node, page: Page) -> None:
    attempt.finish_read(page, attempt.replicas)
