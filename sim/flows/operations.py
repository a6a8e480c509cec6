"""What clients do, as data (design 8, Clients).

A flow is a sequence of `Operation`s in the order of their time. All choices of a scenario's clients stand in it:
nothing is drawn when an operation is carried out, so one of them can be left out and the others stay what they are.
That is what lets a failing scenario be made smaller.

Prices are ticks, quantities lots, amounts atoms. An operation that concerns an earlier order names it by the request
that placed it (its client_order_id); the order's id is known only once the answer has come.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from schema.codes import OrderType, TimeInForce

PLACE: Final = "place"
CANCEL: Final = "cancel"
REDUCE: Final = "reduce"
REPLACE: Final = "replace"
DEPOSIT: Final = "deposit"
WITHDRAW: Final = "withdraw"
READ: Final = "read"
RAW: Final = "raw"
"""A request in the client's own, hostile bytes: the gateway must refuse it as invalid."""

KINDS: Final = (PLACE, CANCEL, REDUCE, REPLACE, DEPOSIT, WITHDRAW, READ, RAW)
QUERIES: Final = ("active_orders", "order", "history", "trades", "balances")
"""What a READ may ask."""

NOT_REPEATED: Final = -1


class Operation(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One thing that one client does.

    `at_ns` counts from the start of the flow; the client may have to wait longer, for the order that it refers to.
    `request_id` is unique for the user, but for a deliberate reuse. `reference` is the request_id that placed the order
    to cancel, reduce, replace or read, by the same user unless `reference_user_id` names another. For a PLACE that
    reuses a request_id, `reference` is that id: the client waits for its answer first. `gateway` is the gateway asked
    first, counted from 0 and wrapped around. `repeat_after_ns` is when the same request is sent once more, at the next
    gateway, whether it was answered or not (NOT_REPEATED: never). `raw` is the text that a RAW operation sends.
    """

    at_ns: int
    user_id: int
    kind: str
    request_id: str
    symbol: str = ""
    asset: str = ""
    reference: str = ""
    reference_user_id: int = 0
    side: int = 0
    order_type: int = int(OrderType.LIMIT)
    time_in_force: int = int(TimeInForce.GTC)
    price: int = 0
    quantity: int = 0
    max_spend: int = 0
    amount: int = 0
    gateway: int = 0
    repeat_after_ns: int = NOT_REPEATED
    query: str = ""
    limit: int = 0
    raw: str = ""


class OperationError(ValueError):
    """Text that is not a list of operations; the message says where and why."""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Operation)


_COLUMN: Final = range(-(2**63), 2**63)
"""The integers that a trace can hold, and Kafka and Cassandra too."""


def check_operations(operations: Iterable[Operation]) -> None:
    """Raises OperationError for the first that no client could carry out. What the gateway is to refuse passes."""
    for number, each in enumerate(operations, 1):
        if each.kind not in KINDS:
            raise OperationError(f"operation {number}: unknown kind of operation {each.kind!r}")
        if each.at_ns < 0:
            raise OperationError(f"operation {number}: at_ns must be 0 or more, not {each.at_ns}")
        for name in each.__struct_fields__:
            value = getattr(each, name)
            if isinstance(value, int) and value not in _COLUMN:
                raise OperationError(f"operation {number}: {name} must fit 64 bits, not {value}")


def dump_operations(operations: Iterable[Operation]) -> bytes:
    """Operations as JSON lines; `load_operations` gives them back."""
    return b"".join(_encoder.encode(operation) + b"\n" for operation in operations)


def load_operations(data: bytes) -> list[Operation]:
    """The operations of such lines. Raises OperationError that names the first line that is none."""
    operations = []
    for number, line in enumerate(data.splitlines(), 1):
        try:
            operation = _decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise OperationError(f"line {number}: not an operation: {error}") from None
        if operation.kind not in KINDS:
            raise OperationError(f"line {number}: unknown kind of operation {operation.kind!r}")
        operations.append(operation)
    return operations
