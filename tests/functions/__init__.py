"""Tests of `jaxpool.functions`."""
