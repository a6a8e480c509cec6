"""Strikes of one fault that overlap: each ends by itself, and as long as several last the strongest counts."""

from collections.abc import Callable


class Overlap:
    """The strengths in force at once; `changed` is told the greatest whenever it may be another, 0 for none.

    Of strengths of either sign the greatest is the one farthest from 0, and of two as far from it the first.
    """

    def __init__(self, changed: Callable[[int], None]) -> None:
        self._changed = changed
        self._in_force: dict[int, int] = {}
        self._begun = 0

    def begin(self, strength: int) -> Callable[[], None]:
        """One more, until what is returned is called."""
        number = self._begun = self._begun + 1
        self._in_force[number] = strength
        self._tell()

        def end() -> None:
            if self._in_force.pop(number, None) is not None:
                self._tell()

        return end

    def clear(self) -> None:
        """End them all."""
        self._in_force.clear()
        self._tell()

    def _tell(self) -> None:
        self._changed(max(self._in_force.values(), key=abs, default=0))
