"""The recorder keeps every event in order, and its digest depends on nothing but the events."""

import subprocess
import sys

import pyarrow as pa
import pytest

from traces.kinds import ALL_KINDS
from traces.recorder import CHUNK_ROWS, NoTrace, Recorder, RecordingError
from traces.tables import columns_of

PROGRAM = """
from traces.recorder import Recorder
recorder = Recorder()
commits = recorder.emitter("offset_commits")
faults = recorder.emitter("faults")
for n in range(12_345):
    commits(n, "kafka-%d" % (n % 3), "settlement", "engine.outputs", n % 4, n, "m", -n, n % 2 == 0, "ok")
    if n % 100 == 0:
        faults(n, "", "pause", "start", "engine-1", "é", 7, 0, "in-commit", True)
print(recorder.digest())
"""


def _digest_in_a_process(hash_seed: str) -> str:
    command = [sys.executable, "-c", PROGRAM]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": hash_seed})
    return result.stdout.strip()


def test_events_come_back_in_order_with_their_place_in_the_run() -> None:
    recorder = Recorder()
    faults, phases = recorder.emitter("faults"), recorder.emitter("phases")
    faults(10, "kafka-1", "broker-crash", "start", "kafka-1", "", 0, 0, "", False)
    phases(11, "", "work", "")
    faults(12, "kafka-1", "broker-crash", "end", "kafka-1", "", 0, 0, "", False)
    assert recorder.table("faults").to_pydict()["seq"] == [0, 2]
    assert recorder.table("faults").to_pydict()["phase"] == ["start", "end"]
    assert recorder.table("phases").to_pydict() == {
        "seq": [1], "t": [11], "host": [""], "phase": ["work"], "detail": [""],
    }  # fmt: skip


def test_every_kind_can_be_recorded_and_is_counted() -> None:
    recorder = Recorder()
    samples = {"int": 7, "str": "x", "bool": True, "bytes": b"\x00"}
    for kind in ALL_KINDS:
        recorder.emitter(kind)(*(samples[type_] for _, type_ in columns_of(kind)[1:]))
    assert recorder.counts() == dict.fromkeys(ALL_KINDS, 1)
    assert recorder.table("kafka_log").to_pydict()["value"] == [b"\x00"]


def test_rows_of_more_than_one_chunk_are_all_there() -> None:
    recorder = Recorder()
    emit = recorder.emitter("phases")
    for n in range(2 * CHUNK_ROWS + 5):
        emit(n, "", f"phase {n % 3}", str(n))
    table = recorder.table("phases")
    assert table.num_rows == recorder.counts()["phases"] == 2 * CHUNK_ROWS + 5
    assert table.column("detail").to_pylist() == [str(n) for n in range(2 * CHUNK_ROWS + 5)]


def test_digest_is_the_same_in_processes_with_other_hash_seeds() -> None:
    assert _digest_in_a_process("0") == _digest_in_a_process("4242")


def test_digest_can_be_asked_in_the_middle_without_changing_the_last_one() -> None:
    plain, asked = Recorder(), Recorder()
    for recorder in (plain, asked):
        emit = recorder.emitter("phases")
        for n in range(CHUNK_ROWS + 3):
            emit(n, "", "work", "")
            if recorder is asked and n % 1_000 == 0:
                recorder.digest()
    assert plain.digest() == asked.digest()


@pytest.mark.parametrize(
    "change",
    [
        {"t": 6}, {"host": "kafka-2"}, {"detail": "y"}, {"phase": "hit"},
    ],
)  # fmt: skip
def test_digest_sees_a_changed_value(change: dict[str, object]) -> None:
    event: dict[str, object] = {
        "t": 5,
        "host": "kafka-1",
        "fault": "clog",
        "phase": "start",
        "target": "a",
        "detail": "x",
    }
    event |= {"duration_ns": 9, "strength": 0, "moment": "", "has_met": False}
    digests = []
    for values in (event, event | change):
        recorder = Recorder()
        recorder.emitter("faults")(*values.values())
        digests.append(recorder.digest())
    assert digests[0] != digests[1]


def test_digest_sees_the_order_of_events_of_different_kinds() -> None:
    first, second = Recorder(), Recorder()
    first.emitter("phases")(1, "", "work", "")
    first.emitter("faults")(1, "", "f", "start", "", "", 0, 0, "", False)
    second.emitter("faults")(1, "", "f", "start", "", "", 0, 0, "", False)
    second.emitter("phases")(1, "", "work", "")
    assert first.digest() != second.digest()


def test_digest_tells_where_one_text_ends_and_the_next_begins() -> None:
    first, second = Recorder(), Recorder()
    for recorder, texts in ((first, ("ab", "c")), (second, ("a", "bc"))):
        for text in texts:
            recorder.emitter("phases")(1, "", "work", text)
    assert first.digest() != second.digest()


def test_missing_value_is_told_from_an_empty_one() -> None:
    first, second = Recorder(), Recorder()
    first.emitter("kafka_log")(1, "", "t", 0, 0, 1, 1, -1, None, b"v")
    second.emitter("kafka_log")(1, "", "t", 0, 0, 1, 1, -1, b"", b"v")
    assert first.digest() != second.digest()
    assert first.table("kafka_log").column("key").to_pylist() == [None]


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(KeyError):
        Recorder().emitter("no_such_kind")


def test_wrong_number_of_values_fails_where_it_is_emitted() -> None:
    with pytest.raises(TypeError, match="detail"):
        Recorder().emitter("phases")(1, "", "work")


@pytest.mark.parametrize(
    ("value", "column"), [(2**63, "read_id"), ("7", "read_id"), (None, "read_id")]
)  # fmt: skip
def test_value_that_its_column_cannot_hold_is_named(value: object, column: str) -> None:
    recorder = Recorder()
    recorder.emitter("read_rows")(1, "", value, 0, 1, 1, 1, 1, 1, 0, 1, 0)
    with pytest.raises(RecordingError, match=f"kind read_rows, column {column}"):
        recorder.table("read_rows")


class _Chunks:
    """A sink that remembers how many rows each chunk had."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def append(self, kind: str, chunk: pa.RecordBatch) -> None:
        assert kind == "phases"
        self.rows.append(chunk.num_rows)


def test_chunks_go_to_the_sink_as_soon_as_they_are_whole_and_the_digest_is_the_same() -> None:
    sink = _Chunks()
    kept, sent, silent = Recorder(), Recorder(sink), Recorder(NoTrace())
    for recorder in (kept, sent, silent):
        emit = recorder.emitter("phases")
        for n in range(CHUNK_ROWS + 1):
            emit(n, "", "work", str(n))
    assert sink.rows == [CHUNK_ROWS]
    sent.finish()
    assert sink.rows == [CHUNK_ROWS, 1]
    assert sent.counts()["phases"] == CHUNK_ROWS + 1
    assert kept.digest() == sent.digest() == silent.digest()
    with pytest.raises(RecordingError, match="went to the recorder's sink"):
        sent.tables()


def test_text_seen_for_the_first_time_or_refused_takes_no_place_of_another_row() -> None:
    recorder = Recorder()
    emit = recorder.emitter("phases")
    for n in range(200):
        emit(n, f"host {n}", "work", "")
    assert recorder.table("phases").column("t").to_pylist() == list(range(200))
    assert recorder.table("phases").column("seq").to_pylist() == list(range(200))
    emit(200, 7, "work", "")
    emit(201, "host 7", "work", "")
    assert recorder.counts()["phases"] == 201
    with pytest.raises(RecordingError, match="kind phases, column host"):
        recorder.digest()
