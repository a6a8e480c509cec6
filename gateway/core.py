"""The gateway: hand a client's request in, wait for the answer and the engine's verdict (design sections 3 and 4.7).

A request goes to order.requests, into the user's partition. What becomes of it comes back on order.responses, twice for
an order command: first the balance core's answer, then the engine's verdict. Every gateway reads all of that topic,
without a group and from where it ended at start, and picks what somebody waits for here: so the client may ask again at
any gateway. Nothing is kept for later; a client that nobody waits for asks again, and is given the first answer.

**What the client is told.** `accepted` and `rejected` are the balance core's words. `invalid` means that this gateway
refused the request for its form, and nobody else has seen it. Everything else is `unknown`: no answer in time, a
delivery that failed (it may have happened all the same), a gateway that is overloaded or about to stop. It says that
the fate of the *request id* is not known here, and that asking again with it, here or elsewhere, is safe.

Waiting is bounded by `answer_timeout_ms` for the answer and twice that for the verdict, the number of requests that
wait by `outstanding_max`.
"""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from gateway.order_ids import OrderIds, OrderIdsExhausted, open_session
from gateway.outbox import Outbox
from gateway.requests import AnyClientRequest, ClientRequest, RequestError, parse, to_event
from gateway.submissions import ClientAnswer, Submission, Submissions, Told, not_sent
from schema.identifiers import NO_ORDER, OrderId, SymbolId, TradeId, UserId
from schema.ports import Clock, KafkaClients, KafkaConsumer, KafkaProducer, Log
from schema.symbols import SymbolError
from schema.topics import MAX_RECORD_BYTES, ORDER_RESPONSES, Topology
from schema.wire import ORDER_RESPONSE, WireError
from settlement.queries import BalanceOfAsset, OrderRow, Queries, TradeRow

T = TypeVar("T")

_BACKOFF_MS: Final = (100, 200, 500, 1_000, 2_000)


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """`answer_timeout_ms` bounds the wait for the answer, twice that for the verdict; `outstanding_max` how many
    requests wait at once. `request_timeout_ms` is how long a Kafka client waits for a broker before it asks again: it
    sends one request at a time to each, so one lost answer holds up everybody for that long. `linger_ms` is how long a
    request waits for others that can travel with it: the default of Kafka's own client since 4.0, and little beside the
    transactions that follow. `poll_ms` is how long the reader waits in one call.
    """

    answer_timeout_ms: int = 4_000
    outstanding_max: int = 10_000
    request_timeout_ms: int = 3_000
    linger_ms: int = 5
    poll_ms: int = 1_000

    def __post_init__(self) -> None:
        if min(self.answer_timeout_ms, self.outstanding_max, self.request_timeout_ms, self.poll_ms) < 1:
            raise ValueError("every setting of a gateway but linger_ms must be at least 1")
        if self.linger_ms < 0:
            raise ValueError("linger_ms cannot be negative")


