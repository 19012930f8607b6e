"""Strict JAX configuration, eight host devices, accelerators, hypothesis profile."""

import collections
import os

import hypothesis
import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 8)  # the sharding tests need several

for name, examples in (("share", 30), ("thorough", 200)):
    hypothesis.settings.register_profile(
        name,
        deadline=None,
        max_examples=examples,
        derandomize="CI" in os.environ,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )

# Sweeps whose programs take minutes to compile. Of each of their tests every sixth set
# of arguments runs, and all of them with --thorough.
SWEEPS = ("matrix", "sharding", "adaptive", "fractional", "export")
SWEEPS += ("parity_torch", "parity_flax", "golden_torch", "golden_bins")
SHARE = 6


def pytest_addoption(parser):
    """Let all sets of arguments of the sweeps be asked for."""
    parser.addoption("--thorough", action="store_true", help="all of each sweep")


def pytest_configure(config):
    """Choose how many examples hypothesis tries."""
    thorough = config.getoption("--thorough")
    hypothesis.settings.load_profile("thorough" if thorough else "share")


def pytest_collection_modifyitems(config, items):
    """Take a share of the sweeps; skip what needs a GPU or TPU where there is none."""
    if not config.getoption("--thorough"):
        _take_a_share(config, items)
    marked = [item for item in items if item.get_closest_marker("accelerator")]
    if marked and jax.default_backend() == "cpu":
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a GPU or a TPU"))


def _take_a_share(config, items):
    """Drop most sets of arguments of each test of a sweep, the same ones each time."""
    seen, dropped = collections.Counter(), []
    for item in items:
        if item.path.stem.removeprefix("test_") in SWEEPS:
            test = item.path, item.originalname
            if seen[test] % SHARE:
                dropped.append(item)
            seen[test] += 1
    items[:] = [item for item in items if item not in set(dropped)]
    config.hook.pytest_deselected(items=dropped)
