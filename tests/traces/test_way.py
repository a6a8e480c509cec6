"""A request's way: each record says what the one before it says, and clients are told what was decided.

The damages are the smallest that show one thing. What a fault, a retry or a client may do without harm is shown too.
"""

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.mini_world import BUY, GTC, IOC, MARKET, POST_ONLY, SELL, TOPOLOGY, MiniWorld, Row
from schema import topics
from schema.codes import Outcome, Reason
from schema.events import OrderResponse
from schema.identifiers import OrderId, UserId
from tests.traces.damage import (
    RESTING,
    Damage,
    Damages,
    busy_world,
    change_balance_events,
    copy,
    drop,
    drop_record,
    edit,
    find,
    put_record,
    registrar,
    replace,
    seal,
)
from traces.invariants import check_one
from traces.manifest import Manifest, TopologyRecord
from traces.trace import Trace

CARRIED, TOLD = "requests-carried", "answers-told"
DAMAGES: Damages = []
breaks = registrar(DAMAGES)
"""Registers a damage with the invariant that must see it and words from what it must say."""


def violations(world: MiniWorld, invariant: str) -> list[str]:
    """What an invariant says is wrong, each once."""
    return sorted(set(check_one(world.trace(), invariant).violations["what"]))


def change_first(world: MiniWorld, topic: str, is_wanted: Callable[[Any], bool], change: Callable[[Any], Any]) -> None:
    """Change the first record of a topic of which something is true."""
    for partition in range(2):
        for index, event in enumerate(world.decoded(topic, partition)):
            if is_wanted(event):
                put_record(world, topic, partition, index, seal(change(event)))
                return
    raise AssertionError(f"no such record in {topic}")


def is_request(event: Any) -> bool:
    """Whether a balance event is of a request."""
    return event.request is not None


def is_verdict(event: Any) -> bool:
    """Whether a balance event passes a verdict on."""
    return event.request is None and event.response is not None


def is_of_a_bystander(event: Any) -> bool:
    """Whether a balance event applies a fund update of somebody who asked for nothing."""
    return event.request is None and event.response is None


# --- requests-carried


@breaks(CARRIED, "gateway sent something else than the client asked for")
def gateway_sends_another_price(world: MiniWorld) -> None:
    edit(world, "client_requests", {"price": 71}, command="place", price=70)


@breaks(CARRIED, "gateway sent what no client asked for")
def gateway_makes_a_request_up(world: MiniWorld) -> None:
    drop(world, "client_requests", command="withdraw")


@breaks(CARRIED, "gateway sent what no client asked for")
def gateway_takes_a_hostile_request(world: MiniWorld) -> None:
    row = find(world, "client_requests", command="withdraw")[0]
    request_id = row["request_id"]
    world.events["client_requests"].remove(row)
    world.emit("client_requests", user_id=row["user_id"] + 1, request_id=request_id, attempt=1, command="raw")


@breaks(CARRIED, "balance event is not of the request at its input's place")
def balance_core_decides_another_request_than_it_read(world: MiniWorld) -> None:
    change_first(world, topics.ORDER_REQUESTS, lambda _: True, lambda each: replace(each, requested_at_ns=7))


@breaks(CARRIED, "balance event is of a request that is not there")
def balance_core_decides_a_request_that_nobody_sent(world: MiniWorld) -> None:
    change_balance_events(world, is_request, lambda event: replace(event, input_offset=4_242))


@breaks(CARRIED, "record of validated.orders is not what was accepted")
def balance_core_sends_another_request_on(world: MiniWorld) -> None:
    change_first(
        world,
        topics.VALIDATED_ORDERS,
        lambda _: True,
        lambda each: replace(each, command=replace(each.command, requested_at_ns=7)),
    )


@breaks(CARRIED, "record of validated.orders is not what was accepted")
def validated_order_does_not_link_as_its_event_says(world: MiniWorld) -> None:
    change_first(world, topics.VALIDATED_ORDERS, lambda _: True, lambda each: replace(each, link_seq=4_242))


@breaks(CARRIED, "record of validated.orders was never accepted")
def validated_order_names_no_event(world: MiniWorld) -> None:
    change_first(world, topics.VALIDATED_ORDERS, lambda _: True, lambda each: replace(each, source_sequence=4_242))


