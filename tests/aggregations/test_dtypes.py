"""Every dtype's result and accumulation; NaN, infinities and ties at every size."""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import jaxpool
from tests.cases import (
    distinct,
    every_extreme,
    every_implementation,
    every_kind,
    every_smooth,
    pooling,
    value_and_grad,
    value_and_vjp,
)

NAN, INF = np.nan, np.inf
FLOATS = ("float8_e4m3fn", "float8_e5m2", "bfloat16", "float16", "float32")
SIGNED, UNSIGNED = ("int4", "int8", "int16", "int32"), ("uint4", "uint8", "uint32")
WIDE = ("float64", "int64", "uint64")


def operators(kind):
    """The windowed operator over all cells of `[1, 4, 1]`, and the global one."""
    return pooling(kind, window=(4,)), getattr(jaxpool, f"global_{kind}_pool")


# --- dtypes ---


@pytest.mark.share(10)
@every_kind
@pytest.mark.parametrize("dtype", FLOATS + SIGNED + UNSIGNED + WIDE)
def test_dtype_of_the_result(kind, dtype):
    """That of the input, except averages and norms of integers: float32."""
    with jax.enable_x64(dtype in WIDE):
        x = jnp.array([1, 2, 2, 4]).astype(dtype).reshape(1, 4, 1)
        integer = not jnp.issubdtype(dtype, jnp.floating)
        for op in operators(kind):
            y = jax.jit(op)(x)
            to_float = integer and kind in ("avg", "lp", "logsumexp")
            assert y.dtype == (jnp.float32 if to_float else dtype)
            wants = {"max": 4, "min": 1, "sum": 9, "avg": 2.25, "lp": 5}
            want = (wants | {"logsumexp": np.log(np.exp([1, 2, 2, 4]).sum())})[kind]
            if kind == "sum" and dtype == "int4":
                want = -7  # nine does not fit: the wide sum wraps when stored
            rtol = {"float8_e4m3fn": 0.07, "float8_e5m2": 0.13}.get(dtype, 1e-2)
            exact = kind in ("max", "min") or integer
            got = np.asarray(y).astype(np.float64).item()
            np.testing.assert_allclose(got, want, rtol=1e-6 if exact else rtol)


@pytest.mark.share(10)
@every_kind
@pytest.mark.parametrize("dtype", [*FLOATS, "float64"])
def test_dtype_of_the_gradient(kind, dtype):
    with jax.enable_x64(dtype == "float64"):
        x = jnp.array([1, 2, 3, 4]).astype(dtype).reshape(1, 4, 1)
        want = {
            "max": [0, 0, 0, 1],
            "min": [1, 0, 0, 0],
            "sum": [1, 1, 1, 1],
            "avg": [0.25] * 4,
            "lp": np.arange(1, 5) / np.sqrt(30),
            "logsumexp": np.exp(range(4)) / np.exp(range(4)).sum(),
        }[kind]
        for op in operators(kind):
            dx = jax.grad(lambda x, op=op: op(x).astype(jnp.float32).sum())(x)
            assert dx.dtype == dtype
            got = np.asarray(dx).astype(np.float64).ravel()
            np.testing.assert_allclose(got, want, rtol=0.13)


@pytest.mark.share(10)
@every_kind
def test_float64_keeps_its_precision(kind):
    with jax.enable_x64(True):
        x = jnp.array([1, 1 + 2**-40, 1 + 2**-50, 1.0])
        assert x.dtype == jnp.float64
        want = {
            "max": 1 + 2**-40,
            "min": 1.0,
            "sum": np.asarray(x).sum(),
            "avg": np.asarray(x).mean(),
            "lp": np.linalg.norm(x),
            "logsumexp": np.log(np.exp(np.asarray(x)).sum()),
        }[kind]
        for op in operators(kind):
            got = op(x.reshape(1, 4, 1)).item()
            np.testing.assert_allclose(got, want, rtol=1e-15, atol=0)


@pytest.mark.share(10)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("window", [(17, 17), (64, 64)])
def test_average_of_half_precision_ones_is_one(dtype, window):
    x = jnp.ones((1, 64, 64, 2), dtype)
    kwargs = {"window": window, "strides": (8, 8)}
    y = jaxpool.avg_pool(x, **kwargs)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.astype(jnp.float32), np.ones(y.shape))


