"""A machine whose Java and Maven are scripts of the test, which behave as the real ones do in the ways that count."""

from __future__ import annotations

import os
import socket
from itertools import count
from pathlib import Path

JAVA = """#!/bin/sh
# Tells its version; formats storage; as a server, says a line and stays, or ends if told to.
case "$*" in
  -version) echo 'openjdk version "{version}" 2024-01-01' >&2; exit 0 ;;
  *StorageTool*) for last in "$@"; do case "$last" in *server.properties) mkdir -p "$(dirname "$last")/data"
    touch "$(dirname "$last")/data/meta.properties" ;; esac; done; exit 0 ;;
esac
echo "the server starts"
{server}
"""
STAYS = "exec sleep 300"
ENDS = "echo 'out of luck'; exit 3"

MAVEN = """#!/bin/sh
for each in "$@"; do case "$each" in -DoutputDirectory=*) to="${{each#*=}}" ;; esac; done
echo "$@" >> "{log}"
{result}
"""
FETCHES = 'for jar in kafka_2.13-3.9.1 cassandra-all-5.0.5 jamm-0.4.0; do touch "$to/$jar.jar"; done'
FAILS = "echo '[ERROR] Could not resolve dependencies'; exit 1"


class FakeMachine:
    """The programs that are on its PATH are in `bin`; what Maven was asked is in `maven_log`."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.maven_log = folder / "maven.log"
        for tool in ("sh", "sleep", "dirname", "mkdir", "touch", "ps"):
            found = next(Path(each) / tool for each in os.defpath.split(":") if (Path(each) / tool).exists())
            (self.bin / tool).symlink_to(found)

    def has_java(self, version: str = "17.0.9", server: str = STAYS) -> None:
        self._program("java", JAVA.format(version=version, server=server))

    def has_maven(self, result: str = FETCHES) -> None:
        self._program("mvn", MAVEN.format(log=self.maven_log, result=result))

    def _program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)


_candidates = count(20_000 + os.getpid() * 16 % 8_000, 16)
"""Below the ports that systems give to outgoing connections, which come and go; apart from other test processes'."""


def free_port() -> int:
    """The first of eight ports that nobody uses now, and that no other call has given."""
    return next(port for port in _candidates if all(_is_free(port + number) for number in range(8)))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            return False
        return True
