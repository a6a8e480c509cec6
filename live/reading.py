"""Reading a running system from outside: whole topics and whole tables (design section 10, `audit`).

Nothing here disturbs what it reads: no consumer group is joined, no offset committed, nothing written. Topics are read
read-committed up to the end that they had when the reading began; tables page by page, at the consistency level asked.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from aiokafka.structs import TopicPartition
from cassandra import ConsistencyLevel, OperationTimedOut
from cassandra.query import SimpleStatement

from schema import tables
from schema.ports import KafkaClients, KafkaConsumer
from schema.topics import MAX_RECORD_BYTES
from settlement.cql_adapter import Row
from settlement.retries import is_retryable

if TYPE_CHECKING:
    from aiokafka.structs import ConsumerRecord

STAMPED_COLUMN: Final = {
    tables.ACTIVE_ORDERS: "revision",
    tables.ORDER_HISTORY: "revision",
    tables.ORDER_LOOKUP: "revision",
    tables.USER_TRADES: "output_seq",
    tables.BALANCE_LEDGER: "event_seq",
    tables.USER_BALANCES: "ledger_seq",
    tables.SETTLEMENT_PROGRESS: "sequence",
}
"""For each table a regular column, whose writetime and ttl are the row's: a row is always written whole."""

PAGE_ROWS: Final = 2_000
POLL_MS: Final = 500
_PAGE_ATTEMPTS: Final = 30
_PAGE_TIMEOUT_S: Final = 30.0
_PAUSE_S: Final = 0.25
_PAUSE_S_MAX: Final = 2.0
_STALLED_S: Final = 60.0


class ReadingError(RuntimeError):
    """A topic or table cannot be read; the message is one line that says which, and why."""


# -- topics