def test_average_of_uint8_255_is_255():
    x = jnp.full((1, 8, 8, 1), 255, jnp.uint8)
    for y in (jaxpool.avg_pool(x, (2, 2)), jaxpool.global_avg_pool(x)):
        assert y.dtype == jnp.float32
        np.testing.assert_array_equal(y, np.full(y.shape, 255))


@pytest.mark.share(10)
@pytest.mark.parametrize(("dtype", "fill"), [("float16", 6e4), ("int8", -128)])
def test_average_does_not_overflow(dtype, fill):
    x = jnp.full((1, 20, 20, 1), fill, dtype)
    for y in (jaxpool.avg_pool(x, (16, 16), 1), jaxpool.global_avg_pool(x)):
        assert set(np.asarray(y, np.float32).ravel()) == {np.float32(np.float16(fill))}


@pytest.mark.share(10)
@pytest.mark.parametrize(("dtype", "rtol"), [("float16", 1e-3), ("bfloat16", 1 / 256)])
@every_implementation
def test_half_precision_gradient_accumulates_in_float32(implementation, dtype, rtol):
    """Each cell of 17 x 17 windows at stride 1 gets 289 times 1/289."""
    x = jnp.ones((1, 65, 65, 1), dtype)
    for op in (jaxpool.avg_pool, jaxpool.sum_pool):
        f = functools.partial(
            op, window=(17, 17), strides=1, implementation=implementation
        )
        dx = jax.jit(jax.grad(lambda x, f=f: f(x).astype(jnp.float32).sum()))(x)
        scale = 1 if op is jaxpool.avg_pool else 289
        np.testing.assert_allclose(np.float32(dx[0, 32, 32]), [scale], rtol=rtol)


def test_max_gradient_of_a_shared_winner_accumulates_in_float32():
    """One bfloat16 cell that wins 400 windows: a bfloat16 sum would stop at 256."""
    x = jnp.zeros((1, 39, 39, 1), jnp.bfloat16).at[0, 19, 19, 0].set(1)
    f = functools.partial(jaxpool.max_pool, window=(20, 20), strides=1)
    dx = jax.jit(jax.grad(lambda x: f(x).astype(jnp.float32).sum()))(x)
    assert float(dx[0, 19, 19, 0]) == 400


def averages_of_ones(windows, **kwargs):
    """Averages over each of the windows of ones of shape `[2, 200, 3]`, jitted."""
    pools = [
        functools.partial(jaxpool.avg_pool, window=(k,), **kwargs) for k in windows
    ]
    ones = jnp.ones((2, 200, 3), jnp.float32)
    results = jax.jit(lambda x: [pool(x) for pool in pools])(ones)
    return np.concatenate([np.ravel(y) for y in results])


@pytest.mark.slow
def test_jitted_average_of_ones_is_exactly_one_for_each_window():
    averages = averages_of_ones(range(1, 201), implementation="reduce_window")
    assert np.unique(averages).tolist() == [1]


# The windows up to 200 whose reciprocal in float32 times themselves is not 1.
INEXACT = [k for k in range(1, 201) if np.float32(k) * (1 / np.float32(k)) != 1]


def test_jitted_average_of_ones_where_the_reciprocal_is_inexact():
    assert len(INEXACT) > 5
    assert np.unique(averages_of_ones(INEXACT)).tolist() == [1]


def test_jitted_global_average_of_ones_is_exactly_one():
    averages = jax.jit(lambda x: [jaxpool.global_avg_pool(x[:, :k]) for k in INEXACT])
    got = averages(jnp.ones((2, 200, 3), jnp.float32))
    assert np.unique(np.ravel(got)).tolist() == [1]


def test_sum_of_small_integers_accumulates_wide():
    x = jnp.array([100, 100, -100, -50], jnp.int8).reshape(1, 4, 1)
    for op in operators("sum"):
        y = op(x)
        assert y.dtype == jnp.int8
        assert y.item() == 50


@pytest.mark.share(10)
@pytest.mark.parametrize("kind", ["sum", "avg"])
def test_complex_sum_and_average(kind):
    x = (distinct((1, 4, 1)) + 2j * distinct((1, 4, 1))[:, ::-1]).astype(np.complex64)
    want = x.sum() if kind == "sum" else x.mean()
    for op in operators(kind):
        y = op(x)
        assert y.dtype == jnp.complex64
        np.testing.assert_allclose(y.item(), want, rtol=1e-6)


