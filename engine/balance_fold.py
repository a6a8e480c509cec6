"""The balance core's state for one user partition: nothing but a fold over balance.events (design 4.2.3).

The live core decides and then folds its own event in through the very same code that recovery uses, so the state is by
construction what the log says. Events are checked as they are folded: they must link, and every balance must be the
one before plus its entry, never negative and never past a signed 64-bit column.

Requests are remembered for 24 hours of event time (design 4.7). They are remembered in event order and event time never
goes back, so the oldest stands at the head of a queue and forgetting is amortised over the events.
"""

from collections import deque
from typing import Final

import msgspec

from engine.corruption import CorruptInputError
from engine.request_rules import is_nameable
from schema.codes import EntryKind, Reason
from schema.events import AnyRequest, BalanceEvent
from schema.identifiers import INT64_MAX, AssetId, OrderId, UserId
from schema.topics import Topology
from schema.wire import GENESIS_HASH

REQUEST_MEMORY_NS: Final = 24 * 3600 * 1_000_000_000
"""How long a request is remembered, in event time."""

_REQUEST_ID_REUSED: Final = int(Reason.REQUEST_ID_REUSED)
_INVALID_IDENTIFIER: Final = int(Reason.INVALID_IDENTIFIER)
_TRANSFERS: Final = (int(EntryKind.DEPOSIT), int(EntryKind.WITHDRAWAL))


