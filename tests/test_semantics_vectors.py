"""Worked vectors: output sizes, divisors, NaN and ties, and bugs of the peers.

Every row was executed in the library it names (PyTorch 2.13, ONNX Runtime 1.31,
jax 0.10, flax 0.12, equinox 0.13, haiku 0.0.17, keras 3.15, timm 1.0).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpool
from tests.cases import column, every_extreme, value_and_vjp

NAN, INF = np.nan, np.inf
CEIL = {"ceil_mode": True}


def image(rows):
    """A matrix as `[1, h, w, 1]`."""
    return np.array(rows, np.float32)[None, :, :, None]


@pytest.mark.parametrize(
    ("size", "window", "strides", "padding", "ceil_mode", "out"),
    [
        (3, 2, 2, 1, True, 2),  # the window that would start in the padding is dropped
        (2, 1, 2, 0, True, 1),
        (3, 2, 3, 0, True, 1),
        (6, 2, 5, 0, True, 2),
        (5, 3, 3, 1, True, 2),
        (7, 2, 2, 0, True, 4),
        (7, 2, 2, 0, False, 3),
        (2, 5, 4, 0, True, 1),
        (5, 2, 2, "SAME", False, 3),
        (5, 2, 2, "SAME_LOWER", False, 3),
        (5, 2, 2, "CAUSAL", False, 3),
        (5, 1, 3, "SAME", False, 2),
        (8, 3, 2, ((0, 1),), False, 4),
    ],
)
def test_output_size(size, window, strides, padding, ceil_mode, out):
    got = jaxpool.output_shape(
        (1, size, 1), (window,), (strides,), padding, ceil_mode=ceil_mode
    )
    assert got == (1, out, 1)


@pytest.mark.parametrize(
    ("row", "window", "kwargs", "y"),
    [
        ([0, 1, 2], 2, {"strides": 2, "padding": 1, **CEIL}, [0, 2]),
        ([0, 1, 2, 3, 4, 5], 2, {"strides": 5, **CEIL}, [1, 5]),
        ([0, 1, 2, 3, 4], 3, {"strides": 3, "padding": 1, **CEIL}, [1, 4]),
        ([0, 1, 2], 2, {"strides": 3, **CEIL}, [1]),
        ([0, 1, 2, 3], 3, {"strides": 2, "padding": "SAME_LOWER"}, [1, 3]),
        ([0, 1, 2, 3], 3, {"strides": 2, "padding": "SAME"}, [2, 3]),
        ([-3, -1, -2, -4], 3, {"strides": 2, "padding": 1}, [-1, -1]),
        ([3, 1, 2, 0, 5], 2, {"strides": 1, "padding": "CAUSAL"}, [3, 3, 2, 2, 5]),
        ([0, 1, 2, 3, 4], 2, {"strides": 1, "dilation": 3}, [3, 4]),
    ],
)
def test_max_values(row, window, kwargs, y):
    got = jaxpool.max_pool(column(row), (window,), **kwargs)
    np.testing.assert_array_equal(got.ravel(), y)


INCLUDE = {"count_include_pad": True}


@pytest.mark.parametrize(
    ("size", "window", "kwargs", "y"),
    [
        (4, 3, {"strides": 2, "padding": 1, **CEIL, **INCLUDE}, [2 / 3, 1, 0.5]),
        (4, 3, {"strides": 2, "padding": 1, **CEIL}, [1, 1, 1]),
        (6, 3, {"strides": 3, "padding": 1, **CEIL, **INCLUDE}, [2 / 3, 1, 0.5]),
        (5, 2, {"strides": 2, **CEIL}, [1, 1, 1]),
        (5, 2, {"strides": 2, **CEIL, **INCLUDE}, [1, 1, 1]),
        (5, 2, {"strides": 2, **CEIL, "divisor": 4}, [0.5, 0.5, 0.25]),
        (3, 2, {"strides": 2, "padding": "SAME"}, [1, 1]),
        (3, 2, {"strides": 2, "padding": "SAME", **INCLUDE}, [1, 0.5]),
        (4, 3, {"strides": 1, "padding": "SAME", **INCLUDE}, [2 / 3, 1, 1, 2 / 3]),
        # One window of padding only: no valid cell, so the empty value.
        (1, 2, {"strides": 1, "padding": 1, "dilation": 2, **INCLUDE}, [0]),
    ],
)
def test_divisor_of_ones(size, window, kwargs, y):
    got = jaxpool.avg_pool(column(np.ones(size)), (window,), **kwargs)
    np.testing.assert_allclose(got.ravel(), y, rtol=1e-6)


def test_ceil_average_of_a_7x7_ramp():
    x = np.arange(49, dtype=np.float32).reshape(1, 7, 7, 1)
    y = jaxpool.avg_pool(x, (2, 2), (3, 3), ceil_mode=True)
    want = [[4, 7, 9.5], [25, 28, 30.5], [42.5, 45.5, 48]]
    np.testing.assert_array_equal(y[0, :, :, 0], want)


def test_divisor_divides_clipped_windows_too():
    y = jaxpool.avg_pool(image(np.ones((3, 3))), (2, 2), ceil_mode=True, divisor=3)
    want = np.array([[4, 2], [2, 1]]) / 3
    np.testing.assert_allclose(y[0, :, :, 0], want, rtol=1e-6)


def test_ceil_lp_norm_of_a_clipped_window():
    y = jaxpool.lp_pool(column([1, 1, 1]), (2,), p=1, ceil_mode=True)
    np.testing.assert_array_equal(y.ravel(), [2, 1])  # torch rescales it to 2, 2


@pytest.mark.parametrize(
    ("row", "window", "strides", "padding", "y", "dx"),
    [
        ([1, 1, 1, 1], 2, 2, 0, [1, 1], [1, 0, 1, 0]),
        ([NAN, 1], 2, 2, 0, [NAN], [1, 0]),
        ([1, NAN, 3], 3, 3, 0, [NAN], [0, 1, 0]),
        ([NAN, 5, NAN], 3, 3, 0, [NAN], [1, 0, 0]),  # torch: the last NaN
        ([-INF, -INF], 2, 2, 0, [-INF], [1, 0]),
        ([-INF] * 4, 3, 2, 1, [-INF, -INF], [1, 1, 0, 0]),
        ([-0.0, 0.0], 2, 2, 0, [0], [1, 0]),
        ([0.0, -0.0], 2, 2, 0, [0], [1, 0]),
        ([INF, NAN, INF], 3, 3, 0, [NAN], [0, 1, 0]),
        ([INF, INF, 1], 3, 3, 0, [INF], [1, 0, 0]),
    ],
)
@every_extreme
def test_owner(row, window, strides, padding, y, dx, kind):
    """The same table for min, of the negated row; and for the global pools."""
    sign = 1 if kind == "max" else -1
    op = getattr(jaxpool, f"{kind}_pool")
    kwargs = {"window": (window,), "strides": (strides,), "padding": padding}
    calls = [(op, kwargs, sign * column(row), np.ones((1, len(y), 1)))]
    if len(y) == 1:
        whole = getattr(jaxpool, f"global_{kind}_pool")
        calls.append((whole, {}, sign * column(row), np.ones((1, 1))))
    for value, gradient in value_and_vjp(calls):
        np.testing.assert_array_equal(sign * value.ravel(), y)
        np.testing.assert_array_equal(gradient.ravel(), dx)


# --- part B, by the number of its row ---


def test_b1_gradient_of_a_dilated_max_pool():
    x = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    kwargs = {"window": (2, 2), "strides": (1, 1), "dilation": 2}
    ((_, dx),) = value_and_vjp([(jaxpool.max_pool, kwargs, x, np.ones((1, 2, 2, 1)))])
    want = np.zeros((4, 4))
    want[2:, 2:] = 1
    np.testing.assert_array_equal(dx[0, :, :, 0], want)


@pytest.mark.parametrize("op", [jax.lax.mul, jnp.logaddexp, jax.lax.max])
def test_b4_any_op_runs_jitted_and_under_vmap(op):
    x = column(np.arange(1, 9))
    init = {jax.lax.mul: 1.0}.get(op, -np.inf)
    pool = jax.jit(jax.vmap(lambda x: jaxpool.pool(x, init, op, (2,))))
    pairs = x.reshape(1, 4, 2)
    want = op(pairs[..., 0], pairs[..., 1])
    np.testing.assert_allclose(pool(x)[..., 0], want, rtol=1e-6)


def test_b8_integer_averages_do_not_wrap():
    for dtype, fill in ((jnp.uint8, 255), (jnp.int8, 100), (jnp.int4, 7)):
        y = jaxpool.avg_pool(jnp.full((1, 2, 2, 1), fill, dtype), (2, 2))
        assert y.item() == fill


def test_b9_count_include_pad_keeps_bfloat16():
    x = jnp.ones((1, 5, 5, 1), jnp.bfloat16)
    for flag in (False, True):
        y = jaxpool.avg_pool(x, (2, 2), (2, 2), "SAME", count_include_pad=flag)
        assert y.dtype == jnp.bfloat16


@pytest.mark.parametrize(("dtype", "window"), [("bfloat16", 300), ("float16", 2500)])
def test_b10_half_precision_averages(dtype, window):
    y = jaxpool.avg_pool(jnp.ones((1, window + 10, 1), dtype), (window,))
    assert y.astype(jnp.float32).item() == 1


def test_b12_min_pool_exists():
    assert jaxpool.min_pool(column([3, 1, 2]), (3,)).item() == 1


def test_b13_scalar_and_list_arguments():
    x = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    want = [[5, 7], [13, 15]]
    for window in ([2, 2], (2, 2)):
        y = jaxpool.max_pool(x, window, 2)
        np.testing.assert_array_equal(y[0, :, :, 0], want)
    y = jaxpool.max_pool(x, 2, axes=(1, 2))
    np.testing.assert_array_equal(y[0, :, :, 0], want)
    assert jaxpool.max_pool(x, (2, 2), padding=1).shape == (1, 3, 3, 1)


@pytest.mark.parametrize(
    ("size", "window", "strides", "padding"), [(3, 2, 3, 0), (2, 1, 2, 0), (5, 3, 3, 1)]
)
def test_b17_ceil_mode_never_trips_over_itself(size, window, strides, padding):
    x = column(np.arange(size))
    y = jaxpool.max_pool(x, (window,), strides, padding, ceil_mode=True)
    assert y.shape == jaxpool.output_shape(
        x.shape, (window,), strides, padding, ceil_mode=True
    )


def test_b19_vmap_keeps_the_batch_axis():
    x = np.ones((2, 4, 4, 3), np.float32)
    pool = lambda x: jaxpool.max_pool(x, (2, 2), padding="SAME")  # noqa: E731
    assert jax.vmap(pool)(x).shape == pool(x).shape == (2, 2, 2, 3)


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8])
def test_b20_count_of_256_cells_does_not_wrap(dtype):
    x = jnp.ones((1, 40, 40, 1), dtype)
    y = jaxpool.avg_pool(x, (16, 16), 1, "SAME")
    np.testing.assert_array_equal(y, np.ones((1, 40, 40, 1)))


def test_b21_default_strides_are_the_window():
    x = np.ones((1, 6, 6, 1), np.float32)
    for name in ("max", "min", "sum", "avg", "lp"):
        assert getattr(jaxpool, f"{name}_pool")(x, (2, 3)).shape == (1, 3, 2, 1)


def test_b23_bfloat16_same_average_of_a_large_window():
    x = 3 * jnp.ones((1, 600, 1), jnp.bfloat16)
    y = jaxpool.avg_pool(x, (259,), 1, "SAME")
    np.testing.assert_array_equal(y.astype(jnp.float32), np.full((1, 600, 1), 3))


@pytest.mark.parametrize(("p", "y"), [(3, [9 ** (1 / 3), 28 ** (1 / 3)]), (1, [3, 4])])
def test_b25_lp_norm_of_negative_cells(p, y):
    got = jaxpool.lp_pool(column([-1, -2, -3, 1]), (2,), p=p)
    np.testing.assert_allclose(got.ravel(), y, rtol=1e-5)


def test_b27_one_signature_for_every_rank():
    assert jaxpool.avg_pool(column([1, 2]), (2,), divisor=1).item() == 3
    y = jaxpool.avg_pool(image(np.ones((3, 3))), (2, 2), dilation=2)
    np.testing.assert_array_equal(y, np.ones((1, 1, 1, 1)))
    assert jaxpool.avg_pool(np.ones((1, 4, 0), np.float32), (2,)).shape == (1, 2, 0)


@pytest.mark.parametrize("row", [[NAN, 1], [1, NAN]])
def test_b29_nan_is_propagated_in_any_position(row):
    for op in (jaxpool.max_pool, jaxpool.min_pool, jaxpool.avg_pool):
        assert np.isnan(op(column(row), (2,)).item())


def test_b31_same_average_excludes_the_padding():
    y = jaxpool.avg_pool(image(np.ones((3, 3))), (2, 2), padding="SAME")
    np.testing.assert_array_equal(y[0, :, :, 0], np.ones((2, 2)))
