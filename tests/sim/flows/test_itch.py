from collections import Counter
from collections.abc import Callable
from gzip import compress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schema.codes import Side, TimeInForce
from sim.flows.feed import MORE_THAN_LEFT, NO_PRICE, NO_QUANTITY, NO_SUCH_ORDER, NUMBER_USED, TOO_LARGE
from sim.flows.itch import LENGTHS, NO_AUCTION, NOT_DISPLAYED, TRADES_ARE_FINAL, UNKNOWN_SIDE, UNKNOWN_TYPE
from sim.flows.operations import CANCEL, DEPOSIT, PLACE, REDUCE, REPLACE, Operation
from sim.flows.recorded import RecordedFlow, load_flow
from sim.flows.report import FlowError

from .itch_messages import (
    add,
    broken_trade,
    cross_trade,
    delete,
    directory,
    execute,
    execute_at_price,
    framed,
    hidden_trade,
    reduce,
    replace,
    system_event,
    zero_framed,
)

Load = Callable[..., RecordedFlow]

SAMPLE = Path("../shared/data/ex20101224.TEST_ITCH_50.gz")


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load_bytes(data: bytes, users: int = 12) -> RecordedFlow:
        path = tmp_path / "flow"
        path.write_bytes(data)
        return load_flow(path, users=users)

    return load_bytes


def orders(flow: RecordedFlow) -> list[Operation]:
    return [each for each in flow.operations if each.kind != DEPOSIT]


def test_an_added_order_becomes_a_limit_order(load: Load) -> None:
    flow = load(framed(add(1_000, 42, "S", 300, "ACME", 1_234_500)))
    (order,) = orders(flow)
    assert (order.kind, order.symbol, order.request_id) == (PLACE, "ACME", "42")
    assert (order.side, order.price, order.quantity) == (Side.SELL, 1_234_500, 300)
    assert order.time_in_force == TimeInForce.GTC
    assert flow.topology.symbols.named("ACME").price_text(order.price) == "123.4500"


def test_both_framings_and_gzip_give_the_same_flow(load: Load) -> None:
    messages = (
        system_event(0, "O"),
        directory(1, "ACME"),
        add(1_000, 1, "B", 100, "ACME", 10_000),
        add(2_000, 2, "S", 50, "ACME", 10_100, attribution="VIRT"),
        execute(3_000, 2, 20),
        delete(4_000, 1),
    )
    flows = [load(data) for data in (framed(*messages), zero_framed(*messages), compress(framed(*messages)))]
    assert flows[0].operations == flows[1].operations == flows[2].operations
    assert flows[0].report.as_dict() == flows[1].report.as_dict() == flows[2].report.as_dict()


def test_an_execution_becomes_the_order_that_caused_it(load: Load) -> None:
    maker, taker = orders(load(framed(add(1_000, 1, "B", 100, "ACME", 10_000), execute(5_000, 1, 60))))
    assert (taker.kind, taker.side, taker.price, taker.quantity) == (PLACE, Side.SELL, 10_000, 60)
    assert taker.time_in_force == TimeInForce.IOC
    assert taker.user_id != maker.user_id
    assert (taker.reference, taker.reference_user_id) == (maker.request_id, maker.user_id)


def test_executions_of_one_sweep_become_one_order(load: Load) -> None:
    flow = load(
        framed(
            add(1_000, 1, "S", 100, "ACME", 10_000),
            add(1_000, 2, "S", 100, "ACME", 10_000),
            add(1_000, 3, "S", 100, "ACME", 10_100),
            execute(5_000, 1, 100),
            execute(5_000, 2, 100),
            execute(5_000, 3, 30),
        )
    )
    (taker,) = orders(flow)[3:]
    assert (taker.side, taker.price, taker.quantity) == (Side.BUY, 10_100, 230)
    assert flow.report.applied["E"] == 3


