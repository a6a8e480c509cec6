"""Situations of clients: retries, unknown outcomes, hostile input, reads that meet writes."""

import numpy as np

from schema.codes import LIVE_STATUSES, Reason
from schema.topics import BALANCE_EVENTS
from traces.matching_rows import array, codes, find, first_places, ints, is_any, is_first, renamed, rows
from traces.reachability.goals import goal
from traces.reachability.log import each_record
from traces.trace import Trace

_REQUEST = ("user_id", "request_id")


@goal("answer-unknown-then-learned")
def answer_unknown_then_learned(trace: Trace) -> int:
    """A client got no answer in time, asked again, and learned that the request had been accepted."""
    told = trace.events("client_answers")
    unknown, accepted = (rows(told, is_any(told, "outcome", outcome)) for outcome in ("unknown", "accepted"))
    (of_unknown, of_accepted), size = codes(_REQUEST, unknown, accepted)
    first_unknown, first_accepted = first_places(of_unknown, size), first_places(of_accepted, size)
    both = (first_unknown >= 0) & (first_accepted >= 0)
    return int((ints(accepted, "t")[first_accepted[both]] > ints(unknown, "t")[first_unknown[both]]).sum())


@goal("asked-again-at-another-gateway")
def asked_again_at_another_gateway(trace: Trace) -> int:
    """A request was submitted at two gateways."""
    asked = trace.events("client_requests")
    (request,), size = codes(_REQUEST, asked)
    gateway = array(asked, "host")
    return len(np.unique(request[gateway != gateway[first_places(request, size)[request]]]))


@goal("repeat-answered-from-memory")
def repeat_answered_from_memory(trace: Trace) -> int:
    """The balance core recognised a repeat and gave the first answer again."""
    return int((ints(trace.balance_events, "is_repeat") == 1).sum())


@goal("repeat-answered-by-another-incarnation")
def repeat_answered_by_another_incarnation(trace: Trace) -> int:
    """A repeat was recognised by an incarnation of the balance core that had not decided the request itself."""
    events, produced = trace.balance_events, trace.events("produced")
    is_repeat = (ints(events, "is_repeat") == 1) & ~is_any(events, "command", "")
    if not is_repeat.any():
        return 0
    mine = each_record(rows(produced, is_any(produced, "topic", BALANCE_EVENTS)))
    (place, written), size = codes(("partition", "offset"), events, mine)
    epoch_at = np.full(size, -1, dtype=np.int64)
    epoch_at[written] = ints(mine, "producer_epoch")
    epoch = epoch_at[place]
    is_new = (ints(events, "is_repeat") == 0) & ~is_any(events, "command", "")
    (repeat, decided), size = codes(_REQUEST, rows(events, is_repeat), rows(events, is_new))
    first = first_places(decided, size)[repeat]
    return int((epoch[is_repeat][first >= 0] != epoch[is_new][first[first >= 0]]).sum())


@goal("request-id-reused")
def request_id_reused(trace: Trace) -> int:
    """Another body came under a request id that was taken, and was refused."""
    return _answered(trace, Reason.REQUEST_ID_REUSED)


@goal("funds-were-short")
def funds_were_short(trace: Trace) -> int:
    """A request was rejected because the user had not the funds for it."""
    return _answered(trace, Reason.INSUFFICIENT_FUNDS)


@goal("refused-at-the-gateway")
def refused_at_the_gateway(trace: Trace) -> int:
    """Malformed or hostile input was refused before it reached any log."""
    return int((array(trace.events("client_answers"), "outcome") == "invalid").sum())


@goal("undecodable-request-set-aside")
def undecodable_request_set_aside(trace: Trace) -> int:
    """A record of order.requests that was no request was put with the dead letters."""
    return len(trace.dead_letters)


@goal("requests-came-at-once")
def requests_came_at_once(trace: Trace) -> int:
    """Twenty requests of clients or more were sent at one instant."""
    _, requests = np.unique(ints(trace.events("client_requests"), "t"), return_counts=True)
    return int((requests >= 20).sum())


@goal("cancel-sent-before-its-order-was-placed")
def cancel_sent_before_its_order_was_placed(trace: Trace) -> int:
    """A cancel was on its way before the engine had taken its order."""
    asked, placed = trace.events("client_requests"), trace.placements
    cancels = rows(asked, is_any(asked, "command", "cancel"))
    (request,), size = codes(_REQUEST, cancels)
    first = is_first(request, size)
    at = find(ints(cancels, "order_id"), ints(placed, "order_id"))
    known = first & (at >= 0)
    return int((ints(cancels, "t")[known] < ints(placed, "t")[at[known]]).sum())


@goal("read-raced-a-completion")
def read_raced_a_completion(trace: Trace) -> int:
    """A user's active orders were read while an order of that user was being completed."""
    reads, ended = trace.events("reads"), trace.completions
    mine = rows(reads, (array(reads, "query") == "active_orders") & (array(reads, "outcome") == "ok"))
    (reader, owner), _ = codes(("user_id",), mine, ended)
    # One sorted number per user and moment, so that one search gives the completions up to a moment.
    moments = np.unique(np.concatenate([ints(mine, "asked_t"), ints(mine, "t"), ints(ended, "t")]))
    span = len(moments) + 1
    completed = np.sort(owner * span + np.searchsorted(moments, ints(ended, "t")))
    before = np.searchsorted(completed, reader * span + np.searchsorted(moments, ints(mine, "asked_t")))
    upto = np.searchsorted(completed, reader * span + np.searchsorted(moments, ints(mine, "t")), side="right")
    return int((upto > before).sum())


@goal("read-behind-the-engine")
def read_behind_the_engine(trace: Trace) -> int:
    """A read showed an order as live that the engine had completed already: settlement had still to write it."""
    shown, ended = trace.events("read_rows"), trace.completions
    reads = trace.events("reads")
    live = rows(shown, np.isin(ints(shown, "status"), LIVE_STATUSES))
    read, completed = (
        find(ints(live, "read_id"), ints(reads, "read_id")),
        find(ints(live, "order_id"), ints(ended, "order_id")),
    )
    known = (read >= 0) & (completed >= 0)
    return int((ints(ended, "t")[completed[known]] < ints(reads, "asked_t")[read[known]]).sum())


@goal("users-traded-across-gateways")
def users_traded_across_gateways(trace: Trace) -> int:
    """The two sides of a trade came in through different gateways."""
    asked = trace.events("client_requests")
    placed = rows(asked, is_any(asked, "command", "place", "replace"))
    placements, trades = trace.placements, trace.trades
    if not len(trades):
        return 0
    (said, done), size = codes(_REQUEST, placed, renamed(placements, client_order_id="request_id"))
    gateway = np.empty(size, dtype=object)
    gateway[said] = array(placed, "host")
    by_order = dict(zip(ints(placements, "order_id").tolist(), gateway[done].tolist(), strict=True))
    sides = zip(ints(trades, "maker_order_id").tolist(), ints(trades, "taker_order_id").tolist(), strict=True)
    return sum(by_order.get(maker) != by_order.get(taker) for maker, taker in sides)


def _answered(trace: Trace, reason: Reason) -> int:
    return int((ints(trace.balance_events, "reason") == int(reason)).sum())
