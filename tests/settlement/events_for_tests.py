"""Events with everything filled in that a test does not care for, and chained records of them."""

from decimal import Decimal

from schema.events import (
    BalanceEvent,
    EngineOutput,
    LedgerEntry,
    OrderCompletion,
    OrderPlacement,
    OrderRejected,
    OrderResponse,
    OrderUpdate,
    PlaceOrder,
    Trade,
    ValidatedOrder,
)
from schema.symbols import Asset, Symbol, SymbolTable
from schema.topics import Topology
from schema.wire import seal


def small_topology() -> Topology:
    """Two symbols of different partitions, two user partitions."""
    btc, usd, eth = Asset(1, "BTC", 8), Asset(2, "USD", 4), Asset(3, "ETH", 8)
    return Topology(
        SymbolTable(
            [
                Symbol(1, "BTC-USD", btc, usd, Decimal("0.01"), Decimal("0.01"), 0),
                Symbol(2, "ETH-USD", eth, usd, Decimal("0.01"), Decimal("0.01"), 1),
            ]
        ),
        user_partitions=2,
    )


class Events:
    """Events with everything filled in that a test does not care for, and chained records of them."""

    def order(self, kind, order_id=1, revision=1, **changes):
        fields = {
            "order_id": order_id,
            "user_id": 10,
            "symbol_id": 1,
            "created_at_ns": 1_000 + order_id,
            "updated_at_ns": 1_000 + order_id + revision,
            "revision": revision,
            "status": {"OrderPlacement": 0, "OrderUpdate": 1, "OrderCompletion": 2, "OrderRejected": 4}[kind.__name__],
            "reason": 0,
            "side": 0,
            "order_type": 1,
            "time_in_force": 0,
            "price": 100,
            "quantity": 5,
            "filled_quantity": revision - 1,
            "filled_quote": 0,
            "max_spend": 0,
            "client_order_id": f"c{order_id}",
        }
        return kind(**(fields | changes))

    def placement(self, order_id=1, revision=1, **changes):
        return self.order(OrderPlacement, order_id, revision, **changes)

    def update(self, order_id=1, revision=2, **changes):
        return self.order(OrderUpdate, order_id, revision, **changes)

    def completion(self, order_id=1, revision=3, **changes):
        return self.order(OrderCompletion, order_id, revision, **changes)

    def refusal(self, order_id=1, revision=1, **changes):
        return self.order(OrderRejected, order_id, revision, **changes)

    def trade(self, trade_id=1, **changes):
        fields = {
            "trade_id": trade_id,
            "symbol_id": 1,
            "price": 100,
            "quantity": 2,
            "quote_amount": 200,
            "taker_side": 0,
            "maker_order_id": 7,
            "maker_user_id": 70,
            "taker_order_id": 8,
            "taker_user_id": 80,
        }
        return Trade(**(fields | changes))

    def place(self, order_id=1, **changes):
        fields = {
            "request_id": f"c{order_id}",
            "user_id": 10,
            "requested_at_ns": 1_000,
            "order_id": order_id,
            "symbol_id": 1,
            "side": 0,
            "order_type": 1,
            "time_in_force": 0,
            "price": 100,
            "quantity": 5,
            "max_spend": 0,
        }
        return PlaceOrder(**(fields | changes))

    def output(self, sequence=1, prev_hash=0, partition=0, events=(), trades=(), time_ns=5_000):
        def of(kind):
            return tuple(event for event in events if type(event) is kind)

        return EngineOutput(
            symbol_partition=partition,
            output_seq=sequence,
            prev_hash=prev_hash,
            input_topic="validated.orders",
            input_partition=partition,
            input_offset=sequence,
            input=ValidatedOrder(0, sequence, sequence, self.place(sequence)),
            time_ns=time_ns,
            order_placements=of(OrderPlacement),
            order_updates=of(OrderUpdate),
            order_completions=of(OrderCompletion),
            refusals=of(OrderRejected),
            trades=tuple(trades),
            fund_updates=(),
        )

    def entry(self, ledger_seq=1, asset_id=1, **changes):
        fields = {
            "asset_id": asset_id,
            "ledger_seq": ledger_seq,
            "kind": 0,
            "order_id": 0,
            "available_delta": 10,
            "locked_delta": 0,
            "available_after": 10 * ledger_seq,
            "locked_after": 0,
        }
        return LedgerEntry(**(fields | changes))

    def response(self, order_id=1, outcome=1, **changes):
        fields = {
            "request_id": f"c{order_id}",
            "user_id": 10,
            "order_id": order_id,
            "outcome": outcome,
            "reason": 47 if outcome else 0,
            "verdict": 0,
            "verdict_reason": 0,
            "time_ns": 5_000,
            "is_repeat": False,
            "body_hash": 0,
        }
        return OrderResponse(**(fields | changes))

    def balance_event(self, sequence=1, prev_hash=0, partition=0, request=None, response=None, entries=()):
        return BalanceEvent(
            user_partition=partition,
            sequence=sequence,
            prev_hash=prev_hash,
            input_topic="order.requests",
            input_partition=partition,
            input_offset=sequence,
            time_ns=5_000 + sequence,
            user_id=10,
            request=request,
            body_hash=0,
            response=response,
            validated_partition=-1,
            validated_link_seq=0,
            update_partition=-1,
            update_output_seq=0,
            update_link_seq=0,
            entries=tuple(entries),
        )

    def chain_of_outputs(self, *each_events, partition=0):
        """Record values of linked outputs, one for each tuple of lifecycle events."""
        values, prev_hash = [], 0
        for sequence, events in enumerate(each_events, 1):
            value, prev_hash = seal(self.output(sequence, prev_hash, partition, events))
            values.append(value)
        return values

    def chain_of_balance_events(self, *each_entries, partition=0):
        """Record values of linked balance events, one for each tuple of ledger entries."""
        values, prev_hash = [], 0
        for sequence, entries in enumerate(each_entries, 1):
            value, prev_hash = seal(self.balance_event(sequence, prev_hash, partition, entries=entries))
            values.append(value)
        return values
