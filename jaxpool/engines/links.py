"""The engine of segments and neighbors: which cell an output reads is in an array.

A link joins a cell and an output. `fold` and `fold_back` compute one number for each
link, and reduce the links of each output, or of each cell. On a CPU, links in any order
are reduced by a scatter, which is serial there. Elsewhere they are sorted, reduced by a
segmented scan, and read at the end of each segment. That needs no scatter and no
atomics, so its bits repeat from run to run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool.engines.cells import ZERO, along, take
from jaxpool.engines.contract import AxisStep, Fill, Op, Place, Term, of_leaves
from jaxpool.engines.elementwise import select
from jaxpool.engines.loops import NOTHING, Arrays, Boundary, Lifted
from jaxpool.geometry.links import Links, Neighbors

_SCATTERS: dict[Any, Any] = {
    lax.add: lax.scatter_add,
    lax.max: lax.scatter_max,
    lax.min: lax.scatter_min,
}


@dataclass(frozen=True, eq=False)
class LinkStep(AxisStep):
    """`keys` are numbers of outputs, or of cells.

    For segments, the output of each cell; for neighbors, the cells of each output.
    A number beyond the others stands for no link.
    """

    over: Links
    keys: jax.Array
    scatters: bool  # as the platform is a CPU


def steps_of(over: Links, tables: tuple[jax.Array], scatters: bool) -> tuple[LinkStep]:
    """The one step; `tables` has the array of links."""
    (numbers,) = tables
    keys = numbers
    if not scatters:
        # Numbers below 0 stay in front, where sorted numbers have them.
        keys = lax.clamp(np.int32(-1), numbers, np.int32(over.most_numbers))
    geometry = (over.axis,), (over.dim.size,), (over.dim.out,)
    return (LinkStep(*geometry, over, keys.reshape(-1), scatters),)


def fold(
    step: LinkStep,
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
    """For each output, `op` over its cells of `term(cell, output, place)`; one source.

    `fill` is the result where an output has no cell.
    """
    (cells,), axis = sources, step.over.axis

    def term_at(cell: Arrays, own: Arrays, place: Place) -> Any:
        value = term(cells.lift(*cell), outputs.lift(*own), place)
        return value if dtype is None else value.astype(dtype)

    def by_segment(cell: Arrays, own: Arrays) -> Any:
        own = tuple(_at(array, axis, step.keys) for array in own)
        place = along(axis, lax.iota(np.int32, len(step.keys)), cell[0].ndim)
        return _reduced(step, op, term_at(cell, own, Place(place, 1)), fill)

    def by_neighbor(cell: Arrays, own: Arrays) -> Any:
        keys = step.keys.reshape(step.over.dim.out, -1)

        def value(j: int) -> Any:
            read = tuple(_at(array, axis, keys[:, j]) for array in cell)
            is_link = along(axis, _are_links(step, keys[:, j]), cell[0].ndim)
            one = term_at(read, own, Place(np.int32(j), 1))
            return of_leaves(partial(select, is_link), one, fill)

        return reduce(op, map(value, range(keys.shape[1])))

    way = by_neighbor if isinstance(step.over, Neighbors) else by_segment
    return _staged(way, cells.arrays, outputs.arrays, finish, boundary)


def fold_back(
    step: LinkStep,
    op: Op,
    term: Term,
    outputs: Lifted,
    cells: Lifted = NOTHING,
    *,
    boundary: Boundary,
    finish: Lifted = NOTHING,
    few_pads: bool = False,
) -> Arrays:
    """For each cell, `op` over the outputs that read it of `term(cell, output, place)`.

    The result is 0 where no output reads a cell.
    """
    axis = step.over.axis

    def term_at(cell: Arrays, own: Arrays, place: Any) -> Any:
        start = along(axis, place, own[0].ndim)
        return term(cells.lift(*cell), outputs.lift(*own), Place(start, 1))

    def by_segment(own: Arrays, cell: Arrays) -> Any:
        own = tuple(_at(array, axis, step.keys) for array in own)
        value = term_at(cell, own, lax.iota(np.int32, len(step.keys)))
        are = along(axis, _are_links(step, step.keys), value.ndim)
        return select(are, value, 0)

    def by_neighbor(own: Arrays, cell: Arrays) -> Any:
        link = lax.iota(np.int32, len(step.keys))
        count = np.int32(len(step.keys) // step.over.dim.out)
        own = tuple(_at(array, axis, link // count) for array in own)
        cell = tuple(_at(array, axis, step.keys) for array in cell)
        return _reduced(step, op, term_at(cell, own, link % count), ZERO)

    way = by_neighbor if isinstance(step.over, Neighbors) else by_segment
    return _staged(way, outputs.arrays, cells.arrays, finish, boundary)


def _staged(
    way: Any, read_from: Arrays, own: Arrays, finish: Lifted, boundary: Boundary
) -> Arrays:
    """`way(read_from, own)`, finished, in one stage."""
    count = len(read_from)

    def run(*arrays: Any) -> Arrays:
        return (way(arrays[:count], arrays[count:]),)

    return Lifted((*read_from, *own), run).finished(finish, boundary)


def _at(array: jax.Array, axis: int, keys: jax.Array) -> jax.Array:
    """The entries at some keys. Keys beyond the axis give an entry of no meaning."""
    last = np.int32(array.shape[axis] - 1)
    return take(array, axis, lax.clamp(np.int32(0), keys, last))


def _are_links(step: LinkStep, keys: jax.Array) -> jax.Array:
    """Which keys are links."""
    return (keys >= 0) & (keys < np.int32(step.over.most_numbers))


def _reduced(step: LinkStep, op: Op, values: Any, fill: Fill) -> Any:
    """`op` over the values, along the axis, that have the same key."""
    axis, keys = step.over.axis, step.keys
    if op is lax.bitwise_or:
        numbers = values.astype(np.uint8)
        return _reduced(step, lax.max, numbers, np.uint8(0)).astype(np.bool_)
    if step.scatters and op in _SCATTERS:
        return _scattered(step, _SCATTERS[op], values, fill)
    if not getattr(step.over, "are_sorted", False):
        keys, order = lax.sort((keys, lax.iota(np.int32, len(keys))), num_keys=1)
        values = jax.tree.map(partial(take, axis=axis, places=order), values)
    return _scanned(step, op, keys, values, fill)


def _scattered(step: LinkStep, scatter: Any, values: jax.Array, fill: Any) -> jax.Array:
    """The same by a scatter, which leaves out keys that are out of bounds.

    Floats are added up in parts of 8192 links or more: a sum that grows link by link
    loses digits, of a million equal ones a hundredth.
    """
    axis, count, keys = step.over.axis, step.over.most_numbers, step.keys
    is_sum = scatter is lax.scatter_add and jnp.issubdtype(values.dtype, jnp.inexact)
    bits = max(13, (32 * count).bit_length())  # sums together: 1/32 of the links
    parts = -(-len(keys) // 2**bits) if is_sum else 1
    if parts < 8:
        parts = 1  # where it takes time, and saves few digits
    else:
        part = lax.iota(np.int32, len(keys)) >> np.int32(bits)
        own = part * np.int32(count) + keys
        keys = select(_are_links(step, keys), own, np.int32(-1))
    shape = *values.shape[:axis], parts * count, *values.shape[axis + 1 :]
    numbers = lax.ScatterDimensionNumbers(
        update_window_dims=tuple(range(1, values.ndim)),
        inserted_window_dims=(axis,),
        scatter_dims_to_operand_dims=(axis,),
    )
    found = scatter(
        jnp.full(shape, fill, values.dtype),
        keys[:, None],
        jnp.moveaxis(values, axis, 0),
        numbers,
        mode=lax.GatherScatterMode.FILL_OR_DROP,
    )
    if parts == 1:
        return found
    apart = found.reshape(*shape[:axis], parts, count, *shape[axis + 1 :])
    return lax.reduce_sum(apart, (axis,))


def lengths(over: Links, tables: tuple[jax.Array]) -> jax.Array:
    """How many cells each sorted segment has."""
    begin, end = _ends(*tables, over.dim.out)
    return end - begin


def _ends(keys: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Where each of `count` numbers begins and ends in sorted keys."""
    numbers = lax.iota(np.int32, count + 1)
    found = jnp.searchsorted(keys, numbers, method="scan_unrolled").astype(np.int32)
    return found[:-1], found[1:]


def _scanned(step: LinkStep, op: Op, keys: jax.Array, values: Any, fill: Fill) -> Any:
    """The same for sorted keys, by a scan that starts anew where a key does."""
    axis, rank = step.over.axis, jax.tree.leaves(values)[0].ndim
    is_first = jnp.concatenate([np.ones(1, bool), keys[1:] != keys[:-1]])

    def joined(one: Any, other: Any) -> Any:
        (began, value), (begins, more) = one, other
        both = jax.tree.map(partial(select, begins), more, op(value, more))
        return began | begins, both

    flags = along(axis, is_first, rank)
    _, scan = lax.associative_scan(joined, (flags, values), axis=axis)
    first, end = _ends(keys, step.over.most_numbers)
    found = jax.tree.map(lambda a: _at(a, axis, end - np.int32(1)), scan)
    return of_leaves(partial(select, along(axis, end > first, rank)), found, fill)
