"""`aggregate`: each aggregation over each domain, beside plain formulas of jax."""

import functools
import math

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
    Average,
    LogSumExp,
    Lp,
    Max,
    Median,
    Min,
    Monoid,
    PowerMean,
    Quantile,
    Softmax,
    StandardDeviation,
    Sum,
    TopKMean,
    Variance,
    bins,
    neighbors,
    segments,
    whole,
    windows,
)
from tests import oracle
from tests.cases import distinct, mask

SHAPE = (2, 7, 5, 3)
CHANNELS = np.float32([0.5, 1, 2])
LOGITS = np.cos(np.arange(np.prod(SHAPE), dtype=np.float32)).reshape(SHAPE)

# For each aggregation, the same of the cells of each output, along the axis before the
# last: `n` is 1 for those that count, `at` gives these cells of another array.
AGGREGATIONS = {
    "max": (Max(), lambda x, n, at: jnp.where(n > 0, x, -jnp.inf).max(-2)),
    "Min()": (Min(), lambda x, n, at: jnp.where(n > 0, x, jnp.inf).min(-2)),
    "Sum()": (Sum(), lambda x, n, at: (x * n).sum(-2)),
    "Average()": (Average(), lambda x, n, at: (x * n).sum(-2) / n.sum(-2)),
    "Average(w)": (
        Average(LOGITS + 2),
        lambda x, n, at: mean(x, n * at(LOGITS + 2)),
    ),
    "Lp(3)": (Lp(3), lambda x, n, at: ((abs(x) ** 3) * n).sum(-2) ** (1 / 3)),
    "Lp(p)": (
        Lp(CHANNELS + 1),
        lambda x, n, at: (
            ((abs(x) ** (at(CHANNELS) + 1)) * n).sum(-2)
            ** (1 / (at(CHANNELS)[..., 0, :] + 1))
        ),
    ),
    "LogSumExp()": (LogSumExp(), lambda x, n, at: logsumexp(x, n)),
    "LogSumExp(scale, mean)": (
        LogSumExp(CHANNELS, mean=True),
        lambda x, n, at: (
            (logsumexp(at(CHANNELS) * x, n) - jnp.log(n.sum(-2)))
            / at(CHANNELS)[..., 0, :]
        ),
    ),
    "Softmax()": (
        Softmax(),
        lambda x, n, at: (jax.nn.softmax(x, -2, where=n > 0) * x).sum(-2),
    ),
    "Softmax(logits, scale)": (
        Softmax(LOGITS, CHANNELS),
        lambda x, n, at: (
            jax.nn.softmax(at(LOGITS) * at(CHANNELS), -2, where=n > 0) * x
        ).sum(-2),
    ),
    "PowerMean(3)": (
        PowerMean(3),
        lambda x, n, at: mean(abs(x) ** 3, n) ** (1 / 3),
    ),
    "PowerMean(p)": (
        PowerMean(CHANNELS + 1),
        lambda x, n, at: (
            mean(abs(x) ** (at(CHANNELS) + 1), n) ** (1 / (at(CHANNELS)[..., 0, :] + 1))
        ),
    ),
    "PowerMean(-1)": (PowerMean(-1), lambda x, n, at: 1 / mean(1 / abs(x), n)),
    "PowerMean(3, eps)": (
        PowerMean(3.0, eps=0.5),
        lambda x, n, at: mean(jnp.maximum(x, 0.5) ** 3, n) ** (1 / 3),
    ),
    "Variance()": (Variance(), lambda x, n, at: variance(x, n)),
    "StandardDeviation(1, eps)": (
        StandardDeviation(1, 0.5),
        lambda x, n, at: jnp.where(n.sum(-2) > 1, jnp.sqrt(variance(x, n, 1) + 0.5), 0),
    ),
    "Median()": (Median(), lambda x, n, at: quantile(x, n, 0.5)),
    "Quantile(0.3)": (Quantile(0.3), lambda x, n, at: quantile(x, n, 0.3)),
    "TopKMean(2)": (TopKMean(2), lambda x, n, at: top_mean(x, n, 2)),
}


