"""Recorded flow as JSON lines in the gateway's own request form, one request on a line.

    {"type": "place", "user_id": 1, "client_order_id": "a1", "symbol": "BTC-USDT", "side": "buy", "order_type": "limit",
     "time_in_force": "gtc", "price": "60000.0", "quantity": "0.5"}
    {"type": "cancel", "user_id": 1, "symbol": "BTC-USDT", "client_order_id": "a1", "at_ns": 1500000000}

Beside the gateway's fields a line may have `at_ns`, the time since the start of the recording (without it: a
millisecond after the line before). An order id of the recording means nothing in another run, so cancel, reduce and
replace (`replaced_client_order_id`) name an order by the client_order_id that placed it. `request_id` may be left out
of those; it is then made from the line's number. A `read` has `query`, `symbol` and `limit`.

The first line may describe the market; without it the default one of `sim.flows.market` is meant:

    {"type": "market", "assets": [{"name": "BTC", "decimals": 8}, ...],
     "symbols": [{"name": "BTC-USDT", "base": "BTC", "quote": "USDT", "tick_size": "0.1", "lot_size": "0.0001"}, ...]}

A file without a deposit gets one for each user and asset, so that every order is funded; a file with deposits is taken
as it is. A line that is not JSON ends the reading with an error; one whose content cannot be used is counted.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import IO, Final

import msgspec

from schema.codes import OrderType, Side, TimeInForce
from schema.identifiers import INT64_MAX, AssetId, SymbolId
from schema.symbols import Asset, Symbol, SymbolError, SymbolTable, amount_atoms
from sim.flows.feed import OPERATIONS_MAX, QUANTITY_MAX
from sim.flows.market import NAMED_LISTINGS, make_topology
from sim.flows.operations import (
    CANCEL,
    DEPOSIT,
    PLACE,
    QUERIES,
    READ,
    REDUCE,
    REPLACE,
    WITHDRAW,
    Operation,
)
from sim.flows.report import FlowError, FlowReport

MARKET: Final = "market"

_LINE_BYTES_MAX: Final = 1 << 20
_STEP_NS: Final = 1_000_000
_TEXT_MAX: Final = 128
_SIDES: Final = {side.name.lower(): int(side) for side in Side}
_ORDER_TYPES: Final = {kind.name.lower(): int(kind) for kind in OrderType}
_TIMES_IN_FORCE: Final = {kind.name.lower(): int(kind) for kind in TimeInForce}


class _Unusable(Exception):
    """A line's content cannot be used; the argument is the reason that is counted."""


