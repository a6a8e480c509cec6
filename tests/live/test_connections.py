"""Waiting for servers that come up late, and giving up on those that do not."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

import live.cassandra
from live.connections import ServersUnusable, open_session
from live.log import make_log
from live.options import Servers

LOG = make_log("json", "critical")


def test_cassandra_is_waited_for_with_a_cluster_of_its_own_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Driver:
        """As the driver's Cluster: of no use any more once its first connection has failed."""

        made = 0

        def __init__(self, **_options: Any) -> None:
            Driver.made += 1
            self.is_late = Driver.made > 2
            self.is_shut_down = False

        def connect(self, keyspace: str | None) -> Any:
            if self.is_shut_down:
                raise AssertionError("a cluster that is shut down was used again")
            if not self.is_late:
                self.is_shut_down = True
                raise live.cassandra.NoHostAvailable("nobody", {"127.0.0.1:1": ConnectionRefusedError("refused")})
            return self

        def shutdown(self) -> None:
            self.is_shut_down = True

        prepare = execute = None

    async def use() -> None:
        async with open_session(Servers("k:1", "127.0.0.1:1", wait_s=20), LOG, create=False) as session:
            assert session._session.is_late

    monkeypatch.setattr(live.cassandra, "Cluster", Driver)
    asyncio.run(use())
    assert Driver.made == 3


def test_cassandra_that_never_answers_is_named() -> None:
    async def use(address: str) -> None:
        async with open_session(Servers("k:1", address, wait_s=0), LOG, create=True):
            pass

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ServersUnusable, match=f"Cassandra at {address} does not answer: .*refused"):
            asyncio.run(use(address))
