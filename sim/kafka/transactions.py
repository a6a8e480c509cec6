"""The transaction coordinators: who may write under a transactional id, and how its transactions end.

Per transactional id a state machine, as in Kafka's TransactionCoordinator:

    EMPTY --add--> ONGOING --end--> PREPARE_COMMIT or PREPARE_ABORT --markers written--> COMPLETE --add--> ONGOING ...

- `init` raises the epoch, so an older producer is fenced; it aborts what was open first, and until the markers of
  that are written it answers `ConcurrentTransactions`, as every request does that comes between the decision and its
  markers.
- `end_transaction` is answered when the decision is stored. The markers follow: one request per leader, after a
  delay, each visible once replicated there. So a commit returns before everybody can read what it committed.
- A transaction older than its producer's time-out is aborted by the coordinator under a raised epoch, which fences
  it.
- Offsets sent to a transaction are pending in their group until the marker arrives there.

The coordinator's own log is replicated and its requests are answered after a drawn replication time; a decision, once
taken, survives every crash. Requests of protocol version 0, which are those aiokafka sends: no member or generation
comes with transactional offsets, and an old epoch is `InvalidProducerEpoch`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from aiokafka.errors import (
    ConcurrentTransactions,
    CoordinatorLoadInProgressError,
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    InvalidTransactionTimeout,
    InvalidTxnState,
    KafkaError,
    UnknownTopicOrPartitionError,
)
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from sim.kafka.log import ABORT_MARKER, COMMIT_MARKER, Batch
from sim.kafka.partition import Partition

if TYPE_CHECKING:
    from sim.clock import Timer
    from sim.kafka.cluster import KafkaCluster
    from sim.kafka.transport import Call

EMPTY = "empty"
ONGOING = "ongoing"
PREPARE_COMMIT = "prepare-commit"
PREPARE_ABORT = "prepare-abort"
COMPLETE_COMMIT = "complete-commit"
COMPLETE_ABORT = "complete-abort"

_ENDING = (PREPARE_COMMIT, PREPARE_ABORT)
EPOCH_MAX = 32_766
_MARKER_RETRY_NS = 100_000_000
_MS = 1_000_000


class TransactionalId:
    """What the coordinator knows of one transactional id."""

    __slots__ = (
        "deadline_ns",
        "epoch",
        "groups",
        "name",
        "owner",
        "partitions",
        "producer_id",
        "state",
        "timeout_ms",
        "timer",
        "unmarked",
    )

    def __init__(self, name: str, producer_id: int, timeout_ms: int) -> None:
        self.name = name
        self.producer_id = producer_id
        self.epoch = -1
        self.timeout_ms = timeout_ms
        self.state = EMPTY
        self.owner = ""
        """The host that was given the newest epoch."""
        self.partitions: dict[TopicPartition, None] = {}
        self.groups: dict[str, None] = {}
        self.deadline_ns = 0
        self.timer: Timer | None = None
        # What still lacks its marker, or has it not yet replicated: partitions and groups.
        self.unmarked: dict[TopicPartition | str, None] = {}

    @property
    def is_ending(self) -> bool:
        """Whether the decision is taken and its markers are not all written."""
        return self.state in _ENDING


class TransactionCoordinators:
    """All transactional ids of a cluster. Which broker coordinates which id is the cluster's affair."""

    def __init__(self, cluster: KafkaCluster) -> None:
        self._cluster = cluster
        self._clock = cluster.clock
        self._stream = cluster.randomness.stream("kafka/transactions")
        self._ids: dict[str, TransactionalId] = {}
        self._stalled: list[tuple[TransactionalId, list[TopicPartition | str]]] = []
        self._next_producer_id = 1000
        self._emit: Callable[..., object] = cluster.recorder.emitter("transactions")

    # -- questions

    def is_open(self, transactional_id: str) -> bool:
        """Whether the id has a transaction that has not been completed."""
        entry = self._ids.get(transactional_id)
        return entry is not None and (entry.state == ONGOING or entry.is_ending)

    def is_ending(self, transactional_id: str) -> bool:
        """Whether the id has a transaction that is decided and whose markers are not all written."""
        entry = self._ids.get(transactional_id)
        return entry is not None and entry.is_ending

    def owner(self, transactional_id: str) -> str:
        """The host whose producer was given the newest epoch of the id; empty for an id that nobody has used."""
        entry = self._ids.get(transactional_id)
        return entry.owner if entry is not None else ""

    def waiting_for(self, group: str) -> list[str]:
        """The ids whose ongoing transaction includes the group's offsets, and which the group has not taken yet."""
        return [
            name
            for name, entry in self._ids.items()
            if entry.state == ONGOING
            and group in entry.groups
            and not self._cluster.groups.has_pending(group, entry.producer_id)
        ]

    @property
    def any_open(self) -> bool:
        """Whether any transaction has not been completed."""
        return any(entry.state == ONGOING or entry.is_ending for entry in self._ids.values())

    def is_writing(self, transactional_id: str, batch: Batch, tp: TopicPartition) -> bool:
        """Whether that producer has an ongoing transaction which covers the partition."""
        entry = self._ids.get(transactional_id)
        return (
            entry is not None
            and entry.state == ONGOING
            and entry.producer_id == batch.producer_id
            and entry.epoch == batch.producer_epoch
            and tp in entry.partitions
        )

    # -- requests

    def init(self, call: Call, transactional_id: str | None, timeout_ms: int) -> None:
        """Give out a producer id and epoch; a transactional id's older producers are fenced from here on."""
        if transactional_id is None:
            self._next_producer_id += 1
            self._answer(call, (self._next_producer_id, 0))
            return
        refusal = self._cluster.not_coordinator("transaction", transactional_id, call.broker)
        if refusal is None and not 0 < timeout_ms <= self._cluster.config.transaction_max_timeout_ms:
            refusal = InvalidTransactionTimeout()
        if refusal is not None:
            call.refuse(refusal)
            return
        entry = self._ids.get(transactional_id)
        if entry is None:
            self._next_producer_id += 1
            entry = self._ids[transactional_id] = TransactionalId(transactional_id, self._next_producer_id, timeout_ms)
        if entry.state == ONGOING:
            self._fence(entry, "fenced")
        if entry.is_ending:
            call.refuse(ConcurrentTransactions())
            return
        entry.timeout_ms = timeout_ms
        entry.owner = call.transport.host
        self._raise_epoch(entry)
        entry.state = EMPTY
        entry.partitions.clear()
        entry.groups.clear()
        self._record(entry, "init", "ok")
        self._answer(call, (entry.producer_id, entry.epoch))

    def add_partitions(
        self, call: Call, transactional_id: str, producer_id: int, epoch: int, tps: list[TopicPartition]
    ) -> None:
        """Make partitions part of the transaction; the first ones begin it."""
        refusal, entry = self._admit(call, transactional_id, producer_id, epoch)
        if refusal is None:
            for tp in tps:
                if tp not in self._cluster.partitions:
                    refusal = UnknownTopicOrPartitionError()
        if refusal is not None or entry is None:
            call.refuse(refusal or InvalidProducerIdMapping())
            return
        self._begin(entry)
        entry.partitions.update(dict.fromkeys(tps))
        self._answer(call, None)

    def add_offsets(self, call: Call, transactional_id: str, producer_id: int, epoch: int, group: str) -> None:
        """Make a group's offsets part of the transaction."""
        refusal, entry = self._admit(call, transactional_id, producer_id, epoch)
        if refusal is not None or entry is None:
            call.refuse(refusal or InvalidProducerIdMapping())
            return
        self._begin(entry)
        entry.groups[group] = None
        self._answer(call, None)

    def commit_transaction_offsets(
        self,
        call: Call,
        transactional_id: str,
        producer_id: int,
        epoch: int,
        group: str,
        offsets: dict[TopicPartition, OffsetAndMetadata],
    ) -> None:
        """Keep offsets pending in a group until the transaction ends. Sent to the group's coordinator."""
        refusal: KafkaError | None = self._cluster.not_coordinator("group", group, call.broker)
        if refusal is None and self._cluster.faults.refuses_commit(group):
            refusal = CoordinatorLoadInProgressError()
        entry = self._ids.get(transactional_id)
        if refusal is None and (entry is None or entry.producer_id != producer_id):
            refusal = InvalidProducerIdMapping()
        elif refusal is None and entry is not None and epoch < entry.epoch:
            refusal = InvalidProducerEpoch()
        elif refusal is None and entry is not None and (entry.state != ONGOING or group not in entry.groups):
            refusal = InvalidTxnState()
        self._cluster.groups.note_transactional_commit(self._cluster.broker_names[call.broker], group, offsets, refusal)
        if refusal is not None:
            call.refuse(refusal)
            return
        self._cluster.groups.add_pending(group, producer_id, offsets)
        self._answer(call, None)

    def end_transaction(self, call: Call, transactional_id: str, producer_id: int, epoch: int, commit: bool) -> None:
        """Decide a transaction. Answered when the decision is stored; its markers are written later."""
        refusal = self._cluster.not_coordinator("transaction", transactional_id, call.broker)
        entry = self._ids.get(transactional_id)
        if refusal is None:
            refusal = self._mismatch(entry, producer_id, epoch)
        if refusal is not None or entry is None:
            if isinstance(refusal, InvalidProducerEpoch) and entry is not None:
                self._emit(
                    self._clock._now, call.transport.host, transactional_id, producer_id, epoch, "fenced", "refused"
                )
            call.refuse(refusal or InvalidProducerIdMapping())
            return
        state = entry.state
        if state == ONGOING:
            self._decide(entry, PREPARE_COMMIT if commit else PREPARE_ABORT)
            self._record(entry, "commit" if commit else "abort", "ok")
            self._answer(call, None)
        elif state == (COMPLETE_COMMIT if commit else COMPLETE_ABORT):
            self._answer(call, None)  # asked again: the first answer was lost
        elif state == (PREPARE_COMMIT if commit else PREPARE_ABORT):
            call.refuse(ConcurrentTransactions())
        else:
            call.refuse(InvalidTxnState())

    def time_out(self, transactional_id: str) -> bool:
        """Abort an ongoing transaction under a raised epoch; False when there is none."""
        entry = self._ids.get(transactional_id)
        if entry is None or entry.state != ONGOING:
            return False
        self._fence(entry, "timeout")
        return True

    # -- inside

    def _answer(self, call: Call, result: object) -> None:
        """Answer when what the coordinator stored is replicated."""
        call.answer_in(self._cluster.storing_ns(call.broker), result)

    def _admit(
        self, call: Call, transactional_id: str, producer_id: int, epoch: int
    ) -> tuple[KafkaError | None, TransactionalId | None]:
        refusal = self._cluster.not_coordinator("transaction", transactional_id, call.broker)
        entry = self._ids.get(transactional_id)
        if refusal is None:
            refusal = self._mismatch(entry, producer_id, epoch)
        if refusal is None and entry is not None and entry.state in _ENDING:
            refusal = ConcurrentTransactions()
        return refusal, entry

    @staticmethod
    def _mismatch(entry: TransactionalId | None, producer_id: int, epoch: int) -> KafkaError | None:
        if entry is None or entry.producer_id != producer_id:
            return InvalidProducerIdMapping()
        if entry.epoch != epoch:
            return InvalidProducerEpoch()
        return None

    def _begin(self, entry: TransactionalId) -> None:
        if entry.state == ONGOING:
            return
        entry.state = ONGOING
        entry.partitions.clear()
        entry.groups.clear()
        entry.deadline_ns = self._clock._now + entry.timeout_ms * _MS
        # One timer per id that follows the deadline, not one per transaction.
        if entry.timer is None:
            entry.timer = self._clock.at(self._next_cleanup(entry.deadline_ns), self._check_timeout, entry)
        self._record(entry, "begin", "ok")

    def _next_cleanup(self, instant_ns: int) -> int:
        interval_ns = self._cluster.config.transaction_cleanup_interval_ms * _MS
        return (instant_ns // interval_ns + 1) * interval_ns

    def _check_timeout(self, entry: TransactionalId) -> None:
        entry.timer = None
        if entry.state != ONGOING:
            return
        if entry.deadline_ns < self._clock._now:
            self._fence(entry, "timeout")
        else:
            entry.timer = self._clock.at(self._next_cleanup(entry.deadline_ns), self._check_timeout, entry)

    def _raise_epoch(self, entry: TransactionalId) -> None:
        if entry.epoch >= EPOCH_MAX:
            self._next_producer_id += 1
            entry.producer_id = self._next_producer_id
            entry.epoch = 0
        else:
            entry.epoch += 1

    def _fence(self, entry: TransactionalId, action: str) -> None:
        """Abort what is open under a higher epoch than its producer has."""
        self._record(entry, action, "aborted")
        entry.epoch += 1
        self._decide(entry, PREPARE_ABORT)

    def _decide(self, entry: TransactionalId, state: str) -> None:
        entry.state = state
        entry.unmarked = {**entry.partitions, **entry.groups}
        if not entry.unmarked:
            self._complete(entry)
            return
        least, most = self._cluster.config.marker_delay_ns
        at_ns = self._clock._now + self._stream.between(least, most)
        self._clock.post(at_ns, self._send_markers, (entry, list(entry.unmarked)))

    def _send_markers(self, entry: TransactionalId, places: list[TopicPartition | str]) -> None:
        """Send the markers, one request to each leader; what has no leader now is tried again."""
        if self._cluster.faults.markers_are_stalled:
            self._stalled.append((entry, places))
            return
        now = self._clock._now
        coordinator = self._cluster.coordinator("transaction", entry.name)
        if coordinator is None:
            self._clock.after(_MARKER_RETRY_NS, self._send_markers, entry, places)
            return
        by_broker: dict[int, list[TopicPartition | str]] = {}
        postponed: list[TopicPartition | str] = []
        partitions = self._cluster.partitions
        for place in places:
            broker = self._cluster.coordinator("group", place) if place.__class__ is str else partitions[place].leader
            if broker is None:
                postponed.append(place)
            elif broker in by_broker:
                by_broker[broker].append(place)
            else:
                by_broker[broker] = [place]
        names = self._cluster.broker_names
        for broker, group in by_broker.items():
            delay_ns = self._cluster.network.delay_ns(names[coordinator], names[broker])
            if delay_ns is None:
                postponed.extend(group)
            else:
                self._clock.post(now + delay_ns, self._write_markers, (entry, broker, group))
        if postponed:
            self._clock.after(_MARKER_RETRY_NS, self._send_markers, entry, postponed)

    def send_stalled(self) -> None:
        """Send the markers that were held up."""
        stalled, self._stalled = self._stalled, []
        for entry, places in stalled:
            self._send_markers(entry, places)

    def _write_markers(self, entry: TransactionalId, broker: int, places: list[TopicPartition | str]) -> None:
        if not self._cluster.is_up(broker):
            self._clock.after(_MARKER_RETRY_NS, self._send_markers, entry, places)
            return
        now = self._clock._now
        control = COMMIT_MARKER if entry.state == PREPARE_COMMIT else ABORT_MARKER
        moved: list[TopicPartition | str] = []
        written: list[tuple[Partition, int, int]] = []
        ready_ns = now
        for place in places:
            if isinstance(place, str):
                self._cluster.groups.end_pending(place, entry.producer_id, control == COMMIT_MARKER)
                entry.unmarked.pop(place, None)
                continue
            partition = self._cluster.partitions[place]
            if partition.leader != broker:
                moved.append(place)
                continue
            marker = Batch((), 78, entry.producer_id, entry.epoch, transactional=True, control=control)
            at_ns = self._cluster.requests.append_marker(partition, marker)
            written.append((partition, partition.epoch, partition.log.end_offset))
            if at_ns is None:
                at_ns = now + _MARKER_RETRY_NS
            if at_ns > ready_ns:
                ready_ns = at_ns
        if written or not entry.unmarked:
            self._clock.post(ready_ns, self._marked, (entry, written))
        if moved:
            self._clock.after(_MARKER_RETRY_NS, self._send_markers, entry, moved)

    def _marked(self, entry: TransactionalId, written: list[tuple[Partition, int, int]]) -> None:
        """The markers should be replicated by now: a lost one is written again, a late one waited for."""
        late: list[tuple[Partition, int, int]] = []
        lost: list[TopicPartition | str] = []
        for partition, epoch, end in written:
            if partition.leader is not None and partition.epoch == epoch:
                self._cluster.requests.advance(partition, end)
            if partition.log.high_watermark >= end and not partition.log.has_open_transaction(entry.producer_id):
                entry.unmarked.pop(partition.tp, None)
            elif partition.epoch != epoch and (
                partition.log.end_offset < end or partition.log.has_open_transaction(entry.producer_id)
            ):
                lost.append(partition.tp)
            else:
                late.append((partition, epoch, end))
        if late:
            self._clock.after(_MARKER_RETRY_NS, self._marked, entry, late)
        if lost:
            self._send_markers(entry, lost)
        if not entry.unmarked and entry.is_ending:
            self._complete(entry)

    def _complete(self, entry: TransactionalId) -> None:
        entry.state = COMPLETE_COMMIT if entry.state == PREPARE_COMMIT else COMPLETE_ABORT
        entry.partitions.clear()
        entry.groups.clear()

    def _record(self, entry: TransactionalId, action: str, outcome: str) -> None:
        broker = self._cluster.coordinator("transaction", entry.name)
        host = self._cluster.broker_names[broker] if broker is not None else "controller"
        self._emit(self._clock._now, host, entry.name, entry.producer_id, entry.epoch, action, outcome)
