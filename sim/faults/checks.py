"""Whether what people wrote can be carried out: the names that `--faults` takes, and the strikes of a script."""

from collections.abc import Iterable, Mapping, Sequence

from sim.faults.moments import MOMENTS
from sim.faults.options import FaultOptions, Layout
from sim.scenario import NO_FAULTS, SWARM, ScenarioError
from sim.script import Strike


def check_names(faults: str, known: Iterable[str]) -> Sequence[str]:
    """The faults that `--faults` names, none for `none` and `swarm`. Raises ScenarioError for one that is not known."""
    if faults in (NO_FAULTS, SWARM):
        return ()
    names = [name.strip() for name in faults.split(",")]
    for name in names:
        if name not in known:
            raise ScenarioError(f"unknown fault {name!r}; there are: {', '.join((NO_FAULTS, SWARM, *known))}")
    if len(set(names)) != len(names):
        raise ScenarioError(f"--faults names a fault twice: {faults}")
    return names


def check_strikes(strikes: Sequence[Strike], options: Mapping[str, FaultOptions], layout: Layout) -> None:
    """Raises ScenarioError for a written-out strike that cannot be carried out: of a fault that there is not, at what
    the fault cannot strike, at no time, weaker or stronger than the fault can be, or waiting for nothing known."""
    for name in dict.fromkeys(each.fault for each in strikes):
        if name not in options:
            raise ScenarioError(f"unknown fault {name!r} in the script")
    targets = {each.fault: frozenset(options[each.fault].aim.targets(layout)) for each in strikes}
    for each in strikes:
        if each.target not in targets[each.fault]:
            raise ScenarioError(f"{each.fault} aims at {each.target!r}: {_why_not(each, options, layout)}")
        if each.at_ns < 0 or each.duration_ns < 0:
            raise ScenarioError(f"{each.fault} on {each.target}: times must not be negative")
        strengths = options[each.fault].strengths
        if not strengths.low <= each.strength <= strengths.high:
            bounds = f"{strengths.low} to {strengths.high}"
            raise ScenarioError(f"{each.fault} on {each.target}: its strength must be {bounds}, not {each.strength}")
        if each.moment and each.moment not in MOMENTS:
            known_moments = ", ".join(MOMENTS)
            raise ScenarioError(f"{each.fault} waits for {each.moment!r}; moments are: {known_moments}")


def _why_not(strike: Strike, options: Mapping[str, FaultOptions], layout: Layout) -> str:
    """What is wrong with the target of a strike: there is none of that name, or it is not of the fault's sort."""
    known = {end for option in options.values() for target in option.aim.targets(layout) for end in target.split("->")}
    for end in strike.target.split("->"):
        if end not in known:
            return f"this scenario has no {end!r} to strike"
    return f"it can only strike {options[strike.fault].aim.what}"
