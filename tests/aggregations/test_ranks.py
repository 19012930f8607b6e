"""Medians, quantiles, means of the largest: NaN, ties, masks, long windows, devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpool import (
    Median,
    Quantile,
    TopKMean,
    aggregate,
    bins,
    neighbors,
    segments,
    whole,
    windows,
)
from tests.cases import distinct, mask
from tests.engines.test_platforms import traced_for

SHAPE = (2, 9, 7, 3)


def gradient(pool, x):
    return jax.grad(lambda x: pool(x).sum())(jnp.asarray(x))


@pytest.mark.parametrize("window", [(2, 2), (3, 3), (6, 6), (9, 7)])
@pytest.mark.parametrize("q", [0.0, 0.25, 0.5, 1.0])
def test_quantiles_of_windows(window, q):
    """Networks, and from 33 cells on XLA's sort; beside NumPy."""
    x = distinct(SHAPE)
    got = aggregate(x, Quantile(q), windows(window, 1))
    view = np.lib.stride_tricks.sliding_window_view(x, window, (1, 2))
    np.testing.assert_allclose(got, np.quantile(view, q, (-2, -1)), rtol=1e-6)


def test_a_mean_of_two_middles_has_both_gradients():
    x = np.float32([4, 1, 3, 9])
    pool = functools.partial(aggregate, by=Median(), over=whole(0))
    assert pool(x) == 3.5
    np.testing.assert_array_equal(gradient(pool, x), [0.5, 0, 0.5, 0])
    by = Quantile(0.25)
    pool = functools.partial(aggregate, by=by, over=whole(0))
    np.testing.assert_allclose(gradient(pool, x), [0, 0.25, 0.75, 0])


def test_windows_may_pick_apart_in_a_row():
    """So no gradient goes axis by axis, as that of a maximum does."""
    x = distinct((1, 6, 6, 1))
    over = windows((3, 3), 1)
    want = np.zeros(36)
    for row in range(4):
        for column in range(4):
            cells = x[0, row : row + 3, column : column + 3, 0]
            at = np.unravel_index(np.argsort(cells.ravel())[4], (3, 3))
            want[(row + at[0]) * 6 + column + at[1]] += row * 4 + column + 1
    weights = jnp.arange(1.0, 17).reshape(1, 4, 4, 1)
    pool = functools.partial(aggregate, by=Median(), over=over)
    got = gradient(lambda x: pool(x) * weights, x)
    np.testing.assert_array_equal(got.ravel(), want)


DOMAINS = {
    "windows": windows((3, 2), 1, "SAME"),
    "dilated, strided": windows((3, 2), (2, 3), 1, dilation=2),
    "whole": whole(),
    "bins": bins((4, 3)),
    "segments": segments(np.asarray([0, 1, 0, -1, 2, 1, 0, 4, 4]), 5, axis=1),
    "neighbors": neighbors(np.asarray([[0, 4, 8], [-1, 2, 2], [-1, -1, -1]]), axis=1),
}
every_domain = pytest.mark.parametrize("domain", DOMAINS)


@pytest.mark.slow
@every_domain
def test_one_largest_is_the_maximum_and_all_of_them_the_average(domain):
    x, over, where = distinct(SHAPE), DOMAINS[domain], mask(SHAPE)
    for by, same in (
        (TopKMean(1), "max"),
        (TopKMean(1000), "avg"),
        (Quantile(1), "max"),
    ):
        got, want = (
            functools.partial(aggregate, by=one, over=over, where=where, empty_value=-5)
            for one in (by, same)
        )
        np.testing.assert_allclose(got(x), want(x), rtol=1e-6)
        np.testing.assert_allclose(gradient(got, x), gradient(want, x), rtol=1e-6)


