"""A database, a log and a clock, each as small as the tests need: rows with write timestamps, lines, a number."""

import asyncio
import random
import re
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest
from cassandra import InvalidRequest
from cassandra.query import BatchStatement, PreparedStatement

from schema.topics import Topology
from tests.settlement.events_for_tests import Events, small_topology

PRIMARY_KEYS = {
    "active_orders": ("user_id", "symbol_id", "created_at", "order_id"),
    "order_history": ("user_id", "symbol_id", "created_at", "order_id"),
    "order_lookup": ("order_id",),
    "user_trades": ("user_id", "symbol_id", "traded_at", "trade_id"),
    "balance_ledger": ("user_id", "asset_id", "ledger_seq"),
    "user_balances": ("user_id", "asset_id"),
    "settlement_progress": ("topic", "partition_id"),
    "schema_version": ("component", "version"),
}


class TableModel:
    """Tables in which the highest write timestamp wins, as in Cassandra; a tie keeps the larger row."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[tuple, tuple[int, dict[str, object], int | None]]] = {}

    def insert(self, table: str, row: dict[str, object], timestamp: int, ttl: int | None) -> None:
        assert all(value is not None for value in row.values()), f"null written to {table}: {row}"
        key = tuple(row[name] for name in PRIMARY_KEYS[table])
        rows = self.tables.setdefault(table, {})
        new = (timestamp, row, ttl)
        old = rows.get(key)
        if old is None or (timestamp, repr(row)) >= (old[0], repr(old[1])):
            rows[key] = new

    def rows(self, table: str) -> list[dict[str, object]]:
        return [row for _, row, _ in self.tables.get(table, {}).values()]


class FakePrepared(PreparedStatement):
    """A prepared statement that a batch of the driver takes: its id is its text, its values stay as they are."""

    def __init__(self, query: str) -> None:
        self.query = query
        self.query_id = query
        self.consistency_level: int | None = None
        self.is_idempotent = False
        self.fetch_size: object = None

    def bind(self, values: Sequence[object]) -> SimpleNamespace:
        return SimpleNamespace(values=tuple(values), keyspace=None, routing_key=None, custom_payload=None)


class FakeSession:
    """The driver's session over a TableModel. `fault(statement, parameters)` may return an error to answer with."""

    def __init__(self) -> None:
        self.model = TableModel()
        self.known: set[str] = set()
        self.prepared: dict[str, FakePrepared] = {}
        self.executed: list[tuple[FakePrepared | str, tuple]] = []
        self.requests = 0
        self.fault: Callable[[str, Sequence[object]], Exception | None] = lambda statement, parameters: None
        self.page_rows = 1000
        self.held: list[FakeResponse] | None = None  # a list: answers wait in it until `release`

    def prepare(self, query: str) -> FakePrepared:
        table = re.search(r"(?:INTO|FROM) (\w+)", query)
        assert table
        if table[1] not in self.known:
            raise InvalidRequest(f"unconfigured table {table[1]}")
        statement = self.prepared[query] = FakePrepared(query)
        return statement

    def execute_async(self, statement: object, parameters: Sequence[object] | None = None) -> "FakeResponse":
        self.requests += 1
        if isinstance(statement, BatchStatement):
            parts = [(self.prepared[text], values) for _, text, values in statement._statements_and_parameters]
            assert {part.consistency_level for part, _ in parts} == {statement.consistency_level}
        else:
            parts = [(statement, tuple(parameters or ()))]
        self.executed += parts
        response = FakeResponse(
            self, [(part if isinstance(part, str) else part.query, values) for part, values in parts]
        )
        if self.held is not None:
            self.held.append(response)
        else:
            asyncio.get_running_loop().call_soon(response.answer)
        return response

    def release(self) -> None:
        held, self.held = self.held or [], None
        for response in held:
            response.answer()

    def run(self, query: str, parameters: tuple) -> list[tuple]:
        created = re.match(r"CREATE TABLE IF NOT EXISTS (\w+)", query)
        if created:
            self.known.add(created[1])
            return []
        inserted = re.match(r"INSERT INTO (\w+) \((.*?)\) VALUES \(.*?\)(?: USING TIMESTAMP \?( AND TTL \?)?)?$", query)
        if inserted:
            names = inserted[2].split(", ")
            rest = parameters[len(names) :]
            row = dict(zip(names, parameters, strict=False))
            assert len(rest) == (0 if "TIMESTAMP" not in query else 2 if inserted[3] else 1), query
            self.model.insert(inserted[1], row, rest[0] if rest else 0, rest[1] if len(rest) == 2 else None)
            return []
        selected = re.match(r"SELECT (.*) FROM (\w+) WHERE (.*?)( LIMIT \?)?$", query)
        assert selected, query
        if parameters and selected[4]:
            *parameters, limit = parameters
        else:
            limit = None
        conditions = re.sub(r" AND \((\w+), (\w+)\) < \(\?, \?\)", r" AND \1|\2 < ?", selected[3]).split(" AND ")
        values = list(parameters)

        def matches(row: dict[str, object]) -> bool:
            given = list(values)
            for condition in conditions:
                name, operator, _ = condition.split(" ")
                if operator == "=":
                    if row[name] != given.pop(0):
                        return False
                else:
                    first, second = name.split("|")
                    if not (row[first], row[second]) < (given.pop(0), given.pop(0)):
                        return False
            return True

        found = [row for row in self.model.rows(selected[2]) if matches(row)]
        clustering = PRIMARY_KEYS[selected[2]][2:]
        found.sort(key=lambda row: tuple(-row[name] for name in clustering))
        return [tuple(row[name] for name in selected[1].split(", ")) for row in found][:limit]


