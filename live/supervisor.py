"""Every service as a child process, started again when it ends by itself: what `serve all` is.

Each instance is a process of its own, so that one can be killed without the others noticing. A child that ends while
nobody asked it to is started again after a pause, which doubles while its lives stay short; one that says that it
cannot do what it was asked (status 2) would say so again, so all are stopped. The children end with their supervisor,
however it ends: their standard input is a pipe from it.
"""

import asyncio
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from live.connections import open_session, open_store, prepare_kafka
from live.kafka import AioKafkaClients
from live.log import adopt_library_logs, make_log
from live.options import ServeOptions

UNUSABLE: Final = 2
PAUSE_S_MIN: Final = 0.5
PAUSE_S_MAX: Final = 30.0
LONG_LIFE_S: Final = 30.0
"""A child that lived this long is started again after the shortest pause."""
STOP_S: Final = 30.0
"""How long children may take to end after SIGTERM before they are killed."""


@dataclass(frozen=True)
class Child:
    """An instance and the command line that runs it."""

    name: str
    command: Sequence[str]


def supervise(children: Sequence[Child], options: ServeOptions) -> int:
    """Run all children until SIGTERM or SIGINT; returns the exit status: 0, or 2 when one could not do what was asked.

    Topics and tables are created or verified first. Raises ServersUnusable.
    """
    return asyncio.run(_Supervisor(children, options).run())


class _Supervisor:
    def __init__(self, children: Sequence[Child], options: ServeOptions) -> None:
        self.children = children
        self.options = options
        self.log: Any = make_log(options.log_format, options.log_level, service="supervisor", instance="supervisor")
        self._stopping = asyncio.Event()
        self._status = 0

    async def run(self) -> int:
        adopt_library_logs(self.log)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        await self._prepare()
        await asyncio.gather(*(self._keep_up(child) for child in self.children))
        self.log.info("stopped", status=self._status)
        return self._status

    async def _prepare(self) -> None:
        """Before any child starts: one clear line for a wrong address, and no race to create the same things."""
        servers = self.options.servers
        topology = self.options.topology
        await prepare_kafka(AioKafkaClients(servers.kafka, client_id="supervisor"), servers, topology, self.log)
        async with open_session(servers, self.log, create=True) as session:
            await open_store(session, topology.symbols.symbols, self.log)

    async def _keep_up(self, child: Child) -> None:
        pause_s = PAUSE_S_MIN / 2
        while not self._stopping.is_set():
            started = time.monotonic()
            status = await self._live(child)
            if self._stopping.is_set():
                return
            if status == UNUSABLE:
                self.log.error("child cannot do what was asked, all are stopped", child=child.name)
                self._status = UNUSABLE
                self._stopping.set()
                return
            pause_s = PAUSE_S_MIN if time.monotonic() - started >= LONG_LIFE_S else min(2 * pause_s, PAUSE_S_MAX)
            self.log.warning("child ended by itself", child=child.name, status=status, again_in_s=pause_s)
            await self._sleep(pause_s)

    async def _live(self, child: Child) -> int:
        """One life of a child, from start to end; returns its status, negative for a signal."""
        # In a session of its own, a child does not get the terminal's Ctrl-C: it is stopped once, by us.
        process = await asyncio.create_subprocess_exec(
            *child.command, stdin=asyncio.subprocess.PIPE, start_new_session=True
        )
        self.log.info("child started", child=child.name, pid=process.pid)
        ended = asyncio.ensure_future(process.wait())
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait([ended, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                process.terminate()
                await asyncio.wait([ended], timeout=STOP_S)
            if not ended.done():
                self.log.error("child did not end after SIGTERM and is killed", child=child.name, pid=process.pid)
                process.kill()
            return await ended
        finally:
            stopping.cancel()
            if process.returncode is None:
                process.kill()

    async def _sleep(self, pause_s: float) -> None:
        try:
            async with asyncio.timeout(pause_s):
                await self._stopping.wait()
        except TimeoutError:
            pass


def python_command(module: str, *arguments: str) -> list[str]:
    """A command line that runs a module in this very Python."""
    return [sys.executable, "-m", module, *arguments]
