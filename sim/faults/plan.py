"""Which faults strike when: drawn from the seed before the run begins, as data (design section 8).

A plan is a list of strikes. Because every strike is decided beforehand, and from a stream of its fault's own, one can
be taken out and all others stay as they were; and the whole plan can be printed beside the seed.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sim.faults.checks import check_names
from sim.faults.moments import Moment
from sim.randomness import Randomness, Stream
from sim.scenario import MILLISECOND_NS, NO_FAULTS, SWARM
from sim.script import Strike

MINUTE_NS: Final = 60_000 * MILLISECOND_NS
MIX_PPM: Final = (150_000, 300_000, 500_000, 800_000)
"""How likely each fault is to take part in a seed's swarm; the seed draws one of these first."""
AIMED_PPM: Final = 750_000
"""How many strikes of a fault that has moments wait for one of them."""
CALM_PPM: Final = 60_000
"""Seeds in which nothing is broken at all: what fails there needs no fault."""


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


def draw_plan(
    faults: str, options: Mapping[str, FaultOptions], layout: Layout, duration_ns: int, randomness: Randomness
) -> tuple[Strike, ...]:
    """The strikes of a run, in order of time. Raises ScenarioError for the name of a fault that there is not."""
    strikes: list[Strike] = []
    for name in _chosen(faults, options, randomness.stream("faults/mix")):
        option = options[name]
        stream = randomness.stream(f"faults/{name}")
        count = max(1, option.strikes_per_minute.draw(stream) * duration_ns // MINUTE_NS)
        for _ in range(count):
            at_ns = stream.below(duration_ns)
            target = option.aim.draw(stream, layout)
            moment = _draw_moment(option, target, layout, stream)
            duration_ms, strength = option.spans(moment)
            strikes.append(
                Strike(
                    fault=name,
                    at_ns=at_ns,
                    duration_ns=duration_ms.draw(stream) * MILLISECOND_NS + stream.below(MILLISECOND_NS),
                    target=target,
                    strength=strength.draw(stream),
                    moment=moment,
                )
            )
    # A stable sort on time alone: strikes of one instant stay in the order of the catalogue.
    return tuple(sorted(strikes, key=lambda strike: strike.at_ns))


def _draw_moment(option: FaultOptions, target: str, layout: Layout, stream: Stream) -> str:
    moments = option.moments_of(target, layout)
    if not moments or not (stream.chance_ppm(AIMED_PPM) or option.is_always_aimed):
        return ""
    return stream.choice(moments).name


def _chosen(faults: str, options: Mapping[str, FaultOptions], mix: Stream) -> Sequence[str]:
    if faults == NO_FAULTS:
        return ()
    if faults == SWARM:
        swarm = [name for name, option in options.items() if not option.breaks_assumption]
        if mix.chance_ppm(CALM_PPM):
            return ()
        ppm = mix.choice(MIX_PPM)
        # Each fault draws, taken or not, so that the mix of the others does not depend on it.
        taken = [name for name in swarm if mix.chance_ppm(ppm)]
        return taken or [mix.choice(swarm)]
    return check_names(faults, options)
