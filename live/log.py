"""Structured logs: JSON lines for machines, or coloured lines for a person at a terminal (structlog).

A line is written whole and at once, so that what a killed process had logged is there. Fields that a process binds
(service, instance) stand on each of its lines. An alarm is a line of level "critical".
"""

import logging
import sys
from collections.abc import Callable
from typing import Any, BinaryIO, Final

import msgspec
import structlog

JSON: Final = "json"
CONSOLE: Final = "console"
FORMATS: Final = (JSON, CONSOLE)
LEVELS: Final = ("debug", "info", "warning", "error", "critical")

TIME: Final = "time"
"""The field of a line's time: ISO 8601 in UTC, to the microsecond."""
LEVEL: Final = "level"
EVENT: Final = "event"


def make_log(
    log_format: str,
    level: str,
    on_line: Callable[[str, str], object] | None = None,
    stream: BinaryIO | None = None,
    **fields: object,
) -> Any:
    """A log that implements `schema.ports.Log`, with `fields` on each line; lines below `level` are left out.

    `on_line` is told the level and the event of each line that is written. Lines go to `stream`, by default stdout.
    Raises ValueError for an unknown format or level.
    """
    if log_format not in FORMATS:
        raise ValueError(f"log format must be {' or '.join(FORMATS)}, not {log_format!r}")
    if level not in LEVELS:
        raise ValueError(f"log level must be one of {', '.join(LEVELS)}, not {level!r}")

    def told(_logger: object, name: str, line: Any) -> Any:
        if on_line is not None:
            on_line(name, str(line.get(EVENT, "")))
        return line

    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        told,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key=TIME),
    ]
    output = stream if stream is not None else sys.stdout.buffer
    if log_format == JSON:
        processors.append(structlog.processors.JSONRenderer(serializer=_as_json))
    else:
        processors.append(structlog.dev.ConsoleRenderer(colors=output.isatty()))
        processors.append(_as_bytes)
    return structlog.wrap_logger(
        structlog.BytesLogger(output),
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    ).bind(**fields)


def adopt_library_logs(log: Any, level: int = logging.WARNING) -> None:
    """Have the warnings of aiokafka and the Cassandra driver, which use `logging`, written to the same log."""
    root = logging.getLogger()
    root.handlers[:] = [_Adopted(log)]
    root.setLevel(level)


_USE_WARNING: Final = "`USE <keyspace>` with prepared statements"
"""Cassandra warns so of each statement prepared in a session with a keyspace. Ours are of one keyspace for good."""


class _Adopted(logging.Handler):
    def __init__(self, log: Any) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        if _USE_WARNING in record.getMessage():
            return
        fields: dict[str, object] = {"logger": record.name}
        if record.exc_info and record.exc_info[1] is not None:
            fields["error"] = repr(record.exc_info[1])
        # A library's CRITICAL is not an alarm of ours, which names a place and stops a partition.
        report = self._log.error if record.levelno >= logging.ERROR else self._log.warning
        if record.levelno < logging.WARNING:
            report = self._log.debug
        report(record.getMessage(), **fields)


_encoder: Final = msgspec.json.Encoder(enc_hook=repr)


def _as_json(line: object, **_options: object) -> bytes:
    return _encoder.encode(line)


def _as_bytes(_logger: object, _name: str, line: str) -> bytes:
    return line.encode(errors="backslashreplace")
