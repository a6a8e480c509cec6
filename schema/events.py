"""Every event that crosses between services (design sections 4.1 to 4.3).

The structs are encoded as arrays: the order of the fields is the wire format, so fields are only ever added at the end,
together with a new version in `schema.wire`. Codes are plain integers; `schema.codes` names them. Prices are ticks,
quantities lots, amounts atoms, times nanoseconds since 1970.

What flows where:

    order.requests    Request                         a client's wish, with integers, before anything is decided
    balance.events    BalanceEvent                    one for each input of the balance core; chained
    order.responses   OrderResponse                   the answer, later the engine's verdict
    validated.orders  ValidatedOrder                  a request whose funds are locked
    engine.outputs    EngineOutput                    one for each input of the engine; chained
    fund.updates      FundUpdate                      what an output does to one user's funds
    dead.letters      DeadLetter                      a client request that could not be decoded
    gateway.sessions  GatewaySession                  a gateway started; the record's offset is its session number
"""

from typing import Final

import msgspec

from schema.identifiers import AssetId, OrderId, SymbolId, TradeId, UserId


class Request(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What every client request carries.

    `request_id` is the client's own name for the request (for a new order: its client_order_id); a repeat with the same
    id gets the first answer again. `requested_at_ns` is the gateway's wall clock when it took the request.
    """

    request_id: str
    user_id: UserId
    requested_at_ns: int


class PlaceOrder(Request, array_like=True, frozen=True, gc=False, tag=1):
    """A new order. `price` is 0 for a market order; `max_spend` (quote atoms) is 0 except for a market buy."""

    order_id: OrderId
    symbol_id: SymbolId
    side: int
    order_type: int
    time_in_force: int
    price: int
    quantity: int
    max_spend: int


class CancelOrder(Request, array_like=True, frozen=True, gc=False, tag=2):
    """Take a live order out of the book."""

    order_id: OrderId
    symbol_id: SymbolId


class ReduceOrder(Request, array_like=True, frozen=True, gc=False, tag=3):
    """Lower an order's total quantity to `quantity`; it keeps its priority. At or below what is filled it completes."""

    order_id: OrderId
    symbol_id: SymbolId
    quantity: int


class ReplaceOrder(Request, array_like=True, frozen=True, gc=False, tag=4):
    """Cancel the live order `replaced_order_id` and place a limit order, in one input.

    If the first is no longer live, nothing is placed. If the new one is refused, the first is cancelled all the same.
    """

    order_id: OrderId
    symbol_id: SymbolId
    replaced_order_id: OrderId
    side: int
    time_in_force: int
    price: int
    quantity: int


class Deposit(Request, array_like=True, frozen=True, gc=False, tag=5):
    """Funds come in. `amount` is in atoms."""

    asset_id: AssetId
    amount: int


class Withdraw(Request, array_like=True, frozen=True, gc=False, tag=6):
    """Available funds go out. `amount` is in atoms."""

    asset_id: AssetId
    amount: int


OrderCommand = PlaceOrder | CancelOrder | ReduceOrder | ReplaceOrder
"""The requests that go on to the engine."""
FundsCommand = Deposit | Withdraw
AnyRequest = PlaceOrder | CancelOrder | ReduceOrder | ReplaceOrder | Deposit | Withdraw


class ValidatedOrder(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A request that the balance core accepted; for a place or replace its funds are locked.

    `source_partition` and `source_sequence` name the BalanceEvent that accepted it. `link_seq` counts from 1 without
    gaps what that partition has sent to this symbol partition, so the engine can tell a lost or doubled record.
    """

    source_partition: int
    source_sequence: int
    link_seq: int
    command: OrderCommand


class OrderState(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An order's whole state after a lifecycle event; with (user_id, symbol_id, created_at_ns, order_id) the row's key.

    `revision` is 1 at placement and one more with each event. `filled_quote` is the quote atoms traded so far.
    `reason` is why it ended or was refused, 0 while it lives. `client_order_id` is the request id that placed it.
    """

    order_id: OrderId
    user_id: UserId
    symbol_id: SymbolId
    created_at_ns: int
    updated_at_ns: int
    revision: int
    status: int
    reason: int
    side: int
    order_type: int
    time_in_force: int
    price: int
    quantity: int
    filled_quantity: int
    filled_quote: int
    max_spend: int
    client_order_id: str


class OrderPlacement(OrderState, array_like=True, frozen=True, gc=False):
    """The engine took the order. Revision 1; status NEW, though the same output may already fill it."""


class OrderUpdate(OrderState, array_like=True, frozen=True, gc=False):
    """The order lives on, changed: a fill that leaves a rest (at most one update per order and output), or a reduce."""


class OrderCompletion(OrderState, array_like=True, frozen=True, gc=False):
    """The order stopped being live: FILLED or CANCELLED, with the reason. Exactly one per placed order."""


class OrderRejected(OrderState, array_like=True, frozen=True, gc=False):
    """The engine refused the order: it never lived. Revision 1, status REJECTED, with the reason."""


class Trade(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A maker and a taker met. `price` is the maker's, in ticks. `trade_id` is unique within the symbol's partition."""

    trade_id: TradeId
    symbol_id: SymbolId
    price: int
    quantity: int
    quote_amount: int
    taker_side: int
    maker_order_id: OrderId
    maker_user_id: UserId
    taker_order_id: OrderId
    taker_user_id: UserId


class FundEntry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One change of a user's funds in one asset, in atoms; summed over an output's fills per order and kind.

    `kind` is an EntryKind: RELEASE, DEBIT or CREDIT. Both deltas are signed.
    """

    order_id: OrderId
    asset_id: AssetId
    kind: int
    available_delta: int
    locked_delta: int


class FundUpdate(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What one engine output means for one user. Every user touched gets one, the submitter always.

    `symbol_partition` and `output_seq` name the output. `link_seq` counts from 1 without gaps what that partition
    has sent to this user partition. For the submitter `request_id`, `verdict`, `reason` and `order_id` say what became
    of the request; for everybody else they are empty, 0, 0 and 0.
    """

    symbol_partition: int
    output_seq: int
    link_seq: int
    time_ns: int
    user_id: UserId
    request_id: str
    verdict: int
    reason: int
    order_id: OrderId
    entries: tuple[FundEntry, ...]


class EngineOutput(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Everything that one input did, in one chained record; its own hash travels beside it (`schema.wire`).

    `output_seq` counts from 1 without gaps per partition; `prev_hash` is the hash of the output before, 0 for the
    first. `time_ns` is engine time: the larger of the last one and the request's own.
    """

    symbol_partition: int
    output_seq: int
    prev_hash: int
    input_topic: str
    input_partition: int
    input_offset: int
    input: ValidatedOrder
    time_ns: int
    order_placements: tuple[OrderPlacement, ...]
    order_updates: tuple[OrderUpdate, ...]
    order_completions: tuple[OrderCompletion, ...]
    refusals: tuple[OrderRejected, ...]
    trades: tuple[Trade, ...]
    fund_updates: tuple[FundUpdate, ...]


class LedgerEntry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One change of a balance with the balance after it, in atoms.

    `ledger_seq` counts from 1 without gaps per user and asset. `kind` is an EntryKind; `order_id` is 0 for deposits and
    withdrawals.
    """

    asset_id: AssetId
    ledger_seq: int
    kind: int
    order_id: OrderId
    available_delta: int
    locked_delta: int
    available_after: int
    locked_after: int


class OrderResponse(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What the client is told. The first response is the answer; for an accepted order command a second one follows.

    `outcome` and `reason` are the balance core's answer. `verdict` and `verdict_reason` are the engine's, NONE until it
    is known. `order_id` is the order that the *first* request with this id was given, so a retry learns its order.
    `is_repeat` says that the request had been answered before and nothing was done again. `body_hash` is that of the
    very body that this answers (`schema.wire.body_hash`), for a refused reuse the refused one's; for a verdict, that of
    the request that the verdict is about, 0 when the balance core has forgotten it by then.
    """

    request_id: str
    user_id: UserId
    order_id: OrderId
    outcome: int
    reason: int
    verdict: int
    verdict_reason: int
    time_ns: int
    is_repeat: bool
    body_hash: int


class BalanceEvent(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One input of the balance core and all that it decided; the core's whole state is a fold over these.

    `time_ns` is event time: the larger of the last one and the input's own. `request` is the input from order.requests,
    None for a fund update and for a record that could not be decoded (then `response` is None too). `body_hash` is the
    request body's, by which a repeat is told from a reused id, 0 without a request. `response` is what was answered to
    the client, if anything. `validated_partition` and `validated_link_seq` name the record sent to the engine, -1 and 0
    if none. For a fund update, `update_partition`, `update_output_seq` and `update_link_seq` name it; else they are -1,
    0 and 0.
    """

    user_partition: int
    sequence: int
    prev_hash: int
    input_topic: str
    input_partition: int
    input_offset: int
    time_ns: int
    user_id: UserId
    request: AnyRequest | None
    body_hash: int
    response: OrderResponse | None
    validated_partition: int
    validated_link_seq: int
    update_partition: int
    update_output_seq: int
    update_link_seq: int
    entries: tuple[LedgerEntry, ...]


DEAD_LETTER_BYTES_MAX: Final = 64 * 1024
"""How much of a record a dead letter keeps. A record of the largest size would make a letter too large to send."""


class DeadLetter(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A record of order.requests that is not a request: where it stands, why it was refused, and its bytes, the first
    DEAD_LETTER_BYTES_MAX of them."""

    topic: str
    partition: int
    offset: int
    reason: str
    value: bytes


class GatewaySession(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A gateway instance started, at its own wall clock."""

    gateway: str
    started_at_ns: int
