"""Goals of the database: each is reached by a few statements, and not by others that are almost the same."""

from typing import Any

import pytest

from schema.tables import ACTIVE_ORDERS, BALANCE_LEDGER, ORDER_LOOKUP, SCHEMA_VERSION_TABLE, USER_BALANCES, USER_TRADES
from tests.traces.reachability.by_hand import (
    Case,
    Cases,
    Event,
    count,
    event,
    goals_in,
    insert,
    life,
    near_misses,
    phase,
)

FIRST, SECOND = "settlement-1", "settlement-2"


def failed(t: int, host: str = FIRST, *, outcome: str = "WriteTimeout", **columns: Any) -> Event:
    return insert(t, host, outcome=outcome, **columns)


def select(t: int, host: str, *, table: str = ACTIVE_ORDERS, outcome: str = "ReadTimeout") -> Event:
    return event("cql", t, host, table=table, operation="SELECT", outcome=outcome)


def given(t: int, host: str = FIRST) -> Event:
    """Settlement on this host was given partitions."""
    return event("rebalances", t, host, group="settlement", action="assign")


def final(look: int, status: int) -> Event:
    """The order's row, at the one look or the other."""
    return event("final_active_orders", 100 + look, look=look, order_id=1, status=status)


CANCELLED, NEW = 3, 0
LATER = [phase(100, "settled"), phase(101, "later")]

CASES: Cases = {
    "write-of-unknown-outcome": Case(
        [failed(2, outcome="OperationTimedOut")],
        {
            "refused": [failed(2, outcome="Unavailable")],
            "not a row": [failed(2, table=SCHEMA_VERSION_TABLE)],
            "a read": [select(2, FIRST, outcome="OperationTimedOut")],
        },
    ),
    "write-timed-out-and-applied": Case(
        [failed(2, replicas=1)],
        {"applied nowhere": [failed(2, replicas=0)], "no time-out": [failed(2, outcome="Unavailable", replicas=1)]},
    ),
    "write-repeated-until-it-succeeded": Case(
        [given(0), failed(2), failed(4, started=3), insert(6, started=5)],
        {
            "never repeated": [failed(2)],
            "never with success": [failed(2), failed(4, started=3)],
            "another revision": [failed(2), insert(6, started=5, write_timestamp=2)],
            "another order": [failed(2), insert(6, started=5, order_id=2)],
            "another asset's balance with the same sequence": [
                failed(2, table=USER_BALANCES, order_id=-1),
                insert(6, started=5, table=USER_BALANCES, order_id=-1),
            ],
            "another asset's entry of the order's": [
                failed(2, table=BALANCE_LEDGER),
                insert(6, started=5, table=BALANCE_LEDGER),
            ],
            "another trade of the order's": [failed(2, table=USER_TRADES), insert(6, started=5, table=USER_TRADES)],
            "by another instance": [failed(2), insert(6, SECOND, started=5)],
            "sent before the other failed": [failed(2), insert(6, started=1)],
            "replayed after a rebalance": [failed(2), given(4), insert(6, started=5)],
            "replayed after a restart": [failed(2), life(4, FIRST, "start"), insert(6, started=5)],
        },
    ),
    "write-refused-as-unavailable": Case([failed(2, outcome="Unavailable")], {"timed out": [failed(2)]}),
    "read-failed-in-the-database": Case(
        [select(2, "gateway-1")],
        {
            "answered": [select(2, "gateway-1", outcome="ok")],
            "settlement's": [select(2, FIRST)],
            "the schema's version, at its start": [select(2, "gateway-1", table=SCHEMA_VERSION_TABLE)],
        },
    ),
    "batch-half-written": Case(
        [insert(2, symbol_id=1), failed(3, symbol_id=1, order_id=2)],
        {
            "all written": [insert(2, symbol_id=1), insert(3, symbol_id=1, order_id=2)],
            "all failed": [failed(2, symbol_id=1), failed(3, symbol_id=1, order_id=2)],
            "one after the other": [insert(2, symbol_id=1), failed(3, started=1, symbol_id=1, order_id=2)],
            "of two partitions": [insert(2, symbol_id=1), failed(3, symbol_id=2, order_id=2)],
            "of two instances": [insert(2, symbol_id=1), failed(3, SECOND, symbol_id=1, order_id=2)],
            "of two topics": [insert(2, symbol_id=1), failed(3, symbol_id=-1, table=BALANCE_LEDGER)],
        },
    ),
    "row-written-again": Case(
        [insert(2), insert(4, started=3)],
        {
            "repeated after an error": [failed(2), insert(4, started=3)],
            "the next revision": [insert(2), insert(4, started=3, write_timestamp=2)],
            "twice at once": [insert(2), insert(4, SECOND, started=1)],
            "its lookup": [insert(2), insert(2, table=ORDER_LOOKUP)],
        },
    ),
    "row-written-by-two-instances": Case(
        [insert(2), insert(4, SECOND, started=3)],
        {
            "by one": [insert(2), insert(4, started=3)],
            "the first failed": [failed(2), insert(4, SECOND, started=3)],
            "each another revision": [insert(2), insert(4, SECOND, started=3, write_timestamp=2)],
        },
    ),
    "older-revision-written-last": Case(
        [insert(2, write_timestamp=2), insert(4, SECOND, started=3, write_timestamp=1)],
        {
            "in their order": [insert(2, write_timestamp=1), insert(4, started=3, write_timestamp=2)],
            "both under way at once": [insert(2, write_timestamp=2), insert(4, SECOND, started=1, write_timestamp=1)],
            "the newer one failed": [failed(2, write_timestamp=2), insert(4, SECOND, started=3, write_timestamp=1)],
            "another order's": [insert(2, write_timestamp=2), insert(4, started=3, write_timestamp=1, order_id=2)],
            "the same again": [insert(2, write_timestamp=2), insert(4, started=3, write_timestamp=2)],
        },
    ),
    "finished-row-expired": Case(
        [*LATER, final(0, CANCELLED)],
        {
            "still there": [*LATER, final(0, CANCELLED), final(1, CANCELLED)],
            "a live order's, lost": [*LATER, final(0, NEW)],
            "nobody looked": [LATER[0], final(0, CANCELLED)],
        },
    ),
}


def test_every_goal_has_a_case() -> None:
    assert CASES.keys() == goals_in("database")
    assert all(case.near_misses for case in CASES.values())


@pytest.mark.parametrize("goal", CASES)
def test_goal_is_reached(goal: str) -> None:
    assert count(goal, CASES[goal].reached) == 1


@pytest.mark.parametrize(("goal", "why"), near_misses(CASES))
def test_goal_is_not_reached(goal: str, why: str) -> None:
    assert count(goal, CASES[goal].near_misses[why]) == 0
