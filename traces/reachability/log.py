"""Situations of Kafka and its clients: transactions, groups, leaders, redelivery."""

import numpy as np
import pandas as pd

from schema.topics import BALANCE_EVENTS, ENGINE_OUTPUTS
from traces.matching_rows import codes, ints, rows
from traces.reachability.goals import goal
from traces.trace import Trace

_CHAINED = (ENGINE_OUTPUTS, BALANCE_EVENTS)


@goal("transaction-aborted")
def transaction_aborted(trace: Trace) -> int:
    """A transaction was aborted after it had begun."""
    ended = trace.events("transactions")
    action, outcome = ended["action"].to_numpy(), ended["outcome"].to_numpy()
    return int((((action == "abort") & (outcome == "ok")) | (outcome == "aborted")).sum())


@goal("transaction-timed-out")
def transaction_timed_out(trace: Trace) -> int:
    """The coordinator ended a transaction whose producer had taken too long."""
    return _actions(trace, "timeout")


@goal("zombie-fenced")
def zombie_fenced(trace: Trace) -> int:
    """A producer that had been replaced tried to go on, and was fenced."""
    return _actions(trace, "fenced")


@goal("aborted-records-skipped")
def aborted_records_skipped(trace: Trace) -> int:
    """Records of a chained topic lie in the log that no read-committed reader may see."""
    produced, log = trace.events("produced"), trace.events("kafka_log")
    mine = each_record(rows(produced, np.isin(produced["topic"].to_numpy(dtype=str), _CHAINED)))
    (written, seen), size = codes(("topic", "partition", "offset"), mine, log)
    return int((np.bincount(seen, minlength=size)[written] == 0).sum())


@goal("commit-refused")
def commit_refused(trace: Trace) -> int:
    """An offset commit was refused because its member was no longer of the group."""
    outcomes = trace.events("offset_commits")["outcome"].to_numpy(dtype=str)
    return int(np.isin(outcomes, ("UnknownMemberIdError", "IllegalGenerationError", "RebalanceInProgressError")).sum())


@goal("commit-at-the-wrong-coordinator")
def commit_at_the_wrong_coordinator(trace: Trace) -> int:
    """Offsets were sent to a broker that no longer coordinates the group, or does not yet."""
    outcomes = trace.events("offset_commits")["outcome"].to_numpy(dtype=str)
    return int(np.isin(outcomes, ("NotCoordinatorForGroupError", "GroupLoadInProgressError")).sum())


@goal("member-expired")
def member_expired(trace: Trace) -> int:
    """A member of a group was removed because it had not been heard of."""
    return int((trace.events("rebalances")["action"].to_numpy() == "expire").sum())


@goal("rebalance-hit-a-half-written-batch")
def rebalance_hit_a_half_written_batch(trace: Trace) -> int:
    """Settlement's partitions were taken from an instance while rows of its batch were on their way."""
    changes, writes = trace.events("rebalances"), trace.events("cql")
    revoked = rows(changes, changes["action"].to_numpy() == "revoke")
    hit = 0
    for host, at in zip(revoked["host"].tolist(), revoked["t"].tolist(), strict=True):
        mine = (writes["host"].to_numpy() == host) & (writes["operation"].to_numpy() == "INSERT")
        hit += bool((mine & (ints(writes, "started_t") <= at) & (ints(writes, "t") > at)).any())
    return hit


@goal("partition-moved")
def partition_moved(trace: Trace) -> int:
    """A partition went from one instance of a service to another while there was work."""
    delivered = trace.events("delivered")
    mine = rows(delivered, delivered["group"].to_numpy() != "")
    (key,), _ = codes(("group", "topic", "partition"), mine)
    order = np.lexsort((ints(mine, "seq"), key))
    key, hosts = key[order], mine["host"].to_numpy()[order]
    return int(((key[1:] == key[:-1]) & (hosts[1:] != hosts[:-1])).sum())


@goal("records-redelivered")
def records_redelivered(trace: Trace) -> int:
    """Records were handed out to a group a second time."""
    delivered = trace.events("delivered")
    mine = rows(delivered, delivered["group"].to_numpy() != "")
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
    key, leader = key[order], produced["host"].to_numpy()[order]
    return int(((key[1:] == key[:-1]) & (leader[1:] != leader[:-1])).sum())


@goal("producer-epoch-raised")
def producer_epoch_raised(trace: Trace) -> int:
    """A transactional producer was started for a partition that another had owned: it got a higher epoch."""
    events = trace.events("transactions")
    return int(((events["action"].to_numpy() == "init") & (ints(events, "producer_epoch") > 0)).sum())


def each_record(produced: pd.DataFrame) -> pd.DataFrame:
    """One row for each record of the batches that were produced, with its `offset`."""
    counts = ints(produced, "records")
    found = produced.iloc[np.repeat(np.arange(len(produced)), counts)]
    place_in_batch = np.arange(len(found)) - np.repeat(np.cumsum(counts) - counts, counts)
    return found.assign(offset=ints(found, "first_offset") + place_in_batch)


def _actions(trace: Trace, action: str) -> int:
    return int((trace.events("transactions")["action"].to_numpy() == action).sum())
