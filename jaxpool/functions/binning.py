"""What each pool over bins computes: windows of any places and lengths.

Bins that tile every axis are windows, for the kernels of `_pooling`. Others are
reduced axis by axis, all bins of an axis at once: what is told of the first cell of
each, of the second one, and so on, is read by one gather each. What a shorter bin does
not have is left out by a select, or its last cell is told again; no bin ever reads
a cell of another one, whose NaN would arrive with it.

The winner of a bin is its first NaN, else its first maximal cell in row-major order. It
is known by its flat index over the pooled axes, which is the residual of a maximum. The
ways back ask of each cell which bins have it, which are neighbours: gathers and
selects too, no scatter.
"""

import math
from collections.abc import Iterator
from functools import partial, reduce
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.custom_derivatives import zero_from_primal

from jaxpool.aggregations import dtypes, integers
from jaxpool.aggregations.dtypes import INT32
from jaxpool.aggregations.extremes import POSITION, indexed_extremum
from jaxpool.aggregations.sums import divide
from jaxpool.engines.linear import linear
from jaxpool.engines.numbers import Numbers, divided, module_of, numbers
from jaxpool.engines.slices import select, widened
from jaxpool.engines.stages import stage
from jaxpool.functions import pooling
from jaxpool.geometry.bins import AxisBins, Bins, Extent
from jaxpool.geometry.window import MOST

Places: TypeAlias = Numbers  # int32, one for each bin
Table: TypeAlias = tuple[Places, Places]  # the first cell of each bin, and its end
Tables: TypeAlias = tuple[Table, ...] | None  # by pooled axis; None: those of the bins

# Gathers in one loop; longer bins are reduced in parts first.
MOST_GATHERS = 16
# Bins whose cells are constants of the program, for each gather.
FEW = 128


def maxima(bins: Bins, x: jax.Array, tables: Tables = None) -> jax.Array:
    """The maximum of each bin, in the dtype of `x`."""
    if len(bins.axes) > 1 and math.prod(dim.size for dim in bins.dims) > MOST:
        # No index counts the cells. The winner of the winners along the last axis is
        # the first one in row-major order.
        for axis, dim, _, table in reversed([*_axes(bins, tables)]):
            x = maxima(Bins((axis,), (dim,)), x, (table,))
        return x
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return _values(bins, x, tables)
    return _maxima(bins, x, tables)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _maxima(bins: Bins, x: jax.Array, tables: Tables) -> jax.Array:
    return _values(bins, x, tables)


@_maxima.defjvp
def _maxima_jvp(
    bins: Bins, primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[jax.Array, jax.Array]:
    (x, tables), (t, _) = primals, tangents
    (values, _), (tangent, _) = jax.jvp(lambda x: winners(bins, x, tables), (x,), (t,))
    return values, tangent


def winners(
    bins: Bins, x: jax.Array, tables: Tables = None
) -> tuple[jax.Array, jax.Array]:
    """The maximum of each bin, and the flat index of the cell that is it.

    The derivative, in both modes, reads the tangents at the winners.
    """
    if bins.window is not None:
        return indexed_extremum("max", x, None, bins.window, 0, None)
    return _winners(bins, x, tables)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _winners(bins: Bins, x: jax.Array, tables: Tables) -> tuple[jax.Array, jax.Array]:
    values, index = x, None
    for step in _steps(bins, tables):
        found = stage(partial(_largest, step), values)
        index = stage(partial(_earliest, step), found, values, index)
        values = found
    index = np.zeros((1,) * x.ndim, np.int32) if index is None else index
    for axis, dim, weight, _ in _axes(bins, tables):
        if dim.is_identity:
            index = index + _along(axis, _cells(dim.size, weight), x.ndim)
    return values, jnp.broadcast_to(index, values.shape)


@_winners.defjvp
def _winners_jvp(
    bins: Bins, primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, Any]]:
    x, tables = primals
    values, index = _winners(bins, x, tables)
    known = checkpoint_name(index, POSITION), tables
    tangent = linear(partial(_read, bins), partial(_route, bins), known, tangents[0])
    return (values, index), (tangent, zero_from_primal(index))


