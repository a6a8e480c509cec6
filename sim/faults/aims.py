"""Whom a fault aims at: each aim knows its targets in the layout of an exchange, and draws one of them."""

from collections.abc import Callable, Collection
from itertools import permutations, product
from typing import Final

from schema.topics import BALANCE_EVENTS, ENGINE_OUTPUTS, FUND_UPDATES, ORDER_REQUESTS, VALIDATED_ORDERS
from sim.faults.options import Aim, Layout
from sim.randomness import Stream

ANY: Final = "*"
"""The target that stands for everything; as one end of a link, for any node."""
ASKING_CASSANDRA: Final = ("settlement", "gateway")
"""The services that talk to Cassandra; all talk to Kafka."""


def _one_of(what: str, targets: Callable[[Layout], Collection[str]]) -> Aim:
    """Any target, each as likely as the others."""
    return Aim(what, targets, lambda stream, layout: stream.choice(tuple(targets(layout))))


any_host: Final = _one_of("a host that runs a service", lambda layout: layout.hosts)
any_broker: Final = _one_of("a broker", lambda layout: layout.brokers)
any_replica: Final = _one_of("a Cassandra node", lambda layout: layout.replicas)
any_group: Final = _one_of("a consumer group", lambda layout: layout.groups)
chained_topic: Final = _one_of("a chained topic", lambda _: (ENGINE_OUTPUTS, BALANCE_EVENTS))
any_topic: Final = _one_of(
    "a topic between services",
    lambda _: (ORDER_REQUESTS, VALIDATED_ORDERS, ENGINE_OUTPUTS, FUND_UPDATES, BALANCE_EVENTS),
)
the_world: Final = Aim(f"{ANY!r}, which is everything", lambda _: (ANY,), lambda _stream, _layout: ANY)


def host_of(*services: str) -> Aim:
    """A host of one of these services, each service as likely as the others."""

    def targets(layout: Layout) -> Collection[str]:
        return [host for service in services for host in layout.services[service]]

    def draw(stream: Stream, layout: Layout) -> str:
        return stream.choice(layout.services[stream.choice(services)])

    return Aim(f"a host of {' or '.join(services)}", targets, draw)


def _links(layout: Layout) -> Collection[str]:
    """Both directions of every link, and those of which an end is any node."""
    asking = [host for service in ASKING_CASSANDRA for host in layout.services[service]]
    nodes = (*layout.hosts, *layout.brokers, *layout.replicas)
    links = [
        *product(layout.hosts, layout.brokers),
        *product(asking, layout.replicas),
        *permutations(layout.brokers, 2),
        *permutations(layout.replicas, 2),
        *product((ANY,), (*nodes, ANY)),
    ]
    return {link for one, other in links for link in (f"{one}->{other}", f"{other}->{one}")}


def _draw_link(stream: Stream, layout: Layout) -> str:
    host = stream.choice(layout.hosts)
    is_cassandra = host.startswith(ASKING_CASSANDRA) and stream.below(2) == 0
    servers = layout.replicas if is_cassandra else layout.brokers
    server = stream.choice(servers)
    other = host if stream.below(4) else stream.choice([name for name in servers if name != server])
    return f"{other}->{server}" if stream.below(2) else f"{server}->{other}"


server_link: Final = Aim(
    "one direction of a link, a->b, between a service and a server that it talks to, or two servers of a cluster",
    _links,
    _draw_link,
)


def ends_of(target: str) -> tuple[str, str]:
    """The two hosts of a link, `source->sink`."""
    source, _, sink = target.partition("->")
    return source, sink
