"""Passes that take away: the end of the work, faults, users, symbols, operations.

A pass takes a case (a scenario with its script) and a test, and gives the simplest failing case that it found. None of
them knows what the invariant or the defect is; that a candidate means nothing any more shows when it is run. The test
gives the failing case back, because it may have had to try another seed (`sim.shrink.target`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, Final, TypeVar

from msgspec.structs import replace as replaced

from sim.flows.operations import PLACE, REPLACE, Operation
from sim.scenario import MILLISECOND_NS, SECOND_NS, Scenario
from sim.script import Script, Strike

C = TypeVar("C")
T = TypeVar("T")
Test = Callable[[Scenario], Scenario | None]
"""The failing case for a candidate: itself, or the same with another seed; None when it does not fail."""
Pass = Callable[[Scenario, Test], Scenario]

FIRST_BEGINNING: Final = 16
"""So many operations make the first beginning that is tried."""
PAIRS_MAX: Final = 12
"""Of so many operations at most every two are tried to be left out together."""
_ENDS_NS: Final = (MILLISECOND_NS, SECOND_NS, 5 * SECOND_NS, 20 * SECOND_NS)
"""How long the work goes on after the last thing to do, the shortest first: services may need it to get that far."""


def script_of(case: Scenario) -> Script:
    """The script of a case; every case has one."""
    assert case.script is not None
    return case.script


def with_script(case: Scenario, **parts: object) -> Scenario:
    """The case with parts of its script replaced."""
    return replace(case, script=replaced(script_of(case), **parts))


def first_failing(candidates: Sequence[Scenario], test: Test, otherwise: Scenario) -> Scenario:
    """The first candidate that fails, the best first; what there is already, when none before it does."""
    for each in candidates:
        if each == otherwise:
            break
        if (failing := test(each)) is not None:
            return failing
    return otherwise


def fewer(
    case: C,
    items_of: Callable[[C], Sequence[T]],
    having: Callable[[C, tuple[T, ...]], C],
    test: Callable[[C], C | None],
) -> C:
    """The case with the fewest of its items, in their order, with which it still fails: whole stretches first, then
    single ones.

    Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input" (2002), without the complements: a
    stretch that can be left out is left out at once. Leaving out may take more than it was asked to (`having`).
    """
    if items_of(case) and (bare := test(having(case, ()))) is not None:
        return bare
    size = len(items_of(case))
    while size >= 1:
        end = len(items_of(case))
        while end > 0:
            kept = tuple(items_of(case))
            start = max(0, end - size)
            failing = test(having(case, kept[:start] + kept[end:]))
            if failing is not None:
                case = failing
                # What referred to a thing that is gone went with it, and may have stood before it or after it.
                start = min(start, len(items_of(case)))
            end = start
        size //= 2
    return case


def sooner(case: Scenario, test: Test) -> Scenario:
    """Strikes at an eighth of their time, a quarter or half: a beginning that holds them all is short then."""
    candidates = []
    for part in (8, 4, 2):
        strikes = tuple(replace(each, at_ns=each.at_ns // part) for each in script_of(case).strikes)
        candidates.append(with_script(case, strikes=strikes))
    return first_failing(candidates, test, case)


def shorter(case: Scenario, test: Test) -> Scenario:
    """Cut the end off: the operations after the moment by which it has failed, then the time after the last of them."""
    operations = script_of(case).operations
    low, high = 0, len(operations)
    # Short beginnings first, each twice as long as the last: a long one costs as much as all the shorter ones together.
    middle = min(FIRST_BEGINNING, high // 2)
    # That a longer beginning fails too is likely, not certain: what comes out of it was tested all the same.
    while high - low > 1:
        failing = test(with_script(case, operations=operations[:middle]))
        if failing is not None:
            case, high = failing, middle
        else:
            low = middle
        middle = min(2 * low, (low + high) // 2) if low else high // 2
    return less_time(case, test)


def less_time(case: Scenario, test: Test) -> Scenario:
    """A shorter time of work: nothing is left to do in the rest of it. Strikes that would come later go."""
    last = max((each.at_ns for each in script_of(case).operations), default=0)
    candidates = []
    for after_ns in _ENDS_NS:
        end_ns = last + after_ns
        if end_ns < case.duration_ns:
            strikes = tuple(each for each in script_of(case).strikes if each.at_ns <= end_ns)
            candidates.append(with_script(replace(case, duration_ns=end_ns), strikes=strikes))
    return first_failing(candidates, test, case)


def fewer_strikes(case: Scenario, test: Test) -> Scenario:
    """Leave faults out."""

    def strikes_of(case: Scenario) -> tuple[Strike, ...]:
        return script_of(case).strikes

    def having(case: Scenario, strikes: tuple[Strike, ...]) -> Scenario:
        return with_script(case, strikes=strikes)

    return fewer(case, strikes_of, having, test)


def fewer_users(case: Scenario, test: Test) -> Scenario:
    """Leave out all that some users do."""
    return _fewer_kinds(case, lambda each: each.user_id, test)


def fewer_symbols(case: Scenario, test: Test) -> Scenario:
    """Leave out all that is done in some symbols."""
    return _fewer_kinds(case, lambda each: each.symbol, test)


def fewer_operations(case: Scenario, test: Test) -> Scenario:
    """Leave operations out, and with each the ones that refer to it."""
    return fewer(case, _operations_of, _having_operations, test)


def fewer_pairs(case: Scenario, test: Test) -> Scenario:
    """Leave out two operations that only make sense together, such as a deposit and the order that it pays for."""
    if len(script_of(case).operations) > PAIRS_MAX:
        return case
    while (smaller := next(_without_two(case, test), None)) is not None:
        case = smaller
    return case


def _without_two(case: Scenario, test: Test) -> Iterator[Scenario]:
    operations = script_of(case).operations
    for pair in combinations(range(len(operations)), 2):
        kept = tuple(each for number, each in enumerate(operations) if number not in pair)
        failing = test(_having_operations(case, kept))
        if failing is not None:
            yield failing


def _fewer_kinds(case: Scenario, kind_of: Callable[[Operation], Any], test: Test) -> Scenario:
    """Leave out all operations of some kinds; operations of no kind ("") stay."""

    def kinds_of(case: Scenario) -> tuple[Any, ...]:
        return tuple(dict.fromkeys(kind for each in script_of(case).operations if (kind := kind_of(each))))

    def having(case: Scenario, kept: tuple[Any, ...]) -> Scenario:
        operations = script_of(case).operations
        return _having_operations(
            case, tuple(each for each in operations if not (kind := kind_of(each)) or kind in kept)
        )

    return fewer(case, kinds_of, having, test)


def _operations_of(case: Scenario) -> tuple[Operation, ...]:
    return script_of(case).operations


def _having_operations(case: Scenario, operations: tuple[Operation, ...]) -> Scenario:
    """The case with these operations, but for those that refer to a request that is not there."""
    there: dict[tuple[int, str], None] = {}
    kept = []
    for each in operations:
        if each.reference and (each.reference_user_id or each.user_id, each.reference) not in there:
            continue
        if each.kind in (PLACE, REPLACE):
            there[each.user_id, each.request_id] = None
        kept.append(each)
    return with_script(case, operations=tuple(kept))
