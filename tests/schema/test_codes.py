"""Codes stand in stored rows and records: none may be renumbered (design section 4.5)."""

from schema.codes import LIVE_STATUSES, EntryKind, OrderStatus, OrderType, Outcome, Reason, Side, TimeInForce, Verdict
from schema.events import OrderState


def test_codes_of_rows_are_those_of_the_design() -> None:
    assert (Side.BUY, Side.SELL) == (0, 1)
    assert (OrderType.MARKET, OrderType.LIMIT) == (0, 1)
    assert (OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED, OrderStatus.FILLED, OrderStatus.CANCELLED) == (0, 1, 2, 3)
    assert LIVE_STATUSES == (0, 1)


def test_no_code_was_renumbered() -> None:
    """Add new members at the end of this picture; never change what stands in it."""
    assert {
        kind.__name__: [(each.name, each.value) for each in kind] for kind in (TimeInForce, Outcome, EntryKind)
    } == {
        "TimeInForce": [("GTC", 0), ("IOC", 1), ("FOK", 2), ("POST_ONLY", 3)],
        "Outcome": [("ACCEPTED", 0), ("REJECTED", 1)],
        "EntryKind": [("DEPOSIT", 0), ("WITHDRAWAL", 1), ("LOCK", 2), ("RELEASE", 3), ("DEBIT", 4), ("CREDIT", 5)],
    }
    assert [each.name for each in Verdict] == (
        ["NONE", "PLACED", "REFUSED", "CANCELLED", "REDUCED", "REPLACED", "TOO_LATE", "INVALID"]
    )
    assert [each.value for each in Verdict] == list(range(8))
    reasons = {each.value: each.name for each in Reason}
    assert [reasons[code] for code in (0, 1, 2, 3, 4, 5, 6, 7, 8)] == (
        [
            "NONE",
            "FILLED",
            "CANCELLED_BY_USER",
            "UNFILLED_REST",
            "SELF_TRADE",
            "MATCH_LIMIT",
            "REDUCED",
            "REPLACED",
            "SPEND_LIMIT",
        ]
    )
    assert [reasons[code] for code in (20, 21, 22, 23, 30, 31)] == (
        ["WOULD_CROSS", "CANNOT_FILL", "DUPLICATE_ORDER_ID", "REPLACED_ORDER_NOT_LIVE", "NOT_LIVE", "INVALID_REDUCTION"]
    )


def test_fields_of_an_order_state_keep_their_places_on_the_wire() -> None:
    assert OrderState.__struct_fields__[:8] == (
        "order_id", "user_id", "symbol_id", "created_at_ns", "updated_at_ns", "revision", "status", "reason",
    )  # fmt: skip
