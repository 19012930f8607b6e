"""By which rules XLA's own windows go one way or another: all rows, at every run."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

import jaxpool
from jaxpool.engines import native as _native
from jaxpool.engines import places as _places
from jaxpool.engines.lowering import LANES
from jaxpool.geometry.window import resolve
from tests.cases import Case


@pytest.mark.parametrize(
    ("shape", "strides", "packs"),
    [
        ((1, 8, 8, LANES), 2, True),
        ((1, 8, 8, LANES), 1, False),
        ((LANES, 8, 8, 3), 1, True),
        ((LANES, 8, 8, LANES), 1, False),
        ((LANES + 1, 8, 8, 3), 1, False),
        ((8, 8, 8, LANES + 1), 1, False),
        ((8, 8, 8, 3), 2, False),
    ],
)
def test_the_rule_for_packing(shape, strides, packs):
    """At stride 1 where a TPU does not write the numbers; never in float32."""
    window = resolve(shape, (3, 3), strides, "SAME", 1, None, False)
    assert _places.packs(window, jnp.zeros(shape, jnp.bfloat16)) == packs
    assert not _places.packs(window, jnp.zeros(shape, jnp.float32))


@pytest.mark.parametrize(
    ("rows", "low", "packs"),
    [(1 << 14, 0, True), ((1 << 14) + 4, 0, False), (1 << 14, 1, False)],
)
def test_places_beyond_the_bits_that_are_left(rows, low, packs):
    """The last cell of 2**14 has the last place that fits, without padding."""
    x = jnp.zeros((rows, LANES), jnp.bfloat16).at[rows - 3 - low].set(1)
    window = resolve(x.shape, 2, 4, ((low, 0),), 1, 0, False)
    assert _places.packs(window, x) == packs
    pooled = functools.partial(jaxpool.max_pool_with_indices, axes=0)
    _, indices = pooled(x, 2, 4, ((low, 0),), implementation="reduce_window")
    np.testing.assert_array_equal(indices[-1], rows - 3 - low)
    np.testing.assert_array_equal(
        indices[:-1, 0], np.maximum(np.arange(0, rows - 4, 4) - low, 0)
    )


@pytest.mark.parametrize(
    ("case", "blocks"),
    [
        (Case((8, 8, 16, 128), (3, 3), 2, "SAME"), [2, 4]),
        (Case((8, 12, 12, 128), (3, 3), 2, "SAME"), [2, 2]),
        (Case((8, 12, 6, 128), (3, 3), 2, "SAME"), [2, 1]),
        (Case((8, 9, 8, 128), (3, 3), 2, "SAME"), [1, 4]),
        (Case((128, 12, 8, 3), (3, 3), 2, "SAME"), [2, 4]),
        (Case((8, 12, 8, 64), (3, 3), 2, "SAME"), None),
        (Case((8, 12, 8, 64), (2, 2), 2, "SAME"), [1, 1]),
        (Case((8, 12, 8, 128), (3, 3), 1, "SAME"), None),
        (Case((8, 12, 8, 128), (3, 3), (2, 1), "SAME"), None),
        (Case((8, 16, 8, 128), (5, 3), 2, "SAME"), [2, 4]),
        (Case((8, 16, 8, 128), (7, 3), 2, "SAME"), None),
        (Case((8, 16, 8, 128), (3, 7), 2, "SAME"), [2, 4]),
        (Case((8, 16, 8, 128), (4, 4), 2, 1), [2, 4]),
        (Case((8, 9, 8, 128), (5, 3), 2, "SAME"), None),
        (Case((1, 8, 8, 8, 128), (3, 3, 3), 2, "SAME"), [2, 2, 4]),
        (Case((1, 8, 8, 8, 128), (3, 3, 3), 2, 1), [2, 2, 4]),
        (Case((1, 8, 8, 128), (2, 2), 2, 1), [1, 1]),
    ],
)
def test_the_rule_for_blocks(case, blocks):
    window = resolve(shape=case.shape, **case.kwargs() | {"strides": case.strides})
    assert _native._blocks(window, case.shape) == blocks


@pytest.mark.parametrize("padding", [0, 1])
def test_a_cell_of_a_tile_looks_at_one_window(padding):
    window = resolve((1, 8, 8, 128), (2, 2), 2, padding, 1, None, False)
    assert [len(_native._over_block(dim, 1).places) for dim in window.dims] == [1, 1]
