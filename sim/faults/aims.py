"""Whom a fault aims at: each aim draws one target of its sort from the layout of the exchange."""

from collections.abc import Callable

from schema.topics import BALANCE_EVENTS, ENGINE_OUTPUTS, FUND_UPDATES, ORDER_REQUESTS, VALIDATED_ORDERS
from sim.faults.plan import Layout
from sim.randomness import Stream


def any_host(stream: Stream, layout: Layout) -> str:
    return stream.choice(layout.hosts)


def any_broker(stream: Stream, layout: Layout) -> str:
    return stream.choice(layout.brokers)


def any_replica(stream: Stream, layout: Layout) -> str:
    return stream.choice(layout.replicas)


def any_group(stream: Stream, layout: Layout) -> str:
    return stream.choice(layout.groups)


def host_of(*services: str) -> Callable[[Stream, Layout], str]:
    def aim(stream: Stream, layout: Layout) -> str:
        return stream.choice(layout.services[stream.choice(services)])

    return aim


def server_link(stream: Stream, layout: Layout) -> str:
    """One direction between a service and a server that it talks to, or between two servers of a cluster."""
    host = stream.choice(layout.hosts)
    is_cassandra = host.startswith(("settlement", "gateway")) and stream.below(2) == 0
    servers = layout.replicas if is_cassandra else layout.brokers
    server = stream.choice(servers)
    other = host if stream.below(4) else stream.choice([name for name in servers if name != server])
    return f"{other}->{server}" if stream.below(2) else f"{server}->{other}"


def the_world(_stream: Stream, _layout: Layout) -> str:
    return "*"


def chained_topic(stream: Stream, _layout: Layout) -> str:
    return stream.choice((ENGINE_OUTPUTS, BALANCE_EVENTS))


def any_topic(stream: Stream, _layout: Layout) -> str:
    return stream.choice((ORDER_REQUESTS, VALIDATED_ORDERS, ENGINE_OUTPUTS, FUND_UPDATES, BALANCE_EVENTS))


def ends_of(target: str) -> tuple[str, str]:
    """The two hosts of a link, `source->sink`."""
    source, _, sink = target.partition("->")
    return source, sink
