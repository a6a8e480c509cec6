"""Invariants about the way of a request: from a client through every record to the engine, and the answer back.

The other invariants judge what was made of the records that are there. These two compare the records with each other,
and with what clients wrote and were told: a service that passes on something else than it was given is seen here.

Records name each other: by the place of an input, by a balance event's sequence, by an output's sequence. Where a
fault that breaks a stated assumption has altered a topic (`altered_topics`), what now stands at a place may not be what
was read there, and the comparisons that go by places of that topic are not made.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa

from schema.codes import OrderType, Outcome, Reason, Side, TimeInForce
from schema.identifiers import MAX_REQUEST_ID_BYTES
from schema.symbols import SymbolTable
from schema.topics import (
    BALANCE_EVENTS,
    ENGINE_OUTPUTS,
    FUND_UPDATES,
    ORDER_REQUESTS,
    ORDER_RESPONSES,
    VALIDATED_ORDERS,
)
from traces.core_reference import REMEMBERED_NS
from traces.derived import COMMAND_COLUMNS
from traces.frames import frame_of
from traces.invariants.lifecycle import ANSWER_COLUMNS
from traces.matching_rows import (
    Ints,
    Mask,
    array,
    codes,
    compare,
    compare_numbered,
    first_places,
    ints,
    is_any,
    is_first,
    is_in,
    renamed,
    rows,
    texts,
)
from traces.trace import Trace
from traces.verdicts import Findings, Verdict, invariant

REQUEST: Final = ("user_id", "request_id")
BODY: Final = (
    "command", "symbol_id", "target_order_id", "side", "order_type", "time_in_force", "price", "quantity", "max_spend",
    "asset_id", "amount",
)  # fmt: skip
"""What a client says in a request. `target_order_id` is the order to cancel, reduce or replace; everything that a kind
of request does not have is 0."""
_ASKED_COLUMNS: Final = (*REQUEST, "attempt", "order_id", *(name for name in BODY if name != "target_order_id"))
_DECISION_COLUMNS: Final = (
    "partition", "sequence", "time_ns", "outcome", "reason", "answered_order_id", "is_repeat", "body_hash",
    "answered_body_hash",
)  # fmt: skip
_INPUT: Final = ("input_partition", "input_offset")
_SOURCE: Final = ("source_partition", "source_sequence")
_OUTPUT: Final = ("symbol_partition", "output_seq", "user_id")
_ALTERING_FAULTS: Final = ("corrupt-record", "lost-record", "unclean-leader-change", "retention-passed")
_RAW: Final = "raw"
"""The command of a request that a client means to be refused: its text is anything, its other columns say nothing."""
_INVALID: Final = "invalid"
_PRINTABLE_ID: Final = re.compile(rf"[!-~]{{1,{MAX_REQUEST_ID_BYTES}}}", re.ASCII)


@invariant("requests-carried")
def requests_carried(trace: Trace) -> Verdict:
    """What a client asked for is what every record on its way says.

    A record of order.requests is what some client asked for under that id, field by field. The balance core decides the
    record at the place that it names, the record of validated.orders is what it accepted, and the engine's output is of
    the record at its input's place. A record of fund.updates is what the output says, and is applied as it is.
    """
    found = Findings()
    altered = altered_topics(trace)
    events = trace.balance_events
    _check_asked(found, trace.once(Way))
    if ORDER_REQUESTS not in altered:
        requests = renamed(trace.requests, partition="input_partition", offset="input_offset")
        _check_step(
            found,
            (
                "balance event is not of the request at its input's place",
                "balance event is of a request that is not there",
            ),
            requests,
            rows(events, (array(events, "command") != "") & is_any(events, "input_topic", ORDER_REQUESTS)),
            _INPUT,
            COMMAND_COLUMNS,
            ("partition", "sequence", *_INPUT, *REQUEST),
            is_whole=_is_whole(trace, ORDER_REQUESTS),
        )
    if BALANCE_EVENTS not in altered:
        _check_step(
            found,
            ("record of validated.orders is not what was accepted", "record of validated.orders was never accepted"),
            _accepted(events),
            trace.validated,
            _SOURCE,
            ("partition", "link_seq", *COMMAND_COLUMNS),
            ("partition", "offset", *_SOURCE, *REQUEST),
            is_whole=trace.begins_at_one,
        )
    if VALIDATED_ORDERS not in altered:
        outputs = trace.outputs
        _check_step(
            found,
            ("output is not of the record at its input's place", "output is of a record that is not there"),
            renamed(trace.validated, partition="input_partition", offset="input_offset"),
            rows(outputs, is_any(outputs, "input_topic", VALIDATED_ORDERS)),
            _INPUT,
            (*_SOURCE, "link_seq", *COMMAND_COLUMNS),
            ("partition", "output_seq", *_INPUT, *REQUEST),
            is_whole=_is_whole(trace, VALIDATED_ORDERS),
        )
    _check_fund_updates(trace, found, altered)
    return found.verdict


@invariant("answers-told")
def answers_told(trace: Trace) -> Verdict:
    """What a client is told is what was decided.

    The responses in a partition are the answers of its balance events, one by one, and each names the body that it
    answers; an engine's verdict is passed on to the submitter as the output gives it, and to nobody else. A request is
    answered alike however often it is asked. A client's answer stands in a decision on that very body, and with its
    verdict in a response to it. Only what is malformed is told *invalid*, and nobody has decided it.
    """
    found = Findings()
    altered = altered_topics(trace)
    way = trace.once(Way)
    found.where(
        "request was decided and not answered",
        way.decided,
        ints(way.decided, "outcome") < 0,
        "partition", "sequence", *REQUEST,
    )  # fmt: skip
    verdicts = _verdicts_due(trace) if ENGINE_OUTPUTS not in altered else None
    if verdicts is not None:
        _check_verdicts(found, verdicts)
    if not altered & {BALANCE_EVENTS, ORDER_RESPONSES}:
        _check_responses(trace, found, verdicts)
    if BALANCE_EVENTS not in altered:
        _check_bodies(found, way)
        if verdicts is not None and VALIDATED_ORDERS not in altered:
            _check_bodies_of_verdicts(trace, found, verdicts)
    if BALANCE_EVENTS not in altered and trace.begins_at_one:
        _check_repeats(found, way)
        _check_told(found, way, has_all_responses=_is_whole(trace, ORDER_RESPONSES) and ORDER_RESPONSES not in altered)
    _check_invalid(trace, found, way)
    return found.verdict


class Way:
    """The tables that both invariants look at, with equal numbers for what is about the same.

    `asked` are the requests that clients sent, `sent` the records of order.requests, `decided` the balance events with
    a request, `answers` what clients were told; the first three have the columns of BODY. `..._request` numbers the
    request (user and request id) that a row is about, `..._body` also what it says; `answers_body` is that of the
    request that was answered, -1 where there is none or more than one. `responses_body` is that of a decision on a body
    with the hash that the response names, -1 where there is none.
    """

    def __init__(self, trace: Trace) -> None:
        events = trace.balance_events
        self.answers = trace.events("client_answers", *ANSWER_COLUMNS)
        self.responses = trace.responses
        asked = with_body(trace.events("client_requests", *_ASKED_COLUMNS), None, "attempt")
        sent = with_body(trace.requests, None, "partition", "offset")
        decided = with_body(events, array(events, "command") != "", *_DECISION_COLUMNS)
        numbers, self.requests = codes(REQUEST, asked, sent, decided, self.answers, self.responses)
        self.asked_request, self.sent_request, self.decided_request = numbers[:3]
        self.answers_request, self.responses_request = numbers[3:]
        for frame, number in zip((asked, sent, decided), numbers, strict=False):
            frame["request"] = number
        self.asked, self.sent, self.decided = asked, sent, decided
        (self.asked_body, self.sent_body, self.decided_body), self.bodies = codes(
            ("request", *BODY), asked, sent, decided
        )
        self.asked_at = self._answered_at()
        # -1 takes the value behind the last.
        self.answers_body = np.append(self.asked_body, -1)[self.asked_at]
        responses = frame_of({"request": self.responses_request, "body_hash": ints(self.responses, "body_hash")})
        (hashed, named), size = codes(("request", "body_hash"), decided, responses)
        self.responses_body = np.append(self.decided_body, -1)[first_places(hashed, size)[named]]

    def _answered_at(self) -> Ints:
        """For each answer the place of the request in `asked` that it answers."""
        if not len(self.asked):
            return np.full(len(self.answers), -1, dtype=np.int64)
        answers = self.answers.assign(request=self.answers_request)
        (mine, theirs), size = codes(("request", "attempt", "command"), answers, self.asked)
        at = first_places(theirs, size)
        at[np.bincount(theirs, minlength=size) != 1] = -1
        return at[mine]


def with_body(requests: pd.DataFrame, selected: Mask | None, *also: str) -> pd.DataFrame:
    """Requests of any table, those selected: what names them, the columns of BODY, and `also` others."""
    chosen = slice(None) if selected is None else selected

    def column(name: str) -> Ints:
        return ints(requests, name)[chosen]

    command = array(requests, "command")[chosen]
    places, replaces, reduces = command == "place", command == "replace", command == "reduce"
    transfers = (command == "deposit") | (command == "withdraw")
    is_order = places | replaces
    names_order = replaces | reduces | (command == "cancel")
    # What a client replaces is the order that its request names; the new one's id comes from the gateway.
    target = np.where(replaces, column("replaced_order_id" if "replaced_order_id" in requests else "order_id"), 0)
    # What a kind of request does not have is 0 in a record, and anything in what is known of a client.
    of_kinds = {
        "symbol_id": is_order | names_order, "side": is_order, "time_in_force": is_order, "price": is_order,
        "quantity": is_order | reduces, "max_spend": places, "asset_id": transfers, "amount": transfers,
    }  # fmt: skip
    request_id = texts(requests, "request_id")
    return frame_of(
        {
            "user_id": column("user_id"),
            "request_id": request_id if selected is None else request_id.filter(pa.array(selected)),
            "command": command,
            "target_order_id": np.where(names_order & ~replaces, column("order_id"), target),
            "order_type": np.where(places, column("order_type"), np.where(replaces, int(OrderType.LIMIT), 0)),
            **{name: np.where(has_it, column(name), 0) for name, has_it in of_kinds.items()},
            **{name: column(name) for name in also},
        }
    )


def altered_topics(trace: Trace) -> frozenset[str]:
    """The topics whose log a fault has altered behind the services' backs: what stands in it may be none of their
    doing."""
    faults = trace.events("faults")
    return frozenset(map(str, array(faults, "target")[is_any(faults, "fault", *_ALTERING_FAULTS)]))


def _is_whole(trace: Trace, topic: str) -> bool:
    """Whether every partition of a topic that has records has its first one."""
    places = trace.decoded.places(topic)
    partition, offset = ints(places, "partition"), ints(places, "offset")
    return all(int(offset[partition == number].min()) == 0 for number in np.unique(partition))


# --- requests-carried


def _check_asked(found: Findings, way: Way) -> None:
    """A gateway sends what a client asked for. Where no client was recorded there is nothing to compare with."""
    if not len(way.asked):
        return
    found.checked(len(way.sent))
    was_asked = np.zeros(way.bodies, dtype=bool)
    was_asked[way.asked_body] = True
    wrong = ~was_asked[way.sent_body]
    if not wrong.any():
        return
    first = is_first(way.asked_request, way.requests)
    compared = compare(rows(way.asked, first), rows(way.sent, wrong), ("request",), BODY)
    where = ("partition", "offset", *REQUEST, "command")
    found.add("gateway sent what no client asked for", compared.unexpected, *where)
    found.add("gateway sent something else than the client asked for", compared.differing, *where, "differs")


def _check_step(
    found: Findings,
    says: tuple[str, str],
    expected: pd.DataFrame,
    actual: pd.DataFrame,
    key: Sequence[str],
    columns: Sequence[str],
    where: Sequence[str],
    *,
    is_whole: bool,
) -> None:
    """What `actual` makes of the records of the log before is what those say. Of a log that is not whole, records may
    be missing."""
    differs, is_missing = says
    compared = compare(expected, actual, key, columns)
    found.checked(compared.matched)
    found.add(differs, compared.differing, *where, "differs")
    if is_whole:
        found.add(is_missing, compared.unexpected, *where)


def _accepted(events: pd.DataFrame) -> pd.DataFrame:
    """The records of validated.orders that the balance core's events speak of."""
    is_accepted = ints(events, "validated_partition") >= 0
    return frame_of(
        {
            "source_partition": ints(events, "partition")[is_accepted],
            "source_sequence": ints(events, "sequence")[is_accepted],
            "partition": ints(events, "validated_partition")[is_accepted],
            "link_seq": ints(events, "validated_link_seq")[is_accepted],
            "request_id": texts(events, "request_id").filter(pa.array(is_accepted)),
            **{name: array(events, name)[is_accepted] for name in COMMAND_COLUMNS if name != "request_id"},
        }
    )


