from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schema.codes import Side, TimeInForce
from sim.flows.feed import NO_SUCH_ORDER
from sim.flows.lobster import HIDDEN, NO_AUCTION
from sim.flows.operations import CANCEL, DEPOSIT, PLACE, REDUCE, Operation
from sim.flows.recorded import RecordedFlow, load_flow
from sim.flows.report import FlowError

Load = Callable[..., RecordedFlow]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load_text(text: str | bytes, name: str = "flow", duration_ns: int | None = None) -> RecordedFlow:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_flow(path, duration_ns=duration_ns)

    return load_text


def orders(flow: RecordedFlow) -> list[Operation]:
    return [each for each in flow.operations if each.kind != DEPOSIT]


def test_each_type_becomes_what_caused_it(load: Load) -> None:
    flow = load(
        "34200.017459617,1,11,100,2239500,-1\n"
        "34200.5,1,12,50,2238100,1\n"
        "34201,4,11,60,2239500,-1\n"
        "34202,2,12,20,2238100,1\n"
        "34203,3,11,40,2239500,-1\n"
    )
    sell, buy, taker, reduce, cancel = orders(flow)
    assert (sell.kind, sell.side, sell.price, sell.quantity) == (PLACE, Side.SELL, 2_239_500, 100)
    assert (buy.kind, buy.side) == (PLACE, Side.BUY)
    assert (taker.side, taker.price, taker.quantity) == (Side.BUY, 2_239_500, 60)
    assert taker.time_in_force == TimeInForce.IOC
    assert (reduce.kind, reduce.reference, reduce.quantity) == (REDUCE, "12", 30)
    assert (cancel.kind, cancel.reference) == (CANCEL, "11")


def test_times_keep_their_nanoseconds(load: Load) -> None:
    first, second = orders(load("34200.017459617,1,1,1,1,1\n34200.017459618,1,2,1,1,1\n"))
    assert second.at_ns - first.at_ns == 1


def test_orders_from_before_the_file_hidden_trades_and_auctions_are_counted(load: Load) -> None:
    flow = load(
        "1.0,1,1,5,5,1\n1.0,4,9,5,5,1\n1.0,2,9,5,5,1\n1.0,3,9,5,5,1\n1.0,5,0,5,5,1\n1.0,6,-1,5,5,-1\n1.0,7,0,0,-1,-1\n"
    )
    report = flow.report
    assert report.not_applied_for(NO_SUCH_ORDER) == 3
    assert report.not_applied_for(HIDDEN) == 1
    assert report.not_applied_for(NO_AUCTION) == 1
    assert report.informational == {"7 halt": 1}
    assert report.messages == 7


def test_the_symbol_is_named_after_the_file(load: Load) -> None:
    line = "1.0,1,1,5,5,1\n"
    assert orders(load(line, "AMZN_2012-06-21_34200000_57600000_message_10.csv"))[0].symbol == "AMZN"
    assert orders(load(line, "data.csv"))[0].symbol == "STOCK"


def test_a_seventh_column_and_carriage_returns_are_accepted(load: Load) -> None:
    assert len(orders(load("1.0,1,1,5,5,1,null\r\n1.0,1,2,5,5,1,MPID\r\n"))) == 2


@pytest.mark.parametrize(
    "line", ["1.0,1,2,5", "1.0,8,2,5,5,1", "1.0,1,x,5,5,1", "garbage", "\x00\xff", "", "1.0,1,2,5,5,0", "1.0,1,2,5,5,-"]
)
def test_a_line_that_is_no_message_is_named(load: Load, line: str) -> None:
    with pytest.raises(FlowError, match=r"flow: line 2: ") as caught:
        load("1.0,1,1,5,5,1\n" + line + "\n1.0,1,3,5,5,1\n")
    assert "\n" not in str(caught.value)


def test_negative_numbers_are_counted_not_traded(load: Load) -> None:
    flow = load("1.0,1,1,5,5,1\n1.0,1,2,-5,5,1\n1.0,1,3,5,-5,1\n1.0,4,1,-3,5,1\n")
    assert len(orders(flow)) == 1
    assert flow.report.messages_not_applied == 3


@given(
    lines=st.lists(
        st.tuples(
            st.integers(0, 99_999), st.integers(1, 7), st.integers(-1, 4), st.integers(-2, 9), st.integers(-2, 9),
            st.sampled_from([1, -1]),
        ),
        max_size=12,
    ),
    cut=st.integers(0, 30),
)  # fmt: skip
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_lines_cut_anywhere_give_a_flow_or_one_clear_line(
    load: Load, lines: list[tuple[int, ...]], cut: int
) -> None:
    text = "".join(",".join(map(str, line)) + "\n" for line in lines)
    complaint = ""
    try:
        report = load(text[: len(text) - cut] if cut else text).report
    except FlowError as error:
        complaint = str(error)
    else:
        assert report.messages <= len(lines)
    assert "\n" not in complaint
