"""The group coordinators: who is a member of a group, of which generation, and what offsets the group has committed.

Per group a state machine, as in Kafka's classic group protocol:

    EMPTY --join--> PREPARING --all joined, or time is up--> COMPLETING --leader's sync--> STABLE
    any of the last three --a member joins, leaves, expires or is evicted--> PREPARING

Heartbeats are not messages. Whether a member's heartbeats would arrive is a fact about the world: its process lives
and is not paused, its client is beating, the links to the coordinator are whole. The coordinator looks at that once a
second (`heartbeat_check_ns`) and expires a member when it has not been so for the session time-out. What a heartbeat
would tell the member (rebalance, or that it has been expelled) is sent at the instant of its next heartbeat. So an
undisturbed group costs one event a second, and a dead, paused or cut-off member expires as it would.

Offsets are committed under a member's generation, or without one in a transaction: those are pending until its
marker. Static membership (group_instance_id), the consumer protocol of KIP-848 and the expiry of committed offsets
are not modelled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from aiokafka.errors import (
    BrokerResponseError,
    CoordinatorLoadInProgressError,
    IllegalGenerationError,
    InconsistentGroupProtocolError,
    InvalidSessionTimeoutError,
    KafkaError,
    NotCoordinatorError,
    RebalanceInProgressError,
    UnknownMemberIdError,
    UnknownTopicOrPartitionError,
)
from aiokafka.structs import OffsetAndMetadata, TopicPartition

if TYPE_CHECKING:
    from sim.clock import Timer
    from sim.kafka.cluster import KafkaCluster
    from sim.kafka.membership import GroupMembership
    from sim.kafka.transport import Call

EMPTY = "empty"
PREPARING = "preparing-rebalance"
COMPLETING = "completing-rebalance"
STABLE = "stable"

_MS = 1_000_000
_UNREACHABLE_RETRY_NS = 250_000_000

Assignment = dict[str, list[int]]
"""What a member is assigned: partitions by topic."""


class Member:
    """A member as its coordinator knows it. `client` is the double at the other end, for its heartbeats."""

    __slots__ = (
        "assignment",
        "client",
        "heartbeat_ns",
        "id",
        "is_told",
        "join_call",
        "joined_ns",
        "last_heartbeat_ns",
        "protocol",
        "rebalance_timeout_ns",
        "session_timeout_ns",
        "sync_call",
        "topics",
    )

    def __init__(self, member_id: str, client: GroupMembership, now_ns: int) -> None:
        self.id = member_id
        self.client = client
        self.protocol = ""
        self.topics: tuple[str, ...] = ()
        self.session_timeout_ns = 0
        self.rebalance_timeout_ns = 0
        self.heartbeat_ns = client.heartbeat_interval_ns
        self.joined_ns = now_ns
        self.last_heartbeat_ns = now_ns
        self.join_call: Call | None = None
        self.sync_call: Call | None = None
        self.assignment: Assignment = {}
        self.is_told = False

    @property
    def is_joining(self) -> bool:
        """Whether a JoinGroup request of the member is waiting here."""
        return self.join_call is not None and not self.join_call.is_done


class Group:
    """A group: its members of the current generation, and its offsets."""

    __slots__ = (
        "check_timer",
        "generation",
        "leader",
        "members",
        "name",
        "offered",
        "offsets",
        "pending",
        "rebalance_timer",
        "state",
        "write_count",
        "written",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = EMPTY
        self.generation = 0
        self.members: dict[str, Member] = {}
        self.leader: str | None = None
        self.offered: dict[str, None] = {}  # member ids given out whose owners have not joined with them yet
        self.offsets: dict[TopicPartition, OffsetAndMetadata] = {}
        # By producer what its open transaction has sent, each with the number under which it was written.
        self.pending: dict[int, dict[TopicPartition, tuple[int, OffsetAndMetadata]]] = {}
        self.written: dict[TopicPartition, int] = {}  # the numbers of `offsets`
        self.write_count = 0
        self.rebalance_timer: Timer | None = None
        self.check_timer: Timer | None = None


class GroupCoordinators:
    """All groups of a cluster. Which broker coordinates which group is the cluster's affair."""

    def __init__(self, cluster: KafkaCluster) -> None:
        self._cluster = cluster
        self._clock = cluster.clock
        self._groups: dict[str, Group] = {}
        self._member_count = 0
        self._emit_commit: Callable[..., object] = cluster.recorder.emitter("offset_commits")
        self._emit_rebalance: Callable[..., object] = cluster.recorder.emitter("rebalances")

    # -- questions

    def committed(self, group: str, tp: TopicPartition) -> int | None:
        """The committed offset of a group, None when there is none."""
        entry = self._groups.get(group)
        committed = entry.offsets.get(tp) if entry else None
        return committed.offset if committed else None

    def committed_offsets(self) -> Iterator[tuple[str, TopicPartition, int]]:
        """Every group, partition it commits or is subscribed to, and committed offset (0 without one)."""
        for group in self._groups.values():
            places = dict.fromkeys(group.offsets)
            for member in group.members.values():
                for topic in member.topics:
                    places.update(dict.fromkeys(self._cluster.partitions_of(topic)))
            for tp in places:
                committed = group.offsets.get(tp)
                yield group.name, tp, committed.offset if committed else 0

    @property
    def any_rebalancing(self) -> bool:
        """Whether any group is between generations, or has offsets pending in a transaction."""
        return any(group.state in (PREPARING, COMPLETING) or group.pending for group in self._groups.values())

    def is_rebalancing(self, group: str) -> bool:
        """Whether a group is between two generations."""
        entry = self._groups.get(group)
        return entry is not None and entry.state in (PREPARING, COMPLETING)

    def members(self, group: str) -> list[str]:
        """The ids of a group's members."""
        entry = self._groups.get(group)
        return list(entry.members) if entry else []

    def describe(self, group: str) -> tuple[str, int, dict[str, Assignment]]:
        """A group's state, generation and assignment by member."""
        entry = self._group(group)
        return entry.state, entry.generation, {member.id: member.assignment for member in entry.members.values()}

    # -- requests: membership

    def join(
        self,
        call: Call,
        name: str,
        member_id: str,
        session_timeout_ms: int,
        rebalance_timeout_ms: int,
        protocol: str,
        topics: tuple[str, ...],
        client: GroupMembership,
    ) -> None:
        """JoinGroup. Answered with (member id, None) to ask again under that id, or when the generation is complete.

        Then with (member id, (generation, leader id, topics by member for the leader)).
        """
        config = self._cluster.config
        refusal = self._cluster.not_coordinator("group", name, call.broker)
        if refusal is not None:
            call.refuse(refusal)
            return
        group = self._group(name)
        if not config.group_min_session_timeout_ms <= session_timeout_ms <= config.group_max_session_timeout_ms:
            call.refuse(InvalidSessionTimeoutError())
            return
        if any(member.protocol != protocol for member in group.members.values() if member.id != member_id):
            call.refuse(InconsistentGroupProtocolError())
            return
        if not member_id:
            # KIP-394: a member learns its id first and joins with it, so that a lost answer leaves no ghost behind.
            self._member_count += 1
            member_id = f"{client.client_id}-{self._member_count:04d}"
            group.offered[member_id] = None
            call.answer((member_id, None))
            return
        member = group.members.get(member_id)
        if member is None:
            if member_id not in group.offered:
                call.refuse(UnknownMemberIdError())
                return
            del group.offered[member_id]
            member = Member(member_id, client, self._clock.now)
            changed = True
        else:
            changed = member.topics != topics
        member.topics = topics
        member.protocol = protocol
        member.session_timeout_ns = session_timeout_ms * _MS
        member.rebalance_timeout_ns = rebalance_timeout_ms * _MS
        member.last_heartbeat_ns = self._clock._now
        member.join_call = call
        was_empty = not group.members
        group.members[member_id] = member
        if not changed and (group.state == COMPLETING or (group.state == STABLE and member_id != group.leader)):
            self._answer_join(group, member)
            return
        if group.state != PREPARING:
            self._prepare(group, was_empty)
        self._record(group, member_id, "join", "")
        if group.check_timer is None:
            group.check_timer = self._clock.after(config.heartbeat_check_ns, self._check, group)
        if not was_empty or group.rebalance_timer is None:
            self._complete_when_all_joined(group)

    def sync(
        self, call: Call, name: str, generation: int, member_id: str, assignments: dict[str, Assignment] | None
    ) -> None:
        """SyncGroup. The leader brings the assignments; everyone is answered with its own."""
        group, member, refusal = self._member(call, name, member_id, generation)
        if refusal is None and group.state == PREPARING:
            refusal = RebalanceInProgressError()
        if refusal is not None or member is None:
            call.refuse(refusal or UnknownMemberIdError())
            return
        member.last_heartbeat_ns = self._clock._now
        if group.state == STABLE:
            call.answer(member.assignment)
            return
        member.sync_call = call
        if assignments is None:
            return
        group.state = STABLE
        for other in group.members.values():
            other.assignment = assignments.get(other.id, {})
            if other.sync_call is not None:
                other.sync_call.answer_in(self._cluster.storing_ns(call.broker), other.assignment)
                other.sync_call = None

    def leave(self, call: Call, name: str, member_id: str) -> None:
        """LeaveGroup."""
        group, member, refusal = self._member(call, name, member_id, None)
        if refusal is not None or member is None:
            call.refuse(refusal or UnknownMemberIdError())
            return
        self._remove(group, member, "leave")
        call.answer()

    def force_rebalance(self, name: str) -> bool:
        """Rebalance a group that is stable; False when it is not."""
        group = self._groups.get(name)
        if group is None or group.state != STABLE or not group.members:
            return False
        self._prepare(group, was_empty=False)
        return True

    def evict(self, name: str, member_id: str | None) -> str | None:
        """Expel a member without telling it; it finds out at its next heartbeat or commit. Returns its id."""
        group = self._groups.get(name)
        if group is None or not group.members:
            return None
        chosen = member_id if member_id is not None else self._cluster.client_stream.choice(list(group.members))
        member = group.members.get(chosen)
        if member is None:
            return None
        self._remove(group, member, "expire")
        self._tell(group, member)
        return chosen

    def members_of(self, name: str) -> list[str]:
        """The ids of a group's members, in the order in which they came."""
        group = self._groups.get(name)
        return list(group.members) if group is not None else []

    def has_pending(self, name: str, producer_id: int) -> bool:
        """Whether the group keeps offsets of that producer's open transaction."""
        group = self._groups.get(name)
        return group is not None and producer_id in group.pending

    def member_of(self, name: str, host: str) -> str | None:
        """The id of the member of a group that runs on that host; None when there is none."""
        group = self._groups.get(name)
        members = group.members.values() if group is not None else ()
        return next((each.id for each in members if each.client.transport.host == host), None)

    def coordinator_moved(self, name: str) -> None:
        """Those who wait at the old coordinator are sent to the new one, which starts every session anew."""
        group = self._groups.get(name)
        if group is None:
            return
        for member in group.members.values():
            member.last_heartbeat_ns = self._clock._now
            for call in (member.join_call, member.sync_call):
                if call is not None:
                    call.refuse(NotCoordinatorError())
            member.join_call = member.sync_call = None

    # -- requests: offsets

    def commit_offsets(
        self, call: Call, name: str, generation: int, member_id: str, offsets: dict[TopicPartition, OffsetAndMetadata]
    ) -> None:
        """OffsetCommit: all or none. A generation below 0 is a client that is no member: only into an empty group."""
        group = self._group(name)
        refusal: KafkaError | None = self._cluster.not_coordinator("group", name, call.broker)
        if refusal is None and self._cluster.faults.refuses_commit(name):
            refusal = CoordinatorLoadInProgressError()
        if refusal is None and (generation >= 0 or group.members):
            member = group.members.get(member_id)
            if member is None:
                refusal = UnknownMemberIdError()
            elif generation != group.generation:
                refusal = IllegalGenerationError()
            elif group.state == COMPLETING:
                refusal = RebalanceInProgressError()
            else:
                member.last_heartbeat_ns = self._clock._now
        if refusal is None and any(tp not in self._cluster.partitions for tp in offsets):
            refusal = UnknownTopicOrPartitionError()
        host = self._cluster.broker_names[call.broker]
        outcome = "ok" if refusal is None else type(refusal).__name__
        for tp, committed in offsets.items():
            self._emit_commit(
                self._clock._now,
                host,
                name,
                tp.topic,
                tp.partition,
                committed.offset,
                member_id,
                generation,
                False,
                outcome,
            )
        if refusal is not None:
            call.refuse(refusal)
            return
        group.write_count += 1
        for tp, committed in offsets.items():
            group.offsets[tp] = committed
            group.written[tp] = group.write_count
        call.answer_in(self._cluster.storing_ns(call.broker))

    def fetch_offsets(self, call: Call, name: str, tps: list[TopicPartition]) -> None:
        """OffsetFetch: what is committed.

        Offsets pending in a transaction are not waited for (aiokafka does not ask).
        """
        refusal = self._cluster.not_coordinator("group", name, call.broker)
        if refusal is not None:
            call.refuse(refusal)
            return
        offsets = self._group(name).offsets
        call.answer({tp: offsets[tp] for tp in tps if tp in offsets})

    def note_transactional_commit(
        self,
        host: str,
        name: str,
        offsets: dict[TopicPartition, OffsetAndMetadata],
        refusal: BrokerResponseError | None,
    ) -> None:
        """Record what became of offsets sent to a transaction. ok: pending, not yet committed."""
        outcome = "ok" if refusal is None else type(refusal).__name__
        for tp, committed in offsets.items():
            self._emit_commit(
                self._clock._now, host, name, tp.topic, tp.partition, committed.offset, "", -1, True, outcome
            )

    def add_pending(self, name: str, producer_id: int, offsets: dict[TopicPartition, OffsetAndMetadata]) -> None:
        """Keep the offsets of a producer's transaction until it ends."""
        group = self._group(name)
        group.write_count += 1
        pending = group.pending.setdefault(producer_id, {})
        for tp, committed in offsets.items():
            pending[tp] = group.write_count, committed

    def end_pending(self, name: str, producer_id: int, commit: bool) -> None:
        """The transaction's marker has arrived at the group: its offsets count now, or never.

        One that was written before what is committed does not replace it, as in Kafka: the group's own log decides.
        """
        group = self._group(name)
        offsets = group.pending.pop(producer_id, None)
        if commit and offsets:
            for tp, (number, committed) in offsets.items():
                if number > group.written.get(tp, 0):
                    group.offsets[tp] = committed
                    group.written[tp] = number

    # -- the state machine

    def _group(self, name: str) -> Group:
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = Group(name)
        return group

    def _member(
        self, call: Call, name: str, member_id: str, generation: int | None
    ) -> tuple[Group, Member | None, KafkaError | None]:
        group = self._group(name)
        refusal: KafkaError | None = self._cluster.not_coordinator("group", name, call.broker)
        member = group.members.get(member_id)
        if refusal is None and member is None:
            refusal = UnknownMemberIdError()
        if refusal is None and generation is not None and generation != group.generation:
            refusal = IllegalGenerationError()
        return group, member, refusal

    def _prepare(self, group: Group, was_empty: bool) -> None:
        """Begin a rebalance: wait for all members to join again."""
        if group.state == COMPLETING:
            for member in group.members.values():
                if member.sync_call is not None:
                    member.sync_call.refuse(RebalanceInProgressError())
                    member.sync_call = None
        group.state = PREPARING
        if group.rebalance_timer is not None:
            group.rebalance_timer.cancel()
        if was_empty:
            wait_ns = self._cluster.config.group_initial_rebalance_delay_ms * _MS
        else:
            wait_ns = max((member.rebalance_timeout_ns for member in group.members.values()), default=0)
        group.rebalance_timer = self._clock.after(wait_ns, self._joining_is_over, group)
        for member in group.members.values():
            if not member.is_joining:
                self._tell(group, member)

    def _complete_when_all_joined(self, group: Group) -> None:
        if (
            group.state == PREPARING
            and group.generation
            and all(member.is_joining for member in group.members.values())
        ):
            self._joining_is_over(group)

    def _joining_is_over(self, group: Group) -> None:
        if group.rebalance_timer is not None:
            group.rebalance_timer.cancel()
            group.rebalance_timer = None
        if group.state != PREPARING:
            return
        for member in list(group.members.values()):
            if not member.is_joining:
                del group.members[member.id]
                self._record(group, member.id, "expire", "")
                self._tell(group, member)
        group.generation += 1
        if not group.members:
            group.state = EMPTY
            group.leader = None
            return
        group.state = COMPLETING
        if group.leader not in group.members:
            group.leader = next(iter(group.members))
        for member in group.members.values():
            member.assignment = {}
            self._answer_join(group, member)

    def _answer_join(self, group: Group, member: Member) -> None:
        call, member.join_call = member.join_call, None
        member.last_heartbeat_ns = member.joined_ns = self._clock._now
        if call is None:
            return
        topics = {other.id: other.topics for other in group.members.values()} if member.id == group.leader else {}
        call.answer((member.id, (group.generation, group.leader, topics)))

    def _remove(self, group: Group, member: Member, action: str) -> None:
        del group.members[member.id]
        self._record(group, member.id, action, "")
        if group.leader == member.id:
            group.leader = next(iter(group.members), None)
        if group.state == PREPARING:
            if group.members:
                self._complete_when_all_joined(group)
        elif group.members:
            self._prepare(group, was_empty=False)
        else:
            group.generation += 1
            group.state = EMPTY

    def _record(self, group: Group, member_id: str, action: str, assignment: str) -> None:
        broker = self._cluster.coordinator("group", group.name)
        host = self._cluster.broker_names[broker] if broker is not None else "controller"
        self._emit_rebalance(self._clock._now, host, group.name, group.generation, member_id, action, assignment)

    # -- heartbeats

    def _check(self, group: Group) -> None:
        """Note whose heartbeats arrive, and expire those whose have not for too long."""
        group.check_timer = None
        now = self._clock._now
        broker = self._cluster.coordinator("group", group.name)
        serving = broker is not None and self._cluster.not_coordinator("group", group.name, broker) is None
        for member in list(group.members.values()):
            client = member.client
            if not serving or broker is None or member.is_joining:
                member.last_heartbeat_ns = now
            elif client.is_beating and self._cluster.is_reachable(client.transport, broker):
                member.last_heartbeat_ns = now
                if client.is_idle_too_long:
                    client.transport.incarnation.enter(client.leave_for_idleness)
            elif now - member.last_heartbeat_ns > member.session_timeout_ns:
                self._remove(group, member, "expire")
                self._tell(group, member)
        if group.members:
            group.check_timer = self._clock.after(self._cluster.config.heartbeat_check_ns, self._check, group)

    def _tell(self, group: Group, member: Member) -> None:
        """Have the member's next heartbeat answered with what it does not know yet."""
        if member.is_told:
            return
        member.is_told = True
        passed = (self._clock.now - member.joined_ns) // member.heartbeat_ns
        self._clock.at(member.joined_ns + (passed + 1) * member.heartbeat_ns, self._heartbeat, group, member)

    def _heartbeat(self, group: Group, member: Member) -> None:
        member.is_told = False
        client = member.client
        if not client.is_member(member.id) or not client.transport.incarnation.alive:
            return
        broker = self._cluster.coordinator("group", group.name)
        if (
            broker is None
            or self._cluster.not_coordinator("group", group.name, broker) is not None
            or not self._cluster.is_reachable(client.transport, broker)
        ):
            member.is_told = True
            self._clock.after(_UNREACHABLE_RETRY_NS, self._heartbeat, group, member)
            return
        error: type[BrokerResponseError] | None = None
        if group.members.get(member.id) is not member:
            error = UnknownMemberIdError
        elif group.state == PREPARING and not member.is_joining:
            error = RebalanceInProgressError
        if error is not None:
            source = self._cluster.broker_names[broker]
            transport = client.transport
            sent = self._cluster.network.send(
                source, transport.host, transport.incarnation.enter, client.heartbeat_answered, member.id, error
            )
            if not sent:
                self._tell(group, member)
