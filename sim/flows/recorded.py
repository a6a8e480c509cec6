"""Recorded order flow from a file, ready to be run (design 10, `--flow FILE`).

The format is known by the file's content, never by its name: NASDAQ ITCH 5.0, a LOBSTER message file, or JSON lines in
the gateway's own request form, each plain or compressed by gzip. Whatever a file holds, the outcome is a flow with a
report of what could not be applied, or a FlowError of one line.

Recorded time is kept to scale: the whole recording is stretched or squeezed to the wanted duration, so that bursts stay
bursts. Deposits come before everything else.
"""

import gzip
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from heapq import heappop, heappush
from io import BufferedReader
from pathlib import Path
from typing import IO, Final, cast

import msgspec

from schema.identifiers import AssetId, SymbolId
from schema.symbols import Asset, Symbol, SymbolTable
from schema.topics import Topology
from sim.flows.feed import QUOTE_ASSET, BookFeed, base_asset
from sim.flows.itch import looks_like_itch, read_itch
from sim.flows.jsonl import JsonLines, looks_like_json_lines
from sim.flows.lobster import looks_like_lobster, read_lobster
from sim.flows.operations import PLACE, READ, Operation
from sim.flows.report import FlowError, FlowReport

_HEAD_BYTES: Final = 4_096
_LEAD_NS: Final = 500_000_000
_WATCH_EVERY: Final = 50
_WATCH_AFTER_OPERATIONS: Final = (0, 30, 200)
_PRICE_DECIMALS: Final = 4
"""Of ITCH and LOBSTER alike: a price counts ten-thousandths of a dollar, a quantity whole shares."""


@dataclass(frozen=True)
class RecordedFlow:
    """A file's flow: the market it needs, what its clients do, and what could not be applied."""

    topology: Topology
    operations: Sequence[Operation]
    report: FlowReport

    @property
    def duration_ns(self) -> int:
        """The time of the last operation."""
        return self.operations[-1].at_ns


def load_flow(
    path: str | Path,
    *,
    users: int = 12,
    user_partitions: int = 3,
    symbol_partitions: int = 2,
    duration_ns: int | None = None,
) -> RecordedFlow:
    """The flow of a file.

    `users` is how many users a feed that names none is dealt out to (at least 2 are made: makers and takers differ).
    `duration_ns` is how long the flow takes, None for as long as the recording. Raises FlowError for a file that cannot
    be read, is empty, truncated, or none of the formats, or holds no order.
    """
    source = str(path)
    try:
        with Path(path).open("rb") as file:
            stream = _decompressed(file)
            head = stream.peek(_HEAD_BYTES)
            if not head:
                raise FlowError(f"{source}: the file is empty")
            topology, deposits, operations, report = _read(
                stream, head, source, users, user_partitions, symbol_partitions
            )
    except (OSError, EOFError, zlib.error) as error:
        # gzip raises all three for a file that is cut short or damaged.
        detail = getattr(error, "strerror", None) or str(error)
        raise FlowError(f"{source}: cannot be read: {detail}") from None
    if not operations:
        read = f"{report.messages:,} messages read as {report.kind}"
        raise FlowError("; ".join((f"{source}: no order in it can be applied ({read})", *report.reasons())))
    paced = deposits + _paced(operations, bool(deposits), duration_ns)
    report.operations = len(paced)
    return RecordedFlow(topology, paced, report)


def _decompressed(file: BufferedReader) -> BufferedReader:
    if file.peek(2)[:2] == b"\x1f\x8b":
        return BufferedReader(cast("IO[bytes]", gzip.GzipFile(fileobj=file)))  # type: ignore[arg-type]
    return file


