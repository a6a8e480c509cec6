"""Goals of clients: each is reached by a few requests and reads, and not by others that are almost the same.

A world's requests are answered at once; what a client asked and heard besides is written by hand. Orders are numbered
from 1 as they are placed.
"""

from typing import Any

import pytest

from benchmarks.mini_world import BUY, SELL, STEP_NS, TOPOLOGY, USD, MiniWorld
from schema import wire
from schema.events import DeadLetter
from schema.identifiers import UserId
from schema.tables import ACTIVE_ORDERS
from schema.topics import BALANCE_EVENTS, DEAD_LETTERS, VALIDATED_ORDERS
from tests.traces.reachability.by_hand import goals_in
from tests.traces.reachability.worlds import World, Worlds, name_of, times

WORLDS = Worlds()
reaches, misses = WORLDS.reaches, WORLDS.misses

NEW, CANCELLED = 0, 3


def ask(world: MiniWorld, gateway: str = "", *, attempt: int = 1, request_id: str = "r", **columns: Any) -> None:
    """User 1 submits a request."""
    columns = {"command": "place", **columns}
    row = world.emit("client_requests", user_id=1, request_id=request_id, attempt=attempt, **columns)
    row["host"] = gateway


def hear(world: MiniWorld, outcome: str, *, attempt: int = 1) -> None:
    """User 1 is answered."""
    world.emit("client_answers", user_id=1, request_id="r", attempt=attempt, command="place", outcome=outcome)


def deposit(world: MiniWorld, amount: int = 5, *, request_id: str = "r") -> None:
    world.transfer(1, USD.asset_id, amount, request_id=request_id)


def place_unanswered(world: MiniWorld) -> None:
    """An order is placed, and its user not told."""
    world.place(1, SELL, 100, 5, request_id="r")
    world.events["client_answers"][-1]["outcome"] = "unknown"
    world.t += STEP_NS


@reaches("answer-unknown-then-learned")
def repeat_after_no_answer_is_accepted(world: MiniWorld) -> None:
    place_unanswered(world)
    ask(world, attempt=2)
    hear(world, "accepted", attempt=2)


@misses("answer-unknown-then-learned")
def repeat_after_an_answer_is_accepted(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 5, request_id="r")
    ask(world, attempt=2)
    hear(world, "accepted", attempt=2)


@misses("answer-unknown-then-learned")
def repeat_after_no_answer_has_none_either(world: MiniWorld) -> None:
    place_unanswered(world)
    ask(world, attempt=2)
    hear(world, "unknown", attempt=2)


@misses("answer-unknown-then-learned")
def answer_comes_late_to_the_first_attempt(world: MiniWorld) -> None:
    place_unanswered(world)
    hear(world, "accepted", attempt=1)


@misses("answer-unknown-then-learned")
def repeat_was_under_way_when_no_answer_came(world: MiniWorld) -> None:
    ask(world, attempt=2)
    place_unanswered(world)
    hear(world, "accepted", attempt=2)


@misses("answer-unknown-then-learned")
def first_attempt_reached_nobody(world: MiniWorld) -> None:
    ask(world)
    hear(world, "unknown")
    world.place(1, SELL, 100, 5, request_id="r")
    for kind in ("client_requests", "client_answers"):
        world.events[kind][-1]["attempt"] = 2


@reaches("asked-again-at-another-gateway")
def request_at_two_gateways(world: MiniWorld) -> None:
    ask(world, "gateway-1")
    ask(world, "gateway-2", attempt=2)
    ask(world, "gateway-2", attempt=3)


@misses("asked-again-at-another-gateway")
def request_twice_at_one_gateway(world: MiniWorld) -> None:
    ask(world, "gateway-1")
    ask(world, "gateway-1", attempt=2)


@misses("asked-again-at-another-gateway")
def another_body_at_another_gateway(world: MiniWorld) -> None:
    ask(world, "gateway-1", quantity=5)
    ask(world, "gateway-2", attempt=2, quantity=6)


@misses("asked-again-at-another-gateway")
def another_request_at_another_gateway(world: MiniWorld) -> None:
    ask(world, "gateway-1")
    ask(world, "gateway-2", request_id="s")


@reaches("repeat-answered-from-memory")
def deposit_is_repeated(world: MiniWorld) -> None:
    deposit(world)
    deposit(world)


@misses("repeat-answered-from-memory")
def another_deposit_under_its_id(world: MiniWorld) -> None:
    deposit(world, 5)
    deposit(world, 6)


@misses("repeat-answered-from-memory")
def same_deposit_under_another_id(world: MiniWorld) -> None:
    deposit(world)
    deposit(world, request_id="s")


