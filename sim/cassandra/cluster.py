"""The simulated Cassandra cluster: nodes, ring, schema, prepared statements, hints, and the faults of nodes.

One datacenter, `datacenter1`. Sessions are what the driver's `Cluster.connect` would give; see `sim.cassandra.driver`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from sim.cassandra import statements as st
from sim.cassandra.catalog import Catalog, Table
from sim.cassandra.coordinator import Coordinator, Hint
from sim.cassandra.driver import PreparedStatement, Session
from sim.cassandra.errors import ServerRefusal
from sim.cassandra.faults import OperationFaults
from sim.cassandra.grammar import parse
from sim.cassandra.holdings import Holdings
from sim.cassandra.lightweight import Lightweight
from sim.cassandra.node import Node
from sim.cassandra.plans import BatchPlan, ModifyPlan, SelectPlan, plan_modification, plan_select
from sim.cassandra.storage import Key, Mutation, token_of
from sim.clock import NS_PER_MS, NS_PER_SECOND, NS_PER_US, Clock
from sim.hosts import Incarnation
from sim.network import Latency, Network
from sim.overlap import Overlap
from sim.randomness import Randomness

DATACENTER = "datacenter1"

_PLAN_CACHE_MAX = 4096

_UP, _DOWN, _DOWN_WITHOUT_HINTS = range(3)
"""How far away a node is."""

SERVICE_TIME = Latency.long_tailed(least_ns=30 * NS_PER_US, spread_ns=15 * NS_PER_US)
"""How long a replica takes over one request, the network apart."""


class RecorderPort(Protocol):
    """What the cluster needs of `traces.recorder.Recorder`."""

    def emitter(self, kind: str) -> Any:
        """The function that records one event of that kind."""


class SchemaPlan:
    """A statement that changes the schema, or the session's keyspace."""

    binder = None
    statement_id = -1
    timestamp_source = -1

    def __init__(self, statement: st.Statement) -> None:
        self.statement = statement


Plan = ModifyPlan | SelectPlan | BatchPlan | SchemaPlan


