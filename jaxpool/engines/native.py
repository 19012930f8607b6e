"""Windows in one piece, by XLA's own windowed reduction: sums, and the ways back.

Where a device reduces windows itself, steps are detours. On the way back of a maximum
or a norm all cells look for their windows in one loop. Where other axes fill the lanes,
a block of cells is an axis, to which the windows that cover it are broadcast. Else
every window is repeated over the `stride` cells that begin with it; then the windows
that cover a cell are whole strides away.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool.engines.faults import has_long_shards, loose
from jaxpool.engines.lowering import (
    MOST_SLICES,
    TPU_BLOCK,
    TPU_LAST_BLOCK,
    fills_lanes,
    xla_reduce_window,
)
from jaxpool.engines.numbers import Numbers, is_known, module_of, numbers
from jaxpool.engines.slices import Dims, Op, cut, pad, select, split, with_next
from jaxpool.engines.stages import Arrays
from jaxpool.geometry.window import AxisWindow, Window

Starts: TypeAlias = Sequence[Numbers]

_ZERO = np.zeros(())
_NONE: Mapping[int, int] = {}


def route(
    window: Window, dtype: np.dtype, position: jax.Array, g: jax.Array
) -> jax.Array:
    """Send the cotangent of each window to the cell at `position` inside it.

    They are added up in `dtype`, and returned in that of `g`. A position beyond the
    window has no cell.
    """

    def told(starts: Starts, position: jax.Array, g: jax.Array) -> jax.Array:
        place = jnp.zeros((1,) * g.ndim, position.dtype)
        for start in starts:
            place += jnp.asarray(start, position.dtype)
        return select(position == place, g, 0).astype(dtype)

    return from_windows(window, g.dtype, told, (position, g))


def from_windows(
    window: Window,
    dtype: np.dtype,
    told: Callable[..., jax.Array],
    windows: Arrays,
    cells: Arrays = (),
) -> jax.Array:
    """For each cell the sum of what it is told by the windows that cover it.

    `told(starts, *windows, *cells)` is asked about one of these for each cell; `starts`
    add up to the position of the cell in its window. What it says of cells beyond the
    window does not count; of windows beyond the last, which are 0, it has to say 0,
    or NaN of a cell that is. The sum is returned in `dtype`. Cells are looked at in
    blocks, or all of them in one loop over windows that are repeated.
    """
    blocks = _blocks(window, windows[0].shape)
    if blocks is None:
        windows = tuple(_repeated(window, array) for array in windows)
    around, rest, opened, each, weight = {}, {}, [], [], window.cells
    rank = windows[0].ndim + len(blocks or ())
    for i, (axis, dim) in enumerate(window.pairs()):
        if blocks is None:
            along, line = axis, _over_cells(dim)
        else:
            along, line = axis + 1 + i, _over_block(dim, blocks[i])
            opened.append(along)
            length, count = line.offsets[0].size, line.places[0][1]
            beside = {along - 1: (line.before, count * length - line.before - dim.size)}
            padded = (pad(array, _ZERO, beside) for array in cells)
            cells = tuple(split(array, along - 1, length) for array in padded)
        around[axis], rest[axis] = line.around, (-line.before, 0)
        weight //= dim.window
        each.append(list(_covers(axis, dim, line, along, rank, weight)))
    windows = tuple(pad(array, _ZERO, around) for array in windows)
    if opened and cells:
        # XLA would convert cells to a wider type, and write that, before it opens them.
        cells = lax.optimization_barrier(cells)

    def of(covers: tuple[_Cover, ...]) -> jax.Array:
        places = {cover.axis: cover.place for cover in covers}
        covering = (jnp.expand_dims(cut(array, places), opened) for array in windows)
        part = told([cover.start for cover in covers], *covering, *cells)
        for cover in covers:
            if not (is_known(cover.is_in) and cover.is_in.all()):
                part = select(jnp.asarray(cover.is_in), part, 0)
        return part

    summed = reduce(lax.add, map(of, itertools.product(*each))).astype(dtype)
    if opened:
        # XLA would open the blocks before it fills them, and write what is in them.
        summed = lax.optimization_barrier(summed)
        for axis in reversed(opened):
            summed = with_next(summed, axis - 1)
    for axis, dim in window.pairs():
        low, _ = rest[axis]
        rest[axis] = low, dim.size - summed.shape[axis] - low
    return pad(summed, _ZERO, rest)


def selects(window: Window) -> int:
    """How many windows `route` looks at for each cell, without blocks."""
    return math.prod(_most_covers(dim) for _, dim in window.pairs())


def _blocks(window: Window, shape: Sequence[int]) -> list[int] | None:
    """How many strides long a block is along each pooled axis; None without blocks.

    Longer blocks read less of the windows beside them, and look at more windows. They
    pay if at least half of the windows that a block looks at begin in it.
    """
    dims = [dim for _, dim in window.pairs()]
    if selects(window) == 1:
        return [1] * len(dims)
    if all(dim.stride == 1 for dim in dims) or not fills_lanes(window, shape):
        return None
    longest = [TPU_BLOCK] * (len(dims) - 1) + [TPU_LAST_BLOCK]
    many = [_strides(dim, most) for dim, most in zip(dims, longest, strict=True)]
    lines = map(_over_block, dims, many)
    few = (len(line.places) <= 2 * n for line, n in zip(lines, many, strict=True))
    return many if all(few) else None


def _strides(dim: AxisWindow, most: int) -> int:
    """How many strides, at most so many, a block has that the axis is a multiple of."""
    if dim.stride == 1 or dim.stride >= dim.extent:
        return 1
    return next(n for n in (most, 2, 1) if dim.size % (n * dim.stride) == 0 or n == 1)


def _most_covers(dim: AxisWindow) -> int:
    """How many strides a window extends over."""
    return -(-dim.extent // dim.stride)


class _Line(NamedTuple):
    """Where the windows that may cover a cell are, along one axis.

    Windows are padded `around`. For a cell, one window of each of `places` is looked
    at; the cell lies `offsets` behind the beginning of that. The first cells are so
    many `before` the first one of the input.
    """

    before: int
    around: tuple[int, int]
    places: list[tuple[int, int, int]]
    offsets: list[Numbers]


def _over_block(dim: AxisWindow, many: int) -> _Line:
    """For each cell of a block, which is `many` strides long, all that cover one.

    Blocks begin with the input, or with the first window if windows do not overlap.
    """
    before = dim.low if dim.extent <= dim.stride else 0
    length, first = many * dim.stride, dim.low - before
    inside = numbers(length) + first
    count = -(-(dim.size + before) // length)
    earliest = (dim.extent - 1 - first) // dim.stride
    latest = (first + length - 1) // dim.stride
    around = earliest, many * (count - 1) + latest + 1 - dim.out
    steps = range(earliest + latest + 1)
    places = [(step, count, many) for step in steps]
    offsets = [inside - (step - earliest) * dim.stride for step in steps]
    return _Line(before, around, places, offsets)


def _over_cells(dim: AxisWindow) -> _Line:
    """For each cell of an axis, of windows that are repeated over their strides."""
    most = _most_covers(dim)
    before = (most - 1) * dim.stride - dim.low
    around = before, dim.low + dim.size - dim.out * dim.stride
    steps = range(most)
    places = [((most - 1 - step) * dim.stride, dim.size, 1) for step in steps]
    if dim.stride == 1:
        inside = np.zeros(1, np.int64)
    else:
        inside = (numbers(dim.size) + dim.low) % dim.stride
    return _Line(0, around, places, [inside + step * dim.stride for step in steps])


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
        zero = np.zeros((), x.dtype)
        x = lax.pad(loose(x), zero, [(0, 0, zeros) for zeros in between])
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

    Where they are; and of each cell, in shapes that broadcast, whether it is in its
    window, and how much of the position this axis accounts for.
    """

    axis: int
    place: tuple[int, int, int]
    is_in: Numbers
    start: Numbers


