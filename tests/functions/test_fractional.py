"""Fractional pools: where the bins are, and that the pools are those of the bins."""

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
from jaxpool.functions import fractional
from jaxpool.geometry.bins import step_draws, window_draws
from tests import oracle
from tests.cases import SPECIALS, cotangent, distinct, quick_jit, tied, value_and_vjp

MAX, AVG = jaxpool.fractional_max_pool, jaxpool.fractional_avg_pool
INDICES = jaxpool.fractional_max_pool_with_indices
OPS = {"max": MAX, "avg": AVG}
CLOSE = {"rtol": 2e-6, "atol": 2e-6}
every_kind = pytest.mark.parametrize("kind", OPS)
BELOW_ONE = np.nextafter(np.float32(1), np.float32(0))


def samples(*shape, seed=0):
    """Multiples of 1/1024: products with small integers are exact."""
    rng = np.random.default_rng(seed)
    return (rng.integers(1, 1024, shape) / 1024).astype(np.float32)


STEPS = {"rule": "pseudorandom", "window": None}
OVERLAPPING = STEPS | {"overlapping": True}
CASES = (  # shape, arguments
    pytest.param((2, 9, 7, 3), {"window": 2, "samples": (2, 3, 2)}, id="2d"),
    pytest.param((2, 9, 7, 3), {"window": (3, 1), "samples": (2,)}, id="shared"),
    pytest.param((2, 9, 7, 3), {"window": 2, "samples": (2, 1, 2)}, id="by_batch"),
    pytest.param((2, 9, 7, 3), {"window": 2, "samples": (3, 2)}, id="by_channel"),
    pytest.param((2, 9, 7, 3), STEPS | {"samples": (2,)}, id="steps"),
    pytest.param((2, 9, 7, 3), OVERLAPPING | {"samples": (2,)}, id="overlapping"),
    pytest.param((2, 9, 7, 3), OVERLAPPING | {"samples": (2, 3, 2)}, id="steps_by_all"),
    pytest.param(
        (2, 3, 9, 7), {"window": 2, "samples": (2, 3, 2), "axes": (-2, -1)}, id="nchw"
    ),
    pytest.param(
        (9, 2, 7), {"window": (2, 3), "samples": (2, 2), "axes": (2, 0)}, id="any_order"
    ),
    pytest.param(
        (7, 9), {"window": 2, "samples": (2,), "axes": (1, 0)}, id="nothing_else"
    ),
)


@pytest.mark.share(24)
@pytest.mark.parametrize(("shape", "arguments"), CASES)
def test_against_oracle(shape, arguments):
    u = samples(*arguments["samples"])
    kwargs = arguments | {"output_shape": (5, 4), "samples": u}
    checks, wants = [], []
    for kind in OPS:
        x = tied(shape, specials=SPECIALS) if kind == "max" else distinct(shape)
        g = cotangent(oracle.fractional(x, None, kind, **kwargs)[0].shape)
        checks.append((OPS[kind], kwargs, x, g))
        wants.append(oracle.fractional(x, g, kind, **kwargs))
    for got, want in zip(value_and_vjp(checks), wants, strict=True):
        for a, b in zip(got, want[:2], strict=True):
            np.testing.assert_allclose(a, b, **CLOSE)
    y, index = quick_jit(functools.partial(INDICES, **kwargs))(checks[0][2])
    assert index.dtype == np.int32
    np.testing.assert_array_equal(y, wants[0][0])
    np.testing.assert_array_equal(index, wants[0][2])


def test_three_axes():
    x, u = tied((1, 5, 6, 4, 2)), samples(1, 2, 3)
    kwargs = {"window": (2, 3, 1), "output_shape": (3, 4, 2), "samples": u}
    g = cotangent((1, 3, 4, 2, 2))
    ((y, dx),) = value_and_vjp([(MAX, kwargs, x, g)])
    want = oracle.fractional(x, g, "max", **kwargs)
    np.testing.assert_array_equal(y, want[0])
    np.testing.assert_array_equal(dx, want[1])


# --- where the bins are ---


def ranges(table):
    return [range(*ends) for ends in zip(*map(np.asarray, table), strict=True)]


def starts(size, out, window, u):
    """Where the windows of one axis start: the cells of a ramp under window 1."""
    y = MAX(
        np.arange(size - window + 1, dtype=np.float32),
        1,
        out,
        axes=0,
        samples=np.float32([u]),
    )
    return np.asarray(y).astype(int).tolist()


