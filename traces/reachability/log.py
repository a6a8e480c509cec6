"""Situations of Kafka and its clients: transactions, groups, leaders, redelivery."""

import re
from collections.abc import Iterator
from typing import Final

import numpy as np
import pandas as pd

from schema.tables import SETTLEMENT_PROGRESS
from schema.topics import CHAINED_TOPICS
from traces.frames import frame_of
from traces.matching_rows import array, codes, ints, is_any, is_in, rows
from traces.reachability.goals import goal
from traces.reachability.takeovers import takeovers
from traces.trace import Trace


@goal("transaction-aborted")
def transaction_aborted(trace: Trace) -> int:
    """A transaction was aborted after it had begun."""
    ended = trace.events("transactions")
    action, outcome = array(ended, "action"), array(ended, "outcome")
    return int((((action == "abort") & (outcome == "ok")) | (outcome == "aborted")).sum())


@goal("transaction-timed-out")
def transaction_timed_out(trace: Trace) -> int:
    """The coordinator ended a transaction whose producer had taken too long."""
    return _actions(trace, "timeout")


@goal("zombie-fenced")
def zombie_fenced(trace: Trace) -> int:
    """A producer whose partition another instance had taken over meanwhile tried to go on, and was fenced."""
    taken = takeovers(trace)
    found = set()
    for at, host, owned in _fenced(trace):
        had_at = max(
            (each.t for each in taken if each.host == host and each.owned == owned and each.t < at), default=at
        )
        # What came first since then: a new producer, or a time-out, which fences an owner that nobody has replaced.
        raised_at, why = next(((t, action) for t, action in _raised(trace, owned) if had_at < t <= at), (at, ""))
        heir = next((each.host for each in taken if each.owned == owned and each.t >= raised_at), host)
        if why == "init" and heir != host:
            found.add((host, owned, had_at))
    return len(found)


@goal("aborted-records-skipped")
def aborted_records_skipped(trace: Trace) -> int:
    """Records of a chained topic lie in the log that no read-committed reader may see."""
    produced = trace.events("produced")
    found = 0
    for topic in CHAINED_TOPICS:
        written = each_record(rows(produced, is_any(produced, "topic", topic)))
        found += int((~is_in(written, trace.decoded.places(topic), ("partition", "offset"))).sum())
    return found


@goal("commit-of-an-old-generation")
def commit_of_an_old_generation(trace: Trace) -> int:
    """An offset commit was refused: its generation of the group was over, or its member was no longer of the group."""
    commits = trace.events("offset_commits")
    return int(is_any(commits, "outcome", "IllegalGenerationError", "UnknownMemberIdError").sum())


@goal("commit-at-the-wrong-coordinator")
def commit_at_the_wrong_coordinator(trace: Trace) -> int:
    """Offsets were sent to a broker that did not coordinate the group, or not any more."""
    return int(is_any(trace.events("offset_commits"), "outcome", "NotCoordinatorForGroupError").sum())


@goal("member-expired")
def member_expired(trace: Trace) -> int:
    """A member of a group was removed because it had not been heard of."""
    return int((array(trace.events("rebalances"), "action") == "expire").sum())


@goal("rebalance-hit-a-half-written-batch")
def rebalance_hit_a_half_written_batch(trace: Trace) -> int:
    """Settlement's partitions were taken from an instance while rows of its batch were on their way."""
    changes, writes = trace.events("rebalances"), trace.events("cql")
    revoked = rows(changes, array(changes, "action") == "revoke")
    written = is_any(writes, "operation", "INSERT") & ~is_any(writes, "table", SETTLEMENT_PROGRESS)
    hit = 0
    for host, at in zip(array(revoked, "host").tolist(), ints(revoked, "t").tolist(), strict=True):
        is_now = (ints(writes, "started_t") <= at) & (ints(writes, "t") > at)
        hit += bool((written & is_now & is_any(writes, "host", host)).any())
    return hit


