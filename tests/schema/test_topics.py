"""Where a record belongs is a fixed function of the symbol table and the user id (design section 3)."""

from collections import Counter
from decimal import Decimal

import pytest

from schema import topics
from schema.identifiers import AssetId, SymbolId, UserId
from schema.symbols import Asset, Symbol, SymbolTable
from schema.topics import Topology

BTC, USD = Asset(AssetId(1), "BTC", 8), Asset(AssetId(2), "USD", 6)
TABLE = SymbolTable([Symbol(SymbolId(1), "BTC-USD", BTC, USD, Decimal("0.01"), Decimal("0.0001"), 2)])


def test_partition_of_a_user_can_be_repeated_by_hand() -> None:
    """Pinned: rows, links and locks of a running exchange depend on it."""
    topology = Topology(TABLE, 8)
    assert [topology.user_partition(UserId(user_id)) for user_id in (1, 2, 3, 1_000, 2**63 - 1)] == [1, 2, 4, 1, 6]


def test_users_spread_over_the_partitions() -> None:
    topology = Topology(TABLE, 8)
    counts = Counter(topology.user_partition(UserId(user_id)) for user_id in range(1, 8_001))
    assert sorted(counts) == list(range(8))
    assert max(counts.values()) < 1.1 * min(counts.values())


def test_partition_of_a_symbol_is_the_tables() -> None:
    topology = Topology(TABLE, 8)
    assert topology.symbol_partition(SymbolId(1)) == 2
    with pytest.raises(KeyError):
        topology.symbol_partition(SymbolId(9))


def test_every_topic_has_partitions_and_those_by_user_the_same_number() -> None:
    counts = Topology(TABLE, 8).partitions()
    names = {value for name, value in vars(topics).items() if name.isupper() and isinstance(value, str)}
    assert set(counts) == names
    assert {counts[topic] for topic in topics.TOPICS_BY_USER} == {8}
    assert {counts[topic] for topic in topics.TOPICS_BY_SYMBOL} == {3}
    assert counts[topics.DEAD_LETTERS] == counts[topics.GATEWAY_SESSIONS] == 1


@pytest.mark.parametrize("partitions", [0, -1, 10_001])
def test_number_of_user_partitions_is_bounded(partitions: int) -> None:
    with pytest.raises(ValueError, match="user_partitions"):
        Topology(TABLE, partitions)
