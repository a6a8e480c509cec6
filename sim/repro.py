"""A repro: the small file that makes a run happen again (design section 10).

It holds the scenario, the version of the code that ran it, and the digest that came out. `replay` takes one, a test can
name one, and every stored trace contains what is needed to make one.
"""

import shlex
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final, Literal

import msgspec

from sim.scenario import SECOND_NS, SYNTHETIC, Scenario, ScenarioError
from traces.manifest import package_versions
from traces.store import read_manifest

FORMAT: Final = 1


@dataclass(frozen=True)
class Repro:
    """A scenario, the digest that it gave, and the versions of the code and of the packages that gave it."""

    scenario: Scenario
    digest: str
    """Empty when it is not known: the run did not end."""
    packages: dict[str, str]

    def write(self, path: Path) -> None:
        """Store as JSON. Raises ScenarioError when the file cannot be written."""
        stored = _Stored(
            repro_format=FORMAT, scenario=self.scenario.as_dict(), digest=self.digest, packages=self.packages
        )
        try:
            path.write_bytes(msgspec.json.format(msgspec.json.encode(stored), indent=2) + b"\n")
        except OSError as error:
            raise ScenarioError(f"{path}: cannot be written: {error.strerror or error}") from None

    def difference_from_this_code(self) -> str:
        """Why a digest may differ, in words: what has another version now, if anything has."""
        now = package_versions()
        names = sorted({**self.packages, **now})
        changed = [
            f"{name} {self.packages.get(name, 'none')} -> {now.get(name, 'none')}"
            for name in names
            if self.packages.get(name) != now.get(name)
        ]
        if changed:
            return "versions differ (" + ", ".join(changed) + ")"
        return "the code and all versions are the same: the file was altered, or the run is not deterministic"


class _Stored(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A repro as it stands in its file."""

    repro_format: Literal[1]
    scenario: dict[str, object]
    digest: str
    packages: dict[str, str]


def read_repro(path: Path) -> Repro:
    """Read a repro file, or what a stored trace says of its run.

    Raises ScenarioError or TraceError with one clear line.
    """
    if path.is_dir():
        manifest = read_manifest(path)
        if not manifest.scenario or not manifest.digest:
            raise ScenarioError(f"{path}: the trace of no simulated run: it has no scenario or no digest")
        return Repro(scenario=Scenario.from_dict(manifest.scenario), digest=manifest.digest, packages=manifest.packages)
    try:
        stored = msgspec.json.decode(path.read_bytes(), type=_Stored)
        return Repro(scenario=Scenario.from_dict(stored.scenario), digest=stored.digest, packages=stored.packages)
    except OSError as error:
        raise ScenarioError(f"{path}: {error.strerror or error}") from None
    except (ScenarioError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ScenarioError(f"{path}: not a repro: {error}") from None


def command_for(scenario: Scenario) -> str | None:
    """The command line that runs exactly this scenario; None when the options of `run` cannot say it all."""
    said = Scenario(
        seed=scenario.seed,
        orders=scenario.orders,
        users=scenario.users,
        symbols=scenario.symbols,
        duration_ns=scenario.duration_ns,
        flow=scenario.flow,
        faults=scenario.faults,
        defect=scenario.defect,
    )
    if said != scenario:
        return None
    options: dict[str, object] = {
        "seed": scenario.seed,
        "orders": scenario.orders,
        "users": scenario.users,
        "symbols": scenario.symbols,
        "duration": format(Decimal(scenario.duration_ns) / SECOND_NS, "f"),
        "faults": scenario.faults,
    }
    if scenario.flow != SYNTHETIC:
        options["flow"] = scenario.flow
    if scenario.defect:
        options["defect"] = scenario.defect
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return shlex.join(["exchange-sim", "run", *words])
