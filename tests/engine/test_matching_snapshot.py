"""A snapshot is the whole state, or it is refused (design section 4.3.5)."""

import msgspec
import pytest

from engine.matching import MatchingEngine
from engine.matching_snapshot import SnapshotError
from schema.codes import Side
from tests.engine.one_partition import ETH_USD, TOPOLOGY, Feed, cancel, place


def feed_with_orders() -> Feed:
    feed = Feed()
    for number in range(1, 9):
        feed(place(number, 10 + number % 3, Side.BUY, 5, 90 + number % 2, at_ns=1_000 + number))
        feed(place(100 + number, 10 + number % 3, Side.SELL, 5, 95 + number % 2, symbol=ETH_USD))
    return feed


def altered(snapshot: bytes, place_in_state: int, value: object) -> bytes:
    state = msgspec.msgpack.decode(snapshot)
    state[place_in_state] = value
    return msgspec.msgpack.encode(state)


def test_restored_engine_has_the_sequence_hash_time_and_next_offset() -> None:
    engine = feed_with_orders().engine
    restored = MatchingEngine.restore(TOPOLOGY, 0, engine.snapshot())
    for name in ("partition", "output_seq", "last_hash", "time_ns", "next_input_offset"):
        assert getattr(restored, name) == getattr(engine, name) != (None if name == "partition" else 0)


def test_restored_book_keeps_the_queue() -> None:
    feed = feed_with_orders()
    restored = Feed(MatchingEngine.restore(TOPOLOGY, 0, feed.engine.snapshot()))
    restored.link_seq = feed.link_seq
    output = restored(place(500, 50, Side.SELL, 20, 91))
    assert [trade.maker_order_id for trade in output.trades] == [1, 3, 5, 7]


def test_state_reached_another_way_has_the_same_orders_in_its_snapshot() -> None:
    plain, detour = feed_with_orders(), Feed()
    for number in range(200, 280):
        detour(place(number, 10, Side.BUY, 1, number))
    for number in range(200, 280):
        detour(cancel(number, 10))
    detour.engine = MatchingEngine.restore(TOPOLOGY, 0, altered(altered(detour.engine.snapshot(), 6, []), 3, 0))
    for number in range(1, 9):
        detour(place(number, 10 + number % 3, Side.BUY, 5, 90 + number % 2, at_ns=1_000 + number))
        detour(place(100 + number, 10 + number % 3, Side.SELL, 5, 95 + number % 2, symbol=ETH_USD))
    assert msgspec.msgpack.decode(plain.engine.snapshot())[7] == msgspec.msgpack.decode(detour.engine.snapshot())[7]


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x93\x01\x02\x03", b"not a snapshot", b"\xc1" * 40])
def test_bytes_that_are_no_snapshot_are_refused(data: bytes) -> None:
    with pytest.raises(SnapshotError, match="not an engine snapshot"):
        MatchingEngine.restore(TOPOLOGY, 0, data)


def test_truncated_snapshot_is_refused() -> None:
    data = feed_with_orders().engine.snapshot()
    for length in range(len(data)):
        with pytest.raises(SnapshotError):
            MatchingEngine.restore(TOPOLOGY, 0, data[:length])


def test_snapshot_of_another_partition_is_refused() -> None:
    with pytest.raises(SnapshotError, match="partition 1, not of 0"):
        MatchingEngine.restore(TOPOLOGY, 0, MatchingEngine(TOPOLOGY, 1).snapshot())


def test_snapshot_with_impossible_orders_is_refused() -> None:
    snapshot = feed_with_orders().engine.snapshot()
    orders = msgspec.msgpack.decode(snapshot)[7]
    unknown_symbol, overfilled, crossing, sideless = (list(orders[0]) for _ in range(4))
    unknown_symbol[2] = 99
    overfilled[10] = overfilled[9]
    crossing[0], crossing[5], crossing[8] = 999, int(Side.SELL), 1
    sideless[5] = 2
    for bad, complaint in [
        ([unknown_symbol], "symbol 99"),
        ([overfilled], "cannot be resting"),
        ([sideless], "cannot be resting"),
        ([*orders, crossing], "crosses"),
        ([orders[0], orders[0]], "twice"),
    ]:
        with pytest.raises(SnapshotError, match=complaint):
            MatchingEngine.restore(TOPOLOGY, 0, altered(snapshot, 7, bad))
