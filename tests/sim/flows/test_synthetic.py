from collections import Counter
from itertools import pairwise

import pytest

from schema.codes import OrderType, TimeInForce
from schema.identifiers import INT64_MAX
from sim.flows.market import make_topology
from sim.flows.operations import (
    CANCEL,
    DEPOSIT,
    KINDS,
    NOT_REPEATED,
    PLACE,
    QUERIES,
    RAW,
    READ,
    REDUCE,
    REPLACE,
    WITHDRAW,
    Operation,
)
from sim.flows.synthetic import synthetic_flow
from sim.randomness import Randomness

SECOND_NS = 1_000_000_000
DURATION_NS = 60 * SECOND_NS
TOPOLOGY = make_topology(4, 3, 2)


def flow(seed: int = 7, orders: int = 4_000, users: int = 12, duration_ns: int = DURATION_NS) -> list[Operation]:
    return list(synthetic_flow(Randomness(seed), TOPOLOGY, orders=orders, users=users, duration_ns=duration_ns))


@pytest.fixture(scope="module")
def operations() -> list[Operation]:
    return flow()


def new_orders(operations: list[Operation]) -> list[Operation]:
    return [each for each in operations if each.kind == PLACE and not each.reference]


def test_same_seed_gives_the_same_operations(operations: list[Operation]) -> None:
    assert flow() == operations


def test_another_seed_gives_other_operations(operations: list[Operation]) -> None:
    assert flow(seed=8) != operations


def test_draws_of_another_consumer_change_nothing(operations: list[Operation]) -> None:
    randomness = Randomness(7)
    randomness.stream("network/a->b").token(1_000)
    source = synthetic_flow(randomness, TOPOLOGY, orders=4_000, users=12, duration_ns=DURATION_NS)
    disturbed = []
    for operation in source:
        randomness.stream("network/a->b").below(1_000)
        disturbed.append(operation)
    assert disturbed == operations


def test_operations_are_in_order_of_time_and_within_the_duration(operations: list[Operation]) -> None:
    assert all(before.at_ns <= after.at_ns for before, after in pairwise(operations))
    assert operations[0].at_ns >= 0
    assert operations[-1].at_ns < DURATION_NS


def test_every_kind_of_operation_and_of_read_occurs(operations: list[Operation]) -> None:
    assert {each.kind for each in operations} == set(KINDS)
    assert {each.query for each in operations if each.kind == READ} == set(QUERIES)


def test_as_many_new_orders_as_were_asked_for(operations: list[Operation]) -> None:
    assert len(new_orders(operations)) == 4_000


def test_deposits_of_every_user_and_asset_come_first(operations: list[Operation]) -> None:
    first_order_ns = next(each.at_ns for each in operations if each.kind == PLACE)
    opening = {
        (each.user_id, each.asset) for each in operations if each.kind == DEPOSIT and each.at_ns < first_order_ns
    }
    assert opening == {(user, asset.name) for user in range(1, 13) for asset in TOPOLOGY.symbols.assets.values()}


def test_a_few_users_are_poor(operations: list[Operation]) -> None:
    amounts = sorted(each.amount for each in operations if each.kind == DEPOSIT and each.asset == "USDT")
    assert amounts[-1] > 20 * amounts[0]


def test_shares_of_the_kinds_of_orders(operations: list[Operation]) -> None:
    orders = new_orders(operations)
    shares = Counter((OrderType(each.order_type), TimeInForce(each.time_in_force)) for each in orders)
    assert 0.13 < shares[OrderType.LIMIT, TimeInForce.IOC] / len(orders) < 0.21
    assert 0.02 < shares[OrderType.LIMIT, TimeInForce.FOK] / len(orders) < 0.07
    assert 0.05 < shares[OrderType.LIMIT, TimeInForce.POST_ONLY] / len(orders) < 0.12
    assert 0.03 < shares[OrderType.MARKET, TimeInForce.IOC] / len(orders) < 0.07
    assert shares[OrderType.LIMIT, TimeInForce.GTC] / len(orders) > 0.55


def test_a_fifth_of_the_orders_is_reduced_or_replaced(operations: list[Operation]) -> None:
    kinds = Counter(each.kind for each in operations)
    assert 0.16 < (kinds[REDUCE] + kinds[REPLACE]) / 4_000 < 0.24
    assert kinds[REDUCE] > 0.04 * 4_000
    assert kinds[REPLACE] > 0.04 * 4_000


def test_most_resting_orders_are_cancelled(operations: list[Operation]) -> None:
    rest = [each for each in new_orders(operations) if each.time_in_force in (TimeInForce.GTC, TimeInForce.POST_ONLY)]
    cancelled = {each.reference for each in operations if each.kind == CANCEL}
    replaced = {each.reference: each.request_id for each in operations if each.kind == REPLACE}
    gone = sum(each.request_id in cancelled or replaced.get(each.request_id) in cancelled for each in rest)
    assert 0.6 < gone / len(rest) < 0.9


