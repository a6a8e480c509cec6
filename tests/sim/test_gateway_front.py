import asyncio
from dataclasses import dataclass, field
from typing import cast

import pytest

from gateway.core import Gateway
from gateway.requests import parse, to_event
from gateway.submissions import ClientAnswer, Told
from schema.events import AnyRequest, CancelOrder, Deposit, PlaceOrder, ReduceOrder, ReplaceOrder, Withdraw
from schema.identifiers import OrderId
from sim.flows.market import make_topology
from sim.flows.operations import QUERIES, RAW, READ, Operation
from sim.flows.synthetic import synthetic_flow
from sim.gateway_front import GatewayFront
from sim.randomness import Randomness

TOPOLOGY = make_topology(4, 3, 2)


@dataclass
class ParsingGateway:
    """The gateway's own parser and arithmetic, and nothing behind it."""

    events: list[AnyRequest] = field(default_factory=list)
    reads: list[tuple[object, ...]] = field(default_factory=list)

    def hand_in(self, request: bytes | str, told: Told) -> None:
        self.events.append(to_event(parse(request), TOPOLOGY.symbols, OrderId(1), 5))
        told(ClientAnswer("accepted", ""))

    async def get_active_orders(self, *asked: object) -> list[object]:
        self.reads.append(("active_orders", *asked))
        return []

    async def get_order(self, *asked: object) -> None:
        self.reads.append(("order", *asked))

    async def get_order_history(self, *asked: object) -> list[object]:
        self.reads.append(("history", *asked))
        return []

    async def get_trades(self, *asked: object) -> list[object]:
        self.reads.append(("trades", *asked))
        return []

    async def get_balances(self, *asked: object) -> list[object]:
        self.reads.append(("balances", *asked))
        return []


def front_of(gateway: ParsingGateway) -> GatewayFront:
    return GatewayFront(cast(Gateway, gateway), TOPOLOGY)


def test_the_gateway_understands_every_request_of_a_flow_as_it_was_meant() -> None:
    gateway = ParsingGateway()
    front = front_of(gateway)
    flow = synthetic_flow(Randomness(2), TOPOLOGY, orders=400, users=6, duration_ns=10**10)
    operations = [each for each in flow if each.kind not in (READ, RAW)]
    answers: list[ClientAnswer] = []
    for operation in operations:
        front.submit(operation, 77, answers.append)
    assert len(answers) == len(operations)
    symbols, assets = TOPOLOGY.symbols, TOPOLOGY.symbols.assets
    kinds = set()
    for operation, event in zip(operations, gateway.events, strict=True):
        kinds.add(type(event))
        assert (event.user_id, event.request_id) == (operation.user_id, operation.request_id)
        if isinstance(event, Deposit | Withdraw):
            assert (assets[event.asset_id].name, event.amount) == (operation.asset, operation.amount)
            continue
        assert symbols.symbols[event.symbol_id].name == operation.symbol
        if isinstance(event, CancelOrder | ReduceOrder):
            assert event.order_id == 77
        if isinstance(event, ReplaceOrder):
            assert event.replaced_order_id == 77
        if isinstance(event, PlaceOrder):
            assert (event.order_type, event.max_spend) == (operation.order_type, operation.max_spend)
        if isinstance(event, PlaceOrder | ReplaceOrder):
            assert (event.side, event.time_in_force) == (operation.side, operation.time_in_force)
            assert event.price == operation.price
        if not isinstance(event, CancelOrder):
            assert event.quantity == operation.quantity
    assert kinds == {PlaceOrder, CancelOrder, ReduceOrder, ReplaceOrder, Deposit, Withdraw}


def test_every_query_asks_for_the_user_who_sent_it() -> None:
    gateway = ParsingGateway()
    front = front_of(gateway)

    async def read_all() -> None:
        for query in QUERIES:
            await front.read(Operation(0, 9, READ, "q", symbol="BTC-USDT", query=query, limit=5), 77)

    asyncio.run(read_all())
    assert gateway.reads == [
        ("active_orders", 9, ["BTC-USDT"], 5),
        ("order", 9, 77),
        ("history", 9, "BTC-USDT", 5),
        ("trades", 9, "BTC-USDT", 5),
        ("balances", 9),
    ]


def test_a_read_without_symbol_or_limit_is_of_everything() -> None:
    gateway = ParsingGateway()
    asyncio.run(_read(gateway, Operation(0, 9, READ, "q", query="active_orders")))
    assert gateway.reads == [("active_orders", 9, None, None)]


def test_an_unknown_query_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown query"):
        asyncio.run(_read(ParsingGateway(), Operation(0, 9, READ, "q", query="all")))


async def _read(gateway: ParsingGateway, operation: Operation) -> None:
    await front_of(gateway).read(operation, 0)
