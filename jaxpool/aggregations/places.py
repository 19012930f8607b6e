"""Winners by XLA's own windowed reduction, and the numbers that tell cells apart.

It combines cells in an order of its own, so the earliest of equal cells is found by a
number that goes with each: its place.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool.engines import gathers
from jaxpool.engines.loops import Arrays
from jaxpool.engines.numbers import Numbers, numbers
from jaxpool.engines.symbolic import as_number, cell_indices, position_of
from jaxpool.engines.xla import reduce_windows
from jaxpool.geometry.bins import Bins
from jaxpool.geometry.domain import Domain
from jaxpool.geometry.links import Links
from jaxpool.geometry.window import Window

_INT32 = np.dtype(np.int32)


def first_winners(
    beats: Callable[[jax.Array, jax.Array], jax.Array],
    worst: np.ndarray,
    window: Window,
    cells: jax.Array,
    *valid: jax.Array,
) -> Arrays:
    """The value and the position of each winner, and whether any cell is valid.

    Places are numbers from 0 on that wrap around at the largest of the smallest type in
    which differences of two cells of one window have a sign: most windows need one
    byte. What XLA begins with, and pads with, is at -1: it loses.
    """
    if window.is_symbolic or _reach(window) > 1 << 30:
        return _indexed_winners(beats, worst, window, cells, *valid)

    def is_before(j: jax.Array, i: jax.Array) -> jax.Array:
        # The highest bit is kept for -1; the next one is the sign of a difference.
        return (i < 0) | (j >= 0) & ((j - i) << 1 < 0)

    # The smallest type in which differences of places in one window have a sign.
    wrapping = np.min_scalar_type(-2 * _reach(window))
    each = (numbers(dim.size) + dim.low for _, dim in window.pairs())
    places = _places(window, cells.shape, wrapping, each)
    places &= np.iinfo(wrapping).max
    combine = _earliest(beats, is_before)
    arrays = cells, places, *valid
    fills = worst, np.full((), -1, places.dtype), *(np.False_ for _ in valid)
    values, place, *some = reduce_windows(arrays, fills, combine, window)
    return values, _position(window, place), *some


def _indexed_winners(
    beats: Callable[[jax.Array, jax.Array], jax.Array],
    worst: np.ndarray,
    window: Window,
    cells: jax.Array,
    *valid: jax.Array,
) -> Arrays:
    """The same with the index of each cell for its place, whatever the sizes."""
    last = np.int32(np.iinfo(np.int32).max)
    arrays = cells, cell_indices(window, cells.shape), *valid
    fills = worst, last, *(np.False_ for _ in valid)
    combine = _earliest(beats, lax.lt)
    values, index, *some = reduce_windows(arrays, fills, combine, window)
    return values, position_of(index, window), *some


def _earliest(
    beats: Callable[[jax.Array, jax.Array], jax.Array],
    is_before: Callable[[jax.Array, jax.Array], jax.Array],
) -> Callable[[Arrays, Arrays], Arrays]:
    """Combine `(value, place[, valid])` of cells in any order."""

    def combine(one: Arrays, other: Arrays) -> Arrays:
        (m, i, *ok), (v, j, *other_ok) = one, other
        takes = beats(v, m) | ~beats(m, v) & is_before(j, i)
        if ok:
            takes = other_ok[0] & (takes | ~ok[0])
            ok = [ok[0] | other_ok[0]]
        return jnp.where(takes, v, m), jnp.where(takes, j, i), *ok

    return combine


def _reach(window: Window) -> int:
    """Cells from the first one of a window to the last one, row-major."""
    return math.prod(dim.extent for _, dim in window.pairs())


def _places(
    window: Window,
    shape: Sequence[int],
    dtype: np.dtype,
    along: Iterable[Numbers],
) -> jax.Array:
    """Places, row-major in the extent of a window, from those `along` each axis.

    From one array for each axis, of full shape before they are added up: XLA:GPU makes
    a kernel of a smaller sum.
    """
    places, pitch = jnp.zeros(shape, dtype), 1
    pairs = zip(window.pairs(), along, strict=True)
    for (axis, dim), own in reversed([*pairs]):
        steps = (own * pitch).astype(dtype)
        places += lax.broadcast_in_dim(steps, shape, (axis,))
        pitch *= dim.extent
    return places


def _position(window: Window, place: jax.Array) -> jax.Array:
    """The position inside its window of each winner, from its place, wrapped around."""
    each = (numbers(dim.out) * dim.stride for _, dim in window.pairs())
    starts = _places(window, place.shape, place.dtype, each)
    return _inside(window, (place - starts) & np.iinfo(place.dtype).max)


def _inside(window: Window, offset: jax.Array) -> jax.Array:
    """The position of the cell at an offset, row-major in the extent of its window."""
    if all(dim.dilation == 1 for dim in window.dims):
        return offset
    rest = offset.astype(_INT32)
    position, cells = jnp.zeros(offset.shape, offset.dtype), 1
    for _, dim in reversed(window.pairs()):
        place = rest % dim.extent // dim.dilation * cells
        position += place.astype(offset.dtype)
        rest //= dim.extent
        cells *= dim.window
    return position


def index_of(position: jax.Array, over: Domain, tables: Any) -> jax.Array:
    """The index in the input of each winner, from its position inside its window."""
    rest = position.astype(np.int32)
    index, cells = jnp.zeros_like(rest), 1
    starts = _first_cells(over, tables, rest.shape)
    each = zip(starts, over.lengths, over.dilations, over.sizes, strict=True)
    for start, length, dilation, size in reversed([*each]):
        inside = rest % as_number(length)
        index += (start + inside * dilation) * as_number(cells)
        rest //= as_number(length)
        cells *= size
    return index


def _first_cells(over: Domain, tables: Any, shape: Sequence[int]) -> list[Any]:
    """Where each window or bin begins along each pooled axis."""
    if isinstance(over, Bins):
        return gathers.starts(over, tables, len(shape))
    if isinstance(over, Links):  # places in a segment are places on the axis
        return [np.int32(0)]
    return [
        lax.broadcasted_iota(np.int32, shape, axis) * as_number(dim.stride)
        - as_number(dim.low)
        for axis, dim in zip(over.axes, over.dims, strict=True)
    ]
