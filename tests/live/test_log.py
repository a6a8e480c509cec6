from __future__ import annotations

import io
import json
import logging

import pytest

from live.log import adopt_library_logs, make_log


def lines_of(stream: io.BytesIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_the_fields_of_its_process() -> None:
    stream = io.BytesIO()
    log = make_log("json", "info", stream=stream, service="matching", instance="matching-1")
    log.info("OrderPlacement emitted", order_id=7)
    log.debug("not wanted")
    log.critical("partition stopped", topic="engine.outputs", partition=1, offset=2, reason=ValueError("broken\nchain"))
    first, second = lines_of(stream)
    time = str(first.pop("time"))
    assert first == {
        "service": "matching",
        "instance": "matching-1",
        "event": "OrderPlacement emitted",
        "level": "info",
        "order_id": 7,
    }
    assert time.endswith("Z")
    assert second["level"] == "critical"
    assert second["reason"] == "ValueError('broken\\nchain')"


def test_whoever_counts_is_told_each_line_that_is_written() -> None:
    told: list[tuple[str, str]] = []
    log = make_log(
        "json", "warning", on_line=lambda level, event: told.append((level, event)), stream=io.BytesIO(), service="x"
    )
    log.info("below the level")
    log.warning("database writes failed, will be retried", failed=3)
    assert told == [("warning", "database writes failed, will be retried")]


def test_a_person_gets_lines_to_read() -> None:
    stream = io.BytesIO()
    make_log("console", "info", stream=stream, service="matching").info("serving", pid=1)
    text = stream.getvalue().decode()
    assert "serving" in text
    assert "matching" in text
    assert "\x1b" not in text  # no colours where nobody sees them


@pytest.mark.parametrize(("log_format", "level"), [("yaml", "info"), ("json", "loud")])
def test_unknown_formats_and_levels_are_refused(log_format: str, level: str) -> None:
    with pytest.raises(ValueError, match=r"log (format|level) must be"):
        make_log(log_format, level)


def test_warnings_of_libraries_go_to_the_same_log_and_are_no_alarms() -> None:
    stream = io.BytesIO()
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        adopt_library_logs(make_log("json", "info", stream=stream, service="ubscore"))
        logging.getLogger("aiokafka.cluster").critical("no leader for %s", "t-0")
        logging.getLogger("cassandra.protocol").warning(
            "Server warning: `USE <keyspace>` with prepared statements is considered to be an anti-pattern"
        )
    finally:
        root.handlers[:], root.level = before
    (line,) = lines_of(stream)
    assert (line["event"], line["level"], line["logger"]) == ("no leader for t-0", "error", "aiokafka.cluster")
