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

from jaxpool.engines.lowering import fills_lanes, pools_beside_tiles, xla_reduce_window
from jaxpool.engines.numbers import Numbers, numbers
from jaxpool.engines.stages import Arrays
from jaxpool.engines.symbolic import cell_indices, position_of
from jaxpool.geometry.window import AxisWindow, Window

_INT32, _FLOAT32 = np.dtype(np.int32), np.dtype(np.float32)
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

    wrapping = _wrapping(window)
    places = _places(window, cells.shape, wrapping, _places_of_cells)
    places &= np.iinfo(wrapping).max
    combine = _earliest(beats, is_before)
    arrays = cells, places, *valid
    fills = worst, np.full((), -1, places.dtype), *(np.False_ for _ in valid)
    values, place, *some = xla_reduce_window(arrays, fills, combine, window)
    return values, _position(window, place), *some


def packed_winners(
    is_max: bool,
    dtype: np.dtype,
    window: Window,
    cells: jax.Array,
) -> Arrays:
    """The same for 16-bit floats by one maximum of integers, where that `packs`.

    Each holds the order of a cell, its place, which counts down, and whether it is -0,
    which is no less than 0. A TPU's compiler computes the integers where it reduces
    them, whereas it writes places first that it reduces together with values. There it
    also unpacks both, if both are conversions, to the types wanted, of one other type.
    Of a window of padding only, neither means anything.
    """
    bits = lax.bitcast_convert_type(cells, np.int16).astype(np.int32)
    is_negative_zero = bits == -0x8000
    order = jnp.where(bits < 0, bits ^ 0x7FFF, bits)
    order = jnp.where(is_negative_zero, 0, order)
    order = order if is_max else ~order
    order = jnp.where(cells != cells, 0x7FFF, order) + 0x8000
    places = _places(window, cells.shape, _INT32, _places_of_cells)
    packed = order << 15 | (_LAST - places) << 1 | is_negative_zero.astype(np.int32)
    found = xla_reduce_window(packed, np.int32(0), lax.max, window)
    order = (found >> 15) - 0x8000
    order = order if is_max else ~order
    bits = jnp.where(order < 0, order ^ 0x7FFF, order)
    bits = jnp.where((found & 1) == 1, -0x8000, bits)
    values = _from_bits(bits, cells.dtype)
    starts = _places(window, found.shape, _FLOAT32, _starts_of_windows)
    offset = (_LAST - (found >> 1 & _LAST)).astype(_FLOAT32) - starts
    position = _inside(window, offset)
    return values.astype(cells.dtype), position.astype(dtype)


def _from_bits(bits: jax.Array, dtype: np.dtype) -> jax.Array:
    """16-bit floats from their bits, as float32 if that shares its exponents."""
    if dtype == jnp.bfloat16:
        return lax.bitcast_convert_type(bits << 16, np.float32)
    return lax.bitcast_convert_type(bits.astype(np.int16), dtype)


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

    It pays if the integers of all windows are half as large as the floats of all cells,
    or are not written by a TPU.
    """
    is_narrow = jnp.issubdtype(cells.dtype, jnp.floating) and cells.dtype.itemsize == 2
    if window.is_symbolic or not is_narrow or not fills_lanes(window, cells.shape):
        return False
    last, pitch = 0, 1
    for _, dim in reversed(window.pairs()):
        last += (dim.size + dim.low - 1) * pitch
        pitch *= dim.extent
    sizes, outs = zip(*((dim.size, dim.out) for dim in window.dims), strict=True)
    pays = 4 * math.prod(outs) <= math.prod(sizes)
    return last <= _LAST and (pays or pools_beside_tiles(window, cells.shape))


def has_places(window: Window) -> bool:
    """Whether the places of `first_winners` fit into 32 bits, and are known at all."""
    return not window.is_symbolic and _reach(window) <= 1 << 30


def _reach(window: Window) -> int:
    """Cells from the first one of a window to the last one, row-major."""
    return math.prod(dim.extent for _, dim in window.pairs())


def _wrapping(window: Window) -> np.dtype:
    """The smallest type in which differences of places in one window have a sign."""
    return np.min_scalar_type(-2 * _reach(window))


def _places_of_cells(dim: AxisWindow) -> Numbers:
    return numbers(dim.size) + dim.low


def _starts_of_windows(dim: AxisWindow) -> Numbers:
    return numbers(dim.out) * dim.stride


def _places(
    window: Window,
    shape: Sequence[int],
    dtype: np.dtype,
    along: Callable[[AxisWindow], Numbers],
) -> jax.Array:
    """Places, row-major in the extent of a window, of what lies `along` each axis.

    From one array for each axis, of full shape before they are added up: XLA:GPU makes
    a kernel of a smaller sum.
    """
    places, pitch = jnp.zeros(shape, dtype), 1
    for axis, dim in reversed(window.pairs()):
        steps = (along(dim) * pitch).astype(dtype)
        places += lax.broadcast_in_dim(steps, shape, (axis,))
        pitch *= dim.extent
    return places


def _position(window: Window, place: jax.Array) -> jax.Array:
    """The position inside its window of each winner, from its place, wrapped around."""
    starts = _places(window, place.shape, place.dtype, _starts_of_windows)
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
