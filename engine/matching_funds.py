"""What an order locks, pays and gets, in atoms (design section 4.2.1).

A limit buy locks price times quantity in the quote asset, a market buy the most it may spend, a sell its quantity in
the base asset. A fill debits what was locked and credits the other asset. What is locked and no longer needed is
released: the rest of an order that ended, the cut of a reduced one, the price improvement of a fill.
"""

from engine.book import Order, OrderBook
from schema.codes import EntryKind, OrderType, Side
from schema.events import FundEntry
from schema.symbols import Symbol

_SELL = int(Side.SELL)
_MARKET = int(OrderType.MARKET)
_DEBIT, _CREDIT, _RELEASE = int(EntryKind.DEBIT), int(EntryKind.CREDIT), int(EntryKind.RELEASE)


class Market:
    """One symbol's book, and the symbol's arithmetic as plain attributes."""

    __slots__ = ("base_id", "book", "lot_atoms", "quote_id", "tick_lot_atoms")

    def __init__(self, symbol: Symbol, book: OrderBook) -> None:
        self.book = book
        self.base_id = symbol.base.asset_id
        self.quote_id = symbol.quote.asset_id
        self.lot_atoms = symbol.lot_atoms
        self.tick_lot_atoms = symbol.tick_lot_atoms

    def locked_by(self, order: Order, quantity: int) -> int:
        """What `quantity` lots of a limit order, or of a sell, lock."""
        return quantity * self.lot_atoms if order.side == _SELL else order.price * quantity * self.tick_lot_atoms

    def lock_of(self, order: Order) -> int:
        """What was locked for the whole of a new order."""
        if order.order_type == _MARKET and order.side != _SELL:
            return order.max_spend
        return self.locked_by(order, order.quantity)

    def paid(self, order: Order, quantity: int, quote: int) -> int:
        """What fills of `quantity` lots for `quote` atoms took of the order's lock."""
        return quantity * self.lot_atoms if order.side == _SELL else quote


def fund_entries(market: Market, order: Order, quantity: int, quote: int, released: int) -> list[FundEntry]:
    """One order's entries: for fills of `quantity` lots at a cost of `quote` atoms, and for what is released."""
    order_id = order.order_id
    if order.side == _SELL:
        locked_id, got_id = market.base_id, market.quote_id
        paid, got = quantity * market.lot_atoms, quote
    else:
        locked_id, got_id = market.quote_id, market.base_id
        paid, got = quote, quantity * market.lot_atoms
    entries = []
    if quantity:
        entries.append(FundEntry(order_id, locked_id, _DEBIT, 0, -paid))
        entries.append(FundEntry(order_id, got_id, _CREDIT, got, 0))
    if released:
        entries.append(FundEntry(order_id, locked_id, _RELEASE, released, -released))
    return entries
