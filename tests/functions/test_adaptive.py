"""Adaptive pools: every size to every size, against the oracle and known vectors."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxpool
from tests import oracle
from tests.cases import SPECIALS, cotangent, distinct, quick_jit, tied, value_and_vjp

CLOSE = {"rtol": 2e-6, "atol": 1e-6}
MAX, AVG = jaxpool.adaptive_max_pool, jaxpool.adaptive_avg_pool
OPS = {"max": MAX, "avg": AVG}
SHAPE, OUT = (2, 7, 5, 3), (3, 4)
SIZES = pytest.mark.parametrize("out", [OUT, (7, 1), (9, 2)])
every_kind = pytest.mark.parametrize("kind", OPS)

CASES = (  # shape, output_shape, axes
    pytest.param((2, 7, 5, 3), (3, 2), None, id="2d"),
    pytest.param((1, 7, 6, 2), (3, 3), None, id="one_axis_tiles"),
    pytest.param((2, 6, 4, 3), (3, 2), None, id="both_axes_tile"),
    pytest.param((2, 4, 3, 2), (7, 5), None, id="larger"),
    pytest.param((1, 4, 9, 2), (6, 4), None, id="larger_and_smaller"),
    pytest.param((1, 5, 4, 6, 2), (3, 3, 4), None, id="3d"),
    pytest.param((2, 5, 7, 2), (None, 3), None, id="keeps_an_axis"),
    pytest.param((1, 5, 7, 4, 2), (2, None, 3), None, id="keeps_the_middle_axis"),
    pytest.param((1, 5, 7, 2), (None, None), None, id="keeps_every_axis"),
    pytest.param((1, 5, 7, 2), (5, 3), None, id="same_size"),
    pytest.param((2, 5, 4), (1,), None, id="global"),
    pytest.param((2, 3, 7, 5), (3, 2), (-2, -1), id="nchw"),
    pytest.param((7, 2, 5), (2, 3), (2, 0), id="axes_in_any_order"),
    pytest.param((2, 9, 3), 4, 1, id="int_for_one_axis"),
    pytest.param((5, 7), 3, (0, 1), id="int_for_every_axis"),
    pytest.param((10,), 4, 0, id="nothing_else"),
    pytest.param((0, 7, 2), (3,), None, id="empty_batch"),
    pytest.param((2, 7, 0), (3,), None, id="zero_channels"),
    pytest.param((1, 65, 2), (3,), None, id="bins_in_parts"),
    pytest.param((1, 601, 1), (2,), None, id="bins_in_parts_of_parts"),
    pytest.param((1, 3, 2), (65,), None, id="many_bins_a_cell"),
    pytest.param((1, 40, 23, 1), (2, 3), None, id="parts_on_two_axes"),
    pytest.param((1, 3, 5, 2), (65, 2), None, id="many_bins_a_row"),
)


def check(checks):
    """Compare each `(x, output_shape, axes)`, maxima and averages, with the oracle."""
    calls, wants = [], []
    for kind, x, output_shape, axes in checks:
        y, *_ = oracle.adaptive(x, None, kind, output_shape, axes)
        g = cotangent(y.shape)
        wants.append(oracle.adaptive(x, g, kind, output_shape, axes)[:2])
        kwargs = {"output_shape": output_shape, "axes": axes}
        calls.append((OPS[kind], kwargs, x, g))
    for call, got, want in zip(calls, value_and_vjp(calls), wants, strict=True):
        for a, b in zip(got, want, strict=True):
            label = f"{call[0].__name__} {call[1]} {call[2].shape}"
            np.testing.assert_allclose(a, b, err_msg=label, **CLOSE)


@pytest.mark.share(24)
@pytest.mark.parametrize(("shape", "output_shape", "axes"), CASES)
def test_against_oracle(shape, output_shape, axes):
    special = tied(shape, specials=SPECIALS)
    check(
        [("max", special, output_shape, axes), ("avg", tied(shape), output_shape, axes)]
    )


@pytest.mark.share(24)
@pytest.mark.parametrize("size", [1, 3, 5, 12])
def test_every_number_of_bins(size):
    x = tied((size, 2), seed=size, specials=(np.nan,))
    check([("max", x, out, 0) for out in (1, 2, 3, 4, 5, 7, 8, 14)])
    x = distinct((size, 2))
    check([("avg", x, out, 0) for out in (1, 2, 3, 4, 5, 7, 8, 14)])


@pytest.mark.share(24)
@pytest.mark.parametrize(("shape", "output_shape", "axes"), CASES)
def test_indices(shape, output_shape, axes):
    x = tied(shape, specials=SPECIALS)
    pool = functools.partial(
        jaxpool.adaptive_max_pool_with_indices, output_shape=output_shape, axes=axes
    )
    y, index = quick_jit(pool)(x)
    want, _, places = oracle.adaptive(x, None, "max", output_shape, axes)
    assert index.dtype == np.int32
    np.testing.assert_array_equal(y, want)
    np.testing.assert_array_equal(index, places)


@pytest.mark.share(24)
@SIZES
def test_values_beside_indices_have_the_gradient_of_maxima(out):
    x, g = tied(SHAPE), cotangent((2, *out, 3))
    alone, beside = quick_jit(
        lambda x: [
            jax.grad(lambda x, f=f: (f(x) * g).sum())(x)
            for f in (
                lambda x: MAX(x, out),
                lambda x: jaxpool.adaptive_max_pool_with_indices(x, out)[0],
            )
        ]
    )(x)
    np.testing.assert_array_equal(alone, beside)


@pytest.mark.share(24)
@pytest.mark.parametrize(
    ("size", "out", "averages", "maxima"),
    [
        (10, 4, [1, 3, 6, 8], [2, 4, 7, 9]),
        (8, 3, [1, 3.5, 6], [2, 5, 7]),
        (3, 5, [0, 0.5, 1, 1.5, 2], [0, 1, 1, 2, 2]),
        (14, 4, [1.5, 4.5, 8.5, 11.5], [3, 6, 10, 13]),
    ],
)
def test_known_vectors(size, out, averages, maxima):
    x = np.arange(size, dtype=np.float32)
    np.testing.assert_allclose(AVG(x, out, axes=0), averages, rtol=1e-6)
    np.testing.assert_array_equal(MAX(x, out, axes=0), maxima)


@pytest.mark.share(24)
@pytest.mark.parametrize(("size", "out"), [(11, 7), (7, 7), (18, 15), (49, 7)])
def test_sizes_that_keras_gets_wrong_on_jax(size, out):
    x = np.arange(size, dtype=np.float32).reshape(1, size, 1)
    got = AVG(x, (out,))
    assert np.isfinite(got).all()
    want, *_ = oracle.adaptive(x, None, "avg", (out,))
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.share(24)
@every_kind
@pytest.mark.parametrize("special", SPECIALS)
@pytest.mark.parametrize("size", [11, 77])
def test_a_special_value_stays_in_its_bins(kind, special, size):
    x = np.zeros((size, size), np.float32)
    np.fill_diagonal(x, special)
    y = np.asarray(OPS[kind](x, 4, axes=1))
    bins = oracle.adaptive_bins(size, 4)
    has = np.array([[place in cells for cells in bins] for place in range(size)])
    np.testing.assert_array_equal(y[~has], 0)


@pytest.mark.share(24)
@every_kind
@pytest.mark.parametrize("size", [11, 5])
def test_a_special_cotangent_stays_in_its_bin(kind, size):
    x, g = distinct((size,)), np.zeros(7, np.float32)
    g[3] = np.nan
    _, vjp = jax.vjp(functools.partial(OPS[kind], output_shape=7, axes=0), x)
    inside = np.isin(np.arange(size), oracle.adaptive_bins(size, 7)[3])
    dx = np.asarray(vjp(jnp.asarray(g))[0])
    assert np.isnan(dx).sum() == (1 if kind == "max" else inside.sum())
    np.testing.assert_array_equal(dx[~inside], 0)


@pytest.mark.share(24)
@every_kind
def test_more_bins_than_cells_repeat_them(kind):
    x = distinct((2, 3, 2))
    np.testing.assert_array_equal(OPS[kind](x, (6,)), np.repeat(x, 2, 1))


@pytest.mark.share(24)
@every_kind
def test_one_bin_is_the_global_pool(kind):
    x = distinct((2, 7, 5, 3))
    whole = getattr(jaxpool, f"global_{kind}_pool")(x, keepdims=True)
    np.testing.assert_allclose(OPS[kind](x, (1, 1)), whole, rtol=1e-6)


# --- dtypes ---


@pytest.mark.share(24)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e4m3fn", "int8"])
@pytest.mark.parametrize("out", [3, 5])
def test_maxima_keep_the_dtype(dtype, out):
    x = jnp.asarray(distinct((2, 10, 2)) / 2, dtype)
    y, index = jax.jit(lambda x: jaxpool.adaptive_max_pool_with_indices(x, (out,)))(x)
    values = x.astype(np.float32)
    want, _, places = oracle.adaptive(np.asarray(values), None, "max", (out,))
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.astype(np.float32), want)
    np.testing.assert_array_equal(MAX(x, (out,)).astype(np.float32), want)
    np.testing.assert_array_equal(index, places)


@pytest.mark.share(24)
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32"])
@pytest.mark.parametrize("out", [3, 5])
def test_averages_of_integers_are_float32(dtype, out):
    x = np.full((2, 10, 2), np.iinfo(dtype).max, dtype)
    y = AVG(x, (out,))
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, np.iinfo(dtype).max, rtol=1e-6)


@pytest.mark.share(24)
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("out", [2, 3])
def test_averages_of_half_floats_accumulate_in_float32(dtype, out):
    x = jnp.asarray(1 + distinct((1, 401, 2)) / 1024, dtype)
    y, vjp = jax.vjp(lambda x: AVG(x, (out,)), x)
    assert y.dtype == dtype
    want, *_ = oracle.adaptive(np.asarray(x, np.float32), None, "avg", (out,))
    once = jnp.asarray(want, dtype)  # rounded at the end only
    np.testing.assert_array_equal(y.astype(np.float32), once.astype(np.float32))
    (dx,) = vjp(jnp.ones_like(y))
    assert dx.dtype == dtype


def test_many_bins_of_one_cell_add_their_cotangents_in_float32():
    x = jnp.ones((1, 2, 1), jnp.bfloat16)
    for op in (MAX, AVG):
        _, vjp = jax.vjp(lambda x, op=op: op(x, (600,)), x)
        (dx,) = vjp(jnp.ones((1, 600, 1), jnp.bfloat16))
        np.testing.assert_array_equal(dx.ravel().astype(np.float32), [300, 300])


def test_complex():
    x = distinct((1, 7, 2)) * (1 + 2j)
    want, *_ = oracle.adaptive(x, None, "avg", (3,))
    y = AVG(x.astype(np.complex64), (3,))
    assert y.dtype == np.complex64
    np.testing.assert_allclose(y, want, rtol=1e-6)
    with pytest.raises(TypeError, match=r"\bx\b.*complex64"):
        MAX(x.astype(np.complex64), (3,))


# --- transformations ---


def cubes(kind, out):
    return lambda x: (OPS[kind](x, out) ** 3).sum() / 100


@pytest.mark.share(24)
@every_kind
@pytest.mark.parametrize(("in_axis", "out"), [(0, OUT), (-1, (7, 1)), (2, (9, 2))])
def test_vmap(kind, out, in_axis):
    batch = distinct((4, *SHAPE))
    moved = jnp.moveaxis(batch, 0, in_axis)
    pool, grad = (
        functools.partial(OPS[kind], output_shape=out),
        jax.grad(cubes(kind, out)),
    )
    for f in (pool, grad):
        got = quick_jit(jax.vmap(f, in_axis, in_axis))(moved)
        want = quick_jit(f)(batch)
        np.testing.assert_allclose(jnp.moveaxis(got, in_axis, 0), want, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.share(24)
@SIZES
def test_derivatives_of_maxima_are_those_of_a_gather(out):
    """Of first and second order, in every order of the two modes."""
    x = distinct((1, 7, 5, 1))
    v = distinct(x.shape)[:, ::-1] + 0.5
    index = jaxpool.adaptive_max_pool_with_indices(x, out)[1].ravel()

    def derivatives(f, x):
        grad, push = jax.grad(f), lambda f: jax.jvp(f, (x,), (v,))[1]
        return (
            push(f),
            grad(x),
            push(grad),
            jax.grad(lambda x: (grad(x) * v).sum())(x),
            jax.grad(lambda x: jax.jvp(f, (x,), (v,))[1])(x),
            push(lambda x: jax.jvp(f, (x,), (v,))[1]),
            jax.hessian(f)(x),
        )

    got = quick_jit(functools.partial(derivatives, cubes("max", out)))(x)
    want = derivatives(lambda x: (x.ravel()[index] ** 3).sum() / 100, x)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5)


@pytest.mark.share(24)
@every_kind
@SIZES
def test_check_grads(kind, out):
    x = distinct(SHAPE) if kind == "max" else distinct(SHAPE) / 20
    pool = jax.jit(lambda x: OPS[kind](x, out))
    order = 1 if kind == "max" else 2  # the second of maxima: the test above
    jax.test_util.check_grads(pool, (x,), order, rtol=2e-2, atol=2e-2, eps=0.1)


@pytest.mark.share(24)
@SIZES
def test_an_average_is_its_own_jvp(out):
    x, v = distinct(SHAPE), distinct(SHAPE)[::-1]
    pool = lambda x: AVG(x, out)  # noqa: E731
    y, tangent = jax.jit(lambda x, v: jax.jvp(pool, (x,), (v,)))(x, v)
    np.testing.assert_allclose(y, pool(x), **CLOSE)
    np.testing.assert_allclose(tangent, pool(v), rtol=1e-5, atol=1e-5)


@pytest.mark.share(24)
@every_kind
@SIZES
def test_the_way_back_does_not_scatter(kind, out):
    lowered = jax.jit(jax.grad(cubes(kind, out))).lower(distinct(SHAPE))
    assert "scatter" not in lowered.as_text()


@pytest.mark.share(24)
@SIZES
def test_the_residual_of_maxima_is_one_index_an_output(out):
    x = distinct(SHAPE)
    y, vjp = jax.vjp(lambda x: MAX(x, out), x)
    kept = [leaf for leaf in jax.tree.leaves(vjp) if leaf.size > 16]
    assert [leaf.size for leaf in kept] == [y.size]
    assert jnp.issubdtype(kept[0].dtype, jnp.integer)


@pytest.mark.share(24)
@every_kind
@SIZES
def test_exports_with_a_symbolic_batch(kind, out):
    (batch,) = jax.export.symbolic_shape("b")
    loss = lambda x: ((OPS[kind](x, out) ** 2).sum(), OPS[kind](x, out))  # noqa: E731
    run = jax.jit(lambda x: jax.grad(loss, has_aux=True)(x))
    exported = jax.export.export(run, platforms=["cpu", "cuda", "tpu"])(
        jax.ShapeDtypeStruct((batch, *SHAPE[1:]), jnp.float32)
    )
    x = distinct((5, *SHAPE[1:]))
    for got, want in zip(exported.call(x), run(x), strict=True):
        np.testing.assert_allclose(got, want, **CLOSE)


@pytest.mark.share(24)
@every_kind
@SIZES
@pytest.mark.parametrize("axis_type", [AxisType.Explicit, AxisType.Auto])
def test_batch_and_channels_sharded_need_no_communication(kind, out, axis_type):
    mesh = jax.make_mesh((2, 2), ("b", "c"), axis_types=(axis_type,) * 2)
    x = distinct((4, 7, 5, 4))
    loss = lambda x: ((OPS[kind](x, out) ** 2).sum(), OPS[kind](x, out))  # noqa: E731
    run = jax.jit(lambda x: jax.grad(loss, has_aux=True)(x))
    want = run(x)
    with jax.set_mesh(mesh):
        x = jax.device_put(x, NamedSharding(mesh, P("b", None, None, "c")))
        got = run(x)
        text = run.lower(x).compile().as_text()
    assert not any(s in text for s in ("all-gather", "all-to-all", "permute"))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_jit_traces_once():
    traces = []

    @jax.jit
    def pool(x):
        traces.append(1)
        return MAX(x, OUT)

    for fill in range(3):
        pool(jnp.full(SHAPE, fill, jnp.float32))
    assert len(traces) == 1


# --- errors ---

X = np.zeros((2, 9, 7, 3), np.float32)


@pytest.mark.share(24)
@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize(
    "op", [MAX, AVG, jaxpool.adaptive_max_pool_with_indices], ids=lambda op: op.__name__
)
@pytest.mark.parametrize(
    ("argument", "kwargs", "error"),
    [
        ("output_shape", {"output_shape": 3}, ValueError),
        ("output_shape", {"output_shape": None}, ValueError),
        ("output_shape", {"output_shape": ()}, ValueError),
        ("output_shape", {"output_shape": (1, 2, 3, 4)}, ValueError),
        ("output_shape", {"output_shape": (0, 2)}, ValueError),
        ("output_shape", {"output_shape": (None, -1)}, ValueError),
        ("output_shape", {"output_shape": (2.5, 2)}, TypeError),
        ("output_shape", {"output_shape": "ab"}, TypeError),
        ("output_shape", {"output_shape": (True, 2)}, TypeError),
        ("output_shape", {"output_shape": (2, 2), "axes": 1}, ValueError),
        ("axes", {"output_shape": 2, "axes": (1, 1)}, ValueError),
        ("axes", {"output_shape": 2, "axes": 4}, ValueError),
        ("axes", {"output_shape": 2, "axes": 1.5}, TypeError),
    ],
)
def test_wrong_argument(op, argument, kwargs, error, jitted):
    pool = functools.partial(op, **kwargs)
    with pytest.raises(error, match=argument) as caught:
        (jax.jit(pool) if jitted else pool)(X)
    assert str(X.shape) in str(caught.value)
    assert not isinstance(caught.value, AssertionError)


@pytest.mark.share(24)
@pytest.mark.parametrize("op", [MAX, AVG])
def test_wrong_input(op):
    with pytest.raises(TypeError, match=r"\bx\b.*bool"):
        op(X.astype(bool), (2, 2))
    with pytest.raises(TypeError, match=r"\bx\b"):
        op([[1.0, 2.0]], 1, axes=1)
    with pytest.raises(ValueError, match=r"\bx\b.*axis 1 is empty"):
        op(np.zeros((2, 0, 3)), (2,))


# --- the live peer ---


@pytest.mark.share(24)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_torch(dims):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(dims)
    calls, wants, runs = [], [], []
    for _ in range((6, 5, 3)[dims - 1]):
        sizes = rng.integers(1, (30, 12, 7)[dims - 1], dims).tolist()
        outs = rng.integers(1, (40, 14, 8)[dims - 1], dims).tolist()
        x = rng.integers(-9, 9, (2, 3, *sizes)).astype(np.float32)
        kwargs = {"output_shape": outs, "axes": tuple(range(-dims, 0))}
        theirs = torch.tensor(x, requires_grad=True)
        for kind, options in (("max", {"return_indices": True}), ("avg", {})):
            pool = getattr(torch.nn.functional, f"adaptive_{kind}_pool{dims}d")
            y = pool(theirs, outs, **options)
            if kind == "max":
                y, index = y
                runs.append((x, kwargs, index))
            g = cotangent(tuple(y.shape)).astype(np.float32)
            calls.append((OPS[kind], kwargs, x, g))
            gradient = torch.autograd.grad(y, theirs, torch.tensor(g))[0]
            wants.append((y.detach(), gradient))
    for got, want in zip(value_and_vjp(calls), wants, strict=True):
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, **CLOSE)
    pool = jaxpool.adaptive_max_pool_with_indices
    options = [kwargs for _, kwargs, _ in runs]
    indices = quick_jit(
        lambda xs: [pool(x, **k)[1] for x, k in zip(xs, options, strict=True)]
    )([x for x, *_ in runs])
    for got, (*_, index) in zip(indices, runs, strict=True):
        np.testing.assert_array_equal(got, index)


def test_long_bins_on_two_axes():
    """They are read in pieces; each piece starts at a place of its own."""
    x = distinct((1, 100, 101, 2))
    pool = lambda x: jaxpool.adaptive_max_pool(x, (3, 2))  # noqa: E731
    want = np.zeros((1, 3, 2, 2), np.float32)
    for i, j in np.ndindex(3, 2):
        rows = slice(i * 100 // 3, -(-(i + 1) * 100 // 3))
        columns = slice(j * 101 // 2, -(-(j + 1) * 101 // 2))
        want[:, i, j] = x[:, rows, columns].max((1, 2))
    np.testing.assert_array_equal(pool(x), want)
    gradient = jax.grad(lambda x: pool(x).sum())(x)
    np.testing.assert_array_equal(gradient, np.isin(x, want))
