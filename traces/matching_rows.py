"""Joining tables by key, with numpy: the few relational steps that the invariants need.

A pandas merge costs milliseconds however small its tables are, and a campaign judges hundreds of small traces. Here a
key of any columns becomes one small integer per row, and everything else is an index into an array.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def ints(frame: pd.DataFrame, column: str) -> Ints:
    """An integer column."""
    values: Ints = frame[column].to_numpy(dtype=np.int64)
    return values


def rows(frame: pd.DataFrame, selected: Mask) -> pd.DataFrame:
    """The rows for which the mask is true."""
    # Mostly it is true of none, or of all; a real selection copies every column.
    count = int(np.count_nonzero(selected))
    if count == len(frame):
        return frame
    found: pd.DataFrame = frame.loc[selected] if count else frame.iloc[:0]
    return found


def codes(key: Sequence[str], *frames: pd.DataFrame) -> tuple[list[Ints], int]:
    """A small integer for each row of each frame, the same for rows with the same key, and how many keys there are."""
    lengths = [len(frame) for frame in frames]
    combined: Ints | None = None
    size = 1
    for column in key:
        values = np.concatenate([_values(frame, column) for frame in frames])
        code, unique = pd.factorize(values)
        if combined is None:
            combined, size = code.astype(np.int64), len(unique)
        else:
            # Factorized again after each column, so that the product can never overflow.
            combined, distinct = pd.factorize(combined * max(len(unique), 1) + code)
            combined, size = combined.astype(np.int64), len(distinct)
    assert combined is not None
    ends = np.cumsum(lengths)[:-1]
    return list(np.split(combined, ends)), size


def is_in(frame: pd.DataFrame, other: pd.DataFrame, key: Sequence[str]) -> Mask:
    """Which rows of `frame` have a row with the same key in `other`."""
    (mine, theirs), size = codes(key, frame, other)
    present = np.zeros(size, dtype=bool)
    present[theirs] = True
    found: Mask = present[mine]
    return found


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
        mine, theirs = _values(actual, column), _values(expected, column)
        if aligned:
            differs = mine != theirs
        else:
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


def _values(frame: pd.DataFrame, column: str) -> npt.NDArray[Any]:
    series = frame[column]
    if series.dtype.kind in "iub":
        return series.to_numpy()
    return series.to_numpy(dtype=object)