def variance(x, n, ddof=0):
    squares = (n * (x - mean(x, n)[..., None, :]) ** 2).sum(-2)
    return squares / jnp.maximum(n.sum(-2) - ddof, 1)


def quantile(x, n, q):
    return jnp.nanquantile(jnp.where(n > 0, x, jnp.nan), q, axis=-2)


def top_mean(x, n, k):
    first = jnp.sort(jnp.where(n > 0, x, -jnp.inf), axis=-2)[..., ::-1, :][..., :k, :]
    is_cell = jnp.isfinite(first)
    return jnp.where(is_cell, first, 0).sum(-2) / is_cell.astype(np.float32).sum(-2)


def mean(x, n):
    return (x * n).sum(-2) / n.sum(-2)


def logsumexp(x, n):
    return jax.nn.logsumexp(x, -2, where=n > 0)


DOMAINS = {
    "windows": windows((3, 2), (2, 1), ((1, 0), (0, 1))),
    "long windows": windows((7, 4), 1, "SAME"),
    "whole": whole(),
    "bins": bins((3, 2)),
    "segments": segments(np.asarray([2, 0, -1, 2, 4, 0, 2]), 5, axis=1),
    "neighbors": neighbors(np.asarray([[0, 3], [-1, 4], [-1, -1], [2, 0]]), axis=2),
}


def links_of(over):
    """The cells of each output along the axis of a domain that is an array."""
    if isinstance(over, neighbors):
        return [[int(cell) for cell in row if cell >= 0] for row in over.indices]
    outputs = range(over.num_segments)
    return [[*np.flatnonzero(over.segment_ids == s)] for s in outputs]


def cells_of(over):
    """The result's sizes on the pooled axes, and the cells of each output."""
    if isinstance(over, (segments, neighbors)):
        linked, along = links_of(over), over.axis - 1
        others = [[n] for n in range(SHAPE[2 - along])]
        lines = (linked, others) if along == 0 else (others, linked)
        table = {
            (i, j): [(int(h), int(w)) for h in rows for w in columns]
            for i, rows in enumerate(lines[0])
            for j, columns in enumerate(lines[1])
        }
        return tuple(map(len, lines)), table
    if isinstance(over, whole):
        over = windows(SHAPE[1:3])
    if isinstance(over, bins):
        ranges = [
            oracle.adaptive_bins(n, out)
            for n, out in zip(SHAPE[1:3], over.output_shape, strict=True)
        ]
        table = {
            (i, j): [(h, w) for h in rows for w in columns]
            for i, rows in enumerate(ranges[0])
            for j, columns in enumerate(ranges[1])
        }
        return over.output_shape, table
    out, table = oracle.windows(SHAPE, over.window, over.strides, over.padding)
    return out, {o: cells for o, (cells, _) in table.items()}


def plain(formula, over, where):
    """The same pool as a gather of the cells of each output."""
    out, table = cells_of(over)
    most = max(map(len, table.values()))
    index = np.zeros((len(table), most, 2), np.int32)
    inside = np.zeros((1, len(table), most, 1), np.float32)
    for row, cells in enumerate(table.values()):
        inside[0, row, : len(cells)] = 1
        index[row, : len(cells)] = np.reshape(cells, (-1, 2))
    rows, columns = np.moveaxis(index, -1, 0)

    def at(array):
        return jnp.broadcast_to(array, SHAPE)[:, rows, columns]

    def pooled(x):
        number = inside * at(np.float32(where))
        is_empty = number.sum(-2) == 0
        # As if an output without a cell had one: its derivative must not be NaN.
        y = formula(at(x), jnp.where(is_empty[..., None, :], 1, number), at)
        y = jnp.where(is_empty, 0, y).reshape(SHAPE[0], *out, SHAPE[-1])
        return y.squeeze((1, 2)) if isinstance(over, whole) else y

    return pooled


