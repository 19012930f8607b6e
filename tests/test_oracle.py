"""The oracle itself, against figures published elsewhere and against counting."""

import numpy as np
import pytest

from tests import oracle

NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("size", "window", "kwargs", "out"),
    [
        (3, 2, {"strides": (2,), "padding": ((1, 1),), "ceil_mode": True}, 2),
        (2, 1, {"strides": (2,), "ceil_mode": True}, 1),
        (3, 2, {"strides": (3,), "ceil_mode": True}, 1),
        (6, 2, {"strides": (5,), "ceil_mode": True}, 2),
        (5, 3, {"strides": (3,), "padding": (1,), "ceil_mode": True}, 2),
        (5, 3, {"strides": (3,), "padding": (1,)}, 2),
        (5, 2, {"strides": (2,), "padding": "SAME"}, 3),
        (8, 3, {"strides": (1,), "padding": "CAUSAL", "dilation": (2,)}, 8),
    ],
)
def test_output_size(size, window, kwargs, out):
    assert oracle.windows((size, 1), (window,), **kwargs)[0] == (out,)


def test_windows_lists_valid_cells_row_major():
    out, table = oracle.windows((3, 3, 1), (2, 2), (2, 2), ((1, 0), (0, 1)))
    assert out == (2, 2)
    assert table[0, 0] == ([(0, 0), (0, 1)], 4)
    assert table[1, 0] == ([(1, 0), (1, 1), (2, 0), (2, 1)], 4)
    assert table[1, 1] == ([(1, 2), (2, 2)], 4)


@pytest.mark.parametrize(
    ("row", "window", "kwargs", "y", "dx"),
    [
        ([1, 1, 1, 1], 2, {}, [1, 1], [1, 0, 1, 0]),
        ([NAN, 1], 2, {}, [NAN], [1, 0]),
        ([1, NAN, 3], 3, {}, [NAN], [0, 1, 0]),
        ([NAN, 5, NAN], 3, {}, [NAN], [1, 0, 0]),
        ([-INF] * 4, 3, {"strides": 2, "padding": (1,)}, [-INF] * 2, [1, 1, 0, 0]),
        ([4, 9, 2], 2, {"strides": 1, "where": [[0], [0], [1]]}, [0, 2], [0, 0, 1]),
    ],
)
def test_max_owner(row, window, kwargs, y, dx):
    got = oracle.pool_and_grad(np.c_[row], None, "max", (window,), **kwargs)
    np.testing.assert_array_equal([*got[0].ravel(), *got[1].ravel()], [*y, *dx])


def test_grad_is_the_derivative():
    rng = np.random.default_rng(0)
    x = rng.permutation(30).reshape(1, 6, 5, 1) - 14.25
    case = {"strides": (2, 1), "padding": ((1, 0), (0, 2)), "dilation": (1, 2)}
    g = rng.normal(size=oracle.pool(x, "max", (3, 2), **case).shape)
    for kind in ("max", "min", "sum", "avg", "lp"):
        step = rng.normal(size=x.shape) * 1e-6
        ahead, behind = (
            (g * oracle.pool(x + h, kind, (3, 2), **case)).sum() for h in (step, -step)
        )
        slope = (oracle.grad(x, g, kind, (3, 2), **case) * step).sum() * 2
        np.testing.assert_allclose(ahead - behind, slope, rtol=1e-4)
