"""The codes of schema.codes as plain integers.

Events carry plain integers, and reading a member of an enum class costs as much as making an event in Python 3.11.
Imported as `from engine import plain_codes as code`. Where names clash, statuses keep theirs and others are prefixed.
"""

from typing import Final

from schema.codes import EntryKind, OrderStatus, OrderType, Reason, Side, TimeInForce, Verdict

BUY: Final = int(Side.BUY)
SELL: Final = int(Side.SELL)

MARKET: Final = int(OrderType.MARKET)
LIMIT: Final = int(OrderType.LIMIT)

GTC: Final = int(TimeInForce.GTC)
IOC: Final = int(TimeInForce.IOC)
FOK: Final = int(TimeInForce.FOK)
POST_ONLY: Final = int(TimeInForce.POST_ONLY)

NEW: Final = int(OrderStatus.NEW)
PARTIALLY_FILLED: Final = int(OrderStatus.PARTIALLY_FILLED)
FILLED: Final = int(OrderStatus.FILLED)
CANCELLED: Final = int(OrderStatus.CANCELLED)
REJECTED: Final = int(OrderStatus.REJECTED)

NO_REASON: Final = int(Reason.NONE)
REASON_FILLED: Final = int(Reason.FILLED)
CANCELLED_BY_USER: Final = int(Reason.CANCELLED_BY_USER)
UNFILLED_REST: Final = int(Reason.UNFILLED_REST)
SELF_TRADE: Final = int(Reason.SELF_TRADE)
MATCH_LIMIT: Final = int(Reason.MATCH_LIMIT)
REASON_REDUCED: Final = int(Reason.REDUCED)
REASON_REPLACED: Final = int(Reason.REPLACED)
SPEND_LIMIT: Final = int(Reason.SPEND_LIMIT)
OVERFLOW: Final = int(Reason.OVERFLOW)
WOULD_CROSS: Final = int(Reason.WOULD_CROSS)
CANNOT_FILL: Final = int(Reason.CANNOT_FILL)
DUPLICATE_ORDER_ID: Final = int(Reason.DUPLICATE_ORDER_ID)
REPLACED_ORDER_NOT_LIVE: Final = int(Reason.REPLACED_ORDER_NOT_LIVE)
NOT_LIVE: Final = int(Reason.NOT_LIVE)
INVALID_REDUCTION: Final = int(Reason.INVALID_REDUCTION)

PLACED: Final = int(Verdict.PLACED)
REFUSED: Final = int(Verdict.REFUSED)
VERDICT_CANCELLED: Final = int(Verdict.CANCELLED)
VERDICT_REDUCED: Final = int(Verdict.REDUCED)
VERDICT_REPLACED: Final = int(Verdict.REPLACED)
TOO_LATE: Final = int(Verdict.TOO_LATE)
INVALID: Final = int(Verdict.INVALID)

RELEASE: Final = int(EntryKind.RELEASE)
DEBIT: Final = int(EntryKind.DEBIT)
CREDIT: Final = int(EntryKind.CREDIT)
