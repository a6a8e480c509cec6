"""UBSCore as a service: order.requests and fund.updates in; balance.events, answers and validated orders out.

The decisions are `engine.ubscore`'s; `OwnershipService(ubscore_duty(topology), ...)` is an instance of the service
(design 3, 4.2 and 4.4.2). A client request that does not decode goes to dead.letters in the same transaction as the
balance event that records its offset, and the service goes on; anything wrong with a fund update stops the partition.
"""

from typing import TYPE_CHECKING, Final

from aiokafka.structs import TopicPartition

from engine.corruption import CorruptInputError
from engine.partition_core import Duty, Outgoing
from engine.request_rules import read_request
from engine.ubscore import BalanceCore, Decision
from schema import wire
from schema.codes import Outcome
from schema.events import DEAD_LETTER_BYTES_MAX, DeadLetter, PlaceOrder, ReplaceOrder
from schema.ports import Log
from schema.services import UBSCORE
from schema.topics import (
    BALANCE_EVENTS,
    DEAD_LETTERS,
    FUND_UPDATES,
    ORDER_REQUESTS,
    ORDER_RESPONSES,
    VALIDATED_ORDERS,
    Topology,
)
from schema.wire import encode

if TYPE_CHECKING:
    from aiokafka.structs import ConsumerRecord

CODE_VERSION: Final = 1
"""What the bytes of a snapshot mean; raised whenever a balance event folds differently."""

_ACCEPTED: Final = int(Outcome.ACCEPTED)
_DEAD_LETTERS: Final = TopicPartition(DEAD_LETTERS, 0)


class UbsPartitionCore:
    """A balance core as a PartitionCore."""

    def __init__(self, topology: Topology, partition: int, core: BalanceCore | None = None) -> None:
        self._core = core or BalanceCore(topology, partition)
        self._not_announced: list[Decision] = []
        self._events = TopicPartition(BALANCE_EVENTS, partition)
        self._responses = TopicPartition(ORDER_RESPONSES, partition)
        self._validated = tuple(
            TopicPartition(VALIDATED_ORDERS, number) for number in range(topology.symbol_partitions)
        )

    @classmethod
    def restore(cls, topology: Topology, partition: int, data: bytes) -> "UbsPartitionCore":
        """Raises ValueError when the bytes are no snapshot of this partition."""
        return cls(topology, partition, BalanceCore.restore(topology, partition, data))

    @property
    def sequence(self) -> int:
        return self._core.sequence

    @property
    def last_hash(self) -> int:
        return self._core.last_hash

    def next_offset(self, topic: str) -> int | None:
        return self._core.next_offsets.get(topic)

    def replay(self, value: bytes | None) -> None:
        event, event_hash = wire.BALANCE_EVENT.unseal(value)
        self._core.fold(event, event_hash)

    def decide(self, record: "ConsumerRecord[bytes, bytes]", outgoing: Outgoing) -> None:
        if record.topic == ORDER_REQUESTS:
            self._decide_request(record, outgoing)
        elif record.topic == FUND_UPDATES:
            update = wire.FUND_UPDATE.decode(record.value)
            decision = self._core.apply_update(update, record.topic, record.partition, record.offset)
            self._send(decision, outgoing)
        else:
            raise CorruptInputError(f"{record.topic} is not an input of this service")

    def _decide_request(self, record: "ConsumerRecord[bytes, bytes]", outgoing: Outgoing) -> None:
        place = (record.topic, record.partition, record.offset)
        try:
            request = read_request(record.value)
        except wire.WireError as error:
            self._send(self._core.apply_undecodable(*place), outgoing)
            letter = DeadLetter(*place, str(error), (record.value or b"")[:DEAD_LETTER_BYTES_MAX])
            outgoing[_DEAD_LETTERS].append(encode(letter))
            return
        self._send(self._core.apply_request(request, *place), outgoing)

    def _send(self, decision: Decision, outgoing: Outgoing) -> None:
        event, value, _, response, validated = decision
        outgoing[self._events].append(value)
        if response is not None:
            outgoing[self._responses].append(encode(response))
        if validated is not None:
            outgoing[self._validated[event.validated_partition]].append(encode(validated))
        self._not_announced.append(decision)

    def announce(self, log: Log) -> None:
        for decision in self._not_announced:
            event = decision.event
            response = decision.response
            if event.request is None:
                if response is None and event.update_link_seq == 0:
                    log.warning(
                        "request put with the dead letters",
                        topic=event.input_topic,
                        partition=event.input_partition,
                        offset=event.input_offset,
                    )
            elif (
                response is not None and not response.is_repeat and isinstance(event.request, PlaceOrder | ReplaceOrder)
            ):
                order_id = event.request.order_id
                if response.outcome == _ACCEPTED:
                    log.info("order accepted", order_id=order_id, event_seq=event.sequence)
                else:
                    log.info("order rejected", order_id=order_id, event_seq=event.sequence, reason=response.reason)
        self._not_announced.clear()

    def snapshot(self) -> bytes:
        return self._core.snapshot()


def ubscore_duty(topology: Topology) -> Duty:
    """What the balance core does with a user partition."""

    def read_output(value: bytes | None) -> tuple[int, int]:
        event, event_hash = wire.BALANCE_EVENT.unseal(value)
        return event.sequence, event_hash

    return Duty(
        service=UBSCORE,
        input_topics=(ORDER_REQUESTS, FUND_UPDATES),
        output_topic=BALANCE_EVENTS,
        code_version=CODE_VERSION,
        new_core=lambda partition: UbsPartitionCore(topology, partition),
        restore_core=lambda partition, data: UbsPartitionCore.restore(topology, partition, data),
        read_output=read_output,
    )
