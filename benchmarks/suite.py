"""All benchmarks by name, with what design section 11 asks of each figure."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sim.progress import Progress


class BenchmarkError(ValueError):
    """A benchmark that there is not."""


@dataclass(frozen=True)
class Target:
    """What is asked of one figure: at least or at most so much."""

    figure: str
    bound: float
    is_minimum: bool

    def is_met(self, value: float) -> bool:
        return value >= self.bound if self.is_minimum else value <= self.bound

    def __str__(self) -> str:
        return f"at {'least' if self.is_minimum else 'most'} {self.bound:,g}"


@dataclass(frozen=True)
class Benchmark:
    """A function that returns figures, and the targets among them."""

    module: str
    function: str
    targets: tuple[Target, ...] = ()
    quick: Mapping[str, Any] = field(default_factory=dict)
    """Arguments with which it is over at once: the figures are worth nothing then, but everything was done."""

    def run(self, *, quick: bool = False) -> dict[str, float]:
        """Measure; at the size that means something, unless it only has to be seen that it works."""
        function: Callable[..., dict[str, float]] = getattr(import_module(f"benchmarks.{self.module}"), self.function)
        return function(**(self.quick if quick else {}))


SUITE: Final[dict[str, Benchmark]] = {
    "book": Benchmark(
        "book_bench",
        "book",
        (Target("book_messages_per_second_worst", 800_000, True),),
        {"messages": 500, "rounds": 1},
    ),
    "matching": Benchmark(
        "matching_bench",
        "matching",
        (Target("matching_inputs_per_second", 200_000, True),),
        {"inputs": 500, "rounds": 1},
    ),
    "balance": Benchmark(
        "ubscore_bench",
        "ubscore",
        (Target("balance_requests_per_second", 100_000, True),),
        {"requests": 500, "rounds": 1},
    ),
    "queue-hop": Benchmark(
        "loop_bench", "queue_hop", (Target("queue_hop_ratio", 1.0, False),), {"hops": 200, "repetitions": 1}
    ),
    "sleeps": Benchmark("loop_bench", "sleeps", quick={"count": 200, "repetitions": 1}),
    "timers-swept": Benchmark("loop_bench", "timers_swept", quick={"operations": 500}),
    "kafka-record": Benchmark("kafka_bench", "record_cost", quick={"records": 400}),
    "cassandra-insert": Benchmark("cassandra_bench", "insert_cost", quick={"rows": 100}),
    "cassandra-settle": Benchmark("cassandra_bench", "settle_cost", quick={"orders": 40}),
    "trace-event": Benchmark("trace_bench", "event_cost", quick={"events": 200}),
    "trace-check": Benchmark("trace_bench", "check_cost", quick={"orders": 60, "small_orders": 20}),
    "whole-order": Benchmark(
        "pipeline_bench",
        "whole_order",
        (Target("orders_per_second", 3_000, True), Target("check_and_store_share", 0.20, False)),
        {"orders": 40, "seeds": (1,)},
    ),
    "memory": Benchmark(
        "pipeline_bench", "memory", (Target("peak_mb_100000_orders", 500, False),), {"sizes": (40, 80)}
    ),
    "help": Benchmark("pipeline_bench", "help_time", (Target("help_seconds", 0.3, False),), {"times": 1}),
    "two-jobs": Benchmark("pipeline_bench", "two_jobs", (Target("two_jobs_over_one", 1.8, True),), {"seeds": 2}),
}


def run_suite(only: Sequence[str] | None, progress: "Progress") -> dict[str, dict[str, float]]:
    """Run the benchmarks named, or all of them. Raises BenchmarkError for a name that there is not."""
    names = list(SUITE) if only is None else list(only)
    for name in names:
        if name not in SUITE:
            raise BenchmarkError(f"unknown benchmark {name!r}; there are: {', '.join(SUITE)}")
    figures = {}
    for name in names:
        progress.show(f"measuring {name}")
        figures[name] = SUITE[name].run()
    progress.clear()
    return figures


def print_figures(figures: Mapping[str, Mapping[str, float]], *, json_wanted: bool) -> None:
    """The figures as a table beside their targets, or as one JSON object."""
    if json_wanted:
        print(json.dumps(figures))
        return
    for name, found in figures.items():
        print(name)
        targets = {target.figure: target for target in SUITE[name].targets}
        for figure, value in found.items():
            target = targets.get(figure)
            judged = "" if target is None else f"   {'met' if target.is_met(value) else 'MISSED'}: {target}"
            print(f"  {figure:36} {value:14,.3f}{judged}")
