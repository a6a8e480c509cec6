"""What `exchange-sim bench` runs: one figure of design section 11 per function."""
