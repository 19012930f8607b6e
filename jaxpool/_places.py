"""Windows in one piece, by XLA's own windowed reduction: winners.

It combines cells in an order of its own, so the earliest of equal cells is told by a
number that goes with each: its place.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool._lowering import fills_lanes, xla_reduce_window
from jaxpool._stages import Arrays
from jaxpool._symbolic import cell_indices, position_of
from jaxpool._window import AxisWindow, Window

_INT32 = np.dtype(np.int32)
_LAST = 0x3FFF  # place that fits beside a 16-bit float and one bit more


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

    def is_before(j: jax.Array, i: jax.Array) -> jax.Array:
        # The highest bit is kept for -1; the next one is the sign of a difference.
        return (i < 0) | (j >= 0) & ((j - i) << 1 < 0)

    places = _places(window, cells.shape, lambda dim: np.arange(dim.size))
    combine = _earliest(beats, is_before)
    arrays = cells, places, *valid
    fills = worst, np.full((), -1, places.dtype), *(np.False_ for _ in valid)
    values, place, *some = xla_reduce_window(arrays, fills, combine, window)
    return values, _position(window, place), *some


def packed_winners(
    is_max: bool, worst: np.ndarray, window: Window, cells: jax.Array
) -> Arrays:
    """The same for 16-bit floats by one maximum of integers, where that `packs`.

    Each holds the order of a cell, its place, which counts down, and whether it is -0,
    which is no less than 0. A TPU's compiler computes the integers where it reduces
    them, whereas it writes places first that it reduces together with values.
    """
    bits = lax.bitcast_convert_type(cells, np.int16).astype(np.int32)
    is_negative_zero = bits == -0x8000
    order = jnp.where(bits < 0, bits ^ 0x7FFF, bits)
    order = jnp.where(is_negative_zero, 0, order)
    order = order if is_max else ~order
    order = jnp.where(cells != cells, 0x7FFF, order) + 0x8000
    places = _places(window, cells.shape, lambda dim: np.arange(dim.size), _INT32)
    packed = order << 15 | (_LAST - places) << 1 | is_negative_zero.astype(np.int32)
    found = xla_reduce_window(packed, np.int32(0), lax.max, window)
    order = (found >> 15) - 0x8000
    order = order if is_max else ~order
    bits = jnp.where(order < 0, order ^ 0x7FFF, order)
    bits = jnp.where((found & 1) == 1, -0x8000, bits).astype(np.int16)
    values = lax.bitcast_convert_type(bits, cells.dtype)
    place = (_LAST - (found >> 1 & _LAST)).astype(_wrapping(window))
    return jnp.where(found == 0, worst, values), _position(window, place)


def indexed_winners(
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
    values, index, *some = xla_reduce_window(arrays, fills, combine, window)
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


def packs(window: Window, cells: jax.Array) -> bool:
    """Whether `packed_winners` pays, knows these floats, and has bits for all places.

    It pays if the integers of all windows are half as large as the floats of all cells.
    """
    is_narrow = jnp.issubdtype(cells.dtype, jnp.floating) and cells.dtype.itemsize == 2
    if window.is_symbolic or not is_narrow or not fills_lanes(window, cells.shape):
        return False
    last, pitch = 0, 1
    for _, dim in reversed(window.pairs()):
        last += (dim.size - 1) * pitch
        pitch *= dim.extent
    sizes, outs = zip(*((dim.size, dim.out) for dim in window.dims), strict=True)
    return last <= _LAST and 4 * math.prod(outs) <= math.prod(sizes)


def has_places(window: Window) -> bool:
    """Whether the places of `first_winners` fit into 32 bits, and are known at all."""
    return not window.is_symbolic and _reach(window) <= 1 << 30


def _reach(window: Window) -> int:
    """Cells from the first one of a window to the last one, row-major."""
    return math.prod(dim.extent for _, dim in window.pairs())


def _wrapping(window: Window) -> np.dtype:
    """The smallest type in which differences of places in one window have a sign."""
    return np.min_scalar_type(-2 * _reach(window))


def _places(
    window: Window,
    shape: Sequence[int],
    along: Callable[[AxisWindow], np.ndarray],
    dtype: np.dtype | None = None,
) -> jax.Array:
    """Places, row-major in the extent of a window, of what lies `along` each axis.

    From one constant for each axis, of full shape before they are added up: XLA:GPU
    makes a kernel of a smaller sum.
    """
    dtype = _wrapping(window) if dtype is None else dtype
    places, pitch = jnp.zeros(shape, dtype), 1
    for axis, dim in reversed(window.pairs()):
        steps = (along(dim) * pitch).astype(dtype)
        places += lax.broadcast_in_dim(steps, shape, (axis,))
        pitch *= dim.extent
    return places & np.iinfo(dtype).max


def _position(window: Window, place: jax.Array) -> jax.Array:
    """The position inside its window of each winner, from its place."""
    starts = _places(
        window, place.shape, lambda dim: np.arange(dim.out) * dim.stride - dim.low
    )
    offset = (place - starts) & np.iinfo(place.dtype).max
    if all(dim.dilation == 1 for dim in window.dims):
        return offset
    offset = offset.astype(np.int32)
    position, cells = jnp.zeros_like(offset), 1
    for _, dim in reversed(window.pairs()):
        position += offset % dim.extent // dim.dilation * cells
        offset //= dim.extent
        cells *= dim.window
    return position