@pytest.mark.share(8)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("name", AGGREGATIONS)
def test_every_aggregation_over_every_domain(name, domain, masked):
    """Values, and derivatives in both modes to second order."""
    (by, formula), over = AGGREGATIONS[name], DOMAINS[domain]
    where = mask(SHAPE, keep=0.8) | (np.arange(7) % 2 == 0)[:, None, None]
    where = where if masked else np.ones(SHAPE, bool)
    x = distinct(SHAPE) / 32 + 0.03
    t = jnp.asarray(LOGITS[:, ::-1])
    pool = functools.partial(
        jaxpool.aggregate, by=by, over=over, where=where if masked else None
    )

    @functools.partial(jax.jit, static_argnums=0)
    def derivatives(pool, x):
        loss = lambda x: (pool(x) ** 2).sum()  # noqa: E731
        with jaxpool.forward_mode():
            y, ty = jax.jvp(pool, (x,), (t,))
            forward = jax.jvp(jax.grad(loss), (x,), (t,))[1]
        return y, ty, jax.grad(loss)(x), forward

    wants = derivatives(plain(formula, over, where), x)
    gots = derivatives(pool, x)
    for got, want in zip(gots, wants, strict=True):
        np.testing.assert_allclose(got, want, 2e-4, 2e-4)
    np.testing.assert_allclose(pool(x), gots[0], 1e-5, 1e-5)


@pytest.mark.parametrize("domain", DOMAINS)
def test_gradients_of_what_people_learn(domain):
    """Exponents, scales, logits and weights."""
    x, over = jnp.asarray(distinct(SHAPE) / 32 + 0.03), DOMAINS[domain]
    each = {
        "Lp(p)": (lambda p: Lp(p + 1), CHANNELS),
        "PowerMean(p)": (lambda p: PowerMean(p + 1), CHANNELS),
        "LogSumExp(scale, mean)": (lambda s: LogSumExp(s, mean=True), CHANNELS),
        "Softmax(logits, scale)": (lambda s: Softmax(LOGITS, s), CHANNELS),
    }
    for name, (made, start) in each.items():
        formula = AGGREGATIONS[name][1]

        def ours(array, made=made):
            return (jaxpool.aggregate(x, made(array), over) ** 2).sum()

        def theirs(array, formula=formula):
            at = lambda a, of: of(array if a is CHANNELS else a)  # noqa: E731
            moved = lambda x, n, of: formula(x, n, lambda a: at(a, of))  # noqa: E731
            return (plain(moved, over, np.ones(SHAPE, bool))(x) ** 2).sum()

        got, want = (jax.jit(jax.grad(f))(jnp.asarray(start)) for f in (ours, theirs))
        np.testing.assert_allclose(got, want, 1e-3, 1e-3, err_msg=name)


@pytest.mark.parametrize("domain", DOMAINS)
def test_gradients_of_logits_and_weights(domain):
    """Of arrays with a number for each cell."""
    x, over = jnp.asarray(distinct(SHAPE) / 32 + 0.03), DOMAINS[domain]
    each = {
        Softmax: lambda x, n, w: (jax.nn.softmax(w, -2, where=n > 0) * x).sum(-2),
        Average: lambda x, n, w: mean(x, n * w),
    }
    for kind, formula in each.items():

        def ours(w, kind=kind):
            return (jaxpool.aggregate(x, kind(w), over) ** 2).sum()

        def theirs(w, formula=formula):
            moved = lambda x, n, at: formula(x, n, at(w))  # noqa: E731
            return (plain(moved, over, np.ones(SHAPE, bool))(x) ** 2).sum()

        got, want = (
            jax.jit(jax.grad(f))(jnp.asarray(LOGITS + 2)) for f in (ours, theirs)
        )
        np.testing.assert_allclose(got, want, 1e-3, 1e-3, err_msg=kind.__name__)


def test_gradients_of_half_floats_are_rounded_once():
    """`x` is in a softmax twice, and its two gradients cancel."""
    x = jnp.asarray(distinct(SHAPE) / 32, jnp.bfloat16)

    @jax.jit
    @jax.grad
    def gradient(x):
        pooled = jaxpool.aggregate(x, Softmax(scale=-2.0), windows((3, 2), 1))
        return pooled.astype(np.float32).sum()

    want = gradient(x.astype(np.float32)).astype(jnp.bfloat16)
    np.testing.assert_array_equal(gradient(x), want)


