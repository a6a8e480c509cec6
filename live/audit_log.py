"""The topics of a running system as an audit reads them: whole, read-committed, and further each time it is asked.

Everything is kept in memory: some 6 KB for each order that the system ever took.
"""

from collections.abc import Mapping, Sequence

from aiokafka.structs import TopicPartition

from live.audit_cut import Link, LogRecord, Offsets, link_of
from live.reading import committed_ends, places, read_log, reader, written_ends
from schema.ports import KafkaClients
from schema.topics import (
    BALANCE_EVENTS,
    CHAINED_TOPICS,
    ENGINE_OUTPUTS,
    FUND_UPDATES,
    ORDER_REQUESTS,
    VALIDATED_ORDERS,
)

_TAKEN_INTO = {
    ORDER_REQUESTS: (BALANCE_EVENTS, "the balance core"),
    FUND_UPDATES: (BALANCE_EVENTS, "the balance core"),
    VALIDATED_ORDERS: (ENGINE_OUTPUTS, "the engine"),
}
"""Each input topic: the chained topic in which its records are named as inputs, and by whom."""


class AuditLog:
    """What has been read so far of topics with so many partitions each (`Topology.partitions`)."""

    def __init__(self, partitions: Mapping[str, int]) -> None:
        self.partitions = dict(partitions)
        self.records: dict[TopicPartition, list[LogRecord]] = {place: [] for place in places(partitions)}
        self.links: dict[TopicPartition, list[Link]] = {
            place: [] for place in self.records if place.topic in CHAINED_TOPICS
        }
        self.ends: dict[TopicPartition, int] = {}
        """Before which offset of each partition everything has been read."""
        self._taken: dict[tuple[str, int], int] = {}

    async def extend(self, clients: KafkaClients) -> None:
        """Read on to where the topics end now. Raises ReadingError."""
        if not self.ends:
            async with reader(clients) as consumer:
                self.ends = dict(await consumer.beginning_offsets(places(self.partitions)))
        # What is written together is seen in one topic a moment before it is seen in another: the chained topics last,
        # so that whatever is found elsewhere is found there too.
        for topics in ([t for t in self.partitions if t not in CHAINED_TOPICS], CHAINED_TOPICS):
            ends = await committed_ends(clients, {topic: self.partitions[topic] for topic in topics})
            starts = {place: self.ends[place] for place in ends}
            async for batch in read_log(clients, starts, ends):
                for each in batch:
                    record = LogRecord(each.offset, each.timestamp, each.key or b"", each.value)
                    self.add(TopicPartition(each.topic, each.partition), record)
            for place, end in ends.items():
                self.ends[place] = max(self.ends[place], end)

    def add(self, place: TopicPartition, record: LogRecord) -> None:
        """The next record of a partition."""
        self.records[place].append(record)
        if place.topic in CHAINED_TOPICS:
            link = link_of(place.topic, record)
            if link is not None:
                self.links[place].append(link)
                topic, partition, offset = link.input
                self._taken[topic, partition] = max(offset, self._taken.get((topic, partition), -1))

    def behind(self, ends: Offsets, progress: Offsets) -> list[str]:
        """Who has not yet come to the ends given, in words, one line a partition.

        `progress` is the next offset of each chained partition as settlement has written it. Offsets alone say little,
        because the markers of transactions have some: it is the last record before an end that counts.
        """
        lines = []
        for place, records in self.records.items():
            last = _last_before(records, ends.get(place, 0))
            if last is None:
                continue
            if place.topic in _TAKEN_INTO:
                who, done = _TAKEN_INTO[place.topic][1], self._taken.get((place.topic, place.partition), -1) + 1
            elif place.topic in CHAINED_TOPICS:
                who, done = "settlement", progress.get(place, 0)
            else:
                continue
            if done <= last:
                lines.append(f"{who} stands at offset {done} of {place.topic}-{place.partition}, which goes to {last}")
        return lines

    async def open_transactions(self, clients: KafkaClients) -> list[str]:
        """Partitions in which a transaction is open now, in words."""
        written = await written_ends(clients, self.partitions)
        committed = await committed_ends(clients, self.partitions)
        return [
            f"a transaction is open in {place.topic}-{place.partition}"
            for place, end in written.items()
            if end > committed[place]
        ]


def _last_before(records: Sequence[LogRecord], end: int) -> int | None:
    return next((record.offset for record in reversed(records) if record.offset < end), None)
