"""max_pool and min_pool: every geometry against the oracle, value and gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxpool
from tests import oracle
from tests.cases import (
    NAMED_CASES,
    NAMED_RUNS,
    SPECIALS,
    Case,
    cases,
    check_against_oracle,
    distinct,
    every_extreme,
    every_implementation,
    mask,
    pooling,
    tied,
    value_and_vjp,
)


def check(case, implementation, seed=0):
    """Ties, NaN and infinities; maxima of all cells, minima of the unmasked."""
    kwargs = case.kwargs() | {"implementation": implementation}
    masked = kwargs | {"where": mask(case.shape, seed), "empty_value": -7}
    special = tied(case.shape, seed, SPECIALS)
    check_against_oracle([("max", special, kwargs), ("min", special, masked)])


@pytest.mark.share(8)
@pytest.mark.parametrize(("case", "implementation"), NAMED_RUNS)
def test_named_case(case, implementation):
    check(case, implementation)


@pytest.mark.share(8)
@every_implementation
@settings(max_examples=5)
@given(case=cases(), seed=st.integers(0, 99))
def test_random_case(case, seed, implementation):
    check(case, implementation, seed)


def test_min_is_minus_max_of_minus():
    x = distinct((2, 7, 6, 3))
    args = (3, 2), (2, 1), "SAME"
    np.testing.assert_array_equal(
        jaxpool.min_pool(x, *args), -jaxpool.max_pool(-x, *args)
    )


@pytest.mark.share(8)
@every_extreme
@pytest.mark.parametrize("padding", ["VALID", "SAME", 1, ((0, 2), (2, 1))])
def test_gradient_sums_to_cotangent(kind, padding):
    op = getattr(jaxpool, f"{kind}_pool")
    kwargs = {"window": (3, 3), "strides": (1, 2), "padding": padding, "dilation": 2}
    shape = jaxpool.output_shape((2, 9, 11, 3), **kwargs)
    g = np.arange(np.prod(shape)).reshape(shape) % 5
    ((_, dx),) = value_and_vjp([(op, kwargs, tied((2, 9, 11, 3)), g)])
    np.testing.assert_array_equal(dx.sum((1, 2)), g.sum((1, 2)))


def test_where_broadcasts():
    x = tied((2, 6, 5, 3))
    rows, plane = mask((1, 6, 1, 1)), mask((2, 6, 5, 1), seed=1)
    for where in (rows, plane, np.bool_(True), plane[:1]):
        got = jaxpool.max_pool(x, (3, 2), where=where, empty_value=9)
        whole = np.broadcast_to(where, x.shape)
        want = oracle.pool(x, "max", (3, 2), where=whole, empty_value=9)
        np.testing.assert_array_equal(got, want)


@pytest.mark.share(8)
@every_extreme
@pytest.mark.parametrize("empty_value", [0, 3.5, -np.inf, np.nan])
def test_window_without_valid_cell(kind, empty_value):
    op = getattr(jaxpool, f"{kind}_pool")
    x = np.array([np.nan, 5, 1, 2], np.float32)[:, None]
    kwargs = {"window": (2,), "where": np.array([False, False, True, True])[:, None]}
    kwargs["empty_value"] = empty_value
    ((y, dx),) = value_and_vjp([(op, kwargs, x, np.ones((2, 1)))])
    best = 2 if kind == "max" else 1
    np.testing.assert_array_equal(y.ravel(), np.float32([empty_value, best]))
    np.testing.assert_array_equal(dx.ravel(), x.ravel() == best)


def test_axes_in_any_order_pair_with_window():
    x = distinct((2, 5, 7, 3))
    got = jaxpool.max_pool(x, (3, 2), (1, 2), ((1, 0), (0, 1)), axes=(2, 1))
    want = jaxpool.max_pool(x, (2, 3), (2, 1), ((0, 1), (1, 0)), axes=(1, 2))
    np.testing.assert_array_equal(got, want)


@pytest.mark.share(8)
@every_extreme
def test_window_one_is_identity(kind):
    x = tied((2, 4, 3, 2), specials=SPECIALS)
    np.testing.assert_array_equal(pooling(kind, window=(1, 1))(x), x)


def test_shift_by_a_stride_shifts_the_output():
    x = distinct((1, 12, 2))
    whole = jaxpool.max_pool(x, (3,), (2,))
    np.testing.assert_array_equal(jaxpool.max_pool(x[:, 2:], (3,), (2,)), whole[:, 1:])


def test_int_and_numpy_arguments():
    x = distinct((1, 7, 7, 1))
    want = jaxpool.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)), dilation=(1, 1))
    for window in ([3, 3], np.array([3, 3]), (np.int64(3), 3)):
        got = jaxpool.max_pool(x, window, np.int32(2), np.int64(1))
        np.testing.assert_array_equal(got, want)


def test_max_pool_of_a_numpy_array_is_a_jax_array():
    assert isinstance(jaxpool.max_pool(np.ones((1, 2, 1)), (2,)), jax.Array)


@pytest.mark.share(8)
@pytest.mark.parametrize("case", NAMED_CASES)
def test_output_shape(case):
    x = jax.ShapeDtypeStruct(case.shape, jnp.float32)
    kwargs = case.kwargs()
    got = jaxpool.output_shape(case.shape, **kwargs)
    assert isinstance(got, tuple)
    assert got == oracle.pool(np.zeros(case.shape), "sum", **kwargs).shape
    assert got == jax.eval_shape(lambda x: jaxpool.max_pool(x, **kwargs), x).shape


@given(case=cases())
def test_output_shape_random(case):
    want = oracle.pool(np.zeros(case.shape), "sum", **case.kwargs()).shape
    assert jaxpool.output_shape(case.shape, **case.kwargs()) == want


def test_pool_takes_any_associative_op():
    x = distinct((1, 7, 6, 2)) / 8
    args = (3, 2), (2, 1), ((1, 0), (0, 1))
    table = {
        jax.lax.max: (-np.inf, jaxpool.max_pool),
        jax.lax.min: (np.inf, jaxpool.min_pool),
        jax.lax.add: (0.0, jaxpool.sum_pool),
    }
    for op, (init, operator) in table.items():
        got = jaxpool.pool(x, init, op, *args)
        np.testing.assert_array_equal(got, operator(x, *args))
    product = jaxpool.pool(x[:, :6, :, :], 1.0, jax.lax.mul, (2, 2))
    blocks = x[:, :6].reshape(1, 3, 2, 3, 2, 2)
    np.testing.assert_allclose(product, blocks.prod((2, 4)), rtol=1e-6)


def test_pool_geometry():
    case = Case((6, 2, 9), (2, 3), (1, 2), ((1, 1), (0, 2)), (1, 2), (0, -1), True)
    x = distinct(case.shape)
    got = jaxpool.pool(x, 0.0, jax.lax.add, **case.kwargs())
    np.testing.assert_array_equal(got, oracle.pool(x, "sum", **case.kwargs()))


@pytest.mark.share(8)
@every_implementation
@pytest.mark.parametrize("window", [(3, 2), (20, 1)])
def test_pool_takes_the_cells_in_row_major_order(window, implementation):
    x = distinct((1, 23, 5, 2))
    rows, columns = window
    last = jaxpool.pool(
        x, 0.0, lambda a, b: b, window, 1, implementation=implementation
    )
    np.testing.assert_array_equal(last, x[:, rows - 1 :, columns - 1 :])


def test_runs_that_overlap_send_a_cotangent_to_one_cell():
    """Back from 9 and more cells in runs; the last run is longer than the others."""
    rng = np.random.default_rng(0)
    for window, stride, dilation in ((9, 1, 1), (11, 1, 1), (15, 2, 1), (12, 1, 2)):
        x = rng.permutation(64).astype(np.float32)
        pool = functools.partial(
            jaxpool.max_pool, window=window, strides=stride, dilation=dilation, axes=0
        )
        y, back = jax.vjp(pool, jnp.asarray(x))
        g = rng.integers(1, 9, y.shape).astype(np.float32)
        want = np.zeros_like(x)
        for o, cotangent in enumerate(g):
            cells = o * stride + dilation * np.arange(window)
            want[cells[x[cells].argmax()]] += cotangent
        np.testing.assert_array_equal(back(jnp.asarray(g))[0], want)