def averages(bins: Bins, x: jax.Array, tables: Tables = None) -> jax.Array:
    """The average of each bin, in the dtype of `x`, of integers in float32."""
    if bins.window is not None:
        empty = np.zeros((), dtypes.averaged(x.dtype))
        return pooling.mean(x, bins.window, None, empty, None)
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return _quotients(bins, tables, x)
    return linear(partial(_quotients, bins), partial(_spread, bins), tables, x)


def _spread(bins: Bins, tables: Tables, g: jax.Array) -> jax.Array:
    """Send the cotangent of each bin to its cells, divided by their number."""
    wide = dtypes.summed(g.dtype)
    shares = g.astype(wide) / _number(bins, tables, g.ndim, wide)
    return _sums(_steps_back(bins, tables), shares, wide).astype(g.dtype)


def _values(bins: Bins, x: jax.Array, tables: Tables) -> jax.Array:
    """The maxima, without the winners."""
    if bins.window is not None:
        empty = np.zeros((), x.dtype)
        return pooling.extreme(x, bins.window, None, empty, None, "max")
    for step in _steps(bins, tables):
        x = stage(partial(_largest, step), x)
    return x


def _quotients(bins: Bins, tables: Tables, x: jax.Array) -> jax.Array:
    """Sums, divided."""
    if integers.needs_digits(x.dtype, bins.most_cells):

        def total(x: jax.Array) -> jax.Array:
            return _sums(_steps(bins, tables), x, x.dtype)

        number = _number(bins, tables, x.ndim, INT32)
        return integers.average(total, x, bins.most_cells, number, None)
    dtype = dtypes.averaged(x.dtype)
    number = _number(bins, tables, x.ndim, dtypes.summed(dtype))
    accumulator = dtypes.averaging(x.dtype, bins.most_cells)
    sums = _sums(_steps(bins, tables), x, accumulator)
    return divide(sums.astype(number.dtype), number).astype(dtype)


class _Step(NamedTuple):
    """A reduction along one axis, of `least` to `most` cells for each bin.

    `weight` is how far apart those are in row-major order, and 0 for parts of bins.
    """

    axis: int
    start: Places
    stop: Places
    least: int
    most: int
    weight: int

    def place(self, j: int) -> Places:
        """The cell `j` of each bin; in a shorter bin, its last one."""
        place = self.start + np.int32(j)
        if j < self.least:
            return place
        xp = module_of(place)
        return xp.maximum(xp.minimum(place, self.stop - np.int32(1)), np.int32(0))

    def has(self, j: int, rank: int) -> Places | None:
        """Which bins have a cell `j`, broadcasting to the result, if not all have."""
        if j < self.least:
            return None
        return _along(self.axis, self.stop - self.start > np.int32(j), rank)


def _axes(bins: Bins, tables: Tables) -> Iterator[tuple[int, AxisBins, int, Table]]:
    """`(axis, its bins, weight, table)` of each pooled axis."""
    if tables is None:
        tables = tuple(_parts(dim.size, dim.out) for dim in bins.dims)
    return zip(bins.axes, bins.dims, bins.weights, tables, strict=True)


def _parts(size: int, out: int) -> Table:
    """The bins of an axis that are not drawn: `out` equal parts, rounded outwards."""
    start, _ = divided(out, size, 0, out)
    stop, _ = divided(out, size, size + out - 1, out)
    return start, stop


def _steps(bins: Bins, tables: Tables) -> list[_Step]:
    """From cells to bins."""
    return [
        step
        for axis, dim, weight, table in _axes(bins, tables)
        if not dim.is_identity
        for step in _chain(axis, table, dim.cells, weight)
    ]


