"""Requests that wait for their answer at one gateway (design section 4.7).

A submission is one time that a client handed a request in here. It ends once, with what the client is told: by the
answer, or the engine's verdict after it; by a failure to reach Kafka; or when its time is over. Neither a task nor a
timer stands behind each of them, so that a busy gateway pays for neither.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Literal

import msgspec

from schema.codes import Outcome, Reason, Verdict
from schema.events import AnyRequest, Deposit, OrderResponse, Withdraw
from schema.identifiers import NO_ORDER, OrderId
from schema.wire import body_hash

OutcomeName = Literal["accepted", "rejected", "unknown", "invalid"]

_NO_VERDICT: Final = int(Verdict.NONE)
_ACCEPTED: Final = int(Outcome.ACCEPTED)
_REASON_TEXTS: Final = {int(reason): reason.name.lower().replace("_", " ") for reason in Reason}
_ACCEPTED_TEXTS: Final = {
    int(verdict): "accepted" if verdict == Verdict.NONE else f"accepted, {verdict.name.lower().replace('_', ' ')}"
    for verdict in Verdict
}
_ENDED: Final = -1.0


class ClientAnswer(msgspec.Struct, frozen=True, gc=False):
    """What a client is told. `reason`, `verdict` and `verdict_reason` are codes of `schema.codes`, 0 while not known.

    `order_id` is the order that the first request with this id was given, 0 when there is none or it is not known.
    """

    outcome: OutcomeName
    message: str
    reason: int = 0
    verdict: int = 0
    verdict_reason: int = 0
    order_id: OrderId = NO_ORDER


Told = Callable[[ClientAnswer], object]
"""Called once, with what the client is told."""


class Submission:
    """One time that a request was handed in, until the client is told what became of it."""

    __slots__ = ("_answer", "_body_hash", "_owner", "_told", "deadline_s", "is_extended", "request")

    def __init__(self, owner: "Submissions", request: AnyRequest, told: Told) -> None:
        self.request = request
        self.deadline_s = 0.0
        """In the loop's time; _ENDED once the client was told, or does not care any more."""
        self.is_extended = False
        """Whether it has been given as long again, for the verdict."""
        self._owner = owner
        self._body_hash = body_hash(request)
        self._told = told
        self._answer: OrderResponse | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the client was told, or does not care any more."""
        return self.deadline_s == _ENDED

    def offer(self, response: OrderResponse) -> None:
        """A response to a request of this user and id; perhaps to another body under the same id."""
        # Requests of one body are one request, whoever handed it in and wherever: what answers one answers all of them.
        if response.body_hash != self._body_hash:
            return
        answer = self._answer
        if answer is not None:
            if response.verdict != _NO_VERDICT:
                self._end(_told(answer, response.verdict, response.verdict_reason))
        else:
            verdict = response.verdict
            if (
                response.outcome == _ACCEPTED
                and verdict == _NO_VERDICT
                and not isinstance(self.request, Deposit | Withdraw)
            ):
                self._answer = response
            else:
                self._end(_told(response, verdict, response.verdict_reason))

    def fail(self, reason: str) -> None:
        """The request may not have reached anybody. Nothing happens if its answer has come all the same."""
        if self._answer is None:
            self._end(_unknown(reason))

    @property
    def is_answered(self) -> bool:
        """Whether only the verdict is missing."""
        return self._answer is not None

    def give_up(self) -> None:
        """Its time is over."""
        answer = self._answer
        self._end(_unknown("no answer in time") if answer is None else _told(answer, _NO_VERDICT, 0))

    def forget(self) -> None:
        """The client does not care any more."""
        if self.deadline_s != _ENDED:
            self._owner.remove(self)
            self.deadline_s = _ENDED

    def _end(self, answer: ClientAnswer) -> None:
        if self.deadline_s != _ENDED:
            self._owner.remove(self)
            self.deadline_s = _ENDED
            self._told(answer)


class Submissions:
    """All that wait at one gateway: at most `wait_s` for the answer, and twice as long for the verdict.

    Waits are all equally long, so they end in the order in which they began: a queue of them and one timer are enough.
    """

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._by_key: dict[tuple[int, str], list[Submission]] = {}
        # In the order of their deadlines; those at its end may have ended long since.
        self._waits: deque[Submission] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.count = 0
        self.idle = asyncio.Event()
        """Set while nothing waits."""
        self.idle.set()

    def add(self, request: AnyRequest, told: Told) -> Submission:
        """A request that is handed in now. `told` is called once, at the latest when its time is over."""
        submission = Submission(self, request, told)
        key = (request.user_id, request.request_id)
        others = self._by_key.get(key)
        if others is None:
            self._by_key[key] = [submission]
        else:
            others.append(submission)
        if not self.count:
            self.idle.clear()
        self.count += 1
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        self._begin_wait(submission, loop.time() + self._wait_s)
        return submission

    def offer(self, response: OrderResponse) -> None:
        """Give a response to whoever waits for it here."""
        waiting = self._by_key.get((response.user_id, response.request_id))
        if waiting is not None:
            for submission in tuple(waiting):
                submission.offer(response)

    def remove(self, submission: Submission) -> None:
        """It waits no more."""
        key = (submission.request.user_id, submission.request.request_id)
        waiting = self._by_key[key]
        if len(waiting) == 1:
            del self._by_key[key]
        else:
            waiting.remove(submission)
        self.count -= 1
        if not self.count:
            self.idle.set()

    def close(self) -> None:
        """Nothing will be heard any more: tell everybody who waits."""
        for waiting in list(self._by_key.values()):
            for submission in tuple(waiting):
                submission.give_up()
        self._waits.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin_wait(self, submission: Submission, deadline_s: float) -> None:
        submission.deadline_s = deadline_s
        waits = self._waits
        while waits and waits[0].deadline_s == _ENDED:
            waits.popleft()
        waits.append(submission)
        if self._timer is None:
            assert self._loop is not None
            self._timer = self._loop.call_at(deadline_s, self._look, deadline_s)

    def _look(self, due_s: float) -> None:
        """End the waits that were to end by `due_s`, and come back for the next one."""
        loop = self._loop
        assert loop is not None
        # A timer may be early by the clock's resolution, and a late one is late for more than one of them.
        due_s = max(due_s, loop.time())
        waits = self._waits
        while waits:
            submission = waits[0]
            deadline_s = submission.deadline_s
            if deadline_s > due_s:
                self._timer = loop.call_at(deadline_s, self._look, deadline_s)
                return
            waits.popleft()
            if deadline_s != _ENDED:
                if submission.is_answered and not submission.is_extended:
                    submission.is_extended = True
                    self._begin_wait(submission, due_s + self._wait_s)
                else:
                    submission.give_up()
        self._timer = None


def not_sent(why: str) -> ClientAnswer:
    """The answer to a request that was not even tried."""
    # Not "invalid": an earlier attempt under the same id may have been taken.
    return ClientAnswer("unknown", f"not sent: {why}; ask again, here or at another gateway")


def _unknown(why: str) -> ClientAnswer:
    return ClientAnswer("unknown", f"what became of the request is not known: {why}; ask again with the same id")


def _told(answer: OrderResponse, verdict: int, verdict_reason: int) -> ClientAnswer:
    reason = answer.reason
    if answer.outcome != _ACCEPTED:
        text = _REASON_TEXTS.get(reason) or f"reason {reason}"
        return ClientAnswer("rejected", text, reason, order_id=answer.order_id)
    text = _ACCEPTED_TEXTS.get(verdict) or f"accepted, verdict {verdict}"
    return ClientAnswer("accepted", text, reason, verdict, verdict_reason, answer.order_id)
