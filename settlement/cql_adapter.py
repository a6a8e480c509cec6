"""The one adapter between asyncio and the driver's `session.execute_async` (design section 4.4.4).

The driver calls back on a thread of its own. Here a callback only puts what arrived into an inbox and wakes the loop
by `call_soon_threadsafe`, once for all that has arrived until the loop gets to it; everything else happens on the loop.

Writes of one partition go together, as one UNLOGGED BATCH: for the database that is one mutation, which each replica
applies whole or not at all, and one request instead of many. Writes of several partitions never share one, because that
would make the coordinator a bottleneck and gain nothing.

What it guarantees:
- no more than `max_in_flight` requests are with the driver; the others wait their turn, first come first served;
- a request ends once, whatever the driver calls afterwards. A cancelled caller is not called back, and a callback
  that comes when the loop is closed does nothing;
- every wait is bounded by `give_up_ms`, because the driver's own time-out is not enough: after the first page of a
  result its timer is not started again, so a lost answer to a later page would be waited for without end.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol, TypeVar

import msgspec
from cassandra import OperationTimedOut
from cassandra.query import BatchStatement, BatchType

T = TypeVar("T")

MAX_BATCH_STATEMENTS: Final = 16
"""The most statements in one batch: some 4 KB of rows, below the 5 KiB from which Cassandra warns of a large batch."""

Row = Sequence[object]
"""One row of a result, columns in the order of the SELECT."""


class PreparedStatement(Protocol):
    """What `session.prepare` gives."""

    consistency_level: int | None
    is_idempotent: bool
    fetch_size: object


Statement = PreparedStatement | str


class Response(Protocol):
    """The part of cassandra.cluster.ResponseFuture that is used."""

    @property
    def has_more_pages(self) -> bool: ...
    def start_fetching_next_page(self) -> None: ...
    def add_callbacks(
        self, callback: Callable[[list[Row] | None], None], errback: Callable[[Exception], None]
    ) -> object: ...


class Session(Protocol):
    """The part of cassandra.cluster.Session that is used; the keyspace is set."""

    def prepare(self, query: str) -> PreparedStatement: ...
    def execute_async(self, query: Any, parameters: Sequence[object] | None = None) -> Response: ...


class Blocking(Protocol):
    """Runs a call that blocks where it holds nobody up, as `asyncio.to_thread` does, and returns what it returns."""

    def __call__(self, call: Callable[[str], T], argument: str, /) -> Awaitable[T]: ...


async def in_place(call: Callable[[str], T], argument: str, /) -> T:
    """Runs it here and now: for a loop that has nothing else to do yet, or a session whose `prepare` does not block."""
    return call(argument)


class Write(msgspec.Struct, frozen=True, gc=False):
    """A statement without a result, with its bound values; `about` says what is written, for messages.

    `partition` is the value of the row's partition key: writes that share it may go in one request, whatever their
    tables. `ended_at_ns` is when the order of the row ended, if the last of the values is a time to live that follows
    from it.
    """

    statement: PreparedStatement
    parameters: Sequence[object]
    partition: tuple[int | str, ...]
    about: str
    ended_at_ns: int | None = None


class _Group:
    """Requests that one caller waits for together, through one future that counts them down."""

    __slots__ = ("calls", "finished", "remaining")

    def __init__(self, finished: "asyncio.Future[None]") -> None:
        self.finished = finished
        self.calls: list[_Call] = []
        self.remaining = 0


class _Call:
    """One request on its way: the writes of a partition, or a statement whose result `rows` collects, page by page."""

    __slots__ = ("adapter", "error", "group", "is_done", "is_started", "query", "response", "rows", "writes")

    def __init__(
        self,
        adapter: "CqlAdapter",
        group: _Group,
        query: tuple[Statement, Sequence[object]] | None,
        writes: Sequence[Write],
        rows: list[Row] | None,
    ) -> None:
        self.adapter = adapter
        self.group = group
        self.query = query
        self.writes = writes
        self.rows = rows
        self.response: Response | None = None
        self.error: Exception | None = None
        self.is_started = False
        self.is_done = False

    def send(self, session: Session) -> Response:
        """Hand it to the driver. Raises what the driver finds wrong with a statement's values."""
        if self.query is not None:
            return session.execute_async(*self.query)
        if len(self.writes) == 1:
            (write,) = self.writes
            return session.execute_async(write.statement, write.parameters)
        return session.execute_async(batch_of(self.writes), None)

    # These two run on the driver's thread.
    def on_page(self, page: list[Row] | None) -> None:
        self.adapter._arrive(self, page, None)

    def on_error(self, error: Exception) -> None:
        self.adapter._arrive(self, None, error)


def batch_of(writes: Sequence[Write]) -> BatchStatement:
    """The writes as one request; each keeps the write timestamp and the time to live of its own statement."""
    batch = BatchStatement(BatchType.UNLOGGED, consistency_level=writes[0].statement.consistency_level)
    is_idempotent = True
    for write in writes:
        statement = write.statement
        batch.add(statement, write.parameters)
        if not statement.is_idempotent:
            is_idempotent = False
    batch.is_idempotent = is_idempotent
    return batch


