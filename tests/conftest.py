"""Strict JAX configuration, eight host devices, accelerators, hypothesis profile."""

import os

import hypothesis
import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 8)  # the sharding tests need several

hypothesis.settings.register_profile(
    "jaxpool",
    deadline=None,
    max_examples=60,
    derandomize="CI" in os.environ,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("jaxpool")


def pytest_collection_modifyitems(items):
    """Skip what needs a GPU or a TPU where there is none."""
    marked = [item for item in items if item.get_closest_marker("accelerator")]
    if marked and jax.default_backend() == "cpu":
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a GPU or a TPU"))