def _check_fund_updates(trace: Trace, found: Findings, altered: frozenset[str]) -> None:
    """Every user whom an output touches is sent what it says, once; and what was sent is what is applied."""
    sent = trace.sent_updates
    user_partition = trace.topology.user_partition
    users, inverse = np.unique(ints(sent, "user_id"), return_inverse=True)
    to = np.array([user_partition(each) for each in users.tolist()], dtype=np.int64)[inverse]
    where = ("partition", "offset", *_OUTPUT)
    found.where("fund update in another partition than its user's", sent, ints(sent, "partition") != to, *where)
    if not altered & {ENGINE_OUTPUTS, FUND_UPDATES}:
        compared = compare(
            renamed(trace.fund_updates, partition="symbol_partition", offset="output_offset"),
            sent,
            _OUTPUT,
            ("link_seq", "time_ns", "request_id", "verdict", "reason", "order_id", "entries"),
        )
        found.checked(compared.matched)
        found.add("fund update is not what the output says", compared.differing, *where, "differs")
        found.add("fund update was sent more than once", compared.repeated, *where)
        if trace.begins_at_one:
            found.add("fund update of no output", compared.unexpected, *where)
        if _is_whole(trace, FUND_UPDATES):
            found.add("fund update was never sent", compared.missing, *_OUTPUT)
    if FUND_UPDATES not in altered:
        events = trace.balance_events
        applied = (ints(events, "update_partition") >= 0) & is_any(events, "input_topic", FUND_UPDATES)
        columns = ("update_partition", "update_output_seq", "update_link_seq", "event_user_id")
        _check_step(
            found,
            ("balance event is not of the fund update at its input's place", "balance event of no fund update"),
            _as_applied(sent),
            frame_of({name: ints(events, name)[applied] for name in ("partition", "sequence", *_INPUT, *columns)}),
            _INPUT,
            columns,
            ("partition", "sequence", *_INPUT),
            is_whole=_is_whole(trace, FUND_UPDATES),
        )


