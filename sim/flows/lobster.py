"""LOBSTER message files: CSV with time, type, order id, size, price and direction (lobsterdata.com's data description).

    time (seconds after midnight), type, order id, size, price (dollars times 10,000), direction (1 buy, -1 sell)

The direction is that of the order in the book. Such a file begins in the middle of a day, so early messages are often
about orders that nobody saw come: they cannot be applied, and are counted.

    1   a new limit order            -> a limit order, good till cancelled
    2 3 part of it, all of it, gone  -> reduce, cancel
    4   a visible order was executed -> the taker that caused it (`sim.flows.feed`)
    5   a hidden order was executed  -> not applied: it is nowhere in the book, and orders that made it now would meet
        the visible ones instead
    6   an auction's trade           -> not applied: there is no auction
    7   trading halts or resumes     -> nothing to apply
"""

import re
from typing import IO, Final

from schema.codes import Side
from sim.flows.feed import BookFeed
from sim.flows.report import FlowError, FlowReport

HIDDEN: Final = "a hidden order's execution"
NO_AUCTION: Final = "an auction's trade"

_LINE_BYTES_MAX: Final = 256
_TYPES: Final = {
    1: "1 submission",
    2: "2 reduction",
    3: "3 deletion",
    4: "4 execution",
    5: "5 hidden execution",
    6: "6 auction trade",
    7: "7 halt",
}
# Some files have a seventh column, the participant; it may be empty.
_LINE = re.compile(
    rb"(\d{1,6})(?:\.(\d{1,15}))?,([1-7]),(-?\d{1,18}),(-?\d{1,18}),(-?\d{1,18}),(-?\d{1,2})(?:,[ -~]*)?\r?\n?",
    re.ASCII,
)


def looks_like_lobster(head: bytes) -> bool:
    """Whether a file begins with a line of six numbers, the second of them a type."""
    return _LINE.fullmatch(head.split(b"\n", 1)[0]) is not None


def read_lobster(stream: IO[bytes], source: str, symbol: str, feed: BookFeed, report: FlowReport) -> None:
    """Give all lines to the feed. Raises FlowError, naming `source` and the line, for a line that is no message."""
    number = 0
    while line := stream.readline(_LINE_BYTES_MAX):
        number += 1
        match = _LINE.fullmatch(line)
        if match is None:
            shown = line[:60].decode("ascii", "backslashreplace").strip()
            raise FlowError(
                f"{source}: line {number}: expected time, type 1 to 7, order id, size, price, direction, not {shown!r}"
            )
        seconds, fraction, kind, order, size, price, direction = match.groups()
        at_ns = int(seconds) * 1_000_000_000 + int((fraction or b"0")[:9].ljust(9, b"0"))
        name = _TYPES[int(kind)]
        if kind == b"7":
            report.count_informational(name)
        elif kind == b"5":
            report.count_not_applied(name, HIDDEN)
        elif kind == b"6":
            report.count_not_applied(name, NO_AUCTION)
        elif direction not in (b"1", b"-1"):
            raise FlowError(f"{source}: line {number}: direction must be 1 or -1, not {direction.decode()}")
        elif kind == b"1":
            side = int(Side.BUY if direction == b"1" else Side.SELL)
            report.count(name, feed.add(at_ns, int(order), symbol, side, int(size), int(price)))
        elif kind == b"2":
            report.count(name, feed.reduce(at_ns, int(order), int(size)))
        elif kind == b"3":
            report.count(name, feed.delete(at_ns, int(order)))
        else:
            report.count(name, feed.execute(at_ns, int(order), int(size)))
