"""`jaxpool.compat.flax` beside Flax itself."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.linen import pooling as theirs
from jax import lax

from jaxpool.compat import flax as ours
from tests.cases import distinct, tied
from tests.compat.parity import ERRORS, compare, refused

SHAPES = {1: (2, 11, 3), 2: (2, 8, 7, 2), 3: (1, 5, 6, 4, 2)}
WINDOWS = {  # with strides
    1: [((5,), None), ((5,), (3,)), ((2,), (2,))],
    2: [((3, 3), None), ((2, 4), (2, 3))],
    3: [((2, 3, 2), (2, 1, 2))],
}
PADS = {1: ((1, 0),), 2: ((1, 1), (0, 1)), 3: ((1, 0), (2, 1), (0, 1))}
KINDS = ("max", "min", "avg")
each_kind = pytest.mark.parametrize("kind", KINDS)


def geometries(rank):
    paddings = ["VALID", "same", "SAME_LOWER", PADS[rank]]
    for (window, strides), padding in itertools.product(WINDOWS[rank], paddings):
        yield {"window_shape": window, "strides": strides, "padding": padding}


def cases(kind, rank):
    """Arguments of one pool; averages count the padding by turns."""
    for i, kwargs in enumerate(geometries(rank)):
        options = ({}, {"count_include_pad": False}, {"count_include_pad": True})
        yield kwargs | (options[i % 3] if kind == "avg" else {})


def pairs(kind, some, x):
    name = f"{kind}_pool"
    for kwargs in some:
        label = f"{name}({kwargs}), {x.shape} {x.dtype}"
        both = (functools.partial(getattr(m, name), **kwargs) for m in (theirs, ours))
        yield (label, *both, x)


@pytest.mark.share(24)
@each_kind
@pytest.mark.parametrize("rank", SHAPES)
def test_values_and_gradients(kind, rank):
    shape, some = SHAPES[rank], list(cases(kind, rank))
    ties = [] if kind == "avg" else pairs(kind, some[::5], tied(shape))
    compare([*pairs(kind, some, distinct(shape)), *ties])


@pytest.mark.share(24)
@each_kind
def test_batch_axes(kind):
    some = list(cases(kind, 2))
    named = [c for c in some if isinstance(c["padding"], str)]
    without = pairs(kind, some[::5], distinct((6, 5, 2)))
    compare([*without, *pairs(kind, named[::3], distinct((2, 1, 6, 5, 2)))])


@pytest.mark.share(24)
@each_kind
def test_float64(kind):
    with jax.enable_x64(True):
        x = distinct(SHAPES[2], np.float64) / 3
        some = list(cases(kind, 2))[::5]
        compare(list(pairs(kind, some, x)), rtol=1e-14, atol=1e-14)


@pytest.mark.share(24)
@each_kind
@pytest.mark.parametrize("dtype", ["float16", "int32", "uint8"])
def test_other_dtypes(kind, dtype):
    x = np.abs(tied(SHAPES[2])).astype(dtype)  # small, so that uint8 does not wrap
    some = [c for c in cases(kind, 2) if c.get("count_include_pad", True)]
    compare(list(pairs(kind, some[::5], x)), gradients=False, rtol=1e-3)


def test_pools_by_other_functions():
    x = distinct((2, 6, 5, 2)) / 60 + 1.5
    ops = [(0.0, lax.add), (-np.inf, lax.max), (np.inf, lax.min), (1.0, lax.mul)]
    found = {True: [], False: []}  # lax.mul has no gradient in Flax
    for (init, op), geometry in zip(ops * 2, geometries(2), strict=True):
        args = (init, op, *geometry.values())
        both = [lambda x, p=m.pool, a=args: p(x, *a) for m in (theirs, ours)]
        found[op is not lax.mul].append((f"pool{args[1:]}", *both, x))
    for gradients, some in found.items():
        compare(some, gradients=gradients)


def test_it_takes_the_place_of_linen_and_of_nnx():
    x = distinct((1, 6, 6, 2))
    args = (3, 3), (2, 2), "SAME"
    some = []
    for module, name in itertools.product((nn, nnx), ("max_pool", "avg_pool")):
        both = (getattr(m, name) for m in (module, ours))
        some.append((name, *(lambda x, f=f: f(x, *args) for f in both), x))
    compare(some, gradients=False)


X = np.zeros((2, 8, 7, 3), np.float32)
REFUSED = [
    {"window_shape": (2, 2, 2, 2)},
    {"window_shape": (2, 2), "strides": (1,)},
    {"window_shape": (2, 2), "strides": (1, -1)},
    {"window_shape": (2, 2), "padding": ((1, 1),)},
    {"window_shape": (2, 2), "padding": ((1, 1, 1), (0, 0, 0))},
    {"window_shape": (2, 2), "padding": "FULL"},
    {"window_shape": (0, 2)},
    {"window_shape": "ab"},
    {"window_shape": None},
    {"window_shape": (2.5, 2)},
]


@pytest.mark.share(24)
@each_kind
@pytest.mark.parametrize("kwargs", REFUSED, ids=str)
def test_what_is_refused_there_is_refused_here(kind, kwargs):
    with pytest.raises((*ERRORS, AssertionError)):
        getattr(theirs, f"{kind}_pool")(X, **kwargs)
    with pytest.raises((ValueError, TypeError), match=list(kwargs)[-1].split("_")[0]):
        getattr(ours, f"{kind}_pool")(X, **kwargs)


# --- where Flax is wrong ---


def every_pool(kwargs, x):
    for kind in KINDS:
        yield from pairs(kind, [kwargs], x)


def test_two_batch_axes_with_explicit_padding():
    kwargs = {"window_shape": (3, 3), "strides": (2, 1), "padding": ((1, 0), (1, 1))}
    some = []
    for _, want, got, x in every_pool(kwargs, distinct((2, 3, 6, 5, 2))):
        assert refused(want, x)

        def with_one(x, f=want):
            return f(x.reshape(6, 6, 5, 2)).reshape(2, 3, 3, 5, 2)

        some.append((kwargs, with_one, got, x))
    compare(some)


def test_ints():
    x = distinct((2, 6, 5, 2))
    for kind in KINDS:
        op = getattr(ours, f"{kind}_pool")
        want = op(x, (2, 2), (3, 3), ((1, 1), (1, 1)))
        np.testing.assert_array_equal(op(x, 2, 3, 1), want)
        np.testing.assert_array_equal(op(x, [2, 2], [3, 3], [1, 1]), want)
        with pytest.raises(ValueError, match="window_shape"):
            op(x[0, 0], 2)


def test_averages_keep_their_dtype_and_are_ones_of_ones():
    x = jnp.ones((1, 310, 1), jnp.bfloat16)
    for include in (True, False):
        y = ours.avg_pool(x, (300,), None, "VALID", include)
        assert y.dtype == jnp.bfloat16
        assert np.all(y.astype(np.float32) == 1)
        same = ours.avg_pool(x, (3,), None, "SAME", include)
        assert same.dtype == jnp.bfloat16


@pytest.mark.share(24)
@each_kind
def test_nan_wins_and_takes_the_gradient(kind):
    x = jnp.asarray([np.nan, 1, 2]).reshape(1, 3, 1)
    y, pull = jax.vjp(lambda x: getattr(ours, f"{kind}_pool")(x, (2,)), x)
    np.testing.assert_array_equal(
        y.ravel(), [np.nan, {"avg": 1.5}.get(kind, y[0, 1, 0])]
    )
    if kind != "avg":
        assert pull(jnp.ones_like(y))[0][0, 0, 0] == 1


@pytest.mark.share(24)
@each_kind
@pytest.mark.parametrize(
    "kwargs",
    [
        {"window_shape": (2, 2), "padding": ((2, 2), (0, 0))},
        {"window_shape": (9, 2)},
        {"window_shape": (2, 2), "strides": 0},
    ],
)
def test_what_has_no_result_is_refused(kind, kwargs):
    with pytest.raises(ValueError, match=list(kwargs)[-1][:6]):
        getattr(ours, f"{kind}_pool")(X, **kwargs)
