"""Blocks of cells that the same windows cover, as the way back sees them.

Along an axis with a stride, the cells from one window to the next are a block. A window
may have some cells of a block only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool.engines.cells import ZERO, cut, pad, split
from jaxpool.engines.contract import Place
from jaxpool.engines.elementwise import pair, plus, select
from jaxpool.engines.loops import Arrays
from jaxpool.geometry.pooled import MOST
from jaxpool.geometry.steps import Step
from jaxpool.geometry.window import AxisWindow

Cell: TypeAlias = tuple[int, ...]  # the number of a cell in its window, for each axis
Spans: TypeAlias = dict[int, range]  # by axis


class Block(NamedTuple):
    """An axis of the input in blocks of `stride` cells.

    The axis `at` has the blocks, the axis `along` the cells of each; blocks of one cell
    need none.
    """

    axis: int
    at: int
    along: int | None
    dim: AxisWindow

    def first(self, number: int) -> int:
        """The place of a block's first cell in the `number`-th window that covers it.

        It is below 0 if the cell is before the window.
        """
        return self.dim.covering()[1] - number * self.dim.stride

    def span(self, number: int) -> range:
        """Which cells of a block are in that window."""
        size, first = self.dim.stride, self.first(number)
        start, stop = (min(max(j - first, 0), size) for j in (0, self.dim.window))
        return range(start, stop)


def blocks_of(step: Step) -> list[Block]:
    """The axes of a step in blocks."""
    blocks, more = list[Block](), 0
    for axis, dim in zip(step.axes, step.dims, strict=True):
        at = axis + more
        more += dim.stride > 1
        blocks.append(Block(axis, at, at + 1 if dim.stride > 1 else None, dim))
    return blocks


def in_blocks(blocks: Sequence[Block], *arrays: jax.Array) -> Arrays:
    """The cells of a step in the blocks that the same windows cover."""
    for _, at, along, dim in blocks:
        covering, _, before = dim.covering()
        around = {at: (before, covering.out * dim.stride - before - dim.size)}
        cells = (pad(cut(a, {at: (0, dim.size, 1)}), ZERO, around) for a in arrays)
        arrays = tuple(split(a, at, dim.stride) if along else a for a in cells)
    return arrays


@dataclass(frozen=True)
class Terms:
    """The terms of the windows that cover the blocks of a step, inside one loop.

    `count(axis, cells)` counts the cells along an axis of blocks.
    """

    step: Step
    blocks: Sequence[Block]
    count: Callable[[int, int], jax.Array]

    def of(
        self, term: Callable[..., Any], number: Cell, output: Arrays, cell: Arrays
    ) -> Any:
        """The terms of the cells of each block in the `number`-th of these windows."""
        spans: Spans = {}
        for block, i in zip(self.blocks, number, strict=True):
            if block.along is not None and len(block.span(i)) < block.dim.stride:
                spans[block.along] = block.span(i)
        if len(self.blocks) > 1:
            return self._only(spans, term(cell, output, self._place(number, {})))
        # XLA:CPU vectorises more loops if only the cells in the window are read.
        read = {axis: (span.start, len(span), 1) for axis, span in spans.items()}
        cell = tuple(cut(array, read) for array in cell)
        return self._padded(spans, term(cell, output, self._place(number, spans)))

    @property
    def _sizes(self) -> dict[int | None, int]:
        """The cells of a block along each axis of such cells."""
        return {block.along: block.dim.stride for block in self.blocks}

    def _place(self, number: Cell, spans: Spans) -> Place:
        """The window as all cells of a block see it, or those in the spans.

        A cell that is not in the window is nowhere.
        """
        first, later = 0, list[jax.Array]()
        weights = [min(weight, MOST) for weight in self.step.weights]
        for block, weight, i in zip(self.blocks, weights, number, strict=True):
            first += block.first(i) * weight
            if block.along is not None:
                cells = spans.get(block.along, range(block.dim.stride))
                first += cells.start * weight
                each = self.count(block.along, len(cells))
                later.append(lax.mul(*pair(each, weight)))
        start: Any = np.asarray(first)
        start = plus(reduce(lax.add, later), start) if later else start
        length: Any = min(self.step.last, MOST)
        if len(self.blocks) == 1 and length != weights[0]:  # runs of several cells
            ends = (self.blocks[0].dim.window - 1) * weights[0]
            length = jnp.where(start == ends, length, weights[0])
        return Place(start, length)

    def _only(self, spans: Spans, term: jax.Array) -> jax.Array:
        """A term, 0 for the cells of each block that are not in the spans."""
        edges = list[jax.Array]()
        for axis, span in spans.items():
            each = self.count(axis, self._sizes[axis])
            if span.start > 0:
                edges.append(lax.ge(*pair(each, span.start)))
            if span.stop < self._sizes[axis]:
                edges.append(lax.lt(*pair(each, span.stop)))
        return select(reduce(lax.bitwise_and, edges), term, 0) if edges else term

    def _padded(self, spans: Spans, term: jax.Array) -> jax.Array:
        """A term of the cells in the spans, 0 for the other cells of each block."""
        shape, around = list(term.shape), {}
        for axis, span in spans.items():
            shape[axis] = len(span)
            around[axis] = span.start, self._sizes[axis] - span.stop
        return pad(jnp.broadcast_to(term, shape), ZERO, around) if around else term


def terms_of(step: Step, rank: int) -> Terms:
    """Its terms in arrays of some rank; each array of numbers is made once."""

    @cache
    def count(axis: int, cells: int) -> jax.Array:
        # XLA:CPU vectorises more loops if numbers are not constants.
        shape = [cells if other == axis else 1 for other in range(rank)]
        return lax.broadcasted_iota(np.int32, shape, axis)

    return Terms(step, blocks_of(step), count)