@pytest.mark.parametrize(
    ("executions", "why"),
    [
        ([execute(5_000, 1, 99), execute(5_000, 2, 100)], "the first maker was not empty"),
        ([execute(5_000, 1, 100), execute(5_001, 2, 100)], "not at the same instant"),
        ([execute(5_000, 3, 100), execute(5_000, 1, 100)], "the second price is better for the taker"),
        ([execute(5_000, 1, 100), execute(5_000, 4, 100)], "another side"),
        ([execute(5_000, 1, 100), execute(5_000, 5, 100)], "another symbol"),
        ([execute(5_000, 1, 100), delete(5_000, 3), execute(5_000, 2, 100)], "something happened in between"),
    ],
)
def test_executions_that_no_single_order_could_cause_stay_apart(load: Load, executions: list[bytes], why: str) -> None:
    flow = load(
        framed(
            add(1_000, 1, "S", 100, "ACME", 10_000),
            add(1_000, 2, "S", 100, "ACME", 10_000),
            add(1_000, 3, "S", 100, "ACME", 10_100),
            add(1_000, 4, "B", 100, "ACME", 9_900),
            add(1_000, 5, "S", 100, "BOLT", 10_000),
            *executions,
        )
    )
    takers = [each for each in orders(flow) if each.time_in_force == TimeInForce.IOC]
    assert len(takers) == 2, why


def test_an_execution_at_another_price_counts_for_its_quantity(load: Load) -> None:
    _, taker = orders(load(framed(add(1, 1, "B", 100, "ACME", 10_000), execute_at_price(2, 1, 100, 9_500))))
    assert (taker.price, taker.quantity) == (10_000, 100)


def test_a_partial_cancel_becomes_a_reduce_of_the_total_quantity(load: Load) -> None:
    flow = load(
        framed(add(1, 1, "B", 100, "ACME", 10_000), execute(2, 1, 40), reduce(3, 1, 10), reduce(4, 1, 5), delete(5, 1))
    )
    reduces = [each for each in orders(flow) if each.kind == REDUCE]
    assert [(each.reference, each.quantity) for each in reduces] == [("1", 90), ("1", 85)]


def test_a_partial_cancel_of_everything_is_a_cancel(load: Load) -> None:
    flow = load(framed(add(1, 1, "B", 100, "ACME", 10_000), reduce(3, 1, 100), delete(5, 1)))
    assert [each.kind for each in orders(flow)] == [PLACE, CANCEL]
    assert flow.report.not_applied == {"D": {NO_SUCH_ORDER: 1}}


def test_a_replaced_order_keeps_user_symbol_and_side(load: Load) -> None:
    flow = load(framed(add(1, 1, "B", 100, "ACME", 10_000), replace(2, 1, 2, 70, 9_900), delete(3, 2)))
    first, second, cancel = orders(flow)
    assert (second.kind, second.reference, second.request_id) == (REPLACE, "1", "2")
    assert (second.user_id, second.symbol, second.side) == (first.user_id, first.symbol, first.side)
    assert (second.price, second.quantity) == (9_900, 70)
    assert (cancel.kind, cancel.reference) == (CANCEL, "2")


@pytest.mark.parametrize(
    ("message", "kind", "reason"),
    [
        (execute(9, 7, 1), "E", NO_SUCH_ORDER),
        (reduce(9, 7, 1), "X", NO_SUCH_ORDER),
        (delete(9, 7), "D", NO_SUCH_ORDER),
        (replace(9, 7, 8, 1, 1), "U", NO_SUCH_ORDER),
        (execute(9, 1, 101), "E", MORE_THAN_LEFT),
        (reduce(9, 1, 101), "X", MORE_THAN_LEFT),
        (execute(9, 1, 0), "E", NO_QUANTITY),
        (reduce(9, 1, 0), "X", NO_QUANTITY),
        (replace(9, 1, 1, 5, 5), "U", NUMBER_USED),
        (replace(9, 1, 2, 0, 5), "U", NO_QUANTITY),
        (add(9, 1, "B", 100, "ACME", 10_000), "A", NUMBER_USED),
        (add(9, 2, "B", 0, "ACME", 10_000), "A", NO_QUANTITY),
        (add(9, 2, "B", 1, "ACME", 0), "A", NO_PRICE),
        (add(9, 2, "B", 2**32 - 1, "ACME", 2**32 - 1), "A", TOO_LARGE),
        (add(9, 2, "X", 1, "ACME", 1), "A", UNKNOWN_SIDE),
        (hidden_trade(9, 100, "ACME", 10_000), "P", NOT_DISPLAYED),
        (cross_trade(9, 100, "ACME", 10_000), "Q", NO_AUCTION),
        (broken_trade(9), "B", TRADES_ARE_FINAL),
        (b"z\0\0\0\0", "z", UNKNOWN_TYPE),
    ],
)
def test_what_cannot_be_applied_is_counted_with_its_reason(load: Load, message: bytes, kind: str, reason: str) -> None:
    flow = load(framed(add(1, 1, "S", 100, "ACME", 10_000), message))
    assert flow.report.not_applied == {kind: {reason: 1}}
    assert len(orders(flow)) == 1
    assert any(reason in line for line in flow.report.lines())


