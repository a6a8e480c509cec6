"""A world without time or faults that leaves a trace: the real deciding code, called step by step.

Requests go through the balance core and the engine, whose records land in a log, whose rows land in tables. A test
then damages what it likes (`log`, `events`) and asks what the invariants say.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec

from engine.matching import MatchingEngine
from engine.ubscore import BalanceCore, Decision
from schema import topics, wire
from schema.codes import LIVE_STATUSES, OrderType, Side, TimeInForce
from schema.events import (
    CancelOrder,
    DeadLetter,
    Deposit,
    EngineOutput,
    PlaceOrder,
    ReduceOrder,
    ReplaceOrder,
    Withdraw,
)
from schema.identifiers import INT64_MAX, AssetId, OrderId, SymbolId, UserId
from schema.symbols import Asset, Symbol, SymbolTable
from schema.tables import ORDER_COLUMNS, TABLE_COLUMNS
from settlement.rows import RowBatch
from traces.kinds import FINAL_KINDS, KINDS
from traces.manifest import Manifest, TopologyRecord, package_versions
from traces.recorder import Recorder
from traces.trace import Trace

BTC, ETH, USD = Asset(AssetId(1), "BTC", 8), Asset(AssetId(2), "ETH", 8), Asset(AssetId(3), "USD", 2)
BTC_USD = Symbol(SymbolId(1), "BTC-USD", BTC, USD, Decimal("1"), Decimal("0.01"), 0)
ETH_USD = Symbol(SymbolId(2), "ETH-USD", ETH, USD, Decimal("1"), Decimal("0.1"), 1)
TOPOLOGY = topics.Topology(SymbolTable([BTC_USD, ETH_USD]), user_partitions=2)

EPOCH_NS = 1_700_000_000_000_000_000
STEP_NS = 10_000_000
DAY_NS = 24 * 3600 * 10**9

BUY, SELL = int(Side.BUY), int(Side.SELL)
LIMIT, MARKET = int(OrderType.LIMIT), int(OrderType.MARKET)
GTC, IOC, FOK, POST_ONLY = (int(each) for each in TimeInForce)

CODECS: dict[str, wire.Codec[Any]] = {
    topics.ORDER_REQUESTS: wire.REQUEST,
    topics.VALIDATED_ORDERS: wire.VALIDATED_ORDER,
    topics.ENGINE_OUTPUTS: wire.ENGINE_OUTPUT,
    topics.FUND_UPDATES: wire.FUND_UPDATE,
    topics.BALANCE_EVENTS: wire.BALANCE_EVENT,
    topics.ORDER_RESPONSES: wire.ORDER_RESPONSE,
}

Row = dict[str, Any]


class MiniWorld:
    """`events` holds the rows of each kind as dictionaries, `log` the records by topic and partition."""

    def __init__(self, *, funded_users: int = 4) -> None:
        self.t = 0
        self.log: dict[tuple[str, int], list[tuple[int, bytes]]] = {}
        self.events: dict[str, list[Row]] = {kind: [] for kind in (*KINDS, *FINAL_KINDS) if kind != "kafka_log"}
        self._cores = [BalanceCore(TOPOLOGY, number) for number in range(2)]
        self._engines = [MatchingEngine(TOPOLOGY, number) for number in range(2)]
        self._orders: dict[int, Any] = {}
        self._next_order = 0
        self._next_request = 0
        self._next_read = 0
        self.emit("phases", phase="work", detail="")
        for user in range(1, funded_users + 1):
            for asset in (BTC, ETH, USD):
                self.transfer(user, asset.asset_id, 10**12)

    def emit(self, kind: str, /, **columns: Any) -> Row:
        """Record an event now; columns not given are 0 or empty."""
        defaults = {"int": 0, "str": "", "bool": False, "bytes": b""}
        row = {"t": self.t, "host": "", **{name: defaults[type_] for name, type_ in {**KINDS, **FINAL_KINDS}[kind]}}
        assert not columns.keys() - row.keys(), columns.keys() - row.keys()
        row.update(columns)
        self.events[kind].append(row)
        return row

    def transfer(self, user: int, asset: int, amount: int, *, request_id: str = "") -> Row:
        """Deposit, or withdraw a negative amount; returns the client's answer."""
        kind = Deposit if amount > 0 else Withdraw
        request_id = request_id or self._request_id()
        return self._submit(kind(request_id, UserId(user), self._now(), AssetId(asset), abs(amount)))

    def place(
        self, user: int, side: int, price: int, quantity: int, *, tif: int = GTC, symbol: int = 1, max_spend: int = 0,
        order_type: int = LIMIT, request_id: str = "",
    ) -> int:  # fmt: skip
        """Place an order; returns its id."""
        self._next_order += 1
        order_id = self._next_order
        request_id = request_id or self._request_id()
        self._submit(
            PlaceOrder(
                request_id,
                UserId(user),
                self._now(),
                OrderId(order_id),
                SymbolId(symbol),
                side,
                order_type,
                tif,
                price,
                quantity,
                max_spend,
            )
        )
        return order_id

    def cancel(self, user: int, order_id: int, *, symbol: int = 1) -> Row:
        """Cancel an order; returns the client's answer."""
        return self._submit(
            CancelOrder(self._request_id(), UserId(user), self._now(), OrderId(order_id), SymbolId(symbol))
        )

    def reduce(self, user: int, order_id: int, quantity: int, *, symbol: int = 1) -> Row:
        """Reduce an order; returns the client's answer."""
        request_id, user_id = self._request_id(), UserId(user)
        return self._submit(
            ReduceOrder(request_id, user_id, self._now(), OrderId(order_id), SymbolId(symbol), quantity)
        )

    def replace(self, user: int, order_id: int, side: int, price: int, quantity: int, *, symbol: int = 1) -> int:
        """Replace an order; returns the id of the new one."""
        self._next_order += 1
        new = self._next_order
        self._submit(
            ReplaceOrder(
                self._request_id(),
                UserId(user),
                self._now(),
                OrderId(new),
                SymbolId(symbol),
                OrderId(order_id),
                side,
                GTC,
                price,
                quantity,
            )
        )
        return new

    def read(self, user: int, *, symbol: int = 0, limit: int = 0) -> int:
        """Read a user's active orders; returns the read's id."""
        live = [
            state
            for state in self._orders.values()
            if state.user_id == user and state.status in LIVE_STATUSES and symbol in (0, state.symbol_id)
        ]
        live.sort(key=lambda state: (-state.created_at_ns, -state.order_id))
        return self._answer("active_orders", user, live[:limit] if limit else live, symbol=symbol, limit=limit)

    def read_order(self, user: int, order_id: int) -> int:
        """Read one order; returns the read's id."""
        return self._answer("order", user, [self._orders[order_id]], order_id=order_id)

    def submit_garbage(self) -> None:
        """A record of order.requests that is none: it goes to the dead letters."""
        self.t += STEP_NS
        offset = self._append(topics.ORDER_REQUESTS, 0, b"garbage")
        self._balance_event(self._cores[0].apply_undecodable(topics.ORDER_REQUESTS, 0, offset))
        letter = DeadLetter(topics.ORDER_REQUESTS, 0, offset, "not a request", b"garbage")
        self._append(topics.DEAD_LETTERS, 0, wire.encode(letter))

    def settle(self) -> "MiniWorld":
        """The end of the run: the rows as they must be, now and 25 hours later."""
        self.t += STEP_NS
        for phase in ("heal", "settle", "settled"):
            self.emit("phases", phase=phase)
        self._final_rows(0)
        self.t += 25 * 3600 * 10**9
        for phase in ("stopped", "later"):
            self.emit("phases", phase=phase)
        self._final_rows(1)
        return self

    def decoded(self, topic: str, partition: int) -> list[Any]:
        """The events of a partition."""
        return [CODECS[topic].decode(value) for _, value in self.log.get((topic, partition), ())]

    def rewrite(self, topic: str, partition: int, change: Callable[[Any], Any]) -> None:
        """Pass each event through `change` (None drops it) and seal the chain anew, so that only `change` is wrong."""
        records, previous = [], 0
        for t, value in self.log[topic, partition]:
            event = change(CODECS[topic].decode(value))
            if event is None:
                continue
            if topic in topics.CHAINED_TOPICS:
                event = msgspec.structs.replace(event, prev_hash=previous)
            value, previous = wire.seal(event)
            records.append((t, value))
        self.log[topic, partition] = records

    def rewrite_outputs(self, change: Callable[[EngineOutput], EngineOutput | None], *, partition: int = 0) -> None:
        """`rewrite` for engine.outputs; settlement's progress follows, as the rows of an engine that lied would."""
        self.rewrite(topics.ENGINE_OUTPUTS, partition, change)
        self._follow_progress()

    def trace(self) -> Trace:
        """The trace as recorded."""
        return Trace.of(self.recorder(), self.manifest())

    def recorder(self) -> Recorder:
        """A recorder with everything in it."""
        recorder = Recorder()
        everything = [(row["t"], kind, row) for kind, rows in self.events.items() for row in rows]
        for _, kind, row in sorted(everything, key=lambda each: each[0]):
            recorder.emitter(kind)(*row.values())
        emit = recorder.emitter("kafka_log")
        for (topic, partition), records in sorted(self.log.items()):
            for offset, (t, value) in enumerate(records):
                emit(self.t, "", topic, partition, offset, t, t // 1_000_000, -1, b"", value)
        return recorder

    def manifest(self) -> Manifest:
        """A manifest for the trace."""
        return Manifest(seed=1, epoch_ns=EPOCH_NS, packages=package_versions(), topology=TopologyRecord.of(TOPOLOGY))

    def _request_id(self) -> str:
        self._next_request += 1
        return f"r{self._next_request}"

    def _now(self) -> int:
        return EPOCH_NS + self.t

    def _append(self, topic: str, partition: int, value: bytes) -> int:
        records = self.log.setdefault((topic, partition), [])
        records.append((self.t, value))
        return len(records) - 1

    def _submit(self, request: Any) -> Row:
        self.t += STEP_NS
        user = request.user_id
        name = type(request).__name__.removesuffix("Order").removesuffix("draw").lower()
        command = {"with": "withdraw"}.get(name, name)
        self.emit(
            "client_requests", user_id=user, request_id=request.request_id, attempt=1, command=command,
            **_written(request),
        )  # fmt: skip
        partition = TOPOLOGY.user_partition(user)
        offset = self._append(topics.ORDER_REQUESTS, partition, wire.encode(request))
        decision = self._cores[partition].apply_request(request, topics.ORDER_REQUESTS, partition, offset)
        verdict, order_id = (0, 0), 0
        self._balance_event(decision)
        response = decision.response
        assert response is not None
        if decision.validated is not None:
            verdict, order_id = self._match(decision.event.validated_partition, decision.validated)
        self.t += 1_000_000
        return self.emit(
            "client_answers", user_id=user, request_id=request.request_id, attempt=1, command=command,
            outcome="accepted" if response.outcome == 0 else "rejected", reason=response.reason, verdict=verdict[0],
            verdict_reason=verdict[1], order_id=order_id or response.order_id,
        )  # fmt: skip

    def _balance_event(self, decision: Decision) -> None:
        event = decision.event
        self._append(topics.BALANCE_EVENTS, event.user_partition, decision.value)
        if decision.response is not None:
            self._append(topics.ORDER_RESPONSES, event.user_partition, wire.encode(decision.response))

    def _match(self, partition: int, validated: Any) -> tuple[tuple[int, int], int]:
        offset = self._append(topics.VALIDATED_ORDERS, partition, wire.encode(validated))
        output, value, _ = self._engines[partition].apply(validated, topics.VALIDATED_ORDERS, partition, offset)
        self._append(topics.ENGINE_OUTPUTS, partition, value)
        verdict, order_id = (0, 0), 0
        for update in output.fund_updates:
            user_partition = TOPOLOGY.user_partition(update.user_id)
            at = self._append(topics.FUND_UPDATES, user_partition, wire.encode(update))
            self._balance_event(
                self._cores[user_partition].apply_update(update, topics.FUND_UPDATES, user_partition, at)
            )
            if update.request_id:
                verdict, order_id = (update.verdict, update.reason), update.order_id
        started = self.t + 100_000
        for state in (*output.order_placements, *output.order_updates, *output.order_completions):
            self._orders[state.order_id] = state
            for table in ("active_orders", "order_lookup", "order_history"):
                row = self.emit(
                    "cql", table=table, operation="insert", user_id=state.user_id, symbol_id=state.symbol_id,
                    order_id=state.order_id, write_timestamp=state.revision, ttl=-1, consistency="LOCAL_QUORUM",
                    started_t=started, outcome="ok", replicas=2,
                )  # fmt: skip
                row["t"] = self.t + 500_000
        return verdict, order_id

    def _answer(
        self, query: str, user: int, states: list[Any], *, symbol: int = 0, order_id: int = 0, limit: int = 0
    ) -> int:
        self.t += STEP_NS
        self._next_read += 1
        read_id = self._next_read
        for position, state in enumerate(states):
            self.emit(
                "read_rows", read_id=read_id, position=position, user_id=state.user_id, symbol_id=state.symbol_id,
                order_id=state.order_id, created_at=state.created_at_ns, revision=state.revision, status=state.status,
                quantity=state.quantity, filled_quantity=state.filled_quantity,
            )  # fmt: skip
        self.emit(
            "reads", read_id=read_id, user_id=user, query=query, symbol_id=symbol, order_id=order_id, row_limit=limit,
            asked_t=self.t - 1_000_000, outcome="ok", rows=len(states),
        )  # fmt: skip
        return read_id

    def _final_rows(self, look: int) -> None:
        batch = RowBatch()
        for partition in range(2):
            for output in self.decoded(topics.ENGINE_OUTPUTS, partition):
                batch.add_output(output)
            for event in self.decoded(topics.BALANCE_EVENTS, partition):
                batch.add_balance_event(event)
        for state in batch.orders.values():
            values = dict(zip(ORDER_COLUMNS, _state_row(state), strict=True))
            finished = state.status not in LIVE_STATUSES
            ttl = 24 * 3600 if finished else -1
            stamps = {"look": look, "write_timestamp": state.revision}
            self.emit("final_order_history", **values, **stamps, ttl=-1)
            if look == 0 or not finished:
                self.emit("final_active_orders", **values, **stamps, ttl=ttl)
                lookup = {name: values[name] for name in TABLE_COLUMNS["order_lookup"]}
                self.emit("final_order_lookup", **lookup, **stamps, ttl=ttl)
        for refusal in batch.refused.values():
            values = dict(zip(ORDER_COLUMNS, _state_row(refusal), strict=True))
            self.emit("final_order_history", **values, look=look, write_timestamp=1, ttl=-1)
        for trade in batch.trades:
            self.emit("final_user_trades", **trade._asdict(), look=look, write_timestamp=trade.output_seq, ttl=-1)
        for entry in batch.ledger:
            self.emit("final_balance_ledger", **entry._asdict(), look=look, write_timestamp=entry.ledger_seq, ttl=-1)
        for balance in batch.balances.values():
            self.emit("final_user_balances", **balance._asdict(), look=look, write_timestamp=balance.ledger_seq, ttl=-1)
        self._progress_rows(look)

    def _progress_rows(self, look: int) -> None:
        for topic, sequence in ((topics.ENGINE_OUTPUTS, "output_seq"), (topics.BALANCE_EVENTS, "sequence")):
            for partition in range(2):
                records = self.log.get((topic, partition))
                if records:
                    event, digest = CODECS[topic].unseal(records[-1][1])
                    seq = getattr(event, sequence)
                    self.emit(
                        "final_settlement_progress", look=look, topic=topic, partition_id=partition, sequence=seq,
                        hash=digest, next_offset=len(records), write_timestamp=seq, ttl=-1,
                    )  # fmt: skip

    def _follow_progress(self) -> None:
        looks = sorted({row["look"] for row in self.events["final_settlement_progress"]})
        self.events["final_settlement_progress"].clear()
        for look in looks:
            self._progress_rows(look)


def _written(request: Any) -> Row:
    """What a client writes in a request, as client_requests has it: a new order's id is not the client's."""
    names = (
        "symbol_id", "order_id", "side", "order_type", "time_in_force", "price", "quantity", "max_spend", "asset_id",
        "amount",
    )  # fmt: skip
    written = {name: min(getattr(request, name), INT64_MAX) for name in names if hasattr(request, name)}
    if isinstance(request, PlaceOrder | ReplaceOrder):
        written["order_id"] = getattr(request, "replaced_order_id", 0)
    return written


def _state_row(state: Any) -> tuple[Any, ...]:
    return (
        state.user_id, state.symbol_id, state.created_at_ns, state.order_id, state.updated_at_ns, state.revision,
        state.status, state.reason, state.side, state.order_type, state.time_in_force, state.price, state.quantity,
        state.filled_quantity, state.filled_quote, state.max_spend, state.client_order_id,
    )  # fmt: skip