@breaks(CARRIED, "output is not of the record at its input's place")
def engine_matches_another_order_than_it_read(world: MiniWorld) -> None:
    world.rewrite_outputs(
        lambda output: replace(
            output, input=replace(output.input, command=replace(output.input.command, requested_at_ns=7))
        )
    )


@breaks(CARRIED, "output is of a record that is not there")
def engine_matches_what_nobody_sent(world: MiniWorld) -> None:
    world.rewrite_outputs(lambda output: replace(output, input_offset=4_242 + output.output_seq))


@breaks(CARRIED, "fund update is not what the output says")
def fund_update_has_another_verdict(world: MiniWorld) -> None:
    change_first(world, topics.FUND_UPDATES, lambda _: True, lambda each: replace(each, verdict=9))


@breaks(CARRIED, "fund update is not what the output says")
def fund_update_lacks_its_entries(world: MiniWorld) -> None:
    change_first(world, topics.FUND_UPDATES, lambda each: each.entries, lambda each: replace(each, entries=()))


@breaks(CARRIED, "fund update of no output")
def fund_update_names_no_output(world: MiniWorld) -> None:
    change_first(world, topics.FUND_UPDATES, lambda _: True, lambda each: replace(each, output_seq=4_242))


@breaks(CARRIED, "fund update was sent more than once")
def fund_update_is_sent_twice(world: MiniWorld) -> None:
    records = world.log[topics.FUND_UPDATES, 0]
    records.append(records[-1])


@breaks(CARRIED, "fund update was never sent")
def fund_update_is_not_sent(world: MiniWorld) -> None:
    drop_record(world, topics.FUND_UPDATES, 0, -1)


@breaks(CARRIED, "fund update in another partition than its user's")
def fund_update_goes_to_another_partition(world: MiniWorld) -> None:
    world.log[topics.FUND_UPDATES, 1].append(world.log[topics.FUND_UPDATES, 0].pop())


@breaks(CARRIED, "balance event is not of the fund update at its input's place")
def balance_core_applies_another_fund_update_than_it_read(world: MiniWorld) -> None:
    change_balance_events(world, is_verdict, lambda event: replace(event, update_output_seq=4_242))


@breaks(CARRIED, "balance event of no fund update")
def balance_core_applies_a_fund_update_that_nobody_sent(world: MiniWorld) -> None:
    change_balance_events(world, is_verdict, lambda event: replace(event, input_offset=4_242))


# --- answers-told


def _change_response(world: MiniWorld, is_wanted: Callable[[Any], bool], **changes: Any) -> None:
    """Change the answer in a balance event, and the response with it."""
    changed = []

    def of(event: Any) -> Any:
        changed.append(event.response)
        return replace(event, response=replace(event.response, **changes))

    change_balance_events(world, is_wanted, of)
    change_first(world, topics.ORDER_RESPONSES, lambda each: each == changed[0], lambda each: replace(each, **changes))


@breaks(TOLD, "request was decided and not answered")
def request_is_not_answered(world: MiniWorld) -> None:
    change_balance_events(world, is_request, lambda event: replace(event, response=None))


@breaks(TOLD, "the submitter is not told the verdict")
def verdict_is_not_passed_on(world: MiniWorld) -> None:
    change_balance_events(world, is_verdict, lambda event: replace(event, response=None))


@breaks(TOLD, "an answer to somebody who asked for nothing")
def bystander_is_told_something(world: MiniWorld) -> None:
    nothing = OrderResponse("", UserId(1), OrderId(0), 0, 0, 0, 0, 0, False, 0)
    change_balance_events(world, is_of_a_bystander, lambda event: replace(event, response=nothing))


@breaks(TOLD, "verdict is told of another order")
def verdict_names_no_order(world: MiniWorld) -> None:
    _change_response(world, is_verdict, order_id=0)


@breaks(TOLD, "verdict on what is told to be refused")
def verdict_is_told_as_a_refusal(world: MiniWorld) -> None:
    _change_response(world, is_verdict, outcome=int(Outcome.REJECTED))


def _change_answer(world: MiniWorld, **changes: Any) -> None:
    """Change the response to a request, and not the event."""
    change_first(world, topics.ORDER_RESPONSES, lambda each: each.verdict == 0, lambda each: replace(each, **changes))


