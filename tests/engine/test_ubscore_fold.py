"""The balance core's state is a fold over its events, funds are conserved, and a snapshot is the state (design 4.2)."""

from collections import deque

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.balance_fold import REQUEST_MEMORY_NS
from engine.corruption import CorruptInputError
from engine.matching import MatchingEngine
from engine.ubscore import BalanceCore, Decision
from schema.codes import EntryKind, OrderStatus, OrderType, Side, TimeInForce
from schema.events import (
    AnyRequest,
    CancelOrder,
    Deposit,
    FundUpdate,
    OrderState,
    PlaceOrder,
    ReduceOrder,
    ReplaceOrder,
    ValidatedOrder,
    Withdraw,
)
from schema.topics import FUND_UPDATES, ORDER_REQUESTS, VALIDATED_ORDERS
from tests.engine.exchange_for_tests import Desk, deposit, place, topology, users_of

TOPOLOGY = topology(user_partitions=2)
USERS = [*users_of(TOPOLOGY, 0, 2), *users_of(TOPOLOGY, 1, 2)]

# Ids are drawn from few, so that repeats, reused ids and duplicate orders happen.
user_ids = st.sampled_from(USERS)
request_ids = st.integers(1, 40).map("r{}".format)
order_ids = st.integers(1, 30)
symbol_ids = st.sampled_from([1, 2])
asset_ids = st.sampled_from([1, 2, 3])
prices = st.integers(1, 6)
quantities = st.integers(0, 5)
sides = st.sampled_from([0, 1])
times = st.integers(0, 50) | st.just(REQUEST_MEMORY_NS + 10)

requests: st.SearchStrategy[AnyRequest] = st.one_of(
    st.builds(
        PlaceOrder,
        request_ids,
        user_ids,
        times,
        order_ids,
        symbol_ids,
        sides,
        st.just(OrderType.LIMIT.value),
        st.sampled_from([each.value for each in TimeInForce]),
        prices,
        quantities,
        st.just(0),
    ),
    st.builds(
        PlaceOrder,
        request_ids,
        user_ids,
        times,
        order_ids,
        symbol_ids,
        sides,
        st.just(OrderType.MARKET.value),
        st.sampled_from([TimeInForce.IOC.value, TimeInForce.FOK.value]),
        st.just(0),
        quantities,
        st.integers(0, 12),
    ),
    st.builds(CancelOrder, request_ids, user_ids, times, order_ids, symbol_ids),
    st.builds(ReduceOrder, request_ids, user_ids, times, order_ids, symbol_ids, quantities),
    st.builds(
        ReplaceOrder,
        request_ids,
        user_ids,
        times,
        order_ids,
        symbol_ids,
        order_ids,
        sides,
        st.sampled_from([each.value for each in TimeInForce]),
        prices,
        quantities,
    ),
    st.builds(Deposit, request_ids, user_ids, times, asset_ids, st.integers(1, 30)),
    st.builds(Withdraw, request_ids, user_ids, times, asset_ids, st.integers(1, 30)),
)
# 0 to 3: deliver the next record of one of the four queues between the services; else the next request.
schedules = st.lists(st.integers(0, 9), max_size=200)


