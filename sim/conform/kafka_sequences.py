"""Sequences of Kafka operations, played on the double and on a real broker, step by step the same or not.

Hypothesis generates a sequence; `Stage` plays it on a side and notes what each step returned or raised, and at the end
what is in the log and in the group. Offsets are told from where the sequence began, so that a real broker's stage
serves many sequences: setting one up takes longer than playing on it. What a sequence has broken or fenced is replaced
before the next one.

What prefetching readers have when records are deleted is a matter of luck on a real broker. So a sequence that differed
is played on it once more, and counts as unsteady when the broker now does what the double did.

A step that ends a transaction is over when its markers are in the log, and its offsets in the group. Everything else is
awaited by its own answer. No step waits for a time-out: what needs one is a test of the suite.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeAlias

from aiokafka.admin import RecordsToDelete
from aiokafka.structs import TopicPartition
from hypothesis import strategies as st

from sim.conform.comparison import Difference, first_difference
from sim.conform.kafka_sides import DoubleSide, Kafka, ServerSide, read_to_end, stop_for_certain

Step: TypeAlias = tuple[Any, ...]
"""The name of a method of `Stage` and its arguments."""

PLAIN: Final = ("plain", "idempotent")
TRANSACTIONAL: Final = ("first", "second")
READERS: Final = ("committed", "uncommitted")
PARTITIONS: Final = (0, 1)

_MAX_MESSAGE_BYTES: Final = 1_000
_TIME_SPAN_MS: Final = 10
_MARKERS_S: Final = 10
_SEQUENCE_S: Final = 60
_BACKOFF_MS: Final = 10
_QUICK_READER: Final = {"fetch_max_wait_ms": 10, "retry_backoff_ms": _BACKOFF_MS}
"""A reader that has been seeked waits for the end of the long poll under way."""


# -- what is generated


@st.composite
def sequences(draw: st.DrawFn, most: int = 16) -> list[Step]:
    """A sequence of steps. Most make sense where they stand, some are made where they must be refused."""
    steps: list[Step] = []
    open_now = dict.fromkeys(TRANSACTIONAL, False)
    for _ in range(draw(st.integers(3, most))):
        kind = draw(st.sampled_from(_KINDS))
        partition = draw(st.sampled_from(PARTITIONS))
        name = draw(st.sampled_from(TRANSACTIONAL))
        if kind == "transaction":
            if not open_now[name]:
                steps.append(("begin", name))
                open_now[name] = True
                steps.append(("send", name, partition, *draw(_RECORDS)))
            else:
                end = draw(st.sampled_from(("send", "send", "offsets", "commit", "commit", "abort")))
                if end == "send":
                    steps.append(("send", name, partition, *draw(_RECORDS)))
                elif end == "offsets":
                    steps.append(("send_offsets", name, partition, draw(_OFFSET)))
                else:
                    steps.append((end, name))
                    open_now[name] = False
        elif kind == "plain":
            steps.append(("send", draw(st.sampled_from(PLAIN)), partition, *draw(_RECORDS)))
        elif kind == "any":  # also where it is refused
            who = draw(st.sampled_from((*TRANSACTIONAL, "zombie-first", "zombie-second")))
            what = draw(st.sampled_from(("begin", "commit", "abort", "send", "send_offsets")))
            more: Step = ()
            if what == "send":
                more = (partition, *draw(_RECORDS))
            elif what == "send_offsets":
                more = (partition, draw(_OFFSET))
            steps.append((what, who, *more))
            if what in ("begin", "commit", "abort") and who in open_now:
                open_now[who] = what == "begin"
        elif kind == "large":
            steps.append(("send_large", draw(st.sampled_from((*PLAIN, *TRANSACTIONAL))), partition))
        elif kind == "fence":
            steps.append(("fence", name))
            open_now[name] = False
        elif kind in ("fetch", "bounds"):
            steps.append((kind, draw(st.sampled_from(READERS))))
        elif kind == "take":
            steps.append(("take", draw(st.sampled_from(READERS)), partition, draw(st.integers(1, 4))))
        elif kind == "seek":
            steps.append(("seek", draw(st.sampled_from(READERS)), partition, draw(st.integers(-1, 9))))
        elif kind == "seek_to":
            end = draw(st.sampled_from(("beginning", "end")))
            steps.append(("seek_to", draw(st.sampled_from(READERS)), partition, end))
        elif kind == "time":
            steps.append(("offset_for_time", draw(st.sampled_from(READERS)), partition, draw(_TIME)))
        elif kind == "commit_offset":
            steps.append((kind, partition, draw(_OFFSET)))
        elif kind == "committed":
            steps.append((kind, partition))
        else:
            steps.append(("delete_records", partition, draw(st.integers(0, 9))))
    return steps


_KINDS: Final = (
    *("transaction",) * 12,
    *("plain",) * 4,
    *("any", "any", "fetch", "fetch", "take", "take", "bounds", "seek", "seek_to", "time"),
    *("large", "fence", "commit_offset", "committed", "delete"),
)
_TIME: Final = st.integers(0, _TIME_SPAN_MS - 1)
_RECORDS: Final = st.tuples(st.integers(1, 3), _TIME)
_OFFSET: Final = st.integers(-1, 20)


# -- what it is played on


@dataclass
class _Transaction:
    """What the markers of an open transaction will have to reach."""

    partitions: set[int] = field(default_factory=set)
    offsets: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By partition the number under which it was written, and the offset."""


