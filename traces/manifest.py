"""The manifest of a trace: what was run, with what, and what came of it (design section 6)."""

import platform
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import msgspec
from xxhash import xxh3_64

from schema.identifiers import AssetId, SymbolId
from schema.symbols import Asset, Symbol, SymbolTable
from schema.topics import Topology

FORMAT_VERSION: Final = 2
"""Version of the folder's layout, of the records in its log, and of the digest. A reader refuses any other."""

_PACKAGES: Final = ("simpy", "msgspec", "xxhash", "pandas", "pyarrow", "cassandra-driver", "aiokafka", "lark")
_CODE: Final = ("schema", "engine", "settlement", "gateway", "traces", "sim")
"""The packages of exchange-sim that make a run and judge it."""


class TraceError(Exception):
    """A trace cannot be read, written or judged; the message is one line that says which file and why."""


class AssetRecord(msgspec.Struct, frozen=True):
    """An asset as the manifest holds it."""

    asset_id: int
    name: str
    decimals: int


class SymbolRecord(msgspec.Struct, frozen=True):
    """A symbol as the manifest holds it; sizes are decimals as text."""

    symbol_id: int
    name: str
    base: AssetRecord
    quote: AssetRecord
    tick_size: str
    lot_size: str
    partition: int


class TopologyRecord(msgspec.Struct, frozen=True):
    """The topology as the manifest holds it."""

    symbols: tuple[SymbolRecord, ...]
    user_partitions: int

    @classmethod
    def of(cls, topology: Topology) -> "TopologyRecord":
        """The record of a topology."""
        return cls(
            tuple(
                SymbolRecord(
                    symbol.symbol_id,
                    symbol.name,
                    _asset_record(symbol.base),
                    _asset_record(symbol.quote),
                    str(symbol.tick_size),
                    str(symbol.lot_size),
                    symbol.partition,
                )
                for symbol in topology.symbols
            ),
            topology.user_partitions,
        )

    def topology(self) -> Topology:
        """The topology that was recorded. Raises ValueError (SymbolError among them) when it cannot exist."""
        symbols = (
            Symbol(
                SymbolId(each.symbol_id),
                each.name,
                _asset(each.base),
                _asset(each.quote),
                _decimal(each.tick_size),
                _decimal(each.lot_size),
                each.partition,
            )
            for each in self.symbols
        )
        return Topology(SymbolTable(symbols), self.user_partitions)


class VerdictRecord(msgspec.Struct, frozen=True):
    """One invariant's verdict, in short: `verdict` is holds, violated or not exercised."""

    verdict: str
    checked: int
    violations: int


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How a running system was read for this trace, where it is not a run's own.

    The log is cut at a moment of the past, the rows were read after it. `rows_are_due` says that settlement had passed
    the cut before they were read, at `read_at_ns` (wall clock). What has a later event is not judged by its row: it is
    named here, and left out of the rows: orders, accounts (user_id, asset_id), and chained partitions.
    """

    read_at_ns: int
    rows_are_due: bool
    later_orders: tuple[int, ...] = ()
    later_accounts: tuple[tuple[int, int], ...] = ()
    later_chains: tuple[tuple[str, int], ...] = ()


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a trace says of itself.

    `epoch_ns` is the wall-clock time (ns since 1970) of `t` = 0. `scenario` is the run's configuration as plain JSON
    values. `statements` gives the CQL text of each `statement_id`. `counts` are events per kind. `audit` is there when
    the trace was read from a running system.
    """

    format_version: int = FORMAT_VERSION
    seed: int
    epoch_ns: int = 0
    scenario: dict[str, object] = {}
    packages: dict[str, str] = {}
    counts: dict[str, int] = {}
    digest: str = ""
    verdicts: dict[str, VerdictRecord] = {}
    statements: dict[int, str] = {}
    topology: TopologyRecord
    audit: AuditRecord | None = None


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages a run depends on, those not installed left out, and of our own code."""
    found = {"python": platform.python_version(), "exchange-sim": f"source {source_digest()}"}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def source_digest() -> str:
    """A digest of the source files of exchange-sim: our own code changes far more often than its version."""
    digest = xxh3_64()
    for name, path in _source_files():
        digest.update(name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _source_files() -> Iterator[tuple[str, Path]]:
    for package in _CODE:
        spec = find_spec(package)
        for folder in sorted(spec.submodule_search_locations or ()) if spec is not None else ():
            for path in sorted(Path(folder).rglob("*.py")):
                yield f"{package}/{path.relative_to(folder).as_posix()}", path


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def decode_manifest(data: bytes, where: str) -> Manifest:
    """The manifest in JSON bytes; `where` names the file in errors. Raises TraceError."""
    try:
        found = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        format_version = msgspec.json.decode(found.get("format_version", b"null"))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TraceError(f"{where}: not a manifest: {error}") from None
    # The version is looked at first: another format may well have other fields.
    if format_version != FORMAT_VERSION:
        raise TraceError(f"{where}: trace format {format_version}, this code reads format {FORMAT_VERSION}")
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
        manifest.topology.topology()
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, ArithmeticError) as error:
        raise TraceError(f"{where}: not a manifest: {error}") from None
    return manifest


def with_verdicts(manifest: Manifest, verdicts: Mapping[str, VerdictRecord]) -> Manifest:
    """The same manifest with verdicts."""
    return msgspec.structs.replace(manifest, verdicts=dict(verdicts))


def _asset_record(asset: Asset) -> AssetRecord:
    return AssetRecord(asset.asset_id, asset.name, asset.decimals)


def _asset(record: AssetRecord) -> Asset:
    return Asset(AssetId(record.asset_id), record.name, record.decimals)


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"not a number: {text!r}") from None
