"""Limits that several services keep to, so that no input makes an output too large to send (design section 4.1.7)."""

from typing import Final

MATCH_LIMIT: Final = 1_000
"""The most makers that one taker meets; its rest is cancelled."""

MAX_REQUEST_ID_BYTES: Final = 64
"""The longest request id (client order id), in bytes of UTF-8; the gateway and the balance core refuse longer ones."""
