"""The system under test, deployed in a world: servers, hosts, and the supervisor that keeps them up (design section 5).

Each service instance has a host of its own. What runs on it is the production code, handed the host's Kafka clients,
Cassandra session, clock, disk and log. When an instance ends by itself the supervisor starts it again after a while, as
an init system would; while a fault holds a host down, it stays down.
"""

import signal
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from cassandra.query import tuple_factory

from engine.matching_service import matching_duty
from engine.ownership import OwnershipService
from engine.ownership_settings import OwnershipSettings
from engine.partition_core import Duty
from engine.ubscore_service import ubscore_duty
from gateway.core import Gateway
from schema import tables
from schema.services import GATEWAY, MATCHING, SETTLEMENT, UBSCORE
from schema.topics import Topology
from settlement.cql_adapter import CqlAdapter
from settlement.migrations import SchemaSteps
from settlement.retries import Backoff
from settlement.service import SettlementService
from settlement.store import Store
from sim.cassandra.cluster import CassandraCluster
from sim.clients import Clients
from sim.faults.options import Layout
from sim.gateway_front import GatewayFront
from sim.hosts import Host, Incarnation
from sim.kafka.clients import SimKafkaClients
from sim.kafka.cluster import KafkaCluster
from sim.kafka.config import KafkaConfig
from sim.randomness import Stream
from sim.scenario import MILLISECOND_NS, Scenario
from sim.world import World

RESTART_DELAY_NS: Final = 500 * MILLISECOND_NS
"""How long the supervisor waits before it starts an instance again that has ended by itself."""


@dataclass
class GatewayHost:
    """A gateway's host as clients see it: its name, its life now, and what serves there (None while nothing does)."""

    host: Host
    front: GatewayFront | None = None

    def __post_init__(self) -> None:
        self.name = self.host.name

    @property
    def incarnation(self) -> Incarnation | None:
        return self.host.incarnation


def layout_of(scenario: Scenario) -> Layout:
    """The names of everything that there is in a scenario."""

    def names(kind: str, count: int) -> tuple[str, ...]:
        return tuple(f"{kind}-{number}" for number in range(1, count + 1))

    services = {GATEWAY: scenario.gateways, **dict.fromkeys((UBSCORE, MATCHING, SETTLEMENT), scenario.instances)}
    return Layout(
        services={service: names(service, count) for service, count in services.items()},
        brokers=names("kafka", scenario.brokers),
        replicas=names("cassandra", scenario.replicas),
        groups=(UBSCORE, MATCHING, SETTLEMENT),
    )


