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

from jaxpool.engines import faults
from jaxpool.engines.elementwise import equals, minus, pair, select
from jaxpool.engines.loops import NOTHING, Arrays, Boundary, Lifted, stage
from jaxpool.engines.numbers import LONG, module_of, numbers
from jaxpool.geometry.steps import Step, is_sparse
from jaxpool.geometry.window import MOST, AxisWindow

Op: TypeAlias = Callable[[Any, Any], Any]
Scalar: TypeAlias = np.ndarray | np.generic | jax.Array
Dims: TypeAlias = Mapping[int, AxisWindow]  # by axis
# A term is an array, or a pytree of arrays.
Term: TypeAlias = Callable[[Arrays, Arrays, "Place"], Any]
Fill: TypeAlias = Scalar | tuple[Scalar, ...]
Spans: TypeAlias = dict[int, range]  # by axis
Cell: TypeAlias = tuple[int, ...]  # the number of a cell in its window, for each axis
Ranges: TypeAlias = tuple[range, ...]  # for each axis

_ZERO = np.zeros(())


class Place(NamedTuple):
    """Where a cell, or a run of cells, lies in an output.

    Its positions, in the row-major order of the whole window, are `length` from `start`
    on. On the way back these may be arrays, over the cells of a block.
    """

    start: Any
    length: Any

    def has(self, position: jax.Array) -> jax.Array:
        """Whether a position of the window lies in the run."""
        if isinstance(self.length, int) and self.length == 1:
            return equals(position, self.start)
        return self.inside(position)[0]

    def inside(self, position: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Whether a position of the window lies in the run, and where in it."""
        # What is before the run wraps to large numbers.
        inner = minus(position, self.start)
        return lax.le(*pair(inner, self.length - 1)), inner


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
    most_pads: int | None = None,
    dtype: np.dtype | None = None,
) -> Arrays:
    """For each output, `op` over its cells of `term(cell, output, place)`.

    `sources` are the runs of cells that the step combines, and single cells if it has a
    rest. `fill` stands for cells in the padding: a number for each array of a pytree,
    in turn.

    Cells that the same windows have are combined before they are padded. XLA branches
    at each pad, and vectorises a loop only if there are few: with `most_pads`, more of
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
                return term(cell, output, Place(part.start(j), part.length(j)))

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
    loops = _loops(regions, step.dims, most_pads)
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
    most_pads: int | None = None,
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
    blocks = _blocks(step)
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
            own = tuple(pad(array, _ZERO, around) for array in own)
        own = tuple(lax.expand_dims(array, along) for array in own)
        split_up = _in_blocks(blocks, *cells)

        def term_at(number: Cell, output: Arrays, cell: Arrays) -> Any:
            spans, rank = _spans(blocks, number), own[0].ndim
            if len(blocks) > 1:
                found = term(cell, output, _place(step, blocks, number, rank, {}))
                return select(_is_in(blocks, spans, rank), found, 0) if spans else found
            # XLA:CPU vectorises more loops if only the cells in the window are read.
            place = _place(step, blocks, number, rank, spans)
            read = {axis: (span.start, len(span), 1) for axis, span in spans.items()}
            found = term(tuple(cut(array, read) for array in cell), output, place)
            return _padded_to_blocks(blocks, spans, found)

        pieces = []
        for _, js, windows in regions:
            piece = _combined(op, term_at, covers, (js, windows), own, split_up)
            pieces.append(_padded(piece, _ZERO, covers, windows))
        result = merged(reduce(op, pieces))
        # Also the cells behind the last window, where it is known how many there are.
        behind = {
            axis: (0, cells[0].shape[axis] - result.shape[axis])
            for axis in step.axes
            if cells
        }
        return pad(result, _ZERO, behind)

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
    most = most_pads if len(each) == 1 else None  # several are few enough
    loops = _loops(regions, each, most)
    return _run(loops, op, combined, (outputs, cells), finish, boundary)


class _Block(NamedTuple):
    """An axis of the input in blocks of `stride` cells.

    The axis `at` has the blocks, the axis `along` the cells of each; blocks of one cell
    need none.
    """

    axis: int
    at: int
    along: int | None
    dim: AxisWindow


def _blocks(step: Step) -> list[_Block]:
    """The axes of a step in blocks."""
    blocks, more = list[_Block](), 0
    for axis, dim in dims_of(step).items():
        at = axis + more
        more += dim.stride > 1
        blocks.append(_Block(axis, at, at + 1 if dim.stride > 1 else None, dim))
    return blocks


def _filled(dim: AxisWindow) -> AxisWindow:
    """The same windows over cells that hold the padding."""
    return replace(dim, size=dim.low + dim.size + dim.behind, low=0)


def dims_of(step: Step) -> Dims:
    """The geometry of each axis of a step."""
    return dict(zip(step.axes, step.dims, strict=True))


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
    regions: Sequence[_Region], dims: Sequence[AxisWindow], most_pads: int | None
) -> list[list[_Region]]:
    """The regions, with so few in each loop that are padded."""
    lengths = [dim.out for dim in dims]
    padded = [r for r in regions if [len(windows) for windows in r.windows] != lengths]
    if most_pads is None or len(padded) <= most_pads:
        return [list(regions)]
    loops = math.ceil(len(padded) / most_pads)
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

    def loop(regions: Sequence[_Region], *arrays: Any) -> Any:
        given = iter(arrays)
        lifted = (
            one.lift(*itertools.islice(given, count))
            for one, count in zip(inputs, counts, strict=True)
        )
        result = combined(regions, *lifted)
        return op(next(given), result) if regions is not loops[0] else result

    def last(*arrays: Any) -> Arrays:
        count = len(arrays) - len(finish.arrays)
        return finish.lift(loop(loops[-1], *arrays[:count]), *arrays[count:])

    before: Arrays = ()
    for regions in loops[:-1]:
        before = (stage(boundary, partial(loop, regions), *arrays, *before),)
    results: Arrays = stage(boundary, last, *arrays, *before, *finish.arrays)
    return results


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


