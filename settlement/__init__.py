"""The settlement service, its store in Cassandra or ScyllaDB, and the read queries (design sections 4.4 to 4.6)."""
