"""The steps that reduce a window: static, Python integers only, no jax.

- A window is a product of intervals, so its axes can be reduced one after the other.
  The cost is the sum of its sides, not their product.
- A long window is a chain of short windows; each combines the runs of cells that the
  previous one reduced. The cost grows with the logarithm of the window.
- Axes with short windows are reduced together in one step: then only the result is
  written to memory.
"""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeAlias

from jaxpool.geometry.pooled import PooledAxes
from jaxpool.geometry.window import AxisWindow, Window

# Measured by `python -m experiments thresholds`.
# Cells of a block, if a long window can be reduced in blocks.
BLOCK = 8
# Limits for reducing axes together: reads of each cell, cells of a window, and regions
# of the result that XLA has to pad.
MOST_READS = 4
MOST_CELLS = 36
MOST_PADS = 3
# In place of `MOST_CELLS`: where cells are added; where each costs a division.
MOST_ADDED = 64
MOST_RATIOS = 16
# The cost of one more step, in reads of a cell.
STEP_COST = 6
# Runs that one backward step combines: each costs one more select.
MOST_RUNS = 2
# Cells along an axis that are reduced one after the other: each is an operation of the
# program.
MOST_SLICES = 256
# Selects for each cell on the way back.
MOST_SELECTS = 9

# (number of runs to combine, cells from one run to the next, single cells to add)
Link: TypeAlias = tuple[int, int, int]
Split: TypeAlias = Callable[[AxisWindow], tuple[Link, ...]]
Dims: TypeAlias = Sequence[AxisWindow]
Pays: TypeAlias = Callable[[Dims], bool]


@dataclass(frozen=True)
class Step(PooledAxes):
    """A reduction along one axis, or along several axes together.

    It combines runs of cells that earlier steps reduced; in the first step a run is one
    cell. In the row-major order of the window, neighbouring runs start `weights` cells
    apart on each axis. A run ends where the next starts; the last run has `last` cells.

    `rest` is a window of single cells to combine with the runs. It reads the input of
    the chain, which is the input of the step with `begins`. Only operations that must
    not read a cell twice have one. They ignore positions, so it has none.
    """

    dims: tuple[AxisWindow, ...]
    weights: tuple[int, ...]
    last: int
    begins: bool = True
    rest: AxisWindow | None = None

    @property
    def pieces(self) -> tuple["Step", ...]:
        """What it combines: the runs, and single cells."""
        if self.rest is None:
            return (self,)
        return self, replace(self, dims=(self.rest,), rest=None)

    def start(self, cell: Sequence[int]) -> int:
        """The row-major position where a run starts."""
        return sum(map(operator.mul, cell, self.weights))

    def run_length(self, cell: Sequence[int]) -> int:
        """The number of positions in a run."""
        (dim, *others), (weight, *_) = self.dims, self.weights
        return self.last if others or cell[0] == dim.window - 1 else weight


def forward_steps(
    window: Window,
    doubling: bool,
    *,
    idempotent: bool = False,
    ordered: bool = False,
    alone: int | None = None,
) -> list[Step]:
    """The steps that reduce `window`. `doubling` splits long windows.

    An `idempotent` operation, such as a maximum, may read a cell twice. With `ordered`,
    cells are combined in row-major order: the last axis is reduced first, each axis in
    its own steps. Otherwise the first axis is reduced first, because its cells lie in
    longer runs of memory. The axis `alone` gets its own steps.
    """
    most = MOST_CELLS if idempotent else MOST_ADDED
    split = _split(doubling, overlap=idempotent, most=BLOCK)
    chains = _chains(window, split)
    chains = chains[::-1] if ordered else _merged(chains, _paying(most), alone)
    return [step for chain in chains for step in chain]


def norm_steps(window: Window, doubling: bool, most: int) -> list[Step]:
    """The steps for an operation that divides by each cell; also used backward.

    Axes are reduced together for at most `most` cells.
    """

    def pays(dims: Dims) -> bool:
        return not is_sparse(dims) and _paying(most)(dims)

    split = _split(doubling, overlap=False, most=BLOCK)
    chains = _merged(_chains(window, split), pays, None)
    return [step for chain in chains for step in chain]


def is_sparse(dims: Dims) -> bool:
    """Whether the windows that read a block of cells are not neighbours."""
    return any(dim.dilation > 1 and dim.stride > 1 for dim in dims)


def backward_steps(
    window: Window, doubling: bool, alone: int | None = None
) -> list[Step]:
    """The steps to undo, in this order, from windows back to cells.

    The axis `alone` gets its own steps.
    """
    return _undoing(window, _split(doubling, overlap=True, most=MOST_RUNS), alone)


def spread_steps(window: Window, doubling: bool = False) -> list[Step]:
    """The same for a sum, whose cotangent goes to all cells."""
    return _undoing(window, _split(doubling, False, BLOCK), None, copied=True)


def _undoing(
    window: Window, split: Split, alone: int | None, copied: bool = False
) -> list[Step]:
    """The steps from windows back to cells."""

    def pays(dims: Dims) -> bool:
        if is_sparse(dims):
            return False
        covers = [dim.covering()[0] for dim in dims]
        partly = any(dim.window % dim.stride for dim in dims)  # one more select each
        selects = math.prod(dim.window for dim in covers) * (1 + partly)
        return selects <= MOST_SELECTS and pads_of(covers) <= MOST_PADS

    chains = _merged(_chains(window, split, copied), pays, alone)
    return [step for chain in chains for step in reversed(chain)]


