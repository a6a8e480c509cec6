"""Rows, then progress, then the group's offset: none before the one before it is acknowledged (design 4.4.1)."""

import asyncio

import pytest
from aiokafka.structs import ConsumerRecord, TopicPartition
from cassandra import Unavailable

from schema.topics import ENGINE_OUTPUTS
from settlement.retries import Backoff
from settlement.service import Committer, PartitionSettler, SettlementConfig
from settlement.store import Store, StoreConfig

PARTITION = TopicPartition(ENGINE_OUTPUTS, 0)
FAST = Backoff(first_ms=1, longest_ms=1)


class OneFetch:
    """A consumer of one partition that has these values, and then no more."""

    def __init__(self, values: list[bytes]) -> None:
        self._values = values
        self.commits: list[int] = []

    async def committed(self, partition: TopicPartition) -> None:
        return None

    async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    def seek(self, partition: TopicPartition, offset: int) -> None: ...

    def resume(self, *partitions: TopicPartition) -> None: ...

    def pause(self, *partitions: TopicPartition) -> None: ...

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset({PARTITION})

    async def getmany(self, *partitions: TopicPartition, timeout_ms: int) -> dict[TopicPartition, list[object]]:
        values, self._values = self._values, []
        if not values:
            await asyncio.sleep(timeout_ms / 1000)
        return {
            PARTITION: [
                ConsumerRecord(*PARTITION, offset, 0, 0, None, value, None, -1, len(value), ())
                for offset, value in enumerate(values)
            ]
        }

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        self.commits.append(offsets[PARTITION])


@pytest.mark.parametrize(
    ("refused", "progress_is_written"),
    [("active_orders", False), ("order_lookup", False), ("order_history", False), ("settlement_progress", True)],
)
def test_nothing_is_recorded_before_what_it_stands_for_is_acknowledged(
    session, clock, randomness, log, topology, events, refused: str, progress_is_written: bool
):
    async def scenario() -> None:
        config = SettlementConfig(backoff=FAST, checkpoint_ms=0)
        store = Store(
            session,
            clock=clock,
            randomness=randomness,
            log=log,
            symbol_ids=topology.symbols.symbols,
            config=StoreConfig(backoff=FAST),
        )
        await store.open()
        consumer = OneFetch(events.chain_of_outputs([events.placement(1)]))
        session.fault = lambda query, parameters: (
            Unavailable("down") if query.startswith(f"INSERT INTO {refused}") else None
        )
        committer = Committer(consumer, log, randomness, config)
        settler = PartitionSettler(PARTITION, consumer, store, committer, clock, log, randomness, config)
        settler.start(lambda error: None)
        await asyncio.sleep(0.05)
        asked = [statement.query for statement, _ in session.executed if not isinstance(statement, str)]
        assert any(query.startswith("INSERT INTO settlement_progress") for query in asked) is progress_is_written
        assert consumer.commits == []
        session.fault = lambda query, parameters: None
        await asyncio.sleep(0.05)
        assert consumer.commits == [1]
        assert session.model.rows("settlement_progress")[0]["next_offset"] == 1
        settler.request_stop()
        await settler.wait_ended(asyncio.get_running_loop().time() + 5)

    asyncio.run(scenario())


def test_first_record_is_settled_at_once_and_the_next_fetch_waits_for_the_pace(
    session, clock, randomness, log, topology, events
):
    class Timed(OneFetch):
        def __init__(self, values: list[bytes]) -> None:
            super().__init__(values)
            self.fetches: list[float] = []

        async def getmany(self, *partitions: TopicPartition, timeout_ms: int) -> dict[TopicPartition, list[object]]:
            self.fetches.append(asyncio.get_running_loop().time())
            return await super().getmany(*partitions, timeout_ms=timeout_ms)

    async def scenario() -> None:
        config = SettlementConfig(backoff=FAST, pace_ms=40)
        store = Store(session, clock=clock, randomness=randomness, log=log, symbol_ids=topology.symbols.symbols)
        await store.open()
        consumer = Timed(events.chain_of_outputs([events.placement(1)]))
        settler = PartitionSettler(
            PARTITION, consumer, store, Committer(consumer, log, randomness, config), clock, log, randomness, config
        )
        settler.start(lambda error: None)
        while len(consumer.fetches) < 2:
            await asyncio.sleep(0)
            if session.model.rows("active_orders") and len(consumer.fetches) == 1:
                consumer.written_before_second_fetch = True
        settler.request_stop()
        await settler.wait_ended(asyncio.get_running_loop().time() + 1)
        first, second = consumer.fetches
        assert consumer.written_before_second_fetch
        assert second - first >= 0.04

    asyncio.run(scenario())


def test_progress_is_written_once_for_all_that_is_settled_meanwhile_and_when_the_partition_is_given_up(
    session, clock, randomness, log, topology, events
):
    class OneByOne(OneFetch):
        """Gives one record with each fetch."""

        def __init__(self, values: list[bytes]) -> None:
            super().__init__(values)
            self.given = 0
            self.is_dry = asyncio.Event()

        async def getmany(self, *partitions: TopicPartition, timeout_ms: int) -> dict[TopicPartition, list[object]]:
            if self.given == len(self._values):
                self.is_dry.set()
                await asyncio.sleep(timeout_ms / 1000)
                return {}
            value, offset = self._values[self.given], self.given
            self.given += 1
            return {PARTITION: [ConsumerRecord(*PARTITION, offset, 0, 0, None, value, None, -1, len(value), ())]}

    def progress_writes() -> int:
        asked = [statement.query for statement, _ in session.executed if not isinstance(statement, str)]
        return sum(query.startswith("INSERT INTO settlement_progress") for query in asked)

    async def scenario() -> None:
        config = SettlementConfig(backoff=FAST, pace_ms=0, checkpoint_ms=60_000)
        store = Store(session, clock=clock, randomness=randomness, log=log, symbol_ids=topology.symbols.symbols)
        await store.open()
        consumer = OneByOne(events.chain_of_outputs(*[[events.placement(number)] for number in (1, 2, 3)]))
        committer = Committer(consumer, log, randomness, config)
        settler = PartitionSettler(PARTITION, consumer, store, committer, clock, log, randomness, config)
        settler.start(lambda error: None)
        await asyncio.wait_for(consumer.is_dry.wait(), 5)
        assert len(session.model.rows("active_orders")) == 3
        assert progress_writes() == 0
        assert consumer.commits == []
        settler.request_stop()
        deadline = asyncio.get_running_loop().time() + 5
        await settler.wait_ended(deadline)
        await committer.flush(deadline)
        assert progress_writes() == 1
        assert session.model.rows("settlement_progress")[0]["next_offset"] == 3
        assert consumer.commits == [3]

    asyncio.run(scenario())
