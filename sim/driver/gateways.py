"""Gateways of the production code inside the driver's process, on real Kafka and Cassandra clients."""

import asyncio
from typing import Any

from gateway.core import Gateway
from live.clock import WallClock
from schema.ports import KafkaClients
from schema.topics import Topology
from settlement.queries import Queries
from sim.driver.real_time import ThisProcess
from sim.gateway_front import GatewayFront

_AGAIN_S = 0.5


class DriverGateway:
    """Implements `sim.clients.GatewayAccess`: one gateway, started again when it ends by itself."""

    def __init__(self, name: str, topology: Topology, kafka: KafkaClients, queries: Queries, log: Any) -> None:
        self.name = name
        self.incarnation: Any = ThisProcess()
        self.front: GatewayFront | None = None
        self._topology = topology
        self._kafka = kafka
        self._queries = queries
        self._log = log.bind(instance=name)
        self._gateway: Gateway | None = None
        self._is_stopping = False
        self._task: asyncio.Task[None] | None = None
        self._is_ready = asyncio.Event()

    async def start(self) -> None:
        """Returns when requests can be handed in."""
        self._task = asyncio.get_running_loop().create_task(self._keep_up())
        await self._is_ready.wait()

    async def stop(self) -> None:
        """Let those who wait be answered, and close."""
        self._is_stopping = True
        if self._gateway is not None:
            self._gateway.request_stop()
        if self._task is not None:
            await self._task

    async def _keep_up(self) -> None:
        while not self._is_stopping:
            gateway = self._gateway = Gateway(
                name=self.name,
                topology=self._topology,
                kafka=self._kafka,
                queries=self._queries,
                clock=WallClock(),
                log=self._log,
            )
            try:
                await gateway.start()
                self.front = GatewayFront(gateway, self._topology)
                self._is_ready.set()
                await gateway.run()
            except Exception as error:
                self._log.error("gateway failed", error=repr(error))
            finally:
                self.front = None
            if not self._is_stopping:
                await asyncio.sleep(_AGAIN_S)
