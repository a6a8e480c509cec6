"""The clients of the exchange, as actors in the simulated world (design 4.7 and 8).

A client sends what its flow tells it to, over the network, to a gateway, and waits for the answer. When none comes in
time, or the answer says that the outcome is unknown, it asks again at the next gateway with the same request id, until
it knows: that a request is in the system at most once, and that it is never lost, is what the exchange promises for it.
Reads are asked once.

Clients are plain callbacks of the clock; only what happens inside a gateway is a task, of that gateway's loop. Users
share a few client machines, which are the nodes on the network.

A client follows three rules of its own:
- a user's first deposits are answered before anything else of that user is sent;
- a request about an order waits until the order's own request was answered, and is dropped when there is no such order;
- once the clients are stopped, nothing begins that was not due yet; what was due is still sent, and asked for until it
  is answered.

Faults can make clients behave worse for a while: ask everything twice, cancel whatever they place, do all at once, or
send what no gateway may take. What the flow says stays what it is.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from schema.topics import Topology
from settlement.queries import OrderRow
from sim.clock import NS_PER_MS, NS_PER_SECOND, Clock
from sim.flows.operations import CANCEL, DEPOSIT, NOT_REPEATED, PLACE, RAW, READ, REPLACE, Operation
from sim.hosts import Incarnation, describe
from sim.log import Recorder
from sim.network import Network
from sim.randomness import Randomness, Stream


@dataclass(frozen=True)
class ClientOptions:
    """How patient the clients are.

    `answer_timeout_ns` is longer than a gateway takes to say "unknown", so that a client that hears nothing has lost
    its answer, its request, or its gateway. The wait before asking again doubles from `backoff_ns_min` to
    `backoff_ns_max`, and is shortened by up to half, at random. `machines` are the nodes that the users share.
    """

    answer_timeout_ns: int = 10 * NS_PER_SECOND
    backoff_ns_min: int = 20 * NS_PER_MS
    backoff_ns_max: int = 2 * NS_PER_SECOND
    machines: int = 4


class Answer(Protocol):
    """What a client is told: `gateway.core.ClientAnswer`."""

    @property
    def outcome(self) -> str:
        """accepted, rejected, invalid, or unknown."""

    @property
    def reason(self) -> int: ...
    @property
    def verdict(self) -> int: ...
    @property
    def verdict_reason(self) -> int: ...
    @property
    def order_id(self) -> int: ...
    @property
    def message(self) -> str: ...


class Front(Protocol):
    """The face that a gateway turns to the network: takes a request as the client writes it, and gives the answer.

    Both run on the gateway's loop. `order_id` is the order that the operation is about, 0 for none. `submit` calls
    `told` with the answer, at once or later. `read` gives the rows of the answer, and raises what the query raises.
    """

    def submit(self, operation: Operation, order_id: int, told: Callable[[Answer], object]) -> None: ...
    async def read(self, operation: Operation, order_id: int) -> Sequence[object]: ...


class GatewayAccess(Protocol):
    """Where a gateway is reached: its host's name on the network, and what runs there now."""

    @property
    def name(self) -> str: ...
    @property
    def incarnation(self) -> Incarnation | None:
        """The host's life now; None, or a dead one, when it is down."""

    @property
    def front(self) -> Front | None:
        """What serves in that life; None while it is down or not ready."""


# What `Clients.counts` counts.
REQUESTS: Final = "requests"
READS: Final = "reads"
ATTEMPTS: Final = "attempts"
REPEATS: Final = "repeats"
RACING_CANCELS: Final = "cancels of orders just placed, by a fault"
HELD_BACK: Final = "held back to be done at once, by a fault"
HOSTILE: Final = "hostile requests, by a fault"
TIMEOUTS: Final = "timeouts"
REFUSED_CONNECTIONS: Final = "refused connections"
DROPPED_NO_ORDER: Final = "dropped: about an order that was never placed"
DROPPED_STOPPED: Final = "dropped: not due when the clients were stopped"

