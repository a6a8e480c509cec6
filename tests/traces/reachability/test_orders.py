"""Goals of an order's life: each is reached by a few requests, and not by others that are almost the same.

The worlds' orders are numbered from 1 as they are placed. A request is decided at the moment in which it is sent; where
one is to be on its way while something happens, its sending is put back.
"""

import pytest

from benchmarks.mini_world import BUY, FOK, IOC, MARKET, POST_ONLY, SELL, STEP_NS, MiniWorld
from tests.traces.damage import replace
from tests.traces.reachability.by_hand import goals_in
from tests.traces.reachability.worlds import World, Worlds, name_of, times

COST = 100
"""What one lot costs at a price of 100, in atoms."""

WORLDS = Worlds()
reaches, misses = WORLDS.reaches, WORLDS.misses


def sent(world: MiniWorld, order_id: int, steps_ago: int) -> None:
    """The last request was about that order, and sent so many steps before it was decided."""
    request = world.events["client_requests"][-1]
    request["order_id"], request["symbol_id"] = order_id, 1
    request["t"] -= steps_ago * STEP_NS


@reaches("cancel-met-its-fill")
def cancel_on_its_way_while_the_order_is_filled(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 5)
    world.place(2, BUY, 100, 5)
    world.cancel(1, 1)
    sent(world, 1, steps_ago=2)


@misses("cancel-met-its-fill")
def cancel_sent_after_the_fill(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 5)
    world.place(2, BUY, 100, 5)
    world.cancel(1, 1)
    sent(world, 1, steps_ago=0)


@misses("cancel-met-its-fill")
def cancel_sent_before_the_order_lived(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 5)
    world.place(2, BUY, 100, 5)
    world.cancel(1, 1)
    sent(world, 1, steps_ago=3)


@misses("cancel-met-its-fill")
def cancel_of_an_order_cancelled_meanwhile(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 5)
    world.cancel(1, 1)
    world.cancel(1, 1)
    sent(world, 1, steps_ago=2)


@misses("cancel-met-its-fill")
def cancel_of_another_users_order(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 5)
    world.place(2, BUY, 100, 5)
    world.cancel(2, 1)
    sent(world, 1, steps_ago=2)


@reaches("replace-met-its-fill")
def replace_on_its_way_while_the_order_is_filled(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 5)
    world.place(2, BUY, 100, 5)
    world.replace(1, 1, SELL, 101, 5)
    sent(world, 1, steps_ago=2)


@misses("replace-met-its-fill")
def replace_of_an_order_cancelled_before(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 5)
    world.cancel(1, 1)
    world.replace(1, 1, SELL, 101, 5)
    sent(world, 1, steps_ago=0)


@misses("replace-met-its-fill")
def replace_of_an_order_cancelled_meanwhile(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 5)
    world.cancel(1, 1)
    world.replace(1, 1, SELL, 101, 5)
    sent(world, 1, steps_ago=2)


@misses("replace-met-its-fill")
def replace_sent_after_the_fill(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 5)
    world.place(2, BUY, 100, 5)
    world.replace(1, 1, SELL, 101, 5)
    sent(world, 1, steps_ago=0)


@reaches("maker-filled-in-steps")
def maker_filled_by_three_takers(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 3)
    for _ in range(3):
        world.place(2, BUY, 100, 1)


@misses("maker-filled-in-steps")
def maker_met_by_three_takers_and_not_filled(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 4)
    for _ in range(3):
        world.place(2, BUY, 100, 1)


@misses("maker-filled-in-steps")
def maker_filled_by_two_takers(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 3)
    world.place(2, BUY, 100, 1)
    world.place(2, BUY, 100, 2)


@reaches("taker-met-many-makers")
def taker_meets_five_makers(world: MiniWorld) -> None:
    for _ in range(5):
        world.place(1, SELL, 100, 1)
    world.place(2, BUY, 100, 5)


@misses("taker-met-many-makers")
def five_takers_meet_one_maker_each(world: MiniWorld) -> None:
    for _ in range(5):
        world.place(1, SELL, 100, 1)
        world.place(2, BUY, 100, 1)


@reaches("taker-filled-in-part-then-rested")
def rest_of_a_taker_is_a_maker(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 1)
    world.place(2, BUY, 100, 3)
    world.place(1, SELL, 100, 1)


@misses("taker-filled-in-part-then-rested")
def rest_of_a_taker_meets_nobody(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 1)
    world.place(2, BUY, 100, 3)


@reaches("part-filled-order-cancelled")
def order_filled_in_part_is_cancelled(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 5)
    world.place(2, BUY, 100, 2)
    world.cancel(1, 1)


@misses("part-filled-order-cancelled")
def order_without_a_fill_is_cancelled(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 5)
    world.cancel(1, 1)


@misses("part-filled-order-cancelled")
def rest_of_an_ioc_is_cancelled(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 2)
    world.place(2, BUY, 100, 5, tif=IOC)


