"""Invariants about the chained topics: nothing missing, nothing altered, nothing processed beyond a damaged record."""

import numpy as np
import pandas as pd

from schema.topics import BALANCE_EVENTS, CHAINED_TOPICS, ENGINE_OUTPUTS, FUND_UPDATES, VALIDATED_ORDERS
from traces.canonical import CanonicalEncoder, content_hash
from traces.frames import frame_of
from traces.matching_rows import array, ints, is_any, rows
from traces.trace import Trace
from traces.verdicts import Findings, Verdict, invariant

_SEQUENCE_COLUMN = {ENGINE_OUTPUTS: "output_seq", BALANCE_EVENTS: "sequence"}
_OWN_PARTITION_COLUMN = {ENGINE_OUTPUTS: "symbol_partition", BALANCE_EVENTS: "user_partition"}


@invariant("chain-unbroken")
def chain_unbroken(trace: Trace) -> Verdict:
    """Sequence and hashes link, per chained partition, as committed; recomputed by the checker's own encoder.

    Every record's hash is computed anew over its bytes when it is decoded; one that differs does not decode. That
    those bytes are the canonical encoding of what they say is shown by encoding every record's decoded content again,
    with the library that the services use; and for some 100 evenly spaced records of each topic with an encoder of the
    checker's own, so that the library cannot be wrong alone.
    """
    found = Findings()
    undecodable = trace.decoded.undecodable_in("outputs", "balance_events")
    broken = rows(undecodable, is_any(undecodable, "topic", *CHAINED_TOPICS))
    found.add("record does not decode", broken, "topic", "partition", "offset", "reason")
    for topic in CHAINED_TOPICS:
        records = trace.once(_CHAINS[topic])
        found.checked(len(records) + int(is_any(broken, "topic", topic).sum()))
        identity = ("topic", "partition", "offset", "sequence")
        for what in ("sequence", "prev_hash"):
            found.where(
                f"{what} does not link to the record before",
                records,
                ~array(records, f"{what}_links"),
                *identity,
            )
        found.where(
            "record of another partition", records, ints(records, "own") != ints(records, "partition"), *identity
        )
        found.add(
            "bytes are not the canonical encoding", trace.decoded.not_canonical(topic), "topic", "partition", "offset"
        )
        for partition, offset in _wrong_by_own_encoder(trace, topic):
            found.say(
                "bytes are not the canonical encoding, by the checker's own encoder",
                topic=topic, partition=partition, offset=offset,
            )  # fmt: skip
    return found.verdict


@invariant("corrupt-input-stops")
def corrupt_input_stops(trace: Trace) -> Verdict:
    """With a corrupting fault on: an alarm names the place, and nothing beyond it in that partition is processed.

    Judged wherever the log shows a damaged place: a record that does not decode, or one of a chained topic that does
    not link. A client request that does not decode is no such place: it goes to the dead letters.
    """
    found = Findings()
    places = damaged_places(trace)
    found.checked(len(places))
    alarms = trace.events("alarms")
    where = ("topic", "partition", "offset")
    # A partition that stopped keeps the system from settling, so the bound that was waited for is time enough.
    has_had_time = trace.has_settled or bool((trace.events("phases")["phase"] == "unsettled").any())
    alarmed = list(zip(*(alarms[name].tolist() for name in where), strict=True))
    for topic, partition, offset in places:
        named = any(place == (topic, partition, offset) for place in alarmed)
        if has_had_time and not named:
            found.say("no alarm names the damaged record", topic=topic, partition=partition, offset=offset)
        for what in _processed_beyond(trace, topic, partition, offset):
            found.say(what, topic=topic, partition=partition, offset=offset)
    return found.verdict


def chain_of(trace: Trace, topic: str) -> pd.DataFrame:
    """The records of a chained topic in order: topic, partition, offset, sequence, prev_hash, hash, own (the partition
    that the record names), and whether its sequence and its prev_hash link to the record before."""
    source = trace.outputs if topic == ENGINE_OUTPUTS else trace.balance_events
    partition, sequence = ints(source, "partition"), ints(source, _SEQUENCE_COLUMN[topic])
    digest, prev_hash, offset = ints(source, "hash"), ints(source, "prev_hash"), ints(source, "offset")
    first = np.r_[True, partition[1:] != partition[:-1]] if len(partition) else np.empty(0, dtype=bool)
    # A log whose beginning has been deleted begins with any sequence; one that begins at offset 0 begins with 1.
    whole = first & ((offset == 0) | (sequence == 1))
    sequence_links = np.where(first, ~whole | (sequence == 1), sequence == np.roll(sequence, 1) + 1)
    hash_links = np.where(first, ~whole | (prev_hash == 0), prev_hash == np.roll(digest, 1))
    return frame_of(
        {
            "topic": np.full(len(source), topic, dtype=object),
            "partition": partition,
            "offset": offset,
            "sequence": sequence,
            "hash": digest,
            "own": ints(source, _OWN_PARTITION_COLUMN[topic]),
            "sequence_links": sequence_links.astype(bool),
            "prev_hash_links": hash_links.astype(bool),
        }
    )


