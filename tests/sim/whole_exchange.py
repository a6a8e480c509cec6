"""The whole exchange in a simulated world without faults, driven step by step, for the life-cycle tests."""

import json
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from cassandra.query import dict_factory

from gateway.core import Gateway
from gateway.submissions import ClientAnswer
from schema import tables
from schema.topics import Topology
from settlement.queries import OrderRow
from sim.clock import NS_PER_MS, NS_PER_SECOND
from sim.deployment import Deployment
from sim.flows import make_topology
from sim.gateway_front import GatewayFront
from sim.scenario import Scenario
from sim.world import World
from traces.recorder import Recorder

BTC_USDT = "BTC-USDT"


class Exchange:
    """All services up, and a person at the first gateway. Every step ends when the pipeline is at rest again."""

    def __init__(self, world: World, deployment: Deployment, recorder: Recorder) -> None:
        self.world = world
        self.deployment = deployment
        self.recorder = recorder
        self._requests = 0

    @property
    def topology(self) -> Topology:
        return self.deployment.topology

    def submit(self, **request: object) -> ClientAnswer:
        """Hand a request in at the first gateway, as JSON, and wait until everything that it caused is settled."""
        answer: ClientAnswer = self._ask(lambda gateway: gateway.submit(json.dumps(request)))
        self.settle()
        return answer

    def deposit(self, user_id: int, asset: str, amount: str) -> None:
        answer = self.submit(
            type="deposit", user_id=user_id, request_id=self._name("deposit"), asset=asset, amount=amount
        )
        assert answer.outcome == "accepted", answer

    def place(self, user_id: int, side: str, price: str, quantity: str, **more: str) -> ClientAnswer:
        return self.submit(
            type="place",
            user_id=user_id,
            client_order_id=self._name("order"),
            symbol=BTC_USDT,
            side=side,
            order_type="limit",
            time_in_force=more.pop("time_in_force", "gtc"),
            price=price,
            quantity=quantity,
            **more,
        )

    def cancel(self, user_id: int, order_id: int) -> ClientAnswer:
        return self.submit(
            type="cancel", user_id=user_id, request_id=self._name("cancel"), symbol=BTC_USDT, order_id=order_id
        )

    def active_orders(self, user_id: int) -> list[OrderRow]:
        """What the query returns through the gateway."""
        rows: list[OrderRow] = self._ask(lambda gateway: gateway.get_active_orders(user_id))  # type: ignore[arg-type]
        return rows

    def rows(self, table: str) -> list[dict[str, Any]]:
        """A whole table, read by an observer at quorum."""
        session = self.deployment.cassandra.harness_session(tables.KEYSPACE)
        session.row_factory = dict_factory
        return list(session.execute(f"SELECT * FROM {table}"))

    def row_of(self, table: str, order_id: int) -> dict[str, Any]:
        """The one row of an order."""
        (row,) = [row for row in self.rows(table) if row["order_id"] == order_id]
        return row

    def log_of(self, order_id: int) -> list[tuple[str, str]]:
        """The service log lines of an order: service and event, in the order in which they were written."""
        lines: pa.Table = self.recorder.table("log_lines")
        return [(row["service"], row["event"]) for row in lines.to_pylist() if row["order_id"] == order_id]

    def settle(self) -> None:
        """Until nothing is under way."""
        deployment = self.deployment

        def is_busy() -> bool:
            return not (deployment.kafka.is_quiet() and deployment.cassandra.is_quiet())

        deadline_ns = self.world.clock.now + 30 * NS_PER_SECOND
        while is_busy():
            assert self.world.clock.now < deadline_ns, deployment.kafka.unrest()
            self.world.run_until(self.world.clock.now + 50 * NS_PER_MS)

    def _ask(self, question: Callable[[Gateway], Coroutine[Any, Any, Any]]) -> Any:
        host = self.deployment.gateways["gateway-1"]
        front, incarnation = host.front, host.incarnation
        assert isinstance(front, GatewayFront)
        assert incarnation is not None
        tasks: list[Any] = []
        incarnation.enter(lambda: tasks.append(incarnation.loop.create_task(question(front.gateway))))
        deadline_ns = self.world.clock.now + 30 * NS_PER_SECOND
        while not tasks[0].done():
            assert self.world.clock.now < deadline_ns, "no answer within 30 s"
            self.world.run_until(self.world.clock.now + 10 * NS_PER_MS)
        return tasks[0].result()

    def _name(self, what: str) -> str:
        self._requests += 1
        return f"{what}-{self._requests}"


@contextmanager
def open_exchange(seed: int = 1) -> Iterator[Exchange]:
    """An exchange that has just been started, with nothing in it."""
    recorder = Recorder()
    world = World(seed, recorder)
    deployment = Deployment(world, Scenario(seed=seed, faults="none"), make_topology(3, 3, 2))
    try:
        with world.running():
            deployment.create()
            deployment.start()
            world.run_until(world.clock.now + 5 * NS_PER_SECOND)
            yield Exchange(world, deployment, recorder)
    finally:
        world.close()
