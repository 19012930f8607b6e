"""The engine of `slices`: cells to outputs, and back, one strided slice per cell.

`fold` and `fold_back` are all that it can do. They combine terms; a term is a function
of a cell, an output and the place of the cell in it. Nothing here knows an aggregation.
There is no scatter, no sort, nothing whose order of evaluation could vary.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool.engines.blocks import Cell, blocks_of, in_blocks, terms_of
from jaxpool.engines.cells import ZERO, cut, pad, with_next
from jaxpool.engines.contract import Fill, Op, Place, Term, of_leaves
from jaxpool.engines.loops import NOTHING, Arrays, Boundary, Lifted, stage
from jaxpool.geometry.steps import Step, is_sparse
from jaxpool.geometry.window import AxisWindow

Dims: TypeAlias = Mapping[int, AxisWindow]  # by axis
Ranges: TypeAlias = tuple[range, ...]  # for each axis

# Pads in one loop, where an aggregation asks for few.
PADS_A_LOOP = 4


def fold(
    step: Step,
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
    """For each output, `op` over its cells of `term(cell, output, place)`.

    `sources` are the runs of cells that the step combines, and single cells if it has a
    rest. `fill` stands for cells in the padding: a number for each array of a pytree,
    in turn.

    Cells that the same windows have are combined before they are padded. XLA branches
    at each pad, and vectorises a loop only if there are few: with `few_pads`, more of
    them go to further loops. Each loop writes `dtype`, if that is given. The last one
    applies `finish` to what is combined, and to arrays of its own.
    """

    def combined(regions: Sequence[_Region], *arrays: Arrays) -> Any:
        *states, own = arrays
        pieces = []
        for number, js, windows in regions:
            part = step.pieces[number]

            def term_at(
                j: Cell, cell: Arrays, output: Arrays, part: Step = part
            ) -> Any:
                return term(cell, output, Place(part.start(j), part.run_length(j)))

            dims = dims_of(part)
            piece = _combined(op, term_at, dims, (js, windows), states[number], own)
            pieces.append(_padded(piece, fill, dims, windows))
        result = reduce(op, pieces)
        return result if dtype is None else lax.convert_element_type(result, dtype)

    regions = [
        _Region(number, js, windows)
        for number, part in enumerate(step.pieces)
        for js, windows in _regions(part.dims)
    ]
    loops = _loops(regions, step.dims, few_pads)
    return _run(loops, op, combined, (*sources, outputs), finish, boundary)


def fold_back(
    step: Step,
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

    The adjoint of `fold`, if `op` adds; of a step without a rest. `term` is called for
    blocks of `stride` cells, which the same windows cover: an axis along the blocks
    comes after each axis with a stride. Where a window has some cells of a block only,
    the terms of the others are 0.

    On a CPU the terms are padded, elsewhere the outputs are, so that all cells look at
    as many windows, in one loop.
    """
    if is_sparse(step.dims):
        step, move = _at_stride_one(step)
        outputs = Lifted(stage(boundary, outputs.then(move).lift, *outputs.arrays))
    blocks = blocks_of(step)
    covers = {block.at: block.dim.covering()[0] for block in blocks}
    along = [block.along for block in blocks if block.along is not None]
    around = {
        block.axis: (dim.low, dim.behind)
        for block, dim in zip(blocks, covers.values(), strict=True)
    }
    if boundary != "call":
        covers = {axis: _filled(dim) for axis, dim in covers.items()}

    def combined(regions: Sequence[_Region], own: Arrays, cells: Arrays) -> Any:
        if boundary != "call":
            own = tuple(pad(array, ZERO, around) for array in own)
        own = tuple(lax.expand_dims(array, along) for array in own)
        split_up = in_blocks(blocks, *cells)
        terms = terms_of(step, own[0].ndim)

        def term_at(number: Cell, output: Arrays, cell: Arrays) -> Any:
            return terms.of(term, number, output, cell)

        pieces = []
        for _, js, windows in regions:
            piece = _combined(op, term_at, covers, (js, windows), own, split_up)
            pieces.append(_padded(piece, ZERO, covers, windows))
        result = merged(reduce(op, pieces))
        # Also the cells behind the last window, where it is known how many there are.
        behind = {
            axis: (0, cells[0].shape[axis] - result.shape[axis])
            for axis in step.axes
            if cells
        }
        return pad(result, ZERO, behind)

    def merged(array: jax.Array) -> jax.Array:
        full = list(array.shape)
        for block in blocks:
            if block.along is not None:
                full[block.along] = block.dim.stride
        array = jnp.broadcast_to(array, full)
        if along and boundary == "barrier":
            # A TPU's compiler would open the blocks before it fills them.
            array = lax.optimization_barrier(array)
        for axis in reversed(along):
            array = with_next(array, axis - 1)
        cells = {b.axis: (b.dim.covering()[2], b.dim.size, 1) for b in blocks}
        return cut(array, cells)

    each = [*covers.values()]
    regions = [_Region(0, js, windows) for js, windows in _regions(each, True)]
    few = few_pads and len(each) == 1  # along several axes there are few enough
    loops = _loops(regions, each, few)
    return _run(loops, op, combined, (outputs, cells), finish, boundary)


