"""Windows in one piece, by XLA's own windowed reduction: winners, and the ways back.

Where a device reduces windows itself, steps are detours. On the way back every window
is repeated over the `stride` cells that begin with it; then the windows that cover a
cell are whole strides away, and all cells look for theirs in one loop. Windows that do
not overlap are not repeated: their cells are filled where they are.
"""

import itertools
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool._lowering import MOST_SLICES, xla_reduce_window
from jaxpool._passes import Dims, Op, cut, pad, select, with_next
from jaxpool._stages import Arrays
from jaxpool._symbolic import cell_indices, position_of
from jaxpool._window import AxisWindow, Window

_ZERO = np.zeros(())
_NONE: Mapping[int, int] = {}


def first_winners(
    beats: Callable[[jax.Array, jax.Array], jax.Array],
    worst: np.ndarray,
    window: Window,
    cells: jax.Array,
    *valid: jax.Array,
) -> Arrays:
    """The value and the position of each winner, and whether any cell is valid.

    XLA combines cells in an order of its own, so the earliest of equal cells is told by
    their places. Those are numbers from 0 on that wrap around at the largest of the
    smallest type in which differences of two cells of one window have a sign: most
    windows need one byte. What XLA begins with, and pads with, is at -1: it loses.
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


def has_places(window: Window) -> bool:
    """Whether the places of `first_winners` fit into 32 bits, and are known at all."""
    return not window.is_symbolic and _reach(window) <= 1 << 30


def _reach(window: Window) -> int:
    """Cells from the first one of a window to the last one, row-major."""
    return math.prod(dim.extent for _, dim in window.pairs())


def _places(
    window: Window, shape: Sequence[int], along: Callable[[AxisWindow], np.ndarray]
) -> jax.Array:
    """Places, row-major in the extent of a window, of what lies `along` each axis.

    From one constant for each axis, of full shape before they are added up: XLA:GPU
    makes a kernel of a smaller sum.
    """
    dtype = np.min_scalar_type(-2 * _reach(window))
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


def route(
    window: Window, dtype: np.dtype, position: jax.Array, g: jax.Array
) -> jax.Array:
    """Send the cotangent of each window to the cell at `position` inside it.

    They are added up in `dtype`, and returned in that of `g`. A position beyond the
    window has no cell.
    """
    if selects(window) == 1:
        return _placed(window, position, g)
    around = {}
    for axis, dim in window.pairs():
        before = (_most_covers(dim) - 1) * dim.stride - dim.low
        around[axis] = before, dim.low + dim.size - dim.out * dim.stride
    position = pad(_repeated(window, lax.max, position), _ZERO, around)
    g = pad(_repeated(window, lax.add, g), _ZERO, around)

    def won(covers: tuple[_Cover, ...]) -> jax.Array:
        places = {cover.axis: cover.place for cover in covers}
        inner, arrived = cut(position, places), cut(g, places)
        for cover in covers:
            inner -= jnp.asarray(cover.start, inner.dtype)
        wins = inner == 0
        for cover in covers:
            if not cover.is_in.all():
                wins &= cover.is_in
        return select(wins, arrived.astype(dtype), 0)

    weights = itertools.accumulate(
        (dim.window for _, dim in reversed(window.pairs())),
        initial=1,
        func=operator.mul,
    )
    each = [
        list(_covers(axis, dim, weight, g.ndim))
        for (axis, dim), weight in zip(reversed(window.pairs()), weights, strict=False)
    ]
    return reduce(lax.add, map(won, itertools.product(*each))).astype(g.dtype)


def selects(window: Window) -> int:
    """How many windows `route` looks at for each cell."""
    return math.prod(_most_covers(dim) for _, dim in window.pairs())


def _placed(window: Window, position: jax.Array, g: jax.Array) -> jax.Array:
    """The same for windows that do not overlap: the cells of each one are a block.

    A block is an axis after each pooled one. XLA would open the blocks before it fills
    them, and write to memory what is in them, but for the barrier.
    """
    opened = [axis + 1 + i for i, (axis, _) in enumerate(window.pairs())]
    inner, inside, weight = jnp.expand_dims(position, opened), {}, 1
    in_window = []
    for place, (axis, dim) in zip(opened[::-1], window.pairs()[::-1], strict=True):
        others = [other for other in range(inner.ndim) if other != place]
        cells = np.expand_dims(np.arange(dim.stride), others)
        number, rest = np.divmod(cells, dim.dilation)
        is_in = (rest == 0) & (number < dim.window)
        if not is_in.all():
            in_window.append(jnp.asarray(is_in))
        inner -= jnp.asarray(np.where(is_in, number, 0) * weight, inner.dtype)
        inside[axis] = -dim.low, dim.low + dim.size - dim.out * dim.stride
        weight *= dim.window
    wins = reduce(operator.and_, in_window, inner == 0)
    filled = lax.optimization_barrier(select(wins, jnp.expand_dims(g, opened), 0))
    for axis in reversed(opened):
        filled = with_next(filled, axis - 1)
    return pad(filled, _ZERO, inside)


def total(window: Window, dtype: np.dtype, divided: bool, x: jax.Array) -> jax.Array:
    """The sum of each window, added up in `dtype`; it may be `divided` afterwards."""
    return _summed(x, dict(window.pairs()), dtype, divided)


def spread(window: Window, dtype: np.dtype, g: jax.Array) -> jax.Array:
    """Send the cotangent of each window to every cell of it: the adjoint of a sum.

    They are added up in `dtype`.
    """
    dims, apart, shape, beyond = {}, {}, list(g.shape), {}
    for axis, dim in window.pairs():
        # Of an axis with one cell and more padding than a window XLA makes copies of
        # the cell, the padding included, once `pad` is merged with the reduction.
        size = min(dim.size, dim.span - dim.low)
        shape[axis], beyond[axis] = size, (0, dim.size - size)
        if dim.out > 1 or dim.dilation > 1:
            out, apart[axis] = (dim.out - 1) * dim.stride + 1, dim.stride
            windows = replace(dim, stride=1, out=out, size=size)
            dims[axis] = windows.covering()[0]
    # Axes with one window are copies, which XLA does not see of a reduction.
    cells = jnp.broadcast_to(_summed(g, dims, dtype, apart=apart), shape)
    return pad(cells, _ZERO, beyond)


def _summed(
    x: jax.Array,
    dims: Dims,
    dtype: np.dtype,
    divided: bool = False,
    apart: Mapping[int, int] = _NONE,
) -> jax.Array:
    """The sum of each window over cells that are `apart` on some axes.

    A TPU's compiler fuses a reduction with what comes before and after it, unless it
    is along the last axis; and dilated windows it reduces axis by axis. So the last
    axis goes first, where that moves fewer bytes.
    """
    if not dims:
        return x.astype(dtype)
    *others, (axis, dim) = sorted(dims.items())
    step, narrow = apart.get(axis, 1), x.dtype != dtype
    alone = dim.stride == step == 1 and (divided or dim.dilation > 1)
    if dim.is_whole:
        x, dims = jnp.sum(x, axis, dtype, keepdims=True), dict(others)
    elif alone and dim.window <= MOST_SLICES:
        x, dims = _in_slices(x, axis, dim, dtype), dict(others)
    elif len(others) > 1 and narrow and dim.stride > 1 and not divided:
        x, dims = _reduced(lax.add, x.astype(dtype), {axis: dim}), dict(others)
    elif others and narrow and step > 1:
        # Narrow zeros between the cells are fewer bytes than wide sums of one axis.
        between = [0] * x.ndim
        for other, _ in others:
            between[other] = apart[other] - 1
        x = lax.pad(x, np.zeros((), x.dtype), [(0, 0, zeros) for zeros in between])
        apart = {axis: step}
    return _reduced(lax.add, x.astype(dtype), dims, apart)


def _in_slices(x: jax.Array, axis: int, dim: AxisWindow, dtype: np.dtype) -> jax.Array:
    """The sum of each window along one axis, one cell of all windows after another."""
    x = pad(x, _ZERO, {axis: (dim.low, dim.behind)})
    slices = [
        cut(x, {axis: (start, dim.out, 1)}).astype(dtype)
        for start in range(0, dim.extent, dim.dilation)
    ]
    return reduce(lax.add, slices)


class _Cover(NamedTuple):
    """Of the windows that cover the cells of an axis, one for each cell.

    Where they are among the repeated ones; and of each cell, in shapes that broadcast,
    whether it is in its window, and how much of the position this axis accounts for.
    """

    axis: int
    place: tuple[int, int, int]
    is_in: np.ndarray
    start: np.ndarray


def _covers(axis: int, dim: AxisWindow, weight: int, rank: int) -> Iterator[_Cover]:
    """For each cell of an axis all windows that cover it, the latest ones first."""
    shape = [-1 if other == axis else 1 for other in range(rank)]
    most = _most_covers(dim)
    for back in range(most):
        offset = (np.arange(dim.size) + dim.low) % dim.stride + back * dim.stride
        number, rest = np.divmod(offset, dim.dilation)
        is_in = (rest == 0) & (number < dim.window)
        if is_in.any() or not back:  # an empty axis has none
            start = np.where(is_in, number, 0) * weight
            place = (most - 1 - back) * dim.stride, dim.size, 1
            yield _Cover(axis, place, is_in.reshape(shape), start.reshape(shape))


def _most_covers(dim: AxisWindow) -> int:
    """How many strides a window extends over."""
    return -(-dim.extent // dim.stride)


def _repeated(window: Window, op: Op, array: jax.Array) -> jax.Array:
    """Each cell `stride` times along each pooled axis.

    By a reduction along all axes, or for small numbers along the last one at last: with
    that along the others, a TPU's compiler fuses what comes before it.
    """
    pairs = [(axis, dim.stride) for axis, dim in window.pairs() if dim.stride > 1]
    is_small = array.dtype.itemsize == 1
    for some in (pairs[:-1], pairs[-1:]) if is_small else (pairs,):
        dims = {}
        for axis, stride in some:
            cells, more = (array.shape[axis] - 1) * stride + 1, stride - 1
            dims[axis] = AxisWindow(cells, stride, 1, 1, more, more, cells + more)
        array = _reduced(op, array, dims, dict(some))
    return array


def _reduced(
    op: Op, array: jax.Array, dims: Dims, apart: Mapping[int, int] = _NONE
) -> jax.Array:
    """Reduce some axes by an operation whose identity is 0."""
    if not dims:
        return array
    window = Window(tuple(dims), tuple(dims.values()))
    zero = np.zeros((), array.dtype)
    reduced: jax.Array = xla_reduce_window(array, zero, op, window, apart)
    return reduced
