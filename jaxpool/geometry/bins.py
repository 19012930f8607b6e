"""Static geometry of bins: windows whose places and lengths vary along an axis.

Python integers only, like `_window`, and no jax. A bin is a run of cells. Bins that
are known when tracing have their first and last cells here; of bins that are drawn
at random there is only what holds for every draw.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from jaxpool.geometry.axes import (
    Ints,
    as_ints,
    as_optional_ints,
    check_at_least,
    per_axis,
    pooled_axes,
)
from jaxpool.geometry.sizes import check_known, is_symbolic
from jaxpool.geometry.spelling import spelled
from jaxpool.geometry.window import (
    MOST,
    AxisWindow,
    Window,
    check_countable,
    check_filled,
)

OptionalInts: TypeAlias = int | Sequence[int | None] | None
Extent: TypeAlias = tuple[int, int]  # the least and the most

# Places that are drawn are computed from float32 samples, with 24 bits: twice rounded,
# they are wrong by less than size / 2**ROUNDING cells.
ROUNDING = 22


@dataclass(frozen=True)
class AxisBins:
    """One pooled axis, in `out` bins: runs of cells whose ends do not decrease.

    A bin has `cells` cells, and a cell lies in `covers` bins: at least and at most.
    Bins that are not drawn are equal parts of the axis, rounded outwards to cells.
    """

    size: int
    out: int
    cells: Extent
    covers: Extent
    is_drawn: bool = True

    @property
    def is_identity(self) -> bool:
        """Whether each bin is exactly the one cell at its own place."""
        return self.out == self.size and not self.is_drawn


@dataclass(frozen=True)
class Bins:
    """The pooled axes of an array, ascending, and the bins of each."""

    axes: tuple[int, ...]
    dims: tuple[AxisBins, ...]

    @property
    def most_cells(self) -> int:
        """How many cells the largest bin may have."""
        return math.prod(dim.cells[1] for dim in self.dims)

    @property
    def outs(self) -> tuple[int, ...]:
        """The size of the result on each pooled axis."""
        return tuple(dim.out for dim in self.dims)

    @property
    def weights(self) -> tuple[int, ...]:
        """How far apart neighbours on each axis are, in row-major order."""
        sizes = [dim.size for dim in self.dims]
        return tuple(math.prod(sizes[i + 1 :]) for i in range(len(sizes)))

    @property
    def window(self) -> Window | None:
        """The same bins as windows, if they tile every axis."""
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
    """PyTorch's bins: `output_shape` equal parts of an axis, rounded outwards to cells.

    As in its `AdaptiveAveragePoolKernel.cpp`. `None` keeps the size of an axis.
    """
    wanted = as_optional_ints("output_shape", output_shape)
    positions, outs = pooled_axes("output_shape", wanted, axes, shape)
    given = [out for out in outs if out is not None]
    check_at_least("output_shape", given, 1)
    if math.prod(given) > MOST:
        name = spelled("output_shape")
        raise ValueError(
            f"{name} must have at most 2**31 - 1 places; got {name}={output_shape}"
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
    """Bins of `window` cells that PyTorch's rule draws; also the axes as given."""
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
                "output_shape must not be more than x.shape - window + 1 on each axis, "
                f"so that no two windows are the same; got output_shape={out} with "
                f"window={length} on axis {axis}"
            )
        # Two starts that are o apart are at least o * room / (out - 1) - 1 - error
        # cells apart, and less than a window, if both windows have the cell.
        most = 1
        if room:
            most += ((length << ROUNDING) + size) * (out - 1) // (room << ROUNDING)
        dims[axis] = AxisBins(size, out, (length, length), (0, min(most, out)))
    return _ordered(dims), positions


def step_draws(
    shape: Sequence[int], output_shape: Ints, axes: Ints | None, overlapping: bool
) -> tuple[Bins, tuple[int, ...]]:
    """Bins that end where the next one begins, or one cell after; also the axes."""
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
                "output_shape must not be more than x.shape on each axis; "
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
    """Refuse bins that are no windows, where some sizes are symbolic."""
    pairs = tuple(zip(sizes, outs, strict=True))
    tiles = (
        out is None or (not is_symbolic(size) and size % out == 0)
        for size, out in pairs
    )
    if not all(out == 1 for out in outs) and not all(tiles):
        name = spelled("output_shape")
        raise ValueError(
            f"{name} must be 1 on each axis where sizes are symbolic, or None for "
            f"those and divide the others; got {name}={tuple(outs)}"
        )


def _tiled(size: int, out: int) -> AxisBins:
    """An axis in equal parts, of which or beside which a size is symbolic."""
    return AxisBins(size, out, (size // out,) * 2, (1, 1), is_drawn=False)


def _split(size: int, out: int) -> AxisBins:
    """An axis in `out` parts."""
    # Bin o has cell h if o * size / out < h + 1 and h < (o + 1) * size / out: if part h
    # of as many parts of the bins has bin o.
    return AxisBins(size, out, _extent(size, out), _extent(out, size), is_drawn=False)


def _extent(size: int, out: int) -> Extent:
    """How many cells a part has: from the least to the most.

    Part o begins `rest / out` of a cell before a full one, and `rest` is any multiple
    of the common divisor that is below `out`.
    """
    rest = out - math.gcd(size, out)
    return -(-size // out), -(-(size + rest) // out)