def test_every_order_is_funded(load: Load) -> None:
    flow = load(
        framed(
            add(1, 1, "B", 100, "ACME", 10_000),
            add(2, 2, "S", 30, "ACME", 20_000),
            replace(3, 1, 3, 50, 11_000),
            execute(4, 2, 30),
        )
    )
    deposited = {(each.user_id, each.asset): each.amount for each in flow.operations if each.kind == DEPOSIT}
    buyer, seller, _, taker = orders(flow)
    assert deposited[buyer.user_id, "USD"] >= 100 * 10_000 + 50 * 11_000
    assert deposited[seller.user_id, "ACME.SHARE"] >= 30
    assert deposited[taker.user_id, "USD"] >= 30 * 20_000
    assert all(each.at_ns < buyer.at_ns for each in flow.operations if each.kind == DEPOSIT)


def test_a_stock_named_usd_is_not_mistaken_for_money(load: Load) -> None:
    symbol = load(framed(add(1, 1, "B", 100, "USD", 10_000))).topology.symbols.named("USD")
    assert symbol.base.name != symbol.quote.name


def test_makers_and_takers_are_different_users(load: Load) -> None:
    messages = []
    for number in range(1, 200):
        messages += [add(number, number, "B", 10, "ACME", 10_000), execute(number, number, 10)]
    for users in (1, 2, 3, 12):
        flow = load(framed(*messages), users=users)
        placed = [each for each in orders(flow) if each.kind == PLACE]
        makers = {each.user_id for each in placed if each.time_in_force == TimeInForce.GTC}
        takers = {each.user_id for each in placed if each.time_in_force == TimeInForce.IOC}
        assert makers.isdisjoint(takers)
        assert makers | takers == set(range(1, max(2, users) + 1))


def test_time_that_runs_backwards_is_held(load: Load) -> None:
    flow = load(
        framed(add(1_000, 1, "B", 1, "ACME", 1), add(500, 2, "B", 1, "ACME", 1), add(2_000, 3, "B", 1, "ACME", 1))
    )
    times = [each.at_ns for each in orders(flow)]
    assert times == [times[0], times[0], times[0] + 1_000]


def test_recorded_time_is_kept_to_scale(tmp_path: Path) -> None:
    path = tmp_path / "flow"
    path.write_bytes(framed(*(add(hour * 3_600 * 10**9, hour, "B", 1, "ACME", 1) for hour in (9, 10, 16))))
    first, second, last = (each.at_ns for each in orders(load_flow(path, duration_ns=14 * 10**9)))
    assert last < 14 * 10**9
    assert abs((second - first) * 7 - (last - first)) < 10


@pytest.mark.parametrize("framing", [framed, zero_framed])
def test_a_truncated_file_is_one_clear_line(load: Load, framing: Callable[..., bytes]) -> None:
    whole = framing(add(1, 1, "B", 100, "ACME", 10_000), delete(2, 1))
    for end in range(39, len(whole)):
        with pytest.raises(FlowError, match=r"^\S+: offset 38: truncated") as caught:
            load(whole[:end])
        assert "\n" not in str(caught.value)


def test_a_length_that_contradicts_the_type_is_refused(load: Load) -> None:
    with pytest.raises(FlowError, match="offset 38: a message of type 'D' has 19 bytes, the length field says 5"):
        load(framed(add(1, 1, "B", 100, "ACME", 10_000)) + b"\0\x05D1234")


