"""Defects of the matching engine's decisions."""

from collections.abc import Callable
from typing import Any

import msgspec
from xxhash import xxh3_64_digest

from engine import matching
from engine import plain_codes as code
from engine.book import BookSide, Order
from engine.matching import MatchingEngine
from engine.matching_funds import Entries, Market, summed
from schema.events import EngineOutput
from schema.wire import ENGINE_OUTPUT, Codec, WireError, seal
from sim.defects.defect import Defect, Replacement

_LIFECYCLE_FIELDS = ("order_placements", "order_updates", "order_completions")


def _makers_complete_silently(intact: Callable[..., Any]) -> Callable[..., Any]:
    def match(*arguments: Any) -> Any:
        fills = intact(*arguments)
        # All completions so far are those of makers; the taker's own comes after.
        fills.completions.clear()
        return fills

    return match


def _cancels_complete_silently(intact: Callable[..., Any]) -> Callable[..., Any]:
    def take_out(self: MatchingEngine, market: Market, order: Order, reason: int, *rest: Any) -> Any:
        completions, entries = intact(self, market, order, reason, *rest)
        return () if reason == code.CANCELLED_BY_USER else completions, entries

    return take_out


def _newest_first(intact: Callable[..., Order | None]) -> Callable[..., Order | None]:
    def first(self: BookSide, *limit: int) -> Order | None:
        oldest = intact(self, *limit)
        if oldest is None or not oldest.filled_quantity:
            return oldest
        *_, newest = self.within(oldest.price * self.sign)
        return newest

    return first


def _keeps_improvement(intact: Callable[..., Entries]) -> Callable[..., Entries]:
    def settle_taker(self: Market, taker: Order, still_needed: int) -> Entries:
        improvement = 0
        if taker.side == code.BUY and taker.order_type == code.LIMIT:
            improvement = self.need(taker, taker.filled_quantity) - taker.filled_quote
        return intact(self, taker, still_needed + improvement)

    return settle_taker


def _releases_filled_part(intact: Callable[..., Any]) -> Callable[..., Any]:
    def take_out(self: MatchingEngine, market: Market, order: Order, reason: int, *rest: Any) -> Any:
        completions, entries = intact(self, market, order, reason, *rest)
        again = market.release(order, market.need(order, order.filled_quantity))
        return completions, summed(entries + again)

    return take_out


def _short_seal(output: EngineOutput) -> tuple[bytes, int]:
    """An output as a record whose hash leaves the lifecycle events out."""
    _, short_hash = seal(msgspec.structs.replace(output, **dict.fromkeys(_LIFECYCLE_FIELDS, ())))
    value, _ = seal(output)
    return value[:-8] + short_hash.to_bytes(8, "big", signed=True), short_hash


def _short_unseal(intact: Callable[..., Any]) -> Callable[..., Any]:
    def unseal(self: Codec[Any], value: bytes | None) -> Any:
        if self is not ENGINE_OUTPUT or value is None or len(value) <= 8:
            return intact(self, value)
        output, _ = intact(self, value[:-8] + xxh3_64_digest(value[:-8]))
        again, short_hash = _short_seal(output)
        if again != value:
            raise WireError(f"{self.name}: the hash does not match the content")
        return output, short_hash

    return unseal


DEFECTS = (
    Defect(
        "maker-completion-missing",
        "the last fill of a resting order emits no completion",
        ("completion-once",),
        (Replacement(matching, "_match", _makers_complete_silently),),
    ),
    Defect(
        "cancel-completion-missing",
        "a cancelled order leaves the book without a completion",
        ("cancel-honoured", "completion-once"),
        (Replacement(MatchingEngine, "_take_out", _cancels_complete_silently),),
    ),
    Defect(
        "events-outside-hash",
        "placements, updates and completions are not covered by the output's hash",
        ("chain-unbroken",),
        (
            Replacement(matching, "seal", lambda _intact: _short_seal),
            Replacement(Codec, "unseal", _short_unseal),
        ),
    ),
    Defect(
        "newest-first-after-partial-fill",
        "once the first order of a price level is partly filled, the newest of the level is served next",
        ("lifecycle-matches-reference",),
        (Replacement(BookSide, "first", _newest_first),),
    ),
    Defect(
        "improvement-not-refunded",
        "a buy that fills below its limit price does not get the difference back",
        ("locks-match-orders",),
        (Replacement(Market, "settle_taker", _keeps_improvement),),
    ),
    Defect(
        "released-twice",
        "a cancel that meets a partly filled order releases the filled part's funds too",
        ("locks-match-orders",),
        (Replacement(MatchingEngine, "_take_out", _releases_filled_part),),
    ),
)
