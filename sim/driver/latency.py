"""From a request to its answer, and to its row: measured beside the recording, from what the clients do and are told.

The answer is what the gateway gives a client: the balance core's word and the engine's verdict. The row is looked for
from the answer on, at short intervals, by the query that clients use; so its latency is what a client sees who was
answered and asks, and never less than the answer's.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from schema.codes import Verdict
from schema.identifiers import OrderId, UserId
from settlement.queries import Queries
from sim.clock import NS_PER_MS, NS_PER_SECOND
from sim.driver.real_time import RealTimeClock
from sim.flows.operations import CANCEL, PLACE, REDUCE, REPLACE

PROBED_EVERY: Final = 10
"""Of so many placed orders the row of one is looked for: each look is a read at LOCAL_QUORUM more."""
LOOK_EVERY_S: Final = 0.002
GIVE_UP_S: Final = 60.0

_COMMANDS: Final = frozenset((PLACE, CANCEL, REDUCE, REPLACE))
_ANSWERED: Final = frozenset(("accepted", "rejected"))
_PLACED: Final = int(Verdict.PLACED)


@dataclass(frozen=True)
class Latency:
    """Durations of one kind, in nanoseconds, ascending."""

    durations_ns: Sequence[int]

    def percentile_ms(self, percent: int) -> float:
        """The smallest duration that at least so many percent do not exceed; 0 when there is none."""
        if not self.durations_ns:
            return 0.0
        rank = -(-len(self.durations_ns) * percent // 100)
        return round(self.durations_ns[max(0, rank - 1)] / NS_PER_MS, 3)

    def as_dict(self) -> dict[str, float | int]:
        """For `--json`."""
        return {
            "count": len(self.durations_ns),
            "median_ms": self.percentile_ms(50),
            "p99_ms": self.percentile_ms(99),
            "max_ms": self.percentile_ms(100),
        }


class LatencyMeter:
    """A recorder that listens to what it hands on to the real one. Order commands count; deposits and reads do not."""

    def __init__(self, recorder: Any, clock: RealTimeClock, queries: Queries) -> None:
        self._recorder = recorder
        self._clock = clock
        self._queries = queries
        self._sent: dict[tuple[int, str], int] = {}
        self._placed = 0
        self._answers_ns: list[int] = []
        self._rows_ns: list[int] = []
        self._probes: set[asyncio.Task[None]] = set()
        self.first_sent_t = -1
        self.last_answered_t = -1
        self.rows_not_seen = 0

    def emitter(self, kind: str) -> Callable[..., object]:
        """As the recorder's."""
        emit: Callable[..., object] = self._recorder.emitter(kind)
        if kind == "client_requests":

            def request(
                t: int, host: str, user_id: int, request_id: str, attempt: int, command: str, *rest: Any
            ) -> None:
                emit(t, host, user_id, request_id, attempt, command, *rest)
                if command in _COMMANDS and attempt == 1:
                    self._sent[user_id, request_id] = t
                    if self.first_sent_t < 0:
                        self.first_sent_t = t

            return request
        if kind == "client_answers":

            def answer(t: int, host: str, user_id: int, request_id: str, *rest: Any) -> None:
                emit(t, host, user_id, request_id, *rest)
                _attempt, command, outcome, _reason, verdict, _verdict_reason, order_id, _message = rest
                if outcome in _ANSWERED:
                    self._answered(t, user_id, request_id, command, verdict, order_id)

            return answer
        return emit

    async def finish(self) -> tuple[Latency, Latency]:
        """From request to answer, and from request to row, once the last row was found or given up on."""
        if self._probes:
            await asyncio.wait(self._probes)
        return Latency(sorted(self._answers_ns)), Latency(sorted(self._rows_ns))

    def _answered(self, t: int, user_id: int, request_id: str, command: str, verdict: int, order_id: int) -> None:
        sent_t = self._sent.pop((user_id, request_id), None)
        if sent_t is None:
            return
        self.last_answered_t = t
        self._answers_ns.append(t - sent_t)
        if command == PLACE and verdict == _PLACED:
            self._placed += 1
            if self._placed % PROBED_EVERY == 1:
                probe = asyncio.get_running_loop().create_task(self._look(user_id, order_id, sent_t))
                self._probes.add(probe)
                probe.add_done_callback(self._probes.discard)

    async def _look(self, user_id: int, order_id: int, sent_t: int) -> None:
        while self._clock.now - sent_t < GIVE_UP_S * NS_PER_SECOND:
            try:
                row = await self._queries.get_order(UserId(user_id), OrderId(order_id))
            except Exception:  # whatever the database says, it is asked again until the time is over
                row = None
            if row is not None:
                self._rows_ns.append(self._clock.now - sent_t)
                return
            await asyncio.sleep(LOOK_EVERY_S)
        self.rows_not_seen += 1