class Exchange:
    """Two balance cores and two engines, joined by queues that a schedule empties in any order."""

    def __init__(self) -> None:
        self.cores = [BalanceCore(TOPOLOGY, partition) for partition in range(TOPOLOGY.user_partitions)]
        self.engines = [MatchingEngine(TOPOLOGY, partition) for partition in range(TOPOLOGY.symbol_partitions)]
        self.to_engines: list[deque[ValidatedOrder]] = [deque() for _ in self.engines]
        self.to_cores: list[deque[FundUpdate]] = [deque() for _ in self.cores]
        self.logs: list[list[Decision]] = [[] for _ in self.cores]
        self.orders: dict[tuple[int, int], OrderState] = {}
        self.offset = 0
        for user in USERS:
            for asset in (1, 2, 3):
                amount = 10**9 if asset != 2 else 40
                self.request(Deposit(f"seed-{asset}", user, 0, asset, amount))

    def request(self, request: AnyRequest) -> None:
        partition = TOPOLOGY.user_partition(request.user_id)
        self.offset += 1
        self._record(partition, self.cores[partition].apply_request(request, ORDER_REQUESTS, partition, self.offset))

    def deliver(self, queue: int) -> None:
        """Let the next record of a queue be applied, if there is one."""
        self.offset += 1
        if queue < len(self.engines):
            if self.to_engines[queue]:
                order = self.to_engines[queue].popleft()
                output = self.engines[queue].apply(order, VALIDATED_ORDERS, queue, self.offset).output
                for events in (output.order_placements, output.order_updates, output.order_completions):
                    for state in events:
                        self.orders[state.symbol_id, state.order_id] = state
                for update in output.fund_updates:
                    self.to_cores[TOPOLOGY.user_partition(update.user_id)].append(update)
            return
        partition = queue - len(self.engines)
        if self.to_cores[partition]:
            update = self.to_cores[partition].popleft()
            self._record(partition, self.cores[partition].apply_update(update, FUND_UPDATES, partition, self.offset))

    def settle(self) -> None:
        while any(self.to_engines) or any(self.to_cores):
            for queue in range(len(self.engines) + len(self.cores)):
                self.deliver(queue)

    def _record(self, partition: int, decision: Decision) -> None:
        self.logs[partition].append(decision)
        if decision.validated is not None:
            self.to_engines[decision.event.validated_partition].append(decision.validated)


def run(wishes: list[AnyRequest], schedule: list[int]) -> Exchange:
    exchange = Exchange()
    pending = deque(wishes)
    for turn in schedule:
        if turn < 4:
            exchange.deliver(turn)
        elif pending:
            exchange.request(pending.popleft())
    while pending:
        exchange.request(pending.popleft())
    return exchange


worlds = given(wishes=st.lists(requests, max_size=60), schedule=schedules)
modest = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@worlds
@modest
def test_once_settled_balances_sum_to_deposits_minus_withdrawals(wishes: list[AnyRequest], schedule: list[int]) -> None:
    exchange = run(wishes, schedule)
    exchange.settle()
    for asset in (1, 2, 3):
        held = sum(
            balance.available + balance.locked
            for core in exchange.cores
            for (_, held_asset), balance in core.balances.items()
            if held_asset == asset
        )
        assert held == sum(core.net_deposits.get(asset, 0) for core in exchange.cores)


@worlds
@modest
def test_nothing_is_ever_negative(wishes: list[AnyRequest], schedule: list[int]) -> None:
    exchange = run(wishes, schedule)
    exchange.settle()
    for log in exchange.logs:
        for decision in log:
            for entry in decision.event.entries:
                assert entry.available_after >= 0
                assert entry.locked_after >= 0


@worlds
@modest
def test_once_settled_what_is_locked_is_what_the_live_orders_need(
    wishes: list[AnyRequest], schedule: list[int]
) -> None:
    exchange = run(wishes, schedule)
    exchange.settle()
    needed: dict[tuple[int, int], int] = {}
    for state in exchange.orders.values():
        if state.status in (OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED):
            symbol = TOPOLOGY.symbols.symbols[state.symbol_id]
            rest = state.quantity - state.filled_quantity
            if state.side == Side.BUY:
                asset, amount = symbol.quote.asset_id, symbol.quote_atoms(state.price, rest)
            else:
                asset, amount = symbol.base.asset_id, symbol.base_atoms(rest)
            needed[state.user_id, asset] = needed.get((state.user_id, asset), 0) + amount
    locked = {
        key: balance.locked for core in exchange.cores for key, balance in core.balances.items() if balance.locked
    }
    assert locked == needed


@worlds
@modest
def test_the_fold_of_the_log_is_the_live_state_at_every_prefix(wishes: list[AnyRequest], schedule: list[int]) -> None:
    top = TOPOLOGY
    exchange = run(wishes, schedule)
    exchange.settle()
    for partition, log in enumerate(exchange.logs):
        live = BalanceCore(top, partition)
        folded = BalanceCore(top, partition)
        for decision in log:
            _decide_again(live, decision)
            folded.fold(decision.event, decision.hash)
            assert folded.snapshot() == live.snapshot()
        assert folded.snapshot() == exchange.cores[partition].snapshot()