def test_distances_from_the_middle_follow_the_power_law() -> None:
    source = synthetic_flow(Randomness(1), make_topology(1, 1, 1), orders=20_000, users=12, duration_ns=DURATION_NS)
    prices = [each.price for each in new_orders(list(source)) if each.price]
    # The middle is not in the operations; the median of the prices around is close enough for the tail.
    distances = [abs(price - sorted(prices[at - 10 : at + 11])[10]) for at, price in enumerate(prices) if at > 10]
    beyond = {bound: sum(distance >= bound for distance in distances) for bound in (8, 16, 32)}
    # Density x ** -2.2, so the share beyond a bound falls off as x ** -1.2: by 2.3 for each doubling.
    assert 1.8 < beyond[8] / beyond[16] < 2.9
    assert 1.8 < beyond[16] / beyond[32] < 2.9
    assert 0.5 < sum(distance <= 2 for distance in distances) / len(distances) < 0.9


def test_orders_arrive_in_bursts(operations: list[Operation]) -> None:
    times = [each.at_ns for each in new_orders(operations)]
    gaps = sorted(after - before for before, after in pairwise(times))
    mean = sum(gaps) / len(gaps)
    assert gaps[len(gaps) // 2] < mean / 4
    assert gaps[-1] > 5 * mean


def test_the_middle_moves() -> None:
    prices = [each.price for each in new_orders(flow(orders=4_000)) if each.symbol == "BTC-USDT" and each.price]
    early, late = prices[:200], prices[-200:]
    assert sorted(early)[100] != sorted(late)[100]


def test_a_cancel_is_sent_at_the_instant_of_the_order_that_would_fill_it(operations: list[Operation]) -> None:
    orders = {each.request_id: each for each in operations if each.kind in (PLACE, REPLACE)}
    by_time: dict[int, list[Operation]] = {}
    for each in operations:
        by_time.setdefault(each.at_ns, []).append(each)
    races = 0
    for together in by_time.values():
        for cancel in together:
            if cancel.kind != CANCEL:
                continue
            target = orders[cancel.reference]
            races += any(
                each.kind == PLACE
                and each.user_id != target.user_id
                and (each.symbol, each.price, each.side) == (target.symbol, target.price, 1 - target.side)
                for each in together
            )
    assert 60 < races < 240


def test_some_users_meet_their_own_orders(operations: list[Operation]) -> None:
    resting: dict[tuple[int, str, int, int], int] = {}
    meetings = 0
    for each in new_orders(operations):
        meetings += (each.user_id, each.symbol, 1 - each.side, each.price) in resting
        resting[each.user_id, each.symbol, each.side, each.price] = 1
    assert meetings > 40


def test_a_few_requests_are_repeated(operations: list[Operation]) -> None:
    requests = [each for each in operations if each.kind not in (READ, RAW)]
    repeated = sum(each.repeat_after_ns != NOT_REPEATED for each in requests)
    assert 0.02 < repeated / len(requests) < 0.06


def test_request_ids_are_unique_for_a_user_but_for_deliberate_reuse(operations: list[Operation]) -> None:
    uses = Counter((each.user_id, each.request_id) for each in operations)
    reused = {key for key, count in uses.items() if count > 1}
    deliberate = {
        (each.user_id, each.request_id)
        for each in operations
        if each.kind == PLACE and each.reference == each.request_id
    }
    assert reused == deliberate
    assert reused


def test_reuse_of_a_request_id_comes_with_another_body(operations: list[Operation]) -> None:
    first = {each.request_id: each for each in new_orders(operations)}
    for each in operations:
        if each.kind == PLACE and each.reference:
            assert each.quantity != first[each.request_id].quantity


def test_references_name_earlier_orders_and_their_owners(operations: list[Operation]) -> None:
    known: dict[tuple[int, str], Operation] = {}
    trespasses = 0
    for each in operations:
        if each.reference:
            owner = each.reference_user_id or each.user_id
            assert known[owner, each.reference].at_ns <= each.at_ns
            trespasses += owner != each.user_id
        if each.kind in (PLACE, REPLACE):
            known[each.user_id, each.request_id] = each
    assert trespasses


def test_numbers_fit_and_are_positive(operations: list[Operation]) -> None:
    symbols = TOPOLOGY.symbols
    for each in operations:
        if each.kind in (PLACE, REPLACE):
            symbol = symbols.named(each.symbol)
            assert each.quantity > 0
            assert (each.price > 0) == (each.order_type == OrderType.LIMIT)
            assert symbol.quote_atoms(max(each.price, 1), each.quantity) < INT64_MAX
            assert (each.max_spend > 0) == (each.order_type == OrderType.MARKET and each.side == 0)
        elif each.kind == REDUCE:
            assert each.quantity > 0
        elif each.kind in (DEPOSIT, WITHDRAW):
            assert 0 < each.amount <= INT64_MAX


@pytest.mark.parametrize(("orders", "users"), [(0, 1), (1, 1), (5, 1), (3, 5_000)])
def test_small_and_lopsided_flows(orders: int, users: int) -> None:
    operations = flow(orders=orders, users=users)
    assert len(new_orders(operations)) == orders
    assert {each.user_id for each in operations} <= set(range(1, users + 1))


def test_total_deposits_stay_far_inside_64_bits() -> None:
    totals: Counter[str] = Counter()
    for each in flow(orders=10, users=3_000):
        if each.kind == DEPOSIT:
            totals[each.asset] += each.amount
    assert max(totals.values()) <= 2**62


@pytest.mark.parametrize("options", [{"orders": -1}, {"users": 0}, {"duration_ns": 10}])
def test_impossible_options_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="a flow needs"):
        flow(**options)