@reaches("self-trade-prevented")
def order_meets_its_own_users(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 5)
    world.place(1, BUY, 100, 5)


@misses("self-trade-prevented")
def order_meets_anothers_before_its_own_users(world: MiniWorld) -> None:
    world.place(2, SELL, 100, 5)
    world.place(1, SELL, 100, 5)
    world.place(1, BUY, 100, 5)


@reaches("order-reduced-to-its-end")
def order_is_reduced_to_what_is_filled(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 5)
    world.place(2, BUY, 100, 2)
    world.reduce(1, 1, 2)


@misses("order-reduced-to-its-end")
def order_is_reduced_and_then_filled(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 5)
    world.reduce(1, 1, 2)
    world.place(2, BUY, 100, 2)


@reaches("order-replaced")
def order_is_replaced(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 5)
    world.replace(1, 1, SELL, 101, 5)


@misses("order-replaced")
def new_order_is_refused(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 5)
    world.replace(1, 1, SELL, 101, 5)
    world.rewrite_outputs(lambda output: replace(output, order_placements=()) if output.order_completions else output)


@misses("order-replaced")
def order_is_cancelled_and_another_placed_after_it(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 5)
    world.cancel(1, 1)
    world.place(1, SELL, 101, 5)


@reaches("market-order-ran-out-of-money")
def market_buy_spends_what_it_may(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 5)
    world.place(2, BUY, 0, 5, order_type=MARKET, tif=IOC, max_spend=3 * COST)


@misses("market-order-ran-out-of-money")
def market_buy_may_spend_too_little_for_one_lot(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 5)
    world.place(2, BUY, 0, 5, order_type=MARKET, tif=IOC, max_spend=COST - 1)


@misses("market-order-ran-out-of-money")
def market_buy_finds_no_more_to_buy(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 2)
    world.place(2, BUY, 0, 5, order_type=MARKET, tif=IOC, max_spend=3 * COST)


@reaches("unfilled-rest-cancelled")
def ioc_is_filled_in_part(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 2)
    world.place(2, BUY, 100, 5, tif=IOC)


@misses("unfilled-rest-cancelled")
def ioc_meets_nobody(world: MiniWorld) -> None:
    world.place(2, BUY, 100, 5, tif=IOC)


@reaches("fill-or-kill-refused")
def fill_or_kill_finds_too_little(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 2)
    world.place(2, BUY, 100, 5, tif=FOK)


@misses("fill-or-kill-refused")
def fill_or_kill_finds_enough(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 5)
    world.place(2, BUY, 100, 5, tif=FOK)


@reaches("post-only-refused")
def post_only_would_trade(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 2)
    world.place(2, BUY, 100, 5, tif=POST_ONLY)


@misses("post-only-refused")
def post_only_rests(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 2)
    world.place(2, BUY, 99, 5, tif=POST_ONLY)


@reaches("price-improved")
def buy_meets_a_cheaper_sell(world: MiniWorld) -> None:
    world.place(1, SELL, 99, 5)
    world.place(2, BUY, 100, 5)


@misses("price-improved")
def rest_of_an_ioc_at_the_makers_price_is_cancelled(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 3)
    world.place(2, BUY, 100, 5, tif=IOC)


@misses("price-improved")
def sell_meets_a_dearer_buy(world: MiniWorld) -> None:
    world.place(1, BUY, 101, 3)
    world.place(2, SELL, 100, 5, tif=IOC)


@misses("price-improved")
def market_buy_has_no_limit(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 5)
    world.place(2, BUY, 0, 5, order_type=MARKET, tif=IOC, max_spend=10 * COST)


@reaches("order-outlived-the-run")
def order_rests_at_the_end(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 5)
    world.settle()


@misses("order-outlived-the-run")
def every_order_has_ended(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 5)
    world.cancel(1, 1)
    world.settle()


@misses("order-outlived-the-run")
def order_is_refused(world: MiniWorld) -> None:
    world.place(2, BUY, 100, 5, tif=FOK)
    world.settle()


@misses("order-outlived-the-run")
def nobody_looks_25_hours_later(world: MiniWorld) -> None:
    world.place(1, SELL, 100, 5)
    world.emit("phases", phase="settled")


def test_every_goal_has_its_worlds() -> None:
    assert WORLDS.reached.keys() == goals_in("orders")
    assert {goal for goal, _ in WORLDS.near_misses} == goals_in("orders")


@pytest.mark.parametrize(("goal", "world"), WORLDS.reached.items(), ids=name_of)
def test_goal_is_reached(goal: str, world: World) -> None:
    assert times(goal, world) == 1


@pytest.mark.parametrize(("goal", "world"), WORLDS.near_misses, ids=name_of)
def test_goal_is_not_reached(goal: str, world: World) -> None:
    assert times(goal, world) == 0
