"""Each test here is written once against the driver's Session and runs on the double and on a real Cassandra 5.0."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import pytest
from cassandra.query import SimpleStatement

from sim.conform.cassandra_sides import DoubleSide, Side, server_side, wait_s


@pytest.fixture(scope="session", params=["double", "server"])
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    """The simulated cluster, and the real one, where there is one."""
    if request.param == "double":
        yield DoubleSide()
        return
    with server_side(request.getfixturevalue("cassandra_address")) as found:
        yield found


class Store:
    """A side as tests use it: tables by their definition, partition keys nobody has used, rows as lists of tuples."""

    _tables: dict[tuple[str, str], str] = {}  # noqa: RUF012 - shared on purpose: a real server makes few tables a second
    _numbers = count(1)

    def __init__(self, side: Side) -> None:
        self.side = side
        self.session = side.session

    def table(self, columns: str, options: str = "", *, empty: bool = False) -> str:
        """The name of a table of these columns; one that others use too, unless it must be `empty`."""
        definition = f"({columns}) {options}"
        known = (self.side.name, definition)
        if empty or known not in self._tables:
            name = f"t{next(self._numbers)}"
            self.session.execute(f"CREATE TABLE {name} {definition}")
            if empty:
                return name
            self._tables[known] = name
        return self._tables[known]

    def key(self) -> int:
        """A partition key that nobody has used."""
        return next(self._numbers)

    def run(self, query: str, parameters: Any = None, consistency: int | None = None) -> list[Any]:
        """Execute and return all rows."""
        return list(self.session.execute(SimpleStatement(query, consistency_level=consistency), parameters))

    def refuse(self, query: str, parameters: Any = None) -> tuple[str, str]:
        """The error of a statement that the server refuses: the name of its class, and the server's message."""
        return error_of(lambda: self.session.execute(query, parameters))

    def prepare(self, query: str) -> Any:
        """Prepare."""
        return self.session.prepare(query)

    def bound(self, query: str, values: Sequence[object] | dict[str, object]) -> list[Any]:
        """Prepare and execute with these values."""
        return list(self.session.execute(self.session.prepare(query), values))

    def wait_s(self, seconds: float) -> None:
        """Let time pass."""
        wait_s(self.side, seconds)


def error_of(call: Any) -> tuple[str, str]:
    """The class name and the message of the error that a call raises. The driver wraps a server's message; that is
    taken off."""
    try:
        call()
    except Exception as error:
        text = str(error)
        inner = text.partition('message="')[2]
        return type(error).__name__, inner[:-1] if inner else text
    pytest.fail("nothing was raised")


@pytest.fixture
def store(side: Side) -> Store:
    return Store(side)


class Partition:
    """One partition of one table, for tests that need no more: `$t` and `$p` in their statements stand for them."""

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name
        self.key = store.key()

    def text(self, query: str) -> str:
        """The statement with the names filled in."""
        return query.replace("$t", self.name).replace("$p", str(self.key))

    def run(self, query: str, parameters: Any = None, consistency: int | None = None) -> list[Any]:
        """Execute and return all rows."""
        return self.store.run(self.text(query), parameters, consistency)

    def bound(self, query: str, values: Sequence[object] | dict[str, object]) -> list[Any]:
        """Prepare and execute with these values."""
        return self.store.bound(self.text(query), values)

    def refuse(self, query: str, parameters: Any = None) -> tuple[str, str]:
        """See `Store.refuse`."""
        return self.store.refuse(self.text(query), parameters)


@pytest.fixture
def t(store: Store) -> Partition:
    """A partition with a clustering column, a static one, and plain ones of several types."""
    columns = "p int, c int, s int static, a int, b text, d boolean, e blob, PRIMARY KEY (p, c)"
    return Partition(store, store.table(columns))


@pytest.fixture
def ordered(store: Store) -> Partition:
    """A partition with two clustering columns, the first in descending order."""
    columns = "p int, c int, k int, v int, PRIMARY KEY (p, c, k)"
    return Partition(store, store.table(columns, "WITH CLUSTERING ORDER BY (c DESC, k ASC)"))


@pytest.fixture
def make_partition(store: Store) -> Any:
    """A partition of a table of any definition."""
    return lambda columns, options="", **more: Partition(store, store.table(columns, options, **more))
