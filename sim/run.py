"""A run: one scenario, simulated in two phases, recorded, judged and stored (design section 5, "Two phases").

start      topics, tables, services; no faults yet
work       clients act while faults strike
settle     faults are healed, hosts are up, clients only finish what they began; ends when nothing is left to do
look       the final rows are read through the driver, at ALL, with writetime and ttl
stop       services get SIGTERM
later      25 hours on, the rows are read again: live ones are there, finished ones are gone
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pyarrow as pa
from cassandra import ConsistencyLevel
from cassandra.query import SimpleStatement, tuple_factory

from schema import tables
from schema.topics import Topology
from sim import defects, graveyard
from sim.clients import Clients
from sim.deployment import Deployment, layout_of
from sim.faults.catalogue import OPTIONS
from sim.faults.checks import check_strikes
from sim.faults.injector import Injector
from sim.faults.plan import draw_plan
from sim.flows import FlowReport, Operation, load_flow, make_topology, synthetic_flow
from sim.flows.operations import check_operations
from sim.hosts import RUN_STARTS_NS
from sim.progress import Progress
from sim.randomness import Randomness
from sim.scenario import MILLISECOND_NS, SECOND_NS, SYNTHETIC, Scenario, ScenarioError
from sim.script import Script, Strike
from sim.world import World
from traces.invariants import check
from traces.manifest import Manifest, TopologyRecord, package_versions
from traces.recorder import Recorder
from traces.store import TraceWriter, read_trace, write_verdicts
from traces.summary import completions_by_reason, counts
from traces.trace import Trace
from traces.verdicts import VIOLATED, Verdict

WARM_UP_NS: Final = 5 * SECOND_NS
"""From the start of the services until clients and faults begin: groups form, partitions are taken."""
POLL_NS: Final = 250 * MILLISECOND_NS
"""How often it is asked whether the system has settled."""
STOP_NS: Final = 60 * SECOND_NS
"""How long the services may take to end after SIGTERM."""
LATER_NS: Final = 25 * 3600 * SECOND_NS

SETTLED_LOOK: Final = 0
LATER_LOOK: Final = 1

_LOOKED_AT: Final = {
    # table -> a regular column, whose writetime and ttl are the row's
    tables.ACTIVE_ORDERS: "revision",
    tables.ORDER_HISTORY: "revision",
    tables.ORDER_LOOKUP: "revision",
    tables.USER_TRADES: "output_seq",
    tables.BALANCE_LEDGER: "event_seq",
    tables.USER_BALANCES: "ledger_seq",
    tables.SETTLEMENT_PROGRESS: "sequence",
}


@dataclass(frozen=True)
class Simulated:
    """A run that has ended, not judged yet."""

    scenario: Scenario
    topology: Topology
    recorder: Recorder
    manifest: Manifest
    plan: tuple[Strike, ...]
    struck: dict[str, int]
    """How often each fault began."""
    met: dict[str, int]
    """How many of them began at the moment that they had waited for, by moment."""
    hits: dict[str, int]
    """How many operations the faults of servers and links really hit, by what happened to them."""
    flow_report: FlowReport | None
    sim_ns: int


@dataclass(frozen=True)
class RunResult:
    """A run that was judged and stored: what `run` prints."""

    simulated: Simulated
    trace: Trace
    counts: dict[str, int]
    """What `traces.summary.counts` says."""
    completions: dict[str, int]
    """How many orders ended for which reason."""
    verdicts: dict[str, Verdict]
    path: Path | None
    wall_seconds: float
    check_seconds: float
    store_seconds: float

    @property
    def scenario(self) -> Scenario:
        return self.simulated.scenario

    @property
    def digest(self) -> str:
        return self.simulated.manifest.digest

    @property
    def holds(self) -> bool:
        """Whether no invariant is violated."""
        return all(verdict.verdict != VIOLATED for verdict in self.verdicts.values())


def run_scenario(scenario: Scenario, out: Path | None, progress: Progress) -> RunResult:
    """Simulate, storing the trace in `out` meanwhile (keeping it in memory when None), and judge it.

    Raises ScenarioError or FlowError for what cannot be run, TraceError when the trace cannot be stored.
    """
    started = time.perf_counter()
    writer = TraceWriter(out) if out is not None else None
    try:
        simulated = simulate(scenario, progress, Recorder(writer), writer.check if writer is not None else None)
        storing = time.perf_counter()
        if writer is None:
            trace = Trace.of(simulated.recorder, simulated.manifest)
            simulated.recorder.release()
        else:
            progress.show(f"storing the trace in {out}")
            trace = read_trace(writer.finish(simulated.manifest))
    except BaseException:
        if writer is not None:
            writer.abandon()
        raise
    checking = time.perf_counter()
    progress.show("checking the trace")
    # The world that has just ended, and what Arrow keeps for its next chunks: that memory is wanted now.
    graveyard.close()
    pa.default_memory_pool().release_unused()
    found, completions = counts(trace), completions_by_reason(trace)
    verdicts = check(trace)
    checked = time.perf_counter()
    if out is not None:
        write_verdicts(out, {name: each.record for name, each in verdicts.items()})
    ended = time.perf_counter()
    progress.clear()
    return RunResult(
        simulated=simulated,
        trace=trace,
        counts=found,
        completions=completions,
        verdicts=verdicts,
        path=out,
        wall_seconds=ended - started,
        check_seconds=checked - checking,
        store_seconds=checking - storing + ended - checked,
    )


def simulate(
    scenario: Scenario,
    progress: Progress,
    recorder: Recorder | None = None,
    check_sink: Callable[[], None] | None = None,
) -> Simulated:
    """Carry the scenario out, with its defect in place; everything that happened goes to the recorder, or its sink.

    Without a recorder the events are kept in memory. `check_sink` is asked once per simulated second, and raises when
    the sink has failed. Raises ScenarioError or FlowError for what cannot be run.
    """
    recorder = recorder if recorder is not None else Recorder()
    defect = defects.named(scenario.defect)
    randomness = Randomness(scenario.seed)
    topology, operations, report, duration_ns = _open_flow(scenario, randomness)
    world = World(scenario.seed, recorder)
    deployment = Deployment(world, scenario, topology)
    # Before the world is touched, so that a wrong fault name costs nothing.
    if scenario.script is not None:
        plan = scenario.script.strikes
        check_strikes(plan, OPTIONS, deployment.layout)
    else:
        plan = draw_plan(scenario.faults, OPTIONS, deployment.layout, duration_ns, randomness)
    try:
        with defects.applied(defect), world.running():
            run = _Run(scenario, world, deployment, progress, check_sink)
            injector = run.carry_out(operations, plan, duration_ns)
    finally:
        world.close()
    recorder.finish()
    hits = {**deployment.network.struck, **deployment.kafka.struck, **deployment.cassandra.struck}
    manifest = Manifest(
        seed=scenario.seed,
        epoch_ns=RUN_STARTS_NS,
        scenario=scenario.as_dict(),
        packages=package_versions(),
        digest=recorder.digest(),
        statements=dict(enumerate(deployment.cassandra.statement_texts)),
        topology=TopologyRecord.of(topology),
    )
    deployment.kafka.release()
    deployment.cassandra.release()
    return Simulated(
        scenario=scenario,
        topology=topology,
        recorder=recorder,
        manifest=manifest,
        plan=plan,
        struck=dict(injector.begun),
        met=dict(injector.met),
        hits=dict(sorted(hits.items())),
        flow_report=report,
        sim_ns=world.clock.now,
    )


def written_out(scenario: Scenario) -> Scenario:
    """The same scenario with its choices written out in a script: the same run, to the byte.

    Raises ScenarioError or FlowError for what cannot be run.
    """
    if scenario.script is not None:
        return scenario
    randomness = Randomness(scenario.seed)
    topology, operations, _, duration_ns = _open_flow(scenario, randomness)
    strikes = draw_plan(scenario.faults, OPTIONS, layout_of(scenario), duration_ns, randomness)
    script = Script(topology=TopologyRecord.of(topology), operations=tuple(operations), strikes=strikes)
    return replace(scenario, duration_ns=duration_ns, script=script)


def _open_flow(
    scenario: Scenario, randomness: Randomness
) -> tuple[Topology, Iterable[Operation], FlowReport | None, int]:
    if scenario.script is not None:
        try:
            topology = scenario.script.topology.topology()
            check_operations(scenario.script.operations)
        except ValueError as error:
            raise ScenarioError(f"scenario: {error}") from None
        return topology, scenario.script.operations, None, scenario.duration_ns
    if scenario.flow != SYNTHETIC:
        recorded = load_flow(
            scenario.flow,
            users=scenario.users,
            user_partitions=scenario.user_partitions,
            symbol_partitions=scenario.symbol_partitions,
            duration_ns=scenario.duration_ns,
        )
        return recorded.topology, recorded.operations, recorded.report, recorded.duration_ns
    topology = make_topology(scenario.symbols, scenario.user_partitions, scenario.symbol_partitions)
    operations = synthetic_flow(
        randomness, topology, orders=scenario.orders, users=scenario.users, duration_ns=scenario.duration_ns
    )
    return topology, operations, None, scenario.duration_ns


class _Run:
    """The phases of one run."""

    def __init__(
        self,
        scenario: Scenario,
        world: World,
        deployment: Deployment,
        progress: Progress,
        check_sink: Callable[[], None] | None,
    ) -> None:
        self.scenario = scenario
        self.world = world
        self.clock = world.clock
        self.deployment = deployment
        self.progress = progress
        self._check_sink = check_sink
        self._emit_phase = world.recorder.emitter("phases")

    def carry_out(self, operations: Iterable[Operation], plan: tuple[Strike, ...], duration_ns: int) -> Injector:
        """All phases; returns who struck, and knows what."""
        self._phase("start")
        self.deployment.create()
        self.deployment.start()
        self._run_until(self.clock.now + WARM_UP_NS)

        self._phase("work")
        start_ns = self.clock.now
        clients = Clients(
            clock=self.clock,
            network=self.world.network,
            randomness=self.world.randomness,
            recorder=self.world.recorder,
            topology=self.deployment.topology,
            gateways=tuple(self.deployment.gateways.values()),
            operations=operations,
        )
        clients.start()
        self.deployment.clients = clients
        injector = Injector(self.deployment, plan, start_ns, start_ns + duration_ns)
        self._run_until(start_ns + duration_ns)

        self._phase("heal")
        injector.heal()
        self.deployment.heal()
        clients.stop_new_work()

        self._phase("settle")
        unrest = self._settle(clients)
        if unrest:
            self._phase("unsettled", unrest)
        else:
            self._phase("settled")
            clients.read_everything()
            self.world.run_while(lambda: not clients.is_quiet(), self.clock.now + self.scenario.settle_bound_ns)
        self._look(SETTLED_LOOK)

        clients.give_up()
        self.deployment.stop()
        self.world.run_while(lambda: not self.deployment.is_down, self.clock.now + STOP_NS)
        self._phase("stopped", "" if self.deployment.is_down else "a service did not end after SIGTERM")
        self._run_until(self.clock.now + LATER_NS)
        self._phase("later")
        self._look(LATER_LOOK)
        self._record_log()
        return injector

    def _run_until(self, when_ns: int) -> None:
        """Let time pass. A run whose trace cannot be stored any more ends within a simulated second."""
        self.world.run_while(self._goes_on, when_ns)

    def _goes_on(self) -> bool:
        if self._check_sink is not None:
            self._check_sink()
        return True

    def _settle(self, clients: Clients) -> str:
        """Let the system come to rest; what is still going on when the bound has passed, "" when nothing is."""
        deadline_ns = self.clock.now + self.scenario.settle_bound_ns
        while unrest := self._unrest(clients):
            if self.clock.now >= deadline_ns:
                return f"{unrest}, {self.scenario.settle_bound_ns // SECOND_NS} s after all faults were healed"
            self._run_until(self.clock.now + POLL_NS)
        return ""

    def _unrest(self, clients: Clients) -> str:
        if not clients.is_quiet():
            return f"{clients.in_flight()} requests of clients are not answered"
        if unrest := self.deployment.kafka.unrest():
            return unrest
        if not self.deployment.cassandra.is_quiet():
            return "Cassandra has operations or hints under way"
        return ""

    def _look(self, look: int) -> None:
        """Read every table through the driver at ALL, as an observer who sees nothing but rows."""
        clock = self.clock
        session = self.deployment.cassandra.harness_session(tables.KEYSPACE)
        session.row_factory = tuple_factory
        for table, column in _LOOKED_AT.items():
            emit = self.world.recorder.emitter(f"final_{table}")
            columns = tables.TABLE_COLUMNS[table]
            query = f"SELECT {', '.join(columns)}, writetime({column}), ttl({column}) FROM {table}"
            statement = SimpleStatement(query, consistency_level=ConsistencyLevel.ALL, fetch_size=5_000)
            for *values, write_timestamp, ttl in session.execute(statement):
                emit(clock._now, "observer", look, *values, write_timestamp, -1 if ttl is None else ttl)

    def _record_log(self) -> None:
        """What a read-committed reader finds in every topic."""
        kafka = self.deployment.kafka
        emit = self.world.recorder.emitter("kafka_log")
        now = self.clock.now
        for topic in kafka.topics:
            for partition, offset, appended_ns, timestamp_ms, producer_id, key, value in kafka.committed_log(topic):
                emit(now, "", topic, partition, offset, appended_ns, timestamp_ms, producer_id, key or b"", value)

    def _phase(self, phase: str, detail: str = "") -> None:
        self._emit_phase(self.clock.now, "", phase, detail)
        self.progress.show(f"seed {self.scenario.seed}: {phase}, {self.clock.now / SECOND_NS:.1f} s simulated")
