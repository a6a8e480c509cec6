"""What the simulated Cassandra costs, in CPU time, all in: bind, coordinate, store on three replicas, answer, record.

Run as `python -m benchmarks.cassandra_bench`.

`insert_cost` is of single statements; `settle_cost` of what settlement's store writes for an order, through its adapter
and on the simulated event loop. Statements are those of the project's own tables at LOCAL_QUORUM, with no fault on.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Sequence

from cassandra import ConsistencyLevel
from cassandra.query import tuple_factory

from schema import tables
from schema.events import OrderCompletion, OrderPlacement
from schema.identifiers import AssetId, OrderId, SymbolId, UserId
from settlement.cql_adapter import CqlAdapter
from settlement.migrations import SchemaSteps
from settlement.retries import Backoff
from settlement.rows import BalanceRow, LedgerRow, RowBatch, TradeSide
from settlement.store import Store
from sim.cassandra import CassandraCluster, Session
from sim.clock import Clock
from sim.hosts import Incarnation
from sim.network import Network
from sim.randomness import Randomness
from sim.world import World
from traces.recorder import Recorder

GROUP = 10
USERS = 200
REPETITIONS = 3
SYMBOLS = 3
ORDERS_IN_A_BATCH = 20


class _Bench:
    """A cluster with the project's tables."""

    def __init__(self) -> None:
        self.clock = Clock()
        randomness = Randomness(1)
        cluster = CassandraCluster(self.clock, Network(self.clock, randomness), randomness, Recorder())
        self.session: Session = cluster.harness_session()
        self.session.row_factory = tuple_factory
        self.session.execute(tables.create_keyspace(3))
        self.session.set_keyspace(tables.KEYSPACE)
        for migration in tables.MIGRATIONS:
            for statement in migration.statements:
                self.session.execute(statement)
        self.answers = 0

    def run(self, query: str, parameters: Sequence[tuple[object, ...]]) -> float:
        """Microseconds of CPU for each execution."""
        prepared = self.session.prepare(query)
        prepared.consistency_level = ConsistencyLevel.LOCAL_QUORUM
        before = self.answers
        gc.collect()
        gc.disable()
        begun = time.process_time_ns()
        for start in range(0, len(parameters), GROUP):
            for values in parameters[start : start + GROUP]:
                self.session.execute_async(prepared, values).add_callbacks(self._answered, self._failed)
            self.clock.run()
        spent_ns = time.process_time_ns() - begun
        gc.enable()
        if self.answers - before != len(parameters):
            raise RuntimeError("a statement was not answered")
        return spent_ns / 1_000 / len(parameters)

    def _answered(self, _rows: object) -> None:
        self.answers += 1

    def _failed(self, error: Exception) -> None:
        raise error