class FakeResponse:
    """A ResponseFuture: answers when told to, page by page; callbacks stay registered for later pages."""

    def __init__(self, session: FakeSession, statements: list[tuple[str, tuple]]) -> None:
        self.session, self.statements = session, statements
        self.callbacks: list[tuple[Callable, Callable]] = []
        self.left: list[tuple] | None = None

    def add_callbacks(self, callback: Callable, errback: Callable) -> None:
        self.callbacks.append((callback, errback))

    @property
    def has_more_pages(self) -> bool:
        return bool(self.left)

    def start_fetching_next_page(self) -> None:
        asyncio.get_running_loop().call_soon(self.answer)

    def answer(self) -> None:
        for query, parameters in self.statements:
            error = self.session.fault(query, parameters)
            if error is not None:
                for _, errback in self.callbacks:
                    errback(error)
                return
        if self.left is None:
            self.left = []
            for query, parameters in self.statements:
                self.left += self.session.run(query, parameters)
        page, self.left = self.left[: self.session.page_rows], self.left[self.session.page_rows :]
        for callback, _ in self.callbacks:
            callback(page)


class FakeClock:
    def __init__(self, now_ns: int = 0) -> None:
        self.time_ns = now_ns

    def now_ns(self) -> int:
        return self.time_ns


class FakeLog:
    """Keeps (level, event, fields)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, object]]] = []

    def __getattr__(self, level: str) -> Callable[..., None]:
        return lambda event, **fields: self.lines.append((level, event, fields))

    def at(self, level: str) -> list[tuple[str, dict[str, object]]]:
        return [(event, fields) for each, event, fields in self.lines if each == level]


class FakeRandomness:
    def __init__(self) -> None:
        self._draw = random.Random(1)

    def below(self, n: int) -> int:
        return self._draw.randrange(n)


@pytest.fixture
def session() -> FakeSession:
    return FakeSession()


@pytest.fixture
def table_model() -> type[TableModel]:
    return TableModel


@pytest.fixture
def log() -> FakeLog:
    return FakeLog()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def randomness() -> FakeRandomness:
    return FakeRandomness()


@pytest.fixture(scope="session")
def topology() -> Topology:
    return small_topology()


@pytest.fixture(scope="session")
def events() -> Events:
    return Events()
