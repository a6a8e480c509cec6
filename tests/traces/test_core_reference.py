"""The reference of the balance core says what the rules of funds and requests say; and what decides otherwise is seen.

The damages are the smallest that show one thing, made to the events of a world in which everything is decided once.
"""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.mini_world import BUY, CODECS, DAY_NS, FOK, IOC, LIMIT, MARKET, SELL, STEP_NS, TOPOLOGY, MiniWorld
from schema import topics, wire
from schema.codes import EntryKind, Outcome, Reason
from schema.events import (
    BalanceEvent,
    CancelOrder,
    Deposit,
    LedgerEntry,
    PlaceOrder,
    ReduceOrder,
    ReplaceOrder,
    Withdraw,
)
from schema.identifiers import INT64_MAX, AssetId, OrderId, SymbolId, UserId
from tests.traces.damage import (
    Damage,
    Damages,
    busy_world,
    change_balance_events,
    drop_record,
    put_record,
    registrar,
    replace,
)
from traces.invariants import check_one
from traces.manifest import Manifest, TopologyRecord
from traces.trace import Trace
from traces.verdicts import Verdict

DAMAGES: Damages = []
breaks = registrar(DAMAGES)
"""Registers a damage with words from what must be said of it, and of how the decision differs."""
_BTC, _USD = 1, 3
_OWNED = 10**12


def _verdict(world: MiniWorld) -> Verdict:
    return check_one(world.trace(), "core-matches-reference")


def _found(world: MiniWorld) -> list[str]:
    return [f"{row['what']}: {row['differs']}" for row in _verdict(world).violations.to_dict("records")]


def _events(world: MiniWorld) -> list[BalanceEvent]:
    return [event for partition in range(2) for event in world.decoded(topics.BALANCE_EVENTS, partition)]


def _answer(world: MiniWorld) -> tuple[int, int, bool]:
    """Outcome, reason and whether it was a repeat, as the last request was answered."""
    answers = [
        (t, wire.BALANCE_EVENT.decode(value))
        for partition in range(2)
        for t, value in world.log.get((topics.BALANCE_EVENTS, partition), ())
    ]
    _, last = max(((t, event) for t, event in answers if event.request is not None), key=lambda each: each[0])
    assert last.response is not None
    return last.response.outcome, last.response.reason, last.response.is_repeat


def _decided_world() -> MiniWorld:
    """Requests of all kinds with their answers: accepted, rejected, repeated, and with a request id used again."""
    world = MiniWorld()
    world.place(1, SELL, 100, 10, request_id="sell")
    world.place(1, SELL, 100, 10, request_id="sell")
    world.place(1, SELL, 100, 11, request_id="sell")
    world.place(2, BUY, 10**8, 10**7, request_id="poor")
    world.place(2, BUY, 10**8, 10**7, request_id="poor")
    world.place(2, BUY, 110, 4, request_id="buy")
    world.place(3, BUY, 0, 3, order_type=MARKET, tif=IOC, max_spend=5_000, request_id="market")
    world.place(3, BUY, 0, 3, request_id="odd")
    resting = world.place(4, BUY, 50, 5, request_id="resting")
    world.reduce(4, resting, 4)
    world.cancel(4, world.replace(4, resting, BUY, 51, 4))
    world.transfer(4, _USD, -500, request_id="withdrawal")
    world.transfer(4, 99, 500, request_id="unknown")
    world.submit_garbage()
    return world.settle()


def _is_about(request_id: str, *, is_repeat: bool | None = None, reason: int | None = None) -> Callable[[Any], bool]:
    def is_wanted(event: BalanceEvent) -> bool:
        request, response = event.request, event.response
        return (
            request is not None
            and request.request_id == request_id
            and response is not None
            and is_repeat in (None, response.is_repeat)
            and reason in (None, response.reason)
        )

    return is_wanted


def _answered(event: BalanceEvent, **changes: Any) -> BalanceEvent:
    assert event.response is not None
    return replace(event, response=replace(event.response, **changes))


