"""The invariant about the balance core's decisions: each is the one that the rules give."""

from collections.abc import Callable, Iterator
from itertools import islice
from operator import itemgetter
from typing import Any, Final

import pandas as pd
from msgspec.structs import astuple

from schema import wire
from schema.codes import EntryKind, Outcome, Reason
from schema.events import (
    AnyRequest,
    CancelOrder,
    Deposit,
    PlaceOrder,
    ReduceOrder,
    ReplaceOrder,
    Withdraw,
)
from schema.identifiers import INT64_MAX
from schema.topics import FUND_UPDATES, ORDER_REQUESTS
from traces.core_reference import NOBODY_ANSWERED, NOT_SENT, CoreReference, Due, has_too_long_an_id
from traces.derived import COMMAND_COLUMNS
from traces.matching_rows import array
from traces.trace import Trace
from traces.verdicts import Findings, Verdict, invariant

_EVENT_COLUMNS: Final = (
    "partition", "sequence", "t", "input_topic", "input_partition", "input_offset", "update_partition",
    "update_output_seq", "update_link_seq", "entries", "reason", "time_ns", "event_user_id", "outcome",
    "answered_order_id", "is_repeat", "validated_partition", "validated_link_seq",
)  # fmt: skip
"""The last seven are the first of `Due`."""
_ENTRY_COLUMNS: Final = (
    "asset_id", "kind", "order_id", "available_delta", "locked_delta", "available_after", "locked_after",
)  # fmt: skip
_FOUND_COLUMNS: Final = (
    "partition", "sequence", "input_topic", "input_offset", "user_id", "request_id", "command", "differs",
)  # fmt: skip
_ROWS_TOGETHER: Final = 4_096
_INT32_MAX: Final = 2**31 - 1
_COMMANDS: Final[dict[str, type[AnyRequest]]] = {
    "place": PlaceOrder, "cancel": CancelOrder, "reduce": ReduceOrder, "replace": ReplaceOrder, "deposit": Deposit,
    "withdraw": Withdraw,
}  # fmt: skip
_NEW_ORDERS: Final = (PlaceOrder, ReplaceOrder)
_FIELDS_OF: Final = {
    command: itemgetter(*[len(_EVENT_COLUMNS) + COMMAND_COLUMNS.index(field) for field in kind.__struct_fields__])
    for command, kind in _COMMANDS.items()
}
"""Takes a command's fields out of a row of the columns of events and commands."""


@invariant("core-matches-reference")
def core_matches_reference(trace: Trace) -> Verdict:
    """An independent, naive reference of the balance core, fed the records of order.requests and fund.updates in the
    order in which balance.events say that they were taken, decides the same: outcome, reason, order and whether it is a
    repeat; every entry with the balances after it; what goes on to the engine; event time.

    Only partitions whose log begins at event 1 can be judged, and up to the first event that is missing. An input that
    the log does not hold any more is believed to be what its event says.
    """
    judge = _Judge(trace)
    entries = _rows(trace.ledger_entries, *_ENTRY_COLUMNS)
    reference: CoreReference | None = None
    at, last = -1, 0
    for event in _rows(trace.balance_events, *_EVENT_COLUMNS, *COMMAND_COLUMNS):
        partition, sequence, moved = event[0], event[1], list(islice(entries, event[9]))
        if partition != at:
            at, last = partition, 0
            reference = CoreReference(trace.topology, partition)
            judge.begin()
        if sequence != last + 1:
            reference = None
        last = sequence
        if reference is not None:
            judge.judge(reference, event, moved)
    return judge.verdict


