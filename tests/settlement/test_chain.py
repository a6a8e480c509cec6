"""The chain of a partition: which record may be settled after which."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.chain import NOTHING_SEEN, NOTHING_SETTLED, Link, Progress, Verdict, judge
from settlement.service import resume_offset


def linked(length, first_offset=0, offset_step=1):
    """A chain of `length` links; hashes are 100, 200, ..."""
    return [Link(first_offset + offset_step * (n - 1), n, 100 * (n - 1), 100 * n) for n in range(1, length + 1)]


def settled_at(link):
    return Progress(link.sequence, link.hash, link.offset + 1)


def verdicts(links, settled=NOTHING_SETTLED):
    seen, found = NOTHING_SEEN, []
    for link in links:
        found.append(judge(settled, seen, link))
        if found[-1] in (Verdict.GAP, Verdict.BROKEN):
            break
        seen = link
    return found


def test_new_chain_is_next_from_sequence_one():
    assert verdicts(linked(3)) == [Verdict.NEXT] * 3


def test_records_at_or_below_progress_are_replays_and_then_next_comes():
    chain = linked(5)
    assert verdicts(chain, settled_at(chain[2])) == [Verdict.REPLAY] * 3 + [Verdict.NEXT] * 2


def test_resuming_right_behind_progress_needs_a_link_to_it():
    chain = linked(5)
    assert verdicts(chain[3:], settled_at(chain[2])) == [Verdict.NEXT] * 2
    assert verdicts(chain[3:], Progress(3, 301, 3)) == [Verdict.BROKEN]


def test_sequence_beyond_the_next_is_a_gap():
    chain = linked(5)
    assert verdicts(chain[1:]) == [Verdict.GAP]
    assert verdicts(chain[4:], settled_at(chain[2])) == [Verdict.GAP]
    assert verdicts([chain[0], chain[2]]) == [Verdict.NEXT, Verdict.GAP]


def test_gap_among_replays_is_a_gap():
    chain = linked(5)
    assert verdicts([chain[0], chain[2]], settled_at(chain[3])) == [Verdict.REPLAY, Verdict.GAP]


def test_replay_with_another_hash_than_progress_is_broken():
    chain = linked(3)
    assert verdicts(chain, Progress(3, 999, 3))[-1] is Verdict.BROKEN


def test_replays_that_do_not_link_among_themselves_are_broken():
    chain = linked(4)
    other = chain[1]._replace(prev_hash=7)
    assert verdicts([chain[0], other], settled_at(chain[3])) == [Verdict.REPLAY, Verdict.BROKEN]


def test_first_record_must_link_to_the_genesis_hash():
    first = linked(1)[0]._replace(prev_hash=5)
    assert verdicts([first]) == [Verdict.BROKEN]
    assert verdicts([first], Progress(4, 400, 9)) == [Verdict.BROKEN]


def test_sequence_that_comes_again_at_a_later_offset_is_a_fork():
    chain = linked(2)
    again = chain[1]._replace(offset=9)
    assert verdicts([*chain, again]) == [Verdict.NEXT, Verdict.NEXT, Verdict.BROKEN]


def test_redelivery_of_earlier_offsets_is_a_replay():
    chain = linked(3)
    assert judge(settled_at(chain[2]), chain[2], chain[1]) is Verdict.REPLAY


@pytest.mark.parametrize("sequence", [0, -1])
def test_sequence_below_one_is_broken(sequence):
    assert judge(NOTHING_SETTLED, NOTHING_SEEN, Link(0, sequence, 0, 1)) is Verdict.BROKEN


@given(st.integers(1, 30), st.data())
def test_true_chain_is_never_refused_wherever_it_is_resumed(length, data):
    chain = linked(length, offset_step=2)
    progress = data.draw(st.integers(0, length), label="settled")
    settled = settled_at(chain[progress - 1]) if progress else NOTHING_SETTLED
    start = data.draw(st.integers(0, progress), label="resumed at")
    found = verdicts(chain[start:], settled)
    assert found == [Verdict.REPLAY] * (progress - start) + [Verdict.NEXT] * (length - progress)


@given(st.integers(2, 20), st.data())
def test_removing_a_record_is_always_seen_when_another_follows(length, data):
    removed = data.draw(st.integers(0, length - 2), label="removed")
    rest = [link for n, link in enumerate(linked(length)) if n != removed]
    assert verdicts(rest) == [Verdict.NEXT] * removed + [Verdict.GAP]


@given(st.integers(1, 20), st.data())
def test_changed_hash_is_always_seen(length, data):
    chain = linked(length + 1)
    changed = data.draw(st.integers(0, length - 1), label="changed")
    chain[changed] = chain[changed]._replace(hash=-1)
    assert verdicts(chain)[-1] is Verdict.BROKEN


@given(st.none() | st.integers(0, 100), st.none() | st.integers(0, 100), st.integers(0, 100))
def test_resume_point_is_never_beyond_what_progress_covers(next_offset, committed, beginning):
    progress = None if next_offset is None else Progress(1, 1, next_offset)
    resumed = resume_offset(progress, committed, beginning)
    if next_offset is None:
        assert resumed == beginning  # whatever the group says
    else:
        assert resumed <= next_offset
        assert committed is None or resumed <= max(committed, beginning)


def test_what_was_settled_before_retention_took_it_is_not_asked_for_again():
    assert resume_offset(Progress(9, 1, 20), committed=5, beginning=12) == 12
    assert resume_offset(Progress(9, 1, 20), committed=5, beginning=30) == 20  # where the gap is found
