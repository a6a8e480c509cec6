"""What bounds the work and the output of one input (design section 4.1.7)."""

from typing import Final

MATCH_LIMIT: Final = 1_000
"""The most makers that one taker meets; its rest is cancelled. So no output is too large to send."""
