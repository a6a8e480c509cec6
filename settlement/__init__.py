"""The settlement service: what engine.outputs and balance.events say, written into Cassandra (design section 4.4).

rows.py         what an event means for the tables: pure
chain.py        may this record be settled after that one: pure
service.py      the loops: consume, verify, write rows, then progress, then offsets
store.py        the writes, as CQL, retried until they succeed
queries.py      the reads
migrations.py   creating and verifying the tables
cql_adapter.py  the one way to the driver, and back to the event loop
retries.py      which database errors may be retried, and how long to wait
"""