@pytest.mark.share(24)
@pytest.mark.parametrize(("u", "want"), [(0, [0, 1, 3, 4, 6]), (0.5, [0, 2, 3, 5, 6])])
def test_known_starts(u, want):
    assert starts(7, 5, 1, u) == want


GRID = [
    (size, out, window)
    for size in (1, 2, 5, 13, 40)
    for window in (1, 2, 3, 7)
    for out in (1, 2, 3, 5, 7, 12, 38)
    if out + window - 1 <= size
]


def placed(rules, us):
    """The table of bins of each rule for each sample, in one program."""
    run = jax.jit(lambda us: [jax.vmap(rule)(us) for rule in rules])
    return jax.device_get(run(us))


def test_windows_are_where_pytorch_has_them():
    """In float32, from the smallest sample to the largest; and no more bins a cell."""
    us = np.append(samples(20), np.float32([0, 1e-30, 0.1, 0.7, 1 / 3, BELOW_ONE]))
    dims = [
        window_draws((size,), window, out, 0)[0].dims[0] for size, out, window in GRID
    ]
    found = placed([functools.partial(fractional._windows, dim) for dim in dims], us)
    for (size, out, window), dim, tables in zip(GRID, dims, found, strict=True):
        for u, *table in zip(us, *tables, strict=True):
            got = ranges([np.atleast_1d(ends) for ends in table])
            assert got == oracle.fractional_windows(size, out, window, u), (size, u)
            most = max(sum(h in cells for cells in got) for h in range(size))
            assert most <= dim.covers[1], (size, out, window, u)


@pytest.mark.share(24)
@pytest.mark.parametrize("overlapping", [False, True])
def test_steps_are_where_tensorflow_has_them(overlapping):
    us = samples(30)
    extremes = np.float32([0, 1e-30, BELOW_ONE])
    sizes = [(size, out) for size, out, window in GRID if window == 1]
    dims = [step_draws((size,), out, 0, overlapping)[0].dims[0] for size, out in sizes]
    place = functools.partial(fractional._pseudorandom, overlapping)
    rules = [functools.partial(place, dim) for dim in dims]
    found = placed(rules, np.append(us, extremes))
    for (size, out), dim, tables in zip(sizes, dims, found, strict=True):
        for u, *table in zip(np.append(us, extremes), *tables, strict=True):
            got = ranges(table)
            if u in us:
                assert got == oracle.fractional_steps(size, out, u, overlapping)
            check_steps(got, dim, overlapping)


