"""The state of a matching engine as bytes (design section 4.3.5).

The same state gives the same bytes, whatever its history. Orders stand in priority, so restoring them one after the
other restores who is first. Framing, checksum and the proof against the committed log belong to the snapshot's file.
"""

import msgspec

from engine.book import Order


class SnapshotError(ValueError):
    """Bytes that are not a snapshot which this engine can continue from; the message says why."""


class EngineState(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Everything that decides what the next input does. `orders`: symbols in id order, bids then asks, in priority.

    `links_in` and `links_out` are (partition, last link_seq) in partition order.
    """

    partition: int
    output_seq: int
    last_hash: int
    time_ns: int
    next_input_offset: int
    links_in: tuple[tuple[int, int], ...]
    links_out: tuple[tuple[int, int], ...]
    orders: tuple[Order, ...]


def encode_state(state: EngineState) -> bytes:
    return _encoder.encode(state)


def decode_state(data: bytes) -> EngineState:
    """Raises SnapshotError when `data` is not an encoded EngineState."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SnapshotError(f"not an engine snapshot: {error}") from None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(EngineState)
