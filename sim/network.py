"""The network between hosts, brokers and replicas (design 5).

Nodes are named by strings. A message takes a latency drawn from an integer table with a long tail, and messages of one
direction arrive in the order in which they were sent, as on a TCP connection. Faults work on one direction of a link,
given by the names of source and target; "*" stands for every node, and a trailing "*" for every name that begins so.
A fault acts when a message is sent: what is under way already arrives. A request whose answer is lost has happened.

Faults add up, and each is taken back by itself: two faults may cut the same link, and it is whole when both are healed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappush

from simpy.events import NORMAL

from sim.clock import NS_PER_US, Clock
from sim.randomness import Randomness, Stream

CUT = "cut"
SLOW = "slow"
CLOG = "clog"
LOSSY = "lossy"

LATENCY_BITS = 10
"""A latency table has two to the power of so many entries."""
_LATENCY_MASK = (1 << LATENCY_BITS) - 1
_DRAWN_BITS = 6 * LATENCY_BITS
_DRAWN_END = 1 << _DRAWN_BITS
"""Latencies are drawn six at a time: one draw costs little more than the other."""


@dataclass(frozen=True)
class Latency:
    """How long messages of a link take, one way: 1024 equally likely values."""

    table_ns: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.table_ns) != 1 << LATENCY_BITS:
            raise ValueError(f"a latency table has {1 << LATENCY_BITS} entries, not {len(self.table_ns)}")
        if min(self.table_ns) < 0:
            raise ValueError("a latency cannot be negative")

    @classmethod
    def long_tailed(cls, least_ns: int, spread_ns: int) -> Latency:
        """At least `least_ns`; half of the messages within `spread_ns` of it, one in a hundred 100 times that far out.

        The tail falls off as 1/x (the quantile q lies at least + spread * q / (1 - q)), as queueing at a switch
        or a collection pause at the peer makes it; integer arithmetic gives it exactly.
        """
        size = 1 << LATENCY_BITS
        return cls(tuple(least_ns + spread_ns * (2 * i + 1) // (2 * (size - i) - 1) for i in range(size)))

    @classmethod
    def constant(cls, latency_ns: int) -> Latency:
        """Always the same."""
        return cls((latency_ns,) * (1 << LATENCY_BITS))


DATA_CENTRE = Latency.long_tailed(least_ns=120 * NS_PER_US, spread_ns=20 * NS_PER_US)
"""Hosts of one site: 140 µs in the middle, 2 ms or more once in a hundred messages, 41 ms at worst."""


@dataclass(eq=False)
class LinkFault:
    """One fault on the links from `source` to `target` (names or patterns), and how many messages it has struck."""

    kind: str
    source: str
    target: str
    extra_ns: int = 0
    factor_percent: int = 100
    until_ns: int = 0
    ppm: int = 0
    struck: int = field(default=0, compare=False)


class _Link:
    """What is known of one direction between two nodes; its faults are looked up again when any fault changes."""

    __slots__ = ("bits", "drawn", "faults", "last_arrival_ns", "source", "stream", "table_ns", "target", "version")

    def __init__(self, source: str, target: str, stream: Stream) -> None:
        self.source = source
        self.target = target
        self.stream = stream
        self.bits = stream.bits
        self.drawn = 1  # bits for the next latencies, below a one that marks their end
        self.table_ns: tuple[int, ...] = ()
        self.faults: tuple[LinkFault, ...] = ()
        self.last_arrival_ns = 0
        self.version = -1

    def draw_ns(self) -> int:
        """The latency of the next message, before any fault."""
        drawn = self.drawn
        if drawn == 1:
            drawn = self.bits(_DRAWN_BITS) | _DRAWN_END
        self.drawn = drawn >> LATENCY_BITS
        return self.table_ns[drawn & _LATENCY_MASK]


class _Links(dict[tuple[str, str], _Link]):
    """The links by source and target; each comes into being when it is first asked for."""

    def __init__(self, randomness: Randomness) -> None:
        super().__init__()
        self._randomness = randomness

    def __missing__(self, ends: tuple[str, str]) -> _Link:
        source, target = ends
        link = self[ends] = _Link(source, target, self._randomness.stream(f"network/{source}->{target}"))
        return link


class Network:
    """All links. `struck` counts the messages that each kind of fault has hit."""

    def __init__(self, clock: Clock, randomness: Randomness, latency: Latency = DATA_CENTRE) -> None:
        self.clock = clock
        self.struck: Counter[str] = Counter()
        self._latencies: list[tuple[str, str, Latency]] = [("*", "*", latency)]
        self._faults: list[LinkFault] = []
        self._links = _Links(randomness)
        self.version = 0
        """Changes whenever a fault or a latency does."""

    # -- messages

    def send(self, source: str, target: str, deliver: Callable[..., object], *args: object) -> bool:
        """Run `deliver(*args)` when the message has arrived; return False when it is lost on its way.

        Messages of the same direction arrive in the order in which they were sent.
        """
        link = self._links[source, target]
        if link.version != self.version:
            self._resolve(link)
        delay_ns = link.draw_ns()
        if link.faults:
            struck_ns = self._strike(link, delay_ns)
            if struck_ns is None:
                return False
            delay_ns = struck_ns
        clock = self.clock
        arrival_ns = clock._now + delay_ns
        if arrival_ns < link.last_arrival_ns:
            arrival_ns = link.last_arrival_ns
        link.last_arrival_ns = arrival_ns
        # Clock.post, written out: half of a run's events are messages.
        clock.scheduled = number = clock.scheduled + 1
        heappush(clock._queue, (arrival_ns, NORMAL, number, None, deliver, args))
        return True

    def delay_ns(self, source: str, target: str) -> int | None:
        """Draw how long a message sent now would take; None when it would be lost.

        For deciding the outcome of several messages in one event (a quorum write, say). The order of messages on the
        link is the caller's affair then.
        """
        link = self._links[source, target]
        if link.version != self.version:
            self._resolve(link)
        delay_ns = link.draw_ns()
        return self._strike(link, delay_ns) if link.faults else delay_ns

    def clear_table_ns(self, source: str, target: str) -> tuple[int, ...] | None:
        """The 1024 equally likely latencies of a link without faults; None when it has one.

        For infrastructure that draws many latencies at once; it holds for as long as `version` stays the same.
        """
        link = self._links[source, target]
        if link.version != self.version:
            self._resolve(link)
        return None if link.faults else link.table_ns

    def is_clear(self, source: str, target: str) -> bool:
        """Whether no fault is on that direction of the link now."""
        link = self._links[source, target]
        if link.version != self.version:
            self._resolve(link)
        return not link.faults

    # -- faults

    def cut(self, source: str, target: str) -> LinkFault:
        """Lose every message from `source` to `target`, until healed."""
        return self._add(LinkFault(CUT, source, target))

    def heal(self, source: str, target: str) -> None:
        """Take back one `cut` of exactly these names; nothing happens when there is none."""
        self._remove(CUT, source, target)

    def slow(self, source: str, target: str, extra_ns: int, factor_percent: int = 100) -> LinkFault:
        """Make messages take `factor_percent` of their latency, and `extra_ns` more."""
        return self._add(LinkFault(SLOW, source, target, extra_ns=extra_ns, factor_percent=factor_percent))

    def unslow(self, source: str, target: str) -> None:
        """Take back one `slow` of exactly these names; nothing happens when there is none."""
        self._remove(SLOW, source, target)

    def clog(self, source: str, target: str, until_ns: int) -> LinkFault:
        """Hold messages back until the instant `until_ns`; then they arrive, in order. It ends by itself."""
        fault = self._add(LinkFault(CLOG, source, target, until_ns=until_ns))
        self.clock.at(max(until_ns, self.clock.now), self.remove, fault)
        return fault

    def lossy(self, source: str, target: str, ppm: int) -> LinkFault:
        """Lose each message with a probability of `ppm` parts per million; `ppm` 0 takes it back."""
        self._remove(LOSSY, source, target)
        fault = LinkFault(LOSSY, source, target, ppm=ppm)
        return self._add(fault) if ppm > 0 else fault

    def remove(self, fault: LinkFault) -> None:
        """Take back that very fault; nothing happens when it is gone already."""
        self._faults = [other for other in self._faults if other is not fault]
        self.version += 1

    def heal_all(self) -> None:
        """Take back every fault: the beginning of the second phase of a run."""
        self._faults = []
        self.version += 1

    def set_latency(self, source: str, target: str, latency: Latency) -> None:
        """Give these links a latency of their own; the last one set for a link counts."""
        self._latencies.append((source, target, latency))
        self.version += 1

    # -- inside

    def _add(self, fault: LinkFault) -> LinkFault:
        self._faults.append(fault)
        self.version += 1
        return fault

    def _remove(self, kind: str, source: str, target: str) -> None:
        for fault in self._faults:
            if fault.kind == kind and fault.source == source and fault.target == target:
                self.remove(fault)
                return

    def _resolve(self, link: _Link) -> None:
        """Find the faults and the latency that hold for a link now."""
        source, target = link.source, link.target
        link.faults = tuple(f for f in self._faults if _matches(f.source, source) and _matches(f.target, target))
        for from_pattern, to_pattern, latency in self._latencies:
            if _matches(from_pattern, source) and _matches(to_pattern, target):
                link.table_ns = latency.table_ns
        link.version = self.version

    def _strike(self, link: _Link, delay_ns: int) -> int | None:
        """What the link's faults make of a message that would take `delay_ns`; None when it is lost."""
        for fault in link.faults:
            if fault.kind == CUT or (fault.kind == LOSSY and link.stream.chance_ppm(fault.ppm)):
                self._count(fault)
                return None
        held_ns = 0
        for fault in link.faults:
            if fault.kind == SLOW:
                delay_ns = delay_ns * fault.factor_percent // 100 + fault.extra_ns
                self._count(fault)
            elif fault.kind == CLOG and fault.until_ns > self.clock.now:
                held_ns = max(held_ns, fault.until_ns - self.clock.now)
                self._count(fault)
        return held_ns + delay_ns

    def _count(self, fault: LinkFault) -> None:
        fault.struck += 1
        self.struck[fault.kind] += 1


def _matches(pattern: str, name: str) -> bool:
    if pattern.endswith("*"):
        return name.startswith(pattern[:-1])
    return pattern == name