class _Judge:
    """Compares one event after the other with what the reference says of its input."""

    def __init__(self, trace: Trace) -> None:
        self._requests = _Inputs(trace, ORDER_REQUESTS, wire.REQUEST.decode)
        self._updates = _Inputs(trace, FUND_UPDATES, wire.FUND_UPDATE.decode)
        self._found: dict[str, list[tuple[object, ...]]] = {}
        self._checked = 0
        self._taken: dict[str, int] = {}

    def begin(self) -> None:
        """The next events are of another partition."""
        self._taken = {}

    @property
    def verdict(self) -> Verdict:
        """The verdict over all events so far."""
        findings = Findings()
        findings.checked(self._checked)
        for what, rows in self._found.items():
            findings.add(what, pd.DataFrame(rows, columns=list(_FOUND_COLUMNS)))
        return findings.verdict

    def judge(self, reference: CoreReference, event: tuple[Any, ...], moved: list[tuple[Any, ...]]) -> None:
        """Judge an event; `moved` are its entries."""
        self._check_place(event)
        decided = Due._make((*event[11:18], (event[10],), moved, False))
        request = None
        if event[6] >= 0:
            due = self._due_to_update(reference, event)
        else:
            request, due = self._due_to_request(reference, event, decided)
        if due is not None:
            self._checked += 1
            if due[:7] != decided[:7] or event[10] not in due.reasons or moved != due.entries:
                self._say(_in_short(due, decided, is_update=event[6] >= 0), event, _in_full(due, decided))
        reference.go_on(due or decided, decided, request)

    def _check_place(self, event: tuple[Any, ...]) -> None:
        topic, input_partition, input_offset = event[3:6]
        if (topic, input_partition) != (FUND_UPDATES if event[6] >= 0 else ORDER_REQUESTS, event[0]):
            self._say("input is not of this partition", event, f"of {topic}, partition {input_partition}")
        elif input_offset <= self._taken.get(topic, -1):
            self._say("input was taken out of order", event, f"after {self._taken[topic]}")
        self._taken[topic] = input_offset

    def _due_to_update(self, reference: CoreReference, event: tuple[Any, ...]) -> Due | None:
        """What is due for a fund update; None where what was decided has to be believed."""
        t, update = self._updates.at(event[4], event[5])
        if update is not None and (update.symbol_partition, update.output_seq, update.link_seq) == event[6:9]:
            return reference.on_update(update)
        if t is not None and t <= event[2]:
            self._say("input is another than the event says", event, f"{update}")
        return None

    def _due_to_request(
        self, reference: CoreReference, event: tuple[Any, ...], decided: Due
    ) -> tuple[AnyRequest | None, Due | None]:
        """The request of an event, None if it is about a record that is none; and what is due for it."""
        named = _request_of(event)
        t, request = self._requests.at(event[4], event[5])
        if t is None or (t > event[2] and request != named):
            # The log holds it no more, or another in its place, as after an unclean leader change.
            request = named
        if named is None:
            if request is not None and not _may_be_none(request):
                self._say("input is another than the event says", event, f"{request}")
            return None, reference.on_no_request()
        if request != named:
            if request is not None and not _fits(request):
                # The event's columns do not hold it, and the contract only says that it has no effect.
                if decided.outcome != Outcome.REJECTED or decided.entries or decided.sent_to != NOT_SENT:
                    self._say("request beyond every column had an effect", event, f"{request}")
                return None, None
            self._say("input is another than the event says", event, f"{request}")
        return named, reference.on_request(named)

    def _say(self, what: str, event: tuple[Any, ...], differs: str) -> None:
        partition, sequence, _, topic, _, offset = event[:6]
        command, request_id = event[len(_EVENT_COLUMNS) : len(_EVENT_COLUMNS) + 2]
        self._found.setdefault(what, []).append(
            (partition, sequence, topic, offset, event[12], request_id, command, differs)
        )


class _Inputs:
    """The records of an input topic, read once from end to end, as the events ask for them."""

    def __init__(self, trace: Trace, topic: str, decode: Callable[[bytes | None], Any]) -> None:
        self._decode = decode
        self._records = self._read(trace, topic)
        self._next = next(self._records, None)

    def at(self, partition: int, offset: int) -> tuple[int | None, Any]:
        """When the record there was appended, None if there is none; and what it says, None if it does not decode."""
        place = partition, offset
        while self._next is not None and self._next[0] < place:
            self._next = next(self._records, None)
        if self._next is None or self._next[0] != place:
            return None, None
        _, t, value = self._next
        try:
            return t, self._decode(value)
        except wire.WireError:
            return t, None

    @staticmethod
    def _read(trace: Trace, topic: str) -> Iterator[tuple[tuple[int, int], int, bytes | None]]:
        for batch in trace.decoded.log.batches(topic, "appended_t", "value"):
            partition, offset, t, value = (column.to_pylist() for column in batch.columns)
            yield from zip(zip(partition, offset, strict=True), t, value, strict=True)


