"""Properties of reconciliation: the state of a row does not depend on the order, or the number, of arrivals."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as hs

from sim.cassandra import statements as st
from sim.cassandra.catalog import ColumnSet
from sim.cassandra.rows import NEVER, NO_DELETION, Deletion, MergedRow, RowWrite, live_cells, merge, same_facts
from sim.cassandra.types import cql_type

INT, TEXT = cql_type(st.TypeName("int", ())), cql_type(st.TypeName("text", ()))
BOTH = ColumnSet(("a", "b"), (INT, TEXT))
ONLY_A = ColumnSet(("a",), (INT,))

writes = hs.builds(
    lambda columns, a, b, timestamp, ttl, now_s, marked: RowWrite(
        (1,), (1,), (1,), columns, (a, b)[: len(columns.names)], timestamp, ttl, now_s, marked
    ),
    hs.sampled_from([BOTH, BOTH, ONLY_A]),
    hs.sampled_from([None, -1, 0, 7]),
    hs.sampled_from([None, "", "x"]),
    hs.integers(1, 3),
    hs.sampled_from([0, 0, 5, 6]),
    hs.integers(100, 102),
    hs.booleans(),
)
deletions = hs.builds(
    lambda timestamp, local_s: MergedRow((1,), (1,), None, Deletion(timestamp, local_s), {}),
    hs.integers(0, 3),
    hs.integers(100, 102),
)
versions = hs.one_of(writes, writes, writes, deletions)


def joined(rows):
    result = rows[0]
    for row in rows[1:]:
        result = merge(result, row)
    return result


@settings(max_examples=300, deadline=None)
@given(hs.lists(versions, min_size=1, max_size=5), hs.randoms(use_true_random=False))
def test_order_and_repetition_do_not_matter(rows, shuffler):
    other = [*rows, *rows]
    shuffler.shuffle(other)
    assert same_facts(joined(rows), joined(other))


@settings(max_examples=300, deadline=None)
@given(hs.lists(versions, min_size=3, max_size=3))
def test_grouping_does_not_matter(rows):
    one, two, three = rows
    assert same_facts(merge(merge(one, two), three), merge(one, merge(two, three)))


@settings(max_examples=300, deadline=None)
@given(hs.lists(writes, min_size=1, max_size=6), hs.integers(100, 110))
def test_whole_row_short_cuts_show_what_the_rules_say(rows, now_s):
    """Against the rules written out once more, naively, for one column and for the row marker."""
    shown = live_cells(joined(rows), NO_DELETION, now_s)

    def rank(row, value):
        """Cassandra's order of cells: timestamp; ends at all; is a tombstone; when it ends; the value's bytes."""
        tombstone = value is None
        ends_s = row.now_s if tombstone else row.expires_s
        ends = ends_s != NEVER
        raw = b"" if tombstone else INT.to_bytes(value)
        return (row.timestamp, ends, tombstone, ends_s if ends else 0, raw)

    best, value = max(((rank(row, row.values[0]), row.values[0]) for row in rows), key=lambda entry: entry[0])
    is_live = value is not None and (not best[1] or now_s < best[3])
    assert (shown is not None and "a" in shown) == is_live
    if is_live:
        assert shown["a"].value == value
        assert shown["a"].timestamp == best[0]
    markers = [(row.timestamp, row.ttl > 0, row.expires_s) for row in rows if row.marked]
    if markers and now_s < max(markers)[2]:
        assert shown is not None
