"""The simulation's clients in real time: on a stand-in gateway, over the driver's clock, network and process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, cast

from schema.codes import Verdict
from settlement.queries import Queries
from sim.clients import Clients
from sim.clock import NS_PER_MS, NS_PER_SECOND, Clock
from sim.driver.latency import LatencyMeter
from sim.driver.real_time import NoNetwork, RealTimeClock, ThisProcess
from sim.flows import make_topology, synthetic_flow
from sim.flows.operations import Operation
from sim.network import Network
from sim.randomness import Randomness
from traces.recorder import Recorder

TOPOLOGY = make_topology(3, 3, 2)
ORDERS = 40


class Told:
    """The answer that the stand-in gives: placed."""

    outcome = "accepted"
    reason = 0
    verdict = int(Verdict.PLACED)
    verdict_reason = 0
    message = ""

    def __init__(self, order_id: int) -> None:
        self.order_id = order_id


class StandIn:
    """A gateway that accepts everything a moment later, but for each request's first submission every tenth time."""

    name = "gateway-1"

    def __init__(self) -> None:
        self.incarnation: Any = ThisProcess()
        self.front = self
        self.asked: list[tuple[int, str]] = []

    def submit(self, operation: Operation, order_id: int, told: Callable[[Any], object]) -> None:
        key = (operation.user_id, operation.request_id)
        is_first = key not in self.asked
        self.asked.append(key)
        answer: Any = Told(len(self.asked))
        if is_first and len(self.asked) % 10 == 0:
            answer.outcome = "unknown"
        asyncio.get_running_loop().call_later(0.001, told, answer)

    async def read(self, operation: Operation, order_id: int) -> Sequence[object]:
        await asyncio.sleep(0)
        return ()


class RowsAtOnce:
    """Queries that find every order."""

    async def get_order(self, user_id: int, order_id: int) -> object:
        return user_id, order_id


async def driven() -> tuple[Recorder, LatencyMeter, Clients, StandIn]:
    clock, recorder = RealTimeClock(), Recorder()
    meter = LatencyMeter(recorder, clock, cast(Queries, RowsAtOnce()))
    gateway = StandIn()
    clients = Clients(
        clock=cast(Clock, clock),
        network=cast(Network, NoNetwork()),
        randomness=Randomness(1),
        recorder=meter,
        topology=TOPOLOGY,
        gateways=[gateway],
        operations=synthetic_flow(Randomness(1), TOPOLOGY, orders=ORDERS, users=4, duration_ns=300 * NS_PER_MS),
    )
    clients.start()
    async with asyncio.timeout(60):
        await quiet(clients)
        clients.read_everything()
        await quiet(clients)
    return recorder, meter, clients, gateway


async def quiet(clients: Clients) -> None:
    while True:
        if clients.is_quiet():
            return
        await asyncio.sleep(0.01)


def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return asyncio.run(main())


def test_a_flow_is_carried_out_asked_again_and_recorded_in_real_time() -> None:
    recorder, _, clients, gateway = run(driven)
    requests, answers = recorder.table("client_requests"), recorder.table("client_answers")
    assert clients.counts["requests"] > ORDERS
    assert clients.counts["accepted"] == clients.counts["requests"]
    # An unknown outcome is asked again under the same id, until it is known.
    assert clients.counts["unknown"] > 0
    assert len(requests) == len(gateway.asked) > len(set(gateway.asked))
    assert len(answers) == len(requests)
    assert recorder.counts()["reads"] == clients.counts["reads"] > 0
    for table in (requests, answers):
        times = table.column("t").to_pylist()
        assert times == sorted(times)
        assert 0 <= times[0] <= times[-1] < 60 * NS_PER_SECOND


def test_latencies_are_of_order_commands_from_their_first_submission() -> None:
    async def main() -> Any:
        recorder, meter, *_ = await driven()
        return recorder, meter, *(await meter.finish())

    recorder, meter, answers, rows = run(main)
    asked = recorder.table("client_requests").to_pylist()
    commands = {
        (each["user_id"], each["request_id"])
        for each in asked
        if each["command"] in ("place", "cancel", "reduce", "replace")
    }
    assert len(answers.durations_ns) == len(commands)
    assert answers.durations_ns[0] >= NS_PER_MS
    # Those asked twice took at least the pause before the second time.
    assert answers.percentile_ms(100) > 10
    assert answers.percentile_ms(50) <= answers.percentile_ms(99) <= answers.percentile_ms(100)
    assert rows.durations_ns
    assert meter.rows_not_seen == 0
    assert 0 <= meter.first_sent_t < meter.last_answered_t
