"""One partition's transactions, all or nothing, on aiokafka as it is (design 4.3.1 and 4.3.3).

What aiokafka does that this module exists for:

* `commit_transaction` commits although deliveries have failed. So every delivery is awaited and examined first.
* A record sent by itself costs a future and a wake-up. So what goes to one partition is sent as a batch, or as several
  when it is much: each is delivered or fails as a whole.
* A cancelled or timed-out commit goes on in the background, and its outcome is unknown. So every way out but a commit
  that returned raises, and the caller throws the state away and reads the log.
* Deliveries of an idempotent producer are retried for ever. So the whole transaction has a deadline: the coordinator
  aborts it then in any case.
* `stop` waits for what is buffered. So it has a deadline too; what is left running holds an old epoch and is fenced by
  the next start.
"""

import asyncio
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from aiokafka.errors import InvalidProducerEpoch, ProducerFenced

from engine.ownership_settings import OwnershipSettings
from engine.partition_core import Outgoing
from schema.ports import KafkaClients, KafkaProducer, Log
from schema.topics import MAX_RECORD_BYTES

if TYPE_CHECKING:
    from asyncio import Future

    from aiokafka.structs import RecordMetadata, TopicPartition

    from schema.ports import KafkaBatch

_RECORD_OVERHEAD_BYTES: Final = 1024
"""More than the client adds to a record's value, so that a value of the largest size can be sent."""
_PRODUCER_BATCH_BYTES: Final = 1024 * 1024
"""A transaction's records for one partition travel in one request up to this size."""

UNKNOWN_OFFSET: Final = -1
"""The offset of a delivery that the broker had seen before: it was written, it does not say where."""


class TransactionFailedError(Exception):
    """The transaction was aborted, or nobody knows: the state that it came from is not to be used any more."""


class FencedError(Exception):
    """Another producer has taken over the transactional id, or the coordinator ended it: this instance owns nothing."""


class TransactionalWriter:
    """The transactional producer of one owned partition; its epoch is the only fence (design 4.3.1)."""

    def __init__(self, clients: KafkaClients, transactional_id: str, settings: OwnershipSettings, log: Log) -> None:
        self._settings = settings
        self._log = log
        self._transactional_id = transactional_id
        self._producer: KafkaProducer = clients.producer(
            transactional_id=transactional_id,
            transaction_timeout_ms=settings.transaction_timeout_ms,
            request_timeout_ms=settings.request_timeout_ms,
            retry_backoff_ms=settings.retry_backoff_ms,
            acks="all",
            max_batch_size=_PRODUCER_BATCH_BYTES,
            max_request_size=MAX_RECORD_BYTES + _RECORD_OVERHEAD_BYTES,
        )

    async def start(self) -> None:
        """Take the transactional id: fence its last holder and end what that left open, before this returns."""
        await self._producer.start()

    async def write(
        self, outgoing: Outgoing, offsets: "Mapping[TopicPartition, int]", group_id: str
    ) -> "dict[TopicPartition, int]":
        """Send records and the group's offsets in one transaction; once committed, returns by partition where the last
        of its records stands, or UNKNOWN_OFFSET.

        Raises FencedError, or TransactionFailedError when it was not committed or the outcome is unknown, as it is when
        this is cancelled. The writer is of no use after any of these but to be closed.
        """
        deliveries: list[tuple[TopicPartition, int, Future[RecordMetadata]]] = []
        producer = self._producer
        try:
            async with asyncio.timeout(self._settings.transaction_timeout_ms / 1000):
                await producer.begin_transaction()
                for place, values in outgoing.items():
                    topic, partition = place
                    for batch in self._batches(values):
                        delivery = await producer.send_batch(batch, topic, partition=partition)
                        deliveries.append((place, batch.record_count(), delivery))
                last_offsets: dict[TopicPartition, int] = {}
                for place, count, delivery in deliveries:
                    offset = (await delivery).offset
                    last_offsets[place] = UNKNOWN_OFFSET if offset == UNKNOWN_OFFSET else offset + count - 1
                deliveries.clear()  # each was looked at
                # Not while records are under way: a coordinator that is adding to the transaction cannot verify it for
                # their brokers, which then refuse them as with too few replicas (KIP-890), and the client backs off.
                await producer.send_offsets_to_transaction(offsets, group_id)
                await producer.commit_transaction()
                return last_offsets
        except Exception as error:
            # Whatever it was (aiokafka raises AssertionError too): a commit that returned is the only success there is.
            if _is_fencing(error):
                raise FencedError(f"{self._transactional_id} was fenced") from error
            await self._abort()
            raise TransactionFailedError(f"{self._transactional_id}: {error!r}") from error
        finally:
            for _, _, delivery in deliveries:
                if delivery.done():
                    _look_at(delivery)
                else:
                    delivery.add_done_callback(_look_at)

    def _batches(self, values: list[bytes]) -> "Iterator[KafkaBatch]":
        """The values in batches as large as the client makes them; a value larger than that has one for itself."""
        batch = self._producer.create_batch()
        for value in values:
            if batch.append(timestamp=None, key=None, value=value) is None:
                batch.close()
                yield batch
                batch = self._producer.create_batch()
                batch.append(timestamp=None, key=None, value=value)
        batch.close()
        yield batch

    async def _abort(self) -> None:
        """Hasten the end of a transaction, so that readers need not wait for its time-out. It ends anyhow."""
        try:
            async with asyncio.timeout(self._settings.stop_timeout_ms / 1000):
                await self._producer.abort_transaction()
        except Exception as error:
            self._log.info("transaction not aborted", transactional_id=self._transactional_id, reason=repr(error))

    async def close(self) -> None:
        """Close the producer. Does not raise, and does not wait for ever."""
        try:
            async with asyncio.timeout(self._settings.stop_timeout_ms / 1000):
                await self._producer.stop()
        except Exception as error:
            self._log.warning("producer not closed", transactional_id=self._transactional_id, reason=repr(error))


def _is_fencing(error: BaseException | None) -> bool:
    """aiokafka may wrap what killed its sender, so the causes are looked at too."""
    while error is not None:
        if isinstance(error, ProducerFenced | InvalidProducerEpoch):
            return True
        error = error.__cause__
    return False


def _look_at(delivery: "Future[RecordMetadata]") -> None:
    """Nobody waits for this delivery any more; asyncio need not complain that its failure was not seen."""
    if not delivery.cancelled():
        delivery.exception()