def produced(world: MiniWorld, *, epoch: int, then: int) -> None:
    """All balance events of user 1's partition were written in the one epoch, the last in the other."""
    partition = TOPOLOGY.user_partition(UserId(1))
    last = len(world.log[BALANCE_EVENTS, partition]) - 1
    where = {"topic": BALANCE_EVENTS, "partition": partition}
    world.emit("produced", **where, first_offset=0, records=last, producer_epoch=epoch)
    world.emit("produced", **where, first_offset=last, records=1, producer_epoch=then)


@reaches("repeat-answered-after-a-takeover")
def deposit_is_repeated_in_the_next_epoch(world: MiniWorld) -> None:
    deposit_is_repeated(world)
    produced(world, epoch=0, then=1)


@misses("repeat-answered-after-a-takeover")
def deposit_is_repeated_in_its_epoch(world: MiniWorld) -> None:
    deposit_is_repeated(world)
    produced(world, epoch=1, then=1)


@misses("repeat-answered-after-a-takeover")
def another_deposit_in_the_next_epoch(world: MiniWorld) -> None:
    same_deposit_under_another_id(world)
    produced(world, epoch=0, then=1)


@misses("repeat-answered-after-a-takeover")
def nobody_knows_in_which_epoch_it_was_decided(world: MiniWorld) -> None:
    deposit_is_repeated(world)
    produced(world, epoch=0, then=1)
    del world.events["produced"][0]


@reaches("request-id-reused")
def another_deposit_under_a_taken_id(world: MiniWorld) -> None:
    another_deposit_under_its_id(world)


@misses("request-id-reused")
def same_deposit_under_its_id(world: MiniWorld) -> None:
    deposit_is_repeated(world)


@reaches("funds-were-short")
def withdrawal_of_more_than_there_is_and_its_repeat(world: MiniWorld) -> None:
    deposit(world, -(10**15))
    deposit(world, -(10**15))


@misses("funds-were-short")
def withdrawal_of_all(world: MiniWorld) -> None:
    deposit(world, -(10**12))


@reaches("refused-at-the-gateway")
def gateway_says_invalid(world: MiniWorld) -> None:
    hear(world, "invalid")


@misses("refused-at-the-gateway")
def balance_core_says_no(world: MiniWorld) -> None:
    hear(world, "rejected")


@reaches("undecodable-request-set-aside")
def garbage_in_order_requests(world: MiniWorld) -> None:
    world.submit_garbage()


@misses("undecodable-request-set-aside")
def garbage_in_validated_orders(world: MiniWorld) -> None:
    letter = DeadLetter(VALIDATED_ORDERS, 0, 0, "not an order", b"garbage")
    world.log[DEAD_LETTERS, 0] = [(world.t, wire.encode(letter))]


@reaches("requests-came-at-once")
def twenty_requests_at_one_instant(world: MiniWorld) -> None:
    for number in range(20):
        ask(world, request_id=f"r{number}")


@misses("requests-came-at-once")
def nineteen_requests_and_a_repeat(world: MiniWorld) -> None:
    for number in range(19):
        ask(world, request_id=f"r{number}")
    ask(world, request_id="r0", attempt=2)


@misses("requests-came-at-once")
def twenty_requests_one_after_the_other(world: MiniWorld) -> None:
    for number in range(20):
        world.t += 1
        ask(world, request_id=f"r{number}")


@reaches("cancel-sent-before-its-order-was-placed")
def cancel_overtakes_its_order(world: MiniWorld) -> None:
    ask(world, command="cancel", symbol_id=1, order_id=1)
    world.place(1, SELL, 100, 5)


@misses("cancel-sent-before-its-order-was-placed")
def cancel_follows_its_order(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 5)
    ask(world, command="cancel", symbol_id=1, order_id=1)


@misses("cancel-sent-before-its-order-was-placed")
def cancel_names_what_becomes_anothers_order(world: MiniWorld) -> None:
    ask(world, command="cancel", symbol_id=1, order_id=1)
    world.place(2, SELL, 100, 5)


def cancelled_order(world: MiniWorld) -> int:
    """User 1's order 1 ends; returns when."""
    world.place(1, SELL, 100, 5)
    world.cancel(1, 1)
    return world.t - 1_000_000


def read(world: MiniWorld, asked_t: int, t: int, *, status: int = CANCELLED, **columns: Any) -> None:
    """User 1 reads, and sees order 1."""
    said = {"user_id": 1, "query": "active_orders", "outcome": "ok", **columns}
    world.t = t
    world.emit("reads", read_id=1, asked_t=asked_t, **said)
    world.emit("read_rows", read_id=1, user_id=1, symbol_id=1, order_id=1, status=status)


