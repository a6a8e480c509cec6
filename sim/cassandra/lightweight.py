"""Lightweight transactions: INSERT, UPDATE and DELETE with IF, and reads at SERIAL.

Paxos is simulated by what it promises, not by its messages: the rounds take the time of four round trips to a quorum of
replicas, and then the condition is judged and the change accepted at one instant, so all conditional operations on a
partition have one order. An accepted change is seen by every later conditional operation and SERIAL read at once, and
is sent to the replicas like a write at the statement's consistency level. When the coordinator gives up (too few
replicas within cas_contention_timeout, or a fault), the client gets WriteTimeout of type CAS and the outcome is
unknown: the change may have been accepted or not. Contention between proposers is not simulated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from cassandra import ConsistencyLevel, WriteType

from sim.cassandra import errors
from sim.cassandra.catalog import STATIC, Table
from sim.cassandra.errors import ServerRefusal
from sim.cassandra.holdings import ReplicaTable
from sim.cassandra.node import Node
from sim.cassandra.plans import ModifyPlan
from sim.cassandra.reading import Page
from sim.cassandra.rows import Cell, MergedRow, Row, live_cells, merge
from sim.cassandra.storage import Change, Key, Mutation, Partition, TableStore

if TYPE_CHECKING:
    from sim.cassandra.cluster import CassandraCluster
    from sim.cassandra.driver import Attempt


class _Seen(NamedTuple):
    """What a condition is judged on: a row (no cells: there is none) and the static cells of its partition."""

    clustering: Key
    cells: dict[str, Cell] | None
    statics: dict[str, Cell]


class Lightweight:
    """The accepted conditional changes of the cluster, and how new ones are decided."""

    def __init__(self, cluster: CassandraCluster) -> None:
        self._cluster = cluster
        self._accepted: dict[Table, TableStore] = {}
        self._ballots: dict[tuple[Table, Key], int] = {}

    def forget(self, table: Table) -> None:
        """The table is gone, or empty."""
        self._accepted.pop(table, None)

    def with_accepted(self, store: ReplicaTable) -> ReplicaTable:
        """A view of a replica's table that also has every accepted change: what a SERIAL read sees."""
        accepted = self._accepted.get(store.table)
        return store if accepted is None else store.joined_with(accepted)

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
            page = self._judge(node, plan, full, partition, clustering)
        except ServerRefusal as refusal:
            attempt.answer(node, now, refusal.message, 0)
            return
        attempt.answer_with(node, now + round_ns, _give, (page,), quorum)

    def _judge(
        self, node: Node, plan: ModifyPlan, full: tuple[Any, ...], partition: Key, clustering: Key | None
    ) -> Page:
        """Judge the condition on what is there now, and accept the change if it holds; the answer."""
        now_s = node.now_s(0)
        seen = self._read(plan, partition, clustering, now_s)
        if plan.conditions:
            cells = seen.statics | (seen.cells or {})
            holds = all(condition.holds(cells, full) for condition in plan.conditions)
        else:
            exists = bool(seen.statics) if clustering is None else seen.cells is not None
            holds = exists != plan.if_not_exists
        if holds:
            ballot = max(node.now_us(0), self._ballots.get((plan.table, partition), 0) + 1)
            self._ballots[plan.table, partition] = ballot
            accepted = self._accepted.get(plan.table)
            if accepted is None:
                accepted = self._accepted[plan.table] = TableStore(plan.table)
            for change in plan.changes(full, ballot, now_s):
                accepted.apply(change)
                self._commit(node, plan.table, change)
            return Page([(True,)], None, [], ["[applied]"])
        return _refused(plan, seen, partition)

    def _commit(self, node: Node, table: Table, change: Change) -> None:
        cluster = self._cluster
        mutation = Mutation(change.partition, ((table, change),))
        cluster.coordinator.replicate(node, cluster.replicas(table, change.partition), mutation, cluster.clock.now)

    def _read(self, plan: ModifyPlan, partition: Key, clustering: Key | None, now_s: int) -> _Seen:
        """What a conditional statement looks at, from a quorum of replicas and what was accepted.

        As in Cassandra (CQL3CasRequest), that is all columns of the kind that is written, so that a row of nulls can
        be told from none, and of the other kind those compared. Where only static columns are compared it is not the
        statement's own row but the first of the partition.
        """
        table = plan.table
        cluster = self._cluster
        replicas = [replica for replica in cluster.replicas(table, partition) if replica.is_up]
        now = cluster.clock.now
        cluster.holdings.catch_up(now)
        versions = [cluster.holdings.view(table, replica.index, now).partition(partition) for replica in replicas]
        if table in self._accepted:
            versions.append(self._accepted[table].partitions.get(partition))
        partitions = [version for version in versions if version is not None]
        compared = {condition.column for condition in plan.conditions or ()}
        written = (table.statics if plan.writes_static else ()) + (table.regulars if plan.writes_rows else ())
        wanted = {column.name for column in compared.union(written)}
        by_row = clustering is not None if not compared else any(column.kind != STATIC for column in compared)
        statics = _live(partitions, None, now_s, wanted) or {}
        if by_row:
            assert clustering is not None
            return _Seen(clustering, _live(partitions, table.position_of(clustering), now_s, wanted), statics)
        positions = sorted({position: None for each in partitions for position in each.rows})
        for position in positions:
            cells = _live(partitions, position, now_s, wanted)
            if cells is not None:
                first = next(each.rows[position] for each in partitions if position in each.rows)
                return _Seen(first.clustering, cells, statics)
        return _Seen((), None, statics)


def _live(
    partitions: list[Partition], position: tuple[Any, ...] | None, now_s: int, wanted: set[str]
) -> dict[str, Cell] | None:
    """The live cells among the columns wanted; None when there is neither one nor a live row marker."""
    joined: Row | None = None
    for partition in partitions:
        row = partition.static if position is None else partition.rows.get(position)
        if row is not None:
            joined = row if joined is None else merge(joined, row)
    if joined is None:
        return None
    spread = joined.spread()
    cells = {name: entry for name, entry in spread.cells.items() if name in wanted}
    narrowed = MergedRow(spread.clustering, spread.position, spread.marker, spread.deletion, cells)
    return live_cells(narrowed, max(partition.gone_at(position) for partition in partitions), now_s)


def _refused(plan: ModifyPlan, seen: _Seen, partition: Key) -> Page:
    """`[applied]` false, and what was seen: all columns for IF [NOT] EXISTS, the compared ones for other conditions."""
    if seen.cells is None and not seen.statics:
        return Page([(False,)], None, [], ["[applied]"])
    table = plan.table
    keys = dict(zip([c.name for c in table.partition_key], partition, strict=True))
    if seen.cells is not None:
        keys |= dict(zip([c.name for c in table.clustering_key], seen.clustering, strict=True))
    cells = seen.statics | (seen.cells or {})
    if plan.conditions:
        ordered = sorted(plan.conditions, key=lambda condition: condition.column.kind == STATIC)  # statics last
        names = list(dict.fromkeys(condition.column.name for condition in ordered))
    else:
        names = list(table.columns)
    values = []
    for name in names:
        value = keys.get(name) if name in keys else (cells[name].value if name in cells else None)
        convert = table.columns[name].type.to_python
        values.append(convert(value) if convert is not None and value is not None else value)
    return Page([(False, *values)], None, [], ["[applied]", *names])


def _give(attempt: Attempt, _node: Node, page: Page) -> None:
    attempt.finish_read(page, attempt.replicas)
