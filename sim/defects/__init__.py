"""The defect gallery: what the harness must find (design section 9).

Each defect is a small named replacement of a piece of the production code, most of them seen in the wild, put in place
for one run from outside. The gallery says which invariant must catch it; `sim.defects.power` measures how many seeds
that takes.
"""

from typing import Final

from sim.defects import funds, matching, ownership, reads, settlement
from sim.defects.defect import Defect, Replacement, applied
from sim.scenario import ScenarioError

__all__ = ["GALLERY", "Defect", "Replacement", "applied", "named"]

GALLERY: Final[dict[str, Defect]] = {
    defect.name: defect for theme in (matching, funds, ownership, settlement, reads) for defect in theme.DEFECTS
}
"""All defects by name."""


def named(name: str) -> Defect | None:
    """The defect of that name; None for the empty name, the intact code. Raises ScenarioError for an unknown one."""
    if name and name not in GALLERY:
        raise ScenarioError(f"unknown defect {name!r}; there are: {', '.join(GALLERY)}")
    return GALLERY.get(name)
