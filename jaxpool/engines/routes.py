"""From windows back to cells: the adjoints of taking a winner, and of a sum.

Everything is slices, pads, selects and additions: no scatter, no sort, nothing whose
order of evaluation could vary.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool.engines import symbolic
from jaxpool.engines.lowering import doubles
from jaxpool.engines.numbers import Numbers, module_of, numbers
from jaxpool.engines.slices import (
    Cell,
    Dims,
    Op,
    Windows,
    cut,
    dims_of,
    fold,
    of_windows,
    pad,
    reduce_steps,
    seen,
    select,
    split,
    with_next,
)
from jaxpool.engines.stages import Arrays, Deferred, as_they_are, ready, stage
from jaxpool.geometry.steps import (
    MOST_AT_ONCE,
    PADS_A_LOOP,
    Step,
    backward_steps,
    forward_steps,
    is_sparse,
    spread_steps,
)
from jaxpool.geometry.window import MOST, Window

_ZERO = np.zeros(())


def route(g: Deferred, position: jax.Array, window: Window, doubling: bool) -> Deferred:
    """Send the cotangent of each window to the cell at `position` inside it.

    The result has the shape of the input. Where a window's cotangent is not zero, its
    position must be that of a unique winner: two windows that pick cells of one row
    pick the same cell of it. A window whose position is beyond its cells has none.
    """
    if window.is_symbolic:
        return g.beside(ready(position)).then(_alone(symbolic.route, window))
    # Each step but the last is one stage, for the order in which XLA takes them.
    known, lift = (*g.arrays, position), g.function
    # XLA:CPU does not vectorise selects from strided cells of an array's last axis.
    steps = backward_steps(window, doubling, alone=position.ndim - 1)
    for step in steps[:-1]:
        known = stage(partial(_routed, step, lift), *known)
        lift = as_they_are
    (*arrays, position) = known
    g, places = Deferred(lift, tuple(arrays)), ready(position)
    if steps:
        g, _ = _route_step(steps[-1], g, places)
    else:
        g = g.beside(places).then(_first)
    return g.then(partial(_uncropped, window))


def _alone(function: Callable[..., jax.Array], window: Window) -> Callable[..., Arrays]:
    """One of the ways through symbolic sizes, as a step that has one result."""
    return lambda *arrays: (function(window, *arrays),)


def _routed(step: Step, lift: Callable[..., Arrays], *known: jax.Array) -> Arrays:
    """Cotangents and positions after a step."""
    g, places = _route_step(step, Deferred(lift, known[:-1]), ready(known[-1]))
    return (*g.now(), *places.now())


def _route_step(step: Step, g: Deferred, places: Deferred) -> tuple[Deferred, Deferred]:
    """For each run the sum of the cotangents it won, and its winner's position."""
    if is_sparse(step.dims):
        step, write = _at_stride_one(step)
        g, places = g.then(write).stored(), places.then(write).stored()
    arrived = _undo(step, lax.add, _won, g.beside(places), PADS_A_LOOP)
    return arrived, _inner_places(step, places)


def _inner_places(step: Step, places: Deferred) -> Deferred:
    """For each run its winner's position."""
    return _undo(step, lax.max, _inner, places, PADS_A_LOOP)


def read(t: Deferred, position: jax.Array, window: Window, doubling: bool) -> Deferred:
    """Read the cell at `position` inside each window: the transpose of `route`."""
    if window.is_symbolic:
        return t.beside(ready(position)).then(_alone(symbolic.read, window))
    steps = backward_steps(window, doubling, alone=position.ndim - 1)
    places = [position]
    for step in steps[:-1]:
        known = ready(places[-1])
        if is_sparse(step.dims):
            step, write = _at_stride_one(step)
            known = known.then(write).stored()
        places += _inner_places(step, known).now()
    if not steps:
        return t.beside(ready(position)).then(_first)
    t = t.then(partial(_cropped, steps))
    for step in reversed(steps):
        t = _read_step(step, t, ready(places.pop())).stored()
    return t


def _cropped(steps: Sequence[Step], t: jax.Array) -> Arrays:
    """Without the cells behind the last window: the transpose of `_uncropped`."""
    pairs = (zip(step.axes, step.dims, strict=True) for step in steps)
    # The last step back along an axis is the one that reads cells.
    cells = {axis: (0, dim.size, 1) for step in pairs for axis, dim in step}
    return (cut(t, cells),)


def _first(t: jax.Array, place: jax.Array) -> Arrays:
    """The only cell of each window, unless it takes no part."""
    return (select(place == 0, t, 0),)


