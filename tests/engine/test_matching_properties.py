"""The engine against the naive one, and what must hold of any sequence of inputs."""

from collections import Counter
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.book import Order
from engine.matching import MatchingEngine
from schema.codes import EntryKind, OrderType, Side
from schema.events import EngineOutput, FundEntry, OrderCommand, PlaceOrder, ReplaceOrder
from tests.engine.command_flows import commands
from tests.engine.naive_book import NaiveEngine, Said
from tests.engine.one_partition import TOPOLOGY, Feed

SYMBOLS = TOPOLOGY.symbols
MATCH_LIMIT_HERE = 3
"""Small enough for short flows to meet it."""


def atoms(entry: FundEntry) -> int:
    return entry.available_delta if entry.kind == EntryKind.CREDIT else -entry.locked_delta


def assert_same(output: EngineOutput, said: Said) -> None:
    assert list(output.order_placements) == said.placements
    assert list(output.order_updates) == said.updates
    assert list(output.order_completions) == said.completions
    assert list(output.refusals) == said.refusals
    assert list(output.trades) == said.trades
    assert (output.fund_updates[0].verdict, output.fund_updates[0].reason) == (said.verdict, said.reason)
    assert [update.user_id for update in output.fund_updates] == said.users
    entries = {
        (update.user_id, entry.order_id, entry.asset_id, entry.kind): atoms(entry)
        for update in output.fund_updates
        for entry in update.entries
    }
    assert entries == said.entries
    assert len(entries) == sum(len(update.entries) for update in output.fund_updates)


def lock(command: OrderCommand) -> Counter[tuple[int, int]]:
    """What the balance core locked for a command, by (user, asset)."""
    if not isinstance(command, PlaceOrder | ReplaceOrder):
        return Counter()
    symbol = SYMBOLS.symbols[command.symbol_id]
    if command.side == Side.SELL:
        return Counter({(command.user_id, symbol.base.asset_id): symbol.base_atoms(command.quantity)})
    is_market = isinstance(command, PlaceOrder) and command.order_type == OrderType.MARKET
    amount = command.max_spend if is_market else symbol.quote_atoms(command.price, command.quantity)
    return Counter({(command.user_id, symbol.quote.asset_id): amount})


def needed(orders: list[Order]) -> Counter[tuple[int, int]]:
    total: Counter[tuple[int, int]] = Counter()
    for order in orders:
        symbol = SYMBOLS.symbols[order.symbol_id]
        rest = order.quantity - order.filled_quantity
        if order.side == Side.SELL:
            total[order.user_id, symbol.base.asset_id] += symbol.base_atoms(rest)
        else:
            total[order.user_id, symbol.quote.asset_id] += symbol.quote_atoms(order.price, rest)
    return total


@settings(max_examples=150, deadline=None)
@given(commands())
def test_engine_does_what_the_naive_engine_does(sent: list[OrderCommand]) -> None:
    feed, naive = Feed(), NaiveEngine(SYMBOLS)
    for command in sent:
        assert_same(feed(command), naive.apply(command))
    live = [
        order.order_id for symbol in SYMBOLS for side in Side for order in naive.in_priority(symbol.symbol_id, side)
    ]
    assert [order.order_id for order in feed.engine.open_orders()] == live


@settings(max_examples=75, deadline=None)
@given(commands())
def test_engine_stops_at_the_match_limit_as_the_naive_engine_does(sent: list[OrderCommand]) -> None:
    with patch("engine.matching.MATCH_LIMIT", MATCH_LIMIT_HERE):
        feed, naive = Feed(), NaiveEngine(SYMBOLS, MATCH_LIMIT_HERE)
        for command in sent:
            assert_same(feed(command), naive.apply(command))


@settings(max_examples=75, deadline=None)
@given(commands())
def test_entries_of_one_output_sum_to_zero_per_asset(sent: list[OrderCommand]) -> None:
    feed = Feed()
    for command in sent:
        total: Counter[int] = Counter()
        for update in feed(command).fund_updates:
            for entry in update.entries:
                total[entry.asset_id] += entry.available_delta + entry.locked_delta
                assert atoms(entry) > 0
        assert not any(total.values())


@settings(max_examples=75, deadline=None)
@given(commands())
def test_what_is_locked_is_always_what_the_live_orders_need(sent: list[OrderCommand]) -> None:
    feed = Feed()
    locked: Counter[tuple[int, int]] = Counter()
    for command in sent:
        locked.update(lock(command))
        for update in feed(command).fund_updates:
            for entry in update.entries:
                locked[update.user_id, entry.asset_id] += entry.locked_delta
        assert +locked == needed(list(feed.engine.open_orders()))
        assert min(locked.values(), default=0) >= 0


@settings(max_examples=75, deadline=None)
@given(commands())
def test_every_placed_order_is_live_or_has_one_completion_and_revisions_have_no_gaps(sent: list[OrderCommand]) -> None:
    feed = Feed()
    revisions: dict[tuple[int, int], list[int]] = {}
    completions: Counter[tuple[int, int]] = Counter()
    lives: Counter[int] = Counter()
    for command in sent:
        output = feed(command)
        for placement in output.order_placements:
            lives[placement.order_id] += 1
        for state in (*output.order_placements, *output.order_updates, *output.order_completions):
            # An id whose order has ended may be used again here; the balance core never lets that happen.
            place = (state.order_id, state.created_at_ns)
            revisions.setdefault(place, []).append(state.revision)
        completions.update((state.order_id, state.created_at_ns) for state in output.order_completions)
    live = {(order.order_id, order.created_at_ns) for order in feed.engine.open_orders()}
    if max(lives.values(), default=0) <= 1:
        for place, seen in revisions.items():
            assert sorted(seen) == list(range(1, len(seen) + 1))
            assert completions[place] == (0 if place in live else 1)


@settings(max_examples=75, deadline=None)
@given(commands(), st.data())
def test_engine_restored_from_a_snapshot_goes_on_with_the_same_bytes(
    sent: list[OrderCommand], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(sent)))
    feed = Feed()
    for command in sent[:cut]:
        feed(command)
    snapshot = feed.engine.snapshot()
    restored = Feed(MatchingEngine.restore(TOPOLOGY, 0, snapshot))
    restored.link_seq, restored.offset = feed.link_seq, feed.offset
    assert restored.engine.snapshot() == snapshot
    for command in sent[cut:]:
        assert restored.send(command) == feed.send(command)
    assert restored.engine.snapshot() == feed.engine.snapshot()


@settings(max_examples=30, deadline=None)
@given(commands())
def test_same_inputs_give_the_same_bytes(sent: list[OrderCommand]) -> None:
    first, second = Feed(), Feed()
    assert [first.send(command).value for command in sent] == [second.send(command).value for command in sent]
    assert first.engine.snapshot() == second.engine.snapshot()