@dataclass
class Stage:
    """One side with its clients, on which sequences are played one after the other."""

    kafka: Kafka
    topic: str = ""
    group: str = ""
    producers: dict[str, Any] = field(default_factory=dict)
    readers: dict[str, Any] = field(default_factory=dict)
    member: Any = None
    admin: Any = None
    base: dict[int, int] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)
    starts: dict[int, int] = field(default_factory=dict)
    open: dict[str, _Transaction] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    writes: int = 0
    written: dict[int, int] = field(default_factory=dict)
    worn: set[str] = field(default_factory=set)
    started_ms: int = 1_000_000

    async def prepare(self) -> None:
        """Make the topic and the clients."""
        kafka = self.kafka
        self.topic = await kafka.topic(len(PARTITIONS), max_message_bytes=str(_MAX_MESSAGE_BYTES))
        tps = [self.tp(partition) for partition in PARTITIONS]
        for reader in READERS:
            self.readers[reader] = await kafka.reader(*tps, isolation_level=f"read_{reader}", **_QUICK_READER)
        self.group = kafka.unique("group")
        self.member = await kafka.reader(*tps, group_id=self.group)
        self.admin = await kafka.admin()
        self.names = {name: kafka.unique("transactional") for name in TRANSACTIONAL}
        self.worn = {*PLAIN, *TRANSACTIONAL}

    async def play(self, steps: list[Step]) -> list[object]:
        """What each step came to, and the state at the end."""
        await self._begin()
        results = [(step, await self._result_of(step)) for step in steps]
        return [*results, ("final state", await self._finish())]

    async def close(self) -> None:
        """Stop the clients."""
        for producer in self.producers.values():
            await stop_for_certain(producer)
        await self.kafka.close()

    def tp(self, partition: int) -> TopicPartition:
        """The partition of that number."""
        return TopicPartition(self.topic, partition)

    # -- before and after a sequence

    async def _begin(self) -> None:
        """Replace what the last sequence has worn out; what there is now is the beginning of the next one."""
        for name in sorted(self.worn):
            if name in self.producers:
                await stop_for_certain(self.producers.pop(name))
            if not name.startswith("zombie"):
                self.producers[name] = await self._new_producer(name)
                await self._use_once(name)
        self.worn.clear()
        self.started_ms += 10 * _TIME_SPAN_MS
        reader = self.readers["uncommitted"]
        tps = [self.tp(partition) for partition in PARTITIONS]
        for tp, end in (await reader.end_offsets(tps)).items():
            self.base[tp.partition] = self.starts[tp.partition] = self.ends[tp.partition] = end
        await self.admin.delete_records({tp: RecordsToDelete(-1) for tp in tps})
        await self.member.commit({tp: self.base[tp.partition] for tp in tps})
        self.written = dict.fromkeys(PARTITIONS, self._next_write())
        for each in self.readers.values():
            for tp in tps:
                each.seek(tp, self.base[tp.partition])

    async def _new_producer(self, name: str) -> Any:
        if name in TRANSACTIONAL:
            return await self._start(transactional_id=self.names[name])
        return await (self._start(enable_idempotence=True) if name == "idempotent" else self._start(acks="all"))

    async def _start(self, **config: Any) -> Any:
        producer = self.kafka.clients.producer(retry_backoff_ms=_BACKOFF_MS, **config)
        await producer.start()
        return producer

    async def _use_once(self, name: str) -> None:
        """Let both partitions know the producer: what is refused depends on whether they do."""
        producer = self.producers[name]
        if name in TRANSACTIONAL:
            await producer.begin_transaction()
        offsets = [
            (await producer.send_and_wait(self.topic, b"first use", partition=partition)).offset
            for partition in PARTITIONS
        ]
        if name in TRANSACTIONAL:
            await producer.commit_transaction()
            await self._wait_for_ends({partition: offsets[partition] + 2 for partition in PARTITIONS})

    async def _finish(self) -> object:
        """Abort what is open; then all that readers find, and what is committed."""
        for name in list(self.open):
            if name in TRANSACTIONAL:
                await self.abort(name)
        tps = [self.tp(partition) for partition in PARTITIONS]
        state: dict[str, object] = {}
        for name, reader in self.readers.items():
            for tp in tps:
                reader.seek(tp, self.starts[tp.partition])
            found = await read_to_end(reader, tps)
            state[name] = {tp.partition: self._told(tp, found[tp]) for tp in tps}
            state[f"{name} ends"] = self._relative(await reader.end_offsets(tps))
        state["beginning"] = self._relative(await self.readers["committed"].beginning_offsets(tps))
        state["group"] = [await self.committed(partition) for partition in PARTITIONS]
        return state

    # -- steps

    async def _result_of(self, step: Step) -> object:
        name, *arguments = step
        try:
            return await getattr(self, name)(*arguments)
        except Exception as error:  # whatever it is, it must be the same on the other side
            if len(arguments) and arguments[0] in self.producers:
                self.worn.add(arguments[0])
            return type(error).__name__

    async def begin(self, who: str) -> object:
        """Begin a transaction."""
        producer = self.producers.get(who)
        if producer is None:
            return "nobody"
        await producer.begin_transaction()
        self.open[who] = _Transaction()
        return "begun"

    async def send(self, who: str, partition: int, count: int, time_ms: int) -> object:
        """Send records together, and tell where each is, or why it is not."""
        producer = self.producers.get(who)
        if producer is None:
            return "nobody"
        pending = []
        for number in range(count):
            value = b"%s %d" % (who.encode(), number)
            stamp_ms = self.started_ms + (time_ms + 3 * number) % _TIME_SPAN_MS
            pending.append(await producer.send(self.topic, value, partition=partition, timestamp_ms=stamp_ms))
        return await self._delivered(who, partition, pending)

    async def send_large(self, who: str, partition: int) -> object:
        """Send a record that is too large for the topic."""
        large = b"x" * (_MAX_MESSAGE_BYTES + 1)
        pending = [await self.producers[who].send(self.topic, large, partition=partition, timestamp_ms=0)]
        return await self._delivered(who, partition, pending)

    async def _delivered(self, who: str, partition: int, pending: list[Any]) -> list[object]:
        if who in self.open:
            self.open[who].partitions.add(partition)
        told: list[object] = []
        for delivery in pending:
            try:
                stored = await delivery
            except Exception as error:
                self.worn.add(who)
                told.append(type(error).__name__)
            else:
                self.ends[partition] = max(self.ends[partition], stored.offset + 1)
                told.append((stored.offset - self.base[partition], stored.timestamp - self.started_ms))
        return told

    async def send_offsets(self, who: str, partition: int, offset: int) -> object:
        """Commit an offset with the transaction."""
        producer = self.producers.get(who)
        if producer is None:
            return "nobody"
        absolute = self.base[partition] + offset
        await producer.send_offsets_to_transaction({self.tp(partition): absolute}, self.group)
        if who in self.open:
            self.open[who].offsets[partition] = self._next_write(), absolute
        return "sent"

    async def commit(self, who: str) -> object:
        """Commit the transaction, and wait for its markers."""
        return await self._end(who, commit=True)

    async def abort(self, who: str) -> object:
        """Abort the transaction, and wait for its markers."""
        return await self._end(who, commit=False)

    async def _end(self, who: str, *, commit: bool) -> object:
        producer = self.producers.get(who)
        if producer is None:
            return "nobody"
        await (producer.commit_transaction() if commit else producer.abort_transaction())
        ended = self.open.pop(who, _Transaction())
        await self._wait_for_markers(ended)
        if commit:
            for partition, (number, offset) in ended.offsets.items():
                if number < self.written[partition]:
                    continue  # something newer is committed, and stays
                self.written[partition] = number
                await self._wait_for(partial(self._has_committed, partition, offset))
        return "committed" if commit else "aborted"

    async def fence(self, name: str) -> object:
        """Start another producer of the transactional id; what the older one had open is aborted."""
        producer = await self._new_producer(name)
        zombie = f"zombie-{name}"
        if zombie in self.producers:
            await stop_for_certain(self.producers[zombie])
        self.producers[zombie], self.producers[name] = self.producers[name], producer
        self.worn |= {name, zombie}
        self.open.pop(zombie, None)
        ended = self.open.pop(name, _Transaction())
        await self._wait_for_markers(ended)
        return "fenced"

    async def fetch(self, reader: str) -> object:
        """All records to the end, and the positions then."""
        tps = [self.tp(partition) for partition in PARTITIONS]
        found = await read_to_end(self.readers[reader], tps)
        positions = {tp: await self.readers[reader].position(tp) for tp in tps}
        return [self._told(tp, found[tp]) for tp in tps], self._relative(positions)

    async def take(self, reader: str, partition: int, count: int) -> object:
        """The next records of a partition, as many as are there."""
        consumer, tp = self.readers[reader], self.tp(partition)
        end = (await consumer.end_offsets([tp]))[tp]
        records: list[Any] = []
        while len(records) < count and await consumer.position(tp) < end:
            found = await consumer.getmany(tp, timeout_ms=200, max_records=count - len(records))
            records += found.get(tp, [])
        return self._told(tp, records)

    async def bounds(self, reader: str) -> object:
        """Where the partitions begin and end for a reader."""
        tps = [self.tp(partition) for partition in PARTITIONS]
        beginning = await self.readers[reader].beginning_offsets(tps)
        return self._relative(beginning), self._relative(await self.readers[reader].end_offsets(tps))

    async def seek(self, reader: str, partition: int, offset: int) -> object:
        """Stand somewhere up to the end."""
        tp, consumer = self.tp(partition), self.readers[reader]
        consumer.seek(tp, min(self.base[partition] + offset, (await consumer.end_offsets([tp]))[tp]))
        return (await consumer.position(tp)) - self.base[partition]

    async def seek_to(self, reader: str, partition: int, end: str) -> object:
        """Stand at the beginning or the end."""
        tp, consumer = self.tp(partition), self.readers[reader]
        done = await (consumer.seek_to_end(tp) if end == "end" else consumer.seek_to_beginning(tp))
        return done, (await consumer.position(tp)) - self.base[partition]

    async def offset_for_time(self, reader: str, partition: int, time_ms: int) -> object:
        """The first record at or after a time."""
        tp = self.tp(partition)
        found = (await self.readers[reader].offsets_for_times({tp: self.started_ms + time_ms}))[tp]
        if found is None:
            return None
        at_ms = found.timestamp - self.started_ms  # that of a marker is the broker's own
        return found.offset - self.base[partition], at_ms if at_ms < _TIME_SPAN_MS else "now"

    async def commit_offset(self, partition: int, offset: int) -> object:
        """Commit an offset outside any transaction."""
        await self.member.commit({self.tp(partition): self.base[partition] + offset})
        self.written[partition] = self._next_write()
        return "committed"

    async def committed(self, partition: int) -> object:
        """What the group has committed."""
        offset = await self.member.committed(self.tp(partition))
        return None if offset is None else offset - self.base[partition]

    async def delete_records(self, partition: int, offset: int) -> object:
        """Delete what is before an offset."""
        tp = self.tp(partition)
        start = (await self.admin.delete_records({tp: RecordsToDelete(self.base[partition] + offset)}))[tp]
        self.starts[partition] = start
        for reader in self.readers.values():  # what had been fetched may or may not have been older
            reader.seek(tp, await reader.position(tp))
        return start - self.base[partition]

    # -- in between

    def _told(self, tp: TopicPartition, records: list[Any]) -> list[object]:
        base = self.base[tp.partition]
        return [(record.offset - base, record.timestamp - self.started_ms, record.value) for record in records]

    def _relative(self, offsets: dict[TopicPartition, int]) -> dict[int, int]:
        return {tp.partition: offset - self.base[tp.partition] for tp, offset in offsets.items()}

    def _next_write(self) -> int:
        self.writes += 1
        return self.writes

    async def _wait_for_markers(self, ended: _Transaction) -> None:
        for partition in ended.partitions:
            self.ends[partition] += 1
        await self._wait_for_ends({partition: self.ends[partition] for partition in ended.partitions})

    async def _wait_for_ends(self, ends: dict[int, int]) -> None:
        wanted = {self.tp(partition): end for partition, end in ends.items()}

        async def are_there() -> bool:
            return bool(await self.readers["uncommitted"].end_offsets(list(wanted)) == wanted)

        await self._wait_for(are_there)

    async def _has_committed(self, partition: int, offset: int) -> bool:
        found = await self.member.committed(self.tp(partition))
        return bool(found == (None if offset < 0 else offset))

    async def _wait_for(self, condition: Callable[[], Any]) -> None:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + _MARKERS_S
        while not await condition():
            if loop.time() > deadline_s:
                raise TimeoutError("the markers of a transaction did not come")
            await asyncio.sleep(0.001)