def check_steps(got, dim, overlapping):
    """Bins that follow each other, of `size // out` cells or one more."""
    edges = [cells.start for cells in got] + [dim.size]
    assert edges[0] == 0
    assert set(np.diff(edges)) <= {dim.size // dim.out, -(-dim.size // dim.out)}
    for cells, end in zip(got, edges[1:], strict=True):
        assert cells.stop == min(end + overlapping, dim.size)
        assert dim.cells[0] <= len(cells) <= dim.cells[1]


@pytest.mark.share(24)
@pytest.mark.parametrize("overlapping", [False, True])
def test_random_steps(overlapping):
    seen = set()
    for seed in range(20):
        bins, _ = step_draws((11,), 4, 0, overlapping)
        table = fractional._random(overlapping, bins.dims[0], jax.random.key(seed))
        got = ranges(table)
        check_steps(got, bins.dims[0], overlapping)
        seen.add(tuple(got))
    assert len(seen) == 4  # where the one bin of two cells is


def test_tensorflows_example():
    """Bins that begin at 0, 2 and 4, each with the first cell of the next."""
    x = np.float32([20, 5, 16, 3, 7])
    kwargs = {"axes": 0, "rule": "pseudorandom", "overlapping": True}
    kwargs["samples"] = np.float32([0.25])
    np.testing.assert_array_equal(MAX(x, None, 2, **kwargs), [20, 16])
    got = AVG(x, None, 2, **kwargs)
    np.testing.assert_allclose(got, [41 / 3, 26 / 3], rtol=1e-6)


def test_a_large_axis_has_exact_places():
    size, out = 70_000, 50_000  # their product is beyond int32
    x = np.arange(size, dtype=np.float32)
    u = np.float32([0.25])
    kwargs = {"axes": 0, "rule": "pseudorandom", "samples": u}
    y = np.asarray(MAX(x, None, out, **kwargs))
    bins = oracle.fractional_steps(size, out, u[0])
    np.testing.assert_array_equal(y, [cells.stop - 1 for cells in bins])


# --- keys ---


def test_a_key_draws_windows_for_each_batch_and_channel():
    x = np.broadcast_to(np.arange(23, dtype=np.float32)[:, None], (4, 23, 8))
    y = np.asarray(MAX(x, 1, (9,), key=jax.random.key(1)))
    again = MAX(x, 1, (9,), key=jax.random.key(1))
    np.testing.assert_array_equal(y, again)
    assert len({tuple(row) for row in np.moveaxis(y, 1, 2).reshape(-1, 9)}) > 2
    u = jax.random.uniform(jax.random.key(1), (4, 8, 1))
    np.testing.assert_array_equal(y, MAX(x, 1, (9,), samples=u))


@pytest.mark.share(24)
@pytest.mark.parametrize("rule", ["pseudorandom", "random"])
def test_a_key_draws_steps_for_all(rule):
    x = np.broadcast_to(np.arange(23, dtype=np.float32)[:, None], (4, 23, 8))
    draws = [MAX(x, None, (9,), key=jax.random.key(i), rule=rule) for i in range(5)]
    for y in draws:
        np.testing.assert_array_equal(y, np.broadcast_to(y[:1, :, :1], y.shape))
    assert any((draws[0] != y).any() for y in draws)


def test_keys_of_both_kinds():
    x = distinct((2, 9, 7, 3))
    for rule, window in (("window", 2), ("random", None)):
        one, other = (
            MAX(x, window, (5, 4), key=make(3), rule=rule)
            for make in (jax.random.key, jax.random.PRNGKey)
        )
        np.testing.assert_array_equal(one, other)


# --- transformations ---

SHAPE = (2, 7, 6, 3)
DRAWS = pytest.mark.parametrize(
    "kwargs",
    [
        {"window": 2, "samples": samples(2, 3, 2)},
        {"window": (3, 2), "samples": samples(2)},
        OVERLAPPING | {"samples": samples(2)},
        {"window": None, "rule": "random", "key": jax.random.key(0)},
    ],
    ids=["window", "shared", "overlapping", "random"],
)


def pooling(kind, kwargs):
    return functools.partial(OPS[kind], output_shape=(4, 3), **kwargs)


@pytest.mark.share(24)
@every_kind
@DRAWS
def test_check_grads(kind, kwargs):
    x = distinct(SHAPE) if kind == "max" else distinct(SHAPE) / 20
    pool = jax.jit(pooling(kind, kwargs))
    jax.test_util.check_grads(pool, (x,), 1, rtol=2e-2, atol=2e-2, eps=0.1)


@pytest.mark.slow
@pytest.mark.share(24)
@DRAWS
def test_derivatives_of_maxima_are_those_of_a_gather(kwargs):
    x = distinct(SHAPE)
    v = distinct(SHAPE)[:, ::-1] + 0.5
    index = INDICES(x, output_shape=(4, 3), **kwargs)[1].reshape(2, 12, 3)
    cubes = lambda y: (y**3).sum() / 100  # noqa: E731

    def derivatives(pool):
        f = lambda x: cubes(pool(x))  # noqa: E731
        grad = jax.grad(f)
        return (
            grad(x),
            jax.jvp(f, (x,), (v,))[1],
            jax.jvp(grad, (x,), (v,))[1],
            jax.grad(lambda x: (grad(x) * v).sum())(x),
        )

    got = quick_jit(lambda: derivatives(pooling("max", kwargs)))()
    want = derivatives(lambda x: jnp.take_along_axis(x.reshape(2, 42, 3), index, 1))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5)


@pytest.mark.share(24)
@every_kind
@DRAWS
def test_the_way_back_does_not_scatter(kind, kwargs):
    pool = pooling(kind, kwargs)
    lowered = jax.jit(jax.grad(lambda x: (pool(x) ** 3).sum())).lower(distinct(SHAPE))
    assert "scatter" not in lowered.as_text()


@pytest.mark.slow
@pytest.mark.share(24)
@every_kind
def test_vmap_over_keys(kind):
    """An ensemble of draws of one input."""
    x, keys = distinct(SHAPE), jax.random.split(jax.random.key(0), 3)
    pool = lambda key, x: OPS[kind](x, 2, (4, 3), key=key)  # noqa: E731
    grad = lambda key, x: jax.grad(lambda x: (pool(key, x) ** 2).sum())(x)  # noqa: E731
    for f in (pool, grad):
        got = quick_jit(jax.vmap(f, (0, None)))(keys, x)
        each = quick_jit(f)
        want = jnp.stack([each(key, x) for key in keys])
        np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.share(24)
