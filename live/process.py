"""One service instance as an operating-system process: its start, its signals, its end (design sections 4.3 and 10).

SIGTERM and SIGINT end it gracefully: a running transaction or batch of rows is let end, the group is left. A fenced
instance, or one that lost the cluster, joins its group again inside the service; whatever the service does not handle
ends the process with status 1, and whoever supervises it starts it again, as `live.supervisor` does.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

from engine.matching_service import matching_duty
from engine.ownership import OwnershipService
from engine.ownership_settings import OwnershipSettings
from engine.ubscore_service import ubscore_duty
from live.clock import WallClock
from live.connections import ServersUnusable, open_session, open_store, prepare_kafka
from live.disk import DirectoryDisk
from live.kafka import FETCH_WAIT_MS, AioKafkaClients
from live.log import adopt_library_logs, make_log
from live.metrics import Metrics
from live.options import SERVICES, ServeOptions
from live.randomness import SystemRandomness
from schema.services import MATCHING, SETTLEMENT, UBSCORE
from settlement.service import SettlementService

ENDED: Final = 0
FAILED: Final = 1
"""The service ended by an error that it does not handle; starting it again may help."""


class Service(Protocol):
    """What every service is to its process."""

    async def run(self) -> None: ...
    def request_stop(self) -> None: ...


def serve(service: str, options: ServeOptions) -> int:
    """Run one service until it is told to stop; returns the exit status.

    Raises ServersUnusable, OSError or ValueError when it cannot be started as asked.
    """
    if service not in SERVICES:
        raise ValueError(f"there is no service {service!r}; there are {', '.join(SERVICES)}")
    return asyncio.run(_Process(service, options).run())


class _Process:
    def __init__(self, service: str, options: ServeOptions) -> None:
        self.name = service
        self.options = options
        self.metrics = Metrics()
        self.log: Any = make_log(
            options.log_format,
            options.log_level,
            on_line=self.metrics.count_line,
            service=service,
            instance=f"{service}-{options.instance}",
        )
        self._stopping = asyncio.Event()
        self._service: Service | None = None

    async def run(self) -> int:
        options = self.options
        adopt_library_logs(self.log)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._request_stop, signal.Signals(number).name)
        if options.is_supervised:
            self._stop_with_supervisor(loop)
        if options.metrics_port is not None:
            self.metrics.serve(options.metrics_port)
        async with self._started() as service:
            if service is None:
                self.log.info("stopped before it had started")
                return ENDED
            self._service = service
            if self._stopping.is_set():
                service.request_stop()
            self.log.info("serving", pid=os.getpid(), metrics_port=options.metrics_port)
            try:
                await service.run()
            except Exception as error:
                self.log.critical("service failed", error=repr(error))
                return FAILED
            self.log.info("stopped")
            return ENDED

    @asynccontextmanager
    async def _started(self) -> AsyncIterator[Service | None]:
        """The service with all that it needs; None when the process was told to stop meanwhile."""
        making = self._make()
        starting = asyncio.ensure_future(making.__aenter__())
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                await asyncio.wait([starting])
                yield None
                return
            service = starting.result()
        finally:
            stopping.cancel()
        try:
            yield service
        finally:
            await making.__aexit__(None, None, None)

    @asynccontextmanager
    async def _make(self) -> AsyncIterator[Service]:
        options, servers, log = self.options, self.options.servers, self.log
        real = AioKafkaClients(servers.kafka, client_id=f"{self.name}-{options.instance}", metrics=self.metrics)
        clients = servers.namespace.clients(real)
        await prepare_kafka(real, servers, options.topology, log)
        if self.name == SETTLEMENT:
            async with open_session(servers, log, self.metrics, create=True) as session:
                store = await open_store(session, options.topology.symbols.symbols, log)
                yield SettlementService(
                    topology=options.topology,
                    kafka=clients,
                    store=store,
                    clock=WallClock(),
                    log=log,
                    randomness=SystemRandomness(),
                )
            return
        disk = DirectoryDisk(options.directory(self.name))
        try:
            duty_of = {UBSCORE: ubscore_duty, MATCHING: matching_duty}[self.name]
            yield OwnershipService(
                duty_of(options.topology),
                kafka=clients,
                disk=disk,
                clock=WallClock(),
                randomness=SystemRandomness(),
                log=log,
                settings=OwnershipSettings(
                    snapshot_interval_outputs=options.snapshot_interval_outputs, fetch_wait_ms=FETCH_WAIT_MS
                ),
            )
        finally:
            disk.close()

    def _request_stop(self, why: str) -> None:
        if not self._stopping.is_set():
            self.log.info("stopping", reason=why)
        self._stopping.set()
        if self._service is not None:
            self._service.request_stop()

    def _stop_with_supervisor(self, loop: asyncio.AbstractEventLoop) -> None:
        descriptor = sys.stdin.fileno()

        def readable() -> None:
            if not os.read(descriptor, 1024):
                loop.remove_reader(descriptor)
                self._request_stop("the supervisor is gone")

        loop.add_reader(descriptor, readable)


__all__ = ["ENDED", "FAILED", "ServersUnusable", "serve"]