def _rows(frame: pd.DataFrame, *columns: str) -> Iterator[tuple[Any, ...]]:
    """The rows of a frame as tuples, some at a time: as Python objects they are many times as large."""
    for first in range(0, len(frame), _ROWS_TOGETHER):
        part = frame.iloc[first : first + _ROWS_TOGETHER]
        yield from zip(*[array(part, name).tolist() for name in columns], strict=True)


def _request_of(event: tuple[Any, ...]) -> AnyRequest | None:
    """The request that an event says it is about, None if it names none; what fits no column is shown as its bound."""
    command = event[len(_EVENT_COLUMNS)]
    return _COMMANDS[command](*_FIELDS_OF[command](event)) if command else None


def _fits(request: AnyRequest) -> bool:
    """Whether all numbers fit the columns of the store."""
    if max(astuple(request)[1:]) > INT64_MAX:
        return False
    if not isinstance(request, _NEW_ORDERS):
        return True
    order_type = request.order_type if isinstance(request, PlaceOrder) else 0
    return all(-_INT32_MAX <= code <= _INT32_MAX for code in (request.side, request.time_in_force, order_type))


def _may_be_none(request: AnyRequest) -> bool:
    """Whether a record that decodes may all the same go to the dead letters: it is larger than any request is."""
    return has_too_long_an_id(request) or not _fits(request)


def _in_short(due: Due, decided: Due, *, is_update: bool) -> str:
    """What is wrong with a decision that is not the one due."""
    if is_update:
        return "fund update was applied otherwise than the reference applies it"
    if due.is_repeat:
        return "repeat was not answered as the request was at first"
    if Reason.REQUEST_ID_REUSED in due.reasons:
        return "request id used for another body was not refused"
    if due.outcome == Outcome.ACCEPTED and decided.outcome == Outcome.REJECTED:
        return "rejected what the reference accepts"
    if due.outcome == Outcome.REJECTED and decided.outcome == Outcome.ACCEPTED:
        return "accepted what the reference rejects"
    return "decided otherwise than the reference decides"


def _in_full(due: Due, decided: Due) -> str:
    """In what a decision differs from the one due."""
    differs = []
    if due.outcome != decided.outcome:
        differs.append(f"{_outcome(due.outcome)} expected, {_outcome(decided.outcome)} found")
    if decided.reasons[0] not in due.reasons:
        expected = " or ".join(dict.fromkeys(map(_reason, due.reasons)))
        differs.append(f"reason {expected} expected, {_reason(decided.reasons[0])} found")
    for name in ("order_id", "is_repeat", "time_ns", "user_id", "sent_to", "link_seq"):
        mine, theirs = getattr(due, name), getattr(decided, name)
        if mine != theirs:
            differs.append(f"{name} {mine} expected, {theirs} found")
    if due.entries != decided.entries:
        differs.append(f"entries {_entries(due)} expected, {_entries(decided)} found")
    return ", ".join(differs)


def _outcome(code: int) -> str:
    if code == NOBODY_ANSWERED:
        return "no answer"
    return Outcome(code).name if code in set(Outcome) else str(code)


def _reason(code: int) -> str:
    return Reason(code).name if code in set(Reason) else str(code)


def _entries(due: Due) -> str:
    return "; ".join(
        f"{EntryKind(kind).name if kind in set(EntryKind) else kind} of asset {asset_id} for order {order_id} "
        f"(available {available_delta:+} to {available}, locked {locked_delta:+} to {locked})"
        for asset_id, kind, order_id, available_delta, locked_delta, available, locked in due.entries
    ) or "none"  # fmt: skip
