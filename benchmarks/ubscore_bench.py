"""How many requests and fund updates a second the balance core decides, each event encoded, chained and folded in.

The requests are those of the order book's realistic flow by 500 users, of whom one in a hundred asks again; what the
engine makes of each comes back as fund updates. All users are of one partition. Inputs are decoded in batches, as a
service reads them; decoding, the engine and the records beside the event are not timed.
"""

import gc
from decimal import Decimal
from statistics import median
from time import process_time
from typing import Final

from benchmarks.book_bench import CANCEL, MOVE, REDUCE, realistic_flow
from engine.matching import MatchingEngine
from engine.ubscore import BalanceCore
from schema.codes import OrderType, TimeInForce
from schema.events import AnyRequest, CancelOrder, Deposit, FundUpdate, PlaceOrder, ReduceOrder, ReplaceOrder
from schema.identifiers import AssetId, OrderId, SymbolId, UserId
from schema.symbols import Asset, Symbol, SymbolTable
from schema.topics import FUND_UPDATES, ORDER_REQUESTS, VALIDATED_ORDERS, Topology
from schema.wire import FUND_UPDATE, REQUEST, encode

_BTC, _USD = Asset(AssetId(1), "BTC", 8), Asset(AssetId(2), "USD", 6)
_SYMBOL: Final = Symbol(SymbolId(1), "BTC-USD", _BTC, _USD, Decimal("0.01"), Decimal("0.0001"), 0)
_TOPOLOGY: Final = Topology(SymbolTable([_SYMBOL]), user_partitions=1)
_USERS: Final = 500
_REPEAT_EVERY: Final = 100
_BATCH: Final = 100
_FUNDS: Final = 2**52
"""Atoms of each asset that each user has: enough that hardly a request is rejected."""

InputBatches = list[tuple[list[bytes], list[bytes]]]
"""Records of order.requests, then the records of fund.updates that came of them."""


def _requests(count: int) -> list[AnyRequest]:
    requests: list[AnyRequest] = []
    # The id under which an order of the flow lives now: a move is a replace, which gives it another.
    names: dict[int, int] = {}
    for number, (kind, order, side, price, quantity) in enumerate(realistic_flow(count), 1):
        request_id, user_id, at_ns = f"request-{number}", UserId(1 + order % _USERS), 1_000_000 * number
        named, new_id, gtc = OrderId(names.get(order, 0)), OrderId(number), int(TimeInForce.GTC)
        symbol_id = _SYMBOL.symbol_id
        if kind == CANCEL:
            requests.append(CancelOrder(request_id, user_id, at_ns, named, symbol_id))
        elif kind == REDUCE:
            requests.append(ReduceOrder(request_id, user_id, at_ns, named, symbol_id, quantity))
        elif kind == MOVE:
            names[order] = number
            requests.append(
                ReplaceOrder(request_id, user_id, at_ns, new_id, symbol_id, named, side, gtc, price, quantity)
            )
        else:
            names[order] = number
            limit = int(OrderType.LIMIT)
            requests.append(
                PlaceOrder(request_id, user_id, at_ns, new_id, symbol_id, side, limit, gtc, price, quantity, 0)
            )
        if number % _REPEAT_EVERY == 0:
            requests.append(requests[-1])
    return requests


def _deposits() -> list[AnyRequest]:
    users = [UserId(user) for user in range(1, _USERS + 1)]
    return [
        Deposit(f"deposit-{asset.name}", user, 0, asset.asset_id, _FUNDS) for user in users for asset in (_BTC, _USD)
    ]


def input_batches(count: int) -> InputBatches:
    """The inputs of `count` orders' messages; the first batch is the deposits."""
    core, engine = BalanceCore(_TOPOLOGY, 0), MatchingEngine(_TOPOLOGY, 0)
    requests = _requests(count)
    in_batches = [_deposits()] + [requests[first : first + _BATCH] for first in range(0, len(requests), _BATCH)]
    batches: InputBatches = []
    for batch in in_batches:
        updates: list[FundUpdate] = []
        for request in batch:
            validated = core.apply_request(request, ORDER_REQUESTS, 0, 0).validated
            if validated is not None:
                updates.extend(engine.apply(validated, VALIDATED_ORDERS, 0, 0).output.fund_updates)
        for update in updates:
            core.apply_update(update, FUND_UPDATES, 0, 0)
        batches.append(([encode(request) for request in batch], [encode(update) for update in updates]))
    return batches


def ubscore(requests: int = 30_000, rounds: int = 7) -> dict[str, float]:
    """Requests and fund updates a second of one core: medians of several rounds, in processor time."""
    batches = input_batches(requests)
    gc.collect()
    gc.disable()
    try:
        seconds = [processor_seconds(batches) for _ in range(rounds)]
    finally:
        gc.enable()
    return {
        "balance_requests_per_second": sum(len(asked) for asked, _ in batches) / median(each[0] for each in seconds),
        "balance_updates_per_second": sum(len(came) for _, came in batches) / median(each[1] for each in seconds),
    }


def processor_seconds(batches: InputBatches) -> tuple[float, float]:
    """What a fresh core takes for all requests, and for all fund updates."""
    core = BalanceCore(_TOPOLOGY, 0)
    for_requests = for_updates = 0.0
    offset = 0
    for asked, came in batches:
        requests = [REQUEST.decode(value) for value in asked]
        updates = [FUND_UPDATE.decode(value) for value in came]
        start = process_time()
        for request in requests:
            core.apply_request(request, ORDER_REQUESTS, 0, offset)
            offset += 1
        between = process_time()
        for update in updates:
            core.apply_update(update, FUND_UPDATES, 0, offset)
            offset += 1
        for_requests += between - start
        for_updates += process_time() - between
    return for_requests, for_updates


if __name__ == "__main__":
    for figure, value in ubscore().items():
        print(f"{figure:45} {value:12,.0f}")