def test_objects_are_printed_as_they_are_written():
    written = [
        "windows((3, 3), 2, 'SAME', axes=(1, 2))",
        "windows(2, dilation=2, axes=0)",
        "whole(keepdims=True)",
        "bins((3, None))",
        "Max()",
        "Average()",
        "LogSumExp(2.0, mean=True)",
        "Softmax(scale=-1.0)",
        "PowerMean(3, 1e-06)",
    ]
    assert [repr(eval(text)) for text in written] == written
    assert repr(windows([3, 3], [2, 1])) == "windows((3, 3), (2, 1))"


def test_objects_without_arrays_are_equal_and_hash():
    assert windows([3, 3], 2) == windows((3, 3), 2) != windows((3, 3), 1)
    assert hash(windows(jnp.asarray([3, 3]), np.int32(2))) == hash(windows((3, 3), 2))
    with pytest.raises(TypeError, match="window must have its items in a list"):
        windows({2, 3})
    assert {Lp(2): 1}[Lp(2)] == 1
    assert hash(whole()) == hash(whole())


def test_objects_with_arrays_are_equal_if_these_are_the_same():
    scale = jnp.asarray(CHANNELS)
    assert Softmax(scale=scale) == Softmax(scale=scale) != Softmax(scale=scale + 0)
    assert hash(Softmax(scale=scale)) == hash(Softmax(scale=scale))
    assert PowerMean(3.0, eps=0.1) == PowerMean(3, eps=0.1) != PowerMean(3.0)
    assert Lp(2) != PowerMean(2)
    pair = Monoid((jnp.float32(0), scale), max)
    assert hash(pair) == hash(pair)
    assert pair == pair != Monoid((jnp.float32(0), scale), max)


def test_exponents_that_are_numbers_stay_numbers_in_jit():
    """Their form is chosen by them, and infinity is no exponent of an array."""
    x = jnp.asarray([[1.0, -4.0, 2.0]])
    pooled = jax.jit(lambda by: jaxpool.aggregate(x, by, whole(1)))
    for by in (PowerMean(math.inf), PowerMean(np.float32(np.inf)), Lp(math.inf)):
        assert jax.tree.leaves(by) == []
        np.testing.assert_array_equal(pooled(by), [4])
    (leaf,) = jax.tree.leaves(Lp(jnp.asarray(3.0)))
    np.testing.assert_allclose(pooled(Lp(leaf)), pooled(Lp(3)), rtol=1e-5)


def test_objects_are_pytrees_of_their_arrays():
    by = Softmax(scale=jnp.asarray(CHANNELS))
    (leaf,) = jax.tree.leaves(by)
    np.testing.assert_array_equal(leaf, CHANNELS)
    x = jnp.asarray(distinct(SHAPE))
    inside = jax.jit(lambda by, over: jaxpool.aggregate(x, by, over))(by, whole())
    np.testing.assert_allclose(inside, jaxpool.aggregate(x, by, whole()), rtol=1e-6)
    each = jax.vmap(lambda by: jaxpool.aggregate(x, by, whole()))(
        Softmax(scale=jnp.stack([by.scale, -by.scale]))
    )
    np.testing.assert_allclose(each[0], inside, rtol=1e-6)


def test_a_tuple_of_aggregations_is_a_tuple_of_results():
    x = distinct(SHAPE)
    results = jaxpool.aggregate(x, ("max", Sum(), Lp(3)), windows((3, 2)))
    alone = (jaxpool.aggregate(x, by, windows((3, 2))) for by in ("max", Sum(), Lp(3)))
    for got, want in zip(results, alone, strict=True):
        np.testing.assert_array_equal(got, want)