def _as_applied(sent: pd.DataFrame) -> pd.DataFrame:
    """Fund updates by their places, as balance events name them."""
    return renamed(
        sent,
        partition="input_partition",
        offset="input_offset",
        symbol_partition="update_partition",
        output_seq="update_output_seq",
        link_seq="update_link_seq",
        user_id="event_user_id",
    )


# --- answers-told


def _verdicts_due(trace: Trace) -> pd.DataFrame:
    """The balance events that apply a fund update of which the output is known: what they answered, and as `due_...`
    what the output has for that user."""
    events, updates = trace.balance_events, trace.fund_updates
    is_applied = ints(events, "update_partition") >= 0
    key = ("update_partition", "update_output_seq", "event_user_id")
    columns = (
        *key, "partition", "offset", "sequence", "time_ns", "outcome", "reason", "answered_order_id",
        "answered_body_hash",
    )  # fmt: skip
    applied = frame_of({name: ints(events, name)[is_applied] for name in columns})
    named = renamed(updates, partition="update_partition", output_seq="update_output_seq", user_id="event_user_id")
    (mine, theirs), size = codes(key, applied, named)
    at = first_places(theirs, size)[mine]
    is_known = at >= 0
    at = at[is_known]
    return frame_of(
        {
            **{name: ints(applied, name)[is_known] for name in columns if name != "event_user_id"},
            "user_id": ints(applied, "event_user_id")[is_known],
            "request_id": texts(updates, "request_id").take(pa.array(at)),
            **{f"due_{name}": ints(updates, name)[at] for name in ("verdict", "reason", "order_id")},
        }
    )


