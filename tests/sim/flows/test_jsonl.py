import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schema.codes import OrderType, Side, TimeInForce
from sim.flows.operations import CANCEL, DEPOSIT, PLACE, READ, REDUCE, REPLACE, WITHDRAW
from sim.flows.recorded import RecordedFlow, load_flow
from sim.flows.report import FlowError

Body = dict[str, object]
Load = Callable[..., RecordedFlow]

PLACED: Body = {
    "type": "place",
    "user_id": 3,
    "client_order_id": "a",
    "symbol": "BTC-USDT",
    "side": "buy",
    "order_type": "limit",
    "time_in_force": "gtc",
    "price": "60000.1",
    "quantity": "0.5",
}


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load_lines(*lines: object) -> RecordedFlow:
        path = tmp_path / "flow"
        path.write_bytes(
            b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
        )
        return load_flow(path)

    return load_lines


def test_a_request_in_the_gateways_form_is_taken_as_it_is(load: Load) -> None:
    deposit, order = load(PLACED).operations
    assert (order.kind, order.user_id, order.request_id, order.symbol) == (PLACE, 3, "a", "BTC-USDT")
    assert (order.side, order.order_type, order.time_in_force) == (Side.BUY, OrderType.LIMIT, TimeInForce.GTC)
    assert (order.price, order.quantity) == (600_001, 5_000)
    # 60000.1 * 0.5 USDT with 6 decimals.
    assert (deposit.kind, deposit.asset, deposit.amount) == (DEPOSIT, "USDT", 30_000_050_000)


def test_later_requests_name_an_order_by_its_client_order_id(load: Load) -> None:
    flow = load(
        PLACED,
        {"type": "reduce", "user_id": 3, "symbol": "BTC-USDT", "client_order_id": "a", "quantity": "0.1"},
        {
            "type": "replace",
            "user_id": 3,
            "request_id": "b",
            "replaced_client_order_id": "a",
            "symbol": "BTC-USDT",
            "side": "buy",
            "price": "59000",
            "quantity": "0.2",
        },
        {"type": "cancel", "user_id": 3, "symbol": "BTC-USDT", "client_order_id": "b"},
        {"type": "withdraw", "user_id": 3, "request_id": "w", "asset": "USDT", "amount": "1.5"},
        {"type": "read", "user_id": 3, "query": "active_orders", "limit": 5},
    )
    kinds = [(each.kind, each.reference) for each in flow.operations if each.kind != DEPOSIT]
    assert kinds == [(PLACE, ""), (REDUCE, "a"), (REPLACE, "a"), (CANCEL, "b"), (WITHDRAW, ""), (READ, "")]
    assert flow.report.messages_not_applied == 0


def test_a_market_buy_has_its_spend_limit(load: Load) -> None:
    order = load({**PLACED, "order_type": "market", "time_in_force": "ioc", "max_spend": "100"}).operations[-1]
    assert (order.order_type, order.price, order.max_spend) == (OrderType.MARKET, 0, 100_000_000)


def test_times_are_kept_and_lines_without_one_follow_a_millisecond_later(load: Load) -> None:
    flow = load({**PLACED, "at_ns": 5_000}, {**PLACED, "client_order_id": "b"}, {**PLACED, "at_ns": 2_000_000_000})
    first, second, third = (each.at_ns for each in flow.operations if each.kind == PLACE)
    assert (second - first, third - first) == (1_000_000, 1_999_995_000)


def test_a_file_with_deposits_gets_no_others(load: Load) -> None:
    flow = load({"type": "deposit", "user_id": 3, "request_id": "d", "asset": "USDT", "amount": "10"}, PLACED)
    assert [each.kind for each in flow.operations] == [DEPOSIT, PLACE]


def test_the_first_line_may_describe_the_market(load: Load) -> None:
    market = {
        "type": "market",
        "assets": [{"name": "X", "decimals": 2}, {"name": "Y", "decimals": 3}],
        "symbols": [{"name": "X/Y", "base": "X", "quote": "Y", "tick_size": "0.1", "lot_size": "0.01"}],
    }
    flow = load(market, {**PLACED, "symbol": "X/Y", "price": "1.5", "quantity": "2"})
    assert flow.operations[-1].price == 15
    assert [symbol.name for symbol in flow.topology.symbols] == ["X/Y"]


