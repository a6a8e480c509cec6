"""Situations of hosts: crashes, restarts, pauses, snapshots, clocks and disks."""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import pandas as pd

from schema.services import GATEWAY, MATCHING, SETTLEMENT, UBSCORE
from schema.tables import ACTIVE_ORDERS, FINISHED_ROW_TTL_S
from traces.kinds import PROCESS_ENDS
from traces.matching_rows import Ints, Mask, array, codes, find, ints, is_any, rows
from traces.reachability.goals import goal
from traces.reachability.takeovers import Takeover, owned_names, takeovers
from traces.trace import Trace

_NS_PER_S: Final = 1_000_000_000
_CLOCK_SLACK_S: Final = 2
"""A clock that is wrong by less proves nothing: so much may come of rounding and of drift."""
_OWNERS: Final = (UBSCORE, MATCHING, SETTLEMENT)
"""The services whose instances own partitions."""


@goal("engine-crashed-with-orders-resting")
def engine_crashed_with_orders_resting(trace: Trace) -> int:
    """An instance of the matching engine crashed while orders rested in the books."""
    placed, ended = ints(trace.placements, "t"), ints(trace.completions, "t")
    return sum((placed < at).sum() > (ended < at).sum() for _, at in _crashes(trace, MATCHING))


@goal("engine-restarted-from-a-snapshot")
def engine_restarted_from_a_snapshot(trace: Trace) -> int:
    """An instance of the matching engine took a partition over from a snapshot."""
    return _takeovers_from_snapshot(trace, MATCHING)


@goal("balance-core-restarted-from-a-snapshot")
def balance_core_restarted_from_a_snapshot(trace: Trace) -> int:
    """An instance of the balance core took a partition over from a snapshot."""
    return _takeovers_from_snapshot(trace, UBSCORE)


@goal("snapshot-refused")
def snapshot_refused(trace: Trace) -> int:
    """A snapshot was torn, altered or not of the committed log, and was refused."""
    return int((array(trace.events("log_lines"), "event") == "snapshot refused").sum())


@goal("balance-core-crashed-in-a-transaction")
def balance_core_crashed_in_a_transaction(trace: Trace) -> int:
    """An instance of the balance core crashed, and one of its partitions had a transaction open."""
    return _crashed_in_transaction(trace, UBSCORE)


@goal("engine-crashed-in-a-transaction")
def engine_crashed_in_a_transaction(trace: Trace) -> int:
    """An instance of the matching engine crashed, and one of its partitions had a transaction open."""
    return _crashed_in_transaction(trace, MATCHING)


@goal("settlement-crashed-between-write-and-commit")
def settlement_crashed_between_write_and_commit(trace: Trace) -> int:
    """An instance of settlement crashed after it had written rows that had to be written again: not yet committed."""
    crashes = _crashes(trace, SETTLEMENT)
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
    crashes = _crashes(trace, GATEWAY)
    if not crashes:
        return 0
    under_way = _submissions(trace)
    return sum(bool((under_way.at(at) & (under_way.gateway == host)).any()) for host, at in crashes)


@goal("crashed-during-recovery")
def crashed_during_recovery(trace: Trace) -> int:
    """An instance crashed after it had been given partitions, and before it had taken all of them over."""
    changes, taken = trace.events("rebalances"), takeovers(trace)
    started: dict[str, int] = {}
    found = 0
    for host, event, at, service in _happened(trace.events("lifecycle")):
        if event == "start":
            started[host] = at
        elif event == "crash" and service in _OWNERS:
            mine = is_any(changes, "host", host) & (ints(changes, "t") >= started[host]) & (ints(changes, "t") <= at)
            # The last word of the group in this life: partitions, or "revoke".
            last = changes[mine].tail(1)
            for given_at in ints(last, "t")[array(last, "action") == "assign"]:
                has = {each.owned for each in taken if each.host == host and given_at <= each.t <= at}
                found += not owned_names(service, last["assignment"].iloc[0]) <= has
    return found


@goal("service-wholly-down")
def service_wholly_down(trace: Trace) -> int:
    """All instances of a service that had several were down at once."""
    events, phases = trace.events("lifecycle"), trace.events("phases")
    healed = ints(rows(phases, array(phases, "phase") == "heal"), "t")
    if not len(healed):
        return 0
    services = rows(events, is_any(events, "service", GATEWAY, *_OWNERS) & (ints(events, "t") < healed[0]))
    instances: dict[str, set[str]] = {}
    for service, host in zip(array(services, "service"), array(services, "host"), strict=True):
        instances.setdefault(service, set()).add(host)
    up: dict[str, set[str]] = {service: set() for service in instances}
    found = 0
    for host, event, _, service in _happened(services):
        if event == "start":
            up[service].add(host)
        elif event in PROCESS_ENDS and host in up[service]:
            up[service].discard(host)
            found += not up[service] and len(instances[service]) > 1
    return found


@goal("paused-past-its-session")
def paused_past_its_session(trace: Trace) -> int:
    """A host was frozen for so long that its group gave its partitions to others, and then went on."""
    frozen: dict[str, int] = {}
    found = 0
    for host, event, at, _ in _happened(trace.events("lifecycle")):
        if event == "pause":
            frozen[host] = at
        elif event == "resume":
            found += _lost_its_partitions(trace, host, frozen.pop(host), at)
    return found