LAST_READ_EVERY_NS: Final = 500_000
"""The reads at the end of a run are spread out, so that many users do not overload the store at one instant."""

_UNKNOWN: Final = "unknown"
_ANSWERED: Final = ("accepted", "rejected", "invalid")

_NOT_YET: Final = -1


class _Named:
    """What clients know of the request of one id: the order that it placed, and who waits to hear of it.

    `order_id` is _NOT_YET until the answer has come, then 0 when it placed none. `attempts` counts submissions.
    """

    __slots__ = ("attempts", "order_id", "waiting")

    def __init__(self) -> None:
        self.order_id = _NOT_YET
        self.attempts = 0
        self.waiting: list[Operation] | None = None


class _Call:
    """A request under way, from its first submission until its last one has ended."""

    __slots__ = ("asked", "is_done", "machine", "named", "open_attempts", "operation", "order_id", "symbol_id")

    def __init__(self, operation: Operation, named: _Named, order_id: int, symbol_id: int, machine: str) -> None:
        self.operation = operation
        self.named = named
        self.order_id = order_id
        self.symbol_id = symbol_id
        self.machine = machine
        self.asked = 0
        self.open_attempts = 0
        self.is_done = False


class _Attempt:
    """One submission of a call, at one gateway."""

    __slots__ = ("access", "call", "deadline_ns", "is_open", "number")

    def __init__(self, call: _Call, number: int, access: GatewayAccess, deadline_ns: int) -> None:
        self.call = call
        self.number = number
        self.access = access
        self.deadline_ns = deadline_ns
        self.is_open = True


class _Opening:
    """A user whose first deposits are not all answered, and what they want to do after that."""

    __slots__ = ("deposits", "held")

    def __init__(self) -> None:
        self.deposits = 0
        self.held: list[Operation] = []


