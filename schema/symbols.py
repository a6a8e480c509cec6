"""Assets and symbols, and the exact integer arithmetic between ticks, lots and atoms (design section 4).

A symbol's price counts ticks (quote currency per unit of base), its quantity counts lots (units of base), and amounts
count the atoms of an asset. One lot at one tick must cost a whole number of quote atoms, or the symbol is refused:
that one rule makes every amount in the system exact.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import cached_property

from schema.identifiers import INT64_MAX, AssetId, SymbolId


class SymbolError(ValueError):
    """A symbol, asset or decimal number that cannot be represented exactly; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Asset:
    """Something that is owned: `decimals` digits after the point make one atom."""

    asset_id: AssetId
    name: str
    decimals: int

    def __post_init__(self) -> None:
        if not 0 <= self.decimals <= 18:
            raise SymbolError(f"asset {self.name}: decimals must be 0 to 18, not {self.decimals}")
        if not 0 < self.asset_id <= INT64_MAX:
            raise SymbolError(f"asset {self.name}: id must be positive and fit a bigint, not {self.asset_id}")


@dataclass(frozen=True)
class Symbol:
    """A tradable pair. `tick_size` is quote currency per unit of base, `lot_size` is units of base.

    `partition` is its partition in every topic keyed by symbol, fixed for good.
    Raises SymbolError when a lot is not a whole number of base atoms, or a lot at one tick not one of quote atoms.
    """

    symbol_id: SymbolId
    name: str
    base: Asset
    quote: Asset
    tick_size: Decimal
    lot_size: Decimal
    partition: int

    def __post_init__(self) -> None:
        if not 0 < self.symbol_id <= INT64_MAX:
            raise SymbolError(f"symbol {self.name}: id must be positive and fit a bigint, not {self.symbol_id}")
        if self.base.asset_id == self.quote.asset_id:
            raise SymbolError(f"symbol {self.name}: base and quote are both {self.base.name}")
        if self.partition < 0:
            raise SymbolError(f"symbol {self.name}: partition must not be negative, got {self.partition}")
        for label, size in (("tick", self.tick_size), ("lot", self.lot_size)):
            if not size.is_finite() or size <= 0:
                raise SymbolError(f"symbol {self.name}: {label} size must be positive, not {size}")
        # Evaluated here so that a symbol that exists is a symbol that multiplies exactly.
        _ = self.lot_atoms, self.tick_lot_atoms

    @cached_property
    def lot_atoms(self) -> int:
        """Base atoms in one lot."""
        return _whole(
            Fraction(self.lot_size) * 10**self.base.decimals,
            f"symbol {self.name}: a lot of {self.lot_size} is not a whole number of {self.base.name} atoms",
        )

    @cached_property
    def tick_lot_atoms(self) -> int:
        """Quote atoms that one lot costs at a price of one tick."""
        return _whole(
            Fraction(self.tick_size) * Fraction(self.lot_size) * 10**self.quote.decimals,
            f"symbol {self.name}: tick {self.tick_size} times lot {self.lot_size} is not a whole number of "
            f"{self.quote.name} atoms",
        )

    def base_atoms(self, quantity: int) -> int:
        """Base atoms of `quantity` lots."""
        return quantity * self.lot_atoms

    def quote_atoms(self, price: int, quantity: int) -> int:
        """Quote atoms that `quantity` lots cost at `price` ticks."""
        return price * quantity * self.tick_lot_atoms

    def price_ticks(self, text: str) -> int:
        """A decimal price as ticks. Raises SymbolError when it is not a positive multiple of the tick size."""
        return _multiple(text, self.tick_size, f"price of {self.name}", "tick size")

    def quantity_lots(self, text: str) -> int:
        """A decimal quantity as lots. Raises SymbolError when it is not a positive multiple of the lot size."""
        return _multiple(text, self.lot_size, f"quantity of {self.name}", "lot size")

    def quote_amount(self, text: str) -> int:
        """A decimal amount of quote currency as atoms (the limit of a market buy)."""
        return amount_atoms(self.quote, text)

    def price_text(self, price: int) -> str:
        """`price` ticks as a decimal, without an exponent."""
        return f"{price * self.tick_size:f}"

    def quantity_text(self, quantity: int) -> str:
        """`quantity` lots as a decimal, without an exponent."""
        return f"{quantity * self.lot_size:f}"


