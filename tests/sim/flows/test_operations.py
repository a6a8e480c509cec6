import pytest

from sim.flows.market import make_topology
from sim.flows.operations import Operation, OperationError, check_operations, dump_operations, load_operations
from sim.flows.synthetic import synthetic_flow
from sim.randomness import Randomness


def test_operations_survive_being_written_down() -> None:
    operations = list(synthetic_flow(Randomness(1), make_topology(3, 3, 2), orders=300, users=5, duration_ns=10**10))
    assert load_operations(dump_operations(operations)) == operations


def test_only_what_differs_from_the_default_is_written() -> None:
    text = dump_operations([Operation(5, 1, "withdraw", "w1", asset="BTC", amount=3)])
    assert text == b'{"at_ns":5,"user_id":1,"kind":"withdraw","request_id":"w1","asset":"BTC","amount":3}\n'


@pytest.mark.parametrize(
    "line", [b"", b"[]", b"\xff", b'{"at_ns":1}', b'{"at_ns":1,"user_id":1,"kind":"steal","request_id":"a"}']
)
def test_a_line_that_is_no_operation_is_named(line: bytes) -> None:
    good = dump_operations([Operation(1, 1, "cancel", "c1")])
    with pytest.raises(OperationError, match="line 2: "):
        load_operations(good + line + b"\n")


@pytest.mark.parametrize(
    ("operation", "complaint"),
    [
        (Operation(1, 1, "steal", "a"), "operation 2: unknown kind of operation 'steal'"),
        (Operation(-1, 1, "cancel", "a"), "operation 2: at_ns must be 0 or more"),
        (Operation(1, 2**70, "cancel", "a"), "operation 2: user_id must fit 64 bits"),
        (Operation(1, 1, "deposit", "a", amount=2**63), "operation 2: amount must fit 64 bits"),
    ],
)
def test_an_operation_that_no_client_could_carry_out_is_named(operation: Operation, complaint: str) -> None:
    good = Operation(1, 1, "place", "p", symbol="NOPE", quantity=-1, price=2**63 - 1)
    check_operations([good])
    with pytest.raises(OperationError, match=complaint):
        check_operations([good, operation])
