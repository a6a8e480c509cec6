"""What taking and running a partition needs to know of the service that does it (design 4.3).

The matching engine and the balance core are both pure state machines with a chained output topic. What differs between
them is said here, as a small protocol, so that the delicate part, ownership, is written once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from schema.ports import Log

if TYPE_CHECKING:
    from aiokafka.structs import ConsumerRecord, TopicPartition


class Outgoing(dict["TopicPartition", list[bytes]]):
    """Records to send, in order, by the explicit partition that they go to; a partition not named yet has none."""

    def __missing__(self, place: "TopicPartition") -> list[bytes]:
        values = self[place] = []
        return values


class PartitionCore(Protocol):
    """The pure state of one partition. After it has raised, or its decisions were not committed, it is thrown away."""

    @property
    def sequence(self) -> int:
        """The sequence of the last output, 0 before the first."""

    @property
    def last_hash(self) -> int:
        """The hash of the last output, GENESIS_HASH before the first."""

    def next_offset(self, topic: str) -> int | None:
        """One past the last input offset named in an output; None when no input of the topic was ever taken."""

    def replay(self, value: bytes | None) -> None:
        """Follow a committed output. Raises WireError or CorruptInputError when it cannot be the next one."""

    def decide(self, record: "ConsumerRecord[bytes, bytes]", outgoing: Outgoing) -> None:
        """Decide one input and append all that it sends; exactly one of these goes to the output partition.

        Raises WireError or CorruptInputError, with nothing changed or appended, when the input cannot be what was
        written: the partition must stop before it.
        """

    def announce(self, log: Log) -> None:
        """Log what was decided since the last call; called when it is committed."""

    def snapshot(self) -> bytes:
        """The whole state."""


@dataclass(frozen=True)
class Duty:
    """What a service does with each partition number that it owns.

    `service` names the consumer group and begins each transactional id. The input topics have the same number of
    partitions, and one instance owns the same number of all of them. `read_output` gives (sequence, hash) of an output
    record and raises WireError. `restore_core` raises ValueError when the bytes are no state. `code_version` changes
    whenever the meaning of a snapshot's state does.
    """

    service: str
    input_topics: tuple[str, ...]
    output_topic: str
    code_version: int
    new_core: Callable[[int], PartitionCore]
    restore_core: Callable[[int, bytes], PartitionCore]
    read_output: Callable[[bytes | None], tuple[int, int]]
