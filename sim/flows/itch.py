"""NASDAQ TotalView-ITCH 5.0 files, as far as they tell of the order book (the protocol's specification, section 1).

A file is a sequence of messages, each behind a two-byte big-endian length. Files written by other programs leave the
length zero, and it follows from the type then; both framings are read, message by message. Prices have four implied
decimals, times are nanoseconds since midnight.

    A F     add an order                   -> a limit order, good till cancelled
    E C     an order was executed          -> the taker that caused it (`sim.flows.feed`)
    X D U   part of it, all of it, gone; replaced  -> reduce, cancel, replace
    P       a trade with an order that was never displayed  -> not applied: it is nowhere in the book, and orders that
            made it now would meet the displayed ones instead
    Q       an auction's trade             -> not applied: there is no auction
    B       a trade is void                -> not applied: trades are final
    others  say something about the day, the stock or the market; nothing to apply

C gives a price that is not the order's own. Here a trade prints at the maker's price, so only its quantity is used.
"""

from collections.abc import Iterator
from struct import Struct
from typing import IO, Final

from schema.codes import Side
from sim.flows.feed import BookFeed
from sim.flows.report import FlowError, FlowReport

LENGTHS: Final[dict[int, int]] = {
    ord(kind): length
    for kind, length in (
        ("S", 12), ("R", 39), ("H", 25), ("Y", 20), ("L", 26), ("V", 35), ("W", 12), ("K", 28), ("J", 35), ("h", 21),
        ("A", 36), ("F", 40), ("E", 31), ("C", 36), ("X", 23), ("D", 19), ("U", 35), ("P", 44), ("Q", 40), ("B", 19),
        ("I", 50), ("N", 20), ("O", 48),
    )
}  # fmt: skip
"""Type -> bytes of the message, without the length field."""

NOT_DISPLAYED: Final = "a trade with an order that was never displayed"
NO_AUCTION: Final = "an auction's trade"
TRADES_ARE_FINAL: Final = "voids a trade"
UNKNOWN_TYPE: Final = "unknown type of message"
UNREADABLE_SYMBOL: Final = "the stock's name is not readable"
UNKNOWN_SIDE: Final = "neither B nor S"

_CHUNK_BYTES: Final = 1 << 20

# All messages: type, stock locate, tracking number, then the time in six bytes.
_ADD = Struct(">11xQcI8sI")
_EXECUTE = Struct(">11xQI")
_DELETE = Struct(">11xQ")
_REPLACE = Struct(">11xQQII")


def looks_like_itch(head: bytes) -> bool:
    """Whether a file begins with a message of a known type behind its length, or behind a length of zero."""
    if len(head) < 3:
        return False
    length = LENGTHS.get(head[2])
    return length is not None and int.from_bytes(head[:2], "big") in (0, length)


def read_itch(stream: IO[bytes], source: str, feed: BookFeed, report: FlowReport) -> None:
    """Give all messages to the feed. Raises FlowError, naming `source` and the offset, where the framing breaks."""
    for message in _messages(stream, source):
        kind = message[0]
        name = chr(kind) if 33 <= kind < 127 else f"0x{kind:02x}"
        if kind not in LENGTHS:
            report.count_not_applied(name, UNKNOWN_TYPE)
            continue
        at_ns = int.from_bytes(message[5:11], "big")
        if kind == 65 or kind == 70:  # A, F
            number, letter, quantity, stock, price = _ADD.unpack_from(message)
            symbol = _symbol(stock)
            if not symbol:
                report.count_not_applied(name, UNREADABLE_SYMBOL)
            elif letter not in b"BS":
                report.count_not_applied(name, UNKNOWN_SIDE)
            else:
                side = int(Side.BUY if letter == b"B" else Side.SELL)
                report.count(name, feed.add(at_ns, number, symbol, side, quantity, price))
        elif kind == 69 or kind == 67:  # E, C
            number, quantity = _EXECUTE.unpack_from(message)
            report.count(name, feed.execute(at_ns, number, quantity))
        elif kind == 68:  # D
            report.count(name, feed.delete(at_ns, _DELETE.unpack_from(message)[0]))
        elif kind == 88:  # X
            number, quantity = _EXECUTE.unpack_from(message)
            report.count(name, feed.reduce(at_ns, number, quantity))
        elif kind == 85:  # U
            number, new_number, quantity, price = _REPLACE.unpack_from(message)
            report.count(name, feed.replace(at_ns, number, new_number, quantity, price))
        elif kind == 80:  # P
            report.count_not_applied(name, NOT_DISPLAYED)
        elif kind == 81:  # Q
            report.count_not_applied(name, NO_AUCTION)
        elif kind == 66:  # B
            report.count_not_applied(name, TRADES_ARE_FINAL)
        elif kind == 82:  # R
            symbol = _symbol(message[11:19])
            reason = feed.know_symbol(symbol) if symbol else UNREADABLE_SYMBOL
            if reason:
                report.count_not_applied(name, reason)
            else:
                report.count_informational(name)
        else:
            report.count_informational(name)


def _messages(stream: IO[bytes], source: str) -> Iterator[bytes]:
    """The messages without their length fields; memory holds a chunk of the file at a time."""
    buffer = b""
    start = 0
    dropped = 0
    while True:
        while True:
            if len(buffer) - start < 3:
                break
            length = buffer[start] << 8 | buffer[start + 1]
            expected = LENGTHS.get(buffer[start + 2])
            offset = dropped + start
            if length == 0:
                if expected is None:
                    raise FlowError(
                        f"{source}: offset {offset}: byte 0x{buffer[start + 2]:02x} is no ITCH 5.0 message type, "
                        "and the length field is zero"
                    )
                length = expected
            elif expected is not None and length < expected:
                raise FlowError(
                    f"{source}: offset {offset}: a message of type {chr(buffer[start + 2])!r} has {expected} bytes, "
                    f"the length field says {length}"
                )
            end = start + 2 + length
            if end > len(buffer):
                break
            yield buffer[start + 2 : end]
            start = end
        chunk = stream.read(_CHUNK_BYTES)
        if not chunk:
            if start < len(buffer):
                raise FlowError(
                    f"{source}: offset {dropped + start}: truncated: the last message has only "
                    f"{len(buffer) - start} bytes, its length field included"
                )
            return
        dropped += start
        buffer = buffer[start:] + chunk
        start = 0


def _symbol(stock: bytes) -> str:
    """The stock's name without its padding; empty when it is not printable ASCII."""
    text = stock.rstrip(b" ")
    return text.decode("ascii") if text and all(33 <= byte < 127 for byte in text) else ""
