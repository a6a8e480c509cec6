import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from settlement.queries import OrderRow
from sim.clients import (
    DROPPED_NO_ORDER,
    DROPPED_STOPPED,
    REFUSED_CONNECTIONS,
    REPEATS,
    TIMEOUTS,
    ClientOptions,
    Clients,
)
from sim.clock import NS_PER_MS, NS_PER_SECOND
from sim.flows.market import make_topology
from sim.flows.operations import CANCEL, DEPOSIT, PLACE, RAW, READ, REPLACE, Operation
from sim.flows.synthetic import synthetic_flow
from sim.hosts import Host, Incarnation
from sim.network import Latency
from sim.world import World
from traces.kinds import KINDS

TOPOLOGY = make_topology(3, 3, 2)


@dataclass
class Said:
    """An answer as a gateway gives it."""

    outcome: str = "accepted"
    reason: int = 0
    verdict: int = 0
    verdict_reason: int = 0
    order_id: int = 0
    message: str = ""


class Tables:
    """A recorder that keeps rows as dictionaries."""

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}

    def emitter(self, kind: str, /) -> Callable[..., object]:
        names = ["t", "host", *(name for name, _ in KINDS[kind])]

        def emit(*values: object) -> None:
            self.rows[kind].append(dict(zip(names, values, strict=True)))

        return emit

    def of(self, kind: str, *columns: str) -> list[Any]:
        rows = self.rows[kind]
        return [tuple(row[each] for each in columns) if len(columns) > 1 else row[columns[0]] for row in rows]


@dataclass
class Exchange:
    """What stands behind all gateways: gives each order an id, and remembers what it was asked."""

    asked: list[tuple[str, Operation, int]] = field(default_factory=list)
    order_ids: dict[tuple[int, str], int] = field(default_factory=dict)
    script: list[Said] = field(default_factory=list)
    delay_s: float = 0.001
    rows: Sequence[object] | Exception = ()

    def decide(self, gateway: str, operation: Operation, order_id: int) -> Said:
        self.asked.append((gateway, operation, order_id))
        if self.script:
            said = self.script.pop(0)
            if said.outcome != "accepted":
                return said
        key = (operation.user_id, operation.request_id)
        return Said(order_id=self.order_ids.setdefault(key, 100 + len(self.order_ids)))


@dataclass
class FakeGateway:
    """Both the way to a gateway and the gateway."""

    host: Host
    exchange: Exchange
    serves: bool = True

    @property
    def name(self) -> str:
        return self.host.name

    @property
    def incarnation(self) -> Incarnation | None:
        return self.host.incarnation

    @property
    def front(self) -> "FakeGateway | None":
        return self if self.serves else None

    def submit(self, operation: Operation, order_id: int, told: Callable[[Said], object]) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(self.exchange.delay_s, lambda: told(self.exchange.decide(self.name, operation, order_id)))

    async def read(self, operation: Operation, order_id: int) -> Sequence[object]:
        self.exchange.asked.append((self.name, operation, order_id))
        await asyncio.sleep(self.exchange.delay_s)
        if isinstance(self.exchange.rows, Exception):
            raise self.exchange.rows
        return self.exchange.rows


async def _stay_up(incarnation: Incarnation) -> None:
    await asyncio.Event().wait()


class Setting:
    """A world with two gateways and clients that carry out some operations."""

    def __init__(self, *operations: Operation, seed: int = 1, options: ClientOptions | None = None) -> None:
        self.tables = Tables()
        self.world = World(seed, self.tables, latency=Latency.constant(NS_PER_MS))
        self.exchange = Exchange()
        self.gateways = [FakeGateway(self.world.host(f"gateway-{number}"), self.exchange) for number in (1, 2)]
        for gateway in self.gateways:
            gateway.host.start(_stay_up)
        self.clients = Clients(
            clock=self.world.clock,
            network=self.world.network,
            randomness=self.world.randomness,
            recorder=self.tables,
            topology=TOPOLOGY,
            gateways=self.gateways,
            operations=operations,
            options=options,
        )

    def run(self, seconds: int = 60) -> "Setting":
        with self.world.running():
            if not self.world.clock.now:
                self.clients.start()
            self.world.run_until(self.world.clock.now + seconds * NS_PER_SECOND)
        return self

    def asked(self) -> list[tuple[str, str, int]]:
        return [(gateway, operation.request_id, order_id) for gateway, operation, order_id in self.exchange.asked]

    def answers(self) -> list[tuple[str, int, str]]:
        return self.tables.of("client_answers", "request_id", "attempt", "outcome")


