"""Traces written by hand, a few rows each, and what a goal's table of cases looks like. Times are in milliseconds."""

import json
from dataclasses import dataclass, field
from typing import Any

import msgspec

from benchmarks.mini_world import MiniWorld
from schema.services import MATCHING
from schema.tables import ACTIVE_ORDERS
from schema.topics import ENGINE_OUTPUTS, VALIDATED_ORDERS
from traces.reachability import GOALS
from traces.trace import Trace

_MS = 1_000_000

Event = tuple[str, dict[str, Any]]
"""A kind, and the columns of a row that matter."""


@dataclass(frozen=True)
class Case:
    """Events that are in a goal's situation once, and events that are almost in it, by what they lack."""

    reached: list[Event]
    near_misses: dict[str, list[Event]] = field(default_factory=dict)


Cases = dict[str, Case]
"""By goal."""


def near_misses(cases: Cases) -> list[tuple[str, str]]:
    """Goal and near miss, for pytest."""
    return [(name, why) for name, case in cases.items() for why in case.near_misses]


def goals_in(module: str) -> set[str]:
    """The goals that a module of `traces.reachability` defines."""
    return {name for name, each in GOALS.items() if each.count.__module__ == f"traces.reachability.{module}"}


def count(goal: str, events: list[Event]) -> int:
    """How often a trace of these events is in the situation. It has two instances of each service."""
    world = MiniWorld(funded_users=0)
    for kind, columns in events:
        world.emit(kind, **columns)
    return count_in(goal, world)


def count_in(goal: str, world: MiniWorld) -> int:
    """How often a whole world was in it."""
    manifest = msgspec.structs.replace(world.manifest(), scenario={"instances": 2})
    return int(GOALS[goal].count(Trace.of(world.recorder(), manifest)))


def event(kind: str, t: int, host: str = "", **columns: Any) -> Event:
    return kind, {"t": t * _MS, "host": host, **columns}


def life(t: int, host: str, what: str) -> Event:
    """start, crash, stop, exit, pause or resume of a host."""
    return event("lifecycle", t, host, event=what, service=host.rpartition("-")[0])


def phase(t: int, name: str) -> Event:
    return event("phases", t, phase=name)


def strike(t: int, fault: str, *, moment: str = "", has_met: bool = False, what: str = "start") -> Event:
    return event("faults", t, fault=fault, phase=what, moment=moment, has_met=has_met)


def group(t: int, host: str, action: str, assignment: str = f"{VALIDATED_ORDERS}-0", *, member: str = "m1") -> Event:
    """A member is assigned partitions, or has them revoked, on its host; it is expired by a broker."""
    return event("rebalances", t, host, group=MATCHING, member=member, action=action, assignment=assignment)


def took(t: int, host: str, partition: int = 0, **fields: Any) -> Event:
    """The log line of an instance that has taken a partition over."""
    return line(t, host, "partition taken over", partition=partition, **fields)


def line(t: int, host: str, what: str, **fields: Any) -> Event:
    service = host.rpartition("-")[0]
    return event("log_lines", t, host, service=service, event=what, fields=json.dumps(fields))


def transaction(
    t: int, action: str, host: str = "kafka-1", *, of: str = f"{MATCHING}-0", epoch: int = 0, outcome: str = "ok"
) -> Event:
    return event("transactions", t, host, action=action, transactional_id=of, producer_epoch=epoch, outcome=outcome)


def commit(t: int, outcome: str) -> Event:
    return event("offset_commits", t, "kafka-1", group=MATCHING, topic=VALIDATED_ORDERS, outcome=outcome)


def insert(
    t: int, host: str = "settlement-1", *, started: int = 0, table: str = ACTIVE_ORDERS, **columns: Any
) -> Event:
    """A row that was written: sent at `started`, acknowledged at `t`."""
    values = {"order_id": 1, "write_timestamp": 1, "ttl": -1, "outcome": "ok", **columns}
    return event("cql", t, host, table=table, operation="INSERT", started_t=started * _MS, **values)


def asked(t: int, gateway: str = "gateway-1", command: str = "place") -> Event:
    return event("client_requests", t, gateway, user_id=1, request_id="r", attempt=1, command=command)


def told(t: int, command: str = "place") -> Event:
    """The answer to `asked`."""
    return event("client_answers", t, user_id=1, request_id="r", attempt=1, command=command, outcome="accepted")


def produced(t: int, leader: str, first_offset: int, records: int = 1) -> Event:
    return event("produced", t, leader, topic=ENGINE_OUTPUTS, first_offset=first_offset, records=records)


def delivered(t: int, host: str, first: int, last: int, *, of: str = MATCHING) -> Event:
    return event("delivered", t, host, group=of, topic=VALIDATED_ORDERS, first_offset=first, last_offset=last)
