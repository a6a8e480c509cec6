"""Defects of the balance core's memory of requests."""

from collections.abc import Callable
from typing import Any

from engine.balance_fold import BalanceFold
from engine.partition_core import PartitionCore
from engine.partition_task import PartitionTask
from engine.ubscore_service import UbsPartitionCore
from sim.defects.defect import Defect, Replacement


def _remembers_nothing(_intact: Callable[..., None]) -> Callable[..., None]:
    def remember(self: BalanceFold, *_arguments: object) -> None:
        pass

    return remember


def _forgets_at_takeover(intact: Callable[..., Any]) -> Callable[..., Any]:
    async def rebuild(self: PartitionTask, *arguments: Any) -> PartitionCore:
        core: PartitionCore = await intact(self, *arguments)
        if isinstance(core, UbsPartitionCore):
            core._core.remembered.clear()
            core._core._oldest_first.clear()
        return core

    return rebuild


DEFECTS = (
    Defect(
        "retry-places-again",
        "requests are not remembered, so a client's retry becomes a second order",
        ("no-lost-ack",),
        (Replacement(BalanceFold, "_remember", _remembers_nothing),),
    ),
    Defect(
        "retry-memory-lost",
        "the requests remembered are lost whenever a partition is taken over or its owner restarts",
        ("no-lost-ack",),
        (Replacement(PartitionTask, "_rebuild", _forgets_at_takeover),),
    ),
)
