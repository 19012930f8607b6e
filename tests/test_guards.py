"""Every public function under jax's guards and checks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

import jaxpool
from tests import every

CALLS = every.calls()
SETS = ("user", "nan", "index", "div", "float", "automatic")
# In jax 0.10 the rule of scatters does not know several batches.
BATCHED_SCATTER = ("max_unpool",)


# A number as a scale is an array of the call; this pool pads its result eagerly.
MOVING = ("aggregate-Softmax(scale=2.0)", "jaxpool.compat.onnx.MaxUnpool")


@pytest.mark.share(18)
@pytest.mark.parametrize("name", [name for name in CALLS if name not in MOVING])
def test_A5_a_second_call_moves_nothing_to_the_device(name):
    CALLS[name](every.arrays())
    with jax.transfer_guard("disallow"):
        jax.block_until_ready(CALLS[name](every.arrays()))


def checked(name, errors):
    """A value and its gradient, with a set of checks."""
    a = every.arrays()

    def loss(x):
        result = jax.tree.leaves(CALLS[name](a | {"x": x}))[0]
        return result.astype(jnp.float32).sum(), result

    pool = jax.value_and_grad(loss, has_aux=True)
    error, ((_, value), _) = checkify.checkify(pool, errors=errors)(a["x"])
    assert error.get() is None
    np.testing.assert_allclose(value, jax.tree.leaves(CALLS[name](a))[0], 1e-6)


@pytest.mark.share(18)
@pytest.mark.parametrize("name", every.functions())
def test_A6_checkify_finds_no_error(name):
    if name in BATCHED_SCATTER:
        with pytest.raises(IndexError):
            checked(name, checkify.all_checks)
        checked(name, checkify.float_checks)
    else:
        checked(name, checkify.all_checks)


@pytest.mark.share(18)
@pytest.mark.parametrize("name", ["max_pool", "lp_pool-where", "adaptive_avg_pool"])
@pytest.mark.parametrize("errors", SETS)
def test_A6_each_set_of_checks(name, errors):
    checked(name, getattr(checkify, f"{errors}_checks"))


@pytest.mark.share(18)
@pytest.mark.parametrize("errors", [*SETS, "all"])
def test_A6_max_unpool_with_known_and_traced_indices(errors):
    """An index that is dropped, or overwritten, is not out of bounds."""
    values, weights = jnp.asarray([1.0, 2.0, 3.0]), jnp.arange(4.0)

    def loss(values, indices):
        return (jaxpool.max_unpool(values, indices, 4, axes=0) * weights).sum()

    checks = getattr(checkify, f"{errors}_checks")
    for indices, want in (([-1, 2, 2], [0, 0, 2]), ([7, 2, 1], [0, 2, 1])):
        pool = jax.jit(jax.grad(loss))
        error, got = checkify.checkify(pool, errors=checks)(
            values, jnp.asarray(indices)
        )
        assert error.get() is None
        assert jnp.array_equal(got, jnp.asarray(want, jnp.float32))
    known = jnp.asarray([0, 3, 1])
    pool = jax.grad(lambda v: loss(v, known))
    error, got = checkify.checkify(pool, errors=checks)(values)
    assert error.get() is None
    assert jnp.array_equal(got, jnp.asarray([0.0, 3.0, 1.0]))
