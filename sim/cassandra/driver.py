"""What the Python driver shows an application: Session, prepared and bound statements, response futures.

The interface, the defaults and the order of calls are those of `cassandra.cluster` (cassandra-driver 3.30): a
client-side time-out of 10 s, consistency LOCAL_ONE, client-side timestamps, pages of 5000 rows, `RetryPolicy` asked
on every error that may be retried, nodes taken in turn, the partition's replicas first. Callbacks are called from
outside the event loop's own code, as the driver's thread does: an application must come back to its loop by
`call_soon_threadsafe`.

Inside a simulated host nothing may block: `execute`, and `result()` of an unanswered future, raise
EscapedSimulationError. `prepare` blocks in the driver too; it is meant for start-up, so it is allowed here and takes
no time.

Not simulated: authentication, custom payloads, query traces (`trace=True` is refused), graph, column encryption,
user-defined types, heartbeats (a request over a cut link ends by the client's time-out; the node stays in the query
plan), and load balancing policies other than the default (a profile's is ignored unless a `host` is named).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cassandra import ConsistencyLevel, OperationTimedOut
from cassandra.cluster import EXEC_PROFILE_DEFAULT, NoHostAvailable, QueryExhausted, ResultSet
from cassandra.connection import ConnectionException, ConnectionShutdown
from cassandra.encoder import Encoder
from cassandra.policies import NoSpeculativeExecutionPlan, RetryPolicy
from cassandra.protocol import (
    OverloadedErrorMessage,
    ReadTimeoutErrorMessage,
    ServerError,
    UnavailableErrorMessage,
    WriteTimeoutErrorMessage,
)
from cassandra.query import (
    FETCH_SIZE_UNSET,
    UNSET_VALUE,
    BatchStatement,
    SimpleStatement,
    Statement,
    bind_params,
    named_tuple_factory,
)
from cassandra.query import BoundStatement as DriverBoundStatement
from cassandra.query import PreparedStatement as DriverPreparedStatement

from sim.cassandra import statements as st
from sim.cassandra.errors import ServerRefusal, invalid
from sim.cassandra.node import Node
from sim.cassandra.paging import decode_cursor, encode_cursor
from sim.cassandra.plans import BatchPlan, InsertPlan, ModifyPlan, SelectPlan
from sim.cassandra.reading import Page
from sim.cassandra.rows import RowWrite
from sim.cassandra.storage import Change, Key, Mutation, new_tuple
from sim.cassandra.types import PROTOCOL_VERSION
from sim.clock import NS_PER_SECOND, NS_PER_US
from sim.escape import EscapedSimulationError
from sim.hosts import Incarnation, WallClock
from sim.network import LATENCY_BITS

if TYPE_CHECKING:
    from sim.cassandra.catalog import Table
    from sim.cassandra.cluster import CassandraCluster, Plan

_NOT_SET: Any = object()
_NO_KEYWORDS: dict[str, Any] = {}
_SERIAL = (ConsistencyLevel.SERIAL, ConsistencyLevel.LOCAL_SERIAL)
# The driver's own table lacks one level.
_CONSISTENCY_NAMES = {ConsistencyLevel.EACH_QUORUM: "EACH_QUORUM"} | ConsistencyLevel.value_to_name

READ_EVERY_NS = 100 * NS_PER_US
"""A client takes successful answers of writes in turns of so long."""

Row = Any
RowFactory = Callable[[Sequence[str], Sequence[tuple[Any, ...]]], Any]


class ColumnMetadata(tuple[Any, ...]):
    """Keyspace, table, name and driver type of a marker or result column."""

    keyspace_name = property(lambda self: self[0])
    table_name = property(lambda self: self[1])
    name = property(lambda self: self[2])
    type = property(lambda self: self[3])


class PreparedStatement(DriverPreparedStatement):  # type: ignore[misc]
    """A statement that is prepared; made by `Session.prepare`."""

    def __init__(
        self, session: Session, plan: ModifyPlan | SelectPlan, query_id: bytes, text: str, keyspace: str | None
    ) -> None:
        table = plan.table
        metadata = [
            ColumnMetadata((table.keyspace, table.name, marker.name, marker.type.driver))
            for marker in plan.binder.markers
        ]
        names = [marker.name if marker.in_partition_key else "" for marker in plan.binder.markers]
        keys = [column.name for column in table.partition_key]
        routing = [names.index(key) for key in keys] if all(key in names for key in keys) else None
        super().__init__(metadata, query_id, routing, text, keyspace, PROTOCOL_VERSION, [], None)
        self.plan = plan
        self.session = session
        self.catalog_version = session.server.catalog.version

    def current_plan(self) -> ModifyPlan | SelectPlan:
        """The plan; made anew when the schema has changed since (the driver would prepare again)."""
        server = self.session.server
        if self.catalog_version != server.catalog.version:
            plan = server.plan(self.keyspace, self.query_string)
            assert isinstance(plan, (ModifyPlan, SelectPlan))
            self.plan = plan
            self.catalog_version = server.catalog.version
        return self.plan

    def bind(self, values: Sequence[object] | Mapping[str, object] | None) -> BoundStatement:
        """Bind values: a sequence, or a mapping by column name. Raises what the driver raises for wrong types."""
        return BoundStatement(self, values)


class BoundStatement(DriverBoundStatement):  # type: ignore[misc]
    """A prepared statement with its values, as they will be stored.

    `values` is a tuple when every marker has a value of its very type, and a list when one is null, unset or converted.
    """

    _routing_key: bytes | None = None
    _serial_consistency_level = None

    def __init__(
        self, prepared: PreparedStatement, values: Sequence[object] | Mapping[str, object] | None = None
    ) -> None:
        if values is not None:
            self.raw_values = values
            binder = prepared.plan.binder
            exact = binder.bind_exact(values)
            self.values: Sequence[Any] = list(binder.bind(values)) if exact is None else exact
        # What the driver's own constructor takes over from the prepared statement; it costs several times as much.
        self.prepared_statement = prepared
        self.keyspace = prepared.plan.table.keyspace
        self.consistency_level = prepared.consistency_level
        self.is_idempotent = prepared.is_idempotent
        self.fetch_size = prepared.fetch_size
        self.retry_policy = prepared.retry_policy
        self.custom_payload = prepared.custom_payload
        if prepared.serial_consistency_level is not None:
            self.serial_consistency_level = prepared.serial_consistency_level

    def bind(self, values: Sequence[object] | Mapping[str, object] | None) -> BoundStatement:
        """Take the values; see `PreparedStatement.bind`."""
        self.__init__(self.prepared_statement, () if values is None else values)  # type: ignore[misc]
        return self

    @property
    def routing_key(self) -> bytes | None:
        """The serialized partition key, None when it is not bound in full."""
        if self._routing_key is None:
            prepared = self.prepared_statement
            if not prepared.routing_key_indexes:
                return None
            key = tuple([self.values[i] for i in prepared.routing_key_indexes])
            self._routing_key = prepared.plan.table.routing_bytes(key)
        return self._routing_key


class TimestampGenerator:
    """The driver's MonotonicTimestampGenerator on the client host's wall clock: microseconds, never the same twice."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self.last = 0

    def __call__(self) -> int:
        """The next timestamp. When the clock does not move on, or goes back, the last one plus one."""
        now = self._now_ns() // 1_000
        self.last = now if now > self.last else self.last + 1
        return self.last


