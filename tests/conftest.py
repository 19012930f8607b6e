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
    for name, what in (
        ("thorough", "all of each sweep"),
        ("ci", "more of each sweep, and slow tests"),
        ("rest", "what --ci takes, less what an ordinary run does"),
        ("brief", "one of each test"),
    ):
        parser.addoption(f"--{name}", action="store_true", help=what)
    parser.addoption("--draw", default="", help="another text draws other sets")


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
    """Drop sets of arguments, the same ones each time for the same `--draw`.

    `--ci` takes one in n of the sets of a test with `share(n)`, and all of others. An
    ordinary run takes the first few of these, and none of a `slow` test. `--brief`
    takes the first one, and with `--rest` the first that no ordinary run takes. They
    are drawn: every n-th set would leave out one value of an argument that has two.
    """
    draw, tests = config.getoption("--draw"), collections.defaultdict(list)
    for item in items:
        tests[item.path, getattr(item, "originalname", item.name)].append(item)
    kept = set()
    for (_, name), sets in tests.items():
        marker = sets[0].get_closest_marker("share")
        share = marker.args[0] if marker else 1
        drawn = random.Random(draw + name).sample(sets, math.ceil(len(sets) / share))
        few = 0 if sets[0].get_closest_marker("slow") else _few(len(drawn))
        if config.getoption("--brief"):
            other = config.getoption("--rest") and few < len(drawn)
            kept.add(drawn[few if other else 0])
        elif config.getoption("--ci"):
            kept.update(drawn)
        else:
            kept.update(drawn[few:] if config.getoption("--rest") else drawn[:few])
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


def _few(sets):
    """How many sets of a test an ordinary run takes."""
    return 1 + sets // 10