# -- both sides


@dataclass
class Report:
    """What was compared."""

    sequences: int = 0
    steps: int = 0
    records: int = 0
    """Records read at the ends of sequences."""
    unsteady: int = 0
    """Sequences that the server played once unlike the double, and then like it."""
    differences: list[str] = field(default_factory=list)


class Pair:
    """A server's stage that is used again and again, and a simulated cluster for each sequence."""

    def __init__(self, server: ServerSide) -> None:
        self.report = Report()
        self._server = server
        self._stage: Stage | None = None

    def compare(self, steps: list[Step]) -> None:
        """Play a sequence on both. Raises Difference."""
        theirs = self._on_server(steps)
        ours = play_on_double(steps)
        self.report.sequences += 1
        self.report.steps += len(steps)
        state: Any = theirs[-1]
        self.report.records += sum(len(found) for found in state[1]["uncommitted"].values())
        if theirs == ours:
            return
        self.close()  # what a sequence with a difference leaves behind is anybody's guess
        if self._on_server(steps) == ours:
            self.report.unsteady += 1
            return
        self.close()
        place = next(place for place, both in enumerate(zip(theirs, ours, strict=True)) if both[0] != both[1])
        raise Difference(_told(theirs, place, ours[place][1]))

    def close(self) -> None:
        """Stop the clients of the server's stage."""
        if self._stage is not None:
            self._server.run(self._stage.close)
            self._stage = None

    def _on_server(self, steps: list[Step]) -> list[Any]:
        async def play() -> list[Any]:
            if self._stage is None:
                self._stage = Stage(Kafka(self._server))
                await self._stage.prepare()
            return await self._stage.play(steps)

        return self._server.run(play, limit_s=_SEQUENCE_S)


