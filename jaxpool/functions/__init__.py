"""What users call: each function checks, resolves, calls an aggregation."""
