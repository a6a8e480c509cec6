"""`exchange-sim serve all` as a person runs it: a process, its log, and the children that the log tells of."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "sim")
PATIENCE_S = 90.0


class ServeAll:
    """Starts at once. `lines` is the log so far, each line as a dict."""

    def __init__(self, arguments: Sequence[str], folder: Path, instances: int = 1) -> None:
        self.instances = instances
        self._log_path = folder / "serve.log"
        self._log = self._log_path.open("wb")
        self.process = subprocess.Popen(
            [
                *(*COMMAND, "serve", "all", *arguments, "--instances", str(instances)),
                *("--data", str(folder / "data"), "--snapshot-interval", "50"),
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What has been logged; lines that are no JSON, such as an error's, under "text"."""
        found = []
        for line in self._log_path.read_bytes().splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                found.append({"event": "", "text": line.decode(errors="replace")})
        return found

    def logged(self, event: str, **fields: object) -> list[dict[str, Any]]:
        """The lines of an event with such fields."""
        return [
            line
            for line in self.lines
            if line.get("event") == event and all(line.get(name) == value for name, value in fields.items())
        ]

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Until the condition holds. AssertionError with the end of the log when it does not in time."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"not in {PATIENCE_S:g} s: {what}\n{self._end_of_log()}"
            assert self.process.poll() is None, f"it ended, status {self.process.returncode}\n{self._end_of_log()}"
            time.sleep(0.1)

    def wait_until_serving(self) -> None:
        """Until every instance serves."""
        for service in ("ubscore", "matching", "settlement"):
            self.wait_for_count(self.instances, "serving", service=service)

    def wait_for_count(self, count: int, event: str, **fields: object) -> None:
        """Until an event with such fields was logged that often."""
        self.wait_for(lambda: len(self.logged(event, **fields)) >= count, f"{count} times {event!r} {fields}")

    def alarms(self) -> list[dict[str, Any]]:
        """The alarms that were raised."""
        return [line for line in self.lines if line.get("level") == "critical"]

    def pid(self, child: str) -> int:
        """The process of a child's present life."""
        pid: int = self.logged("child started", child=child)[-1]["pid"]
        return pid

    @contextmanager
    def frozen(self, child: str) -> Iterator[None]:
        """Stop a child's time, as a long pause of its machine does."""
        pid = self.pid(child)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def kill(self, child: str) -> None:
        """Send SIGKILL to a child's present life."""
        os.kill(self.pid(child), signal.SIGKILL)

    def stop(self) -> int:
        """Send SIGTERM; returns the exit status."""
        self.process.terminate()
        return self.process.wait(timeout=PATIENCE_S)

    def close(self) -> None:
        """Make sure that nothing is left."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._log.close()

    def _end_of_log(self) -> str:
        return "\n".join(self._log_path.read_text(errors="replace").splitlines()[-20:])