@breaks(TOLD, "response is not the answer that was decided")
def response_has_another_order(world: MiniWorld) -> None:
    _change_answer(world, order_id=4_242)


@breaks(TOLD, "response is not the answer that was decided")
def response_has_another_time(world: MiniWorld) -> None:
    _change_answer(world, time_ns=7)


@breaks(TOLD, "response is not the answer that was decided")
def response_says_that_it_is_a_repeat(world: MiniWorld) -> None:
    _change_answer(world, is_repeat=True)


@breaks(TOLD, "response is not the answer that was decided")
def response_names_another_body(world: MiniWorld) -> None:
    _change_answer(world, body_hash=7)


@breaks(TOLD, "response is not the answer that was decided")
def verdict_in_the_response_names_another_body(world: MiniWorld) -> None:
    change_first(world, topics.ORDER_RESPONSES, lambda each: each.verdict == 1, lambda each: replace(each, body_hash=7))


@breaks(TOLD, "answer names another body than was decided")
def answer_names_another_body(world: MiniWorld) -> None:
    _change_response(world, is_request, body_hash=7)


@breaks(TOLD, "verdict names another body than the engine judged")
def verdict_names_no_body(world: MiniWorld) -> None:
    _change_response(world, is_verdict, body_hash=0)


@breaks(TOLD, "one body under an id has two hashes")
def repeat_has_another_hash(world: MiniWorld) -> None:
    _ask_twice(world)
    change_balance_events(world, _is_the_repeat, lambda event: replace(event, body_hash=7))


@breaks(TOLD, "two bodies under an id have one hash")
def reuse_has_the_hash_of_the_first_body(world: MiniWorld) -> None:
    for amount in (5, 6):
        world.transfer(1, 3, amount, request_id="reused")
    (first,) = {
        event.body_hash
        for partition in range(2)
        for event in world.decoded(topics.BALANCE_EVENTS, partition)
        if is_request(event) and event.request.request_id == "reused" and event.request.amount == 5
    }
    change_balance_events(
        world,
        lambda event: event.response is not None and event.response.reason == Reason.REQUEST_ID_REUSED,
        lambda event: replace(event, body_hash=first),
    )


@breaks(TOLD, "response is not the answer that was decided")
def responses_are_exchanged(world: MiniWorld) -> None:
    records = world.log[topics.ORDER_RESPONSES, 0]
    records[0], records[-1] = records[-1], records[0]


@breaks(TOLD, "response is to another request")
def response_names_another_request(world: MiniWorld) -> None:
    _change_answer(world, request_id="another")


@breaks(TOLD, "first answer has a verdict")
def answer_has_a_verdict_before_the_engine_gave_one(world: MiniWorld) -> None:
    _change_answer(world, verdict=1)


@breaks(TOLD, "response is not the verdict that was given")
def response_has_another_verdict(world: MiniWorld) -> None:
    change_first(world, topics.ORDER_RESPONSES, lambda each: each.verdict == 1, lambda each: replace(each, verdict=2))


@breaks(TOLD, "response is not the verdict that was given")
def verdict_names_another_request(world: MiniWorld) -> None:
    change_first(
        world, topics.ORDER_RESPONSES, lambda each: each.verdict == 1, lambda each: replace(each, request_id="another")
    )


@breaks(TOLD, "client was told what no decision on its request says")
def client_is_told_another_reason(world: MiniWorld) -> None:
    edit(world, "client_answers", {"reason": int(Reason.OVERFLOW)}, reason=int(Reason.INSUFFICIENT_FUNDS))


@breaks(TOLD, "client was told what no decision on its request says")
def client_is_told_that_it_was_refused(world: MiniWorld) -> None:
    edit(world, "client_answers", {"outcome": "rejected"}, command="withdraw")


@breaks(TOLD, "client was told what no decision on its request says")
def client_is_told_the_answer_to_another_body_under_its_id(world: MiniWorld) -> None:
    row = find(world, "client_requests", command="place", price=70)[0]
    world.emit("client_requests", **{**row, "attempt": 2, "price": 69})
    told = find(world, "client_answers", request_id=row["request_id"])[0]
    world.emit("client_answers", **{**told, "attempt": 2})


