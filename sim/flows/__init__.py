"""Sources of client operations: a synthetic market, and recorded flow from files."""
