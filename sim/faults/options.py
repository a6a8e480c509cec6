"""What can be said of a fault: whom it can strike, how often, how long and how strongly, and at which moments."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from sim.faults.moments import Moment
from sim.randomness import Stream


@dataclass(frozen=True)
class Span:
    """An inclusive range of integers that a seed draws from."""

    low: int
    high: int

    def draw(self, stream: Stream) -> int:
        return stream.between(self.low, self.high)


@dataclass(frozen=True)
class Layout:
    """The names of everything that a fault can aim at."""

    services: Mapping[str, tuple[str, ...]]
    """Host names by service: gateway, ubscore, matching, settlement."""
    brokers: tuple[str, ...]
    replicas: tuple[str, ...]
    groups: tuple[str, ...]

    @property
    def hosts(self) -> tuple[str, ...]:
        """All hosts that run a service, in a fixed order."""
        return tuple(name for names in self.services.values() for name in names)

    def service_of(self, host: str) -> str:
        """The service that a host runs; empty for what is none of the hosts."""
        return next((service for service, names in self.services.items() if host in names), "")

    def hosts_concerned(self, target: str) -> tuple[str, ...]:
        """The hosts that feel it when a target is struck: itself, the ends of a link, the instances of a group.

        A server, a topic or the link of two servers concerns them all.
        """
        if target in self.services:
            return self.services[target]
        return tuple(end for end in target.split("->") if self.service_of(end)) or self.hosts


@dataclass(frozen=True)
class Aim:
    """Whom a fault can strike."""

    what: str
    """What its targets are."""
    targets: Callable[[Layout], Collection[str]]
    """All of them that a layout has."""
    draw: Callable[[Stream, Layout], str]
    """Chooses one of them."""


@dataclass(frozen=True)
class FaultOptions:
    """How one fault is drawn: each option with its unit and meaning, so that a run can print them."""

    name: str
    meaning: str
    """What happens, in one sentence."""
    hits: str
    """The production statement that it can hit."""
    aim: Aim
    strikes_per_minute: Span
    """How often it strikes while it takes part, per minute of simulated work; at least once."""
    duration_ms: Span
    """How long one strike lasts."""
    strength: Span = Span(0, 0)
    strength_meaning: str = ""
    """Unit and meaning of the strength; empty when there is none."""
    moments: tuple[Moment, ...] = ()
    """The moments that hurt most: three of four strikes wait for one that suits their target."""
    is_always_aimed: bool = False
    """Whether every strike waits for a moment: the fault is about nothing else."""
    aimed_duration_ms: Span | None = None
    """How long a strike lasts that waits for a moment, where that is another time: short, to hit little else."""
    aimed_strength: Span | None = None
    """How strong it is, where that is another strength: nearly sure, to hit at all."""
    breaks_assumption: bool = False
    """Whether it breaks something the design rests on; such a fault never takes part in a swarm."""

    def moments_of(self, target: str, layout: Layout) -> tuple[Moment, ...]:
        """The moments that can come for one of the hosts that the target concerns."""
        services = {layout.service_of(host): None for host in layout.hosts_concerned(target)}
        return tuple(each for each in self.moments if any(service in each.services for service in services))

    @property
    def strengths(self) -> Span:
        """The weakest and the strongest that a strike can be, waiting for a moment or not."""
        aimed = self.aimed_strength or self.strength
        return Span(min(self.strength.low, aimed.low), max(self.strength.high, aimed.high))

    def spans(self, moment: str) -> tuple[Span, Span]:
        """The duration (ms) and the strength of a strike that waits for that moment, or for none."""
        if not moment:
            return self.duration_ms, self.strength
        return self.aimed_duration_ms or self.duration_ms, self.aimed_strength or self.strength