@breaks(TOLD, "client was told what no response to its request says")
def client_is_told_another_verdict(world: MiniWorld) -> None:
    edit(world, "client_answers", {"verdict_reason": 9}, command="place", order_id=RESTING)


@breaks(TOLD, "client was told what no response to its request says")
def response_that_the_client_was_told_names_another_body(world: MiniWorld) -> None:
    _change_answer(world, body_hash=7)


@breaks(TOLD, "well-formed request is told to be invalid")
def undelivered_request_is_told_to_be_invalid(world: MiniWorld) -> None:
    edit(world, "client_answers", {"outcome": "invalid"}, command="place", order_id=RESTING)


@breaks(TOLD, "request is told to be invalid, but was decided")
def malformed_request_is_decided(world: MiniWorld) -> None:
    request_id = find(world, "client_answers", command="place", order_id=RESTING)[0]["request_id"]
    change_first(
        world,
        topics.ORDER_REQUESTS,
        lambda each: each.request_id == request_id,
        lambda each: replace(each, quantity=0),
    )
    change_balance_events(
        world,
        lambda each: is_request(each) and each.request.request_id == request_id,
        lambda each: replace(each, request=replace(each.request, quantity=0)),
    )
    edit(world, "client_requests", {"quantity": 0}, request_id=request_id)
    edit(world, "client_answers", {"outcome": "invalid"}, request_id=request_id)


@breaks(TOLD, "request is told to be invalid, but was decided")
def hostile_request_is_decided(world: MiniWorld) -> None:
    request_id = find(world, "client_requests", command="withdraw")[0]["request_id"]
    edit(world, "client_requests", {"command": "raw"}, request_id=request_id)
    edit(world, "client_answers", {"command": "raw", "outcome": "invalid"}, request_id=request_id)


def _ask_twice(world: MiniWorld) -> None:
    for _ in range(2):
        world._next_order = 100
        world.place(1, SELL, 100, 1, request_id="twice")


def _is_the_repeat(event: Any) -> bool:
    return is_request(event) and event.response is not None and bool(event.response.is_repeat)


@breaks(TOLD, "request was answered otherwise before")
def repeat_is_told_another_order(world: MiniWorld) -> None:
    _ask_twice(world)
    _change_response(world, _is_the_repeat, order_id=4_242)


@breaks(TOLD, "request was answered otherwise before")
def repeat_is_refused_as_a_reused_id(world: MiniWorld) -> None:
    _ask_twice(world)
    _change_response(
        world, _is_the_repeat, outcome=int(Outcome.REJECTED), reason=int(Reason.REQUEST_ID_REUSED), is_repeat=False
    )


@breaks(TOLD, "repeat is told another verdict than was known")
def verdict_is_not_remembered(world: MiniWorld) -> None:
    _ask_twice(world)
    _change_response(world, _is_the_repeat, verdict=0)


@breaks(TOLD, "repeat was decided anew")
def repeat_is_decided_anew(world: MiniWorld) -> None:
    _ask_twice(world)
    _change_response(world, _is_the_repeat, is_repeat=False)


# --- the tests


@pytest.mark.parametrize("invariant", [CARRIED, TOLD])
def test_invariant_holds_on_a_sound_trace(invariant: str) -> None:
    verdict = check_one(busy_world().trace(), invariant)
    assert verdict.violations.to_dict("records") == []
    assert verdict.verdict == "holds"


@pytest.mark.parametrize(
    ("invariant", "says", "damage"), DAMAGES, ids=[f"{name}-{damage.__name__}" for name, _, damage in DAMAGES]
)
def test_invariant_sees(invariant: str, says: str, damage: Damage) -> None:
    world = busy_world()
    damage(world)
    assert says in violations(world, invariant)


@pytest.mark.parametrize("invariant", [CARRIED, TOLD])
def test_invariant_is_not_exercised_by_an_empty_trace(invariant: str) -> None:
    empty = Trace(Manifest(seed=0, topology=TopologyRecord.of(TOPOLOGY)), {})
    assert check_one(empty, invariant).verdict == "not exercised"


