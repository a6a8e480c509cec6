"""Generated sequences of Kafka operations, compared; few here, thousands by `exchange-sim conform kafka`."""

from __future__ import annotations

from typing import Any

import pytest

from sim.conform import kafka_sequences
from sim.conform.comparison import Difference
from sim.conform.kafka_sequences import Pair, Stage, play_on_double, run_sequences
from sim.conform.kafka_sides import DoubleSide, ServerSide

FEW = 25


def test_the_double_comes_to_the_same_as_a_real_broker(server: ServerSide) -> None:
    report = run_sequences(server, FEW, seed=2)
    assert report.differences == []
    assert report.sequences >= FEW


STEPS: list[Any] = [
    ("begin", "first"),
    ("send", "first", 0, 2, 1),
    ("send_offsets", "first", 0, 2),
    ("bounds", "committed"),
    ("commit", "first"),
    ("fence", "second"),
    ("begin", "zombie-second"),
    ("send", "zombie-second", 1, 1, 0),
    ("fetch", "committed"),
    ("committed", 0),
    ("offset_for_time", "committed", 0, 5),
    ("send_large", "idempotent", 1),
    ("send", "idempotent", 1, 1, 0),
    ("delete_records", 0, 1),
]


def test_what_a_sequence_comes_to() -> None:
    *results, (_, final) = play_on_double(STEPS)
    assert [result for _, result in results] == [
        "begun",
        [(0, 1), (1, 1)],
        "sent",
        ({0: 0, 1: 0}, {0: 0, 1: 0}),
        "committed",
        "fenced",
        "begun",
        ["ProducerFenced"],
        ([[(0, 1, b"first 0"), (1, 4, b"first 1")], []], {0: 3, 1: 0}),
        2,
        (2, "now"),
        ["MessageSizeTooLargeError"],
        ["OutOfOrderSequenceNumber"],
        1,
    ]
    assert final == {
        "committed": {0: [(1, 4, b"first 1")], 1: []},
        "uncommitted": {0: [(1, 4, b"first 1")], 1: []},
        "committed ends": {0: 3, 1: 0},
        "uncommitted ends": {0: 3, 1: 0},
        "beginning": {0: 1, 1: 0},
        "group": [2, 0],
    }


def test_sequence_comes_to_the_same_on_a_stage_that_has_been_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's stage serves many sequences; what one has fenced and broken must not reach the next."""
    expected = play_on_double(STEPS)
    side = DoubleSide()

    async def play_thrice() -> None:
        stage = Stage(kafka_sequences.Kafka(side))
        await stage.prepare()
        for _ in range(3):
            assert await stage.play(STEPS) == expected
        await stage.close()

    side.run(play_thrice, limit_s=600)
    side.close()


def test_what_a_server_does_only_once_is_counted_and_no_difference() -> None:
    """Held against a side that commits where it should abort, the first time."""
    steps: list[Any] = [("begin", "first"), ("send", "first", 0, 1, 3), ("abort", "first"), ("fetch", "committed")]

    class UnsteadyPair(Pair):
        has_erred = False

        def _on_server(self, steps: list[Any]) -> list[Any]:
            wrong = [
                ("commit", *rest) if name == "abort" and not self.has_erred else (name, *rest) for name, *rest in steps
            ]
            self.has_erred = True
            results = play_on_double(wrong)
            return [(step, result) for step, (_, result) in zip([*steps, "final state"], results, strict=True)]

    pair = UnsteadyPair(ServerSide("127.0.0.1:9"))
    pair.compare(steps)
    assert (pair.report.sequences, pair.report.unsteady) == (1, 1)


def test_a_difference_is_told_with_the_sequence_up_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Held against a side that commits where it should abort."""

    class WrongPair(Pair):
        def _on_server(self, steps: list[Any]) -> list[Any]:
            wrong = [("commit", *rest) if name == "abort" else (name, *rest) for name, *rest in steps]
            results = play_on_double(wrong)
            return [(step, result) for step, (_, result) in zip([*steps, "final state"], results, strict=True)]

    pair = WrongPair(ServerSide("127.0.0.1:9"))
    pair.compare([("begin", "first"), ("send", "first", 0, 1, 3), ("commit", "first")])
    assert (pair.report.sequences, pair.report.steps, pair.report.records) == (1, 3, 1)
    with pytest.raises(Difference) as caught:
        pair.compare([("begin", "first"), ("send", "first", 0, 1, 3), ("abort", "first"), ("fetch", "committed")])
    assert str(caught.value).splitlines() == [
        "the double and the server differ:",
        "  ('begin', 'first') -> 'begun'",
        "  ('send', 'first', 0, 1, 3) -> [(0, 3)]",
        "  ('abort', 'first')",
        "    server: 'committed'",
        "    double: 'aborted'",
    ]