@pytest.mark.share(10)
@pytest.mark.parametrize("dtype", SIGNED + UNSIGNED + ("int64", "uint64"))
def test_integer_extremes_and_ties(dtype):
    """The identity of each reduction is a legal cell: it must still be found."""
    with jax.enable_x64(dtype.endswith("64")):
        info = jnp.iinfo(dtype)
        rows = {"max": info.min, "min": info.max}
        for kind, worst in rows.items():
            x = jnp.full((1, 5, 1), worst, dtype)
            pool = getattr(jaxpool, f"{kind}_pool")
            y = jax.jit(lambda x, pool=pool: pool(x, (3,), (2,), 1))(x)
            assert y.dtype == dtype
            assert np.all(np.asarray(y) == np.asarray(x)[:, :3])
            best = {"max": info.max, "min": info.min}[kind]
            assert pool(x.at[0, 2, 0].set(best), (5,)).item() == best


# --- NaN, infinities, ties ---


SIZES = [
    pytest.param(shape, axes, win, id="x".join(map(str, shape)))
    for shape, axes, win in (
        ((1, 12, 1), (1,), 2),
        ((4096,), (0,), 2),
        ((1, 1_000_000, 1), (1,), 2),
        ((64, 256), (0, 1), 2),
        ((1, 64, 64, 16), (1, 2), 2),
        ((1, 500, 500, 4), (1, 2), 2),
        ((1, 8, 8, 8, 2), (1, 2, 3), 2),
        ((1, 100, 100, 100, 1), (1, 2, 3), 2),
    )
]


def lattice(shape, axes, fill):
    """Ones with `fill` at every tenth position of each pooled axis, from 4 on."""
    x = np.ones(shape, np.float32)
    place = [slice(None)] * x.ndim
    for axis in axes:
        place[axis] = slice(4, None, 10)
    x[tuple(place)] = fill
    return x


def windows_over(size, win, stride):
    """How many windows of one axis hold each of its cells."""
    outs = (size - win) // stride + 1
    hits = np.zeros(size)
    for k in range(win):
        hits[k : k + outs * stride : stride][:outs] += 1
    return hits


def jitted_and_eager(pool, x):
    """Value and gradient of the sum, in one jitted program; and the eager value."""
    run = jax.jit(functools.partial(value_and_grad, pool))
    return *jax.device_get(run(x)), np.asarray(pool(x))


@pytest.mark.share(10)
@pytest.mark.parametrize(
    ("kind", "overlap"), [("max", False), ("min", False), ("max", True)]
)
@pytest.mark.parametrize(("shape", "axes", "win"), SIZES)
def test_nan_at_every_size(shape, axes, win, overlap, kind):
    """A NaN takes every window it is in, value and gradient, and no other."""
    win, stride = (win + 1, win) if overlap else (win, win)
    pool = pooling(kind, window=win, strides=stride, axes=axes)
    x = lattice(shape, axes, NAN)
    y, dx, eager = jitted_and_eager(pool, x)
    owned = 1
    for axis in axes:
        others = [a for a in range(len(shape)) if a != axis]
        hits = windows_over(shape[axis], win, stride)
        owned = owned * np.expand_dims(hits, others)
    expected = np.where(np.isnan(x), owned, 0)
    assert np.isnan(eager).sum() == np.isnan(y).sum() == expected.sum()
    np.testing.assert_array_equal(np.where(np.isnan(x), dx, 0), expected)
    assert dx.astype(np.float64).sum() == y.size