def place(request_id: str, at_ns: int = 0, user_id: int = 1, gateway: int = 0, **more: Any) -> Operation:
    return Operation(at_ns, user_id, PLACE, request_id, symbol="ETH-USDT", price=5, quantity=7, gateway=gateway, **more)


def cancel(request_id: str, reference: str, at_ns: int = 0, user_id: int = 1, **more: Any) -> Operation:
    return Operation(at_ns, user_id, CANCEL, request_id, symbol="ETH-USDT", reference=reference, **more)


def deposit(request_id: str, user_id: int = 1, at_ns: int = 0) -> Operation:
    return Operation(at_ns, user_id, DEPOSIT, request_id, asset="USDT", amount=9)


def test_a_request_and_its_answer_are_recorded_where_and_when_they_happened() -> None:
    setting = Setting(place("a", at_ns=5 * NS_PER_MS)).run()
    (request,) = setting.tables.rows["client_requests"]
    assert request == {
        "t": 5 * NS_PER_MS, "host": "gateway-1", "user_id": 1, "request_id": "a", "attempt": 1, "command": "place",
        "symbol_id": 2, "order_id": 0, "side": 0, "order_type": 1, "time_in_force": 0, "price": 5, "quantity": 7,
        "max_spend": 0, "asset_id": 0, "amount": 0,
    }  # fmt: skip
    (answer,) = setting.tables.rows["client_answers"]
    assert (answer["outcome"], answer["order_id"], answer["host"]) == ("accepted", 100, "gateway-1")
    assert answer["t"] == 8 * NS_PER_MS  # a millisecond there, one for the gateway, one back
    assert setting.clients.is_quiet()


def test_an_unknown_outcome_is_asked_again_at_another_gateway_with_the_same_request_id() -> None:
    setting = Setting(place("a"))
    setting.exchange.script = [Said("unknown"), Said("unknown"), Said("accepted")]
    setting.run()
    assert [(gateway, request_id) for gateway, request_id, _ in setting.asked()] == [
        ("gateway-1", "a"),
        ("gateway-2", "a"),
        ("gateway-1", "a"),
    ]
    assert setting.answers() == [("a", 1, "unknown"), ("a", 2, "unknown"), ("a", 3, "accepted")]
    assert setting.clients.is_quiet()


def test_rejected_and_invalid_are_answers() -> None:
    setting = Setting(place("a"), place("b", at_ns=NS_PER_SECOND))
    setting.exchange.script = [Said("rejected", reason=47), Said("invalid", message="no")]
    setting.run()
    assert setting.answers() == [("a", 1, "rejected"), ("b", 1, "invalid")]


def test_a_lost_answer_is_asked_for_again_after_the_time_out() -> None:
    setting = Setting(place("a"))
    setting.world.network.cut("gateway-1", "client-*")
    setting.run()
    assert setting.answers() == [("a", 1, "unknown"), ("a", 2, "accepted")]
    assert setting.asked() == [("gateway-1", "a", 0), ("gateway-2", "a", 0)]
    assert setting.clients.counts[TIMEOUTS] == 1


def test_a_lost_request_is_asked_again_too() -> None:
    setting = Setting(place("a"))
    setting.world.network.cut("client-*", "gateway-1")
    setting.run()
    assert setting.asked() == [("gateway-2", "a", 0)]
    assert setting.clients.is_quiet()


