"""Reducing windows step by step, with slices, pads and elementwise operations.

Nothing here knows what is reduced: `fold` combines what it is told about the cells of
each window, `reduce_steps` follows a plan of `_steps` with any associative operation.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool.engines.faults import loose
from jaxpool.engines.lowering import is_portable
from jaxpool.engines.stages import Arrays, Deferred
from jaxpool.engines.symbolic import Op as Op
from jaxpool.geometry.steps import Step
from jaxpool.geometry.window import AxisWindow

Scalar: TypeAlias = np.ndarray | np.generic | jax.Array
Dims: TypeAlias = Mapping[int, AxisWindow]  # by axis
Cell: TypeAlias = tuple[int, ...]  # the number of a cell in its window, for each axis
Windows: TypeAlias = tuple[range, ...]  # some windows, for each axis
Region: TypeAlias = tuple[
    tuple[range, range], ...
]  # numbers and windows, for each axis


def dims_of(step: Step) -> Dims:
    """The geometry of each axis of a step."""
    return dict(zip(step.axes, step.dims, strict=True))


def reduce_steps(
    op: Op, cells: Deferred, fill: Scalar, steps: Sequence[Step]
) -> Deferred:
    """Reduce every window of one array to one cell; padded cells hold `fill`."""
    runs = singles = cells
    for number, step in enumerate(steps):
        runs = runs.stored() if number else runs
        singles = runs if step.begins else singles
        runs = reduce_step(op, runs, singles, fill, step)
    return runs


def reduce_step(
    op: Op, runs: Deferred, singles: Deferred, fill: Scalar, step: Step
) -> Deferred:
    """Reduce the runs of each window, and single cells that lie beside them."""

    def tell(dims: Dims, cell: Cell, windows: Windows, array: jax.Array) -> jax.Array:
        return seen(array, dims, cell, windows)

    dims = dims_of(step)
    reduced = fold(op, partial(tell, dims), fill, dims, runs)
    if step.rest:
        dims = {step.axes[0]: step.rest}
        rest = fold(op, partial(tell, dims), fill, dims, singles)
        reduced = reduced.beside(rest).then(lambda run, single: (op(run, single),))
    return reduced


def fold(
    op: Op,
    tell: Callable[..., jax.Array],
    fill: Scalar,
    dims: Dims,
    arrays: Deferred,
    most_pads: int | None = None,
    dtype: np.dtype | None = None,
) -> Deferred:
    """For each window, fold by `op` what is told about its cells.

    `tell(cell, windows, *arrays)` is asked about windows that have the cell in the
    input; `fill` stands for the others. Cells that the same windows have are folded
    before they are padded. XLA branches at each pad, and vectorises a loop only if
    there are few: with `most_pads`, more of them go to further loops. Each loop writes
    `dtype`, if that is given.
    """
    (first, *further) = _loops(dims, most_pads)
    told = partial(_told, op, tell, fill, dims, dtype)
    folded = arrays.then(partial(told, first))
    for regions in further:
        part = arrays.then(partial(told, regions))
        folded = folded.stored().beside(part).then(lambda one, other: (op(one, other),))
    return folded


def _loops(dims: Dims, most_pads: int | None) -> list[list[Region]]:
    """The regions of the windows, with so few in each loop that are padded."""
    regions = list(itertools.product(*(dim.regions() for dim in dims.values())))
    whole: list[Region] = []
    padded: list[Region] = []
    for region in regions:
        is_whole = all(
            len(windows) == dim.out
            for (_, windows), dim in zip(region, dims.values(), strict=True)
        )
        (whole if is_whole else padded).append(region)
    if most_pads is None or len(padded) <= most_pads:
        return [regions]
    loops = math.ceil(len(padded) / most_pads)
    first, *further = (padded[i::loops] for i in range(loops))
    return [whole + first, *further]


def _told(
    op: Op,
    tell: Callable[..., jax.Array],
    fill: Scalar,
    dims: Dims,
    dtype: np.dtype | None,
    regions: Sequence[Region],
    *arrays: jax.Array,
) -> Arrays:
    """What is told about some regions, combined, for all windows."""
    parts = []
    for region in regions:
        js, windows = zip(*region, strict=True)
        cells = itertools.product(*js)
        part = reduce(op, (tell(cell, windows, *arrays) for cell in cells))
        around = {
            axis: (seeing.start, dim.out - seeing.stop)
            for (axis, dim), seeing in zip(dims.items(), windows, strict=True)
        }
        parts.append(pad(part, fill, around))
    told = reduce(op, parts)
    return (told if dtype is None else told.astype(dtype),)


def seen(array: jax.Array, dims: Dims, cell: Cell, windows: Windows) -> jax.Array:
    """One cell of each of `windows`, which all have it in the input."""
    places = {}
    for (axis, dim), j, ws in zip(dims.items(), cell, windows, strict=True):
        start = ws.start * dim.stride + j * dim.dilation - dim.low
        places[axis] = start, len(ws), dim.stride
    return cut(array, places)


def of_windows(array: jax.Array, dims: Dims, windows: Windows) -> jax.Array:
    """What an array with one cell for each window says of some of them."""
    places = {
        axis: (ws.start, len(ws), 1) for axis, ws in zip(dims, windows, strict=True)
    }
    return cut(array, places)


def cut(array: jax.Array, places: Mapping[int, tuple[int, int, int]]) -> jax.Array:
    """The cells `(start, length, stride)` of each of some axes.

    A slice of one cell has stride 1, for XLA's partitioner (`_partitioner`).
    """
    starts, stops = [0] * array.ndim, list(array.shape)
    strides = [1] * array.ndim
    for axis, (start, length, stride) in places.items():
        starts[axis], strides[axis] = (
            start if length else 0,
            stride if length > 1 else 1,
        )
        stops[axis] = start + (length - 1) * stride + 1 if length else 0
    return lax.slice(array, starts, stops, strides)


def pad(
    array: jax.Array,
    fill: Scalar,
    around: Mapping[int, tuple[int, int]],
    between: int = 0,
) -> jax.Array:
    """Pad some axes with `fill`; a negative amount crops."""
    places, config = {}, [(0, 0, 0)] * array.ndim
    for axis, (low, high) in around.items():
        first, behind = max(0, -low), max(0, -high)
        if first or behind:
            places[axis] = first, array.shape[axis] - first - behind, 1
        config[axis] = (max(0, low), max(0, high), between)
    array = cut(array, places) if places else array
    if not any(itertools.chain(*config)):
        return array
    array = loose(array) if between else array
    return lax.pad(array, jnp.asarray(fill, array.dtype), config)


def with_next(array: jax.Array, axis: int) -> jax.Array:
    """Merge an axis with the one after it."""
    shape = array.shape
    both = shape[axis] * shape[axis + 1]
    return array.reshape(*shape[:axis], both, *shape[axis + 2 :])


def split(array: jax.Array, axis: int, length: int) -> jax.Array:
    """Make two axes of one: its parts of some length, and what is in each."""
    shape = array.shape
    parts = shape[axis] // length
    return array.reshape(*shape[:axis], parts, length, *shape[axis + 1 :])


def select(
    mask: jax.Array, array: jax.Array | np.integer, other: int | np.integer
) -> jax.Array:
    """`array` where the mask says so, else a number.

    `jnp.where` without its `jit`, which in the transpose of a stage would become a
    stage of its own.
    """
    mask, array = jnp.broadcast_arrays(mask, jnp.asarray(array))
    return lax.select(mask, array, lax.full_like(array, other))


def widened(array: jax.Array, dtype: np.dtype) -> jax.Array:
    """`array` in a dtype that holds all of its values.

    Of converted float16, LLVM takes the maximum before it converts, which it does not
    vectorise. Here it does not see that the bits it would lose are all 0. Bits have no
    derivative, which a portable program needs.
    """
    wide: jax.Array = array.astype(dtype)
    if array.dtype == jnp.float16 and dtype == np.float32 and not is_portable():
        bits = lax.bitcast_convert_type(wide, np.int32) & np.int32(-(1 << 13))
        wide = lax.bitcast_convert_type(bits, np.float32)
    return wide