class CassandraCluster:
    """The servers. The times are configuration of `cassandra.yaml`, in nanoseconds."""

    write_timeout_ns = 2 * NS_PER_SECOND
    read_timeout_ns = 5 * NS_PER_SECOND
    cas_timeout_ns = 1_800 * NS_PER_MS
    speculative_retry_ns = 10 * NS_PER_MS
    hint_window_ns = 3 * 3600 * NS_PER_SECOND
    hint_interval_ns = 10 * NS_PER_SECOND
    service_time = SERVICE_TIME

    def __init__(
        self,
        clock: Clock,
        network: Network,
        randomness: Randomness,
        recorder: RecorderPort | None = None,
        *,
        nodes: int = 3,
        name: str = "cassandra",
    ) -> None:
        self.clock = clock
        self.network = network
        self.randomness = randomness
        self.nodes = [Node(clock, f"{name}-{i + 1}", i) for i in range(nodes)]
        self._away = {node: Overlap(partial(self._set_away, node)) for node in self.nodes}
        self.holdings = Holdings(nodes)
        self.catalog = Catalog(nodes, DATACENTER)
        self.faults = OperationFaults(randomness.stream("cassandra/faults"))
        self.hinted_handoff = True
        self.batches_to_replay = 0
        self.operations_open = 0
        self.nodes_away = 0
        """How many nodes are believed to be down."""
        self.nodes_down = 0
        """How many nodes are down, believed or not."""
        self.statement_texts: list[str] = []
        """The CQL texts by `statement_id`, for the trace's manifest."""
        self.prepared: dict[bytes, PreparedStatement] = {}
        """Every prepared statement, by query id."""
        self.coordinator = Coordinator(self)
        self.lightweight = Lightweight(self)
        self.emit_cql = None if recorder is None else recorder.emitter("cql")
        self._statement_ids: dict[str, int] = {}
        self._plans: dict[tuple[str | None, str], Plan] = {}
        self._plans_version = 0
        self._hints: list[Hint] = []
        self._hint_timer_set = False
        self._ring_start = -(1 << 63)
        self._sessions: dict[str, Session] = {}
        """The newest session of each host."""

    # ---- clients

    def session(self, incarnation: Incarnation, keyspace: str | None = None) -> Session:
        """What `Cluster(...).connect(keyspace)` gives a service on that incarnation's host."""
        session = Session(self, incarnation.name, incarnation, incarnation.host.wall, keyspace)
        self._sessions[incarnation.name] = session
        return session

    def open_writes(self, host: str) -> int:
        """How many operations that may write the newest session of a host has begun and not ended."""
        session = self._sessions.get(host)
        return session.open_operations - session.open_reads if session is not None else 0

    def failed_ns(self, host: str) -> int | None:
        """When an operation of the newest session of a host failed last; None when none has."""
        session = self._sessions.get(host)
        return session.failed_ns if session is not None else None

    def harness_session(self, keyspace: str | None = None, client: str = "observer") -> Session:
        """A session of the harness itself, outside all hosts: its `execute` runs the clock until the answer is
        there."""
        return Session(self, client, None, None, keyspace)

    @property
    def struck(self) -> dict[str, int]:
        """How many operations each fault has really hit, by name."""
        return dict(sorted(self.faults.struck.items()))

    # ---- plans

    def plan(self, keyspace: str | None, text: str) -> Plan:
        """The plan of a statement text, made once. Raises `ServerRefusal`."""
        if self._plans_version != self.catalog.version or len(self._plans) > _PLAN_CACHE_MAX:
            self._plans.clear()
            self._plans_version = self.catalog.version
        found = self._plans.get((keyspace, text))
        if found is None:
            found = self._plans[keyspace, text] = self._make_plan(keyspace, text)
        return found

    def _make_plan(self, keyspace: str | None, text: str) -> Plan:
        statement, markers = parse(text)
        plan: Plan
        if isinstance(statement, st.Select):
            plan = plan_select(statement, markers, self.catalog, keyspace)
            plan.statement_id = self.statement_id(text)
        elif isinstance(statement, (st.Insert, st.Update, st.Delete)):
            plan = plan_modification(statement, markers, self.catalog, keyspace)
            plan.statement_id = self.statement_id(text)
        elif isinstance(statement, st.Batch):
            plan = BatchPlan.of(statement, markers, self.catalog, keyspace)
        else:
            plan = SchemaPlan(statement)
        return plan

    def statement_id(self, text: str) -> int:
        """The number by which a text is known in the trace."""
        found = self._statement_ids.get(text)
        if found is None:
            found = self._statement_ids[text] = len(self.statement_texts)
            self.statement_texts.append(text)
        return found

    def change_schema(self, statement: st.Statement, keyspace: str | None) -> None:
        """Carry out a schema statement, everywhere at once. Raises `ServerRefusal`."""
        catalog = self.catalog
        if isinstance(statement, st.CreateKeyspace):
            catalog.create_keyspace(statement)
        elif isinstance(statement, st.DropKeyspace):
            for table in catalog.drop_keyspace(statement):
                self._forget(table)
        elif isinstance(statement, st.CreateTable):
            catalog.create_table(statement, keyspace)
        elif isinstance(statement, st.AlterTableAdd):
            catalog.add_columns(statement, keyspace)
        elif isinstance(statement, st.DropTable):
            dropped = catalog.drop_table(statement, keyspace)
            if dropped is not None:
                self._forget(dropped)
        elif isinstance(statement, st.Truncate):
            self._forget(catalog.table(statement.table, keyspace))
        else:
            raise AssertionError(f"not a schema statement: {statement}")

    def _forget(self, table: Table) -> None:
        self.holdings.forget(table)
        self._hints = [
            hint._replace(mutation=rest) for hint in self._hints if (rest := hint.mutation.without(table)) is not None
        ]
        self.lightweight.forget(table)

    # ---- the ring

    def replicas(self, table: Table, partition: Key) -> Sequence[Node]:
        """The nodes that hold a partition: the owner of its token and those after it on the ring."""
        nodes = self.nodes
        factor = table.replication_factor
        if factor >= len(nodes):
            return nodes
        token = token_of(table.routing_bytes(partition))
        first = (token - self._ring_start) * len(nodes) >> 64
        return [nodes[(first + i) % len(nodes)] for i in range(factor)]

    # ---- hints

    def keep_hint(self, target: Node, keeper: Node, mutation: Mutation) -> None:
        """A replica did not get (or did not acknowledge) a write: keep it for later, if hints are on."""
        self.faults.count("node_down" if not target.is_up else "replica_unreachable")
        away_ns = 0 if target.is_up else self.clock.now - target.down_since_ns
        if self.hinted_handoff and target.keeps_hints and away_ns <= self.hint_window_ns:
            self._hints.append(Hint(target, keeper, mutation))
            self._set_hint_timer()
        else:
            self.faults.count("hint_dropped")

    def _set_hint_timer(self) -> None:
        if not self._hint_timer_set:
            self._hint_timer_set = True
            self.clock.after(self.hint_interval_ns, self._on_hint_timer)

    def _on_hint_timer(self) -> None:
        self._hint_timer_set = False
        self.dispatch_hints()
        if self._hints:
            self._set_hint_timer()

    def dispatch_hints(self) -> None:
        """Send every hint whose keeper and target are up; what does not get through is kept."""
        kept = []
        for hint in self._hints:
            delay_ns: int | None = None
            if hint.target.is_up and hint.keeper.is_up:
                delay_ns = (
                    0 if hint.target is hint.keeper else self.network.delay_ns(hint.keeper.name, hint.target.name)
                )
            if delay_ns is None:
                kept.append(hint)
            else:
                self.holdings.send(hint.target.index, self.clock.now + delay_ns, hint.mutation)
                self.faults.count("hint_replayed")
        self._hints = kept

    # ---- faults of nodes

    @property
    def is_troubled(self) -> bool:
        """Whether an operation could be refused or struck: the coordinator must look closer."""
        return self.nodes_away > 0 or bool(self.faults.armed)

    def _count_away(self) -> None:
        self.nodes_away = sum(1 for node in self.nodes if not node.is_known_up)
        self.nodes_down = sum(1 for node in self.nodes if not node.is_up)

    def node(self, name: str) -> Node:
        """The node of that name. Raises KeyError."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def take_down(self, node: Node, *, hints: bool = True, noticed_after_ns: int = 0) -> Callable[[], None]:
        """Stop a node until what is returned is called, and by all who stopped it meanwhile. Its connections die at
        once; the others believe it up for `noticed_after_ns` more.

        What it has stored it keeps (commit log); what is under way to it still arrives. Without `hints`, coordinators
        keep nothing for it.
        """
        end = self._away[node].begin(_DOWN if hints else _DOWN_WITHOUT_HINTS)
        if noticed_after_ns:
            self.clock.after(noticed_after_ns, self._notice_down, node, node.epoch)
        else:
            self._notice_down(node, node.epoch)
        return end

    def bring_up(self, node: Node) -> None:
        """Start a node again, whoever stopped it. Hints kept for it are sent at the next round."""
        self._away[node].clear()

    def _set_away(self, node: Node, away: int) -> None:
        node.keeps_hints = away != _DOWN_WITHOUT_HINTS
        if away == _UP:
            node.is_up = node.is_known_up = True
            if self._hints:
                self._set_hint_timer()
        elif node.is_up:
            node.is_up = False
            node.epoch += 1
            node.down_since_ns = self.clock.now
        self._count_away()

    def _notice_down(self, node: Node, epoch: int) -> None:
        if not node.is_up and node.epoch == epoch:
            node.is_known_up = False
            self._count_away()

    def slow_down(self, node: Node, extra_ns: int) -> Callable[[], None]:
        """Let everything the node does take so much longer, until what is returned is called."""
        return node.slowness.begin(extra_ns)

    # ---- the end of a run

    def heal(self) -> None:
        """Take back every fault of the cluster (not of the network): the beginning of the second phase of a run."""
        self.faults.disarm_all()
        for node in self.nodes:
            node.slowness.clear()
            node.wall.synchronise()
            if not node.is_up or not node.is_known_up:
                self.bring_up(node)

    def is_quiet(self) -> bool:
        """Whether every operation has ended and every write, hint and batch has arrived where it is going."""
        self.holdings.catch_up(self.clock.now)
        return self.holdings.is_at_rest and not (self.operations_open or self._hints or self.batches_to_replay)

    def settle(self, limit_ns: int = 60 * NS_PER_SECOND) -> bool:
        """Heal, deliver hints and run the clock until the cluster is quiet; False when it is not within the limit."""
        self.heal()
        self.dispatch_hints()
        return not self.clock.run_while(lambda: not self.is_quiet(), self.clock.now + limit_ns)

    def release(self) -> None:
        """Let go of all rows, when the run is over: the frames of dead hosts keep the cluster itself for ever."""
        self.holdings.clear()

    def dump(self, table: str, keyspace: str) -> dict[str, list[tuple[Key, Key, Any]]]:
        """Every stored version of every row, per node: partition key, clustering key, row (`sim.cassandra.rows`)."""
        found = self.catalog.table(st.TableName(keyspace, table), None)
        self.holdings.catch_up(self.clock.now)
        result: dict[str, list[tuple[Key, Key, Any]]] = {}
        for node in self.nodes:
            view = self.holdings.view(found, node.index, self.clock.now)
            rows = result[node.name] = []
            for _, _, key in view.in_token_order():
                partition = view.partition(key)
                if partition is not None and node in self.replicas(found, key):
                    rows += [(key, row.clustering, row) for _, row in sorted(partition.rows.items(), key=_position)]
        return result


def _position(entry: tuple[Any, Any]) -> Any:
    return entry[0]


__all__ = ["DATACENTER", "CassandraCluster", "Plan", "SchemaPlan", "ServerRefusal"]
