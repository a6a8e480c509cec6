"""What the commands share: exit statuses, the error that ends one with one clear line, common options.

Every module of this package declares commands and their options, and imports what carries them out when they run: that
keeps `exchange-sim --help` quick.
"""

import os
import sys
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sim.progress import Progress

HOLDS = 0
VIOLATED = 1
UNUSABLE = 2
_DURATION_MAX_S = 10**9
"""More than any clock here runs; what a scenario may take is its own business."""
_NANOSECOND_S = Decimal("1e-9")


class CommandError(Exception):
    """What was asked cannot be done; the message is the one line that is printed."""


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a summary.")]
Orders = Annotated[int | None, typer.Option(help="New orders that the synthetic flow places, a seed.")]
Users = Annotated[int | None, typer.Option(help="Clients that trade.")]
Symbols = Annotated[int | None, typer.Option(help="Tradable pairs of the synthetic market.")]
Jobs = Annotated[int | None, typer.Option(min=1, max=1_000, help="Processes (default one a core).")]
Duration = Annotated[
    str | None, typer.Option(metavar="S", help="Simulated seconds of work under faults.", show_default=False)
]


def parse_duration(text: str) -> int:
    """The nanoseconds of `--duration`. Raises CommandError for what is no exact number of them."""
    try:
        seconds = Decimal(text)
    except InvalidOperation:
        raise CommandError(f"--duration must be a number of seconds, not {text[:60]!r}") from None
    if not seconds.is_finite() or abs(seconds) > _DURATION_MAX_S or seconds % _NANOSECOND_S:
        raise CommandError(f"--duration must be whole nanoseconds, written in seconds, not {text[:60]!r}")
    return int(seconds / _NANOSECOND_S)


def width_of(jobs: int | None, pieces: int) -> int:
    """How many processes share so many pieces of work."""
    return min(jobs or os.cpu_count() or 1, pieces)


def given(option: str, text: str | None) -> str:
    """What an option says, "" when it was not given. Raises CommandError for an empty text: a variable that was not set
    must not turn a check into another one."""
    if text is not None and not text.strip():
        raise CommandError(f"{option} must not be empty")
    return text or ""


def size_options(orders: int | None, users: int | None, symbols: int | None, duration: str | None) -> dict[str, Any]:
    """The options of a scenario that say how large it is, but for those not given."""
    duration_ns = None if duration is None else parse_duration(duration)
    given = {"orders": orders, "users": users, "symbols": symbols, "duration_ns": duration_ns}
    return {name: value for name, value in given.items() if value is not None}


def stderr_progress() -> "Progress":
    """Progress on stderr: shown on a terminal, silent when piped."""
    from sim.progress import Progress

    return Progress(sys.stderr)
