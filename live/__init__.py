"""The services as real processes: the ports of `schema.ports` on real clocks, disks, Kafka and Cassandra, and their audit.

Everything here is what an exchange would deploy: no simulator is imported. `sim` hands the same services simulated ports.
"""