class Deployment:
    """Everything that a fault can reach and a run must drive."""

    def __init__(self, world: World, scenario: Scenario, topology: Topology) -> None:
        self.world = world
        self.clock = world.clock
        self.network = world.network
        self.randomness = world.randomness
        self.recorder = world.recorder
        self.topology = topology
        self.layout = layout_of(scenario)
        self.kafka = KafkaCluster(
            world.clock,
            world.network,
            world.randomness,
            world.recorder,
            KafkaConfig(brokers=self.layout.brokers),
        )
        self.cassandra = CassandraCluster(
            world.clock, world.network, world.randomness, world.recorder, nodes=scenario.replicas
        )
        self.gateways: dict[str, GatewayHost] = {}
        """The gateway hosts by name: where clients send their requests."""
        self.clients: Clients | None = None
        """Those who use the exchange, once the work has begun."""
        self._mains: dict[str, Callable[[Incarnation], Coroutine[Any, Any, object]]] = {
            GATEWAY: self._run_gateway,
            UBSCORE: self._run_ubscore,
            MATCHING: self._run_matching,
            SETTLEMENT: self._run_settlement,
        }
        self._ownership = OwnershipSettings(snapshot_interval_outputs=scenario.snapshot_interval_outputs)
        self._holds: Counter[str] = Counter()
        self._is_stopping = False
        self.hosts: dict[str, Host] = {}
        """The hosts that should be up, spare ones that have joined included."""
        self._spares: dict[str, Host] = {}
        self._joins: Counter[str] = Counter()
        for service, names in self.layout.services.items():
            for name in names:
                host = self.hosts[name] = world.host(name, service)
                if service == GATEWAY:
                    self.gateways[name] = GatewayHost(host)
                host.on_exit = self._exited

    # -- phases of a run

    def create(self, replication_factor: int = 3) -> None:
        """Create topics and tables, by the migrations that production uses, before anything starts."""
        for topic, partitions in self.topology.partitions().items():
            self.kafka.create_topic(topic, partitions)
        operator = self.world.host("operator", "operator")

        async def migrate(incarnation: Incarnation) -> None:
            steps = self._schema_steps(incarnation, None)
            await steps.create_keyspace(replication_factor, tables.KEYSPACE)
            await self._schema_steps(incarnation, tables.KEYSPACE).create_or_verify()

        operator.start(migrate)
        if self.world.run_while(lambda: operator.is_up, self.clock.now + 60_000 * MILLISECOND_NS):
            raise RuntimeError("the schema could not be created within a minute of simulated time")

    def start(self) -> None:
        """Start every instance."""
        for host in self.hosts.values():
            host.start(self._mains[host.service])

    def heal(self) -> None:
        """Take every fault back and have every host up, with right clocks: the beginning of the second phase."""
        self.network.heal_all()
        self.kafka.faults.heal()
        self.cassandra.heal()
        self._holds.clear()
        for host in self.hosts.values():
            host.wall.synchronise()
            host.resume()
            self._start_when_down(host)

    def stop(self) -> None:
        """Send SIGTERM to every instance; the supervisor starts none again."""
        self._is_stopping = True
        for host in self.hosts.values():
            host.stop()

    @property
    def is_down(self) -> bool:
        """Whether no instance lives any more."""
        return not any(host.is_up for host in (*self.hosts.values(), *self._spares.values()))

    # -- what faults need

    def take_down(self, name: str, how: Callable[[], None]) -> None:
        """Take a host down by `how` (its crash or stop) and hold it down until `bring_up` was called as often."""
        self._holds[name] += 1
        how()

    def bring_up(self, name: str) -> None:
        """Take one hold of a host back; it starts once none is left."""
        if self._holds[name] > 0:
            self._holds[name] -= 1
        self._start_when_down(self.hosts[name])

    def join(self, service: str) -> None:
        """Start a spare instance of a service, beside all others, until `leave` was called as often."""
        name = f"{service}-{len(self.layout.services[service]) + 1}"
        self._joins[name] += 1
        host = self.hosts[name] = self._spares[name] = self.world.host(name, service)
        host.on_exit = self._exited
        self._start_when_down(host)

    def leave(self, service: str) -> None:
        """Have the spare instance of a service stop by SIGTERM, once nothing else wants it to be there."""
        name = f"{service}-{len(self.layout.services[service]) + 1}"
        self._joins[name] -= 1
        if not self._joins[name]:
            self.hosts.pop(name).stop()

    def outsider(self, name: str) -> Host:
        """A host that is no part of the exchange, and is down: the first of `name`-1, `name`-2 and so on."""
        number = 1
        while self.world.host(f"{name}-{number}", name).is_up:
            number += 1
        return self.world.host(f"{name}-{number}", name)

    def broker_id(self, name: str) -> int:
        """The node id of a broker by its name on the network."""
        return 1 + self.layout.brokers.index(name)

    def partition_of(self, topic: str, number: int) -> int:
        """A partition of the topic: `number` modulo how many there are."""
        return number % self.kafka.topics[topic]

    def transactional_ids(self, service: str) -> tuple[str, ...]:
        """The transactional ids of a service, one a partition; none for a service without transactions."""
        counts = {UBSCORE: self.topology.user_partitions, MATCHING: self.topology.symbol_partitions}
        return tuple(f"{service}-{number}" for number in range(counts.get(service, 0)))

    @property
    def all_transactional_ids(self) -> tuple[str, ...]:
        """The transactional ids of all services."""
        return self.transactional_ids(UBSCORE) + self.transactional_ids(MATCHING)

    # -- the supervisor

    def _exited(self, incarnation: Incarnation, _error: BaseException | None) -> None:
        if incarnation.name in self.gateways:
            self.gateways[incarnation.name].front = None
        self.clock.after(RESTART_DELAY_NS, self._start_when_down, incarnation.host)

    def _start_when_down(self, host: Host) -> None:
        if self._is_stopping or self._holds[host.name] or host.name not in self.hosts:
            return
        if not host.is_up:
            if host.name in self.gateways:
                self.gateways[host.name].front = None
            host.start(self._mains[host.service])
        # A host that is still ending its last batch after SIGTERM is started by `_exited`.

    # -- what the hosts run

    async def _run_gateway(self, incarnation: Incarnation) -> None:
        host = incarnation.host
        store = await self._store(incarnation)
        gateway = Gateway(
            name=host.name,
            topology=self.topology,
            kafka=SimKafkaClients(self.kafka, incarnation),
            queries=store.queries,
            clock=host.wall,
            log=self.world.log(incarnation),
        )
        incarnation.loop.add_signal_handler(signal.SIGTERM, gateway.request_stop)
        await gateway.start()
        self.gateways[host.name].front = GatewayFront(gateway, self.topology)
        incarnation.ready()
        await gateway.run()

    async def _run_ubscore(self, incarnation: Incarnation) -> None:
        await self._own_partitions(incarnation, ubscore_duty(self.topology))

    async def _run_matching(self, incarnation: Incarnation) -> None:
        await self._own_partitions(incarnation, matching_duty(self.topology))

    async def _run_settlement(self, incarnation: Incarnation) -> None:
        service = SettlementService(
            topology=self.topology,
            kafka=SimKafkaClients(self.kafka, incarnation),
            store=await self._store(incarnation),
            clock=incarnation.host.wall,
            log=self.world.log(incarnation),
            randomness=self._jitter(incarnation),
        )
        incarnation.loop.add_signal_handler(signal.SIGTERM, service.request_stop)
        await service.run()

    async def _own_partitions(self, incarnation: Incarnation, duty: Duty) -> None:
        service = OwnershipService(
            duty,
            kafka=SimKafkaClients(self.kafka, incarnation),
            disk=incarnation.host.disk,
            clock=incarnation.host.wall,
            randomness=self._jitter(incarnation),
            log=self.world.log(incarnation),
            settings=self._ownership,
        )
        incarnation.loop.add_signal_handler(signal.SIGTERM, service.request_stop)
        await service.run()

    async def _store(self, incarnation: Incarnation) -> Store:
        session = self.cassandra.session(incarnation, tables.KEYSPACE)
        session.row_factory = tuple_factory
        store = Store(
            session,
            clock=incarnation.host.wall,
            randomness=self._jitter(incarnation),
            log=self.world.log(incarnation),
            symbol_ids=self.topology.symbols.symbols,
        )
        await store.open()
        return store

    def _schema_steps(self, incarnation: Incarnation, keyspace: str | None) -> SchemaSteps:
        session = self.cassandra.session(incarnation, keyspace)
        session.row_factory = tuple_factory
        return SchemaSteps(CqlAdapter(session), self._jitter(incarnation), self.world.log(incarnation), Backoff())

    def _jitter(self, incarnation: Incarnation) -> Stream:
        return self.randomness.stream(f"jitter/{incarnation.name}/{incarnation.number}")
