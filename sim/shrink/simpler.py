"""Passes: each makes a failing case simpler in one way, and keeps what still fails.

A pass takes a case (a scenario with its script) and a test, and gives the simplest case that it found. None of them
knows what the invariant or the defect is; that a candidate means nothing any more shows when it is run.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from msgspec.structs import replace as replaced

from schema.codes import OrderType, TimeInForce
from sim.flows.operations import DEPOSIT, NOT_REPEATED, PLACE, REPLACE, Operation
from sim.scenario import MILLISECOND_NS, Scenario
from sim.script import Script, Strike
from traces.manifest import TopologyRecord

_AMOUNT_MAX: Final = 10**18
"""A round figure that a column holds."""

T = TypeVar("T")
Test = Callable[[Scenario], bool]
"""Whether a case still fails."""
Pass = Callable[[Scenario, Test], Scenario]

PACE_NS: Final = 100 * MILLISECOND_NS
"""Operations at an even pace read best; slow enough that each has its effect before the next."""


def script_of(case: Scenario) -> Script:
    """The script of a case; every case has one."""
    assert case.script is not None
    return case.script


def fewer(items: Sequence[T], fails: Callable[[tuple[T, ...]], bool]) -> tuple[T, ...]:
    """The fewest of the items, in their order, with which it still fails: whole stretches first, then single ones.

    Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input" (2002), without the complements: a
    stretch that can be left out is left out at once.
    """
    kept = tuple(items)
    if kept and fails(()):
        return ()
    size = len(kept)
    while size >= 1:
        end = len(kept)
        while end > 0:
            start = max(0, end - size)
            without = kept[:start] + kept[end:]
            if fails(without):
                kept = without
            end = start
        size //= 2
    return kept


def fewer_strikes(case: Scenario, fails: Test) -> Scenario:
    """Leave faults out."""

    def with_strikes(strikes: tuple[Strike, ...]) -> Scenario:
        return _with(case, strikes=strikes)

    return with_strikes(fewer(script_of(case).strikes, lambda strikes: fails(with_strikes(strikes))))


def shorter(case: Scenario, fails: Test) -> Scenario:
    """Cut the end off: operations and strikes after the moment by which it has failed."""
    operations = script_of(case).operations
    low, high = 0, len(operations)
    # That a longer beginning fails too is likely, not certain: what comes out of it was tested all the same.
    while high - low > 1:
        middle = (low + high) // 2
        if fails(_with(case, operations=operations[:middle])):
            high = middle
        else:
            low = middle
    return _with(case, operations=operations[:high])


def fewer_users(case: Scenario, fails: Test) -> Scenario:
    """Leave out all that some users do."""
    users = tuple(dict.fromkeys(each.user_id for each in script_of(case).operations))

    def without(kept: tuple[int, ...]) -> Scenario:
        mine = tuple(each for each in script_of(case).operations if each.user_id in kept)
        return _with(case, operations=mine)

    return without(fewer(users, lambda kept: fails(without(kept))))


def fewer_operations(case: Scenario, fails: Test) -> Scenario:
    """Leave operations out, and with each the ones that refer to it."""

    def with_operations(operations: tuple[Operation, ...]) -> Scenario:
        return _with(case, operations=_without_orphans(operations))

    return with_operations(fewer(script_of(case).operations, lambda kept: fails(with_operations(kept))))


def one_of_each(case: Scenario, fails: Test) -> Scenario:
    """One gateway, one instance of each service, one partition; strikes at those that are gone aim at the first."""
    services = ("ubscore", "matching", "settlement")
    candidates = [
        _aimed_at_first(replace(case, instances=1, gateways=1), (*services, "gateway")),
        _aimed_at_first(replace(case, instances=1), services),
        _aimed_at_first(replace(case, gateways=1), ("gateway",)),
    ]
    case = _first_failing(candidates, fails, case)
    topology = script_of(case).topology
    if topology.user_partitions > 1:
        case = _first_failing([_with(case, topology=_divided(topology, user_partitions=1))], fails, case)
    case = _first_failing([_with(case, topology=_only_traded(case))], fails, case)
    if case.snapshot_interval_outputs:
        case = _first_failing([replace(case, snapshot_interval_outputs=0)], fails, case)
    return case


def simpler_operations(case: Scenario, fails: Test) -> Scenario:
    """Plain limit orders of few lots, sent once, at the first gateway, at an even pace, by users 1, 2, 3."""
    case = _first_failing([_evenly_paced(case)], fails, case)
    case = _first_failing([_renumbered(case)], fails, case)
    for number in range(len(script_of(case).operations)):
        for simpler in _simpler(script_of(case).operations[number]):
            before = script_of(case).operations
            after = (*before[:number], simpler(before[number]), *before[number + 1 :])
            if after != before and fails(_with(case, operations=after)):
                case = _with(case, operations=after)
    return case


def simpler_strikes(case: Scenario, fails: Test) -> Scenario:
    """Strikes at their own time rather than a moment's, shorter, and weaker."""
    for number in range(len(script_of(case).strikes)):
        for simpler in (_unaimed, _half_as_long, _half_as_long, _half_as_strong, _half_as_strong, _rounded):
            before = script_of(case).strikes
            after = (*before[:number], simpler(before[number]), *before[number + 1 :])
            if after != before and fails(_with(case, strikes=after)):
                case = _with(case, strikes=after)
    return case


