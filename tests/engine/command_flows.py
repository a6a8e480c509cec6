"""Hypothesis strategies of what an engine partition may be sent: few users, few prices, so that everything collides."""

from hypothesis import strategies as st

from schema.codes import Side, TimeInForce
from schema.events import OrderCommand
from tests.engine.one_partition import BTC_USD, ETH_USD, cancel, place, reduce, replace

_symbols = st.sampled_from([BTC_USD, BTC_USD, BTC_USD, ETH_USD])
_users = st.integers(1, 4)
_sides = st.sampled_from(Side)
_prices = st.integers(1, 6)
_quantities = st.integers(1, 9)
_limit_kinds = st.sampled_from([TimeInForce.GTC] * 4 + [TimeInForce.IOC, TimeInForce.FOK, TimeInForce.POST_ONLY])
_market_kinds = st.sampled_from([TimeInForce.IOC, TimeInForce.FOK])


@st.composite
def commands(draw: st.DrawFn, max_size: int = 40) -> list[OrderCommand]:
    """Up to `max_size` commands. New orders mostly have new ids; the others name orders placed before, live or not.

    Three of four cancels, reduces and replaces come from the user and for the symbol of the order that they name.
    """
    sent: list[OrderCommand] = []
    placed = [(1, 1, BTC_USD)]
    for number in range(1, draw(st.integers(1, max_size)) + 1):
        kind = draw(st.sampled_from(["limit"] * 6 + ["market"] * 2 + ["cancel", "reduce", "replace"]))
        at_ns = draw(st.integers(0, 50)) + 5 * number
        user_id, symbol = draw(_users), draw(_symbols)
        named, owner, where = draw(st.sampled_from(placed))
        if kind in ("cancel", "reduce", "replace") and draw(st.integers(0, 3)):
            user_id, symbol = owner, where
        order_id = named if draw(st.integers(0, 19)) == 0 else number
        if kind == "limit":
            side, price, tif = draw(_sides), draw(_prices), draw(_limit_kinds)
            sent.append(place(order_id, user_id, side, draw(_quantities), price, tif, symbol=symbol, at_ns=at_ns))
        elif kind == "market":
            side, tif = draw(_sides), draw(_market_kinds)
            money = draw(st.integers(0, 60)) * 13 if side == Side.BUY else 0
            sent.append(
                place(order_id, user_id, side, draw(_quantities), 0, tif, max_spend=money, symbol=symbol, at_ns=at_ns)
            )
        elif kind == "cancel":
            sent.append(cancel(named, user_id, symbol, at_ns))
        elif kind == "reduce":
            sent.append(reduce(named, user_id, draw(st.integers(0, 9)), symbol, at_ns))
        else:
            side, price, tif = draw(_sides), draw(_prices), draw(_limit_kinds)
            sent.append(replace(named, order_id, user_id, side, draw(_quantities), price, tif, symbol, at_ns))
        if kind in ("limit", "market", "replace"):
            placed.append((order_id, user_id, symbol))
    return sent
