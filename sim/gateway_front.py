"""The face that a simulated gateway turns to its clients: JSON in, answers out (design 3 and 4.7).

It stands where the HTTP server stands in production. A request comes as the bytes that a client writes, so the
gateway's own parser and arithmetic are part of every run. A read is authenticated: it asks for the user who sent it.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from gateway.core import Gateway
from gateway.submissions import ClientAnswer
from schema.identifiers import OrderId, UserId
from schema.topics import Topology
from sim.flows.operations import RAW, Operation
from sim.flows.request_form import request_fields

_PAGE_ROWS: Final = 100

_encode = msgspec.json.Encoder().encode


class GatewayFront:
    """Implements `sim.clients.Front` for one gateway."""

    __slots__ = ("_symbols", "gateway")

    def __init__(self, gateway: Gateway, topology: Topology) -> None:
        self.gateway = gateway
        self._symbols = topology.symbols

    @property
    def outstanding(self) -> int:
        """How many requests wait for their answer there."""
        return self.gateway.outstanding

    def submit(self, operation: Operation, order_id: int, told: Callable[[ClientAnswer], object]) -> None:
        """Hand a request in, as the text that the client sends."""
        if operation.kind == RAW:
            self.gateway.hand_in(operation.raw, told)
        else:
            self.gateway.hand_in(_encode(request_fields(operation, self._symbols, order_id)), told)

    async def read(self, operation: Operation, order_id: int) -> Sequence[object]:
        """The rows of a read; none for an order that is not the user's. A `limit` of 0 leaves it to the gateway.

        Raises what the gateway raises.
        """
        gateway = self.gateway
        user_id = UserId(operation.user_id)
        query = operation.query
        if query == "active_orders":
            symbols = [operation.symbol] if operation.symbol else None
            return await gateway.get_active_orders(user_id, symbols, operation.limit or None)
        if query == "order":
            row = await gateway.get_order(user_id, OrderId(order_id))
            return () if row is None else (row,)
        if query == "history":
            return await gateway.get_order_history(user_id, operation.symbol, operation.limit or _PAGE_ROWS)
        if query == "trades":
            return await gateway.get_trades(user_id, operation.symbol, operation.limit or _PAGE_ROWS)
        if query == "balances":
            return await gateway.get_balances(user_id)
        raise ValueError(f"unknown query {query!r}")