def _check_verdicts(found: Findings, verdicts: pd.DataFrame) -> None:
    """The submitter is told the verdict, with the order that it is about; nobody else is told anything."""
    found.checked(len(verdicts))
    where = ("partition", "sequence", *REQUEST)
    is_due = array(verdicts, "request_id") != ""
    is_told = ints(verdicts, "outcome") >= 0
    found.where("the submitter is not told the verdict", verdicts, is_due & ~is_told, *where, "due_verdict")
    found.where("an answer to somebody who asked for nothing", verdicts, is_told & ~is_due, *where)
    other = ints(verdicts, "answered_order_id") != ints(verdicts, "due_order_id")
    is_refused = (ints(verdicts, "outcome") != Outcome.ACCEPTED) | (ints(verdicts, "reason") != Reason.NONE)
    both = is_due & is_told
    found.where("verdict is told of another order", verdicts, both & other, *where, "answered_order_id", "due_order_id")
    found.where("verdict on what is told to be refused", verdicts, both & is_refused, *where, "outcome", "reason")


def _check_bodies(found: Findings, way: Way) -> None:
    """An answer names the body that was decided, and bodies under one id are told apart by their hashes."""
    decided, body = way.decided, way.decided_body
    body_hash = ints(decided, "body_hash")
    (hashed,), hashes = codes(("request", "body_hash"), decided)
    where = ("partition", "sequence", *REQUEST, "command", "body_hash")
    other = (ints(decided, "outcome") >= 0) & (ints(decided, "answered_body_hash") != body_hash)
    found.where("answer names another body than was decided", decided, other, *where, "answered_body_hash")
    unlike = hashed != hashed[first_places(body, way.bodies)[body]]
    found.where("one body under an id has two hashes", decided, unlike, *where)
    alike = body != body[first_places(hashed, hashes)[hashed]]
    found.where("two bodies under an id have one hash", decided, alike, *where)


