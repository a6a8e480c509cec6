"""A run on real servers: the workload of a seed in real time, recorded as a trace, judged by the same invariants.

start      topics and tables are there, the services' groups are stable, gateways are ready
work       clients act, as in the simulation; whoever likes kills services meanwhile
settle     clients only finish what they began; ends when every group has taken and committed every record
look       every table is read at LOCAL_QUORUM and every topic from its beginning, as an audit does

What a simulation records from inside its servers (statements, commits, deliveries) is not there, and there is no look
25 hours later; the invariants judge the rest.
"""

import asyncio
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from live.connections import open_session, open_store, prepare_kafka
from live.kafka import AioKafkaClients
from live.log import adopt_library_logs, make_log
from live.options import Servers
from live.reading import committed_ends, undelivered, written_ends
from live.recording import record_tables, record_topics
from schema.ports import KafkaClients
from schema.services import MATCHING, SETTLEMENT, UBSCORE
from schema.topics import (
    BALANCE_EVENTS,
    ENGINE_OUTPUTS,
    FUND_UPDATES,
    ORDER_REQUESTS,
    VALIDATED_ORDERS,
    Topology,
)
from sim.clients import Clients
from sim.clock import NS_PER_SECOND, Clock
from sim.driver.gateways import DriverGateway
from sim.driver.latency import Latency, LatencyMeter
from sim.driver.real_time import NoNetwork, RealTimeClock
from sim.flows import FlowReport, Operation
from sim.network import Network
from sim.progress import Progress
from sim.randomness import Randomness
from traces.invariants import check
from traces.manifest import Manifest, TopologyRecord, package_versions, with_verdicts
from traces.recorder import Recorder
from traces.store import write_trace
from traces.trace import Trace
from traces.verdicts import VIOLATED, Verdict

GROUP_INPUTS: Final = {
    UBSCORE: (ORDER_REQUESTS, FUND_UPDATES),
    MATCHING: (VALIDATED_ORDERS,),
    SETTLEMENT: (ENGINE_OUTPUTS, BALANCE_EVENTS),
}
"""The consumer groups, and what each reads."""

POLL_S: Final = 0.5
LOOK: Final = 0


class DriveError(RuntimeError):
    """The workload cannot be driven; the message is one line."""


@dataclass(frozen=True)
class Workload:
    """What is driven: operations of a flow on a market, over `duration_ns`, from a seed."""

    seed: int
    topology: Topology
    operations: Iterable[Operation]
    duration_ns: int
    report: FlowReport | None = None


@dataclass(frozen=True)
class DriveOptions:
    """`scenario` is plain data for the manifest; `log_level` is that of the gateways' own log, on standard error."""

    servers: Servers
    gateways: int
    settle_bound_s: float
    scenario: dict[str, object]
    log_level: str = "warning"


@dataclass(frozen=True)
class DriveResult:
    """A run that was judged and stored."""

    trace: Trace
    verdicts: dict[str, Verdict]
    path: Path | None
    client_counts: dict[str, int]
    answers: Latency
    rows: Latency
    rows_not_seen: int
    work_s: float
    """From the first order command to the last answer."""
    settle_s: float
    """From the end of the work until everything was settled."""
    wall_s: float

    @property
    def holds(self) -> bool:
        """Whether no invariant is violated."""
        return all(verdict.verdict != VIOLATED for verdict in self.verdicts.values())


def drive(workload: Workload, options: DriveOptions, out: Path | None, progress: Progress) -> DriveResult:
    """Drive, judge, and store the trace in `out`. Raises DriveError, ServersUnusable, TraceError."""
    return asyncio.run(_drive(workload, options, out, progress))


async def _drive(workload: Workload, options: DriveOptions, out: Path | None, progress: Progress) -> DriveResult:
    started = time.perf_counter()
    servers, topology = options.servers, workload.topology
    log = make_log("console", options.log_level, stream=sys.stderr.buffer, service="gateway")
    adopt_library_logs(log)
    real = AioKafkaClients(servers.kafka, client_id="driver")
    kafka = servers.namespace.clients(real)
    progress.show("connecting")
    await prepare_kafka(real, servers, topology, log)
    async with open_session(servers, log, create=True) as session:
        store = await open_store(session, topology.symbols.symbols, log)
        await _refuse_used_topics(kafka, topology, servers)
        await _wait_for_services(real, servers, progress)
        recorder = Recorder()
        clock = RealTimeClock()
        meter = LatencyMeter(recorder, clock, store.queries)
        gateways = [
            DriverGateway(f"gateway-{number}", topology, kafka, store.queries, log)
            for number in range(1, options.gateways + 1)
        ]
        try:
            await asyncio.gather(*(gateway.start() for gateway in gateways))
            run = _Run(workload, options, recorder, clock, meter, gateways, kafka, session, progress)
            await run.carry_out()
        finally:
            await asyncio.gather(*(gateway.stop() for gateway in gateways))
        answers, rows = await meter.finish()
    progress.show("checking the trace")
    manifest = Manifest(
        seed=workload.seed,
        epoch_ns=clock.epoch_ns,
        scenario=options.scenario,
        packages=package_versions(),
        digest=recorder.digest(),
        topology=TopologyRecord.of(topology),
    )
    trace = Trace.of(recorder, manifest)
    verdicts = check(trace)
    if out is not None:
        progress.show(f"storing the trace in {out}")
        records = {name: each.record for name, each in verdicts.items()}
        write_trace(out, with_verdicts(manifest, records), trace.tables)
    progress.clear()
    return DriveResult(
        trace=trace,
        verdicts=verdicts,
        path=out,
        client_counts=dict(sorted(run.clients.counts.items())),
        answers=answers,
        rows=rows,
        rows_not_seen=meter.rows_not_seen,
        work_s=max(0, meter.last_answered_t - meter.first_sent_t) / NS_PER_SECOND,
        settle_s=run.settle_s,
        wall_s=time.perf_counter() - started,
    )


