"""Where the state of dead hosts lies, so that a power cut stays one (design 5 and 11).

Python runs the `finally` blocks of a suspended coroutine when it collects the coroutine. A host that has lost its power
runs nothing any more, so nothing of a dead event loop may ever be collected, not even when the interpreter exits.

The graves are a list that contains itself and that was moved out of the collector's sight by `gc.freeze()`. The list's
own reference keeps it alive when its module is torn down, and the collector, which never looks at frozen objects, takes
everything that they refer to for alive. It holds as long as nobody calls `gc.unfreeze()`.

The dead stay in memory, about 50 KB a crash, with all that their frames refer to, which is in the end the world that
they lived in. So a run should empty its large stores (the recorder, the brokers' logs) when it is done with them, and
a process that runs many seeds should be replaced from time to time.
"""

from __future__ import annotations

import gc

_GRAVES: list[object] = []
_GRAVES.append(_GRAVES)
_sealed = False


def seal() -> None:
    """Take the graves out of the collector's sight. Called when a world is made; works once per process."""
    global _sealed
    if not _sealed:
        gc.collect()  # what is frozen is never freed: leave the rubbish out
        gc.freeze()
        _sealed = True


def close() -> None:
    """Collect what a run has left, and take what it has buried out of the collector's sight. Called when it is over.

    Otherwise every later collection of the process goes over all its dead worlds again: five milliseconds for each run
    of six hundred orders that there was before, until a campaign's worker does little else.
    """
    seal()
    gc.collect()
    gc.freeze()


def bury(*remains: object) -> None:
    """Keep these objects, and all they refer to, from ever being collected."""
    seal()
    _GRAVES.append(remains)