def pads_of(dims: Dims) -> int:
    """Number of regions of a reduction that do not cover its full result."""
    regions = [dim.regions() for dim in dims]
    whole = all(
        any(len(windows) == dim.out for _, windows in parts)
        for dim, parts in zip(dims, regions, strict=True)
    )
    return math.prod(map(len, regions)) - whole


def _chains(window: Window, split: Split, copied: bool = False) -> list[list[Step]]:
    """For each axis that is not an identity, its chain of steps.

    With `copied`, an axis with one window has one step.
    """
    found, weight = [], window.cells
    for axis, dim in window.pairs():
        weight //= dim.window
        if copied and dim.out == 1 and dim.dilation == 1:
            found.append([Step((axis,), (dim,), (weight,), weight)])
        else:
            found.append(_chain(axis, dim, weight, split))
    return found


def _merged(
    chains: list[list[Step]], pays: Pays, alone: int | None
) -> list[list[Step]]:
    """The chains, with one step for neighbouring axes where `pays` says so."""
    merged: list[list[Step]] = []
    for chain in chains:
        if merged and len(merged[-1]) == len(chain) == 1:
            (one,), (other,) = merged[-1], chain
            both = Step(
                one.axes + other.axes,
                one.dims + other.dims,
                one.weights + other.weights,
                other.last,
            )
            if other.axes != (alone,) and pays(both.dims):
                merged[-1] = [both]
                continue
        merged.append(chain)
    return merged


def _paying(most: int) -> Pays:
    """A test of axes: whether to reduce them together is faster, up to `most` cells."""

    def pays(dims: Dims) -> bool:
        reads = math.prod(dim.reads for dim in dims)
        cells = math.prod(dim.window for dim in dims)
        return reads <= MOST_READS and cells <= most and pads_of(dims) <= MOST_PADS

    return pays


def _chain(axis: int, dim: AxisWindow, weight: int, split: Split) -> list[Step]:
    """The steps along one axis, whose cells are `weight` apart in the window.

    A window of more than `BLOCK` cells is first reduced in blocks, then over blocks, if
    a block size divides the window and its stride.
    """
    steps = []
    while dim.window > BLOCK and dim.dilation == 1:
        common = math.gcd(dim.window, dim.stride)
        if dim.out == 1:
            block, stride = BLOCK, 1
        else:
            block = max(r for r in range(1, BLOCK + 1) if common % r == 0)
            stride = dim.stride // block
        if block == 1:
            break
        size, blocks = min(dim.size, dim.span - dim.low), -(-dim.span // block)
        window = blocks - (dim.out - 1) * stride
        blocks = dim.splitting(blocks)
        reduced = AxisWindow(size, block, block, 1, dim.low, 0, blocks)
        steps.append(Step((axis,), (reduced,), (weight,), weight))
        dim = AxisWindow(blocks, window, stride, 1, 0, 0, dim.out)
        weight *= block
    return steps + _linked(axis, dim, weight, split(dim))


def _linked(
    axis: int, dim: AxisWindow, weight: int, links: tuple[Link, ...]
) -> list[Step]:
    """One step per link. All steps except the last start a run at every cell."""
    steps, run = [], 1
    size, low, even = dim.size, dim.low, dim.splitting
    for number, (count, apart, rest) in enumerate(links, 1):
        longer = (count - 1) * apart + run + rest
        is_last = number == len(links)
        stride = dim.stride if is_last else 1
        out = dim.out if is_last else even(dim.span - (longer - 1) * dim.dilation)
        runs = AxisWindow(size, count, stride, apart * dim.dilation, low, 0, out)
        singles = None
        if rest:
            before = dim.low - (longer - rest) * dim.dilation
            singles = AxisWindow(dim.size, rest, stride, dim.dilation, before, 0, out)
        steps.append(
            Step(
                (axis,), (runs,), (apart * weight,), run * weight, number == 1, singles
            )
        )
        size, low, run = out, 0, longer
    return steps


def _split(doubling: bool, overlap: bool, most: int) -> Split:
    """A function that divides a window along an axis into links."""

    def split(dim: AxisWindow) -> tuple[Link, ...]:
        pays = doubling and dim.window >= 4 * dim.stride
        if pays or dim.window > MOST_SLICES:
            return links_of(dim.window, overlap, most)
        return _whole(dim.window)

    return split


def _whole(window: int) -> tuple[Link, ...]:
    """The chain of a window that is not split: one link."""
    return ((window, 1, 0),)


@lru_cache(maxsize=4096)
def links_of(window: int, overlap: bool, most: int) -> tuple[Link, ...]:
    """The cheapest chain that reduces `window`, with at most `most` runs per link."""
    best = _whole(window)
    for count in range(2, most + 1):
        run = -(-window // count) if overlap else window // count
        if overlap:
            while (window - run) % (count - 1):
                run += 1
        if not 1 < run < window:
            continue
        apart = (window - run) // (count - 1) if overlap else run
        rest = 0 if overlap else window - count * run
        chain = (*links_of(run, overlap, most), (count, apart, rest))
        best = min(best, chain, key=_cost)
    return best


def _cost(links: Sequence[Link]) -> int:
    """The cost of a chain: cells to read; the first link reads a padded axis."""
    reads = sum(count + rest for count, _, rest in links)
    return reads + links[0][0] + STEP_COST * len(links)
