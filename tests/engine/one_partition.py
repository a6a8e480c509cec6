"""A small exchange with two symbols in partition 0 and one in partition 1, and a feed that numbers inputs for it."""

from decimal import Decimal

from engine.matching import AppliedInput, MatchingEngine
from schema.codes import OrderType, Side, TimeInForce
from schema.events import (
    CancelOrder,
    EngineOutput,
    OrderCommand,
    PlaceOrder,
    ReduceOrder,
    ReplaceOrder,
    ValidatedOrder,
)
from schema.identifiers import AssetId, OrderId, SymbolId, UserId
from schema.symbols import Asset, Symbol, SymbolTable
from schema.topics import VALIDATED_ORDERS, Topology

BTC = Asset(AssetId(1), "BTC", 8)
ETH = Asset(AssetId(2), "ETH", 18)
USD = Asset(AssetId(3), "USD", 6)

# A lot of BTC is 10,000 atoms and costs 50 USD atoms a tick; a lot of ETH is 10**15 atoms and costs 10 a tick.
BTC_USD = Symbol(SymbolId(1), "BTC-USD", BTC, USD, Decimal("0.5"), Decimal("0.0001"), 0)
ETH_USD = Symbol(SymbolId(2), "ETH-USD", ETH, USD, Decimal("0.01"), Decimal("0.001"), 0)
ETH_BTC = Symbol(SymbolId(3), "ETH-BTC", ETH, BTC, Decimal("0.00001"), Decimal("0.001"), 1)
LOT = BTC_USD.lot_atoms
TICK_LOT = BTC_USD.tick_lot_atoms

TOPOLOGY = Topology(SymbolTable([BTC_USD, ETH_USD, ETH_BTC]), user_partitions=4)


def place(
    order_id: int,
    user_id: int,
    side: Side,
    quantity: int,
    price: int = 0,
    time_in_force: TimeInForce = TimeInForce.GTC,
    max_spend: int = 0,
    symbol: Symbol = BTC_USD,
    at_ns: int = 0,
) -> PlaceOrder:
    """A limit order, or without a price a market order."""
    return PlaceOrder(
        request_id=f"request-{order_id}",
        user_id=UserId(user_id),
        requested_at_ns=at_ns,
        order_id=OrderId(order_id),
        symbol_id=symbol.symbol_id,
        side=int(side),
        order_type=int(OrderType.LIMIT if price else OrderType.MARKET),
        time_in_force=int(time_in_force),
        price=price,
        quantity=quantity,
        max_spend=max_spend,
    )


def cancel(order_id: int, user_id: int, symbol: Symbol = BTC_USD, at_ns: int = 0) -> CancelOrder:
    return CancelOrder(f"cancel-{order_id}", UserId(user_id), at_ns, OrderId(order_id), symbol.symbol_id)


def reduce(order_id: int, user_id: int, quantity: int, symbol: Symbol = BTC_USD, at_ns: int = 0) -> ReduceOrder:
    return ReduceOrder(f"reduce-{order_id}", UserId(user_id), at_ns, OrderId(order_id), symbol.symbol_id, quantity)


def replace(
    old_id: int,
    order_id: int,
    user_id: int,
    side: Side,
    quantity: int,
    price: int,
    time_in_force: TimeInForce = TimeInForce.GTC,
    symbol: Symbol = BTC_USD,
    at_ns: int = 0,
) -> ReplaceOrder:
    return ReplaceOrder(
        request_id=f"replace-{order_id}",
        user_id=UserId(user_id),
        requested_at_ns=at_ns,
        order_id=OrderId(order_id),
        symbol_id=symbol.symbol_id,
        replaced_order_id=OrderId(old_id),
        side=int(side),
        time_in_force=int(time_in_force),
        price=price,
        quantity=quantity,
    )


class Feed:
    """An engine of partition 0 and the one link and log that lead into it."""

    def __init__(self, engine: MatchingEngine | None = None) -> None:
        self.engine = engine or MatchingEngine(TOPOLOGY, 0)
        self.link_seq = 0
        self.offset = 0

    def send(self, command: OrderCommand) -> AppliedInput:
        self.link_seq += 1
        self.offset += 1
        order = ValidatedOrder(0, self.link_seq, self.link_seq, command)
        return self.engine.apply(order, VALIDATED_ORDERS, 0, self.offset - 1)

    def __call__(self, *commands: OrderCommand) -> EngineOutput:
        """Send the commands one after the other; returns the last one's output."""
        return [self.send(command).output for command in commands][-1]
