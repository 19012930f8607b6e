"""Which cells each output reads: Python integers only, without jax."""
