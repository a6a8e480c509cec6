"""The services as real processes: the ports of `schema.ports` on real clocks, disks, Kafka and Cassandra; their audit.

Everything here is what an exchange would deploy, and no simulator is imported: `sim` hands the same services simulated
ports instead.

    clock randomness log disk       a process's own ports
    kafka cassandra                 real clients, which count what passes (metrics)
    namespace topics                several systems on one cluster; creating and verifying topics
    process services supervisor     one service as a process; all of them as children that are started again
    reading recording               reading a running system from outside, into a trace
"""