def outputs_chain(trace: Trace) -> pd.DataFrame:
    """`chain_of` engine.outputs."""
    return chain_of(trace, ENGINE_OUTPUTS)


def balance_chain(trace: Trace) -> pd.DataFrame:
    """`chain_of` balance.events."""
    return chain_of(trace, BALANCE_EVENTS)


_CHAINS = {ENGINE_OUTPUTS: outputs_chain, BALANCE_EVENTS: balance_chain}
"""By topic what makes its chain, so that each is made once for a trace."""


def _wrong_by_own_encoder(trace: Trace, topic: str) -> list[tuple[int, int]]:
    """Places of the sampled records that do not have the hash of their own content."""
    # Encoding again costs twenty microseconds a record; a wrong encoder is wrong again and again.
    encoder = CanonicalEncoder()
    return [
        (partition, offset)
        for partition, offset, record in trace.decoded.samples(topic)
        if encoder.recomputed_hash(record) != content_hash(record)
    ]


def damaged_places(trace: Trace) -> list[tuple[str, int, int]]:
    """The first damaged record of each partition, as (topic, partition, offset), sorted."""
    first: dict[tuple[str, int], int] = {}
    undecodable = trace.decoded.undecodable_in("outputs", "balance_events", "validated")
    damaged = list(zip(*(undecodable[name].tolist() for name in ("topic", "partition", "offset")), strict=True))
    damaged += [(FUND_UPDATES, partition, offset) for partition, offset in trace.decoded.unsealed(FUND_UPDATES)]
    for topic in CHAINED_TOPICS:
        records = trace.once(_CHAINS[topic])
        broken = rows(records, ~(array(records, "sequence_links") & array(records, "prev_hash_links")))
        damaged += list(zip(*(broken[name].tolist() for name in ("topic", "partition", "offset")), strict=True))
    for topic, partition, offset in damaged:
        if topic in (ENGINE_OUTPUTS, BALANCE_EVENTS, VALIDATED_ORDERS, FUND_UPDATES):
            first[topic, partition] = min(offset, first.get((topic, partition), offset))
    return sorted((topic, partition, offset) for (topic, partition), offset in first.items())


def _processed_beyond(trace: Trace, topic: str, partition: int, offset: int) -> list[str]:
    """What was made of records at or after a damaged one, in words."""
    found = []
    if topic in (VALIDATED_ORDERS, FUND_UPDATES):
        consumer = trace.outputs if topic == VALIDATED_ORDERS else trace.balance_events
        beyond = (
            (array(consumer, "input_topic") == topic)
            & (ints(consumer, "input_partition") == partition)
            & (ints(consumer, "input_offset") >= offset)
        )
        if beyond.any():
            found.append(f"{int(beyond.sum())} inputs at or beyond it were processed")
        return found
    progress = trace.events("final_settlement_progress")
    passed = (
        (array(progress, "topic") == topic)
        & (ints(progress, "partition_id") == partition)
        & (ints(progress, "next_offset") > offset)
    )
    if passed.any():
        found.append("settlement's progress is beyond it")
    if topic == ENGINE_OUTPUTS:
        trades = trace.trades
        later = rows(trades, (ints(trades, "partition") == partition) & (ints(trades, "offset") >= offset))
        table = trace.events("final_user_trades")
        written = (ints(table, "symbol_partition") == partition) & np.isin(
            ints(table, "output_seq"), ints(later, "output_seq")
        )
        events = trace.order_events
        said = rows(events, (ints(events, "partition") == partition) & (ints(events, "offset") >= offset))
        row = trace.events("final_active_orders")
        newer = _pairs(row) & _pairs(said)
        if written.any() or newer:
            found.append(
                f"{int(written.sum())} trade rows and {len(newer)} order rows were made of records at or beyond it"
            )
    else:
        table = trace.events("final_balance_ledger")
        entries = trace.ledger_entries
        later = rows(entries, (ints(entries, "partition") == partition) & (ints(entries, "offset") >= offset))
        written = (ints(table, "user_partition") == partition) & np.isin(
            ints(table, "event_seq"), ints(later, "sequence")
        )
        if written.any():
            found.append(f"{int(written.sum())} ledger rows were made of records at or beyond it")
    return found


def _pairs(frame: pd.DataFrame) -> set[tuple[int, int]]:
    return set(zip(ints(frame, "order_id").tolist(), ints(frame, "revision").tolist(), strict=True))
