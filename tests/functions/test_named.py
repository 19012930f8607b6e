"""Named functions and modules for what `aggregate` does over windows and whole axes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import jaxpool
import jaxpool.linen
import jaxpool.nnx
from jaxpool import (
    LogSumExp,
    Median,
    PowerMean,
    Softmax,
    StandardDeviation,
    Variance,
    whole,
)
from tests.cases import GEOMETRY, distinct, mask

SHAPE = (2, 7, 5, 3)
X, CHANNELS = distinct(SHAPE) / 32, np.float32([0.5, 1, 2])
LOGITS = np.cos(np.arange(X.size, dtype=np.float32)).reshape(SHAPE)
NAMED = {
    "softmax": ({"logits": LOGITS, "scale": CHANNELS}, Softmax(LOGITS, CHANNELS)),
    "power_mean": ({"p": CHANNELS, "eps": 0.25}, PowerMean(CHANNELS, 0.25)),
    "var": ({"ddof": 1}, Variance(1)),
    "std": ({"ddof": 1, "eps": 0.5}, StandardDeviation(1, 0.5)),
    "median": ({}, Median()),
}
DEFAULTS = {
    "softmax": Softmax(),
    "power_mean": PowerMean(3.0),
    "var": Variance(),
    "std": StandardDeviation(),
    "median": Median(),
}
every_name = pytest.mark.parametrize("name", NAMED)


@every_name
def test_functions_are_those_of_aggregate(name):
    options, by = NAMED[name]
    where = {"where": mask(SHAPE), "empty_value": -3}
    for pool, over, geometry in (
        (f"{name}_pool", jaxpool.windows(**GEOMETRY), GEOMETRY),
        (f"global_{name}_pool", jaxpool.whole(keepdims=True), {"keepdims": True}),
    ):
        got = getattr(jaxpool, pool)(X, **geometry, **options, **where)
        np.testing.assert_array_equal(got, jaxpool.aggregate(X, by, over, **where))
        got = getattr(jaxpool, pool)(X, **geometry)
        np.testing.assert_array_equal(got, jaxpool.aggregate(X, DEFAULTS[name], over))


@every_name
@pytest.mark.parametrize("flavour", [jaxpool.linen, jaxpool.nnx])
def test_modules_are_those_of_functions(name, flavour):
    options = dict(NAMED[name][0])
    arrays = {"where": mask(SHAPE)}
    if name == "softmax":
        arrays["logits"] = options.pop("logits")
    title = "".join(part.title() for part in name.split("_")) + "Pool"
    for prefix, geometry in (("", GEOMETRY), ("global_", {"axes": (1, 2)})):
        module = getattr(flavour, prefix[:-1].title() + title)(**geometry, **options)
        function = getattr(jaxpool, f"{prefix}{name}_pool")
        called = module if flavour is jaxpool.nnx else nn.Module.apply
        args = (X,) if flavour is jaxpool.nnx else (module, {}, X)
        want = function(X, **geometry, **options, **arrays)
        np.testing.assert_array_equal(called(*args, **arrays), want)


def test_softmax_has_an_average_and_extremes_as_limits():
    """Equal logits give the average, bit for bit; large scales the extremes."""
    x = jnp.asarray(X)
    average = jaxpool.avg_pool(x, **GEOMETRY)
    cells = np.sin(np.arange(147, dtype=np.float32)).reshape(1, 7, 7, 3)
    for window in (2, 3):
        pooled = {"window": (window, window), "strides": (2, 2)}
        equal = jaxpool.softmax_pool(cells, **pooled, logits=np.full_like(cells, 0.5))
        np.testing.assert_array_equal(equal, jaxpool.avg_pool(cells, **pooled))
    np.testing.assert_allclose(
        jaxpool.softmax_pool(x, **GEOMETRY, scale=0.0), average, rtol=1e-6, atol=1e-6
    )
    for scale, kind in ((1e6, "max"), (-1e6, "min")):
        extreme = getattr(jaxpool, f"{kind}_pool")(x, **GEOMETRY)
        np.testing.assert_array_equal(
            jaxpool.softmax_pool(x, **GEOMETRY, scale=scale), extreme
        )


def test_softmax_of_one_cell_is_the_cell():
    for strides, step in ((1, 1), ((2, 1), 2)):
        pooled = jaxpool.softmax_pool(X, 1, strides, axes=(1, 2), logits=LOGITS)
        np.testing.assert_array_equal(pooled, X[:, ::step])


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.float16])
def test_softmax_is_stable_and_within_its_cells(dtype):
    for offset in (-1e4, 0, 1e4):
        x = jnp.asarray(X + offset, dtype)
        y = jaxpool.softmax_pool(x, **GEOMETRY)
        assert y.dtype == dtype
        assert (y <= jaxpool.max_pool(x, **GEOMETRY)).all()
        assert (y >= jaxpool.min_pool(x, **GEOMETRY)).all()
    logits = jnp.asarray(LOGITS * 1e4)
    y, vjp = jax.vjp(
        lambda x, logits: jaxpool.softmax_pool(x, **GEOMETRY, logits=logits),
        jnp.asarray(X),
        logits,
    )
    assert all(np.isfinite(g).all() for g in (y, *vjp(jnp.ones(y.shape))))


def test_softmax_moves_with_a_shift():
    x = jnp.asarray(X)
    moved = jaxpool.softmax_pool(x + 4, **GEOMETRY) - 4
    np.testing.assert_allclose(moved, jaxpool.softmax_pool(x, **GEOMETRY), atol=1e-5)


def test_scales_of_float64_are_not_rounded():
    with jax.enable_x64(True):
        x = np.random.default_rng(0).normal(size=(6, 3))
        weights = np.exp(0.1 * x) / np.exp(0.1 * x).sum(0)
        got = jaxpool.global_softmax_pool(x, axes=0, scale=0.1)
        np.testing.assert_allclose(got, (weights * x).sum(0), rtol=1e-14)
        logits = {"logits": x / 3}
        over = jaxpool.windows(6, 1, "CAUSAL", axes=0)
        init, step = jaxpool.stream(Softmax(), over, arrays=["logits"])
        _, rows = step(init(x.shape, x.dtype), x, **logits)
        want = jaxpool.global_softmax_pool(x, axes=0, **logits)
        np.testing.assert_allclose(rows[-1], want, rtol=1e-14)


def test_power_mean_has_the_average_and_the_maximum_as_limits():
    x = jnp.abs(jnp.asarray(X)) + 1
    for p, kind in ((1.0, "avg"), (np.inf, "max")):
        want = getattr(jaxpool, f"{kind}_pool")(x, **GEOMETRY)
        got = jaxpool.power_mean_pool(x, **GEOMETRY, p=p)
        np.testing.assert_allclose(got, want, rtol=1e-6)
    half = jnp.asarray([100.0, 1e-6], np.float16)[:, None]
    got = jaxpool.power_mean_pool(half, 1, axes=0)
    np.testing.assert_array_equal(got, half)


def test_gem_is_learned_in_nnx_and_linen():
    """Radenovic's GeM: `p` is a parameter, and gradient descent moves it."""
    x, target = jnp.abs(jnp.asarray(X)), jnp.asarray(1.5)

    class GeM(nn.Module):
        @nn.compact
        def __call__(self, x):
            p = self.param("p", nn.initializers.constant(3.0), (x.shape[-1],))
            return jaxpool.global_power_mean_pool(x, p=p, eps=1e-6)

    model = GeM()
    variables = model.init(jax.random.key(0), x)
    loss = lambda v: ((model.apply(v, x) - target) ** 2).mean()  # noqa: E731
    slope = jax.grad(loss)(variables)["params"]["p"]
    assert slope.shape == (3,)
    assert (slope != 0).all()

    pool = jaxpool.nnx.GlobalPowerMeanPool(p=nnx.Param(jnp.full(3, 3.0)), eps=1e-6)
    assert jax.tree.leaves(nnx.state(pool, nnx.Param))
    of_nnx = nnx.grad(lambda pool: ((pool(x) - target) ** 2).mean())(pool)
    np.testing.assert_allclose(jax.tree.leaves(of_nnx)[0], slope, rtol=1e-6)


