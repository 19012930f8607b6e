"""Tests of jaxpool."""
