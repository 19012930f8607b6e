"""Complaints from public issue threads, one test each, named by the thread.

L1 to L13 were reproduced in jax 0.10.2 and the libraries around it; the others are
named by project and issue number. Each test states what this library owes.
"""

import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxpool
from tests import oracle
from tests.cases import (
    KINDS,
    column,
    distinct,
    every_extreme,
    every_kind,
    mask,
    tied,
    value_and_grad,
    value_and_vjp,
)

GEOMETRY = ("window", "strides", "padding", "dilation")
windowed = {
    kind: jax.jit(getattr(jaxpool, f"{kind}_pool"), static_argnames=GEOMETRY)
    for kind in KINDS
}
pooled = {kind: jax.jit(getattr(jaxpool, f"global_{kind}_pool")) for kind in KINDS}


def gradient(op, x, **kwargs):
    """Gradient of the sum of `op(x, **kwargs)`."""
    run = functools.partial(value_and_grad, functools.partial(op, **kwargs))
    return np.asarray(jax.jit(run)(x)[1])


def f32(x):
    return np.asarray(x).astype(np.float32)


# --- reproduced ---


@pytest.mark.parametrize(
    ("shape", "axes"), [((4096,), 0), ((64, 256), (0, 1)), ((1, 64, 64, 16), (1, 2))]
)
def test_L1_nan_survives_large_tiling_windows(shape, axes):
    x = np.ones(shape, np.float32)
    x.flat[5::64] = np.nan
    for op in (jaxpool.max_pool, jaxpool.min_pool):
        for run in (jax.jit, lambda f: f):
            y = run(lambda x, op=op: op(x, 2, axes=axes))(x)
            blocks = jaxpool.sum_pool(x, 2, axes=axes)
            np.testing.assert_array_equal(np.isnan(y), np.isnan(blocks))
    all_nan = np.full(shape, np.nan, np.float32)
    assert np.isnan(jaxpool.max_pool(all_nan, 2, axes=axes)).all()


@pytest.mark.parametrize("side", [17, 64])
def test_L2_bfloat16_average_accumulates_in_float32(side):
    x = jnp.ones((1, side, side, 1), jnp.bfloat16)
    for y in (jaxpool.avg_pool(x, (side, side)), jaxpool.global_avg_pool(x)):
        assert f32(y).item() == 1


@pytest.mark.parametrize("count_include_pad", [False, True])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_L3_average_keeps_the_dtype(dtype, count_include_pad):
    x = jnp.ones((1, 4, 4, 1), dtype)
    args = (3, 3), (1, 1), "SAME"
    y = jaxpool.avg_pool(x, *args, count_include_pad=count_include_pad)
    assert y.dtype == dtype


def test_L4_gradient_of_a_dilated_max_pool():
    x = distinct((1, 7, 6, 2))
    case = {"window": (3, 2), "strides": (1, 2), "dilation": (2, 3)}
    g = np.ones(jaxpool.output_shape(x.shape, **case))
    ((_, dx),) = value_and_vjp([(jaxpool.max_pool, case, x, g)])
    np.testing.assert_array_equal(dx, oracle.grad(x, g, "max", **case))


@every_kind
def test_L5_jit_inside_grad_and_grad_inside_jit(kind):
    x = distinct((1, 6, 4, 1)) + 0.5
    pool = functools.partial(windowed[kind], window=(2, 2))
    inside = jax.grad(lambda x: jax.jit(pool)(x).sum())(x)
    outside = jax.jit(jax.grad(lambda x: pool(x).sum()))(x)
    np.testing.assert_allclose(inside, outside, rtol=1e-6)


def test_L6_gradient_goes_to_the_nan_and_ties_to_the_first():
    for op in (jaxpool.max_pool, jaxpool.min_pool):
        nan = gradient(op, column([np.nan, 1]), window=(2,))
        tie = gradient(op, column([4, 4]), window=(2,))
        np.testing.assert_array_equal(nan.ravel(), [1, 0])
        np.testing.assert_array_equal(tie.ravel(), [1, 0])


