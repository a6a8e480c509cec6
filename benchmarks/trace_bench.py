"""What recording, storing and judging a trace cost (design section 11). Each function returns its figures by name."""

import gc
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from benchmarks.mini_world import BUY, FOK, GTC, IOC, POST_ONLY, SELL, MiniWorld
from traces.invariants import check
from traces.recorder import Recorder
from traces.store import read_trace, write_trace
from traces.trace import Trace


def event_cost(events: int = 100_000) -> dict[str, float]:
    """Nanoseconds to record one event, all in: emitting, Arrow columns and the digest.

    `wide` is a CQL statement (17 columns, the widest of the frequent kinds), `narrow` a phase of the run.
    """
    return {
        "record_wide_event_ns": _per_event(
            events,
            "cql",
            lambda emit, n: emit(
                n, "settlement-1", 3, "active_orders", "insert", n % 50, 1, n, 2, -1, "LOCAL_QUORUM", n, "ok", 2
            ),
        ),
        "record_narrow_event_ns": _per_event(events, "phases", lambda emit, n: emit(n, "", "work", "")),
    }


def check_cost(orders: int = 5_000, small_orders: int = 300) -> dict[str, float]:
    """Microseconds an order to write, read and judge a trace, and milliseconds to judge a small one.

    The trace is a realistic flow without faults: places of all kinds, cancels, reduces, replaces and reads.
    """
    world = settled_flow(orders)
    recorder = world.recorder()
    manifest = world.manifest()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "trace"
        write_s = _best(lambda: write_trace(place, manifest, recorder.tables()))
        stored_bytes = sum(each.stat().st_size for each in place.iterdir())
        read_s = _best(lambda: read_trace(place))
    check_s = _best(lambda: check(Trace.of(recorder, manifest)))
    small = settled_flow(small_orders)
    small_recorder = small.recorder()
    small_s = _best(lambda: check(Trace.of(small_recorder, small.manifest())))
    return {
        "rows_per_order": sum(recorder.counts().values()) / orders,
        "write_us_per_order": write_s * 1e6 / orders,
        "read_us_per_order": read_s * 1e6 / orders,
        "check_us_per_order": check_s * 1e6 / orders,
        "stored_bytes_per_order": stored_bytes / orders,
        "check_small_trace_ms": small_s * 1e3,
    }


def settled_flow(orders: int, *, users: int = 20, seed: int = 1) -> MiniWorld:
    """A settled world after a random flow of so many orders."""
    draw = random.Random(seed)
    world = MiniWorld(funded_users=users)
    placed: list[tuple[int, int, int]] = []
    for _ in range(orders):
        user, symbol, chance = draw.randint(1, users), draw.randint(1, 2), draw.random()
        side, price, quantity = draw.choice((BUY, SELL)), draw.randint(95, 105), draw.randint(1, 20)
        tif = draw.choice((GTC, GTC, GTC, GTC, IOC, FOK, POST_ONLY))
        placed.append((user, world.place(user, side, price, quantity, symbol=symbol, tif=tif), symbol))
        owner, order_id, of_symbol = draw.choice(placed[-60:])
        if chance < 0.3:
            world.cancel(owner, order_id, symbol=of_symbol)
        elif chance < 0.35:
            world.reduce(owner, order_id, draw.randint(1, 10), symbol=of_symbol)
        elif chance < 0.4:
            new = world.replace(owner, order_id, side, price, quantity, symbol=of_symbol)
            placed.append((owner, new, of_symbol))
        elif chance > 0.8:
            world.read(user)
    return world.settle()


def _per_event(events: int, kind: str, emit_one: Callable[[Callable[..., None], int], None]) -> float:
    def record() -> None:
        recorder = Recorder()
        emit = recorder.emitter(kind)
        for n in range(events):
            emit_one(emit, n)
        recorder.digest()

    return _best(record) * 1e9 / events


def _best(work: Callable[[], object], rounds: int = 3) -> float:
    """Seconds of the fastest of some rounds, the collector off as it is in a run."""
    times = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            begun = perf_counter()
            work()
            times.append(perf_counter() - begun)
    finally:
        gc.enable()
    return min(times)


if __name__ == "__main__":
    for name, figure in {**event_cost(), **check_cost()}.items():
        print(f"{name:<26} {figure:>10.1f}")
