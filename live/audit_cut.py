"""Cutting the log of a running system at one moment that it was in (design section 10, `audit`).

The topics of a system that goes on working are read one after the other, so what was read of them is of different
moments: an answer may be there whose decision is not. A cut is *consistent* when no record in it was caused by one
outside it. The chained topics say what caused each of their records, so the largest consistent cut within given ends
can be computed afterwards (Mattern, "Virtual time and global states of distributed systems", 1989): shorten whatever
partition holds a record whose cause is cut off, until none does.

A cause that is nowhere in what was read, which goes further than the cut, is no matter of moments. It is missing, and
the record stays in the cut: the invariants must see it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from aiokafka.structs import TopicPartition

from schema import wire
from schema.events import PlaceOrder, ReplaceOrder
from schema.topics import BALANCE_EVENTS, ENGINE_OUTPUTS, FUND_UPDATES, ORDER_RESPONSES, VALIDATED_ORDERS


class LogRecord(NamedTuple):
    """A committed record as it was read."""

    offset: int
    timestamp_ms: int
    key: bytes
    value: bytes | None


class Link(NamedTuple):
    """What a record of a chained topic says about order: its own place, its input, its cause, and what it is about.

    `cause` is the partition and sequence of the record of the other chained topic without which this one could not be;
    `cause_sequence` 0 when there is none. `orders` have an event in it, `accounts` (user_id, asset_id) an entry.
    """

    offset: int
    sequence: int
    time_ns: int
    input: tuple[str, int, int]
    cause: TopicPartition
    cause_sequence: int
    orders: tuple[int, ...]
    accounts: tuple[tuple[int, int], ...]
    is_answered: bool


Records = Mapping[TopicPartition, list[LogRecord]]
Links = Mapping[TopicPartition, list[Link]]
Offsets = Mapping[TopicPartition, int]

_NO_CAUSE: Final = TopicPartition("", -1)


def link_of(topic: str, record: LogRecord) -> Link | None:
    """What a record of a chained topic says; None when it does not decode."""
    try:
        return _of_output(record) if topic == ENGINE_OUTPUTS else _of_balance_event(record)
    except wire.WireError:
        return None


def consistent_cut(links: Links, ends: Offsets) -> dict[TopicPartition, int]:
    """For each chained partition the offset before which the largest consistent cut within `ends` ends."""
    cut = {place: ends.get(place, 0) for place in links}
    whole = last_sequences(links, None)
    while True:
        within = last_sequences(links, cut)
        shorter = {}
        for place, chain in links.items():
            for link in chain:
                if link.offset >= cut[place]:
                    break
                if within.get(link.cause, 0) < link.cause_sequence <= whole.get(link.cause, 0):
                    shorter[place] = link.offset
                    break
        if not shorter:
            return cut
        cut.update(shorter)


def last_sequences(links: Links, cut: Offsets | None) -> dict[TopicPartition, int]:
    """The last sequence of each chained partition within a cut, or at all; 0 for none."""
    last = {}
    for place, chain in links.items():
        inside = (link.sequence for link in reversed(chain) if cut is None or link.offset < cut[place])
        last[place] = next(inside, 0)
    return last


@dataclass(frozen=True)
class Later:
    """What the chained records beyond a cut are about."""

    orders: set[int] = field(default_factory=set)
    accounts: set[tuple[int, int]] = field(default_factory=set)
    records: set[tuple[str, int, int]] = field(default_factory=set)
    """Topic, partition, sequence."""
    chains: set[tuple[str, int]] = field(default_factory=set)


def later_than(links: Links, cut: Offsets) -> Later:
    """What there is beyond a cut."""
    later = Later()
    for place, chain in links.items():
        for link in chain:
            if link.offset >= cut[place]:
                later.orders.update(link.orders)
                later.accounts.update(link.accounts)
                later.records.add((place.topic, place.partition, link.sequence))
                later.chains.add((place.topic, place.partition))
    return later


def records_within(records: Records, links: Links, cut: Offsets) -> dict[TopicPartition, list[LogRecord]]:
    """The records of all topics at the moment of a cut.

    What clients and gateways wrote stands at the beginning of every chain of causes, so all of it may stay. What was
    written together with a chained record is inside when that one is.
    """
    sequences = last_sequences(links, cut)
    inside = {}
    for place, found in records.items():
        if place in cut:
            inside[place] = [record for record in found if record.offset < cut[place]]
        elif place.topic == ORDER_RESPONSES:
            # One producer writes both, so the answers stand in the order of the events that gave them.
            chain = TopicPartition(BALANCE_EVENTS, place.partition)
            answered = sum(link.is_answered for link in links.get(chain, ()) if link.offset < cut[chain])
            inside[place] = found[:answered]
        elif place.topic in (VALIDATED_ORDERS, FUND_UPDATES):
            inside[place] = [record for record in found if _is_sent(place.topic, record, sequences)]
        else:
            inside[place] = list(found)
    return inside


def _is_sent(topic: str, record: LogRecord, sequences: Mapping[TopicPartition, int]) -> bool:
    """Whether the chained record that a record was written with is inside the cut; one that does not decode stays."""
    try:
        if topic == VALIDATED_ORDERS:
            order = wire.VALIDATED_ORDER.decode(record.value)
            sender, sequence = TopicPartition(BALANCE_EVENTS, order.source_partition), order.source_sequence
        else:
            update = wire.FUND_UPDATE.decode(record.value)
            sender, sequence = TopicPartition(ENGINE_OUTPUTS, update.symbol_partition), update.output_seq
    except wire.WireError:
        return True
    return sequence <= sequences.get(sender, 0)


def _of_output(record: LogRecord) -> Link:
    output = wire.ENGINE_OUTPUT.decode(record.value)
    events = (*output.order_placements, *output.order_updates, *output.order_completions, *output.refusals)
    return Link(
        offset=record.offset,
        sequence=output.output_seq,
        time_ns=output.time_ns,
        input=(output.input_topic, output.input_partition, output.input_offset),
        cause=TopicPartition(BALANCE_EVENTS, output.input.source_partition),
        cause_sequence=output.input.source_sequence,
        orders=_distinct(event.order_id for event in events),
        accounts=(),
        is_answered=False,
    )


def _of_balance_event(record: LogRecord) -> Link:
    event = wire.BALANCE_EVENT.decode(record.value)
    has_cause = event.update_partition >= 0
    # The balance core writes the history of an order that it refuses.
    asked = event.request.order_id if isinstance(event.request, PlaceOrder | ReplaceOrder) else None
    return Link(
        offset=record.offset,
        sequence=event.sequence,
        time_ns=event.time_ns,
        input=(event.input_topic, event.input_partition, event.input_offset),
        cause=TopicPartition(ENGINE_OUTPUTS, event.update_partition) if has_cause else _NO_CAUSE,
        cause_sequence=event.update_output_seq if has_cause else 0,
        orders=() if asked is None else (asked,),
        accounts=tuple((event.user_id, entry.asset_id) for entry in event.entries),
        is_answered=event.response is not None,
    )


def _distinct(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(values))
