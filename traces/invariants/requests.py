"""Invariants about what clients asked for and were told."""

import numpy as np
import pandas as pd

from schema.codes import Outcome, Reason
from schema.topics import FUND_UPDATES, ORDER_REQUESTS, ORDER_RESPONSES, VALIDATED_ORDERS
from traces.core_reference import REMEMBERED_NS
from traces.invariants.letters import check_dead_letters
from traces.invariants.lifecycle import ANSWER_COLUMNS, RequestNumbers, decided_outputs
from traces.matching_rows import (
    Mask,
    array,
    codes,
    compare_numbered,
    ints,
    is_any,
    is_first,
    is_in,
    renamed,
    repeated,
    rows,
)
from traces.trace import Trace
from traces.verdicts import Findings, Verdict, invariant

_ORDER_COMMANDS = ("place", "cancel", "reduce", "replace")


@invariant("no-lost-ack")
def no_lost_ack(trace: Trace) -> Verdict:
    """A request answered accepted is, once settled, the input of exactly one EngineOutput, whatever was retried; one
    answered rejected, of none.

    Also without the client's answer: no request has two outputs; what the balance core accepted has one in the end,
    and each of its inputs makes one record; what the client was told (order, verdict) is what was decided; every
    answer and fund update that a committed record speaks of was sent with it; and a request that does not decode is
    in the dead letters.
    """
    found = Findings()
    outputs = trace.once(decided_outputs)
    answers = trace.events("client_answers", *ANSWER_COLUMNS)
    request = ("user_id", "request_id")
    where = (*request, "order_id", "partition", "output_seq")
    numbers = trace.once(RequestNumbers)
    times = np.bincount(numbers.outputs, minlength=numbers.size)
    found.where("request is the input of more than one output", outputs, times[numbers.outputs] > 1, *where)
    inputs = ("input_topic", "input_partition", "input_offset")
    found.where("record is the input of more than one output", outputs, repeated(outputs, inputs), *where)

    outcome = array(answers, "outcome")
    for_engine = is_any(answers, "command", *_ORDER_COMMANDS)
    is_accepted = for_engine & (outcome == "accepted")
    # A request id used for another body is refused, while the first body under it may well have been accepted.
    is_rejected = for_engine & (outcome == "rejected") & (ints(answers, "reason") != Reason.REQUEST_ID_REUSED)
    accepted, rejected = rows(answers, is_accepted), rows(answers, is_rejected)
    found.checked(len(accepted) + len(rejected))
    which = (*request, "attempt", "command", "order_id")
    if trace.has_settled and trace.begins_at_one:
        found.where("accepted, but the input of no output", accepted, times[numbers.answers[is_accepted]] == 0, *which)
    never = (ints(rejected, "verdict") == 0) & (times[numbers.answers[is_rejected]] > 0)
    found.where("rejected, but the input of an output", rejected, never, *which)
    _check_answers(found, numbers, outputs, answers, is_accepted)
    _check_transfers(trace, found, numbers, answers, ~for_engine & (outcome == "accepted"))
    _check_balance_core(trace, found)
    _check_sent(trace, found)
    check_dead_letters(trace, found)
    return found.verdict


def _check_answers(
    found: Findings, numbers: RequestNumbers, outputs: pd.DataFrame, answers: pd.DataFrame, is_accepted: Mask
) -> None:
    """The order and verdict that clients were told are those of the output."""
    first = is_first(numbers.outputs, numbers.size)
    decided = rows(outputs, first)
    which = ("user_id", "request_id", "attempt", "command")
    for what, is_told, columns in (
        ("client was told another order", is_accepted, ("order_id",)),
        (
            "client was told another verdict",
            is_accepted & (ints(answers, "verdict") != 0),
            ("verdict", "verdict_reason"),
        ),
    ):
        compared = compare_numbered(
            decided, rows(answers, is_told), numbers.outputs[first], numbers.answers[is_told], numbers.size, columns
        )
        found.add(what, compared.differing, *which, "differs")


