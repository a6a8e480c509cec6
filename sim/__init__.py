"""The simulated world: clock, hosts, network, Kafka, Cassandra, faults, workloads and runs (design 5)."""