@goal("partition-moved")
def partition_moved(trace: Trace) -> int:
    """A partition went from one instance of a service to another while there was work."""
    delivered = trace.events("delivered")
    mine = rows(delivered, array(delivered, "group") != "")
    (key,), _ = codes(("group", "topic", "partition"), mine)
    order = np.lexsort((ints(mine, "seq"), key))
    key, hosts = key[order], array(mine, "host")[order]
    return int(((key[1:] == key[:-1]) & (hosts[1:] != hosts[:-1])).sum())


@goal("records-redelivered")
def records_redelivered(trace: Trace) -> int:
    """Records were handed out to a group a second time."""
    delivered = trace.events("delivered")
    mine = rows(delivered, array(delivered, "group") != "")
    (key,), _ = codes(("group", "topic", "partition"), mine)
    order = np.lexsort((ints(mine, "seq"), key))
    key, first, last = key[order], ints(mine, "first_offset")[order], ints(mine, "last_offset")[order]
    return int(((key[1:] == key[:-1]) & (first[1:] <= last[:-1])).sum())


@goal("leader-changed-while-written-to")
def leader_changed_while_written_to(trace: Trace) -> int:
    """A partition got records from one leader, and then from another."""
    produced = trace.events("produced")
    (key,), _ = codes(("topic", "partition"), produced)
    order = np.lexsort((ints(produced, "seq"), key))
    key, leader = key[order], array(produced, "host")[order]
    return int(((key[1:] == key[:-1]) & (leader[1:] != leader[:-1])).sum())


@goal("producer-epoch-raised")
def producer_epoch_raised(trace: Trace) -> int:
    """A transactional producer was started for a partition that another had owned: it got a higher epoch."""
    events = trace.events("transactions")
    return int(((array(events, "action") == "init") & (ints(events, "producer_epoch") > 0)).sum())


def each_record(produced: pd.DataFrame) -> pd.DataFrame:
    """One row for each record of the batches that were produced: partition, offset, producer_epoch."""
    counts = ints(produced, "records")
    batch = np.repeat(np.arange(len(produced)), counts)
    place_in_batch = np.arange(len(batch)) - np.repeat(np.cumsum(counts) - counts, counts)
    return frame_of(
        {
            "partition": ints(produced, "partition")[batch],
            "offset": ints(produced, "first_offset")[batch] + place_in_batch,
            "producer_epoch": ints(produced, "producer_epoch")[batch],
        }
    )


def _fenced(trace: Trace) -> Iterator[tuple[int, str, str]]:
    """When a producer was told that it was fenced, its host and its transactional id: at the end of a transaction, as
    the coordinator says, or at any other request, as its service says."""
    ends = trace.events("transactions")
    refused = rows(ends, is_any(ends, "action", "fenced") & is_any(ends, "outcome", "refused"))
    yield from zip(ints(refused, "t").tolist(), array(refused, "host"), array(refused, "transactional_id"), strict=True)
    lines = trace.events("log_lines")
    told = rows(lines, is_any(lines, "event", "leaving the group to join again"))
    for at, host, fields in zip(ints(told, "t").tolist(), array(told, "host"), array(told, "fields"), strict=True):
        if said := _SAID_FENCED.search(fields):
            yield at, host, said[1]


def _raised(trace: Trace, transactional_id: str) -> Iterator[tuple[int, str]]:
    """When the epoch of a transactional id was raised, and by what: init or timeout."""
    events = trace.events("transactions")
    mine = rows(
        events, (array(events, "transactional_id") == transactional_id) & is_any(events, "action", "init", "timeout")
    )
    return zip(ints(mine, "t").tolist(), array(mine, "action"), strict=True)


_SAID_FENCED: Final = re.compile(r"FencedError\('(\S+) was fenced'\)")


def _actions(trace: Trace, action: str) -> int:
    return int((array(trace.events("transactions"), "action") == action).sum())
