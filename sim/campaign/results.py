"""The results of a campaign on disk: a folder that grows while it runs, and from which a killed one goes on.

    campaign.json             what is being run: the scenario without its seed, the code and the packages
    campaign.lock             held by the process that runs it
    results/part-NNNNN.parquet  one row for each seed, in the order in which they ended
    failures/seed-N.json      the repro of a seed that failed
    failures/seed-N/          its trace, for the first few of each group
    campaign.work/            traces of long runs, while they last

A seed that was lost, for want of a worker, of memory or of time, has a repro but no row, so that it runs again.

A row has the columns of `SeedResult`, with columns for each invariant, goal and fault: `invariant:NAME` (its verdict),
`violation:NAME` (the first, where it is violated), `goal:NAME`, `fault:NAME`. `pandas.read_parquet(DIR/results)` reads
them all.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from sim.campaign.seeds import SeedResult
from sim.faults.catalogue import OPTIONS
from sim.repro import Repro
from sim.scenario import Scenario
from traces.invariants import ORDER
from traces.manifest import package_versions
from traces.reachability import GOALS

ROWS_PER_PART: Final = 100
SECONDS_PER_PART: Final = 20.0
"""So much work is lost at most when a campaign is killed."""

_SCHEMA: Final = pa.schema(
    [
        ("seed", pa.int64()),
        ("digest", pa.string()),
        ("wall_seconds", pa.float64()),
        ("orders", pa.int64()),
        ("error", pa.string()),
        *((f"invariant:{name}", pa.string()) for name in ORDER),
        *((f"violation:{name}", pa.string()) for name in ORDER),
        *((f"goal:{name}", pa.int64()) for name in GOALS),
        *((f"fault:{name}", pa.int64()) for name in OPTIONS),
    ]
)
_PLAIN: Final = ("seed", "digest", "wall_seconds", "orders", "error")


class CampaignError(Exception):
    """A campaign cannot be run or read; the message is one line that says why."""


class ResultStore:
    """The folder of one campaign, which one process at a time enters to read and write it.

    Raises CampaignError when the folder holds another campaign, or cannot be read or written;
    entering it raises CampaignError when another process is in it.
    """

    def __init__(self, folder: Path, scenario: Scenario) -> None:
        self._folder = folder
        self._parts = folder / "results"
        self._failures = folder / "failures"
        self.work_folder = folder.absolute() / "campaign.work"
        """Where runs may have files of their own while somebody is in the folder."""
        self._waiting: list[dict[str, Any]] = []
        self._written_at = time.monotonic()
        identity = {"scenario": {**scenario.as_dict(), "seed": 0}, "packages": package_versions()}
        manifest = folder / "campaign.json"
        try:
            for each in (self._parts, self._failures):
                each.mkdir(parents=True, exist_ok=True)
            if manifest.exists():
                if msgspec.json.decode(manifest.read_bytes()) != identity:
                    raise CampaignError(
                        f"{folder} holds a campaign of another scenario or of other code; use another --out"
                    )
            elif self._part_paths():
                raise CampaignError(f"{folder} has results, and no campaign.json that says of what; use another --out")
            else:
                aside = manifest.with_suffix(".partial")
                aside.write_bytes(msgspec.json.format(msgspec.json.encode(identity), indent=2) + b"\n")
                aside.replace(manifest)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CampaignError(f"{manifest}: {error}") from None
        self._lock: int | None = None
        self._next_part = 1

    def __enter__(self) -> Self:
        path = self._folder / "campaign.lock"
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._drop_leavings()
                self.work_folder.mkdir(exist_ok=True)
            except BaseException:
                os.close(lock)
                raise
        except BlockingIOError:
            raise CampaignError(f"{self._folder}: another campaign is running in it; use another --out") from None
        except OSError as error:
            raise CampaignError(f"{error.filename or path}: {error.strerror or error}") from None
        self._lock = lock
        self._next_part = 1 + max((int(path.stem.split("-")[1]) for path in self._part_paths()), default=0)
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._drop_leavings()
            os.close(self._lock)
            self._lock = None

    def _drop_leavings(self) -> None:
        """Remove what killed workers left. One that nobody stopped may still write: what stays, goes the next time."""
        for left in (self.work_folder, *self._failures.glob(".seed-*.partial")):
            shutil.rmtree(left, ignore_errors=True)

    def stored(self) -> Iterator[SeedResult]:
        """What an earlier run of this campaign left, part by part."""
        for path in self._part_paths():
            try:
                table = pq.read_table(path)
                if table.schema != _SCHEMA:
                    raise CampaignError(f"{path}: its columns are those of another version; use another --out")
                rows = table.to_pylist()
            except (OSError, pa.ArrowException) as error:
                raise CampaignError(f"{path}: {error}") from None
            yield from map(_result, rows)

    def add(self, result: SeedResult) -> None:
        """Keep a result; it is on disk after `ROWS_PER_PART` more, `SECONDS_PER_PART`, or `flush`."""
        self._waiting.append(_row(result))
        is_due = time.monotonic() - self._written_at > SECONDS_PER_PART
        if is_due or len(self._waiting) >= ROWS_PER_PART:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting. A part appears whole or not at all."""
        if self._waiting:
            assert self._lock is not None, "only who is in the folder writes to it"
            path = self._parts / f"part-{self._next_part:05}.parquet"
            aside = path.with_suffix(".partial")
            try:
                pq.write_table(pa.Table.from_pylist(self._waiting, schema=_SCHEMA), aside, compression="zstd")
                aside.replace(path)
            except OSError as error:
                raise CampaignError(f"{path}: {error.strerror or error}") from None
            self._next_part += 1
            self._waiting.clear()
        self._written_at = time.monotonic()

    def write_repro(self, scenario: Scenario, digest: str) -> Path:
        """The repro of a failing seed; the digest is empty when it is not known."""
        path = self._repro_path(scenario.seed)
        try:
            Repro(scenario, digest, package_versions()).write(path)
        except OSError as error:
            raise CampaignError(f"{path}: {error.strerror or error}") from None
        return path

    def drop_repro(self, seed: int) -> None:
        """Take away the repro of a seed that was lost once, and passed."""
        path = self._repro_path(seed)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise CampaignError(f"{path}: {error.strerror or error}") from None

    def trace_path(self, seed: int) -> Path:
        """Where the trace of a failing seed goes."""
        return self._failures / f"seed-{seed}"

    def _repro_path(self, seed: int) -> Path:
        return self._failures / f"seed-{seed}.json"

    def _part_paths(self) -> list[Path]:
        return sorted(self._parts.glob("part-[0-9][0-9][0-9][0-9][0-9].parquet"))


def _row(result: SeedResult) -> dict[str, Any]:
    return {
        **{name: getattr(result, name) for name in _PLAIN},
        **{f"invariant:{name}": verdict for name, verdict in result.verdicts.items()},
        **{f"violation:{name}": first for name, first in result.first_violations.items()},
        **{f"goal:{name}": count for name, count in result.goals.items()},
        **{f"fault:{name}": count for name, count in result.faults.items()},
    }


def _result(row: dict[str, Any]) -> SeedResult:
    def named(prefix: str) -> dict[str, Any]:
        start = len(prefix)
        return {name[start:]: value for name, value in row.items() if name.startswith(prefix) and value is not None}

    return SeedResult(
        **{name: row[name] for name in _PLAIN},
        verdicts=named("invariant:"),
        first_violations=named("violation:"),
        goals=named("goal:"),
        faults=named("fault:"),
    )