@every_kind
def test_vmap_over_the_batch_is_the_batch(kind):
    x, u = distinct(SHAPE), samples(2, 3, 2)
    pool = lambda x, u: OPS[kind](x, 2, (4, 3), samples=u)  # noqa: E731
    np.testing.assert_allclose(jax.vmap(pool)(x, u), pool(x, u), rtol=1e-6)


def test_samples_have_no_gradient():
    x = distinct(SHAPE)
    loss = lambda u: MAX(x, 2, (4, 3), samples=u).sum()  # noqa: E731
    assert not jax.grad(loss)(jnp.asarray(samples(2, 3, 2))).any()


@pytest.mark.share(24)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8", "int32"])
def test_dtypes(dtype):
    x, u = distinct((2, 9, 3)), samples(2, 3, 1)
    want = oracle.fractional(x, None, "max", 2, (5,), samples=u)[0]
    y = MAX(jnp.asarray(x, dtype), 2, (5,), samples=u)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.astype(np.float32), want)
    mean = AVG(jnp.asarray(x, dtype), 2, (5,), samples=u)
    assert mean.dtype == (np.float32 if "int" in dtype else dtype)
    want = oracle.fractional(x, None, "avg", 2, (5,), samples=u)[0]
    np.testing.assert_array_equal(mean.astype(np.float32), want)


@pytest.mark.share(24)
@every_kind
def test_a_special_value_stays_in_its_bins(kind):
    x = np.zeros((11, 11), np.float32)
    np.fill_diagonal(x, np.nan)
    u = samples(1)
    y = np.asarray(OPS[kind](x, None, 4, axes=1, rule="pseudorandom", samples=u))
    bins = oracle.fractional_steps(11, 4, u[0])
    has = [[place in cells for cells in bins] for place in range(11)]
    np.testing.assert_array_equal(np.isnan(y), has)


@pytest.mark.share(24)
@every_kind
@DRAWS
def test_exports_with_a_symbolic_batch(kind, kwargs):
    if "samples" in kwargs:
        kwargs = kwargs | {"samples": samples(1, 3, 2)}
    (batch,) = jax.export.symbolic_shape("b")
    pool = pooling(kind, kwargs)
    run = jax.jit(lambda x: jax.grad(lambda x: (pool(x) ** 2).sum())(x))
    spec = jax.ShapeDtypeStruct((batch, *SHAPE[1:]), jnp.float32)
    exported = jax.export.export(run, platforms=["cpu", "tpu"])(spec)
    x = distinct((5, *SHAPE[1:]))
    np.testing.assert_allclose(exported.call(x), run(x), rtol=1e-5, atol=1e-4)


@pytest.mark.share(24)
@every_kind
@pytest.mark.parametrize("axis_type", [AxisType.Explicit, AxisType.Auto])
@pytest.mark.parametrize("each", [False, True], ids=["shared", "each"])
def test_batch_and_channels_sharded(kind, axis_type, each):
    """But for the gradient of each channel's own draws, if the mesh is explicit."""
    mesh = jax.make_mesh((2, 2), ("b", "c"), axis_types=(axis_type,) * 2)
    x, u = distinct((4, 7, 6, 4)), samples(4, 4, 2) if each else samples(2)
    pool = lambda x, u: OPS[kind](x, 2, (4, 3), samples=u)  # noqa: E731
    functions = [jax.jit(pool)]
    if not (each and axis_type == AxisType.Explicit):
        functions.append(jax.jit(jax.grad(lambda x, u: (pool(x, u) ** 2).sum())))
    wants = [f(x, u) for f in functions]
    with jax.set_mesh(mesh):
        x = jax.device_put(x, NamedSharding(mesh, P("b", None, None, "c")))
        u = jax.device_put(u, NamedSharding(mesh, P("b", "c"))) if each else u
        for f, want in zip(functions, wants, strict=True):
            np.testing.assert_allclose(f(x, u), want, rtol=1e-5)
            text = f.lower(x, u).compile().as_text()
            assert "all-gather" not in text
            assert "all-to-all" not in text


# --- errors ---

X = np.zeros((2, 9, 7, 3), np.float32)
KEY, HALF = jax.random.key(0), np.full(2, 0.5, np.float32)
OK = {"window": 2, "output_shape": (5, 4), "key": KEY}
FREE = {"window": None, "rule": "random"}


