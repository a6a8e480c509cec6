"""Passes that make plainer what is left: no faults or one, fewer hosts, plain orders at an even pace.

As in `sim.shrink.fewer`, a pass takes a case and a test, and knows nothing of the invariant.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Final

from msgspec.structs import replace as replaced

from schema.codes import OrderType, TimeInForce
from schema.services import GATEWAY, MATCHING, SETTLEMENT, UBSCORE
from sim.deployment import layout_of
from sim.faults.catalogue import OPTIONS
from sim.flows.operations import CANCEL, DEPOSIT, NOT_REPEATED, PLACE, REDUCE, REPLACE, Operation
from sim.scenario import MILLISECOND_NS, Scenario
from sim.script import Strike
from sim.shrink.fewer import Test, first_failing, script_of, with_script
from traces.manifest import TopologyRecord

PACE_NS: Final = 100 * MILLISECOND_NS
"""Operations at an even pace read best; slow enough that each has its effect before the next."""
AMPLE: Final = 10**15
"""A deposit that pays for whatever a case does; a hundred of them fit a column."""
MERGED_MAX: Final = 6
"""Of so many users at most every two are tried as one."""


def calm(case: Scenario, test: Test) -> Scenario:
    """No faults at all, at the pace that there is, an even one, or everything at once.

    Asked first, while there is much that can fail without them: what is left of a long flow later may fail only because
    faults delay one thing and not another.
    """
    bare = with_script(case, strikes=())
    return first_failing([bare, *(_at_pace(bare, pace_ns) for pace_ns in (PACE_NS // 10, 0))], test, case)


def plain_snapshots(case: Scenario, test: Test) -> Scenario:
    """No snapshots; else one after each output, so that none needs to be waited for."""
    return first_failing([replace(case, snapshot_interval_outputs=each) for each in (0, 1)], test, case)


def one_aimed_strike(case: Scenario, test: Test) -> Scenario:
    """One strike of a fault that is always aimed, at its moment, instead of all strikes that a seed drew."""
    if len(script_of(case).strikes) < 2:
        return case
    layout = layout_of(case)
    strikes = [
        Strike(
            fault=option.name,
            at_ns=case.duration_ns // 4,
            duration_ns=option.duration_ms.high * MILLISECOND_NS,
            target=hosts[0],
            strength=option.strength.high,
            moment=moment.name,
        )
        for option in OPTIONS.values()
        if option.is_always_aimed and not option.breaks_assumption
        for hosts in layout.services.values()
        for moment in option.moments_of(hosts[0], layout)
    ]
    return first_failing([with_script(case, strikes=(each,)) for each in strikes], test, case)


def ample_deposits(case: Scenario, test: Test) -> Scenario:
    """Deposits that pay for everything: one of each user and asset is enough then."""
    operations = tuple(
        replaced(each, amount=AMPLE) if each.kind == DEPOSIT else each for each in script_of(case).operations
    )
    return first_failing([with_script(case, operations=operations)], test, case)


def one_of_each(case: Scenario, test: Test) -> Scenario:
    """One gateway, one instance of each service, one partition; strikes at those that are gone aim at the first."""
    services = (UBSCORE, MATCHING, SETTLEMENT)
    candidates = [
        _aimed_at_first(replace(case, instances=1, gateways=1), (*services, GATEWAY)),
        _aimed_at_first(replace(case, instances=1), services),
        _aimed_at_first(replace(case, gateways=1), (GATEWAY,)),
    ]
    case = first_failing(candidates, test, case)
    topology = script_of(case).topology
    if topology.user_partitions > 1:
        case = first_failing([with_script(case, topology=_divided(topology, user_partitions=1))], test, case)
    return first_failing([with_script(case, topology=_only_traded(case))], test, case)


def fewer_names(case: Scenario, test: Test) -> Scenario:
    """Users 1, 2, 3 and requests r1, r2, r3; two users as one, all trading in one symbol."""
    case = first_failing([_renumbered(case)], test, case)
    users = tuple(dict.fromkeys(each.user_id for each in script_of(case).operations))
    if len(users) <= MERGED_MAX and _has_unique_requests(case):
        for into, other in combinations(users, 2):
            case = first_failing([_renumbered(_as_one_user(case, into, other))], test, case)
    symbols = {each.symbol: each for each in script_of(case).operations if each.symbol}
    if len(symbols) > 1:
        case = first_failing([_in_one_symbol(case, name) for name in symbols], test, case)
    return case


def paced(case: Scenario, test: Test) -> Scenario:
    """Operations at an even pace; strikes stay between the operations between which they were."""
    times = [each.at_ns for each in script_of(case).operations]
    candidates = [
        _at_pace(case, PACE_NS),
        _at_pace(case, PACE_NS // 10),
        _retimed(case, list(_closer(times, PACE_NS))),
        _retimed(case, list(_closer(times, 10 * PACE_NS))),
    ]
    return first_failing(candidates, test, case)


def simpler_operations(case: Scenario, test: Test) -> Scenario:
    """Plain limit orders of few lots, sent once, at the first gateway, and all of them cheap or alike in price."""
    for number in range(len(script_of(case).operations)):
        for simpler in _simpler(case, script_of(case).operations[number]):
            before = script_of(case).operations
            if number < len(before):
                after = (*before[:number], simpler(before[number]), *before[number + 1 :])
                case = first_failing([with_script(case, operations=after)], test, case)
    return case


def aimed_strikes(case: Scenario, test: Test) -> Scenario:
    """Strikes at the moment that hurts rather than at an instant of time: they hurt whatever else changes."""
    layout = layout_of(case)
    for number in range(len(script_of(case).strikes)):
        strike = script_of(case).strikes[number]
        if not strike.moment:
            for moment in OPTIONS[strike.fault].moments_of(strike.target, layout):
                case = _with_strike(case, number, partial(_aimed, moment=moment.name), test)
    return case


def one_bold_strike(case: Scenario, test: Test) -> Scenario:
    """One strike, as long and as strong as its fault may be, instead of several."""
    strikes = script_of(case).strikes
    if len(strikes) < 2:
        return case
    candidates = []
    for each in strikes:
        option = OPTIONS[each.fault]
        longest = replace(each, duration_ns=option.duration_ms.high * MILLISECOND_NS)
        strongest = replace(longest, strength=option.strength.high)
        candidates += [with_script(case, strikes=(bold,)) for bold in dict.fromkeys((longest, strongest))]
    return first_failing(candidates, test, case)


def simpler_strikes(case: Scenario, test: Test) -> Scenario:
    """Strikes at round times, shorter, and weaker."""
    for number in range(len(script_of(case).strikes)):
        for simpler in (_half_as_long, _half_as_strong, _rounded):
            while (found := _with_strike(case, number, simpler, test)) != case:
                case = found
    return case


def _at_pace(case: Scenario, pace_ns: int) -> Scenario:
    return _retimed(case, [number * pace_ns for number in range(len(script_of(case).operations))])


def _with_strike(case: Scenario, number: int, simpler: Callable[[Strike], Strike], test: Test) -> Scenario:
    before = script_of(case).strikes
    after = (*before[:number], simpler(before[number]), *before[number + 1 :])
    return first_failing([with_script(case, strikes=after)], test, case)


def _aimed_at_first(case: Scenario, services: Sequence[str]) -> Scenario:
    """The case with each strike at a host of these services aimed at the first of its service."""

    def first(host: str) -> str:
        service, dash, _ = host.rpartition("-")
        return f"{service}-1" if dash and service in services else host

    strikes = script_of(case).strikes
    aimed = tuple(replace(each, target="->".join(map(first, each.target.split("->")))) for each in strikes)
    return with_script(case, strikes=aimed)


def _divided(topology: TopologyRecord, user_partitions: int) -> TopologyRecord:
    return replaced(topology, user_partitions=user_partitions)


def _only_traded(case: Scenario) -> TopologyRecord:
    """Only the symbols that some operation names, or whose assets one moves, all in the first partition."""
    script = script_of(case)
    named = {each.symbol for each in script.operations if each.symbol}
    moved = {each.asset for each in script.operations if each.asset}
    symbols = [each for each in script.topology.symbols if each.name in named]
    known = {asset.name for each in symbols for asset in (each.base, each.quote)}
    symbols += [
        each
        for each in script.topology.symbols
        if each.name not in named and moved & {each.base.name, each.quote.name} - known
    ]
    kept = symbols or list(script.topology.symbols[:1])
    return replaced(script.topology, symbols=tuple(replaced(each, partition=0) for each in kept))


def _retimed(case: Scenario, times: Sequence[int]) -> Scenario:
    """The case with its operations at these times. Strikes keep their place between the same two operations, and the
    work the time that it has after the last one."""
    script = script_of(case)
    old = [each.at_ns for each in script.operations]
    if not old:
        return case

    def moved(at_ns: int) -> int:
        after = max((number for number, time in enumerate(old) if time <= at_ns), default=-1)
        if after == -1:
            return min(at_ns, times[0])
        rest = at_ns - old[after]
        if after + 1 < len(old):
            rest = rest * (times[after + 1] - times[after]) // (old[after + 1] - old[after])
        return times[after] + rest

    operations = tuple(replaced(each, at_ns=time) for each, time in zip(script.operations, times, strict=True))
    strikes = tuple(replace(each, at_ns=moved(each.at_ns)) for each in script.strikes)
    end_ns = max(moved(case.duration_ns), times[-1] + MILLISECOND_NS)
    return with_script(replace(case, duration_ns=end_ns), operations=operations, strikes=strikes)


def _closer(times: Sequence[int], gap_ns: int) -> Iterator[int]:
    """The same times, with no longer a gap between two of them, and none before the first."""
    now, last = 0, times[0] if times else 0
    for each in times:
        now += min(gap_ns, each - last)
        last = each
        yield now


def _has_unique_requests(case: Scenario) -> bool:
    """Whether no two users name a request alike: then one may take over another's."""
    named = {(each.user_id, each.request_id) for each in script_of(case).operations}
    return len({request for _, request in named}) == len(named)


