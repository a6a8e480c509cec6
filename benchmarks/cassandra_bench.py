"""What a statement costs in the simulated Cassandra, in CPU time, all in: bind, coordinate, store on three replicas,
answer, trace row. Run as `python -m benchmarks.cassandra_bench`.

Statements are those of the project's own tables at LOCAL_QUORUM, sent in groups as settlement sends them, with no
fault on.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence

from cassandra import ConsistencyLevel
from cassandra.query import tuple_factory

from schema import tables
from sim.cassandra import CassandraCluster, Session
from sim.clock import Clock
from sim.network import Network
from sim.randomness import Randomness
from traces.recorder import Recorder

GROUP = 10
USERS = 200
REPETITIONS = 3


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


if __name__ == "__main__":
    for name, figure in insert_cost().items():
        print(f"{name}: {figure:.1f}")