def less_time(case: Scenario, fails: Test) -> Scenario:
    """A shorter time of work: nothing is left to do in the rest of it."""
    script = script_of(case)
    last = max((*(each.at_ns for each in script.operations), *(each.at_ns for each in script.strikes)), default=0)
    ends = [last + MILLISECOND_NS, last + 1_000 * MILLISECOND_NS]
    return _first_failing([replace(case, duration_ns=end) for end in ends if end < case.duration_ns], fails, case)


PASSES: Final[tuple[Pass, ...]] = (
    fewer_strikes,
    shorter,
    fewer_users,
    fewer_operations,
    one_of_each,
    less_time,
    simpler_operations,
    simpler_strikes,
)
"""In this order: what takes most away comes first, so that the runs become short soon."""


def _with(case: Scenario, **parts: object) -> Scenario:
    return replace(case, script=replaced(script_of(case), **parts))


def _first_failing(candidates: Sequence[Scenario], fails: Test, otherwise: Scenario) -> Scenario:
    return next((each for each in candidates if each != otherwise and fails(each)), otherwise)


def _without_orphans(operations: tuple[Operation, ...]) -> tuple[Operation, ...]:
    """Without what refers to a request that is not there."""
    there: dict[tuple[int, str], None] = {}
    kept = []
    for each in operations:
        if each.reference and (each.reference_user_id or each.user_id, each.reference) not in there:
            continue
        if each.kind in (PLACE, REPLACE):
            there[each.user_id, each.request_id] = None
        kept.append(each)
    return tuple(kept)


def _aimed_at_first(case: Scenario, services: Sequence[str]) -> Scenario:
    """The case with each strike at a host of these services aimed at the first of its service."""

    def first(host: str) -> str:
        service, dash, _ = host.rpartition("-")
        return f"{service}-1" if dash and service in services else host

    strikes = script_of(case).strikes
    aimed = tuple(replace(each, target="->".join(map(first, each.target.split("->")))) for each in strikes)
    return _with(case, strikes=aimed)


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


def _evenly_paced(case: Scenario) -> Scenario:
    operations = script_of(case).operations
    paced = tuple(replaced(each, at_ns=number * PACE_NS) for number, each in enumerate(operations))
    return _with(case, operations=paced)


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
    return _with(case, operations=renumbered)


def _simpler(operation: Operation) -> Iterator[Callable[[Operation], Operation]]:
    """Ways to make an operation simpler, the boldest first."""
    if operation.repeat_after_ns != NOT_REPEATED:
        yield lambda each: replaced(each, repeat_after_ns=NOT_REPEATED)
    if operation.gateway:
        yield lambda each: replaced(each, gateway=0)
    if operation.kind in (PLACE, REPLACE):
        yield lambda each: replaced(
            each,
            order_type=int(OrderType.LIMIT),
            time_in_force=int(TimeInForce.GTC),
            max_spend=0,
            price=each.price or 1,
        )
    if operation.quantity > 1:
        yield lambda each: replaced(each, quantity=1)
        yield lambda each: replaced(each, quantity=2)
        yield lambda each: replaced(each, quantity=max(1, each.quantity // 2))
    if operation.kind == DEPOSIT:
        yield lambda each: replaced(each, amount=10 ** (len(str(each.amount)) - 1))
        yield lambda each: replaced(each, amount=min(_AMOUNT_MAX, 10 ** len(str(each.amount))))


def _unaimed(strike: Strike) -> Strike:
    return replace(strike, is_aimed=False)


def _half_as_long(strike: Strike) -> Strike:
    return replace(strike, duration_ns=strike.duration_ns // 2)


def _half_as_strong(strike: Strike) -> Strike:
    half = strike.strength // 2 if strike.strength >= 0 else -(-strike.strength // 2)
    return replace(strike, strength=half)


def _rounded(strike: Strike) -> Strike:
    return replace(
        strike,
        at_ns=strike.at_ns // PACE_NS * PACE_NS,
        duration_ns=max(MILLISECOND_NS, strike.duration_ns // MILLISECOND_NS * MILLISECOND_NS),
    )
