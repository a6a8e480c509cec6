"""What a client is told, and when: answers, verdicts, failures and time-outs, on simulated time."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gateway.submissions import ClientAnswer, Submissions
from schema.codes import Outcome, Reason, Verdict
from schema.events import CancelOrder, Deposit, OrderResponse, PlaceOrder
from schema.identifiers import AssetId, OrderId, SymbolId, UserId
from schema.wire import body_hash
from sim.clock import NS_PER_SECOND
from sim.world import World
from tests.engine import exchange_for_tests as exchange

PLACED = int(Verdict.PLACED)
ACCEPTED = int(Outcome.ACCEPTED)
REJECTED = int(Outcome.REJECTED)


class Desk:
    """Submissions on a simulated loop, and what their clients were told, when."""

    def __init__(self, world: World, wait_s: float) -> None:
        self.world = world
        self.told: list[tuple[float, str, ClientAnswer]] = []
        self.loop = world.host("gateway").start(_for_ever).loop
        self.submissions = Submissions(wait_s)

    def do(self, action: Callable[[], Any]) -> Any:
        done: list[Any] = []
        self.loop.enter(lambda: done.append(action()))
        return done[0]

    def add(self, request: Any, name: str = "") -> Any:
        def told(answer: ClientAnswer) -> None:
            self.told.append((self.loop.time(), name or request.request_id, answer))

        return self.do(lambda: self.submissions.add(request, told))

    def offer(self, request: Any, **changes: Any) -> None:
        fields: dict[str, Any] = {
            "request_id": request.request_id, "user_id": request.user_id, "order_id": getattr(request, "order_id", 0),
            "outcome": ACCEPTED, "reason": 0, "verdict": 0, "verdict_reason": 0, "time_ns": 1, "is_repeat": False,
            "body_hash": body_hash(request),
        }  # fmt: skip
        self.do(lambda: self.submissions.offer(OrderResponse(**(fields | changes))))

    def pass_s(self, seconds: float) -> None:
        self.world.clock.run_until(self.world.clock.now + round(seconds * NS_PER_SECOND))

    def outcomes(self) -> list[tuple[float, str, str]]:
        return [(t, name, answer.outcome) for t, name, answer in self.told]


async def _for_ever(incarnation: Any) -> None:
    await incarnation.loop.create_future()


@pytest.fixture
def desk() -> Iterator[Desk]:
    world = World(1)
    with world.running():
        yield Desk(world, 4.0)
    world.close()


def place(request_id: str = "a", order_id: int = 7, quantity: int = 1) -> PlaceOrder:
    return PlaceOrder(
        request_id=request_id, user_id=UserId(1), requested_at_ns=1, order_id=OrderId(order_id),
        symbol_id=SymbolId(1), side=0, order_type=1, time_in_force=0, price=5, quantity=quantity, max_spend=0,
    )  # fmt: skip


def deposit(request_id: str = "d") -> Deposit:
    return Deposit(request_id, UserId(1), 1, AssetId(1), 5)


def test_order_command_is_told_only_with_its_verdict(desk: Desk) -> None:
    order = place()
    desk.add(order)
    desk.offer(order)
    assert desk.told == []
    desk.offer(order, verdict=PLACED, verdict_reason=3)
    ((_, _, answer),) = desk.told
    assert answer == ClientAnswer("accepted", "accepted, placed", 0, PLACED, 3, OrderId(7))
    assert desk.submissions.count == 0


def test_deposit_and_rejection_are_told_at_once(desk: Desk) -> None:
    money, order = deposit(), place()
    desk.add(money)
    desk.add(order)
    desk.offer(money)
    desk.offer(order, outcome=REJECTED, reason=int(Reason.INSUFFICIENT_FUNDS))
    assert [(name, answer.outcome, answer.message) for _, name, answer in desk.told] == [
        ("d", "accepted", "accepted"),
        ("a", "rejected", "insufficient funds"),
    ]


def test_silence_is_unknown_after_one_wait_and_a_missing_verdict_told_after_two(desk: Desk) -> None:
    silent, half = place("silent", 7), place("half", 8)
    desk.add(silent)
    desk.add(half)
    desk.pass_s(3)
    desk.offer(half)
    desk.pass_s(10)
    assert desk.outcomes() == [(4.0, "silent", "unknown"), (8.0, "half", "accepted")]
    assert desk.told[1][2].verdict == 0
    assert desk.submissions.idle.is_set()


def test_each_wait_ends_in_its_own_time_whatever_came_before_it(desk: Desk) -> None:
    for number in range(50):
        desk.add(place(f"a{number}", 100 + number))
        if number % 3:
            desk.offer(place(f"a{number}", 100 + number), verdict=PLACED)
        desk.pass_s(0.1)
    desk.told.clear()
    desk.pass_s(10)
    rest = [number for number in range(50) if not number % 3 and 4 + number / 10 > 5]
    assert [name for _, name, _ in desk.told] == [f"a{number}" for number in rest]
    assert [t for t, _, _ in desk.told] == pytest.approx([4 + number / 10 for number in rest], abs=1e-9)


def test_who_asks_again_when_told_does_not_put_off_the_others(desk: Desk) -> None:
    def ask_again(answer: ClientAnswer) -> None:
        desk.submissions.add(place("again", 9), lambda answer: desk.told.append((desk.loop.time(), "again", answer)))

    desk.do(lambda: desk.submissions.add(place("first", 7), ask_again))
    desk.pass_s(1)
    desk.add(place("second", 8))
    desk.pass_s(20)
    assert desk.outcomes() == [(5.0, "second", "unknown"), (8.0, "again", "unknown")]


def test_many_waits_need_one_timer_at_a_time(desk: Desk) -> None:
    before = desk.world.clock.pending
    for number in range(1_000):
        desk.add(place(f"a{number}", 100 + number))
    assert desk.world.clock.pending == before + 1
    for number in range(1_000):
        desk.offer(place(f"a{number}", 100 + number), verdict=PLACED)
    desk.pass_s(10)
    assert desk.world.clock.pending == before
    assert len(desk.told) == 1_000


def test_waits_that_ran_out_while_the_host_was_paused_all_end_when_it_goes_on(desk: Desk) -> None:
    for number in range(3):
        desk.add(place(f"a{number}", 100 + number))
        desk.pass_s(0.5)
    host = desk.world.host("gateway")
    host.pause()
    desk.pass_s(20)
    assert desk.told == []
    host.resume()
    desk.pass_s(0)
    assert desk.outcomes() == [(21.5, f"a{number}", "unknown") for number in range(3)]


def test_answer_to_the_same_body_handed_in_elsewhere_is_taken(desk: Desk) -> None:
    mine, other = place(order_id=7), place(order_id=8)
    desk.add(mine)
    desk.offer(other)
    desk.offer(other, verdict=PLACED)
    assert [(answer.order_id, answer.verdict) for _, _, answer in desk.told] == [(8, PLACED)]


@pytest.mark.parametrize("is_repeat", [False, True])
@pytest.mark.parametrize(
    "other",
    [
        place(order_id=7, quantity=2),
        CancelOrder("a", UserId(1), 1, OrderId(7), SymbolId(1)),
        deposit("a"),
    ],
    ids=["another quantity", "a cancel of that order", "a deposit"],
)
def test_no_response_to_another_body_under_the_id_is_taken(desk: Desk, other: Any, is_repeat: bool) -> None:
    mine = place(order_id=7)
    desk.add(mine)
    for verdict in (0, PLACED):
        desk.offer(other, verdict=verdict, is_repeat=is_repeat)
        desk.offer(other, outcome=REJECTED, reason=int(Reason.REQUEST_ID_REUSED), order_id=0)
    assert desk.told == []
    desk.offer(mine)
    desk.offer(other, verdict=int(Verdict.CANCELLED), order_id=7)
    assert desk.told == []
    desk.offer(mine, verdict=PLACED)
    assert [(answer.outcome, answer.verdict) for _, _, answer in desk.told] == [("accepted", PLACED)]


def test_both_submissions_of_one_id_are_told(desk: Desk) -> None:
    first, second = place(order_id=7), place(order_id=8)
    desk.add(first, "first")
    desk.add(second, "second")
    desk.offer(first)
    desk.offer(second, order_id=7, is_repeat=True)
    desk.offer(first, verdict=PLACED)
    assert [(name, answer.order_id, answer.verdict) for _, name, answer in desk.told] == [
        ("first", 7, PLACED),
        ("second", 7, PLACED),
    ]


def test_other_body_under_an_id_is_told_its_refusal_though_a_repeat_of_the_first_is_answered_meanwhile(
    desk: Desk,
) -> None:
    first, repeat = (exchange.place(order_id, quantity=1, request_id="a") for order_id in (7, 8))
    other = exchange.place(9, quantity=2, request_id="a")
    balances = exchange.Desk()
    balances.ask(exchange.deposit(1_000, exchange.USD))
    balances.ask(first)
    desk.add(repeat, "repeat")
    desk.add(other, "other")
    for request in (repeat, other):
        response = balances.ask(request).response
        desk.do(lambda response=response: desk.submissions.offer(response))
    desk.pass_s(10)
    assert [(name, answer.outcome, answer.reason, answer.order_id) for _, name, answer in desk.told] == [
        ("other", "rejected", Reason.REQUEST_ID_REUSED, 0),
        ("repeat", "accepted", 0, 7),
    ]


def test_failure_to_send_does_not_undo_an_answer_that_has_come(desk: Desk) -> None:
    order, lost = place("a", 7), place("b", 8)
    submission, hopeless = desk.add(order), desk.add(lost)
    desk.offer(order)
    desk.do(lambda: submission.fail("broken"))
    desk.do(lambda: hopeless.fail("broken"))
    desk.offer(order, verdict=PLACED)
    assert [(name, answer.outcome) for _, name, answer in desk.told] == [("b", "unknown"), ("a", "accepted")]
    assert "broken" in desk.told[0][2].message


def test_who_is_forgotten_is_told_nothing_and_told_once_is_told_once(desk: Desk) -> None:
    order, gone = place("a", 7), CancelOrder("x", UserId(1), 1, OrderId(7), SymbolId(1))
    desk.add(order)
    left = desk.add(gone)
    desk.do(left.forget)
    desk.do(left.forget)
    desk.offer(gone, verdict=int(Verdict.CANCELLED))
    for _ in range(2):
        desk.offer(order, verdict=PLACED)
    desk.pass_s(10)
    assert desk.outcomes() == [(0.0, "a", "accepted")]
    assert desk.submissions.count == 0


def test_closing_tells_all_who_wait(desk: Desk) -> None:
    order, half = place("a", 7), place("b", 8)
    desk.add(order)
    desk.add(half)
    desk.offer(half)
    desk.do(desk.submissions.close)
    desk.pass_s(10)
    assert desk.outcomes() == [(0.0, "a", "unknown"), (0.0, "b", "accepted")]
