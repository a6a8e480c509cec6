"""Hypothesis strategies for order flows, faults and whole scenarios, which shrink well (design section 9).

    @given(scenarios(faults=["crash", "rebalance"]))
    @settings(max_examples=50, deadline=None)
    def test_orders_survive(scenario):
        hold_invariants(scenario)

They shrink towards fewer operations, by user 1, of one lot, in the first symbol, with no faults. Each operation is
drawn on its own, and refers to an earlier order by how many places before it that is; the deposits that orders need are
not drawn but follow from them. The simplest step of all is none, so Hypothesis takes an operation out by making its
step the simplest, which moves no other step, and what is left is still a flow.

Orders drawn apart seldom trade: they differ in side, price, symbol, and many never rest. So a step may also meet an
earlier order: another user takes the other side at its price.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hypothesis import strategies as st
from msgspec.structs import replace

from schema.codes import OrderType, Side, TimeInForce
from schema.symbols import Symbol
from schema.topics import Topology
from sim.deployment import layout_of
from sim.faults.catalogue import OPTIONS
from sim.faults.options import FaultOptions
from sim.flows import Operation, make_topology
from sim.flows.market import first_price
from sim.flows.operations import CANCEL, DEPOSIT, NOT_REPEATED, PLACE, QUERIES, READ, REDUCE, REPLACE
from sim.randomness import Stream
from sim.scenario import MILLISECOND_NS, SECOND_NS, Scenario, ScenarioError
from sim.script import Script, Strike
from traces.manifest import TopologyRecord

GAP_NS_MAX: Final = 500 * MILLISECOND_NS
"""The longest pause between two operations."""
QUANTITY_MAX: Final = 20
DISTANCE_MAX: Final = 3
"""Prices lie so many ticks around one middle: close enough that most orders meet others."""
ORDER_KINDS: Final = (
    *((OrderType.LIMIT, TimeInForce.GTC),) * 4,
    (OrderType.LIMIT, TimeInForce.IOC),
    (OrderType.LIMIT, TimeInForce.FOK),
    (OrderType.LIMIT, TimeInForce.POST_ONLY),
    (OrderType.MARKET, TimeInForce.IOC),
)
"""Half of the orders may rest: without those, nothing trades."""
_NOTHING: Final = "nothing"
"""The kind of a step that leaves no operation: what every step shrinks towards."""
_MEET: Final = "meet"
"""The kind of a step that places an order against an earlier one, by another user if there is one."""
_STEP_KINDS: Final = (_NOTHING, *(PLACE,) * 4, *(_MEET,) * 4, CANCEL, READ, REDUCE, REPLACE)
_SHORT_OF: Final = 8
"""One flow in so many has a user whose deposits pay for half of the orders only."""
_DEPOSIT_TIME_NS: Final = 200 * MILLISECOND_NS


@dataclass(frozen=True)
class _Step:
    """One drawn operation, before it is known which order it refers to. `back` counts orders back from here."""

    kind: str
    user: int
    gap_ns: int
    symbol: int
    back: int
    side: int
    order: int
    distance: int
    quantity: int
    gateway: int
    repeated_after_ns: int
    query: int


def order_flows(
    topology: Topology, *, users: int = 3, operations_min: int = 0, operations_max: int = 30, gateways: int = 2
) -> st.SearchStrategy[tuple[Operation, ...]]:
    """Operations of a few users around one price in each symbol, with the deposits that they need in front: orders of
    every kind, many of which trade, cancels, reduces, replaces, repeats, and reads, of other users' orders, too.

    `users` act, as users 1 to `users`; at most `operations_max` operations are drawn, deposits not counted. Most flows
    are short unless `operations_min` steps at least are asked for, some of which are none; those shrink more slowly. In
    some flows the funds of one user run short.
    """
    step = st.builds(
        _Step,
        kind=st.sampled_from(_STEP_KINDS),
        user=st.integers(1, users),
        gap_ns=st.integers(0, GAP_NS_MAX // MILLISECOND_NS).map(_nanoseconds),
        symbol=st.integers(0, len(tuple(topology.symbols)) - 1),
        back=st.integers(0, 5),
        side=st.sampled_from((int(Side.BUY), int(Side.SELL))),
        order=st.integers(0, len(ORDER_KINDS) - 1),
        distance=st.integers(-DISTANCE_MAX, DISTANCE_MAX),
        quantity=st.integers(1, QUANTITY_MAX),
        gateway=st.integers(0, gateways - 1),
        repeated_after_ns=st.one_of(st.just(NOT_REPEATED), st.integers(0, SECOND_NS)),
        query=st.integers(0, len(QUERIES) - 1),
    )
    steps = st.lists(step, min_size=operations_min, max_size=operations_max)
    short = st.sampled_from((0,) * (_SHORT_OF - 1) * users + tuple(range(1, users + 1)))
    return st.builds(lambda user, drawn: _flow(topology, drawn, users, user), short, steps)


def strikes(scenario: Scenario, *, faults: Sequence[str] | None = None) -> st.SearchStrategy[Strike]:
    """One strike of a fault at something that the scenario has, within its duration.

    `faults` lists those that may strike (default: all that break no assumption; of none, there is no strike to draw).
    Raises ScenarioError for a name that is not one of a fault.
    """
    names = _may_strike(faults)
    layout = layout_of(scenario)

    def of(name: str) -> st.SearchStrategy[Strike]:
        option = OPTIONS[name]
        targets = st.integers(0, 1_000).map(lambda seed: option.aim.draw(Stream(seed, name), layout))
        return targets.flatmap(lambda target: at(option, target))

    def at(option: FaultOptions, target: str) -> st.SearchStrategy[Strike]:
        moments = [each.name for each in option.moments_of(target, layout)]
        none = [] if option.is_always_aimed and moments else [""]
        return st.sampled_from([*none, *moments]).flatmap(lambda moment: when(option, target, moment))

    def when(option: FaultOptions, target: str, moment: str) -> st.SearchStrategy[Strike]:
        duration_ms, strength = option.spans(moment)
        return st.builds(
            Strike,
            fault=st.just(option.name),
            at_ns=st.integers(0, scenario.duration_ns),
            duration_ns=st.integers(duration_ms.low, duration_ms.high).map(_nanoseconds),
            target=st.just(target),
            strength=st.integers(strength.low, strength.high),
            moment=st.just(moment),
        )

    return st.sampled_from(names).flatmap(of) if names else st.nothing()


def scenarios(
    *,
    base: Scenario | None = None,
    users: int = 3,
    operations_min: int = 0,
    operations_max: int = 30,
    faults: Sequence[str] | None = None,
    strikes_max: int = 3,
) -> st.SearchStrategy[Scenario]:
    """A scenario with its script: a drawn flow, and at most `strikes_max` strikes of the faults listed.

    `faults` is a list of names (default: all that break no assumption; `[]`: none strikes). `base` gives everything
    else: symbols, partitions, instances (default: one symbol and partition, two of each). Raises ScenarioError, when it
    is called, for a name that is not one of a fault.
    """
    if base is None:
        base = Scenario(symbols=1, user_partitions=1, symbol_partitions=1)
    topology = make_topology(base.symbols, base.user_partitions, base.symbol_partitions)
    flows = order_flows(
        topology,
        users=users,
        operations_min=operations_min,
        operations_max=operations_max,
        gateways=base.gateways,
    )
    names = _may_strike(faults)

    @st.composite
    def scenario(draw: st.DrawFn) -> Scenario:
        seed = draw(st.integers(0, 1_000))
        flow = draw(flows)
        duration_ns = (flow[-1].at_ns if flow else 0) + SECOND_NS
        timed = dataclasses.replace(base, duration_ns=duration_ns)
        struck = draw(st.lists(strikes(timed, faults=names), max_size=strikes_max)) if names and strikes_max else []
        script = Script(
            topology=TopologyRecord.of(topology),
            operations=flow,
            strikes=tuple(sorted(struck, key=lambda each: each.at_ns)),
        )
        return dataclasses.replace(timed, seed=seed, script=script)

    return scenario()


def _may_strike(faults: Sequence[str] | None) -> list[str]:
    """The names of the faults that may strike. Raises ScenarioError for one that is not known."""
    if faults is None:
        return [name for name, each in OPTIONS.items() if not each.breaks_assumption]
    if isinstance(faults, str):
        raise ScenarioError(f"faults wants a list of names, such as ['crash', 'pause'], not the text {faults!r}")
    for name in faults:
        if name not in OPTIONS:
            raise ScenarioError(f"unknown fault {name!r}; there are: {', '.join(OPTIONS)}")
    return list(faults)


def _nanoseconds(milliseconds: int) -> int:
    return milliseconds * MILLISECOND_NS


def _flow(topology: Topology, steps: Sequence[_Step], users: int, short_user: int) -> tuple[Operation, ...]:
    """The steps as operations of users 1 to `users`, deposits in front; too small for `short_user` (0: nobody)."""
    symbols = tuple(topology.symbols)
    orders: list[Operation] = []
    found: list[Operation] = []
    now = _DEPOSIT_TIME_NS
    for number, step in enumerate(steps):
        if step.kind == _NOTHING:
            continue
        now += step.gap_ns
        about = orders[-1 - step.back % len(orders)] if orders else None
        symbol = symbols[step.symbol] if about is None or step.kind == PLACE else topology.symbols.named(about.symbol)
        placing = _meeting(step, about, symbol, users) if step.kind == _MEET else step
        operation = _operation(placing, f"r{number + 1}", now, symbol, about)
        if operation is not None:
            found.append(operation)
        if operation is not None and operation.kind in (PLACE, REPLACE):
            orders.append(operation)
    return (*_deposits(found, topology, short_user), *found)


def _meeting(step: _Step, about: Operation | None, symbol: Symbol, users: int) -> _Step:
    """The placement that meets the order `about` at its price; any placement when there is no order yet."""
    if about is None:
        return dataclasses.replace(step, kind=PLACE)
    return dataclasses.replace(
        step,
        kind=PLACE,
        user=step.user if step.user != about.user_id else step.user % users + 1,
        side=int(Side.SELL if about.side == Side.BUY else Side.BUY),
        distance=about.price - first_price(symbol) if about.price else step.distance,
    )


def _operation(step: _Step, request_id: str, now: int, symbol: Symbol, about: Operation | None) -> Operation | None:
    """The operation of a step; None when it is about an order and there is none yet."""
    plain = Operation(at_ns=now, user_id=step.user, kind=step.kind, request_id=request_id, gateway=step.gateway)
    if step.kind == READ:
        read = replace(plain, query=QUERIES[step.query])
        if read.query != "order":
            return replace(read, symbol=symbol.name)
        # Whoever looks: that an order is shown to nobody but its user is to be tested, too.
        return replace(read, reference=about.request_id, reference_user_id=about.user_id) if about is not None else None
    order_type, time_in_force = ORDER_KINDS[step.order]
    price = first_price(symbol) + step.distance
    is_market = order_type == OrderType.MARKET and step.kind == PLACE
    order = replace(
        plain,
        symbol=symbol.name,
        side=step.side,
        order_type=int(OrderType.MARKET if is_market else OrderType.LIMIT),
        time_in_force=int(time_in_force if step.kind == PLACE else TimeInForce.GTC),
        price=0 if is_market else price,
        quantity=0 if is_market and step.side == Side.BUY else step.quantity,
        max_spend=price * step.quantity * symbol.tick_lot_atoms if is_market and step.side == Side.BUY else 0,
        repeat_after_ns=step.repeated_after_ns,
    )
    if step.kind == PLACE:
        return order
    if about is None:
        return None
    refers = replace(order, user_id=about.user_id, reference=about.request_id)
    if step.kind == REPLACE:
        return replace(refers, side=about.side)
    return replace(refers, side=0, time_in_force=0, price=0, quantity=step.quantity if step.kind == REDUCE else 0)


def _deposits(operations: Sequence[Operation], topology: Topology, short_user: int) -> list[Operation]:
    """For each user and asset that the orders need, a deposit that pays for all of them; for half, if `short_user`."""
    needed: dict[tuple[int, str], int] = {}
    for each in operations:
        if each.kind in (PLACE, REPLACE):
            symbol = topology.symbols.named(each.symbol)
            if each.side == Side.BUY:
                cost = each.max_spend or each.price * each.quantity * symbol.tick_lot_atoms
                asset = symbol.quote.name
            else:
                cost, asset = each.quantity * symbol.lot_atoms, symbol.base.name
            needed[each.user_id, asset] = needed.get((each.user_id, asset), 0) + cost
    return [
        Operation(
            at_ns=0,
            user_id=user,
            kind=DEPOSIT,
            request_id=f"d{number + 1}",
            asset=asset,
            amount=(amount + 1) // 2 if user == short_user else 2 * amount,
        )
        for number, ((user, asset), amount) in enumerate(needed.items())
    ]
