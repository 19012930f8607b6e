"""The engine `reduce_window`: XLA's own windowed reduction."""

import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool.engines.faults import loose
from jaxpool.engines.symbolic import reduce_whole
from jaxpool.geometry.sizes import is_symbolic
from jaxpool.geometry.window import Window

COMBINED = (lax.add, lax.max, lax.min, lax.bitwise_or)  # by devices, of their parts


def _number_of(fill: Any) -> int:
    """A number for each identity: 0 for 0, and another one for another identity."""
    if isinstance(fill, jax.core.Tracer):
        return 1
    bits = np.asarray(fill).tobytes()
    return 2 + zlib.crc32(bits) % 65_521 if any(bits) else 0


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

    Where a program reduces one array that is split over devices in two ways, XLA's
    partitioner of jax 0.10 pads it once for all that have the same windows, with the
    identity of the first, and the others are silently wrong. So the arrays or the
    windows must differ. One array of floats is rounded to more bits than it has, which
    fuses. Else one cell is dilated, with which a TPU's compiler fuses nothing. Traced
    identities are not told from each other.
    """
    (first, *others), tree = jax.tree.flatten(arrays)
    # An H100 takes 40 us for windows of whole axes of 103 MB, and else 400 to 2000. If
    # one array is split, devices combine their parts, by the operations that they know.
    is_plain = bool(others) or computation in COMBINED
    is_whole = all(dim.is_whole for dim in window.dims) and is_plain
    if is_symbolic(window.cells) or is_whole:
        return reduce_whole(arrays, fills, computation, window)
    units = [a for a, n in enumerate(first.shape) if n == 1 and a not in window.axes]
    if portable and units:  # ONNX has pools of up to three axes
        left = [axis for axis in range(first.ndim) if axis not in units]
        inner = replace(window, axes=tuple(map(left.index, window.axes)))
        arrays = jax.tree.map(lambda array: lax.squeeze(array, units), arrays)
        reduced = reduce_windows(arrays, fills, computation, inner, portable=True)
        return jax.tree.map(lambda array: jnp.expand_dims(array, units), reduced)
    number = _number_of(jax.tree.leaves(fills)[0])
    if number and not others and jnp.issubdtype(first.dtype, jnp.floating):
        info = jnp.finfo(first.dtype)
        first = lax.reduce_precision(first, info.nexp, info.nmant + number)
        number = 0
    leaves = [first, *others]
    if number and all(axis in window.axes for axis in range(first.ndim)):
        leaves = [jnp.expand_dims(leaf, -1) for leaf in leaves]
    rank = leaves[0].ndim
    lengths, strides, dilations = [1] * rank, [1] * rank, [1] * rank
    padding = [(0, 0)] * rank
    for axis, dim in zip(window.axes, window.dims, strict=True):
        lengths[axis], strides[axis] = dim.window, dim.stride
        dilations[axis] = dim.dilation
        padding[axis] = dim.low, dim.behind
        if dim.out == 1:  # of more windows the first one is meant (`faults`)
            strides[axis] = 1
    if any(is_symbolic(n) for pair in padding for n in pair):
        # jax writes symbolic padding of a window as a program of its own, which may
        # not call functions such as `jnp.where` in the computation.
        around = [(*pair, 0) for pair in padding]
        ends = jax.tree.leaves(fills)
        leaves = [
            lax.pad(leaf, jnp.asarray(end, leaf.dtype), around)
            for leaf, end in zip(leaves, ends, strict=True)
        ]
        padding = [(0, 0)] * rank
    if number:  # a TPU minds it least at the end
        dilations[max(set(range(rank)) - set(window.axes))] = 1 + number
    reduced = lax.reduce_window(
        jax.tree.unflatten(tree, leaves),
        fills,
        computation,
        window_dimensions=lengths,
        window_strides=strides,
        padding=padding,
        window_dilation=dilations,
    )

    if others:  # or XLA's partitioner may end the process (`faults`)
        (values, *places), _ = jax.tree.flatten(reduced)
        reduced = jax.tree.unflatten(tree, [lax.optimization_barrier(values), *places])

    def without_rest(array: jax.Array) -> jax.Array:
        # Where the input ends beyond the last window, XLA may see one more.
        array = lax.slice(array, [0] * rank, window.output_shape(array.shape))
        return array.reshape(array.shape[: first.ndim])

    return jax.tree.map(without_rest, reduced)


def add_windows_back(window: Window, g: jax.Array) -> jax.Array:
    """Send the cotangent of each window to every cell of it: the adjoint of sums.

    It is a sum of windows too, over cotangents that are moved apart. Axes with one
    window are copies, which XLA does not see of a reduction.
    """
    dims, shape, zero = {}, list(g.shape), np.zeros((), g.dtype)
    around = [(0, 0, 0)] * g.ndim
    for axis, dim in window.pairs():
        size = min(dim.size, dim.span - dim.low)
        shape[axis] = size
        if dim.out > 1 or dim.dilation > 1:
            out = (dim.out - 1) * dim.stride + 1
            apart = replace(dim, stride=1, out=out, size=size)
            dims[axis], around[axis] = apart.covering()[0], (0, 0, dim.stride - 1)
    if any(zeros for *_, zeros in around):
        g = lax.pad(loose(g), zero, around)
    if dims:
        covers = Window(tuple(dims), tuple(dims.values()))
        g = reduce_windows(g, zero, lax.add, covers)
    return jnp.broadcast_to(g, shape)