@pytest.mark.parametrize(
    ("command", "column"),
    [
        *(("place", name) for name in ("symbol_id", "side", "order_type", "time_in_force", "price", "quantity")),
        ("place", "max_spend"),
        *(("cancel", name) for name in ("symbol_id", "order_id")),
        *(("reduce", name) for name in ("symbol_id", "order_id", "quantity")),
        *(("replace", name) for name in ("symbol_id", "order_id", "side", "time_in_force", "price", "quantity")),
        *(("deposit", name) for name in ("asset_id", "amount")),
        *(("withdraw", name) for name in ("asset_id", "amount")),
    ],
)
def test_every_field_that_a_client_writes_is_compared(command: str, column: str) -> None:
    world = busy_world()
    find(world, "client_requests", command=command)[0][column] += 1
    verdict = check_one(world.trace(), CARRIED)
    differs = "target_order_id" if column == "order_id" else column
    assert [str(each).split()[0] for each in verdict.violations["differs"]] == [differs]


def test_first_of_several_bodies_under_an_id_is_not_the_only_one() -> None:
    world = MiniWorld()
    world.place(1, SELL, 100, 1, request_id="mine")
    world.place(1, SELL, 100, 2, request_id="mine")
    assert violations(world, CARRIED) == violations(world, TOLD) == []
    find(world, "client_requests", quantity=2)[0]["quantity"] = 3
    assert violations(world, CARRIED) == ["gateway sent something else than the client asked for"]


def test_what_a_command_does_not_have_is_not_compared() -> None:
    world = busy_world()
    for row in find(world, "client_requests", command="cancel"):
        row.update(order_type=1, time_in_force=GTC, quantity=7, amount=7)
    assert violations(world, CARRIED) == []


def test_without_recorded_clients_the_records_are_still_compared() -> None:
    world = busy_world()
    world.events["client_requests"].clear()
    world.events["client_answers"].clear()
    assert check_one(world.trace(), CARRIED).verdict == check_one(world.trace(), TOLD).verdict == "holds"
    balance_core_sends_another_request_on(world)
    assert "record of validated.orders is not what was accepted" in violations(world, CARRIED)
    response_has_another_time(world)
    assert "response is not the answer that was decided" in violations(world, TOLD)


def test_retries_and_reused_ids_are_no_violation() -> None:
    world = MiniWorld()
    _ask_twice(world)
    world.place(1, SELL, 100, 2, request_id="twice")
    world._next_order = 100
    world.place(1, SELL, 100, 1, request_id="twice")
    world.settle()
    for attempt, row in enumerate(find(world, "client_answers", request_id="twice"), 1):
        row["attempt"] = attempt
    for attempt, row in enumerate(find(world, "client_requests", request_id="twice"), 1):
        row["attempt"] = attempt
    assert violations(world, CARRIED) == violations(world, TOLD) == []


def test_id_may_be_taken_anew_when_its_first_request_is_forgotten() -> None:
    world = MiniWorld()
    world.place(1, SELL, 100, 1, request_id="mine")
    world.t += 25 * 3600 * 10**9
    world.place(1, SELL, 100, 1, request_id="mine")
    assert violations(world, TOLD) == []


@pytest.mark.parametrize(
    "malformed",
    [
        {"command": "raw"},
        {"request_id": "a b"},
        {"request_id": "x" * 129},
        {"user_id": 0},
        {"symbol_id": 9},
        {"price": 0},
        {"quantity": 0},
        {"side": 2},
        {"time_in_force": 9},
        {"max_spend": 5},
        {"order_type": MARKET},
        {"order_type": MARKET, "price": 0, "time_in_force": IOC},
        {"order_type": MARKET, "price": 0, "max_spend": 5, "time_in_force": POST_ONLY},
        {"order_type": MARKET, "price": 0, "max_spend": 5, "time_in_force": IOC, "side": SELL},
        {"command": "cancel", "order_id": 0},
        {"command": "reduce", "order_id": 1, "quantity": 0},
        {"command": "replace", "order_id": 1, "price": 0},
        {"command": "deposit", "asset_id": 9, "amount": 1},
        {"command": "withdraw", "asset_id": 1, "amount": 0},
    ],
)
def test_malformed_request_may_be_told_to_be_invalid(malformed: Row) -> None:
    world = busy_world()
    good = {"user_id": 1, "request_id": "new", "attempt": 1, "command": "place", "symbol_id": 1, "side": BUY}
    asked = {**good, "order_type": 1, "time_in_force": GTC, "price": 7, "quantity": 7, **malformed}
    world.emit("client_requests", **asked)
    who = {name: asked[name] for name in ("user_id", "request_id", "attempt", "command")}
    world.emit("client_answers", **who, outcome="invalid")
    assert violations(world, TOLD) == []