def _check_bodies_of_verdicts(trace: Trace, found: Findings, verdicts: pd.DataFrame) -> None:
    """A verdict names the body of the request that the engine judged, unless that was forgotten by then."""
    events, outputs = trace.balance_events, trace.outputs
    judged = renamed(outputs, partition="update_partition", output_seq="update_output_seq")
    (mine, theirs), size = codes(("update_partition", "update_output_seq"), verdicts, judged)
    output = first_places(theirs, size)[mine]
    told = (output >= 0) & (array(verdicts, "request_id") != "") & (ints(verdicts, "outcome") >= 0)
    verdicts, output = rows(verdicts, told), output[told]
    source = frame_of(
        {
            "partition": ints(outputs, "source_partition")[output],
            "sequence": ints(outputs, "source_sequence")[output],
        }
    )
    (mine, theirs), size = codes(("partition", "sequence"), source, events)
    decision = first_places(theirs, size)[mine]
    is_known = decision >= 0
    verdicts, decision = rows(verdicts, is_known), decision[is_known]
    due = ints(events, "body_hash")[decision]
    is_remembered = ints(verdicts, "time_ns") - ints(events, "time_ns")[decision] < REMEMBERED_NS
    other = is_remembered & (ints(verdicts, "answered_body_hash") != due)
    where = ("partition", "sequence", *REQUEST, "answered_body_hash")
    found.where("verdict names another body than the engine judged", verdicts, other, *where)


def _check_responses(trace: Trace, found: Findings, verdicts: pd.DataFrame | None) -> None:
    """The k-th response of a partition is the k-th answer of its balance events.

    Where they are not equally many, which `no-lost-ack` tells, or a log does not begin at its beginning, nobody can say
    which belong together.
    """
    events, responses = trace.balance_events, trace.responses
    answers = ints(events, "outcome") >= 0
    whole = _whole_partitions(trace)
    partitions = 1 + max(whole, default=0)
    due = np.bincount(ints(events, "partition")[answers], minlength=partitions)
    there = np.bincount(ints(responses, "partition"), minlength=partitions)
    judged = [number for number in whole if due[number] == there[number]]
    answers &= np.isin(ints(events, "partition"), judged)
    responses = rows(responses, np.isin(ints(responses, "partition"), judged))
    found.checked(len(responses))
    columns = ("user_id", "order_id", "outcome", "reason", "is_repeat", "time_ns", "body_hash")
    decided = frame_of(
        {
            **{name: ints(events, name)[answers] for name in ("outcome", "reason", "is_repeat", "time_ns")},
            "user_id": ints(events, "event_user_id")[answers],
            "order_id": ints(events, "answered_order_id")[answers],
            "body_hash": ints(events, "answered_body_hash")[answers],
            "request_id": texts(events, "request_id").filter(pa.array(answers)),
        }
    )
    where = ("partition", "offset", *REQUEST)
    _compare_in_order(found, "response is not the answer that was decided", decided, responses, columns, where)
    # A verdict's event does not say whose request it is about: the output does.
    to_request = array(events, "command")[answers] != ""
    answered = rows(responses, to_request)
    _compare_in_order(
        found, "response is to another request", rows(decided, to_request), answered, ("request_id",), where
    )
    early = (ints(answered, "is_repeat") == 0) & (ints(answered, "verdict") != 0)
    found.where("first answer has a verdict", answered, early, *where, "verdict")
    _check_verdicts_of_repeats(found, responses, to_request)
    if verdicts is None:
        return
    offset = ints(events, "offset")[answers]
    compared = compare(
        renamed(verdicts, offset="event_offset", due_verdict="verdict", due_reason="verdict_reason"),
        rows(responses.assign(event_offset=offset), ~to_request),
        ("partition", "event_offset"),
        ("request_id", "verdict", "verdict_reason"),
    )
    found.add("response is not the verdict that was given", compared.differing, *where, "differs")


