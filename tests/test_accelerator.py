"""On a real GPU or TPU: the program chosen there, against the oracle.

The whole suite runs there too; this is what a short run begins with:
`python -m pytest -m accelerator`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpool
from tests.cases import KINDS, Case, cotangent, mask, tied, value_and_grad
from tests.oracle import pool_and_grad

pytestmark = pytest.mark.accelerator

CASES = {
    "tiling": Case((2, 8, 8, 3), (2, 2)),
    "overlap": Case((2, 11, 12, 5), (3, 3), (2, 2), "SAME"),
    "stride_one": Case((2, 9, 8, 4), (3, 3), (1, 1), "SAME"),
    "dilated": Case((1, 12, 11, 2), (3, 2), (2, 3), 1, (2, 2)),
    "long": Case((2, 90, 3), (61,), (7,)),
    "channels_first": Case((2, 4, 10, 9), (3, 2), (2, 1), axes=(-2, -1)),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


def passes(pool, x, g):
    """Values and gradient, in one program."""
    both = jax.jit(functools.partial(value_and_grad, pool))
    return jax.device_get(both(x, jnp.asarray(g, jnp.float32)))


@every_case
@pytest.mark.parametrize("kind", ["max", "min", "sum", "avg"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_values_and_gradients(kind, dtype, case):
    x = tied(case.shape, 0, (np.inf, np.nan) if kind == "max" else ())
    pool, kwargs = getattr(jaxpool, f"{kind}_pool"), case.kwargs()
    g = cotangent(jaxpool.output_shape(case.shape, **kwargs))
    got = passes(lambda x: pool(x, **kwargs), jnp.asarray(x, dtype), g)
    close = {"rtol": 1e-5 if dtype == jnp.float32 else 2**-6, "atol": 1e-5}
    for a, b in zip(got, pool_and_grad(x, g, kind, **kwargs), strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float32), b, **close)


@every_case
def test_masks(case):
    x, kwargs = tied(case.shape), case.kwargs()
    kwargs |= {"where": mask(case.shape), "empty_value": -7}
    g = cotangent(jaxpool.output_shape(case.shape, **case.kwargs()))
    got = passes(lambda x: jaxpool.max_pool(x, **kwargs), x, g)
    for a, b in zip(got, pool_and_grad(x, g, "max", **kwargs), strict=True):
        np.testing.assert_array_equal(a, b)


def test_gradients_are_the_same_every_time():
    x = jax.random.normal(jax.random.key(0), (8, 56, 56, 32))
    g = jax.random.normal(jax.random.key(1), (8, 28, 28, 32))
    grad = jax.jit(
        lambda x, g: jax.vjp(lambda x: jaxpool.max_pool(x, (3, 3), 2, "SAME"), x)[1](g)
    )
    first = jax.device_get(grad(x, g)[0])
    for _ in range(5):
        np.testing.assert_array_equal(grad(x, g)[0], first)


def test_every_operator_runs():
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 4))
    for name in KINDS:
        windowed = getattr(jaxpool, f"{name}_pool")(x, (2, 2))
        whole = getattr(jaxpool, f"global_{name}_pool")(x)
        assert np.isfinite(windowed).all()
        assert np.isfinite(whole).all()