def _with_entry(event: BalanceEvent, **changes: Any) -> BalanceEvent:
    return replace(event, entries=(replace(event.entries[0], **changes), *event.entries[1:]))


def _rejected(event: BalanceEvent, reason: int) -> BalanceEvent:
    without = replace(event, entries=(), validated_partition=-1, validated_link_seq=0)
    return _answered(without, outcome=int(Outcome.REJECTED), reason=int(reason))


def _moves(kind: EntryKind) -> Callable[[Any], bool]:
    return lambda event: event.update_partition >= 0 and any(entry.kind == kind for entry in event.entries)


@breaks("rejected what the reference accepts", "ACCEPTED expected, REJECTED found")
def order_is_rejected_though_its_funds_are_there(world: MiniWorld) -> None:
    change_balance_events(world, _is_about("buy"), lambda event: _rejected(event, Reason.INSUFFICIENT_FUNDS))


@breaks("rejected what the reference accepts", "INVALID_PRICE found")
def order_is_rejected_for_a_price_that_is_in_order(world: MiniWorld) -> None:
    change_balance_events(world, _is_about("resting"), lambda event: _rejected(event, Reason.INVALID_PRICE))


@breaks("rejected what the reference accepts", "WITHDRAWAL of asset 3 for order 0")
def withdrawal_is_rejected_though_its_funds_are_there(world: MiniWorld) -> None:
    change_balance_events(world, _is_about("withdrawal"), lambda event: _rejected(event, Reason.INSUFFICIENT_FUNDS))


@breaks("accepted what the reference rejects", "reason INVALID_PRICE expected, NONE found")
def order_of_no_price_is_accepted(world: MiniWorld) -> None:
    change_balance_events(world, _is_about("odd"), lambda event: _answered(event, outcome=0, reason=0))


@breaks("accepted what the reference rejects", "reason INSUFFICIENT_FUNDS expected, NONE found")
def order_is_accepted_without_its_funds(world: MiniWorld) -> None:
    change_balance_events(
        world, _is_about("poor", is_repeat=False), lambda event: _answered(event, outcome=0, reason=0)
    )


@breaks("decided otherwise than the reference decides", "reason INSUFFICIENT_FUNDS expected, OVERFLOW found")
def rejection_names_another_reason(world: MiniWorld) -> None:
    change_balance_events(
        world, _is_about("poor", is_repeat=False), lambda event: _answered(event, reason=int(Reason.OVERFLOW))
    )


@breaks("decided otherwise than the reference decides", "order_id 1 expected, 77 found")
def answer_names_another_order(world: MiniWorld) -> None:
    change_balance_events(world, _is_about("sell"), lambda event: _answered(event, order_id=77))


@breaks("decided otherwise than the reference decides", "is_repeat 0 expected, 1 found")
def first_answer_says_that_it_is_a_repeat(world: MiniWorld) -> None:
    change_balance_events(world, _is_about("sell"), lambda event: _answered(event, is_repeat=True))


@breaks("repeat was not answered as the request was at first", "is_repeat 1 expected, 0 found")
def repeat_of_an_accepted_order_is_rejected_for_want_of_funds(world: MiniWorld) -> None:
    change_balance_events(
        world,
        _is_about("sell", is_repeat=True),
        lambda event: _answered(_rejected(event, Reason.INSUFFICIENT_FUNDS), is_repeat=False),
    )


@breaks("repeat was not answered as the request was at first", "is_repeat 1 expected, 0 found")
def repeat_of_a_rejected_order_is_decided_anew(world: MiniWorld) -> None:
    change_balance_events(world, _is_about("poor", is_repeat=True), lambda event: _answered(event, is_repeat=False))


@breaks("repeat was not answered as the request was at first", "order_id 1 expected, 2 found")
def repeat_is_told_its_own_order(world: MiniWorld) -> None:
    change_balance_events(world, _is_about("sell", is_repeat=True), lambda event: _answered(event, order_id=2))


