"""What an order locks, pays and gets, in atoms (design section 4.2.1).

A limit buy locks price times quantity in the quote asset, a market buy the most it may spend, a sell its quantity in
the base asset. A fill debits what was locked and credits the other asset. What is locked and no longer needed is
released: the rest of an order that ended, the cut of a reduced one, the price improvement of a fill.
"""

from engine import plain_codes as code
from engine.book import Order, OrderBook
from schema.events import FundEntry
from schema.symbols import Symbol

Entries = tuple[FundEntry, ...]


class Market:
    """One symbol's book, and the symbol's arithmetic as plain attributes."""

    __slots__ = ("base_id", "book", "lot_atoms", "makers", "quote_id", "sides", "tick_lot_atoms")

    def __init__(self, symbol: Symbol, book: OrderBook) -> None:
        self.book = book
        self.sides = book.sides
        self.makers = book.makers
        self.base_id = symbol.base.asset_id
        self.quote_id = symbol.quote.asset_id
        self.lot_atoms = symbol.lot_atoms
        self.tick_lot_atoms = symbol.tick_lot_atoms

    def need(self, order: Order, quantity: int) -> int:
        """What `quantity` lots of a limit order or of a sell keep locked."""
        if order.side == code.SELL:
            return quantity * self.lot_atoms
        return self.cost(order, quantity)

    def cost(self, order: Order, quantity: int) -> int:
        """Quote atoms of `quantity` lots at the order's own price."""
        return order.price * quantity * self.tick_lot_atoms

    def lock(self, order: Order) -> int:
        """What was locked for the whole of a new order."""
        if order.order_type == code.MARKET and order.side == code.BUY:
            return order.max_spend
        return self.need(order, order.quantity)

    def release(self, order: Order, atoms: int) -> Entries:
        """Give back `atoms` of an order's lock; nothing for 0."""
        if not atoms:
            return ()
        asset_id = self.base_id if order.side == code.SELL else self.quote_id
        return (FundEntry(order.order_id, asset_id, code.RELEASE, atoms, -atoms),)

    def release_rest(self, order: Order) -> Entries:
        """Give back what a resting order, which is never filled, still locks: every cancel comes by here."""
        rest = order.quantity - order.filled_quantity
        if order.side == code.SELL:
            atoms = rest * self.lot_atoms
            return (FundEntry(order.order_id, self.base_id, code.RELEASE, atoms, -atoms),)
        atoms = order.price * rest * self.tick_lot_atoms
        return (FundEntry(order.order_id, self.quote_id, code.RELEASE, atoms, -atoms),)

    def settle(self, order: Order, quantity: int, quote: int) -> Entries:
        """The order's lock pays for a fill of `quantity` lots that cost `quote` atoms, and gets what it bought."""
        order_id = order.order_id
        base = quantity * self.lot_atoms
        if order.side == code.SELL:
            return (
                FundEntry(order_id, self.base_id, code.DEBIT, 0, -base),
                FundEntry(order_id, self.quote_id, code.CREDIT, quote, 0),
            )
        return (
            FundEntry(order_id, self.quote_id, code.DEBIT, 0, -quote),
            FundEntry(order_id, self.base_id, code.CREDIT, base, 0),
        )

    def settle_taker(self, taker: Order, still_needed: int) -> Entries:
        """All entries of a new order that traded or ended: fills, then what it locked too much."""
        quantity, quote = taker.filled_quantity, taker.filled_quote
        paid = quantity * self.lot_atoms if taker.side == code.SELL else quote
        released = self.release(taker, self.lock(taker) - paid - still_needed)
        return self.settle(taker, quantity, quote) + released if quantity else released


def summed(entries: Entries) -> Entries:
    """One entry for each order, asset and kind, where the first of them stands."""
    totals: dict[tuple[int, int, int], FundEntry] = {}
    for entry in entries:
        place = (entry.order_id, entry.asset_id, entry.kind)
        before = totals.get(place)
        totals[place] = (
            entry
            if before is None
            else FundEntry(
                entry.order_id,
                entry.asset_id,
                entry.kind,
                before.available_delta + entry.available_delta,
                before.locked_delta + entry.locked_delta,
            )
        )
    return tuple(totals.values())
