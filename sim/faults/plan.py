"""Which faults strike when: drawn from the seed before the run begins, as data (design section 8).

A plan is a list of strikes. Because every strike is decided beforehand, and from a stream of its fault's own, one can
be taken out and all others stay as they were; and the whole plan can be printed beside the seed.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from sim.faults.checks import check_names
from sim.faults.options import FaultOptions, Layout
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
