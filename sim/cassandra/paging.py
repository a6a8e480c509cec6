"""The paging state: where the next page begins, as bytes that an application may keep and hand back.

It holds the last row's key in Cassandra's serialization and what is left of the limits, and no reference to anything,
so any coordinator can go on from it. The format is this simulation's own.
"""

from __future__ import annotations

from sim.cassandra.catalog import Column, Table
from sim.cassandra.errors import protocol_error
from sim.cassandra.reading import Cursor
from sim.cassandra.storage import Key

_NUMBER_BYTES = 9


def encode_cursor(table: Table, cursor: Cursor) -> bytes:
    """A cursor as bytes."""
    parts = [
        cursor.remaining.to_bytes(_NUMBER_BYTES, "big"),
        cursor.in_partition.to_bytes(_NUMBER_BYTES, "big"),
        b"\x00" if cursor.position is None else b"\x01",
        *_encode_key(table.partition_key, cursor.partition),
    ]
    if cursor.position is not None:
        parts += _encode_key(table.clustering_key, cursor.clustering)
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def decode_cursor(table: Table, state: bytes) -> Cursor:
    """The cursor of these bytes; a ProtocolException when they are not a paging state of this table."""
    parts = []
    at = 0
    while at < len(state):
        size = int.from_bytes(state[at : at + 4], "big")
        parts.append(state[at + 4 : at + 4 + size])
        at += 4 + size
    keys = len(table.partition_key)
    try:
        remaining, within = int.from_bytes(parts[0], "big"), int.from_bytes(parts[1], "big")
        partition = _decode_key(table.partition_key, parts[3 : 3 + keys])
        if parts[2] == b"\x00":
            return Cursor(partition, None, (), remaining, within)
        clustering = _decode_key(table.clustering_key, parts[3 + keys :])
    except (IndexError, ValueError):
        raise protocol_error("Invalid value for the paging state") from None
    return Cursor(partition, table.position_of(clustering), clustering, remaining, within)


def _encode_key(columns: tuple[Column, ...], key: Key) -> list[bytes]:
    return [column.type.to_bytes(value) for column, value in zip(columns, key, strict=True)]


def _decode_key(columns: tuple[Column, ...], parts: list[bytes]) -> Key:
    return tuple(column.type.from_bytes(part) for column, part in zip(columns, parts, strict=True))
