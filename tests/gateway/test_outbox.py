"""Requests go to Kafka in their order and in batches; what makes one wait makes all wait, what is over is not sent."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaTimeoutError, OutOfOrderSequenceNumber

from gateway.outbox import Outbox
from gateway.submissions import ClientAnswer, Submissions
from schema.events import Deposit
from schema.identifiers import AssetId, UserId
from schema.ports import KafkaProducer, Log
from schema.wire import REQUEST
from sim.clock import NS_PER_SECOND
from sim.world import World

BATCH_MAX = 3
LINGER_S = 0.005


class SmallBatch:
    """Has room for a few records."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.is_closed = False

    def append(self, *, timestamp: int | None, key: bytes | None, value: bytes) -> object | None:
        assert not self.is_closed
        if len(self.names) == BATCH_MAX:
            return None
        self.names.append(REQUEST.decode(value).request_id)
        return self

    def close(self) -> None:
        self.is_closed = True


class ScriptedProducer:
    """Takes batches when its gate is open; keeps the futures of their deliveries."""

    def __init__(self) -> None:
        self.sent: list[list[str]] = []
        self.deliveries: list[asyncio.Future[Any]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    create_batch = SmallBatch

    async def send_batch(self, batch: SmallBatch, topic: str, *, partition: int) -> "asyncio.Future[Any]":
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        assert (topic, partition) == ("order.requests", 2)
        assert batch.is_closed
        self.sent.append(batch.names)
        self.deliveries.append(asyncio.get_running_loop().create_future())
        return self.deliveries[-1]


class Lines:
    """A log that keeps its lines."""

    def __init__(self) -> None:
        self.events: list[tuple[str, object]] = []

    def info(self, event: str, **fields: object) -> None:
        self.events.append((event, fields["request_id"]))


class Post:
    """An outbox with a scripted producer, on a simulated loop."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.loop = world.host("gateway").start(_for_ever).loop
        self.submissions = Submissions(4.0)
        self.producer: ScriptedProducer | None = ScriptedProducer()
        self.suspected: list[BaseException] = []
        self.log = Lines()
        self.told: list[tuple[str, ClientAnswer]] = []
        self.linger = True
        self.outbox = Outbox(
            2,
            LINGER_S,
            lambda: cast(KafkaProducer, self.producer) if self.producer is not None else None,
            lambda producer, error: self.suspected.append(error),
            cast(Log, self.log),
        )

    def put(self, *names: str) -> None:
        def put_all() -> None:
            for name in names:
                request = Deposit(name, UserId(1), 1, AssetId(1), 5)
                told = cast(Callable[[ClientAnswer], None], lambda answer, name=name: self.told.append((name, answer)))
                self.outbox.put(self.submissions.add(request, told))

        self.do(put_all)
        if self.linger:
            self.pass_s(LINGER_S)

    def do(self, action: Callable[[], object]) -> None:
        self.loop.enter(action)
        self.pass_s(0)

    def pass_s(self, seconds: float) -> None:
        self.world.clock.run_until(self.world.clock.now + round(seconds * NS_PER_SECOND))


async def _for_ever(incarnation: Any) -> None:
    await incarnation.loop.create_future()


@pytest.fixture
def post() -> Iterator[Post]:
    world = World(1)
    with world.running():
        yield Post(world)
    world.close()


def test_requests_are_sent_in_their_order_and_logged_when_delivered(post: Post) -> None:
    post.put("a", "b", "c", "d", "e")
    assert post.producer is not None
    assert post.producer.sent == [["a", "b", "c"], ["d", "e"]]
    assert post.log.events == []
    second = post.producer.deliveries[1]
    post.do(lambda: second.set_result(None))
    assert post.log.events == [("order request produced", "d"), ("order request produced", "e")]
    assert post.told == []


def test_requests_that_come_soon_after_one_another_travel_together(post: Post) -> None:
    assert post.producer is not None
    post.linger = False
    post.put("a")
    post.pass_s(LINGER_S / 2)
    post.put("b")
    assert post.producer.sent == []
    post.pass_s(LINGER_S / 2)
    assert post.producer.sent == [["a", "b"]]


def test_a_request_whose_time_is_over_in_the_line_is_never_sent(post: Post) -> None:
    assert post.producer is not None
    post.producer.gate.clear()
    post.put("a")
    post.put("b")
    post.pass_s(3)
    post.put("c")
    post.pass_s(2)
    post.do(post.producer.gate.set)
    assert [name for name, _ in post.told] == ["a", "b"]
    assert post.producer.sent == [["a"], ["c"]]  # the first was with the producer already


def test_a_line_that_has_ended_begins_anew(post: Post) -> None:
    post.put("a")
    post.put("b")
    assert post.producer is not None
    assert post.producer.sent == [["a"], ["b"]]


def test_no_producer_is_told_at_once(post: Post) -> None:
    post.producer = None
    post.put("a")
    ((name, answer),) = post.told
    assert (name, answer.outcome) == ("a", "unknown")
    assert "no connection" in answer.message


@pytest.mark.parametrize(
    ("error", "said", "is_suspect"),
    [
        (KafkaTimeoutError(), "in time", False),
        (OutOfOrderSequenceNumber(), "OutOfOrder", True),
        (OSError(), "OSE", True),
    ],
)
def test_a_producer_that_refuses_costs_the_request_not_the_line(
    post: Post, error: Exception, said: str, is_suspect: bool
) -> None:
    assert post.producer is not None
    post.producer.error = error
    post.put("a")
    post.producer.error = None
    post.put("b")
    assert said in post.told[0][1].message
    assert post.producer.sent == [["b"]]
    assert post.suspected == ([error] if is_suspect else [])


def test_failed_and_cancelled_deliveries_are_told(post: Post) -> None:
    post.put("a", "b")
    post.put("c")
    assert post.producer is not None
    failed, cancelled = post.producer.deliveries
    error = OutOfOrderSequenceNumber()
    post.do(lambda: failed.set_exception(error))
    post.do(cancelled.cancel)
    assert [(name, answer.outcome) for name, answer in post.told] == [(name, "unknown") for name in "abc"]
    assert post.suspected == [error]


def test_closing_ends_the_send_that_waits_and_sends_nothing_more(post: Post) -> None:
    assert post.producer is not None
    post.producer.gate.clear()
    post.put("a", "b")
    post.do(lambda: post.loop.create_task(post.outbox.close()))
    post.do(post.producer.gate.set)
    post.pass_s(10)
    assert post.producer.sent == []
    assert [name for name, _ in post.told] == ["a", "b"]
