"""Judging a running system by what anybody can read of it (design section 10).

The ends of the topics are noted; when every service has come to them, settlement last, the tables are read, and then
the topics once more, to know what has happened meanwhile. No group is joined, nothing is written or created. Where the
system has come to rest everything is judged; where it goes on working, the moment that settlement had come to, and the
rows of orders that have no later event; where it does not get there in time, the log, and that it did not.

What a running system does not show, the invariants say themselves, by being *not exercised*: what clients read and were
told, alarms, the look 25 hours later.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from live.audit_log import AuditLog
from live.audit_trace import AT_REST, AT_WORK, BEHIND, Evidence, trace_of
from live.connections import ServersUnusable, open_session
from live.kafka import AioKafkaClients
from live.log import make_log
from live.options import Servers
from live.reading import ReadingError, all_tables, read_table, written_ends
from schema import tables
from schema.ports import KafkaClients
from schema.topics import Topology
from settlement.cql_adapter import Row
from traces.invariants import check
from traces.manifest import with_verdicts
from traces.store import write_trace
from traces.trace import Trace
from traces.verdicts import VIOLATED, Verdict

POLL_S: Final = 0.5
OPEN_TRANSACTION_MAX_S: Final = 60.0
"""Far longer than the transaction time-out of the services: the coordinator ends what is left open."""
NOT_SHOWN: Final = {
    "reads-complete": "what clients read is not recorded",
    "reads-own-user": "what clients read is not recorded",
    "no-resurrection": "what clients read is not recorded",
    "statements-at-quorum": "statements are not recorded",
    "offsets-after-rows": "statements are not recorded",
    "converges": "the system is at work, and has no need to come to rest",
    "corrupt-input-stops": "no damaged record was found; alarms are not recorded",
    "placement-accounted": "settlement is behind",
    "rows-complete": "settlement is behind",
    "row-matches-engine": "settlement is behind",
}
"""Why an invariant may be *not exercised* in an audit, where it is not for want of orders."""

Tell = Callable[[str], None]
"""Shows what is being done now."""


@dataclass(frozen=True)
class AuditOptions:
    """What is audited, and how patiently.

    `settle_bound_s` is how long the services may take to come to where the topics end when the audit begins;
    `rest_bound_s` how long the system is then given to come to rest.
    """

    servers: Servers
    topology: Topology
    settle_bound_s: float = 120.0
    rest_bound_s: float = 10.0


@dataclass(frozen=True)
class AuditResult:
    """A system that was judged. `state` is AT_REST, AT_WORK or BEHIND; `details` say what is behind."""

    trace: Trace
    verdicts: dict[str, Verdict]
    path: Path | None
    state: str
    details: list[str]
    records: int
    rows: int
    wall_s: float

    @property
    def holds(self) -> bool:
        """Whether no invariant is violated."""
        return all(verdict.verdict != VIOLATED for verdict in self.verdicts.values())


def audit(options: AuditOptions, out: Path | None, tell: Tell) -> AuditResult:
    """Read, judge, and store the trace in `out`. Raises ServersUnusable, ReadingError, TraceError."""
    started = time.perf_counter()
    evidence = asyncio.run(_read(options, tell))
    tell("checking")
    trace = trace_of(evidence, options.topology)
    verdicts = check(trace)
    if out is not None:
        tell(f"storing the trace in {out}")
        records = {name: verdict.record for name, verdict in verdicts.items()}
        write_trace(out, with_verdicts(trace.manifest, records), trace.tables)
    return AuditResult(
        trace=trace,
        verdicts=verdicts,
        path=out,
        state=evidence.state,
        details=list(evidence.details),
        records=sum(map(len, evidence.log.records.values())),
        rows=sum(map(len, evidence.rows.values())),
        wall_s=time.perf_counter() - started,
    )


async def _read(options: AuditOptions, tell: Tell) -> Evidence:
    # The clients log each attempt that fails; what comes of it is raised.
    for client in ("aiokafka", "cassandra"):
        logging.getLogger(client).setLevel(logging.CRITICAL)
    servers, topology = options.servers, options.topology
    log = make_log("console", "error", stream=sys.stderr.buffer, service="audit")
    real = AioKafkaClients(servers.kafka, client_id="audit")
    tell("connecting")
    await _verify_topics(real, servers, topology)
    async with open_session(servers, log, create=False) as session:
        reading = Reading(servers.namespace.clients(real), session, topology, options, tell)
        try:
            return await reading.evidence()
        except KafkaError as error:
            raise ReadingError(
                f"Kafka at {servers.kafka} could not be read: {type(error).__name__}: {error}"
            ) from error


@dataclass
class Reading:
    """The reading of one system through these clients."""

    kafka: KafkaClients
    session: Any
    topology: Topology
    options: AuditOptions
    tell: Tell
    log: AuditLog = field(init=False)

    def __post_init__(self) -> None:
        self.log = AuditLog(self.topology.partitions())

    async def evidence(self) -> Evidence:
        """Wait, and read everything."""
        self.tell("reading the topics")
        await self.log.extend(self.kafka)
        noted = dict(self.log.ends)
        behind, progress = await self._until_passed(noted)
        if behind:
            state, ends = BEHIND, dict(self.log.ends)
        else:
            progress = await self._until_at_rest(progress)
            state, ends = AT_WORK, progress
        read_at_ns = time.time_ns()
        rows = await self._rows()
        before = dict(self.log.ends)
        await self._to_what_is_written()
        if state == AT_WORK and self.log.ends == before and not await self._under_way(progress):
            state = AT_REST
        scenario = {"on": "an audit of a running system", "namespace": self.options.servers.namespace.name}
        return Evidence(self.log, state, ends, rows, read_at_ns, behind, {**scenario, "state": state})

    async def _until_passed(self, noted: dict[TopicPartition, int]) -> tuple[list[str], dict[TopicPartition, int]]:
        """Until all services have passed the ends noted: what is behind when the bound has passed, and settlement's
        progress."""
        deadline = time.monotonic() + self.options.settle_bound_s
        while True:
            progress = await self._progress()
            behind = self.log.behind(noted, progress)
            if not behind or time.monotonic() > deadline:
                return behind, progress
            self.tell(f"waiting: {behind[0]}")
            await asyncio.sleep(POLL_S)
            await self.log.extend(self.kafka)

    async def _until_at_rest(self, progress: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Give the system a chance to come to rest; settlement's progress then."""
        deadline = time.monotonic() + self.options.rest_bound_s
        while True:
            await self.log.extend(self.kafka)
            under_way = await self._under_way(progress)
            if not under_way or time.monotonic() > deadline:
                return progress
            self.tell(f"at work: {under_way[0]}")
            await asyncio.sleep(POLL_S)
            progress = await self._progress()

    async def _to_what_is_written(self) -> None:
        """Read on to where the topics end now, whatever of that is committed yet. Raises ReadingError.

        A record is hidden while any transaction that began before it is open in its partition, and seen in one topic
        while what was written with it is hidden in another: it would seem to be missing.
        """
        written = await written_ends(self.kafka, self.log.partitions)
        deadline = time.monotonic() + OPEN_TRANSACTION_MAX_S
        while True:
            await self.log.extend(self.kafka)
            hidden = [place for place, end in written.items() if self.log.ends[place] < end]
            if not hidden:
                return
            if time.monotonic() > deadline:
                place = hidden[0]
                raise ReadingError(
                    f"a transaction is open in {place.topic}-{place.partition} at offset {self.log.ends[place]} for "
                    f"more than {OPEN_TRANSACTION_MAX_S:g} s; what follows it cannot be read"
                )
            self.tell(f"waiting for a transaction in {hidden[0].topic}-{hidden[0].partition} to end")
            await asyncio.sleep(POLL_S)

    async def _under_way(self, progress: dict[TopicPartition, int]) -> list[str]:
        return self.log.behind(self.log.ends, progress) or await self.log.open_transactions(self.kafka)

    async def _progress(self) -> dict[TopicPartition, int]:
        """Up to which offset of each chained partition settlement has written the rows."""
        columns = tables.TABLE_COLUMNS[tables.SETTLEMENT_PROGRESS]
        topic, partition, offset = (columns.index(name) for name in ("topic", "partition_id", "next_offset"))
        found: dict[TopicPartition, int] = {}
        async for page in read_table(self.session, tables.SETTLEMENT_PROGRESS):
            for row in page:
                place = TopicPartition(row[topic], row[partition])
                found[place] = cast(int, row[offset])
        return found

    async def _rows(self) -> dict[str, list[Row]]:
        found: dict[str, list[Row]] = {}
        for table in all_tables():
            self.tell(f"reading {table}")
            rows = found[table] = []
            async for page in read_table(self.session, table):
                rows += page
        return found


async def _verify_topics(clients: AioKafkaClients, servers: Servers, topology: Topology) -> None:
    """Raises ServersUnusable when Kafka does not answer, or has not the topics of this system. Creates none."""
    admin = clients.admin()
    try:
        await admin.start()
        there = set(await admin.list_topics())
        wanted = {servers.namespace.outside(topic): count for topic, count in topology.partitions().items()}
        missing = [topic for topic in wanted if topic not in there]
        if missing:
            raise ServersUnusable(
                f"Kafka at {servers.kafka} has no topic {missing[0]}: was the system started with this --namespace?"
            )
        for described in await admin.describe_topics(list(wanted)):
            topic, count = described["topic"], len(described["partitions"])
            if count != wanted[topic]:
                raise ServersUnusable(
                    f"topic {topic} has {count} partitions, the market given needs {wanted[topic]}: "
                    "give the same market as to the services"
                )
    except (KafkaError, OSError) as error:
        raise ServersUnusable(f"Kafka at {servers.kafka} does not answer: {type(error).__name__}: {error}") from error
    finally:
        await admin.close()
