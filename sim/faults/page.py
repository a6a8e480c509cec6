"""The catalogue as people read it: docs/faults.md, what `exchange-sim faults` prints, and the same as plain data."""

from collections.abc import Iterator
from typing import Any, Final

from sim.faults.catalogue import KINDS
from sim.faults.moments import MOMENTS, Moment
from sim.faults.options import FaultOptions, Span
from sim.faults.plan import AIMED_PPM, CALM_PPM
from sim.randomness import PPM

_HEAD: Final = """\
# Faults

`exchange-sim faults --markdown` writes this page from the catalogue (`sim/faults`); a test holds it to that.

Each fault can be switched on by its name: `exchange-sim run --faults crash,lost-answers`. With `--faults swarm`, the
default, each seed draws which faults take part, how often each strikes, at whom, when, for how long and how hard;
{calm} % of the seeds have none at all. All of it is drawn before the run begins, from a stream of each fault's own, so
one fault's strikes do not depend on which others take part. After the phase of work everything is healed, and the
exchange has to settle.

The run's summary names the faults that struck, how often, and at which moments. In the trace, the table `faults` has
the beginning and the end of each strike with its target, duration, strength and moment. A shrunk scenario writes its
strikes out.

## Moments

A strike may wait for a moment. Of a fault that has moments, {aimed} % of the strikes do (*always*: all), for one that
can come for the target. Whether it has come is read off the simulated servers and hosts. A strike that has waited in
vain for the time given here, or for half of the work that is left, strikes all the same; the trace tells the two apart.

| moment | what is going on | instances of | waits at most |
|---|---|---|---|
"""

_TABLE_HEAD: Final = """\
| fault | what happens | what it can hit | strikes a minute | lasts, ms | strength | moments |
|---|---|---|---|---|---|---|
"""


def page() -> str:
    """The text of docs/faults.md."""
    parts = [_HEAD.format(calm=_percent(CALM_PPM), aimed=_percent(AIMED_PPM))]
    parts += [
        f"| {each.name} | {each.meaning} | {', '.join(each.services)} | {each.patience_ms / 1000:g} s |\n"
        for each in MOMENTS.values()
    ]
    for kind in KINDS:
        about = f"{kind.about}\n\n" if kind.about else ""
        parts.append(f"\n## {kind.name[0].upper()}{kind.name[1:]}\n\n{about}{_TABLE_HEAD}")
        parts += [f"{_row(option)}\n" for option in kind.options.values()]
    return "".join(parts)


def lines() -> Iterator[str]:
    """The catalogue for a terminal."""
    for kind in KINDS:
        yield f"{kind.name}"
        for option in kind.options.values():
            yield f"  {option.name}"
            yield f"      {option.meaning}"
            yield f"      hits: {option.hits}"
            yield f"      {_range(option.strikes_per_minute)} strikes a minute, {_times(option)}"
            if option.strength_meaning:
                yield f"      strength {_strength(option)}"
            if option.moments:
                yield f"      waits for: {_moments(option)}"


def as_data() -> dict[str, Any]:
    """The catalogue as plain data: fault -> its options, each with its unit in the name."""
    return {
        option.name: {
            "kind": kind.name,
            "meaning": option.meaning,
            "hits": option.hits,
            "strikes_per_minute": _pair(option.strikes_per_minute),
            "duration_ms": _pair(option.duration_ms),
            "strength": _pair(option.strength) if option.strength_meaning else None,
            "strength_meaning": option.strength_meaning,
            "moments": [each.name for each in option.moments],
            "is_always_aimed": option.is_always_aimed,
            "aimed_duration_ms": _pair(option.aimed_duration_ms) if option.aimed_duration_ms else None,
            "aimed_strength": _pair(option.aimed_strength) if option.aimed_strength else None,
            "breaks_assumption": option.breaks_assumption,
        }
        for kind in KINDS
        for option in kind.options.values()
    }


def moments_as_data() -> dict[str, dict[str, Any]]:
    """Moment -> its meaning, the services that it comes for, and how long a strike waits for it."""
    return {
        each.name: {"meaning": each.meaning, "services": list(each.services), "patience_ms": each.patience_ms}
        for each in MOMENTS.values()
    }


def _row(option: FaultOptions) -> str:
    cells = (
        f"`{option.name}`",
        option.meaning,
        option.hits,
        _range(option.strikes_per_minute),
        _range(option.duration_ms) + _aimed(option.aimed_duration_ms),
        _strength(option) if option.strength_meaning else "",
        _moments(option),
    )
    return f"| {' | '.join(each.replace('|', '/') for each in cells)} |"


def _moments(option: FaultOptions) -> str:
    always = "always " if option.is_always_aimed else ""
    return always + _names(option.moments)


def _names(moments: tuple[Moment, ...]) -> str:
    return "any" if moments == tuple(MOMENTS.values()) else ", ".join(each.name for each in moments)


def _times(option: FaultOptions) -> str:
    return f"each of {_range(option.duration_ms)} ms{_aimed(option.aimed_duration_ms)}"


def _strength(option: FaultOptions) -> str:
    return f"{_range(option.strength)}{_aimed(option.aimed_strength)} ({option.strength_meaning})"


def _aimed(span: Span | None) -> str:
    return f" (at a moment {_range(span)})" if span is not None else ""


def _range(span: Span) -> str:
    return f"{span.low:,}" if span.low == span.high else f"{span.low:,} to {span.high:,}"


def _pair(span: Span) -> list[int]:
    return [span.low, span.high]


def _percent(ppm: int) -> str:
    return f"{100 * ppm / PPM:g}"
