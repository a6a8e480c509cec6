"""What a record costs in the simulated Kafka, in CPU time, from `send` to the consumer that is handed it.

Run as `python -m benchmarks.kafka_bench`. Each case produces batches of some tens of records, read read-committed
on another host, with the trace recorded: as a service does it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Coroutine
from typing import Any

from aiokafka.structs import TopicPartition

from sim.clock import NS_PER_SECOND, Clock
from sim.hosts import Host, Incarnation
from sim.kafka import KafkaCluster, SimKafkaClients
from sim.network import Network
from sim.randomness import Randomness
from traces.recorder import Recorder

TOPIC = "records"
PARTITIONS = 4
VALUE = b"\x01" * 200

Program = Callable[[SimKafkaClients], Coroutine[Any, Any, None]]


def record_cost(records: int = 40_000, batch: int = 40) -> dict[str, float]:
    """Microseconds of CPU per record produced and delivered: plain, and in transactions that also commit offsets."""
    _measure(batch * 10, _transactional(batch * 10, batch))  # imports, and the interpreter's caches
    return {
        "kafka_record_us": _measure(records, _idempotent(records, batch)),
        "kafka_transactional_record_us": _measure(records, _transactional(records, batch)),
    }


def _idempotent(records: int, batch: int) -> Program:
    async def produce(kafka: SimKafkaClients) -> None:
        producer = kafka.producer(enable_idempotence=True)
        await producer.start()
        for start in range(0, records, batch):
            partition = start // batch % PARTITIONS
            futures = [await producer.send(TOPIC, VALUE, partition=partition) for _ in range(batch)]
            for future in futures:
                await future
        await producer.stop()

    return produce


def _transactional(records: int, batch: int) -> Program:
    async def produce(kafka: SimKafkaClients) -> None:
        producer = kafka.producer(transactional_id="bench")
        await producer.start()
        for start in range(0, records, batch):
            partition = start // batch % PARTITIONS
            async with producer.transaction():
                futures = [await producer.send(TOPIC, VALUE, partition=partition) for _ in range(batch)]
                for future in futures:
                    await future
                await producer.send_offsets_to_transaction({TopicPartition(TOPIC, partition): start}, "bench")
        await producer.stop()

    return produce


def _consumer(records: int) -> Program:
    async def consume(kafka: SimKafkaClients) -> None:
        consumer = kafka.consumer(isolation_level="read_committed", enable_auto_commit=False)
        consumer.assign([TopicPartition(TOPIC, number) for number in range(PARTITIONS)])
        await consumer.start()
        await consumer.seek_to_beginning()
        seen = 0
        while seen < records:
            got = await consumer.getmany(timeout_ms=1000)
            for batch in got.values():
                seen += len(batch)
        await consumer.stop()

    return consume


def _measure(records: int, produce: Program) -> float:
    clock = Clock()
    recorder = Recorder()
    randomness = Randomness(1)
    cluster = KafkaCluster(clock, Network(clock, randomness), randomness, recorder)
    cluster.create_topic(TOPIC, PARTITIONS)
    hosts = [Host(clock, randomness, name) for name in ("producer-1", "consumer-1")]
    for host, program in zip(hosts, (produce, _consumer(records)), strict=True):

        async def main(incarnation: Incarnation, program: Program = program) -> None:
            await program(SimKafkaClients(cluster, incarnation))

        host.start(main)
    gc.collect()
    gc.disable()  # as in a run
    started = time.process_time()
    while any(host.is_up for host in hosts) and clock.now < 3_600 * NS_PER_SECOND:
        clock.run_until(clock.now + NS_PER_SECOND)
    spent = time.process_time() - started
    gc.enable()
    recorder.digest()
    if any(host.is_up for host in hosts):
        raise RuntimeError("the benchmark's programs did not end")
    return spent * 1e6 / records


if __name__ == "__main__":
    for name, figure in record_cost().items():
        print(f"{name} {figure:.2f}")