class SymbolTable:
    """The symbols and assets that all services agree on; looked up by id or by name. Iterates in id order."""

    def __init__(self, symbols: Iterable[Symbol]) -> None:
        self.symbols: dict[SymbolId, Symbol] = {}
        self.assets: dict[AssetId, Asset] = {}
        self._by_name: dict[str, Symbol] = {}
        for symbol in sorted(symbols, key=lambda each: each.symbol_id):
            if symbol.symbol_id in self.symbols or symbol.name in self._by_name:
                raise SymbolError(f"symbol {symbol.name} (id {symbol.symbol_id}) is defined twice")
            self.symbols[symbol.symbol_id] = symbol
            self._by_name[symbol.name] = symbol
            for asset in (symbol.base, symbol.quote):
                if self.assets.setdefault(asset.asset_id, asset) != asset:
                    raise SymbolError(f"asset id {asset.asset_id} is defined twice, with different content")
        if not self.symbols:
            raise SymbolError("a symbol table needs at least one symbol")
        self.partitions = 1 + max(symbol.partition for symbol in self.symbols.values())
        """How many partitions the topics keyed by symbol need."""
        self._assets_by_name = {asset.name: asset for asset in self.assets.values()}
        if len(self._assets_by_name) != len(self.assets):
            raise SymbolError("two assets share a name")

    def __iter__(self) -> Iterator[Symbol]:
        return iter(self.symbols.values())

    def __len__(self) -> int:
        return len(self.symbols)

    def named(self, name: str) -> Symbol:
        """The symbol of that name. Raises SymbolError when there is none."""
        symbol = self._by_name.get(name)
        if symbol is None:
            raise SymbolError(f"unknown symbol {name!r}")
        return symbol

    def asset_named(self, name: str) -> Asset:
        """The asset of that name. Raises SymbolError when there is none."""
        asset = self._assets_by_name.get(name)
        if asset is None:
            raise SymbolError(f"unknown asset {name!r}")
        return asset


def amount_atoms(asset: Asset, text: str) -> int:
    """A decimal amount of an asset as atoms. Raises SymbolError when it is not a positive whole number of them."""
    return _multiple(text, Decimal(1).scaleb(-asset.decimals), f"amount of {asset.name}", "atom")


def amount_text(asset: Asset, atoms: int) -> str:
    """`atoms` of an asset as a decimal, without an exponent."""
    return f"{Decimal(atoms).scaleb(-asset.decimals):f}"


def _whole(value: Fraction, complaint: str) -> int:
    if value.denominator != 1 or value > INT64_MAX:
        raise SymbolError(complaint)
    return value.numerator


def _multiple(text: str, unit: Decimal, what: str, unit_name: str) -> int:
    # A client's number may be hostile: length and exponent are bounded before any arithmetic is done with it.
    if not isinstance(text, str) or len(text) > 40:
        raise SymbolError(f"{what}: not a decimal number of at most 40 characters")
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise SymbolError(f"{what}: {text!r} is not a decimal number") from None
    if not value.is_finite():
        raise SymbolError(f"{what}: {text!r} is not a finite number")
    if value <= 0:
        raise SymbolError(f"{what}: {text} must be greater than zero")
    if not -40 <= value.adjusted() <= 40:
        raise SymbolError(f"{what}: {text} is out of range")
    # Every client's order comes by here: whole numbers are ten times as fast as Fractions.
    numerator, denominator = value.as_integer_ratio()
    unit_numerator, unit_denominator = unit.as_integer_ratio()
    units, rest = divmod(numerator * unit_denominator, denominator * unit_numerator)
    if rest:
        raise SymbolError(f"{what}: {text} is not a multiple of the {unit_name} {unit:f}")
    if units > INT64_MAX:
        raise SymbolError(f"{what}: {text} does not fit a signed 64-bit column")
    return units
