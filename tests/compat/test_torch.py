"""`compat.torch` against figures of PyTorch 2.13, where neither need be installed.

The ids are those of the reports they answer. `tests/attack/dialects.py` calls both.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpool
from jaxpool.compat import onnx
from jaxpool.compat import torch as F
from tests.cases import value_and_grad

NAN, INF = math.nan, math.inf
X = np.zeros((1, 3, 4, 4), np.float32)
INDICES = np.zeros(X.shape, np.int64)


def gradient(call, x, g):
    """The gradient of a sum weighted by `g`."""
    return value_and_grad(call, jnp.asarray(x, np.float32), g)[1]


def same(got, want):
    """Bit for bit, but for which NaN it is."""
    want = np.asarray(want, np.float32)
    np.testing.assert_array_equal(got, want)
    zeros = want == 0
    np.testing.assert_array_equal(np.signbit(got)[zeros], np.signbit(want)[zeros])


NORMS = [  # norm_type, window, stride, x, cotangent, gradient
    # D11, with B1's minimum: abs has no slope at 0, and 0 times -1 is -0
    ("D11", INF, 2, 2, [0, 0, 3, -0.0, -2, 0], [1, 1, 1], [0, 0, 1, 0, -1, 0]),
    ("B1", -INF, 1, 1, [2, 0, -3], [-2, -2, 1], [-2, -0.0, -1]),
    ("B1-2", -INF, 2, 1, [0, 2, 1], [-2, 1], [-0.0, -0.0, 1]),
    ("B2", 1.5, 3, 1, [-1, -4, -9], [1], [NAN, NAN, NAN]),
    (
        "B2-2",
        1.5,
        2,
        1,
        [-8, 8, 8],
        [1, 1],
        [NAN, NAN, 8**0.5 * (2 * 8**1.5) ** (-1 / 3)],
    ),
    ("p1", 1, 2, 2, [-1, 1, -1, 2], [3, 5], [0, 0, 5, 5]),
    ("p2", 2, 2, 2, [3, 4, -0.0, 0], [5, 1], [3, 4, -0.0, 0]),
    ("p3", 3, 2, 2, [-1, -2, 0, 2], [1, 1], [NAN, NAN, 0, 1]),
    ("p-1", -1, 1, 1, [4, -2], [1, 1], [1, 1]),
    ("p0.5", 0.5, 1, 1, [4, -1], [1, 1], [1, NAN]),
]


@pytest.mark.share(8)
@pytest.mark.parametrize(
    ("norm", "window", "stride", "x", "g", "want"),
    [row[1:] for row in NORMS],
    ids=[row[0] for row in NORMS],
)
def test_gradients_of_norms(norm, window, stride, x, g, want):
    """Also in forward mode, in 2-D and in 3-D."""
    for rank in (1, 2, 3):
        ones = (1,) * (rank - 1)
        kernel = window if rank == 1 else (*ones, window)
        strides = (*ones, stride)

        def call(x, rank=rank, kernel=kernel, strides=strides):
            return getattr(F, f"lp_pool{rank}d")(x, norm, kernel, strides)

        shaped = np.reshape(np.asarray(x, np.float32), (1, *ones, -1))
        cotangent = np.reshape(np.asarray(g, np.float32), (1, *ones, -1))
        got = gradient(call, shaped, cotangent).ravel()
        if norm in (1.5, 3):  # powers are rounded
            np.testing.assert_allclose(got, np.float32(want), 1e-6)
        else:
            same(got, want)
        # Of a window of zeros, forward mode of roots is NaN in PyTorch too.
        if not np.isnan(want).any() and norm != 2:
            t = np.linspace(1, 2, len(x), dtype=np.float32).reshape(shaped.shape)
            with jaxpool.forward_mode():
                tangent = jax.jvp(call, (jnp.asarray(shaped),), (jnp.asarray(t),))[1]
            along = (got * t.ravel()).sum()
            np.testing.assert_allclose((tangent * cotangent).sum(), along, 1e-5)


def test_float16_has_powers_for_roots():
    """Found by the attack: of -0 and -inf, a root is -0 or NaN, a power 0."""
    x = jnp.asarray([[[1, -INF]]], np.float16)
    np.testing.assert_array_equal(F.lp_pool1d(x, -0.5, 2), [[[1]]])
    x = jnp.asarray([[[-0.0, 0]]], np.float16)
    slopes = jax.grad(lambda x: F.lp_pool1d(x, 1.5, 2).sum())(x)
    same(slopes, [[[0, 0]]])


SHAPED = np.ones((2, 2, 4, 3, 3), np.float32)
OVERHANG = {"padding": (0, 1, 2), "ceil_mode": True}
TALL = np.ones((1, 1, 3, 3, 1), np.float32)
REFUSED = [
    (
        "B3",
        F.avg_pool3d,
        (SHAPED, (2, 5, 4)),
        OVERHANG,
        "kernel_size must not be larger",
    ),
    ("B3-lp", F.lp_pool3d, (SHAPED, 2, (2, 5, 4)), {"ceil_mode": True}, "kernel_size"),
    ("D12-3", F.avg_pool3d, (TALL, (1, 1, 4)), {"ceil_mode": True}, "kernel_size"),
    (
        "D12-2",
        F.max_pool1d,
        (np.ones((1, 1, 4), np.int32), 2),
        {},
        "input must be floating",
    ),
    (
        "D12-4",
        F.avg_pool1d,
        (np.full((1, 1, 2), 2**31 - 1), 2),
        {},
        "input must .* int32",
    ),
    (
        "D12-5",
        F.avg_pool2d,
        (np.ones((1, 1, 2, 2), np.int32), 2),
        {},
        "input must be floa",
    ),
    ("B7-1", F.lp_pool1d, (X[0], "a", 2), {}, "norm_type must be .* norm_type='a'"),
    ("B7-2", F.lp_pool2d, (X, None, 2), {}, "norm_type must be .* norm_type=None"),
    ("B7-3", F.lp_pool2d, (X, 1j, 2), {}, "norm_type must be"),
    ("B7-4", F.lp_pool2d, (X, [2], 2), {}, "norm_type must be"),
    ("B7-5", F.lp_pool2d, (X, True, 2), {}, "norm_type must be"),
    ("B7-6", F.lp_pool2d, (X, 10**400, 2), {}, "norm_type must not be"),
    (
        "B7-7",
        F.fractional_max_pool2d,
        (X, 1),
        {"output_ratio": "a"},
        "output_ratio must",
    ),
    (
        "B7-8",
        F.fractional_max_pool2d,
        (X, 1),
        {"output_ratio": "ab"},
        "output_ratio must",
    ),
    (
        "B7-9",
        F.fractional_max_pool2d,
        (X, 1),
        {"output_ratio": 0.5},
        "output_ratio must",
    ),
    (
        "B7-10",
        F.fractional_max_pool2d,
        (X, 1),
        {"output_ratio": (NAN, 1)},
        "output_ratio must",
    ),
    (
        "B7-11",
        F.fractional_max_pool2d,
        (X, 1),
        {"output_ratio": (1, None)},
        "output_ratio m",
    ),
    ("B7-12", F.fractional_max_pool2d, (X, 1, "a"), {}, "output_size must"),
    ("B7-13", F.fractional_max_pool2d, (X, 1, -1), {}, "output_size must"),
    ("B7-14", F.fractional_max_pool2d, (X, 0, 1), {}, "kernel_size must"),
    ("B7-15", F.fractional_max_pool2d, (X, 1, 2), {}, "key or _random_samples must"),
    ("B7-16", F.max_unpool2d, (X, INDICES, 2), {"output_size": 3}, "output_size must"),
    (
        "B7-17",
        F.max_unpool2d,
        (X, INDICES, 2),
        {"output_size": "a"},
        "output_size must",
    ),
    (
        "B7-18",
        F.max_unpool2d,
        (X, INDICES, 2),
        {"output_size": (8.0, 8)},
        "output_size must",
    ),
    ("B7-19", F.max_unpool2d, (X, "a", 2), {}, "indices must be an array"),
    ("B7-20", F.max_unpool2d, (X, None, 2), {}, "indices must be an array"),
    (
        "B7-21",
        F.max_unpool2d,
        (X, INDICES.astype(float), 2),
        {},
        "indices must be integers",
    ),
    ("B7-22", F.max_unpool2d, (X, INDICES, "a"), {}, "kernel_size must"),
    ("B7-23", F.max_unpool2d, (X, INDICES, 2, ()), {}, "stride must"),
    ("B7-24", F.max_unpool2d, (X, INDICES, 2, 2, None), {}, "padding must"),
    ("B7-25", F.max_unpool3d, (X, INDICES, 2, 0), {}, "stride must be at least 1"),
    ("B7-26", F.adaptive_avg_pool2d, (X, "ab"), {}, "output_size must be .*'ab'"),
    ("B7-27", F.adaptive_max_pool2d, (X, (2.0, 2)), {}, "output_size must"),
    ("B7-28", F.adaptive_max_pool2d, (X, (0, -1)), {}, "output_size must"),
    ("B7-29", F.max_pool2d, (X, 2), {"return_indices": "no"}, "return_indices must"),
    ("B7-30", F.max_pool2d, (X, 2), {"ceil_mode": 1}, "ceil_mode must"),
    ("B7-31", F.max_pool2d, (X, "ab"), {}, "kernel_size must"),
    ("B7-32", F.max_pool2d, (X, True), {}, "kernel_size must"),
    ("B7-33", F.max_pool2d, (X, range(2, 4)), {}, "kernel_size must"),
    ("B7-34", F.max_pool2d, (X, 2), {"stride": None, "padding": None}, "padding must"),
    (
        "B7-35",
        F.avg_pool2d,
        (INDICES, 2),
        {"count_include_pad": 1},
        "count_include_pad must",
    ),
    ("B7-36", F.avg_pool2d, (X, 2), {"divisor_override": "3"}, "divisor_override must"),
    (
        "B7-37",
        F.avg_pool2d,
        (X, 2),
        {"divisor_override": True},
        "divisor_override must",
    ),
    (
        "D4-1",
        F.max_unpool1d,
        (X[0, :1, 0], INDICES[0, :1, 0] - 2**32 + 1, 2),
        {},
        "indices",
    ),
    (
        "D4-2",
        F.max_unpool1d,
        (X[0, :1, 0], INDICES[0, :1, 0] + 2**32, 2),
        {},
        "indices",
    ),
]


@pytest.mark.share(8)
@pytest.mark.parametrize(
    ("function", "args", "kwargs", "message"),
    [row[1:] for row in REFUSED],
    ids=[row[0] for row in REFUSED],
)
def test_errors_name_the_argument(function, args, kwargs, message):
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        function(*args, **kwargs)
    assert type(caught.value) in (ValueError, TypeError)


@pytest.mark.share(8)
@pytest.mark.parametrize("offset", [-(2**32) + 1, 2**32, 2**40, -1])
def test_d4_indices_are_checked_before_they_are_narrowed(offset):
    """Of x64 arrays of jax too, and of ONNX."""
    with jax.enable_x64(True):
        values, indices = jnp.ones((1, 1, 2)), jnp.asarray([[[0, offset]]])
        with pytest.raises(ValueError, match="indices must"):
            F.max_unpool1d(values, indices, 2)
        with pytest.raises(ValueError, match="indices must"):
            onnx.MaxUnpool(values, indices, kernel_shape=[2], strides=[2])


def test_b4_b5_empty_results():
    x = np.ones((1, 3, 5, 2), np.float32)
    got = F.fractional_max_pool2d(
        x, (1, 2), output_ratio=(0.78, 0.44), return_indices=True
    )
    assert [part.shape for part in got] == [(1, 3, 3, 0)] * 2
    assert got[1].dtype == np.int32
    values = np.ones((1, 1, 6, 2), np.float32)
    unpooled = F.max_unpool2d(
        values, np.zeros(values.shape, np.int64), (1, 1), padding=1
    )
    assert unpooled.shape == (1, 1, 4, 0)
    assert F.adaptive_avg_pool1d(np.ones((2, 0, 3), np.float32), 2).shape == (2, 0, 2)


def test_b6_windows_of_padding_only():
    """The value is -inf, the maximum of nothing, and the index is PyTorch's own.

    It is where PyTorch begins to search, and names no cell here, or one of the next row
    in 2-D. -1 would say more, but `compat.torch` promises PyTorch's indices, and
    what compares them with a recorded run must find them. `max_unpool` refuses one that
    is no cell, as PyTorch does. No cell has the gradient; PyTorch writes it anywhere.
    """
    x = np.arange(12, dtype=np.float32).reshape(2, 3, 2) - 20
    values, indices = F.max_pool1d(x, 2, padding=1, dilation=3, return_indices=True)
    np.testing.assert_array_equal(values, np.full((2, 3, 1), -INF))
    np.testing.assert_array_equal(indices, np.full((2, 3, 1), 2))
    assert np.isneginf(F.max_pool1d(x, 2, padding=1, dilation=3)).all()
    pool = functools.partial(F.max_pool1d, kernel_size=2, padding=1, dilation=3)
    same(gradient(pool, x, np.ones((2, 3, 1))), np.zeros(x.shape))
    with pytest.raises(ValueError, match="indices must be from 0 to 1"):
        F.max_unpool1d(values, indices, 2)
    plane = np.arange(8, dtype=np.float32).reshape(1, 1, 4, 2)
    indices = F.max_pool2d(plane, 2, 1, 1, 3, return_indices=True)[1]
    np.testing.assert_array_equal(indices.ravel(), [6, 2, 4])
    small = F.max_pool2d(plane.astype(np.int8), 2, 1, 1, 3, return_indices=True)[0]
    np.testing.assert_array_equal(small.ravel(), [-128] * 3)


def test_d12_integers():
    x = np.int32([[[1, 5, 2, 2]]])
    values, indices = F.max_pool1d(x, 2, return_indices=True)
    np.testing.assert_array_equal(values, [[[5, 2]]])
    np.testing.assert_array_equal(indices, [[[1, 2]]])
    with jax.enable_x64(True):
        most = np.full((1, 1, 2), 2**31 - 1)
        assert F.avg_pool1d(most, 2).item() == 2**31 - 1
        wrapped = F.avg_pool1d(np.full((1, 1, 2), 2**63 - 1), 2)
        assert wrapped.item() == -1  # int64 wraps, as in PyTorch
    same(F.lp_pool2d(np.int32([[[[3, 4]]]]), 2.0, (1, 2)), [[[[5]]]])
    same(F.lp_pool2d(np.int64([[[[3, 4]]]]), 2, (1, 2)), [[[[24**0.5]]]])  # 25 // 2 * 2
