"""Situations of hosts: crashes, restarts, pauses, snapshots, clocks and disks."""

import json
from collections.abc import Iterator

import numpy as np
import pandas as pd

from schema.tables import ACTIVE_ORDERS
from traces.matching_rows import array, codes, ints, rows
from traces.reachability.goals import goal
from traces.trace import Trace

_NS_PER_S = 1_000_000_000
_RECOVERY_NS = 2 * _NS_PER_S
"""A service that started so recently is still taking its partitions."""
_DAY_S = 86_400


@goal("engine-crashed-with-orders-resting")
def engine_crashed_with_orders_resting(trace: Trace) -> int:
    """An instance of the matching engine crashed while orders rested in the books."""
    placed, ended = ints(trace.placements, "t"), ints(trace.completions, "t")
    return sum((placed < at).sum() > (ended < at).sum() for _, at in _crashes(trace, "matching"))


@goal("engine-restarted-from-a-snapshot")
def engine_restarted_from_a_snapshot(trace: Trace) -> int:
    """An instance of the matching engine took a partition over from a snapshot."""
    return _takeovers_from_snapshot(trace, "matching")


@goal("balance-core-restarted-from-a-snapshot")
def balance_core_restarted_from_a_snapshot(trace: Trace) -> int:
    """An instance of the balance core took a partition over from a snapshot."""
    return _takeovers_from_snapshot(trace, "ubscore")


@goal("snapshot-refused")
def snapshot_refused(trace: Trace) -> int:
    """A snapshot was torn, altered or not of the committed log, and was refused."""
    return int((array(trace.events("log_lines"), "event") == "snapshot refused").sum())


@goal("balance-core-crashed-in-a-transaction")
def balance_core_crashed_in_a_transaction(trace: Trace) -> int:
    """An instance of the balance core crashed, and one of its partitions had a transaction open."""
    return _crashed_in_transaction(trace, "ubscore")


@goal("engine-crashed-in-a-transaction")
def engine_crashed_in_a_transaction(trace: Trace) -> int:
    """An instance of the matching engine crashed, and one of its partitions had a transaction open."""
    return _crashed_in_transaction(trace, "matching")


@goal("settlement-crashed-between-write-and-commit")
def settlement_crashed_between_write_and_commit(trace: Trace) -> int:
    """An instance of settlement crashed after it had written rows that had to be written again: not yet committed."""
    crashes = _crashes(trace, "settlement")
    if not crashes:
        return 0
    statements = trace.events("cql")
    written = (array(statements, "operation") == "INSERT") & (array(statements, "outcome") == "ok")
    writes = rows(statements, written & (array(statements, "table") == ACTIVE_ORDERS))
    (key,), size = codes(("order_id", "write_timestamp"), writes)
    at, host = ints(writes, "t"), array(writes, "host")
    last = np.zeros(size, dtype=np.int64)
    np.maximum.at(last, key, at)
    return sum(
        bool(((host == name) & (at <= crashed_at) & (last[key] > crashed_at)).any()) for name, crashed_at in crashes
    )


@goal("gateway-crashed-with-requests-outstanding")
def gateway_crashed_with_requests_outstanding(trace: Trace) -> int:
    """A gateway crashed while clients waited for its answers."""
    crashes = _crashes(trace, "gateway")
    if not crashes:
        return 0
    asked, told = trace.events("client_requests"), trace.events("client_answers")
    (submission, answer), size = codes(("user_id", "request_id", "attempt"), asked, told)
    answered_at = np.full(size, np.iinfo(np.int64).max)
    answered_at[answer] = ints(told, "t")
    gateway, sent, answered = array(asked, "host"), ints(asked, "t"), answered_at[submission]
    return sum(bool(((gateway == host) & (sent < at) & (answered > at)).any()) for host, at in crashes)


@goal("crashed-during-recovery")
def crashed_during_recovery(trace: Trace) -> int:
    """A host crashed within two seconds of its start: while it was taking its partitions, or just had."""
    events = trace.events("lifecycle")
    started: dict[str, int] = {}
    found = 0
    for host, event, at, _ in _happened(events):
        if event == "start":
            started[host] = at
        elif event == "crash" and host in started and at - started[host] < _RECOVERY_NS:
            found += 1
    return found


@goal("service-wholly-down")
def service_wholly_down(trace: Trace) -> int:
    """All instances of a service were down at once."""
    events, phases = trace.events("lifecycle"), trace.events("phases")
    healed = ints(rows(phases, array(phases, "phase") == "heal"), "t")
    if not len(healed):
        return 0
    services = rows(events, (array(events, "service") != "operator") & (ints(events, "t") < healed[0]))
    instances: dict[str, set[str]] = {}
    for service, host in zip(array(services, "service"), array(services, "host"), strict=True):
        instances.setdefault(service, set()).add(host)
    up: dict[str, set[str]] = {service: set() for service in instances}
    found = 0
    for host, event, _, service in _happened(services):
        if event == "start":
            up[service].add(host)
        elif event in _ENDS and host in up[service]:
            up[service].discard(host)
            found += not up[service] and len(instances[service]) > 1
    return found