@pytest.mark.parametrize(
    "well_formed",
    [
        {},
        {"order_type": MARKET, "price": 0, "max_spend": 5, "time_in_force": IOC},
        {"order_type": MARKET, "price": 0, "side": SELL, "time_in_force": IOC},
        {"command": "cancel", "order_id": 1},
        {"command": "reduce", "order_id": 1},
        {"command": "replace", "order_id": 1},
        {"command": "deposit", "asset_id": 1, "amount": 1},
        {"command": "withdraw", "asset_id": 1, "amount": 1},
    ],
)
def test_well_formed_request_may_not_be_told_to_be_invalid(well_formed: Row) -> None:
    world = busy_world()
    good = {"user_id": 1, "request_id": "new", "attempt": 1, "command": "place", "symbol_id": 1, "side": BUY}
    asked = {**good, "order_type": 1, "time_in_force": GTC, "price": 7, "quantity": 7, **well_formed}
    world.emit("client_requests", **asked)
    world.emit("client_answers", user_id=1, request_id="new", attempt=1, command=asked["command"], outcome="invalid")
    assert violations(world, TOLD) == ["well-formed request is told to be invalid"]


def test_answer_unknown_says_nothing() -> None:
    world = busy_world()
    edit(world, "client_answers", {"outcome": "unknown", "order_id": 0, "verdict": 0}, command="place")
    assert violations(world, TOLD) == []


def test_answer_that_is_given_before_the_verdict_came_has_none() -> None:
    world = busy_world()
    edit(world, "client_answers", {"verdict": 0, "verdict_reason": 0}, command="place", order_id=RESTING)
    assert violations(world, TOLD) == []


def test_request_that_never_reached_the_log_is_no_violation() -> None:
    world = busy_world()
    copy(world, "client_requests", {"request_id": "lost"}, command="place")
    world.emit("client_answers", user_id=1, request_id="lost", attempt=1, command="place", outcome="unknown")
    assert violations(world, CARRIED) == violations(world, TOLD) == []


def test_undecodable_records_are_left_out() -> None:
    world = MiniWorld()
    world.place(1, SELL, 100, 1)
    world.submit_garbage()
    world.place(2, BUY, 100, 1)
    for topic in (topics.ORDER_RESPONSES, topics.BALANCE_EVENTS):
        put_record(world, topic, 0, 2, b"\x01garbage")
    world.events["client_requests"].clear()
    world.events["client_answers"].clear()
    assert violations(world, TOLD) == []


def test_responses_that_are_too_few_are_not_compared() -> None:
    world = busy_world()
    drop_record(world, topics.ORDER_RESPONSES, 0, 3)
    world.events["client_answers"].clear()
    assert violations(world, TOLD) == []


@pytest.mark.parametrize(
    ("topic", "invariant", "damage"),
    [
        (topics.ORDER_REQUESTS, CARRIED, balance_core_decides_another_request_than_it_read),
        (topics.VALIDATED_ORDERS, CARRIED, engine_matches_another_order_than_it_read),
        (topics.BALANCE_EVENTS, CARRIED, validated_order_names_no_event),
        (topics.FUND_UPDATES, CARRIED, balance_core_applies_another_fund_update_than_it_read),
        (topics.ENGINE_OUTPUTS, CARRIED, fund_update_has_another_verdict),
        (topics.ORDER_RESPONSES, TOLD, responses_are_exchanged),
        (topics.BALANCE_EVENTS, TOLD, repeat_is_told_another_order),
    ],
)
def test_topic_that_a_fault_has_altered_is_not_compared(topic: str, invariant: str, damage: Damage) -> None:
    world = busy_world()
    damage(world)
    before = violations(world, invariant)
    world.emit("faults", fault="unclean-leader-change", phase="start", target=topic)
    assert before
    assert len(violations(world, invariant)) < len(before)
