"""The reference says what the matching rules say; and the engine, written by other rules of thumb, agrees with it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.mini_world import BUY, FOK, GTC, IOC, LIMIT, MARKET, POST_ONLY, SELL, TOPOLOGY, MiniWorld
from engine.matching import MatchingEngine
from schema.codes import Reason, Verdict
from schema.events import PlaceOrder, ReplaceOrder, ValidatedOrder
from schema.identifiers import OrderId, SymbolId, UserId
from schema.topics import VALIDATED_ORDERS
from traces.derived import COMPLETION, PLACEMENT, REFUSAL, UPDATE
from traces.invariants import check_one
from traces.reference import Expected


def _story(world: MiniWorld, order_id: int) -> list[tuple[int, int, int]]:
    """What the reference says of an order: event, reason, filled quantity."""
    expected, _ = world.settle().trace().reference
    events = expected.events[expected.events["order_id"] == order_id]
    return list(zip(events["event"], events["reason"], events["filled_quantity"], strict=True))


def test_resting_order_completes_when_a_taker_fills_it() -> None:
    world = MiniWorld()
    maker = world.place(1, SELL, 100, 3)
    world.place(2, BUY, 100, 1)
    world.place(2, BUY, 100, 2)
    assert _story(world, maker) == [(PLACEMENT, 0, 0), (UPDATE, 0, 1), (COMPLETION, Reason.FILLED, 3)]


def test_older_order_at_a_price_trades_first_and_a_better_price_before_it() -> None:
    world = MiniWorld()
    orders = [world.place(user, SELL, price, 1) for user, price in ((1, 101), (2, 101), (3, 100))]
    world.place(4, BUY, 101, 3)
    expected, _ = world.settle().trace().reference
    assert expected.trades["maker_order_id"].tolist() == [orders[2], orders[0], orders[1]]
    assert expected.trades["price"].tolist() == [100, 101, 101]


def test_partly_filled_order_keeps_its_place() -> None:
    world = MiniWorld()
    first, second = world.place(1, SELL, 100, 2), world.place(2, SELL, 100, 2)
    world.place(3, BUY, 100, 1)
    world.place(3, BUY, 100, 2)
    expected, _ = world.settle().trace().reference
    assert expected.trades["maker_order_id"].tolist() == [first, first, second]


def test_reduced_order_keeps_its_place() -> None:
    world = MiniWorld()
    first = world.place(1, SELL, 100, 5)
    world.place(2, SELL, 100, 5)
    world.reduce(1, first, 1)
    world.place(3, BUY, 100, 1)
    assert _story(world, first)[-1] == (COMPLETION, Reason.FILLED, 1)


@pytest.mark.parametrize("taken", [1, 2], ids=["the replaced order's own", "another live order's"])
def test_replace_to_a_live_id_cancels_the_one_and_refuses_the_other_as_the_engine_does(taken: int) -> None:
    # The balance core lets no such replace pass; the engine does not rely on it.
    commands = [
        *(PlaceOrder(f"p{n}", UserId(1), 7, OrderId(n), SymbolId(1), SELL, LIMIT, GTC, 100, 5, 0) for n in (1, 2)),
        ReplaceOrder("r", UserId(1), 7, OrderId(taken), SymbolId(1), OrderId(1), SELL, GTC, 99, 5),
    ]
    expected = Expected()
    expected.feed(0, TOPOLOGY.symbols, enumerate(commands))
    last = expected.events[expected.events["input_offset"] == 2]
    said = list(zip(last["event"], last["order_id"], last["reason"], strict=True))
    assert said == [(COMPLETION, 1, Reason.REPLACED), (REFUSAL, taken, Reason.DUPLICATE_ORDER_ID)]
    assert expected.outputs["verdict"].tolist()[-1] == Verdict.REFUSED
    engine = MatchingEngine(TOPOLOGY, 0)
    for offset, command in enumerate(commands):
        validated = ValidatedOrder(0, offset + 1, offset + 1, command)
        output, *_ = engine.apply(validated, VALIDATED_ORDERS, 0, offset)
    assert [(each.order_id, each.reason) for each in output.order_completions] == [(1, Reason.REPLACED)]
    assert [(each.order_id, each.reason) for each in output.refusals] == [(taken, Reason.DUPLICATE_ORDER_ID)]


def test_rest_is_cancelled_in_front_of_an_own_order() -> None:
    world = MiniWorld()
    world.place(1, SELL, 100, 1)
    own = world.place(2, SELL, 100, 1)
    taker = world.place(2, BUY, 100, 3)
    assert _story(world, taker)[-1] == (COMPLETION, Reason.SELF_TRADE, 1)
    assert _story(world, own) == [(PLACEMENT, 0, 0)]


def test_market_buy_stops_at_its_spend_limit() -> None:
    world = MiniWorld()
    world.place(1, SELL, 100, 5)
    taker = world.place(2, BUY, 0, 5, order_type=MARKET, tif=IOC, max_spend=250)
    assert _story(world, taker)[-1] == (COMPLETION, Reason.SPEND_LIMIT, 2)


def test_taker_meets_a_thousand_makers() -> None:
    world = MiniWorld()
    for _ in range(1_001):
        world.place(1, SELL, 100, 1)
    killed = world.place(2, BUY, 100, 1_001, tif=FOK)
    taker = world.place(2, BUY, 100, 1_001)
    assert _story(world, killed) == [(REFUSAL, Reason.CANNOT_FILL, 0)]
    assert _story(world, taker)[-1] == (COMPLETION, Reason.MATCH_LIMIT, 1_000)


def test_replace_of_an_ended_order_places_nothing() -> None:
    world = MiniWorld()
    first = world.place(1, SELL, 100, 1)
    world.cancel(1, first)
    second = world.replace(1, first, SELL, 101, 1)
    assert _story(world, second) == [(REFUSAL, Reason.REPLACED_ORDER_NOT_LIVE, 0)]


def test_cancel_of_another_users_order_is_too_late() -> None:
    world = MiniWorld()
    order = world.place(1, SELL, 100, 1)
    assert world.cancel(2, order)["verdict"] == Verdict.TOO_LATE
    assert _story(world, order) == [(PLACEMENT, 0, 0)]


_USER = st.integers(1, 3)
_PRICE, _QUANTITY = st.integers(97, 103), st.integers(1, 6)
_PLACE = st.tuples(
    st.just("place"), _USER, st.sampled_from((BUY, SELL)), _PRICE, _QUANTITY,
    st.sampled_from((GTC, GTC, IOC, FOK, POST_ONLY)),
)  # fmt: skip
_MARKET = st.tuples(
    st.just("market"),
    _USER,
    st.sampled_from((BUY, SELL)),
    st.integers(1, 2_000),
    _QUANTITY,
    st.sampled_from((IOC, FOK)),
)
_OLD = st.integers(1, 12)
_CANCEL = st.tuples(st.just("cancel"), _USER, _OLD)
_REDUCE = st.tuples(st.just("reduce"), _USER, _OLD, _QUANTITY)
_REPLACE = st.tuples(st.just("replace"), _USER, _OLD, st.sampled_from((BUY, SELL)), _PRICE, _QUANTITY)


@settings(max_examples=120, deadline=None)
@given(st.lists(_PLACE | _PLACE | _MARKET | _CANCEL | _REDUCE | _REPLACE, max_size=40))
def test_engine_and_reference_agree_on_any_sequence(commands: list[tuple[int, ...]]) -> None:
    world = MiniWorld()
    for kind, user, *rest in commands:
        match kind:
            case "place":
                side, price, quantity, tif = rest
                world.place(user, side, price, quantity, tif=tif, order_type=LIMIT)
            case "market":
                side, limit, quantity, tif = rest
                spend = limit if side == BUY else 0
                world.place(user, side, 0, quantity, tif=tif, order_type=MARKET, max_spend=spend)
            case "cancel":
                world.cancel(user, rest[0])
            case "reduce":
                world.reduce(user, rest[0], rest[1])
            case "replace":
                world.replace(user, *rest)
    trace = world.settle().trace()
    for invariant in ("lifecycle-matches-reference", "completion-once", "fills-add-up", "funds-conserved"):
        verdict = check_one(trace, invariant)
        assert verdict.violations.to_dict("records") == []