def of_leaves(
    function: Callable[[jax.Array, Scalar], jax.Array], piece: Any, fill: Fill
) -> Any:
    """`function(array, fill)` of each array of a pytree; several fills take turns."""
    leaves, tree = jax.tree.flatten(piece)
    fills = itertools.cycle(fill if isinstance(fill, tuple) else (fill,))
    return jax.tree.unflatten(tree, map(function, leaves, fills))


def _padded(piece: Any, fill: Fill, dims: Dims, windows: Ranges) -> Any:
    """The piece with `fill` for the windows that have no cell of it."""
    around = {
        axis: (seeing.start, dim.out - seeing.stop)
        for (axis, dim), seeing in zip(dims.items(), windows, strict=True)
    }
    return of_leaves(partial(pad, around=around), piece, fill)


def seen(array: jax.Array, dims: Dims, j: Cell, windows: Ranges) -> jax.Array:
    """One cell of each of `windows`, which all have it in the input."""
    places = {}
    for (axis, dim), number, ws in zip(dims.items(), j, windows, strict=True):
        start = ws.start * dim.stride + number * dim.dilation - dim.low
        places[axis] = start, len(ws), dim.stride
    return cut(array, places)


def of_windows(array: jax.Array, dims: Dims, windows: Ranges) -> jax.Array:
    """What an array with one cell for each window says of some of them."""
    places = {
        axis: (ws.start, len(ws), 1) for axis, ws in zip(dims, windows, strict=True)
    }
    return cut(array, places)


def cut(array: jax.Array, places: Mapping[int, tuple[int, int, int]]) -> jax.Array:
    """The cells `(start, length, stride)` of each of some axes."""
    starts, stops = [0] * array.ndim, list(array.shape)
    strides = [1] * array.ndim
    for axis, (start, length, stride) in places.items():
        starts[axis] = start if length else 0
        strides[axis] = faults.stride_of(stride, length)
        stops[axis] = start + (length - 1) * stride + 1 if length else 0
    if not any(starts) and tuple(stops) == array.shape and set(strides) == {1}:
        return array
    return lax.slice(array, starts, stops, strides)


def pad(
    array: jax.Array,
    fill: Scalar,
    around: Mapping[int, tuple[int, int]],
    between: int = 0,
) -> jax.Array:
    """Pad some axes with `fill`; a negative amount crops."""
    config = [(0, 0, 0)] * array.ndim
    for axis, (low, high) in around.items():
        config[axis] = low, high, between
    return faults.pad(array, fill, config)


def with_next(array: jax.Array, axis: int) -> jax.Array:
    """Merge an axis with the one after it."""
    shape = array.shape
    both = shape[axis] * shape[axis + 1]
    return lax.reshape(array, (*shape[:axis], both, *shape[axis + 2 :]))


