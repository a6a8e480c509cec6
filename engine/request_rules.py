"""Which requests can be accepted at all, and what they lock: pure functions of the request and the symbol table.

Nothing here knows a balance. Codes and combinations are those of design 4.1.6, locks those of design 4.2.1, and every
amount that could reach a signed 64-bit column is bounded before it is computed with (design 4).
"""

from typing import Final

import msgspec

from schema import wire
from schema.codes import OrderType, Reason, Side, TimeInForce
from schema.events import AnyRequest, CancelOrder, Deposit, PlaceOrder, ReduceOrder, ReplaceOrder, Withdraw
from schema.identifiers import INT64_MAX, MAX_REQUEST_ID_BYTES, NO_ORDER, AssetId, OrderId
from schema.symbols import Symbol, SymbolTable
from schema.topics import Topology

MAX_REQUEST_BYTES: Final = 2048
"""No request is longer: the largest is eleven integers and a request id. A longer record is no request, and must not be
copied into a balance event that would then be too large to send."""

_INT32_MAX: Final = 2**31 - 1
_BUY: Final = int(Side.BUY)
_SELL: Final = int(Side.SELL)
_MARKET: Final = int(OrderType.MARKET)
_LIMIT: Final = int(OrderType.LIMIT)
_IOC: Final = int(TimeInForce.IOC)
_FOK: Final = int(TimeInForce.FOK)
_LAST_TIME_IN_FORCE: Final = int(TimeInForce.POST_ONLY)
_NO_ASSET: Final = AssetId(0)

_NONE: Final = int(Reason.NONE)
_UNKNOWN_SYMBOL: Final = int(Reason.UNKNOWN_SYMBOL)
_UNKNOWN_ASSET: Final = int(Reason.UNKNOWN_ASSET)
_INVALID_PRICE: Final = int(Reason.INVALID_PRICE)
_INVALID_QUANTITY: Final = int(Reason.INVALID_QUANTITY)
_INVALID_AMOUNT: Final = int(Reason.INVALID_AMOUNT)
_INVALID_COMBINATION: Final = int(Reason.INVALID_COMBINATION)
_INVALID_IDENTIFIER: Final = int(Reason.INVALID_IDENTIFIER)
_OVERFLOW: Final = int(Reason.OVERFLOW)


Demand = tuple[int, AssetId, int]
"""What a request needs before it can be accepted: (reason, asset, atoms to lock).

The reason is a Reason, NONE when nothing speaks against it. A cancel or reduce locks 0 atoms; for a deposit or a
withdrawal the atoms are its amount. A plain tuple, because one is made for every request.
"""

_NOTHING: Final[Demand] = (_NONE, _NO_ASSET, 0)


_as_tuple: Final = msgspec.structs.astuple


def read_request(value: bytes | None) -> AnyRequest:
    """Decode a record of order.requests.

    Raises WireError when it is not a request: it does not decode, is longer than any request, or holds a number that
    fits no column of the store. Such a record is answered to nobody and goes to dead.letters.
    """
    if value is not None and len(value) > MAX_REQUEST_BYTES:
        raise wire.WireError(f"order request: {len(value)} bytes are more than the {MAX_REQUEST_BYTES} of any request")
    request = wire.REQUEST.decode(value)
    kind = type(request)
    # Comparisons, not calls: every request comes by here.
    if (kind is PlaceOrder or kind is ReplaceOrder) and not (
        -_INT32_MAX <= request.side <= _INT32_MAX  # type: ignore[union-attr]
        and -_INT32_MAX <= request.time_in_force <= _INT32_MAX  # type: ignore[union-attr]
        and (kind is ReplaceOrder or -_INT32_MAX <= request.order_type <= _INT32_MAX)  # type: ignore[union-attr]
    ):
        raise wire.WireError("order request: a code does not fit a signed 32-bit column")
    # MessagePack integers reach from the smallest signed to the largest unsigned of 64 bits.
    largest = max(_as_tuple(request)[1:])
    if largest > INT64_MAX:
        raise wire.WireError(f"order request: {largest} does not fit a signed 64-bit column")
    return request


def is_nameable(topology: Topology, partition: int, request: AnyRequest) -> bool:
    """Whether (user_id, request_id) can stand for this request in the partition's memory.

    It cannot when the request id is empty or too long, the user is impossible, belongs to another partition, or the
    time is no time. Such a request is rejected and not remembered.
    """
    request_id = request.request_id
    length = len(request_id)
    if not 0 < length <= MAX_REQUEST_ID_BYTES:
        return False
    if not request_id.isascii() and len(request_id.encode("utf-8", "surrogatepass")) > MAX_REQUEST_ID_BYTES:
        return False
    user_id = request.user_id
    return (
        0 < user_id <= INT64_MAX
        and topology.user_partition(user_id) == partition
        and 0 <= request.requested_at_ns <= INT64_MAX
    )


def named_order(request: AnyRequest) -> OrderId:
    """The order that a request is about: the new one of a place or replace, NO_ORDER for deposits and withdrawals."""
    kind = type(request)
    if kind is Deposit or kind is Withdraw:
        return NO_ORDER
    order_id: OrderId = request.order_id  # type: ignore[union-attr]
    return order_id