def _check_verdicts_of_repeats(found: Findings, responses: pd.DataFrame, to_request: Mask) -> None:
    """A repeat's answer has the verdict that its request's submitter had been told by then, if any."""
    (request,), _ = codes((*REQUEST, "body_hash"), responses)
    is_repeat = ints(responses, "is_repeat") == 1
    # What a repeat is told begins with the first answer to its body, and changes with the verdict on it.
    says = ~is_repeat
    order = np.argsort(request, kind="stable")
    latest = np.maximum.accumulate(np.where(says[order], np.arange(len(order)), 0))
    before = np.empty_like(order)
    before[order] = order[latest]
    is_known = is_repeat & to_request & (request[before] == request) & says[before]
    differs = np.zeros(len(responses), dtype=bool)
    for column in ("verdict", "verdict_reason"):
        differs |= ints(responses, column) != ints(responses, column)[before]
    where = ("partition", "offset", *REQUEST, "verdict")
    found.where("repeat is told another verdict than was known", responses, is_known & differs, *where)


def _whole_partitions(trace: Trace) -> list[int]:
    """The user partitions of which both the events and the responses are there from the first one on."""
    events, places = trace.balance_events, trace.decoded.places(ORDER_RESPONSES)
    unread = trace.decoded.undecodable_in("responses", "balance_events")
    first_events = ints(events, "partition")[ints(events, "sequence") == 1]
    first_responses = ints(places, "partition")[ints(places, "offset") == 0]
    return sorted({*first_events.tolist()} & {*first_responses.tolist()} - {*ints(unread, "partition").tolist()})


def _compare_in_order(
    found: Findings,
    what: str,
    expected: pd.DataFrame,
    actual: pd.DataFrame,
    columns: Sequence[str],
    where: Iterable[str],
) -> None:
    """Compare two tables row by row."""
    place = np.arange(len(actual))
    compared = compare_numbered(expected, actual, place, place, max(len(place), 1), columns)
    found.add(what, compared.differing, *where, "differs")


def _check_repeats(found: Findings, way: Way) -> None:
    """While a request is remembered, the same body under the same id gets the same answer and does nothing else."""
    # A request that cannot be named is not remembered.
    is_named = ints(way.decided, "reason") != Reason.INVALID_IDENTIFIER
    decided, request, body = rows(way.decided, is_named), way.decided_request[is_named], way.decided_body[is_named]
    time_ns = ints(decided, "time_ns")
    first_ns = np.full(way.requests, np.iinfo(np.int64).max)
    np.minimum.at(first_ns, request, time_ns)
    # An id may be taken anew once its first request is forgotten.
    soon = time_ns - first_ns[request] < REMEMBERED_NS
    decided, body = rows(decided, soon), body[soon]
    first = is_first(body, way.bodies)
    found.checked(int(np.count_nonzero(~first)))
    columns = ("outcome", "reason", "answered_order_id")
    compared = compare_numbered(rows(decided, first), decided, body[first], body, way.bodies, columns)
    where = ("partition", "sequence", *REQUEST, "command")
    found.add("request was answered otherwise before", compared.differing, *where, "differs")
    anew = ~first & (ints(decided, "is_repeat") == 0) & (ints(decided, "reason") != Reason.REQUEST_ID_REUSED)
    found.where("repeat was decided anew", decided, anew, *where)


