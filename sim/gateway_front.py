"""The face that a simulated gateway turns to its clients: JSON in, answers out (design 3 and 4.7).

It stands where the HTTP server stands in production. A request comes as the bytes that a client writes, so the
gateway's own parser and arithmetic are part of every run. A read is authenticated: it asks for the user who sent it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from gateway.core import ClientAnswer, Gateway
from schema.identifiers import OrderId, UserId
from schema.symbols import SymbolTable
from sim.flows.operations import RAW, Operation
from sim.flows.request_form import request_fields
from sim.hosts import Host, Incarnation

_encode = msgspec.json.Encoder().encode


class GatewayFront:
    """Implements `sim.clients.Front` for one gateway."""

    __slots__ = ("_symbols", "gateway")

    def __init__(self, gateway: Gateway, symbols: SymbolTable) -> None:
        self.gateway = gateway
        self._symbols = symbols

    async def submit(self, operation: Operation, order_id: int) -> ClientAnswer:
        """Hand a request in, as the text that the client sends."""
        if operation.kind == RAW:
            return await self.gateway.submit(operation.raw)
        return await self.gateway.submit(_encode(request_fields(operation, self._symbols, order_id)))

    async def read(self, operation: Operation, order_id: int) -> Sequence[object]:
        """The rows of a read; none for an order that is not the user's. Raises what the gateway raises."""
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
            return await gateway.get_order_history(user_id, operation.symbol, operation.limit)
        if query == "trades":
            return await gateway.get_trades(user_id, operation.symbol, operation.limit)
        if query == "balances":
            return await gateway.get_balances(user_id)
        raise ValueError(f"unknown query {query!r}")


@dataclass(eq=False)
class HostedGateway:
    """Implements `sim.clients.GatewayAccess` for a gateway host; `find` gives the gateway that serves there now."""

    host: Host
    find: Callable[[], Gateway | None]
    symbols: SymbolTable
    _front: GatewayFront | None = None

    @property
    def name(self) -> str:
        """The host's name."""
        return self.host.name

    @property
    def incarnation(self) -> Incarnation | None:
        """The host's life now."""
        return self.host.incarnation

    @property
    def front(self) -> GatewayFront | None:
        """What serves there now."""
        gateway = self.find()
        if gateway is None:
            return None
        if self._front is None or self._front.gateway is not gateway:
            self._front = GatewayFront(gateway, self.symbols)
        return self._front
