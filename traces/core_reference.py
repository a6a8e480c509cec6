"""The reference balance core: what the rules of funds and requests say, written as plainly as possible (design sections
4, 4.2 and 4.7).

It shares nothing with the balance core but the contract: two dictionaries of balances and one of remembered requests,
whose bodies are compared as they are. Of each input it says what is due; told what was decided, it goes on from there,
so that one wrong decision is told once and not again in everything that follows from it.

Rules beyond the text of the design:
- The order of an answer is the new one of a place or replace, the one named by a cancel or reduce, and none for a
  deposit, a withdrawal or a request id used for another body.
- Where several reasons speak against a request, any of them may be given.
- A request that cannot be remembered under its user and request id is rejected, is not remembered, and its clock is
  not believed: no or too long a request id, a time before 1970, or a user who is impossible or of another partition.
- A limit order is bounded on both sides, whichever it locks: its base and its quote amount fit 64 bits.
- In each of n user partitions, deposits minus withdrawals of an asset stay within INT64_MAX // n: no balance can grow
  over 64 bits by what happens in other partitions. A lock that the user's locked balance has no room for is rejected.
- A market order is immediate-or-cancel or fill-or-kill, without a price; a buy with a limit to spend, a sell without.
- What moves nothing has no entry.
"""

from typing import Final, NamedTuple, TypeAlias

from schema.codes import EntryKind, OrderType, Outcome, Reason, Side, TimeInForce
from schema.events import (
    AnyRequest,
    CancelOrder,
    Deposit,
    FundUpdate,
    PlaceOrder,
    ReduceOrder,
    ReplaceOrder,
    Withdraw,
)
from schema.identifiers import INT64_MAX, MAX_REQUEST_ID_BYTES
from schema.topics import Topology

REMEMBERED_NS: Final = 24 * 3600 * 10**9
"""So long a request is remembered, in event time (design 4.7)."""

NOBODY_ANSWERED: Final = -1
"""`outcome` where no answer is due."""
NOT_SENT: Final = -1
"""`sent_to` where nothing goes on to the engine."""

# Plain integers, as events carry them; looking an enum member up costs as much as the rest of a small decision.
_BUY, _SELL = (int(each) for each in Side)
_MARKET, _LIMIT = (int(each) for each in OrderType)
_GTC, _IOC, _FOK, _POST_ONLY = (int(each) for each in TimeInForce)
_ACCEPTED, _REJECTED = (int(each) for each in Outcome)
_DEPOSIT, _WITHDRAWAL, _LOCK = int(EntryKind.DEPOSIT), int(EntryKind.WITHDRAWAL), int(EntryKind.LOCK)
_NONE: Final = (int(Reason.NONE),)
# A union in `isinstance` is made anew each time.
_TRANSFERS: Final = (Deposit, Withdraw)

Entry: TypeAlias = tuple[int, int, int, int, int, int, int]
"""A change of a balance: asset_id, kind, order_id, available_delta, locked_delta, available_after, locked_after."""


class Due(NamedTuple):
    """What an input has to do. `reasons` are those that may be given, `sent_to` the engine's partition that gets the
    command as number `link_seq` of this partition's; `is_first` says that the answer has to be remembered."""

    time_ns: int
    user_id: int
    outcome: int
    order_id: int
    is_repeat: int
    sent_to: int
    link_seq: int
    reasons: tuple[int, ...]
    entries: list[Entry]
    is_first: bool


class _Answered(NamedTuple):
    """A remembered request: when it was answered, what it was, and the answer."""

    time_ns: int
    request: AnyRequest
    outcome: int
    reason: int
    order_id: int


