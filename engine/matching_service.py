"""The matching engine as a service: validated.orders in, engine.outputs and fund.updates out (design 3 and 4.1).

The decisions are `engine.matching`'s; `OwnershipService(matching_duty(topology), ...)` is an instance of the service.
"""

from typing import TYPE_CHECKING, Final

from aiokafka.structs import TopicPartition

from engine.corruption import CorruptInputError
from engine.matching import InvalidInputError, MatchingEngine
from engine.partition_core import Duty, Outgoing
from schema import wire
from schema.events import EngineOutput
from schema.ports import Log
from schema.services import MATCHING
from schema.topics import ENGINE_OUTPUTS, FUND_UPDATES, VALIDATED_ORDERS, Topology

if TYPE_CHECKING:
    from aiokafka.structs import ConsumerRecord

CODE_VERSION: Final = 1
"""What the bytes of a snapshot mean; raised whenever the engine decides anything differently."""


class MatchingCore:
    """A matching engine as a PartitionCore."""

    def __init__(self, topology: Topology, partition: int, engine: MatchingEngine | None = None) -> None:
        self._outputs = TopicPartition(ENGINE_OUTPUTS, partition)
        self._fund_updates = tuple(TopicPartition(FUND_UPDATES, number) for number in range(topology.user_partitions))
        self._engine = engine or MatchingEngine(topology, partition)
        self._not_announced: list[EngineOutput] = []

    @classmethod
    def restore(cls, topology: Topology, partition: int, data: bytes) -> "MatchingCore":
        """Raises ValueError when the bytes are no snapshot of this partition."""
        return cls(topology, partition, MatchingEngine.restore(topology, partition, data))

    @property
    def sequence(self) -> int:
        return self._engine.output_seq

    @property
    def last_hash(self) -> int:
        return self._engine.last_hash

    def next_offset(self, topic: str) -> int | None:
        return self._engine.next_input_offset if self._engine.output_seq else None

    def replay(self, value: bytes | None) -> None:
        """Apply a committed output's own input again: it must give the very same bytes."""
        output, committed_hash = wire.ENGINE_OUTPUT.unseal(value)
        engine = self._engine
        if output.output_seq != engine.output_seq + 1 or output.prev_hash != engine.last_hash:
            raise CorruptInputError(
                f"output {output.output_seq} linked to hash {output.prev_hash} does not follow output "
                f"{engine.output_seq} with hash {engine.last_hash}"
            )
        try:
            again = engine.apply(output.input, output.input_topic, output.input_partition, output.input_offset)
        except InvalidInputError as error:
            raise CorruptInputError(f"output {output.output_seq}: {error}") from error
        if again.hash != committed_hash:
            raise CorruptInputError(
                f"output {output.output_seq} was committed with hash {committed_hash}, its input now gives {again.hash}"
            )

    def decide(self, record: "ConsumerRecord[bytes, bytes]", outgoing: Outgoing) -> None:
        order = wire.VALIDATED_ORDER.decode(record.value)
        try:
            output, value, _ = self._engine.apply(order, record.topic, record.partition, record.offset)
        except InvalidInputError as error:
            raise CorruptInputError(str(error)) from error
        outgoing[self._outputs].append(value)
        places, partitions = self._fund_updates, self._engine.user_partitions
        for update in output.fund_updates:
            outgoing[places[partitions[update.user_id]]].append(wire.encode(update))
        self._not_announced.append(output)

    def announce(self, log: Log) -> None:
        for output in self._not_announced:
            sequence = output.output_seq
            for placed in output.order_placements:
                log.info("OrderPlacement emitted", order_id=placed.order_id, output_seq=sequence)
            for updated in output.order_updates:
                log.info("OrderUpdate emitted", order_id=updated.order_id, output_seq=sequence)
            for completed in output.order_completions:
                log.info("OrderCompletion emitted", order_id=completed.order_id, output_seq=sequence)
            for refused in output.refusals:
                log.info("OrderRejected emitted", order_id=refused.order_id, output_seq=sequence)
        self._not_announced.clear()

    def snapshot(self) -> bytes:
        return self._engine.snapshot()


def matching_duty(topology: Topology) -> Duty:
    """What the matching engine does with a symbol partition."""

    def read_output(value: bytes | None) -> tuple[int, int]:
        output, output_hash = wire.ENGINE_OUTPUT.unseal(value)
        return output.output_seq, output_hash

    return Duty(
        service=MATCHING,
        input_topics=(VALIDATED_ORDERS,),
        output_topic=ENGINE_OUTPUTS,
        code_version=CODE_VERSION,
        new_core=lambda partition: MatchingCore(topology, partition),
        restore_core=lambda partition, data: MatchingCore.restore(topology, partition, data),
        read_output=read_output,
    )
