"""The doubles held to the real servers: suites that run on both, and sequences of operations compared on both."""