@reaches("read-raced-a-completion")
def order_ends_while_its_user_reads(world: MiniWorld) -> None:
    ended_t = cancelled_order(world)
    read(world, ended_t - 1, ended_t + 1, symbol_id=1)


@misses("read-raced-a-completion")
def order_ends_before_its_user_reads(world: MiniWorld) -> None:
    ended_t = cancelled_order(world)
    read(world, ended_t + 1, ended_t + 2)


@misses("read-raced-a-completion")
def order_ends_after_its_user_has_read(world: MiniWorld) -> None:
    ended_t = cancelled_order(world)
    read(world, ended_t - 2, ended_t - 1)


@misses("read-raced-a-completion")
def order_ends_while_another_user_reads(world: MiniWorld) -> None:
    ended_t = cancelled_order(world)
    read(world, ended_t - 1, ended_t + 1, user_id=2)


@misses("read-raced-a-completion")
def order_ends_while_its_user_reads_another_symbol(world: MiniWorld) -> None:
    ended_t = cancelled_order(world)
    read(world, ended_t - 1, ended_t + 1, symbol_id=2)


@misses("read-raced-a-completion")
def order_ends_while_its_user_reads_balances(world: MiniWorld) -> None:
    ended_t = cancelled_order(world)
    read(world, ended_t - 1, ended_t + 1, query="balances")


@misses("read-raced-a-completion")
def order_ends_while_its_users_read_fails(world: MiniWorld) -> None:
    ended_t = cancelled_order(world)
    read(world, ended_t - 1, ended_t + 1, outcome="timed out")


def wrote(world: MiniWorld, revision: int, outcome: str = "ok") -> None:
    """Settlement has written order 1, or has not."""
    columns = {"table": ACTIVE_ORDERS, "operation": "INSERT", "outcome": outcome}
    world.emit("cql", order_id=1, write_timestamp=revision, **columns)


@reaches("read-behind-the-engine")
def ended_order_is_shown_as_live(world: MiniWorld) -> None:
    ended_t = cancelled_order(world)
    wrote(world, 1)
    wrote(world, 2, outcome="WriteTimeout")
    read(world, ended_t + 10**9, ended_t + 2 * 10**9, status=NEW)
    wrote(world, 2)


@misses("read-behind-the-engine")
def ended_order_is_shown_as_ended(world: MiniWorld) -> None:
    ended_t = cancelled_order(world)
    read(world, ended_t + 10**9, ended_t + 2 * 10**9, status=CANCELLED)


@misses("read-behind-the-engine")
def order_ends_while_it_is_read(world: MiniWorld) -> None:
    ended_t = cancelled_order(world)
    read(world, ended_t - 1, ended_t + 10**9, status=NEW)


@misses("read-behind-the-engine")
def ended_order_is_shown_as_live_though_its_end_is_written(world: MiniWorld) -> None:
    ended_t = cancelled_order(world)
    wrote(world, 2)
    read(world, ended_t + 10**9, ended_t + 2 * 10**9, status=NEW)


def trade_through(world: MiniWorld, maker: str, taker: str) -> None:
    """User 1 sells through the one gateway, user 2 buys through the other."""
    world.place(1, SELL, 100, 5, request_id="r")
    world.events["client_requests"][-1]["host"] = maker
    world.place(2, BUY, 100, 5)
    world.events["client_requests"][-1]["host"] = taker


@reaches("users-traded-across-gateways")
def trade_through_two_gateways(world: MiniWorld) -> None:
    trade_through(world, "gateway-1", "gateway-2")


@misses("users-traded-across-gateways")
def trade_through_one_gateway(world: MiniWorld) -> None:
    trade_through(world, "gateway-1", "gateway-1")


@misses("users-traded-across-gateways")
def maker_was_repeated_at_the_other(world: MiniWorld) -> None:
    trade_through(world, "gateway-1", "gateway-1")
    ask(world, "gateway-2", attempt=2)


@misses("users-traded-across-gateways")
def nobody_knows_where_the_maker_came_in(world: MiniWorld) -> None:
    trade_through(world, "gateway-1", "gateway-2")
    del world.events["client_requests"][-2]


def test_every_goal_has_its_worlds() -> None:
    assert WORLDS.reached.keys() == goals_in("clients")
    assert {goal for goal, _ in WORLDS.near_misses} == goals_in("clients")


@pytest.mark.parametrize(("goal", "world"), WORLDS.reached.items(), ids=name_of)
def test_goal_is_reached(goal: str, world: World) -> None:
    assert times(goal, world) == 1


@pytest.mark.parametrize(("goal", "world"), WORLDS.near_misses, ids=name_of)
def test_goal_is_not_reached(goal: str, world: World) -> None:
    assert times(goal, world) == 0
