"""What checkers and editors see of `jaxpool.compat`: names, signatures, overloads."""

import importlib
import inspect
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jaxpool.compat import torch

ROOT = Path(__file__).parents[2]
DIALECTS = ("flax", "keras", "onnx", "torch")
CLIENT = """
from typing import assert_type

import jax
import jax.numpy as jnp

from jaxpool.compat import torch as pools

Both = tuple[jax.Array, jax.Array]
x = jnp.ones((1, 1, 4, 4))


def pooled(flag: bool) -> None:
    assert_type(pools.max_pool2d(x, 2), jax.Array)
    assert_type(pools.max_pool2d(x, 2, return_indices=False), jax.Array)
    assert_type(pools.max_pool2d(x, 2, return_indices=True), Both)
    assert_type(pools.max_pool2d(x, 2, None, 0, 1, False, True), Both)
    assert_type(pools.max_pool2d(x, 2, return_indices=flag), jax.Array | Both)
    assert_type(pools.adaptive_max_pool1d(x[0], 2), jax.Array)
    assert_type(pools.adaptive_max_pool1d(x[0], 2, True), Both)
    assert_type(pools.adaptive_max_pool2d(x, (2, None), flag), jax.Array | Both)
    key = jax.random.key(0)
    assert_type(pools.fractional_max_pool2d(x, 2, 2, key=key), jax.Array)
    both = pools.fractional_max_pool2d(x, 2, 2, return_indices=True, key=key)
    assert_type(both, Both)
    assert_type(pools.avg_pool2d(x, 2, divisor_override=3), jax.Array)
    assert_type(pools.max_unpool2d(*both, kernel_size=2), jax.Array)
    pools.avg_pool1d(x[0], 2, divisor_override=3)  # error
    pools.lp_pool2d(x, 2.0)  # error
    pools.max_pool2d(x, 2, return_indices="no")  # error
    pools.avg_pool2d(x, kernel=2)  # error
    _, _ = pools.max_pool2d(x, 2, return_indices=flag).shape  # error
"""


@pytest.mark.slow
def test_types_of_a_client(tmp_path):
    pytest.importorskip("mypy")
    path = tmp_path / "client.py"
    path.write_text(CLIENT)
    # A cache of its own that stays: to read the types of jax takes a while.
    cache = f"--cache-dir={ROOT / '.mypy_cache' / 'client'}"
    command = [sys.executable, "-m", "mypy", "--strict", cache, str(path)]
    options = {"capture_output": True, "text": True, "check": False}
    done = subprocess.run(command, cwd=ROOT, **options)
    lines = {int(n) for n in re.findall(r"client\.py:(\d+): error", done.stdout)}
    wanted = {n for n, line in enumerate(CLIENT.splitlines(), 1) if "# error" in line}
    assert lines == wanted, done.stdout + done.stderr


@pytest.mark.parametrize("name", torch.__all__)
def test_functions_of_torch_look_written_out(name):
    function = getattr(torch, name)
    assert inspect.isfunction(function)
    assert function.__name__ == function.__qualname__ == name
    assert function.__module__ == "jaxpool.compat.torch"
    assert f"`{name}`" in function.__doc__ or f".{name}`" in function.__doc__
    assert "{" not in function.__doc__
    assert pickle.loads(pickle.dumps(function)) is function
    parameters = inspect.signature(function).parameters
    assert next(iter(parameters)) == "input"
    assert "rank" not in parameters


def test_signatures_are_those_of_torch():
    functional = pytest.importorskip("torch").nn.functional
    for name in torch.__all__:
        ours = inspect.signature(getattr(torch, name))
        theirs = getattr(functional, name)
        try:
            expected = list(inspect.signature(theirs).parameters)
        except ValueError:  # written in C++
            continue
        if expected[0] == "input":
            names = [n for n in ours.parameters if n != "key"]
            assert names == expected, name


@pytest.mark.parametrize("dialect", DIALECTS)
def test_all_names_what_is_public(dialect):
    module = importlib.import_module(f"jaxpool.compat.{dialect}")
    own = {
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    }
    assert own <= set(module.__all__) <= set(vars(module))
    assert list(module.__all__) == sorted(module.__all__)
