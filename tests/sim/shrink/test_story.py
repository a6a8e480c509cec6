"""Every kind of operation, and a fault, in words that a stranger can follow."""

from dataclasses import replace

import msgspec
import pytest

from schema.codes import OrderType, Side, TimeInForce
from sim.flows.operations import CANCEL, DEPOSIT, PLACE, RAW, READ, REDUCE, REPLACE, WITHDRAW, Operation
from sim.run import written_out
from sim.scenario import Scenario
from sim.script import Strike
from sim.shrink.fewer import script_of
from sim.shrink.story import RAW_SHOWN, story

CASE = written_out(Scenario(seed=3, orders=5, users=4, symbols=1, faults="none", duration_ns=2_000_000_000))
SYMBOL = next(iter(script_of(CASE).topology.topology().symbols)).name


def told(*operations: Operation, strikes: tuple[Strike, ...] = (), work_began_ns: int | None = None) -> list[str]:
    """The story without its first line, which says what the times are."""
    script = msgspec.structs.replace(script_of(CASE), operations=operations, strikes=strikes)
    return story(replace(CASE, script=script), work_began_ns)[1:]


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        (Operation(0, 1, DEPOSIT, "d1", asset="USDT", amount=2_500_000), "user 1 deposits 2.500000 USDT (d1)"),
        (Operation(0, 1, WITHDRAW, "w1", asset="USDT", amount=1), "user 1 withdraws 0.000001 USDT (w1)"),
        (
            Operation(0, 2, PLACE, "o1", symbol=SYMBOL, side=int(Side.BUY), price=7, quantity=3),
            f"user 2 places o1: limit buy of 3 lots at 7 ticks {SYMBOL} GTC",
        ),
        (
            Operation(
                0,
                2,
                PLACE,
                "o1",
                symbol=SYMBOL,
                side=int(Side.BUY),
                order_type=int(OrderType.MARKET),
                time_in_force=int(TimeInForce.IOC),
                quantity=3,
                max_spend=12_000_000,
            ),
            f"user 2 places o1: market buy of 3 lots {SYMBOL} IOC, spending at most 12.000000 USDT",
        ),
        (
            Operation(0, 2, REPLACE, "o2", symbol=SYMBOL, reference="o1", side=int(Side.SELL), price=7, quantity=3),
            f"user 2 replaces o1 by o2: limit sell of 3 lots at 7 ticks {SYMBOL} GTC",
        ),
        (Operation(0, 2, CANCEL, "x1", reference="o1"), "user 2 cancels o1 (x1)"),
        (Operation(0, 2, CANCEL, "x1", reference="o1", reference_user_id=2), "user 2 cancels o1 (x1)"),
        (Operation(0, 2, CANCEL, "x1", reference="o1", reference_user_id=3), "user 2 cancels o1 of user 3 (x1)"),
        (Operation(0, 2, REDUCE, "x1", reference="o1", quantity=2), "user 2 reduces o1 to 2 lots (x1)"),
        (Operation(0, 2, READ, "q1", query="active_orders"), "user 2 reads active orders"),
        (Operation(0, 2, READ, "q1", query="order", reference="o1"), "user 2 reads order o1"),
        (
            Operation(0, 2, READ, "q1", query="history", symbol=SYMBOL, limit=5),
            f"user 2 reads history of {SYMBOL}, 5 at most",
        ),
        (Operation(0, 2, RAW, "h1", raw="{"), "user 2 sends '{'"),
        (
            Operation(0, 2, RAW, "h1", raw="x" * (RAW_SHOWN + 9)),
            f"user 2 sends '{'x' * RAW_SHOWN}' and 9 characters more",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_operation(operation: Operation, words: str) -> None:
    assert told(operation)[0] == f"  0.000000 s  {words} at gateway 1"


def test_the_gateway_is_one_that_there_is() -> None:
    assert CASE.gateways == 2
    assert told(Operation(0, 1, READ, "q1", query="balances", gateway=108))[0].endswith("at gateway 1")
    assert told(Operation(0, 1, READ, "q1", query="balances", gateway=3))[0].endswith("at gateway 2")


def test_operations_and_faults_stand_in_the_order_of_time() -> None:
    lines = told(
        Operation(2_000_000, 1, DEPOSIT, "d1", asset="USDT", amount=1, repeat_after_ns=500_000_000),
        Operation(4_000_000, 1, READ, "q1", query="balances"),
        strikes=(Strike("crash", 3_000_000, 0, "matching-1", 0),),
    )
    assert [line[:12] for line in lines] == ["  0.002000 s", "  0.003000 s", "  0.004000 s", "  2.000000 s"]
    assert lines[0].endswith("at gateway 1, and again after 0.5 s")
    assert lines[1].endswith("fault: crash on matching-1")
    assert lines[-1].endswith("faults are healed, and the system settles")


def test_times_are_those_of_the_trace_where_it_is_known_when_the_work_began() -> None:
    script = msgspec.structs.replace(
        script_of(CASE), operations=(Operation(1_839_419_000, 1, READ, "q1", query="balances"),), strikes=()
    )
    lines = story(replace(CASE, script=script), 6_000_000_000)
    assert [line[:12] for line in lines] == ["  6.000000 s", "  7.839419 s", "  8.000000 s"]
    assert lines[0].endswith("the work begins")


def test_without_a_trace_the_first_line_says_what_the_times_count_from() -> None:
    assert "since the work began" in story(CASE)[0]


def test_a_fault_has_no_time_but_the_storys() -> None:
    strike = Strike("no-leader", 214_000_000, 1_500_000_000, "validated.orders", 5, "during-recovery")
    lines = told(strikes=(strike,), work_began_ns=6_000_000_000)
    assert lines[0] == (
        "  6.214000 s  fault: no-leader on validated.orders for 1.500 s, strength 5, waiting for during-recovery"
    )