@every_domain
def test_ties_and_nan_are_those_of_a_maximum(domain):
    x = np.float32(np.arange(378) % 3).reshape(SHAPE)
    over = DOMAINS[domain]
    got, want = (
        functools.partial(aggregate, by=by, over=over) for by in (TopKMean(1), "max")
    )
    np.testing.assert_array_equal(gradient(got, x), gradient(want, x))
    x[0, ::4, ::3] = np.nan
    np.testing.assert_array_equal(got(x), want(x))
    np.testing.assert_array_equal(gradient(got, x), gradient(want, x))
    median = functools.partial(aggregate, by=Median(), over=over)
    np.testing.assert_array_equal(np.isnan(median(x)), np.isnan(want(x)))
    finite = median(x, where=x == x, empty_value=-1)
    assert np.isfinite(finite).all()


@pytest.mark.slow
@every_domain
def test_shares_of_a_nan_add_up_to_one(domain):
    """Also where more cells are asked for than an output has."""
    x = np.float32(np.arange(378)).reshape(SHAPE)
    kept = np.arange(378).reshape(SHAPE) % 3 > 0
    x[0, ::4, ::3] = np.nan
    kept[0, ::4, ::3] = True
    pool = functools.partial(aggregate, over=DOMAINS[domain], where=kept)
    got, want = (
        gradient(functools.partial(pool, by=by), x) for by in (TopKMean(50), "max")
    )
    is_nan = np.isnan(x)
    np.testing.assert_allclose(got[is_nan], want[is_nan], rtol=1e-6)


@pytest.mark.slow
@every_domain
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_forms_of_other_platforms(domain, platform):
    x, over = distinct(SHAPE), DOMAINS[domain]
    for by in (Median(), TopKMean(2)):
        pool = functools.partial(aggregate, by=by, over=over)
        want = pool(x), gradient(pool, x)
        with traced_for(platform):
            program = jax.jit(functools.partial(gradient, pool))
            assert "scatter" not in program.lower(x).as_text()
            got = pool(x), program(x)
        for one, other in zip(got, want, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6)


def test_infinities_are_numbers():
    x = np.float32([np.inf, 1, -np.inf, 2, 3])
    assert aggregate(x, Median(), whole(0)) == 2
    assert aggregate(x, Quantile(0.5), windows(3, 1, axes=0)).tolist() == [1, 1, 2]
    assert aggregate(x, TopKMean(1), windows(3, 1, axes=0)).tolist() == [np.inf, 2, 3]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16, np.int8, np.int32])
def test_dtypes(dtype):
    x = jnp.asarray([5, 1, 4, 2], dtype)
    got = aggregate(x, Median(), whole(0))
    assert got == 3
    assert got.dtype == (dtype if jnp.issubdtype(dtype, jnp.floating) else np.float32)


@pytest.mark.parametrize("size", [8, 33])
def test_float64_quantiles_have_places_in_float64(size):
    x = np.random.default_rng(0).normal(size=(size, 3))
    with jax.enable_x64(True):
        for over in (whole(0), windows(size, axes=0)):
            got = aggregate(x, Quantile(0.3), over).reshape(3)
            np.testing.assert_allclose(got, np.quantile(x, 0.3, axis=0), rtol=1e-13)


@pytest.mark.parametrize("q", [0.07, 0.14, 0.15, 0.28, 0.29, 0.55, 0.57, 0.58])
@pytest.mark.parametrize("over", [whole(0), segments(np.zeros(101, int), 1, axis=0)])
def test_places_of_quantiles_are_whole_numbers_where_those_of_float64_are(q, over):
    cells = np.arange(101, dtype=np.float32)
    cells[round(100 * q) + 1 :] = np.inf
    assert aggregate(cells, Quantile(q), over).item() == round(100 * q)


@pytest.mark.parametrize(
    ("by", "message"),
    [
        (Quantile(1.5), "q must be a number from 0 to 1"),
        (TopKMean(0), "k must be at least 1"),
    ],
)
def test_wrong_numbers(by, message):
    with pytest.raises(ValueError, match=message):
        aggregate(distinct(SHAPE), by, whole())


def test_symbolic_sizes_are_refused():
    (size,) = jax.export.symbolic_shape("n")
    x = jax.ShapeDtypeStruct((size, 3), np.float32)
    pool = jax.jit(lambda x: aggregate(x, Median(), whole(0)))
    with pytest.raises(NotImplementedError, match="needs known sizes"):
        jax.export.export(pool)(x)
