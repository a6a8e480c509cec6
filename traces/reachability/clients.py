"""Situations of clients: retries, unknown outcomes, hostile input, reads that meet writes."""

import numpy as np
import pandas as pd

from schema.codes import LIVE_STATUSES, Outcome, Reason
from schema.tables import ACTIVE_ORDERS
from schema.topics import BALANCE_EVENTS, ORDER_REQUESTS
from traces.matching_rows import Mask, array, codes, find, first_places, ints, is_any, is_first, renamed, rows
from traces.reachability.goals import goal
from traces.reachability.log import each_record
from traces.trace import Trace

_REQUEST = ("user_id", "request_id")
_BODY = (
    "command", "symbol_id", "order_id", "side", "order_type", "time_in_force", "price", "quantity", "max_spend",
    "asset_id", "amount",
)  # fmt: skip
_SIDES = ("maker_order_id", "taker_order_id")


@goal("answer-unknown-then-learned")
def answer_unknown_then_learned(trace: Trace) -> int:
    """A client was left without an answer, asked again, and learned that the request had been accepted before."""
    asked, told, decided = trace.events("client_requests"), trace.events("client_answers"), _decided(trace)
    unknown, accepted = (rows(told, is_any(told, "outcome", outcome)) for outcome in ("unknown", "accepted"))
    taken = rows(decided, ints(decided, "outcome") == int(Outcome.ACCEPTED))
    (of_unknown, of_accepted, of_taken), size = codes(_REQUEST, unknown, accepted, taken)
    learned = np.flatnonzero(is_first(of_accepted, size))
    request = of_accepted[learned]
    (answered, submitted), attempts = codes((*_REQUEST, "attempt"), accepted, asked)
    submission = first_places(submitted, attempts)[answered[learned]]
    first_unknown, first_taken = first_places(of_unknown, size)[request], first_places(of_taken, size)[request]
    known = (submission >= 0) & (first_unknown >= 0) & (first_taken >= 0)
    asked_t = ints(asked, "t")[submission[known]]
    is_again = ints(unknown, "t")[first_unknown[known]] <= asked_t
    return int((is_again & (ints(taken, "t")[first_taken[known]] < asked_t)).sum())


@goal("asked-again-at-another-gateway")
def asked_again_at_another_gateway(trace: Trace) -> int:
    """A request was submitted, with the same body, at two gateways."""
    asked = trace.events("client_requests")
    (request,), size = codes((*_REQUEST, *_BODY), asked)
    gateway = array(asked, "host")
    return len(np.unique(request[gateway != gateway[first_places(request, size)[request]]]))


@goal("repeat-answered-from-memory")
def repeat_answered_from_memory(trace: Trace) -> int:
    """The balance core recognised a repeat and gave the first answer again."""
    return int((ints(trace.balance_events, "is_repeat") == 1).sum())


@goal("repeat-answered-after-a-takeover")
def repeat_answered_after_a_takeover(trace: Trace) -> int:
    """A repeat was recognised when, since the request was decided, the partition had been taken over.

    Perhaps by the same instance: a rebalance is enough.
    """
    events, produced = trace.balance_events, trace.events("produced")
    is_repeat = (ints(events, "is_repeat") == 1) & ~is_any(events, "command", "")
    if not is_repeat.any():
        return 0
    mine = each_record(rows(produced, is_any(produced, "topic", BALANCE_EVENTS)))
    (place, written), size = codes(("partition", "offset"), events, mine)
    # Whoever takes a partition over, its producer gets a higher epoch.
    epoch_at = np.full(size, -1, dtype=np.int64)
    epoch_at[written] = ints(mine, "producer_epoch")
    epoch = epoch_at[place]
    is_new = _is_decision(events)
    (repeat, decided), size = codes(_REQUEST, rows(events, is_repeat), rows(events, is_new))
    first = first_places(decided, size)[repeat]
    before, after = epoch[is_new][first[first >= 0]], epoch[is_repeat][first >= 0]
    return int(((before >= 0) & (before < after)).sum())


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
    return int(is_any(trace.dead_letters, "source_topic", ORDER_REQUESTS).sum())


@goal("requests-came-at-once")
def requests_came_at_once(trace: Trace) -> int:
    """Twenty requests of clients or more, all different, were sent at one instant."""
    asked = trace.events("client_requests")
    (submission,), size = codes(("t", *_REQUEST), asked)
    _, requests = np.unique(ints(asked, "t")[is_first(submission, size)], return_counts=True)
    return int((requests >= 20).sum())


