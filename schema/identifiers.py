"""Identifiers and integer units that must not be mistaken for one another (design section 4).

All of them fit a signed 64-bit column. Prices are counted in a symbol's ticks, quantities in its lots, amounts in an
asset's atoms, times in nanoseconds since 1970-01-01T00:00:00Z.
"""

from typing import Final, NewType

UserId = NewType("UserId", int)
OrderId = NewType("OrderId", int)
SymbolId = NewType("SymbolId", int)
AssetId = NewType("AssetId", int)
TradeId = NewType("TradeId", int)

INT64_MAX: Final = 2**63 - 1
"""The largest value of a bigint column; no price, quantity, amount, time or identifier may exceed it."""

NO_ORDER: Final = OrderId(0)
"""Stands where a record names no order. Real order ids start at 1."""

MAX_REQUEST_ID_BYTES: Final = 64
"""The longest request id, in bytes of UTF-8; a request with a longer one, or an empty one, is rejected."""
