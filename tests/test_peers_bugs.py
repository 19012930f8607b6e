"""What other libraries get wrong, by the number of its row; more in the vectors.

`test_semantics_vectors.py` has the other rows (part B there). Each bug was seen in the
library that the test names: jax 0.10, equinox 0.13, keras 3.15, torch 2.13, onnx 1.23.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxpool
from tests import oracle
from tests.cases import KINDS, column, cotangent, distinct, tied, value_and_vjp


@pytest.mark.parametrize("op", [jnp.multiply, jnp.logaddexp])
def test_b4_jax_has_no_gradient_of_other_operations(op):
    init = {jnp.multiply: 1.0}.get(op, -np.inf)
    x = column(np.arange(1, 9)) / 4
    total = lambda x: jaxpool.pool(x, init, op, (2,)).sum()  # noqa: E731
    want = jax.grad(lambda x: op(x[:, 0::2], x[:, 1::2]).sum())(x)
    np.testing.assert_allclose(jax.jit(jax.grad(total))(x), want, 1e-6)


def test_b5_jax_replaces_divisions_by_inexact_products():
    sevens = column([77, 0, 0, 0, 0, 0, 0])
    assert jax.jit(lambda x: jaxpool.avg_pool(x, (7,)))(sevens).item() == 11
    ones = np.ones((1, 41, 41, 1), np.float32)
    assert jax.jit(lambda x: jaxpool.avg_pool(x, (41, 41)))(ones).item() == 1
    assert jax.jit(jaxpool.global_avg_pool)(ones).item() == 1


@pytest.mark.parametrize("kind", ["max", "avg"])
def test_b6_jax_refuses_same_padding_of_sharded_rows(kind):
    """The windows overlap and their number does not divide what is sharded."""
    mesh = jax.make_mesh((4,), ("h",), axis_types=(AxisType.Explicit,))
    x, kwargs = distinct((1, 8, 6, 2)), {"window": (3, 3), "strides": (2, 2)}
    kwargs["padding"] = "SAME"
    pool = getattr(jaxpool, f"{kind}_pool")
    gradient = jax.jit(jax.grad(lambda x: pool(x, **kwargs).sum()))
    with jax.set_mesh(mesh):
        got = gradient(jax.device_put(x, NamedSharding(mesh, P(None, "h"))))
    want = oracle.grad(x, None, kind, **kwargs)
    np.testing.assert_allclose(got, want, 1e-6)


def test_b7_jax_rounds_tangents_to_half_their_width_on_a_gpu():
    with jax.enable_x64(True), jaxpool.forward_mode():
        x = jnp.asarray(distinct((1, 6, 1), np.float64))
        fine = x + 2.0**-40
        _, tangent = jax.jvp(lambda x: jaxpool.max_pool(x, (2,)), (x,), (fine,))
        np.testing.assert_array_equal(tangent, jaxpool.max_pool(fine, (2,)))


@pytest.mark.parametrize(
    ("size", "out", "average", "maximum"),
    [
        (10, 4, [1, 3, 6, 8], [2, 4, 7, 9]),
        (8, 3, [1, 3.5, 6], [2, 5, 7]),
        (4, 2, [0.5, 2.5], [1, 3]),
    ],
)
def test_b14_b15_equinox_has_other_adaptive_bins(size, out, average, maximum):
    x = column(np.arange(size))
    for pool, want in (
        (jaxpool.adaptive_avg_pool, average),
        (jaxpool.adaptive_max_pool, maximum),
    ):
        np.testing.assert_array_equal(pool(x, (out,)).ravel(), want)


def test_b16_equinox_refuses_more_bins_than_cells_and_sizes_to_keep():
    x = column(np.arange(3))
    y = jaxpool.adaptive_avg_pool(x, (5,))
    np.testing.assert_array_equal(y.ravel(), [0, 0.5, 1, 1.5, 2])
    image = distinct((1, 3, 4, 2))
    y = jaxpool.adaptive_avg_pool(image, (None, 2))
    np.testing.assert_array_equal(y, (image[:, :, 0::2] + image[:, :, 1::2]) / 2)


def test_b18_equinox_counts_the_overhang_of_ceil_mode():
    kwargs = {"ceil_mode": True, "count_include_pad": True}
    y = jaxpool.avg_pool(column(np.ones(5)), (2,), **kwargs)
    np.testing.assert_array_equal(y.ravel(), [1, 1, 1])


@pytest.mark.parametrize("padding", ["SAME_LOWER", ((1, 0), (0, 1))])
def test_b20_haiku_refuses_other_padding_and_pools_the_batch(padding):
    x = tied((2, 5, 4, 3))
    y = jaxpool.avg_pool(x, (2, 2), 1, padding)
    want = oracle.pool(x, "avg", window=(2, 2), strides=1, padding=padding)
    np.testing.assert_allclose(y, want, 1e-6)
    first = jaxpool.max_pool(np.moveaxis(x, -1, 0), (2, 2), axes=(2, 3))  # c, n, h, w
    last = jaxpool.max_pool(x, (2, 2))
    np.testing.assert_array_equal(np.moveaxis(first, 0, -1), last)


@pytest.mark.parametrize(("size", "out"), [(11, 7), (7, 7), (18, 15), (77, 7)])
def test_b22_keras_computes_adaptive_bins_in_floats(size, out):
    x = column(np.arange(size))
    bins = [(i * size // out, -(-(i + 1) * size // out)) for i in range(out)]
    ends = np.asarray(bins)
    average = jaxpool.adaptive_avg_pool(x, (out,)).ravel()
    np.testing.assert_array_equal(average, (ends[:, 0] + ends[:, 1] - 1) / 2)
    maximum = jaxpool.adaptive_max_pool(x, (out,)).ravel()
    np.testing.assert_array_equal(maximum, ends[:, 1] - 1)


def test_b24_keras_averages_nothing_to_nan_and_has_no_masked_maximum():
    x, where = distinct((2, 5, 3)), np.zeros((2, 5, 1), bool)
    where[0, 2:4] = True
    np.testing.assert_array_equal(
        jaxpool.global_max_pool(x, where=where), [x[0, 2:4].max(0), [0, 0, 0]]
    )
    np.testing.assert_array_equal(
        jaxpool.global_avg_pool(x, where=where), [x[0, 2:4].mean(0), [0, 0, 0]]
    )
    with pytest.raises(TypeError, match="where"):
        jaxpool.global_avg_pool(x, where=where.astype(np.float32))
    with pytest.raises(ValueError, match="strides"):
        jaxpool.max_pool(x, (2,), 0)


def test_b26_pytorch_checks_fractional_pools_otherwise_in_3d():
    cube, samples = distinct((1, 6, 6, 6, 1)), np.zeros((1, 1, 3), np.float32)
    y = jaxpool.fractional_max_pool(cube, 3, 4, axes=(1, 2, 3), samples=samples)
    assert y.shape == (1, 4, 4, 4, 1)
    line = np.arange(9, dtype=np.float32)
    u = np.asarray([0.9, 0.1, 0.5], np.float32)

    def steps(axis, rank):
        """Values at the starts of windows of one cell along one axis."""
        shape = [1] * (rank + 1)
        shape[axis] = 9
        x = np.broadcast_to(line.reshape(shape), (9,) * rank + (1,))
        y = jaxpool.fractional_max_pool(
            x, 1, 5, axes=tuple(range(rank)), samples=u[None, :rank]
        )
        return np.unique(y)

    for axis in (0, 1):  # the order of the samples is that of the axes, in 2-D too
        np.testing.assert_array_equal(steps(axis, 2), steps(axis, 3))


def test_b27_pytorch_lacks_dtypes():
    for dtype in (jnp.int8, jnp.uint16, jnp.bfloat16, jnp.float8_e4m3fn):
        x = jnp.ones((1, 4, 1), dtype)
        assert jaxpool.max_pool(x, (2,)).dtype == dtype
        y = jaxpool.avg_pool(x, (2,)).astype(jnp.float32)
        np.testing.assert_array_equal(y, np.ones((1, 2, 1)))
    y = jaxpool.avg_pool(1j * jnp.ones((1, 4, 1), jnp.complex64), (2,))
    np.testing.assert_array_equal(y, 1j * np.ones((1, 2, 1)))


def test_b28_pytorch_unpools_overlapping_windows_in_no_order_on_a_gpu():
    values = column([5, 6, 7, 8])
    kwargs = {"indices": column([1, 1, 0, 1], np.int32), "output_shape": (3,)}
    calls = [(jaxpool.max_unpool, kwargs, values, cotangent((1, 3, 1)))]
    ((y, dv),) = value_and_vjp(calls)
    np.testing.assert_array_equal(y.ravel(), [7, 8, 0])
    np.testing.assert_array_equal(dv.ravel(), [0, 0, -2, -1])
    text = jax.jit(lambda v: jaxpool.max_unpool(v, **kwargs)).lower(values).as_text()
    assert text.count('"stablehlo.scatter"(') == 1  # of claims, by maximum: any order
    assert "stablehlo.maximum" in text


@pytest.mark.parametrize("row", [[np.nan, 1, 0], [1, np.nan, 0], [1, 0, np.nan]])
def test_b29_onnx_loses_nan(row):
    x = column(row)
    for kind in KINDS:
        assert np.isnan(getattr(jaxpool, f"{kind}_pool")(x, (3,))).all()
        assert np.isnan(getattr(jaxpool, f"global_{kind}_pool")(x)).all()
    for kind in ("max", "avg"):
        assert np.isnan(getattr(jaxpool, f"adaptive_{kind}_pool")(x, (1,))).all()
    _, index = jaxpool.max_pool_with_indices(x, (3,))
    assert index.item() == np.flatnonzero(np.isnan(row))[0]


def test_b30_onnx_has_no_global_norm_and_rounds_same_lower_down():
    x = column([3, -4, 0, 0])
    assert jaxpool.global_lp_pool(x).item() == 5
    y = jaxpool.max_pool(column([0, 1, 2, 3]), (3,), (2,), "SAME_LOWER")
    np.testing.assert_array_equal(y.ravel(), [1, 3])
