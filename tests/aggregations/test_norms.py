"""Derivatives of norms: in steps, at once, and of an independent norm."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpool
from tests import oracle
from tests.cases import distinct, quick_jit
from tests.twin import twin

LANES = 128  # of a TPU


@pytest.mark.share(10)
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


@pytest.mark.share(10)
@pytest.mark.parametrize(
    ("window", "strides"), [(4, 2), (5, 3), (6, 4), (8, 3), (2, 3)]
)
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("implementation", [None, "reduce_window"])
def test_norms_of_cells_that_few_windows_cover(
    window, strides, dilation, implementation
):
    kwargs = {"window": (window, 3), "strides": (strides, 2), "padding": "SAME"}
    check_derivatives((1, 12, 11, 2), implementation, kwargs | {"dilation": dilation})


@pytest.mark.share(10)
@pytest.mark.parametrize("rows", [11, 12])
@pytest.mark.parametrize(("window", "strides"), [(2, 2), (3, 2), (3, 3), (3, 1)])
def test_norms_where_channels_fill_the_lanes(window, strides, rows):
    """In blocks, with padding on both sides."""
    kwargs = {"window": (window,) * 2, "strides": strides, "padding": 1}
    check_derivatives((1, rows, 8, LANES), "reduce_window", kwargs)


def check_derivatives(shape, implementation, kwargs):
    """Values, the gradient and a product with the Hessian, against those of jax."""
    x, v = distinct(shape), distinct(shape)[:, ::-1]
    x, v = x / x.max() * 5 + 0.01, v / v.max() * 10
    pool = functools.partial(jaxpool.lp_pool, implementation=implementation)

    @functools.partial(quick_jit, static_argnums=0)
    def derivatives(pool, x, v):
        y, pull = jax.vjp(pool, x)
        second = jax.grad(
            lambda x: (jax.grad(lambda x: (pool(x) ** 3).sum())(x) * v).sum()
        )
        return y, pull(jnp.cos(y))[0], second(x) / 1e3

    wants = derivatives(twin("lp", shape, **kwargs), x, v)
    gots = derivatives(functools.partial(pool, **kwargs), x, v)
    for got, want in zip(gots, wants, strict=True):
        np.testing.assert_allclose(got, want, 1e-4, 1e-4)


@pytest.mark.share(10)
@pytest.mark.parametrize("p", [1.5, 2, 3])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("channels", [4, LANES])
def test_signs_zeros_and_infinities_at_once(channels, strides, p):
    """As in steps; each of them in windows of their own and with others."""
    x = jnp.asarray(distinct((1, 8, 12, channels))) - 200
    x = x.at[:, :4, :4].set(0).at[:, 4:, 9].set(jnp.inf).at[:, 1, 9].set(jnp.nan)

    def run(implementation):
        kwargs = {"strides": strides, "p": p, "implementation": implementation}
        y, pull = jax.vjp(lambda x: jaxpool.lp_pool(x, (3, 3), **kwargs), x)
        return y, pull(jnp.ones_like(y))[0]

    for got, want in zip(run("reduce_window"), run("slices"), strict=True):
        np.testing.assert_allclose(got, want, 1e-5)


@pytest.mark.share(10)
@pytest.mark.parametrize("implementation", [None, "reduce_window"])
@pytest.mark.parametrize("p", [1, 2, np.inf])
def test_whose_gradients_a_nan_makes_nan(p, implementation):
    x = jnp.asarray([1, 0, 3, 4, np.nan, 0, np.nan])

    def pool(x):
        kwargs = {"axes": 0, "p": p, "implementation": implementation}
        return jaxpool.lp_pool(x, 3, **kwargs).sum()

    others = p not in (1, np.inf)  # those are derivatives of |x|, NaN at every NaN
    is_nan = [False, False, False, others, True, False, False]  # no window reads [6]
    np.testing.assert_array_equal(np.isnan(jax.grad(pool)(x)), is_nan)


@pytest.mark.share(10)
@pytest.mark.parametrize("implementation", [None, "slices", "reduce_window"])
@pytest.mark.parametrize("p", [0.5, 1, 1.5, 2, 3, np.inf])
def test_a_cell_that_is_zero_of_either_sign_gets_no_gradient(p, implementation):
    """D11: also where the norm is the cell itself."""
    x = jnp.asarray([0.0, 0, 3, -0.0, -2, 0, -0.0, -0.0])
    kwargs = {"axes": 0, "p": p, "implementation": implementation}
    pool = functools.partial(jaxpool.lp_pool, window=2, **kwargs)
    got = jax.grad(lambda x: pool(x).sum())(x)
    np.testing.assert_array_equal(got, [0, 0, 1, 0, -1, 0, 0, 0])
    with jaxpool.forward_mode():
        got = jax.jvp(pool, (x,), (jnp.ones_like(x),))[1]
    np.testing.assert_array_equal(got, [0, 1, -1, 0])
    whole = functools.partial(jaxpool.global_lp_pool, axes=0, p=p)
    got = jax.grad(whole)(x[:2])
    np.testing.assert_array_equal(got, [0, 0])
    alone = functools.partial(jaxpool.lp_pool, window=1, **kwargs)
    got = jax.grad(lambda x: alone(x).sum())(x)
    np.testing.assert_array_equal(got, [0, 0, 1, 0, -1, 0, 0, 0])


@pytest.mark.share(10)
@pytest.mark.parametrize("implementation", ["slices", "doubling", "reduce_window"])
@pytest.mark.parametrize("window", [4, (2, 2), (12, 1), 12])
def test_zeros_and_cells_of_no_window_are_not_made_nan(window, implementation):
    """Also where the norm of a window, or of a column, goes through several steps."""
    x = np.ones((26, 26), np.float32)
    x[::3], x[1, ::5], x[:, 25] = 0, np.nan, 2
    x[25, 25] = np.nan
    kwargs = {"axes": (0, 1), "p": 3, "implementation": implementation}
    pooled = functools.partial(jaxpool.lp_pool, window=window, **kwargs)
    dx = jax.grad(lambda x: pooled(x).sum())(jnp.asarray(x))
    windows = np.broadcast_to(window, 2)
    want = oracle.grad(x, None, "lp", windows, axes=(0, 1), p=3)
    np.testing.assert_allclose(dx, want, 1e-5)


@pytest.mark.share(10)
@pytest.mark.parametrize("strides", [1, 2])
def test_norms_of_single_cells_are_absolute_values(strides):
    x = jnp.asarray([3.0, -4, 0, np.nan, -np.inf, -0.0])
    pool = functools.partial(jaxpool.lp_pool, window=1, strides=strides, axes=0, p=3)
    y, pull = jax.vjp(pool, x)
    np.testing.assert_array_equal(y, jnp.abs(x)[::strides])
    read = np.arange(6) % strides == 0
    want = np.where(read, np.sign(x), 0)
    np.testing.assert_array_equal(pull(jnp.ones_like(y))[0], want)


@pytest.mark.share(10)
@pytest.mark.parametrize("implementation", [None, "slices", "doubling"])
def test_second_derivatives_where_cotangents_cancel_inside_a_chain(implementation):
    """Half the sum of squares of 2-norms has a constant second derivative."""
    x = jnp.asarray([3.0, -5, -2, 5, 1, -4, 6, -6, 1, -1, 2, -3, 4])
    signs = jnp.asarray([1.0, 1, -1, -1, 1])

    def loss(x):
        y = jaxpool.lp_pool(x, 9, 1, axes=0, implementation=implementation)
        return (signs * y**2).sum() / 2

    counts = np.convolve(signs, np.ones(9))
    found = jax.jacrev(jax.grad(loss))(x)
    np.testing.assert_allclose(found, np.diag(counts), atol=1e-5)


@pytest.mark.parametrize("implementation", [None, "slices", "doubling"])
@pytest.mark.parametrize("p", [2.0, 3.0])
def test_a_norm_that_is_nan_and_has_no_cotangent(p, implementation):
    """Its cells get 0, and not 0 times NaN."""
    x = jnp.asarray([np.nan, 1.0, 3.0, 4.0])

    def last(x):
        pooled = jaxpool.lp_pool(x, 2, p=p, axes=0, implementation=implementation)
        return pooled[1]

    y, dx = jax.value_and_grad(last)(x)
    shares = (np.asarray([3.0, 4.0]) / float(y)) ** (p - 1)
    np.testing.assert_allclose(dx, [0, 0, *shares], rtol=1e-6)