@every_name
def test_wrong_arguments(name):
    function = getattr(jaxpool, f"{name}_pool")
    wrong = {
        "softmax": ({"logits": LOGITS[:1, :2]}, "logits must"),
        "power_mean": ({"p": 0}, "p must be a number of at least 0.001"),
        "var": ({"ddof": -1}, "ddof must be at least 0"),
        "std": ({"eps": -1.0}, "eps must be a number of at least 0"),
        "median": ({"strides": 0}, "strides must be at least 1"),
    }
    options, message = wrong[name]
    with pytest.raises(ValueError, match=message):
        function(X, **GEOMETRY | options)


def biased(x, logits, bias, window, strides):
    """Cell by cell, over one axis without padding."""
    outs = range(0, x.shape[1] - window + 1, strides)
    rows = []
    for start in outs:
        cells = slice(start, start + window)
        weights = jax.nn.softmax(logits[:, cells] + bias, 1)
        rows.append((weights * x[:, cells]).sum(1))
    return jnp.stack(rows, 1)


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_bias_for_each_place_of_a_window(per_channel):
    """Values, and gradients for the data, the logits and the bias."""
    x = jnp.asarray(X.reshape(2, 35, 3))
    logits = jnp.asarray(LOGITS.reshape(2, 35, 3))
    bias = jnp.cos(jnp.arange(12, dtype=np.float32)).reshape(4, 3)
    bias = bias if per_channel else bias[:, 0]

    def ours(x, logits, bias):
        by = Softmax(logits, bias=bias)
        return jaxpool.aggregate(x, by, jaxpool.windows(4, 3, axes=1))

    def theirs(x, logits, bias):
        each = bias if per_channel else bias[:, None]
        return biased(x, logits, each[None], 4, 3)

    args = x, logits, bias
    np.testing.assert_allclose(ours(*args), theirs(*args), rtol=1e-5, atol=1e-6)
    got, want = (
        jax.jit(jax.grad(lambda *a, f=f: (f(*a) ** 2).sum(), (0, 1, 2)))(*args)
        for f in (ours, theirs)
    )
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_bias_of_0_with_padding_and_a_mask_changes_nothing():
    where, over = mask(SHAPE), jaxpool.windows(**GEOMETRY)
    by, same = Softmax(LOGITS, bias=np.zeros((3, 2), np.float32)), Softmax(LOGITS)
    got, want = (
        jaxpool.aggregate(X, one, over, where=where, empty_value=-2)
        for one in (by, same)
    )
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_a_bias_is_of_windows():
    bias = np.zeros((3, 2), np.float32)
    with pytest.raises(NotImplementedError, match=r"over must be windows.*bias.*bins"):
        jaxpool.aggregate(X, Softmax(bias=bias), jaxpool.bins((3, 2)))
    over = jaxpool.windows((2, 2))
    with pytest.raises(ValueError, match="bias must have the shape of the window"):
        jaxpool.aggregate(X, Softmax(bias=bias), over)


