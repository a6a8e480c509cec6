"""What a trace is, how it is recorded and stored, the invariants that judge it, and the reports that explain it."""
