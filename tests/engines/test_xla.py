"""XLA's own windows where an axis that is not pooled fills the lanes of a TPU.

Then cells look for their windows in blocks, and 16-bit floats win in one number with
their places. A CPU takes that way by name.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpool
from tests import oracle
from tests.cases import (
    NAMED_CASES,
    SPECIALS,
    Case,
    cotangent,
    every_extreme,
    mask,
    quick_jit,
    tied,
    value_and_grad,
    with_indices,
)

LANES = 128  # of a TPU

BLOCKS = [
    Case((1, 12, 8, 2), (3, 3), 2, "SAME"),
    Case((1, 12, 8, 2), (3, 3), 2, 1),
    Case((1, 10, 8, 2), (3, 3), 2, ((2, 0), (0, 2))),
    Case((1, 9, 8, 2), (3, 3), (2, 3), "SAME_LOWER"),
    Case((1, 8, 12, 2), (5, 4), 2, "SAME"),
    Case((1, 12, 12, 2), (5, 7), (4, 3), "SAME"),
    Case((1, 12, 9, 2), (3, 2), (2, 1), 1),
    Case((1, 12, 9, 2), (3, 2), (4, 3), 0),
    Case((1, 16, 12, 2), (2, 3), (4, 2), "SAME", (3, 2)),
    Case((1, 8, 4, 4, 2), (3, 3, 3), 2, "SAME"),
    Case((1, 8, 4, 4, 2), (5, 5, 5), 2, "SAME"),
    Case((2, 16, 2), (3,), 2, "SAME"),
    Case((1, 11, 9, 2), (3, 3), 2, 1, ceil_mode=True),
]


def filled(x, case, which):
    """`x` tiled along an axis that is not pooled, and how to have it back.

    The last such axis, or the first.
    """
    pooled = {
        axis % x.ndim for axis in oracle._pooled_axes(x.ndim, case.window, case.axes)
    }
    free = [axis for axis in range(x.ndim) if axis not in pooled and x.shape[axis]]
    if not free or not x.size:
        pytest.skip("nothing to tile")
    times = [1] * x.ndim
    times[free[which]] = -(-LANES // x.shape[free[which]])

    def first(y):
        y = np.asarray(y).astype(np.float64)
        parts = np.split(y, times[free[which]], free[which])
        for part in parts:
            np.testing.assert_array_equal(part, parts[0])
        return parts[0]

    return (lambda a: np.tile(a, times)), first


@pytest.mark.slow
@pytest.mark.share(18)
@pytest.mark.parametrize("which", [-1, 0])
@every_extreme
@pytest.mark.parametrize("case", [*NAMED_CASES, *BLOCKS])
def test_values_winners_and_gradients(case, kind, which):
    x = tied(case.shape, specials=(*SPECIALS, -0.0))
    tile, first = filled(x, case, which)
    kwargs = case.kwargs()
    want, _ = oracle.pool_and_grad(x, None, kind, **kwargs)
    g = cotangent(want.shape)
    _, dx = oracle.pool_and_grad(x, g, kind, **kwargs)
    pooled = with_indices(kind, implementation="reduce_window", **kwargs)
    others = with_indices(kind, implementation="slices", **kwargs)

    @quick_jit
    def run(x, g):
        (y, indices), dx = value_and_grad(pooled, x, g)
        return y, indices, others(x)[1], dx

    for dtype in ("float32", "bfloat16", "float16"):
        got = [first(part) for part in run(tile(x).astype(dtype), tile(g))]
        np.testing.assert_array_equal(got[0], want, err_msg=dtype)
        np.testing.assert_array_equal(got[1], got[2], err_msg=dtype)
        np.testing.assert_array_equal(got[3], dx, err_msg=dtype)


@pytest.mark.share(18)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@every_extreme
def test_every_16_bit_float_keeps_its_bits(dtype, kind):
    """Alone in its window, and but for NaN where it wins."""
    every = np.arange(1 << 16, dtype=np.uint16).view(dtype).reshape(-1, 1, 128)
    worst = -np.inf if kind == "max" else np.inf
    x = np.concatenate([every, *[np.full_like(every, worst)] * 3], 1)
    pooled = with_indices(kind, window=4, axes=1, implementation="reduce_window")
    y, indices = pooled(x)
    np.testing.assert_array_equal(indices, 0)
    with np.errstate(invalid="ignore"):
        y, is_nan = np.asarray(y), np.isnan(every)
        np.testing.assert_array_equal(np.isnan(y), is_nan)
    bits = [a.view(np.uint16)[~is_nan] for a in (y, every)]
    np.testing.assert_array_equal(*bits)


@pytest.mark.share(18)
@every_extreme
@pytest.mark.parametrize("zeros", [(-0.0, 0.0), (0.0, -0.0)])
def test_the_first_zero_wins_whatever_its_sign(kind, zeros):
    cells = *zeros, *[-np.inf if kind == "max" else np.inf] * 2
    x = np.tile(np.asarray(cells, jnp.bfloat16)[:, None], (1, LANES))
    pooled = with_indices(kind, window=4, axes=0, implementation="reduce_window")
    y, indices = pooled(x)
    np.testing.assert_array_equal(indices, 0)
    np.testing.assert_array_equal(np.signbit(y), np.signbit(zeros[0]))


@pytest.mark.share(18)
@every_extreme
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_windows_of_padding_only(dtype, kind):
    """The cells of a dilated window lie around the only one of the input."""
    x = tied((1, 1, 16, LANES)).astype(dtype)
    geometry = {"window": (2, 2), "strides": (1, 8), "padding": 1, "dilation": 2}
    pooled = with_indices(
        kind, implementation="reduce_window", empty_value=7, **geometry
    )
    (y, indices), dx = value_and_grad(pooled, x)
    np.testing.assert_array_equal(y, 7)
    np.testing.assert_array_equal(indices, -1)
    np.testing.assert_array_equal(dx, 0)


@pytest.mark.share(18)
@every_extreme
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_masked_cells_never_win(dtype, kind):
    """With a mask no 16-bit float is packed."""
    x, where = tied((1, 8, 8, LANES)).astype(dtype), mask((1, 8, 8, 1), keep=0.3)
    geometry = {"window": (3, 3), "strides": 2, "padding": 1, "where": where}

    def run(implementation):
        pool = with_indices(kind, implementation=implementation, **geometry)
        (y, indices), dx = value_and_grad(pool, x)
        return y, indices, dx

    for got, want in zip(run("reduce_window"), run("slices"), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.share(18)
@pytest.mark.parametrize(("strides", "channels"), [(2, LANES), (2, 96), (1, LANES)])
def test_cotangents_of_16_bits_are_added_up_in_32(strides, channels):
    """In blocks, of repeated windows, at stride 1: one cell wins several windows."""
    x = np.zeros((1, 8, 8, channels), jnp.bfloat16)
    x[:, 2, 2] = 1

    def back(x, g):
        pool = functools.partial(jaxpool.max_pool, implementation="reduce_window")
        return jax.vjp(lambda x: pool(x, (3, 3), strides), x)[1](g)[0]

    shape = jax.eval_shape(lambda x: jaxpool.max_pool(x, (3, 3), strides), x).shape
    g = np.random.default_rng(0).normal(size=shape).astype(x.dtype)
    exact = back(x.astype(np.float32), g.astype(np.float32))
    np.testing.assert_array_equal(back(x, g), exact.astype(x.dtype))
