"""Putting what a running system holds into a trace: every topic's records, and every table's rows (design section 6).

The simulation records the same kinds from inside its servers; here they are read as anybody could read them.
"""

from typing import Any, Final, Protocol

from cassandra import ConsistencyLevel

from live.reading import all_tables, read_table, read_topics
from schema.ports import KafkaClients
from schema.topics import Topology

_NS_PER_MS: Final = 1_000_000
_NO_PRODUCER: Final = -1


class Recorder(Protocol):
    """The part of `traces.recorder.Recorder` that is used."""

    def emitter(self, kind: str, /) -> Any: ...


async def record_topics(recorder: Recorder, clients: KafkaClients, topology: Topology, epoch_ns: int, t: int) -> int:
    """Record every committed record of every topic as `kafka_log`; returns how many.

    `epoch_ns` is the wall-clock time of t = 0. When a record was appended is what its timestamp says, to the
    millisecond: the broker's own time in the topics that `live.topics` makes.
    """
    emit = recorder.emitter("kafka_log")
    recorded = 0
    # Topic by topic and partition by partition, as a simulated run records them.
    for topic, count in topology.partitions().items():
        by_partition: dict[int, list[tuple[object, ...]]] = {number: [] for number in range(count)}
        async for batch in read_topics(clients, {topic: count}):
            for record in batch:
                appended_t = record.timestamp * _NS_PER_MS - epoch_ns
                by_partition[record.partition].append(
                    (record.offset, appended_t, record.timestamp, _NO_PRODUCER, record.key or b"", record.value)
                )
        for number, records in by_partition.items():
            for columns in records:
                emit(t, "", topic, number, *columns)
            recorded += len(records)
    return recorded


async def record_tables(
    recorder: Recorder, session: Any, look: int, t: int, consistency: int = ConsistencyLevel.LOCAL_QUORUM
) -> int:
    """Record every row of every table as `final_*` under that look; returns how many."""
    recorded = 0
    for table in all_tables():
        emit = recorder.emitter(f"final_{table}")
        async for page in read_table(session, table, consistency):
            for *values, write_timestamp, ttl in page:
                emit(t, "observer", look, *values, write_timestamp, -1 if ttl is None else ttl)
            recorded += len(page)
    return recorded