class JsonLines:
    """Reads such a file: `symbols`, `operations` in recorded time, and whether it brought its own deposits."""

    def __init__(self, stream: IO[bytes], source: str, symbol_partitions: int, report: FlowReport) -> None:
        self.operations: list[Operation] = []
        self.has_deposits = False
        self.users: dict[int, None] = {}
        self._funds: dict[tuple[int, str], int] = {}
        self._totals: dict[str, int] = {}
        self._names: dict[tuple[int, str], None] = {}
        self._at_ns = 0
        self.symbols = make_topology(NAMED_LISTINGS, 1, symbol_partitions).symbols
        number = 0
        while line := stream.readline(_LINE_BYTES_MAX):
            number += 1
            if not line.strip():
                continue
            kind, fields = _parse(line, source, number)
            if kind == MARKET:
                if report.messages:
                    raise FlowError(f"{source}: line {number}: the market must be described in the first line")
                self.symbols = _market(fields, f"{source}: line {number}", symbol_partitions)
                report.count_informational(MARKET)
                continue
            name = kind if kind in _READERS else "unknown"
            try:
                self._take(kind, fields, number)
            except _Unusable as unusable:
                report.count_not_applied(name, str(unusable))
            else:
                report.count_applied(name)
            if len(self.operations) > OPERATIONS_MAX:
                raise FlowError(f"{source}: more than {OPERATIONS_MAX:,} operations; take a part of the file")

    def deposits(self) -> list[Operation]:
        """What each user needs for all of their orders, in one deposit for each asset, all at time 0."""
        return [
            Operation(0, user_id, DEPOSIT, f"flow-deposit-{number}", asset=asset, amount=amount, gateway=user_id)
            for number, ((user_id, asset), amount) in enumerate(sorted(self._funds.items()), 1)
        ]

    def _take(self, kind: str, fields: Mapping[str, object], number: int) -> None:
        if kind not in _READERS:
            raise _Unusable("unknown type of request")
        user_id = _integer(fields, "user_id", 1)
        at_ns = _integer(fields, "at_ns", 0) if "at_ns" in fields else self._at_ns + _STEP_NS
        self._at_ns = max(self._at_ns, at_ns)
        operation = _READERS[kind](self, self._at_ns, user_id, fields, number)
        self.operations.append(operation)
        self._names[user_id, operation.request_id] = None
        self.users[user_id] = None

    # -- one for each type of request

    def _place(self, at_ns: int, user_id: int, fields: Mapping[str, object], number: int) -> Operation:
        request_id = _text(fields, "client_order_id")
        symbol = self._symbol(fields)
        side = _word(fields, "side", _SIDES)
        order_type = _word(fields, "order_type", _ORDER_TYPES, "limit")
        is_market = order_type == int(OrderType.MARKET)
        time_in_force = _word(fields, "time_in_force", _TIMES_IN_FORCE, "ioc" if is_market else "gtc")
        quantity = _lots(symbol, fields)
        price = 0 if is_market else _ticks(symbol, fields)
        max_spend = 0
        if is_market and side == int(Side.BUY):
            max_spend = _atoms(symbol.quote, fields, "max_spend")
        self._fund(user_id, symbol, side, price, quantity, max_spend)
        return Operation(
            at_ns=at_ns,
            user_id=user_id,
            kind=PLACE,
            request_id=request_id,
            symbol=symbol.name,
            # The recording's own repeat of a request waits for what was said to the first.
            reference=request_id if (user_id, request_id) in self._names else "",
            side=side,
            order_type=order_type,
            time_in_force=time_in_force,
            price=price,
            quantity=quantity,
            max_spend=max_spend,
            gateway=number,
        )

    def _cancel(self, at_ns: int, user_id: int, fields: Mapping[str, object], number: int) -> Operation:
        return self._about_order(CANCEL, at_ns, user_id, fields, number, self._symbol(fields), 0)

    def _reduce(self, at_ns: int, user_id: int, fields: Mapping[str, object], number: int) -> Operation:
        symbol = self._symbol(fields)
        return self._about_order(REDUCE, at_ns, user_id, fields, number, symbol, _lots(symbol, fields))

    def _about_order(
        self,
        kind: str,
        at_ns: int,
        user_id: int,
        fields: Mapping[str, object],
        number: int,
        symbol: Symbol,
        quantity: int,
    ) -> Operation:
        reference = self._reference(user_id, fields, "client_order_id")
        return Operation(
            at_ns=at_ns,
            user_id=user_id,
            kind=kind,
            request_id=_text(fields, "request_id", f"line-{number}"),
            symbol=symbol.name,
            reference=reference,
            quantity=quantity,
            gateway=number,
        )

    def _replace(self, at_ns: int, user_id: int, fields: Mapping[str, object], number: int) -> Operation:
        symbol = self._symbol(fields)
        side = _word(fields, "side", _SIDES)
        price = _ticks(symbol, fields)
        quantity = _lots(symbol, fields)
        reference = self._reference(user_id, fields, "replaced_client_order_id")
        self._fund(user_id, symbol, side, price, quantity, 0)
        return Operation(
            at_ns=at_ns,
            user_id=user_id,
            kind=REPLACE,
            request_id=_text(fields, "request_id", f"line-{number}"),
            symbol=symbol.name,
            reference=reference,
            side=side,
            time_in_force=_word(fields, "time_in_force", _TIMES_IN_FORCE, "gtc"),
            price=price,
            quantity=quantity,
            gateway=number,
        )

    def _deposit(self, at_ns: int, user_id: int, fields: Mapping[str, object], number: int) -> Operation:
        self.has_deposits = True
        return self._funds_request(DEPOSIT, at_ns, user_id, fields, number)

    def _withdraw(self, at_ns: int, user_id: int, fields: Mapping[str, object], number: int) -> Operation:
        return self._funds_request(WITHDRAW, at_ns, user_id, fields, number)

    def _funds_request(
        self, kind: str, at_ns: int, user_id: int, fields: Mapping[str, object], number: int
    ) -> Operation:
        try:
            asset = self.symbols.asset_named(_text(fields, "asset"))
        except SymbolError:
            raise _Unusable("unknown asset") from None
        return Operation(
            at_ns=at_ns,
            user_id=user_id,
            kind=kind,
            request_id=_text(fields, "request_id", f"line-{number}"),
            asset=asset.name,
            amount=_atoms(asset, fields, "amount"),
            gateway=number,
        )

    def _read(self, at_ns: int, user_id: int, fields: Mapping[str, object], number: int) -> Operation:
        query = _text(fields, "query")
        if query not in QUERIES:
            raise _Unusable("unusable query")
        symbol = self._symbol(fields).name if "symbol" in fields else ""
        return Operation(
            at_ns=at_ns,
            user_id=user_id,
            kind=READ,
            request_id=f"line-{number}",
            symbol=symbol,
            reference=self._reference(user_id, fields, "client_order_id") if query == "order" else "",
            query=query,
            limit=_integer(fields, "limit", 1) if "limit" in fields else 100,
            gateway=number,
        )

    # -- what several of them need

    def _symbol(self, fields: Mapping[str, object]) -> Symbol:
        try:
            return self.symbols.named(_text(fields, "symbol"))
        except SymbolError:
            raise _Unusable("unknown symbol") from None

    def _reference(self, user_id: int, fields: Mapping[str, object], field: str) -> str:
        if field not in fields and ("order_id" in fields or "replaced_order_id" in fields):
            raise _Unusable("names an order by its id in another run")
        reference = _text(fields, field)
        if (user_id, reference) not in self._names:
            raise _Unusable("names an order that is not there")
        return reference

    def _fund(self, user_id: int, symbol: Symbol, side: int, price: int, quantity: int, max_spend: int) -> None:
        if side == int(Side.SELL):
            asset, atoms = symbol.base.name, symbol.base_atoms(quantity)
        else:
            asset, atoms = symbol.quote.name, max_spend or symbol.quote_atoms(price, quantity)
        total = self._totals.get(asset, 0) + atoms
        if total > QUANTITY_MAX:
            raise _Unusable("funds would not fit 64 bits")
        self._totals[asset] = total
        self._funds[user_id, asset] = self._funds.get((user_id, asset), 0) + atoms


