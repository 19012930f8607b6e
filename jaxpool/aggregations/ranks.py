"""Cells by their rank in an output: medians, quantiles, means of the largest.

The kernel sorts the cells of each output together with their positions, and returns the
cells that are asked for. Each of these is a winner: its derivative is that of a
maximum, by its position. The first NaN of an output takes all ranks.

Short lists are sorted by a network of comparisons, which XLA fuses to one loop; long
ones and segments by XLA's sort. Whole axes and bins are first written as links.
"""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import zero_from_primal

from jaxpool.aggregations import dtypes
from jaxpool.aggregations.call import Call
from jaxpool.aggregations.extremes import Winner
from jaxpool.aggregations.shares import Shares
from jaxpool.aggregations.winners import position_dtype
from jaxpool.engines.cells import along
from jaxpool.engines.contract import Place
from jaxpool.engines.elementwise import is_nan, like, select
from jaxpool.engines.fold import first_cell, fold
from jaxpool.engines.gathers import cells_of
from jaxpool.engines.kernel import bind, bind_linear
from jaxpool.engines.loops import Arrays, Lifted, stage
from jaxpool.engines.plan import DomainKernel, Needs
from jaxpool.geometry.bins import Bins
from jaxpool.geometry.domain import Domain
from jaxpool.geometry.links import AxisLinks, Links, Neighbors, Segments
from jaxpool.geometry.window import Window

# Cells of an output that a network sorts. `python -m experiments targets` has 9 and 25
# on a CPU, in a hundredth of the time of a sort; the limit itself is a guess.
MOST_BY_NETWORK = 32
NONE = np.int32(np.iinfo(np.int32).max)  # the position of no cell
Pair: TypeAlias = tuple[jax.Array, jax.Array]  # values and positions


@dataclass(frozen=True)
class Ranks:
    """The `largest` cells, the largest first; or both around a quantile, if `q`."""

    largest: int = 0
    q: float = 0.5

    @property
    def count(self) -> int:
        """How many cells these are."""
        return self.largest or 2

    def of(self, number: Any, dtype: np.dtype) -> Sequence[Any]:
        """Their numbers in the order of sorting, if an output has so many cells.

        The place of a quantile is computed in `dtype`.
        """
        if self.largest:
            return range(self.largest)
        xp: Any = np if isinstance(number, int) else jnp
        last = xp.maximum(xp.asarray(number, np.int32) - np.int32(1), np.int32(0))
        low = xp.floor(self.place(last, dtype)).astype(np.int32)
        ranks = low, xp.minimum(low + np.int32(1), last)
        return [int(rank) for rank in ranks] if isinstance(number, int) else ranks

    def place(self, last: Any, dtype: np.dtype) -> Any:
        """Where the quantile is between cell 0 and the last.

        `q` in two parts: the product with the first is exact for up to 4096 cells, and
        so 0.15 of 100 is 15, as in float64.
        """
        first = round(self.q * 2048) / 2048
        parts = (np.asarray(part, dtype) for part in (first, self.q - first))
        return reduce(operator.add, (last.astype(dtype) * part for part in parts))


def ranked(ranks: Ranks, call: Call) -> tuple[list[jax.Array], jax.Array]:
    """The cells of some ranks in each output, in the dtype of `x`, a float.

    Also the number of cells that count. Where an output has fewer cells than a rank,
    the value is 0.
    """
    x, over, tables = call.x, call.over.clipped(), call.tables
    mask = None if call.mask is None else jnp.broadcast_to(call.mask, x.shape)
    if not isinstance(over, Links) and not _is_listed(over):
        x, mask, links, table = _linked(x, mask, over, tables)
        found = _ranked(_Sorts(links, ranks), x, mask, (table,))
        found = _unlinked(found, over)
    else:
        found = _ranked(_Sorts(over, ranks), x, mask, tables)
    return [*found[: ranks.count]], found[-1]


def _is_listed(over: Window | Bins) -> bool:
    """Whether the cells of an output are few slices."""
    return isinstance(over, Window) and not all(dim.is_whole for dim in over.dims)


@dataclass(frozen=True)
class _Sorts(DomainKernel):
    """The kernel of values, their positions, and the number of cells."""

    ranks: Ranks

    def types(self, x: Any, mask: Any, tables: Any) -> Sequence[Any]:
        value = x.update(shape=self.over.output_shape(x.shape))
        position = value.update(dtype=position_dtype(self.over, True))
        count = self.ranks.count
        return [value] * count + [position] * count + [value.update(dtype=np.int32)]

    def run(self, platform: str, x: jax.Array, mask: Any, tables: Any) -> Arrays:
        wide = dtypes.ordered(x.dtype)
        chosen = self.plan(platform, x.dtype, Needs(one_step=True), tables)
        arrays = (x,) if mask is None else (x, mask)

        def cells(x: jax.Array, *masks: Any) -> Arrays:
            """Sorted from small to large, where the largest are asked for as well."""
            wide_x = x.astype(wide)
            keys = lax.neg(wide_x) if self.ranks.largest else wide_x
            return (keys, *masks)

        way = _by_segments if isinstance(self.over, Segments) else _by_lists

        def picked(*arrays: Any) -> Arrays:
            return way(self, chosen.steps, Lifted(arrays, cells))

        found: Arrays = stage(chosen.boundary, picked, *arrays)
        values, positions, number = found
        if self.ranks.largest:
            values = [lax.neg(value) for value in values]
        dtype = position_dtype(self.over, True)
        most = np.int32(min(int(np.iinfo(dtype).max), int(NONE)))
        short = (lax.min(p, like(most, p)).astype(dtype) for p in positions)
        return *(value.astype(x.dtype) for value in values), *short, number


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _ranked(kernel: _Sorts, x: jax.Array, mask: Any, tables: Any) -> Arrays:
    return tuple(bind(kernel, x, mask, tables, rule=_ranked))


