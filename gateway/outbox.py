"""The way of requests from a gateway into order.requests (design sections 3 and 4.7)."""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

from aiokafka.errors import KafkaTimeoutError

from gateway.submissions import Submission
from schema.events import AnyRequest, Deposit, Withdraw
from schema.identifiers import NO_ORDER, OrderId
from schema.ports import KafkaBatch, KafkaProducer, Log
from schema.topics import ORDER_REQUESTS
from schema.wire import encode


class Outbox:
    """Hands the requests of one partition to Kafka, in the order in which they came, in batches.

    A request waits `linger_s` for others that can travel with it. Then the producer may make it wait, for a leader or
    for the batch before it, and what makes one request of a partition wait makes all of them wait: so they stand in
    line, behind one task that lives while there is a line. What is not sent when its time is over is never sent.

    `producer` gives the producer of the moment, None while there is none. `suspect` is told of one that failed.
    """

    def __init__(
        self,
        partition: int,
        linger_s: float,
        producer: Callable[[], KafkaProducer | None],
        suspect: Callable[[KafkaProducer, BaseException], object],
        log: Log,
    ) -> None:
        self._partition = partition
        self._linger_s = linger_s
        self._producer = producer
        self._suspect = suspect
        self._log = log
        self._line: deque[Submission] = deque()
        self._lingering: asyncio.TimerHandle | None = None
        self._sending: asyncio.Task[None] | None = None

    def put(self, submission: Submission) -> None:
        """Send its request; it is told if that fails."""
        self._line.append(submission)
        if self._sending is None and self._lingering is None:
            self._lingering = asyncio.get_running_loop().call_later(self._linger_s, self._begin)

    async def close(self) -> None:
        """Send nothing any more."""
        self._line.clear()
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        sending = self._sending
        if sending is not None:
            sending.cancel()
            await asyncio.wait([sending])

    def _begin(self) -> None:
        self._lingering = None
        self._sending = asyncio.get_running_loop().create_task(self._send_all())

    async def _send_all(self) -> None:
        try:
            while self._line:
                producer = self._producer()
                if producer is None:
                    while self._line:
                        self._line.popleft().fail("there is no connection to Kafka")
                    return
                batch = producer.create_batch()
                submissions = self._fill(batch)
                if submissions:
                    await self._send(producer, batch, submissions)
        finally:
            self._sending = None

    def _fill(self, batch: KafkaBatch) -> list[Submission]:
        """Take off the line what fits into a batch, and leave out those whose time is over."""
        line = self._line
        filled = []
        while line:
            submission = line[0]
            if not submission.has_ended:
                if batch.append(timestamp=None, key=None, value=encode(submission.request)) is None:
                    break
                filled.append(submission)
            line.popleft()
        batch.close()
        return filled

    async def _send(self, producer: KafkaProducer, batch: KafkaBatch, submissions: list[Submission]) -> None:
        try:
            delivery = await producer.send_batch(batch, ORDER_REQUESTS, partition=self._partition)
        except KafkaTimeoutError:
            _fail(submissions, "it could not be handed to Kafka in time")
        except Exception as error:  # not only KafkaError: a dead client may raise anything
            self._suspect(producer, error)
            _fail(submissions, f"it could not be handed to Kafka: {type(error).__name__}")
        else:
            delivery.add_done_callback(partial(self._delivered, submissions, producer))

    def _delivered(
        self, submissions: list[Submission], producer: KafkaProducer, delivery: "asyncio.Future[object]"
    ) -> None:
        if delivery.cancelled():
            _fail(submissions, "its delivery was given up")
            return
        error = delivery.exception()
        if error is not None:
            self._suspect(producer, error)
            _fail(submissions, f"its delivery failed, or seemed to: {type(error).__name__}")
            return
        for submission in submissions:
            request = submission.request
            self._log.info(
                "order request produced",
                order_id=_named_order(request),
                request_id=request.request_id,
                user_id=request.user_id,
            )


def _fail(submissions: list[Submission], reason: str) -> None:
    for submission in submissions:
        submission.fail(reason)


def _named_order(request: AnyRequest) -> OrderId:
    return NO_ORDER if isinstance(request, Deposit | Withdraw) else request.order_id