_READERS = {
    PLACE: JsonLines._place,
    CANCEL: JsonLines._cancel,
    REDUCE: JsonLines._reduce,
    REPLACE: JsonLines._replace,
    DEPOSIT: JsonLines._deposit,
    WITHDRAW: JsonLines._withdraw,
    READ: JsonLines._read,
}


def looks_like_json_lines(head: bytes) -> bool:
    """Whether a file begins with a JSON object."""
    return head.lstrip()[:1] == b"{"


class _MarketAsset(msgspec.Struct):
    name: str
    decimals: int


class _MarketSymbol(msgspec.Struct):
    name: str
    base: str
    quote: str
    tick_size: str
    lot_size: str


class _Market(msgspec.Struct):
    assets: list[_MarketAsset]
    symbols: list[_MarketSymbol]


def _parse(line: bytes, source: str, number: int) -> tuple[str, dict[str, object]]:
    """The type of a request and all its fields."""
    try:
        fields = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FlowError(f"{source}: line {number}: not a JSON object: {error}") from None
    kind = fields.get("type") if isinstance(fields, dict) else None
    if not isinstance(kind, str):
        raise FlowError(f'{source}: line {number}: expected a JSON object with a "type", such as "place"')
    return kind, fields


def _market(fields: Mapping[str, object], where: str, symbol_partitions: int) -> SymbolTable:
    try:
        market = msgspec.convert(fields, _Market)
        assets = {
            each.name: Asset(AssetId(index), each.name, each.decimals) for index, each in enumerate(market.assets, 1)
        }
        symbols = []
        for index, each in enumerate(market.symbols):
            for asset in (each.base, each.quote):
                if asset not in assets:
                    raise SymbolError(f"symbol {each.name}: there is no asset {asset!r}")
            symbols.append(
                Symbol(
                    symbol_id=SymbolId(index + 1),
                    name=each.name,
                    base=assets[each.base],
                    quote=assets[each.quote],
                    tick_size=_size(each.tick_size),
                    lot_size=_size(each.lot_size),
                    partition=index % symbol_partitions,
                )
            )
        return SymbolTable(symbols)
    except (msgspec.ValidationError, SymbolError) as error:
        raise FlowError(f"{where}: the market cannot be used: {error}") from None


def _size(text: str) -> Decimal:
    """A tick or lot size. Its length and exponent are bounded before anything is computed with it."""
    try:
        size = Decimal(text) if len(text) <= 40 else Decimal("NaN")
    except ArithmeticError:
        raise SymbolError(f"{text!r} is not a decimal number") from None
    if not size.is_finite() or not -40 <= size.adjusted() <= 40:
        raise SymbolError(f"{text[:40]!r} is no tick or lot size")
    return size


def _text(fields: Mapping[str, object], field: str, default: str = "") -> str:
    value = fields.get(field, default)
    if not isinstance(value, str) or not 0 < len(value) <= _TEXT_MAX:
        raise _Unusable(f"unusable {field}")
    return value


def _integer(fields: Mapping[str, object], field: str, least: int) -> int:
    value = fields.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= INT64_MAX:
        raise _Unusable(f"unusable {field}")
    return value


def _word(fields: Mapping[str, object], field: str, words: Mapping[str, int], default: str = "") -> int:
    value = fields.get(field, default)
    code = words.get(value) if isinstance(value, str) else None
    if code is None:
        raise _Unusable(f"unusable {field}")
    return code


def _ticks(symbol: Symbol, fields: Mapping[str, object]) -> int:
    try:
        return symbol.price_ticks(_text(fields, "price"))
    except SymbolError:
        raise _Unusable("unusable price") from None


def _lots(symbol: Symbol, fields: Mapping[str, object]) -> int:
    try:
        return symbol.quantity_lots(_text(fields, "quantity"))
    except SymbolError:
        raise _Unusable("unusable quantity") from None


def _atoms(asset: Asset, fields: Mapping[str, object], field: str) -> int:
    try:
        return amount_atoms(asset, _text(fields, field))
    except SymbolError:
        raise _Unusable(f"unusable {field}") from None
