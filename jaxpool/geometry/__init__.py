"""The cells that each output reads: Python integers only, no jax."""
