"""Every public function under jax's guards and checks."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import checkify

from tests import every

CALLS = every.calls()
SETS = ("user", "nan", "index", "div", "float", "automatic", "all")


@pytest.mark.parametrize("name", CALLS)
def test_A5_a_second_call_moves_nothing_to_the_device(name):
    CALLS[name](every.arrays())
    with jax.transfer_guard("disallow"):
        jax.block_until_ready(CALLS[name](every.arrays()))


@pytest.mark.parametrize("name", every.functions())
def test_A6_checkify(name):
    """With each set of checks: no error is found, in values or gradients."""
    a = every.arrays()

    def loss(x):
        result = jax.tree.leaves(CALLS[name](a | {"x": x}))[0]
        return result.astype(jnp.float32).sum(), result

    want = CALLS[name](a)
    for errors in SETS:
        checked = checkify.checkify(
            jax.value_and_grad(loss, has_aux=True),
            getattr(checkify, f"{errors}_checks"),
        )
        error, ((_, got), _) = jax.jit(checked)(a["x"])
        assert error.get() is None, errors
        assert jnp.array_equal(got, jax.tree.leaves(want)[0])