@breaks("repeat was not answered as the request was at first", "reason NONE expected, REQUEST_ID_REUSED found")
def repeat_is_refused_as_a_reused_request_id(world: MiniWorld) -> None:
    change_balance_events(
        world,
        _is_about("sell", is_repeat=True),
        lambda event: _answered(_rejected(event, Reason.REQUEST_ID_REUSED), is_repeat=False),
    )


@breaks("request id used for another body was not refused", "reason REQUEST_ID_REUSED expected, NONE found")
def reused_request_id_gets_the_first_answer(world: MiniWorld) -> None:
    change_balance_events(
        world,
        _is_about("sell", reason=Reason.REQUEST_ID_REUSED),
        lambda event: _answered(event, outcome=0, reason=0, order_id=1, is_repeat=True),
    )


@breaks("decided otherwise than the reference decides", "LOCK of asset 3 for order 6 (available -440 ")
def lock_is_smaller_than_the_order(world: MiniWorld) -> None:
    change_balance_events(world, _is_about("buy"), lambda event: _with_entry(event, available_delta=-1, locked_delta=1))


@breaks("decided otherwise than the reference decides", "locked +50")
def lock_is_not_held(world: MiniWorld) -> None:
    change_balance_events(world, _is_about("market"), lambda event: _with_entry(event, locked_delta=0))


@breaks("decided otherwise than the reference decides", "LOCK of asset 3 for order 8")
def lock_is_for_another_order(world: MiniWorld) -> None:
    change_balance_events(world, _is_about("buy"), lambda event: _with_entry(event, order_id=8))


@breaks("decided otherwise than the reference decides", "LOCK of asset 1")
def lock_is_of_the_other_asset(world: MiniWorld) -> None:
    change_balance_events(world, _is_about("sell"), lambda event: _with_entry(event, asset_id=_USD))


@breaks("decided otherwise than the reference decides", "DEPOSIT of asset 3 for order 0 (available -500")
def withdrawal_is_called_a_deposit(world: MiniWorld) -> None:
    change_balance_events(world, _is_about("withdrawal"), lambda event: _with_entry(event, kind=int(EntryKind.DEPOSIT)))


@breaks("decided otherwise than the reference decides", "entries none expected")
def cancel_locks_funds(world: MiniWorld) -> None:
    entry = LedgerEntry(AssetId(_USD), 9, int(EntryKind.LOCK), OrderId(1), -1, 1, _OWNED - 1, 1)
    change_balance_events(
        world, lambda event: isinstance(event.request, CancelOrder), lambda event: replace(event, entries=(entry,))
    )


@breaks("decided otherwise than the reference decides", "sent_to -1 expected, 0 found")
def rejected_order_goes_on_to_the_engine(world: MiniWorld) -> None:
    change_balance_events(
        world, _is_about("odd"), lambda event: replace(event, validated_partition=0, validated_link_seq=1)
    )


@breaks("decided otherwise than the reference decides", "sent_to 0 expected, -1 found")
def accepted_order_does_not_go_on(world: MiniWorld) -> None:
    change_balance_events(
        world, _is_about("buy"), lambda event: replace(event, validated_partition=-1, validated_link_seq=0)
    )


@breaks("decided otherwise than the reference decides", "time_ns")
def event_time_is_not_that_of_the_request(world: MiniWorld) -> None:
    change_balance_events(world, _is_about("resting"), lambda event: replace(event, time_ns=event.time_ns - 1))


@breaks("decided otherwise than the reference decides", "user_id 4 expected, 5 found")
def event_is_of_another_user(world: MiniWorld) -> None:
    change_balance_events(world, _is_about("resting"), lambda event: replace(event, user_id=UserId(5)))


@breaks("fund update was applied otherwise", "CREDIT of asset")
def credit_is_not_applied(world: MiniWorld) -> None:
    change_balance_events(
        world,
        _moves(EntryKind.CREDIT),
        lambda event: replace(event, entries=tuple(each for each in event.entries if each.kind != EntryKind.CREDIT)),
    )


