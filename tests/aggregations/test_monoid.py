"""Operations of pytrees over windows: a maximum that carries, moments, products."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpool import Monoid, aggregate, pool, segments, whole, windows
from tests.cases import distinct

SHAPE = (2, 9, 3)


def larger(a, b):
    """The larger value, and what goes with it; the first of equal ones."""
    return jax.tree.map(functools.partial(jnp.where, b[0] > a[0]), b, a)


def merged(a, b):
    """Chan's rule for the number of cells, their mean, and their squares."""
    (n, mean, m2), (k, other, more) = a, b
    total = n + k
    share = k / jnp.where(total > 0, total, 1)
    apart = other - mean
    return total, mean + apart * share, m2 + more + apart * apart * n * share


def product(a, b):
    """Of 2x2 matrices."""
    (p, q, r, s), (t, u, v, w) = a, b
    return p * t + q * v, p * u + q * w, r * t + s * v, r * u + s * w


GEOMETRIES = {
    "overlapping": windows(3, 1, axes=1),
    "padded": windows(4, 2, "SAME", axes=1),
    "long": windows(9, 1, 4, axes=1),
    "dilated": windows(3, 2, 1, dilation=2, axes=1),
    "tiling": windows(3, axes=1),
    "one cell": windows(1, axes=1),
    "whole": whole(1, keepdims=True),
}


def cells_of(over):
    """The cells of each output along axis 1."""
    if isinstance(over, whole):
        return [[*range(9)]]
    geometry = over.resolve(SHAPE).dims[0]
    each = (
        (
            o * geometry.stride + j * geometry.dilation - geometry.low
            for j in range(geometry.window)
        )
        for o in range(geometry.out)
    )
    return [[cell for cell in cells if 0 <= cell < 9] for cells in each]


def by_hand(x, init, op, over):
    outputs = []
    for cells in cells_of(over):
        each = (jax.tree.map(lambda a, cell=cell: a[:, cell], x) for cell in cells)
        start = jax.tree.map(lambda a, i: jnp.full_like(a[:, 0], i), x, init)
        outputs.append(functools.reduce(op, each, start))
    return jax.tree.map(lambda *each: jnp.stack(each, 1), *outputs)


X = jnp.asarray(distinct(SHAPE) / 8)
OPERATIONS = {
    "larger": ((-np.inf, -1), larger, (X, jnp.arange(54).reshape(SHAPE))),
    "moments": ((0.0, 0.0, 0.0), merged, (jnp.ones(SHAPE), X, jnp.zeros(SHAPE))),
    "matrices": ((1.0, 0.0, 0.0, 1.0), product, (X, X + 1, X / 2, 1 - X)),
}


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_of_pytrees(name, geometry):
    """Values, and gradients in both modes."""
    (init, op, x), over = OPERATIONS[name], GEOMETRIES[geometry]
    ours = lambda x: aggregate(x, Monoid(init, op), over)  # noqa: E731
    theirs = lambda x: by_hand(x, init, op, over)  # noqa: E731
    t = jax.tree.map(lambda a: jnp.cos(a) if a.dtype == np.float32 else None, x)

    def loss(pool, x):
        return sum(
            (a**2).sum() for a in jax.tree.leaves(pool(x)) if a.dtype != np.int32
        )

    for got, want in zip(*(jax.tree.leaves(f(x)) for f in (ours, theirs)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
        assert got.dtype == want.dtype
    gots, wants = (
        jax.jit(jax.grad(functools.partial(loss, f), allow_int=True))(x)
        for f in (ours, theirs)
    )
    for got, want in zip(gots, wants, strict=True):
        if want.dtype == np.float32:
            np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-2)
    if None not in t:
        got, want = (
            jax.jvp(functools.partial(loss, f), (x,), (t,)) for f in (ours, theirs)
        )
        np.testing.assert_allclose(got, want, rtol=1e-3)


def test_a_dictionary_and_a_mask():
    where = distinct(SHAPE) % 3 == 0
    x = {"a": X, "b": jnp.ones(SHAPE, np.int32)}
    by = Monoid(
        {"a": -np.inf, "b": 0},
        lambda p, q: {"a": jnp.maximum(p["a"], q["a"]), "b": p["b"] + q["b"]},
    )
    got = aggregate(x, by, windows(3, axes=1), where=where)
    np.testing.assert_array_equal(got["b"], where.reshape(2, 3, 3, 3).sum(2))
    want = np.where(where, X, -np.inf).reshape(2, 3, 3, 3).max(2)
    np.testing.assert_array_equal(got["a"], want)


def test_pool_takes_the_same_pytrees_in_every_form():
    init, op, x = OPERATIONS["larger"]
    want = pool(x, init, op, 3, 1, axes=1)
    for implementation in ("reduce_window", "slices", "doubling"):
        got = pool(x, init, op, 3, 1, axes=1, implementation=implementation)
        jax.tree.map(np.testing.assert_array_equal, got, want)


def test_under_jit_and_vmap():
    init, op, x = OPERATIONS["matrices"]
    pooled = lambda x: pool(x, init, op, 4, 1, axes=0)  # noqa: E731
    got = jax.jit(jax.vmap(pooled))(x)
    want = pool(x, init, op, 4, 1, axes=1)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4), got, want)


WRONG = {
    "another structure": (
        lambda: pool((X, X), 0.0, product, 2, axes=1),
        TypeError,
        "init",
    ),
    "another shape": (
        lambda: pool((X, X[:1]), (0.0, 0.0), larger, 2, axes=1),
        ValueError,
        "arrays of one shape",
    ),
    "another dtype": (
        lambda: pool((X, X), (0.0, 0.0), lambda a, b: (a[0], a[1] > b[1]), 2, axes=1),
        TypeError,
        "op must return one scalar",
    ),
    "no array": (lambda: pool((), (), larger, 2, axes=1), TypeError, "x must have"),
    "segments": (
        lambda: aggregate(
            X, Monoid(0.0, jnp.add), segments(np.zeros(9, np.int32), 1, axis=1)
        ),
        NotImplementedError,
        "windows or whole axes for Monoid",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls(name):
    call, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        call()