def _check_transfers(
    trace: Trace, found: Findings, numbers: RequestNumbers, answers: pd.DataFrame, is_accepted: Mask
) -> None:
    """A deposit or withdrawal answered accepted was done, exactly once."""
    events = trace.balance_events
    was_done = (ints(events, "outcome") == Outcome.ACCEPTED) & (ints(events, "is_repeat") == 0)
    was_done &= ~is_any(events, "command", "")
    columns = ["user_id", "request_id", "command", "partition", "offset", "time_ns"]
    done, times = rows(events[columns], was_done), np.bincount(numbers.balance_events[was_done], minlength=numbers.size)
    accepted = rows(answers, is_accepted)
    found.checked(len(accepted))
    which = ("user_id", "request_id")
    if trace.begins_at_one:
        missing = rows(accepted, times[numbers.answers[is_accepted]] == 0)
        found.add("accepted, but never done", missing, *which, "command")
    twice = rows(done, times[numbers.balance_events[was_done]] > 1).sort_values([*which, "time_ns"], kind="stable")
    if len(twice):
        (same,), _ = codes(which, twice)
        soon = np.r_[False, (same[1:] == same[:-1]) & (np.diff(ints(twice, "time_ns")) < REMEMBERED_NS)]
        found.where("request accepted twice", twice, soon, *which, "command", "partition", "offset")


def _check_balance_core(trace: Trace, found: Findings) -> None:
    """Each input of the balance core makes one record, and what it accepted reaches the engine once."""
    events = trace.balance_events
    places = ("input_topic", "input_partition", "input_offset")
    found.checked(len(events))
    found.where(
        "input decided twice by the balance core",
        events,
        repeated(events, places),
        "partition",
        "offset",
        *places,
    )
    columns = ["user_id", "request_id", "command", "order_id", "partition", "sequence"]
    sent = rows(events[columns], ints(events, "validated_partition") >= 0)
    sent = sent.assign(source_partition=ints(sent, "partition"), source_sequence=ints(sent, "sequence"))
    outputs = trace.outputs
    source = ("source_partition", "source_sequence")
    which = ("user_id", "request_id", "command", "order_id", "partition", "sequence")
    validated = trace.validated
    found.where("accepted twice into the engine's input", validated, repeated(validated, source), *source, "order_id")
    if trace.begins_at_one:
        unknown = rows(outputs, ~is_in(outputs, sent, source))
        found.add("output for what the balance core never accepted", unknown, "partition", "output_seq", "request_id")
    if not trace.has_settled or not trace.begins_at_one:
        return
    found.where("accepted by the balance core, but without an output", sent, ~is_in(sent, outputs, source), *which)
    for topic in (ORDER_REQUESTS, FUND_UPDATES):
        waiting = renamed(trace.decoded.places(topic), partition="input_partition", offset="input_offset")
        waiting = waiting.assign(input_topic=topic)
        undecided = rows(waiting, ~is_in(waiting, events, places))
        found.add("input was never decided by the balance core", undecided, *places)


def _check_sent(trace: Trace, found: Findings) -> None:
    """What a committed record says was sent is in the log: one transaction wrote them all, or none."""
    events, updates = trace.balance_events, trace.fund_updates
    answered_in = ints(events, "partition")[ints(events, "outcome") >= 0]
    validated_in = ints(events, "validated_partition")
    user_partition = trace.topology.user_partition
    users, inverse = np.unique(ints(updates, "user_id"), return_inverse=True)
    to = np.array([user_partition(each) for each in users.tolist()], dtype=np.int64)[inverse]
    if trace.begins_at_one:
        for topic, due in (
            (ORDER_RESPONSES, answered_in),
            (VALIDATED_ORDERS, validated_in[validated_in >= 0]),
            (FUND_UPDATES, to),
        ):
            there = trace.decoded.places(topic)
            if len(there) and ints(there, "offset").min() > 0 and topic == ORDER_RESPONSES:
                continue  # its beginning has been deleted; nobody reads old answers
            partitions = 1 + max([*due.tolist(), *ints(there, "partition").tolist(), 0])
            expected = np.bincount(due, minlength=partitions)
            actual = np.bincount(ints(there, "partition"), minlength=partitions)
            for partition in np.flatnonzero(expected != actual).tolist():
                found.say(
                    f"{expected[partition]} records are spoken of by committed records, {actual[partition]} are there",
                    topic=topic,
                    partition=partition,
                )
    undecodable = rows(events, (array(events, "command") == "") & (ints(events, "update_partition") < 0))
    letters = trace.dead_letters
    source = renamed(
        letters, source_topic="input_topic", source_partition="input_partition", source_offset="input_offset"
    )
    places = ("input_topic", "input_partition", "input_offset")
    lost = rows(undecodable, ~is_in(undecodable, source, places))
    found.add("request that does not decode is not in the dead letters", lost, *places)
