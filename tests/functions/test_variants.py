"""Every public pool with and without `jax.jit`, of arrays on and off the device."""

import functools

import chex
import pytest
from absl.testing import parameterized

from tests import every
from tests.cases import quick_jit

CALLS = every.functions()
POOLS = {  # of several calls of one pool the first
    name: next(call for key, call in CALLS.items() if key.split("-")[0] == name)
    for name in [*every.POOLS, "max_unpool"]
}


@functools.cache
def plain(name):
    """The result of a call outside `jax.jit`, of arrays on the device."""
    return POOLS[name](every.arrays())


class Variants(chex.TestCase):
    @chex.variants(
        with_jit=True, without_jit=True, with_device=True, without_device=True
    )
    @parameterized.named_parameters((name, name) for name in POOLS)
    def test_every_pool(self, name):
        got = self.variant(POOLS[name])(every.arrays())
        chex.assert_trees_all_equal_shapes_and_dtypes(got, plain(name))
        chex.assert_trees_all_equal(got, plain(name))


@pytest.mark.parametrize("name", POOLS)
def test_a_jitted_pool_is_traced_once(name):
    chex.clear_trace_counter()
    pool = quick_jit(chex.assert_max_traces(POOLS[name], n=1))
    arrays = every.arrays()
    pool(arrays)
    pool(arrays | {"x": -arrays["x"], "where": ~arrays["where"]})
