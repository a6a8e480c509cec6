"""Random draws that depend on the seed and on nothing else (design 5).

Every consumer of randomness draws from its own stream, named after what it is ("network/gateway-1->kafka-2",
"fault/broker-crash"). A new consumer, or one that draws more, leaves every other stream as it was.

Only `Random.getrandbits` is used of the standard library: the Mersenne Twister's bits are the same on every machine and
in every version of Python, whereas `random()`-based draws go through floats, and `expovariate` and its kind through
the platform's libm. The distributions come from tables instead: the exponential one from `decimal`, whose logarithm is
specified to be correctly rounded, the power law from integer roots. So machines agree to the last bit.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from decimal import Context, Decimal
from functools import cache
from hashlib import blake2b
from itertools import accumulate
from typing import TypeVar

T = TypeVar("T")

PPM = 1_000_000
"""Probabilities are parts per million."""

_CELL_BITS = 8  # the exponential table has 2**_CELL_BITS cells ...
_FRACTION_BITS = 24  # ... and is interpolated within a cell by this many bits
_LOG_BITS = 32  # logarithms are integers in units of 2**-_LOG_BITS
_WEIGHT_BITS = 48  # power-law weights are integers in units of 2**-_WEIGHT_BITS

POWER_LAW_SPAN_MAX = 1 << 16
"""The widest range a power law is drawn from: the table has an entry for each value."""


class Randomness:
    """The source of all streams of a run."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._streams: dict[str, Stream] = {}

    def stream(self, name: str) -> Stream:
        """The stream of that name. Asking again returns the same one, which goes on where it is."""
        stream = self._streams.get(name)
        if stream is None:
            stream = self._streams[name] = Stream(self.seed, name)
        return stream


class Stream:
    """One consumer's sequence of draws. Integers in, integers out."""

    __slots__ = ("_generator", "bits", "name")

    def __init__(self, seed: int, name: str) -> None:
        key = blake2b(f"{seed}/{name}".encode(), digest_size=32, person=b"exchange-sim").digest()
        self.name = name
        self._generator = random.Random(int.from_bytes(key, "big"))
        self.bits = self._generator.getrandbits
        """`bits(n)`: an integer of `n` random bits."""

    def below(self, n: int) -> int:
        """An integer x with 0 <= x < n, all equally likely."""
        if n <= 0:
            raise ValueError(f"nothing is below {n}")
        width = n.bit_length()
        bits = self.bits
        drawn = bits(width)
        while drawn >= n:
            drawn = bits(width)
        return drawn

    def between(self, low: int, high: int) -> int:
        """An integer x with low <= x <= high, all equally likely."""
        return low + self.below(high - low + 1)

    def chance_ppm(self, ppm: int) -> bool:
        """True with a probability of `ppm` parts per million. Draws nothing when the answer is certain."""
        if ppm <= 0:
            return False
        return ppm >= PPM or self.below(PPM) < ppm

    def choice(self, items: Sequence[T]) -> T:
        """One of `items`, all equally likely."""
        if not items:
            raise ValueError("there is nothing to choose from")
        return items[self.below(len(items))]

    def weighted(self, items: Sequence[T], weights: Sequence[int]) -> T:
        """One of `items`, each as likely as its integer weight says."""
        if len(items) != len(weights):
            raise ValueError(f"{len(items)} items need as many weights, not {len(weights)}")
        bounds = list(accumulate(weights))
        if not bounds or bounds[-1] <= 0 or min(weights) < 0:
            raise ValueError("the weights must not be negative, and not all zero")
        return items[bisect_right(bounds, self.below(bounds[-1]))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """A new list with the same items in random order."""
        result = list(items)
        for last in range(len(result) - 1, 0, -1):
            other = self.below(last + 1)
            result[last], result[other] = result[other], result[last]
        return result

    def exponential(self, mean: int) -> int:
        """An exponentially distributed integer of that mean (rounded down), such as the wait for a random event."""
        table = _negative_logarithms()
        result = 0
        cell = self.bits(_CELL_BITS)
        while cell == 0:
            # The lowest cell is the tail. The distribution has no memory: it is the cell's bound plus a fresh draw.
            result += table[1]
            cell = self.bits(_CELL_BITS)
        upper, lower = table[cell], table[cell + 1]
        result += upper - ((upper - lower) * self.bits(_FRACTION_BITS) >> _FRACTION_BITS)
        return result * mean >> _LOG_BITS

    def power_law(self, low: int, high: int, exponent: int, exponent_divisor: int = 1) -> int:
        """An integer from `low` >= 1 to `high`, x being as likely as x to the power of -exponent/exponent_divisor.

        The distance of new orders from the best price is such a draw. `high - low` is at most `POWER_LAW_SPAN_MAX`.
        """
        bounds = _power_law_bounds(low, high, exponent, exponent_divisor)
        return low + bisect_right(bounds, self.below(bounds[-1]))

    def token(self, n_bytes: int) -> bytes:
        """`n_bytes` random bytes."""
        return self.bits(8 * n_bytes).to_bytes(n_bytes, "big") if n_bytes else b""


@cache
def _negative_logarithms() -> list[int]:
    """-ln(i / cells) for i in 1..cells, in units of 2**-_LOG_BITS; the entry 0 is not used."""
    context = Context(prec=40)
    cells = 1 << _CELL_BITS
    scale = Decimal(1 << _LOG_BITS)
    whole = context.ln(Decimal(cells))
    logarithms = [context.subtract(whole, context.ln(Decimal(i))) for i in range(1, cells + 1)]
    return [0] + [int(context.multiply(logarithm, scale)) for logarithm in logarithms]


@cache
def _power_law_bounds(low: int, high: int, exponent: int, exponent_divisor: int) -> list[int]:
    """Running sums of the integer weights of low..high."""
    if low < 1 or high < low:
        raise ValueError(f"a power law needs 1 <= low <= high, not {low} and {high}")
    if exponent < 0 or exponent_divisor < 1:
        raise ValueError(f"a power law cannot have the exponent {exponent}/{exponent_divisor}")
    if high - low > POWER_LAW_SPAN_MAX:
        raise ValueError(f"a power law over more than {POWER_LAW_SPAN_MAX} values is not supported")
    # (x/low)**-(p/q) is the q-th root of low**p / x**p.
    numerator = low**exponent << (_WEIGHT_BITS * exponent_divisor)
    return list(accumulate(_root(numerator // x**exponent, exponent_divisor) or 1 for x in range(low, high + 1)))


def _root(value: int, degree: int) -> int:
    """The largest integer whose `degree`-th power is at most `value` (Newton's method on integers)."""
    if degree == 1 or value < 2:
        return value
    guess = 1 << -(-value.bit_length() // degree)
    while True:
        better = ((degree - 1) * guess + value // guess ** (degree - 1)) // degree
        if better >= guess:
            return guess
        guess = better
