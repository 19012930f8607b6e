"""Tests of `jaxpool.engines`."""
