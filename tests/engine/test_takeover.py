"""The log is read to its high watermark, however late a marker is, and a log that cannot be followed is named."""

import asyncio
from typing import Any, cast

import pytest
from aiokafka.errors import CorruptRecordException, KafkaError, RecordTooLargeError
from aiokafka.structs import ConsumerRecord, TopicPartition

from engine.ownership_settings import OwnershipSettings
from engine.snapshots import SnapshotStore
from engine.takeover import CorruptRecordError, Recovered, recover
from engine.ubscore_service import ubscore_duty
from schema.ports import KafkaClients, Log
from schema.topics import BALANCE_EVENTS
from tests.engine.exchange_for_tests import Desk, deposit, place, topology
from tests.engine.test_snapshots import MemoryDisk, Warnings

OUTPUT = TopicPartition(BALANCE_EVENTS, 0)


class ShownLog:
    """A partition as a broker shows it: some offsets hold markers; what is behind `stable` is not committed yet."""

    def __init__(self, records: dict[int, bytes], end: int, stable: int) -> None:
        self.records = records
        self.end = end
        self.stable = stable
        self.polls = 0
        self.unreadable: KafkaError | None = None


class Consumer:
    """The few methods that recovery uses. The late marker arrives after two empty polls."""

    def __init__(self, log: ShownLog, isolation_level: str) -> None:
        self._log = log
        self._is_read_committed = isolation_level == "read_committed"
        self._position = -1

    def assign(self, partitions: object) -> None: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._position = offset

    async def position(self, partition: TopicPartition) -> int:
        return self._position

    async def beginning_offsets(self, partitions: object) -> dict[TopicPartition, int]:
        return {OUTPUT: 0}

    async def end_offsets(self, partitions: object) -> dict[TopicPartition, int]:
        return {OUTPUT: self._log.stable if self._is_read_committed else self._log.end}

    async def getmany(self, *partitions: TopicPartition, timeout_ms: int = 0) -> dict[TopicPartition, list[Any]]:
        log = self._log
        if self._position >= log.stable:
            if log.unreadable is not None:
                raise log.unreadable
            log.polls += 1
            if log.polls == 2:
                log.stable = log.end
            return {}
        found = [
            ConsumerRecord(BALANCE_EVENTS, 0, offset, 0, 0, None, value, None, -1, len(value), ())
            for offset, value in sorted(log.records.items())
            if self._position <= offset < log.stable
        ]
        self._position = log.stable
        return {OUTPUT: found}


class Clients:
    def __init__(self, log: ShownLog) -> None:
        self._log = log

    def consumer(self, *topics: str, isolation_level: str, **config: object) -> Consumer:
        return Consumer(self._log, isolation_level)


def recovered(log: ShownLog) -> Recovered:
    warnings = cast(Log, Warnings())
    store = SnapshotStore(MemoryDisk(), "ubscore", 0, 1, warnings)
    clients = cast(KafkaClients, Clients(log))
    return asyncio.run(recover(ubscore_duty(topology()), 0, clients, store, OwnershipSettings(), warnings))


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    desk.ask(deposit(10_000))
    desk.ask(place(1))
    desk.ask(place(2))
    return desk


def test_an_empty_log_gives_the_initial_state() -> None:
    assert recovered(ShownLog({}, end=0, stable=0)).core.sequence == 0


def test_markers_at_the_end_are_passed(desk: Desk) -> None:
    values = [decision.value for decision in desk.log]
    log = ShownLog({0: values[0], 2: values[1], 3: values[2]}, end=5, stable=5)
    assert recovered(log).core.last_hash == desk.core.last_hash


def test_a_transaction_whose_marker_is_late_is_waited_for(desk: Desk) -> None:
    """Were the end taken as a read-committed consumer sees it, sequence 2 would be given out twice."""
    values = [decision.value for decision in desk.log]
    log = ShownLog({0: values[0], 2: values[1], 3: values[2]}, end=5, stable=2)
    core = recovered(log).core
    assert (core.sequence, core.last_hash) == (3, desk.core.last_hash)
    assert core.snapshot() == desk.core.snapshot()


@pytest.mark.parametrize("values", [(1, 2), (0, 2), (0, 0), (0, None)], ids=["cut off", "gap", "doubled", "garbage"])
def test_a_log_that_cannot_be_followed_is_named(desk: Desk, values: tuple[int, int | None]) -> None:
    records = {
        10 * number: b"garbage" if index is None else desk.log[index].value for number, index in enumerate(values)
    }
    with pytest.raises(CorruptRecordError) as raised:
        recovered(ShownLog(records, end=20, stable=20))
    error = raised.value
    assert (error.topic, error.partition, error.offset) == (BALANCE_EVENTS, 0, 0 if values[0] == 1 else 10)


@pytest.mark.parametrize("error", [CorruptRecordException("Invalid CRC"), RecordTooLargeError("8 MiB")], ids=repr)
def test_bytes_that_the_client_cannot_read_are_named_and_not_asked_for_for_ever(desk: Desk, error: KafkaError) -> None:
    log = ShownLog({0: desk.log[0].value, 1: desk.log[1].value}, end=5, stable=2)
    log.unreadable = error
    with pytest.raises(CorruptRecordError) as raised:
        recovered(log)
    assert raised.value.offset == 2
