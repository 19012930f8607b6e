"""Tests of `jaxpool.geometry`."""
