"""A world in which everything happens once, and small ways to damage what it left behind."""

from collections.abc import Callable
from typing import Any

import msgspec

from benchmarks.mini_world import BUY, FOK, GTC, IOC, MARKET, POST_ONLY, SELL, MiniWorld, Row
from schema import topics, wire
from schema.events import EngineOutput, OrderCompletion, OrderState

Damage = Callable[[MiniWorld], None]
Damages = list[tuple[str, str, Damage]]
"""Each with two texts that say by what it must be seen."""

replace = msgspec.structs.replace

SOLD, BOUGHT, CANCELLED, RESTING, REDUCED, REPLACING, PARTIAL = 1, 2, 3, 4, 5, 6, 7
"""Order ids of `busy_world`: 1 is filled by 2 and 4's elder, 3 is cancelled, and so on; see there."""


def busy_world() -> MiniWorld:
    """A settled world: fills on both sides, a cancel, a late cancel, a reduce, a replace, refusals, reads."""
    world = MiniWorld()
    assert world.place(1, SELL, 100, 10) == SOLD
    assert world.place(2, BUY, 100, 4) == BOUGHT
    world.read(1)
    world.read_order(1, SOLD)
    assert world.place(2, BUY, 99, 5) == CANCELLED
    world.read(2)
    world.cancel(2, CANCELLED)
    world.cancel(2, CANCELLED)
    assert world.place(2, BUY, 70, 5) == RESTING
    assert world.place(3, BUY, 90, 6) == REDUCED
    world.reduce(3, REDUCED, 3)
    assert world.replace(3, REDUCED, BUY, 91, 4) == REPLACING
    assert world.place(3, BUY, 101, 8) == PARTIAL  # fills order 1 with its first 6, rests with 2
    world.read(1)
    world.read(2)
    world.read(3)
    world.read_order(3, PARTIAL)
    world.place(4, SELL, 101, 1, tif=IOC)
    world.place(4, SELL, 80, 200, tif=FOK)
    world.place(4, SELL, 80, 2, tif=POST_ONLY)
    world.place(4, BUY, 0, 5, order_type=MARKET, tif=IOC, max_spend=1_000)
    world.place(1, SELL, 10**6, 10**9)
    world.place(1, SELL, 50, 5, symbol=2, tif=GTC)
    world.place(2, BUY, 50, 3, symbol=2)
    world.transfer(1, 3, -500)
    world.read(3, symbol=1, limit=1)
    return world.settle()


def registrar(damages: Damages) -> Callable[[str, str], Callable[[Damage], Damage]]:
    """A decorator that puts a damage on a test file's list, with its two texts."""

    def breaks(first: str, second: str) -> Callable[[Damage], Damage]:
        def register(damage: Damage) -> Damage:
            damages.append((first, second, damage))
            return damage

        return register

    return breaks


def find(world: MiniWorld, kind: str, /, **where: Any) -> list[Row]:
    """The rows of a kind that have these values; there is at least one."""
    found = [row for row in world.events[kind] if all(row[name] == value for name, value in where.items())]
    assert found, f"no {kind} with {where}"
    return found


def edit(world: MiniWorld, kind: str, changes: Row, /, **where: Any) -> None:
    """Change rows."""
    for row in find(world, kind, **where):
        row.update(changes)


def drop(world: MiniWorld, kind: str, /, **where: Any) -> None:
    """Remove rows."""
    for row in find(world, kind, **where):
        world.events[kind].remove(row)


def copy(world: MiniWorld, kind: str, changes: Row, /, **where: Any) -> None:
    """Add a changed copy of the first row found."""
    world.events[kind].append({**find(world, kind, **where)[0], **changes})


def change_completion(
    world: MiniWorld, order_id: int, change: Callable[[OrderCompletion], list[OrderCompletion]], *, partition: int = 0
) -> None:
    """Replace an order's completion by others, in an otherwise sound chain."""
    touched = []

    def of(output: EngineOutput) -> EngineOutput:
        completions: list[OrderCompletion] = []
        for completion in output.order_completions:
            if completion.order_id == order_id:
                touched.append(order_id)
                completions += change(completion)
            else:
                completions.append(completion)
        return replace(output, order_completions=tuple(completions))

    world.rewrite_outputs(of, partition=partition)
    assert touched


def change_states(world: MiniWorld, field: str, change: Callable[[OrderState], OrderState]) -> None:
    """Change every placement, update, completion or refusal (`field`) in an otherwise sound chain."""
    world.rewrite_outputs(lambda output: replace(output, **{field: tuple(map(change, getattr(output, field)))}))


def change_trades(world: MiniWorld, **changes: Any) -> None:
    """Change the first trade of partition 0."""
    done = []

    def of(output: EngineOutput) -> EngineOutput:
        if output.trades and not done:
            done.append(True)
            return replace(output, trades=(replace(output.trades[0], **changes), *output.trades[1:]))
        return output

    world.rewrite_outputs(of)


def drop_record(world: MiniWorld, topic: str, partition: int, index: int) -> None:
    """Take a record out of the log as if it had never been written; its successors keep their content."""
    del world.log[topic, partition][index]


def put_record(world: MiniWorld, topic: str, partition: int, index: int, value: bytes) -> None:
    """Replace a record's value."""
    t, _ = world.log[topic, partition][index]
    world.log[topic, partition][index] = (t, value)


def index_of(world: MiniWorld, topic: str, partition: int, is_wanted: Callable[[Any], bool]) -> int:
    """The index of the first record of which something is true."""
    return next(i for i, event in enumerate(world.decoded(topic, partition)) if is_wanted(event))


def change_balance_events(world: MiniWorld, is_wanted: Callable[[Any], bool], change: Callable[[Any], Any]) -> None:
    """Change the first balance event of which something is true, in an otherwise sound chain."""
    for partition in range(2):
        events = world.decoded(topics.BALANCE_EVENTS, partition)
        wanted = next((event.sequence for event in events if is_wanted(event)), None)
        if wanted is not None:
            world.rewrite(
                topics.BALANCE_EVENTS,
                partition,
                lambda event, wanted=wanted: change(event) if event.sequence == wanted else event,
            )
            return
    raise AssertionError("no such balance event")


def seal(event: msgspec.Struct) -> bytes:
    """An event as a record value."""
    return wire.encode(event)
