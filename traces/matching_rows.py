"""Joining tables by key, with numpy: the few relational steps that the invariants need.

A pandas merge costs milliseconds however small its tables are, and a campaign judges hundreds of small traces. Here a
key of any columns becomes one small integer per row, and everything else is an index into an array.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def array(frame: pd.DataFrame, column: str) -> npt.NDArray[Any]:
    """A column to be read: integers, booleans, or texts as objects."""
    found: npt.NDArray[Any] = _stored(frame, column)
    return found if isinstance(found, np.ndarray) else found.to_numpy(dtype=object)


def _stored(frame: pd.DataFrame, column: str) -> Any:
    """A column's array as the frame holds it: numpy's, or that of an extension type."""
    # What `frame[column].array` gives, without the Series that is thrown away at once: judging a small trace asks for
    # two thousand columns, at 20 microseconds or at 2. Pandas itself goes this way to iterate over columns.
    return frame._get_column_array(frame.columns.get_loc(column))  # type: ignore[operator]


def ints(frame: pd.DataFrame, column: str) -> Ints:
    """An integer column."""
    found: Ints = array(frame, column).astype(np.int64, copy=False)
    return found


def texts(frame: pd.DataFrame, column: str) -> pa.ChunkedArray:
    """A column of texts as Arrow has it."""
    return _texts(_stored(frame, column))


def is_any(frame: pd.DataFrame, column: str, *wanted: str) -> Mask:
    """Which rows have one of these texts in a column of few different ones."""
    column_texts = array(frame, column)
    found = np.zeros(len(frame), dtype=bool)
    for text in wanted:
        found |= column_texts == text
    return found


def rows(frame: pd.DataFrame, selected: Mask) -> pd.DataFrame:
    """The rows for which the mask is true."""
    # Mostly it is true of none, of all, or of one stretch: a view. A real selection copies every column.
    total = int(np.count_nonzero(selected))
    if total == len(frame):
        return frame
    first = int(np.argmax(selected)) if total else 0
    together = bool(np.all(selected[first : first + total]))
    found: pd.DataFrame = frame.iloc[first : first + total] if together else frame.iloc[np.flatnonzero(selected)]
    return found


def codes(key: Sequence[str], *frames: pd.DataFrame) -> tuple[list[Ints], int]:
    """A small integer for each row of each frame, the same for rows with the same key, and a bound of them: at most a
    few times the number of rows."""
    lengths = [len(frame) for frame in frames]
    total = sum(lengths)
    combined: Ints = np.zeros(total, dtype=np.int64)
    if not total:
        return [combined] * len(frames), 1
    size = 1
    for column in key:
        arrays = [_stored(frame, column) for frame in frames]
        if any(isinstance(each.dtype, pd.StringDtype) for each in arrays):
            code, span = _numbered_texts([_texts(each) for each in arrays])
        else:
            code, span = _numbered(arrays[0] if len(arrays) == 1 else np.concatenate(arrays))
        if size > _COMBINED_MAX // span:
            combined, size = _compact(combined)
            if size > _COMBINED_MAX // span:
                code, span = _compact(code)
        combined, size = combined * span + code, size * span
    if size > _SPARSE_MAX * total + _SPARSE_MAX:
        combined, size = _compact(combined)
    ends = list(accumulate(lengths))
    return [combined[end - length : end] for length, end in zip(lengths, ends, strict=True)], size


_COMBINED_MAX: Final = 1 << 62
"""So many combinations of columns can be told apart in an integer."""
_SPARSE_MAX: Final = 4
"""So many times as many numbers as rows are no waste: cheaper than numbering anew."""


def _numbered(keys: npt.NDArray[Any]) -> tuple[Ints, int]:
    """Integers from 0 that tell the values apart, and a bound of them. Those of integers are not without gaps."""
    if keys.dtype.kind == "O" or not len(keys):
        return _compact(keys)
    low, high = int(keys.min()), int(keys.max())
    if high - low >= _COMBINED_MAX:
        return _compact(keys)
    return keys.astype(np.int64) - low, high - low + 1


def _numbered_texts(columns: Sequence[pa.ChunkedArray]) -> tuple[Ints, int]:
    together = pa.chunked_array([chunk for each in columns for chunk in each.chunks], pa.large_string())
    numbered = together.dictionary_encode().combine_chunks()
    # Of several chunks or of none, Arrow may make a chunked array of one.
    numbered = numbered.chunk(0) if isinstance(numbered, pa.ChunkedArray) else numbered
    return numbered.indices.to_numpy().astype(np.int64), max(len(numbered.dictionary), 1)


def _compact(values: npt.NDArray[Any]) -> tuple[Ints, int]:
    code, unique = pd.factorize(values)
    return code.astype(np.int64), max(len(unique), 1)


def renamed(frame: pd.DataFrame, **columns: str) -> pd.DataFrame:
    """The same rows with other names for some columns: the old name = the new one."""
    # `DataFrame.rename` costs half a millisecond.
    found = frame.copy(deep=False)
    found.columns = pd.Index([columns.get(name, name) for name in frame.columns], dtype=object)
    return found


def is_in(frame: pd.DataFrame, other: pd.DataFrame, key: Sequence[str]) -> Mask:
    """Which rows of `frame` have a row with the same key in `other`."""
    (mine, theirs), size = codes(key, frame, other)
    present = np.zeros(size, dtype=bool)
    present[theirs] = True
    found: Mask = present[mine]
    return found


def is_first(mine: Ints, size: int) -> Mask:
    """Which rows are the first with their code, of codes below `size`."""
    found: Mask = first_places(mine, size)[mine] == np.arange(len(mine))
    return found


def first_places(mine: Ints, size: int) -> Ints:
    """For each code below `size` the place of the first row that has it, -1 where none has."""
    first = np.full(size, -1, dtype=np.int64)
    first[mine[::-1]] = np.arange(len(mine) - 1, -1, -1)
    return first


def repeated(frame: pd.DataFrame, key: Sequence[str]) -> Mask:
    """Which rows share their key with another row."""
    (mine,), size = codes(key, frame)
    found: Mask = (np.bincount(mine, minlength=size) > 1)[mine]
    return found


def find(wanted: Ints, keys: Ints) -> Ints:
    """For each wanted value the position of (one of) its equals in `keys`, -1 where there is none."""
    if len(keys) == 0:
        return np.full(len(wanted), -1, dtype=np.int64)
    order = np.argsort(keys, kind="stable")
    at = np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)
    return np.where(keys[order[at]] == wanted, order[at], -1)


def count(wanted: Ints, values: Ints) -> Ints:
    """How often each wanted value occurs in `values`."""
    ordered = np.sort(values)
    return np.searchsorted(ordered, wanted, side="right") - np.searchsorted(ordered, wanted)


def group_sums(group: Ints, size: int, values: Ints) -> Ints:
    """The exact integer sum of `values` in each of the groups 0 .. size - 1."""
    sums = np.zeros(size, dtype=np.int64)
    np.add.at(sums, group, values)
    return sums


@dataclass(frozen=True)
class Comparison:
    """How two tables differ that should be the same, row by row of a key."""

    missing: pd.DataFrame
    """Rows that were expected and are not there."""
    unexpected: pd.DataFrame
    """Rows that are there and were not expected."""
    repeated: pd.DataFrame
    """Rows that are there more than once."""
    differing: pd.DataFrame
    """Rows that are there with another content; `differs` tells in which columns, expected and found."""
    matched: int
    """How many rows were compared column by column."""


def compare(expected: pd.DataFrame, actual: pd.DataFrame, key: Sequence[str], columns: Sequence[str]) -> Comparison:
    """Compare two tables by key. The key of an expected row occurs once; an actual row may be there repeatedly."""
    (wanted, found), size = codes(key, expected, actual)
    return compare_numbered(expected, actual, wanted, found, size, columns)


def compare_numbered(
    expected: pd.DataFrame, actual: pd.DataFrame, wanted: Ints, found: Ints, size: int, columns: Sequence[str]
) -> Comparison:
    """`compare` for tables whose keys have been numbered: `wanted` and `found` are their rows' codes below `size`."""
    position = np.full(size, -1, dtype=np.int64)
    position[wanted] = np.arange(len(wanted))
    partner = position[found]
    present = np.zeros(size, dtype=bool)
    present[found] = True
    times = np.bincount(found, minlength=size)
    both = partner >= 0
    # The usual case, everything at its place, needs no gathering of rows.
    aligned = len(wanted) == len(found) and bool((partner == np.arange(len(found))).all())
    wrong = np.zeros(len(found), dtype=bool)
    unequal: dict[str, Mask] = {}
    for column in columns:
        if _is_text(expected, column):
            mine, theirs = _texts(_stored(actual, column)), _texts(_stored(expected, column))
            differs = _differing_texts(mine, theirs, partner, both)
        elif aligned:
            mine, theirs = array(actual, column), array(expected, column)
            differs = mine != theirs
        else:
            mine, theirs = array(actual, column), array(expected, column)
            differs = np.zeros(len(found), dtype=bool)
            differs[both] = mine[both] != theirs[partner[both]]
        if differs.any():
            unequal[column] = differs
            wrong |= differs
    differing = rows(actual, wrong)
    if len(differing):
        differing = differing.assign(
            differs=[
                ", ".join(
                    f"{column} {expected[column].iloc[partner[at]]} expected, {actual[column].iloc[at]} found"
                    for column, differs in unequal.items()
                    if differs[at]
                )
                for at in np.flatnonzero(wrong)
            ]
        )
    return Comparison(
        missing=rows(expected, ~present[wanted]),
        unexpected=rows(actual, ~both),
        repeated=rows(actual, times[found] > 1),
        differing=differing,
        matched=int(both.sum()),
    )


def _is_text(frame: pd.DataFrame, column: str) -> bool:
    return isinstance(_stored(frame, column).dtype, pd.StringDtype)


def _texts(found: Any) -> pa.ChunkedArray:
    """A column's array of texts as Arrow has it."""
    column = pa.array(found, pa.large_string()) if isinstance(found, np.ndarray) else pa.array(found)
    return column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])


def _differing_texts(mine: pa.ChunkedArray, theirs: pa.ChunkedArray, partner: Ints, both: Mask) -> Mask:
    """Which of my texts have a partner among theirs with another text."""
    differs = np.zeros(len(mine), dtype=bool)
    differs[both] = pc.not_equal(mine.filter(pa.array(both)), theirs.take(partner[both])).to_numpy()
    return differs
