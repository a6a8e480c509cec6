"""The balance core of one user partition: the only owner of its users' funds (design 3, 4.2 and 4.7).

Each input, a client's request or what an engine output does to one user's funds, makes exactly one BalanceEvent: the
decision, the answer, and every change of a balance. `apply_*` decides and then folds the event in
(`engine.balance_fold`), so that whoever folds the committed events has the same state without deciding anything.

Why no balance can overflow. Every `available` is at most the total supply of its asset: what is not yet applied of
committed outputs only ever adds to it (credits, releases), and with all of it applied the balances of all users sum to
deposits minus withdrawals. Each of the n user partitions lets that difference grow to INT64_MAX // n, so it fits.
`locked` can exceed the supply for a while (a debit still under way from one engine while the credit of another
has come), but it only grows by locks, and a lock that would not fit is rejected with OVERFLOW.
"""

from typing import Final, NamedTuple

from engine.balance_fold import BalanceFold, Remembered
from engine.corruption import CorruptInputError
from engine.request_rules import demand, is_nameable, named_order
from schema.codes import EntryKind, Outcome, Reason
from schema.events import (
    AnyRequest,
    BalanceEvent,
    Deposit,
    FundUpdate,
    LedgerEntry,
    OrderCommand,
    OrderResponse,
    ValidatedOrder,
    Withdraw,
)
from schema.identifiers import INT64_MAX, NO_ORDER, OrderId, UserId
from schema.topics import Topology
from schema.wire import body_hash, seal

_ACCEPTED: Final = int(Outcome.ACCEPTED)
_REJECTED: Final = int(Outcome.REJECTED)
_NONE: Final = int(Reason.NONE)
_OVERFLOW: Final = int(Reason.OVERFLOW)
_INSUFFICIENT_FUNDS: Final = int(Reason.INSUFFICIENT_FUNDS)
_REQUEST_ID_REUSED: Final = int(Reason.REQUEST_ID_REUSED)
_INVALID_IDENTIFIER: Final = int(Reason.INVALID_IDENTIFIER)
_DEPOSIT: Final = int(EntryKind.DEPOSIT)
_WITHDRAWAL: Final = int(EntryKind.WITHDRAWAL)
_LOCK: Final = int(EntryKind.LOCK)
_NOBODY: Final = UserId(0)
_new_tuple: Final = tuple.__new__


Place = tuple[str, int, int]
"""Topic, partition and offset of an input."""


class Decision(NamedTuple):
    """What one input did. `value` is the event as a record, `hash` its hash; `response` is the event's own.

    `validated` is the record for the engine's partition `event.validated_partition`, None when there is none.
    """

    event: BalanceEvent
    value: bytes
    hash: int
    response: OrderResponse | None
    validated: ValidatedOrder | None


