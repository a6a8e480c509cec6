"""Tables made block by block are what pandas would have made of the same columns."""

import numpy as np
import pandas as pd
import pyarrow as pa

from traces.frames import frame_of
from traces.matching_rows import array, ints, renamed
from traces.recorder import Recorder
from traces.tables import TEXT
from traces.verdicts import Findings

COLUMNS = {
    "topic": np.array(["a", "b", "a"], dtype=object),
    "offset": np.array([3, 1, 2]),
    "is_maker": np.array([True, False, True]),
    "request_id": pa.chunked_array([["x", "y"], ["z"]], pa.large_string()),
    "sequence": np.array([7, 8, 9], dtype=np.int64),
}


def test_a_frame_of_columns_is_what_pandas_makes_of_them() -> None:
    plain = pd.DataFrame(
        {
            "topic": pd.Series(["a", "b", "a"], dtype=object),
            "offset": [3, 1, 2],
            "is_maker": [True, False, True],
            "request_id": pd.Series(["x", "y", "z"], dtype=TEXT),
            "sequence": [7, 8, 9],
        }
    )
    plain.columns = plain.columns.astype(object)
    pd.testing.assert_frame_equal(frame_of(COLUMNS), plain)


def test_a_column_is_read_as_pandas_gives_it() -> None:
    frame = frame_of(COLUMNS)
    for name in COLUMNS:
        assert array(frame, name).tolist() == frame[name].tolist()
    assert ints(frame, "is_maker").tolist() == [1, 0, 1]


def test_renaming_leaves_the_first_frame_alone() -> None:
    frame = frame_of(COLUMNS)
    assert list(renamed(frame, offset="place"))[1] == "place"
    assert list(frame)[1] == "offset"


def test_findings_name_the_rows_that_are_wrong_with_what_is_shown_beside() -> None:
    found = Findings()
    found.where("late", frame_of(COLUMNS), np.array([False, True, True]), "topic", seen=np.array([10, 20, 30]))
    found.where("early", frame_of(COLUMNS), np.array([False, False, False]), "topic")
    assert found.verdict.violations.to_dict("list") == {
        "what": ["late", "late"],
        "topic": ["b", "a"],
        "seen": [20, 30],
    }


def test_tables_that_were_given_away_outlive_their_recorder() -> None:
    recorder = Recorder()
    recorder.emitter("phases")(5, "", "work", "")
    digest = recorder.digest()
    recorder.finish()
    tables = recorder.tables()
    recorder.release()
    assert tables["phases"].column("t").to_pylist() == [5]
    assert (recorder.digest(), recorder.counts()["phases"]) == (digest, 1)