class Clients:
    """All clients of a run.

    Time 0 of the operations is when `start` is called. `counts` tells what was done and what was dropped, and why.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        network: Network,
        randomness: Randomness,
        recorder: Recorder,
        topology: Topology,
        gateways: Sequence[GatewayAccess],
        operations: Iterable[Operation],
        options: ClientOptions | None = None,
    ) -> None:
        if not gateways:
            raise ValueError("clients need at least one gateway")
        self.counts: Counter[str] = Counter()
        self.options = options or ClientOptions()
        self._clock = clock
        self._network = network
        self._backoff: Stream = randomness.stream("clients/backoff")
        self._gateways = tuple(gateways)
        self._symbol_ids = {symbol.name: int(symbol.symbol_id) for symbol in topology.symbols}
        self._asset_ids = {asset.name: int(asset.asset_id) for asset in topology.symbols.assets.values()}
        self._machines = tuple(f"client-{number}" for number in range(1, self.options.machines + 1))
        self._operations: Iterator[Operation] = iter(operations)
        self._next: Operation | None = None
        self._started_ns = 0
        self._is_exhausted = False
        self._is_stopped = False
        self._has_given_up = False
        self._named: dict[int, dict[str, _Named]] = {}
        self._openings: dict[int, _Opening] = {}
        self._at_work: dict[int, None] = {}
        # Time-outs are all equally long, so their deadlines are in order: one timer for the first of them is enough.
        self._deadlines: deque[_Attempt] = deque()
        self._has_deadline_timer = False
        self._open_calls = 0
        self._open_attempts = 0
        self._waiting = 0
        self._planned = 0
        self._read_ids = 0
        self._learned: deque[_Named] = deque()
        # What faults make of the clients; each is empty or 0 while none does.
        self._storms: list[int] = []
        self._races: list[int] = []
        self._holding_back = 0
        self._held_back: list[Operation] = []
        self._intrusions = 0
        self._record_request = recorder.emitter("client_requests")
        self._record_answer = recorder.emitter("client_answers")
        self._record_read = recorder.emitter("reads")
        self._record_read_row = recorder.emitter("read_rows")

    # -- for the run

    def start(self) -> None:
        """Begin the flow now."""
        self._started_ns = self._clock._now
        self._next = next(self._operations, None)
        self._pump()

    def stop_new_work(self) -> None:
        """Begin nothing new any more: what is not due yet is dropped.

        What was due and waits for another answer is still sent when that comes, so that orders are cancelled as their
        users meant to, however late.
        """
        if self._is_stopped:
            return
        self._is_stopped = True
        if self._next is not None:
            self.counts[DROPPED_STOPPED] += 1 + sum(1 for _ in self._operations)
            self._next = None

    def give_up(self) -> None:
        """Ask nothing again any more: what has no answer yet is left without one.

        For the end of a run that did not settle, whose services will not come back.
        """
        self._has_given_up = True

    def read_everything(self) -> None:
        """Have every user look at all their live orders and at their balances, once; also when stopped.

        For the end of a run, when what they see must be exactly what there is. Wait until `is_quiet` afterwards.
        """
        users = sorted(self._at_work.keys() | self._openings.keys())
        reads = ((user_id, query) for user_id in users for query in ("active_orders", "balances"))
        for number, (user_id, query) in enumerate(reads):
            self._planned += 1
            read = Operation(0, user_id, READ, f"last-{query}", query=query, gateway=user_id)
            self._clock.after(number * LAST_READ_EVERY_NS, self._read_at_last, read)

    def is_quiet(self) -> bool:
        """Whether there is nothing left to send and every call has ended."""
        return (
            (self._is_exhausted or self._is_stopped)
            and not self._open_calls
            and not self._open_attempts
            and not self._waiting
            and not self._planned
        )

    def in_flight(self) -> int:
        """How many requests have been sent and not been answered."""
        return self._open_calls

    # -- for faults

    def repeat_everything(self, after_ns: int) -> Callable[[], None]:
        """From now until the call that is returned, send every request once more so much later, at another gateway."""
        self._storms.append(after_ns)
        return partial(self._storms.remove, after_ns)

    def cancel_everything(self, after_ns: int) -> Callable[[], None]:
        """From now until the call that is returned, cancel every order so long after it was sent.

        As soon as the client knows its id: an order that has none yet cannot be cancelled.
        """
        self._races.append(after_ns)
        return partial(self._races.remove, after_ns)

    def hold_back(self) -> Callable[[], None]:
        """Keep what is due from now on, and do all of it at once, in its order, at the call that is returned."""
        self._holding_back += 1
        return self._let_go

    def send_hostile(self, user_id: int, raw: str, gateway: int) -> None:
        """Send a text that no gateway may take, as that user, at that gateway (counted from 0, wrapped around)."""
        self.counts[HOSTILE] += 1
        self._open(Operation(0, user_id, RAW, self._request_id("hostile"), raw=raw, gateway=gateway), 0)

    @property
    def users_at_work(self) -> tuple[int, ...]:
        """The users whose first deposits are answered, in the order in which they came."""
        return tuple(self._at_work)

    def _let_go(self) -> None:
        self._holding_back -= 1
        if not self._holding_back:
            held, self._held_back = self._held_back, []
            for operation in held:
                self._waiting -= 1
                self._take(operation)

    def _request_id(self, what: str) -> str:
        """A request id that no flow uses."""
        self._intrusions += 1
        return f"fault-{what}-{self._intrusions}"

    def _race(self, placed: Operation) -> None:
        """Cancel an order that was sent a while ago, at the other gateway."""
        self._planned -= 1
        if self._is_stopped:
            return
        self.counts[RACING_CANCELS] += 1
        self._send_when_ready(
            Operation(
                0,
                placed.user_id,
                CANCEL,
                self._request_id("cancel"),
                symbol=placed.symbol,
                reference=placed.request_id,
                gateway=placed.gateway + 1,
            )
        )

    # -- from the flow to the first submission

    def _pump(self) -> None:
        """Take from the flow what is due, and come back for the next."""
        clock = self._clock
        started_ns = self._started_ns
        while not self._is_stopped:
            operation = self._next
            if operation is None:
                self._is_exhausted = True
                return
            due_ns = started_ns + operation.at_ns
            if due_ns > clock._now:
                clock.post(due_ns, self._pump, ())
                return
            self._next = next(self._operations, None)
            if self._holding_back:
                self.counts[HELD_BACK] += 1
                self._held_back.append(operation)
                self._waiting += 1
            else:
                self._take(operation)

    def _take(self, operation: Operation) -> None:
        """An operation is due: send it, or have it wait for the user's first deposits."""
        user_id = operation.user_id
        if operation.kind in (PLACE, REPLACE):
            # Known from now on, so that what refers to it waits instead of being dropped.
            self._named.setdefault(user_id, {}).setdefault(operation.request_id, _Named())
        opening = self._openings.get(user_id)
        if operation.kind == DEPOSIT:
            if opening is None and user_id not in self._at_work:
                opening = self._openings[user_id] = _Opening()
            if opening is not None:
                opening.deposits += 1
            self._send_when_ready(operation)
        elif opening is not None:
            opening.held.append(operation)
            self._waiting += 1
        else:
            self._at_work[user_id] = None
            self._send_when_ready(operation)

    def _deposited(self, user_id: int) -> None:
        """One more of a user's first deposits was answered."""
        opening = self._openings.get(user_id)
        if opening is None:
            return
        opening.deposits -= 1
        if opening.deposits:
            return
        del self._openings[user_id]
        self._at_work[user_id] = None
        for operation in opening.held:
            self._waiting -= 1
            self._send_when_ready(operation)

    def _send_when_ready(self, operation: Operation) -> None:
        """Send an operation, unless its order's own request has no answer yet, or the order does not exist."""
        order_id = 0
        if operation.reference:
            owner = operation.reference_user_id or operation.user_id
            named = self._named.get(owner, {}).get(operation.reference)
            if named is not None and named.order_id == _NOT_YET and not self._is_first_use(operation, named):
                if named.waiting is None:
                    named.waiting = []
                named.waiting.append(operation)
                self._waiting += 1
                return
            order_id = named.order_id if named is not None else 0
            if operation.kind == PLACE:
                order_id = 0
            elif order_id <= 0:
                self._drop(operation)
                return
        self._open(operation, order_id)

    def _is_first_use(self, operation: Operation, named: _Named) -> bool:
        """Whether a place refers to its own id and nothing was sent under it: there is nothing to wait for then."""
        return operation.kind == PLACE and operation.reference == operation.request_id and named.attempts == 0

    def _drop(self, operation: Operation) -> None:
        self.counts[DROPPED_NO_ORDER] += 1
        named = self._named.get(operation.user_id, {}).get(operation.request_id)
        if operation.kind == REPLACE and named is not None and named.order_id == _NOT_YET:
            self._learn(named, 0)

    def _learn(self, named: _Named, order_id: int) -> None:
        """It is known now which order a request placed (0: none); what waited for that goes on."""
        named.order_id = order_id
        if named.waiting is None:
            return
        self._learned.append(named)
        if len(self._learned) > 1:
            return  # a dropped replace, inside the loop below: chains of them must not become deep recursion
        while self._learned:
            waiting, self._learned[0].waiting = self._learned[0].waiting, None
            for operation in waiting or ():
                self._waiting -= 1
                self._send_when_ready(operation)
            self._learned.popleft()

    def _open(self, operation: Operation, order_id: int) -> None:
        named = self._named.get(operation.user_id, {}).get(operation.request_id) or _Named()
        machine = self._machines[operation.user_id % len(self._machines)]
        call = _Call(operation, named, order_id, self._symbol_ids.get(operation.symbol, 0), machine)
        self._open_calls += 1
        self.counts[READS if operation.kind == READ else REQUESTS] += 1
        self._submit(call)
        if operation.repeat_after_ns != NOT_REPEATED:
            self._planned += 1
            self._clock.after(operation.repeat_after_ns, self._repeat, call)
        if self._storms and operation.kind != READ:
            for after_ns in self._storms:
                self._planned += 1
                self._clock.after(after_ns, self._repeat, call)
        if self._races and operation.kind in (PLACE, REPLACE):
            for after_ns in self._races:
                self._planned += 1
                self._clock.after(after_ns, self._race, operation)

    def _repeat(self, call: _Call) -> None:
        """Send the request once more because the flow or a fault says so, answered or not."""
        self._planned -= 1
        if not self._is_stopped:
            self.counts[REPEATS] += 1
            self._submit(call)

    def _read_at_last(self, read: Operation) -> None:
        self._planned -= 1
        self._open(read, 0)

    # -- a submission and its end

    def _submit(self, call: _Call) -> None:
        operation = call.operation
        access = self._gateways[(operation.gateway + call.asked) % len(self._gateways)]
        call.asked += 1
        call.named.attempts += 1
        call.open_attempts += 1
        self._open_attempts += 1
        self.counts[ATTEMPTS] += 1
        now = self._clock._now
        attempt = _Attempt(call, call.named.attempts, access, now + self.options.answer_timeout_ns)
        if operation.kind != READ:
            self._record_request(
                now,
                access.name,
                operation.user_id,
                operation.request_id,
                attempt.number,
                operation.kind,
                call.symbol_id,
                call.order_id,
                operation.side,
                operation.order_type,
                operation.time_in_force,
                operation.price,
                operation.quantity,
                operation.max_spend,
                self._asset_ids.get(operation.asset, 0),
                operation.amount,
            )
        self._deadlines.append(attempt)
        if not self._has_deadline_timer:
            self._has_deadline_timer = True
            self._clock.at(attempt.deadline_ns, self._look_at_deadlines)
        self._network.send(call.machine, access.name, self._arrive, attempt)

    def _look_at_deadlines(self) -> None:
        """Give up on attempts whose time is over."""
        deadlines = self._deadlines
        now = self._clock._now
        while deadlines:
            attempt = deadlines[0]
            if attempt.is_open and attempt.deadline_ns > now:
                self._clock.at(attempt.deadline_ns, self._look_at_deadlines)
                return
            deadlines.popleft()
            if attempt.is_open:
                self.counts[TIMEOUTS] += 1
                self._record_unknown(attempt, "no answer in time")
                self._unanswered(attempt)
        self._has_deadline_timer = False

    def _record_unknown(self, attempt: _Attempt, message: str) -> None:
        operation = attempt.call.operation
        if operation.kind == READ:
            return
        self._record_answer(
            self._clock._now,
            attempt.access.name,
            operation.user_id,
            operation.request_id,
            attempt.number,
            operation.kind,
            _UNKNOWN,
            0,
            0,
            0,
            0,
            message,
        )

    def _close(self, attempt: _Attempt) -> None:
        if attempt.is_open:
            attempt.is_open = False
            attempt.call.open_attempts -= 1
            self._open_attempts -= 1

    def _unanswered(self, attempt: _Attempt) -> None:
        """An attempt brought nothing. Ask again, unless another is still under way, or it was only a read."""
        self._close(attempt)
        call = attempt.call
        if call.is_done or call.open_attempts:
            return
        if call.operation.kind == READ:
            self._finish(call, 0)
            return
        wait_ns = min(self.options.backoff_ns_max, self.options.backoff_ns_min << min(call.asked - 1, 20))
        self._clock.after(wait_ns - self._backoff.below(wait_ns // 2 + 1), self._ask_again, call)

    def _ask_again(self, call: _Call) -> None:
        # A repeat, or an answer that was given up on, may have come in the meantime.
        if not call.is_done and not call.open_attempts and not self._has_given_up:
            self._submit(call)

    def _finish(self, call: _Call, order_id: int) -> None:
        """The outcome of a call is known."""
        call.is_done = True
        self._open_calls -= 1
        if call.named.order_id == _NOT_YET:
            self._learn(call.named, order_id)
        if call.operation.kind == DEPOSIT:
            self._deposited(call.operation.user_id)

    # -- at the gateway's host

    def _arrive(self, attempt: _Attempt) -> None:
        """The request has arrived at the gateway's host."""
        access = attempt.access
        incarnation = access.incarnation
        front = access.front
        if incarnation is None or not incarnation.alive or front is None:
            self._network.send(access.name, attempt.call.machine, self._refused, attempt)
            return
        call = attempt.call
        operation = call.operation
        if operation.kind == READ:
            incarnation.enter(self._begin_read, incarnation, front, attempt)
        else:
            # What the gateway's front end does with a request: hand it in, and send back what comes out.
            told = partial(self._send_answer, incarnation, attempt)
            incarnation.loop.enter_service(front.submit, operation, call.order_id, told)

    def _send_answer(self, incarnation: Incarnation, attempt: _Attempt, answer: Answer) -> None:
        if incarnation.alive:
            self._network.send(attempt.access.name, attempt.call.machine, self._answered, attempt, answer)

    def _begin_read(self, incarnation: Incarnation, front: Front, attempt: _Attempt) -> None:
        incarnation.loop.create_task(self._serve_read(incarnation, front, attempt))

    async def _serve_read(self, incarnation: Incarnation, front: Front, attempt: _Attempt) -> None:
        call = attempt.call
        operation = call.operation
        asked_ns = self._clock._now
        outcome = "ok"
        rows: Sequence[object] = ()
        try:
            rows = await front.read(operation, call.order_id)
        except Exception as error:
            # Whatever a read raises is its outcome; a trace that shows it is judged.
            outcome = describe(error)
        if not incarnation.alive:
            return
        self._record_rows(attempt, asked_ns, outcome, rows)
        self._network.send(attempt.access.name, call.machine, self._read_answered, attempt)

    def _record_rows(self, attempt: _Attempt, asked_ns: int, outcome: str, rows: Sequence[object]) -> None:
        call = attempt.call
        operation = call.operation
        self._read_ids += 1
        read_id = self._read_ids
        now = self._clock._now
        host = attempt.access.name
        self._record_read(
            now,
            host,
            read_id,
            operation.user_id,
            operation.query,
            call.symbol_id,
            call.order_id,
            operation.limit,
            asked_ns,
            outcome,
            len(rows),
        )
        for position, row in enumerate(rows):
            if not isinstance(row, OrderRow):
                return  # trades and balances are only counted
            self._record_read_row(
                now,
                host,
                read_id,
                position,
                row.user_id,
                row.symbol_id,
                row.order_id,
                row.created_at,
                row.revision,
                row.status,
                row.quantity,
                row.filled_quantity,
            )

    # -- back at the client

    def _refused(self, attempt: _Attempt) -> None:
        """Nobody listens at the gateway's host."""
        if attempt.is_open:
            self.counts[REFUSED_CONNECTIONS] += 1
            self._record_unknown(attempt, "connection refused")
            self._unanswered(attempt)

    def _answered(self, attempt: _Attempt, answer: Answer) -> None:
        """An answer has come, in time or after it was given up on."""
        call = attempt.call
        operation = call.operation
        self._record_answer(
            self._clock._now,
            attempt.access.name,
            operation.user_id,
            operation.request_id,
            attempt.number,
            operation.kind,
            answer.outcome,
            int(answer.reason),
            int(answer.verdict),
            int(answer.verdict_reason),
            int(answer.order_id),
            answer.message,
        )
        if answer.outcome in _ANSWERED:
            if attempt.is_open:  # _close, written out: nearly every request ends here
                attempt.is_open = False
                call.open_attempts -= 1
                self._open_attempts -= 1
            if not call.is_done:
                self.counts[answer.outcome] += 1
                self._finish(call, int(answer.order_id) if answer.outcome == "accepted" else 0)
        elif attempt.is_open:
            self.counts[_UNKNOWN] += 1
            self._unanswered(attempt)

    def _read_answered(self, attempt: _Attempt) -> None:
        self._close(attempt)
        if not attempt.call.is_done:
            self._finish(attempt.call, 0)
