"""Tests of `jaxpool.aggregations`."""