@breaks("fund update was applied otherwise", "found")
def release_is_not_applied(world: MiniWorld) -> None:
    change_balance_events(world, _moves(EntryKind.RELEASE), lambda event: replace(event, entries=()))


@breaks("fund update was applied otherwise", "found")
def debit_is_called_a_release(world: MiniWorld) -> None:
    change_balance_events(
        world, _moves(EntryKind.DEBIT), lambda event: _with_entry(event, kind=int(EntryKind.RELEASE), order_id=99)
    )


@breaks("fund update was applied otherwise", "ACCEPTED expected, no answer found")
def submitter_is_not_told_the_verdict(world: MiniWorld) -> None:
    change_balance_events(
        world,
        lambda event: event.update_partition >= 0 and event.response is not None,
        lambda event: replace(event, response=None),
    )


@breaks("input is another than the event says", "PlaceOrder")
def event_holds_another_quantity_than_the_request(world: MiniWorld) -> None:
    change_balance_events(
        world, _is_about("buy"), lambda event: replace(event, request=replace(event.request, quantity=5))
    )


@breaks("input is another than the event says", "FundUpdate")
def event_names_another_output_than_the_update(world: MiniWorld) -> None:
    change_balance_events(
        world, _moves(EntryKind.DEBIT), lambda event: replace(event, update_output_seq=event.update_output_seq + 1)
    )


@breaks("input is another than the event says", "Withdraw")
def request_that_decodes_is_put_with_the_dead_letters(world: MiniWorld) -> None:
    change_balance_events(
        world,
        _is_about("withdrawal"),
        lambda event: replace(event, request=None, response=None, entries=(), user_id=UserId(0)),
    )


@breaks("input is not of this partition", "partition 7")
def input_is_of_another_partition(world: MiniWorld) -> None:
    change_balance_events(world, _is_about("buy"), lambda event: replace(event, input_partition=7))


@breaks("input was taken out of order", "after")
def input_is_taken_out_of_order(world: MiniWorld) -> None:
    change_balance_events(world, _is_about("resting"), lambda event: replace(event, input_offset=0))


@pytest.mark.parametrize(("says", "differs", "damage"), DAMAGES, ids=[damage.__name__ for _, _, damage in DAMAGES])
def test_reference_decides_otherwise(says: str, differs: str, damage: Damage) -> None:
    world = _decided_world()
    damage(world)
    found = _found(world)
    assert any(says in each and differs in each for each in found), found


def test_one_wrong_decision_is_told_once() -> None:
    world = _decided_world()
    repeat_is_told_its_own_order(world)
    rejection_names_another_reason(world)
    # The repeat of what was rejected for another reason must be told that other one.
    assert len(_found(world)) == 3


@pytest.mark.parametrize("world", [busy_world, _decided_world], ids=lambda world: world.__name__)
def test_every_event_of_a_sound_world_is_judged_and_holds(world: Callable[[], MiniWorld]) -> None:
    sound = world()
    verdict = _verdict(sound)
    assert verdict.violations.to_dict("records") == []
    assert verdict.checked == len(_events(sound))


def test_nothing_to_judge_is_not_exercised() -> None:
    assert _verdict(MiniWorld(funded_users=0)).verdict == "not exercised"
    empty = Trace(Manifest(seed=0, topology=TopologyRecord.of(TOPOLOGY)), {})
    assert check_one(empty, "core-matches-reference").verdict == "not exercised"


def test_log_that_does_not_begin_at_event_1_is_not_exercised() -> None:
    world = _decided_world()
    for partition in range(2):
        drop_record(world, topics.BALANCE_EVENTS, partition, 0)
    assert _verdict(world).verdict == "not exercised"