def test_names_stand_for_objects():
    x = distinct(SHAPE)
    named = {"max": Max(), "min": Min(), "sum": Sum(), "avg": Average()}
    for name, by in named.items():
        got, want = (jaxpool.aggregate(x, b, bins((3, 2))) for b in (name, by))
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("domain", DOMAINS)
def test_limits_of_softmax(domain):
    over, x = DOMAINS[domain], distinct(SHAPE)

    def pooled(by, x=x):
        return jax.jit(functools.partial(jaxpool.aggregate, by=by, over=over))(x)

    average = pooled(Average())  # whose sums are exact
    floats = x * np.float32(0.37)
    got, want = (pooled(by, floats) for by in (Softmax(scale=0), Average()))
    np.testing.assert_allclose(got, want, rtol=5e-6, atol=1e-6)
    np.testing.assert_array_equal(pooled(Softmax(np.float32(3))), average)
    np.testing.assert_array_equal(pooled(Softmax(scale=0)), average)
    np.testing.assert_array_equal(pooled(Softmax(scale=1e4)), pooled("max"))
    np.testing.assert_array_equal(pooled(Softmax(scale=-1e4)), pooled("min"))
    shifted = pooled(Softmax(x / 8 - 1e4))
    np.testing.assert_allclose(shifted, pooled(Softmax(x / 8)), rtol=1e-3, atol=1e-3)
    assert (shifted <= pooled("max")).all()
    assert (shifted >= pooled("min")).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_softmax_of_large_numbers(dtype):
    """The plain formula is NaN."""
    x = jnp.asarray([1e4, 1e4, -1e4, -1e4, 100, 101]).astype(dtype)

    def pool(x):
        return jaxpool.aggregate(x, Softmax(), windows(2, axes=0))

    y, pull = jax.vjp(pool, x)
    low, high = np.float32(x[4:])
    w = 1 / (1 + np.exp(low - high))
    want = [float(x[0]), float(x[2]), low + w * (high - low)]
    np.testing.assert_allclose(np.float32(y), want, rtol=4e-3)
    y = low + w * (high - low)
    shares = [(1 - w) * (1 + low - y), w * (1 + high - y)]
    got = np.float32(pull(jnp.ones_like(pool(x)))[0])
    np.testing.assert_allclose(got[:4], 0.5, rtol=4e-3)
    np.testing.assert_allclose(got[4:], shares, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("biased", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
def test_gradient_of_a_scale_of_large_logits(biased, jitted):
    """It is a covariance, from which the mean of the logits drops out."""
    small = np.float64([0.0, 1, -3, 0.5, 2, -1])
    masked = np.asarray([1, 1, 1, 0, 1, 1], bool)
    bias = np.zeros(6, np.float32) if biased else None

    def loss(scale, x):
        by = Softmax(None, scale, bias)
        return jaxpool.aggregate(x, by, whole(0), where=masked)

    made = jax.grad(loss)
    made = jax.jit(made) if jitted else made
    w = np.exp(small) * masked / (np.exp(small) * masked).sum()
    want = (w * small**2).sum() - (w * small).sum() ** 2
    for offset in (0, 1e4, -1e4):
        got = made(jnp.float32(1), jnp.asarray(small + offset, jnp.float32))
        np.testing.assert_allclose(got, want, rtol=0.005, err_msg=str(offset))


@pytest.mark.slow
def test_a_scale_for_each_cell_has_no_common_center():
    x, scale = jnp.asarray([3.0, 4.0, 6.0]), jnp.asarray([1.0, 0.5, 0.25])

    def ours(scale):
        return jaxpool.aggregate(x, Softmax(scale=scale), whole(0))

    def theirs(scale):
        return (jax.nn.softmax(scale * x) * x).sum()

    got, want = (jax.grad(f)(scale) for f in (ours, theirs))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    got, want = (jax.hessian(f)(scale) for f in (ours, theirs))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("over", [whole(0), windows(2, axes=0), bins(1, axes=0)])
@pytest.mark.parametrize("scale", [None, 2.0, -2.0, 0])
def test_softmax_of_infinite_cells(over, scale):
    """Within [min, max], also where all logits are -inf."""
    by = Softmax() if scale is None else Softmax(scale=scale)
    for cells in ([-np.inf] * 2, [np.inf] * 2):
        got = jaxpool.aggregate(np.float32(cells), by, over)
        np.testing.assert_array_equal(jnp.ravel(got), cells[0])
    got = jaxpool.aggregate(np.float32([np.inf, 1]), by, over)
    largest = scale is None or scale >= 0
    np.testing.assert_array_equal(jnp.ravel(got), np.inf if largest else 1)
    masked = np.zeros(2, bool)
    got = jaxpool.aggregate(np.float32([-np.inf] * 2), by, over, where=masked)
    np.testing.assert_array_equal(jnp.ravel(got), 0)


@pytest.mark.parametrize("scale", [1.0, -2.0])
def test_softmax_of_infinite_cells_with_a_bias(scale):
    """The same with a bias; where that is -inf for all, no cell takes part."""
    by, over = Softmax(scale=scale, bias=np.zeros(2, np.float32)), windows(2, axes=0)
    for cells in ([-np.inf] * 2, [np.inf] * 2):
        got = jaxpool.aggregate(np.float32(cells), by, over)
        np.testing.assert_array_equal(got, cells[:1])
    none = Softmax(scale=scale, bias=np.full(2, -np.inf, np.float32))
    assert jaxpool.aggregate(np.float32([3, 5]), none, over) == 0


def test_softmax_by_infinite_logits_of_another_array():
    """Where all are -inf, no cell takes part; the scale has a finite gradient."""
    x, none = jnp.asarray([3.0, 5.0]), jnp.full(2, -jnp.inf)
    assert jaxpool.aggregate(x, Softmax(none), whole(0)) == 0
    logits = jnp.asarray([-jnp.inf, 1.0])

    def pooled(scale):
        return jaxpool.aggregate(x, Softmax(logits, scale), whole(0))

    assert pooled(jnp.float32(2)) == 5
    assert jax.grad(pooled)(jnp.float32(2)) == 0


def test_gradients_of_exponents_of_infinite_cells():
    x = jnp.asarray([[1.0, jnp.inf], [4.0, 2.0], [0.0, 3.0]])

    def pooled(p):
        return jaxpool.aggregate(x, PowerMean(p), whole(1))

    p = jnp.full((1, 1), -2.0)
    np.testing.assert_allclose(pooled(p), [2**0.5, 1.6**0.5 * 2, 0], rtol=1e-6)
    slope = jax.jacobian(pooled)(p)[:, 0, 0]
    e = 1e-2
    want = (np.asarray(pooled(p + e)) - np.asarray(pooled(p - e))) / (2 * e)
    np.testing.assert_allclose(slope, want, rtol=1e-2, atol=1e-3)


def test_powers_of_half_floats_neither_overflow_nor_vanish():
    for value in (100.0, 1e-6):
        x = jnp.full(8, value, jnp.float16)
        for p in (3, np.float32(3)):
            y = jaxpool.aggregate(x, PowerMean(p), whole(0))
            np.testing.assert_allclose(np.float32(y), np.float32(x[0]), rtol=2e-3)


def test_power_means_by_name():
    """1 is the average of sizes, inf the largest, and eps a floor with gradient 0."""
    x = jnp.asarray([1.0, -2.0, 4.0, 0.0])
    pool = functools.partial(jaxpool.aggregate, over=whole(0))
    np.testing.assert_allclose(pool(x, by=PowerMean(1)), 1.75)
    np.testing.assert_allclose(pool(x, by=PowerMean(np.inf)), 4)
    np.testing.assert_allclose(pool(x, by=PowerMean(-1)), 0)
    for p in (3, jnp.float32(3)):
        dx = jax.grad(lambda x, p=p: pool(x, by=PowerMean(p, eps=0.5)))(x)
        np.testing.assert_array_equal(np.asarray(dx) == 0, [False, True, False, True])
        zeros = jax.grad(lambda x, p=p: pool(x, by=PowerMean(p)))(jnp.zeros(4))
        np.testing.assert_array_equal(zeros, 0)
    of_p = jax.grad(lambda p: pool(jnp.zeros(4), by=PowerMean(p)))(jnp.float32(3))
    np.testing.assert_array_equal(of_p, 0)


def test_weights_that_add_up_to_nothing():
    x, weights = jnp.asarray([1.0, 3.0, 5.0, 7.0]), jnp.asarray([0.0, 0, 1, 3])

    def pool(x):
        by = Average(weights)
        return jaxpool.aggregate(x, by, windows(2, axes=0), empty_value=-1)

    y, pull = jax.vjp(pool, x)
    np.testing.assert_allclose(y, [-1, 6.5])
    np.testing.assert_allclose(pull(jnp.ones(2))[0], [0, 0, 0.25, 0.75])


def test_gem_with_a_learned_exponent():
    x = jnp.abs(jnp.asarray(distinct(SHAPE))) / 32

    class Gem(nn.Module):
        @nn.compact
        def __call__(self, x):
            p = self.param("p", nn.initializers.constant(3.0), x.shape[-1:])
            return jaxpool.aggregate(x, PowerMean(p, eps=1e-6), whole())

    variables = Gem().init(jax.random.key(0), x)
    want = jnp.mean(jnp.maximum(x, 1e-6) ** 3, (1, 2)) ** (1 / 3)
    np.testing.assert_allclose(Gem().apply(variables, x), want, rtol=1e-5)
    learned = jaxpool.nnx.Aggregate(
        PowerMean(nnx.Param(jnp.full(3, 3.0)), eps=1e-6), whole()
    )
    np.testing.assert_allclose(learned(x), want, rtol=1e-5)
    grads = nnx.grad(lambda module: module(x).sum())(learned)
    of_linen = jax.grad(lambda v: Gem().apply(v, x).sum())(variables)
    (got,), (wanted,) = jax.tree.leaves(grads), jax.tree.leaves(of_linen)
    np.testing.assert_allclose(got, wanted, rtol=1e-5)
    assert (np.asarray(got) != 0).all()


@pytest.mark.parametrize("p", [3.0, [2.0, 3.0, 4.0]], ids=["one", "channels"])
def test_norms_with_a_learned_order(p):
    x = jnp.abs(jnp.asarray(distinct(SHAPE))) / 32 + 1
    order = jnp.asarray(p)
    pools = {
        "named": lambda p: jaxpool.global_lp_pool(x, p=p),
        "aggregate": lambda p: jaxpool.aggregate(x, Lp(p), whole()),
        "module": lambda p: jaxpool.nnx.Aggregate(Lp(p), whole())(x),
    }

    def plain(p):
        p = jnp.broadcast_to(p, x.shape)
        return jnp.sum(x**p, (1, 2)) ** (1 / p[:, 0, 0])

    slope = jax.grad(lambda p: plain(p).sum())(order)
    for pool in pools.values():
        np.testing.assert_allclose(pool(nnx.Param(order)), plain(order), rtol=1e-5)
        got = jax.grad(lambda p, pool=pool: pool(p).sum())(nnx.Param(order))
        np.testing.assert_allclose(got[...], slope, rtol=1e-4)


@pytest.mark.parametrize(
    ("by", "message"),
    [
        (Softmax(scale=np.array([1e39])), "scale must have finite numbers"),
        (Softmax(scale=np.asarray([np.inf], jnp.bfloat16)), "scale must have finite"),
        (LogSumExp(np.array([1e39])), "scale must have finite numbers other than 0"),
        (LogSumExp(np.array([1e-46])), "scale must have finite numbers other than 0"),
        (Lp(np.array([1e39])), "p must be finite in an array"),
        (Lp(np.asarray([-2], jnp.bfloat16)), "p must be finite in an array"),
        (PowerMean(np.array([-1e39])), "p must be finite in an array"),
        (PowerMean(-1e39), "p must be a number"),
    ],
)
def test_parameters_that_the_dtype_of_sums_does_not_hold(by, message):
    with pytest.raises(ValueError, match=message):
        jaxpool.aggregate(np.ones((4, 1), np.float32), by, windows(2, axes=0))


@pytest.mark.parametrize("flavour", [jaxpool.linen, jaxpool.nnx])
@pytest.mark.parametrize("by", ["avg", Softmax(scale=CHANNELS), ("max", Lp(3))])
def test_modules(flavour, by):
    x, where = distinct(SHAPE), mask(SHAPE, keep=0.8)
    module = flavour.Aggregate(by, windows((3, 2)), empty_value=7)
    call = functools.partial(module.apply, {}) if flavour is jaxpool.linen else module
    want = jaxpool.aggregate(x, by, windows((3, 2)), where=where, empty_value=7)
    jax.tree.map(np.testing.assert_array_equal, call(x, where=where), want)
    with pytest.raises(TypeError, match="over must be a domain"):
        flavour.Aggregate("max", (3, 3))
    with pytest.raises(ValueError, match="implementation must be None or one of"):
        flavour.Aggregate("max", windows(3), implementation="conv")


X = jnp.ones(SHAPE)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: jaxpool.aggregate(X, "mean", whole()), TypeError, "by must be 'max'"),
        (lambda: jaxpool.aggregate(X, Max, whole()), TypeError, "by must be 'max'"),
        (lambda: jaxpool.aggregate(X, "max", 3), TypeError, "over must be a domain"),
        (lambda: jaxpool.aggregate(X, Lp(-1), whole()), ValueError, "p must be"),
        (lambda: jaxpool.aggregate(X, PowerMean(0), whole()), ValueError, "p must be"),
        (
            lambda: jaxpool.aggregate(X, LogSumExp(0), whole()),
            ValueError,
            "scale must be a finite number other than 0",
        ),
        (
            lambda: jaxpool.aggregate(X, LogSumExp(np.float32([0, 1, 2])), whole()),
            ValueError,
            "scale must have finite numbers other than 0",
        ),
        (
            lambda: jaxpool.aggregate(X, PowerMean(3, eps=-1), whole()),
            ValueError,
            "eps must be None or a finite number of at least 0",
        ),
        (
            lambda: jaxpool.aggregate(
                X, Softmax(bias=jnp.ones((5, 3, 3))), whole((2, 3))
            ),
            ValueError,
            "bias must have the shape of the window",
        ),
        (
            lambda: jaxpool.aggregate(X, Softmax(bias=np.ones(2)), bins(1, axes=1)),
            NotImplementedError,
            "over must be windows or whole axes for Softmax with a bias; got .*bins",
        ),
        (
            lambda: jaxpool.aggregate(X, Monoid(0.0, jnp.add), bins(7, axes=1)),
            NotImplementedError,
            "over must be windows or whole axes for Monoid; got over=bins",
        ),
        (
            lambda: jaxpool.aggregate(X, Softmax(scale=1e39), whole()),
            ValueError,
            "scale must be a finite number in float32",
        ),
        (
            lambda: jaxpool.aggregate(X, LogSumExp(1e-46), whole()),
            ValueError,
            "scale must be a finite number other than 0",
        ),
        (
            lambda: jaxpool.aggregate(X, Lp(np.float32([1, -1, 2])), whole()),
            ValueError,
            "p must be finite in an array, and p at least 0.001",
        ),
        (
            lambda: segments.from_lengths([[1, 2], [3]], axis=1),
            ValueError,
            "lengths must have rows of equal length",
        ),
        (
            lambda: jaxpool.aggregate(X, Softmax(jnp.ones(4)), whole()),
            ValueError,
            r"logits must be .* logits.shape=\(4,\)",
        ),
        (
            lambda: jaxpool.aggregate(X, PowerMean(X), whole()),
            ValueError,
            "p must have one number along each pooled axis",
        ),
        (
            lambda: jaxpool.aggregate(X, "max", bins((3, 2)), implementation="slices"),
            NotImplementedError,
            "implementation must be None for bins",
        ),
        (
            lambda: jaxpool.aggregate(X.astype(complex), Softmax(), whole()),
            TypeError,
            "x must be real",
        ),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text):
        call()


@pytest.mark.parametrize(
    "over",
    [
        bins(2, axes=0),
        bins(3, axes=0),
        segments(jnp.asarray([0, 1, 0, -1]), 2, axis=0),
        neighbors(jnp.asarray([[0, 2], [3, 3]]), axis=0),
    ],
    ids=["bins that tile", "bins", "segments", "neighbors"],
)
@pytest.mark.parametrize("by", ["max", "min", Lp(math.inf)], ids=repr)
def test_maxima_over_what_is_no_window_have_both_modes(by, over):
    """Bins that tile are windows inside, and need no switch either."""
    x, tx = jnp.asarray([3.0, 1.0, 4.0, 2.0]), jnp.asarray([1.0, 2.0, 4.0, 8.0])
    pool = functools.partial(jaxpool.aggregate, by=by, over=over)
    y, ty = jax.jvp(pool, (x,), (tx,))
    g = jnp.arange(1.0, 1.0 + y.size)
    (gx,) = jax.vjp(pool, x)[1](g)
    assert jnp.vdot(ty, g) == jnp.vdot(tx, gx) != 0
