"""A stored trace comes back whole; anything that is wrong with one is said in one clear line."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.mini_world import TOPOLOGY
from traces.invariants import check
from traces.kinds import ALL_KINDS
from traces.manifest import Manifest, TopologyRecord, TraceError, VerdictRecord
from traces.recorder import CHUNK_ROWS, Recorder
from traces.store import TraceWriter, check_place, read_manifest, read_trace, write_trace, write_verdicts
from traces.tables import columns_of, file_of

MANIFEST = Manifest(
    seed=7,
    epoch_ns=5,
    scenario={"seed": 7, "faults": "none"},
    packages={"python": "3"},
    statements={3: "INSERT INTO t"},
    topology=TopologyRecord.of(TOPOLOGY),
)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A small stored trace."""
    recorder = Recorder()
    for n in range(5):
        recorder.emitter("faults")(n, "kafka-1", "clog", "start", "kafka-1", "", 5, 1, "", False)
    recorder.emitter("kafka_log")(9, "", "engine.outputs", 0, 0, 1, 2, -1, None, b"\xff")
    return write_trace(tmp_path / "trace", MANIFEST, recorder.tables())


def _manifest(recorder: Recorder) -> Manifest:
    return msgspec.structs.replace(MANIFEST, digest=recorder.digest())


def test_manifest_comes_back_with_the_counts(stored: Path) -> None:
    manifest = read_manifest(stored)
    assert manifest.counts == {**dict.fromkeys(ALL_KINDS, 0), "faults": 5, "kafka_log": 1}
    assert (manifest.seed, manifest.scenario, manifest.statements) == (7, MANIFEST.scenario, MANIFEST.statements)
    assert manifest.topology.topology().partitions() == TOPOLOGY.partitions()


