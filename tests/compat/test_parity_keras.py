"""`jaxpool.compat.keras` beside Keras on JAX, where it is installed."""

import functools
import itertools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpool.compat import keras as ours
from tests.cases import distinct
from tests.compat.parity import ERRORS, compare, refused

os.environ["KERAS_BACKEND"] = "jax"
keras = pytest.importorskip("keras")

SHAPES = {1: (2, 11, 3), 2: (2, 8, 7, 2), 3: (1, 5, 6, 4, 2)}
WINDOWS = {  # with strides; without any, Keras on JAX fails
    1: [(5, 3), ((2,), (2,))],
    2: [(3, 1), ((2, 4), (2, 3))],
    3: [((2, 3, 2), (2, 1, 2))],
}
FORMATS = (None, "channels_last", "channels_first")
LAYERS = {"max": "GlobalMaxPooling", "average": "GlobalAveragePooling"}


def pairs(name, some, x):
    """Keras takes the layout from its configuration where none is named: last."""
    for kwargs in some:
        label = f"{name}({kwargs}), {x.shape} {x.dtype}"
        both = (getattr(m, name) for m in (keras.ops, ours))
        yield (label, *(functools.partial(f, **kwargs) for f in both), x)


def geometries(rank):
    paddings = ("valid", "same", "SAME")
    for i, ((size, strides), padding) in enumerate(
        itertools.product(WINDOWS[rank], paddings)
    ):
        yield {
            "pool_size": size,
            "strides": strides,
            "padding": padding,
            "data_format": FORMATS[i % 3],
        }


@pytest.mark.share(3)
@pytest.mark.parametrize("rank", SHAPES)
def test_windows(rank):
    x, some = distinct(SHAPES[rank]), list(geometries(rank))
    compare([*pairs("max_pool", some, x), *pairs("average_pool", some, x)])


@pytest.mark.share(3)
@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((2, 8, 3), [4, (2,), 3, 5]),
        ((2, 8, 6, 2), [2, (4, 3), (3, 4)]),
        ((1, 4, 6, 5, 2), [(2, 3, 1), (3, 4, 2)]),
    ],
)
def test_adaptive(shape, sizes):
    some = []
    for i, size in enumerate(sizes):
        kwargs = {"output_size": size, "data_format": FORMATS[1 + i % 2]}
        for kind in ("max", "average"):
            some += pairs(f"adaptive_{kind}_pool", [kwargs], distinct(shape) + 0.5)
    compare(some)


@pytest.mark.share(3)
@pytest.mark.parametrize("rank", SHAPES)
def test_global(rank):
    x, some = distinct(SHAPES[rank]), []
    for kind, data_format, keepdims in itertools.product(
        LAYERS, FORMATS, (False, True)
    ):
        options = {"data_format": data_format, "keepdims": keepdims}
        layer = getattr(keras.layers, f"{LAYERS[kind]}{rank}D")(**options)
        pool = functools.partial(getattr(ours, f"global_{kind}_pooling"), **options)
        some.append((f"{kind}, {options}", layer.call, pool, x))
    compare(some)


@pytest.mark.share(3)
@pytest.mark.parametrize("dtype", [bool, np.int32])
def test_masked_averages(dtype):
    x = distinct((3, 7, 2))
    mask = np.random.default_rng(0).random((3, 7)) < 0.5
    x[0, np.flatnonzero(~mask[0])] = np.nan
    mask = mask.astype(dtype)
    for data_format, keepdims in itertools.product(FORMATS[1:], (False, True)):
        options = {"data_format": data_format, "keepdims": keepdims}
        x_there = x if data_format == "channels_last" else x.swapaxes(1, 2)
        with jax.numpy_dtype_promotion("standard"):
            layer = keras.layers.GlobalAveragePooling1D(**options)
            want = layer.call(jnp.asarray(x_there), mask=jnp.asarray(mask))
        got = ours.global_average_pooling(x_there, mask, **options)
        np.testing.assert_allclose(got, want, 1e-6)


