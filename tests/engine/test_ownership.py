"""What a member does on assignment and between attempts, against a consumer that only remembers what it was told."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest
from aiokafka.errors import CorruptRecordException
from aiokafka.structs import TopicPartition

from engine.ownership import Membership, OwnershipService
from engine.ownership_settings import OwnershipSettings
from engine.ubscore_service import ubscore_duty
from schema.ports import Clock, KafkaClients, KafkaConsumer, Randomness
from schema.topics import FUND_UPDATES, ORDER_REQUESTS
from tests.engine.exchange_for_tests import topology
from tests.engine.test_snapshots import MemoryDisk


class Consumer:
    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def pause(self, *places: TopicPartition) -> None:
        self.told.append(("pause", *places))

    def seek(self, place: TopicPartition, offset: int) -> None:
        self.told.append(("seek", place, offset))

    def resume(self, *places: TopicPartition) -> None:
        self.told.append(("resume", *places))


class CorruptConsumer(Consumer):
    """Reads bytes whose checksum is wrong."""

    def subscribe(self, topics: object, listener: object) -> None: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def getmany(self, **options: object) -> dict[TopicPartition, list[object]]:
        raise CorruptRecordException(f"Invalid CRC - {REQUESTS[1]}")


class Producer:
    """Never gets a transactional id, so nothing after that is reached."""

    async def start(self) -> None:
        await asyncio.Event().wait()

    async def stop(self) -> None: ...


class Clients:
    def __init__(self) -> None:
        self.transactional_ids: list[object] = []

    def consumer(self, *topics: str, **config: object) -> Consumer:
        return Consumer()

    def producer(self, **config: object) -> Producer:
        self.transactional_ids.append(config["transactional_id"])
        return Producer()


class Draws:
    """Always draws the largest number."""

    def below(self, n: int) -> int:
        return n - 1


class Lines:
    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.alarms: list[tuple[str, object]] = []

    def warning(self, event: str, **fields: object) -> None:
        self.warnings.append(event)

    def critical(self, event: str, **fields: object) -> None:
        self.alarms.append((event, fields["reason"]))

    def _ignore(self, event: str, **fields: object) -> None: ...

    debug = info = error = _ignore


def with_service(main: Callable[[OwnershipService, Clients, Lines], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        clients, lines = Clients(), Lines()
        service = OwnershipService(
            ubscore_duty(topology(2)),
            kafka=cast(KafkaClients, clients),
            disk=MemoryDisk(),
            clock=cast(Clock, None),
            randomness=cast(Randomness, Draws()),
            log=lines,
            settings=OwnershipSettings(),
        )
        await main(service, clients, lines)

    asyncio.run(run())


REQUESTS = [TopicPartition(ORDER_REQUESTS, number) for number in range(2)]
UPDATES = [TopicPartition(FUND_UPDATES, number) for number in range(2)]


def test_assigned_partitions_are_paused_before_anything_else_and_taken_over_by_number() -> None:
    async def main(service: OwnershipService, clients: Clients, lines: Lines) -> None:
        membership = Membership(service.surroundings)
        await membership.on_partitions_assigned({*REQUESTS, *UPDATES})
        await asyncio.sleep(0)
        told = cast(Consumer, membership.consumer).told
        for place in (*REQUESTS, *UPDATES):
            assert told.index(("pause", place)) < told.index(("seek", place, 0))
        assert not [each for each in told if each[0] == "resume"]
        assert clients.transactional_ids == ["ubscore-0", "ubscore-1"]
        await membership.on_partitions_revoked({*REQUESTS, *UPDATES})

    with_service(main)


def test_a_number_that_is_not_owned_in_both_topics_is_waited_for() -> None:
    async def main(service: OwnershipService, clients: Clients, lines: Lines) -> None:
        membership = Membership(service.surroundings)
        await membership.on_partitions_assigned([*REQUESTS, UPDATES[1]])
        await asyncio.sleep(0)
        assert clients.transactional_ids == ["ubscore-1"]
        assert lines.warnings == ["waiting for the other input topics"]
        assert ("pause", REQUESTS[0]) in cast(Consumer, membership.consumer).told
        await membership.on_partitions_revoked([*REQUESTS, UPDATES[1]])

    with_service(main)


def test_revocation_ends_a_take_over_that_gets_nowhere() -> None:
    async def main(service: OwnershipService, clients: Clients, lines: Lines) -> None:
        membership = Membership(service.surroundings)
        await membership.on_partitions_assigned([REQUESTS[0], UPDATES[0]])
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await membership.on_partitions_revoked([REQUESTS[0], UPDATES[0]])
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    with_service(main)


def test_input_that_is_corrupt_in_the_log_raises_an_alarm_and_ends_the_membership() -> None:
    async def main(service: OwnershipService, clients: Clients, lines: Lines) -> None:
        membership = Membership(service.surroundings)
        membership.consumer = cast(KafkaConsumer, CorruptConsumer())
        with pytest.raises(CorruptRecordException):
            await membership.run(asyncio.Event())
        ((event, reason),) = lines.alarms
        assert event == "input is corrupt in the log"
        assert str(REQUESTS[1]) in str(reason)

    with_service(main)


@pytest.mark.parametrize(("failures", "at_most_ms"), [(1, 100), (2, 200), (4, 800), (7, 5_000), (10_000, 5_000)])
def test_the_pause_doubles_up_to_a_limit(failures: int, at_most_ms: int) -> None:
    async def main(service: OwnershipService, clients: Clients, lines: Lines) -> None:
        waited: list[float | None] = []

        class Timeout:
            def __init__(self, seconds: float) -> None:
                waited.append(seconds)

            async def __aenter__(self) -> None: ...

            async def __aexit__(self, *error: object) -> None: ...

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("engine.surroundings.asyncio.timeout", Timeout)
            is_over = asyncio.Event()
            is_over.set()
            await service.surroundings.back_off(failures, is_over)
        # The jitter drawn here is the largest, one half.
        assert waited == [at_most_ms / 2 / 1000]

    with_service(main)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_records_max": 0},
        {"snapshot_interval_outputs": -1},
        {"rebalance_timeout_ms": 10_000, "revocation_timeout_ms": 10_000},
        {"session_timeout_ms": 1_000, "heartbeat_interval_ms": 1_000},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        OwnershipSettings(**wrong)