@pytest.mark.share(24)
@pytest.mark.parametrize(
    ("argument", "kwargs", "error"),
    [
        ("output_shape", {"output_shape": (9, 4)}, ValueError),
        ("output_shape", {"output_shape": (0, 4)}, ValueError),
        ("output_shape", {"output_shape": 4}, ValueError),
        ("output_shape", {"output_shape": (None, 4)}, TypeError),
        ("output_shape", {"output_shape": (1, 1, 1, 1)}, ValueError),
        ("output_shape", {"output_shape": (10, 4)} | FREE, ValueError),
        ("window", {"window": 0}, ValueError),
        ("window", {"window": (2, 2, 2)}, ValueError),
        ("window", {"window": 1.5}, TypeError),
        ("window", {"window": None}, ValueError),
        ("window", {"rule": "random"}, ValueError),
        ("key", {"key": None}, ValueError),
        ("key", {"samples": HALF}, ValueError),
        ("key", {"key": 3}, TypeError),
        ("key", {"key": jax.random.split(KEY)}, TypeError),
        ("samples", {"key": None, "samples": HALF} | FREE, ValueError),
        ("samples", {"key": None, "samples": 0.5}, TypeError),
        ("samples", {"key": None, "samples": np.zeros(2, int)}, TypeError),
        ("samples", {"key": None, "samples": HALF.astype(np.float16)}, TypeError),
        ("samples", {"key": None, "samples": HALF[:1]}, ValueError),
        ("samples", {"key": None, "samples": np.zeros((3, 3, 2))}, ValueError),
        ("samples", {"key": None, "samples": np.zeros((2, 2, 3, 2))}, ValueError),
        ("axes", {"axes": (1, 1)}, ValueError),
        ("rule", {"rule": "torch"}, ValueError),
        ("rule", {"rule": None}, ValueError),
        ("overlapping", {"overlapping": True}, ValueError),
        ("overlapping", {"overlapping": 1} | FREE, TypeError),
    ],
)
@pytest.mark.parametrize("op", [MAX, AVG, INDICES], ids=lambda op: op.__name__)
def test_wrong_argument(op, argument, kwargs, error):
    with pytest.raises(error, match=argument) as caught:
        op(X, **OK | kwargs)
    assert str(X.shape) in str(caught.value)


def test_wrong_input():
    with pytest.raises(TypeError, match=r"\bx\b.*bool"):
        MAX(X.astype(bool), **OK)
    with pytest.raises(TypeError, match=r"\bx\b.*complex64"):
        MAX(X.astype(np.complex64), **OK)
    assert AVG(X.astype(np.complex64), **OK).dtype == np.complex64


# --- the live peer ---


@pytest.mark.slow
@pytest.mark.share(24)
@pytest.mark.parametrize("dims", [2, 3])
def test_torch(dims):
    torch = pytest.importorskip("torch")
    pool = getattr(torch.nn.functional, f"fractional_max_pool{dims}d")
    rng = np.random.default_rng(dims)
    calls, wants = [], []
    for turn in range((6, 3)[dims - 2]):
        window = rng.integers(1, 4, dims)
        outs = rng.integers(1, (9, 4)[dims - 2], dims)
        # In three dimensions it refuses windows that may follow cell by cell.
        sizes = window + outs - 1 + rng.integers(dims - 2, 5, dims)
        x = rng.integers(-3, 4, (2, 3, *sizes)).astype(np.float32)
        u = rng.random((2, 3, dims), np.float32)
        u[:, 0] = (0, BELOW_ONE)[turn % 2]
        theirs = torch.tensor(x, requires_grad=True)
        order = u[..., ::-1].copy() if dims == 2 else u
        y, index = pool(
            theirs,
            window.tolist(),
            outs.tolist(),
            return_indices=True,
            _random_samples=torch.tensor(order),
        )
        kwargs = {"window": window.tolist(), "output_shape": outs.tolist()}
        kwargs |= {"samples": u, "axes": tuple(range(-dims, 0))}
        g = cotangent(tuple(y.shape)).astype(np.float32)
        calls.append((MAX, kwargs, x, g))
        gradient = torch.autograd.grad(y, theirs, torch.tensor(g))[0]
        wants.append((y.detach(), gradient, index))
    indices = quick_jit(
        lambda xs: [INDICES(x, **call[1])[1] for x, call in zip(xs, calls, strict=True)]
    )([x for *_, x, _ in calls])
    results = zip(value_and_vjp(calls), indices, wants, strict=True)
    for got, index, want in results:
        for a, b in zip((*got, index), want, strict=True):
            np.testing.assert_array_equal(a, b)


def test_sizes_that_pytorch_takes_in_two_dimensions_only():
    x = distinct((1, 6, 6, 6, 1))
    u = samples(3)
    got = MAX(x, 3, (4, 4, 4), samples=u)
    want = oracle.fractional(x, None, "max", 3, (4, 4, 4), samples=u)[0]
    np.testing.assert_array_equal(got, want)