def _as_one_user(case: Scenario, into: int, other: int) -> Scenario:
    def renamed(user_id: int) -> int:
        return into if user_id == other else user_id

    operations = tuple(
        replaced(each, user_id=renamed(each.user_id), reference_user_id=renamed(each.reference_user_id))
        for each in script_of(case).operations
    )
    return with_script(case, operations=operations)


def _in_one_symbol(case: Scenario, name: str) -> Scenario:
    """Everything done in other symbols and with their assets done in this one."""
    symbols = {each.name: each for each in script_of(case).topology.symbols}
    only = symbols[name]
    assets: dict[str, str] = {}
    for each in symbols.values():
        assets.setdefault(each.quote.name, only.quote.name)
        assets.setdefault(each.base.name, only.base.name)
    assets |= {only.base.name: only.base.name, only.quote.name: only.quote.name}
    operations = tuple(
        replaced(each, symbol=name if each.symbol else "", asset=assets.get(each.asset, each.asset))
        for each in script_of(case).operations
    )
    return with_script(case, operations=operations)


def _renumbered(case: Scenario) -> Scenario:
    """Users 1, 2, 3 in the order in which they appear, requests r1, r2, r3."""
    script = script_of(case)
    users: dict[int, int] = {}
    requests: dict[str, str] = {}
    for each in script.operations:
        users.setdefault(each.user_id, len(users) + 1)
        if each.request_id:
            requests.setdefault(each.request_id, f"r{len(requests) + 1}")
    renumbered = tuple(
        replaced(
            each,
            user_id=users[each.user_id],
            request_id=requests.get(each.request_id, ""),
            reference=requests.get(each.reference, each.reference),
            reference_user_id=users.get(each.reference_user_id, 0),
        )
        for each in script.operations
    )
    return with_script(case, operations=renumbered)


