"""Windowed reductions and their adjoints, one axis at a time.

A box window is a product, so pooling one axis after the other costs the sum of the
window's sides instead of their product. `reduce_axes` does that for any associative
operation on one or several arrays together; `route_axes` sends cotangents back to
the cell that each window picked; `spread_axes` sends them back to every cell.

Positions count row-major inside the window, so the last axis is reduced first, and
routed last. Everything here is slices, pads, selects and elementwise operations:
no scatter, no sort, nothing whose order of evaluation could vary.
"""

import functools
from collections.abc import Callable
from typing import TypeAlias

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool._lowering import doubles
from jaxpool._window import AxisWindow, Window

Arrays: TypeAlias = tuple[jax.Array, ...]
# combine(earlier, later, offset): both arguments reduce runs of cells; the later run
# starts `offset` cells of the window, in row-major order, after the earlier one.
Combine: TypeAlias = Callable[[Arrays, Arrays, int], Arrays]
Scalar: TypeAlias = np.ndarray | np.generic | jax.Array


def reduce_axes(
    combine: Combine,
    arrays: Arrays,
    fills: tuple[Scalar, ...],
    window: Window,
    doubling: bool,
) -> Arrays:
    """Reduce every window to one cell; padded cells hold `fills`."""
    cells = 1
    pairs = window.pairs()
    for axis, dim in reversed(pairs):
        reduce_axis = _reduce_by_doubling if doubling else _reduce_by_slices
        padded = tuple(
            pad(array, axis, fill, dim.low, dim.span - dim.low - dim.size)
            for array, fill in zip(arrays, fills, strict=True)
        )
        arrays = reduce_axis(combine, padded, axis, dim, cells)
        if dim.overlaps and len(pairs) > 1:
            # Fused into the next pass, this one would be computed once per slice.
            arrays = lax.optimization_barrier(arrays)
        cells *= dim.window
    return arrays


def _reduce_by_slices(
    combine: Combine, arrays: Arrays, axis: int, dim: AxisWindow, cells: int
) -> Arrays:
    """Combine one strided slice per cell of the window."""

    def cell(j: int) -> Arrays:
        start = j * dim.dilation
        return tuple(cut(array, axis, start, dim.out, dim.stride) for array in arrays)

    result = cell(0)
    for j in range(1, dim.window):
        result = combine(result, cell(j), j * cells)
    return result


def _reduce_by_doubling(
    combine: Combine, arrays: Arrays, axis: int, dim: AxisWindow, cells: int
) -> Arrays:
    """Combine runs of 1, 2, 4, ... cells, those of the binary digits of the window."""
    length = dim.span
    runs, run = arrays, 1  # runs[i] reduces the cells i, i + dilation, ..., `run` many
    result: Arrays = ()
    done = 0
    while True:
        if dim.window & run:
            start = done * dim.dilation
            later = tuple(cut(a, axis, start, dim.out, dim.stride) for a in runs)
            result = combine(result, later, done * cells) if done else later
            done += run
        if done == dim.window:
            return result
        length -= run * dim.dilation
        earlier = tuple(cut(a, axis, 0, length) for a in runs)
        later = tuple(cut(a, axis, run * dim.dilation, length) for a in runs)
        runs = lax.optimization_barrier(combine(earlier, later, run * cells))
        run *= 2


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
            g, position = _route_by_halving(
                g, position, axis, at_stride_one(dim), cells
            )
        else:
            g, position = _route_by_blocks(g, position, axis, dim, cells)
        if len(pairs) > 1 and cells > 1:
            g, position = lax.optimization_barrier((g, position))
    return g


