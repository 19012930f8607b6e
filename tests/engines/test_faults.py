"""Ways around faults of XLA: their tests exist, and some tests stand here."""

import ast
import inspect
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType

import jaxpool
from jaxpool.engines import faults
from jaxpool.engines.xla import reduce_windows
from jaxpool.geometry.resolve import resolve
from tests.engines.test_platforms import traced_for
from tests.engines.test_sharding import mesh_of, over

TESTS = Path(__file__).parent.parent
ENTRIES = {
    name: entry
    for name, entry in vars(faults).items()
    if inspect.getmodule(entry) is faults and name[0] != "_"
}


@pytest.mark.parametrize("name", ENTRIES)
def test_each_fault_is_told_with_its_test(name):
    """What goes wrong, where it is seen, and a test that is there."""
    text = " ".join(inspect.getdoc(ENTRIES[name]).split()).replace("[ ", "[")
    found = re.search(
        r"Fault: .+\. Seen: jax .+\. Test: (.+)::(\w+)(?:\[(.+)\])?$", text
    )
    assert found, text
    path, test, argument = found.groups()
    source = (TESTS / path).read_text()
    functions = [n.name for n in ast.walk(ast.parse(source)) if hasattr(n, "name")]
    assert test in functions
    assert argument is None or f'"{argument}"' in source


@pytest.mark.parametrize("config", [(-3, 3, 0), (2, -2, 0), (0, 3, 1)])
def test_a_pad_whose_result_alone_is_split(config):
    """With a negative amount, or between cells."""
    mesh, x = mesh_of({"h": 2}), np.arange(1, 9, dtype=np.float32)

    def padded(x):
        whole = lax.with_sharding_constraint(x * 2, over(mesh))
        split = faults.pad(whole, 0, [config]) + 1
        return lax.with_sharding_constraint(split, over(mesh, "h"))

    want = lax.pad(2 * x, np.float32(0), [config]) + 1
    np.testing.assert_array_equal(jax.jit(padded)(x), want)


def test_cotangents_of_windows_beyond_the_next_shard():
    """Of sums on a TPU: the partitioner ends the process for dilated cells."""

    def back(x):
        options = {"strides": 2, "dilation": 2, "padding": "CAUSAL", "axes": 0}
        return jax.grad(lambda x: (jaxpool.sum_pool(x, 9, **options) ** 2).sum())(x)

    x = jnp.arange(16.0)
    split = jax.device_put(x, over(mesh_of({"h": 4}, AxisType.Explicit), "h"))
    with traced_for("tpu"):
        np.testing.assert_array_equal(jax.jit(back)(split), jax.jit(back)(x))


@pytest.mark.parametrize("window", [(2, 2), (64, 256)])
@pytest.mark.parametrize("kind", ["max", "min"])
def test_windows_that_tile_a_large_array_keep_nan(kind, window):
    """By name; of small arrays XLA:CPU drops none."""
    x = np.ones((64, 256), np.float32)
    x[5, 7] = np.nan
    pool = getattr(jaxpool, f"{kind}_pool")
    y = pool(x, window, axes=(0, 1), implementation="reduce_window")
    assert np.isnan(y).sum() == 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["max", "min"])
def test_short_floats_in_windows_that_tile_a_large_array(kind, dtype):
    """By name; each value is that of its own window."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 64, 32, 128)), dtype)
    pool = getattr(jaxpool, f"{kind}_pool")
    y = pool(x, (2, 2), implementation="reduce_window")
    cells = np.asarray(x, np.float32).reshape(1, 32, 2, 16, 2, 128)
    np.testing.assert_array_equal(y, getattr(cells, kind)((2, 4)))


@pytest.mark.parametrize("size", [1, 4])
def test_a_window_of_padding_only_has_no_cotangent(size):
    """The cells of the first window lie around the only one of the last axis."""
    options = {"padding": ((0, 0), (1, 1)), "dilation": 2, "axes": (0, 1)}

    def total(x):
        named = {"strides": 1, "implementation": "reduce_window"}
        return jaxpool.sum_pool(x, (1, 2), **options, **named).sum()

    np.testing.assert_array_equal(jax.grad(total)(np.ones((size, 1), np.float32)), 0)


def test_windows_whose_values_alone_are_not_split():
    """Of several arrays: the partitioner ends the process."""
    mesh, x = mesh_of({"h": 2}), np.arange(8, dtype=np.float32)

    def larger(one, other):
        pairs = zip(one, other, strict=True)
        return tuple(jnp.where(one[0] >= other[0], *pair) for pair in pairs)

    def winners(x):
        x = lax.with_sharding_constraint(x * 2, over(mesh, "h"))
        arrays, fills = (x, lax.iota(np.int32, 8)), (np.float32(0), np.int32(9))
        window = resolve((8,), (2,), (1,), "VALID", 1, (0,), False)
        values, places = reduce_windows(arrays, fills, larger, window)
        return lax.with_sharding_constraint(values, over(mesh)), places

    values, places = jax.jit(winners)(x)
    np.testing.assert_array_equal(values, 2 * x[1:])
    np.testing.assert_array_equal(places, np.arange(1, 8))