def _steps_back(bins: Bins, tables: Tables) -> list[_Step]:
    """From bins to the cells that they have."""
    return [
        step
        for axis, dim, weight, table in _axes(bins, tables)
        if not dim.is_identity
        for step in _chain(axis, _covering(dim, table), dim.covers, weight)
    ]


def _chain(axis: int, table: Table, cells: Extent, weight: int) -> list[_Step]:
    """The steps along one axis; bins that are long are reduced in parts first."""
    (start, stop), (least, most), steps = table, cells, list[_Step]()
    if len(start) > FEW:
        start, stop = jnp.asarray(start), jnp.asarray(stop)
    while most > MOST_GATHERS:
        parts, bins = -(-most // MOST_GATHERS), len(start)
        each = -(-most // parts)
        if bins * parts > FEW:
            start, stop = jnp.asarray(start), jnp.asarray(stop)
        starts = (start[:, None] + _cells(parts, each)[None]).reshape(-1)
        ends = starts + np.int32(each)
        stops = module_of(starts).minimum(ends, stop.repeat(parts))
        steps.append(_Step(axis, starts, stops, 0, each, 0 if steps else weight))
        start = _cells(bins, parts)
        stop, least, most = start + np.int32(parts), parts, parts
    return [*steps, _Step(axis, start, stop, least, most, 0 if steps else weight)]


def _covering(dim: AxisBins, table: Table) -> Table:
    """For each cell, the first bin that has it, and the one after the last."""
    if not dim.is_drawn:
        return _parts(dim.out, dim.size)
    start, stop = table
    search = partial(jnp.searchsorted, method="scan_unrolled", side="right")
    first, end = (search(edges, _cells(dim.size, 1)) for edges in (stop, start))
    return first.astype(np.int32), end.astype(np.int32)


def _number(bins: Bins, tables: Tables, rank: int, dtype: np.dtype) -> Any:
    """How many cells each bin has, broadcasting to the result."""
    factors = []
    for axis, dim, _, (start, stop) in _axes(bins, tables):
        least, most = dim.cells
        counts = np.asarray([most]) if least == most else stop - start
        factors.append(_along(axis, counts.astype(dtype), rank))
    return reduce(lambda one, other: one * other, factors)


def _largest(step: _Step, values: jax.Array) -> jax.Array:
    """The largest value in each bin."""
    wide = dtypes.ordered(values.dtype)
    cells = (_take(values, step.axis, step.place(j)) for j in range(step.most))
    return reduce(lax.max, (widened(cell, wide) for cell in cells)).astype(values.dtype)


def _earliest(
    step: _Step, found: jax.Array, values: jax.Array, index: jax.Array | None
) -> jax.Array:
    """The least index of the cells that have the value found."""
    wide = dtypes.ordered(values.dtype)
    found = widened(found, wide)

    def told(j: int) -> jax.Array:
        place = step.place(j)
        value = widened(_take(values, step.axis, place), wide)
        has = (value == found) | (value != value)
        indices: Any = np.int32(0) if index is None else _take(index, step.axis, place)
        if step.weight:
            here = place * np.int32(step.weight)
            indices = indices + _along(step.axis, here, values.ndim)
        return select(has, indices, np.int32(np.iinfo(np.int32).max))

    return reduce(lax.min, map(told, range(step.most)))


def _sums(steps: list[_Step], x: jax.Array, dtype: np.dtype) -> jax.Array:
    """The sum of each bin, in `dtype`."""

    def total(step: _Step, x: jax.Array) -> jax.Array:
        def told(j: int) -> jax.Array:
            cell = widened(_take(x, step.axis, step.place(j)), dtype)
            has = step.has(j, x.ndim)
            return cell if has is None else select(has, cell, 0)

        return reduce(lax.add, map(told, range(step.most)))

    for step in steps:
        x = stage(partial(total, step), x)
    return x


def _read(bins: Bins, known: tuple[jax.Array, Tables], t: jax.Array) -> jax.Array:
    """Read the tangent at the winner of each bin."""
    last = range(-len(bins.axes), 0)

    def flat(array: jax.Array) -> jax.Array:
        moved = jnp.moveaxis(array, bins.axes, last)
        cells = math.prod(array.shape[axis] for axis in bins.axes)
        return moved.reshape(*moved.shape[: -len(bins.axes)], cells)

    index = known[0]
    found = jnp.take_along_axis(flat(t), flat(index), -1, mode="promise_in_bounds")
    shape = jnp.moveaxis(index, bins.axes, last).shape
    return jnp.moveaxis(found.reshape(shape), last, bins.axes)


def _route(bins: Bins, known: tuple[jax.Array, Tables], g: jax.Array) -> jax.Array:
    """Send the cotangent of each bin to its winner.

    The first axis first. Of the bins that have their winners in one row of it, and are
    the same on the other axes, the winner is the same cell: the first maximal one of
    their part of the row. So their cotangents are added up in the row, which then
    knows one winner, by its index in the row.
    """
    (index, tables), dtype = known, g.dtype
    g = g.astype(dtypes.summed(dtype))
    for axis, dim, weight, table in _axes(bins, tables):
        if dim.is_identity:
            index = index - _along(axis, _cells(dim.size, weight), g.ndim)
            continue
        step, *others = _chain(axis, _covering(dim, table), dim.covers, weight)
        won, inner = partial(_won, step, dim.size), partial(_inner, step, dim.size)
        g, index = _sums(others, stage(won, index, g), g.dtype), stage(inner, index)
        for other in others:
            index = stage(partial(_largest, other), index)
    return g.astype(dtype)


def _won(step: _Step, rows: int, index: jax.Array, g: jax.Array) -> jax.Array:
    """For each row, or part of its bins, the cotangents of those that it won."""

    def told(j: int) -> jax.Array:
        wins, _ = _wins(step, rows, j, index)
        return select(wins, _take(g, step.axis, step.place(j)), 0)

    return reduce(lax.add, map(told, range(step.most)))


def _inner(step: _Step, rows: int, index: jax.Array) -> jax.Array:
    """And the index of the winner in it, if it won any."""

    def told(j: int) -> jax.Array:
        wins, inner = _wins(step, rows, j, index)
        return select(wins, inner, 0)

    return reduce(lax.max, map(told, range(step.most)))


def _wins(
    step: _Step, rows: int, j: int, index: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Whether a row has the winner of its bin `j`, and the index of that in the row."""
    row = _cells(rows, step.weight).repeat(len(step.start) // rows)
    inner = _take(index, step.axis, step.place(j)) - _along(step.axis, row, index.ndim)
    wins = (inner >= 0) & (inner < np.int32(step.weight))
    has = step.has(j, index.ndim)
    return (wins if has is None else wins & has), inner


def _take(array: jax.Array, axis: int, places: Places) -> jax.Array:
    """The cells at some places of an axis."""
    sizes = [*array.shape[:axis], 1, *array.shape[axis + 1 :]]
    numbers = lax.GatherDimensionNumbers(
        offset_dims=tuple(other for other in range(array.ndim) if other != axis),
        collapsed_slice_dims=(axis,),
        start_index_map=(axis,),
    )
    mode = lax.GatherScatterMode.PROMISE_IN_BOUNDS
    return lax.gather(array, jnp.asarray(places)[:, None], numbers, sizes, mode=mode)


def _cells(number: int, apart: int) -> Numbers:
    """The indices of so many cells."""
    return numbers(number).astype(np.int32) * np.int32(apart)


def _along(axis: int, numbers: Places, rank: int) -> Places:
    """One number for each place of an axis, broadcasting to all of an array."""
    return numbers.reshape([-1 if other == axis else 1 for other in range(rank)])
