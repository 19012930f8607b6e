"""Derivatives of norms: in steps, at once, and of an independent norm."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpool
from tests.cases import distinct
from tests.twin import twin


@pytest.mark.parametrize("window", [9, 11, 13, 23])
@pytest.mark.parametrize("dilation", [1, 2])
def test_long_norms_are_the_same_in_steps_as_at_once(window, dilation):
    """Also of lengths that runs of cells do not divide."""
    x = distinct((2, 61, 1)) / 40 + 0.01

    def derivatives(implementation):
        kwargs = {"padding": "SAME", "dilation": dilation}
        pool = functools.partial(
            jaxpool.lp_pool, window=window, strides=1, axes=1, p=3, **kwargs
        )
        pool = functools.partial(pool, implementation=implementation)
        y, pull = jax.vjp(pool, x)
        push = jax.jvp(pool, (x,), (x[:, ::-1],))[1]
        return y, push, pull(y)[0]

    wants = jax.jit(derivatives, static_argnums=0)("slices")
    gots = jax.jit(derivatives, static_argnums=0)("doubling")
    for got, want in zip(gots, wants, strict=True):
        np.testing.assert_allclose(got, want, 1e-5, 1e-5)


@pytest.mark.parametrize(
    ("window", "strides"), [(4, 2), (5, 3), (6, 4), (8, 3), (2, 3)]
)
@pytest.mark.parametrize("dilation", [1, 2])
def test_norms_of_cells_that_few_windows_cover(window, strides, dilation):
    x, v = distinct((1, 12, 11, 2)) / 64 + 0.01, distinct((1, 12, 11, 2))[:, ::-1]
    kwargs = {"window": (window, 3), "strides": (strides, 2), "padding": "SAME"}
    kwargs["dilation"] = dilation

    def derivatives(pool):
        y, pull = jax.vjp(pool, x)
        second = jax.grad(
            lambda x: (jax.grad(lambda x: (pool(x) ** 3).sum())(x) * v).sum()
        )
        return y, pull(jnp.cos(y))[0], second(x) / 1e3

    wants = jax.jit(lambda: derivatives(twin("lp", x.shape, **kwargs)))()
    gots = jax.jit(lambda: derivatives(functools.partial(jaxpool.lp_pool, **kwargs)))()
    for got, want in zip(gots, wants, strict=True):
        np.testing.assert_allclose(got, want, 1e-4, 1e-4)
