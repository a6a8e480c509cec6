"""Faults of clients: a storm of repeats, cancels that race, a burst, hostile input."""

import sys

import pytest

from schema.wire import REQUEST, WireError
from sim.clients import HELD_BACK, RACING_CANCELS, REPEATS
from sim.clock import NS_PER_MS, NS_PER_SECOND
from sim.faults.hostile_input import UNDECODABLE
from sim.progress import Progress
from sim.randomness import Stream
from sim.run import RunResult, run_scenario
from sim.scenario import SECOND_NS, Scenario
from tests.sim.test_clients import Said, Setting, cancel, deposit, place


def run(fault: str, seed: int) -> RunResult:
    scenario = Scenario(seed=seed, orders=200, users=6, duration_ns=10 * SECOND_NS, faults=fault)
    return run_scenario(scenario, None, Progress(sys.stderr))


def test_in_a_storm_every_request_is_sent_once_more_at_the_next_gateway() -> None:
    setting = Setting(place("a"), place("b", at_ns=2 * NS_PER_SECOND))
    end = setting.clients.repeat_everything(300 * NS_PER_MS)
    setting.world.clock.at(NS_PER_SECOND, end)
    setting.run()
    assert setting.asked() == [("gateway-1", "a", 0), ("gateway-2", "a", 0), ("gateway-1", "b", 0)]
    assert setting.tables.of("client_requests", "t") == [0, 300 * NS_PER_MS, 2 * NS_PER_SECOND]
    assert setting.clients.counts[REPEATS] == 1
    assert setting.clients.is_quiet()


def test_clients_are_not_quiet_before_the_last_repeat_of_a_storm() -> None:
    setting = Setting(place("a"))
    setting.clients.repeat_everything(20 * NS_PER_SECOND)
    setting.run(seconds=10)
    assert not setting.clients.is_quiet()
    assert setting.run(seconds=11).clients.is_quiet()


def test_an_order_is_cancelled_when_its_id_is_known() -> None:
    setting = Setting(place("a"))
    setting.clients.cancel_everything(0)
    setting.run()
    ((first, _, _), (second, request_id, order_id)) = setting.asked()
    assert (first, second, order_id) == ("gateway-1", "gateway-2", 100)
    assert request_id == "fault-cancel-1"
    # A millisecond there, one for the gateway, one back: then the client knows what to cancel.
    assert setting.tables.of("client_requests", "t") == [0, 3 * NS_PER_MS]
    assert setting.clients.counts[RACING_CANCELS] == 1


def test_an_order_is_cancelled_so_much_later() -> None:
    setting = Setting(place("a"))
    setting.clients.cancel_everything(50 * NS_PER_MS)
    setting.run()
    assert setting.tables.of("client_requests", "t") == [0, 50 * NS_PER_MS]


def test_no_cancel_follows_an_order_that_was_rejected() -> None:
    setting = Setting(place("a"))
    setting.exchange.script = [Said("rejected")]
    setting.clients.cancel_everything(0)
    assert [request_id for _, request_id, _ in setting.run().asked()] == ["a"]
    assert setting.clients.is_quiet()


def test_what_was_held_back_comes_at_once_and_in_order() -> None:
    setting = Setting(
        deposit("d"),
        place("a", at_ns=NS_PER_SECOND),
        cancel("c", "a", at_ns=2 * NS_PER_SECOND),
        place("b", at_ns=4 * NS_PER_SECOND),
    )
    setting.world.clock.at(
        NS_PER_SECOND // 2, lambda: setting.world.clock.at(3 * NS_PER_SECOND, setting.clients.hold_back())
    )
    setting.run(seconds=2)
    assert [request_id for _, request_id, _ in setting.asked()] == ["d"]
    assert not setting.clients.is_quiet()
    setting.run()
    assert [request_id for _, request_id, _ in setting.asked()] == ["d", "a", "c", "b"]
    # The cancel waits for its order's answer, as ever.
    assert setting.tables.of("client_requests", "t")[1:] == [
        3 * NS_PER_SECOND,
        3 * NS_PER_SECOND + 3 * NS_PER_MS,
        4 * NS_PER_SECOND,
    ]
    assert setting.clients.counts[HELD_BACK] == 2
    assert setting.clients.is_quiet()


def test_two_bursts_that_overlap_are_one() -> None:
    setting = Setting(place("a", at_ns=NS_PER_SECOND))
    first, second = setting.clients.hold_back(), setting.clients.hold_back()
    setting.world.clock.at(2 * NS_PER_SECOND, first)
    setting.world.clock.at(3 * NS_PER_SECOND, second)
    assert setting.run().tables.of("client_requests", "t") == [3 * NS_PER_SECOND]


def test_hostile_input_is_refused_by_gateways_and_set_aside_by_the_balance_core() -> None:
    calm, attacked = run("none", seed=1), run("hostile-input", seed=1)
    assert attacked.simulated.struck["hostile-input"] >= 1
    assert attacked.holds
    told = attacked.trace.events("client_answers")
    hostile = told[told["request_id"].str.startswith("fault-hostile-")]
    assert len(hostile) > 5
    assert set(hostile["outcome"]) == {"invalid"}
    letters = attacked.trace.dead_letters
    assert len(letters) > 5
    assert set(letters["source_topic"]) == {"order.requests"}
    assert attacked.counts["orders"] == calm.counts["orders"]


def test_every_way_to_be_no_request_is_refused() -> None:
    stream = Stream(1, "undecodable")
    for make in UNDECODABLE:
        for _ in range(200):
            with pytest.raises(WireError):
                REQUEST.decode(make(stream))
