"""An operation in the gateway's own request form: what the client really sends (design 4.7).

Prices, quantities and amounts are decimal texts there, so the gateway's arithmetic is part of every run.
"""

from typing import Final

from schema.codes import OrderType, Side, TimeInForce
from schema.symbols import SymbolTable, amount_text
from sim.flows.operations import CANCEL, DEPOSIT, PLACE, REDUCE, REPLACE, WITHDRAW, Operation

_SIDES: Final = {int(side): side.name.lower() for side in Side}
_ORDER_TYPES: Final = {int(kind): kind.name.lower() for kind in OrderType}
_TIMES_IN_FORCE: Final = {int(kind): kind.name.lower() for kind in TimeInForce}


def request_fields(operation: Operation, symbols: SymbolTable, order_id: int = 0) -> dict[str, object]:
    """The fields of the request. `order_id` is the order to cancel, reduce or replace.

    Raises ValueError for an operation that is no request (a read, or a raw one, which is its own text), SymbolError for
    a symbol or asset that is not in the table.
    """
    kind = operation.kind
    fields: dict[str, object] = {"type": kind, "user_id": operation.user_id}
    if kind in (DEPOSIT, WITHDRAW):
        fields["request_id"] = operation.request_id
        fields["asset"] = operation.asset
        fields["amount"] = amount_text(symbols.asset_named(operation.asset), operation.amount)
        return fields
    if kind not in (PLACE, CANCEL, REDUCE, REPLACE):
        raise ValueError(f"a {kind} is not written as a request")
    symbol = symbols.named(operation.symbol)
    fields["symbol"] = operation.symbol
    if kind == CANCEL:
        fields["request_id"] = operation.request_id
        fields["order_id"] = order_id
        return fields
    fields["quantity"] = symbol.quantity_text(operation.quantity)
    if kind == REDUCE:
        fields["request_id"] = operation.request_id
        fields["order_id"] = order_id
        return fields
    fields["side"] = _SIDES[operation.side]
    fields["time_in_force"] = _TIMES_IN_FORCE[operation.time_in_force]
    if operation.price:
        fields["price"] = symbol.price_text(operation.price)
    if kind == REPLACE:
        fields["request_id"] = operation.request_id
        fields["replaced_order_id"] = order_id
        return fields
    fields["client_order_id"] = operation.request_id
    fields["order_type"] = _ORDER_TYPES[operation.order_type]
    if operation.max_spend:
        fields["max_spend"] = amount_text(symbol.quote, operation.max_spend)
    return fields
