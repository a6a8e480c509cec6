"""The market that the synthetic flow trades in: assets, symbols, and how they are spread over partitions.

Symbols share their quote asset, differ in tick, lot and decimals, and one asset is base in one symbol and quote in
another (BTC), so that one user's funds in one asset are moved by several matching engines at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache

from schema.identifiers import AssetId, SymbolId
from schema.symbols import Asset, Symbol, SymbolTable
from schema.topics import Topology


@dataclass(frozen=True)
class Listing:
    """A symbol of the default market and the price, in ticks, at which its synthetic flow begins."""

    base: str
    quote: str
    base_decimals: int
    tick_size: str
    lot_size: str
    first_price: int


_QUOTE_DECIMALS = {"USDT": 6, "BTC": 8}

_LISTINGS: Sequence[Listing] = (
    Listing("BTC", "USDT", 8, "0.1", "0.0001", 600_000),
    Listing("ETH", "USDT", 9, "0.01", "0.001", 250_000),
    Listing("ETH", "BTC", 9, "0.00001", "0.01", 4_150),
    Listing("SOL", "USDT", 9, "0.01", "0.1", 14_500),
    Listing("XRP", "USDT", 6, "0.0001", "1", 5_200),
    Listing("DOGE", "USDT", 8, "0.00001", "10", 9_700),
    Listing("LTC", "USDT", 8, "0.01", "0.01", 8_300),
    Listing("SHIB", "USDT", 0, "0.000001", "1000", 2_700),
)

NAMED_LISTINGS = len(_LISTINGS)
"""So many symbols of the default market have names of their own."""


def listing(index: int) -> Listing:
    """The listing of the symbol `index`, from 0. Beyond the named ones they are made up, without end."""
    if index < len(_LISTINGS):
        return _LISTINGS[index]
    return Listing(
        base=f"TOKEN{index}",
        quote="USDT",
        base_decimals=2 + index % 7,
        tick_size=("0.01", "0.001", "0.05")[index % 3],
        lot_size=("0.1", "1", "0.01")[index % 3],
        first_price=1_000 + 37 * index,
    )


@cache
def _asset_ids(symbols: int) -> dict[str, tuple[int, int]]:
    """Asset name -> (id, decimals), numbered in the order in which the listings name them."""
    assets: dict[str, tuple[int, int]] = {}
    for index in range(symbols):
        each = listing(index)
        for name, decimals in ((each.base, each.base_decimals), (each.quote, _QUOTE_DECIMALS[each.quote])):
            assets.setdefault(name, (len(assets) + 1, decimals))
    return assets


def make_topology(symbols: int, user_partitions: int, symbol_partitions: int) -> Topology:
    """The default market with so many symbols, dealt out over the partitions in turn.

    There are never more symbol partitions than symbols. Raises ValueError for a count below 1.
    """
    if symbols < 1 or symbol_partitions < 1:
        raise ValueError(f"a market needs at least 1 symbol and 1 partition, not {symbols} and {symbol_partitions}")
    assets = {name: Asset(AssetId(number), name, decimals) for name, (number, decimals) in _asset_ids(symbols).items()}
    table = SymbolTable(
        Symbol(
            symbol_id=SymbolId(index + 1),
            name=f"{each.base}-{each.quote}",
            base=assets[each.base],
            quote=assets[each.quote],
            tick_size=Decimal(each.tick_size),
            lot_size=Decimal(each.lot_size),
            partition=index % symbol_partitions,
        )
        for index in range(symbols)
        for each in (listing(index),)
    )
    return Topology(table, user_partitions)


def first_price(symbol: Symbol) -> int:
    """The price, in ticks, at which the synthetic flow of a symbol begins; 10,000 for one of another market."""
    each = listing(symbol.symbol_id - 1)
    return each.first_price if symbol.name == f"{each.base}-{each.quote}" else 10_000
