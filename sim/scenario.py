"""A scenario: everything that decides what a run is, as one record of plain data (design sections 5 and 10).

Two runs of one scenario are the same run, to the byte. A scenario is printed with each run, stored in its trace, and
read back by `replay`; what it does not name is decided by the seed.
"""

from dataclasses import dataclass, fields
from typing import Any, Final

import msgspec

from sim.script import Script

SECOND_NS: Final = 1_000_000_000
MILLISECOND_NS: Final = 1_000_000

SEEDS: Final = 2**63
"""Seeds are 0 to below this."""
NO_FAULTS: Final = "none"
SWARM: Final = "swarm"
"""Each seed draws its own mix of faults, their rates and their durations."""
SYNTHETIC: Final = "synthetic"


class ScenarioError(ValueError):
    """A scenario that cannot be run; the message is one line that names the option and the bound."""


@dataclass(frozen=True)
class Scenario:
    """The options of a run. Units are in the names; the bounds are checked when it is made.

    Raises ScenarioError for a value out of bounds.
    """

    seed: int = 0
    """Where every random stream of the run begins."""
    orders: int = 100
    """New orders that the synthetic flow places; deposits, cancels, reads and repeats come on top."""
    users: int = 12
    """Clients; each has an account and acts on its own."""
    symbols: int = 3
    """Tradable pairs of the synthetic market."""
    duration_ns: int = 20 * SECOND_NS
    """Simulated time over which the synthetic flow is spread: the phase in which faults strike."""
    flow: str = SYNTHETIC
    """`synthetic`, or the path of a file with recorded order flow."""
    faults: str = SWARM
    """`none`, `swarm`, or names of faults joined by commas."""
    defect: str = ""
    """Name of a deliberate defect of the gallery, applied for this run only; empty for the intact code."""
    user_partitions: int = 3
    """Partitions of the topics keyed by user."""
    symbol_partitions: int = 2
    """Partitions of the topics keyed by symbol."""
    gateways: int = 2
    """Gateway instances; clients retry at another one."""
    instances: int = 2
    """Instances of each of the balance core, the matching engine and settlement."""
    brokers: int = 3
    """Kafka brokers; replication factor 3, at least 2 in sync."""
    replicas: int = 3
    """Cassandra nodes; replication factor 3."""
    snapshot_interval_outputs: int = 20
    """Outputs between two snapshots of a partition; far fewer than in production, so that short runs meet them."""
    settle_bound_ns: int = 120 * SECOND_NS
    """How long the system may take to settle once all faults are healed."""
    script: Script | None = None
    """What clients do and what strikes, written out; None: what the seed and the options above draw."""

    def __post_init__(self) -> None:
        for name, low, high in _BOUNDS:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise ScenarioError(f"{name} must be {low} to {high}, not {value}")
        if self.symbol_partitions > self.symbols and self.flow == SYNTHETIC:
            # More partitions than symbols would leave some without any work; fewer is a choice.
            object.__setattr__(self, "symbol_partitions", self.symbols)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        data: dict[str, Any] = msgspec.to_builtins(self)
        return data

    @classmethod
    def from_dict(cls, data: object) -> "Scenario":
        """The scenario of a stored trace or repro. Raises ScenarioError for unknown or ill-typed options."""
        if isinstance(data, dict) and (unknown := sorted(set(data) - {each.name for each in fields(cls)})):
            raise ScenarioError(f"scenario: unknown option {unknown[0]!r}")
        try:
            return msgspec.convert(data, cls, strict=True)
        except msgspec.ValidationError as error:
            raise ScenarioError(f"scenario: {error}") from None


_BOUNDS: Final = (
    ("seed", 0, SEEDS - 1),
    ("orders", 0, 10_000_000),
    ("users", 1, 100_000),
    ("symbols", 1, 1_000),
    ("duration_ns", MILLISECOND_NS, 24 * 3600 * SECOND_NS),
    ("user_partitions", 1, 1_000),
    ("symbol_partitions", 1, 1_000),
    ("gateways", 1, 100),
    ("instances", 1, 100),
    ("brokers", 3, 15),
    ("replicas", 3, 15),
    ("snapshot_interval_outputs", 0, 10_000_000),
    ("settle_bound_ns", SECOND_NS, 24 * 3600 * SECOND_NS),
)
