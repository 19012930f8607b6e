"""Log-sum-exp: against jax's own and the oracle, at its edges, in every form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpool
from tests import oracle
from tests.cases import (
    CLOSE,
    IMPLEMENTATIONS,
    NAMED_RUNS,
    check_against_oracle,
    cotangent,
    distinct,
    every_implementation,
    mask,
    value_and_grad,
)

INF, NAN = np.inf, np.nan


@pytest.mark.share(10)
@pytest.mark.parametrize(("case", "implementation"), NAMED_RUNS)
def test_named_geometries(case, implementation):
    """Of numbers that are large beside their differences, with and without a mask."""
    kwargs = case.kwargs() | {"implementation": implementation}
    x = distinct(case.shape) / 4 + 60
    masked = kwargs | {"where": mask(case.shape), "empty_value": 7}
    checks = [("logsumexp", x, kwargs), ("logsumexp", x, masked)]
    check_against_oracle(checks, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_whole_axes(keepdims, masked):
    x = distinct((2, 5, 4, 3)) / 8
    where = mask(x.shape) if masked else None
    pool = functools.partial(
        jaxpool.global_logsumexp_pool, keepdims=keepdims, where=where
    )
    want = functools.partial(
        jax.nn.logsumexp, axis=(1, 2), keepdims=keepdims, where=where
    )
    for got, wanted in zip(*(value_and_grad(f, x) for f in (pool, want)), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("output_shape", [(3, 2), (4, 3), (1, 1), (7, 5)])
def test_bins(output_shape):
    x = distinct((2, 7, 5, 3)) / 8
    pool = functools.partial(jaxpool.adaptive_logsumexp_pool, output_shape=output_shape)
    g = cotangent((2, *output_shape, 3))
    want = oracle.adaptive(x, g, "logsumexp", output_shape)
    y, dx = value_and_grad(jax.jit(pool), x, g)
    np.testing.assert_allclose(y, want[0], **CLOSE)
    np.testing.assert_allclose(dx, want[1], **CLOSE)


@every_implementation
@pytest.mark.parametrize("scale", [1.0, 1e4, 1e30])
def test_no_exponential_overflows(implementation, scale):
    """What large numbers exceed by the plain formula: inf and NaN."""
    x = jnp.asarray([1.0, -1, 1, 1, -1, -1]) * scale
    pool = functools.partial(
        jaxpool.logsumexp_pool, window=2, axes=0, implementation=implementation
    )
    y, dx = value_and_grad(pool, x)
    np.testing.assert_allclose(y, jax.nn.logsumexp(x.reshape(3, 2), 1), rtol=1e-6)
    np.testing.assert_allclose(dx, jax.nn.softmax(x.reshape(3, 2)).ravel(), rtol=1e-6)


@every_implementation
@pytest.mark.parametrize("window", [2, 12])
def test_infinities_and_nan(implementation, window):
    """-inf adds nothing, and inf takes all; NaN reaches its window alone."""
    rows = {
        (-INF, -INF): (-INF, 0, 0),
        (-INF, 3): (3, 0, 1),
        (INF, 3): (INF, 1, 0),
        (INF, -INF): (INF, 1, 0),
        (NAN, -INF): (NAN, NAN, 0),
        (NAN, 3): (NAN, NAN, NAN),
    }
    x = np.full((len(rows), window), -INF, np.float32)
    x[:, [0, -1]] = list(rows)
    pool = functools.partial(
        jaxpool.logsumexp_pool, window=window, axes=1, implementation=implementation
    )
    y, dx = value_and_grad(pool, jnp.asarray(x))
    wants = np.asarray(list(rows.values()))
    np.testing.assert_array_equal(y[:, 0], wants[:, 0])
    np.testing.assert_array_equal(dx[:, [0, -1]], wants[:, 1:])
    np.testing.assert_array_equal(dx[:, 1:-1], 0)


@every_implementation
def test_masked_cells_take_no_part(implementation):
    """Whatever they hold; a window without a valid cell has gradient 0."""
    x = jnp.asarray([NAN, 2.0, INF, NAN, 1.0, 1.0])
    where = jnp.asarray([False, True, False, False, True, True])
    pool = functools.partial(
        jaxpool.logsumexp_pool, window=2, axes=0, where=where, empty_value=-5
    )
    y, dx = value_and_grad(functools.partial(pool, implementation=implementation), x)
    np.testing.assert_allclose(y, [2, -5, 1 + np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(dx, [0, 1, 0, 0, 0.5, 0.5], rtol=1e-6)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("window", [3, 13])
def test_both_modes_to_second_order(implementation, window):
    x = jnp.asarray(distinct((17,)) / 4)
    pool = functools.partial(
        jaxpool.logsumexp_pool, strides=1, axes=0, implementation=implementation
    )

    def plain(x):
        cells = np.arange(18 - window)[:, None] + np.arange(window)
        return jax.nn.logsumexp(x[cells], 1)

    @functools.partial(jax.jit, static_argnums=0)
    def derivatives(pool):
        loss = lambda x: (pool(x) ** 2).sum()  # noqa: E731
        t = jnp.cos(x)
        return {
            "jvp": jax.jvp(pool, (x,), (t,)),
            "vjp": jax.grad(loss)(x),
            "forward over reverse": jax.jvp(jax.grad(loss), (x,), (t,))[1],
            "reverse over reverse": jax.grad(lambda x: jax.grad(loss)(x) @ t)(x),
            "reverse over forward": jax.grad(lambda x: jax.jvp(loss, (x,), (t,))[1])(x),
        }

    gots = derivatives(functools.partial(pool, window=window))
    jax.tree.map(
        lambda got, want: np.testing.assert_allclose(got, want, 1e-4, 1e-5),
        gots,
        derivatives(plain),
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_floats_add_up_in_float32(dtype):
    """A million equal cells: their number is beyond what the dtype counts to."""
    x = jnp.zeros((1 << 20, 1), dtype)
    y = jaxpool.global_logsumexp_pool(x, axes=0)
    np.testing.assert_allclose(np.float32(y), np.log(1 << 20), rtol=4e-3)
    np.testing.assert_array_equal(
        jax.grad(lambda x: jaxpool.global_logsumexp_pool(x, axes=0).sum())(x[:64]),
        jnp.full((64, 1), 1 / 64, dtype),
    )