@pytest.mark.parametrize("is_garbage", [True, False])
def test_events_are_judged_up_to_the_first_that_is_missing(is_garbage: bool) -> None:
    world = _decided_world()
    order_is_rejected_though_its_funds_are_there(world)
    partition = TOPOLOGY.user_partition(UserId(2))
    others = len(world.log[topics.BALANCE_EVENTS, 1 - partition])
    if is_garbage:
        put_record(world, topics.BALANCE_EVENTS, partition, 3, b"\x01garbage, whatever it was")
    else:
        drop_record(world, topics.BALANCE_EVENTS, partition, 3)
    verdict = _verdict(world)
    assert (verdict.verdict, verdict.checked) == ("holds", others + 3)


def test_input_that_the_log_holds_no_more_is_believed_to_be_what_its_event_says() -> None:
    world = _decided_world()
    for partition in range(2):
        for topic in (topics.ORDER_REQUESTS, topics.FUND_UPDATES):
            world.log[topic, partition].clear()
    verdict = _verdict(world)
    assert verdict.violations.to_dict("records") == []
    assert verdict.checked == sum(event.update_partition < 0 for event in _events(world))


def test_decision_is_judged_by_its_event_where_the_log_holds_its_input_no_more() -> None:
    world = _decided_world()
    order_is_rejected_though_its_funds_are_there(world)
    for partition in range(2):
        world.log[topics.ORDER_REQUESTS, partition].clear()
    assert _verdict(world).verdict == "violated"


@pytest.mark.parametrize(("later_ns", "verdict"), [(0, "violated"), (DAY_NS, "holds")])
@pytest.mark.parametrize("topic", [topics.ORDER_REQUESTS, topics.FUND_UPDATES])
def test_input_that_was_put_at_its_place_after_the_decision_is_another_one(
    topic: str, later_ns: int, verdict: str
) -> None:
    world = _decided_world()
    t, value = world.log[topic, 0][0]
    of = CODECS[topic].decode(value)
    other = replace(of, output_seq=77) if topic == topics.FUND_UPDATES else replace(of, user_id=UserId(77))
    world.log[topic, 0][0] = (t + later_ns, wire.encode(other))
    assert _verdict(world).verdict == verdict


@pytest.mark.parametrize(("waited_ns", "is_repeat"), [(DAY_NS - 1, True), (DAY_NS, False)])
def test_request_is_remembered_for_24_hours_of_event_time(waited_ns: int, is_repeat: bool) -> None:
    world = MiniWorld()
    world.transfer(1, _BTC, 5, request_id="mine")
    first: Any = next(filter(_is_about("mine"), _events(world)))
    request = replace(first.request, requested_at_ns=first.time_ns + waited_ns)
    world._submit(request)
    assert _answer(world) == (Outcome.ACCEPTED, 0, is_repeat)
    assert _found(world) == []


def test_repeat_that_is_forgotten_too_early_is_seen() -> None:
    world = MiniWorld()
    world.transfer(1, _BTC, 5, request_id="mine")
    first: Any = next(filter(_is_about("mine"), _events(world)))
    for core in world._cores:
        core.remembered.clear()
        core._oldest_first.clear()
    world._submit(replace(first.request, requested_at_ns=first.time_ns + DAY_NS - 1))
    assert [each.split(":")[0] for each in _found(world)] == ["repeat was not answered as the request was at first"]


@pytest.mark.parametrize(
    ("amount", "answer"),
    [(_OWNED, (Outcome.ACCEPTED, 0, False)), (_OWNED + 1, (Outcome.REJECTED, Reason.INSUFFICIENT_FUNDS, False))],
)
def test_funds_suffice_to_the_last_atom(amount: int, answer: tuple[int, int, bool]) -> None:
    world = MiniWorld()
    world.transfer(1, _USD, -amount)
    assert _answer(world) == answer
    assert _found(world) == []


