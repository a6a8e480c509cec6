"""What a client may send: the gateway's request form, and its way to the integers behind it (design sections 3, 4).

A request is a JSON object. Numbers that stand for money are decimal strings, so that no float touches them:

    {"type": "place", "user_id": 7, "client_order_id": "a-1", "symbol": "BTC-USDT", "side": "buy",
     "order_type": "limit", "time_in_force": "gtc", "price": "60000.1", "quantity": "0.25"}
    {"type": "place", ..., "side": "buy", "order_type": "market", "quantity": "0.25", "max_spend": "20000"}
    {"type": "cancel", "user_id": 7, "request_id": "a-2", "symbol": "BTC-USDT", "order_id": 4294967297}
    {"type": "reduce", ..., "order_id": 4294967297, "quantity": "0.1"}
    {"type": "replace", "user_id": 7, "request_id": "a-3", "symbol": "BTC-USDT", "replaced_order_id": 4294967297,
     "side": "buy", "time_in_force": "gtc", "price": "60000.2", "quantity": "0.25"}
    {"type": "deposit", "user_id": 7, "request_id": "d-1", "asset": "USDT", "amount": "1000"}
    {"type": "withdraw", ...}

`time_in_force` may be left out: gtc for a limit order, ioc for a market order. Whatever is sent, the result is a
request or a RequestError with one sentence that says what is wrong. What depends on balances or on the book (funds,
products that overflow, a duplicate id) is not decided here.
"""

import re
from collections.abc import Mapping
from typing import ClassVar, Final, Literal, cast

import msgspec

from schema.codes import OrderType, Side, TimeInForce
from schema.events import AnyRequest, CancelOrder, Deposit, PlaceOrder, ReduceOrder, ReplaceOrder, Withdraw
from schema.identifiers import INT64_MAX, MAX_REQUEST_ID_BYTES, OrderId, UserId
from schema.symbols import Asset, Symbol, SymbolError, SymbolTable, amount_atoms

MAX_REQUEST_BYTES: Final = 8_192

SideName = Literal["buy", "sell"]
OrderTypeName = Literal["limit", "market"]
TimeInForceName = Literal["gtc", "ioc", "fok", "post_only"]

_SIDES: Final[dict[str, int]] = {side.name.lower(): int(side) for side in Side}
_ORDER_TYPES: Final[dict[str, int]] = {kind.name.lower(): int(kind) for kind in OrderType}
_TIMES_IN_FORCE: Final[dict[str, int]] = {kind.name.lower(): int(kind) for kind in TimeInForce}

# ASCII digits, no exponent, no underscore, no blank: what Decimal also reads, no client needs.
_PLAIN_DECIMAL: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?\Z", re.ASCII)
_PRINTABLE_ID: Final = re.compile(r"[!-~]+\Z", re.ASCII)


class RequestError(ValueError):
    """A client request that cannot be taken; the message tells the client what is wrong with it."""


class ClientRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type"):
    """What every client request carries."""

    user_id: int


class PlaceRequest(ClientRequest, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="place"):
    """A new order."""

    assigns_order_id: ClassVar[bool] = True

    client_order_id: str
    symbol: str
    side: SideName
    order_type: OrderTypeName
    quantity: str
    time_in_force: TimeInForceName | None = None
    price: str | None = None
    max_spend: str | None = None

    @property
    def request_id(self) -> str:
        """The client's own name for the request."""
        return self.client_order_id


class CancelRequest(ClientRequest, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="cancel"):
    """Take a live order out of the book."""

    assigns_order_id: ClassVar[bool] = False

    request_id: str
    symbol: str
    order_id: int


class ReduceRequest(ClientRequest, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="reduce"):
    """Lower an order's total quantity."""

    assigns_order_id: ClassVar[bool] = False

    request_id: str
    symbol: str
    order_id: int
    quantity: str


class ReplaceRequest(ClientRequest, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="replace"):
    """Cancel a live order and place another one, in one step."""

    assigns_order_id: ClassVar[bool] = True

    request_id: str
    symbol: str
    replaced_order_id: int
    side: SideName
    price: str
    quantity: str
    time_in_force: TimeInForceName = "gtc"


class DepositRequest(ClientRequest, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="deposit"):
    """Funds come in."""

    assigns_order_id: ClassVar[bool] = False

    request_id: str
    asset: str
    amount: str


class WithdrawRequest(ClientRequest, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="withdraw"):
    """Available funds go out."""

    assigns_order_id: ClassVar[bool] = False

    request_id: str
    asset: str
    amount: str


AnyClientRequest = PlaceRequest | CancelRequest | ReduceRequest | ReplaceRequest | DepositRequest | WithdrawRequest

_decoder: Final = msgspec.json.Decoder(AnyClientRequest)


def parse(data: bytes | str | Mapping[str, object]) -> AnyClientRequest:
    """A client request from JSON text, or from the object that such text stands for. Raises RequestError."""
    try:
        if isinstance(data, Mapping):
            return cast(AnyClientRequest, msgspec.convert(dict(data), AnyClientRequest))
        if len(data) > MAX_REQUEST_BYTES:
            raise RequestError(f"a request has at most {MAX_REQUEST_BYTES} bytes")
        return cast(AnyClientRequest, _decoder.decode(data))
    except RecursionError:
        raise RequestError("the request is nested too deeply") from None
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise RequestError(f"not a request: {_printable(str(error))}") from None