def dims_of(step: Step) -> Dims:
    """The geometry of each axis of a step."""
    return dict(zip(step.axes, step.dims, strict=True))


def _filled(dim: AxisWindow) -> AxisWindow:
    """The same windows over cells that hold the padding."""
    return replace(dim, size=dim.low + dim.size + dim.behind, low=0)


class _Region(NamedTuple):
    """Cells that the same windows have, by their numbers in a window along each axis.

    They are those of one of the pieces of a step.
    """

    piece: int
    js: tuple[range, ...]
    windows: tuple[range, ...]


def _regions(
    dims: Sequence[AxisWindow], widest_first: bool = False
) -> Iterator[tuple[Ranges, Ranges]]:
    """The cells that the same windows have, with these windows.

    On an axis, those that most windows have may come first: XLA:CPU vectorises more
    loops if the first term is not padded.
    """
    each = [dim.regions() for dim in dims]
    if widest_first:
        each = [tuple(sorted(one, key=lambda r: -len(r[1]))) for one in each]
    for region in itertools.product(*each):
        js, windows = zip(*region, strict=True)
        yield js, windows


def _loops(
    regions: Sequence[_Region], dims: Sequence[AxisWindow], few_pads: bool
) -> list[list[_Region]]:
    """The regions, with so few in each loop that are padded."""
    lengths = [dim.out for dim in dims]
    padded = [r for r in regions if [len(windows) for windows in r.windows] != lengths]
    if not few_pads or len(padded) <= PADS_A_LOOP:
        return [list(regions)]
    loops = math.ceil(len(padded) / PADS_A_LOOP)
    first, *further = (padded[i::loops] for i in range(loops))
    return [[r for r in regions if r not in padded] + first, *further]


def _run(
    loops: Sequence[Sequence[_Region]],
    op: Op,
    combined: Callable[..., Any],
    inputs: Sequence[Lifted],
    finish: Lifted,
    boundary: Boundary,
) -> Arrays:
    """Combine the regions of one loop after the other; finish the last."""
    counts = [len(lifted.arrays) for lifted in inputs]
    arrays = tuple(itertools.chain(*(lifted.arrays for lifted in inputs)))

    def loop(regions: Sequence[_Region], *arrays: Any) -> Arrays:
        given = iter(arrays)
        lifted = (
            one.lift(*itertools.islice(given, count))
            for one, count in zip(inputs, counts, strict=True)
        )
        result = combined(regions, *lifted)
        return (op(next(given), result) if regions is not loops[0] else result,)

    before: Arrays = ()
    for regions in loops[:-1]:
        before = stage(boundary, partial(loop, regions), *arrays, *before)
    last = Lifted((*arrays, *before), partial(loop, loops[-1]))
    return last.finished(finish, boundary)


def _combined(
    op: Op,
    term_at: Callable[..., Any],
    dims: Dims,
    region: tuple[Ranges, Ranges],
    cells: Arrays,
    outputs: Arrays,
) -> Any:
    """The terms of the cells of a region, combined for its windows."""
    js, windows = region
    own = tuple(of_windows(array, dims, windows) for array in outputs)
    pieces = []
    for j in itertools.product(*js):
        cell = tuple(seen(array, dims, j, windows) for array in cells)
        pieces.append(term_at(j, cell, own))
    return reduce(op, pieces)


def _padded(piece: Any, fill: Fill, dims: Dims, windows: Ranges) -> Any:
    """The piece with `fill` for the windows that have no cell of it."""
    around = {
        axis: (seeing.start, dim.out - seeing.stop)
        for (axis, dim), seeing in zip(dims.items(), windows, strict=True)
    }
    return of_leaves(partial(pad, around=around), piece, fill)


def seen(array: jax.Array, dims: Dims, j: Cell, windows: Ranges) -> jax.Array:
    """Cell `j` of each of `windows`; for all of them it lies inside the input."""
    places = {}
    for (axis, dim), number, ws in zip(dims.items(), j, windows, strict=True):
        start = ws.start * dim.stride + number * dim.dilation - dim.low
        places[axis] = start, len(ws), dim.stride
    return cut(array, places)


def of_windows(array: jax.Array, dims: Dims, windows: Ranges) -> jax.Array:
    """The entries of some windows, of an array with one entry for each window."""
    places = {
        axis: (ws.start, len(ws), 1) for axis, ws in zip(dims, windows, strict=True)
    }
    return cut(array, places)


def _at_stride_one(step: Step) -> tuple[Step, Callable[..., Arrays]]:
    """The step over windows that are moved apart, and what moves them."""
    dims = tuple(replace(d, stride=1, out=d.out * d.stride) for d in step.dims)

    def moved(array: jax.Array) -> jax.Array:
        for axis, dim in dims_of(step).items():
            more = dim.stride - 1
            array = pad(array, ZERO, {axis: (0, more)}, more) if more else array
        return array

    def move(*arrays: jax.Array) -> Arrays:
        return tuple(map(moved, arrays))

    return replace(step, dims=dims), move