_TYPES = {
    "int": st.integers(-(2**63), 2**63 - 1),
    "str": st.text(max_size=8),
    "bool": st.booleans(),
    "bytes": st.none() | st.binary(max_size=8),
}


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_whatever_is_recorded_comes_back(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    recorder = Recorder()
    kinds = data.draw(st.lists(st.sampled_from(sorted(ALL_KINDS)), max_size=8))
    recorded: dict[str, list[tuple[object, ...]]] = {}
    for kind in kinds:
        row = data.draw(st.tuples(*(_TYPES[type_] for _, type_ in columns_of(kind)[1:])))
        recorder.emitter(kind)(*row)
        recorded.setdefault(kind, []).append(row)
    folder = write_trace(tmp_path_factory.mktemp("t") / "trace", MANIFEST, recorder.tables())
    trace = read_trace(folder)
    assert trace.manifest.digest == recorder.digest()
    for kind, rows in recorded.items():
        names = [name for name, _ in columns_of(kind)[1:]]
        assert trace.tables[kind].select(names).to_pylist() == [dict(zip(names, row, strict=True)) for row in rows]


def test_writing_again_replaces_the_trace_and_leaves_nothing_beside_it(stored: Path) -> None:
    write_trace(stored, MANIFEST, {})
    assert read_manifest(stored).counts["faults"] == 0
    assert [each.name for each in stored.parent.iterdir()] == ["trace"]


def test_folder_that_is_no_trace_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(TraceError, match="exists and is not a trace"):
        write_trace(tmp_path, MANIFEST, {})
    assert (tmp_path / "precious.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["notes.txt", "sub", "faults.parquet"])
def test_trace_with_what_is_somebody_elses_in_it_is_not_replaced(stored: Path, name: str) -> None:
    (stored / name).unlink(missing_ok=True)
    (stored / name).mkdir()
    (stored / name / "y").write_text("precious")
    with pytest.raises(TraceError, match=rf"trace: a trace with '{name}' in it.*nothing was written"):
        TraceWriter(stored)
    assert (stored / name / "y").read_text() == "precious"
    assert [each.name for each in stored.parent.iterdir()] == ["trace"]


def test_notes_made_while_the_run_goes_on_stay(stored: Path) -> None:
    writer = TraceWriter(stored)
    (stored / "notes.txt").write_text("precious")
    writer.finish(MANIFEST)
    assert (stored / "notes.txt").read_text() == "precious"
    assert read_manifest(stored).counts["faults"] == 0
    assert [each.name for each in stored.parent.iterdir()] == ["trace"]


def test_trace_that_was_there_comes_back_when_the_new_one_cannot_take_its_place(
    stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def refuse(source: Path, target: Path) -> Path:
        if source.name.endswith(".partial"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(TraceError, match="trace: cannot write the trace: Input/output error"):
        write_trace(stored, MANIFEST, {})
    assert read_manifest(stored).counts["faults"] == 5
    assert [each.name for each in stored.parent.iterdir()] == ["trace"]


def test_link_to_a_trace_stays_and_leads_to_the_new_one(stored: Path) -> None:
    link = stored.with_name("link")
    link.symlink_to("trace")
    write_trace(link, MANIFEST, {})
    assert link.is_symlink()
    assert read_manifest(stored).counts["faults"] == 0


@pytest.mark.parametrize("name", [".", "../trace"])
def test_current_folder_is_not_replaced(stored: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(stored)
    with pytest.raises(TraceError, match="the current folder cannot be replaced by a trace; nothing was written"):
        TraceWriter(name)
    assert read_manifest(stored).counts["faults"] == 5


def test_path_that_is_not_utf8_is_refused_before_any_work(tmp_path: Path) -> None:
    place = tmp_path / "d" / os.fsdecode(b"\xff\xfe")
    with pytest.raises(TraceError, match="must be UTF-8; nothing was written") as raised:
        TraceWriter(place)
    assert str(raised.value).isprintable()
    assert list(tmp_path.iterdir()) == []


def test_place_that_cannot_be_looked_at_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def iterdir(_: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.raises(TraceError, match=f"{tmp_path}: cannot write the trace: Permission denied"):
        check_place(tmp_path)


def test_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TraceError, match="file/trace: cannot write the trace: Not a directory"):
        write_trace(tmp_path / "file" / "trace", MANIFEST, {})


def test_verdicts_are_put_into_the_manifest(stored: Path) -> None:
    digest = read_manifest(stored).digest
    write_verdicts(stored, {"converges": VerdictRecord("holds", 1, 0)})
    assert read_manifest(stored).verdicts == {"converges": VerdictRecord("holds", 1, 0)}
    assert read_trace(stored).manifest.digest == digest


def test_verdicts_that_cannot_be_written_leave_the_manifest_as_it_was(
    stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bytes = Path.write_bytes

    def write_half(path: Path, data: bytes) -> int:
        write_bytes(path, data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(TraceError, match=r"manifest\.json: cannot write the verdicts: No space left on device"):
        write_verdicts(stored, {"converges": VerdictRecord("holds", 1, 0)})
    check_place(stored)
    assert read_trace(stored).manifest.verdicts == {}


def _edit_manifest(**changes: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit


def _column(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "faults.parquet"
        pq.write_table(change(pq.read_table(path)), path)

    return edit


def _with(**values: object) -> Callable[[pa.Table], pa.Table]:
    """Another value in the last row of some columns."""

    def change(table: pa.Table) -> pa.Table:
        for name, value in values.items():
            type_ = table.schema.field(name).type
            plain = type_.value_type if pa.types.is_dictionary(type_) else type_
            column = table.column(name).cast(plain)[:-1].combine_chunks()
            last = value if isinstance(value, pa.Scalar) else pa.scalar(value, plain)
            column = pa.concat_arrays([column, pa.repeat(last, 1)])
            table = table.set_column(table.column_names.index(name), name, column)
        return table

    return change


def _truncate(folder: Path) -> None:
    path = folder / "faults.parquet"
    path.write_bytes(path.read_bytes()[:-20])


BAD_TRACES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "not a trace, it has no manifest.json"),
    "no file": (lambda folder: (folder / "faults.parquet").unlink(), "faults.parquet: missing from the trace"),
    "empty file": (lambda folder: (folder / "faults.parquet").write_bytes(b""), "faults.parquet: empty file"),
    "truncated": (_truncate, "faults.parquet: not a readable Parquet file"),
    "no parquet": (lambda folder: (folder / "faults.parquet").write_text("hello"), "not a readable Parquet file"),
    "other format": (_edit_manifest(format_version=99), "trace format 99, this code reads format 2"),
    "no format": (_edit_manifest(format_version=None), "trace format None, this code reads format 2"),
    "bad json": (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json: not a manifest"),
    "no object": (lambda folder: (folder / "manifest.json").write_text("[]"), "manifest.json: not a manifest"),
    "not text": (lambda folder: (folder / "manifest.json").write_bytes(b"\xff"), "manifest.json: not a manifest"),
    "bad field": (_edit_manifest(seed="seven"), "manifest.json: not a manifest"),
    "bad topology": (_edit_manifest(topology={"symbols": [], "user_partitions": 1}), "not a manifest"),
    "no column": (_column(lambda table: table.drop_columns(["phase"])), "column phase is missing"),
    "ill typed": (
        _column(lambda table: table.set_column(1, "t", table.column("t").cast(pa.string()))),
        "column t is string, expected int64",
    ),
    "rows lost": (_column(lambda table: table.slice(1)), "4 rows, the manifest counts 5"),
    "other value": (_column(_with(duration_ns=6)), "trace: the digest of its events is not the manifest's"),
    "other text": (_column(_with(detail="?")), "trace: the digest of its events is not the manifest's"),
    "not UTF-8": (_column(_with(detail=pa.scalar(b"\xff").cast(pa.string(), safe=False))), "the digest of its events"),
    "other digest": (_edit_manifest(digest="0" * 32), "the digest of its events is not the manifest's"),
    "no digest": (_edit_manifest(digest=""), "the digest of its events is not the manifest's"),
    "null integer": (_column(_with(duration_ns=None)), "faults.parquet: column duration_ns has nulls"),
    "null text": (_column(_with(target=None)), "faults.parquet: column target has nulls"),
    "null boolean": (_column(_with(has_met=None)), "faults.parquet: column has_met has nulls"),
}


@pytest.mark.parametrize("case", BAD_TRACES)
def test_bad_trace_is_refused_in_one_line(stored: Path, case: str) -> None:
    damage, says = BAD_TRACES[case]
    damage(stored)
    with pytest.raises(TraceError) as raised:
        read_trace(stored)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", sorted(ALL_KINDS))
def test_table_of_nulls_is_refused(tmp_path: Path, kind: str) -> None:
    recorder = Recorder()
    empty = {"int": 0, "str": "", "bool": False, "bytes": None}
    recorder.emitter(kind)(*(empty[type_] for _, type_ in columns_of(kind)[1:]))
    folder = write_trace(tmp_path / "trace", MANIFEST, recorder.tables())
    read_trace(folder)
    table = recorder.table(kind)
    nulls = [pa.nulls(1, field.type) for field in table.schema]
    pq.write_table(pa.Table.from_arrays(nulls, schema=table.schema), file_of(folder, kind))
    with pytest.raises(TraceError, match=rf"{kind}\.parquet: column seq has nulls"):
        read_trace(folder)


def _two_kinds(sink: TraceWriter | None, *, first: int) -> Recorder:
    """Chunks of two kinds, with more texts in the later ones, and bytes that may be missing."""
    recorder = Recorder(sink)
    phases, log = recorder.emitter("phases"), recorder.emitter("kafka_log")
    for n in range(first, first + 2 * CHUNK_ROWS):
        phases(n, "", f"phase {n // 7000}", f"detail {n}")
        if n % 3:
            log(n, f"broker-{n // 9000}", "engine.outputs", 0, n, 1, 2, -1, None if n % 2 else b"k", b"v" * (n % 5))
    recorder.finish()
    return recorder


@pytest.mark.parametrize("rows", [999, CHUNK_ROWS, 5 * CHUNK_ROWS])
def test_digest_is_found_again_in_row_groups_of_any_size(tmp_path: Path, rows: int) -> None:
    writer = TraceWriter(tmp_path / "trace")
    recorder = _two_kinds(writer, first=0)
    folder = writer.finish(_manifest(recorder))
    read_trace(folder)
    for kind in ("phases", "kafka_log"):
        path = file_of(folder, kind)
        pq.write_table(pq.read_table(path), path, row_group_size=rows)
    read_trace(folder)


def test_file_of_another_run_is_told(tmp_path: Path) -> None:
    for first in (0, 1):
        writer = TraceWriter(tmp_path / str(first))
        writer.finish(_manifest(_two_kinds(writer, first=first)))
    file_of(tmp_path / "1", "phases").replace(file_of(tmp_path / "0", "phases"))
    with pytest.raises(TraceError, match="0: the digest of its events is not the manifest's"):
        read_trace(tmp_path / "0")


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="nowhere: no such folder"):
        read_trace(tmp_path / "nowhere")


def test_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TraceError, match="not a folder"):
        read_trace(tmp_path / "file")


def test_trace_is_written_while_its_run_goes_on_and_stands_in_its_place_at_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "trace"
    writer = TraceWriter(folder)
    recorder = Recorder(writer)
    emit = recorder.emitter("phases")
    for n in range(2 * CHUNK_ROWS + 1):
        emit(n, "", "work", "")
    assert not folder.exists()
    recorder.finish()
    writer.finish(_manifest(recorder))
    assert [each.name for each in tmp_path.iterdir()] == ["trace"]
    trace = read_trace(folder)
    assert trace.manifest.counts["phases"] == 2 * CHUNK_ROWS + 1
    assert trace.events("phases", "seq")["seq"].tolist() == list(range(2 * CHUNK_ROWS + 1))
    assert [piece.num_rows for piece in trace.tables.pieces("phases", ["t"])] == [CHUNK_ROWS, CHUNK_ROWS, 1]


def test_full_disk_is_told_when_asked_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = TraceWriter(tmp_path / "trace")
    recorder = Recorder(writer)
    recorder.emitter("phases")(1, "", "work", "")

    def write(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write", write)
    recorder.finish()
    with pytest.raises(TraceError, match="trace: cannot write the trace: No space left on device"):
        writer.check()
    assert list(tmp_path.iterdir()) == []


def test_run_that_ends_badly_leaves_the_trace_that_was_there(stored: Path) -> None:
    writer = TraceWriter(stored)
    Recorder(writer).emitter("phases")(1, "", "work", "")
    writer.abandon()
    assert read_manifest(stored).counts["faults"] == 5
    assert [each.name for each in stored.parent.iterdir()] == ["trace"]


def test_damage_in_the_middle_of_a_file_is_told_when_it_is_read(stored: Path) -> None:
    path = stored / "kafka_log.parquet"
    data = bytearray(path.read_bytes())
    footer = 8 + int.from_bytes(data[-8:-4], "little")
    data[4:-footer] = b"\xff" * (len(data) - footer - 4)
    path.write_bytes(data)
    with pytest.raises(TraceError, match=r"kafka_log\.parquet: not a readable Parquet file"):
        check(read_trace(stored))


def test_one_flipped_bit_is_told_when_it_is_read(stored: Path) -> None:
    path = stored / "kafka_log.parquet"
    data = bytearray(path.read_bytes())
    value = data.index(next(iter(read_trace(stored).events("kafka_log", "value")["value"])))
    data[value] ^= 1
    path.write_bytes(data)
    with pytest.raises(TraceError, match=r"kafka_log\.parquet: not a readable Parquet file: .*CRC"):
        check(read_trace(stored))
