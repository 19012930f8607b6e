"""The engine of bins: cells to outputs, and back, one gather per cell.

All bins of an axis are reduced at once: the first cell of each, the second one, and so
on, by one gather each. A bin that has fewer cells is left out by a select, or its last
cell is read again; no bin ever reads a cell of another one, whose NaN would arrive with
it. The way back asks of each cell which bins have it, which are neighbours: gathers and
selects too, no scatter.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool.engines.cells import ZERO, Scalar, along, take
from jaxpool.engines.contract import AxisStep, Fill, Op, Place, Term, of_leaves
from jaxpool.engines.loops import NOTHING, Arrays, Boundary, Lifted, stage
from jaxpool.engines.numbers import Numbers, divided, is_known, module_of, numbers
from jaxpool.geometry.bins import AxisBins, Bins, Extent

Table: TypeAlias = tuple[Numbers, Numbers]  # the first cell of each bin, and its end
Tables: TypeAlias = tuple[Table, ...]  # by pooled axis; none where bins are not drawn

# Gathers in one loop; longer bins are reduced in pieces first.
MOST_GATHERS = 16
# Bins whose cells are constants of the program, for each gather.
FEW = 128
# Operations for which a cell that is read twice changes nothing.
IDEMPOTENT = (lax.max, lax.min, lax.bitwise_or)


@dataclass(frozen=True, eq=False)
class BinStep(AxisStep):
    """Bin `o` reads the cells from `start[o]` to `stop[o]`.

    In the row-major order of a whole bin, neighbours on this axis are `weight` apart.
    `covering` is the same the other way round: the bins that read each cell.
    """

    table: Table
    cells: Extent
    covering: Table
    covers: Extent
    weight: int


def steps_of(bins: Bins, tables: Tables = ()) -> tuple[BinStep, ...]:
    """One step for each axis that is not an identity, the first axis first."""
    steps, weight = list[BinStep](), bins.cells
    for axis, dim, table in zip(
        bins.axes, bins.dims, _tables(bins, tables), strict=True
    ):
        weight //= dim.cells[1]
        if not dim.is_identity:
            geometry = (axis,), (dim.size,), (dim.out,)
            covering = _covering(dim, table)
            bounds = table, dim.cells, covering, dim.covers
            steps.append(BinStep(*geometry, *bounds, weight))
    return tuple(steps)


def fold(
    step: BinStep,
    op: Op,
    term: Term,
    fill: Fill,
    sources: Sequence[Lifted],
    outputs: Lifted = NOTHING,
    *,
    boundary: Boundary,
    finish: Lifted = NOTHING,
    few_pads: bool = False,
    dtype: np.dtype | None = None,
) -> Arrays:
    """For each bin, `op` over its cells of `term(cell, bin, place)`; one source."""
    (cells,), (axis,) = sources, step.axes

    def term_at(read: _Read, j: int, rank: int, cell: Arrays, own: Arrays) -> Any:
        start = (read.offset + np.int32(j)) * np.int32(step.weight)
        place = Place(along(axis, start, rank), step.weight)
        value = term(cells.lift(*cell), outputs.lift(*own), place)
        return value if dtype is None else value.astype(dtype)

    reads = _reads(step.table, step.cells)
    arrays = cells.arrays, outputs.arrays
    return _reduced(axis, op, term_at, fill, reads, arrays, finish, boundary)


def fold_back(
    step: BinStep,
    op: Op,
    term: Term,
    outputs: Lifted,
    cells: Lifted = NOTHING,
    *,
    boundary: Boundary,
    finish: Lifted = NOTHING,
    few_pads: bool = False,
) -> Arrays:
    """For each cell, `op` over the bins that read it of `term(cell, bin, place)`."""
    (axis,), (starts, _) = step.axes, step.table

    def term_at(read: _Read, j: int, rank: int, own: Arrays, cell: Arrays) -> Any:
        bin_ = read.place(j)
        take = np.take if is_known(starts) and is_known(bin_) else jnp.take
        first = take(starts, bin_, mode="clip")
        start = (read.item - first) * np.int32(step.weight)
        place = Place(along(axis, start, rank), step.weight)
        return term(cells.lift(*cell), outputs.lift(*own), place)

    reads = _reads(step.covering, step.covers)
    arrays = outputs.arrays, cells.arrays
    return _reduced(axis, op, term_at, ZERO, reads, arrays, finish, boundary)


class _Read(NamedTuple):
    """What each piece of the items reads: from `start` to `stop`.

    These are `least` to `most` reads. The piece begins `offset` reads after its `item`
    does; `is_item` says that each item is one piece.
    """

    start: Numbers
    stop: Numbers
    least: int
    most: int
    item: Numbers
    offset: Numbers
    is_item: bool

    def place(self, j: int) -> Numbers:
        """What is read `j`-th; of a shorter piece, what was read last."""
        place = self.start + np.int32(j)
        if j < self.least:
            return place
        xp = module_of(place)
        return xp.maximum(xp.minimum(place, self.stop - np.int32(1)), np.int32(0))


def _reads(table: Table, extent: Extent) -> list[_Read]:
    """The reads along one axis; long items are reduced in pieces first."""
    (start, stop), (least, most), reads = table, extent, list[_Read]()
    if len(start) > FEW:
        start, stop = jnp.asarray(start), jnp.asarray(stop)
    while most > MOST_GATHERS:
        pieces, items = -(-most // MOST_GATHERS), len(start)
        each = -(-most // pieces)
        offset, item = _cells(pieces, each), _cells(items, 1)
        if items * pieces > FEW:
            arrays = start, stop, offset, item
            start, stop, offset, item = (jnp.asarray(array) for array in arrays)
        starts = (start[:, None] + offset[None]).reshape(-1)
        ends = starts + np.int32(each)
        stops = module_of(starts).minimum(ends, stop.repeat(pieces))
        offsets = module_of(offset).tile(offset, items)
        items_of = item.repeat(pieces)
        reads.append(_Read(starts, stops, 0, each, items_of, offsets, False))
        start = _cells(items, pieces)
        stop, least, most = start + np.int32(pieces), pieces, pieces
    items = _cells(len(start), 1)
    return [*reads, _Read(start, stop, least, most, items, np.zeros(1, np.int32), True)]


def _reduced(
    axis: int,
    op: Op,
    term_at: Callable[..., Any],
    fill: Fill,
    reads: Sequence[_Read],
    arrays: tuple[Arrays, Arrays],
    finish: Lifted,
    boundary: Boundary,
) -> Arrays:
    """For each item of the second arrays, reduce the terms of the items it reads."""
    (first, *further), (read_from, own) = reads, arrays
    count = len(read_from)

    def start(*arrays: Any) -> Arrays:
        around, own = arrays[:count], arrays[count:]
        if not first.is_item:
            own = tuple(take(array, axis, first.item) for array in own)
        rank = arrays[0].ndim

        def value(j: int) -> Any:
            read = tuple(take(array, axis, first.place(j)) for array in around)
            return having(first, j, term_at(first, j, rank, read, own))

        return (reduce(op, map(value, range(first.most))),)

    def go_on(read: _Read, array: Any) -> Arrays:
        def value(j: int) -> Any:
            at = partial(take, axis=axis, places=read.place(j))
            return having(read, j, jax.tree.map(at, array))

        return (reduce(op, map(value, range(read.most))),)

    def having(read: _Read, j: int, value: Any) -> Any:
        if j < read.least or op in IDEMPOTENT:
            return value

        def kept(value: jax.Array, fill: Scalar) -> jax.Array:
            has = along(axis, read.stop - read.start > np.int32(j), value.ndim)
            return jnp.where(has, value, jnp.asarray(fill, value.dtype))

        return of_leaves(kept, value, fill)

    stages: list[Callable[..., Arrays]] = [start]
    stages += [partial(go_on, read) for read in further]
    moved: Arrays = (*read_from, *own)
    for function in stages[:-1]:
        moved = stage(boundary, function, *moved)
    return Lifted(moved, stages[-1]).finished(finish, boundary)


def counts(bins: Bins, tables: Tables, rank: int) -> list[Any]:
    """Cells in each bin as one factor per pooled axis, of a shape that broadcasts."""
    factors = []
    for axis, dim, (start, stop) in zip(
        bins.axes, bins.dims, _tables(bins, tables), strict=True
    ):
        least, most = dim.cells
        cells = np.asarray([most]) if least == most else stop - start
        factors.append(along(axis, cells.astype(np.int32), rank))
    return factors


def cells_of(bins: Bins, tables: Tables) -> jax.Array:
    """The flat index over the pooled axes of each cell of each bin, -1 for none.

    The shape is `[bins, cells]`, with all pooled axes in each.
    """
    index, has = jnp.zeros((1, 1), np.int32), jnp.ones((1, 1), bool)
    for dim, table in zip(bins.dims, _tables(bins, tables), strict=True):
        start, stop = (jnp.asarray(array)[None, :, None, None] for array in table)
        place = start + jnp.arange(dim.cells[1], dtype=np.int32)[None, None, None]
        shape = index.shape[0] * dim.out, -1
        index = (index[:, None, :, None] * np.int32(dim.size) + place).reshape(shape)
        has = (has[:, None, :, None] & (place < stop)).reshape(shape)
    return jnp.where(has, index, np.int32(-1))


def starts(bins: Bins, tables: Tables, rank: int) -> list[Any]:
    """The first cell of each bin along each pooled axis, of a shape that broadcasts."""
    pairs = zip(bins.axes, _tables(bins, tables), strict=True)
    return [along(axis, start, rank) for axis, (start, _) in pairs]


def _tables(bins: Bins, tables: Tables) -> Tables:
    """Those of drawn bins, or of equal parts."""
    return tables or tuple(_equal(dim.size, dim.out) for dim in bins.dims)


def _equal(size: int, out: int) -> Table:
    """The bins of an axis that are not drawn: `out` equal parts, rounded outwards."""
    start, _ = divided(out, size, 0, out)
    stop, _ = divided(out, size, size + out - 1, out)
    return start, stop


def _covering(dim: AxisBins, table: Table) -> Table:
    """For each cell, the first bin that has it, and the one after the last."""
    if not dim.is_drawn:
        return _equal(dim.out, dim.size)
    start, stop = table
    search = partial(jnp.searchsorted, method="scan_unrolled", side="right")
    first, end = (search(edges, _cells(dim.size, 1)) for edges in (stop, start))
    return first.astype(np.int32), end.astype(np.int32)


def _cells(number: int, apart: int) -> Numbers:
    """The indices of so many cells."""
    return numbers(number).astype(np.int32) * np.int32(apart)