@asynccontextmanager
async def reader(clients: KafkaClients, isolation_level: str = "read_committed") -> AsyncIterator[KafkaConsumer]:
    """A started consumer of no group, without any partition yet."""
    consumer = clients.consumer(
        group_id=None,
        isolation_level=isolation_level,
        enable_auto_commit=False,
        auto_offset_reset="none",
        max_partition_fetch_bytes=MAX_RECORD_BYTES,
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


def places(partitions: Mapping[str, int]) -> list[TopicPartition]:
    """Every partition of topics with that many each (`Topology.partitions`), in order."""
    return [TopicPartition(topic, number) for topic, count in partitions.items() for number in range(count)]


async def committed_ends(clients: KafkaClients, partitions: Mapping[str, int]) -> dict[TopicPartition, int]:
    """Where each partition ends now for a read-committed reader: its last stable offset."""
    async with reader(clients) as consumer:
        return await consumer.end_offsets(places(partitions))


async def written_ends(clients: KafkaClients, partitions: Mapping[str, int]) -> dict[TopicPartition, int]:
    """Where each partition ends now whatever is committed: its high watermark. Larger than the committed end while a
    transaction is open."""
    async with reader(clients, "read_uncommitted") as consumer:
        return await consumer.end_offsets(places(partitions))


async def read_log(
    clients: KafkaClients, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> "AsyncIterator[list[ConsumerRecord[bytes, bytes]]]":
    """The committed records from `starts` to before `ends`, a few hundred at a time, each partition in its order.

    Ends when every partition's position has reached its end, transaction markers included. Raises ReadingError when
    no position moves for a minute.
    """
    left = [place for place in starts if starts[place] < ends[place]]
    if not left:
        return
    async with reader(clients) as consumer:
        consumer.assign(left)
        for place in left:
            consumer.seek(place, starts[place])
        loop = asyncio.get_running_loop()
        positions = {place: starts[place] for place in left}
        deadline = loop.time() + _STALLED_S
        while left:
            fetched = await consumer.getmany(timeout_ms=POLL_MS)
            for place, records in fetched.items():
                batch = [record for record in records if record.offset < ends[place]]
                if batch:
                    yield batch
            for place in list(left):
                position = await consumer.position(place)
                if position != positions[place]:
                    positions[place] = position
                    deadline = loop.time() + _STALLED_S
                if position >= ends[place]:
                    left.remove(place)
                    consumer.pause(place)
            if left and loop.time() > deadline:
                stuck = ", ".join(f"{place.topic}-{place.partition} at {positions[place]}" for place in left)
                raise ReadingError(f"reading stands still for {_STALLED_S:g} s: {stuck}")


async def read_topics(
    clients: KafkaClients, partitions: Mapping[str, int]
) -> "AsyncIterator[list[ConsumerRecord[bytes, bytes]]]":
    """All committed records that topics hold now, from the beginning of each partition."""
    wanted = places(partitions)
    async with reader(clients) as consumer:
        starts = await consumer.beginning_offsets(wanted)
        ends = await consumer.end_offsets(wanted)
    async for batch in read_log(clients, starts, ends):
        yield batch


async def undelivered(
    clients: KafkaClients, group: str, partitions: Mapping[str, int]
) -> "AsyncIterator[ConsumerRecord[bytes, bytes]]":
    """Committed records that a group has not committed an offset beyond. Offsets alone do not tell: markers have some.

    The group's offsets are looked up without joining it; a partition without one counts from its beginning.
    """
    wanted = places(partitions)
    lookup = clients.consumer(group_id=group, enable_auto_commit=False, auto_offset_reset="none")
    lookup.assign(wanted)
    await lookup.start()
    try:
        beginnings = await lookup.beginning_offsets(wanted)
        starts = {}
        for place in wanted:
            committed = await lookup.committed(place)
            starts[place] = beginnings[place] if committed is None else committed
    finally:
        await lookup.stop()
    ends = await committed_ends(clients, partitions)
    async for batch in read_log(clients, starts, ends):
        for record in batch:
            yield record


# -- tables


def select_all(table: str) -> str:
    """The query of all rows of a table of ours: its columns in the order of TABLE_COLUMNS, then writetime, then ttl."""
    column = STAMPED_COLUMN[table]
    return f"SELECT {', '.join(tables.TABLE_COLUMNS[table])}, writetime({column}), ttl({column}) FROM {table}"


async def read_table(
    session: Any, table: str, consistency: int = ConsistencyLevel.LOCAL_QUORUM
) -> AsyncIterator[list[Row]]:
    """All rows of a table, page by page, as `select_all` names the columns. `session` is a driver's session with the
    keyspace set and tuples for rows. Raises ReadingError when a page cannot be had, however often it is asked for."""
    async for page in read_pages(session, select_all(table), consistency):
        yield page


async def read_pages(session: Any, query: str, consistency: int) -> AsyncIterator[list[Row]]:
    """The pages of a query; a page that fails for now is asked for again from where the last one ended."""
    statement = SimpleStatement(query, consistency_level=consistency, fetch_size=PAGE_ROWS, is_idempotent=True)
    paging_state: bytes | None = None
    attempt = 0
    while True:
        try:
            page, next_state = await _page(session, statement, paging_state)
        except Exception as error:
            attempt += 1
            if not is_retryable(error) or attempt >= _PAGE_ATTEMPTS:
                raise ReadingError(f"{query[:80]}...: {type(error).__name__}: {error}") from error
            await asyncio.sleep(min(_PAUSE_S * attempt, _PAUSE_S_MAX))
            continue
        attempt = 0
        yield page
        if next_state is None:
            return
        paging_state = next_state


async def _page(session: Any, statement: SimpleStatement, paging_state: bytes | None) -> tuple[list[Row], bytes | None]:
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[list[Row]] = loop.create_future()

    def settle(page: Sequence[Row] | None, error: Exception | None) -> None:
        if arrived.done():
            return
        if error is not None:
            arrived.set_exception(error)
        else:
            arrived.set_result(list(page or ()))

    response = session.execute_async(statement, paging_state=paging_state)
    # The driver calls back on a thread of its own.
    response.add_callbacks(
        lambda page: loop.call_soon_threadsafe(settle, page, None),
        lambda error: loop.call_soon_threadsafe(settle, None, error),
    )
    try:
        async with asyncio.timeout(_PAGE_TIMEOUT_S):
            page = await arrived
    except TimeoutError:
        raise OperationTimedOut({"driver": f"no page within {_PAGE_TIMEOUT_S:g} s"}) from None
    # Private in name only: the public `paging_state` is of the result set, which exists only where one blocks.
    return page, response._paging_state if response.has_more_pages else None


def all_tables() -> Iterable[str]:
    """The names of all tables of ours that hold rows of the exchange."""
    return STAMPED_COLUMN