X = np.zeros((2, 8, 7, 3), np.float32)
REFUSED = [
    ("max_pool", {"pool_size": (2, 2, 2), "strides": 1}),
    ("max_pool", {"pool_size": 2, "strides": (1, 1, 1)}),
    ("average_pool", {"pool_size": 2, "strides": 0}),
    ("average_pool", {"pool_size": 2, "strides": 1, "padding": "full"}),
    ("average_pool", {"pool_size": 2, "strides": 1, "padding": 1}),
    ("max_pool", {"pool_size": 2, "strides": 1, "padding": "SAME_LOWER"}),
    ("max_pool", {"pool_size": 2, "strides": 1, "data_format": "NHWC"}),
    ("max_pool", {"pool_size": 0, "strides": 1}),
    ("adaptive_max_pool", {"output_size": (1, 2, 3)}),
    ("adaptive_average_pool", {"output_size": 0}),
    ("adaptive_average_pool", {"output_size": 2.5}),
    ("adaptive_max_pool", {"output_size": 2, "data_format": "NHWC"}),
]


@pytest.mark.share(3)
@pytest.mark.parametrize(("name", "kwargs"), REFUSED, ids=str)
def test_what_is_refused_there_is_refused_here(name, kwargs):
    with pytest.raises((*ERRORS, AttributeError)):
        getattr(keras.ops, name)(X, **kwargs)
    with pytest.raises((ValueError, TypeError)):
        getattr(ours, name)(X, **kwargs)


@pytest.mark.share(3)
@pytest.mark.parametrize("name", ["global_max_pooling", "global_average_pooling"])
def test_masks_that_are_refused(name):
    x = np.zeros((2, 7, 3), np.float32)
    for mask, error in (
        (np.ones((2, 7), np.float32), TypeError),
        ([[True] * 7] * 2, TypeError),
        (np.ones((2, 7, 1), bool), ValueError),
        (np.ones((2, 3), bool), ValueError),
        (np.ones(7, bool), ValueError),
    ):
        with pytest.raises(error, match="mask"):
            getattr(ours, name)(x, mask)
    with pytest.raises(ValueError, match="inputs"):
        getattr(ours, name)(x[0])
    with pytest.raises(TypeError, match="keepdims"):
        getattr(ours, name)(x, keepdims=2)


# --- where Keras on JAX is wrong ---


def test_default_strides_are_the_window():
    for name in ("max_pool", "average_pool"):
        assert refused(getattr(keras.ops, name), X, 2)
        assert getattr(ours, name)(X, 2).shape == (2, 4, 3, 3)


def test_adaptive_bins_that_do_not_divide():
    x = np.arange(11, dtype=np.float32).reshape(1, 11, 1)
    got = ours.adaptive_average_pool(x, 7)
    np.testing.assert_array_equal(got.ravel(), [0.5, 2, 3.5, 5, 6.5, 8, 9.5])
    got = ours.adaptive_max_pool(x, 7)
    np.testing.assert_array_equal(got.ravel(), [1, 3, 4, 6, 7, 9, 10])
    np.testing.assert_array_equal(ours.adaptive_average_pool(x[:, :7], 7), x[:, :7])


def test_averages_of_nothing_are_0_and_masks_work_in_every_rank():
    for rank, shape in SHAPES.items():
        x = distinct(shape)
        mask = np.zeros(shape[:-1], bool)
        mask[0].flat[1] = True
        for kind in LAYERS:
            pool = getattr(ours, f"global_{kind}_pooling")
            y = pool(x, mask)
            np.testing.assert_array_equal(y[0], x[0].reshape(-1, shape[-1])[1], rank)
            np.testing.assert_array_equal(y[1:], np.zeros_like(y[1:]))
            first = pool(np.moveaxis(x, -1, 1), mask, "channels_first")
            np.testing.assert_array_equal(first, y)


def test_half_floats_and_integers():
    x = 3 * jnp.ones((1, 600, 1), jnp.bfloat16)
    y = ours.average_pool(x, 259, 1, "same")
    assert y.dtype == jnp.bfloat16
    assert np.all(y.astype(np.float32) == 3)
    assert ours.average_pool(np.full((1, 2, 2, 1), 255, np.uint8), 2).item() == 255
