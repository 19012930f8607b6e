"""Streams: however the input is cut, the outputs are the same, bit for bit."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpool import (
    LogSumExp,
    Lp,
    Median,
    PowerMean,
    Softmax,
    StandardDeviation,
    Sum,
    TopKMean,
    aggregate,
    forward_mode,
    stream,
    windows,
)
from tests.cases import distinct

SHAPE = (2, 24, 3)
X = jnp.asarray(np.random.default_rng(0).normal(size=SHAPE), np.float32)
BY = ("max", "min", "sum", "avg", Lp(3), LogSumExp(), Softmax(scale=2.0))
BY += (PowerMean(jnp.asarray([1.0, 2.0, 3.0])), StandardDeviation(), Median())
BY += (TopKMean(2), ("max", Sum()))
GEOMETRIES = {
    "3/1": (3, 1, 1),
    "8/4": (8, 4, 1),
    "dilated": (3, 2, 3),
    "tiling": (4, 4, 1),
    "long": (20, 1, 1),
    "sparse": (2, 4, 1),
    "one cell": (1, 2, 1),
}


def causal(geometry):
    window, strides, dilation = GEOMETRIES[geometry]
    return windows(window, strides, "CAUSAL", dilation=dilation, axes=1)


def run(pool, x, cuts, **arrays):
    """All outputs of a stream that is cut into chunks of these lengths."""
    state, outputs, start = pool.init(x.shape, x.dtype), [], 0
    for length in cuts:
        piece = lambda a, s=start, n=length: a[:, s : s + n]  # noqa: E731
        more = {name: piece(array) for name, array in arrays.items()}
        state, y = jax.jit(pool.step)(state, piece(x), **more)
        outputs.append(y)
        start += length
    return jax.tree.map(lambda *each: jnp.concatenate(each, 1), *outputs)


def alike(want, results):
    """All results have the same bits, and are near what is wanted."""
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])
    np.testing.assert_allclose(results[0], want, rtol=1e-5, atol=1e-6)


def every_cut(stride):
    size = SHAPE[1]
    yield [size]
    yield [0, size, 0]
    yield [stride] * (size // stride)
    many = size // stride
    yield [stride * n for n in (1, many // 2, many - 1 - many // 2) if n]


@pytest.mark.share(4)
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("by", BY, ids=str)
def test_cuts_change_nothing(by, geometry):
    """And the outputs are those of `aggregate`, up to rounding."""
    over = causal(geometry)
    pool = stream(by, over, empty_value=-1)
    whole, *others = (run(pool, X, cuts) for cuts in every_cut(over.strides))
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, other, whole)
    want = aggregate(X, by, over, empty_value=-1)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    exact = by in ("max", "min")
    jax.tree.map(np.testing.assert_array_equal if exact else close, whole, want)


@pytest.mark.parametrize("by", ["max", "avg", Softmax()], ids=str)
def test_masks_of_chunks(by):
    where = jnp.asarray(distinct(SHAPE) % 3 > 0)
    over = causal("8/4")
    pool = stream(by, over, empty_value=-1)
    want = aggregate(X, by, over, where=where, empty_value=-1)
    alike(want, [run(pool, X, cuts, where=where) for cuts in every_cut(4)])


@pytest.mark.parametrize("by", ["max", "avg", Softmax()], ids=str)
@pytest.mark.parametrize("geometry", ["3/1", "dilated"])
def test_documents_are_as_each_alone(by, geometry):
    """No window reads across the start of a document."""
    over = causal(geometry)
    pool = stream(by, over)
    starts = np.zeros(SHAPE[:2], bool)
    starts[:, [0, 6, 16]] = True
    pieces = [X[:, :6], X[:, 6:16], X[:, 16:]]
    want = jnp.concatenate([aggregate(piece, by, over) for piece in pieces], 1)
    starts, each = jnp.asarray(starts), every_cut(over.strides)
    alike(want, [run(pool, X, cuts, starts=starts) for cuts in each])


def test_documents_differ_within_a_batch():
    starts = jnp.zeros(SHAPE[:2], bool).at[1, 5].set(True)
    got = run(stream("sum", causal("3/1")), X, [24], starts=starts)
    np.testing.assert_allclose(got[1, 5], X[1, 5], rtol=1e-6)
    np.testing.assert_allclose(got[0, 5], X[0, 3:6].sum(0), rtol=1e-5)


def test_logits_of_each_cell_are_streamed_too():
    logits = jnp.cos(jnp.arange(X.size, dtype=np.float32)).reshape(SHAPE)
    over = causal("8/4")
    pool = stream(Softmax(), over, arrays=["logits"])
    want = aggregate(X, Softmax(logits), over)
    alike(want, [run(pool, X, cuts, logits=logits) for cuts in every_cut(4)])


def test_the_state_of_another_stream_is_refused():
    over = causal("8/4")
    with_logits = stream(Softmax(), over, arrays=["logits"])
    state = stream(Softmax(), over).init(SHAPE, X.dtype)
    with pytest.raises(ValueError, match="state must be that of init"):
        with_logits.step(state, X, logits=X)


def test_a_step_is_traced_once_for_each_length():
    init, step = stream("avg", causal("3/1"))
    once = chex.assert_max_traces(lambda state, chunk: step(state, chunk), n=2)
    counted = jax.jit(once)
    state = init(SHAPE, X.dtype)
    for start in range(0, 20, 5):
        state, _ = counted(state, X[:, start : start + 5])
    counted(state, X[:, 20:])


def test_in_a_scan_and_its_gradient():
    over = causal("3/1")
    init, step = stream(Softmax(), over)

    def streamed(x):
        chunks = jnp.moveaxis(x.reshape(2, 6, 4, 3), 1, 0)
        _, outputs = jax.lax.scan(step, init((2, 4, 3), x.dtype), chunks)
        return jnp.moveaxis(outputs, 0, 1).reshape(SHAPE)

    def slope(pool):
        return jax.jit(jax.grad(lambda x: (pool(x) ** 2).sum()))(X)

    want = functools.partial(aggregate, by=Softmax(), over=over)
    np.testing.assert_allclose(streamed(X), want(X), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(slope(streamed), slope(want), rtol=1e-4, atol=1e-5)


def test_half_floats_and_integers():
    for dtype in (jnp.bfloat16, np.int32):
        x = jnp.asarray(distinct(SHAPE), dtype)
        got = run(stream("sum", causal("8/4")), x, [8, 16])
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, aggregate(x, "sum", causal("8/4")))


WRONG = {
    "not causal": (
        lambda: stream("max", windows(3, 1, axes=1)),
        ValueError,
        "over must be causal windows",
    ),
    "two axes": (
        lambda: stream("max", windows((3, 3), 1, "CAUSAL")).init((2, 4, 4, 1), "f4"),
        ValueError,
        "over must have one axis",
    ),
    "not a multiple of the stride": (
        lambda: run(stream("max", causal("8/4")), X, [6]),
        ValueError,
        "chunk must have a multiple of 4",
    ),
    "another state": (
        lambda: stream("max", causal("3/1")).step(X, X),
        ValueError,
        "state must be that of init",
    ),
    "a state of another dtype": (
        lambda: stream("max", causal("3/1")).step(
            stream("max", causal("3/1")).init(SHAPE, np.int32), X
        ),
        ValueError,
        "state must be that of init",
    ),
    "no such array": (
        lambda: stream("max", causal("3/1"), arrays=["logits"]),
        ValueError,
        "arrays must name fields of by",
    ),
    "an array that is not given": (
        lambda: run(stream(Softmax(), causal("3/1"), arrays=["logits"]), X, [24]),
        TypeError,
        "arrays must be given by the names",
    ),
    "starts of another shape": (
        lambda: run(stream("max", causal("3/1")), X, [24], starts=X > 0),
        ValueError,
        "starts must be boolean, of the shape",
    ),
    "rounded up": (
        lambda: stream("max", windows(3, 2, "CAUSAL", axes=1, ceil_mode=True)),
        ValueError,
        "over must have ceil_mode=False in a stream",
    ),
    "no aggregation": (
        lambda: stream("largest", causal("3/1")),
        TypeError,
        "by must be",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls(name):
    call, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        call()


def test_forward_mode_of_a_maximum_names_the_switch():
    init, step = stream("max", causal("3/1"))
    outputs = lambda x: step(init(SHAPE, X.dtype), x)[1]  # noqa: E731
    with pytest.raises(TypeError, match=r"with jaxpool\.forward_mode\(\):"):
        jax.jvp(outputs, (X,), (X,))
    with forward_mode():
        y, ty = jax.jvp(outputs, (X,), (X,))
    np.testing.assert_array_equal(y, ty)
