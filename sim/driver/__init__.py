"""The workload driver: the simulation's clients and flows, in real time, against services on real servers (design 10).

real_time    stand-ins for the simulated clock, network and hosts, so that `sim.clients` runs as it is
gateways     gateways of the production code, inside this process, on real Kafka and Cassandra clients
latency      from a request to its answer, and to its row
drive        a run: work, settle, look; recorded as a trace and judged by the same invariants
"""