def _check_told(found: Findings, way: Way, *, has_all_responses: bool) -> None:
    """What a client was told stands in a decision on what it asked for, and with the verdict in a response to that."""
    outcome = array(way.answers, "outcome")
    is_told = ((outcome == "accepted") | (outcome == "rejected")) & (way.answers_body >= 0)
    answers = rows(way.answers, is_told)
    found.checked(len(answers))
    decisions = frame_of(
        {
            "body": way.decided_body,
            **{name: ints(way.decided, name) for name in ("outcome", "reason")},
            "order_id": ints(way.decided, "answered_order_id"),
        }
    )
    told = frame_of(
        {
            "body": way.answers_body[is_told],
            "outcome": np.where(outcome[is_told] == "accepted", int(Outcome.ACCEPTED), int(Outcome.REJECTED)),
            **{name: ints(answers, name) for name in ("reason", "order_id")},
        }
    )
    where = (*REQUEST, "attempt", "command", "outcome", "reason", "order_id")
    wrong = ~is_in(told, decisions, ("body", "outcome", "reason", "order_id"))
    # Where a gateway sent something that nobody asked for, no decision is on what was asked: that is told elsewhere.
    was_asked = np.zeros(way.bodies, dtype=bool)
    was_asked[way.asked_body] = True
    is_muddled = np.zeros(way.requests, dtype=bool)
    is_muddled[way.decided_request[~was_asked[way.decided_body]]] = True
    is_excused = is_muddled[way.answers_request[is_told]]
    wrong &= ~is_excused
    found.where("client was told what no decision on its request says", answers, wrong, *where)
    if not has_all_responses:
        return
    verdict = ("verdict", "verdict_reason")
    told = told.assign(**{name: ints(answers, name) for name in verdict})
    responses = way.responses.assign(body=way.responses_body)
    unheard = ~is_in(told, responses, ("body", "outcome", "reason", "order_id", *verdict)) & ~is_excused
    found.where("client was told what no response to its request says", answers, unheard, *where, *verdict)


def _check_invalid(trace: Trace, found: Findings, way: Way) -> None:
    """Only a malformed request is told *invalid*, and nobody else has seen it."""
    is_invalid = array(way.answers, "outcome") == _INVALID
    answers = rows(way.answers, is_invalid)
    found.checked(len(answers))
    where = (*REQUEST, "attempt", "command")
    is_raw = array(answers, "command") == _RAW
    at, request = way.asked_at[is_invalid], way.answers_request[is_invalid]
    asked = way.asked.iloc[at[~is_raw & (at >= 0)]]
    well_formed = np.zeros(len(answers), dtype=bool)
    well_formed[~is_raw & (at >= 0)] = _are_well_formed(trace.topology.symbols, asked)
    found.where("well-formed request is told to be invalid", answers, well_formed, *where)
    was_decided = np.zeros(way.bodies, dtype=bool)
    was_decided[way.decided_body] = True
    body = way.answers_body[is_invalid]
    seen = (body >= 0) & was_decided[body]
    # Nobody knows what a raw request says, but that its id is no other request's.
    is_other = np.zeros(way.requests, dtype=bool)
    is_other[way.asked_request[array(way.asked, "command") != _RAW]] = True
    was_named = np.zeros(way.requests, dtype=bool)
    was_named[way.decided_request] = True
    seen |= is_raw & was_named[request] & ~is_other[request]
    found.where("request is told to be invalid, but was decided", answers, seen, *where)


def _are_well_formed(symbols: SymbolTable, asked: pd.DataFrame) -> list[bool]:
    """Which of some requests a gateway has no reason to refuse."""
    # A loop: those that were told so and are not raw are few, and none in most runs.
    names = ("request_id", "user_id", *BODY)
    requests = zip(*(array(asked, name).tolist() for name in names), strict=True)
    return [_is_well_formed(symbols, *request) for request in requests]


def _is_well_formed(
    symbols: SymbolTable, request_id: str, user_id: int, command: str, symbol_id: int, target: int, side: int,
    order_type: int, time_in_force: int, price: int, quantity: int, max_spend: int, asset_id: int, amount: int,
) -> bool:  # fmt: skip
    if user_id <= 0 or not _PRINTABLE_ID.fullmatch(request_id):
        return False
    if command in ("deposit", "withdraw"):
        return asset_id in symbols.assets and amount > 0
    if symbol_id not in symbols.symbols or (command != "place" and target <= 0):
        return False
    if command == "cancel":
        return True
    if quantity <= 0 or command == "reduce":
        return quantity > 0
    if side not in tuple(Side) or time_in_force not in tuple(TimeInForce):
        return False
    if order_type == OrderType.LIMIT:
        return price > 0 and max_spend == 0
    is_buy = side == Side.BUY
    return price == 0 and time_in_force in (TimeInForce.IOC, TimeInForce.FOK) and (max_spend > 0) == is_buy
