"""Tests of `jaxpool.linen` and `jaxpool.nnx`."""