def test_a_gateway_that_is_down_refuses_and_the_next_one_is_asked_at_once() -> None:
    setting = Setting(place("a"))
    setting.gateways[0].host.crash()
    setting.run(seconds=1)
    assert setting.answers() == [("a", 1, "unknown"), ("a", 2, "accepted")]
    assert setting.clients.counts[REFUSED_CONNECTIONS] == 1


def test_clients_who_have_given_up_ask_nothing_again() -> None:
    setting = Setting(place("a"))
    for gateway in setting.gateways:
        gateway.serves = False
    setting.run(seconds=10)
    setting.clients.give_up()
    asked = len(setting.answers())
    setting.run(seconds=3600)
    assert asked > 1
    assert len(setting.answers()) == asked


def test_a_gateway_that_is_not_ready_refuses() -> None:
    setting = Setting(place("a"))
    setting.gateways[0].serves = False
    setting.run(seconds=1)
    assert setting.asked() == [("gateway-2", "a", 0)]


def test_a_gateway_that_crashes_with_the_request_outstanding_gives_no_answer() -> None:
    setting = Setting(place("a"))
    setting.exchange.delay_s = 0.5
    setting.world.clock.at(100 * NS_PER_MS, setting.gateways[0].host.crash)
    setting.run()
    assert setting.asked() == [("gateway-2", "a", 0)]
    assert setting.answers() == [("a", 1, "unknown"), ("a", 2, "accepted")]


def test_clients_ask_until_they_know_however_long_it_takes() -> None:
    setting = Setting(place("a"))
    setting.world.network.cut("client-*", "*")
    setting.run(seconds=300)
    assert not setting.clients.is_quiet()
    assert setting.clients.in_flight() == 1
    setting.clients.stop_new_work()
    setting.world.network.heal_all()
    setting.run(seconds=20)
    assert setting.clients.is_quiet()
    assert setting.answers()[-1][2] == "accepted"


def test_an_answer_that_was_given_up_on_still_counts_when_it_comes() -> None:
    setting = Setting(place("a"), cancel("x", "a"), options=ClientOptions(answer_timeout_ns=2 * NS_PER_SECOND))
    setting.exchange.delay_s = 3.0
    setting.run()
    assert setting.answers()[:2] == [("a", 1, "unknown"), ("a", 1, "accepted")]
    assert setting.clients.is_quiet()


def test_a_cancel_waits_for_the_orders_id() -> None:
    setting = Setting(place("a"), cancel("x", "a"))
    setting.exchange.delay_s = 2.0
    setting.run()
    assert setting.asked() == [("gateway-1", "a", 0), ("gateway-1", "x", 100)]
    assert setting.tables.of("client_requests", "command", "order_id") == [("place", 0), ("cancel", 100)]


def test_a_cancel_of_a_rejected_order_is_dropped_and_counted() -> None:
    setting = Setting(place("a"), cancel("x", "a"), cancel("y", "a", at_ns=NS_PER_SECOND))
    setting.exchange.script = [Said("rejected")]
    setting.run()
    assert setting.asked() == [("gateway-1", "a", 0)]
    assert setting.clients.counts[DROPPED_NO_ORDER] == 2
    assert setting.clients.is_quiet()


def test_a_cancel_of_an_order_that_is_not_in_the_flow_is_dropped() -> None:
    setting = Setting(cancel("x", "a")).run()
    assert setting.asked() == []
    assert setting.clients.counts[DROPPED_NO_ORDER] == 1


def test_a_chain_of_replaces_ends_with_its_first_order() -> None:
    replaces = [
        Operation(0, 1, REPLACE, f"r{n + 1}", symbol="ETH-USDT", reference=f"r{n}", price=5, quantity=7)
        for n in range(1, 2_000)
    ]
    setting = Setting(place("r1"), *replaces)
    setting.exchange.script = [Said("rejected")]
    setting.run()
    assert setting.clients.counts[DROPPED_NO_ORDER] == 1_999
    assert setting.clients.is_quiet()


