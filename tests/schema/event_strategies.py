"""A Hypothesis strategy for any kind of event, made from the types that its fields declare."""

from types import NoneType, UnionType
from typing import NewType, get_args, get_origin, get_type_hints

import msgspec
from hypothesis import strategies as st

from schema.identifiers import INT64_MAX

_SCALARS: dict[object, st.SearchStrategy[object]] = {
    int: st.one_of(st.integers(-300, 70_000), st.integers(-INT64_MAX - 1, INT64_MAX)),
    str: st.text(max_size=20),
    bool: st.booleans(),
    bytes: st.binary(max_size=40),
    NoneType: st.none(),
}


def values_of(declared: object) -> st.SearchStrategy[object]:
    """Values of a declared type: a scalar, an event, a union, or a tuple of any length."""
    if isinstance(declared, NewType):
        return values_of(declared.__supertype__)
    if declared in _SCALARS:
        return _SCALARS[declared]
    if isinstance(declared, UnionType):
        return st.one_of([values_of(each) for each in get_args(declared)])
    if get_origin(declared) is tuple:
        element, ellipsis = get_args(declared)
        assert ellipsis is ...
        return st.lists(values_of(element), max_size=3).map(tuple)
    assert isinstance(declared, type)
    assert issubclass(declared, msgspec.Struct), declared
    hints = get_type_hints(declared)
    return st.builds(declared, *(values_of(hints[name]) for name in declared.__struct_fields__))