class ClusterView:
    """The `session.cluster` of the driver, as far as applications look at it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.default_retry_policy: Any = RetryPolicy()
        self.protocol_version = PROTOCOL_VERSION
        self.metadata = MetadataView(session.server)
        self.is_shutdown = False
        self.timestamp_generator: Callable[[], int] = TimestampGenerator(session.now_ns)

    def shutdown(self) -> None:
        """Close the session."""
        self.is_shutdown = True
        self._session.shutdown()


class MetadataView:
    """The `cluster.metadata`: names only."""

    cluster_name = "Simulated Cluster"
    partitioner = "org.apache.cassandra.dht.Murmur3Partitioner"

    def __init__(self, server: CassandraCluster) -> None:
        self._server = server

    @property
    def keyspaces(self) -> dict[str, Any]:
        """Keyspaces by name, each with its `tables` by name."""
        return dict(self._server.catalog.keyspaces)

    def all_hosts(self) -> list[Node]:
        """The nodes."""
        return list(self._server.nodes)


class Session:
    """The driver's Session. Made by `CassandraCluster.session` and `harness_session`."""

    def __init__(
        self,
        server: CassandraCluster,
        client: str,
        incarnation: Incarnation | None,
        wall: WallClock | None,
        keyspace: str | None,
    ) -> None:
        self.server = server
        self.client = client
        self.incarnation = incarnation
        self.now_ns = (lambda: server.nodes[0].wall.now_ns()) if wall is None else wall.now_ns
        self.cluster = ClusterView(self)
        self.keyspace: str | None = None
        self.row_factory: RowFactory = named_tuple_factory
        self.default_timeout: float | None = 10.0
        self.default_consistency_level: int = ConsistencyLevel.LOCAL_ONE
        self.default_serial_consistency_level: int | None = None
        self.default_fetch_size: int | None = 5000
        self.use_client_timestamp = True
        self.encoder = Encoder()
        self.is_shutdown = False
        self.execution_profiles: dict[Any, Any] = {}
        """Profiles by name. When there are any, they take the place of the session's defaults, as in the driver."""
        self.open_operations = 0
        """Operations that this session has begun and not ended; none once its host is dead."""
        self.open_reads = 0
        """Those of them that only read."""
        self.failed_ns: int | None = None
        """When an operation of this session failed last."""
        self._turn = 0
        self._node_count = len(server.nodes)
        self._ways_ns: dict[Node, tuple[tuple[int, ...], tuple[int, ...]] | None] = {}
        self._ways_version = -1
        self._bits = server.randomness.stream(f"cassandra/client/{client}").bits
        self._due: dict[int, list[tuple[Attempt, Node]]] = {}
        if incarnation is not None:
            incarnation.on_death.append(self._host_died)
        if keyspace is not None:
            self.set_keyspace(keyspace)

    def operation_ended(self) -> None:
        """One operation fewer is open. Those of a dead host ended with it."""
        if self.open_operations:
            self.open_operations -= 1
            self.server.operations_open -= 1

    def read_ended(self) -> None:
        """One of those that only read was it."""
        if self.open_reads:
            self.open_reads -= 1

    def _host_died(self, _incarnation: Incarnation) -> None:
        # Answers that were queued for the host are dropped with it, so its operations would never end.
        self.server.operations_open -= self.open_operations
        self.open_operations = self.open_reads = 0

    @property
    def hosts(self) -> list[Node]:
        """The nodes believed to be up."""
        return [node for node in self.server.nodes if node.is_known_up]

    def set_keyspace(self, keyspace: str) -> None:
        """USE that keyspace. Raises InvalidRequest when there is none."""
        try:
            self.server.catalog.keyspace(keyspace)
        except ServerRefusal as refusal:
            raise refusal.to_exception() from None
        self.keyspace = keyspace

    def prepare(self, query: str, custom_payload: object = None, keyspace: str | None = None) -> PreparedStatement:
        """Prepare a statement on all nodes. Raises what the server answers (InvalidRequest, SyntaxException)."""
        server = self.server
        space = keyspace or self.keyspace
        try:
            plan = server.plan(space, query)
        except ServerRefusal as refusal:
            raise refusal.to_exception() from None
        if not isinstance(plan, (ModifyPlan, SelectPlan)):
            raise invalid(
                "Only SELECT, INSERT, UPDATE and DELETE can be prepared by the simulated Cassandra"
            ).to_exception()
        query_id = len(server.prepared).to_bytes(16, "big")
        statement = server.prepared[query_id] = PreparedStatement(self, plan, query_id, query, space)
        return statement

    def execute_async(
        self,
        query: Any,
        parameters: Any = None,
        trace: bool = False,
        custom_payload: object = None,
        timeout: float | None = _NOT_SET,
        execution_profile: Any = EXEC_PROFILE_DEFAULT,
        paging_state: bytes | None = None,
        host: Node | None = None,
        execute_as: str | None = None,
    ) -> ResponseFuture:
        """Start a request. Errors in binding are raised here, everything else goes to the future."""
        if trace or execute_as is not None or custom_payload is not None:
            raise NotImplementedError("query traces, custom payloads and proxy execution are not simulated")
        future = ResponseFuture(self, query, parameters, timeout, execution_profile, paging_state, host)
        future.send_request()
        return future

    def execute(
        self,
        query: Any,
        parameters: Any = None,
        timeout: float | None = _NOT_SET,
        trace: bool = False,
        custom_payload: object = None,
        execution_profile: Any = EXEC_PROFILE_DEFAULT,
        paging_state: bytes | None = None,
        host: Node | None = None,
        execute_as: str | None = None,
    ) -> Any:
        """Execute and wait. Only the harness may: inside a simulated host it would block the world."""
        if self.incarnation is not None:
            raise EscapedSimulationError(f"{self.client} called Session.execute, which blocks; use execute_async")
        return self.execute_async(
            query, parameters, trace, custom_payload, timeout, execution_profile, paging_state, host, execute_as
        ).result()

    def profile(self, name: Any) -> Any:
        """The execution profile of that name (or the profile itself), None when there are none at all."""
        if name in self.execution_profiles:
            return self.execution_profiles[name]
        if not self.execution_profiles and name is EXEC_PROFILE_DEFAULT:
            return None
        return _profile_or_refuse(name)

    def first_node(self, plan: Plan | None) -> Node | None:
        """The first node of the next query plan when every node has every partition, None when that takes thought."""
        nodes = self.server.nodes
        count = self._node_count
        if plan.__class__ is not BatchPlan:
            table = getattr(plan, "table", None)
            if table is not None and table.replication_factor < count:
                return None
        turn = self._turn
        self._turn = turn + 1
        return nodes[turn % count]

    def query_plan(self, plan: Plan | None, full: tuple[Any, ...]) -> list[Node]:
        """The nodes to try: in turn; with fewer replicas than nodes, the partition's own first."""
        nodes = self.server.nodes
        turn = self._turn
        self._turn = turn + 1
        ordered = [nodes[(turn + i) % len(nodes)] for i in range(len(nodes))]
        if isinstance(plan, (ModifyPlan, SelectPlan)):
            key = routing_key_of(plan, full)
            if key is not None and plan.table.replication_factor < len(nodes):
                replicas = self.server.replicas(plan.table, key)
                ordered = [n for n in ordered if n in replicas] + [n for n in ordered if n not in replicas]
        return ordered

    def request_ns(self, node: Node) -> int | None:
        """Draw how long a request takes to a node; None when it is lost."""
        version = self.server.network.version
        if version != self._ways_version:
            self._ways_ns.clear()
            self._ways_version = version
        if node not in self._ways_ns:
            network = self.server.network
            there_ns = network.clear_table_ns(self.client, node.name)
            back_ns = network.clear_table_ns(node.name, self.client)
            self._ways_ns[node] = None if there_ns is None or back_ns is None else (there_ns, back_ns)
        way = self._ways_ns[node]
        if way is None:
            return self.server.network.delay_ns(self.client, node.name)
        return way[0][self._bits(LATENCY_BITS)]

    def answer_ns(self, node: Node) -> int | None:
        """Draw how long the answer takes from a node; None when it is lost. The node was just asked."""
        way = self._ways_ns[node]
        if way is None:
            return self.server.network.delay_ns(node.name, self.client)
        return way[1][self._bits(LATENCY_BITS)]

    def expect(self, arrival_ns: int, attempt: Attempt, node: Node) -> None:
        """The answer of a write that has succeeded will arrive: take it with others that arrive at about that time.

        The driver's thread, too, takes what has come from all its connections in one go. It saves most of the events.
        """
        due_ns = arrival_ns + -arrival_ns % READ_EVERY_NS
        answers = self._due.get(due_ns)
        if answers is None:
            self._due[due_ns] = [(attempt, node)]
            self.server.clock.at(due_ns, self._read_answers, due_ns)
        else:
            answers.append((attempt, node))

    def _read_answers(self, due_ns: int) -> None:
        futures = []
        for attempt, node in self._due.pop(due_ns):
            future = attempt.future
            if future.is_done or node.epoch != attempt.epoch:
                attempt._arrive(node, _finish_plain, (None,))
            else:
                future.replicas = attempt.replicas
                futures.append(future)
        incarnation = self.incarnation
        if incarnation is None:
            _succeed_all(futures)
        elif incarnation.alive:
            incarnation.enter(_succeed_all, futures)
        else:
            for future in futures:
                future._close()

    def shutdown(self) -> None:
        """Close. Requests under way still end."""
        self.is_shutdown = True

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_error: object) -> None:
        self.shutdown()