def _covers(
    axis: int, dim: AxisWindow, line: _Line, along: int, rank: int, weight: int
) -> Iterator[_Cover]:
    """All that cover a cell of an axis; cells lie `along` another one."""
    shape = [-1 if other == along else 1 for other in range(rank)]
    for place, offset in zip(line.places, line.offsets, strict=True):
        number, rest = offset // dim.dilation, offset % dim.dilation
        is_in = (offset >= 0) & (rest == 0) & (number < dim.window)
        # A repeated window may have no cell.
        if not is_known(is_in) or is_in.any() or place == line.places[0]:
            start = module_of(is_in).where(is_in, number, 0) * weight
            yield _Cover(axis, place, is_in.reshape(shape), start.reshape(shape))


def _repeated(window: Window, array: jax.Array) -> jax.Array:
    """Each cell `stride` times along each pooled axis.

    By a reduction along all axes, or for small numbers along the last one at last: with
    that along the others, a TPU's compiler fuses what comes before it.
    """
    pairs = [(axis, dim.stride) for axis, dim in window.pairs() if dim.stride > 1]
    op = lax.add if jnp.issubdtype(array.dtype, jnp.floating) else lax.max
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
    for axis, step in apart.items():
        if step > 1 and not has_long_shards(dims[axis]):
            array, apart = (
                pad(array, zero, {axis: (0, 0)}, step - 1),
                {**apart, axis: 1},
            )
    array = loose(array) if any(step > 1 for step in apart.values()) else array
    reduced: jax.Array = xla_reduce_window(array, zero, op, window, apart)
    return reduced
