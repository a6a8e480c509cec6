"""The `Log` port of a simulated service: log lines and alarms become events of the trace (design 6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from sim.hosts import Incarnation, describe


class Recorder(Protocol):
    """What the simulation needs of `traces.recorder.Recorder`: a function to call for each kind of event."""

    def emitter(self, kind: str, /) -> Callable[..., object]:
        """A function that takes t, host and the kind's columns."""


class SimLog:
    """Implements `schema.ports.Log` for one life of one service. A dead host's log says nothing.

    `order_id`, and for alarms `topic`, `partition` and `offset`, go into columns of their own; the other fields are
    kept as JSON with sorted keys. What JSON cannot express is named by its type only: a `repr` may hold an address.
    """

    def __init__(self, incarnation: Incarnation, recorder: Recorder, debug: bool = False) -> None:
        self._incarnation = incarnation
        self._clock = incarnation.host.clock
        self._host = incarnation.name
        self._service = incarnation.host.service
        self._debug = debug
        self._line = recorder.emitter("log_lines")
        self._alarm = recorder.emitter("alarms")

    def debug(self, event: str, *, order_id: object = 0, **fields: object) -> None:
        """Recorded only when the log was made with `debug`."""
        if self._debug:
            self._record("debug", event, order_id, fields)

    def info(self, event: str, *, order_id: object = 0, **fields: object) -> None:
        """What a person would follow."""
        # `_record`, written out: ten lines an order come this way.
        if not self._incarnation.alive:
            return
        if order_id.__class__ is not int:
            order_id = _integer(order_id, 0)
        text = _encode(fields).decode() if fields else "{}"
        self._line(self._clock._now, self._host, self._service, "info", event, order_id, text)

    def warning(self, event: str, *, order_id: object = 0, **fields: object) -> None:
        """Something is not as it should be, and the service copes."""
        self._record("warning", event, order_id, fields)

    def error(self, event: str, *, order_id: object = 0, **fields: object) -> None:
        """Something failed."""
        self._record("error", event, order_id, fields)

    def critical(self, event: str, *, order_id: object = 0, **fields: object) -> None:
        """An alarm: a log line, and an event of the kind "alarms"."""
        if not self._incarnation.alive:
            return
        self._alarm(
            self._clock._now,
            self._host,
            self._service,
            event,
            str(fields.get("topic", "")),
            _integer(fields.get("partition", -1), -1),
            _integer(fields.get("offset", -1), -1),
        )
        self._record("critical", event, order_id, fields)

    def _record(self, level: str, event: str, order_id: object, fields: dict[str, object]) -> None:
        if not self._incarnation.alive:
            return
        if order_id.__class__ is not int:
            order_id = _integer(order_id, 0)
        text = _encode(fields).decode() if fields else "{}"
        self._line(self._clock._now, self._host, self._service, level, event, order_id, text)


def _integer(value: object, otherwise: int) -> int:
    return int(value) if isinstance(value, int) else otherwise


def _express(value: object) -> object:
    return describe(value) if isinstance(value, BaseException) else f"<{type(value).__name__}>"


_encode = msgspec.json.Encoder(enc_hook=_express, order="sorted").encode