def test_an_unknown_type_without_a_length_is_refused(load: Load) -> None:
    with pytest.raises(FlowError, match="offset 38: byte 0x7a"):
        load(zero_framed(add(1, 1, "B", 100, "ACME", 10_000), b"z" * 40))


def test_a_file_without_orders_is_refused(load: Load) -> None:
    with pytest.raises(FlowError, match=r"no order in it can be applied .*; 1 of D: names an order that is not there"):
        load(framed(system_event(0, "O"), delete(1, 1)))


@given(data=st.binary(max_size=300), compressed=st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_give_a_flow_or_one_clear_line(load: Load, data: bytes, compressed: bool) -> None:
    _flow_or_error(load, compress(data) if compressed else data)


_MESSAGES = st.lists(
    st.one_of(
        st.sampled_from([chr(kind) for kind in LENGTHS]).flatmap(
            lambda kind: st.binary(min_size=LENGTHS[ord(kind)] - 1, max_size=LENGTHS[ord(kind)] - 1).map(
                lambda rest: kind.encode() + rest
            )
        ),
        st.builds(
            add,
            st.integers(0, 2**48 - 1),
            st.integers(0, 5),
            st.sampled_from("BSX"),
            st.integers(0, 2**32 - 1),
            st.sampled_from(["ACME", "USD", ""]),
            st.integers(0, 2**32 - 1),
        ),
        st.builds(execute, st.integers(0, 9), st.integers(0, 5), st.integers(0, 9)),
        st.builds(reduce, st.integers(0, 9), st.integers(0, 5), st.integers(0, 9)),
        st.builds(delete, st.integers(0, 9), st.integers(0, 5)),
        st.builds(
            replace, st.integers(0, 9), st.integers(0, 5), st.integers(0, 5), st.integers(0, 9), st.integers(0, 9)
        ),
    ),
    max_size=12,
)


@given(messages=_MESSAGES, framing=st.sampled_from([framed, zero_framed]), cut=st.integers(0, 40))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_messages_cut_anywhere_give_a_flow_or_one_clear_line(
    load: Load, messages: list[bytes], framing: Callable[..., bytes], cut: int
) -> None:
    data = framing(*messages)
    _flow_or_error(load, data[: len(data) - cut] if cut else data)


def _flow_or_error(load: Load, data: bytes) -> None:
    complaint = ""
    try:
        flow = load(data)
    except FlowError as error:
        complaint = str(error)
    if complaint:
        assert "\n" not in complaint
        return
    report = flow.report
    for kind, count in report.read.items():
        accounted = report.applied.get(kind, 0) + report.informational.get(kind, 0)
        assert accounted + sum(report.not_applied.get(kind, {}).values()) == count
    assert all(0 < each.amount < 2**63 for each in flow.operations if each.kind == DEPOSIT)


@pytest.mark.skipif(not SAMPLE.exists(), reason="the sample file is not there")
def test_the_sample_file_is_read_as_its_description_says() -> None:
    flow = load_flow(SAMPLE, duration_ns=20 * 10**9)
    report = flow.report
    assert report.messages == 12_012
    counts = {"A": 4_997, "F": 3, "E": 198, "X": 45, "D": 1_745, "U": 12, "P": 5_000}
    assert {kind: report.read[kind] for kind in counts} == counts
    missing = {kind: reasons.get(NO_SUCH_ORDER, 0) for kind, reasons in report.not_applied.items()}
    assert missing == {"D": 94, "E": 18, "X": 3, "U": 2, "P": 0}
    assert report.not_applied_for(NO_SUCH_ORDER) == 117
    assert report.messages_not_applied == 5_117
    assert [symbol.name for symbol in flow.topology.symbols] == ["ALC", "BOB", "CHAR"]
    kinds = Counter(each.kind for each in flow.operations)
    assert kinds[CANCEL] + kinds[REDUCE] == 1_745 - 94 + 45 - 3
    assert kinds[REPLACE] == 10
    assert flow.duration_ns < 20 * 10**9
