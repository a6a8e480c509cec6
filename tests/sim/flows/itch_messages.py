"""ITCH 5.0 messages made by hand, for the tests: each field packed in the order of the specification."""

from struct import pack


def add(at_ns: int, number: int, side: str, shares: int, stock: str, price: int, attribution: str = "") -> bytes:
    kind = b"F" if attribution else b"A"
    body = pack(">cHH6sQcI8sI", kind, 1, 0, _time(at_ns), number, side.encode(), shares, stock.encode().ljust(8), price)
    return body + attribution.encode()


def execute(at_ns: int, number: int, shares: int) -> bytes:
    return pack(">cHH6sQIQ", b"E", 1, 0, _time(at_ns), number, shares, 99)


def execute_at_price(at_ns: int, number: int, shares: int, price: int) -> bytes:
    return pack(">cHH6sQIQcI", b"C", 1, 0, _time(at_ns), number, shares, 99, b"Y", price)


def reduce(at_ns: int, number: int, shares: int) -> bytes:
    return pack(">cHH6sQI", b"X", 1, 0, _time(at_ns), number, shares)


def delete(at_ns: int, number: int) -> bytes:
    return pack(">cHH6sQ", b"D", 1, 0, _time(at_ns), number)


def replace(at_ns: int, number: int, new_number: int, shares: int, price: int) -> bytes:
    return pack(">cHH6sQQII", b"U", 1, 0, _time(at_ns), number, new_number, shares, price)


def hidden_trade(at_ns: int, shares: int, stock: str, price: int) -> bytes:
    return pack(">cHH6sQcI8sIQ", b"P", 1, 0, _time(at_ns), 0, b"B", shares, stock.encode().ljust(8), price, 99)


def cross_trade(at_ns: int, shares: int, stock: str, price: int) -> bytes:
    return pack(">cHH6sQ8sIQc", b"Q", 1, 0, _time(at_ns), shares, stock.encode().ljust(8), price, 99, b"O")


def broken_trade(at_ns: int) -> bytes:
    return pack(">cHH6sQ", b"B", 1, 0, _time(at_ns), 99)


def system_event(at_ns: int, event: str) -> bytes:
    return pack(">cHH6sc", b"S", 0, 0, _time(at_ns), event.encode())


def directory(at_ns: int, stock: str) -> bytes:
    return pack(">cHH6s8s20x", b"R", 1, 0, _time(at_ns), stock.encode().ljust(8))


def framed(*messages: bytes) -> bytes:
    """With true lengths, as NASDAQ writes them."""
    return b"".join(pack(">H", len(message)) + message for message in messages)


def zero_framed(*messages: bytes) -> bytes:
    """With lengths of zero, as some programs write them."""
    return b"".join(b"\0\0" + message for message in messages)


def _time(at_ns: int) -> bytes:
    return at_ns.to_bytes(6, "big")
