"""A simulated Cassandra cluster behind the Python driver's interface (design 5).

`CassandraCluster` is the servers, `Session` what a service uses. From the text of a statement to the answer:
`grammar` -> `statements` -> `plans` -> `driver` (the client's side) -> `coordinator` -> `holdings` (what replicas hold,
and what is on its way to them) and `storage` -> `rows` (reconciliation) -> `reading` (merging, filters, pages) ->
`driver` again.

What is not simulated is refused with InvalidRequest, never ignored:

- types: counter, duration, inet, time, tuples, user-defined types, vectors, and collections that are not frozen;
  decimal, double, float and collections as key columns;
- statements: indexes, materialized views, functions, roles, ALTER KEYSPACE, ALTER TABLE other than ADD, SELECT JSON and
  INSERT JSON, GROUP BY, aggregates other than count(*) alone, functions as values (now(), uuid(), ...), arithmetic,
  CONTAINS, LIKE, bind markers for whole tuples or inside collections, conditional batches, counter batches, prepared
  batches as text, ORDER BY over several partitions.

What is offered is held to a real Cassandra 5.0 by `tests/conformance/cassandra`, messages of errors included;
`docs/limits.md` lists what still differs.

What a run does not show, and a real cluster may:

- one datacenter; no bootstrap, no decommission, no repair but blocking read repair and hints; schema agreement is
  instant;
- nothing is compacted or purged, so gc_grace_seconds has no effect (see `rows`);
- a node that goes down keeps everything it has acknowledged (commitlog_sync batch, as it were);
- contention between lightweight transactions (see `lightweight`), and heartbeats of the driver (see `driver`).
"""

from sim.cassandra.cluster import CassandraCluster
from sim.cassandra.driver import ResponseFuture, Session
from sim.cassandra.faults import OPERATION_FAULTS, OperationFault
from sim.cassandra.node import Node

__all__ = ["OPERATION_FAULTS", "CassandraCluster", "Node", "OperationFault", "ResponseFuture", "Session"]