def to_event(request: AnyClientRequest, symbols: SymbolTable, order_id: OrderId, now_ns: int) -> AnyRequest:
    """The request as the services behind the gateway know it. Raises RequestError.

    `order_id` is the id of the new order; requests that place none do not use it. `now_ns` is the gateway's wall clock.
    """
    user_id = UserId(_identifier(request.user_id, "user_id"))
    request_id = _request_id(request)
    try:
        match request:
            case PlaceRequest():
                return _place(request, symbols.named(request.symbol), user_id, order_id, now_ns)
            case CancelRequest():
                symbol = symbols.named(request.symbol)
                return CancelOrder(request_id, user_id, now_ns, _order_id(request.order_id), symbol.symbol_id)
            case ReduceRequest():
                symbol = symbols.named(request.symbol)
                lots = symbol.quantity_lots(_decimal(request.quantity, "quantity"))
                return ReduceOrder(request_id, user_id, now_ns, _order_id(request.order_id), symbol.symbol_id, lots)
            case ReplaceRequest():
                symbol = symbols.named(request.symbol)
                return ReplaceOrder(
                    request_id=request_id,
                    user_id=user_id,
                    requested_at_ns=now_ns,
                    order_id=order_id,
                    symbol_id=symbol.symbol_id,
                    replaced_order_id=OrderId(_identifier(request.replaced_order_id, "replaced_order_id")),
                    side=_SIDES[request.side],
                    time_in_force=_TIMES_IN_FORCE[request.time_in_force],
                    price=symbol.price_ticks(_decimal(request.price, "price")),
                    quantity=symbol.quantity_lots(_decimal(request.quantity, "quantity")),
                )
            case DepositRequest():
                asset = symbols.asset_named(request.asset)
                return Deposit(request_id, user_id, now_ns, asset.asset_id, _amount(asset, request.amount))
            case WithdrawRequest():
                asset = symbols.asset_named(request.asset)
                return Withdraw(request_id, user_id, now_ns, asset.asset_id, _amount(asset, request.amount))
    except SymbolError as error:
        raise RequestError(_printable(str(error))) from None


def _place(request: PlaceRequest, symbol: Symbol, user_id: UserId, order_id: OrderId, now_ns: int) -> PlaceOrder:
    is_limit = request.order_type == "limit"
    if is_limit and request.price is None:
        raise RequestError("a limit order needs a price")
    if not is_limit and request.price is not None:
        raise RequestError("a market order has no price")
    if not is_limit and request.side == "buy":
        if request.max_spend is None:
            raise RequestError("a market buy needs max_spend, the most it may cost")
    elif request.max_spend is not None:
        raise RequestError("max_spend is for market buys only")
    time_in_force = request.time_in_force or ("gtc" if is_limit else "ioc")
    if not is_limit and time_in_force not in ("ioc", "fok"):
        raise RequestError(f"a market order cannot be {time_in_force}: it does not rest")
    return PlaceOrder(
        request_id=request.client_order_id,
        user_id=user_id,
        requested_at_ns=now_ns,
        order_id=order_id,
        symbol_id=symbol.symbol_id,
        side=_SIDES[request.side],
        order_type=_ORDER_TYPES[request.order_type],
        time_in_force=_TIMES_IN_FORCE[time_in_force],
        price=0 if request.price is None else symbol.price_ticks(_decimal(request.price, "price")),
        quantity=symbol.quantity_lots(_decimal(request.quantity, "quantity")),
        max_spend=0 if request.max_spend is None else symbol.quote_amount(_decimal(request.max_spend, "max_spend")),
    )


def _amount(asset: Asset, text: str) -> int:
    return amount_atoms(asset, _decimal(text, "amount"))


def _decimal(text: str, field: str) -> str:
    if len(text) > 40 or not _PLAIN_DECIMAL.match(text):
        raise RequestError(f"{field}: {_printable(text)} is not a plain decimal number of at most 40 characters")
    return text


def _request_id(request: AnyClientRequest) -> str:
    text = request.request_id
    if len(text) > MAX_REQUEST_ID_BYTES or not _PRINTABLE_ID.match(text):
        field = "client_order_id" if isinstance(request, PlaceRequest) else "request_id"
        raise RequestError(f"{field} must be 1 to {MAX_REQUEST_ID_BYTES} printable ASCII characters without blanks")
    return text


def _order_id(value: int) -> OrderId:
    return OrderId(_identifier(value, "order_id"))


def _identifier(value: int, field: str) -> int:
    if not 0 < value <= INT64_MAX:
        raise RequestError(f"{field} must be 1 to {INT64_MAX}")
    return value


def _printable(text: str) -> str:
    # What a client sent may come back in a message, but never more of it than fits a line, and no control characters.
    # Cut again at the end: what is escaped is up to ten times as long.
    return text[:120].encode("unicode_escape").decode("ascii")[:120]
