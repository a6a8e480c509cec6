"""The small integer codes that stand in events and rows (design sections 4.1, 4.2 and 4.5).

The values are part of the wire format and of stored rows: a code is never renumbered or reused. Events carry them as
plain integers, because decoding into enum members costs as much as the rest of a small event.
"""

from enum import IntEnum


class Side(IntEnum):
    BUY = 0
    SELL = 1


class OrderType(IntEnum):
    MARKET = 0
    LIMIT = 1


class TimeInForce(IntEnum):
    GTC = 0
    """Good till cancelled: what does not trade rests."""
    IOC = 1
    """Immediate or cancel: what does not trade at once is cancelled."""
    FOK = 2
    """Fill or kill: trades whole at once, or is refused."""
    POST_ONLY = 3
    """Rests without trading, or is refused."""


class OrderStatus(IntEnum):
    """`status` of a row. 0 and 1 are live; every other status is final."""

    NEW = 0
    PARTIALLY_FILLED = 1
    FILLED = 2
    CANCELLED = 3
    REJECTED = 4
    """Only in order_history: the order was refused, by the balance core or by the engine, and never lived."""


LIVE_STATUSES: tuple[int, int] = (int(OrderStatus.NEW), int(OrderStatus.PARTIALLY_FILLED))


class Reason(IntEnum):
    """Why an order ended, was refused, or a request was rejected. 0 stands in events that need none."""

    NONE = 0
    # An order that was live ended (OrderCompletion).
    FILLED = 1
    CANCELLED_BY_USER = 2
    UNFILLED_REST = 3
    """The rest of an immediate-or-cancel or market order that found nothing more to trade with."""
    SELF_TRADE = 4
    MATCH_LIMIT = 5
    REDUCED = 6
    """A reduce asked for no more than was filled already."""
    REPLACED = 7
    SPEND_LIMIT = 8
    """The rest of a market buy whose remaining limit does not buy one more lot at the best price."""
    # The engine refused a new order (OrderRejected).
    WOULD_CROSS = 20
    CANNOT_FILL = 21
    DUPLICATE_ORDER_ID = 22
    REPLACED_ORDER_NOT_LIVE = 23
    # The engine could not do what was asked of an order.
    NOT_LIVE = 30
    """No such live order of this user and symbol: it ended before, or never was."""
    INVALID_REDUCTION = 31
    """A reduce to the order's quantity or more."""
    # The balance core rejected the request.
    UNKNOWN_SYMBOL = 40
    UNKNOWN_ASSET = 41
    INVALID_PRICE = 42
    INVALID_QUANTITY = 43
    INVALID_AMOUNT = 44
    INVALID_COMBINATION = 45
    """Side, type, time in force and limits that do not go together."""
    OVERFLOW = 46
    """An amount or balance would not fit a signed 64-bit column. The engine cancels the rest of a sell for it, whose
    proceeds would not if its rest were sold too."""
    INSUFFICIENT_FUNDS = 47
    REQUEST_ID_REUSED = 48
    """The request id was used before for another body."""
    INVALID_IDENTIFIER = 49


class Verdict(IntEnum):
    """What the engine made of an accepted request; the second response to the client."""

    NONE = 0
    PLACED = 1
    REFUSED = 2
    CANCELLED = 3
    REDUCED = 4
    REPLACED = 5
    TOO_LATE = 6
    """The order to cancel, reduce or replace is not live (any more)."""
    INVALID = 7
    """A reduce that would not reduce."""


class Outcome(IntEnum):
    """The balance core's first answer to a request."""

    ACCEPTED = 0
    """Funds are locked and the request is on its way; or the deposit or withdrawal is done."""
    REJECTED = 1


class EntryKind(IntEnum):
    """What one change of a balance was (design section 4.2)."""

    DEPOSIT = 0
    WITHDRAWAL = 1
    LOCK = 2
    """available -> locked, when an order is accepted."""
    RELEASE = 3
    """locked -> available: completion, refusal, reduction, or price improvement."""
    DEBIT = 4
    """locked -> the counterparty: what a fill costs."""
    CREDIT = 5
    """the counterparty -> available: what a fill brings."""
