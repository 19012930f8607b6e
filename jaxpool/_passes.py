"""Windowed reductions and their adjoints, one axis at a time.

A box window is a product, so pooling one axis after the other costs the sum of the
window's sides instead of their product. `reduce_axes` does that for any associative
operation on one or several arrays together; `route_axes` sends cotangents back to
the cell that each window picked; `spread_axes` sends them back to every cell.

Positions count row-major inside the window, so the last axis is reduced first, and
routed last. Everything here is slices, pads, selects and elementwise operations:
no scatter, no sort, nothing whose order of evaluation could vary.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import TypeAlias

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool._lowering import doubles, stage
from jaxpool._window import AxisWindow, Window

# Up to this many padded selects XLA:CPU vectorises in one loop; with more of them it is
# better to write the padded arrays to memory first.
MOST_PADS = 3

Arrays: TypeAlias = tuple[jax.Array, ...]
# combine(earlier, later, offset): both arguments reduce runs of cells; the later run
# starts `offset` cells of the window, in row-major order, after the earlier one.
Combine: TypeAlias = Callable[[Arrays, Arrays, int], Arrays]
# (combine, lift, fills, axis, geometry, cells in the axes done, arrays) -> arrays
ReduceAxis: TypeAlias = Callable[..., Arrays]
Scalar: TypeAlias = np.ndarray | np.generic | jax.Array


def reduce_axes(
    combine: Combine,
    arrays: Arrays,
    fills: tuple[Scalar, ...],
    window: Window,
    doubling: bool,
    lift: Callable[..., Arrays] = lambda *arrays: arrays,
    by_slices: ReduceAxis | None = None,
) -> Arrays:
    """Reduce every window to one cell; padded cells hold `fills`.

    `lift` turns `arrays` into those that `combine` and `fills` are about. `by_slices`
    is what to do instead of `reduce_by_slices`.
    """
    cells = 1
    reduce_axis = reduce_by_doubling if doubling else by_slices or reduce_by_slices
    for axis, dim in reversed(window.pairs()):
        run = cells
        levels = dim.levels()
        if len(levels) > 1:
            lift = partial(_lift_and_pad, lift, fills, axis, dim)
        for level in levels:
            arrays = reduce_axis(combine, lift, fills, axis, level, run, arrays)
            run *= level.window
            lift = _as_they_are
        cells *= dim.window
    return lift(*arrays)


def _as_they_are(*arrays: jax.Array) -> Arrays:
    return arrays


def _lift_and_pad(
    lift: Callable[..., Arrays],
    fills: tuple[Scalar, ...],
    axis: int,
    dim: AxisWindow,
    *arrays: jax.Array,
) -> Arrays:
    """The arrays of one axis from the first cell of its first window to the last."""
    high = dim.span - dim.low - dim.size
    pairs = zip(lift(*arrays), fills, strict=True)
    return tuple(pad(array, axis, fill, dim.low, high) for array, fill in pairs)


def reduce_by_slices(
    combine: Combine,
    lift: Callable[..., Arrays],
    fills: tuple[Scalar, ...],
    axis: int,
    dim: AxisWindow,
    cells: int,
    arrays: Arrays,
) -> Arrays:
    """Combine one strided slice per cell of the window."""

    def combine_slices(*arrays: jax.Array) -> Arrays:
        pairs = tuple(zip(lift(*arrays), fills, strict=True))

        def cell(j: int) -> Arrays:
            windows = dim.seeing(j)
            return tuple(
                _widen(seen(array, axis, dim, j, windows), fill, axis, windows, dim.out)
                for array, fill in pairs
            )

        result = cell(0)
        for j in range(1, dim.window):
            result = combine(result, cell(j), j * cells)
        return result

    reduced: Arrays = stage(combine_slices, *arrays)
    return reduced


def fold_cells(
    op: Callable[[jax.Array, jax.Array], jax.Array],
    cell: Callable[[int, range], jax.Array],
    fill: Scalar,
    axis: int,
    dim: AxisWindow,
) -> jax.Array:
    """For each window, fold by `op` what `cell(j, windows)` says of its cell `j`.

    It is asked about windows that have it in the input; `fill` stands for the others.
    """

    def widened(j: int) -> jax.Array:
        windows = dim.seeing(j)
        return _widen(cell(j, windows), fill, axis, windows, dim.out)

    return reduce(op, map(widened, range(dim.window)))


def seen(
    array: jax.Array, axis: int, dim: AxisWindow, j: int, windows: range
) -> jax.Array:
    """Cell `j` of each of `windows`, which all have it in the input."""
    start = windows.start * dim.stride + j * dim.dilation - dim.low if windows else 0
    return cut(array, axis, start, len(windows), dim.stride)


def _widen(
    array: jax.Array, fill: Scalar, axis: int, windows: range, out: int
) -> jax.Array:
    """What is known of some windows of `out`, and `fill` for the others.

    XLA fuses these pads as long as each has one user; a padded input it would write
    to memory.
    """
    if not windows:
        shape = (*array.shape[:axis], out, *array.shape[axis + 1 :])
        return lax.full(shape, jnp.asarray(fill), array.dtype)
    return pad(array, axis, fill, windows.start, out - windows.stop)


def reduce_by_doubling(
    combine: Combine,
    lift: Callable[..., Arrays],
    fills: tuple[Scalar, ...],
    axis: int,
    dim: AxisWindow,
    cells: int,
    arrays: Arrays,
) -> Arrays:
    """Double the runs that are reduced, and add a cell where the window is odd.

    After the leading binary digits `m` of the window, `runs[i]` reduces the cells
    `i, i + dilation, ...`, `m` many.
    """
    begin = partial(_lift_and_pad, lift, fills, axis, dim)
    runs = single = stage(begin, *arrays)
    run = 1
    for digit in f"{dim.window:b}"[1:]:
        longer = 2 * run + int(digit)
        is_last = longer == dim.window
        stride = dim.stride if is_last else 1
        length = dim.out if is_last else dim.span - (longer - 1) * dim.dilation

        def double(
            runs: Arrays,
            single: Arrays,
            run: int = run,
            longer: int = longer,
            length: int = length,
            stride: int = stride,
        ) -> Arrays:
            earlier = _cut_all(runs, axis, 0, length, stride)
            later = _cut_all(runs, axis, run * dim.dilation, length, stride)
            result = combine(earlier, later, run * cells)
            if longer > 2 * run:
                later = _cut_all(single, axis, 2 * run * dim.dilation, length, stride)
                result = combine(result, later, 2 * run * cells)
            return result

        runs = stage(double, runs, single)
        run = longer
    return _cut_all(runs, axis, 0, dim.out, dim.stride if dim.window == 1 else 1)


def route_axes(g: jax.Array, position: jax.Array, window: Window) -> jax.Array:
    """Send the cotangent of each window to the cell at `position` inside it.

    `g` and `position` have the shape of the pooled array; the result has the shape of
    the input. Where a window's cotangent is not zero, its position must be that of a
    unique winner: two windows that pick cells of one row pick the same cell of it.
    """
    chex.assert_equal_shape([g, position])
    cells = window.cells
    pairs = window.pairs()
    for axis, dim in pairs:
        cells //= dim.window
        if dim.dilation > 1 and dim.stride > 1:
            g, position = (expand(a, axis, dim) for a in (g, position))
            dim = at_stride_one(dim)
        if doubles(dim):
            g, position = (expand(a, axis, dim) for a in (g, position))
            route = partial(_route_by_halving, axis, at_stride_one(dim), cells)
        else:
            route = partial(_route_by_blocks, axis, dim, cells)
        g, position = route(g, position)
    return g


def _route_by_blocks(
    axis: int, dim: AxisWindow, cells: int, g: jax.Array, position: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Ask, for each cell, each of the windows that cover it whether it won there."""
    covering, first = dim.covering()
    if covering.window > MOST_PADS:
        high = covering.span - covering.low - covering.size
        g, position = (
            stage(partial(pad, axis=axis, fill=fill, low=covering.low, high=high), a)
            for a, fill in ((g, zero(g)), (position, zero(position)))
        )
        covering = covering.padded()
    block = dim.stride
    number = _numbers(block, axis, g.ndim)

    def won(i: int, windows: range, position: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Whether the cell won the `i`-th window, and its position further in."""
        js = first - i * block + number
        there = jnp.expand_dims(seen(position, axis, covering, i, windows), axis + 1)
        start = np.clip(js, 0, dim.window - 1) * cells
        inner = there - jnp.asarray(start, there.dtype)
        wins = inner <= np.asarray(cells - 1, there.dtype)
        is_in = (js >= 0) & (js < dim.window)
        return wins if is_in.all() else wins & is_in, inner

    def route(g: jax.Array, position: jax.Array) -> jax.Array:
        def routed(i: int, windows: range) -> jax.Array:
            to = jnp.expand_dims(seen(g, axis, covering, i, windows), axis + 1)
            return jnp.where(won(i, windows, position)[0], to, zero(g))

        found = fold_cells(lax.add, routed, zero(g), axis, covering)
        return cut(_merge(found, axis), axis, 0, dim.size)

    def find_inner(position: jax.Array) -> jax.Array:
        def inner(i: int, windows: range) -> jax.Array:
            wins, further = won(i, windows, position)
            return jnp.where(wins, further, zero(position))

        found = fold_cells(lax.max, inner, zero(position), axis, covering)
        return cut(_merge(found, axis), axis, 0, dim.size)

    return stage(route, g, position), stage(find_inner, position)


def zero(array: jax.Array) -> np.ndarray:
    """A zero of the dtype of `array`."""
    return np.zeros((), array.dtype)


def _route_by_halving(
    axis: int, dim: AxisWindow, cells: int, g: jax.Array, position: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Move cotangents to the half of the window that holds the winner, and again.

    The first step splits the window into the runs `[0, run)` and `[window - run,
    window)`, where `run` is the largest power of two below it; each further step
    halves the run. All that arrive at one run have the same winner, the first
    extreme cell of that run, so they may be added up.
    """
    zero, none = np.zeros((), position.dtype), np.zeros((), g.dtype)
    reach = (dim.window - 1) * dim.dilation  # beyond either end no window starts
    after = dim.low + dim.size - dim.out
    g, position = (
        pad(g, axis, none, reach, after),
        pad(position, axis, zero, reach, after),
    )
    run = 1 << ((dim.window - 1).bit_length() - 1)
    shift = dim.window - run
    while run:
        g, position = stage(
            partial(_move, axis, run * cells, shift * cells, shift * dim.dilation),
            g,
            position,
        )
        run //= 2
        shift = run
    return cut(g, axis, dim.low, dim.size), cut(position, axis, dim.low, dim.size)


def _move(
    axis: int, threshold: int, passed: int, far: int, g: jax.Array, position: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Move what is at a position from `threshold` on `far` cells ahead."""
    length = g.shape[axis] - far
    zero, none = np.zeros((), position.dtype), np.zeros((), g.dtype)
    here, there = (cut(position, axis, start, length) for start in (far, 0))
    stays, moves = here < threshold, there >= threshold
    moved = there - np.asarray(passed, position.dtype)
    return (
        jnp.where(stays, cut(g, axis, far, length), none)
        + jnp.where(moves, cut(g, axis, 0, length), none),
        jnp.maximum(jnp.where(stays, here, zero), jnp.where(moves, moved, zero)),
    )


def spread_axes(g: jax.Array, window: Window) -> jax.Array:
    """Send the cotangent of each window to every cell of it: the adjoint of a sum."""
    for axis, dim in window.pairs():
        if dim.dilation > 1 and dim.stride > 1:
            g = expand(g, axis, dim)
            dim = at_stride_one(dim)
        g = _spread_axis(g, axis, dim)
    return g


def _spread_axis(g: jax.Array, axis: int, dim: AxisWindow) -> jax.Array:
    """For each cell, the sum over the windows that cover it.

    In blocks of `stride` cells, the first `window % stride` cells of a block are
    covered by `ceil(window / stride)` windows and the others by one less.
    """
    block = dim.stride
    blocks = -(-(dim.low + dim.size) // block)
    fewer, more = dim.window // block, -(-dim.window // block)
    zero = np.zeros((), g.dtype)

    def running_sum(count: int, low: int, out: int) -> jax.Array:
        run = AxisWindow(dim.out, count, 1, dim.dilation, low, 0, out)
        reduce_axis = reduce_by_doubling if doubles(run) else reduce_by_slices
        return reduce_axis(add, _as_they_are, (zero,), axis, run, 0, (g,))[0]

    if block == 1:
        return running_sum(dim.window, dim.extent - 1 - dim.low, dim.size)
    spread = jnp.expand_dims(running_sum(more, more - 1, blocks), axis + 1)
    number = _numbers(block, axis, g.ndim)
    shape = (*spread.shape[: axis + 1], block, *spread.shape[axis + 2 :])
    if fewer == more:
        spread = jnp.broadcast_to(spread, shape)
    elif fewer:
        less = jnp.expand_dims(running_sum(fewer, fewer - 1, blocks), axis + 1)
        spread = jnp.where(number < dim.window % block, spread, less)
    else:
        spread = jnp.where(number < dim.window % block, spread, zero)
    return cut(_merge(spread, axis), axis, dim.low, dim.size)


def add(earlier: Arrays, later: Arrays, offset: int) -> Arrays:
    """The combine of a sum."""
    return tuple(a + b for a, b in zip(earlier, later, strict=True))


def _numbers(block: int, axis: int, rank: int) -> np.ndarray:
    """`0 .. block-1` along the axis that `expand_dims` puts after `axis`."""
    shape = [1] * (rank + 1)
    shape[axis + 1] = block
    return np.arange(block).reshape(shape)


def _cut_all(arrays: Arrays, axis: int, start: int, length: int, stride: int) -> Arrays:
    return tuple(cut(array, axis, start, length, stride) for array in arrays)


def _merge(array: jax.Array, axis: int) -> jax.Array:
    """Merge `axis` with the one after it."""
    shape = array.shape
    merged = shape[axis] * shape[axis + 1]
    return array.reshape(*shape[:axis], merged, *shape[axis + 2 :])


def at_stride_one(dim: AxisWindow) -> AxisWindow:
    """The geometry for windows that were moved apart by `expand`."""
    out = (dim.out - 1) * dim.stride + 1
    return AxisWindow(dim.size, dim.window, 1, dim.dilation, dim.low, dim.high, out)


def expand(array: jax.Array, axis: int, dim: AxisWindow) -> jax.Array:
    """Put window `o` at place `o * stride`, with zeros between."""
    return pad(array, axis, np.zeros((), array.dtype), 0, 0, dim.stride - 1)


def cut(
    array: jax.Array, axis: int, start: int, length: int, stride: int = 1
) -> jax.Array:
    """`length` cells of one axis, `stride` apart."""
    stop = start + (length - 1) * stride + 1 if length else start
    return lax.slice_in_dim(array, start, stop, stride, axis)


def pad(
    array: jax.Array, axis: int, fill: Scalar, low: int, high: int, between: int = 0
) -> jax.Array:
    """Pad one axis with `fill`; a negative amount crops."""
    if not (low or high or between):
        return array
    config = [(0, 0, 0)] * array.ndim
    config[axis] = (low, high, between)
    return lax.pad(array, jnp.asarray(fill), config)
