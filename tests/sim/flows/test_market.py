import pytest

from sim.flows.market import first_price, make_topology


def test_symbols_share_their_quote_asset_and_differ_in_tick_and_lot() -> None:
    symbols = list(make_topology(4, 3, 2).symbols)
    assert sum(symbol.quote.name == "USDT" for symbol in symbols) == 3
    assert len({(symbol.tick_size, symbol.lot_size) for symbol in symbols}) == 4


def test_one_asset_is_base_here_and_quote_there() -> None:
    symbols = list(make_topology(3, 3, 2).symbols)
    assert {symbol.base.name for symbol in symbols} & {symbol.quote.name for symbol in symbols} == {"BTC"}


@pytest.mark.parametrize("count", [1, 8, 9, 300])
def test_any_number_of_symbols_has_distinct_names_and_exact_sizes(count: int) -> None:
    table = make_topology(count, 3, 5).symbols
    assert len(table) == count
    assert table.partitions == min(count, 5)
    assert all(first_price(symbol) > 0 for symbol in table)


def test_more_symbols_leave_the_first_ones_as_they_were() -> None:
    few, many = make_topology(3, 3, 2).symbols, make_topology(50, 3, 2).symbols
    assert list(few) == list(many)[:3]


@pytest.mark.parametrize(("symbols", "partitions"), [(0, 1), (1, 0)])
def test_an_empty_market_is_refused(symbols: int, partitions: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        make_topology(symbols, 3, partitions)