def split(array: jax.Array, axis: int, length: int) -> jax.Array:
    """Make two axes of one: its parts of some length, and what is in each."""
    shape = array.shape
    parts = shape[axis] // length
    return lax.reshape(array, (*shape[:axis], parts, length, *shape[axis + 1 :]))


def _spans(blocks: Sequence[_Block], number: Cell) -> Spans:
    """Which cells of each block the `number`-th of its windows has, if not all."""
    spans = {}
    for (_, _, along, dim), i in zip(blocks, number, strict=True):
        first = dim.covering()[1] - i * dim.stride
        ends = (min(max(j - first, 0), dim.stride) for j in (0, dim.window))
        span = range(*ends)
        if along is not None and len(span) < dim.stride:
            spans[along] = span
    return spans


def _place(
    step: Step, blocks: Sequence[_Block], number: Cell, rank: int, spans: Spans
) -> Place:
    """The `number`-th of the windows that cover the blocks, seen from their cells.

    Or from some of these cells; those that are not in the window are anywhere in it.
    """
    start: Any = np.zeros((1,) * rank, np.int32)
    length: Any = min(step.last, MOST)
    for block, weight, i in zip(blocks, step.weights, number, strict=True):
        dim, cells = block.dim, range(block.dim.stride)
        if block.along is not None:
            cells = spans.get(block.along, cells)
        first = dim.covering()[1] - i * dim.stride + cells.start
        js = _along(blocks, block, len(cells), rank) + np.int32(first)
        js = js.clip(0, dim.window - 1)
        start = start + js * min(weight, MOST)
        if weight != step.last and len(blocks) == 1:  # runs of several cells
            length = module_of(js).where(
                js == dim.window - 1, min(step.last, MOST), min(weight, MOST)
            )
    return Place(start, length)


def _along(blocks: Sequence[_Block], block: _Block, count: int, rank: int) -> Any:
    """0, 1 and so on along the cells of a block."""
    each = numbers(count).astype(np.int32)
    if math.prod(other.dim.stride for other in blocks) > LONG:
        each = jnp.asarray(each)  # no constant as long as a window
    return each.reshape([-1 if axis == block.along else 1 for axis in range(rank)])


def _is_in(blocks: Sequence[_Block], spans: Spans, rank: int) -> Any:
    """Which cells of the blocks are in the spans."""
    is_in: Any = np.True_
    for block in blocks:
        if block.along is not None and block.along in spans:
            span = spans[block.along]
            each = _along(blocks, block, block.dim.stride, rank)
            is_in = is_in & (each >= span.start) & (each < span.stop)
    return is_in


def _padded_to_blocks(
    blocks: Sequence[_Block], spans: Spans, term: jax.Array
) -> jax.Array:
    """A term of the cells in the spans, 0 for the other cells of each block."""
    shape, around = list(term.shape), {}
    for block in blocks:
        if block.along is not None and block.along in spans:
            span = spans[block.along]
            shape[block.along] = len(span)
            around[block.along] = span.start, block.dim.stride - span.stop
    return pad(jnp.broadcast_to(term, shape), _ZERO, around) if around else term


def _at_stride_one(step: Step) -> tuple[Step, Callable[..., Arrays]]:
    """The step over windows that are moved apart, and what moves them."""
    dims = tuple(replace(d, stride=1, out=d.out * d.stride) for d in step.dims)

    def moved(array: jax.Array) -> jax.Array:
        for axis, dim in dims_of(step).items():
            more = dim.stride - 1
            array = pad(array, _ZERO, {axis: (0, more)}, more) if more else array
        return array

    def move(*arrays: jax.Array) -> Arrays:
        return tuple(map(moved, arrays))

    return replace(step, dims=dims), move


def _in_blocks(blocks: Sequence[_Block], *arrays: jax.Array) -> Arrays:
    """The cells of a step in the blocks that the same windows cover."""
    for _, at, along, dim in blocks:
        covering, _, before = dim.covering()
        around = {at: (before, covering.out * dim.stride - before - dim.size)}
        cells = (pad(cut(a, {at: (0, dim.size, 1)}), _ZERO, around) for a in arrays)
        arrays = tuple(split(a, at, dim.stride) if along else a for a in cells)
    return arrays
