"""Padding that is data, beside pooling what NumPy padded."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpool
from tests import oracle
from tests.cases import distinct, every_smooth, mask, pooling

GEOMETRY = {"window": (3, 4), "strides": (2, 1)}
PADS = ((2, 1), (2, 3))
each_mode = pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])


@every_smooth
@each_mode
def test_values_and_gradients(kind, mode):
    x = distinct((2, 5, 6, 3)) / 8
    padded = functools.partial(np.pad, pad_width=((0, 0), *PADS, (0, 0)), mode=mode)
    pool = pooling(kind, **GEOMETRY, padding=PADS, padding_mode=mode)
    y, pull = jax.vjp(jax.jit(pool), x)
    np.testing.assert_allclose(y, oracle.pool(padded(x), kind, **GEOMETRY), 1e-5)
    g = distinct(y.shape) % 5
    around = oracle.grad(padded(x), g, kind, **GEOMETRY)
    want = np.zeros(x.size)
    np.add.at(want, padded(np.arange(x.size).reshape(x.shape)).ravel(), around.ravel())
    np.testing.assert_allclose(pull(g)[0], want.reshape(x.shape), 1e-4, 1e-4)


@every_smooth
@each_mode
def test_a_mask_is_repeated_with_its_cells(kind, mode):
    x, where = distinct((2, 5, 6, 3)) / 8, mask((1, 5, 1, 1))
    pads = (PADS, ((0, 0), *PADS, (0, 0)))
    pool = pooling(
        kind, **GEOMETRY, padding=pads[0], padding_mode=mode, where=where, empty_value=9
    )
    whole = np.pad(np.broadcast_to(where, x.shape), pads[1], mode)
    padded = np.pad(x, pads[1], mode)
    want = oracle.pool(padded, kind, **GEOMETRY, where=whole, empty_value=9)
    np.testing.assert_allclose(pool(x), want, 1e-5)


def test_same_padding_and_a_constant():
    x = jnp.full((1, 6, 5, 2), 3, jnp.bfloat16)
    for mode in ("reflect", "edge", "wrap"):
        y = jaxpool.avg_pool(x, (3, 3), 1, "SAME", padding_mode=mode)
        assert y.dtype == x.dtype
        np.testing.assert_array_equal(y, x)
        y = jaxpool.sum_pool(x, (3, 3), 2, "SAME", padding_mode=mode)
        np.testing.assert_array_equal(y, np.full((1, 3, 3, 2), 27))


@pytest.mark.parametrize(
    ("mode", "padding", "words"),
    [
        ("constant", 1, "padding_mode must be None or one of reflect, edge, wrap"),
        ("reflect", 3, "padding must be at most 2 on axis 1 with padding_mode='refl"),
        ("wrap", 4, "padding must be at most 3 on axis 1"),
    ],
)
def test_what_is_refused(mode, padding, words):
    x = np.ones((1, 3, 2))
    with pytest.raises(ValueError, match=words):
        jaxpool.avg_pool(x, 5, 1, padding, axes=1, padding_mode=mode)
    assert jaxpool.avg_pool(x, 5, 1, 4, axes=1, padding_mode="edge").shape == (1, 7, 2)
