"""Outputs form a chain, inputs a link, and neither may break (design sections 4.1.1 and 4.3)."""

import pytest

from engine.matching import BrokenLinkError, MatchingEngine
from schema.codes import Side
from schema.events import ValidatedOrder
from schema.topics import VALIDATED_ORDERS
from schema.wire import ENGINE_OUTPUT, GENESIS_HASH
from tests.engine.one_partition import TOPOLOGY, Feed, place


def order(link_seq: int, source: int = 0) -> ValidatedOrder:
    return ValidatedOrder(source, link_seq, link_seq, place(100 * source + link_seq, 10, Side.BUY, 1, 100))


def test_each_output_names_the_hash_of_the_one_before() -> None:
    feed = Feed()
    first = feed.send(place(1, 10, Side.BUY, 5, 100))
    second = feed.send(place(2, 20, Side.SELL, 5, 100))
    assert (first.output.output_seq, first.output.prev_hash) == (1, GENESIS_HASH)
    assert (second.output.output_seq, second.output.prev_hash) == (2, first.hash)
    assert (feed.engine.output_seq, feed.engine.last_hash) == (2, second.hash)


def test_record_value_decodes_to_the_output_and_its_hash() -> None:
    feed = Feed()
    feed(place(1, 10, Side.BUY, 5, 100))
    applied = feed.send(place(2, 20, Side.SELL, 5, 100))
    assert ENGINE_OUTPUT.unseal(applied.value) == (applied.output, applied.hash)


@pytest.mark.parametrize(("found", "tells"), [(2, "applied before"), (4, "missing"), (1, "applied before")])
def test_input_that_does_not_continue_its_sources_link_raises_and_changes_nothing(found: int, tells: str) -> None:
    engine = MatchingEngine(TOPOLOGY, 0)
    for link_seq in (1, 2):
        engine.apply(order(link_seq), VALIDATED_ORDERS, 0, link_seq)
    before = engine.snapshot()
    with pytest.raises(BrokenLinkError, match=tells) as caught:
        engine.apply(order(found), VALIDATED_ORDERS, 0, 9)
    assert (caught.value.source_partition, caught.value.expected, caught.value.found) == (0, 3, found)
    assert engine.snapshot() == before
    engine.apply(order(3), VALIDATED_ORDERS, 0, 9)


def test_each_source_has_a_link_of_its_own() -> None:
    engine = MatchingEngine(TOPOLOGY, 0)
    for offset, each in enumerate([order(1, 0), order(1, 2), order(2, 2), order(2, 0)]):
        engine.apply(each, VALIDATED_ORDERS, 0, offset)
    assert engine.output_seq == 4