def demand(symbols: SymbolTable, request: AnyRequest) -> Demand:
    """Judge a request without knowing any balance: why it cannot be accepted, or what it locks."""
    kind = type(request)
    if kind is PlaceOrder:
        return _demand_of_place(symbols, request)  # type: ignore[arg-type]
    if kind is CancelOrder:
        return _demand_of_cancel(symbols, request)  # type: ignore[arg-type]
    if kind is ReduceOrder:
        return _demand_of_reduce(symbols, request)  # type: ignore[arg-type]
    if kind is ReplaceOrder:
        return _demand_of_replace(symbols, request)  # type: ignore[arg-type]
    return _demand_of_transfer(symbols, request)  # type: ignore[arg-type]


def _demand_of_place(symbols: SymbolTable, order: PlaceOrder) -> Demand:
    symbol = symbols.symbols.get(order.symbol_id)
    if symbol is None:
        return _UNKNOWN_SYMBOL, _NO_ASSET, 0
    if not 0 < order.order_id <= INT64_MAX:
        return _INVALID_IDENTIFIER, _NO_ASSET, 0
    side = order.side
    time_in_force = order.time_in_force
    if (side != _BUY and side != _SELL) or not 0 <= time_in_force <= _LAST_TIME_IN_FORCE:
        return _INVALID_COMBINATION, _NO_ASSET, 0
    if order.order_type == _LIMIT:
        if order.max_spend != 0:
            return _INVALID_COMBINATION, _NO_ASSET, 0
        return _demand_of_limit(symbol, side, order.price, order.quantity)
    if order.order_type != _MARKET or order.price != 0 or (time_in_force != _IOC and time_in_force != _FOK):
        return _INVALID_COMBINATION, _NO_ASSET, 0
    if not 0 < order.quantity <= INT64_MAX:
        return _INVALID_QUANTITY, _NO_ASSET, 0
    base_atoms = order.quantity * symbol.lot_atoms
    if base_atoms > INT64_MAX:
        return _OVERFLOW, _NO_ASSET, 0
    if side == _SELL:
        if order.max_spend != 0:
            return _INVALID_COMBINATION, _NO_ASSET, 0
        return _NONE, symbol.base.asset_id, base_atoms
    if order.max_spend == 0:
        return _INVALID_COMBINATION, _NO_ASSET, 0
    if not 0 < order.max_spend <= INT64_MAX:
        return _INVALID_AMOUNT, _NO_ASSET, 0
    return _NONE, symbol.quote.asset_id, order.max_spend


def _demand_of_limit(symbol: Symbol, side: int, price: int, quantity: int) -> Demand:
    if not 0 < price <= INT64_MAX:
        return _INVALID_PRICE, _NO_ASSET, 0
    if not 0 < quantity <= INT64_MAX:
        return _INVALID_QUANTITY, _NO_ASSET, 0
    base_atoms = quantity * symbol.lot_atoms
    quote_atoms = price * quantity * symbol.tick_lot_atoms
    # Both are bounded whatever the side: a fill moves both, and filled_quote is a column of its own.
    if base_atoms > INT64_MAX or quote_atoms > INT64_MAX:
        return _OVERFLOW, _NO_ASSET, 0
    if side == _BUY:
        return _NONE, symbol.quote.asset_id, quote_atoms
    return _NONE, symbol.base.asset_id, base_atoms


def _demand_of_cancel(symbols: SymbolTable, cancel: CancelOrder) -> Demand:
    if cancel.symbol_id not in symbols.symbols:
        return _UNKNOWN_SYMBOL, _NO_ASSET, 0
    if not 0 < cancel.order_id <= INT64_MAX:
        return _INVALID_IDENTIFIER, _NO_ASSET, 0
    return _NOTHING


def _demand_of_reduce(symbols: SymbolTable, reduce: ReduceOrder) -> Demand:
    if reduce.symbol_id not in symbols.symbols:
        return _UNKNOWN_SYMBOL, _NO_ASSET, 0
    if not 0 < reduce.order_id <= INT64_MAX:
        return _INVALID_IDENTIFIER, _NO_ASSET, 0
    if not 0 < reduce.quantity <= INT64_MAX:
        return _INVALID_QUANTITY, _NO_ASSET, 0
    return _NOTHING


def _demand_of_replace(symbols: SymbolTable, replace: ReplaceOrder) -> Demand:
    symbol = symbols.symbols.get(replace.symbol_id)
    if symbol is None:
        return _UNKNOWN_SYMBOL, _NO_ASSET, 0
    new, old = replace.order_id, replace.replaced_order_id
    if not (0 < new <= INT64_MAX and 0 < old <= INT64_MAX and new != old):
        return _INVALID_IDENTIFIER, _NO_ASSET, 0
    side = replace.side
    if (side != _BUY and side != _SELL) or not 0 <= replace.time_in_force <= _LAST_TIME_IN_FORCE:
        return _INVALID_COMBINATION, _NO_ASSET, 0
    return _demand_of_limit(symbol, side, replace.price, replace.quantity)


def _demand_of_transfer(symbols: SymbolTable, transfer: Deposit | Withdraw) -> Demand:
    if transfer.asset_id not in symbols.assets:
        return _UNKNOWN_ASSET, _NO_ASSET, 0
    if not 0 < transfer.amount <= INT64_MAX:
        return _INVALID_AMOUNT, _NO_ASSET, 0
    return _NONE, transfer.asset_id, transfer.amount