@every_kind
def test_L7_explicit_sharding_of_batch_and_channels(kind):
    mesh = jax.make_mesh((2, 2), ("b", "c"), axis_types=(AxisType.Explicit,) * 2)
    x = distinct((4, 8, 8, 4)) + 0.5
    run = squares_and_grad(kind, window=(3, 3), strides=(2, 2))
    with jax.set_mesh(mesh):
        got = run(jax.device_put(x, NamedSharding(mesh, P("b", None, None, "c"))))
    for a, b in zip(got, run(x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@every_kind
def test_L7_explicit_sharding_of_a_pooled_axis(kind):
    mesh = jax.make_mesh((4,), ("h",), axis_types=(AxisType.Explicit,))
    x = distinct((1, 8, 8, 2)) + 0.5
    run = squares_and_grad(kind, window=(2, 2), strides=(2, 2))
    with jax.set_mesh(mesh):
        got = run(jax.device_put(x, NamedSharding(mesh, P(None, "h"))))
    for a, b in zip(got, run(x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def squares_and_grad(kind, **kwargs):
    pool = functools.partial(windowed[kind], **kwargs)
    loss = lambda x: ((pool(x) ** 2).sum(), pool(x))  # noqa: E731
    return jax.jit(lambda x: jax.grad(loss, has_aux=True)(x))


def spatially_sharded():
    """A mesh of four devices, and the sharding of `[1, h, w, c]` over h."""
    mesh = jax.make_mesh((4,), ("h",), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, P(None, "h"))


@every_kind
@pytest.mark.parametrize(("win", "stride"), [(2, 2), (3, 1)])
def test_L8_spatial_sharding_gathers_nothing(kind, win, stride):
    x = jax.device_put(distinct((1, 32, 16, 2)), spatially_sharded())
    run = squares_and_grad(kind, window=(win, win), strides=stride, padding="SAME")
    text = run.lower(x).compile().as_text()
    assert "all-gather" not in text
    assert "all-to-all" not in text


@every_extreme
def test_L9_hessian_through_the_custom_rule(kind):
    x = distinct((1, 4, 4, 1))
    pool = functools.partial(windowed[kind], window=(2, 2))
    hessian = jax.hessian(lambda x: (pool(x) ** 2).sum())(x).reshape(16, 16)
    np.testing.assert_array_equal(hessian, 2 * np.diag(gradient(pool, x).ravel()))


@every_kind
def test_L10_exports_with_a_symbolic_batch(kind):
    (batch,) = jax.export.symbolic_shape("b")
    pool = functools.partial(windowed[kind], window=(3, 3), strides=2, padding="SAME")
    loss = lambda x: ((pool(x) ** 2).sum(), pool(x))  # noqa: E731
    run = jax.jit(lambda x: jax.grad(loss, has_aux=True)(x))
    symbolic = jax.ShapeDtypeStruct((batch, 7, 6, 2), jnp.float32)
    exported = jax.export.export(run)(symbolic)
    x = distinct((3, 7, 6, 2)) + 0.5
    for got, want in zip(exported.call(x), run(x), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_L11_ceil_mode_as_in_pytorch():
    x = column(np.arange(5))
    y = jaxpool.avg_pool(x, (2,), ceil_mode=True)
    np.testing.assert_array_equal(y.ravel(), [0.5, 2.5, 4])
    y = jaxpool.max_pool(x, (3,), 3, 1, ceil_mode=True)
    np.testing.assert_array_equal(y.ravel(), [1, 4])


def test_L12_window_above_the_input_and_padding_as_wide_are_refused():
    x = np.ones((1, 3, 3, 1), np.float32)
    with pytest.raises(ValueError, match="window"):
        jaxpool.max_pool(x, (5, 5))
    with pytest.raises(ValueError, match="padding"):
        jaxpool.avg_pool(x, (2, 2), 2, ((3, 3), (3, 3)))


@every_kind
def test_L12_a_fully_masked_row_is_finite(kind):
    x = np.ones((2, 5, 3), np.float32)
    where = np.zeros((2, 5, 1), bool)
    assert np.all(f32(pooled[kind](x, where=where)) == 0)
    assert np.all(gradient(pooled[kind], x, where=where) == 0)


@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize(
    ("win", "stride", "padding"), [(3, 1, "SAME"), (5, 2, "VALID"), (2, 2, "VALID")]
)
def test_L13_spatially_sharded_gradients_are_right(kind, win, stride, padding):
    x = distinct((2, 32, 16, 2)) / 8
    run = squares_and_grad(kind, window=(win, win), strides=stride, padding=padding)
    sharded = run(jax.device_put(x, spatially_sharded()))
    for got, want in zip(sharded, run(x), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


# --- deterministic gradients ---


@every_kind
@pytest.mark.parametrize("kwargs", [{}, {"strides": 1}, {"strides": 1, "dilation": 2}])
def test_flax_4233_backward_has_no_scatter(kind, kwargs):
    run = squares_and_grad(kind, window=(3, 3), padding=1, **kwargs)
    text = run.lower(distinct((1, 9, 9, 1))).as_text()
    assert "scatter" not in text


def test_pytorch_85425_three_dimensional_gradients_repeat_bit_for_bit():
    x = tied((1, 6, 6, 6, 2))
    run = squares_and_grad("max", window=(3, 3, 3), strides=(1, 1, 1))
    first = run(x)[0]
    assert all(np.array_equal(run(x)[0], first) for _ in range(3))


# --- derivatives missing, fragile or surprising ---


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_nx_1679_dilation_with_stride_padding_and_overlap(dilation, stride):
    x = tied((1, 9, 8, 1))
    case = {"window": (3, 2), "strides": stride, "padding": 1, "dilation": dilation}
    g = np.ones(jaxpool.output_shape(x.shape, **case))
    ((y, dx),) = value_and_vjp([(jaxpool.max_pool, case, x, g)])
    np.testing.assert_array_equal(dx, oracle.grad(x, g, "max", **case))
    valid = oracle.pool(np.ones(x.shape), "sum", **case) > 0
    assert dx.sum() == valid.sum()
    np.testing.assert_array_equal(y, oracle.pool(x, "max", **case))


@every_kind
def test_jax_7815_a_jitted_pool_is_differentiable(kind):
    pool = jax.jit(functools.partial(windowed[kind], window=(2, 2)))
    assert gradient(pool, distinct((1, 4, 4, 1)) + 0.5).shape == (1, 4, 4, 1)


def test_jax_951_second_order_derivatives_keep_float64():
    with jax.enable_x64(True):
        x = jnp.asarray(distinct((1, 6, 1), np.float64) / 3)
        pool = functools.partial(jaxpool.max_pool, window=(2,))
        second = jax.grad(lambda x: jax.grad(lambda x: (pool(x) ** 3).sum())(x).sum())
        want = 6 * x * jax.grad(lambda x: pool(x).sum())(x)
        np.testing.assert_allclose(second(x), want, rtol=1e-15)


def test_tensorflow_4886_theano_4568_ties_keep_the_gradient_whole():
    x = np.ones((1, 8, 8, 1), np.float32)
    for kwargs in ({"window": (2, 2)}, {"window": (3, 3), "strides": 1, "padding": 1}):
        outputs = np.prod(jaxpool.output_shape(x.shape, **kwargs))
        assert gradient(jaxpool.max_pool, x, **kwargs).sum() == outputs


def test_ocannl_512_overlapping_windows_add_their_gradients():
    dx = gradient(jaxpool.max_pool, column([1, 2, 9, 3, 4]), window=(3,), strides=1)
    np.testing.assert_array_equal(dx.ravel(), [0, 0, 3, 0, 0])


def test_jax_10834_rank_zero_is_refused():
    with pytest.raises(ValueError, match="window"):
        jaxpool.max_pool(np.float32(1.0), (1,))
    with pytest.raises(ValueError, match="axes"):
        jaxpool.global_max_pool(np.float32(1.0))


# --- NaN, -inf and empty windows ---


def test_tensorflow_125965_nan_does_not_depend_on_the_lane():
    sizes = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33)

    @jax.jit
    def pool(x):
        parts = [x[..., :size] for size in sizes]
        windows = [jaxpool.max_pool(part, (2,)) for part in parts]
        return windows, [jaxpool.global_min_pool(part) for part in parts]

    x = np.tile(np.array([np.nan, 1], np.float32)[None, :, None], (1, 1, max(sizes)))
    for results in pool(x):
        assert all(np.isnan(y).all() for y in results)


def test_xla_21461_a_constant_and_a_parameter_agree():
    x = np.ones((1, 4096, 1), np.float32)
    x[0, ::50] = np.nan
    pool = functools.partial(jaxpool.max_pool, window=(2,))
    np.testing.assert_array_equal(jax.jit(lambda: pool(x))(), jax.jit(pool)(x))


@pytest.mark.parametrize("count", range(1, 5))
def test_onnxruntime_10514_any_number_of_nan_gives_nan(count):
    x = column([np.nan] * count + [5] * (4 - count))
    for row in (x, x[:, ::-1]):
        for kind in KINDS:
            assert np.isnan(windowed[kind](row, (4,)).item())
            assert np.isnan(pooled[kind](row).item())


def test_mxnet_6191_padding_never_reaches_the_output():
    with pytest.raises(ValueError, match="padding"):
        jaxpool.max_pool(column([1, 2, 3]), (2,), 1, 2)
    y = jaxpool.max_pool(column([-5, -6, -7]), (2,), 1, 1)
    np.testing.assert_array_equal(y.ravel(), [-5, -5, -6, -7])


def test_webnn_935_ceil_mode_drops_windows_of_padding():
    x = column([-1, -2, -3])
    for op in (jaxpool.max_pool, jaxpool.min_pool, jaxpool.avg_pool):
        assert op(x, (2,), 2, 1, ceil_mode=True).shape == (1, 2, 1)


@every_kind
def test_dgl_669_minus_infinity_behind_a_mask(kind):
    x = column([-np.inf, 3, -np.inf, 4])
    where = np.isfinite(x)
    y = windowed[kind](x, (2,), where=where)
    np.testing.assert_array_equal(y.ravel(), [3, 4])


@every_kind
def test_jax_14179_nan_behind_a_mask_leaves_the_gradient_alone(kind):
    x = column([np.nan, 3, 2, np.nan])
    where = ~np.isnan(x)
    for op, kwargs in ((windowed[kind], {"window": (2,)}), (pooled[kind], {})):
        dx = gradient(op, x, where=where, **kwargs)
        assert np.isfinite(dx).all()
        assert np.all(dx[~where] == 0)


def test_tensorflow_127907_empty_outputs_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 0, 1\)"):
        jaxpool.max_pool(np.ones((1, 0, 1), np.float32), (1,))
    assert jaxpool.max_pool(np.ones((0, 4, 1), np.float32), (2,)).shape == (0, 2, 1)


# --- XLA:CPU regressions ---


@pytest.mark.parametrize("shape", [(1, 9, 9, 1), (1, 400, 400, 8)])
def test_xla_48714_window_one_stride_two_gradient(shape):
    x = np.ones(shape, np.float32)
    for kind in KINDS:
        dx = gradient(windowed[kind], x, window=(1, 1), strides=2)
        assert np.all(dx[:, ::2, ::2] == 1)
        assert dx.sum() == np.prod(shape[1:3], initial=shape[3]) // 4 or shape[1] == 9


@every_kind
def test_jax_39257_high_ranks(kind):
    x = distinct((2, 1, 2, 1, 2, 1, 4, 4, 2)) + 0.5
    got = jax.jit(lambda x: windowed[kind](x, (2, 2)))(x)
    want = windowed[kind](x.reshape(8, 4, 4, 2), (2, 2))
    np.testing.assert_allclose(got.reshape(want.shape), want, rtol=1e-6)


# --- low precision ---


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_candle_3719_global_average_of_64x64_ones(dtype):
    assert f32(jaxpool.global_avg_pool(jnp.ones((1, 64, 64, 1), dtype))).item() == 1


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_cubek_639_miopen_2109_backward_accumulates_in_float32(dtype):
    x = jnp.ones((1, 128, 1), dtype)
    dx = gradient(jaxpool.sum_pool, x, window=(64,), strides=1)
    want = gradient(jaxpool.sum_pool, f32(x), window=(64,), strides=1)
    np.testing.assert_array_equal(f32(dx), want)


def test_tensorflow_57057_counts_do_not_overflow_float16():
    x = jnp.ones((1, 300, 300, 1), jnp.float16)
    assert f32(jaxpool.global_avg_pool(x)).item() == 1


def test_ncnn_2698_average_of_large_float16():
    x = jnp.full((1, 32, 32, 1), 60000, jnp.float16)
    assert f32(jaxpool.avg_pool(x, (32, 32))).item() == 60000


# --- average padding, ceil mode, parity ---


def test_flax_2401_same_average_has_no_edge_bias():
    x = np.ones((1, 5, 5, 1), np.float32)
    np.testing.assert_array_equal(jaxpool.avg_pool(x, (3, 3), 1, "SAME"), x)


def test_onnxruntime_16203_divisor_excludes_the_ceil_overhang():
    kwargs = {"padding": 1, "ceil_mode": True, "count_include_pad": True}
    y = jaxpool.avg_pool(column(np.ones(4)), (3,), 2, **kwargs)
    np.testing.assert_allclose(y.ravel(), [2 / 3, 1, 0.5], rtol=1e-6)


def test_flax_963_pytorch_padding_and_same_padding_differ():
    x = column([9, 1, 2, 8])
    torch = jaxpool.max_pool(x, (3,), 2, 1)
    same = jaxpool.max_pool(x, (3,), 2, "SAME")
    np.testing.assert_array_equal(torch.ravel(), [9, 8])
    np.testing.assert_array_equal(same.ravel(), [9, 8])
    x = column([1, 5, 9, 2])
    assert jaxpool.max_pool(x, (3,), 2, 1)[0, 0, 0] == 5
    assert jaxpool.max_pool(x, (3,), 2, "SAME")[0, 0, 0] == 9


def test_pytorch_188345_backward_of_a_padded_average():
    x = np.ones((1, 2, 4, 4), np.float32)
    case = {"window": (3, 3), "strides": 1, "padding": 1, "axes": (-2, -1)}
    for flag in (False, True):
        kwargs = case | {"count_include_pad": flag}
        dx = gradient(jaxpool.avg_pool, x, **kwargs)
        want = oracle.grad(x, None, "avg", **kwargs)
        np.testing.assert_allclose(dx, want, rtol=1e-6)


def test_pytorch_33382_max_padding_is_not_zero():
    y = jaxpool.max_pool(column([-4, -3, -2]), (3,), 1, "SAME")
    np.testing.assert_array_equal(y.ravel(), [-3, -2, -2])


# --- compile time, speed, memory ---


def test_haiku_539_counts_are_small_constants():
    x = jax.ShapeDtypeStruct((8, 256, 200, 64), jnp.float32)
    jaxpr = jax.make_jaxpr(lambda x: jaxpool.avg_pool(x, (3, 3), 1, "SAME"))(x)
    assert sum(np.size(c) for c in jaxpr.consts) <= 2 * (256 + 200)
    assert str(jaxpr).count("reduce_window") <= 2  # one an axis, none over ones


@every_extreme
@pytest.mark.parametrize(("win", "width"), [(2, 1), (16, 1), (17, 2)])
def test_pytorch_103785_residual_is_one_position_an_output(kind, win, width):
    x = distinct((1, 40, 40, 2))
    pool = functools.partial(windowed[kind], window=(win, win), strides=2)
    y, vjp = jax.vjp(pool, x)
    residual = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(vjp))
    assert residual == y.size * width


@pytest.mark.parametrize(("win", "width"), [(1, 1), (2, 1), (15, 1), (16, 2)])
def test_with_a_mask_the_residual_is_one_position_an_output_too(win, width):
    x = distinct((1, 40, 40, 2))
    where = jnp.zeros((1, 40, 40, 1), bool).at[0, 3, 5].set(True)
    y, vjp = jax.vjp(lambda x: jaxpool.max_pool(x, (win, win), where=where), x)
    residual = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(vjp))
    assert residual == y.size * width
    (dx,) = vjp(jnp.ones_like(y))  # windows without a valid cell send nothing
    np.testing.assert_array_equal(dx, np.broadcast_to(where, x.shape))


@every_extreme
def test_pytorch_41099_no_positions_without_a_gradient(kind):
    x = distinct((1, 8, 8, 1))
    pool = functools.partial(windowed[kind], window=(3, 3), strides=2)
    assert "ui8" not in jax.jit(pool).lower(x).as_text()
    assert "ui8" in jax.jit(jax.grad(lambda x: pool(x).sum())).lower(x).as_text()


# --- masks ---


@every_kind
def test_keras_bert_34_a_row_does_not_depend_on_its_batch_mates(kind):
    lengths = np.array([3, 7, 1])
    x = np.where(np.arange(7)[:, None] < lengths[:, None, None], 2.5, np.nan)
    x = np.repeat(x, 4, axis=2).astype(np.float32) * np.arange(1, 5, dtype=np.float32)
    where = ~np.isnan(x)
    batched = pooled[kind](x, where=where)
    for i, n in enumerate(lengths):
        alone = pooled[kind](x[i : i + 1, :n])
        np.testing.assert_allclose(batched[i : i + 1], alone, rtol=1e-6)


@every_kind
def test_keras_20165_masked_jitted_equals_eager(kind):
    x, where = distinct((2, 6, 3)), mask((2, 6, 3))
    for op, kwargs in ((windowed[kind], {"window": (2,)}), (pooled[kind], {})):
        f = functools.partial(op, **kwargs)
        jitted = jax.jit(lambda x, w, f=f: f(x, where=w))(x, where)
        np.testing.assert_allclose(jitted, f(x, where=where), rtol=1e-6)


def test_keras_10895_windowed_masked_average():
    where = np.array([[1, 0, 0, 0, 1, 1]], bool)[..., None]
    y = jaxpool.avg_pool(column([2, 100, 100, 100, 4, 8]), (2,), where=where)
    np.testing.assert_array_equal(y.ravel(), [2, 0, 6])


# --- ergonomics ---


def test_flax_5495_ints_are_accepted():
    x = distinct((1, 6, 6, 1))
    want = jaxpool.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
    got = jaxpool.max_pool(x, 3, 2, 1, axes=(1, 2))
    np.testing.assert_array_equal(got, want)


@every_kind
def test_flax_4494_2590_any_number_of_batch_axes(kind):
    x = distinct((2, 3, 4, 4, 2)) + 0.5
    want = windowed[kind](x.reshape(6, 4, 4, 2), (2, 2)).reshape(2, 3, 2, 2, 2)
    np.testing.assert_allclose(windowed[kind](x, (2, 2)), want, rtol=1e-6)
    single = windowed[kind](x[0, 0], (2, 2))
    np.testing.assert_allclose(single, want[0, 0], rtol=1e-6)


def test_haiku_76_channels_are_never_pooled():
    assert jaxpool.max_pool(distinct((1, 8, 8, 4)), (2, 2)).shape == (1, 4, 4, 4)
    with pytest.raises(ValueError, match="window"):
        jaxpool.max_pool(distinct((8, 4)), (2, 2))


def test_keras_19301_window_of_full_rank_is_refused():
    with pytest.raises(ValueError, match="window"):
        jaxpool.max_pool(distinct((1, 8, 8, 4)), (1, 2, 2, 1))


def test_flax_2029_default_strides_are_the_window():
    x = distinct((1, 6, 6, 1))
    np.testing.assert_array_equal(
        jaxpool.avg_pool(x, (3, 2)), jaxpool.avg_pool(x, (3, 2), (3, 2))
    )


# --- integers, big arrays ---


def test_torchax_104_integer_average_is_float32():
    y = jaxpool.avg_pool(column([1, 2, -3, 0], np.int32), (2,))
    assert y.dtype == jnp.float32
    np.testing.assert_array_equal(y.ravel(), [1.5, -1.5])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32])
def test_tinygrad_7726_padded_integer_max_keeps_its_dtype(dtype):
    y = jaxpool.max_pool(column([3, 1, 2], dtype), (3,), 1, "SAME")
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.ravel(), [3, 3, 2])


def test_pytorch_189664_huge_dilation_is_refused():
    with pytest.raises(ValueError, match="window"):
        jaxpool.max_pool(column([1, 2, 3]), (2,), 1, dilation=2**62)


# --- Lp ---


def test_pytorch_6765_lp_at_zero_and_of_negative_cells():
    dx = gradient(jaxpool.lp_pool, column([0, 0, -3, 4]), window=(2,))
    np.testing.assert_allclose(dx.ravel(), [0, 0, -0.6, 0.8], rtol=1e-6)
    y = jaxpool.lp_pool(column([-1, -1, -3, 1]), (2,), p=1.5)
    assert np.isfinite(y).all()
    with pytest.raises(ValueError, match=r"\bp\b"):
        jaxpool.lp_pool(column([1, 2]), (2,), p=0)
