"""Static window geometry: which cells each window reads.

An `AxisWindow` describes one pooled axis, a `Window` all of them; `resolve` makes those
of users. All values are Python integers, and this module imports no jax, so nothing in
it can be traced or rounded. The divisors follow PyTorch
(`aten/native/AvgPoolKernel.cpp`).

Invariants of a resolved `AxisWindow`: size, window, stride, dilation and out are at
least 1, and padding on each side is smaller than the extent of the window.

If a size is symbolic (`jaxpool.geometry.sizes`), `out` is symbolic too, and so is a
window that covers the axis.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Self, TypeAlias

from jaxpool.geometry.pooled import PooledAxes
from jaxpool.geometry.sizes import is_symbolic

Numbers: TypeAlias = Any  # a NumPy or jax array of integers
# An axis can be split over up to 8 devices (2, 4 or 8) without being gathered.
SHARDS = 8


@dataclass(frozen=True)
class AxisWindow:
    """One pooled axis: window `o` reads the cells `o*stride + j*dilation - low`.

    `j` runs over `range(window)`. Cells outside `range(size)` are padding. `high` is
    the padding that the user passed; the last window may reach further (`ceil_mode`).
    """

    size: int
    window: int
    stride: int
    dilation: int
    low: int
    high: int
    out: int

    @property
    def length(self) -> int:
        """Number of cells of a window."""
        return self.window

    @property
    def extent(self) -> int:
        """Number of cells from the first to the last cell of a window, inclusive."""
        return (self.window - 1) * self.dilation + 1

    @property
    def span(self) -> int:
        """Number of cells from the first to the last cell that windows read."""
        return (self.out - 1) * self.stride + self.extent

    @property
    def reads(self) -> int:
        """Number of windows that read a cell, at most, where they are not dilated."""
        return -(-self.window // self.stride)

    @property
    def is_identity(self) -> bool:
        """Whether window `o` reads exactly cell `o`."""
        return self.window == 1 and self.out == self.size

    @property
    def is_whole(self) -> bool:
        """Whether the only window reads all cells of the axis."""
        is_one = self.out == 1 and self.low == 0 and self.dilation == 1
        return is_one and self.window == self.size

    @property
    def reads_all(self) -> bool:
        """Whether each cell of the axis is in a window, as far as is easy to see."""
        is_dense = self.dilation == 1 and (self.stride <= self.window or self.out == 1)
        return is_dense and self.low >= 0 and self.span - self.low >= self.size

    @property
    def may_miss(self) -> bool:
        """Whether a window may read only padding."""
        return self.dilation > 1 and (is_symbolic(self.low) or self.low > 0)

    @property
    def behind(self) -> int:
        """Number of padded cells after the input that windows reach."""
        if is_symbolic(self.high):  # exact
            return self.span - self.low - self.size
        if is_symbolic(self.size):  # an upper bound
            return self.high
        return max(0, self.span - self.low - self.size)

    def covered(self, o: Numbers, low: int, high: int) -> tuple[Numbers, Numbers]:
        """First and end of the `j` whose cells lie in `range(low, high)`.

        `o` is an array of windows. Windows far from an edge are clipped, so no number
        is much larger than a window.
        """
        before = low + self.low  # cells of the first window before `low`
        within = high + self.low - (self.out - 1) * self.stride  # of the last window
        far = max(0, -(-(self.extent - within) // self.stride))
        starts = o.clip(0, before // self.stride + 1) * self.stride - before
        ends = (self.out - 1 - o).clip(0, far) * self.stride + within
        first = (-(starts // self.dilation)).clip(0, self.window)
        return first, (-(-ends // self.dilation)).clip(first, self.window)

    def clipped(self) -> "AxisWindow":
        """The same windows without each `j` that is padding in every window.

        So a window much longer than the input costs no more than the input.
        """
        if is_symbolic(self.size):
            return self
        last = (self.out - 1) * self.stride - self.low  # where the last window starts
        first = max(0, -(last // self.dilation))
        end = min(self.window, -(-(self.size + self.low) // self.dilation))
        if first >= end:
            return self  # all windows read only padding
        first = min(first, self.low // self.dilation)
        window, low = end - first, self.low - first * self.dilation
        ends_before = low >= (window - 1) * self.dilation + 1
        begins_behind = (self.out - 1) * self.stride - low >= self.size
        if window == self.window or ends_before or begins_behind:
            return self
        dilation = self.dilation if window > 1 else 1
        stride = self.stride if self.out > 1 else window if dilation == 1 else 1
        numbers = (self.size, window, stride, dilation, low, self.high, self.out)
        return AxisWindow(*numbers)

    def seeing(self, j: int) -> range:
        """The windows whose cell `j` is a cell of the input."""
        place = j * self.dilation - self.low
        first = max(0, -(place // self.stride))
        last = min(self.out, (self.size - 1 - place) // self.stride + 1)
        return range(first, last) if first < last else range(0)

    def regions(self) -> tuple[tuple[range, range], ...]:
        """Runs of `j` that are input cells in the same windows, with these windows.

        A `j` that is padding in every window is left out, unless all are.
        """
        found: list[tuple[range, range]] = []
        for j in range(self.window):
            js, windows = range(j, j + 1), self.seeing(j)
            if found and found[-1][1] == windows:
                js = range(found.pop()[0].start, j + 1)
            if windows:
                found.append((js, windows))
        return tuple(found) or ((range(self.window), range(0)),)

    def covering(self) -> tuple["AxisWindow", int, int]:
        """The windows that read each block of `stride` cells, described as a window.

        Returns it, and the place `j` of the block's first cell in the first of these
        windows; in each further window `j` is `stride` less. Also returns the number of
        padded cells in the first block: blocks start where windows start, or with the
        input if no more windows cover a block then. The last block may reach beyond the
        input.
        """
        if self.stride == 1:
            low, first = self.extent - 1 - self.low, self.window - 1
            dims = AxisWindow(
                self.out, self.window, 1, self.dilation, low, 0, self.size
            )
            return dims, first, 0
        # How many windows of it start in the block, and in how many blocks before it.
        latest = (self.low + self.stride - 1) // self.stride
        earliest = (self.window - 1 - self.low) // self.stride
        before, count = 0, latest + earliest + 1
        if count > self.reads:
            before, count, earliest = self.low, self.reads, self.reads - 1
        first = self.low - before + earliest * self.stride
        out = self.splitting(-(-(self.size + before) // self.stride))
        return AxisWindow(self.out, count, 1, 1, earliest, 0, out), first, before

    def splitting(self, cells: int) -> int:
        """`cells`, rounded up to a size that splits evenly if input and output do.

        Over up to `SHARDS` devices. XLA's partitioner exchanges only edges of arrays
        that split evenly, and gathers other arrays.
        """
        shards = math.gcd(self.size, self.out, SHARDS)
        return -(-cells // shards) * shards

    def counts(self, o: Numbers, include_pad: bool) -> Numbers:
        """Number of input cells in each window `o`.

        `include_pad` counts `low` and `high` padding too, but never the cells that only
        `ceil_mode` adds.
        """
        low, high = (
            (-self.low, self.size + self.high) if include_pad else (0, self.size)
        )
        first, end = self.covered(o, low, high)
        return end - first


@dataclass(frozen=True)
class Window(PooledAxes):
    """The pooled axes of an array, and windows along each."""

    dims: tuple[AxisWindow, ...]

    @property
    def are_apart(self) -> bool:
        """Whether no two windows overlap."""
        return all(dim.extent <= dim.stride for dim in self.dims)

    @property
    def reads(self) -> int:
        """Number of windows that read a cell, at most, where they are not dilated."""
        return math.prod(dim.reads for dim in self.dims)

    @property
    def is_countable(self) -> bool:
        """Whether int32 can count the places of a window, or the cells of the input."""
        extent = math.prod(dim.extent for dim in self.dims)
        return is_symbolic(extent) or extent <= 1 << 30 or super().is_countable

    def clipped(self) -> Self:
        """The same windows without places that are padding in every window."""
        return replace(self, dims=tuple(dim.clipped() for dim in self.dims))

    def filled(self) -> Self:
        """The same windows over an input that already has its padding."""
        dims = (
            replace(dim, size=dim.size + dim.low + dim.high, low=0, high=0)
            for dim in self.dims
        )
        return replace(self, dims=tuple(dims))
