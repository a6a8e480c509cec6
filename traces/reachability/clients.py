"""Situations of clients: retries, unknown outcomes, hostile input, reads that meet writes."""

import numpy as np

from schema.codes import Reason
from traces.matching_rows import codes, ints, rows
from traces.reachability.goals import goal
from traces.reachability.log import each_record
from traces.trace import Trace

_REQUEST = ["user_id", "request_id"]


@goal("answer-unknown-then-learned")
def answer_unknown_then_learned(trace: Trace) -> int:
    """A client got no answer in time, asked again, and learned that the request had been accepted."""
    told = trace.events("client_answers")
    unknown = told[told["outcome"] == "unknown"].drop_duplicates(_REQUEST)
    accepted = told[told["outcome"] == "accepted"].drop_duplicates(_REQUEST)
    pairs = unknown.merge(accepted, on=_REQUEST, suffixes=("", "_accepted"))
    return int((pairs["t_accepted"] > pairs["t"]).sum())


@goal("asked-again-at-another-gateway")
def asked_again_at_another_gateway(trace: Trace) -> int:
    """A request was submitted at two gateways."""
    return int((trace.events("client_requests").groupby(_REQUEST)["host"].nunique() > 1).sum())


@goal("repeat-answered-from-memory")
def repeat_answered_from_memory(trace: Trace) -> int:
    """The balance core recognised a repeat and gave the first answer again."""
    return int((ints(trace.balance_events, "is_repeat") == 1).sum())


@goal("repeat-answered-by-another-incarnation")
def repeat_answered_by_another_incarnation(trace: Trace) -> int:
    """A repeat was recognised by an incarnation of the balance core that had not decided the request itself."""
    events, produced = trace.balance_events, trace.events("produced")
    mine = each_record(rows(produced, produced["topic"].to_numpy() == "balance.events"))
    decided = events.merge(mine[["partition", "offset", "producer_epoch"]], on=["partition", "offset"])
    decided = decided[decided["request_id"] != ""]
    first = decided[decided["is_repeat"] == 0].drop_duplicates(_REQUEST)
    pairs = decided[decided["is_repeat"] == 1].merge(first, on=_REQUEST, suffixes=("", "_first"))
    return int((pairs["producer_epoch"] != pairs["producer_epoch_first"]).sum())


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
    return int((trace.events("client_answers")["outcome"].to_numpy() == "invalid").sum())


@goal("read-raced-a-completion")
def read_raced_a_completion(trace: Trace) -> int:
    """A user's active orders were read while an order of that user was being completed."""
    reads, ended = trace.events("reads"), trace.completions
    mine = rows(reads, (reads["query"].to_numpy() == "active_orders") & (reads["outcome"].to_numpy() == "ok"))
    at, user = ints(ended, "t"), ints(ended, "user_id")
    return sum(
        bool(((user == who) & (at >= asked) & (at <= done)).any())
        for who, asked, done in zip(mine["user_id"].tolist(), mine["asked_t"].tolist(), mine["t"].tolist(), strict=True)
    )


@goal("read-behind-the-engine")
def read_behind_the_engine(trace: Trace) -> int:
    """A read showed an order as live that the engine had completed already: settlement had still to write it."""
    shown, ended = trace.events("read_rows"), trace.completions
    reads = trace.events("reads")
    live = rows(shown, np.isin(ints(shown, "status"), (0, 1)))
    pairs = live[["read_id", "order_id"]].merge(reads[["read_id", "asked_t"]], on="read_id")
    pairs = pairs.merge(ended[["order_id", "t"]], on="order_id")
    return int((pairs["t"] < pairs["asked_t"]).sum())


@goal("users-traded-across-gateways")
def users_traded_across_gateways(trace: Trace) -> int:
    """The two sides of a trade came in through different gateways."""
    asked = trace.events("client_requests")
    placed = rows(asked, np.isin(asked["command"].to_numpy(dtype=str), ("place", "replace")))
    placements, trades = trace.placements, trace.trades
    (said, done), size = codes(
        ("user_id", "request_id"), placed, placements.rename(columns={"client_order_id": "request_id"})
    )
    gateway = np.empty(size, dtype=object)
    gateway[said] = placed["host"].to_numpy()
    by_order = dict(zip(ints(placements, "order_id").tolist(), gateway[done].tolist(), strict=True))
    sides = zip(trades["maker_order_id"].tolist(), trades["taker_order_id"].tolist(), strict=True)
    return sum(by_order.get(maker) != by_order.get(taker) for maker, taker in sides)


def _answered(trace: Trace, reason: Reason) -> int:
    return int((ints(trace.balance_events, "reason") == int(reason)).sum())