class CoreReference:
    """One user partition: its users' funds and the requests of their last 24 hours."""

    def __init__(self, topology: Topology, partition: int) -> None:
        self._topology = topology
        self._partition = partition
        self._symbols = topology.symbols.symbols
        self._assets = topology.symbols.assets
        self._available: dict[tuple[int, int], int] = {}
        self._locked: dict[tuple[int, int], int] = {}
        self._supply: dict[int, int] = {}
        self._answered: dict[tuple[int, str], _Answered] = {}
        self._sent: dict[int, int] = {}
        self._time_ns = 0

    def on_request(self, request: AnyRequest) -> Due:
        """What is due for a client's request."""
        user_id, order_id = request.user_id, _order_of(request)
        if not self._is_nameable(request):
            return self._rejection(self._time_ns, user_id, order_id, (Reason.INVALID_IDENTIFIER,), is_first=False)
        time_ns = max(self._time_ns, request.requested_at_ns)
        first = self._answered.get((user_id, request.request_id))
        if first is not None and time_ns - first.time_ns < REMEMBERED_NS:
            if _body(first.request) != _body(request):
                return self._rejection(time_ns, user_id, 0, (Reason.REQUEST_ID_REUSED,), is_first=False)
            return Due(time_ns, user_id, first.outcome, first.order_id, 1, NOT_SENT, 0, (first.reason,), [], False)
        objections, asset_id, atoms = self._judged(request)
        entries: list[Entry] = []
        if not objections and atoms:
            objections, entries = self._moved(request, asset_id, atoms)
        if objections:
            return self._rejection(time_ns, user_id, order_id, tuple(objections), is_first=True)
        sent_to, link_seq = NOT_SENT, 0
        if not isinstance(request, _TRANSFERS):
            sent_to = self._topology.symbol_partition(request.symbol_id)
            link_seq = self._sent.get(sent_to, 0) + 1
        return Due(time_ns, user_id, _ACCEPTED, order_id, 0, sent_to, link_seq, _NONE, entries, True)

    def on_update(self, update: FundUpdate) -> Due:
        """What is due for what an output does to one user's funds; the submitter is told the engine's verdict."""
        user_id = update.user_id
        entries: list[Entry] = []
        after: dict[int, tuple[int, int]] = {}
        for change in update.entries:
            asset_id, gained, held = change.asset_id, change.available_delta, change.locked_delta
            if gained == 0 and held == 0:
                continue
            account = user_id, asset_id
            available, locked = after.get(asset_id) or (self._available.get(account, 0), self._locked.get(account, 0))
            after[asset_id] = available, locked = available + gained, locked + held
            entries.append((asset_id, change.kind, change.order_id, gained, held, available, locked))
        outcome, answered = (_ACCEPTED, int(update.order_id)) if update.request_id else (NOBODY_ANSWERED, 0)
        time_ns = max(self._time_ns, update.time_ns)
        return Due(time_ns, user_id, outcome, answered, 0, NOT_SENT, 0, _NONE, entries, False)

    def on_no_request(self) -> Due:
        """What is due for a record that is no request: nothing but its dead letter."""
        return Due(self._time_ns, 0, NOBODY_ANSWERED, 0, 0, NOT_SENT, 0, _NONE, [], False)

    def go_on(self, due: Due, decided: Due, request: AnyRequest | None) -> None:
        """Take over what was decided, right or wrong: balances, time, and the answer that was given."""
        self._time_ns = decided.time_ns
        for asset_id, kind, _, available_delta, _, available, locked in decided.entries:
            self._available[decided.user_id, asset_id] = available
            self._locked[decided.user_id, asset_id] = locked
            if kind in (_DEPOSIT, _WITHDRAWAL):
                self._supply[asset_id] = self._supply.get(asset_id, 0) + available_delta
        if decided.sent_to != NOT_SENT:
            self._sent[decided.sent_to] = decided.link_seq
        if due.is_first and request is not None:
            self._answered[request.user_id, request.request_id] = _Answered(
                decided.time_ns, request, decided.outcome, decided.reasons[0], decided.order_id
            )

    def _rejection(self, time_ns: int, user_id: int, order_id: int, reasons: tuple[int, ...], *, is_first: bool) -> Due:
        return Due(time_ns, user_id, _REJECTED, order_id, 0, NOT_SENT, 0, reasons, [], is_first)

    def _is_nameable(self, request: AnyRequest) -> bool:
        """Whether the user and request id can stand for the request in this partition's memory."""
        return (
            request.request_id != ""
            and not has_too_long_an_id(request)
            and request.user_id > 0
            and self._topology.user_partition(request.user_id) == self._partition
            and request.requested_at_ns >= 0
        )

    def _judged(self, request: AnyRequest) -> tuple[list[int], int, int]:
        """What speaks against a request whatever its user owns; if nothing, the asset and the atoms that it is about:
        those it locks, pays in or takes out."""
        if isinstance(request, _TRANSFERS):
            objections: list[int] = []
            if request.asset_id not in self._assets:
                objections.append(Reason.UNKNOWN_ASSET)
            if request.amount <= 0:
                objections.append(Reason.INVALID_AMOUNT)
            return objections, request.asset_id, request.amount
        objections = []
        if request.symbol_id not in self._symbols:
            objections.append(Reason.UNKNOWN_SYMBOL)
        if request.order_id <= 0:
            objections.append(Reason.INVALID_IDENTIFIER)
        if isinstance(request, CancelOrder):
            return objections, 0, 0
        if request.quantity <= 0:
            objections.append(Reason.INVALID_QUANTITY)
        if isinstance(request, ReduceOrder):
            return objections, 0, 0
        if isinstance(request, ReplaceOrder):
            if request.replaced_order_id <= 0 or request.replaced_order_id == request.order_id:
                objections.append(Reason.INVALID_IDENTIFIER)
            order_type, max_spend = _LIMIT, 0
        else:
            order_type, max_spend = request.order_type, request.max_spend
        side, price, quantity = request.side, request.price, request.quantity
        if side not in (_BUY, _SELL) or request.time_in_force not in (_GTC, _IOC, _FOK, _POST_ONLY):
            objections.append(Reason.INVALID_COMBINATION)
        if order_type == _LIMIT:
            if max_spend != 0:
                objections.append(Reason.INVALID_COMBINATION)
            if price <= 0:
                objections.append(Reason.INVALID_PRICE)
        elif order_type == _MARKET:
            if request.time_in_force not in (_IOC, _FOK) or price != 0 or (side == _BUY) != (max_spend != 0):
                objections.append(Reason.INVALID_COMBINATION)
            if max_spend < 0:
                objections.append(Reason.INVALID_AMOUNT)
        else:
            objections.append(Reason.INVALID_COMBINATION)
        symbol = self._symbols.get(request.symbol_id)
        if symbol is None:
            return objections, 0, 0
        base_atoms = quantity * symbol.lot_atoms
        quote_atoms = price * quantity * symbol.tick_lot_atoms if order_type == _LIMIT else max_spend
        if base_atoms > INT64_MAX or quote_atoms > INT64_MAX:
            objections.append(Reason.OVERFLOW)
        if side == _BUY:
            return objections, symbol.quote.asset_id, quote_atoms
        return objections, symbol.base.asset_id, base_atoms

    def _moved(self, request: AnyRequest, asset_id: int, atoms: int) -> tuple[list[int], list[Entry]]:
        """What the user's funds and the limits of 64 bits have against a request; if nothing, the entry it makes."""
        account = request.user_id, asset_id
        available, locked = self._available.get(account, 0), self._locked.get(account, 0)
        if isinstance(request, Deposit):
            too_much = self._supply.get(asset_id, 0) + atoms > INT64_MAX // self._topology.user_partitions
            objections: list[int] = [Reason.OVERFLOW] if too_much else []
            return objections, [(asset_id, _DEPOSIT, 0, atoms, 0, available + atoms, locked)]
        objections = [Reason.INSUFFICIENT_FUNDS] if atoms > available else []
        if isinstance(request, Withdraw):
            return objections, [(asset_id, _WITHDRAWAL, 0, -atoms, 0, available - atoms, locked)]
        if locked + atoms > INT64_MAX:
            objections.append(Reason.OVERFLOW)
        return objections, [(asset_id, _LOCK, request.order_id, -atoms, atoms, available - atoms, locked + atoms)]


def has_too_long_an_id(request: AnyRequest) -> bool:
    """Whether the request id is longer than any may be."""
    return len(request.request_id.encode("utf-8", "surrogatepass")) > MAX_REQUEST_ID_BYTES


def _order_of(request: AnyRequest) -> int:
    """The order that an answer names."""
    return 0 if isinstance(request, _TRANSFERS) else request.order_id


def _body(request: AnyRequest) -> tuple[object, ...]:
    """What the client wrote: all but the time, and the id of a new order, which a gateway gives."""
    if isinstance(request, PlaceOrder):
        return (
            "place", request.symbol_id, request.side, request.order_type, request.time_in_force, request.price,
            request.quantity, request.max_spend,
        )  # fmt: skip
    if isinstance(request, ReplaceOrder):
        return (
            "replace", request.symbol_id, request.replaced_order_id, request.side, request.time_in_force,
            request.price, request.quantity,
        )  # fmt: skip
    if isinstance(request, CancelOrder):
        return "cancel", request.symbol_id, request.order_id
    if isinstance(request, ReduceOrder):
        return "reduce", request.symbol_id, request.order_id, request.quantity
    return type(request).__name__, request.asset_id, request.amount
