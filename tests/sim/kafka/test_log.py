"""Facts about one partition's log: sequences, markers, the high watermark and the last stable offset."""

from __future__ import annotations

import pytest
from aiokafka.errors import InvalidProducerEpoch, OutOfOrderSequenceNumber

from sim.kafka.log import ABORT_MARKER, ABORTED, COMMIT_MARKER, COMMITTED, MIXED, Batch, PartitionLog, Record


def records(count: int) -> list[Record]:
    return [(1, None, b"v", ()) for _ in range(count)]


def data(count: int, pid: int = -1, epoch: int = 0, sequence: int = 0, transactional: bool = False) -> Batch:
    return Batch(records(count), 100, pid, epoch, sequence, transactional)


def marker(pid: int, control: int, epoch: int = 0) -> Batch:
    return Batch([], 78, pid, epoch, transactional=True, control=control)


def test_marker_takes_an_offset() -> None:
    log = PartitionLog()
    log.append(data(3, pid=7, transactional=True), 0)
    log.append(marker(7, COMMIT_MARKER), 0)
    assert log.append(data(1), 0) == 4


def test_repeated_batch_is_recognised_by_its_sequence() -> None:
    log = PartitionLog()
    log.append(data(3, pid=7), 0)
    log.append(data(2, pid=7, sequence=3), 0)
    assert log.find_repeated(data(3, pid=7)) == 0
    assert log.find_repeated(data(2, pid=7, sequence=3)) == 3
    assert log.find_repeated(data(2, pid=7, sequence=5)) is None


def test_only_the_last_five_batches_are_remembered() -> None:
    log = PartitionLog()
    for sequence in range(6):
        log.append(data(1, pid=7, sequence=sequence), 0)
    assert log.find_repeated(data(1, pid=7, sequence=0)) is None
    assert log.refusal(data(1, pid=7, sequence=0)) is OutOfOrderSequenceNumber
    assert log.find_repeated(data(1, pid=7, sequence=1)) == 1


def test_gap_in_the_sequence_is_refused() -> None:
    log = PartitionLog()
    log.append(data(3, pid=7), 0)
    assert log.refusal(data(1, pid=7, sequence=4)) is OutOfOrderSequenceNumber
    assert log.refusal(data(1, pid=7, sequence=3)) is None


def test_older_epoch_is_fenced_and_a_newer_one_begins_at_zero() -> None:
    log = PartitionLog()
    log.append(data(3, pid=7, epoch=1), 0)
    assert log.refusal(data(1, pid=7, epoch=0, sequence=3)) is InvalidProducerEpoch
    assert log.refusal(data(1, pid=7, epoch=2, sequence=3)) is OutOfOrderSequenceNumber
    assert log.refusal(data(1, pid=7, epoch=2, sequence=0)) is None


def test_marker_of_a_higher_epoch_fences_the_producer() -> None:
    log = PartitionLog()
    log.append(data(3, pid=7, epoch=1, transactional=True), 0)
    log.append(marker(7, ABORT_MARKER, epoch=2), 0)
    assert log.refusal(data(1, pid=7, epoch=1, sequence=3)) is InvalidProducerEpoch


def test_open_transaction_holds_the_last_stable_offset() -> None:
    log = PartitionLog()
    log.append(data(2), 0)
    log.append(data(1, pid=7, transactional=True), 0)
    log.append(data(4), 0)
    log.advance(log.end_offset)
    assert (log.high_watermark, log.last_stable_offset) == (7, 2)
    log.append(marker(7, COMMIT_MARKER), 0)
    assert log.last_stable_offset == 2, "the marker is not replicated yet"
    log.advance(log.end_offset)
    assert log.last_stable_offset == 8


def test_oldest_open_transaction_holds_the_last_stable_offset_whatever_ends_first() -> None:
    log = PartitionLog()
    log.append(data(1, pid=7, transactional=True), 0)
    log.append(data(1, pid=8, transactional=True), 0)
    log.append(marker(8, COMMIT_MARKER), 0)
    log.advance(log.end_offset)
    assert log.last_stable_offset == 0
    log.append(marker(7, ABORT_MARKER), 0)
    log.advance(log.end_offset)
    assert log.last_stable_offset == log.end_offset == 4
    assert [batch.outcome for batch in log.batches[:2]] == [ABORTED, COMMITTED]
    assert [batch.producer_id for batch in log.committed_batches()] == [8]


def test_truncation_takes_back_what_the_cut_batches_did() -> None:
    log = PartitionLog()
    log.append(data(2, pid=7, transactional=True), 0)
    log.advance(2)
    log.append(marker(7, COMMIT_MARKER), 0)
    log.append(data(1, pid=7, sequence=2, transactional=True), 0)
    assert log.truncate(2) == 1
    assert log.end_offset == 2
    assert log.has_open_transaction(7)
    assert log.refusal(data(1, pid=7, sequence=2, transactional=True)) is None
    assert log.last_stable_offset == 0


def test_read_gives_whole_batches_up_to_the_limit_and_at_least_one() -> None:
    log = PartitionLog()
    for _ in range(5):
        log.append(data(2), 0)
    assert [batch.base_offset for batch in log.read(3, 10, 250)] == [2, 4]
    assert [batch.base_offset for batch in log.read(3, 10, 1)] == [2]
    assert [batch.base_offset for batch in log.read(0, 4, 10_000)] == [0, 2]


def test_retention_never_passes_the_high_watermark() -> None:
    log = PartitionLog()
    log.append(data(2), 0)
    log.append(data(2), 0)
    log.advance(2)
    assert log.delete_before(4) == 2
    assert log.start_offset == 2
    assert [batch.base_offset for batch in log.batches] == [2]


def test_transaction_is_stable_only_when_its_marker_is_below_the_high_watermark() -> None:
    log = PartitionLog()
    log.append(data(2, pid=7, transactional=True), 0)
    log.append(marker(7, COMMIT_MARKER), 0)
    log.advance(2)
    assert (log.high_watermark, log.last_stable_offset) == (2, 0)


def test_batch_of_one_instant_without_keys_is_stored_as_its_values() -> None:
    stored = Batch([(7, None, b"a", ()), (7, None, None, ())], 100).to_store()
    assert (stored.stamp_ms, list(stored.records)) == (7, [b"a", None])
    assert list(stored.rows()) == [(7, None, b"a", ()), (7, None, None, ())]
    assert list(stored.to_store().rows()) == list(stored.rows())


@pytest.mark.parametrize(
    "other", [(8, None, b"b", ()), (7, b"key", b"b", ()), (7, None, b"b", (("name", b"content"),))]
)
def test_batch_with_a_key_a_header_or_two_timestamps_is_stored_as_it_is(other: Record) -> None:
    records = [(7, None, b"a", ()), other]
    stored = Batch(records, 100).to_store()
    assert stored.stamp_ms == MIXED
    assert list(stored.rows()) == records
    assert list(stored.values()) == [b"a", b"b"]
