"""The engine `reduce_window`: XLA's own windowed reduction."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool.engines.faults import (
    devices_combine,
    first_barred,
    moved_apart,
    padded_before,
    stride_of,
    told_apart,
)
from jaxpool.engines.symbolic import reduce_whole
from jaxpool.geometry.sizes import is_symbolic
from jaxpool.geometry.window import Window


def reduce_windows(
    arrays: Any,
    fills: Any,
    computation: Callable[..., Any],
    window: Window,
    *,
    portable: bool = False,
) -> Any:
    """`lax.reduce_window` of one array or several, by a resolved window.

    A `portable` program is one that other tools read.
    """
    (first, *others), tree = jax.tree.flatten(arrays)
    chex.assert_equal_shape([first, *others])
    for axis, dim in zip(window.axes, window.dims, strict=True):
        chex.assert_axis_dimension(first, axis, dim.size)
    is_whole = all(dim.is_whole for dim in window.dims)
    # An H100 takes 40 us for windows of whole axes of 103 MB, and else 400 to 2000.
    is_plain = is_whole and devices_combine(computation, 1 + len(others))
    if is_symbolic(window.cells) or is_plain:
        return reduce_whole(arrays, fills, computation, window)
    units = [a for a, n in enumerate(first.shape) if n == 1 and a not in window.axes]
    if portable and units:  # ONNX has pools of up to three axes
        left = [axis for axis in range(first.ndim) if axis not in units]
        inner = replace(window, axes=tuple(map(left.index, window.axes)))
        arrays = jax.tree.map(lambda array: lax.squeeze(array, units), arrays)
        reduced = reduce_windows(arrays, fills, computation, inner, portable=True)
        return jax.tree.map(lambda array: jnp.expand_dims(array, units), reduced)
    ends = jax.tree.leaves(fills)
    leaves, dilated = told_apart([first, *others], ends[0], window.axes)
    rank = leaves[0].ndim
    lengths, strides = [1] * rank, [1] * rank
    dilations = [dilated.get(axis, 1) for axis in range(rank)]
    padding = [(0, 0)] * rank
    for axis, dim in zip(window.axes, window.dims, strict=True):
        lengths[axis], strides[axis] = dim.window, stride_of(dim.stride, dim.out)
        dilations[axis] = dim.dilation
        padding[axis] = dim.low, dim.behind
    leaves, padding = padded_before(leaves, ends, padding)
    reduced = lax.reduce_window(
        jax.tree.unflatten(tree, leaves),
        fills,
        computation,
        window_dimensions=lengths,
        window_strides=strides,
        padding=padding,
        window_dilation=dilations,
    )

    def without_rest(array: jax.Array) -> jax.Array:
        # Where the input ends beyond the last window, XLA may see one more.
        array = lax.slice(array, [0] * rank, window.output_shape(array.shape))
        return array.reshape(array.shape[: first.ndim])

    results = map(without_rest, first_barred(jax.tree.leaves(reduced)))
    return jax.tree.unflatten(tree, results)


def add_windows_back(window: Window, g: jax.Array) -> jax.Array:
    """Send the cotangent of each window to every cell of it: the adjoint of sums.

    It is a sum of windows too, over cotangents that are moved apart. Axes with one
    window are copies, which XLA does not see of a reduction.
    """
    dims, between, shape = {}, dict[int, int](), list(g.shape)
    for axis, dim in window.pairs():
        chex.assert_axis_dimension(g, axis, dim.out)
        size = min(dim.size, dim.span - dim.low)
        shape[axis] = size
        if dim.out > 1 or dim.dilation > 1:
            out = (dim.out - 1) * dim.stride + 1
            apart = replace(dim, stride=1, out=out, size=size)
            dims[axis], between[axis] = apart.covering()[0], dim.stride - 1
    if dims:
        covers = Window(tuple(dims), tuple(dims.values()))
        zero, cells = np.zeros((), g.dtype), moved_apart(g, between)
        g = reduce_windows(cells, zero, lax.add, covers)
    return jnp.broadcast_to(g, shape)
