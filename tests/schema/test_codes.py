"""Codes stand in stored rows and records: none may be renumbered (design section 4.5)."""

from enum import IntEnum

from schema.codes import LIVE_STATUSES, EntryKind, OrderStatus, OrderType, Outcome, Reason, Side, TimeInForce, Verdict
from schema.events import OrderState


def test_codes_of_rows_are_those_of_the_design() -> None:
    assert (Side.BUY, Side.SELL) == (0, 1)
    assert (OrderType.MARKET, OrderType.LIMIT) == (0, 1)
    assert (OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED, OrderStatus.FILLED, OrderStatus.CANCELLED) == (0, 1, 2, 3)
    assert LIVE_STATUSES == (0, 1)


def names(kind: type[IntEnum]) -> dict[int, str]:
    return {each.value: each.name for each in kind}


def test_no_code_was_renumbered() -> None:
    """Add new members at the end of this picture; never change what stands in it."""
    assert names(TimeInForce) == {0: "GTC", 1: "IOC", 2: "FOK", 3: "POST_ONLY"}
    assert names(Outcome) == {0: "ACCEPTED", 1: "REJECTED"}
    assert names(EntryKind) == {0: "DEPOSIT", 1: "WITHDRAWAL", 2: "LOCK", 3: "RELEASE", 4: "DEBIT", 5: "CREDIT"}
    assert names(Verdict) == {
        0: "NONE",
        1: "PLACED",
        2: "REFUSED",
        3: "CANCELLED",
        4: "REDUCED",
        5: "REPLACED",
        6: "TOO_LATE",
        7: "INVALID",
    }
    assert names(Reason) == names(Reason) | {
        0: "NONE",
        1: "FILLED",
        2: "CANCELLED_BY_USER",
        3: "UNFILLED_REST",
        4: "SELF_TRADE",
        5: "MATCH_LIMIT",
        6: "REDUCED",
        7: "REPLACED",
        8: "SPEND_LIMIT",
        20: "WOULD_CROSS",
        21: "CANNOT_FILL",
        22: "DUPLICATE_ORDER_ID",
        23: "REPLACED_ORDER_NOT_LIVE",
        30: "NOT_LIVE",
        31: "INVALID_REDUCTION",
        47: "INSUFFICIENT_FUNDS",
        48: "REQUEST_ID_REUSED",
    }


def test_fields_of_an_order_state_keep_their_places_on_the_wire() -> None:
    assert OrderState.__struct_fields__[:8] == (
        "order_id", "user_id", "symbol_id", "created_at_ns", "updated_at_ns", "revision", "status", "reason",
    )  # fmt: skip