@goal("cancel-sent-before-its-order-was-placed")
def cancel_sent_before_its_order_was_placed(trace: Trace) -> int:
    """A cancel was on its way before the engine had taken its order."""
    asked, placed = trace.events("client_requests"), trace.placements
    cancels = rows(asked, is_any(asked, "command", "cancel"))
    (request,), size = codes(_REQUEST, cancels)
    first = rows(cancels, is_first(request, size))
    (wanted, there), size = codes(("user_id", "symbol_id", "order_id"), first, placed)
    at = first_places(there, size)[wanted]
    return int((ints(first, "t")[at >= 0] < ints(placed, "t")[at[at >= 0]]).sum())


@goal("read-raced-a-completion")
def read_raced_a_completion(trace: Trace) -> int:
    """A user's active orders were read while such an order of that user was being completed."""
    reads, ended = trace.events("reads"), trace.completions
    mine = rows(reads, (array(reads, "query") == "active_orders") & (array(reads, "outcome") == "ok"))
    is_of_one = ints(mine, "symbol_id") > 0
    of_one, of_all = rows(mine, is_of_one), rows(mine, ~is_of_one)
    return _raced(of_all, ended, ("user_id",)) + _raced(of_one, ended, ("user_id", "symbol_id"))


@goal("read-behind-the-engine")
def read_behind_the_engine(trace: Trace) -> int:
    """A read showed an order as live that the engine had completed already: settlement had still to write it."""
    shown, ended, reads = trace.events("read_rows"), trace.completions, trace.events("reads")
    live = rows(shown, np.isin(ints(shown, "status"), LIVE_STATUSES))
    read, completed = (
        find(ints(live, "read_id"), ints(reads, "read_id")),
        find(ints(live, "order_id"), ints(ended, "order_id")),
    )
    known = (read >= 0) & (completed >= 0)
    asked_t, completed = ints(reads, "asked_t")[read[known]], completed[known]
    statements = trace.events("cql")
    wanted = is_any(statements, "table", ACTIVE_ORDERS) & is_any(statements, "outcome", "ok")
    written = rows(statements, wanted & is_any(statements, "operation", "INSERT"))
    (revision, of_write), size = codes(("order_id", "revision"), ended, renamed(written, write_timestamp="revision"))
    write = first_places(of_write, size)[revision][completed]
    is_unwritten = write < 0
    is_unwritten[~is_unwritten] = ints(written, "t")[write[~is_unwritten]] > asked_t[~is_unwritten]
    return int((is_unwritten & (ints(ended, "t")[completed] < asked_t)).sum())


@goal("users-traded-across-gateways")
def users_traded_across_gateways(trace: Trace) -> int:
    """The two sides of a trade came in through different gateways, each through no other."""
    asked = trace.events("client_requests")
    placed = rows(asked, is_any(asked, "command", "place", "replace"))
    placements, trades = trace.placements, trace.trades
    if not len(trades):
        return 0
    (said, done), size = codes(_REQUEST, placed, renamed(placements, client_order_id="request_id"))
    gateways, number = np.unique(array(placed, "host").astype(str), return_inverse=True)
    # By request: the number of its gateway, -1 when it was submitted at several, or nobody knows where.
    least, most = np.full(size, len(gateways)), np.full(size, -1)
    np.minimum.at(least, said, number)
    np.maximum.at(most, said, number)
    gateway = np.where(least == most, least, -1)[done]
    maker, taker = (find(ints(trades, side), ints(placements, "order_id")) for side in _SIDES)
    known = (maker >= 0) & (taker >= 0)
    of_maker, of_taker = gateway[maker[known]], gateway[taker[known]]
    return int(((of_maker >= 0) & (of_taker >= 0) & (of_maker != of_taker)).sum())


def _raced(reads: pd.DataFrame, ended: pd.DataFrame, key: tuple[str, ...]) -> int:
    """How many reads went on while an order with the same key was completed."""
    (reader, owner), _ = codes(key, reads, ended)
    # One sorted number per key and moment, so that one search gives the completions up to a moment.
    moments = np.unique(np.concatenate([ints(reads, "asked_t"), ints(reads, "t"), ints(ended, "t")]))
    span = len(moments) + 1
    completed = np.sort(owner * span + np.searchsorted(moments, ints(ended, "t")))
    before = np.searchsorted(completed, reader * span + np.searchsorted(moments, ints(reads, "asked_t")))
    upto = np.searchsorted(completed, reader * span + np.searchsorted(moments, ints(reads, "t")), side="right")
    return int((upto > before).sum())


def _is_decision(events: pd.DataFrame) -> Mask:
    """Which balance events decided a request: neither repeats nor fund updates."""
    mask: Mask = (ints(events, "is_repeat") == 0) & ~is_any(events, "command", "")
    return mask


def _decided(trace: Trace) -> pd.DataFrame:
    return rows(trace.balance_events, _is_decision(trace.balance_events))


def _answered(trace: Trace, reason: Reason) -> int:
    return int((ints(_decided(trace), "reason") == int(reason)).sum())