def _read_step(step: Step, t: Deferred, places: Deferred) -> Deferred:
    """For each window what is read from the run that has its winner."""
    dims = dims_of(step)

    def told(cell: Cell, windows: Windows, t: jax.Array, place: jax.Array) -> jax.Array:
        place = of_windows(place, dims, windows)
        inner = place - jnp.asarray(step.start(cell), place.dtype)
        # What is before the run has wrapped to large numbers.
        wins = inner <= jnp.asarray(step.length(cell) - 1, place.dtype)
        return select(wins, seen(t, dims, cell, windows), 0)

    return fold(lax.add, told, _ZERO, dims, t.beside(places), PADS_A_LOOP)


def spread(g: Deferred, window: Window, doubling: bool) -> Deferred:
    """Send the cotangent of each window to every cell of it: the adjoint of a sum."""
    if window.is_symbolic:
        return g.then(_alone(symbolic.spread, window))
    copies = {
        axis: min(dim.size, dim.window - dim.low)
        for axis, dim in window.pairs()
        if dim.out == 1 and dim.dilation == 1
    }
    pairs = [(axis, dim) for axis, dim in window.pairs() if axis not in copies]
    others = Window(*zip(*pairs, strict=True)) if pairs else None
    for number, step in enumerate(spread_steps(others) if others else ()):
        g = g.stored() if number else g
        many = any(d.window > MOST_AT_ONCE for d in _coverings(step).values())
        is_long = many or (doubling and any(map(doubles, step.dims)))
        if is_sparse(step.dims) or (is_long and step.dims[0].stride > 1):
            step, write = _at_stride_one(step)
            g = g.then(write).stored()
        if is_long:
            sums = Window(step.axes, tuple(_coverings(step).values()))
            g = reduce_steps(lax.add, g, _ZERO, forward_steps(sums, doubling))
        else:
            g = _undo(step, lax.add, _covered, g)
    return g.then(partial(_copied, copies)).then(partial(_uncropped, window))


def _copied(copies: Mapping[int, int], g: jax.Array) -> Arrays:
    """Each cell of some axes, which have one, so many times."""
    shape = [copies.get(axis, size) for axis, size in enumerate(g.shape)]
    return (jnp.broadcast_to(g, shape),)


def add_back(
    step: Step, tell: Callable[..., jax.Array], windows: Deferred, cells: Deferred
) -> Deferred:
    """For each cell of a step the sum of what `tell` says of the windows that cover it.

    `tell(place, *windows, *cells)` is asked about arrays with one element for each
    window, and one for each cell, in blocks.
    """
    if is_sparse(step.dims):
        step, write = _at_stride_one(step)
        windows = windows.then(write).stored()
    blocks = cells.then(partial(_in_blocks, step))
    arrived = _undo(step, lax.add, tell, windows, blocks=blocks)
    shape = jax.eval_shape(cells.function, *cells.arrays)[0].shape
    beyond = {
        axis: (0, shape[axis] - dim.size)
        for axis, dim in zip(step.axes, step.dims, strict=True)
    }
    return arrived.then(lambda cells: (pad(cells, _ZERO, beyond),))


class Place(NamedTuple):
    """What the cells of a block are in one of the windows that cover them.

    Arrays that broadcast over the blocks: whether a cell is in the window at all, which
    position its run begins at, and how many positions it has. And for each axis along
    a block the range of cells that are in the window, and whether all of them are.
    """

    is_in: Numbers
    start: Numbers
    length: Numbers
    inside: Mapping[int, range]
    is_whole: bool

    def only(self, told: jax.Array) -> jax.Array:
        """What is told of cells that are in the window, 0 for others."""
        return told if self.is_whole else select(jnp.asarray(self.is_in), told, 0)