def _read(
    stream: BufferedReader, head: bytes, source: str, users: int, user_partitions: int, symbol_partitions: int
) -> tuple[Topology, list[Operation], list[Operation], FlowReport]:
    """The market, the deposits to be made beforehand, and the operations in recorded time."""
    if looks_like_json_lines(head):
        report = FlowReport("JSON lines")
        lines = JsonLines(stream, source, symbol_partitions, report)
        deposits = [] if lines.has_deposits else lines.deposits()
        return Topology(lines.symbols, user_partitions), deposits, lines.operations, report
    feed = BookFeed(source, users)
    if looks_like_lobster(head):
        report = FlowReport("LOBSTER message file")
        read_lobster(stream, source, _symbol_of_file(source), feed, report)
    elif looks_like_itch(head):
        report = FlowReport("NASDAQ ITCH 5.0")
        read_itch(stream, source, feed, report)
    else:
        shown = head[:16].hex(" ")
        raise FlowError(
            f"{source}: neither NASDAQ ITCH 5.0, nor a LOBSTER message file, nor JSON lines (it begins with {shown})"
        )
    operations = feed.finish()
    if not operations:
        return Topology(_shares(("none",), 1), user_partitions), [], [], report
    topology = Topology(_shares(list(feed.symbols), symbol_partitions), user_partitions)
    return topology, feed.deposits(), _watched(operations), report


def _watched(operations: Sequence[Operation]) -> list[Operation]:
    """The operations of a feed, with users who look at their orders.

    A feed says nothing of reads, and what users see of their orders is half of what a run is to show. So the owner of
    every `_WATCH_EVERY`th order looks at it and at all live orders, and again when other operations have gone by.
    """
    result: list[Operation] = []
    due: list[tuple[int, int, Operation]] = []
    placed = 0
    looks = 0
    for index, operation in enumerate(operations):
        result.append(operation)
        if operation.kind == PLACE:
            placed += 1
            if placed % _WATCH_EVERY == 0:
                for later in _WATCH_AFTER_OPERATIONS:
                    for query in ("order", "active_orders"):
                        looks += 1
                        look = Operation(
                            at_ns=0,
                            user_id=operation.user_id,
                            kind=READ,
                            request_id=f"q{looks}",
                            reference=operation.request_id if query == "order" else "",
                            query=query,
                            gateway=looks,
                        )
                        heappush(due, (index + later, looks, look))
        while due and due[0][0] <= index:
            result.append(msgspec.structs.replace(heappop(due)[2], at_ns=operation.at_ns))
    return result


def _shares(names: Sequence[str], symbol_partitions: int) -> SymbolTable:
    """Stocks traded in dollars: one share a lot, a ten-thousandth of a dollar a tick, which makes every price exact."""
    quote = Asset(AssetId(1), QUOTE_ASSET, _PRICE_DECIMALS)
    return SymbolTable(
        Symbol(
            symbol_id=SymbolId(index + 1),
            name=name,
            base=Asset(AssetId(index + 2), base_asset(name), 0),
            quote=quote,
            tick_size=Decimal(1).scaleb(-_PRICE_DECIMALS),
            lot_size=Decimal(1),
            partition=index % symbol_partitions,
        )
        for index, name in enumerate(names)
    )


def _symbol_of_file(source: str) -> str:
    """A LOBSTER file does not say what it is about; by custom its name does (AMZN_2012-06-21_..._message_10.csv)."""
    match = re.match(r"[A-Z][A-Z.]{0,7}(?=[_.])", Path(source).name)
    return match.group().rstrip(".") if match else "STOCK"


def _paced(operations: Sequence[Operation], has_lead: bool, duration_ns: int | None) -> list[Operation]:
    """The operations with the time of the run instead of the recorded one."""
    first_ns = operations[0].at_ns
    span_ns = operations[-1].at_ns - first_ns
    lead_ns = 0
    if has_lead:
        lead_ns = _LEAD_NS if duration_ns is None else min(_LEAD_NS, duration_ns // 20)
    wanted_ns = span_ns if duration_ns is None else max(0, duration_ns - lead_ns - 1)
    divisor = max(span_ns, 1)
    return [
        msgspec.structs.replace(each, at_ns=lead_ns + (each.at_ns - first_ns) * wanted_ns // divisor)
        for each in operations
    ]
