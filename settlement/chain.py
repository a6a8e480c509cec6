"""May this record be settled after that one? The chain of a partition, as a pure decision (design section 4.4.1).

Each record of a chained topic has a sequence, counted from 1 without gaps, its own hash and the hash of the one before.
Settlement knows two places in that chain: the *settled* one, up to which all rows are acknowledged (the progress row),
and the one *seen* last since it took the partition over, from which on it can verify what links to what.
"""

from enum import Enum
from typing import Final, NamedTuple

from schema.wire import GENESIS_HASH


class Verdict(Enum):
    """What a record is, given what came before it."""

    NEXT = "next"
    """The first one beyond what is settled, and it links."""
    REPLAY = "replay"
    """At or below what is settled, as it was: written again, which changes nothing."""
    GAP = "gap"
    """Records are missing before it."""
    BROKEN = "broken"
    """It is not the record that belongs here: a hash does not match, or a sequence comes again with other content."""


class Link(NamedTuple):
    """A record's place in its partition and in its chain."""

    offset: int
    sequence: int
    prev_hash: int
    hash: int


class Progress(NamedTuple):
    """The last record of a partition whose rows are all acknowledged; `next_offset` is one past its offset."""

    sequence: int
    hash: int
    next_offset: int


NOTHING_SETTLED: Final = Progress(0, GENESIS_HASH, 0)
NOTHING_SEEN: Final = Link(-1, 0, GENESIS_HASH, GENESIS_HASH)


def judge(settled: Progress, seen: Link, link: Link) -> Verdict:
    """What `link` is, when everything up to `settled` is settled and `seen` was the record before it.

    `seen` is NOTHING_SEEN for the first record after a take-over. A record at or before `seen`'s offset is a
    redelivery by the consumer and starts a new pass; a sequence that comes again at a later offset is a fork of the
    log and BROKEN, even when it looks the same.
    """
    if link.sequence < 1:
        return Verdict.BROKEN
    if seen.sequence and link.offset > seen.offset:
        if link.sequence > seen.sequence + 1:
            return Verdict.GAP
        if link.sequence <= seen.sequence or link.prev_hash != seen.hash:
            return Verdict.BROKEN
    elif link.sequence > settled.sequence + 1:
        return Verdict.GAP
    if link.sequence == settled.sequence + 1:
        return Verdict.NEXT if link.prev_hash == settled.hash else Verdict.BROKEN
    if link.sequence == settled.sequence and link.hash != settled.hash:
        return Verdict.BROKEN
    if link.sequence == 1 and link.prev_hash != GENESIS_HASH:
        return Verdict.BROKEN
    return Verdict.REPLAY if link.sequence <= settled.sequence else Verdict.NEXT