def insert_cost(rows: int = 20_000) -> dict[str, float]:
    """Microseconds of CPU: a first INSERT of 17 columns and 2 options, a later one over it, its replay, and a read."""
    bench = _Bench()
    insert = tables.insert_all(tables.ACTIVE_ORDERS, ttl=True)
    select = f"SELECT * FROM {tables.ACTIVE_ORDERS} WHERE user_id = ? AND symbol_id = ?"
    bench.run(insert, [_order(0, 0)] * 12_000)  # imports, and the interpreter's caches
    results: dict[str, list[float]] = {}
    for repetition in range(REPETITIONS):
        first = range(repetition * rows, (repetition + 1) * rows)
        for name, revision in (("insert", 1), ("update", 2), ("replay", 2)):
            figure = bench.run(insert, [_order(number, revision) for number in first])
            results.setdefault(f"cassandra_{name}_us", []).append(figure)
        order_us = bench.run(f"{select} LIMIT 10", [(number % USERS, 1) for number in range(rows // 10)])
        results.setdefault("cassandra_select_10_us", []).append(order_us)
    return {name: min(figures) for name, figures in results.items()}


def _order(number: int, revision: int) -> tuple[object, ...]:
    """The bound values of one order's row."""
    created = 1_893_456_000_000_000_000 + number
    return (
        *(number % USERS, 1, created, number, created + revision, revision, 0, 0, number % 2, 1, 0),
        *(10_000 + number % 100, 50, 0, 0, 0, f"order-{number}", revision, 0),
    )


def settle_cost(orders: int = 5_000) -> dict[str, float]:
    """Microseconds of CPU, and bytes kept by the replicas, for the rows of one order: placed, filled, settled.

    Those are ten: its row, lookup and history, two sides of a trade, four ledger entries and a balance.
    """
    return {
        "settle_order_us": min(_settle(orders)[0] for _ in range(REPETITIONS)),
        "stored_order_bytes": _settle(orders, measure_bytes=True)[1],
    }


def _settle(orders: int, *, measure_bytes: bool = False) -> tuple[float, float]:
    """Microseconds of CPU and bytes for each order."""
    batches = [
        _batch(range(start, start + ORDERS_IN_A_BATCH), batch)
        for batch, start in enumerate(range(0, orders, ORDERS_IN_A_BATCH))
    ]
    world = World(1)
    cluster = CassandraCluster(world.clock, world.network, world.randomness, None if measure_bytes else Recorder())
    spent: list[int] = []

    async def main(incarnation: Incarnation) -> None:
        log, jitter = world.log(incarnation), world.randomness.stream("jitter")
        clock = incarnation.host.wall
        session = cluster.session(incarnation)
        await SchemaSteps(CqlAdapter(session), jitter, log, Backoff()).create_keyspace(3, tables.KEYSPACE)
        session.set_keyspace(tables.KEYSPACE)
        session.row_factory = tuple_factory
        store = Store(session, clock=clock, randomness=jitter, log=log, symbol_ids=map(SymbolId, range(SYMBOLS)))
        await store.open()
        gc.collect()
        if measure_bytes:
            tracemalloc.start()
        begun = time.process_time_ns()
        for batch in batches:
            await store.write(store.writes_of(batch))
        spent.append(time.process_time_ns() - begun)

    with world.running():
        world.host("settlement-1", "settlement").start(main)
        world.run_while(lambda: not spent, world.clock.now + 3_600 * 10**9)
        kept = 0
        if measure_bytes:
            cluster.is_quiet()
            gc.collect()
            kept = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
    world.close()
    return spent[0] / 1_000 / orders, kept / orders


def _batch(numbers: range, batch: int) -> RowBatch:
    """What some orders' events say: every other one is still open, and each took part in one trade."""
    rows = RowBatch()
    for number in numbers:
        user, symbol, now = number % 50, number % SYMBOLS, 1_893_456_000_000_000_000 + number * 4_000_000
        kind, revision, status = (OrderCompletion, 2, 2) if number % 2 else (OrderPlacement, 1, 0)
        rows.orders[OrderId(number)] = kind(
            order_id=OrderId(number),
            user_id=UserId(user),
            symbol_id=SymbolId(symbol),
            created_at_ns=now,
            updated_at_ns=now + revision,
            revision=revision,
            status=status,
            reason=0,
            side=number % 2,
            order_type=1,
            time_in_force=0,
            price=100_000 + number % 100,
            quantity=5_000 + number,
            filled_quantity=5_000 + number,
            filled_quote=7_000_000 + number,
            max_spend=0,
            client_order_id=f"order-{number}",
        )
        for side in (0, 1):
            trader = (user + side) % 50
            rows.trades.append(
                TradeSide(
                    trader, symbol, now, number, number, side, bool(side), 100_000, 5_000, 900_000, 0, 900 + number
                )
            )
        for place in range(4):
            sequence, asset = 4 * number + place + 1, place % 2
            rows.ledger.append(
                LedgerRow(user, asset, sequence, 2, number, -5_000, 5_000, 10**9 + number, 5_000, now, 1, sequence)
            )
        rows.balances[UserId(user), AssetId(0)] = BalanceRow(user, 0, 10**9 + number, 5_000, 4 * number + 4, now)
    return rows


if __name__ == "__main__":
    for name, figure in (settle_cost() | insert_cost()).items():
        print(f"{name}: {figure:.1f}")