def play_on_double(steps: list[Step]) -> list[Any]:
    """The results of a sequence on a new simulated cluster."""
    side = DoubleSide()

    async def play() -> list[Any]:
        stage = Stage(Kafka(side))
        await stage.prepare()
        results = await stage.play(steps)
        await stage.close()
        return results

    try:
        return side.run(play, limit_s=_SEQUENCE_S)
    finally:
        side.close()


def run_sequences(
    server: ServerSide, count: int, seed: int, *, on_sequence: Callable[[Report], None] | None = None
) -> Report:
    """Compare so many generated sequences. The first that differs is made as short as it goes, and told."""
    pair = Pair(server)

    def compare(steps: list[Step]) -> None:
        pair.compare(steps)
        if on_sequence is not None:
            on_sequence(pair.report)

    try:
        difference = first_difference(sequences(), compare, count, seed)
    finally:
        pair.close()
    if difference is not None:
        pair.report.differences.append(str(difference))
    return pair.report


def _told(theirs: list[Any], place: int, ours: object) -> str:
    lines = ["the double and the server differ:"]
    lines += [f"  {step!r} -> {result!r}" for step, result in theirs[:place]]
    step, result = theirs[place]
    lines += [f"  {step!r}", f"    server: {result!r}", f"    double: {ours!r}"]
    return "\n".join(lines)