@pytest.mark.parametrize("p", [0.5, 0.25, 0.2, 0.05, 0.001, -0.001])
def test_power_mean_of_a_small_exponent(p):
    """It goes to the geometric mean; `cells ** (1 / p)` would overflow."""
    x = jnp.linspace(0.1, 2.0, 56 * 56).reshape(1, 56, 56, 1)
    got = jaxpool.global_power_mean_pool(x, p=p)[0, 0]
    want = np.mean(np.float64(x) ** p) ** (1 / p)
    np.testing.assert_allclose(got, want, 2e-6 / min(1, abs(p)))
    dx = jax.grad(lambda x: jaxpool.global_power_mean_pool(x, p=p)[0, 0])(x)
    np.testing.assert_allclose(
        dx, want ** (1 - p) * x ** (p - 1) / x.size, 5e-6 / min(1, abs(p))
    )


@pytest.mark.parametrize("p", [0.5, 0.1, -2.0])
def test_power_mean_of_nan_has_a_tangent_of_nan(p):
    """As its gradient."""
    x = jnp.asarray([np.nan, 1.0])
    pool = functools.partial(jaxpool.global_power_mean_pool, axes=0, p=p)
    assert np.isnan(jax.jvp(pool, (x,), (x,))[1])
    assert np.isnan(jax.grad(pool)(x)).any()
    scaled = lambda x: jaxpool.aggregate(x, LogSumExp(scale=2.0), whole(0))  # noqa: E731
    assert np.isnan(jax.jvp(scaled, (x,), (x,))[1])


@pytest.mark.parametrize("p", [np.float32(np.inf), np.int64(3), np.float16(0.5)])
def test_an_exponent_may_be_a_number_of_numpy(p):
    pool = functools.partial(jaxpool.global_power_mean_pool, X)
    np.testing.assert_array_equal(pool(p=p), pool(p=float(p)))


def test_exponents_that_no_array_may_have():
    for p in (np.float32([np.inf, 1, 2]), np.float32([0, 1, 2])):
        with pytest.raises(ValueError, match="p must be finite in an array"):
            jaxpool.global_power_mean_pool(X, p=p)
    with pytest.raises(ValueError, match="scale must be a finite number other than 0"):
        jaxpool.aggregate(X, LogSumExp(np.float32(0)), whole())


def test_a_cell_that_ties_with_eps_has_no_gradient():
    pool = functools.partial(jaxpool.global_power_mean_pool, axes=0, eps=1.0)
    assert jax.grad(pool)(jnp.asarray([1.0, 2.0, 0.5])).tolist()[::2] == [0, 0]


@pytest.mark.parametrize(
    ("x", "logits"),
    [
        ([1.0, 2, 3], [np.inf, 0, 0]),
        ([1.0, 2, 3], [np.inf, 0, np.inf]),
        ([np.inf, 1, 2], None),
        ([-np.inf, 1, 2], None),
        ([np.nan, 2, 3], [-np.inf, 0, 0]),
        ([1.0, 2, 3], [np.nan, 0, 0]),
        ([1.0, 2, 3], [1e4, 1e4 + 1, -1e4]),
    ],
)
def test_a_bias_of_zeros_changes_nothing(x, logits):
    given, logits = jnp.float32(x), None if logits is None else jnp.float32(logits)
    over = jaxpool.windows(3, 1, axes=0)

    def pool(x, bias):
        return jaxpool.aggregate(x, Softmax(logits, bias=bias), over)[0]

    zeros = np.zeros(3, np.float32)
    got, expected = pool(given, zeros), pool(given, None)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    if np.isfinite(expected):
        got, expected = jax.grad(pool)(given, zeros), jax.grad(pool)(given, None)
        np.testing.assert_allclose(got, expected, rtol=1e-6)