def _profile_or_refuse(name: Any) -> Any:
    if hasattr(name, "consistency_level") and hasattr(name, "retry_policy"):
        return name
    raise ValueError(
        f"Invalid execution_profile: '{name}'; valid profiles are registered in session.execution_profiles"
    )


def routing_key_of(plan: Plan, full: tuple[Any, ...]) -> Key | None:
    """The partition key of a statement about one partition, None for others."""
    if isinstance(plan, InsertPlan):
        return plan.partition_of(full)
    where = getattr(plan, "where", None)
    if where is None or not where.partition:
        return None
    restrictions = [where.partition[column.name] for column in plan.table.partition_key]  # type: ignore[union-attr]
    if any(restriction.is_in for restriction in restrictions):
        return None
    return tuple(full[restriction.alternatives[0]] for restriction in restrictions)


class Attempt:
    """One try of a request at one coordinator."""

    __slots__ = ("epoch", "future", "replicas")

    def __init__(self, future: ResponseFuture, node: Node) -> None:
        self.future = future
        self.epoch = node.epoch
        self.replicas = 0

    def answer(self, node: Node, done_ns: int, error: Exception | None, replicas: int) -> None:
        """The coordinator answers at that instant: with success and no rows, or with an error."""
        self.answer_with(node, done_ns, _finish_plain, (error,), replicas)

    def answer_with(
        self, node: Node, done_ns: int, action: Callable[..., object], args: tuple[Any, ...], replicas: int
    ) -> None:
        """Run `action(attempt, node, *args)` when the coordinator's answer of that instant reaches the client."""
        session = self.future.session
        back_ns = session.server.network.delay_ns(node.name, session.client)
        self._answer_after(node, done_ns, back_ns, action, args, replicas)

    def _answer_after(
        self,
        node: Node,
        done_ns: int,
        back_ns: int | None,
        action: Callable[..., object],
        args: tuple[Any, ...],
        replicas: int,
    ) -> None:
        self.replicas = replicas
        future = self.future
        server = future.session.server
        if back_ns is not None and server.faults.armed and server.faults.strike("lose_answer"):
            back_ns = None
        if back_ns is None:
            future.wait_in_vain()
            return
        arrival_ns = done_ns + back_ns
        deadline_ns = future.deadline_ns
        if deadline_ns is not None and arrival_ns > deadline_ns:
            future.wait_in_vain()
        else:
            server.clock.at(arrival_ns, self._arrive, node, action, args)

    def succeed(self, node: Node, done_ns: int, replicas: int) -> None:
        """A write has succeeded: the hot case of `answer`, written out."""
        future = self.future
        session = future.session
        server = session.server
        back_ns = session.answer_ns(node)
        arrival_ns = done_ns + (back_ns or 0)
        deadline_ns = future.deadline_ns
        if back_ns is None or server.faults.armed or (deadline_ns is not None and arrival_ns > deadline_ns):
            self._answer_after(node, done_ns, back_ns, _finish_plain, (None,), replicas)
        else:
            self.replicas = replicas
            session.expect(arrival_ns, self, node)

    def _arrive(self, node: Node, action: Callable[..., object], args: tuple[Any, ...]) -> None:
        future = self.future
        if future.is_done:
            return
        if node.epoch != self.epoch:
            # The coordinator went down in the meantime: the connection is gone, and with it the answer.
            future.session.server.faults.count("connection_lost")
            future.deliver_error(ConnectionShutdown(f"Connection to {node.name} was closed"), node)
            return
        action(self, node, *args)

    def finish_read(self, page: Page, replicas: int) -> None:
        """The rows are there."""
        self.replicas = replicas
        self.future.replicas = replicas
        self.future.deliver_page(page)


