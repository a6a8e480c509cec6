"""Goals of Kafka and its clients: each is reached by a few rows, and not by others that are almost the same."""

import pytest

from benchmarks.mini_world import BUY, MiniWorld
from schema.tables import SETTLEMENT_PROGRESS
from schema.topics import ENGINE_OUTPUTS
from tests.traces.reachability.by_hand import (
    Case,
    Cases,
    commit,
    count,
    count_in,
    delivered,
    goals_in,
    group,
    insert,
    line,
    near_misses,
    produced,
    took,
    transaction,
)

OWNED = [transaction(1, "init"), took(2, "matching-1"), transaction(3, "begin")]
REPLACED = [transaction(10, "fenced", outcome="aborted"), transaction(11, "init", epoch=2), took(12, "matching-2")]
REFUSED = transaction(20, "fenced", "matching-1", outcome="refused")


def leaves(t: int, host: str, reason: str = "FencedError('matching-0 was fenced')") -> tuple[str, dict[str, object]]:
    return line(t, host, "leaving the group to join again", reason=reason)


CASES: Cases = {
    "transaction-aborted": Case(
        [transaction(1, "begin"), transaction(2, "abort")],
        {
            "committed": [transaction(1, "begin"), transaction(2, "commit")],
            "a zombie's, refused": [transaction(1, "fenced", outcome="refused")],
        },
    ),
    "transaction-timed-out": Case(
        [transaction(1, "begin"), transaction(2, "timeout", outcome="aborted")],
        {"ended by the next owner": [transaction(1, "begin"), transaction(2, "fenced", outcome="aborted")]},
    ),
    "zombie-fenced": Case(
        [*OWNED, *REPLACED, REFUSED],
        {
            "it crashed, and nobody tried to go on": [*OWNED, *REPLACED],
            "timed out, and replaced by nobody": [*OWNED, transaction(9, "timeout", outcome="aborted"), REFUSED],
            "it took its partition over anew itself": [
                *OWNED,
                transaction(11, "init", epoch=1),
                took(12, "matching-1"),
                REFUSED,
            ],
            "timed out and refused before it was replaced": [
                *OWNED,
                transaction(9, "timeout", outcome="aborted"),
                *REPLACED[1:],
                leaves(20, "matching-1"),
            ],
            "the heir lives and is fenced by a time-out": [
                *OWNED,
                *REPLACED,
                transaction(13, "begin", epoch=2),
                transaction(19, "timeout", epoch=2, outcome="aborted"),
                transaction(20, "fenced", "matching-2", epoch=2, outcome="refused"),
            ],
            "left the group for another reason": [*OWNED, *REPLACED, leaves(20, "matching-1", "KafkaError()")],
        },
    ),
    "commit-of-an-old-generation": Case(
        [commit(1, "IllegalGenerationError")],
        {
            "done": [commit(1, "ok")],
            "refused without a word about the member": [commit(1, "GroupLoadInProgressError")],
            "of the generation that is being formed": [commit(1, "RebalanceInProgressError")],
        },
    ),
    "commit-at-the-wrong-coordinator": Case(
        [commit(1, "NotCoordinatorForGroupError")],
        {"at the right one, which is not ready, or so a fault says": [commit(1, "GroupLoadInProgressError")]},
    ),
    "member-expired": Case([group(1, "kafka-1", "expire", "")], {"it left": [group(1, "kafka-1", "leave", "")]}),
    "rebalance-hit-a-half-written-batch": Case(
        [group(5, "settlement-1", "revoke"), insert(6, started=4)],
        {
            "the row was there already": [insert(4, started=3), group(5, "settlement-1", "revoke")],
            "another instance's row": [group(5, "settlement-1", "revoke"), insert(6, "settlement-2", started=4)],
            "progress, after all rows": [
                group(5, "settlement-1", "revoke"),
                insert(6, started=4, table=SETTLEMENT_PROGRESS),
            ],
        },
    ),
    "partition-moved": Case(
        [delivered(1, "matching-1", 0, 4), delivered(2, "matching-2", 5, 9)],
        {
            "one instance read on": [delivered(1, "matching-1", 0, 4), delivered(2, "matching-1", 5, 9)],
            "another group's instance": [delivered(1, "matching-1", 0, 4), delivered(2, "spy-1", 5, 9, of="spies")],
            "readers of no group": [delivered(1, "gateway-1", 0, 4, of=""), delivered(2, "gateway-2", 5, 9, of="")],
        },
    ),
    "records-redelivered": Case(
        [delivered(1, "matching-1", 0, 4), delivered(2, "matching-2", 4, 9)],
        {"each once": [delivered(1, "matching-1", 0, 4), delivered(2, "matching-2", 5, 9)]},
    ),
    "leader-changed-while-written-to": Case(
        [produced(1, "kafka-1", 0), produced(2, "kafka-2", 1)],
        {"the same leader": [produced(1, "kafka-1", 0), produced(2, "kafka-1", 1)]},
    ),
    "producer-epoch-raised": Case(
        [transaction(1, "init"), transaction(2, "init", epoch=1)],
        {"the first producer of the partition": [transaction(1, "init")]},
    ),
}
ELSEWHERE = {"aborted-records-skipped"}
"""Those with a test of their own."""


def test_every_goal_has_its_case() -> None:
    assert goals_in("log") == CASES.keys() | ELSEWHERE


@pytest.mark.parametrize("goal", CASES)
def test_a_few_rows_reach_the_goal(goal: str) -> None:
    assert count(goal, CASES[goal].reached) == 1


@pytest.mark.parametrize(("goal", "why"), near_misses(CASES))
def test_a_near_miss_does_not(goal: str, why: str) -> None:
    assert count(goal, CASES[goal].near_misses[why]) == 0


def test_a_zombie_that_is_fenced_before_the_end_of_its_transaction_says_so() -> None:
    assert count("zombie-fenced", [*OWNED, *REPLACED, leaves(20, "matching-1")]) == 1


def test_a_zombie_is_counted_once_however_often_it_is_told() -> None:
    assert count("zombie-fenced", [*OWNED, *REPLACED, REFUSED, REFUSED, leaves(21, "matching-1")]) == 1


def test_a_member_that_is_unknown_commits_of_an_old_generation() -> None:
    assert count("commit-of-an-old-generation", [commit(1, "UnknownMemberIdError")]) == 1


@pytest.mark.parametrize(("records", "skipped"), [(1, 0), (2, 1)], ids=["all are committed", "one more lies there"])
def test_records_that_no_reader_may_see_are_skipped(records: int, skipped: int) -> None:
    world = MiniWorld()
    world.place(1, BUY, 100, 1)
    assert len(world.log[ENGINE_OUTPUTS, 0]) == 1
    world.emit("produced", **produced(1, "kafka-1", 0, records)[1])
    assert count_in("aborted-records-skipped", world) == skipped
