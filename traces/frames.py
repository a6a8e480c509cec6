"""Making DataFrames from columns that are there already.

To judge a small trace is to make some hundred small tables, and pandas' own ways to make one look at every column and
try what it could be: 100 microseconds a column. Here columns of one type are the rows of one block, and nothing is
looked at. Few blocks also make a selection of rows cheap: pandas selects them block by block.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pandas.api.internals import create_dataframe_from_blocks  # type: ignore[import-not-found]

from traces.tables import TEXT


def assembled(
    names: Sequence[str], number_names: Sequence[str], numbers: npt.NDArray[np.int64], others: Mapping[str, Any]
) -> pd.DataFrame:
    """A DataFrame of int64 columns, the rows of a block, and of others: arrays of objects or booleans, texts in Arrow,
    which become TEXT."""
    columns, places = _columns(tuple(names))
    blocks: list[tuple[Any, npt.NDArray[np.intp]]] = []
    if number_names:
        blocks.append((numbers, _at(places, number_names)))
    objects = [name for name, values in others.items() if isinstance(values, np.ndarray) and values.dtype == object]
    if objects:
        block = np.empty((len(objects), numbers.shape[1]), dtype=object)
        for row, name in zip(block, objects, strict=True):
            row[:] = others[name]
        blocks.append((block, _at(places, objects)))
    for name, values in others.items():
        if isinstance(values, (pa.Array, pa.ChunkedArray)):
            blocks.append((pd.array(values, dtype=TEXT), _at(places, [name])))
        elif values.dtype != object:
            blocks.append((values.reshape(1, -1), _at(places, [name])))
    index = pd.RangeIndex(numbers.shape[1])
    frame: pd.DataFrame = create_dataframe_from_blocks(blocks, index=index, columns=columns)
    return frame


def frame_of(columns: Mapping[str, npt.NDArray[Any] | pa.ChunkedArray]) -> pd.DataFrame:
    """A DataFrame of columns of equal length: integers, booleans, objects, or texts in Arrow."""
    numbers = {name: values for name, values in columns.items() if _is_integer(values)}
    others = {name: values for name, values in columns.items() if name not in numbers}
    size = len(next(iter(columns.values())))
    block = np.empty((len(numbers), size), dtype=np.int64)
    for row, values in zip(block, numbers.values(), strict=True):
        row[:] = values
    return assembled([*columns], [*numbers], block, others)


def _is_integer(values: Any) -> bool:
    return isinstance(values, np.ndarray) and values.dtype.kind in "iu"


@cache
def _columns(names: tuple[str, ...]) -> tuple["pd.Index[str]", dict[str, int]]:
    # Names as objects: pandas looks them up three times as quickly as in its own string type.
    return pd.Index(list(names), dtype=object), {name: place for place, name in enumerate(names)}


def _at(places: dict[str, int], names: Sequence[str]) -> npt.NDArray[np.intp]:
    return np.array([places[name] for name in names], dtype=np.intp)
