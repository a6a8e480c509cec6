"""The gateway on the simulated Kafka: every request gets one answer, and "unknown" when nobody can know."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiokafka.structs import TopicPartition

from gateway.core import Gateway, GatewayConfig
from gateway.requests import RequestError
from gateway.submissions import ClientAnswer
from schema.codes import Outcome, Reason, Verdict
from schema.events import AnyRequest, OrderResponse, PlaceOrder
from schema.topics import ORDER_REQUESTS, ORDER_RESPONSES
from schema.wire import REQUEST, body_hash, encode
from sim.clock import NS_PER_MS
from sim.hosts import Incarnation
from sim.kafka import SimKafkaClients
from tests.settlement.events_for_tests import small_topology
from tests.sim.services.settled_world import RecordedLog, SettledWorld

USER = 7
PLACE = {
    "type": "place",
    "user_id": USER,
    "client_order_id": "a-1",
    "symbol": "BTC-USD",
    "side": "buy",
    "order_type": "limit",
    "price": "100",
    "quantity": "1",
}
DEPOSIT = {"type": "deposit", "user_id": USER, "request_id": "d-1", "asset": "USD", "amount": "5"}
Answerer = Callable[[AnyRequest], list[OrderResponse]]


@pytest.fixture
def world() -> Iterator[SettledWorld]:
    world = SettledWorld(small_topology())
    yield world
    world.close()


def response(request: AnyRequest, **changes: Any) -> OrderResponse:
    fields: dict[str, Any] = {
        "request_id": request.request_id,
        "user_id": request.user_id,
        "order_id": getattr(request, "order_id", 0),
        "outcome": int(Outcome.ACCEPTED),
        "reason": 0,
        "verdict": 0,
        "verdict_reason": 0,
        "time_ns": 1,
        "is_repeat": False,
        "body_hash": body_hash(request),
    }
    return OrderResponse(**(fields | changes))


def accept(request: AnyRequest) -> list[OrderResponse]:
    """The balance core accepts, then the engine takes the order."""
    first = response(request)
    return [first, response(request, verdict=int(Verdict.PLACED))] if isinstance(request, PlaceOrder) else [first]


def balance_core(world: SettledWorld, answers: Answerer = accept) -> list[AnyRequest]:
    """Play the balance core; returns the requests as they are read."""
    seen: list[AnyRequest] = []

    async def main(incarnation: Incarnation) -> None:
        clients = SimKafkaClients(world.kafka, incarnation)
        producer, consumer = clients.producer(acks="all"), clients.consumer(isolation_level="read_committed")
        partitions = [TopicPartition(ORDER_REQUESTS, number) for number in range(world.topology.user_partitions)]
        consumer.assign(partitions)
        await producer.start()
        await consumer.start()
        for partition in partitions:
            consumer.seek(partition, 0)
        while True:
            for partition, records in (await consumer.getmany(timeout_ms=1_000)).items():
                for record in records:
                    request = REQUEST.decode(record.value)
                    seen.append(request)
                    for answer in answers(request):
                        await producer.send_and_wait(ORDER_RESPONSES, encode(answer), partition=partition.partition)

    world.world.host("balance-core").start(main)
    world.pass_s(0.5)
    return seen


def submit(
    world: SettledWorld, *requests: object, gateway: str = "gateway-1", seconds: float = 12
) -> list[ClientAnswer]:
    """Hand requests in at once, and return their answers in that order; None for one that has none yet."""
    answers: dict[int, ClientAnswer] = {}
    host = world.world.host(gateway)

    async def one(number: int, request: Any) -> None:
        answers[number] = await world.gateways[gateway].submit(request)

    def begin() -> None:
        for number, request in enumerate(requests):
            host.incarnation.loop.create_task(one(number, request))

    host.incarnation.enter(begin)
    world.pass_s(seconds)
    return [answers.get(number) for number in range(len(requests))]


def test_placed_order_is_told_its_id_and_the_engines_verdict(world: SettledWorld) -> None:
    seen = balance_core(world)
    world.gateway("gateway-1")
    (answer,) = submit(world, PLACE, seconds=1)
    (request,) = seen
    assert isinstance(request, PlaceOrder)
    assert answer == ClientAnswer(
        "accepted", "accepted, placed", verdict=int(Verdict.PLACED), order_id=request.order_id
    )
    assert any(
        event == "order request produced" and fields["order_id"] == request.order_id for _, event, fields in world.lines
    )


def test_deposit_is_answered_without_waiting_for_a_verdict(world: SettledWorld) -> None:
    balance_core(world)
    world.gateway("gateway-1")
    (answer,) = submit(world, DEPOSIT, seconds=1)
    assert answer == ClientAnswer("accepted", "accepted")


def test_rejection_names_its_reason(world: SettledWorld) -> None:
    reason = int(Reason.INSUFFICIENT_FUNDS)
    balance_core(world, lambda request: [response(request, outcome=1, reason=reason)])
    world.gateway("gateway-1")
    (answer,) = submit(world, PLACE, seconds=1)
    assert (answer.outcome, answer.reason, answer.message) == ("rejected", reason, "insufficient funds")


def test_invalid_request_reaches_nobody(world: SettledWorld) -> None:
    seen = balance_core(world)
    world.gateway("gateway-1")
    (answer,) = submit(world, PLACE | {"price": "-1"}, seconds=1)
    assert answer.outcome == "invalid"
    assert "greater than zero" in answer.message
    assert seen == []


def test_no_answer_in_time_is_unknown(world: SettledWorld) -> None:
    balance_core(world, lambda request: [])
    world.gateway("gateway-1", GatewayConfig(answer_timeout_ms=1_000))
    (answer,) = submit(world, PLACE, seconds=0.9)
    assert answer is None
    (answer, _) = submit(world, PLACE | {"client_order_id": "a-2"}, DEPOSIT, seconds=2)
    assert answer.outcome == "unknown"
    assert "no answer in time" in answer.message
    assert world.gateways["gateway-1"].outstanding == 0


def test_acceptance_without_a_verdict_in_time_is_accepted_with_the_verdict_open(world: SettledWorld) -> None:
    balance_core(world, lambda request: [response(request)])
    world.gateway("gateway-1", GatewayConfig(answer_timeout_ms=1_000))
    (answer,) = submit(world, PLACE, seconds=3)
    assert (answer.outcome, answer.verdict) == ("accepted", 0)


def test_repeat_at_another_gateway_gets_the_first_answer_and_order(world: SettledWorld) -> None:
    def answers(request: AnyRequest) -> list[OrderResponse]:
        if len(seen) == 1:
            return [response(request), response(request, verdict=int(Verdict.PLACED))]
        return [response(request, order_id=seen[0].order_id, verdict=int(Verdict.PLACED), is_repeat=True)]

    seen = balance_core(world, answers)
    world.gateway("gateway-1")
    world.gateway("gateway-2")
    (first,) = submit(world, PLACE, seconds=1)
    (again,) = submit(world, PLACE, gateway="gateway-2", seconds=1)
    assert again == first
    assert seen[0].order_id != seen[1].order_id


def test_two_submissions_of_one_request_at_once_are_both_answered(world: SettledWorld) -> None:
    def answers(request: AnyRequest) -> list[OrderResponse]:
        if len(seen) == 1:
            return [response(request)]
        return [
            response(request, order_id=seen[0].order_id, is_repeat=True),
            response(request, order_id=seen[0].order_id, verdict=int(Verdict.PLACED)),
        ]

    seen = balance_core(world, answers)
    world.gateway("gateway-1")
    first, second = submit(world, PLACE, PLACE, seconds=2)
    assert first == second
    assert (first.outcome, first.order_id) == ("accepted", seen[0].order_id)


def test_other_body_under_an_outstanding_id_is_not_told_the_firsts_answer(world: SettledWorld) -> None:
    def answers(request: AnyRequest) -> list[OrderResponse]:
        if len(seen) == 1:
            return [response(request)]
        reused = response(request, order_id=0, outcome=1, reason=int(Reason.REQUEST_ID_REUSED))
        return [reused, response(seen[0], verdict=int(Verdict.PLACED))]

    seen = balance_core(world, answers)
    world.gateway("gateway-1")
    first, other = submit(world, PLACE, PLACE | {"quantity": "2"}, seconds=2)
    assert (first.outcome, first.verdict) == ("accepted", int(Verdict.PLACED))
    assert (other.outcome, other.reason) == ("rejected", int(Reason.REQUEST_ID_REUSED))


def test_restarted_gateway_gives_no_order_id_again_even_when_its_clock_goes_back(world: SettledWorld) -> None:
    seen = balance_core(world)
    for number in range(3):
        host = world.gateway("gateway-1")
        submit(world, PLACE | {"client_order_id": f"b-{number}"}, seconds=1)
        host.crash()
        host.wall.jump(-3600 * 1_000 * NS_PER_MS)
        world.gateways.clear()
    ids = [request.order_id for request in seen]
    assert len(ids) == 3
    assert len(set(ids)) == 3


def test_too_many_requests_at_once_are_told_so_and_not_sent(world: SettledWorld) -> None:
    seen = balance_core(world)
    world.gateway("gateway-1", GatewayConfig(outstanding_max=2))
    answers = submit(world, *(DEPOSIT | {"request_id": f"d-{number}"} for number in range(5)), seconds=2)
    assert [answer.outcome for answer in answers] == ["accepted"] * 2 + ["unknown"] * 3
    assert "not sent" in answers[-1].message
    assert len(seen) == 2


def test_stopping_gateway_answers_what_it_took_and_takes_no_more(world: SettledWorld) -> None:
    seen = balance_core(world)
    host = world.gateway("gateway-1")
    gateway = world.gateways["gateway-1"]
    answers: list[ClientAnswer] = []

    async def one(request: Any) -> None:
        answers.append(await gateway.submit(request))

    host.incarnation.enter(lambda: host.incarnation.loop.create_task(one(PLACE)))
    host.stop()
    host.incarnation.enter(lambda: host.incarnation.loop.create_task(one(DEPOSIT)))
    world.pass_s(3)
    assert not host.is_up
    assert sorted(answer.outcome for answer in answers) == ["accepted", "unknown"]
    assert len(seen) == 1


def test_brokers_that_are_gone_for_a_while_cost_answers_not_the_gateway(world: SettledWorld) -> None:
    balance_core(world)
    world.gateway("gateway-1", GatewayConfig(answer_timeout_ms=1_000))
    for broker in (1, 2, 3):
        world.kafka.faults.crash_broker(broker)
    (answer,) = submit(world, DEPOSIT, seconds=4)
    assert answer.outcome == "unknown"
    for broker in (1, 2, 3):
        world.kafka.faults.return_broker(broker)
    world.pass_s(60)
    (answer,) = submit(world, DEPOSIT | {"request_id": "d-2"}, seconds=5)
    assert answer.outcome == "accepted"


def test_undecodable_answer_is_reported_and_passed_over(world: SettledWorld) -> None:
    balance_core(world)
    world.gateway("gateway-1")
    world.produce(ORDER_RESPONSES, 0, [b"rubbish"])
    world.produce(ORDER_RESPONSES, 1, [b"rubbish"])
    (answer,) = submit(world, PLACE, seconds=2)
    assert answer.outcome == "accepted"
    assert sum("undecodable" in event for level, event, _ in world.lines if level == "error") == 2


def test_reads_go_to_the_users_own_rows_and_unknown_symbols_are_refused(world: SettledWorld) -> None:
    world.gateway("gateway-1")
    found: dict[str, object] = {}

    async def ask(gateway: Gateway) -> None:
        found["orders"] = await gateway.get_active_orders(USER)
        found["balances"] = await gateway.get_balances(USER)
        found["order"] = await gateway.get_order(USER, 1)
        for name, ask in (
            ("symbol", lambda: gateway.get_active_orders(USER, ["GOLD"])),
            ("limit", lambda: gateway.get_trades(USER, "BTC-USD", 0)),
        ):
            try:
                await ask()
            except RequestError as error:
                found[name] = str(error)

    host = world.world.host("gateway-1")
    host.incarnation.enter(lambda: host.incarnation.loop.create_task(ask(world.gateways["gateway-1"])))
    world.pass_s(1)
    assert (found["orders"], found["balances"], found["order"]) == ([], [], None)
    assert "GOLD" in str(found["symbol"])
    assert "limit" in str(found["limit"])


def test_slow_link_to_the_answers_does_not_mix_up_who_asked(world: SettledWorld) -> None:
    balance_core(world)
    world.gateway("gateway-1")
    for broker in world.kafka.broker_names.values():
        world.world.network.slow(broker, "gateway-1", 300 * NS_PER_MS)
    requests = [PLACE | {"client_order_id": f"s-{number}", "user_id": number} for number in range(1, 30)]
    answers = submit(world, *requests, seconds=10)
    assert {answer.outcome for answer in answers} == {"accepted"}
    assert len({answer.order_id for answer in answers}) == 29


def test_gateway_takes_no_request_before_it_knows_from_where_to_read_the_answers(world: SettledWorld) -> None:
    seen = balance_core(world)
    world.kafka.faults.no_leader(ORDER_RESPONSES, 0, world.clock.now + 5_000 * NS_PER_MS)
    told: list[ClientAnswer] = []

    async def main(incarnation: Incarnation) -> None:
        clients = SimKafkaClients(world.kafka, incarnation)
        queries = (await world.store(incarnation)).queries
        log = RecordedLog(world.lines, incarnation)
        gateway = Gateway("early", world.topology, clients, queries, incarnation.host.wall, log)
        starting = incarnation.loop.create_task(gateway.start())
        while not starting.done():
            told.append(await gateway.submit(DEPOSIT))
            await asyncio.sleep(0.2)
        told.append(await gateway.submit(DEPOSIT | {"request_id": "d-2"}))
        await gateway.stop()

    world.run(main)
    assert [answer.outcome for answer in told[:-1]] == ["unknown"] * (len(told) - 1)
    assert all("not sent" in answer.message for answer in told[:-1])
    assert [request.request_id for request in seen] == ["d-2"]
