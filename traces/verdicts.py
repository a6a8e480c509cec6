"""What an invariant says: a verdict with the violations it found, and the list of all invariants (design section 7)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from traces.manifest import VerdictRecord
from traces.trace import Trace

HOLDS: Final = "holds"
VIOLATED: Final = "violated"
NOT_EXERCISED: Final = "not exercised"


_NO_VIOLATIONS: Final = pd.DataFrame({"what": pd.Series(dtype="str")})
"""Made once: an empty table costs pandas a millisecond."""


@dataclass(frozen=True)
class Verdict:
    """`checked` counts the things that could have broken the rule; `violations` has one row for each that did.

    Every violation says `what` is wrong and has the columns that identify it (order_id, user_id, topic, ...).
    """

    checked: int
    violations: pd.DataFrame = field(default_factory=lambda: _NO_VIOLATIONS.copy())

    @property
    def verdict(self) -> str:
        """holds, violated, or not exercised: nothing in the trace could have broken the rule."""
        if len(self.violations):
            return VIOLATED
        return HOLDS if self.checked else NOT_EXERCISED

    @property
    def record(self) -> VerdictRecord:
        """The verdict as a manifest holds it."""
        return VerdictRecord(self.verdict, self.checked, len(self.violations))


class Findings:
    """Gathers what one invariant finds."""

    def __init__(self) -> None:
        self._found: list[pd.DataFrame] = []
        self._checked = 0

    def checked(self, count: int) -> None:
        """Count things that were looked at."""
        self._checked += int(count)

    def add(self, what: str, rows: pd.DataFrame, *columns: str) -> None:
        """Every one of `rows` is wrong in the same way; `columns` identify them (all columns, if none is named)."""
        if len(rows):
            found = rows.loc[:, list(columns)].reset_index(drop=True) if columns else rows.reset_index(drop=True)
            found.insert(0, "what", what)
            self._found.append(found)

    def where(
        self, what: str, rows: pd.DataFrame, wrong: npt.NDArray[np.bool_], *columns: str, **also: npt.NDArray[Any]
    ) -> None:
        """Those of `rows` for which the mask is true are wrong in the same way. `columns` identify them; `also` are
        further columns to be shown, a value for each of `rows`."""
        # Nearly always there are none, and then no table is made: that is what judging a small trace mostly is.
        if wrong.any():
            at = np.flatnonzero(wrong)
            self.add(what, rows.iloc[at].assign(**{name: values[at] for name, values in also.items()}), *columns, *also)

    def say(self, what: str, **columns: object) -> None:
        """One thing is wrong."""
        self._found.append(pd.DataFrame({"what": [what], **{name: [value] for name, value in columns.items()}}))

    @property
    def verdict(self) -> Verdict:
        """The verdict over all that was looked at and found."""
        if not self._found:
            return Verdict(self._checked)
        # Findings of different kinds have different columns; integers stay integers where others have none.
        parts = [part.convert_dtypes() for part in self._found]
        return Verdict(max(self._checked, 1), pd.concat(parts, ignore_index=True))


Invariant = Callable[[Trace], Verdict]

INVARIANTS: Final[dict[str, Invariant]] = {}
"""All invariants by id; `traces.invariants` fixes their order."""


def invariant(name: str) -> Callable[[Invariant], Invariant]:
    """Register a function from a trace to a verdict under an id of design section 7."""

    def register(function: Invariant) -> Invariant:
        if name in INVARIANTS:
            raise ValueError(f"two invariants are called {name}")
        INVARIANTS[name] = function
        return function

    return register
