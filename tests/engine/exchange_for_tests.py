"""A small exchange for tests: two symbols on two partitions, three assets, and requests with short argument lists."""

from decimal import Decimal

from engine.ubscore import BalanceCore, Decision
from schema.codes import OrderType, Side, TimeInForce
from schema.events import AnyRequest, CancelOrder, Deposit, PlaceOrder, ReduceOrder, ReplaceOrder, Withdraw
from schema.identifiers import AssetId, OrderId, SymbolId, UserId
from schema.symbols import Asset, Symbol, SymbolTable
from schema.topics import ORDER_REQUESTS, Topology

BTC = Asset(AssetId(1), "BTC", 8)
USD = Asset(AssetId(2), "USD", 2)
ETH = Asset(AssetId(3), "ETH", 8)
BTC_USD = Symbol(SymbolId(1), "BTC-USD", BTC, USD, Decimal("0.01"), Decimal("1"), 0)
ETH_USD = Symbol(SymbolId(2), "ETH-USD", ETH, USD, Decimal("0.01"), Decimal("1"), 1)
"""A lot is 10**8 base atoms; a lot at one tick is 1 quote atom."""


def topology(user_partitions: int = 1) -> Topology:
    return Topology(SymbolTable([BTC_USD, ETH_USD]), user_partitions)


def users_of(top: Topology, partition: int, count: int) -> list[UserId]:
    """The first `count` users who belong to a user partition."""
    found: list[UserId] = []
    candidate = 1
    while len(found) < count:
        if top.user_partition(UserId(candidate)) == partition:
            found.append(UserId(candidate))
        candidate += 1
    return found


ALICE, BOB = users_of(topology(), 0, 2)


def deposit(
    amount: int, asset: Asset = USD, *, user: int = ALICE, request_id: str = "deposit", at_ns: int = 1
) -> Deposit:
    return Deposit(request_id, UserId(user), at_ns, asset.asset_id, amount)


def withdraw(
    amount: int, asset: Asset = USD, *, user: int = ALICE, request_id: str = "withdraw", at_ns: int = 1
) -> Withdraw:
    return Withdraw(request_id, UserId(user), at_ns, asset.asset_id, amount)


def place(
    order_id: int,
    side: Side = Side.BUY,
    price: int = 100,
    quantity: int = 10,
    *,
    user: int = ALICE,
    symbol: Symbol = BTC_USD,
    order_type: OrderType = OrderType.LIMIT,
    time_in_force: TimeInForce = TimeInForce.GTC,
    max_spend: int = 0,
    request_id: str = "",
    at_ns: int = 1,
) -> PlaceOrder:
    return PlaceOrder(
        request_id or f"place-{order_id}",
        UserId(user),
        at_ns,
        OrderId(order_id),
        symbol.symbol_id,
        int(side),
        int(order_type),
        int(time_in_force),
        price,
        quantity,
        max_spend,
    )


def cancel(
    order_id: int, *, user: int = ALICE, symbol: Symbol = BTC_USD, request_id: str = "", at_ns: int = 1
) -> CancelOrder:
    return CancelOrder(request_id or f"cancel-{order_id}", UserId(user), at_ns, OrderId(order_id), symbol.symbol_id)


def reduce(
    order_id: int, quantity: int, *, user: int = ALICE, symbol: Symbol = BTC_USD, request_id: str = "", at_ns: int = 1
) -> ReduceOrder:
    return ReduceOrder(
        request_id or f"reduce-{order_id}", UserId(user), at_ns, OrderId(order_id), symbol.symbol_id, quantity
    )


def replace(
    order_id: int,
    replaced: int,
    side: Side = Side.BUY,
    price: int = 100,
    quantity: int = 10,
    *,
    user: int = ALICE,
    symbol: Symbol = BTC_USD,
    at_ns: int = 1,
) -> ReplaceOrder:
    return ReplaceOrder(
        f"replace-{order_id}",
        UserId(user),
        at_ns,
        OrderId(order_id),
        symbol.symbol_id,
        OrderId(replaced),
        int(side),
        int(TimeInForce.GTC),
        price,
        quantity,
    )


class Desk:
    """A balance core with the bookkeeping of offsets that its service would do."""

    def __init__(self, top: Topology | None = None, partition: int = 0) -> None:
        self.core = BalanceCore(top or topology(), partition)
        self.partition = partition
        self.log: list[Decision] = []

    def ask(self, request: AnyRequest) -> Decision:
        decision = self.core.apply_request(request, ORDER_REQUESTS, self.partition, len(self.log))
        self.log.append(decision)
        return decision

    def funds(self, user: int = ALICE, asset: Asset = USD) -> tuple[int, int]:
        """(available, locked)."""
        balance = self.core.balance(UserId(user), asset.asset_id)
        return balance.available, balance.locked
