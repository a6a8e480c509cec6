"""Generated sequences of operations, compared one by one; the first that differs is made as short as it goes."""

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import hypothesis
from hypothesis.strategies import SearchStrategy

T = TypeVar("T")


class Difference(AssertionError):
    """The two sides answered differently; the message has the sequence up to there and both answers."""


def first_difference(
    sequences: SearchStrategy[T], compare: Callable[[T], object], count: int, seed: int
) -> Difference | None:
    """Compare so many generated sequences; None when no `compare` raises Difference.

    One that differs and then, while it is shortened, does not, is told as what Hypothesis says of it.
    """

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        print_blob=False,
        phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
    )
    @hypothesis.given(sequences)
    def compare_all(sequence: Any) -> None:
        compare(sequence)

    try:
        with warnings.catch_warnings():
            # Clients' own threads draw from `random` meanwhile, which Hypothesis takes for a strategy's doing.
            warnings.simplefilter("ignore", hypothesis.errors.HypothesisDeprecationWarning)
            compare_all()
    except Difference as difference:
        return difference
    except hypothesis.errors.Flaky as flaky:
        return Difference(str(flaky))
    return None
