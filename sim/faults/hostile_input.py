"""An attack: requests that no gateway may take, and records in order.requests that are no requests.

The first come from users of the exchange. The second come from a host that has got hold of the brokers' address, and
writes with an ordinary producer: what a client library of another version, or another team's program, may do.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from aiokafka.errors import KafkaError

from schema import wire
from schema.events import Deposit, FundUpdate
from schema.identifiers import AssetId, OrderId, UserId
from schema.topics import MAX_RECORD_BYTES, ORDER_REQUESTS
from sim.clients import Clients
from sim.deployment import Deployment
from sim.flows.hostile import hostile_request
from sim.hosts import Incarnation
from sim.kafka.clients import SimKafkaClients
from sim.randomness import Stream
from sim.scenario import SECOND_NS
from sim.script import Strike

ATTACKER: Final = "attacker"


class Attack:
    """Begins at once and goes on until `end`; all of it is drawn from a stream of the strike's own."""

    def __init__(self, world: Deployment, clients: Clients, strike: Strike) -> None:
        self._world = world
        self._clients = clients
        self._stream = world.randomness.stream(f"faults/hostile-input/{strike.at_ns}")
        self._every_ns = SECOND_NS // max(1, strike.strength)
        self._symbols = tuple(world.topology.symbols)
        self._has_ended = False
        self._host = world.outsider(ATTACKER)
        self._host.start(self._write_past_the_gateways)
        self._send()

    def end(self) -> None:
        """Send nothing more."""
        self._has_ended = True
        self._host.stop()

    def _send(self) -> None:
        """One hostile request at a gateway, in the name of a user."""
        if self._has_ended:
            return
        stream = self._stream
        user_id = stream.choice(self._clients.users_at_work or (1,))
        raw = hostile_request(stream, stream.choice(self._symbols), user_id, f"hostile-{stream.bits(40)}")
        self._clients.send_hostile(user_id, raw, stream.bits(8))
        self._world.clock.after(self._every_ns, self._send)

    async def _write_past_the_gateways(self, incarnation: Incarnation) -> None:
        stream = self._world.randomness.stream(f"faults/hostile-input/{incarnation.name}/{incarnation.number}")
        partitions = self._world.topology.user_partitions
        producer = SimKafkaClients(self._world.kafka, incarnation).producer(
            acks="all", max_request_size=MAX_RECORD_BYTES, request_timeout_ms=5_000
        )
        await producer.start()
        while True:
            value = stream.choice(UNDECODABLE)(stream)
            with suppress(KafkaError):  # brokers may be in trouble at the same time: an attacker does not mind
                await producer.send_and_wait(ORDER_REQUESTS, value, partition=stream.below(partitions))
            await asyncio.sleep(self._every_ns / SECOND_NS)


def _noise(stream: Stream) -> bytes:
    return stream.token(1 + stream.below(300))


def _nothing(_stream: Stream) -> bytes:
    return b""


def _text(_stream: Stream) -> bytes:
    return b'{"type": "place", "user_id": 1}'


def _cut_short(stream: Stream) -> bytes:
    """The beginning of a request that somebody might have meant."""
    whole = wire.encode(Deposit("attack", UserId(1), 1 + stream.bits(40), AssetId(1), 1 + stream.bits(30)))
    return whole[: stream.below(len(whole))]


def _another_kind(stream: Stream) -> bytes:
    """A record as it stands in another topic."""
    return wire.encode(FundUpdate(0, 1 + stream.bits(30), 1, 0, UserId(1), "", 0, 0, OrderId(0), ()))


UNDECODABLE: Final[tuple[Callable[[Stream], bytes], ...]] = (_noise, _nothing, _text, _cut_short, _another_kind)
"""All the ways in which a record can be no request."""