class _Run:
    """The phases of one run."""

    def __init__(
        self,
        workload: Workload,
        options: DriveOptions,
        recorder: Recorder,
        clock: RealTimeClock,
        meter: LatencyMeter,
        gateways: list[DriverGateway],
        kafka: KafkaClients,
        session: Any,
        progress: Progress,
    ) -> None:
        self.workload = workload
        self.options = options
        self.recorder = recorder
        self.clock = clock
        self.kafka = kafka
        self.session = session
        self.progress = progress
        self.settle_s = 0.0
        self._emit_phase = recorder.emitter("phases")
        self.clients = Clients(
            # In real time; `sim.driver.real_time` has what clients use of the simulated ones.
            clock=cast(Clock, clock),
            network=cast(Network, NoNetwork()),
            randomness=Randomness(workload.seed),
            recorder=meter,
            topology=workload.topology,
            gateways=gateways,
            operations=workload.operations,
        )

    async def carry_out(self) -> None:
        """All phases."""
        clients, clock = self.clients, self.clock
        self._phase("work")
        ends_at = clock.now + self.workload.duration_ns
        clients.start()
        while clock.now < ends_at:
            self.progress.show(
                f"{clients.in_flight()} requests under way, {(ends_at - clock.now) // NS_PER_SECOND} s left"
            )
            await asyncio.sleep(min(POLL_S, max(0.0, (ends_at - clock.now) / NS_PER_SECOND)))
        clients.stop_new_work()
        self._phase("settle")
        begun = clock.now
        unrest = await self._settle(begun)
        self.settle_s = (clock.now - begun) / NS_PER_SECOND
        if unrest:
            self._phase("unsettled", unrest)
        else:
            self._phase("settled")
            clients.read_everything()
            await self._until_quiet()
        await self._look()
        clients.give_up()

    async def _settle(self, begun_ns: int) -> str:
        """Let the system come to rest; what is still going on when the bound has passed, "" when nothing is."""
        bound_s = self.options.settle_bound_s
        while unrest := await self._unrest():
            self.progress.show(f"settling: {unrest}")
            if self.clock.now - begun_ns > bound_s * NS_PER_SECOND:
                return f"{unrest}, {bound_s:g} s after the clients were stopped"
            await asyncio.sleep(POLL_S)
        return ""

    async def _unrest(self) -> str:
        if not self.clients.is_quiet():
            return f"{self.clients.in_flight()} requests of clients are not answered"
        counts = self.workload.topology.partitions()
        committed, written = await committed_ends(self.kafka, counts), await written_ends(self.kafka, counts)
        for place, end in committed.items():
            if written[place] != end:
                return f"a transaction is open in {place.topic}-{place.partition}"
        for group, topics in GROUP_INPUTS.items():
            async for record in undelivered(self.kafka, group, {topic: counts[topic] for topic in topics}):
                return f"group {group} has not committed {record.topic}-{record.partition} offset {record.offset}"
        return ""

    async def _until_quiet(self) -> None:
        deadline = self.clock.now + int(self.options.settle_bound_s * NS_PER_SECOND)
        while self.clock.now < deadline:
            if self.clients.is_quiet():
                return
            await asyncio.sleep(POLL_S / 5)

    async def _look(self) -> None:
        self.progress.show("reading tables and topics")
        await record_tables(self.recorder, self.session, LOOK, self.clock.now)
        topology = self.workload.topology
        await record_topics(self.recorder, self.kafka, topology, self.clock.epoch_ns, self.clock.now)

    def _phase(self, phase: str, detail: str = "") -> None:
        self._emit_phase(self.clock.now, "", phase, detail)


async def _refuse_used_topics(kafka: KafkaClients, topology: Topology, servers: Servers) -> None:
    """A flow from a seed has request ids that were used before if it ran here before: it would only be repeated."""
    counts = {ORDER_REQUESTS: topology.partitions()[ORDER_REQUESTS]}
    if any((await written_ends(kafka, counts)).values()):
        raise DriveError(
            f"{servers.namespace.outside(ORDER_REQUESTS)} has records already; "
            "give a --namespace that was not driven yet"
        )


async def _wait_for_services(real: AioKafkaClients, servers: Servers, progress: Progress) -> None:
    """Until every group has members and is stable. Raises DriveError when one is not in time."""
    admin = real.admin()
    await admin.start()
    try:
        deadline = time.monotonic() + servers.wait_s
        while missing := await _groups_not_stable(admin, servers):
            if time.monotonic() > deadline:
                raise DriveError(
                    f"no {' and no '.join(missing)} service is up in this namespace: start `exchange-sim serve all`"
                )
            progress.show(f"waiting for {', '.join(missing)}")
            await asyncio.sleep(POLL_S)
    finally:
        await admin.close()


async def _groups_not_stable(admin: Any, servers: Servers) -> list[str]:
    missing = []
    for group in GROUP_INPUTS:
        for answer in await admin.describe_consumer_groups([servers.namespace.outside(group)]):
            for code, _group, state, *_ in answer.groups:
                if code or state != "Stable":
                    missing.append(group)
    return missing
