"""The kinds of events that a trace holds, with their columns (design section 6).

Every row also has `seq` (its place in the run), `t` (nanoseconds since the run's start) and `host`, in front of the
columns listed here. A kind is one Parquet file. Column types: "int" (int64), "str", "bytes", "bool".
A missing integer is -1 where the column's meaning allows it, so that columns stay plain int64.
"""

from typing import Final

Columns = tuple[tuple[str, str], ...]


def _columns(text: str) -> Columns:
    parts = (part.split(":") for part in text.split())
    return tuple((name, kind) for name, kind in parts)


KINDS: Final[dict[str, Columns]] = {
    # What clients did and were told. `attempt` counts a request's submissions from 1; `command` is place, cancel,
    # reduce, replace, deposit or withdraw; `order_id` is the order to cancel, reduce or replace, else 0. Recorded when
    # the client sends to the gateway `host`.
    "client_requests": _columns(
        "user_id:int request_id:str attempt:int command:str symbol_id:int order_id:int side:int order_type:int "
        "time_in_force:int price:int quantity:int max_spend:int asset_id:int amount:int"
    ),
    # What the client received: `outcome` is accepted, rejected, unknown (no answer in time) or invalid (refused by the
    # gateway); `verdict` is a schema.codes.Verdict, 0 while unknown.
    "client_answers": _columns(
        "user_id:int request_id:str attempt:int command:str outcome:str reason:int verdict:int verdict_reason:int "
        "order_id:int message:str"
    ),
    # A read by a client: `query` is active_orders, order, history, trades or balances; `symbol_id` 0 when not limited
    # to one; `outcome` ok, or the error. `asked_t` is when the query began at the gateway; `t` when it ended there.
    "reads": _columns(
        "read_id:int user_id:int query:str symbol_id:int order_id:int row_limit:int asked_t:int outcome:str rows:int"
    ),
    # One row of an answer to a read of orders, in the answer's order (`position` from 0).
    "read_rows": _columns(
        "read_id:int position:int user_id:int symbol_id:int order_id:int created_at:int revision:int status:int "
        "quantity:int filled_quantity:int"
    ),
    # Records appended together to a partition's log, at its leader: those from first_offset on. `producer_id` -1 for a
    # plain producer. `values_hash` is the signed xxh3_64 of their values, one after the other.
    "produced": _columns(
        "topic:str partition:int first_offset:int records:int producer_id:int producer_epoch:int transactional:bool "
        "size_bytes:int values_hash:int"
    ),
    # A consumer on `host` was handed records first_offset..last_offset of a partition; group "" without one.
    "delivered": _columns("group:str topic:str partition:int first_offset:int last_offset:int records:int"),
    # An offset commit as its coordinator decided it: `outcome` ok or the error; generation -1 in a transaction.
    "offset_commits": _columns(
        "group:str topic:str partition:int offset:int member:str generation:int transactional:bool outcome:str"
    ),
    # `action` is init, begin, commit, abort, timeout or fenced.
    "transactions": _columns("transactional_id:str producer_id:int producer_epoch:int action:str outcome:str"),
    # `action` is join, leave, expire, assign or revoke, of a `member`; `assignment` is "topic-partition ..." sorted.
    "rebalances": _columns("group:str generation:int member:str action:str assignment:str"),
    # What a read-committed reader finds in a topic at the end of the run. `appended_t` is when the leader appended it.
    "kafka_log": _columns(
        "topic:str partition:int offset:int appended_t:int timestamp_ms:int producer_id:int key:bytes value:bytes"
    ),
    # A CQL statement when its outcome reached the client (or its client gave up); one under way when the client's
    # process ended has no outcome, and is not here. `statement_id` names the text in the manifest. user_id, symbol_id,
    # order_id are the bound values of those columns, -1 where the statement has none. `write_timestamp` and `ttl` are
    # -1 without. `replicas` is how many replicas acknowledged before the answer.
    "cql": _columns(
        "statement_id:int table:str operation:str user_id:int symbol_id:int order_id:int write_timestamp:int ttl:int "
        "consistency:str started_t:int outcome:str replicas:int"
    ),
    # Faults as they struck. `phase` is start or end. `duration_ns` and `strength`
    # are the parameters of the strike (docs/faults.md has their meaning); `moment` is what it waited for, "" for
    # nothing, and `has_met` whether that came: a strike that waited in vain struck all the same.
    "faults": _columns(
        "fault:str phase:str target:str detail:str duration_ns:int strength:int moment:str has_met:bool"
    ),
    # `event` is start, ready, crash, stop, terminated, pause, resume, exit. `detail` is the error of an exit.
    "lifecycle": _columns("event:str incarnation:int service:str detail:str"),
    # An alarm raised by a service; topic "" and partition, offset -1 where it names none.
    "alarms": _columns("service:str message:str topic:str partition:int offset:int"),
    # A service's log line. order_id 0 where it is not about one order; `fields` is the rest as canonical JSON.
    "log_lines": _columns("service:str level:str event:str order_id:int fields:str"),
    # Phases of the run: work, heal, settle, settled, stopped, later; `detail` says why settling failed.
    "phases": _columns("phase:str detail:str"),
}
"""Recorded while a run goes on. `t` never decreases along `seq`."""

PROCESS_ENDS: Final = ("crash", "terminated", "exit")
"""The events of `lifecycle` with which a process ends, and whatever it was about."""

_ORDER_ROW = (
    "user_id:int symbol_id:int created_at:int order_id:int updated_at:int revision:int status:int reason:int side:int "
    "order_type:int time_in_force:int price:int quantity:int filled_quantity:int filled_quote:int max_spend:int "
    "client_order_id:str"
)
_LOOK = "look:int "

FINAL_KINDS: Final[dict[str, Columns]] = {
    # The tables as read through the driver at ALL, twice: `look` 0 once settled, 1 when 25 hours have passed.
    # write_timestamp and ttl are those of a regular column (ttl -1: none).
    "final_active_orders": _columns(_LOOK + _ORDER_ROW + " write_timestamp:int ttl:int"),
    "final_order_history": _columns(_LOOK + _ORDER_ROW + " write_timestamp:int ttl:int"),
    "final_order_lookup": _columns(
        _LOOK + "order_id:int user_id:int symbol_id:int created_at:int revision:int write_timestamp:int ttl:int"
    ),
    "final_user_trades": _columns(
        _LOOK + "user_id:int symbol_id:int traded_at:int trade_id:int order_id:int side:int is_maker:bool price:int "
        "quantity:int quote_amount:int symbol_partition:int output_seq:int write_timestamp:int ttl:int"
    ),
    "final_balance_ledger": _columns(
        _LOOK + "user_id:int asset_id:int ledger_seq:int kind:int order_id:int available_delta:int locked_delta:int "
        "available_after:int locked_after:int recorded_at:int user_partition:int event_seq:int write_timestamp:int "
        "ttl:int"
    ),
    "final_user_balances": _columns(
        _LOOK + "user_id:int asset_id:int available:int locked:int ledger_seq:int updated_at:int write_timestamp:int "
        "ttl:int"
    ),
    "final_settlement_progress": _columns(
        _LOOK + "topic:str partition_id:int sequence:int hash:int next_offset:int write_timestamp:int ttl:int"
    ),
}
"""Read at the end of a run, or from a live store by an audit."""

ALL_KINDS: Final[dict[str, Columns]] = {**KINDS, **FINAL_KINDS}
"""Every kind that can be recorded, with its own columns."""
