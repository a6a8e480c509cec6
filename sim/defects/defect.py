"""What a defect is, as data, and how one is put in place for one run (design section 9).

A replacement names an attribute of a class or module of the production code, and makes what stands there instead out
of what is there: mostly a function around the intact one. Production code has no hooks for it; whoever runs without a
defect runs what is deployed. What a replacement remembers, it remembers in the objects of the run or in its own
closure, which is made anew for each run.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from sim.scenario import SWARM

Make = Callable[[Any], Any]
"""Makes the defective attribute from the intact one."""


@dataclass(frozen=True)
class Replacement:
    """One attribute of the production code, and what takes its place. The attribute must be `owner`'s own."""

    owner: type | ModuleType
    attribute: str
    make: Make

    def __str__(self) -> str:
        where = self.owner.__name__ if isinstance(self.owner, ModuleType) else self.owner.__qualname__
        return f"{where}.{self.attribute}"


@dataclass(frozen=True)
class Defect:
    """A deliberate defect: `meaning` in one sentence, and what it takes to see it."""

    name: str
    meaning: str
    caught_by: tuple[str, ...]
    """The invariants of design section 7 of which one must catch it; several where it can show in several ways."""
    replacements: tuple[Replacement, ...]
    faults: str = SWARM
    """The faults that it needs, as `--faults` takes them."""


@contextmanager
def applied(defect: Defect | None) -> Iterator[None]:
    """Put a defect in place while the block runs; whatever happens in it, every attribute is as before afterwards.

    None applies nothing. Raises AttributeError when the production code has no such attribute any more, and
    RuntimeError when the attribute is replaced already.
    """
    with ExitStack() as undo:
        for replacement in defect.replacements if defect is not None else ():
            owner, attribute = replacement.owner, replacement.attribute
            if attribute not in vars(owner):
                raise AttributeError(f"defect {defect.name if defect else ''}: there is no {replacement} to replace")
            intact = vars(owner)[attribute]
            if getattr(intact, _MARK, False):
                raise RuntimeError(f"{replacement} is replaced by a defect already")
            defective = replacement.make(intact)
            if callable(defective):
                setattr(defective, _MARK, True)
            undo.callback(setattr, owner, attribute, intact)
            setattr(owner, attribute, defective)
        yield


_MARK = "_is_a_defect_of_the_gallery"