class BalanceCore(BalanceFold):
    """Decides. Not to be used any more after it has raised, nor after a decision of its own was not committed."""

    def __init__(self, topology: Topology, partition: int) -> None:
        super().__init__(topology, partition)
        self._net_deposits_max = INT64_MAX // topology.user_partitions

    @classmethod
    def restore(cls, topology: Topology, partition: int, data: bytes) -> "BalanceCore":
        """A core with the state of a snapshot. Raises ValueError when the bytes are no snapshot of this partition."""
        core = cls(topology, partition)
        core.load(data)
        return core

    def apply_request(self, request: AnyRequest, topic: str, partition: int, offset: int) -> Decision:
        """Decide a client's request, read from that place. Accepts or rejects, and raises nothing."""
        place = (topic, partition, offset)
        body = body_hash(request)
        if not is_nameable(self.topology, self.partition, request):
            # Whoever sent this is no gateway of ours; its clock is not believed either.
            return self._reject(request, place, self.time_ns, body, named_order(request), _INVALID_IDENTIFIER)
        time_ns = self.time_ns
        if request.requested_at_ns > time_ns:
            time_ns = request.requested_at_ns
        self.forget_until(time_ns)
        known = self.remembered.get((request.user_id, request.request_id))
        if known is not None:
            return self._repeat(request, place, time_ns, body, known)
        order_id = named_order(request)
        reason, asset_id, amount = demand(self.topology.symbols, request)
        if reason:
            return self._reject(request, place, time_ns, body, order_id, reason)
        user_id = request.user_id
        kind = type(request)
        is_transfer = kind is Deposit or kind is Withdraw
        entries: tuple[LedgerEntry, ...] = ()
        if amount:
            balance = self.balance(user_id, asset_id)
            if kind is Deposit:
                if self.net_deposits.get(asset_id, 0) + amount > self._net_deposits_max:
                    return self._reject(request, place, time_ns, body, order_id, _OVERFLOW)
                entry_kind, available_delta, locked_delta = _DEPOSIT, amount, 0
            else:
                if balance.available < amount:
                    return self._reject(request, place, time_ns, body, order_id, _INSUFFICIENT_FUNDS)
                if is_transfer:
                    entry_kind, available_delta, locked_delta = _WITHDRAWAL, -amount, 0
                elif balance.locked + amount > INT64_MAX:
                    return self._reject(request, place, time_ns, body, order_id, _OVERFLOW)
                else:
                    entry_kind, available_delta, locked_delta = _LOCK, -amount, amount
            entries = (
                LedgerEntry(
                    asset_id,
                    balance.ledger_seq + 1,
                    entry_kind,
                    order_id,
                    available_delta,
                    locked_delta,
                    balance.available + available_delta,
                    balance.locked + locked_delta,
                ),
            )
        response = OrderResponse(request.request_id, user_id, order_id, _ACCEPTED, _NONE, 0, 0, time_ns, False, body)
        command: OrderCommand | None = None if is_transfer else request  # type: ignore[assignment]
        return self._conclude(place, time_ns, user_id, request, body, response, entries, command, None)

    def _repeat(self, request: AnyRequest, place: Place, time_ns: int, body: int, known: Remembered) -> Decision:
        """The request id was used before: give the first answer again, or refuse another body under the same id."""
        if known.body_hash != body:
            return self._reject(request, place, time_ns, body, NO_ORDER, _REQUEST_ID_REUSED)
        response = OrderResponse(
            request.request_id,
            request.user_id,
            known.order_id,
            known.outcome,
            known.reason,
            known.verdict,
            known.verdict_reason,
            time_ns,
            True,
            body,
        )
        return self._conclude(place, time_ns, request.user_id, request, body, response, (), None, None)

    def _reject(
        self, request: AnyRequest, place: Place, time_ns: int, body: int, order_id: OrderId, reason: int
    ) -> Decision:
        user_id = request.user_id
        response = OrderResponse(request.request_id, user_id, order_id, _REJECTED, reason, 0, 0, time_ns, False, body)
        return self._conclude(place, time_ns, user_id, request, body, response, (), None, None)

    def apply_update(self, update: FundUpdate, topic: str, partition: int, offset: int) -> Decision:
        """Apply what an engine output does to one user's funds, and pass its verdict on to the submitter.

        Raises CorruptInputError, with the state unchanged, when the update does not link to the one before from its
        symbol partition, is for a user of another partition, or would make a balance negative or too large.
        """
        source = update.symbol_partition
        expected = self.links_from_symbols.get(source, 0) + 1
        if update.link_seq != expected:
            raise CorruptInputError(
                f"fund update {update.link_seq} of symbol partition {source} came where {expected} was due"
            )
        user_id = update.user_id
        if self.topology.user_partition(user_id) != self.partition:
            raise CorruptInputError(f"fund update for user {user_id}, who is not of user partition {self.partition}")
        time_ns = max(self.time_ns, update.time_ns)
        entries = self._ledger_entries(update)
        response = None
        if update.request_id:
            response = OrderResponse(
                update.request_id,
                user_id,
                update.order_id,
                _ACCEPTED,
                _NONE,
                update.verdict,
                update.reason,
                time_ns,
                False,
                self._body_judged(update),
            )
        place = (topic, partition, offset)
        return self._conclude(place, time_ns, user_id, None, 0, response, entries, None, update)

    def _body_judged(self, update: FundUpdate) -> int:
        """The hash of the body that an engine's verdict is about; 0 when that request was forgotten meanwhile."""
        known = self.remembered.get((update.user_id, update.request_id))
        # If not of this order, a later request took the name after the first was forgotten.
        return known.body_hash if known is not None and known.order_id == update.order_id else 0

    def _ledger_entries(self, update: FundUpdate) -> tuple[LedgerEntry, ...]:
        user_id = update.user_id
        entries: list[LedgerEntry] = []
        # An output may touch a user's asset more than once; the balances are written by the fold, not here.
        running: dict[int, tuple[int, int, int]] = {}
        for change in update.entries:
            if change.available_delta == 0 and change.locked_delta == 0:
                continue
            asset_id = change.asset_id
            before = running.get(asset_id)
            if before is None:
                balance = self.balance(user_id, asset_id)
                before = (balance.available, balance.locked, balance.ledger_seq)
            available = before[0] + change.available_delta
            locked = before[1] + change.locked_delta
            if not 0 <= available <= INT64_MAX or not 0 <= locked <= INT64_MAX:
                raise CorruptInputError(
                    f"fund update {update.link_seq} of symbol partition {update.symbol_partition} would leave user "
                    f"{user_id} with {available} available and {locked} locked of asset {asset_id}"
                )
            sequence = before[2] + 1
            running[asset_id] = (available, locked, sequence)
            entries.append(
                LedgerEntry(
                    asset_id,
                    sequence,
                    change.kind,
                    change.order_id,
                    change.available_delta,
                    change.locked_delta,
                    available,
                    locked,
                )
            )
        return tuple(entries)

    def apply_undecodable(self, topic: str, partition: int, offset: int) -> Decision:
        """Record that the input at this place was no request: an event that changes nothing but the next offset."""
        place = (topic, partition, offset)
        return self._conclude(place, self.time_ns, _NOBODY, None, 0, None, (), None, None)

    def _conclude(
        self,
        place: Place,
        time_ns: int,
        user_id: UserId,
        request: AnyRequest | None,
        body: int,
        response: OrderResponse | None,
        entries: tuple[LedgerEntry, ...],
        command: OrderCommand | None,
        update: FundUpdate | None,
    ) -> Decision:
        """Write the decision down as an event, fold it in, and hand everything out that has to be sent."""
        sequence = self.sequence + 1
        validated = None
        validated_partition = -1
        validated_link_seq = 0
        if command is not None:
            validated_partition = self.topology.symbol_partition(command.symbol_id)
            validated_link_seq = self.links_to_symbols.get(validated_partition, 0) + 1
            validated = ValidatedOrder(self.partition, sequence, validated_link_seq, command)
        topic, partition, offset = place
        if update is None:
            update_partition, update_output_seq, update_link_seq = -1, 0, 0
        else:
            update_partition = update.symbol_partition
            update_output_seq = update.output_seq
            update_link_seq = update.link_seq
        event = BalanceEvent(
            self.partition,
            sequence,
            self.last_hash,
            topic,
            partition,
            offset,
            time_ns,
            user_id,
            request,
            body,
            response,
            validated_partition,
            validated_link_seq,
            update_partition,
            update_output_seq,
            update_link_seq,
            entries,
        )
        value, event_hash = seal(event)
        self.fold(event, event_hash)
        # A named tuple's own constructor is a Python function, three times as slow.
        return _new_tuple(Decision, (event, value, event_hash, response, validated))