def _wins(place: Place, position: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Whether the winner is in the run, and its position there."""
    inner = position - jnp.asarray(place.start, position.dtype)
    # What is before the run has wrapped to large numbers.
    wins = inner <= jnp.asarray(place.length - 1, position.dtype)
    return wins if place.is_whole else wins & place.is_in, inner


def _won(place: Place, g: jax.Array, position: jax.Array) -> jax.Array:
    """The cotangent, if the run won it."""
    return select(_wins(place, position)[0], g, 0)


def _inner(place: Place, position: jax.Array) -> jax.Array:
    """The position inside the run, if that has the winner."""
    wins, inner = _wins(place, position)
    return select(wins, inner, 0)


def _covered(place: Place, g: jax.Array) -> jax.Array:
    """The cotangent, for all cells of the window.

    Not by a select: what it selects by would be kept for the transpose.
    """
    shape, around = list(g.shape), {}
    for axis, inside in place.inside.items():
        shape[axis] = len(inside)
        around[axis] = inside.start, place.is_in.shape[axis] - inside.stop
    return pad(jnp.broadcast_to(g, shape), _ZERO, around)


def _undo(
    step: Step,
    op: Op,
    tell: Callable[..., jax.Array],
    arrays: Deferred,
    most_pads: int | None = None,
    blocks: Deferred | None = None,
) -> Deferred:
    """For each run, fold by `op` what `tell` says of each window that covers it.

    In blocks of `stride` runs, which the same windows cover: an axis along the blocks
    comes after each axis of the step. `blocks` are arrays of runs to tell about too.
    """
    dims = {axis + i: dim for i, (axis, dim) in enumerate(_coverings(step).items())}
    inside = {
        axis: (dim.covering()[2], dim.size, 1)
        for axis, dim in zip(step.axes, step.dims, strict=True)
    }

    def opened(*arrays: jax.Array) -> Arrays:
        return tuple(jnp.expand_dims(a, [axis + 1 for axis in dims]) for a in arrays)

    def found(number: Cell, windows: Windows, *arrays: jax.Array) -> jax.Array:
        place = _place(step, number, [axis + 1 for axis in dims], arrays[0].ndim)
        around = (seen(a, dims, number, windows) for a in arrays[:known])
        own = (of_windows(a, dims, windows) for a in arrays[known:])
        return tell(place, *around, *own)

    def merged(blocks: jax.Array) -> Arrays:
        full = list(blocks.shape)
        for axis, dim in zip(dims, step.dims, strict=True):
            full[axis + 1] = dim.stride
        blocks = jnp.broadcast_to(blocks, full)
        for axis in reversed(dims):
            blocks = with_next(blocks, axis)
        return (cut(blocks, inside),)

    most = most_pads if len(dims) == 1 else None  # several are few enough
    known, told = len(arrays.arrays), arrays.then(opened)
    told = told if blocks is None else told.beside(blocks)
    return fold(op, found, _ZERO, dims, told, most).then(merged)


def _place(step: Step, number: Cell, axes: list[int], rank: int) -> Place:
    """The `number`-th of the windows that cover the blocks, seen from their cells."""
    is_in, start = np.ones((1,) * rank, bool), np.zeros((1,) * rank, np.int32)
    length, inside, is_whole = (
        np.full((1,) * rank, min(step.last, MOST), np.int32),
        {},
        True,
    )
    for axis, dim, weight, i in zip(axes, step.dims, step.weights, number, strict=True):
        first = dim.covering()[1] - i * dim.stride
        ends = (min(max(-first + j, 0), dim.stride) for j in (0, dim.window))
        inside[axis] = range(*ends)
        is_whole = is_whole and len(inside[axis]) == dim.stride
        js = numbers(dim.stride).astype(np.int32) + first
        js = js.reshape([-1 if other == axis else 1 for other in range(rank)])
        is_in = is_in & (js >= 0) & (js < dim.window)
        start = start + js.clip(0, dim.window - 1) * min(weight, MOST)
        if weight != step.last and len(axes) == 1:  # runs of several cells
            length = module_of(js).where(
                js == dim.window - 1, min(step.last, MOST), min(weight, MOST)
            )
    return Place(is_in, start, length, inside, is_whole)


def _coverings(step: Step) -> Dims:
    """The windows that cover each block of cells, for each axis."""
    return {
        axis: dim.covering()[0] for axis, dim in zip(step.axes, step.dims, strict=True)
    }


def _at_stride_one(step: Step) -> tuple[Step, Callable[..., Arrays]]:
    """The step over windows that are moved apart, and what moves them."""
    (axis,), (dim,) = step.axes, step.dims
    out = dim.out * dim.stride

    def move(*arrays: jax.Array) -> Arrays:
        around, between = {axis: (0, dim.stride - 1)}, dim.stride - 1
        return tuple(pad(array, _ZERO, around, between) for array in arrays)

    return replace(step, dims=(replace(dim, stride=1, out=out),)), move


def _in_blocks(step: Step, *arrays: jax.Array) -> Arrays:
    """The cells of a step in the blocks that the same windows cover."""
    for number, (axis, dim) in enumerate(zip(step.axes, step.dims, strict=True)):
        covering, _, before = dim.covering()
        at = axis + number
        around = {at: (before, covering.out * dim.stride - before - dim.size)}
        cells = (pad(cut(a, {at: (0, dim.size, 1)}), _ZERO, around) for a in arrays)
        arrays = tuple(split(a, at, dim.stride) for a in cells)
    return arrays


def _uncropped(window: Window, array: jax.Array) -> Arrays:
    """With zeros where the input ends beyond the last window."""
    beyond = {axis: (0, dim.size - array.shape[axis]) for axis, dim in window.pairs()}
    return (pad(array, _ZERO, beyond),)