def _simpler(case: Scenario, operation: Operation) -> Iterator[Callable[[Operation], Operation]]:
    """Ways to make an operation simpler, the boldest first."""
    if operation.repeat_after_ns != NOT_REPEATED:
        yield lambda each: replaced(each, repeat_after_ns=NOT_REPEATED)
    if operation.gateway:
        yield lambda each: replaced(each, gateway=0)
    if operation.kind in (REDUCE, REPLACE):
        yield _as_cancel
    if operation.kind in (PLACE, REPLACE):
        yield lambda each: _as_plain_limit(each) if each.kind == operation.kind else each
        # The price of the first order of its symbol: orders of one price meet, and one price is easier to read.
        prices = (each.price for each in script_of(case).operations if each.symbol == operation.symbol and each.price)
        price = next(prices, operation.price)
        yield lambda each: replaced(each, price=price) if each.price else each
    if operation.quantity > 1:
        yield lambda each: replaced(each, quantity=min(1, each.quantity))
        yield lambda each: replaced(each, quantity=min(2, each.quantity))
        yield lambda each: replaced(each, quantity=(each.quantity + 1) // 2)
    if operation.kind == DEPOSIT:
        yield lambda each: replaced(each, amount=AMPLE)
        yield lambda each: replaced(each, amount=10 ** (len(str(each.amount)) - 1))


def _as_cancel(operation: Operation) -> Operation:
    return Operation(
        at_ns=operation.at_ns,
        user_id=operation.user_id,
        kind=CANCEL,
        request_id=operation.request_id,
        symbol=operation.symbol,
        reference=operation.reference,
        reference_user_id=operation.reference_user_id,
        gateway=operation.gateway,
        repeat_after_ns=operation.repeat_after_ns,
    )


def _as_plain_limit(operation: Operation) -> Operation:
    return replaced(
        operation,
        order_type=int(OrderType.LIMIT),
        time_in_force=int(TimeInForce.GTC),
        max_spend=0,
        price=operation.price or 1,
        quantity=operation.quantity or 1,
    )


def _aimed(strike: Strike, moment: str) -> Strike:
    """Waiting for that moment, unless it waits for one already."""
    return strike if strike.moment else replace(strike, moment=moment)


def _half_as_long(strike: Strike) -> Strike:
    return replace(strike, duration_ns=max(strike.duration_ns // 2, MILLISECOND_NS))


def _half_as_strong(strike: Strike) -> Strike:
    half = strike.strength // 2 if strike.strength >= 0 else -(-strike.strength // 2)
    return replace(strike, strength=max(half, OPTIONS[strike.fault].strengths.low))


def _rounded(strike: Strike) -> Strike:
    return replace(
        strike,
        at_ns=strike.at_ns // PACE_NS * PACE_NS,
        duration_ns=max(MILLISECOND_NS, strike.duration_ns // MILLISECOND_NS * MILLISECOND_NS),
    )