def _succeed_all(futures: list[ResponseFuture]) -> None:
    for future in futures:
        future._succeed(None)


def _finish_plain(attempt: Attempt, node: Node, error: Exception | None) -> None:
    future = attempt.future
    future.replicas = attempt.replicas
    if error is None:
        future._enter(future._succeed, None)
    else:
        future.deliver_error(error, node)


class ResponseFuture:
    """The driver's ResponseFuture: one request with its retries and pages."""

    _continuous_paging_session = None

    # What most requests never change stands here, so that making a future stays cheap.
    _refusal: ServerRefusal | None = None
    _statement: Statement | None = None
    _profile: Any = None
    _speculation: Any = None
    _speculation_plan: Any = None
    _paging_state: bytes | None = None
    _sent_paging_state: bytes | None = None
    _final_result: Any = _NOT_SET
    _final_exception: Exception | None = None
    _col_names: list[str] | None = None
    _col_types: list[Any] | None = None
    _nodes: Iterator[Node] | None = None
    _host: Node | None = None
    _errors: dict[str, Exception] | None = None
    _retries = 0
    _tried_before = 0
    """How many of `attempted_hosts` belong to earlier pages."""
    _waits_in_vain = False
    serial_consistency: int | None = None
    timestamp: int | None = None
    coordinator_host: Node | None = None
    epoch = 0
    replicas = 0
    is_done = False
    _is_exact = False
    """Whether every marker got a value of its very type: nothing is null or unset."""
    is_schema_agreed = True
    warnings = None
    custom_payload = None

    def __init__(
        self,
        session: Session,
        query: Any,
        parameters: Any,
        timeout: float | None,
        profile_name: Any,
        paging_state: bytes | None,
        host: Node | None,
    ) -> None:
        self.session = session
        self._callbacks: list[tuple[Callable[..., object], tuple[Any, ...], dict[str, Any]]] = []
        self._errbacks: list[tuple[Callable[..., object], tuple[Any, ...], dict[str, Any]]] = []
        self.attempted_hosts: list[Node] = []
        self.plan: Plan | None = None
        self.full: tuple[Any, ...] = ()
        server = session.server
        if query.__class__ is PreparedStatement:
            try:
                plan = query.plan if query.catalog_version == server.catalog.version else query.current_plan()
            except ServerRefusal as refusal:
                self._refusal = refusal
            else:
                values = plan.binder.bind_exact(parameters)
                if values is None:
                    values = plan.binder.bind(parameters)
                else:
                    self._is_exact = True
                self.full = values + plan.constants
                self.plan = plan
            self._prepared = query
            self._parameters = parameters
        else:
            query = SimpleStatement(query) if isinstance(query, str) else query
            self._statement = query
            self._read_statement(query, parameters)
            self.serial_consistency = query.serial_consistency_level
        self._source = query
        if session.execution_profiles or profile_name is not EXEC_PROFILE_DEFAULT:
            self._take_profile(profile_name, timeout)
        else:
            self.row_factory = session.row_factory
            self.consistency = query.consistency_level
            if self.consistency is None:
                self.consistency = session.default_consistency_level
            self.timeout = session.default_timeout if timeout is _NOT_SET else timeout
        if session.use_client_timestamp and (self.plan is None or self.plan.timestamp_source < 0):
            # The driver always takes one; one that the statement overrides is never seen.
            self.timestamp = session.cluster.timestamp_generator()
        if paging_state is not None:
            self._sent_paging_state = paging_state
        if host is not None:
            self._host = host
        self._start_clock()

    def _take_profile(self, name: Any, timeout: float | None) -> None:
        """Take the settings from an execution profile instead of the session."""
        profile = self.session.profile(name)
        consistency = self._source.consistency_level
        self._profile = profile
        self.row_factory = profile.row_factory
        self.consistency = profile.consistency_level if consistency is None else consistency
        self.timeout = profile.request_timeout if timeout is _NOT_SET else timeout
        if self._source.is_idempotent:
            self._speculation = profile.speculative_execution_policy

    def _start_clock(self) -> None:
        """Begin a request, or that for its next page: the client's time-out counts from here."""
        now = self.session.server.clock._now
        self.started_ns = now
        timeout = self.timeout
        self.deadline_ns = None if timeout is None else now + int(timeout * NS_PER_SECOND)

    @property
    def retry_policy(self) -> Any:
        """The statement's own, or the profile's, or the cluster's."""
        own = self._source.retry_policy
        if own is not None:
            return own
        return self.session.cluster.default_retry_policy if self._profile is None else self._profile.retry_policy

    @property
    def fetch_size(self) -> int | None:
        """Rows in a page, None for all in one."""
        own = getattr(self._source, "fetch_size", FETCH_SIZE_UNSET)
        return self.session.default_fetch_size if own is FETCH_SIZE_UNSET else own

    def _read_statement(self, query: Any, parameters: Any) -> None:
        """Take a statement that is not a PreparedStatement apart."""
        server = self.session.server
        if isinstance(query, DriverBoundStatement):
            prepared = query.prepared_statement
            plan = prepared.current_plan()
            values: Any = query.values if isinstance(query, BoundStatement) else plan.binder.bind(query.raw_values)
            self.plan = plan
            self._is_exact = values.__class__ is tuple
            self.full = tuple(values) + plan.constants
            return
        if isinstance(query, BatchStatement):
            self._read_batch(query)
            return
        text = query.query_string
        if parameters:
            text = bind_params(text, parameters, self.session.encoder)
        try:
            plan = server.plan(query.keyspace or self.session.keyspace, text)
            binder = getattr(plan, "binder", None)
            if binder is not None and binder.markers:
                raise invalid("Invalid amount of bind variables")
            self.plan = plan
            self.full = getattr(plan, "constants", ())
        except ServerRefusal as refusal:
            self._refusal = refusal

    def _read_batch(self, batch: Any) -> None:
        server = self.session.server
        try:
            entries: list[tuple[ModifyPlan, tuple[Any, ...]]] = []
            are_plain = have_timestamps = True
            version = server.catalog.version
            for is_prepared, what, bound in batch._statements_and_parameters:
                if is_prepared:
                    prepared = server.prepared[what]
                    plan: Plan = prepared.plan if prepared.catalog_version == version else prepared.current_plan()
                else:
                    plan = server.plan(self.session.keyspace, what)
                if plan.__class__ is InsertPlan and plan.is_plain and bound.__class__ is tuple:
                    entries.append((plan, bound + plan.constants if plan.constants else bound))
                else:
                    if not isinstance(plan, ModifyPlan):
                        raise invalid(
                            "Invalid statement in batch: only UPDATE, INSERT and DELETE statements are allowed."
                        )
                    are_plain = False
                    entries.append((plan, tuple(bound) + plan.constants))
                have_timestamps = have_timestamps and plan.timestamp_source >= 0
            self.plan = BatchPlan(batch.batch_type.name, entries, timestamp_source=0 if have_timestamps else -1)
            self._is_exact = are_plain and bool(entries)
        except ServerRefusal as refusal:
            self._refusal = refusal

    # ---- the driver's interface

    @property
    def query(self) -> Any:
        """The statement, as retry policies get it."""
        if self._statement is None:
            self._statement = self._prepared.bind(self._parameters)
        return self._statement

    @property
    def has_more_pages(self) -> bool:
        """Whether there is another page after the one last returned."""
        return self._paging_state is not None

    def add_callback(self, fn: Callable[..., object], *args: Any, **kwargs: Any) -> ResponseFuture:
        """Call `fn(rows, ...)` when the answer is there; at once when it is there already."""
        self._callbacks.append((fn, args, kwargs))
        if self._final_result is not _NOT_SET:
            fn(self._final_result, *args, **kwargs)
        return self

    def add_errback(self, fn: Callable[..., object], *args: Any, **kwargs: Any) -> ResponseFuture:
        """Call `fn(exception, ...)` when the request has failed; at once when it has already."""
        self._errbacks.append((fn, args, kwargs))
        if self._final_exception is not None:
            fn(self._final_exception, *args, **kwargs)
        return self

    def add_callbacks(
        self,
        callback: Callable[..., object],
        errback: Callable[..., object],
        callback_args: tuple[Any, ...] = (),
        callback_kwargs: dict[str, Any] | None = None,
        errback_args: tuple[Any, ...] = (),
        errback_kwargs: dict[str, Any] | None = None,
    ) -> None:
        """Both."""
        if not self.is_done:
            self._callbacks += ((callback, callback_args, callback_kwargs or _NO_KEYWORDS),)
            self._errbacks += ((errback, errback_args, errback_kwargs or _NO_KEYWORDS),)
            return
        self.add_callback(callback, *callback_args, **(callback_kwargs or {}))
        self.add_errback(errback, *errback_args, **(errback_kwargs or {}))

    def clear_callbacks(self) -> None:
        """Forget all callbacks and errbacks."""
        self._callbacks = []
        self._errbacks = []

    def start_fetching_next_page(self) -> None:
        """Ask for the next page; callbacks are called again. Raises QueryExhausted when there is none."""
        if self._paging_state is None:
            raise QueryExhausted()
        self._sent_paging_state = self._paging_state
        self._final_result = _NOT_SET
        self._final_exception = None
        self.is_done = False
        self._waits_in_vain = False
        self._nodes = None
        self._tried_before = len(self.attempted_hosts)
        self._start_clock()
        self.send_request()

    def result(self) -> Any:
        """The answer as a ResultSet, or the exception raised. Blocks: only the harness may wait."""
        if not self.is_done:
            if self.session.incarnation is not None:
                raise EscapedSimulationError(f"{self.session.client} called ResponseFuture.result, which blocks")
            clock = self.session.server.clock
            while not self.is_done:
                if clock.peek() == float("inf"):
                    raise RuntimeError("this request will never be answered, and it has no time-out")
                clock.step()
        if self._final_exception is not None:
            raise self._final_exception
        return ResultSet(self, self._final_result)

    def _serial_level(self) -> int | None:
        """The serial consistency of a conditional statement, None for the default."""
        if self.serial_consistency is not None:
            return self.serial_consistency
        if self._profile is not None:
            return self._profile.serial_consistency_level  # type: ignore[no-any-return]
        return self.session.default_serial_consistency_level

    # ---- sending

    def send_request(self) -> None:
        """Send to the first node of the query plan that can be reached."""
        incarnation = self.session.incarnation
        if incarnation is not None and not incarnation.alive:
            return
        server = self.session.server
        if self.session.is_shutdown:
            raise ConnectionException("Pool is shutdown")
        server.operations_open += 1
        self.session.open_operations += 1
        if self.plan.__class__ is SelectPlan:
            self.session.open_reads += 1
        node = None if self._host is not None else self.session.first_node(self.plan)
        if node is None or not node.is_up:
            self._send(None)
            return
        # Nearly every request ends at the first node of its plan: the rest of it is not made before it is needed.
        self.attempted_hosts.append(node)
        self.coordinator_host = node
        self._coordinate(node)
        if self._speculation is not None and not self.is_done:
            self._plan_speculation(node)

    def _next_node(self) -> Node | None:
        """The next node of the query plan that is up."""
        nodes = self._nodes
        if nodes is None:
            tried = self.attempted_hosts[self._tried_before :]
            plan = [self._host] if self._host is not None else self.session.query_plan(self.plan, self.full)
            nodes = self._nodes = iter([node for node in plan if node not in tried])
        for node in nodes:
            if node.is_up:
                return node
            self._note_error(node, ConnectionException("Host has been marked down or removed"))
            self.session.server.faults.count("node_down")
        return None

    def _note_error(self, node: Node, error: Exception) -> None:
        if self._errors is None:
            self._errors = {}
        self._errors[node.name] = error

    def _send(self, node: Node | None) -> None:
        if node is None or not node.is_up:
            node = self._next_node()
            if node is None:
                # The driver finds out on the caller's own thread; a callback added right after is called at once.
                self._fail(NoHostAvailable("Unable to complete the operation against any hosts", self._errors or {}))
                return
        self.attempted_hosts.append(node)
        self.coordinator_host = node
        self._coordinate(node)
        if self._speculation is not None and not self.is_done:
            self._plan_speculation(node)

    def _plan_speculation(self, node: Node) -> None:
        if self._speculation_plan is None:
            plan = self._speculation.new_plan(self.session.keyspace, self.query)
            self._speculation_plan = plan or NoSpeculativeExecutionPlan()
        delay_s = self._speculation_plan.next_execution(node)
        if delay_s >= 0:
            self.session.server.clock.after(int(delay_s * NS_PER_SECOND), self._enter, self._speculate)

    def _speculate(self) -> None:
        if not self.is_done:
            node = self._next_node()
            if node is not None:
                self.attempted_hosts.append(node)
                self._coordinate(node)
                self._plan_speculation(node)

    def _coordinate(self, node: Node) -> None:
        """Let a node coordinate the request."""
        session = self.session
        server = session.server
        request_ns = session.request_ns(node)
        if request_ns is None:
            self.wait_in_vain()
            return
        plan = self.plan
        attempt = Attempt(self, node)
        try:
            if self._refusal is not None:
                raise self._refusal
            full = self.full
            if (
                plan.__class__ is InsertPlan
                and plan.is_plain
                and self.consistency not in _SERIAL
                and (self._is_exact or UNSET_VALUE not in full)
            ):
                arrival_ns = node.wall.now_ns() + request_ns
                timestamp = arrival_ns // 1_000 if self.timestamp is None else self.timestamp
                row = plan.row(full, timestamp, arrival_ns // NS_PER_SECOND)
                if row.ttl and node.wall.offset_ns:
                    server.faults.count("node_clock_skew")
                mutation = new_tuple(Mutation, (row.partition, ((plan.table, row),)))
                server.coordinator.write_one(attempt, request_ns, node, mutation, self.consistency)
            elif plan.__class__ is BatchPlan and self._is_exact and self.consistency not in _SERIAL:
                self._coordinate_rows(attempt, node, request_ns, plan.entries, plan.kind == "LOGGED")
            else:
                self._coordinate_other(attempt, node, request_ns)
        except ServerRefusal as refusal:
            attempt.answer(node, server.clock._now + request_ns, refusal.message, 0)

    def _coordinate_rows(
        self,
        attempt: Attempt,
        node: Node,
        request_ns: int,
        entries: list[tuple[Any, tuple[Any, ...]]],
        is_logged: bool,
    ) -> None:
        """A batch whose plans are all plain INSERTs. The hot path."""
        coordinator = self.session.server.coordinator
        arrival_ns = node.wall.now_ns() + request_ns
        timestamp = arrival_ns // 1_000 if self.timestamp is None else self.timestamp
        now_s = arrival_ns // NS_PER_SECOND
        changes: list[tuple[Table, RowWrite]] = [
            (plan.table, plan.row(full, timestamp, now_s)) for plan, full in entries
        ]
        table, row = changes[0]
        partition, key_space = row.partition, table.key_space
        mutations = None
        expires = False
        before = row
        for table, row in changes:
            # One order's row in two tables is kept once: rows are never changed.
            if row.kept == before.kept:
                row.kept = before.kept
            if row.position == before.position:
                row.position = before.position
            before = row
            if row.ttl:
                expires = True
            if mutations is None and (row.partition != partition or table.key_space != key_space):
                mutations = by_partition(changes)
        if expires and node.wall.offset_ns:
            self.session.server.faults.count("node_clock_skew")
        if mutations is None:
            mutation = new_tuple(Mutation, (partition, tuple(changes)))
            coordinator.write_one(attempt, request_ns, node, mutation, self.consistency)
        else:
            coordinator.write_batch(attempt, request_ns, node, mutations, self.consistency, logged=is_logged)

    def _coordinate_other(self, attempt: Attempt, node: Node, request_ns: int) -> None:
        server = self.session.server
        plan = self.plan
        coordinator = server.coordinator
        if isinstance(plan, SelectPlan):
            state = self._sent_paging_state
            cursor = None if state is None else decode_cursor(plan.table, state)
            coordinator.read(attempt, request_ns, node, plan, self.full, self.consistency, self.fetch_size, cursor)
            return
        if isinstance(plan, ModifyPlan):
            if plan.is_conditional:
                server.lightweight.execute(
                    attempt, request_ns, node, plan, self.full, self.consistency, self.serial_consistency
                )
                return
            changes = [(plan.table, change) for change in self._changes(plan, self.full, node, request_ns, None)]
            self._write(attempt, node, request_ns, changes, logged=False)
            return
        if isinstance(plan, BatchPlan):
            changes = []
            for entry, values in plan.entries:
                own = self._changes(entry, values, node, request_ns, plan.timestamp)
                changes += [(entry.table, change) for change in own]
            self._write(attempt, node, request_ns, changes, logged=plan.kind == "LOGGED")
            return
        statement = plan.statement  # type: ignore[union-attr]
        attempt.answer_with(node, server.clock._now + request_ns, _change_schema, (statement,), 0)

    def _changes(
        self, plan: ModifyPlan, values: tuple[Any, ...], node: Node, request_ns: int, batch_timestamp: int | None
    ) -> list[Change]:
        timestamp = plan.timestamp_of(values)
        if timestamp is not None and batch_timestamp is not None:
            raise invalid("Timestamp must be set either on BATCH or individual statements")
        if timestamp is None:
            timestamp = batch_timestamp
        if timestamp is None:
            timestamp = node.now_us(request_ns) if self.timestamp is None else self.timestamp
        return plan.changes(values, timestamp, node.now_s(request_ns))

    def _write(
        self, attempt: Attempt, node: Node, request_ns: int, changes: list[tuple[Table, Change]], *, logged: bool
    ) -> None:
        coordinator = self.session.server.coordinator
        if self.consistency in _SERIAL:
            raise invalid("You must use conditional updates for serializable writes")
        mutations = by_partition(changes)
        if len(mutations) == 1:
            coordinator.write_one(attempt, request_ns, node, mutations[0], self.consistency)
        elif mutations:
            coordinator.write_batch(attempt, request_ns, node, mutations, self.consistency, logged=logged)
        else:
            attempt.answer(node, self.session.server.clock._now + request_ns, None, 0)

    # ---- the answer

    def wait_in_vain(self) -> None:
        """No answer will come in time: the driver gives up at its own time-out, if it has one."""
        if self.deadline_ns is not None and not self._waits_in_vain:
            self._waits_in_vain = True
            clock = self.session.server.clock
            # A retry of a host that was paused may begin after the deadline.
            clock.at(max(self.deadline_ns, clock.now), self._give_up)

    def _give_up(self) -> None:
        if not self.is_done:
            self._enter(self._on_timeout)

    def _on_timeout(self) -> None:
        if not self.is_done:
            node = self.coordinator_host
            said: Any = "Client request timeout. See Session.execute[_async](timeout)"
            errors: dict[str, Any] = dict(self._errors or {str(node and node.name): said})
            self._fail(OperationTimedOut(errors, node))

    def _enter(self, callback: Callable[..., object], *args: object) -> None:
        incarnation = self.session.incarnation
        if incarnation is None:
            callback(*args)
        elif incarnation.alive:
            incarnation.enter(callback, *args)
        else:
            self._close()

    def deliver_nothing(self) -> None:
        """Success without rows."""
        self._enter(self._succeed, None)

    def deliver_page(self, page: Page) -> None:
        """Rows."""
        self._enter(self._take_page, page)

    def deliver_error(self, error: Exception, node: Node) -> None:
        """An error message of the server, or the loss of the connection."""
        self._enter(self._handle_error, error, node)

    def _take_page(self, page: Page) -> None:
        if self.is_done:
            return
        plan = self.plan
        assert isinstance(plan, (SelectPlan, ModifyPlan))
        if isinstance(plan, SelectPlan):
            self.session.read_ended()
            self._col_names = plan.names
            self._col_types = [output.type.driver for output in plan.outputs]
            self._paging_state = None if page.cursor is None else encode_cursor(plan.table, page.cursor)
        else:
            self._col_names = page.names
        self._succeed(make_rows(self.row_factory, self._col_names, page.rows))

    def _succeed(self, result: Any) -> None:
        if self.is_done:
            return
        self.is_done = True
        session = self.session
        if session.open_operations:
            session.open_operations -= 1
            session.server.operations_open -= 1
        if session.server.emit_cql is not None:
            self._record("ok")
        self._final_result = result
        for fn, args, kwargs in self._callbacks.copy():
            if args or kwargs:
                fn(result, *args, **kwargs)
            else:
                fn(result)

    def _fail(self, error: Exception) -> None:
        self._close()
        self.session.failed_ns = self.session.server.clock.now
        self._record(type(error).__name__)
        self._final_exception = error
        for fn, args, kwargs in tuple(self._errbacks):
            fn(error, *args, **kwargs)

    def _close(self) -> None:
        if not self.is_done:
            self.is_done = True
            self.session.operation_ended()
            if self.plan.__class__ is SelectPlan:
                self.session.read_ended()

    def _handle_error(self, error: Exception, node: Node) -> None:
        """Ask the retry policy, as `ResponseFuture._set_result` of the driver does."""
        if self.is_done:
            return
        policy = self.retry_policy
        info: dict[str, Any] = getattr(error, "info", None) or {}
        if isinstance(error, ReadTimeoutErrorMessage):
            decision = policy.on_read_timeout(self.query, retry_num=self._retries, **info)
        elif isinstance(error, WriteTimeoutErrorMessage):
            decision = policy.on_write_timeout(self.query, retry_num=self._retries, **info)
        elif isinstance(error, UnavailableErrorMessage):
            decision = policy.on_unavailable(self.query, retry_num=self._retries, **info)
        elif isinstance(error, (OverloadedErrorMessage, ServerError, ConnectionException)):
            decision = policy.on_request_error(self.query, self.consistency, error=error, retry_num=self._retries)
        else:
            self._fail(_as_exception(error))
            return
        kind, consistency = decision
        if kind in (RetryPolicy.RETRY, RetryPolicy.RETRY_NEXT_HOST):
            self._retries += 1
            if consistency is not None:
                self.consistency = consistency
            self._note_error(node, _as_exception(error))
            self._send(node if kind == RetryPolicy.RETRY else None)
        elif kind == RetryPolicy.RETHROW:
            self._fail(_as_exception(error))
        else:
            self._succeed(None)

    def _record(self, outcome: str) -> None:
        server = self.session.server
        emit = server.emit_cql
        plan = self.plan
        if emit is None or plan is None:
            return
        if plan.__class__ is BatchPlan:
            self._record_each(emit, plan.entries, outcome, plan.timestamp)
        elif isinstance(plan, (ModifyPlan, SelectPlan)):
            self._record_each(emit, ((plan, self.full),), outcome, None)

    def _record_each(
        self,
        emit: Any,
        entries: Sequence[tuple[ModifyPlan | SelectPlan, tuple[Any, ...]]],
        outcome: str,
        batch_timestamp: int | None,
    ) -> None:
        """One event for each statement of the request."""
        session = self.session
        now = session.server.clock._now
        consistency = _CONSISTENCY_NAMES[self.consistency]
        timestamp_taken = batch_timestamp if batch_timestamp is not None else self.timestamp
        if timestamp_taken is None:
            timestamp_taken = -1
        for plan, full in entries:
            # Places in the values; the last of the padded values stands for "none", which is place -1.
            padded = (*full, -1)
            user, symbol, order = plan.trace_sources
            user_id, symbol_id, order_id = padded[user], padded[symbol], padded[order]
            is_write = plan.operation != "SELECT"
            place = plan.timestamp_source
            emit(
                now,
                session.client,
                plan.statement_id,
                plan.table.name,
                plan.operation,
                user_id if user_id.__class__ is int else -1,
                symbol_id if symbol_id.__class__ is int else -1,
                order_id if order_id.__class__ is int else -1,
                full[place] if place >= 0 else timestamp_taken if is_write else -1,
                padded[plan.ttl_source],
                consistency,
                self.started_ns,
                outcome,
                self.replicas,
            )


def _as_exception(error: Exception) -> Exception:
    convert = getattr(error, "to_exception", None)
    return error if convert is None else convert()


def _change_schema(attempt: Attempt, node: Node, statement: st.Statement) -> None:
    session = attempt.future.session
    try:
        if isinstance(statement, st.Use):
            session.server.catalog.keyspace(statement.keyspace)
            session.keyspace = statement.keyspace
        else:
            session.server.change_schema(statement, session.keyspace)
    except ServerRefusal as refusal:
        attempt.future.deliver_error(refusal.message, node)
    else:
        attempt.future.deliver_nothing()


def by_partition(changes: Sequence[tuple[Table, Change]]) -> list[Mutation]:
    """The changes of a request as Cassandra sends them to replicas: those of one partition key together.

    Tables of one keyspace share a partition key when its bytes are the same (BatchUpdatesCollector).
    """
    grouped: dict[tuple[tuple[str, ...], Key], list[tuple[Table, Change]]] = {}
    for table, change in changes:
        grouped.setdefault((table.key_space, change.partition), []).append((table, change))
    return [Mutation(partition, tuple(parts)) for (_, partition), parts in grouped.items()]


@lru_cache(maxsize=512)
def _row_class(names: tuple[str, ...]) -> type:
    """The named tuple that the driver's factory makes for these columns, names cleaned its way; made once, not per
    page."""
    rows = named_tuple_factory(names, [(None,) * len(names)])
    return type(rows[0])


def make_rows(factory: RowFactory, names: list[str] | None, rows: list[tuple[Any, ...]]) -> Any:
    """Apply a row factory."""
    if factory is named_tuple_factory:
        return list(map(_row_class(tuple(names or ()))._make, rows))  # type: ignore[attr-defined]
    return factory(names or (), rows)