@goal("paused-past-its-session")
def paused_past_its_session(trace: Trace) -> int:
    """A host was frozen for so long that its group gave its partitions to others, and then went on."""
    events = trace.events("lifecycle")
    moved = ints(rows(trace.events("rebalances"), array(trace.events("rebalances"), "action") == "expire"), "t")
    frozen: dict[str, int] = {}
    found = 0
    for host, event, at, _ in _happened(events):
        if event == "pause":
            frozen[host] = at
        elif event == "resume" and host in frozen:
            found += bool(((moved > frozen[host]) & (moved < at)).any())
    return found


@goal("stopped-gracefully-with-work-to-do")
def stopped_gracefully_with_work_to_do(trace: Trace) -> int:
    """A service was told to stop while orders were under way, and started again."""
    events, phases = trace.events("lifecycle"), trace.events("phases")
    work, heal = (ints(phases, "t")[array(phases, "phase") == phase] for phase in ("work", "heal"))
    if not len(work) or not len(heal):
        return 0
    at = ints(events, "t")
    return int(((array(events, "event") == "stop") & (at > work[0]) & (at < heal[0])).sum())


@goal("completed-under-a-wrong-clock")
def completed_under_a_wrong_clock(trace: Trace) -> int:
    """A finished row got another time to live than 24 hours, because the host's clock was not the gateway's."""
    writes = trace.events("cql")
    ttl = ints(writes, "ttl")
    mine = (array(writes, "table") == ACTIVE_ORDERS) & (ttl > 0)
    return int((mine & (np.abs(ttl - _DAY_S) > 60)).sum())


@goal("spare-instance-took-a-partition")
def spare_instance_took_a_partition(trace: Trace) -> int:
    """An instance that had joined beside all others took a partition from one of them."""
    lines = trace.events("log_lines")
    hosts = lines.loc[lines["event"].to_numpy() == "partition taken over", "host"]
    instances = trace.manifest.scenario.get("instances")
    return sum(int(host.rpartition("-")[2]) > instances for host in hosts) if isinstance(instances, int) else 0


_ENDS = ("crash", "terminated", "exit")


def _happened(events: pd.DataFrame) -> Iterator[tuple[str, str, int, str]]:
    """What happened to hosts, one after the other: host, event, when, service."""
    host, event, service = (array(events, name).tolist() for name in ("host", "event", "service"))
    return zip(host, event, ints(events, "t").tolist(), service, strict=True)


def _crashes(trace: Trace, service: str) -> list[tuple[str, int]]:
    """Hosts of a service and when they crashed."""
    return [
        (host, at) for host, event, at, of in _happened(trace.events("lifecycle")) if event == "crash" and of == service
    ]


def _takeovers_from_snapshot(trace: Trace, service: str) -> int:
    lines = trace.events("log_lines")
    taken = (array(lines, "event") == "partition taken over") & (array(lines, "service") == service)
    fields = (json.loads(text) for text in array(rows(lines, taken), "fields"))
    return sum(each.get("snapshot_sequence", 0) > 0 for each in fields)


def _crashed_in_transaction(trace: Trace, service: str) -> int:
    """Crashes of a service's host that left a transaction open which it had taken records for."""
    crashes = _crashes(trace, service)
    if not crashes:
        return 0
    transactions = trace.events("transactions")
    mine = rows(transactions, transactions["transactional_id"].str.startswith(f"{service}-").to_numpy(dtype=bool))
    owners = _owners(trace, service)
    found = 0
    for host, at in crashes:
        before = rows(mine, ints(mine, "t") <= at).drop_duplicates("transactional_id", keep="last")
        is_open = before.loc[array(before, "action") == "begin", "transactional_id"].tolist()
        found += any(_owner_at(owners, int(each.rsplit("-", 1)[1]), at) == host for each in is_open)
    return found


def _owners(trace: Trace, service: str) -> pd.DataFrame:
    """Who said to have taken which partition: t, host, partition."""
    lines = trace.events("log_lines")
    taken = (array(lines, "event") == "partition taken over") & (array(lines, "service") == service)
    found = lines.loc[taken, ["t", "host", "fields"]]
    return pd.DataFrame(
        {
            "t": found["t"],
            "host": found["host"],
            "partition": [int(json.loads(text)["partition"]) for text in found["fields"]],
        }
    )


def _owner_at(owners: pd.DataFrame, partition: int, at: int) -> str:
    before = owners[(owners["partition"] == partition) & (owners["t"] <= at)]
    return "" if before.empty else str(before["host"].iloc[-1])