@pytest.mark.parametrize(
    "change",
    [
        {"assets": []},
        {"symbols": []},
        {"symbols": 5},
        {"assets": [{"name": "X", "decimals": 99}, {"name": "Y", "decimals": 3}]},
        {"symbols": [{"name": "X/Y", "base": "X", "quote": "Y", "tick_size": "1e-999999999", "lot_size": "1"}]},
        {"symbols": [{"name": "X/Y", "base": "X", "quote": "Y", "tick_size": "0.00001", "lot_size": "0.01"}]},
        {"symbols": [{"name": "X/Y", "base": "X", "quote": "Y", "tick_size": "zero", "lot_size": "1"}]},
    ],
)
def test_a_market_that_cannot_be_is_refused(load: Load, change: Body) -> None:
    market: Body = {
        "type": "market",
        "assets": [{"name": "X", "decimals": 2}, {"name": "Y", "decimals": 3}],
        "symbols": [{"name": "X/Y", "base": "X", "quote": "Y", "tick_size": "0.1", "lot_size": "0.01"}],
    }
    with pytest.raises(FlowError, match="line 1: the market cannot be used"):
        load({**market, **change}, PLACED)


def test_a_market_after_the_first_request_is_refused(load: Load) -> None:
    with pytest.raises(FlowError, match="line 2: the market must be described in the first line"):
        load(PLACED, {"type": "market"})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"symbol": "GOLD"}, "unknown symbol"),
        ({"price": "0"}, "unusable price"),
        ({"price": "-1"}, "unusable price"),
        ({"price": "0.01"}, "unusable price"),
        ({"price": 60000}, "unusable price"),
        ({"price": "1e999999999"}, "unusable price"),
        ({"quantity": "NaN"}, "unusable quantity"),
        ({"side": "short"}, "unusable side"),
        ({"side": []}, "unusable side"),
        ({"time_in_force": "day"}, "unusable time_in_force"),
        ({"user_id": "3"}, "unusable user_id"),
        ({"user_id": True}, "unusable user_id"),
        ({"user_id": 2**63}, "unusable user_id"),
        ({"at_ns": -1}, "unusable at_ns"),
        ({"client_order_id": ""}, "unusable client_order_id"),
        ({"client_order_id": "x" * 500}, "unusable client_order_id"),
        ({"order_type": "market", "max_spend": "0"}, "unusable max_spend"),
        ({"price": "9" * 15, "quantity": "9" * 10}, "funds would not fit 64 bits"),
        ({"type": "short"}, "unknown type of request"),
        ({"type": "cancel", "client_order_id": "zz"}, "names an order that is not there"),
        ({"type": "replace", "order_id": 5}, "names an order by its id in another run"),
        ({"type": "deposit", "asset": "GOLD"}, "unknown asset"),
        ({"type": "read", "query": "everything"}, "unusable query"),
    ],
)
def test_a_request_that_cannot_be_used_is_counted_with_its_reason(load: Load, change: Body, reason: str) -> None:
    flow = load(PLACED, {**PLACED, "client_order_id": "b", **change})
    assert flow.report.messages_not_applied == 1
    assert flow.report.not_applied_for(reason) == 1
    assert sum(each.kind == PLACE for each in flow.operations) == 1


@pytest.mark.parametrize("line", [b"{", b'{"type": 5}', b"[]", b"null", b'{"a": 1}', b"\xff\xfe", b'{"type":"place"'])
def test_a_line_that_is_no_request_is_named(load: Load, line: bytes) -> None:
    with pytest.raises(FlowError, match="line 2: ") as caught:
        load(PLACED, line)
    assert "\n" not in str(caught.value)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


@given(
    changes=st.lists(
        st.dictionaries(st.sampled_from([*PLACED, "at_ns", "asset", "limit"]), _JSON, max_size=3), max_size=4
    ),
    cut=st.integers(0, 50),
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_fields_cut_anywhere_give_a_flow_or_one_clear_line(load: Load, changes: list[Body], cut: int) -> None:
    complaint = ""
    text = b"\n".join(json.dumps({**PLACED, **change}).encode() for change in changes)
    try:
        report = load(text[: len(text) - cut] if cut else text).report
    except FlowError as error:
        complaint = str(error)
    else:
        assert report.messages <= len(changes)
    assert "\n" not in complaint
