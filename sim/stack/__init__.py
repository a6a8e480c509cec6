"""Real servers on loopback: Apache Kafka and Cassandra as Java processes, without Docker (docs/real-servers.md).

`settings` says what is wanted, `maven` fetches the servers' jars, `kafka` and `cassandra` write their configuration and
give the command that starts them, `processes` starts and ends them, `readiness` asks them whether they answer, and
`lifecycle` is what `exchange-sim stack up|down|status` does. Nothing here is simulated, and the services know nothing
of it.
"""
