"""Which database errors pass when the same statement is sent again, and how long to wait before (design 4.4.3).

Every statement of settlement is idempotent, so a time-out whose write may or may not have been applied is retried like
any other error that says "not now". What says "never like this" (a statement that the server refuses, a value of the
wrong type, an error nobody knows) is not: repeating it would hide it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cassandra import CoordinationFailure, OperationTimedOut, Timeout, Unavailable
from cassandra.cluster import NoHostAvailable
from cassandra.connection import ConnectionBusy, ConnectionException
from cassandra.pool import NoConnectionsAvailable
from cassandra.protocol import (
    IsBootstrappingErrorMessage,
    OverloadedErrorMessage,
    PreparedQueryNotFound,
    ServerError,
    TruncateError,
)

from schema.ports import Randomness

RETRYABLE_ERRORS: Final[tuple[type[Exception], ...]] = (
    Timeout,  # WriteTimeout, ReadTimeout: too few replicas answered in time; a write may have been applied
    Unavailable,  # too few replicas are known to be up
    CoordinationFailure,  # WriteFailure, ReadFailure: a replica could not
    OperationTimedOut,  # the driver heard nothing
    NoHostAvailable,
    ConnectionException,
    ConnectionBusy,
    NoConnectionsAvailable,
    OverloadedErrorMessage,
    IsBootstrappingErrorMessage,
    TruncateError,
    ServerError,
    PreparedQueryNotFound,  # the driver prepares anew by itself; it lost the race once
)


def is_retryable(error: BaseException) -> bool:
    """Whether the same statement may succeed later."""
    return isinstance(error, RETRYABLE_ERRORS)


def tally(errors: Iterable[Exception]) -> dict[str, int]:
    """How often each kind of error occurred, in the order of first occurrence."""
    counts: dict[str, int] = {}
    for error in errors:
        name = type(error).__name__
        counts[name] = counts.get(name, 0) + 1
    return counts


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with jitter: attempt n waits between a half and the whole of min(first * 2^n, longest)."""

    first_ms: int = 50
    longest_ms: int = 5_000

    def __post_init__(self) -> None:
        if not 1 <= self.first_ms <= self.longest_ms:
            raise ValueError(f"backoff needs 1 <= first_ms <= longest_ms, not {self.first_ms} and {self.longest_ms}")

    def delay_s(self, attempt: int, randomness: Randomness) -> float:
        """Seconds to wait after failed attempt `attempt`, counted from 0."""
        ceiling = min(self.first_ms << min(attempt, 32), self.longest_ms)
        floor = ceiling // 2
        return (floor + randomness.below(ceiling - floor + 1)) / 1000
