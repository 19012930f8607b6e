"""Windows over axes whose sizes are symbols: what the kernels do with them.

The plans of `geometry.steps` are ranges of windows, and there is no range up to a
symbol. Here are the plain forms, one axis after the other: a slice or a pad for each
cell of a window, and for a window that is the whole axis one reduction or comparison.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool.geometry.sizes import is_symbolic
from jaxpool.geometry.window import AxisWindow, Window

Op: TypeAlias = Callable[[jax.Array, jax.Array], jax.Array]


def as_number(size: int, dtype: Any = np.int32) -> Any:
    """A size to compute with; what a symbol stands for is known when it runs."""
    xp: Any = jnp if is_symbolic(size) else np
    return xp.asarray(size, dtype)


def reduce_whole(
    arrays: Any, fills: Any, computation: Callable[..., Any], window: Window
) -> Any:
    """`lax.reduce` of one array or several to one cell."""
    reduced = lax.reduce(arrays, fills, computation, window.axes)
    return jax.tree.map(lambda array: jnp.expand_dims(array, window.axes), reduced)


def reduce_cells(op: Callable[..., Any], x: Any, init: Any, window: Window) -> Any:
    """Reduce each window by `op`, in the row-major order of its cells.

    `x` is one array or several, and `init` as many numbers.
    """
    for axis, dim in reversed(window.pairs()):
        around = dim.low, dim.behind, 0
        cells = jax.tree.map(partial(_padded, axis=axis, around=around), x, init)
        each = (partial(_cell, axis=axis, dim=dim, j=j) for j in range(dim.window))
        x = reduce(op, (jax.tree.map(cell, cells) for cell in each))
    return x


def counts(axis: int, dim: AxisWindow, rank: int, include_pad: bool) -> Any:
    """Cells in each window along an axis, of a shape that broadcasts."""
    dtype = jax.dtypes.canonicalize_dtype(np.int64)
    padded = any(is_symbolic(pad) or pad for pad in (dim.low, dim.behind))
    if include_pad or not padded:  # the same in all windows
        return jnp.broadcast_to(as_number(dim.window, dtype), [1] * rank)
    shape = [dim.out if a == axis else 1 for a in range(rank)]
    start = lax.broadcasted_iota(dtype, shape, axis) * dim.stride
    start -= as_number(dim.low, dtype)
    first = -(start // dim.dilation)
    last = -((start - as_number(dim.size, dtype)) // dim.dilation)
    return jnp.clip(last, 0, dim.window) - jnp.clip(first, 0, dim.window)


def cell_indices(window: Window, shape: tuple[int, ...]) -> jax.Array:
    """The flat row-major index over the pooled axes of each cell of the input."""
    indices, cells = jnp.zeros(shape, np.int32), 1
    for axis, dim in zip(reversed(window.axes), reversed(window.dims), strict=True):
        indices += _numbers(shape, axis) * as_number(cells)
        cells *= dim.size
    return indices


def position_of(index: jax.Array, window: Window) -> jax.Array:
    """The position inside its window of each winner, from its index in the input."""
    position, cells = jnp.zeros_like(index), 1
    for axis, dim in zip(reversed(window.axes), reversed(window.dims), strict=True):
        start = _numbers(index.shape, axis) * as_number(dim.stride) - as_number(dim.low)
        inside = (index % as_number(dim.size) - start) // dim.dilation
        position += inside * as_number(cells)
        index //= as_number(dim.size)
        cells *= dim.window
    return jnp.clip(position, np.int32(0), as_number(window.cells - 1))


def route(window: Window, g: jax.Array, position: jax.Array | None) -> jax.Array:
    """Send the cotangent of each window to its cell at `position`, or to all cells."""
    pairs = window.pairs()
    places = [None] * len(pairs) if position is None else _places(window, position)
    for (axis, dim), place in zip(pairs, places, strict=True):
        g = _to_cells(lax.add, g, axis, dim, place)
    return g


def read(window: Window, t: jax.Array, position: jax.Array) -> jax.Array:
    """Read the cell at `position` inside each window: the transpose of `route`."""
    outputs = jax.ShapeDtypeStruct(position.shape, t.dtype)
    routed = partial(route, window, position=position)
    return jax.linear_transpose(routed, outputs)(t)[0]


def _places(window: Window, position: jax.Array) -> list[jax.Array | None]:
    """The winner's place along each axis, for the windows or the cells that know it.

    All windows that pick a cell of one row, at one place along the other axes, pick
    the same cell of it: what they know of the other axes is the same for the row.
    """
    pairs, places = window.pairs(), list[jax.Array | None]()
    position = position.astype(np.int32)
    for number, (axis, dim) in enumerate(pairs):
        rest = Window(window.axes, tuple(dim for _, dim in pairs[number + 1 :])).cells
        place = position // as_number(rest)
        inner = position - place * as_number(rest)
        position = _to_cells(lax.max, inner, axis, dim, place)
        places.append(place)
    return places


def _to_cells(
    op: Op, array: jax.Array, axis: int, dim: AxisWindow, place: jax.Array | None
) -> jax.Array:
    """For each cell, fold by `op` what the windows have that pick it, or all of its."""

    def picked(j: Any, array: jax.Array) -> jax.Array:
        return array if place is None else jnp.where(place == j, array, zero)

    zero = np.zeros((), array.dtype)
    if dim.is_whole:
        shape = *array.shape[:axis], dim.size, *array.shape[axis + 1 :]
        return picked(_numbers(shape, axis), jnp.broadcast_to(array, shape))
    last = (dim.out - 1) * dim.stride  # where the last window begins
    padded = dim.low + dim.size + dim.behind
    parts = []
    for j in range(dim.window):
        start = j * dim.dilation
        around = start, padded - start - last - 1, dim.stride - 1
        parts.append(_padded(picked(j, array), zero, axis, around))
    return _padded(reduce(op, parts), zero, axis, (-dim.low, -dim.behind, 0))


def _padded(
    array: jax.Array, fill: Any, axis: int, around: tuple[int, int, int]
) -> jax.Array:
    """The array with `around` as the padding of one axis."""
    config = [(0, 0, 0)] * array.ndim
    config[axis] = around
    return lax.pad(array, fill, config)


def _cell(padded: jax.Array, axis: int, dim: AxisWindow, j: int) -> jax.Array:
    """One cell of each window."""
    start = j * dim.dilation
    stop = start + (dim.out - 1) * dim.stride + 1
    return lax.slice_in_dim(padded, start, stop, dim.stride, axis)


def _numbers(shape: tuple[int, ...], axis: int) -> jax.Array:
    """The number of each cell along an axis."""
    return lax.broadcasted_iota(np.int32, shape, axis)