@_ranked.defjvp
def _ranked_jvp(
    kernel: _Sorts, primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[Arrays, Arrays]:
    """The tangents at the cells that were picked."""
    x, mask, tables = primals
    count = kernel.ranks.count
    found = _ranked(kernel, x, mask, tables)
    by = _Picked(dtypes.summed(x.dtype), x.ndim - 1)
    shares = Shares(kernel.over, by, x.dtype, x.dtype)
    positions, others = found[count:-1], found[count:]
    moved = [bind_linear(shares, (p,), tables, tangents[0]) for p in positions]
    return found, (*moved, *map(zero_from_primal, others))


@dataclass(frozen=True)
class _Picked(Winner):
    """The share of a cell that was picked is 1. Windows may pick apart in a row."""

    @property
    def needs(self) -> Needs:
        return replace(super().needs, one_step=True)


def _by_lists(
    kernel: _Sorts, steps: Sequence[Any], cells: Lifted
) -> tuple[list[jax.Array], list[jax.Array], jax.Array]:
    """Of windows and neighbors: a list of the cells of each output."""

    def term(cell: Arrays, output: Arrays, place: Place) -> tuple[Pair, ...]:
        value, *valid = cell
        position = like(place.start, jax.ShapeDtypeStruct(value.shape, np.int32))
        for ok in valid:
            value = select(ok, value, np.inf)
            position = select(ok, position, NONE)
        return ((value, position),)

    if steps:
        (step,) = steps
        fills = np.asarray(np.inf), NONE
        (pairs,) = fold(step, operator.add, term, fills, [cells], boundary="none")
    else:  # windows of one cell
        pairs = term(cells.lift(*cells.arrays), (), Place(np.int32(0), 1))
    first_nan = reduce(lax.min, (select(is_nan(v), p, NONE) for v, p in pairs))
    number = reduce(
        lax.add, (lax.ne(p, like(NONE, p)).astype(np.int32) for _, p in pairs)
    )
    pairs = [(select(is_nan(v), np.inf, v), p) for v, p in pairs]
    count = len(pairs) if _are_full(kernel.over, cells) else number
    ranks = kernel.ranks.of(count, pairs[0][0].dtype)
    if len(pairs) <= MOST_BY_NETWORK:
        sorted_pairs = _network(pairs)
        picks = [_at(sorted_pairs, rank) for rank in ranks]
    else:
        stacked = [jnp.stack(each, -1) for each in zip(*pairs, strict=True)]
        found = lax.sort(stacked, num_keys=2)
        picks = [_at_last(found, rank) for rank in ranks]
    return _with_nan(picks, first_nan, number)


def _by_segments(
    kernel: _Sorts, steps: Sequence[Any], cells: Lifted
) -> tuple[list[jax.Array], list[jax.Array], jax.Array]:
    """Sorted by segment, then by value, then by position."""
    (step,), axis = steps, kernel.over.axes[0]
    value, *valid = cells.lift(*cells.arrays)
    shape = value.shape
    position = lax.broadcasted_iota(np.int32, shape, axis)
    for ok in valid:
        position = select(ok, position, NONE)
    counts = lax.ne(position, like(NONE, position))
    nans = select(lax.bitwise_and(is_nan(value), counts), position, NONE)
    ones = counts.astype(np.int32)
    folded = partial(fold, step, boundary="none")
    (first_nan,) = folded(lax.min, first_cell, NONE, [Lifted((nans,))])
    (number,) = folded(lax.add, first_cell, np.int32(0), [Lifted((ones,))])
    value = select(lax.bitwise_and(counts, lax.eq(value, value)), value, np.inf)
    keys = lax.broadcast_in_dim(step.keys, shape, (axis,))
    _, *found = lax.sort((keys, value, position), dimension=axis, num_keys=3)
    first = jnp.searchsorted(
        lax.sort(step.keys), lax.iota(np.int32, step.outs[0]), method="scan_unrolled"
    )
    start = like(along(axis, first.astype(np.int32), number.ndim), number)
    last = np.int32(step.sizes[0] - 1)
    picks = []
    for rank in kernel.ranks.of(number, value.dtype):
        index = lax.min(start + jnp.asarray(rank, np.int32), like(last, start))
        pair = [jnp.take_along_axis(a, index, axis) for a in found]
        is_cell = lax.lt(*map(partial(like, array=number), (jnp.asarray(rank), number)))
        picks.append((pair[0], select(is_cell, pair[1], NONE)))
    return _with_nan(picks, first_nan, number)


def _with_nan(
    picks: Sequence[Pair], first_nan: jax.Array, number: jax.Array
) -> tuple[list[jax.Array], list[jax.Array], jax.Array]:
    """Values and positions: those of the first NaN, or 0 and none."""
    has_nan = lax.ne(first_nan, like(NONE, first_nan))
    values, positions = [], []
    for value, position in picks:
        is_none = lax.eq(position, like(NONE, position))
        values.append(select(is_none, 0, select(has_nan, np.nan, value)))
        positions.append(select(is_none, NONE, select(has_nan, first_nan, position)))
    return values, positions, number


def _are_full(over: Domain, cells: Lifted) -> bool:
    """Whether each output has the same number of cells: no mask, no padding."""
    if len(cells.arrays) > 1 or not isinstance(over, Window):
        return False
    ends = ((np.asarray([0, dim.out - 1]), dim) for dim in over.dims)
    return all((dim.counts(o, False) == dim.window).all() for o, dim in ends)


def _network(pairs: Sequence[Pair]) -> list[Pair]:
    """Sorted by value, then by position: Batcher's odd-even merge sort.

    K. E. Batcher, "Sorting networks and their applications", 1968.
    """
    cells, count = [*pairs], len(pairs)
    size = 1 << (count - 1).bit_length()
    p = 1
    while p < size:
        k = p
        while k >= 1:
            for j in range(k % p, size - k, 2 * k):
                for i in range(min(k, size - j - k)):
                    one, other = i + j, i + j + k
                    same = one // (2 * p) == other // (2 * p)
                    if same and other < count:
                        cells[one], cells[other] = _ordered(cells[one], cells[other])
            k //= 2
        p *= 2
    return cells


def _ordered(one: Pair, other: Pair) -> tuple[Pair, Pair]:
    (v, p), (w, q) = one, other
    before = lax.bitwise_or(lax.lt(v, w), lax.bitwise_and(lax.eq(v, w), lax.lt(p, q)))
    least = lax.select(before, v, w), lax.select(before, p, q)
    most = lax.select(before, w, v), lax.select(before, q, p)
    return least, most


def _at(pairs: Sequence[Pair], rank: Any) -> Pair:
    """The pair of a rank."""
    if isinstance(rank, int):
        empty = like(0, pairs[0][0]), like(NONE, pairs[0][1])
        return pairs[rank] if rank < len(pairs) else empty
    value, position = pairs[0]
    for number, (v, p) in enumerate(pairs[1:], 1):
        is_it = lax.eq(rank, like(number, rank))
        value, position = select(is_it, v, value), select(is_it, p, position)
    return value, position


def _at_last(arrays: Sequence[jax.Array], rank: Any) -> Pair:
    """The same of arrays that are sorted along the last axis."""
    values, positions = arrays
    if isinstance(rank, int):
        if rank >= values.shape[-1]:
            shape = values.shape[:-1]
            return jnp.zeros(shape, values.dtype), jnp.full(shape, NONE)
        return values[..., rank], positions[..., rank]
    index = rank[..., None]
    value, position = (jnp.take_along_axis(a, index, -1)[..., 0] for a in arrays)
    return value, position


def _linked(
    x: jax.Array, mask: jax.Array | None, over: Window | Bins, tables: Any
) -> tuple[jax.Array, jax.Array | None, Links, jax.Array]:
    """Whole axes, or bins, as links along one axis, which holds all pooled axes."""
    first = over.axes[0]

    def flat(array: jax.Array) -> jax.Array:
        moved = jnp.moveaxis(array, over.axes, range(first, first + len(over.axes)))
        kept = moved.shape[:first], moved.shape[first + len(over.axes) :]
        return moved.reshape(*kept[0], -1, *kept[1])

    size = math.prod(over.sizes)
    linked = (first,), (AxisLinks(size, math.prod(over.outs), over.cells),)
    x, mask = flat(x), None if mask is None else flat(mask)
    if isinstance(over, Window):
        table = jnp.zeros(size, np.int32)
        return x, mask, Segments(*linked, are_sorted=True), table
    return x, mask, Neighbors(*linked), cells_of(over, tables)


def _unlinked(array: Any, over: Domain) -> Any:
    """The results along one axis as results along all pooled axes."""
    first = over.axes[0]

    def spread(array: jax.Array) -> jax.Array:
        kept = array.shape[:first], array.shape[first + 1 :]
        moved = array.reshape(*kept[0], *over.outs, *kept[1])
        return jnp.moveaxis(moved, range(first, first + len(over.axes)), over.axes)

    return jax.tree.map(spread, array)
