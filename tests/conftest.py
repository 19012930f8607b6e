"""Strict JAX configuration, eight host devices, accelerators, hypothesis profile."""

import collections
import math
import os
import random

import hypothesis
import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 8)  # the sharding tests need several

for name, examples in (("brief", 5), ("share", 20), ("thorough", 200)):
    hypothesis.settings.register_profile(
        name,
        deadline=None,
        max_examples=examples,
        derandomize="CI" in os.environ,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )


def pytest_addoption(parser):
    """Let more, or fewer, sets of arguments be asked for."""
    parser.addoption("--thorough", action="store_true", help="all of each sweep")
    parser.addoption("--brief", action="store_true", help="one of each test")


def pytest_configure(config):
    """Choose how many examples hypothesis tries."""
    asked = [name for name in ("brief", "thorough") if config.getoption(f"--{name}")]
    hypothesis.settings.load_profile(asked[0] if asked else "share")


def pytest_collection_modifyitems(config, items):
    """Take a share of the sweeps; skip what needs a GPU or TPU where there is none."""
    if not config.getoption("--thorough"):
        _take_a_share(config, items)
    marked = [item for item in items if item.get_closest_marker("accelerator")]
    if marked and jax.default_backend() == "cpu":
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a GPU or a TPU"))


def _take_a_share(config, items):
    """Drop sets of arguments of tests that are marked, the same ones each time.

    Of a test with `share(n)` runs one set in n. They are drawn: every n-th set would
    leave out one value of an argument that has two.
    """
    tests = collections.defaultdict(list)
    for item in items:
        tests[item.path, getattr(item, "originalname", item.name)].append(item)
    kept = set()
    for (_, name), sets in tests.items():
        marker = sets[0].get_closest_marker("share")
        share = marker.args[0] if marker else 1
        count = 1 if config.getoption("--brief") else math.ceil(len(sets) / share)
        kept.update(random.Random(name).sample(sets, count))
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]
