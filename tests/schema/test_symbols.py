"""Exact arithmetic between decimals, ticks, lots and atoms (design section 4)."""

from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.identifiers import INT64_MAX, AssetId, SymbolId
from schema.symbols import Asset, Symbol, SymbolError, SymbolTable, amount_atoms, amount_text

BTC = Asset(AssetId(1), "BTC", 8)
USD = Asset(AssetId(2), "USD", 6)
ETH = Asset(AssetId(3), "ETH", 18)


def symbol(
    tick: str = "0.01",
    lot: str = "0.0001",
    symbol_id: int = 1,
    name: str = "BTC-USD",
    base: Asset = BTC,
    partition: int = 0,
) -> Symbol:
    return Symbol(SymbolId(symbol_id), name, base, USD, Decimal(tick), Decimal(lot), partition)


def test_amounts_of_a_trade_are_whole_atoms() -> None:
    btc_usd = symbol()
    assert (btc_usd.lot_atoms, btc_usd.tick_lot_atoms) == (10_000, 1)
    assert btc_usd.base_atoms(15) == 150_000
    assert btc_usd.quote_atoms(6_500_000, 15) == 97_500_000


def test_tick_and_lot_that_do_not_multiply_exactly_are_refused() -> None:
    with pytest.raises(SymbolError, match="not a whole number of USD atoms"):
        symbol(tick="0.01", lot="0.00001")


def test_lot_that_is_no_whole_number_of_atoms_is_refused() -> None:
    with pytest.raises(SymbolError, match="not a whole number of BTC atoms"):
        symbol(tick="1000", lot="0.000000001")


@pytest.mark.parametrize(("tick", "lot"), [("0", "1"), ("-1", "1"), ("1", "0"), ("NaN", "1"), ("1", "Infinity")])
def test_sizes_must_be_positive_numbers(tick: str, lot: str) -> None:
    with pytest.raises(SymbolError, match="must be positive"):
        symbol(tick, lot)


def test_symbol_of_one_asset_against_itself_is_refused() -> None:
    with pytest.raises(SymbolError, match="both USD"):
        symbol(base=USD)


@pytest.mark.parametrize("decimals", [-1, 19])
def test_asset_has_at_most_eighteen_decimals(decimals: int) -> None:
    with pytest.raises(SymbolError, match="decimals"):
        Asset(AssetId(1), "X", decimals)


@given(st.integers(1, INT64_MAX))
def test_price_and_quantity_texts_read_back_as_the_same_integers(units: int) -> None:
    btc_usd = symbol()
    assert btc_usd.price_ticks(btc_usd.price_text(units)) == units
    assert btc_usd.quantity_lots(btc_usd.quantity_text(units)) == units


@given(st.integers(1, INT64_MAX), st.sampled_from([BTC, USD, ETH]))
def test_amount_text_reads_back_as_the_same_atoms(atoms: int, asset: Asset) -> None:
    text = amount_text(asset, atoms)
    assert "E" not in text
    assert amount_atoms(asset, text) == atoms


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("0.015", "not a multiple of the tick size 0.01"),
        ("0", "greater than zero"),
        ("-1", "greater than zero"),
        ("", "not a decimal"),
        ("1,5", "not a decimal"),
        ("NaN", "not a finite"),
        ("sNaN", "not a finite"),
        ("Infinity", "not a finite"),
        ("1e30", "64-bit"),
        ("1e999999", "out of range"),
        ("1e-999999", "out of range"),
        ("9" * 41, "at most 40"),
    ],
)
def test_number_that_is_no_price_is_refused_with_a_reason(text: str, complaint: str) -> None:
    with pytest.raises(SymbolError, match=complaint):
        symbol().price_ticks(text)


@given(st.text(max_size=50))
def test_any_text_is_a_price_or_a_symbol_error(text: str) -> None:
    with suppress(SymbolError):
        assert 0 < symbol().price_ticks(text) <= INT64_MAX


def test_exponents_are_read_where_they_are_exact() -> None:
    assert symbol().price_ticks("1.5e2") == 15_000


def test_table_iterates_in_id_order_and_finds_by_name() -> None:
    one, two = symbol(symbol_id=1), symbol(symbol_id=2, name="ETH-USD", base=ETH, lot="0.0001", partition=4)
    table = SymbolTable([two, one])
    assert list(table) == [one, two]
    assert table.named("ETH-USD") is two
    assert table.asset_named("ETH") is ETH
    assert table.partitions == 5


@pytest.mark.parametrize(
    ("symbols", "complaint"),
    [
        ([], "at least one"),
        ([symbol(), symbol()], "defined twice"),
        ([symbol(), symbol(symbol_id=2)], "defined twice"),
        ([symbol(), symbol(symbol_id=2, name="X", base=Asset(AssetId(1), "BTC", 7))], "asset id 1"),
        ([symbol(), symbol(symbol_id=2, name="X", base=Asset(AssetId(9), "BTC", 8))], "share a name"),
    ],
)
def test_table_with_contradictions_is_refused(symbols: list[Symbol], complaint: str) -> None:
    with pytest.raises(SymbolError, match=complaint):
        SymbolTable(symbols)


@pytest.mark.parametrize("name", ["", "btc-usd", "DOGE"])
def test_unknown_name_is_a_symbol_error(name: str) -> None:
    table = SymbolTable([symbol()])
    with pytest.raises(SymbolError, match="unknown symbol"):
        table.named(name)
    with pytest.raises(SymbolError, match="unknown asset"):
        table.asset_named(name)
