"""Order ids that are given out once, whatever restarts and whatever the clocks say (design section 4.7).

    order_id = (session + 1) << 32 | counter            counter = 1, 2, 3, ...

A gateway that starts produces one record to the topic gateway.sessions, with acks from all in-sync replicas, and
takes its offset as its session number. The broker that leads the partition gives offsets out, and the offset of a
committed record is never given to another: so no two sessions, of one gateway or of many, share a number, and within
a session the counter goes up only. Nothing is kept on disk, and no clock is asked: clocks jump, and two gateways may
have the same time. An acknowledgement that does not say the offset (aiokafka gives -1 when the broker remembers the
batch only as a duplicate) opens no session; another record is produced.

The first id is 2^32 + 1, so 0 stays free for "no order". There is room for 2^31 - 1 sessions of 2^32 - 1 orders each.
"""

from typing import Final

from schema.events import GatewaySession
from schema.identifiers import OrderId
from schema.ports import KafkaProducer
from schema.topics import GATEWAY_SESSIONS
from schema.wire import encode

COUNTER_BITS: Final = 32
_SESSION_MAX: Final = 2**31 - 2
_COUNTER_MAX: Final = 2**COUNTER_BITS - 1


class OrderIdsExhausted(Exception):
    """A session has no id left; the gateway must open another one."""


class OrderIds:
    """The ids of one session. Raises ValueError for a number that is no session."""

    def __init__(self, session: int) -> None:
        if not 0 <= session <= _SESSION_MAX:
            raise ValueError(f"a session number is 0 to {_SESSION_MAX}, not {session}")
        self.session = session
        self._base = (session + 1) << COUNTER_BITS
        self._counter = 0

    def next(self) -> OrderId:
        """An id that was never given before. Raises OrderIdsExhausted."""
        if self._counter >= _COUNTER_MAX:
            raise OrderIdsExhausted(f"session {self.session} has given out all its order ids")
        self._counter += 1
        return OrderId(self._base | self._counter)


async def open_session(producer: KafkaProducer, gateway: str, now_ns: int) -> OrderIds:
    """Open a session; `producer` must wait for all in-sync replicas. Raises KafkaError."""
    value = encode(GatewaySession(gateway, now_ns))
    while True:
        placed = await producer.send_and_wait(GATEWAY_SESSIONS, value, partition=0)
        if placed.offset >= 0:
            return OrderIds(placed.offset)
