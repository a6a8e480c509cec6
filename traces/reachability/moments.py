"""Faults that struck at a moment that matters, and not merely at some time."""

from traces.matching_rows import array, is_any
from traces.reachability.goals import goal
from traces.trace import Trace


@goal("struck-in-a-transaction")
def struck_in_a_transaction(trace: Trace) -> int:
    """A fault struck while a transaction was open and not decided."""
    return _struck(trace, "in-transaction")


@goal("struck-in-a-commit")
def struck_in_a_commit(trace: Trace) -> int:
    """A fault struck while a transaction was being ended: its commit, or its abort, was asked for or under way."""
    return _struck(trace, "in-commit")


@goal("struck-while-rows-were-written")
def struck_while_rows_were_written(trace: Trace) -> int:
    """A fault struck while rows or progress of a batch were on their way to the database."""
    return _struck(trace, "rows-being-written")


@goal("struck-while-rows-were-refused")
def struck_while_rows_were_refused(trace: Trace) -> int:
    """A fault struck while rows that the database had just refused waited to be written again."""
    return _struck(trace, "rows-refused")


@goal("struck-between-write-and-commit")
def struck_between_write_and_commit(trace: Trace) -> int:
    """A fault struck when a batch was written and its offsets were being committed."""
    return _struck(trace, "between-write-and-commit")


@goal("struck-with-requests-outstanding")
def struck_with_requests_outstanding(trace: Trace) -> int:
    """A fault struck while clients waited for a gateway's answers."""
    return _struck(trace, "requests-outstanding")


@goal("struck-during-a-rebalance")
def struck_during_a_rebalance(trace: Trace) -> int:
    """A fault struck while a group was between two generations."""
    return _struck(trace, "during-rebalance")


@goal("struck-during-a-recovery")
def struck_during_a_recovery(trace: Trace) -> int:
    """A fault struck while a partition was being taken over."""
    return _struck(trace, "during-recovery")


@goal("struck-while-a-snapshot-was-written")
def struck_while_a_snapshot_was_written(trace: Trace) -> int:
    """A fault struck while a snapshot was not synced yet."""
    return _struck(trace, "snapshot-being-written")


def _struck(trace: Trace, moment: str) -> int:
    """How many strikes began at a moment that they had waited for."""
    faults = trace.events("faults")
    return int((is_any(faults, "phase", "start") & is_any(faults, "moment", moment) & array(faults, "has_met")).sum())
