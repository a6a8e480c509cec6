"""What a service's process counts, for Prometheus: taken at its ports, so that no service has a hook for it.

Kafka and Cassandra clients count what passes through them, the log counts its lines. One registry for each process;
`serve` puts it on a port.
"""

import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Final
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

Lag = dict[tuple[str, int], int]
"""Records, transaction markers included, from where a consumer stands to the committed end, by topic and partition."""


class Metrics:
    """The meters of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(f"exchange_{name}", meaning, labels, registry=self.registry)

        self.records_consumed = counter("records_consumed", "Records handed to the service", "topic")
        self.records_produced = counter("records_produced", "Records handed to Kafka", "topic")
        self.transactions = counter("transactions", "Kafka transactions by how they ended", "outcome")
        self.statements = counter("cql_statements", "CQL statements by outcome: ok, or the error's type", "outcome")
        self.log_lines = counter("log_lines", "Lines written to the log", "level")
        self.alarms = counter("alarms", "Alarms raised: something stopped and a person must look")
        self.retries = counter("database_retries", "Times that settlement had to repeat statements")
        self.transaction_seconds = Histogram(
            "exchange_transaction_seconds",
            "From the beginning of a transaction to its committed end",
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.statement_seconds = Histogram(
            "exchange_cql_seconds", "From a CQL statement to its answer", registry=self.registry, buckets=_SECONDS
        )
        self._lags = _Lags()
        self.registry.register(self._lags)

    def watch_lag(self, owner: object, lag: Callable[[], Lag]) -> None:
        """Ask `lag` at each scrape, as long as `owner` lives."""
        self._lags.watch(owner, lag)

    def count_line(self, level: str, event: str) -> None:
        """A line was logged: the log says what no client sees."""
        self.log_lines.labels(level).inc()
        if level == "critical":
            self.alarms.inc()
        elif event.startswith("database ") and event.endswith("will be retried"):
            self.retries.inc()

    def serve(self, port: int) -> tuple[WSGIServer, threading.Thread]:
        """Answer scrapes on 127.0.0.1:`port` from a thread. Raises OSError when the port is taken."""
        return start_http_server(port, addr="127.0.0.1", registry=self.registry)


class _Lags(Collector):
    def __init__(self) -> None:
        self._watched: weakref.WeakKeyDictionary[Any, Callable[[], Lag]] = weakref.WeakKeyDictionary()

    def watch(self, owner: object, lag: Callable[[], Lag]) -> None:
        self._watched[owner] = lag

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            "exchange_consumer_lag",
            "Offsets from where the service reads to the committed end",
            labels=["topic", "partition"],
        )
        total: Lag = {}
        for lag in list(self._watched.values()):
            total.update(lag())
        for (topic, partition), behind in sorted(total.items()):
            family.add_metric([topic, str(partition)], behind)
        yield family