def _decide_again(core: BalanceCore, decision: Decision) -> None:
    """Give a core the same input once more, as the live one had it: a request is in the event itself."""
    event = decision.event
    if event.request is not None:
        again = core.apply_request(event.request, event.input_topic, event.input_partition, event.input_offset)
        assert again == decision
    else:
        core.fold(event, decision.hash)


@worlds
@modest
def test_a_restored_snapshot_goes_on_as_the_live_core_does(wishes: list[AnyRequest], schedule: list[int]) -> None:
    exchange = run(wishes, schedule)
    for partition, core in enumerate(exchange.cores):
        data = core.snapshot()
        restored = BalanceCore.restore(TOPOLOGY, partition, data)
        assert restored.snapshot() == data
        for request in wishes:
            if TOPOLOGY.user_partition(request.user_id) == partition:
                assert restored.apply_request(request, ORDER_REQUESTS, partition, 10**6) == core.apply_request(
                    request, ORDER_REQUESTS, partition, 10**6
                )


@worlds
@modest
def test_asking_everything_again_moves_no_funds(wishes: list[AnyRequest], schedule: list[int]) -> None:
    exchange = run([each for each in wishes if each.requested_at_ns <= 50], schedule)
    exchange.settle()
    balances = [dict(core.balances) for core in exchange.cores]
    copies = [{key: msgspec.structs.astuple(balance) for key, balance in each.items()} for each in balances]
    for log in exchange.logs:
        for decision in list(log):
            response = decision.response
            if decision.event.request is not None and response is not None and not response.is_repeat:
                exchange.request(decision.event.request)
                again = exchange.logs[exchange.cores[0].topology.user_partition(response.user_id)][-1].response
                assert again is not None
                assert (again.outcome, again.reason) == (response.outcome, response.reason)
    exchange.settle()
    for core, copy in zip(exchange.cores, copies, strict=True):
        assert {key: msgspec.structs.astuple(balance) for key, balance in core.balances.items()} == copy


# -- an event that cannot follow is refused


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    desk.ask(deposit(1_000))
    desk.ask(place(1))
    return desk


@pytest.mark.parametrize(
    "change",
    [
        {"sequence": 4},
        {"sequence": 2},
        {"prev_hash": 5},
        {"user_partition": 1},
        {"time_ns": 0},
    ],
)
def test_an_event_that_does_not_link_is_refused(desk: Desk, change: dict[str, int]) -> None:
    event = desk.ask(place(2)).event
    folded = BalanceCore(topology(), 0)
    for decision in desk.log[:-1]:
        folded.fold(decision.event, decision.hash)
    with pytest.raises(CorruptInputError):
        folded.fold(msgspec.structs.replace(event, **change), 1)


@pytest.mark.parametrize(
    "change", [{"available_after": 1}, {"locked_after": 1}, {"ledger_seq": 3}, {"locked_delta": 1}]
)
def test_an_entry_that_does_not_add_up_is_refused(desk: Desk, change: dict[str, int]) -> None:
    lock = desk.log[-1]
    assert lock.event.entries[0].kind == EntryKind.LOCK
    folded = BalanceCore(topology(), 0)
    folded.fold(desk.log[0].event, desk.log[0].hash)
    altered = (msgspec.structs.replace(lock.event.entries[0], **change),)
    with pytest.raises(CorruptInputError):
        folded.fold(msgspec.structs.replace(lock.event, entries=altered), 1)


def test_a_snapshot_of_another_partition_is_refused(desk: Desk) -> None:
    with pytest.raises(ValueError, match="user partition 0 of 1"):
        BalanceCore.restore(topology(user_partitions=2), 0, desk.core.snapshot())
    with pytest.raises(ValueError, match="not a balance snapshot"):
        BalanceCore.restore(topology(), 0, b"garbage")