def by_partition(writes: Sequence[Write]) -> list[list[Write]]:
    """The writes of each request: those of one partition together, at most MAX_BATCH_STATEMENTS of them."""
    requests: dict[tuple[int | str, ...], list[Write]] = {}
    for write in writes:
        partition = write.partition
        if partition in requests:
            requests[partition].append(write)
        else:
            requests[partition] = [write]
    if len(writes) <= MAX_BATCH_STATEMENTS:
        return list(requests.values())
    return [
        request[start : start + MAX_BATCH_STATEMENTS]
        for request in requests.values()
        for start in range(0, len(request), MAX_BATCH_STATEMENTS)
    ]


class CqlAdapter:
    """Executes statements for coroutines of one event loop. `give_up_ms` should exceed the driver's own time-out.

    The driver has no way to prepare a statement but one that blocks; `blocking` says where that is done.
    """

    def __init__(
        self, session: Session, *, max_in_flight: int = 256, give_up_ms: int = 30_000, blocking: Blocking = in_place
    ) -> None:
        if max_in_flight < 1:
            raise ValueError(f"max_in_flight must be at least 1, not {max_in_flight}")
        self._session = session
        self._blocking = blocking
        self._max_in_flight = max_in_flight
        self._give_up_s = give_up_ms / 1000
        self._waiting: deque[_Call] = deque()
        self._in_flight = 0
        self._inbox: deque[tuple[_Call, list[Row] | None, Exception | None]] = deque()
        self._is_woken = False
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def in_flight(self) -> int:
        """Requests that the driver has and has not answered yet."""
        return self._in_flight

    async def prepare(self, query: str) -> PreparedStatement:
        """Prepare a statement. Raises the driver's errors."""
        return await self._blocking(self._session.prepare, query)

    async def execute(self, statement: Statement, parameters: Sequence[object] = ()) -> list[Row]:
        """Run one statement and return all rows of all pages. Raises the driver's exceptions."""
        rows: list[Row] = []
        group = self._group()
        call = _Call(self, group, (statement, parameters), (), rows)
        self._enqueue(group, [call])
        await self._finish(group)
        group.calls.clear()  # no reference cycle is left for the collector
        if call.error is not None:
            raise call.error
        return rows

    async def execute_all(self, writes: Sequence[Write]) -> list[tuple[Write, Exception]]:
        """Run writes concurrently, in no particular order; returns those that failed, each with its error.

        The writes of one partition that go in one request fail together.
        """
        if not writes:
            return []
        group = self._group()
        self._enqueue(group, [_Call(self, group, None, together, None) for together in by_partition(writes)])
        await self._finish(group)
        calls, group.calls = group.calls, []
        return [(write, call.error) for call in calls if call.error is not None for write in call.writes]

    # From here on: the loop's side.

    def _group(self) -> _Group:
        self._loop = asyncio.get_running_loop()
        return _Group(self._loop.create_future())

    def _enqueue(self, group: _Group, calls: list[_Call]) -> None:
        group.calls = calls
        group.remaining = len(calls)
        self._waiting += calls

    async def _finish(self, group: _Group) -> None:
        assert self._loop is not None
        timer = self._loop.call_later(self._give_up_s, self._give_up, group)
        try:
            self._start_waiting()
            await group.finished
        finally:
            if group.finished.cancelled():
                # What has not started never will. What has started keeps its slot until it is answered or given up:
                # the timer stays, or a lost answer would keep the slot for ever.
                for call in group.calls:
                    if not call.is_done and not call.is_started:
                        self._conclude(call, None)
            if not group.remaining:
                timer.cancel()

    def _start_waiting(self) -> None:
        waiting = self._waiting
        while waiting and self._in_flight < self._max_in_flight:
            call = waiting.popleft()
            if call.is_done:
                continue
            call.is_started = True
            self._in_flight += 1
            try:
                call.response = response = call.send(self._session)
                response.add_callbacks(call.on_page, call.on_error)
            except Exception as error:
                # The driver refuses some statements on the spot: a value of the wrong type, a session shut down.
                self._end(call, error)

    def _give_up(self, group: _Group) -> None:
        for call in group.calls:
            if not call.is_done:
                error = OperationTimedOut({"driver": f"no answer within {self._give_up_s:g} s"})
                if call.is_started:
                    self._end(call, error)
                else:
                    self._conclude(call, error)
        self._start_waiting()

    def _end(self, call: _Call, error: Exception | None) -> None:
        self._in_flight -= 1
        self._conclude(call, error)

    def _conclude(self, call: _Call, error: Exception | None) -> None:
        call.is_done = True
        call.error = error
        call.response = None
        group = call.group
        group.remaining -= 1
        if not group.remaining and not group.finished.done():
            group.finished.set_result(None)

    def _take_inbox(self) -> None:
        # Cleared before the inbox is emptied: what arrives from now on either is seen below or wakes the loop again.
        self._is_woken = False
        inbox = self._inbox
        while inbox:
            call, page, error = inbox.popleft()
            if call.is_done:
                continue
            if error is not None or call.rows is None:
                self._in_flight -= 1
                self._conclude(call, error)
                continue
            if page is not None:
                call.rows.extend(page)
            response = call.response
            if response is not None and response.has_more_pages and not call.group.finished.done():
                try:
                    response.start_fetching_next_page()
                except Exception as refused:
                    self._end(call, refused)
            else:
                self._end(call, None)
        self._start_waiting()

    # The driver's side.

    def _arrive(self, call: _Call, page: list[Row] | None, error: Exception | None) -> None:
        self._inbox.append((call, page, error))
        if not self._is_woken:
            self._is_woken = True
            assert self._loop is not None
            with suppress(RuntimeError):  # the loop is closed; nobody waits any more
                self._loop.call_soon_threadsafe(self._take_inbox)
