"""Static geometry of bins: runs of cells with different starts and lengths.

Python integers only, and no jax. Adaptive bins are fixed when tracing. Fractional bins
are drawn at random, when the program runs; here are only the bounds for every draw.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, SupportsIndex, TypeAlias

from jaxpool.geometry.axes import (
    Ints,
    as_ints,
    as_optional_ints,
    check_at_least,
    per_axis,
    pooled_axes,
)
from jaxpool.geometry.pooled import MOST, PooledAxes, check_countable, check_filled
from jaxpool.geometry.sizes import check_known, is_symbolic
from jaxpool.geometry.spelling import spelled
from jaxpool.geometry.window import AxisWindow, Window

OptionalInts: TypeAlias = SupportsIndex | Sequence[SupportsIndex | None] | None
Extent: TypeAlias = tuple[int, int]  # smallest and largest

# Starts are computed from float32 samples (24 bits) and rounded twice. Their error is
# less than size / 2**ROUNDING cells.
ROUNDING = 22


@dataclass(frozen=True)
class AxisBins:
    """One pooled axis with `out` bins. Starts and ends of bins do not decrease.

    `cells`: the smallest and largest number of cells in a bin. `covers`: the smallest
    and largest number of bins that contain a cell. If not `is_drawn`, the bins divide
    the axis equally, rounded outwards to cells.
    """

    size: int
    out: int
    cells: Extent
    covers: Extent
    is_drawn: bool = True

    may_miss: ClassVar[bool] = False
    dilation: ClassVar[int] = 1

    @property
    def length(self) -> int:
        """The most cells of a bin."""
        return self.cells[1]

    @property
    def is_identity(self) -> bool:
        """Whether bin `o` is exactly cell `o`."""
        return self.out == self.size and not self.is_drawn


@dataclass(frozen=True)
class Bins(PooledAxes):
    """The pooled axes of an array, and the bins of each."""

    dims: tuple[AxisBins, ...]

    @property
    def window(self) -> Window | None:
        """The bins as windows, if bins of equal size tile every axis."""
        dims = []
        for dim in self.dims:
            length, rest = divmod(dim.size, dim.out)
            if rest or dim.is_drawn:
                return None
            dims.append(AxisWindow(dim.size, length, length, 1, 0, 0, dim.out))
        return Window(self.axes, tuple(dims))


def adaptive_bins(
    shape: Sequence[int], output_shape: OptionalInts, axes: Ints | None
) -> Bins:
    """Bins that divide each axis equally, rounded outwards to cells, as in PyTorch.

    Source: `AdaptiveAveragePoolKernel.cpp`. `None` keeps the size of an axis.
    """
    wanted = as_optional_ints("output_shape", output_shape)
    positions, outs = pooled_axes("output_shape", wanted, axes, shape)
    given = [out for out in outs if out is not None]
    check_at_least("output_shape", given, 1)
    if math.prod(given) > MOST:
        name = spelled("output_shape")
        raise ValueError(
            f"{name} must have at most 2**31 - 1 outputs; got {name}={output_shape}"
        )
    dims = {}
    cut = _split
    if any(is_symbolic(shape[axis]) for axis in positions):
        cut = _tiled
        _check_tiles([shape[axis] for axis in positions], outs)
    for axis, out in zip(positions, outs, strict=True):
        check_filled(shape, axis)
        check_countable("x", shape[axis : axis + 1])
        dims[axis] = cut(shape[axis], shape[axis] if out is None else out)
    return _ordered(dims)


def window_draws(
    shape: Sequence[int], window: Ints, output_shape: Ints, axes: Ints | None
) -> tuple[Bins, tuple[int, ...]]:
    """Bounds for bins of `window` cells (PyTorch's rule); the axes in their order."""
    wanted = as_ints("output_shape", output_shape)
    positions, outs = pooled_axes("output_shape", wanted, axes, shape)
    lengths = per_axis("window", window, len(positions))
    check_at_least("output_shape", outs, 1)
    check_at_least("window", lengths, 1)
    dims = {}
    for axis, length, out in zip(positions, lengths, outs, strict=True):
        check_known(shape[axis], axis)
        check_countable("x", shape[axis : axis + 1])
        size, room = shape[axis], shape[axis] - length
        if out - 1 > room:
            raise ValueError(
                "output_shape must be at most x.shape - window + 1 on each axis, so "
                f"that all windows are different; got output_shape={out} with "
                f"window={length} on axis {axis}"
            )
        # If bins b and b + o both contain a cell, their starts differ by less than a
        # window, and by at least o * room / (out - 1) - 1 - error.
        most = 1
        if room:
            most += ((length << ROUNDING) + size) * (out - 1) // (room << ROUNDING)
        dims[axis] = AxisBins(size, out, (length, length), (0, min(most, out)))
    return _ordered(dims), positions


def step_draws(
    shape: Sequence[int], output_shape: Ints, axes: Ints | None, overlapping: bool
) -> tuple[Bins, tuple[int, ...]]:
    """Bounds for bins that end where the next starts; the axes in their order."""
    wanted = as_ints("output_shape", output_shape)
    positions, outs = pooled_axes("output_shape", wanted, axes, shape)
    check_at_least("output_shape", outs, 1)
    dims = {}
    for axis, out in zip(positions, outs, strict=True):
        size = shape[axis]
        check_known(size, axis)
        check_countable("x", [size])
        if out > size:
            raise ValueError(
                "output_shape must be at most x.shape on each axis; "
                f"got output_shape={out} on axis {axis}"
            )
        least, most = size // out, -(-size // out)
        overlap = overlapping and out > 1
        dims[axis] = AxisBins(size, out, (least, most + overlap), (1, 1 + overlap))
    return _ordered(dims), positions


def _ordered(dims: Mapping[int, AxisBins]) -> Bins:
    axes = tuple(sorted(dims))
    return Bins(axes, tuple(dims[axis] for axis in axes))


def _check_tiles(sizes: Sequence[int], outs: Sequence[int | None]) -> None:
    """Raise for bins that are not windows, if some sizes are symbolic."""
    pairs = tuple(zip(sizes, outs, strict=True))
    tiles = (
        out is None or (not is_symbolic(size) and size % out == 0)
        for size, out in pairs
    )
    if not all(out == 1 for out in outs) and not all(tiles):
        name = spelled("output_shape")
        raise ValueError(
            f"{name} must be 1 on each axis if sizes are symbolic, or None on "
            f"those axes and divide the others; got {name}={tuple(outs)}"
        )


def _tiled(size: int, out: int) -> AxisBins:
    """An axis in equal bins, where a size of this or another axis is symbolic."""
    return AxisBins(size, out, (size // out,) * 2, (1, 1), is_drawn=False)


def _split(size: int, out: int) -> AxisBins:
    """An axis divided into `out` bins."""
    # Bin o contains cell h if o * size / out < h + 1 and h < (o + 1) * size / out. This
    # is symmetric: `_extent(out, size)` counts the bins that contain a cell.
    return AxisBins(size, out, _extent(size, out), _extent(out, size), is_drawn=False)


def _extent(size: int, out: int) -> Extent:
    """The smallest and largest number of cells in a bin.

    The exact start of a bin is `rest / out` of a cell after the start of a cell. `rest`
    takes every multiple of `gcd(size, out)` below `out`.
    """
    rest = out - math.gcd(size, out)
    return -(-size // out), -(-(size + rest) // out)