def test_a_replace_is_an_order_of_its_own() -> None:
    replace = Operation(0, 1, REPLACE, "b", symbol="ETH-USDT", reference="a", price=5, quantity=7)
    setting = Setting(place("a"), replace, cancel("x", "b")).run()
    assert setting.asked() == [("gateway-1", "a", 0), ("gateway-1", "b", 100), ("gateway-1", "x", 101)]


def test_somebody_elses_order_can_be_named() -> None:
    trespass = cancel("x", "a", user_id=2, reference_user_id=1)
    setting = Setting(place("a"), trespass).run()
    assert setting.asked()[-1] == ("gateway-1", "x", 100)
    assert setting.exchange.asked[-1][1].user_id == 2


def test_a_user_trades_only_when_the_first_deposits_are_answered() -> None:
    setting = Setting(deposit("d1"), deposit("d2"), place("a"), place("b", user_id=2))
    setting.exchange.delay_s = 1.0
    setting.run()
    times = {request["request_id"]: request["t"] for request in setting.tables.rows["client_requests"]}
    assert times["b"] == 0
    assert times["a"] > NS_PER_SECOND


def test_a_later_deposit_holds_nothing_up() -> None:
    setting = Setting(place("a"), deposit("d", at_ns=NS_PER_MS), place("b", at_ns=2 * NS_PER_MS))
    setting.exchange.delay_s = 1.0
    setting.run()
    assert setting.tables.of("client_requests", "request_id", "t")[-1] == ("b", 2 * NS_PER_MS)


def test_a_repeat_goes_to_another_gateway_though_the_first_answered() -> None:
    setting = Setting(place("a", repeat_after_ns=NS_PER_SECOND)).run()
    assert setting.asked() == [("gateway-1", "a", 0), ("gateway-2", "a", 0)]
    assert setting.answers() == [("a", 1, "accepted"), ("a", 2, "accepted")]
    assert setting.clients.counts[REPEATS] == 1
    assert setting.clients.is_quiet()


def test_a_repeat_may_overlap_the_first() -> None:
    setting = Setting(place("a", repeat_after_ns=1))
    setting.exchange.delay_s = 1.0
    setting.run()
    assert setting.tables.of("client_requests", "t", "host") == [(0, "gateway-1"), (1, "gateway-2")]


def test_reuse_of_a_request_id_waits_for_the_first_answer_and_counts_on() -> None:
    reuse = place("a", reference="a", gateway=1)
    setting = Setting(place("a"), reuse, cancel("x", "a", at_ns=5 * NS_PER_SECOND))
    setting.exchange.delay_s = 1.0
    setting.exchange.script = [Said("accepted"), Said("rejected", reason=48)]
    setting.run()
    assert setting.tables.of("client_requests", "request_id", "attempt") == [("a", 1), ("a", 2), ("x", 1)]
    assert setting.asked()[-1] == ("gateway-1", "x", 100)  # the first use's order, whatever became of the second


def test_a_hostile_request_is_sent_and_its_refusal_recorded() -> None:
    setting = Setting(Operation(0, 1, RAW, "h1", raw="{"))
    setting.exchange.script = [Said("invalid", message="not JSON")]
    setting.run()
    assert setting.tables.of("client_answers", "command", "outcome", "message") == [("raw", "invalid", "not JSON")]


def test_stopped_clients_begin_nothing_new_but_see_through_what_was_due() -> None:
    setting = Setting(
        place("a", repeat_after_ns=6 * NS_PER_SECOND), cancel("x", "a"), place("b", at_ns=4 * NS_PER_SECOND)
    )
    setting.exchange.delay_s = 3.0
    setting.run(seconds=1)
    setting.clients.stop_new_work()
    assert not setting.clients.is_quiet()
    setting.run(seconds=20)
    assert setting.asked() == [("gateway-1", "a", 0), ("gateway-1", "x", 100)]
    assert setting.clients.counts[DROPPED_STOPPED] == 1  # b; the repeat is left out, too
    assert setting.clients.counts[REPEATS] == 0
    assert setting.clients.is_quiet()