class Gateway:
    """One instance. `start`, then `run` until `request_stop`; `submit` and the reads in between."""

    def __init__(
        self,
        name: str,
        topology: Topology,
        kafka: KafkaClients,
        queries: Queries,
        clock: Clock,
        log: Log,
        config: GatewayConfig | None = None,
    ) -> None:
        self.name = name
        self._topology = topology
        self._symbols = topology.symbols
        self._kafka = kafka
        self._queries = queries
        self._clock = clock
        self._log = log
        self._config = config or GatewayConfig()
        self._timeout_s = self._config.answer_timeout_ms / 1000
        self._submissions = Submissions(self._timeout_s)
        self._outboxes = tuple(
            Outbox(partition, self._config.linger_ms / 1000, lambda: self._producer, self._suspect, log)
            for partition in range(topology.user_partitions)
        )
        self._order_ids: OrderIds | None = None
        self._producer: KafkaProducer | None = None
        self._reader: KafkaConsumer | None = None
        self._positions: dict[TopicPartition, int] = {}
        self._stop: asyncio.Future[None] | None = None
        self._producer_broken: asyncio.Event = asyncio.Event()
        self._is_ready = False
        self._is_stopping = False

    # -- life

    async def start(self) -> None:
        """Open a session and find the end of order.responses; returns when requests can be taken.

        Tries again for as long as Kafka does not answer. Returns without effect after `request_stop`.
        """
        self._stop = asyncio.get_running_loop().create_future()
        if self._is_stopping:
            return
        await self._unless_stopped(self._open())

    async def run(self) -> None:
        """Read answers until `request_stop`; then let those who wait be answered, and close."""
        if self._order_ids is not None and self._stop is not None:
            loop = asyncio.get_running_loop()
            workers = [loop.create_task(self._read_for_ever()), loop.create_task(self._keep_producer())]
            try:
                await asyncio.wait([self._stop, *workers], return_when=asyncio.FIRST_COMPLETED)
                if self._stop.done():
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._submissions.idle.wait(), 2 * self._timeout_s)
                for worker in workers:
                    if worker.done():
                        worker.result()
            finally:
                self._is_stopping = True
                for worker in workers:
                    worker.cancel()
                await asyncio.wait(workers)
        await self._close()

    def request_stop(self) -> None:
        """Take no more requests; `run` ends when those that wait are answered."""
        self._is_stopping = True
        if self._stop is not None and not self._stop.done():
            self._stop.set_result(None)

    async def stop(self) -> None:
        """`request_stop` for a gateway that is not being run: close its clients."""
        self.request_stop()
        await self._close()

    @property
    def outstanding(self) -> int:
        """How many requests wait for their answer here."""
        return self._submissions.count

    # -- requests

    async def submit(self, client_request: AnyClientRequest | bytes | str | Mapping[str, object]) -> ClientAnswer:
        """Hand a client's request in and tell what became of it. Raises nothing but cancellation.

        The caller has authenticated the user that the request names.
        """
        answered: asyncio.Future[ClientAnswer] = asyncio.get_running_loop().create_future()

        def told(answer: ClientAnswer) -> None:
            if not answered.done():  # cancelled, and not forgotten yet
                answered.set_result(answer)

        submission = self.hand_in(client_request, told)
        try:
            return await answered
        finally:
            if submission is not None:
                submission.forget()

    def hand_in(
        self, client_request: AnyClientRequest | bytes | str | Mapping[str, object], told: Told
    ) -> Submission | None:
        """`submit` for those who would be called back: `told` is called with the answer, once, perhaps at once.

        Returns what waits for it, None if nothing does. Raises nothing.
        """
        try:
            parsed = client_request if isinstance(client_request, ClientRequest) else parse(client_request)
            if self._is_stopping or not self._is_ready or self._producer is None or self._order_ids is None:
                told(not_sent("this gateway cannot take requests at the moment"))
                return None
            if self._submissions.count >= self._config.outstanding_max:
                told(not_sent("this gateway has too many requests under way"))
                return None
            # An id is spent only on a request that places an order, and then whatever becomes of it.
            order_id = self._order_ids.next() if parsed.assigns_order_id else NO_ORDER
            request = to_event(parsed, self._symbols, order_id, self._clock.now_ns())
        except RequestError as error:
            told(ClientAnswer("invalid", str(error)))
            return None
        except OrderIdsExhausted as error:
            self.request_stop()
            told(not_sent(str(error)))
            return None
        submission = self._submissions.add(request, told)
        self._outboxes[self._topology.user_partition(request.user_id)].put(submission)
        return submission

    # -- reads, for a user who is authenticated

    async def get_active_orders(
        self, user_id: UserId, symbols: Sequence[str] | None = None, limit: int | None = None
    ) -> list[OrderRow]:
        """The user's live orders, newest first. Raises RequestError, QueryUnavailable."""
        wanted = None if symbols is None else [self._symbol_id(name) for name in symbols]
        return await self._asked(self._queries.get_active_orders(user_id, wanted, limit))

    async def get_order(self, user_id: UserId, order_id: OrderId) -> OrderRow | None:
        """One order of the user; None when there is none (any more). Raises QueryUnavailable."""
        return await self._queries.get_order(user_id, order_id)

    async def get_order_history(
        self, user_id: UserId, symbol: str, limit: int = 100, before: tuple[int, OrderId] | None = None
    ) -> list[OrderRow]:
        """The user's orders in a symbol, newest first. Raises RequestError, QueryUnavailable."""
        return await self._asked(self._queries.get_order_history(user_id, self._symbol_id(symbol), limit, before))

    async def get_trades(
        self, user_id: UserId, symbol: str, limit: int = 100, before: tuple[int, TradeId] | None = None
    ) -> list[TradeRow]:
        """The user's trades in a symbol, newest first. Raises RequestError, QueryUnavailable."""
        return await self._asked(self._queries.get_trades(user_id, self._symbol_id(symbol), limit, before))

    async def get_balances(self, user_id: UserId) -> list[BalanceOfAsset]:
        """What the user has of each asset. Raises QueryUnavailable."""
        return await self._queries.get_balances(user_id)

    # -- below: how

    def _symbol_id(self, name: str) -> SymbolId:
        try:
            return self._symbols.named(name).symbol_id
        except SymbolError as error:
            raise RequestError(str(error)) from None

    async def _asked(self, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except ValueError as error:
            raise RequestError(str(error)) from None

    def _suspect(self, producer: KafkaProducer, error: BaseException) -> None:
        """A producer that failed once may refuse everything from then on (a hole in its sequence): make another."""
        if producer is self._producer:
            self._log.warning("the producer failed and is replaced", error=repr(error))
            self._producer_broken.set()

    # Kafka clients

    async def _open(self) -> None:
        failures = 0
        while True:
            try:
                if self._producer is None:
                    self._producer = await self._started_producer()
                if self._order_ids is None:
                    self._order_ids = await open_session(self._producer, self.name, self._clock.now_ns())
                self._reader = await self._started_reader()
            except KafkaError as error:
                self._log.warning("gateway cannot start yet, will try again", error=repr(error))
                broken, self._producer = self._producer, None
                if broken is not None:
                    await self._discard(broken)
                await self._back_off(failures)
                failures += 1
            else:
                # Only now: an answer that came before the reader had its place would be missed.
                self._is_ready = True
                self._log.info("gateway ready", gateway=self.name, session=self._order_ids.session)
                return

    async def _started_producer(self) -> KafkaProducer:
        producer = self._kafka.producer(
            acks="all",
            enable_idempotence=True,
            max_request_size=MAX_RECORD_BYTES,
            request_timeout_ms=self._config.request_timeout_ms,
        )
        await _started(producer)
        return producer

    async def _started_reader(self) -> KafkaConsumer:
        """A reader of all answers: from the end the first time, then from where the last one was."""
        reader = self._kafka.consumer(
            group_id=None,
            enable_auto_commit=False,
            isolation_level="read_committed",
            auto_offset_reset="none",
            max_partition_fetch_bytes=MAX_RECORD_BYTES,
            request_timeout_ms=self._config.request_timeout_ms,
        )
        partitions = [TopicPartition(ORDER_RESPONSES, number) for number in range(self._topology.user_partitions)]
        reader.assign(partitions)
        await _started(reader)
        try:
            beginnings = await reader.beginning_offsets(partitions)
            ends = await reader.end_offsets(partitions)
            for partition in partitions:
                # Answers that retention took in the meantime are given up: whoever waited for them asks again.
                position = self._positions.get(partition, ends[partition])
                position = max(beginnings[partition], min(position, ends[partition]))
                self._positions[partition] = position
                reader.seek(partition, position)
        except BaseException:
            await reader.stop()
            raise
        return reader

    async def _read_for_ever(self) -> None:
        failures = 0
        while True:
            try:
                if self._reader is None:
                    self._reader = await self._started_reader()
                await self._read(self._reader)
                failures = 0
            except KafkaError as error:
                self._log.warning("the reader of answers failed and is replaced", error=repr(error))
                reader, self._reader = self._reader, None
                if reader is not None:
                    with suppress(KafkaError):
                        await reader.stop()
                await self._back_off(failures)
                failures += 1

    async def _read(self, reader: KafkaConsumer) -> None:
        fetched = await reader.getmany(timeout_ms=self._config.poll_ms)
        offer = self._submissions.offer
        for partition, records in fetched.items():
            for record in records:
                try:
                    response = ORDER_RESPONSE.decode(record.value)
                except WireError as error:
                    # Whoever waits for it is told "unknown" and asks again.
                    self._log.error(
                        f"undecodable answer: {error}",
                        topic=partition.topic,
                        partition=partition.partition,
                        offset=record.offset,
                    )
                    continue
                offer(response)
            self._positions[partition] = records[-1].offset + 1

    async def _keep_producer(self) -> None:
        while True:
            await self._producer_broken.wait()
            self._producer_broken.clear()
            broken, self._producer = self._producer, None
            failures = 0
            while self._producer is None:
                try:
                    self._producer = await self._started_producer()
                except KafkaError as error:
                    self._log.warning("no producer yet, will try again", error=repr(error))
                    await self._back_off(failures)
                    failures += 1
            if broken is not None:
                await self._discard(broken)

    async def _discard(self, producer: KafkaProducer) -> None:
        # Stopping flushes, which may never end for a producer that cannot deliver; nobody waits for it any more.
        with suppress(KafkaError, TimeoutError):
            async with asyncio.timeout(self._timeout_s):
                await producer.stop()

    async def _close(self) -> None:
        self._submissions.close()
        for outbox in self._outboxes:
            await outbox.close()
        producer, self._producer = self._producer, None
        if producer is not None:
            await self._discard(producer)
        reader, self._reader = self._reader, None
        if reader is not None:
            with suppress(KafkaError):
                await reader.stop()

    async def _back_off(self, failures: int) -> None:
        await asyncio.sleep(_BACKOFF_MS[min(failures, len(_BACKOFF_MS) - 1)] / 1000)

    async def _unless_stopped(self, work: "Awaitable[None]") -> None:
        """Await work, or its end by `request_stop`."""
        assert self._stop is not None
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait([self._stop, task], return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
        if not task.cancelled():
            task.result()


async def _started(client: KafkaProducer | KafkaConsumer) -> None:
    try:
        await client.start()
    except BaseException:
        # A client that did not start holds connections all the same.
        with suppress(KafkaError):
            await client.stop()
        raise