def _route_by_blocks(
    g: jax.Array, position: jax.Array, axis: int, dim: AxisWindow, cells: int
) -> tuple[jax.Array, jax.Array]:
    """Ask, for each cell, each of the windows that cover it whether it won there.

    The cells are seen as blocks of `stride`: cell `r` of block `a` is number
    `q*stride + r` of window `a - q`, for each `q` below `ceil(window / stride)`.
    """
    block = dim.stride
    step = dim.dilation if block == 1 else 1
    blocks = -(-(dim.low + dim.size) // block)
    covering = -(-dim.window // block)
    before = (covering - 1) * step
    zero = np.zeros((), position.dtype)
    g = pad(g, axis, np.zeros((), g.dtype), before, blocks - dim.out)
    position = pad(position, axis, zero, before, blocks - dim.out)
    number = _numbers(block, axis, g.ndim)
    results: list[jax.Array] = []
    inners: list[jax.Array] = []
    for q in range(covering):
        start = before - q * step
        there = jnp.expand_dims(cut(position, axis, start, blocks), axis + 1)
        routed = jnp.expand_dims(cut(g, axis, start, blocks), axis + 1)
        js = np.minimum(q * block + number, dim.window - 1)
        rest = there - jnp.asarray(js * cells, position.dtype)
        won = rest <= np.asarray(cells - 1, position.dtype)
        if (q + 1) * block > dim.window:
            won &= q * block + number < dim.window
        results.append(jnp.where(won, routed, np.zeros((), g.dtype)))
        inners.append(jnp.where(won, rest, zero))
    result, inner = (
        functools.reduce(lax.add, results),
        functools.reduce(lax.max, inners),
    )
    return (
        cut(_merge(result, axis), axis, dim.low, dim.size),
        cut(_merge(inner, axis), axis, dim.low, dim.size),
    )


def _route_by_halving(
    g: jax.Array, position: jax.Array, axis: int, dim: AxisWindow, cells: int
) -> tuple[jax.Array, jax.Array]:
    """Move cotangents to the half of the window that holds the winner, and again.

    The first step splits the window into the runs `[0, run)` and `[window - run,
    window)`, where `run` is the largest power of two below it; each further step
    halves the run. All that arrive at one run have the same winner, the first
    extreme cell of that run, so they may be added up.
    """
    run = 1 << ((dim.window - 1).bit_length() - 1)
    shift = dim.window - run
    zero = np.zeros((), position.dtype)
    none = np.zeros((), g.dtype)
    while run:
        stays = position < run * cells
        moved = jnp.where(
            stays, zero, position - jnp.asarray(shift * cells, zero.dtype)
        )
        far = shift * dim.dilation
        g = pad(jnp.where(stays, g, none), axis, none, 0, far) + pad(
            jnp.where(stays, none, g), axis, none, far, 0
        )
        position = jnp.maximum(
            pad(jnp.where(stays, position, zero), axis, zero, 0, far),
            pad(moved, axis, zero, far, 0),
        )
        g, position = lax.optimization_barrier((g, position))
        run //= 2
        shift = run
    after = dim.low + dim.size - g.shape[axis]
    g, position = pad(g, axis, none, 0, after), pad(position, axis, zero, 0, after)
    return (
        cut(g, axis, dim.low, dim.size),
        cut(position, axis, dim.low, dim.size),
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
    step = dim.dilation if block == 1 else 1
    g = pad(g, axis, np.zeros((), g.dtype), (more - 1) * step, blocks - dim.out)

    def running_sum(count: int) -> jax.Array:
        start = (more - count) * step
        length = blocks + (count - 1) * step
        inner = cut(g, axis, start, length)
        run = AxisWindow(length, count, 1, step, 0, 0, blocks)
        reduce_axis = _reduce_by_doubling if doubles(run) else _reduce_by_slices
        return reduce_axis(add, (inner,), axis, run, 0)[0]

    full = jnp.expand_dims(running_sum(more), axis + 1)
    number = _numbers(block, axis, g.ndim)
    if fewer == more:
        shape = (*full.shape[: axis + 1], block, *full.shape[axis + 2 :])
        spread = jnp.broadcast_to(full, shape)
    else:
        some = jnp.zeros_like(full)
        if fewer:
            some = jnp.expand_dims(running_sum(fewer), axis + 1)
        spread = jnp.where(number < dim.window % block, full, some)
    return cut(_merge(spread, axis), axis, dim.low, dim.size)


def add(earlier: Arrays, later: Arrays, offset: int) -> Arrays:
    """The combine of a sum."""
    return tuple(a + b for a, b in zip(earlier, later, strict=True))


def _numbers(block: int, axis: int, rank: int) -> np.ndarray:
    """`0 .. block-1` along the axis that `expand_dims` puts after `axis`."""
    shape = [1] * (rank + 1)
    shape[axis + 1] = block
    return np.arange(block).reshape(shape)


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
    stop = start + (length - 1) * stride + 1
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
