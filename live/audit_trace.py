"""A trace of a running system: its log, cut at one moment, and those rows that must follow from it.

Rows are read after the moment of the cut, so some are of a later one. Those whose order, account or record has a later
event in the log are left out, and named in the manifest: the invariants judge the others.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from live.audit_cut import Later, Offsets, consistent_cut, later_than, records_within
from live.audit_log import AuditLog
from schema import tables
from schema.tables import FINISHED_ROW_TTL_S
from schema.topics import BALANCE_EVENTS, ENGINE_OUTPUTS, Topology
from settlement.cql_adapter import Row
from traces.manifest import AuditRecord, Manifest, TopologyRecord, package_versions
from traces.recorder import Recorder
from traces.trace import Trace

AT_REST: Final = "at rest"
"""Nothing is under way: everything is judged, as at the end of a run."""
AT_WORK: Final = "at work"
"""It goes on working: judged is the moment of the cut, and rows of what has no later event."""
BEHIND: Final = "behind"
"""Settlement, or a service before it, did not come to where the topics ended when the audit began."""

_NS_PER_MS: Final = 1_000_000
_NS_PER_S: Final = 1_000_000_000
_NO_PRODUCER: Final = -1
_ORDER_TABLES: Final = (tables.ACTIVE_ORDERS, tables.ORDER_LOOKUP, tables.ORDER_HISTORY)
_EXPIRING_TABLES: Final = (tables.ACTIVE_ORDERS, tables.ORDER_LOOKUP)
_EXPIRY_SLACK_S: Final = 3600
"""As the invariants have it: hosts' clocks differ."""


@dataclass(frozen=True)
class Evidence:
    """What an audit has read.

    `ends` is where the log is to be cut, if that moment was one; in state AT_REST it is cut nowhere. `rows` are those
    of each table, with writetime and ttl at the end (`live.reading.select_all`), read from `read_at_ns` (wall clock)
    on. `details` say what is behind.
    """

    log: AuditLog
    state: str
    ends: Offsets
    rows: Mapping[str, Sequence[Row]]
    read_at_ns: int
    details: Sequence[str] = ()
    scenario: Mapping[str, object] = field(default_factory=dict)


def trace_of(evidence: Evidence, topology: Topology) -> Trace:
    """The trace that the invariants judge."""
    log = evidence.log
    if evidence.state == AT_REST:
        later, records = Later(), dict(log.records)
    else:
        cut = consistent_cut(log.links, evidence.ends)
        later, records = later_than(log.links, cut), records_within(log.records, log.links, cut)
    recorder = Recorder()
    # An audit takes the first record for the beginning of time: a trace's times are not negative.
    stamps = [found[0].timestamp_ms for found in records.values() if found]
    epoch_ns = min([*(stamp * _NS_PER_MS for stamp in stamps), evidence.read_at_ns])
    now = max(0, time.time_ns() - epoch_ns)
    if evidence.state != AT_WORK:
        emit_phase = recorder.emitter("phases")
        emit_phase(now, "", "settled" if evidence.state == AT_REST else "behind", "; ".join(evidence.details))
    expired = _may_have_expired(evidence)
    for table, rows in evidence.rows.items():
        emit = recorder.emitter(f"final_{table}")
        leaves_out = _Filter(table, later, expired)
        for row in rows:
            if not leaves_out(row):
                *values, write_timestamp, ttl = row
                emit(now, "observer", 0, *values, write_timestamp, -1 if ttl is None else ttl)
    emit_record = recorder.emitter("kafka_log")
    for place in records:
        for record in records[place]:
            appended_t = record.timestamp_ms * _NS_PER_MS - epoch_ns
            emit_record(
                now, "", place.topic, place.partition, record.offset, appended_t, record.timestamp_ms, _NO_PRODUCER,
                record.key, record.value,
            )  # fmt: skip
    manifest = Manifest(
        seed=0,
        epoch_ns=epoch_ns,
        scenario=dict(evidence.scenario),
        packages=package_versions(),
        digest=recorder.digest(),
        topology=TopologyRecord.of(topology),
        audit=AuditRecord(
            read_at_ns=evidence.read_at_ns,
            rows_are_due=evidence.state != BEHIND,
            later_orders=tuple(sorted(later.orders)),
            later_accounts=tuple(sorted(later.accounts)),
            later_chains=tuple(sorted(later.chains)),
        ),
    )
    return Trace.of(recorder, manifest)


class _Filter:
    """Says of the rows of a table which are left out: those of a later moment than the cut's, and those of finished
    orders that may expire at any time, of which a neighbour may be gone already."""

    def __init__(self, table: str, later: Later, expired: set[int]) -> None:
        columns = tables.TABLE_COLUMNS[table]
        self._table = table
        self._later = later
        self._expired = expired if table in _EXPIRING_TABLES else set()
        self._at = {name: columns.index(name) for name in columns}

    def __call__(self, row: Row) -> bool:
        def value(column: str) -> object:
            return row[self._at[column]]

        table, later = self._table, self._later
        if table in _ORDER_TABLES:
            # A row without a time to live stays: a finished order's should have had one.
            return value("order_id") in later.orders or (value("order_id") in self._expired and row[-1] is not None)
        if table == tables.USER_TRADES:
            return (ENGINE_OUTPUTS, value("symbol_partition"), value("output_seq")) in later.records
        if table == tables.BALANCE_LEDGER:
            return (BALANCE_EVENTS, value("user_partition"), value("event_seq")) in later.records
        if table == tables.USER_BALANCES:
            return (value("user_id"), value("asset_id")) in later.accounts
        return (value("topic"), value("partition_id")) in later.chains


def _may_have_expired(evidence: Evidence) -> set[int]:
    """Orders whose last event is so old that, if they are finished, their rows expire about now or are gone."""
    oldest = evidence.read_at_ns - (FINISHED_ROW_TTL_S - _EXPIRY_SLACK_S) * _NS_PER_S
    last: dict[int, int] = {}
    for place, chain in evidence.log.links.items():
        if place.topic == ENGINE_OUTPUTS:
            for link in chain:
                last.update(dict.fromkeys(link.orders, link.time_ns))
    return {order_id for order_id, time_ns in last.items() if time_ns <= oldest}
