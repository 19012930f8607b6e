"""Variances: exact near 1e8, long windows, few cells, numbers of cells."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpool import StandardDeviation, Variance, aggregate, bins, segments, whole
from jaxpool import windows as of_windows
from tests import oracle
from tests.engines.test_platforms import traced_for

STEPS = np.random.default_rng(0).integers(0, 20, (40, 3))
LARGE = np.float32(1e8 + 8 * STEPS)  # neighbours of 1e8 in float32 are 8 apart


def variances(x, window, strides, padding, dilation):
    """In float64, cell by cell."""
    geometry = (window,), (strides,), ((padding, padding),), (dilation,), 0
    out, table = oracle.windows(x.shape, *geometry)
    each = [[cell for (cell,) in cells] for cells, _ in table.values()]
    wide = np.asarray(x, np.float64)
    assert out == (len(each),)
    return np.stack([wide[cells].var(0) if cells else 0 * wide[0] for cells in each])


@pytest.mark.parametrize(
    "geometry",
    [
        (3, 1, 0, 1),
        (3, 3, 0, 1),
        (3, 2, 1, 3),
        (2, 1, 1, 4),  # windows of padding
        (33, 1, 0, 1),  # two passes, and cells that remain
        (36, 2, 3, 1),
        (37, 1, 18, 1),
        (34, 3, 16, 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_numbers_near_1e8_keep_their_variance(geometry, platform):
    window, strides, padding, dilation = geometry
    over = of_windows(window, strides, padding, dilation=dilation, axes=0)
    with traced_for(platform):
        got = aggregate(LARGE, Variance(), over)
    want = variances(LARGE, *geometry)
    np.testing.assert_allclose(got, want, rtol=3e-7)


def test_other_domains_near_1e8():
    x = LARGE[:6, 0]
    wide = np.asarray(x, np.float64)
    for over, cells in (
        (whole(0), [[0, 1, 2, 3, 4, 5]]),
        (bins(4, axes=0), [[0, 1], [1, 2], [3, 4], [4, 5]]),
        (segments(np.asarray([1, 0, 1, 1, 0, -1]), 2, axis=0), [[1, 4], [0, 2, 3]]),
    ):
        got = aggregate(x, Variance(), over).reshape(-1)
        want = [wide[each].var() for each in cells]
        np.testing.assert_allclose(got, want, rtol=2e-7)


def test_one_cell_has_variance_and_gradient_0():
    x = jnp.asarray([5.0])
    pool = lambda x: aggregate(x, StandardDeviation(eps=1e-6), whole(0))  # noqa: E731
    assert aggregate(x, Variance(), whole(0)) == 0
    assert jax.grad(pool)(x) == 0
    np.testing.assert_allclose(pool(x), 1e-3, rtol=1e-6)


def test_equal_cells_have_a_finite_gradient():
    x = jnp.full((2, 3), 7.0)
    pool = lambda x: aggregate(x, StandardDeviation(), whole(1)).sum()  # noqa: E731
    np.testing.assert_array_equal(jax.grad(pool)(x), 0 * x)
    np.testing.assert_array_equal(jax.hessian(pool)(x), jnp.zeros((2, 3, 2, 3)))


def test_not_more_cells_than_ddof_are_empty():
    x, where = np.float32([[1, 3, 8], [2, 4, 6]]), np.asarray([[1, 1, 0], [0, 1, 0]])
    got = aggregate(
        x, Variance(ddof=1), whole(1), where=where.astype(bool), empty_value=-1
    )
    np.testing.assert_array_equal(got, [2, -1])


def test_a_shift_changes_nothing():
    x = np.float32(STEPS)
    over = of_windows(5, 2, 1, axes=0)
    for shift in (0, 2.0**20, -(2.0**23)):
        got = aggregate(x + np.float32(shift), Variance(), over)
        np.testing.assert_allclose(got, variances(x, 5, 2, 1, 1), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.int32])
def test_dtypes(dtype):
    x = jnp.asarray(STEPS, dtype)
    got = aggregate(x, Variance(), whole(0))
    assert got.dtype == (np.float32 if dtype is np.int32 else dtype)
    want = STEPS.astype(np.float64).var(0)
    np.testing.assert_allclose(np.asarray(got, np.float64), want, rtol=1e-2)


@pytest.mark.parametrize("dtype", [np.int32, np.uint32])
@pytest.mark.parametrize(("near", "rtol"), [(2**26, 1e-6), (-40, 5e-3)])
def test_integers_that_are_no_float32(dtype, near, rtol):
    """Up to the largest, where only each 256th is one."""
    near = near if near > 0 else np.iinfo(dtype).max + near
    x = (near + np.asarray([[0, 1, 3], [7, 0, 2], [40, 5, 5], [0, 9, 8]])).astype(dtype)
    close = functools.partial(np.testing.assert_allclose, rtol=rtol)
    ids = np.asarray([1, 0, 0, 1])
    domains = [whole(0), bins(3, axes=0), segments(ids, 2, axis=0)]
    for over in (*domains, of_windows(3, 1, axes=0), of_windows(2, 2, 1, axes=0)):
        got, want = (aggregate(a, Variance(), over) for a in (x, x - dtype(near)))
        close(got, want)
    long = np.tile(x, (100, 1))
    got = aggregate(long, Variance(), of_windows(80, 1, axes=0))
    close(got[0], (x - dtype(near)).var(0))
    got = aggregate(x, Variance(), whole(0), where=x != x.max())
    close(got[0], np.var([0, 7, 0]))


def test_long_integers_are_exact():
    with jax.enable_x64(True):
        x = jnp.asarray([[100000001], [100000003]], np.int64) + 2**40
        got = aggregate(x, Variance(), whole(0))
    assert got.dtype == np.float32
    assert got == 1


def test_long_segments_near_1e8():
    """The sum of one segment is one cell after another on a CPU."""
    ids = np.arange(30000) % 2
    x = np.float32(1e8 + 8 * (np.arange(30000) // 2 % 5))
    got = aggregate(x, Variance(), segments(ids, 2, axis=0))
    np.testing.assert_allclose(got, [128, 128], rtol=1e-5)


@pytest.mark.parametrize("by", [Variance(), StandardDeviation(eps=1.0)], ids=str)
def test_second_derivatives_where_all_cells_are_equal(by):
    """As of ReLUs that are all 0: 2 / n (1 - 1 / n), not half of it."""
    over = of_windows(3, 2, axes=0)
    hessian = jax.hessian(lambda x: aggregate(x, by, over)[0])(jnp.zeros(5))
    want = np.zeros((5, 5))
    want[:3, :3] = (np.eye(3) - 1 / 3) * 2 / 3
    want /= 2 if isinstance(by, StandardDeviation) else 1
    np.testing.assert_allclose(hessian, want, rtol=1e-6, atol=1e-7)


def test_long_windows_of_large_floats():
    """Windows of two passes, whose last runs hold padding only."""
    over = of_windows(37, 1, "SAME", axes=0)
    got = aggregate(np.full(40, 2e19, np.float32), StandardDeviation(), over)
    np.testing.assert_array_equal(got, 0)


def test_nan_stays_in_its_window():
    x = np.float32(STEPS[:6, 0])
    x[1] = np.nan
    got = aggregate(x, Variance(), of_windows(2, axes=0))
    assert np.isnan(got).tolist() == [True, False, False]
    masked = aggregate(x, Variance(), of_windows(2, axes=0), where=x == x)
    assert masked[0] == 0


@pytest.mark.parametrize(
    ("by", "message"),
    [
        (Variance(-1), "ddof must be at least 0"),
        (StandardDeviation(eps=-1), "eps must be a number of at least 0"),
    ],
)
def test_wrong_numbers(by, message):
    with pytest.raises(ValueError, match=message):
        aggregate(LARGE, by, whole(0))


def test_a_named_form_is_refused():
    over = of_windows(2, axes=0)
    with pytest.raises(NotImplementedError, match="have one form"):
        aggregate(LARGE, Variance(), over, implementation="slices")
