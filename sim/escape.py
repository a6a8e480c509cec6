"""Catching what would tie a run to the real world: time, randomness, sockets, threads, processes (design 5).

Inside `no_escape` the functions in question raise `EscapedSimulationError` and name the line that called them. They are
replaced where they are looked up: in their own modules, and under whatever name a module of ours has imported them. A
service that swallows the error does not hide it: every escape is kept, and `World` raises it at the end.

Whoever calls is to blame, except code that is none of a run's business and needs the real thing: logging, the test
runner, other threads (see `BYSTANDERS`). Libraries that are part of the run, aiokafka and cassandra-driver, are not
excepted.

What is not caught: a library that imported such a function by name before (`from time import time`), compiled code that
calls the C library, `time.gmtime()` and its kind without an argument, and the hash of strings (the digest test with two
values of PYTHONHASHSEED is for that). Files are not watched: a trace is written while the run goes on.
"""

from __future__ import annotations

import datetime
import os
import random
import secrets
import socket
import subprocess
import sys
import sysconfig
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

GUARDED_PACKAGES = ("schema", "engine", "settlement", "gateway", "sim")
"""Packages of ours: what they imported by name is replaced as well."""

# fmt: off
BYSTANDERS = frozenset((
    "logging", "warnings", "linecache", "traceback", "importlib",
    "_pytest", "pluggy", "pytest", "hypothesis", "xdist", "execnet", "cProfile", "pstats",
    "rich", "multiprocessing", "concurrent", "distributed", "pandas", "pyarrow", "numpy",
))
# fmt: on
"""Top-level packages whose own calls of the real functions are let through."""

HARNESS = frozenset(("sim.commandline", "sim.commands", "sim.progress", "sim.campaign", "sim.escape"))
"""Modules of ours that stand outside the run even while it goes on: they show its progress to a person."""

_LIBRARIES = tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib"))


class EscapedSimulationError(RuntimeError):
    """Code inside a run reached for real time, randomness, sockets, threads or processes."""


class Escapes:
    """The escapes of one run, in order, also those whose error was swallowed."""

    def __init__(self) -> None:
        self.errors: list[EscapedSimulationError] = []
        self._thread = threading.get_ident()

    def check(self) -> None:
        """Raise the first escape, if there was one."""
        if self.errors:
            raise self.errors[0]

    def _is_let_through(self) -> bool:
        if threading.get_ident() != self._thread:
            return True
        module: str = sys._getframe(2).f_globals.get("__name__", "")
        return module.partition(".")[0] in BYSTANDERS or module in HARNESS

    def _escape(self, what: str) -> EscapedSimulationError:
        error = EscapedSimulationError(
            f"{what} was called in a simulated run at {_call_site(sys._getframe(2))}; "
            "take the clock, randomness and connections that the service is given"
        )
        self.errors.append(error)
        return error


def _call_site(frame: FrameType | None) -> str:
    """File and line of the innermost caller that is not a library, else of the innermost one."""
    nearest = frame
    while frame is not None:
        if not frame.f_code.co_filename.startswith(_LIBRARIES) and not frame.f_code.co_filename.startswith("<frozen"):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    assert nearest is not None
    return f"{nearest.f_code.co_filename}:{nearest.f_lineno}"


def _guard(escapes: Escapes, what: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(*args: Any, **keywords: Any) -> Any:
        if escapes._is_let_through():
            return original(*args, **keywords)
        raise escapes._escape(what)

    return guarded


def _guarded_seed(escapes: Escapes, original: Callable[..., Any]) -> Callable[..., Any]:
    """`random.Random()` without a seed asks the operating system; with one it is nobody's business."""

    def seed(self: random.Random, a: Any = None, version: int = 2) -> None:
        if a is None and not escapes._is_let_through():
            raise escapes._escape("random.Random() without a seed")
        original(self, a, version)

    return seed


def _guarded_calendar(escapes: Escapes, original: type, methods: tuple[str, ...]) -> type:
    """A class in place of `datetime.datetime` or `datetime.date`, whose objects are those of the original.

    The originals cannot be changed. Instances, `isinstance` and all other methods are the original's own.
    """

    class Stand(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, original)

        def __subclasscheck__(cls, subclass: type) -> bool:
            return issubclass(subclass, original)

    def new(cls: type, *args: Any, **keywords: Any) -> Any:
        return original(*args, **keywords)

    def forbid(method: str) -> classmethod[Any, Any, Any]:
        def guarded(cls: type, *args: Any, **keywords: Any) -> Any:
            if escapes._is_let_through():
                return getattr(original, method)(*args, **keywords)
            raise escapes._escape(f"{original.__name__}.{method}")

        return classmethod(guarded)

    body: dict[str, Any] = {"__new__": new, **{method: forbid(method) for method in methods}}
    return Stand(original.__name__, (original,), body)


def _functions() -> Iterator[tuple[Any, str, str]]:
    """(owner, attribute, name to print) of every function that is guarded."""
    for module, names in (
        (time, "time time_ns monotonic monotonic_ns perf_counter perf_counter_ns sleep"),
        (uuid, "uuid1 uuid4"),
        (os, "urandom getrandom fork"),
        (secrets, "token_bytes token_hex token_urlsafe choice randbelow randbits"),
        (socket, "getaddrinfo create_connection socketpair"),
    ):
        for name in names.split():
            if hasattr(module, name):
                yield module, name, f"{module.__name__}.{name}"
    yield random, "_urandom", "os.urandom"
    for name in random.__all__:
        if getattr(getattr(random, name), "__self__", None) is random._inst:
            yield random, name, f"random.{name}"
    yield socket.socket, "__init__", "socket.socket"
    yield threading.Thread, "start", "threading.Thread.start"
    yield subprocess.Popen, "__init__", "subprocess.Popen"


@contextmanager
def no_escape() -> Iterator[Escapes]:
    """While it is entered, whatever leaves the simulation raises `EscapedSimulationError`.

    Gives the record of escapes; call its `check` at the end. Does not nest.
    """
    escapes = Escapes()
    replaced: list[tuple[Any, str, Any]] = []
    aliases: dict[int, Any] = {}  # by the address of an original, which lives as long as `replaced` does

    def replace(owner: Any, name: str, stand_in: Any) -> None:
        original = getattr(owner, name)
        replaced.append((owner, name, original))
        setattr(owner, name, stand_in)
        aliases.setdefault(id(original), stand_in)

    try:
        for owner, name, what in list(_functions()):
            replace(owner, name, _guard(escapes, what, getattr(owner, name)))
        replace(random.Random, "seed", _guarded_seed(escapes, random.Random.seed))
        replace(datetime, "datetime", _guarded_calendar(escapes, datetime.datetime, ("now", "utcnow", "today")))
        replace(datetime, "date", _guarded_calendar(escapes, datetime.date, ("today",)))
        for module in _modules_of_ours():
            for name, value in list(vars(module).items()):
                stand_in = aliases.get(id(value))
                if stand_in is not None:
                    replaced.append((module, name, value))
                    setattr(module, name, stand_in)
        yield escapes
    finally:
        for owner, name, original in reversed(replaced):
            setattr(owner, name, original)


def _modules_of_ours() -> list[Any]:
    return [
        module
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in GUARDED_PACKAGES and name not in HARNESS
    ]
