"""What makes asyncio itself repeatable while a run goes on (design 11).

asyncio keeps tasks in sets, and a set of tasks is ordered by their addresses: a TaskGroup cancels its tasks,
`as_completed` starts them, and `wait` returns them in an order that differs from run to run. Inside
`deterministic_asyncio` those sets keep the order of insertion. The modules `asyncio.tasks` and `asyncio.taskgroups` are
given another meaning of the name `set`, which reaches every alias of their functions, and other event loops of the
process go on working.

Some functions are replaced as well: `all_tasks`, to give the order of creation; `get_running_loop` and `current_task`,
to see through what `SimLoop` leaves stale between two drains (and to save the system call in the interpreter's own).
"""

from __future__ import annotations

import asyncio
from asyncio import events, taskgroups, tasks
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar
from unittest.mock import patch

from sim.loop import RUNNING, SimLoop

T = TypeVar("T")


class OrderedSet(set[T]):
    """A set that iterates and pops in the order of insertion.

    Only what changes or iterates *this* set is ordered; what operators such as `a | b` return is an ordinary set.
    """

    __slots__ = ("_order",)

    def __init__(self, items: Iterable[T] = ()) -> None:
        self._order = dict.fromkeys(items)
        super().__init__(self._order)

    def __iter__(self) -> Iterator[T]:
        return iter(self._order)

    def add(self, item: T) -> None:
        self._order[item] = None
        super().add(item)

    def discard(self, item: T) -> None:  # type: ignore[override]
        self._order.pop(item, None)
        super().discard(item)

    def remove(self, item: T) -> None:
        del self._order[item]
        super().discard(item)

    def pop(self) -> T:
        if not self._order:
            raise KeyError("pop from an empty set")
        item = next(iter(self._order))
        self.remove(item)
        return item

    def clear(self) -> None:
        self._order.clear()
        super().clear()

    def update(self, *others: Iterable[T]) -> None:
        for other in others:
            for item in other:
                self.add(item)

    def copy(self) -> OrderedSet[T]:
        return OrderedSet(self._order)


_interpreters_running_loop = events._get_running_loop
_all_tasks = tasks.all_tasks
_interpreters_current_task = tasks.current_task


def _running_loop() -> asyncio.AbstractEventLoop | None:
    loop = RUNNING.loop
    if loop is not None:
        return loop
    other = _interpreters_running_loop()
    return None if other.__class__ is SimLoop else other


def _get_running_loop() -> asyncio.AbstractEventLoop:
    loop = RUNNING.loop or _running_loop()
    if loop is None:
        raise RuntimeError("no running event loop")
    return loop


def _current_task(loop: asyncio.AbstractEventLoop | None = None) -> asyncio.Task[Any] | None:
    return _interpreters_current_task(_get_running_loop() if loop is None else loop)


def _ordered_all_tasks(loop: asyncio.AbstractEventLoop | None = None) -> set[asyncio.Task[Any]]:
    """The tasks of a loop that are not done; those of a simulated loop in the order of their creation."""
    if loop is None:
        loop = _get_running_loop()
    return OrderedSet(loop.tasks()) if isinstance(loop, SimLoop) else _all_tasks(loop)


@contextmanager
def deterministic_asyncio() -> Iterator[None]:
    """While it is entered, what asyncio does on a simulated loop depends on nothing but the program."""
    with ExitStack() as stack:
        for module in (tasks, taskgroups):
            stack.enter_context(patch.object(module, "set", OrderedSet, create=True))
        for module in (asyncio, events):
            stack.enter_context(patch.object(module, "get_running_loop", _get_running_loop))
            stack.enter_context(patch.object(module, "_get_running_loop", _running_loop))
        for module in (asyncio, tasks):
            stack.enter_context(patch.object(module, "all_tasks", _ordered_all_tasks))
            stack.enter_context(patch.object(module, "current_task", _current_task))
        yield