@goal("stopped-gracefully-with-work-to-do")
def stopped_gracefully_with_work_to_do(trace: Trace) -> int:
    """A service was told to stop while clients waited for what became of their orders, and started again later.

    For a gateway they waited for its own answer.
    """
    under_way = _submissions(trace)
    events = trace.events("lifecycle")
    last_start = {host: at for host, event, at, _ in _happened(events) if event == "start"}
    found = 0
    for host, event, at, service in _happened(events):
        if event == "stop" and service in (GATEWAY, *_OWNERS) and at < last_start[host]:
            orders = under_way.at(at) & under_way.is_order
            found += bool((orders & (under_way.gateway == host) if service == GATEWAY else orders).any())
    return found


@goal("completed-under-a-wrong-clock")
def completed_under_a_wrong_clock(trace: Trace) -> int:
    """A finished row got less time to live than it had left, because the clock of settlement's host was ahead.

    However late a row is written, by a right clock it has left what the 24 hours after its order's end hold when the
    statement is sent, or more, if that was asked of the clock some time before.
    """
    writes, ended = trace.events("cql"), trace.completions
    finished = rows(writes, is_any(writes, "table", ACTIVE_ORDERS) & (ints(writes, "ttl") > 0))
    at = find(ints(finished, "order_id"), ints(ended, "order_id"))
    known = rows(finished, at >= 0)
    ended_t = ints(ended, "updated_at_ns")[at[at >= 0]] - trace.manifest.epoch_ns
    late_s = np.maximum(ints(known, "started_t") - ended_t, 0) // _NS_PER_S
    return int((ints(known, "ttl") + late_s < FINISHED_ROW_TTL_S - _CLOCK_SLACK_S).sum())


@goal("spare-instance-took-a-partition")
def spare_instance_took_a_partition(trace: Trace) -> int:
    """An instance that had joined beside all others took a partition from one of them."""
    instances = trace.manifest.scenario.get("instances")
    if not isinstance(instances, int):
        return 0
    return sum(int(each.host.rpartition("-")[2]) > instances for each in takeovers(trace))


def _happened(events: pd.DataFrame) -> Iterator[tuple[str, str, int, str]]:
    """What happened to hosts, one after the other: host, event, when, service."""
    host, event, service = (array(events, name).tolist() for name in ("host", "event", "service"))
    return zip(host, event, ints(events, "t").tolist(), service, strict=True)


def _crashes(trace: Trace, service: str) -> list[tuple[str, int]]:
    """Hosts of a service and when they crashed."""
    return [
        (host, at) for host, event, at, of in _happened(trace.events("lifecycle")) if event == "crash" and of == service
    ]


class _Submissions(NamedTuple):
    """What clients sent: to which gateway, from when to when they waited for its answer, and whether about an order."""

    gateway: np.ndarray
    sent: Ints
    answered: Ints
    is_order: Mask

    def at(self, instant: int) -> Mask:
        """Those whose answers were outstanding then."""
        under_way: Mask = (self.sent < instant) & (self.answered > instant)
        return under_way


def _submissions(trace: Trace) -> _Submissions:
    asked, told = trace.events("client_requests"), trace.events("client_answers")
    (submission, answer), size = codes(("user_id", "request_id", "attempt"), asked, told)
    answered_at = np.full(size, np.iinfo(np.int64).max)
    answered_at[answer] = ints(told, "t")
    is_order = is_any(asked, "command", "place", "cancel", "reduce", "replace")
    return _Submissions(array(asked, "host"), ints(asked, "t"), answered_at[submission], is_order)


def _lost_its_partitions(trace: Trace, host: str, since: int, until: int) -> bool:
    """Whether a host's membership ran out in that time, and what it had had was given to other hosts.

    Not one that a strike ended: a member can also be thrown out.
    """
    changes, strikes = trace.events("rebalances"), trace.events("faults")
    t = ints(changes, "t")
    assigned = is_any(changes, "action", "assign") & (array(changes, "assignment") != "")
    mine = rows(changes, assigned & is_any(changes, "host", host) & (t <= since))
    if mine.empty:
        return False
    group, member, had = (str(array(mine, name)[-1]) for name in ("group", "member", "assignment"))
    meanwhile = is_any(changes, "group", group) & (t > since) & (t < until)
    struck_at = ints(rows(strikes, is_any(strikes, "phase", "start")), "t")
    expired = is_any(changes, "action", "expire") & (array(changes, "member") == member) & ~np.isin(t, struck_at)
    for at in t[meanwhile & expired]:
        others = rows(changes, meanwhile & assigned & ~is_any(changes, "host", host) & (t > at))
        if any(set(had.split()) & set(given.split()) for given in array(others, "assignment")):
            return True
    return False


def _takeovers_from_snapshot(trace: Trace, service: str) -> int:
    return sum(each.service == service and each.snapshot_sequence > 0 for each in takeovers(trace))


def _crashed_in_transaction(trace: Trace, service: str) -> int:
    """Crashes of a service's host that left a transaction open which it had taken records for."""
    crashes = _crashes(trace, service)
    if not crashes:
        return 0
    transactions = trace.events("transactions")
    mine = rows(transactions, transactions["transactional_id"].str.startswith(f"{service}-").to_numpy(dtype=bool))
    taken = takeovers(trace)
    found = 0
    for host, at in crashes:
        before = rows(mine, ints(mine, "t") <= at).drop_duplicates("transactional_id", keep="last")
        is_open = before.loc[array(before, "action") == "begin", "transactional_id"].tolist()
        found += any(_owner_at(taken, each, at) == host for each in is_open)
    return found


def _owner_at(taken: list[Takeover], owned: str, at: int) -> str:
    return next((each.host for each in reversed(taken) if each.owned == owned and each.t <= at), "")
