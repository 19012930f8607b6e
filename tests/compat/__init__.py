"""Tests of `jaxpool.compat`."""
