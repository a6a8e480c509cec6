"""How many inputs a second the matching engine decides, each with its complete output, encoded and chained.

The inputs are those of the order book's realistic flow, as commands of 500 users: adds of which one in fifteen takes,
cancels, reduces and replaces. They are decoded in batches, as a service reads them; decoding is not timed.
"""

import gc
from decimal import Decimal
from statistics import median
from time import process_time
from typing import Final

from benchmarks.book_bench import ADD, CANCEL, MOVE, REDUCE, realistic_flow
from engine.matching import MatchingEngine
from schema.codes import OrderType, TimeInForce
from schema.events import CancelOrder, OrderCommand, PlaceOrder, ReduceOrder, ReplaceOrder, ValidatedOrder
from schema.identifiers import AssetId, OrderId, SymbolId, UserId
from schema.symbols import Asset, Symbol, SymbolTable
from schema.topics import VALIDATED_ORDERS, Topology
from schema.wire import VALIDATED_ORDER, encode

_BTC, _USD = Asset(AssetId(1), "BTC", 8), Asset(AssetId(2), "USD", 6)
_SYMBOL: Final = Symbol(SymbolId(1), "BTC-USD", _BTC, _USD, Decimal("0.01"), Decimal("0.0001"), 0)
_TOPOLOGY: Final = Topology(SymbolTable([_SYMBOL]), user_partitions=8)
_USERS: Final = 500
_BATCH: Final = 100


def input_values(count: int) -> list[bytes]:
    """Record values of validated.orders."""
    values = []
    # The id under which an order of the flow lives now: a move is a replace, which gives it another.
    names: dict[int, int] = {}
    for number, (kind, order, side, price, quantity) in enumerate(realistic_flow(count), 1):
        user_id = UserId(1 + order % _USERS)
        request_id, at_ns = f"request-{number}", 1_000_000 * number
        named = OrderId(names.get(order, 0))
        command: OrderCommand
        if kind == CANCEL:
            command = CancelOrder(request_id, user_id, at_ns, named, _SYMBOL.symbol_id)
        elif kind == REDUCE:
            command = ReduceOrder(request_id, user_id, at_ns, named, _SYMBOL.symbol_id, quantity)
        else:
            names[order] = number
            new_id, gtc = OrderId(number), int(TimeInForce.GTC)
            if kind == MOVE:
                command = ReplaceOrder(
                    request_id, user_id, at_ns, new_id, _SYMBOL.symbol_id, named, side, gtc, price, quantity
                )
            else:
                assert kind == ADD
                limit = int(OrderType.LIMIT)
                command = PlaceOrder(
                    request_id, user_id, at_ns, new_id, _SYMBOL.symbol_id, side, limit, gtc, price, quantity, 0
                )
        values.append(encode(ValidatedOrder(0, number, number, command)))
    return values


def matching(inputs: int = 50_000, rounds: int = 7) -> dict[str, float]:
    """`matching_inputs_per_second` of one core: the median of several rounds, in processor time, as in `book_bench`."""
    values = input_values(inputs)
    gc.collect()
    gc.disable()
    try:
        seconds = [_processor_seconds(values) for _ in range(rounds)]
    finally:
        gc.enable()
    return {
        "matching_inputs_per_second": inputs / median(seconds),
        "matching_inputs_per_second_best_round": inputs / min(seconds),
    }


def _processor_seconds(values: list[bytes]) -> float:
    engine = MatchingEngine(_TOPOLOGY, 0)
    seconds = 0.0
    for first in range(0, len(values), _BATCH):
        batch = [VALIDATED_ORDER.decode(value) for value in values[first : first + _BATCH]]
        start = process_time()
        for offset, order in enumerate(batch, first):
            engine.apply(order, VALIDATED_ORDERS, 0, offset)
        seconds += process_time() - start
    return seconds


if __name__ == "__main__":
    for figure, value in matching().items():
        print(f"{figure:45} {value:12,.0f}")