class Balance(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a user owns of an asset, in atoms, and how many ledger entries made it so."""

    available: int = 0
    locked: int = 0
    ledger_seq: int = 0


_NO_BALANCE: Final = Balance()


class Remembered(msgspec.Struct, array_like=True, gc=False):
    """A request that was answered: its body's hash, the first answer, and the engine's verdict once it is known."""

    body_hash: int
    order_id: OrderId
    outcome: int
    reason: int
    answered_at_ns: int
    verdict: int = 0
    verdict_reason: int = 0


class _Snapshot(msgspec.Struct, array_like=True, gc=False):
    """The wire form of the state; every list is sorted or in event order, so equal states give equal bytes."""

    partition: int
    user_partitions: int
    sequence: int
    last_hash: int
    time_ns: int
    next_offsets: list[tuple[str, int]]
    links_to_symbols: list[tuple[int, int]]
    links_from_symbols: list[tuple[int, int]]
    net_deposits: list[tuple[AssetId, int]]
    balances: list[tuple[UserId, AssetId, Balance]]
    remembered: list[tuple[UserId, str, Remembered]]


_encode_snapshot = msgspec.msgpack.Encoder().encode
_decode_snapshot = msgspec.msgpack.Decoder(_Snapshot).decode


class BalanceFold:
    """The state of one user partition after `sequence` balance events.

    `next_offsets` holds, for each input topic, one past the last offset named in an event; a topic that is missing has
    not been read yet. `net_deposits` is deposits minus withdrawals per asset, over all users of this partition.
    """

    def __init__(self, topology: Topology, partition: int) -> None:
        self.topology = topology
        self.partition = partition
        self.sequence = 0
        self.last_hash = GENESIS_HASH
        self.time_ns = 0
        self.next_offsets: dict[str, int] = {}
        self.links_to_symbols: dict[int, int] = {}
        self.links_from_symbols: dict[int, int] = {}
        self.net_deposits: dict[AssetId, int] = {}
        self.balances: dict[tuple[UserId, AssetId], Balance] = {}
        self.remembered: dict[tuple[UserId, str], Remembered] = {}
        self._oldest_first: deque[tuple[int, tuple[UserId, str]]] = deque()

    def balance(self, user_id: UserId, asset_id: AssetId) -> Balance:
        """The user's balance of an asset; all zero if there never was an entry."""
        return self.balances.get((user_id, asset_id), _NO_BALANCE)

    def fold(self, event: BalanceEvent, event_hash: int) -> None:
        """Apply a committed event. Raises CorruptInputError when it cannot follow the events so far."""
        if event.sequence != self.sequence + 1:
            raise CorruptInputError(f"balance event {event.sequence} follows {self.sequence}")
        if event.prev_hash != self.last_hash:
            raise CorruptInputError(
                f"balance event {event.sequence} links to hash {event.prev_hash}, the one before has {self.last_hash}"
            )
        if event.user_partition != self.partition:
            raise CorruptInputError(
                f"balance event {event.sequence} is of user partition {event.user_partition}, not {self.partition}"
            )
        time_ns = event.time_ns
        if time_ns < self.time_ns:
            raise CorruptInputError(f"balance event {event.sequence} goes back in time")
        if self._oldest_first and self._oldest_first[0][0] <= time_ns - REQUEST_MEMORY_NS:
            self.forget_until(time_ns)
        for entry in event.entries:
            asset_id = entry.asset_id
            key = (event.user_id, asset_id)
            balance = self.balances.get(key, _NO_BALANCE)
            available = entry.available_after
            locked = entry.locked_after
            ledger_seq = entry.ledger_seq
            if (
                available != balance.available + entry.available_delta
                or locked != balance.locked + entry.locked_delta
                or ledger_seq != balance.ledger_seq + 1
                or not 0 <= available <= INT64_MAX
                or not 0 <= locked <= INT64_MAX
            ):
                raise CorruptInputError(f"balance event {event.sequence}: {entry} does not follow from {balance}")
            # Making a struct takes half as long as setting three of its fields.
            self.balances[key] = Balance(available, locked, ledger_seq)
            if entry.kind in _TRANSFERS:
                self.net_deposits[asset_id] = self.net_deposits.get(asset_id, 0) + entry.available_delta
        request = event.request
        response = event.response
        if request is not None:
            if response is not None and not response.is_repeat:
                self._remember(request, event)
            if event.validated_link_seq:
                self.links_to_symbols[event.validated_partition] = event.validated_link_seq
        elif event.update_link_seq:
            self.links_from_symbols[event.update_partition] = event.update_link_seq
            if response is not None:
                remembered = self.remembered.get((event.user_id, response.request_id))
                # If not of this order, a later request took the name after the first was forgotten.
                if remembered is not None and remembered.order_id == response.order_id:
                    remembered.verdict = response.verdict
                    remembered.verdict_reason = response.verdict_reason
        self.next_offsets[event.input_topic] = event.input_offset + 1
        self.time_ns = time_ns
        self.sequence = event.sequence
        self.last_hash = event_hash

    def forget_until(self, time_ns: int) -> None:
        """Forget the requests whose memory ends at or before `time_ns`."""
        oldest_first = self._oldest_first
        while oldest_first and oldest_first[0][0] <= time_ns - REQUEST_MEMORY_NS:
            del self.remembered[oldest_first.popleft()[1]]

    def _remember(self, request: AnyRequest, event: BalanceEvent) -> None:
        response = event.response
        assert response is not None
        reason = response.reason
        if reason == _REQUEST_ID_REUSED:
            return
        if reason == _INVALID_IDENTIFIER and not is_nameable(self.topology, self.partition, request):
            return
        key = (request.user_id, request.request_id)
        self.remembered[key] = Remembered(
            event.body_hash, response.order_id, response.outcome, reason, response.time_ns
        )
        self._oldest_first.append((event.time_ns, key))

    def snapshot(self) -> bytes:
        """The whole state; equal states give equal bytes."""
        return _encode_snapshot(
            _Snapshot(
                self.partition,
                self.topology.user_partitions,
                self.sequence,
                self.last_hash,
                self.time_ns,
                sorted(self.next_offsets.items()),
                sorted(self.links_to_symbols.items()),
                sorted(self.links_from_symbols.items()),
                sorted(self.net_deposits.items()),
                [(user, asset, balance) for (user, asset), balance in sorted(self.balances.items(), key=_by_key)],
                [(*key, self.remembered[key]) for _, key in self._oldest_first],
            )
        )

    def load(self, data: bytes) -> None:
        """Take the state of a snapshot of the same partition. Raises ValueError when it is another's, or is none."""
        try:
            state = _decode_snapshot(data)
        except msgspec.DecodeError as error:
            raise ValueError(f"not a balance snapshot: {error}") from None
        if (state.partition, state.user_partitions) != (self.partition, self.topology.user_partitions):
            raise ValueError(
                f"a snapshot of user partition {state.partition} of {state.user_partitions}, "
                f"not of {self.partition} of {self.topology.user_partitions}"
            )
        self.sequence = state.sequence
        self.last_hash = state.last_hash
        self.time_ns = state.time_ns
        self.next_offsets = dict(state.next_offsets)
        self.links_to_symbols = dict(state.links_to_symbols)
        self.links_from_symbols = dict(state.links_from_symbols)
        self.net_deposits = dict(state.net_deposits)
        self.balances = {(user, asset): balance for user, asset, balance in state.balances}
        self.remembered = {(user, request_id): answer for user, request_id, answer in state.remembered}
        self._oldest_first = deque(
            (answer.answered_at_ns, (user, request_id)) for user, request_id, answer in state.remembered
        )


def _by_key(item: tuple[tuple[UserId, AssetId], Balance]) -> tuple[UserId, AssetId]:
    return item[0]