@pytest.mark.parametrize("more", [0, 1])
def test_supply_of_a_partition_may_grow_to_its_share_of_64_bits(more: int) -> None:
    world = MiniWorld(funded_users=0)
    world.transfer(1, _USD, INT64_MAX // 2 + more)
    assert _answer(world)[:2] == ((1, Reason.OVERFLOW) if more else (0, 0))
    assert _found(world) == []


def test_request_for_a_user_of_another_partition_is_rejected_and_not_remembered() -> None:
    world = MiniWorld()
    for _ in range(2):
        world.t += STEP_NS
        request = Deposit("mine", UserId(1), world._now(), AssetId(_BTC), 5)
        partition = 1 - TOPOLOGY.user_partition(request.user_id)
        offset = world._append(topics.ORDER_REQUESTS, partition, wire.encode(request))
        place = (topics.ORDER_REQUESTS, partition, offset)
        world._balance_event(world._cores[partition].apply_request(request, *place))
    assert _found(world) == []


@pytest.mark.parametrize("request_id", ["", "x" * 65, "\N{GREEK SMALL LETTER OMEGA}" * 33])
def test_request_without_a_possible_request_id_is_rejected_or_put_with_the_dead_letters(request_id: str) -> None:
    world = MiniWorld()
    world._submit(Deposit(request_id, UserId(1), world._now(), AssetId(_BTC), 5))
    assert _answer(world)[:2] == (Outcome.REJECTED, Reason.INVALID_IDENTIFIER)
    assert _found(world) == []


def test_request_beyond_every_column_has_no_effect() -> None:
    world = MiniWorld()
    world.place(1, SELL, 2**63, 2**64 - 1, request_id="huge")
    assert _found(world) == []
    change_balance_events(world, _is_about("huge"), lambda event: _answered(event, outcome=0))
    assert [each.split(":")[0] for each in _found(world)] == ["request beyond every column had an effect"]


_NUMBERS = st.sampled_from([-(2**63), -1, 0, 1, 2, 3, 100, 32_768, 10**6, 10**9, 2**31, 2**62, INT64_MAX])
_CODES = st.integers(-1, 4)
_FEW = st.integers(0, 3)
_COMMON: Any = (st.sampled_from(["a", "b", "c", "d", "e", "f"]), st.sampled_from([1, 2, 3, 4, 0, -1]), st.just(0))
_ORDERS = st.integers(0, 9)
_REQUESTS = st.one_of(
    st.builds(PlaceOrder, *_COMMON, _ORDERS, _FEW, _CODES, _CODES, _CODES, _NUMBERS, _NUMBERS, _NUMBERS),
    st.builds(
        PlaceOrder, *_COMMON, _ORDERS, st.just(SymbolId(1)), st.sampled_from([BUY, SELL]), st.just(LIMIT),
        st.just(0), st.integers(1, 3), st.integers(1, 3), st.just(0),
    ),
    st.builds(
        PlaceOrder, *_COMMON, _ORDERS, st.just(SymbolId(1)), st.sampled_from([BUY, SELL]), st.just(MARKET),
        st.sampled_from([IOC, FOK]), st.just(0), _NUMBERS, _NUMBERS,
    ),
    st.builds(CancelOrder, *_COMMON, _ORDERS, _FEW),
    st.builds(ReduceOrder, *_COMMON, _ORDERS, _FEW, _NUMBERS),
    st.builds(ReplaceOrder, *_COMMON, _ORDERS, _FEW, _ORDERS, _CODES, _CODES, _NUMBERS, _NUMBERS),
    st.builds(Deposit, *_COMMON, st.integers(0, 4), _NUMBERS),
    st.builds(Withdraw, *_COMMON, st.integers(0, 4), _NUMBERS),
)  # fmt: skip


@given(st.lists(st.tuples(_REQUESTS, st.sampled_from([0, 0, 0, -(10**9), DAY_NS // 2])), max_size=30))
@settings(max_examples=40, deadline=None)
def test_balance_core_agrees_with_the_reference(requests: list[tuple[Any, int]]) -> None:
    world = MiniWorld(funded_users=2)
    for request, jump_ns in requests:
        world.t += max(jump_ns, 0)
        world._submit(replace(request, requested_at_ns=max(0, world._now() + min(jump_ns, 0))))
    assert _found(world) == []
