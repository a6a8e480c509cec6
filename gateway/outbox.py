"""The way of requests from a gateway into order.requests (design sections 3 and 4.7)."""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

from aiokafka.errors import KafkaTimeoutError

from gateway.submissions import Submission
from schema.events import AnyRequest, Deposit, Withdraw
from schema.identifiers import NO_ORDER, OrderId
from schema.ports import KafkaProducer, Log
from schema.topics import ORDER_REQUESTS
from schema.wire import encode


class Outbox:
    """Hands the requests of one partition to Kafka, in the order in which they came.

    The producer may make a request wait, for a leader or for room in the partition's batch, and what makes one request
    of a partition wait makes all of them wait: so they stand in line, behind one task that lives while there is a line.
    What is not sent when its time is over is never sent.

    `producer` gives the producer of the moment, None while there is none. `suspect` is told of one that failed.
    """

    def __init__(
        self,
        partition: int,
        producer: Callable[[], KafkaProducer | None],
        suspect: Callable[[KafkaProducer, BaseException], object],
        log: Log,
    ) -> None:
        self._partition = partition
        self._producer = producer
        self._suspect = suspect
        self._log = log
        self._line: deque[Submission] = deque()
        self._sending: asyncio.Task[None] | None = None

    def put(self, submission: Submission) -> None:
        """Send its request, as soon as those before it are sent; it is told if that fails."""
        self._line.append(submission)
        if self._sending is None:
            self._sending = asyncio.get_running_loop().create_task(self._send_all())

    async def close(self) -> None:
        """Send nothing any more."""
        self._line.clear()
        sending = self._sending
        if sending is not None:
            sending.cancel()
            await asyncio.wait([sending])

    async def _send_all(self) -> None:
        line = self._line
        try:
            while line:
                submission = line.popleft()
                if not submission.has_ended:
                    await self._send(submission)
        finally:
            self._sending = None

    async def _send(self, submission: Submission) -> None:
        producer = self._producer()
        if producer is None:
            submission.fail("there is no connection to Kafka")
            return
        try:
            delivery = await producer.send(ORDER_REQUESTS, encode(submission.request), partition=self._partition)
        except KafkaTimeoutError:
            submission.fail("it could not be handed to Kafka in time")
        except Exception as error:  # not only KafkaError: a dead client may raise anything
            self._suspect(producer, error)
            submission.fail(f"it could not be handed to Kafka: {type(error).__name__}")
        else:
            delivery.add_done_callback(partial(self._delivered, submission, producer))

    def _delivered(self, submission: Submission, producer: KafkaProducer, delivery: "asyncio.Future[object]") -> None:
        if delivery.cancelled():
            submission.fail("its delivery was given up")
            return
        error = delivery.exception()
        if error is None:
            request = submission.request
            self._log.info(
                "order request produced",
                order_id=_named_order(request),
                request_id=request.request_id,
                user_id=request.user_id,
            )
            return
        self._suspect(producer, error)
        submission.fail(f"its delivery failed, or seemed to: {type(error).__name__}")


def _named_order(request: AnyRequest) -> OrderId:
    return NO_ORDER if isinstance(request, Deposit | Withdraw) else request.order_id