def test_a_flow_that_is_not_over_is_not_quiet() -> None:
    setting = Setting(place("a"), place("b", at_ns=10 * NS_PER_SECOND)).run(seconds=5)
    assert not setting.clients.is_quiet()
    assert setting.run(seconds=10).clients.is_quiet()


def test_a_read_is_recorded_from_its_beginning_to_its_end_at_the_gateway() -> None:
    row = OrderRow(1, 2, 500, 100, 600, 3, 1, 0, 0, 1, 0, 5, 7, 2, 10, 0, "a")  # type: ignore[arg-type]
    read = Operation(0, 1, READ, "q1", symbol="ETH-USDT", query="active_orders", limit=50)
    setting = Setting(read)
    setting.exchange.rows = [row]
    setting.exchange.delay_s = 0.25
    setting.run()
    (recorded,) = setting.tables.rows["reads"]
    assert (recorded["asked_t"], recorded["t"]) == (NS_PER_MS, 251 * NS_PER_MS)
    assert (recorded["query"], recorded["symbol_id"], recorded["row_limit"]) == ("active_orders", 2, 50)
    assert (recorded["outcome"], recorded["rows"]) == ("ok", 1)
    (shown,) = setting.tables.rows["read_rows"]
    assert (shown["read_id"], shown["position"], shown["order_id"]) == (recorded["read_id"], 0, 100)
    assert (shown["revision"], shown["status"], shown["quantity"], shown["filled_quantity"]) == (3, 1, 7, 2)
    assert setting.clients.is_quiet()


def test_a_failing_read_is_recorded_with_its_error_and_not_asked_again() -> None:
    setting = Setting(Operation(0, 1, READ, "q1", query="balances"))
    setting.exchange.rows = RuntimeError("not now")
    setting.run()
    assert setting.tables.of("reads", "outcome", "rows") == [("RuntimeError: not now", 0)]
    assert setting.clients.is_quiet()


def test_a_read_whose_answer_is_lost_ends_all_the_same() -> None:
    setting = Setting(Operation(0, 1, READ, "q1", query="balances"))
    setting.world.network.cut("gateway-1", "*")
    setting.run()
    assert setting.clients.is_quiet()
    assert len(setting.exchange.asked) == 1


def test_a_read_of_one_order_waits_for_its_id() -> None:
    setting = Setting(place("a"), Operation(0, 1, READ, "q1", reference="a", query="order")).run()
    assert setting.tables.of("reads", "query", "order_id") == [("order", 100)]


def test_at_the_end_every_user_looks_at_everything() -> None:
    setting = Setting(place("a"), deposit("d", user_id=7)).run(seconds=5)
    setting.clients.stop_new_work()
    setting.clients.read_everything()
    assert not setting.clients.is_quiet()
    setting.run(seconds=5)
    assert setting.clients.is_quiet()
    assert setting.tables.of("reads", "user_id", "query", "row_limit", "symbol_id") == [
        (1, "active_orders", 0, 0),
        (1, "balances", 0, 0),
        (7, "active_orders", 0, 0),
        (7, "balances", 0, 0),
    ]


def test_a_whole_flow_under_losses_is_answered_to_the_last_request_and_is_the_same_twice() -> None:
    def run() -> Setting:
        setting = Setting(seed=5)
        flow = synthetic_flow(setting.world.randomness, TOPOLOGY, orders=150, users=5, duration_ns=5 * NS_PER_SECOND)
        operations = list(flow)
        setting.clients._operations = iter(operations)
        setting.world.network.lossy("*", "*", 100_000)
        setting.run(seconds=5)
        setting.clients.stop_new_work()
        setting.world.network.heal_all()
        setting.run(seconds=40)
        return setting

    first, second = run(), run()
    assert first.clients.is_quiet()
    assert first.tables.rows == second.tables.rows
    sent = set(first.tables.of("client_requests", "user_id", "request_id"))
    known = {
        (answer["user_id"], answer["request_id"])
        for answer in first.tables.rows["client_answers"]
        if answer["outcome"] != "unknown"
    }
    assert sent == known
    assert first.clients.counts[TIMEOUTS] > 10
