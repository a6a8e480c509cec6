"""Defects of the read queries."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cassandra import ConsistencyLevel

from schema.codes import LIVE_STATUSES
from settlement import queries
from settlement.queries import OrderRow, Queries
from sim.defects.defect import Defect, Replacement

CACHE_S = 0.25
"""How long the cache of `answer-of-another-user` keeps an answer, in the gateway's own time."""


def _unfiltered(_intact: Callable[..., list[OrderRow]]) -> Callable[..., list[OrderRow]]:
    def live_orders(rows: Iterable[OrderRow], limit: int | None) -> list[OrderRow]:
        return sorted(rows, key=queries._newest_first)[:limit]

    return live_orders


def _limited_first(intact: Callable[..., list[OrderRow]]) -> Callable[..., list[OrderRow]]:
    def live_orders(rows: Iterable[OrderRow], limit: int | None) -> list[OrderRow]:
        newest = sorted(rows, key=queries._newest_first)[:limit]
        return [row for row in newest if row.status in LIVE_STATUSES]

    return live_orders


def _cached_by_symbol(intact: Callable[..., Any]) -> Callable[..., Any]:
    async def rows(self: Any, what: str, statement: object, key: Sequence[object]) -> Any:
        if what != "active orders":
            return await intact(self, what, statement, key)
        now_s = asyncio.get_running_loop().time()
        cache = vars(self).setdefault("cache", {})
        symbol_id = key[1]
        kept_until_s, answer = cache.get(symbol_id, (0.0, None))
        if now_s >= kept_until_s:
            answer = await intact(self, what, statement, key)
            cache[symbol_id] = (now_s + CACHE_S, answer)
        return answer

    return rows


def _at_one(intact: Callable[..., Any]) -> Callable[..., Any]:
    async def prepare(self: Queries, prepare_one: Callable[[str], Any]) -> None:
        async def prepare_at_one(query: str) -> Any:
            statement = await prepare_one(query)
            statement.consistency_level = ConsistencyLevel.ONE
            return statement

        await intact(self, prepare_at_one)

    return prepare


DEFECTS = (
    Defect(
        "finished-orders-listed",
        "the list of active orders is not filtered by status",
        ("reads-complete",),
        (Replacement(queries, "live_orders", _unfiltered),),
    ),
    Defect(
        "limit-before-filter",
        "the limit is applied before finished orders are filtered out, so live ones behind them are not listed",
        ("reads-complete",),
        (Replacement(queries, "live_orders", _limited_first),),
    ),
    Defect(
        "answer-of-another-user",
        "answers are cached for a moment by symbol alone, so one user is shown another's orders",
        ("reads-own-user",),
        (Replacement(Queries, "_rows", _cached_by_symbol),),
    ),
    Defect(
        "reads-at-one",
        "queries ask a single replica",
        ("statements-at-quorum", "reads-complete", "no-resurrection"),
        (Replacement(Queries, "prepare", _at_one),),
    ),
)
