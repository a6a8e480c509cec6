"""A simulated Cassandra cluster behind the Python driver's interface."""
