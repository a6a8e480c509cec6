"""From bound Python values to stored values, with the driver's checks (`cassandra.query.BoundStatement.bind`).

The driver checks by serializing. The usual call binds exact ints and strs to integer and text columns; for it one
`struct.pack` of all integers together checks every range, and nothing is converted. Anything else goes through the
driver's own serializer, value by value, and fails with the driver's own errors.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from cassandra.query import UNSET_VALUE

from sim.cassandra.types import CqlType

Values = tuple[Any, ...]


class BindMarker(NamedTuple):
    """A place for a value: the name and type of its receiver, and whether it is part of the partition key."""

    name: str
    type: CqlType
    in_partition_key: bool = False


def picker(indexes: Sequence[int]) -> Callable[[Values], Values]:
    """Takes those places of a tuple, as a tuple."""
    if not indexes:
        return lambda values: ()
    if len(indexes) == 1:
        only = indexes[0]
        return lambda values: (values[only],)
    if list(indexes) == list(range(indexes[0], indexes[-1] + 1)):
        return itemgetter(slice(indexes[0], indexes[-1] + 1))
    return itemgetter(*indexes)


class Binder:
    """Turns what an application passes for the markers of one statement into a tuple of stored values."""

    def __init__(self, markers: tuple[BindMarker, ...]) -> None:
        self.markers = markers
        kinds = [marker.type for marker in markers]
        self._exact = tuple(str if kind.name == "text" else kind.exact for kind in kinds)
        ranged = [i for i, kind in enumerate(kinds) if kind.pack_code]
        self._ranged = picker(ranged)
        self._pack = struct.Struct(">" + "".join(kinds[i].pack_code for i in ranged)).pack
        self._texts = [i for i, kind in enumerate(kinds) if kind.name == "text"]

    def bind(self, values: Sequence[object] | Mapping[str, object] | None) -> Values:
        """The stored values; UNSET_VALUE stays where it was given or nothing was. Raises as the driver does."""
        bound = self.bind_exact(values)
        return self._bind_each(values) if bound is None else bound

    def bind_exact(self, values: Sequence[object] | Mapping[str, object] | None) -> Values | None:
        """The usual call: every value there, of its column's very type, and in range. None when it is another."""
        if values.__class__ is not tuple:
            if not isinstance(values, (list, tuple)):
                return None
            values = tuple(values)
        if tuple(map(type, values)) == self._exact:
            bound: Values = values
            try:
                self._pack(*self._ranged(bound))
                for i in self._texts:
                    bound[i].encode()
            except struct.error:
                return None
            return bound
        return None

    def _bind_each(self, values: Sequence[object] | Mapping[str, object] | None) -> Values:
        if values is None:
            values = ()
        markers = self.markers
        if isinstance(values, dict):
            values = [values.get(marker.name, UNSET_VALUE) for marker in markers]
        given = list(values)
        if len(given) > len(markers):
            raise ValueError(f"Too many arguments provided to bind() (got {len(given)}, expected {len(markers)})")
        given += [UNSET_VALUE] * (len(markers) - len(given))
        return tuple([_bind_one(value, marker) for value, marker in zip(given, markers, strict=True)])


def _bind_one(value: object, marker: BindMarker) -> Any:
    if value is None:
        return None
    if value is UNSET_VALUE:
        if marker.in_partition_key:
            raise ValueError(f"Cannot bind UNSET_VALUE as a part of the routing key '{marker.name}'")
        return UNSET_VALUE
    try:
        return marker.type.from_bound(value)
    except (TypeError, struct.error) as error:
        raise TypeError(
            f'Received an argument of invalid type for column "{marker.name}". '
            f"Expected: {marker.type.driver}, Got: {type(value)}; ({error})"
        ) from None
