import pytest

from schema.symbols import SymbolError, amount_atoms
from sim.flows.market import make_topology
from sim.flows.operations import CANCEL, DEPOSIT, PLACE, RAW, READ, REDUCE, REPLACE, WITHDRAW, Operation
from sim.flows.request_form import request_fields
from sim.flows.synthetic import synthetic_flow
from sim.randomness import Randomness

SYMBOLS = make_topology(8, 3, 2).symbols


def test_a_limit_order() -> None:
    operation = Operation(0, 4, PLACE, "a", symbol="BTC-USDT", side=1, time_in_force=3, price=600_001, quantity=5)
    assert request_fields(operation, SYMBOLS) == {
        "type": "place",
        "user_id": 4,
        "client_order_id": "a",
        "symbol": "BTC-USDT",
        "side": "sell",
        "order_type": "limit",
        "time_in_force": "post_only",
        "price": "60000.1",
        "quantity": "0.0005",
    }


def test_a_market_buy_has_no_price_but_a_limit_to_spend() -> None:
    operation = Operation(
        0, 4, PLACE, "a", symbol="BTC-USDT", order_type=0, time_in_force=1, quantity=5, max_spend=1_500_000
    )
    fields = request_fields(operation, SYMBOLS)
    assert "price" not in fields
    assert fields["max_spend"] == "1.500000"


def test_requests_about_an_order_name_it_by_its_id() -> None:
    cancel = request_fields(Operation(0, 4, CANCEL, "x", symbol="BTC-USDT", reference="a"), SYMBOLS, 77)
    reduce = request_fields(Operation(0, 4, REDUCE, "x", symbol="BTC-USDT", reference="a", quantity=3), SYMBOLS, 77)
    replace = request_fields(
        Operation(0, 4, REPLACE, "x", symbol="BTC-USDT", reference="a", price=3, quantity=3), SYMBOLS, 77
    )
    assert (cancel["order_id"], reduce["order_id"], replace["replaced_order_id"]) == (77, 77, 77)
    assert cancel["request_id"] == reduce["request_id"] == replace["request_id"] == "x"


def test_numbers_survive_being_written_as_decimals() -> None:
    flow = synthetic_flow(Randomness(3), make_topology(8, 3, 2), orders=500, users=6, duration_ns=10**10)
    for operation in flow:
        if operation.kind in (READ, RAW):
            continue
        fields = request_fields(operation, SYMBOLS, 1)
        if operation.kind in (DEPOSIT, WITHDRAW):
            assert amount_atoms(SYMBOLS.asset_named(operation.asset), str(fields["amount"])) == operation.amount
            continue
        symbol = SYMBOLS.named(operation.symbol)
        if operation.price:
            assert symbol.price_ticks(str(fields["price"])) == operation.price
        if operation.quantity:
            assert symbol.quantity_lots(str(fields["quantity"])) == operation.quantity
        if operation.max_spend:
            assert symbol.quote_amount(str(fields["max_spend"])) == operation.max_spend


def test_reads_and_raw_requests_have_no_such_form() -> None:
    with pytest.raises(ValueError, match="a read is not written as a request"):
        request_fields(Operation(0, 1, READ, "q", query="balances"), SYMBOLS)


def test_an_unknown_symbol_has_no_such_form() -> None:
    with pytest.raises(SymbolError, match="unknown symbol"):
        request_fields(Operation(0, 1, CANCEL, "q", symbol="GOLD"), SYMBOLS)