@pytest.mark.share(10)
@every_extreme
@pytest.mark.parametrize("size", [2, 7, 1000, 65_537, 1_000_000])
def test_global_nan_at_every_size(kind, size):
    x = np.ones((1, size, 1), np.float32)
    x[0, size // 2 :: 3] = NAN
    pool = getattr(jaxpool, f"global_{kind}_pool")
    y, dx, eager = jitted_and_eager(pool, x)
    assert np.isnan([y, eager]).all()
    assert np.flatnonzero(dx).tolist() == [size // 2]


@pytest.mark.share(10)
@pytest.mark.parametrize("dtype", ["float8_e5m2", "bfloat16", "float16", "float64"])
@every_extreme
def test_nan_in_other_dtypes(kind, dtype):
    with jax.enable_x64(dtype == "float64"):
        x = jnp.asarray(lattice((1, 64, 64, 2), (1, 2), NAN)).astype(dtype)
        f = jax.jit(pooling(kind, window=(2, 2)))
        assert jnp.isnan(f(x)).sum() == jnp.isnan(x).sum()


@pytest.mark.share(10)
@every_smooth
def test_nan_stays_in_its_windows(kind):
    """A running sum would spread it."""
    x = lattice((1, 40, 30, 2), (1, 2), NAN)
    y = jax.jit(pooling(kind, window=(7, 3), strides=1))(x)
    want = jaxpool.max_pool(np.isnan(x).astype(np.int32), (7, 3), 1)
    np.testing.assert_array_equal(np.isnan(y), want == 1)


@pytest.mark.share(10)
@every_extreme
@pytest.mark.parametrize("shape", [(1, 30, 1), (1, 4096, 1), (1, 1_000_000, 1)])
def test_all_worst_windows_go_to_their_first_cell(kind, shape):
    """All -inf (max) or all inf (min) with padding: never a padded cell."""
    worst = -INF if kind == "max" else INF
    x = np.full(shape, worst, np.float32)
    op = getattr(jaxpool, f"{kind}_pool")
    kwargs = {"window": (3,), "strides": (2,), "padding": 1}
    out = jaxpool.output_shape(shape, **kwargs)
    ((y, dx),) = value_and_vjp([(op, kwargs, x, np.ones(out))])
    assert np.all(y == worst)
    want = np.zeros(shape)
    want[0, 1::2] = 1
    want[0, 0] = 1
    want[0, 2 * out[1] - 1 :] = 0
    np.testing.assert_array_equal(dx, want)


@pytest.mark.share(10)
@pytest.mark.parametrize("shape", [(1, 6, 6, 1), (1, 64, 64, 4), (1, 500, 500, 4)])
def test_ties_go_to_the_first_cell(shape):
    x = np.ones(shape, np.float32)
    out = jaxpool.output_shape(shape, (2, 2))
    for op in (jaxpool.max_pool, jaxpool.min_pool):
        ((_, dx),) = value_and_vjp([(op, {"window": (2, 2)}, x, np.ones(out))])
        want = np.zeros(shape)
        want[:, ::2, ::2] = 1
        np.testing.assert_array_equal(dx, want)


def test_masked_nan_takes_no_part():
    x = lattice((1, 500, 500, 4), (1, 2), NAN)
    where = ~np.isnan(x)
    for op in (jaxpool.max_pool, jaxpool.min_pool):
        kwargs = {"window": (2, 2), "where": where}
        ((y, dx),) = value_and_vjp([(op, kwargs, x, np.ones((1, 250, 250, 4)))])
        assert np.all(y == 1)
        assert dx.sum() == y.size
        assert np.all(dx[np.isnan(x)] == 0)


NARROW = (
    *("float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fnuz"),
    *("float8_e5m2fnuz", "float4_e2m1fn", "int2", "uint2"),
)
POOLS_OF_ONE_AXIS = {
    "max": lambda x: jaxpool.max_pool(x, 2, axes=0),
    "min": lambda x: jaxpool.min_pool(x, 2, axes=0, implementation="reduce_window"),
    "indexed": lambda x: jaxpool.max_pool_with_indices(x, 2, axes=0)[0],
    "sum": lambda x: jaxpool.sum_pool(x, 2, axes=0),
    "avg": lambda x: jaxpool.avg_pool(x, 2, axes=0),
    "lp": lambda x: jaxpool.lp_pool(x, 2, axes=0, p=1),
    "adaptive max": lambda x: jaxpool.adaptive_max_pool(x, 2, axes=0),
    "adaptive avg": lambda x: jaxpool.adaptive_avg_pool(x, 2, axes=0),
    "global max": lambda x: jaxpool.global_max_pool(x, axes=0, keepdims=True),
    "pool": lambda x: jaxpool.pool(x, 1, jnp.maximum, 2, axes=0),
}


@pytest.mark.share(10)
@pytest.mark.parametrize("dtype", NARROW)
def test_every_narrow_dtype_is_pooled(dtype):
    """A11: values, and gradients of floats."""
    x = jnp.asarray([1, 0, 1, 1]).astype(dtype)
    wants = {"min": [0, 1], "sum": [1, 2 if dtype != "int2" else -2], "avg": [0.5, 1]}
    wants |= {"adaptive avg": [0.5, 1], "lp": [1, 2], "global max": [1]}
    is_float = jnp.issubdtype(dtype, jnp.floating)

    @jax.jit
    def run(x):
        values = {name: pool(x) for name, pool in POOLS_OF_ONE_AXIS.items()}
        if not is_float:
            return values, {}
        ones = {name: jnp.ones_like(y) for name, y in values.items()}
        pulls = {name: jax.vjp(pool, x)[1] for name, pool in POOLS_OF_ONE_AXIS.items()}
        return values, {name: pull(ones[name])[0] for name, pull in pulls.items()}

    values, gradients = jax.device_get(run(x))
    for name, y in values.items():
        want = wants.get(name, [1, 1])
        np.testing.assert_array_equal(y.astype(np.float32), want, err_msg=name)
    for name, dx in gradients.items():
        want = {
            "min": [0, 1, 1, 0],
            "sum": [1, 1, 1, 1],
            "avg": [0.5] * 4,
            "adaptive avg": [0.5] * 4,
            "lp": [1, 0, 1, 1],
            "global max": [1, 0, 0, 0],
            "pool": [1, 0, 0.5, 0.5],  # as jax divides it
        }.get(name, [1, 0, 1, 0])
        np.testing.assert_array_equal(dx.astype(np.float32), want, err_msg=name)


@pytest.mark.share(10)
@pytest.mark.parametrize("name", POOLS_OF_ONE_AXIS)
def test_a_dtype_without_zero_is_pooled_and_has_no_gradient(name):
    """A11: `float8_e8m0fnu`, whose zeros would be NaN."""
    x = jnp.asarray([1, 0.5, 2, 1]).astype(jnp.float8_e8m0fnu)
    pool = POOLS_OF_ONE_AXIS[name]
    want = {"min": [0.5, 1], "sum": [2, 4], "lp": [2, 4], "global max": [2]}
    got = np.asarray(pool(x)).astype(np.float32)
    np.testing.assert_array_equal(got, want.get(name, [1, 2]))
    with pytest.raises(TypeError, match=r"represent 0.*float8_e8m0fnu"):
        jax.vjp(pool, x)


def test_what_a_dtype_without_zero_cannot_have():
    """A11: an empty window, a mask, and cells between unpooled values."""
    x = jnp.asarray([1, 0.5]).astype(jnp.float8_e8m0fnu)
    with pytest.raises(TypeError, match=r"where must be None.*float8_e8m0fnu"):
        jaxpool.max_pool(x, 2, axes=0, where=np.asarray([True, False]))
    dilated = {"padding": [(1, 1)], "dilation": 2, "axes": 0}
    with pytest.raises(ValueError, match=r"empty_value.*float8_e8m0fnu"):
        jaxpool.max_pool(x[:1], 2, **dilated)
    got = jaxpool.max_pool(x[:1], 2, **dilated, empty_value=4)
    np.testing.assert_array_equal(got.astype(np.float32), [4])
    with pytest.raises(TypeError, match=r"values.*float8_e8m0fnu"):
        jaxpool.max_unpool(x, np.asarray([0, 1]), 2, axes=0)


@pytest.mark.share(10)
@pytest.mark.parametrize(
    "dtype", ["float6_e2m3fn", "float6_e3m2fn", "int1", "uint1", "complex32"]
)
@pytest.mark.parametrize("name", ["max", "avg", "adaptive max", "pool"])
def test_dtypes_that_nothing_computes_with_are_refused(name, dtype):
    """A11: by the name of the dtype."""
    if not hasattr(ml_dtypes, dtype):
        pytest.skip("an older ml_dtypes")
    x = np.ones(4, np.float32).astype(getattr(ml_dtypes, dtype))
    with pytest.raises(TypeError, match=rf"^x must .*{dtype}"):
        POOLS_OF_ONE_AXIS[name](x)
